"""The check of one rule in one dtype: the same trajectories on every backend and in every mode, each cell with its verdict."""

import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import hypothesis
import numpy as np

from xopt import backends
from xopt.conformance.bounded import FORMATS, Format
from xopt.conformance.candidate import BFloat16OnNumPy, Candidate, Shapes
from xopt.conformance.generate import COMPILED, SHAPES, Trajectory, rounded, settings, trajectories
from xopt.conformance.reference import Columns, Comparison, Reference
from xopt.rule import Rule
from xopt.rules import RULES

IDENTICAL = "bit-identical"
SUBNORMALS = "identical except subnormals"
WITHIN = "within the bound"
WRONG = "wrong"
NOT_RUN = "not run"


@dataclass
class Cell:
    """What was found of one rule on one backend, in one dtype and mode."""

    rule: str
    backend: str
    device: str
    dtype: str
    mode: str
    reason: str | None = None  # why it did not run
    examples: int = 0  # trajectories
    steps: int = 0
    elements: int = 0  # numbers compared, over all steps and columns
    differ: int = 0  # of these, how many are not NumPy's bits
    differ_subnormal: int = 0  # and how many more where a subnormal number may have occurred
    ratio: float = 0.0  # largest error/bound of a single step from the candidate's own state
    trajectory_ratio: float = 0.0  # largest error/bound with the errors of all steps before
    ulps: float = 0.0  # largest error of a single step, in units in the last place at the scale of the step
    vacuous: int = 0  # numbers of which a single step's bound says nothing
    trajectory_vacuous: int = 0
    explanation: list[str] = field(default_factory=list)  # what the probes say of differences
    wrong: dict[str, Any] | None = None  # the first wrong number, and how to see it again

    @property
    def verdict(self) -> str:
        if self.wrong is not None:
            return WRONG
        if self.elements == 0:
            return NOT_RUN
        if self.differ:
            return WITHIN
        return SUBNORMALS if self.differ_subnormal else IDENTICAL

    def reset(self) -> None:
        """Forgets what was found."""
        self.__dict__.update(Cell(self.rule, self.backend, self.device, self.dtype, self.mode).__dict__)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


_SETTINGS = hypothesis.settings(
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    print_blob=False,
    verbosity=hypothesis.Verbosity.quiet,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
)


class WrongError(Exception):
    """Raised at the first wrong number, so that Hypothesis looks for the smallest input that shows it."""

    def __init__(self, cell: Cell, details: dict[str, Any]) -> None:
        super().__init__(f"{cell.rule} on {cell.backend}: {details}")
        self.cell = cell
        self.details = details


class Subject:
    """One cell under check: its candidate, and the formats in which its backend computes."""

    def __init__(self, rule: Rule[Any, Any], backend: Any, dtype: str, mode: str, shapes: Shapes, compute: Format) -> None:
        self.cell = Cell(rule.name, backend.name, backend.device, dtype, mode)
        self.candidate = Candidate(rule, backend, dtype, mode, shapes)
        self.compute = compute

    @property
    def plain(self) -> bool:
        """Correct rounding, subnormals kept, coefficients on the host: the bound is NumPy's own."""
        return self.compute == FORMATS[self.compute.name] and not self.candidate.traced


class Check:
    """Runs trajectories on NumPy and on every subject, and notes in each cell how they compare."""

    def __init__(self, rule: Rule[Any, Any], dtype: str, subjects: list[Subject], shapes: Shapes) -> None:
        self.rule = rule
        self.dtype = dtype
        self.subjects = subjects
        self.shapes = shapes
        numpy = backends.get("numpy")
        self.baseline: Candidate = (
            BFloat16OnNumPy(rule, numpy, shapes) if dtype == "bfloat16" else Candidate(rule, numpy, dtype, "eager", shapes)
        )
        self.store = FORMATS[dtype]
        self.compute = FORMATS["float64" if dtype == "float64" else "float32"]

    def trajectory(self, case: Trajectory) -> None:
        """Raises WrongError where a subject leaves its bound."""
        with np.errstate(all="ignore"):
            base, grads = self._baseline(case)
        results = list(self._compare(case.hyper, self.compute, False, base, grads))
        touched = np.logical_or.accumulate(
            [np.any([c.touched for c in local if np.ndim(c.touched)], axis=0) for local, _ in results]
        )
        for subject in self.subjects:
            if subject.cell.mode == "traced" and case.setting >= COMPILED:
                continue
            with subject.candidate.backend.session(), np.errstate(all="ignore"):
                states = subject.candidate.run(case.params, grads, case.hyper)
            differ = [_differ(a, b) for a, b in zip(states[1:], base[1:], strict=True)]
            same = not any(np.any(d) for step in differ for d in step)
            own = results
            if not (same and subject.plain):
                own = list(self._compare(case.hyper, subject.compute, subject.candidate.traced, states, grads))
            self._note(subject.cell, own, differ, touched, states, case, grads)

    def _baseline(self, case: Trajectory) -> tuple[list[Columns], list[Any]]:
        states = [self.baseline.start(case.params, case.hyper)]
        grads = []
        for grad, cancels in zip(case.grads, case.cancels, strict=True):
            grads.append(self._cancelling(states[-1], grad, cancels, case.hyper))
            states.append(self.baseline.step(grads[-1]))
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
        opposite = rounded(-beta * memory / (1 - beta), self.dtype)
        return np.where(cancels & (np.abs(opposite) < np.sqrt(self.store.largest) / 16), opposite, grad)

    def _compare(
        self, hyper: dict[str, Any], compute: Format, traced: bool, states: list[Columns], grads: list[Any]
    ) -> Iterator[tuple[list[Comparison], list[Comparison]]]:
        """For each step: the comparison of that step alone, and of the trajectory up to it."""
        local = Reference(self.rule, hyper, compute, self.store, traced)
        whole = Reference(self.rule, hyper, compute, self.store, traced)
        whole.restart(states[0])
        for t, grad in enumerate(grads, start=1):
            local.restart(states[t - 1])
            yield local.step(grad, t, states[t]), whole.step(grad, t, states[t])

    def _note(
        self,
        cell: Cell,
        results: list[tuple[list[Comparison], list[Comparison]]],
        differ: list[list[Any]],
        touched: Any,
        states: list[Columns],
        case: Trajectory,
        grads: list[Any],
    ) -> None:
        for t, (local, whole) in enumerate(results, start=1):
            for kind, comparisons in (("step", local), ("trajectory", whole)):
                for comparison in comparisons:
                    ratio = comparison.ratio
                    if np.any(ratio > 1):
                        at = int(np.nanargmax(np.atleast_1d(ratio)))
                        raise WrongError(cell, self._details(kind, t, at, comparison, states[t], case, grads))
        for t, (local, whole) in enumerate(results):
            for mask in differ[t]:
                excused = touched[t] if np.ndim(mask) else np.any(touched[t])
                cell.elements += int(np.size(mask))
                cell.differ += int(np.sum(mask & ~excused))
                cell.differ_subnormal += int(np.sum(mask & excused))
            for comparison in local:
                largest, vacuous = _summary(comparison)
                cell.ratio = max(cell.ratio, largest)
                cell.vacuous += vacuous
                cell.ulps = max(cell.ulps, float(np.max(comparison.ulps[np.isfinite(comparison.ulps)], initial=0.0)))
            for comparison in whole:
                largest, vacuous = _summary(comparison)
                cell.trajectory_ratio = max(cell.trajectory_ratio, largest)
                cell.trajectory_vacuous += vacuous
        cell.examples += 1
        cell.steps += len(results)

    def _details(
        self, kind: str, t: int, at: int, comparison: Comparison, after: Columns, case: Trajectory, grads: list[Any]
    ) -> dict[str, Any]:
        leaf, element = _place(at, self.shapes)
        return {
            "mode": kind,
            "step": t,
            "column": comparison.name,
            "leaf": leaf,
            "element": element,
            "error": _finite(np.atleast_1d(comparison.error)[at]),
            "bound": float(np.atleast_1d(comparison.bound)[at]),
            "hyper": case.hyper,
            "params": float(case.params[at]),
            "grads": [float(g[at]) for g in grads[:t]],
            "got": _finite(after[0][at]),
        }


def _summary(comparison: Comparison) -> tuple[float, int]:
    """The largest error/bound, and how many numbers have none because their bound is vacuous."""
    ratio = np.atleast_1d(comparison.ratio)
    return float(np.max(np.nan_to_num(ratio), initial=0.0)), int(np.sum(np.isnan(ratio)))


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


def _place(at: int, shapes: Shapes) -> tuple[str, list[int]]:
    """The leaf and the index within it of element ``at`` of the vector of all leaves."""
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        if at < size:
            return name, [int(i) for i in np.unravel_index(at, shape)]
        at -= size
    return "", []


def check_rule(
    rule_name: str, dtype: str, targets: list[tuple[str, str, str]], formats: dict[Any, Format], examples: int, pool: int, seed: int
) -> list[Cell]:
    """Checks one rule in one dtype on each target (backend, device, mode), with ``examples`` generated trajectories.

    ``formats`` maps (backend, device, dtype of the arithmetic, mode) to the format that the probes measured.
    """
    rule = RULES[rule_name]
    arithmetic = "float64" if dtype == "float64" else "float32"
    subjects = [
        Subject(rule, backends.get(name, device), dtype, mode, SHAPES, formats[name, device, arithmetic, mode])
        for name, device, mode in targets
    ]
    cells = [subject.cell for subject in subjects]
    drawn = settings(rule, seed, pool)
    while subjects:
        check = Check(rule, dtype, subjects, SHAPES)
        run = hypothesis.given(trajectories(drawn, dtype, longest=6))(check.trajectory)
        run = hypothesis.seed(zlib.crc32(f"{seed} {rule_name} {dtype}".encode()))(run)
        run = hypothesis.settings(_SETTINGS, max_examples=examples)(run)
        try:
            run()
        except WrongError as error:  # the smallest input found; the other cells go on without this one
            error.cell.wrong = error.details
            subjects = [subject for subject in subjects if subject.cell is not error.cell]
            for subject in subjects:
                subject.cell.reset()
        else:
            break
    return cells
