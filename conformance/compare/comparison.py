"""Examples compared with NumPy's numbers and with the golden reference, and what a cell keeps of them."""

from collections.abc import Sequence
from copy import copy
from itertools import count, zip_longest
from typing import Any, NamedTuple

import hypothesis
import numpy as np

from xopt import backends
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, FloatFormat, arithmetic_of, round_to
from xopt.conformance.compare.candidate import BFloat16OnNumPy, Candidate, Shapes, split
from xopt.conformance.compare.reference import Columns, Comparison, Reference
from xopt.conformance.golden import Golden
from xopt.conformance.inputs.census import look_at, saw
from xopt.conformance.inputs.explore import ViolationError
from xopt.conformance.inputs.trajectories import COMPILED, LARGEST_COUNT, Part, Trajectory
from xopt.conformance.results import BINS, Cell, brief
from xopt.conformance.target import Target
from xopt.rule import Rule

LATE_COUNTS = (1, 255, 4096, 65536, 2**31)
"""Steps after which examples that begin are counted: bias corrections and counts are to be right late, too."""


class Subject:
    """One cell under check: its candidate, and the formats in which its backend computes."""

    def __init__(self, rule: Rule[Any, Any], dtype: str, target: Target, shapes: Shapes) -> None:
        backend = backends.get(target.backend, target.device)
        self.result = Cell(rule.name, backend.name, backend.device, dtype, target.mode)
        self.candidate = Candidate(rule, backend, dtype, target.mode, shapes)
        self.compute = target.compute(dtype)

    @property
    def plain(self) -> bool:
        """Correct rounding, subnormals kept, coefficients on the host: the bound is NumPy's own."""
        return self.compute == FLOAT_FORMATS[self.compute.name] and not self.candidate.traced


class Place(NamedTuple):
    """One number of a comparison: where an error was seen."""

    kind: str  # "step" or "trajectory"
    step: int
    comparison: Comparison
    at: int


class Piece(NamedTuple):
    """The leaves of an example that share hyperparameters: compared as an example, stepped in one tree with all other leaves."""

    case: Trajectory  # with the hyperparameters and the elements of these leaves alone
    part: Part
    shapes: Shapes
    at: Any  # the indices of its elements in the vector of all leaves


def pieces_of(case: Trajectory, shapes: Shapes) -> list[Piece]:
    """One piece for each part of an example's leaves."""
    places = dict(split(np.arange(len(case.params)), shapes))
    pieces = []
    for part in case.parts or [Part(list(shapes), case.hyper, {})]:
        at = np.concatenate([np.ravel(places[leaf]) for leaf in part.leaves])
        own = case._replace(hyper=part.hyper, params=case.params[at], grads=[g[at] for g in case.grads])
        pieces.append(Piece(own, part, {leaf: shapes[leaf] for leaf in part.leaves}, at))
    return pieces


class Summary:
    """All comparisons of one run in the few numbers that a cell keeps."""

    def __init__(self, results: list[tuple[list[Comparison], list[Comparison]]]) -> None:
        self.wrong: Place | None = None
        self.worst: Place | None = None
        self.ratio = self.ulps = 0.0
        self.vacuous = self.trajectory_vacuous = 0
        self.histogram = np.zeros(BINS, dtype=int)
        self.growth: list[float] = []
        for t, (local, whole) in enumerate(results, start=1):
            for comparison in local:
                ratio, largest, vacuous = self._look("step", t, comparison)
                self.vacuous += vacuous
                self.histogram += np.histogram(ratio[ratio > 0], BINS, (0.0, 1.0))[0]
                self.ulps = max(self.ulps, float(np.max(comparison.ulps[np.isfinite(comparison.ulps)], initial=0.0)))
                if largest > self.ratio:
                    self.ratio, self.worst = largest, Place("step", t, comparison, int(np.nanargmax(ratio)))
            looked = [self._look("trajectory", t, comparison) for comparison in whole]
            self.growth.append(max(largest for _, largest, _ in looked))
            self.trajectory_vacuous += sum(vacuous for *_, vacuous in looked)

    def _look(self, kind: str, t: int, comparison: Comparison) -> tuple[Any, float, int]:
        """Error/bound, the largest of them, and how many numbers have none because their bound is vacuous."""
        ratio = np.atleast_1d(comparison.ratio)
        largest = float(np.max(np.nan_to_num(ratio), initial=0.0))
        if largest > 1 and self.wrong is None:
            self.wrong = Place(kind, t, comparison, int(np.nanargmax(ratio)))
        return ratio, largest, int(np.sum(np.isnan(ratio)))


class Comparer:
    """Runs examples on NumPy and on every subject, and notes in each cell how they compare."""

    def __init__(
        self, rule: Rule[Any, Any], golden: Golden, dtype: str, subjects: list[Subject], shapes: Shapes, name: str = "cells"
    ) -> None:
        self.name = name  # in the census
        self.rule = rule
        self.golden = golden
        self.dtype = dtype
        self.subjects = subjects
        self.shapes = shapes
        numpy = backends.get("numpy")
        self.baseline: Candidate = (
            BFloat16OnNumPy(rule, numpy, shapes) if dtype == "bfloat16" else Candidate(rule, numpy, dtype, "eager", shapes)
        )
        self.store = FLOAT_FORMATS[dtype]
        self.compute = FLOAT_FORMATS[arithmetic_of(dtype)]
        self.examples = 0
        self.found: ViolationError | None = None  # the first violation
        self.largest = 0.0  # error/bound of an example

    def run(self, case: Trajectory) -> None:
        """One example for Hypothesis, which climbs to the largest error/bound."""
        if self.found is None or not self.found.details["again"]:  # else there is nothing to shrink
            hypothesis.target(self.example(case), label="error/bound")

    def example(self, case: Trajectory) -> float:
        """Returns the largest error/bound that it saw. Raises ViolationError where a subject leaves its bound."""
        self.examples += 1
        self.largest = 0.0
        with np.errstate(all="ignore"):
            base, grads = self._baseline(case)
        pieces = [
            piece._replace(case=piece.case._replace(grads=[g[piece.at] for g in grads])) for piece in pieces_of(case, self.shapes)
        ]
        self._look_at(case, pieces, grads)
        results = [self._compare(piece.case, self.compute, False, states) for piece, states in zip(pieces, base, strict=True)]
        summaries = [Summary(result) for result in results]
        subnormal = [
            np.logical_or.accumulate(
                [np.any([c.may_be_subnormal for c in local if np.ndim(c.may_be_subnormal)], axis=0) for local, _ in result]
            )
            for result in results
        ]
        for subject in self.subjects:
            if self._leaves_out(subject, case):
                continue
            found: list[list[Columns]] | None = None
            try:
                found = self._run(subject, case, grads)
                wrong = self._look(subject, pieces, base, found, summaries, subnormal)
            except Exception as error:  # noqa: BLE001 - whatever a backend raises, or a state that cannot be compared
                wrong = raised(error, self.shapes, pieces)
            if wrong is not None:
                wrong["again"] = self._again(subject, case, grads, found)
                subject.result.found_after = subject.result.found_after or self.examples
                failed = ViolationError(subject.result, wrong)
                self.found = self.found or failed
                raise failed
            subject.result.examples += 1
            subject.result.trajectories += case.rows
            subject.result.steps += case.rows * len(grads)
        return self.largest

    def _look(
        self,
        subject: Subject,
        pieces: list[Piece],
        base: list[list[Columns]],
        found: list[list[Columns]],
        summaries: list[Summary],
        subnormal: list[Any],
    ) -> dict[str, Any] | None:
        """Notes what a subject computed of each piece, up to the first that is wrong, of which it returns the details."""
        for i, (piece, states) in enumerate(zip(pieces, found, strict=True)):
            differ = [_differ(a, b) for a, b in zip(states[1:], base[i][1:], strict=True)]
            same = not any(np.any(d) for step in differ for d in step)
            own = summaries[i]
            if not (same and subject.plain):
                own = Summary(self._compare(piece.case, subject.compute, subject.candidate.traced, states))
            if own.wrong is not None:
                return self._details(own.wrong, states, pieces, i)
            self._note(subject.result, own, differ, subnormal[i], states, pieces, i)
            self.largest = max(self.largest, own.ratio)
        return None

    def _leaves_out(self, subject: Subject, case: Trajectory) -> bool:
        """Whether a subject skips an example: it would be compiled anew, or the compiled step count is too narrow for it."""
        compiled = subject.candidate.backend.compiles_each(subject.result.mode)
        narrow = subject.result.mode == "traced" and case.steps_before > LARGEST_COUNT
        return narrow or (compiled and (case.setting >= COMPILED or bool(case.parts)))

    def _run(self, subject: Subject, case: Trajectory, grads: list[Any]) -> list[list[Columns]]:
        with subject.candidate.backend.session(), np.errstate(all="ignore"):
            return subject.candidate.run_parts(case.params, grads, case.hyper, case.steps_before, case.parts)

    def _again(self, subject: Subject, case: Trajectory, grads: list[Any], found: list[list[Columns]] | None) -> str | None:
        """What a second run of a wrong input gives, where it differs from the first: there is a race, or hidden state."""
        try:
            again = self._run(subject, case, grads)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises
            return brief(error) if found else None
        if found is None:
            return "nothing is raised"
        for states, others in zip(found, again, strict=True):
            for t, (one, other) in enumerate(zip(states, others, strict=True)):
                for mask, x, y in zip(_differ(one, other), _numbers(one), _numbers(other), strict=True):
                    if np.any(mask):
                        at = int(np.argmax(mask))
                        return f"after step {t} a number is {np.ravel(y)[at]!r}, and was {np.ravel(x)[at]!r}"
        return None

    def _look_at(self, case: Trajectory, pieces: list[Piece], grads: list[Any]) -> None:
        """Counts, for the census, what this example contains."""
        for piece in pieces:
            look_at(self.name, self.rule, piece.case.hyper)
        saw(f"{self.name}: examples")
        saw(f"{self.name}: examples in {self.dtype}")
        saw(f"{self.name}: examples of more than one step", len(grads) > 1)
        saw(f"{self.name}: examples of several groups", len(pieces) > 1)
        for late in LATE_COUNTS:
            saw(f"{self.name}: examples that begin after {late:,} steps", case.steps_before >= late)
        saw(f"{self.name}: parameters", case.params.size)
        saw(f"{self.name}: parameters of 0", np.sum(case.params == 0))
        for drawn, grad in zip(case.grads, grads, strict=True):
            saw(f"{self.name}: gradients", grad.size)
            saw(f"{self.name}: gradients of 0", np.sum(grad == 0))
            saw(
                f"{self.name}: gradients beyond 2**-12 ... 2**12",
                np.sum((np.abs(grad) > 2**12) | ((grad != 0) & (np.abs(grad) < 2**-12))),
            )
            if self.rule.memory:
                saw(f"{self.name}: gradients of rules with a memory", grad.size)
                saw(f"{self.name}: gradients that cancel it", np.sum((grad != drawn) & (grad != 0)))

    def _baseline(self, case: Trajectory) -> tuple[list[list[Columns]], list[Any]]:
        """NumPy's states, for each piece, and the gradients."""
        pieces, baseline = pieces_of(case, self.shapes), self.baseline
        baseline.start(case.params, case.hyper, case.steps_before, case.parts)
        states = [[baseline.columns(piece.shapes)] for piece in pieces]
        grads = []
        for t, (grad, cancels) in enumerate(zip(case.grads, case.cancels, strict=True)):
            full = np.array(grad)
            for piece, own in zip(pieces, states, strict=True):
                some = cancels[piece.at] if np.ndim(cancels) else cancels
                full[piece.at] = self._cancelling(own[-1], piece.case.grads[t], some, piece.case.hyper)
            grads.append(full)
            baseline.step(full)
            for piece, own in zip(pieces, states, strict=True):
                own.append(baseline.columns(piece.shapes))
        return states, grads

    def _cancelling(self, columns: Columns, grad: Any, cancels: Any, hyper: dict[str, Any]) -> Any:
        """The gradient, with ``-beta * m / (1 - beta)`` in some places: it drives an average, and the argument of a sign, to 0."""
        if not self.rule.memory or not np.any(cancels):
            return grad
        slot, decay = next(iter(self.rule.memory.items()))
        memory, beta = columns[1 + self.rule.slots.index(slot)], (self.rule.defaults | hyper)[decay]
        if isinstance(memory, tuple):
            memory, beta = memory[-1], beta[-1]
        if memory is None:
            return grad
        opposite = round_to(-beta * memory / (1 - beta), self.dtype)
        return np.where(cancels & (np.abs(opposite) < np.sqrt(self.store.largest) / 16), opposite, grad)

    def _compare(
        self, case: Trajectory, compute: FloatFormat, traced: bool, states: list[Columns]
    ) -> list[tuple[list[Comparison], list[Comparison]]]:
        """For each step: the comparison of that step alone, and of the trajectory up to it."""
        whole = Reference(self.rule, case.hyper, compute, self.store, traced, self.golden)
        local = copy(whole)
        whole.restart(states[0])
        first = whole.step(case.grads[0], case.steps_before + 1, states[1])
        results = [(first, first)]
        for grad, t, before, after in zip(case.grads[1:], count(case.steps_before + 2), states[1:], states[2:], strict=False):
            local.restart(before)
            results.append((local.step(grad, t, after), whole.step(grad, t, after)))
        return results

    def _note(
        self,
        cell: Cell,
        found: Summary,
        differ: list[list[Any]],
        subnormal: Any,
        states: list[Columns],
        pieces: list[Piece],
        i: int,
    ) -> None:
        for masks, excuse in zip(differ, subnormal, strict=True):
            for mask in masks:
                excused = excuse if np.ndim(mask) else np.any(excuse)
                cell.elements += int(np.size(mask))
                cell.differ += int(np.sum(mask & ~excused))
                cell.differ_subnormal += int(np.sum(mask & excused))
        if found.worst is not None and found.ratio > cell.ratio:
            cell.ratio, cell.worst = found.ratio, self._details(found.worst, states, pieces, i)
        cell.ulps = max(cell.ulps, found.ulps)
        cell.histogram = [int(a + b) for a, b in zip(cell.histogram, found.histogram, strict=True)]
        cell.growth = [max(pair) for pair in zip_longest(cell.growth, found.growth, fillvalue=0.0)]
        cell.trajectory_ratio = max(cell.growth)
        cell.vacuous += found.vacuous
        cell.trajectory_vacuous += found.trajectory_vacuous
        saw(f"{self.name}: numbers compared", sum(np.size(mask) for masks in differ for mask in masks))

    def _details(self, place: Place, states: list[Columns], pieces: list[Piece], i: int) -> dict[str, Any]:
        kind, t, comparison, at = place
        piece = pieces[i]
        leaf, element = _place(at, piece.shapes)
        return {
            "mode": kind,
            "step": t,
            "column": comparison.name,
            "leaf": leaf,
            "element": element,
            "error": _finite(np.atleast_1d(comparison.error)[at]),
            "bound": float(np.atleast_1d(comparison.bound)[at]),
            **_element(piece, at, t),
            "got": _finite(states[t][0][at]),
            "message": None,
            "beside": _beside(pieces, i, t),
            "again": None,
        }


def raised(error: BaseException, shapes: Shapes, pieces: Sequence[Piece] = ()) -> dict[str, Any]:
    """The details of an exception: no number is wrong, so that the first element of the first leaf stands for all."""
    steps = len(pieces[0].case.grads) if pieces else 0
    nothing: dict[str, Any] = {"hyper": {}, "taken": 0, "carried": {}, "params": 0.0, "grads": []}
    return {
        "mode": "raised",
        "step": steps,
        "column": "",
        "leaf": next(iter(pieces[0].shapes if pieces else shapes)),
        "element": [],
        "error": None,
        "bound": 0.0,
        **(_element(pieces[0], 0, steps) if pieces else nothing),
        "got": None,
        "message": brief(error),
        "beside": _beside(list(pieces), 0, steps),
        "again": None,
    }


def _element(piece: Piece, at: int, t: int) -> dict[str, Any]:
    """What makes one element of a piece come about again."""
    case = piece.case
    return {
        "hyper": case.hyper,
        "taken": case.steps_before,
        "carried": piece.part.carried,
        "params": float(case.params[at]),
        "grads": [float(g[at]) for g in case.grads[:t]],
    }


def _beside(pieces: list[Piece], i: int, t: int) -> dict[str, Any]:
    """The first element of each other piece, by its first leaf: an error of groups is reproduced only together with them."""
    return {next(leaf for leaf in p.shapes if 0 not in p.shapes[leaf]): _element(p, 0, t) for j, p in enumerate(pieces) if j != i}


def _finite(x: Any) -> float | None:
    """For JSON, which has no NaN or infinity."""
    return float(x) if np.isfinite(x) else None


def _differ(one: Columns, other: Columns) -> list[Any]:
    """Column by column, where two states differ in bits; the sign of a zero and the payload of a NaN do not count."""
    masks: list[Any] = []
    for a, b in zip(one, other, strict=True):
        if isinstance(a, tuple):
            masks += _differ(a, b)
        elif a is not None:
            masks.append((a != b) & ~(np.isnan(a) & np.isnan(b)))
    return masks


def _numbers(columns: Columns) -> list[Any]:
    """Those of a state, in the order of ``_differ``."""
    return [
        x for column in columns for x in (_numbers(column) if isinstance(column, tuple) else [] if column is None else [column])
    ]


def _place(at: int, shapes: Shapes) -> tuple[str, list[int]]:
    """The leaf and the index within it of element ``at`` of the vector of all leaves."""
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        if at < size:
            return name, [int(i) for i in np.unravel_index(at, shape)]
        at -= size
    return "", []
