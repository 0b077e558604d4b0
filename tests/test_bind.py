"""A rule with its hyperparameters, and what init, names, copies and second starts of one are worth."""

import copy
import math
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import optree
import pytest
from libraries import assert_same_bits

import xopt
from xopt import counts, typed
from xopt.arrays import same_shape
from xopt.backends import fuse
from xopt.rule import Rule
from xopt.tree import walk


def both_ways(rule: Rule[Any, Any]) -> list[Any]:
    return [rule, fuse(rule), fuse(rule, donate=True)]


# What errors alone need.


def test_no_path_of_a_leaf_is_made_where_nothing_is_wrong(rule: Rule[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes as long as the tree is large, so that a path for each leaf is the square of that."""
    params = {"a": np.ones(2, np.float32), "b": [np.zeros(3, np.float32), np.ones(())]}
    state = rule.init(params)
    hyper = {}
    for name, interval in rule.ranges.items():
        value = rule.defaults[name]
        if value is not None:
            hyper[name] = {"a": value, "b": [value, list(value)]} if interval.sequence else {"a": np.float64(value), "b": value}
    several = state._replace(step={"a": np.int64(0), "b": [0, np.asarray(0)]})
    if rule.carried:
        several = several._replace(**{name: {"a": np.float64(x), "b": [x, np.asarray(x)]} for name, x in rule.carried.items()})

    xopt.tree.scale(params, 1.0)  # what an array's type is asked once is asked here

    def fail(*_: Any) -> None:
        pytest.fail("a path was made")

    for module in (typed, counts, walk):
        monkeypatch.setattr(module, "path_of", fail)
    for given in (state, several):
        for step in both_ways(rule)[:2]:
            step(given, params, **hyper) if callable(step) else step.step(given, params, **hyper)
    clipped, _ = xopt.tree.clip_by_global_norm(params, 1.0)
    xopt.tree.average(params, clipped, decay=0.5)
    xopt.tree.clip(clipped, {"a": np.float64(0.9), "b": 0.5})
    with pytest.raises(pytest.fail.Exception, match="a path was made"):  # and where something is, it is
        rule.step(state, params, lr={"a": np.float64(-1.0), "b": 0.5})


# Binding.


def test_one_dict_serves_init_and_step(rule: Rule[Any, Any]) -> None:
    hyper = {name: (0.0, 0.5) if rule.ranges[name].sequence else 0.0 for name in rule.of_init if not name.endswith("_warmup")}
    opt, grad = rule.bind(lr=0.25, **hyper), np.asarray([1.0, -2.0])
    state, expected = opt.init(np.ones(2)), rule.init(np.ones(2), **hyper)
    for lr in (0.25, 0.5):
        state = opt.step(state, grad, lr=lr)
        expected = rule.step(expected, grad, **{"lr": lr} | hyper)
    assert_same_bits(state, expected)
    fused = fuse(opt)
    assert_same_bits(fused(fused(opt.init(np.ones(2)), grad), grad, lr=0.5), state)


def test_what_is_bound_is_checked_and_shown() -> None:
    assert repr(xopt.lion.bind(lr=0.5, beta2=0.0)) == "lion.bind(lr=0.5, beta2=0.0)"
    with pytest.raises(TypeError, match="unknown hyperparameter 'beta3'; did you mean beta"):
        xopt.lion.bind(beta3=0.5)
    with pytest.raises(ValueError, match=r"lion.bind: lr must be in \[0, inf\), got -1.0"):
        xopt.lion.bind(lr=-1.0)
    with pytest.raises(ValueError, match=r"aggmo.bind: betas\[1\] must be in \[0, 1\), got 1.0"):
        xopt.aggmo.bind(betas=(0.5, 1.0))
    params = {"w": np.ones(2), "b": np.ones(1)}
    opt = xopt.adamw.bind(weight_decay={"w": 0.5, "b": -1.0})  # of which leaf it is, the tree of params tells
    with pytest.raises(ValueError, match=r"weight_decay\['b'\] must be in"):
        opt.step(opt.init(params), params)


def test_hyperparameters_that_init_does_not_use_are_named(rule: Rule[Any, Any]) -> None:
    others = [name for name in rule.defaults if name not in rule.of_init]
    assert "lr" in others
    for name in others:
        value = rule.defaults[name]
        with pytest.raises(TypeError, match=rf"{rule.name}_init: {name} belongs to {rule.name}_step.*{rule.name}.bind\({name}"):
            rule.init(np.ones(2), **{name: value})


def test_betas_make_groups_too() -> None:
    betas = {"w": (0.0, 0.5), "b": [0.25], "n": (0.0, 0.5)}
    params = {name: np.asarray([1.0, -2.0, 3.0]) for name in betas}
    for step in [*both_ways(xopt.aggmo)[1:], xopt.aggmo.step]:
        state = xopt.aggmo_init({name: x * 1 for name, x in params.items()}, betas=betas)
        assert [len(state.v[name]) for name in betas] == [2, 1, 2]
        for _ in range(3):
            state = step(state, params, lr=0.5, betas=betas)
        for name, own in betas.items():
            alone = xopt.aggmo_init(params[name] * 1, betas=own)
            for _ in range(3):
                alone = xopt.aggmo_step(alone, params[name], lr=0.5, betas=own)
            assert_same_bits((state.params[name], state.v[name]), (alone.params, alone.v))
    with pytest.raises(ValueError, match=r"betas must be a sequence of numbers or a tree.*betas\['n'\] is missing"):
        xopt.aggmo_init(params, betas={"w": (0.5,), "b": (0.5,)})
    with pytest.raises(ValueError, match=r"betas\['b'\]\[0\] must be in"):
        xopt.aggmo_init(params, betas=betas | {"b": [1.5]})


# Names.


@pytest.mark.parametrize(
    ("rule", "name", "says"),
    [
        ("adam", "weight_decay", "it takes lr, beta1, beta2, eps, eps_root; there is adamw, which has it"),
        ("sgd", "momentum", "it takes lr, weight_decay; there is momentum, which has beta"),
        ("sgd", "beta", "it takes lr, weight_decay; there is momentum, which has it"),
        ("momentum", "momentum", "did you mean beta"),
        ("adam", "betas", "did you mean beta1 and beta2"),
        ("qhadam", "nus", "did you mean nu1 and nu2"),
        ("lion", "learning_rate", "did you mean lr"),
        ("lion", "nonsense", "it takes lr, beta1, beta2, weight_decay$"),
    ],
)
def test_an_unknown_hyperparameter_is_answered(rule: str, name: str, says: str) -> None:
    for step in both_ways(xopt.RULES[rule]):
        with pytest.raises(TypeError, match=f"{rule}_step: unknown hyperparameter '{name}'; {says}"):
            (step.step if isinstance(step, Rule) else step)(xopt.RULES[rule].init(np.ones(1)), np.ones(1), **{name: 0.5})


def test_no_error_prints_an_array() -> None:
    params = {"w": np.arange(1000.0), "b": np.arange(3.0)}
    for lr in ({"w": np.arange(1000.0)}, {"w": 0.5, "b": np.arange(1000.0)}, {"w": 0.5, "c": 0.5}, [np.arange(1000.0)]):
        with pytest.raises((TypeError, ValueError), match="sgd_step: lr") as error:
            xopt.sgd_step(xopt.sgd_init(params), params, lr=lr)
        assert "..." not in str(error.value)
        assert len(str(error.value)) < 300


# Params that cannot begin.


@pytest.mark.parametrize("empty", [{}, (), [], {"a": []}, {"a": None}], ids=repr)
def test_params_without_an_array_are_refused(rule: Rule[Any, Any], empty: Any) -> None:
    with pytest.raises(ValueError, match=rf"{rule.name}_init: params must be a tree of at least one array, got"):
        rule.init(empty)
    state = rule.state(*[empty] * (1 + len(rule.slots)), 0)
    for step in (rule.step, fuse(rule)):
        with pytest.raises(ValueError, match=rf"{rule.name}_step: params must be a tree of at least one array, got"):
            step(state, empty)


def test_none_is_refused(rule: Rule[Any, Any]) -> None:
    with pytest.raises(TypeError, match=rf"{rule.name}_init: params must be an array or a tree of arrays, got None"):
        rule.init(None)


def test_dtypes_from_elsewhere_are_refused_in_words(rule: Rule[Any, Any]) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        with pytest.raises(TypeError, match=r"params is (bfloat16|float8_e4m3fn), a dtype that numpy has from elsewhere"):
            rule.init(np.ones(3, dtype))


def test_sizes_that_nobody_knows_yet_are_alike() -> None:
    def x(*shape: Any) -> Any:
        return SimpleNamespace(shape=shape)

    assert same_shape(x(float("nan"), 3), x(float("nan"), 3))
    assert same_shape(x(None), x(math.nan))
    assert not same_shape(x(math.nan, 3), x(math.nan, 4))
    assert not same_shape(x(math.nan), x(3))
    assert not same_shape(x(math.nan), x(math.nan, 3))


# Copies, files, second starts.


def test_rules_and_steps_are_copied_and_pickled(rule: Rule[Any, Any]) -> None:
    params, grad = {"a": np.ones(2), "b": np.ones(3)}, {"a": np.ones(2), "b": -np.ones(3)}
    opt = rule.bind(lr=0.25)
    steps = [rule.step, opt.step, fuse(rule), fuse(opt, donate=True), fuse(rule, compiler="blocks")]
    for _ in range(2):  # before they have stepped, and after
        for again in (copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
            assert again(rule) is rule
            assert again(rule.init)(params).step == 0
            for step in steps:
                other = again(step)
                assert getattr(other, "donate", None) == getattr(step, "donate", None)
                fresh = [rule.init(optree.tree_map(np.copy, params)) for _ in range(2)]
                assert_same_bits(other(fresh[0], grad), step(fresh[1], grad))


def test_a_rule_that_has_no_name_of_its_own_is_no_riddle() -> None:
    unnamed: Rule[Any, Any] = Rule("unnamed", xopt.sgd.state, xopt.sgd.coefficients, xopt.sgd.elementwise)
    with pytest.raises(pickle.PicklingError, match="<xopt rule unnamed> is no variable of xopt"):
        pickle.dumps(unnamed)
    assert copy.deepcopy(unnamed) is unnamed


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_params_of_a_donated_state_may_begin_another(rule: Rule[Any, Any], library: str) -> None:
    """What was given away is the state, not the arrays that a module goes on to use."""
    if library == "torch":
        torch = pytest.importorskip("torch", reason="torch is not installed")
        params = {name: torch.nn.Parameter(torch.ones(3)) for name in ("weight", "bias")}
        grad = {name: torch.full((3,), 0.5) for name in params}
        no_grad = torch.no_grad()
    else:
        params, grad = {"weight": np.ones(3), "bias": np.ones(3)}, {"weight": np.full(3, 0.5), "bias": np.full(3, 0.5)}
        no_grad = np.errstate()
    step = fuse(rule, donate=True)
    with no_grad:
        first = rule.init(params)
        after = step(first, grad, lr=0.25)
        with pytest.raises(ValueError, match="was donated to an earlier step"):
            step(first, grad, lr=0.25)
        again = step(after._replace(params=params), grad, lr=0.25) if rule.slots else step(after, grad, lr=0.25)
        assert again.step == 2
        second = rule.init(params)
        after = step(second, grad, lr=0.25)
        assert after.step == 1
        if rule.slots:
            for old in (first, second):
                with pytest.raises(ValueError, match="was donated to an earlier step"):
                    step(old, grad, lr=0.25)
