"""Where tasks run: in this process, or in several new ones."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

from xopt import backends

Submit = Callable[..., "Future[Any]"]


class workers:  # noqa: N801 - a context manager that reads as a word
    """Where tasks run: in this process, each when it is submitted, or in several new ones."""

    def __init__(self, jobs: int, libraries: Sequence[str]) -> None:
        self.pool = pool_of(jobs, libraries) if jobs > 1 else None

    def __enter__(self) -> Submit:
        return self.pool.submit if self.pool else _Lazy

    def __exit__(self, kind: object, *rest: object) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=kind is not None)


def pool_of(jobs: int, libraries: Sequence[str]) -> ProcessPoolExecutor:
    """New processes, which all import array libraries at once as they start."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start, initargs=(libraries,))


def _start(libraries: Sequence[str]) -> None:
    """JAX would take three quarters of a GPU's memory in the first process, and the others would find none.

    Of a CPU it makes two devices, so that arrays are drawn which devices share.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=2".strip()
    backends.available(libraries)


class _Lazy(Future):  # type: ignore[type-arg]
    """A task that runs in this process when its result is asked for."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__()
        self._call = function, args

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            function, args = self._call
            self.set_result(function(*args))
        return super().result(timeout)


def as_completed(tasks: dict["Future[Any]", Any]) -> Iterator["Future[Any]"]:
    pending = set(tasks)
    yield from (task for task in tasks if isinstance(task, _Lazy))
    pending = {task for task in pending if not isinstance(task, _Lazy)}
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        yield from done


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
