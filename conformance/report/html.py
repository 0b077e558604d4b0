"""The report as one HTML page, for a reader who wants to be convinced: no scripts, nothing from outside the file."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from xopt.backends import BACKENDS
from xopt.conformance.report.program import amount, law_details, law_words, script, where
from xopt.conformance.report.templates import template
from xopt.conformance.report.vocabulary import VERDICTS, heading, order, ratio, symbol, weakest
from xopt.conformance.results import BINS, BROKEN, DTYPES, MODES, NOT_RUN, SUBNORMALS, WITHIN, WORDS, WRONG

Json = dict[str, Any]

DIGITS = "real gradients (digits), float32"


def write_html(report: Json, path: Path) -> None:
    """Writes ``page_of`` a report to a file."""
    path.write_text(page_of(report), encoding="utf-8")


def page_of(report: Json) -> str:
    """``Report.to_dict()`` as a page that stands alone."""
    words = (amount, digits, law_details, law_words, listed, ratio, web, where)
    filters = {"n": "{:,}".format, **{word.__name__: word for word in words}}
    return str(template("xopt.conformance.report", "report.html.jinja", filters).render(_page(report)))


def digits(value: Any) -> str:
    """A number in three digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def listed(value: Any) -> str:
    """A list in one line; "any" where it names nothing."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) and value else str(value or "any")


def web(link: Any) -> bool:
    """Whether a link leads to the web, and nowhere else."""
    return str(link).startswith(("https://", "http://"))


class Column(NamedTuple):
    """One backend on one device, op by op or compiled."""

    backend: str
    device: str
    mode: str
    text: str

    def of(self, results: Iterable[Json]) -> list[Json]:
        return [r for r in results if (r["backend"], r["device"], r["mode"]) == self[:3]]


class Square(NamedTuple):
    """One square of a heat map."""

    kind: str
    text: str
    why: str
    link: str = ""


def _page(report: Json) -> Json:
    """All that the template lays out."""
    cells, replays, results = report["cells"], report["replays"], report["laws"]
    columns = _columns(report["backends"], [*cells, *replays])
    law_columns = _columns(report["backends"], results)
    every_rule = _unique(c["rule"] for c in cells)
    faults = _faults(report.get("faults"))
    laws = _laws(report["law_texts"], results, law_columns)
    broken = [r | {"where": _where(r, law_columns)} for r in results if r["verdict"] == BROKEN]
    findings = _findings(cells, replays, columns)
    return {
        "about": report["about"],
        "scope": report["scope"],
        "verdict": _verdict(report, faults),
        "wrong": _wrong(findings, broken),
        "problems": _other_problems(report),
        "figures": _figures(report["counts"], cells, faults),
        "words": [(VERDICTS[name].symbol, VERDICTS[name].kind, name, VERDICTS[name].meaning) for name in _verdicts(report)],
        "backends": report["backends"],
        "columns": columns,
        "panels": _panels(cells, replays, columns, findings),
        "differences": _differences(cells, replays, columns),
        "rows": _rows(cells, columns),
        "totals": {key: sum(c[key] or 0 for c in cells) for key in ("elements", "vacuous", "trajectory_vacuous")},
        "errors": _errors(cells),
        "growth": _growth(cells, replays),
        "training": _training(replays),
        "laws": laws,
        "families": _families(laws),
        "law_columns": law_columns,
        "faults": faults,
        "census": _census(report.get("census", [])),
        "ledger": [
            row | {"rules": ["all"] if set(every_rule) <= set(row["rules"]) else row["rules"]} for row in report.get("ledger", [])
        ],
        "evidence": report.get("evidence", []),
        "not_run": _not_run(cells, results),
        "scripts": _scripts(cells, replays, columns),
    }


# Counting and naming


def _grouped(results: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for result in results:
        groups[key(result)].append(result)
    return groups


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _ran(results: Iterable[Json]) -> list[Json]:
    return [r for r in results if r["verdict"] != NOT_RUN]


def _weakest(results: Iterable[Json]) -> str:
    return weakest(str(r["verdict"]) for r in results)


def _most(results: Iterable[Json], measure: str = "ratio") -> float:
    """The largest of what was measured."""
    return max((r[measure] for r in results if r[measure] is not None), default=0.0)


def _columns(backends: list[Json], results: list[Json]) -> list[Column]:
    """Where any of these results is one of a run. All that did not run is listed by itself."""
    tracers = {(b["name"], b["device"]): b["tracer"] for b in backends}
    ran = {(r["backend"], r["device"], r["mode"]) for r in _ran(results)}
    return [Column(*key, heading(key, tracers.get(key[:2]))) for key in sorted(ran, key=order)]


def _verdicts(report: Json) -> list[str]:
    """The verdicts that this report has, in the order of ``VERDICTS``."""
    found = {r["verdict"] for r in (*report["cells"], *report["replays"], *report["laws"])}
    return [verdict for verdict in VERDICTS if verdict in found]


def _census(rows: list[Json]) -> dict[str, list[Json]]:
    """By check; counts whose names differ in a number stand in its order."""
    groups = _grouped([row | {"few": row["count"] < row["floor"]} for row in rows], lambda row: row["what"].partition(": ")[0])
    return {check: sorted(found, key=lambda row: _natural(row["what"])) for check, found in groups.items()}


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part.replace(",", "")), "") if part[:1].isdigit() else (-1, part) for part in re.split(r"(\d[\d,]*)", text)]


def _where(result: Json, columns: list[Column]) -> str:
    return next(c.text for c in columns if c.of([result]))


def _verdict(report: Json, faults: Json | None) -> Square:
    """The verdict of everything in a sentence, which speaks only of what ran."""
    alive = faults["alive"] if faults else 0
    uncaught = f"; {alive:,} planted fault{'' if alive == 1 else 's'} went uncaught" if alive else ""
    bad = _other_problems(report) or report["counts"]["wrong"] or alive
    return Square("wrong" if bad else "same", f"{report['verdict']}{uncaught}.", "")


def _figures(counts: Json, cells: list[Json], faults: Json | None) -> list[tuple[str, str, str]]:
    """Number, of what, and what that is."""
    ran = _ran(cells)
    return [
        (f"{counts['held']:,}", "checks hold", "comparisons and laws"),
        (f"{counts['wrong']:,}", "are wrong", "outside a bound, broken or raised"),
        (f"{counts['not run']:,}", "not run", "with the reason of each"),
        (
            f"{sum(c['trajectories'] for c in ran):,}",
            "trajectories",
            f"{sum(c['steps'] for c in ran):,} steps, compared in full",
        ),
        (f"{sum(c['elements'] for c in ran):,}", "numbers compared", "with the golden, and with NumPy bit for bit"),
        (f"{faults['caught']:,}", "planted faults caught", f"of {faults['caught'] + faults['alive']:,}")
        if faults
        else ("-", "planted faults", "not part of this run"),
    ]


# Verdicts


def _square(cell: Json | None, column: Column, link: str = "") -> Square:
    if cell is None or cell["verdict"] == NOT_RUN:
        return Square("none", "-", f"{column.text}: not run{', ' + cell['reason'] if cell and cell['reason'] else ''}")
    counts = f"{cell['trajectories']:,} trajectories, {cell['steps']:,} steps, {cell['elements']:,} numbers"
    ratios = [ratio(cell[key]) if cell[key] is not None else "not known" for key in ("ratio", "trajectory_ratio")]
    largest = f"largest error/bound {ratios[0]} of a step, {ratios[1]} of a trajectory"
    differ = f"; {cell['differ']:,} numbers differ from NumPy's" if cell["differ"] else ""
    text = f"{cell['rule']}, {column.text}: {cell['verdict']}; {counts}; {largest}{differ}"
    return Square(
        VERDICTS[cell["verdict"]].kind, symbol(cell["verdict"], cell["ratio"]), ". ".join([text, *cell["explanation"]]), link
    )


def _panels(cells: list[Json], replays: list[Json], columns: list[Column], findings: list[Json]) -> list[Json]:
    """A heat map for each dtype, and one for the recorded gradients."""
    links = {id(f["result"]): f"#{f['id']}" for f in findings}
    rules = _unique(c["rule"] for c in cells)
    panels = []
    for title, results in [
        *((f"{dtype} parameters", [c for c in cells if c["dtype"] == dtype]) for dtype in DTYPES),
        (DIGITS, replays),
    ]:
        rows = []
        for rule in rules:
            row = []
            for column in columns:
                found = next(iter(column.of(r for r in results if r["rule"] == rule)), None)
                cell = found and (found.get("replayed", found) | {"explanation": found["explanation"]})
                row.append(_square(cell, column, links.get(id(found), "")))
            rows.append({"rule": rule, "squares": row})
        if any(square.kind != "none" for row in rows for square in row["squares"]):
            panels.append({"title": title, "rows": rows})
    return panels


def _differences(cells: list[Json], replays: list[Json], columns: list[Column]) -> list[Json]:
    """Where the bits are not NumPy's, with what the probes say of it; one row for each column and reason."""
    every = [*cells, *(r["replayed"] | {"explanation": r["explanation"]} for r in replays)]
    differ = [c for c in every if c["verdict"] in (SUBNORMALS, WITHIN)]
    all_rules = _unique(c["rule"] for c in cells)
    differ.sort(key=lambda c: next(i for i, column in enumerate(columns) if column.of([c])))
    groups = _grouped(differ, lambda c: (_where(c, columns), c["verdict"], tuple(c["explanation"])))
    return [
        {
            "where": where,
            "verdict": verdict,
            "kind": VERDICTS[verdict].kind,
            "dtypes": _unique(c["dtype"] for c in group),
            "rules": rules if len(rules := _unique(c["rule"] for c in group)) < len(all_rules) else ["all"],
            "differ": sum(c["differ"] + c["differ_subnormal"] for c in group),
            "elements": sum(c["elements"] for c in group),
            "ratio": _most(group),
            "explanation": explanation,
        }
        for (where, verdict, explanation), group in groups.items()
    ]


def _rows(cells: list[Json], columns: list[Column]) -> list[Json]:
    """The figures of all rules together, for each column and dtype that ran."""
    rows = []
    for column in columns:
        for dtype, group in _grouped(_ran(column.of(cells)), lambda c: c["dtype"]).items():
            sums = {
                key: sum(c[key] or 0 for c in group)
                for key in ("trajectories", "steps", "elements", "differ", "differ_subnormal", "vacuous", "trajectory_vacuous")
            }
            largest = {key: _most(group, key) for key in ("ratio", "trajectory_ratio", "ulps")}
            rows.append({"where": column.text, "dtype": dtype, "cells": len(group)} | sums | largest)
    return rows


def _findings(cells: list[Json], replays: list[Json], columns: list[Column]) -> list[Json]:
    """What is wrong, each with a program that shows it."""
    wrong = [r for r in [*cells, *replays] if r["verdict"] == WRONG]
    findings = []
    for i, result in enumerate(wrong, start=1):
        cell = result.get("replayed", result)
        findings.append(
            {
                "id": f"wrong-{i}",
                "result": result,
                "rule": cell["rule"],
                "where": _where(cell, columns),
                "dtype": cell["dtype"],
                "found": cell["wrong"],
                "after": cell["found_after"],
                "script": script(cell),
            }
        )
    return findings


def _wrong(findings: list[Json], broken: list[Json]) -> list[Json]:
    """What is wrong, by rule and by what is wrong of it: where one thing is, it is so on every backend."""
    groups = {("", rule): own for rule, own in _grouped(findings, lambda f: f["rule"]).items()}
    groups |= _grouped(broken, lambda r: (r["law"], r["rule"]))
    return [
        {
            "law": law,
            "rule": rule,
            "places": ", ".join(_unique(f["where"] for f in own)),
            "dtypes": ", ".join(_unique(f["dtype"] for f in own)),
            "all": own,
        }
        for (law, rule), own in groups.items()
    ]


def _other_problems(report: Json) -> list[str]:
    """Why the run fails, but for the results that are wrong, and that it was interrupted, which the title says."""
    return [problem["says"] for problem in report["problems"] if problem["kind"] == "run"]


def _scripts(cells: list[Json], replays: list[Json], columns: list[Column]) -> list[tuple[str, list[Json]]]:
    """For each rule the worst input of each of its cells, the largest error/bound first."""
    every = [(c, c["dtype"]) for c in cells] + [(r["replayed"], f"{r['dtype']}, digits") for r in replays]
    found = [
        {
            "rule": cell["rule"],
            "where": f"{_where(cell, columns)}, {what}",
            "ratio": cell["worst"]["error"] / cell["worst"]["bound"] if cell["ratio"] is None else cell["ratio"],
            "worst": cell["worst"],
            "script": script(cell, "worst"),
        }
        for cell, what in every
        if cell["worst"]
    ]
    return [
        (rule, sorted(group, key=lambda f: f["ratio"], reverse=True))
        for rule, group in _grouped(found, lambda f: f["rule"]).items()
    ]


def _not_run(cells: list[Json], laws: list[Json]) -> list[Json]:
    """What did not run: one row for each device and reason."""
    skipped = [r for r in [*cells, *laws] if r["verdict"] == NOT_RUN]
    groups = _grouped(skipped, lambda r: (r["backend"], r["device"], r["reason"] or "no input reached it"))
    return [
        {
            "where": f"{backend} {device}".strip(),
            "modes": [WORDS[mode] for mode in MODES if any(r["mode"] == mode for r in group)],
            "dtypes": sorted({r["dtype"] for r in group}, key=DTYPES.index),
            "reason": reason,
            "cells": sum("law" not in r for r in group),
            "laws": sum("law" in r for r in group),
        }
        for (backend, device, reason), group in sorted(groups.items(), key=lambda item: list(BACKENDS).index(item[0][0]))
    ]


# Diagrams: computed here in the coordinates of their viewBox, drawn by a macro of the template

LEFT, RIGHT, TOP, BOTTOM = 34.0, 252.0, 18.0, 122.0


class Tick(NamedTuple):
    at: float
    text: str


class Axis:
    """From numbers to coordinates, rightwards or upwards."""

    def __init__(self, label: str, low: float, high: float, ticks: Mapping[float, str], *, up: bool = False, log: bool = False):
        self.label = label
        self.scale: Callable[[float], float] = math.log if log else float
        self.low, self.high = self.scale(low), self.scale(high)
        self.start, self.end = (BOTTOM, TOP) if up else (LEFT, RIGHT)
        self.ticks = [Tick(self(value), text) for value, text in ticks.items()]

    def __call__(self, value: float) -> float:
        return round(self.start + (self.end - self.start) * (self.scale(value) - self.low) / (self.high - self.low), 1)


class Mark(NamedTuple):
    """A line, or the area under one, in the colour of its series."""

    path: str
    series: int
    kind: str = "line"  # or "area", or "beyond" the bound


class BoundLine(NamedTuple):
    """The line at error/bound = 1, and where its name ends."""

    path: str
    x: float
    y: float


class Chart(NamedTuple):
    """One small diagram; ``note`` says in words what it shows."""

    rule: str
    note: str
    x: Axis
    y: Axis
    marks: list[Mark]
    bound: BoundLine | None = None


def _path(x: Axis, y: Axis, points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x(a):g} {y(b):g}" for a, b in points)


def _tens(low: int, high: int) -> dict[float, str]:
    """Ticks at powers of ten, at most six."""
    superscript = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return {10.0**e: f"10{str(e).translate(superscript)}" for e in range(low, high + 1, math.ceil((high - low) / 5) or 1)}


def _even(high: float) -> dict[float, str]:
    """Ticks at 0 and at round numbers up to ``high``, at most six."""
    step = 10.0 ** math.floor(math.log10(high / 5))
    step *= next(k for k in (1, 2, 5, 10) if high / (step * k) <= 5)
    return {i * step: f"{i * step:g}" for i in range(int(high / step * (1 + 1e-9)) + 1)}


def _errors(cells: list[Json]) -> Json:
    """For each rule the distribution of a step's error/bound, as shares of the numbers that have an error, on one scale."""
    ran = _grouped(_ran(cells), lambda c: c["rule"])
    shares: dict[str, dict[str, list[float]]] = {}
    for rule, group in ran.items():
        modes = _grouped(group, lambda c: c["mode"])
        sums = {mode: [sum(bins) for bins in zip(*(c["histogram"] for c in own), strict=True)] for mode, own in modes.items()}
        shares[rule] = {mode: [n / sum(bins) for n in bins] for mode, bins in sums.items() if any(bins)}
    seen = [share for modes in shares.values() for bins in modes.values() for share in bins if share]
    if not seen:
        return {"charts": [], "legend": []}
    floor = 10.0 ** math.floor(math.log10(min(seen)))
    x = Axis("error / bound of one step", 0, 1.1, {0: "0", 0.5: "0.5", 1: "1"})
    y = Axis("share of numbers", floor, 1, _tens(round(math.log10(floor)), 0), up=True, log=True)
    bound = BoundLine(_path(x, y, [(1, floor), (1, 1)]), x(1) - 5, TOP + 10)
    names = WORDS
    charts = []
    for rule, group in ran.items():
        marks = []
        for mode, bins in shares[rule].items():
            corners = [((i + side) / BINS, max(share, floor)) for i, share in enumerate(bins) for side in (0, 1)]
            outline = _path(x, y, [(0, floor), *corners, (1, floor)])
            marks.append(Mark(outline, list(names).index(mode), "area" if mode == "eager" else "line"))
        wrong = sum(c["verdict"] == WRONG for c in group)
        if wrong:
            marks.append(Mark(_path(x, y, [(1, floor), (1, 1), (1.1, 1), (1.1, floor)]), 0, "beyond"))
        errors = f"{sum(sum(c['histogram']) for c in group):,} errors, largest {ratio(_most(group))}"
        charts.append(
            Chart(rule, f"{wrong} wrong, beyond the bound; the others: {errors}" if wrong else errors, x, y, marks, bound)
        )
    used = {mode for modes in shares.values() for mode in modes}
    return {"charts": charts, "legend": [(i, name) for i, (mode, name) in enumerate(names.items()) if mode in used]}


def _growth(cells: list[Json], replays: list[Json]) -> Json:
    """For each rule the largest error/bound of a trajectory after each step, over all backends, for each dtype."""
    kinds = [*DTYPES, "digits"]
    every = [(c, c["dtype"]) for c in cells] + [(r["replayed"], "digits") for r in replays]
    grown = [(cell["rule"], kind, cell["growth"]) for cell, kind in every if cell["growth"]]
    if not grown:
        return {"charts": [], "legend": []}
    longest = max(2, *(len(growth) for *_, growth in grown))
    highest = max(1.1, *(max(growth) for *_, growth in grown))
    x = Axis("step", 1, longest, {2.0**e: f"{2**e}" for e in range(longest.bit_length())}, log=True)
    y = Axis("error / bound", 0, highest, _even(highest), up=True)
    bound = BoundLine(_path(x, y, [(1, 1), (longest, 1)]), RIGHT, y(1) - 3)
    charts = []
    for rule, found in _grouped(grown, lambda g: g[0]).items():
        lines = {
            kind: [max(values) for values in zip_longest(*(growth for *_, growth in own), fillvalue=0.0)]
            for kind, own in _grouped(found, lambda g: g[1]).items()
        }
        marks = [Mark(_path(x, y, enumerate(line, 1)), kinds.index(kind)) for kind, line in lines.items()]
        charts.append(Chart(rule, f"largest {ratio(max(map(max, lines.values())))}", x, y, marks, bound))
    used = {kind for _, kind, _ in grown}
    return {"charts": charts, "legend": [(i, kind) for i, kind in enumerate(kinds) if kind in used]}


def _training(replays: list[Json]) -> Json:
    """For each rule the loss of native trainings, and how far their parameters are from NumPy's, on one scale each."""
    trained = [(r["rule"], f"{r['backend']} {r['device']}", r["losses"], r["distances"]) for r in replays if r["losses"]]
    if not trained:
        return {"charts": [], "legend": []}
    names = _unique(name for _, name, *_ in trained)
    batches = max(len(losses) for *_, losses, _ in trained)
    highest = max(max(losses) for *_, losses, _ in trained)
    apart = [distance for *_, distances in trained for distance in distances if distance] or [1.0]
    low, high = math.floor(math.log10(min(apart))), math.floor(math.log10(max(apart))) + 1
    x = Axis("batch", 0, batches, _even(batches))
    up = Axis("loss", 0, highest, _even(highest), up=True)
    far = Axis("distance from NumPy", 10.0**low, 10.0**high, _tens(low, high), up=True, log=True)
    charts = []
    for rule, group in _grouped(trained, lambda t: t[0]).items():
        curves = [Mark(_path(x, up, enumerate(losses, 1)), names.index(name)) for _, name, losses, _ in group]
        drifts = [
            Mark(_path(x, far, points), names.index(name))
            for _, name, _, distances in group
            if (points := [(t, distance) for t, distance in enumerate(distances, 1) if distance])
        ]
        same = [name for _, name, _, distances in group if not any(distances)]
        _, _, losses, _ = group[0]
        charts.append(Chart(rule, f"loss {losses[0]:.2f}, at last {losses[-1]:.2f}", x, up, curves))
        charts.append(Chart(rule, f"0 throughout: {', '.join(same)}" if same else "", x, far, drifts))
    return {"charts": charts, "legend": list(enumerate(names))}


# Laws and faults


def _laws(texts: list[Json], results: list[Json], columns: list[Column]) -> list[Json]:
    """Each law, with a square for each column."""
    laws = []
    for text in texts:
        own = [r for r in results if r["law"] == text["name"]]
        squares = [_law_square(text["name"], column, column.of(own)) for column in columns]
        laws.append(text | {"verdict": _weakest(own), "squares": squares, "numbers": sum(r["numbers"] for r in own)})
    return laws


def _families(laws: list[Json]) -> list[Json]:
    """The laws by family, each with how its laws came out."""
    families = []
    for name, own in _grouped(laws, lambda law: law["family"]).items():
        counts = Counter(law["verdict"] for law in own)
        said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in reversed(VERDICTS) if counts[verdict])
        families.append({"name": name, "laws": own, "said": said, "broken": counts[BROKEN]})
    return families


def _law_square(law: str, column: Column, own: list[Json]) -> Square:
    ran, verdict = _ran(own), _weakest(own)
    counts = Counter(r["verdict"] for r in own)
    if not ran:
        reasons = _unique(r["reason"] for r in own if r["reason"]) or ["it does not apply"]
        return Square("none", "-", f"{law}, {column.text}: not run, {'; '.join(reasons)}")
    text = f"{counts[BROKEN]} {symbol(verdict, None)}" if verdict == BROKEN else symbol(verdict, _most(ran))
    parts = ", ".join(f"{count} {name}" for name, count in counts.items())
    return Square(VERDICTS[verdict].kind, text, f"{law}, {column.text}: {parts}; {sum(r['numbers'] for r in ran):,} numbers")


def _faults(faults: Json | None) -> Json | None:
    """The planted faults: which check caught which after how many examples, and what other suites' styles catch."""
    if not faults:
        return None
    checks = faults["checks"]
    rows = [
        fault
        | {
            "first": min(fault["killed_by"].values(), default=None),
            "counts": [fault["killed_by"].get(check) for check in checks],
            "state": "equivalent" if fault["equivalent"] else "caught" if fault["killed_by"] else "alive",
        }
        for fault in faults["faults"]
    ]
    real = [row for row in rows if row["state"] != "equivalent"]
    caught = sum(row["state"] == "caught" for row in rows)
    styles = _unique(style for row in real for style in row["styles"])
    bars = [(style, sum(row["styles"].get(style, False) for row in real)) for style in styles]
    return {
        "checks": checks,
        "groups": _grouped(rows, lambda row: row["rule"]),
        "kills": [sum(check in row["killed_by"] for row in real) for check in checks],
        "alone": [sum(list(row["killed_by"]) == [check] for row in real) for check in checks],
        "caught": caught,
        "alive": len(real) - caught,
        "equivalent": len(rows) - len(real),
        "bars": [*sorted(bars, key=lambda bar: bar[1]), ("this suite", caught)],
        "summary": faults["summary"],
    }
