"""What a law is said in: runs of rules on one backend, each with its derived bound, and comparisons that note what they saw."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import optree

from xopt import backends
from xopt.conformance.arithmetic.bounded import Bounded, exact, inflate
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, HOST, round_to
from xopt.conformance.compare.candidate import stepper
from xopt.conformance.inputs.census import look_at
from xopt.conformance.inputs.hyperparameters import settings
from xopt.conformance.inputs.words import decode
from xopt.conformance.laws.traits import Trait
from xopt.conformance.results import DTYPES, MODES, BrokenError, LawResult
from xopt.conformance.target import Implementations, Target
from xopt.rule import Rule
from xopt.rules import RULES
from xopt.slots import each

SIZE = 64
"""Elements of each vector: the same in all runs, because compilers compile anew for each shape."""
STEPS = 5
POOL = 24
"""Settings of the hyperparameters that examples draw from."""
FEW = 8
"""Elements of a sequence that a compiled step has at most: each length is compiled anew, and long ones take long."""
BUSY: dict[str, Any] = {"lr": 0.25, "weight_decay": 0.25, "alpha_warmup": 3, "beta3_warmup": 4}
"""The first setting, whose other values are the defaults; compiled steps have no other, because each is compiled anew."""

SINGLE_OR_DOUBLE = ("float32", "float64")
EAGER = ("eager",)
NOT_TRACED = ("eager", "fused")

_PARAMS = (-6, 3)
_GRADS = (-8, 3)
"""Exponents, as powers of two: no square, and nothing scaled by 2**-3 ... 2**3, is subnormal or overflows, in float16 either."""


class Kind(StrEnum):
    """How a law holds."""

    BITS = "bits"  # bit for bit
    BOUND = "bound"  # within the derived bounds of what is compared
    FAILS = "fails"  # not at all: its violation, beyond the derived bounds, must be seen


class Case(NamedTuple):
    """One example: a setting of the hyperparameters, a count and 16-bit words, which stand for the numbers of a dtype."""

    setting: int
    steps_before: int  # steps before the first, of which the slots remember nothing
    words: Any  # STEPS + 1 vectors
    dtype: str

    @property
    def params(self) -> Any:
        return decode(self.words[0], self.dtype, _PARAMS)

    @property
    def grads(self) -> list[Any]:
        return [decode(words, self.dtype, _GRADS) for words in self.words[1:]]

    @property
    def nonzero(self) -> list[Any]:
        """The gradients with ones for zeros, for laws that divide by them."""
        return [np.where(g == 0, 1.0, g) for g in self.grads]

    @property
    def short(self) -> list[Any]:
        """Gradients that are multiples of 1/8 up to 4: sums and products of a few of them are exact in every dtype."""
        return [(words % 65).astype(np.float64) / 8 - 4 for words in self.words[1:]]

    @property
    def powers(self) -> Any:
        """For each element a power of two, 2**-3 ... 2**3."""
        return np.ldexp(1.0, (self.words[0] >> 3).astype(np.int64) % 7 - 3)

    @property
    def order(self) -> Any:
        """A permutation of the elements."""
        return np.argsort(self.words[0], kind="stable")

    @property
    def place(self) -> int:
        """An element."""
        return int(self.words[0][0] % SIZE)


class Series:
    """One column of a run: its values at the start and after each step, and how far each may be from the exact one."""

    def __init__(self, value: Any, error: Callable[[], Any]) -> None:
        self.value = value
        self.error = error

    @property
    def bounded(self) -> Bounded:
        return Bounded(self.value, self.error(), HOST)

    def __getitem__(self, index: Any) -> "Series":
        return Series(self.value[index], lambda: self.error()[index])

    @property
    def flat(self) -> "Series":
        """With one axis beside that of the steps."""
        return Series(self.value.reshape(len(self.value), -1), lambda: self.error().reshape(len(self.value), -1))

    def __mul__(self, power_of_two: Any) -> "Series":
        return Series(self.value * power_of_two, lambda: self.error() * np.abs(power_of_two))

    def __neg__(self) -> "Series":
        return self * -1.0

    @classmethod
    def given(cls, value: Any) -> "Series":
        """Exact numbers."""
        return cls(value, lambda: np.zeros(np.shape(value)))


Hyper = Mapping[str, Any]
Gradients = Sequence[Any] | Callable[[Any], Any]
"""One vector for each step, or a function of the parameters, which each step then follows."""


class Run:
    """A rule's columns, by name, after each step; a slot of several arrays has one column ``v[i]`` for each."""

    def __init__(self, states: list[dict[str, Any]], errors: Callable[[], dict[str, Any]]) -> None:
        self._states = states
        self._errors = errors

    @property
    def columns(self) -> list[str]:
        return list(self._states[-1])

    def __getitem__(self, name: str) -> Series:
        return Series(np.stack([state[name] for state in self._states]), lambda: self._errors()[name])

    def __contains__(self, name: str) -> bool:
        return name in self._states[-1]

    @property
    def params(self) -> Series:
        return self["params"]

    @property
    def slots(self) -> list[str]:
        return self.columns[1:]


class Bounds:
    """The derived bounds of the runs of one example: backends that compute in the same format share them."""

    def __init__(self) -> None:
        self.known: dict[Any, dict[str, Any]] = {}


class Lab:
    """One rule on one backend, in one dtype and mode: what a law gets.

    Parameters
    ----------
    implementations
        In which rules and goldens are looked up, partners too.
    seed
        Of the settings of the hyperparameters.
    bounds
        Those derived for an example, which the labs of one law share.
    """

    def __init__(
        self,
        rule_name: str,
        dtype: str,
        target: Target,
        implementations: Implementations,
        seed: int,
        bounds: Bounds,
    ) -> None:
        self.rules = implementations.rules
        self.rule = self.rules[rule_name]
        self.golden = implementations.goldens[rule_name]
        self.backend = backends.get(target.backend, target.device)
        self.dtype = dtype
        self.mode = target.mode
        self.compute = target.compute(dtype)
        self.store = FLOAT_FORMATS[dtype]
        self.result = LawResult("", rule_name, self.backend.name, self.backend.device, dtype, self.mode)
        busy = {name: value for name, value in BUSY.items() if self.has(name)}
        self.pool = [busy, *settings(self.rule, seed, POOL, dtype, borders=False)[1:]]
        self.steps_before = 0
        """Steps before the first of every run: those of the example, but for laws that are said of the first steps alone."""
        self.bounds = bounds

    # Runs.

    def hyper(self, case: Case, **fixed: Any) -> dict[str, Any]:
        """All hyperparameters of the rule under test, as drawn, but for those that the law fixes."""
        drawn = self.rule.defaults | self.pool[0 if self.mode == "traced" else case.setting]
        if self.mode != "eager":
            drawn = {name: value[:FEW] if isinstance(value, tuple) else value for name, value in drawn.items()}
        look_at("laws", self.rule, drawn)
        return drawn | fixed

    @property
    def right(self) -> Rule[Any, Any]:
        """xopt's rule, whose program is recorded, also where a faulty one is under test."""
        return RULES.get(self.rule.name, self.rule)

    def has(self, name: str) -> bool:
        return name in self.rule.defaults

    def zero(self, *names: str) -> dict[str, float]:
        """0 for those of the hyperparameters that the rule has."""
        return {name: 0.0 for name in names if self.has(name)}

    def run(
        self, params: Any, grads: Gradients, hyper: Hyper | Sequence[Hyper], rule: str | None = None, steps: int = STEPS
    ) -> Run:
        """Runs the rule under test, or the one named: with ``hyper`` throughout, or with one for each step.

        A hyperparameter that a law computes is a ``Bounded``: the rule gets its value, the bound its error.
        """
        chosen = self.rules[rule] if rule else self.rule
        steps = steps if callable(grads) else len(grads)
        each = [hyper] * steps if isinstance(hyper, Mapping) else hyper
        given = [chosen.defaults | dict(h) for h in each]
        plain = [{name: optree.tree_map(_value, h[name], none_is_leaf=True) for name in chosen.defaults} for h in given]
        step = self.stepper(chosen)
        state = chosen.bind(**plain[0]).init(self.array(params))._replace(step=self.steps_before)
        start = _vectors(self, state)
        states = [dict(_named(chosen, start))]
        for t, h in enumerate(plain):
            grad = grads(states[-1]["params"]) if callable(grads) else grads[t]
            state = step(state, self.array(grad), **h)
            states.append(dict(_named(chosen, _vectors(self, state))))
        traced = type(state.step) is not int
        return Run(states, lambda: self._errors(chosen, start, params, grads, given, traced))

    def wide(self) -> "Lab":
        """The same in float64."""
        lab = copy(self)
        lab.dtype = "float64"
        lab.compute = replace(FLOAT_FORMATS["float64"], flushes=self.compute.flushes)
        lab.store = FLOAT_FORMATS["float64"]
        return lab

    def array(self, values: Any) -> Any:
        return self.backend.asarray(values, self.dtype)

    def vector(self, x: Any) -> Any:
        """An array of the backend as a float64 one of NumPy."""
        return self.backend.to_numpy(x).astype(np.float64)

    def step(self, state: Any, grad: Any, **hyper: Any) -> Any:
        """A step of the rule under test, in this mode."""
        return self.stepper()(state, grad, **hyper)

    def stepper(self, rule: Rule[Any, Any] | None = None) -> Callable[..., Any]:
        """The step of the rule under test, or of another, in this mode."""
        rule = rule or self.rule
        return rule.step if self.mode == "eager" else _compiled(rule, self.backend.name, self.backend.device, self.mode)

    def _errors(
        self,
        rule: Rule[Any, Any],
        start: tuple[Any, ...],
        params: Any,
        grads: Gradients,
        hyper: list[dict[str, Any]],
        traced: bool,
    ) -> dict[str, Any]:
        if callable(grads):
            return self._derived(rule, start, params, grads, hyper, traced)
        key = (
            rule.name,
            repr(self.compute),
            self.dtype,
            traced,
            self.steps_before,
            repr(hyper),
            params.tobytes(),
            *(g.tobytes() for g in grads),
        )
        if key not in self.bounds.known:
            self.bounds.known[key] = self._derived(rule, start, params, grads, hyper, traced)
        return self.bounds.known[key]

    def _derived(
        self,
        rule: Rule[Any, Any],
        start: tuple[Any, ...],
        params: Any,
        grads: Gradients,
        hyper: list[dict[str, Any]],
        traced: bool,
    ) -> dict[str, Any]:
        """The errors that the rule's own text may make, for each column, at the start and after each step."""
        number = self.compute if traced else HOST
        columns: Any = (params, *start[1:])
        columns = optree.tree_map(lambda x: exact(x, self.compute if np.ndim(x) else number), columns)
        states = [columns]
        for i, h in enumerate(hyper):
            t = self.steps_before + i + 1
            carried = [x for name, x in zip(rule.slots, columns[1:], strict=True) if name in rule.carried]
            lifted = {name: optree.tree_map(_exact, value) for name, value in h.items()}
            c = rule.coefficients(exact(float(t)).met_in(self.compute) if traced else t, *carried, **lifted)
            grad = self._narrow(grads(columns[0])) if callable(grads) else exact(grads[i], self.compute)
            new = rule.elementwise(*columns, grad, c)
            new = (self._narrow(new[0]), *new[1:])
            columns = tuple(each(lambda _, x: x, old, x) for old, x in zip(columns, new, strict=True))
            states.append(columns)
        named = [dict(_named(rule, state)) for state in states]
        return {name: np.stack([np.broadcast_to(_error(s[name]), np.shape(_value(s[name]))) for s in named]) for name in named[0]}

    def _narrow(self, x: Bounded) -> Bounded:
        """Rounded to the dtype of the parameters; beyond its range nothing is promised."""
        if self.store.unit == self.compute.unit:
            return x
        x = x.stored(self.store)
        return replace(x, error=np.where(np.abs(x.value) + x.error > self.store.largest, np.inf, x.error))

    # Comparisons.

    def same(self, one: Series, other: Series) -> None:
        """Bit for bit, but for the sign of a zero and the payload of a NaN. Where not, the bounds must at least excuse it."""
        x, y = np.broadcast_arrays(one.value, other.value)
        differ = (x != y) & ~(np.isnan(x) & np.isnan(y))
        self.result.numbers += x.size
        if np.any(differ):
            self.result.differ += int(np.sum(differ))
            bound = inflate(np.broadcast_to(one.error() + other.error(), x.shape))
            bound = np.where(np.isnan(x) == np.isnan(y), bound, 0.0)  # no rounding makes a number of NaN
            self._compare(np.where(differ, _distance(x, y), 0.0), bound, x, y)

    def same_run(self, one: Run, other: Run, names: Mapping[str, str] | None = None) -> None:
        """Params and all slots bit for bit, where ``names`` says which columns of the other are called differently."""
        for name in one.columns:
            called = (names or {}).get(name, name)
            if called in other:
                try:
                    self.same(one[name], other[called])
                except BrokenError as error:
                    error.details["column"] = name
                    raise

    def close(self, one: Bounded, other: Bounded) -> None:
        """Within the bounds of both. Where a bound says nothing, nothing is compared."""
        x, y = np.broadcast_arrays(one.value, other.value)
        bound = inflate(np.broadcast_to(one.error + other.error, x.shape))
        self.result.numbers += int(np.sum(np.isfinite(bound)))
        self._compare(_distance(x, y), bound, x, y)

    def at_most(self, one: Bounded, limit: Bounded) -> None:
        """``one <= limit``, within the bounds of both."""
        x, y = np.broadcast_arrays(one.value, limit.value)
        bound = inflate(np.broadcast_to(one.error + limit.error, x.shape))
        self.result.numbers += int(np.sum(np.isfinite(bound)))
        excess = np.where(x <= y, 0.0, _distance(x, y))
        self._compare(excess, bound, x, y)

    def apart(self, one: Bounded, other: Bounded) -> None:
        """Somewhere farther from each other than the bounds of both."""
        x, y = np.broadcast_arrays(one.value, other.value)
        self._seen(_distance(x, y), one.error + other.error, x, y)

    def above(self, one: Bounded, limit: Bounded) -> None:
        """Somewhere ``one > limit`` by more than the bounds of both."""
        x, y = np.broadcast_arrays(one.value, limit.value)
        self._seen(np.where(x > y, _distance(x, y), 0.0), one.error + limit.error, x, y)

    def holds(self, truth: Any, what: str) -> None:
        """A fact that is no comparison of numbers."""
        self.result.numbers += 1
        if not truth:
            raise BrokenError({"what": what})

    def _compare(self, distance: Any, bound: Any, x: Any, y: Any) -> None:
        ratio = np.where(np.isfinite(bound) & (distance > 0), distance / bound, 0.0)
        largest = float(np.max(ratio, initial=0.0))
        if largest > 1:
            at = np.unravel_index(np.argmax(ratio), ratio.shape)
            many = {"beyond": int(np.sum(ratio > 1)), "of": x.size}
            raise BrokenError(_details(at, x[at], y[at], distance[at], bound[at]) | many)
        self.result.ratio = max(self.result.ratio, largest)

    def _seen(self, distance: Any, bound: Any, x: Any, y: Any) -> None:
        bound = inflate(np.broadcast_to(bound, x.shape))
        self.result.numbers += int(np.sum(np.isfinite(bound)))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(np.isfinite(bound) & (distance > 0), distance / bound, 0.0)
        at = np.unravel_index(np.argmax(ratio), ratio.shape)
        if not ratio[at] > 1:
            raise BrokenError({"what": "not seen to fail", **_details(at, x[at], y[at], distance[at], bound[at])})
        finite = ratio[np.isfinite(ratio)]
        self.result.ratio = max(self.result.ratio, float(np.max(finite, initial=0.0)))


@lru_cache(maxsize=64)
def _compiled(rule: Rule[Any, Any], name: str, device: str, mode: str) -> Callable[..., Any]:
    """Kept for other laws and other rules, whose partner it may be: compiling costs more than all else."""
    return stepper(rule, backends.get(name, device), mode)


@dataclass(frozen=True)
class Law:
    """One property of rules that needs no reference to be checked."""

    name: str
    kind: Kind
    sentence: str
    source: str
    function: Callable[[Lab, Case], None]
    item: tuple[int, ...]
    rules: tuple[str, ...]
    partners: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = DTYPES
    modes: tuple[str, ...] = MODES
    late: bool = True  # whether it is said of a run that begins at any count
    trait: str = ""  # by which its rules were chosen; nothing where it names them
    beside: tuple[str, ...] = ()  # dtypes that the backend must have too


class Laws(list[Law]):
    """The laws of one file, in its order."""

    def add(
        self,
        name: str,
        kind: Kind,
        sentence: str,
        source: str,
        item: Sequence[int],
        rules: Sequence[str] | Trait,
        *,
        partners: Sequence[str] = (),
        dtypes: tuple[str, ...] = DTYPES,
        modes: tuple[str, ...] = MODES,
        late: bool = True,
        beside: tuple[str, ...] = (),
    ) -> Callable[[Callable[[Lab, Case], None]], Callable[[Lab, Case], None]]:
        """Declares the decorated function a law: of the rules that have a trait, or of those whose formula it knows."""
        names = tuple(name for name, rule in RULES.items() if rules.of(rule)) if isinstance(rules, Trait) else tuple(rules)
        trait = rules.name if isinstance(rules, Trait) else ""

        def declare(function: Callable[[Lab, Case], None]) -> Callable[[Lab, Case], None]:
            at = tuple(item), names, tuple(partners)
            self.append(Law(name, kind, sentence, source, function, *at, dtypes, modes, late, trait, beside))
            return function

        return declare


def number(x: float) -> Bounded:
    """A number for a law to compute with: the result is a ``Bounded``."""
    return exact(float(x))


def nearest(x: Any) -> Bounded:
    """A number of many digits, rounded once."""
    value = float(x)
    return Bounded(value, 0.0 if value == x else HOST.unit * abs(value), HOST)


def given(x: Any) -> Bounded:
    """An exact vector."""
    return exact(np.asarray(x, dtype=np.float64))


def fit(x: Any, dtype: str) -> Any:
    """``x`` rounded to the nearest numbers of ``dtype``."""
    return round_to(np.asarray(x, dtype=np.float64), dtype)


def stacked(columns: Sequence[Bounded]) -> Bounded:
    """Vectors after each step as one, like a Series."""
    shape = np.broadcast_shapes(*(c.shape for c in columns))
    value, error = (np.stack([np.broadcast_to(part(c), shape) for c in columns]) for part in (_value, _error))
    return Bounded(value, error, HOST)


def rows(series: Bounded) -> list[Bounded]:
    """The vectors of a Series, one for each step."""
    return [replace(series, value=value, error=error) for value, error in zip(series.value, series.error, strict=True)]


def _distance(x: Any, y: Any) -> Any:
    """Between equal infinities and between two NaN there is none; between NaN and a number it is infinite."""
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    return np.where(same, 0.0, np.where(np.isnan(x) | np.isnan(y), math.inf, np.abs(x - y)))


def _details(at: Any, x: Any, y: Any, distance: Any, bound: Any) -> dict[str, Any]:
    numbers = {"one": x, "other": y, "distance": distance, "bound": bound}
    return {"at": [int(i) for i in at], **{k: float(v) if np.isfinite(v) else None for k, v in numbers.items()}}


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Bounded) else x


def _error(x: Any) -> Any:
    return x.error if isinstance(x, Bounded) else np.zeros(np.shape(x))


def _exact(x: Any) -> Any:
    """A plain 0 keeps the branches of the coefficients (a decay of 0 has no time constant); other numbers carry errors."""
    return exact(float(x)) if isinstance(x, int | float) and x else x


def _vectors(lab: Lab, state: Any) -> tuple[Any, ...]:
    """Params and slots of a state, as float64 vectors and numbers."""

    def vector(x: Any) -> Any:
        return x if isinstance(x, float) else lab.vector(x)

    return tuple(optree.tree_map(vector, column) for column in state[:-1])


def _named(rule: Rule[Any, Any], columns: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for name, column in zip(("params", *rule.slots), columns, strict=True):
        if isinstance(column, tuple):
            yield from ((f"{name}[{i}]", part) for i, part in enumerate(column) if part is not None)
        elif column is not None:
            yield name, column
