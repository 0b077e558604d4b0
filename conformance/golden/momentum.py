"""Momentum, or the heavy ball.

Polyak, "Some methods of speeding up the convergence of iteration methods", USSR Computational Mathematics and
Mathematical Physics 4(5), 1964, with the increment -lr * v as a variable of its own:

    v_0 = 0
    v_t = beta * v_(t-1) + g_t
    theta_t = theta_(t-1) - lr * (v_t + weight_decay * theta_(t-1))
"""

from typing import Any

from xopt.conformance.arithmetic.numbers import Arithmetic, Number


def initial(n: Arithmetic, params: Number, **hyper: Any) -> tuple[Number, ...]:
    return params, n.number(0)


def step(
    n: Arithmetic,
    params: Number,
    v: Number,
    grad: Number,
    t: int,
    *,
    lr: Number = 0.01,
    beta: Number = 0.9,
    weight_decay: Number = 0.0,
) -> tuple[Number, ...]:
    v = beta * v + grad
    return params - lr * (v + weight_decay * params), v
