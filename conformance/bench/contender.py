"""What a contender of the benchmark is: it takes the same step again and again, on numbers and a state of its own."""

import importlib.util
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from xopt import backends
from xopt.backends import BACKENDS
from xopt.conformance.bench.shapes import Shape
from xopt.program import Program, record
from xopt.rules import RULES

EAGER, FUSED, LIMIT, HAND, PEER = "eager", "fused", "limit", "by hand", "peer"


class Running(NamedTuple):
    """A contender with its numbers in place."""

    step: Callable[[], object]
    wait: Callable[[], object]  # until what was stepped is computed
    params: Callable[[], list[Any]]  # as they are now, as NumPy arrays
    between: Callable[[], object] | None = None  # what a training loop does between two steps: see ``loop_of``


class Contender(NamedTuple):
    name: str
    library: str
    device: str
    kind: str  # EAGER, FUSED, LIMIT, HAND or PEER
    steps: str  # the rule that it takes steps of
    bytes_per_number: int  # that this rule must move, for each parameter
    arrays: int  # like the parameters that it keeps: them, its state and the gradient
    why_not: Callable[[], str | None]  # why it cannot run here
    prepare: Callable[[Sequence[Shape], int], Running]  # from shapes and a seed


def program_of(rule: str) -> Program:
    """What a rule does, with its default hyperparameters: a decay of 0, as one of AggMo's is, keeps nothing."""
    found = RULES[rule]
    _, *slots, _ = found.init(np.zeros(1, np.float32))
    return record(found, slots, found.coefficients(1, *found.carried.values(), **found.defaults))


def numbers(shapes: Sequence[Shape], seed: int) -> tuple[list[Any], list[Any]]:
    """Parameters and their gradients in float32: up to a million random numbers each, repeated."""
    total = sum(map(math.prod, shapes))
    some = np.random.default_rng(seed).standard_normal((2, min(total, 1 << 20)), dtype=np.float32)
    params, grads = (_cut(np.resize(column, total), shapes) for column in some)
    return params, grads


def _cut(column: Any, shapes: Sequence[Shape]) -> list[Any]:
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [np.array(x).reshape(shape) for x, shape in zip(np.split(column, ends[:-1]), shapes, strict=True)]


def tree(arrays: list[Any]) -> Any:
    """One leaf as it is, more as a list."""
    return arrays[0] if len(arrays) == 1 else arrays


def leaves(params: Any) -> list[Any]:
    return params if isinstance(params, list) else [params]


MOST = 1 << 25
"""Numbers of the array that ``loop_of`` goes through at most: with its result they take 256 MB."""


def loop_of(backend: Any, grads: Sequence[Any], take: Callable[[list[Any]], object]) -> Callable[[], object]:
    """What a training loop does between two steps: its library goes through other memory, eight times that of the gradients as long
    as that is not too much, and then there are new gradients, which ``take`` is given."""
    given = list(grads)
    other: Any = None

    def between() -> None:
        nonlocal other
        if other is None:  # who takes no part in a loop needs no memory for it
            other = backend.asarray(np.zeros(min(8 * sum(math.prod(x.shape) for x in given), MOST), np.float32), "float32")
        other = backend.xp.negative(other)
        fresh = [backend.xp.asarray(x, copy=True) for x in given]
        for x in (other, *fresh):
            backend.synchronise(x)
        take(fresh)

    return between


def missing(module: str) -> str | None:
    """Why a module cannot be imported."""
    return None if importlib.util.find_spec(module) else f"{module.replace('_', '-')} is not installed"


def no_device(backend: str, device: str) -> str | None:
    """Why a backend cannot compute on a device here. Imports its library where it is installed."""
    if BACKENDS[backend].installed_version() is None:
        return f"{backend} is not installed"
    try:
        backends.get(backend, device)
    except RuntimeError as error:
        return str(error).removeprefix(f"backend {backend} cannot be used: ").partition("; xopt.backends")[0]
    except ValueError:
        return f"{backend} finds no device {device}"
    return None
