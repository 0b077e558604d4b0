"""Laws that need no reference: what rules have in common, their symmetries, closed forms, invariants, and how they are used.

``LAWS`` is the one list of them. A law compares runs of a rule with each other, or with a formula; a wrong rule breaks it even
where the golden is wrong in the same way.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from xopt.conformance.arithmetic.formats import Format
from xopt.conformance.golden import GOLDENS, Golden
from xopt.conformance.laws import check, hyper, invariants, reductions, responses, symmetries, use
from xopt.conformance.laws.lab import Kind, Law
from xopt.conformance.results import LawResult
from xopt.rule import Rule
from xopt.rules import RULES

__all__ = ["LAWS", "LEFT_OUT", "Kind", "Law", "check_laws"]

LAWS: tuple[Law, ...] = (*reductions.LAWS, *symmetries.LAWS, *responses.LAWS, *invariants.LAWS, *use.LAWS, *hyper.LAWS)

LEFT_OUT: dict[int, str] = {
    3: "Simplified-AdEMAMix is not in xopt.",
    23: "MARS is not in xopt.",
    24: "Muon is not in xopt.",
    25: "Adan is not in xopt.",
    26: "Schedule-Free is not in xopt.",
    27: "Grokfast is not in xopt.",
    50: "ADana is not in xopt.",
    57: "The cautious mask is not in xopt.",
}
"""Properties that are known and not among the laws, by number, with the reason."""


def check_laws(
    rule_name: str,
    dtype: str,
    targets: Sequence[tuple[str, str, str]],
    formats: Mapping[Any, Format],
    examples: int,
    seed: int,
    rules: Mapping[str, Rule[Any, Any]] = RULES,
    goldens: Mapping[str, Golden] = GOLDENS,
    only: Collection[str] | None = None,
    shrink: bool = True,
) -> list[LawResult]:
    """Checks the laws of one rule in one dtype on each target (backend, device, mode).

    Parameters
    ----------
    formats
        Of the arithmetic, as the probes measured them, by (backend, device, dtype of the arithmetic, mode).
    examples
        Drawn by Hypothesis for each law.
    rules, goldens
        May hold others than xopt's own; partners of a law are looked up here too.
    only
        Names of laws. Default: all.
    shrink
        Report the smallest input that breaks a law; else the first.

    Raises
    ------
    ValueError
        For an unknown name in ``only``.
    """
    known = [law.name for law in LAWS]
    for name in only or ():
        if name not in known:
            msg = f"unknown law {name!r}; there are {', '.join(known)}"
            raise ValueError(msg)
    laws = [law for law in LAWS if only is None or law.name in only]
    return check.check_laws(laws, rule_name, dtype, targets, formats, examples, seed, rules, goldens, shrink)
