"""What must be drawn, counted; and the floors of the census."""

from collections import Counter

import numpy as np

from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, round_to
from xopt.conformance.compare import comparison as comparison_module
from xopt.conformance.golden import GOLDENS
from xopt.conformance.inputs.census import FLOORS, counted, take_census
from xopt.conformance.inputs.explore import draw
from xopt.conformance.inputs.hyperparameters import settings
from xopt.conformance.inputs.trajectories import EXPONENTS, SHAPES, Trajectory, trajectories
from xopt.conformance.inputs.words import decode
from xopt.conformance.selfcheck.checks import check, must
from xopt.conformance.selfcheck.subjects import TARGETS, compared
from xopt.conformance.stateful import check_machine
from xopt.conformance.target import Effort
from xopt.rules import RULES


@check
def what_must_be_drawn_is_drawn() -> None:
    counts: Counter[str] = Counter()
    for name in ("aggmo", "qhadam", "ademamix"):
        _, seen = counted(_draw, name)
        counts += seen
    must(counts["cells: examples"] >= 180, "examples are not counted")
    reach(counts, "cells", besides="cells: numbers compared")
    _, counts = counted(compared, "lion")
    must(counts["cells: numbers compared"] >= counts["cells: gradients"] > 0, "numbers are not counted")


def _draw(name: str) -> None:
    """Draws examples for the comparison, and looks at them."""
    rule = RULES[name]
    judge = comparison_module.Comparer(rule, GOLDENS[name], "float32", [], SHAPES)

    def look(case: Trajectory) -> None:
        judge._look_at(case, comparison_module.pieces_of(case, SHAPES), judge._baseline(case)[1])

    drawn = trajectories(rule, settings(rule, 0, 40), "float32", longest=6)
    with np.errstate(all="ignore"):
        draw(drawn, look, Effort(60, shrink=False), name)


@check
def programs_do_what_they_can() -> None:
    counts: Counter[str] = Counter()
    for name in ("aggmo", "ademamix", "qhadam"):
        _, seen = counted(check_machine, name, "float32", TARGETS[:1], Effort(8, shrink=False))
        counts += seen
    reach(counts, "programs")


def reach(counts: Counter[str], check: str, besides: str = "") -> None:
    """Whether all floors of a check are reached, in a run of a few rules."""
    floors = [floor for floor in FLOORS if floor.what.startswith(f"{check}: ") and floor.what != besides]
    must(len(floors) >= 15, "floors are missing")
    for floor in floors:
        must(counts[floor.of], f"{floor.of} are not counted")
        least = floor.share * counts[floor.of] if counts[floor.of] >= 250 or not floor.whole else 0
        must(counts[floor.what] >= least, f"{floor.what}: {counts[floor.what]} of {counts[floor.of]}")


@check
def generated_numbers_are_of_all_kinds() -> None:
    words = np.random.default_rng(0).integers(0, 2**32, 4000, dtype=np.uint32)
    for dtype in FLOAT_FORMATS:
        values = decode(words, dtype, EXPONENTS[dtype])
        sizes = np.log2(np.abs(values[values != 0]))
        low, high = EXPONENTS[dtype]
        must(0.08 < np.mean(values == 0) < 0.2, f"{np.mean(values == 0)} of the numbers in {dtype} are 0")
        must(0.3 < np.mean(values > 0) < 0.6, "signs are not drawn alike")
        must(sizes.min() < low + 1 and sizes.max() > high - 1, f"exponents in {dtype} are {sizes.min()} ... {sizes.max()}")
        must(len(np.unique(np.abs(values))) > 500, "numbers have few digits")
        must((round_to(values, dtype) == values).all(), f"numbers are none of {dtype}")
    halfway = np.asarray([1 + 2.0**-11, 1 + 3 * 2.0**-11])
    must((round_to(halfway, "float16") == [1.0, 1 + 2.0**-9]).all(), "ties do not go to even")


@check
def a_floor_fails_what_is_below_it() -> None:
    floor = FLOORS[0]
    for share, fails in ((0.0, True), (floor.share * 0.9, True), (floor.share * 1.1, False)):
        rows = take_census({floor.of: 10_000, floor.what: int(share * 10_000)}, True)
        must(any(row.problem for row in rows if row.what == floor.what) == fails, f"{share} of {floor.what} fails: {not fails}")
