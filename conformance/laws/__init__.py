"""Laws that need no reference: what rules have in common, their symmetries, closed forms, invariants, and how they are used.

``LAWS`` is the one list of them. A law compares runs of a rule with each other, or with a formula; a wrong rule breaks it even
where the golden is wrong in the same way.
"""

from collections.abc import Collection, Sequence

from xopt.conformance.laws import check, hyper, invariants, reductions, responses, symmetries, use
from xopt.conformance.laws.lab import Kind, Law
from xopt.conformance.results import LawResult
from xopt.conformance.target import OURS, Effort, Implementations, Target

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
    targets: Sequence[Target],
    effort: Effort,
    implementations: Implementations = OURS,
    only: Collection[str] | None = None,
) -> list[LawResult]:
    """Checks the laws of one rule in one dtype on each target.

    Parameters
    ----------
    effort
        Its examples are drawn for each law.
    implementations
        Partners of a law are looked up here too.
    only
        Names of laws. Default: all.

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
    return check.check_laws(laws, rule_name, dtype, targets, effort, implementations)
