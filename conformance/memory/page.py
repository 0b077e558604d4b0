"""What rules remember as one HTML page: no scripts, nothing from outside the file."""

from xopt.conformance.memory import plots
from xopt.conformance.memory.figures import DASHES, Json, Length, lines, panels, short_names
from xopt.conformance.memory.show import heads, rows, same
from xopt.conformance.report.templates import template

TITLE = "What old gradients weigh, how steps follow them, and what is left of waves"


def page_of(report: Json) -> str:
    """The report as a page that stands alone."""
    page = template("xopt.conformance.memory", "memory.html.jinja", {})
    length, names = Length(**report["length"]), short_names(report["rules"])
    reasons = dict.fromkeys(x for one in report["rules"] for x in one["numbers"].values() if isinstance(x, str))
    drawn = [plots.svg(one.title, [one], 1) for one in panels(report["rules"], length)]
    shown = {
        "figures": drawn,
        "key": [(name, colour, STROKES[dash]) for name, (colour, dash) in zip(names, lines(report["rules"]), strict=True)],
        "heads": heads(report),
        "rows": rows(report),
        "same": list(map(same, report["like"])),
        "reasons": [*reasons],
    }
    return str(page.render(report | shown))


STROKES = dict(zip(DASHES, ("none", "8 3", "2 3", "9 3 2 3"), strict=True))
"""The same dashes in the key."""


def picture_of(report: Json) -> bytes:
    """Its diagrams as a PNG."""
    return plots.png(TITLE, panels(report["rules"], Length(**report["length"])), key=True)
