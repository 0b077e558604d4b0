"""The checks of the suite itself: how one is declared, and what it raises."""

from collections.abc import Callable
from typing import Any, NamedTuple


class SelfCheckError(AssertionError):
    """The suite does not say what it must."""


def must(truth: Any, what: str) -> None:
    if not truth:
        raise SelfCheckError(what)


class Check(NamedTuple):
    name: str
    function: Callable[[], None]


CHECKS: list[Check] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(Check(function.__name__.replace("_", " "), function))
    return function
