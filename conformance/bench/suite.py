"""The whole benchmark: which runs there are, what they leave out for want of memory, and the report that comes of them."""

import contextlib
import datetime
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from xopt import backends
from xopt.backends.base import variables
from xopt.conformance.bench.by_hand import BY_HAND, overhead
from xopt.conformance.bench.checks import checks
from xopt.conformance.bench.contender import EAGER, FUSED, LIMIT, Contender, Running
from xopt.conformance.bench.contenders import contenders
from xopt.conformance.bench.leaf_costs import leaf_costs
from xopt.conformance.bench.loop import SIZES, InLoop, in_loop
from xopt.conformance.bench.measure import Spread, Turns, interleave, ratio, spread
from xopt.conformance.bench.processes import first_call, memory
from xopt.conformance.bench.shapes import LADDER, Size, one_leaf
from xopt.conformance.report.summary import command_line
from xopt.conformance.workers import cores, processor
from xopt.rules import RULES

Json = dict[str, Any]

LIBRARIES = ("numpy", "numba", "torch", "jax", "jaxlib", "optax", "pytorch_optimizer", "cupy-cuda12x", "cupy-cuda13x")
"""Whose versions the report names."""

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Variables that change what is timed."""

ROOM = 0.8
"""The share of the free memory that the contenders of a run may fill."""

PREPARING, MEMORY, FIRST = 4.0, 3.0, 8.0
"""About how many seconds these take: preparing a run, looking at the memory of one contender, and at its first calls."""

MILLION = one_leaf(10**6)

LINEAR = tuple(one_leaf(10**power) for power in (6, 7, 8))
"""Sizes over which the time must be linear."""


class Entry(NamedTuple):
    """One place in a run."""

    contender: Contender
    size: Size

    @property
    def moved(self) -> int:
        """Bytes that a step must move."""
        return self.size.numbers * self.contender.bytes_per_number

    @property
    def keeps(self) -> int:
        """Bytes of its arrays."""
        return 4 * self.size.numbers * self.contender.arrays

    @property
    def takes(self) -> int:
        """Bytes that a step may take beside that: a new state and a few results on the way, unless it steps in place."""
        in_place = self.contender.kind in (FUSED, LIMIT)
        return 0 if in_place else self.keeps + 16 * self.size.numbers


class Race(NamedTuple):
    """Contenders that take turns."""

    rule: str
    name: str
    entries: list[Entry]


class BenchEvents:
    """What happens during a benchmark; override what should be shown."""

    def planned(self, seconds: float) -> None: ...
    def began(self, what: str) -> None: ...
    def passed(self, seconds: float) -> None: ...
    def overheads(self, found: Sequence[Json]) -> None: ...
    def leaves(self, found: Sequence[Json]) -> None: ...
    def loop(self, found: Sequence[Json]) -> None: ...
    def run(self, found: Json) -> None: ...
    def memory(self, found: Sequence[Json]) -> None: ...
    def first_calls(self, found: Sequence[Json]) -> None: ...


def bench(
    rules: Sequence[str] | None = None,
    sizes: Sequence[Size] = LADDER,
    *,
    peers: bool = False,
    only: Sequence[str] = (),
    seconds: float = 8.0,
    seed: int = 0,
    processes: bool = True,
    leaves: bool = False,
    loop: bool = False,
    limits: bool = False,
    events: BenchEvents | None = None,
) -> Json:
    """Times steps, and looks at their memory and first calls.

    Parameters
    ----------
    rules
        Names from ``RULES``. Default: AdEMAMix, and the small eager steps of all.
    sizes
        What they step.
    peers
        Whether other people's optimizers take part.
    only
        Take only contenders whose name contains one of these. Default: all.
    seconds
        For the rounds of each run; five rounds are taken in any case.
    seed
        Of the numbers and of the order in a round.
    processes
        Whether to look at memory and first calls too, which takes a fresh process for each contender.
    leaves
        Whether to time trees of many small leaves as well, of all rules unless some are named.
    loop
        Whether to time steps in a training loop as well: AdamW and AdEMAMix beside torch's AdamW, optax's and the touch kernel.
    limits
        Whether to hold what was found against the limits that xopt sets itself, in ``checks``.
    events
        Told what happens, for a progress bar.

    Returns
    -------
    dict
        All that was found, ready for JSON. What did not run is in it, with the reason.

    Raises
    ------
    InterruptedBench
        At a KeyboardInterrupt, of which it is one; its ``report`` has what was found until then.
    """
    began, events = time.monotonic(), events or BenchEvents()
    chosen = list(dict.fromkeys(rules or ("ademamix",)))
    small = [rule for rule in dict.fromkeys(rules or BY_HAND) if rule in BY_HAND]
    sizes = sorted(dict.fromkeys(sizes), key=lambda size: size.numbers)
    options = {"rule": rules, "size": [size.name for size in sizes], "peers": peers, "only": only, "seconds": seconds, "seed": seed}
    how = {"times-only": not processes, "leaves": leaves, "loop": loop, "limits": limits}
    about = _about(seed, seconds) | {"command": command_line("bench", options | how), "interrupted": None}
    found = {rule: [one for one in contenders(rule, peers) if not only or any(x in one.name for x in only)] for rule in chosen}
    reasons = {(rule, one.name): one.why_not() for rule in chosen for one in found[rule]}
    here = {rule: [one for one in found[rule] if not reasons[rule, one.name]] for rule in chosen}
    about["devices"] = _devices([one for rule in chosen for one in here[rule]])
    runs = [run for rule in chosen for run in _runs(rule, here[rule], sizes)]
    looked_at = [(rule, one) for rule in chosen for one in here[rule] if one.kind != LIMIT] if processes else []
    called = [(rule, one) for rule, one in looked_at if one.kind == FUSED]
    events.planned(len(small) + len(runs) * (PREPARING + seconds) + MEMORY * len(looked_at) + FIRST * len(called))

    report: Json = {
        "scope": _scope(chosen, sizes, found, peers, only),
        "schema": "xopt-bench-2",
        "about": about,
        "rules": chosen,
        "sizes": [{"name": size.name, "leaves": size.leaves, "numbers": size.numbers} for size in sizes],
        "peers": peers,
        "contenders": [_described(rule, one, reasons[rule, one.name]) for rule in chosen for one in found[rule]],
        "overhead": [],
        "leaves": [],
        "loop": [],
        "runs": [],
        "memory": [],
        "first_calls": [],
    }
    doing = "nothing"
    try:
        for rule in small:
            doing = f"{rule}, 10 numbers"
            events.began(doing)
            report["overhead"].append(overhead(rule)._asdict())
            events.passed(1)
        events.overheads(report["overhead"])
        for rule in (rules or RULES) if leaves else ():
            doing = f"{rule}, many leaves"
            events.began(doing)
            report["leaves"] += [cost._asdict() for cost in leaf_costs(rule)]
        if leaves:
            events.leaves(report["leaves"])
        for size in SIZES if loop else ():
            doing = f"a training loop, {size.name}"
            events.began(doing)
            report["loop"] += [_nested(row) for row in in_loop(size, seed)]
        if loop:
            events.loop(report["loop"])
        for run in runs:
            doing = f"{run.rule}, {run.name}"
            events.began(doing)
            report["runs"].append(_timed(run, seconds, seed, events))
            events.run(report["runs"][-1])
        if processes:
            doing = "memory"
            report["memory"] = _memories(looked_at, sizes, seed, events)
            events.memory(report["memory"])
            for rule, one in called:
                doing = f"{rule}, first call"
                events.began(doing)
                report["first_calls"].append(_first_call(rule, one, seed))
                events.passed(FIRST)
            events.first_calls(report["first_calls"])
    except KeyboardInterrupt:
        about["interrupted"] = doing
    report["checks"] = checks(report) if limits else []
    about["seconds"] = round(time.monotonic() - began, 1)
    if about["interrupted"] is not None:
        raise InterruptedBench(report)
    return report


class InterruptedBench(KeyboardInterrupt):
    """A benchmark was interrupted: with what it had found."""

    def __init__(self, report: Json) -> None:
        super().__init__(f"interrupted in {report['about']['interrupted']}")
        self.report = report


def _scope(rules: Sequence[str], sizes: Sequence[Size], found: dict[str, list[Contender]], peers: bool, only: Sequence[str]) -> str:
    """What was asked for, in a line."""
    names = dict.fromkeys(one.name for contenders_of in found.values() for one in contenders_of)
    said = f"whose name has {' or '.join(only)}" if only else "with other libraries" if peers else "of xopt, and its limits"
    what = "all rules" if set(rules) == set(RULES) else ", ".join(rules)
    return f"{what}, float32; sizes {', '.join(size.name for size in sizes)}; {len(names)} contenders {said}"


def _nested(row: InLoop) -> Json:
    return {name: value._asdict() if isinstance(value, Spread) else value for name, value in row._asdict().items()}


def _described(rule: str, one: Contender, reason: str | None) -> Json:
    fields = one._asdict()
    return {key: fields[key] for key in ("name", "library", "device", "kind", "steps", "bytes_per_number")} | {
        "rule": rule,
        "reason": reason,
    }


def _runs(rule: str, here: Sequence[Contender], sizes: Sequence[Size]) -> Iterator[Race]:
    for size in sizes:
        entries = [Entry(one, size) for one in here]
        if size.name == "1000x1000":  # beside the same numbers in one leaf
            entries += [Entry(one, MILLION) for one in here if one.kind in (FUSED, LIMIT)]
        yield Race(rule, size.name, entries)
    if all(size in sizes for size in LINEAR):
        some = [one for one in here if one.kind == FUSED or one.name == "touch"]
        yield Race(rule, "linear", [Entry(one, size) for one in some for size in LINEAR])


def _timed(run: Race, seconds: float, seed: int, events: BenchEvents) -> Json:
    entries, left_out = that_fit(run.entries)
    began = time.perf_counter()
    running: list[tuple[Entry, Running]] = []
    for entry in entries:
        try:
            one = entry.contender.prepare(entry.size.shapes, seed)
            one.step()
            one.wait()
        except Exception as error:  # noqa: BLE001 - one that fails must not end the run of the others
            left_out.append(_left_out(entry, f"{type(error).__name__}: {error}"))
        else:
            running.append((entry, one))
    events.passed(min(PREPARING, time.perf_counter() - began))
    turns = interleave([one for _, one in running], seconds, seed, told=events.passed) if running else []
    taken = [(entry, one) for (entry, _), one in zip(running, turns, strict=True)]
    touches = {entry.size: (entry, one) for entry, one in taken if entry.contender.name == "touch"}
    found = [_found(entry, one, touches.get(entry.size)) for entry, one in taken]
    return {"rule": run.rule, "name": run.name, "entries": found, "left_out": left_out}


def _found(entry: Entry, turns: Turns, touch: tuple[Entry, Turns] | None) -> Json:
    beside = None
    if touch is not None:
        beside = ratio(turns.rounds, touch[1].rounds, touch[0].moved / entry.moved)
    return {
        "contender": entry.contender.name,
        "size": entry.size.name,
        "numbers": entry.size.numbers,
        "leaves": entry.size.leaves,
        "bytes": entry.moved,
        "steps": turns.steps,
        "seconds": spread(x for x in turns.rounds if x is not None)._asdict(),
        "to_touch": beside and beside._asdict(),
        "rounds": [x and float(f"{x:.6g}") for x in turns.rounds],
    }


def _left_out(entry: Entry, reason: str) -> Json:
    return {"contender": entry.contender.name, "size": entry.size.name, "reason": reason}


def that_fit(entries: Sequence[Entry]) -> tuple[list[Entry], list[Json]]:
    """Those for which there is memory, first come, first served, and the others."""
    free = free_memory()
    taken: list[Entry] = []
    left_out = []
    kept = most = 0
    for entry in entries:
        if free is not None and kept + entry.keeps + max(most, entry.takes) > ROOM * free:
            left_out.append(_left_out(entry, _no_room(free)))
            continue
        taken.append(entry)
        kept, most = kept + entry.keeps, max(most, entry.takes)
    return taken, left_out


def _no_room(free: int | None) -> str:
    return f"there is no room for it: {(free or 0) / 1e9:.1f} GB of memory are free"


def free_memory() -> int | None:
    """Bytes that this process can still have; None where the system does not say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return None


def _memories(looked_at: Sequence[tuple[str, Contender]], sizes: Sequence[Size], seed: int, events: BenchEvents) -> list[Json]:
    """Several processes at a time, as nothing is timed."""
    together = min(4, cores())
    free = free_memory()

    def look(rule: str, one: Contender) -> list[Json]:
        entries = [Entry(one, size) for size in sizes]
        fit = [entry.size.name for entry in entries if free is None or together * (entry.keeps + entry.takes) < ROOM * free]
        reason = _no_room(free)
        rows: dict[str, Json] = {}
        try:
            rows = {row["size"]: row for row in memory(rule, one.name, fit, seed)}
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        known = {"rule": rule, "contender": one.name, "reason": None}
        unknown = known | {"extra": None, "kept": None, "reason": reason}
        return [known | rows[size.name] if size.name in rows else unknown | {"size": size.name} for size in sizes]

    found = []
    events.began("memory")
    with ThreadPoolExecutor(together) as pool:
        for rows in pool.map(lambda pair: look(*pair), looked_at):
            found += rows
            events.passed(MEMORY)
    return found


def _first_call(rule: str, one: Contender, seed: int) -> Json:
    found: Json = {"rule": rule, "contender": one.name, "empty": None, "again": None, "reason": None}
    try:
        return found | first_call(rule, one.name, seed)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return found | {"reason": str(error)}


def _about(seed: int, seconds: float) -> Json:
    def version_of(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    return {
        "xopt": version("array-xopt"),
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := version_of(name))},
        "machine": f"{platform.machine()}, {cores()} cores, {platform.system()}",
        "cpu": processor(),
        "variables": variables() | {name: os.environ[name] for name in THREADS if name in os.environ},
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seed": seed,
        "seconds_of_a_run": seconds,
    }


def _devices(here: Sequence[Contender]) -> Json:
    """What the devices are on which something is stepped, other than the CPU."""
    places = dict.fromkeys((one.library, one.device) for one in here if one.kind in (EAGER, FUSED) and one.device != "cpu")
    return {f"{library} {device}": backends.get(library, device).hardware()["name"] for library, device in places}
