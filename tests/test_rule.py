"""What a rule does with good input: states, trees, hyperparameters, memory, precision, warm-ups."""

import inspect
import itertools
import pickle
import pydoc
import re
from typing import NamedTuple

import numpy as np
import optree
import pytest
from libraries import LIBRARIES, assert_same_bits, busy, leaves, normal, run, to_numpy

import xopt
from xopt.checks import Rate, as_number
from xopt.rule import Rule

MEMORY = [pytest.param(rule, slot, id=f"{rule.name}-{slot}") for rule in xopt.RULES.values() for slot in rule.memory]
HALF = [pytest.param(row.name, dtype, id=f"{row.name}-{dtype}") for row in LIBRARIES.values() for dtype in row.half]
ADAPTIVE = ("adam", "adamw", "nadam", "qhadam", "ademamix")


class Layer(NamedTuple):
    weight: object
    bias: object


TREES = {
    "array": lambda a, *_: a,
    "dict": lambda a, b, _: {"w": a, "b": b},
    "list": lambda a, b, c: [a, b, c],
    "tuple": lambda a, b, _: (a, b),
    "namedtuple": lambda a, b, _: Layer(a, b),
    "nested": lambda a, b, c: {"first": Layer(a, [b]), "last": (c,)},
    "none leaf": lambda a, *_: {"w": a, "b": None},
    "empty branch": lambda _, b, __: {"w": [], "b": (b,)},
}


def three(library, seed, dtype="float32"):
    return [library.array(normal(seed + i, *shape), dtype) for i, shape in enumerate([(4, 3), (3,), ()])]


# The public names.


def test_all_is_exact():
    functions = [name for rule in xopt.RULES for name in (rule, f"{rule}_init", f"{rule}_step")]
    conversions = [name for name, f in vars(xopt.conversions).items() if name.startswith(("qh", "aggmo_")) and callable(f)]
    assert len(conversions) == 18
    assert sorted(xopt.__all__) == sorted(
        ["RULES", "Rule", "register_namespace", "schedules", "skip_nonfinite", "tree", *functions, *conversions]
    )
    modules = {
        "arrays",
        "bound",
        "checks",
        "conversions",
        "counts",
        "documentation",
        "export",
        "memory",
        "nonfinite",
        "operations",
        "program",
        "rule",
        "rules",
        "scalars",
        "slots",
        "trees",
        "typed",
        "untraced",
    }
    modules |= {"backends", "conformance"}
    assert {name for name in vars(xopt) if not name.startswith("_")} - set(xopt.__all__) <= modules


def test_the_public_functions_are_those_of_the_table():
    for name, rule in xopt.RULES.items():
        assert rule.name == name
        assert (getattr(xopt, name), getattr(xopt, f"{name}_init"), getattr(xopt, f"{name}_step")) == (rule, rule.init, rule.step)
        assert repr(rule) == f"<xopt rule {name}>"


SIGNATURES = {
    "sgd": "lr=0.01, weight_decay=0.0",
    "momentum": "lr=0.01, beta=0.9, weight_decay=0.0",
    "nesterov": "lr=0.01, beta=0.9, weight_decay=0.0",
    "qhm": "lr=0.1, beta=0.999, nu=0.7, weight_decay=0.0",
    "aggmo": "lr=0.1, betas=(0.0, 0.9, 0.99), weight_decay=0.0",
    "adam": "lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08, eps_root=0.0",
    "adamw": "lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08, eps_root=0.0, weight_decay=0.01",
    "nadam": "lr=0.002, beta1=0.9, beta2=0.999, eps=1e-08, eps_root=0.0, psi=0.004, weight_decay=0.0",
    "qhadam": "lr=0.001, beta1=0.995, beta2=0.999, nu1=0.7, nu2=1.0, eps=1e-08, eps_root=0.0, weight_decay=0.0",
    "lion": "lr=0.0001, beta1=0.9, beta2=0.99, weight_decay=0.0",
    "ademamix": "lr=0.001, beta1=0.9, beta2=0.999, beta3=0.9999, alpha=8.0, eps=1e-08, eps_root=0.0, weight_decay=0.0, "
    "alpha_warmup=None, beta3_warmup=None",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature_shows_hyperparameters_and_defaults(name):
    assert str(inspect.signature(getattr(xopt, f"{name}_step"))) == f"(state, grad, *, {SIGNATURES[name]})"
    rule = xopt.RULES[name]
    of_init = ", ".join(f"{hyper}={rule.defaults[hyper]!r}" for hyper in rule.of_init)
    assert str(inspect.signature(rule.init)) == (f"(params, *, {of_init})" if of_init else "(params)")


def test_help_begins_with_the_formula_and_shows_all_that_is_known(rule):
    """Of the rule and its three functions: formula, hyperparameters with range, default and meaning, results, errors, notes."""
    of_all, said = {*rule.defaults}, rule.doc.split("\n\n")
    formula = [part for part in said if part.startswith("    ")]
    assert formula
    functions = {rule.init: {*rule.of_init}, rule.step: of_all, rule.bind: of_all}
    for function, name in zip(functions, (f"{rule.name}_init", f"{rule.name}_step", f"{rule.name}.bind"), strict=True):
        assert function.__name__ == function.__qualname__ == name
        assert function.__module__ == "xopt"
        assert pickle.loads(pickle.dumps(function)) is function
    assert str(inspect.signature(rule.bind)) == str(inspect.signature(rule.step)).replace("state, grad, ", "")
    for shown, taken in [(rule, of_all), *functions.items()]:
        text = pydoc.render_doc(shown, renderer=pydoc.plaintext)
        doc = "\n".join(line.removeprefix("    ").rstrip() for line in text.splitlines()[2:])
        title, *rest = doc.split("\n\n")
        assert said[0] in title
        assert rest[: len(formula)] == formula
        sections = re.findall(r"^(\w+)\n-+$", doc, re.MULTILINE)
        assert sections == [*(["Hyperparameters", "Methods"] if shown is rule else ["Parameters", "Returns"]), "Raises", "Notes"]
        for hyper, default in rule.defaults.items():
            found = re.search(rf"^{hyper} : (.+), default {re.escape(repr(default))}\n    (.+)$", doc, re.MULTILINE)
            assert (found is not None) == (hyper in taken), hyper
            assert found is None or found.groups() == (rule.ranges[hyper].words, rule.meanings[hyper])
        assert all(part in doc for part in said)


def test_what_editors_show_of_the_hyperparameters_is_so(rule):
    """The docstring of ``coefficients`` says range, unit and meaning of each, in its order."""
    lines = inspect.getdoc(rule.coefficients).splitlines()[2:]
    assert len(lines) == len(rule.defaults)
    for line, name in zip(lines, rule.defaults, strict=True):
        assert line == f"{name}: {rule.ranges[name].words}. {rule.meanings[name]}"
        assert re.search(r"\b(units? of|no unit|Steps)\b", rule.meanings[name]), line
        assert rule.meanings[name].endswith(".")


def test_a_rule_without_documentation_has_help():
    class State(NamedTuple):
        params: object
        step: int

    class Coefficients(NamedTuple):
        lr: float

    def coefficients(t, *, lr: Rate = 0.5):
        return Coefficients(lr)

    def update(params, grad, c):
        return (params - c.lr * grad,)

    rule = Rule("plain", State, coefficients, update)
    assert rule.meanings == {}
    assert "lr : in [0, inf), default 0.5\n\n" in rule.step.__doc__
    assert "lr : in [0, inf), default 0.5\n\n" in rule.__doc__


def test_defaults_are_those_of_the_signature(rule):
    x, g = normal(0, 5), [normal(i, 5) for i in (1, 2)]
    assert_same_bits(run(rule, x, g), run(rule, x, g, **rule.defaults))


# States and trees.


@pytest.mark.parametrize("tree", TREES)
def test_init_and_step_keep_the_tree(rule, library, tree):
    params, grad = (TREES[tree](*three(library, seed)) for seed in (0, 10))
    state = rule.init(params)
    assert type(state) is rule.state
    assert state._fields == ("params", *rule.slots, "step")
    assert state.params is params
    assert (state.step, type(state.step)) == (0, int)
    for count in (1, 2):
        before, state = state, rule.step(state, grad, **busy(rule))
        assert type(state) is rule.state
        assert (state.step, type(state.step)) == (count, int)
        assert optree.tree_structure(state) == optree.tree_structure(before)
        for old, new in zip(optree.tree_leaves(before), optree.tree_leaves(state), strict=True):
            assert type(new) is type(old)
            assert getattr(new, "shape", None) == getattr(old, "shape", None)
            assert getattr(new, "dtype", None) == getattr(old, "dtype", None)
        for old, new in zip(leaves(before.params), leaves(state.params), strict=True):
            assert np.all(old != new)


@pytest.mark.parametrize("tree", TREES)
def test_a_tree_is_its_leaves_stepped_alone(rule, library, tree):
    params, grad = (TREES[tree](*three(library, seed)) for seed in (0, 10))
    together = run(rule, params, [grad] * 3, **busy(rule))
    alone = [run(rule, p, [g] * 3, **busy(rule)) for p, g in zip(optree.tree_leaves(params), optree.tree_leaves(grad), strict=True)]
    assert_same_bits(optree.tree_leaves(together.params), [state.params for state in alone])
    for slot in rule.slots:
        assert_same_bits(optree.tree_leaves(getattr(together, slot)), optree.tree_leaves([getattr(s, slot) for s in alone]))


def test_slots_start_at_zero(rule, library):
    state = rule.init(library.array(normal(0, 3)))
    for slot in rule.slots:
        for x in leaves(getattr(state, slot)):
            assert np.all(x == rule.carried.get(slot, 0))


@pytest.mark.parametrize("count", [np.int64(6), np.uint8(6), np.int32(6)])
def test_numpy_step_count_is_a_step_count(rule, count):
    state = run(rule, normal(0, 3), [normal(1, 3)])
    stepped = rule.step(state._replace(step=count), normal(2, 3), **busy(rule))
    assert type(stepped.step) is int
    assert_same_bits(stepped, rule.step(state._replace(step=6), normal(2, 3), **busy(rule)))


def test_leaves_of_different_dtypes(rule, library):
    dtypes = ("float32", "float64", *library.half)
    params = {dtype: library.array(normal(0, 4), dtype) for dtype in dtypes}
    grads = {dtype: library.array(normal(1, 4), dtype) for dtype in dtypes}
    state = run(rule, params, [grads] * 2, **busy(rule))
    for dtype in dtypes:
        alone = run(rule, params[dtype], [grads[dtype]] * 2, **busy(rule))
        assert state.params[dtype].dtype == params[dtype].dtype
        assert_same_bits(state.params[dtype], alone.params)


@pytest.mark.parametrize(("library", "dtype"), HALF, indirect=["library"])
def test_half_precision_is_computed_in_float32_and_rounded_once(rule, library, dtype):
    half = library.array(normal(0, 40), dtype)
    state, wide = rule.init(half), rule.init(library.array(to_numpy(half)))  # the same values in float32
    for seed in (1, 2):
        grad = library.array(normal(seed, 40), dtype)
        state = rule.step(state, grad, **busy(rule))
        wide = rule.step(wide, library.array(to_numpy(grad)), **busy(rule))
        assert str(state.params.dtype).endswith(dtype)
        assert_same_bits(state[1:], wide[1:])  # the slots are float32
        rounded = library.array(to_numpy(wide.params), dtype)
        assert_same_bits(state.params, rounded)
        wide = wide._replace(params=library.array(to_numpy(rounded)))


# By hand. In float64; the operations that differ (m / (1 - beta**t) and the like) are a dozen roundings of an update of
# the size of lr, beside one rounding a step of parameters of size 1 to 2: 16 units in the last place of 1 are ample.


def close(got, expected):
    np.testing.assert_allclose(got, expected, rtol=0, atol=16 * np.finfo(float).eps)


P, G = normal(0, 6), [normal(seed, 6) for seed in (1, 2, 3)]


def test_sgd_by_hand():
    p = P
    for g in G:
        p = p - 0.5 * (g + 0.25 * p)
    close(run(xopt.sgd, P, G, lr=0.5, weight_decay=0.25).params, p)


def test_momentum_by_hand():
    p, v = P, 0
    for g in G:
        v = 0.75 * v + g
        p = p - 0.5 * v - 0.5 * 0.25 * p
    state = run(xopt.momentum, P, G, lr=0.5, beta=0.75, weight_decay=0.25)
    close(state.params, p)
    close(state.v, v)


def test_aggmo_by_hand():
    betas, p, v = (0.0, 0.5, 0.75), P, [0, 0, 0]
    for g in G:
        v = [beta * v_i + g for beta, v_i in zip(betas, v, strict=True)]
        p = p - 0.5 / 3 * sum(v) - 0.5 * 0.25 * p
    state = run(xopt.aggmo, P, G, {"betas": betas}, lr=0.5, betas=betas, weight_decay=0.25)
    close(state.params, p)
    assert state.v[0] is None
    close(state.v[1:], v[1:])


def test_lion_by_hand():
    p, m = P, 0
    for g in G:
        p = p - 0.5 * (np.sign(0.9 * m + 0.1 * g) + 0.25 * p)
        m = 0.99 * m + 0.01 * g
    state = run(xopt.lion, P, G, lr=0.5, weight_decay=0.25)
    close(state.params, p)
    close(state.m, m)


def test_adamw_by_hand():
    p, m, v = P, 0, 0
    for t, g in enumerate(G, 1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        p = p - 0.125 * ((m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-3) + 0.25 * p)
    state = run(xopt.adamw, P, G, lr=0.125, eps=1e-3, weight_decay=0.25)
    close(state.params, p)
    close(state.m, m)
    close(state.v, v)


# Hyperparameters.


def numeric(rule):
    """The hyperparameters that can be arrays or trees: numbers, not sequences."""
    return {name: value for name, value in busy(rule).items() if not rule.ranges[name].sequence}


def test_prefix_trees_are_parameter_groups(rule, library):
    """A tree of hyperparameters steps each leaf as if alone, bit for bit."""
    params, grad = ({"w": [*three(library, seed)[:2]], "b": three(library, seed)[2]} for seed in (0, 10))
    one = numeric(rule)
    two = {name: value * 0.5 for name, value in one.items()}
    state = run(rule, params, [grad] * 3, **{name: {"w": one[name], "b": two[name]} for name in one})
    w = run(rule, params["w"], [grad["w"]] * 3, **one)
    b = run(rule, params["b"], [grad["b"]] * 3, **two)
    for field in state._fields[:-1]:
        assert_same_bits(getattr(state, field), {"w": getattr(w, field), "b": getattr(b, field)})
    assert np.all(to_numpy(state.params["b"]) != to_numpy(run(rule, params["b"], [grad["b"]] * 3, **one).params))


def test_prefix_tree_of_one_hyperparameter_beside_plain_ones():
    params = {"w": (normal(0, 2), normal(1, 3)), "b": normal(2, 2)}
    full = run(xopt.lion, params, [params], lr=0.5, weight_decay={"w": (0.25, 0.5), "b": 0.0})
    for path, decay in ((lambda t: t["w"][0], 0.25), (lambda t: t["w"][1], 0.5), (lambda t: t["b"], 0.0)):
        alone = run(xopt.lion, path(params), [path(params)], lr=0.5, weight_decay=decay)
        assert_same_bits(path(full.params), alone.params)


def test_prefix_tree_at_init_decides_each_leaf():
    state = xopt.lion_init({"w": normal(0, 2), "b": normal(1, 2)}, beta1={"w": 0.9, "b": 0.0})
    assert state.m["w"] is not None
    assert state.m["b"] is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_0d_array_hyperparameters_are_numbers_to_rounding(rule, library, dtype):
    """Arithmetic on 0-d arrays rounds each coefficient a few times in the dtype, where numbers round once.

    A coefficient goes through at most eight such roundings here (t <= 3), in units of 2**-24 or 2**-53, and no update of the
    three has a coefficient larger than 16 beside parameters of size 1 to 2.
    """
    hyper = {name: float(np.asarray(value, dtype)) for name, value in numeric(rule).items()}
    p, grads = library.array(normal(0, 6), dtype), [library.array(normal(seed, 6), dtype) for seed in (1, 2, 3)]
    numbers = run(rule, p, grads, **hyper)
    arrays = run(rule, p, grads, **{name: library.array(value, dtype) for name, value in hyper.items()})
    eps = np.finfo(dtype).eps
    for got, expected in zip(leaves(arrays), leaves(numbers), strict=True):
        assert got.dtype == expected.dtype or expected.ndim == 0
        np.testing.assert_allclose(got, expected, rtol=8 * eps, atol=3 * 8 * 16 * eps * 0.0625)


def test_0d_array_of_another_library_is_its_number(rule):
    torch = pytest.importorskip("torch")
    hyper = numeric(rule)
    p, g = normal(0, 4), normal(1, 4)
    arrays = {name: torch.tensor(value, dtype=torch.float64) for name, value in hyper.items()}
    assert_same_bits(run(rule, p, [g] * 2, **arrays), run(rule, p, [g] * 2, **hyper))


def test_numpy_numbers_are_numbers(rule):
    hyper = numeric(rule)
    p, g = normal(0, 4).astype(np.float32), normal(1, 4).astype(np.float32)
    scalars = {name: np.float64(value) for name, value in hyper.items()}
    assert_same_bits(run(rule, p, [g] * 2, **scalars), run(rule, p, [g] * 2, **hyper))


def test_a_schedule_is_a_changing_number(rule, library):
    """lr * 2 doubles the move of the same state, exactly where there is nothing to round off."""
    zero, g = library.array(np.zeros(5)), library.array(normal(1, 5))
    state = rule.step(rule.init(zero), g, lr=0.25)._replace(params=zero)
    one, two = (to_numpy(rule.step(state, g, lr=lr).params) for lr in (0.25, 0.5))
    assert np.all(one != 0)
    assert np.array_equal(2 * one, two)


def test_lr_0_moves_nothing_but_the_state(rule, library):
    p, g = library.array(normal(0, 5)), library.array(normal(1, 5))
    state = run(rule, p, [g] * 2, lr=0.0)
    assert_same_bits(state.params, p)
    assert_same_bits(state[1:], run(rule, p, [g] * 2)[1:])


# Memory: a decay of 0.


@pytest.mark.parametrize(("rule", "slot"), MEMORY)
def test_decay_0_keeps_no_slot_and_the_same_bits(rule, slot, library):
    decay = rule.memory[slot]
    off = (0.0,) if rule.ranges[decay].sequence else 0.0
    hyper = busy(rule) | {decay: off, "lr": 0.25}
    hyper.pop("beta3_warmup", None)
    params, grads = library.array(normal(0, 5)), [library.array(normal(seed, 5)) for seed in (1, 2, 3)]
    told = run(rule, params, grads, {decay: off}, **hyper)
    untold_state = rule.init(params, **({decay: (0.5,)} if rule.ranges[decay].sequence else {}))
    assert optree.tree_leaves(getattr(untold_state, slot))
    for grad in grads:
        untold_state = rule.step(untold_state, grad, **hyper)
    assert not optree.tree_leaves(getattr(told, slot))
    assert_same_bits(told.params, untold_state.params)
    for other in set(rule.memory) - {slot}:
        if rule.memory[other] != decay:
            assert_same_bits(getattr(told, other), getattr(untold_state, other))


@pytest.mark.parametrize(("rule", "slot"), [case for case in MEMORY if case.id != "lion-m"])  # Lion's m moves with beta2
def test_decay_0_holds_the_gradient_itself(rule, slot, library):
    """Not told to init: a slot that existed anyway is the last gradient (or its square), bit for bit, beside any old value."""
    decay = rule.memory[slot]
    sequence = rule.ranges[decay].sequence
    start, off = ({decay: (0.5,)}, (0.0,)) if sequence else ({}, 0.0)
    grad = library.array(normal(1, 5))
    state = rule.step(rule.bind(**start).init(grad), library.array(1e6 * normal(2, 5)), **start)
    kept = getattr(rule.step(state, grad, **{decay: off}), slot)
    kept = kept[0] if sequence else kept
    assert_same_bits(kept, grad * grad if slot == "v" and rule.name in ADAPTIVE else grad)


@pytest.mark.parametrize(("rule", "slot"), MEMORY)
def test_a_slot_of_none_with_a_decay_is_an_error(rule, slot, library):
    decay = rule.memory[slot]
    off, on = ((0.0,), (0.5,)) if rule.ranges[decay].sequence else (0.0, 0.5)
    p = library.array(normal(0, 3))
    for params, path in ((p, ""), ({"w": p}, "['w']")):
        state = rule.init(params, **{decay: off})
        with pytest.raises(ValueError, match=f"{rule.name}_step: state.{slot}.* None.*{decay}=.*init") as error:
            rule.step(state, params, **{decay: on})
        assert f"state.{slot}{path} " in str(error.value)


def test_a_default_decay_counts_too():
    state = xopt.lion_init(normal(0, 3), beta1=0.0)
    with pytest.raises(ValueError, match=r"state\.m is None.*beta1=0\.9"):
        xopt.lion_step(state, normal(1, 3))


# AggMo.


@pytest.mark.parametrize("betas", [(0.5,), (0.0,), (0.9, 0.5), (0.5, 0.5, 0.5, 0.5), [0.1 * k for k in range(8)]])
def test_aggmo_takes_any_number_of_betas(betas, library):
    p, g = library.array(normal(0, 3)), library.array(normal(1, 3))
    state = run(xopt.aggmo, p, [g] * 2, {"betas": betas}, betas=betas)
    assert len(state.v) == len(betas)
    for beta, buffer in zip(betas, state.v, strict=True):
        if beta == 0:
            assert buffer is None
        else:
            assert_same_bits(buffer, beta * g + g)


def test_aggmo_buffers_go_by_position():
    p, grads = normal(0, 3), [normal(seed, 3) for seed in (1, 2, 3)]
    state = run(xopt.aggmo, p, grads, {"betas": (0.5, 0.9, 0.5)}, betas=(0.5, 0.9, 0.5))
    assert_same_bits(state.v[0], state.v[2])
    assert state.v[0] is not state.v[2]
    swapped = run(xopt.aggmo, p, grads, {"betas": (0.9, 0.5)}, betas=(0.9, 0.5))
    assert_same_bits((swapped.v[1], swapped.v[0]), (state.v[0], state.v[1]))
    single = run(xopt.momentum, p, grads, beta=0.5)  # equal betas are not one buffer that moves twice
    assert_same_bits(state.v[0], single.v)


# AdEMAMix's warm-ups.


def gain3(t, **hyper):
    return xopt.RULES["ademamix"].coefficients(t, **hyper).gain3


def test_half_life_closed_form():
    """1/ln beta3(t) is linear in t: the golden values of the scheduler, in float64, for 0.9 -> 0.9999 over 10 steps."""
    golden = [0.9990089120425198, 0.9995019903000263, 0.9996674419570512, 0.9997503741112254, 0.9998001996254803]
    golden += [0.9998334442732579, 0.9998572040018291, 0.9998750312148291, 0.9998889012223828, 0.9999]
    got = [1 - gain3(t, beta1=0.9, beta3=0.9999, beta3_warmup=10) for t in range(1, 11)]
    np.testing.assert_allclose(got, golden, rtol=0, atol=2.0**-52)  # 1 - gain rounds once, the golden once


@pytest.mark.parametrize("beta3", [0.9999, 0.7, 0.1 + 0.2])
def test_the_end_value_is_literal_from_the_last_step_on(beta3):
    for t in (7, 8, 1000):
        assert gain3(t, beta3=beta3, beta3_warmup=7) == 1 - beta3
        assert xopt.RULES["ademamix"].coefficients(t, alpha=0.1, alpha_warmup=7).alpha == 0.1
    assert gain3(6, beta3=beta3, beta3_warmup=7) != 1 - beta3
    assert xopt.RULES["ademamix"].coefficients(6, alpha=0.1, alpha_warmup=7).alpha == 0.1 * (6 / 7)


def test_warmup_downward_is_monotone():
    got = [gain3(t, beta1=0.99, beta3=0.5, beta3_warmup=20) for t in range(1, 21)]
    assert all(a < b for a, b in itertools.pairwise([1 - 0.99, *got]))
    assert got[-1] == 0.5


def test_warmup_from_beta1_0():
    """beta3(t) = beta3^(T/t)."""
    got = [1 - gain3(t, beta1=0.0, beta3=0.5, beta3_warmup=4) for t in (1, 2, 3, 4)]
    np.testing.assert_allclose(got, [0.5**4, 0.5**2, 0.5 ** (4 / 3), 0.5], rtol=2.0**-48)


def test_warmup_between_equal_betas_is_constant():
    np.testing.assert_allclose([gain3(t, beta1=0.9, beta3=0.9, beta3_warmup=9) for t in range(1, 12)], 1 - 0.9, rtol=2.0**-48)


@pytest.mark.parametrize("off", [None, 0, 0.0])
def test_warmup_off(off, library):
    p, g = library.array(normal(0, 4)), library.array(normal(1, 4))
    plain = run(xopt.ademamix, p, [g] * 2)
    assert_same_bits(run(xopt.ademamix, p, [g] * 2, alpha_warmup=off, beta3_warmup=off), plain)
    assert np.all(leaves(run(xopt.ademamix, p, [g] * 2, beta3_warmup=9).m2)[0] != to_numpy(plain.m2))


def test_warmups_down_to_no_memory_still_remember_on_the_way():
    """beta3 = 0 told to init, with a warm-up from beta1 to it: the slot is needed until the warm-up ends."""
    p, grads = normal(0, 4), [normal(seed, 4) for seed in (1, 2, 3)]
    hyper = {"beta3": 0.0, "beta3_warmup": 10}
    assert_same_bits(run(xopt.ademamix, p, grads, hyper, **hyper).params, run(xopt.ademamix, p, grads, **hyper).params)


def test_warmup_from_no_memory_to_no_memory():
    for zero in (0.0, np.asarray(0.0)):
        assert gain3(1, beta1=zero, beta3=zero, beta3_warmup=10) == 1.0


@pytest.mark.parametrize("value", [0, 0.0, -0.0, np.float32(0)])
def test_any_zero_is_a_decay_of_0(value):
    assert as_number(value) == 0
    assert xopt.lion_init(normal(0, 2), beta1=value).m is None
