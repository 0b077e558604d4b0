"""How a report is shown in a terminal, as the table of the README, and as JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xopt.conformance.reading import read
from xopt.conformance.report.program import law_details, law_words, script
from xopt.conformance.report.report import SCHEMA, BackendReport, Report, Reported
from xopt.conformance.report.vocabulary import VERDICTS, Place, heading, order, symbol, weakest
from xopt.conformance.results import BROKEN, DTYPES, HELD, NOT_RUN, WITHIN, WORDS, Cell, LawResult
from xopt.conformance.training import Replay

if TYPE_CHECKING:
    from xopt.conformance.evidence.examination import Evidence
    from xopt.conformance.faults import FaultReport


def symbol_of(result: Cell | Replay) -> str:
    """What a table shows of a comparison."""
    return symbol(result.verdict, result.ratio if isinstance(result, Cell) else result.replayed["ratio"])


def progress_line(results: Sequence[Reported]) -> str:
    """What was found on each backend, in a few words."""
    laws: dict[str, list[LawResult]] = {}
    words = []
    for r in results:
        where = r.backend if r.mode == "eager" else f"{r.backend} {WORDS[r.mode]}"
        if isinstance(r, LawResult):
            laws.setdefault(where, []).append(r)
        elif r.verdict != NOT_RUN:
            words.append(f"{where} {symbol_of(r)}")
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


def show_backend(console: Console, backend: BackendReport) -> None:
    """The probes of one backend, in words."""
    if backend.reason is not None:
        console.print(Text(f"{backend.name}: not run, {backend.reason}", style="dim"))
        return
    name = Text(f"{backend.name} {backend.version} on {backend.device} ", style="bold")
    console.print(name.append(f"({backend.seconds} s)", style="not bold dim"))
    for sentence in backend.sentences:
        _say(console, f"  {sentence}")


def show(console: Console, report: Report, verbose: bool = False) -> None:
    """Tables of verdicts, what is wrong, and last the verdict of all; ``verbose``: what did not run, too, with the reasons."""
    for dtype in DTYPES:
        cells = [c for c in report.cells if c.dtype == dtype]
        if any(c.verdict != NOT_RUN for c in cells):
            _show_cells(console, report, f"{dtype} parameters", cells)
    if report.replays:
        _show_cells(console, report, "real gradients (digits), float32", report.replays)
        _show_training(console, report)
    _show_laws(console, report)
    _show_legend(console, report)
    _show_totals(console, report)
    if verbose:
        _show_not_run(console, report)
    _show_wrong(console, report, verbose)
    for problem in report.problems[len(report.wrong) :]:  # those of results were shown
        console.print(Text(f"\n{problem}", style="bold red"))


def show_verdict(console: Console, report: Report, verbose: bool = False) -> None:
    """The last line."""
    folded = " (why: --verbose)" if report.counts.not_run and not verbose else ""
    style = "bold red" if report.problems else "bold green"
    console.print(Text(f"\n{report.verdict}{folded}.", style=style))


def _say(console: Console, text: str, style: str = "") -> None:
    """Prose, broken between words."""
    console.print(Text(text, style=style), highlight=False)


def _show_wrong(console: Console, report: Report, verbose: bool) -> None:
    """What is wrong of each rule, once in full, and where else; laws that raise the same share one paragraph."""
    raised: dict[str, list[LawResult]] = {}
    groups: dict[tuple[str, str], list[Reported]] = {}
    for result in report.wrong:
        law = result if isinstance(result, LawResult) else None
        if law and law.broken and "raised" in law.broken and not verbose:
            raised.setdefault(law.broken["raised"], []).append(law)
        else:
            groups.setdefault((result.rule, law.law if law else ""), []).append(result)
    for (rule, name), results in groups.items():
        for result in results if verbose else results[:1]:
            _show_one(console, result)
        rest = [] if verbose else results[1:]
        if rest:
            places, dtypes = (", ".join(dict.fromkeys(x)) for x in zip(*((_where(r), r.dtype) for r in rest), strict=True))
            what = f"of law {name!r} of {rule}" if name else f"comparisons of {rule}"
            _say(console, f"{len(rest)} more {what}, on {places}; {dtypes} (each of them: --verbose)", "bold red")
    for message, laws in raised.items():
        console.print(Text(f"\nBROKEN: {len(laws):,} {'law' if len(laws) == 1 else 'laws'} by {message}", style="bold red"))
        _say(console, "; ".join(dict.fromkeys(f"{law.law} ({law.rule} on {law.backend})" for law in laws)))


def _where(result: Reported) -> str:
    return heading((result.backend, result.device, result.mode))


def _show_one(console: Console, result: Reported) -> None:
    """A wrong comparison with its program, a broken law with its numbers."""
    where = f"{result.rule} on {result.backend} {result.device}, {result.dtype}, {result.mode}"
    if isinstance(result, LawResult):
        assert result.broken is not None
        console.print(Text(f"\nBROKEN: {result.law}: {where}", style="bold red"))
        _say(console, law_words(result.broken))
        for name, value in law_details(result.broken).items():
            console.print(f"{name}: {value}", style="dim", highlight=False, markup=False, soft_wrap=True)
        return
    cell = result.to_dict() if isinstance(result, Cell) else result.replayed
    real = "" if isinstance(result, Cell) else ", real gradients"
    console.print(Text(f"\nWRONG: {where}{real}", style="bold red"))
    if cell["wrong"].get("traceback"):
        console.print(cell["wrong"]["traceback"].rstrip(), highlight=False, markup=False, soft_wrap=True)
    console.print(script(cell), highlight=False, markup=False, soft_wrap=True)


def show_faults(console: Console, report: "FaultReport") -> None:
    """What planting the faults showed, in a few lines."""
    for line in report.summary():
        _say(console, line)


def _grid(console: Console, title: str, rules: Sequence[str], columns: Mapping[str, Callable[[str], Text]]) -> None:
    """A row a rule. Columns for which the terminal is too narrow go into a further table."""
    if not columns:
        return
    first = max(map(len, ("rule", *rules)))
    left, room = list(columns), max(console.width - first - 4, 1)
    while left:
        taken: list[str] = []
        while left and (not taken or sum(_width(name, rules, columns) + 3 for name in (*taken, left[0])) <= room):
            taken.append(left.pop(0))
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("rule", no_wrap=True)
        for name in taken:
            table.add_column(name.replace(" ", "\n"), justify="right", vertical="bottom", no_wrap=True)
        for rule in rules:
            table.add_row(rule, *(columns[name](rule) for name in taken))
        console.print(Text(f"\n{title}", style="italic"))
        console.print(table)


def _width(name: str, rules: Sequence[str], columns: Mapping[str, Callable[[str], Text]]) -> int:
    return max(*map(len, name.split()), *(columns[name](rule).cell_len for rule in rules), 1)


def _headed(report: Report, places: Sequence[Place]) -> dict[Place, str]:
    """The headings of columns."""
    tracers = {(b.name, b.device): b.tracer for b in report.backends}
    return {place: heading(place, tracers.get(place[:2])) for place in places}


def _show_laws(console: Console, report: Report) -> None:
    places = _columns(report.laws)

    def column(place: Place) -> Callable[[str], Text]:
        def of(rule: str) -> Text:
            text, verdict = tally([r for r in report.laws if r.rule == rule and (r.backend, r.device, r.mode) == place])
            return Text(text, style=VERDICTS[verdict].style)

        return of

    title = "laws, which need no reference: how many hold, over all dtypes"
    rules = list(dict.fromkeys(r.rule for r in report.laws))
    _grid(console, title, rules, {name: column(place) for place, name in _headed(report, places).items()})


def _show_cells(console: Console, report: Report, title: str, cells: Sequence[Any]) -> None:
    places = _columns(cells)
    known = {(c.rule, c.backend, c.device, c.mode): c for c in cells}

    def column(place: Place) -> Callable[[str], Text]:
        def of(rule: str) -> Text:
            cell = known.get((rule, *place))
            return Text(symbol_of(cell) if cell else "-", style=VERDICTS[cell.verdict if cell else NOT_RUN].style)

        return of

    rules = list(dict.fromkeys(c.rule for c in cells))
    _grid(console, title, rules, {name: column(place) for place, name in _headed(report, places).items()})


def _columns(results: Sequence[Reported]) -> list[Place]:
    """Of what ran."""
    return sorted({(r.backend, r.device, r.mode) for r in results if r.verdict != NOT_RUN}, key=order)


def _show_legend(console: Console, report: Report) -> None:
    """Of the verdicts that this run has."""
    results: list[Reported] = [*report.cells, *report.replays, *report.laws]
    here = {r.verdict for r in results} - {HELD, BROKEN}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for verdict, word in VERDICTS.items():
        if verdict in here:
            table.add_row(Text(word.symbol, style=word.style), Text(f"{verdict}: {word.meaning}", style="dim"))
    if any(law.verdict == WITHIN for law in report.laws):
        table.add_row("22+2~", Text("22 laws hold; two that ask for equal bits hold within the bound", style="dim"))
    console.print(table)


def _show_training(console: Console, report: Report) -> None:
    """How far native trainings on the digits end from NumPy's: sums of products are not in the same order everywhere."""
    trained = [r for r in report.replays if r.divergence is not None]
    known = {(r.rule, r.backend, r.device): r for r in trained}
    places = sorted({(r.backend, r.device, r.mode) for r in trained}, key=order)

    def column(place: Place) -> Callable[[str], Text]:
        return lambda rule: Text(f"{known[rule, *place[:2]].divergence:.0e}" if (rule, *place[:2]) in known else "-")

    def losses(rule: str) -> Text:
        first, last = fall(next(r.losses for r in trained if r.rule == rule))
        return Text(f"{first:.2f} -> {last:.2f}")

    title = "training on digits: loss, and distance of the parameters from NumPy's at the end"
    rules = list(dict.fromkeys(r.rule for r in trained))
    columns = {"loss": losses} | {name: column(place) for place, name in _headed(report, places).items()}
    _grid(console, title, rules, columns if rules else {})


def fall(losses: list[float]) -> tuple[float, float]:
    """Mean loss of the first and of the last tenth of a training."""
    tenth = max(1, len(losses) // 10)
    return sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth


def _show_totals(console: Console, report: Report) -> None:
    ran = [c for c in report.cells if c.verdict != NOT_RUN]
    asked = [row for row in report.census if row.floor]
    vacuous, trajectories = sum(c.vacuous for c in ran), sum(c.trajectory_vacuous for c in ran)
    parts = [
        f"\n{sum(c.trajectories for c in ran):,} trajectories of {sum(c.steps for c in ran):,} steps",
        f"{sum(c.elements for c in ran):,} numbers compared",
        *(
            [f"{vacuous:,} numbers have no bound for a step and {trajectories:,} for a trajectory"]
            if vacuous or trajectories
            else []
        ),
        *([f"census: {sum(not row.problem for row in asked)} of {len(asked)} floors reached"] if asked else []),
        f"{report.about['seconds']} s",
    ]
    _say(console, "; ".join(parts) + ".")


def _show_not_run(console: Console, report: Report) -> None:
    reasons: dict[str, int] = {}
    checks: list[Cell | LawResult] = [*report.cells, *report.laws]
    for check in checks:
        if check.verdict == NOT_RUN:
            reason = f"{check.backend}: {check.reason or 'no input reached it'}"
            reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in reasons.items():
        _say(console, f"not run: {count} checks, {reason}", "dim")


def json_of(report: "Report | FaultReport") -> str:
    return json.dumps(report.to_dict(), indent=1, allow_nan=False) + "\n"


def write_json(report: "Report | FaultReport", path: Path) -> None:
    path.write_text(json_of(report), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """What ``write_json`` wrote of a report. Raises ValueError for another file."""
    try:
        found = read(path)
        known = found["schema"] == SCHEMA
    except (ValueError, KeyError, TypeError):
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
    others = [[_cell_of(cell) for cell in run["cells"] if (cell["backend"], cell["device"]) not in ran] for run in beside]
    known = [*report.cells, *(cell for record in proven for cell in record.cells), *(cell for run in others for cell in run)]
    columns = _columns(known)
    about = report.about
    versions = ", ".join(f"{b.name} {b.version}" for b in report.backends if b.reason is None)
    where = f"{versions}, Python {about['python']}, {about['machine']}"
    found = f"{sum(c.trajectories for c in report.cells):,} trajectories in {about['seconds']:.0f} s"
    lines = [
        f"{report.scope}: `{about['command']}`, {about['date']}, {where}: {found}. {report.verdict}.",
        "",
        "| rule | " + " | ".join(map(heading, columns)) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for rule in report.scope.names["rule"]:
        row = []
        for key in columns:
            cells = [c for c in known if c.rule == rule and (c.backend, c.device, c.mode) == key and c.verdict != NOT_RUN]
            row.append(_weakest(cells))
        lines.append(f"| `{rule}` | " + " | ".join(row) + " |")
    elsewhere = {cell.backend for cell in known if cell.verdict != NOT_RUN}
    missing = "; ".join(f"{b.name} ({b.reason})" for b in report.backends if b.reason is not None and b.name not in elsewhere)
    recorded = "; ".join(f"{record.backend} {record.device} on {record.hardware}, {record.date}" for record in proven)
    dtypes = "every dtype that the backend has" if "dtype" not in report.scope.lacking else ", ".join(report.scope.names["dtype"])
    words = {
        word.symbol.replace("*", "\\*"): f"{verdict}, {word.meaning}"
        for verdict, word in VERDICTS.items()
        if verdict not in (HELD, BROKEN)
    }
    lines += [
        "",
        f"In {dtypes}, of which each square shows the weakest: "
        + "; ".join(f"**{sign}** {meaning}" for sign, meaning in words.items())
        + "."
        + (f" Not run: {missing}." if missing else "")
        + (f" From records: {recorded}." if recorded else ""),
    ]
    for run, cells in zip(beside, others, strict=True):
        places = ", ".join(dict.fromkeys(f"{c.backend} {c.device}" for c in cells if c.verdict != NOT_RUN))
        libraries = ", ".join(f"{b['name']} {b['version']}" for b in run["backends"] if b["reason"] is None)
        lines[-1] += f" {places}: `{run['about']['command']}`, {run['about']['date']}, {libraries}."
    return "\n".join(lines)


def _cell_of(found: dict[str, Any]) -> Cell:
    """A cell of a report as JSON."""
    return Cell(**{name: x for name, x in found.items() if name not in ("verdict", "seconds") and x is not None})


def _weakest(cells: list[Cell]) -> str:
    least = weakest(c.verdict for c in cells)
    return symbol(least, max((c.ratio for c in cells if c.verdict == least), default=0.0))


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
