"""Records are written: from clean sources, of complete runs, on devices."""

import json
import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from xopt import backends
from xopt.backends._cupy import EMULATED
from xopt.backends._torch import INTERPRETED
from xopt.conformance.compare.candidate import Candidate
from xopt.conformance.digests.runs import SHAPES
from xopt.conformance.evidence.measurement import differences, digest, numpy_digest
from xopt.conformance.evidence.record import (
    COMMAND,
    STATEMENT,
    TEST_RESULT,
    body_hash,
    cell_key,
    missing_cells,
    some_of,
    subjects_of,
)
from xopt.conformance.evidence.sources import source_hashes
from xopt.conformance.report.report import BackendReport, Report
from xopt.conformance.results import BROKEN, MODES, NOT_RUN, WRONG, Cell
from xopt.conformance.workers import workers
from xopt.rules import RULES

VAGUE = 0.1
"""Share of a cell's numbers of which the bound may say nothing: where hyperparameters are so far out that all overflows."""


def checkout() -> tuple[str | None, list[str]]:
    """The commit that the sources lie in, and which of them differ from it. None where they lie in no checkout."""
    if not (ROOT / ".git").exists():
        return None, []

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True).stdout

    changed = git("status", "--porcelain", "--untracked-files=all", "--", *_SOURCES)
    return git("rev-parse", "HEAD").strip(), changed.splitlines()


ROOT = Path(__file__).resolve().parents[2]
_SOURCES = ("xopt", "backends", "conformance", ":(exclude)conformance/evidence/records")


def require_clean() -> str | None:
    """Returns the commit. Raises ValueError where the sources differ from it: a record must be of sources that others can get."""
    commit, changed = checkout()
    if changed:
        shown = ", ".join(line[3:] for line in changed[:3]) + (", ..." if len(changed) > 3 else "")
        msg = (
            f"{len(changed)} source files differ from commit {str(commit)[:12]} ({shown}), so that a record could not be checked "
            f"by others; commit or stash them, then run {COMMAND} again"
        )
        raise ValueError(msg)
    return commit


def write(report: Report, directory: Path, ledger: Sequence[str] = (), jobs: int = 1) -> list[Path]:
    """Writes a record for each backend and device of a report; older records stay.

    Parameters
    ----------
    report
        Of a run of all rules in all dtypes and modes.
    directory
        Made where it is not there.
    ledger
        The accepted deviations that the run met, in words.
    jobs
        Processes that compute the digests.

    Raises
    ------
    ValueError
        Where the sources differ from their commit, where a cell did not run, or where a device is none; nothing is written then.
    """
    commit = require_clean()
    ran = [found for found in report.backends if found.reason is None]
    for found in ran:
        if found.device.startswith((EMULATED, INTERPRETED)):
            msg = f"{found.name} {found.device} is this CPU, which shows nothing of a device; make a record where there is one"
            raise ValueError(msg)
    for found in ran:
        _require_complete(report, found)
    with workers(jobs, [found.name for found in ran]) as submit:
        measuring = [[submit(measure, cell, found) for cell in _cells(report, found)] for found in ran]
        measured = [[task.result() for task in tasks] for tasks in measuring]
    records = [_record(report, found, commit, ledger, cells) for found, cells in zip(ran, measured, strict=True)]
    directory.mkdir(parents=True, exist_ok=True)
    return [_save(record, directory) for record in records]


def _modes(found: BackendReport) -> list[str]:
    can = {"eager": True, "traced": found.tracer is not None, "fused": found.compiler is not None}
    return [mode for mode in MODES if can[mode]]


def _cells(report: Report, found: BackendReport) -> list[Cell]:
    return [cell for cell in report.cells if (cell.backend, cell.device) == (found.name, found.device) and cell.verdict != NOT_RUN]


def _require_complete(report: Report, found: BackendReport) -> None:
    have = {cell_key(cell.rule, cell.dtype, cell.mode) for cell in _cells(report, found)}
    missing = missing_cells(have, list(RULES), found.dtypes, _modes(found))
    if missing:
        msg = (
            f"{len(missing)} cells of {found.name} on {found.device} did not run ({some_of(missing)}), and a record has all of "
            f"them; run {COMMAND} without --rule, --dtype and --profile"
        )
        raise ValueError(msg)


def measure(cell: Cell, found: BackendReport) -> tuple[Cell, str]:
    """The digest of a cell, and the cell in its light.

    Where the digest is not NumPy's the cell is not bit-identical, and within the bound only if the numbers that differ are.
    """
    backend = backends.get(found.name, found.device)
    hexadecimal = digest(cell.rule, backend, cell.dtype, cell.mode)
    if hexadecimal == numpy_digest(cell.rule, cell.dtype):
        return cell, hexadecimal
    candidate = Candidate(RULES[cell.rule], backend, cell.dtype, cell.mode, SHAPES)
    count, ratio = differences(candidate, cell.dtype, found.target(cell.mode).compute(cell.dtype))
    if ratio > 1:
        largest = ratio if math.isfinite(ratio) else None
        wrong = {"where": "the inputs of the digest", "elements": count, "ratio": largest}
        return replace(cell, wrong=cell.wrong or wrong), hexadecimal
    return replace(cell, differ=cell.differ + count, ratio=max(cell.ratio, ratio)), hexadecimal


def _record(
    report: Report, found: BackendReport, commit: str | None, ledger: Sequence[str], measured: Sequence[tuple[Cell, str]]
) -> dict[str, Any]:
    cells = [cell for cell, _ in measured]
    results = {
        cell_key(cell.rule, cell.dtype, cell.mode): (cell.verdict == WRONG, cell.vacuous > VAGUE * cell.elements) for cell in cells
    }
    here = (found.name, found.device)
    for replay in (r for r in report.replays if (r.backend, r.device) == here):
        results[f"digits {replay.rule}/{replay.mode}"] = replay.verdict == WRONG, False
    laws = [law for law in getattr(report, "laws", []) if (law.backend, law.device) == here]
    for law in (law for law in laws if law.verdict != NOT_RUN):
        results[f"{law.law} {cell_key(law.rule, law.dtype, law.mode)}"] = law.verdict == BROKEN, False
    failed = [name for name, (wrong, _) in results.items() if wrong]
    hashes = source_hashes()
    about = report.about
    command = f"{COMMAND} DIR --backend {found.name}:{found.device} --seed {about['seed']}"
    record: dict[str, Any] = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": hashes[name]}} for name in subjects_of(found.name, list(RULES))],
        "predicateType": TEST_RESULT,
        "predicate": {
            "result": "FAILED" if failed else "PASSED",
            "configuration": [{"name": command}],
            "passedTests": [name for name, (wrong, vague) in results.items() if not wrong and not vague],
            "warnedTests": [name for name, (wrong, vague) in results.items() if not wrong and vague],
            "failedTests": failed,
            "xopt": {
                "backend": found.name,
                "device": found.device,
                "command": command,
                "date": about["date"],
                "seconds": about["seconds"],
                "versions": {
                    "python": platform.python_version(),
                    "numpy": np.__version__,
                    "xopt": about["xopt"],
                    found.name: found.version,
                },
                "hardware": backends.get(found.name, found.device).hardware(),
                "commit": commit,
                "dirty": False,
                "dtypes": list(found.dtypes),
                "modes": _modes(found),
                "probes": found.probes,
                "cells": [_compact(cell) for cell in cells],
                "laws": [law.to_dict() for law in laws],
                "digests": {cell_key(cell.rule, cell.dtype, cell.mode): hexadecimal for cell, hexadecimal in measured},
                "ledger": list(ledger),
            },
        },
    }
    record["predicate"]["xopt"]["body"] = body_hash(record)
    return record


_LEFT_OUT = {"backend", "device", "reason", "histogram", "growth", "worst", "explanation"}


def _compact(cell: Cell) -> dict[str, Any]:
    return {name: value for name, value in asdict(cell).items() if name not in _LEFT_OUT} | {"verdict": cell.verdict}


def _save(record: dict[str, Any], directory: Path) -> Path:
    claim = record["predicate"]["xopt"]
    stem = f"{claim['backend']}-{claim['device'].replace(':', '')}-{claim['date']}"
    number = 1
    while True:
        path = directory / f"{stem}{f'-{number}' if number > 1 else ''}.json"
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(json.dumps(record, indent=1, allow_nan=False) + "\n")
        except FileExistsError:
            number += 1
        else:
            return path
