"""What the golden says of a step: to forty digits, in floats, and how far from it a correct library may be."""

import math
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from xopt.conformance.arithmetic.bounded import Signs
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS
from xopt.conformance.arithmetic.numbers import FLOAT, Arithmetic, multiprecision
from xopt.conformance.compare.reference import Reference
from xopt.conformance.golden import GOLDENS, lift
from xopt.conformance.vectors.stepping import Columns, Stepper

DIGITS = 40


@cache
def many_digits() -> Arithmetic:
    return multiprecision(90)


def golden_step(stepper: Stepper, n: Arithmetic, columns: Columns, grad: float, t: int) -> dict[str, Any] | None:
    """The golden's columns in an arithmetic; None where it has no number, as of 0/0 or what is not finite."""
    golden = GOLDENS[stepper.rule.name]
    if not all(map(math.isfinite, [grad, *columns.values()])):
        return None

    def given(name: str) -> Any:
        slot = getattr(stepper.fresh, name)
        if isinstance(slot, tuple):
            return tuple(n.number(columns.get(f"{name}[{i}]", 0.0)) for i in range(len(slot)))
        return n.number(columns.get(name, 0.0))

    hyper = lift(n, golden.defaults | stepper.hyper)
    try:
        results = golden.step(n, *map(given, ("params", *golden.slots)), n.number(grad), t, **hyper)
    except (ZeroDivisionError, OverflowError):
        return None
    found: dict[str, Any] = {}
    for name, result in zip(("params", *golden.slots), results, strict=True):
        found |= {f"{name}[{i}]": x for i, x in enumerate(result)} if isinstance(result, tuple) else {name: result}
    return {name: found[name] for name in stepper.columns}


def exact(stepper: Stepper, columns: Columns, grad: float, t: int) -> dict[str, str] | None:
    """The exact results as decimal numbers of forty digits."""
    import mpmath

    results = golden_step(stepper, many_digits(), columns, grad, t)
    return None if results is None else {name: mpmath.nstr(x, DIGITS) for name, x in results.items()}


def in_floats(stepper: Stepper, columns: Columns, grad: float, t: int) -> dict[str, float] | None:
    """The golden's results in Python floats."""
    return golden_step(stepper, FLOAT, columns, grad, t)


class Judged:
    """The bounds of a step, and whether a sign in it is open."""

    def __init__(self, stepper: Stepper, columns: Columns, grad: float, t: int, after: Columns) -> None:
        compute, store = FLOAT_FORMATS[stepper.compute], FLOAT_FORMATS[stepper.dtype]
        reference = Reference(stepper.rule, stepper.hyper, compute, store, traced=False)
        reference.restart(stepper.vectors(columns))
        with np.errstate(all="ignore"):
            with Signs() as signs:
                reference._evaluate(np.asarray([grad]), t)
            self.open = bool(np.any(signs.open))
            compared = reference.step(np.asarray([grad]), t, stepper.vectors(after))
        bounds = [float(np.ravel(one.bound)[0]) for one in compared]
        self.bounds = dict(zip(stepper.columns, bounds, strict=True))


def rounded_up(x: float) -> float:
    """A bound with eight binary digits, no smaller: so that the last bits of libm's logarithm change no file."""
    if x == 0 or not math.isfinite(x):
        return x
    mantissa, exponent = math.frexp(x)
    return math.ldexp(math.ceil(mantissa * 256), exponent - 8)


def within(x: float, exactly: str, bound: float) -> bool:
    """Whether a number is no farther from the exact one than its bound, in exact arithmetic."""
    return math.isfinite(x) and abs(Fraction(x) - Fraction(exactly)) <= Fraction(bound)
