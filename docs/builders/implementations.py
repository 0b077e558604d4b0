"""What other packages' optimizers compute, and what was found in them: from the survey's file alone."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from builders.tables import escape, table

from xopt.conformance.implementations import survey

HEAD = (
    "optimizer | asked whether it is | what it computes | error/bound float32 | error/bound float64 | its own defaults | behaviour"
)
Record = Mapping[str, Any]


def tables_of_packages() -> str:
    """A count of all, a table for each package, and what could not be run."""
    found = survey.results()
    parts = [_counted(found)]
    for package in found["packages"]:
        if rows := [_row(one) for one in package["optimizers"] if "failed" not in one and one["formulas"]]:
            beside = f" with {package['beside']}" if package["beside"] else ""
            told = f"Run on {package['date']}{beside}."
            parts += [f"## {heading(package)}", told, table(HEAD, rows)]
    parts += ["## What could not be run", table("package | optimizer | why", list(_not_run(found)))]
    return "\n\n".join(parts)


def heading(package: Record) -> str:
    """As ``Keras on NumPy, 3.15.1``."""
    return f"{package['title']}{',' if ' ' in package['title'] else ''} {package['version']}".strip()


def _counted(found: Record) -> str:
    verdicts = Counter(one.get("verdict", "not run") for package in found["packages"] for one in package["optimizers"])
    packages = {package["name"] for package in found["packages"] if package["optimizers"]}
    when = _span(package["date"] for package in found["packages"])
    said = ", ".join(f"*{verdict}* {count}" for verdict, count in verdicts.most_common())
    return (
        f"{sum(verdicts.values())} optimizers of {len(packages)} packages, {when}, on {found['machine']}, "
        f"by `{found['command']}`: {said}."
    )


def _span(dates: Iterable[str]) -> str:
    ends = sorted(set(dates))
    return ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"


def _row(one: Record) -> tuple[str, ...]:
    by_dtype = {formula["dtype"]: formula for formula in one["formulas"]}
    ratios = [_ratio(by_dtype.get(dtype)) for dtype in ("float32", "float64")]
    name = f"`{one['name']}`"
    return name, f"[`{one['rule']}`](rules/{one['rule']}.md){_given(one)}", computes(one), *ratios, _defaults(one), _behaviour(one)


def of_rule(rule: str) -> str:
    """What was asked whether it is this rule: what each computes, and what has no name; for the rule's own page."""
    asked = [(heading(p), p["date"], one) for p in survey.results()["packages"] for one in p["optimizers"] if one["rule"] == rule]
    ran = [(name, date, one) for name, date, one in asked if "failed" not in one and one["formulas"]]
    if not ran:
        return f"No other package's was stepped; [those that were](../{PAGE})."
    named = [(name, one) for name, _, one in ran if _fits(one)]
    rows = [(f"{_row(one)[0]}{_given(one)}", name, _from_below(computes(one)), _defaults(one)) for name, one in named]
    when = _span(date for _, date, _ in ran)
    told = (
        f"Each was installed from PyPI and stepped, {when}: [how, within which bound, and what else it does](../{PAGE}). "
        f"**the rule** is what this page says; another [convention](../conventions.md#{rule}) is no mistake."
    )
    parts = [told, *([table("optimizer | package | what it computes | its own defaults", rows)] if rows else [])]
    if unnamed := [f"`{one['name']}` of {name}" for name, _, one in ran if not _fits(one)]:
        parts.append(f"Stepped too, and [no formula that has a name here](../{PAGE}) fits: {', '.join(unnamed)}.")
    return "\n\n".join(parts)


PAGE = "implementations.md"


def _fits(one: Record) -> bool:
    """Whether in one dtype at least something that has a name is what it computes."""
    return any(formula["fits"] for formula in one["formulas"])


def _from_below(markdown: str) -> str:
    """With its links as a page in a folder needs them."""
    return markdown.replace("](conventions.md", "](../conventions.md")


def _given(one: Record) -> str:
    return "".join(f", {key} = {_value(value)}" for key, value in one.get("given", {}).items())


def _value(x: Any) -> str:
    return ", ".join(f"{item:g}" for item in x) if isinstance(x, list) else f"{x:g}"


def computes(one: Record) -> str:
    """What an optimizer computes, in words; once where all dtypes show the same."""
    if "otherwise" in one and not any(formula["fits"] for formula in one["formulas"]):
        return str(one["otherwise"])
    said = {formula["dtype"]: _formula(one["rule"], formula) for formula in one["formulas"]}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return "; ".join(f"{dtype}: {words}" for dtype, words in said.items())


def _formula(rule: str, formula: Record) -> str:
    if formula["fits"]:
        return _fitting(rule, formula)
    if formula["factor"]:
        return f"`{rule}` with {formula['factor'][0]} x {formula['factor'][1]:.6g}"
    if formula.get("partly") is not None or (formula["next_ratio"] or 2) <= 1:
        partly = formula.get("partly") or formula["next"].split(" and ")[1:]
        names = " and ".join(_linked(rule, name) for name in partly)
        return f"with {names} on the designed numbers, and off it by more than the bound on drawn ones"
    nearest, away = formula["next"], formula["next_ratio"]
    if not nearest or away is None:
        return "no formula that has a name here"
    if formula["dtype"] == "float64" and away < ROUNDED:
        return f"{escape(nearest)}, as far off as numbers of float32 are ({away:.1g} bounds)"
    return f"no formula that has a name here; nearest is {escape(nearest)}, {away:.2g} bounds away"


ROUNDED = 2.0**30
"""Bounds in float64 that a number which was kept in float32 may be off by: 2^29 units in the last place, and a little."""


def _fitting(rule: str, formula: Record) -> str:
    others = [_linked(rule, row["name"]) for row in formula["conventions"] if row["status"] not in ("same", "rounding")]
    rounded = [_linked(rule, row["name"]) for row in formula["conventions"] if row["status"] in ("same", "rounding")]
    words = "with " + " and ".join(others) if others else "the rule"
    words += f" ({', '.join(rounded)}: the same but for rounding)" if rounded else ""
    return words + "".join(f", or {escape(tie)}" for tie in formula["or"])


def _linked(rule: str, name: str) -> str:
    if name.startswith(("coefficients:", "precision:")):
        return name.replace(": in ", " in ")
    return f"[{escape(name)}](conventions.md#{rule})"


def _ratio(formula: Record | None) -> str:
    if formula is None:
        return "-"
    return "-" if formula["ratio"] is None else f"{formula['ratio']:.2g}"


def _defaults(one: Record) -> str:
    return escape(one["defaults"]) or "not tried"


def _behaviour(one: Record) -> str:
    behaviour = one["behaviour"]
    failed = [f"{_how(words)}: {name}. {_code(words)}" for name, words in behaviour["failed"].items()]
    held, left = len(behaviour["held"]), len(behaviour["not tried"])
    return "<br>".join([*failed, f"{held} held" + (f", {left} not tried" if left else "")])


def _how(words: str) -> str:
    """Whether what failed did so by more than the last bits of float32."""
    seen = re.search(r"is (-?[\d.e+-]+), and (-?[\d.e+-]+) ", words)
    if seen and math.isclose(float(seen[1]), float(seen[2]), rel_tol=1e-6):
        return "not to the last bit"
    return "**not so**"


def _code(words: str) -> str:
    return "`" + words.replace("`", "'").replace("|", "/") + "`"


def _not_run(found: Record) -> Iterator[tuple[str, str, str]]:
    for package in found["packages"]:
        if package.get("reason"):
            yield heading(package), "all", _code(package["reason"])
        for one in package["optimizers"]:
            if "failed" in one or not one["formulas"]:
                yield heading(package), f"`{one['name']}`", _code(one.get("failed") or one.get("words") or one["verdict"])


def findings_told() -> str:
    """Each finding: what happens, a program, and what that printed."""
    shown = {one["title"]: one for one in survey.results()["findings"]}
    parts = []
    for finding in survey.findings():
        ran = shown[finding["title"]]
        parts += [
            f"## {ran['version'].split()[0]}: {escape(finding['title'])}",
            " ".join(finding["text"].split()),
            f'```python title="Run on {ran["date"]} with {ran["version"]}"\n{finding["program"].strip()}\n```',
            f"```text\n{ran['printed'].rstrip()}\n```",
            f"Looked for in a stored index of public issues, which may lag behind, and not found: {finding['looked']}.",
        ]
    return "\n\n".join(parts)
