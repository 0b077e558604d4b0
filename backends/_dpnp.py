"""dpnp: NumPy on SYCL devices, such as Intel's GPUs, and on CPUs by OpenCL."""

import importlib
import sys
from typing import Any

from xopt.backends.base import Backend, rounded
from xopt.operations import Array


class DPNPBackend(Backend):
    name = "dpnp"
    module = "dpnp"
    distributions = ("dpnp",)
    extra = "dpnp"
    slow = True
    needs = "SYCL device: for a CPU set OCL_ICD_FILENAMES to libintelocl.so, which intel_opencl_rt installs"

    @classmethod
    def owns(cls, x: Any) -> bool:
        return "dpnp" in sys.modules and isinstance(x, sys.modules["dpnp"].ndarray)

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        """The CPU as ``cpu``, others as SYCL's filters, such as ``level_zero:gpu:0``."""
        dpctl = importlib.import_module("dpctl")
        found = [x.filter_string for x in dpctl.get_devices()]
        return tuple("cpu" if x == "opencl:cpu:0" else x for x in found)

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.place = "opencl:cpu:0" if device == "cpu" else device

    @classmethod
    def survives(cls, how: str, dtype: str) -> bool:  # noqa: ARG003
        return how == "numpy"  # its arrays know their queue, which nobody can copy

    def dtypes(self) -> tuple[str, ...]:
        device = importlib.import_module("dpctl").SyclDevice(self.place)
        has = {"float16": device.has_aspect_fp16, "float32": True, "float64": device.has_aspect_fp64}
        return tuple(name for name, there in has.items() if there)

    def asarray(self, values: Any, dtype: str) -> Array:
        self.refuse(dtype)
        return self.lib.asarray(rounded(values, dtype), device=self.place)

    def to_numpy(self, x: Array) -> Any:
        return self.lib.asnumpy(x)

    def synchronise(self, x: Array) -> None:
        x.sycl_queue.wait()
