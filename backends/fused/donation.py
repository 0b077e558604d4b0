"""States that are given away: what cannot be written over is refused before anything is, and marked before it is written."""

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from xopt.arrays import GIVEN_AWAY
from xopt.backends.fused.fallback import CompileError
from xopt.trees import path_of

if TYPE_CHECKING:
    from xopt.backends.fused.work import Work

WAY_OUT = "fuse without donate takes it"


class _Mark(weakref.ref[Any]):
    """That an array was given away, which is known by its identity as long as it lives."""

    __slots__ = ("finished", "key", "work")
    finished: bool
    key: int
    work: Any  # None, once it is done

    # a ``with`` block in which a state is written over: it is marked before, and for good

    def __enter__(self) -> None:
        if GIVEN_AWAY.setdefault(self.key, self) is not self:
            with _replacing:
                known = _find(self(), GIVEN_AWAY)
                if known is not None:  # another thread was here
                    _refuse_marked(self.work, 0, known)
                GIVEN_AWAY[self.key] = self  # that mark is of an array that is gone

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        work, self.work = self.work, None
        self.finished = kind is None
        if isinstance(error, CompileError):  # nothing is written
            del GIVEN_AWAY[self.key]
        elif kind is not None:
            for i in range(len(work.params)):
                for x in work.written(i):
                    _halves[id(x)] = _mark(x, _not_half)


_halves: dict[int, _Mark] = {}  # all arrays of the states over which a step did not end
_replacing = threading.Lock()


def _not_given(mark: _Mark) -> None:
    GIVEN_AWAY.pop(mark.key, None)


def _not_half(mark: _Mark) -> None:
    _halves.pop(mark.key, None)


def _mark(x: Any, forget: Callable[[_Mark], Any], work: Any = None) -> _Mark:
    mark = _Mark(x, forget)
    mark.key, mark.work, mark.finished = id(x), work, False
    return mark


def _find(x: Any, marks: dict[int, _Mark]) -> _Mark | None:
    mark = marks.get(id(x))
    return mark if mark is not None and mark() is x else None


def giving(work: "Work") -> AbstractContextManager[None]:
    """A ``with`` block in which the state of a step is written over."""
    return _mark(work.token, _not_given, work)


def refuse_donated(work: "Work") -> None:
    """Raises ValueError where the state was donated before. One of its arrays tells: what a donating step returns has another."""
    mark = GIVEN_AWAY.get(id(work.token))  # as ``_find``, without a call: a small step takes a hundredth less
    if mark is not None and mark() is work.token:
        _refuse_marked(work, 0, mark)
    if _halves:
        for i in range(len(work.params)):
            for x in work.written(i):
                half = _find(x, _halves)
                if half is not None:
                    _refuse_marked(work, i, half)


def mark_donated(x: Any) -> None:
    """Remembers that a state, by which ``x`` is known, was given away: to a step of another library's making."""
    GIVEN_AWAY[id(x)] = mark = _mark(x, _not_given)
    mark.finished = True


def _refuse_marked(work: "Work", i: int, mark: _Mark) -> NoReturn:
    what = "was donated to an earlier step, which wrote the new state over it; go on with what that step returned"
    if not mark.finished:
        what = (
            "or a slot of it was donated to a step that has not ended, so that it is half written; go back to a state that you kept"
        )
    msg = f"{work.where(i)} {what}"
    raise ValueError(msg)


# What can be written over.


def refuse_folded(work: "Work", i: int, shape: Sequence[int], strides: Sequence[int], width: int) -> None:
    """Raises ValueError where numbers of an array of leaf ``i`` may share memory with each other: it is broadcast, or overlaps.

    ``width`` is that of a number, in the units of the strides.
    """
    reach = 0
    for stride, n in sorted((abs(stride), n) for stride, n in zip(strides, shape, strict=True) if n > 1):
        if stride < reach + width and 0 not in shape:
            what = "is broadcast, or overlaps with itself"
            msg = f"{work.where(i)} or a slot of it {what}, so that it cannot be donated; {WAY_OUT}"
            raise ValueError(msg)
        reach += (n - 1) * stride


class Piece(NamedTuple):
    """A piece of memory."""

    start: int
    stop: int
    owner: int
    written: bool
    leaf: int = 0


def overlapping(pieces: Iterable[Piece]) -> tuple[Piece, Piece] | None:
    """Two that overlap, of different owners, of which one is written; None where none do."""
    reaching: list[Piece] = []
    for piece in sorted(one for one in pieces if one.start < one.stop):
        reaching = [one for one in reaching if one.stop > piece.start]
        for one in reaching:
            if one.owner != piece.owner and (one.written or piece.written):
                return one, piece
        reaching.append(piece)
    return None


class Places:
    """Where in memory the arrays of a tree are that a donating step writes, and its gradients: leaf by leaf, the gradient last."""

    def __init__(self, starts: Any, stops: Any) -> None:
        self.starts = starts
        self.stops = stops
        self.alike = np.ones(len(starts), bool)  # whether all arrays of a leaf have the same strides

    @classmethod
    def empty(cls, leaves: int, columns: int) -> "Places":
        starts, stops = np.zeros((2, leaves, columns), np.int64)
        return cls(starts, stops)

    def put(self, work: "Work", i: int, arrays: Sequence[Any], look: Any) -> None:
        """Notes leaf ``i``, None where there is no array. Raises ValueError where one of them cannot be written over.

        ``look`` tells of an array: its first address and the one behind its last, its strides, and the width of a number in them.
        """
        *_, of_grad, _ = look(arrays[-1])
        self.starts[i] = self.stops[i] = 0
        for j, x in enumerate(arrays):
            if x is None:
                continue
            self.starts[i, j], self.stops[i, j], strides, width = look(x)
            if j < len(arrays) - 1:
                refuse_folded(work, i, x.shape, strides, width)
            self.alike[i] &= tuple(strides) == tuple(of_grad)

    def moved(self, by: Any) -> "Places":
        """Those of arrays of the same forms that are so many bytes further on."""
        places = Places(self.starts + by, self.stops + by)
        places.alike = self.alike
        return places

    def refuse_overlap(self, work: "Work") -> None:
        """Raises ValueError where what is written overlaps with something else.

        A gradient is only read. It may be an array of its own leaf, as each number is read before it is written, if all arrays
        of the leaf have the same strides.
        """
        starts, stops = self.starts, self.stops
        there = stops > starts
        leaf, column = np.nonzero(there[:, :-1])
        begin, end = starts[leaf, column], stops[leaf, column]
        order = np.argsort(begin)
        begin, end, leaf = begin[order], end[order], leaf[order]
        pairs = np.flatnonzero(begin[1:] < end[:-1])
        clash = [(int(leaf[pairs[0]]), int(leaf[pairs[0] + 1]))] if pairs.size else []
        if not clash and begin.size:
            same = (starts[:, :-1] == starts[:, -1:]) & (stops[:, :-1] == stops[:, -1:])
            own = same.any(axis=1) & self.alike
            grads = np.flatnonzero(there[:, -1] & ~own)
            last = np.searchsorted(begin, stops[grads, -1]) - 1  # the last array that begins before the gradient ends
            over = (last >= 0) & (end[last] > starts[grads, -1])
            clash = [(int(leaf[last[k]]), int(grads[k])) for k in np.flatnonzero(over)[:1]]
        if clash:
            refuse_shared(work, *clash[0])


def refuse_shared(work: "Work", i: int, other: int) -> NoReturn:
    """Raises ValueError: leaf ``i`` cannot be written over for the sake of the ``other``."""
    msg = (
        f"{work.where(i)} or a slot of it shares memory with params{path_of(work.call.spec, other)}, its slots or its gradient, "
        "so that one would be written over the other; fuse without donate takes them"
    )
    raise ValueError(msg)
