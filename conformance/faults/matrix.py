"""Which check sees which fault: the matrix that shows that no fault gets by and that each check is needed."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from xopt.conformance import digests, papers
from xopt.conformance.compare.check import check_rule
from xopt.conformance.faults.catalogue import FAULTS
from xopt.conformance.faults.fault import Fault
from xopt.conformance.faults.planting import effect, plant
from xopt.conformance.faults.styles import caught, comparable, comparison_table
from xopt.conformance.laws import LAWS, Law, check_laws, hyper, invariants, reductions, responses, symmetries, use
from xopt.conformance.profiles import PROFILES
from xopt.conformance.results import BROKEN, WITHIN, WRONG, LawResult
from xopt.conformance.stateful.check import check_machine
from xopt.conformance.stateful.machine import MACHINE
from xopt.conformance.target import OURS, Effort, Implementations, Target
from xopt.conformance.workers import processes

EXAMPLES = PROFILES["ci"].examples
"""Within so many each fault must be seen."""
FEW = 5
"""Those with which one looks first, where a single check that sees it is enough."""
LAW_EXAMPLES = PROFILES["ci"].laws
"""What a law gets first, as in a run for continuous integration; all of them only where no check sees the fault."""
POOL = PROFILES["ci"].pool
"""Settings of the hyperparameters that the comparison with the golden draws from, as in that profile."""
DTYPES_IN_TURN = ("float32", "float16", "float64")
"""In this order; a check asks the next one only where the one before showed nothing."""

STEP, TRAJECTORY, BITS = "step", "trajectory", "bits"
CHECKS = (STEP, TRAJECTORY, BITS, digests.LAW, *papers.LAWS, *(law.name for law in LAWS), MACHINE)
"""The columns of the matrix: the comparison with the golden, of one step and of all; NumPy's bits, elsewhere and as they are kept;
what the papers say; the laws; the state machine."""


class Family(NamedTuple):
    """Checks of one kind, and why each of them stays though it may be no fault's only killer."""

    name: str
    checks: tuple[str, ...]
    why: str


def _of_laws(name: str, laws: Sequence[Law], why: str) -> Family:
    return Family(name, tuple(law.name for law in laws), why)


FAMILIES = (
    Family(
        "comparison with the golden",
        (STEP, TRAJECTORY),
        "A step is always looked at first. Of an optimizer whose state cannot be read there is only the trajectory.",
    ),
    Family("bits", (BITS, digests.LAW), ""),
    Family("papers", papers.LAWS, "What is printed is nobody's reading: the formulas of the laws are ours."),
    _of_laws(
        "rules that contain each other",
        reductions.LAWS,
        "It ties the rule to another: it still sees a misreading that the golden and the rule's other laws share.",
    ),
    _of_laws("symmetries", symmetries.LAWS, "It is about bits: a compiler or a fused kernel may break it with no formula wrong."),
    _of_laws("closed forms", responses.LAWS, "It is a formula of its own, with no golden, no other rule and no second run in it."),
    _of_laws(
        "bounds and limits", invariants.LAWS, "It is a theorem's bound, which says more of inputs not tried than an example does."
    ),
    _of_laws(
        "use",
        use.LAWS,
        "The golden comparison sees the same faults in their numbers; this one says which promise to the caller is broken.",
    ),
    _of_laws(
        "hyperparameters",
        hyper.LAWS,
        "It asks of each kind of number and of each group what the comparison with the golden asks of a few.",
    ),
    Family(
        "state machine",
        (MACHINE,),
        "It alone moves a state between libraries and mixes operations; the catalogue's faults show without that.",
    ),
)
"""All checks, by kind."""
_NEEDED = (STEP, BITS, digests.LAW, papers.DEFAULTS)
WHY_KEPT: dict[str, str] = {check: family.why for family in FAMILIES for check in family.checks if check not in _NEEDED}
"""Why a check stays though it may be no fault's only killer; the others must be one's."""

Seen = dict[str, int]
"""Checks that see a fault, and within how many examples."""
Look = Callable[[Implementations], Seen]


@dataclass(frozen=True)
class Detection:
    """What the checks say of one fault."""

    fault: Fault
    effect: str | None
    killed_by: Seen
    styles: dict[str, bool] = field(default_factory=dict)  # of the values' faults: which style of check sees them

    @property
    def survived(self) -> bool:
        return not self.killed_by and not self.fault.equivalent

    @property
    def examples(self) -> int:
        """Until the fastest check saw it; 0 where none did."""
        return min(self.killed_by.values(), default=0)

    def to_dict(self) -> dict[str, Any]:
        name, rule, _, sentence, seen, equivalent, target, documented = self.fault
        return {
            "name": name,
            "rule": rule,
            "kind": self.fault.kind,
            "target": target,
            "sentence": sentence,
            "status": self.fault.status,
            "documented": documented,
            "seen": seen,
            "effect": self.effect,
            "equivalent": equivalent,
            "killed_by": self.killed_by,
            "styles": self.styles,
        }


def _cells(rule: str, target: str, dtype: str, examples: int, seed: int, planted: Implementations) -> Seen:
    """The comparison with the golden, and with NumPy's bits."""
    (cell,) = check_rule(rule, dtype, [Target(target, "cpu", "eager")], Effort(examples, seed, POOL, shrink=False), planted)
    if cell.verdict == WRONG and cell.wrong:  # what NumPy itself refuses is found before an example is counted
        return {str(cell.wrong["mode"]): cell.found_after or 1}
    return {BITS: cell.examples} if cell.verdict == WITHIN else {}


def _law(name: str, rule: str, target: str, dtype: str, examples: int, seed: int, planted: Implementations) -> Seen:
    found = check_laws(rule, dtype, [Target(target, "cpu", "eager")], Effort(examples, seed, shrink=False), planted, [name])
    return _broken(found, examples)


def _machine(rule: str, target: str, dtype: str, examples: int, seed: int, planted: Implementations) -> Seen:
    found = check_machine(rule, dtype, [Target(target, "cpu", "eager")], Effort(examples, seed, shrink=False), planted)
    return _broken(found, examples)


def _digest(rule: str, dtype: str, planted: Implementations) -> Seen:
    return _broken(digests.check_digest(rule, dtype, planted.rules), 1)


def _papers(rule: str, planted: Implementations) -> Seen:
    return _broken(papers.check_papers(rule, planted.rules, planted.goldens), 1)


def _broken(found: Sequence[LawResult], examples: int) -> Seen:
    return {result.law: result.found_after or examples for result in found if result.verdict == BROKEN}


def _looks(fault: Fault, examples: int, law_examples: int, seed: int) -> Iterator[tuple[str, list[Look]]]:
    """The checks that concern a fault, the fastest first: each with what it does in one dtype after the other."""
    place = fault.rule, fault.target
    dtypes = DTYPES_IN_TURN[:1] if fault.kind in ("twin", "backend") else DTYPES_IN_TURN  # a twin deceives it in each
    yield STEP, [partial(_cells, *place, dtype, min(examples, PROFILES["ci"].cells(dtype)), seed) for dtype in dtypes]
    if fault.kind in ("rule", "core"):  # elsewhere it is NumPy's own bits that stay
        yield digests.LAW, [partial(_digest, fault.rule, "float32")]
    if fault.target == "numpy":
        yield papers.DEFAULTS, [partial(_papers, fault.rule)]
    for law in LAWS:
        if fault.rule in law.rules or fault.rule in law.partners:
            rule = fault.rule if fault.rule in law.rules else law.rules[0]
            said = next(dtype for dtype in DTYPES_IN_TURN if dtype in law.dtypes)
            yield law.name, [partial(_law, law.name, rule, fault.target, said, law_examples, seed)]
    if fault.kind == "core":  # of a formula it sees what the comparison with the golden sees
        yield MACHINE, [partial(_machine, *place, dtype, law_examples, seed) for dtype in DTYPES_IN_TURN[:1]]


def _raises(look: Look, planted: Implementations) -> bool:
    try:
        look(planted)
    except Exception:  # noqa: BLE001 - whatever a wrong rule raises
        return True
    return False


def _seen_by(check: str, look: Look, planted: Implementations, examples: int) -> Seen:
    """What one check sees. A rule that raises where the right one does not is seen too, after all examples at the latest."""
    try:
        return look(planted)
    except Exception:
        if _raises(look, OURS):
            raise
        return {check: examples}


def detect(fault: Fault, examples: int = EXAMPLES, seed: int = 0, first: bool = False) -> Detection:
    """Runs the checks on a planted fault; with ``first`` no further than the first one that sees it, which is its effect too."""
    planted = plant(fault)
    killed: Seen = {}
    for each, law_examples in [*[(FEW, LAW_EXAMPLES)] * first, (examples, LAW_EXAMPLES), (examples, examples)]:
        if killed:
            break
        for check, looks in _looks(fault, each, law_examples, seed):
            if first and killed:
                break
            for look in looks:
                seen = _seen_by(check, look, planted, each)
                killed |= seen
                if seen:
                    break
    return Detection(fault, "" if first and killed else effect(fault, planted), killed)


@dataclass
class FaultReport:
    """The matrix: what was found of each fault."""

    detections: list[Detection]

    @property
    def survivors(self) -> list[Detection]:
        """Faults that no check sees and that are not proved to change nothing."""
        return [detection for detection in self.detections if detection.survived]

    @property
    def worst(self) -> int:
        """Examples until a fault was seen, where that took longest."""
        return max((detection.examples for detection in self.detections), default=0)

    def kills(self) -> dict[str, dict[str, int]]:
        """For each check, how many faults it sees, and how many it alone."""
        seen = [detection.killed_by for detection in self.detections]
        return {
            check: {"kills": sum(check in by for by in seen), "sole": sum(list(by) == [check] for by in seen)} for check in CHECKS
        }

    def families(self) -> dict[Family, dict[str, int]]:
        """For each kind of checks, how many faults it sees, and how many no other kind does."""
        seen = [set(detection.killed_by) for detection in self.detections]
        return {
            family: {
                "kills": sum(not by.isdisjoint(family.checks) for by in seen),
                "sole": sum(bool(by) and by <= set(family.checks) for by in seen),
            }
            for family in FAMILIES
        }

    def table(self) -> str:
        """The comparison with other libraries' styles, as Markdown."""
        return comparison_table((j.fault, j.styles, bool(j.killed_by)) for j in self.detections)

    def to_dict(self) -> dict[str, Any]:
        return {
            "faults": [detection.to_dict() for detection in self.detections],
            "checks": self.kills(),
            "survivors": [detection.fault.name for detection in self.survivors],
            "worst": self.worst,
            "summary": self.summary(),
        }

    def summary(self) -> list[str]:
        """The matrix in a few lines."""
        equivalent = sum(bool(detection.fault.equivalent) for detection in self.detections)
        killed = sum(bool(detection.killed_by) for detection in self.detections)
        spare = [check for check, counts in self.kills().items() if not counts["sole"] and check not in WHY_KEPT]
        return [
            f"{len(self.detections)} faults: {killed} seen, {len(self.survivors)} not seen, {equivalent} proved to change nothing",
            f"worst: {self.worst} examples",
            *(f"not seen: {detection.fault.name}" for detection in self.survivors),
            f"never the only one to see a fault: {', '.join(spare) or 'no check'}",
        ]


def run(
    faults: Sequence[Fault] | None = None,
    examples: int = EXAMPLES,
    jobs: int = 2,
    seed: int = 0,
    progress: Callable[[Detection], None] | None = None,
) -> FaultReport:
    """Plants each fault, default all of the catalogue, and runs every check that concerns it, in so many processes.

    ``progress`` is called with each detection as it is ready. The processes are new ones: a script must guard its main module.
    """
    chosen = list(FAULTS if faults is None else faults)
    found: dict[str, Detection] = {}
    with processes(jobs) as submit:
        for task in as_completed([submit(_detect_with_styles, fault, examples, seed) for fault in chosen]):
            detection = task.result()
            found[detection.fault.name] = detection
            if progress:
                progress(detection)
    return FaultReport([found[fault.name] for fault in chosen])


def _detect_with_styles(fault: Fault, examples: int, seed: int) -> Detection:
    detection = detect(fault, examples, seed)
    return replace(detection, styles=caught(fault)) if comparable(fault) else detection
