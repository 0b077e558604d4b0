"""xopt's kernels for CuPy: every operation and every form of a state has NumPy's bits, and what shares a kernel or a launch."""

import cupy
import numpy as np
import optree
import pytest
from cuda_on_cpu import trace
from libraries import assert_same_bits, variants

import xopt
from xopt.backends import fuse
from xopt.backends.compilers.elementwise_kernel import OPTIONS, text_of_one
from xopt.program import COMPARISONS, OPERATIONS, Operation, Program

SPECIAL = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1.0, 3.0, 0.1]


def numbers(seed, shape, dtype="float32"):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def on_device(tree):
    return optree.tree_map(lambda x: cupy.asarray(x) if isinstance(x, np.ndarray) else x, tree)


def steps(rule, step, params, grad, *hypers, start=None):
    """The states after each of some steps."""
    state, states = rule.bind(**(start or {})).init(params), []
    for hyper in hypers:
        state = step(state, grad, **hyper)
        states.append(state)
    return states


def launches(function):
    """The names of the kernels that are launched, but for those that fill."""
    with trace() as events:
        function()
    return [event.removeprefix("launch ") for event in events if event.startswith("launch ")]


# What is computed.


def stepped(operations, x, y):
    """What a kernel of some operations makes of ``x`` and ``y``."""
    program = Program("toy", ("params", "grad"), (), operations, {"params": operations[-1].result}, {})
    kernel = cupy.ElementwiseKernel(*text_of_one(program, x.dtype.name), "toy", options=OPTIONS, no_return=True)
    arrays, new = {"params": cupy.asarray(x), "grad": cupy.asarray(y)}, cupy.empty_like(x)
    kernel(*(arrays[name] for name in program.reads), new)
    return new.get()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_operations_are_numpys(name, dtype):
    """Those that no rule uses as well."""
    values = np.asarray([*SPECIAL, np.finfo(dtype).max, np.finfo(dtype).smallest_normal], dtype)
    x, y = (np.concatenate([z.ravel(), numbers(i, 500, dtype)]) for i, z in enumerate(np.meshgrid(values, values)))
    with np.errstate(all="ignore"):
        if name == "where":
            wanted = np.where(x < y, y, np.asarray(0.1, dtype))
            operations = Operation("t0", "less", ("params", "grad")), Operation("t1", "where", ("t0", "grad", 0.1))
        else:
            names = ("params", "grad")[: getattr(np, name).nin]
            wanted, operations = getattr(np, name)(*(x, y)[: len(names)]), (Operation("t0", name, names),)
            if name in COMPARISONS:
                operations += (Operation("t1", "where", ("t0", 1.0, 0.0)),)
    wanted = wanted.astype(dtype)
    if dtype == "float32":
        wanted = np.where(np.abs(wanted) < np.finfo(dtype).smallest_normal, np.copysign(np.float32(0), wanted), wanted)  # flushed
    new = stepped(operations, x, y)
    if name in ("maximum", "minimum"):
        new, wanted = new + 0.0, wanted + 0.0  # of 0 and -0 NumPy may take either
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(new), nan)
    assert np.where(nan, 0, new).tobytes() == np.where(nan, 0, wanted).astype(dtype).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_in_the_text_are_rounded_once(dtype):
    one = np.ones(1, dtype)
    for number in (0.1, -2.5, 1e-8, 3e38, 16777217.0, 0.1 + 2**-53, 1 / 3):
        new = stepped((Operation("t0", "multiply", ("grad", number)),), one, one)
        assert new[0] == np.asarray(number, dtype)


def test_every_form_of_a_state_has_numpys_bits(rule):
    """Slots that are None, and gains of 1."""
    params, grad = ([numbers(seed, (20,)), numbers(seed + 1, (3, 4))] for seed in (0, 2))
    for start, hyper in variants(rule):
        for some, theirs in ((params, grad), (params[0], grad[0])):
            plain = steps(rule, rule.step, some, theirs, hyper, hyper, start=start)
            assert_same_bits(steps(rule, fuse(rule), on_device(some), on_device(theirs), hyper, hyper, start=start), plain)


def test_hyperparameters_on_the_device():
    """A 0-d array of CuPy's is the number that it holds."""
    params = numbers(0, 9)
    for rule, name in ((xopt.nadam, "beta1"), (xopt.adamw, "lr")):
        plain = steps(rule, rule.step, params, params, *[{name: 0.5}] * 3)
        states = steps(rule, fuse(rule), on_device(params), on_device(params), *[{name: cupy.asarray(0.5)}] * 3)
        assert_same_bits(states, plain)
        assert [type(x) for state in states for x in state] == [
            cupy.ndarray if isinstance(x, np.ndarray) else type(x) for state in plain for x in state
        ]


def test_the_largest_numbers_widen_nothing(rule):
    largest = float(np.finfo("f4").max)
    params, grad = numbers(0, 9), numbers(1, 9)
    with np.errstate(all="ignore"):
        for lr in (largest, 3.4e38):
            plain = rule.step(rule.init(params), grad, lr=lr)
            assert_same_bits(rule.step(rule.init(on_device(params)), on_device(grad), lr=lr), plain)


# What is compiled, and launched.


def test_other_numbers_never_compile(rule, monkeypatch):
    """Not the learning rate, nor decays, nor the step count: what they are is an argument."""
    made, kernel = [], cupy.ElementwiseKernel
    monkeypatch.setattr(cupy, "ElementwiseKernel", lambda *arguments, **options: made.append(1) or kernel(*arguments, **options))
    x = cupy.ones(9, "f4")
    start = {"betas": (0.1, 0.2, 0.3)} if "betas" in rule.defaults else {}
    for params in (x, [x, x, x]):
        state, step = rule.bind(**start).init(params), fuse(rule)
        for k in range(1, 5):
            hyper = {"lr": 0.1 / k, "weight_decay": 0.01 * k, "eps": 1e-8 * k, "alpha": 1.0 * k, "nu": 0.1 * k, "nu1": 0.1 * k}
            hyper |= dict.fromkeys(("beta", "beta1", "beta2", "beta3"), 1 - 0.1**k)
            hyper["betas"] = tuple(1 - 0.1 ** (k + i) for i in range(3))
            state = step(state, params, **{name: x for name, x in hyper.items() if name in rule.defaults})
    assert len(made) == 3, "a kernel for one array, one for a dense one and one for many, which all steps share"


def test_leaves_share_a_launch_where_they_share_a_kernel():
    """Whatever their hyperparameters are; those with a gain of 1, and those of another dtype, have another kernel."""
    params = {
        "a": numbers(0, 50),
        "b": numbers(1, (3, 4)),
        "c": numbers(2, ()),
        "d": numbers(3, 9),
        "empty": np.zeros((0, 5), "f4"),
    }
    there, step = on_device(params), fuse(xopt.adam)
    hyper = {"lr": {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.1, "empty": 0.5}}
    assert launches(lambda: step(xopt.adam_init(there), there, **hyper))[-1:] == ["xopt_adam_float32_many"]
    for own, kernels in (
        (hyper, ["xopt_adam_float32_many"]),
        (hyper | {"beta1": dict.fromkeys(params, 0.9) | {"a": 0.0}}, ["xopt_adam_float32_dense", "xopt_adam_float32_many"]),
    ):
        state = xopt.adam_init(there)
        assert launches(lambda state=state, own=own: step(state, there, **own)) == kernels
        assert_same_bits(step(state, there, **own), xopt.adam_step(xopt.adam_init(params), params, **own))


def test_dtypes_have_their_kernels():
    params = [numbers(i, 3, dtype) for i, dtype in enumerate(["float32", "float64", "float32", "float64"])]
    there, step = on_device(params), fuse(xopt.lion)
    state = xopt.lion_init(there)
    assert launches(lambda: step(state, there)) == ["xopt_lion_float32_many", "xopt_lion_float64_many"]
    assert_same_bits(step(state, there), xopt.lion_step(xopt.lion_init(params), params))


def test_empty_leaves_are_not_launched():
    for params in (cupy.zeros((0, 3), "f4"), [cupy.zeros(0, "f4")] * 3):
        state, step = xopt.adam_init(params), fuse(xopt.adam)
        assert launches(lambda state=state, step=step, params=params: step(state, params)) == []
        assert step(step(state, params), params).step == 2


# What is refused.


def test_a_gradient_may_be_its_own_leaf_alone():
    tied, other = cupy.ones(8, "f4"), cupy.ones(8, "f4")
    step = fuse(xopt.sgd, donate=True)
    with pytest.raises(ValueError, match="shares memory"):
        step(xopt.sgd_init([tied, other]), [other, tied])
    new = fuse(xopt.sgd)(xopt.sgd_init([tied, tied]), [other, other], lr=0.5)  # without donate there is nothing to refuse
    assert_same_bits(new.params, [np.full(8, 0.5, "f4")] * 2)
    new = step(xopt.sgd_init([tied, other]), [tied, other], lr=0.5)  # each number is read before it is written
    assert_same_bits(new.params, [np.full(8, 0.5, "f4")] * 2)


def test_arguments_are_checked_as_the_eager_step_does():
    params = [cupy.ones(3, "f4"), cupy.ones(2, "f4")]
    state, step = xopt.adam_init(params), fuse(xopt.adam)
    with pytest.raises(ValueError, match=r"adam_step: grad\[1\] has shape \(3,\)"):
        step(state, [cupy.ones(3, "f4")] * 2)
    with pytest.raises(ValueError, match="lr"):
        step(state, params, lr=-1.0)
    with pytest.raises(ValueError, match="unknown compiler"):
        fuse(xopt.adam, compiler="nvcc")
