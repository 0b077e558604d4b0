"""The whole check: which cells there are, their runs over a few processes, and the report that comes of them."""

import datetime
import os
import platform
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from xopt import backends
from xopt.backends._torch import INTERPRETED
from xopt.backends.probes import Probes, probe
from xopt.conformance import ledger
from xopt.conformance.bounded import FORMATS, Format
from xopt.conformance.cells import brief, check_rule
from xopt.conformance.census import Row, counted, take_census
from xopt.conformance.digests import check_digest
from xopt.conformance.laws import LAWS, check_laws
from xopt.conformance.ledger import Judgement
from xopt.conformance.papers import check_papers
from xopt.conformance.results import BROKEN, DTYPES, MODES, NOT_RUN, WITHIN, WRONG, Cell, LawResult
from xopt.conformance.stateful import MACHINE, check_machine
from xopt.conformance.structures import check_structures
from xopt.conformance.training import Replay, replay_rule
from xopt.rules import RULES

Result = Cell | LawResult | Replay

SCHEMA = "xopt-conformance-3"
"""Of a report as JSON: what ``schema.json`` describes."""

NAMES = frozenset(law.name for law in LAWS)

TURNS = 4
"""One rule in so many has situations compiled by torch.compile, which takes seconds for each."""

EXACT = ("numba", "blocks", "triton")
"""Compilers that compute as NumPy does, on whatever library's arrays."""


class Profile(NamedTuple):
    """How much is run."""

    examples: int  # drawn for a cell in float32, each of them several trajectories
    pool: int  # settings of the hyperparameters that they draw from
    laws: int  # examples drawn for a law in float32
    operations: int  # runs of the state machine
    situations: int  # of structure, of NumPy; others get fewer
    compiled: int  # of them for torch.compile, of every fourth rule
    training: int  # steps of the training on digits
    modes: tuple[str, ...]

    def cells(self, dtype: str) -> int:
        """Examples of a cell: half as many in the other dtypes, in which a rule says the same."""
        return self.examples if dtype == "float32" else self.examples // 2

    def law_examples(self, dtype: str) -> int:
        """Examples of a law: half as many in the other dtypes, in which a rule says the same."""
        return self.laws if dtype == "float32" else max(1, self.laws // 2)

    def asked(self, result: Cell | LawResult) -> int:
        """Examples that a result must rest on."""
        if isinstance(result, Cell):
            return self.cells(result.dtype)
        if result.law == MACHINE:
            return self.operations
        return self.law_examples(result.dtype) if result.law in NAMES else 1


PROFILES = {
    "quick": Profile(examples=10, pool=4, laws=1, operations=3, situations=4, compiled=0, training=20, modes=("eager",)),
    "emulated": Profile(examples=10, pool=4, laws=1, operations=3, situations=4, compiled=0, training=5, modes=("eager", "fused")),
    "ci": Profile(examples=24, pool=32, laws=2, operations=5, situations=20, compiled=1, training=20, modes=MODES),
    "nightly": Profile(examples=1000, pool=40, laws=60, operations=200, situations=600, compiled=4, training=200, modes=MODES),
}


@dataclass
class BackendReport:
    """A backend on one device: what the probes found of it, or why there is none."""

    name: str
    device: str
    version: str | None
    reason: str | None = None
    dtypes: tuple[str, ...] = ()
    tracer: str | None = None
    compiler: str | None = None  # what fuses steps
    probes: dict[str, Any] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Report:
    """What a run of ``conform`` found."""

    about: dict[str, Any]  # versions, machine, date, profile, seed, seconds
    backends: list[BackendReport]
    cells: list[Cell]
    replays: list[Replay]
    laws: list[LawResult] = field(default_factory=list)
    ledger: Judgement = field(default_factory=Judgement)
    census: list[Row] = field(default_factory=list)  # what was drawn and compared
    failures: list[str] = field(default_factory=list)  # checks that failed themselves, so that nothing is known of their results
    faults: dict[str, Any] | None = None  # what planting them showed, where that was asked for
    evidence: list[dict[str, Any]] = field(default_factory=list)  # records of other machines

    @property
    def wrong(self) -> list[Result]:
        """What is outside its bound; empty where every backend computed what the golden says and kept every law."""
        everything: list[Result] = [*self.cells, *self.laws, *self.replays]
        return [result for result in everything if result.verdict in (WRONG, BROKEN)]

    @property
    def problems(self) -> list[str]:
        """Why the run as a whole fails, each with what to do; empty where it does not."""
        wrong = [f"{r.rule} on {r.backend} {r.device}, {r.dtype}, {r.mode}: {_what(r)} is {_verdict(r)}" for r in self.wrong]
        checks: list[Cell | LawResult] = [*self.cells, *self.laws]
        silent = [
            f"{r.rule} on {r.backend} {r.device}, {r.dtype}, {r.mode}: {_what(r)} compared nothing, and gave no reason"
            for r in checks
            if r.verdict == NOT_RUN and r.reason is None
        ]
        scarce = [row.problem for row in self.census if row.problem] + self._short
        if wrong or self.failures:
            scarce = []  # what was found wrong ends its check early
        return wrong + self.failures + self._unchecked + silent + scarce + self.ledger.problems

    @property
    def _unchecked(self) -> list[str]:
        """What was asked for, by name or at all, and compared with nothing: that is no pass."""
        ran = [cell for cell in self.cells if cell.verdict != NOT_RUN]
        if not ran:
            return [f"Nothing was checked: {_reasons(self.cells)}."]
        problems = []
        for what, names in self.about.get("asked", {}).items():
            for name in names:
                own = [cell for cell in self.cells if name in _names(cell)[what]]
                if not any(cell.verdict != NOT_RUN for cell in own):
                    problems.append(f"The {what} {name} was asked for, and nothing of it was checked: {_reasons(own)}.")
        return problems + self._lawless

    @property
    def _lawless(self) -> list[str]:
        """Rules of which nothing but their golden says what they are."""
        lawful = {law.rule for law in self.laws if law.law in NAMES}
        ran = "profile" in self.about and self.laws and not self.failures
        rules = dict.fromkeys(cell.rule for cell in self.cells if cell.verdict != NOT_RUN) if ran else ()
        return [f"No law chose {rule}: see its traits in xopt.conformance.laws.traits." for rule in rules if rule not in lawful]

    @property
    def _short(self) -> list[str]:
        """Plain steps that ran on fewer examples than the profile says; of compiled ones each example may be compiled anew."""
        plan = PROFILES.get(self.about.get("profile", ""))
        checks: list[Cell | LawResult] = [*self.cells, *self.laws] if plan else []
        return [
            f"{r.rule} on {r.backend} {r.device}, {r.dtype}, {r.mode}: {_what(r)} ran on {r.examples} examples of {plan.asked(r)}"
            for r in checks
            if plan and r.mode == "eager" and r.verdict not in (NOT_RUN, WRONG, BROKEN) and r.examples < plan.asked(r)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As in ``schema.json``."""
        return {
            "schema": SCHEMA,
            "about": self.about,
            "backends": [asdict(backend) for backend in self.backends],
            "cells": [cell.to_dict() for cell in self.cells],
            "law_texts": [
                {
                    "name": law.name,
                    "kind": law.kind,
                    "sentence": law.sentence,
                    "source": law.source,
                    "items": law.item,
                    "rules": law.rules,
                }
                for law in LAWS
            ],
            "laws": [law.to_dict() for law in self.laws],
            "replays": [replay.to_dict() for replay in self.replays],
            "census": [row._asdict() for row in self.census],
            "ledger": self.ledger.to_dict(),
            "faults": self.faults,
            "evidence": self.evidence,
            "problems": self.problems,
        }


def _names(cell: Cell) -> dict[str, tuple[str, ...]]:
    """By which names a cell can be asked for."""
    return {"backend": (cell.backend, f"{cell.backend}:{cell.device}"), "rule": (cell.rule,), "dtype": (cell.dtype,)}


def _reasons(cells: Sequence[Cell]) -> str:
    return "; ".join(dict.fromkeys(f"{cell.backend}: {cell.reason or 'no reason is given'}" for cell in cells)) or "it has no cell"


def _verdict(result: Result) -> str:
    """In words, with what it gave once more where that was something else."""
    found = (
        result.broken if isinstance(result, LawResult) else result.wrong if isinstance(result, Cell) else result.replayed["wrong"]
    )
    return f"{result.verdict}: not reproducible" if found and found.get("again") else result.verdict


def _what(result: Result) -> str:
    return repr(result.law) if isinstance(result, LawResult) else "the comparison"


class Events:
    """What happens during a run; override what should be shown."""

    def planned(self, tasks: int) -> None: ...
    def probed(self, backend: BackendReport) -> None: ...
    def finished(self, rule: str, what: str, results: Sequence[Result]) -> None: ...


def conform(
    backends: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    profile: str = "quick",
    seed: int = 0,
    jobs: int = 1,
    events: Events | None = None,
) -> Report:
    """Checks rules on backends: against the golden reference, on generated and on real gradients, and by laws of their own.

    Parameters
    ----------
    backends
        Names such as ``"torch"``, with all its devices, or ``"torch:cuda:0"``. Default: all that there are.
    rules, dtypes
        Names from ``RULES`` and of parameter dtypes. Default: all.
    profile
        ``"quick"``, ``"emulated"``, ``"ci"`` or ``"nightly"``: how many trajectories. Quick leaves compiled steps out; emulated,
        for devices that a CPU stands in for, those by a library's own compiler.
    seed
        Of the generated inputs. The same seed gives the same inputs.
    jobs
        Processes. More than 1 starts new Python processes, so that a script must guard its main module.
    events
        Told what happens, for a progress bar.

    Returns
    -------
    Report
        ``report.problems`` is empty where all is right. What did not run is in it with its reason.

    Raises
    ------
    ValueError
        For an unknown backend, device, rule, dtype or profile, with those that there are.
    """
    started = time.monotonic()
    events = events or Events()
    asked = {what: list(names) for what, names in (("backend", backends), ("rule", rules), ("dtype", dtypes)) if names}
    rows = ledger.read()
    plan = PROFILES[_chosen("profile", [profile], PROFILES)[0]]
    rules = _chosen("rule", rules, RULES)
    dtypes = _chosen("dtype", dtypes, DTYPES)
    with workers(jobs, backends) as submit:
        targets = submit(_targets, backends).result()
        probing = [submit(_probe, name, device, "traced" in plan.modes) for name, device in targets]
        failures: list[str] = []
        found = [_probed(task, target, failures) for task, target in zip(probing, targets, strict=True)]
        for backend in found:
            events.probed(backend)
        cells, tasks = _plan(found, rules, dtypes, plan, seed)
        events.planned(len(tasks))
        laws: list[LawResult] = []
        replays: list[Replay] = []
        counts: Counter[str] = Counter()
        kept: dict[type, list[Any]] = {Cell: cells, LawResult: laws, Replay: replays}
        submitted = {submit(_attempted, task): task for task in tasks}
        for future in _as_completed(submitted):
            task = submitted[future]
            results, seen, failure = _outcome(future, task)
            failures += filter(None, [failure])
            counts += seen
            for result in results:
                if not isinstance(result, LawResult):
                    _explain(result, found)
                kept[type(result)].append(result)
            events.finished(task.rule, task.what, results)
    order = {name: i for i, name in enumerate(RULES)}
    places = {law.name: i for i, law in enumerate(LAWS)}
    cells.sort(key=lambda c: (order[c.rule], DTYPES.index(c.dtype)))
    laws.sort(key=lambda r: (order[r.rule], places.get(r.law, len(places)), DTYPES.index(r.dtype)))
    replays.sort(key=lambda r: order[r.rule])
    today = datetime.datetime.now(datetime.UTC).date()
    about = {
        "xopt": version("array-xopt"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "date": today.isoformat(),
        "command": _command(profile, seed, asked),
        "asked": asked,
        "profile": profile,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
    }
    judgement = ledger.judge(cells, laws, rows, today, platform.machine())
    return Report(about, found, cells, replays, laws, judgement, take_census(counts, set(rules) == set(RULES)), failures)


def _command(profile: str, seed: int, asked: dict[str, list[str]]) -> str:
    options = [f"--{what} {name}" for what, names in asked.items() for name in names]
    return " ".join(["xopt conform", *options, f"--profile {profile} --seed {seed}"])


class Task(NamedTuple):
    """One check: a call in a process of its own."""

    rule: str
    what: str
    function: Callable[..., list[Any]]
    arguments: tuple[Any, ...]


Outcome = tuple[list[Any], Counter[str], str | None]
"""Results, what was counted, and why there is neither where the check itself failed."""


def _attempted(task: Task) -> Outcome:
    try:
        return *counted(task.function, *task.arguments), None
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        return [], Counter(), _failure(f"{task.rule} {task.what}", error)


def _outcome(future: "Future[Outcome]", task: Task) -> Outcome:
    """Of a task. Where a process has died, nobody knows of which: each that was not done runs once more, alone."""
    try:
        return future.result()
    except BrokenProcessPool:
        with _pool(1, ()) as alone:
            try:
                return alone.submit(_attempted, task).result()
            except BrokenProcessPool:
                return [], Counter(), f"{task.rule} {task.what}: the process died: a library crashed, or the memory was full"


def _failure(what: str, error: BaseException) -> str:
    """A check that failed itself, with the place."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{what}: the check itself failed, at {place.name} in {Path(place.filename).name}:{place.lineno}: {brief(error)}"


def _probed(task: "Future[Any]", target: tuple[str, str | None], failures: list[str]) -> BackendReport:
    """What the probes found. Where they fail the backend does not run, and the run fails."""
    try:
        found: BackendReport = task.result()
    except Exception as error:  # noqa: BLE001 - whatever a library raises
        name, device = target
        failures.append(_failure(f"{name} {device}", error))
        return BackendReport(name, device or "", None, f"its probes failed: {brief(error)}")
    return found


def _chosen(what: str, names: Sequence[str] | None, known: Collection[str]) -> list[str]:
    for name in names or ():
        if name not in known:
            msg = f"unknown {what} {name!r}; there are {', '.join(known)}"
            raise ValueError(msg)
    return list(dict.fromkeys(names)) if names else list(known)


def _targets(names: Sequence[str] | None) -> list[tuple[str, str | None]]:
    """Backend and device of each target; the device is None where the backend cannot run."""
    available = backends.available(_libraries(names))
    targets: list[tuple[str, str | None]] = []
    for target in names or available:
        name, _, device = target.partition(":")
        devices = available[name].devices
        if device and available[name].reason is None and device not in devices:
            msg = f"unknown device {device!r} of backend {name}; there are {', '.join(devices)}"
            raise ValueError(msg)
        apart = [d for d in devices if not d.startswith("cpu:")]  # a further one of JAX is the same CPU
        targets += [(name, device)] if device else [(name, d) for d in apart or (None,)]
    return list(dict.fromkeys(targets))


def _libraries(names: Sequence[str] | None) -> list[str]:
    """The backends that are asked for, so that no other library is imported."""
    return _chosen("backend", [name.partition(":")[0] for name in names or ()], backends.BACKENDS)


def _probe(name: str, device: str | None, compiled: bool) -> BackendReport:
    availability = backends.available([name])[name]
    if availability.reason is not None:
        return BackendReport(name, device or "", availability.version, availability.reason)
    backend = backends.get(name, device)
    started = time.monotonic()
    probes = probe(backend, compiled)
    return BackendReport(
        name,
        backend.device,
        backend.version,
        None,
        tuple(backend.dtypes()),
        backend.tracer,
        backend.compiler,
        probes.to_dict(),
        probes.sentences(),
        round(time.monotonic() - started, 2),
    )


def _plan(
    found: list[BackendReport], rules: list[str], dtypes: list[str], plan: Profile, seed: int
) -> tuple[list[Cell], list[Task]]:
    """The cells that cannot run, with the reason, and the tasks for those that can."""
    cells: list[Cell] = []
    tasks: list[Task] = []
    formats = formats_of(found)
    for rule in rules:
        for dtype in dtypes:
            targets = []
            for backend in found:
                for mode in MODES:
                    reason = _why_not(backend, dtype, mode, plan)
                    if reason is None:
                        targets.append((backend.name, backend.device, mode))
                    else:
                        cells.append(Cell(rule, backend.name, backend.device, dtype, mode, reason))
            if targets:
                where = rule, dtype, targets, formats
                tasks += [
                    Task(rule, dtype, check_rule, (*where, plan.cells(dtype), plan.pool, seed)),
                    Task(rule, f"{dtype} laws", check_laws, (*where, plan.law_examples(dtype), seed)),
                    Task(rule, f"{dtype} operations", check_machine, (*where, plan.operations, seed)),
                ]
                turn = (list(RULES).index(rule) + seed) % TURNS == 0 and dtype == "float32"
                played = plan.situations, seed, None, plan.compiled * turn
                places, ways = targets, list[Any]()
                if "fused" not in plan.modes:  # blocks alone compile nothing
                    places = [*targets, *(("numpy", device, "fused") for name, device, _ in targets if name == "numpy")]
                    ways = [("blocks",)]
                tasks.append(Task(rule, f"{dtype} structures", check_structures, (rule, dtype, places, formats, *played, *ways)))
            if ("numpy", "cpu", "eager") in targets:
                tasks.append(Task(rule, f"{dtype} digest", check_digest, (rule, dtype)))
        if "float64" in dtypes and any(b.name == "numpy" and b.reason is None for b in found):
            tasks.append(Task(rule, "papers", check_papers, (rule,)))
        targets = [
            (b.name, b.device, mode)
            for b in found
            for mode in MODES
            if "float32" in dtypes and not _why_not(b, "float32", mode, plan)
        ]
        if targets:
            tasks.append(Task(rule, "digits", replay_rule, (rule, targets, formats, plan.training)))
    return cells, tasks


def _why_not(backend: BackendReport, dtype: str, mode: str, plan: Profile) -> str | None:
    if backend.reason is not None:
        return backend.reason
    if dtype not in backend.dtypes:
        return f"{backend.name} has no {dtype}"
    if mode == "traced" and backend.tracer is None:
        return f"{backend.name} has no compiler of its own"
    if mode == "fused" and backend.compiler is None:
        return f"nothing fuses steps of {backend.name}"
    if mode == "eager" and backend.device == INTERPRETED:
        return "plain steps there are those on the CPU"
    if mode not in plan.modes:
        return "this profile leaves compiled steps out"
    return None


def formats_of(found: list[BackendReport]) -> dict[tuple[str, str, str, str], Format]:
    """The formats of the arithmetic as the probes measured them."""
    formats = {}
    for backend in found:
        if backend.reason is None:
            probes = Probes.from_dict(backend.probes)
            for name in ("float32", "float64"):
                for mode in MODES:
                    if mode == "fused" and backend.compiler in EXACT:
                        formats[backend.name, backend.device, name, mode] = FORMATS[name]
                        continue
                    compiled = mode == "traced" or (mode == "fused" and backend.compiler == backend.tracer)
                    ulps = {k: v for k, v in probes.primitive_ulps(name, compiled).items() if v > 0.5}
                    measured = replace(FORMATS[name], flushes=probes.flushes(name, compiled), ulps=ulps)
                    formats[backend.name, backend.device, name, mode] = measured
    return formats


def _explain(result: Cell | Replay, found: list[BackendReport]) -> None:
    """What the probes say of differences from NumPy's bits."""
    if result.verdict != WITHIN:
        return
    backend = next(b for b in found if (b.name, b.device) == (result.backend, result.device))
    probes = Probes.from_dict(backend.probes)
    arithmetic = "float64" if result.dtype == "float64" else "float32"
    uses_sqrt = any(operation.name == "sqrt" for operation in RULES[result.rule].program.operations)
    result.explanation += probes.explain(arithmetic, result.mode != "eager", uses_sqrt)


Submit = Callable[..., "Future[Any]"]


class workers:  # noqa: N801 - a context manager that reads as a word
    """Where tasks run: in this process, each when it is submitted, or in several new ones."""

    def __init__(self, jobs: int, names: Sequence[str] | None = None) -> None:
        libraries = _libraries(names)
        self.pool = _pool(jobs, libraries) if jobs > 1 else None

    def __enter__(self) -> Submit:
        return self.pool.submit if self.pool else _Lazy

    def __exit__(self, kind: object, *rest: object) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=kind is not None)


def _pool(jobs: int, libraries: Sequence[str]) -> ProcessPoolExecutor:
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


def _as_completed(tasks: dict["Future[Any]", Any]) -> Iterator["Future[Any]"]:
    pending = set(tasks)
    yield from (task for task in tasks if isinstance(task, _Lazy))
    pending = {task for task in pending if not isinstance(task, _Lazy)}
    while pending:
        done, pending = wait(pending, return_when=FIRST_COMPLETED)
        yield from done
