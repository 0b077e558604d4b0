"""``xopt conform``."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from xopt.conformance import suite
from xopt.conformance.cli.faults import plant
from xopt.conformance.cli.options import Jobs, must_have_a_folder, must_have_markers, processes, progress_bar
from xopt.conformance.evidence.examination import current_cells
from xopt.conformance.evidence.record import RECORDS
from xopt.conformance.evidence.writing import require_clean, write
from xopt.conformance.ledger.judgement import ACCEPTED
from xopt.conformance.profiles import PROFILES
from xopt.conformance.report import text as views
from xopt.conformance.report.html import write_html
from xopt.conformance.report.junit import write_junit
from xopt.conformance.report.report import BackendReport
from xopt.conformance.results import BROKEN, WRONG


def conform(
    backend: Annotated[list[str] | None, typer.Option(help="A backend, such as torch or torch:cuda:0. May be repeated.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="A rule, such as lion. May be repeated.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="A dtype of the parameters, such as float32. May be repeated.")] = None,
    profile: Annotated[
        str | None,
        typer.Option(help=f"How much to run: {', '.join(PROFILES)}. Default: quick; ci for evidence.", show_default=False),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the inputs. Default: 0; of nightly, a new one.", show_default=False)] = None,
    json: Annotated[Path | None, typer.Option(help="Write the whole report here, as JSON.", dir_okay=False)] = None,
    table: Annotated[
        Path | None, typer.Option(help="Put the table of verdicts in this Markdown file, between its markers.")
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="The JSON of another run, whose columns stand in the table too. May be repeated.", exists=True),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page to look at here.", dir_okay=False)] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here, for other programs.", dir_okay=False)] = None,
    faults: Annotated[bool, typer.Option("--faults", help="Plant the faults of the catalogue too, for the page.")] = False,
    evidence: Annotated[
        Path | None, typer.Option(help="Write one record for each backend and device into this directory.", file_okay=False)
    ] = None,
    jobs: Jobs = 0,
) -> None:
    """Check that every backend computes what the golden reference says.

    Exit status: 0 all right, 1 something is wrong, 2 bad usage.
    """
    console = Console()
    for option, path in (("--json", json), ("--html", html), ("--junit", junit)):
        must_have_a_folder(path, option)
    must_have_markers(table, [views.mark(views.TABLE)], "--table")
    try:
        others = [views.read_json(path) for path in beside or ()]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--beside") from None
    profile = profile or ("ci" if evidence else "quick")
    if seed is None:
        seed = secrets.randbits(32) if profile == "nightly" else 0
    if evidence is not None:
        try:
            require_clean()
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--evidence") from None
    progress = progress_bar(console)
    try:
        with progress:
            report = suite.conform(backend, rule, dtype, profile, seed, processes(jobs), Shown(progress))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    views.show(console, report)
    current = current_cells(RECORDS)
    report.evidence = [one.to_dict() for one in current]
    if faults:
        found = plant(console, [], jobs, seed)
        views.show_faults(console, found)
        report.faults = found.to_dict()
    if json is not None:
        views.write_json(report, json)
    if table is not None:
        views.write_table(report, table, current, others)
    if html is not None:
        write_html(report.to_dict(), html)
    if junit is not None:
        write_junit(report.to_dict(), junit)
    if evidence is not None:
        accepted = [row.says for row in report.ledger.rows if row.state == ACCEPTED]
        try:
            for path in write(report, evidence, accepted, processes(jobs)):
                console.print(f"wrote {path}", highlight=False, soft_wrap=True)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--evidence") from None
    survivors = report.faults is not None and found.survivors
    raise typer.Exit(1 if report.problems or survivors else 0)


class Shown(suite.Events):
    """Shows what happens in a run, above a progress bar."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bar = progress.add_task("probing", total=None)

    def planned(self, tasks: int) -> None:
        self.progress.update(self.bar, total=tasks)

    def probed(self, backend: BackendReport) -> None:
        views.show_backend(self.progress.console, backend)

    def finished(self, rule: str, what: str, results: Sequence[Any]) -> None:
        self.progress.update(self.bar, advance=1, description=f"{rule} {what}")
        style = "bold red" if any(r.verdict in (WRONG, BROKEN) for r in results) else None
        line = f"  {rule:9} {what:18} {views.progress_line(results)}"
        self.progress.console.print(line, style=style, highlight=False, soft_wrap=True)
