"""The designed probe: few numbers that leave a trace of every convention, and random ones that nobody has chosen.

The designed hyperparameters are powers of two, or near ones, so that no coefficient is rounded and what is seen is the formula; the
parameters are small beside a step, as what is smaller than their last digit cannot be seen in them.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from xopt.conformance.arithmetic.formats import round_to
from xopt.conformance.conventions import CONVENTIONS
from xopt.rules import RULES

Hyper = Mapping[str, Any]

DESIGNED: Hyper = {
    "lr": 2.0**-4,
    "beta": 0.75,
    "beta1": 0.75,
    "beta2": 0.875,
    "beta3": 0.9375,
    "betas": (0.5, 0.75, 0.9375),
    "nu": 0.625,
    "nu1": 0.625,
    "nu2": 0.75,
    "psi": 0.5,
    "alpha": 2.0,
    "eps": 2.0**-6,
    "eps_root": 0.0,
    "weight_decay": 2.0**-3,
}
"""Exact in every format, and no two alike."""

USUAL: Hyper = {
    "lr": 1e-3,
    "beta": 0.9,
    "beta1": 0.9,
    "beta2": 0.999,
    "beta3": 0.9999,
    "betas": (0.0, 0.9, 0.99),
    "nu": 0.7,
    "nu1": 0.7,
    "nu2": 1.0,
    "psi": 0.004,
    "alpha": 8.0,
    "eps": 1e-8,
    "eps_root": 0.0,
    "weight_decay": 0.1,
}
"""Such as people use: here the coefficients are rounded, and powers of them lose digits."""

WARMUPS: Hyper = {"alpha_warmup": 4, "beta3_warmup": 6}
"""Of two lengths, which end within a run."""

SIZE, STEPS = 24, 8


class Run(NamedTuple):
    """One trajectory of a vector: where it starts, its gradients, and its hyperparameters. ``lrs`` has a rate for each step."""

    name: str
    hyper: Hyper
    params: Any
    grads: Any  # one row a step
    lrs: tuple[float, ...] = ()
    kind: str = "formula"  # "designed", "usual" or "random": what its numbers are; "defaults": the target's own hyperparameters
    idle: int = 0  # steps before, from parameters of 0 with gradients of 0, which leave everything but the count as it was

    @property
    def _key(self) -> tuple[Any, ...]:
        return tuple(sorted(self.hyper.items())), self.lrs, self.params.tobytes(), self.grads.tobytes(), self.idle

    def __eq__(self, other: object) -> bool:
        """Whether all is the same that a step sees, whatever it is called."""
        return isinstance(other, Run) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def runs(rule: str, takes: Iterable[str], changes: bool = True, seed: int = 0, random: int = 4) -> Iterator[Run]:
    """What is run of a rule by a target that has these of its hyperparameters."""
    own = RULES[rule].defaults
    takes = set(takes)

    def given(*parts: Hyper) -> dict[str, Any]:
        return {name: x for part in parts for name, x in part.items() if name in own and name in takes}

    params, grads = designed_numbers()
    yield Run("designed", given(DESIGNED), params, grads, kind="designed")
    yield Run("usual", given(USUAL), params, grads, kind="usual")
    if {"alpha_warmup", "beta3_warmup"} & set(own) & takes:
        yield Run("warm-ups", given(DESIGNED, WARMUPS), params, grads, kind="designed")
    if changes:
        rates = tuple(2.0 ** -(4 + t % 3) for t in range(STEPS))
        yield Run("changing lr", given(DESIGNED), params, grads, rates, kind="designed")
    for at in _settings(rule):
        if set(at) <= takes and not at.items() <= {**DESIGNED, **WARMUPS}.items():
            said = ", ".join(f"{name} = {x:g}" if isinstance(x, float) else f"{name} = {x}" for name, x in at.items())
            slow = {"alpha": 2.0**10} if "beta3" in at else {}  # as a very slow average is small
            warmups = WARMUPS if {"beta3", *WARMUPS} & set(at) else {}
            yield Run(said, given(DESIGNED, warmups, slow, at), params, grads, kind="designed")
    for after, at in _late(rule):
        if set(at) <= takes:
            hyper = given(DESIGNED, {"eps": 2.0**-40}, at)  # as slow averages are small, and what shows late is not of eps
            yield Run(f"from step {after + 1:,} on", hyper, np.zeros(SIZE), grads, kind="designed", idle=after)
    for i in range(random):
        yield _random(rule, given, f"random {i + 1}", np.random.default_rng([seed, i]))
    yield Run("its own defaults", {}, params, grads, kind="defaults")


def _settings(rule: str) -> list[Hyper]:
    """Hyperparameters at which conventions of this rule show themselves."""
    found: list[Hyper] = []
    for row in CONVENTIONS:
        if row.rule == rule and row.at and not row.after and dict(row.at) not in found:
            found.append(dict(row.at))
    return found


def _late(rule: str) -> list[tuple[int, Hyper]]:
    """Steps after which conventions of this rule show themselves. No number of its state may change in a step of nothing."""
    late = {row.after: dict(row.at) for row in CONVENTIONS if row.rule == rule and row.after and not RULES[rule].carried}
    return sorted(late.items())


def designed_numbers() -> tuple[Any, Any]:
    """Parameters and gradients: over four decades, of both signs, with signs that change and zeros."""
    draw = np.random.default_rng(2**10 + 2)
    params = draw.choice([-1.0, 1.0], SIZE) * 2.0 ** draw.integers(-8, 1, SIZE)
    scale = 2.0 ** draw.integers(-9, 4, SIZE)
    grads = draw.choice([-1.0, 1.0], (STEPS, SIZE)) * draw.integers(1, 8, (STEPS, SIZE)) / 8 * scale
    grads[0, 0] = grads[:3, 1] = grads[3, 2:5] = 0.0  # nothing at first, and nothing in between
    grads[:, 5] = np.abs(grads[:, 5])
    grads[STEPS // 2 :, 6] = -grads[: STEPS // 2, 6]
    params[7] = 0.0
    return params, grads


def _random(rule: str, given: Any, name: str, draw: np.random.Generator) -> Run:
    """Hyperparameters and numbers that are drawn, all of them of float32, so that coefficients alone are rounded."""

    def decay() -> float:
        return float(np.float32(1 - 10 ** draw.uniform(-3, -0.3)))

    drawn: dict[str, Any] = {
        "lr": 10 ** draw.uniform(-3, -1),
        "betas": (decay(), decay(), decay()),
        "alpha": draw.uniform(1, 9),
        "eps": 10 ** draw.uniform(-8, -3),
        "eps_root": 0.0,
        "weight_decay": 10 ** draw.uniform(-2, 0),
        "psi": 10 ** draw.uniform(-3, 0),
        **{name: decay() for name in ("beta", "beta1", "beta2", "beta3")},
        **{name: draw.uniform(0, 1) for name in ("nu", "nu1", "nu2")},
    }
    exact = {name: x if isinstance(x, tuple) else float(np.float32(x)) for name, x in drawn.items()}
    params = draw.standard_normal(SIZE) * 10.0 ** draw.uniform(-3, 1, SIZE)
    grads = draw.standard_normal((16, SIZE)) * 10.0 ** draw.uniform(-3, 2, (16, SIZE)) * (draw.random((16, SIZE)) > 0.1)
    return Run(name, given(exact), round_to(params, "float32"), round_to(grads, "float32"), kind="random")
