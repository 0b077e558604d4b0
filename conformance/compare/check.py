"""The check of one rule in one dtype: the same trajectories on every backend and in every mode, each cell with its verdict."""

import zlib
from collections.abc import Sequence

import hypothesis

from xopt.conformance.arithmetic.formats import arithmetic_of
from xopt.conformance.compare.comparison import Check, Subject, WrongError, raised
from xopt.conformance.inputs.explore import SETTINGS
from xopt.conformance.inputs.hyperparameters import settings
from xopt.conformance.inputs.trajectories import SHAPES, trajectories
from xopt.conformance.results import Cell
from xopt.conformance.target import OURS, Effort, Implementations, Target

CLIMBS = 200
"""Examples from which on half of them climb to larger errors, which varies numbers alone; fewer are better spent on variety."""


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
            cell = subject.cell
            subjects.append(subject)
        cells.append(cell)
    pool = settings(rule, effort.seed, effort.pool, arithmetic_of(dtype))
    left_out = [] if effort.shrink else [hypothesis.Phase.shrink]
    if effort.examples < CLIMBS:
        left_out.append(hypothesis.Phase.target)
    phases = [phase for phase in SETTINGS.phases if phase not in left_out]
    explore = hypothesis.settings(SETTINGS, max_examples=effort.examples, phases=phases)
    inputs = trajectories(rule, pool, dtype, longest=6)
    while subjects:
        check = Check(rule, golden, dtype, subjects, SHAPES)
        run = hypothesis.given(inputs)(check.run)
        run = hypothesis.seed(zlib.crc32(f"{effort.seed} {rule_name} {dtype}".encode()))(run)
        try:
            explore(run)()
        except Exception as error:  # noqa: BLE001 - one check that fails must not lose the others
            wrong = _wrong(error, check)
            if wrong is None:  # it is not a subject that failed, but what they are all held against
                for subject in subjects:
                    subject.cell.wrong = raised(error, SHAPES)
                break
            wrong.cell.wrong = wrong.details  # the other cells go on without this one
            subjects = [subject for subject in subjects if subject.cell is not wrong.cell]
            for subject in subjects:
                subject.cell.reset()
        else:
            break
    return cells


def _wrong(error: Exception, check: Check) -> WrongError | None:
    """What was found: where Hypothesis does not see it again, and says so in errors of its own, what was found first."""
    if isinstance(error, WrongError) or check.found is None:
        return error if isinstance(error, WrongError) else None
    check.found.details["again"] = check.found.details["again"] or "the same input gives what is right"
    return check.found
