"""Fused steps of CuPy arrays: ElementwiseKernel compiles the recorded program, for one array or for a table of small ones."""

import importlib
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from xopt.backends.c_source import COMPUTE, TYPES, body
from xopt.backends.donation import Places, giving, refuse_donated
from xopt.backends.forms import Compiled, filled
from xopt.backends.fusing import Leaf, Work, one_library, refuse_unfit
from xopt.backends.program import Program, numbers_of
from xopt.rule import Rule

SMALL = 1 << 16
"""Numbers up to which an array shares a launch, and is looked up in a table. No sharp border: on an H200 Python takes the time."""

OPTIONS = ("--fmad=false",)
"""No multiplication and addition become one operation that rounds once. Division and sqrt are correctly rounded by default."""

_NAMES = {np.dtype(name): name for name in COMPUTE}


class Text(NamedTuple):
    """A kernel as ``cupy.ElementwiseKernel`` takes it."""

    inputs: str
    outputs: str
    operation: str


def text_of_one(program: Program, dtype: str) -> Text:
    """The kernel for one array of params, of any layout."""
    compute = COMPUTE[dtype]
    inputs = [f"{_dtype(name, dtype)} in_{name}" for name in program.reads]
    inputs += [f"{compute} {program.coefficients[i]}" for i in program.used]
    outputs = [f"{_dtype(name, dtype)} out_{name}" for name in program.writes]
    return Text(", ".join(inputs), ", ".join(outputs), body(program, dtype, "in_{}", "out_{}"))


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


def _dtype(name: str, dtype: str) -> str:
    return dtype if name in ("params", "grad") else COMPUTE[dtype]


class Arrays(NamedTuple):
    """Those of one leaf."""

    old: list[Any]  # in the order of ``Program.arrays``: params, the slots that are there, grad
    new: list[Any]  # in the order of ``Program.writes``: without grad


class Cell(NamedTuple):
    """Leaves that share a kernel and its coefficients."""

    leaves: list[int]
    c: list[Any]


class Kernels:
    """The kernels of a program for one dtype of params. CuPy compiles them at their first launch, and keeps them on disk."""

    def __init__(self, cupy: Any, program: Program, dtype: str) -> None:
        self._reads = [program.arrays.index(name) for name in program.reads]
        self._real = np.dtype(COMPUTE[dtype]).type
        self._used = program.used
        self._asarray = cupy.asarray
        self._example = cupy.zeros(1, dtype)
        name = f"xopt_{program.rule}_{dtype}"
        one, many = text_of_one(program, dtype), text_of_many(program, dtype)
        self._one = cupy.ElementwiseKernel(*one, name, options=OPTIONS, no_return=True)
        self._many = cupy.ElementwiseKernel(*many, f"{name}_many", options=OPTIONS, no_return=True)

    def rounded(self, c: Sequence[Any]) -> list[Any]:
        """The coefficients that the kernels use, each rounded once. Waits for those that are arrays."""
        return [self._real(float(c[i])) for i in self._used]

    def one(self, leaf: Arrays, c: Sequence[Any]) -> None:
        """Steps one leaf."""
        self._one(*(leaf.old[at] for at in self._reads), *c, *leaf.new)

    def many(self, leaves: Sequence[Arrays], rows: Sequence[int], c: Sequence[Sequence[Any]]) -> None:
        """Steps leaves of dense arrays, each of one layout. ``c[rows[i]]`` are the coefficients of leaf ``i``."""
        starts = np.cumsum([0, *(leaf.old[0].size for leaf in leaves)]).tolist()
        table = [
            [start, row, *(leaf.old[at].data.ptr for at in self._reads), *(x.data.ptr for x in leaf.new)]
            for start, row, leaf in zip(starts[:-1], rows, leaves, strict=True)
        ]
        words, numbers = np.asarray(table, np.int64).ravel(), np.asarray(c, self._real).ravel()
        self._many(len(leaves), self._asarray(words), self._asarray(numbers), self._example, size=starts[-1])


class CuPyFuser:
    """Steps a rule on CuPy arrays of one device."""

    def __init__(self, rule: Rule[Any, Any]) -> None:
        self.rule = rule
        self._cupy = importlib.import_module("cupy")
        self._kernels = Compiled(rule, partial(Kernels, self._cupy))

    def __call__(self, work: Work) -> list[Sequence[Any]]:
        refuse_donated(work)
        one_library(work, lambda x: f"cuda:{x.device.id}")
        leaves = list(work.leaves())
        for i, leaf in enumerate(leaves):
            if leaf.kind.dtype not in _NAMES:
                msg = f"{work.where(i)} is {leaf.kind.dtype}, which the kernels do not know; they know {', '.join(COMPUTE)}"
                raise TypeError(msg)
        refuse_unfit(work, self._unfit)
        new = [leaf.arrays for leaf in leaves]
        if work.donate:
            places = Places.empty(len(leaves), max(len(leaf.arrays) for leaf in leaves))
            for i, leaf in enumerate(leaves):
                places.put(work, i, leaf.arrays, leaf.grad, _look)
            places.refuse_overlap(work)
        with work.params[0].device:
            cells = self._cells(leaves)
            if not work.donate:
                new = [list(map(self._cupy.empty_like, leaf.arrays)) for leaf in leaves]
            arrays = [Arrays([*leaf.arrays, leaf.grad], own) for leaf, own in zip(leaves, new, strict=True)]
            with giving(work) if work.donate else nullcontext():
                for kernels, sharing in cells.items():
                    _launch(kernels, sharing, arrays)
        if work.donate:
            new[0] = [new[0][0].view(), *new[0][1:]]
        return list(zip(*[filled(self.rule, leaf, own) for leaf, own in zip(leaves, new, strict=True)], strict=True))

    def _unfit(self, x: Any) -> str | None:
        cupy = self._cupy
        fits = type(x) is cupy.ndarray or not isinstance(x, cupy.ndarray)
        return None if fits else f"a {type(x).__name__}, a subclass of CuPy's arrays"

    def _cells(self, leaves: Sequence[Leaf]) -> dict[Kernels, list[Cell]]:
        """What each kernel steps. Empty leaves need none."""
        alike: dict[Any, list[int]] = {}
        for i, kernels in enumerate(self._kernels.each(leaves, [_NAMES[leaf.kind.dtype] for leaf in leaves])):
            if leaves[i].params.size:
                alike.setdefault((kernels, id(leaves[i].c)), []).append(i)
        cells: dict[Kernels, list[Cell]] = {}
        for (kernels, _), indices in alike.items():
            cells.setdefault(kernels, []).append(Cell(indices, kernels.rounded(numbers_of(leaves[indices[0]].c))))
        return cells


def _launch(kernels: Kernels, cells: Sequence[Cell], arrays: Sequence[Arrays]) -> None:
    """Steps large leaves and strided ones by themselves, and all others at once."""
    small, rows = [], []
    for row, cell in enumerate(cells):
        for leaf in (arrays[i] for i in cell.leaves):
            if leaf.old[0].size <= SMALL and _one_layout([*leaf.old, *leaf.new]):
                small.append(leaf)
                rows.append(row)
            else:
                kernels.one(leaf, cell.c)
    if len(small) == 1:
        kernels.one(small[0], cells[rows[0]].c)
    elif small:
        kernels.many(small, rows, [cell.c for cell in cells])


def _one_layout(arrays: Sequence[Any]) -> bool:
    """Whether the numbers of all arrays follow one another in memory, in the same order."""
    return all(x.flags.c_contiguous for x in arrays) or all(x.flags.f_contiguous for x in arrays)


def _look(x: Any) -> tuple[int, int, tuple[int, ...], int]:
    """The addresses of the first byte of an array and behind its last, its strides, and the bytes of a number."""
    start, size = x.data.ptr, x.nbytes
    if not size or x.flags.c_contiguous:
        return start, start + size, x.strides, x.itemsize
    reach = [(n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True)]
    return start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0) + x.itemsize, x.strides, x.itemsize
