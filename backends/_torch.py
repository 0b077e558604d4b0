"""PyTorch, on the CPU and on CUDA devices."""

import importlib
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from xopt.backends.base import Backend, rounded, to_bfloat16_bits
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
        # Compiled code is kept by code object: without a new start the rules before this one would use up its places. Where
        # there is none left, torch runs eagerly without a word; better an error.
        self.lib.compiler.reset()
        loud = self.lib._dynamo.config.patch(
            recompile_limit=1000, accumulated_recompile_limit=1000, fail_on_recompile_limit_hit=True
        )
        return loud(self.lib.compile(function))  # type: ignore[no-any-return]

    def synchronise(self, x: Array) -> None:  # noqa: ARG002 - waits for all
        if self.device != "cpu":
            self.lib.cuda.synchronize(self.device)
