"""What rules remember, as text."""

import json
import math
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from xopt.conformance.memory.figures import ROWS, Json, Length, says, short_names


def number(value: Any) -> str:
    """In four digits; a dash where a rule has no such number."""
    if value is None or isinstance(value, str):
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "no bound" if value > 0 else "-"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.4g}"


def rows(report: Json) -> list[list[str]]:
    """A line for each number, with a column for each rule."""
    length = Length(**report["length"])
    return [[says(row, length), *(number(one["numbers"][row.key]) for one in report["rules"])] for row in ROWS]


def heads(report: Json) -> list[str]:
    """Of the columns: a rule, and a line for each setting."""
    return [one["name"].replace(", ", "\n").replace(" ", "\n", 1) for one in report["rules"]]


def same(one: Json) -> str:
    """What ``--like`` found, in a sentence."""
    settings = ", ".join(f"{name}={value}" for name, value in _brief(one["hyper"]).items())
    text = f"{one['name']} remembers most like {one['rule']} with {settings}, and lr times {one['lr']:.6g}"
    if one["distance"] < 1e-8:
        return f"{text}: the same memory, to rounding."
    return f"{text}; the share of what is older than {one['age']:,} steps differs by {one['distance']:.2g}, and no other by more."


def _brief(hyper: Json) -> dict[str, str]:
    def text(value: Any) -> str:
        if isinstance(value, list | tuple):
            return "/".join(map(text, value))
        return f"{value:.7g}" if abs(1 - value) > 1e-3 else f"{value:.9g}"

    return {name: text(value) for name, value in hyper.items()}


def show(console: Console, report: Json) -> None:
    """A table with a column for each rule, or where there is no room for it a list; and what ``--like`` found."""
    names, lines = heads(report), rows(report)
    widths = [max(map(len, [*head.split("\n"), *(row[i] for row in lines)])) for i, head in enumerate(names, 1)]
    if _WORDS + sum(width + 2 for width in widths) <= console.width:
        _columns(console, names, lines)
    else:
        _list(console, short_names(report["rules"]), lines)
    reasons = dict.fromkeys(x for one in report["rules"] for x in one["numbers"].values() if isinstance(x, str))
    for text in [*(f"- {reason}." for reason in reasons), *map(same, report["like"])]:
        console.print(text, highlight=False, markup=False)


_WORDS = 22
"""Characters that what the lines say has at least, so that it can be read."""


def _columns(console: Console, names: list[str], lines: list[list[str]]) -> None:
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("", overflow="fold")
    for head in names:
        table.add_column(head, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console.print(table)


def _list(console: Console, names: list[str], lines: list[list[str]]) -> None:
    for what, *values in lines:
        console.print(what, style="bold", highlight=False, markup=False)
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("", overflow="fold")
        table.add_column("", justify="right", no_wrap=True)
        for name, value in zip(names, values, strict=True):
            table.add_row(name, value)
        console.print(Padding(table, (0, 0, 0, 2)))


def json_of(report: Json) -> str:
    """As a document; what has no bound is the string "inf"."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(x) for key, x in value.items()}
        if isinstance(value, list | tuple):
            return [plain(x) for x in value]
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(report), indent=1, allow_nan=False) + "\n"
