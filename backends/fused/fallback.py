"""What takes the steps that a compiler cannot make: only speed is lost."""

from collections.abc import Callable
from functools import partial
from typing import Any

from xopt.backends.base import say_once


class CompileError(RuntimeError):
    """A compiler is there and does not compile. Raised before anything is written."""


class OrElse:
    """Takes the steps that ``first`` compiles; from the first one on for which it cannot, ``other`` takes them all.

    Parameters
    ----------
    first
        A fuser that raises CompileError.
    other
        Makes the fuser that takes its place.
    what
        What is said once then: ``{reason}`` in it is why.
    """

    def __init__(self, first: Callable[..., Any], other: Callable[[], Callable[..., Any]], what: str) -> None:
        self.first = first
        self._step = first
        self._other = other
        self._what = what

    def __call__(self, work: Any) -> Any:
        step = self._step
        try:
            return step(work)
        except CompileError as error:
            self._fall_back(step, error)
        return self._step(work)

    def in_place(self, work: Any) -> Callable[[], Any]:
        """What ``first`` has prepared; should it not compile, now or when it is launched, what takes its place is."""
        step: Any = self._step
        try:
            launch: Callable[[], Any] = _prepared(step, work)
        except CompileError as error:
            self._fall_back(step, error)
            return _prepared(self._step, work)
        return partial(self._launched, step, launch, work) if getattr(step, "compiles_late", True) else launch

    def _launched(self, step: Any, launch: Callable[[], Any], work: Any) -> Any:
        try:
            return launch()
        except CompileError as error:
            self._fall_back(step, error)
        return _prepared(self._step, work)()

    def _fall_back(self, step: Any, error: CompileError) -> None:
        """From now on the other takes the steps. Raises the error where it has failed itself."""
        if step is not self.first:
            raise error
        if self._step is step:
            say_once(self._what.format(reason=error))
            self._step = self._other()


def _prepared(step: Any, work: Any) -> Callable[[], Any]:
    """The launch of a fuser; what only says that it takes no step is called as it is."""
    launch: Callable[[], Any] = getattr(step, "in_place", step)(work)
    return launch


def short(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
