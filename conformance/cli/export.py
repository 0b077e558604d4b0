"""``xopt export``."""

from pathlib import Path
from typing import Annotated

import typer

from xopt.backends.names import unknown
from xopt.conformance.cli.options import STANDARD_OUTPUT, Outputs, understood
from xopt.conformance.settings import HOW, hyper_of, setting_of
from xopt.export import DTYPES, LANGUAGES, source


def export(
    rule: Annotated[str, typer.Argument(help=f"{HOW}.")],
    language: Annotated[str, typer.Option(help=f"{' or '.join(LANGUAGES)}.")],
    dtype: Annotated[str, typer.Option(help=f"Of the arithmetic: {' or '.join(DTYPES)}.")] = "float64",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another default of a hyperparameter; several numbers with commas, none is None. A decay of 0 keeps no slot.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="The file to write. - is standard output.")] = STANDARD_OUTPUT,
) -> None:
    """Write a rule as the source of one function in another language, with the same bits.

    Exit status: 0 done, 2 bad usage.
    """
    for what, name, known in (("language", language, LANGUAGES), ("dtype", dtype, DTYPES)):
        if name not in known:
            raise typer.BadParameter(unknown(what, name, known), param_hint=f"--{what}")
    found, hyper = understood(setting_of, rule, option="RULE")
    hyper |= understood(hyper_of, found, settings or [], option="--set")
    with Outputs({"--output": output}) as files:
        try:
            text = source(found, language, dtype, **hyper)
        except (TypeError, ValueError) as error:
            raise typer.BadParameter(str(error)) from None
        files.fill("--output", lambda: text)
    if files.failed:
        raise typer.Exit(2)
