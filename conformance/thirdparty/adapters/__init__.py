"""Adapters: how an optimizer of each kind is made, stepped and read. Each says what it can do."""

import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

Leaves = list[Any]
"""A NumPy array for each leaf of the parameters."""


class Adapter:
    """One optimizer of some library in one state.

    ``arguments`` has what it can be given and the defaults, as far as they are plain; None where there is no default.
    """

    library: ClassVar[str] = ""
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")
    leaves: bool = True  # whether it takes several at once
    groups: ClassVar[bool] = False  # whether leaves may have other hyperparameters
    changes: bool = True  # whether the learning rate may change from step to step
    resumes: ClassVar[bool] = False  # whether it can be saved and loaded

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make
        self.arguments = arguments_of(make)
        self.arrays: list[Any] = []  # the parameters, as the optimizer has them
        self.grads: list[Any] = []  # those of the last step, as the optimizer got them
        self.inputs: list[tuple[str, Any, Any]] = []  # what else it got and may not write to: name, value, and a copy before

    def start(self, leaves: Leaves, dtype: str, given: Sequence[dict[str, Any]]) -> None:
        """A new optimizer of new parameters. ``given`` has the arguments, once for each leaf where they differ, else once."""
        raise NotImplementedError

    def step(self, grads: Leaves, changed: dict[str, Any]) -> None:
        """One step, with arguments that change from here on."""
        raise NotImplementedError

    def idle(self, grads: Leaves, steps: int, seconds: float) -> int:
        """Many steps with gradients of 0, or as many as there is time for; how many."""
        self.step(grads, {})
        if self.skip(steps - 1):
            return steps
        until, taken = time.monotonic() + seconds, 1
        while taken < steps and time.monotonic() < until:
            self.step(grads, {})
            taken += 1
        return taken

    def skip(self, steps: int) -> bool:  # noqa: ARG002 - here there is none
        """Sets the count so many steps on; False where there is none that can be set."""
        return False

    def params(self) -> Leaves:
        return list(map(self.numpy, self.arrays))

    def param_dtypes(self) -> list[str]:
        return list(map(self.dtype_of, self.arrays))

    def state(self) -> dict[str, list[Any]]:
        """What can be read of its memory: by name, for each leaf."""
        return {}

    def resume(self) -> None:
        """Takes a new optimizer in place of the old one, with what that has saved."""
        raise NotImplementedError

    def numpy(self, x: Any) -> Any:
        """A native array as NumPy's, float64 where NumPy has not its dtype."""
        return np.asarray(x)

    def dtype_of(self, x: Any) -> str:
        return str(x.dtype)


def arguments_of(make: Callable[..., Any], skip: Sequence[str] = ("self", "params", "grad", "grads", "state")) -> dict[str, Any]:
    """The names of a signature with their defaults, where they can be written down."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return {}
    usual = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in skip]
    return {p.name: _plain(p.default) for p in usual}


def takes_any(make: Callable[..., Any]) -> bool:
    """Whether it takes arguments of any name."""
    try:
        return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(make).parameters.values())
    except (TypeError, ValueError):
        return False


def _plain(x: Any) -> Any:
    if isinstance(x, tuple | list):
        return [_plain(item) for item in x]
    return x if isinstance(x, bool | int | float | str) else None
