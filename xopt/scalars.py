"""Numbers that depend on the hyperparameters and the step count alone: bias corrections and warm-ups.

Each function takes Python numbers (the exact path: float64, IEEE operations only, so the same bits on every platform) or
0-d arrays (a step count or hyperparameter traced by a compiler: the same formula, to rounding, in the array's dtype).
Complements ``1 - beta`` are carried, never ``beta`` itself: near 1 that is where the digits are.
"""

import math
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from typing import Any

from xopt.operations import namespace

Scalar = Any
"""A Python number, or a 0-d array while a compiler traces."""


def is_host(*values: Scalar) -> bool:
    """Whether all ``values`` are Python numbers, so that they can be compared and branched on."""
    return all(isinstance(value, (int, float)) for value in values)


def power_complement(beta: Scalar, t: Scalar) -> Scalar:
    """``1 - beta**t`` for a step count t >= 1, without cancellation.

    Repeated squaring in complements: with ``a = 1 - x`` and ``b = 1 - y``, ``1 - x*y = a + b*(1 - a)``, a sum of positive terms.
    """
    if is_host(beta) and beta == 0:
        return 1.0
    if not isinstance(t, int):
        return exp_complement(t * -log(beta))
    square = 1.0 - beta
    result = 0.0
    while True:
        if t & 1:
            result = result + square * (1.0 - result)
        t >>= 1
        if not t:
            return result
        square = square * (2.0 - square)


_HALVINGS = 10
_TAYLOR = [(-1.0) ** (k + 1) / math.factorial(k) for k in range(9, 0, -1)]


def exp_complement(x: Scalar) -> Scalar:
    """``1 - exp(-x)`` for x >= 0, with + - * only, to a few units in the last place.

    A Taylor polynomial at ``x / 2**10``, at most 1/16, where the terms left out are below 2**-57 of the sum; then ten squarings
    in complements. Beyond x = 64 the result is 1 in every dtype.
    """
    x = minimum(x, 64.0) * 2.0**-_HALVINGS
    series = 0.0
    for term in _TAYLOR:
        series = series * x + term
    result = x * series
    for _ in range(_HALVINGS):
        result = result * (2.0 - result)
    return result


def log(x: Scalar) -> Scalar:
    """Natural logarithm: of a Python number correctly rounded (by ``decimal``, on every platform), of an array by its library."""
    return _rounded_log(float(x)) if is_host(x) else namespace(x).log(x)


@lru_cache(maxsize=256)
def _rounded_log(x: float) -> float:
    # a context of its own throughout: the caller's may trap floats, or have little room
    exact = Context(prec=40, rounding=ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999, clamp=0, flags=[], traps=[])
    return float(Decimal.from_float(x).ln(exact))  # noqa: FURB164 - Decimal(x) asks the caller's context


def linear_warmup(end: Scalar, t: Scalar, steps: Scalar | None) -> Scalar:
    """``end * t / steps`` while t < steps, and ``end`` itself from then on. ``steps`` of None or 0: no warm-up."""
    if steps is None or (is_host(steps) and steps == 0):
        return end
    if is_host(t, steps):
        return end if t >= steps else end * (t / steps)
    return end * minimum(_fraction(t, steps), 1.0)


def half_life_warmup(start: Scalar, end: Scalar, t: Scalar, steps: Scalar | None) -> Scalar:
    """``1 - beta(t)`` while beta goes from ``start`` to ``end`` with its time constant ``-1/ln(beta)`` linear in t.

    This is AdEMAMix's scheduler (linear in the half-life) in closed form: ``1/ln beta(t) = (1-mu)/ln start + mu/ln end`` with
    ``mu = t/steps``. From t >= steps on the result is ``1 - end`` itself. A ``start`` of 0 has time constant 0.
    """
    if steps is None or (is_host(steps) and steps == 0) or (is_host(t, steps) and t >= steps):
        return 1.0 - end
    mu = minimum(_fraction(t, steps), 1.0)
    time = (1.0 - mu) * _time_constant(start) + mu * _time_constant(end)
    gain = exp_complement(1.0 / maximum(time, 1.0 / 64.0))  # a shorter memory is none, and 0 too
    if is_host(t, steps):
        return gain
    return where(t >= steps, 1.0 - end, gain)


def _fraction(t: Scalar, steps: Scalar) -> Scalar:
    """``t / steps`` in the dtype of what is an array: CuPy 13 would take an integer from 65,536 on for float64."""
    return (float(t) if is_host(t) and not is_host(steps) else t) / steps


def _time_constant(beta: Scalar) -> Scalar:
    if is_host(beta):
        return -1.0 / log(beta) if beta > 0 else 0.0
    remembers = beta > 0
    return where(remembers, -1.0 / log(where(remembers, beta, 0.5)), 0.0)


def minimum(x: Scalar, limit: float) -> Scalar:
    return min(x, limit) if is_host(x) else namespace(x).minimum(x, limit)


def maximum(x: Scalar, limit: float) -> Scalar:
    return max(x, limit) if is_host(x) else namespace(x).maximum(x, limit)


def where(condition: Any, x: Scalar, y: Scalar) -> Scalar:
    """``x`` where the 0-d boolean array ``condition`` holds, else ``y``; at least one of the two is an array."""
    return namespace(condition).where(condition, x, y)
