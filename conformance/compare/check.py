"""The check of one rule in one dtype: the same trajectories on every backend and in every mode, each cell with its verdict."""

from collections.abc import Sequence

from xopt.conformance.compare.comparison import Comparer, Subject, raised
from xopt.conformance.inputs.explore import explore
from xopt.conformance.inputs.hyperparameters import settings
from xopt.conformance.inputs.trajectories import SHAPES, trajectories
from xopt.conformance.results import Cell
from xopt.conformance.target import OURS, Effort, Implementations, Target


def check_rule(
    rule_name: str,
    dtype: str,
    targets: Sequence[Target],
    effort: Effort,
    implementations: Implementations = OURS,
) -> list[Cell]:
    """Checks one rule in one dtype: a cell for each target."""
    rule, golden = implementations.rules[rule_name], implementations.goldens[rule_name]
    cells, subjects = [], []
    for target in targets:
        cell = Cell(rule_name, target.backend, target.device, dtype, target.mode)
        try:
            subject = Subject(rule, dtype, target, SHAPES)
        except Exception as error:  # noqa: BLE001 - there is no step to check
            cell.wrong = raised(error, SHAPES)
        else:
            cell = subject.result
            subjects.append(subject)
        cells.append(cell)
    pool = settings(rule, effort.seed, effort.pool, dtype)
    failed = explore(
        subjects,
        lambda left: Comparer(rule, golden, dtype, left, SHAPES),
        trajectories(rule, pool, dtype, longest=6),
        effort,
        f"{rule_name} {dtype}",
        again="the same input gives what is right",
    )
    if failed:  # it is not a subject that failed, but what they are all held against
        left, cause = failed
        for subject in left:
            subject.result.fail(raised(cause, SHAPES))
    return cells
