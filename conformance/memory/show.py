"""What rules remember, as text."""

import json
import math
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from xopt.conformance.memory.figures import ROWS, Json, Length, says


def number(value: Any) -> str:
    """In four digits; a dash where a rule has no such number."""
    if value is None or isinstance(value, str):
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "no bound" if value > 0 else "-"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def rows(report: Json) -> list[list[str]]:
    """A line for each number, with a column for each rule."""
    length = Length(**report["length"])
    return [[says(row, length), *(number(one["numbers"][row.key]) for one in report["rules"])] for row in ROWS]


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
    """A table, and what ``--like`` found."""
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("", overflow="fold")
    for one in report["rules"]:
        table.add_column(one["name"].replace(" ", "\n").replace(",", ""), justify="right")
    for row in rows(report):
        table.add_row(*row)
    console.print(table)
    reasons = dict.fromkeys(x for one in report["rules"] for x in one["numbers"].values() if isinstance(x, str))
    for text in [*(f"- {reason}." for reason in reasons), *map(same, report["like"])]:
        console.print(text, highlight=False, markup=False)


def json_of(report: Json) -> str:
    """As a document; what has no bound is the string "inf"."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(x) for key, x in value.items()}
        if isinstance(value, list | tuple):
            return [plain(x) for x in value]
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(report), indent=1, allow_nan=False) + "\n"
