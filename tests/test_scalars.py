"""The numbers made on the host, against mpmath at 60 digits, with error limits that are derived here.

Write u for half a unit in the last place, 2**-53 in float64, and count relative errors in u, to first order (the second order is
below 1e-12 of it). The derivations use two facts. For s in [0, 1] the map s -> s (2 - s) amplifies a relative error by
(2 - 2s) / (2 - s) <= 1. And r + s (1 - r) is a sum of positive terms: its relative error is at most the larger of those of r, s.

* ``power_complement``: 1 - beta rounds once, each squaring twice: (2k + 1) u after k. Each set bit adds three roundings to the
  larger of two errors: at most (3n + 1) u for an n-bit t.
* ``exp_complement``: at y = x / 2**10 <= 1/16 each Horner step scales the error so far by at most y/2 = 1/32 and adds a rounded
  coefficient, a product and a sum: 1.1u for the series, whose first coefficient is 1. The terms left out, y**9 / 10! <= 2**-57
  beside a series >= 0.96, add 0.1u, the multiplication by y 1u, ten squarings 20u: 22.2u; 22.5u is claimed.
* ``log`` of a Python number is correctly rounded.
* ``linear_warmup``: a quotient and a product: 2u.
* ``half_life_warmup``: the time constants A and B carry 2u each (log, quotient), their weighted sum 3u more (1 - mu, product, sum)
  and its reciprocal 1u; mu's own rounding moves the sum by |B - A| mu u, which is c = |B - A| mu / ((1 - mu) A + mu B) in relative
  terms: at most 1 upward, and a true condition number downward, where mu comes near 1 and A is the longer memory.
  x -> 1 - exp(-x) does not amplify. With ``exp_complement`` that is (c + 6 + 22.5) u.
"""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from libraries import to_numpy

from xopt.scalars import exp_complement, half_life_warmup, linear_warmup, log, power_complement

U = 2.0**-53
EXP_LIMIT = 22.5

BETAS = [
    0.0,
    5e-324,
    1e-300,
    1e-9,
    0.1,
    0.3,
    0.5,
    0.9,
    0.95,
    0.99,
    0.999,
    0.9999,
    0.99999,
    1 - 1e-7,
    1 - 1e-9,
    1 - 1e-12,
    1 - 2.0**-53,
]
COUNTS = [1, 2, 3, 4, 5, 7, 10, 31, 100, 255, 1000, 12345, 2**16 - 1, 10**6, 2**24 - 1, 2**24, 2**31 - 1, 2**31]

betas = st.one_of(st.sampled_from(BETAS), st.floats(0, 1, exclude_max=True), st.floats(0, 28).map(lambda x: 1 - 10 ** -(x / 2.4)))
betas = betas.filter(lambda beta: 0 <= beta <= 1 - 1e-12)
counts = st.one_of(st.sampled_from(COUNTS), st.integers(1, 2**31), st.integers(0, 31).map(lambda k: 2**k))


@pytest.fixture(autouse=True)
def sixty_digits():
    with mpmath.workdps(60):
        yield


def error(got, exact):
    """The relative error of ``got``, in u."""
    exact = mpmath.mpf(exact)
    return float(abs(mpmath.mpf(float(got)) - exact) / (exact or 1) / U)


def exact_power_complement(beta, t):
    return 1 - mpmath.mpf(beta) ** t


def exact_gain(start, end, t, steps):
    """1 - beta3(t), from the half-lives."""
    a, b = (-1 / mpmath.log(mpmath.mpf(beta)) if beta else mpmath.mpf(0) for beta in (start, end))
    mu = mpmath.mpf(t) / steps
    return -mpmath.expm1(-1 / ((1 - mu) * a + mu * b))


def condition(start, end, t, steps):
    a, b = (-1 / math.log(beta) if beta else 0.0 for beta in (start, end))
    mu = t / steps
    return abs(b - a) * mu / ((1 - mu) * a + mu * b)


# On Python numbers.


def test_power_complement_on_a_grid():
    """The largest error on the grid is 2.9u."""
    worst = max(error(power_complement(beta, t), exact_power_complement(beta, t)) for beta in BETAS for t in COUNTS)
    assert 0 < worst <= 4


@given(betas, counts)
@example(1 - 1e-12, 2**31 - 1)
@example(0.9999, 1)
def test_power_complement(beta, t):
    assert error(power_complement(beta, t), exact_power_complement(beta, t)) <= 3 * t.bit_length() + 1


@pytest.mark.parametrize("beta", BETAS)
def test_power_complement_of_the_first_step_is_1_minus_beta(beta):
    assert power_complement(beta, 1) == 1 - beta


def test_power_complement_rises_to_1():
    for beta in (0.5, 0.9, 0.9999):
        values = [power_complement(beta, 2**k) for k in range(40)]
        assert values == sorted(values)
        assert values[-1] == 1.0


@given(st.one_of(st.floats(1e-290, 64), st.floats(-290, 1.8).map(lambda x: 10**x)))
@example(0.0)
@example(64.0)
@example(63.99999)
def test_exp_complement(x):
    assert error(exp_complement(x), -mpmath.expm1(-mpmath.mpf(x))) <= EXP_LIMIT


def test_exp_complement_on_a_grid():
    """The largest error on the grid is 4.4u."""
    grid = [*np.geomspace(1e-300, 64, 4000), *np.linspace(0.001, 64, 4000)]
    worst = max(error(exp_complement(float(x)), -mpmath.expm1(-mpmath.mpf(float(x)))) for x in grid)
    assert 0 < worst <= 6


@pytest.mark.parametrize("x", [64.0, 65.0, 1e3, 1e300, math.inf])
def test_exp_complement_is_1_beyond_64(x):
    assert exp_complement(x) == 1.0


@given(st.one_of(st.floats(0, 1, exclude_min=True), st.floats(0, exclude_min=True, allow_infinity=False)))
@example(0.96)
@example(1.0)
@example(1 - 2.0**-53)
@example(5e-324)
def test_log_is_correctly_rounded(x):
    assert log(x) == float(mpmath.log(mpmath.mpf(x)))


def test_log_of_0():
    assert log(0.0) == -math.inf


@given(st.floats(1e-9, 1e9), counts, counts)
def test_linear_warmup(end, t, steps):
    got = linear_warmup(end, t, steps)
    if t >= steps:
        assert got == end
    else:
        assert error(got, mpmath.mpf(end) * t / steps) <= 2
        assert 0 < got <= end


@given(betas, betas, counts, counts)
@example(0.9, 0.9999, 2**31 - 1, 2**31)
@example(0.9999, 0.9, 2**31 - 1, 2**31)
@example(0.0, 0.5, 1, 2**31)
def test_half_life_warmup(start, end, t, steps):
    if t >= steps:
        assert half_life_warmup(start, end, t, steps) == 1 - end
    elif start or end:
        exact = exact_gain(start, end, t, steps)
        limit = condition(start, end, t, steps) + 6 + EXP_LIMIT
        assert error(half_life_warmup(start, end, t, steps), exact) <= limit * (1 + 1e-6)


def test_half_life_warmup_on_a_grid():
    """Upward, from every beta to every larger one over a million steps: the largest error is 6.7u."""
    pairs = [(a, b) for a in BETAS for b in BETAS if a < b <= 1 - 1e-12]
    times = [1, 2, 10, 1000, 123456, 500000, 999999]
    worst = max(error(half_life_warmup(a, b, t, 10**6), exact_gain(a, b, t, 10**6)) for a, b in pairs for t in times)
    assert 0 < worst <= 9


@pytest.mark.parametrize("off", [None, 0, 0.0])
def test_warmups_off(off):
    assert linear_warmup(0.1, 1, off) == 0.1
    assert half_life_warmup(0.9, 0.9999, 1, off) == 1 - 0.9999


# On 0-d arrays: the same limits in the dtype's own u, with 8u allowed for the library's logarithm (four units in the last place).

DTYPES = {"float32": 2.0**-24, "float64": 2.0**-53}
SOME_BETAS = [0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.999999]
SOME_COUNTS = [1, 2, 3, 10, 100, 1000, 10**5, 2**20]


def off_by(library, got, exact, dtype):
    assert str(getattr(got, "dtype", "float64")).endswith(dtype)  # NumPy's float64 scalars are Python floats
    assert getattr(got, "shape", ()) == ()
    return error(to_numpy(got), exact) * U / DTYPES[dtype]


def rounded(x, dtype):
    return float(np.asarray(x, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_power_complement_of_arrays(library, dtype):
    """A traced count, a traced beta, and both; a traced beta with a known count is squared, as on numbers."""
    for beta in (rounded(beta, dtype) for beta in SOME_BETAS):
        for t in SOME_COUNTS:
            exact, b, count = exact_power_complement(beta, t), library.array(beta, dtype), library.array(float(t), dtype)
            assert off_by(library, power_complement(beta, count), exact, dtype) <= EXP_LIMIT + 3
            assert off_by(library, power_complement(b, count), exact, dtype) <= EXP_LIMIT + 10
            assert off_by(library, power_complement(b, t), exact, dtype) <= 3 * t.bit_length() + 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_complement_of_arrays(library, dtype):
    for x in (rounded(x, dtype) for x in [0.0, 1e-30, 1e-6, 0.01, 0.3, 0.5, 1.0, 3.0, 10.0, 63.0, 64.0, 100.0, 1e30]):
        # the coefficients 1/k are numbers rounded to the dtype: one rounding, which the derivation counts
        assert off_by(library, exp_complement(library.array(x, dtype)), -mpmath.expm1(-mpmath.mpf(x)), dtype) <= EXP_LIMIT


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_of_arrays(library, dtype):
    for x in (rounded(x, dtype) for x in SOME_BETAS):
        assert off_by(library, log(library.array(x, dtype)), abs(mpmath.log(mpmath.mpf(x))) * -1, dtype) <= 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_warmup_of_arrays(library, dtype):
    end = rounded(8.1, dtype)
    for steps in (7, 1000):
        for t in (1, 2, 6, 7, 8, 999, 1000, 2**20):
            exact = end if t >= steps else mpmath.mpf(end) * t / steps
            count, last, top = (library.array(float(x), dtype) for x in (t, steps, end))
            for got in (linear_warmup(end, count, steps), linear_warmup(end, t, last), linear_warmup(top, count, last)):
                assert off_by(library, got, exact, dtype) <= (3 if t < steps else 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_half_life_warmup_of_arrays(library, dtype):
    """While it rises as above; from the end on the gain of the end value itself, rounded to the dtype."""
    for start, end in [(0.5, 0.9), (0.9, 0.999), (0.9, 0.9999), (0.99, 0.5), (0.9, 0.9)]:
        start, end = rounded(start, dtype), rounded(end, dtype)
        for t in (1, 2, 6, 7, 8, 1000):
            count, last, a, b = (library.array(float(x), dtype) for x in (t, 7, start, end))
            numbers, arrays = half_life_warmup(start, end, count, 7), half_life_warmup(a, b, count, last)
            if t >= 7:
                assert float(numbers) == float(arrays) == 1 - end
            else:
                exact, limit = exact_gain(start, end, t, 7), condition(start, end, t, 7) + 6 + EXP_LIMIT
                assert off_by(library, numbers, exact, dtype) <= limit + 2
                assert off_by(library, arrays, exact, dtype) <= limit + 2 * 8


def test_the_limits_can_fail():
    """One of the roundings that these functions avoid: 1 - beta**t in floating point."""
    assert error(1 - (1 - 1e-9) ** 3, exact_power_complement(1 - 1e-9, 3)) > 1e6
    assert error(1 - math.exp(-1e-9), -mpmath.expm1(-mpmath.mpf(1e-9))) > 1e6


def test_a_traced_start_of_zero_has_no_memory() -> None:
    """A decay that a compiler traces is an array, also where it is 0: its time constant is 0 as on the host."""
    for t in (1, 4, 9):
        traced = half_life_warmup(np.asarray(0.0), np.asarray(0.99), np.asarray(float(t)), 10)
        assert float(traced) == pytest.approx(half_life_warmup(0.0, 0.99, t, 10), rel=1e-12)
