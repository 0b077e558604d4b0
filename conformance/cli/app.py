"""The command ``xopt`` with its subcommands."""

from importlib.metadata import version as version_of
from typing import Annotated

import typer

from xopt.conformance.cli import bench, check, conform, evidence, export, faults, memory, reproduce, vectors
from xopt.conformance.cli.options import interruptible


def app() -> typer.Typer:
    made = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    made.callback()(root)
    commands = conform.conform, check.check, check.agree, faults.faults, evidence.evidence, bench.bench
    for command in (*commands, memory.memory, export.export, reproduce.reproduce):
        made.command()(interruptible(command))
    of_vectors = typer.Typer(no_args_is_help=True, help="Golden vectors that any language reads: write them, verify them.")
    of_vectors.command()(interruptible(vectors.write))
    of_vectors.command()(interruptible(vectors.verify))
    made.add_typer(of_vectors, name="vectors")
    return made


def show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"xopt {version_of('array-xopt')}")
        raise typer.Exit


def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version.", callback=show_version, is_eager=True)] = False,
) -> None:
    """First-order update rules written once in the Python array API, and the proof that they are right on every backend."""
