"""CuPy on the stand-in against NumPy: so that a fault of the stand-in is not taken for one of xopt."""

import signal
import subprocess
import sys

import cupy
import numpy as np
import pytest
from cuda_on_cpu import trace

DTYPES = ["float16", "float32", "float64"]


def normal(seed, shape, dtype):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def same(got, wanted):
    """Asserts the same dtype, shape and bits."""
    assert isinstance(got, cupy.ndarray)
    got = cupy.asnumpy(got)
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    assert got.tobytes() == wanted.tobytes(), (got, wanted)


# What is computed.

ARITHMETIC = {
    "add": lambda xp, a, b: a + b,
    "subtract": lambda xp, a, b: a - b,
    "multiply": lambda xp, a, b: a * b,
    "divide": lambda xp, a, b: a / b,
    "with numbers": lambda xp, a, b: 2 * a + 0.1,
    "from a number": lambda xp, a, b: 1 - a,
    "negative": lambda xp, a, b: -a,
    "abs": lambda xp, a, b: abs(a),
    "sqrt": lambda xp, a, b: xp.sqrt(abs(a)),
    "square": lambda xp, a, b: xp.square(a),
    "sign": lambda xp, a, b: xp.sign(a),
    "maximum": lambda xp, a, b: xp.maximum(a, b),
    "minimum": lambda xp, a, b: xp.minimum(a, b),
    "where": lambda xp, a, b: xp.where(a > b, a, b),
    "where with a number": lambda xp, a, b: xp.where(a <= b, a, 0),
    "equal": lambda xp, a, b: a == b,
    "not equal": lambda xp, a, b: a != b,
    "less": lambda xp, a, b: a < b,
    "is finite": lambda xp, a, b: xp.isfinite(a),
    "broadcast": lambda xp, a, b: a.reshape(-1, 1) + b.reshape(1, -1),
}


@pytest.mark.parametrize("name", ARITHMETIC)
@pytest.mark.parametrize("dtype", DTYPES)
def test_operations_are_numpys(name, dtype):
    for shape in ((), (0,), (1,), (3, 5), (1000,) if name != "broadcast" else (33,)):
        a, b = normal(1, shape, dtype), normal(2, shape, dtype)
        same(ARITHMETIC[name](cupy, cupy.asarray(a), cupy.asarray(b)), np.asarray(ARITHMETIC[name](np, a, b)))


VIEWS = {
    "reversed": lambda xp, x: x[::-1],
    "every second, backwards": lambda xp, x: x[:, ::-2],
    "transposed": lambda xp, x: x.T,
    "a column": lambda xp, x: x[1::2, 3],
    "a new axis": lambda xp, x: x[..., None],
    "reshaped": lambda xp, x: x.reshape(4, 12),
    "broadcast": lambda xp, x: xp.broadcast_to(x[:1], (6, 8)),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_views_are_numpys(name, dtype):
    a = normal(0, (6, 8), dtype)
    x, view = cupy.asarray(a), VIEWS[name]
    same(view(cupy, x) * 2 + view(cupy, x), view(np, a) * 2 + view(np, a))
    if name != "broadcast":
        view(cupy, x)[...] = 3
        view(np, a)[...] = 3
        same(x, a)


@pytest.mark.parametrize("one", [*DTYPES, "int32", "int64", "bool"])
def test_casts_are_numpys(one):
    a = np.asarray([1.5, -2.25, 0, 1, 65504, 3]).astype(one)
    for other in (*DTYPES, "int32", "int64", "bool"):
        same(cupy.asarray(a).astype(other), a.astype(other))
        same(cupy.zeros_like(cupy.asarray(a), dtype=other), np.zeros_like(a, dtype=other))


def test_float16_rounds_once_and_overflows():
    a = np.asarray([1 + 2**-11, 1 + 3 * 2**-11, 65519, 65520, 1e-8, 3e-8, 6e-8])
    with np.errstate(over="ignore"):
        for dtype in ("float32", "float64"):
            same(cupy.asarray(a.astype(dtype)).astype("float16"), a.astype(dtype).astype("float16"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions_are_numpys(dtype):
    a = np.arange(-60, 60).reshape(3, 40).astype(dtype)
    x = cupy.asarray(a)
    for axis in (None, 0, 1):
        same(x.sum(axis=axis), np.asarray(a.sum(axis=axis)))
    same(x.max(axis=1), np.asarray(a.max(axis=1)))
    assert bool((x == x).all())
    assert not bool((x != x).any())
    same(x[x > 5], a[a > 5])
    same(cupy.cumsum(x), np.cumsum(a))


def test_products_of_matrices():
    for dtype in ("float32", "float64"):
        a, b = np.arange(12).reshape(3, 4).astype(dtype), np.arange(20).reshape(4, 5).astype(dtype)
        x, y = cupy.asarray(a), cupy.asarray(b)
        same(x @ y, a @ b)
        same(y.T @ x.T, b.T @ a.T)


def test_subnormal_numbers_of_float32_alone_are_flushed():
    """As CuPy has them compiled: -ftz=true."""
    assert cupy.asnumpy(cupy.asarray(np.asarray([1e-40, 1e-38], "f4")) * 1).tolist() == [0, 0]
    assert cupy.asnumpy(cupy.asarray(np.asarray([3e-38], "f4")) * 0.25).tolist() == [0]
    for dtype, number in (("f8", 1e-310), ("f2", 6e-8)):
        a = np.asarray([number], dtype)
        same(cupy.asarray(a) * 1, a)


def test_contraction_is_on_unless_it_is_switched_off():
    """So that a kernel without the option shows it."""
    a = np.float32(1 + 2**-12)
    fused, rounded = np.float32(float(a) * float(a) - 1), a * a - np.float32(1)
    assert fused != rounded
    for options, wanted in (((), fused), (("--fmad=false",), rounded)):
        kernel = cupy.ElementwiseKernel("float32 x, float32 y", "float32 z", "z = x * x - y", "contraction", options=options)
        same(kernel(cupy.full(9, a), cupy.ones(9, "f4")), np.full(9, wanted))


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_with_tables_of_addresses(dtype):
    a = normal(0, (5, 6), dtype)
    x, out = cupy.asarray(a), cupy.empty((5, 6), dtype)
    text = "const T *from = (const T *)table[0] + i; T *to = (T *)table[1] + i; *to = *from + T(1);"
    kernel = cupy.ElementwiseKernel("raw int64 table, raw T example", "", text, "table", no_return=True)
    kernel(cupy.asarray(np.asarray([x.data.ptr, out.data.ptr])), x, size=x.size)
    same(out, a + np.asarray(1, dtype))


# What is refused. Each in a process of its own, as it ends it.


def ends(program):
    done = subprocess.run([sys.executable, "-c", f"import cupy, ctypes, numpy as np\n{program}"], capture_output=True, text=True)
    return done.returncode, done.stderr


KERNEL = "touches what is not allocated on its device"
FAULTS = {
    "the host reads": ("", "ctypes.string_at(cupy.ones(3).data.ptr, 8)"),
    "the host writes": ("", "ctypes.memset(cupy.ones(3).data.ptr, 0, 8)"),
    "a kernel reads behind an array": (KERNEL, "run('volatile int y = x[3]', cupy.ones(3, 'i4'))"),
    "a kernel writes behind an array": (KERNEL, "run('*(int *)&x[3] = 1', cupy.ones(3, 'i4'))"),
    "a kernel writes to freed memory": (KERNEL, "run('*(int *)x[0] = 1', cupy.asarray([cupy.ones(3).data.ptr]))"),
    "a kernel writes to another device": (
        KERNEL,
        "x = cupy.ones(3)\nwith cupy.cuda.Device(1): run('*(double *)x[0] = 1', cupy.asarray([x.data.ptr]))",
    ),
    "nobody": (None, "x = cupy.ones(3, 'i4'); run('*(int *)&x[2] = 7', x); assert x.tolist() == [1, 1, 7]"),
}
RUN = "def run(text, x): cupy.ElementwiseKernel('raw T x', '', text, 'bad', no_return=True)(x, size=1)\n"


@pytest.mark.parametrize("name", FAULTS)
def test_wrong_accesses_end_the_process(name):
    says, program = FAULTS[name]
    status, errors = ends(RUN + program)
    assert status == (0 if says is None else -signal.SIGSEGV), errors
    assert (says or "") in errors
    assert says or not errors


def test_copies_beyond_an_allocation_are_refused():
    x, host = cupy.ones(3), np.zeros(4)
    copy, kinds = cupy.cuda.runtime.memcpy, cupy.cuda.runtime
    copy(host.ctypes.data, x.data.ptr, 24, kinds.memcpyDeviceToHost)
    assert host.tolist() == [1, 1, 1, 0]
    for to, source, size, kind in (
        (host.ctypes.data, x.data.ptr, 32, kinds.memcpyDeviceToHost),
        (x.data.ptr, host.ctypes.data, 32, kinds.memcpyHostToDevice),
        (x.data.ptr + 8, x.data.ptr, 24, kinds.memcpyDeviceToDevice),
        (host.ctypes.data, x.data.ptr, 8, kinds.memcpyHostToDevice),
    ):
        with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidValue"):
            copy(to, source, size, kind)


def test_arrays_are_not_handed_to_numpy():
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(cupy.ones(3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_fresh_memory_is_nan(dtype):
    for _ in range(2):  # also where it was used before
        x = cupy.empty(3000, dtype)
        assert np.isnan(cupy.asnumpy(x)).all()
        x[...] = 1
        del x


# Devices.


def test_devices():
    runtime = cupy.cuda.runtime
    assert runtime.getDeviceCount() == 2
    assert [runtime.getDeviceProperties(i)["name"] for i in range(2)] == [b"CPU, emulated"] * 2
    with cupy.cuda.Device(1):
        x = cupy.ones(3)
        assert x.device.id == 1
        assert cupy.cuda.Device().id == 1
    assert cupy.cuda.Device().id == 0
    with pytest.raises(runtime.CUDARuntimeError, match="cudaErrorInvalidDevice"), cupy.cuda.Device(2):
        pass


def test_devices_do_not_read_one_another():
    x = cupy.ones(3)
    with cupy.cuda.Device(1):
        y = cupy.ones(3)
        with pytest.raises(ValueError, match="device"):
            x + y
        z = cupy.asarray(x)  # a copy
        assert z.device.id == 1
        same(z + y, np.full(3, 2.0))


def test_streams_belong_to_devices():
    with cupy.cuda.Device(1):
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            x = cupy.arange(5) * 2
        stream.synchronize()
    same(x, np.arange(5) * 2)


# The trace.


def test_the_trace_says_what_was_asked_of_the_device():
    x, host = cupy.ones(3), np.ones(3)
    with trace() as events:
        y = cupy.asarray(host)
        (x + y).get()
        cupy.cuda.Device().synchronize()
    assert events == [
        "copy to device, 24 bytes",
        "launch cupy_add__float64_float64_float64",
        "copy to host, 24 bytes",
        "wait for a stream",
        "wait for the device",
    ]
