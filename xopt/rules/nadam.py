"""NAdam: Adam with Nesterov momentum, in torch's form.

Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016, Algorithm 2.

    mu_t = beta1 * (1 - 0.96^(t * psi) / 2)
    m <- beta1 * m + (1 - beta1) * g
    v <- beta2 * v + (1 - beta2) * g^2
    m^ = mu_(t+1) * m / (1 - mu_1 ... mu_(t+1)) + (1 - mu_t) * g / (1 - mu_1 ... mu_t)
    theta <- theta - lr * (m^ / (sqrt(v^ + eps_root) + eps) + weight_decay * theta)  v^ = v / (1 - beta2^t)

State: two arrays, m and v, from zero, and the product mu_1 ... mu_t, a number.

Where the conventions lie: five algorithms share this name. This is that of torch and timm's NAdamLegacy, with
psi = 0.004. Keras has psi = 1 (the exponent t itself); optax has no schedule, beta1 * m / (1 - beta1^(t+1)) +
(1 - beta1) * g / (1 - beta1^t); timm's NAdamW corrects the bias of (beta1 * m + (1 - beta1) * g) as a whole;
QHAdam's from_nadam does not correct the second term at all. Note that psi = 0 gives mu = beta1 / 2, not beta1.
eps_root is optax's, 0 as there: with more, the step has a derivative where all gradients were 0. The weight
decay is decoupled and scaled by lr.
"""

from typing import Annotated, NamedTuple

from xopt.checks import Beta, Epsilon, Interval, Rate
from xopt.operations import Array, average, sqrt
from xopt.rule import Rule
from xopt.scalars import Scalar, exp_complement, log, power_complement
from xopt.trees import Tree


class NAdamState(NamedTuple):
    params: Tree  # theta
    m: Tree  # average of the gradients, not bias-corrected; None where beta1 = 0
    v: Tree  # average of their squares, not bias-corrected; None where beta2 = 0
    mu_product: Annotated[Tree, Interval("[0, 1]")]  # mu_1 ... mu_t, a number for each array of params
    step: int  # steps taken


class Coefficients(NamedTuple):
    lr: Scalar
    gain1: Scalar  # 1 - beta1
    gain2: Scalar  # 1 - beta2
    next_weight: Scalar  # mu_(t+1) / (1 - mu_1 ... mu_(t+1))
    now_weight: Scalar  # (1 - mu_t) / (1 - mu_1 ... mu_t)
    debias2: Scalar  # 1 / (1 - beta2^t)
    eps: Scalar
    eps_root: Scalar
    weight_decay: Scalar
    mu_product: Scalar  # mu_1 ... mu_t


def coefficients(
    t: Scalar,
    mu_product: Scalar,
    *,
    lr: Rate = 0.002,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    psi: Rate = 0.004,
    weight_decay: Rate = 0.0,
) -> Coefficients:
    mu, mu_next = _mu(beta1, psi, t), _mu(beta1, psi, t + 1)
    mu_product = mu_product * mu
    next_weight = mu_next / (1.0 - mu_product * mu_next)
    now_weight = (1.0 - mu) / (1.0 - mu_product)
    debias2 = 1.0 / power_complement(beta2, t)
    return Coefficients(lr, 1.0 - beta1, 1.0 - beta2, next_weight, now_weight, debias2, eps, eps_root, weight_decay, mu_product)


def _mu(beta1: Scalar, psi: Scalar, t: Scalar) -> Scalar:
    return beta1 * (0.5 + 0.5 * exp_complement(t * psi * -log(0.96)))


def update(
    params: Array, m: Array | None, v: Array | None, mu_product: Scalar, grad: Array, c: Coefficients
) -> tuple[Array, Array, Array, Scalar]:
    m = average(m, grad, c.gain1)
    v = average(v, grad * grad, c.gain2)
    u = (c.next_weight * m + c.now_weight * grad) / (sqrt(c.debias2 * v + c.eps_root) + c.eps)
    return params - c.lr * (u + c.weight_decay * params), m, v, c.mu_product


nadam = Rule("nadam", NAdamState, coefficients, update, memory={"m": "beta1", "v": "beta2"}, carried={"mu_product": 1.0})
nadam_init = nadam.init
nadam_step = nadam.step
