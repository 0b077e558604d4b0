"""Schedules: functions of the count t of a step, 1 at the first, whose value is a hyperparameter of that step.

    schedule = xopt.schedules.warmup(xopt.schedules.cosine(1e-3, 1e-5, 9_000), 1_000)
    state = step(state, grad, lr=schedule(state.step + 1))

A schedule takes an int, a float, or a 0-d array. Of a number that is known it returns a Python float, by IEEE operations in one
written order, with no function of the platform's libm: the same bits everywhere. Of a count that JAX traces it returns a 0-d
array in the default dtype, by the same formula, to rounding. From its end on it returns the end value itself.
"""

import functools
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from xopt.checks import DOUBLE, Interval, Real, Steps, as_number, check_hyper, shown
from xopt.operations import has_dtype, is_array, namespace
from xopt.scalars import Scalar, exp_complement, is_host, maximum, minimum, where
from xopt.untraced import untraced

__all__ = ["Schedule", "chained", "constant", "cosine", "half_life", "linear", "warmup"]

FINITE: Interval = Real.__metadata__[0]
STEPS = Interval(Steps.__metadata__[0].text)
LIFE = Interval("(0, inf)")
LN2 = 0.6931471805599453
_BEYOND = 2**1023
"""Counts from here on are beyond every end, and beyond what a float holds."""


class Schedule:
    """A function of the count of steps, ``schedule(t)``, made by the functions of this module. Pickled by its numbers."""

    def __init__(self, name: str, at: Callable[..., Scalar], *numbers: Any) -> None:
        self.name = name
        self._at = functools.partial(at, *numbers)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self._at.args))})"

    def __call__(self, t: Any) -> Any:
        """The value at step t, 1 at the first; at 0 it is where the schedule starts.

        Raises
        ------
        TypeError, ValueError
            For a t that is no number or 0-d array, or below 0.
        """
        return self._value(t)

    @untraced
    def _value(self, t: Any) -> Any:
        return self._at(_count(self.name, t))


def _count(function: str, t: Any) -> Scalar:
    if type(t) is int and t >= 0:
        return t if t < _BEYOND else math.inf
    if is_array(t) and not t.ndim and has_dtype(t, ("integral", "real floating")) and as_number(t) is None:
        xp = namespace(t)
        return xp.astype(t, xp.asarray(0.0).dtype)
    check_hyper(function, "t", t, STEPS, DOUBLE)
    return as_number(t)


def _number(function: str, name: str, value: Any, interval: Interval) -> float:
    check_hyper(function, name, value, interval, DOUBLE)
    number = as_number(value)
    if number is None:
        msg = f"{function}: {name} must be a number, got {shown(value)}, which a compiler traces; make the schedule outside"
        raise TypeError(msg)
    return number


def constant(value: float) -> Schedule:
    """The same value at each step.

    Parameters
    ----------
    value
        A finite number.
    """
    return Schedule("constant", _constant, _number("constant", "value", value, FINITE))


def _constant(value: float, t: Scalar) -> Scalar:
    return value


def linear(start: float, end: float, steps: float) -> Schedule:
    """From ``start`` at t = 0 to ``end`` from t = ``steps`` on, in equal steps.

    Parameters
    ----------
    start, end
        Finite numbers.
    steps
        In [0, inf), a number of steps; 0 is at the end at once.

    Notes
    -----
    ``start * (steps - t) / steps + end * t / steps``: a value between the two, off by at most 4 roundings of the two terms.
    """
    return Schedule("linear", _linear, *_ends("linear", start, end, steps))


def _ends(function: str, start: float, end: float, steps: float) -> tuple[float, float, float]:
    numbers = _number(function, "start", start, FINITE), _number(function, "end", end, FINITE)
    return (*numbers, _number(function, "steps", steps, STEPS))


def _linear(start: float, end: float, steps: float, t: Scalar) -> Scalar:
    if steps == 0.0 or (is_host(t) and t >= steps):
        return end
    gone, left = _shares(steps, t)
    return _between(start, end, steps, t, left, gone)


def _shares(steps: float, t: Scalar) -> tuple[Scalar, Scalar]:
    """How much of the steps is gone, and how much is left: each is rounded once, or twice."""
    t = minimum(t, steps)
    return t / steps, (steps - t) / steps


def _between(start: float, end: float, steps: float, t: Scalar, left: Scalar, gone: Scalar) -> Scalar:
    """The mean of the ends with these weights; from ``steps`` on it is the end itself."""
    value = _mean(start, end, left, gone)
    return value if is_host(t) else where(t >= steps, end, value)


def _mean(start: float, end: float, left: Scalar, gone: Scalar) -> Scalar:
    """That of the ends, with these weights; no rounding leads out of them."""
    return minimum(maximum(start * left + end * gone, min(start, end)), max(start, end))


def cosine(start: float, end: float, steps: float) -> Schedule:
    """From ``start`` at t = 0 to ``end`` from t = ``steps`` on, along half a wave of a cosine, slowly at both ends.

    Parameters
    ----------
    start, end
        Finite numbers.
    steps
        In [0, inf), a number of steps; 0 is at the end at once.

    Notes
    -----
    ``end + (start - end) * (1 + cos(pi * t / steps)) / 2``, as in Loshchilov and Hutter, "SGDR", 2017, arXiv:1608.03983, eq. 5,
    without restarts. It is computed as a mean of both ends with the weights cos^2 and sin^2 of half the angle, of which a Taylor
    polynomial gives the smaller one: a value between the two, off by at most 16 roundings of the two terms.
    """
    return Schedule("cosine", _cosine, *_ends("cosine", start, end, steps))


def _cosine(start: float, end: float, steps: float, t: Scalar) -> Scalar:
    if steps == 0.0 or (is_host(t) and t >= steps):
        return end
    gone, left = _shares(steps, t)
    if is_host(t):
        small = _sine_squared(min(gone, left))
        weights = (1.0 - small, small) if gone < left else (small, 1.0 - small)
    else:
        small = _sine_squared(where(gone < left, gone, left))
        weights = where(gone < left, 1.0 - small, small), where(gone < left, small, 1.0 - small)
    return _between(start, end, steps, t, *weights)


_SINE = [(-1.0) ** k / math.factorial(2 * k + 1) for k in range(8, -1, -1)]


def _sine_squared(share: Scalar) -> Scalar:
    """``sin(pi/2 * share)**2`` for a share in [0, 1/2], with + - * only: a Taylor polynomial, to below 2**-60 at pi/4."""
    angle = share * (math.pi / 2)
    square = angle * angle
    series = 0.0
    for term in _SINE:
        series = series * square + term
    sine = series * angle
    return sine * sine


def half_life(start: float, steps: float, end: float = 0.0) -> Schedule:
    """From ``start`` at t = 0 towards ``end``: what is left of the way halves each ``steps``.

    Parameters
    ----------
    start, end
        Finite numbers.
    steps
        In (0, inf), a number of steps: the half-life. A factor of gamma each step has a half-life of ``-1 / log2(gamma)`` steps.

    Notes
    -----
    ``start * share + end * (1 - share)`` with ``share = 2 ** (-t / steps)``, off by at most 27 + 0.7 * t / steps roundings.
    """
    numbers = _number("half_life", "start", start, FINITE), _number("half_life", "steps", steps, LIFE)
    return Schedule("half_life", _half_life, *numbers, _number("half_life", "end", end, FINITE))


def _half_life(start: float, steps: float, end: float, t: Scalar) -> Scalar:
    lives = t / steps
    if is_host(t):
        whole = math.floor(min(lives, 2000.0))
        share = math.ldexp(1.0 - exp_complement((lives - whole) * LN2), -whole) if lives < 2000.0 else 0.0
    else:
        share = namespace(t).exp(-LN2 * lives)
    return _mean(start, end, share, 1.0 - share)


def warmup(peak: "float | Schedule", steps: float) -> Schedule:
    """From 0 at t = 0 in equal steps to ``peak`` at t = ``steps``, and on with it.

    Parameters
    ----------
    peak
        A finite number, or a schedule: it begins, as at its t = 0, where the warm-up ends.
    steps
        In [0, inf), a number of steps; 0 is no warm-up.
    """
    then = _schedule("warmup", "peak", peak)
    return Schedule("warmup", _warmup, then, _number("warmup", "steps", steps, STEPS))


def _warmup(then: Schedule, steps: float, t: Scalar) -> Scalar:
    return _chained([linear(0.0, then(0), steps), then], [steps], t)


def chained(schedules: "Sequence[float | Schedule]", boundaries: Sequence[float]) -> Schedule:
    """One schedule after another: the first while t is below the first boundary, and so on. Each counts from where it begins.

    Parameters
    ----------
    schedules
        Schedules, or finite numbers, which are constant: two or more.
    boundaries
        Numbers of steps that grow, one less than there are schedules: at t = a boundary the next one is at its t = 0.

    Raises
    ------
    TypeError, ValueError
        For what is no schedule, or not one boundary between each two, in order.
    """
    if not isinstance(schedules, Sequence) or not isinstance(boundaries, Sequence) or len(schedules) != len(boundaries) + 1:
        msg = f"chained: boundaries must be one less than schedules, got {shown(schedules)} and {shown(boundaries)}"
        raise TypeError(msg)
    parts = [_schedule("chained", f"schedules[{i}]", one) for i, one in enumerate(schedules)]
    numbers = [_number("chained", f"boundaries[{i}]", one, STEPS) for i, one in enumerate(boundaries)]
    if any(one >= other for one, other in pairwise(numbers)):
        msg = f"chained: boundaries must grow, got {shown(boundaries)}"
        raise ValueError(msg)
    return Schedule("chained", _chained, parts, numbers)


def _schedule(function: str, name: str, given: Any) -> Schedule:
    if isinstance(given, Schedule):
        return given
    if callable(given):
        msg = f"{function}: {name} must be a number or a schedule that xopt.schedules makes, got {shown(given)}"
        raise TypeError(msg)
    return constant(_number(function, name, given, FINITE))


def _chained(parts: Sequence[Schedule], boundaries: Sequence[float], t: Scalar) -> Scalar:
    begins = [0.0, *boundaries]
    if is_host(t):
        i = max(i for i, begin in enumerate(begins) if begin <= t)
        return parts[i]._at(t - begins[i] if i else t)
    value = parts[0]._at(t)
    for part, begin in zip(parts[1:], boundaries, strict=True):
        value = where(t >= begin, part._at(maximum(t - begin, 0.0)), value)
    return value
