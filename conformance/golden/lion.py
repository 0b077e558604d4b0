"""Lion, evolved sign momentum.

Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, arXiv:2302.06675, Algorithm 2:

    m_0 = 0
    c_t = beta1 * m_(t-1) + (1 - beta1) * g_t
    theta_t = theta_(t-1) - lr * (sign(c_t) + weight_decay * theta_(t-1))
    m_t = beta2 * m_(t-1) + (1 - beta2) * g_t
"""

from typing import Any

from xopt.conformance.arithmetic.numbers import Arithmetic, Number


def initial(n: Arithmetic, params: Number, **hyper: Any) -> tuple[Number, ...]:
    return params, n.number(0)


def step(
    n: Arithmetic,
    params: Number,
    m: Number,
    grad: Number,
    t: int,
    *,
    lr: Number = 0.0001,
    beta1: Number = 0.9,
    beta2: Number = 0.99,
    weight_decay: Number = 0.0,
) -> tuple[Number, ...]:
    c = beta1 * m + (1 - beta1) * grad
    params = params - lr * (n.sign(c) + weight_decay * params)
    m = beta2 * m + (1 - beta2) * grad
    return params, m
