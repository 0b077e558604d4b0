"""The figure of the page on schedules: the losses of the runs that the page's own example makes."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from xopt.conformance.memory import plots
from xopt.conformance.memory.plots import Curve, Panel

PAGE = Path(__file__).parents[1] / "recipes" / "schedules.md"
MEAN = 25
"""Steps over which a loss is averaged, as each gradient is noisy."""


@lru_cache(maxsize=1)
def runs() -> dict[str, list[float]]:
    """The losses after each schedule, from the page's blocks for NumPy."""
    told = PAGE.read_text().partition("## PyTorch")[0]
    names: dict[str, Any] = {"print": lambda *_, **__: None}
    for block in re.findall(r"^```python\n(.*?)^```$", told, re.MULTILINE | re.DOTALL):
        exec(block, names)
    found: dict[str, list[float]] = names["runs"]
    return found


def figure() -> str:
    """The losses by step, in the colours of the site."""
    curves = []
    for colour, (name, losses) in enumerate(runs().items()):
        smooth = np.convolve(losses, np.full(MEAN, 1 / MEAN), "valid")
        curves.append(Curve(name, np.arange(MEAN, len(losses) + 1), smooth, colour))
    panel = Panel("loss, mean of 25 steps", curves, "step", "y", legend="upper right")
    drawn = " ".join(plots.svg(panel.title, [panel], 1).split())
    caption = "AdamW on 40 numbers with curvatures from 0.03 to 3, and the same noise for each. The vertical scale is logarithmic."
    return f'<figure class="drawn" id="figure-schedules"><div>{drawn}</div><figcaption>{caption}</figcaption></figure>'
