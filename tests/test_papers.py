"""Defaults and printed values of the papers, and digests of NumPy's bits: they hold, and what departs from them is found."""

import json
from typing import Any

import pytest

import xopt
from xopt.conformance.digests import check as digests
from xopt.conformance.faults.planting import updating
from xopt.conformance.golden import GOLDENS
from xopt.conformance.papers import check as papers
from xopt.conformance.results import BROKEN, HELD
from xopt.operations import accumulate
from xopt.rule import Rule


@pytest.mark.parametrize("name", xopt.RULES)
def test_rules_and_goldens_have_the_defaults_and_values_of_the_papers(name: str) -> None:
    for result in papers.check_papers(name):
        assert result.verdict == HELD, result.broken


def test_every_hyperparameter_has_a_source_and_every_difference_a_reason() -> None:
    for name, rule in xopt.RULES.items():
        assert papers.defaults_of(name) == rule.defaults
    for entry in papers.papers()["default"]:
        assert entry["source"]
        for said in entry["names"].values():
            assert ("ours" in said) == ("reason" in said)
            assert "ours" in said or "value" in said
    for entry in papers.papers()["published"]:
        assert entry["source"]
        assert entry["measure"] in papers.MEASURES


def test_a_default_that_rule_and_golden_have_wrong_alike_is_found() -> None:
    rule, golden = xopt.RULES["lion"], GOLDENS["lion"]

    def coefficients(t: Any, *, lr: Any = 0.0001, beta1: Any = 0.9, beta2: Any = 0.999, weight_decay: Any = 0.0) -> Any:
        return rule.coefficients(t, lr=lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay)

    coefficients.__annotations__ = rule.coefficients.__annotations__
    wrong: Rule[Any, Any] = Rule("lion", rule.state, coefficients, rule.elementwise, memory=rule.memory)
    misread = golden._replace(defaults=golden.defaults | {"beta2": 0.999})
    (result,) = papers.check_papers("lion", xopt.RULES | {"lion": wrong}, GOLDENS | {"lion": misread})
    assert result.verdict == BROKEN
    assert result.broken == {"rule": {"beta2": {"is": 0.999, "must be": 0.99}}}


def test_a_golden_that_is_wrong_alone_is_found() -> None:
    misread = GOLDENS["lion"]._replace(defaults=GOLDENS["lion"].defaults | {"beta2": 0.999})
    (result,) = papers.check_papers("lion", goldens=GOLDENS | {"lion": misread})
    assert result.broken == {"golden": {"beta2": {"is": 0.999, "must be": 0.99}}}
    golden = GOLDENS["qhadam"]

    def halved(n: Any, params: Any, *rest: Any, **hyper: Any) -> Any:
        new, *slots = golden.step(n, params, *rest, **hyper)
        return (params + 0.5 * (new - params), *slots)

    published = papers.check_papers("qhadam", goldens=GOLDENS | {"qhadam": golden._replace(step=halved)})[1]
    assert published.broken is not None
    assert "golden" in published.broken


def test_a_printed_value_that_no_run_shows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [entry | {"printed": "1.95235"} for entry in papers.papers()["published"] if entry.get("printed") == "1.95234"]
    monkeypatch.setattr(papers, "papers", lambda: {"default": _DEFAULTS, "published": said})
    assert [result.verdict for result in papers.check_papers("qhadam")] == [HELD, BROKEN]


_DEFAULTS = papers.papers()["default"]


@pytest.mark.parametrize("dtype", digests.NUMPY_DTYPES)
@pytest.mark.parametrize("name", xopt.RULES)
def test_the_bits_are_those_that_are_kept(name: str, dtype: str) -> None:
    (result,) = digests.check_digest(name, dtype)
    assert result.verdict == HELD, result.broken


def test_the_bits_of_another_dtype_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = digests.kept()["sgd"]
    monkeypatch.setattr(digests, "kept", lambda: {"sgd": {"float32": kept["float64"], "float64": kept["float32"]}})
    assert [digests.check_digest("sgd", dtype)[0].verdict for dtype in ("float32", "float64")] == [BROKEN, BROKEN]


def from_the_right(params: Any, v: Any, grad: Any, c: Any) -> Any:
    buffers = tuple(accumulate(v_i, grad, beta_i) for v_i, beta_i in zip(v, c.betas, strict=True))
    total, *rest = reversed(buffers)
    for v_i in rest:
        total = total + v_i
    return params - c.lr * (c.share * total + c.weight_decay * params), buffers


@pytest.mark.parametrize("dtype", digests.NUMPY_DTYPES)
def test_a_sum_from_the_right_has_other_bits(dtype: str) -> None:
    rule = xopt.RULES["aggmo"]
    wrong = updating(rule, from_the_right)
    (result,) = digests.check_digest("aggmo", dtype, xopt.RULES | {"aggmo": wrong})
    assert result.verdict == BROKEN
    assert result.broken is not None
    assert digests.RENEW in result.broken["way out"]


def test_what_is_kept_can_be_written_anew(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digests.kept()
    monkeypatch.setattr(digests, "DIGESTS", tmp_path / "digests.json")
    digests.write()
    assert json.loads((tmp_path / "digests.json").read_text()) == before
