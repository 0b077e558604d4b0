"""No false alarms: correct evaluations in other orders stay within the bound. AdamW and AdEMAMix in float32, in seven orders."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, FloatFormat
from xopt.conformance.compare.reference import Reference
from xopt.rules import RULES

F32 = FLOAT_FORMATS["float32"]
f32 = np.float32

NAMES = ("adamw", "ademamix")
STEPS = 4
SIZE = 1000
"""Trajectories that one run carries: a rule is elementwise, so that each element is one of its own."""


def fma(a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once, nearly always: float64 holds the product of two float32 exactly."""
    return (np.float64(a) * np.float64(b) + np.float64(c)).astype(f32)


def plain(x: Any) -> Any:
    return x


class Order:
    """One correct way to evaluate AdamW and AdEMAMix in float32."""

    def __init__(
        self,
        average: Callable[[Any, Any, float], Any],
        denominator: Callable[[Any, float, Any], Any],
        scale: Callable[[Any, float], Any],
        noise: Callable[[Any], Any] = plain,
        descend: Callable[[Any, Any, Any], Any] = lambda p, lr, u: p - lr * u,
    ) -> None:
        self.average, self.denominator, self.scale, self.noise, self.descend = average, denominator, scale, noise, descend

    def step(self, p: Any, m1: Any, m2: Any, v: Any, g: Any, t: int, h: dict[str, float]) -> tuple[Any, ...]:
        m1 = self.noise(self.average(m1, g, h["beta1"]))
        v = self.noise(self.average(v, self.noise(g * g), h["beta2"]))
        top = self.noise(self.scale(m1, 1 - h["beta1"] ** t))
        if m2 is not None:
            m2 = self.noise(self.average(m2, g, h["beta3"]))
            top = top + f32(h["alpha"]) * m2
        u = self.noise(top / self.denominator(v, 1 - h["beta2"] ** t, f32(h["eps"])))
        p = self.descend(p, f32(h["lr"]), u + f32(h["weight_decay"]) * p)
        return p, m1, m2, v


def naive(m: Any, g: Any, beta: float) -> Any:
    return f32(beta) * m + f32(1 - beta) * g


def lerp(m: Any, g: Any, beta: float) -> Any:
    return m + f32(1 - beta) * (g - m)


def contracted(m: Any, g: Any, beta: float) -> Any:
    return fma(f32(beta), m, f32(1 - beta) * g)


def root_then_scale(v: Any, complement: float, eps: Any) -> Any:
    return np.sqrt(v) / f32(np.sqrt(complement)) + eps


def scale_then_root(v: Any, complement: float, eps: Any) -> Any:
    return np.sqrt(v / f32(complement)) + eps


def divided(m: Any, complement: float) -> Any:
    return m / f32(complement)


def inverted(m: Any, complement: float) -> Any:
    return f32(1 / complement) * m


def wobble(x: Any) -> Any:
    """One unit in the last place off, up or down: a library whose primitives are that wrong."""
    return np.nextafter(x, np.where(np.random.default_rng(0).random(x.shape) < 0.5, -np.inf, np.inf).astype(f32))


def flush(x: Any) -> Any:
    return np.where(np.abs(x) < np.finfo(f32).smallest_normal, f32(0), x)


ORDERS: dict[str, tuple[Order, FloatFormat]] = {
    "naive": (Order(naive, scale_then_root, divided), F32),
    "lerp form": (Order(lerp, scale_then_root, divided), F32),
    "fused multiply-add": (Order(contracted, scale_then_root, inverted, descend=lambda p, lr, u: fma(-lr, u, p)), F32),
    "square root of the ratio": (Order(naive, root_then_scale, divided), F32),
    "multiplication by the inverse": (Order(lerp, scale_then_root, inverted), F32),
    "primitives off by an ulp": (
        Order(lerp, scale_then_root, divided, wobble),
        replace(F32, ulps=dict.fromkeys(("add", "multiply", "divide", "sqrt"), 1.5)),
    ),
    "subnormals flushed": (Order(naive, scale_then_root, divided, flush), replace(F32, flushes=True)),
}
"""Each with the format that the probes would measure of its library."""


class Alarms(NamedTuple):
    """How many numbers of correct trajectories left their bound."""

    alarms: int
    vacuous: int  # numbers of which the bound says nothing
    trajectories: int
    steps: int
    ratio: float  # the largest error/bound


def run_order(name: str, order: str, settings: int, size: int, seed: int) -> Alarms:
    """``size`` trajectories of four steps for each of so many settings, compared step by step and as a whole."""
    evaluation, compute = ORDERS[order]
    draw = np.random.default_rng(seed)
    alarms = vacuous = 0
    worst = 0.0
    for _ in range(settings):
        hyper = drawn_hyper(draw, name)
        p = (draw.standard_normal(size) * 10.0 ** draw.uniform(-3, 1, size)).astype(f32)
        m1, v = np.zeros(size, f32), np.zeros(size, f32)
        m2 = np.zeros(size, f32) if name == "ademamix" else None
        local, whole = (Reference(RULES[name], hyper, compute, compute, traced=False) for _ in range(2))
        whole.restart(_columns(p, m1, m2, v))
        for t in range(1, STEPS + 1):
            g = (draw.standard_normal(size) * 10.0 ** draw.uniform(-6, 6, size)).astype(f32)
            local.restart(_columns(p, m1, m2, v))
            p, m1, m2, v = evaluation.step(p, m1, m2, v, g, t, hyper)
            for reference in (local, whole):
                for comparison in reference.step(g.astype(float), t, _columns(p, m1, m2, v)):
                    ratio = comparison.ratio
                    vacuous += int(np.sum(np.isnan(ratio)))
                    alarms += int(np.sum(ratio > 1))
                    worst = max(worst, float(np.max(np.nan_to_num(ratio))))
    return Alarms(alarms, vacuous, settings * size, settings * size * STEPS, worst)


def drawn_hyper(draw: np.random.Generator, name: str) -> dict[str, float]:
    hyper = {
        "lr": 10 ** draw.uniform(-4, 0),
        "beta1": 1 - 10 ** draw.uniform(-3, -0.3),
        "beta2": 1 - 10 ** draw.uniform(-4, -1),
        "eps": 10 ** draw.uniform(-9, -3),
        "weight_decay": 10 ** draw.uniform(-3, 0),
    }
    if name == "ademamix":
        hyper |= {"beta3": 1 - 10 ** draw.uniform(-5, -2), "alpha": draw.uniform(0, 10)}
    return hyper


def _columns(*state: Any) -> tuple[Any, ...]:
    return tuple(x.astype(np.float64) for x in state if x is not None)


def false_alarms(trajectories: int = 100_000, seed: int = 1) -> dict[str, Any]:
    """At least so many correct trajectories, spread over the rules and orders: none may raise an alarm."""
    settings = -(-trajectories // (len(NAMES) * len(ORDERS) * SIZE))
    runs = [run_order(name, order, settings, SIZE, seed) for name in NAMES for order in ORDERS]
    return {
        "alarms": sum(run.alarms for run in runs),
        "vacuous": sum(run.vacuous for run in runs),
        "trajectories": sum(run.trajectories for run in runs),
        "steps": sum(run.steps for run in runs),
        "ratio": max(run.ratio for run in runs),
    }
