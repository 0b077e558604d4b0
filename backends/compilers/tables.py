"""What kernels share that step many leaves in one call, given a table of addresses."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from xopt.backends.fused.compiled import Compiled
from xopt.backends.fused.fuser import Fuser
from xopt.backends.fused.memory import Memory
from xopt.backends.fused.work import TypedLeaf, Work
from xopt.program import numbers_of
from xopt.rule import Rule
from xopt.slots import each


class Layout:
    """What is the same step after step, as long as sizes, kinds and columns that are None are.

    Parameters
    ----------
    sizes
        Numbers of each leaf.
    kinds
        Of each leaf, what beside its columns decides which kernel steps it; -1 where none does, as it is no regular leaf.
    absent
        Of each leaf, of each column, whether there is None.
    """

    def __init__(self, sizes: Any, kinds: Any, absent: Any) -> None:
        self.odd: list[int] = np.flatnonzero(kinds < 0).tolist()
        self.regular = np.flatnonzero(kinds >= 0)
        absent[self.odd] = False  # which of their slots are None is not known, as the look at them ends early
        self.present = ~absent
        self.lacking = frozenset(np.flatnonzero(absent.any(axis=1)).tolist())
        forms = np.unique(np.column_stack([kinds, absent]), axis=0, return_inverse=True)[1]
        self.forms = forms.ravel()  # equal for leaves that are alike; NumPy 2.0 gives a column
        self.alike = len(set(self.forms[self.regular].tolist())) <= 1
        self.kernels: dict[Any, Any] = {}  # by the form of a leaf, and by which of its coefficients are 1
        self.starts = starts_of(sizes)
        self.rows = np.zeros(sizes.size, np.int64)


class LeafGroup(NamedTuple):
    """Leaves that share their coefficients and one kernel."""

    leaves: Any  # their indices
    c: Any
    numbers: list[float]  # the coefficients in the kernel's order
    ones: tuple[bool, ...]  # which of them are a Python 1, on which it depends what is compiled


Calls = dict[Any, list[LeafGroup]]


class TableFuser(Fuser):
    """Steps leaves by kernels that find their arrays in a table.

    Parameters
    ----------
    rule
        Any rule.
    memory
        The arrays of the library.
    kernels
        Makes a kernel of a program and of what else decides it.
    """

    def __init__(self, rule: Rule[Any, Any], memory: Memory, kernels: Callable[..., Any]) -> None:
        super().__init__(rule, memory)
        self.kernels = Compiled(rule, kernels)

    def groups(self, work: Work, layout: Layout) -> list[LeafGroup]:
        """The regular leaves, by what they share. Evaluates, and so checks, their hyperparameters."""
        shared: list[Any] = [] if layout.alike else [layout.forms]
        if not work.shared:
            shared.append(list(map(id, work.hyper)))
        for at, *_ in self.rule.carried_at:
            column = [x if type(x) is float else id(x) for x in work.slots[at]]
            if len(set(column)) > 1:
                shared.append(column)
        groups = []
        for indices in _alike(layout.regular, shared):
            first = indices.item(0)
            if first in layout.lacking:
                work.leaf(first)  # refuses a None that the hyperparameters do not mean
            c, plain = work.coefficients(first, work.typed(first))
            numbers = numbers_of(c)
            none = plain and 1.0 not in numbers  # as mostly
            ones = (False,) * len(numbers) if none else tuple([type(x) is float and x == 1.0 for x in numbers])
            groups.append(LeafGroup(indices, c, numbers if plain else list(map(float, numbers)), ones))
        return groups

    def calls(self, work: Work, layout: Layout, groups: Sequence[LeafGroup], how: Callable[[int], Hashable]) -> Calls:
        """The groups by the kernel that steps them; ``how`` says of a leaf what else decides it. Compiles those that are new."""
        calls: Calls = {}
        for group in groups:
            i = group.leaves.item(0)
            key = layout.forms.item(i), group.ones
            kernel = layout.kernels.get(key)
            if kernel is None:
                slots = [x[i] for x in work.slots]
                for at, *_ in self.rule.carried_at:
                    slots[at] = 1.0
                kernel = layout.kernels[key] = self.kernels.of(slots, group.c, how(i))
            calls.setdefault(kernel, []).append(group)
        return calls

    def fresh(self, work: Work, layout: Layout) -> list[list[Any]]:
        """The columns of the new state, still to be filled: like the old ones, but that odd leaves stay what they are."""
        return [
            list(column) if name in self.rule.carried else self._fresh(column, layout)
            for name, column in zip(("params", *self.rule.slots), (work.params, *work.slots), strict=True)
        ]

    def _fresh(self, column: Sequence[Any], layout: Layout) -> list[Any]:
        like = self.memory.empty_like
        if layout.odd or layout.lacking or isinstance(column[0], tuple):
            odd = set(layout.odd)
            return [x if i in odd else each(like, x) for i, x in enumerate(column)]
        return list(map(like, column))

    def carry(self, work: Work, new: list[Any], groups: Sequence[LeafGroup], odd: dict[int, TypedLeaf]) -> None:
        """Puts into the columns of the new state the next values of slots that hold numbers, which are among the coefficients."""
        for at, name, _ in self.rule.carried_at:
            column: list[Any] = [getattr(groups[0].c, name) if groups else None] * len(work.params)
            for group in groups[1:]:
                for i in group.leaves.tolist():
                    column[i] = getattr(group.c, name)
            for i, leaf in odd.items():
                column[i] = getattr(leaf.c, name)
            new[1 + at] = column


def starts_of(sizes: Any) -> Any:
    """Where each leaf begins among all numbers, and their count."""
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    return starts


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
