"""Backends: what there is and why not, arrays from and to NumPy to the last bit, sessions, compilers."""

import functools
import importlib.util
import math
import subprocess
import sys
import types
from fractions import Fraction

import numpy as np
import pytest

import xopt
from xopt import backends
from xopt.backends import BACKENDS, _availability, available, get
from xopt.backends._jax import named
from xopt.backends.base import Backend

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own

HERE = [name for name in BACKENDS if importlib.util.find_spec(BACKENDS[name].module.partition(".")[0])]
ALL = ("float16", "bfloat16", "float32", "float64")
HAVE = {"numpy": ("float16", "float32", "float64"), "array_api_strict": ("float32", "float64"), "torch": ALL, "jax": ALL}
HAVE |= {"mlx": ALL, "dask": HAVE["numpy"], "ndonnx": HAVE["numpy"], "mparray": ("float64",)}
TARGETS = [(name, dtype) for name in HERE for dtype in HAVE.get(name, ())]
FORMATS = {"float16": (11, -14, 15), "bfloat16": (8, -126, 127), "float32": (24, -126, 127), "float64": (53, -1022, 1023)}
STRANGERS = ("torch", "jax", "cupy", "array_api_strict", "mlx", "dpnp", "dask", "ndonnx", "onnx", "mparray", "mpmath")


@pytest.fixture(autouse=True)
def look_again():
    """What was found of libraries is kept; the tests change what there is."""
    _availability.cache_clear()
    yield
    _availability.cache_clear()


@pytest.fixture(params=TARGETS, ids="-".join)
def target(request):
    """A backend, in its session, and one of its dtypes."""
    name, dtype = request.param
    backend = get(name)
    with backend.session():
        yield backend, dtype


# What there is.


def test_import_loads_no_library():
    code = f"import sys, xopt.backends; print([m for m in {STRANGERS!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_backend_is_available_or_says_why_not():
    found = available()
    assert list(found) == ["numpy", "array_api_strict", "torch", "jax", "cupy", "mlx", "dpnp", "dask", "ndonnx", "mparray"]
    assert found["numpy"] == ("numpy", np.__version__, ("cpu",), None)
    for name, row in found.items():
        assert row.name == name
        assert (row.reason is None) == bool(row.devices)
        assert row.reason is None or row.reason.startswith(("not installed: pip install ", "installed, "))
        assert row.reason is None or name not in ("numpy", *HERE) or row.version is not None


def test_backends_can_be_asked_for_by_name_and_no_other_library_is_imported():
    code = "import sys, xopt.backends; xopt.backends.available(['numpy']); print({'torch', 'jax', 'cupy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert list(available(["jax", "numpy"])) == ["jax", "numpy"]
    with pytest.raises(ValueError, match="unknown backend 'tensorflow'; there are numpy, array_api_strict, torch, jax, cupy"):
        available(["numpy", "tensorflow"])


def hide(monkeypatch, name):
    """As if the library were not installed."""
    real = importlib.util.find_spec
    kind = BACKENDS[name]
    monkeypatch.delitem(sys.modules, kind.module, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda module, *rest: None if module == kind.module else real(module, *rest))
    monkeypatch.setattr(kind, "distributions", ("array-xopt-no-such-distribution",))


def test_a_missing_library_is_a_reason_with_the_way_out(monkeypatch):
    hide(monkeypatch, "jax")
    assert available()["jax"] == ("jax", None, (), "not installed: pip install array-xopt-no-such-distribution")
    assert available()["numpy"].reason is None
    with pytest.raises(
        RuntimeError, match="backend jax cannot be used: not installed: pip install array-xopt-no-such-distribution"
    ):
        get("jax")


def test_a_missing_library_is_not_imported(monkeypatch):
    hide(monkeypatch, "cupy")
    monkeypatch.setattr(BACKENDS["cupy"], "devices", lambda: pytest.fail("asked for devices"))
    assert available()["cupy"].reason.startswith("not installed")


@pytest.mark.parametrize("error", [ImportError("libcudart.so.12: cannot open\nmore"), OSError("bad ELF"), RuntimeError("ABI")])
def test_a_library_that_breaks_when_imported_is_a_reason(monkeypatch, tmp_path, error):
    (tmp_path / "cupy.py").write_text(f"raise {error!r}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    found = available()["cupy"]
    assert found.version is not None
    assert found.devices == ()
    assert found.reason == f"installed, but import fails: {type(error).__name__}: {str(error).splitlines()[0]}"
    with pytest.raises(RuntimeError, match="cupy cannot be used: installed, but import fails"):
        get("cupy")


def test_unknown_names_and_devices_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown backend 'tensorflow'; there are numpy, .*cupy"):
        get("tensorflow")
    with pytest.raises(ValueError, match=r"unknown device 'cuda:9' of backend numpy; there are cpu"):
        get("numpy", "cuda:9")


@pytest.mark.parametrize("name", HERE)
def test_the_default_device_is_the_first(name):
    found = available()[name]
    if found.reason:
        pytest.skip(found.reason)
    backend = get(name)
    assert (backend.name, backend.device, backend.version) == (name, found.devices[0], found.version)
    assert get(name, found.devices[-1]).device == found.devices[-1]


def test_jax_devices_have_names():
    places = [("cpu", 0), ("cpu", 1), ("gpu", 0), ("gpu", 3)]
    devices = [types.SimpleNamespace(platform=platform, id=number) for platform, number in places]
    assert named(devices) == dict(zip(("cpu", "cpu:1", "gpu:0", "gpu:3"), devices, strict=True))


def test_torch_devices_have_names(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert available()["torch"].devices == ("cpu", "cuda:0", "cuda:1")


# Arrays from and to NumPy.


@pytest.mark.parametrize("name", [name for name in HERE if name in HAVE])
def test_what_a_backend_does_not_have_is_refused(name):
    assert get(name).dtypes() == HAVE[name]
    for dtype in {*ALL, "int32", "complex64"} - set(HAVE[name]):
        with pytest.raises(ValueError, match=f"{name} has no {dtype}; it has .*float64"):
            get(name).asarray([1.0], dtype)


def exact(value, dtype):
    """``value`` rounded once, by rational arithmetic."""
    digits, emin, emax = FORMATS[dtype]
    if value == 0 or not math.isfinite(value):
        return value
    last = max(math.frexp(value)[1] - 1, emin) - digits + 1
    kept = round(Fraction(value) / Fraction(2) ** last)  # ties to even
    result = Fraction(kept) * Fraction(2) ** last
    if abs(result) > (Fraction(2) - Fraction(2) ** (1 - digits)) * Fraction(2) ** emax:
        return math.copysign(math.inf, value)
    return math.copysign(float(result), value)


def hard_values(dtype):
    """Float64 values on, just above and just below what is halfway between two numbers of ``dtype``, and the ends of its range."""
    digits, emin, emax = FORMATS[dtype]
    values = [0.0, -0.0, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, -1e300]
    values += [2.0**emin, 2.0 ** (emin - 1), math.ldexp(2 - 2.0 ** (1 - digits), emax)]
    for e in (0, 3, emin, emin - 2, emax):
        for mantissa in (1.0, 1.0 + 2.0 ** (1 - digits), 1.5, 2.0 - 2.0 ** (1 - digits)):
            x = math.ldexp(mantissa, e)
            unit = max(e, emin) - digits  # half of the last place
            half = math.ldexp(1.0, unit) if unit >= -1074 else 0.0
            for beside in (0.0, half, *(half * (1 + s * 2.0**-k) for s in (1, -1) for k in (1, 15, 17, 25))):
                values += [x + beside, -(x + beside)] if math.isfinite(x + beside) else []
    return values


def bits(x):
    return x.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[x.itemsize]).tolist()


def test_values_are_rounded_once(target):
    """Float64 to bfloat16 by way of float32, as the libraries themselves do it, gets the halfway cases wrong."""
    backend, dtype = target
    values = hard_values(dtype)
    if backend.name == "mparray":
        values = [v + 0.0 for v in values]  # mpmath has no -0.0
    x = backend.asarray(np.asarray(values), dtype)
    got = backend.to_numpy(x)
    assert dtype in str(x.dtype)
    assert got.dtype == np.dtype("float32" if dtype == "bfloat16" else dtype)
    assert bits(got) == bits(np.asarray([exact(v, dtype) for v in values], got.dtype))


def test_the_halfway_cases_would_catch_rounding_twice():
    values = np.asarray(hard_values("bfloat16"))
    with np.errstate(over="ignore"):
        twice = [exact(v, "bfloat16") for v in values.astype(np.float32).astype(float)]
    assert twice != [exact(v, "bfloat16") for v in values]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 3)])
def test_shapes_survive(target, shape):
    backend, dtype = target
    values = np.arange(math.prod(shape)).reshape(shape) - 1.5
    got = backend.to_numpy(backend.asarray(values, dtype))
    assert isinstance(got, np.ndarray)
    assert got.shape == shape
    assert (got == values).all()
    assert backend.to_numpy(backend.asarray(values.tolist(), dtype)).shape == shape


def test_nan_stays_nan(target):
    backend, dtype = target
    assert np.isnan(backend.to_numpy(backend.asarray([math.nan, -math.nan], dtype))).all()


@pytest.mark.parametrize("wide", [np.float16, np.float32, np.float64])
def test_arrays_are_fresh_copies(target, wide):
    backend, dtype = target
    values = np.arange(64, dtype=wide)
    x = backend.asarray(values, dtype)
    strided = backend.asarray(values[::-2], dtype)
    before = values.copy()
    values[:] = -1
    assert (backend.to_numpy(x) == before).all()
    assert (backend.to_numpy(strided) == before[::-2]).all()


def test_the_namespace_is_that_of_array_api_compat(target):
    from array_api_compat import array_namespace

    backend, dtype = target
    assert backend.xp is array_namespace(backend.asarray([1.0], dtype))


# Sessions.


def test_jax_refuses_float64_outside_a_session_and_has_it_inside():
    jax = pytest.importorskip("jax")
    backend = get("jax")
    before = jax.config.jax_enable_x64
    assert not before
    with pytest.raises(ValueError, match=r"jax\.config\.update\('jax_enable_x64', True\).*session\(\)"):
        backend.asarray([1.0], "float64")
    with backend.session():
        x = backend.asarray([1.0 + 2.0**-52], "float64")
        assert backend.to_numpy(x + x)[0] == 2.0 + 2.0**-51
        with backend.session():
            pass
        assert jax.config.jax_enable_x64
    assert jax.config.jax_enable_x64 == before
    with pytest.raises(ZeroDivisionError), backend.session():
        raise ZeroDivisionError
    assert jax.config.jax_enable_x64 == before


def test_a_torch_session_records_no_gradient():
    torch = pytest.importorskip("torch")
    x = torch.ones(2, requires_grad=True)
    with get("torch").session():
        assert not (x * x).requires_grad
    assert (x * x).requires_grad
    assert get("torch").to_numpy(x).tolist() == [1.0, 1.0]


# Compilers.


@pytest.mark.parametrize("name", [name for name in HERE if BACKENDS[name].tracer is None and name != "cupy"])
def test_no_compiler_is_none(name):
    assert get(name).tracer is None
    assert get(name).trace(abs) is None


def step_with_a_none_slot(state, grad):
    return xopt.adamw_step(state, grad, lr=0.5, beta1=0.0)


@pytest.mark.parametrize("name", [name for name in HERE if BACKENDS[name].tracer])
def test_states_with_none_slots_and_trees_pass_through_the_compiler(name):
    backend = get(name)
    with backend.session():
        params = {"w": backend.asarray([[1.0, 2.0]], "float32"), "b": [backend.asarray(3.0, "float64")]}
        state = expected = xopt.adamw_init(params, beta1=0.0)
        traced = backend.trace(step_with_a_none_slot)
        for _ in range(2):
            state, expected = traced(state, params), step_with_a_none_slot(expected, params)
        backend.synchronise(state.params["w"])
        assert type(state) is type(expected)
        assert state.m["w"] is None
        assert int(state.step) == 2
        assert isinstance(state.step, int) == (name == "torch")
        got, want = (backend.to_numpy(s.params["w"]) for s in (state, expected))
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_torch_never_falls_back_to_eager_without_a_word(monkeypatch):
    """Past its limit of compilations, 8, torch runs the function as it is; a compiled cell would not have been compiled."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))  # the graphs are enough, and fast
    compiled = []

    def work(x, kind):
        compiled.append(torch.compiler.is_compiling())
        return x + len(kind)

    with get("torch").session():
        traced = get("torch").trace(work)
        for i in range(12):
            assert traced(torch.ones(2), "x" * i).tolist() == [1.0 + i] * 2
    assert all(compiled)


# CuPy, as far as a machine without a GPU can tell.


class Device:
    """The context manager that a CuPy device is."""

    current = [0]  # noqa: RUF012 - shared, as CuPy's is
    waited = 0

    def __init__(self, number):
        self.number = number

    def __enter__(self):
        self.current.append(self.number)
        return self

    def __exit__(self, *error):
        self.current.pop()

    def synchronize(self):
        Device.waited += 1


@pytest.fixture
def cupy(monkeypatch):
    """A stand-in for CuPy, made of NumPy, with two devices."""
    module = types.ModuleType("cupy")
    module.__version__ = "0"
    module.made_on = []

    def array(host):
        module.made_on.append(Device.current[-1])
        return np.array(host)

    module.array, module.asnumpy = array, np.asarray
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 2,
        getDeviceProperties=lambda _: {"name": b"NVIDIA H200"},
        CUDARuntimeError=type("CUDARuntimeError", (RuntimeError,), {}),
    )
    module.cuda = types.SimpleNamespace(runtime=runtime, Device=Device)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_cupy_computes_on_the_device_it_is_given(cupy):
    assert available()["cupy"].devices == ("cuda:0", "cuda:1")
    assert get("cupy").device == "cuda:0"
    backend = get("cupy", "cuda:1")
    assert backend.dtypes() == ("float16", "float32", "float64")
    x = backend.asarray([1.0, 2.0], "float32")
    assert cupy.made_on == [1]
    assert backend.to_numpy(x).tolist() == [1.0, 2.0]
    with backend.session():
        assert Device.current == [0, 1]
    assert Device.current == [0]
    waited = Device.waited
    backend.synchronise(x)
    assert Device.waited == waited + 1
    assert backend.trace(abs) is None
    with pytest.raises(ValueError, match="cupy has no bfloat16"):
        backend.asarray([1.0], "bfloat16")


def test_an_emulated_device_is_called_so(cupy, monkeypatch):
    names = [b"NVIDIA H200", b"CPU, emulated"]
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceProperties", lambda i: {"name": names[i]})
    assert available()["cupy"].devices == ("cuda:0", "cpu-emulated:1")
    get("cupy", "cpu-emulated:1").asarray([1.0], "float32")
    assert cupy.made_on == [1]


def test_cupy_without_a_device_is_a_reason(cupy, monkeypatch):
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)
    assert available()["cupy"].reason == "installed, no CUDA device"


def test_cupy_without_a_driver_is_a_reason(cupy, monkeypatch):
    def fail():
        raise cupy.cuda.runtime.CUDARuntimeError

    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", fail)
    assert available()["cupy"].reason == "installed, no CUDA device"
    with pytest.raises(RuntimeError, match="no CUDA device"):
        get("cupy")


# The table.


def test_the_table_has_a_row_for_each_file():
    for name, kind in BACKENDS.items():
        assert issubclass(kind, Backend)
        assert kind.name == name
        assert kind.__module__ == f"xopt.backends._{name}"
    assert set(backends.__all__) == {
        "BACKENDS",
        "Availability",
        "Backend",
        "LawError",
        "as_optax",
        "available",
        "fuse",
        "get",
        "to_onnx",
    }
