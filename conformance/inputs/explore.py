"""The one loop in which Hypothesis draws examples, for every check: its settings, its seeds, and what it does with a violation."""

import zlib
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import hypothesis
from hypothesis import strategies as st

from xopt.conformance.results import Cell, LawResult
from xopt.conformance.target import Effort

SETTINGS = hypothesis.settings(
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    print_blob=False,
    verbosity=hypothesis.Verbosity.quiet,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=(hypothesis.Phase.generate, hypothesis.Phase.target, hypothesis.Phase.shrink),
)

CLIMBS = 200
"""Examples from which on half of them climb to what ``hypothesis.target`` is told; fewer are better spent on variety."""

HOLDS = "it holds when the same example is run again: it is not reproducible"


class ViolationError(Exception):
    """Raised at the first violation, so that Hypothesis looks for the smallest example that shows it."""

    def __init__(self, result: Cell | LawResult, details: dict[str, Any]) -> None:
        super().__init__(f"{result.rule} on {result.backend}: {details}")
        self.result = result
        self.details = details


class Checked(Protocol):
    """What is checked, with the result that it notes its findings in."""

    @property
    def result(self) -> Cell | LawResult: ...


class Examination(Protocol):
    """Runs one example after another on all that is checked."""

    found: ViolationError | None  # the first violation

    def run(self, example: Any) -> None:
        """Raises ViolationError where an example shows one."""


C = TypeVar("C", bound=Checked)


def settings_of(effort: Effort, **more: Any) -> hypothesis.settings:
    """Hypothesis's settings for an effort."""
    left_out = [] if effort.shrink else [hypothesis.Phase.shrink]
    if effort.examples < CLIMBS:
        left_out.append(hypothesis.Phase.target)
    phases = [phase for phase in SETTINGS.phases if phase not in left_out]
    return hypothesis.settings(SETTINGS, max_examples=effort.examples, phases=phases, **more)


def seeded(function: Callable[..., Any], effort: Effort, name: str) -> Callable[..., Any]:
    """The function, seeded by the effort's seed and the name of the check."""
    return hypothesis.seed(zlib.crc32(f"{effort.seed} {name}".encode()))(function)


def draw(drawn: st.SearchStrategy[Any], run: Callable[[Any], None], effort: Effort, name: str) -> None:
    """Calls ``run`` with one example after another."""
    settings_of(effort)(seeded(hypothesis.given(drawn)(run), effort, name))()


def explore(
    checked: list[C],
    examine: Callable[[list[C]], Examination],
    drawn: st.SearchStrategy[Any],
    effort: Effort,
    name: str,
    again: str = HOLDS,
) -> tuple[list[C], Exception] | None:
    """Examines all that is checked on the same examples. What violates is set aside, and the others start anew.

    Parameters
    ----------
    checked
        The results of all that violates are made to say so.
    examine
        Makes the examination of what is left.
    name
        Of the check: of it comes the seed.
    again
        What is said of a violation that Hypothesis does not see again.

    Returns
    -------
    tuple or None
        What was left when an error came that is no violation, with that error.
    """
    while checked:
        examination = examine(checked)
        try:
            draw(drawn, examination.run, effort, name)
        except Exception as error:  # noqa: BLE001 - one that fails must not lose the others
            violation = error if isinstance(error, ViolationError) else examination.found
            if violation is None:
                return checked, error
            if violation is not error:  # Hypothesis does not see it again, and says so in errors of its own
                violation.details["again"] = violation.details.get("again") or again
            violation.result.fail(violation.details)
            checked = [one for one in checked if one.result is not violation.result]
            for one in checked:
                one.result.reset()
        else:
            break
    return None
