"""``xopt.conformance.parametrize``: the checks of an optimizer as tests of somebody's suite, here run as they would run it."""

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from xopt.conformance import parametrize
from xopt.conformance.testing import CLAIMS, names_of_checks

PAGE = Path(__file__).parents[1] / "docs" / "use-in-your-ci.md"
SUITES = {
    "page": "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)),
    "torch": """
import torch
import xopt.conformance

@xopt.conformance.parametrize(torch.optim.SGD, rule="momentum", conventions=["weight decay: L2"])
def test_class(check):
    check()
""",
    "optax": """
import optax
import xopt.conformance

@xopt.conformance.parametrize(optax.lion, rule="lion")
def test_transformation(check):
    check()

@xopt.conformance.parametrize(lambda learning_rate=0.1: optax.sgd(1.001 * learning_rate), rule="sgd", dtypes=["float32"])
def test_wrong(check):
    check()
""",
    "stale": """
import xopt.conformance

def sgd(params, grad, state, *, lr=0.01):
    return params - lr * grad, state

@xopt.conformance.parametrize(
    sgd,
    rule="sgd",
    dtypes=["float64"],
    conventions=["weight decay: halved"],
    expected_failed_checks={"the same run gives the same bits": "it did once", "groups do not mix": "there are none"},
)
def test_stale(check):
    check()
""",
    "nothing": """
import xopt.conformance

@xopt.conformance.parametrize("py:nowhere.optimizer", rule="sgd")
def test_nothing(check):
    check()
""",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """How each case ended, and its words, by test and check: all suites in one run of pytest, of which JUnit tells."""
    folder = tmp_path_factory.mktemp("suites")
    for name, text in SUITES.items():
        if name not in ("torch", "optax") or importlib.util.find_spec(name):
            (folder / f"test_{name}.py").write_text(text)
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml"]
    environment = {name: x for name, x in os.environ.items() if name != "PYTEST_ADDOPTS"}  # processes end cases in another order
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    cases = {}
    for case in ElementTree.parse(folder / "report.xml").iter("testcase"):
        test, _, check = case.attrib["name"].removesuffix("]").partition("[")
        child = next(iter(case), None)
        kind = "passed" if child is None else "xfailed" if child.attrib.get("type") == "pytest.xfail" else child.tag
        cases.setdefault(test, {})[check] = kind, "" if child is None else f"{child.attrib.get('message')} {child.text}"
    return cases


def ended(cases, kind):
    return {name for name, (how, _) in cases.items() if how == kind}


def test_the_page_is_a_suite_that_passes(found):
    """Its two examples: all that can be tried holds, but what is expected to fail."""
    for test in ("test_sgd_with_momentum", "test_forgetful"):
        assert list(found[test]) == names_of_checks()
        assert not ended(found[test], "failure")
        assert {"the formula in float32", "the formula in float64"} <= ended(found[test], "passed")
    assert CLAIMS in ended(found["test_sgd_with_momentum"], "passed")
    assert ended(found["test_forgetful"], "xfailed") == {"inputs are not written to"}


@pytest.mark.parametrize("name", ["torch", "optax"])
def test_what_torch_and_optax_make_is_taken(found, name):
    pytest.importorskip(name)
    cases = found["test_class" if name == "torch" else "test_transformation"]
    assert Counter(kind for kind, _ in cases.values()).keys() <= {"passed", "skipped"}
    assert {"the formula in float32", "resuming is going on"} <= ended(cases, "passed")


def test_another_formula_fails_and_is_named(found):
    pytest.importorskip("optax")
    kind, words = found["test_wrong"]["the formula in float32"]
    assert kind == "failure"
    assert "lr x 1.001" in words


def test_stale_reasons_and_wrong_claims_fail(found):
    cases = found["test_stale"]
    assert ended(cases, "failure") == {"the same run gives the same bits", "groups do not mix", CLAIMS}
    assert "was expected to fail (it did once), and holds: take the reason out" in cases["the same run gives the same bits"][1]
    assert "was expected to fail (there are none), and was not tried (it does not say" in cases["groups do not mix"][1]
    assert "it is claimed, and not seen: weight decay: halved" in cases[CLAIMS][1]


def test_what_is_no_optimizer_passes_nothing(found):
    assert not ended(found["test_nothing"], "passed")
    kind, words = found["test_nothing"]["the formula in float32"]
    assert kind == "failure"
    assert "nowhere cannot be imported here" in words


def test_bad_arguments_are_refused_before_anything_runs():
    def refused(match, **more):
        with pytest.raises(ValueError, match=match):
            parametrize("py:nowhere.optimizer", **({"rule": "sgd"} | more))

    refused("unknown check 'the weather'", expected_failed_checks={"the weather": "rain"})
    for reason in ("", "  ", None):
        refused("'the defaults' needs a reason, got", expected_failed_checks={"the defaults": reason})
    refused("'the formula in float64'", dtypes=["float32"], expected_failed_checks={"the formula in float64": "slow"})
    refused("unknown rule 'sdg'", rule="sdg")
    refused("'weight decay: L3'", conventions=["weight decay: L3"])
