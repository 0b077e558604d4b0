"""A conversion is right if both methods take the same steps. Shown at 60 digits, on the text of the conversions itself.

Undecorated, and with the square root of 60 digits in place of the ``math`` module, a conversion runs on any numbers.
"""

import inspect
import math
import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest

import xopt
from xopt import conversions
from xopt.conformance.arithmetic.numbers import multiprecision
from xopt.conformance.golden import GOLDENS, lift, start

MP = multiprecision(60)
number = MP.number
STEPS = 40
CONVERSIONS = {name: f for name, f in vars(conversions).items() if name.startswith(("qhm_", "qhadam_"))}


def gradient(x: Any) -> Any:
    """Of a smooth function that is no quadratic, so that methods which differ anywhere part for good."""
    return x + x**3 / 4 - 1 / (1 + x**2)


def first() -> Any:
    return number(1.5)


def rule(name: str, hyper: dict[str, Any], steps: int = STEPS) -> list[Any]:
    """The points where a golden takes its gradients."""
    hyper = {"weight_decay": number(0), **hyper}
    state = start(GOLDENS[name], MP, first(), hyper)
    points = [state[0]]
    for t in range(1, steps + 1):
        state = GOLDENS[name].step(MP, *state, gradient(state[0]), t, **hyper)
        points.append(state[0])
    return points


def pid(kp: Any, ki: Any, kd: Any) -> list[Any]:
    """Recht's controller, with the derivative smoothed by the beta that its gains imply."""
    beta = kd / (kd - kp)
    points, e_before, total, v = [first()], number(0), number(0), number(0)
    for _ in range(STEPS):
        e = -gradient(points[-1])
        v = beta * v + (1 - beta) * (e - e_before)
        total, e_before = total + e, e
        points.append(points[0] + kp * e + ki * total + kd * v)
    return points


def synthesized_nesterov(lr: Any, beta1: Any, beta2: Any) -> list[Any]:
    """Lessard, Recht and Packard, equations of section 6."""
    x_before = x = first()
    points = [x]
    for _ in range(STEPS):
        x_before, x = x, x - lr * gradient(points[-1]) + beta1 * (x - x_before)
        points.append(x + beta2 * (x - x_before))
    return points


def robust_momentum(L: Any, kappa: Any, rho: Any = None) -> list[Any]:
    """Cyrus et al., equations (1) and (2)."""
    rho = 1 - 1 / MP.sqrt(kappa) if rho is None else rho
    return synthesized_nesterov(
        kappa * (1 - rho) ** 2 * (1 + rho) / L,
        kappa * rho**3 / (kappa - 1),
        rho**3 / ((kappa - 1) * (1 - rho) ** 2 * (1 + rho)),
    )


def triple_momentum(L: Any, kappa: Any) -> list[Any]:
    """Van Scoy, Freeman and Lynch."""
    rho = 1 - 1 / MP.sqrt(kappa)
    return synthesized_nesterov((1 + rho) / L, rho**2 / (2 - rho), rho**2 / ((1 + rho) * (2 - rho)))


def accsgd(delta: Any, kappa: Any, xi: Any, eps: Any) -> list[Any]:
    """The authors' file: a long step and a short one."""
    short = eps * eps * xi / kappa
    weight = eps / (eps + short)
    x = buffer = first()
    points = [x]
    for _ in range(STEPS):
        g = gradient(x)
        buffer = short * ((1 / short - 1) * buffer - delta * kappa / eps * g + x)
        x = weight * (x - delta * g) + (1 - weight) * buffer
        points.append(x)
    return points


def two_state(h: Any, k: Any, l: Any, m: Any, q: Any, z: Any) -> list[Any]:
    theta = first()
    a = k * theta / (1 - h)  # at rest
    points = [theta]
    for _ in range(STEPS):
        g = gradient(theta)
        a, theta = h * a + k * theta + l * g, m * a + q * theta + z * g
        points.append(theta)
    return points


METHODS: dict[str, Callable[..., list[Any]]] = {
    "heavy_ball": lambda **hyper: rule("momentum", hyper),
    "nesterov": lambda **hyper: rule("nesterov", hyper),
    "pid": pid,
    "synthesized_nesterov": synthesized_nesterov,
    "robust_momentum": robust_momentum,
    "triple_momentum": triple_momentum,
    "accsgd": accsgd,
    "two_state": two_state,
}

OTHERS: list[tuple[str, dict[str, float]]] = [
    ("heavy_ball", {"lr": 0.1, "beta": 0.9}),
    ("heavy_ball", {"lr": 0.1, "beta": -0.5}),
    ("nesterov", {"lr": 0.1, "beta": 0.9}),
    ("nesterov", {"lr": 0.05, "beta": -0.3}),
    ("pid", {"kp": -0.1, "ki": 0.3, "kd": 0.7}),
    ("pid", {"kp": 0.2, "ki": 0.1, "kd": 0.05}),  # kp/kd > 2: beta is negative
    ("synthesized_nesterov", {"lr": 0.1, "beta1": 0.9, "beta2": 0.6}),
    ("synthesized_nesterov", {"lr": 0.1, "beta1": -0.4, "beta2": 0.6}),
    ("robust_momentum", {"L": 5.0, "kappa": 16.0, "rho": 0.8}),
    ("robust_momentum", {"L": 5.0, "kappa": 16.0}),
    ("triple_momentum", {"L": 5.0, "kappa": 16.0}),
    ("accsgd", {"delta": 0.05, "kappa": 1000.0, "xi": 10.0, "eps": 0.7}),
    ("accsgd", {"delta": 0.05, "kappa": 3.0, "xi": 5.0, "eps": 1.0}),
]

QHMS = [(0.5, 0.9, 0.7), (0.3, 0.99, 0.4), (0.2, 0.3, 0.9), (0.4, 0.8, 0.1)]
ANY_QHM = [*QHMS, (0.3, -0.5, 0.7), (0.3, 0.9, -0.4), (0.3, 0.6, 1.7)]


def agree(one: list[Any], other: list[Any]) -> bool:
    moved = max(abs(x - one[0]) for x in one)
    assert moved > number(0.1), "a method that does not move agrees with anything"
    return all(abs(x - y) <= moved * number(10.0) ** -40 for x, y in zip(one, other, strict=True))


def unrounded(name: str, **hyper: Any) -> dict[str, Any]:
    """The text of a conversion, on numbers of 60 digits."""
    with mock.patch.object(conversions, "math", MP):
        return CONVERSIONS[name].__wrapped__(**hyper)  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize(("method", "hyper"), OTHERS)
def test_qhm_takes_the_steps_of_the_other_method(method: str, hyper: dict[str, float]) -> None:
    lifted = lift(MP, hyper)
    qhm = unrounded(f"qhm_from_{method}", **lifted)
    assert agree(METHODS[method](**lifted), rule("qhm", qhm))


@pytest.mark.parametrize("wrong", ["lr", "beta", "nu"])
@pytest.mark.parametrize(("method", "hyper"), OTHERS)
def test_the_comparison_sees_a_conversion_that_is_off(method: str, hyper: dict[str, float], wrong: str) -> None:
    lifted = lift(MP, hyper)
    qhm = unrounded(f"qhm_from_{method}", **lifted)
    qhm[wrong] = qhm[wrong] * (1 + number(10.0) ** -30)
    assert not agree(METHODS[method](**lifted), rule("qhm", qhm))


def representable(method: str) -> list[dict[str, Any]]:
    """QHMs that ``method`` can be."""
    if method == "heavy_ball":
        return [lift(MP, {"lr": lr, "beta": beta, "nu": 1.0}) for lr, beta, _ in ANY_QHM]
    if method == "nesterov":
        return [lift(MP, {"lr": lr, "beta": beta, "nu": beta}) for lr, beta, _ in ANY_QHM]
    if method == "triple_momentum":
        return [unrounded("qhm_from_triple_momentum", L=number(5.0), kappa=number(kappa)) for kappa in (4.0, 16.0, 256.0)]
    those = {"robust_momentum": QHMS, "accsgd": ANY_QHM[:-1]}.get(method, ANY_QHM)
    return [lift(MP, dict(zip(("lr", "beta", "nu"), qhm, strict=True))) for qhm in those]


@pytest.mark.parametrize("method", METHODS)
def test_the_other_method_takes_the_steps_of_qhm(method: str) -> None:
    for qhm in representable(method):
        extra = {"eps": number(0.7)} if method == "accsgd" else {}
        assert agree(METHODS[method](**unrounded(f"qhm_to_{method}", **qhm, **extra)), rule("qhm", qhm))


def test_triple_momentum_is_robust_momentum_at_its_fastest() -> None:
    for kappa in (4.0, 16.0, 1024.0):
        triple = unrounded("qhm_from_triple_momentum", L=number(5.0), kappa=number(kappa))
        robust = unrounded("qhm_from_robust_momentum", L=number(5.0), kappa=number(kappa), rho=None)
        assert all(abs(triple[name] / robust[name] - 1) < number(10.0) ** -50 for name in triple)


def test_robust_momentum_at_its_slowest_is_gradient_descent() -> None:
    """At rho = 1 - 1/kappa: nu = 0 and lr = 1/L; and back, the same rho is found though a smaller one solves the cubic too."""
    for kappa in (1.25, 1.53, 2.0, 4.0, 64.0):
        qhm = CONVERSIONS["qhm_from_robust_momentum"](L=4.0, kappa=kappa, rho=1 - 1 / kappa)
        assert abs(qhm["nu"]) <= 2.0**-51
        assert abs(qhm["lr"] - 0.25) <= 2.0**-52
        back = CONVERSIONS["qhm_to_robust_momentum"](qhm["lr"], qhm["beta"], 0.0)
        assert math.isclose(back["rho"], 1 - 1 / kappa, rel_tol=2.0**-48)
        assert math.isclose(back["kappa"], kappa, rel_tol=kappa * 2.0**-48)


def mixed(qhm: dict[str, Any], c: float = 2.0, d: float = 3.0) -> dict[str, Any]:
    """A two-state method whose ``a`` is c times QHM's average + d theta: the same theta, another basis."""
    o = unrounded("qhm_to_two_state", **qhm)  # average' = h average + l g, theta' = m average + theta + z g
    c, d = number(c), number(d)
    return {
        "h": o["h"] + d * o["m"] / c,
        "k": d * o["q"] - (c * o["h"] + d * o["m"]) * d / c,
        "l": c * o["l"] + d * o["z"],
        "m": o["m"] / c,
        "q": o["q"] - o["m"] * d / c,
        "z": o["z"],
    }


def papers_two_state(h: Any, k: Any, l: Any, m: Any, q: Any, z: Any) -> dict[str, Any]:
    """The formulas as Ma and Yarats print them."""
    phi = MP.sqrt((h - q) ** 2 + 4 * k * m)
    psi = k * m - h * q
    xi = (h - q - phi) * (l * m - h * z) + 2 * m * (l * q - k * z)
    return {"lr": xi / (2 * phi * psi), "beta": (h + q - phi) / 2, "nu": 2 * m * (l * q - k * z) / xi}


@pytest.mark.parametrize("qhm", ANY_QHM)
def test_two_state_methods_in_any_basis(qhm: tuple[float, ...]) -> None:
    lifted = lift(MP, dict(zip(("lr", "beta", "nu"), qhm, strict=True)))
    method = mixed(lifted)
    assert method["k"] != 0
    assert method["q"] != 1
    found = unrounded("qhm_from_two_state", **method)
    assert agree(two_state(**method), rule("qhm", found))
    # Rounded to float64, the basis still satisfies (1 - h)(1 - q) = k m as far as rounding lets it; a thousandth off it does not.
    rounded = {name: float(x) for name, x in method.items()}
    CONVERSIONS["qhm_from_two_state"](**rounded)
    with pytest.raises(ValueError, match="must have"):
        CONVERSIONS["qhm_from_two_state"](**rounded | {"k": rounded["k"] * 1.001})


@pytest.mark.parametrize("qhm", ANY_QHM)
def test_the_papers_two_state_formulas_hold_where_q_is_1(qhm: tuple[float, ...]) -> None:
    """Elsewhere its lr and beta hold, but not its nu: with that, QHM takes other steps."""
    lifted = lift(MP, dict(zip(("lr", "beta", "nu"), qhm, strict=True)))
    plain, method = unrounded("qhm_to_two_state", **lifted), mixed(lifted)
    for name, value in papers_two_state(**plain).items():
        assert abs(lifted[name] - value) < number(10.0) ** -50
    theirs = papers_two_state(**method)
    assert all(abs(lifted[name] - theirs[name]) < number(10.0) ** -50 for name in ("lr", "beta"))
    assert not agree(two_state(**method), rule("qhm", theirs))


def test_a_two_state_method_may_be_rounded_and_no_more_than_that() -> None:
    used = []
    for i, qhm in enumerate(draws(9, 500)):
        if i % 2:  # h and q near 1
            d = 10 * qhm["nu"] * (qhm["beta"] - 0.5) / qhm["lr"]
        else:  # h = q = (1 + beta) / 2, near 0
            qhm["beta"] *= -1
            d = -(1 - qhm["beta"]) / (qhm["lr"] * qhm["beta"] * qhm["nu"])
        method = mixed(lift(MP, qhm), 2.0, d)
        rounded = {name: float(x) for name, x in method.items()}
        CONVERSIONS["qhm_from_two_state"](**rounded)  # is not refused
        h, k, m, q = (rounded[name] for name in "hkmq")
        size = abs((1 - h) * (1 - q)) + abs(h * (1 - q)) + abs(q * (1 - h))
        used.append(abs((1 - h) * (1 - q) - k * m) / size * 2.0**53)
        with pytest.raises(ValueError, match="must have"):
            CONVERSIONS["qhm_from_two_state"](**rounded | {"k": k + 16 * 2.0**-52 * size / m})
    assert max(used) > 0.5, "too little rounding to show that it is accepted"


def draws(seed: int, count: int = 300) -> Iterator[dict[str, float]]:
    random_ = random.Random(seed)
    for _ in range(count):
        beta = random_.choice([random_.uniform(0.01, 0.99), 1 - 10 ** random_.uniform(-4, -1)])
        yield {"lr": 10 ** random_.uniform(-4, 1), "beta": beta, "nu": random_.uniform(0.01, 0.99)}


@pytest.mark.parametrize("method", METHODS)
def test_there_and_back_is_the_same_but_for_rounding(method: str) -> None:
    """No conversion and its inverse make more than 32 roundings, none of which is of a difference that cancels but 1 - beta and
    1 - nu: so lr comes back within 32 units, and beta and nu within 32 units of 1. Robust and triple momentum go through 1 - rho,
    at least (1 - beta) / 3, and lose one unit over that gap."""
    worst = 0.0
    for qhm in draws(7):
        if method == "heavy_ball":
            qhm["nu"] = 1.0
        elif method == "nesterov":
            qhm["nu"] = qhm["beta"]
        elif method == "triple_momentum":
            qhm = CONVERSIONS["qhm_from_triple_momentum"](L=1 / qhm["lr"], kappa=1 / (1 - qhm["beta"]) ** 2)
        there = CONVERSIONS[f"qhm_to_{method}"](**qhm)
        back = CONVERSIONS[f"qhm_from_{method}"](**there)
        lost = 3 / (1 - qhm["beta"]) if method in ("robust_momentum", "triple_momentum") else 1.0
        for name, value in qhm.items():
            scale = (value if name == "lr" else 1.0) * lost
            worst = max(worst, abs(back[name] - value) / scale * 2.0**53)
        if method == "robust_momentum":  # of two roots, the one in the authors' range: up to gradient descent
            assert (1 - there["rho"]) * there["kappa"] >= 1 - 2.0**-40
    assert worst <= 32
    assert worst > 0 or method in ("heavy_ball", "nesterov"), "with no rounding at all the bound above shows nothing"


def test_triple_momentum_accepts_what_it_made_and_little_else() -> None:
    worst = 0.0
    for qhm in draws(8, 2000):
        kappa = 1 + 10 ** (8 * qhm["nu"] - 3)
        made = CONVERSIONS["qhm_from_triple_momentum"](L=qhm["lr"], kappa=kappa)
        back = CONVERSIONS["qhm_to_triple_momentum"](**made)  # is not refused
        # kappa is found from 1 - beta, which rounding beta moves by 2^-54 / (1 - beta), and from 1 - 1/sqrt(kappa) likewise
        condition = math.sqrt(kappa) / (1 - 1 / math.sqrt(kappa))
        worst = max(
            worst, abs(back["kappa"] / kappa - 1) * 2.0**53 / condition, abs(back["L"] / qhm["lr"] - 1) * 2.0**53 / condition
        )
        off = made["nu"] * (1 + 2.0**-47)
        with pytest.raises(ValueError, match="nu of the triple momentum method"):
            CONVERSIONS["qhm_to_triple_momentum"](made["lr"], made["beta"], off)
    assert 0 < worst <= 32


def test_published_values() -> None:
    """AccSGD at its own defaults; the authors' rule of thumb for momentum."""
    found = conversions.qhm_from_accsgd(1.0, 1000.0, 10.0)
    assert conversions.qhm_to_accsgd(**found)["eps"] == 0.7
    expected = {"lr": 4.529, "beta": 0.988183, "nu": 0.779221}
    assert {name: round(x, len(str(expected[name]).split(".")[1])) for name, x in found.items()} == expected
    heavy = conversions.qhm_from_heavy_ball(lr=0.1, beta=0.9)
    assert heavy["lr"] == 0.1 / (1 - 0.9)
    assert math.isclose(heavy["lr"], 1.0, rel_tol=2.0**-51)


def test_nadam_is_qhadam_but_for_bias_correction() -> None:
    """The numerators of constant-momentum NAdam and of the converted QHAdam, both at a step where the corrections are 1."""
    found = conversions.qhadam_from_nadam(lr=0.002, beta1=0.9, beta2=0.999, eps=1e-8)
    assert found == {"lr": 0.002, "beta1": 0.9, "beta2": 0.999, "nu1": 0.9, "nu2": 1.0, "eps": 1e-8}
    hyper = lift(MP, found) | {"weight_decay": number(0)}
    t, m, v, g = 200_000, number(0.3), number(0.25), number(-0.7)
    got = GOLDENS["qhadam"].step(MP, number(0), m, v, g, t, **hyper)[0]
    m, v = hyper["beta1"] * m + (1 - hyper["beta1"]) * g, hyper["beta2"] * v + (1 - hyper["beta2"]) * g**2
    nadam = -hyper["lr"] * (hyper["beta1"] * m + (1 - hyper["beta1"]) * g) / (MP.sqrt(v) + hyper["eps"])
    assert abs(got / nadam - 1) < number(10.0) ** -50


def test_what_a_conversion_returns_can_be_splatted() -> None:
    x = np.asarray([1.0, -2.0])
    g = np.asarray([0.3, 0.1])
    one = xopt.qhm_step(xopt.qhm_init(x), g, **conversions.qhm_from_nesterov(lr=0.1, beta=0.9))
    two = xopt.nesterov_step(xopt.nesterov_init(x), g, **conversions.qhm_to_nesterov(**conversions.qhm_from_nesterov(0.1, 0.9)))
    np.testing.assert_allclose(one.params, two.params, rtol=2.0**-49)
    xopt.momentum_step(xopt.momentum_init(x), g, **conversions.qhm_to_heavy_ball(lr=1.0, beta=0.9, nu=1.0))
    xopt.qhadam_step(xopt.qhadam_init(x), g, **conversions.qhadam_from_nadam(0.002, 0.9, 0.999, 1e-8))


SOUND: dict[str, dict[str, float]] = {
    **{f"qhm_from_{method}": hyper for method, hyper in reversed(OTHERS)},
    **{f"qhm_to_{method}": {"lr": 0.5, "beta": 0.9, "nu": 0.7} for method in METHODS},
    "qhm_to_heavy_ball": {"lr": 0.5, "beta": 0.9, "nu": 1.0},
    "qhm_to_nesterov": {"lr": 0.5, "beta": 0.9, "nu": 0.9},
    "qhm_to_triple_momentum": conversions.qhm_from_triple_momentum(L=2.0, kappa=10.0),
    "qhm_from_two_state": {"h": 0.9, "k": 0.0, "l": 0.1, "m": -0.09, "q": 1.0, "z": -0.01},
    "qhadam_from_nadam": {"lr": 0.002, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
}


def test_the_table_above_has_every_conversion() -> None:
    assert SOUND.keys() == CONVERSIONS.keys()
    assert {name.split("_", 2)[2] for name in CONVERSIONS if name.startswith("qhm_")} == METHODS.keys()


@pytest.mark.parametrize("name", CONVERSIONS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, "0.1", True, [0.1]])
def test_every_argument_is_checked(name: str, bad: Any) -> None:
    CONVERSIONS[name](**SOUND[name])  # sound without the bad one
    for argument in inspect.signature(CONVERSIONS[name]).parameters:
        kind = ValueError if isinstance(bad, float) else TypeError
        with pytest.raises(kind, match=rf"^{name}\(.*{argument}={bad!r}".replace("[", r"\[")) as caught:
            CONVERSIONS[name](**SOUND[name] | {argument: bad})
        assert f": {argument} must be" in str(caught.value)


OUTSIDE: list[tuple[str, dict[str, float], str]] = [
    ("qhm_from_heavy_ball", {"beta": 1.0}, r"\(-1, 1\)"),
    ("qhm_from_heavy_ball", {"lr": -0.1}, r"\[0, inf\)"),
    ("qhm_to_heavy_ball", {"nu": 0.7}, "nu = 1; .*qhm_to_synthesized_nesterov"),
    ("qhm_from_nesterov", {"beta": -1.0}, r"\(-1, 1\)"),
    ("qhm_to_nesterov", {"nu": 0.7}, "nu = beta; .*qhm_to_synthesized_nesterov"),
    ("qhm_from_pid", {"ki": 0.0}, r"\(0, inf\)"),
    ("qhm_from_pid", {"kp": 0.0}, "kp/kd < 0 or > 2"),
    ("qhm_from_pid", {"kd": 0.0}, "kd != 0"),
    ("qhm_from_pid", {"kp": 0.0, "kd": 0.0}, "kp = kd = 0 is sgd"),
    ("qhm_from_pid", {"kp": 0.7, "kd": 0.7}, "kp/kd < 0 or > 2"),
    ("qhm_from_pid", {"kp": 1.4, "kd": 0.7}, "kp/kd < 0 or > 2"),
    ("qhm_from_synthesized_nesterov", {"beta1": 0.0}, "beta1 != 0; .*sgd"),
    ("qhm_from_robust_momentum", {"kappa": 1.0}, r"\(1, inf\)"),
    ("qhm_from_robust_momentum", {"rho": 1.0}, r"\[0, 1\)"),
    ("qhm_from_robust_momentum", {"kappa": 2.0, "rho": 0.9}, "kappa rho.3 < kappa - 1; take rho"),
    ("qhm_from_robust_momentum", {"kappa": 2.0, "rho": 0.79371}, "kappa rho.3 < kappa - 1"),
    ("qhm_to_robust_momentum", {"nu": 1.0}, r"\[0, 1\)"),
    ("qhm_to_robust_momentum", {"beta": 0.0}, r"\(0, 1\)"),
    ("qhm_from_triple_momentum", {"kappa": 1.0}, r"\(1, inf\)"),
    ("qhm_to_triple_momentum", {"nu": 0.7}, "has nu = .*qhm_to_robust_momentum"),
    ("qhm_from_accsgd", {"eps": 1.5}, r"\(0, 1\]"),
    ("qhm_to_accsgd", {"nu": 1.0}, "-1/eps < nu < 1; .*qhm_to_heavy_ball"),
    ("qhm_to_accsgd", {"nu": -1.5}, "-1/eps < nu < 1"),
    ("qhm_to_accsgd", {"beta": -0.8}, "beta > -eps; take a larger eps"),
    ("qhm_to_accsgd", {"beta": -0.7}, "beta > -eps"),
    ("qhm_from_two_state", {"m": 0.0, "z": 0.0}, "lr is positive"),
    ("qhm_from_two_state", {"q": 0.9}, r"\(1 - h\) \(1 - q\) = k m"),
    ("qhm_from_two_state", {"h": 1.0}, "between 0 and 2"),
    ("qhm_from_two_state", {"h": -1.0}, "between 0 and 2"),
    ("qhm_from_two_state", {"h": 0.0}, "h \\+ q != 1; .*sgd"),
    ("qhm_from_two_state", {"m": 0.09, "z": 0.01}, "lr is positive"),
    ("qhm_from_nesterov", {"lr": 1e308, "beta": 0.99999}, "float64 cannot hold"),
    ("qhm_from_pid", {"kp": -1e-20, "kd": 1.0}, "float64 cannot hold"),  # beta rounds to 1
    ("qhm_from_pid", {"ki": 5e-324, "kp": -1e-200, "kd": 1e-200}, "float64 cannot hold"),
    ("qhm_from_accsgd", {"kappa": 1e20, "xi": 1.0}, "float64 cannot hold"),
    ("qhm_from_triple_momentum", {"kappa": 1e40}, "float64 cannot hold"),
]


@pytest.mark.parametrize(("name", "change", "message"), OUTSIDE)
def test_outside_its_domain_a_conversion_says_who_what_where_and_what_else(
    name: str, change: dict[str, float], message: str
) -> None:
    hyper = SOUND[name] | change
    with pytest.raises(ValueError, match=message) as caught:
        CONVERSIONS[name](**hyper)
    assert str(caught.value).startswith(f"{name}(")
    for argument, value in change.items():
        assert f"{argument}={value!r}" in str(caught.value)


def test_no_conversion_leaves_the_ranges_of_qhm() -> None:
    """What comes out is accepted by the rule."""
    for method, hyper in OTHERS:
        found = CONVERSIONS[f"qhm_from_{method}"](**hyper)
        assert found.keys() == {"lr", "beta", "nu"}
        assert all(value in xopt.RULES["qhm"].ranges[name] for name, value in found.items())


def test_aggmo_betas_are_the_papers() -> None:
    assert xopt.aggmo_betas() == (0.0, 0.9, 0.99) == xopt.aggmo.defaults["betas"]
    assert xopt.aggmo_betas(0.1, 5) == (0.0, 0.9, 0.99, 0.999, 0.9999)
    assert xopt.aggmo_betas(0.5, 2) == (0.0, 0.5)
    assert xopt.aggmo_betas(k=1) == (0.0,)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"a": 0.0}, ValueError, r"aggmo_betas: a must be in \(0, 1\), got 0.0"),
        ({"a": 1.0}, ValueError, r"aggmo_betas: a must be in"),
        ({"a": math.nan}, ValueError, r"aggmo_betas: a must be in"),
        ({"a": "0.1"}, TypeError, r"aggmo_betas: a must be a number"),
        ({"k": 0}, ValueError, r"aggmo_betas: k must be 1 or more, got 0"),
        ({"k": 2.0}, TypeError, r"aggmo_betas: k must be an int, got 2.0"),
        ({"k": 40}, ValueError, r"aggmo_betas: the result\[\d+\] must be in \[0, 1\), got 1.0"),
    ],
)
def test_aggmo_betas_refuses_what_gives_no_decays(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        xopt.aggmo_betas(**arguments)
