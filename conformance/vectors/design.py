"""What the vectors are of: for each rule settings of its hyperparameters, and situations in which a step may go wrong.

All numbers come of integers, so that they are the same everywhere.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, arithmetic_of
from xopt.conformance.digests.runs import far_setting, other_setting
from xopt.conformance.inputs.hyperparameters import PRECISIONS
from xopt.conformance.vectors.stepping import mix
from xopt.rule import Rule

DTYPES = ("float64", "float32", "float16", "bfloat16")

NOTES = {
    "FirstStep": "t = 1, all slots 0: bias corrections divide by 1 - beta.",
    "Ordinary": "Some steps after the start.",
    "ZeroGradient": "The gradient is 0: averages decay, and a step that divides has its guard alone.",
    "Cancellation": "The gradient is of the other sign and larger than those before: averages pass near 0.",
    "SmallGradient": "The square of the gradient is subnormal, or 0: so is the second moment, unless squares are kept wider.",
    "LargeGradient": "The gradient is so large that in most formats its square is beyond the range.",
    "Overflow": "A result is beyond the range of its format. Infinity is right; nothing is promised of what comes of it.",
    "LateStep": "A count that float32 does not hold, or that fits no int32: 2^24 + 1, 2^31.",
    "NegativeZero": "Parameter and gradient are -0. The sign of a zero may be kept or lost; these are xopt's.",
    "Subnormal": "The parameter is subnormal: what flushes subnormal numbers differs here, and in nothing else.",
    "NonFinite": "The gradient is infinite or NaN: nothing guards, and the numbers spread by IEEE 754.",
    "OpenSign": "What a sign is taken of lies within the rounding error of 0: each value of `allowed` is right.",
    "OutOfRange": "A hyperparameter out of its range must be refused, before anything is computed.",
    "LostInFormat": "A hyperparameter that the format of the arithmetic rounds out of its range must be refused.",
    "Chain": "A thousand steps, each gradient a hash of the parameter before: one wrong bit changes all that follow.",
}
"""Each flag, and what it is about."""


class Case(NamedTuple):
    """A step: from ``warm`` gradients, one a step, and the gradient that it takes."""

    flags: tuple[str, ...]
    t: int
    params: float
    warm: tuple[float, ...]
    grad: float | str  # "against" is the gradient that brings what a sign is taken of to 0


def settings(rule: Rule[Any, Any]) -> dict[str, dict[str, Any]]:
    """Settings that differ from each other, by what they are about."""
    found: dict[str, dict[str, Any]] = {
        "defaults": {},
        "weight decay and warm-ups": other_setting(rule),
        "short memory": far_setting(rule, 0.125),
        "long memory": far_setting(rule, 1.0 - 2.0**-20),
    }
    decays = set(rule.memory.values())
    if decays:
        found["no memory"] = {name: (0.0, 0.5) if rule.ranges[name].sequence else 0.0 for name in sorted(decays)}
    else:
        found["large weight decay"] = {"lr": 0.5, "weight_decay": 0.75}
    return {about: hyper for i, (about, hyper) in enumerate(found.items()) if hyper not in list(found.values())[:i]}


class Draw:
    """Numbers that a format holds, from a count."""

    def __init__(self, seed: str, dtype: str) -> None:
        self.digits = FLOAT_FORMATS[dtype].digits
        self.at = int.from_bytes(seed.encode(), "little") % 2**40

    def word(self) -> int:
        self.at += 1
        return mix(self.at)

    def __call__(self, low: int, high: int) -> float:
        """Of a size from 2**low to 2**(high + 1), of either sign."""
        word, place = self.word(), self.word()
        half = 2 ** (self.digits - 1)
        mantissa = (half + word % half) / half
        return math.ldexp(-mantissa if word >> 63 else mantissa, low + place % (high - low + 1))


def cases(rule: Rule[Any, Any], dtype: str, setting: int) -> Iterator[Case]:
    """The situations of a group."""
    draw = Draw(f"{rule.name} {dtype} {setting}", dtype)
    form = FLOAT_FORMATS[dtype]
    tiny, huge = {"float64": (-600, 600), "float16": (-24, 14)}.get(dtype, (-80, 70))

    def params() -> float:
        return draw(-3, 3)

    def warm(count: int = 3) -> tuple[float, ...]:
        return tuple(draw(-4, 2) for _ in range(count))

    yield Case(("FirstStep",), 1, params(), (), draw(-4, 2))
    yield Case(("FirstStep", "ZeroGradient"), 1, params(), (), 0.0)
    yield Case(("Ordinary",), 4, params(), warm(), draw(-4, 2))
    yield Case(("Ordinary",), 7, params(), warm(6), draw(-10, 6))
    yield Case(("ZeroGradient",), 4, params(), warm(), 0.0)
    same = draw(-2, 0)
    yield Case(("Cancellation",), 3, params(), (same, same), -2.0 * same)
    small = math.ldexp(1.0, tiny) * (1 if dtype == "float16" else 1.5)
    yield Case(("SmallGradient",), 2, params(), (-small,), small)
    yield Case(("LargeGradient",), 2, params(), (draw(-1, 1),), math.ldexp(1.5, huge))
    yield Case(("LateStep",), 2**24 + 1, params(), warm(2), draw(-4, 2))
    if setting:
        yield Case(("LateStep",), 2**31, params(), warm(2), draw(-4, 2))
    else:
        yield Case(("NonFinite",), 3, params(), warm(2), math.inf)
        yield Case(("NonFinite",), 3, params(), warm(2), math.nan)
    yield Case(("NegativeZero",), 1, -0.0, (), -0.0)
    yield Case(("Subnormal",), 2, 3.0 * form.smallest, (0.0,), draw(-4, 2))
    if any(operation.name == "sign" for operation in rule.program.operations):
        for _ in range(3):
            yield Case(("OpenSign",), 2, params(), warm(1), "against")


def refused(rule: Rule[Any, Any], dtype: str) -> Iterator[tuple[tuple[str, ...], dict[str, Any], str]]:
    """Settings that must be refused, with their flags and what is wrong."""
    precision = PRECISIONS[arithmetic_of(dtype)]

    def one(name: str, value: float) -> dict[str, Any]:
        default = rule.defaults[name]
        return {name: (*default[:-1], value) if rule.ranges[name].sequence else value}

    for name, interval in rule.ranges.items():
        for value in (interval.low, interval.high):
            outside = value if math.isfinite(value) and value not in interval else math.copysign(1.0, value) * 2.0**-10 + value
            if math.isfinite(outside) and outside not in interval:
                yield ("OutOfRange",), one(name, outside), f"{name} = {outside!r}"
        if not interval.optional:
            yield ("OutOfRange",), one(name, math.nan), f"{name} is NaN"
        if dtype == "float32":
            lost = [math.nextafter(interval.usable(precision)[1], math.inf), *([math.ldexp(1.0, -140)] if interval.divisor else [])]
            for value in lost:
                if value in interval:
                    yield ("LostInFormat",), one(name, value), f"{name} = {value!r}"
