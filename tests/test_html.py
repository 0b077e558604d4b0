"""The HTML report: that everything is on it, that it stands alone, and that nothing claims more than was run."""

import random
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import browser, opened
from builders.picture import BROWSERS

from xopt.conformance.faults import FAULTS, FaultReport
from xopt.conformance.faults.matrix import Detection
from xopt.conformance.report.html import write_html
from xopt.conformance.report.summary import Counts, Scope
from xopt.conformance.results import BINS, HELD, IDENTICAL, NOT_RUN, SUBNORMALS, WITHIN, WRONG, Cell, LawResult
from xopt.rules import RULES

DTYPES = ("float16", "bfloat16", "float32", "float64")
NASTY = """<script>alert("1")</script> & 'two'"""
TRACERS = {"numpy": None, "array_api_strict": None, "torch": "torch.compile", "jax": "jax.jit", "cupy": None}
COMPILERS = {"numpy": "numba", "array_api_strict": None, "torch": "numba", "jax": "jax.jit", "cupy": None}
TARGETS = [
    ("numpy", "cpu", "eager"),
    ("numpy", "cpu", "fused"),
    ("array_api_strict", "cpu", "eager"),
    ("torch", "cpu", "eager"),
    ("torch", "cpu", "traced"),
    ("jax", "cpu", "eager"),
    ("jax", "cpu", "traced"),
    ("torch", "cuda:0", "eager"),
]
STYLES = ("converges to a minimum", "golden values, rtol 1e-3", "one step by hand", "loss falls", "two paths agree")


def witness(mode: str = "step", message: str | None = None) -> dict[str, Any]:
    return {
        "mode": mode,
        "step": 3,
        "column": "m",
        "leaf": "weight",
        "element": [0, 1],
        "error": 5.6e-8,
        "bound": 6.1e-8,
        "hyper": {"lr": 0.001, "beta1": 0.9},
        "taken": 0,
        "params": 1.0,
        "grads": [0.25, -0.0167, 1e-30],
        "got": 1.001,
        "message": message,
        "again": None,
    }


def cell(rule: str, backend: str, device: str, dtype: str, mode: str, draw: random.Random) -> dict[str, Any]:
    """A cell as a run at ci leaves it."""
    found = Cell(rule, backend, device, dtype, mode, examples=60, trajectories=960, steps=4_300, elements=65_000)
    found.ratio, found.trajectory_ratio, found.ulps = draw.uniform(0.8, 0.999), draw.uniform(0.8, 0.99), draw.uniform(0.5, 4)
    found.histogram = [int(9000 * 0.72**i * draw.uniform(0.8, 1.2)) for i in range(BINS)]
    found.growth = [draw.uniform(0.5, 0.95) / (1 + 0.02 * t) for t in range(40 if dtype == "float32" else 8)]
    found.worst = witness()
    if mode == "traced" or (backend == "torch" and rule.startswith("ad")):
        found.differ, found.explanation = (
            draw.randrange(1, 900),
            [f"x * y + z is contracted to one rounding in {dtype} by {backend}"],
        )
    elif backend == "jax" and rule != "sgd":
        found.differ_subnormal = 3
    return found.to_dict()


def replayed(rule: str, backend: str, device: str, mode: str, draw: random.Random) -> dict[str, Any]:
    inner = cell(rule, backend, device, "float32", mode, draw)
    where = {key: inner[key] for key in ("rule", "backend", "device", "mode", "dtype", "verdict", "explanation")}
    eager = mode == "eager"
    return where | {
        "replayed": inner,
        "losses": [2.3 * 0.95**t * draw.uniform(0.97, 1.03) for t in range(40)] if eager else [],
        "distances": [0.0 if backend == "numpy" else 2e-8 * 1.13**t for t in range(40)] if eager else [],
        "divergence": (0.0 if backend == "numpy" else 2.3e-6) if eager else None,
    }


def problem(says: str, kind: str = "run") -> dict[str, str]:
    return {"kind": kind, "says": says}


def finished(report: dict[str, Any]) -> dict[str, Any]:
    """With what follows from the results."""
    report = {"problems": [], "laws": [], "law_texts": []} | report
    counts = Counts.of((r["verdict"] for r in (*report["cells"], *report["replays"])), (law["verdict"] for law in report["laws"]))
    problems = len(report["problems"]) or counts.wrong
    said = {"scope": Scope.of(report["about"]).to_dict(), "counts": counts.to_dict(), "verdict": counts.verdict(problems)}
    return report | said


def bare() -> dict[str, Any]:
    """A report without laws, faults, ledger and evidence."""
    draw = random.Random(0)
    cells, replays = [], []
    for rule in RULES:
        for dtype in DTYPES:
            for backend, device, mode in TARGETS:
                if dtype == "bfloat16" and backend in ("numpy", "array_api_strict"):
                    cells.append(Cell(rule, backend, device, dtype, mode, f"{backend} has no bfloat16").to_dict())
                else:
                    cells.append(cell(rule, backend, device, dtype, mode, draw))
            cells.append(Cell(rule, "numpy", "cpu", dtype, "traced", "numpy has no compiler of its own").to_dict())
            cells.append(Cell(rule, "array_api_strict", "cpu", dtype, "fused", "nothing fuses its steps").to_dict())
            cells += [
                Cell(rule, "cupy", "", dtype, mode, "not installed: pip install 'cupy'").to_dict() for mode in ("eager", "traced")
            ]
        replays += [replayed(rule, *target, draw) for target in TARGETS]
    sentences = ["+ - * / and sqrt are correctly rounded in float32", "sign(NaN) is NaN, sign(-0.0) is 0.0"]
    backends = [
        {
            "name": name,
            "device": device,
            "version": None if name == "cupy" else "2.4.6",
            "reason": "not installed: pip install 'cupy'" if name == "cupy" else None,
            "dtypes": [] if name == "cupy" else list(DTYPES),
            "tracer": TRACERS[name],
            "compiler": COMPILERS[name],
            "probes": {},
            "sentences": [] if name == "cupy" else [*sentences, f"x / 3.0 is not the correctly rounded quotient by {name}"],
            "seconds": 0.6,
        }
        for name, device in [
            ("numpy", "cpu"),
            ("array_api_strict", "cpu"),
            ("torch", "cpu"),
            ("torch", "cuda:0"),
            ("jax", "cpu"),
            ("cupy", ""),
        ]
    ]
    about = {
        "xopt": "0.1.0",
        "python": "3.11.7",
        "machine": "x86_64, 2 cores, Linux",
        "date": "2026-11-24",
        "profile": "ci",
        "seed": 7,
        "seconds": 141.2,
        "command": "xopt conform --profile ci --seed 7 --html report.html",
    }
    return {"about": about, "backends": backends, "cells": cells, "replays": replays}


def full() -> dict[str, Any]:
    """A report with every kind of content: wrong cells, broken laws, faults, a ledger, evidence, and nasty names."""
    report = bare()
    draw = random.Random(1)
    wrong = [c for c in report["cells"] if c["rule"] == "lion" and c["backend"] == "jax" and c["mode"] == "traced"][:2]
    for c, message in zip(wrong, (None, f"RuntimeError: {NASTY}"), strict=True):
        c |= {"verdict": WRONG, "wrong": witness(message=message), "found_after": 2}
    kinds = {"bits": "bit for bit", "bound": "within the bound", "fails": "is refused"}
    report["law_texts"] = [
        {
            "name": f"law {i} {NASTY if i == 0 else 'of permuted elements'}",
            "kind": kind,
            "sentence": f"Permuting the elements of parameters and gradients permutes the result, {words}.",
            "source": "Kingma and Ba, section 2.1",
            "items": [i],
            "family": ("Symmetries", "Use")[i % 2],
        }
        for i, (kind, words) in enumerate([*kinds.items()] * 7)
    ]
    report["laws"] = []
    for i, text in enumerate(report["law_texts"][:-1]):
        for rule in RULES:
            for backend, device, mode in TARGETS:
                result = LawResult(text["name"], rule, backend, device, "float32", mode, examples=20, numbers=1280)
                if mode == "traced" and i % 3 == 1:
                    result.differ, result.ratio = 3, draw.uniform(0.1, 0.99)
                if i == 4 and mode == "traced" and rule == "adam" and backend == "jax":
                    result.broken, result.found_after = {"left": [1.0, NASTY], "right": [2.0]}, 3
                if i == 5 and mode == "traced":
                    result = LawResult(
                        text["name"], rule, backend, device, "float32", mode, "compiled steps are not asked for this law"
                    )
                report["laws"].append(result.to_dict())
    checks = ["golden, step", "golden, trajectory", *(f"law: {'permuted elements' if i else NASTY} {i}" for i in range(38))]
    names = list(RULES)
    report["faults"] = {
        "checks": checks,
        "summary": ["98 of 98 planted faults were caught, the slowest after 7 examples.", f"Not by {NASTY}."],
        "faults": [
            {
                "name": f"{names[i % len(names)]}, bias correction: {'with t - 1 in place of t' if i else NASTY} ({i})",
                "rule": names[i % len(names)],
                "kind": "rule",
                "sentence": "The bias correction uses the step count before the step.",
                "documented": NASTY if i == 3 else "",
                "seen": "optax#571" if i % 2 else "",
                "effect": 1.5e-3,
                "equivalent": "Both terms are 0 there." if i == 50 else "",
                "killed_by": {}
                if i in (50, 51)
                else {check: draw.choice((1, 1, 1, 2, 4, 17)) for check in checks if draw.random() < 0.3},
                "styles": {style: draw.random() < share for style, share in zip(STYLES, (0.2, 0.7, 0.5, 0.1, 0.3), strict=True)},
            }
            for i in range(100)
        ],
    }
    report["ledger"] = [
        {
            "rules": ["lion", "adam"],
            "backend": "jax",
            "device": "cpu",
            "modes": ["traced"],
            "dtypes": ["float32"],
            "checks": ["golden"],
            "reason": f"XLA contracts {NASTY}",
            "link": link,
            "expires": "2027-06-30",
            "state": state,
            "says": f"the entry is {state}",
        }
        for state, link in [
            ("accepted", "https://example.org/issues/1"),
            ("expired", "javascript:alert(1)"),
            ("stale", ""),
            ("unmatched", ""),
        ]
    ]
    report["evidence"] = [
        {
            "backend": "cupy",
            "device": "cuda:0",
            "hardware": "NVIDIA H200",
            "date": "2026-11-01",
            "current": True,
            "why": "",
            "cells": 44,
        },
        {
            "backend": "torch",
            "device": "cuda:0",
            "hardware": NASTY,
            "date": "2026-08-01",
            "current": False,
            "why": "the text of lion has changed since",
            "cells": 44,
        },
    ]
    return report


class Page(HTMLParser):
    """The parts of a page that the tests ask for. Asserts that its tags are balanced."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.classes: dict[str, list[str]] = {}  # the texts of table cells, by class
        self._class: str | None = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "td":
            self._class = dict(attrs).get("class") or ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "td":
            self._class = None

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)
        if self._class is not None and data.strip():
            self.classes.setdefault(self._class, []).append(data.strip())

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def values(self, *names: str) -> list[str]:
        return [value for _, name, value in self.attributes if name in names]


def written(report: dict[str, Any], folder: Path) -> str:
    path = folder / "report.html"
    write_html(finished(report), path)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(full(), tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def test_is_well_formed(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    inside = [href.removeprefix("#") for href in page.values("href") if href.startswith("#")]
    assert inside
    assert set(inside) <= set(ids)


def test_stands_alone(page: Page, source: str) -> None:
    assert not page.tags & {"script", "link", "img", "iframe", "object", "base"}
    outside = [(tag, value) for tag, name, value in page.attributes if name in ("src", "href") and not value.startswith("#")]
    assert outside == [("a", "https://example.org/issues/1")]
    assert "url(" not in source
    assert "@import" not in source
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_escapes(page: Page, source: str) -> None:
    assert "<script>" not in source
    assert page.text.count(NASTY) >= 5


def test_shows_what_a_run_of_the_faults_gives(tmp_path: Path) -> None:
    """The dict that the planting makes, not one made up here."""
    fault = next(fault for fault in FAULTS if fault.rule == "sgd")
    page = tmp_path / "report.html"
    write_html(finished(bare()) | {"faults": FaultReport([Detection(fault, "values", {"step": 2})]).to_dict()}, page)
    assert escape(fault.name) in page.read_text()


def test_is_small_enough(source: str) -> None:
    assert len(source.encode()) < 2_000_000


@pytest.mark.skipif(browser() is None, reason=f"there is none of {', '.join(BROWSERS)}")
def test_fits_windows_of_three_widths(source: str, tmp_path: Path) -> None:
    """Also where a map has one column, under a title that is longer than that is wide."""
    few = bare()
    few["cells"], few["replays"] = few["cells"][:1], few["replays"][:1]
    paths = {name: tmp_path / f"{name}.html" for name in ("few", "all")}
    paths["few"].write_text(written(few, tmp_path))
    paths["all"].write_text(source)
    fits = "[document.documentElement, ...document.querySelectorAll('.panel')].every((one) => one.scrollWidth <= one.clientWidth)"
    with opened(paths["few"], tmp_path / "browser", 400, 900) as window:
        for name, path in paths.items():
            window.call("Page.navigate", url=path.as_uri())
            while window.ask("document.readyState + location.href") != f"complete{path.as_uri()}":
                pass
            for width in (400, 1400, 1920):
                window.size(width, 900)
                assert window.ask(fits), f"{name} at {width}"


def test_everything_is_there(page: Page) -> None:
    report = full()
    for name in [*RULES, *TRACERS, "torch.compile cpu", "jax.jit cpu", "torch cuda:0"]:
        assert name in page.text
    for text in report["law_texts"]:
        assert text["name"] in page.text
        assert text["sentence"] in page.text
    for fault in report["faults"]["faults"]:
        assert fault["name"] in page.text
    for check in report["faults"]["checks"]:
        assert check in page.text
    for style in STYLES:
        assert style in page.text
    for row in report["ledger"]:
        assert row["says"] in page.text
    for record in report["evidence"]:
        assert record["hardware"] in page.text
    for backend in report["backends"]:
        for sentence in backend["sentences"]:
            assert sentence in page.text
    assert report["about"]["command"] in page.text


def test_each_cell_has_its_square(page: Page) -> None:
    cells = full()["cells"]
    kinds = {IDENTICAL: "same", SUBNORMALS: "subnormal", WITHIN: "within", WRONG: "wrong"}
    titles = [value for tag, name, value in page.attributes if tag == "td" and name == "title"]
    for verdict in kinds:
        here = sum(c["verdict"] == verdict for c in cells) + sum(r["verdict"] == verdict for r in full()["replays"])
        assert here > 0
        assert sum(f": {verdict}; " in title for title in titles) == here
    assert {"bits", "held"} == set(page.classes["same"])
    assert set(page.classes["subnormal"]) == {"bits*"}
    assert {"WRONG", "1 BROKEN", "✗"} == set(page.classes["wrong"])  # the last of a planted fault
    assert all(re.fullmatch(r"0\.\d\d", text) for text in page.classes["within"])


def test_says_what_is_wrong(page: Page) -> None:
    assert re.search(
        r"WRONG: 3 of [\d,]+ checks \(2 comparisons, 1 law\); [\d,]+ checks hold; [\d,]+ not run; 1 planted fault", page.text
    )
    assert "are wrong3outside" in page.text
    assert "off by 5.6e-08 where 6.1e-08 is allowed" in page.text
    assert f"RuntimeError: {NASTY}" in page.text
    assert page.text.count("found after 2 examples") == 2
    assert "lion on jax.jit cpu, float16" in page.text


def test_what_is_wrong_of_a_rule_is_shown_once_and_where_else(tmp_path: Path) -> None:
    report = bare()
    wrong = [c for c in report["cells"] if c["rule"] == "lion" and c["dtype"] == "float32" and c["verdict"] != NOT_RUN]
    for c in wrong:
        c |= {"verdict": WRONG, "wrong": witness(), "found_after": 2}
    named = [f"lion on {c['backend']} {c['device']}, float32, {c['mode']}: the comparison is wrong" for c in wrong]
    report["problems"] = [*(problem(says, "result") for says in named), problem("No law chose sgd.")]
    page = written(report, tmp_path)
    assert f"{len(wrong) - 1} more comparisons of lion" in page
    assert page.count('class="finding"') == len(wrong)
    said = Page(page).text
    assert "lion: the comparison is wrong on numpy cpu, numpy cpu fused, array_api_strict cpu" in said
    assert named[0] not in said
    assert "No law chose sgd." in said


def test_an_interrupted_run_is_not_called_wrong(tmp_path: Path) -> None:
    report = bare() | {"problems": [problem("The run was interrupted after 3 of 9 tasks.", "interruption")]}
    page = written(report, tmp_path)
    assert '<h1 class="same">' in page
    assert 'id="wrong"' not in page


def test_what_did_not_run_has_no_column(source: str) -> None:
    maps = source[source.index('id="verdicts"') : source.index('id="laws"')]
    assert "cupy" not in maps
    assert "torch.compile cpu" in maps
    assert "cupy" in source[source.index('id="not-run"') :]


def test_a_wrong_replay_is_a_finding(tmp_path: Path) -> None:
    report = bare()
    replay = next(r for r in report["replays"] if r["rule"] == "adam")
    replay["verdict"] = WRONG
    replay["replayed"] |= {"verdict": WRONG, "wrong": witness(), "found_after": 1}
    page = Page(written(report, tmp_path))
    assert re.search(r"WRONG: 1 of [\d,]+ checks \(1 comparison\);", page.text)
    assert "#wrong-1" in page.values("href")


def test_what_did_not_run_says_why_and_nothing_else(page: Page) -> None:
    for reason in ("numpy has no bfloat16", "numpy has no compiler of its own", "not installed: pip install 'cupy'"):
        assert reason in page.text
    assert "compiled steps are not asked for this law" in page.text
    assert set(page.classes["none"]) <= {"-", "≡"}
    skipped = [value for tag, name, value in page.attributes if name == "title" and "not run" in value]
    assert not [title for title in skipped if any(word in title for word in (HELD, IDENTICAL, WITHIN))]
    assert not re.search(r"\bpass(ed|es)?\b", page.text)


def test_without_laws_faults_and_evidence(tmp_path: Path) -> None:
    page = Page(written(bare(), tmp_path))
    assert re.search(r"RIGHT: [\d,]+ checks hold, none is wrong; [\d,]+ not run\.", page.text)
    assert "this report has no laws" in page.text
    assert "planted faults-not part of this run" in page.text
    assert "wrong" not in page.classes


def test_says_first_what_was_asked_for(tmp_path: Path) -> None:
    report = bare()
    page = written(report, tmp_path)
    assert (
        "Everything: 11 rules, 10 backends, 4 dtypes, 3 modes; profile ci, seed 7"
        in page.partition("<h1")[0].partition("<body>")[2]
    )
    report["about"] |= {"asked": {"rule": ["lion"]}, "profile": "quick", "command": "xopt conform --rule lion"}
    before = written(report, tmp_path).partition("<h1")[0].partition("<body>")[2]
    assert "A part: lion (1 of 11 rules), 10 backends, 4 dtypes, op by op (1 of 3 modes); profile quick, seed 7" in before
    assert "xopt conform --rule lion" in Page(before + "</header>").text
    report["about"]["interrupted"] = "3 of 9 tasks"
    assert "Interrupted after 3 of 9 tasks. A part: lion" in written(report, tmp_path).partition("<h1")[0]


def test_verdicts_come_before_how_they_came_about(page: Page) -> None:
    ids = page.values("id")
    assert ids.index("wrong") < ids.index("verdicts") < ids.index("laws") < ids.index("probes") < ids.index("errors")


def test_laws_are_folded_by_family(source: str) -> None:
    families = re.findall(r'<details class="family"( open)?><summary><b>(.*?)</b> <span class="(\w+)">(.*?)</span>', source)
    assert [(name, bool(shown), style) for shown, name, style, _ in families] == [
        ("Symmetries", True, "bad"),
        ("Use", False, "soft"),
    ]
    assert families[0][3].startswith("1 broken, ")


def test_where_nothing_ran(tmp_path: Path) -> None:
    report = bare()
    report["cells"] = [c for c in report["cells"] if c["verdict"] == NOT_RUN]
    report["replays"] = []
    report["problems"] = [problem("Nothing was checked.")]
    page = Page(written(report, tmp_path))
    assert '<h1 class="wrong">FAILED for a reason that is given; nothing was checked; ' in written(report, tmp_path)
    assert {"same", "within", "wrong"}.isdisjoint(page.classes)


def test_the_census_marks_what_is_below_its_floor(tmp_path: Path) -> None:
    counts = [
        {"what": "cells: zeros", "count": 3, "of": "cells: numbers", "opportunities": 90, "floor": 9},
        {"what": "laws: numbers", "count": 7, "of": None, "opportunities": 0, "floor": 0},
    ]
    page = Page(written(bare() | {"census": counts}, tmp_path))
    assert page.classes["num wrong"] == ["3"]
    assert "cells 1 counts, 1 with a floor" in " ".join(page.text.split())
    assert "90 numbers" in page.text


def test_problems_are_named(tmp_path: Path) -> None:
    report = bare() | {"problems": [problem(f"The row of jax is expired {NASTY}.")]}
    page = Page(written(report, tmp_path))
    assert "FAILED for a reason that is given; " in page.text
    assert "checks hold, none is wrong; " in page.text
    assert f"The row of jax is expired {NASTY}." in page.text


def test_bars_and_sums_of_the_faults(page: Page) -> None:
    faults = full()["faults"]
    real = [fault for fault in faults["faults"] if not fault["equivalent"]]
    caught = sum(bool(fault["killed_by"]) for fault in real)
    widths = [value for _, name, value in page.attributes if name == "style" and value.startswith("width:")]
    assert f"width:{round(100 * caught / len(real), 1)}%" == widths[-1]
    assert len(widths) == len(STYLES) + 1
    assert f"all that were caught{caught}" in page.text


def test_diagrams_stay_in_their_frames(page: Page) -> None:
    paths = [value for tag, name, value in page.attributes if (tag, name) == ("path", "d")]
    numbers = [(float(x), float(y)) for path in paths for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)]
    assert len(numbers) > 1000
    assert all(0 <= x <= 260 and 0 <= y <= 154 for x, y in numbers)
    assert len([value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]) == 4 * len(RULES)
