"""Schedules against mpmath at 60 digits, with limits derived here, and against torch's and optax's where they are the same.

Relative errors are counted in u = 2**-53, to first order, as in ``test_scalars``.

* ``linear``: both shares carry 2u (steps - t and the quotient; the first is exact of integers), each product and their sum 1u
  more: 4u of the sum of the two terms' sizes.
* ``cosine``: the angle carries 4u (2u of the share, 1u of pi / 2, 1u of the product). The sine amplifies a relative error by at
  most 1; its series adds 1.5u, its product with the angle 1u: 6.5u, and 14u squared. The other weight, 1 minus one of at most 1/2,
  carries no more. Product and sum: 16u of the sum of the two terms' sizes.
* ``half_life``: the quotient moves the exponent by at most t/steps u, a factor of 0.7 of that; its fraction times ln 2 carries
  1.5u, ``exp_complement`` 22.5u, 1 minus that 1u, which a share of at least 1/2 does not amplify beyond 25u; product and sum 2u:
  27u and 0.7 t/steps u. The share of the end is 1 minus that of the start, with its absolute error.
"""

import math
import pickle
from importlib import import_module

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import xopt
from xopt import schedules
from xopt.conformance.faults import planting
from xopt.conformance.faults.fault import Edit, SuiteFault
from xopt.schedules import chained, constant, cosine, half_life, linear, warmup

U = mpmath.mpf(2) ** -53

ends = st.one_of(st.sampled_from([0.0, 1e-3, 1.0, -2.0, 0.1]), st.floats(-1e6, 1e6, allow_subnormal=False))
lengths = st.one_of(st.sampled_from([1, 2, 3, 7, 10, 1000, 2**31, 10**12]), st.integers(1, 10**6), st.floats(0.5, 1e6))
shares = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.floats(0, 1.5))


@pytest.fixture(autouse=True)
def digits():
    with mpmath.workdps(60):
        yield


def check_linear(module, start, end, steps, t):
    x = mpmath.mpf(min(t, steps)) / mpmath.mpf(steps)
    terms = start * (1 - x), end * x
    assert abs(module.linear(start, end, steps)(t) - sum(terms)) <= 4 * U * sum(map(abs, terms)) + 1e-320


def check_cosine(module, start, end, steps, t):
    x = mpmath.mpf(min(t, steps)) / mpmath.mpf(steps)
    terms = start * mpmath.cos(mpmath.pi * x / 2) ** 2, end * mpmath.sin(mpmath.pi * x / 2) ** 2
    assert abs(module.cosine(start, end, steps)(t) - sum(terms)) <= 16 * U * sum(map(abs, terms)) + 1e-100


def check_half_life(module, start, end, steps, t):
    lives = mpmath.mpf(t) / mpmath.mpf(steps)
    share = mpmath.mpf(2) ** -lives
    exact = start * share + end * (1 - share)
    limit = (27 + 0.7 * lives) * U * (abs(start) + abs(end)) * share + 2 * U * abs(end * (1 - share)) + 1e-320
    assert abs(module.half_life(start, steps, end)(t) - exact) <= limit


CURVES = {"linear": check_linear, "cosine": check_cosine, "half_life": check_half_life}


@pytest.mark.parametrize("name", CURVES)
@given(start=ends, end=ends, steps=lengths, share=shares, whole=st.booleans())
@example(start=1e-3, end=0.0, steps=10**6, share=1 - 1e-6, whole=True)
@example(start=1.0, end=0.0, steps=1, share=1000.5, whole=False)
@example(start=1.0, end=2.0, steps=3, share=1e-9, whole=False)
def test_a_curve_is_within_its_limit_and_between_its_ends(name, start, end, steps, share, whole):
    t = math.floor(share * steps) if whole else share * steps
    CURVES[name](schedules, start, end, steps, t)
    value = getattr(schedules, name)(start, *((steps, end) if name == "half_life" else (end, steps)))(t)
    assert type(value) is float
    assert min(start, end) <= value <= max(start, end)
    if name != "half_life" and t >= steps:
        assert value == end
    if t == 0:
        assert value == start


@given(peak=st.floats(1e-6, 1e3), steps=st.integers(0, 1000), after=st.integers(1, 1000), t=st.integers(0, 3000))
def test_a_warmup_leads_to_its_peak_and_on(peak, steps, after, t):
    then = cosine(peak, 0.0, after)
    schedule = warmup(then, steps)
    assert schedule(t) == (then(t - steps) if t >= steps else linear(0.0, peak, steps)(t))
    assert schedule(steps) == peak
    assert warmup(peak, steps)(t) == linear(0.0, peak, steps)(t)


def test_chained_schedules_count_from_where_they_begin():
    schedule = chained([0.1, linear(1.0, 2.0, 10), 0.01], [3, 8])
    assert [schedule(t) for t in (0, 2, 3, 5, 7, 8, 1000)] == [0.1, 0.1, 1.0, pytest.approx(1.2), pytest.approx(1.4), 0.01, 0.01]
    assert constant(0.5)(7) == 0.5
    assert linear(1.0, 2.0, 0)(0) == cosine(1.0, 2.0, 0)(0) == 2.0
    assert warmup(0.5, 0)(0) == 0.5


EVERY = [
    constant(0.25),
    linear(1.0, 0.1, 7),
    cosine(1e-3, 1e-5, 90),
    half_life(1.0, 10, 0.5),
    warmup(cosine(1e-3, 0.0, 50), 4),
    chained([0.1, half_life(1.0, 3), cosine(1.0, 2.0, 0)], [3, 60]),
]
COUNTS = (0, 1, 3, 4, 7, 54, 60, 100)
each = pytest.mark.parametrize("schedule", EVERY, ids=repr)


@each
def test_known_counts_of_every_kind_give_one_float(schedule):
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    for t in COUNTS:
        kinds = [float(t), np.int64(t), np.array(t), np.float32(t), torch.tensor(t), jax.numpy.asarray(t)]
        assert {schedule(kind) for kind in kinds} == {schedule(t)}
        assert type(schedule(np.array(t))) is float
    assert pickle.loads(pickle.dumps(schedule))(5) == schedule(5)


@each
def test_a_traced_count_gives_the_same_to_rounding(schedule):
    """2**-20 is far above the rounding of float32 in the ten operations or so, and below any other formula."""
    jax = pytest.importorskip("jax")
    traced, mapped = jax.jit(schedule), jax.vmap(lambda t: schedule(t) + 0.0 * t)
    for t, together in zip(COUNTS, mapped(jax.numpy.asarray(COUNTS)), strict=True):
        assert float(traced(t)) == pytest.approx(schedule(t), rel=2**-20, abs=1e-9)
        assert float(together) == pytest.approx(schedule(t), rel=2**-20, abs=1e-9)


def test_in_a_scan_and_under_torch_compile():
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    schedule = warmup(cosine(0.5, 0.0, 6), 3)

    def step(state, grad):
        return xopt.sgd_step(state, grad, lr=schedule(state.step + 1))

    state = xopt.sgd_init(np.zeros(1, np.float32))
    for _ in range(10):
        state = step(state, np.ones(1, np.float32))
    begun = xopt.sgd_init(jax.numpy.zeros(1))._replace(step=jax.numpy.int32(0))
    scanned, _ = jax.lax.scan(lambda s, g: (step(s, g), None), begun, jax.numpy.ones((10, 1)))
    assert float(scanned.params[0]) == pytest.approx(float(state.params[0]), rel=1e-6)
    torch._dynamo.reset()
    compiled, other = torch.compile(step, backend="aot_eager"), xopt.sgd_init(torch.zeros(1))
    for t in range(10):
        with torch._dynamo.config.patch(error_on_recompile=t > 2):
            other = compiled(other, torch.ones(1))
    assert other.params.numpy().tobytes() == state.params.tobytes()


@pytest.mark.parametrize("t", [0, 1, 3, 10, 25, 99, 100, 150])
def test_they_are_those_of_torch_and_optax(t):
    """At the same argument: torch's and optax's first step has the count 0, and xopt's t = 1."""
    optax = pytest.importorskip("optax")
    jax = import_module("jax")
    with jax.enable_x64(True):
        theirs = {
            linear(0.1, 0.01, 100): optax.linear_schedule(0.1, 0.01, 100),
            cosine(0.1, 0.01, 100): optax.cosine_decay_schedule(0.1, 100, alpha=0.1),
            half_life(0.1, 20): optax.exponential_decay(0.1, 20, 0.5),
            warmup(cosine(0.1, 0.01, 90), 10): optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100, 0.01),
            chained([0.1, 0.01], [30]): optax.piecewise_constant_schedule(0.1, {30: 0.1}),
            chained([linear(0.0, 1.0, 10), 0.5], [20]): optax.join_schedules(
                [optax.linear_schedule(0.0, 1.0, 10), lambda _: 0.5], [20]
            ),
        }
        for ours, other in theirs.items():
            assert float(other(jax.numpy.asarray(t))) == pytest.approx(ours(t), rel=1e-6), ours
    torch = pytest.importorskip("torch")
    schedulers = {
        linear(0.05, 0.1, 100): lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.5, 1.0, 100),
        cosine(0.1, 0.01, 100): lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100, 0.01),
        half_life(0.1, -1 / math.log2(0.97)): lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.97),
        chained([0.1, 0.01], [30]): lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [30]),
    }
    for ours, make in schedulers.items():
        if t > 100:
            continue  # torch's cosine rises again
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
        scheduler = make(optimizer)
        for _ in range(t):
            optimizer.step()
            scheduler.step()
        assert scheduler.get_last_lr()[0] == pytest.approx(ours(t), rel=1e-12), ours


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: linear(0, 1, -3), ValueError, r"linear: steps must be in \[0, inf\), got -3"),
        (lambda: cosine(math.inf, 1, 3), ValueError, r"cosine: start must be in \(-inf, inf\), got inf"),
        (lambda: half_life(1.0, 0), ValueError, r"half_life: steps must be in \(0, inf\), got 0"),
        (lambda: constant("1"), TypeError, "constant: value must be a number"),
        (lambda: warmup(lambda t: t, 3), TypeError, "warmup: peak must be a number or a schedule that xopt.schedules makes"),
        (lambda: chained([1.0, 2.0], [1, 2]), TypeError, "chained: boundaries must be one less than schedules"),
        (lambda: chained([1.0, 2.0, 3.0], [2, 2]), ValueError, r"chained: boundaries must grow, got \[2, 2\]"),
        (lambda: linear(0, 1, 3)(-1), ValueError, r"linear: t must be in \[0, inf\), got -1"),
        (lambda: linear(0, 1, 3)(math.nan), ValueError, "linear: t must be in"),
        (lambda: linear(0, 1, 3)(np.ones(2)), TypeError, "linear: t must be a number or a 0-d array, got an array of shape"),
        (lambda: linear(0, 1, 3)(True), TypeError, "linear: t must be a number or a 0-d array, got True"),
    ],
)
def test_what_is_wrong_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_a_traced_end_is_refused():
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match=r"^linear: end must be a number, .* which a compiler traces; make the schedule outside"):
        jax.jit(lambda x: linear(0.0, x, 3)(1))(1.0)


FAULTS = {
    ("linear", "counts from 1"): ("t = minimum(t, steps)\n", "t = minimum(t + 1, steps)\n"),
    ("linear", "weighs the ends the other way"): ("t, left, gone)", "t, gone, left)"),
    ("linear", "loses digits near its end"): ("return t / steps, (steps - t) / steps", "return t / steps, 1.0 - t / steps"),
    ("cosine", "a term of its series has another sign"): ("(-1.0) ** k / math.factorial", "1.0 / math.factorial"),
    ("cosine", "its series ends early"): ("range(8, -1, -1)", "range(6, -1, -1)"),
    ("cosine", "is a sine"): ("return sine * sine", "return sine"),
    ("cosine", "turns in the middle"): ("if gone < left else (small, 1.0 - small)", "if gone < left else (1.0 - small, small)"),
    ("half_life", "is a life"): ("LN2 = 0.6931471805599453", "LN2 = 1.0"),
    ("half_life", "forgets whole lives"): ("LN2), -whole)", "LN2), 0)"),
    ("half_life", "goes to 0"): ("_mean(start, end, share, 1.0 - share)", "_mean(start, 0.0, share, 1.0 - share)"),
}


@pytest.mark.parametrize(("name", "what"), FAULTS)
def test_faults_are_found(name, what):
    fault = SuiteFault(what, name, (Edit("schedules.py", *FAULTS[name, what]),))
    wrong = planting.private_copy({"xopt.schedules": planting.edited(fault, "xopt")["schedules.py"]}, "xopt.schedules")
    cases = [(1.0, 0.25, 10, t) for t in (1, 4, 7, 9)] + [(1e-3, 0.0, 10**7, 10**7 - 3), (0.0, 1.0, 7, 3), (1.0, 0.25, 10, 35)]
    for case in cases:
        CURVES[name](schedules, *case)
    with pytest.raises(AssertionError):
        [CURVES[name](wrong, *case) for case in cases]


def test_a_schedule_shows_what_it_is():
    assert repr(warmup(0.1, 3)) == "warmup(constant(0.1), 3.0)"
