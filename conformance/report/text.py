"""How a report is shown: tables for a terminal, the table of the README, and JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xopt.backends import BACKENDS
from xopt.backends._torch import INTERPRETED
from xopt.conformance.report.report import SCHEMA, BackendReport, Report, Reported
from xopt.conformance.results import (
    BROKEN,
    DTYPES,
    HELD,
    IDENTICAL,
    NOT_RUN,
    SUBNORMALS,
    WITHIN,
    WORDS,
    WRONG,
    Cell,
    LawResult,
)
from xopt.conformance.training import Replay
from xopt.rules import RULES

if TYPE_CHECKING:
    from xopt.conformance.evidence.examination import Evidence
    from xopt.conformance.faults import FaultReport

_STYLES = {
    IDENTICAL: "green",
    SUBNORMALS: "green",
    HELD: "green",
    WITHIN: "yellow",
    WRONG: "bold white on red",
    BROKEN: "bold white on red",
    NOT_RUN: "dim",
}

LEGEND = """\
bits    the same bits as NumPy
bits*   the same bits, except where subnormal numbers occur: the backend flushes them to zero
0.97    within the derived error bound; the number is the largest error/bound of a step, at most 1 when right
WRONG   outside the bound
22+2~   of the laws, 22 hold, and two that ask for equal bits hold within the bound
-       not run"""


def symbol(cell: Cell | Replay) -> str:
    ratio = cell.ratio if isinstance(cell, Cell) else cell.replayed["ratio"]
    return {IDENTICAL: "bits", SUBNORMALS: "bits*", WITHIN: f"{math.floor(100 * ratio) / 100:.2f}", WRONG: "WRONG", NOT_RUN: "-"}[
        cell.verdict
    ]


def progress_line(results: Sequence[Reported]) -> str:
    """What was found on each backend, in a few words."""
    laws: dict[str, list[LawResult]] = {}
    words = []
    for r in results:
        where = r.backend if r.mode == "eager" else f"{r.backend} {WORDS[r.mode]}"
        if isinstance(r, LawResult):
            laws.setdefault(where, []).append(r)
        elif r.verdict != NOT_RUN:
            words.append(f"{where} {symbol(r)}")
    words += [f"{where} {tally(found)[0]}" for where, found in laws.items() if tally(found)[1] != NOT_RUN]
    return ", ".join(words)


def tally(laws: Sequence[LawResult]) -> tuple[str, str]:
    """How many laws hold, such as ``24``, ``22+2~`` where two hold but for rounding, or ``1 BROKEN``; and the worst verdict."""
    counts = {verdict: sum(r.verdict == verdict for r in laws) for verdict in (HELD, WITHIN, BROKEN)}
    if counts[BROKEN]:
        return f"{counts[BROKEN]} BROKEN", BROKEN
    if counts[WITHIN]:
        return f"{counts[HELD]}+{counts[WITHIN]}~", WITHIN
    return (str(counts[HELD]), HELD) if counts[HELD] else ("-", NOT_RUN)


def heading(backend: str, device: str, mode: str, tracer: str | None) -> str:
    where = f"{backend} {device}".strip()
    return {"eager": where, "fused": f"{where} fused"}.get(mode) or f"{tracer or backend} {device}".strip()


def show_backend(console: Console, backend: BackendReport) -> None:
    """The probes of one backend, in words."""
    if backend.reason is not None:
        console.print(Text(f"{backend.name}: not run, {backend.reason}", style="dim"))
        return
    console.print(
        Text(f"{backend.name} {backend.version} on {backend.device}", style="bold"), Text(f"({backend.seconds} s)", style="dim")
    )
    for sentence in backend.sentences:
        console.print(Text(f"  {sentence}"), soft_wrap=True)


def show(console: Console, report: Report) -> None:
    """The verdicts: a table for each dtype, real gradients, and what is wrong in full."""
    tracers = {(b.name, b.device): b.tracer for b in report.backends}
    for dtype in DTYPES:
        cells = [c for c in report.cells if c.dtype == dtype]
        if any(c.verdict != NOT_RUN for c in cells):
            _show_table(console, f"{dtype} parameters", cells, tracers)
    if report.replays:
        _show_table(console, "real gradients (digits), float32", report.replays, tracers)
        _show_training(console, report)
    _show_laws(console, report, tracers)
    console.print(LEGEND, style="dim", highlight=False, soft_wrap=True)
    _show_totals(console, report)
    for result in report.wrong:
        where = f"{result.rule} on {result.backend} {result.device}, {result.dtype}, {result.mode}"
        if isinstance(result, LawResult):
            console.print(Text(f"\nBROKEN: {result.law}: {where}", style="bold red"))
            console.print(json.dumps(result.broken, indent=1), highlight=False, markup=False)
        else:
            console.print(Text(f"\nWRONG: {where}", style="bold red"))
            console.print(script(result.to_dict() if isinstance(result, Cell) else result.replayed), highlight=False, markup=False)
    for problem in report.problems[len(report.wrong) :]:
        console.print(Text(f"\n{problem}", style="bold red"))


def show_faults(console: Console, report: "FaultReport") -> None:
    """What planting the faults showed, in a few lines."""
    for line in report.summary():
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _show_laws(console: Console, report: Report, tracers: dict[Any, Any]) -> None:
    columns = _columns(report.laws)
    table = Table(title="laws that need no reference: how many hold, over all dtypes", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("rule")
    for backend, device, mode in columns:
        table.add_column(heading(backend, device, mode, tracers[backend, device]), justify="right")
    for rule in dict.fromkeys(r.rule for r in report.laws):
        row = []
        for key in columns:
            text, verdict = tally([r for r in report.laws if r.rule == rule and (r.backend, r.device, r.mode) == key])
            row.append(Text(text, style=_STYLES[verdict]))
        table.add_row(rule, *row)
    if columns:
        console.print(table)


def _show_table(console: Console, title: str, cells: list[Any], tracers: dict[Any, Any]) -> None:
    columns = _columns(cells)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("rule")
    for backend, device, mode in columns:
        table.add_column(heading(backend, device, mode, tracers[backend, device]), justify="right")
    for rule in dict.fromkeys(c.rule for c in cells):
        row = {(c.backend, c.device, c.mode): c for c in cells if c.rule == rule}
        table.add_row(rule, *(Text(symbol(row[key]), style=_STYLES[row[key].verdict]) for key in columns))
    console.print(table)


def _columns(cells: Sequence[Reported]) -> list[tuple[str, str, str]]:
    """Backend, device and mode of what ran, in the order of the backends."""
    ran = {(c.backend, c.device, c.mode) for c in cells if c.verdict != NOT_RUN}
    return sorted(ran, key=lambda key: (list(BACKENDS).index(key[0]), key[1:]))


def _show_training(console: Console, report: Report) -> None:
    """How far native trainings on the digits end from NumPy's: sums of products are not in the same order everywhere."""
    trained = [r for r in report.replays if r.divergence is not None]
    columns = list(dict.fromkeys((r.backend, r.device) for r in trained))
    table = Table(title="training on digits: loss, and distance of the parameters from NumPy's at the end", title_justify="left")
    table.box = box.SIMPLE_HEAD
    table.add_column("rule")
    table.add_column("loss", justify="right")
    for backend, device in columns:
        table.add_column(f"{backend} {device}", justify="right")
    for rule in dict.fromkeys(r.rule for r in trained):
        row = {(r.backend, r.device): r for r in trained if r.rule == rule}
        first, last = fall(next(iter(row.values())).losses)
        table.add_row(rule, f"{first:.2f} -> {last:.2f}", *(f"{row[key].divergence:.0e}" for key in columns))
    console.print(table)


def fall(losses: list[float]) -> tuple[float, float]:
    """Mean loss of the first and of the last tenth of a training."""
    tenth = max(1, len(losses) // 10)
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth


def _show_totals(console: Console, report: Report) -> None:
    ran = [c for c in report.cells if c.verdict != NOT_RUN]
    console.print(
        f"\n{len(ran)} cells, {sum(c.trajectories for c in ran):,} trajectories, {sum(c.steps for c in ran):,} steps, "
        f"{sum(c.elements for c in ran):,} numbers compared; {sum(c.vacuous for c in ran)} vacuous for a step, "
        f"{sum(c.trajectory_vacuous for c in ran)} for a trajectory. "
        f"Laws: {sum(r.verdict == HELD for r in report.laws):,} checks hold, "
        f"{sum(r.verdict == WITHIN for r in report.laws)} within the bound only. {len(report.wrong)} wrong. "
        f"Seed {report.about['seed']}, {report.about['seconds']} s.",
        highlight=False,
    )
    asked = [row for row in report.census if row.floor]
    if asked:
        console.print(
            f"census: {len(report.census)} counts; {sum(not row.problem for row in asked)} of {len(asked)} floors reached",
            highlight=False,
        )
    reasons: dict[str, int] = {}
    checks: list[Cell | LawResult] = [*report.cells, *report.laws]
    for cell in checks:
        if cell.reason:
            reason = f"{cell.backend}: {cell.reason}"
            reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in reasons.items():
        console.print(f"not run: {count} checks, {reason}", style="dim", highlight=False, markup=False, soft_wrap=True)


def script(cell: dict[str, Any], which: str = "wrong") -> str:
    """A program that shows a cell's ``"wrong"`` number again, to paste, or its ``"worst"``, where error/bound is largest."""
    found = cell[which]
    rule, dtype = cell["rule"], cell["dtype"]
    step = f"xopt.{rule}_step"
    asked = ", compiler=backend.asked_compiler" if cell["device"] == INTERPRETED else ""
    step = {"traced": f"backend.trace({step})", "fused": f"backends.fuse({step}{asked})"}.get(cell["mode"], step)
    where = f"{found['column']} after step {found['step']}, leaf {found['leaf']}{found['element']}:"
    again = f"\n# not reproducible: {found['again']}" if found["again"] else ""
    what = found["message"] or f"{where}\n# off by {_number(found['error'])} where {found['bound']:.3g} is allowed"

    def array(x: str) -> str:
        return f"backend.asarray([{x}], {dtype!r})"

    if not found.get("beside"):
        params, grad, loop = array(repr(found["params"])), array("g"), f"g in {found['grads']!r}"
        hyper = "".join(f", {name}={value!r}" for name, value in found["hyper"].items())
        state = {"step": found["taken"] or None, **found.get("carried", {})}
    else:  # several leaves, as they were in one tree
        leaves = {found["leaf"]: found, **found["beside"]}
        params = "{" + ", ".join(f"{leaf!r}: {array(repr(x['params']))}" for leaf, x in leaves.items()) + "}"
        grad = "{name: backend.asarray([x], " + repr(dtype) + ") for name, x in g.items()}"
        loop = f"g in {[dict(zip(leaves, gs, strict=True)) for gs in zip(*(x['grads'] for x in leaves.values()), strict=True)]!r}"
        names = dict.fromkeys(name for x in leaves.values() for name in x["hyper"])
        given = RULES[rule].defaults
        trees = {name: {leaf: x["hyper"].get(name, given[name]) for leaf, x in leaves.items()} for name in names}
        hyper = "".join(
            f", {name}={next(iter(tree.values())) if RULES[rule].ranges[name].sequence else tree!r}" for name, tree in trees.items()
        )
        slots = dict.fromkeys(slot for x in leaves.values() for slot in x["carried"])
        own = {slot: {leaf: x["carried"].get(slot, RULES[rule].carried[slot]) for leaf, x in leaves.items()} for slot in slots}
        state = {"step": found["taken"] or None, **own}
    changes = ", ".join(f"{name}={value!r}" for name, value in state.items() if value is not None)
    changed = f"._replace({changes})" if changes else ""
    return f"""\
# {what}{again}
import xopt
from xopt import backends

backend = backends.get({cell["backend"]!r}, {cell["device"]!r})
step = {step}
with backend.session():
    state = xopt.{rule}.bind({hyper.removeprefix(", ")}).init({params}){changed}
    for {loop}:
        state = step(state, {grad}{hyper})
        print(state)
"""


def _number(x: float | None) -> str:
    return "infinity or NaN" if x is None else f"{x:.3g}"


def write_json(report: "Report | FaultReport", path: Path) -> None:
    path.write_text(json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What ``write_json`` wrote of a report. Raises ValueError for another file."""
    try:
        found = json.loads(path.read_text())
        known = found["schema"] == SCHEMA
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        msg = f"{path} is not what this version of xopt conform --json writes"
        raise ValueError(msg)
    return found  # type: ignore[no-any-return]


TABLE = "conformance table"


def markdown(report: Report, records: Sequence["Evidence"] = (), beside: Sequence[dict[str, Any]] = ()) -> str:
    """Rules by backends, each cell the weakest verdict over the dtypes, with the run that it comes from.

    ``records`` of devices that this run did not have add their columns, and so do reports of other runs, as ``to_dict`` makes them.
    """
    ran = {(c.backend, c.device) for c in report.cells if c.verdict != NOT_RUN}
    proven = [record for record in records if record.cells and (record.backend, record.device) not in ran]
    others = [[Cell(**{name: x for name, x in cell.items() if name != "verdict"}) for cell in run["cells"]] for run in beside]
    others = [[cell for cell in run if (cell.backend, cell.device) not in ran] for run in others]
    known = [*report.cells, *(cell for record in proven for cell in record.cells), *(cell for run in others for cell in run)]
    columns = _columns(known)
    lines = [
        "| rule | " + " | ".join(heading(*key, BACKENDS[key[0]].tracer) for key in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for rule in RULES:
        row = []
        for key in columns:
            cells = [c for c in known if c.rule == rule and (c.backend, c.device, c.mode) == key and c.verdict != NOT_RUN]
            row.append(_weakest(cells))
        lines.append(f"| `{rule}` | " + " | ".join(row) + " |")
    about = report.about
    versions = ", ".join(f"{b.name} {b.version}" for b in report.backends if b.reason is None)
    elsewhere = {cell.backend for cell in known if cell.verdict != NOT_RUN}
    missing = "; ".join(f"{b.name} ({b.reason})" for b in report.backends if b.reason is not None and b.name not in elsewhere)
    recorded = "; ".join(f"{record.backend} {record.device} on {record.hardware}, {record.date}" for record in proven)
    lines += [
        "",
        (
            "**bits**: the same bits as NumPy in every dtype that the backend has. **bits\\***: except where subnormal numbers "
            "occur, which the backend flushes. A number: within the derived error bound, and the largest error/bound seen."
            + (f" Not run: {missing}." if missing else "")
            + (f" From records: {recorded}." if recorded else "")
        ),
        "",
        (
            f"`xopt conform --profile {about['profile']} --seed {about['seed']}`, {about['date']}, {versions}, "
            f"Python {about['python']}, {about['machine']}: {sum(c.trajectories for c in report.cells):,} trajectories "
            f"in {about['seconds']:.0f} s."
        ),
    ]
    for run, cells in zip(beside, others, strict=True):
        places = ", ".join(dict.fromkeys(f"{c.backend} {c.device}" for c in cells if c.verdict != NOT_RUN))
        libraries = ", ".join(f"{b['name']} {b['version']}" for b in run["backends"] if b["reason"] is None)
        lines[-1] += f" {places}: `{run['about']['command']}`, {run['about']['date']}, {libraries}."
    return "\n".join(lines)


def _weakest(cells: list[Cell]) -> str:
    if not cells:
        return "-"
    order = [IDENTICAL, SUBNORMALS, WITHIN, WRONG]
    weakest = max(cells, key=lambda c: (order.index(c.verdict), c.ratio))
    return symbol(weakest)


def mark(name: str, which: str = "begin") -> str:
    """The line of a Markdown file between which and its ``"end"`` a generated part stands."""
    return f"<!-- {name}: {which} -->"


def put_between(path: Path, name: str, text: str) -> None:
    """Puts a generated part between its two markers in a Markdown file. Raises ValueError where the file has no markers."""
    begin, end = mark(name), mark(name, "end")
    whole = path.read_text()
    if begin not in whole or end not in whole:
        msg = f"{path} has no line {begin!r} and {end!r} to put the table between"
        raise ValueError(msg)
    head, _, rest = whole.partition(begin)
    path.write_text(f"{head}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")


def write_table(report: Report, path: Path, records: Sequence["Evidence"] = (), beside: Sequence[dict[str, Any]] = ()) -> None:
    """Puts the table of verdicts into a Markdown file."""
    put_between(path, TABLE, markdown(report, records, beside))
