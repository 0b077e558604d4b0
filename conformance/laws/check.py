"""The check of the laws of one rule in one dtype: the same examples on every backend and in every mode."""

import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from xopt import backends
from xopt.conformance.bounded import Format
from xopt.conformance.cells import SETTINGS
from xopt.conformance.census import saw
from xopt.conformance.golden import GOLDENS, Golden
from xopt.conformance.laws.lab import POOL, SIZE, STEPS, Bounds, BrokenError, Case, Lab, Law
from xopt.conformance.results import LawResult
from xopt.rule import Rule
from xopt.rules import RULES


class _Broken(Exception):  # noqa: N818 - carries the lab to who catches it
    def __init__(self, lab: Lab, details: dict[str, Any]) -> None:
        super().__init__(str(details))
        self.lab = lab
        self.details = details


def check_laws(
    laws: Sequence[Law],
    rule_name: str,
    dtype: str,
    targets: Sequence[tuple[str, str, str]],
    formats: Mapping[Any, Format],
    examples: int,
    seed: int,
    rules: Mapping[str, Rule[Any, Any]] = RULES,
    goldens: Mapping[str, Golden] = GOLDENS,
    shrink: bool = True,
) -> list[LawResult]:
    """Each law on each target: those given that are said of the rule."""
    arithmetic = "float64" if dtype == "float64" else "float32"
    bounds = Bounds()
    labs = [
        Lab(
            rule_name,
            rules,
            goldens,
            backends.get(name, device),
            dtype,
            mode,
            formats[name, device, arithmetic, mode],
            seed,
            bounds,
        )
        for name, device, mode in targets
    ]
    results = []
    for law in laws:
        if rule_name in law.rules:
            for lab in labs:
                lab.result = LawResult(law.name, rule_name, lab.backend.name, lab.backend.device, dtype, lab.mode)
                lab.result.reason = _why_not(law, lab)
                results.append(lab.result)
            _check(law, [lab for lab in labs if lab.result.reason is None], bounds, dtype, examples, seed, shrink)
    return results


def _why_not(law: Law, lab: Lab) -> str | None:
    dtype, mode = lab.dtype, lab.mode
    if dtype not in law.dtypes:
        return f"said of {', '.join(law.dtypes)} alone"
    if mode not in law.modes:
        return f"said of {', '.join(law.modes)} steps alone"
    if mode != "eager" and dtype != "float32":  # compiling for each dtype costs more than all else, and contracts each alike
        return "compiled steps are held to the laws in float32 alone"
    if mode == "fused" and lab.backend.compiles_each(mode):
        return f"{lab.backend.tracer} compiles anew for each law: the plain step that it compiles is held to them"
    return None


def _check(law: Law, labs: list[Lab], bounds: Bounds, dtype: str, examples: int, seed: int, shrink: bool) -> None:
    """Runs the law on examples in all labs at once. One where it is broken is set aside, and the others start anew."""
    phases = [phase for phase in SETTINGS.phases if shrink or phase is not hypothesis.Phase.shrink]
    explore = hypothesis.settings(SETTINGS, max_examples=examples, phases=phases)
    while labs:
        run = hypothesis.given(_cases(dtype))(_Examples(law, labs, bounds).run)
        run = hypothesis.seed(zlib.crc32(f"{seed} {law.name} {labs[0].rule.name} {dtype}".encode()))(run)
        try:
            explore(run)()
        except _Broken as error:
            error.lab.result.broken = error.details
            labs = [lab for lab in labs if lab is not error.lab]
            for lab in labs:
                old = lab.result
                fresh = LawResult(old.law, old.rule, old.backend, old.device, old.dtype, old.mode)
                old.__dict__.update(fresh.__dict__)
        else:
            break


class _Examples:
    """Runs a law on one example after another."""

    def __init__(self, law: Law, labs: Collection[Lab], bounds: Bounds) -> None:
        self.law = law
        self.labs = labs
        self.bounds = bounds
        self.count = 0

    def run(self, case: Case) -> None:
        self.count += 1
        self._look_at(case)
        self.bounds.known.clear()
        for lab in self.labs:
            try:
                with lab.backend.session(), np.errstate(all="ignore"):
                    before = lab.result.numbers
                    self.law.function(lab, case)
                    saw("laws: numbers compared", lab.result.numbers - before)
            except Exception as error:
                lab.result.found_after = lab.result.found_after or self.count
                details = error.details if isinstance(error, BrokenError) else {"raised": f"{type(error).__name__}: {error}"}
                raise _Broken(lab, details) from error
            lab.result.examples += 1

    def _look_at(self, case: Case) -> None:
        """For the census: what this example is."""
        grads = np.stack(case.grads)
        saw("laws: examples")
        saw(f"laws: examples in {case.dtype}")
        saw("laws: gradients", grads.size)
        saw("laws: gradients of 0", np.sum(grads == 0))


@st.composite
def _cases(draw: st.DrawFn, dtype: str) -> Case:
    size = SIZE * (STEPS + 1)
    setting = draw(st.integers(0, POOL - 1))
    words = np.frombuffer(draw(st.binary(min_size=4 * size, max_size=4 * size)), "<u4")
    return Case(setting, words.reshape(STEPS + 1, SIZE), dtype)
