"""The floating-point formats, and how well a backend computes in them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Values = Any  # float64 ndarray or scalar


@dataclass(frozen=True)
class Format:
    """A floating-point format, and how well a backend computes in it."""

    name: str
    unit: float  # largest relative error of one correct rounding
    smallest_normal: float
    smallest: float  # smallest subnormal
    largest: float
    flushes: bool = False  # subnormal operands and results become 0
    ulps: dict[str, float] = field(default_factory=dict, hash=False)  # measured error of primitives that round wrongly

    def rounding(self, primitive: str) -> float:
        """Largest relative error of a primitive: one unit where it is correctly rounded."""
        return self.unit * 2 * max(0.5, self.ulps.get(primitive, 0.5))

    @property
    def underflow(self) -> float:
        """Largest absolute error of a result that is too small to be normal."""
        return self.smallest_normal if self.flushes else self.smallest

    def holds(self, x: Values) -> Any:
        """Where ``x`` is a number of this format. Only float32 and float64 are asked."""
        with np.errstate(over="ignore"):
            return np.float64(np.float32(x)) == x if self.unit > 2.0**-53 else np.isfinite(x)


def _format(name: str, digits: int, emin: int, emax: int) -> Format:
    largest = (2.0 - 2.0 ** (1 - digits)) * 2.0**emax
    return Format(name, 2.0**-digits, 2.0**emin, max(2.0 ** (emin - digits + 1), 5e-324), largest)


FORMATS: dict[str, Format] = {
    "float16": _format("float16", 11, -14, 15),
    "bfloat16": _format("bfloat16", 8, -126, 127),
    "float32": _format("float32", 24, -126, 127),
    "float64": _format("float64", 53, -1022, 1023),
}
HOST = FORMATS["float64"]
"""Python's own numbers: what coefficients are computed in before they meet an array."""


def rounded(x: Any, dtype: str) -> Any:
    """Float64 values rounded to the nearest number of ``dtype``, ties to even."""
    if dtype == "bfloat16":
        exponent = np.maximum(np.frexp(x)[1], -125)  # of the last digit 8 behind the first one, or that of the subnormals
        return np.ldexp(np.rint(np.ldexp(x, 8 - exponent)), exponent - 8)
    return np.asarray(x).astype(dtype).astype(np.float64)
