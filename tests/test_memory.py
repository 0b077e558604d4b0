"""What a rule remembers: every figure beside its closed form, a theorem or a run of the rule's own step on NumPy arrays."""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest

import xopt
from xopt import RULES, Rule, memory
from xopt.checks import Beta, Rate
from xopt.conformance.inputs.hyperparameters import settings
from xopt.conformance.laws import responses as laws
from xopt.operations import average, sqrt

UNIT = 2.0**-53
LINEAR = ("sgd", "momentum", "nesterov", "qhm", "aggmo")
ADAPTIVE = ("adam", "adamw", "nadam", "qhadam", "ademamix")


def near(found: Any, exact: Any, many: float = 1e4) -> None:
    """Within as many roundings as a few thousand products make: 1e4 of them are 1.1e-12."""
    np.testing.assert_allclose(found, exact, rtol=many * UNIT, atol=0)


# Closed forms of the weights by age, long after the start


def closed_form(rule: str, h: dict[str, Any], k: Any) -> Any:
    k = np.asarray(k, dtype=np.float64)
    now = (k == 0) * 1.0
    match rule:
        case "sgd":
            return now
        case "momentum":
            return h["beta"] ** k
        case "nesterov":
            return now + h["beta"] ** (k + 1)
        case "qhm":
            return (1 - h["nu"]) * now + h["nu"] * (1 - h["beta"]) * h["beta"] ** k
        case "aggmo":
            return sum(b**k for b in h["betas"]) / len(h["betas"])
        case "lion":
            return np.where(k == 0, 1 - h["beta1"], h["beta1"] * (1 - h["beta2"]) * h["beta2"] ** (k - 1))
        case "adam" | "adamw":
            return (1 - h["beta1"]) * h["beta1"] ** k
        case "nadam":
            return (1 - h["beta1"]) * (now + h["beta1"] ** (k + 1))
        case "qhadam":
            return (1 - h["nu1"]) * now + h["nu1"] * (1 - h["beta1"]) * h["beta1"] ** k
    return (1 - h["beta1"]) * h["beta1"] ** k + h["alpha"] * (1 - h["beta3"]) * h["beta3"] ** k


OTHERS: dict[str, dict[str, Any]] = {
    "momentum": {"beta": 0.99},
    "qhm": {"beta": -0.5, "nu": 1.5},
    "aggmo": {"betas": (0.5, 0.5, 0.999)},
    "qhadam": {"beta1": 0.9999, "nu1": 0.3},
    "lion": {"beta1": 0.5, "beta2": 0.9},
    "ademamix": {"beta1": 0.0, "beta3": 0.99999, "alpha": 2.0, "alpha_warmup": 256_000, "beta3_warmup": 256_000},
}
CLOSED = (*LINEAR, *ADAPTIVE, "lion")
CASES = [(name, {}) for name in CLOSED] + list(OTHERS.items())


def asked(name: str, given: dict[str, Any]) -> tuple[memory.Memory, dict[str, Any]]:
    hyper = given | ({"eps": 0.0} if "eps" in RULES[name].defaults else {})
    return memory.of(RULES[name], **hyper), RULES[name].defaults | hyper


@pytest.mark.parametrize(("name", "given"), CASES)
def test_weights_are_those_of_the_closed_form(name: str, given: dict[str, Any]) -> None:
    found, h = asked(name, given)
    near(found.weights(50), closed_form(name, h, np.arange(50)))
    ages = np.array([100, 3_000, 7])
    np.testing.assert_allclose(found.weights(ages), closed_form(name, h, ages), rtol=1e-11, atol=1e-300)


SUMS = 1 << 16
"""Ages that a sum of the closed form runs over, where the longest memory ends far before."""


@pytest.mark.parametrize(("name", "given"), CASES)
def test_moments_are_those_of_the_weights(name: str, given: dict[str, Any]) -> None:
    found, h = asked(name, given)
    ends = 1 << 22 if found.half_life() > 10_000 else 1 << 19 if found.half_life() > 1_000 else SUMS
    k = np.arange(float(ends))
    w = closed_form(name, h, k)
    mass, mean = math.fsum(w), math.fsum(k * w) / math.fsum(w)
    near(found.mass(), mass)
    np.testing.assert_allclose(found.mean_age(), mean, rtol=1e-11)
    near(found.noise(), math.fsum(w * w) / mass**2)
    variance = math.fsum((k - mean) ** 2 * w) / mass
    np.testing.assert_allclose(found.spread(), math.sqrt(variance) if variance >= 0 else math.nan, rtol=1e-11)
    older = np.cumsum(w[::-1])[::-1][1:] / mass
    np.testing.assert_allclose(found.share_older([0, 5, 400]), older[[0, 5, 400]], rtol=1e-10, atol=1e-16)
    if np.all(w >= 0):
        half = found.half_mass_age()
        assert older[half] <= 0.5 * (1 + 1e-12)
        assert half == 0 or older[half - 1] > 0.5 * (1 - 1e-12)
    waves = [0.0, 0.01, 0.25, 0.5]
    direct = [abs(np.sum(w * np.exp(-2j * np.pi * f * k))) for f in waves]
    np.testing.assert_allclose(found.gain(waves), direct, rtol=1e-9)


def test_published_figures_of_memory() -> None:
    """Ma and Yarats 2019; Lucas et al. 2019; Pagliardini et al. 2025; the numbers of mathematics.md, items 44 to 47."""
    of = memory.of
    assert of(xopt.adam).noise() == pytest.approx(1 / 19, rel=1e-14)  # QHM, appendix A
    assert of(xopt.qhm, nu=0.7, beta=0.999).mean_age() == pytest.approx(699.3, rel=1e-12)
    assert of(xopt.aggmo).mass() == pytest.approx(37.0, rel=1e-14)
    assert [of(r).half_mass_age() for r in (xopt.qhm, xopt.aggmo, xopt.lion, xopt.ademamix)] == [336, 58, 59, 5753]
    assert 1 - of(xopt.ademamix).share_older(9) == pytest.approx(0.073, abs=5e-4)
    best = of(xopt.aggmo, betas=(0.0, 0.9, 0.99, 0.999), lr=0.1)  # QHM, appendix H: "rounded up" to 28
    assert math.ceil(best.mass()) == 28
    # AdEMAMix, figure 3a: half of the weight within about 6 and about 6930 gradients
    halves = [math.log(0.5) / math.log(beta) - 1 for beta in (0.9, 0.9999)]
    assert [of(xopt.momentum, beta=beta).half_mass_age() for beta in (0.9, 0.9999)] == [math.ceil(x) for x in halves] == [6, 6931]
    of_average = [of(xopt.momentum, beta=beta).half_life() - 1 for beta in (0.999, 0.9991)]
    assert round(of_average[1] - of_average[0]) == 77


# Runs from the start


@pytest.mark.parametrize("name", RULES)
def test_steps_are_those_of_the_rule(name: str) -> None:
    hyper = {"alpha_warmup": 40, "beta3_warmup": 30, "beta3": 0.99} if name == "ademamix" else {}
    found = memory.of(RULES[name], **hyper)
    grads = np.cos(np.arange(60.0)) + 0.25
    state, taken = RULES[name].init(np.zeros(1)), []
    for g in grads:
        after = RULES[name].step(state._replace(params=np.zeros(1)), np.array([g]), lr=1.0, **hyper)
        taken.append(-float(after.params[0]))
        state = after
    np.testing.assert_allclose(found.steps(grads), taken, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", RULES)
def test_a_step_is_the_sum_of_the_gradients_by_their_weights(name: str) -> None:
    """The weights of a step where every gradient was 1, at a count that corrections and warm-ups still change."""
    found = memory.of(RULES[name], **({"alpha_warmup": 400, "beta3_warmup": 300} if name == "ademamix" else {}))
    for step in (1, 2, 37):
        weights = found.weights(step=step)
        assert len(weights) == step
        near(math.fsum(weights), found.effective_lr(step)[-1])
        near(found.mass(step=step), found.effective_lr(step)[-1])
        near(found.noise_steps(step)[-1], math.sqrt(math.fsum(weights**2)))


@pytest.mark.parametrize(("name", "held"), [*((name, False) for name in RULES), *((name, True) for name in LINEAR)])
def test_derivatives_are_differences(name: str, held: bool) -> None:
    """Where nothing is held, and for linear rules either way."""
    hyper = {"alpha_warmup": 9, "beta3_warmup": 7, "beta3": 0.99} if name == "ademamix" else {}
    found = memory.of(RULES[name], held=held, **hyper)
    weights, h = found.weights(step=12), 1e-6
    for age in range(12):
        up, down = np.ones(12), np.ones(12)
        up[11 - age] += h
        down[11 - age] -= h
        difference = (found.steps(up)[-1] - found.steps(down)[-1]) / (2 * h)
        assert weights[age] == pytest.approx(difference, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("name", ["adam", "nadam", "qhadam", "ademamix", "lion"])
def test_a_step_that_forgets_scale_has_derivatives_that_sum_up_to_nothing(name: str) -> None:
    """Euler's theorem for functions of degree 0."""
    found = memory.of(RULES[name], held=False, **({} if name == "lion" else {"eps": 0.0}))
    assert abs(found.mass()) < 1e-12
    assert abs(math.fsum(found.weights(step=40))) < 1e-12
    with pytest.raises(ValueError, match="no shares and no mean"):
        memory.of(xopt.lion, held=False).mean_age()


@pytest.mark.parametrize("name", CLOSED)
def test_weights_from_the_start_are_those_that_the_laws_state(name: str) -> None:
    """With hyperparameters drawn over their whole ranges, beside weights in 50 digits, without any recursion over steps."""
    for given in settings(RULES[name], 0, 12, "float64", borders=False):
        found, h = memory.of(RULES[name], **given), RULES[name].defaults | given
        lr = given.get("lr", 1.0)
        decays = [b for key, x in h.items() if key.startswith("beta") and x for b in (x if isinstance(x, tuple) else (x,)) if b < 1]
        rounded = 1e3 * UNIT / (1 - max(decays, default=0.0))  # a correction 1 - beta^t is off by that
        for step in (1, 2, 12):
            if name == "lion":  # the sign of a QHM average: its weights over their sum, as the step is 1 long
                one = [1 - h["beta1"], h["beta1"], *[0.0] * step][:step]  # without memory the gradient before
                if h["beta2"]:
                    one = laws.weights("qhm", {"beta": h["beta2"], "nu": h["beta1"] / h["beta2"]}, step)
                exact = [lr * w / sum(one) for w in one]
            else:
                exact = [lr * w for w in laws.weights(name, h, step)]
                if name in ADAPTIVE:
                    root = math.sqrt(sum(laws.square_weights(name, h, step)) + h["eps_root"]) + h["eps"]
                    exact = [w / root for w in exact]
            sizes = np.array(exact, dtype=float)
            np.testing.assert_allclose(found.weights(step=step), sizes, rtol=rounded, atol=UNIT * np.abs(sizes).sum())


def test_effective_lr_of_ademamix_with_warmups() -> None:
    """1 + alpha(t) * (1 - product of beta3), under a constant gradient."""
    warm, steps = 256_000, 100_000
    found = memory.of(xopt.ademamix, eps=0.0, alpha_warmup=warm, beta3_warmup=warm).effective_lr(steps)
    t = np.arange(1.0, steps + 1)
    mu = t / warm
    log_beta3 = 1 / ((1 - mu) / math.log(0.9) + mu / math.log(0.9999))
    exact = 1 + 8 * mu * -np.expm1(np.cumsum(log_beta3))
    near(found, exact)
    assert found[-1] == pytest.approx(4.125, rel=1e-4)


def test_long_runs_are_quick() -> None:
    import time

    began = time.perf_counter()
    slow = memory.of(xopt.ademamix, alpha_warmup=256_000, beta3_warmup=256_000)
    slow.effective_lr(100_000)
    assert slow.weights(step=100_000).sum() == pytest.approx(4.125, rel=1e-4)
    assert time.perf_counter() - began < 10.0  # a second on an idle core


def test_schedules_are_hyperparameters() -> None:
    lr = xopt.schedules.warmup(2.0, 4)
    found = memory.of(xopt.momentum, lr=lr, beta=0.5)
    near(found.effective_lr(6), [lr(t) * (2 - 0.5 ** (t - 1)) for t in range(1, 7)])
    near(found.mass(), 4.0)
    decaying = memory.of(xopt.momentum, beta=xopt.schedules.linear(0.5, 0.9, 10))
    near(decaying.half_life(), -math.log(2) / math.log(0.9))
    near(decaying.weights(step=2), [1.0, 0.5 + 0.4 * 0.2])


# Responses


@pytest.mark.parametrize("beta", [0.9, 0.999])
def test_an_average_turns_when_half_of_it_is_new(beta: float) -> None:
    """After a reversal an average of ones is ``2 beta^k - 1``."""
    before = 40_000
    found = memory.of(xopt.qhm, nu=1.0, beta=beta).reversal(before, 5_000)
    assert found.turn == math.floor(math.log(0.5) / math.log(beta)) + 1
    k = np.arange(1, found.turn)
    assert found.coast == pytest.approx(math.fsum(2 * beta**k - 1), rel=1e-9)
    assert memory.of(xopt.sgd).reversal(3, 3).turn == 1
    assert memory.of(xopt.sgd).reversal(3, 3).coast == 0.0


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_rule_lags_behind_a_ramp_by_its_mean_age(name: str) -> None:
    found = memory.of(RULES[name])
    response = found.ramp_response(30_000)
    lag = response.grads[-1] - response.steps[-1] / found.mass()
    assert lag == pytest.approx(found.mean_age(), rel=1e-6, abs=1e-6)


def test_a_burst_is_remembered_and_adam_overshoots_after_silence() -> None:
    burst = memory.of(xopt.momentum, beta=0.9).burst(3, 2_000)
    assert burst.turn is None
    assert burst.coast == pytest.approx((1 - 0.9**3) / 0.1 * 9, rel=1e-12)
    # after n gradients of 0 the first of 1 has the weight 0.1 over the root of 0.001, both corrected for a long run
    rising = memory.of(xopt.adam, eps=0.0).step_response(20_000, before=10_000)
    ages = np.arange(1, 20_001)
    steps = (1 - 0.9**ages) / np.sqrt((1 - 0.999**ages) / (1 - 0.999 ** (10_000 + ages)))
    assert rising.overshoot == pytest.approx(steps.max() / steps[-1] - 1, rel=1e-6)
    assert rising.overshoot > 5


# The longest step


def test_the_longest_step_of_the_adam_family_is_that_of_the_inequality() -> None:
    """QHM, fact F.1: 7.27 for Adam, where its paper says 3.16; 1.95 for the translation of QHAdam, 1.2306 with nu2 = 0.7."""

    def bound(nu1: float, beta1: float, nu2: float, beta2: float) -> float:
        now = (1 - nu1 * beta1) ** 2 / (1 - nu2 * beta2)
        return math.sqrt(now + (nu1 * beta1 * (1 - beta1)) ** 2 / (nu2 * (1 - beta2) * (beta2 - beta1**2)))

    near(memory.of(xopt.adam).worst_step(), bound(1, 0.9, 1, 0.999))
    assert memory.of(xopt.adam).worst_step() == pytest.approx(7.27029, abs=5e-6)
    for nu2, printed in ((1.0, 1.95234), (0.7, 1.23058)):
        found = memory.of(xopt.qhadam, nu1=0.8, beta1=0.95, nu2=nu2, beta2=0.98).worst_step()
        near(found, bound(0.8, 0.95, nu2, 0.98))
        assert found == pytest.approx(printed, abs=5e-6)
    assert memory.of(xopt.ademamix).worst_step() == math.inf  # beta3^2 > beta2: item 55


def test_no_gradients_pass_the_longest_step_and_some_reach_it() -> None:
    for name in ADAPTIVE:
        found = memory.of(RULES[name], eps=0.0)
        bound = found.worst_step(step=30)
        runs = [np.abs(found.steps(np.random.default_rng(seed).standard_cauchy(30)))[-1] for seed in range(20)]
        assert max(runs) <= bound * (1 + 1e-12), name
    # the worst gradient of an age is as its weight over the weight of its square
    age = np.arange(30)[::-1]
    worst = memory.of(xopt.adam, eps=0.0)
    assert worst.steps((0.9 / 0.999) ** age)[-1] == pytest.approx(worst.worst_step(step=30), rel=1e-13)
    near(memory.of(xopt.qhm, beta=-0.5, nu=1.0).worst_step(), 1.5 / 0.5)
    assert memory.of(xopt.lion, lr=0.25).worst_step() == 0.25
    assert memory.of(xopt.lion).worst_step(step=3) == 1.0


# Costs


def test_costs() -> None:
    arrays = {
        "sgd": 0,
        "momentum": 1,
        "nesterov": 1,
        "qhm": 1,
        "lion": 1,
        "adam": 2,
        "adamw": 2,
        "nadam": 2,
        "qhadam": 2,
        "ademamix": 3,
    }
    for name, kept in arrays.items():
        assert memory.of(RULES[name]).cost() == (kept, 3 + 2 * kept), name
    assert memory.of(xopt.aggmo).cost().arrays == 2
    assert memory.of(xopt.ademamix, beta1=0.0).cost() == (2, 7)


# Quadratics


def simulated(name: str, hyper: dict[str, Any], curvatures: Any, held: bool = False) -> Any:
    """The factor by which the distance shrinks at each of the last steps, on average, in a run of the rule's own step.

    ``held`` is for a run in which nothing but eps divides: late, without the second moment.
    """
    h = np.asarray(curvatures, dtype=np.float64)
    rule, steps = RULES[name].bind(**hyper), 1200
    state = rule.init(np.ones_like(h))
    fixed = {"v": np.zeros_like(h), "step": 2**40, **dict.fromkeys(RULES[name].carried, 0.0)} if held else {}
    fields = [field for field in state._fields if field not in {"step", *fixed}]
    logs, scale = [], np.zeros_like(h)
    for _ in range(steps):
        state = rule.step(state._replace(**fixed), h * state.params)
        size = np.sqrt(np.sum([np.square(x) for field in fields for x in _arrays(getattr(state, field))], axis=0))
        scale = scale + np.log(size)
        state = state._replace(**{field: _scaled(getattr(state, field), 1 / size) for field in fields})
        logs.append(scale)
    return np.exp((logs[-1] - logs[steps // 2]) / (steps - 1 - steps // 2))


def _arrays(field: Any) -> list[Any]:
    return [x for x in (field if isinstance(field, tuple) else (field,)) if x is not None]


def _scaled(field: Any, factor: Any) -> Any:
    if isinstance(field, tuple):
        return tuple(_scaled(x, factor) for x in field)
    return None if field is None else field * factor


@pytest.mark.parametrize("name", LINEAR)
def test_rates_are_those_of_runs(name: str) -> None:
    curvatures = np.array([0.03, 0.4, 1.7])
    hyper = {"lr": 0.3} | ({"beta": 0.9} if name == "qhm" else {})
    rates = memory.of(RULES[name], **hyper).rates(curvatures)
    # of turning pairs of eigenvalues the size of the state swings; over half of the run that is a few parts in a thousand
    np.testing.assert_allclose(np.log(simulated(name, hyper, curvatures)), np.log(rates), rtol=0, atol=6e-3)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_rates_of_rules_that_divide_are_those_of_runs_in_which_it_is_held(name: str) -> None:
    """An eps so large that nothing else divides, and lr times it; late, so that no correction is left."""
    curvatures, huge = np.array([0.03, 0.4, 1.7]), 2.0**100
    more = {"beta3": 0.99, "alpha": 2.0} if name == "ademamix" else {}
    more |= {"weight_decay": 0.0} if "weight_decay" in RULES[name].defaults else {}
    rates = memory.of(RULES[name], lr=0.3, eps=0.0, **more).rates(curvatures, precondition=True)
    found = simulated(name, {"lr": 0.3 * huge, "eps": huge} | more, curvatures, held=True)
    np.testing.assert_allclose(np.log(found), np.log(rates), rtol=0, atol=6e-3)


@pytest.mark.parametrize("kappa", [10.0, 100.0, 1000.0])
def test_rates_of_the_literature(kappa: float) -> None:
    """Polyak 1964; Lessard, Recht and Packard 2016, table 1; Van Scoy, Freeman and Lynch 2018, for curvatures from 1/kappa to 1."""
    root = math.sqrt(kappa)
    h = np.geomspace(1 / kappa, 1.0, 201)

    def rate(rule: Any, **hyper: float) -> float:
        return float(memory.of(rule, **hyper).rates(h).max())

    beta = ((root - 1) / (root + 1)) ** 2
    assert rate(xopt.sgd, lr=2 / (1 + 1 / kappa)) == pytest.approx((kappa - 1) / (kappa + 1), rel=1e-12)
    assert rate(xopt.momentum, lr=4 / (1 + 1 / root) ** 2, beta=beta) == pytest.approx(math.sqrt(beta), abs=1e-6)
    three = math.sqrt(3 * kappa + 1)
    best = rate(xopt.nesterov, lr=4 / (3 + 1 / kappa), beta=(three - 2) / (three + 2))
    assert best == pytest.approx(1 - 2 / three, abs=1e-6)
    triple = xopt.qhm_from_triple_momentum(1.0, kappa)
    assert rate(xopt.qhm, **triple) == pytest.approx(1 - 1 / root, abs=1e-6)


def test_limits_of_stability() -> None:
    """AggMo: twice the harmonic mean of 1 + beta; momentum 2 + 2 beta; Adam 2 (1 + beta1) / (1 - beta1), Cohen et al. 2022: 38."""
    limit = memory.of(xopt.aggmo).stability_limit
    assert limit() == pytest.approx(2.957371920219007, rel=1e-11)
    assert limit(4.0) == pytest.approx(2.957371920219007 / 4, rel=1e-11)
    four = memory.of(xopt.aggmo, betas=(0.0, 0.9, 0.99, 0.999))
    assert four.stability_limit() == pytest.approx(3.163207496977949, rel=1e-11)
    assert memory.of(xopt.sgd).stability_limit() == pytest.approx(2.0, rel=1e-12)
    assert memory.of(xopt.momentum, beta=0.9).stability_limit() == pytest.approx(3.8, rel=1e-11)
    assert memory.of(xopt.adam, eps=0.0).stability_limit(precondition=True) == pytest.approx(38.0, rel=1e-11)
    lr = limit()
    below, above = (simulated("aggmo", {"lr": lr * x}, [1.0])[0] for x in (0.999, 1.001))
    assert below < 1.0 < above


def test_a_slot_that_no_step_reads_slows_nothing() -> None:
    rates = [
        memory.of(rule, eps=0.0, lr=0.5).rates([0.1, 1.0], precondition=True) for rule in (xopt.adam, xopt.ademamix.bind(alpha=0.0))
    ]
    near(rates[0], rates[1])
    momentum = memory.of(xopt.momentum, lr=0.05, beta=0.9).rates([0.1, 1.0])
    near(rates[0], momentum)


def test_the_best_lr() -> None:
    for kappa in (10.0, 100.0):
        lr, rate = memory.of(xopt.sgd).best_lr(1 / kappa, 1.0)
        assert lr == pytest.approx(2 / (1 + 1 / kappa), rel=1e-6)
        assert rate == pytest.approx((kappa - 1) / (kappa + 1), rel=1e-6)
    _, rate = memory.of(xopt.momentum, beta=0.9).best_lr(1e-2, 1.0)
    assert 1 - rate == pytest.approx(0.0513, abs=5e-5)  # Lucas et al. 2019, figure 3, by mathematics.md
    _, rate = memory.of(xopt.aggmo).best_lr(1e-3, 1.0)
    assert 1 - rate == pytest.approx(0.0103, abs=5e-5)


def test_a_map_over_lr_and_curvature() -> None:
    found = memory.of(xopt.momentum, beta=0.5).rates([0.1, 1.0], [0.5, 1.0, 4.0])
    assert found.shape == (3, 2)
    near(found[2, 1], (2.5 + math.sqrt(4.25)) / 2)  # z^2 - (1 + beta - lr h) z + beta = 0
    assert memory.of(xopt.momentum).rates(1.0).shape == ()


# Equivalent settings


@pytest.mark.parametrize(
    ("target", "rule", "settings", "lr"),
    [
        (memory.of(xopt.lion), xopt.qhm, {"beta": 0.99, "nu": 0.9 / 0.99}, 1.0),
        (memory.of(xopt.ademamix, beta1=0.0), xopt.qhadam, {"beta1": 0.9999, "nu1": 8 / 9}, 9.0),
        (memory.of(xopt.nesterov, beta=0.95), xopt.qhm, {"beta": 0.95, "nu": 0.95}, 20.0),
        (memory.of(xopt.aggmo, betas=(0.0, 0.99)), xopt.qhm, {"beta": 0.99, "nu": 100 / 101}, 50.5),
        (memory.of(xopt.qhm, beta=0.9), xopt.lion, {"beta1": 0.63, "beta2": 0.9}, 1.0),
    ],
    ids=["lion as qhm", "ademamix as qhadam", "nesterov as qhm", "aggmo as qhm", "qhm as lion"],
)
def test_settings_that_are_the_same_are_found(target: memory.Memory, rule: Any, settings: dict[str, float], lr: float) -> None:
    found = memory.nearest(target, rule)
    assert found.distance < 1e-9
    assert found.hyper == pytest.approx(settings, rel=1e-7)
    assert found.lr == pytest.approx(lr, rel=1e-7)


def test_what_stays_different_is_said() -> None:
    """AdEMAMix's fast average is one gradient for QHM; no setting of a grid around it is nearer."""
    target = memory.of(xopt.ademamix)
    found = memory.nearest(target, xopt.qhm)
    assert 0.05 < found.distance < 0.11
    assert found.lr == pytest.approx(9.0, rel=1e-7)
    ages = np.unique(np.geomspace(1, 160_000, 96).astype(int) - 1)

    def squares(m: memory.Memory) -> float:
        return float(np.sum((m.share_older(ages) - target.share_older(ages)) ** 2))

    nu, gain = found.hyper["nu"], 1 - found.hyper["beta"]
    around = [memory.of(xopt.qhm, nu=nu + x, beta=1 - gain * y) for x in (-0.01, 0, 0.01) for y in (0.9, 1, 1.1)]
    assert min(map(squares, around)) >= squares(found.memory) * (1 - 1e-3)


# Rules of one's own


class NestedState(NamedTuple):
    params: Any
    m: Any
    n: Any
    step: int


class NestedCoefficients(NamedTuple):
    lr: Any
    gain1: Any
    gain2: Any


def nested_coefficients(t: Any, *, lr: Rate = 0.1, beta1: Beta = 0.9, beta2: Beta = 0.99) -> NestedCoefficients:
    """lr: in [0, inf). Step size.
    beta1: in [0, 1). Decay of m.
    beta2: in [0, 1). Decay of n.
    """
    return NestedCoefficients(lr, 1 - beta1, 1 - beta2)


def nested_update(params: Any, m: Any, n: Any, grad: Any, c: NestedCoefficients) -> Any:
    m = average(m, grad, c.gain1)
    n = average(n, m, c.gain2)
    return params - c.lr * n, m, n


def growing_coefficients(t: Any, *, lr: Rate = 0.1, beta1: Beta = 0.9, beta2: Beta = 0.99) -> NestedCoefficients:
    """lr: in [0, inf). Step size.
    beta1: in [0, 1). Unused.
    beta2: in [0, 1). Unused.
    """
    return NestedCoefficients(lr, 8 / (8 + t), 1.0)


def rooted_update(params: Any, m: Any, n: Any, grad: Any, c: NestedCoefficients) -> Any:
    m = average(m, grad, c.gain1)
    n = average(n, abs(grad), c.gain2)
    return params - c.lr * (m / sqrt(n)), m, n


def anchored_update(params: Any, m: Any, n: Any, grad: Any, c: NestedCoefficients) -> Any:
    m = average(m, grad + params, c.gain1)
    return params - c.lr * m, m, n


def own(update: Any, coefficients: Any = nested_coefficients) -> Rule[Any, Any]:
    return Rule("own", NestedState, coefficients, update, memory={"m": "beta1", "n": "beta2"})


def test_a_rule_of_ones_own_whose_averages_are_nested() -> None:
    found = memory.of(own(nested_update))
    k = np.arange(2_000.0)
    exact = 0.1 * 0.01 * (0.9 ** (k + 1) - 0.99 ** (k + 1)) / (0.9 - 0.99)
    np.testing.assert_allclose(found.weights(2_000), exact, rtol=1e-11, atol=1e-18)
    np.testing.assert_allclose(found.weights(step=2_000), exact, rtol=1e-11, atol=1e-18)
    near(found.mean_age(), 9 + 99)
    near(found.spread(), math.sqrt(0.9 / 0.01 + 0.99 / 0.0001))
    near(found.worst_step(), 1.0)


def test_a_rule_that_never_settles_is_asked_for_a_step() -> None:
    """ADana's average, whose weights fall as a power of the age: item 50."""
    found = memory.of(own(nested_update, growing_coefficients))
    total, delta = 60, 8
    k = np.arange(total, 0, -1)
    logs = [math.lgamma(total + 1) + math.lgamma(delta + i) - math.lgamma(i + 1) - math.lgamma(delta + total + 1) for i in k]
    exact = delta * np.exp(logs)
    np.testing.assert_allclose(found.weights(step=total), exact, rtol=1e-11)
    near(found.mass(step=total), 1 - 1 / math.comb(total + delta, total))
    with pytest.raises(ValueError, match=r"own: its coefficients never settle, .* give step="):
        found.mass()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: memory.of("lion"), r"memory\.of: rule must be a rule or its step"),
        (lambda: memory.of(xopt.lion, learning_rate=1.0), r"memory\.of: unknown hyperparameter 'learning_rate'; did you mean lr\?"),
        (lambda: memory.of(xopt.lion, beta1=1.0), r"memory\.of: beta1 must be in \[0, 1\), got 1\.0"),
        (lambda: memory.of(xopt.lion, lr={"w": 1.0}), r"memory\.of: lr must be one number, or a function of the count"),
        (lambda: memory.of(own(anchored_update)), "its slot m depends on the parameters"),
        (lambda: memory.of(own(rooted_update)).worst_step(), "its step is of another form"),
        (lambda: memory.of(xopt.lion).rates(1.0), "lion: its step takes a sign, so that no state matrix"),
        (lambda: memory.of(xopt.lion).rates(1.0, precondition=True), "lion: its step takes a sign"),
        (lambda: memory.of(xopt.adam).rates(1.0), "adam: its step divides one array by another, .* precondition=True holds"),
        (lambda: memory.of(xopt.lion).weights(), "ages must be whole numbers, or how many"),
        (lambda: memory.of(xopt.lion).weights([0.5]), r"memory\.weights: ages must be whole numbers from 0"),
        (lambda: memory.of(xopt.lion).mass(step=0), "step must be a whole number of steps, 1 or more, got 0"),
        (lambda: memory.of(xopt.lion).effective_lr(2.5), "steps must be a whole number"),
        (lambda: memory.of(xopt.lion).steps([]), "grads must be numbers, one for each step"),
        (lambda: memory.of(xopt.sgd).best_lr(1.0, 0.5), "0 < low <= high"),
        (lambda: memory.nearest(memory.of(xopt.lion), xopt.sgd), "sgd has no hyperparameter that changes what it remembers"),
    ],
)
def test_what_cannot_be_answered_says_why(call: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_steps_and_bound_rules_are_taken() -> None:
    assert memory.of(xopt.lion_step).rule is xopt.lion
    assert memory.of(xopt.qhm.bind(beta=0.5), nu=1.0).half_life() == pytest.approx(1.0, rel=1e-14)
    assert repr(memory.of(xopt.qhm.bind(beta=0.5))) == "<memory of qhm beta=0.5>"
