"""Who checks the golden reference: exact fractions, sixty digits, closed forms, published values, and the rules themselves."""

import ast
import inspect
import math
import random
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import xopt
from xopt.conformance.arithmetic.bounded import Bounded, BoundedArithmetic, inflate
from xopt.conformance.arithmetic.numbers import ARRAYS, EXACT, FLOAT, Arithmetic, multiprecision
from xopt.conformance.golden import GOLDENS, Golden, ademamix, lift, nadam, start
from xopt.scalars import half_life_warmup, linear_warmup

MP = multiprecision(60)
number = MP.number
STEPS = 12
RATIONAL = ("sgd", "momentum", "nesterov", "qhm", "aggmo", "lion")

HYPER: dict[str, list[dict[str, Any]]] = {
    "sgd": [{"lr": 0.1, "weight_decay": 0.01}],
    "momentum": [{"lr": 0.1, "beta": 0.9, "weight_decay": 0.01}, {"lr": 0.1, "beta": 0.0}],
    "nesterov": [{"lr": 0.1, "beta": 0.9, "weight_decay": 0.01}, {"lr": 0.1, "beta": 0.0}],
    "qhm": [{"lr": 0.1, "beta": -0.5, "nu": 1.3, "weight_decay": 0.01}, {"nu": 0.0}, {"beta": 0.0}],
    "aggmo": [{"lr": 0.1, "betas": (0.0, 0.5, 0.9, 0.9), "weight_decay": 0.01}, {"betas": (0.3,)}],
    "adam": [{"lr": 0.1, "beta1": 0.5, "beta2": 0.7, "eps": 0.1}, {"eps": 0.0}, {"beta1": 0.0}, {"beta2": 0.0}, {"eps_root": 0.1}],
    "adamw": [
        {"lr": 0.1, "beta1": 0.5, "beta2": 0.7, "eps": 0.1, "weight_decay": 0.3},
        {"eps": 0.0, "weight_decay": 0.0},
        {"eps_root": 0.1},
    ],
    "nadam": [
        {"lr": 0.1, "beta1": 0.5, "beta2": 0.7, "eps": 0.1, "psi": 1.0, "weight_decay": 0.3},
        {"psi": 0.0},
        {"beta1": 0.0},
        {"eps_root": 0.1},
    ],
    "qhadam": [
        {"nu1": 1.5, "nu2": 0.3, "eps": 0.1, "weight_decay": 0.3},
        {"nu2": 0.0},
        {"beta1": 0.0, "nu1": 0.0},
        {"nu2": 0.5, "eps_root": 0.1},
    ],
    "lion": [{"lr": 0.1, "beta1": 0.5, "beta2": 0.7, "weight_decay": 0.3}, {"beta1": 0.0}, {"beta2": 0.0}],
    "ademamix": [
        {"alpha_warmup": 7, "beta3_warmup": 9, "weight_decay": 0.3},
        {"alpha_warmup": 2.5, "beta3_warmup": 3.5, "eps": 0.1, "eps_root": 0.1},
        {"beta1": 0.0, "beta3_warmup": 20},
        {"beta3": 0.0, "beta3_warmup": 20},
        {"beta1": 0.0, "beta3": 0.0, "beta3_warmup": 20},
        {"beta1": 0.9, "beta3": 0.5, "beta3_warmup": 20, "eps": 0.0},
    ],
}
CASES = [pytest.param(name, changes, id=f"{name}-{i}") for name in HYPER for i, changes in enumerate([{}, *HYPER[name]])]

rules = pytest.mark.parametrize("name", GOLDENS)
cases = pytest.mark.parametrize(("name", "changes"), CASES)


def hyper_of(name: str, **changes: Any) -> dict[str, Any]:
    """All hyperparameters of a rule: its defaults, changed."""
    assert changes.keys() <= xopt.RULES[name].defaults.keys()
    return xopt.RULES[name].defaults | changes


def trajectory(name: str, n: Arithmetic, params: Any, grads: list[Any], **changes: Any) -> list[tuple[Any, ...]]:
    """The states of a golden, the first one included."""
    hyper = lift(n, hyper_of(name, **changes))
    states = [start(GOLDENS[name], n, n.number(params), hyper)]
    for t, g in enumerate(grads, start=1):
        states.append(GOLDENS[name].step(n, *states[-1], n.number(g), t, **hyper))
    return states


def flat(state: tuple[Any, ...]) -> list[Any]:
    return [x for slot in state for x in (slot if isinstance(slot, tuple) else (slot,))]


def moves(name: str, grads: list[Any], **changes: Any) -> list[Any]:
    """How far each step moves the parameters downhill, for lr = 1 and from theta = 0, at sixty digits."""
    changes |= {"lr": 1.0}
    if "weight_decay" in GOLDENS[name].defaults:
        changes.setdefault("weight_decay", 0.0)
    points = [state[0] for state in trajectory(name, MP, 0.0, grads, **changes)]
    return [before - after for before, after in pairwise(points)]


def random_gradients(seed: int, steps: int = STEPS) -> list[float]:
    random_ = random.Random(seed)
    return [random_.choice([-1, 1]) * 10 ** random_.uniform(-5, 5) for _ in range(steps)]


def close(got: Any, expected: Any) -> bool:
    """To forty digits."""
    assert expected != 0, "a relative error needs something to be relative to"
    return bool(abs(got / expected - 1) < number(10.0) ** -40)


def all_close(got: list[Any], expected: list[Any]) -> bool:
    return len(got) == len(expected) > 0 and all(map(close, got, expected))


# The table


def test_every_rule_has_a_golden_with_its_names() -> None:
    assert list(GOLDENS) == list(xopt.RULES)
    for name, rule in xopt.RULES.items():
        golden = GOLDENS[name]
        assert golden.name == name
        assert golden.slots == rule.slots
        assert golden.defaults == rule.defaults
        assert HYPER[name]


@rules
def test_a_golden_is_written_from_the_paper(name: str) -> None:
    """It imports nothing that the rules are made of, says every default, and computes with nothing but n."""
    module = inspect.getmodule(GOLDENS[name].step)
    tree = ast.parse(inspect.getsource(module))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(isinstance(node, ast.Import) for node in ast.walk(tree))
    assert imported == {"typing", "xopt.conformance.arithmetic.numbers"}
    hyper = [p for p in inspect.signature(GOLDENS[name].step).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert all(p.default is not p.empty for p in hyper)
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert used <= {"number", "sqrt", "sign", "exp", "log"}
    assert "arXiv:" in module.__doc__ or name in ("momentum", "nesterov", "nadam")


# The arithmetic


@cases
def test_floats_are_within_their_rounding_errors_of_sixty_digits(name: str, changes: dict[str, Any]) -> None:
    """The margin is running error analysis of the golden's own text, each operation rounding once: nothing is chosen."""
    used = 0.0
    for seed in range(5):
        grads = random_gradients(seed)
        exact = trajectory(name, MP, 0.7, grads, **changes)
        floats = trajectory(name, FLOAT, 0.7, grads, **changes)
        bounded = trajectory(name, BoundedArithmetic(), 0.7, grads, **changes)
        for states in zip(exact[1:], floats[1:], bounded[1:], strict=True):
            for true, got, bound in zip(*map(flat, states), strict=True):
                margin = float(inflate(bound.error)) if isinstance(bound, Bounded) else 0.0
                assert abs(number(got) - true) <= margin
                assert margin <= 1e-9 * max(1.0, abs(got)), "a margin this wide shows nothing"
                used = max(used, float(abs(number(got) - true)) / margin if margin else 0.0)
    assert used > 0.01


@rules
def test_a_golden_that_is_off_by_little_is_outside_that_margin(name: str) -> None:
    """The comparison above can fail: with any one hyperparameter off by 1e-6 it does. Lion's beta1 only ever moves a sign, eps and
    psi at their defaults move little, so they are off by more."""
    grads = random_gradients(1)
    exact = trajectory(name, MP, 0.7, grads)
    for wrong, value in hyper_of(name).items():
        factor = {("lion", "beta1"): 0.01, (name, "eps"): 2, (name, "psi"): 2}.get((name, wrong), 1 + 1e-6)
        if not value:
            value = 3 if wrong.endswith("_warmup") else 1e-6
        elif isinstance(value, tuple):
            value = (*value[:-1], value[-1] * factor)
        else:
            value = value * factor
        bounded = trajectory(name, BoundedArithmetic(), 0.7, grads, **{wrong: value})
        outside = [
            abs(number(float(bound.value)) - true) > float(inflate(bound.error))
            for states in zip(exact[1:], bounded[1:], strict=True)
            for true, bound in zip(*map(flat, states), strict=True)
        ]
        assert any(outside), f"{wrong} does not matter"


@pytest.mark.parametrize("name", RATIONAL)
def test_sixty_digits_are_the_fraction_rounded(name: str) -> None:
    for changes in [{}, *HYPER[name]]:
        grads = random_gradients(2)
        exact = trajectory(name, EXACT, 0.7, grads, **changes)
        digits = trajectory(name, MP, 0.7, grads, **changes)
        for states in zip(exact, digits, strict=True):
            for fraction, got in zip(*map(flat, states), strict=True):
                assert isinstance(fraction, Fraction)
                assert float(fraction) == float(got)
                assert abs(got * fraction.denominator - fraction.numerator) <= abs(fraction.numerator) * number(10.0) ** -55


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sgd", {"lr": 0.25, "weight_decay": 0.5}),
        ("momentum", {"lr": 0.25, "beta": 0.5, "weight_decay": 0.5}),
        ("nesterov", {"lr": 0.25, "beta": 0.5, "weight_decay": 0.5}),
        ("qhm", {"lr": 0.25, "beta": 0.5, "nu": 0.75, "weight_decay": 0.5}),
        ("aggmo", {"lr": 0.25, "betas": (0.0, 0.5), "weight_decay": 0.5}),
        ("lion", {"lr": 0.25, "beta1": 0.5, "beta2": 0.75, "weight_decay": 0.5}),
    ],
)
def test_floats_are_exact_where_nothing_needs_rounding(name: str, changes: dict[str, Any]) -> None:
    grads = [3.0, -5.0, 2.0, 7.0, 0.0, -1.0, 4.0, -6.0]
    exact = trajectory(name, EXACT, 2.0, grads, **changes)
    floats = trajectory(name, FLOAT, 2.0, grads, **changes)
    assert [flat(state) for state in floats] == [flat(state) for state in exact]


@pytest.mark.parametrize("n", [FLOAT, MP], ids=["float", "multiprecision"])
def test_arithmetics_follow_ieee_rules(n: Arithmetic) -> None:
    nan, inf = n.number(math.nan), n.number(math.inf)
    assert [n.sign(n.number(x)) for x in (-2.5, 0.0, 3.0, -math.inf)] == [-1, 0, 1, -1]
    assert n.sign(nan) != n.sign(nan)
    assert n.sqrt(n.number(2.25)) == 1.5
    assert n.sqrt(n.number(0.0)) == 0
    for undefined in (n.sqrt(n.number(-1.0)), n.log(n.number(-1.0)), n.sqrt(nan), n.exp(nan), n.log(nan)):
        assert undefined != undefined
    assert n.log(n.number(0.0)) == -inf
    assert n.log(n.number(1.0)) == 0
    assert n.exp(n.number(0.0)) == 1
    assert n.exp(-inf) == 0
    assert n.number(0.1) == Fraction(0.1)


@pytest.mark.parametrize("name", GOLDENS)
def test_arrays_keep_their_dtype_beside_numbers(name: str) -> None:
    hyper = {key: 50 if key.endswith("_warmup") else x for key, x in GOLDENS[name].defaults.items()}
    grad = np.ones(3, np.float32)
    state = start(GOLDENS[name], ARRAYS, grad, hyper)
    for t in (1, 2):
        state = GOLDENS[name].step(ARRAYS, *state, grad, t, **hyper)
    assert state[0].dtype == np.float32


def test_fractions_refuse_what_is_not_rational() -> None:
    assert [EXACT.sign(Fraction(x)) for x in (-2, 0, 3)] == [-1, 0, 1]
    for function in (EXACT.sqrt, EXACT.exp, EXACT.log):
        with pytest.raises(TypeError, match=r"use multiprecision\(\)"):
            function(Fraction(4))
    with pytest.raises(TypeError, match="no exact value among the fractions"):
        trajectory("adam", EXACT, 1.0, [1.0])


def test_multiprecision_touches_no_global_precision() -> None:
    mpmath = pytest.importorskip("mpmath")
    before = mpmath.mp.dps
    narrow, wide = multiprecision(20), multiprecision(200)
    third = [1 / n.number(3.0) for n in (narrow, wide)]
    assert mpmath.mp.dps == before
    errors = [abs(Fraction(str(x)) - Fraction(1, 3)) for x in third]
    assert errors[1] < Fraction(1, 10**199) < Fraction(1, 10**22) < errors[0] < Fraction(1, 10**19)
    with pytest.raises(ValueError, match="17 or more"):
        multiprecision(16)


# Memory: the weight of a gradient k steps after it came (an impulse), the mass of all weights, a constant gradient


AGES = 12
IMPULSE = [1.0] + [0.0] * AGES


def powers(beta: Any, count: int) -> list[Any]:
    return [beta**k for k in range(count)]


def test_impulse_of_the_linear_rules() -> None:
    b, nu = number(0.9), number(0.7)
    after = powers(b, AGES + 2)
    assert all_close(moves("sgd", IMPULSE[:1]), [number(1)])
    assert moves("sgd", IMPULSE)[1:] == [0] * AGES
    assert all_close(moves("momentum", IMPULSE, beta=0.9), after[:-1])
    assert all_close(moves("nesterov", IMPULSE, beta=0.9), [1 + b, *after[2:]])
    assert all_close(moves("qhm", IMPULSE, beta=0.9, nu=1.0), [(1 - b) * x for x in after[:-1]])
    assert all_close(moves("qhm", IMPULSE, beta=0.9, nu=0.7), [1 - nu * b, *(nu * (1 - b) * x for x in after[1:-1])])
    betas = [number(x) for x in (0.0, 0.9, 0.99)]
    assert all_close(moves("aggmo", IMPULSE, betas=(0.0, 0.9, 0.99)), [sum(x**k for x in betas) / 3 for k in range(AGES + 1)])


def test_impulse_of_lion_by_the_gradient_that_just_outweighs_it() -> None:
    """Lion shows its c through a sign only; a gradient of -(weight / present weight) tips it, to 45 digits."""
    b1, b2 = number(0.9), number(0.99)
    hyper = lift(MP, hyper_of("lion", lr=1.0, beta1=0.9, beta2=0.99))
    for k in range(1, AGES):
        weight = b1 * (1 - b2) * b2 ** (k - 1)
        for off, sign in ((-1, 1), (1, -1)):
            state = (number(0), number(0))
            for t, g in enumerate([number(1), *[number(0)] * (k - 1)], start=1):
                state = GOLDENS["lion"].step(MP, *state, g, t, **hyper)
            tip = -weight / (1 - b1) * (1 + off * number(10.0) ** -45)
            after = GOLDENS["lion"].step(MP, *state, tip, k + 1, **hyper)
            assert state[0] - after[0] == sign


ADAPTIVE = {"beta2": 0.0, "eps": 1.0}
"""The denominator is |g| + 1: 2 at the impulse and 1 after it, so that the numerator shows."""


def numerators(name: str, **changes: Any) -> list[Any]:
    first, *rest = moves(name, IMPULSE, **ADAPTIVE, **changes)
    return [2 * first, *rest]


def test_impulse_of_the_adaptive_rules() -> None:
    b1, b3, alpha, nu1 = number(0.9), number(0.9999), number(8.0), number(0.7)
    fast = [(1 - b1) * b1**k / (1 - b1 ** (k + 1)) for k in range(AGES + 1)]
    slow = [(1 - b3) * b3**k for k in range(AGES + 1)]
    assert all_close(numerators("adam", beta1=0.9), fast)
    assert all_close(numerators("adamw", beta1=0.9), fast)
    assert all_close(numerators("qhadam", beta1=0.9, nu1=0.7), [nu1 * x + (1 - nu1) * (k == 0) for k, x in enumerate(fast)])
    assert all_close(
        numerators("ademamix", beta1=0.9, beta3=0.9999, alpha=8.0), [x + alpha * y for x, y in zip(fast, slow, strict=True)]
    )

    def mu(t: int) -> Any:
        return b1 * (1 - number(0.96) ** (t * number(0.25)) / 2)

    products = [math.prod((mu(s) for s in range(1, t + 1)), start=number(1)) for t in range(AGES + 3)]
    expected = [
        mu(k + 2) * (1 - b1) * b1**k / (1 - products[k + 2]) + (1 - mu(1)) / (1 - products[1]) * (k == 0) for k in range(AGES + 1)
    ]
    assert all_close(numerators("nadam", beta1=0.9, psi=0.25), expected)


def test_second_moments_are_the_average_of_the_squares() -> None:
    b2 = number(0.999)
    for name in ("adam", "adamw", "nadam", "qhadam", "ademamix"):
        slot = 1 + GOLDENS[name].slots.index("v")
        states = trajectory(name, MP, 0.0, [-3.0, *IMPULSE[1:]], beta2=0.999)
        assert all_close([state[slot] for state in states[1:]], [9 * (1 - b2) * b2**k for k in range(AGES + 1)])
        states = trajectory(name, MP, 0.0, [3.0, -3.0] * 6, beta2=0.999)
        assert all_close([state[slot] for state in states[1:]], [9 * (1 - b2**t) for t in range(1, 13)])


def test_mass_and_mean_age() -> None:
    """Sums over 1200 gradients, after which 0.9^k is below 1e-54."""
    b, nu = number(0.9), number(0.7)
    impulse = [1.0] + [0.0] * 1199
    heavy = moves("momentum", impulse, beta=0.9)
    assert close(sum(heavy), 1 / (1 - b))
    qhm = moves("qhm", impulse, beta=0.9, nu=0.7)
    assert close(sum(qhm), number(1))
    assert close(sum(k * w for k, w in enumerate(qhm)), nu * b / (1 - b))
    average = moves("qhm", impulse, beta=0.9, nu=1.0)
    assert close(sum(k * w for k, w in enumerate(average)), b / (1 - b))
    assert close(sum(moves("aggmo", impulse, betas=(0.0, 0.5, 0.9))), (1 + 2 + 1 / (1 - b)) / 3)


def test_sum_of_squared_weights_is_the_variance_that_is_left() -> None:
    """Of independent gradients: (1 - beta) / (1 + beta) for an average, 1/19 for beta = 0.9."""
    count = 400
    b, nu = Fraction(9, 10), Fraction(7, 10)

    def weights(nu: Fraction) -> Iterator[Fraction]:
        hyper = {"lr": Fraction(1), "beta": b, "nu": nu, "weight_decay": Fraction(0)}
        state = (Fraction(0), Fraction(0))
        for t in range(1, count + 1):
            after = GOLDENS["qhm"].step(EXACT, *state, Fraction(t == 1), t, **hyper)
            yield state[0] - after[0]
            state = after

    cut = 1 - b ** (2 * count)
    assert sum(w * w for w in weights(Fraction(1))) == Fraction(1, 19) * cut
    cut = 1 - b ** (2 * count - 2)
    assert sum(w * w for w in weights(nu)) == (1 - nu * b) ** 2 + (nu * b) ** 2 * (1 - b) / (1 + b) * cut


@pytest.mark.parametrize(
    ("name", "changes", "mass", "half"),
    [
        ("qhm", {"beta": 0.999, "nu": 0.7}, 1, 336),
        ("aggmo", {"betas": (0.0, 0.9, 0.99)}, 37, 58),
        ("ademamix", {"beta1": 0.9, "beta3": 0.9999, "alpha": 8.0, **ADAPTIVE}, 9, 5753),
    ],
)
def test_published_half_lives(name: str, changes: dict[str, Any], mass: float, half: int) -> None:
    """The age up to which half of all weight lies, in floats; without bias correction, that is for a long run."""
    hyper = lift(FLOAT, hyper_of(name, lr=1.0, weight_decay=0.0, **changes))
    late = 10**6  # where bias corrections are 1
    state = start(GOLDENS[name], FLOAT, 0.0, hyper)
    total, age = 0.0, -1
    while total < mass / 2:
        age += 1
        after = GOLDENS[name].step(FLOAT, *state, float(age == 0), late + age, **hyper)
        denominator = 2.0 if name == "ademamix" and age == 0 else 1.0
        total += (state[0] - after[0]) * denominator
        state = after
    assert age == half


CONSTANT = -3.0


def test_constant_gradient() -> None:
    """The displacement of each step, and of the first one."""
    g = number(CONSTANT)
    grads = [CONSTANT] * STEPS
    steps = range(1, STEPS + 1)
    b, nu = number(0.9), number(0.7)
    assert all_close(moves("sgd", grads), [g] * STEPS)
    assert all_close(moves("momentum", grads, beta=0.9), [g * (1 - b**t) / (1 - b) for t in steps])
    assert all_close(moves("nesterov", grads, beta=0.9), [g * (1 + b * (1 - b**t) / (1 - b)) for t in steps])
    assert all_close(moves("qhm", grads, beta=0.9, nu=0.7), [g * (1 - nu * b**t) for t in steps])
    betas = [number(x) for x in (0.0, 0.9, 0.99)]
    assert all_close(moves("aggmo", grads), [g * sum((1 - x**t) / (1 - x) for x in betas) / 3 for t in steps])
    assert moves("lion", grads) == [-1] * STEPS
    for name in ("adam", "adamw", "qhadam"):
        assert all_close(moves(name, grads, eps=0.0), [number(-1)] * STEPS)
        assert all_close(moves(name, grads, eps=0.5), [g / (abs(g) + number(0.5))] * STEPS)


def test_cut_mass_of_a_scheduled_average() -> None:
    """AdEMAMix under a constant gradient moves by g (1 + alpha(t) (1 - beta3(1) ... beta3(t))) / (|g| + eps)."""
    g, T = number(CONSTANT), 9
    b1, b3 = number(0.9), number(0.9999)
    expected, left = [], number(1)
    for t in range(1, STEPS + 1):
        mu = min(number(t) / T, number(1))
        left = left * MP.exp(MP.log(b1) * MP.log(b3) / ((1 - mu) * MP.log(b3) + mu * MP.log(b1)))  # the paper's form
        expected.append(g * (1 + 8 * min(number(t) / 7, number(1)) * (1 - left)) / (abs(g) + number(0.5)))
    got = moves("ademamix", [CONSTANT] * STEPS, alpha=8.0, beta1=0.9, beta3=0.9999, eps=0.5, alpha_warmup=7, beta3_warmup=T)
    assert all_close(got, expected)
    unscheduled = moves("ademamix", [CONSTANT] * STEPS, alpha=8.0, beta1=0.9, beta3=0.9999, eps=0.5)
    assert all_close(unscheduled, [g * (1 + 8 * (1 - b3**t)) / (abs(g) + number(0.5)) for t in range(1, STEPS + 1)])
    assert not close(unscheduled[0], got[0])


@rules
def test_decay_alone_is_geometric(name: str) -> None:
    """With no gradient: theta_t = theta_0 (1 - lr weight_decay)^t; Adam, which has no decay, stays."""
    if "weight_decay" not in GOLDENS[name].defaults:
        assert [state[0] for state in trajectory(name, MP, 0.7, [0.0] * STEPS)] == [number(0.7)] * (STEPS + 1)
        return
    points = [state[0] for state in trajectory(name, MP, 0.7, [0.0] * STEPS, lr=0.1, weight_decay=0.3)]
    shrink = 1 - number(0.1) * number(0.3)
    assert all_close(points, [number(0.7) * shrink**t for t in range(STEPS + 1)])


# Published schedules


def test_half_life_schedule_of_the_paper() -> None:
    """0.9 -> 0.9999 over 10 steps; each value printed to the last digit of a float64."""
    published = [0.9, 0.9990089120425198, 0.9995019903000263, 0.9996674419570512, 0.9997503741112254, 0.9998001996254803]
    published += [0.9998334442732579, 0.9998572040018291, 0.9998750312148291, 0.9998889012223828, 0.9999]
    for t, value in enumerate(published):
        beta3 = ademamix.beta3_at(MP, t, number(0.9), number(0.9999), 10)
        assert abs(beta3 - number(value)) <= 2.0**-53  # a float64 in [0.5, 1) is that near to what it rounds
        if t > 0:  # the rule's own, 1 - beta3, good to a few units of its last place
            assert abs(number(half_life_warmup(0.9, 0.9999, t, 10)) - (1 - beta3)) <= 8 * 2.0**-53 * (1 - beta3)


def test_half_life_schedule_from_no_memory() -> None:
    """beta1 = 0: the values printed in the notebook of optax, beta3^(T/t)."""
    for t, value in ((250, 0.996006), (500, 0.998001), (750, 0.9986669)):
        beta3 = ademamix.beta3_at(MP, t, number(0.0), number(0.999), 1000)
        digits = len(str(value)) - 2
        assert round(float(beta3), digits) == value
        assert close(beta3, MP.exp(MP.log(number(0.999)) * 1000 / t))
        assert round(1 - half_life_warmup(0.0, 0.999, t, 1000), digits) == value


@pytest.mark.parametrize(("start_", "end"), [(0.9, 0.9999), (0.0, 0.999), (0.9, 0.5), (0.9, 0.0), (0.0, 0.0), (0.9, 0.9)])
def test_schedules_of_golden_and_rule_agree(start_: float, end: float) -> None:
    for T in (1, 9, 10.5):
        for t in range(1, 15):
            gap = 1 - ademamix.beta3_at(MP, t, number(start_), number(end), T)
            assert abs(number(half_life_warmup(start_, end, t, T)) - gap) <= 8 * 2.0**-53 * gap
            alpha = ademamix.alpha_at(MP, t, number(8.0), T)
            assert abs(number(linear_warmup(8.0, t, T)) - alpha) <= 2 * 2.0**-53 * alpha
            if t >= T:
                assert alpha == 8
                assert gap == 1 - number(end)
    for off in (None, 0):
        assert ademamix.beta3_at(MP, 1, number(start_), number(end), off) == number(end)
        assert ademamix.alpha_at(MP, 1, number(8.0), off) == 8


def test_momentum_schedule_of_nadam() -> None:
    """mu_1 = 0.9 (1 - 0.96^0.004 / 2), and psi = 0 gives half of beta1, not beta1."""
    assert close(nadam.mu(MP, 1, number(0.9), number(0.004)), number(0.9) * (1 - number(0.96) ** number(0.004) / 2))
    assert nadam.mu(MP, 7, number(0.9), number(0.0)) == number(0.9) / 2
    states = trajectory("nadam", MP, 0.0, [1.0] * 3)
    product = math.prod((nadam.mu(MP, t, number(0.9), number(0.004)) for t in (1, 2, 3)), start=number(1))
    assert close(states[-1][3], product)


# Reductions: one rule that is another


def same_points(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    points = [x[0] for x in one], [x[0] for x in other]
    assert points[0][0] != points[0][-1], "nothing moved"
    return all_close(*points)


REDUCTIONS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("qhm", {"lr": 0.1, "beta": 0.9, "nu": 0.0}, "sgd", {"lr": 0.1}),
    ("qhm", {"lr": 0.1, "beta": 0.0, "nu": 0.7}, "sgd", {"lr": 0.1}),
    ("qhm", {"lr": 1.0, "beta": 0.75, "nu": 1.0}, "momentum", {"lr": 0.25, "beta": 0.75}),
    ("qhm", {"lr": 1.0, "beta": 0.75, "nu": 0.75}, "nesterov", {"lr": 0.25, "beta": 0.75}),
    ("momentum", {"lr": 0.1, "beta": 0.0}, "sgd", {"lr": 0.1}),
    ("nesterov", {"lr": 0.1, "beta": 0.0}, "sgd", {"lr": 0.1}),
    ("aggmo", {"lr": 0.1, "betas": (0.9,)}, "momentum", {"lr": 0.1, "beta": 0.9}),
    ("aggmo", {"lr": 0.1, "betas": (0.9, 0.9, 0.9)}, "momentum", {"lr": 0.1, "beta": 0.9}),
    ("aggmo", {"lr": 0.1, "betas": (0.5, 0.9, 0.99)}, "aggmo", {"lr": 0.1, "betas": (0.99, 0.5, 0.9)}),
    ("adamw", {"lr": 0.1, "weight_decay": 0.0}, "adam", {"lr": 0.1}),
    ("qhadam", {"lr": 0.1, "beta1": 0.9, "nu1": 1.0, "nu2": 1.0}, "adam", {"lr": 0.1, "beta1": 0.9}),
    ("qhadam", {"lr": 0.1, "nu1": 0.0, "nu2": 1.0}, "adam", {"lr": 0.1, "beta1": 0.0}),  # RMSProp with bias correction
    ("ademamix", {"alpha": 0.0, "weight_decay": 0.2}, "adamw", {"weight_decay": 0.2}),
    ("ademamix", {"alpha": 8.0, "beta1": 0.0, "beta3": 0.0}, "adam", {"lr": 0.009, "beta1": 0.0}),
    ("adam", {"lr": 0.1, "beta1": 0.0, "beta2": 0.0, "eps": 0.0}, "lion", {"lr": 0.1, "beta1": 0.0}),  # sign of the gradient
]


@pytest.mark.parametrize(("name", "changes", "other", "others"), REDUCTIONS)
def test_reductions(name: str, changes: dict[str, Any], other: str, others: dict[str, Any]) -> None:
    if (name, other) == ("ademamix", "adam"):  # lr (1 + alpha), which no product of float64 numbers need be
        changes, others = changes | {"lr": 0.125}, others | {"lr": 1.125}
    for seed in range(3):
        grads = random_gradients(seed)
        one = trajectory(name, MP, 0.7, grads, **changes)
        assert same_points(one, trajectory(other, MP, 0.7, grads, **others))
        nearly = others["lr"] * (1 + 2.0**-40) if "lr" in others else 0.001 * (1 + 2.0**-40)
        assert not same_points(one, trajectory(other, MP, 0.7, grads, **others | {"lr": nearly}))


def test_lion_is_the_sign_of_a_qhm_numerator() -> None:
    """c = (1 - nu) g + nu m with the new average, beta = beta2 and nu = beta1 / beta2, exactly."""
    b1, b2 = Fraction(9, 10), Fraction(99, 100)
    lion = {"lr": Fraction(1), "beta1": b1, "beta2": b2, "weight_decay": Fraction(0)}
    qhm = {"lr": Fraction(1), "beta": b2, "nu": b1 / b2, "weight_decay": Fraction(0)}
    one = other = (Fraction(0), Fraction(0))
    signs = set()
    for t, g in enumerate(random_gradients(3, 60), start=1):
        one_after = GOLDENS["lion"].step(EXACT, *one, Fraction(g), t, **lion)
        other_after = GOLDENS["qhm"].step(EXACT, *other, Fraction(g), t, **qhm)
        numerator = other[0] - other_after[0]
        assert numerator == b1 * one[1] + (1 - b1) * Fraction(g)
        assert one[0] - one_after[0] == EXACT.sign(numerator)
        assert one_after[1] == other_after[1]
        signs.add((numerator > 0) == (g > 0))
        one, other = one_after, other_after
    assert signs == {True, False}, "momentum never outweighed the gradient"


def test_nesterov_is_sutskevers_look_ahead() -> None:
    """x <- x + V, V <- beta V - lr gradient(x + beta V), followed at x + beta V; exactly, on a function that is no quadratic."""
    lr, beta = Fraction(1, 10), Fraction(9, 10)

    def gradient(x: Fraction) -> Fraction:
        return x + x * x / 3

    x, V = Fraction(1), Fraction(0)
    state = (x, Fraction(0))
    for t in range(1, 8):
        assert state[0] == x + beta * V
        state = GOLDENS["nesterov"].step(EXACT, *state, gradient(state[0]), t, lr=lr, beta=beta, weight_decay=Fraction(0))
        V = beta * V - lr * gradient(x + beta * V)
        x = x + V
        assert state[1] == -V / lr
    assert state[0] == x + beta * V != 1


# The rules


@cases
def test_rules_compute_their_goldens(name: str, changes: dict[str, Any]) -> None:
    """In NumPy's float64, to twelve digits of the largest number met: a coarse check, the derived bounds are elsewhere."""
    rule = xopt.RULES[name]
    start_, columns = [0.7, -1.3, 0.0], [random_gradients(seed) for seed in (4, 5, 6)]
    state = rule.bind(**changes).init(np.asarray(start_))
    goldens = [trajectory(name, MP, x, grads, **changes) for x, grads in zip(start_, columns, strict=True)]
    for t in range(1, STEPS + 1):
        before, state = state, rule.step(state, np.asarray([grads[t - 1] for grads in columns]), **changes)
        assert state.step == t
        for slot, (old, got) in enumerate(zip(before[:-1], state[:-1], strict=True)):
            for i, golden in enumerate(goldens):
                parts = zip(golden[t][slot], got, old, strict=True) if isinstance(got, tuple) else [(golden[t][slot], got, old)]
                for true, new, last in parts:
                    if new is None:
                        continue  # a decay of 0: the golden's slot is idle
                    new, last = (x if np.ndim(x) == 0 else x[i] for x in (new, last))
                    largest = max(abs(float(true)), abs(float(last)))
                    assert abs(number(float(new)) - true) <= 1e-12 * largest


def planted(golden: Golden, *state: Any, **hyper: Any) -> tuple[Any, ...]:
    """The golden with a slip in its last slot."""
    params, *slots = golden.step(*state, **hyper)
    return params, *slots[:-1], slots[-1] * number(1.0 + 1e-11)


def test_the_comparison_with_the_rules_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = GOLDENS["ademamix"]
    monkeypatch.setitem(GOLDENS, "ademamix", golden._replace(step=lambda *state, **hyper: planted(golden, *state, **hyper)))
    with pytest.raises(AssertionError):
        test_rules_compute_their_goldens("ademamix", {})
