"""QHM, quasi-hyperbolic momentum.

Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019, arXiv:1810.06801, section 3,
where m is called g and lr is called alpha:

    m_0 = 0
    m_t = beta * m_(t-1) + (1 - beta) * g_t
    theta_t = theta_(t-1) - lr * ((1 - nu) * g_t + nu * m_t + weight_decay * theta_(t-1))
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
    lr: Number = 0.1,
    beta: Number = 0.999,
    nu: Number = 0.7,
    weight_decay: Number = 0.0,
) -> tuple[Number, ...]:
    m = beta * m + (1 - beta) * grad
    return params - lr * ((1 - nu) * grad + nu * m + weight_decay * params), m
