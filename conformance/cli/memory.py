"""``xopt memory``."""

import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from xopt import memory as of_rules
from xopt.conformance.bench.contender import missing
from xopt.conformance.cli.options import Html, Json, Outputs, understood
from xopt.conformance.memory import page, show
from xopt.conformance.memory.figures import Length, entry, like
from xopt.conformance.report.summary import command_line
from xopt.conformance.settings import HOW, setting_of
from xopt.memory import Memory

RULE = "RULE"


def memory(
    rule: Annotated[
        list[str],
        typer.Argument(
            metavar=RULE,
            help=f"{HOW}.",
            show_default=False,
        ),
    ],
    like_rule: Annotated[
        str | None, typer.Option("--like", help="Find the settings of this rule with the nearest memory too.", metavar=RULE)
    ] = None,
    steps: Annotated[int, typer.Option(help="Length of a run under a constant gradient.", min=1, max=10_000_000)] = 100_000,
    before: Annotated[int, typer.Option(help="Steps before the gradient is reversed.", min=1, max=10_000_000)] = 10_000,
    json: Json = None,
    html: Html = None,
    png: Annotated[Path | None, typer.Option(help="Write the diagrams here. - is standard output.")] = None,
) -> None:
    """Show how long rules remember gradients: weights by age, learning rates, reversals, noise.

    Exit status: 0 done, 2 bad usage, 130 interrupted.
    """
    given = [understood(_memory, text, option=RULE) for text in rule]
    other = None if like_rule is None else understood(_memory, like_rule, option="--like")
    for option, path in (("--html", html), ("--png", png)):
        if path is not None and (why := missing("matplotlib")):
            msg = f"{why}, which draws the diagrams: pip install matplotlib"
            raise typer.BadParameter(msg, param_hint=option)
    outputs = Outputs({"--json": json, "--html": html, "--png": png})
    with outputs as files, np.errstate(all="ignore"):  # what is over steps of 0, or beyond the largest number, is shown as none
        try:
            length = Length.of(given, steps, before)
            entries = [entry(one, length) for one in given]
            nearest = [] if other is None else [like(one, other) for one in given]
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        options = {"like": like_rule, "steps": steps, "before": before, "json": json, "html": html, "png": png}
        report = {
            "about": {
                "command": command_line("memory", options, *rule),
                "xopt": version("array-xopt"),
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            },
            "length": length._asdict(),
            "rules": entries,
            "like": nearest,
        }
        show.show(files.console(), report)
        files.fill("--json", lambda: show.json_of(report))
        files.fill("--html", lambda: page.page_of(report))
        files.fill("--png", lambda: page.picture_of(report))
    if files.failed:
        raise typer.Exit(2)


def _memory(text: str) -> Memory:
    try:
        rule, hyper = setting_of(text)
        return of_rules.of(rule, **hyper)
    except (TypeError, ValueError) as error:
        msg = f"{text}: {error}"
        raise ValueError(msg) from None
