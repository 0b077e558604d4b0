"""``xopt reproduce``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from xopt.conformance.cli.options import SEVERAL, Html, Json, Outputs, refuse_unknown, understood
from xopt.conformance.reading import read
from xopt.conformance.report.summary import command_line
from xopt.conformance.reproductions import EXPERIMENTS, Experiment, Outcome
from xopt.conformance.reproductions import reproduce as run_experiment
from xopt.conformance.reproductions import show as views
from xopt.conformance.reproductions.settings import Setting
from xopt.conformance.settings import words_of
from xopt.rules import RULES

LANGUAGE = EXPERIMENTS["language"]


def reproduce(
    name: Annotated[str | None, typer.Argument(help="An experiment, of those that --list shows.", show_default=False)] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show the experiments, and what each reproduces.")] = False,
    seeds: Annotated[int | None, typer.Option(help="How many. Default: 3.", min=1, show_default=False)] = None,
    steps: Annotated[
        int | None,
        typer.Option(help="Of each run, instead of the experiment's own: to try it.", min=5, show_default=False),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help=f"Of language: a rule to measure, as ademamix:beta3=0.9999, or all. {SEVERAL}", show_default=False),
    ] = None,
    join: Annotated[
        list[Path] | None,
        typer.Option(help="Of language: a file of --json, or a folder of them, whose rules to show too. May be repeated."),
    ] = None,
    json: Json = None,
    html: Html = None,
) -> None:
    """Run an experiment of a paper again, smaller, and show what was published beside what is found.

    Exit status: 0 done, whatever was found, 2 bad usage, 130 interrupted.
    """
    if listed:
        Console().print(views.listing())
        return
    if name is None:
        msg = f"name one of {', '.join(EXPERIMENTS)}; --list says what they are"
        raise typer.BadParameter(msg, param_hint="NAME")
    refuse_unknown("experiment", [name], EXPERIMENTS, "NAME")
    experiment = EXPERIMENTS[name]
    rules, joined = _rules(experiment, rule, join), [_read(path) for path in _files(join or ())]
    with Outputs({"--json": json, "--html": html}) as files:
        console = files.console()
        try:
            with console.status(f"{name}: about {experiment.seconds * max(1, len(rules))} s on two cores"):
                outcome = run_experiment(experiment, seeds or experiment.seeds, steps, rules, joined)
        except (ModuleNotFoundError, ValueError) as error:
            raise typer.BadParameter(_way_out(experiment, error), param_hint="NAME") from None
        options: dict[str, Any] = {"seeds": seeds, "steps": steps, "rule": rule, "join": join}
        outcome.about["command"] = command_line("reproduce", options, name)
        views.tell(outcome, console)
        files.fill("--json", lambda: views.json_of(outcome))
        files.fill("--html", lambda: views.page_of(outcome))
    if files.failed:
        raise typer.Exit(2)


def _rules(experiment: Experiment, rule: list[str] | None, join: list[Path] | None) -> list[str]:
    """The settings to measure. Only the experiment that takes minutes for each is asked for some of them."""
    if experiment is not LANGUAGE:
        for option, given in (("--rule", rule), ("--join", join)):
            if given:
                msg = f"only {LANGUAGE.name} takes it; leave it out"
                raise typer.BadParameter(msg, param_hint=option)
        return []
    if not rule and not join:
        msg = f"each rule takes {LANGUAGE.seconds} s: name some, or all; --join shows those of other runs beside them"
        raise typer.BadParameter(msg, param_hint="--rule")
    texts = [one for text in words_of(rule or ()) for one in (list(RULES) if text == "all" else [text])]
    return list(dict.fromkeys(understood(Setting.of, text, option="--rule").name for text in texts))


def _files(paths: Sequence[Path]) -> list[Path]:
    """Files, and those in folders."""
    found = []
    for path in paths:
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            msg = f"{path} has no file that ends in .json"
            raise typer.BadParameter(msg, param_hint="--join")
        found += inside
    return found


def _read(path: Path) -> Outcome:
    try:
        outcome = Outcome.of(read(path))
    except (ValueError, KeyError, TypeError):
        outcome = None
    if outcome is None or "settings" not in outcome.data:
        msg = f"{path} is no file of xopt reproduce {LANGUAGE.name} --json"
        raise typer.BadParameter(msg, param_hint="--join")
    return outcome


def _way_out(experiment: Experiment, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name in ("torch", "sklearn"):
        package = {"sklearn": "scikit-learn"}.get(error.name, error.name)
        return f"{experiment.name} needs {', '.join(experiment.packages)}, and {package} is not installed: pip install {package}"
    return str(error)
