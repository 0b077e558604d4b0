"""Adam.

Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, arXiv:1412.6980, Algorithm 1.

    m <- beta1 * m + (1 - beta1) * g
    v <- beta2 * v + (1 - beta2) * g^2
    theta <- theta - lr * m^ / (sqrt(v^ + eps_root) + eps)    m^ = m / (1 - beta1^t),  v^ = v / (1 - beta2^t)

State: two arrays, m and v, from zero.

Where the conventions lie: both averages are bias-corrected, v before the square root; eps is outside the square
root, as in the paper's Algorithm 1 (TensorFlow and Keras use its "epsilon hat" instead, which acts sqrt(1 -
beta2^t) times as strongly). eps_root is optax's, 0 as there: with more, the step has a derivative where all
gradients were 0. There is no weight decay here: that is AdamW.
"""

from typing import NamedTuple

from xopt.checks import Beta, Epsilon, Rate
from xopt.operations import Array, average, sqrt
from xopt.rule import Rule
from xopt.scalars import Scalar, power_complement
from xopt.trees import Tree


class AdamState(NamedTuple):
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


def coefficients(
    t: Scalar, *, lr: Rate = 0.001, beta1: Beta = 0.9, beta2: Beta = 0.999, eps: Epsilon = 1e-8, eps_root: Epsilon = 0.0
) -> Coefficients:
    debias1, debias2 = 1.0 / power_complement(beta1, t), 1.0 / power_complement(beta2, t)
    return Coefficients(lr, 1.0 - beta1, 1.0 - beta2, debias1, debias2, eps, eps_root)


def update(params: Array, m: Array | None, v: Array | None, grad: Array, c: Coefficients) -> tuple[Array, Array, Array]:
    m = average(m, grad, c.gain1)
    v = average(v, grad * grad, c.gain2)
    return params - c.lr * (c.debias1 * m / (sqrt(c.debias2 * v + c.eps_root) + c.eps)), m, v


adam = Rule("adam", AdamState, coefficients, update, memory={"m": "beta1", "v": "beta2"})
adam_init = adam.init
adam_step = adam.step
