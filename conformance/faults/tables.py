"""What planting the faults showed, as Markdown for the documentation."""

from collections import Counter
from collections.abc import Callable, Sequence

from xopt.conformance.faults.fault import Fault
from xopt.conformance.faults.matrix import EXAMPLES, FaultReport
from xopt.conformance.faults.orders import false_alarms


def soundness(report: FaultReport) -> str:
    """That correct texts raise no alarm, and how near they come."""
    found = false_alarms()
    return (
        f"{found['trajectories']:,} trajectories of {found['steps']:,} steps in these orders: {found['alarms']} alarms, "
        f"{found['vacuous']} vacuous numbers, largest error/bound {found['ratio']:.3f}."
    )


def statuses(faults: Sequence[Fault]) -> str:
    """How many faults some library has on purpose, how many were seen as bugs, and how many might happen."""
    count = Counter(fault.status for fault in faults)
    return (
        f"Of these, {count['convention']} are conventions that some library documents, {count['defect']} were defects of published "
        f"optimizers, and {count['possible']} might happen."
    )


def summary(report: FaultReport) -> str:
    """How many faults there are of each kind, and what each check finds."""
    kinds = Counter(detection.fault.kind for detection in report.detections)
    found = sum(bool(detection.killed_by) for detection in report.detections)
    equivalent = sum(bool(detection.fault.equivalent) for detection in report.detections)
    lines = [
        (
            f"{len(report.detections)} faults ({', '.join(f'{count} {kind}' for kind, count in kinds.items())}): {found} found, "
            f"{len(report.survivors)} not found, {equivalent} proved to change nothing. The slowest was found after {report.worst} "
            f"examples of at most {EXAMPLES}."
        ),
        "",
        statuses([detection.fault for detection in report.detections]),
        "",
        "| kind of checks | checks | find | no other kind finds | found by one check alone | why each of the others stays |",
        "|---|---|---|---|---|---|",
    ]
    checks = report.kills()
    for family, counts in report.families().items():
        alone = [f"{check} {checks[check]['sole']}" for check in family.checks if checks[check]["sole"]]
        cells = (family.name, len(family.checks), counts["kills"], counts["sole"], ", ".join(alone) or "-", family.why or "-")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[FaultReport], str]] = {"soundness": soundness, "faults": summary, "styles": FaultReport.table}
"""The parts of a page that a run writes, by the name of their markers."""
