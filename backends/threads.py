"""Threads that share the numbers of a large step. They work as kernels let go of the interpreter's lock."""

import importlib
import os
import threading
import time
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from typing import Any

import numpy as np

PARALLEL = 1 << 19
"""Numbers from which on a step is shared: at half as many, waking a thread costs what it saves."""

SHARE = 1 << 16
"""Numbers that a thread takes at a time. One that wakes late, or is held up, takes fewer times."""

LOOKS = 100_000
"""How often the stepping thread looks whether the others are done, which takes some 50 microseconds; then it sleeps."""

PAUSE = 1e-4
"""Seconds between looks at shares that take long: that of a thread that the system has put aside."""

_calls: dict[int, "SimpleQueue[Any]"] = {}  # by process: threads do not survive a fork
_starting = threading.Lock()


def run(kernel: Callable[..., None], arguments: tuple[Any, ...], total: int) -> None:
    """Runs a kernel over all numbers, in several threads where there are many.

    The kernel is called with ``arguments``, with two counters, of the numbers that are taken and of those that are done, and with
    how often to look whether all are done. It takes a share of them as long as there is one, so that it does not matter how many
    threads come to help, or when.
    """
    progress = np.zeros(2, np.int64)
    helpers = min(threads(), -(-total // SHARE)) - 1 if total >= PARALLEL else 0
    if not helpers:
        kernel(*arguments, progress, 0)
        return
    calls = _calls.get(os.getpid()) or _started()
    try:
        for _ in range(helpers):
            calls.put((kernel, (*arguments, progress, 0)))
        kernel(*arguments, progress, LOOKS)
    finally:
        if progress[1] != total:
            _wait(progress, total)


def _wait(progress: Any, total: int) -> None:
    """Until all is done, also where the user interrupts: the arrays must outlive it."""
    interrupt = None
    while progress[1] != total:
        try:
            time.sleep(PAUSE)
        except KeyboardInterrupt as caught:
            interrupt = caught
    if interrupt:
        raise interrupt


def _started() -> "SimpleQueue[Any]":
    """Starts the threads of this process, all but the one that steps."""
    with _starting:
        calls = _calls.get(os.getpid())
        if calls is None:
            calls = SimpleQueue()
            for _ in range(threads() - 1):
                threading.Thread(target=_help, args=(calls,), name="xopt", daemon=True).start()
            _calls[os.getpid()] = calls
    return calls


def _help(calls: "SimpleQueue[Any]") -> None:
    while True:
        kernel, arguments = calls.get()
        kernel(*arguments)
        del kernel, arguments  # not kept until the next step


@cache
def threads() -> int:
    """As many as numba would use: ``NUMBA_NUM_THREADS``, or the cores that this process may use."""
    return int(importlib.import_module("numba").config.NUMBA_NUM_THREADS)
