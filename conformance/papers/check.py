"""What papers say, as data with the place where they say it: a third source, that neither the rules nor the goldens share.

A default that rule and golden have wrong alike is equal in both. ``papers.toml`` has the defaults of the papers, each deliberate
difference with its reason, and values that were printed somewhere, which are measured here on rule and golden alike.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from xopt.conformance.arithmetic.numbers import FLOAT
from xopt.conformance.golden import GOLDENS, Golden, lift, start
from xopt.conformance.results import LawResult
from xopt.rule import Rule
from xopt.rules import RULES

PAPERS = Path(__file__).with_name("papers.toml")
LATE = 10**6
"""Steps taken before the longest step: no correction is left."""

DEFAULTS, PUBLISHED = "the papers' defaults", "published values"
LAWS = (DEFAULTS, PUBLISHED)

Steps = Callable[[Sequence[float], int], list[dict[str, float]]]
"""Takes gradients and the steps before them; returns params and slots of one number, by name, after each step from 0."""


@cache
def papers() -> dict[str, list[dict[str, Any]]]:
    return tomllib.loads(PAPERS.read_text(encoding="utf-8"))


def defaults_of(rule: str) -> dict[str, Any]:
    """What the defaults of a rule must be."""
    (entry,) = (entry for entry in papers()["default"] if rule in entry["rules"])

    def plain(value: Any) -> Any:
        return None if value == "none" else tuple(value) if isinstance(value, list) else value

    return {name: plain(said["ours"] if "ours" in said else said["value"]) for name, said in entry["names"].items()}


def check_papers(
    rule_name: str, rules: Mapping[str, Rule[Any, Any]] = RULES, goldens: Mapping[str, Golden] = GOLDENS
) -> list[LawResult]:
    """Compares a rule and its golden with the papers. ``rules`` and ``goldens`` may have a fault planted in them."""
    rule, golden = rules[rule_name], goldens[rule_name]
    defaults, published = (LawResult(name, rule_name, "numpy", "cpu", "float64", "eager", examples=1) for name in LAWS)
    want = defaults_of(rule_name)
    for text, have in (("rule", rule.defaults), ("golden", golden.defaults)):
        defaults.numbers += len(want)
        wrong = {
            name: {"is": have.get(name), "must be": want.get(name)} for name in want | have if have.get(name) != want.get(name)
        }
        if wrong and defaults.broken is None:
            defaults.broken, defaults.found_after = {text: wrong}, 1
    for said in (said for said in papers()["published"] if said["rule"] == rule_name):
        for text, steps in (("rule", _rule_steps(rule, said["hyper"])), ("golden", _golden_steps(golden, said["hyper"]))):
            published.numbers += 1
            found = MEASURES[said["measure"]](steps, said)
            if not abs(found - float(said["printed"])) <= _half_a_digit(said["printed"]) and published.broken is None:
                published.broken, published.found_after = {text: found, "printed": said["printed"], "source": said["source"]}, 1
    return [defaults, published] if published.numbers else [defaults]


def _half_a_digit(printed: str) -> float:
    return 0.5 * 10.0 ** -len(printed.partition(".")[2])


def _rule_steps(rule: Rule[Any, Any], hyper: Mapping[str, Any]) -> Steps:
    def steps(grads: Sequence[float], steps_before: int = 0) -> list[dict[str, float]]:
        own = dict(hyper) | {name: 0.0 for name in ("eps", "weight_decay") if name in rule.defaults} | {"lr": 1.0}
        state, found = rule.bind(**own).init(np.zeros(1))._replace(step=steps_before), []
        for g in grads:
            state = rule.step(state, np.full(1, float(g)), **own)
            named = zip(("params", *rule.slots), state[:-1], strict=True)
            found.append({name: x[0] for name, x in named if isinstance(x, np.ndarray)})
        return found

    return steps


def _golden_steps(golden: Golden, hyper: Mapping[str, Any]) -> Steps:
    def steps(grads: Sequence[float], steps_before: int = 0) -> list[dict[str, float]]:
        zeros = {name: 0.0 for name in ("eps", "weight_decay") if name in golden.defaults}
        own = lift(FLOAT, golden.defaults | dict(hyper) | zeros | {"lr": 1.0})
        state, found = start(golden, FLOAT, 0.0, own), []
        for t, g in enumerate(grads, start=steps_before + 1):
            state = golden.step(FLOAT, *state, float(g), t, **own)
            found.append(dict(zip(("params", *golden.slots), state, strict=True)))
        return found

    return steps


def _slow_decay(steps: Steps, said: Mapping[str, Any]) -> float:
    return 1.0 - steps([1.0], said["at"] - 1)[0]["m2"]


def _half(steps: Steps, said: Mapping[str, Any]) -> float:
    """By interpolation: after n steps on a gradient of 1 an average is 1 - beta^n, of the gradients of ages below n."""
    masses = [state["m2"] for state in steps([1.0] * (2 + int(1.2 * float(said["printed"]))), 0)]
    (after,) = (n for n in range(1, len(masses)) if masses[n - 1] < 0.5 <= masses[n])
    left, right = np.log1p(-np.asarray(masses[after - 1 : after + 1]))
    return float(after - 1 + (np.log(0.5) - left) / (right - left))


def _squares(steps: Steps, said: Mapping[str, Any]) -> float:
    return 1.0 / sum(state["m"] ** 2 for state in steps([1.0] + [0.0] * 500, 0))


def _longest(steps: Steps, said: Mapping[str, Any]) -> float:
    """On gradients in proportion to a_k / b_k, the weights of the gradient of age k and of its square."""
    h = {"nu1": 1.0, "nu2": 1.0} | said["hyper"]
    age = np.arange(700)
    a = h["nu1"] * (1 - h["beta1"]) * h["beta1"] ** age + (1 - h["nu1"]) * (age == 0)
    b = h["nu2"] * (1 - h["beta2"]) * h["beta2"] ** age + (1 - h["nu2"]) * (age == 0)
    before, after = (state["params"] for state in steps((a / b)[::-1].tolist(), LATE)[-2:])
    return float(before - after)


MEASURES: dict[str, Callable[[Steps, Mapping[str, Any]], float]] = {
    "slow decay": _slow_decay,
    "half of the weight": _half,
    "one over the squares": _squares,
    "longest step": _longest,
}
