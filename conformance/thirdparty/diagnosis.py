"""Which variant of a rule a target computes: of those within the bound of what was seen, the one with the fewest departures."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from xopt.conformance.thirdparty.measure import Judge, Measure, Seen
from xopt.conformance.thirdparty.variants import (
    ALL,
    COARSE,
    PLAIN,
    Variant,
    fits,
    formulas,
    is_default,
    is_rounding,
    residual,
    roundings,
    rows_of,
    trajectory,
)

NEAR = 64.0
"""A variant that is this many bounds away on the designed numbers may be the same formula, rounded otherwise."""
APART = 16.0
"""So far must the next best be, at least, or the evidence is thin."""


class Diagnosis(NamedTuple):
    """What a target computes."""

    rule: str
    variants: list[Variant]  # those that fit, which cannot be told apart by what was tried; none where nothing fits
    measure: Measure  # of the first; of the rule itself where nothing fits
    next: Variant | None  # the nearest that does not fit
    next_ratio: float
    factor: "Factor | None" = None  # of a hyperparameter, where that explains the designed numbers
    partly: Variant | None = None  # fits the designed numbers, and not the others
    own: Measure | None = None  # of the rule itself
    nearest: tuple[tuple[str, float], ...] = ()  # of the designed numbers: names and bounds away, the nearest first

    @property
    def thin(self) -> bool:
        """Whether another formula is too near for this one to be named."""
        return bool(self.variants) and self.next_ratio < APART


class Factor(NamedTuple):
    """What one hyperparameter is, in place of what was asked for."""

    name: str
    factor: float  # by which it is multiplied on the designed numbers
    value: float | None  # that it has whatever it is given, where that explains all numbers and the factor does not


class Ranked(NamedTuple):
    variant: Variant
    ratio: float  # on the designed numbers
    runs: int  # of which it explains all


def diagnose(rule: str, seen: Sequence[Seen]) -> Diagnosis:
    """Compares with the rule and its variants."""
    trajectories = [one for one in seen if one.run.kind != "defaults"]
    designed = [one for one in trajectories if one.run.kind == "designed"] or trajectories
    own = Judge(Variant(rule)).measure(trajectories)
    after = max((one.run.idle for one in trajectories), default=0)
    ranked = rank(formulas(rule, after), designed)
    nearest = tuple((repr(one.variant), one.ratio) for one in ranked if len(one.variant.conventions) < 2)[:12]
    near = _promising(ranked)
    if ranked[0].ratio > NEAR:
        near += _promising(rank(_longer(ranked, after), designed))
    fitting: list[tuple[Variant, Measure]] = []
    partly = None
    for one in near:
        if fitting and one.variant.departures >= fitting[0][0].departures + 1:
            continue
        found = _rounded(one.variant, trajectories)
        if found is not None:
            fitting.append(found)
        elif partly is None and Judge(one.variant).measure(designed, stop=1).fits:
            partly = one.variant
    if all(one.dtype == "float64" for one in trajectories):  # what fits to the last digits is no coarse number's doing
        fitting = [pair for pair in fitting if not pair[0].coarse] or fitting
    if fitting:
        fewest = min(_formulas(variant) for variant, _ in fitting)
        ties = sorted((pair for pair in fitting if _formulas(pair[0]) == fewest), key=lambda pair: pair[0].departures)
        same = {frozenset(variant.names) for variant, _ in fitting}
        others = [one for one in ranked if frozenset(one.variant.names) not in same and one.ratio > NEAR]
        best = others[0] if others else None
        apart, ratio = (best.variant, best.ratio) if best else (None, np.inf)
        return Diagnosis(rule, [variant for variant, _ in ties], ties[0][1], apart, ratio, own=own, nearest=nearest)
    best = ranked[0]
    factor = _factor(rule, best.variant, trajectories, designed)
    return Diagnosis(rule, [], own, best.variant, best.ratio, factor, partly, own, nearest)


def _promising(ranked: Sequence[Ranked]) -> list[Ranked]:
    """The near ones, and the nearest: far from the rule, the bounds of a variant may be wider than those of the rule."""
    most = sorted(ranked, key=lambda one: -one.runs)[:4]
    return [one for i, one in enumerate(ranked) if one.ratio <= NEAR or i < 4 or one in most]


def _formulas(variant: Variant) -> int:
    """How many of its conventions are another formula."""
    return sum(not is_rounding(row) for row in variant.conventions)


def rank(variants: Iterable[Variant], seen: Sequence[Seen]) -> list[Ranked]:
    """The nearest first, of equally near ones the one with the fewest departures; measured by the bounds of the rule itself."""
    ranked: list[Ranked] = []
    bounds: dict[int, Any] = {}
    for variant in variants:
        if not bounds:
            bounds = {i: Variant(variant.rule).bounded(one.run, one.dtype)[1] for i, one in enumerate(seen)}
        ratios = [_distance(variant, one, bounds[i]) for i, one in enumerate(seen)]
        ranked.append(Ranked(variant, max(ratios, default=np.inf), sum(ratio <= NEAR for ratio in ratios)))
    return sorted(ranked, key=lambda one: (max(one.ratio, 1.0), one.variant.departures))


def _distance(variant: Variant, one: Seen, bound: Any) -> float:
    try:
        value = variant.values(one.run)
    except ArithmeticError:
        return float(np.inf)
    return residual(one.params, value, bound)


def _longer(ranked: Sequence[Ranked], after: int) -> Iterable[Variant]:
    """One convention more, where several that each explain some of the runs are at work."""
    promising = sorted((one for one in ranked if one.runs), key=lambda one: (-one.runs, one.ratio))[:12]
    promising += [one for one in ranked[:12] if one not in promising]
    rows = [row for row in rows_of(ranked[0].variant.rule, after) if not is_default(row) and not is_rounding(row)]
    for one in promising:
        for row in rows:
            if row not in one.variant.conventions:
                variant = Variant(one.variant.rule, (*one.variant.conventions, row))
                if len(variant.conventions) > 2 and fits(variant):
                    yield variant


def _rounded(variant: Variant, seen: Sequence[Seen]) -> tuple[Variant, Measure] | None:
    """The variant as it must be rounded to fit everything."""
    own = Variant(variant.rule)
    worst_first = sorted(seen, key=lambda one: -_distance(variant, one, own.bounded(one.run, one.dtype)[1]))
    usual = [one for one in seen if one.run.kind == "usual"]
    orders = list(roundings(variant))
    near: dict[bool, bool] = {}
    for coarse in ("", *COARSE):
        for order in orders:
            one = Variant(variant.rule, order.conventions, coarse)
            narrow = bool(coarse) or any(not row.same for row in one.conventions if is_rounding(row))
            if narrow not in near:
                of = _coarse(variant) if narrow else variant
                near[narrow] = all(_near(of, x) for x in worst_first)
            if near[narrow]:
                measure = Judge(one).measure(worst_first, stop=1)
                if measure.fits:
                    return one, measure
        if not coarse and usual and near.get(True):  # with what explains the usual numbers without coarse ones first
            orders.sort(key=lambda one: not Judge(one).measure(usual, stop=1).fits)
    return None


def _near(variant: Variant, one: Seen) -> bool:
    """Whether rounding may explain how far a variant is away: another order of evaluation has another bound, but not by much."""
    by_own = not variant.coarse and _distance(variant, one, Variant(variant.rule).bounded(one.run, one.dtype)[1]) <= APART
    return by_own or residual(one.params, *variant.bounded(one.run, one.dtype)) <= APART


def _coarse(variant: Variant) -> Variant:
    return Variant(variant.rule, variant.conventions, ALL)


FACTORS = ("lr", "eps", "weight_decay", "alpha")


def _factor(rule: str, variant: Variant, seen: Sequence[Seen], designed: Sequence[Seen]) -> Factor | None:
    """A hyperparameter of the nearest variant or of the rule, multiplied by a number that makes it fit, or held at one."""
    still = [one for one in designed if not one.run.lrs]
    for base in (Variant(rule), variant):
        for name in FACTORS:
            if name in base.golden.defaults and all(one.run.hyper.get(name) for one in still):
                factor = _fitted(base, name, still[:1])
                if factor is not None and abs(factor - 1) > 1e-6:
                    value = factor * still[0].run.hyper[name]
                    if _fit(base, [_multiplied(one, name, factor) for one in still]):
                        others = [one for one in seen if one.run.kind != "designed" and one.run.hyper.get(name)]
                        everywhere = _fit(base, [_multiplied(one, name, factor) for one in others])
                        held = not everywhere and _fit(base, [_holding(one, name, value) for one in others])
                        return Factor(name, factor, value if held else None)
                    if _fit(base, [_holding(one, name, value) for one in seen if one.run.hyper.get(name)]):
                        return Factor(name, factor, value)
    return None


def _fit(variant: Variant, seen: Sequence[Seen]) -> bool:
    return all(residual(one.params, *variant.bounded(one.run, one.dtype)) <= NEAR for one in seen)


def _holding(one: Seen, name: str, value: float) -> Seen:
    run = one.run._replace(hyper=dict(one.run.hyper) | {name: value}, lrs=() if name == "lr" else one.run.lrs)
    return one._replace(run=run)


def _multiplied(one: Seen, name: str, factor: float) -> Seen:
    return one._replace(run=one.run._replace(hyper=dict(one.run.hyper) | {name: one.run.hyper[name] * factor}))


def _fitted(variant: Variant, name: str, seen: Sequence[Seen]) -> float | None:
    """The factor, by a search over eight decades; None where none fits the designed numbers."""

    def distance(log: float) -> float:
        runs = [_multiplied(one, name, 10.0**log).run for one in seen]
        values = [trajectory(variant.golden, PLAIN, run, variant.hyper(run)) for run in runs]
        return sum(float(np.nansum(np.abs(one.params - value))) for one, value in zip(seen, values, strict=True))

    grid = np.linspace(-4, 4, 81)
    at = float(min(grid, key=distance))
    step = 0.1
    for _ in range(60):
        step /= 1.6
        at = min((at - step, at, at + step), key=distance)
    changed = [_multiplied(one, name, 10.0**at) for one in seen]
    return 10.0**at if _fit(variant, changed) else None
