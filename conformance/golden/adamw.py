"""AdamW.

Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101, Algorithm 2, with the
schedule multiplier and alpha in one lr, which scales the decay too, as in torch:

    m_0 = 0,  v_0 = 0
    m_t = beta1 * m_(t-1) + (1 - beta1) * g_t                   (line 7)
    v_t = beta2 * v_(t-1) + (1 - beta2) * g_t^2                 (line 8)
    m^_t = m_t / (1 - beta1^t)                                  (line 9)
    v^_t = v_t / (1 - beta2^t)                                  (line 10)
    theta_t = theta_(t-1) - lr * (m^_t / (sqrt(v^_t + eps_root) + eps) + weight_decay * theta_(t-1))       (line 12)
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
    weight_decay: Number = 0.01,
) -> tuple[Number, ...]:
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return params - lr * (m_hat / (n.sqrt(v_hat + eps_root) + eps) + weight_decay * params), m, v
