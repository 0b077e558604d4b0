"""``xopt faults``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from xopt.conformance.cli.options import Jobs, must_have_a_folder, must_have_markers, processes, progress_bar
from xopt.conformance.faults import EVERYWHERE, FAULTS, STRUCTURAL, TABLES, Fault, FaultReport, run, run_structural
from xopt.conformance.report import text as views


def faults(
    fault: Annotated[list[str] | None, typer.Argument(help="Names of faults, or of rules. Default: all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the inputs.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write which check found which fault here.", dir_okay=False)] = None,
    table: Annotated[Path | None, typer.Option(help="Put the summary in this Markdown file, between its markers.")] = None,
    everywhere: Annotated[
        bool, typer.Option("--everywhere", help="Plant each convention in rule, golden and both, where tests plant it in some.")
    ] = False,
    jobs: Jobs = 0,
) -> None:
    """Plant the faults of the catalogue, one at a time, and show which check finds which.

    Exit status: 0 all found, 1 one survived, 2 bad usage.
    """
    console = Console()
    among = FAULTS + EVERYWHERE if everywhere else FAULTS
    known = {name for one in among for name in (one.name, one.rule)} | {one.name for one in STRUCTURAL}
    for name in fault or ():
        if name not in known:
            msg = f"unknown fault {name!r}; the docs list them, or name a rule"
            raise typer.BadParameter(msg)
    must_have_a_folder(json, "--json")
    must_have_markers(table, [views.mark(name) for name in TABLES], "--table")
    found = plant(console, fault or (), jobs, seed, among)
    views.show_faults(console, found)
    structural = [one for one in STRUCTURAL if not fault or one.name in fault]
    places = run_structural(structural, processes(jobs), seed) if structural else {}
    for name, place in places.items():
        where = f"{place.rule} on {place.library}, {place.mode}" if place else "not found"
        console.print(f"  {name:60} {where}", style=None if place else "bold red", highlight=False, soft_wrap=True)
    if json is not None:
        views.write_json(found, json)
    if table is not None:
        for name, text in TABLES.items():
            views.put_between(table, name, text(found))
    raise typer.Exit(1 if found.survivors or None in places.values() else 0)


def plant(console: Console, names: Sequence[str], jobs: int, seed: int, among: Sequence[Fault] = FAULTS) -> FaultReport:
    """Plants faults by their names, or those of rules, with a progress bar. Default: all of the catalogue."""
    chosen = [fault for fault in among if not names or fault.name in names or fault.rule in names]
    with progress_bar(console) as progress:
        task = progress.add_task("planting faults", total=len(chosen))
        return run(chosen, jobs=processes(jobs), seed=seed, progress=lambda _: progress.advance(task))
