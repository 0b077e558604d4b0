"""Diagrams of curves whose names stand at their ends."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from xopt.conformance.report import drawing
from xopt.conformance.report.drawing import Palette

WIDTH, HEIGHT = 4.9, 3.0
"""Of a panel, in inches, with the room for names."""
NAMES = 1.25
"""Inches beside a panel for the names of its curves."""
POINTS = 240
"""Of a curve that is drawn: more cannot be told apart."""


class Curve(NamedTuple):
    """One curve. ``colour`` is the number of a series of the style sheet."""

    name: str
    x: Any
    y: Any
    colour: int
    line: str = "-"
    width: float = 1.9


class Panel(NamedTuple):
    """One diagram; ``log`` names the axes that are logarithmic."""

    title: str
    curves: Sequence[Curve]
    x: str
    log: str = ""
    xlim: tuple[float, float] | None = None
    ylim: tuple[float, float] | None = None
    levels: Sequence[float] = ()  # horizontal lines
    starts: Sequence[float] = ()  # vertical lines
    legend: str | tuple[float, float] | None = ""
    """Where the names stand, as matplotlib has it; "" is at the ends of the curves, None nowhere: a key has them."""


def svg(name: str, panels: Sequence[Panel], columns: int = 2, names: float = NAMES) -> str:
    """Panels in rows of ``columns``, as an SVG element for a page."""
    return drawing.svg(name, _draw(panels, columns, names, drawing.PAGE), _size(panels, columns))


def png(name: str, panels: Sequence[Panel], columns: int = 2, names: float = NAMES, key: bool = False) -> bytes:
    """The same as a file, where ``key`` is True below a key of the first panel's curves, in columns as wide as the longest name."""
    draw, (width, height) = _draw(panels, columns, names, drawing.PAPER), _size(panels, columns)
    if not key:
        return drawing.png(name, draw, (width, height))
    curves = panels[0].curves
    across = max(1, min(len(curves), int((width - 0.8) / (0.75 + 0.082 * max((len(curve.name) for curve in curves), default=1)))))
    above = 0.25 + 0.215 * math.ceil(len(curves) / across)

    def with_key(figure: Any) -> None:
        from matplotlib.lines import Line2D

        draw(figure, height + above)
        styles: list[Any] = [
            {"color": drawing.PAPER.series[x.colour], "linestyle": x.line, "linewidth": x.width, "label": x.name} for x in curves
        ]
        place = {"loc": "upper left", "bbox_to_anchor": (0.4 / width, 1.0), "ncols": across, "frameon": False}
        figure.legend(
            handles=[Line2D([], [], **style) for style in styles],
            handlelength=2.6,
            labelspacing=0.35,
            labelcolor="linecolor",
            **place,
        )

    return drawing.png(name, with_key, (width, height + above))


def _size(panels: Sequence[Panel], columns: int) -> tuple[float, float]:
    return WIDTH * columns, HEIGHT * math.ceil(len(panels) / columns)


def _draw(panels: Sequence[Panel], columns: int, names: float, palette: Palette) -> Callable[..., None]:
    def draw(figure: Any, height: float = 0.0) -> None:
        """At the foot of a figure of this height, which may be more than the panels need."""
        width, tall = _size(panels, columns)
        height = height or tall
        for i, panel in enumerate(panels):
            row, column = divmod(i, columns)
            left, top = column * WIDTH + 0.55, tall - row * HEIGHT - 0.32
            beside = names if panel.legend == "" else 0.2
            box = left / width, (top - HEIGHT + 0.85) / height, (WIDTH - 0.65 - beside) / width, (HEIGHT - 0.85) / height
            _panel(figure.add_axes(box), panel, palette)

    return draw


def _panel(axes: Any, panel: Panel, palette: Palette) -> None:
    for level in panel.levels:
        axes.axhline(level, color=palette.soft, linewidth=0.8)
    for start in panel.starts:
        axes.axvline(start, color=palette.soft, linewidth=0.8, linestyle=(0, (2, 2)))
    ends = []
    for curve in panel.curves:
        x, y = _thinned(np.asarray(curve.x, dtype=np.float64), np.asarray(curve.y, dtype=np.float64), panel)
        style = {"color": palette.series[curve.colour], "linewidth": curve.width, "label": curve.name or None}
        axes.plot(x, y, curve.line, zorder=2.0 if curve.line == "-" else 2.5, **style)  # dashes above lines that they coincide with
        if curve.name:
            ends.append((x, y, curve))
    axes.set_xscale("log" if "x" in panel.log else "linear")
    axes.set_yscale("log" if "y" in panel.log else "linear")
    axes.set_xlim(panel.xlim)
    axes.set_ylim(panel.ylim)
    axes.margins(x=0)
    axes.set_xlabel(panel.x)
    axes.set_title(panel.title, loc="left")
    for one, log in ((axes.xaxis, "x" in panel.log), (axes.yaxis, "y" in panel.log)):
        if log:
            one.set_minor_formatter("")
        one.set_major_formatter(_of_powers if log else _number)
    axes.grid(axis="y")
    if panel.legend:
        axes.legend(loc=panel.legend, frameon=False, labelcolor="linecolor", handlelength=1.4, labelspacing=0.3)
    elif panel.legend is not None:
        _names(axes, ends, palette)


def _names(axes: Any, ends: list[tuple[Any, Any, Curve]], palette: Palette) -> None:
    """Beside the ends of the curves, with a line where a name had to make room."""
    low, high = axes.get_xlim()
    places = []
    for x, y, curve in ends:
        seen = np.flatnonzero((x >= low) & (x <= high) & np.isfinite(y))
        at = x[seen[-1]], y[seen[-1]]
        share = axes.transAxes.inverted().transform(axes.transData.transform(at))[1]
        places.append((min(max(float(share), 0.0), 1.0), at, curve))
    places.sort(key=lambda place: place[0])
    gap = 0.085 * max([1, *(curve.name.count("\n") + 1 for *_, curve in places)])
    for (_, at, curve), share in zip(places, drawing.apart([place for place, *_ in places], gap), strict=True):
        axes.annotate(
            curve.name,
            at,
            (1.045, share),
            textcoords="axes fraction",
            color=palette.series[curve.colour],
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": palette.soft, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2, "relpos": (0, 0.5)},
        )


def _thinned(x: Any, y: Any, panel: Panel) -> tuple[Any, Any]:
    """As many points as can be told apart, evenly along the axis."""
    if panel.xlim:
        inside = (x >= panel.xlim[0]) & (x <= panel.xlim[1])
        x, y = x[inside], y[inside]
    if len(x) <= POINTS:
        return x, y
    places = np.searchsorted(x, np.geomspace(x[0], x[-1], POINTS)) if "x" in panel.log else np.linspace(0, len(x) - 1, POINTS)
    kept = np.unique(np.minimum(places.astype(np.int64), len(x) - 1))
    return x[kept], y[kept]


def _of_powers(value: float, place: Any) -> str:
    """On a logarithmic axis: a power of ten where the number is long."""
    exponent = math.log10(value) if value > 0 else 0.0
    if -4 < exponent < 5 or abs(exponent - round(exponent)) > 1e-9:
        return _number(value, place)
    return f"10{str(round(exponent)).translate(_RAISED)}"


def _number(value: float, _: Any) -> str:
    """As it is said, such as 10,000."""
    return f"{value:,.10g}".translate(_MINUS)


_MINUS = str.maketrans("-", "\N{MINUS SIGN}")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
