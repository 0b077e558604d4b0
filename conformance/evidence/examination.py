"""Records are examined: whether they are what was written, and which of their cells the sources as they are still prove."""

import datetime
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from xopt.conformance.evidence.measurement import numpy_digest
from xopt.conformance.evidence.record import COMMAND, body_hash, cell_key, missing_cells, some_of, subjects_of
from xopt.conformance.evidence.sources import source_hashes
from xopt.conformance.reading import read
from xopt.conformance.results import IDENTICAL, SUBNORMALS, Cell

OLD = 90
"""Days after which a record is worth renewing, because drivers and libraries have moved on."""


ERROR, WARNING = "error", "warning"


class Finding(NamedTuple):
    """What is wrong with a record, and what to do."""

    record: str
    level: str
    message: str


class Evidence(NamedTuple):
    """What the newest record of a backend, device and hardware shows with the sources as they are."""

    record: str
    backend: str
    device: str
    hardware: str
    date: str
    cells: list[Cell]
    stale: dict[str, list[str]]
    """Rules whose cells do not count any more, and the sources that have changed since."""

    def to_dict(self) -> dict[str, Any]:
        """For a report: with the number of cells that count, whether these are all, and why not."""
        why = ", ".join(f"{rule}: {', '.join(changed)} changed" for rule, changed in self.stale.items())
        return self._asdict() | {"cells": len(self.cells), "current": not self.stale, "why": why}


class _Examined(NamedTuple):
    evidence: Evidence | None  # None where the record is corrupted, wrong or history
    findings: list[Finding]


def examine(directory: Path, today: datetime.date) -> list[Finding]:
    """What is wrong with the records of a directory; none where all count.

    Every record must be what was written: its structure and the hash of its body. Of those of the same backend, device and
    hardware only the newest is a claim about the sources as they are; the older ones are history. That newest one must be current,
    complete, and have NumPy's digests where it says bit-identical; where it is older than 90 days or tells of a failed run, that
    is a warning.
    """
    return [finding for one in examine_all(directory, today) for finding in one.findings]


def current_cells(directory: Path) -> list[Evidence]:
    """The cells that the newest records prove today. A record with an error proves nothing, a stale cell neither."""
    return [one.evidence for one in examine_all(directory, datetime.date.min) if one.evidence is not None]


def examine_all(directory: Path, today: datetime.date) -> list[_Examined]:
    examined: list[_Examined] = []
    newest: dict[tuple[str, str, str], tuple[str, dict[str, Any]]] = {}
    for path in sorted(directory.glob("*.json"), key=lambda path: (len(path.name), path.name)):
        record, problem = _read(path)
        if record is None:
            examined.append(_Examined(None, [Finding(path.name, ERROR, problem)]))
            continue
        claim = record["predicate"]["xopt"]
        key = claim["backend"], claim["device"], claim["hardware"]["name"]
        if key not in newest or newest[key][1]["predicate"]["xopt"]["date"] <= claim["date"]:
            newest[key] = path.name, record
    hashes = source_hashes() if newest else {}
    examined += [_judge(name, record, hashes, today) for name, record in newest.values()]
    return examined


def _read(path: Path) -> tuple[dict[str, Any] | None, str]:
    """A record, or why it is none."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    restore = "restore the file with git, or delete it"
    try:
        record = read(path)
    except ValueError as error:
        return None, f"corrupted, no JSON ({error}); {restore}"
    validator = Draft202012Validator(json.loads(Path(__file__).with_name("schema.json").read_text(encoding="utf-8")))
    broken = best_match(validator.iter_errors(record))
    if broken is not None:
        return None, f"corrupted, {broken.json_path}: {broken.message[:200]}; {restore}"
    if body_hash(record) != record["predicate"]["xopt"]["body"]:
        return None, f"corrupted: changed since it was written, its body does not have its hash; {restore}"
    return record, ""


def _judge(name: str, record: dict[str, Any], hashes: dict[str, str], today: datetime.date) -> _Examined:
    claim = record["predicate"]["xopt"]
    backend, device, hardware = claim["backend"], claim["device"], claim["hardware"]["name"]
    renew = f"on such a machine run {COMMAND} DIR --backend {backend}:{device}, and commit the new record"
    findings = []

    def find(level: str, message: str) -> None:
        findings.append(Finding(name, level, message))

    rules = list(dict.fromkeys(cell["rule"] for cell in claim["cells"]))
    have = {cell_key(cell["rule"], cell["dtype"], cell["mode"]): cell["verdict"] for cell in claim["cells"]}
    missing = missing_cells(set(have), rules, claim["dtypes"], claim["modes"])
    if missing:
        find(ERROR, f"{len(missing)} cells are missing ({some_of(missing)}); {renew}")
    stale = _stale(record, rules, hashes)
    differ = [
        key
        for key, verdict in have.items()
        if verdict in (IDENTICAL, SUBNORMALS) and claim["digests"].get(key) != _digest_here(*key.split("/")[:2])
    ]
    if stale:
        # texts may change and bits stay: the record tells of other texts then, but of no other numbers
        changed = {subject for subjects in stale.values() for subject in subjects}
        level = ERROR if differ and not changed <= {"cells", f"backend:{backend}"} else WARNING
        find(level, f"stale: {_why_stale(stale, rules)}; {renew}, or delete those of {backend} on {device} ({hardware})")
    wrong = [key for key in differ if key.split("/")[0] not in stale]
    if wrong:
        find(
            ERROR,
            f"{len(wrong)} cells are called bit-identical, but their digests are not those that NumPy has here ({some_of(wrong)}); "
            f"if xopt conform --backend numpy is right here, the record is wrong: {renew}, or delete this one",
        )
    evidence = None
    if not missing and not wrong:
        cells = [_cell(cell, backend, device) for cell in claim["cells"] if cell["rule"] not in stale]
        evidence = Evidence(name, backend, device, hardware, claim["date"], cells, stale)
    if record["predicate"]["result"] == "FAILED":
        failed = record["predicate"]["failedTests"]
        find(WARNING, f"{len(failed)} tests failed on {hardware} ({some_of(failed)}); mend them, then {renew}")
    age = (today - datetime.date.fromisoformat(claim["date"])).days
    if age > OLD:
        find(WARNING, f"{age} days old, more than {OLD}; {renew}")
    return _Examined(evidence, findings)


def _digest_here(rule: str, dtype: str) -> str | None:
    """NumPy's; None of a rule that raises, which has no bits."""
    try:
        return numpy_digest(rule, dtype)
    except Exception:  # noqa: BLE001 - whatever a rule raises
        return None


def _stale(record: dict[str, Any], rules: Sequence[str], hashes: dict[str, str]) -> dict[str, list[str]]:
    """The rules whose cells are stale, each with its changed sources: its file or its golden, or a source of all cells."""
    then = {subject["name"]: subject["digest"]["sha256"] for subject in record["subject"]}
    stale = {}
    for rule in rules:
        subjects = subjects_of(record["predicate"]["xopt"]["backend"], [rule])
        changed = [subject for subject in subjects if then.get(subject) is None or then[subject] != hashes.get(subject)]
        if changed:
            stale[rule] = changed
    return stale


def _why_stale(stale: dict[str, list[str]], rules: Sequence[str]) -> str:
    common = [subject for subject in next(iter(stale.values())) if all(subject in changed for changed in stale.values())]
    if common and len(stale) == len(rules):
        return f"all cells, because {', '.join(common)} changed"
    return "the cells of " + ", ".join(f"{rule} ({', '.join(changed)} changed)" for rule, changed in stale.items())


def _cell(found: dict[str, Any], backend: str, device: str) -> Cell:
    known = {one.name for one in fields(Cell)}
    return Cell(backend=backend, device=device, **{name: value for name, value in found.items() if name in known})
