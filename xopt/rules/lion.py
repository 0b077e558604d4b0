"""Lion: the sign of an interpolated momentum.

Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023, arXiv:2302.06675, Algorithm 2.

    c = beta1 * m + (1 - beta1) * g
    theta <- theta - lr * (sign(c) + weight_decay * theta)
    m <- beta2 * m + (1 - beta2) * g

State: one array, m, from zero.

Where the conventions lie: the update uses the old m, which moves last. sign(0) = 0, and sign(NaN) = NaN on
every backend. There is no eps and no bias correction. The weight decay acts on the old theta and is scaled by
lr, as in the paper; the authors' torch file shrinks theta first, the same in exact arithmetic. Against AdamW
the authors advise lr 3 to 10 times smaller and weight_decay as much larger.
"""

from typing import NamedTuple

from xopt.checks import Beta, Rate
from xopt.operations import Array, average, sign
from xopt.rule import Rule
from xopt.scalars import Scalar
from xopt.trees import Tree


class LionState(NamedTuple):
    params: Tree  # theta
    m: Tree  # average of the gradients; None where beta1 = 0, which never reads it
    step: int  # steps taken


class Coefficients(NamedTuple):
    lr: Scalar
    beta1: Scalar
    now: Scalar  # 1 - beta1
    gain2: Scalar  # 1 - beta2
    weight_decay: Scalar


def coefficients(t: Scalar, *, lr: Rate = 0.0001, beta1: Beta = 0.9, beta2: Beta = 0.99, weight_decay: Rate = 0.0) -> Coefficients:
    """The hyperparameters of Lion: each a number, a 0-d array, or a tree that is a prefix of params.

    lr: in [0, inf). Step size, in units of theta: each element moves by lr a step, whatever its gradient.
    beta1: in [0, 1). Weight of m in the sign that is taken, no unit. 0 takes the sign of g; init then keeps no m.
    beta2: in [0, 1). Decay of m, no unit: it averages about 1/(1 - beta2) gradients.
    weight_decay: in [0, inf). Decoupled decay, in units of 1/lr: a step takes the share lr * weight_decay off theta. 0 is none.
    """
    return Coefficients(lr, beta1, 1.0 - beta1, 1.0 - beta2, weight_decay)


def update(params: Array, m: Array | None, grad: Array, c: Coefficients) -> tuple[Array, Array]:
    interpolated = grad if m is None else c.beta1 * m + c.now * grad
    params = params - c.lr * (sign(interpolated) + c.weight_decay * params)
    return params, average(m, grad, c.gain2)


lion = Rule("lion", LionState, coefficients, update, memory={"m": "beta1"})
lion_init = lion.init
lion_step = lion.step
