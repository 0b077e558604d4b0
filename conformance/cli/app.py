"""The command ``xopt`` with its subcommands."""

import typer

from xopt.conformance.cli import bench, conform, evidence, faults


def app() -> typer.Typer:
    made = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    made.callback()(root)
    for command in (conform.conform, faults.faults, evidence.evidence, bench.bench):
        made.command()(command)
    return made


def root() -> None:
    """First-order update rules written once in the Python array API, and the proof that they are right on every backend."""
