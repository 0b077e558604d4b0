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
    return Coefficients(lr, 1.0 - beta, nu, 1.0 - nu, weight_decay)


def update(params: Array, m: Array | None, grad: Array, c: Coefficients) -> tuple[Array, Array]:
    m = average(m, grad, c.gain)
    return params - c.lr * (c.now * grad + c.nu * m + c.weight_decay * params), m


qhm = Rule("qhm", QHMState, coefficients, update, memory={"m": "beta"})
qhm_init = qhm.init
qhm_step = qhm.step
