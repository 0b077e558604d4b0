"""What rules remember as one HTML page: no scripts, nothing from outside the file."""

from xopt.conformance.memory import plots
from xopt.conformance.memory.figures import Json, Length, names_width, panels
from xopt.conformance.memory.show import rows, same
from xopt.conformance.report.templates import template

TITLE = "What old gradients weigh, how steps follow them, and what is left of waves"


def page_of(report: Json) -> str:
    """The report as a page that stands alone."""
    page = template("xopt.conformance.memory", "memory.html.jinja", {})
    length = Length(**report["length"])
    reasons = dict.fromkeys(x for one in report["rules"] for x in one["numbers"].values() if isinstance(x, str))
    drawn = [plots.svg(one.title, [one], 1, names_width(report["rules"])) for one in panels(report["rules"], length)]
    return str(
        page.render(
            report | {"figures": drawn, "rows": rows(report), "same": list(map(same, report["like"])), "reasons": [*reasons]}
        )
    )


def picture_of(report: Json) -> bytes:
    """Its diagrams as a PNG."""
    return plots.png(TITLE, panels(report["rules"], Length(**report["length"])), names=names_width(report["rules"]))
