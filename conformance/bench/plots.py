"""The diagrams of the page, drawn by matplotlib as SVG in the colours of the page's style sheet."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from xopt.conformance.bench.contender import EAGER, FUSED, HAND, LIMIT, PEER
from xopt.conformance.report import drawing
from xopt.conformance.report.drawing import PAGE

Json = dict[str, Any]

INK, SOFT = PAGE.ink, PAGE.soft

SERIES = {"numpy": 0, "torch": 1, "jax": 2, "cupy": 3, "pytorch_optimizer": 6, "optax": 5, "numba": 7}
"""Numbers of the colours of the libraries."""

LINES = {FUSED: ("-", 2.4), EAGER: ("--", 1.2), HAND: ("-.", 1.4), LIMIT: ("-", 1.0), PEER: (":", 1.8)}
FILLED = {FUSED: 1.0, EAGER: 0.45, HAND: 0.45, LIMIT: 0.6, PEER: 0.75}


class Bar(NamedTuple):
    name: str
    value: float
    low: float
    high: float
    text: str
    contender: Json


def _colour(contender: Json) -> str:
    if contender["kind"] == HAND:
        return INK
    return PAGE.series[SERIES["numba" if contender["kind"] == LIMIT else contender["library"]]]


def lines(rule: str, curves: Sequence[tuple[Json, Sequence[tuple[int, float]]]]) -> str:
    """Nanoseconds of a number over how many there are, for each contender."""

    def draw(axes: Any) -> None:
        ends = []
        for contender, points in curves:
            style, width = LINES[contender["kind"]]
            x, y = zip(*points, strict=True)
            axes.plot(x, y, style, color=_colour(contender), linewidth=width, marker="o", markersize=2.6 + width / 2)
            ends.append((y[-1], x[-1], contender))
        axes.set(xscale="log", yscale="log", xlabel="numbers in one leaf")
        axes.xaxis.set_minor_formatter("")
        axes.set_title("nanoseconds a number", loc="left")
        low, high = axes.get_ylim()
        _ticks(axes.yaxis, high / low)
        axes.grid(axis="y")
        ends.sort(key=lambda end: end[0])
        share = [(math.log(y) - math.log(low)) / (math.log(high) - math.log(low)) for y, *_ in ends]
        for (y, x, contender), at in zip(ends, drawing.apart(share, 0.045), strict=True):
            axes.annotate(
                contender["name"],
                (x, y),
                (1.03, at),
                textcoords="axes fraction",
                color=_colour(contender),
                va="center",
                fontweight="bold" if contender["kind"] == FUSED else "normal",
                arrowprops={"arrowstyle": "-", "color": SOFT, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3, "relpos": (0, 0.5)},
            )

    return _svg(f"{rule}: nanoseconds a number over how many there are", draw, (9.2, 4.6), right=0.78)


def bars(name: str, found: Sequence[Bar], label: str, *, log_from: float | None = None) -> str:
    """A bar for each contender, with the quartiles as a line; on a logarithmic axis they begin at ``log_from``."""

    def draw(axes: Any) -> None:
        base = log_from or 0.0
        for i, bar in enumerate(found):
            kind = bar.contender["kind"]
            axes.barh(i, bar.value - base, left=base, height=0.66, color=_colour(bar.contender), alpha=FILLED[kind], linewidth=0)
            axes.plot([bar.low, bar.high], [i, i], color=INK, linewidth=1.0)
            right = max(bar.value, bar.high, base)
            axes.annotate(bar.text, (right, i), (4, 0), textcoords="offset points", va="center", color=INK)
        axes.set_yticks(range(len(found)), [bar.name for bar in found], color=INK)
        axes.invert_yaxis()
        axes.set_title(label, loc="left")
        most = max([base, *(max(bar.value, bar.high) for bar in found)]) or 1.0
        if log_from:
            least = min([base, *(min(bar.value, bar.low) for bar in found)])
            axes.set_xscale("log")
            axes.set_xlim(least / 1.15, most * (most / least) ** 0.16)
            _ticks(axes.xaxis, most / least)
            axes.axvline(base, color=INK, linewidth=1.0)
        else:
            axes.set_xlim(0, most * 1.18)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)

    return _svg(f"{name}: {label}", draw, (5.6, 0.85 + 0.23 * len(found)), left=0.3)


def dots(rows: Sequence[tuple[str, Sequence[tuple[Json, Json]]]], limit: float) -> str:
    """For each rule the ratios of contenders to the touch kernel, each with its quartiles as a line."""

    def draw(axes: Any) -> None:
        named = set()
        for i, (_, found) in enumerate(rows):
            for j, (contender, beside) in enumerate(found):
                y, colour = i + (j - (len(found) - 1) / 2) * 0.22, _colour(contender)
                label = None if contender["name"] in named else contender["name"]
                named.add(contender["name"])
                axes.plot([beside["low"], beside["high"]], [y, y], color=colour, linewidth=1.4)
                axes.plot(beside["median"], y, "o", color=colour, markersize=5, label=label)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        _ticks(axes.xaxis, high / low)
        axes.axvline(1.0, color=INK, linewidth=1.0)
        axes.axvline(limit, color=SOFT, linewidth=1.0, linestyle="--")
        axes.annotate(f"limit {limit}", (limit, -0.75), (3, 0), textcoords="offset points", color=SOFT, va="center")
        axes.set_yticks(range(len(rows)), [rule for rule, _ in rows], color=INK)
        axes.set_ylim(len(rows) - 0.5, -1)
        axes.set_title("time of a step, the touch kernel's = 1", loc="left")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.legend(loc="lower left", bbox_to_anchor=(1.01, 0.0), frameon=False, labelcolor=INK)

    return _svg("all rules: time of a step beside the touch kernel", draw, (9.2, 0.9 + 0.3 * len(rows)), left=0.14, right=0.8)


def _ticks(axis: Any, span: float) -> None:
    """On a logarithmic axis: at the powers of ten, and between them where it is short."""
    from matplotlib.ticker import LogLocator

    between = (1.5, 2.0, 3.0, 5.0) if span < 12 else (2.0, 5.0) if span < 50 else ()
    axis.set_major_locator(LogLocator(subs=(1.0, *between)))
    axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_minor_formatter("")


def _svg(name: str, draw: Callable[[Any], None], size: tuple[float, float], left: float = 0.075, right: float = 0.98) -> str:
    """A figure of one diagram as the text of an SVG element that may stand in a page beside others."""

    def whole(figure: Any) -> None:
        height = size[1]
        grid = {"left": left, "right": right, "top": 1 - 0.3 / height, "bottom": 0.45 / height}
        draw(figure.subplots(gridspec_kw=grid))

    return drawing.svg(name, whole, size)
