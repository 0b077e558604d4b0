"""Each rule as one would write it by hand in NumPy, and what a small eager step costs beside that."""

import statistics
import timeit
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from xopt.rules import RULES

Formula = Callable[..., tuple[Any, ...]]


def sgd(p: Any, g: Any, t: int, lr: float = 0.01, wd: float = 0.0) -> tuple[Any, ...]:
    return (p - lr * (g + wd * p),)


def momentum(p: Any, v: Any, g: Any, t: int, lr: float = 0.01, beta: float = 0.9, wd: float = 0.0) -> tuple[Any, ...]:
    v = beta * v + g
    return p - lr * (v + wd * p), v


def nesterov(p: Any, v: Any, g: Any, t: int, lr: float = 0.01, beta: float = 0.9, wd: float = 0.0) -> tuple[Any, ...]:
    v = beta * v + g
    return p - lr * (g + beta * v + wd * p), v


def qhm(p: Any, m: Any, g: Any, t: int, lr: float = 0.1, beta: float = 0.999, nu: float = 0.7, wd: float = 0.0) -> tuple[Any, ...]:
    m = m + (1 - beta) * (g - m)
    return p - lr * ((1 - nu) * g + nu * m + wd * p), m


def aggmo(
    p: Any, v: tuple[Any, ...], g: Any, t: int, lr: float = 0.1, betas: Sequence[float] = (0.9, 0.99), wd: float = 0.0
) -> tuple[Any, ...]:
    v = tuple(beta * v_i + g for beta, v_i in zip(betas, v, strict=True))
    total = g
    for v_i in v:
        total = total + v_i
    return p - lr * ((1 / (len(betas) + 1)) * total + wd * p), v


def adam(
    p: Any, m: Any, v: Any, g: Any, t: int, lr: float = 0.001, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> tuple[Any, ...]:
    m = m + (1 - b1) * (g - m)
    v = v + (1 - b2) * (g * g - v)
    return p - lr * ((1 / (1 - b1**t)) * m / (np.sqrt((1 / (1 - b2**t)) * v) + eps)), m, v


def adamw(
    p: Any,
    m: Any,
    v: Any,
    g: Any,
    t: int,
    lr: float = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    wd: float = 0.01,
) -> tuple[Any, ...]:
    m = m + (1 - b1) * (g - m)
    v = v + (1 - b2) * (g * g - v)
    u = (1 / (1 - b1**t)) * m / (np.sqrt((1 / (1 - b2**t)) * v) + eps)
    return p - lr * (u + wd * p), m, v


def nadam(
    p: Any,
    m: Any,
    v: Any,
    product: float,
    g: Any,
    t: int,
    lr: float = 0.002,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    psi: float = 0.004,
    wd: float = 0.0,
) -> tuple[Any, ...]:
    mu, mu_next = b1 * (1 - 0.5 * 0.96 ** (t * psi)), b1 * (1 - 0.5 * 0.96 ** ((t + 1) * psi))
    product = product * mu
    m = m + (1 - b1) * (g - m)
    v = v + (1 - b2) * (g * g - v)
    u = (mu_next / (1 - product * mu_next)) * m + ((1 - mu) / (1 - product)) * g
    return p - lr * (u / (np.sqrt((1 / (1 - b2**t)) * v) + eps) + wd * p), m, v, product


def qhadam(
    p: Any,
    m: Any,
    v: Any,
    g: Any,
    t: int,
    lr: float = 0.001,
    b1: float = 0.995,
    b2: float = 0.999,
    nu1: float = 0.7,
    nu2: float = 1.0,
    eps: float = 1e-8,
    wd: float = 0.0,
) -> tuple[Any, ...]:
    s = g * g
    m = m + (1 - b1) * (g - m)
    v = v + (1 - b2) * (s - v)
    u = ((1 - nu1) * g + (nu1 / (1 - b1**t)) * m) / (np.sqrt((1 - nu2) * s + (nu2 / (1 - b2**t)) * v) + eps)
    return p - lr * (u + wd * p), m, v


def lion(p: Any, m: Any, g: Any, t: int, lr: float = 0.0001, b1: float = 0.9, b2: float = 0.99, wd: float = 0.0) -> tuple[Any, ...]:
    p = p - lr * (np.sign(b1 * m + (1 - b1) * g) + wd * p)
    return p, m + (1 - b2) * (g - m)


def ademamix(
    p: Any,
    m1: Any,
    m2: Any,
    v: Any,
    g: Any,
    t: int,
    lr: float = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: float = 0.9999,
    alpha: float = 8.0,
    eps: float = 1e-8,
    wd: float = 0.0,
) -> tuple[Any, ...]:
    m1 = m1 + (1 - b1) * (g - m1)
    m2 = m2 + (1 - b3) * (g - m2)
    v = v + (1 - b2) * (g * g - v)
    u = ((1 / (1 - b1**t)) * m1 + alpha * m2) / (np.sqrt((1 / (1 - b2**t)) * v) + eps)
    return p - lr * (u + wd * p), m1, m2, v


BY_HAND: dict[str, Formula] = {
    f.__name__: f for f in (sgd, momentum, nesterov, qhm, aggmo, adam, adamw, nadam, qhadam, lion, ademamix)
}
"""Each rule's formula by hand, with no checks and no trees, in the rule's own order of operations."""


class Overhead(NamedTuple):
    rule: str
    step: float  # microseconds of xopt's step, median
    by_hand: float  # microseconds of the formula by hand, median
    ratio: float  # of the two, median over interleaved runs


def overhead(rule_name: str, size: int = 10, runs: int = 15, number: int = 2000) -> Overhead:
    """Times the hundredth step of a rule on ``size`` float32 numbers, and its formula by hand, in turn."""
    rule, by_hand, t = RULES[rule_name], BY_HAND[rule_name], 100
    draw = np.random.default_rng(0)
    grad = draw.standard_normal(size).astype(np.float32)
    state = rule.step(rule.init(draw.standard_normal(size).astype(np.float32)), grad)._replace(step=t - 1)
    columns = [tuple(x for x in c if x is not None) if isinstance(c, tuple) else c for c in state[:-1]]
    mine = timeit.Timer(lambda: rule.step(state, grad))
    theirs = timeit.Timer(lambda: by_hand(*columns, grad, t))
    pairs = [(mine.timeit(number) / number * 1e6, theirs.timeit(number) / number * 1e6) for _ in range(runs)]
    median = statistics.median
    return Overhead(rule_name, median(a for a, _ in pairs), median(b for _, b in pairs), median(a / b for a, b in pairs))
