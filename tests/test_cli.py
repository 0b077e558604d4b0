"""The command line: what is refused before a run, where it writes to, and what is left of a run that was interrupted."""

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from test_conform import SCHEMA
from typer.main import get_command
from typer.testing import CliRunner

from xopt import backends
from xopt.backends.names import nearest, unknown
from xopt.conformance import Report, suite
from xopt.conformance.__main__ import main
from xopt.conformance.cli.app import app
from xopt.conformance.cli.options import Outputs, names_of
from xopt.conformance.reading import read
from xopt.conformance.report.text import TABLE, mark
from xopt.conformance.results import DTYPES, Cell
from xopt.conformance.workers import workers
from xopt.rules import RULES

MARKED = f"{mark(TABLE)}\nold\n{mark(TABLE, 'end')}\n"
OPTIONS = {
    name: {option: one for one in command.params for option in one.opts}
    for name, command in get_command(app()).commands.items()  # type: ignore[attr-defined]
}


def run(*arguments: str) -> Any:
    done = CliRunner().invoke(app(), arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def complaint(done: Any) -> str:
    assert done.exit_code == 2, done.output
    return " ".join(done.stderr.replace("│", " ").split())


def never(*_: Any, **__: Any) -> Any:
    pytest.fail("the run began")


# Names


@pytest.mark.parametrize(
    ("name", "meant"),
    [("AdamW", "adamw"), ("adam_w", "adamw"), ("AdEMAMix", "ademamix"), ("NAG", "nesterov"), ("lionn", "lion"), ("shampoo", None)],
)
def test_a_rule_that_may_be_meant_is_named(name: str, meant: str | None) -> None:
    assert nearest(name, RULES) == meant
    assert unknown("rule", name, RULES).startswith(f"unknown rule {name!r}; there are sgd, momentum, ")
    assert unknown("rule", name, RULES).endswith(f"; did you mean {meant}?" if meant else "ademamix")


@pytest.mark.parametrize(("name", "meant"), [("pytorch", "torch"), ("numpyy", "numpy"), ("Array-API-strict", "array_api_strict")])
def test_a_backend_that_may_be_meant_is_named(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown backend '{name}'; there are numpy, .*; did you mean {meant}\?"):
        backends.get(name)
    assert f"did you mean {meant}?" in complaint(run("conform", "--backend", name))


def test_many_names_are_not_listed() -> None:
    assert unknown("fault", "x9", [f"a{i}" for i in range(300)]) == "unknown fault 'x9'; there are 300, which the docs list"


def test_names_are_repeated_or_have_commas() -> None:
    assert names_of(["lion,sgd", " adam", "sgd"], "--rule") == ["lion", "sgd", "adam"]
    assert names_of(["all"], "--rule") is names_of(None, "--rule") is names_of([], "--rule") is None
    assert "all stands beside lion, nope; give either" in complaint(run("conform", "--rule", "lion,nope", "--rule", "all"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("bench --seconds inf", "inf must be finite"),
        ("check py:a:b --limit inf", "inf must be finite"),
        ("bench --only ''", "no contender has '' in its name"),
        ("conform --profile ''", "unknown profile ''"),
        ("check py:a:b --rule lion --convention nope", "unknown convention of lion 'nope'"),
        ("check py:a:b --dtype float16", "unknown dtype 'float16'"),
    ],
)
def test_what_means_nothing_is_refused_before_the_work(line: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for work in ("suite.conform", "cli.bench.run_bench", "thirdparty.check.check"):
        monkeypatch.setattr(f"xopt.conformance.{work}", never)
    assert says in complaint(run(*shlex.split(line)))


def test_what_is_no_json_to_be_read_is_a_valueerror(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for path, says in ((tmp_path / "deep.json", "nested too deeply"), (tmp_path, "directory"), (tmp_path / "none", "No such file")):
        with pytest.raises(ValueError, match=says):
            read(path)


def test_options_are_spelt_alike() -> None:
    for name in ("conform", "faults", "bench"):
        assert OPTIONS[name]["--rule"].multiple
        assert "--rules" not in OPTIONS[name]
        assert {"--json", "--seed", "--table"} <= set(OPTIONS[name])
    assert OPTIONS["conform"]["--backend"].multiple
    assert OPTIONS["conform"]["--dtype"].multiple
    assert OPTIONS["bench"]["--size"].multiple
    assert {name for name, options in OPTIONS.items() if not options} == {"vectors"}, "it has commands of its own"


def test_version() -> None:
    done = run("--version")
    assert (done.exit_code, done.stdout) == (0, f"xopt {suite.version('array-xopt')}\n")


# Files


@pytest.mark.parametrize("command", ["conform", "bench"])
@pytest.mark.parametrize("option", ["--json", "--html"])
@pytest.mark.parametrize("path", ["/proc/xopt.json", "/dev/full", "/", "/nowhere/at/all"])
def test_what_cannot_be_written_is_found_before_the_work(
    command: str, option: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if path.startswith(("/proc", "/dev")) and not Path("/proc/self").exists():
        pytest.skip("there is no /proc")
    monkeypatch.setattr(suite, "conform", never)
    monkeypatch.setattr("xopt.conformance.cli.bench.run_bench", never)
    said = complaint(run(command, option, path))
    assert f"{path} cannot be written: " in said
    assert option in said


def test_two_outputs_are_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "conform", never)
    one = str(tmp_path / "one")
    assert "is what --json writes already" in complaint(run("conform", "--json", one, "--html", one))
    assert "standard output is what --json writes already" in complaint(run("conform", "--json", "-", "--junit", "-"))
    assert not Path(one).exists()


def test_a_file_keeps_what_it_has_until_it_is_filled(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    with Outputs({"--json": old, "--html": new}):
        assert old.read_text() == "old"
        assert new.exists()
    assert old.read_text() == "old"
    assert not new.exists()
    with Outputs({"--json": old, "--html": new}) as files:
        files.fill("--json", lambda: "young")
        files.fill("--junit", never)
    assert old.read_text() == "young"


def test_what_goes_wrong_at_the_end_is_said_and_the_rest_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> str:
        raise OSError(28, "No space left on device")

    with Outputs({"--json": tmp_path / "a", "--html": tmp_path / "b"}) as files:
        files.fill("--json", full)
        files.fill("--html", lambda: "page")
    assert files.failed
    assert f"--json: {tmp_path / 'a'} could not be written: No space left on device" in capsys.readouterr().err
    assert (tmp_path / "b").read_text() == "page"


def one_cell(*_: Any) -> Report:
    """Of a run that is right."""
    about = dict.fromkeys(("xopt", "python", "machine", "command"), "x") | {"profile": "ci", "seed": 3, "seconds": 1.0}
    cells = [Cell("sgd", "numpy", "cpu", "float32", "eager", elements=1, examples=99)]
    return Report(about | {"date": "2026-11-27", "time": "12:00:00", "interrupted": None}, [], cells, [])


def test_a_dash_is_standard_output_and_all_else_goes_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "conform", one_cell)
    done = run("conform", "--json", "-")
    assert json.loads(done.stdout)["counts"]["held"] == 1
    assert "RIGHT: 1 check holds" in done.stderr
    assert ElementTree.fromstring(run("conform", "--junit", "-").stdout.partition("\n")[2]).tag == "testsuites"
    assert "| `sgd` | bits |" in run("conform", "--rule", "sgd", "--table", "-").stdout


def test_standard_output_has_the_bytes_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a terminal's encoding is: JSON and pages are UTF-8."""
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii"))
    with Outputs({"--html": Path("-")}) as files:
        files.fill("--html", lambda: "\u00b7")
    assert printed.getvalue() == "\u00b7".encode()


def test_the_command_is_told_with_every_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(suite, "conform", one_cell)
    page = tmp_path / "a page.html"
    done = run(
        "conform", "--rule", "lion,sgd", "--dtype", "float32", "--html", str(page), "--json", "-", "--jobs", "3", "--verbose"
    )
    told = json.loads(done.stdout)["about"]["command"]
    asked = "--rule lion,sgd --dtype float32 --profile quick --seed 0"
    assert told == f"xopt conform {asked} --json - --html '{page}' --jobs 3 --verbose"
    assert told.replace("&", "&amp;").replace("'", "&#39;") in page.read_text()


@pytest.mark.parametrize(
    ("part", "way"),
    [
        (["--rule", "lion", "--profile", "ci"], "run without --rule, or"),
        (["--backend", "numpy", "--dtype", "float32,float64", "--profile", "ci"], "run without --backend, without --dtype, or"),
        (["--profile", "emulated"], "run with --profile ci or nightly, which have all modes, or"),
        ([], "run with --profile ci or nightly"),
    ],
)
def test_a_part_does_not_replace_the_table_of_everything(
    part: list[str], way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "conform", never)
    page = tmp_path / "README.md"
    page.write_text(MARKED)
    said = complaint(run("conform", *part, "--table", str(page)))
    assert "has the verdicts of a whole run, and this is a part: " in said
    assert way in said
    assert page.read_text() == MARKED
    monkeypatch.setattr(suite, "conform", one_cell)
    assert run("conform", "--dtype", ",".join(DTYPES), "--profile", "ci", "--table", str(page)).exit_code == 0
    assert "Everything: 11 rules" in page.read_text()


# Interruptions


def interrupted(*arguments: str) -> tuple[int, str]:
    """As at a terminal, where Ctrl-C reaches all processes of a command: after the first result."""
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # where this runs in the background, it would be ignored
    start = f"import signal; {heard}; from xopt.conformance.__main__ import main; main()"
    command = [sys.executable, "-P", "-c", start, *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "COLUMNS": "60"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment,
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("  sgd "):
            break
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    return process.returncode, said + rest


def test_an_interrupt_that_is_swallowed_ends_a_task_nonetheless() -> None:
    def swallows() -> str:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return "a result"

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with workers(1, ()) as submit, pytest.raises(KeyboardInterrupt):
            submit(swallows).result()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="there are no process groups")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupted_run_leaves_what_it_has(jobs: str, tmp_path: Path) -> None:
    data, page, junit = (tmp_path / f"report.{kind}" for kind in ("json", "html", "xml"))
    outputs = ["--json", str(data), "--html", str(page), "--junit", str(junit)]
    code, said = interrupted("conform", "--rule", "sgd,lion", "--backend", "numpy", "--jobs", jobs, "--verbose", *outputs)
    assert code == 130, said
    assert "Traceback" not in said
    report = json.loads(data.read_text())
    jsonschema.validate(report, SCHEMA)
    assert re.fullmatch(r"[1-9]\d* of \d+ tasks", report["about"]["interrupted"])
    assert not report["scope"]["whole"]
    assert report["verdict"].startswith("INTERRUPTED after ")
    assert report["counts"]["held"] > 0
    assert " ".join(said.split()).endswith(f"{report['verdict']}.")
    assert f"Interrupted after {report['about']['interrupted']}. A part: " in page.read_text()
    assert ElementTree.parse(junit).getroot().find("testsuite[@name='run']/testcase/failure") is not None


def test_an_interrupted_run_leaves_table_and_records_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> Report:
        report = one_cell()
        report.about["interrupted"] = "1 of 9 tasks"
        raise suite.InterruptedRun(report)

    monkeypatch.setattr(suite, "conform", stopped)
    page = tmp_path / "README.md"
    page.write_text(MARKED)
    done = run("conform", "--profile", "ci", "--table", str(page))
    assert done.exit_code == 130
    assert page.read_text() == MARKED
    assert "--table wrote nothing" in done.stderr


def test_in_python_an_interruption_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "check_laws", stop)
    with pytest.raises(KeyboardInterrupt) as stopped:
        suite.conform(["numpy"], ["sgd"], ["float32"])
    report = stopped.value.report
    assert report.problems == [f"The run was interrupted after {report.about['interrupted']}."]
    assert [cell.verdict for cell in report.cells if cell.mode == "eager"] == ["bit-identical"]


@pytest.mark.parametrize("command", ["evidence", "faults"])
def test_other_commands_end_quietly(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("xopt.conformance.cli.evidence.show", stop)
    monkeypatch.setattr("xopt.conformance.cli.faults.run", stop)
    done = run(command)
    assert (done.exit_code, done.stderr.strip()) == (130, "xopt: interrupted")


def test_an_interrupted_benchmark_leaves_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("xopt.conformance.bench.suite._memories", stop)
    data = tmp_path / "bench.json"
    done = run("bench", "--rule", "sgd", "--size", "10", "--seconds", "0", "--only", "numpy eager", "--json", str(data))
    assert done.exit_code == 130
    report = json.loads(data.read_text())
    assert report["about"]["interrupted"] == "memory"
    assert [entry["contender"] for run_ in report["runs"] for entry in run_["entries"]] == ["numpy eager"]
    assert "INTERRUPTED in memory." in done.stdout


# Without the extra


def test_an_interrupt_ends_quietly_from_the_first(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("xopt.conformance.__main__.namesake", stop)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "\nxopt: interrupted\n")


def test_a_folder_that_is_gone_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (2, "xopt: the current folder is gone; change to another\n")


def test_a_closed_pipe_is_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """As typer and rich end a command whose output nobody reads to its end."""

    def closed() -> None:
        try:
            raise BrokenPipeError
        except OSError:
            sys.exit(1)

    monkeypatch.setattr("xopt.conformance.cli.app.app", lambda: closed)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 141


def test_help_needs_no_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("typer", "sklearn") else name)
    for arguments in ([], ["--help"], ["--version"]):
        monkeypatch.setattr(sys, "argv", ["xopt", *arguments])
        main()
        said = capsys.readouterr().out
        assert ("pip install scikit-learn typer\n" in said) == (arguments != ["--version"])
        assert ("  conform " in said) == (arguments != ["--version"])
    monkeypatch.setattr(sys, "argv", ["xopt", "conform"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith("pip install scikit-learn typer\n")
