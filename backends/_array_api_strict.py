"""array-api-strict: NumPy behind a wall that lets nothing through but the standard."""

from typing import Any

import numpy as np

from xopt.backends.base import Backend, rounded
from xopt.operations import Array


class ArrayAPIStrictBackend(Backend):
    name = "array_api_strict"
    module = "array_api_strict"
    distributions = ("array-api-strict",)
    extra = "conformance"

    @classmethod
    def owns(cls, x: Any) -> bool:
        return type(x).__module__.startswith("array_api_strict.")

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        return ("cpu",)

    @classmethod
    def survives(cls, how: str, dtype: str) -> bool:  # noqa: ARG003
        return how == "numpy"  # else its dtypes are not themselves any more

    def dtypes(self) -> tuple[str, ...]:
        return "float32", "float64"

    def asarray(self, values: Any, dtype: str) -> Array:
        self.refuse(dtype)
        return self.lib.asarray(rounded(values, dtype))

    def to_numpy(self, x: Array) -> Any:
        return np.from_dlpack(x)
