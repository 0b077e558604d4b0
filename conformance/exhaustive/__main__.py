"""``python -m xopt.conformance.exhaustive``."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from xopt.backends import BACKENDS, available, get
from xopt.conformance.exhaustive.departures import stale, unexplained
from xopt.conformance.exhaustive.exact import PROVED, ROUNDED
from xopt.conformance.exhaustive.functions import in_arrays, on_the_host
from xopt.conformance.exhaustive.probed import probed
from xopt.conformance.exhaustive.store import COMMAND, RESULTS, Store
from xopt.conformance.exhaustive.sweep import Progress, Task, can, sweep, tasks
from xopt.conformance.exhaustive.table import tables
from xopt.conformance.exhaustive.ways import Way, modes
from xopt.conformance.results import DTYPES

BY_DEFAULT = ("numpy", "torch", "jax", "cupy")

FUNCTIONS = "functions"
"""What else can be asked for beside the operations."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 everything is right or in the ledger, 1 something is not, 2 bad usage, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Prove operations on all operands, where the probes sample.")
    add, many = parser.add_argument, "repeated; default: all"
    add("--backend", action="append", choices=BACKENDS, help=f"repeated; default: {', '.join(BY_DEFAULT)}")
    add("--operation", action="append", choices=(*PROVED, FUNCTIONS), help=many)
    add("--dtype", action="append", choices=DTYPES, help=many)
    add("--file", type=Path, help="keeps what is found; a run that was stopped goes on from it")
    add("--seconds", type=float, default=float("inf"), help="stop after so many; the file says how far it came")
    add("--table", action="store_true", help="run nothing, and print the tables of the file; default: of xopt's own")
    given = parser.parse_args(arguments)
    if given.file and not given.file.parent.is_dir():
        parser.error(f"--file: {given.file.parent} is no folder")
    try:
        store = Store.read(given.file or (RESULTS if given.table else None))
    except (ValueError, KeyError, TypeError):
        parser.error(f"--file: {given.file} is none that this command wrote; name another, or delete it")
    if given.table:
        say(tables(store))
        return 0
    try:
        return _run(given, store)
    except KeyboardInterrupt:
        say("interrupted" + (f"; go on with --file {given.file}" if given.file else ""))
        return 130


def _run(given: argparse.Namespace, store: Store) -> int:
    ways, missing = ways_of(given.backend or BY_DEFAULT)
    store.more["not run"] = missing
    for name, why in missing.items():
        say(f"{name}: not run, because: {why}")
    operations = given.operation or (*PROVED, FUNCTIONS)
    asked = [task for task in tasks() if task.operation in operations and (given.dtype is None or task.dtype in given.dtype)]
    until = time.monotonic() + given.seconds
    if given.dtype is None or "float64" in given.dtype:
        store.put([probed(way, one) for way in ways if "float64" in way.dtypes() for one in ROUNDED if one in operations])
    if FUNCTIONS in operations:
        measure(ways, store)
    for task in asked:
        run(task, [way for way in ways if can(way, task)], store, until)
    left = [task.name for task in asked if not all(store.known(task, way) for way in ways if can(way, task))]
    if left:
        say(f"not finished: {', '.join(left)}")
    wrong = [line for row in store.rows for line in unexplained(row)] + stale(store.rows)
    for line in wrong:
        say(line)
    say(f"{len(store.rows)} rows, {len(wrong)} that the ledger does not explain")
    return 1 if wrong else 0


def ways_of(names: Sequence[str]) -> tuple[list[Way], dict[str, str]]:
    """The ways of computing that are here, and why others are not."""
    found = available(names)
    backends = [get(name, device) for name, one in found.items() if one.reason is None for device in one.devices]
    missing = {name: one.reason for name, one in found.items() if one.reason is not None}
    return [Way(backend, mode) for backend in backends for mode in modes(backend)], missing


def measure(ways: list[Way], store: Store) -> None:
    """The functions, anew each time: they take a minute."""
    found = list(on_the_host())
    for way in ways:
        if way.mode != "fused":
            found += in_arrays(way.backend, way.mode == "traced")
            say(f"functions of {way.name}")
    new = [one._asdict() for one in found]
    keys = {(one["function"], one["by"], one["library"]) for one in new}
    kept = [one for one in store.more.get(FUNCTIONS, []) if (one["function"], one["by"], one["library"]) not in keys]
    store.more[FUNCTIONS] = [*kept, *new]
    store.write()


def run(task: Task, ways: list[Way], store: Store, until: float) -> None:
    """Takes a task to its end, if there is time."""
    if all(store.known(task, way) for way in ways):
        return
    progress = store.begun(task, ways)
    for now in sweep(progress, ways, lambda: store.keep(progress, ways), until=until):
        say(_told(now))


def _told(now: Progress) -> str:
    share = now.done / now.task.total
    left = "" if now.finished else f", {now.seconds / share - now.seconds:,.0f} s left"
    return f"{now.task.name}: {share:.1%} of {now.task.total:,}, {now.seconds:,.0f} s{left}"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
