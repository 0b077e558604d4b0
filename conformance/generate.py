"""Inputs: hyperparameters over their whole ranges, and trajectories drawn by Hypothesis."""

import random
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from xopt.checks import Interval
from xopt.rule import Rule

ROWS = 16
"""Trajectories that one example carries: a rule is elementwise, so that each row of the leaves is one of its own."""
SHAPES: dict[str, tuple[int, ...]] = {"weight": (ROWS, 2, 2), "empty": (ROWS, 0), "bias": (ROWS, 2), "scale": ()}
"""The leaves of every example: fixed, because libraries compile anew for each shape."""
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())

COMPILED = 3
"""Compiled steps run the first so many settings of a pool, and half of the examples have one of them: each is compiled anew."""

TAKEN = (0, 0, 0, 0, 2, 37, 254, 9998)
"""Steps taken before an example begins: bias corrections and warm-ups are to be right late, too."""

_EXPONENTS = {"float16": (-14, 4), "bfloat16": (-60, 60), "float32": (-60, 60), "float64": (-500, 500)}
"""Of gradients, as powers of two: as far as their squares stay finite and, but for the last factors, normal."""


class Trajectory(NamedTuple):
    """Start and gradients as float64 vectors of numbers that the dtype holds; ``rows`` trajectories side by side."""

    setting: int  # the place of its hyperparameters in the pool
    hyper: dict[str, Any]  # those that differ from the defaults
    params: Any
    grads: list[Any]
    cancels: list[Any]  # where a gradient is to be replaced by the one that cancels the rule's memory
    rows: int = 1
    taken: int = 0  # steps before the first, of which the slots remember nothing


def settings(rule: Rule[Any, Any], seed: int, count: int) -> list[dict[str, Any]]:
    """``count`` settings of the hyperparameters: the first leaves all defaults untouched, as do about 15 % of the others."""
    draw = random.Random(f"{seed} {rule.name}")
    drawn: list[dict[str, Any]] = [{}]
    while len(drawn) < count:
        if draw.random() < 0.15 and count > 10:
            drawn.append({})
        else:
            drawn.append({name: _hyper(draw, interval, rule.defaults[name]) for name, interval in rule.ranges.items()})
    return drawn


def _hyper(draw: random.Random, interval: Interval, default: Any) -> Any:
    """A hyperparameter, from its range alone: so that a new rule needs nothing here."""
    if draw.random() < 0.15:
        return default
    if interval.sequence:
        return tuple(_decay(draw) for _ in range(draw.choice((1, 2, 3, 4))))
    if interval.optional:
        return draw.choice((None, 0, 1, 3, 5, 40))
    if interval.divisor:
        return 10.0 ** draw.uniform(-10, -2)
    if interval.text == "[0, 1)":
        return _decay(draw)
    if interval.text == "(-1, 1)":
        return _decay(draw) * draw.choice((1, 1, 1, -0.5))
    if interval.text == "[0, 1]":
        return draw.choice((0.0, 1.0, 0.5, draw.random()))
    if interval.low < 0:
        return draw.choice((0.0, 1.0, 0.5, draw.uniform(-0.5, 1.5)))
    return draw.choice((0.0, 2.0**-6, 10.0 ** draw.uniform(-4, 0), 10.0 ** draw.uniform(-4, 0)))


def _decay(draw: random.Random) -> float:
    return draw.choice((0.0, 0.75, 0.9, 0.99, 1 - 10.0 ** draw.uniform(-5, -0.3), 1 - 10.0 ** draw.uniform(-5, -0.3)))


def trajectories(pool: list[dict[str, Any]], dtype: str, longest: int) -> st.SearchStrategy[Trajectory]:
    """Examples of 1 to ``longest`` steps. Each element is one 32-bit word, so that Hypothesis shrinks towards zeros."""

    @st.composite
    def trajectory(draw: st.DrawFn) -> Trajectory:
        setting = draw(st.one_of(st.integers(0, min(COMPILED, len(pool)) - 1), st.integers(0, len(pool) - 1)))
        taken = draw(st.sampled_from(TAKEN))
        steps = draw(st.integers(1, longest))
        words = np.frombuffer(draw(st.binary(min_size=4 * SIZE * (steps + 1), max_size=4 * SIZE * (steps + 1))), "<u4")
        params, *grads = words.reshape(steps + 1, SIZE)
        return Trajectory(
            setting,
            pool[setting],
            decode(params, dtype, (-10, 4)),
            [decode(g, dtype, _EXPONENTS[dtype]) for g in grads],
            [g & 7 == 7 for g in grads],
            ROWS,
            taken,
        )

    return trajectory()


def decode(words: Any, dtype: str, exponents: tuple[int, int]) -> Any:
    """Words as numbers that ``dtype`` holds: an eighth zeros, an eighth powers of two, the rest with all digits.

    Half of the exponents are within 2**-10 ... 2**4, where the terms of an update meet; half anywhere in the given range.
    """
    words = words.astype(np.uint64)
    kind = words & 7
    sign = np.where(words >> 3 & 1, -1.0, 1.0)
    low, high = (max(exponents[0], -10), min(exponents[1], 4)), exponents
    spread = (words >> 5 & 255).astype(np.float64) / 255
    wide = (words >> 4 & 1).astype(bool)
    exponent = np.where(wide, high[0] + spread * (high[1] - high[0]), low[0] + spread * (low[1] - low[0]))
    mixed = (words * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(12)  # 52 digits that depend on every bit of the word
    mantissa = np.where(kind == 1, 1.0, 1.0 + mixed.astype(np.float64) * 2.0**-52)
    return rounded(np.where(kind == 0, 0.0, sign * np.ldexp(mantissa, exponent.astype(np.int64))), dtype)


def rounded(x: Any, dtype: str) -> Any:
    """Float64 values rounded to the nearest number of ``dtype``, ties to even."""
    if dtype == "bfloat16":
        mantissa, exponent = np.frexp(x)  # 8 significant digits; no subnormals are asked for
        return np.ldexp(np.rint(np.ldexp(mantissa, 8)), exponent - 8)
    return np.asarray(x).astype(dtype).astype(np.float64)
