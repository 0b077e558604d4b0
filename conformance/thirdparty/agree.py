"""``xopt.conformance.agree``: where two optimizers part, by how much, why, and what becomes of it."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xopt.conformance.arithmetic.formats import FLOAT_FORMATS
from xopt.conformance.thirdparty.check import formulas_of
from xopt.conformance.thirdparty.measure import Seen
from xopt.conformance.thirdparty.probe import USUAL, Run, runs
from xopt.conformance.thirdparty.sandbox import RaisedError, TargetFailedError
from xopt.conformance.thirdparty.subject import Subject
from xopt.conformance.thirdparty.targets import TargetError, name_of
from xopt.conformance.thirdparty.variants import Variant
from xopt.rules import RULES

TRAINING = 100
"""Steps of the training on digits."""


@dataclass
class Agreed:
    """What two targets show beside each other. True where no difference is larger than rounding explains."""

    targets: tuple[str, str]
    dtype: str
    rule: str | None = None
    same_bits: bool = False
    parted: dict[str, Any] | None = None  # where the first number differs
    largest: dict[str, Any] | None = None  # where the difference is largest beside the bound
    ratio: float | None = None  # the largest difference over the sum of both bounds
    conventions: tuple[list[str], list[str]] = ((), ())  # type: ignore[assignment]  # of each
    named: tuple[bool, bool] = (False, False)  # whether what each computes has a name
    growth: list[float] = field(default_factory=list)  # the largest distance between the parameters of two trainings, by step
    moved: float = 0.0  # how far the first one's parameters have moved by then
    words: str = ""
    status: int = 1  # exit status: 0 they agree within rounding, 1 they do not, 2 there is nothing to compare
    seconds: float = 0.0

    def __bool__(self) -> bool:
        return self.status == 0

    def __str__(self) -> str:
        return f"{self.targets[0]} and {self.targets[1]}: {self.words}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def agree(
    one: str | Callable[..., Any],
    other: str | Callable[..., Any],
    rule: str | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    gradients: str | Path | None = None,
    training: int = TRAINING,
    limit: float = 10.0,
    seed: int = 0,
) -> Agreed:
    """Steps two optimizers on the same numbers and says where they part.

    Parameters
    ----------
    one, other, rule, given, limit, seed
        As ``xopt.conformance.check`` has them. Without a rule it is the one that fits ``one``.
    dtype
        float32 or float64.
    gradients
        A file with ``grads``, one a step along the first axis, and perhaps ``params``, as ``numpy.savez`` writes it; or ``grads``
        alone as ``numpy.save`` does. They are stepped through too.
    training
        Steps of a training on handwritten digits, each optimizer with the gradients at its own parameters. 0: none.

    Raises
    ------
    ValueError
        For a rule that there is not, or a file that holds no gradients.
    """
    began = time.monotonic()
    found = Agreed((name_of(one), name_of(other)), dtype)
    own = read_gradients(gradients) if gradients is not None else None
    try:
        with Subject(one, given or {}, limit) as a, Subject(other, given or {}, limit) as b:
            _compare(found, a, b, rule, own, training, seed)
    except TargetError as error:
        found.words, found.status = str(error), 2
    except TargetFailedError as error:
        found.words, found.status = f"one of them gives no answer ({error.what}): {error}", 1
    found.seconds = time.monotonic() - began
    return found


def read_gradients(path: str | Path) -> tuple[Any, Any]:
    """Parameters and gradients of a file, flat.

    Raises
    ------
    ValueError
        Where they are not in it, or are not numbers.
    """
    try:
        held = np.load(path, allow_pickle=False)
        grads = held["grads"] if hasattr(held, "files") else held
        params = held["params"] if hasattr(held, "files") and "params" in held.files else np.zeros(grads.shape[1:])
        grads = np.asarray(grads, np.float64).reshape(len(grads), -1)
        params = np.asarray(params, np.float64).ravel()
    except (OSError, KeyError, ValueError, TypeError, EOFError) as error:
        msg = f"{path} has no gradients ({error}): save them as numpy.savez(path, params=..., grads=...), one gradient a step"
        raise ValueError(msg) from error
    if not len(grads) or grads.shape[1] != params.size:
        msg = f"{path}: {len(grads)} gradients of {grads.shape[1] if grads.ndim > 1 else 0} numbers for {params.size} parameters"
        raise ValueError(msg)
    return params, grads


def _compare(found: Agreed, a: Subject, b: Subject, rule: str | None, own: Any, training: int, seed: int) -> None:
    checks = [formulas_of(subject, rule, [found.dtype], seed) for subject in (a, b)]
    rule = rule or checks[0].rule
    if rule is None:
        found.words = f"of the first: {checks[0].words}"
        return
    if checks[1].rule not in (None, rule):
        checks[1] = formulas_of(b, rule, [found.dtype], seed)
    found.rule = rule
    found.conventions = (checks[0].conventions, checks[1].conventions)
    found.named = tuple(bool(one.formulas) and all(x.fits for x in one.formulas) for one in checks)  # type: ignore[assignment]
    takes = a.takes(rule) & b.takes(rule)
    todo = list(runs(rule, takes, a.about.changes and b.about.changes and "lr" in takes, seed))
    todo = [run for run in todo if run.kind != "defaults" and not run.idle]
    if own is not None:
        usual = {name: x for name, x in USUAL.items() if name in takes}
        todo.insert(0, Run("the gradients of the file", usual, own[0], own[1], kind="random"))
    pairs = []
    for run in todo:
        try:
            pairs.append((a.see(rule, run, found.dtype), b.see(rule, run, found.dtype)))
        except RaisedError:
            continue  # one of them refuses these hyperparameters
    _part(found, pairs, [Variant.of(rule, one.conventions) for one in checks])
    if training:
        found.growth, found.moved = _train(found.dtype, rule, a, b, takes, training)
    found.status = 0 if found.same_bits or (found.ratio is not None and found.ratio <= 1) else 1
    found.words = _words(found)


def _part(found: Agreed, pairs: Sequence[tuple[Seen, Seen]], variants: list[Variant]) -> None:
    """The first difference, and the largest one beside what both may be off."""
    found.same_bits, ratio = True, 0.0
    for x, y in pairs:
        differ = ~((x.params == y.params) | (np.isnan(x.params) & np.isnan(y.params)))
        if not np.any(differ):
            continue
        found.same_bits = False
        room = sum(one.bounded(x.run, x.dtype)[1] for one in variants)
        with np.errstate(all="ignore"):
            over = np.where(differ, np.abs(x.params - y.params) / room, 0.0)
        over = np.nan_to_num(np.where(np.isfinite(room), over, 0.0), nan=np.inf)
        if found.parted is None:
            found.parted = _place(x, y, over, *np.unravel_index(int(np.argmax(differ)), differ.shape))
        if np.max(over) > ratio:
            ratio = float(np.max(over))
            found.largest = _place(x, y, over, *np.unravel_index(int(np.argmax(over)), over.shape))
    found.ratio = ratio if math.isfinite(ratio) else None


def _place(x: Seen, y: Seen, over: Any, step: Any, element: Any) -> dict[str, Any]:
    one, other = float(x.params[step, element]), float(y.params[step, element])
    return {
        "run": x.run.name,
        "step": int(step) + 1,
        "element": int(element),
        "one": one,
        "other": other,
        "ulps": float(FLOAT_FORMATS[x.dtype].in_ulps(abs(one - other), one, other)),
        "ratio": float(over[step, element]),
        "hyper": dict(x.run.hyper),
    }


def _train(dtype: str, rule: str, a: Subject, b: Subject, takes: set[str], steps: int) -> tuple[list[float], float]:
    """The distance between two trainings on digits, each with the gradients at its own parameters."""
    from xopt.conformance.compare.candidate import split
    from xopt.conformance.training.data import BATCH, SHAPES, data, loss_and_grad, start

    images, labels = data()
    usual = {name: x for name, x in USUAL.items() if name in takes} | ({"lr": RULES[rule].defaults["lr"]} if "lr" in takes else {})
    params = [start(), start()]
    for subject, first in zip((a, b), params, strict=True):
        subject.start([first], dtype, subject.arguments(rule, usual))
    growth = []
    for i in range(steps):
        at = i * BATCH % (len(images) - BATCH)
        for j, subject in enumerate((a, b)):
            w = {name: part.astype(np.float64) for name, part in split(params[j], SHAPES)}
            _, grad = loss_and_grad(np, w, images[at : at + BATCH].astype(np.float64), labels[at : at + BATCH].astype(np.float64))
            vector = np.concatenate([np.ravel(grad[name]) for name in SHAPES])
            (params[j],) = subject.step([vector.astype(dtype).astype(np.float64)], dtype)
        growth.append(float(np.max(np.abs(params[0] - params[1]))))
    return growth, float(np.max(np.abs(params[0] - start())))


def _words(found: Agreed) -> str:
    if found.same_bits:
        return f"the same bits in every run, as {found.rule} in {found.dtype}."
    first, largest = found.parted, found.largest or found.parted
    assert first is not None
    assert largest is not None
    said = (
        f"they part in run {first['run']!r} at step {first['step']}, element {first['element']}, by {first['ulps']:.2g} ulps; "
        f"at most they are {largest['ratio']:.2g} of what rounding explains apart."
    )
    if found.status == 0:
        said += " So much is expected of two correct libraries."
    else:
        said += " Rounding does not explain it" + ("; their conventions do." if all(found.named) else ".")
    for target, names, named in zip(found.targets, found.conventions, found.named, strict=True):
        what = (
            f"{found.rule}{' with ' if names else ''}{' and '.join(names)}"
            if named
            else f"nothing near {found.rule} that has a name"
        )
        said += f" {target} computes {what}."
    if found.growth:
        n = len(found.growth)
        said += (
            f" Trained on digits, their parameters are {found.growth[0]:.2g} apart after 1 step "
            f"and {found.growth[-1]:.2g} after {n}, "
            f"in which they moved by {found.moved:.2g}."
        )
    return said
