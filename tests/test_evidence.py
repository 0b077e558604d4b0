"""Evidence: what a record stands on, its digests, how it is written, and that whatever is wrong with one is found and said."""

import ast
import datetime
import hashlib
import io
import json
import re
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from xopt import backends
from xopt.backends import BACKENDS
from xopt.backends._cupy import CuPyBackend
from xopt.backends._jax import JAXBackend
from xopt.backends._torch import TorchBackend
from xopt.conformance import suite
from xopt.conformance.arithmetic.bounded import Bounded, exact
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, arithmetic_of
from xopt.conformance.compare.candidate import Candidate
from xopt.conformance.compare.check import check_rule
from xopt.conformance.digests.runs import SHAPES, hashed, inputs, other_setting, runs
from xopt.conformance.evidence import examination, measurement, sources, view, writing
from xopt.conformance.evidence.record import body_hash
from xopt.conformance.faults.planting import updating
from xopt.conformance.results import IDENTICAL, WITHIN, WRONG, Cell, LawResult
from xopt.conformance.target import Effort
from xopt.conformance.training import replay_rule
from xopt.rules import RULES

TODAY = datetime.date(2026, 11, 24)
DTYPES = ("float16", "bfloat16", "float32", "float64")


# The sources.


def test_hashes_name_all_that_decides():
    hashes = sources.source_hashes()
    parts = {f"{part}:{rule}" for part in ("rule", "golden") for rule in RULES}
    assert set(hashes) == {*parts, *(f"backend:{name}" for name in BACKENDS), "cells", "digest"}
    assert len(set(hashes.values())) == len(hashes)


def test_every_rule_computes_with_the_common_modules():
    names = (
        "arrays",
        "bound",
        "checks",
        "counts",
        "documentation",
        "program",
        "rule",
        "rules",
        "slots",
        "trees",
        "typed",
        "untraced",
    )
    beside = {f"xopt.{name}" for name in names}
    for name in RULES:
        assert set(sources.modules(f"xopt.rules.{name}", within="xopt")) == {f"xopt.rules.{name}", *sources.ARITHMETIC, *beside}


def test_what_judges_a_cell_is_all_that_it_loads():
    """Also what it might import by a name made at run time, which the text does not show."""
    code = """
import importlib.util, sys
name = "xopt.conformance"
sys.modules[name] = importlib.util.module_from_spec(importlib.util.find_spec(name))  # as it would be if it imported nothing
import xopt.conformance.compare.check
print(*(module for module in sys.modules if module.startswith(f"{name}.")))
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    goldens = {f"xopt.conformance.golden.{name}" for name in RULES}
    shows = {f"xopt.conformance.{name}" for name in sources.SHOWS}
    loaded = {name for name in set(done.stdout.split()) - goldens if not any(f"{name}.".startswith(f"{show}.") for show in shows)}
    found = set(sources.modules("xopt.conformance.compare.check", within="xopt.conformance"))
    assert (
        {f"xopt.conformance.{name}" for name in ("compare.check", "compare.comparison", "compare.reference", "arithmetic.bounded")}
        <= loaded
        <= found
    )
    assert not found & (shows | goldens)


@pytest.fixture
def edit(monkeypatch):
    """Edits the text of a module as the hashes read it."""
    real, edits = sources.read_source, {}

    def read(module):
        source = real(module)
        for old, new in edits.get(module, ()):
            assert source.count(old) >= 1, (module, old)
            source = source.replace(old, new, 1)
        return source

    monkeypatch.setattr(sources, "read_source", read)
    return lambda module, old, new: edits.setdefault(module, []).append((old, new))


def changed(before):
    after = sources.source_hashes()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("module", "old", "new", "parts"),
    [
        ("xopt.rules.adamw", "beta2: Beta = 0.999", "beta2: Beta = 0.99", {"rule:adamw"}),
        ("xopt.rules.adamw", "average(m, grad", "average(v, grad", {"rule:adamw"}),
        ("xopt.rules.adamw", "import NamedTuple", "import NamedTuple  # a comment", set()),
        ("xopt.rules.adamw", "\n\n\n", "\n\n# a line of its own\n\n\n\n", set()),
        ("xopt.rules.adamw", '"""', '"""Other words: ', set()),
        ("xopt.scalars", '"""``1 - beta**t``', '"""Other words', set()),
        ("xopt.scalars", "_HALVINGS = 10", "_HALVINGS = 11", {f"rule:{name}" for name in RULES}),
        ("xopt.rule", "self.name = name", "self.name = name.lower()", set()),
        ("xopt.conformance.golden.lion", "0.99,", "0.98,", {"golden:lion"}),
        ("xopt.backends._torch", '"float16", ', "", {"backend:torch"}),
        ("xopt.conformance.arithmetic.probes", "NUMBER = 3.0", "NUMBER = 5.0", {f"backend:{name}" for name in BACKENDS}),
        ("xopt.conformance.compare.reference", "np.abs", "np.negative", {"cells"}),
        ("xopt.conformance.arithmetic.bounded", "2.0**-30", "2.0**-3", {"cells"}),
    ],
)
def test_edits_change_the_hashes_of_what_stands_on_them(edit, module, old, new, parts):
    before = sources.source_hashes()
    edit(module, old, new)
    assert changed(before) == parts


def test_edits_of_the_digests_change_their_hash(monkeypatch):
    before = sources.source_hashes()
    monkeypatch.setattr(sources, "STEPS", 9)
    assert changed(before) == {"digest"}


SAMPLE = '''
"""Text."""
import a.b as c
from d import (e,
    f as g)

class K(e, metaclass=g):
    """Text."""
    x: int = 1_000
    "Text of x."

@c
def h(p, /, q=-1.5e-3, *r, s: "int" = 2, **t) -> None:
    """Text."""

    # a comment
    if (q := p) and not (r or s) or 1 < q <= 2:
        return [u"v\\u00e9", f"{p!r:>{s}} {{}} {q + 1:.3g}" 'w', b"\\x00", ..., 1j, None]
    for i, *j in {**t, 1: lambda k, *, l=0: k}:
        x[1:, ::2], y = i if j else (yield), {m for m in j if m}
    else:
        del x
    with open(p) as n, q:
        try:
            assert n, "o"
        except (ValueError, e) as z:
            raise g from z
        finally:
            global w
    match p:
        case [1, *rest] | {"k": K(x=2)}:
            pass
'''
SAMPLE_HASH = "c5dfea62c61331ac1e797c69a9bb49ad8c9fe421de16b47be87024141b7d9928"


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_normal_form_is_the_same_on_every_python():
    assert sha256(sources.normal_form(SAMPLE)) == SAMPLE_HASH


def test_the_normal_form_leaves_out_fields_that_newer_pythons_add(monkeypatch):
    expected = sources.normal_form(SAMPLE)
    for kind in (ast.FunctionDef, ast.ClassDef):
        monkeypatch.setattr(kind, "_fields", (*kind._fields, "type_params", "defaults_of_2030"))
        monkeypatch.setattr(kind, "type_params", [], raising=False)
    assert sources.normal_form.__wrapped__(SAMPLE) == expected


def test_the_normal_form_keeps_the_meaning_and_nothing_else():
    same = SAMPLE.replace("    # a comment\n", "\n").replace("Text.", "Words.").replace("-1.5e-3", "-0.0015").replace("\n", "\r\n")
    assert sources.normal_form(same) == sources.normal_form(SAMPLE)
    for old, new in [
        ("1_000", "1_001"),
        ("!r", "!s"),
        (".3g", ".4g"),
        ("1 <", "1 <="),
        ("l=0", "l=0.0"),
        ('b"', '"'),
        ("*r", "*q_"),
    ]:
        assert SAMPLE.count(old) >= 1
        assert sources.normal_form(SAMPLE.replace(old, new, 1)) != sources.normal_form(SAMPLE), new


# The digests.

INPUTS = {
    "float16": "1ded0483ead2ba237fcaa66f180a058bee7cd62dedbe579f41639e5084aeded2",
    "bfloat16": "4df22f0d563bffa551f44d513f197bf95b1784310e7be1b6ed82b1ba32a2e9d2",
    "float32": "d26942124165890e8efdd7ff9ef6a27a0378495aac49f8a7f2d2e27d55d16a35",
    "float64": "febe8e80258b4e3ee8b22b359ab9433ba96b6aa361634e28494d5658c46a5ed8",
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_inputs_are_the_same_everywhere_and_numbers_of_their_dtype(dtype):
    params, grads = inputs(dtype)
    everything = np.stack([params, *grads])
    assert hashlib.sha256(everything.astype("<f8").tobytes()).hexdigest() == INPUTS[dtype]
    backend = backends.get("numpy") if dtype != "bfloat16" else None
    if backend is not None:
        assert (backend.asarray(everything, dtype).astype(np.float64) == everything).all()
    else:
        assert (everything.astype(np.float32).view(np.uint32) & 0xFFFF == 0).all()
        assert (everything.astype(np.float32) == everything).all()
    sizes = np.abs(np.stack(grads))
    decades = np.log10(sizes.max() / sizes[sizes > 0].min())
    assert decades > (7 if dtype == "float16" else 14)
    assert 0.05 < np.mean(sizes == 0) < 0.08
    assert (np.stack(grads) < 0).mean() == pytest.approx(0.47, abs=0.01)


def on_bounds(column, to):
    if isinstance(column, tuple):
        return tuple(on_bounds(part, to) for part in column)
    return exact(column, to) if np.ndim(column) else column


def parts(column):
    return [x for part in column for x in parts(part)] if isinstance(column, tuple) else [] if column is None else [column]


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_number_on_the_way_is_subnormal_infinite_or_nan(rule, dtype):
    """Each operation marks what may be below twice the smallest normal number, and what may overflow has an infinite error."""
    compute, grads = FLOAT_FORMATS[arithmetic_of(dtype)], inputs(dtype)[1]
    for hyper, states in runs(measurement._on_numpy(rule.name, dtype), dtype):
        for t, grad in enumerate(grads, start=1):
            before = states[t - 1]
            carried = [x for name, x in zip(rule.slots, before[1:], strict=True) if name in rule.carried]
            c = rule.coefficients(t, *carried, **rule.defaults | hyper)
            new = rule.elementwise(*on_bounds(before, compute), exact(grad, compute), c)
            numbers = [
                x
                for x in parts((exact(grad, FLOAT_FORMATS[dtype]), new[0].stored(FLOAT_FORMATS[dtype]), *new))
                if isinstance(x, Bounded)
            ]
            assert len(numbers) >= 3 or rule.name == "sgd"
            for x in numbers:
                assert not np.any(x.may_be_subnormal)
                assert np.all(np.isfinite(x.value) & np.isfinite(x.error))


def test_the_other_setting_differs_in_every_hyperparameter(rule):
    other = other_setting(rule)
    assert set(other) == set(rule.defaults)
    assert [name for name in other if other[name] == rule.defaults[name]] == [name for name in ("eps_root",) if name in other]
    rule.bind(**other).init(np.ones(2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_library_with_numpys_bits_has_numpys_digest(rule, dtype):
    strict = backends.get("array_api_strict")
    assert measurement.digest(rule.name, strict, dtype, "eager") == measurement.numpy_digest(rule.name, dtype)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_bfloat16_has_the_digest_of_numpy_with_bfloat16(name):
    pytest.importorskip(name)
    assert measurement.digest("lion", backends.get(name), "bfloat16", "eager") == measurement.numpy_digest("lion", "bfloat16")


def test_digests_tell_rules_and_dtypes_apart():
    found = {measurement.numpy_digest(rule, dtype) for rule in RULES for dtype in DTYPES}
    assert len(found) == len(RULES) * len(DTYPES)


def planted(name, change):
    """A rule whose update computes otherwise."""
    rule = RULES[name]
    return updating(rule, change(rule.elementwise))


def last_digit(update):
    """The very last bit of one number in 4,096."""

    def wrong(params, *rest):
        new, *slots = update(params, *rest)
        if new.size > 1000:
            new[5, 7] = np.nextafter(new[5, 7], np.float32(np.inf))
        return new, *slots

    return wrong


def minus_zero(update):
    def other(params, m, grad, c):
        new, m = update(params, m, grad, c)
        return new, np.where(m == 0, -0.0 * np.ones_like(m), m)

    return other


def digest_of(rule, dtype="float32"):
    return hashed(runs(Candidate(rule, backends.get("numpy"), dtype, "eager", SHAPES), dtype))


def test_a_digest_sees_the_last_bit_of_one_number_and_not_the_sign_of_a_zero():
    assert digest_of(planted("lion", last_digit)) != measurement.numpy_digest("lion", "float32")
    assert digest_of(planted("lion", minus_zero)) == measurement.numpy_digest("lion", "float32")


# Writing.


@pytest.fixture(scope="module")
def report():
    """What a run finds of two rules on array-api-strict."""
    found = suite._probe("array_api_strict", "cpu", False)
    targets, effort = [found.target("eager")], Effort(3, pool=2)
    cells = [c for r in ("sgd", "adamw") for d in ("float32", "float64") for c in check_rule(r, d, targets, effort)]
    replays = [replay for r in ("sgd", "adamw") for replay in replay_rule(r, targets, 3)]
    about = {"xopt": "0", "seed": 0, "seconds": 1.0}
    return types.SimpleNamespace(about=about, backends=[found], cells=cells, replays=replays)


@pytest.fixture(autouse=True)
def two_rules(request, monkeypatch, tmp_path):
    """Records of two rules are complete, and the sources lie in no checkout."""
    if "report" in request.fixturenames:
        for module in (sources, measurement, writing):
            monkeypatch.setattr(module, "RULES", {name: RULES[name] for name in ("sgd", "adamw")})
        monkeypatch.setattr(writing, "ROOT", tmp_path)


def run_of(report, **changes):
    """The report with other contents; one that is not changed stays itself."""
    own = {"about": report.about | {"date": TODAY.isoformat()}, "backends": report.backends, "cells": report.cells}
    return types.SimpleNamespace(**own | {"replays": report.replays, "laws": []} | changes)


@pytest.fixture
def written(report, tmp_path):
    (path,) = writing.write(run_of(report), tmp_path / "evidence")
    return path


def test_a_record_is_a_statement_and_counts(report, written):
    assert written.name == f"array_api_strict-cpu-{TODAY}.json"
    record = json.loads(written.read_text())
    assert record["_type"] == "https://in-toto.io/Statement/v1"
    assert record["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    names = {subject["name"] for subject in record["subject"]}
    assert names == {"rule:sgd", "rule:adamw", "golden:sgd", "golden:adamw", "backend:array_api_strict", "cells", "digest"}
    predicate = record["predicate"]
    assert predicate["result"] == "PASSED"
    assert "adamw/float32/eager" in predicate["passedTests"]
    assert "digits sgd/eager" in predicate["passedTests"]
    assert predicate["failedTests"] == []
    claim = predicate["xopt"]
    assert claim["digests"]["adamw/float64/eager"] == measurement.numpy_digest("adamw", "float64")
    assert claim["hardware"] == backends.get("array_api_strict").hardware()
    assert claim["versions"]["array_api_strict"] == report.backends[0].version
    assert (claim["commit"], claim["dirty"]) == (None, False)
    assert examination.examine(written.parent, TODAY) == []
    (found,) = examination.current_cells(written.parent)
    assert found[:5] == (written.name, "array_api_strict", "cpu", claim["hardware"]["name"], TODAY.isoformat())
    assert [(c.rule, c.dtype, c.verdict) for c in found.cells] == [
        (rule, dtype, IDENTICAL) for rule in ("sgd", "adamw") for dtype in ("float32", "float64")
    ]
    assert found.to_dict()["cells"] == 4
    assert (found.to_dict()["current"], found.to_dict()["why"]) == (True, "")


def test_nothing_is_written_over(report, written):
    before = written.read_bytes()
    second, third = (writing.write(run_of(report), written.parent)[0] for _ in range(2))
    assert [second.name, third.name] == [f"array_api_strict-cpu-{TODAY}-{number}.json" for number in (2, 3)]
    assert written.read_bytes() == before
    assert [one.record for one in examination.current_cells(written.parent)] == [third.name]


def test_a_missing_cell_is_refused(report, tmp_path):
    cells = [c for c in report.cells if (c.rule, c.dtype) != ("adamw", "float64")]
    with pytest.raises(ValueError, match=r"1 cells of array_api_strict on cpu did not run \(adamw/float64/eager\).*without --rule"):
        writing.write(run_of(report, cells=cells), tmp_path / "evidence")
    not_run = [Cell("adamw", "array_api_strict", "cpu", "float64", "eager", "a reason")]
    with pytest.raises(ValueError, match="did not run"):
        writing.write(run_of(report, cells=cells + not_run), tmp_path / "evidence")
    assert not (tmp_path / "evidence").exists()


def test_an_emulated_device_is_no_evidence(report, tmp_path):
    (found,) = report.backends
    emulated = replace(found, name="cupy", device="cpu-emulated:0")
    with pytest.raises(ValueError, match="cupy cpu-emulated:0 is this CPU, which shows nothing of a device"):
        writing.write(run_of(report, backends=[found, emulated]), tmp_path / "evidence")
    assert not (tmp_path / "evidence").exists()


def git(folder, *arguments):
    author = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *author, *arguments], check=True, capture_output=True)


def test_a_dirty_tree_is_refused(report, tmp_path):
    for name in ("xopt/a.py", "backends/b.py", "conformance/c.py", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "a")
    folder = tmp_path / "conformance" / "evidence" / "records"
    (tmp_path / "README.md").write_text("y = 2\n")  # decides nothing
    (path,) = writing.write(run_of(report), folder)
    assert re.fullmatch("[0-9a-f]{40}", json.loads(path.read_text())["predicate"]["xopt"]["commit"])
    writing.require_clean()  # for the next record: the first one is no change of the sources
    for name in ("xopt/a.py", "backends/new.py"):
        (tmp_path / name).write_text("x = 2\n")
        with pytest.raises(ValueError, match=rf"1 source files differ from commit [0-9a-f]{{12}} \({name}\).*commit or stash them"):
            writing.write(run_of(report), folder)
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "--quiet", "-m", name)
    assert list(folder.iterdir()) == [path]


def test_a_failed_run_is_recorded_and_shown(report, tmp_path):
    ran = [cell for cell in report.cells if cell.elements]
    wrong = replace(ran[0], wrong={"where": "there"})
    law = LawResult("negation", "sgd", "array_api_strict", "cpu", "float32", "eager", numbers=1, broken={"x": 1.0})
    (path,) = writing.write(run_of(report, cells=[wrong, *ran[1:]], laws=[law]), tmp_path / "evidence")
    predicate = json.loads(path.read_text())["predicate"]
    assert predicate["result"] == "FAILED"
    assert predicate["failedTests"] == ["sgd/float32/eager", "negation sgd/float32/eager"]
    (finding,) = examination.examine(path.parent, TODAY)
    assert finding.level == examination.WARNING
    assert "2 tests failed" in finding.message
    assert [c.verdict for c in examination.current_cells(path.parent)[0].cells].count(WRONG) == 1


def test_what_the_digest_alone_sees_is_held_against_the_bound(report, tmp_path, monkeypatch):
    """One number of a large array off by a unit in float32's last place: right there, far off in float64, and no longer NumPy's."""
    real = Candidate.run

    def run(self, params, grads, hyper):
        states = real(self, params, grads, hyper)
        if self.backend.name == "array_api_strict" and self.rule.name == "adamw":
            states[-1][1][100] += 2.0**-23 * 2.0 ** np.floor(np.log2(np.abs(states[-1][1][100])))
        return states

    monkeypatch.setattr(Candidate, "run", run)
    (path,) = writing.write(run_of(report), tmp_path / "evidence")
    verdicts = {(c.rule, c.dtype): c.verdict for c in examination.current_cells(path.parent)[0].cells}
    assert verdicts == {
        ("sgd", "float32"): IDENTICAL,
        ("sgd", "float64"): IDENTICAL,
        ("adamw", "float32"): WITHIN,
        ("adamw", "float64"): WRONG,
    }
    assert json.loads(path.read_text())["predicate"]["failedTests"] == ["adamw/float64/eager"]


# Examining.


def messages(path, today=TODAY):
    return [(finding.level, finding.message) for finding in examination.examine(path.parent, today) if finding.record == path.name]


def the_error(path):
    ((level, message),) = messages(path)
    assert level == examination.ERROR
    assert examination.current_cells(path.parent) == []
    return message


def sealed(path, change):
    """A record changed by ``change`` with a body hash that fits, as by somebody who knows how."""
    record = json.loads(path.read_text())
    change(record)
    record["predicate"]["xopt"]["body"] = body_hash(record)
    path.write_text(json.dumps(record, indent=1))
    return record


def flipped(text):
    return ("1" if text[0] == "0" else "0") + text[1:]


@pytest.mark.parametrize("what", ["digest", "verdict", "ratio"])
def test_an_edited_record_is_corrupted(report, written, what):
    text = written.read_text()
    record = json.loads(text)
    old = record["predicate"]["xopt"]["digests"]["adamw/float32/eager"]
    edits = {"digest": (old, flipped(old)), "verdict": (IDENTICAL, WITHIN), "ratio": ('"ratio": ', '"ratio": 1')}
    assert edits[what][0] in text
    written.write_text(text.replace(*edits[what], 1))
    assert re.fullmatch("corrupted: changed since it was written.*; restore the file with git, or delete it", the_error(written))


def test_a_truncated_record_is_corrupted(report, written):
    written.write_bytes(written.read_bytes()[:-200])
    assert re.match("corrupted, no JSON .*restore the file with git, or delete it", the_error(written))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda r: r.pop("subject"), "'subject' is a required property"),
        (lambda r: r["predicate"]["xopt"].update(dirty=True), r"\$\.predicate\.xopt\.dirty"),
        (lambda r: r["predicate"]["xopt"]["cells"][0].pop("verdict"), r"\$\.predicate\.xopt\.cells\[0\].*'verdict'"),
        (lambda r: r["predicate"]["xopt"]["digests"].update(x="abc"), r"\$\.predicate\.xopt\.digests"),
    ],
)
def test_a_record_of_another_structure_is_corrupted(report, written, change, where):
    sealed(written, change)
    assert re.match(f"corrupted, .*{where}", the_error(written))


def test_a_record_without_a_cell_is_an_error(report, written):
    sealed(written, lambda r: r["predicate"]["xopt"]["cells"].pop())
    message = the_error(written)
    assert message.startswith("1 cells are missing (adamw/float64/eager); on such a machine run xopt conform --evidence")


def test_a_digest_that_is_not_numpys_is_an_error(report, written):
    def change(record):
        digests = record["predicate"]["xopt"]["digests"]
        digests["adamw/float32/eager"] = flipped(digests["adamw/float32/eager"])

    sealed(written, change)
    message = the_error(written)
    assert message.startswith(
        "1 cells are called bit-identical, but their digests are not those that NumPy has here (adamw/float32/"
    )
    assert "xopt conform --backend numpy" in message
    assert "delete" in message


def test_a_digest_may_differ_where_the_cell_is_not_bit_identical(report, written):
    def change(record):
        claim = record["predicate"]["xopt"]
        (cell,) = [c for c in claim["cells"] if (c["rule"], c["dtype"]) == ("adamw", "float32")]
        cell.update(verdict=WITHIN, differ=1)
        claim["digests"]["adamw/float32/eager"] = flipped(claim["digests"]["adamw/float32/eager"])

    sealed(written, change)
    assert messages(written) == []


@pytest.mark.parametrize("bits", ["the same", "other ones"])
def test_an_edited_rule_makes_its_own_cells_stale(report, written, edit, bits, monkeypatch):
    edit("xopt.rules.adamw", "0.999", "0.99")
    if bits == "other ones":
        digest = measurement.numpy_digest
        monkeypatch.setattr(examination, "numpy_digest", lambda rule, dtype: "0" if rule == "adamw" else digest(rule, dtype))
    ((level, message),) = messages(written)
    assert level == (examination.WARNING if bits == "the same" else examination.ERROR)
    assert message.startswith("stale: the cells of adamw (rule:adamw changed); on such a machine run xopt conform --evidence DIR ")
    assert "--backend array_api_strict:cpu" in message
    assert "delete" in message
    (found,) = examination.current_cells(written.parent)
    assert {c.rule for c in found.cells} == {"sgd"}
    assert found.stale == {"adamw": ["rule:adamw"]}
    assert found.to_dict()["why"] == "adamw: rule:adamw changed"
    assert not found.to_dict()["current"]


def test_an_edited_golden_makes_its_cells_stale_and_no_numbers(report, written, edit):
    edit("xopt.conformance.golden.adamw", "0.999", "0.998")
    ((level, message),) = messages(written)
    assert level == examination.WARNING
    assert message.startswith("stale: the cells of adamw (golden:adamw changed)")
    assert {c.rule for c in examination.current_cells(written.parent)[0].cells} == {"sgd"}


@pytest.mark.parametrize(
    ("module", "old", "new", "part"),
    [
        ("xopt.conformance.arithmetic.bounded", "2.0**-30", "2.0**-3", "cells"),
        ("xopt.backends._array_api_strict", '"float32", ', "", "backend:array_api_strict"),
    ],
)
def test_an_edited_judge_or_backend_makes_all_cells_stale(report, written, edit, module, old, new, part):
    edit(module, old, new)
    ((level, message),) = messages(written)
    assert level == examination.WARNING
    assert message.startswith(f"stale: all cells, because {part} changed; on such a machine run ")
    assert examination.current_cells(written.parent)[0].cells == []


def test_a_comment_leaves_a_record_current(report, written, edit):
    edit("xopt.rules.adamw", "import NamedTuple", "import NamedTuple  # as ever")
    edit("xopt.conformance.compare.reference", '"""', '"""Other words: ')
    assert messages(written) == []


def test_another_backends_edit_leaves_a_record_current(report, written, edit):
    edit("xopt.backends._torch", '"float16", ', "")
    assert messages(written) == []


def test_a_new_rule_leaves_a_record_current(report, written, monkeypatch):
    for module in (sources, measurement, writing):
        monkeypatch.setattr(module, "RULES", RULES)
    assert messages(written) == []


def test_an_old_record_is_a_warning(report, written):
    assert messages(written, TODAY + datetime.timedelta(days=90)) == []
    ((level, message),) = messages(written, TODAY + datetime.timedelta(days=91))
    assert level == examination.WARNING
    assert message.startswith("91 days old, more than 90; on such a machine run xopt conform --evidence")
    assert len(examination.current_cells(written.parent)[0].cells) == 4


def test_only_the_newest_record_of_a_device_must_be_current(report, tmp_path, edit):
    folder = tmp_path / "evidence"
    edit("xopt.conformance.arithmetic.bounded", "2.0**-30", "2.0**-29")
    (old,) = writing.write(run_of(report, about=report.about | {"date": "2026-11-01"}), folder)
    edit("xopt.conformance.arithmetic.bounded", "2.0**-29", "2.0**-28")
    assert messages(old)[0][1].startswith("stale")
    (new,) = writing.write(run_of(report), folder)
    assert examination.examine(folder, TODAY) == []
    assert [one.record for one in examination.current_cells(folder)] == [new.name]
    sealed(new, lambda record: record["predicate"]["xopt"]["hardware"].update(name="another"))
    assert [finding.record for finding in examination.examine(folder, TODAY)] == [old.name]  # each is the newest of its hardware
    old.write_text("{")
    assert messages(old)[0][1].startswith("corrupted")


def test_the_findings_are_shown(report, written):
    console = Console(record=True, width=100, file=io.StringIO())
    assert view.show(console, written.parent, TODAY)
    assert "array_api_strict" in console.export_text()
    written.write_text("{")
    assert not view.show(console, written.parent, TODAY)
    assert f"error: {written.name}: corrupted" in console.export_text()


def test_no_records_are_no_error(tmp_path):
    assert examination.examine(tmp_path / "none", TODAY) == []
    assert examination.current_cells(tmp_path / "none") == []


# The hardware.


@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "torch", "jax"])
def test_every_cpu_has_a_name(name, monkeypatch):
    pytest.importorskip(name)
    backend = backends.get(name, "cpu")  # first, as XLA ends the process that starts with a flag which it does not know
    monkeypatch.setenv("XLA_FLAGS", "--xla_some=1")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    found = backend.hardware()
    assert found["name"]
    assert found["instructions"]
    assert found["XLA_FLAGS"] == "--xla_some=1"
    assert "NVIDIA_TF32_OVERRIDE" not in found
    assert all(isinstance(value, str) for value in found.values())


def test_torch_on_cuda_says_its_device_and_drivers(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    properties = {"cuda:1": types.SimpleNamespace(name="NVIDIA H200", major=9, minor=0)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties.__getitem__)
    monkeypatch.setattr("xopt.backends._torch._driver", lambda: {"driver": "CUDA 12.8"})
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    about = {"name": "NVIDIA H200", "compute capability": "9.0", "NVIDIA_TF32_OVERRIDE": "0"}
    assert TorchBackend("cuda:1").hardware() == about | {"CUDA": "12.6", "driver": "CUDA 12.8"}
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert TorchBackend("cuda:1").hardware() == about | {"ROCm": "6.2"}


def test_cupy_says_its_device_and_drivers(monkeypatch):
    for name in ("XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)
    runtime = types.SimpleNamespace(
        getDeviceProperties={1: {"name": b"NVIDIA H200", "major": 9, "minor": 0}}.__getitem__,
        runtimeGetVersion=lambda: 12060,
        driverGetVersion=lambda: 13010,
    )
    cupy = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert CuPyBackend("cuda:1").hardware() == {
        "name": "NVIDIA H200",
        "compute capability": "9.0",
        "CUDA": "12.6",
        "driver": "CUDA 13.1",
    }


def test_jax_on_a_gpu_says_its_device_and_platform(monkeypatch):
    pytest.importorskip("jax")
    for name in ("XLA_FLAGS", "NVIDIA_TF32_OVERRIDE"):
        monkeypatch.delenv(name, raising=False)
    client = types.SimpleNamespace(platform_version="PJRT C API\ncuda 12080")
    device = types.SimpleNamespace(platform="gpu", id=0, device_kind="NVIDIA H200", client=client)
    monkeypatch.setattr(JAXBackend, "_devices", classmethod(lambda _: {"gpu:0": device}))
    assert JAXBackend("gpu:0").hardware() == {"name": "NVIDIA H200", "platform": "PJRT C API\ncuda 12080"}
