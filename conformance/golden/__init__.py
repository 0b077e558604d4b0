"""The golden reference: each rule written again from its paper, on plain numbers, sharing nothing with `xopt.rules`.

A golden is a text of two functions. ``initial(n, params, **hyper)`` gives the state before the first step and
``step(n, params, *slots, grad, t, **hyper)`` the state after the step number t = 1, 2, ...; both are tuples of params
and slots. ``n`` is the arithmetic (see `xopt.conformance.numbers`) and everything but t is a number of it, the
hyperparameters too. These are all passed: the values in the signature are the golden's own word on the defaults, with which
a rule's are compared. It may use + - * /, integer powers and what ``n`` has, and branch on t, on
None and on whether a hyperparameter is 0, never on a value: so that the same text runs on any numbers, arrays included.
It keeps every slot, also where a decay of 0 makes it idle.
"""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from xopt.conformance.arithmetic.numbers import Arithmetic, Number
from xopt.rules import RULES


class Golden(NamedTuple):
    name: str
    step: Callable[..., tuple[Any, ...]]
    slots: tuple[str, ...]
    defaults: dict[str, Any]
    initial: Callable[..., tuple[Any, ...]]


def golden_of(module: ModuleType) -> Golden:
    """Reads the names off the text itself: between params and grad stand the slots, behind the star the hyperparameters."""
    arguments = inspect.signature(module.step).parameters.values()
    names = [p.name for p in arguments if p.kind is not p.KEYWORD_ONLY]
    defaults = {p.name: p.default for p in arguments if p.kind is p.KEYWORD_ONLY}
    slots = tuple(names[names.index("params") + 1 : names.index("grad")])
    return Golden(module.__name__.rpartition(".")[2], module.step, slots, defaults, module.initial)


GOLDENS: dict[str, Golden] = {name: golden_of(import_module(f"{__name__}.{name}")) for name in RULES}
"""The golden of each rule: the file of its name."""


def start(golden: Golden, n: Arithmetic, params: Number, hyper: Mapping[str, Any]) -> tuple[Any, ...]:
    """Params and slots before the first step."""
    return golden.initial(n, params, **hyper)


def lift(n: Arithmetic, hyper: Mapping[str, Any]) -> dict[str, Any]:
    """``hyper`` as a golden wants it: numbers of ``n``, but for warm-ups, which are counts of steps."""

    def number(name: str, value: Any) -> Any:
        if name.endswith("_warmup"):
            return value
        return tuple(map(n.number, value)) if isinstance(value, tuple | list) else n.number(value)

    return {name: number(name, value) for name, value in hyper.items()}
