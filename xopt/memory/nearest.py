"""The settings with which one rule remembers most like another."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from xopt.checks import Interval, shown
from xopt.memory.recall import Memory, of


class Nearest(NamedTuple):
    """What ``memory.nearest`` found.

    Attributes
    ----------
    memory
        The other rule with its settings.
    hyper
        Those that were sought, by name.
    lr
        By which the target's learning rate is multiplied, so that both take the same steps under a constant gradient, in the end.
    distance
        What stays different: the largest difference, at any age, of the shares of the mass that older gradients have; in [0, 1]. It
        is also how far the two are apart at most, over the step in the end, after a gradient that begins.
    age
        At which age that is.
    """

    memory: Memory
    hyper: dict[str, Any]
    lr: float
    distance: float
    age: int


def nearest(target: Memory, rule: Any, /, **fixed: Any) -> Nearest:
    """The settings of a rule whose memory is nearest to the target's, long after the start.

    Parameters
    ----------
    target
        What ``memory.of`` returns.
    rule
        The other rule. All of its hyperparameters that change what it remembers are sought: decays, and weights of averages.
    **fixed
        Those that are not sought, with their values; for a rule with a sequence of decays, how many there are.

    Returns
    -------
    Nearest
        Of memories alone: a root that divides, or a sign, is no part of them. It has the least squares of the differences in the
        share of the mass that is older than an age, at ages on a logarithmic scale, by the method of Levenberg and Marquardt from
        several starts.

    Raises
    ------
    TypeError, ValueError
        For a target that is none, or whose weights sum up to 0, and for a rule without anything to be sought.
    """
    if type(target) is not Memory:
        msg = f"memory.nearest: target must be what memory.of returns, got {shown(target)}"
        raise TypeError(msg)
    other = of(rule, **fixed)
    ages = _scale(target)
    wanted = target.share_older(ages)
    scale = target.mass()

    def apart(memory: Memory) -> Any:
        return memory.share_older(ages) - wanted

    coordinates = _coordinates(other, fixed, ages)
    if not coordinates:
        msg = (
            f"memory.nearest: {other.rule.name} has no hyperparameter that changes what it remembers, but for those that are fixed"
        )
        raise ValueError(msg)

    def at(x: Sequence[float]) -> Memory:
        hyper = dict(fixed)
        for one, value in zip(coordinates, x, strict=True):
            one.put(hyper, other.hyper, value)
        return of(other.rule, **hyper)

    def residuals(x: Any) -> Any:
        try:
            found = apart(at(x))
        except (ValueError, np.linalg.LinAlgError):  # out of range, or without mass
            return np.full(len(ages), np.inf)
        return found if np.all(np.isfinite(found)) else np.full(len(ages), np.inf)

    starts = sorted(_starts(coordinates, target), key=lambda x: float(np.sum(residuals(x) ** 2)))[:_REFINED]
    best = min((_least_squares(residuals, x) for x in starts), key=lambda x: float(np.sum(residuals(x) ** 2)))
    found = at(best)
    dense = np.unique(np.concatenate([ages, np.geomspace(1, ages[-1] + 1, 2000).astype(np.int64) - 1]))
    differences = np.abs(found.share_older(dense) - target.share_older(dense))
    where = int(np.argmax(differences))
    sought = {one.name: found.hyper[one.name] for one in coordinates}
    return Nearest(found, sought, scale / found.mass(), float(differences[where]), int(dense[where]))


_REFINED = 4


def _scale(target: Memory) -> Any:
    """Ages from 0 to where next to nothing is older, on a logarithmic scale."""
    last = max(32.0, 16.0 * target.half_life() / math.log(2.0))
    return np.unique(np.geomspace(1.0, last, 96).astype(np.int64) - 1)


class _Coordinate(NamedTuple):
    """One number that is sought, of a scale on which equal steps matter alike."""

    name: str
    place: int | None  # in a sequence
    interval: Interval
    start: float

    @property
    def is_decay(self) -> bool:
        return self.interval.high == 1.0 and self.interval.text.endswith(")")

    def to(self, value: float) -> float:
        if self.is_decay:
            return -math.log1p(-value)  # of the gain: a memory ten times as long is always as far away
        return math.sqrt(value) if self.interval.low == 0.0 and self.interval.high == math.inf else value

    def back(self, x: float) -> float:
        if self.is_decay:
            return min(-math.expm1(-x), math.nextafter(1.0, 0.0)) if x > 0 or self.interval.low < 0 else 0.0
        value = x * x if self.interval.low == 0.0 and self.interval.high == math.inf else x
        return min(max(value, self.interval.low), self.interval.high)

    def put(self, hyper: dict[str, Any], before: dict[str, Any], x: float) -> None:
        value = self.back(x)
        if self.place is None:
            hyper[self.name] = value
        else:
            given = list(hyper.get(self.name, before[self.name]))
            given[self.place] = value
            hyper[self.name] = tuple(given)


_NOT_MEMORY = {"lr", "weight_decay", "eps", "eps_root"}


def _coordinates(other: Memory, fixed: dict[str, Any], ages: Any) -> list[_Coordinate]:
    """What changes the memory, of what is not fixed; of a sequence that is fixed, what it has but decays of 0 is the start."""
    found = []
    for name, interval in other.rule.ranges.items():
        value = other.hyper[name]
        if name in _NOT_MEMORY or interval.optional or callable(value):
            continue
        if interval.sequence:
            single = Interval(interval.text)
            found += [_Coordinate(name, i, single, one) for i, one in enumerate(value) if one > 0]
        elif name not in fixed:
            found.append(_Coordinate(name, None, interval, value))
    return [one for one in found if _matters(other, one, fixed, ages)]


def _matters(other: Memory, one: _Coordinate, fixed: dict[str, Any], ages: Any) -> bool:
    hyper = dict(fixed)
    one.put(hyper, other.hyper, one.to(one.start) * 0.75 + 0.01)
    return bool(np.any(of(other.rule, **hyper).share_older(ages) != other.share_older(ages)))


def _starts(coordinates: list[_Coordinate], target: Memory) -> list[list[float]]:
    """The rule's defaults, and decays as long as those of the target."""
    times = [target.half_life() / math.log(2.0), max(target.mean_age(), 0.1), max(target.half_mass_age() / 8.0, 0.1)]
    choices = []
    for one in coordinates:
        own = [one.to(one.start)]
        choices.append([*own, *(math.log1p(time) for time in times)] if one.is_decay else [*own, one.to(0.5)])
    every = [list(x) for x in product(*choices)]
    return every[:: max(1, len(every) // _STARTS)]


_STARTS = 64


def _least_squares(residuals: Callable[[Any], Any], start: Sequence[float]) -> Any:
    """By Levenberg and Marquardt, with derivatives by differences."""
    x, damping = np.array(start, dtype=np.float64), 1e-3
    r = residuals(x)
    for _ in range(100):
        steps = 1e-6 * np.maximum(np.abs(x), 1e-2)
        jacobian = np.stack(
            [(residuals(x + h * e) - residuals(x - h * e)) / (2 * h) for h, e in zip(steps, np.eye(len(x)), strict=True)], 1
        )
        if not np.all(np.isfinite(jacobian)):
            return x
        normal, slope = jacobian.T @ jacobian, jacobian.T @ r
        while damping < 1e12:
            move = np.linalg.solve(normal + damping * np.diag(np.maximum(np.diag(normal), 1e-12)), -slope)
            new = residuals(x + move)
            if np.sum(new**2) < np.sum(r**2):
                break
            damping *= 8.0
        else:
            return x
        done = np.sum(r**2) - np.sum(new**2) < 1e-14 * np.sum(r**2) or np.sum(new**2) < 1e-28
        x, r, damping = x + move, new, max(damping / 8.0, 1e-14)
        if done:
            return x
    return x
