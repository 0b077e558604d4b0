"""AggMo: aggregated momentum, the mean of several momentum buffers with different decays.

Lucas, Sun, Zemel and Grosse, "Aggregated Momentum: Stability Through Passive Damping", ICLR 2019,
arXiv:1804.00325.

    v_i <- beta_i * v_i + g                                     for i = 1 ... K
    theta <- theta - lr * ((v_1 + ... + v_K) / K + weight_decay * theta)

State: K arrays, v_1 ... v_K, from zero; none for a beta of 0, whose buffer is the gradient.

Where the conventions lie: the buffers are undamped. Each beta has its own buffer, by position, equal betas too
(the authors' torch file keys the buffers by the value of beta, so equal ones share one that moves twice). The
sum is formed once, from left to right, then applied. ``aggmo_betas(a, k)`` gives the paper's exponential form.
The weight decay is decoupled and scaled by lr; the authors add it to the gradient.
"""

from typing import NamedTuple

from xopt.checks import Betas, Rate
from xopt.operations import Array, accumulate
from xopt.rule import Rule
from xopt.scalars import Scalar
from xopt.trees import Tree


class AggMoState(NamedTuple):
    params: Tree  # theta
    v: Tree  # for each array of params a tuple of K sums of the gradients, decayed by beta_i a step; None where beta_i = 0
    step: int  # steps taken


class Coefficients(NamedTuple):
    lr: Scalar
    betas: tuple[Scalar, ...]
    share: Scalar  # 1 / K
    weight_decay: Scalar


def coefficients(t: Scalar, *, lr: Rate = 0.1, betas: Betas = (0.0, 0.9, 0.99), weight_decay: Rate = 0.0) -> Coefficients:
    """The hyperparameters of AggMo: each a number, a 0-d array, or a tree that is a prefix of params.

    lr: in [0, inf). Step size, in units of theta over those of g: it scales the mean of the buffers.
    betas: numbers in [0, 1). Decay of each v_i, no unit: it sums about 1/(1 - beta_i) gradients. 0 takes g; init then keeps none.
    weight_decay: in [0, inf). Decoupled decay, in units of 1/lr: a step takes the share lr * weight_decay off theta. 0 is none.
    """
    return Coefficients(lr, betas, 1.0 / len(betas), weight_decay)


def update(params: Array, v: tuple[Array | None, ...], grad: Array, c: Coefficients) -> tuple[Array, tuple[Array, ...]]:
    buffers = tuple(accumulate(v_i, grad, beta_i) for v_i, beta_i in zip(v, c.betas, strict=True))
    total, *rest = buffers
    for v_i in rest:
        total = total + v_i
    return params - c.lr * (c.share * total + c.weight_decay * params), buffers


aggmo = Rule("aggmo", AggMoState, coefficients, update, memory={"v": "betas"})
aggmo_init = aggmo.init
aggmo_step = aggmo.step
