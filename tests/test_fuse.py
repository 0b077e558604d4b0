"""Fused steps of NumPy arrays and of torch tensors on the CPU: NumPy's eager bits, in one pass, over a state that is given away."""

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import optree
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import LIBRARIES, assert_same_bits, busy, leaves, normal, to_numpy

import xopt
from xopt.backends import BACKENDS, _numpy, fuse, get
from xopt.backends.compilers import numba_kernels
from xopt.backends.compilers import threads as sharing
from xopt.backends.compilers.blocks import blocks_of
from xopt.backends.compilers.host import HostFuser
from xopt.conformance.compare.check import check_rule
from xopt.conformance.results import IDENTICAL
from xopt.conformance.target import Effort, Target

COMPILERS = ["numba", "blocks"]
NUMPY = LIBRARIES["numpy"]


def tree(library: Any, seed: int, dtype: str = "float32", n: int = 1) -> Any:
    """Leaves of every form: dense, strided, transposed, 0-d, empty, nested."""
    wide = library.array(normal(seed, 12 * n, 9), dtype)
    return {
        "dense": [library.array(normal(seed + 1, 7 * n), dtype), library.array(normal(seed + 2, 2, 3, 4), dtype)],
        "strided": wide[::2, 1::3],
        "transposed": (library.array(normal(seed + 3, 5, 6), dtype).T,),
        "scalar": library.array(0.5 + seed, dtype),
        "empty": library.array(np.zeros((0, 4)), dtype),
    }


def groups(rule: Any) -> dict[str, Any]:
    """Hyperparameters that make parameter groups, and change at each step."""
    hyper = busy(rule)
    if "weight_decay" in hyper:
        decay = {"dense": [0.25, 0.0], "strided": 0.125, "transposed": 0.0, "scalar": 0.5, "empty": 0.0}
        hyper["weight_decay"] = decay
    return hyper


def compiled(fused: Any) -> int:
    """How many kernels a fused step has."""
    found = [getattr(fuser, "first", fuser) for fuser in fused.rule.compiled.values()]
    return sum(len(fuser.kernels._made) for fuser in found if isinstance(fuser, HostFuser))


# The same bits.


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("compiler", COMPILERS)
def test_numpy_bits(rule: Any, dtype: str, donate: bool, compiler: str) -> None:
    fused = fuse(rule, donate=donate, compiler=compiler)
    expected, state = rule.init(tree(NUMPY, 0, dtype)), rule.init(tree(NUMPY, 0, dtype))
    for t in range(4):
        hyper = groups(rule) | {"lr": 0.5 / (t + 1)}
        expected = rule.step(expected, tree(NUMPY, 10 + t, dtype), **hyper)
        state = fused(state, tree(NUMPY, 10 + t, dtype), **hyper)
        assert_same_bits(state, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("donate", [False, True])
def test_torch_bits_are_numpys(rule: Any, dtype: str, donate: bool) -> None:
    """Not those of torch's eager step, whose square roots are not correctly rounded."""
    torch, backend = pytest.importorskip("torch"), get("torch")
    fused = fuse(rule, donate=donate)
    library = LIBRARIES["torch"]
    state = rule.init(tree(library, 0, dtype))
    expected = rule.init(optree.tree_map(lambda x: to_numpy(x).copy(), state.params))
    for t in range(3):
        grad = tree(library, 10 + t, dtype)
        state = fused(state, grad, **groups(rule))
        expected = rule.step(expected, optree.tree_map(to_numpy, grad), **groups(rule))
        if dtype == "bfloat16":  # NumPy has none: float32, rounded once when it is stored
            stored = optree.tree_map(lambda x: to_numpy(backend.asarray(x.astype(np.float64), dtype)), expected.params)
            expected = expected._replace(params=stored)
        for path, x, y in zip(optree.tree_paths(state), leaves(state), leaves(expected), strict=True):
            assert np.array_equal(x, y), path
    assert all(str(x.dtype) == f"torch.{dtype}" for x in optree.tree_leaves(state.params))
    assert all(x.dtype in (torch.float32, torch.float64) for x in optree.tree_leaves(state[1:-1]) if isinstance(x, torch.Tensor))


@pytest.mark.parametrize("name", ["lion", "aggmo", "ademamix"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_blocks_in_the_conformance_suite(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs there where numba is missing: as numba's kernels, which have a column of their own."""
    monkeypatch.setattr(_numpy, "numba_or_reason", lambda: "numba is hidden")
    monkeypatch.setattr(_numpy, "say_once", lambda _: None)
    (cell,) = check_rule(name, dtype, [Target("numpy", "cpu", "fused")], Effort(8, pool=4))
    assert get("numpy").compiler == "blocks"
    assert cell.verdict == IDENTICAL
    assert cell.trajectories > 50


def test_one_array_is_a_tree_of_one_leaf(rule: Any) -> None:
    fused, state, expected = fuse(rule), rule.init(normal(0, 9)), rule.init(normal(0, 9))
    for t in range(3):
        state, expected = fused(state, normal(t, 9)), rule.step(expected, normal(t, 9))
    assert_same_bits(state, expected)
    assert type(state.step) is int


@pytest.mark.parametrize("compiler", COMPILERS)
def test_numbers_that_are_none(compiler: str) -> None:
    """NaN, infinities, subnormals and zeros of both signs, against each other."""
    values = np.asarray([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-40, 3e38, 1.0, -2.5], np.float32)
    params, grad = (np.ascontiguousarray(x.reshape(-1)) for x in np.meshgrid(values, values))
    for rule in xopt.RULES.values():
        with np.errstate(all="ignore"):
            state, expected = (
                step(step(rule.init(params), grad), grad[::-1]) for step in (fuse(rule, compiler=compiler), rule.step)
            )
        for x, y in zip(leaves(state), leaves(expected), strict=True):
            assert np.array_equal(x, y, equal_nan=True), rule


def test_many_numbers_in_threads(rule: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares end within leaves, and one array has more numbers than a share."""
    monkeypatch.setattr(sharing, "PARALLEL", 1000)
    monkeypatch.setattr(sharing, "threads", lambda: 5)
    sizes = numba_kernels.SHARE + 3 * numba_kernels.BLOCK + 7, 10, 0, numba_kernels.SHARE, 40_001
    params, grad = ([normal(seed + i, n) for i, n in enumerate(sizes)] for seed in (0, 10))
    for donate in (False, True):
        state, expected = rule.init([x.copy() for x in params]), rule.init(params)
        fused = fuse(rule, donate=donate)
        for _ in range(2):
            state, expected = fused(state, grad), rule.step(expected, grad)
        assert_same_bits(state, expected)


def test_steps_of_several_threads_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "PARALLEL", 1000)
    fused, results = fuse(xopt.ademamix), {}

    def work(seed: int) -> None:
        state = xopt.ademamix_init(normal(seed, 200_000))
        for t in range(10):
            state = fused(state, normal(seed + t, 200_000))
        results[seed] = state

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, state in results.items():
        expected = xopt.ademamix_init(normal(seed, 200_000))
        for t in range(10):
            expected = xopt.ademamix_step(expected, normal(seed + t, 200_000))
        assert_same_bits(state, expected)
    assert len(results) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    code = """if True:
        import os, sys, numpy as np, xopt
        from xopt.backends import fuse
        fused, x = fuse(xopt.lion), np.ones(600_000, np.float32)
        state = fused(xopt.lion_init(x), x)
        child = os.fork()
        new = fused(state, x)
        assert np.array_equal(new.params, xopt.lion_step(state, x).params)
        if not child:
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_slots_of_none_and_several_buffers(compiler: str) -> None:
    for hyper in ({"beta1": 0.0}, {"beta3": 0.0}, {"beta1": 0.0, "beta2": 0.0}):
        fused, state = fuse(xopt.ademamix, compiler=compiler), xopt.ademamix_init(tree(NUMPY, 0), **hyper)
        expected = state
        for t in range(3):
            state, expected = (step(s, tree(NUMPY, t), **hyper) for step, s in ((fused, state), (xopt.ademamix_step, expected)))
        assert_same_bits(state, expected)
    for betas in ((0.5,), (0.0, 0.5), (0.9, 0.9, 0.0, 0.99, 0.25)):
        fused, state = fuse(xopt.aggmo, compiler=compiler), xopt.aggmo_init(tree(NUMPY, 0), betas=betas)
        expected = state
        for t in range(3):
            state = fused(state, tree(NUMPY, t), betas=betas)
            expected = xopt.aggmo_step(expected, tree(NUMPY, t), betas=betas)
        assert_same_bits(state, expected)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_carried_number_may_come_as_an_array(compiler: str) -> None:
    """As NumPy loads it from a file, beside the step count."""
    state = xopt.nadam_init(tree(NUMPY, 0))
    loaded = state._replace(mu_product=optree.tree_map(np.asarray, state.mu_product), step=np.asarray(0))
    got, expected = fuse(xopt.nadam, compiler=compiler)(loaded, tree(NUMPY, 1)), xopt.nadam_step(state, tree(NUMPY, 1))
    assert_same_bits(got._replace(mu_product=0), expected._replace(mu_product=0))
    assert [float(x) for x in leaves(got.mu_product)] == [float(x) for x in leaves(expected.mu_product)]


def test_a_tree_of_several_dtypes() -> None:
    def params(seed: int) -> Any:
        return [normal(seed, 5).astype(dtype) for dtype in ("float32", "float16", "float64", "float32")]

    fused, state = fuse(xopt.adamw), xopt.adamw_init(params(0))
    assert_same_bits(fused(state, params(1)), xopt.adamw_step(state, params(1)))
    assert compiled(fused) == 3


def test_other_byte_order_and_subclasses_are_stepped_too() -> None:
    class Special(np.ndarray):
        pass

    for params in (normal(0, 6).astype(">f4"), normal(0, 6).astype("f4").view(Special), np.float32(0.5)):
        grad = params.copy()
        for compiler in COMPILERS:
            got = fuse(xopt.sgd, compiler=compiler)(xopt.sgd_init(params), grad)
            assert np.array_equal(got.params, xopt.sgd_step(xopt.sgd_init(params), grad).params)


# One kernel for all numbers.


def test_numbers_compile_nothing_anew(rule: Any) -> None:
    """Not lr, betas or t: the bias corrections of a late step are exactly 1, and so is an lr."""
    fused, state = fuse(rule), rule.init(np.ones(3))
    for t in (0, 1, 400, 10**6):
        hyper = {name: value for name, value in busy(rule).items() if not rule.ranges[name].sequence} | {"lr": 1.0 / (1 + t % 7)}
        hyper |= {name: 1 - 0.5**k for k, name in enumerate(rule.memory.values(), start=2) if not rule.ranges[name].sequence}
        state = state._replace(step=t)
        assert_same_bits(fused(state, np.ones(3), **hyper), rule.step(state, np.ones(3), **hyper))
    assert compiled(fused) == 1


def test_a_decay_of_0_beside_a_memory_has_a_kernel_of_its_own() -> None:
    """There the average is the value itself, which the general form would lose beside a large memory."""
    fused, state = fuse(xopt.adam), xopt.adam_init(np.ones(3))._replace(m=np.full(3, 1e30))
    assert_same_bits(fused(state, np.ones(3), beta1=0.0), xopt.adam_step(state, np.ones(3), beta1=0.0))
    fused(state, np.ones(3))
    assert compiled(fused) == 2


def test_arrays_as_hyperparameters() -> None:
    torch = pytest.importorskip("torch")
    for one, lr in ((np.asarray, np.asarray(0.25)), (torch.tensor, torch.tensor(0.25))):
        state = xopt.lion_init(one([1.0, 2.0]))
        got, expected = (step(state, one([1.0, -1.0]), lr=lr) for step in (fuse(xopt.lion), xopt.lion_step))
        assert_same_bits(got, expected)


# Giving the state away.


def test_nothing_passed_in_is_written(rule: Any) -> None:
    state, grad = rule.init(tree(NUMPY, 0)), tree(NUMPY, 1)
    for x in optree.tree_leaves((state, grad)):
        if isinstance(x, np.ndarray):
            x.flags.writeable = False
    for compiler in COMPILERS:
        new = fuse(rule, compiler=compiler)(state, grad)
        for x in optree.tree_leaves(new):
            for y in optree.tree_leaves((state, grad)):
                assert not (isinstance(x, np.ndarray) and isinstance(y, np.ndarray) and np.shares_memory(x, y))


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_donated_state_is_written_over_and_refused(rule: Any, name: str) -> None:
    pytest.importorskip(name)
    library = LIBRARIES[name]
    fused, state = fuse(rule, donate=True), rule.init(tree(library, 0))
    new = fused(state, tree(library, 1))
    for old, x in zip(optree.tree_leaves(state), optree.tree_leaves(new), strict=True):
        if hasattr(x, "shape"):
            assert (
                x.size == 0 or np.shares_memory(to_numpy(old), to_numpy(x)) if name == "numpy" else old.data_ptr() == x.data_ptr()
            )
    for again in (fused, fuse(rule)):
        with pytest.raises(ValueError, match=r"params\['dense'\]\[0\] was donated to an earlier step"):
            again(state, tree(library, 1))
    fused(new._replace(step=7), tree(library, 1))


def test_blocks_write_over_a_donated_state_too() -> None:
    fused, state = fuse(xopt.lion, donate=True, compiler="blocks"), xopt.lion_init(tree(NUMPY, 0))
    new = fused(state, tree(NUMPY, 1))
    assert all(np.shares_memory(x, y) or not x.size for x, y in zip(leaves(state)[:-1], leaves(new)[:-1], strict=True))
    with pytest.raises(ValueError, match="was donated"):
        fused(state, tree(NUMPY, 1))


@pytest.mark.parametrize("compiler", COMPILERS)
def test_memory_that_overlaps_is_not_donated(compiler: str) -> None:
    fused, buffer = fuse(xopt.momentum, donate=True, compiler=compiler), np.zeros(10)
    shared, grads = np.zeros(4), [np.ones(4), np.ones(4)]
    for params, grad in (
        ([shared, shared], grads),
        ([buffer[:6], buffer[5:9]], [np.ones(6), np.ones(4)]),
        ([buffer[:4], np.zeros(4)], [buffer[2:6], np.ones(4)]),
        ([buffer[:4], shared], [np.ones(4), buffer[:4]]),
        ([buffer[:4], shared], [buffer[3::-1], np.ones(4)]),
    ):
        state, before = xopt.momentum_init(params), buffer.copy()
        with pytest.raises(ValueError, match=r"params\[\d\] or a slot of it shares memory with params\[\d\].*without donate"):
            fused(state, grad)
        assert np.array_equal(buffer, before)
        assert_same_bits(fuse(xopt.momentum, compiler=compiler)(state, grad), xopt.momentum_step(state, grad))


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_what_was_found_of_one_state_does_not_hold_of_another(name: str) -> None:
    """What the last step found of its arrays is kept; here the next one has others at each place."""
    pytest.importorskip(name)
    array, fused = LIBRARIES[name].array, fuse(xopt.momentum, donate=True)

    def state(*params: Any) -> Any:
        return xopt.momentum_init([array(x) for x in params])

    grads = [array(normal(2, 6)), array(normal(3, 6))]
    for params in ((normal(0, 6), normal(1, 6)), (normal(4, 6), normal(5, 6))):
        expected = xopt.momentum_step(state(*params), grads)
        assert_same_bits(fused(state(*params), grads), expected)
    apart, one = state(normal(0, 6), normal(1, 6)), array(normal(0, 6))
    with pytest.raises(ValueError, match="shares memory"):
        fused(apart._replace(params=[one, one]), grads)
    with pytest.raises(ValueError, match=r"grad\[1\]"):
        fused(apart, [grads[0], array(normal(0, 5))])
    with pytest.raises(TypeError, match=r"grad\[1\]"):
        fused(apart, [grads[0], array(normal(3, 6), "float64")])
    expected = xopt.momentum_step(apart, grads)
    assert_same_bits(fused(apart, grads), expected)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_a_gradient_may_be_the_params_and_may_be_shared(compiler: str) -> None:
    """Each number is read before it is written."""
    state, one = xopt.adam_init([normal(0, 5), normal(1, 5)]), normal(2, 5)
    for grad in (state.params, [one, one]):
        expected = xopt.adam_step(state, grad)
        fresh = optree.tree_map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, state)
        given = fresh.params if grad is state.params else grad
        assert_same_bits(fuse(xopt.adam, donate=True, compiler=compiler)(fresh, given), expected)


@pytest.mark.parametrize("compiler", COMPILERS)
def test_read_only_memory_is_not_donated(compiler: str) -> None:
    params = np.ones(3)
    params.flags.writeable = False
    state = xopt.sgd_init(params)
    with pytest.raises(ValueError, match=r"read-only.*without donate"):
        fuse(xopt.sgd, donate=True, compiler=compiler)(state, np.ones(3))


def test_nothing_is_half_done(rule: Any) -> None:
    """An error in the last leaf leaves the first as it was."""
    for compiler in COMPILERS:
        state = rule.init([np.ones(3), np.ones(4)])
        before = optree.tree_map(np.copy, state)
        with pytest.raises(ValueError, match=r"grad\[1\] has shape \(3,\)"):
            fuse(rule, donate=True, compiler=compiler)(state, [np.ones(3), np.ones(3)])
        assert_same_bits(optree.tree_map(np.copy, state), before)


# Errors.


def with_slots(state: Any, value: Any) -> Any:
    arrays = [slot for slot in state._fields[1:-1] if not isinstance(getattr(state, slot)["a"], float)]
    return state._replace(**{slot: {"a": value} for slot in arrays})


BAD: dict[str, Any] = {
    "another state": lambda step, s, g: step(xopt.sgd_init(g) if s.__class__.__name__ != "SGDState" else (1, 2), g),
    "unknown hyperparameter": lambda step, s, g: step(s, g, learning_rate=1.0),
    "lr out of its range": lambda step, s, g: step(s, g, lr=-1.0),
    "lr that is NaN": lambda step, s, g: step(s, g, lr=float("nan")),
    "lr of another tree": lambda step, s, g: step(s, g, lr={"b": 0.1}),
    "grad of another dtype": lambda step, s, g: step(s, {"a": g["a"].astype(np.float32)}),
    "grad of another shape": lambda step, s, g: step(s, {"a": g["a"][:2]}),
    "grad of another tree": lambda step, s, g: step(s, [g["a"]]),
    "grad that is no array": lambda step, s, g: step(s, {"a": 1.0}),
    "params that are no array": lambda step, s, g: step(s._replace(params={"a": [1.0, 2.0]}), {"a": [1.0, 2.0]}),
    "params of integers": lambda step, s, g: step(s._replace(params={"a": np.arange(3)}), {"a": np.arange(3)}),
    "a negative count": lambda step, s, g: step(s._replace(step=-1), g),
    "a slot that is gone": lambda step, s, g: step(with_slots(s, None), g),
    "a slot of another shape": lambda step, s, g: step(with_slots(s, np.zeros(2)), g),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_errors_are_those_of_the_eager_step(rule: Any, what: str, compiler: str) -> None:
    state, grad = rule.init({"a": np.ones(3)}), {"a": np.ones(3)}
    try:
        BAD[what](rule.step, state, grad)
    except (TypeError, ValueError) as error:
        expected = error
    else:
        assert not rule.slots or set(rule.slots) == set(rule.carried), "the eager step refuses it"
        return
    with pytest.raises(type(expected)) as raised:
        BAD[what](fuse(rule, compiler=compiler), state, grad)
    assert str(raised.value) == str(expected)


def test_what_is_no_rule() -> None:
    with pytest.raises(TypeError, match=r"must be a rule or its step, such as xopt.lion or xopt.lion_step, got 'lion'"):
        fuse("lion")
    assert fuse(xopt.lion_step).rule is xopt.lion


def test_compilers_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="unknown compiler 'gcc'; there are"):
        fuse(xopt.lion, compiler="gcc")
    with pytest.raises(ValueError, match=r"is of numpy, which numba or blocks compiles, not jax.jit"):
        fuse(xopt.lion, compiler="jax.jit")(xopt.lion_init(np.ones(3)), np.ones(3))


def test_a_library_without_a_compiler() -> None:
    strict = pytest.importorskip("array_api_strict")
    state = xopt.lion_init(strict.ones(3))
    with pytest.raises(
        TypeError, match=r"array_api_strict, which has no compiler; there is one for arrays of numpy, torch.*lion_step"
    ):
        fuse(xopt.lion)(state, strict.ones(3))


@pytest.mark.parametrize("compiler", COMPILERS)
def test_libraries_are_not_mixed(compiler: str) -> None:
    torch = pytest.importorskip("torch")
    both = [np.ones(3), torch.ones(3)]
    with pytest.raises(TypeError, match=r"params\[1\] is a torch array, but the first is of another library"):
        fuse(xopt.lion, compiler=compiler)(xopt.lion_init(both), both)


def test_a_dtype_without_arithmetic_in_numba() -> None:
    if np.finfo(np.longdouble).bits == 64:
        pytest.skip("long double is float64 here")
    state = xopt.sgd_init(np.ones(3, np.longdouble))
    with pytest.raises(TypeError, match=r"numba has no arithmetic for; it has float32, float64, float16. sgd_step takes it"):
        fuse(xopt.sgd)(state, np.ones(3, np.longdouble))
    blocks = fuse(xopt.sgd, compiler="blocks")(state, np.ones(3, np.longdouble))
    assert np.array_equal(blocks.params, xopt.sgd_step(state, np.ones(3, np.longdouble)).params)


# Use.


def test_help_shows_the_rule() -> None:
    import inspect

    fused = fuse(xopt.lion, donate=True)
    assert inspect.signature(fused) == inspect.signature(xopt.lion_step)
    assert fused.__name__ == "lion_step"
    assert "as one pass over memory, over the state passed in" in fused.__doc__


def test_trees_may_change_between_steps() -> None:
    fused = fuse(xopt.momentum)
    for params in (
        [np.ones(3)],
        {"a": np.ones(3), "b": {"c": np.ones(2)}},
        {"a": {"d": np.ones(3)}, "b": {"c": np.ones(2)}},
        [np.ones(2)],
    ):
        state = xopt.momentum_init(params)
        assert_same_bits(fused(state, params), xopt.momentum_step(state, params))


def test_parameters_of_a_torch_module() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    params = dict(model.named_parameters())
    state, fused = xopt.adamw_init(params), fuse(xopt.adamw, donate=True)
    grad = {name: torch.ones_like(p) for name, p in params.items()}
    with pytest.raises(TypeError, match=r"params\['.*'\], or another array, requires gradients.*torch.no_grad\(\)"):
        fused(state, grad)
    loss = model(torch.ones(1, 3, requires_grad=True)).square().sum()
    with torch.no_grad():
        expected = {name: p.clone() for name, p in xopt.adamw_step(state, grad).params.items()}
        fused(state, grad)
    assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_compiler_that_traces_gets_the_plain_step() -> None:
    torch = pytest.importorskip("torch")
    fused, state = fuse(xopt.momentum), xopt.momentum_init(torch.ones(3))
    fused(state, torch.ones(3))
    step = torch.compile(lambda state, grad: fused(state, grad, lr=0.25), backend="eager")
    assert torch.equal(step(state, torch.ones(3)).params, torch.full((3,), 0.75))


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | environment
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", code], env=environment, check=True, capture_output=True, text=True
    )


STEP = """if True:
    import numpy as np, xopt
    from xopt.backends import fuse
    state, fused = xopt.lion_init(np.ones(5)), fuse(xopt.lion)
    for _ in range(3):
        new, expected = fused(state, np.ones(5)), xopt.lion_step(state, np.ones(5))
        assert np.array_equal(new.params, expected.params)
    """


def test_kernels_are_kept_on_disk(tmp_path: Any) -> None:
    show = STEP + "\n    import sys\n    found = [m for n, m in sys.modules.items() if n.startswith('xopt_kernels.')]"
    show += "\n    print([sum(m.kernel.stats.cache_hits.values()) for m in found])"
    first, second = (run(show, XOPT_CACHE_DIR=str(tmp_path)).stdout for _ in range(2))
    assert (first.strip(), second.strip()) == ("[0, 0]", "[1, 1]"), "the look at the arrays, and the kernel"
    assert len(list(tmp_path.glob("lion_float64_*.py"))) == len(list(tmp_path.glob("inspect_*.py"))) == 1


def test_without_a_place_to_keep_them_they_are_compiled_anew(tmp_path: Any) -> None:
    (tmp_path / "file").touch()
    run(STEP, XOPT_CACHE_DIR=str(tmp_path / "file" / "folder"))


def test_without_numba_blocks_say_so_once() -> None:
    hide = """if True:
    import importlib.util
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, *rest: None if name == "numba" else find(name, *rest)
"""
    said = run(hide + STEP.removeprefix("if True:")).stderr
    assert said.count("numba is not installed: pip install numba") == 1
    explicit = hide + STEP.removeprefix("if True:").replace("fuse(xopt.lion)", "fuse(xopt.lion, compiler='numba')")
    with pytest.raises(subprocess.CalledProcessError) as raised:
        run(explicit)
    assert "ImportError: numba is not installed" in raised.value.stderr


def test_a_slow_compilation_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.0, 1.25))
    monkeypatch.setattr(numba_kernels, "cache_folder", lambda: None)
    monkeypatch.setattr(numba_kernels.time, "monotonic", lambda: next(times))
    numba_kernels._made("def kernel(): pass", "lion_float32", ())
    assert capsys.readouterr().err == "xopt: compiled lion_float32 in 1.2 s; it is kept in this process only\n"


def test_every_backend_says_what_it_fuses_with() -> None:
    assert get("numpy").compiler == "numba"
    assert get("array_api_strict").compiler is None
    for backend in BACKENDS.values():
        assert isinstance(backend.compilers, tuple)


def test_helpers_that_never_come_are_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    there = sharing.Helpers()
    calls, there.count = there.calls, 2
    monkeypatch.setitem(sharing._helpers, os.getpid(), there)
    monkeypatch.setattr(sharing, "threads", lambda: 3)
    x = np.ones(sharing.PARALLEL + 1, np.float32)
    state = fuse(xopt.lion)(xopt.lion_init(x), x)
    assert_same_bits(state, xopt.lion_step(xopt.lion_init(x), x))
    assert calls.qsize() == 2
    while not calls.empty():  # and those that come late find nothing to do
        kernel, arguments = calls.get()
        kernel(*arguments)
    assert_same_bits(state, xopt.lion_step(xopt.lion_init(x), x))


def test_an_interrupt_waits_for_the_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays must outlive what they do."""
    progress, times = np.asarray([10, 7]), []

    def sleep(_: float) -> None:
        times.append(1)
        if len(times) == 1:
            raise KeyboardInterrupt
        progress[1] = 10

    monkeypatch.setattr(sharing.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        sharing._wait(lambda *_: None, (), progress, 10)
    assert len(times) == 2


@pytest.mark.parametrize("dtype", ["float16", ">f4", ">f8", "float32"])
def test_arrays_without_dimensions_are_read_and_written(dtype: str) -> None:
    """NumPy 2.0 to 2.2 read uninitialised memory for those that they buffer."""
    x, grad = np.asarray(3.0, dtype), np.asarray(0.5, dtype)
    for one, other in blocks_of([x, grad], ["float64"] * 2):
        assert (float(one[0]), float(other[0])) == (3.0, 0.5)
        one[...] = 2.0 * other
    assert x == 1.0


def test_versions_are_counted_of_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch walks through what it is given in C, where an interrupt within a generator became a SystemError."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("numba", reason="numba is not installed")
    from xopt.backends._torch import TorchMemory

    seen: list[type] = []
    monkeypatch.setattr(TorchMemory, "wrote", lambda _, arrays: seen.append(type(arrays)))
    fuse(xopt.sgd, donate=True)(xopt.sgd_init(torch.ones(3)), torch.ones(3))
    assert seen == [list]


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("name", ["numpy", "torch"])
@given(place=st.integers(0, 40), sizes=st.lists(st.integers(0, 7), min_size=1, max_size=4), at=st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_a_fresh_gradient_that_meets_the_state_is_refused(name: str, dtype: str, place: int, sizes: list[int], at: Any) -> None:
    """From the second step on, only what changed is looked at: gradients anywhere in the memory in which the params are, too."""
    library = pytest.importorskip(name, reason=f"{name} is not installed")
    memory = library.ones(48, dtype=getattr(library, dtype))
    free, starts = at.randint(0, 8), []
    for size in sizes:
        starts.append(free)
        free += size + at.randint(0, 3)
    params = [memory[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    step, calm = fuse(xopt.sgd, donate=True, compiler="numba"), [library.ones_like(x) for x in params]
    state = step(xopt.sgd_init(params), calm, lr=0.5)
    which = at.randrange(len(sizes))
    size, stop = sizes[which], min(place + sizes[which], 48)
    grads = [*calm[:which], memory[stop - size : stop], *calm[which + 1 :]]
    own = stop - size == starts[which]
    meets = size and not own and any(i < stop and stop - size < i + n for i, n in zip(starts, sizes, strict=True) if n)
    before, expected = memory + 0, [x - 0.5 * g for x, g in zip(params, grads, strict=True)]
    if meets:
        with pytest.raises(ValueError, match="shares memory with"):
            step(state, grads, lr=0.5)
        assert bool((memory == before).all())
    else:
        for x, y in zip(step(state, grads, lr=0.5).params, expected, strict=True):
            assert bool((x == y).all())
