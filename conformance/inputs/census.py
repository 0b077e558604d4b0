"""What a run drew and compared, counted as it happens, and floors under which it proves too little.

A check that is never given a zero says nothing of zeros, and does not say so. So whoever draws or compares counts what came, by
name, in one line: ``saw("cells: gradients of 0", n)``. A floor asks that it came often enough among its opportunities, so that
it holds of every profile, and of a part of a run. What is counted is looked at where it is used, never where it was meant.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import optree

from xopt.checks import Interval
from xopt.conformance.inputs.hyperparameters import is_decay
from xopt.rule import Rule

_counts: Counter[str] = Counter()


def saw(what: str, times: Any = 1) -> None:
    """Adds to a count, which begins with the name of its check."""
    _counts[what] += int(times)


def counted(function: Callable[..., Any], *arguments: Any) -> tuple[Any, Counter[str]]:
    """What a call returns, and what was counted meanwhile: so that a worker process can hand it over."""
    before = Counter(_counts)
    return function(*arguments), _counts - before


class Floor(NamedTuple):
    """Of all ``of``, at least a share must be ``what``."""

    what: str
    of: str
    share: float  # well below what is drawn, so that chance does not fail a run
    whole: bool = False  # asked of runs of all rules: the settings of a few rules are few


FEW = 5
"""A floor below that is not asked: what is as rare as that is left to chance."""


class CensusRow(NamedTuple):
    """One count of a run, and the floor that it must reach."""

    what: str
    count: int  # type: ignore[assignment]  # a tuple's method of that name is not missed
    of: str | None = None
    opportunities: int = 0
    floor: int = 0

    @property
    def problem(self) -> str | None:
        if self.count >= self.floor:
            return None
        return (
            f"{self.what}: {self.count:,} among {self.opportunities:,} ({self.of}), where {self.floor:,} are the least: the run "
            "proves too little; find out why so few came."
        )


def take_census(counts: Mapping[str, int], whole: bool) -> list[CensusRow]:
    """Every count of a run, and every floor that it is asked to reach; ``whole`` is a run of all rules."""
    rows = {what: CensusRow(what, number) for what, number in counts.items()}
    for what, of, share, of_all in FLOORS:
        least = math.floor(share * counts.get(of, 0))
        if counts.get(of, 0):
            rows[what] = CensusRow(
                what, counts.get(what, 0), of, counts[of], least if least >= FEW and (whole or not of_all) else 0
            )
    return [rows[what] for what in sorted(rows)]


def look_at(check: str, rule: Rule[Any, Any], hyper: Mapping[str, Any]) -> None:
    """Counts which options the hyperparameters of one example have."""
    saw(f"{check}: settings")
    saw(f"{check}: settings of defaults alone", all(hyper.get(name, value) == value for name, value in rule.defaults.items()))
    for name, value in (rule.defaults | dict(hyper)).items():
        kind = _kind(rule.ranges[name])
        if rule.ranges[name].sequence:
            saw(f"{check}: sequences of betas")
            saw(f"{check}: sequences of betas of one", len(value) == 1)
            saw(f"{check}: sequences of betas of three or more", len(value) >= 3)
        for x in optree.tree_leaves(value, none_is_leaf=True):
            saw(f"{check}: {kind}")
            for option, test in OPTIONS[kind].items():
                saw(f"{check}: {kind} {option}", x is not None and test(float(x)))


OPTIONS: dict[str, dict[str, Callable[[float], bool]]] = {
    "betas": {"of 0": lambda x: x == 0, "above 0.99": lambda x: x > 0.99},
    "decays": {"of 0": lambda x: x == 0, "above 0.99": lambda x: x > 0.99},
    "epsilons": {"below 1e-4": lambda x: x < 1e-4, "above 1e-4": lambda x: x > 1e-4},
    "rates": {"of 0": lambda x: x == 0, "above 0.01": lambda x: x > 0.01},
    "shares": {"of 0": lambda x: x == 0, "of 1": lambda x: x == 1},
    "warm-ups": {"that are on": lambda x: x > 0, "longer than 1 step": lambda x: x > 1},
}
"""What is looked at in a number, by its kind."""


@lru_cache(maxsize=64)
def _kind(interval: Interval) -> str:
    if interval.sequence:
        return "betas"
    if interval.optional:
        return "warm-ups"
    if interval.divisor:
        return "epsilons"
    if is_decay(interval):
        return "decays"
    return "shares" if interval.low < 0 or interval.high == 1 else "rates"


SITUATIONS = {
    **dict.fromkeys(("dict", "OrderedDict", "defaultdict", "list", "tuple", "Pair", "Layer", "nested"), 0.03),
    **dict.fromkeys(
        (
            "one leaf alone",
            "groups of lr",
            "gradient in another container",
            "another order before",
            "leaf without a gradient",
            "counts that differ",
        ),
        0.01,
    ),
    **dict.fromkeys(("stepped before", "trouble: a count that is none", "trouble: a surplus key in the gradient"), 0.005),
    **dict.fromkeys(("other hyperparameters before", "a decay of 0 at the other step", "a tree before that is deeper"), 0.005),
}
"""The least share of drawn situations that have this in them, of all libraries,"""
SITUATIONS_OF_NUMPY = {
    **dict.fromkeys(("masked leaf", "subclass leaf", "byte-swapped leaf", "windows leaf", "read-only leaf", "scalar leaf"), 0.004),
    "slots that overlap": 0.004,
    **dict.fromkeys(("interrupted", "threads", "small blocks", "small shares", "gradient with NaN", "pickled state"), 0.01),
}
"""and of NumPy."""

FLOORS: list[Floor] = [
    *(Floor(f"{check}: gradients of 0", f"{check}: gradients", 0.05) for check in ("cells", "laws")),
    *(Floor(f"{check}: numbers compared", f"{check}: gradients", 1.0) for check in ("cells", "digits")),
    Floor("laws: numbers compared", "laws: examples", 10.0),  # some compare a few facts
    Floor("cells: parameters of 0", "cells: parameters", 0.05),
    Floor("cells: gradients that cancel it", "cells: gradients of rules with a memory", 0.01),
    Floor("cells: gradients beyond 2**-12 ... 2**12", "cells: gradients", 0.02),
    Floor("cells: examples of more than one step", "cells: examples", 0.3),
    Floor("cells: examples that begin after 4,096 steps", "cells: examples", 0.03),
    Floor("cells: examples that begin after 65,536 steps", "cells: examples", 0.03),
    Floor("cells: examples that begin after 2,147,483,648 steps", "cells: examples", 0.006),
    Floor("cells: examples of several groups", "cells: examples", 0.1),
    *(Floor(f"{check}: settings of defaults alone", f"{check}: settings", 0.02, whole=True) for check in ("cells", "programs")),
    *(
        Floor(f"{check}: {kind} {option}", f"{check}: {kind}", 0.01, whole=True)
        for check in ("cells", "laws", "programs")
        for kind, options in {**OPTIONS, "sequences of betas": ("of one", "of three or more")}.items()
        for option in options
    ),
    *(
        Floor(f"programs: {operation}", "programs: start", 0.05)
        for operation in ("change hyperparameters", "split", "merge", "arrange", "go on with a copy", "save and reload", "move")
    ),
    Floor("programs: states moved to another library", "programs: move", 1.0),
    Floor("programs: steps", "programs: start", 1.0),
    Floor("programs: steps beside the original of a copy", "programs: go on with a copy", 0.03),
    Floor("programs: numbers compared", "programs: steps", 1.0),
    Floor("structures: numbers compared", "structures: situations", 5.0),
    *(Floor(f"structures: {what}", "structures: situations", share) for what, share in SITUATIONS.items()),
    *(Floor(f"structures: {what}", "structures: situations of numpy", share) for what, share in SITUATIONS_OF_NUMPY.items()),
]
"""Of cells (the comparison with the golden), digits (its replay of real gradients), laws, programs of the state machine,
and structures."""
