"""QHAdam, quasi-hyperbolic Adam.

Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019, arXiv:1810.06801, the
update rule of QHAdam, where m^ is called g', v^ is called s' and lr is called alpha:

    m_0 = 0,  v_0 = 0
    m_t = beta1 * m_(t-1) + (1 - beta1) * g_t,      m^_t = m_t / (1 - beta1^t)
    v_t = beta2 * v_(t-1) + (1 - beta2) * g_t^2,    v^_t = v_t / (1 - beta2^t)
    u_t = ((1 - nu1) * g_t + nu1 * m^_t) / (sqrt((1 - nu2) * g_t^2 + nu2 * v^_t + eps_root) + eps)
    theta_t = theta_(t-1) - lr * (u_t + weight_decay * theta_(t-1))
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
    beta1: Number = 0.995,
    beta2: Number = 0.999,
    nu1: Number = 0.7,
    nu2: Number = 1.0,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    weight_decay: Number = 0.0,
) -> tuple[Number, ...]:
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    u = ((1 - nu1) * grad + nu1 * m_hat) / (n.sqrt((1 - nu2) * grad**2 + nu2 * v_hat + eps_root) + eps)
    return params - lr * (u + weight_decay * params), m, v
