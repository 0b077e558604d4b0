"""The check of programs: any order of operations on one rule in one dtype, from each backend."""

from collections.abc import Iterator, Sequence
from typing import Any

import hypothesis
import numpy as np
from hypothesis import stateful

from xopt import backends
from xopt.backends import Backend
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, FloatFormat, arithmetic_of
from xopt.conformance.inputs.explore import seeded, settings_of
from xopt.conformance.results import LawResult, brief
from xopt.conformance.stateful.machine import MACHINE, Machine, Setup
from xopt.conformance.target import OURS, Effort, Implementations, Target

PROGRAM_LENGTH = 12
"""Of one program, at most."""


def check_machine(
    rule_name: str,
    dtype: str,
    targets: Sequence[Target],
    effort: Effort,
    implementations: Implementations = OURS,
) -> list[LawResult]:
    """Runs programs of one rule in one dtype on each target.

    They begin on the target and may move to NumPy and back; from NumPy to array_api_strict.

    A backend with a primitive that is not correctly rounded may give one number other bits at another place of an array (the
    rest of a vector, say, that its vector instructions do not fill). There each step still is within its bound of the golden,
    and the numbers that differ are counted.
    """
    results = []
    for target in targets:
        result = LawResult(MACHINE, rule_name, target.backend, target.device, dtype, target.mode)
        results.append(result)
        backend = backends.get(target.backend, target.device)
        if target.mode == "fused":
            result.reason = "the programs move between backends step by step, and step eagerly"
        elif target.mode != "eager":
            result.reason = "splitting and merging leaves would compile anew at each step"
        elif dtype not in backend.dtypes():
            result.reason = f"{backend.name} has no {dtype}"
        else:
            places = [(backend, target.compute(dtype)), *_others(backend, dtype)]
            setup = Setup(implementations.rules[rule_name], implementations.goldens[rule_name], places, effort.seed, result)
            with backend.session(), np.errstate(all="ignore"):
                _explore(setup, effort)
    return results


def _others(backend: Backend, dtype: str) -> Iterator[tuple[Backend, FloatFormat]]:
    """The second backend, which programs move to, where it is available and has the dtype."""
    name = "array_api_strict" if backend.name == "numpy" else "numpy"
    if backends.available([name])[name].reason is None and dtype in (other := backends.get(name)).dtypes():
        yield other, FLOAT_FORMATS[arithmetic_of(dtype)]


def _explore(setup: Setup, effort: Effort) -> None:
    def program() -> Any:
        return Machine(setup)

    result = setup.result
    seeded(program, effort, f"{result.rule} {result.dtype} {result.backend} {MACHINE}")
    explore = settings_of(effort, stateful_step_count=PROGRAM_LENGTH)
    try:
        stateful.run_state_machine_as_test(program, settings=explore)  # type: ignore[arg-type]  # a function will do
    except Exception as error:  # noqa: BLE001 - one check that fails must not lose the others
        if result.broken is None:  # it is not a program that failed
            result.broken = {"program": "", "reason": brief(error)}
        elif isinstance(error, hypothesis.errors.Flaky):
            result.broken["again"] = "it holds when the same program is run again: it is not reproducible"
