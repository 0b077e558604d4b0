"""Real gradients on every backend: NumPy's recorded ones replayed against the golden, and the same training run natively."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from xopt import backends
from xopt.conformance.compare.comparison import Comparer, Subject, pieces_of, raised
from xopt.conformance.golden import GOLDENS
from xopt.conformance.inputs.explore import ViolationError
from xopt.conformance.inputs.trajectories import Trajectory
from xopt.conformance.results import Cell, brief
from xopt.conformance.target import Target
from xopt.conformance.training import data
from xopt.rule import Rule
from xopt.rules import RULES

SLOW_STEPS = 4
"""Of the training on a library of which an operation takes a millisecond."""


@dataclass
class Replay:
    """One rule on one backend and mode: recorded gradients against the golden, and where it is eager a training on that backend."""

    rule: str
    backend: str
    device: str
    mode: str
    replayed: dict[str, Any]  # the cell of the replay
    losses: list[float] = field(default_factory=list)  # of the native training, batch by batch
    distances: list[float] = field(
        default_factory=list
    )  # of its parameters from NumPy's after each batch, largest, relative to the largest
    dtype: str = "float32"
    explanation: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return str(self.replayed["verdict"])

    @property
    def divergence(self) -> float | None:
        """The distance at the end; None where nothing was trained."""
        return self.distances[-1] if self.distances else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict, "divergence": self.divergence}


def replay_rule(rule_name: str, targets: Sequence[Target], steps: int) -> list[Replay]:
    """Trains on NumPy for ``steps`` batches, replays its gradients on each target, and trains there too."""
    rule = RULES[rule_name]
    try:
        recorded = data.train(rule, backends.get("numpy"), steps)
    except Exception as error:  # noqa: BLE001 - without NumPy's gradients there is nothing to replay
        return [_refused(rule_name, target, error) for target in targets]
    case = Trajectory(0, {}, data.start(), recorded.grads, [np.False_] * steps)
    replays = []
    for target in targets:
        cell = Cell(rule_name, target.backend, target.device, "float32", target.mode)
        native = _Native([], [], [])
        try:
            subject = Subject(rule, "float32", target, data.SHAPES)
            cell = subject.result
            Comparer(rule, GOLDENS[rule_name], "float32", [subject], data.SHAPES, "digits").example(case)
            if target.mode == "eager":
                native = _train(rule, subject.candidate.backend, steps, recorded)
        except ViolationError as error:
            cell.wrong = error.details
        except Exception as error:  # noqa: BLE001 - whatever a backend raises
            cell.wrong = raised(error, data.SHAPES, pieces_of(case, data.SHAPES))
        where = target.backend, target.device, target.mode
        replays.append(Replay(rule_name, *where, cell.to_dict(), native.losses, native.distances, explanation=native.notes))
    return replays


def _refused(rule_name: str, target: Target, error: BaseException) -> Replay:
    where = target.backend, target.device
    cell = Cell(rule_name, *where, "float32", target.mode)
    cell.wrong = raised(error, data.SHAPES)
    return Replay(rule_name, *where, target.mode, cell.to_dict())


class _Native(NamedTuple):
    """A training on the target's backend."""

    losses: list[float]
    distances: list[float]
    notes: list[str]  # why nothing was trained


def _train(rule: Rule[Any, Any], backend: Any, steps: int, recorded: data.Training) -> _Native:
    try:
        native = data.train(rule, backend, min(steps, SLOW_STEPS) if backend.slow else steps)
    except ImportError as error:  # matrix products may want a library of their own, which steps do without
        return _Native([], [], [f"not trained here: {brief(error)}"])
    pairs = zip(native.params, recorded.params, strict=False)
    return _Native(native.losses, [float(np.max(np.abs(a - b)) / np.max(np.abs(b))) for a, b in pairs], [])
