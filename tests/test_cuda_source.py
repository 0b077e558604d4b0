"""Fused steps of CuPy arrays without a GPU: the text of the kernels runs as C, and what launches them meets a stand-in for CuPy.

The stand-in keeps NumPy arrays and compiles what ``cupy.ElementwiseKernel`` is given with the system's C compiler, contraction off.
So the text, the order of arguments, the tables and the launches are those of the real thing; the device and its compiler are not.
Where ``nvcc`` is at hand, it compiles the same text to PTX, which must hold no fused multiply-add.
"""

import ctypes
import functools
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optree
import pytest
from libraries import busy

import xopt
from xopt.backends import fuse
from xopt.backends._cupy import CuPyBackend
from xopt.backends.c_source import COMPUTE, TYPES, body
from xopt.backends.cupy_kernels import OPTIONS, SMALL, Text, text_of_many, text_of_one
from xopt.backends.program import COMPARISONS, OPERATIONS, Operation, Program, asked, record

COMPILER = shutil.which("cc") or shutil.which("gcc")
STRICT = "-O2", "-ffp-contract=off"
FLOATS = {"float16": ctypes.c_uint16, "float32": ctypes.c_float, "float64": ctypes.c_double, "int64": ctypes.c_longlong}

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler: neither cc nor gcc is on the PATH")
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA compiler: nvcc is not on the PATH")


# The text as C.


def built(source, flags=STRICT):
    """A library of a C source. Raises CalledProcessError where it does not compile."""
    folder = Path(tempfile.mkdtemp(dir=folder_of_all().name))
    (folder / "kernel.c").write_text(source)
    command = [COMPILER, *flags, "-shared", "-fPIC", "-o", folder / "kernel.so", folder / "kernel.c", "-lm"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return ctypes.CDLL(str(folder / "kernel.so"))


@functools.cache
def folder_of_all():
    return tempfile.TemporaryDirectory(prefix="xopt-c-")


@functools.cache
def why_no_half():
    """Why C code with float16 does not compile here; None where it does."""
    try:
        built("_Float16 half(float x) { return (_Float16)x; }")
    except subprocess.CalledProcessError:
        return f"{COMPILER} has no _Float16"
    return None


def parameters(text):
    """What ``inputs`` or ``outputs`` of a kernel declare: whether raw, dtype, name."""
    return [(words[0] == "raw", *words[-2:]) for words in map(str.split, text.split(",")) if words]


def wrapped(text, name, arrays, cuda=False):
    """A kernel as a function in C, or in CUDA. ``arrays`` names the arguments of which number ``i`` is meant."""
    declared, macros = [], []
    outputs = {name for _, _, name in parameters(text.outputs)}
    ctypes_of = TYPES | {"int64": "long long"}
    for raw, dtype, one in [*parameters(text.inputs), *parameters(text.outputs)]:
        const = "" if one in outputs else "const "
        if one in arrays:
            macros.append(f"#define {one} p_{one}[i]")
            declared.append(f"{const}{ctypes_of[dtype]} *p_{one}")
        else:
            declared.append(f"{const}{ctypes_of[dtype]} {'*' if raw else ''}{one}")
    head, loop = f"void {name}", "for (ptrdiff_t i = 0; i < n; i++)"
    if cuda:
        head, begin, step = f'extern "C" __global__ void {name}', "blockIdx.x * blockDim.x + threadIdx.x", "blockDim.x * gridDim.x"
        loop = f"#pragma unroll 1\nfor (ptrdiff_t i = (ptrdiff_t){begin}; i < n; i += (ptrdiff_t){step})"  # as CuPy has it
    return "\n".join([*macros, f"{head}(ptrdiff_t n, {', '.join(declared)}) {{\n{loop} {{", text.operation, "}}", ""])


@functools.cache
def compiled(text, arrays, flags=STRICT):
    half = "typedef _Float16 float16;\n" if "float16" in str(text) else ""
    function = built(f"#include <math.h>\n#include <stddef.h>\n{half}{wrapped(text, 'kernel', arrays)}", flags).kernel
    kinds = [
        ctypes.c_void_p if raw or name in arrays else FLOATS[dtype]
        for raw, dtype, name in [*parameters(text.inputs), *parameters(text.outputs)]
    ]
    function.argtypes, function.restype = [ctypes.c_ssize_t, *kinds], None
    return function


# The stand-in for CuPy.


class Device:
    def __init__(self, number):
        self.id = number

    def __str__(self):
        return f"<CUDA Device {self.id}>"

    def __eq__(self, other):
        return self.id == other.id

    def __hash__(self):
        return hash(self.id)

    def __enter__(self):
        CURRENT.append(self.id)

    def __exit__(self, *_):
        CURRENT.pop()


CURRENT = [7]  # the devices that were made the current one; no array is on the first


class Array(np.ndarray):
    """A NumPy array that says where it is as CuPy's do."""

    on = 0

    @property
    def device(self):
        return Device(self.on)

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


class ElementwiseKernel:
    """As CuPy's, on the host. ``log`` gets the kernels that are made, ``launches`` what they are called with."""

    log, launches = [], []
    flags = STRICT

    def __init__(self, in_params, out_params, operation, name, *, options, no_return):
        assert name.isidentifier()
        assert options == OPTIONS == ("--fmad=false",)
        assert no_return
        self.text, self.name = Text(in_params, out_params, operation), name
        assert "i" not in [name for _, _, name in parameters(f"{in_params}, {out_params}")], "CuPy refuses it"
        self.log.append(self)

    def __call__(self, *arguments, size=None):
        declared = [*parameters(self.text.inputs), *parameters(self.text.outputs)]
        outputs = len(parameters(self.text.outputs))
        assert len(arguments) == len(declared)
        assert CURRENT[-1] == 0, "CuPy launches on the current device"
        found, shapes, back, keep = [], set(), [], []
        for at, ((raw, dtype, name), x) in enumerate(zip(declared, arguments, strict=True)):
            if isinstance(x, np.ndarray):
                assert isinstance(x, Array), f"{name} is not on the device"
                assert x.dtype == dtype, name
                if raw:
                    assert x.ndim == 1
                else:
                    shapes.add(x.shape)
                    if not x.flags.c_contiguous:  # CuPy goes through the indices
                        x, whole = np.array(x, order="C"), x
                        if at >= len(declared) - outputs:
                            back.append((whole, x))
                keep.append(x)
                found.append(x.ctypes.data)
            else:
                assert not raw, name
                assert type(x) is (int if dtype == "int64" else np.dtype(dtype).type), f"{name}: {x!r}"
                found.append(x)
        if size is None:
            (shape,) = shapes
            size = int(np.prod(shape))
        else:
            assert not shapes, "CuPy takes a size where all arrays are raw"
        self.launches.append((self.name, size))
        named = [name for (raw, _, name), x in zip(declared, arguments, strict=True) if isinstance(x, np.ndarray) and not raw]
        compiled(self.text, frozenset(named), self.flags)(size, *found)
        for whole, x in back:
            whole[...] = x


@pytest.fixture
def cupy(monkeypatch):
    """CuPy's stand-in, in the place of all libraries."""
    if COMPILER is None:
        pytest.skip("no C compiler: neither cc nor gcc is on the PATH")
    kernel = type("ElementwiseKernel", (ElementwiseKernel,), {"log": [], "launches": []})
    monkeypatch.setattr("xopt.checks.is_subclass", lambda _: False)  # the stand-in's arrays are a subclass of NumPy's

    def empty_like(x):
        assert CURRENT[-1] == x.on
        return np.full_like(x, np.nan)  # what nobody fills shows

    def asarray(x):
        assert CURRENT[-1] == 0
        return np.array(x).view(Array)

    fake = SimpleNamespace(
        ndarray=Array,
        cuda=SimpleNamespace(Device=lambda: Device(CURRENT[-1])),
        ElementwiseKernel=kernel,
        empty_like=empty_like,
        asarray=asarray,
        zeros=lambda n, dtype: asarray(np.zeros(n, dtype)),
    )
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setattr(CuPyBackend, "owns", staticmethod(lambda x: isinstance(x, Array)))
    monkeypatch.setattr("xopt.backends.BACKENDS", {"cupy": CuPyBackend})
    return fake


def on_device(tree):
    """The same numbers in arrays of the stand-in, with the same strides."""

    def moved(x):
        if not isinstance(x, np.ndarray):
            return x
        copy = np.empty_like(x, order="K", subok=False)
        copy[...] = x
        return copy.view(Array)

    return optree.tree_map(moved, tree)


# Numbers that are hard on arithmetic.

SPECIAL = [0.0, -0.0, np.nan, np.inf, -np.inf, 1.0, -1.0]


def hard(seed, shape, dtype):
    """Numbers over all decades of a dtype, with zeros, infinities, NaN and subnormals among them, if there are enough."""
    rng = np.random.default_rng(seed)
    info = np.finfo(dtype)
    low, high = np.log10(float(info.smallest_subnormal)), np.log10(float(info.max))
    size = int(np.prod(shape))
    wide = rng.standard_normal(size) * 10.0 ** rng.uniform(low, high, size)
    values = np.where(rng.random(size) < 0.6, rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 1, size), wide)
    special = [*SPECIAL, float(info.smallest_subnormal), -float(info.smallest_normal), float(info.max)]
    if size > 4 * len(special):
        values[rng.permutation(size)[: len(special)]] = special
    with np.errstate(over="ignore"):
        return values.astype(dtype).reshape(shape)


def hard_like(x, seed, dtype):
    """Hard numbers in the shape and layout of ``x``."""
    new = np.empty_like(x, dtype)
    new[...] = hard(seed, x.shape, dtype)
    return new


def same_numbers(one, other):
    """Whether two trees have the same structure, dtypes, shapes and bits, up to the bits of a NaN."""
    if optree.tree_structure(one) != optree.tree_structure(other):
        return False
    for x, y in zip(optree.tree_leaves(one), optree.tree_leaves(other), strict=True):
        if not isinstance(x, np.ndarray):
            if x != y:
                return False
            continue
        x, y = (np.where(np.isnan(z), np.asarray(np.nan, z.dtype), np.asarray(z)) for z in (x, y))
        if (x.dtype, x.shape, x.tobytes()) != (y.dtype, y.shape, y.tobytes()):
            return False
    return True


def variants(rule):
    """What goes to init and to each step: the defaults, all switched on, no memory (None slots), and decays of 0 with memory."""
    yield "default", {}, {}
    yield "busy", {}, busy(rule)
    decays = sorted({name for name in rule.memory.values() if not rule.ranges[name].sequence})
    for length in range(1, len(decays) + 1):
        for off in itertools.combinations(decays, length):
            none = dict.fromkeys(off, 0.0)
            yield f"no memory of {'+'.join(off)}", none, none
            yield f"gain 1 for {'+'.join(off)}", {}, none
    if "beta3_warmup" in rule.defaults:
        yield "warm-up from beta1 = 0", {"beta1": 0.0}, {"beta1": 0.0, "beta3_warmup": 4, "alpha_warmup": 2}
    if "betas" in rule.defaults:
        for betas in ((0.0, 0.9, 0.99, 0.999), (0.9,), (0.5, 0.0), (0.0,)):
            yield f"betas {betas}", {"betas": betas}, {"betas": betas}


def filled(state, dtype, seed=100):
    """The state with hard numbers in its slots as well."""
    seeds = itertools.count(seed)
    slots = [
        optree.tree_map(lambda x: hard_like(x, next(seeds), COMPUTE[dtype]) if isinstance(x, np.ndarray) else x, slot)
        for slot in state[1:-1]
    ]
    return state._make([state[0], *slots, state[-1]])


def eager(rule, state, grad, **hyper):
    with np.errstate(all="ignore"):
        return rule.step(state, grad, **hyper)


def run_both(rule, params, dtype, start, hyper, donate, steps=3):
    """Takes steps with NumPy and with the stand-in, and compares the states after each. Returns the last two."""
    plain = filled(rule.init(params, **start), dtype)
    fused, step = on_device(plain), fuse(rule, donate=donate)
    for k in range(steps):
        seeds = itertools.count(1000 * (k + 1))
        grad = optree.tree_map(lambda x, seeds=seeds: hard_like(x, next(seeds), dtype), params)
        there = on_device(grad)
        plain, before = eager(rule, plain, grad, **hyper), fused
        kept = on_device(fused)
        fused = step(fused, there, **hyper)
        assert same_numbers(plain, fused), f"step {k + 1}"
        assert same_numbers(grad, there)
        assert donate or same_numbers(before, kept), "written without donate"
    return plain, fused


@pytest.fixture(params=["float32", "float64", "float16"])
def dtype(request):
    if request.param == "float16" and COMPILER is not None and why_no_half():
        pytest.skip(why_no_half())
    return request.param


@pytest.mark.parametrize("many", [False, True], ids=["one array", "many arrays"])
def test_bits_are_those_of_the_eager_step(rule, dtype, many, cupy):
    params = hard(0, (999,), dtype)
    if many:
        params = [params, {"b": hard(1, (), dtype), "c": hard(2, (7, 3), dtype)}, np.asfortranarray(hard(3, (5, 40), dtype))]
    for name, start, hyper in variants(rule):
        try:
            run_both(rule, params, dtype, start, hyper, donate=False)
        except AssertionError as error:
            msg = f"{name}: {error}"
            raise AssertionError(msg) from None
    kernels = {launched for launched, _ in cupy.ElementwiseKernel.launches}
    assert kernels == {f"xopt_{rule.name}_{dtype}{'_many' if many else ''}"}


@pytest.mark.parametrize("many", [False, True], ids=["one array", "many arrays"])
def test_donated_steps_write_in_place(rule, dtype, many, cupy):
    params = [hard(0, (99,), dtype), hard(1, (9, 9), dtype)] if many else hard(0, (99,), dtype)
    run_both(rule, params, dtype, {}, busy(rule), donate=True)
    state = on_device(rule.init(params))
    arrays = [x for x in optree.tree_leaves(state) if isinstance(x, np.ndarray)]
    new = fuse(rule, donate=True)(state, on_device(params), **busy(rule))
    for x, y in zip(arrays, [y for y in optree.tree_leaves(new) if isinstance(y, np.ndarray)], strict=True):
        assert x.data.ptr == y.data.ptr
    with pytest.raises(ValueError, match="was donated to an earlier step"):
        fuse(rule, donate=True)(state, on_device(params))


def test_parameter_groups_share_a_launch(rule, dtype, cupy):
    """Each leaf has coefficients of its own; those with a gain of 1 have another kernel."""
    shapes = {"a": (50,), "b": (3, 4), "c": (), "d": (200,), "empty": (0, 5)}
    params = {name: hard(at, shape, dtype) for at, (name, shape) in enumerate(shapes.items())}
    hyper = {"lr": {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.1, "empty": 0.5}}
    if "weight_decay" in rule.defaults:
        hyper["weight_decay"] = dict.fromkeys(shapes, 0.1) | {"d": 0.0}
    run_both(rule, params, dtype, {}, hyper, donate=False, steps=2)
    assert cupy.ElementwiseKernel.launches == [(f"xopt_{rule.name}_{dtype}_many", 50 + 12 + 1 + 200)] * 2
    if "beta1" in rule.defaults and rule.name != "lion":
        run_both(rule, params, dtype, {}, hyper | {"beta1": dict.fromkeys(shapes, 0.9) | {"a": 0.0}}, donate=False)
        assert (
            cupy.ElementwiseKernel.launches[2:]
            == [
                (f"xopt_{rule.name}_{dtype}", 50),
                (f"xopt_{rule.name}_{dtype}_many", 12 + 1 + 200),
            ]
            * 3
        )


# Each operation, and the check that the checks can fail.


NUMPY = {name: getattr(np, name) for name in OPERATIONS}


@needs_compiler
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_operations_are_numpys(name, dtype):
    values = np.asarray([*SPECIAL, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max, 3.0, 0.1], dtype)
    x, y = (
        np.concatenate([z.ravel(), hard(5, (1000,), dtype)[::step]])
        for z, step in zip(np.meshgrid(values, values), (1, -1), strict=True)
    )
    if name == "where":
        operations = Operation("t0", "less", ("params", "grad")), Operation("t1", "where", ("t0", "grad", 0.1))
        wanted = np.where(x < y, y, np.asarray(0.1, dtype))
    else:
        arity = 1 if name in ("negative", "sqrt", "abs", "sign") else 2
        operations = (Operation("t1", name, ("params", "grad")[:arity]),)
        with np.errstate(all="ignore"):
            wanted = NUMPY[name](*(x, y)[:arity])
        if name in COMPARISONS:
            operations = Operation("t0", name, ("params", "grad")), Operation("t1", "where", ("t0", 1.0, -0.1))
            wanted = np.where(wanted, np.asarray(1.0, dtype), np.asarray(-0.1, dtype))
    program = Program("toy", ("params", "grad"), (), operations, {"params": "t1"}, {})
    text = text_of_one(program, dtype)
    arrays = frozenset(name for _, _, name in [*parameters(text.inputs), *parameters(text.outputs)])
    new = np.full_like(x, 12345.0)
    places = [x.ctypes.data, y.ctypes.data][: len(program.reads)]
    compiled(text, arrays)(x.size, *places, new.ctypes.data)
    if name in ("maximum", "minimum"):
        new, wanted = new + 0.0, wanted + 0.0  # of 0 and -0 NumPy may take either
    assert same_numbers(new, wanted)


@needs_compiler
@pytest.mark.parametrize("number", [0.1, 1.0, -2.5, 1e-8, 1e-45, 3e38, 16777217.0, 0.1 + 2**-53, 1 / 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_in_the_text_are_rounded_once(number, dtype):
    program = Program("toy", ("params", "grad"), (), (Operation("t0", "multiply", ("grad", number)),), {"params": "t0"}, {})
    x, new = np.ones(1, dtype), np.zeros(1, dtype)
    compiled(text_of_one(program, dtype), frozenset({"in_grad", "out_params"}))(1, x.ctypes.data, new.ctypes.data)
    assert new[0] == np.asarray(number, dtype)


def test_one_operation_a_line(rule):
    program = programs(rule)[0]
    for line, operation in zip(
        body(program, "float32", "in_{}", "out_{}").splitlines()[len(program.reads) :], program.operations, strict=False
    ):
        value = line.partition("= ")[2]
        if operation.name != "sign":
            assert len(re.findall(r" [-+*/<>=]+ |sqrtf|fabsf", f" {value}")) <= 1, line


def test_a_contraction_shows(cupy):
    """The comparison above can fail: it does where the compiler may contract, on a CPU that has fused multiply-add."""
    flags = "-O2", "-ffp-contract=fast", "-march=native"
    try:
        made = built("float f(float a, float b, float c) { return a * b + c; }", flags).f
    except subprocess.CalledProcessError:
        pytest.skip(f"{COMPILER} does not know -march=native")
    made.argtypes, made.restype = [ctypes.c_float] * 3, ctypes.c_float
    a = np.float32(1 + 2**-12)
    if made(a, a, -np.float32(a * a)) == 0:
        pytest.skip("this CPU has no fused multiply-add")
    cupy.ElementwiseKernel.flags = flags
    with pytest.raises(AssertionError):
        run_both(xopt.adamw, hard(0, (999,), "float32"), "float32", {}, {}, donate=False)


def test_a_wrong_operation_shows(cupy, monkeypatch):
    right = xopt.backends.c_source._operations
    monkeypatch.setattr("xopt.backends.c_source._operations", lambda real: right(real) | {"subtract": "{1} - {0}"})
    with pytest.raises(AssertionError):
        run_both(xopt.adamw, hard(0, (999,), "float32"), "float32", {}, {}, donate=False)


# What is launched.


def small_tree(leaves, size=1000, dtype="float32"):
    return [np.full(size, i, dtype) for i in range(leaves)]


@pytest.mark.parametrize("donate", [False, True])
def test_a_thousand_small_leaves_are_one_launch(cupy, donate):
    params = small_tree(1000)
    _, new = run_both(xopt.ademamix, params, "float32", {}, {}, donate=donate, steps=1)
    assert cupy.ElementwiseKernel.launches == [("xopt_ademamix_float32_many", 1_000_000)]
    assert len(new.params) == 1000


def test_large_leaves_are_launched_by_themselves(cupy):
    params = [np.ones(SMALL, "float32"), np.ones(SMALL + 1, "float32"), np.ones(10, "float32"), np.ones(2 * SMALL, "float32")]
    run_both(xopt.lion, params, "float32", {}, {}, donate=False, steps=1)
    name = "xopt_lion_float32"
    assert cupy.ElementwiseKernel.launches == [(name, SMALL + 1), (name, 2 * SMALL), (f"{name}_many", SMALL + 10)]


@pytest.mark.parametrize("donate", [False, True])
def test_strided_arrays_are_launched_by_themselves(cupy, donate):
    """Where the arrays of a leaf differ in layout, only CuPy's indices bring their numbers together."""
    whole = [hard(seed, (6, 8), "float32") for seed in range(6)]
    plain = xopt.momentum_init([np.zeros((6, 4), "float32"), np.zeros((8, 6), "float32"), np.zeros((6, 8), "float32")])

    def arranged(sources):
        a, b, c = (x.copy() for x in sources[:3])
        return [a[:, ::2], b.T, c[::-1]]

    plain = plain._replace(params=arranged(whole))
    state = plain._replace(params=[x.view(Array) for x in arranged(whole)], v=on_device(plain.v))
    grad = [x[...] for x in arranged(whole[3:])]
    wanted = eager(xopt.momentum, plain, grad, lr=0.5)
    new = fuse(xopt.momentum, donate=donate)(state, [x.view(Array) for x in grad], lr=0.5)
    assert same_numbers(wanted, new)
    assert cupy.ElementwiseKernel.launches == [("xopt_momentum_float32", n) for n in (24, 48, 48)]
    assert not donate or new.params[0].strides == state.params[0].strides


def test_empty_leaves_are_not_launched(cupy):
    for params in (np.zeros((0, 3), "float32"), [np.zeros(0, "float32")] * 3):
        _, new = run_both(xopt.adam, params, "float32", {}, {}, donate=False, steps=2)
        assert new.step == 2
    assert cupy.ElementwiseKernel.launches == []


def test_dtypes_have_their_kernels(cupy):
    params = [np.ones(3, "float32"), np.ones(3, "float64"), np.ones(3, "float32"), np.ones(3, "float64")]
    state = on_device(xopt.lion_init(params))
    new = fuse(xopt.lion)(state, on_device(params), lr=0.1)
    assert same_numbers(new, xopt.lion_step(xopt.lion_init(params), params, lr=0.1))
    assert cupy.ElementwiseKernel.launches == [("xopt_lion_float32_many", 6), ("xopt_lion_float64_many", 6)]


def test_other_numbers_never_compile(rule, cupy):
    """Not the learning rate, nor decays, nor the step count: what they are is an argument."""
    for params in (np.ones(9, "float32"), small_tree(3)):
        start = {"betas": (0.1, 0.2, 0.3)} if "betas" in rule.defaults else {}
        state, step = on_device(rule.init(params, **start)), fuse(rule)
        made = []
        for k in range(1, 5):
            hyper = {"lr": 0.1 / k, "weight_decay": 0.01 * k, "eps": 1e-8 * k, "alpha": 1.0 * k, "nu": 0.1 * k, "nu1": 0.1 * k}
            hyper |= dict.fromkeys(("beta", "beta1", "beta2", "beta3"), 1 - 0.1**k) | {
                "betas": tuple(1 - 0.1 ** (k + i) for i in range(3))
            }
            state = step(state, on_device(params), **{name: x for name, x in hyper.items() if name in rule.defaults})
            made.append(len(cupy.ElementwiseKernel.log))
        assert made == [made[0]] * 4
    assert len(cupy.ElementwiseKernel.log) == 2, "a kernel for one array and one for many, which both steps share"


def test_arguments_are_in_the_declared_order(cupy):
    state = on_device(xopt.ademamix_init(np.ones(5, "float32")))
    fuse(xopt.ademamix)(state, on_device(np.ones(5, "float32")))
    one, many = cupy.ElementwiseKernel.log
    coefficients = ["lr", "gain1", "gain2", "gain3", "debias1", "debias2", "alpha", "eps", "weight_decay"]
    arrays = ["params", "m1", "m2", "v"]
    assert one.text.inputs.split(", ") == [
        *(f"float32 in_{name}" for name in (*arrays, "grad")),
        *(f"float32 c_{name}" for name in coefficients),
    ]
    assert one.text.outputs.split(", ") == [f"float32 out_{name}" for name in arrays]
    assert (many.text.inputs, many.text.outputs) == (
        "int64 leaves, raw int64 table, raw float32 coefficients, raw float32 example",
        "",
    )


def test_coefficients_on_the_device(cupy, monkeypatch):
    """A 0-d array of CuPy's as a hyperparameter is the number that it holds, as one of NumPy's is."""
    params = np.ones(9, "float32")
    for rule, name in ((xopt.nadam, "beta1"), (xopt.adamw, "lr")):
        kind = rule.kind("test", params.view(Array), None, 0)
        monkeypatch.setitem(rule._kinds, (Array, params.dtype), kind._replace(numbers=None))
        state, plain, value = on_device(rule.init(params)), rule.init(params), np.asarray(0.5).view(Array)
        step = fuse(rule)
        for _ in range(3):
            state, plain = step(state, on_device(params), **{name: value}), eager(rule, plain, params, **{name: 0.5})
        np.testing.assert_array_equal(state.params, plain.params)
        if rule is xopt.nadam:
            assert type(state.mu_product) is float
            assert state.mu_product == plain.mu_product


def test_carried_numbers_stay_float64_on_the_host(cupy):
    params = small_tree(3)
    plain, fused = run_both(xopt.nadam, params, "float32", {}, {}, donate=False)
    assert fused.mu_product == plain.mu_product
    assert all(type(x) is float for x in fused.mu_product)


# What is refused.


def test_donated_memory_must_not_overlap(cupy):
    tied, other = on_device([np.ones(8, "float32")] * 2)
    step = fuse(xopt.sgd, donate=True)
    for params in ([tied, tied], [tied, tied[:]], {"a": tied, "b": tied[2:][::-1]}, [tied, tied.reshape(2, 4)]):
        grad = optree.tree_map(lambda x: np.ones_like(x).view(Array), params)
        with pytest.raises(ValueError, match="shares memory"):
            step(xopt.sgd_init(params), grad)
    with pytest.raises(ValueError, match="shares memory"):
        step(xopt.sgd_init([tied, other]), [other, tied])
    with pytest.raises(ValueError, match="is broadcast"):
        step(xopt.sgd_init(np.broadcast_to(tied[:1], (8,)).view(Array)), other)
    assert cupy.ElementwiseKernel.launches == []
    assert (tied == 1).all()

    new = fuse(xopt.sgd)(xopt.sgd_init([tied, tied]), [other, other], lr=0.5)  # without donate there is nothing to refuse
    assert (np.stack(new.params) == 0.5).all()
    new = step(xopt.sgd_init([tied, other]), [tied, other], lr=0.5)  # a gradient that is its own leaf is read before it is written
    assert (np.stack(new.params) == 0.5).all()


def test_leaves_on_two_devices_are_refused(cupy):
    params = on_device([np.ones(3, "float32")] * 2)
    params[1].on = 1
    with pytest.raises(TypeError, match=r"params\[1\] is on cuda:1, but the first on cuda:0"):
        fuse(xopt.sgd)(xopt.sgd_init(params), on_device([np.ones(3, "float32")] * 2))


def test_dtypes_without_a_name_in_cuda_are_refused(cupy):
    params = np.ones(3, np.longdouble).view(Array)
    with pytest.raises(TypeError, match=r"params is .*float.*, which the kernels do not know; they know float16, float32, float64"):
        fuse(xopt.sgd)(xopt.sgd_init(params), params)


def test_arguments_are_checked_as_the_eager_step_does(cupy):
    state = on_device(xopt.adam_init([np.ones(3, "float32"), np.ones(2, "float32")]))
    step = fuse(xopt.adam)
    with pytest.raises(ValueError, match=r"adam_step: grad\[1\] has shape \(3,\)"):
        step(state, on_device([np.ones(3, "float32")] * 2))
    with pytest.raises(ValueError, match="lr"):
        step(state, state.params, lr=-1.0)
    with pytest.raises(ValueError, match="unknown compiler"):
        fuse(xopt.adam, compiler="nvcc")
    assert cupy.ElementwiseKernel.launches == []


def test_devices_need_no_hash(cupy, monkeypatch):
    """CuPy's devices have == but no hash."""
    monkeypatch.setattr(Device, "__hash__", None)
    state = fuse(xopt.sgd)(xopt.sgd_init(on_device(np.ones(3, "float32"))), on_device(np.ones(3, "float32")))
    assert state.step == 1


# The text as CUDA.


def programs(rule):
    """Programs of a rule: with all its slots, and with the gains that may be 1 so."""
    c = rule.coefficients(1, *rule.carried.values())

    def slot(name):
        if name in rule.carried:
            return rule.carried[name]
        decay = rule.memory[name]
        return (True,) * len(rule.defaults[decay]) if rule.ranges[decay].sequence else True

    slots = [slot(name) for name in rule.slots]
    return [record(rule, slots, c, literal) for literal in dict.fromkeys([(), asked(rule, slots, c)])]


@functools.cache
def ptx(*flags):
    """The instructions of all kernels in PTX: for each a count by operation, such as ``("div.rn", "f32")``."""
    source = ["#include <cuda_fp16.h>", "typedef __half float16;"]
    wanted = {}
    for rule in xopt.RULES.values():
        for at, program in enumerate(programs(rule)):
            for dtype, (kind, text_of) in itertools.product(COMPUTE, (("one", text_of_one), ("many", text_of_many))):
                name, text = f"{rule.name}_{at}_{dtype}_{kind}", text_of(program, dtype)
                arrays = {one for _, _, one in parameters(f"{text.inputs}, {text.outputs}") if one.startswith(("in_", "out_"))}
                source.append(wrapped(text, name, arrays, cuda=True))
                wanted[name] = program, dtype
    folder = Path(tempfile.mkdtemp(dir=folder_of_all().name))
    (folder / "kernels.cu").write_text("\n".join(source))
    command = ["nvcc", "-ptx", "-ftz=true", *flags, "-o", folder / "kernels.ptx", folder / "kernels.cu"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    text = (folder / "kernels.ptx").read_text()
    found = {}
    for part in text.split(".visible .entry ")[1:]:
        instructions = re.findall(r"^[\s{]*(?:@%p\d+ )?([a-z]+(?:\.[a-z]+)*)\.(f16|f32|f64)(?:\.f\d\d)?\s", part, re.MULTILINE)
        found[part.partition("(")[0].strip()] = Counter((name.replace(".ftz", ""), kind) for name, kind in instructions)
    assert found.keys() == wanted.keys()
    return {name: (found[name], *wanted[name]) for name in wanted}


def total(instructions, name):
    return sum(count for (one, _), count in instructions.items() if one.partition(".")[0] == name)


def loose(instructions):
    """How many operations the assembler may still contract: those that do not say how they round."""
    return sum(count for (one, _), count in instructions.items() if one in ("add", "sub", "mul"))


@needs_nvcc
def test_ptx_has_no_fused_multiply_add_and_divides_exactly(rule):
    for name, (instructions, program, dtype) in ptx(*OPTIONS).items():
        if program.rule != rule.name:
            continue
        real = COMPUTE[dtype].replace("float", "f")
        assert total(instructions, "fma") == total(instructions, "mad") == loose(instructions) == 0, name
        assert instructions["mul.rn", real] > 0, name
        counts = Counter(operation.name for operation in program.operations)
        for instruction, operation in (("div", "divide"), ("sqrt", "sqrt")):
            made = instructions[f"{instruction}.rn", real]
            assert total(instructions, instruction) == made, f"{name}: all of them round to nearest"
            # the compiler makes a loop of its own for one leaf
            assert made in (counts[operation], 2 * counts[operation]), name
        assert total(instructions, "rsqrt") == total(instructions, "rcp") == total(instructions, "ex2") == 0, name


@needs_nvcc
def test_ptx_contracts_without_the_flag(rule):
    """So the check above can fail."""
    found = {name: one for name, (one, program, _) in ptx().items() if program.rule == rule.name}
    for name, instructions in found.items():
        assert total(instructions, "fma") + loose(instructions) > 0, name
        if name.startswith(f"{rule.name}_0_"):  # where gains are 1 there may be nothing to contract
            assert total(instructions, "fma") > 0, name


@needs_nvcc
def test_ptx_rounds_halves_to_nearest():
    for name, (instructions, program, dtype) in ptx(*OPTIONS).items():
        if dtype == "float16":
            assert instructions["cvt.rn", "f16"] in (1, 2), name
            assert instructions["cvt", "f32"] >= len({"params", "grad"} & set(program.reads)), name
