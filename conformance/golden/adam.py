"""Adam.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv:1412.6980, Algorithm 1:

    m_0 = 0,  v_0 = 0
    m_t = beta1 * m_(t-1) + (1 - beta1) * g_t
    v_t = beta2 * v_(t-1) + (1 - beta2) * g_t^2
    m^_t = m_t / (1 - beta1^t)
    v^_t = v_t / (1 - beta2^t)
    theta_t = theta_(t-1) - lr * m^_t / (sqrt(v^_t + eps_root) + eps)
"""

from typing import Any

from xopt.conformance.arithmetic.numbers import Arithmetic, Number


def initial(n: Arithmetic, params: Number, **hyper: Any) -> tuple[Number, ...]:
    return params, n.number(0), n.number(0)


def step(
    n: Arithmetic,
    params: Number,
    m: Number,
    v: Number,
    grad: Number,
    t: int,
    *,
    lr: Number = 0.001,
    beta1: Number = 0.9,
    beta2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
) -> tuple[Number, ...]:
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return params - lr * m_hat / (n.sqrt(v_hat + eps_root) + eps), m, v
