"""``xopt evidence``."""

import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from xopt.conformance.cli.options import folder
from xopt.conformance.evidence.record import RECORDS
from xopt.conformance.evidence.view import show


def evidence(
    directory: Annotated[Path, typer.Argument(help="Of the records.", parser=folder, metavar="DIRECTORY")] = RECORDS,
) -> None:
    """Examine the records of runs on other machines against the sources as they are.

    Exit status: 0 all count, 1 one does not, 2 bad usage.
    """
    if not directory.is_dir() and directory != RECORDS:  # where there are no records, there is no folder
        msg = f"{directory} is not a directory"
        raise typer.BadParameter(msg)
    right = show(Console(), directory, datetime.datetime.now(datetime.UTC).date())
    raise typer.Exit(0 if right else 1)
