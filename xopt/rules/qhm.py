"""QHM: quasi-hyperbolic momentum, an average of a plain gradient step and a momentum step.

Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019, arXiv:1810.06801, section 3.

    m <- beta * m + (1 - beta) * g
    theta <- theta - lr * ((1 - nu) * g + nu * m + weight_decay * theta)

State: one array, m, from zero.

Where the conventions lie: m is damped, an average, as in the paper (the authors' TensorFlow file keeps the
undamped sum). There is no bias correction. The authors' rule of thumb is nu = 0.7 and beta = 0.999, with lr =
lr' / (1 - beta') of the momentum it replaces. The weight decay is decoupled and scaled by lr, the authors'
"direct" mode. beta may be negative: some conversions from other methods ask for it.
"""

from typing import NamedTuple

from xopt.checks import Rate, Real, SignedBeta
from xopt.operations import Array, average
from xopt.rule import Rule
from xopt.scalars import Scalar
from xopt.trees import Tree


class QHMState(NamedTuple):
    params: Tree  # theta
    m: Tree  # average of the gradients, not bias-corrected; None where beta = 0
    step: int  # steps taken


class Coefficients(NamedTuple):
    lr: Scalar
    gain: Scalar  # 1 - beta
    nu: Scalar
    now: Scalar  # 1 - nu
    weight_decay: Scalar


def coefficients(t: Scalar, *, lr: Rate = 0.1, beta: SignedBeta = 0.999, nu: Real = 0.7, weight_decay: Rate = 0.0) -> Coefficients:
    """The hyperparameters of QHM: each a number, a 0-d array, or a tree that is a prefix of params.

    lr: in [0, inf). Step size, in units of theta over those of g. A constant gradient ends at steps of lr * g.
    beta: in (-1, 1). Decay of m, no unit: it averages about 1/(1 - beta) gradients. 0 takes g itself; init then keeps no m.
    nu: in (-inf, inf). Weight of the average, no unit: 0 is a plain gradient step, 1 is damped momentum.
    weight_decay: in [0, inf). Decoupled decay, in units of 1/lr: a step takes the share lr * weight_decay off theta. 0 is none.
    """
    return Coefficients(lr, 1.0 - beta, nu, 1.0 - nu, weight_decay)


def update(params: Array, m: Array | None, grad: Array, c: Coefficients) -> tuple[Array, Array]:
    m = average(m, grad, c.gain)
    return params - c.lr * (c.now * grad + c.nu * m + c.weight_decay * params), m


qhm = Rule("qhm", QHMState, coefficients, update, memory={"m": "beta"})
qhm_init = qhm.init
qhm_step = qhm.step
