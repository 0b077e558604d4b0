"""MLX, on the CPU and on Apple's GPUs."""

import importlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, cast

import numpy as np
import optree

from xopt.backends.base import Backend, rounded, to_bfloat16_bits
from xopt.backends.fused.work import TakesStep
from xopt.operations import Array
from xopt.rule import Rule


class MLXBackend(Backend):
    name = "mlx"
    module = "mlx.core"
    distributions = ("mlx",)
    extra = "mlx"
    slow = True
    tracer = "mx.compile"
    compilers = ("mx.compile",)

    @classmethod
    def owns(cls, x: Any) -> bool:
        return "mlx.core" in sys.modules and isinstance(x, sys.modules["mlx.core"].array)

    @classmethod
    def fuser(cls, rule: Rule[Any, Any], compiler: str | None, example: Array) -> TakesStep:  # noqa: ARG003 - there is one
        from xopt.backends.compilers.mx_compile import MLXFuser

        return MLXFuser(rule, example)

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        mx = importlib.import_module("mlx.core")
        return ("gpu", "cpu") if mx.is_available(mx.gpu) else ("cpu",)

    @classmethod
    def survives(cls, how: str, dtype: str) -> bool:
        return how == "deepcopy" or dtype != "float64"  # of which pickle makes float32

    def dtypes(self) -> tuple[str, ...]:
        return ("float16", "bfloat16", "float32", "float64")[: 4 if self.device == "cpu" else 3]

    def asarray(self, values: Any, dtype: str) -> Array:
        self.refuse(dtype)
        with self.session():
            if dtype == "bfloat16":
                return self.lib.view(self.lib.array(to_bfloat16_bits(values)), self.lib.bfloat16)
            return self.lib.array(
                rounded(values, dtype), dtype=getattr(self.lib, dtype)
            )  # of float64 it makes float32, unless told

    def to_numpy(self, x: Array) -> Any:
        return np.array(x.astype(self.lib.float32) if x.dtype == self.lib.bfloat16 else x)

    def session(self) -> AbstractContextManager[Any]:
        return self.lib.stream(getattr(self.lib, self.device))  # type: ignore[no-any-return]

    def trace(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Through ``mx.compile``, with numbers among the positional arguments as arrays, so that another one compiles nothing.

        Those given by name are baked in: traced, 1 - beta would lose its digits.
        """
        compiled: dict[Any, tuple[Callable[..., Any], list[Any]]] = {}

        def call(*arguments: Any, **numbers: Any) -> Any:
            leaves, spec = optree.tree_flatten(cast("Any", arguments))
            if not all(isinstance(x, self.lib.array) or type(x) in (int, float) for x in leaves):
                return function(*arguments, **numbers)  # which refuses it
            key = spec, tuple(numbers.items())
            if key not in compiled:
                compiled[key] = self._compiled(function, spec, numbers)
            flat, made = compiled[key]
            results = flat(*[x if isinstance(x, self.lib.array) else self.lib.array(x) for x in leaves])
            return optree.tree_unflatten(made[-1], results)

        return call

    def _compiled(self, function: Callable[..., Any], spec: Any, numbers: Any) -> tuple[Callable[..., Any], list[Any]]:
        """A function of leaves, as MLX does not give every tree back as it was, and where the form of its result is noted."""
        made: list[Any] = []

        def flat(*leaves: Any) -> Any:
            results, form = optree.tree_flatten(function(*optree.tree_unflatten(spec, leaves), **numbers))
            made.append(form)
            return results

        return self.lib.compile(flat), made

    def synchronise(self, x: Array) -> None:
        self.lib.eval(x)
