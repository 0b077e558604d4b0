"""The bound itself is the one worked out by hand."""

from dataclasses import replace

import numpy as np

from xopt.conformance.arithmetic.bounded import Bounded, Namespace, Signs, exact
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, HOST
from xopt.conformance.compare.reference import Reference
from xopt.conformance.results import IDENTICAL, WRONG
from xopt.conformance.selfcheck.checks import check, must
from xopt.conformance.selfcheck.subjects import Turned, compared, standing_in
from xopt.rules import RULES


@check
def the_bound_is_the_one_worked_out_by_hand() -> None:
    """SGD's ``p - lr * (g + decay * p)`` from 1 with g = 1, lr = 1/4 and decay = 1/2: one rounding an operation."""
    for name in ("float32", "float64"):
        unit = 2.0 ** (-24 if name == "float32" else -53)
        product = unit * 0.5
        total = product + unit * (1.5 + product)
        step = 0.25 * total + unit * (0.375 + 0.25 * total)
        by_hand = step + unit * (0.625 + step)
        known = Reference(RULES["sgd"], {"lr": 0.25, "weight_decay": 0.5}, FLOAT_FORMATS[name], FLOAT_FORMATS[name], False)
        known.restart((np.ones(1),))
        (comparison,) = known.step(np.ones(1), 1, (np.full(1, 0.625),))
        must(np.allclose(comparison.bound, by_hand, rtol=1e-6, atol=0), f"the bound is {comparison.bound}, not {by_hand}")
        must(comparison.error == 0, "an exact result has an error")


@check
def operations_carry_one_rounding_each() -> None:
    one, other = (Bounded(np.asarray(x), np.asarray(e), FLOAT_FORMATS["float32"]) for x, e in ((3.0, 0.25), (4.0, 0.5)))
    unit = 2.0**-24
    expected = {
        "+": (one + other, 0.75, 7.0),
        "-": (one - other, 0.75, 1.0),
        "*": (one * other, 3.0 * 0.5 + 4.0 * 0.25 + 0.25 * 0.5, 12.0),
        "/": (one / other, (0.25 + 0.75 * 0.5) / 3.5, 0.75),
        "sqrt": (Namespace.sqrt(other), 2.0 - 3.5**0.5, 2.0),
        "sqrt near 0": (Namespace.sqrt(Bounded(np.asarray(1.0), np.asarray(24.0), one.format)), 4.0, 1.0),
        "max": (Namespace.maximum(one + 0.75, other), 0.5, 4.0),
    }
    for what, (result, error, value) in expected.items():
        rounding = 0.0 if what == "max" else unit * (value + error)
        must(np.allclose(result.error, error + rounding, rtol=1e-6, atol=0), f"the error of {what} is {result.error}")
    narrow = Bounded(np.asarray(1.0), np.asarray(0.0), FLOAT_FORMATS["float32"]).stored(FLOAT_FORMATS["float16"])
    must(narrow.error == 2.0**-11 + FLOAT_FORMATS["float16"].smallest, "a stored number has another error")
    must(replace(FLOAT_FORMATS["float32"], ulps={"sqrt": 1.5}).rounding("sqrt") == 3 * unit, "a measured error is another one")
    must(exact(2.0**-140, replace(FLOAT_FORMATS["float32"], flushes=True)).error == 2.0**-140, "what is flushed has no error")


@check
def signs_are_open_only_near_zero() -> None:
    for value, error, is_open in ((0.4, 0.5, True), (0.0, 0.5, True), (0.6, 0.5, False), (-2.0, 0.5, False), (0.0, 0.0, False)):
        with Signs() as signs:
            decided = Signs.decide(Bounded(np.asarray(value), np.asarray(error), HOST))
        must(bool(signs.open) is is_open, f"the sign of {value} with an error of {error} is open: {not is_open}")
        must((decided.error > 0) == is_open, f"the sign of {value} has the error {decided.error}")
    _, wrong = compared("lion", rules=RULES, examples=2)
    must(wrong.verdict == IDENTICAL, "Lion is not right")
    with standing_in(Turned):
        _, wrong = compared("lion", examples=6)
    must(wrong.verdict == WRONG, "a sign that is turned is right")


@check
def formats_are_those_of_ieee() -> None:
    must(FLOAT_FORMATS["float32"].unit == 2.0**-24 and FLOAT_FORMATS["float64"].unit == 2.0**-53, "a format has another unit")
    must(FLOAT_FORMATS["float16"].largest == 65504 and FLOAT_FORMATS["bfloat16"].unit == 2.0**-8, "a narrow format is another one")
    must(FLOAT_FORMATS["float32"].smallest == 2.0**-149, "the smallest number is another one")
