"""The check of the laws of one rule in one dtype: the same examples on every backend and in every mode."""

from collections.abc import Collection, Sequence
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from xopt.conformance.compare.again import traceback_of
from xopt.conformance.inputs.census import saw
from xopt.conformance.inputs.explore import HOLDS, ViolationError, explore
from xopt.conformance.inputs.trajectories import LARGEST_COUNT, count, own_counts
from xopt.conformance.inputs.words import Choices, drawn
from xopt.conformance.laws.lab import POOL, SIZE, STEPS, Bounds, Case, Lab, Law
from xopt.conformance.results import BrokenError, LawResult, brief
from xopt.conformance.target import OURS, Effort, Implementations, Target

TRACED = 3
"""One example in so many is for compiled steps too: each compiles anew."""


def check_laws(
    laws: Sequence[Law],
    rule_name: str,
    dtype: str,
    targets: Sequence[Target],
    effort: Effort,
    implementations: Implementations = OURS,
) -> list[LawResult]:
    """Checks each of the given laws that is about the rule, on each target."""
    bounds = Bounds()
    labs = [Lab(rule_name, dtype, target, implementations, effort.seed, bounds) for target in targets]
    results = []
    for law in laws:
        if rule_name in law.rules:
            for lab in labs:
                lab.result = LawResult(law.name, rule_name, lab.backend.name, lab.backend.device, dtype, lab.mode)
                lab.result.reason = _why_not(law, lab)
                results.append(lab.result)
            _check(law, [lab for lab in labs if lab.result.reason is None], dtype, effort)
    return results


def _why_not(law: Law, lab: Lab) -> str | None:
    dtype, mode = lab.dtype, lab.mode
    if dtype not in law.dtypes:
        return f"said of {', '.join(law.dtypes)} alone"
    for other in law.beside:
        if other not in lab.backend.dtypes():
            return f"{lab.backend.name} has no {other}, which it is about too"
    if mode not in law.modes:
        return f"said of {', '.join(law.modes)} steps alone"
    if mode != "eager" and dtype != "float32":  # compiling for each dtype costs more than all else, and contracts each alike
        return "compiled steps are held to the laws in float32 alone"
    if mode == "fused" and lab.backend.compiles_each(mode):
        return f"{lab.backend.tracer} compiles anew for each law: the plain step that it compiles is held to them"
    return None


def _check(law: Law, labs: list[Lab], dtype: str, effort: Effort) -> None:
    """Runs the law on examples in all labs at once."""
    if not labs:
        return
    name = f"{law.name} {labs[0].rule.name} {dtype}"
    failed = explore(labs, lambda left: _Examples(law, left), _cases(labs[0], dtype), effort, name)
    if failed and not isinstance(failed[1], hypothesis.errors.Unsatisfiable):  # which compares nothing: a problem of the run
        left, error = failed
        for lab in left:  # it is no lab that failed, but what they are all given
            lab.result.fail({"raised": brief(error)})


class _Examples:
    """Runs a law on one example after another."""

    def __init__(self, law: Law, labs: Collection[Lab]) -> None:
        self.law = law
        self.labs = labs
        self.count = 0
        self.found: ViolationError | None = None  # the first violation

    def run(self, case: Case) -> None:
        if self.found is not None and "again" in self.found.details:
            return  # there is nothing to shrink
        for lab in self.labs:
            lab.bounds.known.clear()
        place = self.count + 1
        looked = []
        for lab in self.labs:
            if lab.mode == "traced" and place % TRACED != 1:
                continue
            lab.steps_before = (
                min(case.steps_before, LARGEST_COUNT if lab.mode == "traced" else case.steps_before) if self.law.late else 0
            )
            before = lab.result.numbers
            details = self._broken(lab, case)
            if details is not None:
                lab.result.found_after = lab.result.found_after or place
                again = self._broken(lab, case)
                given = {"hyper": lab.pool[0 if lab.mode == "traced" else case.setting], "steps_before": lab.steps_before}
                same = {} if again == details else {"again": again or HOLDS}
                broken = ViolationError(lab.result, details | {"input": given} | same)
                self.found = self.found or broken
                raise broken
            looked.append(lab)
            hypothesis.assume(lab.result.numbers > before)  # of numbers that have no bound it says nothing: it is no example
            saw("laws: numbers compared", lab.result.numbers - before)
        self.count = place
        self._look_at(case)
        for lab in looked:
            lab.result.examples += 1

    def _broken(self, lab: Lab, case: Case) -> dict[str, Any] | None:
        """Where the law is broken; None where it holds."""
        try:
            with lab.backend.session(), np.errstate(all="ignore"):
                self.law.function(lab, case)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises
            return error.details if isinstance(error, BrokenError) else {"raised": brief(error), "traceback": traceback_of(error)}
        return None

    def _look_at(self, case: Case) -> None:
        """Counts, for the census, what this example contains."""
        grads = np.stack(case.grads)
        saw("laws: examples")
        saw(f"laws: examples in {case.dtype}")
        saw("laws: gradients", grads.size)
        saw("laws: gradients of 0", np.sum(grads == 0))


def _cases(lab: Lab, dtype: str) -> st.SearchStrategy[Case]:
    """Examples, but for the one of zeros alone with which Hypothesis begins: it would be much of a few, and says little."""

    def case(example: tuple[Choices, Any]) -> Case:
        choices, words = example
        setting = choices.below(POOL)
        return Case(setting, count(choices, own_counts(lab.rule, lab.pool[setting])), words, dtype)

    return drawn(STEPS + 1, SIZE).map(case).filter(lambda case: np.any(case.words))
