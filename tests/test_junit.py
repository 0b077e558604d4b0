"""The JUnit file says what the report says, in the shape that CI services read."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from xopt.conformance.report.junit import write_junit
from xopt.conformance.results import Cell, LawResult

NASTY = "a<b & \"c\" 'd' \x00\x1b ]]> é"
WRONG = {
    "mode": "step",
    "step": 1,
    "column": "params",
    "leaf": "weight",
    "element": [0],
    "error": 1.0,
    "bound": 0.5,
    "hyper": {"lr": 0.5},
    "taken": 0,
    "params": 1.0,
    "grads": [2.0],
    "got": 3.0,
    "message": None,
    "again": None,
}


def cell(rule: str, dtype: str = "float32", mode: str = "eager", **more: Any) -> dict[str, Any]:
    return Cell(rule, "torch", "cpu", dtype, mode, **{"elements": 10, "ratio": 0.75} | more).to_dict()


def law(name: str, **more: Any) -> dict[str, Any]:
    return LawResult(name, "adam", "torch", "cpu", "float32", "eager", **{"numbers": 10} | more).to_dict()


def row(state: str) -> dict[str, Any]:
    return {"backend": "torch", "device": "cpu", "checks": ["bits"], "reason": "Roots.", "state": state, "says": f"It is {state}."}


def replay(verdict: str, replayed: dict[str, Any]) -> dict[str, Any]:
    where = {"rule": "adam", "backend": "torch", "device": "cpu", "dtype": "float32", "mode": "eager"}
    return where | {"verdict": verdict, "replayed": replayed}


@pytest.fixture
def report() -> dict[str, Any]:
    return {
        "about": {"date": "2026-11-24", "time": "12:34:56", "seconds": 12.5, "command": "xopt conform --rule adam"},
        "scope": {"says": "A part: adam"},
        "verdict": "WRONG: 4 of 9 checks",
        "cells": [
            cell("adam"),
            cell("adam", "float64", differ=3),
            cell("lion", wrong=WRONG),
            cell(NASTY, elements=0, reason=NASTY),
            cell("adam", mode="traced"),
        ],
        "laws": [law("negation"), law(NASTY, broken={"program": NASTY}), law("delay", numbers=0, reason="one dtype only")],
        "replays": [replay("bit-identical", cell("adam")), replay("wrong", cell("adam", wrong=WRONG))],
        "ledger": [row("accepted"), row("stale"), row("not judged")],
        "problems": [{"kind": "result", "says": "lion is wrong"}, {"kind": "run", "says": NASTY}],
    }


def parsed(report: dict[str, Any], tmp_path: Path) -> ElementTree.Element:
    path = tmp_path / "junit.xml"
    write_junit(report, path)
    assert path.read_text(encoding="utf-8").startswith("<?xml")
    return ElementTree.parse(path).getroot()


def numbers(element: ElementTree.Element) -> tuple[int, ...]:
    return tuple(int(element.attrib[name]) for name in ("tests", "failures", "skipped", "errors"))


SUITE = {
    "name": r"\S.*",
    "package": r".*",
    "id": r"\d+",
    "hostname": r"\S+",
    "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d",
    "tests": r"\d+",
    "failures": r"\d+",
    "errors": r"\d+",
    "skipped": r"\d+",
    "time": r"\d+\.\d+",
}
"""What the schemas of windyroad and of Jenkins both let a test suite have, all that windyroad's asks for among it."""

CASE = {"name": r"\S.*", "classname": r"\S.*", "time": r"\d+\.\d+"}


def has(element: ElementTree.Element, attributes: dict[str, str]) -> bool:
    return element.keys() == list(attributes) and all(re.fullmatch(attributes[name], x, re.DOTALL) for name, x in element.items())


def test_has_the_elements_of_the_schemas_that_ci_servers_use(report: dict[str, Any], tmp_path: Path) -> None:
    """Their rules, written once more: no schema of them is a standard."""
    root = parsed(report, tmp_path)
    assert not root.attrib
    assert [suite.get("id") for suite in root] == [str(i) for i in range(len(root))]
    for suite in root:
        assert sorted(suite.keys()) == sorted(SUITE)
        assert has(ElementTree.Element("x", {name: suite.attrib[name] for name in SUITE}), SUITE)
        order = [child.tag for child in suite]
        assert order == ["properties", *["testcase"] * (len(order) - 3), "system-out", "system-err"]
        assert all(set(one.keys()) == {"name", "value"} and one.get("name") for one in suite[0])
        for case in suite.findall("testcase"):
            assert has(ElementTree.Element("x", {name: case.attrib[name] for name in CASE}), CASE)
            assert len(case.keys()) == len(CASE)
            assert [child.tag for child in case] in ([], ["failure"], ["skipped"])
            assert all(child.get("type") and child.get("message") for child in case if child.tag == "failure")


def test_suites_and_totals(report: dict[str, Any], tmp_path: Path) -> None:
    root = parsed(report, tmp_path)
    assert root.tag == "testsuites"
    assert {suite.attrib["name"]: numbers(suite) for suite in root} == {
        "torch cpu eager": (9, 3, 2, 0),
        "torch cpu traced": (1, 0, 0, 0),
        "ledger": (3, 1, 1, 0),
        "run": (1, 1, 0, 0),
    }
    for suite in root:
        cases = suite.findall("testcase")
        ended = [[child.tag for child in case if child.tag in ("failure", "skipped")] for case in cases]
        assert numbers(suite)[:3] == (len(cases), ended.count(["failure"]), ended.count(["skipped"]))
        names = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
        assert len(set(names)) >= len(names) - 1, "the two replays of this report have one name"


def test_times_are_those_of_the_checks(report: dict[str, Any], tmp_path: Path) -> None:
    report["cells"][0]["seconds"], report["laws"][0]["seconds"] = 1.25, 0.5
    root = parsed(report, tmp_path)
    times = {suite.attrib["name"]: float(suite.attrib["time"]) for suite in root}
    assert times == {"torch cpu eager": 1.75, "torch cpu traced": 0.0, "ledger": 0.0, "run": 12.5}
    assert sum(float(case.attrib["time"]) for case in root.iter("testcase")) == 1.75


def test_a_failure_shows_the_program(report: dict[str, Any], tmp_path: Path) -> None:
    run, stale, wrong, broken, replayed = parsed(report, tmp_path).iter("failure")
    assert wrong.attrib["message"] == "wrong: lion float32 bits and bound on torch cpu eager"
    assert "xopt.lion.bind(" in str(wrong.text)
    assert "broken: adam float32 a<b" in broken.attrib["message"]
    assert "program: a<b" in str(broken.text)
    assert "xopt.adam.bind(" in str(replayed.text)
    assert stale.attrib["message"] == "stale: It is stale."
    assert run.attrib["message"] == "lion is wrong"
    assert str(run.text).startswith("lion is wrong\na<b")


def test_a_run_without_problems_passes(report: dict[str, Any], tmp_path: Path) -> None:
    suite = parsed(report | {"problems": []}, tmp_path).find("testsuite[@name='run']")
    assert suite is not None
    assert numbers(suite) == (1, 0, 0, 0)


def test_what_did_not_run_has_its_reason(report: dict[str, Any], tmp_path: Path) -> None:
    row_reason, nasty, delay = (skipped.attrib["message"] for skipped in parsed(report, tmp_path).iter("skipped"))
    assert nasty == "a<b & \"c\" 'd' \ufffd\ufffd ]]> é", "escaped, and without what XML cannot hold"
    assert delay == "one dtype only"
    assert row_reason == "It is not judged."


def test_each_suite_says_what_was_asked_for_and_what_was_measured(report: dict[str, Any], tmp_path: Path) -> None:
    for suite in parsed(report, tmp_path):
        said = {p.attrib["name"]: p.attrib["value"] for p in suite.iter("property")}
        assert said == {"scope": "A part: adam", "command": "xopt conform --rule adam", "verdict": "WRONG: 4 of 9 checks"}
        if suite.attrib["name"] == "torch cpu traced":
            measured = "error/bound of a step 0.75, of a trajectory 0"
            assert suite.findtext("system-out") == f"adam, float32 bits and bound: bit-identical; {measured}"
