"""Steps in a training loop: fresh gradients each time, other work in between, arrays found in memory; beside other optimizers."""

import gc
import random
import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

from xopt.conformance.bench.contender import Contender, Running
from xopt.conformance.bench.contenders import contenders
from xopt.conformance.bench.measure import Spread, ratio, spread
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
    """Times all that is compared, each with arrays of its own, for one step a round."""
    known = {(rule, one.name): one for rule in ("adamw", "ademamix") for one in contenders(rule, peers=True)}
    pairs = [((rule, name), _beside(rule, other)) for rule, name, other in BESIDE]
    wanted = dict.fromkeys(key for pair in pairs for key in pair)
    here = {key: known[key] for key in wanted if key in known and known[key].why_not() is None}
    turn = max(1, min(TURN, LARGE // size.numbers))
    times = _times({key: one.prepare(size.shapes, seed) for key, one in here.items()}, seed, rounds, turn)
    found = []
    for key, other in pairs:
        if key in times and other in times:
            plain = ratio(times[key], times[other])
            per_byte = ratio(times[key], times[other], _bytes(here[other]) / _bytes(here[key]))
            if plain and per_byte:
                found.append(InLoop(size.name, *key, other[1], spread(times[key]), plain, per_byte))
    return found


def _beside(rule: str, name: str) -> tuple[str, str]:
    """Torch's AdamW steps one rule, whatever it is compared with."""
    return ("adamw" if name.startswith("torch AdamW") else rule), name


def _bytes(one: Contender) -> int:
    return one.bytes_per_number


def _times(running: dict[tuple[str, str], Running], seed: int, rounds: int, turn: int) -> dict[tuple[str, str], Sequence[float]]:
    draw = random.Random(seed)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in running}
    enabled = gc.isenabled()
    gc.disable()
    try:
        for number in range(WARM + rounds):
            for key in draw.sample(list(running), len(running)):
                steps = [_step(running[key]) for _ in range(turn)]
                if number >= WARM:
                    times[key].append(statistics.median(steps[1:] or steps))
    finally:
        if enabled:
            gc.enable()
    return {key: column for key, column in times.items() if column}


def _step(one: Running) -> float:
    """Seconds of a step, after what a loop does between two."""
    if one.between is not None:
        one.between()
    began = time.perf_counter()
    one.step()
    one.wait()
    return time.perf_counter() - began
