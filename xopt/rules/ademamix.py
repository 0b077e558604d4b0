"""AdEMAMix: AdamW with a second, slow average of the gradients.

Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", ICLR 2025, arXiv:2409.03137,
Algorithm 1.

    m1 <- beta1 * m1 + (1 - beta1) * g
    m2 <- beta3(t) * m2 + (1 - beta3(t)) * g
    v <- beta2 * v + (1 - beta2) * g^2
    u = (m1^ + alpha(t) * m2) / (sqrt(v^ + eps_root) + eps)    m1^ = m1 / (1 - beta1^t),  v^ = v / (1 - beta2^t)
    theta <- theta - lr * (u + weight_decay * theta)

    alpha(t) = alpha * t / alpha_warmup, linear, until t = alpha_warmup
    mu = t / beta3_warmup, linear too, and with it the half-life of beta3(t), until t = beta3_warmup:
    1 / ln beta3(t) = (1 - mu) / ln beta1 + mu / ln beta3

State: three arrays, m1, m2 and v, from zero. With beta1 = 0 there is no m1: the gradient stands for it, and the
state is AdamW's size.

Where the conventions lie: m2 is not bias-corrected. eps is outside the square root. eps_root is optax's, 0 as
there: with more, the step has a derivative where all gradients were 0. The weight decay acts on the old theta and
is scaled by lr. The first step sees t = 1 in the warm-ups, as in Algorithm 1 and the authors'
torch file; their optax file starts at 0. The warm-ups have no 1e-8 inside the logarithm (the authors' torch
file has, and overshoots beta3), and from t = T on they return the end value itself. A warm-up of None or 0 is
off. beta3 < beta1 interpolates downward; beta1 = 0 gives beta3(t) = beta3^(T/t). alpha = 8 is the paper's
choice for its smaller models; the authors' torch file defaults to 2, their optax file to 5. The paper warms
both up over the whole run.
"""

from typing import NamedTuple

from xopt.checks import Beta, Epsilon, Rate, Steps
from xopt.operations import Array, average, sqrt
from xopt.rule import Rule
from xopt.scalars import Scalar, half_life_warmup, linear_warmup, power_complement
from xopt.trees import Tree


class AdEMAMixState(NamedTuple):
    params: Tree  # theta
    m1: Tree  # fast average of the gradients, not bias-corrected; None where beta1 = 0
    m2: Tree  # slow average of the gradients, never bias-corrected; None where beta3 = 0
    v: Tree  # average of their squares, not bias-corrected; None where beta2 = 0
    step: int  # steps taken


class Coefficients(NamedTuple):
    lr: Scalar
    gain1: Scalar  # 1 - beta1
    gain2: Scalar  # 1 - beta2
    gain3: Scalar  # 1 - beta3(t)
    debias1: Scalar  # 1 / (1 - beta1^t)
    debias2: Scalar  # 1 / (1 - beta2^t)
    alpha: Scalar  # alpha(t)
    eps: Scalar
    eps_root: Scalar
    weight_decay: Scalar


def coefficients(
    t: Scalar,
    *,
    lr: Rate = 0.001,
    beta1: Beta = 0.9,
    beta2: Beta = 0.999,
    beta3: Beta = 0.9999,
    alpha: Rate = 8.0,
    eps: Epsilon = 1e-8,
    eps_root: Epsilon = 0.0,
    weight_decay: Rate = 0.0,
    alpha_warmup: Steps = None,
    beta3_warmup: Steps = None,
) -> Coefficients:
    gain3 = half_life_warmup(beta1, beta3, t, beta3_warmup)
    debias1, debias2 = 1.0 / power_complement(beta1, t), 1.0 / power_complement(beta2, t)
    alpha = linear_warmup(alpha, t, alpha_warmup)
    return Coefficients(lr, 1.0 - beta1, 1.0 - beta2, gain3, debias1, debias2, alpha, eps, eps_root, weight_decay)


def update(
    params: Array, m1: Array | None, m2: Array | None, v: Array | None, grad: Array, c: Coefficients
) -> tuple[Array, Array, Array, Array]:
    m1 = average(m1, grad, c.gain1)
    m2 = average(m2, grad, c.gain3)
    v = average(v, grad * grad, c.gain2)
    u = (c.debias1 * m1 + c.alpha * m2) / (sqrt(c.debias2 * v + c.eps_root) + c.eps)
    return params - c.lr * (u + c.weight_decay * params), m1, m2, v


ademamix = Rule("ademamix", AdEMAMixState, coefficients, update, memory={"m1": "beta1", "m2": "beta3", "v": "beta2"})
ademamix_init = ademamix.init
ademamix_step = ademamix.step
