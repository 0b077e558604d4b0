"""Nesterov's accelerated gradient.

Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)", 1983; in the form of
Sutskever, Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning", ICML 2013,
equations (3) and (4), with velocity V and iterate x:

    V_t = beta * V_(t-1) - lr * gradient at (x_(t-1) + beta * V_(t-1))
    x_t = x_(t-1) + V_t

followed at the point where the gradient is taken, theta_t = x_t + beta * V_t, and with v = -V / lr:

    v_0 = 0
    v_t = beta * v_(t-1) + g_t
    theta_t = theta_(t-1) - lr * (g_t + beta * v_t + weight_decay * theta_(t-1))
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
    return params - lr * (grad + beta * v + weight_decay * params), v
