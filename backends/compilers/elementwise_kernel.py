"""Fused steps of CuPy arrays: ElementwiseKernel compiles the recorded program, for one array or for a table of small ones."""

import importlib
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from xopt.backends.base import COMPUTE
from xopt.backends.compilers.c_source import TYPES, body
from xopt.backends.compilers.launches import Batch, DeviceFuser
from xopt.backends.compilers.tables import starts_of
from xopt.backends.fused.memory import Memory, anything
from xopt.program import Program
from xopt.rule import Rule

SMALL = 1 << 16
"""Numbers up to which an array shares a launch, and is looked up in a table. No sharp border: on an H200 Python takes the time."""

APART = 128
"""Numbers from one that a thread steps to its second one, where an array has its own launch: the threads beside it step those
between. With two to wait for at a time memory is the busier, and no address need be even."""

OPTIONS = ("--fmad=false",)
"""No multiplication and addition become one operation that rounds once. Division and sqrt are correctly rounded by default."""


class Text(NamedTuple):
    """A kernel as ``cupy.ElementwiseKernel`` takes it."""

    inputs: str
    outputs: str
    operation: str


def text_of_one(program: Program, dtype: str) -> Text:
    """The kernel for one array of params, of any layout."""
    return Text(*_arguments(program, dtype, "{} in_{}", "{} out_{}"), body(program, dtype, "in_{}", "out_{}"))


def text_of_dense(program: Program, dtype: str) -> Text:
    """The kernel for one array of params, where all arrays have one dimension and no gaps. A thread steps two numbers."""
    at = f"const ptrdiff_t _at = i / {APART} * {2 * APART} + i % {APART} + _k * {APART};"  # no slot begins with _
    each = ["#pragma unroll", "for (int _k = 0; _k < 2; ++_k) {", at, "if (_at < to_params.size()) {"]
    lines = [f"{TYPES[_dtype(name, dtype)]} old_{name}[2];" for name in program.reads]
    lines += [*each, *(f"old_{name}[_k] = from_{name}[_at];" for name in program.reads), "}}"]
    lines += [*each, body(program, dtype, "old_{}[_k]", "to_{}[_at]"), "}}"]
    return Text(*_arguments(program, dtype, "raw {} from_{}", "raw {} to_{}"), "\n".join(lines))


def text_of_many(program: Program, dtype: str) -> Text:
    """The kernel for many arrays of params, whose numbers it counts through, one array behind another.

    ``table`` has a row of int64 for each leaf: the count at which it begins, its row of ``coefficients``, and the addresses of the
    arrays that are read and of those that are written. ``example`` is not looked at: CuPy defines float16 where an argument has it.
    """
    real = TYPES[COMPUTE[dtype]]
    width, coefficients = 2 + len(program.reads) + len(program.writes), program.used
    lines = [
        "ptrdiff_t first = 0;",
        "ptrdiff_t last = leaves;",
        "while (last - first > 1) {",
        "    const ptrdiff_t middle = (first + last) / 2;",
        f"    if (table[middle * {width}] <= i) first = middle; else last = middle;",
        "}",
        f"const long long *leaf = &table[first * {width}];",
        "const ptrdiff_t at = i - leaf[0];",
    ]
    for place, i in enumerate(coefficients):
        lines += [f"const {real} {program.coefficients[i]} = coefficients[leaf[1] * {len(coefficients)} + {place}];"]
    for place, name in enumerate(program.reads, start=2):
        kind = TYPES[_dtype(name, dtype)]
        lines += [f"const {kind} *from_{name} = (const {kind} *)leaf[{place}] + at;"]
    for place, name in enumerate(program.writes, start=2 + len(program.reads)):
        kind = TYPES[_dtype(name, dtype)]
        lines += [f"{kind} *to_{name} = ({kind} *)leaf[{place}] + at;"]
    lines += ["{", body(program, dtype, "*from_{}", "*to_{}"), "}"]  # a block, as a slot may have one of the names above
    inputs = f"int64 leaves, raw int64 table, raw {COMPUTE[dtype]} coefficients, raw {dtype} example"
    return Text(inputs, "", "\n".join(lines))


def _arguments(program: Program, dtype: str, read: str, written: str) -> tuple[str, str]:
    """What goes in and comes out: the arrays, as a format of dtype and name says, and the coefficients."""
    inputs = [read.format(_dtype(name, dtype), name) for name in program.reads]
    inputs += [f"{COMPUTE[dtype]} {program.coefficients[i]}" for i in program.used]
    return ", ".join(inputs), ", ".join(written.format(_dtype(name, dtype), name) for name in program.writes)


def _dtype(name: str, dtype: str) -> str:
    return dtype if name in ("params", "grad") else COMPUTE[dtype]


class CuPyKernels:
    """The kernels of a program for one dtype of params. CuPy compiles them at their first launch, and keeps them on disk."""

    def __init__(self, program: Program, dtype: str) -> None:
        cupy: Any = importlib.import_module("cupy")
        self._reads = [program.arrays.index(name) for name in program.reads]
        self._real = np.dtype(COMPUTE[dtype]).type
        self._used = program.used
        self._asarray = cupy.asarray
        self._array = cupy.ndarray
        self._example = cupy.zeros(1, dtype)
        name = f"xopt_{program.rule}_{dtype}"
        kernel = partial(cupy.ElementwiseKernel, options=OPTIONS, no_return=True)
        self._one = kernel(*text_of_one(program, dtype), name)
        self._dense = kernel(*text_of_dense(program, dtype), f"{name}_dense")
        self._many = kernel(*text_of_many(program, dtype), f"{name}_many")

    def prepared(self, batch: Batch) -> list[Callable[[], None]]:
        """One for each large leaf and each strided one, and one for all others."""
        launches: list[Callable[[], None]] = []
        coefficients = [self._rounded(c) for c in batch.coefficients]
        chosen = batch.chosen
        alone = chosen.sizes > (-1 if chosen.strided or len(chosen.leaves) == 1 else SMALL)
        step = self._step_one if chosen.strided else self._step_dense
        launches += [partial(step, *batch.arrays(i), coefficients[chosen.rows[i]]) for i in np.flatnonzero(alone).tolist()]
        if not alone.all():
            launches.append(partial(self._step_many, batch, np.flatnonzero(~alone), coefficients))
        return launches

    def _rounded(self, c: Sequence[Any]) -> list[Any]:
        """The coefficients that the kernels use, each rounded once. Waits for those that are arrays."""
        return [self._real(float(c[i])) for i in self._used]

    def _step_one(self, old: Sequence[Any], new: Sequence[Any], c: Sequence[Any]) -> None:
        self._one(*(old[at] for at in self._reads), *c, *new)

    def _step_dense(self, old: Sequence[Any], new: Sequence[Any], c: Sequence[Any]) -> None:
        threads = -(-old[0].size // (2 * APART)) * APART
        self._dense(*(self._flat(old[at]) for at in self._reads), *c, *map(self._flat, new), size=threads)

    def _step_many(self, batch: Batch, leaves: Any, c: Sequence[Sequence[Any]]) -> None:
        """Steps some leaves of dense arrays, each of one layout. ``c`` are the coefficients of each row."""
        starts = starts_of(batch.chosen.sizes[leaves])
        places = batch.sources[leaves][:, self._reads], batch.targets[leaves]
        table = np.column_stack([starts[:-1], batch.chosen.rows[leaves], *places])
        numbers = np.asarray(c, self._real).ravel()
        self._many(len(leaves), self._asarray(table.ravel()), self._asarray(numbers), self._example, size=int(starts[-1]))

    def _flat(self, x: Any) -> Any:
        """An array without gaps in the order of its memory, as a view of one dimension."""
        return self._array((x.size,), x.dtype, x.data)


class CuPyMemory(Memory):
    """CuPy's arrays."""

    def __init__(self) -> None:
        self._cupy: Any = importlib.import_module("cupy")

    def form(self, x: Any) -> Hashable:
        return (x.dtype, x.shape, x.strides, x.device.id) if type(x) is self._cupy.ndarray else anything()

    def address(self, x: Any) -> int:
        return int(x.data.ptr)

    def look(self, x: Any) -> tuple[int, int, tuple[int, ...], int]:
        start, size = x.data.ptr, x.nbytes
        if not size or x.flags.c_contiguous:
            return start, start + size, x.strides, x.itemsize
        reach = [(n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True)]
        return start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0) + x.itemsize, x.strides, x.itemsize

    def unfit(self, x: Any) -> str | None:
        cupy = self._cupy
        fits = type(x) is cupy.ndarray or not isinstance(x, cupy.ndarray)
        return None if fits else f"a {type(x).__name__}, a subclass of CuPy's arrays"

    def empty_like(self, x: Any) -> Any:
        return self._cupy.ndarray(x.shape, x.dtype) if x.flags.c_contiguous else self._cupy.empty_like(x)  # at a tenth of the cost

    def alias(self, x: Any) -> Any:
        return x.view()

    def device(self, x: Any) -> str:
        return f"cuda:{x.device.id}"

    def on(self, x: Any) -> AbstractContextManager[Any]:
        return x.device  # type: ignore[no-any-return]


class CuPyFuser(DeviceFuser):
    """Takes steps of CuPy arrays of one device."""

    def __init__(self, rule: Rule[Any, Any]) -> None:
        super().__init__(rule, CuPyMemory(), CuPyKernels, {np.dtype(name): name for name in TYPES})
