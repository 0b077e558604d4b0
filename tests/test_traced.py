"""Steps that a compiler traces: jax.jit, lax.scan, torch.compile. They equal the eager step to rounding, and compile once.

How far a traced step may be from the eager one. Both round; a compiler also contracts a * b + c to one rounding, and a traced step
count or hyperparameter makes coefficients in float32 instead of float64: ``power_complement`` and the warm-ups are then within 33
units of 2**-24 (test_scalars), and a dozen roundings follow. So a change of the state is within 64 units in the last place of its
largest element, and storing it beside the old value costs a rounding of each, and one in the other's sum: 4 units of the largest.
"""

import os
import subprocess
import sys

import numpy as np
import optree
import pytest
from libraries import LIBRARIES, assert_same_bits, busy, leaves, normal, run, to_numpy

import xopt

FAST = {"aggmo", "ademamix"}  # compiled down to machine code; the others to their graphs


def assert_close(old, got, expected, steps=1):
    assert optree.tree_structure(got) == optree.tree_structure(expected)
    for path, x, y, z in zip(optree.tree_paths(got), leaves(old), leaves(got), leaves(expected), strict=True):
        assert y.shape == z.shape, path
        x, y, z = (np.asarray(a, float) for a in (x, y, z))
        eps = 2.0**-23 if "step" not in str(path) else 0
        largest = max(np.max(np.abs(x), initial=0), np.max(np.abs(z), initial=0))
        bound = steps * eps * (4 * largest + 64 * np.max(np.abs(z - x), initial=0))
        assert np.all(np.abs(y - z) <= bound), (path, np.max(np.abs(y - z)), bound)


def tree(library, seed):
    return {"w": [library.array(normal(seed, 3, 2)), None], "b": library.array(normal(seed + 1, 5)), "s": library.array(0.5 + seed)}


@pytest.fixture
def jax():
    return pytest.importorskip("jax")


JAX = LIBRARIES["jax"]


def start(rule):
    """A state two steps on, whose slots are not 0."""
    return run(rule, tree(JAX, 0), [tree(JAX, 10)] * 2, **busy(rule))


# JAX.


def test_jit_traces_the_step_count(rule, jax):
    """One compilation serves every step: the count is traced, and stays an integer."""
    traces = []

    def step(state, grad):
        traces.append(1)
        return rule.step(state, grad, **busy(rule))

    jitted, state = jax.jit(step), start(rule)
    for t in range(3, 8):  # past the ends of both warm-ups
        got, expected = jitted(state, tree(JAX, t)), rule.step(state, tree(JAX, t), **busy(rule))
        assert int(got.step) == expected.step == t
        assert np.issubdtype(got.step.dtype, np.integer)
        assert_close(state[:-1], got[:-1], expected[:-1])
        state = expected
    assert len(traces) == 1


def test_jit_of_the_public_function(rule, jax):
    state = start(rule)
    got, expected = jax.jit(rule.step)(state, tree(JAX, 3)), rule.step(state, tree(JAX, 3))
    assert_close(state[:-1], got[:-1], expected[:-1])
    for x, y in zip(optree.tree_leaves(got[:-1]), optree.tree_leaves(expected[:-1]), strict=True):
        assert getattr(x, "dtype", float) == getattr(y, "dtype", getattr(x, "dtype", float))


def test_jit_with_traced_hyperparameters(rule, jax):
    """A schedule under jit: lr, and every other number, is an argument of the compiled function."""
    hyper = {name: value for name, value in busy(rule).items() if not rule.ranges[name].sequence}
    traces = []

    def step(state, grad, hyper):
        traces.append(1)
        return rule.step(state, grad, **hyper)

    jitted, state = jax.jit(step), start(rule)
    for t in range(3, 8):
        hyper["lr"] = 0.5 / t
        # a beta in float32 is another beta: give both the same
        same = {name: float(np.float32(value)) for name, value in hyper.items()}
        got, expected = jitted(state, tree(JAX, t), same), rule.step(state, tree(JAX, t), **same)
        assert_close(state[:-1], got[:-1], expected[:-1])
        state = expected
    assert len(traces) == 1


def test_jit_of_init(rule, jax):
    got, expected = jax.jit(rule.init)(tree(JAX, 0)), rule.init(tree(JAX, 0))
    assert optree.tree_structure(got) == optree.tree_structure(expected)
    assert all(np.array_equal(x, y) for x, y in zip(leaves(got), leaves(expected), strict=True))


@pytest.mark.parametrize("rule", [rule for rule in xopt.RULES.values() if rule.memory], ids=lambda rule: rule.name)
def test_jit_with_slots_of_none(rule, jax):
    off = {decay: (0.0, 0.5, 0.0) if rule.ranges[decay].sequence else 0.0 for decay in rule.memory.values()}
    state = run(rule, tree(JAX, 0), [tree(JAX, 10)], off, lr=0.25, **off)
    jitted = jax.jit(lambda state, grad: rule.step(state, grad, lr=0.25, **off))
    got, expected = jitted(state, tree(JAX, 3)), rule.step(state, tree(JAX, 3), lr=0.25, **off)
    assert_close(state[:-1], got[:-1], expected[:-1])
    assert len(leaves(got)) < len(leaves(start(rule)))


@pytest.mark.parametrize("x64", [False, True])
def test_scan(rule, x64, jax):
    """Eight steps in one lax.scan, its carry the state: every field keeps its dtype, the count too, whatever a Python number is."""
    with jax.enable_x64(x64):
        scanned(rule, jax)


def scanned(rule, jax):
    state, steps = start(rule), 8
    grads = [tree(JAX, t) for t in range(3, 3 + steps)]
    stacked = jax.tree.map(lambda *xs: jax.numpy.stack(xs), *grads)
    hyper = busy(rule)
    got, _ = jax.jit(lambda s, gs: jax.lax.scan(lambda s, g: (rule.step(s, g, **hyper), None), s, gs))(state, stacked)
    expected = state
    for grad in grads:
        expected = rule.step(expected, grad, **hyper)
    assert int(got.step) == expected.step == 2 + steps
    assert_close(state[:-1], got[:-1], expected[:-1], steps)


def test_scan_from_init(rule, jax):
    """From step 0 on, with a carried Python number still being one."""
    grads = JAX.array(normal(1, 6, 4))
    got, _ = jax.lax.scan(lambda s, g: (rule.step(s, g), None), rule.init(JAX.array(normal(0, 4))), grads)
    state = rule.init(JAX.array(normal(0, 4)))
    expected = run(rule, state.params, list(grads))
    assert int(got.step) == 6
    assert_close(state[:-1], got[:-1], expected[:-1], 6)


def test_ademamix_warmups_under_jit_cross_their_ends(jax):
    """Before the end as the eager step; from the end on the literal value: m2 from 0 is then (1 - beta3) * g, bit for bit."""
    hyper = {"alpha": 5.0, "beta3": 0.75, "beta1": 0.5, "alpha_warmup": 3, "beta3_warmup": 4}
    jitted = jax.jit(lambda state, grad: xopt.ademamix_step(state, grad, **hyper))
    fresh, grad = xopt.ademamix_init(JAX.array(normal(0, 6))), JAX.array(normal(1, 6))
    for t in range(1, 8):
        state = fresh._replace(step=t - 1)
        got, expected = jitted(state, grad), xopt.ademamix_step(state, grad, **hyper)
        assert_close(state[:-1], got[:-1], expected[:-1])
        end = 0.25 * to_numpy(grad)
        assert np.array_equal(to_numpy(got.m2), end) == (t >= 4)
        assert np.array_equal(to_numpy(expected.m2), end) == (t >= 4)


def test_a_traced_hyperparameter_is_not_range_checked_and_a_known_one_is(jax):
    state, grad = xopt.lion_init(JAX.array(normal(0, 3))), JAX.array(normal(1, 3))
    assert jax.jit(lambda lr: xopt.lion_step(state, grad, lr=lr))(-1.0).params.shape == (3,)
    with pytest.raises(ValueError, match="lr must be in"):
        jax.jit(lambda state: xopt.lion_step(state, state.params, lr=-1.0))(state)
    with pytest.raises(TypeError, match="lr must be a number or a 0-d array, got an array of shape"):
        jax.jit(lambda lr: xopt.lion_step(state, grad, lr=lr))(grad)


def test_traced_shapes_and_dtypes_are_checked(rule, jax):
    state = rule.init(JAX.array(normal(0, 3)))
    with pytest.raises(ValueError, match="nothing is broadcast"):
        jax.jit(rule.step)(state, state.params[:1])
    with pytest.raises(TypeError, match="nothing is promoted"):
        jax.jit(rule.step)(state, state.params.astype("float16"))


def test_jit_with_one_side_known(rule, jax):
    """The state, or the gradient, may be a constant of the compiled function: an array beside a tracer, which has no device."""
    state, grad = start(rule), tree(JAX, 3)
    expected = rule.step(state, grad)
    for got in (jax.jit(lambda grad: rule.step(state, grad))(grad), jax.jit(lambda state: rule.step(state, grad))(state)):
        assert_close(state[:-1], got[:-1], expected[:-1])


def test_grad_through_a_step(rule, jax):
    """A step is an ordinary function: the gradient of its result with respect to lr is minus the update over lr."""
    state, grad = rule.init(JAX.array(normal(0, 3))), JAX.array(normal(1, 3))
    slope = jax.grad(lambda lr: rule.step(state, grad, lr=lr).params.sum())(0.5)
    moved = (to_numpy(rule.step(state, grad, lr=0.5).params) - to_numpy(state.params)).astype(float) / 0.5
    assert abs(float(slope) - moved.sum()) <= 64 * 2.0**-23 * (np.abs(moved).sum() + 3)


# torch.

pytest_torch = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own


@pytest.fixture
def dynamo():
    pytest.importorskip("torch")
    import torch._dynamo

    torch._dynamo.reset()
    yield torch._dynamo
    torch._dynamo.reset()


def compiled(torch, rule):
    return torch.compile(rule.step, backend="inductor" if rule.name in FAST else "aot_eager")


@pytest_torch
@pytest.mark.parametrize("rule", [xopt.nadam, xopt.aggmo, xopt.ademamix], ids=lambda rule: rule.name)
def test_torch_compile_compiles_once(rule, dynamo):
    """Twelve steps with a new lr each, of rules that carry a number, have tuples or warm-ups; the conformance suite compiles all.
    Torch specialises a Python number on its first value and on a change makes it a variable: from the third step on nothing is
    compiled again."""
    import torch

    library = LIBRARIES["torch"]
    step, state = compiled(torch, rule), rule.init(library.array(normal(0, 37)))
    for t in range(1, 13):
        grad, hyper = library.array(normal(t, 37)), busy(rule) | {"lr": 0.5 / t}
        with torch._dynamo.config.patch(error_on_recompile=t > 2):
            got = step(state, grad, **hyper)
        expected = rule.step(state, grad, **hyper)
        assert (got.step, type(got.step)) == (t, int)
        assert_close(state[:-1], got[:-1], expected[:-1])
        state = got
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


@pytest_torch
@pytest.mark.parametrize("name", ["lion", "adamw"])
def test_torch_compile_of_a_tree(name, dynamo):
    import torch

    rule, library = xopt.RULES[name], LIBRARIES["torch"]
    step, state = torch.compile(rule.step, backend="aot_eager"), rule.init(tree(library, 0), beta1=0.0)
    for t in (1, 2, 3):
        got, expected = (f(state, tree(library, t), beta1=0.0) for f in (step, rule.step))
        assert_close(state[:-1], got[:-1], expected[:-1])
        state = got


@pytest_torch
@pytest.mark.parametrize("name", ["lion", "nadam", "aggmo"])
def test_torch_compiles_a_tree_in_one_piece(name, dynamo):
    """One graph for all leaves, and a few in all steps: as many as there are leaves would run into torch's limit."""
    import torch
    from torch._dynamo.testing import CompileCounter

    rule, counter = xopt.RULES[name], CompileCounter()
    hyper = busy(rule)
    step = torch.compile(rule.step, backend=counter)
    params = {"w": [torch.full((3,), float(i)) for i in range(20)], "b": torch.ones(())}
    got = expected = rule.init(params)
    for i in range(6):
        grad = {"w": [torch.full((3,), float(i - j)) for j in range(20)], "b": torch.ones(())}
        got, expected = (f(state, grad, **hyper | {"lr": 0.5 / (1 + i)}) for f, state in ((step, got), (rule.step, expected)))
        assert counter.frame_count <= 3
    assert_same_bits(got, expected)


@pytest_torch
@pytest.mark.parametrize("compile_it", [False, True], ids=["eager", "compiled"])
def test_torch_step_count_as_a_tensor(rule, compile_it, dynamo):
    """The count may be a 0-d tensor: the coefficients are then tensors too, and nothing leaves the graph for them."""
    import torch

    library = LIBRARIES["torch"]
    p = library.array(normal(0, 9))
    state = run(rule, p, [library.array(normal(1, 9))] * 2, **busy(rule))
    step = torch.compile(rule.step, backend="aot_eager") if compile_it else rule.step
    for t in range(3, 8):
        grad = library.array(normal(t, 9))
        got = step(state._replace(step=torch.tensor(t - 1)), grad, **busy(rule))
        expected = rule.step(state, grad, **busy(rule))
        assert int(got.step) == t
        assert got.step.shape == ()
        assert got.step.dtype == torch.int64
        assert got.params.dtype == torch.float32
        assert_close(state[:-1], got[:-1], expected[:-1])
        state = expected


@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "jax"])
def test_step_count_as_an_array(rule, name):
    library = LIBRARIES[name]
    pytest.importorskip(library.module)
    state = run(rule, library.array(normal(0, 9)), [library.array(normal(1, 9))] * 2, **busy(rule))
    for dtype in ("int32", "uint8"):
        count, grad = library.array(2, dtype), library.array(normal(2, 9))
        got, expected = (rule.step(state._replace(step=step), grad, **busy(rule)) for step in (count, 2))
        assert int(got.step) == 3
        assert_close(state[:-1], got[:-1], expected[:-1])


def test_jit_without_fma_is_the_eager_bits():
    """With contraction off in XLA, what is left of the difference is nothing: a compiler changes the rounding, not the rule."""
    pytest.importorskip("jax")
    code = """if True:
        import jax, xopt
        x, g = (jax.random.normal(jax.random.key(k), (1000,)) for k in (0, 1))
        for name in ("sgd", "momentum", "nesterov", "qhm", "aggmo", "lion"):
            rule = xopt.RULES[name]
            state = rule.step(rule.init(x), g)
            jitted = jax.jit(lambda s, g: rule.step(s._replace(step=1), g))
            one, two = jitted(state, 2 * x)[:-1], rule.step(state, 2 * x)[:-1]
            assert all((a == b).all() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two))), name
        """
    env = os.environ | {"XLA_FLAGS": "--xla_cpu_max_isa=AVX", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


@pytest_torch
@pytest.mark.parametrize("count", [np.int64(5), np.array(5), np.uint8(5)], ids=lambda count: type(count).__name__)
def test_torch_compile_takes_a_count_of_numpy(count, dynamo):
    """As a state that comes back from a file may have one."""
    import torch

    step = torch.compile(xopt.adam_step, backend="aot_eager")
    state, grad = xopt.adam_init(torch.ones(3)), torch.full((3,), 0.5)
    with torch.no_grad():
        expected = xopt.adam_step(state._replace(step=5), grad)
        got = step(state._replace(step=count), grad)
        with pytest.raises(TypeError, match=r"adam_step: state\.step must be an int or"):
            step(state._replace(step=np.array([5, 5])), grad)
    assert (got.step, got.params.tolist()) == (6, expected.params.tolist())
