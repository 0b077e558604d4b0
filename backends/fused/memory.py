"""What a fused step must know of the arrays of a library: where their numbers are, and whether they are nothing more."""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from xopt.backends.fused.work import Work


class Memory(ABC):
    """The arrays of a library, as places in memory."""

    @abstractmethod
    def form(self, x: Any) -> Hashable:
        """All of an array but its numbers and its address: what checks found of one holds of those of the same form.

        Of what is no ordinary array an object that equals no other, so that it is looked at each time.
        """

    def forms(self, arrays: list[Any]) -> list[Hashable]:
        """The form of each array, and None for None; or other objects, which are equal where all forms are."""
        return [None if x is None else self.form(x) for x in arrays]

    @abstractmethod
    def address(self, x: Any) -> int:
        """Where the first number of an array is."""

    @abstractmethod
    def look(self, x: Any) -> tuple[int, int, tuple[int, ...], int]:
        """The first address of an array and the one behind its last, its strides, and the width of a number in them."""

    def places(self, x: Any) -> list[tuple[Any, int, int]]:
        """Where the parts of an array are: for each its device, its first address and the one behind its last."""
        start, stop, *_ = self.look(x)
        return [(str(self.device(x)), start, stop)]

    @abstractmethod
    def unfit(self, x: Any) -> str | None:
        """What an array is where it is more, or other, than its numbers in memory."""

    @abstractmethod
    def empty_like(self, x: Any) -> Any:
        """A new array of the same shape, dtype and, if it has no gaps, layout."""

    @abstractmethod
    def alias(self, x: Any) -> Any:
        """Another array with the same memory."""

    def numbers(self, x: Any) -> Any:
        """The array, or a copy of it, of which the memory holds the numbers."""
        return x

    def device(self, x: Any) -> Any:  # noqa: ARG002 - all arrays of a library of CPUs are on one
        """Where an array is."""
        return "cpu"

    def on(self, x: Any) -> AbstractContextManager[Any]:  # noqa: ARG002 - as above
        """A block that allocates and computes where an array is."""
        return nullcontext()

    def check(self, work: Work) -> None:  # noqa: B027 - most forbid nothing
        """Raises for what the library forbids to step."""

    def refuse_unwritable(self, work: Work, i: int) -> None:  # noqa: B027 - in most all can
        """Raises ValueError where an array of leaf ``i`` cannot be written over."""

    def wrote(self, arrays: list[Any]) -> None:  # noqa: B027 - most count nothing
        """Told what will be written to, where the library counts that."""


def anything() -> Hashable:
    """A form that equals no other."""
    return object()
