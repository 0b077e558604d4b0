"""Variants of a rule: its golden with no convention of another, with one, or with several, each as an edit of its text."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property, lru_cache
from itertools import combinations, permutations
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from xopt.conformance.arithmetic.bounded import Bounded, BoundedArithmetic, exact, inflate
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, HOST, FloatFormat
from xopt.conformance.conventions import CONVENTIONS, Convention
from xopt.conformance.faults.fault import Fault
from xopt.conformance.faults.planting import edited
from xopt.conformance.golden import GOLDENS, Golden, golden_of, lift, start
from xopt.conformance.thirdparty.probe import Run

Made = TypeVar("Made")
F32 = FLOAT_FORMATS["float32"]
BY_NAME = {row.name: row for row in CONVENTIONS}


COARSE = COEFFICIENTS, ALL = "coefficients: in float32", "precision: float32"


class Variant:
    """A golden with conventions of another in its text. ``golden`` raises ValueError where their edits do not go together."""

    def __init__(self, rule: str, conventions: Sequence[Convention] = (), coarse: str = "") -> None:
        self.rule = rule
        self.conventions = tuple(conventions)
        self.coarse = coarse  # what of it may be in float32 though the arrays are not: COEFFICIENTS or ALL of it

    @classmethod
    def of(cls, rule: str, names: Sequence[str]) -> "Variant":
        """From what ``names`` has."""
        rows = [BY_NAME[f"{rule}, {name}"] for name in names if name not in COARSE]
        return cls(rule, rows, next((name for name in names if name in COARSE), ""))

    @cached_property
    def golden(self) -> Golden:
        return _golden(self.rule, tuple(row.name for row in self.conventions))

    @property
    def names(self) -> list[str]:
        """Axis and choice of each convention."""
        return [row.what for row in self.conventions] + ([self.coarse] if self.coarse else [])

    @property
    def departures(self) -> float:
        """How far it is from the rule: a convention that is the same in exact arithmetic counts little, rounding less than one."""
        return sum(0.1 if row.same else 0.5 if row.axis == "powers" else 1.0 for row in self.conventions) + 0.6 * bool(self.coarse)

    def __repr__(self) -> str:
        return " and ".join([self.rule, *self.names])

    def values(self, run: Run) -> Any:
        """The parameters after each step, in float64; NaN where the golden has no number."""
        return _values(self, run)

    def bounded(self, run: Run, dtype: str) -> tuple[Any, Any]:
        """The same, and how far from it a correct library may be that computes in ``dtype``."""
        return _bounded(self, run, dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Variant) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[str, ...]:
        return self.rule, self.coarse, *(row.name for row in self.conventions)

    def arithmetic(self, dtype: str) -> tuple[Any, FloatFormat]:
        """What it computes in: its coefficients' numbers, and the format of its arrays."""
        return _Coarse() if self.coarse else BoundedArithmetic(), F32 if self.coarse == ALL else FLOAT_FORMATS[dtype]

    def hyper(self, run: Run) -> dict[str, Any]:
        return self.golden.defaults | dict(run.hyper)


@lru_cache(maxsize=2**14)  # all that a diagnosis compares with, and of what was seen long ago nothing
def _values(variant: Variant, run: Run) -> Any:
    return trajectory(variant.golden, PLAIN, run, variant.hyper(run))


@lru_cache(maxsize=2**11)
def _bounded(variant: Variant, run: Run, dtype: str) -> tuple[Any, Any]:
    n, compute = variant.arithmetic(dtype)
    hyper = variant.hyper(run)
    steps = trajectory(variant.golden, n, run, hyper, lambda x: exact(x, compute))
    truth = trajectory(variant.golden, BoundedArithmetic(), run, hyper, lambda x: exact(x, HOST))
    value = np.array([x.value for x in truth])
    value[np.isnan(variant.values(run))] = np.nan  # as a root of what is below 0 has a bound
    return value, inflate(np.array([x.error for x in steps]) + np.array([x.error for x in truth]))


def trajectory(golden: Golden, n: Any, run: Run, hyper: dict[str, Any], read: Any = np.asarray) -> Any:
    """The parameters after each step, in an arithmetic; ``read`` makes a vector one of its own."""
    found = [state[0] for state in states(golden, n, run, hyper, read)]
    return found if isinstance(n, BoundedArithmetic) else np.array(found)


def states(golden: Golden, n: Any, run: Run, hyper: dict[str, Any], read: Any = np.asarray) -> list[tuple[Any, ...]]:
    """Parameters and slots after each step."""
    lifted = lift(n, hyper)
    rates = [n.number(lr) for lr in run.lrs]
    found = []
    with np.errstate(all="ignore"):
        state = start(golden, n, read(run.params), lifted)
        for t, grad in enumerate(run.grads, start=run.idle + 1):
            state = golden.step(n, *state, read(grad), t, **(lifted | {"lr": rates[t - 1]} if rates else lifted))
            found.append(state)
    return found


class _Plain:
    """Float64, a vector at a time."""

    number = staticmethod(np.float64)
    sqrt = staticmethod(np.sqrt)
    sign = staticmethod(np.sign)
    exp = staticmethod(np.exp)
    log = staticmethod(np.log)


PLAIN = _Plain()


class _Coarse(BoundedArithmetic):
    """The numbers of a library that computes its coefficients in float32, whatever the dtype of its arrays."""

    @staticmethod
    def number(x: float) -> Bounded:
        return Bounded(float(x), 2 * F32.unit * abs(float(x)), HOST)


@lru_cache(maxsize=2**11)
def _golden(rule: str, names: tuple[str, ...]) -> Golden:
    """Raises ValueError where an edit's text does not stand in what the others leave."""
    if not names:
        return GOLDENS[rule]
    conventions = tuple(BY_NAME[name] for name in names)
    module = ModuleType(f"xopt.conformance.golden.{rule}")
    exec(compile(_text(rule, conventions), f"<{rule} with another convention>", "exec"), module.__dict__)
    if hasattr(module, "complement"):
        module.complement = _complement  # type: ignore[attr-defined]
    return golden_of(module)


def _text(rule: str, conventions: tuple[Convention, ...]) -> str:
    def text(order: tuple[Convention, ...]) -> str:
        edits = tuple(edit for row in order for edit in row.in_golden)
        (made,) = edited(Fault(" and ".join(row.what for row in order), rule, edits, "")).values()
        return made

    return in_some_order(conventions, text)


def in_some_order(conventions: Sequence[Convention], make: Callable[[tuple[Convention, ...]], Made]) -> Made:
    """What is made of the first order of conventions in which their edits go together; the ValueError of the last where none is."""
    problem: ValueError | None = None
    for order in permutations(conventions):
        try:
            return make(order)
        except ValueError as error:
            problem = error
    assert problem is not None
    raise problem


def _complement(n: Any, beta: Any, t: int) -> Any:
    """1 - beta^t as float32 has it. Its power may be a unit off, as not every library's is NumPy's."""
    beta = np.float32(float(getattr(beta, "value", beta)))
    power = float(beta ** np.float32(t))
    value = float(np.float32(1.0) - np.float32(power))
    if isinstance(n, BoundedArithmetic):
        return Bounded(value, 2 * F32.unit * power + F32.unit * value if t > 1 else 0.0, HOST)
    return n.number(value)


def rows_of(rule: str, after: float = 0) -> list[Convention]:
    """The conventions of a rule that show after so many steps, or before."""
    return [row for row in CONVENTIONS if row.rule == rule and row.after <= after]


def is_default(row: Convention) -> bool:
    """Whether a convention is another default, and no other formula."""
    return all(": Number = " in edit.old or edit.old.startswith("] = ") for edit in row.in_golden)


def is_rounding(row: Convention) -> bool:
    """Whether it is the same formula, but for how its numbers are rounded."""
    return bool(row.same) or row.axis == "powers"


@cache
def formulas(rule: str, after: int = 0, most: int = 2) -> tuple[Variant, ...]:
    """The rule and its variants of other formulas, with up to so many conventions, fewest first, as far as they go together."""
    rows = [row for row in rows_of(rule, after) if not is_default(row) and not is_rounding(row)]
    made = [Variant(rule, some) for count in range(most + 1) for some in combinations(rows, count)]
    return tuple(one for one in made if fits(one))


def roundings(variant: Variant) -> Iterator[Variant]:
    """A variant with each set of conventions that are the same formula, rounded otherwise; fewest first."""
    rows = [row for row in rows_of(variant.rule) if is_rounding(row)]
    made = [Variant(variant.rule, (*variant.conventions, *some)) for k in range(len(rows) + 1) for some in combinations(rows, k)]
    return filter(fits, made)


def fits(variant: Variant) -> bool:
    """Whether the edits go together, into a text that is one."""
    try:
        variant.golden  # noqa: B018 - makes it
    except (ValueError, SyntaxError):
        return False
    return True


def residual(found: Any, value: Any, bound: Any) -> float:
    """The largest distance from what a variant computes, as a share of the bound; infinite where only one of them is a number."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratio = np.where(found == value, 0.0, np.abs(found - value) / bound)
    ratio = np.where(np.isnan(found) & np.isnan(value), 0.0, np.where(np.isfinite(bound), ratio, 0.0))
    ratio = np.where(np.isnan(found) != np.isnan(value), math.inf, ratio)
    return float(np.max(np.nan_to_num(ratio, nan=math.inf, posinf=math.inf), initial=0.0))
