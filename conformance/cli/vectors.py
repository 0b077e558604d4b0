"""``xopt vectors``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from xopt.conformance.cli.options import folder, must_be_a_folder, names_of, refuse_unknown
from xopt.conformance.vectors import DATA, VERIFIERS, MissingError, lint
from xopt.conformance.vectors import write as write_vectors

SHOWN = 20
"""Problems of one file that are printed."""


def write(
    directory: Annotated[Path, typer.Argument(help="The folder to write, such as vectors.", parser=folder, metavar="DIRECTORY")],
) -> None:
    """Write the golden vectors of all rules, with their schema and a manifest of hashes.

    Exit status: 0 written, 2 bad usage.
    """
    must_be_a_folder(directory, "DIRECTORY")
    console = Console()
    for path in write_vectors(directory):
        console.print(f"wrote {path} ({path.stat().st_size:,} bytes)", highlight=False, soft_wrap=True)


def verify(
    directory: Annotated[
        Path, typer.Argument(help="A folder of vectors.", show_default="those of xopt", parser=folder, metavar="DIRECTORY")
    ] = DATA,
    by: Annotated[
        list[str] | None,
        typer.Option(help=f"Who verifies: {', '.join(VERIFIERS)}, or all; repeated or with commas. Default: golden, rules."),
    ] = None,
) -> None:
    """Verify golden vectors: hashes and schema; by the golden, within bounds; by the rules, also exported, bit for bit.

    Exit status: 0 all hold, 1 one does not, 2 bad usage, or no compiler or node for what was asked.
    """
    if not directory.is_dir():
        msg = f"{directory} is not a directory"
        raise typer.BadParameter(msg, param_hint="DIRECTORY")
    if not (directory / "manifest.json").is_file():
        msg = f"{directory} has no manifest.json: is this a folder that `xopt vectors write` wrote?"
        raise typer.BadParameter(msg, param_hint="DIRECTORY")
    chosen = ["golden", "rules"] if by is None else names_of(by, "--by") or list(VERIFIERS)
    refuse_unknown("verifier", chosen, VERIFIERS, "--by")
    console = Console()

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, highlight=False, soft_wrap=True, markup=False)

    problems = lint(directory)
    for problem in problems:
        say(problem, "bold red")
    if problems:
        raise typer.Exit(1)
    wrong = 0
    for name in chosen:
        try:
            results = VERIFIERS[name](directory)
        except MissingError as error:
            raise typer.BadParameter(str(error), param_hint="--by") from None
        for one in results:
            for problem in one.problems[:SHOWN]:
                say(problem, "bold red")
            if len(one.problems) > SHOWN:
                say(f"{one.rule}: {len(one.problems) - SHOWN} more", "bold red")
            wrong += len(one.problems)
        vectors, chains, left_out = (sum(getattr(one, key) for one in results) for key in ("checked", "chains", "left_out"))
        text = f"{name:11} {vectors:,} vectors, {chains} chains of {len(results)} rules"
        say(text + (f"; {left_out} not run: chains and refusals are not the golden's" if left_out else ""))
    say(f"{wrong} problems" if wrong else "all hold", "bold red" if wrong else "bold green")
    raise typer.Exit(1 if wrong else 0)
