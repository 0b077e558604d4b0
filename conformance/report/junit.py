"""A report as JUnit XML, which CI services show as tests."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from xopt.conformance.report.program import law_details, law_words, script
from xopt.conformance.report.vocabulary import BAD
from xopt.conformance.results import BROKEN, NOT_RUN, WRONG

_CONTROL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold."""


class Case(NamedTuple):
    """One test case."""

    suite: str
    classname: str
    name: str
    verdict: str
    seconds: float | None = None
    failure: str = ""  # its message
    details: str = ""  # its text
    skipped: str = ""
    measured: str = ""


def write_junit(report: dict[str, Any], path: Path) -> None:
    """Writes ``junit_of`` a report to a file."""
    path.write_text(junit_of(report), encoding="utf-8")


def junit_of(report: dict[str, Any]) -> str:
    """A report, as ``Report.to_dict`` gives it, in the elements that the usual schemas have: windyroad's and Jenkins's.

    A backend on a device and in a mode is a test suite; a cell, a law and a replay are test cases in it. What is wrong or broken
    is a failure, with the program that shows it; what did not run is skipped, with the reason. A row of the ledger that fails the
    run is a failure in a suite of its own, and the run as a whole is a test case that fails with all of its problems. What was
    asked for is in the properties of each suite, and what was measured in its output.
    """
    suites: dict[str, list[Case]] = {"run": [_run(report)], "ledger": list(_ledger(report))}
    for case in (*_cells(report), *_laws(report), *_replays(report)):
        suites.setdefault(case.suite, []).append(case)
    root = ElementTree.Element("testsuites")
    for name, cases in suites.items():
        if cases:
            add_suite(root, name, cases, report)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(result: dict[str, Any]) -> str:
    return " ".join(filter(None, (result["backend"], result["device"], result["mode"])))


def _checked(result: dict[str, Any], name: str, measured: str, details: str) -> Case:
    """Of a result of the suite."""
    suite, verdict = _suite(result), result["verdict"]
    case = Case(suite, result["rule"], name, verdict, result.get("seconds"), measured=measured)
    if verdict in BAD:
        return case._replace(failure=f"{verdict}: {result['rule']} {name} on {suite}", details=details)
    if verdict == NOT_RUN:
        return case._replace(skipped=result.get("reason") or "nothing was compared")
    return case


def _ratios(cell: dict[str, Any]) -> str:
    return ", ".join(f"{name} {cell[key]:.4g}" for key, name in _RATIOS.items() if cell[key] is not None)


_RATIOS = {"ratio": "error/bound of a step", "trajectory_ratio": "of a trajectory"}


def _shown(cell: dict[str, Any]) -> str:
    """The program, and before it what was raised."""
    return "\n".join(filter(None, [cell["wrong"].get("traceback"), script(cell)])) if cell["verdict"] == WRONG else ""


def _cells(report: dict[str, Any]) -> Iterator[Case]:
    for cell in report["cells"]:
        yield _checked(cell, f"{cell['dtype']} bits and bound", _ratios(cell), _shown(cell))


def _laws(report: dict[str, Any]) -> Iterator[Case]:
    for law in report["laws"]:
        details = ""
        if law["verdict"] == BROKEN:
            rest = (f"{name}: {value}" for name, value in law_details(law["broken"]).items())
            details = "\n".join([law_words(law["broken"]), *rest])
        measured = "" if law["ratio"] is None else f"distance/bound {law['ratio']:.4g}"
        yield _checked(law, f"{law['dtype']} {law['law']}", measured, details)


def _replays(report: dict[str, Any]) -> Iterator[Case]:
    for replay in report["replays"]:
        yield _checked(replay, f"{replay['dtype']} digits", _ratios(replay["replayed"]), _shown(replay["replayed"]))


def _ledger(report: dict[str, Any]) -> Iterator[Case]:
    for number, row in enumerate(report["ledger"], start=1):
        state = row["state"]
        name = f"row {number}: {row['backend']} {row['device']}, {', '.join(row['checks'])}"
        case = Case("ledger", "ledger", name, state)
        if state == "not judged":
            case = case._replace(skipped=row["says"])
        elif state != "accepted":
            case = case._replace(failure=f"{state}: {row['says']}", details=row["reason"])
        yield case


def _run(report: dict[str, Any]) -> Case:
    """So that nothing that fails a run passes here: what was not checked, or not drawn, has no test case of its own."""
    case = Case("run", "run", "the run has no problems", report["verdict"])
    if report["problems"]:
        says = [problem["says"] for problem in report["problems"]]
        return case._replace(failure=says[0], details="\n".join(says))
    return case


def add_suite(root: ElementTree.Element, name: str, cases: Sequence[Case], report: dict[str, Any]) -> None:
    """A test suite, with all that the schemas ask of one."""
    about = report["about"]
    counts = {"failures": sum(bool(case.failure) for case in cases), "skipped": sum(bool(case.skipped) for case in cases)}
    seconds = sum(case.seconds or 0.0 for case in cases) if name != "run" else about["seconds"]
    attributes = {"name": name, "package": "xopt", "id": len(root), "hostname": "localhost"} | counts
    attributes |= {"tests": len(cases), "errors": 0, "time": f"{seconds:.4f}", "timestamp": f"{about['date']}T{about['time']}"}
    suite = ElementTree.SubElement(root, "testsuite", {key: _text(str(value)) for key, value in attributes.items()})
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in {"scope": report["scope"]["says"], "command": about["command"], "verdict": report["verdict"]}.items():
        ElementTree.SubElement(properties, "property", name=key, value=_text(value))
    for case in cases:
        place = {"classname": _text(case.classname), "name": _text(case.name), "time": f"{case.seconds or 0.0:.4f}"}
        element = ElementTree.SubElement(suite, "testcase", place)
        if case.failure:
            ElementTree.SubElement(element, "failure", type=_text(case.verdict), message=_text(case.failure)).text = _text(
                case.details
            )
        elif case.skipped:
            ElementTree.SubElement(element, "skipped", message=_text(case.skipped))
    lines = [f"{case.classname}, {case.name}: {case.verdict}{case.measured and f'; {case.measured}'}" for case in cases]
    ElementTree.SubElement(suite, "system-out").text = _text("\n".join(lines))
    ElementTree.SubElement(suite, "system-err")


def _text(x: str) -> str:
    return _CONTROL.sub("\ufffd", x)
