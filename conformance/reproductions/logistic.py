"""QHM's parameter sweep on a logistic regression, on 8 by 8 images of handwritten digits."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from xopt.conformance.reproductions.outcome import NONE, Curve, Finding, Outcome, Panel, banded, spread, verdict
from xopt.rules import RULES

EPOCHS, BATCHES = 90, (8, 64)
"""The larger the batch, the fewer the steps, and the longer an average is beside the run."""
LR = (1.0, 0.1, 0.01)
"""For a third of the epochs each, as in the paper: of QHM, whose average has the weight 1."""
NUS = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
BETAS = (0.9, 0.99, 0.999)
TRAIN = 1197
Runs = dict[tuple[float, float], Any]
"""By nu and beta: what was found of each seed."""
NESTEROV, RULE_OF_THUMB = (0.9, 0.9), (0.7, 0.999)
"""nu and beta of the two that the paper compares."""


@lru_cache(maxsize=1)
def digits() -> tuple[Any, Any, Any, Any]:
    """scikit-learn's bundled digits, 1,797 of them in [0, 1], and which they are: those to train on, and the others."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.data))
    pixels, which = (found.data / 16)[order], found.target[order]
    return pixels[:TRAIN], which[:TRAIN], pixels[TRAIN:], which[TRAIN:]


def _batches(seeds: Sequence[int], epochs: int, size: int) -> Iterator[Any]:
    """For each epoch the images of its batches, by seed: an order of each seed's own."""
    draws = [np.random.default_rng([seed, 7]) for seed in seeds]
    for _ in range(epochs):
        orders = np.stack([draw.permutation(TRAIN) for draw in draws])
        yield [orders[:, i : i + size] for i in range(0, TRAIN - size + 1, size)]


def _probabilities(w: Any, x: Any) -> Any:
    z = x @ w[..., :-1, :] + w[..., -1:, :]
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return z / z.sum(axis=-1, keepdims=True)


def gradient(w: Any, x: Any, which: Any) -> Any:
    """Of the mean cross-entropy, for weights of shape (settings, seeds, 65, 10), the last row of which are offsets."""
    wrong = (_probabilities(w, x) - np.eye(10)[which]) / x.shape[-2]
    return np.concatenate([np.swapaxes(x, -1, -2) @ wrong, wrong.sum(axis=-2, keepdims=True)], axis=-2)


def loss(w: Any, x: Any, which: Any) -> Any:
    """The mean cross-entropy, by setting and seed."""
    return -np.log(_probabilities(w, x)[..., np.arange(len(which)), which]).mean(axis=-1)


def trained(settings: Sequence[tuple[float, float]], seeds: Sequence[int], epochs: int, size: int) -> tuple[Runs, Runs]:
    """All settings and seeds at once, each setting a leaf of the stepped tree; losses by epoch, and in % errors held out."""
    x, which, held, of_held = digits()
    rule: Any = RULES["qhm"]
    nu = {f"{n} {b}": n for n, b in settings}
    beta = {f"{n} {b}": b for n, b in settings}
    state = rule.init({name: np.zeros((len(seeds), 65, 10)) for name in nu})
    curves: dict[str, list[Any]] = {name: [] for name in nu}
    for epoch, batches in enumerate(_batches(seeds, epochs, size)):
        lr = LR[epoch * len(LR) // epochs]
        for batch in batches:
            w = np.stack([*state.params.values()])
            grads = gradient(w, x[batch], which[batch])
            state = rule.step(state, dict(zip(state.params, grads, strict=True)), lr=lr, nu=nu, beta=beta)
        for name, found in zip(nu, loss(np.stack([*state.params.values()]), x, which), strict=True):
            curves[name].append(found)
    errors = {name: 100 * np.mean(_probabilities(w, held).argmax(axis=-1) != of_held, axis=-1) for name, w in state.params.items()}
    keys = {f"{n} {b}": (n, b) for n, b in settings}
    return {keys[name]: np.stack(found) for name, found in curves.items()}, {keys[name]: one for name, one in errors.items()}


def run(seeds: int, steps: int = EPOCHS) -> Outcome:
    """``steps`` are epochs."""
    pairs = [NESTEROV, *(pair for pair in product(NUS, BETAS) if pair != NESTEROV)]
    found = {size: trained(pairs, range(1, seeds + 1), steps, size) for size in BATCHES}
    findings, panels = [], []
    for size, (curves, errors) in found.items():
        taken = steps * (TRAIN // size)
        findings += _findings({pair: curve[-1] for pair, curve in curves.items()}, errors, taken)
        by_nu = [Curve(f"beta = {b:g}", list(NUS), *_ends(curves, b)) for b in BETAS]
        panels.append(Panel(f"training loss after {taken:,} steps, by nu", "nu", "loss", by_nu, log_y=True))
    curves, at = found[BATCHES[0]][0], [*range(1, steps + 1)]
    shown = {"plain": (0.0, 0.9), "average": (1.0, 0.9), "Nesterov": NESTEROV, "QHM": RULE_OF_THUMB, "average 0.999": (1.0, 0.999)}
    lines = [banded(name, at, [[float(x) for x in curves[pair][:, i]] for i in range(seeds)]) for name, pair in shown.items()]
    panels.append(Panel(f"training loss, batches of {BATCHES[0]}", "epoch", "loss", lines, log_y=True))
    said = (
        f"A softmax regression on scikit-learn's 1,797 digits of 8 by 8 pixels, {TRAIN:,} of them to train on, where the paper has "
        f"EMNIST's of 28 by 28; {steps} epochs of batches of {' and of '.join(map(str, BATCHES))}, lr 1, 0.1 and 0.01 for a third "
        f"of them each, no weight decay, float64. Seeds 1 to {seeds} draw the order of the images."
    )
    return Outcome("logistic", findings, panels, said)


def _findings(ends: Runs, errors: Runs, taken: int) -> list[Finding]:
    """Of runs of so many steps."""

    def both(of: Runs, unit: str = "") -> str:
        return "; ".join(f"{name} {spread([*map(float, of[pair])])}{unit}" for name, pair in NAMES.items())

    def better(of: Runs) -> str:
        return verdict(float(np.mean(of[RULE_OF_THUMB])) < float(np.mean(of[NESTEROV])))

    best = min(ends, key=lambda pair: float(np.mean(ends[pair])))
    short = "a run that is short beside an average of 1,000 gradients" if taken < 2_000 else ""
    return [
        Finding(f"training loss after {taken:,} steps", PLACE, "QHM is better", both(ends), better(ends), short),
        Finding("the same, errors on images held out", PLACE, "QHM is better", both(errors, " %"), better(errors)),
        Finding(
            f"the same, the best training loss of {len(ends)} pairs of nu and beta",
            PLACE,
            "-",
            f"nu = {best[0]:g}, beta = {best[1]:g}: {spread([*map(float, ends[best])])}",
            NONE,
        ),
    ]


NAMES = {"QHM, nu = 0.7, beta = 0.999:": RULE_OF_THUMB, "Nesterov, nu = beta = 0.9:": NESTEROV}
PLACE = "parameter sweep"


def _ends(curves: Runs, beta: float) -> tuple[list[float], list[float], list[float]]:
    """Mean, smallest and largest loss at the end, by nu."""

    def each(of: Callable[[Any], Any]) -> list[float]:
        return [float(f"{of(curves[nu, beta][-1]):.4g}") for nu in NUS]

    return each(np.mean), each(np.min), each(np.max)
