"""NAdam.

Dozat, "Incorporating Nesterov Momentum into Adam", ICLR workshop 2016, Algorithm 2, where beta1 is called mu, beta2
is called nu and lr is called alpha; the averages and the schedule of mu as in torch.optim.NAdam:

    m_0 = 0,  v_0 = 0,  mu_t = beta1 * (1 - 1/2 * 0.96^(t * psi))
    m_t = beta1 * m_(t-1) + (1 - beta1) * g_t
    v_t = beta2 * v_(t-1) + (1 - beta2) * g_t^2
    m^_t = mu_(t+1) * m_t / (1 - mu_1 * ... * mu_(t+1)) + (1 - mu_t) * g_t / (1 - mu_1 * ... * mu_t)
    v^_t = v_t / (1 - beta2^t)
    theta_t = theta_(t-1) - lr * (m^_t / (sqrt(v^_t + eps_root) + eps) + weight_decay * theta_(t-1))
"""

from typing import Any

from xopt.conformance.arithmetic.numbers import Arithmetic, Number


def initial(n: Arithmetic, params: Number, **hyper: Any) -> tuple[Number, ...]:
    return params, n.number(0), n.number(0), n.number(1)


def mu(n: Arithmetic, t: int, beta1: Number, psi: Number) -> Number:
    return beta1 * (1 - n.exp(t * psi * n.log(n.number(0.96))) / 2)


def step(
    n: Arithmetic,
    params: Number,
    m: Number,
    v: Number,
    mu_product: Number,
    grad: Number,
    t: int,
    *,
    lr: Number = 0.002,
    beta1: Number = 0.9,
    beta2: Number = 0.999,
    eps: Number = 1e-8,
    eps_root: Number = 0.0,
    psi: Number = 0.004,
    weight_decay: Number = 0.0,
) -> tuple[Number, ...]:
    mu_now, mu_next = mu(n, t, beta1, psi), mu(n, t + 1, beta1, psi)
    mu_product = mu_product * mu_now
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    m_hat = mu_next * m / (1 - mu_product * mu_next) + (1 - mu_now) * grad / (1 - mu_product)
    v_hat = v / (1 - beta2**t)
    return params - lr * (m_hat / (n.sqrt(v_hat + eps_root) + eps) + weight_decay * params), m, v, mu_product
