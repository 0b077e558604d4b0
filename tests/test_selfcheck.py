"""The suite keeps its word, and each fault that is planted in the suite itself is seen."""

import sys

import pytest

from xopt.conformance import selfcheck
from xopt.conformance.faults.fault import Edit, SuiteFault
from xopt.conformance.faults.planting import plant_in_suite
from xopt.conformance.faults.suite_catalogue import SUITE_FAULTS

BY_NAME = {fault.name: fault for fault in SUITE_FAULTS}


@pytest.mark.parametrize("check", [check.name for check in selfcheck.CHECKS])
def test_the_suite_keeps_its_word(check: str) -> None:
    selfcheck.run([check])


def test_names_are_unique_and_every_check_sees_a_fault() -> None:
    assert len(BY_NAME) == len(SUITE_FAULTS) >= 100
    assert {fault.check for fault in SUITE_FAULTS} | {"the machine passes what is right"} == {c.name for c in selfcheck.CHECKS}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_fault_of_the_suite_is_seen(name: str) -> None:
    fault = BY_NAME[name]
    planted = plant_in_suite(fault)
    with pytest.raises(Exception) as seen:  # noqa: PT011 - a wrong suite may also raise where it said nothing
        planted.run([fault.check])
    assert not isinstance(seen.value, NameError | SyntaxError | ImportError)


def test_a_private_copy_without_a_fault_passes_and_leaves_the_suite_alone() -> None:
    modules = {name: module for name, module in sys.modules.items() if name.startswith("xopt")}
    nothing = SuiteFault("nothing", "", (Edit("compare/comparison.py", "class Subject:", "class Subject:  #"),))
    planted = plant_in_suite(nothing)
    planted.run(["verdicts follow from what was found", "up to the bound is right and beyond it is wrong"])
    assert planted is not selfcheck
    assert {name: module for name, module in sys.modules.items() if name.startswith("xopt")} == modules
    assert sys.modules["xopt"].conformance is sys.modules["xopt.conformance"]


def test_an_edit_that_does_not_apply_is_an_error() -> None:
    with pytest.raises(ValueError, match="exactly once"):
        plant_in_suite(SuiteFault("x", "", (Edit("compare/comparison.py", "no such text", ""),)))
