"""Subjects that are wrong by a known share of the bound, and what stands in for a candidate."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from xopt.conformance.arithmetic.bounded import Bounded
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, arithmetic_of
from xopt.conformance.compare import comparison as comparison_module
from xopt.conformance.compare.candidate import Candidate, split
from xopt.conformance.compare.check import check_rule
from xopt.conformance.compare.reference import Columns, Reference
from xopt.conformance.faults.planting import copied, updating
from xopt.conformance.inputs.trajectories import Part
from xopt.conformance.results import Cell, LawResult
from xopt.conformance.stateful import check_machine
from xopt.conformance.target import Effort, Implementations, Target
from xopt.rule import Rule
from xopt.rules import RULES

RIGHT = (0.5, 0.95)
"""Shares of the bound that a correct library may be off by."""
TOO_FAR = (1.05, 2.0, 3.9, 90.0)
"""And those that it may not."""

PLACES = ("numpy", "array_api_strict")
TARGETS = [Target(name, "cpu", "eager") for name in PLACES]


class Changed(Candidate):
    """A candidate whose states on array_api_strict are others, part by part; right on other backends."""

    def run_parts(
        self, params: Any, grads: list[Any], hyper: dict[str, Any], steps_before: int = 0, parts: Sequence[Part] = ()
    ) -> list[list[Columns]]:
        found = super().run_parts(params, grads, hyper, steps_before, parts)
        if self.backend.name != PLACES[1]:
            return found
        places = dict(split(np.arange(len(params)), self.shapes))
        parts = parts or [Part(list(self.shapes), hyper, {})]
        at = [np.concatenate([np.ravel(places[leaf]) for leaf in part.leaves]) for part in parts]
        return [
            self.changed(states, [g[own] for g in grads], part.hyper, steps_before)
            for states, own, part in zip(found, at, parts, strict=True)
        ]

    def changed(self, states: list[Columns], grads: list[Any], hyper: dict[str, Any], steps_before: int) -> list[Columns]:
        raise NotImplementedError


class Off(Changed):
    """The last parameters are so many bounds from the truth."""

    bounds = 0.0
    moved = slice(None)
    """Which numbers are."""

    def changed(self, states: list[Columns], grads: list[Any], hyper: dict[str, Any], steps_before: int) -> list[Columns]:
        compute = FLOAT_FORMATS[arithmetic_of(self.dtype)]
        known = Reference(self.rule, hyper, compute, FLOAT_FORMATS[self.dtype], False)
        known.restart(states[-2])
        comparison = known.step(grads[-1], steps_before + len(grads), states[-1])[0]
        params, truth = np.array(states[-1][0]), known.truth[0]
        truth = truth.value if isinstance(truth, Bounded) else truth.astype(np.float64)
        if params.size > 1 or self.moved == slice(None):  # of a leaf of one number that is all of it
            params[self.moved] = (truth + self.bounds * comparison.bound)[self.moved]
        return [*states[:-1], (params, *states[-1][1:])]


@contextmanager
def standing_in(one: type[Candidate]) -> Iterator[None]:
    """Has ``one`` stand in for candidates."""
    names = vars(comparison_module)
    right = names["Candidate"]
    names["Candidate"] = one
    try:
        yield
    finally:
        names["Candidate"] = right


def off(bounds: float, moved: slice = slice(None)) -> AbstractContextManager[None]:
    """Candidates are so many bounds off."""
    return standing_in(type("Off", (Off,), {"bounds": bounds, "moved": moved}))


def compared(rule: str = "sgd", dtype: str = "float32", examples: int = 3, **planted: Any) -> list[Cell]:
    return check_rule(rule, dtype, TARGETS, Effort(examples, pool=4, shrink=False), Implementations(**planted))


def changed(name: str, change: Callable[[Any], Any]) -> dict[str, Rule[Any, Any]]:
    """A rule whose new parameters are ``change`` of the right ones."""
    right = RULES[name]

    def update(*arguments: Any) -> Any:
        new = right.elementwise(*arguments)
        return (change(new[0]), *new[1:])

    return {**RULES, name: updating(right, update)}


def stepping(change: Callable[[Any, Any, Any], Any]) -> dict[str, Rule[Any, Any]]:
    """AdamW whose step gives ``change(state, grad, new state)``."""
    wrong = copied(RULES["adamw"])
    wrong.step = lambda state, grad, **hyper: change(state, grad, RULES["adamw"].step(state, grad, **hyper))
    return {"adamw": wrong}


def programs(rules: Any, examples: int = 15, name: str = "adamw") -> LawResult:
    (result,) = check_machine(name, "float32", TARGETS[:1], Effort(examples, shrink=False), Implementations(rules))
    return result


class Turned(Changed):
    """The last step goes the other way."""

    def changed(self, states: list[Columns], *_: Any) -> list[Columns]:
        before, after = states[-2][0], states[-1][0]
        return [*states[:-1], (2 * before - after, *states[-1][1:])]


class Flushing(Changed):
    """Subnormal numbers of the state become 0."""

    def changed(self, states: list[Columns], *_: Any) -> list[Columns]:
        return [tuple(c if c is None else np.where(np.abs(c) < 2.0**-126, 0.0, c) for c in state) for state in states]


class Raising(Changed):
    """One that fails."""

    def changed(self, *_: Any) -> list[Columns]:
        msg = "illegal memory access"
        raise RuntimeError(msg)
