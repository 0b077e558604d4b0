"""``xopt conform``."""

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from xopt.backends import BACKENDS
from xopt.conformance import suite
from xopt.conformance.cli.faults import plant
from xopt.conformance.cli.options import (
    INTERRUPTED,
    STANDARD_OUTPUT,
    Backends,
    Dtypes,
    Html,
    Jobs,
    Json,
    Outputs,
    Rules,
    Verbose,
    must_be_a_folder,
    must_have_markers,
    names_of,
    processes,
    progress_bar,
    refuse_unknown,
    rules_of,
)
from xopt.conformance.evidence.examination import current_cells
from xopt.conformance.evidence.record import RECORDS
from xopt.conformance.evidence.writing import require_clean, write
from xopt.conformance.ledger.judgement import ACCEPTED
from xopt.conformance.profiles import PROFILES
from xopt.conformance.report import text as views
from xopt.conformance.report.html import page_of
from xopt.conformance.report.junit import junit_of
from xopt.conformance.report.report import BackendReport
from xopt.conformance.report.summary import Scope, command_line
from xopt.conformance.results import BROKEN, DTYPES, WRONG


def conform(
    rule: Rules = None,
    backend: Backends = None,
    dtype: Dtypes = None,
    profile: Annotated[
        str | None,
        typer.Option(help=f"How much to run: {', '.join(PROFILES)}. Default: quick; ci for evidence.", show_default=False),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the inputs. Default: 0; of nightly, a new one.", show_default=False)] = None,
    json: Json = None,
    html: Html = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here, for other programs. - is standard output.")] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Put the table of verdicts of a whole run in this Markdown file, between its markers. - prints it."),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="The JSON of another run, whose columns stand in the table too. May be repeated.", exists=True),
    ] = None,
    faults: Annotated[bool, typer.Option("--faults", help="Plant the faults of the catalogue too, for the page.")] = False,
    evidence: Annotated[
        Path | None, typer.Option(help="Write one record for each backend and device into this directory.", file_okay=False)
    ] = None,
    jobs: Jobs = 0,
    verbose: Verbose = False,
) -> None:
    """Check that every backend computes what the golden reference says.

    Exit status: 0 all right, 1 something is wrong, 2 bad usage, 130 interrupted; what was found until then is written.
    """
    given = {"rule": rule, "backend": backend, "dtype": dtype}
    if profile is None:
        profile = "ci" if evidence else "quick"
    if seed is None:
        seed = secrets.randbits(32) if profile == "nightly" else 0
    outputs = {"json": json, "html": html, "junit": junit, "table": table, "beside": beside, "evidence": evidence}
    how = {"faults": faults, "jobs": jobs or None, "verbose": verbose}
    rules, backends, dtypes = rules_of(rule), names_of(backend, "--backend"), names_of(dtype, "--dtype")
    refuse_unknown("backend", [name.partition(":")[0] for name in backends or ()], BACKENDS, "--backend")
    refuse_unknown("dtype", dtypes or (), DTYPES, "--dtype")
    refuse_unknown("profile", [profile], PROFILES, "--profile")
    must_have_markers(table, [views.mark(views.TABLE)], "--table")
    asked = {what: names for what, names in (("rule", rules), ("backend", backends), ("dtype", dtypes)) if names}
    scope = Scope.of({"asked": asked, "profile": profile, "seed": seed})
    _must_be_whole(table, scope)
    try:
        others = [views.read_json(path) for path in beside or ()]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--beside") from None
    if evidence is not None:
        try:
            require_clean()
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--evidence") from None
        must_be_a_folder(evidence, "--evidence")
    printed = table if table == STANDARD_OUTPUT else None
    with Outputs({"--json": json, "--html": html, "--junit": junit, "--table": printed}) as files:
        console = files.console()
        console.print(f"{scope}.\n", highlight=False, markup=False)
        progress = progress_bar(console)
        try:
            with progress:
                shown = ShownRun(progress, verbose)
                report = suite.conform(backends, rules, dtypes, profile, seed, processes(jobs), shown)
        except suite.UnknownNameError as error:
            raise typer.BadParameter(str(error), param_hint="--backend") from None
        except suite.InterruptedRun as stopped:
            report = stopped.report
        interrupted = report.scope.interrupted is not None
        report.about["command"] = command_line("conform", given | {"profile": profile, "seed": seed} | outputs | how)
        views.show(console, report, verbose)
        current = current_cells(RECORDS)
        report.evidence = [one.to_dict() for one in current]
        survivors = False
        if faults and not interrupted:
            found = plant(console, [], jobs, seed)
            views.show_faults(console, found)
            report.faults = found.to_dict()
            survivors = bool(found.survivors)
        files.fill("--json", lambda: views.json_of(report))
        files.fill("--html", lambda: page_of(report.to_dict()))
        files.fill("--junit", lambda: junit_of(report.to_dict()))
        files.fill("--table", lambda: views.markdown(report, current, others) + "\n")
    if table is not None and printed is None and not interrupted:
        views.write_table(report, table, current, others)
    if evidence is not None and not interrupted:
        accepted = [row.says for row in report.ledger.rows if row.state == ACCEPTED]
        try:
            for path in write(report, evidence, accepted, processes(jobs)):
                console.print(f"wrote {path}", highlight=False, soft_wrap=True)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--evidence") from None
    views.show_verdict(console, report, verbose)
    if interrupted:
        left_out = [f"--{name}" for name in ("table", "evidence") if outputs[name] is not None and outputs[name] is not printed]
        if left_out:
            sys.stderr.write(f"xopt: interrupted, so that {' and '.join(left_out)} wrote nothing\n")
        raise typer.Exit(INTERRUPTED)
    if files.failed:
        raise typer.Exit(2)
    raise typer.Exit(1 if report.problems or survivors else 0)


def _must_be_whole(table: Path | None, scope: Scope) -> None:
    """Refuses to put the verdicts of a part where those of everything stand."""
    if table in (None, STANDARD_OUTPUT) or scope.whole:
        return
    ways = [f"without --{what}" for what in scope.lacking if what != "mode"]
    if "mode" in scope.lacking:
        ways.append("with --profile ci or nightly, which have all modes")
    part = str(scope)[0].lower() + str(scope)[1:]
    msg = (
        f"{table} has the verdicts of a whole run, and this is {part}; run {', '.join(ways)}, or print the table of this run "
        "with --table -"
    )
    raise typer.BadParameter(msg, param_hint="--table")


class ShownRun(suite.Events):
    """Shows what happens in a run, above a progress bar."""

    def __init__(self, progress: Progress, verbose: bool = False) -> None:
        self.progress = progress
        self.verbose = verbose
        self.bar = progress.add_task("importing and probing", total=None)

    def planned(self, tasks: int) -> None:
        self.progress.update(self.bar, total=tasks, description="checking")

    def probed(self, backend: BackendReport) -> None:
        views.show_backend(self.progress.console, backend)

    def finished(self, rule: str, what: str, results: Sequence[Any]) -> None:
        self.progress.update(self.bar, advance=1, description=f"{rule} {what}")
        bad = any(r.verdict in (WRONG, BROKEN) for r in results)
        if bad or self.verbose:
            line = f"  {rule:9} {what:18} {views.progress_line(results)}"
            self.progress.console.print(line, style="bold red" if bad else None, highlight=False, soft_wrap=True)
