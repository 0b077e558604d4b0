"""Nesterov's accelerated gradient, in the form of Sutskever et al. and torch.

Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k^2)", 1983; Sutskever,
Martens, Dahl and Hinton, "On the importance of initialization and momentum in deep learning", 2013.

    v <- beta * v + g
    theta <- theta - lr * (g + beta * v + weight_decay * theta)

State: one array, v, from zero.

Where the conventions lie: theta is the look-ahead point, where the gradient is taken, as in torch's
SGD(nesterov=True). v is undamped and lr is not folded into it. The weight decay is decoupled and scaled by lr;
torch's SGD adds it to the gradient.
"""

from typing import NamedTuple

from xopt.checks import Beta, Rate
from xopt.operations import Array, accumulate
from xopt.rule import Rule
from xopt.scalars import Scalar
from xopt.trees import Tree


class NesterovState(NamedTuple):
    params: Tree  # theta, the look-ahead point
    v: Tree  # sum of the gradients, decayed by beta a step; None where beta = 0
    step: int  # steps taken


class Coefficients(NamedTuple):
    lr: Scalar
    beta: Scalar
    weight_decay: Scalar


def coefficients(t: Scalar, *, lr: Rate = 0.01, beta: Beta = 0.9, weight_decay: Rate = 0.0) -> Coefficients:
    """The hyperparameters of Nesterov: each a number, a 0-d array, or a tree that is a prefix of params.

    lr: in [0, inf). Step size, in units of theta over those of g. A constant gradient ends at steps of lr / (1 - beta) * g.
    beta: in [0, 1). Decay of v, no unit: it sums about 1/(1 - beta) gradients. 0 takes g itself; init then keeps no v.
    weight_decay: in [0, inf). Decoupled decay, in units of 1/lr: a step takes the share lr * weight_decay off theta. 0 is none.
    """
    return Coefficients(lr, beta, weight_decay)


def update(params: Array, v: Array | None, grad: Array, c: Coefficients) -> tuple[Array, Array]:
    v = accumulate(v, grad, c.beta)
    return params - c.lr * (grad + c.beta * v + c.weight_decay * params), v


nesterov = Rule("nesterov", NesterovState, coefficients, update, memory={"v": "beta"})
nesterov_init = nesterov.init
nesterov_step = nesterov.step
