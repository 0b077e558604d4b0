"""AdEMAMix: what the slow average is worth, whether it is corrected, and how its schedules are counted.

The authors' own two files disagree on both defaults and counting.
"""

from xopt.conformance.conventions.texts import DECAY_FIRST, MOMENTS, Texts, V

ademamix = Texts(
    "ademamix",
    u=("u", "(m1_hat + alpha_t * m2) / (n.sqrt(v_hat + eps_root) + eps)"),
    first=("m1 = average(m1,", "m1 = beta1 * m1 +"),
    words={"v_hat": MOMENTS["v_hat"], "m1_hat": "c.debias1 * m1", "alpha_t": "c.alpha"},
)

_MIX = "m1_hat + alpha_t * m2"
_SLOW = "m2 = average(m2, grad, c.gain3)", "m2 = beta3_t * m2 + (1 - beta3_t) * grad"
_AUTHORS = "apple/ml-ademamix, optax/ademamix.py"
_HALF_LIVES = "return n.exp(1 / ((1 - mu) * _inverse_log(n, beta1) + mu * _inverse_log(n, beta3)))"
_ALPHA = "return end if t >= steps else end * (t / steps)"
_ALPHA_END = "if not warmup or t >= warmup:\n"
_TIME = "(1.0 - mu) * _time_constant(start) + mu * _time_constant(end)"
_GAIN = "gain = exp_complement(1.0 / maximum(time, 1.0 / 64.0))"

ADEMAMIX = [
    ademamix(
        "alpha",
        "ignored",
        "The slow average is not used.",
        ademamix.rule("c.debias1 * m1 + c.alpha * m2", "c.debias1 * m1 + 0.0 * m2"),
        ademamix.golden(_MIX, "m1_hat + 0 * m2"),
    ),
    ademamix("alpha", "1", "The slow average is added as it is.", ademamix.both("alpha_t * m2)", "m2)")),
    ademamix(
        "alpha",
        "on m1",
        "The fast average is multiplied.",
        ademamix.rule("c.debias1 * m1 + c.alpha * m2", "c.alpha * (c.debias1 * m1) + m2"),
        ademamix.golden(_MIX, "alpha_t * m1_hat + m2"),
        planted=("rule", "both"),
    ),
    ademamix(
        "alpha",
        "convex",
        "The averages are mixed with weights 1 - alpha and alpha.",
        ademamix.rule("c.debias1 * m1 + c.alpha * m2", "(1.0 - c.alpha) * (c.debias1 * m1) + c.alpha * m2"),
        ademamix.golden(_MIX, "(1 - alpha_t) * m1_hat + alpha_t * m2"),
        planted=("rule", "both"),
    ),
    ademamix(
        "alpha",
        "eps in its place",
        "eps is passed where alpha is meant.",
        ademamix.rule("debias2, alpha, eps,", "debias2, eps, eps,"),
        ademamix.golden(_MIX, "m1_hat + eps * m2"),
        seen="Nerogar/OneTrainer#522",
    ),
    ademamix.default(
        "alpha", "8.0", "5.0", "alpha", "default 5", "The default is that of the authors' other file.", documented=_AUTHORS
    ),
    ademamix.default(
        "alpha",
        "8.0",
        "2.0",
        "alpha",
        "default 2",
        "The default is that of the authors' torch file.",
        documented="apple/ml-ademamix, pytorch/ademamix.py",
    ),
    ademamix(
        "m2",
        "corrected by beta1",
        "The slow average is divided like the fast one.",
        ademamix.rule("c.alpha * m2", "c.debias1 * (c.alpha * m2)"),
        ademamix.golden(_MIX, "m1_hat + alpha_t * m2 / (1 - beta1**t)"),
        seen="kozistr/pytorch_optimizer 3.1.2 to 3.10.1; nanowell/AdEMAMix-Optimizer-Pytorch",
        planted=("rule", "both"),
    ),
    ademamix(
        "m2",
        "corrected by beta3",
        "The slow average is corrected for its start.",
        ademamix.rule("debias1, debias2, alpha, eps,", "debias1, debias2, alpha / power_complement(beta3, t), eps,"),
        ademamix.golden(_MIX, "m1_hat + alpha_t * m2 / (1 - beta3**t)"),
    ),
    ademamix(
        "m2",
        "with beta1",
        "The slow average is as fast as the fast one.",
        ademamix.rule("average(m2, grad, c.gain3)", "average(m2, grad, c.gain1)"),
        ademamix.golden(_SLOW[1], "m2 = beta1 * m2 + (1 - beta1) * grad"),
    ),
    ademamix(
        "betas",
        "beta2 and beta3 swapped",
        "v is slow and m2 has v's decay.",
        ademamix.rule("1.0 - beta2, gain3", "gain3, 1.0 - beta2"),
        ademamix.golden(_SLOW[1], "m2 = beta2 * m2 + (1 - beta2) * grad"),
        ademamix.golden(V[1], "v = beta3_t * v + (1 - beta3_t) * grad**2"),
    ),
    ademamix(
        "m2",
        "of the old value",
        "The step uses the slow average before the gradient.",
        ademamix.previous("m2", _SLOW, ("c.alpha * {}", "alpha_t * {})")),
    ),
    ademamix.default("beta3", "0.9999", "0.999", "beta3", "default 0.999", "The slow average is ten times shorter."),
    ademamix(
        "warm-ups",
        "ignored",
        "Both values are the last ones from the first step on.",
        ademamix.rule("alpha, t, alpha_warmup", "alpha, t, None"),
        ademamix.rule("beta3, t, beta3_warmup", "beta3, t, None"),
        ademamix.golden("t, alpha, alpha_warmup)", "t, alpha, None)"),
        ademamix.golden("beta1, beta3, beta3_warmup)", "beta1, beta3, None)"),
        seen="bitsandbytes-foundation/bitsandbytes#2075",
    ),
    ademamix(
        "warm-up of alpha",
        "from t - 1",
        "alpha starts at 0.",
        ademamix.rule("alpha, t, alpha_warmup", "alpha, t - 1, alpha_warmup"),
        ademamix.golden("alpha_at(n, t, alpha,", "alpha_at(n, t - 1, alpha,"),
        documented=_AUTHORS,
        planted=("rule", "golden", "both"),
    ),
    ademamix(
        "warm-up of beta3",
        "from t - 1",
        "beta3 starts at beta1.",
        ademamix.rule("beta3, t, beta3_warmup", "beta3, t - 1, beta3_warmup"),
        ademamix.golden("beta3_at(n, t, beta1,", "beta3_at(n, t - 1, beta1,"),
        documented=_AUTHORS,
    ),
    ademamix(
        "warm-up of beta3",
        "linear",
        "beta3 itself goes along a line.",
        ademamix.rule(
            "gain3 = half_life_warmup(beta1, beta3, t, beta3_warmup)",
            "gain3 = 1.0 - beta1 - linear_warmup(beta3 - beta1, t, beta3_warmup)",
        ),
        ademamix.golden(_HALF_LIVES, "return beta1 + (beta3 - beta1) * mu"),
        planted=("rule", "golden", "both"),
    ),
    ademamix(
        "warm-up of beta3",
        "from beta2",
        "The schedule starts at the wrong decay.",
        ademamix.rule("half_life_warmup(beta1,", "half_life_warmup(beta2,"),
        ademamix.golden("beta3_at(n, t, beta1,", "beta3_at(n, t, beta2,"),
    ),
    ademamix(
        "warm-ups",
        "one length for both",
        "beta3 is warmed up as long as alpha.",
        ademamix.rule("beta3, t, beta3_warmup", "beta3, t, alpha_warmup"),
        ademamix.golden("beta1, beta3, beta3_warmup)", "beta1, beta3, alpha_warmup)"),
        documented="kozistr/pytorch_optimizer, t_alpha_beta3",
        at={"alpha_warmup": 5, "beta3_warmup": 9},
    ),
    ademamix.weight_decay("L2", documented="kozistr/pytorch_optimizer, its default; frgfm/Holocron"),
    ademamix.weight_decay("before the step", documented="kozistr/pytorch_optimizer", same=DECAY_FIRST, planted=()),
    ademamix.weight_decay("after the step", seen="bitsandbytes-foundation/bitsandbytes#2010"),
    ademamix(
        "epsilon",
        "on the fast term alone",
        "The slow term is divided by the bare root.",
        ademamix.both(
            f"({_MIX}) / (n.sqrt(v_hat + eps_root) + eps)",
            "m1_hat / (n.sqrt(v_hat + eps_root) + eps) + alpha_t * m2 / n.sqrt(v_hat + eps_root)",
        ),
        at={"eps": 2.0**-6},
    ),
    ademamix.epsilon("inside the square root", documented="optax.contrib.ademamix: eps_root", planted=("rule", "both")),
    ademamix.epsilon_root("eps_root squared"),
    ademamix.epsilon("a floor", documented="HomebrewML/HeavyBall, utils.py", planted=()),
    ademamix(
        "v",
        "of the mixed numerator",
        "The second average is of the slow one's square.",
        ademamix.second_moment("m2 * m2", "m2**2"),
    ),
    ademamix.powers_in_float32("beta1", "beta2", documented="google-deepmind/optax, unless JAX has float64 on", planted=()),
    # the schedules themselves, which rules share
    ademamix(
        "warm-up of alpha",
        "a step too long",
        "The end is reached at T + 1.",
        ademamix.core("scalars.py", _ALPHA, "return end if t > steps else end * (t / (steps + 1))"),
        ademamix.golden(_ALPHA_END, "if not warmup or t > warmup:\n"),
        ademamix.golden("alpha * (t / n.number(warmup))", "alpha * (t / (n.number(warmup) + 1))"),
    ),
    ademamix(
        "warm-up of alpha",
        "never ends",
        "alpha grows on after T.",
        ademamix.core("scalars.py", _ALPHA, "return end * (t / steps)"),
        ademamix.golden(_ALPHA_END, "if not warmup:\n"),
        at={"alpha_warmup": 2},
    ),
    ademamix(
        "warm-up of alpha",
        "quadratic",
        "alpha grows with the square of t.",
        ademamix.core("scalars.py", "end * (t / steps)\n", "end * (t / steps) * (t / steps)\n"),
        ademamix.golden("alpha * (t / n.number(warmup))", "alpha * (t / n.number(warmup)) ** 2"),
    ),
    ademamix(
        "warm-up of beta3",
        "T itself is not the end",
        "The end is reached at T + 1.",
        ademamix.core("scalars.py", "(is_host(t, steps) and t >= steps)", "(is_host(t, steps) and t > steps)"),
        ademamix.core("scalars.py", "mu = minimum(_fraction(t, steps), 1.0)", "mu = minimum(_fraction(t, steps + 1), 1.0)"),
        ademamix.golden("t >= warmup or (beta1", "t > warmup or (beta1"),
        ademamix.golden("mu = t / n.number(warmup)", "mu = t / (n.number(warmup) + 1)"),
    ),
    ademamix(
        "warm-up of beta3",
        "1e-8 inside the logarithm",
        "beta3 overshoots its end before T.",
        ademamix.core(
            "scalars.py", "return -1.0 / log(beta) if beta > 0 else 0.0", "return -1.0 / log(beta + 1e-8) if beta > 0 else 0.0"
        ),
        ademamix.golden("1 / n.log(beta)", "1 / n.log(beta + n.number(1e-8))"),
        documented="apple/ml-ademamix, pytorch/ademamix.py; HomebrewML/HeavyBall",
        at={"beta3": 1.0 - 2.0**-18},
    ),
    ademamix(
        "warm-up of beta3",
        "linear in the logarithm",
        "ln beta goes along a line.",
        ademamix.core("scalars.py", _GAIN, "gain = exp_complement(-(1.0 - mu) * log(start) - mu * log(end))"),
        ademamix.golden(_HALF_LIVES, "return n.exp((1 - mu) * n.log(beta1) + mu * n.log(beta3))"),
    ),
    ademamix(
        "warm-up of beta3",
        "reversed",
        "beta goes from its end to its start.",
        ademamix.core("scalars.py", _TIME, "mu * _time_constant(start) + (1.0 - mu) * _time_constant(end)"),
        ademamix.golden(_HALF_LIVES, _HALF_LIVES.replace("beta1", "beta0").replace("beta3", "beta1").replace("beta0", "beta3")),
    ),
]
