"""Gradient descent.

Robbins and Monro, "A Stochastic Approximation Method", Annals of Mathematical Statistics 22, 1951; the
decay of the weights is that of Loshchilov and Hutter, arXiv:1711.05101.

    theta_t = theta_(t-1) - lr * (g_t + weight_decay * theta_(t-1))
"""

from typing import Any

from xopt.conformance.arithmetic.numbers import Arithmetic, Number


def initial(n: Arithmetic, params: Number, **hyper: Any) -> tuple[Number, ...]:
    return (params,)


def step(
    n: Arithmetic, params: Number, grad: Number, t: int, *, lr: Number = 0.01, weight_decay: Number = 0.0
) -> tuple[Number, ...]:
    return (params - lr * (grad + weight_decay * params),)
