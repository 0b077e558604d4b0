"""What must come out, bit for bit: formats of at most 32 bits as patterns, and what is shown to be nearest to the exact result.

A pattern is a number's bits as an integer. Whose results are asked about does not matter: a number is the nearest one where the
exact result lies between the two midpoints around it, and midpoints are numbers of a format with one digit more. Sums, differences
and products of float16 are exact in float64. A quotient or a root of numbers of p digits that is no midpoint is away from all of
them by at least 2^-(2p + 3) of itself, of float16 2^-25, so that float64's own rounding, 2^-53, moves it past none. The roots of
float32 would be 2^-51 away; there the squares of the midpoints, of 50 digits, are compared with the operand, exactly.
"""

import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from xopt.conformance.arithmetic.formats import FloatFormat

Patterns = np.ndarray
"""Numbers as their bits, in int64."""


def bits(form: FloatFormat) -> int:
    """Of a pattern, the sign's included."""
    return (form.emax - form.emin + 2).bit_length() + form.digits


def infinity(form: FloatFormat) -> int:
    """The pattern of infinity. Larger ones, but for the sign, are NaN."""
    return (form.emax - form.emin + 2) << (form.digits - 1)


def sign_bit(form: FloatFormat) -> int:
    return 1 << (bits(form) - 1)


def is_nan(patterns: Patterns, form: FloatFormat) -> np.ndarray:
    return (patterns & (sign_bit(form) - 1)) > infinity(form)


def flushed(patterns: Patterns, form: FloatFormat) -> Patterns:
    """Zeros, of their signs, in place of subnormal numbers."""
    magnitude = patterns & (sign_bit(form) - 1)
    return np.where(magnitude < 1 << (form.digits - 1), patterns & sign_bit(form), patterns)


def magnitudes(patterns: Patterns, digits: int, emin: int) -> np.ndarray:
    """The numbers of patterns without a sign, as float64; infinity's is what would follow the largest."""
    moved: np.ndarray = np.ascontiguousarray(patterns << (53 - digits)).view(np.float64)
    moved *= 2.0 ** (emin + 1022)  # exact: float64 has all these numbers, as subnormal ones before
    return moved


@cache
def _values(form: FloatFormat) -> np.ndarray:
    return _decoded(np.arange(1 << bits(form)), form)


def values(patterns: Patterns, form: FloatFormat) -> np.ndarray:
    """The numbers as float64."""
    return _values(form)[patterns] if bits(form) == 16 else _decoded(patterns, form)


def _decoded(patterns: Patterns, form: FloatFormat) -> np.ndarray:
    magnitude = patterns & (sign_bit(form) - 1)
    found = magnitudes(magnitude, form.digits, form.emin)
    found[magnitude == infinity(form)] = np.inf
    found[magnitude > infinity(form)] = np.nan
    return np.where(patterns & sign_bit(form), -found, found)


def rounded(exact: np.ndarray, form: FloatFormat) -> Patterns:
    """The patterns nearest to float64 numbers, ties to even; of NaN the plain one."""
    word: np.ndarray = exact.view(np.int64)
    magnitude = word & 0x7FFF_FFFF_FFFF_FFFF
    drop = 53 - form.digits
    kept: np.ndarray = (magnitude + ((1 << (drop - 1)) - 1) + ((magnitude >> drop) & 1)) >> drop
    kept -= (1022 + form.emin) << (form.digits - 1)
    size = magnitude.view(np.float64)
    grid = np.float64(form.smallest * 2.0**52)  # whose last digit is the smallest number's: the sum is rounded to it
    kept = np.where(size < form.smallest_normal, (size + grid).view(np.int64) - grid.view(np.int64), kept)
    kept = np.minimum(kept, infinity(form))
    kept[word < 0] |= sign_bit(form)
    kept[np.isnan(exact)] = infinity(form) | 1 << (form.digits - 2)
    return kept


def _sign(x: Patterns, form: FloatFormat) -> Patterns:
    one = (1 - form.emin) << (form.digits - 1)
    magnitude = x & (sign_bit(form) - 1)
    found = np.where(magnitude == 0, 0, one) | (x & sign_bit(form))
    return np.where(is_nan(x, form), x, found)


ROUNDED: dict[str, Callable[..., Any]] = {
    "divide": operator.truediv,
    "add": operator.add,
    "multiply": operator.mul,
    "subtract": operator.sub,
    "sqrt": np.sqrt,
}
"""What is rounded, on float64."""

COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "less": operator.lt,
    "less_equal": operator.le,
    "equal": operator.eq,
}

PROVED = (*ROUNDED, "sign", *COMPARED)
"""The operations that are proved."""
UNARY = ("sqrt", "sign")


def expected(operation: str, operands: Sequence[Patterns], form: FloatFormat) -> Patterns:
    """The patterns that an operation must return, or of a comparison 0 and 1."""
    if operation in COMPARED:
        found: np.ndarray = COMPARED[operation](*(values(x, form) for x in operands))  # float64 has all these numbers
        return found.astype(np.int64)
    if operation == "sign":
        return _sign(operands[0], form)
    return rounded(exactly(operation, operands, form), form)


def exactly(operation: str, operands: Sequence[Patterns], form: FloatFormat) -> np.ndarray:
    """The result in float64: exact, or off by half a unit in its last place."""
    found: np.ndarray = ROUNDED[operation](*(values(x, form) for x in operands))
    return found


def nearest(operation: str, operands: Sequence[Patterns], results: Patterns, form: FloatFormat) -> np.ndarray:
    """Where results are shown to be the numbers nearest to the exact ones, ties to even. NaN is shown nowhere."""
    if bits(form) == 16:
        low, high = _intervals(form)
        exact = exactly(operation, operands, form)
        found: np.ndarray = (low[results] <= exact) & (exact <= high[results])
        zero = np.flatnonzero((results & (sign_bit(form) - 1)) == 0)  # whose sign is that of what was rounded to it
        found[zero] &= np.signbit(np.broadcast_to(exact, found.shape)[zero]) == (results[zero] != 0)
        return found
    if operation == "sqrt":
        low, high = _midpoints(results & (sign_bit(form) - 1), form)
        true = values(operands[0], form)
        itself = ((true == 0) | (true == np.inf)) & (results == operands[0])
        between: np.ndarray = (low * low < true) & (true < high * high) & (results < infinity(form)) | itself  # no root is a tie
        return between
    same: np.ndarray = expected(operation, operands, form) == results
    return same


def _midpoints(magnitude: Patterns, form: FloatFormat) -> tuple[np.ndarray, np.ndarray]:
    """Between a number without a sign and its neighbours."""
    twice = 2 * magnitude
    low = magnitudes(np.abs(twice - 1), form.digits + 1, form.emin)
    return low, magnitudes(twice + 1, form.digits + 1, form.emin)


@cache
def _intervals(form: FloatFormat) -> tuple[np.ndarray, np.ndarray]:
    """For each pattern of 16 bits: the least and the largest number of float64 to which it is the nearest, ties to even."""
    magnitude = np.arange(sign_bit(form))
    low, high = _midpoints(magnitude, form)
    odd = (magnitude & 1) == 1
    low[odd], high[odd] = np.nextafter(low[odd], np.inf), np.nextafter(high[odd], 0)
    low[0] = 0.0
    high[infinity(form)] = np.inf
    low[infinity(form) + 1 :] = high[infinity(form) + 1 :] = np.nan
    return np.concatenate([low, -high]), np.concatenate([high, -low])


def ulps(got: np.ndarray, exact: np.ndarray, form: FloatFormat) -> np.ndarray:
    """How far results are off, in units in the last place of the exact ones; all digits where one of the two is no number.

    Both are in float64.
    """
    place = np.maximum(np.frexp(exact)[1] - 1, form.emin) - (form.digits - 1)
    error = np.abs(np.ldexp(got - exact, -place))
    everything = 2.0**form.digits
    return np.where(error <= everything, error, everything)
