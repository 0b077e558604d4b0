"""What takes the steps that a compiler cannot make: only speed is lost."""

from collections.abc import Callable
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
        return self._taken(lambda step: step(work))

    def in_place(self, work: Any) -> Callable[[], Any]:
        """What ``first`` has prepared; should it not compile when it is launched, what takes its place is."""

        def prepared(step: Any) -> Callable[[], Any]:
            return getattr(step, "in_place", step)(work)  # type: ignore[no-any-return]

        launch, by = self._taken(prepared), self._step
        return lambda: self._taken(lambda step: launch() if step is by else prepared(step)())

    def _taken(self, take: Callable[[Callable[..., Any]], Any]) -> Any:
        try:
            return take(self._step)
        except CompileError as error:
            if self._step is not self.first:
                raise
            reason = str(error)
        say_once(self._what.format(reason=reason))
        self._step = self._other()
        return take(self._step)


def short(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
