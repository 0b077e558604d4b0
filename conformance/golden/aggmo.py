"""AggMo, aggregated momentum.

Lucas, Sun, Zemel and Grosse, "Aggregated Momentum: Stability Through Passive Damping", ICLR 2019, arXiv:1804.00325,
with v of the opposite sign and lr called gamma:

    v_i,0 = 0                                                   for i = 1 ... K
    v_i,t = beta_i * v_i,(t-1) + g_t
    theta_t = theta_(t-1) - lr * (1 / K * (v_1,t + ... + v_K,t) + weight_decay * theta_(t-1))
"""

from typing import Any

from xopt.conformance.arithmetic.numbers import Arithmetic, Number


def initial(n: Arithmetic, params: Number, *, betas: tuple[Number, ...], **hyper: Any) -> tuple[Any, ...]:
    return params, tuple(n.number(0) for _ in betas)


def step(
    n: Arithmetic,
    params: Number,
    v: tuple[Number, ...],
    grad: Number,
    t: int,
    *,
    lr: Number = 0.1,
    betas: tuple[Number, ...] = (0.0, 0.9, 0.99),
    weight_decay: Number = 0.0,
) -> tuple[Any, ...]:
    v = tuple(beta * v_i + grad for beta, v_i in zip(betas, v, strict=True))
    total = v[0]
    for v_i in v[1:]:
        total = total + v_i
    return params - lr * (total / len(v) + weight_decay * params), v
