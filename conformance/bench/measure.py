"""Timing contenders side by side: in each round all take their turn, so that what disturbs the machine disturbs all of them."""

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from xopt.conformance.bench.contender import Running

TURN = 0.005
"""Seconds that a turn lasts at least: as many steps as fit. A training loop finds its arrays in memory; in long turns they stay in
a large cache: AdEMAMix on 10 million numbers takes 7.5 ms in turns of one step, and 5.3 ms in turns of 32."""

LONG = 0.05
"""Seconds of a step from which on a turn does without an untimed step before the others."""

PEERS = 4
"""How many times as long as the quickest a contender may take to have as many steps in a turn."""

PATIENCE = 8
"""How many times as long as ``TURN`` one may last; what takes longer has its turn in one round of four only."""

LEAST = 5
"""Rounds that there are at least, however long they take."""


class Spread(NamedTuple):
    median: float
    low: float  # the quartiles
    high: float


def spread(values: Iterable[float]) -> Spread:
    known = list(values)
    low, median, high = statistics.quantiles(known, n=4, method="inclusive") if len(known) > 1 else known * 3
    return Spread(median, low, high)


def ratio(one: Sequence[float | None], other: Sequence[float | None], scale: float = 1.0) -> Spread | None:
    """Of two contenders of one run, round by round, times ``scale``; None where they never met."""
    met = [scale * a / b for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return spread(met) if met else None


class Turns(NamedTuple):
    """What was found of one contender."""

    steps: int  # in a turn
    rounds: list[float | None]  # seconds of a step; None where it sat out


def interleave(
    running: Sequence[Running], seconds: float, seed: int, *, told: Callable[[float], Any] = lambda _: None
) -> list[Turns]:
    """Times contenders that have taken a step already, for about ``seconds``.

    The order is drawn anew in each round, so that nobody always follows the same one.
    """
    steps, warm_up = zip(*_planned(running), strict=True)
    rounds: list[list[float | None]] = [[] for _ in running]
    every = [1] * len(running)
    draw = random.Random(seed)
    began = last = time.perf_counter()
    with uncollected():
        while len(rounds[0]) < LEAST or last - began < seconds:
            order = draw.sample(range(len(running)), len(running))
            taken = {i: turn(running[i], steps[i], warm_up[i]) for i in order if len(rounds[0]) % every[i] == 0}
            for i, column in enumerate(rounds):
                column.append(taken.get(i))
            if len(rounds[0]) == 1:
                every = [1 if taken[i] * steps[i] < PATIENCE * TURN else 4 for i in range(len(running))]
            now = time.perf_counter()
            told(now - last)
            last = now
    return [Turns(n, column) for n, column in zip(steps, rounds, strict=True)]


def _planned(running: Sequence[Running]) -> list[tuple[int, bool]]:
    """How many steps fill a turn of each, and whether an untimed one goes before.

    Contenders that take up to ``PEERS`` times as long as the quickest take as many steps as the slowest of them: the later steps of
    a turn find more in the cache, so that with fewer they would look slower than they are.
    """
    times = list(map(_estimate, running))
    alike = PEERS * min(times)
    slowest = max(seconds for seconds in times if seconds < alike)
    return [(math.ceil(TURN / (slowest if seconds < alike else seconds)), seconds < LONG) for seconds in times]


def _estimate(one: Running) -> float:
    """Roughly the seconds of a step. The first may compile once more, or fetch memory."""
    steps = 1
    while (took := steps * min(turn(one, steps, warm_up=False) for _ in range(2))) < TURN / 2:
        steps *= 2
    return took / steps


@contextmanager
def uncollected() -> Iterator[None]:
    """A block in which Python does not look for garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def turn(one: Running, steps: int, warm_up: bool) -> float:
    """Seconds of a step."""
    if warm_up:
        one.step()
        one.wait()
    began = time.perf_counter()
    for _ in range(steps):
        one.step()
    one.wait()
    return (time.perf_counter() - began) / steps
