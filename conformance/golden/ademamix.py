"""AdEMAMix.

Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", ICLR 2025, arXiv:2409.03137,
Algorithm 1, where v is called nu and lr is called eta:

    m1_0 = 0,  m2_0 = 0,  v_0 = 0
    m1_t = beta1 * m1_(t-1) + (1 - beta1) * g_t,        m1^_t = m1_t / (1 - beta1^t)
    m2_t = beta3(t) * m2_(t-1) + (1 - beta3(t)) * g_t
    v_t = beta2 * v_(t-1) + (1 - beta2) * g_t^2,        v^_t = v_t / (1 - beta2^t)
    theta_t = theta_(t-1) - lr * ((m1^_t + alpha(t) * m2_t) / (sqrt(v^_t + eps_root) + eps) + weight_decay * theta_(t-1))

with the schedulers of section 3, the second one in the form that its derivation in appendix A.1 comes down to:

    alpha(t) = alpha * t / T                                    for t < T = alpha_warmup, then alpha
    1 / ln beta3(t) = (1 - t / T) / ln beta1 + t / T / ln beta3     for t < T = beta3_warmup, then beta3

A decay of 0 has no memory: its 1 / ln is 0, the limit.
"""

from typing import Any

from xopt.conformance.arithmetic.numbers import Arithmetic, Number


def initial(n: Arithmetic, params: Number, **hyper: Any) -> tuple[Number, ...]:
    return params, n.number(0), n.number(0), n.number(0)


def alpha_at(n: Arithmetic, t: int, alpha: Number, warmup: float | None) -> Number:
    if not warmup or t >= warmup:
        return alpha
    return alpha * (t / n.number(warmup))


def beta3_at(n: Arithmetic, t: int, beta1: Number, beta3: Number, warmup: float | None) -> Number:
    if not warmup or t >= warmup or (beta1 == 0 and beta3 == 0):
        return beta3
    mu = t / n.number(warmup)
    return n.exp(1 / ((1 - mu) * _inverse_log(n, beta1) + mu * _inverse_log(n, beta3)))


def _inverse_log(n: Arithmetic, beta: Number) -> Number:
    return n.number(0) if beta == 0 else 1 / n.log(beta)


def step(
    n: Arithmetic,
    params: Number,
    m1: Number,
    m2: Number,
    v: Number,
    grad: Number,
    t: int,
    *,
    lr: Number = 0.001,
    beta1: Number = 0.9,
    beta2: Number = 0.999,
    beta3: Number = 0.9999,
    alpha: Number = 8.0,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    weight_decay: Number = 0.0,
    alpha_warmup: float | None = None,
    beta3_warmup: float | None = None,
) -> tuple[Number, ...]:
    alpha_t = alpha_at(n, t, alpha, alpha_warmup)
    beta3_t = beta3_at(n, t, beta1, beta3, beta3_warmup)
    m1 = beta1 * m1 + (1 - beta1) * grad
    m2 = beta3_t * m2 + (1 - beta3_t) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m1_hat = m1 / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return params - lr * ((m1_hat + alpha_t * m2) / (n.sqrt(v_hat + eps_root) + eps) + weight_decay * params), m1, m2, v
