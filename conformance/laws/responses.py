"""Responses in closed form: what an impulse, a constant and any other sequence of gradients lead to.

Each rule but Lion is a quotient: a weighted sum of the gradients by their age, over the root of a weighted sum of their squares
plus eps, or over nothing. The weights are written here as functions of the age, in many digits, without any recursion over steps.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from xopt.conformance.arithmetic.bounded import Bounded, Namespace
from xopt.conformance.arithmetic.numbers import multiprecision
from xopt.conformance.laws.lab import STEPS, Case, Hyper, Kind, Lab, Laws, given, nearest, number, rows, stacked
from xopt.conformance.laws.traits import AVERAGING, SHRINKING, averages, degrees

LAWS = Laws()

LINEAR_RULES = ("sgd", "momentum", "nesterov", "qhm", "aggmo")
"""Linear rules whose weights by age are known."""
ADAPTIVE_RULES = ("adam", "adamw", "nadam", "qhadam", "ademamix")
"""Rules that divide by a root, whose weights by age are known."""

_N = multiprecision(50)
Weights = list[Any]
"""By age, of the gradient of this step first: numbers of many digits."""


def weights(rule: str, hyper: Hyper, t: int, steps_before: int = 0) -> Weights:
    """Of the gradients in the numerator of step t of a run that begins, with nothing remembered, after ``steps_before`` steps."""
    h = {name: _N.number(value) for name, value in hyper.items() if isinstance(value, float)}
    ages = range(t)
    if rule == "sgd":
        return [_N.number(k == 0) for k in ages]
    if rule == "momentum":
        return [h["beta"] ** k for k in ages]
    if rule == "nesterov":
        return [(k == 0) + h["beta"] ** (k + 1) for k in ages]
    if rule == "qhm":
        return [(1 - h["nu"]) * (k == 0) + h["nu"] * (1 - h["beta"]) * h["beta"] ** k for k in ages]
    if rule == "aggmo":
        betas = [_N.number(beta) for beta in hyper["betas"]]
        return [sum(beta**k for beta in betas) / len(betas) for k in ages]
    fast = [(1 - h["beta1"]) * h["beta1"] ** k for k in ages]
    debiased = [w / (1 - h["beta1"] ** (steps_before + t)) for w in fast]
    if rule == "qhadam":
        return [(1 - h["nu1"]) * (k == 0) + h["nu1"] * debiased[k] for k in ages]
    if rule == "nadam":
        mu = [_mu(h, i) for i in range(steps_before + 1, steps_before + t + 2)]
        to_now, to_next = _product(mu[:-1]), _product(mu)
        return [(1 - mu[-2]) / (1 - to_now) * (k == 0) + mu[-1] / (1 - to_next) * fast[k] for k in ages]
    if rule == "ademamix":
        alpha = h["alpha"] * _warm(hyper, steps_before + t)
        return [w + alpha * s for w, s in zip(debiased, _slow(hyper, t, steps_before), strict=True)]
    return debiased


def _warm(hyper: Hyper, t: int) -> Any:
    """The share of alpha at step t."""
    return min(_N.number(1), t / _N.number(hyper["alpha_warmup"])) if hyper["alpha_warmup"] else _N.number(1)


def square_weights(rule: str, hyper: Hyper, t: int, steps_before: int = 0) -> Weights:
    """Of the squared gradients in the denominator of step t."""
    beta2 = _N.number(hyper["beta2"])
    debiased = [(1 - beta2) * beta2**k / (1 - beta2 ** (steps_before + t)) for k in range(t)]
    nu2 = _N.number(hyper["nu2"]) if rule == "qhadam" else 1
    return [(1 - nu2) * (k == 0) + nu2 * w for k, w in enumerate(debiased)]


def _mu(h: dict[str, Any], t: int) -> Any:
    return h["beta1"] * (1 - _N.exp(t * h["psi"] * _N.log(_N.number(0.96))) / 2)


def _slow(hyper: Hyper, t: int, steps_before: int) -> Weights:
    """Of the slow average of AdEMAMix, whose decay at each step is that of the scheduler."""
    decays = [beta3(hyper, i) for i in range(steps_before + 1, steps_before + t + 1)]
    return [(1 - decays[t - 1 - k]) * _product(decays[t - k :]) for k in range(t)]


def beta3(hyper: Hyper, t: int) -> Any:
    """The decay of AdEMAMix's slow average at step t: its time constant -1/ln(beta) grows linearly to that of the end."""
    warmup, start, end = hyper["beta3_warmup"], _N.number(hyper["beta1"]), _N.number(hyper["beta3"])
    if not warmup or t >= warmup:
        return end
    mu = t / _N.number(warmup)
    time = (1 - mu) * _time_constant(start) + mu * _time_constant(end)
    return _N.exp(-1 / time) if time else time


def _time_constant(beta: Any) -> Any:
    return -1 / _N.log(beta) if beta else beta


def _product(factors: Sequence[Any]) -> Any:
    product = _N.number(1)
    for factor in factors:
        product = product * factor
    return product


def _total(terms: Sequence[Bounded]) -> Bounded:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def steps(rule: str, hyper: Hyper, grads: Sequence[Any], steps_before: int = 0) -> list[Bounded]:
    """What each step subtracts, over lr and without weight decay, in closed form."""
    found = []
    for t in range(1, len(grads) + 1):
        recent = [given(g) for g in grads[t - 1 :: -1]]
        u = _total([nearest(w) * g for w, g in zip(weights(rule, hyper, t, steps_before), recent, strict=True)])
        if rule in ADAPTIVE_RULES:
            of_squares = square_weights(rule, hyper, t, steps_before)
            squares = _total([nearest(w) * (g * g) for w, g in zip(of_squares, recent, strict=True)])
            u = u / (Namespace.sqrt(squares + number(hyper["eps_root"])) + number(hyper["eps"]))
        found.append(u)
    return found


def _follows(lab: Lab, case: Case, grads: Sequence[Any], hyper: dict[str, Any]) -> None:
    """Whether the parameters, from 0 and without weight decay, go the way of the closed form."""
    if lab.has("weight_decay"):
        hyper["weight_decay"] = 0.0
    params = [given(np.zeros_like(case.params))]
    for u in steps(lab.rule.name, hyper, grads, lab.steps_before):
        params.append(params[-1] - number(hyper["lr"]) * u)
    run = lab.run(np.zeros_like(case.params), grads, hyper)
    lab.close(run.params.bounded, stacked(params))


@LAWS.add(
    "impulse",
    Kind.BOUND,
    "After a single gradient the steps decay as the weights by age say: beta^k and its like.",
    "the papers of the rules, unrolled",
    [44],
    [*LINEAR_RULES, *ADAPTIVE_RULES],
)
def impulse(lab: Lab, case: Case) -> None:
    silent = [np.zeros_like(case.params)] * (STEPS - 1)
    _follows(lab, case, [case.nonzero[0], *silent], lab.hyper(case))


@LAWS.add(
    "convolution",
    Kind.BOUND,
    "A step is the sum of all gradients so far, each with the weight of its age, over the root of such a sum of their squares.",
    "the papers of the rules, unrolled",
    [44],
    [*LINEAR_RULES, *ADAPTIVE_RULES],
)
def convolution(lab: Lab, case: Case) -> None:
    _follows(lab, case, case.nonzero, lab.hyper(case))


@LAWS.add(
    "impulse of an average",
    Kind.BOUND,
    "After a single gradient g an average of gradients is (1 - beta) * beta^k * g, one of squares the same of g * g.",
    "the papers of the rules, unrolled",
    [44],
    AVERAGING,
)
def impulse_of_an_average(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    grad = given(case.nonzero[0])
    run = lab.run(case.params, [case.nonzero[0], *[np.zeros_like(case.params)] * (STEPS - 1)], hyper)
    for slot, decay in averages(lab.right).items():
        if slot in run:
            beta = _N.number(hyper[decay])
            g = grad * grad if (degrees(lab.right) or {}).get(slot) == 2 else grad
            lab.close(run[slot][1:].bounded, stacked([nearest((1 - beta) * beta**k) * g for k in range(STEPS)]))


@LAWS.add(
    "mass, age and spread of an average",
    Kind.BOUND,
    "The weights of an average, cut after T steps, have the sum, the mean age and the sum of squares of a geometric series.",
    "Ma and Yarats 2019, appendix A; geometric series",
    [45, 46, 47],
    AVERAGING,
)
def moments_of_an_average(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    ones = np.ones_like(case.params)
    run = lab.run(case.params, [ones, *[0 * ones] * (STEPS - 1)], hyper)
    for slot, decay in averages(lab.right).items():
        if slot in run:
            _geometric(lab, rows(run[slot][1:].bounded), hyper[decay], 1, 0)


@LAWS.add(
    "mass, age and spread of qhm",
    Kind.BOUND,
    "The weights of QHM have the sum 1 - nu * beta^T, the mean age and the sum of squares that the paper gives, cut after T steps.",
    "Ma and Yarats 2019, section 3 and appendix A",
    [45, 46, 47],
    ["qhm"],
)
def moments_of_qhm(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, lr=1.0, weight_decay=0.0)
    ones = np.ones_like(case.params)
    params = rows(lab.run(0 * ones, [ones, *[0 * ones] * (STEPS - 1)], hyper).params.bounded)
    differences = [before - after for before, after in pairwise(params)]
    nu = _N.number(hyper["nu"])
    _geometric(lab, differences, hyper["beta"], nu, 1 - nu)


def _geometric(lab: Lab, found: list[Bounded], decay: float, share: Any, now: Any) -> None:
    """Moments of the weights ``share * (1 - beta) * beta^k``, and ``now`` more at age 0, for ages below the length of ``found``."""
    beta, end = _N.number(decay), len(found)
    ages = (beta - end * beta**end + (end - 1) * beta ** (end + 1)) / (1 - beta)
    squares = (1 - beta) * (1 - beta ** (2 * end)) / (1 + beta)
    lab.close(_total(found), nearest(now + share * (1 - beta**end)))
    lab.close(_total([k * w for k, w in enumerate(found)]), nearest(share * ages))
    lab.close(_total([w * w for w in found]), nearest(now * now + 2 * now * share * (1 - beta) + share * share * squares))


@LAWS.add(
    "mass of a scheduled average",
    Kind.BOUND,
    "Under a constant gradient g AdEMAMix's slow average is g times one minus the product of its decays.",
    "Pagliardini et al. 2024, appendix A.1",
    [46, 60],
    ["ademamix"],
)
def mass_of_a_scheduled_average(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case) | {"beta1": 0.5, "beta3": 0.9999, "beta3_warmup": lab.steps_before + 4}
    run = lab.run(case.params, [case.nonzero[0]] * STEPS, hyper)
    decays = [beta3(hyper, t) for t in range(lab.steps_before + 1, lab.steps_before + STEPS + 1)]
    masses = [nearest(1 - _product(decays[:t])) * given(case.nonzero[0]) for t in range(1, STEPS + 1)]
    lab.close(run["m2"][1:].bounded, stacked(masses))


def _on_constants(rule: str, hyper: Hyper, steps_before: int) -> list[tuple[Any, Any]]:
    """The sums of the weights at each step, in closed form, of gradients and of their squares: how long the steps are."""
    h = {name: _N.number(value) for name, value in hyper.items() if isinstance(value, float)}

    def mass(beta: Any, t: int) -> Any:
        """Of an average, corrected: 1 where the run begins with the first step."""
        return (1 - beta**t) / (1 - beta ** (steps_before + t))

    lengths: dict[str, Callable[[int], Any]] = {
        "sgd": lambda _: _N.number(1),
        "lion": lambda _: _N.number(1),
        "momentum": lambda t: _geometric_sum(h["beta"], t),
        "nesterov": lambda t: 1 + h["beta"] * _geometric_sum(h["beta"], t),
        "qhm": lambda t: 1 - h["nu"] * h["beta"] ** t,
        "aggmo": lambda t: sum(_geometric_sum(_N.number(b), t) for b in hyper["betas"]) / len(hyper["betas"]),
        "qhadam": lambda t: 1 - h["nu1"] + h["nu1"] * mass(h["beta1"], t),
        "ademamix": lambda t: mass(h["beta1"], t) + h["alpha"] * (1 - h["beta3"] ** t),
    }

    def squares(t: int) -> Any:
        if rule not in ADAPTIVE_RULES:
            return _N.number(1)
        return 1 - h["nu2"] + h["nu2"] * mass(h["beta2"], t) if rule == "qhadam" else mass(h["beta2"], t)

    def corrected(t: int) -> Any:
        return mass(h["beta1"], t)

    length = lengths.get(rule, corrected)
    return [(length(t), squares(t)) for t in range(1, STEPS + 1)]


def _geometric_sum(beta: Any, t: int) -> Any:
    return (1 - beta**t) / (1 - beta)


@LAWS.add(
    "constant gradient",
    Kind.BOUND,
    "On a constant gradient g every step of Adam is lr * g / (|g| + eps), every step of Lion lr * sign(g), and momentum speeds up; "
    "a run that begins at a later count has corrections as small as that count says.",
    "Kingma and Ba 2015, section 2.1, and the papers of the other rules",
    [48],
    [*LINEAR_RULES, "adam", "adamw", "qhadam", "ademamix", "lion"],
)
def constant_gradient(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    for name, value in {"weight_decay": 0.0, "alpha_warmup": None, "beta3_warmup": None}.items():
        if lab.has(name):
            hyper[name] = value
    grad = given(np.sign(case.nonzero[0]) if lab.rule.name == "lion" else case.nonzero[0])
    params = [given(np.zeros_like(case.params))]
    for length, squares in _on_constants(lab.rule.name, hyper, lab.steps_before):
        u = nearest(length) * grad
        if lab.rule.name in ADAPTIVE_RULES:
            u = u / _denominator(squares, grad, hyper)
        params.append(params[-1] - number(hyper["lr"]) * u)
    run = lab.run(np.zeros_like(case.params), [case.nonzero[0]] * STEPS, hyper)
    lab.close(run.params.bounded, stacked(params))


@LAWS.add(
    "first step",
    Kind.BOUND,
    "The first step from anywhere and at any count, with its weight decay, is that of the closed form: for Adam at 1 "
    "lr * g / (|g| + eps).",
    "the papers of the rules at t = 1",
    [49],
    [*LINEAR_RULES, *ADAPTIVE_RULES, "lion"],
)
def first_step(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    start, grad = given(case.params), given(case.nonzero[0])
    if lab.rule.name == "lion":
        u = given(np.sign(case.nonzero[0]))
    else:
        length, squares = _first(lab.rule.name, hyper, lab.steps_before + 1)
        scale = _denominator(squares, grad, hyper) if lab.rule.name in ADAPTIVE_RULES else number(1.0)
        u = nearest(length) * grad / scale
    decay = number(hyper.get("weight_decay", 0.0))
    run = lab.run(case.params, case.nonzero[:1], hyper)
    lab.close(run.params[1].bounded, start - number(hyper["lr"]) * (u + decay * start))


def _denominator(squares: Any, grad: Bounded, hyper: Hyper) -> Bounded:
    """What divides, of one gradient whose square has the weight ``squares``."""
    root = nearest(_N.sqrt(squares)) * abs(grad)
    if hyper["eps_root"]:
        root = Namespace.sqrt(nearest(squares) * (grad * grad) + number(hyper["eps_root"]))
    return root + number(hyper["eps"])


def _first(rule: str, hyper: Hyper, t: int) -> tuple[Any, Any]:
    """The weight of the only gradient of a run whose first step has the number t, and of its square."""
    h = {name: _N.number(value) for name, value in hyper.items() if isinstance(value, float)}
    if rule in LINEAR_RULES:
        of_linear = {"nesterov": lambda: 1 + h["beta"], "qhm": lambda: 1 - h["nu"] * h["beta"]}
        return of_linear.get(rule, lambda: _N.number(1))(), _N.number(1)
    fast, squares = ((1 - h[beta]) / (1 - h[beta] ** t) for beta in ("beta1", "beta2"))
    if rule == "qhadam":
        return 1 - h["nu1"] + h["nu1"] * fast, 1 - h["nu2"] + h["nu2"] * squares
    if rule == "nadam":  # no mu of the steps before is in the product
        mu1, mu2 = _mu(h, t), _mu(h, t + 1)
        return 1 + mu2 * (1 - h["beta1"]) / (1 - mu1 * mu2), squares
    if rule == "ademamix":
        return fast + h["alpha"] * _warm(hyper, t) * (1 - beta3(hyper, t)), squares
    return fast, squares


@LAWS.add(
    "decay alone",
    Kind.BOUND,
    "Without gradients the parameters shrink by the factor 1 - lr * weight_decay at each step.",
    "Loshchilov and Hutter 2019, section 2",
    [42],
    SHRINKING,
)
def decay_alone(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    run = lab.run(case.params, [np.zeros_like(case.params)] * STEPS, hyper)
    shrink = 1 - _N.number(hyper["lr"]) * _N.number(hyper["weight_decay"])
    lab.close(run.params.bounded, stacked([nearest(shrink**t) * given(case.params) for t in range(STEPS + 1)]))


@LAWS.add(
    "nothing over nothing",
    Kind.BITS,
    "Without gradients and with eps=0 the Adam family divides 0 by 0, which is NaN.",
    "IEEE 754",
    [42],
    ADAPTIVE_RULES,
)
def nothing_over_nothing(lab: Lab, case: Case) -> None:
    run = lab.run(case.params, [np.zeros_like(case.params)] * STEPS, lab.hyper(case, eps=0.0, eps_root=0.0))
    lab.holds(np.all(np.isnan(run.params.value[1:])), "0/0 is not NaN")


@LAWS.add(
    "rates on a quadratic",
    Kind.BOUND,
    "With the best lr and beta for curvatures from 1/8 to 9/8, SGD shrinks by 4/5 a step, momentum by 1/2 and Nesterov by 2/3, "
    "the last two times a linear function of t.",
    "Polyak 1964; Lessard, Recht and Packard 2016, table 1",
    [58],
    ["sgd", "momentum", "nesterov"],
)
def rates(lab: Lab, case: Case) -> None:
    n = _N.number
    beta, lr, roots = {
        "sgd": (0.0, n(8) / 5, {0.125: n(4) / 5, 1.125: -n(4) / 5}),
        "momentum": (0.25, n(2), {0.125: n(1) / 2, 1.125: -n(1) / 2}),
        "nesterov": (0.5, n(8) / 9, {0.125: n(2) / 3}),
    }[lab.rule.name]
    hyper = {"lr": nearest(lr), "weight_decay": 0.0} | ({"beta": beta} if lab.has("beta") else {})
    start = given(case.params)
    for curvature, root in roots.items():
        run = lab.run(case.params, partial(operator.mul, curvature), hyper)
        # x_t = (x_0 + slope * t) * root^t, where the first step is known; one root alone for SGD
        first = 1 - lr * n(curvature) * (1 + n(beta) if lab.rule.name == "nesterov" else 1)
        slope = 0 if lab.rule.name == "sgd" else first / root - 1
        lab.close(run.params.bounded, stacked([nearest((1 + slope * t) * root**t) * start for t in range(STEPS + 1)]))
