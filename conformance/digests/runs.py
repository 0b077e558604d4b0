"""Runs of a rule from fixed inputs, and the hash of their numbers."""

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np

from xopt.checks import Interval
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, round_to
from xopt.conformance.compare.candidate import Candidate, Shapes
from xopt.conformance.compare.reference import Columns
from xopt.conformance.inputs.hyperparameters import is_decay
from xopt.rule import Rule

SHAPES: Shapes = {"weight": (64, 63), "bias": (63,), "scale": ()}
SIZE = sum(math.prod(shape) for shape in SHAPES.values())
STEPS = 8
"""Of each of two runs, with the defaults and with another setting."""


def inputs(dtype: str) -> tuple[Any, list[Any]]:
    """Start and gradients as float64 vectors of numbers that ``dtype`` holds, from integers alone: the same everywhere, for ever.

    The gradients go over 14 decades, float16's over 7; one in 16 is zero. A float16 gradient is below an eighth of its
    parameter, so that no rule brings a parameter near zero, where float16 is subnormal: no number on the way may be one.
    """
    half = int(0.5 / FLOAT_FORMATS[dtype].unit)  # mantissas are whole numbers from here to twice this
    narrow = dtype == "float16"
    words = mixed(np.arange(2 * SIZE * (STEPS + 1), dtype=np.uint64)).reshape(STEPS + 1, 2, SIZE)
    sign = np.where(words[:, 0] >> np.uint64(63), -1.0, 1.0)
    mantissa = sign * (half + words[:, 0] % np.uint64(half)).astype(np.float64) / half
    place = (words[:, 1] >> np.uint64(32)).astype(np.int64)
    start = place[0] % 17 - (2 if narrow else 12)
    low, high = (-13, start - 4) if narrow else (-23, np.int64(23))  # exponents, as those of the start
    grads = np.ldexp(mantissa[1:], low + place[1:] % (high - low + 1))
    grads = np.where(words[1:, 1] % np.uint64(16) == 0, 0.0, grads)
    return np.ldexp(mantissa[0], start), list(grads)


def mixed(words: Any) -> Any:
    """Each 64-bit integer as one whose bits all depend on all of its own (the finaliser of SplitMix64)."""
    words = (words + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ words >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ words >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return words ^ words >> np.uint64(31)


def other_setting(rule: Rule[Any, Any]) -> dict[str, Any]:
    """Hyperparameters that differ from the defaults: weight decay and warm-ups on, other decays. A guard that is off stays off."""

    def other(interval: Interval, default: Any) -> Any:
        if interval.sequence:
            return 0.5, 0.95, 0.995
        if interval.optional:
            return 5
        if interval.divisor:
            return 2.0**-20 if default else 0.0
        if default == 0:
            return 0.0625
        return 1.0 - (1.0 - default) * 0.75 if is_decay(interval) else default * 0.75

    return {name: other(interval, rule.defaults[name]) for name, interval in rule.ranges.items()}


def far_setting(rule: Rule[Any, Any], decay: float) -> dict[str, Any]:
    """Hyperparameters that few use, beyond each number at which somebody might end a range, and the given decay."""

    def far(interval: Interval, default: Any) -> Any:
        if interval.sequence:
            return (*(i / 16 for i in range(12)), decay)
        if interval.optional:
            return 2.0**25 + 0.25
        if interval.divisor:
            return 0.5 if default else 0.0
        if is_decay(interval):
            return decay
        if interval.high == 1:
            return 0.25
        return 2.5 * default if default >= 1 else 2.5 if interval.low < 0 else 1.25

    return {name: far(interval, rule.defaults[name]) for name, interval in rule.ranges.items()}


class Recorded(NamedTuple):
    """The states of a rule, before and after each step, with one setting of the hyperparameters."""

    hyper: dict[str, Any]
    states: list[Columns]


def runs(candidate: Candidate, dtype: str) -> list[Recorded]:
    params, grads = inputs(dtype)
    with candidate.backend.session():
        return [Recorded(hyper, candidate.run(params, grads, hyper)) for hyper in ({}, other_setting(candidate.rule))]


def hashed(found: list[Recorded]) -> str:
    """SHA-256 of all numbers of the states after a step, as little-endian float64, which holds them exactly. -0 counts as 0."""
    sha = hashlib.sha256()

    def absorb(column: Any) -> None:
        if isinstance(column, tuple):
            for part in column:
                absorb(part)
        elif column is not None:
            sha.update((np.asarray(column) + 0.0).astype("<f8").tobytes())

    for one in found:
        absorb(tuple(one.states[1:]))
    return sha.hexdigest()


def cancelling(dtype: str) -> tuple[Any, list[Any]]:
    """Gradients that lead near 0, and bring the sum of AggMo's default buffers there: what is left shows the order of the sum.

    In a narrow dtype nothing else shows it, as parameters hold fewer digits than the sum.
    """
    start, grads = inputs(dtype)
    mantissa, _ = np.frexp(start)
    drawn, slots = [np.ldexp(mantissa, 14)], np.zeros((3, SIZE))
    for _ in range(len(grads) - 1):
        slots = np.asarray([[0.0], [0.9], [0.99]]) * slots + drawn[-1]
        drawn.append(round_to(-(0.9 * slots[1] + 0.99 * slots[2]) / 3, dtype))
    return round_to(0.1 * drawn[0], dtype), drawn  # where the first step leads from there to 0
