"""xopt's steps on CuPy arrays: the bits of NumPy, the device of the params, and what is asked of the device."""

import warnings
from pathlib import Path

import cupy
import numpy as np
import optree
import pytest
from cuda_on_cpu import trace
from libraries import assert_same_bits, busy

import xopt
from xopt.backends import fuse
from xopt.backends.compilers.elementwise_kernel import SMALL

RULES = [xopt.momentum, xopt.nadam, xopt.adamw, xopt.lion, xopt.ademamix]
DTYPES = ["float32", "float16", "float64"]
PAGE = Path(__file__).parents[3] / "docs" / "backends" / "cupy-on-cpu.md"


def numbers(seed, shape, dtype="float32"):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def tree(seed, dtype):
    """Leaves of all layouts, and of the sizes at which a launch of one's own begins."""
    return {
        "dense": [numbers(seed, (7,), dtype), numbers(seed + 1, (2, 3, 4), dtype)],
        "strided": numbers(seed + 2, (12, 9), dtype)[::2, 1::3],
        "transposed": numbers(seed + 3, (5, 6), dtype).T,
        "reversed": numbers(seed + 4, (9,), dtype)[::-1],
        "scalar": np.asarray(0.5 + seed, dtype),
        "empty": np.zeros((0, 4), dtype),
        "at the bound": numbers(seed + 5, (SMALL,), dtype),
        "beyond it": numbers(seed + 6, (SMALL + 1,), dtype),
        "large": numbers(seed + 7, (SMALL // 4, 5), dtype).T,
    }


def on_device(tree):
    """The same numbers on the current device, in the same layouts."""

    def moved(x):
        if not isinstance(x, np.ndarray):
            return x
        if x.flags.c_contiguous:
            return cupy.asarray(x)
        if x.flags.f_contiguous:
            return cupy.asarray(np.ascontiguousarray(x.T)).T
        whole = cupy.zeros([2 * n for n in x.shape], x.dtype)
        view = whole[tuple(slice(None, None, 2) for _ in x.shape)]
        view[...] = cupy.asarray(np.ascontiguousarray(x))
        return view

    return optree.tree_map(moved, tree)


def groups(rule, tree):
    """Hyperparameters of which each leaf has its own."""
    spec = optree.tree_structure(tree)
    lr = optree.tree_unflatten(spec, [0.1 + 0.01 * i for i in range(spec.num_leaves)])
    return busy(rule) | {"lr": lr}


def ways(rule):
    return {"eager": rule.step, "fused": fuse(rule), "donated": fuse(rule, donate=True)}


@pytest.fixture(params=RULES, ids=lambda rule: rule.name)
def some(request):
    """A few rules: all of them are the conformance suite's part."""
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_numpys(some, dtype):
    params = tree(0, dtype)
    for hyper in ({}, groups(some, params)):
        for way, step in ways(some).items():
            plain, state = some.init(params), some.init(on_device(params))
            for k in (1, 2, 3):
                plain = some.step(plain, tree(10 * k, dtype), **hyper)
                before, kept = state, optree.tree_map(lambda x: x.copy() if isinstance(x, cupy.ndarray) else x, state)
                state = step(state, on_device(tree(10 * k, dtype)), **hyper)
                assert_same_bits(state, plain)
                if way != "donated":
                    assert_same_bits(before, kept)


def test_arrays_of_a_leaf_may_differ_in_layout(some):
    params, grad = ([np.asfortranarray(numbers(seed, (5, 6))), numbers(seed + 1, (3,))] for seed in (0, 2))
    other = [np.ascontiguousarray(x) for x in grad]
    for step in (some.step, fuse(some)):
        assert_same_bits(step(some.init(on_device(params)), on_device(other)), some.step(some.init(params), grad))


def test_a_lone_small_leaf_has_its_own_coefficients(rule):
    """Beside large ones, which are stepped by the same kernel."""
    params, grad = ([numbers(seed, (SMALL + 1,)), numbers(seed + 1, (5,))] for seed in (0, 2))
    hyper = groups(rule, params)
    assert_same_bits(
        fuse(rule)(rule.init(on_device(params)), on_device(grad), **hyper), rule.step(rule.init(params), grad, **hyper)
    )


def test_nan_stays_nan(some):
    params = [np.asarray([np.nan, 1, 0], "float32"), np.asarray([1, np.nan, -2], "float32")]
    for way in ("eager", "fused"):
        plain = some.step(some.init(params), params[::-1])
        assert_same_bits(ways(some)[way](some.init(on_device(params)), on_device(params[::-1])), plain)


def test_donated_memory_is_used_again_and_refused_afterwards(some):
    step, state = fuse(some, donate=True), some.init(on_device([numbers(0, 5), numbers(1, 5)]))
    grad = on_device([numbers(2, 5), numbers(3, 5)])
    new = step(state, grad)
    for x, y in zip(optree.tree_leaves(state), optree.tree_leaves(new), strict=True):
        assert not isinstance(x, cupy.ndarray) or x.data.ptr == y.data.ptr
    with pytest.raises(ValueError, match="was donated to an earlier step"):
        step(state, grad)


def test_arrays_that_overlap_are_not_donated():
    step, x = fuse(xopt.sgd, donate=True), cupy.ones(8, "f4")
    for params in ([x, x[:]], [x, x[2:][::-1]], [x[:2], x[:4][::-1]], [x, x.reshape(2, 4)], cupy.broadcast_to(x[:1], (8,))):
        with pytest.raises(ValueError, match=r"shares memory|is broadcast"):
            step(xopt.sgd_init(params), optree.tree_map(cupy.ones_like, params))


# Several devices.


def devices_of(tree):
    return [x.device.id for x in optree.tree_leaves(tree) if isinstance(x, cupy.ndarray)]


def on(number, function, *arguments):
    with cupy.cuda.Device(number):
        return function(*arguments)


@pytest.mark.parametrize("current", [0, 1])
@pytest.mark.parametrize("where", [0, 1])
def test_arrays_stay_on_the_device_of_the_params(rule, where, current):
    """Whichever device is the current one, for init and for each step, with None slots and with the new numbers of a schedule."""
    params, grad = ([numbers(seed, (5,)), numbers(seed + 1, (2, 3))] for seed in (0, 2))
    there, theirs = on(where, on_device, params), on(where, on_device, grad)
    with cupy.cuda.Device(current), warnings.catch_warnings():
        warnings.simplefilter("error")
        for way, step in ways(rule).items():
            plain, state = rule.init(params), rule.init(on(where, on_device, params))
            assert {*devices_of(state)} == {where}, f"init, {way}"
            for k in (1, 2):
                plain = rule.step(plain, grad, **busy(rule) | {"lr": 0.1 * k})
                state = step(state, theirs, **busy(rule) | {"lr": 0.1 * k})
                assert {*devices_of(state)} == {where}, f"step {k}, {way}"
            assert cupy.cuda.Device().id == current
            assert_same_bits(state, plain)
    assert {*devices_of([there, theirs])} == {where}


@pytest.mark.parametrize("current", [0, 1])
def test_leaves_on_two_devices_step_eagerly(rule, current):
    params, grad = ({"a": numbers(seed, (5,)), "b": numbers(seed + 1, (3,))} for seed in (0, 2))
    spread = [{"a": on(0, on_device, x["a"]), "b": on(1, on_device, x["b"])} for x in (params, grad)]
    with cupy.cuda.Device(current):
        plain, state = rule.init(params), rule.init(spread[0])
        for _ in range(2):
            plain, state = rule.step(plain, grad, **busy(rule)), rule.step(state, spread[1], **busy(rule))
    assert_same_bits(state, plain)
    for slot in state[:-1]:
        if optree.tree_leaves(slot) and isinstance(optree.tree_leaves(slot)[0], cupy.ndarray):
            assert {*devices_of(slot["a"])} == {0}
            assert {*devices_of(slot["b"])} == {1}


def test_leaves_on_two_devices_are_not_fused(rule):
    spread = [on(0, on_device, numbers(0, (5,))), on(1, on_device, numbers(1, (5,)))]
    with pytest.raises(TypeError, match=r"params\[1\] is on cuda:1, but the first on cuda:0"):
        fuse(rule)(rule.init(spread), spread)


def test_a_gradient_on_another_device_is_refused(rule):
    state, grad = rule.init(on(0, on_device, numbers(0, (5,)))), on(1, on_device, numbers(1, (5,)))
    for step in (rule.step, fuse(rule)):
        with pytest.raises(ValueError, match=r"grad is on device .*1.* but params is on .*0"):
            step(state, grad)


# What is asked of the device.


def asked(step, state, grad):
    """Launches, copies to the device, and whatever makes the host wait."""
    state = step(step(state, grad, lr=0.1), grad, lr=0.2)  # what is done once is done
    with trace() as events:
        step(state, grad, lr=0.3)
    kinds = [event.partition(",")[0].partition(" cupy")[0].partition(" xopt")[0] for event in events]
    waits = [event for event in events if event.startswith(("wait", "copy to host")) or "and wait" in event]
    return kinds.count("launch"), kinds.count("copy to device"), waits


def test_an_eager_step_waits_for_nothing(rule):
    x = cupy.ones(100, "f4")
    launches, copies, waits = asked(rule.step, rule.init(x), x)
    assert (copies, waits) == (0, [])
    page, version = PAGE.read_text(), f", CuPy {cupy.__version__.partition('.')[0]}"
    assert any(f"| `{rule.name}`{of} | {launches} | 1 |\n" in page for of in ("", version)), launches


def test_a_fused_step_is_one_launch_for_a_large_leaf_and_one_for_all_small_ones(rule):
    large, small = cupy.ones(SMALL + 1, "f4"), [cupy.ones(size, "f4") for size in (SMALL, *[100] * 43)]
    for donate in (False, True):
        step = fuse(rule, donate=donate)
        assert asked(step, rule.init(large.copy()), large) == (1, 0, [])
        assert asked(step, rule.init([x.copy() for x in small]), small) == (1, 2, [])  # the table of addresses, the coefficients
        assert asked(step, rule.init([large.copy(), *(x.copy() for x in small)]), [large, *small]) == (2, 2, [])
