"""A panel as SVG: lines, bands of several seeds, axes; its text takes the page's colour, so that it reads in light and in dark."""

from collections.abc import Iterator, Sequence
from html import escape
from math import ceil, floor, isfinite, log10

from xopt.conformance.reproductions.outcome import Curve, Panel

COLOURS = ("#3b82f6", "#e8590c", "#0f9d76", "#d6409f", "#a18007", "#8b6cf0", "#0e9bb5", "#e5484d", "#6b8e23", "#8d8d8d", "#b5651d")
DASHES = ("", "6 3", "2 2", "8 3 2 3")
"""With the colours: from one turn through either to the next, a line has another dash, so that colour does not say all."""
LEFT, TOP, WIDTH, HEIGHT, RIGHT = 62, 46, 400, 220, 14
"""Of the plot, in units of the picture; what is below is the axis and the legend."""
CHARACTER, LINE = 6.9, 18


class Axis:
    """Places numbers between two ends, evenly or by their logarithms."""

    def __init__(self, values: Sequence[float], length: float, log: bool) -> None:
        self.log = log
        seen = [value for value in values if isfinite(value) and (value > 0 or not log)]
        low, high = (min(seen), max(seen)) if seen else (1.0, 1.0)
        low, high = (log10(low), log10(high)) if log else (low, high)
        margin = 0.03 * (high - low) or 0.5
        self.low, self.high = low - margin, high + margin
        self.length = length

    def __call__(self, value: float) -> float:
        place = log10(value) if self.log else value
        return self.length * (place - self.low) / (self.high - self.low)

    def holds(self, value: float) -> bool:
        return isfinite(value) and (value > 0 or not self.log)

    def ticks(self) -> list[float]:
        if not self.log:
            return _even(self.low, self.high)
        first, last = ceil(self.low), floor(self.high)
        every = max(1, ceil((last - first) / 6))
        decades = [10.0**k for k in range(first, last + 1) if (k - first) % every == 0]
        if len(decades) > 1:
            return decades
        finer = [t * 10.0**k for k in range(first - 1, last + 2) for t in (1, 2, 5)]
        some = [tick for tick in finer if self.low <= log10(tick) <= self.high]
        return some if len(some) > 1 else _even(10.0**self.low, 10.0**self.high)


def _even(low: float, high: float) -> list[float]:
    """About five round numbers, evenly apart."""
    rough = (high - low) / 5
    size = 10 ** floor(log10(rough))
    step = next(size * k for k in (1, 2, 5, 10) if size * k >= rough)
    return [k * step for k in range(ceil(low / step), floor(high / step) + 1)]


def svg(panel: Panel) -> str:
    """Stands alone within a page: it needs no style sheet."""
    curves = panel.curves
    x = Axis([v for curve in curves for v in curve.x], WIDTH, panel.log_x)
    y = Axis([v for curve in curves for row in (curve.y, curve.low, curve.high) for v in row if v is not None], HEIGHT, panel.log_y)
    parts = [f'<text x="0" y="14" font-weight="600">{escape(panel.title)}</text>', *_axes(panel, x, y)]
    for i, curve in enumerate(curves):
        parts += _line(curve, x, y, i)
    legend, bottom = _legend([curve.name for curve in curves], TOP + HEIGHT + 46)
    width = LEFT + WIDTH + RIGHT
    said = escape(f"{panel.title}: {panel.y} by {panel.x}")
    return (
        f'<svg viewBox="0 0 {width} {bottom:g}" role="img" aria-label="{said}" '
        f'font-size="12" fill="currentColor">{"".join(parts)}{"".join(legend)}</svg>'
    )


def _axes(panel: Panel, x: Axis, y: Axis) -> Iterator[str]:
    base = TOP + HEIGHT
    for tick in y.ticks():
        at = base - y(tick)
        yield f'<path d="M{LEFT} {at:.1f}h{WIDTH}" stroke="currentColor" stroke-opacity=".15"/>'
        yield f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end" fill-opacity=".75">{_tick(tick)}</text>'
    for tick in x.ticks():
        at = LEFT + x(tick)
        yield f'<path d="M{at:.1f} {base}v4" stroke="currentColor" stroke-opacity=".6"/>'
        yield f'<text x="{at:.1f}" y="{base + 17}" text-anchor="middle" fill-opacity=".75">{_tick(tick)}</text>'
    yield f'<path d="M{LEFT} {base}h{WIDTH}" stroke="currentColor" stroke-opacity=".6"/>'
    yield f'<text x="{LEFT + WIDTH}" y="{base + 32}" text-anchor="end" fill-opacity=".75">{escape(panel.x)}</text>'
    yield f'<text x="0" y="32" fill-opacity=".75">{escape(panel.y)}</text>'


def _tick(value: float) -> str:
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.6g}".replace("e-0", "e-").replace("e+0", "e")


def _line(curve: Curve, x: Axis, y: Axis, i: int) -> Iterator[str]:
    colour = COLOURS[i % len(COLOURS)]
    if len(curve.low):
        rows = zip(curve.x, curve.low, curve.high, strict=True)
        band = [(a, low, high) for a, low, high in rows if low is not None and high is not None and x.holds(a) and y.holds(low)]
        if any(high > low for _, low, high in band):
            corners = [(a, high) for a, _, high in band] + [(a, low) for a, low, _ in reversed(band)]
            points = " ".join(f"{LEFT + x(a):.1f},{TOP + HEIGHT - y(b):.1f}" for a, b in corners)
            yield f'<polygon points="{points}" fill="{colour}" fill-opacity=".16"/>'
    path, pen = [], "M"
    for a, b in zip(curve.x, curve.y, strict=True):
        if b is not None and x.holds(a) and y.holds(b):
            path.append(f"{pen}{LEFT + x(a):.1f} {TOP + HEIGHT - y(b):.1f}")
            pen = "L"
        else:
            pen = "M"
    yield f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="1.7" stroke-linejoin="round"{_dash(i)}/>'


def _dash(i: int) -> str:
    dash = DASHES[i % len(DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def _legend(names: Sequence[str], top: float) -> tuple[list[str], float]:
    """In columns, as wide as the longest name wants."""
    width = 50 + CHARACTER * max(map(len, names))
    columns = max(1, min(len(names), int((LEFT + WIDTH) // width)))
    rows, parts = ceil(len(names) / columns), list[str]()
    for i, name in enumerate(names):
        left, at = width * (i // rows), top + LINE * (i % rows)
        colour = COLOURS[i % len(COLOURS)]
        parts.append(f'<path d="M{left:.0f} {at - 4:g}h24" stroke="{colour}" stroke-width="2.2"{_dash(i)}/>')
        parts.append(f'<text x="{left + 30:.0f}" y="{at:g}">{escape(name)}</text>')
    return parts, top + LINE * rows - 8
