"""Steps in a training loop: fresh gradients each time, other work in between, arrays found in memory; beside other optimizers."""

import random
import statistics
from typing import NamedTuple

from xopt.conformance.bench.contender import Running
from xopt.conformance.bench.contenders import contenders
from xopt.conformance.bench.measure import Spread, ratio, spread, turn, uncollected
from xopt.conformance.bench.peers import torch_optim
from xopt.conformance.bench.shapes import Size, size_of

SIZES = tuple(map(size_of, ("1e3", "8x64x64", "44x64x64", "10x1024x1024", "resnet50", "1e7")))
ROUNDS = 40
WARM = 3
"""Rounds before those that count."""
TURN = 20
"""Steps of a turn at most: a loop finds its code in the cache. The first of them does not count."""
LARGE = 1 << 20
"""Numbers from which on a turn is one step."""

BESIDE = (
    ("adamw", "torch_optim", "torch AdamW fused"),
    ("ademamix", "torch_optim", "torch AdamW fused"),
    ("adamw", "torch cpu fused", "torch AdamW fused"),
    ("ademamix", "torch cpu fused", "torch AdamW fused"),
    ("ademamix", "torch cpu fused", "touch"),
    ("ademamix", "numpy fused", "touch"),
    ("adamw", "numpy fused", "torch AdamW fused"),
    ("adamw", "jax cpu fused", "optax"),
)
"""Which step of a rule is compared with which other."""


class InLoop(NamedTuple):
    """One contender beside another, in a loop on a size."""

    size: str
    rule: str
    contender: str
    beside: str
    seconds: Spread  # of a step
    ratio: Spread  # of the times, round by round
    per_byte: Spread  # the same of the times for a byte that the rule must move


def in_loop(size: Size, seed: int, rounds: int = ROUNDS) -> list[InLoop]:
    """Times all that is compared, each with arrays of its own, in turns of a few steps."""
    known = {(rule, one.name): one for rule in ("adamw", "ademamix") for one in (*contenders(rule, peers=True), torch_optim(rule))}
    pairs = [((rule, name), (known[rule, other].steps, other)) for rule, name, other in BESIDE]
    wanted = dict.fromkeys(key for pair in pairs for key in pair)
    here = {key: known[key] for key in wanted if known[key].why_not() is None}
    steps = max(1, min(TURN, LARGE // size.numbers))
    times = _times({key: one.prepare(size.shapes, seed) for key, one in here.items()}, seed, rounds, steps)
    found = []
    for key, other in pairs:
        if key in times and other in times:
            plain = ratio(times[key], times[other])
            per_byte = ratio(times[key], times[other], here[other].bytes_per_number / here[key].bytes_per_number)
            if plain and per_byte:
                found.append(InLoop(size.name, *key, other[1], spread(times[key]), plain, per_byte))
    return found


def _times(running: dict[tuple[str, str], Running], seed: int, rounds: int, steps: int) -> dict[tuple[str, str], list[float]]:
    draw = random.Random(seed)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in running}
    with uncollected():
        for number in range(WARM + rounds):
            for key in draw.sample(list(running), len(running)):
                took = [_step(running[key]) for _ in range(steps)]
                if number >= WARM:
                    times[key].append(statistics.median(took[1:] or took))
    return times


def _step(one: Running) -> float:
    """Seconds of a step, after what a loop does between two."""
    if one.between is not None:
        one.between()
    return turn(one, 1, warm_up=False)
