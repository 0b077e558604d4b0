"""AdamW: Adam with decoupled weight decay.

Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, arXiv:1711.05101, Algorithm 2.

    m <- beta1 * m + (1 - beta1) * g
    v <- beta2 * v + (1 - beta2) * g^2
    theta <- theta - lr * (m^ / (sqrt(v^ + eps_root) + eps) + weight_decay * theta)  m^ = m / (1 - beta1^t),  v^ = v / (1 - beta2^t)

State: two arrays, m and v, from zero.

Where the conventions lie: both averages are bias-corrected, v before the square root; eps is outside the square
root, as in the paper's Algorithm 1 (TensorFlow and Keras use its "epsilon hat" instead, which acts sqrt(1 -
beta2^t) times as strongly). eps_root is optax's, 0 as there: with more, the step has a derivative where all
gradients were 0. The weight decay acts on the old theta and is scaled by lr, as in torch and optax; in the paper
it is scaled by the schedule multiplier alone.
"""

from typing import NamedTuple

from xopt.checks import Beta, Epsilon, Rate
from xopt.operations import Array, average, sqrt
from xopt.rule import Rule
from xopt.scalars import Scalar, power_complement
from xopt.trees import Tree


class AdamWState(NamedTuple):
    params: Tree  # theta
    m: Tree  # average of the gradients, not bias-corrected; None where beta1 = 0
    v: Tree  # average of their squares, not bias-corrected; None where beta2 = 0
    step: int  # steps taken


class Coefficients(NamedTuple):
    lr: Scalar
    gain1: Scalar  # 1 - beta1
    gain2: Scalar  # 1 - beta2
    debias1: Scalar  # 1 / (1 - beta1^t)
    debias2: Scalar  # 1 / (1 - beta2^t)
    eps: Scalar
    eps_root: Scalar
    weight_decay: Scalar


def coefficients(
    t: Scalar,
    *,
    lr: Rate = 0.001,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    weight_decay: Rate = 0.01,
) -> Coefficients:
    debias1, debias2 = 1.0 / power_complement(beta1, t), 1.0 / power_complement(beta2, t)
    return Coefficients(lr, 1.0 - beta1, 1.0 - beta2, debias1, debias2, eps, eps_root, weight_decay)


def update(params: Array, m: Array | None, v: Array | None, grad: Array, c: Coefficients) -> tuple[Array, Array, Array]:
    m = average(m, grad, c.gain1)
    v = average(v, grad * grad, c.gain2)
    u = c.debias1 * m / (sqrt(c.debias2 * v + c.eps_root) + c.eps)
    return params - c.lr * (u + c.weight_decay * params), m, v


adamw = Rule("adamw", AdamWState, coefficients, update, memory={"m": "beta1", "v": "beta2"})
adamw_init = adamw.init
adamw_step = adamw.step
