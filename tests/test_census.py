"""What a run drew and compared is counted, and a run that drew too little fails."""

from collections import Counter

import pytest

from xopt.conformance import PROFILES, Report, conform
from xopt.conformance.compare.check import check_rule
from xopt.conformance.inputs import census
from xopt.conformance.inputs.census import FLOORS, Floor, counted, look_at, saw, take_census
from xopt.conformance.results import Cell
from xopt.conformance.target import Effort, Target
from xopt.rules import RULES


def test_what_a_call_counts_is_its_own() -> None:
    saw("before", 7)
    result, counts = counted(lambda n: [saw("a", n), saw("a"), saw("never", False)] and n, 3)
    assert (result, counts) == (3, Counter({"a": 4}))


@pytest.mark.parametrize(("zeros", "fails"), [(0, True), (9, True), (10, False)])
def test_a_floor_is_a_share_of_what_came(monkeypatch: pytest.MonkeyPatch, zeros: int, fails: bool) -> None:
    monkeypatch.setattr(census, "FLOORS", [Floor("zeros", "numbers", 0.1)])
    _, row = take_census({"numbers": 109, "zeros": zeros}, whole=True)
    assert (row.of, row.opportunities, row.floor) == ("numbers", 109, 10)
    right = Cell("sgd", "numpy", "cpu", "float32", "eager", elements=1)
    problems = Report({}, [], [right], [], census=[row]).problems
    assert len(problems) == fails
    assert all("zeros: " in problem and "proves too little" in problem for problem in problems)


def test_a_floor_is_not_asked_where_chance_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "FLOORS", [Floor("zeros", "numbers", 0.1, whole=True)])
    assert [row.floor for row in take_census({"numbers": 49}, whole=True)] == [0, 0]
    assert [row.floor for row in take_census({"numbers": 50}, whole=True)] == [0, 5]
    assert [row.floor for row in take_census({"numbers": 50}, whole=False)] == [0, 0]
    assert take_census({}, whole=True) == []


def test_options_are_looked_at_where_they_are_used() -> None:
    rule = RULES["ademamix"]
    hyper = {"beta1": 0.0, "beta3_warmup": 3, "alpha_warmup": None, "lr": {"a": 0.0, "b": 0.5}}
    _, counts = counted(look_at, "x", rule, hyper)
    assert counts["x: decays"] == 3
    assert counts["x: decays of 0"] == 1
    assert counts["x: decays above 0.99"] == 2
    assert (counts["x: warm-ups"], counts["x: warm-ups that are on"]) == (2, 1)
    assert counts["x: rates of 0"] >= 1
    assert counts["x: settings of defaults alone"] == 0
    _, counts = counted(look_at, "x", RULES["aggmo"], {})
    assert (counts["x: sequences of betas"], counts["x: sequences of betas of three or more"]) == (1, 1)
    assert counts["x: settings of defaults alone"] == 1


def test_floors_are_of_things_that_are_counted_and_below_what_comes() -> None:
    report = conform(["numpy"], ["aggmo", "ademamix", "qhadam"], ["float32", "float16"], "quick")
    assert report.problems == []
    rows = {row.what: row for row in report.census}
    floors = {floor.what: floor for floor in FLOORS}
    assert rows.keys() >= floors.keys()
    for what, floor in floors.items():
        assert rows[what].of == floor.of
        assert rows[what].opportunities == rows[floor.of].count
        if not floor.whole and rows[what].floor:  # what is rarer is left to chance
            assert rows[what].count >= floor.share * rows[what].opportunities, rows[what]
    assert rows["cells: examples"].count == 3 * sum(PROFILES["quick"].cells(dtype) for dtype in ("float32", "float16"))


def test_processes_hand_over_what_they_counted() -> None:
    arguments = ["numpy"], ["sgd"], ["float16"], "quick", 0
    assert conform(*arguments, jobs=2).census == conform(*arguments).census


def test_an_example_counts_once_for_all_backends() -> None:
    targets = [Target(name, "cpu", "eager") for name in ("numpy", "array_api_strict")]
    _, counts = counted(check_rule, "sgd", "float32", targets, Effort(5, pool=3))
    assert counts["cells: examples"] == counts["cells: examples in float32"] == 5
    assert counts["cells: numbers compared"] > counts["cells: gradients"]
