"""The whole check: which cells there are, their runs over a few processes, and the report that comes of them."""

import datetime
import os
import platform
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from xopt import backends
from xopt.backends._torch import INTERPRETED
from xopt.backends.names import unknown
from xopt.conformance import ledger
from xopt.conformance.arithmetic.formats import arithmetic_of
from xopt.conformance.arithmetic.probes import Probes, probe
from xopt.conformance.compare.again import once_more
from xopt.conformance.compare.check import check_rule
from xopt.conformance.digests.check import check_digest
from xopt.conformance.inputs.census import counted, take_census
from xopt.conformance.laws import LAWS, check_laws
from xopt.conformance.papers.check import check_papers
from xopt.conformance.profiles import PROFILES, Profile
from xopt.conformance.report.report import BackendReport, Report, Reported, key_of
from xopt.conformance.report.summary import command_line
from xopt.conformance.results import DTYPES, MODES, NOT_RUN, WITHIN, WRONG, Cell, LawResult, brief
from xopt.conformance.stateful.check import check_machine
from xopt.conformance.structures import check_structures
from xopt.conformance.target import Effort
from xopt.conformance.training import Replay, replay_rule
from xopt.conformance.workers import as_completed, pool_of, workers
from xopt.rules import RULES

TURNS = 4
"""One rule in so many has situations compiled by torch.compile, which takes seconds for each."""


SLOW_TRACERS = ("mx.compile",)


class Events:
    """What happens during a run; override what should be shown."""

    def planned(self, tasks: int) -> None: ...
    def probed(self, backend: BackendReport) -> None: ...
    def finished(self, rule: str, what: str, results: Sequence[Reported]) -> None: ...


def conform(
    backends: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    profile: str = "quick",
    seed: int = 0,
    jobs: int = 1,
    events: Events | None = None,
) -> Report:
    """Checks rules on backends: against the golden, on generated and on real gradients, and by laws that need no reference.

    Parameters
    ----------
    backends
        Names such as ``"torch"``, with all its devices, or ``"torch:cuda:0"``. Default: all that there are, but the slow
        ones (MLX, dask, ndonnx, dpnp, mparray) in the nightly profile alone.
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
    InterruptedRun
        At a KeyboardInterrupt, of which it is one; its ``report`` has what was found until then.
    """
    started = time.monotonic()
    events = events or Events()
    asked = {what: list(names) for what, names in (("rule", rules), ("backend", backends), ("dtype", dtypes)) if names}
    rows = ledger.read()
    plan = PROFILES[_chosen("profile", [profile], PROFILES)[0]]
    rules = _chosen("rule", rules, RULES)
    dtypes = _chosen("dtype", dtypes, DTYPES)
    found: list[BackendReport] = []
    failures: list[str] = []
    cells: list[Cell] = []
    laws: list[LawResult] = []
    replays: list[Replay] = []
    counts: Counter[str] = Counter()
    seconds: dict[Any, float] = {}
    interrupted: str | None = None
    ended = planned = 0
    try:
        names = _unless_slow(backends, plan)
        with workers(jobs, _libraries(names)) as submit:
            targets = submit(_targets, names).result()
            probing = [submit(_probe, name, device, "traced" in plan.modes) for name, device in targets]
            for probed, target in zip(probing, targets, strict=True):
                found.append(_probed(probed, target, failures))
                events.probed(found[-1])
            found += [] if backends else _left_out(plan)
            for backend in found[len(targets) :]:
                events.probed(backend)
            skipped, unasked, tasks = _plan(found, rules, dtypes, plan, seed)
            cells += skipped
            laws += unasked
            planned = len(tasks)
            events.planned(planned)
            kept: dict[type, list[Any]] = {Cell: cells, LawResult: laws, Replay: replays}
            submitted = {submit(_attempted, task): task for task in tasks}
            for future in as_completed(submitted):
                task = submitted[future]
                results, seen, taken, failure = _outcome(future, task)
                failures += filter(None, [failure])
                counts += seen
                for result in results:
                    if not isinstance(result, LawResult):
                        _explain(result, found)
                    kept[type(result)].append(result)
                seconds |= _shares(results, taken)
                ended += 1
                events.finished(task.rule, task.what, results)
    except KeyboardInterrupt:
        interrupted = f"{ended} of {planned} tasks" if planned else "the probes of some libraries"
    order = {name: i for i, name in enumerate(RULES)}
    places = {law.name: i for i, law in enumerate(LAWS)}
    cells.sort(key=lambda c: (order[c.rule], DTYPES.index(c.dtype)))
    laws.sort(key=lambda r: (order[r.rule], places.get(r.law, len(places)), DTYPES.index(r.dtype)))
    replays.sort(key=lambda r: order[r.rule])
    today = datetime.datetime.now(datetime.UTC)
    about = {
        "command": command_line("conform", asked | {"profile": profile, "seed": seed}),
        "xopt": version("array-xopt"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "date": today.date().isoformat(),
        "time": today.strftime("%H:%M:%S"),
        "asked": asked,
        "profile": profile,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "interrupted": interrupted,
    }
    judgement = ledger.judge(cells, laws, rows if interrupted is None else [], today.date(), platform.machine())
    census = take_census(counts, set(rules) == set(RULES))
    report = Report(about, found, cells, replays, laws, judgement, census, failures, seconds=seconds)
    if interrupted is not None:
        raise InterruptedRun(report)
    return report


class UnknownNameError(ValueError):
    """A run was asked of something that there is not."""


class InterruptedRun(KeyboardInterrupt):
    """A run was interrupted: with the report of what it had found."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"interrupted after {report.about['interrupted']}")
        self.report = report


class Task(NamedTuple):
    """One check: a call that a worker process makes."""

    rule: str
    what: str
    function: Callable[..., list[Any]]
    arguments: tuple[Any, ...]


Outcome = tuple[list[Any], Counter[str], float, str | None]
"""The results, the census, the seconds, and, where the check itself failed, why there are no results."""


def _attempted(task: Task) -> Outcome:
    began = time.perf_counter()
    try:
        results, seen = counted(task.function, *task.arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        return [], Counter(), time.perf_counter() - began, _failure(f"{task.rule} {task.what}", error)
    for result in results:
        if not isinstance(result, LawResult) and result.verdict == WRONG:
            cell = result.to_dict() if isinstance(result, Cell) else result.replayed
            cell["wrong"].update(once_more(cell))
            if isinstance(result, Cell):
                result.wrong = cell["wrong"]
    return results, seen, time.perf_counter() - began, None


def _shares(results: Sequence[Any], seconds: float) -> dict[Any, float]:
    """The time of a task, shared by what it compared: all of it ran on the same inputs, in turns."""
    ran = [result for result in results if result.verdict != NOT_RUN]
    return {key_of(result): seconds / len(ran) for result in ran}


def _outcome(future: "Future[Outcome]", task: Task) -> Outcome:
    """Of a task. Where a process has died, nobody knows of which: each that was not done runs once more, alone."""
    try:
        return future.result()
    except BrokenProcessPool:
        with pool_of(1, ()) as alone:
            try:
                return alone.submit(_attempted, task).result()
            except BrokenProcessPool:
                return [], Counter(), 0.0, f"{task.rule} {task.what}: the process died: a library crashed, or the memory was full"


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
            raise UnknownNameError(unknown(what, name, known))
    return list(dict.fromkeys(names)) if names else list(known)


def _targets(names: Sequence[str] | None) -> list[tuple[str, str | None]]:
    """Backend and device of each target; the device is None where the backend cannot run."""
    available = backends.available(_libraries(names))
    targets: list[tuple[str, str | None]] = []
    for target in names or available:
        name, colon, device = target.partition(":")
        devices = available[name].devices
        if colon and available[name].reason is None and device not in devices:
            msg = f"unknown device {device!r} of backend {name}; there are {', '.join(devices)}"
            raise UnknownNameError(msg)
        apart = [d for d in devices if not d.startswith("cpu:")]  # a further one of JAX is the same CPU
        targets += [(name, device)] if device else [(name, d) for d in apart or (None,)]
    return list(dict.fromkeys(targets))


def _unless_slow(names: Sequence[str] | None, plan: Profile) -> Sequence[str]:
    """The backends that run: all, where none is asked for, but the slow ones only where there is time."""
    return names or [name for name, kind in backends.BACKENDS.items() if plan.slow or not kind.slow]


def _left_out(plan: Profile) -> list[BackendReport]:
    """The slow backends, where they do not run, with the reason."""
    found = []
    for name, kind in backends.BACKENDS.items() if not plan.slow else ():
        if kind.slow:
            version = kind.installed_version()
            why = f"in the nightly profile; --backend {name} runs it" if version else backends.available([name])[name].reason
            found.append(BackendReport(name, "", version, why))
    return found


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
) -> tuple[list[Cell], list[LawResult], list[Task]]:
    """The cells and the laws that do not run, with the reason, and the tasks for those that do."""
    cells: list[Cell] = []
    laws: list[LawResult] = []
    tasks: list[Task] = []
    possible = [(b, mode, b.target(mode)) for b in found if b.reason is None for mode in MODES]
    for rule in rules:
        for dtype in dtypes:
            targets = [target for b, mode, target in possible if not _why_not(b, dtype, mode, plan)]
            for backend in found:
                for mode in MODES:
                    reason = _why_not(backend, dtype, mode, plan)
                    if reason is not None:
                        cells.append(Cell(rule, backend.name, backend.device, dtype, mode, reason))
            on_numpy = [target for target in targets if target.backend == "numpy"]
            later = {b.name: why for b in found if (why := _why_no_laws(b, rule, dtype, dtypes, plan, seed))}
            laws += [
                LawResult(law.name, rule, target.backend, target.device, dtype, target.mode, later[target.backend])
                for target in targets
                for law in LAWS
                if target.backend in later and rule in law.rules
            ]
            for given in dict.fromkeys(plan.of(target.backend) for target in targets):
                some = [target for target in targets if plan.of(target.backend) == given]
                lawful = [target for target in some if target.backend not in later]
                turn = (list(RULES).index(rule) + seed) % TURNS == 0 and dtype == "float32"
                play = partial(check_structures, compiled=plan.compiled * turn)
                places = some
                if "fused" not in plan.modes:  # blocks alone compile nothing
                    play = partial(play, compilers=("blocks",))
                    places = [*some, *(b.target("fused") for b in found if b.name == "numpy" and on_numpy)]
                checks: list[tuple[str, Callable[..., Any], list[Any], Effort]] = [
                    (dtype, check_rule, some, Effort(given.cells(dtype), seed, plan.pool)),
                    (f"{dtype} laws", check_laws, lawful, Effort(given.law_examples(dtype), seed)),
                    (f"{dtype} operations", check_machine, some, Effort(given.operations, seed)),
                    (f"{dtype} structures", play, places, Effort(plan.situations, seed)),
                ]
                tasks += [Task(rule, what, check, (rule, dtype, at, effort)) for what, check, at, effort in checks if at]
            if any(target.mode == "eager" for target in on_numpy):
                tasks.append(Task(rule, f"{dtype} digest", check_digest, (rule, dtype)))
        if "float64" in dtypes and any(b.name == "numpy" and b.reason is None for b in found):
            tasks.append(Task(rule, "papers", check_papers, (rule,)))
        targets = [target for b, mode, target in possible if "float32" in dtypes and not _why_not(b, "float32", mode, plan)]
        if targets:
            tasks.append(Task(rule, "digits", replay_rule, (rule, targets, plan.training)))
    return cells, laws, tasks


def _why_no_laws(backend: BackendReport, rule: str, dtype: str, dtypes: list[str], plan: Profile, seed: int) -> str | None:
    """Why a backend is not held to the laws of a rule in a dtype, though it runs."""
    own = [one for one in dtypes if one in backend.dtypes]
    if dtype not in own or not plan.in_turn(backend.name):
        return None
    turn = own[(list(RULES).index(rule) + seed) % len(own)]
    if dtype == turn:
        return None
    return f"an operation of {backend.name} takes a millisecond: of this rule the laws are asked in {turn}, of another elsewhere"


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
    if mode == "traced" and backend.tracer in SLOW_TRACERS and not plan.slow:
        return f"{backend.tracer} starts a C++ compiler for each step: the nightly profile runs it"
    if mode not in plan.modes:
        return "this profile leaves compiled steps out"
    return None


def _explain(result: Cell | Replay, found: list[BackendReport]) -> None:
    """What the probes say of differences from NumPy's bits."""
    if result.verdict != WITHIN:
        return
    backend = next(b for b in found if (b.name, b.device) == (result.backend, result.device))
    probes = Probes.from_dict(backend.probes)
    uses_sqrt = any(operation.name == "sqrt" for operation in RULES[result.rule].program.operations)
    result.explanation += probes.explain(arithmetic_of(result.dtype), result.mode != "eager", uses_sqrt)
