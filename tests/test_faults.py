"""The checks see every fault of the catalogue, and raise no alarm at what is right."""

import functools
import sys
from typing import Any

import numpy as np
import pytest

import xopt
from xopt.conformance.compare.check import check_rule
from xopt.conformance.faults.catalogue import FAULTS
from xopt.conformance.faults.fault import Edit, Fault
from xopt.conformance.faults.matrix import CHECKS, EXAMPLES, FAMILIES, POOL, Detection, FaultReport, detect
from xopt.conformance.faults.orders import NAMES, ORDERS, run_order
from xopt.conformance.faults.planting import effect, plant
from xopt.conformance.faults.refusals import outcome, refusals
from xopt.conformance.faults.styles import STYLES, caught, comparable, comparison_table
from xopt.conformance.faults.tables import summary
from xopt.conformance.golden import GOLDENS
from xopt.conformance.results import IDENTICAL, WRONG
from xopt.conformance.target import Effort, Implementations, Target
from xopt.rule import Rule

BY_NAME = {fault.name: fault for fault in FAULTS}
NOTHING = Fault(
    "nothing", "sgd", (Edit("rules/sgd.py", "Robbins and Monro,", "Robbins & Monro,"),), "What the right rule computes."
)


def test_names_are_unique_and_every_rule_has_faults() -> None:
    assert len(BY_NAME) == len(FAULTS) >= 100
    for rule in {fault.rule for fault in FAULTS}:
        assert sum(fault.rule == rule for fault in FAULTS) >= 5
    kinds = [fault.kind for fault in FAULTS]
    assert kinds.count("twin") >= 20
    assert kinds.count("golden") >= 8


@pytest.mark.parametrize("name", BY_NAME)
def test_a_fault_has_an_effect_and_is_seen(name: str) -> None:
    fault = BY_NAME[name]
    if fault.equivalent:
        assert effect(fault) is None
        return
    detection = detect(fault, first=True)
    assert detection.effect is not None, "it changes nothing, and there is no proof"
    assert detection.killed_by, "no check sees it"
    assert detection.examples <= EXAMPLES


def off(rule: Rule[Any, Any], coefficient: str) -> Rule[Any, Any]:
    """The rule with one coefficient that is half as large again."""

    @functools.wraps(rule.coefficients)
    def coefficients(*given: Any, **hyper: Any) -> Any:
        c = rule.coefficients(*given, **hyper)
        value = getattr(c, coefficient)
        more = tuple([x * 1.5 for x in value]) if isinstance(value, tuple) else value * 1.5
        return c._replace(**{coefficient: more})

    return Rule(rule.name, rule.state, coefficients, rule.elementwise, memory=rule.memory, carried=rule.carried)


WITHOUT = [name for name in xopt.RULES if name not in {fault.rule for fault in FAULTS}]
"""Rules that the catalogue does not know."""


@pytest.mark.parametrize(
    ("name", "coefficient"),
    [(name, one) for name in (*WITHOUT, "lion") for one in xopt.RULES[name].coefficients(1)._fields],
)
def test_a_wrong_coefficient_is_seen_of_every_rule(name: str, coefficient: str) -> None:
    faulty = Implementations(xopt.RULES | {name: off(xopt.RULES[name], coefficient)})
    targets, effort = [Target("numpy", "cpu", "eager")], Effort(EXAMPLES, pool=POOL, shrink=False)
    (cell,) = check_rule(name, "float32", targets, effort, faulty)
    assert cell.verdict == WRONG
    (right,) = check_rule(name, "float32", targets, effort)
    assert right.verdict == IDENTICAL


def test_an_edit_that_does_not_apply_is_an_error() -> None:
    for old in ("no such text", "params"):
        with pytest.raises(ValueError, match="exactly once"):
            plant(NOTHING._replace(edits=(Edit("rules/sgd.py", old, "x"),)))


def test_a_fault_that_changes_nothing_is_reported_as_not_seen() -> None:
    detection = detect(NOTHING, examples=5)
    assert detection.effect is None
    assert FaultReport([detection]).survivors == [detection]
    assert "not seen: nothing" in FaultReport([detection]).summary()


def test_planting_leaves_the_right_rules_alone() -> None:
    modules, goldens = dict(sys.modules), dict(GOLDENS)
    params, grad = np.ones(3), np.full(3, 0.5)
    before = xopt.sgd_step(xopt.sgd_init(params), grad)
    planted = plant(BY_NAME["sgd and its golden, sign: ascends"])
    assert {name: module for name, module in sys.modules.items() if name in modules} == modules
    assert goldens == GOLDENS
    assert planted.rules["sgd"] is not xopt.RULES["sgd"]
    after = xopt.sgd_step(xopt.sgd_init(params), grad)
    assert np.array_equal(before.params, after.params)
    assert np.all(planted.rules["sgd"].step(planted.rules["sgd"].init(params), grad).params > 1.0)


@pytest.mark.parametrize("name", xopt.RULES)
def test_what_must_be_refused_is_refused(name: str) -> None:
    for refusal in refusals(xopt.RULES[name]):
        assert outcome(refusal) is refusal.error, refusal.what


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", xopt.RULES)
def test_every_style_passes_the_right_rule(name: str, style: str) -> None:
    assert STYLES[style](xopt.RULES[name])


def test_a_fault_that_writes_to_its_inputs_spoils_no_later_check() -> None:
    style = "golden file, 1e-3 (as in torch's C++)"
    writes = Fault(
        "x",
        "adam",
        (Edit("rules/adam.py", "m = average(m, grad, c.gain1)", "params[...] = 0.0\n    m = average(m, grad, c.gain1)"),),
        "",
    )
    assert STYLES[style](xopt.RULES["adam"])
    assert caught(writes)[style]
    assert STYLES[style](xopt.RULES["adam"])


def test_the_styles_see_what_they_can_and_are_counted() -> None:
    fault = BY_NAME["adamw, sign: ascends"]
    assert comparable(fault)
    found = caught(fault)
    assert all(found.values())
    table = comparison_table([(fault, found, True)]).splitlines()
    assert table[0].endswith("| this package |")
    assert table[2:] == [f"| {name}{' | 1/1' * (len(STYLES) + 1)} |" for name in ("adamw", "all")]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", NAMES)
def test_no_correct_evaluation_order_leaves_the_bound(name: str, order: str) -> None:
    """75 settings with 100 trajectories each, of 4 steps, step by step and as a whole: 105,000 over all orders."""
    found = run_order(name, order, settings=75, size=100, seed=1)
    assert (found.alarms, found.vacuous) == (0, 0)
    assert found.ratio >= 0.5, "the bound is loose"


def test_each_check_is_of_one_kind() -> None:
    assert sorted(check for family in FAMILIES for check in family.checks) == sorted(CHECKS)


def test_kinds_of_checks_count_a_fault_once() -> None:
    """Seen by two checks of one kind, it is seen by no other kind; by checks of two, by neither alone."""
    one, other = FAMILIES[3], FAMILIES[4]
    fault = FAULTS[0]
    seen = [Detection(fault, "", dict.fromkeys(checks, 1)) for checks in (one.checks[:2], (one.checks[0], other.checks[0]), ())]
    counts = FaultReport(seen).families()
    assert counts[one] == {"kills": 2, "sole": 1}
    assert counts[other] == {"kills": 1, "sole": 0}
    lines = [line for line in summary(FaultReport(seen)).splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(FAMILIES)
    assert any(line.startswith(f"| {one.name} | {len(one.checks)} | 2 | 1 | - |") for line in lines)
