"""A report as JUnit XML, which CI services show as tests."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from xopt.conformance.report.text import script
from xopt.conformance.results import BROKEN, NOT_RUN, WRONG

_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold."""


class _Case(NamedTuple):
    """One test case: what was checked, on which suite, with which result."""

    suite: str
    classname: str
    name: str
    result: dict[str, Any]
    properties: dict[str, Any]
    details: str  # of a failure


def write_junit(report: dict[str, Any], path: Path) -> None:
    """Writes a report, as ``Report.to_dict`` gives it, to a file.

    A backend on a device and in a mode is a test suite; a cell, a law and a replay are test cases in it. What is wrong or broken
    is a failure, with the program that shows it; what did not run is skipped, with the reason. A row of the ledger that fails the
    run is a failure in a suite of its own, and the run as a whole is a test case that fails with all of its problems.
    """
    suites: dict[str, list[_Case]] = {}
    for case in (*_cells(report), *_laws(report), *_replays(report)):
        suites.setdefault(case.suite, []).append(case)
    root = ElementTree.Element("testsuites", name="xopt conform")
    for name, cases in suites.items():
        suite = ElementTree.SubElement(root, "testsuite", name=_text(name), timestamp=report["about"]["date"])
        for case in cases:
            _add(suite, case)
    _add_ledger(root, report)
    _add_run(root, report)
    for suite in root:
        _count(suite)
    _count(root)
    root.set("time", str(report["about"]["seconds"]))
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _suite(result: dict[str, Any]) -> str:
    return " ".join(filter(None, (result["backend"], result["device"], result["mode"])))


def _cells(report: dict[str, Any]) -> Iterator[_Case]:
    for cell in report["cells"]:
        properties = {"error/bound of a step": cell["ratio"], "error/bound of a trajectory": cell["trajectory_ratio"]}
        details = script(cell) if cell["verdict"] == WRONG else ""
        yield _Case(_suite(cell), cell["rule"], f"{cell['dtype']} bits and bound", cell, properties, details)


def _laws(report: dict[str, Any]) -> Iterator[_Case]:
    for law in report.get("laws", ()):
        details = json.dumps(law["broken"], indent=1) if law["verdict"] == BROKEN else ""
        yield _Case(_suite(law), law["rule"], f"{law['dtype']} {law['law']}", law, {"distance/bound": law["ratio"]}, details)


def _replays(report: dict[str, Any]) -> Iterator[_Case]:
    for replay in report["replays"]:
        cell = replay["replayed"]
        properties = {"error/bound of a step": cell["ratio"], "error/bound of a trajectory": cell["trajectory_ratio"]}
        details = script(cell) if replay["verdict"] == WRONG else ""
        yield _Case(_suite(replay), replay["rule"], f"{replay['dtype']} digits", replay, properties, details)


def _add(suite: ElementTree.Element, case: _Case) -> None:
    verdict = case.result["verdict"]
    element = ElementTree.SubElement(suite, "testcase", classname=_text(case.classname), name=_text(case.name), time="0")
    properties = ElementTree.SubElement(element, "properties")
    for name, value in ({"verdict": verdict} | case.properties).items():
        ElementTree.SubElement(properties, "property", name=name, value=_text(str(value)))
    if verdict in (WRONG, BROKEN):
        _fail(element, f"{verdict}: {case.classname} {case.name} on {case.suite}", case.details)
    elif verdict == NOT_RUN:
        ElementTree.SubElement(element, "skipped", message=_text(case.result.get("reason") or "nothing was compared"))


def _add_ledger(root: ElementTree.Element, report: dict[str, Any]) -> None:
    rows = report.get("ledger", ())
    if not rows:
        return
    suite = ElementTree.SubElement(root, "testsuite", name="ledger", timestamp=report["about"]["date"])
    for number, row in enumerate(rows, start=1):
        name = f"row {number}: {row['backend']} {row['device']}, {', '.join(row['checks'])}"
        element = ElementTree.SubElement(suite, "testcase", classname="ledger", name=_text(name), time="0")
        if row["state"] == "not judged":
            ElementTree.SubElement(element, "skipped", message=_text(row["says"]))
        elif row["state"] != "accepted":
            _fail(element, f"{row['state']}: {row['says']}", row["reason"])


def _add_run(root: ElementTree.Element, report: dict[str, Any]) -> None:
    """So that nothing that fails a run passes here: what was not checked, or not drawn, has no test case of its own."""
    suite = ElementTree.SubElement(root, "testsuite", name="run", timestamp=report["about"]["date"])
    element = ElementTree.SubElement(suite, "testcase", classname="run", name="the run has no problems", time="0")
    if report["problems"]:
        _fail(element, report["problems"][0], "\n".join(report["problems"]))


def _fail(element: ElementTree.Element, message: str, details: str) -> None:
    ElementTree.SubElement(element, "failure", message=_text(message)).text = _text(details)


def _count(element: ElementTree.Element) -> None:
    """Writes how many test cases an element holds, and how they ended. Single checks are not timed: only their sum is."""
    counts = {"tests": "testcase", "failures": "failure", "skipped": "skipped"}
    for name, tag in counts.items():
        element.set(name, str(sum(1 for _ in element.iter(tag))))
    element.set("errors", "0")
    element.set("time", "0")


def _text(x: str) -> str:
    return _CONTROL.sub("\ufffd", x)
