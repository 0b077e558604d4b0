"""AdEMAMix, Figure 5: a run of AdamW that goes on with AdEMAMix, on the small language model."""

from copy import deepcopy
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from xopt.conformance.reproductions.language import DECAYED
from xopt.conformance.reproductions.outcome import NONE, Curve, Finding, Outcome, Panel, banded, number, spread, verdict
from xopt.conformance.workers import cores, workers

STEPS, LOOKS = 1500, 15
SWITCHED = (0.2, 0.4, 0.6, 0.8)
"""When, as shares of the run."""
CONTROLLED = 0.4
"""The switch that has controls."""
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


class Losses(NamedTuple):
    """Of one seed, by step of looking."""

    of: dict[str, list[float]]  # held-out losses of AdamW, of AdEMAMix from the start, of each switch, and of the controls
    lengths: list[float]  # of the steps after the switch that is controlled: AdEMAMix's mean length over AdamW's


def stepped(network: Any, stepper: Any, batch: Any, lr: float, length: float | None = None) -> float:
    """A step that is stretched to a length, the norm of all that changes, where one is given. Returns the length it had before."""
    from xopt.conformance.reproductions import training

    before = [p.detach().clone() for p in network.parameters()]
    training.step(network, stepper, batch, lr)
    with torch.no_grad():
        moves = [p - old for p, old in zip(network.parameters(), before, strict=True)]
        own = float(torch.sqrt(sum((torch.sum(move * move) for move in moves), start=torch.zeros(()))))
        if length is not None:
            for p, old, move in zip(network.parameters(), before, moves, strict=True):
                p.copy_(old + move * (length / own))
    return own


def controls(steps: int) -> dict[str, str]:
    """Which run takes steps in the directions of its rule, as long as those of which other run."""
    switched = f"AdEMAMix from {round(CONTROLLED * steps):,}"
    return {"AdamW, AdEMAMix's lengths": switched, "AdEMAMix, AdamW's lengths": "AdamW"}


def losses(seed: int, steps: int) -> Losses:
    """Runs all of a seed side by side, on the same batches."""
    from xopt.conformance.reproductions import training

    schedule, decay = training.rates(LR, steps), {"weight_decay": DECAYED["adamw"]}
    mixed = decay | {"alpha": ALPHA, "beta3": BETA3}
    part, every = training.held_out(128), max(1, steps // LOOKS)
    switched, as_long_as = f"AdEMAMix from {round(CONTROLLED * steps):,}", controls(steps)
    with training.one_thread():
        network = training.model(seed)
        first = training.model(seed)
        warm = mixed | {"alpha_warmup": steps, "beta3_warmup": steps}
        runs = {
            "AdamW": (network, training.optimizer("adamw", network.parameters(), decay)),
            "AdEMAMix from 0": (first, training.optimizer("ademamix", first.parameters(), warm)),
        }
        found: dict[str, list[float]] = {}
        ratios: list[float] = []
        by_look: list[float] = []
        for t, drawn in zip(range(1, steps + 1), training.batches(seed), strict=False):
            if t - 1 in {round(share * steps) for share in SWITCHED}:
                copy = deepcopy(network)
                runs[name := f"AdEMAMix from {t - 1:,}"] = (copy, onto(runs["AdamW"][1], copy, mixed))
                if name == switched:
                    long, short = as_long_as
                    runs[long] = training.copied("adamw", decay, *runs["AdamW"])
                    again = deepcopy(network)
                    runs[short] = (again, onto(runs["AdamW"][1], again, mixed))
            lengths: dict[str, float] = {}
            for name, (one, stepper) in runs.items():  # a control after the run that it goes by
                lengths[name] = stepped(one, stepper, drawn, schedule(t), lengths.get(as_long_as.get(name, "")))
            if switched in lengths:
                ratios.append(lengths[switched] / lengths["AdamW"])
            if t % every == 0 or t == steps:
                of = training.held_out() if t == steps else part
                for name, (one, _) in runs.items():
                    found.setdefault(name, []).append(training.mean_loss(one, of))
                if ratios:
                    by_look.append(sum(ratios) / len(ratios))
                    ratios.clear()
    return Losses(found, by_look)


def run(seeds: int, steps: int = STEPS) -> Outcome:
    with workers(min(cores(), seeds), ()) as submit:  # a process for each seed, which has one thread
        seen = [task.result() for task in [submit(losses, seed, steps) for seed in range(1, seeds + 1)]]
    found = [one.of for one in seen]
    ends = {name: [one[name][-1] for one in found] for name in found[0]}
    gain = {name: [base - end for base, end in zip(ends["AdamW"], of, strict=True)] for name, of in ends.items() if name != "AdamW"}
    switched = [name for name in gain if name not in ("AdEMAMix from 0", *controls(steps))]
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
        *_controlled(gain, [one.lengths for one in seen], steps),
    ]
    at = [*range(max(1, steps // LOOKS), steps + 1, max(1, steps // LOOKS))]
    curves = []
    for name in found[0]:
        behind = len(found[0]["AdamW"]) - len(found[0][name])
        curves.append(banded(name, at[behind:], [one[name] for one in found]))
    since, y = round(CONTROLLED * steps), "held-out loss, nats a character"
    compared = [curve for curve in curves if curve.name in ("AdamW", f"AdEMAMix from {since:,}", *controls(steps))]
    behind = len(at) - len(found[0][f"AdEMAMix from {since:,}"])
    panels = [
        Panel("a run of AdamW that goes on with AdEMAMix", "step", y, [one for one in curves if one.name not in controls(steps)]),
        Panel(f"directions and lengths of steps, from {since:,} on", "step", y, [_from(curve, since) for curve in compared]),
        Panel(
            "length of AdEMAMix's steps over AdamW's",
            "step",
            "ratio",
            [banded("AdEMAMix / AdamW", at[behind:], [one.lengths for one in seen])],
        ),
    ]
    settings = (
        f"The language model of 214 thousand numbers, {steps:,} steps of 8 windows of 64 characters, where the paper has 110 "
        f"million and about 500 thousand steps; so beta3 = {BETA3}, alpha = {ALPHA:g}; lr {LR:g} for both, weight decay 0.1; "
        f"after a switch m2 begins at 0 and there are no warm-ups, as in the paper. A control takes steps in the directions of its "
        f"own rule, each stretched to the length, over all parameters, of the other rule's step. Seeds 1 to {seeds}."
    )
    return Outcome("switch", findings, panels, settings)


def _rise(found: list[dict[str, list[float]]], switched: list[str]) -> dict[str, float]:
    """Mean over seeds, right after the switch."""
    behind = {name: len(found[0]["AdamW"]) - len(found[0][name]) for name in switched}
    return {name: sum(one[name][0] - one["AdamW"][behind[name]] for one in found) / len(found) for name in switched}


def _controlled(gain: dict[str, list[float]], lengths: list[list[float]], steps: int) -> list[Finding]:
    """What is due to the directions of the steps, and what to their lengths."""
    since, (long, short) = round(CONTROLLED * steps), controls(steps)
    both = f"AdEMAMix from {since:,}"
    mean = [sum(of) / len(of) for of in zip(*lengths, strict=True)]
    return [
        Finding(
            f"how much lower the loss ends from {since:,} on, by AdEMAMix's directions and lengths of steps, both and each alone",
            "not in the paper",
            "-",
            f"both: {spread(gain[both], 2)}; its directions, AdamW's lengths: {spread(gain[short], 2)}; "
            f"AdamW's directions, its lengths: {spread(gain[long], 2)}",
            NONE,
        ),
        Finding(
            f"length of AdEMAMix's steps over AdamW's after the switch at {since:,}",
            "not in the paper",
            "-",
            f"{number(mean[0], 3)} up to the first look, then up to {number(max(mean), 3)}, at the end {number(mean[-1], 3)}",
            NONE,
        ),
    ]


def _from(curve: Curve, since: int) -> Curve:
    """Where all are that are compared."""
    first = next(i for i, at in enumerate(curve.x) if at > since)
    return Curve(curve.name, curve.x[first:], curve.y[first:], curve.low[first:], curve.high[first:])
