"""The bound is sound: no correct evaluation leaves it. And sharp: correct ones come close. Both are shown, not argued."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xopt.conformance.arithmetic.bounded import Bounded, Namespace, Signs, exact
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, HOST

F32 = FLOAT_FORMATS["float32"]
f32 = np.float32

numbers = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False, min_value=-(2.0**30), max_value=2.0**30)


@pytest.mark.parametrize("name", FLOAT_FORMATS)
def test_formats_are_what_numpy_says(name: str) -> None:
    if name == "bfloat16":
        info: Any = pytest.importorskip("ml_dtypes").finfo("bfloat16")
    else:
        info = np.finfo(name)
    ours = FLOAT_FORMATS[name]
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


@given(st.floats(0.001, 1000), st.floats(0, 1) | st.floats(0, 1e9), st.floats(-1, 1))
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
