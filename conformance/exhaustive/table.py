"""The tables of what was found, in Markdown."""

from collections.abc import Iterable, Iterator, Sequence

from xopt.conformance.exhaustive.departures import DEPARTURES, Kind
from xopt.conformance.exhaustive.exact import COMPARED, UNARY
from xopt.conformance.exhaustive.functions import Measured
from xopt.conformance.exhaustive.store import Row, Store
from xopt.conformance.exhaustive.sweep import tasks
from xopt.conformance.results import DTYPES

SHOWN = {
    "add": "x + y",
    "subtract": "x - y",
    "multiply": "x * y",
    "divide": "x / y",
    "sqrt": "sqrt(x)",
    "sign": "sign(x)",
    "less": "x < y",
    "less_equal": "x <= y",
    "equal": "x == y",
}


def tables(store: Store) -> str:
    """All of them: what was tried, what departs, and functions."""
    parts = [_about(store)]
    parts += ["## Operations", _operations(store.rows)]
    parts += ["## What departs", _departs(store.rows)]
    measured = [Measured(**one) for one in store.more.get("functions", [])]
    parts += ["## Functions of arrays", _functions([one for one in measured if one.dtype == "float32"])]
    parts += ["## What coefficients are computed by", _functions([one for one in measured if one.dtype == "float64"])]
    return "\n\n".join(parts)


def _about(store: Store) -> str:
    tried = sum(row.tally.tried for row in store.rows)
    dates = sorted({row.date for row in store.rows})
    seconds = sum(store.more.get("seconds", {}).values())
    what = f"{tried:,} results of {len(store.rows)} combinations of library, operation and dtype"
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    lines = [f"{what}, {when}, on {store.machine}, by `{store.command}` in {seconds:,} s beside other work."]
    lines += [f"Not finished: {name}, {share:.0%}." for name, share in _unfinished(store)]
    lines += [f"{name}: not run, because: {why}." for name, why in store.more.get("not run", {}).items()]
    return "\n".join(lines)


def _unfinished(store: Store) -> Iterator[tuple[str, float]]:
    done = {(row.operation, row.dtype, row.drawn) for row in store.rows}
    for task in tasks():
        if (task.operation, task.dtype, bool(task.drawn)) not in done:
            one = store.under_way.get(task.name, {"done": 0, "total": 1})
            yield task.name, one["done"] / one["total"]


def _operations(rows: Sequence[Row]) -> str:
    """A line for each operation and dtype, a column for each library and way."""
    columns = list(dict.fromkeys(map(_column, rows)))
    found = {(_line(row), _column(row)): row for row in rows}
    order = sorted(dict.fromkeys(map(_line, rows)), key=_place)
    lines = [(*line, *(_cell(found.get((line, column))) for column in columns)) for line in order]
    return _table(("operation", "dtype", "operands", *columns), lines)


def _column(row: Row) -> str:
    return f"{row.tool} {row.version}" if row.tool == row.backend else f"{row.backend}, {row.tool} {row.version}"


def _line(row: Row) -> tuple[str, str, str]:
    if row.dtype == "float64":
        of = f"{row.total:,} of the probes"
    elif row.drawn:
        of = f"{row.total:,} pairs, drawn"
    else:
        of = f"all {row.total:,}" + ("" if row.operation in UNARY else " pairs")
    return f"`{SHOWN[row.operation]}`", row.dtype, of


def _place(line: tuple[str, str, str]) -> tuple[int, bool, int]:
    return DTYPES.index(line[1]), "all" not in line[2], list(SHOWN.values()).index(line[0].strip("`"))


def _cell(row: Row | None) -> str:
    """The largest error in units in the last place; of what is not rounded, whether it is right."""
    if row is None:
        return "-"
    exact = row.operation in COMPARED or row.operation == "sign"
    if row.tally.wrong:
        said = f"**{row.tally.wrong:,} wrong**" if exact else f"**{row.tally.ulps:.4f}**"
    else:
        said = "right" if exact else "0.5"
    return said + (", flushes" if row.tally.flushed else "")


def _departs(rows: Sequence[Row]) -> str:
    """A table for each departure, below its reason, and one of what has none."""
    left = [(row, kind) for row in rows for kind in KINDS if _count(row, kind)]
    parts = []
    for one in DEPARTURES:
        own = [(row, kind) for row, kind in left if kind == one.kind and one.covers(row)]
        left = [found for found in left if found not in own]
        if own:
            where = f"{one.backend} on {one.device}"
            parts += [f"**{where}.** {one.reason} [Source]({one.link}), and in the [ledger](ledger.md).", _wrong(own)]
    if left:
        parts += ["**Not known why.**", _wrong(left)]
    return "\n\n".join(parts)


KINDS: tuple[Kind, ...] = ("rounding", "flush")


def _count(row: Row, kind: Kind) -> int:
    return row.tally.wrong if kind == "rounding" else row.tally.flushed


def _wrong(found: Iterable[tuple[Row, Kind]]) -> str:
    lines = []
    for row, kind in found:
        example = row.tally.worst if kind == "rounding" else row.tally.flush
        assert example is not None
        off = f"{row.tally.ulps:.4f} ulp" if kind == "rounding" else "subnormal numbers are 0"
        shown = f"`{', '.join(example.operands)}` gives `{example.got}`, not `{example.right}`"
        counted = f"{_count(row, kind):,} of {row.tally.tried:,}"
        lines.append((_column(row), f"`{SHOWN[row.operation]}`, {row.dtype}", counted, off, shown))
    return _table(("library", "operation", "results", "off by", "the worst, or the first, in bits"), lines)


def _functions(measured: Iterable[Measured]) -> str:
    lines = (
        (f"`{one.function}`", _by(one), one.version, f"{one.tried:,}", one.of, _short(one.ulps), f"`{one.at}`") for one in measured
    )
    return _table(("function", "computed by", "version", "arguments", "which", "worst error, ulp", "at"), lines)


def _by(one: Measured) -> str:
    return one.by if one.by.split(",")[0].lower() == one.library or "," in one.by else f"{one.library}, {one.by}"


def _short(ulps: float) -> str:
    return f"{ulps:.4f}" if ulps < 1000 else f"{ulps:,.0f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(_rows(head, rows))


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
