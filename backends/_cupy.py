"""CuPy, on CUDA devices."""

import importlib
from contextlib import AbstractContextManager
from typing import Any

from array_api_compat import is_cupy_array

from xopt.backends.base import Backend, cuda_version, rounded, variables
from xopt.backends.compilers.elementwise_kernel import CuPyFuser
from xopt.backends.fused.work import TakesStep
from xopt.operations import Array
from xopt.rule import Rule

EMULATED = "cpu-emulated"
"""What a device is called that is the CPU: the tests run CuPy on one, and nothing found there may pass for a GPU's."""


class CuPyBackend(Backend):
    name = "cupy"
    module = "cupy"
    distributions = ("cupy-cuda13x", "cupy-cuda12x", "cupy")
    extra = "cupy12"
    compilers = ("ElementwiseKernel",)

    @classmethod
    def owns(cls, x: Any) -> bool:
        return is_cupy_array(x)

    @classmethod
    def fuser(cls, rule: Rule[Any, Any], compiler: str | None, example: Array) -> TakesStep:  # noqa: ARG003 - there is one compiler
        return CuPyFuser(rule)

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        runtime = importlib.import_module("cupy").cuda.runtime
        try:
            names = [runtime.getDeviceProperties(i)["name"] for i in range(runtime.getDeviceCount())]
        except runtime.CUDARuntimeError:  # no driver, or no device
            return ()
        return tuple(f"{EMULATED if name == b'CPU, emulated' else 'cuda'}:{i}" for i, name in enumerate(names))

    def dtypes(self) -> tuple[str, ...]:
        return "float16", "float32", "float64"

    def asarray(self, values: Any, dtype: str) -> Array:
        self.refuse(dtype)
        with self.session():
            return self.lib.array(rounded(values, dtype))

    def to_numpy(self, x: Array) -> Any:
        return self.lib.asnumpy(x)

    def session(self) -> AbstractContextManager[Any]:
        return self.lib.cuda.Device(self._number)  # type: ignore[no-any-return]

    def synchronise(self, x: Array) -> None:  # noqa: ARG002 - waits for all
        with self.session() as device:
            device.synchronize()

    def hardware(self) -> dict[str, str]:
        runtime = self.lib.cuda.runtime
        found = runtime.getDeviceProperties(self._number)
        return {
            "name": found["name"].decode(),
            "compute capability": f"{found['major']}.{found['minor']}",
            "CUDA": cuda_version(runtime.runtimeGetVersion()),
            "driver": f"CUDA {cuda_version(runtime.driverGetVersion())}",
            **variables(),
        }

    @property
    def _number(self) -> int:
        return int(self.device.rpartition(":")[2])
