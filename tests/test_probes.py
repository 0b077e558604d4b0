"""The probes find what they look for: in backends that are broken on purpose, and not in those that are not."""

import json
import math
import time
from fractions import Fraction

import numpy as np
import pytest

from xopt.backends import available, get
from xopt.backends._numpy import NumPyBackend
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS
from xopt.conformance.arithmetic.probes import HARD, PROBED, SAMPLES, Probes, nearest, probe, quotient, root, samples

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own

PRIMITIVES = ("add", "multiply", "divide", "sqrt")
RIGHT = dict.fromkeys(PRIMITIVES, 0.5)
DTYPES = ("float32", "float64")


class Faulty(np.ndarray):
    """Arrays whose results a subclass spoils: by ``spoil(name of the ufunc, operands, result)``."""

    def __array_ufunc__(self, ufunc, method, *inputs, **rest):
        plain = [x.view(np.ndarray) if isinstance(x, Faulty) else x for x in inputs]
        dtype = self.dtype
        result = np.asarray(self.spoil(ufunc, plain))
        return result.astype(dtype).view(type(self))

    def spoil(self, ufunc, x):
        return ufunc(*x)

    def __array_namespace__(self, api_version=None):
        return np


def backend_of(kind, **more):
    class Fake(NumPyBackend):
        def asarray(self, values, dtype):
            return super().asarray(values, dtype).view(kind)

        def to_numpy(self, x):
            return np.asarray(x).view(np.ndarray)

    for name, value in more.items():
        setattr(Fake, name, value)
    return Fake("cpu")


def one_ulp_up(op, often):
    """Every ``often``-th result of ``op`` is one unit too large."""

    class Off(Faulty):
        def spoil(self, ufunc, x):
            result = ufunc(*x)
            if ufunc.__name__ == op:
                result[-1::-often] = np.nextafter(result[-1::-often], np.asarray(np.inf, result.dtype))
            return result

    return backend_of(Off)


class FlushedResults(Faulty):
    def spoil(self, ufunc, x):
        result = ufunc(*x)
        return np.where(np.abs(result) < np.finfo(self.dtype).smallest_normal, 0, result)


class FlushedOperands(Faulty):
    def spoil(self, ufunc, x):
        return ufunc(*(np.where(np.abs(y) < np.finfo(self.dtype).smallest_normal, np.zeros_like(y), y) for y in x))


class ByReciprocal(Faulty):
    """Division by a number is multiplication by its reciprocal."""

    def spoil(self, ufunc, x):
        if ufunc is np.divide and not isinstance(x[1], np.ndarray):
            return x[0] * np.asarray(1.0 / x[1], self.dtype)
        return ufunc(*x)


def in_double(self, function):
    """A compiler that computes float32 in float64 and rounds at the end: x * y + z is rounded once."""

    def compiled(operands):
        wide = {d: {op: [np.asarray(x, np.float64) for x in xs] for op, xs in ops.items()} for d, ops in operands.items()}
        return {d: {op: x.astype(d) for op, x in ops.items()} for d, ops in function(wide).items()}

    return compiled


# What is right is found right.


@pytest.mark.parametrize("name", ["numpy", "array_api_strict"])
def test_nothing_is_wrong_with_numpy(name):
    if available()[name].reason:
        pytest.skip(available()[name].reason)
    found = probe(get(name))
    assert found.compiled == {}
    assert found.float64_is_real is True
    assert found.sign_keeps_nan
    for dtype in DTYPES:
        assert all(a.correct and a.fraction_wrong == 0 and a.max_ulp <= 0.5 for a in found.eager[dtype].operations.values())
        assert found.primitive_ulps(dtype, compiled=False) == found.primitive_ulps(dtype, compiled=True) == RIGHT
        assert not found.flushes(dtype, compiled=False)
        assert not found.eager[dtype].contracts
        assert found.explain(dtype, compiled=False) == []
    assert found.sentences()[:2] == [f"+ - * / and sqrt are correctly rounded in {dtype}" for dtype in DTYPES]


def test_a_faulty_backend_without_a_fault_is_found_right():
    """The stand-ins below are wrong for their fault only."""
    found = probe(backend_of(Faulty))
    assert found.eager == probe(get("numpy")).eager


# What is wrong is found wrong.


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", [*PRIMITIVES, "subtract"])
def test_one_result_in_a_hundred_off_by_one_ulp(op, dtype):
    found = probe(one_ulp_up(op, often=100))
    key = "add" if op == "subtract" else op
    assert 0.009 < found.eager[dtype].operations[op].fraction_wrong < 0.011
    assert 0.5 < found.eager[dtype].operations[op].max_ulp <= 1.5
    assert found.primitive_ulps(dtype, compiled=False) == RIGHT | {key: pytest.approx(1.5, abs=0.5)}
    sign = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "sqrt": "sqrt"}[op]
    (line,) = [line for line in found.sentences() if "not correctly rounded" in line and line.endswith("ulp") and dtype in line]
    assert line.startswith(f"{sign} is not correctly rounded in {dtype}: wrong for 1.0 % of inputs (a sample of 4099), by up to ")
    assert found.explain(dtype, compiled=False) == [line]
    assert found.explain(dtype, compiled=False, uses_sqrt=False) == ([] if op == "sqrt" else [line])


def test_results_that_are_wrong_in_hard_cases_alone():
    class Off(Faulty):
        def spoil(self, ufunc, x):
            result = ufunc(*x)
            if ufunc is np.sqrt:
                result[4:HARD:8] = np.nextafter(result[4:HARD:8], 0)
            return result

    found = probe(backend_of(Off))
    assert found.eager["float32"].operations["sqrt"].fraction_wrong == 0
    assert found.primitive_ulps("float32", compiled=False)["sqrt"] > 0.5
    assert any("sqrt is not correctly rounded in float32: wrong for a few hard cases, by up to " in x for x in found.sentences())


def test_flushed_results():
    found = probe(backend_of(FlushedResults))
    for dtype in DTYPES:
        assert (found.eager[dtype].flushes_results, found.eager[dtype].flushes_operands) == (True, False)
        assert found.flushes(dtype, compiled=False)
        assert found.primitive_ulps(dtype, compiled=False) == RIGHT, "normal results are right"
        assert f"subnormal results are flushed to zero in {dtype}" in found.sentences()


def test_flushed_differences_alone():
    class Flushed(FlushedResults):
        def spoil(self, ufunc, x):
            return super().spoil(ufunc, x) if ufunc is np.subtract else ufunc(*x)

    assert probe(backend_of(Flushed)).flushes("float32", compiled=False)


def test_flushed_operands():
    found = probe(backend_of(FlushedOperands))
    for dtype in DTYPES:
        assert (found.eager[dtype].flushes_results, found.eager[dtype].flushes_operands) == (False, True)
        assert found.flushes(dtype, compiled=False)


def test_contraction_by_a_compiler():
    found = probe(backend_of(np.ndarray, trace=in_double, tracer="double"))
    assert not found.eager["float32"].contracts
    assert found.compiled["float32"].contracts
    assert not found.compiled["float64"].contracts
    assert found.primitive_ulps("float32", compiled=True) == RIGHT, "rounding twice is harmless with so many digits"
    assert found.explain("float32", compiled=True) == ["x * y + z is contracted to one rounding in float32 by double"]
    assert found.explain("float32", compiled=False) == []


@pytest.mark.parametrize("alone", ["multiply_add", "difference_of_products"])
def test_contraction_of_one_form_alone(alone):
    def trace(self, function):
        def compiled(operands):
            results = function(operands)
            x, y, z, *w = (np.asarray(a, np.float64) for a in operands["float32"][alone])
            other = -(z * w[0]).astype(np.float32) if w else z
            results["float32"][alone] = (x * y + other).astype(np.float32)  # the product of float32 numbers is exact in float64
            return results

        return compiled

    assert probe(backend_of(np.ndarray, trace=trace, tracer="fma")).compiled["float32"].contracts


def test_the_compiler_can_be_left_out():
    found = probe(backend_of(np.ndarray, trace=lambda *_: pytest.fail("compiled"), tracer="double"), compiled=False)
    assert found.compiled == {}


def test_division_by_a_number_as_multiplication():
    found = probe(backend_of(ByReciprocal))
    for dtype in DTYPES:
        assert 0.2 < found.eager[dtype].operations["divide_by_number"].fraction_wrong < 0.5
        assert found.eager[dtype].operations["divide_number"].correct
        assert found.primitive_ulps(dtype, compiled=False) == RIGHT, "no rule does it"
        assert any(line.startswith(f"x / 3.0 is not the correctly rounded quotient in {dtype}") for line in found.sentences())


def test_results_that_are_no_numbers_are_all_digits_wrong():
    class Nowhere(Faulty):
        def spoil(self, ufunc, x):
            return ufunc(*x) * (np.nan if ufunc is np.sqrt else 1)

    found = probe(backend_of(Nowhere))
    assert found.eager["float32"].operations["sqrt"].max_ulp == 2.0**24
    assert found.eager["float32"].operations["sqrt"].fraction_wrong == 1


def test_float64_that_is_float32():
    def asarray(self, values, dtype):
        return np.asarray(values, np.float32)

    assert probe(backend_of(np.ndarray, asarray=asarray)).float64_is_real is False
    assert probe(backend_of(np.ndarray, dtypes=lambda _: ("float32",))).float64_is_real is None


def test_a_sign_that_loses_nan():
    class ZeroSign(Faulty):
        def spoil(self, ufunc, x):
            return np.nan_to_num(ufunc(*x), posinf=np.inf, neginf=-np.inf) if ufunc is np.sign else ufunc(*x)

    found = probe(backend_of(ZeroSign))
    assert not found.sign_keeps_nan
    assert any("sign(NaN) is a number" in line for line in found.sentences())


# The libraries here.


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("torch")
    return probe(get("torch"))


@pytest.fixture(scope="module")
def jax():
    pytest.importorskip("jax")
    return probe(get("jax"))


def test_torch(torch):
    """What holds on every CPU; how often its square root is wrong depends on the CPU's vendor."""
    for dtype in DTYPES:
        for arithmetic in (torch.eager[dtype], torch.compiled[dtype]):
            assert all(arithmetic.operations[op].correct for op in ("add", "subtract", "multiply", "divide"))
            assert arithmetic.operations["sqrt"].max_ulp < 1
            assert not arithmetic.flushes
            assert not arithmetic.contracts
    assert torch.sign_keeps_nan
    assert not torch.native_sign_keeps_nan


def test_jax(jax):
    assert jax.float64_is_real
    for dtype in DTYPES:
        assert jax.primitive_ulps(dtype, compiled=False) == RIGHT
        assert jax.flushes(dtype, compiled=False)
        assert jax.flushes(dtype, compiled=True)
        assert not jax.eager[dtype].contracts


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_findings_survive_json(name, request):
    found = request.getfixturevalue(name)
    assert Probes.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


def test_what_was_not_probed_claims_nothing(jax):
    assert jax.primitive_ulps("bfloat16", compiled=False) == {}
    assert not jax.flushes("bfloat16", compiled=True)
    assert jax.explain("bfloat16", compiled=True) == []


@pytest.mark.parametrize("name", ["numpy", "array_api_strict", "jax"])
def test_probing_takes_seconds_at_most(name):
    """It takes one on a free machine, and torch.compile some more."""
    if available()[name].reason:
        pytest.skip(available()[name].reason)
    started = time.monotonic()
    probe(get(name))
    assert time.monotonic() - started < 10


# The cases.


@pytest.mark.parametrize("dtype", DTYPES)
def test_expected_results_are_exact_by_rational_arithmetic(dtype):
    """A second way to the same results: that of Fraction, for a quarter of the sample."""
    digits, emin = FLOAT_FORMATS[dtype].digits, FLOAT_FORMATS[dtype].emin
    operations = {
        "add": lambda x, y: x + y,
        "subtract": lambda x, y: x - y,
        "multiply": lambda x, y: x * y,
        "divide": lambda x, y: x / y,
        "divide_by_number": lambda x: x / 3,
        "divide_number": lambda x: 3 / x,
    }
    for op, exactly in operations.items():
        case = samples(dtype)[op]
        for i in range(0, SAMPLES, 4 if op == "divide" else 7):
            true = exactly(*(Fraction(float(x[i])) for x in case.operands))
            got = Fraction(float(case.expected[i]))
            ulp = Fraction(float(case.ulp[i]))
            assert ulp * 2 ** (digits - 1) <= abs(true) < ulp * 2**digits or true == 0, (op, i)
            assert abs(true - got) <= ulp / 2, (op, i)
            assert float((true - got) / ulp) == pytest.approx(case.beyond[i], abs=2.0**-14), (op, i)
            if abs(true - got) == ulp / 2:
                assert (got / ulp) % 2 == 0, (op, i)
            assert got == 0 or abs(got) >= Fraction(2) ** emin, "results are normal"


@pytest.mark.parametrize("dtype", DTYPES)
def test_expected_roots_are_exact(dtype):
    """sqrt(x) is within half a unit of y where (y - u/2)**2 <= x <= (y + u/2)**2."""
    case = samples(dtype)["sqrt"]
    for x, y in zip(case.operands[0][::3], case.expected[::3], strict=True):
        ulp = Fraction(float(np.spacing(np.asarray(y, dtype))))
        assert (Fraction(float(y)) - ulp / 2) ** 2 <= Fraction(float(x)) <= (Fraction(float(y)) + ulp / 2) ** 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_hard_cases_are_hard(dtype):
    """Among the results are ties, exact ones, and quotients and roots much closer to halfway than random ones come."""
    form = FLOAT_FORMATS[dtype]
    digits, emin, emax = form.digits, form.emin, form.emax
    found = samples(dtype)
    assert set(found) == set(PROBED)
    for op, case in found.items():
        for x in (*case.operands, case.expected):
            assert x.shape == (SAMPLES,)
            assert (x.astype(dtype).astype(float) == x).all(), f"{op}: of the dtype"
    assert (np.abs(found["add"].beyond) == 0.5).any()
    assert (np.abs(found["multiply"].beyond) == 0.5).any()
    assert (np.abs(np.frexp(found["divide"].expected)[0]) == 0.5).sum() > 50
    for op in ("divide", "sqrt"):
        near = 0.5 - np.abs(found[op].beyond)
        assert (near[4:HARD:4] <= 2.0 ** {"divide": -digits, "sqrt": 8 - digits}[op]).all(), op
        assert np.median(near[HARD:]) > 0.1
    for op in ("multiply", "divide"):
        exponents = np.frexp(found[op].expected)[1]
        assert exponents.min() < emin + 5, "the whole range of normal results"
        assert exponents.max() > emax - 5
    assert (np.abs(found["multiply"].beyond) <= 0.5).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_contraction_would_show_in_most_elements(dtype):
    for op, sign in (("multiply_add", 1), ("difference_of_products", -1)):
        case = samples(dtype)[op]
        x, y, z, w = (*case.operands, np.ones(SAMPLES))[:4]
        product = [Fraction(a) * Fraction(b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
        rounded = samples(dtype)["multiply_add"].operands[2].tolist()
        assert [p + Fraction(r) for p, r in zip(product, rounded, strict=True)] == [Fraction(lost) for lost in case.beyond.tolist()]
        assert (x * y).astype(dtype).tolist() == (sign * -1 * (z * w)).astype(dtype).tolist()
        assert np.mean(case.beyond != 0) > 0.9


def test_nearest_rounds_ties_to_even():
    assert nearest(0b1011, 0, 3) == (12.0, -0.5, 2.0)
    assert nearest(0b1001, 0, 3) == (8.0, 0.5, 2.0)
    assert nearest(-0b1011, 0, 3) == (-12.0, 0.5, 2.0)
    assert nearest(0b1111, 0, 3) == (16.0, -0.5, 2.0)
    assert nearest(5, 1, 3) == (10.0, 0.0, 2.0)
    assert nearest(1, 0, 3) == (1.0, 0.0, 0.25)
    assert nearest(0, 0, 3) == (0.0, 0.0, 1.0)


def test_quotient_and_root_show_what_follows_their_last_digit():
    assert Fraction(quotient((6, 0), (3, 0))[0]) * Fraction(2) ** quotient((6, 0), (3, 0))[1] == 2
    assert quotient((1, 0), (3, 0))[0] % 2 == 1
    assert quotient((-1, 0), (3, 0))[0] == -quotient((1, 0), (3, 0))[0]
    assert math.ldexp(*root((2, 1))) == 2.0
    assert root((2, 0))[0] % 2 == 1
