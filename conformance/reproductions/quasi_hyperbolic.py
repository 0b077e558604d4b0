"""QHM's and QHAdam's settings: the figures of Ma and Yarats that follow from the rules alone, taken from the rules' own steps."""

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np

from xopt.conformance.reproductions.outcome import Curve, Finding, Outcome, Panel, number, verdict
from xopt.conversions import qhm_from_nesterov
from xopt.rules import RULES

LATE = 10**6
"""Steps taken before, so that no bias is left to correct, as in Fact F.1."""
AGES = 700
"""Gradients of the worst sequence: older ones are below rounding."""
NU2 = tuple(round(0.02 * k, 2) for k in range(10, 51))
TRANSLATION = {"nu1": 0.8, "beta1": 0.95, "beta2": 0.98}
"""Of Figure 3, and of the paper's machine translation, with nu2 = 0.7."""


def bound_of(nu1: float, nu2: float, beta1: float, beta2: float) -> float:
    """Fact F.1 in the limit: the longest step in units of lr, without eps."""
    now = (1 - nu1 * beta1) ** 2 / (1 - nu2 * beta2)
    return sqrt(now + (nu1 * beta1 * (1 - beta1)) ** 2 / (nu2 * (1 - beta2) * (beta2 - beta1**2)))


def attained(rule: str, nu1: float, nu2: float, beta1: float, beta2: float) -> float:
    """The step that the rule takes on the worst gradients: in proportion to their weights in numerator and denominator."""
    age = np.arange(AGES)[::-1]
    above = nu1 * (1 - beta1) * beta1**age + (1 - nu1) * (age == 0)
    below = nu2 * (1 - beta2) * beta2**age + (1 - nu2) * (age == 0)
    hyper = {"lr": 1.0, "beta1": beta1, "beta2": beta2, "eps": 0.0} | ({"nu1": nu1, "nu2": nu2} if rule == "qhadam" else {})
    steps: Any = RULES[rule].bind(**hyper)
    grads = above / below
    state = steps.init(np.zeros(1))._replace(step=LATE)
    for g in grads[:-1]:
        state = steps.step(state, np.full(1, g))
    return float((state.params - steps.step(state, np.full(1, grads[-1])).params)[0])


def constant_step(rule: str, hyper: dict[str, Any], steps: int) -> float:
    """The step that a gradient of 1 ends at."""
    bound: Any = RULES[rule].bind(**hyper)
    state = bound.init(np.zeros(1))
    for _ in range(steps):
        before, state = state.params, bound.step(state, np.ones(1))
    return float((before - state.params)[0])


def impulse(beta: float, steps: int) -> Any:
    """The average's weights of gradients by age, from the rule's own buffer."""
    bound: Any = RULES["qhm"].bind(beta=beta, nu=1.0)
    state, found = bound.init(np.zeros(1)), []
    for t in range(steps):
        state = bound.step(state, np.full(1, float(t == 0)))
        found.append(float(state.m[0]))
    return np.asarray(found)


def apart(one: Sequence[Any], two: Sequence[Any]) -> float:
    return float(np.max(np.abs(np.asarray(one) - np.asarray(two))) / np.max(np.abs(np.asarray(one))))


def path(rule: str, hyper: dict[str, Any], seed: int, steps: int = 200) -> list[Any]:
    """Parameters on a function that is not a quadratic: the sum of log(cosh(x - c))."""
    centre = np.random.default_rng(seed).standard_normal(5)
    bound: Any = RULES[rule].bind(**hyper)
    state, found = bound.init(np.zeros(5)), []
    for _ in range(steps):
        state = bound.step(state, np.tanh(state.params - centre))
        found.append(state.params)
    return found


def run(seeds: int, steps: int = 20_000) -> Outcome:
    best = constant_step("aggmo", {"lr": 0.1, "betas": (0.0, 0.9, 0.99, 0.999)}, steps)
    closed = 0.1 / 4 * sum(1 / (1 - beta) for beta in (0.0, 0.9, 0.99, 0.999))
    limits = [bound_of(nu2=nu2, **TRANSLATION) for nu2 in NU2]
    reached = [attained("qhadam", nu2=nu2, **TRANSLATION) for nu2 in NU2[::10]]
    adam = attained("adam", 1.0, 1.0, 0.9, 0.999)
    lowest = NU2[int(np.argmin(limits))]
    parted = max(abs(one / limit - 1) for one, limit in zip(reached, limits[::10], strict=True))
    squares = float(np.sum(impulse(0.9, 500) ** 2))
    nesterov = [
        apart(path("nesterov", {"lr": 0.1, "beta": 0.9}, seed), path("qhm", dict(qhm_from_nesterov(0.1, 0.9)), seed))
        for seed in range(seeds)
    ]
    findings = [
        Finding(
            "step of AggMo-Best (lr 0.1, betas 0, 0.9, 0.99, 0.999) under a constant gradient of 1",
            "App. H",
            "rounded up to 28, for QHM-Converted",
            f"{best:.3f} after {steps:,} steps; in the limit {closed:.3f}",
            verdict(27.5 < best <= closed <= 28),
        ),
        Finding(
            "the longest step of Adam (0.9, 0.999), over lr",
            "App. F",
            "not bounded by max(1, (1 - beta1) / sqrt(1 - beta2)), 3.162, as Kingma and Ba claim",
            f"{adam:.5f}, on the worst gradients",
            verdict(adam > (1 - 0.9) / sqrt(1 - 0.999) and abs(adam / bound_of(1.0, 1.0, 0.9, 0.999) - 1) < 1e-12),
        ),
        Finding(
            "the bound of Fact F.1 for nu1 = 0.8, beta1 = 0.95, beta2 = 0.98, by nu2",
            "App. F, Fig. 3",
            "decreases for nu2 below 1, up to a point",
            f"nu2 = 1: {limits[-1]:.5f}; 0.7: {bound_of(nu2=0.7, **TRANSLATION):.5f}; smallest at {lowest:g}: {min(limits):.5f}",
            verdict(limits[-1] > limits[-2] and 0.2 < lowest < 1.0),
        ),
        Finding(
            "what QHAdam's steps reach of that bound, at five values of nu2",
            "App. F",
            "tight",
            f"all of it, to {parted:.0e}",
            verdict(parted < 1e-12),
        ),
        Finding(
            "variance of the average with beta = 0.9, over that of the gradient",
            "App. A",
            "1/19",
            f"1/{1 / squares:.12f}",
            verdict(abs(19 * squares - 1) < 1e-12),
        ),
        Finding(
            "Nesterov's momentum as QHM with nu = beta, lr / (1 - beta): largest difference of 200 steps",
            "section 4, Table 1",
            "the same",
            f"{number(max(nesterov), 2)} of the largest parameter, {seeds} functions",
            verdict(max(nesterov) < 1e-12),
        ),
    ]
    panels = [
        Panel(
            "the longest step of QHAdam, over lr",
            "nu2",
            "step / lr",
            [
                Curve("bound (Fact F.1)", list(NU2), [float(f"{limit:.5g}") for limit in limits]),
                Curve("steps taken", list(NU2[::10]), [float(f"{one:.5g}") for one in reached]),
            ],
        )
    ]
    settings = f"float64. Nothing is drawn but the functions on which QHM and Nesterov are compared, one a seed ({seeds})."
    return Outcome("quasi-hyperbolic", findings, panels, settings)
