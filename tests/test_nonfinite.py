"""skip_nonfinite: no bit of the state moves, in eager, fused, donated and traced steps; it is counted, or raised by name."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import optree
import pytest
import tree_checks as checks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libraries import LIBRARIES, assert_same_bits, busy, normal, to_numpy

import xopt
from xopt import skip_nonfinite
from xopt.backends import fuse
from xopt.conformance.faults import planting
from xopt.conformance.faults.fault import Edit, SuiteFault

COMPILED = [name for name in LIBRARIES if name != "array_api_strict"]


def kinds(rule: Any, library: Any) -> dict[str, Any]:
    """The steps of a rule, by what they are."""
    found = {"plain": rule.step, "bound": rule.bind(**busy(rule)).step}
    if library.name in COMPILED:
        found |= {"fused": fuse(rule), "donated": fuse(rule, donate=True)}
    return found


def copied(tree: Any) -> Any:
    """NumPy would make scalars of arrays without dimensions."""
    return optree.tree_map(lambda x: x.copy() if isinstance(x, np.ndarray) else x * 1 if hasattr(x, "dtype") else x, tree)


def check_skips(module: Any, library: Any, step: Any, params: Any, grads: list[Any], spoilt: Any) -> None:
    """With a step that is spoilt before and after each good one, the run ends in the bits of the good steps alone."""
    state, expected = ((xopt.nadam_init(copied(params))) for _ in range(2))
    guarded = module.skip_nonfinite(step)
    for t, grad in enumerate(grads):
        expected = step(expected, grad)
        kept = guarded(state, spoilt)
        assert kept is state, "the state that was passed in"
        state = guarded(guarded(state, grad), grad=spoilt)
        assert_same_bits(state, expected)
        assert guarded.skipped == 2 * (t + 1)


@pytest.mark.filterwarnings("ignore:The .*NumPy array is not writable:UserWarning")
@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_nan_or_infinity_anywhere_skips_the_step(library, data):
    found = data.draw(checks.trees(library))
    sizes = [math.prod(x.shape) for x in found.leaves]
    if found.special or not any(sizes):
        return
    where = data.draw(st.sampled_from([i for i, n in enumerate(sizes) if n]))
    place, bad = data.draw(st.integers(0, sizes[where] - 1)), data.draw(st.sampled_from([math.nan, math.inf, -math.inf]))
    spoilt = []
    for i, x in enumerate(found.leaves):
        values = to_numpy(x).astype(np.float64).copy()
        if i == where:
            values.ravel()[place] = bad
        spoilt.append(library.array(values, checks.dtype_of(x)))
    good = [library.array(to_numpy(x).astype(np.float64), checks.dtype_of(x)) for x in found.leaves]
    params = {"leaves": good, "none": None}
    steps = kinds(xopt.nadam, library)
    step = steps[data.draw(st.sampled_from([kind for kind in steps if library.name != "jax" or kind in ("plain", "bound")]))]
    check_skips(xopt, library, step, params, [params, params], {"leaves": spoilt, "none": None})


@pytest.mark.parametrize("kind", ["plain", "bound", "fused", "donated"])
def test_each_rule_and_kind_of_step(rule, kind):
    """A donated state is not given away where the step is skipped."""
    library = LIBRARIES["numpy"]
    params, grad, bad = (library.array(normal(seed, 5)) for seed in range(3))
    bad[3] = np.nan
    step = kinds(rule, library)[kind]
    expected = step(rule.init(params.copy()), grad)
    guarded = skip_nonfinite(step)
    state = guarded(guarded(guarded(rule.init(params.copy()), bad), grad), bad)
    assert_same_bits(state, expected)
    assert guarded.skipped == 2
    assert guarded(state, grad).step == 2


@pytest.mark.parametrize("name", COMPILED)
def test_fused_and_donated_steps_of_each_library(name):
    library = LIBRARIES[name]
    with library.session():
        params, grad = ({"w": library.array(normal(seed, 5)), "n": None} for seed in (0, 1))
        spoilt = {"w": library.array([1.0, math.inf, 0.0, 0.0, 0.0]), "n": None}
        for step in kinds(xopt.nadam, library).values():
            check_skips(xopt, library, step, params, [grad, grad], spoilt)


def test_raising_names_the_leaf_the_count_and_the_step(library):
    good, bad = ({"a": library.array([1.0]), "b": [library.array([[x, 2.0]])]} for x in (1.0, math.nan))
    state = xopt.lion_step(xopt.lion_init(good), good)
    message = r"^lion_step: grad\['b'\]\[0\] has 1 NaN or infinite of 2 numbers, after state\.step = 1; on='skip'"
    for step in (xopt.lion_step, xopt.lion.bind(lr=0.1).step):
        guarded = skip_nonfinite(step, on="raise")
        with pytest.raises(FloatingPointError, match=message):
            guarded(state, bad)
        assert guarded(state, good).step == 2
        assert guarded.skipped == 0


# --- traced ----------------------------------------------------------------------------------------------------------------------


def test_under_jit_where_chooses(rule):
    jax = pytest.importorskip("jax")
    good, bad = jax.numpy.asarray([1.0, -2.0], "float32"), jax.numpy.asarray([1.0, math.inf], "float32")
    guarded = skip_nonfinite(rule.step)
    traced = jax.jit(guarded)
    start = traced(rule.init({"w": good}), {"w": good})
    assert start.step == 1
    after = traced(start, {"w": bad})
    assert_same_bits(after, start)
    assert_same_bits(traced(after, {"w": good}), traced(start, {"w": good}))
    with pytest.raises(RuntimeError, match=r"skipped is not known, .* it is the number of steps taken, less state\.step"):
        guarded.skipped  # noqa: B018
    with pytest.raises(ValueError, match=r"_step: on='raise' sees no numbers while a compiler traces"):
        jax.jit(skip_nonfinite(rule.step, on="raise"))(start, {"w": good})


def test_in_scan_vmap_and_a_donating_jit():
    jax = pytest.importorskip("jax")
    np_, step = jax.numpy, skip_nonfinite(xopt.adamw.bind(lr=0.1).step)
    grads = np_.asarray([[1.0, 2.0], [math.nan, 1.0], [0.5, 0.5], [1.0, math.inf]])
    start = jax.tree.map(np_.asarray, xopt.adamw_init(np_.zeros(2)))
    end, _ = jax.lax.scan(lambda state, grad: (step(state, grad), None), start, grads)
    alone, _ = jax.lax.scan(lambda state, grad: (step(state, grad), None), start, grads[::2])
    assert_same_bits(end, alone)
    assert end.step == 2
    many = jax.vmap(step, in_axes=(None, 0))(start, grads)
    assert many.step.tolist() == [1, 0, 1, 0]
    assert np_.isfinite(many.params).all()
    donating = skip_nonfinite(jax.jit(xopt.adamw_step, donate_argnums=0))
    state = donating(start, grads[1])
    assert state is start
    assert donating(state, grads[0]).step == 1


def test_a_gradient_flows_past_a_step_that_is_not_taken():
    jax = pytest.importorskip("jax")
    step, state = skip_nonfinite(xopt.adamw_step), xopt.adamw_init(jax.numpy.ones(2))

    def loss(lr: Any, grad: Any) -> Any:
        return step(state, grad, lr=lr, weight_decay=0.0).params.sum()

    slope = jax.jit(jax.grad(loss))
    assert slope(0.1, jax.numpy.asarray([math.nan, 1.0])) == 0.0
    assert slope(0.1, jax.numpy.asarray([1.0, 1.0])) == pytest.approx(-2.0, rel=1e-3)


def test_torch_compile_and_vmap():
    torch = pytest.importorskip("torch")
    torch._dynamo.reset()
    guarded = skip_nonfinite(xopt.adamw_step)
    compiled = torch.compile(guarded, backend="aot_eager")
    state = expected = xopt.adamw_init({"w": torch.zeros(3)})
    good, bad = {"w": torch.tensor([1.0, 2.0, 3.0])}, {"w": torch.tensor([1.0, math.nan, 3.0])}
    plain = torch.compile(xopt.adamw_step, backend="aot_eager")
    for _ in range(3):
        state, expected = compiled(compiled(state, bad), good), plain(expected, good)
        assert_same_bits(state, expected)
    assert guarded.skipped == 3
    with pytest.raises(FloatingPointError, match=r"^adamw_step: grad"):
        torch.compile(skip_nonfinite(xopt.adamw_step, on="raise"), backend="aot_eager")(state, bad)
    params = torch.zeros(2, 3)
    grads = torch.stack([good["w"], bad["w"]])
    step = skip_nonfinite(lambda p, g: p - 0.5 * g)
    assert torch.vmap(step)(params, grads).tolist() == [[-0.5, -1.0, -1.5], [0.0, 0.0, 0.0]]


# --- use -------------------------------------------------------------------------------------------------------------------------


def test_a_step_of_ones_own_with_clipping_inside():
    """The gradient as it came is looked at, so that the leaf is named that was spoilt first."""

    def step(state: Any, grad: Any, limit: float) -> Any:
        return xopt.sgd_step(state, xopt.tree.clip_by_global_norm(grad, limit).tree, lr=1.0)

    guarded = skip_nonfinite(step, on="raise")
    state = guarded(xopt.sgd_init({"a": np.zeros(1), "b": np.zeros(2)}), {"a": np.ones(1), "b": np.ones(2)}, limit=1.0)
    assert state.params["a"] == pytest.approx(-(3**-0.5))
    with pytest.raises(FloatingPointError, match=r"step: grad\['b'\] has 2 NaN or infinite of 2 numbers, after state.step = 1"):
        guarded(state, {"a": np.ones(1), "b": np.full(2, np.inf)}, limit=1.0)


def test_what_is_no_gradient_is_left_to_the_step_to_refuse():
    state = xopt.sgd_init(np.zeros(2))
    for grad, error in ((np.ones(2, int), TypeError), ("no", TypeError), (np.ones(3), ValueError)):
        with pytest.raises(error, match=r"^sgd_step: grad"):
            skip_nonfinite(xopt.sgd_step)(state, grad)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: skip_nonfinite(xopt.lion), TypeError, "step must be a function .* got <xopt rule lion>, whose step is a function"),
        (lambda: skip_nonfinite(xopt.lion.bind()), TypeError, "whose step is a function"),
        (lambda: skip_nonfinite(3), TypeError, "step must be a function of a state and a gradient, such as xopt.lion_step, got 3"),
        (lambda: skip_nonfinite(xopt.lion_step, on="warn"), ValueError, "on must be 'skip' or 'raise', got 'warn'"),
    ],
)
def test_what_is_wrong_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=rf"^skip_nonfinite: .*{message}"):
        call()


def test_it_is_copied_and_pickled_and_fuse_does_not_look_through_it():
    guarded = skip_nonfinite(xopt.lion_step)
    guarded(xopt.lion_init(np.zeros(1)), np.full(1, np.nan))
    for other in (copy.deepcopy(guarded), pickle.loads(pickle.dumps(guarded))):
        assert other.skipped == 1
        assert other(xopt.lion_init(np.zeros(1)), np.ones(1)).step == 1
    assert repr(skip_nonfinite(len, on="raise")) == "skip_nonfinite(<built-in function len>, on='raise')"
    assert guarded.__name__ == "lion_step"
    with pytest.raises(TypeError, match=r"^fuse: rule must be a rule or its step"):
        fuse(guarded)


# --- faults ----------------------------------------------------------------------------------------------------------------------

FAULTS = [
    ("an infinity passes", "xp.all(xp.isfinite(x))", "xp.all(x == x)"),
    ("one leaf is looked at", "[moved(flag, first) for flag in of_library]", "[first]"),
    ("one finite number is enough", "xp.all(xp.isfinite(x))", "xp.any(xp.isfinite(x))"),
    ("nothing is counted", "self._skipped += 1\n        return state", "return state"),
    ("the step is taken all the same", "return state\n\n    @untraced", "return self.step(state, grad, **hyper)\n\n    @untraced"),
    ("the count goes on", "return state\n\n    @untraced", "return state._replace(step=state.step + 1)\n\n    @untraced"),
    ("good steps are skipped", "if known:\n", "if not known:\n"),
]


@pytest.mark.parametrize(("what", "old", "new"), FAULTS, ids=[what for what, *_ in FAULTS])
def test_faults_are_found(what, old, new):
    fault = SuiteFault(what, "", (Edit("nonfinite.py", old, new),))
    wrong = planting.private_copy({"xopt.nonfinite": planting.edited(fault, "xopt")["nonfinite.py"]}, "xopt.nonfinite")
    params = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    with np.errstate(all="ignore"), pytest.raises((AssertionError, AttributeError)):
        check_skips(wrong, None, xopt.nadam_step, params, [params], {"a": params["a"], "b": np.float32([1, np.inf])})
