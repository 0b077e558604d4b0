"""What a leaf costs: trees of many small leaves, for every rule, with its defaults and with decays of 0, whose slots are None."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from xopt.backends import fuse
from xopt.rule import Rule
from xopt.rules import RULES

MANY, FEW, MOST = 1_000, 100, 10_000
"""Leaves of a tree; and between how many it is seen whether the cost of one grows."""
ROUNDS = 9
BESIDE = "ademamix"
"""The rule whose cost others are compared with, in the same round."""


class LeafCost(NamedTuple):
    rule: str
    form: str  # of the state: "defaults" or "decays of 0"
    mode: str  # "eager" or "fused"
    microseconds: float  # for a leaf of ten float32 numbers in NumPy, in a tree of a thousand; median
    ratio: float  # over that of AdEMAMix with its defaults; median over rounds
    growth: float  # of the cost of a leaf, from a tree of 100 to one of 10,000; median over rounds


def leaf_costs(rule_name: str) -> list[LeafCost]:
    """Times steps of trees, in turn with those of AdEMAMix."""
    rule, found = RULES[rule_name], []
    none = {name: (0.0, 0.5) if rule.ranges[name].sequence else 0.0 for name in rule.of_init if not name.endswith("_warmup")}
    for form, hyper in (("defaults", {}), ("decays of 0", none)) if none else (("defaults", {}),):
        for mode in ("eager", "fused"):
            many, few, most = (_stepper(rule, hyper, mode, leaves) for leaves in (MANY, FEW, MOST))
            beside = _stepper(RULES[BESIDE], {}, mode, MANY)
            times = [(many(), beside(), few(), most()) for _ in range(ROUNDS)]
            own, others, small, large = zip(*times, strict=True)
            ratio = statistics.median(a / b for a, b in zip(own, others, strict=True))
            growth = statistics.median(b / a for a, b in zip(small, large, strict=True))
            found.append(LeafCost(rule_name, form, mode, statistics.median(own) * 1e6, ratio, growth))
    return found


def _stepper(rule: Rule[Any, Any], hyper: dict[str, Any], mode: str, leaves: int) -> Callable[[], float]:
    """Takes a few steps of a tree, with fresh gradients, and returns the seconds of one leaf."""
    step: Callable[..., Any] = fuse(rule) if mode == "fused" else rule.step
    state = rule.init({f"w{i}": np.ones(10, np.float32) for i in range(leaves)}, **hyper)
    number = max(1, MANY // leaves)
    trees = [{name: np.full(10, 0.5, np.float32) for name in state.params} for _ in range(number)]
    for _ in range(2):
        state = step(state, trees[0], **hyper)

    def timed() -> float:
        nonlocal state
        began = time.perf_counter()
        for grad in trees:
            state = step(state, grad, **hyper)
        return (time.perf_counter() - began) / (number * leaves)

    return timed
