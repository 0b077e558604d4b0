"""PyTorch, on the CPU and on CUDA devices."""

import importlib
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FunctionType
from typing import Any

import numpy as np

from xopt.backends.base import Backend, cuda_version, rounded, to_bfloat16_bits, variables
from xopt.operations import Array


class TorchBackend(Backend):
    name = "torch"
    module = "torch"
    distributions = ("torch",)
    extra = "torch"
    tracer = "torch.compile"

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        torch = importlib.import_module("torch")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a CUDA driver that does not work is no device
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return ("cpu", *(f"cuda:{i}" for i in range(count)))

    def dtypes(self) -> tuple[str, ...]:
        return "float16", "bfloat16", "float32", "float64"

    def asarray(self, values: Any, dtype: str) -> Array:
        self.refuse(dtype)
        if dtype == "bfloat16":
            bits = self.lib.tensor(to_bfloat16_bits(values).view(np.int16))
            return bits.view(self.lib.bfloat16).to(self.device)
        return self.lib.tensor(rounded(values, dtype), device=self.device)

    def to_numpy(self, x: Array) -> Any:
        x = x.detach().cpu()
        return (x.float() if x.dtype == self.lib.bfloat16 else x).numpy()

    def session(self) -> AbstractContextManager[Any]:
        return self.lib.no_grad()  # type: ignore[no-any-return]

    def trace(self, function: Callable[..., Any]) -> Callable[..., Any]:
        # torch keeps compiled code by code object, which all steps share: with a copy each function has its own places. Where
        # there is none left, torch runs eagerly without a word; better an error.
        loud = self.lib._dynamo.config.patch(
            recompile_limit=1000, accumulated_recompile_limit=1000, fail_on_recompile_limit_hit=True
        )
        return loud(self.lib.compile(_copy(function)))  # type: ignore[no-any-return]

    def synchronise(self, x: Array) -> None:  # noqa: ARG002 - waits for all
        if self.device != "cpu":
            self.lib.cuda.synchronize(self.device)

    def hardware(self) -> dict[str, str]:
        torch = self.lib
        if self.device == "cpu":
            return super().hardware() | {"used by torch": torch.backends.cpu.get_cpu_capability()}
        found = torch.cuda.get_device_properties(self.device)
        capability = {"name": found.name, "compute capability": f"{found.major}.{found.minor}"}
        if torch.version.hip:
            return capability | {"ROCm": torch.version.hip} | variables()
        driver = cuda_version(torch._C._cuda_getDriverVersion())
        return capability | {"CUDA": torch.version.cuda, "driver": f"CUDA {driver}"} | variables()


def _copy(function: Any) -> Any:
    """The same function with a code object of its own; what is not written in Python stays itself."""
    if not isinstance(function, FunctionType):
        return function
    own = FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    own.__kwdefaults__ = function.__kwdefaults__
    return own
