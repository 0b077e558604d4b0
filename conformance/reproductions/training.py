"""Training runs of the small language model: one rule, one lr, one seed, and what each is asked for on the way."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from math import isfinite, log
from typing import Any

import numpy as np
import torch

from xopt import schedules
from xopt.backends import torch_optim
from xopt.conformance.reproductions.model import CONTEXT, Model, loss_of
from xopt.conformance.reproductions.text import text
from xopt.rules import RULES

BATCH, WARMUP, LAST, CLIP = 8, 100, 0.1, 1.0
"""Windows of a batch, steps in which lr rises, the share of it that is left at the end, and the norm that gradients are cut to."""


@dataclass
class Run:
    """A training. ``losses`` are held-out ones, by step; empty from where it diverged on."""

    seed: int
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    diverged: bool = False

    @property
    def last(self) -> float | None:
        """The held-out loss at the end; None where it diverged."""
        return None if self.diverged else self.losses[-1]


@contextmanager
def one_thread() -> Iterator[None]:
    """So that sums are formed in the same order each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def windows(numbers: Any, starts: Any) -> Any:
    """Parts of the text, with the character after each context."""
    return torch.from_numpy(np.stack([numbers[i : i + CONTEXT + 1] for i in starts]))


def batches(seed: int) -> Iterator[Any]:
    """Windows of the text at random places, without an end."""
    numbers, draw = text().train, np.random.default_rng([seed, 1])
    while True:
        yield windows(numbers, draw.integers(0, len(numbers) - CONTEXT - 1, BATCH))


def held_out(most: int | None = None) -> Any:
    """The text held out, in windows one after the other; at most so many, spread over it."""
    numbers = text().held_out
    starts = np.arange(0, len(numbers) - CONTEXT - 1, CONTEXT)
    if most is not None and most < len(starts):
        starts = starts[np.linspace(0, len(starts) - 1, most).astype(int)]
    return windows(numbers, starts)


def model(seed: int) -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(len(text().characters))


def optimizer(rule: str, params: Any, hyper: Mapping[str, Any]) -> Any:
    """A rule of xopt as an optimizer of PyTorch's, with fused steps."""
    return torch_optim.of(RULES[rule])(params, **hyper)


def copied(rule: str, hyper: Mapping[str, Any], network: Any, stepper: Any) -> tuple[Any, Any]:
    """A run that goes on from where another one is: its network, and its optimizer."""
    copy = deepcopy(network)
    own = optimizer(rule, copy.parameters(), hyper)
    own.load_state_dict(stepper.state_dict())
    return copy, own


def rates(lr: float, steps: int, warmup: int = WARMUP) -> Callable[[int], float]:
    """lr rises, then falls to a tenth along a cosine."""
    return schedules.warmup(schedules.cosine(lr, LAST * lr, steps), min(warmup, max(1, steps // 10)))


def step(network: Any, stepper: Any, batch: Any, lr: float) -> float:
    """One step of training, with the gradient cut to a norm; returns the loss before it."""
    loss = loss_of(network, batch)
    stepper.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
    for group in stepper.param_groups:
        group["lr"] = lr
    stepper.step()
    return float(loss.detach())


def mean_loss(network: Any, of: Any) -> float:
    with torch.no_grad():
        return float(np.mean([float(loss_of(network, part)) for part in of.split(128)]))


def train(rule: str, hyper: Mapping[str, Any], lr: float, seed: int, steps: int, looks: int = 10, most: int = 128) -> Run:
    """Trains from the start. Looks at a part of the held-out text on the way, and at all of it at the end."""
    run, part = Run(seed), held_out(most)
    with one_thread():
        network, schedule, drawn = model(seed), rates(lr, steps), batches(seed)
        stepper = optimizer(rule, network.parameters(), hyper)
        for t in range(1, steps + 1):
            before = step(network, stepper, next(drawn), schedule(t))
            look = t % max(1, steps // looks) == 0
            after = mean_loss(network, held_out() if t == steps else part) if look or t == steps else before
            if not (isfinite(before) and isfinite(after)) or (t == steps and after > log(len(text().characters))):
                run.diverged = True  # not a number, or in the end worse than guessing
                break
            if look or t == steps:
                run.steps.append(t)
                run.losses.append(after)
    return run
