"""What a run found: a cell for each comparison with the golden reference, a result for each law."""

from dataclasses import asdict, dataclass, field
from typing import Any

DTYPES = ("float16", "bfloat16", "float32", "float64")
MODES = ("eager", "traced", "fused")
"""A step as it is, through the library's own compiler, and as ``xopt.backends.fuse`` makes it."""
WORDS = {"eager": "op by op", "traced": "compiled", "fused": "fused"}

IDENTICAL = "bit-identical"
SUBNORMALS = "identical except subnormals"
WITHIN = "within the bound"
WRONG = "wrong"
NOT_RUN = "not run"

HELD = "held"
BROKEN = "broken"

BINS = 20
"""Of the histogram of error/bound."""


@dataclass
class Cell:
    """What was found of one rule on one backend, in one dtype and mode."""

    rule: str
    backend: str
    device: str
    dtype: str
    mode: str
    reason: str | None = None  # why it did not run
    examples: int = 0  # drawn by Hypothesis; each carries several trajectories
    trajectories: int = 0
    steps: int = 0  # over all trajectories
    elements: int = 0  # numbers compared, over all steps and columns
    differ: int = 0  # of these, how many are not NumPy's bits
    differ_subnormal: int = 0  # and how many more where a subnormal number may have occurred
    ratio: float = 0.0  # largest error/bound of a single step from the candidate's own state
    trajectory_ratio: float = 0.0  # largest error/bound with the errors of all steps before
    ulps: float = 0.0  # largest error of a single step, in units in the last place at the scale of the step
    histogram: list[int] = field(default_factory=lambda: [0] * BINS)  # of a single step's error/bound, where there is an error
    growth: list[float] = field(default_factory=list)  # largest error/bound of a trajectory after its first, second, ... step
    vacuous: int = 0  # numbers of which a single step's bound says nothing
    trajectory_vacuous: int = 0
    explanation: list[str] = field(default_factory=list)  # what the probes say of differences
    worst: dict[str, Any] | None = None  # where the largest ratio of a step was seen, and how to see it again
    wrong: dict[str, Any] | None = None  # the first wrong number, and how to see it again
    found_after: int | None = None  # examples until it was found

    @property
    def verdict(self) -> str:
        if self.wrong is not None:
            return WRONG
        if self.elements == 0:
            return NOT_RUN
        if self.differ:
            return WITHIN
        return SUBNORMALS if self.differ_subnormal else IDENTICAL

    def fail(self, details: dict[str, Any]) -> None:
        """Notes what is wrong."""
        self.wrong = details

    def reset(self) -> None:
        """Forgets what was found."""
        self.__dict__.update(Cell(self.rule, self.backend, self.device, self.dtype, self.mode).__dict__)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


@dataclass
class LawResult:
    """What was found of one law for one rule on one backend, in one dtype and mode."""

    law: str
    rule: str
    backend: str
    device: str
    dtype: str
    mode: str
    reason: str | None = None  # why it did not run
    examples: int = 0
    numbers: int = 0  # compared, over all examples
    differ: int = 0  # of these, how many do not have the bits that a bitwise law asks for
    ratio: float = 0.0  # largest distance/bound
    broken: dict[str, Any] | None = None  # the first numbers that break it, and their input
    found_after: int | None = None  # examples until they were found

    @property
    def verdict(self) -> str:
        if self.broken is not None:
            return BROKEN
        if self.numbers == 0:
            return NOT_RUN
        return WITHIN if self.differ else HELD

    def fail(self, details: dict[str, Any]) -> None:
        """Notes what breaks the law."""
        self.broken = details

    def reset(self) -> None:
        """Forgets what was found."""
        self.__dict__.update(LawResult(self.law, self.rule, self.backend, self.device, self.dtype, self.mode).__dict__)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


class BrokenError(AssertionError):
    """A law does not hold: with what is wrong, in words or as details."""

    def __init__(self, what: str | dict[str, Any]) -> None:
        super().__init__(what if isinstance(what, str) else str(what))
        self.details = {"what": what} if isinstance(what, str) else what


def brief(error: BaseException) -> str:
    """An exception in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]
