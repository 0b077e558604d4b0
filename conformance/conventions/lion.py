"""Lion: which average's sign is taken, and whether the decay takes part in it."""

from xopt.conformance.conventions.texts import Texts

lion = Texts(
    "lion", u=("sign(interpolated)", "n.sign(c)"), first=("interpolated = grad if", "c = beta1 * m +"), words={"c": "interpolated"}
)

_INTERPOLATION = "interpolated = grad if m is None else c.beta1 * m + c.now * grad", "c = beta1 * m + (1 - beta1) * grad"
_NEW_M = "m = beta2 * m + (1 - beta2) * grad"

LION = [
    lion(
        "sign",
        "of the new average",
        "The sign is taken after m has moved.",
        lion.line(_INTERPOLATION, "interpolated = average(m, grad, c.gain2)", "c = beta2 * m + (1 - beta2) * grad"),
        planted=("rule", "golden", "both"),
    ),
    lion(
        "betas",
        "swapped",
        "Each decay has the other's place.",
        lion.rule(
            "Coefficients(lr, beta1, 1.0 - beta1, 1.0 - beta2,",
            "Coefficients(lr, beta2, 1.0 - beta2, 1.0 - beta1,",
        ),
        lion.golden("    c = beta1 * m", "    beta1, beta2 = beta2, beta1\n    c = beta1 * m"),
        planted=("rule", "both"),
    ),
    lion(
        "m",
        "averaged twice",
        "The interpolation is what m becomes.",
        lion.rule("return params, average(m, grad, c.gain2)", "return params, interpolated"),
        lion.golden(_NEW_M, "m = c"),
    ),
    lion(
        "sign",
        "of 0 is 1",
        "A parameter moves where nothing pulls it.",
        lion.both("n.sign(c) +", "n.sign(n.sign(c) + 0.5) +"),
    ),
    lion(
        "weight decay",
        "inside the sign",
        "The decay joins the vote.",
        lion.both("n.sign(c) + weight_decay * params", "n.sign(c + weight_decay * params)"),
        seen="bitsandbytes-foundation/bitsandbytes#1992",
        planted=("rule", "both"),
    ),
    lion.weight_decay("L2", seen="bitsandbytes-foundation/bitsandbytes#1992"),
    lion.weight_decay(
        "before the step",
        documented="google/automl, lion_pytorch.py; lucidrains/lion-pytorch",
        same="Both take lr * sign(c) and lr * weight_decay * params off the old parameters.",
        planted=(),
    ),
    lion.weight_decay("after the step"),
    lion("sign", "left out", "The interpolation itself is the step.", lion.both("n.sign(c) +", "c +"), planted=("rule", "both")),
    lion(
        "lr",
        "inside the average",
        "m is an average of steps.",
        lion.rule("average(m, grad, c.gain2)", "average(m, c.lr * grad, c.gain2)"),
        lion.golden(_NEW_M, "m = beta2 * m + (1 - beta2) * (lr * grad)"),
    ),
    lion.default(
        "weight_decay", "0.0", "0.001", "weight decay", "default 0.001", "The default is optax's.", documented="optax.lion"
    ),
    lion.default("lr", "0.0001", "0.001", "lr", "default 0.001", "The default is Keras's.", documented="keras.optimizers.Lion"),
    lion(
        "sign",
        "smooth",
        "Small interpolations give small steps.",
        lion.both("n.sign(c) +", "c / (abs(c) + 1e-3) +"),
    ),
    lion(
        "sign",
        "a tanh",
        "The hyperbolic tangent of the interpolation is the step.",
        lion.rule("import Array, average, sign", "import Array, average, namespace"),
        lion.rule("sign(interpolated) +", "1.0 - 2.0 / (namespace(interpolated).exp(2.0 * interpolated) + 1.0) +"),
        lion.golden("n.sign(c) +", "1 - 2 / (n.exp(2 * c) + 1) +"),
        documented="optax.scale_by_lion: mode smooth",
        planted=(),
    ),
    lion(
        "sign",
        "linear up to 1",
        "The interpolation is the step, cut off at 1.",
        lion.both("n.sign(c) +", "0.5 * (abs(c + 1.0) - abs(c - 1.0)) +"),
        documented="optax.scale_by_lion: mode refined",
        planted=(),
    ),
    lion.default("beta2", "0.99", "0.999", "default", "beta2 of 0.999", "The average is ten times as long.", planted=("both",)),
]
