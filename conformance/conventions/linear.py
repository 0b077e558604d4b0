"""Rules that are linear in the gradients: sums, averages, and how much of them a step takes.

Whether a buffer is a sum or an average, whether the step looks ahead, and where the learning rate and the decay act, is told
apart by no name: "momentum" is all of it.
"""

from typing import Any

from xopt.conformance.conventions.convention import Convention
from xopt.conformance.conventions.texts import DECAY_FIRST, Texts

sgd = Texts("sgd", u=("grad", "grad"))

SGD = [
    sgd("sign", "ascends", "The step goes up.", sgd.both("params - lr *", "params + lr *"), planted=("rule", "both")),
    sgd(
        "step",
        "relative to the parameter",
        "The gradient is multiplied by the parameter.",
        sgd.both("(grad + weight_decay", "(params * grad + weight_decay"),
    ),
    sgd("lr", "squared", "The rate is applied twice.", sgd.both("(grad + weight_decay", "(lr * grad + weight_decay")),
    sgd.weight_decay("before the step", documented="keras.optimizers.SGD", same=DECAY_FIRST, planted=()),
    sgd(
        "bits",
        "in two steps",
        "The gradient and the decay are taken off the parameters one after the other.",
        sgd.both("params - lr * (grad + weight_decay * params)", "(params - lr * grad) - lr * (weight_decay * params)"),
        same="The sum is the same.",
        planted=(),
    ),
    sgd.weight_decay("without lr", planted=("rule", "both")),
    sgd.weight_decay("after the step", documented="explosion/thinc, optimizers.py: L2_is_weight_decay", planted=()),
    sgd.weight_decay("negative", planted=("rule", "golden", "both")),
    sgd(
        "weight decay",
        "halved",
        "The decay is the gradient of a quarter of the square.",
        sgd.both("weight_decay * params)", "0.5 * weight_decay * params)"),
    ),
    sgd.default("lr", "0.01", "0.001", "lr", "default 0.001", "The default is torch's.", documented="torch.optim.SGD"),
    sgd(
        "gradient",
        "cubed",
        "Large gradients count more.",
        sgd.both("(grad + weight_decay", "(grad * grad * grad + weight_decay"),
        planted=("both",),
    ),
]

_SUM = "v = accumulate(v, grad, c.beta)", "v = beta * v + grad"


def damped(of: Texts, choice: str = "beta", sentence: str = "v is an average.", first: bool = True, **said: Any) -> Convention:
    """An average in place of a sum. Its gain is a coefficient, as 1 - beta of a rounded beta has lost digits."""
    gains = ("1.0 - beta", "(1 - beta)") if first else ("1.0 if t == 1 else 1.0 - beta", "(1 if t == 1 else 1 - beta)")
    changes = (
        of.rule("    weight_decay: Scalar\n", "    weight_decay: Scalar\n    gain: Scalar\n"),
        of.rule("Coefficients(lr, beta, weight_decay)", f"Coefficients(lr, beta, weight_decay, {gains[0]})"),
        of.line(_SUM, "v = accumulate(v, grad if v is None else c.gain * grad, c.beta)", f"v = beta * v + {gains[1]} * grad"),
    )
    return of("dampening", choice, sentence, *changes, **said)


momentum = Texts("momentum", u=("v", "v"), first=("v = accumulate(", "v = beta * v + grad"), words={"beta": "c.beta"})

_SUM_OF_STEPS = "v = accumulate(v, c.lr * grad, c.beta)", "v = beta * v + lr * grad"


def stepped_by_the_buffer(of: Texts, step: str, documented: str) -> Convention:
    """A sum of steps, which no rate scales any more; the decay acts first, as in Keras."""
    return of(
        "lr",
        "in the buffer alone",
        "v is a sum of steps: a change of lr acts on new gradients only.",
        of.line(_SUM, *_SUM_OF_STEPS),
        of.step(f"(1.0 - lr * weight_decay) * params - ({step})"),
        documented=documented,
        planted=(),
    )


MOMENTUM = [
    damped(
        momentum,
        documented="mlx.optimizers.SGD with dampening",
        planted=("rule", "golden", "both"),
    ),
    damped(
        momentum,
        "beta, after the first step",
        "v is an average but for the first gradient, which counts in whole.",
        first=False,
        documented="torch.optim.SGD with dampening",
        planted=(),
    ),
    momentum(
        "lr",
        "in the buffer",
        "v is a sum of steps, as in Keras, and lr scales it once more, which it does not there.",
        momentum.line(_SUM, *_SUM_OF_STEPS),
        planted=("rule", "both"),
    ),
    stepped_by_the_buffer(momentum, "v", "keras.optimizers.SGD: velocity = momentum * velocity - learning_rate * g"),
    momentum(
        "look-ahead",
        "Nesterov's",
        "The step is that of nesterov.",
        momentum.both("(v + weight_decay", "(grad + beta * v + weight_decay"),
    ),
    momentum(
        "v",
        "the old one",
        "The step uses the sum before the gradient.",
        momentum.previous("v", _SUM, ("c.lr * ({} +", "lr * ({} + weight_decay * params),")),
    ),
    momentum.weight_decay("L2", documented="torch.optim.SGD, mlx.optimizers.SGD"),
    momentum.weight_decay("before the step", documented="kozistr/pytorch_optimizer", same=DECAY_FIRST, planted=()),
    momentum.default("beta", "0.9", "0.99", "beta", "default 0.99", "The default momentum is ten times longer."),
    momentum(
        "v",
        "starts at half",
        "The first gradient counts half.",
        momentum.line(_SUM, "v = accumulate(v, 0.5 * grad, c.beta)", "v = beta * v + grad / 2"),
        planted=("both",),
    ),
    momentum(
        "v",
        "starts at the parameters",
        "The first sum has beta times the parameters in it.",
        momentum.rule("    weight_decay: Scalar\n", "    weight_decay: Scalar\n    start: Scalar\n"),
        momentum.rule("Coefficients(lr, beta, weight_decay)", "Coefficients(lr, beta, weight_decay, beta if t == 1 else 0.0)"),
        momentum.rule("accumulate(v, grad, c.beta)", "accumulate(v, grad + c.start * params, c.beta)"),
        momentum.golden("beta * v + grad", "beta * (params if t == 1 else v) + grad"),
        seen="kozistr/pytorch_optimizer 3.9.0, sgd.py: momentum_buffer is p.clone()",
        planted=(),
    ),
    momentum(
        "weight decay",
        "a constant",
        "lr * weight_decay is taken off every parameter, whatever its size.",
        momentum.step("(params - lr * {u}) - lr * weight_decay"),
        seen="jettify/pytorch-optimizer#454",
        planted=(),
    ),
    momentum(
        "bits",
        "the decay is added before",
        "theta - (lr * v + lr * (weight_decay * theta)).",
        momentum.both("lr * (v + weight_decay * params)", "(lr * v + lr * (weight_decay * params))"),
        same="Multiplication distributes over the sum.",
    ),
]

nesterov = Texts(
    "nesterov",
    u=("grad + c.beta * v", "grad + beta * v"),
    first=("v = accumulate(", "v = beta * v + grad"),
    words={"beta": "c.beta"},
)

NESTEROV = [
    nesterov(
        "look-ahead",
        "missing",
        "The step is that of the heavy ball.",
        nesterov.both("grad + beta * v +", "v +"),
        seen="bitsandbytes-foundation/bitsandbytes 0.50.2, sgd.py: nesterov is accepted and ignored",
        planted=("rule", "golden", "both"),
    ),
    nesterov(
        "v",
        "the old one",
        "The look-ahead is from the sum before the gradient.",
        nesterov.previous("v", _SUM, ("grad + c.beta * {} +", "grad + beta * {} + weight_decay * params),")),
    ),
    nesterov(
        "look-ahead",
        "twice",
        "The look-ahead is a step too far.",
        nesterov.both("grad + beta * v +", "grad + beta * (grad + beta * v) +"),
    ),
    nesterov(
        "look-ahead",
        "without beta",
        "The sum is added undecayed.",
        nesterov.both("grad + beta * v +", "grad + v +"),
        planted=("rule", "both"),
    ),
    damped(nesterov),
    stepped_by_the_buffer(nesterov, "lr * grad + beta * v", "keras.optimizers.SGD: momentum * velocity - learning_rate * g"),
    nesterov.weight_decay("L2", documented="torch.optim.SGD, mlx.optimizers.SGD"),
    nesterov.weight_decay("before the step", documented="kozistr/pytorch_optimizer", same=DECAY_FIRST, planted=()),
]

qhm = Texts(
    "qhm",
    u=("c.now * grad + c.nu * m", "(1 - nu) * grad + nu * m"),
    first=("m = average(m,", "m = beta * m +"),
    words={"(1 - nu)": "c.now", "nu": "c.nu", "beta:": "SignedBeta"},
)
_AVERAGE = "m = average(m, grad, c.gain)", "m = beta * m + (1 - beta) * grad"

QHM = [
    qhm(
        "nu",
        "on the gradient",
        "The weights of gradient and average are swapped.",
        qhm.both("(1 - nu) * grad + nu * m", "nu * grad + (1 - nu) * m"),
        planted=("rule", "golden", "both"),
    ),
    qhm(
        "m",
        "undamped",
        "m is a sum, not an average, as in the authors' TensorFlow file, which makes up for it in the step.",
        qhm.line(_AVERAGE, "m = grad if m is None else (1.0 - c.gain) * m + grad", "m = beta * m + grad"),
        planted=("rule", "both"),
    ),
    qhm(
        "m",
        "the old one",
        "The step uses the average before the gradient.",
        qhm.previous("m", _AVERAGE, ("c.nu * {}", "+ nu * {} +")),
    ),
    qhm(
        "bias correction",
        "of m",
        "The average is corrected for its start.",
        qhm.rule("1.0 - beta, nu, 1.0 - nu", "1.0 - beta, nu / (1.0 - beta**t), 1.0 - nu"),
        qhm.golden("+ nu * m +", "+ nu / (1 - beta**t) * m +"),
    ),
    qhm.default(
        "nu", "0.7", "1.0", "nu", "default 1", "The plain gradient has no share.", documented="kozistr/pytorch_optimizer, qhm.py"
    ),
    qhm.default("beta", "0.999", "0.9", "beta", "default 0.9", "The average is a hundred times shorter."),
    qhm.weight_decay("L2", documented="facebookresearch/qhoptim, its default"),
    qhm.weight_decay("before the step", documented="kozistr/pytorch_optimizer", same=DECAY_FIRST, planted=()),
    qhm("gradient", "whole", "The plain gradient has weight 1.", qhm.both("(1 - nu) * grad +", "grad +")),
    qhm(
        "weight decay",
        "of the average's share",
        "The decay is scaled by nu.",
        qhm.both("weight_decay * params)", "nu * (weight_decay * params))"),
        planted=("both",),
    ),
    qhm(
        "bits",
        "in two steps",
        "theta - lr * nu * m, and then the gradient's share off that.",
        qhm.both("params - lr * ((1 - nu) * grad + nu * m", "params - lr * nu * m - lr * ((1 - nu) * grad"),
        same="Multiplication distributes over the sum.",
        planted=(),
    ),
]

aggmo = Texts(
    "aggmo",
    u=("c.share * total", "total / len(v)"),
    first=("buffers = tuple(", "v = tuple("),
    words={"total / len(v)": "c.share * total", "betas:": "Betas"},
)
_ONE_BUFFER = (
    "    buffers: tuple[Array, ...] = ()\n"
    "    last = {float(getattr(beta_i, 'value', beta_i)): v_i for v_i, beta_i in zip(v, c.betas, strict=True)}\n"
    "    for beta_i in c.betas:\n"
    "        key = float(getattr(beta_i, 'value', beta_i))\n"
    "        last[key] = accumulate(last[key], grad, beta_i)\n"
    "        buffers = (*buffers, last[key])"
)
_MOVED = (
    "v, at = list(v), [betas.index(beta) for beta in betas]\n"
    "    last = {at[i]: v_i for i, v_i in enumerate(v)}\n"
    "    for i, beta in enumerate(betas):\n"
    "        last[at[i]] = v[i] = beta * last[at[i]] + grad\n"
    "    v = (*v,)"
)
_OTHERS = (
    "\n    for v_i in buffers[1:]:\n        new = new - c.lr * c.share * v_i\n    return new, buffers\n",
    "\n    for v_i in v[1:]:\n        new = new - lr / len(v) * v_i\n    return new, v\n",
)
_BUFFERS = "v = tuple(beta * v_i + grad for beta, v_i in zip(betas, v, strict=True))"

AGGMO = [
    aggmo(
        "mean",
        "a sum",
        "The buffers are added and not divided.",
        aggmo.rule("1.0 / len(betas)", "1.0"),
        aggmo.golden("total / len(v)", "total"),
        planted=("rule", "golden", "both"),
    ),
    aggmo(
        "buffers",
        "damped",
        "Each buffer is an average.",
        aggmo.rule("    share: Scalar", "    gains: tuple[Scalar, ...]\n    share: Scalar"),
        aggmo.rule("Coefficients(lr, betas,", "Coefficients(lr, betas, tuple([1.0 - beta for beta in betas]),"),
        aggmo.rule("accumulate(v_i, grad, beta_i)", "accumulate(v_i, grad if v_i is None else gain_i * grad, beta_i)"),
        aggmo.rule(
            "for v_i, beta_i in zip(v, c.betas, strict=True)", "for v_i, beta_i, gain_i in zip(v, c.betas, c.gains, strict=True)"
        ),
        aggmo.golden("beta * v_i + grad", "beta * v_i + (1 - beta) * grad"),
        planted=("rule", "both"),
    ),
    aggmo(
        "betas",
        "in reverse",
        "The buffers have each other's decays.",
        aggmo.rule("zip(v, c.betas, strict=True)", "zip(v, c.betas[::-1], strict=True)"),
        aggmo.golden("zip(betas, v, strict=True)", "zip(betas[::-1], v, strict=True)"),
        at={"betas": (0.5, 0.9, 0.99)},
    ),
    aggmo(
        "betas",
        "the last for all",
        "There is one decay.",
        aggmo.rule("zip(v, c.betas, strict=True)", "zip(v, c.betas[-1:] * len(v), strict=True)"),
        aggmo.golden("zip(betas, v, strict=True)", "zip(betas[-1:] * len(v), v, strict=True)"),
        at={"betas": (0.5, 0.9, 0.99)},
    ),
    aggmo(
        "equal betas",
        "one buffer",
        "Equal decays share a buffer that moves once for each, and is used as it then is.",
        aggmo.rule(
            "    buffers = tuple(accumulate(v_i, grad, beta_i) for v_i, beta_i in zip(v, c.betas, strict=True))", _ONE_BUFFER
        ),
        aggmo.golden(_BUFFERS, _MOVED),
        seen="AtheMathmo/AggMo, aggmo.py; kozistr/pytorch_optimizer",
        at={"betas": (0.5, 0.9, 0.9)},
    ),
    aggmo(
        "mean",
        "without the last",
        "The slowest buffer is kept but not used.",
        aggmo.rule("for v_i in rest:", "for v_i in rest[:-1]:"),
        aggmo.golden("for v_i in v[1:]:", "for v_i in v[1:-1]:"),
    ),
    aggmo(
        "weight decay",
        "shared out",
        "The decay is divided by the number of buffers.",
        aggmo.rule("c.share * total + c.weight_decay * params", "c.share * (total + c.weight_decay * params)"),
        aggmo.golden("total / len(v) + weight_decay * params", "(total + weight_decay * params) / len(v)"),
    ),
    aggmo.weight_decay("L2", documented="AtheMathmo/AggMo, aggmo.py"),
    aggmo.weight_decay("before the step", documented="kozistr/pytorch_optimizer", same=DECAY_FIRST, planted=()),
    aggmo.default(
        "betas",
        "(0.0, 0.9, 0.99)",
        "(0.0, 0.9, 0.999)",
        "betas",
        "default (0, 0.9, 0.999)",
        "The slowest default is ten times slower.",
        planted=("rule", "both"),
        named={"both": "aggmo and its golden, default: betas of 0, 0.9 and 0.999"},
    ),
    aggmo.default(
        "lr", "0.1", "0.001", "lr", "default 0.001", "The default is a hundredth.", documented="kozistr/pytorch_optimizer, aggmo.py"
    ),
    aggmo(
        "mean",
        "the first buffer twice",
        "The buffers have unequal shares.",
        aggmo.rule("total, *rest = buffers", "total, *rest = buffers[0] + buffers[0], *buffers[1:]"),
        aggmo.golden("total = v[0]", "total = v[0] + v[0]"),
        planted=("both",),
    ),
    aggmo(
        "bits",
        "one after another",
        "theta - lr / K * v_1, and then the others' shares off that.",
        aggmo.rule(
            "    total, *rest = buffers\n    for v_i in rest:\n        total = total + v_i\n    return ", "    new, buffers = "
        ),
        aggmo.rule("c.share * total", "c.share * buffers[0]"),
        aggmo.rule("), buffers\n", f"), buffers{_OTHERS[0]}"),
        aggmo.golden("    total = v[0]\n    for v_i in v[1:]:\n        total = total + v_i\n    return ", "    new, v = "),
        aggmo.golden("total / len(v)", "v[0] / len(v)"),
        aggmo.golden("), v\n", f"), v{_OTHERS[1]}"),
        same="Multiplication distributes over the sum.",
        planted=(),
        at={"betas": (0.5, 0.9, 0.99)},
    ),
    aggmo(
        "bits",
        "summed from the right",
        "The last buffer is added first.",
        aggmo.rule("total, *rest = buffers", "total, *rest = reversed(buffers)"),
        aggmo.golden("total = v[0]\n    for v_i in v[1:]:", "total = v[-1]\n    for v_i in v[-2::-1]:"),
        same="Addition is associative.",
        at={"betas": (0.5, 0.9, 0.99)},
    ),
]
