"""The suite held to its word: subjects that are wrong by a known share of the bound, and the verdict that each must get.

The bound itself is held against one worked out by hand; then what is 0.95 bounds off must pass, and 1.05, 2 and 3.9 must not,
in the comparison with the golden, in its replay, in the laws and in the state machine. What must be drawn is counted, what must
fail a run is put into a report. ``CHECKS`` is the one list: ``conformance/faults/suite_catalogue.py`` plants faults in the suite
itself, and each is seen by one of these.
"""

import datetime
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import optree

from xopt.conformance import ledger, suite
from xopt.conformance.arithmetic.bounded import Bounded, Namespace, Signs, exact
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, HOST, arithmetic_of, round_to
from xopt.conformance.cli.app import app
from xopt.conformance.compare import comparison as comparison_module
from xopt.conformance.compare.candidate import Candidate, Shapes, split
from xopt.conformance.compare.check import check_rule
from xopt.conformance.compare.reference import Columns, Reference
from xopt.conformance.faults.planting import copied, updating
from xopt.conformance.golden import GOLDENS
from xopt.conformance.inputs.census import FLOORS, CensusRow, counted, take_census
from xopt.conformance.inputs.explore import draw
from xopt.conformance.inputs.hyperparameters import settings
from xopt.conformance.inputs.trajectories import EXPONENTS, PARTS, ROWS, SHAPES, Part, Trajectory, trajectories
from xopt.conformance.inputs.words import decode
from xopt.conformance.laws import check as law_check
from xopt.conformance.laws.lab import Case, Kind, Lab, Law, Series
from xopt.conformance.report.html import write_html
from xopt.conformance.report.junit import write_junit
from xopt.conformance.report.report import BackendReport, Report
from xopt.conformance.report.text import symbol, tally
from xopt.conformance.results import BROKEN, HELD, IDENTICAL, NOT_RUN, SUBNORMALS, WITHIN, WRONG, Cell, LawResult
from xopt.conformance.stateful import check_machine
from xopt.conformance.target import Effort, Implementations, Target
from xopt.conformance.training import Replay, data, replay_rule
from xopt.rule import Rule
from xopt.rules import RULES

RIGHT = (0.5, 0.95)
"""Shares of the bound that a correct library may be off by."""
TOO_FAR = (1.05, 2.0, 3.9, 90.0)
"""And those that it may not."""

PLACES = ("numpy", "array_api_strict")
TARGETS = [Target(name, "cpu", "eager") for name in PLACES]


class SelfCheckError(AssertionError):
    """The suite does not say what it must."""


def must(truth: Any, what: str) -> None:
    if not truth:
        raise SelfCheckError(what)


class Check(NamedTuple):
    name: str
    function: Callable[[], None]


CHECKS: list[Check] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(Check(function.__name__.replace("_", " "), function))
    return function


# Subjects.


class Changed(Candidate):
    """A candidate whose states on array_api_strict are others, part by part; right on other backends."""

    def run_parts(
        self, params: Any, grads: list[Any], hyper: dict[str, Any], taken: int = 0, parts: Sequence[Part] = ()
    ) -> list[list[Columns]]:
        found = super().run_parts(params, grads, hyper, taken, parts)
        if self.backend.name != PLACES[1]:
            return found
        places = dict(split(np.arange(len(params)), self.shapes))
        parts = parts or [Part(list(self.shapes), hyper, {})]
        at = [np.concatenate([np.ravel(places[leaf]) for leaf in part.leaves]) for part in parts]
        return [
            self.changed(states, [g[own] for g in grads], part.hyper, taken)
            for states, own, part in zip(found, at, parts, strict=True)
        ]

    def changed(self, states: list[Columns], grads: list[Any], hyper: dict[str, Any], taken: int) -> list[Columns]:
        raise NotImplementedError


class Off(Changed):
    """The last parameters are so many bounds from the truth."""

    bounds = 0.0
    moved = slice(None)
    """Which numbers are."""

    def changed(self, states: list[Columns], grads: list[Any], hyper: dict[str, Any], taken: int) -> list[Columns]:
        compute = FLOAT_FORMATS[arithmetic_of(self.dtype)]
        known = Reference(self.rule, hyper, compute, FLOAT_FORMATS[self.dtype], False)
        known.restart(states[-2])
        comparison = known.step(grads[-1], taken + len(grads), states[-1])[0]
        params, truth = np.array(states[-1][0]), known.truth[0]
        truth = truth.value if isinstance(truth, Bounded) else truth.astype(np.float64)
        if params.size > 1 or self.moved == slice(None):  # of a leaf of one number that is all of it
            params[self.moved] = (truth + self.bounds * comparison.bound)[self.moved]
        return [*states[:-1], (params, *states[-1][1:])]


@contextmanager
def standing_in(one: type[Candidate]) -> Iterator[None]:
    """Has ``one`` stand in for candidates."""
    names = vars(comparison_module)
    right = names["Candidate"]
    names["Candidate"] = one
    try:
        yield
    finally:
        names["Candidate"] = right


def off(bounds: float, moved: slice = slice(None)) -> AbstractContextManager[None]:
    """Candidates are so many bounds off."""
    return standing_in(type("Off", (Off,), {"bounds": bounds, "moved": moved}))


def compared(rule: str = "sgd", dtype: str = "float32", examples: int = 3, **planted: Any) -> list[Cell]:
    return check_rule(rule, dtype, TARGETS, Effort(examples, pool=4, shrink=False), Implementations(**planted))


def changed(name: str, change: Callable[[Any], Any]) -> dict[str, Rule[Any, Any]]:
    """A rule whose new parameters are ``change`` of the right ones."""
    right = RULES[name]

    def update(*arguments: Any) -> Any:
        new = right.update(*arguments)
        return (change(new[0]), *new[1:])

    return {**RULES, name: updating(right, update)}


def stepping(change: Callable[[Any, Any, Any], Any]) -> dict[str, Rule[Any, Any]]:
    """AdamW whose step gives ``change(state, grad, new state)``."""
    wrong = copied(RULES["adamw"])
    wrong.step = lambda state, grad, **hyper: change(state, grad, RULES["adamw"].step(state, grad, **hyper))
    return {"adamw": wrong}


def programs(rules: Any, examples: int = 15, name: str = "adamw") -> LawResult:
    (result,) = check_machine(name, "float32", TARGETS[:1], Effort(examples, shrink=False), Implementations(rules))
    return result


# The bound.


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


class Turned(Changed):
    """The last step goes the other way."""

    def changed(self, states: list[Columns], *_: Any) -> list[Columns]:
        before, after = states[-2][0], states[-1][0]
        return [*states[:-1], (2 * before - after, *states[-1][1:])]


# The comparison with the golden.


@check
def what_is_right_has_the_verdict_of_what_is_right() -> None:
    for dtype in ("float32", "float64", "float16"):
        cell = check_rule("adamw", dtype, TARGETS[:1], Effort(8, pool=4, shrink=False))[0]
        must(cell.verdict == IDENTICAL, f"what is right is {cell.verdict} in {dtype}: {cell.wrong}")
        must(0.3 < cell.ratio <= 1, f"the largest error/bound in {dtype} is {cell.ratio}")
        must(cell.examples == 8 and cell.trajectories == 8 * ROWS, "examples are lost")
        must(cell.vacuous < cell.elements / 20, f"{cell.vacuous} of {cell.elements} numbers are vacuous in {dtype}")
        must(sum(cell.histogram) > 100, "the histogram is empty")


@check
def up_to_the_bound_is_right_and_beyond_it_is_wrong() -> None:
    for bounds in RIGHT:
        with off(bounds):
            numpy, strict = compared()
        must((numpy.verdict, strict.verdict) == (IDENTICAL, WITHIN), f"{bounds} bounds are {strict.verdict}")
        must(abs(strict.ratio - bounds) < 1e-3 or strict.ratio > bounds, f"{bounds} bounds are shown as {strict.ratio}")
        must(strict.differ > 0, "numbers of other bits are not counted")
    for bounds in TOO_FAR:
        with off(bounds):
            numpy, strict = compared(examples=7)
        must((numpy.verdict, strict.verdict) == (IDENTICAL, WRONG), f"{bounds} bounds are {strict.verdict}")
        must(strict.wrong is not None and strict.wrong["error"] > strict.wrong["bound"], "what is wrong is not shown")
        must(numpy.examples == 7, "the others do not go on")


@check
def one_number_is_enough() -> None:
    """In the first leaf, and in the last."""
    for moved in (slice(0, 1), slice(-1, None)):
        with off(1.5, moved):
            must(compared()[1].verdict == WRONG, f"the number at {moved} is not looked at")
        with off(0.9, moved):
            strict = compared(examples=4)[1]
        must(strict.verdict == WITHIN, f"bits of the number at {moved} are not compared: {strict.verdict}")
        must(
            0 < strict.differ <= len(PARTS) * strict.examples,
            f"{strict.differ} numbers differ at {moved} in {strict.examples} examples",
        )


@check
def each_step_and_the_whole_are_compared() -> None:
    rule = RULES["momentum"]
    state, grads = rule.init(np.ones(3)), [np.full(3, 0.5), np.full(3, -0.25), np.full(3, 2.0)]
    columns = [(state.params, state.v)]
    for grad in grads:
        state = rule.step(state, grad)
        columns.append((state.params, state.v))
    case = Trajectory(0, {}, np.ones(3), grads, [np.False_] * 3)
    shapes: Shapes = {"all": (3,)}
    judge = comparison_module.Comparer(rule, GOLDENS["momentum"], "float64", [], shapes)
    results = judge._compare(case, FLOAT_FORMATS["float64"], False, columns)
    must([len(local) for local, _ in results] == [2, 2, 2], "columns are left out")
    must([len(whole) for _, whole in results] == [2, 2, 2], "columns of the trajectory are left out")
    bounds = [[float(np.max(c.bound)) for c in (local[0], whole[0])] for local, whole in results]
    must(bounds[0][0] == bounds[0][1] and bounds[2][0] < bounds[2][1], f"a trajectory has the bound of a step: {bounds}")
    for t in range(3):
        for at in (0, 1):
            wrong = list(columns)
            wrong[t + 1] = tuple(c + 1e-3 if i == at else c for i, c in enumerate(wrong[t + 1]))
            place = comparison_module.Summary(judge._compare(case, FLOAT_FORMATS["float64"], False, wrong)).wrong
            must(place is not None and place.step == t + 1, f"column {at} of step {t + 1} is not compared: {place}")


@check
def what_is_no_number_is_wrong() -> None:
    known = Reference(RULES["sgd"], {}, FLOAT_FORMATS["float32"], FLOAT_FORMATS["float32"], False)
    for after, ratio in ((np.nan, np.inf), (np.inf, np.inf), (-np.inf, np.inf)):
        known.restart((np.ones(1),))
        (comparison,) = known.step(np.ones(1), 1, (np.full(1, after),))
        must(comparison.ratio[0] == ratio, f"{after} for a number has the ratio {comparison.ratio}")
        summary = comparison_module.Summary([([comparison], [comparison])])
        must(summary.wrong is not None, f"{after} for a number is not wrong")
    known.restart((np.full(1, np.nan),))
    (comparison,) = known.step(np.ones(1), 1, (np.full(1, np.nan),))
    must(comparison.ratio[0] == 0, "NaN for NaN is wrong")
    known = Reference(RULES["sgd"], {"lr": 1.0}, FLOAT_FORMATS["float32"], FLOAT_FORMATS["float32"], False)
    known.restart((np.full(1, 3.0e38),))
    (comparison,) = known.step(np.full(1, -3.0e38), 1, (np.full(1, np.inf),))
    must(not comparison.ratio[0] > 1, "infinity beyond the range is wrong")
    known = Reference(RULES["sgd"], {"lr": 1.0}, FLOAT_FORMATS["float32"], FLOAT_FORMATS["float16"], False)
    known.restart((np.full(1, 6.0e4),))
    (comparison,) = known.step(np.full(1, -6.0e4), 1, (np.full(1, -np.inf),))
    must(comparison.ratio[0] > 1, "infinity on the other side is right")
    huge = {"lr": 2.0**32, "beta2": 0.0, "nu1": 2.0**32, "nu2": 0.0}  # the gradient is what is left of two that cancel
    known = Reference(RULES["qhadam"], huge, FLOAT_FORMATS["float32"], FLOAT_FORMATS["float16"], False)
    for after in (np.inf, -np.inf):
        known.restart((np.zeros(1), np.zeros(1), None))
        comparison = known.step(np.full(1, 2.0**-13), 1, (np.full(1, after), np.full(1, 2.0**-13 * 0.005), None))[0]
        must(not comparison.ratio[0] > 1, f"{after} is wrong where the bound reaches beyond the range on both sides")


@check
def bits_are_compared_everywhere() -> None:
    one = (np.asarray([1.0, np.nan, 0.0, np.inf]), None, 0.5, (np.ones(2), np.zeros(2)))
    must(not any(np.any(mask) for mask in comparison_module._differ(one, one)), "equal states differ")
    other = (np.asarray([2.0, 1.0, -0.0, -np.inf]), None, 0.25, (np.ones(2), np.asarray([0.0, 1e-300])))
    masks = [np.asarray(mask).tolist() for mask in comparison_module._differ(one, other)]
    must(masks == [[True, True, False, True], True, [False, False], [False, True]], f"other bits are {masks}")
    flushing = replace(TARGETS[1], formats={"float32": replace(FLOAT_FORMATS["float32"], flushes=True)})
    with standing_in(Flushing):
        touched = check_rule("adam", "float32", [TARGETS[0], flushing], Effort(12, pool=8, shrink=False))[1]
    must(touched.verdict == SUBNORMALS and touched.differ == 0, f"a flushed subnormal is {touched.verdict}")
    single = FLOAT_FORMATS["float32"]
    quotient = exact(np.asarray([1.0, 2.0**-10]), single) / (exact(single.largest, single) * exact(1.0 + single.unit, single))
    must(not np.isfinite(quotient.error).any(), "the divisor is not beyond the range")
    must(quotient.touched.tolist() == [True, True], "a number without a bound cannot be subnormal")


class Flushing(Changed):
    """Subnormal numbers of the state become 0."""

    def changed(self, states: list[Columns], *_: Any) -> list[Columns]:
        return [tuple(c if c is None else np.where(np.abs(c) < 2.0**-126, 0.0, c) for c in state) for state in states]


@check
def truth_is_the_goldens() -> None:
    """A rule that is wrong in text and in bound alike is held against another text, and a golden against the rule."""
    wrong = changed("sgd", lambda params: params * (1.0 + 2.0**-10))
    must([cell.verdict for cell in compared(rules=wrong)] == [WRONG] * 2, "a rule is its own truth")
    right = GOLDENS["sgd"]
    twice = right._replace(step=lambda n, params, grad, t, **hyper: right.step(n, params, 2 * grad, t, **hyper))
    must([cell.verdict for cell in compared(goldens={"sgd": twice})] == [WRONG] * 2, "the golden is not asked")
    other = right._replace(defaults=right.defaults | {"lr": 0.5})
    must(
        [cell.verdict for cell in compared(goldens={"sgd": other}, examples=12)] == [WRONG] * 2,
        "the golden's defaults are not asked",
    )
    known = Reference(RULES["sgd"], {}, FLOAT_FORMATS["float64"], FLOAT_FORMATS["float64"], False)
    known.restart((np.full(1, 0.1),))
    known.step(np.full(1, 0.3), 1, (np.full(1, 0.1),))
    must(known.truth[0].dtype == object, "the truth of float64 is no finer than float64")


@check
def what_raises_is_wrong_and_the_others_go_on() -> None:
    with standing_in(Raising):
        numpy, strict = compared()
    must((numpy.verdict, numpy.examples, strict.verdict) == (IDENTICAL, 3, WRONG), f"{numpy.verdict}, {strict.verdict}")
    must(strict.wrong is not None and "illegal memory access" in strict.wrong["message"], "the error is not shown")


class Raising(Changed):
    """One that fails."""

    def changed(self, *_: Any) -> list[Columns]:
        msg = "illegal memory access"
        raise RuntimeError(msg)


# Laws.


def law_of(function: Callable[[Lab, Case], None], *, examples: int = 2) -> LawResult:
    law = Law("planted", Kind.BOUND, "It is planted.", "here", function, (), ("sgd",))
    return law_check.check_laws([law], "sgd", "float32", TARGETS[:1], Effort(examples, shrink=False))[0]


def _apart(bounds: float) -> tuple[Bounded, Bounded]:
    """Two vectors whose last numbers are so many times the sum of their errors apart."""
    error = np.full(4, 0.25)
    return Bounded(np.zeros(4), error, HOST), Bounded(np.asarray([0.0, 0.0, 0.0, bounds * 0.5]), error, HOST)


@check
def a_law_holds_up_to_its_bound_and_no_farther() -> None:
    for bounds in (*RIGHT, *TOO_FAR):
        one, other = _apart(bounds)
        series = [Series(x.value, lambda x=x: x.error) for x in (one, other)]  # type: ignore[misc]
        ways: dict[str, Callable[[Lab, Case], None]] = {
            "close": lambda lab, _, one=one, other=other: lab.close(one, other),  # type: ignore[misc]
            "at_most": lambda lab, _, one=one, other=other: lab.at_most(other, one),  # type: ignore[misc]
            "same": lambda lab, _, series=series: lab.same(*series),  # type: ignore[misc]
        }
        for name, way in ways.items():
            result = law_of(way)
            expected = (WITHIN if name == "same" else HELD) if bounds <= 1 else BROKEN
            must(result.verdict == expected, f"{name} at {bounds} bounds is {result.verdict}")
            must(bounds > 1 or abs(result.ratio - bounds) < 1e-6, f"{name} at {bounds} bounds is shown as {result.ratio}")
        seen: dict[str, Callable[[Lab, Case], None]] = {
            "apart": lambda lab, _, one=one, other=other: lab.apart(one, other),  # type: ignore[misc]
            "above": lambda lab, _, one=one, other=other: lab.above(other, one),  # type: ignore[misc]
        }
        for name, way in seen.items():
            must((law_of(way).verdict == HELD) == (bounds > 1), f"{name} at {bounds} bounds is {law_of(way).verdict}")


@check
def a_law_compares_all_that_it_counts() -> None:
    def closer(lab: Lab, case: Case) -> None:
        lab.at_most(given(np.zeros(5)), given(np.ones(5)))

    given = exact
    result = law_of(closer)
    must((result.verdict, result.numbers, result.examples) == (HELD, 10, 2), f"{result.numbers} numbers")
    for at in range(3):
        values = np.zeros(3)
        values[at] = 1.0
        must(law_of(lambda lab, _, v=values: lab.close(given(v), given(np.zeros(3)))).verdict == BROKEN, f"{at} is not compared")  # type: ignore[misc]
        must(law_of(lambda lab, _, v=values: lab.at_most(given(v), given(np.zeros(3)))).verdict == BROKEN, f"{at} may be more")  # type: ignore[misc]
    must(law_of(lambda lab, _: lab.close(given(np.full(2, np.nan)), given(np.ones(2)))).verdict == BROKEN, "NaN is close to 1")
    must(law_of(lambda lab, _: lab.holds(False, "planted")).verdict == BROKEN, "what does not hold holds")
    must(law_of(lambda lab, _: lab.holds(True, "planted")).verdict == HELD, "what holds does not")
    must(law_of(lambda *_: None).verdict == NOT_RUN, "a law that compares nothing holds")

    def raising(lab: Lab, case: Case) -> None:
        msg = "planted"
        raise RuntimeError(msg)

    must(law_of(raising).verdict == BROKEN, "a law that raises holds")


@check
def laws_run_on_all_settings() -> None:
    settings, numbers = [], []

    def keeps(lab: Lab, case: Case) -> None:
        settings.append(repr(lab.hyper(case)))
        numbers.append(case.words.tobytes())
        lab.holds(True, "")

    result = law_of(keeps, examples=40)
    must(result.examples == 40, f"{result.examples} examples of 40")
    must(len(set(settings)) >= 6, f"{len(set(settings))} settings of 8")
    must(len(set(numbers)) >= 20, f"{len(set(numbers))} examples of 40 have other numbers")


# The state machine.


@check
def the_machine_passes_what_is_right() -> None:
    result = programs({"adamw": RULES["adamw"]}, 8)
    must(result.verdict == HELD, f"what is right is {result.verdict}: {result.broken}")
    must(result.numbers > 50 and 0.3 < result.ratio <= 1, f"{result.numbers} numbers, error/bound {result.ratio}")


@check
def the_machine_sees_two_bounds() -> None:
    """Sixteen roundings are some bounds."""

    def shifted(name: str) -> Any:
        def change(state: Any, grad: Any, new: Any) -> Any:
            return new._replace(**{name: optree.tree_map(lambda x: x + 2.0**-20 * x, getattr(new, name))})

        return stepping(change)

    for name in ("params", "v"):
        result = programs(shifted(name))
        must(result.verdict == BROKEN and "is off by" in str(result.broken), f"{name} off by some bounds is {result.verdict}")


@check
def the_machine_sees_what_only_an_odd_order_shows() -> None:
    def forgets_a_loaded_count(right: Rule[Any, Any]) -> Any:
        return lambda state, grad, **hyper: right.step(state if type(state.step) is int else state._replace(step=0), grad, **hyper)

    def writes_to_the_old_state(right: Rule[Any, Any]) -> Any:
        def step(state: Any, grad: Any, **hyper: Any) -> Any:
            new = right.step(state, grad, **hyper)
            for leaf in optree.tree_leaves(state.params):
                if isinstance(leaf, np.ndarray) and leaf.flags.writeable:
                    leaf += 1
            return new

        return step

    def writes_to_the_gradient(right: Rule[Any, Any]) -> Any:
        def step(state: Any, grad: Any, **hyper: Any) -> Any:
            new = right.step(state, grad, **hyper)
            for leaf in optree.tree_leaves(grad):
                if isinstance(leaf, np.ndarray):
                    leaf += 1
            return new

        return step

    def fails_elsewhere(right: Rule[Any, Any]) -> Any:
        """On any library but the first."""

        def step(state: Any, grad: Any, **hyper: Any) -> Any:
            new = right.step(state, grad, **hyper)
            first = optree.tree_leaves(new.params)[0]
            return new if isinstance(first, np.ndarray) else new._replace(params=optree.tree_map(lambda x: x + 1, new.params))

        return step

    def swaps_leaves(right: Rule[Any, Any]) -> Any:
        def step(state: Any, grad: Any, **hyper: Any) -> Any:
            new = right.step(state, grad, **hyper)
            leaves, spec = optree.tree_flatten(new.params)
            if len(leaves) > 1 and leaves[0].shape == leaves[-1].shape:
                leaves[0], leaves[-1] = leaves[-1], leaves[0]
            return new._replace(params=spec.unflatten(leaves))

        return step

    counting = copied(RULES["sgd"])  # whose numbers do not depend on the count
    counting.step = lambda state, grad, **hyper: RULES["sgd"].step(state, grad, **hyper)._replace(step=state.step + 2)
    must(programs({"sgd": counting}, 5, "sgd").verdict == BROKEN, "a step that counts twice is not seen")
    wrongs = forgets_a_loaded_count, writes_to_the_old_state, writes_to_the_gradient, fails_elsewhere, swaps_leaves
    for wrong in wrongs:
        rule = copied(RULES["adamw"])
        rule.step = wrong(RULES["adamw"])
        found = programs({"adamw": rule})
        must(found.verdict == BROKEN, f"a step that {wrong.__name__.replace('_', ' ')} is not seen")
        if wrong in (writes_to_the_old_state, writes_to_the_gradient):
            must("the step wrote to" in str(found.broken), f"a step that writes is seen as {found.broken}")


# The replay.


@check
def a_replay_compares_and_may_be_wrong() -> None:
    steps = 3
    right, other = replay_rule("sgd", TARGETS, steps)
    size = len(data.start())
    for found in (right, other):
        must(found.verdict == IDENTICAL, f"what is right is {found.verdict}")
        must(found.replayed["elements"] == steps * size, f"{found.replayed['elements']} numbers of {steps * size}")
        must(len(found.losses) == len(found.distances) == steps, "nothing is trained")
    with off(2.0):
        numpy, strict = replay_rule("sgd", TARGETS, steps)
    must((numpy.verdict, strict.verdict) == (IDENTICAL, WRONG), f"2 bounds in a replay are {strict.verdict}")


# What is drawn.


@check
def what_must_be_drawn_is_drawn() -> None:
    counts: Counter[str] = Counter()
    for name in ("aggmo", "qhadam", "ademamix"):
        _, seen = counted(_draw, name)
        counts += seen
    must(counts["cells: examples"] >= 180, "examples are not counted")
    _reach(counts, "cells", besides="cells: numbers compared")
    _, counts = counted(compared, "lion")
    must(counts["cells: numbers compared"] >= counts["cells: gradients"] > 0, "numbers are not counted")


def _draw(name: str) -> None:
    """Draws examples for the comparison, and looks at them."""
    rule = RULES[name]
    judge = comparison_module.Comparer(rule, GOLDENS[name], "float32", [], SHAPES)

    def look(case: Trajectory) -> None:
        judge._look_at(case, comparison_module.pieces_of(case, SHAPES), judge._baseline(case)[1])

    drawn = trajectories(rule, settings(rule, 0, 40), "float32", longest=6)
    with np.errstate(all="ignore"):
        draw(drawn, look, Effort(60, shrink=False), name)


@check
def programs_do_what_they_can() -> None:
    counts: Counter[str] = Counter()
    for name in ("aggmo", "ademamix", "qhadam"):
        _, seen = counted(check_machine, name, "float32", TARGETS[:1], Effort(8, shrink=False))
        counts += seen
    _reach(counts, "programs")


def _reach(counts: Counter[str], check: str, besides: str = "") -> None:
    """Whether all floors of a check are reached, in a run of a few rules."""
    floors = [floor for floor in FLOORS if floor.what.startswith(f"{check}: ") and floor.what != besides]
    must(len(floors) >= 15, "floors are missing")
    for floor in floors:
        must(counts[floor.of], f"{floor.of} are not counted")
        least = floor.share * counts[floor.of] if counts[floor.of] >= 250 or not floor.whole else 0
        must(counts[floor.what] >= least, f"{floor.what}: {counts[floor.what]} of {counts[floor.of]}")


@check
def generated_numbers_are_of_all_kinds() -> None:
    words = np.random.default_rng(0).integers(0, 2**32, 4000, dtype=np.uint32)
    for dtype in FLOAT_FORMATS:
        values = decode(words, dtype, EXPONENTS[dtype])
        sizes = np.log2(np.abs(values[values != 0]))
        low, high = EXPONENTS[dtype]
        must(0.08 < np.mean(values == 0) < 0.2, f"{np.mean(values == 0)} of the numbers in {dtype} are 0")
        must(0.3 < np.mean(values > 0) < 0.6, "signs are not drawn alike")
        must(sizes.min() < low + 1 and sizes.max() > high - 1, f"exponents in {dtype} are {sizes.min()} ... {sizes.max()}")
        must(len(np.unique(np.abs(values))) > 500, "numbers have few digits")
        must((round_to(values, dtype) == values).all(), f"numbers are none of {dtype}")
    halfway = np.asarray([1 + 2.0**-11, 1 + 3 * 2.0**-11])
    must((round_to(halfway, "float16") == [1.0, 1 + 2.0**-9]).all(), "ties do not go to even")


# What fails a run.


def report_of(results: Sequence[Any] = (), rows: Sequence[ledger.Row] = (), census: Sequence[CensusRow] = ()) -> Report:
    """A report of one right cell and of what is given."""
    kept: dict[type, list[Any]] = {Cell: [right_cell()], LawResult: [], Replay: []}
    for result in results:
        kept[type(result)].append(result)
    judgement = ledger.judge(kept[Cell], kept[LawResult], rows, datetime.date(2026, 11, 24), "x86_64")
    return Report({}, [], kept[Cell], kept[Replay], kept[LawResult], judgement, census=list(census))


def right_cell(rule: str = "sgd", **more: Any) -> Cell:
    return Cell(rule, "numpy", "cpu", "float32", "eager", **{"examples": 10, "trajectories": 5000, "elements": 100} | more)


def law(**more: Any) -> LawResult:
    return LawResult("negation", "lion", "torch", "cpu", "float32", "eager", **{"examples": 5000, "numbers": 100} | more)


@check
def verdicts_follow_from_what_was_found() -> None:
    found = {
        IDENTICAL: right_cell(),
        SUBNORMALS: right_cell(differ_subnormal=1),
        WITHIN: right_cell(differ=1),
        NOT_RUN: right_cell(elements=0),
        WRONG: right_cell(differ=0, wrong={"step": 1}),
    }
    for verdict, cell in found.items():
        must(cell.verdict == verdict, f"{verdict} is {cell.verdict}")
    for verdict, result in ((HELD, law()), (WITHIN, law(differ=1)), (NOT_RUN, law(numbers=0)), (BROKEN, law(broken={}, numbers=0))):
        must(result.verdict == verdict, f"{verdict} is {result.verdict}")


@check
def what_is_wrong_fails_the_run() -> None:
    must(report_of().problems == [], "a right run fails")
    wrong = right_cell("lion", wrong={"step": 1, "again": None})
    replayed = Replay("lion", "numpy", "cpu", "eager", wrong.to_dict())
    day = datetime.date(2027, 1, 1)
    row = ledger.Row(("lion",), "torch", "cpu", ("eager",), ("float32",), ("negation",), "r", "https://example.org", day)
    flushed = replace(row, backend="numpy", checks=("bits",), only="subnormals")
    failing = {
        "a wrong cell": report_of([wrong]),
        "a broken law": report_of([law(broken={"what": "planted"})]),
        "a wrong replay": report_of([replayed]),
        "a cell that compared nothing": report_of([right_cell("lion", elements=0)]),
        "a law that compared nothing": report_of([law(numbers=0)]),
        "a deviation without a row": report_of([law(differ=1)]),
        "other bits without a row": report_of([right_cell("lion", differ=1)]),
        "flushed subnormals without a row": report_of([right_cell("lion", differ_subnormal=1)]),
        "more than a row of subnormals": report_of([right_cell("lion", differ=1, differ_subnormal=1)], [flushed]),
        "a row of another law": report_of([law(differ=1)], [replace(row, checks=("delay",))]),
        "a row of another rule": report_of([law(differ=1)], [replace(row, rules=("qhm",))]),
        "a row of another dtype": report_of([law(differ=1)], [replace(row, dtypes=("float64",))]),
        "a row of another mode": report_of([law(differ=1)], [replace(row, modes=("fused",))]),
        "a row of another machine": report_of([law(differ=1)], [replace(row, machine="aarch64")]),
        "a row of another device": report_of([law(differ=1)], [replace(row, device="cuda:0")]),
        "a stale row": report_of([law()], [row]),
        "an expired row": report_of([law(differ=1)], [replace(row, expires=datetime.date(2026, 11, 23))]),
        "a row of no law": report_of([replace(law(), law="delay")], [row]),
        "too few zeros": report_of(census=[CensusRow("cells: zeros", 4, "cells: numbers", 100, 5)]),
    }
    for what, report in failing.items():
        must(report.problems, f"{what} does not fail the run")
    must(report_of([law(differ=1)], [row]).problems == [], "what the ledger accepts fails the run")
    must(report_of([right_cell("lion", differ_subnormal=1)], [flushed]).problems == [], "accepted subnormals fail the run")
    must(Report({}, [], [right_cell(elements=0, reason="left out")], []).problems, "nothing checked is a pass")
    asked = {"asked": {"backend": ["cupy"]}}
    absent = Cell("sgd", "cupy", "cuda:0", "float32", "eager", reason="not installed")
    must(Report(asked, [], [right_cell(), absent], []).problems, "a backend that was asked for may be missing")
    must(Report({}, [], [right_cell(), absent], []).problems == [], "a backend that is not there fails a run of all")
    failed = Report({}, [], [right_cell()], [], failures=["planted"])
    must(failed.problems == ["planted"], "a check that failed is no problem")
    few = Report({"profile": "quick"}, [], [right_cell(examples=9)], [])
    must(few.problems, "a cell may rest on fewer examples than the profile says")


@check
def what_fails_the_run_is_shown() -> None:
    """By the command's exit status, the page and the XML."""
    import tempfile
    from pathlib import Path
    from xml.etree import ElementTree

    from typer.testing import CliRunner

    about = dict.fromkeys(("xopt", "python", "machine", "command", "profile"), "") | {
        "date": "2026-11-24",
        "seed": 0,
        "seconds": 1.0,
    }
    for problems in ([], ["planted"]):
        right = suite.conform
        suite.conform = lambda *_, problems=problems: _report(about, problems)  # type: ignore[assignment,misc]
        try:
            code = CliRunner().invoke(app(), ["conform", "--backend", "numpy"]).exit_code
        finally:
            suite.conform = right
        must(code == len(problems), f"the exit status is {code} with {len(problems)} problems")
        shown = _report(about, problems).to_dict()
        must(shown["problems"] == problems, "problems are not written")
        with tempfile.TemporaryDirectory() as folder:
            write_html(shown, Path(folder) / "page.html")
            write_junit(shown, Path(folder) / "junit.xml")
            page = (Path(folder) / "page.html").read_text(encoding="utf-8")
            root = ElementTree.parse(Path(folder) / "junit.xml").getroot()
        must(('<h1 class="wrong">' in page) == bool(problems), "the page does not say that the run fails")
        must(int(root.attrib["failures"]) == len(problems), "the XML does not say that the run fails")
    must(symbol(right_cell(wrong={})) == "WRONG" and symbol(right_cell(elements=0)) == "-", "a table shows another verdict")
    must(symbol(right_cell(differ=1, ratio=0.999)) == "0.99" and symbol(right_cell()) == "bits", "a table shows another ratio")
    must(tally([law(), law(broken={})]) == ("1 BROKEN", BROKEN) and tally([law(differ=1)])[0] == "0+1~", "laws are counted wrongly")


def _report(about: dict[str, Any], problems: list[str]) -> Report:
    """One with a cell that ran."""
    ran = Cell("sgd", "numpy", "cpu", "float32", "eager", elements=1)
    return Report(about, [BackendReport("numpy", "cpu", "2")], [ran], [], failures=problems)


@check
def a_floor_fails_what_is_below_it() -> None:
    floor = FLOORS[0]
    for share, fails in ((0.0, True), (floor.share * 0.9, True), (floor.share * 1.1, False)):
        rows = take_census({floor.of: 10_000, floor.what: int(share * 10_000)}, True)
        must(any(row.problem for row in rows if row.what == floor.what) == fails, f"{share} of {floor.what} fails: {not fails}")


@check
def formats_are_those_of_ieee() -> None:
    must(FLOAT_FORMATS["float32"].unit == 2.0**-24 and FLOAT_FORMATS["float64"].unit == 2.0**-53, "a format has another unit")
    must(FLOAT_FORMATS["float16"].largest == 65504 and FLOAT_FORMATS["bfloat16"].unit == 2.0**-8, "a narrow format is another one")
    must(FLOAT_FORMATS["float32"].smallest == 2.0**-149, "the smallest number is another one")


def run(names: Sequence[str] | None = None) -> None:
    """Runs the checks, default all. Raises SelfCheckError at the first thing that the suite does not see."""
    with np.errstate(all="ignore"):
        for one in CHECKS:
            if names is None or one.name in names:
                one.function()
