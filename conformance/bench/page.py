"""The benchmark as one HTML page: no scripts, nothing from outside the file."""

import re
from collections.abc import Sequence
from typing import Any

from xopt.conformance.bench import plots
from xopt.conformance.bench.checks import ALL_RULES
from xopt.conformance.bench.contender import FUSED, missing
from xopt.conformance.bench.plots import Bar
from xopt.conformance.bench.show import (
    LOOP,
    UNSTEADY,
    amount,
    between,
    duration,
    finding,
    headline,
    in_loop_row,
    is_unsteady,
    limit,
    reasons,
    rounds,
    speed,
    step_time,
    tally,
    three_digits,
    unsteady,
    verdict,
)
from xopt.conformance.report.templates import template

Json = dict[str, Any]


def page_of(report: Json) -> str:
    """What ``bench`` returned as a page that stands alone. Without matplotlib it has tables but no diagrams."""
    words = (amount, between, duration, finding, limit, raised, rounds, speed, step_time, three_digits, unsteady, verdict)
    page = template("xopt.conformance.bench", "bench.html.jinja", {one.__name__: one for one in words})
    return str(page.render(_page(report)))


def raised(text: str) -> str:
    """With powers as they are printed: 10^7 is 10⁷."""
    powers = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
    return re.sub(r"\^(\d+)", lambda found: found[1].translate(powers), text)


def _page(report: Json) -> Json:
    drawn = missing("matplotlib") is None
    return report | {
        "headline": headline(report),
        "tally": tally(report["checks"]),
        "unsteady_words": UNSTEADY if is_unsteady(report) else "",
        "key_figures": _key_figures(report),
        "drawn": drawn,
        "loop_head": LOOP.split("|"),
        "loop_rows": [in_loop_row(row) for row in report["loop"]],
        "rules_beside_touch": _rules_beside_touch(report) if drawn and len(report["rules"]) > 1 else "",
        "rules_shown": [_rule(report, rule) for rule in report["rules"]] if drawn else [],
        "not_here": reasons(report),
        "left_out": [run | row for run in report["runs"] for row in run["left_out"]],
    }


def _runs(report: Json, rule: str) -> list[Json]:
    """Those of one size, which are about all contenders."""
    return [run for run in report["runs"] if run["rule"] == rule and run["entries"] and run["name"] != "linear"]


def _one_leaf(runs: Sequence[Json]) -> list[Json]:
    return [run for run in runs if all(entry["leaves"] == 1 for entry in run["entries"])]


def _own(run: Json) -> list[Json]:
    """The entries of the size that the run is about."""
    return [entry for entry in run["entries"] if entry["size"] == run["name"]]


def _key_figures(report: Json) -> list[tuple[str, str, str]]:
    """Of the first fused contender in the largest run of one leaf: number, of what, beside what."""
    rule = "ademamix" if "ademamix" in report["rules"] else report["rules"][0]
    runs = _one_leaf(_runs(report, rule))
    names = [row["name"] for row in report["contenders"] if row["kind"] == FUSED]
    for run in reversed(runs):
        entries = {entry["contender"]: entry for entry in run["entries"]}
        ours = next((entries[name] for name in names if name in entries), None)
        if ours is None:
            continue
        where = f"{run['rule']}, {run['name']} numbers"
        median = ours["seconds"]["median"]
        found = [
            (duration(median), f"a step, {ours['contender']}", where),
            (f"{three_digits(speed(ours))} GB/s", "of the bytes that the rule must move", ours["contender"]),
        ]
        if ours["to_touch"]:
            found.append((f"{ours['to_touch']['median']:.2f}", "times the touch kernel", "which only reads and writes the arrays"))
        for other in ("numpy eager", "optax", "pytorch_optimizer"):
            if other in entries:
                times = entries[other]["seconds"]["median"] / median
                found.append((f"{three_digits(times)} x", f"as fast as {other}", f"which takes {duration(median * times)}"))
        return found
    return []


def _rule(report: Json, rule: str) -> Json:
    """The diagrams of a rule."""
    contenders = {row["name"]: row for row in report["contenders"] if row["rule"] == rule}
    runs = _runs(report, rule)
    ladder = _one_leaf(runs)
    curves = []
    for name, contender in contenders.items():
        found = [entry for run in ladder for entry in run["entries"] if entry["contender"] == name]
        if found:
            curves.append((contender, [(entry["numbers"], 1e9 * entry["seconds"]["median"] / entry["numbers"]) for entry in found]))
    trees = [run for run in runs if run not in ladder]
    return {
        "rule": rule,
        "lines": plots.lines(rule, curves) if len(ladder) > 1 else "",
        "bars": [
            *((f"{run['name']} numbers in one leaf", _beside_touch(run, contenders)) for run in ladder[-1:]),
            *((run["name"], _speeds(run, contenders)) for run in trees),
        ],
        "memory": _memory(report, rule, contenders),
    }


def _rules_beside_touch(report: Json) -> str:
    """Each rule's fused steps at the largest size of one leaf."""
    rows = []
    for rule in report["rules"]:
        fused = {row["name"]: row for row in report["contenders"] if row["rule"] == rule and row["kind"] == FUSED}
        for run in _one_leaf(_runs(report, rule))[-1:]:
            found = [(fused[e["contender"]], e["to_touch"]) for e in run["entries"] if e["contender"] in fused and e["to_touch"]]
            rows.append((raised(f"{rule}, {run['name']}"), found))
    return plots.dots(rows, ALL_RULES) if any(found for _, found in rows) else ""


def _beside_touch(run: Json, contenders: dict[str, Json]) -> str:
    rows = [(entry, entry["to_touch"]) for entry in _own(run) if entry["to_touch"]]
    found = [
        Bar(entry["contender"], s["median"], s["low"], s["high"], three_digits(s["median"]), contenders[entry["contender"]])
        for entry, s in rows
        if entry["contender"] != "touch"
    ]
    found.sort(key=lambda bar: bar.value)
    label = "time of a byte, the touch kernel's = 1"
    return plots.bars(f"{run['rule']}, {run['name']} numbers", found, label, log_from=1.0) if found else ""


def _speeds(run: Json, contenders: dict[str, Json]) -> str:
    found = []
    for entry in _own(run):
        low, high = (entry["bytes"] / entry["seconds"][end] / 1e9 for end in ("high", "low"))
        name = entry["contender"]
        found.append(Bar(name, speed(entry), low, high, three_digits(speed(entry)), contenders[name]))
    found.sort(key=lambda bar: -bar.value)
    return plots.bars(f"{run['rule']}, {run['name']}", found, "GB/s of the bytes that the rule must move")


def _memory(report: Json, rule: str, contenders: dict[str, Json]) -> str:
    """At the largest size that was looked at."""
    rows = [row for row in report["memory"] if row["rule"] == rule and row["reason"] is None]
    numbers = {size["name"]: size["numbers"] for size in report["sizes"]}
    size = max((row["size"] for row in rows), key=numbers.__getitem__, default="")
    found = []
    for row in rows:
        if row["size"] == size:
            megabytes = row["extra"] / 1e6
            found.append(Bar(row["contender"], megabytes, megabytes, megabytes, amount(row["extra"]), contenders[row["contender"]]))
    found.sort(key=lambda bar: bar.value)
    return plots.bars(f"{rule}, {size} numbers", found, "peak memory of a step beyond its arrays, MB") if found else ""
