"""How far what a target computed is from a variant of a rule, as a share of the bound on what a correct library may compute."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from xopt.conformance.arithmetic.bounded import Bounded, BoundedArithmetic, exact
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS
from xopt.conformance.compare.reference import Columns, Comparison, Reference, _comparison
from xopt.conformance.faults.fault import Fault
from xopt.conformance.faults.planting import plant
from xopt.conformance.thirdparty.probe import Run
from xopt.conformance.thirdparty.variants import BY_NAME, Variant, in_some_order
from xopt.rules import RULES


class Seen(NamedTuple):
    """What a target computed in a run: its parameters after each step, in one dtype."""

    run: Run
    dtype: str
    params: Any


class Place(NamedTuple):
    """The number that is farthest beyond its bound, or the first beyond it."""

    run: Run
    dtype: str
    step: int
    element: int
    found: float
    expected: float
    bound: float


class Measure(NamedTuple):
    """Of one variant, over all runs."""

    ratio: float  # the largest error/bound
    ulps: float  # the largest error, in units in the last place at the scale of the step
    vacuous: int  # numbers of which the bound says nothing
    numbers: int
    worst: Place | None
    first: Place | None  # beyond its bound after the fewest steps

    @property
    def fits(self) -> bool:
        return self.ratio <= 1 and self.vacuous < self.numbers


class Judge:
    """Measures a variant."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant

    def measure(self, seen: Sequence[Seen], stop: float = np.inf) -> Measure:
        """``stop`` ends it where a ratio is larger."""
        ratio = ulps = 0.0
        vacuous = numbers = 0
        worst = first = None
        for one in seen:
            plain = self.variant.values(one.run)
            for t, comparison in enumerate(self._compared(one), start=1):
                found = np.where(np.isnan(one.params[t - 1]) & np.isnan(plain[t - 1]), 0.0, comparison.ratio)
                vacuous += int(np.sum(np.isnan(found)))
                numbers += found.size
                found = np.nan_to_num(found, nan=0.0, posinf=np.inf)
                at = int(np.argmax(found))
                ulps = max(ulps, float(np.max(np.where(np.isnan(plain[t - 1]), 0.0, comparison.ulps))))
                if found[at] > ratio or worst is None:
                    ratio, worst = float(found[at]), self._place(one, t, at, comparison)
                if found[at] > 1 and (first is None or t < first.step):
                    first = self._place(one, t, at, comparison)
            if ratio > stop:
                break
        return Measure(ratio, ulps, vacuous, numbers, worst, first)

    def _place(self, one: Seen, t: int, at: int, comparison: "_Params") -> Place:
        return Place(
            one.run, one.dtype, t, at, float(one.params[t - 1][at]), float(comparison.near[at]), float(comparison.bound[at])
        )

    def _compared(self, one: Seen) -> Iterator["_Params"]:
        if not self.variant.coarse and self.planted is not None:
            with contextlib.suppress(Exception):  # the edits of a rule may not go together where those of its golden do
                yield from list(self._followed(one))
                return
        value, bound = self.variant.bounded(one.run, one.dtype)
        for now, near, room in zip(one.params, value, bound, strict=True):
            yield _Params.of(now, near, room, one.dtype)

    @cached_property
    def planted(self) -> Any:
        """The rule with the same conventions, which has an evaluation order of its own; None where its edits do not go together."""
        if not self.variant.conventions:
            return RULES[self.variant.rule]
        return _planted(self.variant.rule, tuple(row.name for row in self.variant.conventions))

    def _followed(self, one: Seen) -> Iterator["_Params"]:
        key = self.variant, one.run, one.dtype
        if key in _FOLLOWED:
            yield from _FOLLOWED[key].again(one)
            return
        compute = FLOAT_FORMATS[one.dtype]
        hyper = dict(one.run.hyper)
        follower = _Follower(self.planted, hyper, compute, compute, traced=False, golden=self.variant.golden)
        state = self.planted.bind(**hyper).init(np.asarray(one.run.params, np.float64))
        follower.restart(tuple(state[:-1]))
        for i, (grad, after) in enumerate(zip(one.run.grads, one.params, strict=True)):
            if one.run.lrs:
                follower.change(one.run.lrs[i])
            (comparison,) = follower.step(grad, one.run.idle + i + 1, (after,))
            yield comparison  # type: ignore[misc]
        if len(follower.kept) == len(one.params) and np.all(np.isfinite(one.params)):  # else what follows depends on the candidate
            if len(_FOLLOWED) >= MOST_FOLLOWED:
                del _FOLLOWED[next(iter(_FOLLOWED))]
            _FOLLOWED[key] = follower


@lru_cache(maxsize=128)
def _planted(rule: str, names: tuple[str, ...]) -> Any:
    try:
        return in_some_order(
            [BY_NAME[name] for name in names],
            lambda order: plant(Fault(" and ".join(names), rule, tuple(edit for row in order for edit in row.in_rule), "")).rules[
                rule
            ],
        )
    except Exception:  # noqa: BLE001 - the text of an edit may be gone, or what is left be no rule
        return None


class _Params(NamedTuple):
    """A comparison with what was compared with."""

    near: Any
    error: Any
    bound: Any
    ulps: Any
    ratio: Any

    @classmethod
    def of(cls, after: Any, near: Any, bound: Any, dtype: str) -> "_Params":
        with np.errstate(all="ignore"):
            error = np.where((after == near) | (np.isnan(after) & np.isnan(near)), 0.0, np.abs(after - near))
            ulps = FLOAT_FORMATS[dtype].in_ulps(error, after, near)
            return cls(near, error, bound, ulps, Comparison("params", error, bound, ulps, False).ratio)


class _Follower(Reference):
    """A reference of which parameters alone are compared; with a bound, too, for what float64 computes of the truth."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.truth_in = BoundedArithmetic()
        self.kept: list[Any] = []  # the parameters of each comparison: one a step, but where a sign is open
        self._truth_hyper = self._paper_hyper.copy()

    def change(self, lr: float) -> None:
        """Another learning rate from here on."""
        self._coefficients = {}
        self._ours_hyper["lr"] = exact(lr)
        self._paper_hyper["lr"] = BoundedArithmetic.number(lr)
        self._truth_hyper["lr"] = self.truth_in.number(lr)

    def _compare(self, results: tuple[Columns, Columns, Columns], after: Columns) -> Iterator[Any]:
        ours, paper, truth = (columns[0] for columns in results)
        self.kept.append(((ours,), (paper,), (truth,)))
        found = _comparison("params", self.store, self.before[0], after[0], ours, paper, truth)
        near = truth.value if isinstance(truth, Bounded) else np.asarray(truth, np.float64)
        yield _Params(near, found.error, found.bound, found.ulps, found.ratio)

    def again(self, one: Seen) -> Iterator[_Params]:
        """The comparisons with another candidate."""
        self.before = (np.asarray(one.run.params, np.float64),)
        for results, after in zip(tuple(self.kept), one.params, strict=True):
            yield from self._compare(results, (after,))
            self.before = (after,)
        del self.kept[len(one.params) :]


MOST_FOLLOWED = 512
_FOLLOWED: dict[tuple[Variant, Run, str], _Follower] = {}
"""Of variants that have been followed through a run, the last so many."""
