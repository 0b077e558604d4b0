"""The words that a terminal, the README, the page and other programs share: of verdicts, and of columns and their order."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from xopt.backends import BACKENDS
from xopt.conformance.results import BROKEN, HELD, IDENTICAL, MODES, NOT_RUN, SUBNORMALS, WITHIN, WRONG


class Word(NamedTuple):
    """How a verdict is shown."""

    symbol: str  # in a table
    kind: str  # class of the page's style sheet
    style: str  # of rich
    meaning: str


VERDICTS = {
    NOT_RUN: Word("-", "none", "dim", "nothing was compared; the reason is given"),
    IDENTICAL: Word("bits", "same", "green", "the same bits as NumPy"),
    HELD: Word("held", "same", "green", "the law holds as it is said"),
    SUBNORMALS: Word(
        "bits*", "subnormal", "green", "the same bits, but where subnormal numbers occur, which the backend flushes to zero"
    ),
    WITHIN: Word("0.97", "within", "yellow", "the largest error/bound of a step, at most 1 where it is right"),
    WRONG: Word("WRONG", "wrong", "bold white on red", "outside the derived error bound, or raised"),
    BROKEN: Word("BROKEN", "wrong", "bold white on red", "the law does not hold"),
}
"""From the least to the most that there is to say."""

RIGHT = (IDENTICAL, HELD, SUBNORMALS, WITHIN)
BAD = (WRONG, BROKEN)


def symbol(verdict: str, error: float | None) -> str:
    """Of a verdict in a table; ``error`` is the largest error/bound."""
    return ratio(error or 0.0) if verdict == WITHIN else VERDICTS[verdict].symbol


def ratio(value: float) -> str:
    """Error/bound in two decimals, rounded down, so that what is right is never shown as more than 1."""
    return f"{math.floor(100 * value) / 100:.2f}" if value <= 1 else f"{value:.4g}"


def weakest(verdicts: Iterable[str]) -> str:
    """The one of which there is most to say."""
    return max(verdicts, key=list(VERDICTS).index, default=NOT_RUN)


Place = tuple[str, str, str]
"""Backend, device and mode: a column."""


def order(place: Place) -> tuple[int, str, int]:
    """Columns stand by backend as ``BACKENDS`` lists them, by device, and by mode as ``MODES`` lists them."""
    backend, device, mode = place
    return list(BACKENDS).index(backend), device, MODES.index(mode)


def heading(place: Place, tracer: str | None = None) -> str:
    """Of a column; ``tracer`` is what compiles there. Default: as the backend says."""
    backend, device, mode = place
    where = f"{backend} {device}".strip()
    compiled = f"{tracer or BACKENDS[backend].tracer or backend} {device}".strip()
    return {"eager": where, "fused": f"{where} fused"}.get(mode, compiled)
