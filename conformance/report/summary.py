"""What every report says first and last: what was asked for, and what came of it in one line."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xopt.backends import BACKENDS
from xopt.conformance.profiles import PROFILES
from xopt.conformance.report.vocabulary import BAD, RIGHT
from xopt.conformance.results import DTYPES, MODES, NOT_RUN, WORDS
from xopt.rules import RULES

ALL = {"rule": tuple(RULES), "backend": tuple(BACKENDS), "dtype": DTYPES, "mode": MODES}
"""Of what a whole run is, each by the name of its option; modes follow from the profile."""


@dataclass(frozen=True)
class Scope:
    """What a run was asked to check."""

    names: Mapping[str, Sequence[str]]  # for each key of ALL
    profile: str
    seed: int
    interrupted: str | None = None  # how far it came
    fewer: str = ""  # what is run less of some of it

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "Scope":
        """Of a report's ``about``."""
        asked, profile = about.get("asked", {}), about.get("profile", "")
        plan = PROFILES.get(profile)
        modes = plan.modes if plan else ()
        run = asked.get("backend", [name for name, kind in BACKENDS.items() if plan and (plan.slow or not kind.slow)])
        fewer = plan.said_of(dict.fromkeys(name.partition(":")[0] for name in run)) if plan else ""
        names = {what: tuple(asked.get(what, known)) for what, known in ALL.items() if what != "mode"}
        return cls(names | {"mode": modes}, profile, about.get("seed", 0), about.get("interrupted"), fewer)

    @property
    def whole(self) -> bool:
        """Whether everything was asked for, and came to its end."""
        return self.interrupted is None and not self.lacking

    @property
    def lacking(self) -> list[str]:
        """What was not asked for in full."""
        return [what for what, known in ALL.items() if not set(known) <= set(self.names[what])]

    def __str__(self) -> str:
        """In a line, such as ``A part: lion (1 of 11 rules), numpy (1 of 5 backends), ...; profile quick, seed 0``."""
        modes = [WORDS[mode] for mode in self.names["mode"]]
        parts = [_some(what, names if what != "mode" else modes, len(ALL[what])) for what, names in self.names.items()]
        begun = "Everything" if not self.lacking else "A part"
        ended = f"Interrupted after {self.interrupted}. " if self.interrupted is not None else ""
        fewer = f"; {self.fewer}" if self.fewer else ""
        return f"{ended}{begun}: {', '.join(parts)}{fewer}; profile {self.profile}, seed {self.seed}"

    def to_dict(self) -> dict[str, Any]:
        names = {f"{what}s": list(names) for what, names in self.names.items()}
        return {"says": str(self), "whole": self.whole, **names, "profile": self.profile, "seed": self.seed}


def _some(what: str, names: Sequence[str], known: int) -> str:
    """All of them by their number, a few by name."""
    if len(names) >= known:
        return f"{known} {what}s"
    some = ", ".join(names[:-1]) + f" and {names[-1]}" if 1 < len(names) <= 3 else names[0] if len(names) == 1 else len(names)
    return f"{some} ({len(names)} of {known} {what}s)"


def command_line(name: str, options: Mapping[str, Any], *arguments: str) -> str:
    """The command that does the same: an option that is None or False is left out, one that is True has no value."""
    words = ["xopt", name, *arguments]
    for option, value in options.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is not None and one is not False:
                words += [f"--{option}"] if one is True else [f"--{option}", str(one)]
    return shlex.join(words)


@dataclass(frozen=True)
class Counts:
    """How many checks came out how: comparisons with the golden, of drawn and of real gradients, and checks of laws."""

    comparisons: Mapping[str, int]  # by verdict
    laws: Mapping[str, int]

    @classmethod
    def of(cls, comparisons: Iterable[str], laws: Iterable[str]) -> "Counts":
        """Of their verdicts."""
        return cls(Counter(comparisons), Counter(laws))

    @property
    def held(self) -> int:
        return self._sum(RIGHT)

    @property
    def wrong(self) -> int:
        return self._sum(BAD)

    @property
    def not_run(self) -> int:
        return self._sum((NOT_RUN,))

    def _sum(self, verdicts: Iterable[str]) -> int:
        return sum(counted.get(verdict, 0) for counted in (self.comparisons, self.laws) for verdict in verdicts)

    def verdict(self, problems: int, interrupted: str | None = None) -> str:
        """In one line: what holds, what does not, and what was not run; ``problems`` are reasons why the run fails."""
        held = f"{self.held:,} check{' holds' if self.held == 1 else 's hold'}"
        rest = f"{self.not_run:,} not run"
        begun = "" if interrupted is None else f"INTERRUPTED after {interrupted}: "
        if self.wrong:
            kinds = [
                f"{n:,} {what}{'' if n == 1 else 's'}"
                for what, counted in (("comparison", self.comparisons), ("law", self.laws))
                if (n := sum(counted.get(verdict, 0) for verdict in BAD))
            ]
            return f"{begun}WRONG: {self.wrong:,} of {self.held + self.wrong:,} checks ({', '.join(kinds)}); {held}; {rest}"
        found = f"{held}, none is wrong" if self.held else "nothing was checked"
        if interrupted is not None:
            return f"{begun}until then {found}; {rest}"
        if problems:
            reasons = "a reason that is" if problems == 1 else f"{problems:,} reasons that are"
            return f"FAILED for {reasons} given; {found}; {rest}"
        return f"RIGHT: {found}; {rest}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "held": self.held,
            "wrong": self.wrong,
            "not run": self.not_run,
            "comparisons": dict(self.comparisons),
            "laws": dict(self.laws),
        }
