"""All rules on a small language model: lr found with the same budget for each, then fresh seeds."""

from collections.abc import Sequence
from typing import Any

from xopt.conformance.reproductions.outcome import NONE, Curve, Finding, Json, Outcome, Panel, banded, number, spread, verdict
from xopt.conformance.reproductions.search import TRIALS, as_data, search
from xopt.conformance.reproductions.settings import Setting
from xopt.rules import RULES

STEPS = 1500
CENTRES = {"sgd": 1.0, "momentum": 0.1, "nesterov": 0.1, "qhm": 1.0, "aggmo": 0.03, "lion": 3e-4}
"""Where the search for lr begins; 3e-3 for the rules that divide by the size of the gradients."""
DECAYED = {"adamw": 0.1, "ademamix": 0.1}
"""Weight decay of the two rules whose papers are about it; the others have none."""


def hyper_of(setting: Setting, steps: int) -> dict[str, Any]:
    """xopt's defaults, but AdEMAMix's slow average as its paper has it for short runs, warmed up over the whole run."""
    more: dict[str, Any] = {}
    if setting.rule in DECAYED:
        more["weight_decay"] = DECAYED[setting.rule]
    if setting.rule == "ademamix":
        more |= {"alpha": 8.0, "beta3": 0.999, "alpha_warmup": steps, "beta3_warmup": steps}
    return setting.made(**more)


def measure(setting: Setting, seeds: int, steps: int = STEPS, trials: int = TRIALS, looks: int = 10) -> Json:
    """One setting: the search for lr on seed 0, then a run of each of the seeds 1, 2, ..."""
    from xopt.conformance.reproductions.training import train

    hyper = hyper_of(setting, steps)

    def score(lr: float) -> float | None:
        return train(setting.rule, hyper, lr, 0, steps, looks).last

    found = search(score, CENTRES.get(setting.rule, 3e-3), trials)
    runs = [train(setting.rule, hyper, found.best, seed, steps, looks) for seed in range(1, seeds + 1)]
    return {
        "setting": setting.name,
        "hyper": hyper,
        "steps": steps,
        "search": as_data(found),
        "runs": [_run(run) for run in runs],
    }


def _run(run: Any) -> Json:
    losses = [round(loss, 5) for loss in run.losses]
    return {"seed": run.seed, "at": run.steps, "losses": losses, "diverged": run.diverged}


def run(seeds: int, steps: int = STEPS, rules: Sequence[str] = (), joined: Sequence[Outcome] = ()) -> Outcome:
    """Measures settings, and joins them with those that were measured before.

    Raises
    ------
    ValueError
        For what is no setting, and for outcomes of other seeds or steps than these.
    """
    settings = [Setting.of(text) for text in rules]
    found = {one["setting"]: one for outcome in joined for one in outcome.data.get("settings", ())}
    for one in found.values():
        if one["steps"] != steps or len(one["runs"]) != seeds:
            msg = (
                f"{one['setting']} was measured with {len(one['runs'])} seeds and {one['steps']} steps, and this is a table of "
                f"{seeds} and {steps}: measure it again, or say --seeds {len(one['runs'])} --steps {one['steps']}"
            )
            raise ValueError(msg)
    found |= {setting.name: measure(setting, seeds, steps) for setting in settings}
    return _outcome(found, seeds, steps)


def last(one: Json) -> list[float | None]:
    """The held-out losses at the end, by seed; None where it diverged."""
    return [None if run["diverged"] else run["losses"][-1] for run in one["runs"]]


def _mean(one: Json) -> float:
    values = [value for value in last(one) if value is not None]
    return sum(values) / len(values) if len(values) == len(one["runs"]) else float("inf")


def _outcome(found: dict[str, Json], seeds: int, steps: int) -> Outcome:
    ranked = sorted(found.values(), key=_mean)
    findings = [*_claims(found), *map(_line, ranked)]
    own = [one for one in ranked if one["setting"] in RULES]
    others = [one for one in ranked if one["setting"] not in RULES or one["setting"] in ("adamw", "ademamix")]
    panels = []
    for title, some in (("all rules, lr at its best for each", own), ("longer and shorter memories", others)):
        if len(some) > (title != "all rules, lr at its best for each") * 2:
            panels.append(Panel(title, "step", "held-out loss, nats a character", [_curve(one) for one in some]))
    if own:
        panels.append(Panel("the trials of lr", "lr", "held-out loss at the end", [_trials(one) for one in own], log_x=True))
    settings = SETTINGS.format(steps=steps, trials=TRIALS, seeds=seeds)
    return Outcome("language", findings, panels, settings, data={"settings": list(found.values())})


SETTINGS = (
    "A transformer of 214 thousand numbers (4 layers, width 64, context 64) on the docstrings of mpmath 1.3.0, 324 thousand "
    "characters, a tenth of them held out; {steps:,} steps of 8 windows, float32, PyTorch with xopt's fused steps, gradients "
    "cut to norm 1. lr rises for 100 steps, then falls to a tenth along a cosine. The same budget for every rule: {trials} "
    "trials of the peak lr on seed 0, then seeds 1 to {seeds} with the best. All else is xopt's defaults, but weight decay 0.1 "
    "for AdamW and AdEMAMix, and for AdEMAMix alpha = 8 and beta3 = 0.999, warmed up over the run."
)


def _line(one: Json) -> Finding:
    searched = one["search"]
    open_end = f"the {searched['open']} lr tried, a better one may lie beyond" if searched["open"] else ""
    tried = f"{number(searched['best'], 2)} of {number(searched['tried'][0][0], 2)} to {number(searched['tried'][-1][0], 2)}"
    return Finding(f"{one['setting']}: held-out loss", "-", "-", f"{spread(last(one), 4)} (lr {tried})", NONE, open_end)


def _claims(found: dict[str, Json]) -> list[Finding]:
    claims = []
    if {"adamw", "ademamix"} <= set(found):
        better = _mean(found["ademamix"]) < _mean(found["adamw"])
        claims.append(
            Finding(
                "AdEMAMix beside AdamW: held-out loss",
                "section 4.1",
                "AdEMAMix always outperforms AdamW, after 256 thousand steps and more",
                f"AdEMAMix {spread(last(found['ademamix']), 4)}; AdamW {spread(last(found['adamw']), 4)}",
                verdict(better),
                "" if better else "a run of this length is short for a long memory: the paper's is at least 170 times as long",
            )
        )
    longer = [name for name in found if name.startswith("adamw:beta1=") and float(name.partition("=")[2]) > 0.9]
    if longer and "adamw" in found:
        claims.append(
            Finding(
                "AdamW with a larger beta1: held-out loss",
                "section 4.1, App. C.1.6",
                "no beta1 above 0.9 improves upon 0.9",
                "; ".join(f"{name.partition('=')[2] or '0.9'}: {spread(last(found[name]), 4)}" for name in ("adamw", *longer)),
                verdict(all(_mean(found[name]) >= _mean(found["adamw"]) for name in longer)),
            )
        )
    betas = {name: float(name.partition("=")[2]) for name in found if name.startswith("ademamix:beta3=")}
    if betas and "ademamix" in found:
        betas["ademamix"] = 0.999
        order = sorted(betas, key=betas.__getitem__)
        means = [_mean(found[name]) for name in order]
        claims.append(
            Finding(
                "AdEMAMix by beta3: held-out loss",
                "App. C.1.5",
                "a smaller beta3 is better for short runs",
                "; ".join(f"{betas[name]:g}: {spread(last(found[name]), 4)}" for name in order),
                verdict(means == sorted(means), means[0] < means[-1]),
            )
        )
    return claims


def _curve(one: Json) -> Curve:
    at = max((run["at"] for run in one["runs"]), key=len)
    return banded(one["setting"], at, [run["losses"] for run in one["runs"]])


def _trials(one: Json) -> Curve:
    tried = one["search"]["tried"]
    return Curve(one["setting"], [lr for lr, _ in tried], [loss if loss is None else float(f"{loss:.5g}") for _, loss in tried])
