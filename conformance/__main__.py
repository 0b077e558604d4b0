"""The command line: ``xopt conform``, ``xopt faults``, ``xopt evidence`` and ``xopt bench``."""

import datetime
import importlib.util
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from xopt.conformance.report.report import BackendReport


def main() -> None:
    """Entry point of the console script. Says what to install where the extra is missing."""
    try:
        app = _app()
    except ModuleNotFoundError as error:
        sys.stderr.write(f"xopt: {error.name} is not installed; the command line needs: pip install 'array-xopt[conformance]'\n")
        sys.exit(2)
    app()


def _app() -> Any:
    for name in ("hypothesis", "jinja2", "jsonschema", "mpmath", "rich", "sklearn", "typer"):
        if importlib.util.find_spec(name) is None:  # looked for here, so that a missing extra is one clear message
            raise ModuleNotFoundError(name=name)
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from xopt.conformance import faults as planted
    from xopt.conformance import suite
    from xopt.conformance.bench import bench as run_bench
    from xopt.conformance.bench import show as bench_views
    from xopt.conformance.bench.contenders import contenders
    from xopt.conformance.bench.page import write_html as write_bench
    from xopt.conformance.bench.shapes import LADDER, size_of
    from xopt.conformance.evidence import examination, record, writing
    from xopt.conformance.evidence.view import show as show_evidence
    from xopt.conformance.ledger.judgement import ACCEPTED
    from xopt.conformance.profiles import PROFILES
    from xopt.conformance.report import text as views
    from xopt.conformance.report.html import write_html
    from xopt.conformance.report.junit import write_junit
    from xopt.conformance.results import BROKEN, WRONG
    from xopt.rules import RULES

    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    Jobs = Annotated[int, typer.Option(help="Processes. Default: one a core, at most 4.", min=0, show_default=False)]

    def bar(console: Console) -> Progress:
        columns = TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        return Progress(*columns, console=console, transient=True)

    def must_have_a_place(path: Path | None, option: str) -> None:
        """Refuses a file to write for which there is no folder."""
        if path is not None and not path.parent.is_dir():
            msg = f"{path.parent} is not a directory"
            raise typer.BadParameter(msg, param_hint=option)

    def must_hold(path: Path | None, marks: Sequence[str], option: str) -> None:
        """Refuses a file into which nothing can be put between markers."""
        if path is not None and (not path.is_file() or any(mark not in path.read_text() for mark in marks)):
            msg = f"{path} must be a file with a line {' and a line '.join(marks)}"
            raise typer.BadParameter(msg, param_hint=option)

    def plant(console: Console, names: Sequence[str], jobs: int, seed: int) -> planted.FaultReport:
        chosen = [fault for fault in planted.FAULTS if not names or fault.name in names or fault.rule in names]
        with bar(console) as progress:
            task = progress.add_task("planting faults", total=len(chosen))
            return planted.run(chosen, jobs=jobs or min(4, _cores()), seed=seed, progress=lambda _: progress.advance(task))

    @app.callback()
    def root() -> None:
        """First-order update rules written once in the Python array API, and the proof that they are right on every backend."""

    @app.command()
    def conform(
        backend: Annotated[
            list[str] | None, typer.Option(help="A backend, such as torch or torch:cuda:0. May be repeated.")
        ] = None,
        rule: Annotated[list[str] | None, typer.Option(help="A rule, such as lion. May be repeated.")] = None,
        dtype: Annotated[
            list[str] | None, typer.Option(help="A dtype of the parameters, such as float32. May be repeated.")
        ] = None,
        profile: Annotated[
            str | None,
            typer.Option(help=f"How much to run: {', '.join(PROFILES)}. Default: quick; ci for evidence.", show_default=False),
        ] = None,
        seed: Annotated[
            int | None, typer.Option(help="Of the inputs. Default: 0; of nightly, a new one.", show_default=False)
        ] = None,
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
            must_have_a_place(path, option)
        must_hold(table, [views.mark(views.TABLE)], "--table")
        try:
            others = [views.read_json(path) for path in beside or ()]
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--beside") from None
        profile = profile or ("ci" if evidence else "quick")
        if seed is None:
            seed = secrets.randbits(32) if profile == "nightly" else 0
        if evidence is not None:
            try:
                writing.require_clean()
            except ValueError as error:
                raise typer.BadParameter(str(error), param_hint="--evidence") from None
        progress = bar(console)

        class Shown(suite.Events):
            bar = progress.add_task("probing", total=None)

            def planned(self, tasks: int) -> None:
                progress.update(self.bar, total=tasks)

            def probed(self, backend: "BackendReport") -> None:
                views.show_backend(progress.console, backend)

            def finished(self, rule: str, what: str, results: Sequence[Any]) -> None:
                progress.update(self.bar, advance=1, description=f"{rule} {what}")
                style = "bold red" if any(r.verdict in (WRONG, BROKEN) for r in results) else None
                line = f"  {rule:9} {what:18} {views.progress_line(results)}"
                progress.console.print(line, style=style, highlight=False, soft_wrap=True)

        try:
            with progress:
                report = suite.conform(backend, rule, dtype, profile, seed, jobs or min(4, _cores()), Shown())
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        views.show(console, report)
        current = examination.current_cells(record.RECORDS)
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
                for path in writing.write(report, evidence, accepted, jobs or min(4, _cores())):
                    console.print(f"wrote {path}", highlight=False, soft_wrap=True)
            except ValueError as error:
                raise typer.BadParameter(str(error), param_hint="--evidence") from None
        survivors = report.faults is not None and found.survivors
        raise typer.Exit(1 if report.problems or survivors else 0)

    @app.command()
    def faults(
        fault: Annotated[list[str] | None, typer.Argument(help="Names of faults, or of rules. Default: all.")] = None,
        seed: Annotated[int, typer.Option(help="Of the inputs.")] = 0,
        json: Annotated[Path | None, typer.Option(help="Write which check found which fault here.", dir_okay=False)] = None,
        table: Annotated[Path | None, typer.Option(help="Put the summary in this Markdown file, between its markers.")] = None,
        jobs: Jobs = 0,
    ) -> None:
        """Plant the faults of the catalogue, one at a time, and show which check finds which.

        Exit status: 0 all found, 1 one survived, 2 bad usage.
        """
        console = Console()
        known = {name for one in planted.FAULTS for name in (one.name, one.rule)} | {one.name for one in planted.STRUCTURAL}
        for name in fault or ():
            if name not in known:
                msg = f"unknown fault {name!r}; the docs list them, or name a rule"
                raise typer.BadParameter(msg)
        must_have_a_place(json, "--json")
        must_hold(table, [views.mark(name) for name in planted.TABLES], "--table")
        found = plant(console, fault or (), jobs, seed)
        views.show_faults(console, found)
        structural = [one for one in planted.STRUCTURAL if not fault or one.name in fault]
        places = planted.run_structural(structural, jobs or min(4, _cores()), seed) if structural else {}
        for name, place in places.items():
            where = f"{place.rule} on {place.library}, {place.mode}" if place else "not found"
            console.print(f"  {name:60} {where}", style=None if place else "bold red", highlight=False, soft_wrap=True)
        if json is not None:
            views.write_json(found, json)
        if table is not None:
            for name, text in planted.TABLES.items():
                views.put_between(table, name, text(found))
        raise typer.Exit(1 if found.survivors or None in places.values() else 0)

    @app.command()
    def evidence(
        directory: Annotated[Path, typer.Argument(help="Of the records.", file_okay=False)] = record.RECORDS,
    ) -> None:
        """Examine the records of runs on other machines against the sources as they are.

        Exit status: 0 all count, 1 one does not, 2 bad usage.
        """
        if not directory.is_dir() and directory != record.RECORDS:  # where there are no records, there is no folder
            msg = f"{directory} is not a directory"
            raise typer.BadParameter(msg)
        right = show_evidence(Console(), directory, datetime.datetime.now(datetime.UTC).date())
        raise typer.Exit(0 if right else 1)

    @app.command()
    def bench(
        rules: Annotated[
            list[str] | None,
            typer.Option("--rules", "--rule", help="A rule, such as lion, or all. May be repeated. Default: ademamix."),
        ] = None,
        sizes: Annotated[
            list[str] | None,
            typer.Option(
                "--sizes",
                "--size",
                help="Numbers of a leaf (1e6, 2^28), leaves (8x64x64), or resnet50. May be repeated. Default: 10 to 10^7.",
            ),
        ] = None,
        peers: Annotated[bool, typer.Option("--peers", help="Beside torch.optim, optax and pytorch_optimizer.")] = False,
        only: Annotated[
            list[str] | None, typer.Option(help="Only contenders whose name contains this, such as fused. May be repeated.")
        ] = None,
        seconds: Annotated[float, typer.Option(help="For the rounds of each rule and size.", min=0)] = 8.0,
        times_only: Annotated[bool, typer.Option("--times-only", help="Leave out memory and first calls.")] = False,
        leaves: Annotated[bool, typer.Option("--leaves", help="Trees of 100 to 10,000 small leaves too.")] = False,
        loop: Annotated[
            bool, typer.Option("--loop", help="Steps in a training loop too, beside torch.optim's and optax's AdamW.")
        ] = False,
        seed: Annotated[int, typer.Option(help="Of the numbers, and of the order in a round.")] = 0,
        json: Annotated[Path | None, typer.Option(help="Write all that was found here, as JSON.", dir_okay=False)] = None,
        table: Annotated[Path | None, typer.Option(help="Put the figures in this Markdown file, between its markers.")] = None,
        html: Annotated[Path | None, typer.Option(help="Write a page to look at here.", dir_okay=False)] = None,
    ) -> None:
        """Time steps, eager and fused, beside the limits of the machine and other optimizers.

        Exit status: 0 done, whatever was found, 2 bad usage.
        """
        console = Console()
        for option, path in (("--json", json), ("--html", html)):
            must_have_a_place(path, option)
        must_hold(table, [views.mark(bench_views.TABLE)], "--table")
        names = [name for text in rules or () for name in (RULES if text == "all" else text.split(","))]
        for name in names:
            if name not in RULES:
                msg = f"unknown rule {name!r}; there are {', '.join(RULES)}, and all"
                raise typer.BadParameter(msg, param_hint="--rules")
        try:
            chosen = [size_of(text) for given in sizes or () for text in given.split(",")] or LADDER
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--sizes") from None
        for text in only or ():
            if not any(text in one.name for name in names or ["ademamix"] for one in contenders(name, peers)):
                msg = f"no contender has {text!r} in its name"
                raise typer.BadParameter(msg, param_hint="--only")
        with bar(console) as progress:
            shown = bench_views.Shown(progress)
            report = run_bench(
                names or None,
                chosen,
                peers=peers,
                only=only or (),
                seconds=seconds,
                seed=seed,
                processes=not times_only,
                leaves=leaves,
                loop=loop,
                events=shown,
            )
        shown.checks(report)
        if json is not None:
            bench_views.write_json(report, json)
        if table is not None:
            views.put_between(table, bench_views.TABLE, bench_views.markdown(report))
        if html is not None:
            write_bench(report, html)

    return app


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
