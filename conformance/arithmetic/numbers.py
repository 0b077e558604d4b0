"""The number systems that a golden runs on: floats, exact fractions, and as many digits as one likes.

One text, three readings: what a golden says (floats), what it means (multiprecision), and proof that the two are not
wrong together (fractions, which do not round at all). Division by zero raises ZeroDivisionError in each of them.
"""

import math
from fractions import Fraction
from typing import Any, NoReturn, Protocol

import numpy as np

Number = Any
"""A number of the arithmetic at hand."""


class Arithmetic(Protocol):
    """What a golden may use beside + - * / and integer powers."""

    def number(self, x: float, /) -> Number:
        """The number of this arithmetic that ``x`` is, exactly."""

    def sqrt(self, x: Number, /) -> Number:
        """Square root; NaN of a negative number."""

    def sign(self, x: Number, /) -> Number:
        """-1, 0 or 1; NaN stays NaN."""

    def exp(self, x: Number, /) -> Number:
        """Exponential function."""

    def log(self, x: Number, /) -> Number:
        """Natural logarithm; -inf of 0, NaN of a negative number."""


class _Float:
    """Python floats and the ``math`` module."""

    def number(self, x: float, /) -> float:
        return float(x)

    def sqrt(self, x: float, /) -> float:
        return math.nan if x < 0 else math.sqrt(x)

    def sign(self, x: float, /) -> float:
        return x if math.isnan(x) else float((x > 0) - (x < 0))

    def exp(self, x: float, /) -> float:
        try:
            return math.exp(x)
        except OverflowError:
            return math.inf

    def log(self, x: float, /) -> float:
        return math.nan if x < 0 else -math.inf if x == 0 else math.log(x)


class _Arrays:
    """NumPy's arrays, a vector at a time. What is no array stays a Python float, beside which an array keeps its dtype."""

    number = staticmethod(float)
    sqrt, sign = staticmethod(np.sqrt), staticmethod(np.sign)

    def exp(self, x: Any, /) -> Any:
        return np.exp(x) if isinstance(x, np.ndarray) else float(np.exp(x))

    def log(self, x: Any, /) -> Any:
        return np.log(x) if isinstance(x, np.ndarray) else float(np.log(x))


class _Exact:
    """Fractions: nothing is rounded, so what is not rational is refused."""

    def number(self, x: float, /) -> Fraction:
        return Fraction(x)

    def sign(self, x: Fraction, /) -> Fraction:
        return Fraction((x > 0) - (x < 0))

    def _irrational(self, x: Fraction, /) -> NoReturn:
        msg = f"sqrt, exp and log of {x} have no exact value among the fractions; use multiprecision() for a rule that needs them"
        raise TypeError(msg)

    sqrt = exp = log = _irrational


class _Multiprecision:
    """mpmath in a context of its own: no global precision is touched."""

    def __init__(self, digits: int) -> None:
        import mpmath

        class Context(mpmath.MPContext):  # type: ignore[misc]  # mpmath has no types
            def npconvert(self, x: Any) -> Any:
                """Arrays take the operation themselves; mpmath would print the whole array into an error first."""
                if isinstance(x, np.ndarray):
                    raise TypeError
                return super().npconvert(x)

        self._mp = Context()
        self._mp.dps = digits

    def number(self, x: float, /) -> Number:
        return self._mp.mpf(x)

    def sqrt(self, x: Number, /) -> Number:
        return self._mp.nan if x < 0 else self._mp.sqrt(x)

    def sign(self, x: Number, /) -> Number:
        return self._mp.sign(x)

    def exp(self, x: Number, /) -> Number:
        return self._mp.exp(x)

    def log(self, x: Number, /) -> Number:
        return self._mp.nan if x < 0 else self._mp.ninf if x == 0 else self._mp.log(x)


FLOAT: Arithmetic = _Float()
ARRAYS: Arithmetic = _Arrays()
EXACT: Arithmetic = _Exact()


def multiprecision(digits: int = 60) -> Arithmetic:
    """Numbers of ``digits`` decimal digits, at least 17: every float is one of them."""
    if digits < 17:
        msg = f"multiprecision: digits must be 17 or more, so that no float is rounded, got {digits!r}"
        raise ValueError(msg)
    return _Multiprecision(digits)
