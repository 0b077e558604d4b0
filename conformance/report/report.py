"""What a run found: the backends, its results, and why it fails as a whole."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from xopt.conformance.arithmetic.measured import measured_formats
from xopt.conformance.arithmetic.probes import Probes
from xopt.conformance.inputs.census import CensusRow
from xopt.conformance.laws import LAWS, Law
from xopt.conformance.ledger.judgement import Judgement
from xopt.conformance.profiles import LAW_NAMES, PROFILES
from xopt.conformance.report.families import OTHER_LAWS, OtherLaw, family_of
from xopt.conformance.report.summary import Counts, Scope
from xopt.conformance.results import BROKEN, NOT_RUN, WRONG, Cell, LawResult
from xopt.conformance.target import Target
from xopt.conformance.training import Replay

Reported = Cell | LawResult | Replay

SCHEMA = "xopt-conformance-5"
"""Of a report as JSON: what ``schema.json`` describes."""


@dataclass
class BackendReport:
    """A backend on one device: what the probes found of it, or why there is none."""

    name: str
    device: str
    version: str | None
    reason: str | None = None
    dtypes: tuple[str, ...] = ()
    tracer: str | None = None
    compiler: str | None = None  # what fuses steps
    probes: dict[str, Any] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def target(self, mode: str) -> Target:
        """A mode of it, with the formats that the probes measured."""
        probes = Probes.from_dict(self.probes)
        own, plain = (measured_formats(probes, one, self.compiler) for one in (mode, "eager"))
        return Target(self.name, self.device, mode, own, plain)


@dataclass(repr=False)
class Report:
    """What a run of ``conform`` found. Printed, it is what was asked for and the verdict."""

    about: dict[str, Any]  # versions, machine, date, profile, seed, seconds
    backends: list[BackendReport]
    cells: list[Cell]
    replays: list[Replay]
    laws: list[LawResult] = field(default_factory=list)
    ledger: Judgement = field(default_factory=Judgement)
    census: list[CensusRow] = field(default_factory=list)  # what was drawn and compared
    failures: list[str] = field(default_factory=list)  # checks that failed themselves, so that nothing is known of their results
    faults: dict[str, Any] | None = None  # what planting them showed, where that was asked for
    evidence: list[dict[str, Any]] = field(default_factory=list)  # records of other machines
    seconds: dict[Any, float] = field(default_factory=dict)  # of each result, by its key

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        """What was asked for, the command, and the verdict."""
        return "\n".join([f"{self.scope}.", *filter(None, [self.about.get("command")]), self.verdict])

    @property
    def scope(self) -> Scope:
        """What was asked for."""
        return Scope.of(self.about)

    @property
    def counts(self) -> Counts:
        """How many checks came out how."""
        comparisons: list[Cell | Replay] = [*self.cells, *self.replays]
        return Counts.of((r.verdict for r in comparisons), (law.verdict for law in self.laws))

    @property
    def verdict(self) -> str:
        """In one line: what holds, what does not, and what was not run."""
        return self.counts.verdict(len(self.problems), self.scope.interrupted)

    @property
    def wrong(self) -> list[Reported]:
        """What is outside its bound; empty where every backend computed what the golden says and kept every law."""
        everything: list[Reported] = [*self.cells, *self.laws, *self.replays]
        return [result for result in everything if result.verdict in (WRONG, BROKEN)]

    @property
    def problems(self) -> list[str]:
        """Why the run as a whole fails, each with what to do; empty where it does not."""
        return [problem.says for problem in self._problems]

    @property
    def _problems(self) -> list["_Problem"]:
        wrong = [f"{r.rule} on {r.backend} {r.device}, {r.dtype}, {r.mode}: {_what(r)} is {_verdict(r)}" for r in self.wrong]
        ended = [] if self.scope.interrupted is None else [f"The run was interrupted after {self.scope.interrupted}."]
        kinds = {"result": wrong, "run": self.reasons, "interruption": ended}
        return [_Problem(kind, says) for kind, found in kinds.items() for says in found]

    @property
    def reasons(self) -> list[str]:
        """Those of its problems that are neither a result that is wrong nor that the run was interrupted."""
        checks: list[Cell | LawResult] = [*self.cells, *self.laws]
        silent = [
            f"{r.rule} on {r.backend} {r.device}, {r.dtype}, {r.mode}: {_what(r)} compared nothing, and gave no reason"
            for r in checks
            if r.verdict == NOT_RUN and r.reason is None
        ]
        scarce = [row.problem for row in self.census if row.problem] + self._short
        if self.scope.interrupted is not None:  # of what had not ended nothing is known
            return self.failures
        if self.wrong or self.failures:
            scarce = []  # what was found wrong ends its check early
        return self.failures + self._unchecked + silent + scarce + self.ledger.problems

    @property
    def _unchecked(self) -> list[str]:
        """What was asked for, by name or at all, and compared with nothing: that is no pass."""
        ran = [cell for cell in self.cells if cell.verdict != NOT_RUN]
        if not ran:
            return [f"Nothing was checked: {_reasons(self.cells)}."]
        problems = []
        for what, names in self.about.get("asked", {}).items():
            for name in names:
                own = [cell for cell in self.cells if name in _names(cell)[what]]
                if not any(cell.verdict != NOT_RUN for cell in own):
                    problems.append(f"The {what} {name} was asked for, and nothing of it was checked: {_reasons(own)}.")
        return problems + self._lawless

    @property
    def _lawless(self) -> list[str]:
        """Rules of which nothing but their golden says what they are."""
        lawful = {law.rule for law in self.laws if law.law in LAW_NAMES}
        ran = "profile" in self.about and self.laws and not self.failures
        rules = dict.fromkeys(cell.rule for cell in self.cells if cell.verdict != NOT_RUN) if ran else ()
        return [f"No law chose {rule}: see its traits in xopt.conformance.laws.traits." for rule in rules if rule not in lawful]

    @property
    def _short(self) -> list[str]:
        """Plain steps that ran on fewer examples than the profile says; of compiled ones each example may be compiled anew."""
        plan = PROFILES.get(self.about.get("profile", ""))
        checks: list[Cell | LawResult] = [*self.cells, *self.laws] if plan else []
        return [
            f"{r.rule} on {r.backend} {r.device}, {r.dtype}, {r.mode}: {_what(r)} ran on {r.examples} examples of {plan.asked(r)}"
            for r in checks
            if plan and r.mode == "eager" and r.verdict not in (NOT_RUN, WRONG, BROKEN) and r.examples < plan.asked(r)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As in ``schema.json``."""
        return {
            "scope": self.scope.to_dict(),
            "about": self.about,
            "verdict": self.verdict,
            "counts": self.counts.to_dict(),
            "schema": SCHEMA,
            "backends": [asdict(backend) for backend in self.backends],
            "cells": [self._published(cell) for cell in self.cells],
            "law_texts": [
                {
                    "name": law.name,
                    "kind": law.kind,
                    "sentence": law.sentence,
                    "source": law.source,
                    "items": law.item,
                    "rules": law.rules,
                    "family": family_of(law),
                }
                for law in ALL_LAWS
            ],
            "laws": [self._published(law) for law in self.laws],
            "replays": [self._published(replay) | {"replayed": _measured(replay.replayed)} for replay in self.replays],
            "census": [row._asdict() for row in self.census],
            "ledger": self.ledger.to_dict(),
            "faults": self.faults,
            "evidence": self.evidence,
            "problems": [problem._asdict() for problem in self._problems],
        }

    def _published(self, result: Reported) -> dict[str, Any]:
        """With its time, and without measures of what was not measured."""
        seconds = self.seconds.get(key_of(result))
        return _measured(result.to_dict()) | {"seconds": None if seconds is None else round(seconds, 4)}


class _Problem(NamedTuple):
    """Why a run fails."""

    kind: str  # "result": one that is wrong; "interruption"; or "run": anything else
    says: str


def key_of(result: Reported) -> tuple[str, ...]:
    """By which a result is found among all of a run."""
    what = result.law if isinstance(result, LawResult) else type(result).__name__
    return what, result.rule, result.backend, result.device, result.dtype, result.mode


_MEASURES = ("differ", "differ_subnormal", "ratio", "trajectory_ratio", "ulps", "vacuous", "trajectory_vacuous")


def _measured(result: dict[str, Any]) -> dict[str, Any]:
    """A result of which no measure reads as perfect where nothing was measured, or where a number is wrong."""
    own = [name for name in _MEASURES if name in result]
    if not result.get("elements", result.get("numbers", 1)):
        return result | dict.fromkeys(own)
    place = result.get("wrong") or result.get("broken")
    if place is None:
        return result
    error, bound = place.get("error", place.get("distance")), place.get("bound")
    return result | {"ratio": error / bound if error is not None and bound else None}


ALL_LAWS: tuple[Law | OtherLaw, ...] = (*LAWS, *OTHER_LAWS)
"""Of which a report tells."""


def _names(cell: Cell) -> dict[str, tuple[str, ...]]:
    """By which names a cell can be asked for."""
    return {"backend": (cell.backend, f"{cell.backend}:{cell.device}"), "rule": (cell.rule,), "dtype": (cell.dtype,)}


def _reasons(cells: Sequence[Cell]) -> str:
    return "; ".join(dict.fromkeys(f"{cell.backend}: {cell.reason or 'no reason is given'}" for cell in cells)) or "it has no cell"


def _verdict(result: Reported) -> str:
    """In words, with what it gave once more where that was something else."""
    found = (
        result.broken if isinstance(result, LawResult) else result.wrong if isinstance(result, Cell) else result.replayed["wrong"]
    )
    return f"{result.verdict}: not reproducible" if found and found.get("again") else result.verdict


def _what(result: Reported) -> str:
    return repr(result.law) if isinstance(result, LawResult) else "the comparison"
