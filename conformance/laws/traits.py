"""Traits: what a rule's program and hyperparameters show of it, by which laws choose their rules.

A law that is of every rule with a trait holds of a new rule as well, which no list names.
"""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from xopt.program import Operation, Program, is_linear
from xopt.rule import Rule

AnyRule = Rule[Any, Any]


class Trait(NamedTuple):
    """Something that rules have or have not."""

    name: str
    of: Callable[[AnyRule], bool]


ALIKE = "add", "subtract", "maximum", "minimum", *("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")


@cache
def degrees(rule: AnyRule) -> dict[str, int] | None:
    """The power of a factor of the gradients that each array of the state is multiplied by; None where there is no such power.

    A number that is added to an array, such as eps, is taken to have a factor like it.
    """
    program = rule.program
    slots = [name for name in program.writes if name != "params"]
    for params, *own in product((0, 1), *[(1, 2, 0)] * len(slots)):
        known = {"params": params, "grad": 1, **dict(zip(slots, own, strict=True))}
        if _consistent(program, known):
            return {name: known[name] for name in program.writes}
    return None


def _consistent(program: Program, known: Mapping[str, int]) -> bool:
    """Whether every sum is of things with like factors, and every array gets what has its own."""
    found: dict[str, float | None] = dict.fromkeys(program.coefficients) | dict(known)
    for result, name, operands in program.operations:
        powers = [found[x] if isinstance(x, str) else None for x in operands]
        some = [power for power in powers if power is not None]
        if name in ALIKE or name == "where":
            alike = some[1:] if name == "where" else some
            if len(set(alike)) > 1:
                return False
            found[result] = alike[0] if name in ("add", "subtract", "maximum", "minimum", "where") else 0
        elif name == "divide":
            found[result] = (powers[0] or 0) - (powers[1] or 0)
        elif name == "sqrt":
            found[result] = some[0] / 2
        else:
            found[result] = 0 if name == "sign" else sum(some)
    return all(found[new] == known[old] for old, new in program.writes.items())


@cache
def parities(rule: AnyRule) -> dict[str, int] | None:
    """1 or -1 for each array of the state: its factor when params and gradients are negated. None where there is none."""
    program = rule.program
    slots = [name for name in program.writes if name != "params"]
    for own in product((-1, 1), repeat=len(slots)):
        known = {"params": -1, "grad": -1, **dict(zip(slots, own, strict=True))}
        if _odd(program, known):
            return {name: known[name] for name in program.writes}
    return None


def _odd(program: Program, known: Mapping[str, int]) -> bool:
    found = dict.fromkeys(program.coefficients, 1) | dict(known)
    for result, name, operands in program.operations:
        signs = [found[x] if isinstance(x, str) else 1 for x in operands]
        if name in ("multiply", "divide"):
            found[result] = signs[0] * signs[1]
        elif name in ("negative", "sign"):
            found[result] = signs[0]
        elif name == "abs":
            found[result] = 1
        elif len(set(signs)) > 1 or (name not in ("add", "subtract") and -1 in signs):
            return False
        else:
            found[result] = signs[0]
    return all(found[new] == known[old] for old, new in program.writes.items())


@cache
def averages(rule: AnyRule) -> dict[str, str]:
    """The slots that are averages, ``mean + gain * (value - mean)``, of gradients or of their squares, with their decays."""
    by_result = {operation.result: operation for operation in rule.program.operations}
    found = {}
    for slot in rule.schema:
        value = _averaged(slot.name, by_result, rule.program.writes.get(slot.name, ""))
        gradient = value == "grad" or (value in by_result and by_result[value][1:] == ("multiply", ("grad", "grad")))
        decay = _decay_of(rule, by_result, slot.name) if gradient else None
        if decay is not None:
            found[slot.name] = decay
    return found


def _averaged(slot: str, by_result: Mapping[str, Operation], new: str) -> str:
    """What a slot is the average of; nothing where it is none."""
    added = by_result.get(new)
    if added is None or added.name != "add" or added.operands[0] != slot:
        return ""
    moved = by_result.get(str(added.operands[1]))
    if moved is None or moved.name != "multiply":
        return ""
    apart = by_result.get(str(moved.operands[1]))
    return str(apart.operands[0]) if apart is not None and apart.name == "subtract" and apart.operands[1] == slot else ""


def _decay_of(rule: AnyRule, by_result: Mapping[str, Operation], slot: str) -> str | None:
    """The decay whose complement is the gain of an average, at every step."""
    gain = str(by_result[str(by_result[rule.program.writes[slot]].operands[1])].operands[0]).removeprefix("c_")
    for name in rule.defaults:
        if f"{name}_warmup" in rule.defaults:
            continue
        changed = rule.coefficients(3, *rule.carried.values(), **rule.defaults | {name: 0.625}) if _is_decay(rule, name) else None
        if changed is not None and getattr(changed, gain) == 0.375:
            return name
    return None


def _is_decay(rule: AnyRule, name: str) -> bool:
    interval = rule.ranges[name]
    return not interval.sequence and interval.high == 1.0 and 0.625 in interval


def _counts(rule: AnyRule) -> bool:
    first, later = (rule.coefficients(t, *rule.carried.values(), **rule.defaults) for t in (1, 7))
    return bool(first != later)


def _shrinks(rule: AnyRule) -> bool:
    return DECAYED.of(rule) and degrees(rule) is not None and _reads_params_to_decay(rule)


def _reads_params_to_decay(rule: AnyRule) -> bool:
    """Whether the params are looked at where they shrink and where they move, and nowhere else."""
    last = rule.program.writes["params"]
    users = [(result, name, operands) for result, name, operands in rule.program.operations if "params" in operands]
    return all(result == last or (name == "multiply" and "c_weight_decay" in operands) for result, name, operands in users)


def _remembers_means(rule: AnyRule) -> bool:
    """Whether all slots are averages, whatever becomes of their decays, none of which is negative."""
    by_result = {operation.result: operation for operation in rule.program.operations}
    slots = [slot.name for slot in rule.schema if slot.number is None]
    positive = all(interval.low >= 0.0 for interval in rule.ranges.values() if interval.high == 1.0)
    return positive and bool(slots) and all(_averaged(name, by_result, rule.program.writes.get(name, "")) for name in slots)


def _remembers_gradients_alone(rule: AnyRule) -> bool:
    """Whether slots come of gradients and slots."""
    tainted = {"params"}
    for result, _, operands in rule.program.operations:
        if tainted & {*operands}:
            tainted.add(result)
    slots = [new for old, new in rule.program.writes.items() if old != "params"]
    return bool(slots) and not tainted & {*slots}


EVERY = Trait("every rule", lambda _: True)
LINEAR = Trait("linear in gradients and parameters", lambda rule: is_linear(rule.program.operations, rule.program.arrays))
ODD = Trait("goes the negated way from negated parameters on negated gradients", lambda rule: parities(rule) is not None)
SCALE_FREE = Trait("forgets the scale of gradients, with eps scaled along", lambda rule: (degrees(rule) or {}).get("params") == 0)
ADAPTIVE = Trait("divides by a root and eps", lambda rule: SCALE_FREE.of(rule) and "eps" in rule.defaults)
OF_SIGNS = Trait("forgets the scale of gradients, and has no eps", lambda rule: SCALE_FREE.of(rule) and "eps" not in rule.defaults)
TIMELESS = Trait("does not count steps", lambda rule: not _counts(rule))
COUNTING = Trait("counts steps, and divides by a root", lambda rule: _counts(rule) and ADAPTIVE.of(rule))
DECAYED = Trait("has weight decay", lambda rule: "weight_decay" in rule.defaults)
SHRINKING = Trait("has weight decay, and rests without gradients", _shrinks)
AVERAGING = Trait("has averages of gradients or of squares", lambda rule: bool(averages(rule)))
MEANS = Trait("remembers averages of gradients or of squares alone", _remembers_means)
TRANSLATED = Trait("reads its parameters to decay them alone", _reads_params_to_decay)
GRADIENT_MEMORY = Trait("remembers gradients alone", _remembers_gradients_alone)
CARRYING = Trait("carries numbers", lambda rule: bool(rule.carried))
