"""What departs from correct rounding, is understood, and stands in the ledger: by its link, so that the reason is said there."""

from typing import Literal, NamedTuple

from xopt.conformance import ledger
from xopt.conformance.exhaustive.exact import PROVED
from xopt.conformance.exhaustive.store import Row

Kind = Literal["flush", "rounding"]
"""Right once subnormal numbers are 0, or off by at most one unit in the last place."""


class Departure(NamedTuple):
    """Results of one library that are not the correctly rounded ones, and why."""

    backend: str
    device: str
    modes: tuple[str, ...]
    operations: tuple[str, ...]
    dtypes: tuple[str, ...]
    kind: Kind
    link: str  # of the row in the ledger

    @property
    def reason(self) -> str:
        """As the ledger has it."""
        own = self.backend, self.device, self.link
        return next(row.reason for row in ledger.read() if (row.backend, row.device, row.link) == own)

    def covers(self, row: Row) -> bool:
        """Whether it speaks of what was run."""
        where = (row.backend, row.device) == (self.backend, self.device) and row.mode in self.modes
        return where and row.operation in self.operations and row.dtype in self.dtypes

    def seen_in(self, row: Row) -> bool:
        return self.covers(row) and bool(row.tally.flushed if self.kind == "flush" else row.tally.wrong)


DEPARTURES = (
    Departure(
        "jax",
        "cpu",
        ("eager", "traced"),
        PROVED,
        ("bfloat16", "float32"),
        "flush",
        "https://github.com/jax-ml/jax/issues/26658",
    ),
    Departure(
        "torch", "cpu", ("eager",), ("sqrt",), ("float32", "float64"), "rounding", "https://github.com/pytorch/pytorch/issues/31250"
    ),
)


def unexplained(row: Row) -> list[str]:
    """What of a row no departure covers, in words."""
    known = {departure.kind for departure in DEPARTURES if departure.covers(row)}
    said = []
    if row.tally.flushed and "flush" not in known:
        said.append(f"{row.title}: {row.tally.flushed:,} results are those of subnormal numbers flushed to 0, as {row.tally.flush}")
    if row.tally.wrong and ("rounding" not in known or row.tally.ulps > 1):
        said.append(f"{row.title}: {row.tally.wrong:,} results are wrong, by up to {row.tally.ulps:.3g} ulp, as {row.tally.worst}")
    return said


def stale(rows: list[Row]) -> list[str]:
    """Departures that what was run, all of it, does not show any more."""
    of_all = [row for row in rows if row.tally.tried == row.total]
    return [
        f"{departure.backend}, {', '.join(departure.modes)}: nothing departs by {departure.kind} any more; take its row out"
        for departure in DEPARTURES
        if any(map(departure.covers, of_all)) and not any(map(departure.seen_in, of_all))
    ]
