"""Threads that share the numbers of a large step. They work as kernels let go of the interpreter's lock."""

import ctypes
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from xopt.backends.base import say_once

PARALLEL = 1 << 19
"""Numbers from which on a step is shared: at half as many, waking a thread costs what it saves.

Threads of OpenMP that spin need not be woken, but all must come: one that the system has put aside keeps a step for milliseconds.
"""

SHARE = 1 << 16
"""Numbers that a thread takes at a time. One that wakes late, or is held up, takes fewer times."""

LOOKS = 100_000
"""How often the stepping thread looks whether the others are done, which takes some 50 microseconds; then it sleeps."""

PAUSE = 1e-4
"""Seconds between looks at shares that take long: that of a thread that the system has put aside."""

SUBNORMAL, ONE, QUARTER = 1e-310, 1.0, 2.0**-54
"""Numbers that Python does not fold; the last is a quarter of what is between 1 and the next number."""

FORKED = 0x40
"""The flag of a process that Linux sets where it was forked and runs the same program still."""


class Pool(NamedTuple):
    """OpenMP's threads, for one kernel. Those of torch spin for milliseconds after each operation, and leave no core to others."""

    members: Callable[[], int]  # how many share the work of this thread
    team: Callable[[], Callable[..., None] | None]  # what runs the kernel on them: ``numba_runtime.in_team``; None where it fails


class Helpers:
    """The threads of this process that help the one that steps, and where they get their work."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[Any] = SimpleQueue()
        self.count = 0


_helpers: dict[int, Helpers] = {}  # by process: threads do not survive a fork
_parallel: dict[int, int] = {}  # by process: the address of GOMP_parallel, or 0
_starting = threading.Lock()


def _forked() -> None:
    """Another thread may have held the lock when the process forked. OpenMP waits for ever for threads that are gone."""
    global _starting
    _starting = threading.Lock()
    _helpers.clear()
    _parallel[os.getpid()] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def run(kernel: Callable[..., None], arguments: tuple[Any, ...], total: int, pool: Pool | None = None) -> None:
    """Runs a kernel over all numbers, in several threads where there are many: those of a pool, or helpers.

    The kernel is called with ``arguments``, with two counters, of the numbers that are taken and of those that are done, and with
    how often to look whether all are done. It takes a share of them as long as there is one, so that it does not matter how many
    threads come to help, or when.

    A step is shared only by threads that round as Python does, to nearest and with subnormal numbers: a thread may have been told
    to flush those, by ``torch.set_flush_denormal`` or another library, and then a number would depend on who took it. The step of a
    thread that flushes flushes as a whole.
    """
    progress, most = np.zeros(2, np.int64), 1
    if total >= PARALLEL and rounds_as_python_does():
        most = pool.members() if pool else threads()
    if pool and most > 1 and (parallel := _openmp()) and (team := pool.team()):
        team(parallel, most, (SUBNORMAL, ONE, QUARTER), (*arguments, progress, 0))
        return
    helpers = min(most, -(-total // SHARE)) - 1
    if helpers:
        there = _helpers.get(os.getpid()) or _started()
        helpers = min(helpers, there.count)
    if not helpers:
        kernel(*arguments, progress, 0)
        return
    try:
        for _ in range(helpers):
            there.calls.put((kernel, (*arguments, progress, 0)))
        kernel(*arguments, progress, LOOKS)
    finally:
        if progress[1] != total:
            _wait(kernel, arguments, progress, total)


def rounds_as_python_does() -> bool:
    """Whether this thread keeps subnormal numbers and rounds to nearest. A new thread takes after the one that starts it."""
    return SUBNORMAL * 0.5 != 0.0 and ONE + QUARTER == ONE and ONE + 3.0 * QUARTER != ONE


def _openmp() -> int:
    """The address of ``GOMP_parallel``; 0 where there is none, or where its threads may be those of a process before a fork."""
    process = os.getpid()
    if process not in _parallel:
        _parallel[process] = 0 if _is_fork() else _gomp_parallel()
    return _parallel[process]


def _gomp_parallel() -> int:
    """As the dynamic linker finds it among what is loaded for all, as it did for torch: torch loads its OpenMP so."""
    if sys.platform != "linux":
        return 0
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0


def _is_fork() -> bool:
    """Whether this process was forked, before this module was there too; also where that cannot be told."""
    try:
        flags = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[6]
        return bool(int(flags) & FORKED)
    except (OSError, ValueError, IndexError):
        return True


def _wait(kernel: Callable[..., None], arguments: tuple[Any, ...], progress: Any, total: int) -> None:
    """Until all is done, also where a signal interrupts, whatever its handler raises: the arrays must outlive it.

    One that came before this thread took a share has left it to be taken now: it may be that nobody else takes any.
    """
    interrupt = None
    while progress[1] != total:
        try:
            if progress[0] < total:
                kernel(*arguments, progress, 0)
            time.sleep(PAUSE)
        except BaseException as caught:  # noqa: BLE001 - raised when it may be
            interrupt = caught
    if interrupt:
        raise interrupt


def _started() -> Helpers:
    """Starts the threads of this process, all but the one that steps; fewer where the system gives no more."""
    with _starting:
        there = _helpers.get(os.getpid())
        if there is None:
            there = Helpers()
            try:
                while there.count < threads() - 1:
                    threading.Thread(target=_help, args=(there.calls,), name="xopt", daemon=True).start()
                    there.count += 1
            except (RuntimeError, MemoryError) as error:
                say_once(
                    f"large steps are shared by {1 + there.count} of {threads()} threads, as no more could be started ({error})"
                )
            _helpers[os.getpid()] = there
    return there


def _help(calls: "SimpleQueue[Any]") -> None:
    while True:
        kernel, arguments = calls.get()
        if rounds_as_python_does():  # else its share is taken by another
            kernel(*arguments)
        del kernel, arguments  # not kept until the next step


@cache
def threads() -> int:
    """As many as numba would use: ``NUMBA_NUM_THREADS``, or the cores that this process may use."""
    return int(importlib.import_module("numba").config.NUMBA_NUM_THREADS)
