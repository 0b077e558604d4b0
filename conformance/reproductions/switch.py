"""AdEMAMix, Figure 5: a run of AdamW that goes on with AdEMAMix, on the small language model."""

from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch

from xopt.conformance.reproductions.language import DECAYED
from xopt.conformance.reproductions.outcome import Finding, Outcome, Panel, banded, number, spread, verdict

STEPS, LOOKS = 1500, 15
SWITCHED = (0.2, 0.4, 0.6, 0.8)
"""When, as shares of the run."""
LR, ALPHA, BETA3 = 5.3e-3, 8.0, 0.999
"""The lr that the experiment ``language`` finds for AdamW, for both: the paper has one lr for both in its model of 110 million."""


def onto(stepper: Any, network: Any, hyper: dict[str, Any]) -> Any:
    """AdEMAMix in the state of AdamW: its average is the fast one, the slow one begins at 0, and the count goes on."""
    from xopt.conformance.reproductions import training

    new = training.optimizer("ademamix", network.parameters(), hyper)
    old = stepper.state_dict()["state"]
    state = {i: {"step": one["step"], "m1": one["m"], "m2": torch.zeros_like(one["m"]), "v": one["v"]} for i, one in old.items()}
    new.load_state_dict(new.state_dict() | {"state": state})
    return new


def losses(seed: int, steps: int) -> dict[str, list[float]]:
    """Held-out losses, by step of looking: of AdamW, of AdEMAMix from the start, and of each switch."""
    from xopt.conformance.reproductions import training

    schedule, decay = training.rates(LR, steps), {"weight_decay": DECAYED["adamw"]}
    mixed = decay | {"alpha": ALPHA, "beta3": BETA3}
    part, every = training.held_out(128), max(1, steps // LOOKS)
    with training.one_thread():
        network = training.model(seed)
        first = training.model(seed)
        warm = mixed | {"alpha_warmup": steps, "beta3_warmup": steps}
        runs = {
            "AdamW": (network, training.optimizer("adamw", network.parameters(), decay)),
            "AdEMAMix from 0": (first, training.optimizer("ademamix", first.parameters(), warm)),
        }
        found: dict[str, list[float]] = {}
        for t, drawn in zip(range(1, steps + 1), training.batches(seed), strict=False):
            if t - 1 in {round(share * steps) for share in SWITCHED}:
                copy = deepcopy(network)
                runs[f"AdEMAMix from {t - 1:,}"] = (copy, onto(runs["AdamW"][1], copy, mixed))
            for name, (one, stepper) in runs.items():
                training.step(one, stepper, drawn, schedule(t))
                if t % every == 0 or t == steps:
                    of = training.held_out() if t == steps else part
                    found.setdefault(name, []).append(training.mean_loss(one, of))
    return found


def run(seeds: int, steps: int = STEPS) -> Outcome:
    found = [losses(seed, steps) for seed in range(1, seeds + 1)]
    ends = {name: [one[name][-1] for one in found] for name in found[0]}
    gain = {name: [base - end for base, end in zip(ends["AdamW"], of, strict=True)] for name, of in ends.items() if name != "AdamW"}
    switched = [name for name in gain if name != "AdEMAMix from 0"]
    mean = {name: sum(of) / len(of) for name, of in gain.items()}
    first = _rise(found, switched)
    findings = [
        Finding(
            "held-out loss of AdamW at the end, and how much lower it is after a switch, by its step",
            "Fig. 5b, section 4.1",
            "the switch improves upon AdamW",
            f"{spread(ends['AdamW'])}; " + "; ".join(f"{name.split()[-1]}: {spread(gain[name], 2)}" for name in switched),
            verdict(all(mean[name] > 0 for name in switched), any(mean[name] > 0 for name in switched)),
        ),
        Finding(
            "the same, by how early",
            "Fig. 5b, section 4.1",
            "the earlier the switch, the larger the gain",
            ", ".join(f"{name.split()[-1]}: {number(mean[name], 2)}" for name in switched),
            verdict(
                all(mean[a] > mean[b] for a, b in pairwise(switched)),
                mean[switched[0]] > mean[switched[-1]],
            ),
        ),
        Finding(
            "AdEMAMix from the start, with its warm-ups: how much lower",
            "Fig. 5b",
            "best of all",
            spread(gain["AdEMAMix from 0"], 2),
            verdict(mean["AdEMAMix from 0"] == max(mean.values()), mean["AdEMAMix from 0"] > 0),
        ),
        Finding(
            "at the first look after a switch: how much higher the loss is than AdamW's",
            "Fig. 5b",
            "increases slightly at first",
            ", ".join(f"{name.split()[-1]}: {number(value, 2)}" for name, value in first.items()),
            verdict(all(value > 0 for value in first.values()), any(value > 0 for value in first.values())),
        ),
    ]
    at = [*range(max(1, steps // LOOKS), steps + 1, max(1, steps // LOOKS))]
    curves = []
    for name in found[0]:
        behind = len(found[0]["AdamW"]) - len(found[0][name])
        curves.append(banded(name, at[behind:], [one[name] for one in found]))
    panels = [Panel("a run of AdamW that goes on with AdEMAMix", "step", "held-out loss, nats a character", curves)]
    settings = (
        f"The language model of 214 thousand numbers, {steps:,} steps of 8 windows of 64 characters, where the paper has 110 "
        f"million and about 500 thousand steps; so beta3 = {BETA3}, alpha = {ALPHA:g}; lr {LR:g} for both, weight decay 0.1; "
        f"after a switch m2 begins at 0 and there are no warm-ups, as in the paper. Seeds 1 to {seeds}."
    )
    return Outcome("switch", findings, panels, settings)


def _rise(found: list[dict[str, list[float]]], switched: list[str]) -> dict[str, float]:
    """Mean over seeds, right after the switch."""
    behind = {name: len(found[0]["AdamW"]) - len(found[0][name]) for name in switched}
    return {name: sum(one[name][0] - one["AdamW"][behind[name]] for one in found) / len(found) for name in switched}
