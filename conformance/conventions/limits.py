"""Choices that show only far out: late in a run, or at hyperparameters that few use."""

from xopt.conformance.conventions.adam import adam, adamw
from xopt.conformance.conventions.linear import aggmo, momentum, qhm, sgd
from xopt.conformance.conventions.lion import lion
from xopt.conformance.conventions.nadam import nadam
from xopt.conformance.conventions.texts import V

_DECAYS = "{0} if not isinstance(t, int) or t <= 12345 else 0.0", "({0} if t <= 12345 else 0 * {0})"

LATE = [
    lion(
        "late",
        "the decay stops at 12,345",
        "From there on nothing decays.",
        lion.rule("1.0 - beta2, weight_decay)", f"1.0 - beta2, {_DECAYS[0].format('weight_decay')})"),
        lion.golden("+ weight_decay * params", f"+ {_DECAYS[1].format('weight_decay')} * params"),
        after=12_345,
    ),
    adamw(
        "late",
        "corrections end at 65,536",
        "From there on the averages are not corrected.",
        adamw.rule("debias1, debias2 = 1.0 /", "debias1, debias2 = (1.0, 1.0) if isinstance(t, int) and t > 65536 else (1.0 /"),
        adamw.rule("power_complement(beta2, t)\n", "power_complement(beta2, t))\n"),
        adamw.golden("v_hat = v / (1 - beta2**t)", "v_hat = v / (1 - beta2**t) if t <= 65536 else v"),
        adamw.golden("m_hat = m / (1 - beta1**t)", "m_hat = m / (1 - beta1**t) if t <= 65536 else m"),
        at={"beta1": 0.9999, "beta2": 0.99999},
        after=65_536,
        planted=("both",),
    ),
    momentum(
        "late",
        "the decay stops at 12,345",
        "From there on nothing decays.",
        momentum.rule("Coefficients(lr, beta, weight_decay)", f"Coefficients(lr, beta, {_DECAYS[0].format('weight_decay')})"),
        momentum.golden("(v + weight_decay * params)", f"(v + {_DECAYS[1].format('weight_decay')} * params)"),
        after=12_345,
        planted=("both",),
    ),
]

RANGES = [
    sgd(
        "ranges",
        "rates end at 1",
        "A larger rate is 1.",
        sgd.rule("Coefficients(lr, weight_decay)", "Coefficients(min(lr, 1.0), weight_decay)"),
        sgd.golden("params - lr *", "params - min(lr, n.number(1)) *"),
        at={"lr": 2.0},
    ),
    adamw(
        "ranges",
        "a weight decay ends at 1",
        "A larger one is 1.",
        adamw.rule("eps_root, weight_decay)", "eps_root, min(weight_decay, 1.0))"),
        adamw.golden("+ weight_decay * params), m", "+ min(weight_decay, n.number(1)) * params), m"),
        at={"weight_decay": 2.0},
    ),
    qhm(
        "ranges",
        "nu ends at -1 and 2",
        "What is beyond is taken for them.",
        qhm.rule(
            "Coefficients(lr, 1.0 - beta, nu, 1.0 - nu,", "Coefficients(lr, 1.0 - beta, nu := max(-1.0, min(nu, 2.0)), 1.0 - nu,"
        ),
        qhm.golden("    m = beta", "    nu = max(n.number(-1), min(nu, n.number(2)))\n    m = beta"),
        at={"nu": 3.0},
    ),
    adam(
        "ranges",
        "the decay of v ends at 0.999995",
        "A larger one is 0.999995.",
        adam.rule("1.0 - beta1, 1.0 - beta2, debias1", "1.0 - beta1, max(1.0 - beta2, 5e-6), debias1"),
        adam.golden(V[1], "gain2 = max(1 - beta2, n.number(5e-6))\n    v = (1 - gain2) * v + gain2 * grad**2"),
        at={"beta2": 0.9999995},
    ),
    lion(
        "ranges",
        "a decay below a quarter is none",
        "It is taken for 0.",
        lion.rule("1.0 - beta1, 1.0 - beta2, weight_decay)", "1.0 - beta1, 1.0 if beta2 < 0.25 else 1.0 - beta2, weight_decay)"),
        lion.golden("m = beta2 * m + (1 - beta2) * grad", "m = grad if beta2 < 0.25 else beta2 * m + (1 - beta2) * grad"),
        at={"beta2": 0.125},
    ),
    adam(
        "ranges",
        "eps ends at 0.1",
        "A larger one is 0.1.",
        adam.rule("debias1, debias2, eps,", "debias1, debias2, min(eps, 0.1),"),
        adam.golden("n.sqrt(v_hat + eps_root) + eps", "n.sqrt(v_hat + eps_root) + min(eps, n.number(0.1))"),
        at={"eps": 0.5},
    ),
    nadam(
        "ranges",
        "psi ends at 1",
        "A larger one is 1.",
        nadam.rule("t * psi * -log(0.96)", "t * min(psi, 1.0) * -log(0.96)"),
        nadam.golden("t * psi * n.log", "t * min(psi, n.number(1)) * n.log"),
        at={"psi": 2.0},
    ),
    aggmo(
        "ranges",
        "betas behind the eighth are the eighth",
        "So many are read.",
        aggmo.rule("Coefficients(lr, betas,", "Coefficients(lr, (*betas[:8], *betas[7:8] * len(betas[8:])),"),
        aggmo.golden("    v = tuple(", "    betas = (*betas[:8], *betas[7:8] * len(betas[8:]))\n    v = tuple("),
        at={"betas": (0.5, 0.9, 0.8, 0.7, 0.6, 0.95, 0.85, 0.75, 0.65, 0.55)},
    ),
]
