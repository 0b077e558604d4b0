"""Dask: arrays in chunks, computed when they are asked for."""

import importlib
from contextlib import AbstractContextManager
from typing import Any

from array_api_compat import is_dask_array

from xopt.backends.base import Backend, rounded
from xopt.operations import Array


class DaskBackend(Backend):
    name = "dask"
    module = "dask.array"
    distributions = ("dask",)
    extra = "dask"
    slow = laborious = True

    @classmethod
    def owns(cls, x: Any) -> bool:
        return is_dask_array(x)

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        return ("cpu",)

    def dtypes(self) -> tuple[str, ...]:
        return "float16", "float32", "float64"

    def asarray(self, values: Any, dtype: str) -> Array:
        """In two chunks, so that there are chunks."""
        self.refuse(dtype)
        x = rounded(values, dtype)
        return self.lib.from_array(x, chunks=tuple(-(-n // 2) for n in x.shape))

    def to_numpy(self, x: Array) -> Any:
        self.synchronise(x)
        return x.compute()

    def session(self) -> AbstractContextManager[Any]:
        """One that computes in this thread: the arrays here are small."""
        return importlib.import_module("dask").config.set(scheduler="synchronous")  # type: ignore[no-any-return]

    def synchronise(self, x: Array) -> None:
        x.dask = x.persist().dask  # what was computed is kept, so that a run of many steps does not begin anew at each
