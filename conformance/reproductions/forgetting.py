"""AdEMAMix, Figure 4: how fast a batch that was trained on once is forgotten, on the small language model."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import mean

from xopt.conformance.reproductions.language import hyper_of
from xopt.conformance.reproductions.outcome import Finding, Outcome, Panel, banded, spread, verdict
from xopt.conformance.reproductions.settings import Setting

STEPS, EVERY, AFTER = 1500, 10, 100
"""Of a run, between two looks at the loss on the batch, and after its use at which what is left of the gain is asked for."""
INJECTED = (0.35, 0.65, 0.9)
"""When, as shares of the run: the paper's 90, 170 and 230 thousand of 256 thousand steps."""
RATES = {"adamw": 5.3e-3, "ademamix": 3e-3}
"""lr, those that the search of the experiment ``language`` ends at."""


def gains(rule: str, seed: int, steps: int) -> list[list[tuple[int, float]]]:
    """For each time of use: by how much the loss on the batch is below that of the run without it, by steps since its use."""
    from xopt.conformance.reproductions import training

    hyper, schedule = hyper_of(Setting(rule), steps), training.rates(RATES[rule], steps)
    batch = training.held_out(training.BATCH)  # which no other batch of the run has a part of
    uses = {max(1, round(share * steps)): [] for share in INJECTED}  # type: dict[int, list[tuple[int, float]]]
    with training.one_thread():
        network = training.model(seed)
        runs = {0: (network, training.optimizer(rule, network.parameters(), hyper))}
        for t, drawn in zip(range(1, steps + 1), training.batches(seed), strict=False):
            if t in uses:  # from here on there is a run that had the batch
                runs[t] = training.copied(rule, hyper, *runs[0])
            for use, (one, stepper) in runs.items():
                training.step(one, stepper, batch if use == t else drawn, schedule(t))
            started = [use for use in uses if use <= t]
            if started and (t % EVERY == 0 or t in uses or t == steps):
                without = training.mean_loss(runs[0][0], batch)
                for use in started:
                    uses[use].append((t - use, without - training.mean_loss(runs[use][0], batch)))
    return list(uses.values())


def left(gain: Sequence[tuple[int, float]], after: int) -> float:
    """What is left of the largest gain so many steps after the use, or at the end of the run where that is sooner."""
    largest = max(value for _, value in gain)
    return [value for since, value in gain if since <= after][-1] / largest


def run(seeds: int, steps: int = STEPS) -> Outcome:
    found = {rule: [gains(rule, seed, steps) for seed in range(1, seeds + 1)] for rule in RATES}
    peak = {rule: [[max(value for _, value in gain) for gain in of] for of in found[rule]] for rule in RATES}
    kept = {rule: [[left(gain, AFTER) for gain in of] for of in found[rule]] for rule in RATES}
    ends = {rule: [[gain[-1][1] for gain in of] for of in found[rule]] for rule in RATES}

    def both(values: dict[str, list[list[float]]], k: int) -> str:
        return ", ".join(f"{name} {spread([of[k] for of in values[rule]])}" for rule, name in NAMES.items())

    def more(values: dict[str, list[list[float]]], k: int) -> bool:
        return mean([of[k] for of in values["ademamix"]]) > mean([of[k] for of in values["adamw"]])

    shares = [[e[k] / p[k] for e, p in zip(ends["ademamix"], peak["ademamix"], strict=True)] for k in range(len(INJECTED))]
    at = [round(share * steps) for share in INJECTED]
    each = range(len(at))

    def compared(what: str, place: str, published: str, values: dict[str, list[list[float]]], holds: list[bool]) -> Finding:
        claim = verdict(all(holds), any(holds))
        return Finding(what, place, published, "; ".join(f"used at {at[k]:,}: {both(values, k)}" for k in each), claim)

    findings = [
        compared(
            "largest fall of the loss on the batch, by the step at which it is used",
            "Fig. 4",
            "sharper with AdamW",
            peak,
            [not more(peak, k) for k in each],
        ),
        compared(
            f"share of it that is left {AFTER} steps later, or at the end",
            "Fig. 4, section 4.1",
            "AdamW forgets faster",
            kept,
            [more(kept, k) for k in each],
        ),
        compared("what is left of it at the end of the run", "Fig. 4", "more with AdEMAMix", ends, [more(ends, k) for k in each]),
        Finding(
            "AdEMAMix: share left at the end, by the time of use",
            "Fig. 4",
            "later batches are remembered better",
            "; ".join(f"{at[k]:,}: {spread(shares[k])}" for k in each),
            verdict(all(mean(one) < mean(two) for one, two in pairwise(shares))),
        ),
    ]
    panels = []
    for k, t in enumerate(at):
        since = [s for s, _ in found["adamw"][0][k]]
        curves = [banded(name, since, [[value for _, value in of[k]] for of in found[rule]]) for rule, name in NAMES.items()]
        title = f"batch used at step {t:,} of {steps:,}"
        panels.append(Panel(title, "steps since its use", "loss without it - loss with it", curves))
    return Outcome("forgetting", findings, panels, SETTINGS.format(steps=steps, seeds=seeds, rates=RATES))


NAMES = {"adamw": "AdamW", "ademamix": "AdEMAMix"}
SETTINGS = (
    "The language model of 214 thousand numbers, {steps:,} steps of 8 windows of 64 characters, where the paper has 110 million "
    "and 256 thousand steps; so beta3 = 0.999 instead of 0.9999, alpha = 8, both warmed up over the run; lr {rates[adamw]:g} "
    "for AdamW and {rates[ademamix]:g} for AdEMAMix, those that the experiment language finds; weight decay 0.1. The batch is 8 "
    "windows of held-out text in the place of one batch of the run. Seeds 1 to {seeds}: means, and in the figures bands from "
    "the smallest to the largest."
)
