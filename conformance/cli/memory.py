"""``xopt memory``."""

import datetime
import importlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from xopt import memory as of_rules
from xopt.backends.names import unknown
from xopt.conformance.bench.contender import missing
from xopt.conformance.cli.options import Html, Json, Outputs
from xopt.conformance.memory import page, show
from xopt.conformance.memory.figures import Length, entry, like
from xopt.conformance.report.summary import command_line
from xopt.memory import Memory
from xopt.rule import Rule
from xopt.rules import RULES

RULE = "RULE"


def memory(
    rule: Annotated[
        list[str],
        typer.Argument(
            metavar=f"{RULE}...",
            help="A rule with its settings: lion:beta2=0.999, aggmo:betas=0/0.9/0.99; one of your own as module.name.",
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
    png: Annotated[Path | None, typer.Option(help="Write the diagrams here.", dir_okay=False)] = None,
) -> None:
    """Show how long rules remember gradients: weights by age, learning rates, reversals, noise.

    Exit status: 0 done, 2 bad usage, 130 interrupted.
    """
    given = [_memory(text, f"'{RULE}...'") for text in rule]
    other = None if like_rule is None else _memory(like_rule, "--like")
    for option, path in (("--html", html), ("--png", png)):
        if path is not None and (why := missing("matplotlib")):
            msg = f"{why}, which draws the diagrams: pip install matplotlib"
            raise typer.BadParameter(msg, param_hint=option)
    if png is not None:
        _must_be_a_file(png)
    with Outputs({"--json": json, "--html": html}) as files:
        try:
            length = Length.of(given, steps, before)
            entries = [entry(one, length) for one in given]
            nearest = [] if other is None else [like(one, other) for one in given]
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        options = {"like": like_rule, "steps": steps, "before": before, "json": json, "html": html, "png": png}
        report = {
            "about": {
                "command": " ".join([*command_line("memory", {}).split(), *rule, *command_line("", options).split()[2:]]),
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
        if png is not None:
            png.write_bytes(page.picture_of(report))
    if files.failed:
        raise typer.Exit(2)


def _memory(text: str, option: str) -> Memory:
    name, colon, rest = text.partition(":")
    try:
        return of_rules.of(_rule(name), **(_settings(rest) if colon else {}))
    except (TypeError, ValueError) as error:
        msg = f"{text}: {error}"
        raise typer.BadParameter(msg, param_hint=option) from None


def _rule(name: str) -> Rule[Any, Any]:
    """Raises ValueError for what is none."""
    if name in RULES:
        return RULES[name]
    module, dot, variable = name.rpartition(".")
    if not dot:
        raise ValueError(unknown("rule", name, RULES))
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), variable)
    except (ImportError, AttributeError) as error:
        msg = f"{error}; a rule of your own is named by its module, as Python imports it here, and its variable"
        raise ValueError(msg) from None
    finally:
        sys.path.remove(here)
    if not isinstance(found, Rule):
        msg = f"{variable} of {module} is no rule; it is a {type(found).__name__}"
        raise TypeError(msg)
    return found


def _settings(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in text.split(","):
        name, equals, value = one.strip().partition("=")
        try:
            numbers = tuple(map(float, value.split("/")))
        except ValueError:
            numbers = ()
        if not equals or not numbers:
            msg = f"settings are name=number with commas between, and a sequence has slashes (betas=0/0.9/0.99); got {one!r}"
            raise ValueError(msg)
        if name in found:
            msg = f"{name} is given twice"
            raise ValueError(msg)
        found[name] = numbers if "/" in value or name == "betas" else numbers[0]
    return found


def _must_be_a_file(path: Path) -> None:
    """Refuses what cannot be written, before the work."""
    new = not path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}; name a file in a folder that is there"
        raise typer.BadParameter(msg, param_hint="--png") from None
    if new:
        path.unlink()
