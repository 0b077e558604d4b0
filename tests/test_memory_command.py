"""``xopt memory``: what it says is what ``xopt.memory`` says, in the table, in JSON and on the page; wrong usage is refused."""

import json
import math
import re
from pathlib import Path

import pytest
from test_cli import complaint, run

import xopt
from xopt import RULES, memory
from xopt.conformance.memory.figures import lines
from xopt.conformance.settings import setting_of

OWN = """
from typing import Any, NamedTuple

from xopt import Rule
from xopt.checks import Beta, Rate
from xopt.operations import average

class State(NamedTuple):
    params: Any
    m: Any
    step: int

class Coefficients(NamedTuple):
    lr: Any
    gain: Any

def coefficients(t: Any, *, lr: Rate = 0.1, beta: Beta = 0.9) -> Coefficients:
    '''lr: in [0, inf). Step size.
    beta: in [0, 1). Decay of m.
    '''
    return Coefficients(lr, GAIN)

def update(params: Any, m: Any, grad: Any, c: Coefficients) -> Any:
    m = average(m, grad, c.gain)
    return params - c.lr * m, m

own = Rule("own", State, coefficients, update, memory={"m": "beta"})
"""


def short(*arguments: str) -> tuple[str, ...]:
    return ("memory", *arguments, "--steps", "200", "--before", "50")


def test_json_says_what_the_functions_say(tmp_path: Path) -> None:
    out = tmp_path / "m.json"
    done = run(*short("ademamix:beta3=0.99,alpha=2", "aggmo:betas=0/0.9", "lion", "--like", "qhm", "--json", str(out)))
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    assert [one["name"] for one in report["rules"]] == ["ademamix beta3=0.99, alpha=2", "aggmo betas=0/0.9", "lion"]
    slow, mean, lion = (
        memory.of(xopt.ademamix, beta3=0.99, alpha=2.0),
        memory.of(xopt.aggmo, betas=(0.0, 0.9)),
        memory.of(xopt.lion),
    )
    for one, asked in zip(report["rules"], (slow, mean, lion), strict=True):
        numbers = one["numbers"]
        assert numbers["mean_age"] == asked.mean_age()
        assert numbers["half_mass_age"] == asked.half_mass_age()
        assert numbers["last"] == asked.effective_lr(200)[-1]
        assert numbers["turn"] == asked.reversal(50, report["length"]["after"]).turn
        assert (numbers["arrays"], numbers["passes"]) == asked.cost()
        curves = one["curves"]
        assert curves["weight"] == (asked.weights(curves["age"]) / asked.mass()).tolist()
        assert len(curves["t"]) == len(curves["effective_lr"])
    assert report["rules"][0]["numbers"]["worst"] == slow.worst_step()
    assert "takes a sign" in report["rules"][2]["numbers"]["limit"]
    assert report["rules"][1]["numbers"]["limit"] == mean.stability_limit()
    by_qhm = report["like"][2]
    assert by_qhm["hyper"] == pytest.approx({"beta": 0.99, "nu": 0.9 / 0.99})
    said = " ".join(done.output.split())
    assert "lion remembers most like qhm with beta=0.99, nu=0.9090909, and lr times 1: the same memory" in said


def test_all_rules_have_a_column_and_a_page(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page, picture = tmp_path / "m.html", tmp_path / "m.png"
    done = run(*short(*RULES, "--html", str(page), "--png", str(picture)))
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert text.count("<figure") == 4
    assert text.count("<li><svg") == len(RULES)
    assert all(f'<th scope="col" class="num">{name}</th>' in text for name in RULES)
    assert "no bound" in text  # of AdEMAMix's longest step
    assert not re.search(r'(?:src|href)="(?!#)', re.sub(r'xlink:href="#', 'xlink="#', text))
    assert picture.read_bytes().startswith(b"\x89PNG")
    entries = [{"rule": name, "hyper": {}} for name in RULES]
    assert len({*lines(entries)}) == len(RULES)  # no two with the same colour and dash


@pytest.mark.parametrize("steps", [1, 2, 29])
def test_short_runs_have_numbers_and_curves(steps: int) -> None:
    done = run("memory", "ademamix", "sgd", "--steps", str(steps), "--before", "1", "--json", "-")
    assert done.exit_code == 0, done.output
    for one in json.loads(done.stdout)["rules"]:
        assert one["curves"]["t"] == [*range(1, steps + 1)]
        assert len(one["curves"]["reversal"]) == len(one["curves"]["after"])


@pytest.mark.parametrize("lr", ["0", "5e-324", "1e-300", "1.7e308"])
def test_any_lr_is_answered(lr: str, tmp_path: Path) -> None:
    """Ratios do not depend on it; of steps of 0 there are none."""
    pytest.importorskip("matplotlib")
    words = [f"{name}:lr={lr}" for name in ("sgd", "qhm", "aggmo", "ademamix", "lion")]
    drawn = ["--png", str(tmp_path / "m.png")] if lr == "0" else []
    done = run("memory", *words, "--steps", "40", "--before", "3", "--json", "-", *drawn)
    assert done.exit_code == 0, done.output
    numbers = json.loads(done.stdout)["rules"][1]["numbers"]
    if lr == "1e-300":
        assert numbers["mean_age"] == pytest.approx(memory.of(xopt.qhm).mean_age(), rel=1e-12)
    assert ("sum up to 0" in str(numbers["noise"])) is (lr == "0")


def test_a_narrow_terminal_has_whole_words_and_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list in the place of the table, where that has no room."""
    wide, narrow = [], []
    long = ("qhadam:beta1=0.99,nu1=0.123456", "qhadam:beta1=0.9,nu1=0.123456", "lion")
    for columns, found in ((100, wide), (36, narrow)):
        monkeypatch.setenv("COLUMNS", str(columns))
        done = run(*short(*long))
        assert done.exit_code == 0, done.output
        assert all(len(line) <= columns for line in done.stdout.splitlines())
        assert "…" not in done.stdout
        found += re.findall(r"\S+", done.stdout)
    assert {*wide} - {"nu1=0.123456"} <= {*narrow} | {word for word in wide if set(word) == {"─"}}


def test_a_rule_of_ones_own_is_asked_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of_mine.py").write_text(OWN.replace("GAIN", "1 - beta"))
    (tmp_path / "bound_here.py").write_text("import xopt\nqhm = xopt.qhm.bind(beta=0.5)\n")
    assert setting_of("bound_here:qhm:nu=0.25") == (xopt.qhm, {"beta": 0.5, "nu": 0.25})
    (tmp_path / "never_settles.py").write_text(OWN.replace("GAIN", "8 / (8 + t)"))
    done = run(*short("of_mine:own:beta=0.5", "never_settles.own", "--json", "-"))
    assert done.exit_code == 0, done.output
    settled, growing = json.loads(done.stdout)["rules"]
    assert settled["numbers"]["mean_age"] == 1.0
    weights = [math.comb(8 + i, 8) * 8 / (8 + i) for i in range(1, 201)]  # of the gradient of step i, over a common factor
    mean = math.fsum((200 - i) * w for i, w in enumerate(weights, 1)) / math.fsum(weights)
    assert growing["numbers"]["mean_age"] == pytest.approx(mean, rel=1e-12)
    assert "never settle" in growing["numbers"]["half_life"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lionn",), "lionn: unknown rule 'lionn'; there are sgd, .*; did you mean lion"),
        (("lion:beta9=0.9",), "lion:beta9=0.9: memory.of: unknown hyperparameter 'beta9'"),
        (("lion:beta2=1.5",), r"beta2 must be in \[0, 1\), got 1.5"),
        (("lion:beta2",), r"settings are name=number with commas between, .* got 'beta2'"),
        (("lion:beta2=0.5/0.6",), r"memory.of: beta2 must be .* got \(0.5, 0.6\)"),
        (("lion:",), "settings are name=number"),
        (("lion:beta2=x",), "got 'beta2=x'"),
        (("lion:beta2=0.5,beta2=0.6",), "beta2 is given twice"),
        (("nowhere:lion",), "No module named 'nowhere'; a rule of your own is package.module:name"),
        (("json:loads",), "json:loads: rule must be a rule or its step, .* got <function loads"),
        (("lion", "--like", "sgd"), "sgd has no hyperparameter that changes what it remembers"),
        (("lion", "--like", "nag"), "unknown rule 'nag'; .* did you mean nesterov"),
        (("qhm", "--png", "nowhere/m.png"), "nowhere/m.png cannot be written: No such file or directory"),
        (("qhm", "--png", "/dev/full"), "/dev/full cannot be written: No space left on device"),
        (("qhm", "--html", "nowhere/m.html"), "nowhere/m.html cannot be written"),
        ((), "Missing argument 'RULE'"),
    ],
)
def test_wrong_usage_is_refused(arguments: tuple[str, ...], said: str) -> None:
    assert re.search(said, complaint(run(*short(*arguments))))
