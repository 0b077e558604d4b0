"""A report says what ran and what came of it, in the same words and figures everywhere, above all where something is wrong."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from rich.console import Console
from test_conform import SCHEMA

import xopt
from xopt.conformance import Report, conform
from xopt.conformance.report.html import page_of
from xopt.conformance.report.junit import junit_of
from xopt.conformance.report.program import script
from xopt.conformance.report.summary import Counts, Scope, command_line
from xopt.conformance.report.text import markdown, show, show_verdict
from xopt.conformance.report.vocabulary import VERDICTS, heading, order
from xopt.conformance.results import IDENTICAL, MODES, NOT_RUN, WRONG, Cell, LawResult
from xopt.rules import lion

WRONG_LION = ["conform", "--rule", "lion", "--backend", "numpy", "--dtype", "float32", "--jobs", "1", "--seed", "1"]
"""Of the quick profile, which has an example for a law: with this seed one of a decay that shows."""

PROGRAM = """
import functools, sys
import xopt
from xopt.conformance import suite
from xopt.conformance.__main__ import main
rule = xopt.RULES["lion"]
{edit}
laws, some = suite.check_laws, ["lion beta1=beta2 is the sign of its average", "negation"]
suite.check_laws = lambda *given: laws(*given, only=some)  # these two say what is shown; test_cells looks for the smallest input
suite.check_machine = suite.check_structures = lambda *given, **more: []
suite.Effort = functools.partial(suite.Effort, shrink=False)
sys.argv = ["xopt", *sys.argv[1:]]
main()
"""

DECAY = """
right = rule.coefficients

def wrong(*args, **hyper):
    c = right(*args, **hyper)
    return c._replace(weight_decay=1.01 * c.weight_decay)

rule.coefficients = wrong
"""

RAISES = """
def update(*_):
    raise ValueError("boom in update")
rule.elementwise = update
"""


def shown(report: Report, width: int = 80, verbose: bool = False) -> str:
    console = Console(width=width, file=io.StringIO())
    show(console, report, verbose)
    show_verdict(console, report, verbose)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


# What was asked for


def test_scope_names_a_part_and_counts_the_rest() -> None:
    about = {"asked": {"rule": ["lion"], "backend": ["torch:cuda:0"]}, "profile": "quick", "seed": 4}
    scope = Scope.of(about)
    assert str(scope) == (
        "A part: lion (1 of 11 rules), torch:cuda:0 (1 of 10 backends), 4 dtypes, op by op (1 of 3 modes); profile quick, seed 4"
    )
    assert scope.lacking == ["rule", "backend", "mode"]
    assert not scope.whole
    everything = Scope.of({"profile": "ci", "seed": 0})
    assert str(everything) == "Everything: 11 rules, 10 backends, 4 dtypes, 3 modes; profile ci, seed 0"
    assert everything.whole
    assert not Scope.of({"profile": "ci", "seed": 0, "interrupted": "1 of 2 tasks"}).whole


def test_command_line_has_what_was_given() -> None:
    options = {"rule": ["lion", "sgd"], "seed": 0, "json": Path("a b"), "html": None, "faults": True, "verbose": False}
    assert command_line("conform", options) == "xopt conform --rule lion --rule sgd --seed 0 --json 'a b' --faults"


@pytest.fixture(scope="module")
def part() -> Report:
    return conform(["numpy", "torch"], ["lion"], ["float32"])


def test_a_printed_report_is_its_summary(part: Report) -> None:
    scope, command, verdict = str(part).splitlines()
    assert scope == f"{part.scope}."
    assert command == "xopt conform --rule lion --backend numpy --backend torch --dtype float32 --profile quick --seed 0"
    assert verdict == part.verdict
    assert re.fullmatch(r"RIGHT: \d+ checks hold, none is wrong; \d+ not run", verdict)
    assert repr(part) == f"<{part}>"


def test_every_output_begins_with_the_scope(part: Report) -> None:
    said = str(part.scope)
    assert next(iter(part.to_dict())) == "scope"
    assert part.to_dict()["scope"]["says"] == said
    assert markdown(part).splitlines()[0].startswith(f"{said}: `{part.about['command']}`")
    assert said in page_of(part.to_dict()).partition("<h1")[0]
    for suite in ElementTree.fromstring(junit_of(part.to_dict()).partition("\n")[2]):
        assert [p.attrib["value"] for p in suite[0]] == [said, part.about["command"], part.verdict]


def test_a_table_of_a_part_speaks_of_that_part(part: Report) -> None:
    table = markdown(part)
    assert [line for line in table.splitlines() if line.startswith("| `")] == ["| `lion` | bits | bits |"]
    assert "In float32, of which" in table


def test_what_did_not_run_has_no_measure(part: Report) -> None:
    report = part.to_dict()
    jsonschema.validate(json.loads(json.dumps(report, allow_nan=False)), SCHEMA)
    skipped = [cell for cell in report["cells"] if cell["verdict"] == NOT_RUN]
    assert skipped
    for cell in skipped:
        measures = ("differ", "differ_subnormal", "ratio", "trajectory_ratio", "ulps", "vacuous", "trajectory_vacuous", "seconds")
        assert [cell[name] for name in measures] == [None] * len(measures)
    assert all(law["ratio"] is law["differ"] is None for law in report["laws"] if law["verdict"] == NOT_RUN)
    ran = [cell for cell in report["cells"] if cell["verdict"] != NOT_RUN]
    assert all(cell["ratio"] is not None and cell["seconds"] > 0 for cell in ran)


def test_a_wrong_number_has_its_own_ratio() -> None:
    wrong = {"mode": "step", "step": 1, "error": 3.0, "bound": 0.5, "again": None, "message": None}
    cells = [Cell("sgd", "numpy", "cpu", "float32", "eager", elements=5, ratio=0.9, wrong=wrong)]
    assert Report({}, [], cells, []).to_dict()["cells"][0]["ratio"] == 6.0
    cells[0].wrong = wrong | {"error": None}
    assert Report({}, [], cells, []).to_dict()["cells"][0]["ratio"] is None


# One vocabulary


def test_verdicts_are_called_alike_everywhere(part: Report) -> None:
    page, terminal, table = page_of(part.to_dict()), shown(part), markdown(part)
    for verdict in (IDENTICAL, NOT_RUN):
        word = VERDICTS[verdict]
        assert f"{word.symbol}</span> <span><b>{verdict}</b>: {word.meaning}" in page
        assert re.search(rf"^{re.escape(word.symbol)} +{verdict}: ", terminal, re.MULTILINE)
        assert any(cell["verdict"] == verdict for cell in part.to_dict()["cells"])
    assert f"**bits** {IDENTICAL}, {VERDICTS[IDENTICAL].meaning}" in table
    assert {*VERDICTS} >= {*SCHEMA["$defs"]["verdict"]["enum"], *SCHEMA["$defs"]["law"]["properties"]["verdict"]["enum"]}


def test_columns_stand_in_one_order() -> None:
    places = [("jax", "cpu", "eager"), ("numpy", "cpu", "fused"), ("torch", "cuda:0", "eager"), ("torch", "cpu", "fused")]
    places += [("torch", "cpu", "traced"), ("numpy", "cpu", "eager"), ("torch", "cpu", "eager")]
    headings = ["numpy cpu", "numpy cpu fused", "torch cpu", "torch.compile cpu", "torch cpu fused", "torch cuda:0", "jax cpu"]
    assert [heading(place) for place in sorted(places, key=order)] == headings
    cells = [Cell("sgd", *place[:2], "float32", place[2], elements=1) for place in places]
    backends = [
        {"name": b, "device": d, "tracer": "torch.compile", "compiler": "numba"} for b, d in dict.fromkeys(p[:2] for p in places)
    ]
    about = {"profile": "ci", "seed": 0, "command": "x", "date": "x", "python": "x", "machine": "x", "seconds": 1.0, "xopt": "x"}
    report = Report(about, [], cells, [])
    assert markdown(report).splitlines()[2] == f"| rule | {' | '.join(headings)} |"
    more = {"version": "1", "reason": None, "sentences": [], "dtypes": [], "probes": {}, "seconds": 0.0}
    page = page_of(report.to_dict() | {"backends": [one | more for one in backends]})
    head = page.partition("float32 parameters")[2].partition("</thead>")[0]
    assert [name for name in re.findall(r"<span>(.*?)</span>", head) if name in headings] == headings
    assert len(MODES) == 3


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_words_are_whole_on_terminals_of_any_width(part: Report, width: int) -> None:
    text = shown(part, width, verbose=True)
    tables = [line for line in text.splitlines() if "───" in line or " bits" in line or "array_api" in line]
    assert tables
    assert all(len(line.rstrip()) <= width for line in tables)
    assert "…" not in text
    words = {word for said in [part.verdict, *VERDICTS[IDENTICAL].meaning.split()] for word in said.split()}
    assert words <= set(re.findall(r"[^\s]+", text.replace("(why:", "").replace(".\n", "\n"))) | {part.verdict.split()[-1]}


def test_columns_that_do_not_fit_go_into_a_further_table() -> None:
    cells = [Cell("ademamix", "torch", f"cuda:{i}", "float32", mode, elements=1) for i in range(8) for mode in MODES]
    about = {"seconds": 1.0, "profile": "ci", "seed": 0}
    text = shown(Report(about, [], cells, []), 60)
    assert text.count("float32 parameters") > 1
    assert len(re.findall(r"\bbits\b", text.partition("bit-identical")[0])) == len(cells) + 1  # and the legend's
    assert len(re.findall(r"cuda:\d", text.partition("bit-identical")[0])) == len(cells)


# Where something is wrong


def counts_in(folder: Path) -> dict[str, Any]:
    """What each output says of how much is wrong."""
    report = json.loads((folder / "out.json").read_text())
    jsonschema.validate(report, SCHEMA)
    everything = [*report["cells"], *report["replays"], *report["laws"]]
    page = (folder / "out.html").read_text()
    root = ElementTree.parse(folder / "out.xml").getroot()
    return {
        "report": report["counts"]["wrong"],
        "results": sum(result["verdict"] in ("wrong", "broken") for result in everything),
        "title": int(re.search(r"<h1[^>]*>WRONG: (\d+) of", page)[1]),  # type: ignore[index]
        "tile": int(re.search(r"<dt>are wrong</dt><dd class=\"big\">(\d+)</dd>", page)[1]),  # type: ignore[index]
        "findings": page.count('<div class="finding"'),
        "junit": sum(int(suite.attrib["failures"]) for suite in root if suite.attrib["name"] not in ("run", "ledger")),
    }


def run_with(edit: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(PROGRAM.format(edit=edit))
    outputs = [f"--{kind}={folder}/out.{name}" for kind, name in (("json", "json"), ("html", "html"), ("junit", "xml"))]
    command = [sys.executable, "-P", str(program), *WRONG_LION, *outputs]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_wrong_decay_is_told_alike_everywhere_and_shown_by_a_program_that_fails(tmp_path: Path) -> None:
    done = run_with(DECAY, tmp_path)
    assert done.returncode == 1, done.stderr
    found = counts_in(tmp_path)
    assert len(set(found.values())) == 1, found
    (said,) = re.findall(r"^WRONG: (\d+) of ", done.stdout, re.MULTILINE)[-1:]
    assert int(said) == found["report"] >= 3
    assert "BROKEN: the bits of the reference" in done.stdout
    said_of_law = " ".join(done.stdout.split())
    assert re.search(r"is -?[\d.e-]+ on one side and -?[\d.e-]+ on the other, [\d.e-]+ apart where", said_of_law)
    report = json.loads((tmp_path / "out.json").read_text())
    (cell,) = [cell for cell in report["cells"] if cell["verdict"] == WRONG]
    assert cell["ratio"] > 1
    assert cell["wrong"]["expected"] != cell["wrong"]["found"]
    text = script(cell)
    assert text.replace("\n", "") in done.stdout.replace("\n", "")
    failing = tmp_path / "failing.py"
    failing.write_text(PROGRAM.format(edit=DECAY).partition("laws, some")[0] + text)
    again = subprocess.run([sys.executable, "-P", str(failing)], capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert f"AssertionError: expected {cell['wrong']['expected']!r} within " in again.stderr
    assert f"found {cell['wrong']['found']!r}" in again.stderr
    exec(text, {})  # of the right rule it says nothing


def test_a_rule_that_raises_is_a_wrong_cell_with_its_traceback(tmp_path: Path) -> None:
    done = run_with(RAISES, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Invalid value" not in done.stderr
    found = counts_in(tmp_path)
    assert found["report"] == found["results"] == found["title"] == found["tile"] == found["junit"]
    report = json.loads((tmp_path / "out.json").read_text())
    wrong = next(cell for cell in report["cells"] if cell["verdict"] == WRONG)["wrong"]
    assert wrong["message"] == "ValueError: boom in update"
    assert 'raise ValueError("boom in update")' in wrong["traceback"]
    assert "WRONG: lion on numpy cpu, float32, eager" in done.stdout
    assert 'raise ValueError("boom in update")' in done.stdout
    assert re.search(r"BROKEN: \d+ laws by ValueError: boom in update", done.stdout)
    assert "boom in update" in (tmp_path / "out.html").read_text()
    replays = [replay for replay in report["replays"] if replay["verdict"] == WRONG]
    assert [replay["replayed"]["wrong"]["message"] for replay in replays] == ["ValueError: boom in update"]


def test_a_broken_law_says_where_and_by_how_much() -> None:
    broken = {"at": [5, 3], "one": 1.0, "other": 1.5, "distance": 0.5, "bound": 1e-7, "beyond": 4, "of": 64, "input": {"hyper": {}}}
    law = LawResult("negation", "lion", "numpy", "cpu", "float32", "eager", numbers=64, broken=broken)
    report = Report({"seconds": 1.0, "profile": "quick", "seed": 0}, [], [], [], [law])
    words = "number[5, 3] is 1.0 on one side and 1.5 on the other, 0.5 apart where 1e-07 is allowed; so are 3 more of 64"
    assert words in " ".join(shown(report).split())
    assert report.counts.wrong == 1


def test_counts_tell_of_each_kind() -> None:
    counts = Counts.of([WRONG, IDENTICAL, NOT_RUN], ["broken", "broken", "held", "within the bound"])
    assert (counts.held, counts.wrong, counts.not_run) == (3, 3, 1)
    assert counts.verdict(1) == "WRONG: 3 of 6 checks (1 comparison, 2 laws); 3 checks hold; 1 not run"
    assert Counts.of([IDENTICAL], []).verdict(2) == "FAILED for 2 reasons that are given; 1 check holds, none is wrong; 0 not run"
    assert Counts.of([NOT_RUN], []).verdict(1) == "FAILED for a reason that is given; nothing was checked; 1 not run"
    assert Counts.of([WRONG], []).verdict(1, "1 of 9 tasks").startswith("INTERRUPTED after 1 of 9 tasks: WRONG: 1 of 1 checks")


def test_the_rule_under_test_is_ours() -> None:
    """What the planted programs above change is in their own process."""
    state = xopt.lion_init(np.ones(1))
    assert lion.lion.step(state, np.ones(1), lr=0.5, weight_decay=1.0).params[0] == 0.0
