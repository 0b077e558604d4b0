"""What a check found, as a program, as JUnit XML and as a page."""

import math
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

from xopt.conformance.report.junit import Case, add_suite
from xopt.conformance.report.program import dict_text, list_text
from xopt.conformance.report.templates import template
from xopt.conformance.thirdparty.behaviour import FAILED, NOT_TRIED
from xopt.conformance.thirdparty.verdict import MEANINGS, Checked


def program(checked: Checked, where: dict[str, Any]) -> str:
    """A program that steps one number of a target and fails, where that is off the rule itself."""
    hyper = dict_text({name: repr(value) for name, value in where["hyper"].items()})
    rates = [{"lr": lr} for lr in where["lrs"][: where["step"]]]
    changed = f"[subject.arguments({checked.rule!r}, lr) for lr in {rates}]" if rates else "[]"
    idle = f", idle={where['idle']}" if where["idle"] else ""
    target = repr(checked.target) if ":" in checked.target else f"...  # {checked.target}"
    lines = [
        f"# {checked.target} beside {checked.rule}: the parameter after step {where['step']}",
        "from xopt.conformance.thirdparty.subject import Subject",
        "",
        f"hyper = {hyper}",
        f"grads = {list_text(where['grads'])}",
        f"target = {target}",
        "with Subject(target) as subject:",
        f"    given = subject.arguments({checked.rule!r}, hyper)",
        f"    changed = {changed}",
        f"    leaves, steps = [[{where['params']!r}]], [[[grad]] for grad in grads]",
        f"    steps = subject.trajectory(leaves, steps, {where['dtype']!r}, given, changed{idle})",
        "found = float(steps[-1][0][0])",
    ]
    if where["expected"] is None or where["bound"] is None:
        lines += ["import math", 'assert not math.isfinite(found), f"expected infinity or NaN, found {found!r}"']
    else:
        lines += [
            f"expected, bound = {where['expected']!r}, {where['bound']!r}",
            'assert abs(found - expected) <= bound, f"expected {expected!r} within {bound:.3g}, found {found!r}"',
        ]
    return "\n".join(lines) + "\n"


def junit_of(checked: Checked) -> str:
    """A test case for the verdict and for each thing that was asked of the target; what was not tried is skipped."""
    now = datetime.now(UTC)
    report = {
        "about": {
            "seconds": checked.seconds,
            "date": f"{now:%Y-%m-%d}",
            "time": f"{now:%H:%M:%S}",
            "command": f"xopt check {checked.target}",
        },
        "scope": {"says": f"{checked.target} as {checked.rule or 'any rule'}"},
        "verdict": checked.verdict,
    }
    right = checked.status == 0 or bool(checked.failed)
    said = "" if right else checked.words
    cases = [Case("run", checked.target, "the verdict", checked.verdict, failure=said, details=checked.program)]
    for one in checked.findings:
        case = Case("run", checked.target, one.check, one.outcome)
        failure = one.words if one.outcome == FAILED else ""
        skipped = one.words or "not tried" if one.outcome == NOT_TRIED else ""
        cases.append(case._replace(failure=failure, details=failure, skipped=skipped))
    root = ElementTree.Element("testsuites")
    add_suite(root, "run", cases, report)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def page_of(checked: Checked, command: str | None = None) -> str:
    """A page that stands alone: no scripts, nothing from outside the file. ``command`` is what made it."""
    page = template("xopt.conformance.thirdparty", "check.html.jinja", {"amount": amount, "width": width})
    return str(page.render(checked=checked, command=command, meaning=MEANINGS[checked.verdict]))


def amount(x: float | None) -> str:
    """A number in two digits; None is what no number holds."""
    return "∞" if x is None else f"{x:.2g}"


def width(ratio: float | None) -> float:
    """The length of a bar for so many bounds, on a scale of decades, in per cent."""
    decades = 16.0 if ratio is None else math.log10(max(ratio, 0.1)) + 1
    return round(min(100.0, 100 * decades / 17), 1)
