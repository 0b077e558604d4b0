"""Hyperparameters over their whole ranges: usual ones, ones far from those, and the last that a range holds."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from xopt.checks import Interval, Precision
from xopt.conformance.arithmetic.formats import ARITHMETICS, FLOAT_FORMATS, arithmetic_of
from xopt.rule import Rule

PRECISIONS = {
    name: Precision(name, 2 * FLOAT_FORMATS[name].unit, FLOAT_FORMATS[name].largest, FLOAT_FORMATS[name].smallest_normal)
    for name in ARITHMETICS
}
"""Of the arithmetic."""


def settings(rule: Rule[Any, Any], seed: int, count: int, dtype: str = "float32", *, borders: bool = True) -> list[dict[str, Any]]:
    """``count`` settings of the hyperparameters: the first leaves all defaults untouched, as do about 15 % of the others.

    Of the rest each has, beside usual numbers, one or two that are far from them, and mostly one of the last that its range has in
    the arithmetic of ``dtype``, or next to it: each in its turn. Without ``borders``, for laws, which compute with them, only every
    second one has some, and none is very large.
    """
    draw = random.Random(f"{seed} {rule.name} {dtype} {borders}")
    precision = PRECISIONS[arithmetic_of(dtype)]
    strange = _in_turn(draw, rule, lambda interval: far(draw, interval, precision, huge=borders))
    last = _in_turn(draw, rule, lambda interval: edges(interval, precision))
    drawn: list[dict[str, Any]] = [{}]
    while len(drawn) < count:
        if draw.random() < 0.15 and count > 10:
            drawn.append({})
            continue
        hyper = {name: usual(draw, interval, rule.defaults[name]) for name, interval in rule.ranges.items()}
        if borders or len(drawn) % 2 == 0:
            hyper |= dict(islice(strange, draw.choice((1, 2, 2) if borders else (1, 2))))
        if borders:
            hyper |= dict(islice(last, draw.choice((0, 1, 1))))
        drawn.append(hyper)
    return drawn


def _in_turn(draw: random.Random, rule: Rule[Any, Any], numbers: Callable[[Interval], Sequence[Any]]) -> Iterator[tuple[str, Any]]:
    """Numbers of each hyperparameter, without end: in a new order once all have been."""
    while True:
        pairs = [(name, value) for name, interval in rule.ranges.items() for value in numbers(interval)]
        draw.shuffle(pairs)
        yield from pairs


def is_decay(interval: Interval) -> bool:
    """Whether a range is that of a decay: up to 1, and not 1 itself."""
    return interval.high == 1 and interval.text.endswith(")")


def usual(draw: random.Random, interval: Interval, default: Any) -> Any:
    """A hyperparameter as it is used, from its range alone: so that a new rule needs nothing here."""
    if draw.random() < 0.15:
        return default
    if interval.sequence:
        return tuple(_decay(draw) for _ in range(draw.choice((1, 2, 3, 4))))
    if interval.optional:
        return draw.choice((None, 0, 1, 2.5, 3, 40.75))
    if interval.divisor:
        return 10.0 ** draw.uniform(-10, -2) if default or draw.random() < 0.5 else 0.0
    if is_decay(interval):
        return _decay(draw) * (draw.choice((1, 1, 1, -0.5)) if interval.low < 0 else 1)
    if interval.high == 1:
        return draw.choice((0.0, 1.0, 0.5, draw.random()))
    if interval.low < 0:
        return draw.choice((0.0, 1.0, 0.5, draw.uniform(-0.5, 1.5)))
    size = max(1.0, default)
    return draw.choice((0.0, 2.0**-6, 10.0 ** draw.uniform(-4, 0), *(size * 10.0 ** draw.uniform(low, 0) for low in (-4, -1))))


def _decay(draw: random.Random) -> float:
    common, long = draw.choice((0.75, 0.9, 0.99)), 1 - 10.0 ** draw.uniform(-7, -3)
    return draw.choice((0.0, common, 1 - 10.0 ** draw.uniform(-5, -0.3), 1 - 10.0 ** draw.uniform(-5, -0.3), long))


def far(draw: random.Random, interval: Interval, precision: Precision, *, huge: bool = True) -> list[Any]:
    """Numbers in a range that few use, of a size that leaves something to compare."""
    if interval.sequence:
        return [tuple(_decay(draw) for _ in range(count)) for count in (5, draw.randint(6, 12), 50)]
    if interval.optional:
        return [0.5, draw.randint(2, 1_000) + 0.25, 256_000, 10.0 ** draw.uniform(3, 6), round(10.0 ** draw.uniform(6, 12))]
    if interval.divisor:
        return [10.0 ** draw.uniform(-20, -10), 1.0, 10.0 ** draw.uniform(0, 4)]
    if is_decay(interval):
        near = [1 - 10.0 ** draw.uniform(math.log10(precision.eps), -5) for _ in range(2)]
        return [draw.uniform(0, 0.5), 2.0**-20, *near, *([-draw.random(), -near[0]] if interval.low < 0 else [])]
    if interval.high == 1:
        return [2.0**-20, 1 - 2.0**-20, 1 - 10.0 ** draw.uniform(math.log10(precision.eps), -3)]
    sizes = [1.0, 10.0 ** draw.uniform(0, 1), 10.0 ** draw.uniform(1, 3), 10.0 ** draw.uniform(-12, -4)]
    if huge:
        sizes += [10.0 ** draw.uniform(3, 5), 10.0 ** draw.uniform(5, 8)]
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
