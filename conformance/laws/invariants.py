"""Bounds and invariants: what no input can lead beyond, and the few things that have no bound."""

from itertools import pairwise
from typing import Any

import numpy as np

from xopt.conformance.arithmetic.bounded import Bounded
from xopt.conformance.arithmetic.numbers import multiprecision
from xopt.conformance.laws.lab import NOT_TRACED, STEPS, Case, Kind, Lab, Laws, given, nearest, number, rows
from xopt.conformance.laws.responses import ADAPTIVE_RULES, LINEAR_RULES, square_weights, weights
from xopt.conformance.laws.traits import EVERY, MEANS, degrees

LAWS = Laws()

_N = multiprecision(50)
CAUCHY = "the inequality of Cauchy and Schwarz; Ma and Yarats 2019, appendix F"


@LAWS.add(
    "lion steps no farther than lr",
    Kind.BOUND,
    "A step of Lion is at most lr * (1 + weight_decay * |theta|) long.",
    "Chen et al. 2023, Algorithm 2",
    [51],
    ["lion"],
)
def lion_step(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    params = rows(lab.run(case.params, case.grads, hyper).params.bounded)
    for before, after in pairwise(params):
        lab.at_most(abs(after - before), number(hyper["lr"]) * (1 + number(hyper["weight_decay"]) * abs(before)))


@LAWS.add(
    "lion stays in its box",
    Kind.BOUND,
    "From |theta| <= 1 / weight_decay Lion never leaves there.",
    "Chen et al. 2024, Lion secretly solves constrained optimization",
    [51],
    ["lion"],
)
def lion_box(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, lr=0.125, weight_decay=4.0)
    run = lab.run(np.clip(case.params, -0.25, 0.25), case.grads, hyper)
    lab.at_most(abs(run.params.bounded), number(0.25))


def _longest(lab: Lab, hyper: dict[str, Any], t: int) -> Any:
    """The longest step t over lr that any gradients lead to with eps=0, squared: by the inequality of Cauchy and Schwarz."""
    both = zip(*(of(lab.rule.name, hyper, t, lab.steps_before) for of in (weights, square_weights)), strict=True)
    return sum((a * a / b for a, b in both if a), start=_N.number(0))


def _remembering(lab: Lab, case: Case, **fixed: Any) -> dict[str, Any]:
    """Hyperparameters under which every old gradient that the numerator remembers is in the denominator too."""
    own = {name: value for name, value in {"weight_decay": 0.0, "nu2": 1.0}.items() if lab.has(name)}
    hyper = lab.hyper(case, **fixed, **own)
    return hyper if hyper["beta2"] else hyper | {"beta2": 0.5}


@LAWS.add(
    "the longest step",
    Kind.BOUND,
    "No gradients make the Adam family step farther than the root of the sum of a_k^2 / b_k, with a_k and b_k the weights by age.",
    CAUCHY,
    [52],
    ADAPTIVE_RULES,
)
def longest_step(lab: Lab, case: Case) -> None:
    hyper = _remembering(lab, case)
    params = rows(lab.run(np.zeros_like(case.params), case.nonzero, hyper).params.bounded)
    for t in range(1, STEPS + 1):
        limit = nearest(_N.number(hyper["lr"]) * _N.sqrt(_longest(lab, hyper, t)))
        lab.at_most(abs(params[t] - params[t - 1]), limit)


@LAWS.add(
    "the longest step is taken",
    Kind.BOUND,
    "Gradients in proportion to a_k / b_k, and eps=0, make the Adam family step just as far as it can.",
    CAUCHY,
    [52],
    ADAPTIVE_RULES,
    modes=NOT_TRACED,  # its hyperparameters are its own, and compilers bake them in
    dtypes=(
        "float32",
        "float64",
    ),  # a_k / b_k rounded to fewer digits is farther from the longest step than a bound that knows them
)
def longest_step_is_taken(lab: Lab, case: Case) -> None:
    hyper = _remembering(lab, case, eps=0.0, eps_root=0.0, lr=1.0)
    hyper["beta1"] = 0.75
    if hyper["beta2"] < 0.5:
        hyper["beta2"] = 0.5
    weighed = list(zip(*(of(lab.rule.name, hyper, STEPS, lab.steps_before) for of in (weights, square_weights)), strict=True))
    grads = [np.full_like(case.params, float(a / b)) for a, b in reversed(weighed)]
    grads = [lab.vector(lab.array(g)) for g in grads]
    run = lab.run(np.zeros_like(case.params), grads, hyper)
    last = run.params[STEPS - 1].bounded - run.params[STEPS].bounded
    # of gradients that are rounded the step is known too: from the weights
    recent = [_N.number(float(g[0])) for g in reversed(grads)]
    squares = sum(b * g * g for (_, b), g in zip(weighed, recent, strict=True))
    known = sum(a * g for (a, _), g in zip(weighed, recent, strict=True)) / _N.sqrt(squares)
    longest = _N.sqrt(_longest(lab, hyper, STEPS))
    lab.holds(abs(known - longest) <= longest * 2.0**-20, "the gradients are not those of the longest step")
    lab.close(last, nearest(known))


@LAWS.add(
    "decay keeps the parameters in a box",
    Kind.BOUND,
    "Where no step is longer than lr * B, parameters within B / weight_decay stay there.",
    "Loshchilov and Hutter 2019; Chen et al. 2024",
    [53],
    [*LINEAR_RULES, "adamw", "nadam", "qhadam", "ademamix"],
)
def decay_box(lab: Lab, case: Case) -> None:
    fixed = {"nu2": 1.0} if lab.has("nu2") else {}
    hyper = lab.hyper(case, lr=0.125, weight_decay=4.0, **fixed)
    if lab.rule.name in LINEAR_RULES:
        lengths = [sum(abs(w) for w in weights(lab.rule.name, hyper, t, lab.steps_before)) for t in range(1, STEPS + 1)]
        limit = nearest(max(lengths) * max(_N.number(float(np.max(np.abs(g)))) for g in case.nonzero) / 4)
    else:
        hyper["beta2"] = hyper["beta2"] or 0.5
        limit = nearest(max(_N.sqrt(_longest(lab, hyper, t)) for t in range(1, STEPS + 1)) / 4)
    start = np.where(np.abs(case.params) <= limit.value, case.params, 0.0)
    lab.at_most(abs(lab.run(start, case.nonzero, hyper).params.bounded), limit)


@LAWS.add(
    "averages stay among what they average",
    Kind.BOUND,
    "An average of gradients is no larger than the largest of them; one of squares is not negative either.",
    "design: a mean",
    [54],
    MEANS,
)
def averages_in_range(lab: Lab, case: Case) -> None:
    run = lab.run(case.params, case.nonzero, lab.hyper(case))
    largest = np.maximum.accumulate([np.zeros_like(case.params), *map(np.abs, case.nonzero)], axis=0)
    for slot in run.slots:
        if slot not in lab.rule.carried:
            limit = given(largest)
            squares = (degrees(lab.right) or {}).get(slot) == 2
            lab.at_most(abs(run[slot].bounded), limit * limit if squares else limit)
            if squares:
                lab.holds(np.all(run[slot].value >= 0), "an average of squares is negative")


@LAWS.add(
    "ademamix has no longest step",
    Kind.FAILS,
    "After a single gradient and then silence AdEMAMix steps farther and farther where beta3^2 > beta2, as at its defaults.",
    "derived from Pagliardini et al. 2024, Algorithm 1: beta3^k over the root of beta2^k",
    [55],
    ["ademamix"],
    late=False,
)
def ademamix_grows(lab: Lab, case: Case) -> None:
    fixed = {"lr": 0.25, "beta1": 0.0, "beta2": 0.25, "beta3": 0.75, "alpha": 8.0, "eps": 0.0, "weight_decay": 0.0}
    hyper = lab.hyper(case, **fixed, eps_root=0.0, alpha_warmup=None, beta3_warmup=None)
    silent = [np.zeros_like(case.params)] * (STEPS - 1)
    params = rows(lab.run(np.zeros_like(case.params), [case.nonzero[0], *silent], hyper).params.bounded)
    lengths = [abs(after - before) for before, after in pairwise(params)]
    for before, after in pairwise(lengths[1:]):
        lab.above(after, before)


@LAWS.add(
    "lion ends in a 2-cycle",
    Kind.BITS,
    "On x^2 / 2 Lion without momentum reaches |x| < lr, where it goes to and fro between two points.",
    "Chen et al. 2023, Algorithm 2, with the gradient x",
    [56],
    ["lion"],
)
def lion_cycle(lab: Lab, case: Case) -> None:
    hyper = {"lr": 0.25, "beta1": 0.0, "beta2": 0.99, "weight_decay": 0.0}
    start = np.rint(np.clip(case.params, -0.5, 0.5) * 64) / 64  # such that no sum rounds: two steps away at most
    params = lab.run(start, lambda x: x, hyper).params
    lab.same(params[STEPS - 2], params[STEPS])
    lab.at_most(abs(params[2:].bounded), number(0.25))


@LAWS.add(
    "aggmo is stable below its threshold",
    Kind.BOUND,
    "On a quadratic AggMo comes nearer while lr times the curvature is below twice the harmonic mean of 1 + beta_i.",
    "derived from the characteristic polynomial of Lucas et al. 2019, section 4",
    [59],
    ["aggmo"],
)
def aggmo_stable(lab: Lab, case: Case) -> None:
    middle, end = _aggmo_on_a_quadratic(lab, case, 0.75)
    lab.at_most(end, middle)


@LAWS.add(
    "aggmo is unstable above its threshold",
    Kind.FAILS,
    "On a quadratic AggMo goes away when lr times the curvature is above twice the harmonic mean of 1 + beta_i.",
    "derived from the characteristic polynomial of Lucas et al. 2019, section 4",
    [59],
    ["aggmo"],
    dtypes=("float16", "float32", "float64"),  # in bfloat16 the bound grows faster than the parameters
)
def aggmo_unstable(lab: Lab, case: Case) -> None:
    middle, end = _aggmo_on_a_quadratic(lab, case, 1.25)
    lab.above(end, middle)


def _aggmo_on_a_quadratic(lab: Lab, case: Case, share: float) -> tuple[Bounded, Bounded]:
    """How far from the minimum after three steps, and after all; ``share`` is of the threshold, 2.4 for the betas 0 and 1/2."""
    hyper = {"lr": nearest(_N.number(12) / 5 * _N.number(share)), "betas": (0.0, 0.5), "weight_decay": 0.0}
    start = np.where(case.params == 0, 1.0, case.params)
    params = lab.run(start, lambda x: x, hyper).params
    return abs(params[3].bounded), abs(params[STEPS].bounded)


@LAWS.add(
    "narrow dtypes follow float64",
    Kind.BOUND,
    "A run in a narrower dtype stays within its derived bound of the run in float64.",
    "running error analysis: Higham 2002, section 3.3",
    [60],
    EVERY,
    dtypes=("float16", "bfloat16", "float32"),
    modes=NOT_TRACED,  # a second dtype is compiled anew
    beside=("float64",),
)
def follows_float64(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    narrow, wide = lab.run(case.params, case.nonzero, hyper), lab.wide().run(case.params, case.nonzero, hyper)
    for name in narrow.columns:
        lab.close(narrow[name].bounded, wide[name].bounded)


@LAWS.add(
    "a warm-up of one step is none",
    Kind.BITS,
    "Schedules count steps from 1 and end on their last value exactly: a warm-up of one step is no warm-up.",
    "Pagliardini et al. 2024, Algorithm 1 and appendix A.1",
    [60],
    ["ademamix"],
)
def warmup_of_one_step(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    one = lab.run(case.params, case.nonzero, hyper | {"alpha_warmup": 1, "beta3_warmup": 1})
    other = lab.run(case.params, case.nonzero, hyper | {"alpha_warmup": None, "beta3_warmup": None})
    lab.same_run(one, other)


@LAWS.add(
    "the decay warms up steadily",
    Kind.BOUND,
    "During its warm-up the decay of AdEMAMix's slow average is between beta1 and beta3, the longer the shorter it is.",
    "Pagliardini et al. 2024, appendix A.1",
    [60],
    ["ademamix"],
)
def warmup_is_monotone(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case) | {"beta1": 0.75, "beta3": 0.9999}
    ones = [np.ones_like(case.params)]
    # 1 - beta3(t) of the first step
    gains = [
        lab.run(case.params, ones, hyper | {"beta3_warmup": w * (lab.steps_before + 1)})["m2"][1].bounded for w in (1, 2, 4, 40)
    ]
    lab.close(gains[0], 1 - number(0.9999))
    for shorter, longer in pairwise(gains):
        lab.at_most(shorter, longer)
    lab.at_most(gains[-1], number(1 - 0.75))
