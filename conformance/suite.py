"""The whole check: which cells there are, their runs over a few processes, and the report that comes of them."""

import datetime
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from multiprocessing import get_context
from typing import Any, NamedTuple

from xopt import backends
from xopt.backends.probes import Probes, probe
from xopt.conformance import ledger
from xopt.conformance.bounded import FORMATS, Format
from xopt.conformance.cells import check_rule
from xopt.conformance.digests import check_digest
from xopt.conformance.laws import LAWS, check_laws
from xopt.conformance.ledger import Judgement
from xopt.conformance.machine import check_machine
from xopt.conformance.papers import check_papers
from xopt.conformance.replay import Replay, replay_rule
from xopt.conformance.results import BROKEN, DTYPES, MODES, NOT_RUN, WITHIN, WRONG, Cell, LawResult
from xopt.conformance.structures import check_structures
from xopt.rules import RULES

Result = Cell | LawResult | Replay

TURNS = 4
"""One rule in so many has situations compiled by torch.compile, which takes seconds for each."""

EXACT = ("numba", "blocks")
"""Compilers that compute as NumPy does, on whatever library's arrays."""


class Profile(NamedTuple):
    """How much is run."""

    examples: int  # drawn for a cell, each of them several trajectories
    pool: int  # settings of the hyperparameters that they draw from
    laws: int  # examples drawn for a law
    operations: int  # runs of the state machine
    situations: int  # of structure, of NumPy; others get fewer
    compiled: int  # of them for torch.compile, of every fourth rule
    training: int  # steps of the training on digits
    modes: tuple[str, ...]


PROFILES = {
    "quick": Profile(examples=10, pool=4, laws=2, operations=3, situations=4, compiled=0, training=20, modes=("eager",)),
    "ci": Profile(examples=40, pool=8, laws=3, operations=5, situations=20, compiled=1, training=40, modes=MODES),
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
        wrong = [f"{r.rule} on {r.backend} {r.device}, {r.dtype}, {r.mode}: {_what(r)} is {r.verdict}" for r in self.wrong]
        checks: list[Cell | LawResult] = [*self.cells, *self.laws]
        silent = [
            f"{r.rule} on {r.backend} {r.device}, {r.dtype}, {r.mode}: {_what(r)} compared nothing, and gave no reason"
            for r in checks
            if r.verdict == NOT_RUN and r.reason is None
        ]
        return wrong + silent + self.ledger.problems

    def to_dict(self) -> dict[str, Any]:
        """As in ``schema.json``."""
        return {
            "schema": "xopt-conformance-2",
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
            "ledger": self.ledger.to_dict(),
            "faults": self.faults,
            "evidence": self.evidence,
            "problems": self.problems,
        }


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
        ``"quick"``, ``"ci"`` or ``"nightly"``: how many trajectories; quick leaves compiled steps out.
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
    plan = PROFILES[_chosen("profile", [profile], PROFILES)[0]]
    rules = _chosen("rule", rules, RULES)
    dtypes = _chosen("dtype", dtypes, DTYPES)
    with workers(jobs) as submit:
        targets = submit(_targets, backends).result()
        probing = [submit(_probe, name, device, "traced" in plan.modes) for name, device in targets]
        found = [task.result() for task in probing]
        for backend in found:
            events.probed(backend)
        cells, tasks = _plan(found, rules, dtypes, plan, seed, submit)
        events.planned(len(tasks))
        laws: list[LawResult] = []
        replays: list[Replay] = []
        kept: dict[type, list[Any]] = {Cell: cells, LawResult: laws, Replay: replays}
        for task in _as_completed(tasks):
            rule, what = tasks[task]
            results = task.result()
            for result in results:
                if not isinstance(result, LawResult):
                    _explain(result, found)
                kept[type(result)].append(result)
            events.finished(rule, what, results)
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
        "command": f"xopt conform --profile {profile} --seed {seed}",
        "profile": profile,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
    }
    return Report(about, found, cells, replays, laws, ledger.judge(cells, laws, ledger.read(), today, platform.machine()))


def _chosen(what: str, names: Sequence[str] | None, known: Sequence[str] | dict[str, Any]) -> list[str]:
    for name in names or ():
        if name not in known:
            msg = f"unknown {what} {name!r}; there are {', '.join(known)}"
            raise ValueError(msg)
    return list(dict.fromkeys(names)) if names else list(known)


def _targets(names: Sequence[str] | None) -> list[tuple[str, str | None]]:
    """Backend and device of each target; the device is None where the backend cannot run."""
    available = backends.available()
    wanted = list(names) if names else list(available)
    targets: list[tuple[str, str | None]] = []
    for target in wanted:
        name, _, device = target.partition(":")
        if name not in available:
            msg = f"unknown backend {name!r}; there are {', '.join(available)}"
            raise ValueError(msg)
        devices = available[name].devices
        if device and available[name].reason is None and device not in devices:
            msg = f"unknown device {device!r} of backend {name}; there are {', '.join(devices)}"
            raise ValueError(msg)
        targets += [(name, device)] if device else [(name, d) for d in devices or (None,)]
    return list(dict.fromkeys(targets))


def _probe(name: str, device: str | None, compiled: bool) -> BackendReport:
    availability = backends.available()[name]
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
    found: list[BackendReport], rules: list[str], dtypes: list[str], plan: Profile, seed: int, submit: "Submit"
) -> tuple[list[Cell], dict["Future[Any]", tuple[str, str]]]:
    """The cells that cannot run, with the reason, and the tasks for those that can."""
    cells: list[Cell] = []
    tasks: dict[Future[Any], tuple[str, str]] = {}
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
                examples = plan.examples // 2 if dtype == "float64" else plan.examples  # its truth, in multiprecision, is slow
                tasks[submit(check_rule, rule, dtype, targets, formats, examples, plan.pool, seed)] = rule, dtype
                tasks[submit(check_laws, rule, dtype, targets, formats, plan.laws, seed)] = rule, f"{dtype} laws"
                tasks[submit(check_machine, rule, dtype, targets, formats, plan.operations, seed)] = rule, f"{dtype} operations"
                turn = (list(RULES).index(rule) + seed) % TURNS == 0 and dtype == "float32"
                played = plan.situations, seed, None, plan.compiled * turn
                if "fused" in plan.modes:
                    tasks[submit(check_structures, rule, dtype, targets, formats, *played)] = rule, f"{dtype} structures"
                else:  # blocks alone compile nothing
                    fused = [("numpy", device, "fused") for name, device, _ in targets if name == "numpy"]
                    places = [*targets, *fused]
                    tasks[submit(check_structures, rule, dtype, places, formats, *played, ("blocks",))] = (
                        rule,
                        f"{dtype} structures",
                    )
            if ("numpy", "cpu", "eager") in targets:
                tasks[submit(check_digest, rule, dtype)] = rule, f"{dtype} digest"
        if "float64" in dtypes and any(b.name == "numpy" and b.reason is None for b in found):
            tasks[submit(check_papers, rule)] = rule, "papers"
        targets = [
            (b.name, b.device, mode)
            for b in found
            for mode in MODES
            if "float32" in dtypes and not _why_not(b, "float32", mode, plan)
        ]
        if targets:
            tasks[submit(replay_rule, rule, targets, formats, plan.training)] = rule, "digits"
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
    uses_sqrt = "sqrt" in RULES[result.rule].update.__code__.co_names
    result.explanation = probes.explain(arithmetic, result.mode != "eager", uses_sqrt)


Submit = Callable[..., "Future[Any]"]


class workers:  # noqa: N801 - a context manager that reads as a word
    """Where tasks run: in this process, each when it is submitted, or in several new ones."""

    def __init__(self, jobs: int) -> None:
        self.pool = _pool(jobs) if jobs > 1 else None

    def __enter__(self) -> Submit:
        return self.pool.submit if self.pool else _Lazy

    def __exit__(self, kind: object, *rest: object) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=kind is not None)


def _pool(jobs: int) -> ProcessPoolExecutor:
    """New processes, which all import the array libraries at once as they start."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=backends.available)


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
