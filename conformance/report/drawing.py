"""Figures drawn by matplotlib: as SVG in the colours of a page's style sheet, which knows light and dark, or as PNG."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Palette(NamedTuple):
    """Colours: of what is read first, of what is read second, of a grid, and of series."""

    ink: str
    soft: str
    grid: str
    series: Sequence[str]


PAGE = Palette("#00f001", "#00f002", "#00f003", [f"#00f0a{i}" for i in range(8)])
"""Stands for the variables ``--ink``, ``--soft``, ``--grid`` and ``--s0`` to ``--s7`` of a style sheet."""
PAPER = Palette(
    *("#1d2125", "#5b636b", "#ebe9e4"),
    ["#0b62a3", "#c8500a", "#0b8464", "#a8467f", "#1d2125", "#8a6d00", "#7a5bc0", "#7a7a7a"],
)
"""For a picture of its own, on white."""

Draw = Callable[[Any], None]
"""What draws on a figure of matplotlib's."""


def svg(name: str, draw: Draw, size: tuple[float, float]) -> str:
    """A figure, in colours of ``PAGE``, as the text of an SVG element that may stand in a page beside others."""
    text = _drawn(name, draw, size, PAGE, "svg", transparent=True).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| version="[^"]*"', "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # the same in each figure
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', f' role="img" aria-label="{_escaped(name)}"', text, count=1)
    text = re.sub(r"font: ([^;\"]*?)'[^;\"]*", r"font: \1sans-serif", text)
    text = re.sub(r"#00f0a(\d)", r"var(--s\1)", text)
    return text.replace(PAGE.ink, "var(--ink)").replace(PAGE.soft, "var(--soft)").replace(PAGE.grid, "var(--grid)")


def png(name: str, draw: Draw, size: tuple[float, float]) -> bytes:
    """A figure, in colours of ``PAPER``, as a file."""
    return _drawn(name, draw, size, PAPER, "png", dpi=150, facecolor="white")


def _drawn(name: str, draw: Draw, size: tuple[float, float], palette: Palette, kind: str, **how: Any) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    soft = ("axes.titlecolor", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 9.5,
        "axes.titlesize": 9.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "grid.color": palette.grid,
        "text.color": palette.ink,
        **dict.fromkeys(soft, palette.soft),
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # the text of an SVG stays text: a reader's fonts have what the one that it is measured by has not
        warnings.filterwarnings("ignore", r"Glyph \d+", UserWarning)
        figure = Figure(figsize=size)
        draw(figure)
        out = io.BytesIO()
        metadata = {"Date": None, "Creator": None, "Type": None, "Format": None} if kind == "svg" else {"Software": None}
        figure.savefig(out, format=kind, metadata=metadata, **how)
    return out.getvalue()


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Ascending places, moved as little as possible until no two are closer than ``gap``."""
    blocks: list[list[float]] = []  # of places that touch, each without the gaps before it: their sum and their count
    for i, place in enumerate(places):
        blocks.append([place - i * gap, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + count]
    flat = [total / count for total, count in blocks for _ in range(int(count))]
    return [place + i * gap for i, place in enumerate(flat)]


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
