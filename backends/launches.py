"""Fused steps in a device's memory: which leaves a kernel steps together, and what is refused before it is launched."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

from xopt.backends.donation import Places, giving, refuse_donated
from xopt.backends.forms import Compiled, filled
from xopt.backends.fusing import Leaf, Work, one_library, refuse_unfit
from xopt.program import Program, numbers_of
from xopt.rule import Rule


class Arrays(NamedTuple):
    """Those of one leaf."""

    old: list[Any]  # in the order of ``Program.arrays``: params, the slots that are there, grad
    new: list[Any]  # in the order of ``Program.writes``: without grad


class Cell(NamedTuple):
    """Leaves that share a kernel and its coefficients."""

    leaves: list[Arrays]
    c: Sequence[float]


Launch = Callable[[], None]


class Kernels(Protocol):
    """What is compiled of a program for one dtype of params."""

    def __init__(self, program: Program, dtype: str) -> None: ...

    def prepared(self, cells: Sequence[Cell]) -> Iterable[Launch]:
        """The launches that step these leaves, compiled, so that nothing that can be refused is left."""


class DeviceFuser(ABC):
    """Steps a rule on arrays of one device by kernels that are launched there."""

    dtypes: Mapping[Any, str]
    """The dtypes of params that there are kernels for, with their names."""

    def __init__(self, rule: Rule[Any, Any], kernels: type[Kernels]) -> None:
        self.rule = rule
        self._kernels = Compiled(rule, kernels)

    @abstractmethod
    def unfit(self, x: Any) -> str | None:
        """What an array is where it is more, or other, than its numbers in memory."""

    @abstractmethod
    def look(self, x: Any) -> tuple[int, int, tuple[int, ...], int]:
        """The first address of an array and the one after its last, its strides, and the width of a number in them."""

    @abstractmethod
    def device(self, x: Any) -> Any:
        """Where an array is."""

    @abstractmethod
    def on(self, x: Any) -> AbstractContextManager[Any]:
        """A block that launches where an array is."""

    def numbers(self, x: Any) -> Any:
        """The array, or a copy of it, of which the memory holds the numbers."""
        return x

    @abstractmethod
    def empty_like(self, x: Any) -> Any:
        """A new array of the same shape, dtype and, if it has no gaps, layout."""

    @abstractmethod
    def alias(self, x: Any) -> Any:
        """Another array with the same memory."""

    def check(self, work: Work) -> None:  # noqa: B027 - most forbid nothing
        """Raises for what the library forbids to step."""

    def refuse_unwritable(self, work: Work, i: int) -> None:  # noqa: B027
        """Raises ValueError where an array of leaf ``i`` cannot be written over."""

    def wrote(self, arrays: Iterable[Any]) -> None:  # noqa: B027 - most count nothing
        """Told what was written to, where the library counts that."""

    def __call__(self, work: Work) -> Sequence[Sequence[Any]]:
        refuse_donated(work)
        self.check(work)
        one_library(work, self.device)
        leaves = list(work.leaves())
        for i, leaf in enumerate(leaves):
            if leaf.typed.dtype not in self.dtypes:
                known = ", ".join(self.dtypes.values())
                msg = f"{work.where(i)} is {leaf.typed.dtype}, which the kernels do not know; they know {known}"
                raise TypeError(msg)
        refuse_unfit(work, self.unfit)
        if work.donate:
            self._refuse_overlap(work, leaves)
        new = [leaf.arrays for leaf in leaves]
        with self.on(work.params[0]):
            if not work.donate:
                new = [list(map(self.empty_like, leaf.arrays)) for leaf in leaves]
            old = [[self.numbers(x) for x in (*leaf.arrays, leaf.grad)] for leaf in leaves]
            arrays = list(map(Arrays, old, new))
            launches = [launch for kernels, cells in self._cells(leaves, arrays) for launch in kernels.prepared(cells)]
            with giving(work) if work.donate else nullcontext():
                for launch in launches:
                    launch()
        columns = list(zip(*[filled(leaf, own) for leaf, own in zip(leaves, new, strict=True)], strict=True))
        if work.donate:
            self.wrote(x for row in new for x in row)
            return work.renewed(columns, self.alias)
        return columns

    def _refuse_overlap(self, work: Work, leaves: Sequence[Leaf]) -> None:
        places = Places.empty(len(leaves), max(len(leaf.arrays) for leaf in leaves))
        for i, leaf in enumerate(leaves):
            self.refuse_unwritable(work, i)
            places.put(work, i, leaf.arrays, leaf.grad, self.look)
        places.refuse_overlap(work)

    def _cells(self, leaves: Sequence[Leaf], arrays: Sequence[Arrays]) -> Iterable[tuple[Kernels, list[Cell]]]:
        """What each kernel steps. Empty leaves need none."""
        alike: dict[Any, list[int]] = {}
        for i, kernels in enumerate(self._kernels.each(leaves, [self.dtypes[leaf.typed.dtype] for leaf in leaves])):
            if 0 not in leaves[i].params.shape:
                alike.setdefault((kernels, id(leaves[i].c)), []).append(i)
        cells: dict[Kernels, list[Cell]] = {}
        for (kernels, _), indices in alike.items():
            cells.setdefault(kernels, []).append(Cell([arrays[i] for i in indices], numbers_of(leaves[indices[0]].c)))
        return cells.items()
