"""What a backend's arithmetic really does, measured: correct rounding, subnormals, contraction, signs.

Every operation runs on thousands of operands whose correctly rounded results are known from integer arithmetic, not from another
array library: near-halfway cases, powers of two, x / x, and random ones over the whole range of normal results.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from xopt.backends.base import Backend
from xopt.conformance.arithmetic.formats import ARITHMETICS, FLOAT_FORMATS
from xopt.operations import sqrt

RANDOM = 4096 + 3  # vectorised kernels also have a tail
HARD = 1024  # before them
SAMPLES = HARD + RANDOM
NUMBER = 3.0  # the Python number that arrays are divided by, and that is divided by arrays

PROBED: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "sqrt": sqrt,
    "divide_by_number": lambda x: x / NUMBER,
    "divide_number": lambda x: NUMBER / x,
    "multiply_add": lambda x, y, z: x * y + z,
    "difference_of_products": lambda x, y, z, w: x * y - z * w,
    "subnormal_product": lambda x, y: x * y,
    "subnormal_difference": lambda x, y: x - y,
    "subnormal_operand": lambda x, y: x * y,
}
"""What is run, as rules run it; only that a rule never divides array and number."""

SHOWN = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "sqrt": "sqrt"}


@dataclass(frozen=True)
class Accuracy:
    """How well one operation is rounded."""

    correct: bool  # all results are the correctly rounded ones
    fraction_wrong: float  # how many of the random operands alone have results that are not
    max_ulp: float  # largest error, in units in the last place of the exact result; at most 0.5 where all are correct


@dataclass(frozen=True)
class MeasuredArithmetic:
    """The arithmetic of one dtype, op by op or compiled."""

    operations: dict[str, Accuracy]  # add, subtract, multiply, divide, sqrt; divide_by_number (x / 3.0), divide_number (3.0 / x)
    contracts: bool  # x * y + z or x * y - z * w is rounded fewer times than it is written
    flushes_results: bool  # a result that is subnormal becomes 0
    flushes_operands: bool  # an operand that is subnormal counts as 0

    @property
    def flushes(self) -> bool:
        return self.flushes_results or self.flushes_operands


@dataclass(frozen=True)
class Probes:
    """What the probes found of one backend on one device."""

    name: str  # the backend
    device: str
    tracer: str | None  # its compiler, such as jax.jit
    eager: dict[str, MeasuredArithmetic]  # for float32 and float64, where the backend has them
    compiled: dict[str, MeasuredArithmetic]  # the same through its compiler; empty where it has none
    float64_is_real: bool | None  # a float64 array keeps all 53 digits; None where the backend has no float64
    sign_keeps_nan: bool  # sign(NaN) is NaN, by array-api-compat
    native_sign_keeps_nan: bool  # by the library's own function
    sign_keeps_minus_zero: bool  # sign(-0.0) is -0.0, by array-api-compat

    def arithmetic(self, dtype: str, compiled: bool) -> MeasuredArithmetic | None:
        """What was found of a dtype. Where there is no compiler, its results are the eager ones. None where it was not probed."""
        return (self.compiled if compiled and self.compiled else self.eager).get(dtype)

    def primitive_ulps(self, dtype: str, compiled: bool) -> dict[str, float]:
        """The error to allow for add (and subtract), multiply, divide and sqrt, in ulps.

        0.5 where every result was correctly rounded. Otherwise the largest error of the sample, rounded up to whole ulps: a sample
        hardly contains the worst case, and an operation that returns one of the two neighbours is within 1.
        """
        found = self.arithmetic(dtype, compiled)
        if found is None:
            return {}
        ulps = {name: 0.5 if a.correct else float(math.ceil(a.max_ulp)) for name, a in found.operations.items()}
        return {"add": max(ulps["add"], ulps["subtract"]), **{name: ulps[name] for name in ("multiply", "divide", "sqrt")}}

    def flushes(self, dtype: str, compiled: bool) -> bool:
        """Whether subnormal results or operands become 0."""
        found = self.arithmetic(dtype, compiled)
        return found is not None and found.flushes

    def explain(self, dtype: str, compiled: bool, uses_sqrt: bool = True) -> list[str]:
        """Why a rule, which never divides array and number, may differ from NumPy's bits. Empty where nothing is known."""
        found = self.arithmetic(dtype, compiled)
        by = f" by {self.tracer}" if compiled and self.compiled else ""
        skip = () if uses_sqrt else ("sqrt",)
        return (
            []
            if found is None
            else [*_contraction(found, dtype, by), *_rounding(found, dtype, by, skip), *_flush(found, dtype, by)]
        )

    def sentences(self) -> list[str]:
        """The findings, a line each."""
        lines = []
        for found, by in ((self.eager, ""), (self.compiled, f" by {self.tracer}")):
            for dtype, a in found.items():
                wrong = _rounding(a, dtype, by)
                lines += wrong or [f"+ - * / and sqrt are correctly rounded in {dtype}{by}"]
                lines += [*_contraction(a, dtype, by), *_number(a, dtype, by), *_flush(a, dtype, by)]
        if self.float64_is_real is False:
            lines.append("a float64 array does not keep 53 digits")
        nan, native = ("NaN" if kept else "a number" for kept in (self.sign_keeps_nan, self.native_sign_keeps_nan))
        own = "" if nan == native else f" ({native} by the library's own function)"
        return [*lines, f"sign(NaN) is {nan}{own}, sign(-0.0) is {'-0.0' if self.sign_keeps_minus_zero else '0.0'}"]

    def to_dict(self) -> dict[str, Any]:
        """As dicts of finite numbers, strings and bools."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "Probes":
        """What ``to_dict`` gave."""

        def arithmetic(x: dict[str, Any]) -> MeasuredArithmetic:
            return MeasuredArithmetic(**x | {"operations": {name: Accuracy(**a) for name, a in x["operations"].items()}})

        modes = {mode: {dtype: arithmetic(x) for dtype, x in found[mode].items()} for mode in ("eager", "compiled")}
        return cls(**found | modes)


def _rounding(a: MeasuredArithmetic, dtype: str, by: str, skip: Sequence[str] = ()) -> list[str]:
    return [
        f"{shown} is not correctly rounded in {dtype}{by}: {_wrong(a.operations[name])}"
        for name, shown in SHOWN.items()
        if not a.operations[name].correct and name not in skip
    ]


def _number(a: MeasuredArithmetic, dtype: str, by: str) -> list[str]:
    return [
        f"{shown} is not the correctly rounded quotient in {dtype}{by}: {_wrong(a.operations[name])}"
        for name, shown in (("divide_by_number", f"x / {NUMBER}"), ("divide_number", f"{NUMBER} / x"))
        if not a.operations[name].correct
    ]


def _wrong(found: Accuracy) -> str:
    often = f"{100 * found.fraction_wrong:.1f} % of inputs (a sample of {RANDOM})" if found.fraction_wrong else "a few hard cases"
    return f"wrong for {often}, by up to {found.max_ulp:.2f} ulp"


def _contraction(a: MeasuredArithmetic, dtype: str, by: str) -> list[str]:
    return [f"x * y + z is contracted to one rounding in {dtype}{by}"] if a.contracts else []


def _flush(a: MeasuredArithmetic, dtype: str, by: str) -> list[str]:
    what = [name for name, flushed in (("results", a.flushes_results), ("operands", a.flushes_operands)) if flushed]
    return [f"subnormal {' and '.join(what)} are flushed to zero in {dtype}{by}"] if what else []


def probe(backend: Backend, compiled: bool = True) -> Probes:
    """Measures a backend.

    Parameters
    ----------
    backend
        From ``xopt.backends.get``.
    compiled
        Whether to measure its compiler too, where it has one.

    Returns
    -------
    Probes
    """
    with backend.session(), np.errstate(all="ignore"):
        dtypes: list[str] = [dtype for dtype in ARITHMETICS if dtype in backend.dtypes()]
        operands = {d: {op: [backend.asarray(x, d) for x in c.operands] for op, c in samples(d).items()} for d in dtypes}

        def work(operands: dict[str, dict[str, list[Any]]]) -> dict[str, dict[str, Any]]:
            return {d: {op: PROBED[op](*x) for op, x in ops.items()} for d, ops in operands.items()}

        traced = backend.trace(work) if compiled else None
        return Probes(
            backend.name,
            backend.device,
            backend.tracer,
            _judged(backend, work(operands)),
            {} if traced is None else _judged(backend, traced(operands)),
            _keeps_float64(backend) if "float64" in dtypes else None,
            bool(np.isnan(_sign(backend, backend.xp, math.nan))),
            bool(np.isnan(_sign(backend, backend.functions, math.nan))),
            bool(np.signbit(_sign(backend, backend.xp, -0.0))),
        )


def _sign(backend: Backend, xp: Any, value: float) -> Any:
    return backend.to_numpy(xp.sign(backend.asarray([value], backend.plain_dtype)))[0]


def _keeps_float64(backend: Backend) -> bool:
    x = backend.to_numpy(backend.asarray([1.0 + 2.0**-52], "float64"))
    return x.dtype == np.float64 and float(x[0]) == 1.0 + 2.0**-52


def _judged(backend: Backend, results: dict[str, dict[str, Any]]) -> dict[str, MeasuredArithmetic]:
    return {dtype: _judge(dtype, {op: backend.to_numpy(x) for op, x in found.items()}) for dtype, found in results.items()}


def _judge(dtype: str, results: dict[str, np.ndarray]) -> MeasuredArithmetic:
    wrong = {op: results[op] != case.expected for op, case in samples(dtype).items()}
    zero = {op: wrong[op] & (results[op] == 0) for op in wrong}
    once = {op: wrong[op] & (np.abs(results[op]) == np.abs(case.beyond)) for op, case in samples(dtype).items()}
    return MeasuredArithmetic(
        {op: _accuracy(dtype, results[op], samples(dtype)[op]) for op in (*SHOWN, "divide_by_number", "divide_number")},
        bool(once["multiply_add"].any() or once["difference_of_products"].any()),
        bool(zero["subnormal_product"].any() or zero["subnormal_difference"].any()),
        bool(zero["subnormal_operand"].any()),
    )


def _accuracy(dtype: str, got: np.ndarray, case: "Sample") -> Accuracy:
    error = np.abs((got.astype(np.float64) - case.expected) / case.ulp - case.beyond)
    all_digits = 2.0 ** FLOAT_FORMATS[dtype].digits  # no error counts for more, an infinity or NaN neither
    wrong = got != case.expected
    return Accuracy(
        not bool(wrong.any()), float(np.mean(wrong[HARD:])), float(np.max(np.where(error <= all_digits, error, all_digits)))
    )


# The samples. A dyadic number is (m, e), the integer m times 2**e.


Dyadic = tuple[int, int]


class Sample(NamedTuple):
    """Operands of one operation and its results, as float64 arrays."""

    operands: tuple[np.ndarray, ...]
    expected: np.ndarray  # correctly rounded
    beyond: np.ndarray  # how far the exact result is beyond that, in ulps
    ulp: np.ndarray  # a unit in the last place of the exact result


@cache
def samples(dtype: str) -> dict[str, Sample]:
    """For each operation, what to run it on and what must come out; the same on every machine."""
    form = FLOAT_FORMATS[dtype]
    digits, emin, emax = form.digits, form.emin, form.emax
    rng = np.random.default_rng(0)

    def mantissas() -> np.ndarray:
        m = rng.integers(1 << (digits - 1), 1 << digits, SAMPLES)
        m[0:HARD:8] = 1 << (digits - 1)  # a power of two
        m[1:HARD:8] = (1 << digits) - 1  # just below one
        m[2:HARD:8] &= -(1 << (digits // 2 - 1))  # few digits: exact results and ties
        return m

    def signed(m: np.ndarray) -> Any:
        return m * rng.choice([-1, 1], SAMPLES)

    def exponents(low: Any, high: Any) -> np.ndarray:
        """Of the leading digit."""
        return rng.integers(low, high, SAMPLES, endpoint=True)

    def numbers(m: np.ndarray, e: np.ndarray) -> list[Dyadic]:
        return list(zip(m.tolist(), (e - (digits - 1)).tolist(), strict=True))

    def sample(exact: Callable[..., Dyadic], *operands: list[Dyadic]) -> Sample:
        results = [nearest(*exact(*x), digits) for x in zip(*operands, strict=True)]
        return Sample(tuple(map(_floats, operands)), *map(np.asarray, zip(*results, strict=True)))

    # The sum of numbers that lose no digit below the smallest normal number, however much cancels.
    low, high = emin + digits, emax - 1
    e = exponents(low, high)
    x = numbers(signed(mantissas()), e)
    y = numbers(signed(mantissas()), np.clip(e + exponents(-digits - 2, digits + 2), low, high))
    found = {"add": sample(total, x, y), "subtract": sample(difference, x, y)}

    e = exponents(emin, emax - 1)  # of the result, or one less
    ex = exponents(np.maximum(emin, e - emax), np.minimum(emax, e - emin))
    found["multiply"] = sample(product, numbers(signed(mantissas()), ex), numbers(signed(mantissas()), e - ex))

    e = exponents(emin + 1, emax)  # of the result, or one more
    ex = exponents(np.maximum(emin, emin + e), np.minimum(emax, emax + e))
    mx, my = mantissas(), mantissas()
    mx[3:HARD:8] = my[3:HARD:8]  # 1
    for i in range(4, HARD, 4):
        my[i] |= 1
        mx[i] = hard_dividend(int(my[i]), digits)
    found["divide"] = sample(quotient, numbers(signed(mx), ex), numbers(signed(my), ex - e))

    x = numbers(mantissas(), exponents(emin + 2, emax))
    for i in range(4, HARD, 4):
        square, even = hard_square(2 * i - 1023, digits)
        x[i] = square, x[i][1] - ((x[i][1] - even) & 1)
    found["sqrt"] = sample(root, x)

    x = numbers(signed(mantissas()), exponents(emin + 2, emax - 2))
    found["divide_by_number"] = sample(lambda a: quotient(a, (int(NUMBER), 0)), x)
    found["divide_number"] = sample(lambda a: quotient((int(NUMBER), 0), a), x)

    # With every product rounded x*y - fl(x*y) is 0, and so is x*y - y*x. Contracted they are what the product loses by rounding.
    x, y = (numbers(rng.integers(1 << (digits - 1), 1 << digits, SAMPLES) | 1, exponents(-4, 4)) for _ in range(2))
    xy = sample(product, x, y)
    zero, one, lost = np.zeros(SAMPLES), np.ones(SAMPLES), xy.beyond * xy.ulp
    found["multiply_add"] = Sample((*xy.operands, -xy.expected), zero, lost, one)
    found["difference_of_products"] = Sample((*xy.operands, *xy.operands[::-1]), zero, lost, one)

    # Exact all three.
    m = signed(mantissas() & -2)
    smallest = 2.0**emin
    subnormal = np.ldexp(m.astype(np.float64), emin - digits)  # half of a normal number in the lowest binade
    big = np.full(SAMPLES, 2.0 ** (digits + 2))
    found["subnormal_product"] = Sample((2 * subnormal, np.full(SAMPLES, 0.5)), subnormal, zero, one)
    found["subnormal_difference"] = Sample(
        (subnormal + np.copysign(smallest, subnormal), np.copysign(smallest, subnormal)), subnormal, zero, one
    )
    found["subnormal_operand"] = Sample((subnormal, big), subnormal * big, zero, one)
    return found


def nearest(m: int, e: int, digits: int) -> tuple[float, float, float]:
    """m * 2**e rounded to nearest even in so many digits; how far the exact number is beyond that, in ulps; and its ulp."""
    drop = abs(m).bit_length() - digits
    if drop <= 0:
        return math.ldexp(m, e), 0.0, math.ldexp(1, e + drop if m else e)
    kept, rest = divmod(m, 1 << drop)
    half = 1 << (drop - 1)
    kept += rest > half or (rest == half and kept & 1)
    return math.ldexp(kept, e + drop), (m - (kept << drop)) / (1 << drop), math.ldexp(1, e + drop)


def total(a: Dyadic, b: Dyadic) -> Dyadic:
    e = min(a[1], b[1])
    return (a[0] << (a[1] - e)) + (b[0] << (b[1] - e)), e


def difference(a: Dyadic, b: Dyadic) -> Dyadic:
    return total(a, (-b[0], b[1]))


def product(a: Dyadic, b: Dyadic) -> Dyadic:
    return a[0] * b[0], a[1] + b[1]


def quotient(a: Dyadic, b: Dyadic) -> Dyadic:
    """Exact but for the last digit, a 1 that stands for all that follow: far too low to be taken for a tie or for exact."""
    sign = -1 if b[0] < 0 else 1
    q, rest = divmod(sign * a[0] << 120, abs(b[0]))
    return 2 * q + (rest != 0), a[1] - b[1] - 121


def root(a: Dyadic) -> Dyadic:
    """The square root, with a last digit like that of ``quotient``."""
    shift = 160 + (a[1] & 1)
    q = math.isqrt(a[0] << shift)
    return 2 * q + (q * q != a[0] << shift), (a[1] - shift) // 2 - 1


def hard_dividend(m: int, digits: int) -> int:
    """What divided by the odd ``m`` is closest to halfway between two numbers: halfway * m = a * modulus + 1 or - 1."""
    modulus = 2 << digits
    halfway = pow(m, -1, modulus)
    halfway = max(halfway, modulus - halfway)
    a = (halfway * m + 1) // modulus
    return a << (digits - a.bit_length())


def hard_square(rest: int, digits: int) -> Dyadic:
    """What is so close to the square of a number halfway between two: halfway**2 - rest. ``rest`` is 1 modulo 8."""
    halfway = 1
    for i in range(3, digits + 2):  # halfway**2 = rest modulo 2**i
        if (halfway * halfway - rest) >> i & 1:
            halfway += 1 << (i - 1)
    halfway = max(halfway, (2 << digits) - halfway)
    return (halfway * halfway - rest) >> (digits + 2), digits + 2


def _floats(numbers: Sequence[Dyadic]) -> np.ndarray:
    return np.asarray([math.ldexp(m, e) for m, e in numbers])
