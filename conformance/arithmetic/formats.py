"""The one table of floating-point formats, and how well a backend computes in them."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FloatFormat:
    """A floating-point format, and how well a backend computes in it."""

    name: str
    digits: int  # of the significand, in bits
    emin: int  # the normal numbers are 2**emin and more,
    emax: int  # and less than 2**(emax + 1)
    flushes: bool = False  # subnormal operands and results become 0
    ulps: dict[str, float] = field(default_factory=dict, hash=False)  # measured error of primitives that round wrongly

    @cached_property
    def unit(self) -> float:
        """The unit roundoff: the largest relative error of one correct rounding."""
        return 2.0**-self.digits

    @cached_property
    def smallest_normal(self) -> float:
        return 2.0**self.emin

    @cached_property
    def smallest(self) -> float:
        """The smallest subnormal number."""
        return 2.0 ** (self.emin - self.digits + 1)

    @cached_property
    def largest(self) -> float:
        return (2.0 - 2.0 ** (1 - self.digits)) * 2.0**self.emax

    def rounding(self, primitive: str) -> float:
        """Largest relative error of a primitive: one unit where it is correctly rounded."""
        return self.unit * 2 * max(0.5, self.ulps.get(primitive, 0.5))

    @property
    def underflow(self) -> float:
        """Largest absolute error of a result that is too small to be normal."""
        return self.smallest_normal if self.flushes else self.smallest

    def in_ulps(self, error: Any, one: Any, other: Any) -> Any:
        """An error in units in the last place of the larger one of two numbers."""
        with np.errstate(all="ignore"):
            _, exponent = np.frexp(np.maximum(np.abs(one), np.abs(other)))
            return np.where(error == 0, 0.0, error / np.ldexp(self.unit, exponent))

    def holds(self, x: Any) -> Any:
        """Where ``x`` is a number of this format. Only float32 and float64 are asked."""
        with np.errstate(over="ignore"):
            return np.float64(np.float32(x)) == x if self.unit > 2.0**-53 else np.isfinite(x)


FLOAT_FORMATS: dict[str, FloatFormat] = {
    "float16": FloatFormat("float16", 11, -14, 15),
    "bfloat16": FloatFormat("bfloat16", 8, -126, 127),
    "float32": FloatFormat("float32", 24, -126, 127),
    "float64": FloatFormat("float64", 53, -1022, 1023),
}
HOST = FLOAT_FORMATS["float64"]
"""Python's own numbers: what coefficients are computed in before they meet an array."""

ARITHMETICS = ("float32", "float64")
"""The dtypes that rules compute in: half-precision parameters are computed with in float32."""


def arithmetic_of(dtype: str) -> str:
    """The dtype that a rule computes in, and keeps its slots in, where its parameters have this one."""
    return "float64" if dtype == "float64" else "float32"


def round_to(x: Any, dtype: str) -> Any:
    """Float64 values rounded to the nearest number of ``dtype``, ties to even."""
    if dtype == "bfloat16":
        exponent = np.maximum(np.frexp(x)[1], -125)  # of the last digit 8 behind the first one, or that of the subnormals
        return np.ldexp(np.rint(np.ldexp(x, 8 - exponent)), exponent - 8)
    return np.asarray(x).astype(dtype).astype(np.float64)
