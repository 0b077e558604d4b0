"""Numbers that carry their derivative with respect to what a step is given: its gradient, its params and each of its slots."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from xopt.program import COMPARISONS, OPERATIONS


class Sloped(NamedTuple):
    """A number, or one for each step of a run, and its derivative by the name of what it is taken with respect to.

    What is not named has no influence.
    """

    value: Any
    slopes: Mapping[str, Any] = {}


def functions(held: bool) -> dict[str, Callable[..., Sloped]]:
    """What a program may do, for such numbers.

    Where the scale of a step is ``held``, what divides has no derivative, and a sign is a number over its size: the step is then a
    weighted sum of the gradients, and the derivatives are its weights.
    """
    return {name: _lifted(function) for name, function in (_HELD if held else _WHOLE).items()}


def _lifted(function: Callable[..., Sloped]) -> Callable[..., Sloped]:
    return lambda *operands: function(*[x if isinstance(x, Sloped) else Sloped(x) for x in operands])


def _sum(*terms: tuple[Any, Sloped]) -> dict[str, Any]:
    """The derivative of a sum of numbers, each with a factor that has none. Without influence, not with one of 0 times NaN."""
    total: dict[str, Any] = {}
    for factor, x in terms:
        for name, slope in x.slopes.items():
            total[name] = total[name] + factor * slope if name in total else factor * slope
    return total


def _add(x: Sloped, y: Sloped) -> Sloped:
    return Sloped(x.value + y.value, _sum((1.0, x), (1.0, y)))


def _subtract(x: Sloped, y: Sloped) -> Sloped:
    return Sloped(x.value - y.value, _sum((1.0, x), (-1.0, y)))


def _multiply(x: Sloped, y: Sloped) -> Sloped:
    return Sloped(x.value * y.value, _sum((y.value, x), (x.value, y)))


def _divide(x: Sloped, y: Sloped) -> Sloped:
    value = np.divide(x.value, y.value)
    return Sloped(value, _sum((np.divide(1.0, y.value), x), (-value / y.value, y)))


def _divide_held(x: Sloped, y: Sloped) -> Sloped:
    return _divide(x, Sloped(y.value))


def _negative(x: Sloped) -> Sloped:
    return Sloped(-x.value, _sum((-1.0, x)))


def _sqrt(x: Sloped) -> Sloped:
    root = np.sqrt(x.value)
    return Sloped(root, _sum((np.divide(0.5, root), x)) if x.slopes else {})


def _abs(x: Sloped) -> Sloped:
    return Sloped(np.abs(x.value), _sum((np.sign(x.value), x)))


def _sign(x: Sloped) -> Sloped:
    return Sloped(np.sign(x.value))


def _sign_held(x: Sloped) -> Sloped:
    size = np.abs(x.value)
    return Sloped(np.sign(x.value), _sum((np.divide(1.0, size, out=np.zeros_like(size), where=size > 0), x)))


def _where(condition: Sloped, x: Sloped, y: Sloped) -> Sloped:
    chosen = np.asarray(condition.value)
    terms = (np.where(chosen, 1.0, 0.0), x), (np.where(chosen, 0.0, 1.0), y)
    return Sloped(np.where(chosen, x.value, y.value), _sum(*terms))


def _maximum(x: Sloped, y: Sloped) -> Sloped:
    return _where(Sloped(~(np.asarray(x.value) <= y.value)), x, y)


def _minimum(x: Sloped, y: Sloped) -> Sloped:
    return _where(Sloped(~(np.asarray(x.value) >= y.value)), x, y)


def _compared(name: str) -> Callable[..., Sloped]:
    return lambda x, y: Sloped(OPERATIONS[name](np.asarray(x.value), y.value))


_WHOLE: dict[str, Callable[..., Sloped]] = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "divide": _divide,
    "negative": _negative,
    "sqrt": _sqrt,
    "abs": _abs,
    "sign": _sign,
    "maximum": _maximum,
    "minimum": _minimum,
    "where": _where,
    **{name: _compared(name) for name in COMPARISONS},
}
_HELD = _WHOLE | {"divide": _divide_held, "sign": _sign_held}

NUMBERS = OPERATIONS | {"divide": lambda x, y: x / y if y else math.copysign(math.inf, y) * x if x else math.nan}
"""The same for Python numbers, with the divisions by 0 of IEEE 754."""
