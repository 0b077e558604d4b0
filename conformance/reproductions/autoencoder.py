"""AggMo's autoencoder (Table 1, section 7.1), and QHM's answer to it (appendix H), on 8 by 8 images of handwritten digits."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from xopt.backends import fuse
from xopt.conformance.reproductions.outcome import NONE, Finding, Outcome, Panel, banded, number, spread, verdict
from xopt.conversions import aggmo_betas
from xopt.rules import RULES

WIDTHS = (64, 48, 24, 8, 24, 48, 64)
"""Pixels, three layers that narrow to a code of 8 numbers, and back. Hyperbolic tangents; code and pixels are linear."""
EPOCHS, BATCH, LOOKS = 300, 128, 20
RATES = tuple(float(f"{10 ** (k / 2 - 5):.2g}") for k in range(8))
"""lr for every method: 0.00001 to 0.032, half a decade apart; for the last third of the epochs a tenth of it."""
PRINTED = {"momentum": 2.51, "Nesterov": 1.52, "Adam": 1.44, "AggMo": 1.39}
"""Table 1, training loss."""
SPLIT = 1197, 300, 300
"""Images to train on, to choose by, and to test with."""


class Method(NamedTuple):
    family: str  # one of PRINTED, or QHM
    said: str
    rule: str
    hyper: tuple[tuple[str, Any], ...]
    scale: float = 1.0  # of RATES


METHODS = (
    *(Method("momentum", f"beta = {beta:g}", "momentum", (("beta", beta),)) for beta in (0.0, 0.9, 0.99, 0.999)),
    *(Method("Nesterov", f"beta = {beta:g}", "nesterov", (("beta", beta),)) for beta in (0.9, 0.99, 0.999)),
    *(Method("Adam", f"beta1 = {beta:g}", "adam", (("beta1", beta),)) for beta in (0.9, 0.99, 0.999)),
    *(Method("AggMo", f"K = {k}", "aggmo", (("betas", aggmo_betas(k=k)),)) for k in (2, 3, 4)),
    Method("QHM", "converted from AggMo, K = 4", "qhm", (("beta", 0.999), ("nu", 0.97)), 0.25 * 1111.0),
)
"""The paper's grid of dampings; Nesterov's with 0 is momentum's. Of QHM there is one, with lr times 1/K sum of 1 / (1 - beta)."""


@lru_cache(maxsize=1)
def images() -> tuple[Any, Any, Any]:
    """scikit-learn's bundled digits, 1,797 of them in [0, 1], in three parts, always the same."""
    from sklearn.datasets import load_digits

    pixels = (load_digits().data / 16).astype(np.float32)
    pixels = pixels[np.random.default_rng(0).permutation(len(pixels))]
    return tuple(np.split(pixels, np.cumsum(SPLIT)[:-1]))  # type: ignore[return-value]


def start(seeds: Sequence[int]) -> dict[str, Any]:
    """Weights and offsets, the seeds along the first axis."""
    found = {}
    for i, (rows, columns) in enumerate(pairwise(WIDTHS)):
        drawn = [np.random.default_rng([seed, i]).standard_normal((rows, columns)) / np.sqrt(rows) for seed in seeds]
        found[f"w{i}"] = np.stack(drawn).astype(np.float32)
        found[f"b{i}"] = np.zeros((len(seeds), 1, columns), np.float32)
    return found


def _forward(w: Mapping[str, Any], x: Any) -> list[Any]:
    """What each layer puts out, from the images on."""
    layers, last = [x], len(WIDTHS) - 2
    for i in range(last + 1):
        z = layers[-1] @ w[f"w{i}"] + w[f"b{i}"]
        layers.append(z if i in (last // 2, last) else np.tanh(z))
    return layers


def loss(w: Mapping[str, Any], x: Any) -> Any:
    """Squared error, summed over the pixels, mean of the images; for each seed."""
    return np.mean(np.sum((_forward(w, x)[-1] - x) ** 2, axis=-1), axis=-1)


def gradient(w: Mapping[str, Any], x: Any) -> dict[str, Any]:
    layers, last = _forward(w, x), len(WIDTHS) - 2
    d, found = (layers[-1] - x) * np.float32(2 / x.shape[-2]), {}
    for i in range(last, -1, -1):
        if i not in (last // 2, last):
            d = d * (1 - layers[i + 1] ** 2)
        found[f"w{i}"], found[f"b{i}"] = np.swapaxes(layers[i], -1, -2) @ d, np.sum(d, axis=-2, keepdims=True)
        d = d @ np.swapaxes(w[f"w{i}"], -1, -2)
    return found


def _batches(seeds: Sequence[int], epochs: int) -> Iterator[list[Any]]:
    """For each epoch its batches, of shape (seeds, images, pixels): each seed has its own order."""
    train = images()[0]
    draws = [np.random.default_rng([seed, 99]) for seed in seeds]
    for _ in range(epochs):
        orders = np.stack([draw.permutation(len(train)) for draw in draws])
        yield [train[orders[:, i : i + BATCH]] for i in range(0, len(train) - BATCH + 1, BATCH)]


class Trained(NamedTuple):
    """By lr and seed; not a number where a run diverged."""

    train: Any
    chosen_by: Any  # validation loss
    test: Any
    curve: Any  # training loss by look; lr, seeds, looks


def trained(method: Method, seeds: Sequence[int], epochs: int, rates: Sequence[float] = RATES) -> Trained:
    """All rates and seeds at once: rates are leaves of the tree that is stepped, seeds an axis of its arrays."""
    from threadpoolctl import threadpool_limits  # which scikit-learn needs

    step: Any = fuse(RULES[method.rule].bind(**dict(method.hyper)), donate=True)
    names = [f"{rate:g}" for rate in rates]
    state: Any = RULES[method.rule].bind(**dict(method.hyper)).init({name: start(seeds) for name in names})
    looks: list[Any] = []
    with threadpool_limits(1), np.errstate(all="ignore"):  # products of small matrices; and some runs diverge
        for epoch, batches in enumerate(_batches(seeds, epochs)):
            share = method.scale * (0.1 if epoch >= 2 * epochs / 3 else 1.0)
            lr = {name: rate * share for name, rate in zip(names, rates, strict=True)}
            for batch in batches:
                state = step(state, {name: gradient(w, batch) for name, w in state.params.items()}, lr=lr)
            if (epoch + 1) % max(1, epochs // LOOKS) == 0:
                looks.append([loss(state.params[name], images()[0]) for name in names])
        parts = [np.stack([loss(state.params[name], part) for name in names]) for part in images()]
    curve = np.moveaxis(np.asarray(looks, dtype=np.float64), 0, -1)
    lost = ~(parts[0] < loss(start(seeds), images()[0]))  # diverged: it ends higher than it began, or not with a number
    train, chosen_by, test = (np.where(lost, np.nan, part.astype(np.float64)) for part in parts)
    return Trained(train, chosen_by, test, curve)


class Best(NamedTuple):
    method: Method
    rate: float
    train: list[float]
    test: list[float]
    curve: Any


def best(of: Sequence[tuple[Method, Trained]], by: str) -> Best:
    """Of all dampings and rates of a family the one with the smallest mean over the seeds, of which none diverged."""
    scored = [
        (float(np.mean(getattr(found, by)[i])), k, i)
        for k, (_, found) in enumerate(of)
        for i in range(len(RATES))
        if np.all(np.isfinite(found.train[i]))
    ]
    _, k, i = min(scored)
    method, found = of[k]
    return Best(method, RATES[i] * method.scale, found.train[i].tolist(), found.test[i].tolist(), found.curve[i])


def largest_stable(found: Trained) -> float:
    """The largest lr, of those tried, at which no seed diverged."""
    return max((rate for rate, losses in zip(RATES, found.train, strict=True) if np.all(np.isfinite(losses))), default=0.0)


def run(seeds: int, steps: int = EPOCHS) -> Outcome:
    """``steps`` are epochs."""
    epochs, numbers = steps, list(range(1, seeds + 1))
    found = [(method, trained(method, numbers, epochs)) for method in METHODS]
    families = {family: [(m, f) for m, f in found if m.family == family] for family in PRINTED}
    by_training = {family: best(of, "train") for family, of in families.items()}
    by_validation = {family: best(of, "chosen_by") for family, of in families.items()}
    mean = {family: float(np.mean(one.train)) for family, one in by_training.items()}
    test = {family: float(np.mean(one.test)) for family, one in by_validation.items()}
    order = sorted(PRINTED, key=PRINTED.__getitem__)
    findings = []
    for family, one in by_training.items():
        findings.append(
            Finding(
                f"{family}: training loss at the best damping and lr",
                "Table 1",
                f"{PRINTED[family]}",
                f"{spread(one.train)} ({one.method.said}, lr {number(one.rate, 2)}); test, chosen by validation: "
                f"{spread(by_validation[family].test)}",
                NONE,
                "not the same task: images of 8 by 8, and a smaller network",
            )
        )
    findings += [
        Finding(
            "order by training loss",
            "Table 1",
            " < ".join(order),
            " < ".join(sorted(mean, key=mean.__getitem__)),
            verdict(sorted(mean, key=mean.__getitem__) == order, min(mean, key=mean.__getitem__) == "AggMo"),
        ),
        Finding(
            "the best by test loss",
            "Table 1",
            "AggMo, 2.96",
            f"{min(test, key=test.__getitem__)}, {number(min(test.values()))}",
            verdict(min(test, key=test.__getitem__) == "AggMo"),
        ),
        _damping(by_training),
        _stability({(m.family, m.said): largest_stable(f) for m, f in found}),
        _converted(best([(m, f) for m, f in found if m.said == "K = 4"], "train"), found[-1][1]),
    ]
    every = max(1, epochs // LOOKS)
    at = [every * (i + 1) for i in range(len(by_training["AggMo"].curve[0]))]
    curves = [banded(f"{family}, {one.method.said}", at, one.curve.tolist()) for family, one in by_training.items()]
    panels = [Panel("training loss at the best damping and lr", "epoch", "squared error", curves, log_y=True)]
    settings = (
        f"scikit-learn's 1,797 digits instead of MNIST, {SPLIT[0]:,} of them to train on; layers {', '.join(map(str, WIDTHS))}, "
        f"where the paper's begins with 784; {epochs} epochs of batches of {BATCH} instead of 1,000. The paper's grid of "
        f"dampings; lr {', '.join(f'{rate:g}' for rate in RATES)} for each, a tenth for the last third. Seeds 1 to {seeds} are "
        "in every choice."
    )
    return Outcome("autoencoder", findings, panels, settings)


def _damping(chosen: Mapping[str, Best]) -> Finding:
    said = {family: one.method.said for family, one in chosen.items() if family != "Adam"}
    printed = {"momentum": "beta = 0.99", "Nesterov": "beta = 0.99", "AggMo": "K = 4"}
    same = [said[family] == want for family, want in printed.items()]
    return Finding(
        "the best damping",
        "section 7.1",
        "momentum and Nesterov 0.99, AggMo K = 4",
        "; ".join(f"{family}: {one}" for family, one in said.items()),
        verdict(all(same), any(same)),
        "" if all(same) else "the run is shorter, so that less memory may do better",
    )


def _stability(limits: Mapping[tuple[str, str], float]) -> Finding:
    aggmo, momentum, nesterov = (
        limits[key] for key in (("AggMo", "K = 4"), ("momentum", "beta = 0.999"), ("Nesterov", "beta = 0.999"))
    )
    ratios = [aggmo / other if other else np.inf for other in (momentum, nesterov)]
    return Finding(
        "the largest lr at which no seed diverges: AggMo K = 4, momentum 0.999, Nesterov 0.999",
        "section 7.1, Fig. 5",
        "AggMo's is an order of magnitude (or more) larger",
        ", ".join(f"{limit:g}" if limit else "none" for limit in (aggmo, momentum, nesterov)),
        verdict(min(ratios) > 9, max(ratios) > 3),
        "of lr half a decade apart",
    )


def _converted(aggmo: Best, qhm: Trained) -> Finding:
    i = RATES.index(aggmo.rate)
    mine = qhm.train[i].tolist()
    better = np.all(np.isfinite(mine)) and np.mean(mine) < np.mean(aggmo.train)
    return Finding(
        f"QHM converted by hand from AggMo K = 4 at its best lr, {aggmo.rate:g}: training loss",
        "QHM, App. H",
        "QHM-Converted outperforms AggMo-Best",
        f"QHM: {spread(mine)}; AggMo: {spread(aggmo.train)}",
        verdict(better),
    )
