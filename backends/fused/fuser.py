"""How every compiler steps a tree: what can be refused is refused, what is given away is marked, and then it is written."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np

from xopt.backends.fused.compiled import filled
from xopt.backends.fused.donation import Piece, Places, giving, overlapping, refuse_donated, refuse_shared
from xopt.backends.fused.memory import Memory
from xopt.backends.fused.work import PartialWork, TypedLeaf, UnfitError, Work, one_library, refuse_unfit
from xopt.rule import Rule

Launch = Callable[[], Sequence[Sequence[Any]]]
"""Writes the new state. Returns its columns."""


class Plan:
    """What follows of the forms of a tree's arrays alone: mostly the same step after step, and then checked once.

    Raises what the eager step does where they do not fit, and UnfitError where they are more than numbers in memory.
    """

    def __init__(self, work: Work, memory: Memory, columns: Sequence[Sequence[Any]], forms: Sequence[Any]) -> None:
        self.forms = forms  # of the arrays, column by column
        one_library(work, memory.device)
        leaves = [work.leaf(i) for i in range(len(work.params))]
        refuse_unfit(work, memory.unfit)
        self.typed = [leaf.typed for leaf in leaves]
        self.absent = np.asarray([[x is None for x in column] for column in columns]).T  # of each leaf, of each column
        self.lacking: list[int] = np.flatnonzero(self.absent.any(axis=1)).tolist()
        self.rows = list(map(tuple, self.absent.tolist())) if self.lacking else []
        self.places: _Places | None = None  # where they are donated


class _Places:
    """Where the arrays of a plan may be written over.

    Raises ValueError where one of them cannot be.
    """

    def __init__(self, work: Work, memory: Memory, columns: Sequence[Sequence[Any]]) -> None:
        self._begin = addresses(memory, columns)
        self._places = Places.empty(*self._begin.shape)
        for i, row in enumerate(zip(*columns, strict=True)):
            memory.refuse_unwritable(work, i)
            self._places.put(work, i, row, memory.look)
        self._apart: Any = None  # addresses of arrays that were found not to overlap

    def refuse_overlap(self, work: Work, begin: Any) -> None:
        """Raises ValueError where what is written overlaps with something else, given the addresses of all arrays."""
        if self._apart is None or not np.array_equal(begin, self._apart):
            self._places.moved(begin - self._begin).refuse_overlap(work)
            self._apart = begin


def refuse_idle(work: PartialWork, memory: Memory) -> None:
    """Raises ValueError where a leaf without a gradient has memory that is to be written, UnfitError where that cannot be told."""
    tree = work.tree
    for i in work.idle:
        if tree.typed(i).xp is not work.typed(0).xp:
            msg = f"{tree.where(i)} is of another library"
            raise UnfitError(msg)
        refuse_unfit(tree, lambda x: None if x is None else memory.unfit(x), [i])
    pieces: dict[Any, list[Piece]] = defaultdict(list)  # by device
    for written, leaves in enumerate((work.idle, work.leaves)):
        for i in leaves:
            for x in tree.written(i):
                for device, start, stop in memory.places(x):
                    pieces[device].append(Piece(start, stop, owner=written, written=bool(written), leaf=i))
    for found in map(overlapping, pieces.values()):
        if found is not None:
            idle, stepped = sorted(found, key=attrgetter("written"))
            refuse_shared(tree, stepped.leaf, idle.leaf)


def addresses(memory: Memory, columns: Sequence[Sequence[Any]]) -> Any:
    """The addresses of all arrays: a row for a leaf, in it one for each column, 0 for None."""
    address = memory.address
    return np.asarray([[0 if x is None else address(x) for x in column] for column in columns], np.int64).T


class Fuser(ABC):
    """Steps a rule on trees of one library's arrays, on devices of one kind.

    Parameters
    ----------
    rule
        Any rule.
    memory
        The arrays of the library.
    """

    compiles_late = False
    """Whether it may turn out at the launch alone that nothing compiles."""

    def __init__(self, rule: Rule[Any, Any], memory: Memory) -> None:
        self.rule = rule
        self.memory = memory

    def __call__(self, work: Work) -> Sequence[Sequence[Any]]:
        refuse_donated(work)
        self.memory.check(work)
        launch = self.prepare(work)
        if not work.donate:
            return work.whole(launch())
        if isinstance(work, PartialWork):
            refuse_idle(work, self.memory)
        with giving(work):
            new = launch()
        return work.renewed(list(work.whole(new)), self.memory.alias)

    def in_place(self, work: Work) -> Launch:
        """All but the writing of a donating step, for a caller that alone holds the slots: nothing is marked as given away."""
        self.memory.check(work)
        return self.prepare(work)

    @abstractmethod
    def prepare(self, work: Work) -> Launch:
        """Checks and compiles all that is needed. Writes nothing."""

    def plan(self, work: Work, columns: Sequence[Sequence[Any]]) -> Plan:
        """That of the step before, where all arrays have the same forms."""
        forms = self.memory.forms(list(chain.from_iterable(columns)))
        plan: Plan | None = work.kept.get(self)
        if plan is None or plan.forms != forms:
            plan = work.kept[self] = self.planned(work, columns, forms)
        else:
            plan.forms = forms  # equal ones; the same objects next time, to find which equal takes less
            work.refuse_none(plan.lacking, plan.rows)
            if not work.hosted():
                refuse_unfit(work, self.memory.unfit, ())
        return plan

    def planned(self, work: Work, columns: Sequence[Sequence[Any]], forms: Sequence[Any]) -> Plan:
        return Plan(work, self.memory, columns, forms)

    def refuse_overlap(self, work: Work, plan: Plan, columns: Sequence[Sequence[Any]], begin: Any) -> None:
        """Raises ValueError where the arrays, which begin at these addresses, cannot be written over."""
        places = plan.places
        if places is None:
            places = plan.places = _Places(work, self.memory, columns)
        places.refuse_overlap(work, begin)

    def leaves(self, work: Work) -> list[TypedLeaf]:
        """All leaves, checked, and apart in memory where they are donated."""
        columns = work.columns()
        plan = self.plan(work, columns)
        if work.donate:
            self.refuse_overlap(work, plan, columns, addresses(self.memory, columns))
        return [work.assembled(i, typed, *work.coefficients(i, typed)) for i, typed in enumerate(plan.typed)]

    def state(self, leaves: Sequence[TypedLeaf], new: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """The columns of the new state, from the new arrays of each leaf."""
        return list(zip(*[filled(leaf, arrays) for leaf, arrays in zip(leaves, new, strict=True)], strict=True))
