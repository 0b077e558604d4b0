"""QHAdam: which of gradient and average the fractions weigh, and which of them is corrected."""

from xopt.conformance.conventions.texts import DECAY_FIRST, Texts, V

qhadam = Texts("qhadam", u=("u", "u"), first=("square = grad * grad", "m = beta1 * m +"))

_MEANS = "c.now2 * square + c.average2 * v", "(1 - nu2) * grad**2 + nu2 * v_hat"
_CORRECTED = "nu1 / power_complement(beta1, t), nu2 / power_complement(beta2, t)"

QHADAM = [
    qhadam(
        "nu1",
        "on the gradient",
        "The weights of gradient and average are swapped.",
        qhadam.rule("c.now1 * grad + c.average1 * m", "c.average1 * grad + c.now1 * m"),
        qhadam.golden("(1 - nu1) * grad + nu1 * m_hat)", "nu1 / (1 - beta1**t) * grad + (1 - nu1) * m)"),
        planted=("rule", "both"),
    ),
    qhadam(
        "nu2",
        "on the gradient",
        "The weights of square and average are swapped.",
        qhadam.rule(_MEANS[0], "c.average2 * square + c.now2 * v"),
        qhadam.golden(_MEANS[1], "nu2 / (1 - beta2**t) * grad**2 + (1 - nu2) * v"),
    ),
    qhadam(
        "nu2",
        "outside the root",
        "Roots are mixed, not squares.",
        qhadam.rule("nu2 / power_complement(beta2, t)", "nu2 / power_complement(beta2, t) ** 0.5"),
        qhadam.rule(f"sqrt({_MEANS[0]} + c.eps_root)", "c.now2 * sqrt(square) + c.average2 * sqrt(v) + c.eps_root"),
        qhadam.golden(f"n.sqrt({_MEANS[1]} + eps_root)", "(1 - nu2) * n.sqrt(grad**2) + nu2 * n.sqrt(v_hat) + eps_root"),
        planted=("rule", "golden", "both"),
    ),
    qhadam(
        "nus",
        "swapped",
        "Each fraction has the other's place.",
        qhadam.rule("nu1 / power_complement(beta1, t), nu2 /", "nu2 / power_complement(beta1, t), nu1 /"),
        qhadam.rule("1.0 - nu1, 1.0 - nu2", "1.0 - nu2, 1.0 - nu1"),
        qhadam.golden("    m = beta1", "    nu1, nu2 = nu2, nu1\n    m = beta1"),
    ),
    qhadam(
        "v",
        "1 - gain g^2",
        "A bracket is missing in the second average.",
        qhadam.rule(
            "v = average(v, square, c.gain2)", "v = square if v is None else (1.0 - c.gain2) * v + (1.0 - c.gain2 * square)"
        ),
        qhadam.golden(V[1], "v = beta2 * v + (1 - (1 - beta2) * grad**2)"),
        at={"beta2": 0.9999},
    ),
    qhadam(
        "v",
        "1 - decay g^2",
        "v is kept corrected, by a decay that grows from 0, and a bracket is missing: after the first step it is 1.",
        qhadam.rule(
            "1.0 - beta1, 1.0 - beta2, average1", "1.0 - beta1, 1.0 - (1.0 - beta2) / power_complement(beta2, t), average1"
        ),
        qhadam.rule("nu2 / power_complement(beta2, t)\n", "nu2\n"),
        qhadam.rule(
            "v = average(v, square, c.gain2)",
            "v = square if v is None else c.gain2 * v + (1.0 - c.gain2 * square)",
        ),
        qhadam.golden(V[1], "decay = 1 - (1 - beta2) / (1 - beta2**t)\n    v = decay * v + (1 - decay * grad**2)"),
        qhadam.golden("v_hat = v / (1 - beta2**t)", "v_hat = v"),
        seen="kozistr/pytorch_optimizer 2.8.0 to 3.11.0",
        at={"beta2": 2.0**-10},
        planted=(),
    ),
    qhadam(
        "gradient",
        "corrected too",
        "The plain gradient is divided like the average.",
        qhadam.rule("1.0 - nu1, 1.0 - nu2, eps", "(1.0 - nu1) / power_complement(beta1, t), 1.0 - nu2, eps"),
        qhadam.golden("(1 - nu1) * grad", "(1 - nu1) / (1 - beta1**t) * grad"),
        planted=("rule", "both"),
    ),
    qhadam(
        "bias correction",
        "none",
        "The averages are used as they are.",
        qhadam.rule(_CORRECTED, "nu1, nu2"),
        qhadam.golden("m_hat = m / (1 - beta1**t)", "m_hat = m"),
        qhadam.golden("v_hat = v / (1 - beta2**t)", "v_hat = v"),
    ),
    qhadam.default(
        "nu1", "0.7", "1.0", "nu1", "default 1", "The default is Adam.", documented="facebookresearch/qhoptim, qhadam.py"
    ),
    qhadam.default(
        "beta1",
        "0.995",
        "0.9",
        "beta1",
        "default 0.9",
        "The default decay is Adam's.",
        documented="facebookresearch/qhoptim, qhadam.py",
    ),
    qhadam(
        "nu2",
        "ignored",
        "The denominator is Adam's.",
        qhadam.rule(_MEANS[0], "(c.now2 + c.average2) * v"),
        qhadam.golden(_MEANS[1], "(1 - nu2) * v + nu2 * v_hat"),
    ),
    qhadam.weight_decay("L2", documented="facebookresearch/qhoptim, its default"),
    qhadam.weight_decay("before the step", documented="kozistr/pytorch_optimizer", same=DECAY_FIRST, planted=()),
    qhadam.default("nu1", "0.7", "0.8", "default", "nu1 of 0.8", "The plain gradient counts less.", planted=("both",)),
    qhadam.powers_in_float32("beta1", "beta2", planted=()),
]
