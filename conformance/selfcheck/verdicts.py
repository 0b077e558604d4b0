"""What must fail a run, put into a report, and how it is shown."""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from xopt.conformance import ledger, suite
from xopt.conformance.cli.app import app
from xopt.conformance.inputs.census import CensusRow
from xopt.conformance.report.html import write_html
from xopt.conformance.report.junit import write_junit
from xopt.conformance.report.report import BackendReport, Report
from xopt.conformance.report.text import symbol_of, tally
from xopt.conformance.results import BROKEN, HELD, IDENTICAL, NOT_RUN, SUBNORMALS, WITHIN, WRONG, Cell, LawResult
from xopt.conformance.selfcheck.checks import check, must
from xopt.conformance.training import Replay


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
        "time": "12:00:00",
        "seconds": 1.0,
    }
    for problems in ([], ["planted"]):
        right = suite.conform
        suite.conform = lambda *_, problems=problems: _report(about, problems)
        try:
            code = CliRunner().invoke(app(), ["conform", "--backend", "numpy"]).exit_code
        finally:
            suite.conform = right
        must(code == len(problems), f"the exit status is {code} with {len(problems)} problems")
        shown = _report(about, problems).to_dict()
        must([problem["says"] for problem in shown["problems"]] == problems, "problems are not written")
        with tempfile.TemporaryDirectory() as folder:
            write_html(shown, Path(folder) / "page.html")
            write_junit(shown, Path(folder) / "junit.xml")
            page = (Path(folder) / "page.html").read_text(encoding="utf-8")
            root = ElementTree.parse(Path(folder) / "junit.xml").getroot()
        must(('<h1 class="wrong">' in page) == bool(problems), "the page does not say that the run fails")
        must(sum(int(suite.attrib["failures"]) for suite in root) == len(problems), "the XML does not say that the run fails")
    must(symbol_of(right_cell(wrong={})) == "WRONG" and symbol_of(right_cell(elements=0)) == "-", "a table shows another verdict")
    must(
        symbol_of(right_cell(differ=1, ratio=0.999)) == "0.99" and symbol_of(right_cell()) == "bits", "a table shows another ratio"
    )
    must(tally([law(), law(broken={})]) == ("1 BROKEN", BROKEN) and tally([law(differ=1)])[0] == "0+1~", "laws are counted wrongly")


def _report(about: dict[str, Any], problems: list[str]) -> Report:
    """One with a cell that ran."""
    ran = Cell("sgd", "numpy", "cpu", "float32", "eager", elements=1)
    return Report(about, [BackendReport("numpy", "cpu", "2")], [ran], [], failures=problems)
