"""NumPy: the default backend, and the one that the others' bits are compared with."""

from collections.abc import Hashable
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array

from xopt.backends.base import Backend, rounded, say_once
from xopt.backends.compilers.blocks import BlocksFuser, look
from xopt.backends.compilers.host import HostFuser, HostMemory
from xopt.backends.compilers.numba_kernels import FORMATS, numba_or_reason
from xopt.backends.fused.donation import WAY_OUT
from xopt.backends.fused.fallback import OrElse
from xopt.backends.fused.memory import anything
from xopt.backends.fused.work import TakesStep, Work
from xopt.operations import Array, is_subclass
from xopt.rule import Rule


class NumPyBackend(Backend):
    name = "numpy"
    module = "numpy"
    distributions = ("numpy",)
    extra = ""
    compilers = "numba", "blocks"

    @classmethod
    def owns(cls, x: Any) -> bool:
        return is_numpy_array(x)

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        return ("cpu",)

    @classmethod
    def fuser(cls, rule: Rule[Any, Any], compiler: str | None, example: Array) -> TakesStep:  # noqa: ARG003 - all are on the CPU
        missing, in_blocks = numba_or_reason(), BlocksFuser(rule, NumPyMemory())
        said = "fused steps of NumPy arrays run in blocks, as {reason}"
        if missing and compiler is None:
            say_once(said.format(reason=missing))
        if compiler == "blocks" or (missing and compiler is None):
            return in_blocks
        if missing:
            raise ImportError(missing)
        host = HostFuser(rule, NumPyMemory())
        return host if compiler else OrElse(host, lambda: in_blocks, said)

    @property
    def usable_compilers(self) -> tuple[str, ...]:
        return self.compilers[1:] if numba_or_reason() else self.compilers

    def dtypes(self) -> tuple[str, ...]:
        return "float16", "float32", "float64"

    def asarray(self, values: Any, dtype: str) -> Array:
        self.refuse(dtype)
        return rounded(values, dtype)

    def to_numpy(self, x: Array) -> Any:
        return np.asarray(x)


class NumPyMemory(HostMemory):
    formats = FORMATS[:3]

    def types(self) -> list[type]:
        return [np.ndarray]

    def tags(self) -> list[tuple[int, int, int, int]]:
        dtypes = [(np.dtype(one.name), np.dtype(one.compute)) for one in self.formats]
        return [(own.num, compute.num, own.itemsize, compute.itemsize) for own, compute in dtypes]

    def form(self, x: Any) -> Hashable:
        return (x.dtype, x.shape, x.strides, x.flags.writeable) if type(x) is np.ndarray else anything()

    def address(self, x: Any) -> int:
        return int(np.asarray(x).__array_interface__["data"][0])

    def look(self, x: Any) -> tuple[int, int, tuple[int, ...], int]:
        return look(np.asarray(x))

    def unfit(self, x: Any) -> str | None:
        return f"a {type(x).__name__}, a subclass of NumPy's arrays" if is_subclass(x) else None

    def refuse_unwritable(self, work: Work, i: int) -> None:
        for x in work.written(i):
            if not x.flags.writeable:
                what = "a NumPy scalar, which has no memory of its own" if isinstance(x, np.generic) else "read-only"
                msg = f"{work.where(i)} or a slot of it is {what}, so that it cannot be donated; {WAY_OUT}"
                raise ValueError(msg)

    def empty_like(self, x: Any) -> Any:
        return np.empty_like(x)

    def copied(self, x: Any) -> Any:
        return np.array(x, order="K")

    def alias(self, x: Any) -> Any:
        return x.view()

    def numpy(self, x: Any) -> Any:
        x = np.asarray(x)
        return x.view(np.dtype(np.uint16).newbyteorder(x.dtype.byteorder)) if x.dtype.name == "float16" else x
