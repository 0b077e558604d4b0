"""Functions that torch.compile calls, rather than traces: it would trace the checks, and compile anew for each number."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def untraced(function: Callable[P, T], *, recursive: bool = True) -> Callable[P, T]:
    """A function that breaks a graph of torch.compile, so that it sees numbers. ``recursive``: so does what it calls."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        torch = sys.modules.get("torch")
        if torch is not None and torch.compiler.is_compiling():
            apart: Callable[P, T] = torch.compiler.disable(function, recursive=recursive)
            return apart(*args, **kwargs)
        return function(*args, **kwargs)

    return call
