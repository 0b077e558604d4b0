"""Libraries beside those of ``libraries.py``: each rule's bits, what each does its own way, registered classes, ONNX."""

import importlib.util
import pickle
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from libraries import variants

import xopt
from xopt.backends import BACKENDS, fuse, get, to_onnx
from xopt.program import names_of, numbers_of

OTHERS = ("mlx", "dask", "ndonnx", "mparray")
SHAPES = {"w": (4, 5), "s": (), "e": (0, 3)}


def needed(name: str) -> Any:
    if not BACKENDS[name].installed_version():
        pytest.skip(f"{name} is not installed")
    return get(name)


def tree(seed: int, dtype: str) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(shape) * 10.0 ** rng.integers(-8, 3), dtype) for name, shape in SHAPES.items()}


def slots_of(backend: Any, state: Any) -> list[Any]:
    """The arrays of a state, as NumPy's."""
    found = []
    for column in state[:-1]:
        for x in column.values():
            found += [backend.to_numpy(a) for a in (x if isinstance(x, tuple) else (x,)) if a is not None and hasattr(a, "dtype")]
    return found


@pytest.mark.parametrize("name", OTHERS)
def test_every_rule_has_numpys_bits(name, rule):
    backend, host = needed(name), get("numpy")
    dtypes = ("float32", "float16") if name != "mparray" else ("float64",)
    for dtype in dtypes:
        for start, hyper in list(variants(rule))[:2]:
            with backend.session():
                one = rule.bind(**start).init(tree(0, dtype))
                other = rule.bind(**start).init({k: backend.asarray(x, dtype) for k, x in tree(0, dtype).items()})
                for i in range(1, 4):
                    grads = tree(i, dtype)
                    one = rule.step(one, grads, **hyper)
                    other = rule.step(other, {k: backend.asarray(x, dtype) for k, x in grads.items()}, **hyper)
                pairs = list(zip(slots_of(host, one), slots_of(backend, other), strict=True))
                assert len(pairs) >= len(SHAPES)
                for x, y in pairs:
                    assert (x.dtype, x.shape) == (y.dtype, y.shape)
                    assert np.array_equal(x, y)


# MLX.


def test_mlx_fused_steps_have_numpys_bits_and_compile_once(rule):
    backend = needed("mlx")
    step = fuse(rule, donate=True)
    one, other = rule.init(tree(0, "float32")), rule.init({k: backend.asarray(x, "float32") for k, x in tree(0, "float32").items()})
    for i in range(1, 5):
        lr, grads = 0.1 / i, tree(i, "float32")
        one = rule.step(one, grads, lr=lr)
        old, other = other, step(other, {k: backend.asarray(x, "float32") for k, x in grads.items()}, lr=lr)
    assert all(map(np.array_equal, slots_of(get("numpy"), one), slots_of(backend, other)))
    with pytest.raises(ValueError, match=f"{rule.name}_step, fused: params.*was donated to an earlier step"):
        step(old, other.params)


def test_mlx_keeps_nan_of_a_sign():
    backend = needed("mlx")
    grad = backend.asarray([np.nan, 1.0], "float32")
    for step in (xopt.lion_step, fuse(xopt.lion)):
        got = backend.to_numpy(step(xopt.lion_init(backend.asarray([1.0, 1.0], "float32")), grad).params)
        assert np.isnan(got[0])
        assert got[1] == np.float32(1 - 1e-4)


def test_mx_compile_follows_a_step_count_that_is_an_array():
    backend = needed("mlx")
    mx = backend.lib
    state, host = xopt.adamw_init(mx.ones(3))._replace(step=mx.array(0)), xopt.adamw_init(np.ones(3, np.float32))
    step = mx.compile(lambda *x: list(xopt.adamw_step(xopt.adamw.state(*x[:-1]), x[-1])))
    for i in range(3):
        grad = np.asarray([1.0, -2.0, 0.5], np.float32) / (i + 1)
        state = xopt.adamw.state(*step(*state, mx.array(grad)))
        host = xopt.adamw_step(host, grad)
    assert int(state.step) == 3
    assert np.allclose(backend.to_numpy(state.params), host.params, rtol=2**-20)


def test_what_mlx_loses_when_it_is_pickled_is_refused_not_promoted():
    backend = needed("mlx")
    params = backend.asarray([1.0, 2.0], "float64")
    state = pickle.loads(pickle.dumps(xopt.lion_init(params)))
    assert state.params.dtype == backend.lib.float32, "MLX keeps float64 now: BACKENDS['mlx'].survives can say so"
    with pytest.raises(TypeError, match=r"lion_step: grad is mlx\.core\.float64 but must be mlx\.core\.float32"):
        xopt.lion_step(state, params)


# Dask.


def test_dask_steps_are_lazy_and_take_arrays_of_unknown_size(rule):
    needed("dask")
    import dask
    import dask.array as da

    host = np.linspace(-1, 1, 12, dtype=np.float32)
    x = da.from_array(host, chunks=5)
    params, grad = x[x > 0], (x * 2)[x > 0]
    assert np.isnan(params.shape[0])
    with dask.config.set(scheduler="synchronous"):
        state, want = rule.init(params), rule.init(host[host > 0])
        for _ in range(3):
            state, want = rule.step(state, grad), rule.step(want, host[host > 0] * 2)
        assert isinstance(state.params, da.Array)
        assert np.array_equal(state.params.compute(), want.params)
    with pytest.raises(ValueError, match=rf"{rule.name}_step: grad has shape \(3,\) but params has \(nan,\)"):
        rule.step(state, da.ones(3, dtype="float32"))


def test_dask_computes_a_long_run_once():
    backend = needed("dask")
    with backend.session():
        state = xopt.lion_init(backend.asarray(np.ones(4), "float32"))
        for _ in range(5):
            state = xopt.lion_step(state, state.params)
        backend.synchronise(state.params)
        assert len(state.params.dask.layers) == 1


# mparray.


def test_mparray_is_a_second_reference_of_more_digits():
    backend = needed("mparray")
    from mpmath import mp, mpf

    with mp.workdps(40):
        params = backend.lib.asarray([mpf(1) / 3])
        state = xopt.momentum_step(xopt.momentum_init(params), params, lr=0.5, weight_decay=0.0)
        assert state.params._data[0] == params._data[0] - mpf(0.5) * params._data[0]
        assert float(state.params._data[0]) != state.params._data[0]  # there are more digits than a float has


def test_ndonnx_starts_no_threads_for_each_operation():
    backend, runtime = needed("ndonnx"), pytest.importorskip("onnxruntime")
    before = runtime.SessionOptions
    with backend.session():
        x = backend.asarray([1.0, 2.0], "float32")
        with pytest.MonkeyPatch.context() as patched:
            made, given = runtime.InferenceSession, []
            patched.setattr(runtime, "InferenceSession", lambda model, options: given.append(options) or made(model, options))
            assert backend.to_numpy(x + x).tolist() == [2.0, 4.0]
    assert given
    assert {options.intra_op_num_threads for options in given} == {1}
    assert runtime.SessionOptions is before


# Classes that were registered.


class Numbers:
    """An array of nobody's: a NumPy array in a box, with operators and no namespace."""

    def __init__(self, x: Any) -> None:
        self.x = np.asarray(x)

    dtype = property(lambda self: self.x.dtype)
    shape = property(lambda self: self.x.shape)
    ndim = property(lambda self: self.x.ndim)
    __hash__ = None

    def __abs__(self) -> Any:
        return type(self)(abs(self.x))

    def __float__(self) -> float:
        return float(self.x)


def boxed(function):
    return lambda *xs, **kw: Numbers(function(*(x.x if isinstance(x, Numbers) else x for x in xs), **kw))


for _name in ("add", "sub", "mul", "truediv", "lt", "le", "gt", "ge", "eq", "ne", "radd", "rsub", "rmul"):
    setattr(Numbers, f"__{_name}__", boxed(getattr(np.ndarray, f"__{_name}__")))


class Special(Numbers):
    pass


def boxes(**other):
    functions = ("asarray", "astype", "zeros_like", "where", "sqrt", "sign", "log", "minimum", "maximum")
    plain = {name: getattr(np, name) for name in ("isdtype", "finfo", "iinfo", "float32")}
    return SimpleNamespace(**({name: boxed(getattr(np, name)) for name in functions} | plain | other))


@pytest.mark.parametrize("kind", [Numbers, Special])
def test_arrays_of_a_registered_class_have_numpys_bits(rule, kind):
    xopt.register_namespace(Numbers, boxes())
    one, other = rule.init(tree(0, "float32")), rule.init({k: kind(x) for k, x in tree(0, "float32").items()})
    for i in range(1, 4):
        one, other = rule.step(one, tree(i, "float32")), rule.step(other, {k: kind(x) for k, x in tree(i, "float32").items()})
    for name, x in one.params.items():
        assert np.array_equal(other.params[name].x, x)
        assert other.params[name].dtype == x.dtype
    with pytest.raises(ValueError, match="nothing is broadcast"):
        rule.step(other, {k: kind(np.ones(7, np.float32)) for k in SHAPES})


def test_a_class_that_is_registered_again_has_the_new_namespace():
    xopt.register_namespace(Numbers, boxes())
    state = xopt.lion_step(xopt.lion_init(Numbers(np.ones(2))), Numbers(np.ones(2)))
    calls = []
    xopt.register_namespace(Numbers, boxes(sign=lambda x: calls.append(x) or Numbers(np.sign(x.x))))
    xopt.lion_step(state, Numbers(np.ones(2)))
    xopt.register_namespace(Numbers, boxes())
    assert len(calls) == 1


def test_arrays_of_no_registered_class_are_refused():
    with pytest.raises(TypeError, match="params must be an array, got"):
        xopt.lion_init(Numbers.__new__(type("Numbers", (), {})))
    with pytest.raises(ValueError, match="params must be a tree of at least one array"):
        xopt.lion_init([])


def test_what_cannot_be_registered_is_named():
    with pytest.raises(TypeError, match="register_namespace: cls must be a class of arrays, got 1"):
        xopt.register_namespace(1, np)
    with pytest.raises(TypeError, match="register_namespace: ndarray has __array_namespace__"):
        xopt.register_namespace(np.ndarray, np)
    with pytest.raises(TypeError, match=r"register_namespace: xp must offer asarray.*lacks log, finfo"):
        xopt.register_namespace(Numbers, SimpleNamespace(**{k: 0 for k in vars(boxes()) if k not in ("log", "finfo")}))


@pytest.fixture
def tensors():
    """TensorFlow's, after the page's own example of a class that is registered."""
    tf = pytest.importorskip("tensorflow", reason="TensorFlow, which takes 1.5 GB, is not installed")
    page = (Path(__file__).parent.parent / "docs" / "recipes" / "other-libraries.md").read_text()
    (example,) = re.findall(r"^```python no-run: TensorFlow[^\n]*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(example, {})
    return tf


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_tensorflow_as_the_page_registers_it_has_numpys_bits(rule, dtype, tensors):
    for start, hyper in list(variants(rule))[:2]:
        one = rule.bind(**start).init(tree(0, dtype))
        other = rule.bind(**start).init({k: tensors.constant(x) for k, x in tree(0, dtype).items()})
        for i in range(1, 4):
            one = rule.step(one, tree(i, dtype), **hyper)
            other = rule.step(other, {k: tensors.constant(x) for k, x in tree(i, dtype).items()}, **hyper)
        for name, x in one.params.items():
            found = other.params[name].numpy()
            assert (found.dtype, found.shape) == (x.dtype, x.shape)
            assert np.array_equal(found, x)


# ONNX.

needs_onnx = pytest.mark.skipif(
    not (importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime")),
    reason="onnx or onnxruntime is not installed",
)


def fed(rule: Any, state: Any, grad: Any, c: Any, compute: Any) -> dict[str, Any]:
    """What a model is given for a step."""
    feed = {"params": state.params, "grad": grad}
    feed |= {name: np.asarray(x, compute) for name, x in zip(names_of(c), numbers_of(c), strict=True)}
    for name in (name for name in rule.slots if name not in rule.carried):
        slot = getattr(state, name)
        pairs = [(f"{name}_{i}", x) for i, x in enumerate(slot)] if isinstance(slot, tuple) else [(name, slot)]
        feed |= {key: x for key, x in pairs if x is not None}
    return feed


@needs_onnx
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_model_has_numpys_bits_in_onnxruntime(rule, dtype):
    import onnxruntime

    compute = np.float64 if dtype == "float64" else np.float32
    for start, hyper in variants(rule):
        if start != {name: hyper.get(name) for name in start} or (
            not start and any(hyper.get(x) == 0.0 for x in rule.memory.values())
        ):
            continue  # a decay of 0 is told to the model as it is to init
        model = to_onnx(rule, dtype, **hyper)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(0)
        state = rule.bind(**start).init(rng.standard_normal(33).astype(dtype))
        for t in range(1, 5):
            grad = (rng.standard_normal(33) * 10.0 ** rng.integers(-6, 3)).astype(dtype)
            grad[:3] = np.nan, 0.0, -0.0
            c = rule.coefficients(t, *(getattr(state, name) for name in rule.carried), **hyper)
            given = fed(rule, state, grad, c, compute)
            new = rule.step(state, grad, **hyper)
            want = fed(rule, new, grad, c, compute)
            names = [output.name for output in session.get_outputs()]
            assert len(names) == len([name for name in given if name != "grad" and not name.startswith("c_")])
            for name, got in zip(names, session.run(None, given), strict=True):
                assert got.dtype == want[name[4:]].dtype
                assert np.array_equal(got, want[name[4:]], equal_nan=True), (name, start, hyper)
            state = new


@needs_onnx
def test_what_cannot_be_exported_is_refused():
    with pytest.raises(TypeError, match=r"to_onnx: rule must be a rule such as xopt\.lion, got 3"):
        to_onnx(3)
    with pytest.raises(ValueError, match="to_onnx: dtype must be one of float16, bfloat16, float32, float64, got 'int8'"):
        to_onnx(xopt.lion, "int8")
    with pytest.raises(TypeError, match="unknown hyperparameter 'momentum'"):
        to_onnx(xopt.lion, momentum=0.9)
    with pytest.raises(ValueError, match="beta1 must be in"):
        to_onnx(xopt.lion, beta1=1.5)
    with pytest.raises(ValueError, match="begins at a decay of 0"):  # for the first steps the average is the gradient itself
        to_onnx(xopt.ademamix, beta1=0.0, beta3_warmup=10**7)
    assert [x.name for x in to_onnx(xopt.momentum.bind(beta=0.0)).graph.input if not x.name.startswith("c_")] == ["params", "grad"]


def test_without_onnx_the_way_out_is_named(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnx" else real(name, *rest))
    with pytest.raises(ImportError, match="pip install onnx"):
        to_onnx(xopt.lion)
