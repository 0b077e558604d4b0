"""Fused steps on arrays in the CPU's own memory, NumPy's and torch's, by kernels that numba has compiled."""

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from xopt.backends.blocks import blocks_of, look
from xopt.backends.donation import Places, giving, refuse_donated
from xopt.backends.forms import Compiled, filled
from xopt.backends.fusing import Leaf, Work, one_library, refuse_unfit
from xopt.backends.numba_kernels import Format, Kernel, compiled, inspector, starts_of
from xopt.program import numbers_of
from xopt.rule import Rule
from xopt.slots import each


class Memory(ABC):
    """What the kernels must know of an array library whose arrays are in the CPU's memory."""

    formats: tuple[Format, ...]
    reader: int = 0  # address of DLPack's function that looks at an array; 0 for NumPy's own struct
    versioned: bool = False
    members: Callable[[], int] | None = None
    """How many threads of OpenMP share what this thread does, where the library has its work done by those."""

    @abstractmethod
    def types(self) -> list[type]:
        """The types of arrays of which ``reader`` can be asked."""

    @abstractmethod
    def tags(self) -> list[tuple[int, int, int, int]]:
        """For each format: how the library names the dtype of params and of slots, and the units in which it counts strides."""

    def marks(self) -> list[int]:
        """Where an array says whether its numbers are its own: the offset of a pointer in the object, that of a word behind it, and
        the words that say so. None where every array of ``types`` is plain."""
        return []

    @abstractmethod
    def unfit(self, x: Any) -> str | None:
        """What an array is where it is more, or other, than its numbers in memory."""

    @abstractmethod
    def empty_like(self, x: Any) -> Any:
        """A new array of the same shape, dtype and, if it has no gaps, layout."""

    @abstractmethod
    def copied(self, x: Any) -> Any:
        """A new array with the same numbers."""

    @abstractmethod
    def alias(self, x: Any) -> Any:
        """Another array with the same memory."""

    @abstractmethod
    def numpy(self, x: Any) -> Any:
        """The same memory as a NumPy array; of bfloat16 as integers."""

    def device(self, x: Any) -> Any:  # noqa: ARG002
        """Where an array is."""
        return "cpu"

    def check(self, work: Work) -> None:  # noqa: B027 - most forbid nothing
        """Raises for what the library forbids to step."""

    def refuse_unwritable(self, work: Work, i: int) -> None:  # noqa: B027
        """Raises ValueError where an array of leaf ``i`` cannot be written to through ``numpy``."""

    def wrote(self, arrays: list[Any]) -> None:  # noqa: B027 - most count nothing
        """Told what will be written to, where the library counts that: where it is ``versioned``."""


class Table:
    """Where the arrays of a tree are, leaf by leaf."""

    def __init__(self, leaves: int, columns: int) -> None:
        self.addresses = np.empty((leaves, columns), np.int64)  # 0 where there is None
        self.sizes, self.formats = np.empty((2, leaves), np.int64)
        # numbers of each leaf; index of its format, or -1 if it is not dense, of one layout, a known type and plain
        self.layout: Layout | None = None  # of these sizes, formats and columns that are None
        self.apart = False  # whether the arrays are known not to overlap, and
        self.written = np.empty((2, 0), np.int64)  # where those that are written begin and end, in order


class Layout:
    """What follows of a table's sizes, formats and columns that are None alone: mostly the same step after step."""

    def __init__(self, table: Table) -> None:
        self.odd: list[int] = np.flatnonzero(table.formats < 0).tolist()
        self.regular = np.flatnonzero(table.formats >= 0)
        absent = table.addresses == 0
        absent[self.odd] = False  # what is there of them was not looked at to its end
        self.present = ~absent
        self.lacking = frozenset(np.flatnonzero(absent.any(axis=1)).tolist())
        forms = np.unique(np.column_stack([table.formats, absent]), axis=0, return_inverse=True)[1]
        self.forms = forms.ravel()  # equal for leaves that are alike; NumPy 2.0 gives a column
        self.alike = len(set(self.forms[self.regular].tolist())) <= 1
        self.kernels: dict[tuple[bool, ...], Kernel] = {}  # of leaves that are all alike, by which coefficients are 1
        self.starts = starts_of(table.sizes)
        self.rows = np.zeros(table.sizes.size, np.int64)


class Cell(NamedTuple):
    """Leaves that share their coefficients and one kernel."""

    leaves: Any  # their indices
    c: Any
    numbers: list[float]  # the coefficients in the kernel's order
    ones: tuple[bool, ...]  # which of them are a Python 1, on which it depends what is compiled


class Tables:
    """Those of one step: of the state that it reads and of the one that it writes. Kept for the next step of the function."""

    def __init__(self) -> None:
        self.old = self.new = Table(0, 0)


class HostFuser:
    """Steps a rule on arrays in the CPU's memory."""

    def __init__(self, rule: Rule[Any, Any], memory: Memory) -> None:
        self.rule = rule
        self.memory = memory
        self._inspect: Any = None  # made at the first look
        self._known = np.asarray([id(None), *map(id, memory.types())], np.int64)
        self._tags = np.asarray(memory.tags(), np.int64)
        self._marks = np.asarray(memory.marks(), np.int64)
        self._widths = np.asarray([np.dtype(one.storage).itemsize for one in memory.formats], np.int64)
        self._clear = ctypes.cast(ctypes.pythonapi.PyErr_Clear, ctypes.c_void_p).value or 0
        self._kernels = Compiled(rule, partial(Kernel, members=memory.members))
        self._several = any(slot.several for slot in rule.schema)

    def __call__(self, work: Work) -> list[Sequence[Any]]:
        refuse_donated(work)
        self.memory.check(work)
        kept: list[Tables] = work.kept.setdefault(self, [])  # of steps that have ended; another thread takes others
        try:
            tables = kept.pop()
        except IndexError:  # there is none, or another thread was quicker
            tables = Tables()
        try:
            return self._step(work, tables)
        finally:
            kept.append(tables)

    def _step(self, work: Work, tables: Tables) -> list[Sequence[Any]]:
        if self._several:
            work.leaf(0)  # refuses what is no such tuple; the others must be like it
        table = tables.old = self._look(tables.old, work.params, work.slots, work.grads, work.donate)
        layout = table.layout = table.layout or Layout(table)
        odd = {i: work.leaf(i) for i in layout.odd}
        if odd:
            one_library(work, self.memory.device)
        if odd or not self._hosted(work):
            refuse_unfit(work, self.memory.unfit, layout.odd)
        cells = self._cells(work, layout)
        calls = self._calls(work, table, layout, cells)
        kernels, fresh, views = self._odd(work, odd) if odd else ({}, {}, {})
        new: list[Any] = [work.params, *work.slots]
        target = table
        if work.donate:
            if odd or not table.apart:
                table.written = self._refuse_overlap(work, table, views)
                table.apart = True
        else:
            new = [self._fresh(name, column, layout) for name, column in zip(("params", *self.rule.slots), new, strict=True)]
            target = tables.new = self._look(tables.new, new[0], new[1:], work.grads, donate=True)
        with giving(work) if work.donate else nullcontext():
            if work.donate and self.memory.versioned:
                self.memory.wrote(self._written(work, layout))
            for kernel, chosen in calls.items():
                _run(kernel, chosen, table, target, layout, copy=not work.donate)
            for i, leaf in odd.items():
                _step_odd(leaf, kernels[i], views[i])
        if odd:
            new = [list(column) for column in new]
            for i, leaf in odd.items():
                for column, x in zip(new, filled(leaf, fresh[i]), strict=True):
                    column[i] = x
        for at, name, _ in self.rule.carried_at:
            new[1 + at] = self._carried(work, name, cells, odd)
        if work.donate:
            return work.renewed(new, self.memory.alias)
        return new

    def _odd(self, work: Work, odd: dict[int, Leaf]) -> tuple[dict[int, Kernel], dict[int, list[Any]], dict[int, list[Any]]]:
        """Of odd leaves: kernels, the arrays that will be the new state, and what the kernels see of those and the gradient."""
        kernels = {i: self._kernels.of(leaf.slots, leaf.c, self._format(work, i, leaf)) for i, leaf in odd.items()}
        fresh = {i: leaf.arrays if work.donate else [self.memory.copied(x) for x in leaf.arrays] for i, leaf in odd.items()}
        views = {i: [self.memory.numpy(x) for x in (*fresh[i], leaf.grad)] for i, leaf in odd.items()}
        return kernels, fresh, views

    def _hosted(self, work: Work) -> bool:
        """Whether the step count and all hyperparameters are Python numbers, as mostly: nothing of them is to be looked at."""
        if type(work.call.t) is not int or not work.shared or self.rule.carried_at:
            return False
        return set(map(type, work.hyper[0].values())) <= {float}

    def _written(self, work: Work, layout: Layout) -> list[Any]:
        """All arrays that a donating step writes over."""
        arrays = list(chain(work.params, *self.rule.schema.columns(work.slots)))
        return [x for x in arrays if x is not None] if layout.lacking or layout.odd else arrays

    def _look(
        self, table: Table, params: Sequence[Any], slots: Sequence[Sequence[Any]], grads: Sequence[Any], donate: bool
    ) -> Table:
        """The table of these arrays: ``table`` itself, where there are as many."""
        columns = [params, *self.rule.schema.columns(slots), grads]
        columns = [column if type(column) is list else list(column) for column in columns]  # as the C structs are read
        if table.addresses.shape != (len(params), len(columns)):
            table = Table(len(params), len(columns))
        lists = np.asarray([id(column) for column in columns], np.int64)
        header, reader = object.__basicsize__, self.memory.reader
        out = table.addresses, table.sizes, table.formats
        look = lists, self._known, header, reader, self._clear, self._tags, self._marks, donate
        given = *look, table.written, self._widths
        if self._inspect is None:
            self._inspect = compiled(inspector(), "inspect", (*given, *[x[:0] for x in out]))
        changed, moved, met = self._inspect(*given, *out)
        if changed:
            table.layout = None
        if changed or moved or met:
            table.apart = False
        return table

    def _cells(self, work: Work, layout: Layout) -> list[Cell]:
        """The leaves for the kernels, by what they share. Evaluates, and so checks, their hyperparameters."""
        shared: list[Any] = [] if layout.alike else [layout.forms]
        if not work.shared:
            shared.append(list(map(id, work.hyper)))
        for at, *_ in self.rule.carried_at:
            column = [x if type(x) is float else id(x) for x in work.slots[at]]
            if len(set(column)) > 1:
                shared.append(column)
        cells = []
        for indices in _alike(layout.regular, shared):
            first = int(indices[0])
            if first in layout.lacking:
                work.leaf(first)  # refuses a None that the hyperparameters do not mean
            c, plain = work.coefficients(first, work.typed(first))
            numbers = numbers_of(c)
            ones = tuple([type(x) is float and x == 1.0 for x in numbers])
            cells.append(Cell(indices, c, numbers if plain else list(map(float, numbers)), ones))
        return cells

    def _calls(self, work: Work, table: Table, layout: Layout, cells: list[Cell]) -> dict[Kernel, list[Cell]]:
        """The cells by the kernel that steps them. Compiles those that are new."""
        calls: dict[Kernel, list[Cell]] = {}
        for cell in cells:
            kernel = layout.kernels.get(cell.ones) if layout.alike else None
            if kernel is None:
                i = int(cell.leaves[0])
                slots = [x[i] for x in work.slots]
                for at, *_ in self.rule.carried_at:
                    slots[at] = 1.0
                kernel = self._kernels.of(slots, cell.c, self.memory.formats[table.formats[i]])
                if layout.alike:
                    layout.kernels[cell.ones] = kernel
            calls.setdefault(kernel, []).append(cell)
        return calls

    def _fresh(self, name: str, column: Sequence[Any], layout: Layout) -> list[Any]:
        """A column of the new state, still to be filled: like the old one, but that odd leaves stay what they are."""
        if name in self.rule.carried:
            return list(column)
        like = self.memory.empty_like
        if layout.odd or layout.lacking or self._several:
            odd = set(layout.odd)
            return [x if i in odd else each(like, x) for i, x in enumerate(column)]
        return list(map(like, column))

    def _carried(self, work: Work, name: str, cells: list[Cell], odd: dict[int, Leaf]) -> list[Any]:
        """The next values of a slot that holds numbers, which are among the coefficients."""
        new: list[Any] = [getattr(cells[0].c, name) if cells else None] * len(work.params)
        for cell in cells[1:]:
            for i in cell.leaves.tolist():
                new[i] = getattr(cell.c, name)
        for i, leaf in odd.items():
            new[i] = getattr(leaf.c, name)
        return new

    # Leaves that the kernels cannot walk through: strided, of another byte order, scalars.

    def _format(self, work: Work, i: int, leaf: Leaf) -> Format:
        """That of an odd leaf. Raises TypeError for one that numba does not know."""
        name = str(leaf.params.dtype).rpartition(".")[2]
        name = leaf.params.dtype.name if hasattr(leaf.params.dtype, "name") else name
        for one in self.memory.formats:
            if one.name == name:
                return one
        known = ", ".join(one.name for one in self.memory.formats)
        msg = f"{work.where(i)} is {name}, which numba has no arithmetic for; it has {known}. {self.rule.name}_step takes it"
        raise TypeError(msg)

    def _refuse_overlap(self, work: Work, table: Table, odd: dict[int, list[Any]]) -> Any:
        """Returns where what is written begins and ends, in order."""
        formats = [self.memory.formats[f] for f in table.formats]
        wide = np.asarray([np.dtype(f.compute).itemsize for f in formats], np.int64)[:, None] * np.ones_like(table.addresses)
        wide[:, 0] = wide[:, -1] = [np.dtype(f.storage).itemsize for f in formats]
        starts = table.addresses.copy()
        places = Places(starts, starts + wide * np.where(starts > 0, table.sizes[:, None], 0))
        for i, (*arrays, grad) in odd.items():
            self.memory.refuse_unwritable(work, i)
            places.put(work, i, arrays, grad, look)
        places.refuse_overlap(work)
        pieces = np.stack([places.starts[:, :-1].ravel(), places.stops[:, :-1].ravel()])
        pieces = pieces[:, pieces[1] > pieces[0]]
        return pieces[:, np.argsort(pieces[0])]


def _alike(leaves: Any, columns: Sequence[Any]) -> list[Any]:
    """The leaves in groups that have the same in each column, by their first leaf."""
    if not leaves.size:
        return []
    if not columns:
        return [leaves]
    code = np.zeros(leaves.size, np.int64)
    for column in columns:
        found, place = np.unique(np.asarray(column)[leaves], return_inverse=True)
        code = np.unique(code * found.size + place, return_inverse=True)[1]
    order = np.argsort(code, kind="stable")
    groups = np.split(leaves[order], np.flatnonzero(np.diff(code[order])) + 1)
    return sorted(groups, key=lambda group: int(group[0]))


def _step_odd(leaf: Leaf, kernel: Kernel, arrays: Sequence[Any]) -> None:
    """Steps the arrays of a leaf in place, the last of which is the gradient, block by block."""
    own, compute = kernel.format.storage, kernel.format.compute
    for block in blocks_of(arrays, [own, *[compute] * (len(arrays) - 2), own]):
        kernel.step(block, numbers_of(leaf.c))


def _run(kernel: Kernel, cells: list[Cell], table: Table, target: Table, layout: Layout, copy: bool) -> None:
    coefficients = np.asarray([cell.numbers for cell in cells], kernel.format.compute)
    addresses, sources, starts, rows = target.addresses, table.addresses, layout.starts, layout.rows
    if len(cells) > 1 or cells[0].leaves.size < rows.size or layout.lacking:
        leaves = np.concatenate([cell.leaves for cell in cells])
        present = np.flatnonzero(layout.present[leaves[0]])
        addresses, sources = (x[np.ix_(leaves, present)] for x in (addresses, sources))
        starts = starts_of(table.sizes[leaves])
        rows = np.repeat(np.arange(len(cells)), [cell.leaves.size for cell in cells])
    kernel(addresses, starts, coefficients, rows, sources if copy else None)
