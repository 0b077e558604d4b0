"""The check of structures: drawn situations of one rule, in every mode and by every compiler of each library."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import hypothesis

from xopt import backends
from xopt.conformance.arithmetic.formats import Format
from xopt.conformance.inputs.census import saw
from xopt.conformance.inputs.explore import SETTINGS
from xopt.conformance.laws.check import HOLDS
from xopt.conformance.results import LawResult
from xopt.conformance.structures.draw import situations
from xopt.conformance.structures.law import Play, Product
from xopt.conformance.structures.situation import Mode, Situation
from xopt.rules import RULES

STRUCTURES = "any structure"

SHARES = {"torch": 0.6, "jax": 0.3, "cupy": 0.6, "array_api_strict": 0.6}
"""Of the examples that a library gets: what a step of it takes, beside one of NumPy."""
SLOW = "torch.compile"
SMALL = 6
"""Lines of a setup that are compiled at most: a leaf takes a quarter of a second."""


class _Broken(Exception):  # noqa: N818 - carries the row to who catches it
    def __init__(self, result: LawResult, details: dict[str, Any]) -> None:
        super().__init__(str(details))
        self.result = result
        self.details = details


class _Examples:
    """Plays one situation after another in all modes of a library."""

    def __init__(self, play: Play, rows: list[tuple[LawResult, Sequence[Mode]]], compiled: int) -> None:
        self.play = play
        self.rows = rows
        self.compiled = compiled  # how many more may be
        self.count = 0
        self.found: _Broken | None = None  # the first
        self._compiles: dict[Situation, bool] = {}  # the same each time, as Hypothesis looks at some again

    def run(self, situation: Situation) -> None:
        self.count += 1
        self._look_at(situation)
        if situation not in self._compiles:
            self._compiles[situation] = self.compiled > 0 and len(situation.setup) <= SMALL and not situation.troubles
            self.compiled -= self._compiles[situation]
        compiles = self._compiles[situation]
        for result, modes in self.rows:
            for mode in modes:
                slow = mode.compiler == SLOW or (mode.mode == "traced" and situation.library == "torch")
                self._play(result, situation, mode._replace(refusals=slow and not compiles))
            tally = self.play.tally
            result.numbers += tally.numbers
            saw("structures: numbers compared", tally.numbers)
            result.ratio = max(result.ratio, tally.ratio)
            result.examples += 1
            self.play.tally = type(tally)()

    def _look_at(self, situation: Situation) -> None:
        """For the census: what this situation is."""
        saw("structures: situations")
        saw(f"structures: situations of {situation.library}")
        for feature in situation.features:
            saw(f"structures: {feature}")

    def _play(self, result: LawResult, situation: Situation, mode: Mode) -> None:
        self.play.forget()
        try:
            self.play.run(situation, mode)
        except Exception as error:
            result.found_after = result.found_after or self.count
            reason = f"{type(error).__name__}: {error}"
            if self.play.trouble:
                situation = situation._replace(troubles=(self.play.trouble,))
            broken = _Broken(result, {"program": situation.program(mode), "mode": str(mode), "reason": reason})
            self.found = self.found or broken
            raise broken from error


def check_structures(
    rule_name: str,
    dtype: str,
    targets: Sequence[tuple[str, str, str]],
    formats: Mapping[Any, Format],
    examples: int,
    seed: int,
    product: Product | None = None,
    compiled: int = 0,
    compilers: Sequence[str] | None = None,
    shrink: bool = True,
    wide: bool = False,
) -> list[LawResult]:
    """Plays so many situations of one rule, whose first leaf has this dtype, on each target (backend, device, mode).

    Parameters
    ----------
    formats
        Of the arithmetic, as the probes measured them, by (backend, device, dtype of the arithmetic, mode).
    examples
        Of NumPy. A library that is slower gets fewer.
    product
        May be a copy of xopt with something planted.
    compiled
        How many of them torch.compile may compile, which takes seconds for each; of the others it gets what is to be refused.
    compilers
        Of fused steps. Default: all that are there.
    shrink
        Report the smallest situation that breaks the law; else the first.
    wide
        Draw what needs kernels of its own too.
    """
    results = []
    product = product or Product()
    for name, device in dict.fromkeys((name, device) for name, device, _ in targets):
        backend = backends.get(name, device)
        rows: list[tuple[LawResult, Sequence[Mode]]] = []
        for mode in [mode for other, place, mode in targets if (other, place) == (name, device)]:
            result = LawResult(STRUCTURES, rule_name, name, device, dtype, mode)
            results.append(result)
            if dtype not in backend.dtypes():
                result.reason = f"{name} has no {dtype}"
            elif mode == "traced" and name == "torch" and not compiled:
                result.reason = f"{backend.tracer} compiles each situation for seconds: a few rules take turns, in float32"
            else:
                modes = modes_of(backend, mode)
                rows.append((result, [one for one in modes if not compilers or not one.compiler or one.compiler in compilers]))
        own = {f"{key[2]} {key[3]}": value for key, value in formats.items() if key[:2] == (name, device)}
        drawn = situations(RULES[rule_name], name, dtype, backend.dtypes(), backend.place, _devices(backend), wide)
        count = max(1, int(examples * SHARES.get(name, 1.0) * (1.0 if dtype == "float32" or name != "jax" else 0.3)))
        _explore(Play(product, backend, own), rows, drawn, count, seed, compiled, shrink)
    return results


def _devices(backend: Any) -> int:
    return len(backend.lib.devices()) if backend.name == "jax" else 1


def modes_of(backend: Any, mode: str) -> list[Mode]:
    """The ways in which a mode of the report can be taken on a backend: each compiler that is there, donated and not."""
    if mode != "fused":
        return [Mode(mode)]
    return [Mode(mode, name, donate) for name in backend.usable_compilers for donate in (False, True)]


def _explore(
    play: Play,
    rows: list[tuple[LawResult, Sequence[Mode]]],
    drawn: Any,
    examples: int,
    seed: int,
    compiled: int,
    shrink: bool,
) -> None:
    """One row after another that breaks the law is set aside, and the others start anew."""
    phases = [phase for phase in SETTINGS.phases if shrink or phase is not hypothesis.Phase.shrink]
    explore = hypothesis.settings(SETTINGS, max_examples=examples, phases=phases)
    while rows:
        first = rows[0][0]
        examined = _Examples(play, rows, compiled)
        run: Any = hypothesis.given(drawn)(examined.run)  # type: ignore[no-untyped-call]
        run = hypothesis.seed(zlib.crc32(f"{seed} {first.rule} {first.dtype} {first.backend} {STRUCTURES}".encode()))(run)
        try:
            explore(run)()
        except Exception as error:
            broken = error if isinstance(error, _Broken) else examined.found
            if broken is None:  # it is no situation that failed
                raise
            if broken is not error:  # Hypothesis does not see it again, and says so in errors of its own
                broken.details["again"] = HOLDS
            broken.result.broken = broken.details
            rows = [row for row in rows if row[0] is not broken.result]
            for old, _ in rows:
                old.__dict__.update(LawResult(old.law, old.rule, old.backend, old.device, old.dtype, old.mode).__dict__)
        else:
            break
