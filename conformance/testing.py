"""``xopt.conformance.parametrize``: the checks of an optimizer as tests of a project's own suite, one for each."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from xopt.backends.names import unknown
from xopt.conformance.thirdparty.behaviour import CHECKS, FAILED, HELD, NOT_TRIED, Finding
from xopt.conformance.thirdparty.check import DEFAULTS, FORMULA_DTYPES, STATE, check, must_be_known
from xopt.conformance.thirdparty.verdict import NO_TARGET, Checked

CLAIMS = "conventions that are claimed are seen"

Test = Callable[..., Any]


def parametrize(
    factory: str | Callable[..., Any],
    rule: str,
    *,
    conventions: Sequence[str] = (),
    expected_failed_checks: Mapping[str, str] | None = None,
    given: Mapping[str, Any] | None = None,
    dtypes: Sequence[str] = FORMULA_DTYPES,
) -> Callable[[Test], Test]:
    """Gives a test of pytest, whose argument is ``check``, one case for each check of an optimizer.

    The optimizer is checked once, as ``xopt.conformance.check`` does it, when the first case runs. A check that cannot be tried
    is skipped, with the reason.

    Parameters
    ----------
    factory
        The optimizer, as ``check`` takes it: a class of torch's form or a function that makes one, ``(params, **hyper)``; a
        function that makes a gradient transformation, ``(**hyper)``; a pure function ``(params, grad, state, **hyper) ->
        (params, state)``; or the name of one, such as ``"torch:mine.optim.MyAdamW"``, which is then run in a process of its own.
    rule
        The rule that it claims to be, a name of ``xopt.RULES``.
    conventions
        Those that it claims, as ``"weight decay: L2"``. One that is not seen in what it computes fails a case of its own.
    expected_failed_checks
        Checks that may fail, each with the reason. One that holds, or cannot be tried, fails: its reason is stale.
    given
        Values that hyperparameters of the rule keep, and other arguments of the optimizer.
    dtypes
        Of float32 and float64, those in which the formula is compared. Default: both.

    Returns
    -------
    callable
        A decorator. The test calls its argument: ``def test_my_adamw(check): check()``.

    Raises
    ------
    ImportError
        Where pytest is not installed.
    ValueError
        For a rule, a convention, a dtype or a check that there is not, or a reason that is empty.

    Notes
    -----
    In the manner of scikit-learn's ``parametrize_with_checks``.
    """
    try:
        import pytest
    except ImportError as error:
        msg = "parametrize: pytest is not installed; install it, or call xopt.conformance.check"
        raise ImportError(msg) from error
    expected = dict(expected_failed_checks or {})
    names = names_of_checks(dtypes)
    for name, reason in expected.items():
        if name not in names:
            raise ValueError(unknown("check", name, names))
        if not isinstance(reason, str) or not reason.strip():
            msg = f"expected_failed_checks: {name!r} needs a reason, got {reason!r}"
            raise ValueError(msg)
    must_be_known(rule, conventions, dtypes)

    @cache
    def checked() -> Checked:
        return check(factory, rule, given=given, conventions=conventions, dtypes=dtypes)

    return pytest.mark.parametrize("check", [pytest.param(Case(name, checked, expected.get(name)), id=name) for name in names])


def names_of_checks(dtypes: Sequence[str] = FORMULA_DTYPES) -> list[str]:
    """What is asked of every optimizer, by the words that say what holds."""
    return [*(f"the formula in {dtype}" for dtype in dtypes), DEFAULTS, STATE, CLAIMS, *CHECKS]


class Case:
    """One check of one optimizer. Calling it passes, fails, skips or is an expected failure, with what was found."""

    def __init__(self, name: str, checked: Callable[[], Checked], expected: str | None) -> None:
        self.name = name
        self._checked = checked
        self._expected = expected

    def __call__(self) -> None:
        import pytest

        checked = self._checked()
        found = finding(checked, self.name)
        if self._expected is not None:
            if found.outcome == FAILED:
                pytest.xfail(f"{self._expected} ({found.words})")
            seen = "holds" if found.outcome != NOT_TRIED else f"was not tried ({found.words})"
            pytest.fail(f"{self.name!r} was expected to fail ({self._expected}), and {seen}: take the reason out", pytrace=False)
        if found.outcome == FAILED:
            pytest.fail(f"{checked.target}: {self.name}: {found.words}" + _program(checked, found), pytrace=False)
        if found.outcome == NOT_TRIED:
            pytest.skip(found.words)

    def __repr__(self) -> str:
        return f"<check: {self.name}>"


def finding(checked: Checked, name: str) -> Finding:
    """What a check found under one of ``names_of_checks``."""
    if name == CLAIMS:
        return _claims(checked)
    for one in checked.findings:
        if one.check == name:
            return one
    if name.startswith("the formula in ") and checked.about and name.split()[-1] not in checked.about["dtypes"]:
        return Finding(name, NOT_TRIED, f"its dtypes are {', '.join(checked.about['dtypes'])}")
    outcome = FAILED if checked.verdict == NO_TARGET or name.startswith("the formula") or not checked.formulas else NOT_TRIED
    return Finding(name, outcome, checked.words)


def _claims(checked: Checked) -> Finding:
    if not checked.accepted:
        return Finding(CLAIMS, NOT_TRIED, "no convention is claimed")
    if not all(one.fits for one in checked.formulas) or not checked.formulas:
        return Finding(CLAIMS, NOT_TRIED, f"what it computes has no name: {checked.words}")
    idle = [name for name in checked.accepted if name not in checked.conventions]
    return Finding(CLAIMS, FAILED, f"it is claimed, and not seen: {'; '.join(idle)}") if idle else Finding(CLAIMS, HELD, "")


def _program(checked: Checked, found: Finding) -> str:
    """A program that shows a wrong number, where there is one."""
    return f"\n\n{checked.program}" if checked.program and found.check.startswith("the formula") else ""
