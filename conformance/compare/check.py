"""The check of one rule in one dtype: the same trajectories on every backend and in every mode, each cell with its verdict."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import hypothesis

from xopt import backends
from xopt.conformance.arithmetic.formats import Format
from xopt.conformance.compare.comparison import Check, Subject, WrongError, raised
from xopt.conformance.golden import GOLDENS, Golden
from xopt.conformance.inputs.explore import SETTINGS
from xopt.conformance.inputs.hyperparameters import settings
from xopt.conformance.inputs.trajectories import SHAPES, trajectories
from xopt.conformance.results import Cell
from xopt.rule import Rule
from xopt.rules import RULES

CLIMBS = 200
"""Examples from which on half of them climb to larger errors, which varies numbers alone; fewer are better spent on variety."""


def check_rule(
    rule_name: str,
    dtype: str,
    targets: Sequence[tuple[str, str, str]],
    formats: Mapping[Any, Format],
    examples: int,
    pool: int,
    seed: int,
    rules: Mapping[str, Rule[Any, Any]] = RULES,
    goldens: Mapping[str, Golden] = GOLDENS,
    shrink: bool = True,
) -> list[Cell]:
    """Checks one rule in one dtype on each target (backend, device, mode), with so many examples drawn by Hypothesis.

    ``formats`` maps (backend, device, dtype of the arithmetic, mode) to the format that the probes measured. ``rules`` and
    ``goldens`` may hold others than xopt's own. Without ``shrink`` the first wrong input is reported, not the smallest.
    """
    rule = rules[rule_name]
    arithmetic = "float64" if dtype == "float64" else "float32"
    cells, subjects = [], []
    for name, device, mode in targets:
        cell = Cell(rule_name, name, device, dtype, mode)
        try:
            subject = Subject(rule, backends.get(name, device), dtype, mode, SHAPES, formats[name, device, arithmetic, mode])
        except Exception as error:  # noqa: BLE001 - there is no step to check
            cell.wrong = raised(error, SHAPES)
        else:
            cell = subject.cell
            subjects.append(subject)
        cells.append(cell)
    drawn = settings(rule, seed, pool, arithmetic)
    left_out = [] if shrink else [hypothesis.Phase.shrink]
    if examples < CLIMBS:
        left_out.append(hypothesis.Phase.target)
    phases = [phase for phase in SETTINGS.phases if phase not in left_out]
    explore = hypothesis.settings(SETTINGS, max_examples=examples, phases=phases)
    inputs = trajectories(rule, drawn, dtype, longest=6)
    while subjects:
        check = Check(rule, goldens[rule_name], dtype, subjects, SHAPES)
        run = hypothesis.given(inputs)(check.run)
        run = hypothesis.seed(zlib.crc32(f"{seed} {rule_name} {dtype}".encode()))(run)
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
