"""Momentum: the heavy ball.

Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.

    v <- beta * v + g
    theta <- theta - lr * (v + weight_decay * theta)

State: one array, v, from zero.

Where the conventions lie: v is undamped, as in torch and AggMo, so that a constant gradient moves the
parameters by up to lr / (1 - beta) times itself; QHM with nu = 1 is the damped form. lr is not folded into v
(Keras folds it), so a change of lr acts at once. The weight decay is decoupled and scaled by lr; torch's SGD
adds it to the gradient.
"""

from typing import NamedTuple

from xopt.checks import Beta, Rate
from xopt.operations import Array, accumulate
from xopt.rule import Rule
from xopt.scalars import Scalar
from xopt.trees import Tree


class MomentumState(NamedTuple):
    params: Tree  # theta
    v: Tree  # sum of the gradients, decayed by beta a step; None where beta = 0
    step: int  # steps taken


class Coefficients(NamedTuple):
    lr: Scalar
    beta: Scalar
    weight_decay: Scalar


def coefficients(t: Scalar, *, lr: Rate = 0.01, beta: Beta = 0.9, weight_decay: Rate = 0.0) -> Coefficients:
    """The hyperparameters of Momentum: each a number, a 0-d array, or a tree that is a prefix of params.

    lr: in [0, inf). Step size, in units of theta over those of g. A constant gradient ends at steps of lr / (1 - beta) * g.
    beta: in [0, 1). Decay of v, no unit: it sums about 1/(1 - beta) gradients. 0 takes g itself; init then keeps no v.
    weight_decay: in [0, inf). Decoupled decay, in units of 1/lr: a step takes the share lr * weight_decay off theta. 0 is none.
    """
    return Coefficients(lr, beta, weight_decay)


def update(params: Array, v: Array | None, grad: Array, c: Coefficients) -> tuple[Array, Array]:
    v = accumulate(v, grad, c.beta)
    return params - c.lr * (v + c.weight_decay * params), v


momentum = Rule("momentum", MomentumState, coefficients, update, memory={"v": "beta"})
momentum_init = momentum.init
momentum_step = momentum.step
