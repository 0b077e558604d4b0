"""Experiments of papers, at sizes of seconds: what they measure is right, and what they refuse and show is said."""

import json
import re
from itertools import pairwise
from math import inf, nan, sqrt
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from test_cli import complaint, never, run

from xopt.conformance.reproductions import (
    EXPERIMENTS,
    Outcome,
    autoencoder,
    damping,
    forgetting,
    language,
    logistic,
    quasi_hyperbolic,
    rosenbrock,
    theory,
    toys,
)
from xopt.conformance.reproductions import text as texts
from xopt.conformance.reproductions.figure import LEFT, Axis, svg
from xopt.conformance.reproductions.outcome import VERDICTS, Curve, Panel, banded, number, spread
from xopt.conformance.reproductions.search import search
from xopt.conformance.reproductions.settings import Setting
from xopt.conformance.reproductions.show import json_of, page_of, ran
from xopt.conformance.settings import words_of
from xopt.rules import RULES

DOCS = Path(__file__).parents[1] / "docs"


# Quadratics


def test_aggmo_damps_what_momentum_with_the_same_largest_beta_does_not() -> None:
    late = {name: np.abs(damping.simulated(*damping.METHODS[name], 400)[200:]).max(axis=0) for name in damping.PICTURED}
    assert np.all(late["momentum 0.999"][:3] > 0.8)
    assert np.all(late["AggMo, K = 4"][:3] < 0.5 * late["momentum 0.999"][:3])


@pytest.mark.parametrize("beta", [0.9, 0.99, 0.999])
def test_under_damped_momentum_shrinks_at_the_root_of_beta(beta: float) -> None:
    s = np.asarray([0.1, 0.5, 1.7])
    assert np.all((1 - sqrt(beta)) ** 2 < s)
    np.testing.assert_allclose(damping.rates("momentum", {"beta": beta}, s), sqrt(beta), rtol=1e-12)


@pytest.mark.parametrize(("betas", "limit"), [((0.0, 0.9, 0.99), 2.957371920219007), ((0.0, 0.9, 0.99, 0.999), 3.163207496977949)])
def test_aggmo_is_stable_below_the_published_form_and_diverges_above(betas: tuple[float, ...], limit: float) -> None:
    assert damping.threshold(betas) == pytest.approx(limit, rel=1e-14)
    below, above = damping.rates("aggmo", {"betas": betas}, [0.999 * limit, 1.001 * limit])
    assert below < 1 < above


def test_a_run_settles_where_it_stays_near() -> None:
    path = np.asarray([[1.0, 1.0, 1.0], [-1e-4, 1e-4, 0.5], [0.1, 1e-4, 0.5], [1e-4, -1e-4, 0.5]])
    assert damping.settled(path) == [3, 1, None]
    assert damping.swings(path) == [1, 0, 0]


def test_the_best_rate_of_momentum_meets_its_closed_form() -> None:
    beta = 0.9
    condition = damping.critical(beta)
    assert condition == pytest.approx(1442, abs=0.5)
    (at_best, beyond) = damping.best_rates("momentum", {"beta": beta}, [10.0, 10 * condition])
    assert at_best == pytest.approx(sqrt(beta), rel=1e-12)
    assert beyond > 1.01 * sqrt(beta)


# Closed forms of QHM, QHAdam and AdEMAMix


def test_the_longest_step_is_the_papers() -> None:
    for nu2 in (0.3, 0.7, 1.0):
        limit = quasi_hyperbolic.bound_of(nu2=nu2, **quasi_hyperbolic.TRANSLATION)
        assert quasi_hyperbolic.attained("qhadam", nu2=nu2, **quasi_hyperbolic.TRANSLATION) == pytest.approx(limit, rel=1e-12)
    assert quasi_hyperbolic.attained("adam", 1.0, 1.0, 0.9, 0.999) == pytest.approx(7.27029, abs=5e-6)
    assert 19 * np.sum(quasi_hyperbolic.impulse(0.9, 500) ** 2) == pytest.approx(1.0, rel=1e-12)


def test_ages_and_warmups_are_the_papers() -> None:
    assert toys.half(0.999) == pytest.approx(np.log(0.5) / np.log(0.999) - 1, rel=1e-12)
    golden = [0.9990089120425198, 0.9995019903000263, 0.9996674419570512, 0.9997503741112254, 0.9998001996254803]
    found = dict(toys.decays(10, 1))
    assert [found[t] for t in range(1, 6)] == pytest.approx(golden, rel=1e-12)
    assert found[10] == pytest.approx(0.9999, rel=1e-12)


def test_weights_of_nested_averages_have_their_closed_form() -> None:
    k = np.arange(60)
    exact = 0.1 * 0.01 * (0.99 ** (k + 1) - 0.9 ** (k + 1)) / 0.09
    np.testing.assert_allclose(toys.nested((0.9, 0.99), 60), exact, rtol=1e-12)
    assert int(np.argmax(exact)) > 20 > int(np.argmax(toys.summed((0.9, 0.99), 8.0, 60))) == 0


def test_the_notebooks_first_value_differs_by_the_rounding_of_its_beta2() -> None:
    first = toys.notebook(1)["Adam, beta1 = 0.9"][0]
    assert first == pytest.approx(1599.2273, abs=5e-5)
    assert toys.first_in_float32() == pytest.approx(toys.PRINTED_FIRST, abs=2e-4)
    assert abs(first - toys.PRINTED_FIRST) > 1e-3


# Trainings


def test_rosenbrocks_gradient_and_turns() -> None:
    x, d = np.asarray([[-3.0, 5.0], [0.4, 1.2]]), 1e-6
    for k in range(2):
        e = d * np.eye(2)[k]
        slope = (rosenbrock.value(x + e) - rosenbrock.value(x - e)) / (2 * d)
        np.testing.assert_allclose(rosenbrock.gradient(x)[:, k], slope, rtol=1e-6)
    path = np.asarray([0.0, 1.0, 2.0, 1.5, 1.0, 3.0])[:, None]
    assert rosenbrock.turns(path) == 2
    assert rosenbrock.arrival(np.asarray([[1.0, 1.0], [0.1, 1.0], [0.5, 0.2]])).tolist() == [1.0, inf]
    assert rosenbrock.starts(3)[0].tolist() == list(rosenbrock.START)
    assert len(np.unique(rosenbrock.starts(3))) == 6


def test_the_autoencoders_gradient() -> None:
    w = {name: part.astype(np.float64) for name, part in autoencoder.start([1, 2]).items()}
    x = np.stack([autoencoder.images()[0][:5]] * 2).astype(np.float64)
    found, d = autoencoder.gradient(w, x), 1e-6
    for name in w:
        step = np.zeros_like(w[name])
        step[1, 0, 1] = d
        sides = [autoencoder.loss({**w, name: w[name] + sign * step}, x)[1] for sign in (1, -1)]
        assert found[name][1, 0, 1] == pytest.approx((sides[0] - sides[1]) / (2 * d), rel=1e-5, abs=1e-8), name


def test_the_logistic_regressions_gradient() -> None:
    x, which, *_ = logistic.digits()
    w, d = np.random.default_rng(0).standard_normal((2, 1, 65, 10)), 1e-6
    found = logistic.gradient(w, x[:7], which[:7])
    for at in ((0, 0, 20, 3), (1, 0, 64, 5)):
        step = np.zeros_like(w)
        step[at] = d
        sides = [logistic.loss(w + sign * step, x[:7], which[:7])[at[:2]] for sign in (1, -1)]
        assert found[at] == pytest.approx((sides[0] - sides[1]) / (2 * d), rel=1e-6, abs=1e-8)


def test_signs_alone_end_between_two_points() -> None:
    path = theory.cycle(0.25, 3.1, 40)
    assert path[-1] - path[-3] == pytest.approx(0.0, abs=1e-12)
    assert abs(path[-1] - path[-2]) == pytest.approx(0.25, rel=1e-12)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain steps of the autoencoder, as compiling takes longer than a few of them; few dampings, and few steps an epoch."""
    monkeypatch.setattr(autoencoder, "fuse", lambda bound, donate: bound.step)
    some = [one for one in autoencoder.METHODS if one.said in ("beta = 0.999", "beta1 = 0.9", "K = 4") or one.family == "QHM"]
    monkeypatch.setattr(autoencoder, "METHODS", some)
    monkeypatch.setattr(logistic, "NUS", (0.0, 0.7, 1.0))
    monkeypatch.setattr(logistic, "BATCHES", (200, 400))


@pytest.mark.usefixtures("plain")
def test_a_run_that_diverges_is_no_number() -> None:
    method = autoencoder.Method("momentum", "beta = 0.9", "momentum", (("beta", 0.9),))
    found = autoencoder.trained(method, [1, 2], 3, (1e-3, 30.0))
    begun = autoencoder.loss(autoencoder.start([1, 2]), autoencoder.images()[0])
    assert np.all(found.train[0] < begun)
    assert np.all(np.isnan(found.train[1]))
    assert spread(found.train[1].tolist()) == "2 of 2 seeds diverged"
    padded = found._replace(
        **{part: np.pad(getattr(found, part), ((0, 6), (0, 0)), constant_values=nan) for part in ("train", "test")}
    )
    chosen = autoencoder.best([(method, padded._replace(chosen_by=padded.test))], "train")
    assert chosen.rate == autoencoder.RATES[0]


def test_the_text_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts.text()
    assert len(found.train) + len(found.held_out) == 323768
    assert 0.08 < len(found.held_out) / len(found.train) < 0.12
    texts.text.cache_clear()
    monkeypatch.setattr(texts, "docstrings", lambda: "another text")
    with pytest.raises(ValueError, match=r"has another one \(SHA-256 .*pip install mpmath==1\.3\.0"):
        texts.text()
    assert "pip install mpmath==1.3.0" in complaint(run("reproduce", "forgetting"))


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with little text held out, as looks at it take longer than steps."""
    pytest.importorskip("torch")
    from xopt.conformance.reproductions import training

    short = texts.text()._replace(held_out=texts.text().held_out[:1500])
    monkeypatch.setattr(training, "text", lambda: short)
    return training


def test_a_training_learns_and_comes_again_bit_for_bit(training: Any) -> None:
    one, two = (training.train("adamw", {}, 3e-3, 1, 30, looks=3, most=8) for _ in range(2))
    assert one.losses == two.losses
    assert one.steps == [10, 20, 30]
    assert one.losses[0] > one.losses[-1] + 0.2
    assert training.train("adamw", {}, 3e-3, 2, 20, looks=2, most=8).losses[0] != one.losses[0]
    lost = training.train("sgd", {}, 1e6, 1, 20, looks=2, most=8)
    assert lost.diverged
    assert lost.last is None


def test_a_batch_is_learnt_once_it_is_used_and_not_before(training: Any) -> None:
    early, *_, late = forgetting.gains("ademamix", 1, 20)
    assert [gain[0][0] for gain in (early, late)] == [0, 0]
    assert early[0][1] > 0
    assert late[0][1] > 0
    assert early[-1][0] == 20 - round(0.35 * 20)
    assert forgetting.left([(0, 2.0), (10, 4.0), (20, 1.0)], 15) == 1.0
    assert forgetting.left([(0, 2.0), (10, 4.0), (20, 1.0)], 100) == 0.25


def test_a_switch_goes_on_with_what_adamw_had(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from xopt.conformance.reproductions import switch

    monkeypatch.setattr(switch, "LOOKS", 4)
    network = training.model(1)
    old = training.optimizer("adamw", network.parameters(), {})
    training.step(network, old, next(training.batches(1)), 1e-3)
    new = switch.onto(old, network, {"alpha": 8.0, "beta3": 0.999})
    for p in network.parameters():
        mine, theirs = new.state[p], old.state[p]
        assert mine["step"] == theirs["step"] == 1
        assert torch.equal(mine["m1"], theirs["m"])
        assert torch.equal(mine["v"], theirs["v"])
        assert not mine["m2"].any()
    copy, stepper = training.copied("adamw", {}, network, old)
    before = torch.cat([p.detach().flatten().clone() for p in copy.parameters()])
    natural = switch.stepped(copy, stepper, next(training.batches(1)), 1e-3, 0.5)
    moved = torch.cat([p.detach().flatten() for p in copy.parameters()]) - before
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-3)
    assert 0 < natural < 0.5
    found = switch.run(1, 20)
    assert [curve.name for curve in found.panels[0].curves][:3] == ["AdamW", "AdEMAMix from 0", "AdEMAMix from 4"]
    ends = {curve.name: curve.y[-1] for panel in found.panels[:2] for curve in panel.curves}
    assert {*switch.controls(20)} < {*ends}
    assert len(set(ends.values())) == len(ends)
    assert all(curve.x[0] > 8 for curve in found.panels[1].curves)


# The same budget for all


@pytest.mark.parametrize(("best", "beyond"), [(1e-3, "smallest"), (0.14, ""), (1.0, ""), (30.0, "largest")])
def test_a_search_spends_its_trials_and_finds_what_is_near(best: float, beyond: str) -> None:
    asked: list[float] = []

    def score(lr: float) -> float | None:
        asked.append(lr)
        return None if lr > 40 else abs(np.log(lr / best))

    found = search(score, 1.0)
    assert len(asked) == len(set(asked)) == 5
    assert found.open == beyond
    assert beyond == "smallest" or abs(np.log10(found.best / best)) < 0.3
    lost = search(lambda lr: None, 1.0)
    assert (lost.best, lost.open) == (0.032, "smallest"), "where all diverge it goes on with smaller ones"


def of_language(name: str, ends: list[float], diverged: bool = False) -> dict[str, Any]:
    runs = [{"seed": i, "at": [10, 20], "losses": [3.0, end], "diverged": diverged} for i, end in enumerate(ends, 1)]
    tried = {"tried": [[0.1, 2.0], [1.0, None]], "best": 0.1, "open": "smallest"}
    return {"setting": name, "hyper": {}, "steps": 20, "search": tried, "runs": runs}


def outcome_of(*settings: dict[str, Any]) -> Outcome:
    about = {"date": "2026-11-27", "machine": "x", "python": "3", "versions": {}, "seconds": 1.0, "command": "xopt"}
    return Outcome("language", [], [], "", about, {"settings": list(settings)})


def test_measured_rules_are_joined_and_held_against_the_claims() -> None:
    names = {"adamw": 2.0, "ademamix": 1.5, "adamw:beta1=0.99": 1.9, "ademamix:beta3=0.9999": 1.7, "ademamix:beta3=0.99": 1.4}
    joined = [outcome_of(of_language(name, [end, end + 0.1])) for name, end in names.items()]
    lost = outcome_of(of_language("sgd", [9.0, 9.0], diverged=True))
    found = language.run(2, 20, joined=[*joined, lost])
    verdicts = {finding.what.partition(":")[0]: finding.verdict for finding in found.findings}
    assert verdicts["AdEMAMix beside AdamW"] == "agrees"
    assert verdicts["AdamW with a larger beta1"] == "differs"
    assert verdicts["AdEMAMix by beta3"] == "agrees"
    assert "2 of 2 seeds diverged" in found.findings[-1].found
    assert found.findings[-1].note.startswith("the smallest lr tried")
    with pytest.raises(ValueError, match=r"adamw was measured with 2 seeds and 20 steps.* say --seeds 2 --steps 20"):
        language.run(3, 20, joined=joined)


def test_a_rule_is_measured_and_its_file_joined(training: Any, tmp_path: Path) -> None:
    small = ["--seeds", "1", "--steps", "20"]
    runs = tmp_path / "runs"
    runs.mkdir()
    done = run("reproduce", "language", "--rule", "sgd", *small, "--json", str(runs / "sgd.json"))
    assert done.exit_code == 0
    (measured,) = json.loads((runs / "sgd.json").read_text())["data"]["settings"]
    assert len(measured["search"]["tried"]) == 5
    assert measured["runs"][0]["losses"][-1] < 4.6
    done = run("reproduce", "language", "--join", str(runs), *small, "--json", "-")
    assert Outcome.of(json.loads(done.stdout)).data["settings"] == [measured]
    assert "is a table of 3 and 1500" in complaint(run("reproduce", "language", "--join", str(runs)))


def test_settings_are_read_and_refused() -> None:
    both = Setting("ademamix", (("beta3", 0.9999), ("alpha", 5.0)))
    assert Setting.of("ademamix:beta3=0.9999:alpha=5") == Setting.of(both.name) == both
    assert words_of(["lion, ademamix:beta3=0.9999,alpha=5", "qhm"]) == ["lion", both.name, "qhm"]
    assert Setting.of("lion:beta2=0.999").name == "lion:beta2=0.999"
    for text, said in (
        ("lionn", "did you mean lion?"),
        ("lion:beta3=0.9", "write lion:NAME=NUMBER, with one of beta1, beta2, weight_decay"),
        ("lion:beta1=x", "settings are name=number with commas between"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            Setting.of(text)


# The command


def test_the_list_has_all() -> None:
    shown = run("reproduce", "--list").stdout
    assert all(name in shown for name in EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name one of rosenbrock, ademamix-toys, "),
        (["dampin"], "did you mean damping?"),
        (["damping", "--rule", "lion"], "only language takes it; leave it out"),
        (["damping", "--join", "x.json"], "only language takes it; leave it out"),
        (["language"], "name some, or all; --join"),
        (["language", "--rule", "lionn"], "did you mean lion?"),
        (["language", "--rule", "lion:gamma=1"], "cannot be set for lion"),
        (["language", "--join", "/nowhere.json"], "is no file of xopt reproduce language --json"),
        (["language", "--join", "/proc/self/fdinfo"], "has no file that ends in .json"),
        (["damping", "--seeds", "0"], "greater than or equal to 1"),
        (["damping", "--json", "/nowhere/at/all"], "cannot be written"),
    ],
)
def test_wrong_usage_is_refused_before_the_run(arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xopt.conformance.cli.reproduce.run_experiment", never)
    assert said in complaint(run("reproduce", *arguments))


SHORT = {
    "quasi-hyperbolic": 8000,
    "damping": 400,
    "autoencoder": 5,
    "rosenbrock": 40,
    "ademamix-toys": 40,
    "theory": 40,
    "logistic": 5,
}
"""Steps of an experiment that is run for its form alone."""


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize(("name", "steps"), SHORT.items())
def test_an_experiment_runs_and_is_shown(name: str, steps: int, tmp_path: Path) -> None:
    file, page = tmp_path / "found.json", tmp_path / "page.html"
    seeds = "2" if name == "rosenbrock" else "1"
    done = run("reproduce", name, "--seeds", seeds, "--steps", str(steps), "--json", str(file), "--html", str(page))
    assert done.exit_code == 0, done.output
    outcome = Outcome.of(json.loads(file.read_text()))
    assert json_of(outcome) == file.read_text()
    assert outcome.about["command"] == f"xopt reproduce {name} --seeds {seeds} --steps {steps}"
    assert {finding.verdict for finding in outcome.findings} <= set(VERDICTS)
    html = page.read_text()
    assert html.count("<svg") == len(outcome.panels) > 0
    assert "http" not in html.replace("http://www.w3.org", "")
    if name in ("quasi-hyperbolic", "theory"):
        assert {finding.verdict for finding in outcome.findings} == {"agrees"}


# What is shown


def test_a_figure_breaks_where_a_run_had_diverged() -> None:
    curve = banded("a < b", [1.0, 2.0, 3.0, 4.0], [[1.0, 2.0, nan, 5.0], [3.0, 2.5, 4.0, 6.0]])
    assert curve == Curve("a < b", [1.0, 2.0, 3.0, 4.0], [2.0, 2.25, None, 5.5], [1.0, 2.0, None, 5.0], [3.0, 2.5, None, 6.0])
    for log in (False, True):
        root = ElementTree.fromstring(svg(Panel("t", "x", "y", [curve], log, log)))
        lines = [path.get("d") or "" for path in root.iter("path") if path.get("stroke-width") == "1.7"]
        assert [line.count("M") for line in lines] == [2]
        assert [line.count("L") for line in lines] == [1]
    assert "a &lt; b" in svg(Panel("t", "x", "y", [curve]))


@pytest.mark.parametrize(("low", "high"), [(0.0236, 0.0331), (0.3, 0.4), (1.0, 9.0), (1e-9, 3.0), (1e-30, 1.0)])
@pytest.mark.parametrize("log", [False, True])
def test_an_axis_has_numbers(low: float, high: float, log: bool) -> None:
    axis = Axis([low, high], 200.0, log)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(0 <= axis(tick) <= 200 for tick in ticks)
    drawn = ElementTree.fromstring(svg(Panel("t", "x", "y", [Curve("c", [1, 2], [low, high])], False, log)))
    said = [text.text for text in drawn.iter("text") if float(text.get("x", 0)) < LEFT and text.get("text-anchor")]
    assert len({*said}) == len(said) == len(ticks)


def test_numbers_are_said_with_their_spread() -> None:
    assert spread([1.0, 2.0, 3.0]) == "2 ± 1"
    assert spread([1.234, None, 1.236], 4) == "1.235 ± 0.0014, 1 of 3 seeds diverged"
    assert spread([None]) == "diverged"
    assert [number(x) for x in (0.0, 0.054, 1442.3, 1.09e-4, 12.34)] == ["0", "0.0540", "1,442", "1.09e-4", "12.3"]


def test_the_documentation_shows_whole_runs() -> None:
    page = (DOCS / "reproductions.md").read_text()
    assert re.findall(r"<!-- reproduction: ([\w-]+) -->", page) == [*EXPERIMENTS]
    for name, experiment in EXPERIMENTS.items():
        file = DOCS / "reproductions" / f"{name}.json"
        assert file.stat().st_size < 100_000
        outcome = Outcome.of(json.loads(file.read_text()))
        assert outcome.name == name
        assert (outcome.about["steps"], outcome.about["seeds"]) == (None, experiment.seeds)
        assert {finding.verdict for finding in outcome.findings} <= set(VERDICTS)
        assert re.fullmatch(rf"{experiment.command}( --join runs)?", outcome.about["command"])
        assert re.search(r"\d{4}-\d\d-\d\d, .*numpy \d", ran(outcome))
        assert f"## {experiment.title}\n" in page
        assert page_of(outcome).startswith("<!doctype html>")
    measured = Outcome.of(json.loads((DOCS / "reproductions" / "language.json").read_text())).data["settings"]
    assert len({one["setting"] for one in measured} & set(RULES)) >= 11, "all rules; a new one may be measured later"
    for one in measured:
        assert (one["steps"], len(one["search"]["tried"]), len(one["runs"])) == (language.STEPS, 5, 3)
        assert all(a < b for (a, _), (b, _) in pairwise(one["search"]["tried"]))
    best = {one["setting"]: one["search"]["best"] for one in measured}
    assert {rule: best[rule] for rule in forgetting.RATES} == forgetting.RATES
