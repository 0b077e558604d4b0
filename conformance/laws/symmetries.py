"""Symmetries: what happens to a trajectory when its input is scaled, negated, moved, permuted, added or delayed."""

from typing import Any

import numpy as np

from xopt.conformance.laws.lab import NOT_TRACED, SIZE, Case, Kind, Lab, Laws, Run, Series, fit, rows
from xopt.conformance.laws.traits import (
    ADAPTIVE,
    COUNTING,
    EVERY,
    GRADIENT_MEMORY,
    LINEAR,
    ODD,
    OF_SIGNS,
    SCALE_FREE,
    TIMELESS,
    TRANSLATED,
    degrees,
    parities,
)

LAWS = Laws()

ROUNDS_ODD = "IEEE 754: rounding to nearest commutes with the sign and with powers of two"


@LAWS.add(
    "lion forgets the scale of gradients",
    Kind.BITS,
    "Multiplying the gradients of each element by a power of two of its own changes no step of Lion, or of another rule of signs.",
    ROUNDS_ODD,
    [28],
    OF_SIGNS,
)
def lion_scale(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    one = lab.run(case.params, case.grads, hyper)
    other = lab.run(case.params, [g * case.powers for g in case.grads], hyper)
    lab.same(one.params, other.params)
    for slot in one.slots:
        lab.same(one[slot] * case.powers ** _of(degrees(lab.right), slot), other[slot])


@LAWS.add(
    "adaptive rules forget the scale of gradients",
    Kind.BITS,
    "With eps=0, multiplying the gradients of each element by a power of two of its own changes no step of the Adam family.",
    "Kingma and Ba 2015, section 2.1; " + ROUNDS_ODD,
    [29],
    ADAPTIVE,
)
def adaptive_scale(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, **lab.zero("eps", "eps_root"))
    one = lab.run(case.params, case.nonzero, hyper)
    other = lab.run(case.params, [g * case.powers for g in case.nonzero], hyper)
    lab.same(one.params, other.params)


@LAWS.add(
    "three times the gradients",
    Kind.BOUND,
    "Lion, and the Adam family with eps=0, take the same steps on three times the gradients, up to rounding.",
    "Kingma and Ba 2015, section 2.1; Chen et al. 2023",
    [28, 29],
    SCALE_FREE,
)
def scale_by_three(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, **lab.zero("eps", "eps_root"))
    grads = [np.where(g == 0, 1.0, g) for g in case.short]
    one = lab.run(case.params, grads, hyper)
    other = lab.run(case.params, [3 * g for g in grads], hyper)
    lab.close(one.params.bounded, other.params.bounded)


@LAWS.add(
    "eps scales with the gradients",
    Kind.BITS,
    "Multiplying the gradients and eps by a power of two, and eps_root by its square, changes no step of the Adam family.",
    "Kingma and Ba 2015; " + ROUNDS_ODD,
    [30],
    ADAPTIVE,
)
def eps_scale(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    scaled = {name: factor * hyper[name] for name, factor in {"eps": 8, "eps_root": 64}.items() if lab.has(name)}
    one = lab.run(case.params, case.nonzero, hyper)
    other = lab.run(case.params, [8 * g for g in case.nonzero], hyper | scaled)
    lab.same(one.params, other.params)


@LAWS.add(
    "eps remembers the scale of gradients",
    Kind.FAILS,
    "With an eps that is not scaled along, larger gradients do change the steps of the Adam family.",
    "Kingma and Ba 2015",
    [31],
    ADAPTIVE,
)
def eps_unscaled(lab: Lab, case: Case) -> None:
    hyper = lab.rule.defaults | {"lr": 0.25, "eps": 2.0**-4, "beta2": 0.5}  # where it shows: it need not everywhere
    start = np.zeros_like(case.params)
    one = lab.run(start, case.nonzero, hyper)
    other = lab.run(start, [8 * g for g in case.nonzero], hyper)
    lab.apart(one.params.bounded, other.params.bounded)


@LAWS.add(
    "lr times gradient",
    Kind.BITS,
    "Gradients and weight decay times a power of two, with lr divided by it, take the same steps of a linear rule.",
    ROUNDS_ODD,
    [32],
    LINEAR,
)
def lr_against_gradient(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    scaled = hyper | {"lr": hyper["lr"] / 4, "weight_decay": hyper["weight_decay"] * 4}
    one = lab.run(case.params, case.grads, hyper)
    other = lab.run(case.params, [4 * g for g in case.grads], scaled)
    lab.same(one.params, other.params)
    for slot in one.slots:
        lab.same(one[slot] * 4, other[slot])


@LAWS.add(
    "linear rules scale",
    Kind.BITS,
    "Parameters and gradients of each element times a power of two of its own: so are all later parameters.",
    ROUNDS_ODD,
    [33],
    LINEAR,
)
def linear_scale(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    start = case.params
    if lab.dtype == "float16":  # away from 0, where its parameters are subnormal and scaling rounds: steps that cannot lead there
        start = fit(np.copysign(8 + np.abs(start), start), lab.dtype)
        hyper["lr"] = min(hyper["lr"], 2.0**-8)
        hyper["weight_decay"] = min(hyper["weight_decay"], 1.0)
    one = lab.run(start, case.grads, hyper)
    other = lab.run(start * case.powers, [g * case.powers for g in case.grads], hyper)
    for name in one.columns:
        lab.same(one[name] * case.powers, other[name])


@LAWS.add(
    "negation",
    Kind.BITS,
    "Negated parameters and gradients give negated parameters, and averages of gradients; averages of squares stay.",
    ROUNDS_ODD,
    [34],
    ODD,
)
def negation(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    one = lab.run(case.params, case.nonzero, hyper)
    other = lab.run(-case.params, [-g for g in case.nonzero], hyper)
    for name in one.columns:
        even = name in lab.rule.carried or _of(parities(lab.right), name) == 1
        lab.same(one[name] if even else -one[name], other[name])


def _of(found: dict[str, int] | None, column: str) -> int:
    """What is known of a column, or of all places of a tuple."""
    places = found or {}
    return places.get(column.replace("[", "_").removesuffix("]"), -1)


@LAWS.add(
    "permutation",
    Kind.BITS,
    "Elements in another order give the same numbers in that order.",
    "design: every rule is elementwise",
    [35],
    EVERY,
)
def permutation(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    one = lab.run(case.params, case.grads, hyper)
    other = lab.run(case.params[case.order], [g[case.order] for g in case.grads], hyper)
    for name in one.columns:
        lab.same(one[name] if name in lab.rule.carried else one[name][..., case.order], other[name])


@LAWS.add(
    "shape is nothing",
    Kind.BITS,
    "The two parts of a vector step as the vector does, and so does a part that is a matrix.",
    "design: every rule is elementwise",
    [35],
    EVERY,
    modes=NOT_TRACED,  # compilers compile anew for each shape
)
def shape(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    whole = lab.run(case.params, case.grads, hyper).params
    head, tail = slice(0, 33), slice(33, SIZE)
    for part in (head, tail):
        lab.same(whole[:, part], lab.run(case.params[part], [g[part] for g in case.grads], hyper).params)
    matrix = lab.run(case.params[head].reshape(11, 3), [g[head].reshape(11, 3) for g in case.grads], hyper)
    lab.same(whole[:, head], matrix.params.flat)


@LAWS.add(
    "slots do not see the parameters",
    Kind.BITS,
    "The memory depends on the gradients alone: from other parameters the slots are the same.",
    "design: no rule reads its parameters but to decay them",
    [36],
    GRADIENT_MEMORY,
)
def slots_without_params(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    one = lab.run(case.params, case.nonzero, hyper)
    other = lab.run(case.params[::-1].copy(), case.nonzero, hyper)
    for slot in one.slots:
        lab.same(one[slot], other[slot])


@LAWS.add(
    "translation",
    Kind.BOUND,
    "Without weight decay, from other parameters the steps are the same, up to rounding.",
    "design: no rule reads its parameters but to decay them",
    [36],
    TRANSLATED,
)
def translation(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, weight_decay=0.0) if lab.has("weight_decay") else lab.hyper(case)
    one = rows(lab.run(case.params, case.nonzero, hyper).params.bounded)
    other = rows(lab.run(np.zeros_like(case.params), case.nonzero, hyper).params.bounded)
    for a, b in zip(one, other, strict=True):
        lab.close(a - one[0], b)


@LAWS.add(
    "additivity",
    Kind.BOUND,
    "Without weight decay, the way of a linear rule on a sum of gradients is the sum of its ways, up to rounding.",
    "design: linear rules are linear",
    [37],
    LINEAR,
)
def additivity(lab: Lab, case: Case) -> None:
    one, other, both = _added(lab, case, lab.hyper(case))
    for name in one.columns:
        lab.close(one[name].bounded + other[name].bounded, both[name].bounded)


@LAWS.add(
    "no additivity",
    Kind.FAILS,
    "The way of the Adam family or of Lion on a sum of gradients is not the sum of its ways.",
    "Kingma and Ba 2015, section 2.1; Chen et al. 2023",
    [37],
    SCALE_FREE,
)
def no_additivity(lab: Lab, case: Case) -> None:
    one, other, both = _added(lab, case, lab.rule.defaults | {"lr": 0.25})
    lab.apart(one.params.bounded + other.params.bounded, both.params.bounded)


def _added(lab: Lab, case: Case, hyper: dict[str, Any]) -> tuple[Run, Run, Run]:
    if lab.has("weight_decay"):
        hyper["weight_decay"] = 0.0
    start = np.zeros_like(case.params)
    grads = [np.where(g == 0, 1.0, g) for g in case.short]
    others = [np.where(g + h == 0, 2 * h, h) for g, h in zip(grads, [g[case.order] for g in grads], strict=True)]
    sums = [g + h for g, h in zip(grads, others, strict=True)]
    return lab.run(start, grads, hyper), lab.run(start, others, hyper), lab.run(start, sums, hyper)


@LAWS.add(
    "delay",
    Kind.BITS,
    "Without weight decay, gradients of 0 at first only delay a linear rule and Lion.",
    "design: these rules do not count steps",
    [38],
    TIMELESS,
)
def delay(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, weight_decay=0.0) if lab.has("weight_decay") else lab.hyper(case)
    one, other = _delayed(lab, case, hyper)
    for name in one.columns:
        lab.same(one[name][:-2], other[name][2:])


@LAWS.add(
    "no delay",
    Kind.FAILS,
    "Bias correction counts steps: gradients of 0 at first do change the later steps of the Adam family.",
    "Kingma and Ba 2015, section 3",
    [38],
    COUNTING,
    late=False,
)
def no_delay(lab: Lab, case: Case) -> None:
    fixed = {"lr": 0.25, "beta1": 0.5, "beta2": 0.875, "eps": 2.0**-10, "weight_decay": 0.0, "nu1": 1.0, "nu2": 1.0, "alpha": 0.0}
    hyper = lab.rule.defaults | {name: value for name, value in fixed.items() if lab.has(name)}
    one, other = _delayed(lab, case, hyper)
    lab.apart(one.params[:-2].bounded, other.params[2:].bounded)


def _delayed(lab: Lab, case: Case, hyper: dict[str, float]) -> tuple[Run, Run]:
    start, zero = np.zeros_like(case.params), np.zeros_like(case.params)
    return lab.run(start, case.nonzero, hyper), lab.run(start, [zero, zero, *case.nonzero[:-2]], hyper)


@LAWS.add(
    "lr=0 moves nothing",
    Kind.BITS,
    "With lr=0 the parameters stay, and the memory goes on as ever.",
    "design",
    [41],
    EVERY,
)
def lr_of_zero(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    one = lab.run(case.params, case.nonzero, hyper)
    other = lab.run(case.params, case.nonzero, hyper | {"lr": 0.0})
    lab.same(other.params, Series.given(case.params))
    for slot in one.slots:
        lab.same(one[slot], other[slot])


@LAWS.add(
    "each element for itself",
    Kind.BITS,
    "Another gradient of one element, finite, infinite or NaN, changes that element alone.",
    "design: every rule is elementwise",
    [43],
    EVERY,
)
def each_element_for_itself(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    one = lab.run(case.params, case.nonzero, hyper)
    others = np.arange(SIZE) != case.place
    for value in (3.0, np.nan, np.inf, -np.inf):
        grads = [case.nonzero[0], np.where(others, case.nonzero[1], value), *case.nonzero[2:]]
        other = lab.run(case.params, grads, hyper)
        for name in one.columns:
            lab.same(*((run[name] if name in lab.rule.carried else run[name][..., others]) for run in (one, other)))
        if np.isnan(value):
            lab.same(other.params[2:, case.place], Series.given(np.full(len(grads) - 1, np.nan)))


@LAWS.add(
    "each element feels its gradient",
    Kind.FAILS,
    "The gradient of an element does change that element.",
    "design",
    [43],
    EVERY,
)
def each_element_feels_its_gradient(lab: Lab, case: Case) -> None:
    hyper = lab.rule.defaults | {"lr": 0.25}
    start = np.zeros_like(case.params)
    one = lab.run(start, case.nonzero, hyper)
    other = lab.run(start, [-g for g in case.nonzero], hyper)
    lab.apart(one.params[:, case.place].bounded, other.params[:, case.place].bounded)
