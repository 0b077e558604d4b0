"""The benchmark: that it steps what it says, compares within a run, and says what did not run. Never how long anything takes."""

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import xopt
from xopt.conformance.bench import BY_HAND, bench, loop, overhead
from xopt.conformance.bench import leaf_costs as leaf_costs_of
from xopt.conformance.bench.checks import FIGURES, checks
from xopt.conformance.bench.contender import FUSED, LIMIT, PEER, Contender, Running, numbers, program_of
from xopt.conformance.bench.contenders import contenders
from xopt.conformance.bench.limits import SCALE, touching
from xopt.conformance.bench.measure import LEAST, Spread, interleave, ratio, spread
from xopt.conformance.bench.page import page_of
from xopt.conformance.bench.processes import first_call, memory
from xopt.conformance.bench.shapes import LADDER, TREES, one_leaf, size_of
from xopt.conformance.bench.show import amount, between, duration, finding, is_unsteady, markdown, three_digits, unsteady
from xopt.conformance.bench.suite import BenchEvents, Entry, that_fit
from xopt.conformance.cli.app import app
from xopt.conformance.report.drawing import apart

SHAPES = ((3, 2), (5,))


def columns(state: Any) -> list[Any]:
    return [tuple(x for x in c if x is not None) if isinstance(c, tuple) else c for c in state[:-1]]


@pytest.mark.parametrize("name", BY_HAND)
def test_formula_by_hand_gives_the_same_bits(name: str) -> None:
    rule = xopt.RULES[name]
    draw = np.random.default_rng(0)
    state = rule.init(draw.standard_normal(10).astype(np.float32))
    for t in range(1, 6):
        grad = draw.standard_normal(10).astype(np.float32)
        new = rule.step(state, grad)
        by_hand = BY_HAND[name](*columns(state), grad, t)
        assert np.array_equal(new.params, by_hand[0])
        state = new


def test_overhead_is_a_ratio_of_two_times() -> None:
    found = overhead("sgd", runs=3, number=20)
    assert found.step > 0
    assert found.by_hand > 0
    assert 0.1 < found.ratio < 100


# What is stepped


def test_shapes_of_resnet_50() -> None:
    tree = TREES["resnet50"]
    assert tree.leaves == 161
    assert tree.numbers == 25_557_032
    assert tree.shapes[0] == (64, 3, 7, 7)
    assert tree.shapes[-2:] == ((1000, 2048), (1000,))


@pytest.mark.parametrize(
    ("text", "numbers", "name"),
    [
        ("10", 10, "10"),
        ("1e6", 10**6, "10^6"),
        ("10^7", 10**7, "10^7"),
        ("2^28", 2**28, "2^28"),
        ("1000", 1000, "10^3"),
        ("12", 12, "12"),
    ],
)
def test_sizes_by_name(text: str, numbers: int, name: str) -> None:
    size = size_of(text)
    assert (size.numbers, size.leaves, size.name) == (numbers, 1, name)
    assert size_of(name) == size


def test_leaves_by_shape() -> None:
    assert size_of("8x64x32") == ("8x64x32", ((64, 32),) * 8)
    assert size_of("3x5").shapes == ((5,),) * 3


def test_steps_in_a_loop_are_compared() -> None:
    for library in ("torch", "jax", "optax", "numba"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    found = loop.in_loop(size_of("2x3x4"), 0, rounds=3)
    assert [(row.rule, row.contender, row.beside) for row in found] == list(loop.BESIDE)
    for row in found:
        assert 0 < row.ratio.low <= row.ratio.median <= row.ratio.high
        bytes_of = {"adamw": 28, "ademamix": 36}
        other = 28 if "AdamW" in row.beside else bytes_of[row.rule]
        assert row.per_byte.median == pytest.approx(row.ratio.median * other / bytes_of[row.rule])


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "ten", "1e99", "resnet", "1e6 ", "0x3", "3x", "3x0"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown size .* 8x64x64, or resnet50"):
        size_of(text)


def test_many_leaves_are_as_many_numbers_as_the_one_beside_them() -> None:
    assert TREES["1000x1000"].leaves == 1000
    assert TREES["1000x1000"].numbers == 10**6
    assert [size.numbers for size in LADDER] == [10, 10**3, 10**5, 10**6, 10**7]


def first_steps(rule: str) -> list[Contender]:
    return [one for one in contenders(rule, peers=True) if one.why_not() is None]


@pytest.mark.parametrize("rule", ["ademamix", "lion", "aggmo", "nadam", "adamw"])
def test_each_contender_takes_the_step_that_it_stands_for(rule: str) -> None:
    """Two steps, with the same gradients each time; the same values as the eager NumPy step of the rule that it steps."""
    ran = set()
    for one in first_steps(rule):
        running = one.prepare(SHAPES, 3)
        params, grads = numbers(SHAPES, 3)
        for _ in range(2):
            running.step()
            if running.between is not None:  # which brings the same numbers in other arrays
                running.between()
        running.wait()
        got = running.params()
        assert [x.shape for x in got] == list(SHAPES) or one.name == "copy"
        if one.name == "touch":
            want = [x + np.float32(SCALE) * g + np.float32(SCALE) * g for x, g in zip(params, grads, strict=True)]
        elif one.kind == LIMIT:
            want, got = [np.concatenate([x.ravel() for x in params])], [np.concatenate([x.ravel() for x in got])]
        else:
            state = xopt.RULES[one.steps].init(params)
            for _ in range(2):
                state = xopt.RULES[one.steps].step(state, grads)
            want = state.params
        exact = one.library in ("numpy", "numba")
        for x, y in zip(got, want, strict=True):
            np.testing.assert_allclose(x, y, rtol=0 if exact else 1e-5, atol=0 if exact else 2e-6, err_msg=one.name)
        ran.add(one.name)
    assert {"numpy fused", "numpy eager", "by hand", "touch", "copy"} <= ran


def test_every_place_and_every_peer_is_listed_whether_it_can_run_or_not() -> None:
    names = [one.name for one in contenders("ademamix", peers=True)]
    assert len(names) == len(set(names))
    for place in ("numpy", "torch cpu", "torch cuda:0", "jax cpu", "jax gpu:0", "cupy cuda:0"):
        assert {f"{place} fused", f"{place} eager"} <= set(names)
    assert {"optax", "pytorch_optimizer", "torch AdamW loop", "torch AdamW foreach", "torch AdamW fused"} <= set(names)
    assert not [one for one in contenders("ademamix") if one.kind == PEER]


def test_bytes_are_those_of_the_rule_that_is_stepped() -> None:
    moved = {one.name: one.bytes_per_number for one in contenders("ademamix", peers=True)}
    assert moved["numpy fused"] == moved["by hand"] == moved["touch"] == moved["optax"] == 4 * 9
    assert moved["torch AdamW fused"] == 4 * 7
    assert moved["copy"] == 4 * 2


@pytest.mark.parametrize("rule", xopt.RULES)
def test_touch_moves_the_same_arrays_with_next_to_no_arithmetic(rule: str) -> None:
    program = program_of(rule)
    touch = touching(program)
    assert touch.reads == program.reads == program.arrays
    assert list(touch.writes) == list(program.writes)
    assert touch.bytes_per_number(4, 4) == program.bytes_per_number(4, 4)
    assert len(touch.operations) == 1 + len(program.writes)


# How it is timed


class Counted:
    def __init__(self) -> None:
        self.steps = self.waits = 0

    def running(self) -> Running:
        return Running(self.step, self.wait, list)

    def step(self) -> None:
        self.steps += 1

    def wait(self) -> None:
        self.waits += 1


def test_all_take_turns_in_each_round() -> None:
    counted = [Counted(), Counted(), Counted()]
    passed: list[float] = []
    turns = interleave([one.running() for one in counted], 0, 0, told=passed.append)
    assert len(passed) == LEAST
    for one, found in zip(counted, turns, strict=True):
        assert len(found.rounds) == LEAST
        assert found.rounds[0] is not None
        assert one.steps > found.steps * sum(x is not None for x in found.rounds)
        assert one.waits > LEAST / 4


def test_ratios_are_taken_within_rounds() -> None:
    assert ratio([1.0, 20.0, 3.0], [2.0, 40.0, None]) == Spread(0.5, 0.5, 0.5)
    assert ratio([2.0, 4.0], [1.0, 1.0], 0.5) == Spread(1.5, 1.25, 1.75)
    assert ratio([1.0, None], [None, 1.0]) is None
    assert spread([5.0]) == Spread(5.0, 5.0, 5.0)


def test_what_does_not_fit_is_left_out_and_the_first_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xopt.conformance.bench.suite.free_memory", lambda: 10**6)
    listed = contenders("ademamix")
    taken, left_out = that_fit([Entry(one, one_leaf(10_000)) for one in listed])
    assert taken[0].contender.name == "numpy fused"
    assert sum(entry.keeps for entry in taken) + max(entry.takes for entry in taken) <= 0.8e6
    assert len(taken) + len(left_out) == len(listed)
    assert all("no room" in row["reason"] for row in left_out)
    assert "numpy eager" in {row["contender"] for row in left_out}


# What is reported


class Heard(BenchEvents):
    def __init__(self) -> None:
        self.total = self.gone = 0.0
        self.shown: list[str] = []

    def planned(self, seconds: float) -> None:
        self.total = seconds

    def passed(self, seconds: float) -> None:
        self.gone += seconds

    def overheads(self, found: Any) -> None:
        self.shown += ["overheads", found[0]["rule"]]

    def run(self, found: Any) -> None:
        self.shown.append(found["name"])


HEARD = Heard()


@pytest.fixture(scope="module")
def report() -> Any:
    chosen = [size_of("10"), size_of("1000")]
    return bench(["sgd"], chosen, peers=True, seconds=0, seed=1, processes=False, limits=True, events=HEARD)


def test_report_holds_everything_and_goes_through_json(report: Any) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert [run["name"] for run in report["runs"]] == ["10", "10^3"]
    able = {row["name"] for row in report["contenders"] if row["reason"] is None}
    assert {"numpy fused", "touch", "copy"} <= able
    assert {row["name"] for row in report["contenders"]} == {one.name for one in contenders("sgd", peers=True)}
    for run in report["runs"]:
        assert {entry["contender"] for entry in run["entries"]} | {row["contender"] for row in run["left_out"]} == able
        for entry in run["entries"]:
            times = [x for x in entry["rounds"] if x is not None]
            assert entry["seconds"]["low"] <= entry["seconds"]["median"] <= entry["seconds"]["high"]
            assert min(times) * 0.999 <= entry["seconds"]["median"] <= max(times) * 1.001
            assert entry["to_touch"] is not None
    assert [row["rule"] for row in report["overhead"]] == ["sgd"]
    for key in ("xopt", "python", "versions", "cpu", "machine", "date", "command", "seed", "seconds", "load"):
        assert key in report["about"]
    assert report["about"]["versions"]["numpy"] == np.__version__


def test_events_tell_of_each_part(report: Any) -> None:
    assert HEARD.shown == ["overheads", "sgd", "10", "10^3"]
    assert HEARD.total > 0
    assert HEARD.gone > 0


def test_one_that_fails_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        msg = "no such thing"
        raise ValueError(msg)

    def some(rule: str, peers: bool) -> list[Contender]:
        return [
            one._replace(prepare=broken) if one.name == "copy" else one for one in contenders(rule)[:8] if one.library == "numpy"
        ]

    monkeypatch.setattr("xopt.conformance.bench.suite.contenders", some)
    monkeypatch.setattr("xopt.conformance.bench.suite.overhead", lambda rule: overhead(rule, runs=2, number=2))
    found = bench(["sgd"], [one_leaf(10)], seconds=0, processes=False)
    assert found["runs"][0]["left_out"] == [{"contender": "copy", "size": "10", "reason": "ValueError: no such thing"}]
    assert [entry["contender"] for entry in found["runs"][0]["entries"]] == ["numpy fused"]


def made_up() -> dict[str, Any]:
    """A report in which everything ran: with each figure just at its limit, or with the peers a hundred times as slow."""
    rules = list(xopt.RULES)
    listed = [(rule, one) for rule in rules for one in contenders(rule, peers=True)]
    sizes = [*LADDER, one_leaf(10**8), one_leaf(2**28), *TREES.values()]

    def entry(one: Contender, size: Any) -> dict[str, Any]:
        pace = {FUSED: 1.05, LIMIT: 1.0, PEER: 100.0}.get(one.kind, 40.0)
        rounds = [1e-11 * pace * factor * size.numbers * one.bytes_per_number for factor in (1.0, 1.1, 1.0, 1.2)]
        return {
            "contender": one.name,
            "size": size.name,
            "numbers": size.numbers,
            "leaves": size.leaves,
            "bytes": size.numbers * one.bytes_per_number,
            "steps": 1,
            "seconds": spread(rounds)._asdict(),
            "to_touch": Spread(pace, pace, pace)._asdict(),
            "rounds": rounds,
        }

    runs = []
    for rule in rules:
        own = [one for name, one in listed if name == rule]
        for size in sizes:
            beside = [one_leaf(10**6)] if size.name == "1000x1000" else []
            runs.append(
                {
                    "rule": rule,
                    "name": size.name,
                    "entries": [entry(one, s) for s in [size, *beside] for one in own],
                    "left_out": [],
                }
            )
        linear = [entry(one, one_leaf(10**power)) for power in (6, 7, 8) for one in own if one.kind == FUSED]
        runs.append({"rule": rule, "name": "linear", "entries": linear, "left_out": []})
    kept = ("name", "library", "device", "kind", "steps", "bytes_per_number")
    return {
        "scope": "all rules, float32; sizes 10 to 10^7",
        "schema": "xopt-bench-2",
        "about": {
            "interrupted": None,
            "devices": {},
            "xopt": "0.1.0",
            "python": "3.11.7",
            "versions": {"numpy": "2.4.6"},
            "machine": "x86_64, 2 cores, Linux",
            "cpu": "<b>a CPU</b>",
            "variables": {"OMP_NUM_THREADS": "2"},
            "load": 0.1,
            "date": "2026-11-24",
            "command": "xopt bench --rule all <script>",
            "seed": 0,
            "seconds_of_a_run": 8.0,
            "seconds": 600.0,
        },
        "rules": rules,
        "sizes": [{"name": size.name, "leaves": size.leaves, "numbers": size.numbers} for size in sizes],
        "peers": True,
        "contenders": [{key: one._asdict()[key] for key in kept} | {"rule": rule, "reason": None} for rule, one in listed],
        "overhead": [{"rule": rule, "step": 20.0, "by_hand": 10.0, "ratio": 2.0} for rule in rules],
        "loop": [],
        "runs": runs,
        "memory": [
            {"rule": rule, "contender": one.name, "size": size.name, "extra": 4096, "kept": 0, "reason": None}
            for rule, one in listed
            if one.kind == FUSED
            for size in sizes
        ],
        "first_calls": [
            {"rule": rule, "contender": one.name, "empty": 2.0, "again": 0.5, "reason": None}
            for rule, one in listed
            if one.kind == FUSED
        ],
    }


def test_every_figure_can_hold_and_can_miss() -> None:
    report = made_up()
    assert [check for check in checks(report) if check["holds"] is not True] == []
    for run in report["runs"]:
        for entry in run["entries"]:
            one_leaf_of_many = run["name"] == "1000x1000" and entry["size"] == "10^6"
            if "fused" in entry["contender"] and "AdamW" not in entry["contender"] and not one_leaf_of_many:
                slower = 200 * (2 if run["name"] == "linear" and entry["size"] == "10^8" else 1)
                entry["rounds"] = [slower * x for x in entry["rounds"]]
    for row in report["memory"]:
        row["extra"] = 2_000_000
    for row in report["first_calls"]:
        row["empty"] = 4.0
    assert [check["asked"] for check in checks(report) if check["holds"] is not False] == []


def test_figures_are_those_of_the_limits() -> None:
    rows = checks(made_up())
    found = {check["asked"]: check["found"]["median"] for check in rows}
    assert math.isclose(found["numpy fused / touch, 10^7"], 1.05)
    assert math.isclose(found["numpy fused / torch AdamW fused, per byte, 10^7"], 0.0105)
    assert math.isclose(found["jax cpu fused, peak memory beyond the state"], 0.004096)
    assert math.isclose(found["cupy cuda:0 fused, share of copy bandwidth, 2^28"], 1 / 1.05)
    words = {check["asked"]: finding(check) for check in rows}
    assert words["numpy fused / touch, 10^7"] == "1.05"
    rule, _, seconds = words["jax cpu fused, first call, the slowest rule"].partition(": ")
    assert rule in xopt.RULES
    assert seconds == "2.00 s"


def test_what_did_not_run_is_said_with_the_reason(report: Any) -> None:
    found = {check["asked"]: check for check in report["checks"]}
    assert len(found) == len(FIGURES)
    assert all(check["holds"] is None and check["found"] is None for check in found.values())
    assert found["numpy fused / touch, 10^7"]["reason"] == "ademamix was not asked for: --rule ademamix"
    assert (
        found["numpy fused / touch, the worst of all rules, 10^7"]["reason"]
        == f"asked for 1 of {len(xopt.RULES)} rules: --rule all"
    )
    assert found["numpy fused, peak memory beyond the state"]["reason"] == "only times were asked for"


def without_peers(report: dict[str, Any]) -> None:
    report.update(peers=False, contenders=[row for row in report["contenders"] if row["kind"] != PEER])


def without_numba(report: dict[str, Any]) -> None:
    for row in report["contenders"]:
        row["reason"] = "numba is not installed" if row["name"] == "touch" else None


def not_on_linux(report: dict[str, Any]) -> None:
    for row in report["memory"]:
        row["reason"] = "known on Linux only"


def never_together(report: dict[str, Any]) -> None:
    for run in report["runs"]:
        for entry in run["entries"]:
            entry["rounds"] = [None]


TOUCH = "numpy fused / touch, 10^7"


@pytest.mark.parametrize(
    ("change", "asked", "reason"),
    [
        (lambda report: report["runs"].clear(), TOUCH, "10^7 was not asked for: --size 10^7"),
        (
            lambda report: report["sizes"].clear(),
            "numpy fused, slowest / fastest time of a number, 10^6 to 10^8",
            "10^6 was not asked for",
        ),
        (lambda report: report["contenders"].clear(), TOUCH, "numpy fused was not asked for"),
        (without_peers, "numpy fused / optax, 10^7", "the peers were not asked for: --peers"),
        (without_numba, TOUCH, "numba is not installed"),
        (not_on_linux, "numpy fused, peak memory beyond the state", "known on Linux only"),
        (never_together, TOUCH, "never took turns"),
    ],
)
def test_reasons(change: Any, asked: str, reason: str) -> None:
    report = made_up()
    change(report)
    (found,) = [check for check in checks(report) if check["asked"] == asked]
    assert found["holds"] is None
    assert reason in found["reason"]


def test_left_out_is_a_reason_too() -> None:
    report = made_up()
    run = next(run for run in report["runs"] if (run["rule"], run["name"]) == ("ademamix", "10^7"))
    run["entries"] = [entry for entry in run["entries"] if entry["contender"] != "touch"]
    run["left_out"] = [{"contender": "touch", "size": "10^7", "reason": "there is no room for it"}]
    assert checks(report)[0]["reason"] == "touch: there is no room for it"


# In processes of their own


def test_memory_beyond_the_state_is_measured() -> None:
    if not Path("/proc/self/clear_refs").exists():
        with pytest.raises(RuntimeError, match="Linux only"):
            memory("sgd", "by hand", ["10"], 0)
        return
    (small, large) = memory("momentum", "by hand", ["10", "1e6"], 0)
    assert small["size"] == "10"
    assert small["extra"] < 1_000_000
    assert 8_000_000 <= large["extra"] < 30_000_000  # new params and a new slot at least


def test_first_calls_are_measured_and_failures_said() -> None:
    found = first_call("sgd", "numpy fused", 0)
    assert found["empty"] > 0
    assert found["again"] > 0
    with pytest.raises(RuntimeError, match="StopIteration"):
        memory("sgd", "nobody", ["10"], 0)


# The page and the command


class Page(HTMLParser):
    """Asserts that tags are balanced; keeps the attributes and the words."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def written(report: dict[str, Any]) -> str:
    return page_of(report | {"checks": checks(report)})


def stands_alone(text: str) -> Page:
    page = Page(text)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "base"}
    assert all(value.startswith("#") for name, value in page.attributes if name in ("src", "href", "xlink:href"))
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = {value[1:] for name, value in page.attributes if name in ("href", "xlink:href")} | set(
        re.findall(r"url\(#(\w+)\)", text)
    )
    assert used <= set(ids)
    return page


def made_up_of(*rules: str) -> dict[str, Any]:
    """Of some rules: each takes a second to plot."""
    report = made_up()
    return report | {"rules": list(rules), "runs": [run for run in report["runs"] if run["rule"] in rules]}


def test_page_of_all_rules_stands_alone_and_shows_everything(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = made_up_of("ademamix", "lion")
    report["runs"][0]["left_out"] = [{"contender": "optax", "size": "10", "reason": "<i>why</i>"}]
    text = written(report)
    page = stands_alone(text)
    assert "svg" in page.tags
    assert text.count("<svg") == 1 + 2 * 5  # of all rules; of each the lines, the bars of a leaf and two trees, the memory
    assert "var(--ink)" in text
    assert "#00f0" not in text
    assert "<script>" not in text
    for words in ("<b>a CPU</b>", "<i>why</i>", "OMP_NUM_THREADS=2", "numpy fused / touch, 10⁷", "limit 1.15", "holds"):
        assert words in page.text
    assert len(text.encode()) < 2_000_000


def test_page_of_a_small_run_says_what_did_not_run(report: Any, tmp_path: Path) -> None:
    page = stands_alone(written(report))
    assert "not run" in page.text
    for row in report["contenders"]:
        assert row["name"] in page.text


def test_page_without_matplotlib_has_tables(report: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xopt.conformance.bench.page.missing", lambda module: f"{module} is not installed")
    page = stands_alone(written(report))
    assert "svg" not in page.tags
    assert "matplotlib is not installed" in page.text
    assert "numpy fused" in page.text


def test_labels_move_apart_as_little_as_possible() -> None:
    assert apart([0.0, 1.0], 0.5) == [0.0, 1.0]
    assert apart([1.0, 1.0, 5.0], 1.0) == [0.5, 1.5, 5.0]
    assert apart([], 1.0) == []


def test_words_for_times_and_amounts() -> None:
    assert [duration(x) for x in (2.5, 0.0061, 12e-6, 3e-9)] == ["2.50 s", "6.10 ms", "12.0 µs", "3.00 ns"]
    assert [amount(x) for x in (0, 4096, 240e6, 2.5e9)] == ["0 B", "4.10 kB", "240 MB", "2.50 GB"]
    assert [three_digits(x) for x in (0, 0.0123, 0.12, 1.234, 12.34, 99.97, 1234)] == [
        "0",
        "0.012",
        "0.12",
        "1.23",
        "12.3",
        "100",
        "1,234",
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rule", "AdamX"], "did you mean adam?"),
        (["--rule", "lion,lions"], "unknown rule 'lions'"),
        (["--size", "10,many"], "unknown size 'many'"),
        (["--only", "nobody"], "no contender has 'nobody'"),
        (["--json", "/nowhere/at/all.json"], "cannot be written: No such file or directory"),
        (["--html", "/nowhere/at/all.html"], "cannot be written: No such file or directory"),
    ],
)
def test_bad_usage_exits_with_2_and_says_why(arguments: list[str], complaint: str) -> None:
    done = CliRunner().invoke(app(), ["bench", *arguments])
    assert done.exit_code == 2, done.output
    assert complaint in " ".join(done.stderr.replace("│", " ").split())


def test_command_shows_and_writes_what_it_found(tmp_path: Path) -> None:
    data, page = tmp_path / "bench.json", tmp_path / "bench.html"
    options = ["--size", "10,100", "--size", "12", "--seconds", "0", "--only", "numpy,touch"]
    command = [sys.executable, "-P", "-m", "xopt.conformance", "bench", "--rule", "sgd", *options]
    outputs = ["--json", str(data), "--html", str(page)]
    done = subprocess.run([*command, *outputs], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(data.read_text())
    assert [run["name"] for run in report["runs"]] == ["10", "12", "100"]
    assert {row["contender"] for row in report["memory"]} == {"numpy fused", "numpy eager"}
    assert [row["contender"] for row in report["first_calls"]] == ["numpy fused"]
    asked = "xopt bench --rule sgd --size 10,100 --size 12 --only numpy,touch --seconds 0.0 --seed 0"
    assert report["about"]["command"] == f"{asked} --json {data} --html {page}"
    assert report["checks"] == []
    assert 'id="limits"' not in page.read_text(encoding="utf-8")
    assert "hold" not in done.stdout
    stands_alone(page.read_text(encoding="utf-8"))
    for words in ("a small eager step", "sgd, 12, float32", "peak memory of a step", "first call of a fused step", "a step, "):
        assert words in done.stdout


def test_leaves_cost_alike_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, few in (("MANY", 20), ("FEW", 5), ("MOST", 50), ("ROUNDS", 2)):
        monkeypatch.setattr(leaf_costs_of, name, few)
    for rule, forms in (("sgd", 1), ("aggmo", 2), ("nadam", 2)):
        found = leaf_costs_of.leaf_costs(rule)
        assert [(cost.form, cost.mode) for cost in found] == [
            (form, mode) for form in ("defaults", "decays of 0")[:forms] for mode in ("eager", "fused")
        ]
        assert all(min(cost.microseconds, cost.ratio, cost.growth) > 0 for cost in found)


def test_a_median_that_means_little_is_called_unsteady() -> None:
    steady, wild = Spread(1.0, 0.9, 1.8)._asdict(), Spread(1879.0, 16.8, 4863.0)._asdict()
    assert not unsteady(steady)
    assert between(steady) == "1.00 (0.90-1.80)"
    assert between(wild) == "1,879 (16.8-4,863), unsteady"
    report = made_up_of("ademamix")
    assert not is_unsteady(report)
    entry = next(run for run in report["runs"] if (run["rule"], run["name"]) == ("ademamix", "10^7"))["entries"][0]
    entry["seconds"], entry["to_touch"] = wild, wild
    assert is_unsteady(report)
    assert "unsteady: the quartiles are more than 2 times apart" in markdown(report | {"checks": []}).partition("\n")[0].lower()
    assert Page(written(report)).text.count("unsteady") >= 2


def test_a_page_has_no_limits_that_nobody_asked_for() -> None:
    report = made_up_of("lion")
    page = Page(page_of(report | {"checks": []}))
    assert "holds" not in page.text
    assert "at most" not in page.text
    assert report["scope"].replace("10^7", "10⁷") in page.text.partition("How to read it")[0]
    assert report["about"]["command"] in page.text
    assert "Limits that xopt sets itself" in Page(written(report)).text
