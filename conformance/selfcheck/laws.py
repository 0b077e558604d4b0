"""What a law compares, and how far off it lets numbers be."""

from collections.abc import Callable

import numpy as np

from xopt.conformance.arithmetic.bounded import Bounded, exact
from xopt.conformance.arithmetic.formats import HOST
from xopt.conformance.laws import check as law_check
from xopt.conformance.laws.lab import Case, Kind, Lab, Law, Series
from xopt.conformance.results import BROKEN, HELD, NOT_RUN, WITHIN, LawResult
from xopt.conformance.selfcheck.checks import check, must
from xopt.conformance.selfcheck.subjects import RIGHT, TARGETS, TOO_FAR
from xopt.conformance.target import Effort


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
