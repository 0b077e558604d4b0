"""What every rule must refuse, and with which error: bad arguments, states and hyperparameters."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from xopt.checks import Interval
from xopt.rule import Rule


class Refusal(NamedTuple):
    what: str
    call: Callable[[], object]
    error: type[Exception]


def refusals(rule: Rule[Any, Any]) -> Iterator[Refusal]:
    """Calls of a rule that must not return, in float32."""
    params, grad = np.ones((2, 3), np.float32), np.full((2, 3), 0.5, np.float32)
    state = rule.init(params)
    for kind in ("int32", "bool", "complex64"):
        yield Refusal(f"{kind} parameters", partial(rule.init, params.astype(kind)), TypeError)
    yield Refusal("a number for parameters", partial(rule.init, 1.0), TypeError)
    for shape in ((3,), (1, 3), (2, 1), ()):
        yield Refusal(f"a gradient of shape {shape}", partial(rule.step, state, np.ones(shape, np.float32)), ValueError)
    yield Refusal("a float64 gradient", partial(rule.step, state, grad.astype(np.float64)), TypeError)
    yield Refusal("a gradient in a tree", partial(rule.step, rule.init({"w": params}), {"v": grad}), ValueError)
    yield Refusal("the state of another rule", partial(rule.step, tuple(state), grad), TypeError)
    yield Refusal("a negative step count", partial(rule.step, state._replace(step=-5), grad), ValueError)
    yield Refusal("an unknown hyperparameter", partial(rule.step, state, grad, learning_speed=0.1), TypeError)
    wrong: tuple[tuple[str, Any, type[Exception]], ...] = (
        ("None", None, ValueError),
        ("float16", np.zeros((2, 3), np.float16), TypeError),
        ("of shape (3,)", np.zeros(3, np.float32), ValueError),
    )
    for slot in rule.memory:
        if not isinstance(getattr(state, slot), tuple):
            for what, value, error in wrong:
                yield Refusal(f"{slot} {what}", partial(rule.step, state._replace(**{slot: value}), grad), error)
    for name, interval in rule.ranges.items():
        for value, error in _bad_values(interval):
            for at in (0, 1, 3, 7) if interval.sequence else (0,):
                given = {name: (*[0.5] * at, value, 0.5) if interval.sequence else value}
                yield Refusal(f"{name}={value!r} ({at})", partial(_one_step, rule, params, grad, given), error)


def _one_step(rule: Rule[Any, Any], params: Any, grad: Any, hyper: dict[str, Any]) -> Any:
    bound = rule.bind(**hyper)
    return bound.step(bound.init(params), grad)


def _bad_values(interval: Interval) -> Iterator[tuple[Any, type[Exception]]]:
    """Numbers out of a range, in every kind that holds them, and what is no number."""
    for value in (True, np.True_, "0.1", 1j, np.zeros(2), Decimal("0.1")):
        yield value, TypeError
    bad = [float("nan"), float("inf")]
    if interval.low > -np.inf:
        bad.append(interval.low - 1.0)
    if interval.high < np.inf:
        bad.append(interval.high + 1.0)
    if interval.text.endswith("1)"):
        bad += [1.0, 1.0 - 2.0**-30]  # the second rounds to 1
    if interval.divisor:
        bad.append(1e-50)  # rounds to 0
    for value in bad:
        for kind in (float, int, Fraction, np.float16, np.float32, np.float64, np.int8, np.int64, np.asarray):
            with suppress(ValueError, OverflowError), np.errstate(all="ignore"):
                other = kind(value)
                if float(other) == value or other != other:
                    yield other, ValueError


def outcome(refusal: Refusal) -> type[Exception] | None:
    """What the call raised, or None where it returned."""
    try:
        with np.errstate(all="ignore"):
            refusal.call()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return type(error)
    return None
