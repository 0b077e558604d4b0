"""How an outcome is shown: in a terminal, as Markdown for the documentation, and as a page of its own."""

import json
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xopt.conformance.report.templates import template
from xopt.conformance.reproductions.experiments import EXPERIMENTS, Experiment
from xopt.conformance.reproductions.figure import svg
from xopt.conformance.reproductions.outcome import AGREES, DIFFERS, NONE, PARTLY, Finding, Outcome

_STYLES = {AGREES: "green", PARTLY: "yellow", DIFFERS: "bold red", NONE: "dim"}
HEAD = ("what", "place", "published", "reproduced", "verdict")


def listing() -> Table:
    """All experiments."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("name", "paper and place", "published", "seconds"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for one in EXPERIMENTS.values():
        seconds = f"{one.seconds:,}{' a rule' if one.name == 'language' else ''}"
        table.add_row(one.name, f"{one.paper}: {one.place}", one.published, seconds)
    return table


def cells(finding: Finding) -> tuple[str, ...]:
    verdict = finding.verdict if not finding.note else f"{finding.verdict}: {finding.note}".removeprefix(f"{NONE}: ")
    return finding.what, finding.place, finding.published, finding.found, verdict


def tell(outcome: Outcome, console: Console) -> None:
    """Published beside reproduced."""
    experiment = EXPERIMENTS[outcome.name]
    console.print(Text(f"{experiment.title}. {experiment.paper}", style="bold"))
    table = Table(box=box.SIMPLE_HEAD)
    for column in HEAD:
        table.add_column(column)
    for finding in outcome.findings:
        table.add_row(*map(Text, cells(finding)), style="" if finding.verdict != NONE else "dim")
    console.print(table)
    console.print(Text(outcome.settings, style="dim"), highlight=False)
    console.print(Text(tally([outcome]), style=_STYLES[DIFFERS if DIFFERS in _verdicts([outcome]) else AGREES]))


def _verdicts(outcomes: Iterable[Outcome]) -> list[str]:
    return [finding.verdict for outcome in outcomes for finding in outcome.findings]


def tally(outcomes: Iterable[Outcome]) -> str:
    """In a sentence."""
    found = _verdicts(outcomes)
    count = {kind: found.count(kind) for kind in (AGREES, PARTLY, DIFFERS)}
    held = sum(count.values())
    return (
        f"Of {held} published figures and claims {count[AGREES]} agree, {count[PARTLY]} agree in part, and {count[DIFFERS]} differ."
    )


def ran(outcome: Outcome) -> str:
    """The command, and when and where it ran."""
    about = outcome.about
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"{about['date']}, {about['machine']}, Python {about['python']}, {versions}: {about['seconds']:,.0f} s"


def json_of(outcome: Outcome) -> str:
    return json.dumps(outcome.to_dict(), separators=(",", ":"), allow_nan=False) + "\n"


def page_of(outcome: Outcome) -> str:
    experiment: Experiment = EXPERIMENTS[outcome.name]
    made = template("xopt.conformance.reproductions", "reproduction.html.jinja", {"cells": cells, "svg": svg})
    return str(made.render(outcome=outcome, experiment=experiment, head=HEAD, ran=ran(outcome), tally=tally([outcome])))
