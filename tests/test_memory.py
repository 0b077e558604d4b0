"""What a rule remembers: every figure beside its closed form, a theorem or a run of the rule's own step on NumPy arrays."""

import math
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest

import xopt
from xopt import RULES, Rule, memory
from xopt.checks import Beta, Rate
from xopt.conformance.arithmetic.numbers import multiprecision
from xopt.conformance.golden import GOLDENS, lift, start
from xopt.conformance.inputs.hyperparameters import settings
from xopt.conformance.laws import responses as laws
from xopt.operations import average, sqrt

UNIT = 2.0**-53
N = multiprecision(50)
LINEAR = ("sgd", "momentum", "nesterov", "qhm", "aggmo")
ADAPTIVE = ("adam", "adamw", "nadam", "qhadam", "ademamix")


def near(found: Any, exact: Any, rtol: float = 1e-12) -> None:
    """Equal to 1e-12, or less, where no more closely derived bound is at hand."""
    np.testing.assert_allclose(found, exact, rtol=rtol, atol=0)


# Closed forms of the weights by age, long after the start


class Closed(NamedTuple):
    """Weights: ``c * b^k`` at age k for each pair (c, b), and more at ages 0 and 1. All in 50 digits."""

    now: Any
    pairs: list[tuple[Any, Any]]
    before: Any = 0

    def weights(self, k: int) -> "Exact":
        return Exact.of([{0: self.now, 1: self.before}.get(k, 0), *(c * b**k for c, b in self.pairs)])


class Exact(NamedTuple):
    """A sum in many digits, and the sum of the sizes of its terms: of that its rounding is a part."""

    value: Any
    size: Any

    @classmethod
    def of(cls, terms: Any) -> "Exact":
        terms = list(terms)
        return cls(sum(terms), sum(map(abs, terms)))

    def over(self, other: "Exact") -> "Exact":
        value = self.value / other.value
        return Exact(value, (self.size + abs(value) * other.size) / abs(other.value))

    def holds(self, found: Any, roundings: Any = 8) -> None:
        """``found`` has been rounded so often, at most, where each term was."""
        assert abs(N.number(float(found)) - self.value) <= roundings * UNIT * self.size + 1e-300, (found, float(self.value))


def closed(rule: str, hyper: dict[str, Any]) -> Closed:
    h = {name: N.number(x) for name, x in hyper.items() if isinstance(x, int | float)}
    match rule:
        case "sgd":
            return Closed(N.number(1), [])
        case "momentum":
            return Closed(0, [(N.number(1), h["beta"])])
        case "nesterov":
            return Closed(N.number(1), [(h["beta"], h["beta"])])
        case "qhm":
            return Closed(1 - h["nu"], [(h["nu"] * (1 - h["beta"]), h["beta"])])
        case "aggmo":
            return Closed(0, [(1 / N.number(len(hyper["betas"])), N.number(b)) for b in hyper["betas"]])
        case "lion" if not h["beta2"]:
            return Closed(1 - h["beta1"], [], h["beta1"])
        case "lion":
            old = h["beta1"] * (1 - h["beta2"]) / h["beta2"]
            return Closed(1 - h["beta1"] - old, [(old, h["beta2"])])
        case "adam" | "adamw":
            return Closed(0, [(1 - h["beta1"], h["beta1"])])
        case "nadam":
            mu = h["beta1"] / (1 if h["psi"] else 2)
            return Closed(1 - mu, [((1 - h["beta1"]) * mu, h["beta1"])])
        case "qhadam":
            return Closed(1 - h["nu1"], [(h["nu1"] * (1 - h["beta1"]), h["beta1"])])
    return Closed(0, [(1 - h["beta1"], h["beta1"]), (h["alpha"] * (1 - h["beta3"]), h["beta3"])])


def closed_form(rule: str, hyper: dict[str, Any], ages: Any) -> Any:
    """The same in float64."""
    exact = closed(rule, hyper)
    return np.array([float(exact.weights(int(k)).value) for k in ages])


OTHERS: dict[str, dict[str, Any]] = {
    "momentum": {"beta": 0.99},
    "qhm": {"beta": -0.5, "nu": 1.5},
    "aggmo": {"betas": (0.5, 0.5, 0.999)},
    "qhadam": {"beta1": 0.9999, "nu1": 0.3},
    "lion": {"beta1": 0.5, "beta2": 0.9},
    "nadam": {"beta1": 0.99999},
    "ademamix": {"beta1": 0.0, "beta3": 0.99999, "alpha": 2.0, "alpha_warmup": 256_000, "beta3_warmup": 256_000},
}
CLOSED = (*LINEAR, *ADAPTIVE, "lion")
CASES = [(name, {}) for name in CLOSED] + list(OTHERS.items())
CASES += [(name, given) for name in CLOSED for given in settings(RULES[name], 1, 5, "float64", borders=False)[1:]]
"""Defaults, others of interest, and some that are drawn from the whole ranges."""


def asked(name: str, given: dict[str, Any]) -> tuple[memory.Memory, dict[str, Any]]:
    plain = {"lr": 1.0} | ({"eps": 0.0, "eps_root": 0.0} if "eps" in RULES[name].defaults else {})
    return memory.of(RULES[name], **given | plain), RULES[name].defaults | given | plain


def of_decay(name: str, h: dict[str, Any], k: int) -> float:
    """A decay below 1/2 is read as 1 - (1 - beta), off by one rounding of 1; its k-th power by k / beta of them."""
    pairs = closed(name, h).pairs
    return 8 + k * max((1 / float(abs(b)) for _, b in pairs if 0 < abs(b) < 0.5), default=0)


@pytest.mark.parametrize(("name", "given"), CASES)
def test_weights_are_those_of_the_closed_form(name: str, given: dict[str, Any]) -> None:
    found, h = asked(name, given)
    exact, ages = closed(name, h), [*range(50), 100, 3_000, 7]
    for k, weight in zip(ages, found.weights(np.array(ages)), strict=True):
        exact.weights(k).holds(weight, of_decay(name, h, k))
    assert np.array_equal(found.weights(50), found.weights(np.array(ages))[:50])


@pytest.mark.parametrize(("name", "given"), CASES)
def test_moments_are_those_of_geometric_series(name: str, given: dict[str, Any]) -> None:
    found, h = asked(name, given)
    now, pairs, before = closed(name, h)
    mass = Exact.of([now, before, *(c / (1 - b) for c, b in pairs)])
    mean = Exact.of([before, *(c * b / (1 - b) ** 2 for c, b in pairs)]).over(mass)
    square = Exact.of([before, *(c * b * (1 + b) / (1 - b) ** 3 for c, b in pairs)]).over(mass)
    mass.holds(found.mass())
    mean.holds(found.mean_age())
    variance = Exact(square.value - mean.value**2, square.size + 2 * abs(mean.value) * mean.size)
    if variance.value > 1e-9 * variance.size:
        variance.holds(found.spread() ** 2)
    elif variance.value < -1e-9 * variance.size:
        assert math.isnan(found.spread())
    squared = Exact(mass.value**2, 2 * abs(mass.value) * mass.size)
    mixed = (2 * c * (now + b * before) for c, b in pairs)
    products = (c * d / (1 - b * e) for c, b in pairs for d, e in pairs)
    Exact.of([now**2, before**2, *mixed, *products]).over(squared).holds(found.noise())
    decays = [abs(b) for c, b in pairs if c]
    near(found.half_life(), float(-N.log(N.number(2)) / N.log(max(decays))) if any(decays) else 0.0)


@pytest.mark.parametrize(("name", "given"), CASES)
def test_older_shares_and_gains_are_those_of_geometric_series(name: str, given: dict[str, Any]) -> None:
    found, h = asked(name, given)
    now, pairs, before = closed(name, h)
    mass = Exact.of([now, before, *(c / (1 - b) for c, b in pairs)])

    def older(k: int) -> Exact:
        return Exact.of([before if k == 0 else 0, *(c * b ** (k + 1) / (1 - b) for c, b in pairs)]).over(mass)

    for k, share in zip((0, 1, 5, 400), found.share_older([0, 1, 5, 400]), strict=True):
        older(k).holds(share, of_decay(name, h, k))
    if all(c >= 0 <= b for c, b in pairs) and closed(name, h).weights(0).value >= 0:
        half = found.half_mass_age()
        assert older(half).value <= 0.5 * (1 + 16 * UNIT)
        assert half == 0 or older(half - 1).value > 0.5 * (1 - 16 * UNIT)
    for f in (0.0, 1e-6, 0.01, 0.25, 0.5):
        with mpmath.workdps(50):
            cos, sin = (N.number(one(2 * mpmath.mpf(f))) for one in (mpmath.cospi, mpmath.sinpi))
        norms = [1 - 2 * b * cos + b * b for _, b in pairs]  # of 1 - b / z, whose inverse is (1 - b cos, -b sin) over it
        real = Exact.of([now, before * cos, *(c * (1 - b * cos) / norm for (c, b), norm in zip(pairs, norms, strict=True))])
        imaginary = Exact.of([before * sin, *(c * b * sin / norm for (c, b), norm in zip(pairs, norms, strict=True))])
        Exact(N.sqrt(real.value**2 + imaginary.value**2), real.size + imaginary.size).holds(found.gain([f])[0])


@pytest.mark.parametrize("beta", [0.9999, 1 - 1e-9, 1 - 2.0**-53])
def test_decays_next_to_1_settle_all_the_same(beta: float) -> None:
    """Corrections are over after more steps than any run has, and NAdam's product of decays is 0 after as many."""
    for name in ("adam", "nadam", "qhadam"):
        near(memory.of(RULES[name], beta1=beta, eps=0.0, **({"nu1": 1.0} if name == "qhadam" else {})).mass(), 1.0)
        near(memory.of(RULES[name], beta2=beta, eps=0.0).mass(), 1.0)


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
    near(found.steps(grads), taken, 1e-13)


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
def test_derivatives_are_differences_of_the_golden(name: str, held: bool) -> None:
    """Where nothing is held, and for linear rules either way; in 80 digits, of which differences leave 40."""
    hyper = {"alpha_warmup": 9, "beta3_warmup": 7, "beta3": 0.99} if name == "ademamix" else {}
    weights = memory.of(RULES[name], held=held, **hyper).weights(step=12)
    many, golden = multiprecision(80), GOLDENS[name]
    given = lift(many, golden.defaults | hyper | {"lr": 1.0})

    def last_step(changed: int, change: Any) -> Any:
        params, *slots = start(golden, many, many.number(0), given)
        for t in range(1, 13):
            grad = 1 + (change if t == changed else many.number(0))
            params, *slots = golden.step(many, many.number(0), *slots, grad, t, **given)
        return -params

    h = many.number(10) ** -25
    exact = [(last_step(12 - age, h) - last_step(12 - age, -h)) / (2 * h) for age in range(12)]
    sizes = memory.of(RULES[name], **hyper).weights(step=12)  # of which derivatives are differences, where something is not held
    for weight, one in zip(weights, exact, strict=True):
        assert abs(weight - float(one)) <= 64 * UNIT * math.fsum(np.abs(sizes)), name


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
        # a power beta^t has been rounded t times, so that 1 - beta^t, at least t (1 - beta) beta^t, is off by u / (1 - beta)
        corrected = 20 + 2 / (1 - max(decays, default=0.0))
        # a decay below 1/2 is read as 1 - (1 - beta), off by u; products of k decays are rounded k times more
        for_each_age = 1 + 2 / min((abs(b) for b in decays if 0 < abs(b) < 0.5), default=1.0)
        for step in (1, 2, 12, 40):
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
            rounded = (corrected + for_each_age * np.arange(step)) * np.abs(sizes) + np.abs(sizes).sum()
            assert np.all(np.abs(found.weights(step=step) - sizes) <= UNIT * rounded)


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
    rounded = 2 * UNIT / (1 - beta)  # a step rounds twice, and its roundings are forgotten as gradients are
    assert abs(found.coast - math.fsum((2 - beta**before) * beta**k - 1)) <= (found.turn + 1) * rounded
    assert memory.of(xopt.sgd).reversal(3, 3).turn == 1
    assert memory.of(xopt.sgd).reversal(3, 3).coast == 0.0


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_rule_lags_behind_a_ramp_by_its_mean_age(name: str) -> None:
    found, after = memory.of(RULES[name]), 30_000
    response = found.ramp_response(after)
    lag = response.grads[-1] - response.steps[-1] / found.mass()
    _, pairs, _ = closed(name, RULES[name].defaults)
    unborn = sum(c * b**after * b / (1 - b) ** 2 for c, b in pairs)  # of older gradients, which would have been negative
    slowest = max((float(b) for _, b in pairs), default=0.0)
    assert abs(lag - found.mean_age() + float(unborn) / found.mass()) <= 4 * UNIT * after / (1 - slowest)


def test_a_burst_is_remembered_and_adam_overshoots_after_silence() -> None:
    burst = memory.of(xopt.momentum, beta=0.9).burst(3, 2_000)
    assert burst.turn is None
    near(burst.coast, (1 - 0.9**3) / 0.1 * 9)
    # after n gradients of 0 the first of 1 has the weight 0.1 over the root of 0.001, both corrected for a long run
    rising = memory.of(xopt.adam, eps=0.0).step_response(20_000, before=10_000)
    ages = np.arange(1, 20_001)
    steps = (1 - 0.9**ages) / np.sqrt((1 - 0.999**ages) / (1 - 0.999 ** (10_000 + ages)))
    near(rising.steps[10_000:], steps)
    near(rising.overshoot, steps.max() / steps[-1] - 1)
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


HUGE = 2.0**100
"""An eps beside which nothing else divides, and what lr is multiplied by then."""


class Simulated:
    """The rule's own step on NumPy arrays, on a quadratic: distance and slots as one vector."""

    def __init__(self, name: str, hyper: dict[str, Any], curvature: float) -> None:
        held = name in ADAPTIVE
        self.rule = RULES[name].bind(**hyper | ({"lr": hyper["lr"] * HUGE, "eps": HUGE} if held else {}))
        self.curvature = curvature
        still = {"v": np.zeros(1), "step": 2**40, **dict.fromkeys(RULES[name].carried, 0.0)} if held else {}  # late, v left out
        self.zero = self.rule.init(np.zeros(1))._replace(**still)
        self.fields = [field for field in self.zero._fields if field not in {"step", *still}]
        self.size = len(self.vector(self.zero))

    def vector(self, state: Any) -> Any:
        return np.array([x.item() for field in self.fields for x in _arrays(getattr(state, field))])

    def __call__(self, vector: Any) -> Any:
        left, filled = iter(vector), {}
        for field in self.fields:
            slot = getattr(self.zero, field)
            new = [None if x is None else np.array([next(left)]) for x in (slot if isinstance(slot, tuple) else (slot,))]
            filled[field] = tuple(new) if isinstance(slot, tuple) else new[0]
        state = self.zero._replace(**filled)
        return self.vector(self.rule.step(state, self.curvature * state.params))


def _arrays(field: Any) -> list[Any]:
    return [x for x in (field if isinstance(field, tuple) else (field,)) if x is not None]


@pytest.mark.parametrize("name", [*LINEAR, *ADAPTIVE])
@pytest.mark.parametrize("curvature", [0.03, 0.4, 1.7])
def test_rates_are_those_of_runs(name: str, curvature: float) -> None:
    """A run's part along the slowest direction shrinks by the rate at each step, exactly: w M = z w for its left eigenvector w."""
    hyper = {"lr": 0.3} | ({"beta": 0.9} if name == "qhm" else {"beta3": 0.99, "alpha": 2.0} if name == "ademamix" else {})
    hyper |= {"weight_decay": 0.0} if "weight_decay" in RULES[name].defaults else {}
    divides = {"eps": 0.0} if name in ADAPTIVE else {}
    rate = memory.of(RULES[name], **hyper | divides).rates(curvature, precondition=name in ADAPTIVE)
    run = Simulated(name, hyper, curvature)
    matrix = np.stack([run(one) for one in np.eye(run.size)], axis=1)
    values, left = np.linalg.eig(matrix.T)
    slowest = int(np.argmax(np.abs(values)))
    w, v = left[:, slowest], np.linalg.inv(left.T)[:, slowest]
    norm = np.linalg.norm
    moved = 32 * UNIT * norm(matrix) * norm(w) * norm(v)  # an eigenvalue, by roundings of the matrix: over w v, which is 1
    assert abs(rate - abs(values[slowest])) <= moved
    state, logs, rounded = np.ones(run.size), [], []
    for _ in range(300):
        after = run(state)
        logs.append(math.log(abs(w @ after) / abs(w @ state)))
        rounded.append(moved / rate + 16 * UNIT * norm(matrix) * norm(w) * norm(state) / abs(w @ after))
        state = after / norm(after)
    assert abs(math.fsum(logs) - len(logs) * math.log(rate)) <= math.fsum(rounded)
    assert math.fsum(rounded) < 1e-10 * len(rounded)  # so that something is said


DOUBLE = 4 * math.sqrt(UNIT)
"""By how much a double eigenvalue of about 1 moves: by the root of what its matrix is off by, some units of rounding."""


@pytest.mark.parametrize("kappa", [10.0, 100.0, 1000.0])
def test_rates_of_the_literature(kappa: float) -> None:
    """Polyak 1964; Lessard, Recht and Packard 2016, table 1; Van Scoy, Freeman and Lynch 2018, for curvatures from 1/kappa to 1."""
    root = math.sqrt(kappa)
    h = np.geomspace(1 / kappa, 1.0, 201)

    def rate(rule: Any, **hyper: float) -> float:
        return float(memory.of(rule, **hyper).rates(h).max())

    beta = ((root - 1) / (root + 1)) ** 2
    near(rate(xopt.sgd, lr=2 / (1 + 1 / kappa)), (kappa - 1) / (kappa + 1))
    assert abs(rate(xopt.momentum, lr=4 / (1 + 1 / root) ** 2, beta=beta) - math.sqrt(beta)) <= DOUBLE
    three = math.sqrt(3 * kappa + 1)
    best = rate(xopt.nesterov, lr=4 / (3 + 1 / kappa), beta=(three - 2) / (three + 2))
    assert abs(best - (1 - 2 / three)) <= DOUBLE
    triple = xopt.qhm_from_triple_momentum(1.0, kappa)
    assert abs(rate(xopt.qhm, **triple) - (1 - 1 / root)) <= DOUBLE


def test_limits_of_stability() -> None:
    """AggMo: twice the harmonic mean of 1 + beta; momentum 2 + 2 beta; Adam 2 (1 + beta1) / (1 - beta1), Cohen et al. 2022: 38."""
    limits = {(0.0, 0.9, 0.99): 2.957371920219007, (0.0, 0.9, 0.99, 0.999): 3.163207496977949}
    for betas, printed in limits.items():
        limit = memory.of(xopt.aggmo, betas=betas).stability_limit
        near([limit(), 4 * limit(4.0), 2 * len(betas) / sum(1 / (1 + beta) for beta in betas)], printed)
    near(memory.of(xopt.sgd).stability_limit(), 2.0)
    near(memory.of(xopt.momentum, beta=0.9).stability_limit(), 3.8)
    near(memory.of(xopt.adam, eps=0.0).stability_limit(precondition=True), 38.0)
    lr = memory.of(xopt.aggmo).stability_limit()
    for share, grows in ((0.999, False), (1.001, True)):
        run, state = Simulated("aggmo", {"lr": share * lr}, 1.0), np.ones(3)
        for _ in range(4_000):
            state = run(state)
        assert bool(np.linalg.norm(state) > np.linalg.norm(np.ones(3))) is grows


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
        near(lr, 2 / (1 + 1 / kappa))
        near(rate, (kappa - 1) / (kappa + 1))
    _, rate = memory.of(xopt.momentum, beta=0.9).best_lr(1e-2, 1.0)
    near(rate, math.sqrt(0.9))  # under-damped at all curvatures
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
    assert found.distance < 1e-12
    assert found.hyper == pytest.approx(settings, rel=1e-12)
    near(found.lr, lr)


def test_what_stays_different_is_said() -> None:
    """AdEMAMix's fast average is one gradient for QHM; no setting of a grid around it is nearer."""
    target = memory.of(xopt.ademamix, eps=0.0)
    found = memory.nearest(target, xopt.qhm)
    differences = np.abs(found.memory.share_older(np.arange(200)) - target.share_older(np.arange(200)))
    assert found.distance == differences.max() == differences[found.age]
    near(found.lr, 9.0)
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
    exact = 0.1 * 0.01 * (0.99 ** (k + 1) - 0.9 ** (k + 1)) / (0.99 - 0.9)
    rounded = (20 + 4 * k) * UNIT  # a product of k decays, rounded each time it is multiplied
    assert np.all(np.abs(found.weights(2_000) - exact) <= rounded * exact)
    assert np.all(np.abs(found.weights(step=2_000) - exact) <= rounded * exact)
    near(found.mean_age(), 9 + 99)
    near(found.spread(), math.sqrt(0.9 / 0.01 + 0.99 / 0.0001))
    near(found.worst_step(), 1.0)


def _falling(total: int, i: int, delta: int) -> float:
    """``T! (delta + i)! / (i! (delta + T)!)``, in whole numbers."""
    return math.comb(delta + i, delta) / math.comb(delta + total, delta)


def test_a_rule_that_never_settles_is_asked_for_a_step() -> None:
    """ADana's average, whose weights fall as a power of the age: item 50."""
    found = memory.of(own(nested_update, growing_coefficients))
    total, delta = 60, 8
    k = np.arange(total, 0, -1)
    near(found.weights(step=total), [delta / (delta + i) * _falling(total, i, delta) for i in k])
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
        (lambda: memory.of(xopt.lion).steps("abc"), r"memory\.steps: grads must be numbers, got 'abc'"),
        (lambda: memory.of(xopt.lion).step_response(5, before=-2), "before must be a whole number of steps, 0 or more, got -2"),
        (lambda: memory.of(xopt.lion).burst(5, 3, before=2.5), "before must be a whole number of steps, 0 or more, got 2.5"),
        (lambda: memory.of(xopt.lion).gain(["x"]), r"memory\.gain: frequencies must be finite numbers"),
        (lambda: memory.of(xopt.aggmo, betas=lambda _: (0.0, 0.9)), "betas must be numbers, as they say what a state has"),
        (lambda: memory.of(xopt.qhm, beta=lambda t: t / 4 - 0.5).mass(step=9), r"memory of qhm, step 6: beta must be in \(-1, 1\)"),
        (lambda: memory.of(xopt.qhm).rates([0.5, math.nan]), r"memory\.rates: curvatures must be finite numbers"),
        (lambda: memory.of(xopt.qhm).rates(1.0, "x"), r"memory\.rates: lrs must be finite numbers, got 'x'"),
        (lambda: memory.of(xopt.qhm).stability_limit(0.0), "curvature must be a number above 0, got 0.0"),
        (lambda: memory.of(xopt.qhm).stability_limit(math.inf), "curvature must be finite numbers, got inf"),
        (lambda: memory.of(xopt.sgd).best_lr(1.0, 0.5), "0 < low <= high"),
        (lambda: memory.of(xopt.sgd).best_lr("a", 0.5), "low and high must be finite numbers"),
        (lambda: memory.nearest(xopt.lion, xopt.qhm), r"memory\.nearest: target must be what memory\.of returns"),
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
