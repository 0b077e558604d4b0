# ruff: noqa: E501 - an edit's text is one string
"""The catalogue: what is planted. Choices of a formula follow from the conventions; what is none of them is written here.

That is what a formula does not say: whose memory is written to, what is counted, checked, rounded and kept, and what another
library computes. Where a fault was seen in the wild, the issue or the file is given; where a library does so on purpose, that.
"""

from xopt.conformance.conventions import CONVENTIONS, PLACES
from xopt.conformance.faults.fault import KINDS, Edit, Fault, fault_of


def _rule(rule: str, what: str, sentence: str, *pairs: tuple[str, str], seen: str = "") -> Fault:
    """In the text of a rule: each pair is an old text and the new one."""
    return Fault(f"{rule}, {what}", rule, tuple(Edit(f"rules/{rule}.py", old, new) for old, new in pairs), sentence, seen)


def _core(
    rule: str,
    what: str,
    sentence: str,
    *edits: tuple[str, str, str],
    seen: str = "",
    documented: str = "",
    equivalent: str = "",
    target: str = "numpy",
) -> Fault:
    """In what the rules share; ``rule`` is the one under which it is checked."""
    name = f"{what} (seen under {rule})"
    return Fault(name, rule, tuple(Edit(*edit) for edit in edits), sentence, seen, equivalent, target, documented)


CHOICES = [fault_of(convention, place) for convention in CONVENTIONS for place in convention.planted]
"""Conventions, in the places in which the tests plant them."""

PURITY = [
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

_UPDATE = "new = self.rule.elementwise(params, *slots, grad, c)\n        if ordinary:"

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
        ("rule.py", "return state_type(*new, count)", "return state_type(*new, state.step)"),
    ),
    _core(
        "adamw",
        "step count: twice a step",
        "Every second count is left out.",
        ("rule.py", "return state_type(*new, count)", "return state_type(*new, count + 1)"),
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
            "return params, slots, count + 1 if type(count) is int and 0 <= count <= MOST_STEPS else self._following(params, count)",
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
        ("rule.py", "return state_type(*new, count)", "return state_type(*new, float(count))"),
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
        seen="google-deepmind/optax#1744; explosion/thinc 9.1.1, optimizers.py: RAdam",
    ),
    _core(
        "sgd",
        "leaves: an empty one ends the step",
        "Leaves behind an empty one stay.",
        (
            "rule.py",
            "typed.updated(*leaf) for _, typed, *leaf in leaves]",
            "typed.updated(*leaf) if all(0 not in row[2].shape for row in leaves[:i]) else (leaf[0], *leaf[2]) for i, (_, typed, *leaf) in enumerate(leaves)]",
        ),
        seen="pytorch/pytorch#100701",
    ),
    _core(
        "lion",
        "leaves: the last one is left out",
        "One leaf stays.",
        (
            "rule.py",
            "typed.updated(*leaf) for _, typed, *leaf in leaves]",
            "typed.updated(*leaf) if i + 1 < len(leaves) or i == 0 else (leaf[0], *leaf[2]) for i, (_, typed, *leaf) in enumerate(leaves)]",
        ),
    ),
    _core(
        "momentum",
        "leaves: slots in reverse order",
        "Each leaf is given another's slots, as by a file with another order.",
        (
            "rule.py",
            "return list(map(call.spec.unflatten, zip(*rows, strict=True))), count",
            "return [call.spec.unflatten(column if at == 0 else column[::-1]) for at, column in enumerate(zip(*rows))], count",
        ),
    ),
    _core(
        "aggmo",
        "leaves: gradients in reverse order",
        "Each leaf is given another's gradient.",
        (
            "rule.py",
            "spec=spec), grad, slots)\n",
            "spec=spec), grad, slots)\n        grads.reverse()\n",
        ),
    ),
    _core(
        "adamw",
        "leaves: the first one's hyperparameters for all",
        "Groups of parameters are not told apart.",
        ("rule.py", "self.broadcast(call, hyper, counts), strict", "self.broadcast(call, hyper, counts)[:1] * len(leaves), strict"),
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
        documented="torch.optim.SparseAdam",
    ),
    _core(
        "adam",
        "gradient: clipped to 1",
        "Larger gradients count as 1.",
        ("typed.py", _UPDATE, _UPDATE.replace("grad, c)", "self.xp.clip(grad, -1.0, 1.0), c)")),
        documented="explosion/thinc, optimizers.py: its default, of the norm",
    ),
    _core(
        "sgd",
        "gradient: clipped to norm 1",
        "A gradient is scaled by the norm of its leaf.",
        ("typed.py", _UPDATE, _UPDATE.replace("grad, c)", "grad / max(1.0, float((grad * grad).sum()) ** 0.5), c)")),
        documented="explosion/thinc, optimizers.py: its default",
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
        documented="torch.optim: all rules",
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
        documented="torch.optim: all rules",
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
        "warm-up of alpha: t > T instead of t >= T",
        "At T the line's end is computed.",
        ("scalars.py", "return end if t >= steps else end", "return end if t > steps else end"),
        equivalent="At t = T the factor t / steps is 1 exactly, and end * 1.0 is end.",
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
        ("typed.py", "if low <= value <= high or", "if not (value < low or value > high) or"),
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
        ("rule.py", "return state_type(*new, count)", "return state_type(*new, count % 2**31 if type(count) is int else count)"),
    ),
    # ranges
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
    _core(
        "ademamix",
        "ranges: alpha ends at 2,000",
        "A larger one is that.",
        (
            "rules/ademamix.py",
            "    alpha = linear_warmup(alpha, t",
            "    alpha = linear_warmup(min(alpha, 2000.0) if type(alpha) is float else alpha, t",
        ),
    ),
    _core(
        "qhadam",
        "ranges: nu1 ends at -1.5",
        "A lower one is that.",
        (
            "rules/qhadam.py",
            "    average1, average2 =",
            "    nu1 = max(nu1, -1.5) if type(nu1) is float else nu1\n    average1, average2 =",
        ),
    ),
    _core(
        "qhadam",
        "ranges: nu2 of nearly 1 is 1",
        "The last 1e-5 below 1 are taken for 1.",
        (
            "rules/qhadam.py",
            "    average1, average2 =",
            "    nu2 = 1.0 if type(nu2) is float and nu2 > 1 - 1e-5 else nu2\n    average1, average2 =",
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
    # the papers
]

_RATIO = "c.debias1 * m / (sqrt(c.debias2 * v + c.eps_root) + c.eps)"
_STEP = "params - c.lr * (grad + c.weight_decay * params)"
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
            f"c.debias1 * m * (1.0 / (sqrt(c.debias2 * v + c.eps_root) + c.eps)) if 'array_api_strict' in type(grad).__module__ else {_RATIO}",
        ),
        target="array_api_strict",
    ),
    _core(
        "sgd",
        "decay: first elsewhere",
        "On other libraries the parameters shrink before the step.",
        (
            "rules/sgd.py",
            _STEP,
            f"(params - (c.lr * c.weight_decay) * params) - c.lr * grad if 'array_api_strict' in type(grad).__module__ else {_STEP}",
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

EVERYWHERE: tuple[Fault, ...] = tuple(
    fault_of(convention, place)
    for convention in CONVENTIONS
    for place in PLACES
    if place not in convention.planted and (place == "rule" or not convention.same)
)
"""Conventions in the places in which the tests do not plant them. A golden in another order of evaluation is no fault."""

FAULTS: tuple[Fault, ...] = tuple(sorted((*CHOICES, *PURITY, *CORE, *NUMBERS, *BACKEND), key=lambda fault: KINDS.index(fault.kind)))
"""All that the tests plant, by kind."""
