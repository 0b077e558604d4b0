"""Reductions: with certain hyperparameters one rule is another."""

from itertools import pairwise
from typing import Any

import numpy as np

from xopt.conformance.arithmetic.bounded import Bounded
from xopt.conformance.arithmetic.numbers import multiprecision
from xopt.conformance.laws.lab import (
    NOT_TRACED,
    SINGLE_OR_DOUBLE,
    STEPS,
    Case,
    Kind,
    Lab,
    Laws,
    Series,
    given,
    nearest,
    number,
    rows,
    stacked,
)

LAWS = Laws()

_N = multiprecision(50)

QHM = "Ma and Yarats 2019, section 3"
QHADAM = "Ma and Yarats 2019, section 4"
AGGMO = "Lucas et al. 2019"
ADEMAMIX = "Pagliardini et al. 2024, section 3"
LION = "Chen et al. 2023, Algorithm 2"


@LAWS.add(
    "ademamix alpha=0 is adamw",
    Kind.BITS,
    "With alpha=0 the slow average adds nothing, and AdEMAMix is AdamW.",
    ADEMAMIX,
    [1],
    ["ademamix"],
    partners=["adamw"],
)
def ademamix_is_adamw(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, alpha=0.0, alpha_warmup=None, beta3_warmup=None)
    one = lab.run(case.params, case.nonzero, hyper)
    other = lab.run(case.params, case.nonzero, _shared(hyper, "lr", "beta1", "beta2", "eps", "eps_root", "weight_decay"), "adamw")
    lab.same_run(one, other, {"m1": "m"})


@LAWS.add(
    "ademamix beta3=beta1 has one average",
    Kind.BITS,
    "With equal decays and no warm-up the two averages of AdEMAMix are the same numbers.",
    ADEMAMIX,
    [2],
    ["ademamix"],
)
def ademamix_has_one_average(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, beta3_warmup=None)
    run = lab.run(case.params, case.nonzero, hyper | {"beta3": hyper["beta1"]})
    if "m1" in run:
        lab.same(run["m1"], run["m2"])


@LAWS.add(
    "ademamix beta3=beta1 is adamw with a longer step",
    Kind.BOUND,
    "With equal decays AdEMAMix is AdamW whose lr is (1 + alpha * (1 - beta1^t)) times as long at step t.",
    ADEMAMIX,
    [2],
    ["ademamix"],
    partners=["adamw"],
    modes=NOT_TRACED,  # the hyperparameters change at each step, and compilers bake them in
)
def ademamix_is_adamw_with_a_longer_step(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, beta3_warmup=None, alpha_warmup=None, weight_decay=0.0)
    beta1, alpha, lr = hyper["beta1"], number(hyper["alpha"]), number(hyper["lr"])
    each = [
        _shared(hyper, "beta1", "beta2", "eps", "eps_root", "weight_decay") | {"lr": lr * (1 + alpha * _debias(beta1, t))}
        for t in range(lab.steps_before + 1, lab.steps_before + STEPS + 1)
    ]
    one = lab.run(case.params, case.nonzero, hyper | {"beta3": beta1})
    other = lab.run(case.params, case.nonzero, each, "adamw")
    lab.close(one.params.bounded, other.params.bounded)


@LAWS.add(
    "ademamix beta1=0 is qhadam without bias correction",
    Kind.BOUND,
    "With beta1=0 AdEMAMix is QHAdam with nu1 = alpha / (1 + alpha) and beta3 for beta1, once its bias correction is undone.",
    "Ma and Yarats 2019; Pagliardini et al. 2024",
    [4],
    ["ademamix"],
    partners=["qhadam"],
    modes=NOT_TRACED,  # the hyperparameters change at each step, and compilers bake them in
)
def ademamix_is_qhadam(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, beta1=0.0, beta3_warmup=None, alpha_warmup=None, weight_decay=0.0)
    lr = number(hyper["lr"])
    each = []
    for t in range(lab.steps_before + 1, lab.steps_before + STEPS + 1):
        slow = number(hyper["alpha"]) * _debias(hyper["beta3"], t)  # undoes the division of m by 1 - beta3^t
        each.append(
            _shared(hyper, "beta2", "eps", "eps_root", "weight_decay")
            | {"lr": lr * (1 + slow), "nu1": slow / (1 + slow), "nu2": 1.0, "beta1": hyper["beta3"]}
        )
    one = lab.run(case.params, case.nonzero, hyper)
    other = lab.run(case.params, case.nonzero, each, "qhadam")
    lab.close(one.params.bounded, other.params.bounded)


@LAWS.add(
    "ademamix beta1=0 is not qhadam with bias correction",
    Kind.FAILS,
    "AdEMAMix does not correct the bias of its slow average, so that QHAdam, which does, takes other steps.",
    "Pagliardini et al. 2024, Algorithm 1",
    [4],
    ["ademamix"],
    partners=["qhadam"],
    late=False,
)
def ademamix_is_not_qhadam(lab: Lab, case: Case) -> None:
    hyper = {"beta2": 0.5, "eps": 2.0**-10, "weight_decay": 0.0}
    start = np.zeros_like(case.params)
    one = lab.run(start, case.nonzero, lab.rule.defaults | hyper | {"lr": 0.25, "beta1": 0.0, "beta3": 0.75, "alpha": 1.0})
    other = lab.run(start, case.nonzero, hyper | {"lr": 0.5, "beta1": 0.75, "nu1": 0.5, "nu2": 1.0}, "qhadam")
    lab.apart(one.params.bounded, other.params.bounded)


@LAWS.add(
    "averages are scaled sums",
    Kind.BOUND,
    "The averages of AdEMAMix are 1 - beta times the momentum sums of AggMo with the same decays.",
    "Pagliardini et al. 2024; Lucas et al. 2019",
    [5],
    ["ademamix"],
    partners=["aggmo"],
)
def averages_are_scaled_sums(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, beta3_warmup=None)
    one = lab.run(case.params, case.nonzero, hyper)
    other = lab.run(case.params, case.nonzero, {"betas": (hyper["beta1"], hyper["beta3"])}, "aggmo")
    for slot, sum_, beta in (("m1", "v[0]", hyper["beta1"]), ("m2", "v[1]", hyper["beta3"])):
        if slot in one:
            lab.close(one[slot].bounded, (1 - number(beta)) * other[sum_].bounded)


@LAWS.add(
    "qhm nu=0 is sgd", Kind.BITS, "With nu=0 the average of QHM adds nothing, and QHM is SGD.", QHM, [6], ["qhm"], partners=["sgd"]
)
def qhm_without_its_average(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, nu=0.0)
    one = lab.run(case.params, case.grads, hyper)
    other = lab.run(case.params, case.grads, _shared(hyper, "lr", "weight_decay"), "sgd")
    lab.same(one.params, other.params)


@LAWS.add(
    "qhm nu=1 is sgd along its average",
    Kind.BITS,
    "With nu=1 QHM is momentum in the form of an average: SGD that is given the averages for gradients.",
    QHM,
    [7],
    ["qhm"],
    partners=["sgd"],
    dtypes=SINGLE_OR_DOUBLE,  # the average is float32: no gradient of a narrower dtype
)
def qhm_is_its_average(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, nu=1.0)
    one = lab.run(case.params, case.grads, hyper)
    averages = list(one["m"].value[1:]) if "m" in one else case.grads
    other = lab.run(case.params, averages, _shared(hyper, "lr", "weight_decay"), "sgd")
    lab.same(one.params, other.params)


@LAWS.add(
    "one average for all",
    Kind.BITS,
    "Rules that average gradients with the same decay hold the same average.",
    "design",
    [7],
    ["qhm", "adamw", "nadam", "qhadam", "lion", "ademamix"],
    partners=["adam"],
)
def one_average_for_all(lab: Lab, case: Case) -> None:
    names = {"qhm": ("m", "beta"), "lion": ("m", "beta2"), "ademamix": ("m1", "beta1")}
    slot, decay = names.get(lab.rule.name, ("m", "beta1"))
    hyper = lab.hyper(case)
    if hyper[decay] < 0:  # no decay of Adam
        hyper[decay] = -hyper[decay]
    one = lab.run(case.params, case.grads, hyper)
    given_ = {"beta1": hyper[decay]} | ({"beta2": hyper["beta2"]} if lab.rule.name != "lion" and lab.has("beta2") else {})
    other = lab.run(case.params, case.grads, given_, "adam")
    for own, theirs in ((slot, "m"), ("v", "v")):
        if own in one and theirs in other:
            lab.same(one[own], other[theirs])


@LAWS.add(
    "qhm beta=0 is sgd",
    Kind.BOUND,
    "Where QHM remembers nothing it is SGD, whatever nu.",
    QHM,
    [8],
    ["qhm"],
    partners=["sgd"],
)
def qhm_without_memory(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, beta=0.0)
    one = lab.run(case.params, case.grads, hyper)
    other = lab.run(case.params, case.grads, _shared(hyper, "lr", "weight_decay"), "sgd")
    lab.close(one.params.bounded, other.params.bounded)


@LAWS.add(
    "qhm beta=0 nu=1/2 is sgd",
    Kind.BITS,
    "Two halves of a gradient are the gradient: with nu=1/2 QHM that remembers nothing has the bits of SGD.",
    "IEEE 754",
    [8],
    ["qhm"],
    partners=["sgd"],
)
def qhm_of_two_halves(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, beta=0.0, nu=0.5)
    one = lab.run(case.params, case.grads, hyper)
    other = lab.run(case.params, case.grads, _shared(hyper, "lr", "weight_decay"), "sgd")
    lab.same(one.params, other.params)


@LAWS.add(
    "qhm nu=beta is nesterov",
    Kind.BOUND,
    "With nu=beta QHM is Nesterov momentum with lr (1 - beta) times as long.",
    QHM,
    [9],
    ["qhm"],
    partners=["nesterov"],
)
def qhm_is_nesterov(lab: Lab, case: Case) -> None:
    _qhm_is_undamped(lab, case, "nesterov")


@LAWS.add(
    "qhm nu=1 is momentum",
    Kind.BOUND,
    "With nu=1 QHM is heavy ball momentum with lr (1 - beta) times as long.",
    QHM,
    [10],
    ["qhm"],
    partners=["momentum"],
)
def qhm_is_momentum(lab: Lab, case: Case) -> None:
    _qhm_is_undamped(lab, case, "momentum")


def _qhm_is_undamped(lab: Lab, case: Case, partner: str) -> None:
    hyper = lab.hyper(case)
    beta = abs(hyper["beta"])  # theirs is not negative
    damping = 1 - number(beta)
    theirs = {"lr": number(hyper["lr"]) * damping, "beta": beta, "weight_decay": number(hyper["weight_decay"]) / damping}
    one = lab.run(case.params, case.grads, hyper | {"beta": beta, "nu": beta if partner == "nesterov" else 1.0})
    other = lab.run(case.params, case.grads, theirs, partner)
    lab.close(one.params.bounded, other.params.bounded)
    if "m" in one:
        lab.close(one["m"].bounded, damping * other["v"].bounded)


@LAWS.add(
    "qhm is a PID controller",
    Kind.BOUND,
    "QHM moves by a proportional, an integral and a derivative term of the gradients, with the gains of the paper's table.",
    "Ma and Yarats 2019, section 4 and appendix C",
    [11],
    ["qhm"],
)
def qhm_is_pid(lab: Lab, case: Case) -> None:
    lr, beta, nu = 0.125, 0.75, 0.5
    proportional, integral, derivative = -lr * nu * 3, lr, lr * nu * 9  # beta / (1 - beta) = 3
    speed = total = before = given(np.zeros_like(case.params))
    params = [start := given(case.params)]
    for grad in case.grads:
        error = -given(grad)
        speed = beta * speed + (1 - beta) * (error - before)
        total, before = total + error, error
        params.append(start + proportional * error + integral * total + derivative * speed)
    run = lab.run(case.params, case.grads, {"lr": lr, "beta": beta, "nu": nu, "weight_decay": 0.0})
    lab.close(run.params.bounded, stacked(params))


@LAWS.add(
    "qhm is a synthesized Nesterov method",
    Kind.BOUND,
    "QHM is the method of Lessard, Recht and Packard with the parameters of the paper's table; so it is triple momentum too.",
    "Lessard, Recht and Packard 2016; Ma and Yarats 2019, appendix C",
    [11],
    ["qhm"],
)
def qhm_is_synthesized_nesterov(lab: Lab, case: Case) -> None:
    lr, beta, nu = 0.125, 0.75, 0.5
    own, ahead = lr * (1 - beta), (1 - nu) * beta / (1 - beta)
    before = now = given(case.params)
    params = [now]
    for grad in case.grads:
        before, now = now, now - own * given(grad) + beta * (now - before)
        params.append(now + ahead * (now - before))
    run = lab.run(case.params, case.grads, {"lr": lr, "beta": beta, "nu": nu, "weight_decay": 0.0})
    lab.close(run.params.bounded, stacked(params))


@LAWS.add(
    "qhadam nu=1 is adamw",
    Kind.BITS,
    "With nu1 = nu2 = 1 the plain gradient has no part, and QHAdam is AdamW.",
    QHADAM,
    [12],
    ["qhadam"],
    partners=["adamw"],
)
def qhadam_is_adamw(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, nu1=1.0, nu2=1.0)
    one = lab.run(case.params, case.nonzero, hyper)
    other = lab.run(case.params, case.nonzero, _shared(hyper, "lr", "beta1", "beta2", "eps", "eps_root", "weight_decay"), "adamw")
    lab.same_run(one, other)


@LAWS.add(
    "qhadam nu1=0 is adamw without momentum",
    Kind.BITS,
    "With nu1=0 and nu2=1 QHAdam is RMSProp with bias correction, which is AdamW with beta1=0.",
    QHADAM,
    [13],
    ["qhadam"],
    partners=["adamw"],
)
def qhadam_is_rmsprop(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, nu1=0.0, nu2=1.0)
    one = lab.run(case.params, case.nonzero, hyper)
    theirs = _shared(hyper, "lr", "beta2", "eps", "eps_root", "weight_decay") | {"beta1": 0.0}
    other = lab.run(case.params, case.nonzero, theirs, "adamw")
    lab.same(one.params, other.params)
    if "v" in one:
        lab.same(one["v"], other["v"])


@LAWS.add(
    "qhadam nu=0 eps=0 is the sign",
    Kind.BITS,
    "A gradient over the root of its own square is its sign.",
    "IEEE 754",
    [13],
    ["qhadam"],
    partners=["sgd"],
)
def qhadam_is_sign(lab: Lab, case: Case) -> None:
    _is_sign(lab, case, {"nu1": 0.0, "nu2": 0.0, "eps": 0.0, "eps_root": 0.0})


@LAWS.add(
    "no memory and eps=0 is the sign",
    Kind.BITS,
    "Without memory and without eps a step of the Adam family is lr times the sign of the gradient, because sqrt(x*x) is |x|.",
    "IEEE 754; Kingma and Ba 2015, section 2.1",
    [18],
    ["adam", "adamw", "nadam", "qhadam", "ademamix"],
    partners=["sgd"],
)
def adam_is_sign(lab: Lab, case: Case) -> None:
    decays = {"beta1": 0.0, "beta2": 0.0, "nu1": 1.0, "nu2": 1.0}
    _is_sign(lab, case, decays | {"eps": 0.0, "eps_root": 0.0, "alpha": 0.0, "alpha_warmup": None})


@LAWS.add(
    "lion beta1=0 is the sign",
    Kind.BITS,
    "With beta1=0 Lion steps by the sign of the gradient.",
    LION,
    [20],
    ["lion"],
    partners=["sgd"],
)
def lion_is_sign(lab: Lab, case: Case) -> None:
    _is_sign(lab, case, {"beta1": 0.0})


def _is_sign(lab: Lab, case: Case, fixed: dict[str, Any]) -> None:
    hyper = lab.hyper(case, **{name: value for name, value in fixed.items() if lab.has(name)})
    one = lab.run(case.params, case.nonzero, hyper)
    theirs = {"lr": hyper["lr"], "weight_decay": hyper.get("weight_decay", 0.0)}
    other = lab.run(case.params, [np.sign(g) for g in case.nonzero], theirs, "sgd")
    lab.same(one.params, other.params)


@LAWS.add(
    "aggmo of one beta is momentum",
    Kind.BITS,
    "AggMo with one buffer is heavy ball momentum.",
    AGGMO,
    [14],
    ["aggmo"],
    partners=["momentum"],
)
def aggmo_of_one(lab: Lab, case: Case) -> None:
    one, other = _aggmo_of_equals(lab, case, 1)
    lab.same(one.params, other.params)


@LAWS.add(
    "aggmo of two equal betas is momentum",
    Kind.BITS,
    "The mean of two equal buffers is the buffer: doubling and halving do not round.",
    "IEEE 754; Lucas et al. 2019",
    [15],
    ["aggmo"],
    partners=["momentum"],
)
def aggmo_of_two(lab: Lab, case: Case) -> None:
    one, other = _aggmo_of_equals(lab, case, 2)
    lab.same(one.params, other.params)


@LAWS.add(
    "aggmo of four equal betas is momentum",
    Kind.BOUND,
    "The mean of four equal buffers is the buffer, up to rounding.",
    AGGMO,
    [15],
    ["aggmo"],
    partners=["momentum"],
)
def aggmo_of_four(lab: Lab, case: Case) -> None:
    one, other = _aggmo_of_equals(lab, case, 4)
    lab.close(one.params.bounded, other.params.bounded)


def _aggmo_of_equals(lab: Lab, case: Case, count: int) -> Any:
    hyper = lab.hyper(case)
    beta = hyper["betas"][-1]
    one = lab.run(case.params, case.grads, hyper | {"betas": (beta,) * count})
    other = lab.run(case.params, case.grads, _shared(hyper, "lr", "weight_decay") | {"beta": beta}, "momentum")
    for i in range(count):
        if f"v[{i}]" in one:
            lab.same(one[f"v[{i}]"], other["v"])
    return one, other


@LAWS.add(
    "aggmo forgets the order of two betas",
    Kind.BITS,
    "A sum of two does not depend on their order.",
    "IEEE 754",
    [16],
    ["aggmo"],
)
def aggmo_order_of_two(lab: Lab, case: Case) -> None:
    one, other = _aggmo_reversed(lab, case, (*lab.hyper(case)["betas"][-1:], 0.5))
    lab.same(one.params, other.params)


@LAWS.add(
    "aggmo forgets the order of betas",
    Kind.BOUND,
    "The mean of the buffers does not depend on their order, up to rounding.",
    AGGMO,
    [16],
    ["aggmo"],
)
def aggmo_order(lab: Lab, case: Case) -> None:
    one, other = _aggmo_reversed(lab, case, (*lab.hyper(case)["betas"][-1:], 0.25, 0.5, 0.9))
    lab.close(one.params.bounded, other.params.bounded)


def _aggmo_reversed(lab: Lab, case: Case, betas: tuple[float, ...]) -> Any:
    one = lab.run(case.params, case.grads, lab.hyper(case, betas=betas))
    other = lab.run(case.params, case.grads, lab.hyper(case, betas=betas[::-1]))
    for i in range(len(betas)):
        if f"v[{i}]" in one:
            lab.same(one[f"v[{i}]"], other[f"v[{len(betas) - 1 - i}]"])
    return one, other


@LAWS.add(
    "aggmo with a plain gradient is qhm",
    Kind.BOUND,
    "AggMo of the betas 0 and beta is QHM with nu = 1 / (2 - beta) and lr (1 + 1 / (1 - beta)) / 2 times as long.",
    "Lucas et al. 2019, section 3; Ma and Yarats 2019",
    [17],
    ["aggmo"],
    partners=["qhm"],
)
def aggmo_is_qhm(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    beta = hyper["betas"][-1]
    longer = (1 + 1 / (1 - number(beta))) * 0.5
    theirs = {"lr": number(hyper["lr"]) * longer, "beta": beta, "nu": 1 / (2 - number(beta))}
    theirs["weight_decay"] = number(hyper["weight_decay"]) / longer
    one = lab.run(case.params, case.grads, hyper | {"betas": (0.0, beta)})
    other = lab.run(case.params, case.grads, theirs, "qhm")
    lab.close(one.params.bounded, other.params.bounded)


@LAWS.add(
    "lion beta1=beta2 is the sign of its average",
    Kind.BOUND,
    "With equal decays Lion steps by the sign of the average that it holds after the step.",
    LION,
    [19],
    ["lion"],
    partners=["sgd"],
)
def lion_is_sign_of_average(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    hyper["beta1"] = hyper["beta2"]
    one = lab.run(case.params, case.grads, hyper)
    averages = one["m"].value[1:] if "m" in one else case.grads
    other = lab.run(case.params, [np.sign(m) for m in averages], _shared(hyper, "lr", "weight_decay"), "sgd")
    lab.close(one.params.bounded, other.params.bounded)


@LAWS.add(
    "lion is the sign of qhm",
    Kind.BOUND,
    "Lion steps by the sign of the step of QHM with nu = beta1 / beta2 and beta = beta2, where that is away from 0.",
    "Chen et al. 2023; Ma and Yarats 2019",
    [21],
    ["lion"],
    partners=["qhm"],
)
def lion_is_sign_of_qhm(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, lr=1.0, weight_decay=0.0)
    if not hyper["beta2"]:  # nu is beta1 / beta2
        hyper["beta2"] = 0.5
    theirs = {"lr": 1.0, "weight_decay": 0.0, "beta": hyper["beta2"], "nu": number(hyper["beta1"]) / number(hyper["beta2"])}
    start = np.zeros_like(case.params)
    steps = _steps(lab.run(start, case.grads, hyper).params)
    others = _steps(lab.run(start, case.grads, theirs, "qhm").params)
    for step, other in zip(steps, others, strict=True):
        certain = np.abs(other.value) > other.error
        sign = Bounded(np.sign(other.value), np.where(certain, 0.0, np.inf), other.format)
        lab.close(step, sign)


def _steps(params: Series) -> list[Bounded]:
    columns = rows(params.bounded)
    return [before - after for before, after in pairwise(columns)]


@LAWS.add(
    "lion may decay first",
    Kind.BOUND,
    "Shrinking the parameters before the step, as the authors' torch file does, is the same in exact arithmetic.",
    "Chen et al. 2023, the authors' code",
    [22],
    ["lion"],
)
def lion_may_decay_first(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, beta1=0.0)
    shrink = 1 - number(hyper["lr"]) * number(hyper["weight_decay"])
    params = [given(case.params)]
    for grad in case.grads:
        params.append(shrink * params[-1] - number(hyper["lr"]) * given(np.sign(grad)))
    lab.close(lab.run(case.params, case.grads, hyper).params.bounded, stacked(params))


@LAWS.add(
    "adamw weight_decay=0 is adam",
    Kind.BITS,
    "A decay of 0 adds 0 to the step, so that AdamW is Adam.",
    "Loshchilov and Hutter 2019, Algorithm 2",
    [40],
    ["adamw"],
    partners=["adam"],
)
def adamw_is_adam(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case, weight_decay=0.0)
    one = lab.run(case.params, case.nonzero, hyper)
    other = lab.run(case.params, case.nonzero, _shared(hyper, "lr", "beta1", "beta2", "eps", "eps_root"), "adam")
    lab.same_run(one, other)


def _shared(hyper: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: hyper[name] for name in names}


def _debias(beta: float, t: int) -> Bounded:
    """``1 - beta^t``."""
    return nearest(1 - _N.number(beta) ** t)
