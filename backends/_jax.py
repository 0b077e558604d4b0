"""JAX, on the CPU and on GPUs."""

import importlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import is_jax_array

from xopt.backends.base import Backend, rounded, to_bfloat16_bits, variables
from xopt.backends.fused.work import TakesStep
from xopt.operations import Array
from xopt.rule import Rule


class JAXBackend(Backend):
    name = "jax"
    module = "jax"
    distributions = ("jax",)
    extra = "jax"
    tracer = "jax.jit"
    compilers = ("jax.jit",)

    @classmethod
    def owns(cls, x: Any) -> bool:
        return is_jax_array(x)

    @classmethod
    def traces(cls, x: Array) -> bool:
        return isinstance(x, sys.modules["jax"].core.Tracer)

    @classmethod
    def fuser(cls, rule: Rule[Any, Any], compiler: str | None, example: Array) -> TakesStep:  # noqa: ARG003 - there is one
        from xopt.backends.compilers.jax_jit import JaxJitFuser

        return JaxJitFuser(rule, example)

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        return tuple(cls._devices())

    @classmethod
    def _devices(cls) -> dict[str, Any]:
        jax = importlib.import_module("jax")
        log = logging.getLogger("jax._src.xla_bridge")
        level = log.level
        log.setLevel(logging.ERROR)  # that there is no GPU is an answer here, not a warning
        found: list[Any] = []
        try:
            for platform in ("cpu", "gpu"):
                with suppress(RuntimeError):  # that platform is not there
                    found += jax.local_devices(backend=platform)
        finally:
            log.setLevel(level)
        return named(found)

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self._device = self._devices()[device]

    @property
    def functions(self) -> Any:
        return self.lib.numpy

    def dtypes(self) -> tuple[str, ...]:
        return "float16", "bfloat16", "float32", "float64"

    def asarray(self, values: Any, dtype: str) -> Array:
        self.refuse(dtype)
        if dtype == "float64" and not self.lib.config.jax_enable_x64:
            msg = (
                "JAX has no float64 unless it is told to, and would give float32 silently: call "
                "jax.config.update('jax_enable_x64', True) first, or work within this backend's session()"
            )
            raise ValueError(msg)
        if dtype == "bfloat16":
            host = to_bfloat16_bits(values).view(self.lib.numpy.bfloat16.dtype)
        else:
            host = rounded(values, dtype)
        return self.lib.device_put(host, self._device)

    def to_numpy(self, x: Array) -> Any:
        x = np.asarray(x)
        return x.astype(np.float32) if x.dtype.name == "bfloat16" else x

    @contextmanager
    def session(self) -> Iterator[None]:
        """With float64, and new arrays on this device: JAX's own default is a GPU where there is one."""
        with self._float64(), self.lib.default_device(self._device):
            yield

    def _float64(self) -> AbstractContextManager[Any]:
        if hasattr(self.lib, "enable_x64"):
            return self.lib.enable_x64(True)  # type: ignore[no-any-return]
        return importlib.import_module("jax.experimental").enable_x64()  # type: ignore[no-any-return]

    def trace(self, function: Callable[..., Any]) -> Callable[..., Any]:
        compiled: dict[Any, Callable[..., Any]] = {}

        def call(*arrays: Any, **numbers: Any) -> Any:
            # numbers given by name are baked in: traced, 1 - beta would lose its digits
            key = tuple(numbers.items())
            if key not in compiled:
                compiled[key] = self.lib.jit(partial(function, **numbers))
            return compiled[key](*arrays)

        return call

    def synchronise(self, x: Array) -> None:
        self.lib.block_until_ready(x)

    def hardware(self) -> dict[str, str]:
        platform = {"platform": self._device.client.platform_version}
        if self._device.platform == "cpu":
            return super().hardware() | platform
        return {"name": self._device.device_kind, **platform, **variables()}


def named(devices: Iterable[Any]) -> dict[str, Any]:
    """Devices by name: the first CPU is ``cpu``, others are ``cpu:1``, ``gpu:0``."""
    return {"cpu" if (d.platform, d.id) == ("cpu", 0) else f"{d.platform}:{d.id}": d for d in devices}
