"""Stochastic gradient descent.

Robbins and Monro, "A Stochastic Approximation Method", 1951.

    theta <- theta - lr * (g + weight_decay * theta)

State: the parameters and the step count.

Where the conventions lie: the weight decay is decoupled and scaled by lr. For a rule without memory that is the
same as L2 regularisation of the loss.
"""

from typing import NamedTuple

from xopt.checks import Rate
from xopt.operations import Array
from xopt.rule import Rule
from xopt.scalars import Scalar
from xopt.trees import Tree


class SGDState(NamedTuple):
    params: Tree  # theta
    step: int  # steps taken


class Coefficients(NamedTuple):
    lr: Scalar
    weight_decay: Scalar


def coefficients(t: Scalar, *, lr: Rate = 0.01, weight_decay: Rate = 0.0) -> Coefficients:
    """The hyperparameters of SGD: each a number, a 0-d array, or a tree that is a prefix of params.

    lr: in [0, inf). Step size, in units of theta over those of g.
    weight_decay: in [0, inf). Decoupled decay, in units of 1/lr: a step takes the share lr * weight_decay off theta. 0 is none.
    """
    return Coefficients(lr, weight_decay)


def update(params: Array, grad: Array, c: Coefficients) -> tuple[Array]:
    return (params - c.lr * (grad + c.weight_decay * params),)


sgd = Rule("sgd", SGDState, coefficients, update)
sgd_init = sgd.init
sgd_step = sgd.step
