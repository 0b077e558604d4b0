"""Fused steps on arrays in the CPU's own memory, NumPy's and torch's, by kernels that numba has compiled."""

import ctypes
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from xopt.backends.compilers.blocks import blocks_of, look
from xopt.backends.compilers.numba_kernels import Format, Kernel, called_from_c, inspector
from xopt.backends.compilers.tables import Layout, LeafGroup, TableFuser, starts_of
from xopt.backends.fused.compiled import filled
from xopt.backends.fused.donation import Places
from xopt.backends.fused.fuser import Launch
from xopt.backends.fused.memory import Memory
from xopt.backends.fused.work import TypedLeaf, Work, one_library, refuse_unfit
from xopt.program import numbers_of
from xopt.rule import Rule


class HostMemory(Memory):
    """What the kernels must know beside of an array library whose arrays are in the CPU's memory."""

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
    def copied(self, x: Any) -> Any:
        """A new array with the same numbers."""

    @abstractmethod
    def numpy(self, x: Any) -> Any:
        """The same memory as a NumPy array; of bfloat16 as integers."""


CHANGED = 1
"""The bit by which the look says that leaves are of another size or format, or that another column is None."""


class Described:
    """Arrays of integers, of one dimension or two, for compiled code, which finds their addresses and shapes at ``address``.

    All that is told of lives as long as this.
    """

    def __init__(self, *arrays: Any) -> None:
        self._arrays = arrays
        self._words = np.asarray([(x.ctypes.data, *np.atleast_2d(x).shape) for x in arrays], np.int64)
        self.address: int = self._words.ctypes.data


class Table:
    """Where the arrays of a tree are, leaf by leaf."""

    def __init__(self, leaves: int, columns: int) -> None:
        self.addresses = np.empty((leaves, columns), np.int64)  # 0 where there is None
        self.sizes, self.formats = np.empty((2, leaves), np.int64)
        # numbers of each leaf; index of its format, or -1 if it is not dense, of one layout, a known type and plain
        self.layout: Layout | None = None  # of these sizes, formats and columns that are None
        self.apart = False  # whether the arrays are known not to overlap
        self._describe(np.empty((2, 0), np.int64))

    def are_apart(self, written: Any) -> None:
        """Notes that the arrays do not overlap, and where those that are written begin and end, in order."""
        self.apart = True
        self._describe(written)

    def _describe(self, written: Any) -> None:
        self.described = Described(self.addresses, self.sizes, self.formats, written)


class Tables:
    """Those of one step: of the state that it reads and of the one that it writes. Kept for the next step of the function."""

    def __init__(self) -> None:
        self.old = self.new = Table(0, 0)


class HostFuser(TableFuser):
    """Steps a rule on arrays in the CPU's memory."""

    memory: HostMemory

    def __init__(self, rule: Rule[Any, Any], memory: HostMemory) -> None:
        super().__init__(rule, memory, partial(Kernel, members=memory.members))
        self._inspect: Any = None  # made at the first look
        clear = ctypes.cast(ctypes.pythonapi.PyErr_Clear, ctypes.c_void_p).value or 0
        known = [id(None), *map(id, memory.types())]
        widths = [np.dtype(one.storage).itemsize for one in memory.formats]
        rows = [object.__basicsize__, memory.reader, clear], known, memory.tags(), memory.marks(), widths
        self._library = Described(*[np.asarray(row, np.int64) for row in rows])  # what the look must know of it

    def prepare(self, work: Work) -> Launch:
        kept: list[Tables] = work.kept.setdefault(self, [])  # of steps that have ended; another thread takes others
        try:
            tables = kept.pop()
        except IndexError:  # there is none, or another thread was quicker
            tables = Tables()
        columns = work.columns()
        table = tables.old = self._look(tables.old, columns, work.donate)
        layout = table.layout = table.layout or Layout(table.sizes, table.formats, table.addresses == 0)
        odd = {i: work.leaf(i) for i in layout.odd} if layout.odd else {}
        if odd:
            one_library(work, self.memory.device)
        if odd or not work.hosted():
            refuse_unfit(work, self.memory.unfit, layout.odd)
        groups = self.groups(work, layout)
        calls = self.calls(work, layout, groups, lambda i: self.memory.formats[table.formats[i]])
        kernels, fresh, views = self._odd(work, odd) if odd else ({}, {}, {})
        new: list[Any] = [work.params, *work.slots]
        target = table
        if work.donate:
            if odd or not table.apart:
                table.are_apart(self._refuse_overlap(work, table, views))
        else:
            new = self.fresh(work, layout)
            columns = [*map(list, (new[0], *self.rule.schema.columns(new[1:]))), columns[-1]]
            target = tables.new = self._look(tables.new, columns, donate=True)

        def launch() -> list[Any]:
            if work.donate and self.memory.versioned:
                written = list(chain.from_iterable(columns[:-1]))
                self.memory.wrote([x for x in written if x is not None] if layout.lacking or layout.odd else written)
            for kernel, chosen in calls.items():
                _run(kernel, chosen, table, target, layout, copy=not work.donate)
            for i, leaf in odd.items():
                _step_odd(leaf, kernels[i], views[i])
            state = list(map(list, new)) if odd else new
            for i, leaf in odd.items():
                for column, x in zip(state, filled(leaf, fresh[i]), strict=True):
                    column[i] = x
            if self.rule.carried_at:
                self.carry(work, state, groups, odd)
            kept.append(tables)
            return state

        return launch

    def _odd(self, work: Work, odd: dict[int, TypedLeaf]) -> tuple[dict[int, Kernel], dict[int, list[Any]], dict[int, list[Any]]]:
        """Of odd leaves: kernels, the arrays that will be the new state, and what the kernels see of those and the gradient."""
        kernels = {i: self.kernels.of(leaf.slots, leaf.c, self._format(work, i, leaf)) for i, leaf in odd.items()}
        fresh = {i: leaf.arrays if work.donate else [self.memory.copied(x) for x in leaf.arrays] for i, leaf in odd.items()}
        views = {i: [self.memory.numpy(x) for x in (*fresh[i], leaf.grad)] for i, leaf in odd.items()}
        return kernels, fresh, views

    def _look(self, table: Table, columns: Sequence[list[Any]], donate: bool) -> Table:
        """The table of these arrays, given as lists, whose C structs are read: ``table`` itself, where there are as many."""
        if table.addresses.shape != (len(columns[0]), len(columns)):
            table = Table(len(columns[0]), len(columns))
        if self._inspect is None:
            nothing: tuple[list[Any], Table] = [], Table(0, 0)  # which must live until it has returned
            given = id(nothing[0]), self._library.address, nothing[1].described.address, 0
            self._inspect = called_from_c(inspector(), "inspect", given)
        found = self._inspect(id(columns), self._library.address, table.described.address, donate)
        if found & CHANGED:
            table.layout = None
        if found:
            table.apart = False
        return table

    # Leaves that the kernels cannot walk through: strided, of another byte order, scalars.

    def _format(self, work: Work, i: int, leaf: TypedLeaf) -> Format:
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
            row = [*arrays, *[None] * (table.addresses.shape[1] - 1 - len(arrays)), grad]
            places.put(work, i, row, look)
        places.refuse_overlap(work)
        pieces = np.stack([places.starts[:, :-1].ravel(), places.stops[:, :-1].ravel()])
        pieces = pieces[:, pieces[1] > pieces[0]]
        return np.ascontiguousarray(pieces[:, np.argsort(pieces[0])])  # the layout for which the look is compiled


def _step_odd(leaf: TypedLeaf, kernel: Kernel, arrays: Sequence[Any]) -> None:
    """Steps the arrays of a leaf in place, the last of which is the gradient, block by block."""
    own, compute = kernel.format.storage, kernel.format.compute
    for block in blocks_of(arrays, [own, *[compute] * (len(arrays) - 2), own]):
        kernel.step(block, numbers_of(leaf.c))


def _run(kernel: Kernel, groups: list[LeafGroup], table: Table, target: Table, layout: Layout, copy: bool) -> None:
    coefficients = np.asarray([group.numbers for group in groups], kernel.format.compute)
    addresses, sources, starts, rows = target.addresses, table.addresses, layout.starts, layout.rows
    if len(groups) > 1 or groups[0].leaves.size < rows.size or layout.lacking:
        leaves = np.concatenate([group.leaves for group in groups])
        present = np.flatnonzero(layout.present[leaves[0]])
        addresses, sources = (x[np.ix_(leaves, present)] for x in (addresses, sources))
        starts = starts_of(table.sizes[leaves])
        rows = np.repeat(np.arange(len(groups)), [group.leaves.size for group in groups])
    kernel(addresses, starts, coefficients, rows, sources if copy else None)
