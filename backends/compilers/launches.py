"""Fused steps in a device's memory: which leaves a kernel steps together, and where their arrays are."""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from xopt.backends.compilers.tables import Layout, LeafGroup, TableFuser
from xopt.backends.fused.fuser import Launch, Plan, addresses
from xopt.backends.fused.memory import Memory
from xopt.backends.fused.work import Work
from xopt.program import Program
from xopt.rule import Rule

KEPT = 64
"""Divisions of the leaves among coefficients that a plan keeps: mostly there is one."""


class Chosen(NamedTuple):
    """Leaves of a plan that one kernel steps: all dense, or all not. None of them is empty."""

    leaves: list[int]
    rows: Any  # which coefficients each has
    sizes: Any  # how many numbers each has
    strided: bool  # whether their arrays have gaps, or several layouts
    present: Any  # the columns that there are: params, slots, gradients
    sources: Any  # where their arrays are in a table of addresses
    targets: Any  # the same of the new ones, which are without gradients


class Batch(NamedTuple):
    """What one kernel steps."""

    chosen: Chosen
    old: Sequence[Sequence[Any]]  # columns of all leaves: params, slots, gradients
    new: Sequence[Sequence[Any]]  # and without gradients
    sources: Any  # the addresses of the old arrays of each leaf, in the order of ``Program.arrays``
    targets: Any  # and of the new ones, in the order of ``Program.writes``
    coefficients: Sequence[Sequence[float]]  # of each row, in the order of ``Program.coefficients``

    def arrays(self, i: int) -> tuple[list[Any], list[Any]]:
        """The old and the new arrays of a leaf, by its place among those chosen."""
        leaf, present = self.chosen.leaves[i], self.chosen.present
        return [self.old[column][leaf] for column in present], [self.new[column][leaf] for column in present[:-1]]


class Kernels(Protocol):
    """What is compiled of a program for one dtype of params."""

    def __init__(self, program: Program, dtype: str) -> None: ...

    def prepared(self, batch: Batch) -> Iterable[Callable[[], None]]:
        """The launches that step these leaves, compiled, so that nothing that can be refused is left."""


class DevicePlan(Plan):
    """A plan, with what kernels must know of the arrays."""

    def __init__(self, fuser: "DeviceFuser", work: Work, columns: Sequence[Sequence[Any]], forms: Sequence[Hashable]) -> None:
        memory, names = fuser.memory, fuser.dtypes
        super().__init__(work, memory, columns, forms)
        for i, typed in enumerate(self.typed):
            if typed.dtype not in names:
                msg = f"{work.where(i)} is {typed.dtype}, which the kernels do not know; they know {', '.join(names.values())}"
                raise TypeError(msg)
        self.dtypes = [names[typed.dtype] for typed in self.typed]
        arrays = [(at, i, x) for at, column in enumerate(columns) for i, x in enumerate(column) if x is not None]
        self.copied = [(at, i) for at, i, x in arrays if memory.numbers(x) is not x]
        self.sizes = np.asarray([math.prod(x.shape) for x in work.params], np.int64)
        rows = zip(*self.seen(memory, columns), strict=True)
        self.strided = np.asarray([not _one_layout(memory, [x for x in row if x is not None]) for row in rows])
        known = list(names.values())
        kinds = np.asarray([2 * known.index(name) for name in self.dtypes]) + self.strided
        self.layout = Layout(self.sizes, kinds, self.absent.copy())
        self._chosen: dict[Any, list[Chosen]] = {}  # by the leaves of each row

    def chosen(self, groups: Sequence[LeafGroup]) -> list[Chosen]:
        """The leaves of a kernel, those that are dense and those that are not, given those of each row of coefficients."""
        key = tuple([group.leaves.tobytes() for group in groups])
        if key not in self._chosen:
            if len(self._chosen) >= KEPT:
                self._chosen.clear()
            self._chosen[key] = list(self._choose(groups))
        return self._chosen[key]

    def _choose(self, groups: Sequence[LeafGroup]) -> Iterable[Chosen]:
        leaves = np.concatenate([group.leaves for group in groups])
        rows = np.repeat(np.arange(len(groups)), [group.leaves.size for group in groups])
        present = np.flatnonzero(self.layout.present[leaves[0]])
        for strided in (False, True):
            at = (self.sizes[leaves] > 0) & (self.strided[leaves] == strided)
            some: list[int] = leaves[at].tolist()
            if some:
                where = np.ix_(leaves[at], present), np.ix_(leaves[at], present[:-1])
                yield Chosen(some, rows[at], self.sizes[some], strided, present.tolist(), *where)

    def seen(self, memory: Memory, columns: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """What the kernels see: copies, where the memory of an array does not hold its numbers."""
        if not self.copied:
            return columns
        seen = list(map(list, columns))
        for column, i in self.copied:
            seen[column][i] = memory.numbers(seen[column][i])
        return seen


def _one_layout(memory: Memory, arrays: Sequence[Any]) -> bool:
    """Whether the numbers of all arrays follow one another in memory without gaps, in the same order, as those of new ones will."""
    layouts = {_strides(memory, x) for x in arrays}
    if len(layouts) > 1:
        return False
    (strides,) = layouts
    shape = arrays[0].shape
    if strides is None or not _dense(shape, strides):
        return False
    in_order = all(n == 1 or stride >= after for n, stride, after in zip(shape[:-1], strides[:-1], strides[1:], strict=True))
    return in_order or all(_strides(memory, memory.empty_like(x)) == strides for x in arrays)


def _strides(memory: Memory, x: Any) -> tuple[int, ...] | None:
    """The strides of an array in numbers, 0 where there is one number only; None where they are no whole ones."""
    *_, strides, width = memory.look(x)
    if any(stride % width for stride in strides):
        return None
    return tuple([stride // width if n != 1 else 0 for stride, n in zip(strides, x.shape, strict=True)])


def _dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    expected = 1
    for stride, n in sorted(zip(strides, shape, strict=True)):
        if n != 1 and stride != expected:
            return False
        expected *= n
    return True


class DeviceFuser(TableFuser):
    """Steps a rule on arrays of one device by kernels that are launched there.

    Parameters
    ----------
    rule
        Any rule.
    memory
        The arrays of the library.
    kernels
        What is compiled.
    dtypes
        The dtypes of params that there are kernels for, with their names.
    """

    def __init__(self, rule: Rule[Any, Any], memory: Memory, kernels: type[Kernels], dtypes: Mapping[Any, str]) -> None:
        super().__init__(rule, memory, kernels)
        self.dtypes = dtypes

    def planned(self, work: Work, columns: Sequence[Sequence[Any]], forms: Sequence[Hashable]) -> Plan:
        return DevicePlan(self, work, columns, forms)

    def prepare(self, work: Work) -> Launch:
        columns = work.columns()
        plan = self.plan(work, columns)
        assert isinstance(plan, DevicePlan)
        groups = self.groups(work, plan.layout)
        calls = self.calls(work, plan.layout, groups, lambda i: plan.dtypes[i])
        places = addresses(self.memory, columns)
        if work.donate:
            self.refuse_overlap(work, plan, columns, places)
        with self.memory.on(work.params[0]):
            old = plan.seen(self.memory, columns)
            sources = addresses(self.memory, old) if plan.copied else places
            new: list[Any] = [work.params, *work.slots]
            targets = sources
            if not work.donate:
                new = self.fresh(work, plan.layout)
            written = [new[0], *self.rule.schema.columns(new[1:])]
            if not work.donate:
                targets = addresses(self.memory, written)
            batches = [
                (kernels, Batch(chosen, old, written, sources[chosen.sources], targets[chosen.targets], [x.numbers for x in some]))
                for kernels, some in calls.items()
                for chosen in plan.chosen(some)
            ]
            launches = [launch for kernels, batch in batches for launch in kernels.prepared(batch)]

        def launch(_: Any = old) -> list[Any]:  # copies live until they are read
            if work.donate:
                self.memory.wrote([x for column in written for x in column if x is not None])
            with self.memory.on(work.params[0]):
                for one in launches:
                    one()
            self.carry(work, new, groups, {})
            return new

        return launch
