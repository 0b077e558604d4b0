"""Laws of hyperparameters and of the numbers that a state carries: what is refused, their kinds, and groups of them."""

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import optree

from xopt.checks import Interval, Precision
from xopt.conformance.inputs.hyperparameters import PRECISIONS
from xopt.conformance.laws.lab import NOT_TRACED, POOL, Case, Kind, Lab, Laws
from xopt.conformance.laws.traits import CARRYING, EVERY
from xopt.conformance.laws.use import bytes_of, refused, run_tree, state_after, still_steps, tree_of
from xopt.conformance.structures.paths import at, code, leaves, prefix_at

LAWS = Laws()

_SCALARS = ("float16", "float32", "float64", "longdouble", "int8", "int16", "int32", "int64", "uint8", "uint64")


def _scalar(name: str, _: Lab, x: float) -> Any:
    return getattr(np, name)(x)


def _array(name: str, _: Lab, x: float) -> Any:
    return np.asarray(x, name)


def _own(name: str, lab: Lab, x: float) -> Any:
    return lab.backend.asarray(x, name)


KINDS: dict[str, Callable[[Lab, float], Any]] = {
    "int": lambda _, x: int(x),
    "Fraction": lambda _, x: Fraction(x),
    **{name: partial(_scalar, name) for name in _SCALARS},
    **{f"0-d {name}": partial(_array, name) for name in ("float16", "float32", "float64", "int32", "int64")},
    **{f"own 0-d {name}": partial(_own, name) for name in ("float32", "float64")},
}
"""What a number may be beside a float: Python's other numbers, NumPy's scalars and 0-d arrays, 0-d arrays of the library."""


def as_kind(lab: Lab, kind: str, x: Any) -> Any:
    """The number in another kind, if that holds it exactly; else None."""
    try:
        other = KINDS[kind](lab, x)
        same = float(other) == x or (math.isnan(x) and math.isnan(float(other)))
    except (OverflowError, ValueError):
        return None
    return other if same else None


@LAWS.add(
    "the kind of a number does not matter",
    Kind.BITS,
    "An int, a fraction, a NumPy scalar of any width and a 0-d array of NumPy or of the library give the bits of the same float.",
    "design",
    [],
    EVERY,
    modes=NOT_TRACED,
)
def kind_of_a_number(lab: Lab, case: Case) -> None:
    trees: list[Any] = [lab.array(vector) for vector in (case.params, *case.grads[:2])]
    for hyper in (lab.hyper(case), _whole(lab, 0.0), _whole(lab, 1.0)):
        known = bytes_of(lab, run_tree(lab, trees, hyper))
        for kind in KINDS:
            other = {name: _converted(lab, kind, value) for name, value in hyper.items()}
            lab.holds(bytes_of(lab, run_tree(lab, trees, other)) == known, f"{kind} gives other bits than float: {other}")


def _whole(lab: Lab, number: float) -> dict[str, Any]:
    """Hyperparameters that many kinds hold: 0 or 1, and 1/2 where 1 is out of range."""

    def within(interval: Interval) -> Any:
        x = number if number in interval else 0.5
        return (x, x, 0.5) if interval.sequence else x

    return {name: within(interval) for name, interval in lab.rule.ranges.items()}


def _converted(lab: Lab, kind: str, value: Any) -> Any:
    """A hyperparameter in another kind; as it is where that does not hold it."""
    if isinstance(value, tuple):
        return tuple(_converted(lab, kind, item) for item in value)
    other = None if value is None else as_kind(lab, kind, float(value))
    return value if other is None else other


def outside(interval: Interval, precision: Precision) -> list[float]:
    """The nearest numbers on both sides of a range that are not in it, also once they are rounded, and some farther ones."""
    low, high = interval.usable(precision)
    found = [math.nan, math.nextafter(low, -math.inf), math.nextafter(high, math.inf), -math.inf, math.inf]
    if interval.low > -math.inf:
        found += [interval.low if interval.text[0] == "(" else math.nextafter(interval.low, -math.inf), interval.low - 1.0]
    if interval.high < math.inf:
        found += [interval.high if interval.text[-1] == ")" else math.nextafter(interval.high, math.inf), interval.high + 1.0]
    if interval.divisor:
        found += [math.nextafter(precision.smallest_normal, 0.0), 5e-324]
    return list(dict.fromkeys(found))


@LAWS.add(
    "outside their ranges hyperparameters are refused",
    Kind.BITS,
    "NaN, the nearest numbers outside its range, also once rounded, in every kind of number and at every place of a sequence, and "
    "what is no number are refused and named.",
    "design",
    [],
    EVERY,
    modes=NOT_TRACED,
)
def hyper_is_refused(lab: Lab, case: Case) -> None:
    state, grad = state_after(lab, case), lab.array(case.grads[0])
    turn = count(case.place)
    kinds = list(KINDS)

    def refuse(name: str, value: Any, called: str) -> None:
        refused(lab, partial(lab.step, state, grad, **{name: value}), "step", called)
        refused(lab, partial(lab.rule.init, state.params, **{name: value}), "init", called)

    for name, interval in lab.rule.ranges.items():
        odd: list[Any] = ["1", True, np.True_, 1j, np.timedelta64(0), np.zeros(2), 10**400, *([] if interval.optional else [None])]
        for x in outside(interval, PRECISIONS[lab.compute.name]):
            some = (as_kind(lab, kinds[next(turn) % len(kinds)], x) for _ in range(4))  # all of them in a few examples
            odd += [x, *(other for other in some if other is not None)]
        if not interval.sequence:
            for value in odd:
                refuse(name, value, name)
            groups = {"a": lab.rule.defaults[name], "b": odd[next(turn) % len(odd)]}
            two = lab.rule.init(dict.fromkeys(groups, state.params))
            refused(lab, partial(lab.step, two, dict.fromkeys(groups, grad), **{name: groups}), "step", f"{name}['b']")
            refused(lab, partial(lab.rule.init, two.params, **{name: groups}), "init", f"{name}['b']")
            continue
        for value in odd:
            for place in (0, 1, 2 + next(turn) % 4):
                refuse(name, (*[0.5] * place, value, 0.5), f"{name}[{place}]")
        for value in ((), "0.5", 0.5, None):
            refuse(name, value, name)
    still_steps(lab, case, state)


class Pair(NamedTuple):
    """A container with names."""

    left: Any
    right: Any


@LAWS.add(
    "a tree of hyperparameters makes groups",
    Kind.BITS,
    "Each hyperparameter may be a tree, as deep as it likes: each leaf steps as it does alone with its own numbers.",
    "design",
    [35],
    EVERY,
    modes=NOT_TRACED,
)
def hyper_makes_groups(lab: Lab, case: Case) -> None:
    one, other = (lab.hyper(case._replace(setting=(case.setting + i) % POOL)) for i in (0, 1 + case.place % (POOL - 1)))
    one["lr"], other["lr"] = 0.5, 0.125
    trees: list[Any] = [
        {"a": tree_of(lab, v), "b": [lab.array(v), (lab.array(v[::-1].copy()),)], "c": Pair(lab.array(v[:3].copy()), lab.array(v))}
        for v in (case.params, *case.grads)
    ]
    places = [path for path, _ in leaves(trees[0])]
    hyper, own = dict(one), {}
    for i, (name, interval) in enumerate(lab.rule.ranges.items()):
        if interval.sequence:  # the same for all
            own[name] = dict.fromkeys(places, one[name])
            continue
        x, y = one[name], other[name]
        hyper[name] = (
            {"a": x, "b": y, "c": x},
            {"a": {"matrix": x, "empty": y, "number": y, "strided": x}, "b": [y, x], "c": Pair(y, x)},
            {"a": y, "b": [x, (y,)], "c": x},
        )[i % 3]
        own[name] = {path: prefix_at(hyper[name], path) for path in places}
    together = run_tree(lab, trees, hyper)
    for path in places:
        alone = run_tree(lab, [at(tree, path) for tree in trees], {name: value[path] for name, value in own.items()})
        mine = tuple(at(column, path) for column in together[:-1])
        lab.holds(bytes_of(lab, mine) == bytes_of(lab, tuple(alone[:-1])), f"leaf {code(path)} does not get its own numbers")


def _leaves(state: Any) -> Iterator[tuple[Any, ...]]:
    """Params and slots of each leaf of a state."""
    spec = optree.tree_structure(state.params)
    return zip(*(spec.flatten_up_to(column) for column in state[:-1]), strict=True)


@LAWS.add(
    "each leaf has the numbers that it carries",
    Kind.BITS,
    "Leaves that carry different numbers, and share all else, step as each does alone.",
    "design",
    [35],
    CARRYING,
    modes=NOT_TRACED,
)
def carried_numbers_are_each_leafs_own(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    numbers = {"a": 1.0, "b": 0.75, "c": float(case.order[0]) / 64, "d": 0.75}

    def after(name: str) -> Any:
        """The state of one leaf that has stepped alone, and of all of them for no name."""
        names = [name] if name else list(numbers)
        state = lab.rule.bind(**hyper).init({n: lab.array(case.params) for n in names})._replace(step=lab.steps_before)
        state = state._replace(**{slot: {n: numbers[n] for n in names} for slot in lab.rule.carried})
        for grad in case.grads:
            state = lab.step(state, {n: lab.array(grad) for n in names}, **hyper)
        return state

    for name, leaf in zip(numbers, _leaves(after("")), strict=True):
        (alone,) = _leaves(after(name))
        lab.holds(bytes_of(lab, leaf) == bytes_of(lab, alone), f"leaf {name} does not go on with what it carries")
