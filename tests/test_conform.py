"""The command line and the report, from the outside."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

import xopt
from xopt.backends import BACKENDS, get
from xopt.conformance import PROFILES, Report, conform, ledger, suite
from xopt.conformance.__main__ import NEEDED
from xopt.conformance.arithmetic.probes import probe
from xopt.conformance.cli.app import app
from xopt.conformance.evidence.examination import Evidence
from xopt.conformance.report.report import BackendReport
from xopt.conformance.report.summary import Scope
from xopt.conformance.report.text import TABLE, mark, markdown, read_json, write_json, write_table
from xopt.conformance.results import DTYPES, NOT_RUN, WRONG, Cell

SCHEMA = json.loads((files("xopt.conformance.report") / "schema.json").read_text())


def xopt_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "xopt.conformance", *arguments], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def report() -> Any:
    return conform(["numpy", "array_api_strict", "torch"], ["lion"], ["float32", "bfloat16"], "quick")


def test_report_follows_its_schema(report: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(json.dumps(report.to_dict(), allow_nan=False)), SCHEMA)


def test_every_cell_is_there_and_says_why_it_did_not_run(report: Any) -> None:
    assert len(report.cells) == 2 * 3 * 3  # dtypes, backends, modes
    for cell in report.cells:
        assert (cell.verdict == NOT_RUN) == (cell.reason is not None)
    numpy = next(c for c in report.cells if c.backend == "numpy" and c.dtype == "bfloat16")
    assert numpy.reason == "numpy has no bfloat16"


def test_losses_fall_on_real_digits(report: Any) -> None:
    trained = [r for r in report.replays if r.losses]
    assert {r.backend for r in trained} == {"numpy", "array_api_strict", "torch"}
    for replay in trained:
        assert replay.losses[-1] < replay.losses[0]
        assert replay.divergence is not None
        assert replay.divergence < 0.1


def test_markdown_table_has_a_row_a_rule(report: Any, tmp_path: Path) -> None:
    assert "| `lion` | bits | bits |" in markdown(report)
    page = tmp_path / "README.md"
    page.write_text(f"before\n{mark(TABLE)}\nworn\n{mark(TABLE, 'end')}\nafter\n")
    write_table(report, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "worn" not in text
    with pytest.raises(ValueError, match="has no line"):
        write_table(report, tmp_path / "README.md.new") if (tmp_path / "README.md.new").write_text("x") else None


def test_a_record_of_another_device_adds_its_column_while_its_cells_count(report: Any) -> None:
    cells = [Cell(c.rule, "torch", "cuda:0", c.dtype, c.mode, elements=9) for c in report.cells if c.backend == "torch"]
    record = Evidence(
        "torch-cuda0", "torch", "cuda:0", "a GPU", "2026-11-24", [c for c in cells if c.rule == "lion"], {"sgd": ["rule"]}
    )
    report = replace(report, about=report.about | {"asked": {"rule": ["lion", "sgd"]}})
    _, _, head, _, *rows = markdown(report, [record]).splitlines()
    columns = [column.strip() for column in head.split("|")]
    shown = {
        row.split("|")[1].strip(): row.split("|")[columns.index("torch cuda:0")].strip() for row in rows if row.startswith("| `")
    }
    assert (shown["`lion`"], shown["`sgd`"]) == ("bits", "-")
    assert "From records: torch cuda:0 on a GPU, 2026-11-24." in markdown(report, [record])
    assert "torch cuda" not in markdown(report)
    assert "From records" not in markdown(report, [record._replace(cells=[])])


def test_a_report_of_another_run_adds_its_columns(report: Any, tmp_path: Path) -> None:
    cells = [Cell(c.rule, "torch", "triton-interpreted", c.dtype, "fused", elements=9) for c in report.cells if c.rule == "lion"]
    other = replace(report, cells=[*cells, *report.cells], about=report.about | {"command": "xopt conform --backend torch:triton"})
    write_json(other, tmp_path / "other.json")
    text = markdown(replace(report, about=report.about | {"asked": {}}), beside=[read_json(tmp_path / "other.json")])
    assert "torch triton-interpreted fused |" in text.splitlines()[2]
    assert next(line for line in text.splitlines() if "`lion`" in line).endswith("| bits |")
    assert next(line for line in text.splitlines() if "`adam`" in line).endswith("| - |")
    assert " torch triton-interpreted: `xopt conform --backend torch:triton`" in text
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="is not what this version of xopt conform --json writes"):
        read_json(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["conform", "--beside", "README.md"], "is not what this version of xopt conform --json"),
        (["conform", "--backend", "tensorflow"], "Invalid value for --backend: unknown backend 'tensorflow'"),
        (["conform", "--backend", "numpy:cuda:0"], "unknown device 'cuda:0'"),
        (["conform", "--rule", "adamx"], "unknown rule 'adamx'"),
        (["conform", "--dtype", "float8"], "Invalid value for --dtype: unknown dtype 'float8'"),
        (["conform", "--profile", "slow"], "unknown profile 'slow'"),
        (["conform", "--seed", "x"], "Invalid value for '--seed'"),
        (["conform", "--json", "/nowhere/at/all.json"], "cannot be written: No such file or directory"),
        (["conform", "--html", "/nowhere/at/all.html"], "cannot be written: No such file or directory"),
        (["conform", "--junit", "/nowhere/at/all.xml"], "cannot be written: No such file or directory"),
        (["conform", "--table", "/nowhere.md"], "must be a file"),
        (["faults", "no such fault"], "unknown fault 'no such fault'"),
        (["faults", "--table", "/nowhere.md"], "must be a file"),
        (["evidence", "/nowhere/at/all"], "is not a directory"),
        (["conform", "--bogus"], "No such option"),
        (["confirm"], "No such command"),
    ],
)
def test_bad_usage_exits_with_2_and_says_why(arguments: list[str], complaint: str) -> None:
    done = CliRunner().invoke(app(), arguments)
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit), "no traceback"
    assert complaint in " ".join(done.stderr.replace("│", " ").split())


def test_bad_usage_of_the_command_itself() -> None:
    done = xopt_command("confirm")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "No such command" in done.stderr
    assert "Traceback" not in done.stderr


WITHOUT = """
import importlib.util, sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
find, gone = PathFinder.find_spec, sys.argv.pop().split(",")
PathFinder.find_spec = lambda name, path=None, target=None: None if name in gone else find(name, path, target)
from xopt.conformance.__main__ import main
main()
"""


@pytest.mark.parametrize("missing", ["sklearn", ",".join(NEEDED)])
def test_a_missing_extra_is_one_clear_message(missing: str) -> None:
    packages = " ".join(NEEDED[name] for name in missing.split(","))
    needed = f"The commands need packages that are not installed: pip install {packages}\n"
    done = subprocess.run([sys.executable, "-c", WITHOUT, "conform", missing], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"xopt: {needed}")
    done = subprocess.run([sys.executable, "-c", WITHOUT, "--help", missing], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(needed)


def test_the_other_project_of_that_name_is_no_mystery(tmp_path: Path) -> None:
    """Both distributions install into one folder; here the other one's metadata alone is there."""
    (tmp_path / "xopt-3.2.2.dist-info").mkdir()
    (tmp_path / "xopt-3.2.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: xopt\nVersion: 3.2.2\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "xopt.conformance", "--help"], capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("xopt: the distribution xopt 3.2.2, another project, is installed too")
    assert "uninstall" in done.stderr


def test_command_shows_its_verdict_last_writes_what_it_is_asked_for_and_exits_with_0(tmp_path: Path) -> None:
    data, page, junit = (tmp_path / f"report.{kind}" for kind in ("json", "html", "xml"))
    outputs = ["--json", str(data), "--html", str(page), "--junit", str(junit)]
    done = xopt_command("conform", "--backend", "numpy", "--rule", "sgd", "--dtype", "float64", *outputs)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines[0].startswith("A part: sgd (1 of 11 rules), numpy (1 of 10 backends), ")
    assert re.fullmatch(r"RIGHT: \d+ checks hold, none is wrong; \d+ not run \(why: --verbose\)\.", lines[-1])
    assert "no compiler of its own" not in done.stdout
    report = json.loads(data.read_text())
    jsonschema.validate(report, SCHEMA)
    assert report["problems"] == []
    assert "<html" in page.read_text()
    assert "<testsuites" in junit.read_text()


def test_a_deviation_without_a_row_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "read", list)
    rules = ["adam", "nadam", "qhadam"]  # how many of them deviate in a quick run is the processor's: its square roots
    report = conform(["torch"], rules, ["float32"], "quick")
    assert report.problems
    for problem in report.problems:
        assert problem.partition(" ")[0] in rules
        assert "no row of the ledger accepts it" in problem
    assert report.wrong == []


def test_what_compared_nothing_without_a_reason_fails_the_run() -> None:
    silent = Report({}, [], [Cell("sgd", "numpy", "cpu", "float32", "eager")], [])
    silence, nothing = sorted(silent.problems, key=lambda problem: "compared nothing" not in problem)
    assert "compared nothing" in silence
    assert "checked" in nothing  # and that was all


def test_a_wrong_rule_exits_with_1(tmp_path: Path) -> None:
    """The command itself, on a rule with a planted fault."""
    program = tmp_path / "wrong.py"
    program.write_text(
        "import sys\n"
        "import xopt\n"
        "from xopt.conformance import suite\n"
        "from xopt.conformance.__main__ import main\n"
        "suite.check_laws = lambda *_: []\n"  # looking for the smallest input that breaks each takes seconds
        "rule = xopt.RULES['sgd']\n"
        "rule.elementwise = lambda params, grad, c: (params + c.lr * grad,)\n"
        "sys.argv = ['xopt', 'conform', '--backend', 'numpy', '--rule', 'sgd', '--dtype', 'float32', '--jobs', '1']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-P", str(program)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    assert "WRONG: sgd on numpy" in done.stdout


def test_unknown_names_are_refused_in_python_too() -> None:
    with pytest.raises(ValueError, match="unknown rule 'adamx'; there are sgd, momentum"):
        conform(rules=["adamx"])


def test_profiles_grow() -> None:
    quick, ci, nightly = (PROFILES[name].examples for name in ("quick", "ci", "nightly"))
    assert quick < ci < nightly


def test_nothing_wrong_by_construction(report: Any) -> None:
    assert [c for c in report.cells if c.verdict == WRONG] == []
    assert set(xopt.RULES) >= {c.rule for c in report.cells}


def test_backends_of_slow_operations_run_where_they_are_asked_for():
    quick, nightly = PROFILES["quick"], PROFILES["nightly"]
    slow = [name for name, kind in BACKENDS.items() if kind.slow]
    assert slow == ["mlx", "dpnp", "dask", "ndonnx", "mparray"]
    assert [name for name in BACKENDS if name not in suite._unless_slow(None, quick)] == slow
    assert list(suite._unless_slow(None, nightly)) == list(BACKENDS)
    assert suite._unless_slow(["dask"], quick) == ["dask"]
    left = suite._left_out(quick)
    assert [report.name for report in left] == slow
    for report in left:
        assert report.reason is not None
        assert f"--backend {report.name}" in report.reason if report.version else "not installed" in report.reason
    assert suite._left_out(nightly) == []


def test_laborious_backends_take_turns_and_get_no_more_than_hours_hold():
    """Every rule is held to its laws in one dtype of dask, and each dtype has its rules; at night in all, with fewer examples."""
    own = {"dask": ("float16", "float32", "float64"), "mlx": ("float16", "bfloat16", "float32", "float64")}
    right = probe(get("numpy"), compiled=False).to_dict()
    found = [BackendReport(name, "cpu", "1", None, dtypes, probes=right) for name, dtypes in own.items()]
    for profile, turns in (("quick", 1), ("ci", 1), ("nightly", 3)):
        plan = PROFILES[profile]
        _, left, tasks = suite._plan(found, list(xopt.RULES), list(DTYPES), plan, seed=3)
        laws = {
            (target.backend, task.rule, task.arguments[1]): task.arguments[3].examples
            for task in tasks
            if task.what.endswith(" laws")
            for target in task.arguments[2]
        }
        counted = Counter((backend, rule) for backend, rule, _ in laws)
        assert counted == {(name, rule): {"dask": turns, "mlx": 4}[name] for name in own for rule in xopt.RULES}
        assert {dtype for backend, _, dtype in laws if backend == "dask"} == set(own["dask"])
        reasons = {law.reason for law in left}
        assert all("takes a millisecond: of this rule the laws are asked in float" in reason for reason in reasons)
        assert {(law.backend, law.verdict) for law in left} == ({("dask", NOT_RUN)} if turns == 1 else set())
        assert all(n == plan.of(backend).law_examples(dtype) for (backend, _, dtype), n in laws.items())
        drawn = [task.arguments for task in tasks if task.what == "float32"]
        cells = {target.backend: effort.examples for _, _, targets, effort in drawn for target in targets}
        assert cells == {"dask": min(plan.examples, 48), "mlx": plan.examples}
        said = str(Scope.of({"asked": {"backend": ["mlx", "dask"]}, "profile": profile}))
        assert ("at most 48 examples on dask" if turns == 3 else "laws in one dtype of each rule on dask") in said
        assert "dask" not in str(Scope.of({"asked": {"backend": ["mlx"]}, "profile": profile}))


@pytest.mark.parametrize("name", ["mlx", "mparray"])
def test_conform_runs_on_other_libraries(name):
    """One rule, in the dtype that each has. Of dask and ndonnx, which are slower, ``.ci/run`` has a stage, of these two as well."""
    if not BACKENDS[name].installed_version():
        pytest.skip(f"{name} is not installed")
    report = conform([name], ["momentum"], ["float64" if name == "mparray" else "float16"])
    assert not report.wrong
    assert not report.failures
    ran = [cell for cell in report.cells if cell.verdict != NOT_RUN]
    assert [(cell.backend, cell.mode) for cell in ran] == [(name, "eager")]
