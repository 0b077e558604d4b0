"""All operands of an operation, chunk by chunk, through every way of computing it; what was done is kept, and gone on from."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, FloatFormat
from xopt.conformance.exhaustive.exact import (
    COMPARED,
    ROUNDED,
    UNARY,
    bits,
    exactly,
    expected,
    flushed,
    is_nan,
    nearest,
    sign_bit,
    ulps,
    values,
)
from xopt.conformance.exhaustive.ways import WORDS, Way, Words, fusable

CHUNK = 1 << 20
"""Operands, or pairs, that a library is given at once."""

BLOCK = 1 << 15
"""Those of which the right results are computed at once: what that makes of them stays in the cache."""


class Task(NamedTuple):
    """One operation in one dtype, on all operands, or on pairs that are drawn."""

    operation: str
    dtype: str
    drawn: int = 0  # pairs; 0 for all there are

    @property
    def form(self) -> FloatFormat:
        return FLOAT_FORMATS[self.dtype]

    @property
    def name(self) -> str:
        return f"{self.operation} {self.dtype}" + (" drawn" if self.drawn else "")

    @property
    def total(self) -> int:
        return self.drawn or 1 << (bits(self.form) * (1 if self.operation in UNARY else 2))

    def operands(self, start: int, stop: int) -> list[Words]:
        """Those of a chunk, in order: the first operand changes last."""
        word = WORDS[self.dtype]
        if self.drawn:
            return [x.astype(word) for x in _pairs(self.form, start, stop - start)]
        if self.operation in UNARY:
            return [np.arange(start, stop, dtype=np.uint64).astype(word)]
        each = 1 << bits(self.form)  # a chunk holds whole rows of so many pairs
        rows = np.arange(start // each, stop // each).astype(word)
        return [np.repeat(rows, each), np.tile(np.arange(each).astype(word), rows.size)]


def _pairs(form: FloatFormat, seed: int, count: int) -> np.ndarray:
    """Patterns of pairs, half of them of like exponents, so that sums and differences have something to round."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 1 << bits(form), (2, count))
    near = x + (rng.integers(-form.digits - 2, form.digits + 3, count) << (form.digits - 1))
    near = (near & -(1 << (form.digits - 1))) | (y & ((1 << (form.digits - 1)) - 1))
    near = (near & (sign_bit(form) - 1)) | (y & sign_bit(form))
    return np.stack([x, np.where(np.arange(count) % 2, near, y)])


DRAWN = 1 << 24
"""Pairs of float32 that are drawn: of all there are 2^64."""


def tasks() -> list[Task]:
    """What there is to do, the quickest first."""
    unary = [Task(operation, dtype) for dtype in ("float16", "bfloat16", "float32") for operation in UNARY]
    pairs = [operation for operation in (*ROUNDED, *COMPARED) if operation not in UNARY]
    return [*unary, *(Task(one, "float32", DRAWN) for one in pairs), *(Task(one, "float16") for one in pairs)]


@dataclass
class Example:
    """Operands, what came of them and what should have, as bits in hexadecimal."""

    operands: list[str]
    got: str
    right: str


@dataclass
class Tally:
    """What was found of one way so far."""

    tried: int = 0
    wrong: int = 0  # results that are neither right nor explained by flushing subnormal numbers
    flushed: int = 0  # that are right once subnormal operands or results are 0
    ulps: float = 0.0  # the largest error of a wrong one
    worst: Example | None = None
    flush: Example | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> "Tally":
        examples = {name: Example(**found[name]) for name in ("worst", "flush") if found[name]}
        return cls(**{**found, **examples})


class UnprovedError(AssertionError):
    """The expected results themselves were not shown to be nearest to the exact ones."""


@dataclass
class Progress:
    """How far a task is."""

    task: Task
    done: int = 0
    seconds: float = 0.0
    tallies: dict[str, Tally] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        return self.done >= self.task.total


def right(task: Task, operands: Sequence[Words], guess: Words) -> Words:
    """The right results of a chunk: the guessed ones where they are proved, others where they are not.

    Raises UnprovedError where an expected number is not proved either.
    """
    form = task.form
    if task.operation not in ROUNDED:
        found = np.empty_like(guess)
        for block, numbers in _blocks(operands):
            found[block] = expected(task.operation, numbers, form)
        return found
    found = guess.copy()
    for block, numbers in _blocks(operands):
        at = np.flatnonzero(~nearest(task.operation, numbers, found[block].astype(np.int64), form))
        if at.size:
            own = [np.broadcast_to(x, found[block].shape)[at] for x in numbers]
            results = expected(task.operation, own, form)
            found[block.start + at] = results
            number = ~is_nan(results, form)
            if not nearest(task.operation, [x[number] for x in own], results[number], form).all():
                msg = f"{task.name}: expected results from operands {[hex(x[0]) for x in own]} on are not the nearest numbers"
                raise UnprovedError(msg)
    return found


def _blocks(operands: Sequence[Words]) -> Iterator[tuple[slice, list[np.ndarray]]]:
    for start in range(0, operands[0].size, BLOCK):
        yield slice(start, start + BLOCK), [_spared(x[start : start + BLOCK].astype(np.int64)) for x in operands]


def _spared(numbers: np.ndarray) -> np.ndarray:
    """One number in place of many that are the same, as the first operand of pairs is."""
    return numbers[:1] if numbers[0] == numbers[-1] and (numbers == numbers[0]).all() else numbers


def judge(task: Task, operands: Sequence[Words], want: Words, got: Words, tally: Tally) -> None:
    """Counts what is wrong in a chunk."""
    tally.tried += got.size
    form = task.form
    at = np.flatnonzero(got != want)
    if task.operation not in COMPARED and at.size:
        a, b = got[at].astype(np.int64), want[at].astype(np.int64)
        fine = is_nan(a, form) & is_nan(b, form)
        if task.operation == "sign":  # of a zero: the standard says 0, and leaves its sign open
            fine |= ((a | b) & (sign_bit(form) - 1)) == 0
        at = at[~fine]
    if not at.size:
        return
    own, found, best = [x[at].astype(np.int64) for x in operands], got[at].astype(np.int64), want[at].astype(np.int64)
    by_flush = _by_flush(task, own, found, best)
    tally.flushed += int(by_flush.sum())
    if by_flush.any() and tally.flush is None:
        tally.flush = _example(own, found, best, int(np.argmax(by_flush)))
    wrong = np.flatnonzero(~by_flush)
    tally.wrong += wrong.size
    if wrong.size:
        own, found, best = [x[wrong] for x in own], found[wrong], best[wrong]
        error = np.ones(wrong.size)
        if task.operation in ROUNDED:
            error = ulps(values(found, form), exactly(task.operation, own, form), form)
        worst = int(np.argmax(error))
        if error[worst] > tally.ulps:
            tally.ulps, tally.worst = float(error[worst]), _example(own, found, best, worst)


def _example(operands: Sequence[np.ndarray], got: np.ndarray, want: np.ndarray, i: int) -> Example:
    return Example([hex(x[i]) for x in operands], hex(got[i]), hex(want[i]))


def _by_flush(task: Task, operands: Sequence[np.ndarray], got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Where a result is what comes of flushing subnormal operands, the result, or both."""
    form = task.form
    of_flushed = expected(task.operation, [flushed(x, form) for x in operands], form)
    results = [of_flushed]
    if task.operation not in COMPARED:
        results += [flushed(want, form), flushed(of_flushed, form)]
    magnitude = (1 << bits(form)) - 1
    if task.operation == "sign":
        magnitude >>= 1
    either = [(got & magnitude) == (x & magnitude) for x in results]
    if task.operation not in COMPARED:
        either.append(is_nan(got, form) & is_nan(of_flushed, form))
    found: np.ndarray = np.logical_or.reduce(either)
    return found


def sweep(
    progress: Progress, ways: Sequence[Way], save: Callable[[], None], *, until: float = float("inf"), every: float = 20.0
) -> Iterator[Progress]:
    """Goes on with a task to its end, or until a moment of ``time.monotonic``; saves, and yields, every so many seconds."""
    task = progress.task
    runners = {way.name: way.runner(task.operation, task.dtype) for way in ways if can(way, task)}
    for name in runners:
        progress.tallies.setdefault(name, Tally())
    began = saved = time.monotonic()
    with np.errstate(all="ignore"):
        while not progress.finished and runners and began < until:
            stop = min(progress.done + CHUNK, task.total)
            operands = task.operands(progress.done, stop)
            results = {name: run(*operands) for name, run in runners.items()}
            want = right(task, operands, next(iter(results.values())))
            for name, got in results.items():
                judge(task, operands, want, got, progress.tallies[name])
            now = time.monotonic()
            progress.done, progress.seconds, began = stop, progress.seconds + now - began, now
            if now - saved > every or progress.finished:
                save()
                saved = now
                yield progress
    save()


def can(way: Way, task: Task) -> bool:
    """Whether there is such a way: the dtype, and in a fused step a result that is a number."""
    return task.dtype in way.dtypes() and (way.mode != "fused" or fusable(task.operation))
