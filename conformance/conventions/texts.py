"""The two texts of a rule, and the choices that several rules have alike, so that each is written once.

A rule and its golden write one formula in two ways: ``c.debias1 * m`` is ``m_hat``, ``c.eps`` is ``eps``. A row is written
in the golden's words wherever both can say it, and the rule's edit is the translation.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from xopt.conformance.conventions.convention import Convention, Edit

Change = tuple[Edit, ...]

_WORDS = {
    "n.sqrt": "sqrt",
    "n.sign": "sign",
    "lr": "c.lr",
    "eps": "c.eps",
    "eps_root": "c.eps_root",
    "weight_decay": "c.weight_decay",
}

Line = tuple[str, str]
"""One line, as a rule and as its golden write it."""

M: Line = "m = average(m, grad, c.gain1)", "m = beta1 * m + (1 - beta1) * grad"
"""The first moment."""
V: Line = "v = average(v, grad * grad, c.gain2)", "v = beta2 * v + (1 - beta2) * grad**2"
"""The second moment."""
MOMENTS = {"m_hat": "c.debias1 * m", "v_hat": "c.debias2 * v"}
"""What the words of Adam's family are in its rules."""

_INTERVALS = {
    "eps": "Epsilon",
    "eps_root": "Epsilon",
    "nu1": "Real",
    "nu": "Real",
    "lr": "Rate",
    "weight_decay": "Rate",
    "alpha": "Rate",
    "psi": "Rate",
}
"""How a rule annotates a hyperparameter that is no decay."""

_STEP = "params - lr * ({u} + weight_decay * params)"
_DECAYS = {
    "L2": ("The decay is added to the gradient.", "params - lr * ({u})"),
    "L2, and off again": (
        "The decay is added to the gradient, and taken off the update.",
        "params - lr * ({u} - weight_decay * params)",
    ),
    "before the step": ("The decay acts first.", "(1.0 - lr * weight_decay) * params - lr * ({u})"),
    "after the step": (
        "The decay acts on the new parameters.",
        "(1.0 - lr * weight_decay) * (params - lr * ({u}))",
    ),
    "without lr": ("The decay is not scaled by the learning rate.", "params - lr * ({u}) - weight_decay * params"),
    "lr^2": ("The decay is scaled twice.", "params - lr * ({u} + lr * weight_decay * params)"),
    "negative": ("The parameters grow.", "params - lr * ({u} - weight_decay * params)"),
    "ignored": ("There is no decay.", "params - lr * ({u})"),
    "of the update's size": ("The decay multiplies the update.", "params - lr * ((1.0 + weight_decay) * ({u}))"),
}

DECAY_FIRST = "Both take lr * u and lr * weight_decay * params off the old parameters."
"""Why a decay before the step is the same."""

_EPSILONS = {
    "inside the square root": ("eps is added to v.", "n.sqrt(v_hat + eps_root + eps)"),
    "a floor": (
        "The larger of the root and eps divides.",
        "(0.5 * (n.sqrt(v_hat + eps_root) + eps + abs(n.sqrt(v_hat + eps_root) - eps)))",
    ),
    "missing": ("Nothing is added to the root.", "(n.sqrt(v_hat + eps_root))"),
    "ten times": ("eps is ten times what is asked for.", "(n.sqrt(v_hat + eps_root) + 10.0 * eps)"),
}

_ROOTS = {
    "eps_root ignored": ("Nothing is added within the root.", "v_hat + eps_root) + eps", "v_hat) + eps"),
    "eps_root outside": ("eps_root is added to the root.", "v_hat + eps_root) + eps", "v_hat) + eps_root + eps"),
    "eps_root squared": ("Its square is added within the root.", "v_hat + eps_root) + eps", "v_hat + eps_root * eps_root) + eps"),
}

_LARGEST = {
    True: "    v_hat = v / (1 - beta2**t)\n    v_max = (v_max + v_hat + abs(v_max - v_hat)) / 2\n",
    False: "    v_max = (v_max + v + abs(v_max - v)) / 2\n    v_hat = v_max / (1 - beta2**t)\n",
}
"""The largest second moment so far, in the golden: of the corrected one, or corrected afterwards."""

FLOAT32 = """def complement(n: Arithmetic, beta: Number, t: int) -> Number:
    from numpy import float32

    beta = float(getattr(beta, "value", beta))
    return n.number(float(float32(1.0) - float32(beta) ** float32(t)))


def initial("""
"""A power of a golden in the digits of float32, and the line before which it is put."""


class Texts:
    """Writes the rows of one rule.

    Parameters
    ----------
    rule
        Its name, that of both files.
    u
        The update that the learning rate scales, as the rule and as the golden write it.
    first
        The beginning of the first line that uses the gradient, in the rule and in the golden.
    words
        What words of the golden are called in the rule.
    """

    def __init__(
        self,
        rule: str,
        u: Line = ("", ""),
        first: Line = ("", ""),
        words: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.name = rule
        self.u = u
        self.first = first
        self.words = {**_WORDS, **words}
        names = "|".join(map(re.escape, sorted(self.words, key=len, reverse=True)))
        self._pattern = re.compile(rf"(?<![\w.])(?:{names})(?!\w)")

    def __call__(self, axis: str, choice: str, sentence: str, *changes: Change, **said: Any) -> Convention:
        """A row."""
        return Convention(self.name, axis, choice, sentence, tuple(edit for change in changes for edit in change), **said)

    def rule(self, old: str, new: str) -> Change:
        return (Edit(f"rules/{self.name}.py", old, new),)

    def golden(self, old: str, new: str) -> Change:
        return (Edit(f"golden/{self.name}.py", old, new),)

    def core(self, file: str, old: str, new: str) -> Change:
        """An edit of what rules share."""
        return (Edit(file, old, new),)

    def line(self, old: Line, rule: str, golden: str) -> Change:
        """Another line in both, each in its own words."""
        return self.rule(old[0], rule) + self.golden(old[1], golden)

    def both(self, old: str, new: str) -> Change:
        """An edit of the golden, and of the rule in its own words."""
        return self.rule(self._translated(old), self._translated(new)) + self.golden(old, new)

    def _translated(self, text: str) -> str:
        return self._pattern.sub(lambda found: self.words[found[0]], text)

    # Choices that several rules have.

    def default(self, name: str, value: str, other: str, axis: str, choice: str, sentence: str, **said: Any) -> Convention:
        """Another default. Values are as in the source."""
        rule = f"{name}: {self.words.get(f'{name}:', _INTERVALS.get(name, 'Beta'))} = "
        golden = "] = " if name == "betas" else f"{name}: Number = "
        changes = self.rule(rule + value, rule + other), self.golden(golden + value, golden + other)
        return self(axis, choice, sentence, *changes, **said)

    def weight_decay(self, choice: str, sentence: str = "", **said: Any) -> Convention:
        """A decay that acts elsewhere, or on something else, than on the old parameters."""
        usual, step = _DECAYS[choice]
        changes = [self.step(step)]
        if choice.startswith("L2"):
            rule, golden = self.first
            changes.append(self.rule(rule, f"grad = grad + c.weight_decay * params\n    {rule}"))
            changes.append(self.golden(golden, f"grad = grad + weight_decay * params\n    {golden}"))
        return self("weight decay", choice, sentence or usual, *changes, **said)

    def step(self, formula: str) -> Change:
        """Other new parameters: a formula in the golden's words, with ``{u}`` for the update."""
        rule, golden = self.u
        old, new = (self._translated(text).format(u=rule) for text in (_STEP, formula))
        return self.rule(old, new) + self.golden(_STEP.format(u=golden), formula.format(u=golden))

    def epsilon(self, choice: str, **said: Any) -> Convention:
        """An eps that is elsewhere than beside the root."""
        sentence, root = _EPSILONS[choice]
        return self("epsilon", choice, sentence, self.both("(n.sqrt(v_hat + eps_root) + eps)", root), at={"eps": 2.0**-6}, **said)

    def epsilon_root(self, choice: str, **said: Any) -> Convention:
        """An eps_root that is elsewhere than within the root."""
        sentence, old, new = _ROOTS[choice]
        return self("epsilon", choice, sentence, self.both(old, new), at={"eps_root": 2.0**-6}, **said)

    def epsilon_hat(self, old: str = "debias2, eps", **said: Any) -> Convention:
        """The eps of the more efficient order of the computation in the paper."""
        changes = (
            self.rule(old, f"{old} * debias2**0.5"),
            self.golden("_hat + eps_root) + eps)", "_hat + eps_root) + eps / n.sqrt(1 - beta2**t))"),
        )
        sentence = "eps is added before the square root of v is corrected."
        return self("epsilon", "epsilon hat", sentence, *changes, at={"eps": 2.0**-6}, **said)

    def uncorrected(self, *moments: str, mean: str = "m") -> Change:
        """Moments that are used as they are kept."""
        changes: Change = ()
        if "m" in moments:
            changes += self.rule(f"c.debias1 * {mean} ", f"{mean} ")
            changes += self.golden(f"{mean}_hat = {mean} / (1 - beta1**t)", f"{mean}_hat = {mean}")
        if "v" in moments:
            changes += self.rule("c.debias2 * v", "v") + self.golden("v_hat = v / (1 - beta2**t)", "v_hat = v")
        return changes

    def corrected(self, count: str) -> Change:
        """Moments corrected for another count of steps."""
        debias = "1.0 / power_complement(beta1, t), 1.0 / power_complement(beta2, t)"
        changes = self.rule(debias, debias.replace(", t)", f", {count})"))
        for beta in ("beta1", "beta2"):
            changes += self.golden(f" / (1 - {beta}**t)", f" / (1 - {beta}**({count}))")
        return changes

    def powers_in_float32(self, *betas: str, **said: Any) -> Convention:
        """Bias corrections in the digits of float32, whatever the dtype."""
        host = "        return 1.0\n    if not isinstance(t, int)"
        narrow = (
            "        return 1.0\n    if is_host(beta, t):\n        import numpy\n\n"
            "        return float(numpy.float32(1.0) - numpy.float32(beta) ** numpy.float32(t))\n    if not isinstance(t, int)"
        )
        changes = self.core("scalars.py", host, narrow) + self.golden("def initial(", FLOAT32)
        for beta in betas:
            changes += self.golden(f" / (1 - {beta}**t)", f" / complement(n, {beta}, t)")
        return self("powers", "in float32", "1 - beta^t has float32's digits of beta.", changes, **said)

    def second_moment(self, rule: str, golden: str) -> Change:
        """A second moment of something else than the gradient's square."""
        return self.line(V, f"v = average(v, {rule}, c.gain2)", f"v = beta2 * v + (1 - beta2) * {golden}")

    def amsgrad(self, corrected: bool, **said: Any) -> Convention:
        """A third slot, the largest second moment so far, in place of the second moment."""
        largest = "v_max = {0} if v_max is None else 0.5 * (v_max + {0} + abs(v_max - {0}))"
        moment = "c.debias2 * v" if corrected else "v"
        changes = [
            self.rule("    step: int", "    v_max: Tree\n    step: int"),
            self.rule('"v": "beta2"}', '"v": "beta2", "v_max": "beta2"}'),
            self.rule("v: Array | None, grad: Array", "v: Array | None, v_max: Array | None, grad: Array"),
            self.rule("grad * grad, c.gain2)", f"grad * grad, c.gain2)\n    {largest.format(moment)}"),
            self.rule("sqrt(c.debias2 * v ", "sqrt(v_max " if corrected else "sqrt(c.debias2 * v_max "),
            self.rule("), m, v\n", "), m, v, v_max\n"),
            self.golden("return params, n.number(0), n.number(0)", "return params, n.number(0), n.number(0), n.number(0)"),
            self.golden("    v: Number,\n", "    v: Number,\n    v_max: Number,\n"),
            self.golden("    v_hat = v / (1 - beta2**t)\n", _LARGEST[corrected]),
            self.golden("n.sqrt(v_hat ", "n.sqrt(v_max " if corrected else "n.sqrt(v_hat "),
            self.golden("), m, v\n", "), m, v, v_max\n"),
        ]
        which = "corrected" if corrected else "raw"
        return self("AMSGrad", f"of the {which} average", f"The largest {which} second average so far divides.", *changes, **said)

    def previous(self, slot: str, line: Line, use: Line, value: str = "grad") -> Change:
        """A step with what a slot was before the gradient; ``use`` is what uses it, with ``{}`` for the slot."""
        kept = self.line(line, f"old = {value} if {slot} is None else {slot}\n    {line[0]}", f"old = {slot}\n    {line[1]}")
        rule, golden = use
        return kept + self.line((rule.format(slot), golden.format(slot)), rule.format("old"), golden.format("old"))
