"""How the benchmark is shown in a terminal, and the words for times and amounts that its page uses too."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from xopt.conformance.bench.suite import BenchEvents

Json = dict[str, Any]


def duration(seconds: float) -> str:
    """In three digits, with the unit that suits it: ``6.61 ms``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{three_digits(seconds / size)} {unit}"
    return f"{three_digits(seconds / 1e-9)} ns"


def three_digits(x: float) -> str:
    """Without exponents: 0.0123, 1.23, 12.3, 123, 1,234."""
    if x == 0:
        return "0"
    if abs(x) >= 99.95:
        return f"{x:,.0f}"
    return f"{x:.1f}" if abs(x) >= 9.995 else f"{x:.2f}" if abs(x) >= 0.0995 else f"{x:.2g}"


def amount(value: int | float) -> str:
    """Bytes, as ``240 MB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{three_digits(value / size)} {unit}"
    return f"{value:.0f} B"


def between(found: Json | None, unit: str = "") -> str:
    """A median with its quartiles: ``1.03 (1.01-1.05)``; said to be unsteady where it means little."""
    return f"{quartiles(found, unit)}{', unsteady' if found and unsteady(found) else ''}"


def quartiles(found: Json | None, unit: str = "") -> str:
    """A median with its quartiles."""
    if found is None:
        return "-"
    median, low, high = (three_digits(found[key]) for key in ("median", "low", "high"))
    said = "" if low == median == high else f" ({low}-{high})"
    return f"{median}{said}{unit and f' {unit}'}"


APART = 2.0
"""How many times the first quartile the third one may be, for the median to say something."""

UNSTEADY = f"unsteady: the quartiles are more than {APART:g} times apart, so that the median says little"


def unsteady(found: Json) -> bool:
    """Whether a median means little."""
    return bool(found["high"] > APART * found["low"])


def step_time(entry: Json) -> str:
    """The median time of a step."""
    return f"{duration(entry['seconds']['median'])}{', unsteady' if unsteady(entry['seconds']) else ''}"


def is_unsteady(report: Json) -> bool:
    """Whether any figure of a report is."""
    entries = [entry for run in report["runs"] for entry in run["entries"]]
    spreads = [entry[key] for entry in entries for key in ("seconds", "to_touch")]
    spreads += [row[key] for row in report["loop"] for key in ("seconds", "ratio", "per_byte")]
    return any(unsteady(spread) for spread in spreads if spread)


def speed(entry: Json) -> float:
    """Bytes that the rule must move, in GB/s."""
    return float(entry["bytes"] / entry["seconds"]["median"] / 1e9)


def rounds(entry: Json) -> int:
    return sum(seconds is not None for seconds in entry["rounds"])


def limit(check: Json) -> str:
    unit = f" {check['unit']}" if check["unit"] else ""
    return f"{'at least' if check['at_least'] else 'at most'} {check['limit']:.2f}{unit}"


def finding(check: Json) -> str:
    """What was found, or why nothing was."""
    if check["found"] is None:
        return str(check["reason"])
    return ": ".join(filter(None, (check["of"], between(check["found"], check["unit"]))))


def verdict(check: Json) -> str:
    return {True: "holds", False: "misses", None: "not run"}[check["holds"]]


def tally(checks: Sequence[Json]) -> str:
    """In a sentence."""
    count = {word: sum(verdict(check) == word for check in checks) for word in ("holds", "misses", "not run")}
    words = [f"{count['holds']} hold", f"{count['misses']} miss" if count["misses"] != 1 else "1 misses"]
    return f"Of xopt's {len(checks)} limits, {words[0]}, {words[1]} and {count['not run']} were not run."


_STYLES = {"holds": "green", "misses": "bold red", "not run": "dim"}


def _table(*columns: str, words: int = 1) -> Table:
    """The first columns are of words, the others of numbers."""
    table = Table(box=box.SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < words else "right", no_wrap=i >= words)
    return table


class ShownBench(BenchEvents):
    """Shows each part as soon as it is there."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.console = progress.console
        self.task = progress.add_task("importing libraries", total=None)

    def planned(self, seconds: float) -> None:
        self.progress.update(self.task, total=seconds)

    def began(self, what: str) -> None:
        self.progress.update(self.task, description=what)

    def passed(self, seconds: float) -> None:
        self.progress.update(self.task, advance=seconds)

    def overheads(self, found: Sequence[Json]) -> None:
        table = _table("rule", "xopt", "by hand", "ratio")
        for row in found:
            table.add_row(row["rule"], f"{row['step']:.1f}", f"{row['by_hand']:.1f}", f"{row['ratio']:.2f}")
        self._print("a small eager step in NumPy: float32, 10 numbers, microseconds, medians", table)

    def leaves(self, found: Sequence[Json]) -> None:
        table = _table("rule", "state", "step", "us/leaf", "/ ademamix", "10,000 / 100")
        for row in found:
            texts = (f"{row[name]:.2f}" for name in ("microseconds", "ratio", "growth"))
            table.add_row(row["rule"], row["form"], row["mode"], *texts)
        self._print("a leaf of 10 numbers in a tree of 1,000, NumPy, float32; and how that grows with the leaves, medians", table)

    def loop(self, found: Sequence[Json]) -> None:
        table = _table(*LOOP.split("|"))
        for row in found:
            table.add_row(*in_loop_row(row))
        self._print("in a training loop: fresh gradients, other work in between, float32; medians with quartiles", table)

    def run(self, found: Json) -> None:
        several = len({entry["size"] for entry in found["entries"]}) > 1
        title = f"{found['rule']}, {found['name']}, float32"
        table = _table("contender", "a step", "ns/number", "GB/s", "/ touch", "rounds", "")
        for entry in found["entries"]:
            median = entry["seconds"]["median"]
            table.add_row(
                f"{entry['contender']}, {entry['size']}" if several else entry["contender"],
                duration(median),
                three_digits(1e9 * median / entry["numbers"]),
                three_digits(speed(entry)),
                quartiles(entry["to_touch"]),
                str(rounds(entry)),
                "unsteady" if any(map(unsteady, filter(None, (entry["seconds"], entry["to_touch"])))) else "",
            )
        self._print(f"{title}; / touch: time of a byte beside that of the touch kernel", table)
        for row in found["left_out"]:
            self._aside(f"left out: {row['contender']}, {row['size']}: {row['reason']}")

    def memory(self, found: Sequence[Json]) -> None:
        sizes = list(dict.fromkeys(row["size"] for row in found))
        for rule in dict.fromkeys(row["rule"] for row in found):
            table = _table("contender", *sizes)
            own = [row for row in found if row["rule"] == rule]
            for contender in dict.fromkeys(row["contender"] for row in own):
                cells = {row["size"]: row for row in own if row["contender"] == contender}
                table.add_row(contender, *("-" if cells[s]["reason"] else amount(cells[s]["extra"]) for s in sizes))
            self._print(f"{rule}: peak memory of a step beyond parameters, state and gradient", table)
        for reason in dict.fromkeys(f"{row['contender']}: {row['reason']}" for row in found if row["reason"]):
            self._aside(f"not measured: {reason}")

    def first_calls(self, found: Sequence[Json]) -> None:
        table = _table("rule", "contender", "nothing on disk", "compiled before", words=2)
        for row in found:
            times = (row["reason"], "") if row["reason"] else (duration(row["empty"]), duration(row["again"]))
            table.add_row(row["rule"], row["contender"], *times)
        if found:
            self._print("first call of a fused step in a new process", table)

    def ended(self, report: Json) -> None:
        """The limits, where they were asked for, what cannot run here, and how to read it all."""
        if report["checks"]:
            table = _table("asked", "limit", "found", "", words=4)
            for check in report["checks"]:
                table.add_row(
                    check["asked"], limit(check), Text(finding(check)), Text(verdict(check)), style=_STYLES[verdict(check)]
                )
            self._print("xopt's own limits: medians and quartiles", table)
            self.console.print(tally(report["checks"]), highlight=False)
        for reason, names in reasons(report).items():
            self._aside(f"not run: {', '.join(names)}: {reason}")
        if is_unsteady(report):
            self.console.print(Text(UNSTEADY, style="yellow"))
        about = report["about"]
        interrupted = f"INTERRUPTED in {about['interrupted']}. " if about["interrupted"] is not None else ""
        self.console.print(Text(f"{interrupted}{headline(report)} Seed {about['seed']}, {about['seconds']} s.", style="bold"))

    def _print(self, title: str, table: Table) -> None:
        self.console.print(Text(title, style="italic"), highlight=False)
        self.console.print(table)

    def _aside(self, text: str) -> None:
        self.console.print(Text(text, style="dim"), highlight=False)


def reasons(report: Json) -> dict[str, list[str]]:
    """Why contenders cannot run here, each with their names."""
    found: dict[str, list[str]] = {}
    for row in report["contenders"]:
        if row["reason"] and row["name"] not in found.setdefault(row["reason"], []):
            found[row["reason"]].append(row["name"])
    return found


def headline(report: Json) -> str:
    """The largest run in a sentence."""
    for run in reversed([run for run in report["runs"] if run["entries"] and run["name"] != "linear"]):
        own = [e for e in run["entries"] if e["size"] == run["name"]]
        steps = [e for e in own if e["contender"] not in ("touch", "copy")] or own
        first = min(steps, key=lambda entry: entry["seconds"]["median"] / entry["bytes"])
        spreads = [spread for spread in (first["seconds"], first["to_touch"]) if spread]
        touch = first["to_touch"]
        times = f", {three_digits(touch['median'])} times as long as touching its arrays" if touch else ""
        little = "; unsteady" if any(map(unsteady, spreads)) else ""
        among = f"the fastest of {len(steps)} contenders, per byte," if len(steps) > 1 else "the one contender"
        step = f"{first['contender']} with {duration(first['seconds']['median'])} a step"
        return f"{run['rule']}, {run['name']} numbers: {among} is {step}{times}{little}."
    return "Nothing was timed."


TABLE = "benchmark"

LOOP = "size|rule|contender|a step|beside|time|time of a byte"


def in_loop_row(row: Json) -> tuple[str, ...]:
    step, ratios = step_time(row), (between(row["ratio"]), between(row["per_byte"]))
    return row["size"], row["rule"], row["contender"], step, row["beside"], *ratios


def markdown(report: Json) -> str:
    """The figures asked for and the times, for a page, with the run that they come from."""
    about = report["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    processors = ", ".join(dict.fromkeys([*about["devices"].values(), about["cpu"]]))
    where = f"{processors}, {about['machine']}, Python {about['python']}, {versions}"
    how = f"{about['seconds']:.0f} s. Medians, with quartiles in brackets"
    checks = [check for check in report["checks"] if "asked for" not in (check["reason"] or "")]
    lines = [f"{report['scope']}: `{about['command']}`, {about['date']}, {where}: {how}."]
    if is_unsteady(report):
        lines[0] += f" {UNSTEADY.capitalize()}."
    if checks:
        lines[0] += f" {tally(report['checks'])}"
        lines += ["", *_rows("asked|limit|found|", ((c["asked"], limit(c), finding(c), verdict(c)) for c in checks))]
    for run in report["runs"]:
        title = f"{run['rule']}, {run['name']}"
        rows = (
            (
                f"{e['contender']}, {e['size']}" if len({x["size"] for x in run["entries"]}) > 1 else e["contender"],
                step_time(e),
                three_digits(speed(e)),
                between(e["to_touch"]),
            )
            for e in run["entries"]
        )
        lines += ["", f"### {title}", "", *_rows("contender|a step|GB/s|time of a byte / touch", rows)]
    if report.get("loop"):
        lines += ["", "### In a training loop", "", *_rows(LOOP, map(in_loop_row, report["loop"]))]
    return "\n".join(lines)


def _rows(head: str, rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head.split("|"), ["---"] * (head.count("|") + 1), *rows)]


def json_of(report: Json) -> str:
    """With the rounds of a contender in one line."""
    text = json.dumps(report, indent=1, allow_nan=False)
    return re.sub(r"\[([^][{}]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"
