"""Evidence: what a run on a machine with a device found, as records that a machine without one can check.

A record is an in-toto Statement about one backend on one device. Its subjects are hashes of the sources that decided it, so that a
later edit shows which of its cells no longer count; its digests are hashes of the bits that the device computed from fixed inputs,
which any CPU can compute again for the cells that are bit-identical.
"""

import ast
import datetime
import hashlib
import inspect
import json
import math
import platform
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import xopt
from xopt import backends
from xopt.backends import BACKENDS, Backend
from xopt.backends._cupy import EMULATED
from xopt.backends._torch import INTERPRETED
from xopt.conformance.bounded import FORMATS, Format
from xopt.conformance.candidate import BFloat16OnNumPy, Candidate
from xopt.conformance.digests import SHAPES, SIZE, STEPS, hashed, inputs, mixed, other_setting, runs
from xopt.conformance.reference import Reference
from xopt.conformance.results import BROKEN, IDENTICAL, MODES, NOT_RUN, SUBNORMALS, WRONG, Cell
from xopt.conformance.suite import BackendReport, Report, formats_of, workers
from xopt.rules import RULES

RECORDS = Path(__file__).parent / "evidence"
COMMAND = "xopt conform --evidence"
VAGUE = 0.1
"""Share of a cell's numbers of which the bound may say nothing: where hyperparameters are so far out that all overflows."""
OLD = 90
"""Days after which a record is worth renewing, because drivers and libraries have moved on."""

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"

# The sources that decide a verdict.

_FOLDERS = {
    "xopt.conformance": Path(__file__).parent,
    "xopt.backends": Path(backends.__file__).parent,
    "xopt": Path(xopt.__file__).parent,
}


def source_hashes() -> dict[str, str]:
    """SHA-256 of the normal form of each part of the source that decides a verdict, by name.

    ``rule:NAME`` is its file and what it computes with, ``golden:NAME`` is its file, ``backend:NAME`` its file, the probes and
    the program that kernels are made from, ``cells`` is what draws the inputs of a cell and judges it: each with all modules of
    its own package that it imports. ``digest`` is what the digests are computed by. What pairs and checks the arrays of a step is
    no part: the digests show what becomes of the numbers. The laws are none, as no table shows them; nor is the ledger: it says
    what is accepted, not what was found.
    """
    hashes = {f"rule:{name}": _hash(f"xopt.rules.{name}", *ARITHMETIC, within="xopt.rules") for name in RULES}
    hashes |= {f"golden:{name}": _hash(f"xopt.conformance.golden.{name}", within="xopt.conformance.golden") for name in RULES}
    for name, kind in BACKENDS.items():
        hashes[f"backend:{name}"] = _hash(kind.__module__, "xopt.backends.probes", "xopt.program", within="xopt.backends")
    judges = _hash("xopt.conformance.cells", within="xopt.conformance"), normal_form(inspect.getsource(formats_of))
    hashes["cells"] = _sha256(repr(judges))
    parts = (SHAPES, STEPS, *(normal_form(inspect.getsource(part)) for part in (inputs, mixed, other_setting, runs, hashed)))
    hashes["digest"] = _sha256(repr(parts))
    return hashes


ARITHMETIC = "xopt.operations", "xopt.scalars"
"""Modules that all rules compute with."""

SHOWS = ("evidence", "faults", "report")
"""Modules of the suite that decide no verdict: they show verdicts, or plant faults to show that the suite finds them."""


def modules(*roots: str, within: str) -> list[str]:
    """The roots and, of the package ``within``, all that they import directly and indirectly, also inside functions."""
    left_out = tuple(f"xopt.conformance.{name}." for name in SHOWS)
    found: set[str] = set()
    todo = list(roots)
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            imported = [name for name in _imported(read_source(module)) if name.startswith(f"{within}.") and _path(name)]
            todo += [name for name in imported if not f"{name}.".startswith(left_out)]
    return sorted(found)


def _hash(*roots: str, within: str) -> str:
    return _sha256(repr([(name, normal_form(read_source(name))) for name in modules(*roots, within=within)]))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_source(module: str) -> str:
    path = _path(module)
    if path is None:
        msg = f"no source of {module}"
        raise FileNotFoundError(msg)
    return path.read_text(encoding="utf-8")


def _path(module: str) -> Path | None:
    """The file of a module, without importing it; None where there is none of that name."""
    package = next(name for name in _FOLDERS if module == name or module.startswith(f"{name}."))
    base = _FOLDERS[package].joinpath(*module.removeprefix(package).split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def _imported(source: str) -> list[str]:
    """Every name that an import may mean: ``from a import b`` both a and a.b."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


@cache
def normal_form(source: str) -> str:
    """The syntax tree as text: all that a program means, and neither its layout, its comments nor its docstrings.

    The same from Python 3.11 on. ``ast.dump`` is not, because newer trees have more fields (``type_params``) and newer dumps leave
    out empty ones; nor is ``ast.unparse``, which quotes f-strings differently since 3.12. Here a field that is empty is left out:
    so is one that a newer Python adds, for a text that an older one can read too. Strings are escaped to ASCII, because what
    ``repr`` takes for printable grows with Unicode.
    """
    return _form(ast.parse(source))


def _form(x: Any) -> str:
    if isinstance(x, ast.AST):
        # ctx follows from the place; kind is the u of u"text"
        values = ((name, getattr(x, name, None)) for name in x._fields if name not in ("ctx", "kind", "type_comment"))
        return f"{type(x).__name__}({','.join(f'{name}={_form(x)}' for name, x in values if x is not None and x != [])})"
    if isinstance(x, list):
        return f"[{','.join(_form(item) for item in x if not _is_text(item))}]"
    return ascii(x)


def _is_text(x: Any) -> bool:
    """A statement that is only a string: a docstring, of whatever it may be."""
    return isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant) and isinstance(x.value.value, str)


# The digests.


def digest(rule: str, backend: Backend, dtype: str, mode: str) -> str:
    """The digest of a rule on a backend: of its params and slots after every step from fixed inputs."""
    return hashed(runs(Candidate(RULES[rule], backend, dtype, mode, SHAPES), dtype))


@cache
def numpy_digest(rule: str, dtype: str) -> str:
    """The digest that a bit-identical cell must have: NumPy's own, computed here and now."""
    return hashed(runs(_on_numpy(rule, dtype), dtype))


def _on_numpy(rule: str, dtype: str) -> Candidate:
    numpy = backends.get("numpy")
    if dtype == "bfloat16":
        return BFloat16OnNumPy(RULES[rule], numpy, SHAPES)
    return Candidate(RULES[rule], numpy, dtype, "eager", SHAPES)


LOOKED_AT = 64


def differences(candidate: Candidate, dtype: str, compute: Format) -> tuple[int, float]:
    """How many elements of the digest's runs do not have NumPy's bits, and the largest error/bound of a step of the first 64."""
    grads = inputs(dtype)[1]
    count, largest = 0, 0.0
    for (hyper, ours), base in zip(runs(candidate, dtype), runs(_on_numpy(candidate.rule.name, dtype), dtype), strict=True):
        differ = np.zeros(SIZE, dtype=bool)
        for a, b in _pairs(tuple(ours), tuple(base.states)):
            differ |= a != b
        at = np.flatnonzero(differ)
        count += len(at)
        if not len(at):
            continue
        reference = Reference(candidate.rule, hyper, compute, FORMATS[dtype], candidate.traced)
        columns = [_picked(state, at[:LOOKED_AT]) for state in ours]
        for t, grad in enumerate(grads, start=1):
            reference.restart(columns[t - 1])
            for found in reference.step(grad[at[:LOOKED_AT]], t, columns[t]):
                largest = max(largest, float(np.max(np.nan_to_num(found.ratio, posinf=np.inf))))
    return count, largest


def _pairs(one: Any, other: Any) -> Iterator[tuple[Any, Any]]:
    """The parts of two states that are numbers or vectors, side by side."""
    if isinstance(one, tuple):
        for a, b in zip(one, other, strict=True):
            yield from _pairs(a, b)
    elif one is not None:
        yield one, other


def _picked(column: Any, at: Any) -> Any:
    if isinstance(column, tuple):
        return tuple(_picked(part, at) for part in column)
    return column[at] if np.ndim(column) else column


# Writing.


def checkout() -> tuple[str | None, list[str]]:
    """The commit that the sources lie in, and which of them differ from it. None where they lie in no checkout."""
    if not (ROOT / ".git").exists():
        return None, []

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=True).stdout

    changed = git("status", "--porcelain", "--untracked-files=all", "--", *_SOURCES)
    return git("rev-parse", "HEAD").strip(), changed.splitlines()


ROOT = Path(__file__).parents[1]
_SOURCES = ("xopt", "backends", "conformance", ":(exclude)conformance/evidence")


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


def _key(rule: str, dtype: str, mode: str) -> str:
    return f"{rule}/{dtype}/{mode}"


def _missing(cells: set[str], rules: Sequence[str], dtypes: Sequence[str], modes: Sequence[str]) -> list[str]:
    wanted = [_key(rule, dtype, mode) for rule in rules for dtype in dtypes for mode in modes]
    return [key for key in wanted if key not in cells]


def _require_complete(report: Report, found: BackendReport) -> None:
    have = {_key(cell.rule, cell.dtype, cell.mode) for cell in _cells(report, found)}
    missing = _missing(have, list(RULES), found.dtypes, _modes(found))
    if missing:
        msg = (
            f"{len(missing)} cells of {found.name} on {found.device} did not run ({_some(missing)}), and a record has all of them; "
            f"run {COMMAND} without --rule, --dtype and --profile"
        )
        raise ValueError(msg)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def measure(cell: Cell, found: BackendReport) -> tuple[Cell, str]:
    """The digest of a cell, and the cell in its light.

    Where the digest is not NumPy's the cell is not bit-identical, and within the bound only if the numbers that differ are.
    """
    backend = backends.get(found.name, found.device)
    hexadecimal = digest(cell.rule, backend, cell.dtype, cell.mode)
    if hexadecimal == numpy_digest(cell.rule, cell.dtype):
        return cell, hexadecimal
    arithmetic = "float64" if cell.dtype == "float64" else "float32"
    candidate = Candidate(RULES[cell.rule], backend, cell.dtype, cell.mode, SHAPES)
    compute = formats_of([found])[found.name, found.device, arithmetic, cell.mode]
    count, ratio = differences(candidate, cell.dtype, compute)
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
        _key(cell.rule, cell.dtype, cell.mode): (cell.verdict == WRONG, cell.vacuous > VAGUE * cell.elements) for cell in cells
    }
    here = (found.name, found.device)
    for replay in (r for r in report.replays if (r.backend, r.device) == here):
        results[f"digits {replay.rule}/{replay.mode}"] = replay.verdict == WRONG, False
    laws = [law for law in getattr(report, "laws", []) if (law.backend, law.device) == here]
    for law in (law for law in laws if law.verdict != NOT_RUN):
        results[f"{law.law} {_key(law.rule, law.dtype, law.mode)}"] = law.verdict == BROKEN, False
    failed = [name for name, (wrong, _) in results.items() if wrong]
    hashes = source_hashes()
    about = report.about
    command = f"{COMMAND} DIR --backend {found.name}:{found.device} --seed {about['seed']}"
    record: dict[str, Any] = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": hashes[name]}} for name in _subjects(found.name, list(RULES))],
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
                "digests": {_key(cell.rule, cell.dtype, cell.mode): hexadecimal for cell, hexadecimal in measured},
                "ledger": list(ledger),
            },
        },
    }
    record["predicate"]["xopt"]["body"] = _body(record)
    return record


def _subjects(backend: str, rules: Sequence[str]) -> list[str]:
    """What the cells of a backend stand on."""
    return [*(f"rule:{rule}" for rule in rules), *(f"golden:{rule}" for rule in rules), f"backend:{backend}", "cells", "digest"]


_LEFT_OUT = {"backend", "device", "reason", "histogram", "growth", "worst", "explanation"}


def _compact(cell: Cell) -> dict[str, Any]:
    return {name: value for name, value in asdict(cell).items() if name not in _LEFT_OUT} | {"verdict": cell.verdict}


def _body(record: dict[str, Any]) -> str:
    """SHA-256 of a record but for this hash itself, as JSON with sorted keys and no spaces."""
    own = {name: value for name, value in record["predicate"]["xopt"].items() if name != "body"}
    rest = record | {"predicate": record["predicate"] | {"xopt": own}}
    return _sha256(json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False))


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


# Examining.

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
    return [finding for one in _examine(directory, today) for finding in one.findings]


def current_cells(directory: Path) -> list[Evidence]:
    """The cells that the newest records prove today. A record with an error proves nothing, a stale cell neither."""
    return [one.evidence for one in _examine(directory, datetime.date.min) if one.evidence is not None]


def _examine(directory: Path, today: datetime.date) -> list[_Examined]:
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
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return None, f"corrupted, no JSON ({error}); {restore}"
    validator = Draft202012Validator(json.loads(Path(__file__).with_name("evidence.schema.json").read_text(encoding="utf-8")))
    broken = best_match(validator.iter_errors(record))
    if broken is not None:
        return None, f"corrupted, {broken.json_path}: {broken.message[:200]}; {restore}"
    if _body(record) != record["predicate"]["xopt"]["body"]:
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
    have = {_key(cell["rule"], cell["dtype"], cell["mode"]): cell["verdict"] for cell in claim["cells"]}
    missing = _missing(set(have), rules, claim["dtypes"], claim["modes"])
    if missing:
        find(ERROR, f"{len(missing)} cells are missing ({_some(missing)}); {renew}")
    stale = _stale(record, rules, hashes)
    differ = [
        key
        for key, verdict in have.items()
        if verdict in (IDENTICAL, SUBNORMALS) and claim["digests"].get(key) != numpy_digest(*key.split("/")[:2])
    ]
    if stale:
        changed = {subject for subjects in stale.values() for subject in subjects}
        # a rule's text may change and its bits stay: the record tells of another text then, but of no other numbers
        kept = {"cells", f"backend:{backend}", *(() if differ else (f"rule:{rule}" for rule in rules))}
        level = WARNING if changed <= kept else ERROR
        find(level, f"stale: {_why_stale(stale, rules)}; {renew}, or delete those of {backend} on {device} ({hardware})")
    wrong = [key for key in differ if key.split("/")[0] not in stale]
    if wrong:
        find(
            ERROR,
            f"{len(wrong)} cells are called bit-identical, but their digests are not those that NumPy has here ({_some(wrong)}); "
            f"if xopt conform --backend numpy is right here, the record is wrong: {renew}, or delete this one",
        )
    evidence = None
    if not missing and not wrong:
        cells = [_cell(cell, backend, device) for cell in claim["cells"] if cell["rule"] not in stale]
        evidence = Evidence(name, backend, device, hardware, claim["date"], cells, stale)
    if record["predicate"]["result"] == "FAILED":
        failed = record["predicate"]["failedTests"]
        find(WARNING, f"{len(failed)} tests failed on {hardware} ({_some(failed)}); mend them, then {renew}")
    age = (today - datetime.date.fromisoformat(claim["date"])).days
    if age > OLD:
        find(WARNING, f"{age} days old, more than {OLD}; {renew}")
    return _Examined(evidence, findings)


def _stale(record: dict[str, Any], rules: Sequence[str], hashes: dict[str, str]) -> dict[str, list[str]]:
    """The rules whose cells are stale, and the sources that have changed: its own file and golden, or what all cells stand on."""
    then = {subject["name"]: subject["digest"]["sha256"] for subject in record["subject"]}
    stale = {}
    for rule in rules:
        subjects = _subjects(record["predicate"]["xopt"]["backend"], [rule])
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


def show(console: Console, directory: Path, today: datetime.date) -> bool:
    """A table of the newest records and a line for each finding. Returns whether there is no error."""
    found = _examine(directory, today)
    table = Table(title=f"evidence in {directory}", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("backend", "device", "hardware", "date"):
        table.add_column(heading)
    for heading in ("cells", "stale rules"):
        table.add_column(heading, justify="right")
    for evidence in (one.evidence for one in found if one.evidence is not None):
        count = Text(str(len(evidence.cells)), style="green" if not evidence.stale else "yellow")
        table.add_row(*evidence[1:5], count, str(len(evidence.stale)))
    console.print(table if table.row_count else Text(f"no evidence that counts in {directory}", style="dim"))
    findings = [finding for one in found for finding in one.findings]
    for record, level, message in findings:
        console.print(Text(f"{level}: {record}: {message}", style="bold red" if level == ERROR else "yellow"), soft_wrap=True)
    return all(finding.level != ERROR for finding in findings)
