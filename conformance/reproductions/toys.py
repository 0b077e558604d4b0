"""AdEMAMix's toy problems: how old gradients are (Figures 3a and 31), its warm-up, and optax's notebook on Rosenbrock."""

from typing import Any

import numpy as np

from xopt import memory
from xopt.conformance.reproductions.outcome import NONE, Curve, Finding, Outcome, Panel, number, verdict
from xopt.conformance.reproductions.rosenbrock import START, gradient, value
from xopt.rules import RULES

BETAS = (0.9, 0.99, 0.999, 0.9999)
MIXED, ALPHA = (0.9, 0.9999), 8.0
WARMUP = 10_000
LR, WHOLE, LOOKED = 0.003, 100_000, 25_000
"""Of the notebook: lr, the steps over which alpha and beta3 rise, and the step at which it prints the function. Counted from 0."""
PRINTED_ADAM = {0.9: 8.6184, 0.99: 8.3700, 0.999: 8.7576, 0.9999: 7.6316}
PRINTED_MIX = {0.999: 1.1e-7, 0.9999: 6.0e-8}
PRINTED_FIRST = 1599.2258
SMALLEST = 1e-7
"""Weight that is drawn."""
CLOSE = 1e-2
"""How far float64 may part from the notebook's float32, whose beta2^t has an error of 2e-4 of 1 - beta2^t."""


def half(beta: float) -> float:
    """How many gradients before the last have half of the weight of AdEMAMix's slow average, between two of its steps.

    After n steps on a gradient of 1 the average is the weight of the ages below n, which is 1 - beta^n.
    """
    bound: Any = RULES["ademamix"].bind(beta3=beta)
    state, weights = bound.init(np.zeros(1)), [0.0]
    while weights[-1] < 0.5:
        state = bound.step(state, np.ones(1))
        weights.append(float(state.m2[0]))
    left, right = np.log1p(-np.asarray(weights[-2:]))
    return float(len(weights) - 3 + (np.log(0.5) - left) / (right - left))


def decays(steps: int, every: int) -> list[tuple[int, float]]:
    """beta3 during a warm-up over all those steps, from what a gradient adds to an average of 0."""
    found = []
    for t in range(every, steps + 1, every):
        bound: Any = RULES["ademamix"].bind(beta3_warmup=steps)
        state = bound.step(bound.init(np.zeros(1))._replace(step=t - 1), np.ones(1))
        found.append((t, 1.0 - float(state.m2[0])))
    return found


def nested(betas: tuple[float, float], ages: int) -> list[float]:
    """The weight of a gradient by its age in an average of an average: what one of 1 among zeros leaves there."""
    fast, slow = (RULES["qhm"].bind(nu=1.0, beta=beta) for beta in betas)
    inner, outer, found = fast.init(np.zeros(1)), slow.init(np.zeros(1)), []
    for age in range(ages):
        inner = fast.step(inner, np.full(1, float(age == 0)))
        outer = slow.step(outer, inner.m)
        found.append(float(outer.m[0]))
    return found


def summed(betas: tuple[float, float], alpha: float, ages: int) -> list[float]:
    """The same in AdEMAMix's sum of two averages, after all corrections."""
    return list(memory.of(RULES["ademamix"], beta1=betas[0], beta3=betas[1], alpha=alpha, eps=0.0).weights(ages))


def notebook(steps: int) -> dict[str, list[float]]:
    """The function after each step of the notebook's six runs."""
    found: dict[str, list[float]] = {}
    for beta1 in PRINTED_ADAM:
        found[f"Adam, beta1 = {beta1:g}"] = _run("adam", steps, lambda _, beta1=beta1: {"beta1": beta1, "beta2": 0.9999})
    for beta3 in PRINTED_MIX:

        def hyper(i: int, beta3: float = beta3) -> dict[str, float]:
            slow = beta3 ** (WHOLE / i) if i else 0.0  # its half-life rises from 0
            return {"beta1": 0.99, "beta2": 0.999, "beta3": slow, "alpha": 0.8 * i / WHOLE}

        found[f"AdEMAMix, beta3 = {beta3:g}"] = _run("ademamix", steps, hyper)
    return found


def _run(rule: str, steps: int, hyper: Any) -> list[float]:
    step, state, values = RULES[rule].step, RULES[rule].init(np.asarray(START)), []
    for i in range(steps):
        state = step(state, gradient(state.params), lr=LR, **hyper(i))
        values.append(float(value(state.params)))
    return values


def first_in_float32() -> float:
    """The first value as optax has it: its 1 - beta2 is formed in float32."""
    scale = float(np.sqrt(np.float64(1 - np.float32(0.9999)) / np.float64(1 - 0.9999)))
    g = gradient(np.asarray(START))
    return float(value(np.asarray(START) - LR * scale * np.sign(g)))


def run(seeds: int, steps: int = LOOKED) -> Outcome:
    """Nothing is drawn, and so nothing depends on the seeds."""
    halves = {beta: half(beta) for beta in BETAS}
    more = half(0.9991) - halves[0.999]
    values = notebook(steps + 1)
    at = {name: one[steps] for name, one in values.items()}
    whole = steps == LOOKED
    findings = [
        Finding(
            "gradients with half of the weight, beta = 0.9 and 0.9999",
            "section 3, Fig. 3a",
            "about 6, and about 6,930",
            f"{halves[0.9]:.2f} and {halves[0.9999]:,.1f}",
            verdict(abs(halves[0.9] - 6) < 0.5 and abs(halves[0.9999] - 6930) < 0.5),
        ),
        Finding("what 0.0001 more adds to them at 0.999", "section 3", "77", f"{more:.1f}", verdict(abs(more - 77) < 0.5)),
    ]
    old = 1_000
    within, beside = ([float(f"{w:.5g}") for w in of] for of in (nested(MIXED, old + 1), summed(MIXED, ALPHA, old + 1)))
    findings.append(
        Finding(
            f"weight of the newest gradient over that of one {old:,} steps older, by averages of 0.9 and 0.9999",
            "Fig. 31",
            "curves: one average of the other, beside AdEMAMix's sum; no numbers",
            f"nested {number(within[0] / within[-1], 2)}, largest at age {int(np.argmax(within))}; "
            f"AdEMAMix's sum, alpha = {ALPHA:g}: {number(beside[0] / beside[-1])}, falling throughout",
            verdict(within[0] < within[-1] and beside[0] > 100 * beside[-1] > 0),
            "an average of an average has little of the newest gradients; a sum has these and the old ones",
        )
    )
    for beta, printed in PRINTED_ADAM.items():
        found = at[f"Adam, beta1 = {beta:g}"]
        findings.append(_value(f"Adam, lr 0.003, beta1 = {beta:g}, beta2 = 0.9999: f at step 25,000", printed, found, whole))
    for beta, printed in PRINTED_MIX.items():
        found = at[f"AdEMAMix, beta3 = {beta:g}"]
        claim = verdict(found < 1e-6, found < 1.0) if whole else NONE
        note = "in float32 it stops where its numbers do" if found < 1e-12 else ""
        said = f"AdEMAMix, beta3 to {beta:g}, alpha to 0.8: f at step 25,000"
        findings.append(Finding(said, NOTEBOOK, f"{printed:.1e}", number(found, 2), claim, note))
    first = values["Adam, beta1 = 0.9"][0]
    findings.append(
        Finding(
            "Adam: f after the first step",
            NOTEBOOK,
            f"{PRINTED_FIRST}",
            f"{first:.4f}; with optax's 1 - beta2 in float32 {first_in_float32():.4f}",
            verdict(abs(first - PRINTED_FIRST) < 5e-5, abs(first_in_float32() - PRINTED_FIRST) < 5e-4),
            "apart in the 7th digit, as 1 - float32(0.9999) is 1.00017e-4",
        )
    )
    every = max(1, steps // 250)
    curves = [Curve(name, list(range(0, steps + 1, every)), _short(one[::every])) for name, one in values.items()]
    age = np.unique(np.logspace(0, np.log10(20_000), 120).astype(int))
    weights = [Curve(f"beta = {beta:g}", age.tolist(), _seen(_short((1 - beta) * beta**age))) for beta in BETAS]
    warm = decays(WARMUP, WARMUP // 100)
    rise = [Curve("beta3(t)", [t for t, _ in warm], [float(f"{-1 / np.log(beta):.5g}") for _, beta in warm])]
    panels = [
        Panel("weight of a gradient by its age", "age", "weight", weights, log_x=True, log_y=True),
        Panel("one average of another, and a sum of both", "age", "share of the weight", _mixtures(age), log_x=True, log_y=True),
        Panel("memory during the warm-up of beta3", "step", "-1 / ln beta3", rise),
        Panel("optax's notebook on Rosenbrock", "step", "f", curves, log_y=True),
    ]
    settings = (
        f"float64, nothing drawn. The notebook (optax, rosenbrock_ademamix.ipynb, outputs as stored) runs in float32 from (-3, 5); "
        f"here {steps:,} steps of its 100,000, with its schedules."
    )
    return Outcome("ademamix-toys", findings, panels, settings)


NOTEBOOK = "optax's notebook"


def _mixtures(age: Any) -> list[Curve]:
    """Over all ages, for which the nested ones have their closed form."""
    fast, slow = MIXED
    both = (1 - fast) * (1 - slow) * (slow ** (age + 1) - fast ** (age + 1)) / (slow - fast)
    found = memory.of(RULES["ademamix"], beta1=fast, beta3=slow, alpha=ALPHA, eps=0.0)
    sums = found.weights(age) / found.mass()
    return [Curve("average of an average", age.tolist(), _short(both)), Curve("AdEMAMix", age.tolist(), _short(sums))]


def _seen(weights: list[float | None]) -> list[float | None]:
    """Those that are left where a logarithmic axis has room for the others."""
    return [w if w and w > SMALLEST else None for w in weights]


def _value(what: str, printed: float, found: float, whole: bool) -> Finding:
    apart = abs(found / printed - 1)
    return Finding(
        what,
        NOTEBOOK,
        f"{printed:.4f}",
        f"{found:.4f}",
        verdict(apart < CLOSE / 10, apart < CLOSE) if whole else NONE,
        f"{number(100 * apart, 2)} % apart: float64 here, float32 there",
    )


def _short(values: Any) -> list[float | None]:
    return [float(f"{value:.3g}") for value in np.asarray(values)]
