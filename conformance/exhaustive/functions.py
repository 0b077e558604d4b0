"""How far off functions are that are not correctly rounded: what coefficients are computed by, on the host and in arrays.

Rules take neither powers nor logarithms of arrays, and coefficients neither from the C library: here is why, measured.
"""

import datetime
import math
import platform
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version as version_of
from typing import Any, NamedTuple

import numpy as np

from xopt import scalars
from xopt.backends.base import Backend
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS
from xopt.conformance.exhaustive.exact import ulps
from xopt.operations import namespace

STRIDE = 61
"""Of the float32 numbers each so many-th is taken: a prime, so that all patterns of the low bits come."""

ON_THE_HOST = 20_000
"""Arguments drawn for a function of Python numbers, which mpmath computes with 50 digits."""

IN_ARRAYS = 1 << 22
"""Arguments drawn for one of arrays."""

CHUNK = 1 << 20


class Measured(NamedTuple):
    """The largest error of one function by one library, of those that were seen."""

    function: str
    by: str  # what computes it, in words
    library: str
    version: str
    dtype: str  # of the result
    tried: int
    of: str  # what the arguments were
    ulps: float
    at: str
    date: str


def on_the_host() -> Iterator[Measured]:
    """Functions of Python numbers, in float64."""
    rng = np.random.default_rng(0)
    betas = (1.0 - 10.0 ** -rng.uniform(0.05, 7, ON_THE_HOST)).tolist()
    steps = np.exp(rng.uniform(0, math.log(1e6), ON_THE_HOST)).astype(int).tolist()
    sizes = (10.0 ** rng.uniform(-9, 1.5, ON_THE_HOST)).tolist()
    pairs = "beta from 0.1 to 1 - 1e-7, t from 1 to 10^6", list(zip(betas, steps, strict=True))
    one = "from 0.1 to 1 - 1e-7", [(beta,) for beta in betas]
    other = "from 1e-9 to 30", [(x,) for x in sizes]
    yield from _by_mpmath("1 - beta^t", *pairs, lambda _, beta, t: 1 - beta**t, _POWERS)
    yield from _by_mpmath("log(beta)", *one, lambda m, beta: m.log(beta), _LOGARITHMS)
    yield from _by_mpmath("1 - exp(-x)", *other, lambda m, x: -m.expm1(-x), _EXPONENTIALS)


_POWERS: dict[str, Callable[..., float]] = {
    "xopt, repeated squaring in complements": scalars.power_complement,
    "Python, -expm1(t * log(beta))": lambda beta, t: -math.expm1(t * math.log(beta)),
    "Python, 1 - beta**t": lambda beta, t: 1 - beta**t,
    "NumPy, 1 - power(beta, t)": lambda beta, t: float(1 - np.power(np.float64(beta), np.float64(t))),
}
_LOGARITHMS: dict[str, Callable[..., float]] = {
    "xopt, by decimal": scalars.log,
    "Python, log": math.log,
    "NumPy, log": lambda beta: float(np.log(np.float64(beta))),
}
_EXPONENTIALS: dict[str, Callable[..., float]] = {
    "xopt, a polynomial and squarings": scalars.exp_complement,
    "Python, -expm1(-x)": lambda x: -math.expm1(-x),
    "Python, 1 - exp(-x)": lambda x: 1 - math.exp(-x),
}


def _by_mpmath(
    function: str, of: str, arguments: list[Any], exactly: Callable[..., Any], computed: dict[str, Callable[..., float]]
) -> Iterator[Measured]:
    import mpmath

    with mpmath.workdps(50):
        exact = [exactly(mpmath.mp, *(mpmath.mpf(x) for x in own)) for own in arguments]
        for by, compute in computed.items():
            errors = [_ulps(compute(*own), true) for own, true in zip(arguments, exact, strict=True)]
            worst = max(range(len(errors)), key=errors.__getitem__)
            library, version = _versions()[by.partition(",")[0]]
            at = ", ".join(map(repr, arguments[worst]))
            yield Measured(function, by, library, version, "float64", len(errors), of, errors[worst], at, _today())


def _versions() -> dict[str, tuple[str, str]]:
    python = f"{platform.python_version()}, {' '.join(platform.libc_ver())}"
    return {"xopt": ("xopt", version_of("array-xopt")), "NumPy": ("numpy", np.__version__), "Python": ("python", python)}


def _ulps(got: float, true: Any) -> float:
    return float(abs(got - true)) / math.ulp(float(true))


def in_arrays(backend: Backend, compiled: bool) -> Iterator[Measured]:
    """Functions of float32 arrays, by a library op by op or by its compiler."""
    rng = np.random.default_rng(0)
    beta = 1.0 - 10.0 ** -rng.uniform(0.05, 6, IN_ARRAYS)
    t = np.floor(np.exp(rng.uniform(0, math.log(1e6), IN_ARRAYS)))
    near = beta.astype(np.float32).astype(np.float64)  # the beta that an array holds
    power, complement = near**t, -np.expm1(t * np.log(beta))
    drawn = "beta from 0.1 to 1 - 1e-6, t from 1 to 10^6"
    form = FLOAT_FORMATS["float32"]
    fine = power >= form.smallest_normal
    positive = np.arange(1 << 23, 0x7F80_0000, STRIDE).astype(np.uint32).view(np.float32)
    small = positive[(positive > 2.0**-26) & (positive < 87)]
    both = np.concatenate([small, -small])
    measured = partial(_measured, backend, compiled)
    yield measured("log(x)", lambda x: namespace(x).log(x), (positive,), np.log, _every("every normal x > 0"))
    yield measured("exp(x)", lambda x: namespace(x).exp(x), (both,), np.exp, _every("from 2^-26 to 87, of both signs"))
    arrays = near[fine].astype(np.float32), t[fine].astype(np.float32)
    yield measured("beta^t", lambda x, y: x**y, arrays, lambda *_: power[fine], drawn)
    arrays = beta.astype(np.float32), t.astype(np.float32)
    yield measured("1 - beta^t", lambda x, y: 1.0 - x**y, arrays, lambda *_: complement, f"{drawn}, beta rounded")


def _every(which: str) -> str:
    return f"{which}: each {STRIDE}st"


def _measured(
    backend: Backend,
    compiled: bool,
    function: str,
    compute: Callable[..., Any],
    operands: tuple[np.ndarray, ...],
    exactly: Callable[..., np.ndarray],
    of: str,
) -> Measured:
    """``exactly`` gets all operands in float64, whose own error, of a unit in its last place, is 2e-9 of one of float32."""
    run = (backend.trace(compute) if compiled else None) or compute
    exact = exactly(*(x.astype(np.float64) for x in operands))
    size = exact.size - exact.size % CHUNK or exact.size
    worst, at = -1.0, ""
    with backend.session(), np.errstate(all="ignore"):
        for start in range(0, size, CHUNK):  # whole chunks: a compiler compiles for one shape
            own = [x[start : start + CHUNK] for x in operands]
            got = backend.to_numpy(run(*(backend.asarray(x, "float32") for x in own))).astype(np.float64)
            true = exact[start : start + CHUNK]
            error = ulps(got, true, FLOAT_FORMATS["float32"])
            i = int(np.argmax(error))
            if error[i] > worst:
                worst, at = float(error[i]), ", ".join(repr(float(x[i])) for x in own)
    by = backend.tracer if compiled else backend.name
    return Measured(function, str(by), backend.name, backend.version, "float32", size, of, worst, at, _today())


def _today() -> str:
    return f"{datetime.date.today()}"
