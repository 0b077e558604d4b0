"""Nothing passed in is written to, nothing handed back is shared, and the same call gives the same bits, in any thread."""

import ctypes
import threading

import numpy as np
import optree
import pytest
from array_api_compat import is_cupy_array
from libraries import LIBRARIES, assert_same_bits, busy, leaves, normal, run, to_numpy

import xopt

TREES = {
    "array": lambda x: x(7),
    "nested": lambda x: {"w": [x(3, 2), (x(4), None)], "b": x()},
}


def make(library, tree, seed, dtype="float32"):
    seeds = iter(range(seed, seed + 10))
    return TREES[tree](lambda *shape: library.array(normal(next(seeds), *shape), dtype))


def in_use(rule, library, tree, dtype="float32"):
    """A state in the middle of a run, and the next gradient."""
    return run(rule, make(library, tree, 0, dtype), [make(library, tree, 10, dtype)] * 2, **busy(rule)), make(
        library, tree, 20, dtype
    )


def frozen(tree):
    """What must not change: the containers, which objects stand in them, and the bytes of the arrays."""
    return str(optree.tree_structure(tree)), [id(x) for x in optree.tree_leaves(tree)], [x.tobytes() for x in leaves(tree)]


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("off", [False, True], ids=["busy", "beta 0"])
def test_nothing_passed_in_changes(rule, off, tree, library):
    """The state, the gradient, their containers, and hyperparameters that are arrays, trees or lists."""
    for dtype in ("float32", *library.half):
        state, grad = in_use(rule, library, tree, dtype)
        hyper = {name: list(value) if rule.ranges[name].sequence else library.array(value) for name, value in busy(rule).items()}
        hyper["lr"] = optree.tree_map(lambda _: library.array(0.5), grad)
        if off:
            hyper |= {name: 0.0 for name in rule.memory.values() if not rule.ranges[name].sequence}
            hyper.pop("beta3_warmup", None)
        given = (state, grad, hyper)
        before = frozen(given)
        new = rule.step(state, grad, **hyper)
        assert frozen(given) == before
        assert leaves(new.params)[0].tobytes() != leaves(state.params)[0].tobytes()  # something did happen
        rule.bind(**hyper).init(state.params)
        assert frozen(given) == before


def memory(x):
    """An array in NumPy that shares the memory of ``x``."""
    if type(x).__module__.startswith("array_api_strict"):
        return x._array
    if is_cupy_array(x):  # an address is enough: nobody looks at what is there
        return np.frombuffer((ctypes.c_char * x.nbytes).from_address(x.data.ptr), np.uint8)
    return x.numpy() if hasattr(x, "numpy") else x


@pytest.mark.parametrize("beta", [None, 0.0, 1.0], ids=["defaults", "told of beta 0", "not told of beta 0"])
@pytest.mark.parametrize("name", [row.name for row in LIBRARIES.values() if row.views])
def test_results_share_no_memory(rule, name, beta):
    """With the inputs, nor with each other: whoever updates one in place changes nothing else. (JAX's arrays cannot be written.)"""
    library = LIBRARIES[name]
    pytest.importorskip(library.module)
    zero = {decay: (0.0,) if rule.ranges[decay].sequence else 0.0 for decay in rule.memory.values()}
    hyper = {} if beta is None else zero
    for shape in ((7,), ()):
        params, grad = (library.array(normal(seed, *shape)) for seed in (0, 1))
        start = hyper if beta != 1.0 else {decay: (0.5,) for decay, value in zero.items() if value == (0.0,)}
        state = rule.bind(**start).init({"w": params, "b": params})
        for _ in range(2):
            new = rule.step(state, {"w": grad, "b": grad}, **hyper)
            arrays = [memory(x) for x in optree.tree_leaves(new) if hasattr(x, "shape")]
            inputs = [memory(x) for x in optree.tree_leaves((state, grad)) if hasattr(x, "shape")]
            for i, x in enumerate(arrays):
                assert not any(np.shares_memory(x, y) for y in (*inputs, *arrays[:i]))
            state = new


def test_slots_share_no_memory_at_init(rule):
    x = normal(0, 3)
    arrays = optree.tree_leaves(rule.init([x, x], **{n: (0.5,) * 3 for n in rule.defaults if rule.ranges[n].sequence})[1:])
    arrays = [a for a in arrays if hasattr(a, "shape")]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in (x, *arrays[:i]))


def test_read_only_arrays(rule):
    state, grad = in_use(rule, LIBRARIES["numpy"], "nested")
    expected = rule.step(state, grad, **busy(rule))
    for x in optree.tree_leaves((state, grad)):
        if hasattr(x, "shape"):
            x.setflags(write=False)
    assert_same_bits(rule.step(state, grad, **busy(rule)), expected)
    assert all(x.flags.writeable for x in optree.tree_leaves(expected) if hasattr(x, "shape"))


@pytest.mark.parametrize("tree", TREES)
def test_two_calls_give_the_same_bits(rule, tree, library):
    state, grad = in_use(rule, library, tree)
    first = rule.step(state, grad, **busy(rule))
    rule.step(first, grad, lr=0.5)  # another call between them leaves no trace
    assert_same_bits(rule.step(state, grad, **busy(rule)), first)


def test_n_steps_then_m_are_n_plus_m(rule, library):
    """The state is all there is: a copy of it, in fresh arrays, continues with the same bits."""
    params, grads = library.array(normal(0, 5)), [library.array(normal(seed, 5)) for seed in range(1, 7)]
    whole = run(rule, params, grads, **busy(rule))
    state = run(rule, params, grads[:3], **busy(rule))
    state = optree.tree_map(lambda x: library.array(to_numpy(x)) if hasattr(x, "shape") else x, state)
    for grad in grads[3:]:
        state = rule.step(state, grad, **busy(rule))
    assert_same_bits(state, whole)


@pytest.mark.parametrize("tree", TREES)
def test_threads(rule, tree, library):
    """BI-23: threads that step one state give identical bits, on a rule that has met neither dtype nor library before."""
    state, grad = in_use(rule, library, tree)
    expected = rule.step(state, grad, **busy(rule))
    fresh = xopt.Rule(rule.name, rule.state, rule.coefficients, rule.elementwise, memory=rule.memory, carried=rule.carried)
    results, barrier = [], threading.Barrier(8)

    def work():
        barrier.wait()
        with library.session():
            results.extend([fresh.step(state, grad, **busy(rule)) for _ in range(4)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 32
    for result in results:
        assert_same_bits(result, expected)
