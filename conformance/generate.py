"""Inputs: hyperparameters over their whole ranges, counts of steps over theirs, and trajectories drawn by Hypothesis."""

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from xopt.checks import Interval, Precision
from xopt.conformance.bounded import FORMATS
from xopt.rule import Rule

ROWS = 16
"""Trajectories that one example carries: a rule is elementwise, so that each row of the leaves is one of its own."""
SHAPES: dict[str, tuple[int, ...]] = {"weight": (ROWS, 2, 2), "empty": (ROWS, 0), "bias": (ROWS, 2), "scale": ()}
"""The leaves of every example: fixed, because libraries compile anew for each shape."""
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())
PARTS = (("weight",), ("empty", "bias"), ("scale",))
"""Leaves that have hyperparameters, or numbers that the state carries, of their own where an example has groups."""

COMPILED = 3
"""Compiled steps run the first so many settings of a pool, and a third of the examples have one of them: each is compiled anew."""

HELD = 2**31 - 64
"""Steps taken before an example at most, that a count holds which a compiler made an array: its integers may have 32 bits."""
BORDERS = (2**8, 2**15, 2**16, 2**24, 2**31, 2**32, 1_000, 10_000, 100_000, 256_000)
"""Counts at which a count may wrap or lose digits, and typical ends of warm-ups."""

PRECISIONS = {
    name: Precision(name, 2 * FORMATS[name].unit, FORMATS[name].largest, FORMATS[name].smallest_normal)
    for name in ("float32", "float64")
}
"""Of the arithmetic."""

_EXPONENTS = {"float16": (-14, 4), "bfloat16": (-60, 60), "float32": (-60, 60), "float64": (-500, 500)}
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
    taken: int = 0  # steps before the first, of which the slots remember nothing
    parts: Sequence[Part] = ()  # groups of leaves; none where all leaves have ``hyper``


# Hyperparameters.


def settings(
    rule: Rule[Any, Any], seed: int, count: int, arithmetic: str = "float32", *, borders: bool = True
) -> list[dict[str, Any]]:
    """``count`` settings of the hyperparameters: the first leaves all defaults untouched, as do about 15 % of the others.

    Of the rest each has, beside usual numbers, one to three that are far from them, in their turn, the last numbers that the ranges
    hold in the ``arithmetic`` among them. Without ``borders``, for laws, which compute with them, only every second one has some.
    """
    draw = random.Random(f"{seed} {rule.name} {arithmetic} {borders}")
    deck = list(_deck(rule, draw, PRECISIONS[arithmetic], borders))
    draw.shuffle(deck)
    drawn: list[dict[str, Any]] = [{}]
    while len(drawn) < count:
        if draw.random() < 0.15 and count > 10:
            drawn.append({})
            continue
        hyper = {name: usual(draw, interval, rule.defaults[name]) for name, interval in rule.ranges.items()}
        if borders or len(drawn) % 2 == 0:
            for _ in range(draw.choice((1, 2, 3) if borders else (1, 2))):
                name, value = deck.pop()
                hyper[name] = value
                deck = deck or list(_deck(rule, draw, PRECISIONS[arithmetic], borders))
        drawn.append(hyper)
    return drawn


def _deck(rule: Rule[Any, Any], draw: random.Random, precision: Precision, borders: bool) -> Iterator[tuple[str, Any]]:
    """For each hyperparameter numbers that are far from the usual ones."""
    for name, interval in rule.ranges.items():
        numbers = [*far(draw, interval, precision), *far(draw, interval, precision)]
        for value in [*numbers, *edges(interval, precision)] if borders else numbers:
            yield name, value


def usual(draw: random.Random, interval: Interval, default: Any) -> Any:
    """A hyperparameter as it is used, from its range alone: so that a new rule needs nothing here."""
    if draw.random() < 0.15:
        return default
    if interval.sequence:
        return tuple(_decay(draw) for _ in range(draw.choice((1, 2, 3, 4))))
    if interval.optional:
        return draw.choice((None, 0, 1, 2.5, 3, 40.75))
    if interval.divisor:
        return 10.0 ** draw.uniform(-10, -2)
    if interval.high == 1 and interval.text[-1] == ")":
        return _decay(draw) * (draw.choice((1, 1, 1, -0.5)) if interval.low < 0 else 1)
    if interval.high == 1:
        return draw.choice((0.0, 1.0, 0.5, draw.random()))
    if interval.low < 0:
        return draw.choice((0.0, 1.0, 0.5, draw.uniform(-0.5, 1.5)))
    return draw.choice((0.0, 2.0**-6, 10.0 ** draw.uniform(-4, 0), 10.0 ** draw.uniform(-4, 0)))


def _decay(draw: random.Random) -> float:
    common, long = draw.choice((0.75, 0.9, 0.99)), 1 - 10.0 ** draw.uniform(-7, -3)
    return draw.choice((0.0, common, 1 - 10.0 ** draw.uniform(-5, -0.3), 1 - 10.0 ** draw.uniform(-5, -0.3), long))


def far(draw: random.Random, interval: Interval, precision: Precision) -> list[Any]:
    """Numbers in a range that few use, of a size that leaves something to compare."""
    if interval.sequence:
        return [tuple(_decay(draw) for _ in range(count)) for count in (5, draw.randint(6, 12), 50)]
    if interval.optional:
        return [0.5, draw.randint(2, 1_000) + 0.25, 256_000, 10.0 ** draw.uniform(3, 6), round(10.0 ** draw.uniform(6, 12))]
    if interval.divisor:
        return [10.0 ** draw.uniform(-20, -10), 1.0, 10.0 ** draw.uniform(0, 4)]
    if interval.high == 1 and interval.text[-1] == ")":
        near = [1 - 10.0 ** draw.uniform(math.log10(precision.eps), -5) for _ in range(2)]
        return [draw.uniform(0, 0.5), 2.0**-20, *near, *([-draw.random(), -near[0]] if interval.low < 0 else [])]
    if interval.high == 1:
        return [2.0**-20, 1 - 2.0**-20]
    sizes = [1.0, 10.0 ** draw.uniform(0, 1), 10.0 ** draw.uniform(1, 3), 10.0 ** draw.uniform(-12, -4)]
    return sizes + [-x for x in sizes] if interval.low < 0 else sizes


def edges(interval: Interval, precision: Precision) -> list[Any]:
    """The last numbers of a range in the arithmetic, with their neighbours inside, and the smallest that are not 0.

    A divisor of 0 is left to the laws that are about it: many digits have no number for 0/0.
    """
    low, high = interval.usable(precision)
    if interval.sequence:
        return [(high, low), (math.nextafter(high, low), 0.5, 5e-324)]
    smallest = [precision.smallest_normal, math.nextafter(precision.smallest_normal, 1.0)]
    if not interval.divisor:
        smallest += [math.nextafter(precision.smallest_normal, 0.0), 5e-324]
    ends = [
        *([] if interval.divisor else [low]),
        high,
        math.nextafter(high, low),
        math.nextafter(low, high) if low else smallest[-1],
    ]
    if math.isinf(interval.high):  # far beyond what any model uses, and short of where all overflows
        ends += [precision.largest**0.25, 1.0 + 2.0**-52]
    return [*smallest, *ends]


# Examples.

CHOICES = 64
"""Bytes of an example that choose what is beside its numbers."""


class Choices:
    """Choices made with bytes, one after another; where there are none left each is the first, to which Hypothesis shrinks.

    All of an example is drawn as one value: of examples that draw many, Hypothesis spends most on copies of one part into another.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data

    def below(self, n: int) -> int:
        """A number from 0 to ``n - 1``, all of them as good as equally likely."""
        width = (n.bit_length() + 15) // 8
        part, self._data = self._data[:width].ljust(width, b"\0"), self._data[width:]
        return int.from_bytes(part, "big") * n >> 8 * width

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]


def drawn(vectors: int, size: int) -> st.SearchStrategy[tuple[Choices, Any]]:
    """Choices, and vectors of 16-bit words, of one length, which Hypothesis varies better."""
    length = CHOICES + 2 * vectors * size

    def split(data: bytes) -> tuple[Choices, Any]:
        return Choices(data[:CHOICES]), np.frombuffer(data, "<u2", offset=CHOICES).reshape(vectors, size)

    return st.binary(min_size=length, max_size=length).map(split)


def own_counts(rule: Rule[Any, Any], hyper: dict[str, Any]) -> list[int]:
    """Counts at which the hyperparameters themselves matter: ends and middles of warm-ups, and spans of the decays' memory."""
    found = []
    for name, value in (rule.defaults | hyper).items():
        interval = rule.ranges[name]
        if interval.optional:
            found += [math.ceil(value), math.ceil(value / 2)] if value and value < 2**53 else []
        elif interval.high == 1 and interval.text[-1] == ")":
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
    return max(0, int(choices.pick(BORDERS if kind == "border" else own)) - choices.below(4))


def trajectories(rule: Rule[Any, Any], pool: list[dict[str, Any]], dtype: str, longest: int) -> st.SearchStrategy[Trajectory]:
    """Examples of 1 to ``longest`` steps. Each element is one word, so that Hypothesis shrinks towards zeros."""

    def trajectory(example: tuple[Choices, Any]) -> Trajectory:
        choices, vectors = example
        setting = choices.below(len(pool) if choices.below(3) else min(COMPILED, len(pool)))
        hyper = pool[setting]
        taken = count(choices, own_counts(rule, hyper))
        steps = 1 + choices.below(longest)
        parts = _parts(choices, rule, pool, hyper)
        params, *grads = vectors[: steps + 1]
        return Trajectory(
            setting,
            hyper,
            decode(params, dtype, (-10, 4)),
            [decode(g, dtype, _EXPONENTS[dtype]) for g in grads],
            [g & 7 == 7 for g in grads],
            ROWS,
            taken,
            parts,
        )

    return drawn(longest + 1, SIZE).map(trajectory)


def _parts(choices: Choices, rule: Rule[Any, Any], pool: list[dict[str, Any]], hyper: dict[str, Any]) -> Sequence[Part]:
    """In a third of the examples, or more, parts of the leaves have hyperparameters of their own, or numbers that they carry."""
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
        exponent = np.maximum(np.frexp(x)[1], -125)  # of the last digit 8 behind the first one, or that of the subnormals
        return np.ldexp(np.rint(np.ldexp(x, 8 - exponent)), exponent - 8)
    return np.asarray(x).astype(dtype).astype(np.float64)
