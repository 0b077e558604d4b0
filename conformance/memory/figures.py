"""The figures of rules side by side: numbers and curves of what each remembers."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from xopt import memory
from xopt.conformance.memory.plots import Curve, Panel
from xopt.memory import Memory

Json = dict[str, Any]

COLOURS = {"ademamix": 0, "lion": 1, "qhm": 2, "qhadam": 3, "adamw": 4, "adam": 4, "aggmo": 6, "nesterov": 5, "momentum": 5}
"""Numbers of the colours of the rules, the same in every figure."""


class Row(NamedTuple):
    """One number of each rule."""

    key: str
    says: str
    of: Callable[[Memory, "Length"], Any]


class Length(NamedTuple):
    """How long the runs are."""

    steps: int  # under a constant gradient
    before: int  # a reversal
    after: int  # a reversal

    @classmethod
    def of(cls, memories: Sequence[Memory], steps: int, before: int) -> "Length":
        """As long after a reversal as it takes the longest memory to turn, which is its half-life."""
        lives = [one.half_life() if settles(one) else before for one in memories]
        return cls(steps, before, min(math.ceil(1.5 * max(lives)) + 32, 10 * before))


def settles(one: Memory) -> bool:
    """Whether anything can be said of it long after the start."""
    try:
        one.mass()
    except ValueError:
        return False
    return True


def _when(one: Memory, length: Length) -> int | None:
    return None if settles(one) else length.steps


def _limit(one: Memory) -> float:
    """Without weight decay, as all the other numbers are."""
    divides = any(operation.name == "divide" for operation in one.rest.program.operations)
    still = {"weight_decay": 0.0} if "weight_decay" in one.hyper else {}
    return memory.of(one.rule, **one.hyper | still).stability_limit(precondition=divides)


CONSTANT = "step under a constant gradient of 1, over lr: "
ROWS = (
    Row("arrays", "arrays kept for each parameter", lambda m, _: m.cost().arrays),
    Row("passes", "arrays read or written by a step", lambda m, _: m.cost().passes),
    Row("first", CONSTANT + "the first", lambda m, n: m.effective_lr(n.steps)[0]),
    Row("tenth", CONSTANT + "after {tenth:,}", lambda m, n: m.effective_lr(n.steps)[max(n.steps // 10, 1) - 1]),
    Row("last", CONSTANT + "after {steps:,}", lambda m, n: m.effective_lr(n.steps)[-1]),
    Row("mass", CONSTANT + "in the end", lambda m, n: m.mass(step=_when(m, n))),
    Row("mean_age", "mean age of a gradient, in steps", lambda m, n: m.mean_age(step=_when(m, n))),
    Row("spread", "standard deviation of its age", lambda m, n: m.spread(step=_when(m, n))),
    Row("half_mass_age", "half of the weight is not older than", lambda m, n: m.half_mass_age(step=_when(m, n))),
    Row("half_life", "half-life of old weights, in steps", lambda m, _: m.half_life()),
    Row("older", "share of the weight older than 1,000 steps", lambda m, n: m.share_older(1000, step=_when(m, n))),
    Row("noise", "variance of a step over that of the gradient", lambda m, n: m.noise(step=_when(m, n))),
    Row("turn", "after {before:,} steps of 1, gradients of -1 turn it in", lambda m, n: m.reversal(n.before, n.after).turn),
    Row("coast", "how far it goes on until then, in lr", lambda m, n: m.reversal(n.before, n.after).coast),
    Row(
        "awakened",
        "longest step on gradients of 1 after {before:,} of 0, over lr",
        lambda m, n: m.step_response(2 * n.before, before=n.before).steps.max(),
    ),
    Row("worst", "longest step for gradients in [-1, 1], over lr", lambda m, n: m.worst_step(step=_when(m, n))),
    Row("limit", "lr times curvature, over what divides, up to which quadratics converge", lambda m, _: _limit(m)),
)


def numbers(one: Memory, length: Length) -> Json:
    """Each row's number, or why there is none."""
    found: Json = {}
    for row in ROWS:
        try:
            value = row.of(one, length)
        except ValueError as error:
            found[row.key] = str(error)
        else:
            found[row.key] = value if value is None else value.item() if isinstance(value, np.generic) else value
    return found


def says(row: Row, length: Length) -> str:
    """What a row is of, for runs of this length."""
    return row.says.format(steps=length.steps, tenth=max(length.steps // 10, 1), before=length.before)


def described(one: Memory) -> str:
    """A rule with the settings that are not its defaults."""
    own = [f"{name}={_short(x)}" for name, x in settings(one).items()]
    return f"{one.rule.name} {', '.join(own)}".strip()


def settings(one: Memory) -> Json:
    defaults = one.rule.defaults
    return {name: x for name, x in one.hyper.items() if name != "lr" and x != defaults[name]}


def _short(value: Any) -> str:
    return "/".join(map(_short, value)) if isinstance(value, tuple) else f"{value:.6g}"


def ages(last: float) -> Any:
    """Ages from 0 to the last, on a logarithmic scale."""
    found = np.unique(np.concatenate([np.arange(30), np.geomspace(30, max(last, 31), 300).astype(np.int64)]))
    return found[found <= last]


def curves(one: Memory, length: Length) -> Json:
    """The curves that are drawn, and kept in JSON: thinned, along logarithmic scales."""
    k = ages(max(length.steps, 31))  # weights are there without a run
    when = _when(one, length)
    mass = one.mass(step=when)
    t = ages(length.steps - 1) + 1
    turned = one.reversal(length.before, length.after)
    after = ages(length.after - 1)
    found = {
        "age": k.tolist(),
        "weight": (one.weights(k, step=when) / mass).tolist(),
        "t": t.tolist(),
        "effective_lr": one.effective_lr(length.steps)[t - 1].tolist(),
        "after": (after + 1).tolist(),
        "reversal": (turned.steps[length.before + after] / turned.steps[length.before - 1]).tolist(),
    }
    if settles(one):
        frequencies = np.geomspace(1e-6, 0.5, 200)
        found |= {"frequency": frequencies.tolist(), "gain": (one.gain(frequencies) / abs(mass)).tolist()}
    return found


def entry(one: Memory, length: Length) -> Json:
    """All that is said of a rule."""
    given = {name: repr(x) if callable(x) else x for name, x in one.hyper.items()}
    return {
        "rule": one.rule.name,
        "name": described(one),
        "hyper": given,
        "numbers": numbers(one, length),
        "curves": curves(one, length),
    }


def like(one: Memory, rule: Any) -> Json:
    """The settings of another rule with the nearest memory."""
    found = memory.nearest(one, rule)
    return {
        "name": described(one),
        "rule": found.memory.rule.name,
        "hyper": found.hyper,
        "lr": found.lr,
        "distance": found.distance,
        "age": found.age,
    }


def lines(entries: Sequence[Json]) -> list[tuple[int, str]]:
    """A colour and a dash for each, by which curves that coincide are seen: the rule's own colour, where it is free."""
    free: list[int] = []
    chosen: list[tuple[int, str]] = []
    for i, one in enumerate(entries):
        free = free or list(range(8))
        own = COLOURS.get(one["rule"], 7)
        colour = own if own in free else free[0]
        free.remove(colour)
        dashes = [DASHES[(i + k) % len(DASHES)] for k in range(len(DASHES))]
        chosen.append(next(((colour, dash) for dash in dashes if (colour, dash) not in chosen), (colour, "-")))
    return chosen


DASHES = ("-", "--", ":", "-.")


def short_names(entries: Sequence[Json]) -> list[str]:
    """The rules, with the settings that tell entries of one rule apart, as few as are needed."""

    def own(one: Json) -> list[str]:
        alike = [other["hyper"] for other in entries if other["rule"] == one["rule"] and other["hyper"] != one["hyper"]]
        found = []
        for name, x in one["hyper"].items():
            left = [other for other in alike if other[name] == x]
            if len(left) < len(alike):
                found.append(f"{name}={_any(x)}")
            alike = left
        return found

    return [f"{one['rule']} {', '.join(own(one))}".strip() for one in entries]


def _any(value: Any) -> str:
    return value if isinstance(value, str) else "off" if value is None else _short(value)


def panels(entries: Sequence[Json], length: Length) -> list[Panel]:
    """Four diagrams of all rules, to stand below a key."""
    known = list(zip(short_names(entries), entries, lines(entries), strict=True))

    def drawn(x: str, y: str, shift: float = 0.0) -> list[Curve]:
        return [
            Curve(name, np.array(one["curves"][x]) + shift, one["curves"][y], colour, dash)
            for name, one, (colour, dash) in known
            if x in one["curves"] and np.any(np.array(one["curves"][y]) > 0)
        ]

    found = [
        Panel(
            "share of a step, by the age of the gradient",
            drawn("age", "weight", 1.0),
            "age + 1, in steps",
            "xy",
            ylim=(1e-7, 1.5),
        ),
        Panel("step under a constant gradient, over lr", drawn("t", "effective_lr"), "step", "xy"),
        Panel(
            f"step after {length.before:,} gradients of 1, now of -1, over that before",
            drawn("after", "reversal"),
            "steps since",
            "x",
            ylim=(-1.15, 1.15),
            levels=[0.0],
        ),
        Panel("what is left of a wave of the gradient", drawn("frequency", "gain"), "waves a step", "xy", ylim=(1e-3, 2.0)),
    ]
    return [panel._replace(legend=None) for panel in found]
