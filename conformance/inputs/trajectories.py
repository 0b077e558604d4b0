"""Trajectories drawn by Hypothesis: a start, gradients, the steps taken before, and groups of leaves."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from xopt.conformance.inputs.hyperparameters import is_decay
from xopt.conformance.inputs.words import Choices, decode, drawn
from xopt.rule import Rule

ROWS = 16
"""Trajectories in one example: a rule is elementwise, so that each row of the leaves is a trajectory."""
SHAPES: dict[str, tuple[int, ...]] = {"weight": (ROWS, 2, 2), "empty": (ROWS, 0), "bias": (ROWS, 2), "scale": ()}
"""The leaves of every example: fixed, because libraries compile anew for each shape."""
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())
PARTS = (("weight",), ("empty", "bias"), ("scale",))
"""The groups of leaves that differ in hyperparameters or in carried numbers, where an example has groups."""

COMPILED = 3
"""Compiled steps run the first so many settings of a pool, and a third of the examples have one of them: each is compiled anew."""

LARGEST_COUNT = 2**31 - 64
"""Steps taken before an example at most, that a count holds which a compiler made an array: its integers may have 32 bits."""
CRITICAL_COUNTS = (2**8, 2**15, 2**16, 2**24, 2**31, 2**32, 1_000, 10_000, 100_000, 256_000)
"""Counts at which a count may wrap or lose digits, and typical ends of warm-ups."""

EXPONENTS = {"float16": (-14, 4), "bfloat16": (-60, 60), "float32": (-60, 60), "float64": (-500, 500)}
"""Of gradients, as powers of two: as far as their squares stay finite and, but for the last factors, normal."""


class Part(NamedTuple):
    """Leaves that share their hyperparameters and the numbers that they carry."""

    leaves: Sequence[str]
    hyper: dict[str, Any]  # those that differ from the defaults
    carried: dict[str, float]  # what the state's numbers begin with, where not with their first value


class Trajectory(NamedTuple):
    """Start and gradients as float64 vectors of numbers that the dtype holds; ``rows`` trajectories side by side."""

    setting: int  # the place of its hyperparameters in the pool
    hyper: dict[str, Any]  # those that differ from the defaults
    params: Any
    grads: list[Any]
    cancels: list[Any]  # where a gradient is to be replaced by the one that cancels the rule's memory
    rows: int = 1
    steps_before: int = 0  # steps before the first, of which the slots remember nothing
    parts: Sequence[Part] = ()  # groups of leaves; none where all leaves have ``hyper``


def own_counts(rule: Rule[Any, Any], hyper: dict[str, Any]) -> list[int]:
    """Step counts at which a hyperparameter has its effect: ends and middles of warm-ups, and time constants of the decays."""
    found = []
    for name, value in (rule.defaults | hyper).items():
        interval = rule.ranges[name]
        if interval.optional:
            found += [math.ceil(value), math.ceil(value / 2)] if value and value < 2**53 else []
        elif is_decay(interval):
            spans = [1 / (1 - abs(decay)) for decay in (value if interval.sequence else [value])]
            found += [round(span * share) for span in spans for share in (1, 8)]
    return [count for count in found if 0 < count < 2**52]  # a float holds them all


def count(choices: Choices, own: Sequence[int]) -> int:
    """Steps taken before an example: none, a few, any up to 2**41, or so many that a border comes in its first steps."""
    kind = choices.pick(("none", "few", "late", "late", "border", "own", "own", "own"))
    if kind == "few":
        return choices.below(101)
    if kind == "late":
        bits = 7 + choices.below(34)
        return int(2**bits) + choices.below(2**bits)
    if kind == "none" or (kind == "own" and not own):
        return 0
    return max(0, int(choices.pick(CRITICAL_COUNTS if kind == "border" else own)) - choices.below(4))


def trajectories(rule: Rule[Any, Any], pool: list[dict[str, Any]], dtype: str, longest: int) -> st.SearchStrategy[Trajectory]:
    """Examples of 1 to ``longest`` steps. Each element is one word, so that Hypothesis shrinks towards zeros."""

    def trajectory(example: tuple[Choices, Any]) -> Trajectory:
        choices, vectors = example
        setting = choices.below(len(pool) if choices.below(3) else min(COMPILED, len(pool)))
        hyper = pool[setting]
        steps_before = count(choices, own_counts(rule, hyper))
        steps = 1 + choices.below(longest)
        parts = _parts(choices, rule, pool, hyper)
        params, *grads = vectors[: steps + 1]
        return Trajectory(
            setting,
            hyper,
            decode(params, dtype, (-10, 4)),
            [decode(g, dtype, EXPONENTS[dtype]) for g in grads],
            [g & 7 == 7 for g in grads],
            ROWS,
            steps_before,
            parts,
        )

    return drawn(longest + 1, SIZE).map(trajectory)


def _parts(choices: Choices, rule: Rule[Any, Any], pool: list[dict[str, Any]], hyper: dict[str, Any]) -> Sequence[Part]:
    """The groups of leaves. A third of the examples, or more, have groups that differ in hyperparameters or carried numbers."""
    kind = choices.pick(("one", "one", "hyper", "carried", "both") if rule.carried else ("one", "one", "hyper"))
    if kind == "one":
        return ()
    hypers = [hyper] * len(PARTS)
    if kind != "carried":  # the last part has those of the first again, where it carries something else
        others = [choices.pick(pool) for _ in PARTS[1 : None if kind == "hyper" else -1]]
        hypers[1 : 1 + len(others)] = others
        one = {name: value for name, value in hyper.items() if rule.ranges[name].sequence}  # no tree: the same for all
        hypers = [{name: value for name, value in h.items() if not rule.ranges[name].sequence} | one for h in hypers]

    def number() -> float:
        return choices.pick((1.0, 0.5, 2.0**-30)) if choices.below(2) else choices.below(2**53 + 1) / 2**53

    carried = rule.carried if kind != "hyper" else ()
    return [Part(leaves, h, {slot: number() for slot in carried}) for leaves, h in zip(PARTS, hypers, strict=True)]
