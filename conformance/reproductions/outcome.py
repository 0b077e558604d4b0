"""What a reproduction finds: published beside reproduced, with curves to draw, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from statistics import mean, stdev
from typing import Any

Json = dict[str, Any]

AGREES, PARTLY, DIFFERS, NONE = VERDICTS = ("agrees", "in part", "differs", "-")
"""What was found beside what was published; the last where nothing was published to hold it against."""


def verdict(holds: Any, part: Any = False) -> str:
    """Whether a claim holds, or else holds in part."""
    return AGREES if holds else PARTLY if part else DIFFERS


@dataclass(frozen=True)
class Finding:
    """One published figure or claim, and what came of it here."""

    what: str
    place: str  # in the paper
    published: str
    found: str  # with its spread, where there are several seeds
    verdict: str  # one of VERDICTS
    note: str = ""  # where and why the two part, or what is smaller here


@dataclass(frozen=True)
class Curve:
    """A line of a figure, with the smallest and largest of several seeds. None where a run had diverged."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True)
class Panel:
    """A figure."""

    title: str
    x: str  # what the axis says
    y: str
    curves: Sequence[Curve]
    log_x: bool = False
    log_y: bool = False


@dataclass
class Outcome:
    """Of one experiment."""

    name: str
    findings: list[Finding]
    panels: list[Panel]
    settings: str  # what was run, in a few sentences: sizes, hyperparameters, budgets
    about: Json = field(default_factory=dict)  # command, date, machine, versions, seconds
    data: Json = field(default_factory=dict)  # what else another command reads

    def to_dict(self) -> Json:
        return asdict(self)

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Outcome":
        """From its JSON."""
        panels = [Panel(**panel | {"curves": [Curve(**curve) for curve in panel["curves"]]}) for panel in found["panels"]]
        return cls(**dict(found) | {"findings": [Finding(**one) for one in found["findings"]], "panels": panels})


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Mean and standard deviation of what several seeds gave, those that diverged counted and left out of both."""
    good = [value for value in values if value is not None and isfinite(value)]
    lost = len(values) - len(good)
    if not good:
        return "diverged" if lost == 1 else f"{lost} of {lost} seeds diverged"
    said = number(mean(good), digits)
    if len(good) > 1:
        said += f" ± {number(stdev(good), 2)}"
    return f"{said}, {lost} of {len(values)} seeds diverged" if lost else said


def number(value: float, digits: int = 3) -> str:
    """In so many digits, without an exponent where it can be read without."""
    if not isfinite(value) or (value == int(value) and abs(value) < 1e6):
        return f"{value:,.0f}" if isfinite(value) else f"{value:g}"
    if 1e-3 <= abs(value) < 1e6:
        text = f"{value:.{digits}g}"
        return f"{value:,.0f}" if "e" in text or abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"
    return f"{value:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e+")


def banded(name: str, x: Sequence[float], runs: Sequence[Sequence[float | None]]) -> Curve:
    """The mean of several runs, with the smallest and largest of them at each place; None where one had diverged."""

    def each(of: Any) -> list[float | None]:
        found = []
        for i in range(len(x)):
            values = [run[i] if i < len(run) else None for run in runs]
            finite = [value for value in values if value is not None and isfinite(value)]
            found.append(float(f"{of(finite):.5g}") if len(finite) == len(values) else None)
        return found

    return Curve(name, list(x), each(mean), each(min), each(max))
