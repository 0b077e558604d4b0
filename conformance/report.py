"""How a report is shown: tables for a terminal, the table of the README, and JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xopt.backends import BACKENDS
from xopt.conformance.cells import IDENTICAL, NOT_RUN, SUBNORMALS, WITHIN, WRONG, Cell
from xopt.conformance.replay import Replay
from xopt.conformance.suite import DTYPES, BackendReport, Report
from xopt.rules import RULES

_STYLES = {IDENTICAL: "green", SUBNORMALS: "green", WITHIN: "yellow", WRONG: "bold white on red", NOT_RUN: "dim"}

LEGEND = """\
bits    the same bits as NumPy
bits*   the same bits, except where subnormal numbers occur: the backend flushes them to zero
0.97    within the derived error bound; the number is the largest error/bound of a step, at most 1 when right
WRONG   outside the bound
-       not run"""


def symbol(cell: Cell | Replay) -> str:
    ratio = cell.ratio if isinstance(cell, Cell) else cell.replayed["ratio"]
    return {IDENTICAL: "bits", SUBNORMALS: "bits*", WITHIN: f"{math.floor(100 * ratio) / 100:.2f}", WRONG: "WRONG", NOT_RUN: "-"}[
        cell.verdict
    ]


def heading(backend: str, device: str, mode: str, tracer: str | None) -> str:
    where = f"{backend} {device}".strip()
    return where if mode == "eager" else f"{tracer or backend} {device}".strip()


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
    console.print(LEGEND, style="dim", highlight=False, soft_wrap=True)
    _show_totals(console, report)
    for result in report.wrong:
        cell = result.to_dict() if isinstance(result, Cell) else result.replayed
        console.print(
            Text(
                f"\nWRONG: {cell['rule']} on {cell['backend']} {cell['device']}, {cell['dtype']}, {cell['mode']}", style="bold red"
            )
        )
        console.print(script(cell), highlight=False)


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


def _columns(cells: Sequence[Cell | Replay]) -> list[tuple[str, str, str]]:
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
        f"\n{len(ran)} cells, {sum(c.examples for c in ran):,} trajectories, {sum(c.steps for c in ran):,} steps, "
        f"{sum(c.elements for c in ran):,} numbers compared; {sum(c.vacuous for c in ran)} vacuous for a step, "
        f"{sum(c.trajectory_vacuous for c in ran)} for a trajectory; {len(report.wrong)} wrong. "
        f"Seed {report.about['seed']}, {report.about['seconds']} s.",
        highlight=False,
    )
    reasons: dict[str, int] = {}
    for cell in report.cells:
        if cell.reason:
            reason = f"{cell.backend}: {cell.reason}"
            reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in reasons.items():
        console.print(f"not run: {count} cells, {reason}", style="dim", highlight=False, markup=False, soft_wrap=True)


def script(cell: dict[str, Any]) -> str:
    """A program that shows the wrong number of a cell again, to paste."""
    found = cell["wrong"]
    hyper = "".join(f", {name}={value!r}" for name, value in found["hyper"].items())
    compiled = " (through its compiler)" if cell["mode"] == "traced" else ""
    return f"""\
# {found["column"]} after step {found["step"]}, leaf {found["leaf"]}{found["element"]}{compiled}:
# off by {_number(found["error"])} where {found["bound"]:.3g} is allowed
import xopt
from xopt import backends

backend = backends.get({cell["backend"]!r}, {cell["device"]!r})
with backend.session():
    state = xopt.{cell["rule"]}_init(backend.asarray([{found["params"]!r}], {cell["dtype"]!r}){hyper})
    for g in {found["grads"]!r}:
        state = xopt.{cell["rule"]}_step(state, backend.asarray([g], {cell["dtype"]!r}){hyper})
        print(state)
"""


def _number(x: float | None) -> str:
    return "infinity or NaN" if x is None else f"{x:.3g}"


def write_json(report: Report, path: Path) -> None:
    path.write_text(json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n")


BEGIN, END = "<!-- conformance table: begin -->", "<!-- conformance table: end -->"


def markdown(report: Report) -> str:
    """Rules by backends, each cell the weakest verdict over the dtypes, with the run that it comes from."""
    tracers = {(b.name, b.device): b.tracer for b in report.backends}
    columns = _columns(report.cells)
    lines = [
        "| rule | " + " | ".join(heading(*key, tracers[key[:2]]) for key in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for rule in RULES:
        row = []
        for key in columns:
            cells = [c for c in report.cells if c.rule == rule and (c.backend, c.device, c.mode) == key and c.verdict != NOT_RUN]
            row.append(_weakest(cells))
        lines.append(f"| `{rule}` | " + " | ".join(row) + " |")
    about = report.about
    versions = ", ".join(f"{b.name} {b.version}" for b in report.backends if b.reason is None)
    missing = "; ".join(f"{b.name} ({b.reason})" for b in report.backends if b.reason is not None)
    lines += [
        "",
        (
            "**bits**: the same bits as NumPy in every dtype that the backend has. **bits\\***: except where subnormal numbers "
            "occur, which the backend flushes. A number: within the derived error bound, and the largest error/bound seen. "
            + (f"Not run: {missing}." if missing else "")
        ),
        "",
        (
            f"`xopt conform --profile {about['profile']} --seed {about['seed']}`, {about['date']}, {versions}, "
            f"Python {about['python']}, {about['machine']}: {sum(c.examples for c in report.cells):,} trajectories "
            f"in {about['seconds']:.0f} s."
        ),
    ]
    return "\n".join(lines)


def _weakest(cells: list[Cell]) -> str:
    if not cells:
        return "-"
    order = [IDENTICAL, SUBNORMALS, WITHIN, WRONG]
    weakest = max(cells, key=lambda c: (order.index(c.verdict), c.ratio))
    return symbol(weakest)


def write_table(report: Report, path: Path) -> None:
    """Puts the table between its two markers in a Markdown file. Raises ValueError where the file has no markers."""
    text = path.read_text()
    if BEGIN not in text or END not in text:
        msg = f"{path} has no line {BEGIN!r} and {END!r} to put the table between"
        raise ValueError(msg)
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    path.write_text(f"{head}{BEGIN}\n\n{markdown(report)}\n\n{END}{tail}")
