"""Numbers that carry a bound on their rounding error: run a rule on them, unchanged, and the tolerance comes out.

A ``Bounded`` stands for every number that a correct library may compute in its place. ``value`` estimates the exact
result and ``error`` bounds the distance from it of anything computed with one rounding an operation. The recurrences
are running error analysis (Higham, "Accuracy and Stability of Numerical Algorithms", section 3.3) with the magnitudes
taken at their largest, so that higher orders are covered too. ``may_be_subnormal`` marks elements where a subnormal number may
have occurred on the way.
"""

import operator
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from xopt.conformance.arithmetic.formats import HOST, FloatFormat

Values = Any  # float64 ndarray or scalar


@dataclass(eq=False, slots=True)  # none is changed, but a frozen one takes four times as long to make
class Bounded:
    value: Values
    error: Values
    format: FloatFormat
    may_be_subnormal: Any = False

    __array_ufunc__ = None  # NumPy scalars leave the operators to us

    @property
    def ndim(self) -> int:
        return int(np.ndim(self.value))

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.value)

    @property
    def size(self) -> Any:
        """The largest magnitude that it stands for."""
        return abs(self.value) + self.error

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return Namespace

    def met_in(self, to: FloatFormat) -> "Bounded":
        """A number as an array of the format ``to`` meets it, which may be coarser, or flush it."""
        if self.format is to or self.format == to:
            return self
        size = self.size
        is_exact = (self.format.unit == to.unit) | ((self.error == 0) & to.holds(self.value))
        rounding = _where(is_exact, 0.0, to.unit * size + to.underflow)
        if to.flushes:
            rounding = _where(_small(size, to), np.maximum(rounding, size), rounding)
        return _result(self.value, self.error, rounding, to, self.may_be_subnormal)

    def stored(self, to: FloatFormat) -> "Bounded":
        """Rounded to a narrower format for storage, and read again."""
        size = self.size
        rounding = to.unit * size + to.underflow
        return replace(self, error=self.error + rounding, may_be_subnormal=self.may_be_subnormal | _small(size, to))

    def __add__(self, other: Any) -> "Bounded":
        a, b, to, may_be_subnormal = _meet(self, other)
        return _result(a.value + b.value, a.error + b.error, _of_sum(a, b, to), to, may_be_subnormal, "add")

    def __sub__(self, other: Any) -> "Bounded":
        a, b, to, may_be_subnormal = _meet(self, other)
        return _result(a.value - b.value, a.error + b.error, _of_sum(a, b, to), to, may_be_subnormal, "add")

    def __mul__(self, other: Any) -> "Bounded":
        a, b, to, may_be_subnormal = _meet(self, other)
        value = abs(a.value)
        one, other = value + a.error, b.size
        error = value * b.error + a.error * other
        return _result(a.value * b.value, error, None, to, may_be_subnormal, "multiply", (one == 0) | (other == 0))

    def __truediv__(self, other: Any) -> "Bounded":
        a, b, to, may_be_subnormal = _meet(self, other)
        value = a.value / b.value
        room = np.abs(b.value) - b.error  # the divisor's distance from 0
        certain = (a.error == 0) & (b.error == 0)
        error = _where(room > 0, (a.error + abs(value) * b.error) / room, _where(certain, 0.0, _INFINITE))
        return _result(value, error, None, to, may_be_subnormal, "divide", a.size == 0)

    def __radd__(self, other: Any) -> "Bounded":
        return _lift(other) + self

    def __rsub__(self, other: Any) -> "Bounded":
        return _lift(other) - self

    def __rmul__(self, other: Any) -> "Bounded":
        return _lift(other) * self

    def __rtruediv__(self, other: Any) -> "Bounded":
        return _lift(other) / self

    def __pow__(self, power: int) -> "Bounded":
        """A product for a square; else a library's ``pow``, right to a unit in the last place."""
        if power == 2:
            return self * self
        value = self.value**power
        grown = (np.abs(self.value) + self.error) ** power - np.abs(self.value) ** power
        return _result(value, grown, 2 * self.format.unit * (np.abs(value) + grown), self.format, self.may_be_subnormal)

    def __neg__(self) -> "Bounded":
        return Bounded(-self.value, self.error, self.format, self.may_be_subnormal)

    def __abs__(self) -> "Bounded":
        return Bounded(abs(self.value), self.error, self.format, self.may_be_subnormal)

    def _compare(self, other: Any, how: Callable[[Any, Any], Any]) -> "Bounded":
        other = _lift(other)
        return Bounded(how(self.value, other.value), abs(self.error) + abs(other.error), self.format, self.may_be_subnormal)

    def __bool__(self) -> bool:
        return bool(self.value)

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> "Bounded":  # type: ignore[override]
        return self._compare(other, operator.eq)

    def __ge__(self, other: Any) -> "Bounded":
        return self._compare(other, operator.ge)

    def __le__(self, other: Any) -> "Bounded":
        return self._compare(other, operator.le)

    def __gt__(self, other: Any) -> "Bounded":
        return self._compare(other, operator.gt)

    def __lt__(self, other: Any) -> "Bounded":
        return self._compare(other, operator.lt)


def exact(x: Values, to: FloatFormat = HOST) -> Bounded:
    """``x`` itself, without error, but for a subnormal that the format flushes."""
    size = abs(x)
    small = _small(size, to)
    none = np.zeros(x.shape) if isinstance(x, np.ndarray) else 0.0
    return Bounded(x, np.where(small, size, 0.0)[()] if to.flushes else none, to, small)


def _lift(x: Any) -> Bounded:
    """A Python number met on the way. Unless it is short it may be a rounded one (1/3, a logarithm), half a unit off."""
    if isinstance(x, Bounded):
        return x
    error = 0.0 if float(np.float32(x)) == x else HOST.unit * abs(x)
    return Bounded(float(x), error, HOST)


def _meet(x: Bounded, y: Any) -> tuple[Bounded, Bounded, FloatFormat, Any]:
    """Both operands in the format of the array; the operand that is a number may be subnormal in that format."""
    y = _lift(y)
    to = x.format
    if y.format is not to:
        to = _common(to, y.format)
        x, y = x.met_in(to), y.met_in(to)
    return x, y, to, x.may_be_subnormal | y.may_be_subnormal


def _common(one: FloatFormat, other: FloatFormat) -> FloatFormat:
    """That of the array: the coarser one, and of two float64 the one that is not the host's."""
    if one.unit == other.unit:
        return other if one == HOST else one
    return one if one.unit > other.unit else other


def _small(size: Values, to: FloatFormat) -> Any:
    """Where a number of at most this size may be subnormal."""
    return (size > 0) & (size < 2 * to.smallest_normal)


def _result(
    value: Values,
    error: Values,
    rounding: Values,
    to: FloatFormat,
    may_be_subnormal: Any,
    primitive: str = "",
    is_zero: Values = None,
) -> Bounded:
    """A result with the rounding of its own operation added; beyond the format's range nothing is promised.

    ``is_zero`` says where it is 0 and not just too small, as a product of two that are not is where it underflows here too.
    """
    size = abs(value) + error
    if rounding is None:
        rounding = to.rounding(primitive) * size
        if primitive != "add" or to.flushes:  # a sum that underflows is exact, unless it is flushed
            rounding = rounding + _where(size == 0 if is_zero is None else is_zero, 0.0, to.underflow)
    error = error + rounding
    error = _where(size + rounding > to.largest, _INFINITE, error)
    known = size if np.all(size < np.inf) else _where(size < np.inf, size, abs(value))  # without a bound it may be subnormal too
    return Bounded(value, error, to, may_be_subnormal | _small(known, to))


def _of_sum(a: Bounded, b: Bounded, to: FloatFormat) -> Values:
    """What a sum is rounded by: nothing beyond a flush, where a coefficient of 0 is added; else None, as usual."""
    for x in (a, b):
        if not np.ndim(x.value) and x.size == 0:
            return to.underflow if to.flushes else 0.0
    return None


_INFINITE = np.float64(np.inf)


def _where(condition: Any, x: Values, y: Values) -> Values:
    """As ``np.where``, which takes ten times as long to choose between two numbers, as the coefficients are."""
    return np.where(condition, x, y) if isinstance(condition, np.ndarray) else x if condition else y


class Signs:
    """Decides the open signs, those whose argument may lie on either side of 0, within a ``with`` block, and notes where they are.

    ``choice`` of None leaves them open: the result then carries the whole jump as its error.
    """

    _current: ClassVar[ContextVar["Signs | None"]] = ContextVar("signs", default=None)

    def __init__(self, choice: Values = None, where: Any = False) -> None:
        self.choice = choice
        self.open: Any = np.asarray(where)

    def __enter__(self) -> "Signs":
        self._token = self._current.set(self)
        return self

    def __exit__(self, *exception: object) -> None:
        self._current.reset(self._token)

    @classmethod
    def decide(cls, x: Bounded) -> Bounded:
        result = np.sign(x.value)
        signs = cls._current.get()
        if signs is not None and signs.choice is not None:
            return Bounded(signs.chosen(result), np.zeros(np.shape(result)), x.format, x.may_be_subnormal)
        is_open = (np.abs(x.value) <= x.error) & (x.error > 0)
        if signs is not None:
            signs.open = signs.open | is_open
        return Bounded(result, np.where(is_open, 1.0 + np.abs(result), 0.0), x.format, x.may_be_subnormal)

    def chosen(self, signs: Values) -> Values:
        return np.where(self.open, self.choice, signs)

    @classmethod
    def settle(cls, signs: Values) -> Values:
        """The signs of exact numbers, with the open ones as decided."""
        current = cls._current.get()
        return signs if current is None or current.choice is None else current.chosen(signs)


class Namespace:
    """The array API functions that a rule may use, on error-carrying numbers."""

    @staticmethod
    def sqrt(x: Bounded) -> Bounded:
        inside = np.maximum(x.value, 0.0)  # NaN stays NaN
        root = np.sqrt(inside)
        below = root - np.sqrt(np.maximum(inside - x.error, 0.0))  # the root bends downward: this side is the farther one
        above = np.sqrt(inside + x.error) - root  # but where below it there is only 0
        spread = np.where(inside > 0, np.maximum(below, above) + root * 2.0**-52, np.sqrt(x.error))
        return _result(root, spread, None, x.format, x.may_be_subnormal, "sqrt")

    @staticmethod
    def sign(x: Bounded) -> Bounded:
        return Signs.decide(x)

    @staticmethod
    def minimum(x: Any, y: Any) -> Bounded:
        x, y = _lift(x), _lift(y)
        first = x.value + x.error < y.value - y.error
        second = y.value + y.error < x.value - x.error
        error = np.where(first, x.error, np.where(second, y.error, np.maximum(x.error, y.error)))
        return Bounded(np.minimum(x.value, y.value), error, _common(x.format, y.format), x.may_be_subnormal | y.may_be_subnormal)

    @staticmethod
    def maximum(x: Any, y: Any) -> Bounded:
        return -Namespace.minimum(-_lift(x), -_lift(y))

    @staticmethod
    def where(condition: Bounded, x: Any, y: Any) -> Bounded:
        x, y, to, _ = _meet(_lift(x), y)
        pick = np.asarray(condition.value)
        return Bounded(
            np.where(pick, x.value, y.value),
            np.where(pick, x.error, y.error),
            to,
            np.where(pick, x.may_be_subnormal, y.may_be_subnormal),
        )

    @staticmethod
    def log(x: Bounded) -> Bounded:
        value = np.log(x.value)
        room = x.value - x.error
        error = np.where(room > 0, x.error / np.where(room > 0, room, 1.0), np.inf)
        return _result(value, error, 2 * x.format.unit * (np.abs(value) + error), x.format, x.may_be_subnormal)

    @staticmethod
    def exp(x: Bounded) -> Bounded:
        value = np.exp(x.value)
        error = np.where(
            x.error < 1, value * np.expm1(np.minimum(x.error, 1)), np.exp(x.value + x.error)
        )  # 0 times infinity is none
        return _result(value, error, 2 * x.format.unit * (value + error), x.format, x.may_be_subnormal)


class BoundedArithmetic:
    """The number system of a golden that runs on error-carrying numbers: its text, in the rounding of a format."""

    @staticmethod
    def number(x: float) -> Bounded:
        return exact(float(x))

    sqrt = staticmethod(Namespace.sqrt)
    sign = staticmethod(Namespace.sign)
    exp = staticmethod(Namespace.exp)
    log = staticmethod(Namespace.log)


def inflate(error: Values) -> Values:
    """Covers the float64 rounding of the bound's own arithmetic."""
    return error * (1.0 + 2.0**-30)
