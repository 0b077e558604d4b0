"""NAdam: five algorithms have this name, which differ in the momentum's schedule and in what corrects which term."""

from xopt.conformance.conventions.texts import DECAY_FIRST, MOMENTS, M, Texts

nadam = Texts(
    "nadam",
    u=("u", "m_hat / (n.sqrt(v_hat + eps_root) + eps)"),
    first=M,
    words={"v_hat": MOMENTS["v_hat"]},
)

_MU = "beta1 * (0.5 + 0.5 * exp_complement(t * psi * -log(0.96)))", "beta1 * (1 - n.exp(t * psi * n.log(n.number(0.96))) / 2)"
_WEIGHTS = (
    "mu_next * m / (1 - mu_product * mu_next) + (1 - mu_now) * grad / (1 - mu_product)",
    "next_weight = mu_next / (1.0 - mu_product * mu_next)",
    "now_weight = (1.0 - mu) / (1.0 - mu_product)",
)
_NEW_PRODUCT = "+ weight_decay * params), m, v, "

NADAM = [
    nadam.default(
        "psi",
        "0.004",
        "1.0",
        "psi",
        "default 1",
        "The momentum is warmed up 250 times faster.",
        documented="keras-team/keras, nadam.py",
    ),
    nadam(
        "momentum",
        "constant",
        "There is no schedule: beta1 at every step.",
        nadam.line(_MU, "beta1 * (1.0 + 0.0 * (t * psi))", "beta1"),
        documented="optax.nadam",
    ),
    nadam(
        "momentum",
        "this step's for the next",
        "mu_t stands for mu_(t+1).",
        nadam.rule("_mu(beta1, psi, t + 1)", "_mu(beta1, psi, t)"),
        nadam.golden("mu(n, t + 1, beta1, psi)", "mu(n, t, beta1, psi)"),
        planted=("rule", "both"),
    ),
    nadam(
        "momentum",
        "from t - 1",
        "The schedule starts a step early.",
        nadam.rule("_mu(beta1, psi, t), _mu(beta1, psi, t + 1)", "_mu(beta1, psi, t - 1), _mu(beta1, psi, t)"),
        nadam.golden("mu(n, t, beta1, psi), mu(n, t + 1,", "mu(n, t - 1, beta1, psi), mu(n, t,"),
        planted=("rule", "golden"),
    ),
    nadam(
        "momentum",
        "base 0.95",
        "The schedule decays faster.",
        nadam.rule("-log(0.96)", "-log(0.95)"),
        nadam.golden("n.number(0.96)", "n.number(0.95)"),
    ),
    nadam(
        "gradient",
        "not corrected",
        "The second term is the gradient's plain share.",
        nadam.rule(_WEIGHTS[2], "now_weight = 1.0 - mu"),
        nadam.golden("(1 - mu_now) * grad / (1 - mu_product)", "(1 - mu_now) * grad"),
        documented="facebookresearch/qhoptim, from_nadam",
        planted=("rule", "both"),
    ),
    nadam(
        "average",
        "corrected by this step's product",
        "The first term is divided by the product up to t.",
        nadam.rule("1.0 - mu_product * mu_next", "1.0 - mu_product"),
        nadam.golden("1 - mu_product * mu_next", "1 - mu_product"),
    ),
    nadam(
        "numerator",
        "corrected as a whole",
        "beta1 * m + (1 - beta1) * g, without a schedule, is corrected like an average.",
        nadam.rule(_WEIGHTS[1], "next_weight = beta1 / power_complement(beta1, t)"),
        nadam.rule(_WEIGHTS[2], "now_weight = (1.0 - beta1) / power_complement(beta1, t)"),
        nadam.golden(_WEIGHTS[0], "(beta1 * m + (1 - beta1) * grad) / (1 - beta1**t)"),
        documented="huggingface/pytorch-image-models, NAdamW",
        planted=(),
    ),
    nadam(
        "product",
        "not carried",
        "The product is that of the last two steps.",
        nadam.rule("eps_root, weight_decay, mu_product)", "eps_root, weight_decay, mu)"),
        nadam.golden(f"{_NEW_PRODUCT}mu_product", f"{_NEW_PRODUCT}mu_now"),
    ),
    nadam(
        "gradient",
        "left out",
        "The look-ahead is lost.",
        nadam.rule("c.next_weight * m + c.now_weight * grad", "(c.next_weight + c.now_weight) * m"),
        nadam.golden("(1 - mu_now) * grad", "(1 - mu_now) * m"),
    ),
    nadam(
        "v",
        "corrected by the product",
        "The momentum's product corrects the second average.",
        nadam.rule("debias2 = 1.0 / power_complement(beta2, t)", "debias2 = 1.0 / (1.0 - mu_product)"),
        nadam.golden("v / (1 - beta2**t)", "v / (1 - mu_product)"),
    ),
    nadam.weight_decay("L2", documented="torch.optim.NAdam, its default"),
    nadam.weight_decay("before the step", documented="torch.optim.NAdam, decoupled", same=DECAY_FIRST, planted=()),
    nadam.weight_decay("negative"),
    nadam.weight_decay("L2, and off again", seen="HomebrewML/HeavyBall 3.2.1, utils.py: _nadam_finish_weight_decay", planted=()),
    nadam.epsilon("a floor", documented="HomebrewML/HeavyBall", planted=()),
    nadam(
        "bias correction",
        "of v missing",
        "The second average is used as it is.",
        nadam.uncorrected("v"),
        planted=("both",),
    ),
    nadam.powers_in_float32("beta2", documented="google-deepmind/optax, unless JAX has float64 on", planted=()),
]
