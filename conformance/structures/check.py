"""The check of structures: drawn situations of one rule, in every mode and by every compiler of each library."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from xopt import backends
from xopt.conformance.inputs.census import saw
from xopt.conformance.inputs.explore import ViolationError, explore
from xopt.conformance.results import LawResult
from xopt.conformance.structures.draw import situations
from xopt.conformance.structures.law import Play, Product
from xopt.conformance.structures.situation import Mode, Situation
from xopt.conformance.target import Effort, Target
from xopt.rules import RULES

STRUCTURES = "any structure"

SHARES = {"numpy": 1.0, "jax": 0.3}
"""The share of NumPy's examples that a slower library gets, where it is not 0.6, or 0.2 of a slow one."""
SLOW = ("torch.compile", "mx.compile")
"""Compilers that take seconds for each situation: tracers, and of torch also what fuses."""
SMALL = 6
"""Lines of a setup that are compiled at most: a leaf takes a quarter of a second."""


class Played(NamedTuple):
    """One target, and the ways in which its mode can be taken."""

    result: LawResult
    play: Play
    modes: Sequence[Mode]


class _Examples:
    """Plays one situation after another on all targets of a library."""

    def __init__(self, rows: list[Played], compiled: int) -> None:
        self.rows = rows
        self.compiled = compiled  # how many more situations torch.compile may compile
        self.count = 0
        self.found: ViolationError | None = None  # the first violation
        self._compiles: dict[Situation, bool] = {}  # the same answer each time that Hypothesis repeats a situation

    def run(self, situation: Situation) -> None:
        self.count += 1
        self._look_at(situation)
        if situation not in self._compiles:
            self._compiles[situation] = self.compiled > 0 and len(situation.setup) <= SMALL and not situation.troubles
            self.compiled -= self._compiles[situation]
        compiles = self._compiles[situation]
        for row in self.rows:
            result, play, modes = row
            for mode in modes:
                slow = mode.compiler == "torch.compile" or (
                    mode.mode == "traced" and backends.BACKENDS[situation.library].tracer in SLOW
                )
                self._play(row, situation, mode._replace(refusals=slow and not compiles))
            tally = play.tally
            result.numbers += tally.numbers
            saw("structures: numbers compared", tally.numbers)
            result.ratio = max(result.ratio, tally.ratio)
            result.examples += 1
            play.tally = type(tally)()

    def _look_at(self, situation: Situation) -> None:
        """Counts, for the census, what this situation contains."""
        saw("structures: situations")
        saw(f"structures: situations of {situation.library}")
        for feature in situation.features:
            saw(f"structures: {feature}")

    def _play(self, row: Played, situation: Situation, mode: Mode) -> None:
        result, play, _ = row
        play.forget()
        try:
            play.run(situation, mode)
        except Exception as error:
            result.found_after = result.found_after or self.count
            reason = f"{type(error).__name__}: {error}"
            if play.trouble:
                situation = situation._replace(troubles=(play.trouble,))
            broken = ViolationError(result, {"program": situation.program(mode), "mode": str(mode), "reason": reason})
            self.found = self.found or broken
            raise broken from error


def check_structures(
    rule_name: str,
    dtype: str,
    targets: Sequence[Target],
    effort: Effort,
    product: Product | None = None,
    *,
    compiled: int = 0,
    compilers: Sequence[str] | None = None,
    wide: bool = False,
) -> list[LawResult]:
    """Plays situations of one rule, whose first leaf has this dtype, on each target.

    Parameters
    ----------
    effort
        Its examples are those of NumPy. A library that is slower gets fewer.
    product
        May be a copy of xopt with something planted.
    compiled
        How many of them torch.compile may compile, which takes seconds for each; of the others it gets what is to be refused.
    compilers
        Of fused steps. Default: all that are there.
    wide
        Draw what needs kernels of its own too.
    """
    results = []
    product = product or Product()
    for name, device in dict.fromkeys((target.backend, target.device) for target in targets):
        backend = backends.get(name, device)
        rows: list[Played] = []
        for target in [target for target in targets if (target.backend, target.device) == (name, device)]:
            mode = target.mode
            result = LawResult(STRUCTURES, rule_name, name, device, dtype, mode)
            results.append(result)
            if dtype not in backend.dtypes():
                result.reason = f"{name} has no {dtype}"
            elif mode == "traced" and backend.tracer in SLOW and not compiled:
                result.reason = f"{backend.tracer} compiles each situation for seconds: a few rules take turns, in float32"
            else:
                modes = [way for way in modes_of(backend, mode) if not compilers or not way.compiler or way.compiler in compilers]
                rows.append(Played(result, Play(product, backend, target), modes))
        drawn = situations(RULES[rule_name], name, dtype, backend.dtypes(), backend.place, _devices(backend), wide)
        count = max(
            1,
            int(
                effort.examples
                * SHARES.get(name, 0.2 if backend.slow else 0.6)
                * (1.0 if dtype == "float32" or name != "jax" else 0.3)
            ),
        )
        failed = explore(
            rows,
            lambda left: _Examples(left, compiled),
            drawn,
            replace(effort, examples=count),
            f"{rule_name} {dtype} {name} {STRUCTURES}",
        )
        if failed:  # it is no situation that failed
            raise failed[1]
    return results


def _devices(backend: Any) -> int:
    return len(backend.lib.devices()) if backend.name == "jax" else 1


def modes_of(backend: Any, mode: str) -> list[Mode]:
    """The ways in which a mode of the report can be taken on a backend: each compiler that is there, donated and not."""
    if mode != "fused":
        return [Mode(mode)]
    return [Mode(mode, name, donate) for name in backend.usable_compilers for donate in (False, True)]
