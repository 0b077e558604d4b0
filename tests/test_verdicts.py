"""What fails a run, and that nothing that fails loses the rest of it: each planted in a run of the whole command."""

import datetime
import itertools
import json
import os
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from test_conform import SCHEMA, xopt_command

import xopt
from xopt import backends
from xopt.conformance import Report, conform, ledger, suite
from xopt.conformance.compare.check import check_rule
from xopt.conformance.faults.planting import updating
from xopt.conformance.laws import check_laws
from xopt.conformance.report.html import write_html
from xopt.conformance.report.program import script
from xopt.conformance.results import HELD, IDENTICAL, WRONG, Cell
from xopt.conformance.stateful.check import check_machine
from xopt.conformance.target import Effort, Implementations, Target
from xopt.conformance.training import data, replay_rule

TARGETS = [Target(name, "cpu", "eager") for name in ("numpy", "array_api_strict")]


def changed(change: Callable[[Any], Any]) -> Implementations:
    """SGD whose new parameters are ``change`` of the right ones."""
    right = xopt.RULES["sgd"]

    def update(params: Any, grad: Any, c: Any) -> Any:
        return (change(right.elementwise(params, grad, c)[0]),)

    return Implementations(xopt.RULES | {"sgd": updating(right, update)})


def now_and_then(when: Callable[[int], bool]) -> Callable[[Any], Any]:
    """Shifts the parameters, at some calls."""
    calls = itertools.count()
    return lambda params: params + 1.0 if isinstance(params, np.ndarray) and when(next(calls)) else params * 1.0


class Racing:
    """A backend that reads some of its results wrongly, or fails to read them."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._numpy = backends.get("numpy")
        self._read = read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._numpy, name)

    def to_numpy(self, x: Any) -> Any:
        return self._read(np.array(x))


def on(monkeypatch: pytest.MonkeyPatch, read: Callable[[Any], Any]) -> None:
    """Has ``read`` read what array_api_strict computes."""
    real, racing = backends.get, Racing(read)
    monkeypatch.setattr(backends, "get", lambda name, device=None: racing if name == "array_api_strict" else real(name, device))


def raises(*_: Any, **__: Any) -> Any:
    msg = "illegal memory access"
    raise RuntimeError(msg)


@pytest.mark.parametrize("share", [0.5, 0.05, 0.003])
def test_a_race_is_a_wrong_cell_with_both_results(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    draw = random.Random(0)
    on(monkeypatch, lambda x: x + 1 if x.size > 1 and draw.random() < share else x)
    numpy, racing = check_rule("sgd", "float32", TARGETS, Effort(20, pool=4))
    assert (numpy.verdict, numpy.examples) == (IDENTICAL, 20)
    assert racing.verdict == WRONG
    assert racing.wrong is not None
    assert re.match("after step [0-9] a number is .*, and was ", racing.wrong["again"])
    assert "# not reproducible: " in script(racing.to_dict())


def test_an_error_that_is_not_raised_again_is_not_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = itertools.count()
    on(monkeypatch, lambda x: raises(x) if next(reads) == 100 else x)
    numpy, racing = check_rule("sgd", "float32", TARGETS, Effort(20, pool=4))
    assert (numpy.verdict, numpy.examples) == (IDENTICAL, 20)
    assert racing.wrong is not None
    assert racing.wrong["message"] == "RuntimeError: illegal memory access"
    assert racing.wrong["again"] == "nothing is raised"


def test_what_is_wrong_each_time_is_reproducible(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, lambda x: x + 1)
    _, wrong = check_rule("sgd", "float32", TARGETS, Effort(20, pool=4, shrink=False))
    assert wrong.wrong is not None
    assert wrong.wrong["again"] is None


SELDOM = random.Random(0)


@pytest.mark.parametrize("when", [lambda n: n == 30, lambda _: SELDOM.random() < 0.03], ids=["once", "seldom"])
def test_a_law_that_is_broken_now_and_then_is_not_reproducible(when: Callable[[int], bool]) -> None:
    laws = ["negation", "permutation", "no hidden state", "steps are counted"]
    results = check_laws("sgd", "float32", TARGETS[:1], Effort(3), changed(now_and_then(when)), laws)
    broken = [result.broken for result in results if result.broken is not None]
    assert {result.law for result in results} == {*laws}
    assert broken
    assert all("again" in details for details in broken)


def test_a_program_that_fails_once_is_not_reproducible() -> None:
    (result,) = check_machine("sgd", "float32", TARGETS[:1], Effort(10), changed(now_and_then(lambda n: n == 5)))
    assert result.broken is not None
    assert "not reproducible" in result.broken["again"]


def test_what_a_check_is_held_against_fails_in_each_of_its_cells() -> None:
    wrong = changed(raises)
    cells = check_rule("sgd", "float32", TARGETS, Effort(5, pool=3), wrong)
    assert [cell.wrong and cell.wrong["message"] for cell in cells] == ["RuntimeError: illegal memory access"] * 2


def test_a_step_that_cannot_be_made_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xopt.conformance.compare.candidate.fuse", raises)
    targets = [TARGETS[0], Target("numpy", "cpu", "fused")]
    right, unmade = check_rule("sgd", "float32", targets, Effort(5, pool=3))
    assert (right.verdict, unmade.verdict) == (IDENTICAL, WRONG)
    assert "illegal memory access" in script(unmade.to_dict())


def test_a_replay_that_is_wrong_or_fails_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (raises, lambda x: x + 1):
        with monkeypatch.context() as patch:
            on(patch, read)
            right, wrong = replay_rule("sgd", TARGETS, 3)
        assert (right.verdict, wrong.verdict) == (IDENTICAL, WRONG)
        assert (len(right.losses), len(wrong.losses)) == (3, 0)


def test_a_training_that_wants_a_library_that_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    train = data.train

    def without_products(rule: Any, backend: Any, steps: int) -> Any:
        if backend.name != "numpy":
            msg = "no libcublas"
            raise ImportError(msg)
        return train(rule, backend, steps)

    monkeypatch.setattr(data, "train", without_products)
    right, without = replay_rule("sgd", TARGETS, 3)
    assert (right.verdict, without.verdict) == (IDENTICAL, IDENTICAL)
    assert (len(right.losses), without.losses, without.divergence) == (3, [], None)
    assert without.explanation == ["not trained here: ImportError: no libcublas"]


# The whole run.


def run(**options: Any) -> Report:
    report = conform(**{"backends": ["numpy"], "rules": ["sgd"], "dtypes": ["float32"]} | options)
    jsonschema.validate(json.loads(json.dumps(report.to_dict(), allow_nan=False)), SCHEMA)
    return report


def test_a_right_run_has_no_problems_and_says_how_to_do_it_again() -> None:
    report = run()
    assert report.problems == []
    assert report.about["command"] == "xopt conform --rule sgd --backend numpy --dtype float32 --profile quick --seed 0"


def test_a_broken_law_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    real = suite.check_laws

    def broken(*arguments: Any) -> Any:
        results = real(*arguments)
        next(result for result in results if result.law == "negation").broken = {"what": "planted"}
        return results

    monkeypatch.setattr(suite, "check_laws", broken)
    (problem,) = run().problems
    assert problem == "sgd on numpy cpu, float32, eager: 'negation' is broken"


def test_a_wrong_replay_fails_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = suite.replay_rule

    def wrong(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            on(patch, lambda x: x + 1)
            return real(arguments[0], [TARGETS[1]], 3)

    monkeypatch.setattr(suite, "replay_rule", wrong)
    report = run(backends=["numpy", "array_api_strict"])
    assert report.problems == ["sgd on array_api_strict cpu, float32, eager: the comparison is wrong"]
    write_html(report.to_dict(), tmp_path / "page.html")


@pytest.mark.parametrize("state", ["stale", "unmatched", "expired"])
def test_a_row_that_is_not_true_fails_the_run(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    day = datetime.date(2000 if state == "expired" else 9999, 1, 1)
    check = "aggmo of one beta is momentum" if state == "unmatched" else "negation"
    row = ledger.Row(("sgd",), "numpy", "cpu", ("eager",), ("float32",), (check,), "r", "https://example.org", day)
    monkeypatch.setattr(ledger, "read", lambda: [row])
    report = run()
    assert [verdict.state for verdict in report.ledger.rows] == [state]
    assert report.problems == [report.ledger.rows[0].says]


def test_a_check_that_fails_itself_is_a_problem_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(suite, "check_laws", raises)
    report = run()
    (problem,) = report.problems
    assert problem.startswith("sgd float32 laws: the check itself failed, at raises in test_verdicts.py:")
    assert problem.endswith("RuntimeError: illegal memory access")
    assert [cell.verdict for cell in report.cells if cell.mode == "eager"] == [IDENTICAL]
    assert {law.verdict for law in report.laws} == {HELD}
    monkeypatch.setattr(suite, "check_rule", raises)
    write_html(run().to_dict(), tmp_path / "page.html")


def test_probes_that_fail_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    real = suite._probe
    monkeypatch.setattr(suite, "_probe", lambda name, *rest: raises(name) if name == "array_api_strict" else real(name, *rest))
    failed, unchecked = run(backends=["numpy", "array_api_strict"]).problems
    assert failed.startswith("array_api_strict cpu: the check itself failed")
    assert "array_api_strict was asked for, and nothing of it was checked: array_api_strict: its probes failed" in unchecked


def dies(*_: Any) -> Any:
    os._exit(1)


def lives(*_: Any) -> list[Cell]:
    return [Cell("sgd", "numpy", "cpu", "float32", "eager", elements=1, examples=10)]


def test_a_process_that_dies_is_a_problem_of_its_own_check(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [suite.Task("sgd", "dies", dies, ()), suite.Task("sgd", "lives", lives, ())]
    monkeypatch.setattr(suite, "_plan", lambda *_: ([], [], tasks))
    report = run(jobs=2)
    assert [p for p in report.problems if "died" in p] == ["sgd dies: the process died: a library crashed, or the memory was full"]
    assert len(report.cells) == 1


def test_fewer_examples_than_the_profile_says_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    real = suite.check_rule
    monkeypatch.setattr(suite, "check_rule", lambda *a: real(*a[:3], replace(a[3], examples=a[3].examples - 1)))
    assert "sgd on numpy cpu, float32, eager: the comparison ran on 9 examples of 10" in run().problems


# Nothing checked is not a pass.


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"backends": ["cupy"]}, "Nothing was checked: cupy: not installed"),
        ({"backends": ["numpy", "cupy"]}, "The backend cupy was asked for, and nothing of it was checked: cupy: not installed"),
        ({"backends": ["numpy"], "dtypes": ["bfloat16"]}, "Nothing was checked: numpy: numpy has no bfloat16."),
        (
            {"dtypes": ["float32", "bfloat16"]},
            "The dtype bfloat16 was asked for, and nothing of it was checked: numpy: numpy has no bfloat16.",
        ),
    ],
)
def test_what_was_asked_for_and_not_checked_fails_the_run(asked: dict[str, Any], problem: str) -> None:
    if "cupy" in asked.get("backends", ()) and backends.available()["cupy"].reason is None:
        pytest.skip("CuPy is here")
    (found,) = run(**asked).problems
    assert found.startswith(problem)


def test_a_further_device_of_a_cpu_runs_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    there = backends.Availability("jax", "0", ("cpu", "cpu:1", "gpu:0"), None)
    monkeypatch.setattr(backends, "available", lambda names: dict.fromkeys(names, there))
    assert suite._targets(["jax"]) == [("jax", "cpu"), ("jax", "gpu:0")]
    assert suite._targets(["jax:cpu:1"]) == [("jax", "cpu:1")]
    with pytest.raises(suite.UnknownNameError, match="unknown device '' of backend numpy; there are cpu"):
        suite._targets(["numpy:"])


def test_nothing_checked_fails_in_every_output(tmp_path: Path) -> None:
    data, page, junit = (tmp_path / f"report.{kind}" for kind in ("json", "html", "xml"))
    outputs = ["--json", str(data), "--html", str(page), "--junit", str(junit)]
    done = xopt_command("conform", "--backend", "numpy", "--dtype", "bfloat16", *outputs)
    assert done.returncode == 1, done.stderr
    problem = "Nothing was checked: numpy: numpy has no bfloat16."
    assert problem in " ".join(done.stdout.split())
    assert json.loads(data.read_text())["problems"] == [{"kind": "run", "says": problem}]
    assert problem in page.read_text()
    root = ElementTree.parse(junit).getroot()
    assert [suite.get("failures") for suite in root if suite.get("failures") != "0"] == ["1"]
    failure = root.find("testsuite[@name='run']/testcase/failure")
    assert failure is not None
    assert failure.get("message") == problem


def test_what_is_merely_not_there_in_a_run_of_everything_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = backends.available(["numpy", "array_api_strict", "cupy"])
    if absent["cupy"].reason is None:
        pytest.skip("CuPy is here")
    real = backends.available
    others = [name for name in backends.BACKENDS if name not in absent]
    monkeypatch.setattr(backends, "available", lambda names: absent if len(names) > 1 else real(names))
    monkeypatch.setattr(suite, "_unless_slow", lambda names, plan: names or list(absent))
    report = run(backends=None)
    slow = {cell.backend for cell in report.cells if "--backend" in str(cell.reason)}
    assert slow <= {name for name in others if backends.BACKENDS[name].slow}
    assert report.problems == []
    assert {cell.reason for cell in report.cells if cell.backend == "cupy"} == {absent["cupy"].reason}
