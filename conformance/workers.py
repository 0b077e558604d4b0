"""Where tasks run: in this process, or in several new ones."""

import contextlib
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

from xopt import backends

Submit = Callable[..., "Future[Any]"]


@contextlib.contextmanager
def workers(jobs: int, libraries: Sequence[str]) -> Iterator[Submit]:
    """Where tasks run: in this process, each when its result is asked for, or in several new ones."""
    if jobs > 1:
        with processes(jobs, libraries) as submit:
            yield submit
    else:
        yield _Lazy


@contextlib.contextmanager
def processes(jobs: int, libraries: Sequence[str] | None = None) -> Iterator[Submit]:
    """New processes to run tasks in, which end with what is asked of them, or at once where that is interrupted.

    Where ``libraries`` are named, each process imports them as it starts.
    """
    pool = pool_of(jobs, libraries) if libraries is not None else ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))

    def submit(*task: Any) -> "Future[Any]":
        with uninterrupted():
            return pool.submit(*task)

    try:
        yield submit
    except KeyboardInterrupt:
        for process in list((pool._processes or {}).values()):  # in the middle of what they do
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=sys.exc_info()[0] is not None)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Processes that are started meanwhile leave Ctrl-C to the one that starts them: else each would show a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited; what comes meanwhile comes afterwards
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Ctrl-C ends a block also where an error takes its place: Hypothesis has assertions that fail when it is interrupted."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            raise KeyboardInterrupt


def pool_of(jobs: int, libraries: Sequence[str]) -> ProcessPoolExecutor:
    """New processes, which all import array libraries at once as they start."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_start, initargs=(libraries,))


def _start(libraries: Sequence[str]) -> None:
    """JAX would take three quarters of a GPU's memory in the first process, and the others would find none.

    Of a CPU it makes two devices, so that arrays are drawn which devices share.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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
            with heeding_interrupts():
                found = function(*args)
            self.set_result(found)
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


def processor() -> str:
    """The name of the CPU, or of its architecture where it has none."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
