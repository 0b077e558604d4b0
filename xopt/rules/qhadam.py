"""QHAdam: Adam with quasi-hyperbolic averages in numerator and denominator.

Ma and Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019, arXiv:1810.06801.

    m <- beta1 * m + (1 - beta1) * g
    v <- beta2 * v + (1 - beta2) * g^2
    u = ((1 - nu1) * g + nu1 * m^) / (sqrt((1 - nu2) * g^2 + nu2 * v^ + eps_root) + eps)
    theta <- theta - lr * (u + weight_decay * theta)                            m^ = m / (1 - beta1^t),  v^ = v / (1 - beta2^t)

State: two arrays, m and v, from zero.

Where the conventions lie: the averages are bias-corrected, the plain gradient beside them is not. The state
holds the averages themselves (the authors' file stores them bias-corrected; with constant decays that is the
same update). nu1 = nu2 = 1 is Adam, nu1 = 0 with nu2 = 1 is RMSProp with bias correction. The defaults are
those that the authors recommend in their README; their code defaults to Adam. eps_root is
optax's, 0 as there: with more, the step has a derivative where all gradients were 0. The weight decay is
decoupled and scaled by lr.
"""

from typing import NamedTuple

from xopt.checks import Beta, Epsilon, Rate, Real, Share
from xopt.operations import Array, average, sqrt
from xopt.rule import Rule
from xopt.scalars import Scalar, power_complement
from xopt.trees import Tree


class QHAdamState(NamedTuple):
    params: Tree  # theta
    m: Tree  # average of the gradients, not bias-corrected; None where beta1 = 0
    v: Tree  # average of their squares, not bias-corrected; None where beta2 = 0
    step: int  # steps taken


class Coefficients(NamedTuple):
    lr: Scalar
    gain1: Scalar  # 1 - beta1
    gain2: Scalar  # 1 - beta2
    average1: Scalar  # nu1 / (1 - beta1^t), the weight of m
    average2: Scalar  # nu2 / (1 - beta2^t), the weight of v
    now1: Scalar  # 1 - nu1
    now2: Scalar  # 1 - nu2
    eps: Scalar
    eps_root: Scalar
    weight_decay: Scalar


def coefficients(
    t: Scalar,
    *,
    lr: Rate = 0.001,
    beta1: Beta = 0.995,
    beta2: Beta = 0.999,
    nu1: Real = 0.7,
    nu2: Share = 1.0,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    weight_decay: Rate = 0.0,
) -> Coefficients:
    average1, average2 = nu1 / power_complement(beta1, t), nu2 / power_complement(beta2, t)
    return Coefficients(lr, 1.0 - beta1, 1.0 - beta2, average1, average2, 1.0 - nu1, 1.0 - nu2, eps, eps_root, weight_decay)


def update(params: Array, m: Array | None, v: Array | None, grad: Array, c: Coefficients) -> tuple[Array, Array, Array]:
    square = grad * grad
    m = average(m, grad, c.gain1)
    v = average(v, square, c.gain2)
    u = (c.now1 * grad + c.average1 * m) / (sqrt(c.now2 * square + c.average2 * v + c.eps_root) + c.eps)
    return params - c.lr * (u + c.weight_decay * params), m, v


qhadam = Rule("qhadam", QHAdamState, coefficients, update, memory={"m": "beta1", "v": "beta2"})
qhadam_init = qhadam.init
qhadam_step = qhadam.step
