"""What papers published beside what was found here, with figures: from the JSON of ``xopt reproduce NAME --json``."""

import json
import re
from functools import cache
from pathlib import Path

from builders.tables import escape, table, with_links

from xopt.conformance.reproductions import EXPERIMENTS, Experiment, Outcome
from xopt.conformance.reproductions.figure import svg
from xopt.conformance.reproductions.outcome import VERDICTS
from xopt.conformance.reproductions.show import HEAD, cells, ran

FOLDER = Path(__file__).parents[1] / "reproductions"


@cache
def outcome(name: str) -> Outcome:
    """Raises ValueError, with the command that makes it, where there is none."""
    file = FOLDER / f"{name}.json"
    if not file.is_file():
        msg = f"docs/reproductions/{name}.json is missing: {EXPERIMENTS[name].command} --json docs/reproductions/{name}.json"
        raise ValueError(msg)
    return Outcome.of(json.loads(file.read_text(encoding="utf-8")))


def summary() -> str:
    """All experiments, and how many of their figures and claims were found."""
    return table(f"experiment | paper and place | published | {', '.join(VERDICTS[:3])} | seconds", map(_row, EXPERIMENTS.values()))


def _row(experiment: Experiment) -> tuple[str, ...]:
    found = outcome(experiment.name)
    verdicts = [finding.verdict for finding in found.findings]
    paper = with_links(_text(f"{experiment.paper}: {experiment.place}"))
    title = f"[{experiment.title}](#{_anchor(experiment.title)})"
    counts = ", ".join(str(verdicts.count(verdict)) for verdict in VERDICTS[:3])
    return title, paper, _text(experiment.published), counts, f"{found.about['seconds']:,.0f}"


def section(name: str) -> str:
    """The command and its date, published beside reproduced, what was run, and figures."""
    found = outcome(name)
    rows = [tuple(map(_text, cells(finding))) for finding in found.findings]
    figures = "".join(f"<div>{svg(panel)}</div>" for panel in found.panels)
    said = f"`{found.about['command']}`, {ran(found)}."
    return f'{said}\n\n{table(" | ".join(HEAD), rows)}\n\n{_text(found.settings)}\n\n<div class="reproduction">{figures}</div>'


def _text(prose: str) -> str:
    return escape(prose).replace("|", "\\|")


def _anchor(heading: str) -> str:
    """Of a heading, as MkDocs makes it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
