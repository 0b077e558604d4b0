"""The same budget for every rule: a search for lr with a fixed number of trials, then fresh seeds."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from math import inf, sqrt
from typing import Any

TRIALS = 5
"""Of lr, for each rule."""
FAR, NEAR = sqrt(10.0), 10.0**0.25
"""Between the first trials, and between the best of them and the last ones."""


@dataclass
class Search:
    """Trials of lr and their scores, the smaller the better; None where one diverged."""

    tried: dict[float, float | None] = field(default_factory=dict)

    @property
    def best(self) -> float:
        """With the smallest score; the smallest lr where all diverged."""
        return min((inf if score is None else score, lr) for lr, score in self.tried.items())[1]

    @property
    def open(self) -> str:
        """Whether the best one is the smallest or largest that was tried, so that a better one may lie beyond."""
        return {min(self.tried): "smallest", max(self.tried): "largest"}.get(self.best, "")


def rounded(lr: float) -> float:
    return float(f"{lr:.2g}")


def search(score: Callable[[float], float | None], centre: float, trials: int = TRIALS) -> Search:
    """Tries lr around a centre, a half decade apart; then beyond the best one if it is at an end, else on both sides of it."""
    found = Search()
    waiting = [centre, centre / FAR, centre * FAR]
    while len(found.tried) < trials:
        if not waiting:
            sides = {"smallest": [found.best / FAR], "largest": [found.best * FAR]}
            waiting = sides.get(found.open, [found.best / NEAR, found.best * NEAR])
        lr = rounded(waiting.pop(0))
        if lr in found.tried:
            break  # nothing new between those that are there
        found.tried[lr] = score(lr)
    return found


def as_data(found: Search) -> dict[str, Any]:
    return asdict(found) | {"tried": [[lr, found.tried[lr]] for lr in sorted(found.tried)], "best": found.best, "open": found.open}
