"""mparray: numbers of mpmath, of as many digits as it is told to have."""

import sys
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from xopt.backends.base import Backend, rounded
from xopt.operations import Array


class MPArrayBackend(Backend):
    name = "mparray"
    module = "mparray"
    distributions = ("mparray",)
    extra = "mparray"
    slow = laborious = True

    @classmethod
    def owns(cls, x: Any) -> bool:
        return "mparray" in sys.modules and isinstance(x, sys.modules["mparray"].MPArray)

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        return ("cpu",)

    @classmethod
    def survives(cls, how: str, dtype: str) -> bool:  # noqa: ARG003
        return how != "numpy"  # which has no number below 2^-1074 or above 2^1024

    def dtypes(self) -> tuple[str, ...]:
        return ("float64",)  # whatever its dtype, a number has all digits of mpmath's precision

    def asarray(self, values: Any, dtype: str) -> Array:
        self.refuse(dtype)
        return self.lib.asarray(rounded(values, dtype))

    def to_numpy(self, x: Array) -> Any:
        return np.asarray(x._data).astype(np.float64)

    def session(self) -> AbstractContextManager[Any]:
        """One in which a number has the 53 bits of float64."""
        return sys.modules["mpmath"].workprec(53)  # type: ignore[no-any-return]
