"""All operands: what is expected is right by rational arithmetic, what is wrong is found, and a run goes on where it stopped."""

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from builders import pages

from xopt.backends import get
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS
from xopt.conformance.exhaustive import exact, sweep, table, ways
from xopt.conformance.exhaustive.__main__ import FUNCTIONS, main, run
from xopt.conformance.exhaustive.departures import DEPARTURES, stale, unexplained
from xopt.conformance.exhaustive.functions import STRIDE, Measured, in_arrays, on_the_host
from xopt.conformance.exhaustive.probed import probed
from xopt.conformance.exhaustive.store import RESULTS, Row, Store
from xopt.conformance.exhaustive.sweep import Tally, Task, UnprovedError, right, tasks
from xopt.conformance.exhaustive.ways import Way

F16, F32 = FLOAT_FORMATS["float16"], FLOAT_FORMATS["float32"]
EAGER = Way(get("numpy"), "eager")


def rational(operation, x, y=Fraction(0)):
    return {"add": x + y, "subtract": x - y, "multiply": x * y}.get(operation) if operation != "divide" else x / y


def pattern(x, form):
    """A rational number's nearest pattern, by counting in units of the last place."""
    size = abs(x)
    exponent = max(size.numerator.bit_length() - size.denominator.bit_length(), form.emin)
    exponent -= exponent > form.emin and size < Fraction(2) ** exponent
    count = round(size / Fraction(2) ** (exponent - form.digits + 1))  # ties to even
    return ((exponent - form.emin) << (form.digits - 1)) + count


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply", "divide"])
@pytest.mark.parametrize("form", [F16, F32], ids=lambda form: form.name)
def test_expected_results_are_right_by_rational_arithmetic(operation, form):
    x, y = sweep._pairs(form, 0, 600)
    x[:100], y[:100] = x[:100] % (3 << (form.digits - 1)), y[:100] % (3 << (form.digits - 1))  # subnormal numbers, and near them
    fine = np.isfinite(exact.values(x, form)) & np.isfinite(exact.values(y, form)) & (exact.values(y, form) != 0)
    with np.errstate(all="ignore"):
        found = exact.expected(operation, [x[fine], y[fine]], form)
        shown = exact.nearest(operation, [x[fine], y[fine]], found, form)
    assert shown.all()
    for a, b, result in zip(exact.values(x[fine], form), exact.values(y[fine], form), found, strict=True):
        true = rational(operation, Fraction(a), Fraction(b))
        want = min(pattern(true, form), exact.infinity(form))
        assert result & (exact.sign_bit(form) - 1) == want, (a, b)
        assert not want or (result >= exact.sign_bit(form)) == (true < 0), (a, b)


def test_roots_are_right_by_integers():
    x = np.concatenate([np.arange(1, 2000), np.random.default_rng(0).integers(1, exact.infinity(F32), 2000)])
    found = exact.expected("sqrt", [x], F32)
    assert exact.nearest("sqrt", [x], found, F32).all()
    assert not exact.nearest("sqrt", [x], found + 1, F32).any()
    assert not exact.nearest("sqrt", [x], found - 1, F32).any()
    for a, result in zip(exact.values(x, F32)[::20], found[::20], strict=True):
        low, high = (exact.magnitudes(np.asarray([2 * result + i]), F32.digits + 1, F32.emin)[0] for i in (-1, 1))
        assert Fraction(low) ** 2 < Fraction(a) < Fraction(high) ** 2


SPECIAL = {
    "nan": 0x7E00,
    "inf": 0x7C00,
    "-inf": 0xFC00,
    "0": 0,
    "-0": 0x8000,
    "1": 0x3C00,
    "-1": 0xBC00,
    "tiny": 1,
    "-tiny": 0x8001,
}


STANDARD = {
    "divide": (
        *("1 0 inf", "1 -0 -inf", "-1 0 -inf", "0 0 nan", "inf inf nan"),
        *("1 inf 0", "-1 inf -0", "inf -1 -inf", "0 -1 -0", "nan 1 nan"),
    ),
    "multiply": ("inf 0 nan", "inf -1 -inf", "0 -1 -0", "-0 -1 0", "nan 0 nan", "tiny tiny 0", "tiny -tiny -0"),
    "add": ("inf -inf nan", "inf 1 inf", "0 -0 0", "-0 -0 -0", "1 -1 0", "nan 1 nan"),
    "subtract": ("inf inf nan", "0 0 0", "-0 0 -0", "0 -0 0", "1 1 0"),
    "sqrt": ("nan nan", "inf inf", "-inf nan", "0 0", "-0 -0", "1 1", "-1 nan", "-tiny nan"),
    "sign": ("nan nan", "inf 1", "-inf -1", "0 0", "-0 -0", "tiny 1", "-tiny -1"),
    "less": ("nan 1 no", "1 nan no", "-0 0 no", "-inf inf yes", "-tiny 0 yes"),
    "less_equal": ("-0 0 yes", "0 -0 yes", "nan nan no", "tiny -tiny no"),
    "equal": ("0 -0 yes", "nan nan no", "inf inf yes", "tiny 0 no"),
}


@pytest.mark.parametrize("operation", STANDARD)
def test_what_is_no_number_follows_the_standard(operation):
    named = {value: name for name, value in SPECIAL.items()} if operation not in exact.COMPARED else {0: "no", 1: "yes"}
    for line in STANDARD[operation]:
        *operands, want = line.split()
        with np.errstate(all="ignore"):
            found = exact.expected(operation, [np.asarray([SPECIAL[name]]) for name in operands], F16)
        assert named[int(found[0])] == want, line


# What is wrong is found.


def judged(task, count=1 << 18, start=0):
    with np.errstate(all="ignore"):
        operands = task.operands(start, min(start + count, task.total))
        got = EAGER.runner(task.operation, task.dtype)(*operands)
        tally = Tally()
        sweep.judge(task, operands, right(task, operands, got), got, tally)
    return tally


ROOTS = Task("sqrt", "float16")


def row(tally, task=ROOTS):
    where = EAGER.backend.name, EAGER.backend.device, EAGER.version, EAGER.mode, EAGER.tool
    return Row(*where, task.operation, task.dtype, task.total, bool(task.drawn), "2026-01-01", tally)


ROWS = 0x3C00 << 16
"""Where the pairs begin whose first operand is 1."""


@pytest.mark.parametrize("operation", exact.PROVED)
def test_numpy_is_right(operation):
    start = 0 if operation in exact.UNARY else ROWS
    tally = judged(Task(operation, "float16"), start=start)
    assert (tally.wrong, tally.flushed) == (0, 0)
    assert tally.tried == (1 << 16 if operation in exact.UNARY else 1 << 18)
    assert unexplained(row(tally)) == []


def spoiled(monkeypatch, operation, function):
    monkeypatch.setitem(ways.ARITHMETIC, operation, function)


def test_a_root_that_is_off_by_one_unit_at_one_number_is_found(monkeypatch):
    def sqrt(x):
        found = np.sqrt(x)
        found[x == 2] = np.nextafter(found[x == 2], found.dtype.type(0))
        return found

    spoiled(monkeypatch, "sqrt", sqrt)
    for dtype, start, operand in (("float16", 0, "0x4000"), ("float32", 0x4000_0000, "0x40000000")):
        tally = judged(Task("sqrt", dtype), start=start, count=1 << 16)
        assert (tally.wrong, tally.flushed) == (1, 0)
        assert 0.5 < tally.ulps < 1.5
        assert tally.worst.operands == [operand]
        assert int(tally.worst.right, 16) == int(tally.worst.got, 16) + 1
    (said,) = unexplained(row(tally))
    assert "1 results are wrong, by up to" in said


def truncated(x, y):
    """The quotient in float32, cut to float16."""
    found = (x.astype(np.float32) / y.astype(np.float32)).view(np.uint32) & np.uint32(0xFFFF_E000)
    return found.view(np.float32).astype(np.float16)


@pytest.mark.parametrize(
    "wrong",
    [truncated, lambda x, y: x * (np.float16(1) / y), lambda x, y: np.abs(x / y), lambda x, y: np.where(x / y == 0, 0, x / y)],
    ids=["truncated", "by the reciprocal", "without a sign", "with zeros that have no sign"],
)
def test_a_wrong_quotient_is_found(monkeypatch, wrong):
    spoiled(monkeypatch, "divide", lambda x, y: wrong(x, y).astype(np.float16))
    assert judged(Task("divide", "float16"), start=ROWS).wrong >= 4


@pytest.mark.parametrize(
    ("operation", "wrong"),
    [
        ("equal", lambda x, y: (x == y) | ((x != x) & (y != y))),
        ("less", lambda x, y: ~(x >= y)),  # NaN
        ("less_equal", lambda x, y: (x < y) | (x - y == 0)),  # infinities
        ("sign", lambda x: np.nan_to_num(np.sign(x), nan=0.0)),
        ("add", lambda x, y: np.where(x + y == 0, x + y + np.float16(0), np.where(x == y, y - x, x + y))),
        ("multiply", lambda x, y: np.where(np.isinf(x * y), np.sign(x * y) * np.float16(65504), x * y)),
    ],
)
def test_what_is_wrong_at_special_operands_is_found(monkeypatch, operation, wrong):
    spoiled(monkeypatch, operation, wrong)
    start = 0 if operation in exact.UNARY else 0x7C00 << 16 if operation != "multiply" else ROWS
    assert judged(Task(operation, "float16"), start=start).wrong > 0


def test_flushed_numbers_count_by_themselves(monkeypatch):
    def flush(x):
        return np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, x * 0, x)

    spoiled(monkeypatch, "multiply", lambda x, y: flush(flush(x) * flush(y)))
    task = Task("multiply", "float16")
    tally = judged(task, start=ROWS)
    assert tally.wrong == 0
    assert 8000 < tally.flushed < 8200, "2,046 subnormal numbers in each of 4 rows"
    assert "flushed to 0" in unexplained(row(tally, task=task))[0]
    spoiled(monkeypatch, "sqrt", lambda x: np.sqrt(np.where(np.abs(x) < 2.0**-10, x * 0, x)).astype(x.dtype))
    assert judged(Task("sqrt", "float16")).wrong > 0, "numbers that are not subnormal are not explained"


def test_expected_results_that_are_not_the_nearest_are_refused(monkeypatch):
    """Whoever guesses: a reference that cuts digits off is found by the midpoints."""
    task = Task("divide", "float16")
    operands = task.operands(ROWS, ROWS + (1 << 16))
    monkeypatch.setattr(exact, "rounded", lambda x, form: truncated(x, np.ones_like(x)).view(np.uint16).astype(np.int64))
    with np.errstate(all="ignore"), pytest.raises(UnprovedError, match="are not the nearest numbers"):
        right(task, operands, np.zeros_like(operands[0]))


def test_float64_is_judged_by_the_probes_operands(monkeypatch):
    assert probed(EAGER, "divide").tally.wrong == 0
    spoiled(monkeypatch, "divide", lambda x, y: x * (1 / y))
    found = probed(EAGER, "divide")
    assert found.tally.wrong > 300
    assert 0.5 < found.tally.ulps < 8, "reciprocals may be subnormal"
    assert len(found.tally.worst.operands) == 2


# A run goes on where it stopped.


def test_a_run_that_was_stopped_goes_on(monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "CHUNK", 1 << 14)
    task, path = Task("sqrt", "float16"), tmp_path / "found.json"
    first = Store.read(path)
    progress = first.begun(task, [EAGER])
    for _ in sweep.sweep(progress, [EAGER], lambda: first.keep(progress, [EAGER]), every=0.0):
        break
    assert json.loads(path.read_text())["under_way"][task.name]["done"] == 1 << 14
    again = Store.read(path)
    assert again.begun(task, [EAGER]).done == 1 << 14
    assert again.begun(task, [EAGER, Way(get("array_api_strict"), "eager")]).done == 0, "other ways begin anew"
    assert not again.known(task, EAGER)
    run(task, [EAGER], again, until=float("inf"))
    finished = Store.read(path)
    assert finished.under_way == {}
    assert [one.tally.tried for one in finished.rows] == [1 << 16], "nothing twice"
    assert finished.known(task, EAGER)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("xopt.conformance.exhaustive.__main__.modes", lambda _: ["eager"])  # kernels are for the night
    path = tmp_path / "found.json"
    assert main(["--backend", "numpy", "--dtype", "float16", "--operation", "sign", "--file", str(path)]) == 0
    assert "sign float16: 100.0% of 65,536" in capsys.readouterr().out
    assert main(["--table", "--file", str(path)]) == 0
    assert "| `sign(x)` | float16 | all 65,536 | right |" in capsys.readouterr().out
    spoiled(monkeypatch, "sqrt", lambda x: x * x)
    assert main(["--backend", "numpy", "--dtype", "float16", "--operation", "sqrt"]) == 1
    assert "results are wrong, by up to" in capsys.readouterr().out
    (tmp_path / "other.json").write_text("{}")
    files = [["--file", str(tmp_path / "no" / "f.json")], ["--file", str(tmp_path / "other.json")]]
    for wrong in (*files, ["--operation", "pow"], ["--backend", "abacus"]):
        with pytest.raises(SystemExit) as stopped:
            main(wrong)
        assert stopped.value.code == 2
    assert main(["--backend", "numpy", "--operation", "add", "--dtype", "float16", "--seconds", "0"]) == 0
    assert "not finished: add float16" in capsys.readouterr().out

    def interrupted(x):
        raise KeyboardInterrupt

    spoiled(monkeypatch, "sqrt", interrupted)
    again = ["--backend", "numpy", "--dtype", "float16", "--operation", "sqrt", "--file", str(tmp_path / "new.json")]
    assert main(again) == 130
    assert "interrupted; go on with --file" in capsys.readouterr().out


# Functions, and what the page says.


def test_functions_are_measured(monkeypatch):
    monkeypatch.setattr("xopt.conformance.exhaustive.functions.ON_THE_HOST", 200)
    monkeypatch.setattr("xopt.conformance.exhaustive.functions.IN_ARRAYS", 1 << 12)
    monkeypatch.setattr("xopt.conformance.exhaustive.functions.STRIDE", STRIDE << 10)
    host = {(one.function, one.by): one.ulps for one in on_the_host()}
    assert host["log(beta)", "xopt, by decimal"] <= 0.5
    assert host["1 - beta^t", "xopt, repeated squaring in complements"] < 32
    assert host["1 - beta^t", "Python, 1 - beta**t"] > 1000
    arrays = {one.function: one.ulps for one in in_arrays(get("numpy"), compiled=False)}
    assert arrays["log(x)"] < 8
    assert arrays["1 - beta^t"] > 1000


FOUND = Store.read(RESULTS)
PAGE = Path(__file__).parents[1] / "docs" / "arithmetic.md"


def test_the_file_has_every_task_and_nothing_that_the_ledger_does_not_explain():
    assert [line for one in FOUND.rows for line in unexplained(one)] == []
    assert stale(FOUND.rows) == []
    page = pages.expanded(PAGE.read_text())
    for task in tasks():
        found = [
            one for one in FOUND.rows if (one.operation, one.dtype, one.drawn) == (task.operation, task.dtype, bool(task.drawn))
        ]
        assert len(found) >= 4 or f"Not finished: {task.name}" in page
    for one in FOUND.rows:
        assert one.tally.tried == one.total
    assert {one["library"] for one in FOUND.more[FUNCTIONS]} >= {"xopt", "python", "numpy", "torch", "jax"}


def test_departures_point_to_the_ledger():
    for departure in DEPARTURES:
        assert departure.reason
        assert set(departure.operations) <= set(exact.PROVED)
    gone = [row(Tally(tried=1 << 16), task=Task("sqrt", "float16"))]
    assert stale(gone) == [], "nothing is said of what no departure covers"
    jax = Row("jax", "cpu", "1", "eager", "jax", "sqrt", "float32", 1, False, "2026-01-01", Tally(tried=1))
    assert len(stale([jax])) == 1


def test_the_page_says_what_the_file_says():
    page = pages.expanded(PAGE.read_text())
    for one in FOUND.rows:
        assert table._column(one) in page
        if one.tally.wrong:
            assert f"{one.tally.ulps:.4f} ulp" in page
            assert one.tally.worst.operands[0] in page
    for one in itertools.starmap(Measured, (found.values() for found in FOUND.more[FUNCTIONS])):
        assert f"`{one.at}`" in page
        assert math.isfinite(one.ulps)
