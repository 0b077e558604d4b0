# ruff: noqa: E501 - an edit's text is one string
"""The catalogue: what has gone wrong in optimizers, or might, as edits of this package.

Each entry names a convention and what it is taken to be instead, so that the same list can say what another library does.
Where a fault was seen in the wild, the issue or the file is given.
"""

from xopt.conformance.faults.fault import Edit, Fault

Pair = tuple[str, str]
"""An old text and the new one."""


def _edits(file: str, pairs: tuple[Pair, ...]) -> tuple[Edit, ...]:
    return tuple(Edit(file, old, new) for old, new in pairs)


def _rule(rule: str, what: str, sentence: str, *pairs: Pair, seen: str = "") -> Fault:
    """In the text of a rule."""
    return Fault(f"{rule}, {what}", rule, _edits(f"rules/{rule}.py", pairs), sentence, seen)


def _golden(rule: str, what: str, sentence: str, *pairs: Pair) -> Fault:
    """In the golden alone: the reference is wrong and the rule is right."""
    return Fault(f"{rule}'s golden, {what}", rule, _edits(f"golden/{rule}.py", pairs), sentence)


def _twin(rule: str, what: str, sentence: str, in_rule: tuple[Pair, ...], in_golden: tuple[Pair, ...], seen: str = "") -> Fault:
    """The same misreading in both, which no comparison of the two can see."""
    edits = _edits(f"rules/{rule}.py", in_rule) + _edits(f"golden/{rule}.py", in_golden)
    return Fault(f"{rule} and its golden, {what}", rule, edits, sentence, seen)


def _core(
    rule: str, what: str, sentence: str, *edits: tuple[str, str, str], seen: str = "", equivalent: str = "", target: str = "numpy"
) -> Fault:
    """In what the rules share; ``rule`` is the one under which it is checked."""
    return Fault(f"{what} (seen under {rule})", rule, tuple(Edit(*edit) for edit in edits), sentence, seen, equivalent, target)


# The texts that the rules of Adam's family share.
_ROOT = "sqrt(c.debias2 * v) + c.eps"
_RATIO = f"c.debias1 * m / ({_ROOT})"
_M = "m = average(m, grad, c.gain1)"
_V = "v = average(v, grad * grad, c.gain2)"
_DEBIAS = "debias1, debias2 = 1.0 / power_complement(beta1, t), 1.0 / power_complement(beta2, t)"
_DECAY = "u + c.weight_decay * params"
_STEP = "return params - c.lr * (u + c.weight_decay * params)"

ADAM = [
    _rule(
        "adam",
        "bias correction: none",
        "Neither average is corrected.",
        (_RATIO, "m / (sqrt(v) + c.eps)"),
        seen="ml-explore/mlx, optimizers.py: its default",
    ),
    _rule("adam", "bias correction: of v alone", "The first average is used as it is.", ("c.debias1 * m /", "m /")),
    _rule("adam", "bias correction: of m alone", "The second average is used as it is.", ("c.debias2 * v", "v")),
    _rule(
        "adam",
        "bias correction: t + 1",
        "The correction is that of the next step.",
        (_DEBIAS, _DEBIAS.replace(", t)", ", t + 1)")),
    ),
    _rule(
        "adam",
        "bias correction: t = 1 for ever",
        "The correction of the first step stays.",
        (_DEBIAS, _DEBIAS.replace(", t)", ", 1)")),
    ),
    _rule(
        "adam",
        "bias correction: twice a step",
        "The count advances by two.",
        (_DEBIAS, _DEBIAS.replace(", t)", ", 2 * t)")),
        seen="explosion/thinc, optimizers.py: RAdam",
    ),
    _rule(
        "adam",
        "bias correction: of m with beta2",
        "Both averages are corrected by the second decay.",
        ("power_complement(beta1, t)", "power_complement(beta2, t)"),
    ),
    _rule(
        "adam",
        "epsilon: epsilon hat",
        "eps is added before the square root of v is corrected.",
        ("debias1, debias2, eps)", "debias1, debias2, eps * debias2**0.5)"),
        seen="google-deepmind/optax#571",
    ),
    _rule(
        "adam",
        "epsilon: a floor",
        "The larger of the root and eps divides.",
        (_ROOT, "0.5 * (sqrt(c.debias2 * v) + c.eps + abs(sqrt(c.debias2 * v) - c.eps))"),
        seen="HomebrewML/HeavyBall, utils.py",
    ),
    _rule("adam", "epsilon: missing", "Nothing is added to the root.", (_ROOT, "sqrt(c.debias2 * v)")),
    _rule(
        "adam",
        "epsilon: default 1e-7",
        "The default is ten times larger.",
        ("eps: Epsilon = 1e-8", "eps: Epsilon = 1e-7"),
        seen="keras-team/keras, adam.py",
    ),
    _rule(
        "adam",
        "beta2: default 0.99",
        "The second average is ten times shorter.",
        ("beta2: Beta = 0.999", "beta2: Beta = 0.99"),
        seen="HomebrewML/HeavyBall",
    ),
    _rule("adam", "lr: default 0.002", "The default is twice as large.", ("lr: Rate = 0.001", "lr: Rate = 0.002")),
    _rule("adam", "v: of |g|", "The second average is of magnitudes.", (_V, "v = average(v, abs(grad), c.gain2)")),
    _rule("adam", "v: of m^2", "The second average is of the first one's square.", (_V, "v = average(v, m * m, c.gain2)")),
    _rule(
        "adam",
        "v: of (g - m)^2",
        "The second average is of the surprise, as in AdaBelief.",
        (_V, "v = average(v, (grad - m) * (grad - m), c.gain2)"),
    ),
    _rule(
        "adam",
        "v: AMSGrad",
        "The second average never decreases.",
        (_V, "w = average(v, grad * grad, c.gain2)\n    v = w if v is None else 0.5 * (v + w + abs(v - w))"),
    ),
    _rule("adam", "square root: missing", "The second average itself divides.", ("sqrt(c.debias2 * v)", "c.debias2 * v")),
    _rule(
        "adam",
        "square root: of the correction missing",
        "The root of v is corrected by the whole factor.",
        ("sqrt(c.debias2 * v)", "c.debias2 * sqrt(v)"),
        seen="pytorch/pytorch#23737, in review",
    ),
    _rule(
        "adam",
        "m: the old one",
        "The step uses the average before the gradient.",
        (_M, f"old = grad if m is None else m\n    {_M}"),
        ("c.debias1 * m /", "c.debias1 * old /"),
    ),
    _rule("adam", "m: undamped", "m is a sum, not an average.", (_M, "m = grad if m is None else (1.0 - c.gain1) * m + grad")),
    _rule(
        "adam",
        "betas: swapped",
        "Each average has the other's decay.",
        ("1.0 - beta1, 1.0 - beta2, debias1", "1.0 - beta2, 1.0 - beta1, debias1"),
    ),
]

ADAMW = [
    _rule(
        "adamw",
        "weight decay: L2",
        "The decay is added to the gradient and so averaged and divided.",
        (_M, f"grad = grad + c.weight_decay * params\n    {_M}"),
        (_DECAY, "u"),
        seen="torch.optim.Adam; kozistr/pytorch_optimizer",
    ),
    _rule(
        "adamw",
        "weight decay: without lr",
        "The decay is not scaled by the learning rate.",
        (_STEP, "return params - c.lr * u - c.weight_decay * params"),
        seen="kozistr/pytorch_optimizer, fixed_decay",
    ),
    _rule("adamw", "weight decay: lr^2", "The decay is scaled twice.", (_DECAY, "u + c.lr * c.weight_decay * params")),
    _rule(
        "adamw",
        "weight decay: after the step",
        "The decay acts on the new parameters.",
        (_STEP, "new = params - c.lr * u\n    return new - c.lr * (c.weight_decay * new)"),
        seen="huggingface/transformers#3407; bitsandbytes-foundation/bitsandbytes#2010",
    ),
    _rule(
        "adamw",
        "weight decay: negative",
        "The parameters grow.",
        (_DECAY, "u - c.weight_decay * params"),
        seen="HomebrewML/HeavyBall, NAdam",
    ),
    _rule("adamw", "weight decay: ignored", "There is no decay.", (_DECAY, "u")),
    _rule("adamw", "weight decay: of the update's size", "The decay multiplies the update.", (_DECAY, "u + c.weight_decay * u")),
    _rule(
        "adamw",
        "weight decay: scaled by the bias correction",
        "The decay is corrected like m.",
        (_DECAY, "u + c.debias1 * (c.weight_decay * params)"),
        seen="Oneflow-Inc/oneflow#5960",
    ),
    _rule(
        "adamw",
        "weight decay: inside the ratio",
        "The decay is divided by the root.",
        ("c.debias1 * m / (", "(c.debias1 * m + c.weight_decay * params) / ("),
        (_DECAY, "u"),
    ),
    _rule(
        "adamw",
        "weight decay: of signs",
        "The decay is L1.",
        ("import Array, average, sqrt", "import Array, average, sign, sqrt"),
        (_DECAY, "u + c.weight_decay * sign(params)"),
    ),
    _rule(
        "adamw",
        "weight decay: default 1e-4",
        "The default is a hundred times smaller.",
        ("weight_decay: Rate = 0.01", "weight_decay: Rate = 0.0001"),
        seen="google-deepmind/optax, alias.py",
    ),
    _rule(
        "adamw",
        "weight decay: default 0.004",
        "The default is Keras's.",
        ("weight_decay: Rate = 0.01", "weight_decay: Rate = 0.004"),
        seen="keras-team/keras, adamw.py",
    ),
    _rule(
        "adamw",
        "epsilon: inside the square root",
        "eps is added to v.",
        (f"({_ROOT})", "sqrt(c.debias2 * v + c.eps)"),
        seen="google-deepmind/optax, eps_root",
    ),
    _rule("adamw", "epsilon: ten times", "eps is ten times what is asked for.", ("+ c.eps", "+ 10.0 * c.eps")),
    _rule(
        "adamw",
        "bias correction: none",
        "Neither average is corrected.",
        (_RATIO, "m / (sqrt(v) + c.eps)"),
        seen="ml-explore/mlx, optimizers.py",
    ),
    _rule("adamw", "bias correction: of m alone", "The second average is used as it is.", ("c.debias2 * v", "v")),
    _rule(
        "adamw",
        "v: the old one",
        "The root is of the average before the gradient.",
        (_V, f"old = grad * grad if v is None else v\n    {_V}"),
        ("sqrt(c.debias2 * v)", "sqrt(c.debias2 * old)"),
    ),
    _rule("adamw", "m: with beta2", "The first average has the second's decay.", (_M, "m = average(m, grad, c.gain2)")),
    _rule("adamw", "v: with beta1", "The second average has the first's decay.", (_V, "v = average(v, grad * grad, c.gain1)")),
    _rule(
        "adamw", "lr: one percent off", "The step is 1 % too long.", ("return Coefficients(lr,", "return Coefficients(1.01 * lr,")
    ),
    _rule("adamw", "sign: ascends", "The step goes up.", ("params - c.lr *", "params + c.lr *")),
    _rule(
        "adamw",
        "m: kept corrected",
        "The corrected average is stored and averaged again.",
        (_M, f"{_M}\n    m = c.debias1 * m"),
        (_RATIO, f"m / ({_ROOT})"),
    ),
    _rule(
        "adamw", "v: of g^4", "The second average is of fourth powers.", (_V, "v = average(v, grad * grad * grad * grad, c.gain2)")
    ),
]

_A_ROOT = "(c.debias1 * m1 + c.alpha * m2) / (sqrt(c.debias2 * v) + c.eps)"

ADEMAMIX = [
    _rule(
        "ademamix",
        "alpha: ignored",
        "The slow average is not used.",
        ("c.debias1 * m1 + c.alpha * m2", "c.debias1 * m1 + 0.0 * m2"),
    ),
    _rule("ademamix", "alpha: 1", "The slow average is added as it is.", ("c.alpha * m2", "m2")),
    _rule(
        "ademamix",
        "alpha: on m1",
        "The fast average is multiplied.",
        ("c.debias1 * m1 + c.alpha * m2", "c.alpha * (c.debias1 * m1) + m2"),
    ),
    _rule(
        "ademamix",
        "alpha: convex",
        "The averages are mixed with weights 1 - alpha and alpha.",
        ("c.debias1 * m1 + c.alpha * m2", "(1.0 - c.alpha) * (c.debias1 * m1) + c.alpha * m2"),
    ),
    _rule(
        "ademamix",
        "alpha: eps in its place",
        "eps is passed where alpha is meant.",
        ("debias2, alpha, eps,", "debias2, eps, eps,"),
        seen="Nerogar/OneTrainer#522",
    ),
    _rule(
        "ademamix",
        "alpha: default 5",
        "The default is that of the authors' other file.",
        ("alpha: Rate = 8.0", "alpha: Rate = 5.0"),
        seen="apple/ml-ademamix, optax/ademamix.py",
    ),
    _rule(
        "ademamix",
        "alpha: default 2",
        "The default is that of the authors' torch file.",
        ("alpha: Rate = 8.0", "alpha: Rate = 2.0"),
        seen="apple/ml-ademamix, pytorch/ademamix.py",
    ),
    _rule(
        "ademamix",
        "m2: corrected by beta1",
        "The slow average is divided like the fast one.",
        ("c.alpha * m2", "c.debias1 * (c.alpha * m2)"),
        seen="kozistr/pytorch_optimizer up to 3.10.1; nanowell/AdEMAMix-Optimizer-Pytorch",
    ),
    _rule(
        "ademamix",
        "m2: corrected by beta3",
        "The slow average is corrected for its start.",
        ("debias1, debias2, alpha, eps,", "debias1, debias2, alpha / power_complement(beta3, t), eps,"),
    ),
    _rule(
        "ademamix",
        "m2: with beta1",
        "The slow average is as fast as the fast one.",
        ("average(m2, grad, c.gain3)", "average(m2, grad, c.gain1)"),
    ),
    _rule(
        "ademamix",
        "betas: beta2 and beta3 swapped",
        "v is slow and m2 has v's decay.",
        ("1.0 - beta2, gain3", "gain3, 1.0 - beta2"),
    ),
    _rule(
        "ademamix",
        "m2: of the old value",
        "The step uses the slow average before the gradient.",
        ("m2 = average(m2, grad, c.gain3)", "old = grad if m2 is None else m2\n    m2 = average(m2, grad, c.gain3)"),
        ("c.alpha * m2", "c.alpha * old"),
    ),
    _rule(
        "ademamix",
        "beta3: default 0.999",
        "The slow average is ten times shorter.",
        ("beta3: Beta = 0.9999", "beta3: Beta = 0.999"),
    ),
    _rule(
        "ademamix",
        "warm-ups: ignored",
        "Both values are the last ones from the first step on.",
        ("alpha, t, alpha_warmup", "alpha, t, None"),
        ("beta3, t, beta3_warmup", "beta3, t, None"),
        seen="bitsandbytes-foundation/bitsandbytes#2075",
    ),
    _rule(
        "ademamix",
        "warm-up of alpha: from t - 1",
        "alpha starts at 0.",
        ("alpha, t, alpha_warmup", "alpha, t - 1, alpha_warmup"),
        seen="apple/ml-ademamix, optax/ademamix.py",
    ),
    _rule(
        "ademamix",
        "warm-up of beta3: from t - 1",
        "beta3 starts at beta1.",
        ("beta3, t, beta3_warmup", "beta3, t - 1, beta3_warmup"),
        seen="apple/ml-ademamix, optax/ademamix.py",
    ),
    _rule(
        "ademamix",
        "warm-up of beta3: linear",
        "beta3 itself goes along a line.",
        (
            "gain3 = half_life_warmup(beta1, beta3, t, beta3_warmup)",
            "gain3 = 1.0 - beta1 - linear_warmup(beta3 - beta1, t, beta3_warmup)",
        ),
    ),
    _rule(
        "ademamix",
        "warm-up of beta3: from beta2",
        "The schedule starts at the wrong decay.",
        ("half_life_warmup(beta1,", "half_life_warmup(beta2,"),
    ),
    _rule(
        "ademamix",
        "warm-ups: one length for both",
        "beta3 is warmed up as long as alpha.",
        ("beta3, t, beta3_warmup", "beta3, t, alpha_warmup"),
        seen="kozistr/pytorch_optimizer, t_alpha_beta3",
    ),
    _rule(
        "ademamix",
        "weight decay: L2",
        "The decay is added to the gradient.",
        ("m1 = average(m1,", "grad = grad + c.weight_decay * params\n    m1 = average(m1,"),
        (_DECAY, "u"),
        seen="kozistr/pytorch_optimizer, its default; frgfm/Holocron",
    ),
    _rule(
        "ademamix",
        "weight decay: after the step",
        "The decay acts on the new parameters.",
        (_STEP, "new = params - c.lr * u\n    return new - c.lr * (c.weight_decay * new)"),
        seen="bitsandbytes-foundation/bitsandbytes#2010",
    ),
    _rule(
        "ademamix",
        "epsilon: on the fast term alone",
        "The slow term is divided by the bare root.",
        (_A_ROOT, f"c.debias1 * m1 / ({_ROOT}) + c.alpha * m2 / sqrt(c.debias2 * v)"),
    ),
    _rule("ademamix", "epsilon: inside the square root", "eps is added to v.", (f"({_ROOT})", "sqrt(c.debias2 * v + c.eps)")),
    _rule(
        "ademamix",
        "v: of the mixed numerator",
        "The second average is of the slow one's square.",
        (_V, "v = average(v, m2 * m2, c.gain2)"),
    ),
]

_MU = "beta1 * (0.5 + 0.5 * exp_complement(t * psi * -log(0.96)))"

NADAM = [
    _rule(
        "nadam",
        "psi: default 1",
        "The momentum is warmed up 250 times faster.",
        ("psi: Rate = 0.004", "psi: Rate = 1.0"),
        seen="keras-team/keras, nadam.py",
    ),
    _rule(
        "nadam",
        "momentum: constant",
        "There is no schedule: beta1 at every step.",
        (_MU, "beta1 * (1.0 + 0.0 * (t * psi))"),
        seen="google-deepmind/optax, nadam",
    ),
    _rule(
        "nadam", "momentum: this step's for the next", "mu_t stands for mu_(t+1).", ("_mu(beta1, psi, t + 1)", "_mu(beta1, psi, t)")
    ),
    _rule(
        "nadam",
        "momentum: from t - 1",
        "The schedule starts a step early.",
        ("_mu(beta1, psi, t), _mu(beta1, psi, t + 1)", "_mu(beta1, psi, t - 1), _mu(beta1, psi, t)"),
    ),
    _rule("nadam", "momentum: base 0.95", "The schedule decays faster.", ("-log(0.96)", "-log(0.95)")),
    _rule(
        "nadam",
        "gradient: not corrected",
        "The second term is the gradient's plain share.",
        ("now_weight = (1.0 - mu) / (1.0 - mu_product)", "now_weight = 1.0 - mu"),
        seen="facebookresearch/qhoptim, from_nadam",
    ),
    _rule(
        "nadam",
        "average: corrected by this step's product",
        "The first term is divided by the product up to t.",
        ("1.0 - mu_product * mu_next", "1.0 - mu_product"),
    ),
    _rule(
        "nadam",
        "product: not carried",
        "The product is that of the last two steps.",
        ("debias2, eps, weight_decay, mu_product)", "debias2, eps, weight_decay, mu)"),
    ),
    _rule(
        "nadam",
        "gradient: left out",
        "The look-ahead is lost.",
        ("c.next_weight * m + c.now_weight * grad", "(c.next_weight + c.now_weight) * m"),
    ),
    _rule(
        "nadam",
        "v: corrected by the product",
        "The momentum's product corrects the second average.",
        ("debias2 = 1.0 / power_complement(beta2, t)", "debias2 = 1.0 / (1.0 - mu_product)"),
    ),
    _rule(
        "nadam",
        "weight decay: L2",
        "The decay is added to the gradient.",
        (_M, f"grad = grad + c.weight_decay * params\n    {_M}"),
        (_DECAY, "u"),
        seen="torch.optim.NAdam, its default",
    ),
    _rule(
        "nadam",
        "weight decay: negative",
        "The parameters grow.",
        (_DECAY, "u - c.weight_decay * params"),
        seen="HomebrewML/HeavyBall 3.2.1",
    ),
]

_QU = "u = (c.now1 * grad + c.average1 * m) / (sqrt(c.now2 * square + c.average2 * v) + c.eps)"

QHADAM = [
    _rule(
        "qhadam",
        "nu1: on the gradient",
        "The weights of gradient and average are swapped.",
        ("c.now1 * grad + c.average1 * m", "c.average1 * grad + c.now1 * m"),
    ),
    _rule(
        "qhadam",
        "nu2: on the gradient",
        "The weights of square and average are swapped.",
        ("c.now2 * square + c.average2 * v", "c.average2 * square + c.now2 * v"),
    ),
    _rule(
        "qhadam",
        "nu2: outside the root",
        "Roots are mixed, not squares.",
        ("sqrt(c.now2 * square + c.average2 * v)", "c.now2 * sqrt(square) + c.average2 * sqrt(v)"),
    ),
    _rule(
        "qhadam",
        "nus: swapped",
        "Each fraction has the other's place.",
        ("nu1 / power_complement(beta1, t), nu2 /", "nu2 / power_complement(beta1, t), nu1 /"),
        ("1.0 - nu1, 1.0 - nu2", "1.0 - nu2, 1.0 - nu1"),
    ),
    _rule(
        "qhadam",
        "v: 1 - gain g^2",
        "A bracket is missing in the second average.",
        ("v = average(v, square, c.gain2)", "v = square if v is None else (1.0 - c.gain2) * v + (1.0 - c.gain2 * square)"),
        seen="kozistr/pytorch_optimizer 3.3.0 to 3.11.0",
    ),
    _rule(
        "qhadam",
        "gradient: corrected too",
        "The plain gradient is divided like the average.",
        ("1.0 - nu1, 1.0 - nu2, eps", "(1.0 - nu1) / power_complement(beta1, t), 1.0 - nu2, eps"),
    ),
    _rule(
        "qhadam",
        "bias correction: none",
        "The averages are used as they are.",
        ("nu1 / power_complement(beta1, t), nu2 / power_complement(beta2, t)", "nu1, nu2"),
    ),
    _rule(
        "qhadam",
        "nu1: default 1",
        "The default is Adam.",
        ("nu1: Real = 0.7", "nu1: Real = 1.0"),
        seen="facebookresearch/qhoptim, qhadam.py",
    ),
    _rule(
        "qhadam",
        "beta1: default 0.9",
        "The default decay is Adam's.",
        ("beta1: Beta = 0.995", "beta1: Beta = 0.9"),
        seen="facebookresearch/qhoptim, qhadam.py",
    ),
    _rule(
        "qhadam", "nu2: ignored", "The denominator is Adam's.", ("c.now2 * square + c.average2 * v", "(c.now2 + c.average2) * v")
    ),
    _rule(
        "qhadam",
        "weight decay: L2",
        "The decay is added to the gradient.",
        ("square = grad * grad", "grad = grad + c.weight_decay * params\n    square = grad * grad"),
        (_DECAY, "u"),
        seen="facebookresearch/qhoptim, its default",
    ),
]

_LION_STEP = "params = params - c.lr * (sign(interpolated) + c.weight_decay * params)"

LION = [
    _rule(
        "lion",
        "sign: of the new average",
        "The sign is taken after m has moved.",
        ("interpolated = grad if m is None else c.beta1 * m + c.now * grad", "interpolated = average(m, grad, c.gain2)"),
    ),
    _rule(
        "lion",
        "betas: swapped",
        "Each decay has the other's place.",
        ("Coefficients(lr, beta1, 1.0 - beta1, 1.0 - beta2,", "Coefficients(lr, beta2, 1.0 - beta2, 1.0 - beta1,"),
    ),
    _rule(
        "lion",
        "m: averaged twice",
        "The interpolation is what m becomes.",
        ("return params, average(m, grad, c.gain2)", "return params, interpolated"),
    ),
    _rule(
        "lion",
        "sign: of 0 is 1",
        "A parameter moves where nothing pulls it.",
        ("sign(interpolated) +", "sign(sign(interpolated) + 0.5) +"),
    ),
    _rule(
        "lion",
        "weight decay: inside the sign",
        "The decay joins the vote.",
        ("sign(interpolated) + c.weight_decay * params", "sign(interpolated + c.weight_decay * params)"),
        seen="bitsandbytes-foundation/bitsandbytes#1992",
    ),
    _rule(
        "lion",
        "weight decay: L2",
        "The decay is added to the gradient.",
        ("interpolated = grad if", "grad = grad + c.weight_decay * params\n    interpolated = grad if"),
        ("sign(interpolated) + c.weight_decay * params", "sign(interpolated)"),
        seen="bitsandbytes-foundation/bitsandbytes#1992",
    ),
    _rule(
        "lion",
        "weight decay: after the step",
        "The decay acts on the new parameters.",
        (_LION_STEP, "params = params - c.lr * sign(interpolated)\n    params = params - c.lr * (c.weight_decay * params)"),
    ),
    _rule("lion", "sign: left out", "The interpolation itself is the step.", ("sign(interpolated) +", "interpolated +")),
    _rule(
        "lion",
        "lr: inside the average",
        "m is an average of steps.",
        ("average(m, grad, c.gain2)", "average(m, c.lr * grad, c.gain2)"),
    ),
    _rule(
        "lion",
        "weight decay: default 0.001",
        "The default is optax's.",
        ("weight_decay: Rate = 0.0)", "weight_decay: Rate = 0.001)"),
        seen="google-deepmind/optax, alias.py",
    ),
    _rule(
        "lion",
        "lr: default 0.001",
        "The default is Keras's.",
        ("lr: Rate = 0.0001", "lr: Rate = 0.001"),
        seen="keras-team/keras, lion.py",
    ),
    _rule(
        "lion",
        "sign: smooth",
        "Small interpolations give small steps.",
        ("sign(interpolated) +", "interpolated / (abs(interpolated) + 1e-3) +"),
        seen="google-deepmind/optax, lion's mode smooth",
    ),
]

QHM = [
    _rule(
        "qhm",
        "nu: on the gradient",
        "The weights of gradient and average are swapped.",
        ("c.now * grad + c.nu * m", "c.nu * grad + c.now * m"),
    ),
    _rule(
        "qhm",
        "m: undamped",
        "m is a sum, not an average.",
        ("m = average(m, grad, c.gain)", "m = grad if m is None else (1.0 - c.gain) * m + grad"),
        seen="facebookresearch/qhoptim, tf/qhm.py, without its compensation",
    ),
    _rule(
        "qhm",
        "m: the old one",
        "The step uses the average before the gradient.",
        ("m = average(m, grad, c.gain)", "old = grad if m is None else m\n    m = average(m, grad, c.gain)"),
        ("c.nu * m", "c.nu * old"),
    ),
    _rule(
        "qhm",
        "bias correction: of m",
        "The average is corrected for its start.",
        ("1.0 - beta, nu, 1.0 - nu", "1.0 - beta, nu / (1.0 - beta**t), 1.0 - nu"),
    ),
    _rule(
        "qhm",
        "nu: default 1",
        "The plain gradient has no share.",
        ("nu: Real = 0.7", "nu: Real = 1.0"),
        seen="kozistr/pytorch_optimizer, qhm.py",
    ),
    _rule(
        "qhm",
        "beta: default 0.9",
        "The average is a hundred times shorter.",
        ("beta: SignedBeta = 0.999", "beta: SignedBeta = 0.9"),
    ),
    _rule(
        "qhm",
        "weight decay: L2",
        "The decay is added to the gradient.",
        ("m = average(m,", "grad = grad + c.weight_decay * params\n    m = average(m,"),
        (" + c.weight_decay * params), m", "), m"),
        seen="facebookresearch/qhoptim, its default",
    ),
    _rule("qhm", "gradient: whole", "The plain gradient has weight 1.", ("c.now * grad", "grad")),
]

AGGMO = [
    _rule("aggmo", "mean: a sum", "The buffers are added and not divided.", ("1.0 / len(betas)", "1.0")),
    _rule(
        "aggmo",
        "buffers: damped",
        "Each buffer is an average.",
        ("accumulate(v_i, grad, beta_i)", "accumulate(v_i, grad if v_i is None else (1.0 - beta_i) * grad, beta_i)"),
    ),
    _rule(
        "aggmo",
        "betas: in reverse",
        "The buffers have each other's decays.",
        ("zip(v, c.betas, strict=True)", "zip(v, c.betas[::-1], strict=True)"),
    ),
    _rule(
        "aggmo",
        "betas: the last for all",
        "There is one decay.",
        ("zip(v, c.betas, strict=True)", "zip(v, c.betas[-1:] * len(v), strict=True)"),
    ),
    _rule(
        "aggmo",
        "equal betas: one buffer",
        "Equal decays share a buffer that moves once for each.",
        (
            "    total, *rest = buffers",
            "    shared: dict = {}\n    for v_i, beta_i in zip(v, c.betas, strict=True):\n        shared[float(getattr(beta_i, 'value', beta_i))] = accumulate(shared.get(float(getattr(beta_i, 'value', beta_i)), v_i), grad, beta_i)\n    buffers = tuple(shared[float(getattr(beta_i, 'value', beta_i))] for beta_i in c.betas)\n    total, *rest = buffers",
        ),
        seen="AtheMathmo/AggMo, aggmo.py; kozistr/pytorch_optimizer",
    ),
    _rule(
        "aggmo", "mean: without the last", "The slowest buffer is kept but not used.", ("for v_i in rest:", "for v_i in rest[:-1]:")
    ),
    _rule(
        "aggmo",
        "weight decay: shared out",
        "The decay is divided by the number of buffers.",
        ("c.share * total + c.weight_decay * params", "c.share * (total + c.weight_decay * params)"),
    ),
    _rule(
        "aggmo",
        "weight decay: L2",
        "The decay is added to the gradient.",
        ("    buffers = tuple(", "    grad = grad + c.weight_decay * params\n    buffers = tuple("),
        ("c.share * total + c.weight_decay * params", "c.share * total"),
        seen="AtheMathmo/AggMo, aggmo.py",
    ),
    _rule(
        "aggmo",
        "betas: default (0, 0.9, 0.999)",
        "The slowest default is ten times slower.",
        ("(0.0, 0.9, 0.99)", "(0.0, 0.9, 0.999)"),
    ),
    _rule(
        "aggmo",
        "lr: default 0.001",
        "The default is a hundredth.",
        ("lr: Rate = 0.1", "lr: Rate = 0.001"),
        seen="kozistr/pytorch_optimizer, aggmo.py",
    ),
]

MOMENTUM = [
    _rule(
        "momentum",
        "dampening: beta",
        "v is an average.",
        ("v = accumulate(v, grad, c.beta)", "v = accumulate(v, grad if v is None else (1.0 - c.beta) * grad, c.beta)"),
        seen="torch.optim.SGD with dampening",
    ),
    _rule(
        "momentum",
        "lr: in the buffer",
        "v is a sum of steps, and lr scales it again.",
        ("accumulate(v, grad, c.beta)", "accumulate(v, c.lr * grad, c.beta)"),
        seen="keras-team/keras, sgd.py, where the second scaling is left out",
    ),
    _rule(
        "momentum",
        "look-ahead: Nesterov's",
        "The step is that of nesterov.",
        ("(v + c.weight_decay", "(grad + c.beta * v + c.weight_decay"),
    ),
    _rule(
        "momentum",
        "v: the old one",
        "The step uses the sum before the gradient.",
        (
            "v = accumulate(v, grad, c.beta)\n    return params - c.lr * (v +",
            "old, v = (grad if v is None else v), accumulate(v, grad, c.beta)\n    return params - c.lr * (old +",
        ),
    ),
    _rule(
        "momentum",
        "weight decay: L2",
        "The decay is added to the gradient.",
        ("v = accumulate(", "grad = grad + c.weight_decay * params\n    v = accumulate("),
        (" + c.weight_decay * params), v", "), v"),
        seen="torch.optim.SGD",
    ),
    _rule("momentum", "beta: default 0.99", "The default momentum is ten times longer.", ("beta: Beta = 0.9", "beta: Beta = 0.99")),
]

NESTEROV = [
    _rule(
        "nesterov",
        "look-ahead: missing",
        "The step is that of the heavy ball.",
        ("grad + c.beta * v", "v"),
        seen="bitsandbytes-foundation/bitsandbytes, sgd.py: nesterov is accepted and ignored",
    ),
    _rule(
        "nesterov",
        "v: the old one",
        "The look-ahead is from the sum before the gradient.",
        (
            "v = accumulate(v, grad, c.beta)\n    return params - c.lr * (grad + c.beta * v +",
            "old, v = (grad if v is None else v), accumulate(v, grad, c.beta)\n    return params - c.lr * (grad + c.beta * old +",
        ),
    ),
    _rule(
        "nesterov",
        "look-ahead: twice",
        "The look-ahead is a step too far.",
        ("grad + c.beta * v", "grad + c.beta * (grad + c.beta * v)"),
    ),
    _rule("nesterov", "look-ahead: without beta", "The sum is added undecayed.", ("grad + c.beta * v", "grad + v")),
    _rule(
        "nesterov",
        "dampening: beta",
        "v is an average.",
        ("v = accumulate(v, grad, c.beta)", "v = accumulate(v, grad if v is None else (1.0 - c.beta) * grad, c.beta)"),
    ),
    _rule(
        "nesterov",
        "weight decay: L2",
        "The decay is added to the gradient.",
        ("v = accumulate(", "grad = grad + c.weight_decay * params\n    v = accumulate("),
        (" + c.weight_decay * params), v", "), v"),
        seen="torch.optim.SGD",
    ),
]

_SGD_STEP = "params - c.lr * (grad + c.weight_decay * params)"

SGD = [
    _rule("sgd", "sign: ascends", "The step goes up.", (_SGD_STEP, "params + c.lr * (grad + c.weight_decay * params)")),
    _rule(
        "sgd",
        "step: relative to the parameter",
        "The gradient is multiplied by the parameter.",
        (_SGD_STEP, "params - c.lr * (params * grad + c.weight_decay * params)"),
    ),
    _rule("sgd", "lr: squared", "The rate is applied twice.", ("(grad + c.weight_decay", "(c.lr * grad + c.weight_decay")),
    _rule(
        "sgd",
        "weight decay: without lr",
        "The decay is not scaled by the learning rate.",
        (_SGD_STEP, "params - c.lr * grad - c.weight_decay * params"),
    ),
    _rule(
        "sgd",
        "weight decay: negative",
        "The parameters grow.",
        ("grad + c.weight_decay * params", "grad - c.weight_decay * params"),
    ),
    _rule(
        "sgd",
        "weight decay: halved",
        "The decay is the gradient of a quarter of the square.",
        ("c.weight_decay * params)", "0.5 * c.weight_decay * params)"),
    ),
    _rule("sgd", "lr: default 0.001", "The default is torch's.", ("lr: Rate = 0.01", "lr: Rate = 0.001"), seen="torch.optim.SGD"),
    _rule(
        "sgd",
        "gradient: written to",
        "The decay is added to the caller's gradient.",
        ("return (params", "grad += c.weight_decay * params\n    return (params"),
        ("(grad + c.weight_decay * params),)", "grad,)"),
        seen="AtheMathmo/AggMo; kozistr/pytorch_optimizer",
    ),
    _rule(
        "sgd",
        "parameters: written to",
        "The step is made in the caller's array.",
        ("return (params", "params -= c.lr * (grad + c.weight_decay * params)\n    return (params"),
        (" - c.lr * (grad + c.weight_decay * params),)", ",)"),
    ),
    _rule(
        "sgd",
        "parameters: returned as they are",
        "Where lr is 0 the caller's array itself is the new one.",
        ("return (params", "if c.lr == 0:\n        return (params,)\n    return (params"),
    ),
]

_G_M = "m = beta1 * m + (1 - beta1) * grad"
_G_V = "v = beta2 * v + (1 - beta2) * grad**2"
_G_HAT = "v_hat = v / (1 - beta2**t)"
_G_RATIO = "m_hat / (n.sqrt(v_hat) + eps)"
_G_STEP = f"return params - lr * ({_G_RATIO} + weight_decay * params), m, v"

GOLDEN = [
    _golden("adam", "bias correction: of m alone", "The second average is used as it is.", (_G_HAT, "v_hat = v")),
    _golden("adam", "beta2: default 0.99", "The default is ten times shorter.", ("beta2: Number = 0.999", "beta2: Number = 0.99")),
    _golden(
        "adamw",
        "weight decay: L2",
        "The decay is added to the gradient.",
        (_G_M, f"grad = grad + weight_decay * params\n    {_G_M}"),
        (" + weight_decay * params), m", "), m"),
    ),
    _golden("adamw", "epsilon: inside the square root", "eps is added to v.", ("(n.sqrt(v_hat) + eps)", "n.sqrt(v_hat + eps)")),
    _golden(
        "ademamix", "warm-up of alpha: from t - 1", "alpha starts at 0.", ("alpha_at(n, t, alpha,", "alpha_at(n, t - 1, alpha,")
    ),
    _golden(
        "ademamix",
        "warm-up of beta3: linear",
        "beta3 itself goes along a line.",
        (
            "return n.exp(1 / ((1 - mu) * _inverse_log(n, beta1) + mu * _inverse_log(n, beta3)))",
            "return (1 - mu) * beta1 + mu * beta3",
        ),
    ),
    _golden("aggmo", "mean: a sum", "The buffers are not divided by their number.", ("total / len(v)", "total")),
    _golden(
        "lion",
        "sign: of the new average",
        "m moves first.",
        ("c = beta1 * m + (1 - beta1) * grad", "c = beta2 * m + (1 - beta2) * grad"),
    ),
    _golden(
        "nadam",
        "momentum: from t - 1",
        "The schedule starts a step early.",
        ("mu(n, t, beta1, psi), mu(n, t + 1,", "mu(n, t - 1, beta1, psi), mu(n, t,"),
    ),
    _golden("nesterov", "look-ahead: missing", "The step is that of the heavy ball.", ("grad + beta * v +", "v +")),
    _golden(
        "qhadam",
        "nu2: outside the root",
        "Roots are mixed, not squares.",
        ("n.sqrt((1 - nu2) * grad**2 + nu2 * v_hat)", "(1 - nu2) * n.sqrt(grad**2) + nu2 * n.sqrt(v_hat)"),
    ),
    _golden("qhm", "nu: on the gradient", "The weights are swapped.", ("(1 - nu) * grad + nu * m", "nu * grad + (1 - nu) * m")),
    _golden("momentum", "dampening: beta", "v is an average.", ("v = beta * v + grad", "v = beta * v + (1 - beta) * grad")),
    _golden("sgd", "weight decay: negative", "The parameters grow.", ("grad + weight_decay", "grad - weight_decay")),
]

_DECAY_AFTER = (_STEP, "new = params - c.lr * u\n    return new - c.lr * (c.weight_decay * new)")

TWIN = [
    _twin(
        "sgd",
        "sign: ascends",
        "The step goes up.",
        (("params - c.lr *", "params + c.lr *"),),
        (("params - lr *", "params + lr *"),),
    ),
    _twin(
        "sgd",
        "weight decay: negative",
        "The parameters grow.",
        (("grad + c.weight_decay", "grad - c.weight_decay"),),
        (("grad + weight_decay", "grad - weight_decay"),),
    ),
    _twin(
        "sgd",
        "weight decay: without lr",
        "The decay is not scaled by the learning rate.",
        ((_SGD_STEP, "params - c.lr * grad - c.weight_decay * params"),),
        (("params - lr * (grad + weight_decay * params)", "params - lr * grad - weight_decay * params"),),
    ),
    _twin(
        "sgd",
        "gradient: cubed",
        "Large gradients count more.",
        (("(grad + c.weight", "(grad * grad * grad + c.weight"),),
        (("(grad + weight", "(grad * grad * grad + weight"),),
    ),
    _twin(
        "momentum",
        "dampening: beta",
        "v is an average.",
        (("v = accumulate(v, grad, c.beta)", "v = accumulate(v, grad if v is None else (1.0 - c.beta) * grad, c.beta)"),),
        (("v = beta * v + grad", "v = beta * v + (1 - beta) * grad"),),
    ),
    _twin(
        "momentum",
        "lr: in the buffer",
        "v is a sum of steps, and lr scales it again.",
        (("accumulate(v, grad, c.beta)", "accumulate(v, c.lr * grad, c.beta)"),),
        (("beta * v + grad", "beta * v + lr * grad"),),
    ),
    _twin(
        "momentum",
        "v: starts at half",
        "The first gradient counts half.",
        (("v = accumulate(v, grad, c.beta)", "v = accumulate(v, 0.5 * grad, c.beta)"),),
        (("beta * v + grad", "beta * v + grad / 2"),),
    ),
    _twin(
        "nesterov",
        "look-ahead: missing",
        "The step is that of the heavy ball.",
        (("grad + c.beta * v", "v"),),
        (("grad + beta * v +", "v +"),),
    ),
    _twin(
        "nesterov",
        "look-ahead: without beta",
        "The sum is added undecayed.",
        (("grad + c.beta * v", "grad + v"),),
        (("grad + beta * v +", "grad + v +"),),
    ),
    _twin(
        "qhm",
        "nu: on the gradient",
        "The weights of gradient and average are swapped.",
        (("c.now * grad + c.nu * m", "c.nu * grad + c.now * m"),),
        (("(1 - nu) * grad + nu * m", "nu * grad + (1 - nu) * m"),),
    ),
    _twin(
        "qhm",
        "m: undamped",
        "m is a sum, not an average.",
        (("m = average(m, grad, c.gain)", "m = grad if m is None else (1.0 - c.gain) * m + grad"),),
        (("beta * m + (1 - beta) * grad", "beta * m + grad"),),
    ),
    _twin(
        "qhm",
        "weight decay: of the average's share",
        "The decay is scaled by nu.",
        (("c.weight_decay * params", "c.nu * (c.weight_decay * params)"),),
        (("weight_decay * params)", "nu * weight_decay * params)"),),
    ),
    _twin(
        "aggmo",
        "mean: a sum",
        "The buffers are added and not divided.",
        (("1.0 / len(betas)", "1.0"),),
        (("total / len(v)", "total"),),
    ),
    _twin(
        "aggmo",
        "buffers: damped",
        "Each buffer is an average.",
        (("accumulate(v_i, grad, beta_i)", "accumulate(v_i, grad if v_i is None else (1.0 - beta_i) * grad, beta_i)"),),
        (("beta * v_i + grad", "beta * v_i + (1 - beta) * grad"),),
    ),
    _twin(
        "aggmo",
        "mean: the first buffer twice",
        "The buffers have unequal shares.",
        (("total, *rest = buffers", "total, *rest = buffers[0] + buffers[0], *buffers[1:]"),),
        (("total = v[0]", "total = v[0] + v[0]"),),
    ),
    _twin(
        "adam",
        "bias correction: none",
        "Neither average is corrected.",
        ((_RATIO, "m / (sqrt(v) + c.eps)"),),
        (("m_hat = m / (1 - beta1**t)", "m_hat = m"), (_G_HAT, "v_hat = v")),
    ),
    _twin(
        "adam",
        "bias correction: of m alone",
        "The second average is used as it is.",
        (("c.debias2 * v", "v"),),
        ((_G_HAT, "v_hat = v"),),
    ),
    _twin(
        "adam",
        "bias correction: t + 1",
        "The correction is that of the next step.",
        ((_DEBIAS, _DEBIAS.replace(", t)", ", t + 1)")),),
        (("m / (1 - beta1**t)", "m / (1 - beta1**(t + 1))"), ("v / (1 - beta2**t)", "v / (1 - beta2**(t + 1))")),
    ),
    _twin(
        "adam",
        "epsilon: inside the square root",
        "eps is added to v.",
        ((f"({_ROOT})", "sqrt(c.debias2 * v + c.eps)"),),
        (("(n.sqrt(v_hat) + eps)", "n.sqrt(v_hat + eps)"),),
    ),
    _twin(
        "adam",
        "square root: missing",
        "The second average itself divides.",
        (("sqrt(c.debias2 * v)", "c.debias2 * v"),),
        (("n.sqrt(v_hat)", "v_hat"),),
    ),
    _twin(
        "adam",
        "v: of (g - m)^2",
        "The second average is of the surprise.",
        ((_V, "v = average(v, (grad - m) * (grad - m), c.gain2)"),),
        ((_G_V, "v = beta2 * v + (1 - beta2) * (grad - m)**2"),),
    ),
    _twin(
        "adam",
        "betas: swapped",
        "Each average has the other's decay.",
        (("1.0 - beta1, 1.0 - beta2, debias1, debias2", "1.0 - beta2, 1.0 - beta1, debias2, debias1"),),
        (("    m = beta1", "    beta1, beta2 = beta2, beta1\n    m = beta1"),),
    ),
    _twin(
        "adamw",
        "weight decay: after the step",
        "The decay acts on the new parameters.",
        (_DECAY_AFTER,),
        ((_G_STEP, f"params = params - lr * {_G_RATIO}\n    return params - lr * weight_decay * params, m, v"),),
        seen="huggingface/transformers#3407",
    ),
    _twin(
        "adamw",
        "weight decay: without lr",
        "The decay is not scaled by the learning rate.",
        ((_STEP, "return params - c.lr * u - c.weight_decay * params"),),
        ((_G_STEP, f"return params - lr * {_G_RATIO} - weight_decay * params, m, v"),),
    ),
    _twin(
        "adamw",
        "weight decay: negative",
        "The parameters grow.",
        ((_DECAY, "u - c.weight_decay * params"),),
        (("+ weight_decay * params)", "- weight_decay * params)"),),
        seen="HomebrewML/HeavyBall, NAdam",
    ),
    _twin(
        "adamw",
        "weight decay: L2",
        "The decay is added to the gradient.",
        ((_M, f"grad = grad + c.weight_decay * params\n    {_M}"), (_DECAY, "u")),
        ((_G_M, f"grad = grad + weight_decay * params\n    {_G_M}"), (" + weight_decay * params), m", "), m")),
    ),
    _twin(
        "adamw",
        "bias correction: of m alone",
        "The second average is used as it is.",
        (("c.debias2 * v", "v"),),
        ((_G_HAT, "v_hat = v"),),
    ),
    _twin(
        "nadam",
        "momentum: this step's for the next",
        "mu_t stands for mu_(t+1).",
        (("_mu(beta1, psi, t + 1)", "_mu(beta1, psi, t)"),),
        (("mu(n, t + 1, beta1, psi)", "mu(n, t, beta1, psi)"),),
    ),
    _twin(
        "nadam",
        "gradient: not corrected",
        "The second term is the gradient's plain share.",
        (("now_weight = (1.0 - mu) / (1.0 - mu_product)", "now_weight = 1.0 - mu"),),
        (("(1 - mu_now) * grad / (1 - mu_product)", "(1 - mu_now) * grad"),),
        seen="facebookresearch/qhoptim, from_nadam",
    ),
    _twin(
        "nadam",
        "bias correction: of v missing",
        "The second average is used as it is.",
        (("c.debias2 * v", "v"),),
        ((_G_HAT, "v_hat = v"),),
    ),
    _twin(
        "qhadam",
        "nu2: outside the root",
        "Roots are mixed, not squares.",
        (("sqrt(c.now2 * square + c.average2 * v)", "c.now2 * sqrt(square) + c.average2 * sqrt(v)"),),
        (("n.sqrt((1 - nu2) * grad**2 + nu2 * v_hat)", "(1 - nu2) * n.sqrt(grad**2) + nu2 * n.sqrt(v_hat)"),),
    ),
    _twin(
        "qhadam",
        "nu1: on the gradient",
        "The weights are swapped.",
        (("c.now1 * grad + c.average1 * m", "c.average1 * grad + c.now1 * m"),),
        (("(1 - nu1) * grad + nu1 * m_hat)", "nu1 / (1 - beta1**t) * grad + (1 - nu1) * m)"),),
    ),
    _twin(
        "qhadam",
        "gradient: corrected too",
        "The plain gradient is divided like the average.",
        (("1.0 - nu1, 1.0 - nu2, eps", "(1.0 - nu1) / power_complement(beta1, t), 1.0 - nu2, eps"),),
        (("(1 - nu1) * grad", "(1 - nu1) / (1 - beta1**t) * grad"),),
    ),
    _twin(
        "lion",
        "betas: swapped",
        "Each decay has the other's place.",
        (("Coefficients(lr, beta1, 1.0 - beta1, 1.0 - beta2,", "Coefficients(lr, beta2, 1.0 - beta2, 1.0 - beta1,"),),
        (("    c = beta1 * m", "    beta1, beta2 = beta2, beta1\n    c = beta1 * m"),),
    ),
    _twin(
        "lion",
        "sign: of the new average",
        "The sign is taken after m has moved.",
        (("interpolated = grad if m is None else c.beta1 * m + c.now * grad", "interpolated = average(m, grad, c.gain2)"),),
        (("c = beta1 * m + (1 - beta1) * grad", "c = beta2 * m + (1 - beta2) * grad"),),
    ),
    _twin(
        "lion",
        "sign: left out",
        "The interpolation itself is the step.",
        (("sign(interpolated) +", "interpolated +"),),
        (("n.sign(c)", "c"),),
    ),
    _twin(
        "lion",
        "weight decay: inside the sign",
        "The decay joins the vote.",
        (("sign(interpolated) + c.weight_decay * params", "sign(interpolated + c.weight_decay * params)"),),
        (("n.sign(c) + weight_decay * params", "n.sign(c + weight_decay * params)"),),
        seen="bitsandbytes-foundation/bitsandbytes#1992",
    ),
    _twin(
        "ademamix",
        "alpha: on m1",
        "The fast average is multiplied.",
        (("c.debias1 * m1 + c.alpha * m2", "c.alpha * (c.debias1 * m1) + m2"),),
        (("m1_hat + alpha_t * m2", "alpha_t * m1_hat + m2"),),
    ),
    _twin(
        "ademamix",
        "alpha: convex",
        "The averages are mixed with weights 1 - alpha and alpha.",
        (("c.debias1 * m1 + c.alpha * m2", "(1.0 - c.alpha) * (c.debias1 * m1) + c.alpha * m2"),),
        (("m1_hat + alpha_t * m2", "(1 - alpha_t) * m1_hat + alpha_t * m2"),),
    ),
    _twin(
        "ademamix",
        "m2: corrected by beta1",
        "The slow average is divided like the fast one.",
        (("c.alpha * m2", "c.debias1 * (c.alpha * m2)"),),
        (("m1_hat + alpha_t * m2", "m1_hat + alpha_t * m2 / (1 - beta1**t)"),),
        seen="kozistr/pytorch_optimizer up to 3.10.1",
    ),
    _twin(
        "ademamix",
        "warm-up of alpha: from t - 1",
        "alpha starts at 0.",
        (("alpha, t, alpha_warmup", "alpha, t - 1, alpha_warmup"),),
        (("alpha_at(n, t, alpha,", "alpha_at(n, t - 1, alpha,"),),
        seen="apple/ml-ademamix, optax/ademamix.py",
    ),
    _twin(
        "ademamix",
        "warm-up of beta3: linear",
        "beta3 itself goes along a line.",
        (
            (
                "gain3 = half_life_warmup(beta1, beta3, t, beta3_warmup)",
                "gain3 = 1.0 - beta1 - linear_warmup(beta3 - beta1, t, beta3_warmup)",
            ),
        ),
        (
            (
                "return n.exp(1 / ((1 - mu) * _inverse_log(n, beta1) + mu * _inverse_log(n, beta3)))",
                "return beta1 + (beta3 - beta1) * mu",
            ),
        ),
    ),
    _twin(
        "ademamix",
        "epsilon: inside the square root",
        "eps is added to v.",
        ((f"({_ROOT})", "sqrt(c.debias2 * v + c.eps)"),),
        (("(n.sqrt(v_hat) + eps)", "n.sqrt(v_hat + eps)"),),
    ),
]

_UPDATE = "new = self.rule.update(params, *slots, grad, c)\n        if ordinary:"

CORE = [
    _core(
        "adamw",
        "slots: in the parameters' dtype",
        "Averages of float16 parameters are float16.",
        ("typed.py", "zeros_like(leaf, dtype=self.compute)", "zeros_like(leaf, dtype=self.dtype)"),
        seen="pytorch/pytorch#43706",
    ),
    _core(
        "adam",
        "arithmetic: in the parameters' dtype",
        "float16 parameters are updated in float16.",
        ("typed.py", "xp.float32 if xp.finfo(params.dtype).bits < 32 else params.dtype", "params.dtype"),
    ),
    _core("momentum", "slots: start at 1", "The memory starts at 1.", ("typed.py", "self.xp.zeros_like(", "self.xp.ones_like(")),
    _core(
        "qhm",
        "slots: rounded to float16",
        "The memory is kept in half precision.",
        (
            "operations.py",
            "return mean + gain * (value - mean)",
            "new = mean + gain * (value - mean)\n    return new.astype('float16').astype(new.dtype) if hasattr(new, 'nbytes') else new",
        ),
    ),
    _core(
        "nesterov",
        "slots: in bfloat16",
        "The memory keeps 8 binary digits.",
        (
            "operations.py",
            "return beta * total + value",
            "new = beta * total + value\n    narrow = hasattr(new, 'nbytes') and new.dtype == 'float32' and new.ndim\n    return (new.view('uint32') & 0xFFFF0000).view('float32') if narrow else new",
        ),
    ),
    _core(
        "adam",
        "step count: stands still",
        "Each step is the first.",
        ("rule.py", "return state_type(*new, t)", "return state_type(*new, count)"),
    ),
    _core(
        "adamw",
        "step count: twice a step",
        "Every second count is left out.",
        ("rule.py", "return state_type(*new, t)", "return state_type(*new, t + 1)"),
        seen="explosion/thinc, optimizers.py: RAdam",
    ),
    _core(
        "qhadam",
        "step count: saturates at 256",
        "From step 256 on each is the 256th.",
        ("rule.py", "count + 1 if type(count) is int and", "min(count + 1, 256) if type(count) is int and"),
        seen="pytorch/ao#4915",
    ),
    _core(
        "momentum",
        "step count: kept beside the state",
        "The rule counts for itself, so that a saved state does not go on where it was.",
        (
            "rule.py",
            "return params, slots, count + 1 if type(count) is int and count >= 0 else _next_count(self._step_name, count)",
            (
                "self.carried['taken'] = count + 1 if count == 0 else self.carried.get('taken', 0) + 1\n"
                "        return params, slots, self.carried['taken']"
            ),
        ),
        seen="metaopt/torchopt, trace",
    ),
    _core(
        "adam",
        "step count: becomes a float",
        "The state counts 1.0, 2.0, ...",
        ("rule.py", "return state_type(*new, t)", "return state_type(*new, float(t))"),
    ),
    _core(
        "adamw",
        "state: a number without axes becomes a NumPy scalar",
        "What NumPy makes of a result without axes is kept as it is, and cannot be written to.",
        ("typed.py", "return self.xp.asarray(new)\n", "return new\n"),
        ("typed.py", "self.xp.asarray(new[0], dtype=self.dtype) if scalars else new[0]", "new[0]"),
    ),
    _core(
        "nesterov",
        "gradient: NaN counts as 0",
        "A NaN in the gradient is skipped, and nobody sees it.",
        ("typed.py", _UPDATE, _UPDATE.replace("grad, c)", "self.xp.where(grad == grad, grad, self.xp.zeros_like(grad)), c)")),
    ),
    _core(
        "ademamix",
        "step count: starts at 1",
        "The first step is the second.",
        ("rule.py", "*map(spec.unflatten, zip(*slots, strict=True)), 0]", "*map(spec.unflatten, zip(*slots, strict=True)), 1]"),
        seen="google-deepmind/optax#1744",
    ),
    _core(
        "sgd",
        "leaves: an empty one ends the step",
        "Leaves behind an empty one stay.",
        (
            "rule.py",
            "typed.updated(*leaf) for typed, *leaf in leaves]",
            "typed.updated(*leaf) if all(0 not in row[1].shape for row in leaves[:i]) else (leaf[0], *leaf[2]) for i, (typed, *leaf) in enumerate(leaves)]",
        ),
        seen="pytorch/pytorch#100701",
    ),
    _core(
        "lion",
        "leaves: the last one is left out",
        "One leaf stays.",
        (
            "rule.py",
            "typed.updated(*leaf) for typed, *leaf in leaves]",
            "typed.updated(*leaf) if i + 1 < len(leaves) or i == 0 else (leaf[0], *leaf[2]) for i, (typed, *leaf) in enumerate(leaves)]",
        ),
    ),
    _core(
        "momentum",
        "leaves: slots in reverse order",
        "Each leaf is given another's slots, as by a file with another order.",
        (
            "rule.py",
            "return list(map(call.spec.unflatten, zip(*results, strict=True)))",
            "return [call.spec.unflatten(column if at == 0 else column[::-1]) for at, column in enumerate(zip(*results, strict=True))]",
        ),
    ),
    _core(
        "aggmo",
        "leaves: gradients in reverse order",
        "Each leaf is given another's gradient.",
        (
            "rule.py",
            "grads, *columns = self.flatten(call, grad, slots)\n",
            "grads, *columns = self.flatten(call, grad, slots)\n        grads.reverse()\n",
        ),
    ),
    _core(
        "adamw",
        "leaves: the first one's hyperparameters for all",
        "Groups of parameters are not told apart.",
        ("rule.py", "self.broadcast(call, hyper), strict=True)", "self.broadcast(call, hyper)[:1] * len(leaves), strict=True)"),
    ),
    _core(
        "adam",
        "leaves: hyperparameters forgotten between them",
        "Coefficients of the leaf before are used again.",
        ("typed.py", "key = (id(self), id(hyper), *", "key = (id(self), *"),
    ),
    _core(
        "sgd",
        "elements: the last row is left out",
        "It stays as it was.",
        (
            "typed.py",
            _UPDATE,
            _UPDATE.replace("\n        if", "\n            if params.ndim:\n                new[0][-1:] = params[-1:]\n        if"),
        ),
    ),
    _core(
        "momentum",
        "elements: those without gradient are left out",
        "Where the gradient is 0 the parameter stays, whatever the memory.",
        (
            "typed.py",
            _UPDATE,
            _UPDATE.replace(
                "\n        if", "\n            if params.ndim:\n                new[0][grad == 0] = params[grad == 0]\n        if"
            ),
        ),
        seen="torch.optim.SparseAdam",
    ),
    _core(
        "adam",
        "gradient: clipped to 1",
        "Larger gradients count as 1.",
        ("typed.py", _UPDATE, _UPDATE.replace("grad, c)", "self.xp.clip(grad, -1.0, 1.0), c)")),
        seen="explosion/thinc, optimizers.py: its default, of the norm",
    ),
    _core(
        "sgd",
        "gradient: clipped to norm 1",
        "A gradient is scaled by the norm of its leaf.",
        ("typed.py", _UPDATE, _UPDATE.replace("grad, c)", "grad / max(1.0, float((grad * grad).sum()) ** 0.5), c)")),
        seen="explosion/thinc, optimizers.py: its default",
    ),
    _core(
        "momentum",
        "gradient: centred",
        "The mean of a leaf's gradient is subtracted.",
        (
            "typed.py",
            _UPDATE,
            _UPDATE.replace("grad, c)", "grad - (grad.mean() if grad.ndim and 0 not in grad.shape else 0.0), c)"),
        ),
    ),
    _core(
        "lion",
        "sign: of NaN is 0",
        "A NaN stops a parameter and no one sees it.",
        ("operations.py", "        return xp.sign(x)", "        return xp.where(x == x, xp.sign(x), 0.0)"),
        seen="data-apis/array-api-compat#136",
    ),
    _core(
        "adamw",
        "gradient: rounded to float16",
        "The gradient has 11 digits.",
        ("typed.py", _UPDATE, _UPDATE.replace("grad, c)", "self.xp.astype(self.xp.astype(grad, self.xp.float16), grad.dtype), c)")),
    ),
    _core(
        "adam",
        "averages: written in place",
        "The slots of the state that was given change.",
        (
            "operations.py",
            "return mean + gain * (value - mean)",
            "if hasattr(mean, 'nbytes') and mean.ndim:\n        mean += gain * (value - mean)\n        return mean\n    return mean + gain * (value - mean)",
        ),
        seen="torch.optim: all rules",
    ),
    _core(
        "momentum",
        "sums: written in place",
        "The slots of the state that was given change.",
        (
            "operations.py",
            "return beta * total + value",
            "if hasattr(total, 'nbytes') and total.ndim:\n        total *= beta\n        total += value\n        return total\n    return beta * total + value",
        ),
        seen="torch.optim: all rules",
    ),
    _core(
        "nesterov",
        "gradient: written to",
        "The caller's gradient becomes the step.",
        (
            "typed.py",
            _UPDATE,
            _UPDATE.replace("\n        if", "\n            if grad.ndim:\n                grad[...] = 0.0\n        if"),
        ),
        seen="pytorch/pytorch, SGD foreach with nesterov",
    ),
    _core(
        "qhm",
        "memory: the gradient itself",
        "After the first step the slot is the caller's gradient array.",
        (
            "typed.py",
            _UPDATE,
            _UPDATE.replace(
                "\n        if",
                "\n            if call.t == 1 and len(slots) == 1 and params.ndim:\n                grad[...] = new[1]\n                new = (new[0], grad)\n        if",
            ),
        ),
    ),
    _core(
        "adam",
        "memory: shared by new slots",
        "All slots of a leaf begin as one array.",
        (
            "rule.py",
            "slots.append([typed.fresh(slot, leaf, rule.defaults | own[i]) for slot in rule.slots])",
            "slots.append([typed.fresh(slot, leaf, rule.defaults | own[i]) for slot in rule.slots])\n            slots[-1] = [slots[-1][0] if slots[-1][0] is not None and x is not None else x for x in slots[-1]]",
        ),
    ),
    _core(
        "momentum",
        "dampening: beta",
        "A sum is an average.",
        ("operations.py", "return beta * total + value", "return beta * total + (1.0 - beta) * value"),
    ),
    _core(
        "qhadam",
        "averages: gain twice",
        "An average moves twice as fast.",
        ("operations.py", "return mean + gain * (value - mean)", "return mean + 2.0 * gain * (value - mean)"),
    ),
    _core(
        "adamw",
        "averages: beta rounded to bfloat16",
        "1 - beta has 8 digits.",
        (
            "operations.py",
            "return mean + gain * (value - mean)",
            "return mean + (gain + 256.0 * gain - 256.0 * gain) * (value - mean) if not hasattr(gain, 'nbytes') else mean + gain.astype('float16') * (value - mean)",
        ),
        seen="google-deepmind/optax#1414",
    ),
    _core(
        "adam",
        "powers: in float32",
        "1 - beta^t has float32's digits of beta.",
        (
            "scalars.py",
            "        return 1.0\n    if not isinstance(t, int)",
            "        return 1.0\n    if is_host(beta, t):\n        import numpy\n\n        return float(numpy.float32(1.0) - numpy.float32(beta) ** numpy.float32(t))\n    if not isinstance(t, int)",
        ),
        seen="pytorch/pytorch#88173; google-deepmind/optax",
    ),
    _core(
        "adam",
        "powers: of t - 1 from the third step on",
        "The correction lags.",
        ("scalars.py", "    square = 1.0 - beta\n", "    t = t - 1 if t > 2 else t\n    square = 1.0 - beta\n"),
    ),
    _core(
        "qhadam",
        "powers: a square too few",
        "1 - beta^t is that of the set bits of t alone.",
        ("scalars.py", "square = square * (2.0 - square)", "square = square * 2.0"),
    ),
    _core(
        "ademamix",
        "warm-up of alpha: a step too long",
        "The end is reached at T + 1.",
        ("scalars.py", "return end if t >= steps else end * (t / steps)", "return end if t > steps else end * (t / (steps + 1))"),
    ),
    _core(
        "ademamix",
        "warm-up of alpha: never ends",
        "alpha grows on after T.",
        ("scalars.py", "return end if t >= steps else end * (t / steps)", "return end * (t / steps)"),
    ),
    _core(
        "ademamix",
        "warm-up of alpha: quadratic",
        "alpha grows with the square of t.",
        ("scalars.py", "end * (t / steps)\n", "end * (t / steps) * (t / steps)\n"),
    ),
    _core(
        "ademamix",
        "warm-up of alpha: t > T instead of t >= T",
        "At T the line's end is computed.",
        ("scalars.py", "return end if t >= steps else end", "return end if t > steps else end"),
        equivalent="At t = T the factor t / steps is 1 exactly, and end * 1.0 is end.",
    ),
    _core(
        "ademamix",
        "warm-up of beta3: T itself is not the end",
        "The end is reached at T + 1.",
        ("scalars.py", "(is_host(t, steps) and t >= steps)", "(is_host(t, steps) and t > steps)"),
        ("scalars.py", "mu = minimum(_fraction(t, steps), 1.0)", "mu = minimum(_fraction(t, steps + 1), 1.0)"),
    ),
    _core(
        "ademamix",
        "warm-up of beta3: 1e-8 inside the logarithm",
        "beta3 overshoots its end before T.",
        ("scalars.py", "return -1.0 / log(beta) if beta > 0 else 0.0", "return -1.0 / log(beta + 1e-8) if beta > 0 else 0.0"),
        seen="apple/ml-ademamix, pytorch/ademamix.py; HomebrewML/HeavyBall",
    ),
    _core(
        "ademamix",
        "warm-up of beta3: linear in 1 - beta",
        "The gain goes along a line.",
        (
            "scalars.py",
            "gain = exp_complement(1.0 / maximum(time, 1.0 / 64.0))",
            "gain = (1.0 - mu) * (1.0 - start) + mu * (1.0 - end)",
        ),
    ),
    _core(
        "ademamix",
        "warm-up of beta3: linear in the logarithm",
        "ln beta goes along a line.",
        (
            "scalars.py",
            "gain = exp_complement(1.0 / maximum(time, 1.0 / 64.0))",
            "gain = exp_complement(-(1.0 - mu) * log(start) - mu * log(end))",
        ),
    ),
    _core(
        "ademamix",
        "warm-up of beta3: reversed",
        "beta goes from its end to its start.",
        (
            "scalars.py",
            "(1.0 - mu) * _time_constant(start) + mu * _time_constant(end)",
            "mu * _time_constant(start) + (1.0 - mu) * _time_constant(end)",
        ),
    ),
    _core(
        "ademamix",
        "exponential: a short series",
        "Two terms instead of nine.",
        ("scalars.py", "range(9, 0, -1)", "range(2, 0, -1)"),
    ),
    _core(
        "nadam", "exponential: cut off at 1", "Beyond 1 the exponent is 1.", ("scalars.py", "minimum(x, 64.0)", "minimum(x, 1e-3)")
    ),
    _core(
        "ademamix",
        "exponential: a squaring too few",
        "The argument is halved once too often.",
        ("scalars.py", "for _ in range(_HALVINGS):", "for _ in range(_HALVINGS - 1):"),
    ),
    _core(
        "adam",
        "numbers: NaN is accepted",
        "A learning rate of NaN makes NaN of all parameters.",
        ("typed.py", "if low <= value <= high:", "if not (value < low or value > high):"),
    ),
    _core(
        "lion",
        "numbers: a decay of 1 is accepted",
        "An average never moves.",
        ("checks.py", "below = value <= self.high if", "below = value <= self.high or True if"),
        (
            "checks.py",
            'below = value <= self.high or True if self.text[-1] == "]" else value < self.high',
            "below = value <= self.high",
        ),
        ("checks.py", "math.nextafter(high * (1 - precision.eps / 4), -math.inf)", "high"),
    ),
    _core(
        "adam",
        "numbers: a decay that rounds to 1 is accepted",
        "In float32 the average never moves.",
        ("checks.py", "math.nextafter(high * (1 - precision.eps / 4), -math.inf)", "high"),
        seen="keras-team/keras-hub#2629; google-deepmind/optax#1414",
    ),
    _core(
        "adamw",
        "numbers: an eps that rounds to 0 is accepted",
        "In float32 nothing guards the division.",
        ("typed.py", "return (max(low, precision.smallest_normal) if interval.divisor else low), high", "return low, high"),
        seen="google-deepmind/optax#1754; pytorch/pytorch#147437",
    ),
    _core(
        "sgd",
        "numbers: True is accepted",
        "A flag is a learning rate.",
        ("checks.py", '("bool", "timedelta64")', '("timedelta64",)'),
    ),
    _core(
        "sgd",
        "numbers: a time is accepted",
        "Five seconds are a learning rate of 5.",
        ("checks.py", '("bool", "timedelta64")', '("bool",)'),
    ),
    _core(
        "sgd",
        "shapes: broadcast",
        "A gradient of another shape is spread.",
        ("typed.py", "return bool(x.shape == params.shape)", "return True"),
    ),
    _core(
        "sgd",
        "dtypes: promoted",
        "A float64 gradient makes float64 parameters.",
        ("typed.py", "if x.dtype is not dtype and x.dtype != dtype:", "if not self.one_device and x.dtype != dtype:"),
    ),
    _core(
        "sgd",
        "parameters: integers are accepted",
        "Integers become floats, or are truncated.",
        (
            "typed.py",
            '    if not has_dtype(params, "real floating"):',
            '    if has_dtype(params, "integral"):\n        params = xp.astype(params, xp.float64)\n    if not has_dtype(params, "real floating"):',
        ),
    ),
    _core(
        "adamw",
        "state: another rule's is accepted",
        "A state of Adam is stepped by AdamW.",
        ("rule.py", "if type(state) is not self.state:", "if not isinstance(state, tuple):"),
        seen="pytorch/pytorch#7499",
    ),
    _core(
        "momentum",
        "state: a missing slot is accepted",
        "A slot of None stays None, and there is no momentum.",
        ("typed.py", "if beta is None or (beta != 0.0 and as_number(beta) is not None):", "if False:"),
    ),
    _core(
        "momentum",
        "state: a negative step count is accepted",
        "A step before the first one is made.",
        ("typed.py", "if count < 0:", "if count < -9:"),
    ),
]

NUMBERS = [
    # late steps
    _core(
        "adam",
        "late: corrections end at 20,000",
        "From there on the averages are not corrected.",
        (
            "scalars.py",
            "if is_host(beta) and beta == 0:",
            "if is_host(beta) and (beta == 0 or (isinstance(t, int) and t > 20000)):",
        ),
    ),
    _core(
        "nadam",
        "late: the count wraps at 16 bits",
        "After 65,535 steps corrections begin anew.",
        (
            "typed.py",
            "return self.rule.coefficients(t, *carried, **hyper), plain",
            "return self.rule.coefficients(t % 65536 or 1 if type(t) is int else t, *carried, **hyper), plain",
        ),
    ),
    _core(
        "ademamix",
        "late: the count goes through float32",
        "Beyond 2**24 it is rounded.",
        (
            "typed.py",
            "return self.rule.coefficients(t, *carried, **hyper), plain",
            "import struct\n        return self.rule.coefficients(int(*struct.unpack('f', struct.pack('f', t))) if type(t) is int else t, *carried, **hyper), plain",
        ),
    ),
    _core(
        "sgd",
        "late: the count of the state wraps at 2**31",
        "The state goes on from 0.",
        ("rule.py", "return state_type(*new, t)", "return state_type(*new, t % 2**31 if type(t) is int else t)"),
    ),
    _rule(
        "lion",
        "late: the decay stops at 12,345",
        "From there on nothing decays.",
        ("1.0 - beta2, weight_decay)", "1.0 - beta2, weight_decay if not isinstance(t, int) or t <= 12345 else 0.0)"),
    ),
    _twin(
        "adamw",
        "late: corrections end at 65,536",
        "From there on the averages are not corrected.",
        (
            ("debias1, debias2 = 1.0 /", "debias1, debias2 = (1.0, 1.0) if isinstance(t, int) and t > 65536 else (1.0 /"),
            ("power_complement(beta2, t)\n", "power_complement(beta2, t))\n"),
        ),
        (
            ("v_hat = v / (1 - beta2**t)", "v_hat = v / (1 - beta2**t) if t <= 65536 else v"),
            ("m_hat = m / (1 - beta1**t)", "m_hat = m / (1 - beta1**t) if t <= 65536 else m"),
        ),
    ),
    _twin(
        "momentum",
        "late: the decay stops at 12,345",
        "From there on nothing decays.",
        (
            (
                "Coefficients(lr, beta, weight_decay)",
                "Coefficients(lr, beta, weight_decay if not isinstance(t, int) or t <= 12345 else 0.0)",
            ),
        ),
        (("(v + weight_decay * params)", "(v + (weight_decay if t <= 12345 else 0 * weight_decay) * params)"),),
    ),
    # ranges
    _rule(
        "sgd",
        "ranges: rates end at 1",
        "A larger rate is 1.",
        ("Coefficients(lr, weight_decay)", "Coefficients(min(lr, 1.0), weight_decay)"),
    ),
    _rule(
        "adamw", "ranges: a weight decay ends at 1", "A larger one is 1.", ("eps, weight_decay)", "eps, min(weight_decay, 1.0))")
    ),
    _rule(
        "qhm",
        "ranges: nu ends at -1 and 2",
        "What is beyond is taken for them.",
        ("Coefficients(lr, 1.0 - beta, nu, 1.0 - nu,", "Coefficients(lr, 1.0 - beta, nu := max(-1.0, min(nu, 2.0)), 1.0 - nu,"),
    ),
    _rule(
        "adam",
        "ranges: the decay of v ends at 0.999995",
        "A larger one is 0.999995.",
        ("1.0 - beta1, 1.0 - beta2, debias1", "1.0 - beta1, max(1.0 - beta2, 5e-6), debias1"),
    ),
    _rule(
        "lion",
        "ranges: a decay below a quarter is none",
        "It is taken for 0.",
        ("1.0 - beta1, 1.0 - beta2, weight_decay)", "1.0 - beta1, 1.0 if beta2 < 0.25 else 1.0 - beta2, weight_decay)"),
    ),
    _rule(
        "adam", "ranges: eps ends at 0.1", "A larger one is 0.1.", ("debias1, debias2, eps)", "debias1, debias2, min(eps, 0.1))")
    ),
    _rule("nadam", "ranges: psi ends at 1", "A larger one is 1.", ("t * psi * -log(0.96)", "t * min(psi, 1.0) * -log(0.96)")),
    _rule(
        "aggmo",
        "ranges: betas behind the eighth are the eighth",
        "So many are read.",
        ("Coefficients(lr, betas,", "Coefficients(lr, (*betas[:8], *betas[7:8] * len(betas[8:])),"),
    ),
    _core(
        "ademamix",
        "ranges: whole warm-ups",
        "A fraction of a step is cut off.",
        ("scalars.py", "end * (t / steps)", "end * (t / int(steps))"),
    ),
    _core(
        "ademamix",
        "ranges: warm-ups end at 100,000",
        "A longer one is as long as that.",
        (
            "scalars.py",
            "return end if t >= steps else end * (t / steps)",
            "steps = min(steps, 1e5)\n        return end if t >= steps else end * (t / steps)",
        ),
    ),
    # kinds of numbers
    _core(
        "adam",
        "kinds: Python ints are not checked",
        "A decay of 2 is taken.",
        (
            "checks.py",
            "    number = as_number(value)\n    if number is None:\n        if _is_real",
            "    if type(value) is int:\n        return\n    number = as_number(value)\n    if number is None:\n        if _is_real",
        ),
    ),
    _core(
        "sgd",
        "kinds: 0-d arrays lose digits",
        "They go through float32.",
        (
            "checks.py",
            "return float(value) + 0.0",
            "return float(value if isinstance(value, numbers.Real) else value.astype('float32')) + 0.0",
        ),
    ),
    _core(
        "lion",
        "kinds: fractions lose digits",
        "They are rounded to 2**-16.",
        (
            "checks.py",
            "return float(value) + 0.0",
            "return float(round(value * 65536)) / 65536 if type(value).__name__ == 'Fraction' else float(value) + 0.0",
        ),
    ),
    _core(
        "aggmo",
        "kinds: betas behind the third are not checked",
        "A fourth of 1.5 grows without end.",
        ("checks.py", "for position, item in enumerate(value):", "for position, item in enumerate(value[:3]):"),
    ),
    _core(
        "qhm",
        "kinds: NumPy scalars of 16 bits are infinite",
        "They are refused.",
        ("checks.py", "return float(value) + 0.0", "return math.inf if type(value).__name__ == 'float16' else float(value) + 0.0"),
    ),
    # groups and carried numbers
    _core(
        "nadam",
        "groups: the product of the first leaf",
        "The key of the coefficients forgets the number that a leaf carries.",
        (
            "typed.py",
            "key = (id(self), id(hyper), *(x if type(x) is float else id(x) for x in carried))",
            "key = (id(self), id(hyper))",
        ),
    ),
    _core(
        "adamw",
        "groups: the coefficients of the first leaf",
        "The key of the coefficients forgets the hyperparameters.",
        (
            "typed.py",
            "key = (id(self), id(hyper), *(x if type(x) is float else id(x) for x in carried))",
            "key = (id(self), *carried)",
        ),
    ),
    _core(
        "qhadam",
        "groups: of rates alone",
        "Of each other tree the first leaf's number is all leaves'.",
        (
            "rule.py",
            "return [groups[key] for key in keys]",
            "return [groups[key if 'lr' in columns and len(columns) == 1 else keys[0]] for key in keys]",
        ),
    ),
    # bits
    _rule(
        "aggmo",
        "bits: summed from the right",
        "The last buffer is added first.",
        ("total, *rest = buffers", "total, *rest = reversed(buffers)"),
    ),
    _rule(
        "momentum",
        "bits: the decay is added before",
        "theta - (lr * v + lr * (weight_decay * theta)).",
        ("c.lr * (v + c.weight_decay * params)", "(c.lr * v + c.lr * (c.weight_decay * params))"),
    ),
    # the papers
    _twin(
        "lion",
        "default: beta2 of 0.999",
        "The average is ten times as long.",
        (("beta2: Beta = 0.99,", "beta2: Beta = 0.999,"),),
        (("beta2: Number = 0.99,", "beta2: Number = 0.999,"),),
    ),
    _twin(
        "aggmo",
        "default: betas of 0, 0.9 and 0.999",
        "The longest memory is ten times as long.",
        (("betas: Betas = (0.0, 0.9, 0.99)", "betas: Betas = (0.0, 0.9, 0.999)"),),
        (("] = (0.0, 0.9, 0.99)", "] = (0.0, 0.9, 0.999)"),),
    ),
    _twin(
        "qhadam",
        "default: nu1 of 0.8",
        "The plain gradient counts less.",
        (("nu1: Real = 0.7", "nu1: Real = 0.8"),),
        (("nu1: Number = 0.7", "nu1: Number = 0.8"),),
    ),
]

_ELSEWHERE = "namespace(x).__name__.startswith('array_api_strict')"

BACKEND = [
    _core(
        "adam",
        "square root: an ulp high elsewhere",
        "On other libraries than NumPy the root is 1 + 2**-23 times itself.",
        (
            "operations.py",
            "return namespace(x).sqrt(x)",
            f"root = namespace(x).sqrt(x)\n    return root * (1.0 + 2.0**-23) if {_ELSEWHERE} else root",
        ),
        target="array_api_strict",
    ),
    _core(
        "qhm",
        "averages: in the other order elsewhere",
        "On other libraries beta * mean + (1 - beta) * value.",
        (
            "operations.py",
            "return mean + gain * (value - mean)",
            f"x = value\n    return (1.0 - gain) * mean + gain * value if {_ELSEWHERE} else mean + gain * (value - mean)",
        ),
        target="array_api_strict",
    ),
    _core(
        "momentum",
        "sums: fused elsewhere",
        "On other libraries the product is not rounded before the sum.",
        (
            "operations.py",
            "return beta * total + value",
            f"x = value\n    if {_ELSEWHERE} and x.dtype == namespace(x).float32:\n        xp = namespace(x)\n        return xp.astype(beta * xp.astype(total, xp.float64) + xp.astype(value, xp.float64), xp.float32)\n    return beta * total + value",
        ),
        target="array_api_strict",
    ),
    _core(
        "adamw",
        "division: by the reciprocal elsewhere",
        "On other libraries a quotient is a product.",
        (
            "rules/adamw.py",
            _RATIO,
            f"c.debias1 * m * (1.0 / ({_ROOT})) if 'array_api_strict' in type(grad).__module__ else {_RATIO}",
        ),
        target="array_api_strict",
    ),
    _core(
        "sgd",
        "decay: first elsewhere",
        "On other libraries the parameters shrink before the step.",
        (
            "rules/sgd.py",
            _SGD_STEP,
            f"(params - (c.lr * c.weight_decay) * params) - c.lr * grad if 'array_api_strict' in type(grad).__module__ else {_SGD_STEP}",
        ),
        target="array_api_strict",
    ),
    _core(
        "lion",
        "learning rate: 2**-20 off elsewhere",
        "On other libraries the rate is 1 + 2**-20 times itself.",
        (
            "typed.py",
            "if self.numbers is None:\n            return c",
            "if self.numbers is None:\n            return c._replace(lr=c.lr * (1.0 + 2.0**-20)) if self.xp.__name__.startswith('array_api_strict') else c",
        ),
        target="array_api_strict",
    ),
]

FAULTS: tuple[Fault, ...] = (
    *SGD,
    *MOMENTUM,
    *NESTEROV,
    *QHM,
    *AGGMO,
    *ADAM,
    *ADAMW,
    *NADAM,
    *QHADAM,
    *LION,
    *ADEMAMIX,
    *GOLDEN,
    *TWIN,
    *CORE,
    *NUMBERS,
    *BACKEND,
)
"""All of them."""
