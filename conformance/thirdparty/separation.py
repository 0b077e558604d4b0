"""How well the probe tells conventions apart: each variant of a rule is stepped as a library would, and named by its diagnosis.

``python -m xopt.conformance.thirdparty.separation`` does so with every convention and every pair of conventions that go together,
in float32 and in float64, and prints how many were named, how many are ties, and which were not named. A pair of which one does
nothing beside the other, as the length of the warm-up of an alpha that is ignored, is no formula of its own, and counted apart.
``--pairs 48`` draws so many.
"""

import argparse
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from xopt.conformance.arithmetic.numbers import ARRAYS
from xopt.conformance.thirdparty.diagnosis import diagnose
from xopt.conformance.thirdparty.measure import Seen
from xopt.conformance.thirdparty.probe import Run, runs
from xopt.conformance.thirdparty.variants import Variant, fits, is_default, is_rounding, residual, rows_of, trajectory
from xopt.rules import RULES


class Separation(NamedTuple):
    """What the diagnoses of the variants of one rule came to, in one dtype."""

    rule: str
    dtype: str
    named: list[Variant]  # alone, and nothing else with it
    tied: list[tuple[Variant, list[Variant]]]  # among several that the digits of the dtype do not tell apart
    same: list[tuple[Variant, list[Variant]]]  # those that are the formula of another
    missed: list[tuple[Variant, list[Variant]]]  # what was named in its place

    def __str__(self) -> str:
        count = len(self.named) + len(self.tied) + len(self.missed)
        same = f"; {len(self.same)} more are the formula of another" if self.same else ""
        found = f"{len(self.named)} of {count} named, {len(self.tied)} ties, {len(self.missed)} missed"
        return f"{self.rule} {self.dtype}: {found}{same}"


def stepped(variant: Variant, run: Run, dtype: str) -> Seen | None:
    """What a library computes that evaluates a variant's text in this dtype; None where it cannot, as it divides by 0."""
    try:
        found = trajectory(variant.golden, ARRAYS, run, variant.hyper(run), lambda x: x.astype(dtype))
    except ZeroDivisionError:
        return None
    return Seen(run, dtype, found.astype(np.float64))


def separation(rule: str, dtype: str, variants: Iterable[Variant], drawn: int = 1) -> Separation:
    """Diagnoses each variant of a rule, of which nothing but its trajectories is shown."""
    own = [run for run in runs(rule, RULES[rule].defaults, random=drawn) if run.kind != "defaults"]
    found = Separation(rule, dtype, [], [], [], [])
    for variant in variants:
        seen = [one for one in (stepped(variant, run, dtype) for run in own) if one is not None]
        named = diagnose(rule, seen).variants
        formula = {row.what for row in variant.conventions if not row.same}
        hits = [one for one in named if {row.what for row in one.conventions if not row.same} == formula]
        if hits and len({frozenset(row.what for row in one.conventions if not is_rounding(row)) for one in named}) == 1:
            found.named.append(variant)
        elif named and is_same(variant, named, seen):
            found.same.append((variant, named))
        elif hits or (named and _alike(variant, named[0], seen)):
            found.tied.append((variant, named))
        else:
            found.missed.append((variant, named))
    return found


def is_same(variant: Variant, named: Sequence[Variant], seen: Sequence[Seen]) -> bool:
    """Whether one of what was named is the variant's formula, to the last digits of float64."""
    own = [x._replace(dtype="float64") for x in seen]
    plain = [Variant(variant.rule, [row for row in one.conventions if not is_rounding(row)]) for one in named]
    texts = {frozenset(row.what for row in one.conventions) for one in (*plain, variant)}
    return len(texts) > 1 and any(_alike(variant, one, own) for one in plain if one != variant)


def _alike(one: Variant, other: Variant, seen: Sequence[Seen]) -> bool:
    """Whether the parameters of two variants are the same, within the bound."""
    return all(residual(one.values(x.run), *other.bounded(x.run, x.dtype)) <= 1 for x in seen)


def singles(rule: str) -> Iterator[Variant]:
    """The rule itself, and each convention of another formula, or of other rounding that shows."""
    yield Variant(rule)
    for row in rows_of(rule, math.inf):
        if not is_default(row) and not row.same:
            yield Variant(rule, (row,))


def pairs(rule: str) -> Iterator[Variant]:
    """Each two of them that go together."""
    rows = [row for row in rows_of(rule, math.inf) if not is_default(row) and not row.same]
    for i, one in enumerate(rows):
        for other in rows[i + 1 :]:
            variant = Variant(rule, (one, other))
            if fits(variant) and not is_rounding(one):
                yield variant


def sampled(variants: Iterable[Variant], most: int | None) -> list[Variant]:
    """At most so many of them, drawn with a fixed seed; all in their order where no number is given."""
    found = list(variants)
    if most is not None:
        random.Random(0).shuffle(found)
    return found[:most]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m xopt.conformance.thirdparty.separation")
    parser.add_argument("dtypes", nargs="*", default=["float32", "float64"], help="default: both")
    parser.add_argument("--rule", action="append", choices=list(RULES), help="one, or several; all where none is named")
    parser.add_argument("--pairs", type=int, help="at most so many pairs of each rule, drawn with a fixed seed")
    given = parser.parse_args(arguments)
    total = np.zeros(4, int)
    for dtype in given.dtypes:
        for rule in given.rule or RULES:
            for what, variants in (("conventions", list(singles(rule))), ("pairs", sampled(pairs(rule), given.pairs))):
                found = separation(rule, dtype, variants)
                print(f"{what}: {found}", flush=True)  # noqa: T201 - what it is for
                for word, group in (("tied", found.tied), ("missed", found.missed), ("the same", found.same)):
                    for variant, named in group:
                        print(f"    {word}: {variant} as {named}", flush=True)  # noqa: T201
                total += [len(found.named), len(found.tied), len(found.missed), len(found.same)]
    print("in all: {} named, {} ties, {} missed; {} more are the formula of another".format(*total))  # noqa: T201


if __name__ == "__main__":
    main()
