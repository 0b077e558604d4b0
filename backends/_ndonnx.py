"""ndonnx: arrays that are computed at once or, without values, become an ONNX model."""

import importlib
import sys
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from xopt.backends.base import Backend, rounded
from xopt.operations import Array


class NDONNXBackend(Backend):
    name = "ndonnx"
    module = "ndonnx"
    distributions = ("ndonnx",)
    extra = "ndonnx"
    slow = laborious = True

    @classmethod
    def owns(cls, x: Any) -> bool:
        return "ndonnx" in sys.modules and isinstance(x, sys.modules["ndonnx"].Array)

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        return ("cpu",)

    @classmethod
    def survives(cls, how: str, dtype: str) -> bool:  # noqa: ARG003
        return how != "deepcopy"

    def dtypes(self) -> tuple[str, ...]:
        return "float16", "float32", "float64"

    def asarray(self, values: Any, dtype: str) -> Array:
        self.refuse(dtype)
        return self.lib.asarray(rounded(values, dtype))

    def to_numpy(self, x: Array) -> Any:
        return x.unwrap_numpy()

    def session(self) -> AbstractContextManager[Any]:
        """One that computes in this thread: onnxruntime starts a pool of them for each operation, which takes most of its time."""
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions

        def of_one_thread() -> Any:
            made = options()
            made.intra_op_num_threads = 1
            return made

        return patch.object(runtime, "SessionOptions", of_one_thread)
