"""NumPy: the default backend, and the one that the others' bits are compared with."""

from typing import Any

import numpy as np

from xopt.backends.base import Backend, rounded
from xopt.operations import Array


class NumPyBackend(Backend):
    name = "numpy"
    module = "numpy"
    distributions = ("numpy",)
    extra = ""

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        return ("cpu",)

    def dtypes(self) -> tuple[str, ...]:
        return "float16", "float32", "float64"

    def asarray(self, values: Any, dtype: str) -> Array:
        self.refuse(dtype)
        return rounded(values, dtype)

    def to_numpy(self, x: Array) -> Any:
        return np.asarray(x)
