"""AggMo's passive damping on quadratics: its Figures 1 and 3, from the rule's own step and from simulated runs.

On a quadratic of curvature c a step at lr is linear in parameter and buffers, and depends on ``s = lr * c`` alone: the rate at
which a run shrinks is what ``xopt.memory`` says of a curvature of s with an lr of 1.
"""

from collections.abc import Mapping, Sequence
from math import isclose, sqrt
from typing import Any

import numpy as np

from xopt import memory
from xopt.conformance.reproductions.outcome import Curve, Finding, Outcome, Panel, number, verdict
from xopt.rules import RULES

LR, SHOWN = 0.33, 1e-3
"""Of Figure 1, and how near a run must come, for good."""
CURVATURES = (1.0, 0.1, 0.01, 0.001, 0.0001)
CONDITIONS = tuple(10.0**k for k in range(1, 8))
FINE = 400
"""Values of lr * curvature in a decade."""

Hyper = Mapping[str, Any]
BETAS = ((0.0, 0.9, 0.99), (0.0, 0.9, 0.99, 0.999))
"""Of AggMo."""
METHODS: dict[str, tuple[str, Hyper]] = {
    "momentum 0.9": ("momentum", {"beta": 0.9}),
    "momentum 0.99": ("momentum", {"beta": 0.99}),
    "momentum 0.999": ("momentum", {"beta": 0.999}),
    "Nesterov 0.99": ("nesterov", {"beta": 0.99}),
    "Nesterov 0.999": ("nesterov", {"beta": 0.999}),
    "AggMo, K = 3": ("aggmo", {"betas": BETAS[0]}),
    "AggMo, K = 4": ("aggmo", {"betas": BETAS[1]}),
}
PICTURED = ("momentum 0.9", "momentum 0.999", "Nesterov 0.999", "AggMo, K = 4")
"""The four of Figure 1."""


def rates(rule: str, hyper: Hyper, s: Any) -> Any:
    """The share of the distance that a step leaves in the long run, at each value of lr * curvature; more than 1 diverges."""
    return memory.of(RULES[rule], lr=1.0, **hyper).rates(s)


def best_rates(rule: str, hyper: Hyper, conditions: Sequence[float]) -> list[float]:
    """For each condition number the smallest rate over lr, of the slowest direction from the smallest to the largest curvature."""
    s = np.logspace(-9, np.log10(5.0), int(FINE * (9 + np.log10(5.0))))
    rate, found = rates(rule, hyper, s), []
    for condition in conditions:
        width = int(np.floor(np.log10(condition) * FINE)) + 1  # a window of the spectrum, which is even in log s
        slowest = np.max(np.lib.stride_tricks.sliding_window_view(rate, width), axis=-1)
        found.append(float(np.min(slowest)))
    return found


def simulated(rule: str, hyper: Hyper, steps: int) -> Any:
    """The distances of a run from 1 on each of the curvatures; shape (steps + 1, curvatures)."""
    curvature = np.asarray(CURVATURES)
    bound: Any = RULES[rule].bind(lr=LR, **hyper)
    state = bound.init(np.ones_like(curvature))
    found = [state.params]
    for _ in range(steps):
        state = bound.step(state, curvature * state.params)
        found.append(state.params)
    return np.stack(found)


def settled(path: Any) -> list[int | None]:
    """The step from which on a run stays near, by curvature; None where it does not within the run."""
    far = np.abs(path) > SHOWN
    after = len(path) - np.argmax(far[::-1], axis=0)
    return [int(step) if step < len(path) else None for step in after]


def swings(path: Any) -> list[int]:
    """How often a run passes through the minimum before it has settled, by curvature."""
    crossed = (path[1:] * path[:-1] < 0) & (np.abs(path[1:]) > SHOWN)
    return [int(count) for count in np.sum(crossed, axis=0)]


def critical(beta: float) -> float:
    """The condition number for which momentum with that beta is the best: where its directions cease to swing."""
    return ((1.0 + sqrt(beta)) / (1.0 - sqrt(beta))) ** 2


def threshold(betas: Sequence[float]) -> float:
    """Of lr times curvature, above which AggMo diverges: twice the harmonic mean of 1 + beta."""
    return 2.0 * len(betas) / sum(1.0 / (1.0 + beta) for beta in betas)


def run(seeds: int, steps: int = 20_000) -> Outcome:
    """Nothing is drawn, and so nothing depends on the seeds."""
    paths = {name: simulated(*METHODS[name], steps) for name in PICTURED}
    settle = {name: settled(path) for name, path in paths.items()}
    swung = {name: swings(path) for name, path in paths.items()}
    table = {name: best_rates(*METHODS[name], CONDITIONS) for name in METHODS}
    return Outcome(
        "damping", [*_figure1(settle, swung, steps), *_figure3(table)], _panels(paths, table), SETTINGS.format(steps=steps)
    )


SETTINGS = (
    "float64, no randomness. Figure 1: lr 0.33 as printed, {steps:,} steps from 1; its eigenvalues are not printed, here 1, "
    "0.1, 0.01, 0.001 and 0.0001. Figure 3: lr at its best for each condition number, as the paper does not say how it is chosen."
)


def _figure1(settle: Mapping[str, list[int | None]], swung: Mapping[str, list[int]], steps: int) -> list[Finding]:
    def listed(name: str) -> str:
        return ", ".join("-" if step is None else f"{step:,}" for step in settle[name])

    def worst(name: str) -> float:
        return max(np.inf if step is None else step for step in settle[name])

    low, high, nesterov, aggmo = PICTURED
    claims = {
        low: ("many iterations to find the optimum", worst(low) > worst(aggmo)),
        high: ("oscillations, which prevent convergence", sum(swung[high]) > 10 * sum(swung[aggmo])),
        nesterov: (
            "faster than momentum where curvature is high, oscillates where it is low",
            (settle[nesterov][0] or steps) < (settle[high][0] or steps) and max(swung[nesterov][1:]) > max(swung[aggmo]),
        ),
        aggmo: ("oscillations damped for all eigenvalues; converges faster", worst(aggmo) == min(map(worst, PICTURED))),
    }
    return [
        Finding(
            f"{name}: steps until x is within {SHOWN:g} for good, by curvature 1 ... 0.0001",
            "Fig. 1",
            said,
            f"{listed(name)}; passes through 0: {', '.join(map(str, swung[name]))}",
            verdict(holds),
        )
        for name, (said, holds) in claims.items()
    ]


def _figure3(table: Mapping[str, Sequence[float]]) -> list[Finding]:
    names = ("AggMo, K = 3", "Nesterov 0.99", "momentum 0.9", "momentum 0.99")
    aggmo, nesterov, low, high = [1 - np.asarray(table[name]) for name in names]
    above, below = aggmo > np.maximum(low, high), aggmo < np.minimum(low, high)
    outside = [number(condition) for condition in np.asarray(CONDITIONS)[above | below]]
    faster = aggmo / nesterov
    flat = [abs(rate - sqrt(beta)) for beta, k in ((0.9, 3), (0.99, 5)) for rate in table[f"momentum {beta:g}"][:k]]
    inside = {beta: float(rates("momentum", {"beta": beta}, [0.5])[0]) for beta in (0.9, 0.99, 0.999)}
    stable = {len(betas): (threshold(betas), memory.of(RULES["aggmo"], betas=betas).stability_limit()) for betas in BETAS}
    return [
        Finding(
            "AggMo, K = 3: 1 - rate at condition numbers 10 ... 10^7, lr at its best",
            "Fig. 3",
            "between the rates of momentum 0.9 and 0.99",
            ", ".join(map(number, aggmo)) + (f"; not between at {' and '.join(outside)}" if outside else ""),
            verdict(not outside, not np.any(below)),
            "a little faster than both where it is not between them" if outside else "",
        ),
        Finding(
            "momentum 0.9 and 0.99: rate left of the critical condition number",
            "Fig. 3",
            "flat: under-damped",
            f"sqrt(beta), to {max(flat):.1e}, below {critical(0.9):,.0f} and {critical(0.99):,.0f}",
            verdict(max(flat) < 1e-12),
        ),
        Finding(
            "AggMo's rate over Nesterov's with 0.99, in 1 - rate",
            "Fig. 3, section 5",
            "about three times faster where under-damped",
            ", ".join(f"{ratio:.2f} at 10^{k}" for k, ratio in enumerate(faster[:4], 1)),
            verdict(min(faster[1:3]) > 2.5, max(faster) > 2.5),
            "2.7 at one condition number, less at the others: the paper does not say which lr it takes",
        ),
        Finding(
            "rate of under-damped momentum, from the eigenvalues",
            "theory",
            "sqrt(beta)",
            ", ".join(f"{beta:g}: sqrt(beta) {rate - sqrt(beta):+.0e}" for beta, rate in inside.items()),
            verdict(all(isclose(rate, sqrt(beta), rel_tol=1e-12) for beta, rate in inside.items())),
        ),
        Finding(
            "AggMo: lr times curvature up to which it converges",
            "derived here",
            "; ".join(f"2 K / sum of 1 / (1 + beta) = {limit:.9f}" for limit, _ in stable.values()),
            "; ".join(f"K = {k}: {found:.9f}" for k, (_, found) in stable.items()),
            verdict(all(isclose(limit, found, rel_tol=1e-9) for limit, found in stable.values())),
        ),
    ]


def _panels(paths: Mapping[str, Any], table: Mapping[str, Sequence[float]]) -> list[Panel]:
    at, panels = [*range(0, 400, 2)], []
    for name, path in paths.items():
        curves = [Curve(f"curvature {c:g}", at, _short(path[: at[-1] + 1 : 2, i])) for i, c in enumerate(CURVATURES[:4])]
        panels.append(Panel(f"{name}, lr {LR}", "step", "x", curves))
    best = [(sqrt(condition) - 1) / (sqrt(condition) + 1) for condition in CONDITIONS]
    lines = [Curve(name, list(CONDITIONS), _short(1 - np.asarray(found))) for name, found in table.items()]
    lines.append(Curve("momentum, best beta", list(CONDITIONS), _short(1 - np.asarray(best))))
    panels.append(Panel("speed by condition number", "condition number", "1 - rate", lines, log_x=True, log_y=True))
    return panels


def _short(values: Any) -> list[float | None]:
    return [float(f"{value:.4g}") for value in values]
