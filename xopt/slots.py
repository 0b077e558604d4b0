"""The schema of a state, and the one walk through it: a slot of a leaf is an array, None, a tuple of those, or a number."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Slot(NamedTuple):
    """One slot: what it starts from, and what decides that it exists."""

    name: str
    decay: str | None = None  # the decay of its zeros, without which it remembers nothing: where that is 0 at init it is None
    several: bool = False  # a tuple, with one array for each of a sequence of decays
    number: float | None = None  # the Python number that it starts as, and that a step carries on


class Schema:
    """The slots of a rule, in the order of its state."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self._slots = tuple(slots)
        self.several = any(slot.several for slot in self._slots)
        self.of_arrays = [i for i, slot in enumerate(self._slots) if slot.number is None]
        self._one_each = not any(slot.several or slot.number is not None for slot in self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def full(self, hyper: Mapping[str, Any]) -> list[Any]:
        """Slots of a leaf in which everything is there: True stands for an array."""
        return [_whole(slot, hyper) for slot in self]

    def arrays(self, row: Sequence[Any], like: Sequence[Any] | None = None) -> list[Any]:
        """The arrays among the params and slots of a leaf: those that are there in ``like``, by default in the row itself."""
        found: list[Any] = []
        for slot, x, form in zip((_PARAMS, *self), row, like or row, strict=True):
            if slot.number is None:
                pairs = zip(x, form, strict=True) if isinstance(form, tuple) else [(x, form)]
                found += [one for one, there in pairs if there is not None]
        return found

    def filled(self, like: Sequence[Any], arrays: Iterable[Any], numbers: Mapping[str, Any]) -> list[Any]:
        """Params and slots of the form that ``like`` has, from their arrays in order and their numbers by name."""
        rest = iter(arrays)
        return [
            each(lambda _: next(rest), form) if slot.number is None else numbers[slot.name]
            for slot, form in zip((_PARAMS, *self), like, strict=True)
        ]

    def columns(self, slots: Iterable[Sequence[Any]]) -> Iterable[Sequence[Any]]:
        """The arrays of many leaves, given each slot of all of them: a column for each place of a tuple, and none of numbers."""
        return slots if self._one_each else self._columns(slots)

    def _columns(self, slots: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
        for slot, column in zip(self, slots, strict=True):
            if slot.several:
                yield from _unzipped(column)
            elif slot.number is None:
                yield column

    def form(self, slots: Sequence[Any]) -> tuple[Any, ...]:
        """Which slots, and which places of a tuple, are None: of what a step consists depends on that alone."""
        return tuple([tuple([x is None for x in slot]) if isinstance(slot, tuple) else slot is None for slot in slots])


_PARAMS = Slot("params")


def _whole(slot: Slot, hyper: Mapping[str, Any]) -> Any:
    if slot.number is not None:
        return slot.number
    return (True,) * len(hyper[slot.decay or ""]) if slot.several else True


def each(function: Callable[..., Any], slot: Any, *beside: Any) -> Any:
    """A function of the array of a slot, and of what stands beside it, or of each array of a tuple. None stays None."""
    if isinstance(slot, tuple):
        return tuple([each(function, *row) for row in zip(slot, *beside, strict=True)])
    return None if slot is None else function(slot, *beside)


def _unzipped(column: Sequence[Any]) -> list[Sequence[Any]]:
    """A column of tuples as one for each of their places; what is no such tuple goes with no array, and is refused."""
    length = len(column[0])
    alike = [x if isinstance(x, tuple) and len(x) == length else (column,) * length for x in column]
    return list(zip(*alike, strict=True))
