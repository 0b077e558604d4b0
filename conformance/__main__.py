"""The command line: ``xopt conform`` and ``xopt bench``."""

import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from xopt.conformance.suite import BackendReport


def main() -> None:
    """Entry point of the console script. Says what to install where the extra is missing."""
    try:
        app = _app()
    except ModuleNotFoundError as error:
        sys.stderr.write(f"xopt: {error.name} is not installed; the command line needs: pip install 'array-xopt[conformance]'\n")
        sys.exit(2)
    app()


def _app() -> Any:
    import hypothesis  # noqa: F401 - asked for here, so that a missing extra is one clear message
    import mpmath  # noqa: F401
    import sklearn  # noqa: F401
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from xopt.conformance import report as views
    from xopt.conformance import suite
    from xopt.conformance.bench import BY_HAND, overhead
    from xopt.conformance.cells import WITHIN, WRONG

    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

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
        profile: Annotated[str, typer.Option(help=f"How much to run: {', '.join(suite.PROFILES)}.")] = "quick",
        seed: Annotated[
            int | None, typer.Option(help="Of the inputs. Default: 0; of nightly, a new one.", show_default=False)
        ] = None,
        json: Annotated[Path | None, typer.Option(help="Write the whole report here, as JSON.", dir_okay=False)] = None,
        table: Annotated[
            Path | None, typer.Option(help="Put the table of verdicts in this Markdown file, between its markers.")
        ] = None,
        jobs: Annotated[int, typer.Option(help="Processes. Default: one a core, at most 4.", min=0, show_default=False)] = 0,
    ) -> None:
        """Check that every backend computes what the golden reference says.

        Exit status: 0 all right, 1 something is wrong, 2 bad usage.
        """
        console = Console()
        if json is not None and not json.parent.is_dir():
            msg = f"{json.parent} is not a directory"
            raise typer.BadParameter(msg, param_hint="--json")
        if table is not None and (not table.is_file() or views.BEGIN not in table.read_text()):
            msg = f"{table} must be a file with a line {views.BEGIN}"
            raise typer.BadParameter(msg, param_hint="--table")
        if seed is None:
            seed = secrets.randbits(32) if profile == "nightly" else 0
        progress = Progress(
            TextColumn("{task.description:24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )

        class Shown(suite.Events):
            bar = progress.add_task("probing", total=None)

            def planned(self, tasks: int) -> None:
                progress.update(self.bar, total=tasks)

            def probed(self, backend: "BackendReport") -> None:
                views.show_backend(progress.console, backend)

            def finished(self, rule: str, what: str, results: Sequence[Any]) -> None:
                progress.update(self.bar, advance=1, description=f"{rule} {what}")
                worst = max(results, key=lambda r: [WITHIN, WRONG].index(r.verdict) + 1 if r.verdict in (WITHIN, WRONG) else 0)
                style = "bold red" if worst.verdict == WRONG else None
                verdicts = dict.fromkeys(
                    f"{r.backend}{'' if r.mode == 'eager' else ' compiled'} {views.symbol(r)}" for r in results
                )
                progress.console.print(f"  {rule:9} {what:9} {', '.join(verdicts)}", style=style, highlight=False, soft_wrap=True)

        try:
            with progress:
                report = suite.conform(backend, rule, dtype, profile, seed, jobs or min(4, _cores()), Shown())
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        views.show(console, report)
        if json is not None:
            views.write_json(report, json)
        if table is not None:
            views.write_table(report, table)
        raise typer.Exit(1 if report.wrong else 0)

    @app.command()
    def bench(
        rule: Annotated[list[str] | None, typer.Option(help="A rule, such as lion. May be repeated.")] = None,
        size: Annotated[int, typer.Option(help="Numbers in the array.", min=1)] = 10,
    ) -> None:
        """Time an eager step on a small NumPy array beside the same formula written by hand."""
        console = Console()
        for name in rule or BY_HAND:
            if name not in BY_HAND:
                msg = f"unknown rule {name!r}; there are {', '.join(BY_HAND)}"
                raise typer.BadParameter(msg, param_hint="--rule")
        console.print(f"{'rule':9} {'xopt':>8} {'by hand':>8} {'ratio':>6}   float32, {size} numbers, microseconds, medians")
        for name in rule or BY_HAND:
            found = overhead(name, size)
            console.print(f"{name:9} {found.step:8.1f} {found.by_hand:8.1f} {found.ratio:6.2f}", highlight=False)

    return app


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    main()
