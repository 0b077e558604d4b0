"""``xopt faults``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from xopt.conformance.cli.options import (
    STANDARD_OUTPUT,
    Jobs,
    Json,
    Outputs,
    Rules,
    must_have_markers,
    processes,
    progress_bar,
    refuse_unknown,
    rules_of,
)
from xopt.conformance.faults import EVERYWHERE, FAULTS, STRUCTURAL, TABLES, Fault, FaultReport, run, run_structural
from xopt.conformance.report import text as views


def faults(
    fault: Annotated[list[str] | None, typer.Argument(help="Names of faults. Default: all.", show_default=False)] = None,
    rule: Rules = None,
    seed: Annotated[int, typer.Option(help="Of the inputs.")] = 0,
    json: Json = None,
    table: Annotated[
        Path | None,
        typer.Option(help="Put the summary of all faults in this Markdown file, between its markers. - prints it."),
    ] = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Plant each convention in rule, golden and both, where tests plant it in some.")
    ] = False,
    jobs: Jobs = 0,
) -> None:
    """Plant the faults of the catalogue, one at a time, and show which check finds which.

    Exit status: 0 all found, 1 one survived, 2 bad usage, 130 interrupted.
    """
    among = FAULTS + EVERYWHERE if everywhere else FAULTS
    refuse_unknown("fault", fault or (), [*(one.name for one in among), *(one.name for one in STRUCTURAL)], "FAULT")
    rules = rules_of(rule)
    must_have_markers(table, [views.mark(name) for name in TABLES], "--table")
    if table not in (None, STANDARD_OUTPUT) and (fault or rules):
        msg = f"{table} tells of all faults; name none and no --rule, or take --table - to print what was found of these"
        raise typer.BadParameter(msg, param_hint="--table")
    printed = table if table == STANDARD_OUTPUT else None
    with Outputs({"--json": json, "--table": printed}) as files:
        console = files.console()
        chosen = [one for one in among if not fault or one.name in fault]
        found = plant(console, rules or [], jobs, seed, chosen)
        views.show_faults(console, found)
        structural = [one for one in STRUCTURAL if one.name in fault] if fault else [] if rules else STRUCTURAL
        places = run_structural(structural, processes(jobs), seed) if structural else {}
        for name, place in places.items():
            where = f"{place.rule} on {place.library}, {place.mode}" if place else "not found"
            console.print(f"  {name:60} {where}", style=None if place else "bold red", highlight=False, soft_wrap=True)
        files.fill("--json", lambda: views.json_of(found))
        files.fill("--table", lambda: "\n\n".join(text(found) for text in TABLES.values()) + "\n")
    if table is not None and printed is None:
        for name, text in TABLES.items():
            views.put_between(table, name, text(found))
    if files.failed:
        raise typer.Exit(2)
    raise typer.Exit(1 if found.survivors or None in places.values() else 0)


def plant(console: Console, names: Sequence[str], jobs: int, seed: int, among: Sequence[Fault] = FAULTS) -> FaultReport:
    """Plants faults by their names, or those of rules, with a progress bar. Default: all of the catalogue."""
    chosen = [fault for fault in among if not names or fault.name in names or fault.rule in names]
    with progress_bar(console) as progress:
        task = progress.add_task("planting faults", total=len(chosen))
        return run(chosen, jobs=processes(jobs), seed=seed, progress=lambda _: progress.advance(task))
