"""What theory states of rules on quadratics: rates with the best lr and beta, and where a sign ends, beside the rules."""

from collections.abc import Callable, Mapping
from math import isclose, sqrt
from typing import Any

import numpy as np

from xopt import memory
from xopt.conformance.reproductions.outcome import Curve, Finding, Outcome, Panel, number, verdict
from xopt.conversions import qhm_from_triple_momentum
from xopt.rules import RULES

LESSARD = "Lessard et al."
CONDITIONS = (10.0, 100.0, 1000.0)
CLOSE = 1e-6
"""How far a rate may be off: where two eigenvalues meet, as at the best settings, the root of a rounding error is seen."""
Settings = Callable[[float], Mapping[str, float]]


def momentum(kappa: float) -> dict[str, float]:
    """Polyak's, for curvatures from 1 / kappa to 1."""
    root = sqrt(kappa)
    return {"lr": 4 / (1 + 1 / root) ** 2, "beta": ((root - 1) / (root + 1)) ** 2}


def nesterov(kappa: float) -> dict[str, float]:
    root = sqrt(kappa)
    return {"lr": 1.0, "beta": (root - 1) / (root + 1)}


def nesterov_on_quadratics(kappa: float) -> dict[str, float]:
    root = sqrt(3 * kappa + 1)
    return {"lr": 4 / (3 + 1 / kappa), "beta": (root - 2) / (root + 2)}


STATED: dict[str, tuple[str, str, Settings, str, Callable[[float], float]]] = {
    "gradient descent": ("sgd", LESSARD, lambda k: {"lr": 2 / (1 + 1 / k)}, "(k - 1) / (k + 1)", lambda k: (k - 1) / (k + 1)),
    "momentum": ("momentum", "Polyak", momentum, "(sqrt(k) - 1) / (sqrt(k) + 1)", lambda k: (sqrt(k) - 1) / (sqrt(k) + 1)),
    "Nesterov": ("nesterov", LESSARD, nesterov, "1 - 1 / sqrt(k)", lambda k: 1 - 1 / sqrt(k)),
    "Nesterov, for quadratics": (
        "nesterov",
        LESSARD,
        nesterov_on_quadratics,
        "1 - 2 / sqrt(3 k + 1)",
        lambda k: 1 - 2 / sqrt(3 * k + 1),
    ),
    "triple momentum, as QHM": (
        "qhm",
        "Van Scoy et al.",
        lambda k: qhm_from_triple_momentum(1.0, k),
        "1 - 1 / sqrt(k)",
        lambda k: 1 - 1 / sqrt(k),
    ),
}
"""Rule, source, settings for a condition number k, and the rate that is stated."""


def rate(rule: str, hyper: Mapping[str, float], kappa: float) -> float:
    """Of the slowest of all curvatures from 1 / kappa to 1."""
    bound: Any = RULES[rule].bind(**hyper)
    return float(memory.of(bound).rates(np.geomspace(1 / kappa, 1.0, 401)).max())


def cycle(lr: float, start: float, steps: int) -> list[float]:
    """Where Lion without momentum is on x^2 / 2 after each step."""
    step: Any = RULES["lion"].bind(lr=lr, beta1=0.0)
    state, found = step.init(np.full(1, start)), []
    for _ in range(steps):
        state = step.step(state, state.params)
        found.append(float(state.params[0]))
    return found


def run(seeds: int, steps: int = 400) -> Outcome:
    """Nothing is drawn, and so nothing depends on the seeds."""
    findings, curves = [], []
    wide = np.geomspace(2.0, 1e4, 25)
    for name, (rule, place, settings, formula, stated) in STATED.items():
        found = [rate(rule, settings(kappa), kappa) for kappa in CONDITIONS]
        apart = max(abs(one - stated(kappa)) for one, kappa in zip(found, CONDITIONS, strict=True))
        findings.append(
            Finding(
                f"{name}: rate at condition numbers k = 10, 100 and 1,000",
                place,
                f"{formula}: {', '.join(f'{stated(kappa):.6f}' for kappa in CONDITIONS)}",
                f"{', '.join(f'{one:.6f}' for one in found)}; apart by {number(apart, 2)} at most",
                verdict(apart < CLOSE),
            )
        )
        speeds = [float(f"{1 - rate(rule, settings(kappa), kappa):.5g}") for kappa in wide]
        curves.append(Curve(name, [float(f"{kappa:.5g}") for kappa in wide], speeds))
    lr, start = 0.1, -1.234
    path = cycle(lr, start, steps)
    findings.append(
        Finding(
            "signs alone (Lion, beta1 = 0) on x^2 / 2, lr 0.1, from -1.234: where it ends",
            "derived here",
            "to and fro between two points that are lr apart, after ceil(|x| / lr) = 13 steps at most",
            f"{path[-1]:.3f} and {path[-2]:.3f}, from step {_ends(path)} on",
            verdict(_ends(path) <= 13 and isclose(abs(path[-1] - path[-2]), lr, rel_tol=1e-12)),
        )
    )
    panels = [
        Panel("speed by condition number", "condition number", "1 - rate", curves, log_x=True, log_y=True),
        Panel("signs alone on x^2 / 2", "step", "x", [Curve("Lion, beta1 = 0, lr 0.1", [*range(31)], [start, *path[:30]])]),
    ]
    said = (
        "float64, no randomness. Rates are the largest eigenvalues of a step's matrix, which xopt.memory reads from the rule's own "
        "text, over 401 curvatures from 1/k to 1."
    )
    return Outcome("theory", findings, panels, said)


def _ends(path: list[float]) -> int:
    """The first step from which on every other one is at the same place, to rounding."""
    same = [isclose(one, two, abs_tol=1e-12) for one, two in zip(path, path[2:], strict=False)]
    return len(same) - same[::-1].index(False) + 1 if False in same else 1
