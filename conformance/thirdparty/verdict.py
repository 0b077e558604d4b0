"""What a check found, in words and as data. Never a bare "passed"."""

from dataclasses import asdict, dataclass, field
from typing import Any

from xopt.conformance.thirdparty.behaviour import FAILED, Finding

AGREES = "agrees"
CONVENTION = "another convention"
FORMULA = "another formula"
UNKNOWN = "no known formula"
UNNAMED = "not named"
CRASHED = "crashed"
HUNG = "hung"
GARBAGE = "garbage"
RAISED = "raised"
NO_TARGET = "no target"

MEANINGS = {
    AGREES: "It computes the rule, in the convention of the paper or in one that was asked for.",
    CONVENTION: "It computes the rule in another convention, which some library documents; ask for it, and it agrees.",
    FORMULA: "It computes another formula, which has a name here: nobody documents it, or it was seen as a bug.",
    UNKNOWN: "None of the formulas that have a name here is near what it computes.",
    UNNAMED: "No rule was asked for, and what was seen does not tell the rules apart.",
    CRASHED: "Its process ended.",
    HUNG: "It gave no answer in time.",
    GARBAGE: "It answered with something else than numbers of the right shape.",
    RAISED: "It raised an error at usual hyperparameters.",
    NO_TARGET: "There is no such target, or it is no optimizer.",
}


@dataclass
class Named:
    """A convention that was found."""

    name: str  # "epsilon: epsilon hat"
    sentence: str
    status: str  # "convention", "defect", "possible"; "rounding" where it is the same formula
    documented: str
    seen: str


@dataclass
class Formula:
    """What is computed in one dtype."""

    dtype: str
    conventions: list[Named]
    ties: list[list[str]]  # what else it may be: conventions that nothing which was tried tells apart
    fits: bool
    ratio: float | None  # largest error/bound of what was named; of the rule where nothing was. None: infinite
    ulps: float | None  # largest error, in units in the last place at the scale of the step
    numbers: int
    vacuous: int  # numbers of which the bound says nothing
    next: str  # the nearest that does not fit
    next_ratio: float | None
    factor: list[Any] | None  # a hyperparameter and its factor, where that explains it, on the designed numbers at least
    value: float | None  # of that hyperparameter, where it has this one whatever it is given
    partly: list[str] | None  # fits the designed numbers and no others
    small: list[str] | None  # fits where gradients are small, and not elsewhere
    where: dict[str, Any] | None  # the first number that is off the rule itself, and what it came from
    nearest: list[list[Any]]  # conventions alone, and how many bounds each is away on the designed numbers; None is infinitely many


@dataclass
class Checked:
    """What a check of a target found.

    ``verdict`` is one of ``MEANINGS``, ``findings`` all that was asked of it, ``bool()`` whether it agrees in all.
    """

    target: str
    rule: str | None
    verdict: str = UNNAMED
    words: str = ""  # the verdict in a sentence
    asked: bool = True  # whether a rule was asked for
    about: dict[str, Any] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)  # conventions that were asked for
    formulas: list[Formula] = field(default_factory=list)
    candidates: list[str] = field(default_factory=list)  # without a rule: those that fit, best first
    findings: list[Finding] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    program: str = ""  # which shows a wrong number, and fails
    seconds: float = 0.0
    first_seconds: float = 0.0  # until the verdict on the formula

    def __bool__(self) -> bool:
        return self.status == 0

    @property
    def failed(self) -> list[Finding]:
        return [one for one in self.findings if one.outcome == FAILED]

    @property
    def conventions(self) -> list[str]:
        """Names of those that were found, in any dtype."""
        return list(dict.fromkeys(one.name for formula in self.formulas for one in formula.conventions))

    @property
    def status(self) -> int:
        """Exit status: 0 it agrees, 1 it does not, 2 there is nothing to check."""
        if self.verdict == NO_TARGET:
            return 2
        right = self.verdict == AGREES or (not self.asked and self.verdict in (CONVENTION, FORMULA))
        return 0 if right and not self.failed else 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {
            "findings": [one._asdict() for one in self.findings],
            "conventions": self.conventions,
            "status": self.status,
        }

    def __str__(self) -> str:
        failed = "".join(f"\n  failed: {one.check}: {one.words}" for one in self.failed)
        return f"{self.target}: {self.words}{failed}"
