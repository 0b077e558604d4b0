"""The state of a target, where it can be read: which array is which slot, and each step from the target's own state.

A trajectory's bound grows with its length. From the state that the target itself had, only one step's rounding is between the two.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xopt.conformance.arithmetic.bounded import BoundedArithmetic, exact
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, HOST
from xopt.conformance.compare.reference import Reference
from xopt.conformance.thirdparty.measure import Judge, Seen
from xopt.conformance.thirdparty.variants import Variant, is_rounding, residual, roundings, states

SLACK = 16.0
"""An array is a slot where it is this many bounds away, at most: another order of evaluation has another bound. What decides is
the step from it."""

Read = Sequence[Mapping[str, Any]]
"""The arrays by name after each step, one number in place of an array where it is one."""


class Followed(NamedTuple):
    """What a run shows of a target's state."""

    names: dict[str, str]  # by slot, or by slot and place in it: what the target calls it
    missing: list[str]  # slots that nothing which can be read is
    ratio: float  # the largest error/bound of a step from the target's own state; NaN where that was not compared
    where: str = ""  # of it, in words
    order: Variant | None = None  # the evaluation order that this was compared with


def followed(variant: Variant, seen: Seen, read: Read) -> Followed:
    """Compares with a variant. ``read`` has the state after each step of what was ``seen``."""
    read = [{**one, **{f"-{name}": -x for name, x in one.items()}} for one in read]  # as Keras's velocities are
    slots = _slots(variant, seen)
    names = {slot: name for slot, steps in slots.items() if (name := _named(steps, read))}
    missing = [slot for slot in slots if slot not in names]
    if missing or variant.coarse:
        return Followed(names, missing, np.nan)
    rounded = Variant(variant.rule, [row for row in variant.conventions if not is_rounding(row)])
    found = []
    for order in (variant, *roundings(rounded)):  # a trajectory's bound has room for several
        found.append(Followed(names, missing, *_from_its_own_state(order, seen, read, names), order))
        if not found[-1].ratio > 1:
            return found[-1]
    return found[0]


def _slots(variant: Variant, seen: Seen) -> dict[str, list[tuple[Any, Any]]]:
    """Of each slot, the value and the bound after each step; of a slot that is several, of each of them."""
    (n, compute), hyper = variant.arithmetic(seen.dtype), variant.hyper(seen.run)
    found: dict[str, list[tuple[Any, Any]]] = {}
    steps = states(variant.golden, n, seen.run, hyper, lambda x: exact(x, compute))
    truth = states(variant.golden, BoundedArithmetic(), seen.run, hyper, lambda x: exact(x, HOST))
    for ours, true in zip(steps, truth, strict=True):
        for slot, x, y in zip(variant.golden.slots, ours[1:], true[1:], strict=True):
            for i, (one, other) in enumerate(zip(x, y, strict=True) if isinstance(x, tuple) else [(x, y)]):
                name = f"{slot}[{i}]" if isinstance(x, tuple) else slot
                found.setdefault(name, []).append((other.value, one.error + other.error))
    return found


def _named(steps: Sequence[tuple[Any, Any]], read: Read) -> str | None:
    """The name of what is nearest, if it is near enough."""
    away = {}
    for name in read[0]:
        arrays = [one.get(name) for one in read]
        if all(x is not None and x.size == np.size(value) for x, (value, _) in zip(arrays, steps, strict=True)):
            pairs = [
                (np.resize(np.asarray(x), np.shape(value)), value, bound) for x, (value, bound) in zip(arrays, steps, strict=True)
            ]
            away[name] = max(residual(x, value, SLACK * bound) for x, value, bound in pairs)
    nearest = min(away, key=away.__getitem__, default=None)
    return nearest if nearest is not None and away[nearest] <= 1 else None


def _from_its_own_state(variant: Variant, seen: Seen, read: Read, names: Mapping[str, str]) -> tuple[float, str]:
    rule = Judge(variant).planted
    if rule is None or rule.slots != variant.golden.slots:
        return np.nan, ""
    run, compute = seen.run, FLOAT_FORMATS[seen.dtype]
    reference = Reference(rule, dict(run.hyper), compute, compute, traced=False, golden=variant.golden)
    start = rule.bind(**run.hyper).init(np.asarray(run.params, np.float64))
    before, worst, where = tuple(start[:-1]), 0.0, ""
    for t, (grad, params, state) in enumerate(zip(run.grads, seen.params, read, strict=True), start=run.idle + 1):
        columns = [_column(slot, state, names) for slot in rule.slots]
        after = (params, *map(_kept, start[1:-1], columns))
        reference.restart(before)
        for one in reference.step(grad, t, after):
            ratio = float(np.max(np.nan_to_num(one.ratio, nan=0.0), initial=0.0))
            if ratio > worst:
                worst, where = ratio, f"{names.get(one.name, one.name)} in step {t} of run {run.name!r}"
        before = after
    return worst, where


def _kept(start: Any, column: Any) -> Any:
    """None where the rule keeps nothing, as of a decay of 0."""
    if isinstance(start, tuple):
        return tuple(map(_kept, start, column))
    return None if start is None else column


def _column(slot: str, state: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    """A slot as a reference has it: an array, a number, or a tuple of arrays."""
    if slot in names:
        x = state[names[slot]]
        return x if x.ndim and x.size > 1 else float(np.ravel(x)[0])
    return tuple(state[name] for key, name in names.items() if key.startswith(f"{slot}["))
