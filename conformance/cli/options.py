"""What commands have in common: options, their checks, and a progress bar."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from xopt.conformance.workers import cores

Jobs = Annotated[int, typer.Option(help="Processes. Default: one a core, at most 4.", min=0, show_default=False)]


def processes(jobs: int) -> int:
    """How many: those that were asked for, or the default."""
    return jobs or min(4, cores())


def must_have_a_folder(path: Path | None, option: str) -> None:
    """Refuses a file to write for which there is no folder."""
    if path is not None and not path.parent.is_dir():
        msg = f"{path.parent} is not a directory"
        raise typer.BadParameter(msg, param_hint=option)


def must_have_markers(path: Path | None, marks: Sequence[str], option: str) -> None:
    """Refuses a file into which nothing can be put between markers."""
    if path is not None and (not path.is_file() or any(mark not in path.read_text() for mark in marks)):
        msg = f"{path} must be a file with a line {' and a line '.join(marks)}"
        raise typer.BadParameter(msg, param_hint=option)


def progress_bar(console: Console) -> Progress:
    columns = TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=True)
