"""The documentation says what is so: every block of Python runs and prints what the page shows.

The convention: ```` ```python ```` blocks of a page run in order, in one namespace and a process of their own. A block that prints
is followed by a ```` ```text ```` block with exactly that; a block that prints nothing is not. In the line that opens a block,
``no-run: reason`` keeps it from running, ``needs program: reason`` does so where the program is missing, and ``title="path"`` makes
it the text of a file, for the walk-through of a new rule.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import optree
import pytest
from builders import pages, rule_pages, tables
from test_layout import project_files

import xopt
from xopt.conformance.conventions import CONVENTIONS
from xopt.conformance.faults import EVERYWHERE, FAULTS
from xopt.conformance.faults.tables import statuses
from xopt.conformance.implementations.survey import RESULTS as SURVEY
from xopt.conformance.laws import LAWS
from xopt.conformance.vectors import DATA as VECTORS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
FENCE = re.compile(r"^(````?)(\w+)([^\n`]*)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)

RUNNER = """
import contextlib, io, json, os, sys

for slow in ("torch._dynamo", "jax"):
    with contextlib.suppress(ImportError):
        __import__(slow)
for request in sys.stdin:
    results, page, blocks = json.loads(request)
    process = os.fork()
    if process:
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
        continue
    with open(results + ".log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    outputs, names = [], {"__name__": "__main__"}
    for line, source in blocks:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile("\\n" * line + source, page, "exec"), names)
        outputs.append(out.getvalue())
    with open(results, "w") as file:
        json.dump(outputs, file)
    break
"""
"""Imports once what takes seconds, and starts no threads by it; then runs each page that is asked for in a fork."""


class Block(NamedTuple):
    language: str
    note: str
    text: str
    line: int  # of the opening fence, from 1
    output: str | None  # the text block right below


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = list(FENCE.finditer(text))
    result = []
    for one, after in zip(found, [*found, None][1:], strict=True):
        below = after is not None and after[2] == "text" and not text[one.end() : after.start()].strip()
        line = text.count("\n", 0, one.start()) + 1
        result.append(Block(one[2], one[3].strip(), one[4], line, after[4] if after is not None and below else None))
    assert not re.search("^```", FENCE.sub("", text), re.MULTILINE), f"{page}: a code block is left open"
    return result


def python_blocks(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python" and not block.note.startswith("title=")]


def why_not(block: Block) -> str | None:
    """The reason why a block does not run here, from its own line."""
    kind, _, reason = block.note.partition(": ")
    if not block.note:
        return None
    assert reason, f"line {block.line}: say why, as in 'no-run: needs a GPU'"
    if kind == "no-run":
        return reason
    assert kind.startswith("needs "), f"line {block.line}: {block.note!r} is no known note"
    return None if shutil.which(kind.removeprefix("needs ")) else reason


class Runner:
    def __init__(self) -> None:
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "80"}
        command = [sys.executable, "-P", "-c", RUNNER]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, **pipes, text=True, cwd=DOCS, env=environment)

    def run(self, name: str, page: list[tuple[int, str]], results: Path) -> list[str]:
        self.process.stdin.write(json.dumps([str(results), str(ROOT / name), page]) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "0\n", results.with_suffix(".json.log").read_text()
        return json.loads(results.read_text())


@pytest.fixture(scope="module")
def runner():
    found = Runner()
    yield found
    found.process.communicate()


@pytest.mark.parametrize("name", NAMES)
def test_blocks_run_and_print_what_the_page_shows(name, runner, tmp_path):
    page = python_blocks(ROOT / name)
    left_out = {block.line: reason for block in page if (reason := why_not(block)) is not None}
    for block in page:
        ast.parse(block.text)  # also those that do not run here
    runs = [block for block in page if block.line not in left_out]
    if runs:
        for block, printed in zip(runs, runner.run(name, [(b.line, b.text) for b in runs], tmp_path / "results.json"), strict=True):
            assert printed == (block.output or ""), f"{name}, line {block.line}"
    missing = [left_out[block.line] for block in page if block.note.startswith("needs") and block.line in left_out]
    if missing:
        pytest.skip(f"all but {len(missing)} blocks ran: {'; '.join(missing)}")


def test_what_a_step_costs_is_what_its_arrays_are():
    """The table of bytes beside a state of real arrays with every decay above 0; and what the page says of 10^12 parameters."""
    torch = pytest.importorskip("torch", reason="torch, which has bfloat16, is not installed")
    page = " ".join((DOCS / "more-than-one-machine.md").read_text().split())
    rows = [line.strip("| ").split(" | ") for line in tables.scale_table().splitlines()[2:]]
    assert [row[0].strip("`") for row in rows] == list(xopt.RULES)
    n, cost = 1000, {}
    for row in rows:
        rule = xopt.RULES[row[0].strip("`")]
        given = {"betas": (0.5, 0.9, 0.99)} if rule is xopt.aggmo else {}
        cost[rule.name] = []
        for dtype in (torch.float32, torch.bfloat16):
            params = torch.ones(n, dtype=dtype)
            state = rule.bind(**given).init(params)
            kept = sum(x.nbytes for x in optree.tree_leaves(state) if isinstance(x, torch.Tensor))
            # all that is kept is read and written again, and the gradient is read
            cost[rule.name] += [kept // n, (2 * kept + params.nbytes) // n]
        assert list(map(int, row[1:])) == cost[rule.name], rule
    kept, moved, *_ = cost["adamw"]
    assert f"AdamW keeps {kept} TB and moves {moved} TB; over 1,000 devices each keeps {kept} GB and moves {moved} GB" in page
    assert f"at 2 TB/s that is {moved / 2:g} ms" in page


def test_the_runner_sees_errors_and_output(runner, tmp_path):
    """The check above can fail: on an exception, on other output, on output that the page does not show."""
    assert runner.run("README.md", [(1, "x = 1"), (3, "print(x + 1)")], tmp_path / "some.json") == ["", "2\n"]
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        runner.run("README.md", [(1, "1 / 0")], tmp_path / "none.json")
    assert runner.run("README.md", [(1, "print('x' in globals())")], tmp_path / "more.json") == ["False\n"]
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n1\n```\n\n```python\nprint(2)\n```\n\nprose\n\n```text\n2\n```\n")
    assert [block.output for block in blocks(page)] == ["1\n", None, None, None]


# --- what pages must say ---------------------------------------------------------------------------------------------------------


def test_rule_page(rule):
    page = DOCS / "rules" / f"{rule.name}.md"
    text = page.read_text()
    assert text.startswith("# ")
    assert f"\n<!-- rule: {rule.name} -->\n" in text
    assert "\n## Who else uses which convention\n" in text
    assert "\n## Example\n" in text
    assert any(block.output for block in python_blocks(page)), "a rule's page shows an example with its output"
    assert "\n## What to try first\n" in text
    made = pages.expanded(text)
    for name, default in rule.defaults.items():
        (row,) = re.findall(rf"^\| `{name}`(?:, <span[^|]+)? \| (.+) \| (.+) \| `(.+)` \|$", made, re.MULTILINE)
        meaning, allowed, shown = row
        assert len(meaning) > 20
        assert rule.ranges[name].text in allowed
        assert shown == repr(default)
    for name, comment in rule_pages.state_fields(rule):
        assert f"| `{name}` |" in made
        assert comment


def test_readme_has_the_table_of_rules():
    assert tables.rules_table("docs/rules/") in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_relative_links_lead_somewhere(name):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / name).read_text()):
        assert (ROOT / target).exists(), target


def test_readme_counts_the_laws_and_faults():
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"{len(LAWS)} laws need no reference" in text
    count = Counter(fault.status for fault in FAULTS)
    assert f"{len(FAULTS)} faults were planted: {count['convention']} are [conventions](docs/conventions.md) that another" in text
    assert f"{count['defect']} were defects of published optimizers, and {count['possible']} might happen" in text
    assert statuses(FAULTS) in (DOCS / "proof.md").read_text()
    assert f"those {len(EVERYWHERE)} more" in (DOCS / "faults.md").read_text()


def test_pages_count_what_they_count():
    files = [json.loads(path.read_text()) for path in VECTORS.glob("*.json")]
    vectors = sum(len(group["tests"]) for file in files for group in file.get("groups", ()))
    chains = sum(len(file.get("chains", ())) for file in files)
    size = sum(path.stat().st_size for path in VECTORS.iterdir()) / 1e6
    text = " ".join((DOCS / "vectors.md").read_text().split())
    assert f"There are {vectors:,} of them, and {chains} chains of a thousand steps" in text
    assert f"together {size:.1f} MB" in text
    assert f"in C, in {len((DOCS / 'check' / 'adamw.c').read_text().splitlines())} lines" in (DOCS / "check.md").read_text()
    packages = json.loads(SURVEY.read_text())["packages"]
    optimizers, names = sum(len(one["optimizers"]) for one in packages), {one["name"] for one in packages}
    assert f"[what {optimizers} optimizers of {len(names)} packages compute]" in (ROOT / "README.md").read_text()


def test_each_convention_is_in_the_documentation():
    made = pages.expanded((DOCS / "conventions.md").read_text())
    lines = [line for line in made.splitlines() if re.search(r" \| (convention|defect|possible) \| ", line)]
    assert len(lines) == len(CONVENTIONS)


def test_readme_says_the_name_and_has_the_marks_of_the_conformance_table():
    text = (ROOT / "README.md").read_text()
    assert "`array-xopt`" in text
    begin, end = "<!-- conformance table: begin -->", "<!-- conformance table: end -->"
    assert text.count(begin) == text.count(end) == 1
    assert text.index(begin) < text.index(end)


def setup_commands():
    """The README's two commands: the shell lines that set an environment up."""
    lines = [line for block in blocks(ROOT / "README.md") if block.language == "sh" for line in block.text.splitlines()]
    return [line for line in lines if "-m venv" in line]


def test_readme_commands():
    conform, tests = setup_commands()
    assert conform.endswith(".venv/bin/xopt conform")
    assert tests.endswith(".venv/bin/pytest")
    for command in (conform, tests):
        assert "-c constraints.txt" in command
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_ci_runs_the_readmes_test_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert f"\n{setup_commands()[1]}\n" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


def test_constraints_pin_what_the_extras_need():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert "torch==2.13.0" in lines
    pinned = {normal(re.split(r"[=; ]", line)[0]) for line in lines}
    project = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r'"([A-Za-z0-9_.-]+)(?:\[\w+\])?>=', project)
    wanted = {*map(normal, named)} - {"cupy-cuda12x", "cupy-cuda13x"}
    assert wanted <= pinned, wanted - pinned


def test_the_lowest_constraints_are_the_minima():
    """Of all that can be run here; tools for the documentation, types and style may be newer."""
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pinned = dict(line.split(" ")[0].split("==") for line in lines if line and not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"]]
    for name in ("torch", "jax", "numba", "conformance", "bench", "test"):
        wanted += extras[name]
    assert len(wanted) >= 18
    for requirement in wanted:
        name, minimum = requirement.split(">=")
        assert pinned[name].removesuffix(".0").removesuffix(".0") == minimum.removesuffix(".0"), requirement


def normal(distribution):
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_citation_and_changelog_name_the_version():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


# --- the walk-through of a new rule ----------------------------------------------------------------------------------------------


def patched(text: str, patch: str) -> str:
    """``text`` with the lines of ``patch`` that begin with - gone and those with + there. What it replaces must be there once."""
    for hunk in patch.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        assert text.count(old) == 1, f"{old!r} must occur once"
        text = text.replace(old, "".join(line[1:] for line in lines if line[0] in " +"))
    return text


def test_adding_a_rule_works_as_the_page_says(tmp_path):
    """Makes the files of the page in a copy of the project, and runs the page's program against the result.

    The copy is laid out as an installed package is; that a wheel holds the files of the packages is tested of the project.
    """
    page = DOCS / "adding-a-rule.md"
    copy = tmp_path / "copy"
    for path in project_files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    made = set()
    for block in blocks(page):
        if title := re.fullmatch(r'title="(.+)"', block.note):
            file = copy / title[1]
            made.add(title[1])
            if block.language == "diff":
                file.write_text(patched(file.read_text(), block.text))
            else:
                assert not file.exists(), file
                file.write_text(block.text)
    assert {"xopt/rules/signum.py", "conformance/golden/signum.py", "docs/rules/signum.md", "xopt/rules/__init__.py"} <= made

    for folder, package in (("xopt", "xopt"), ("backends", "xopt/backends"), ("conformance", "xopt/conformance")):
        shutil.copytree(copy / folder, tmp_path / "site" / package)
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = outer | {"PYTHONPATH": str(tmp_path / "site"), "JAX_PLATFORMS": "cpu"}

    def tool(*arguments):
        done = subprocess.run(
            [sys.executable, "-P", *arguments], cwd=copy, env=environment, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert str(tmp_path / "site") in tool("-c", "import xopt; print(xopt.__file__)")
    programs = [block for block in blocks(page) if block.language == "python" and block.note.startswith("no-run")]
    assert programs
    for block in programs:
        assert tool("-c", block.text) == (block.output or "")
    chosen = "signum or (test_layout and not wheel and not install)"
    tool("-m", "pytest", "-q", "--assert=plain", "-p", "no:cacheprovider", "tests", "-k", chosen)
    assert "signum" not in xopt.RULES

    rule = tmp_path / "site" / "xopt" / "rules" / "signum.py"  # with another decay the suite does not let it pass
    right = rule.read_text()
    assert right.count("1.0 - beta") == 1
    rule.write_text(right.replace("1.0 - beta", "0.5 - 0.5 * beta"))
    look = """from functools import partial
from xopt.conformance import conform, suite
suite.Effort = partial(suite.Effort, shrink=False)
wrong = conform(["numpy"], ["signum"], ["float32"]).wrong
print(len({type(result) for result in wrong}))"""
    assert int(tool("-c", look)) >= 2  # cells and laws alike
