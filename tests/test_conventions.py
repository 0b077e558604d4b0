"""Conventions: both edits of a row say the same, which is another formula than the right one, and faults follow from the rows."""

import pytest

from xopt.conformance.conventions import CONVENTIONS, PLACES, Convention, status
from xopt.conformance.faults.agreement import agreement
from xopt.conformance.faults.catalogue import CHOICES, EVERYWHERE, FAULTS
from xopt.conformance.faults.fault import fault_of
from xopt.conformance.faults.planting import edited
from xopt.conformance.golden import GOLDENS
from xopt.rules import RULES

BY_NAME = {convention.name: convention for convention in CONVENTIONS}


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(CONVENTIONS) >= 160
    names = [fault.name for fault in (*FAULTS, *EVERYWHERE)]
    assert len(set(names)) == len(names)


def test_every_row_says_what_it_is() -> None:
    for row in CONVENTIONS:
        assert row.rule in RULES
        assert row.axis, row.name
        assert row.choice, row.name
        assert row.sentence.endswith("."), row.name
        assert row.in_rule, f"{row.name}: no edit of the rule"
        assert row.in_golden, f"{row.name}: no edit of the golden"
        assert set(row.at) <= set(RULES[row.rule].defaults), row.name


def test_no_two_rows_of_a_rule_have_one_golden() -> None:
    goldens = [(row.rule, *edited(fault_of(row, "golden")).values()) for row in CONVENTIONS]
    assert len(set(goldens)) == len(goldens)


@pytest.mark.parametrize("name", BY_NAME)
def test_both_edits_say_the_same_and_something_else(name: str) -> None:
    row = BY_NAME[name]
    found = agreement(row)
    assert found.defaults, "the rule and its golden have other defaults"
    assert found.edited <= 1, "the edited rule does not follow the edited golden"
    assert (found.right <= 1) == bool(row.same), "the right rule follows the edited golden too, or does not though it should"


def mixed(one: Convention, other: Convention) -> Convention:
    """One row's edit of the rule and another's edit of the golden."""
    return one._replace(edits=one.in_rule + other.in_golden)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("adamw, weight decay: L2", "adamw, weight decay: after the step"),
        ("adam, epsilon: epsilon hat", "adam, epsilon: a floor"),
        ("adam, bias correction: t + 1", "adam, bias correction: t = 1 for ever"),
        ("adam, powers: in float32", "adam, bias correction: none"),
        ("adam, lr: default 0.002", "adam, epsilon: default 1e-7"),
        ("ademamix, warm-up of beta3: linear", "ademamix, warm-up of beta3: linear in the logarithm"),
        ("momentum, dampening: beta", "momentum, dampening: beta, after the first step"),
    ],
)
def test_a_wrong_pair_does_not_agree(one: str, other: str) -> None:
    assert not agreement(mixed(BY_NAME[one], BY_NAME[other]))


def test_a_gain_that_loses_digits_does_not_agree() -> None:
    """1 - beta of a beta in float32 is not the golden's: one formula is not yet one number."""
    row = BY_NAME["momentum, dampening: beta"]
    coarse = [edit._replace(new=edit.new.replace("c.gain", "(1.0 - c.beta)")) for edit in row.edits]
    assert not agreement(row._replace(edits=tuple(coarse)))


def test_faults_follow_from_the_rows() -> None:
    derived = {fault.name for fault in (*CHOICES, *EVERYWHERE)}
    for row in CONVENTIONS:
        faults = [fault_of(row, place) for place in PLACES]
        assert [fault.kind for fault in faults[1:]] == ["golden", "twin"]
        assert faults[0].kind in ("rule", "core")
        assert faults[2].edits == row.edits
        for place, fault in zip(PLACES, faults, strict=True):
            assert fault.status == row.status
            assert (fault.name in derived) == (place == "rule" or place in row.planted or not row.same)


def test_the_edits_of_all_places_apply() -> None:
    for fault in (*FAULTS, *EVERYWHERE):
        edited(fault)


def test_whoever_documents_a_bug_of_another_makes_it_a_convention() -> None:
    assert status("", "") == "possible"
    assert status("", "an issue") == "defect"
    assert status("a library", "an issue") == status("a library", "") == "convention"


def test_a_golden_keeps_its_form() -> None:
    """A subject can be compared with each edited golden: beside AMSGrad's, all have the slots of the right one."""
    own = {row.name for row in CONVENTIONS if row.axis == "AMSGrad"}
    assert own
    for row in CONVENTIONS:
        (text,) = edited(fault_of(row, "golden")).values()
        assert all(f"    {slot}: " in text for slot in GOLDENS[row.rule].slots)
        assert ("    v_max: " in text) == (row.name in own)
