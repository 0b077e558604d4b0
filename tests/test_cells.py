"""The check finds what is wrong, names it, and passes what is right: shown by planting faults."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
import pytest

import xopt
from xopt import backends
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, round_to
from xopt.conformance.compare.check import check_rule
from xopt.conformance.faults.planting import updating
from xopt.conformance.golden import GOLDENS
from xopt.conformance.inputs.explore import SETTINGS
from xopt.conformance.inputs.hyperparameters import PRECISIONS, is_decay, settings
from xopt.conformance.inputs.trajectories import ROWS, SHAPES, SIZE, count
from xopt.conformance.inputs.words import Choices, decode, drawn
from xopt.conformance.profiles import PROFILES
from xopt.conformance.report.program import script
from xopt.conformance.results import IDENTICAL, SUBNORMALS, WITHIN, WRONG, Cell
from xopt.conformance.target import Effort, Implementations, Target
from xopt.operations import average, sqrt

NUMPY = Target("numpy", "cpu", "eager")


def verdicts(rule: str, dtype: str = "float32", targets: Any = (NUMPY,), examples: int = 25) -> list[Cell]:
    return check_rule(rule, dtype, targets, Effort(examples, pool=5))


@pytest.mark.parametrize(
    ("rule", "dtype"), [*((rule, "float32") for rule in xopt.RULES), ("qhadam", "float16"), ("ademamix", "float64")]
)
def test_numpy_is_right_and_the_bound_is_sharp(rule: str, dtype: str) -> None:
    (cell,) = verdicts(rule, dtype)
    assert cell.verdict == IDENTICAL
    assert cell.examples == 25
    assert cell.trajectories == 25 * ROWS
    assert 0.5 <= cell.ratio <= 1
    assert sum(cell.histogram) > 1000
    assert cell.histogram[int(cell.ratio * len(cell.histogram) - 1e-9)] > 0
    assert max(cell.growth) == cell.trajectory_ratio
    assert cell.trajectory_ratio <= 1
    assert cell.vacuous < 0.1 * cell.elements, "a few settings are so far out that all overflows, and no more"
    assert cell.trajectory_vacuous < 0.15 * cell.elements


def adamw(params: Any, m: Any, v: Any, grad: Any, c: Any) -> Any:
    """AdamW as it is."""
    m = average(m, grad, c.gain1)
    v = average(v, grad * grad, c.gain2)
    u = c.debias1 * m / (sqrt(c.debias2 * v + c.eps_root) + c.eps)
    return params - c.lr * (u + c.weight_decay * params), m, v


def decay_without_lr(params: Any, m: Any, v: Any, grad: Any, c: Any) -> Any:
    new, m, v = adamw(params, m, v, grad, c._replace(weight_decay=0.0))
    return new - c.weight_decay * params, m, v


def planted(monkeypatch: pytest.MonkeyPatch, name: str, update: Callable[..., Any]) -> None:
    right = xopt.RULES[name]
    monkeypatch.setitem(xopt.RULES, name, updating(right, update))


def test_the_text_that_the_fault_edits_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "adamw", adamw)
    assert verdicts("adamw")[0].verdict == IDENTICAL


def test_a_wrong_cell_shows_the_smallest_input_and_a_script_that_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(monkeypatch, "adamw", decay_without_lr)
    (cell,) = verdicts("adamw")
    assert cell.wrong is not None
    assert cell.wrong["step"] == 1, "Hypothesis shrinks to the first step"
    assert cell.wrong["params"] != 0
    text = script(cell.to_dict())
    exec(text, {})
    assert re.search(r"AdamWState\(params=", capsys.readouterr().out)


class Shifted:
    """A backend whose results are a little off, where ``where`` says, when they are read."""

    def __init__(self, ulps: int) -> None:
        self._numpy = backends.get("numpy")
        self.ulps = ulps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._numpy, name)

    def to_numpy(self, x: Any) -> Any:
        x = np.array(x)
        for _ in range(self.ulps):
            shifted = np.nextafter(x, np.asarray(np.inf, x.dtype))
            x = np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, x, shifted)  # that of a subnormal is more than rounding
        return x


def run_on(monkeypatch: pytest.MonkeyPatch, backend: Any, rule: str = "sgd", **measured: Any) -> list[Cell]:
    real = backends.get
    monkeypatch.setattr(backends, "get", lambda name, device=None: backend if name == "torch" else real(name, device))
    torch = Target("torch", "cpu", "eager", {"float32": replace(FLOAT_FORMATS["float32"], **measured)})
    return check_rule(rule, "float32", [NUMPY, torch], Effort(25, pool=5))


def test_a_backend_that_is_off_by_more_than_rounding_is_wrong_and_the_others_are_still_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numpy, shifted = run_on(monkeypatch, Shifted(ulps=8))
    assert shifted.verdict == WRONG
    assert numpy.verdict == IDENTICAL
    assert numpy.examples == 25


class Broken(Shifted):
    """A backend that fails as it reads a result."""

    def to_numpy(self, x: Any) -> Any:  # noqa: ARG002
        msg = "illegal memory access"
        raise RuntimeError(msg)


def test_a_backend_that_raises_is_wrong_with_its_message_and_the_others_are_still_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    numpy, broken = run_on(monkeypatch, Broken(0))
    assert broken.verdict == WRONG
    assert broken.wrong is not None
    assert broken.wrong["message"] == "RuntimeError: illegal memory access"
    assert numpy.verdict == IDENTICAL
    assert numpy.examples == 25
    assert "illegal memory access" in script(broken.to_dict())


class Flushing(Shifted):
    """Subnormal results are 0."""

    def __init__(self) -> None:
        super().__init__(0)

    def to_numpy(self, x: Any) -> Any:
        x = np.array(x)
        return np.where(np.abs(x) < np.finfo(x.dtype).smallest_normal, np.zeros_like(x), x)


def test_flushed_subnormals_have_their_own_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    _, flushing = run_on(monkeypatch, Flushing(), "adamw", flushes=True)
    assert flushing.verdict in (SUBNORMALS, IDENTICAL)
    assert flushing.differ == 0


def test_a_measured_error_of_a_primitive_widens_the_bound_and_bits_still_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    ulps = dict.fromkeys(("add", "multiply", "divide", "sqrt"), 3.0)
    _, shifted = run_on(monkeypatch, Shifted(ulps=1), "sgd", ulps=ulps)
    assert shifted.verdict == WITHIN
    assert shifted.differ > 0


def test_the_same_seed_gives_the_same_cells() -> None:
    assert [c.to_dict() for c in verdicts("ademamix")] == [c.to_dict() for c in verdicts("ademamix")]
    assert verdicts("ademamix")[0].ratio != check_rule("ademamix", "float32", [NUMPY], Effort(25, seed=1, pool=5))[0].ratio


@pytest.mark.parametrize("dtype", FLOAT_FORMATS)
def test_generated_numbers_are_numbers_of_the_dtype(dtype: str) -> None:
    words = np.random.default_rng(0).integers(0, 2**32, 2000, dtype=np.uint32)
    values = decode(words, dtype, (-10, 4))
    assert np.isfinite(values).all()
    assert (round_to(values, dtype) == values).all()
    assert (values == 0).mean() > 0.08
    assert (decode(np.zeros(SIZE, np.uint32), dtype, (-10, 4)) == 0).all(), "Hypothesis shrinks towards zeros"
    assert len(np.unique(np.abs(values))) > 500


def test_bfloat16_rounding_is_to_nearest_even() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.random.default_rng(0).standard_normal(5000).astype(np.float32).astype(np.float64)
    x[:3] = [1 + 2.0**-8, 1 + 3 * 2.0**-8, -(1 + 2.0**-8)]  # halfway
    assert (round_to(x, "bfloat16") == x.astype(ml_dtypes.bfloat16).astype(np.float64)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", xopt.RULES)
def test_settings_are_in_range_and_begin_with_the_defaults(name: str, dtype: str) -> None:
    rule = xopt.RULES[name]
    for seed in range(5):
        drawn = settings(rule, seed, 200, dtype)
        assert drawn[0] == {}
        assert sum(hyper == {} for hyper in drawn) >= 2
        for hyper in drawn:
            rule.bind(**hyper).init(np.zeros(1, dtype))  # refuses what is out of range


@pytest.mark.parametrize("name", xopt.RULES)
def test_settings_reach_the_last_numbers_of_each_range_and_far_beyond_the_usual(name: str) -> None:
    rule = xopt.RULES[name]
    drawn = settings(rule, 0, 2000, "float32")
    for hyper, interval in rule.ranges.items():
        values = [value[hyper] for value in drawn if hyper in value]
        if interval.sequence:
            assert {1, 2, 3, 4, 50} <= {len(value) for value in values}
            values = [item for value in values for item in value]
        low, high = interval.usable(PRECISIONS["float32"])
        assert {high, math.nextafter(high, low)} <= {*values}
        assert interval.divisor or low in values
        if math.isinf(interval.high):
            assert sum(1 < value < 1e4 for value in values if value is not None) > 20
        if interval.optional:
            assert {256_000, 0.5} <= {*values}
            assert sum(value > 1e6 for value in values if value is not None) > 5


@pytest.mark.parametrize("name", xopt.RULES)
def test_the_settings_of_a_ci_run_have_large_rates_and_shares_next_to_1(name: str) -> None:
    """A range that ends early is found by the few settings of each dtype."""
    rule = xopt.RULES[name]
    drawn = [hyper for dtype in FLOAT_FORMATS for hyper in settings(rule, 0, PROFILES["ci"].pool, dtype)]
    for hyper, interval in rule.ranges.items():
        values = [value[hyper] for value in drawn if value.get(hyper) is not None and not interval.sequence]
        if math.isinf(interval.high) and not (interval.sequence or interval.divisor or interval.optional):
            assert sum(1e3 < value < 1e8 for value in values) >= 2, hyper
            assert interval.low == 0 or sum(-1e8 < value < -1e3 for value in values) >= 2, hyper
        elif interval.high == 1 and not is_decay(interval):
            assert any(1 - 1e-5 < value < 1 for value in values), hyper


def test_counts_are_of_every_size() -> None:
    found: list[int] = []

    @hypothesis.settings(SETTINGS, max_examples=300)
    @hypothesis.seed(0)
    @hypothesis.given(drawn(1, 1))
    def look(example: tuple[Choices, Any]) -> None:
        found.append(count(example[0], [77_000]))

    look()
    sizes = {steps_before.bit_length() for steps_before in found}
    assert {0, *range(1, 7)} & sizes
    assert len(sizes & {*range(8, 42)}) > 20
    assert {76_999, 77_000} & {*found}
    assert min(found) == 0
    assert max(found) > 2**32


def test_shapes_hold_rows_of_trajectories_an_empty_leaf_and_a_number() -> None:
    assert () in SHAPES.values()
    assert any(0 in shape for shape in SHAPES.values())
    assert {shape[0] for shape in SHAPES.values() if shape} == {ROWS}


def test_the_worst_input_of_a_right_cell_is_a_script_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (cell,) = verdicts("ademamix")
    assert cell.worst is not None
    assert cell.worst["error"] == pytest.approx(cell.ratio * cell.worst["bound"])
    exec(script(cell.to_dict(), "worst"), {})
    assert re.search(r"AdEMAMixState\(params=", capsys.readouterr().out)


def test_a_default_that_is_not_the_papers_is_found() -> None:
    """The golden has the defaults written down once more, and a run that leaves them untouched is compared with those."""
    right = GOLDENS["adamw"]
    goldens = GOLDENS | {"adamw": right._replace(defaults=right.defaults | {"beta2": 0.99})}
    (cell,) = check_rule("adamw", "float32", [NUMPY], Effort(25, pool=5, shrink=False), Implementations(goldens=goldens))
    assert cell.verdict == WRONG
    assert cell.found_after is not None
    assert cell.found_after <= 25
    assert cell.wrong is not None
    assert cell.wrong["hyper"] == {}
