"""The survey of other packages: its file holds to its schema, speaks of what there is, and the pages say what it says."""

import inspect
import json
from importlib.metadata import version
from pathlib import Path

import pytest
from builders import implementations, pages

from xopt import RULES
from xopt.conformance.conventions import CONVENTIONS
from xopt.conformance.implementations import survey, wrappers
from xopt.conformance.testing import DEFAULTS, names_of_checks

DOCS = Path(__file__).parents[1] / "docs"
FOUND = survey.results()


def records():
    return [(package, one) for package in FOUND["packages"] for one in package["optimizers"]]


def test_the_file_holds_to_its_schema():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(survey.SCHEMA.read_text())
    jsonschema.Draft202012Validator(schema).validate(FOUND)
    broken = json.loads(json.dumps(FOUND))
    del broken["packages"][0]["date"]
    with pytest.raises(jsonschema.ValidationError, match="'date' is a required property"):
        jsonschema.validate(broken, schema)


def test_every_package_and_optimizer_was_surveyed():
    """A row that is added to the list has to be run, and one that is taken out has to go."""
    asked = [(survey.title(package), one["name"], one["rule"]) for package in survey.packages() for one in package["optimizers"]]
    seen = [(package["title"], one["name"], one["rule"]) for package, one in records()]
    refused = {package["title"] for package in FOUND["packages"] if package.get("reason")}
    assert [one for one in asked if one[0] not in refused] == seen
    assert len({package["name"] for package, _ in records()}) >= 14


def test_what_it_names_exists():
    known = {(row.rule, row.what) for row in CONVENTIONS}
    for _, one in records():
        assert one["rule"] in RULES
        for formula in one.get("formulas", ()):
            for row in formula["conventions"]:
                rounding = row["name"].startswith(("coefficients: ", "precision: "))
                assert rounding or (one["rule"], row["name"]) in known, (one["name"], row["name"])
            assert not formula["fits"] or formula["ratio"] <= 1
        behaviour = one.get("behaviour", {})
        tried = [*behaviour.get("held", ()), *behaviour.get("failed", ()), *behaviour.get("not tried", ())]
        assert {name for name in tried if not name.startswith("run: ")} <= {*names_of_checks(), DEFAULTS}, one["name"]
    made = [one["make"] for package in survey.packages() for one in package["optimizers"] if "make" in one]
    assert set(made) == {name for name, x in vars(wrappers).items() if inspect.isfunction(x) and not name.startswith("_")}


def test_the_page_says_what_the_file_says():
    page = pages.expanded((DOCS / "implementations.md").read_text())
    for package, one in records():
        assert f"`{one['name']}`" in page
        assert package["version"] in page
        if one.get("formulas"):
            assert implementations.computes(one) in page
            for ratio in (formula["ratio"] for formula in one["formulas"] if formula["ratio"] is not None):
                assert f"{ratio:.2g}" in page
            for name in one["behaviour"]["failed"]:
                assert f": {name}. `" in page
        else:
            assert one.get("failed", one.get("words", "")).replace("`", "'").replace("|", "/") in page


def test_the_page_of_a_rule_has_its_rows(rule):
    whole = pages.expanded((DOCS / "rules" / f"{rule.name}.md").read_text())
    mine = whole.split("## Who else uses which convention")[1]
    own = mine.split("\n## ")[0]
    assert own != mine, "the section ends"
    asked = [(package, one) for package, one in records() if one["rule"] == rule.name and one.get("formulas")]
    assert asked or f"[those that were](../{implementations.PAGE})" in own
    for package, one in asked:
        assert f"`{one['name']}`" in own
        assert package["version"] in own
        if any(formula["fits"] for formula in one["formulas"]):
            assert implementations.computes(one).replace("](conventions.md", "](../conventions.md") in own
    others = {one["name"] for _, one in records() if one["rule"] != rule.name} - {one["name"] for _, one in asked}
    assert not [name for name in others if f"| `{name}` |" in own]


def test_each_finding_has_a_short_program_and_what_it_printed():
    page = pages.expanded((DOCS / "findings.md").read_text())
    shown = {one["title"]: one for one in FOUND["findings"]}
    for finding in survey.findings():
        program = finding["program"].strip()
        compile(program, finding["title"], "exec")
        assert len(program.splitlines()) <= 20
        assert program in page
        assert shown[finding["title"]]["printed"].rstrip() in page
        assert finding["package"] in {survey.slug(package) for package in survey.packages()}
    assert len(shown) == len(survey.findings())


def test_a_package_that_cannot_be_installed_is_a_record_with_the_reason(tmp_path):
    said = []
    package = {
        "name": "nothing",
        "install": ["./no-such-folder"],
        "kind": "py",
        "optimizers": [{"name": "nothing.SGD", "rule": "sgd"}],
    }
    record = survey.surveyed(package, tmp_path, said.append)
    assert record["optimizers"] == []
    assert record["reason"].startswith("it cannot be installed: ")
    assert said


def test_an_environment_has_what_this_one_has_and_a_survey_of_it_is_a_record(tmp_path):
    """A package of this environment, end to end; its optimizer is not there."""
    package = {"name": "numpy", "install": [], "kind": "py", "optimizers": [{"name": "numpy.nowhere", "rule": "sgd"}]}
    record = survey.surveyed(package, tmp_path, lambda _: None)
    (one,) = record["optimizers"]
    assert one["verdict"] == "no target"
    assert "nowhere" in one["words"]
    assert record["version"] == version("numpy")
