"""What only a fresh process can tell: the memory that a step takes beyond the state, and how long the first call takes.

``python -m xopt.conformance.bench.processes memory|first RULE CONTENDER SEED SIZE...`` prints what it found as JSON.
"""

import ctypes
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from xopt.conformance.bench.contender import Contender, Running
from xopt.conformance.bench.contenders import contenders
from xopt.conformance.bench.shapes import one_leaf, size_of

CACHES = ("XOPT_CACHE_DIR", "NUMBA_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "CUPY_CACHE_DIR")
"""The variables that say where compiled code is kept."""

TIMEOUT = 600


def memory(rule: str, contender: str, sizes: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """For each size the bytes beyond the state: at most during a step (``extra``), and kept since before the first (``kept``).

    Raises RuntimeError where the process fails.
    """
    found: list[dict[str, Any]] = _asked("memory", rule, contender, seed, sizes, {})
    return found


def first_call(rule: str, contender: str, seed: int) -> dict[str, float]:
    """Seconds of the first step of ten numbers: with nothing compiled on disk, and with what that left there.

    Raises RuntimeError where a process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        caches = {name: str(Path(folder) / name) for name in CACHES}
        empty, again = (_asked("first", rule, contender, seed, ["10"], caches) for _ in range(2))
        return {"empty": empty, "again": again}


def _asked(what: str, rule: str, contender: str, seed: int, sizes: Sequence[str], variables: dict[str, str]) -> Any:
    command = [sys.executable, "-P", "-m", "xopt.conformance.bench.processes", what, rule, contender, str(seed), *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT, env=os.environ | variables)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise RuntimeError(lines[-1])
    return json.loads(done.stdout.splitlines()[-1])


# In the process.


def main(what: str, rule: str, name: str, seed: str, *sizes: str) -> None:
    contender = next(one for one in contenders(rule, peers=True) if one.name == name)
    found: Any = _first(contender, int(seed)) if what == "first" else list(_memory(contender, sizes, int(seed)))
    sys.stdout.write(f"{json.dumps(found)}\n")


def _first(contender: Contender, seed: int) -> float:
    running = contender.prepare(one_leaf(10).shapes, seed)  # imports the library; fusing imports and compiles at the first step
    began = time.perf_counter()
    running.step()
    running.wait()
    return time.perf_counter() - began


def _memory(contender: Contender, sizes: Sequence[str], seed: int) -> Iterator[dict[str, Any]]:
    meter = _meter(contender)
    _take(contender.prepare(one_leaf(10).shapes, seed))  # compiles what does not depend on the size
    for size in sizes:
        running = contender.prepare(size_of(size).shapes, seed)
        prepared = meter.used()
        _take(running, steps=3)  # touches all pages, and compiles what depends on the size; optax's jitted step compiles twice
        used = meter.used()
        meter.reset()
        _take(running)
        yield {"size": size, "extra": max(0, meter.peak() - used), "kept": used - prepared}
        del running


def _take(running: Running, steps: int = 1) -> None:
    for _ in range(steps):
        running.step()
    running.wait()
    time.sleep(0.05)  # JAX frees arrays in threads of its own


class Meter(NamedTuple):
    """Of memory, in bytes."""

    used: Callable[[], int]
    reset: Callable[[], object]  # forgets what was used at most
    peak: Callable[[], int]


def _meter(contender: Contender) -> Meter:
    """Of the memory that a contender's arrays are in."""
    if contender.device == "cpu":
        return _process_meter()
    if contender.library == "torch":
        cuda = importlib.import_module("torch").cuda
        return Meter(cuda.memory_allocated, cuda.reset_peak_memory_stats, cuda.max_memory_allocated)
    if contender.library == "cupy":
        pool = importlib.import_module("cupy").get_default_memory_pool()
        return Meter(pool.used_bytes, pool.free_all_blocks, pool.total_bytes)  # the pool gives nothing back by itself
    msg = f"{contender.library} does not say how much memory of {contender.device} a step takes at most"
    raise RuntimeError(msg)


def _process_meter() -> Meter:
    """Of the whole process: Linux remembers how much was resident at most, and forgets it when told to."""
    status, forget = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not forget.exists():
        msg = "the most memory of a process is known on Linux only"
        raise RuntimeError(msg)

    def read(name: str) -> int:
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith(f"{name}:"))

    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)  # glibc's

    def used() -> int:
        trim(0)  # what was freed is given back, or a step could use it unseen
        return read("VmRSS")

    return Meter(used, lambda: forget.write_text("5"), lambda: read("VmHWM"))


if __name__ == "__main__":
    main(*sys.argv[1:])
