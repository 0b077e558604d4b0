"""``python -m xopt.conformance.thirdparty.alarms 100000``: so many correct trajectories, of which parameters alone are seen.

AdamW and AdEMAMix in float32 in the evaluation orders of ``faults/orders.py`` that round correctly, and with the decay first: none
may be beyond the bound of the rule, or of the convention that the decay is first.
"""

import sys

import numpy as np

from xopt.conformance.faults.orders import NAMES, ORDERS, SIZE, STEPS, drawn_hyper, f32
from xopt.conformance.thirdparty.measure import Judge, Seen
from xopt.conformance.thirdparty.probe import Run
from xopt.conformance.thirdparty.variants import BY_NAME, Variant

FIRST = "weight decay: before the step"
LEFT_OUT = ("primitives off by an ulp", "subnormals flushed")
"""Orders of libraries that round otherwise, which a check does not measure of a target."""


def alarms(trajectories: int, seed: int = 0) -> tuple[int, int, int, float]:
    """Trajectories, those beyond the bound, numbers without a bound, and the largest error/bound."""
    draw = np.random.default_rng(seed)
    done = beyond = vacuous = 0
    worst = 0.0
    orders = [name for name in ORDERS if name not in LEFT_OUT]
    while done < trajectories:
        for rule in NAMES:
            for order in orders:
                for first in (False, True):
                    hyper = drawn_hyper(draw, rule)
                    p = (draw.standard_normal(SIZE) * 10.0 ** draw.uniform(-3, 1, SIZE)).astype(f32)
                    grads = (draw.standard_normal((STEPS, SIZE)) * 10.0 ** draw.uniform(-6, 6, (STEPS, SIZE))).astype(f32)
                    run = Run(order, hyper, p.astype(float), grads.astype(float))
                    state = (p, np.zeros(SIZE, f32), np.zeros(SIZE, f32) if rule == "ademamix" else None, np.zeros(SIZE, f32))
                    found = []
                    for t, grad in enumerate(grads, start=1):
                        given = hyper | ({"weight_decay": 0.0} if first else {})
                        start = f32(1 - hyper["lr"] * hyper["weight_decay"]) * state[0] if first else state[0]
                        state = ORDERS[order][0].step(start, *state[1:], grad, t, given)
                        found.append(state[0].astype(float))
                    variant = Variant(rule, [BY_NAME[f"{rule}, {FIRST}"]] if first else [])
                    measure = Judge(variant).measure([Seen(run, "float32", np.array(found))])
                    done, vacuous, worst = done + SIZE, vacuous + measure.vacuous, max(worst, measure.ratio)
                    beyond += measure.ratio > 1
    return done, beyond, vacuous, worst


if __name__ == "__main__":
    count, wrong, unbounded, ratio = alarms(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
    print(f"{count:,} trajectories, {wrong} false alarms, {unbounded} numbers without a bound, error/bound at most {ratio:.3f}")  # noqa: T201
