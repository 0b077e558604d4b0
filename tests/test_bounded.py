"""The bound is sound: no correct evaluation leaves it. And sharp: correct ones come close. Both are shown, not argued."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xopt
from xopt.conformance.bounded import FORMATS, HOST, Bounded, Namespace, Signs, exact
from xopt.conformance.reference import Reference

F32 = FORMATS["float32"]
f32 = np.float32

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False, min_value=-(2.0**30), max_value=2.0**30)


@pytest.mark.parametrize("name", FORMATS)
def test_formats_are_what_numpy_says(name: str) -> None:
    if name == "bfloat16":
        info: Any = pytest.importorskip("ml_dtypes").finfo("bfloat16")
    else:
        info = np.finfo(name)
    ours = FORMATS[name]
    assert ours.unit == float(info.eps) / 2
    assert ours.smallest_normal == float(info.smallest_normal)
    assert ours.smallest == float(info.smallest_subnormal)
    assert ours.largest == float(info.max)


@given(numbers, numbers, numbers)
def test_each_operation_is_sound_and_its_rounding_is_not_overcharged(x: float, y: float, z: float) -> None:
    """One operation on exact float32 operands: NumPy's error is within the bound, and the bound within one unit of the result."""
    cases: list[tuple[Any, Bounded, Fraction]] = [
        (f32(x) + f32(y), exact(x, F32) + exact(y, F32), Fraction(x) + Fraction(y)),
        (f32(x) - f32(y), exact(x, F32) - exact(y, F32), Fraction(x) - Fraction(y)),
        (f32(x) * f32(y), exact(x, F32) * exact(y, F32), Fraction(x) * Fraction(y)),
    ]
    if abs(y) > 2.0**-60:
        cases.append((f32(x) / f32(y), exact(x, F32) / exact(y, F32), Fraction(x) / Fraction(y)))
    for got, bound, true in cases:
        error = abs(Fraction(float(got)) - true)
        assert error <= Fraction(float(bound.error)) * (1 + Fraction(1, 2**30))
        assert bound.error <= F32.unit * abs(float(true)) * (1 + 1e-6) + 2 * F32.smallest


@given(numbers.map(abs))
def test_sqrt_is_sound(x: float) -> None:
    bound = Namespace.sqrt(exact(x, F32))
    low, high = (
        Fraction(float(bound.value)) - Fraction(float(bound.error)),
        Fraction(float(bound.value)) + Fraction(float(bound.error)),
    )
    root = Fraction(float(np.sqrt(f32(x))))
    assert low <= root <= high


@given(st.floats(0.001, 1000), st.floats(0, 1), st.floats(-1, 1))
def test_sqrt_of_an_erroneous_operand_is_sound(x: float, relative: float, where: float) -> None:
    error = relative * x
    bound = Namespace.sqrt(Bounded(np.float64(x), np.float64(error), F32))
    inside = max(x + where * error, 0.0)
    assert abs(np.sqrt(inside) - np.sqrt(x)) <= bound.error


def test_a_number_is_rounded_when_it_meets_an_array_and_only_if_it_must() -> None:
    array = exact(np.ones(3), F32)
    assert (exact(0.5) * array).error.max() <= F32.unit * 0.5 * 1.001 + F32.smallest  # the product's own rounding
    assert (exact(0.1) * array).error.min() > F32.unit * 0.1 * 1.9  # and the number's
    assert (array * exact(0.1)).format is F32
    assert (exact(0.1) * exact(0.1)).format is HOST


def test_a_sum_that_cancels_keeps_the_errors_of_its_terms() -> None:
    x = Bounded(np.float64(1.0), np.float64(1e-6), F32)
    assert (x - x).error >= 2e-6  # the two may err in opposite directions


def test_a_division_by_what_may_be_zero_is_vacuous_and_overflow_too() -> None:
    assert np.isinf((exact(1.0, F32) / Bounded(np.float64(1e-9), np.float64(1e-8), F32)).error)
    assert np.isinf((exact(1e30, F32) * exact(1e30, F32)).error)


def test_an_open_sign_is_a_set() -> None:
    x = Bounded(np.asarray([0.0, 1e-9, 1.0]), np.asarray([1e-8, 1e-8, 1e-8]), F32)
    with Signs() as signs:
        free = Namespace.sign(x)
    assert signs.open.tolist() == [True, True, False]
    assert free.error.tolist() == [1.0, 2.0, 0.0]
    with Signs(-1.0, signs.open):
        assert Namespace.sign(x).value.tolist() == [-1.0, -1.0, 1.0]


def fma(a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once, nearly always: float64 holds the product of two float32 exactly."""
    return (np.float64(a) * np.float64(b) + np.float64(c)).astype(f32)


def plain(x: Any) -> Any:
    return x


class Order:
    """One correct way to evaluate AdamW and AdEMAMix in float32."""

    def __init__(
        self,
        average: Callable[[Any, Any, float], Any],
        denominator: Callable[[Any, float, Any], Any],
        scale: Callable[[Any, float], Any],
        noise: Callable[[Any], Any] = plain,
        descend: Callable[[Any, Any, Any], Any] = lambda p, lr, u: p - lr * u,
    ) -> None:
        self.average, self.denominator, self.scale, self.noise, self.descend = average, denominator, scale, noise, descend

    def step(self, p: Any, m1: Any, m2: Any, v: Any, g: Any, t: int, h: dict[str, float]) -> tuple[Any, ...]:
        m1 = self.noise(self.average(m1, g, h["beta1"]))
        v = self.noise(self.average(v, self.noise(g * g), h["beta2"]))
        top = self.noise(self.scale(m1, 1 - h["beta1"] ** t))
        if m2 is not None:
            m2 = self.noise(self.average(m2, g, h["beta3"]))
            top = top + f32(h["alpha"]) * m2
        u = self.noise(top / self.denominator(v, 1 - h["beta2"] ** t, f32(h["eps"])))
        p = self.descend(p, f32(h["lr"]), u + f32(h["weight_decay"]) * p)
        return p, m1, m2, v


def naive(m: Any, g: Any, beta: float) -> Any:
    return f32(beta) * m + f32(1 - beta) * g


def lerp(m: Any, g: Any, beta: float) -> Any:
    return m + f32(1 - beta) * (g - m)


def contracted(m: Any, g: Any, beta: float) -> Any:
    return fma(f32(beta), m, f32(1 - beta) * g)


def root_then_scale(v: Any, complement: float, eps: Any) -> Any:
    return np.sqrt(v) / f32(np.sqrt(complement)) + eps


def scale_then_root(v: Any, complement: float, eps: Any) -> Any:
    return np.sqrt(v / f32(complement)) + eps


def divided(m: Any, complement: float) -> Any:
    return m / f32(complement)


def inverted(m: Any, complement: float) -> Any:
    return f32(1 / complement) * m


def wobble(x: Any) -> Any:
    """One unit in the last place off, up or down: a library whose primitives are that wrong."""
    return np.nextafter(x, np.where(np.random.default_rng(0).random(x.shape) < 0.5, -np.inf, np.inf).astype(f32))


def flush(x: Any) -> Any:
    return np.where(np.abs(x) < np.finfo(f32).smallest_normal, f32(0), x)


ORDERS: dict[str, tuple[Order, Any]] = {
    "naive": (Order(naive, scale_then_root, divided), F32),
    "lerp form": (Order(lerp, scale_then_root, divided), F32),
    "fused multiply-add": (Order(contracted, scale_then_root, inverted, descend=lambda p, lr, u: fma(-lr, u, p)), F32),
    "square root of the ratio": (Order(naive, root_then_scale, divided), F32),
    "multiplication by the inverse": (Order(lerp, scale_then_root, inverted), F32),
    "primitives off by an ulp": (
        Order(lerp, scale_then_root, divided, wobble),
        replace(F32, ulps=dict.fromkeys(("add", "multiply", "divide", "sqrt"), 1.5)),
    ),
    "subnormals flushed": (Order(naive, scale_then_root, divided, flush), replace(F32, flushes=True)),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["adamw", "ademamix"])
def test_no_correct_evaluation_order_leaves_the_bound(name: str, order: str) -> None:
    """1,500 trajectories of 4 steps for each rule and order, step by step and as a whole."""
    evaluation, compute = ORDERS[order]
    rule = xopt.RULES[name]
    draw = np.random.default_rng(1)
    worst = 0.0
    for _ in range(15):
        hyper = {
            "lr": 10 ** draw.uniform(-4, 0),
            "beta1": 1 - 10 ** draw.uniform(-3, -0.3),
            "beta2": 1 - 10 ** draw.uniform(-4, -1),
            "eps": 10 ** draw.uniform(-9, -3),
            "weight_decay": 10 ** draw.uniform(-3, 0),
        }
        if name == "ademamix":
            hyper |= {"beta3": 1 - 10 ** draw.uniform(-5, -2), "alpha": draw.uniform(0, 10)}
        size = 100
        p = (draw.standard_normal(size) * 10.0 ** draw.uniform(-3, 1, size)).astype(f32)
        m1, v = np.zeros(size, f32), np.zeros(size, f32)
        m2 = np.zeros(size, f32) if name == "ademamix" else None
        local, whole = (Reference(rule, hyper, compute, compute, traced=False) for _ in range(2))

        def columns(*state: Any) -> tuple[Any, ...]:
            return tuple(x.astype(np.float64) for x in state if x is not None)

        whole.restart(columns(p, m1, m2, v))
        for t in range(1, 5):
            g = (draw.standard_normal(size) * 10.0 ** draw.uniform(-6, 6, size)).astype(f32)
            local.restart(columns(p, m1, m2, v))
            p, m1, m2, v = evaluation.step(p, m1, m2, v, g, t, hyper)
            for comparison in (
                *local.step(g.astype(float), t, columns(p, m1, m2, v)),
                *whole.step(g.astype(float), t, columns(p, m1, m2, v)),
            ):
                assert not np.isnan(comparison.ratio).any(), "vacuous"
                worst = max(worst, comparison.ratio.max())
    assert worst <= 1.0
    assert worst >= 0.5, "the bound is loose"
