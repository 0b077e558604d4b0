"""What a fault is: a few words of the package replaced by others, and what is then computed instead."""

from typing import Literal, NamedTuple

from xopt.conformance.conventions import Convention, Edit, Place, Status, status

__all__ = ["KINDS", "Edit", "Fault", "FaultKind", "SuiteFault", "fault_of"]

FaultKind = Literal["rule", "golden", "twin", "core", "backend"]
KINDS: tuple[FaultKind, ...] = ("rule", "golden", "twin", "core", "backend")
"""In the order in which they are listed."""


class Fault(NamedTuple):
    """A wrong text of the package."""

    name: str  # "rule, convention: what"
    rule: str  # under which it is checked
    edits: tuple[Edit, ...]
    sentence: str  # what it computes instead
    seen: str = ""  # an issue, a library, or a file of one where it is a bug
    equivalent: str = ""  # the proof that nothing differs
    target: str = "numpy"  # the backend on which it shows
    documented: str = ""  # a library that does so on purpose, and says so

    @property
    def kind(self) -> FaultKind:
        """Where it is planted: in a rule, in its golden, in both at once, in what the rules share, or for one backend alone."""
        if self.target != "numpy":
            return "backend"
        places = {edit.file.partition("/")[0] for edit in self.edits}
        if "golden" in places:
            return "golden" if places == {"golden"} else "twin"
        return "rule" if places == {"rules"} else "core"

    @property
    def status(self) -> Status:
        """Whether it is a convention of some library, a defect of one, or what might happen."""
        return status(self.documented, self.seen)


def fault_of(convention: Convention, place: Place) -> Fault:
    """The fault that a convention is in the rule, in its golden, or in both."""
    rule, what = convention.rule, convention.what
    edits = {"rule": convention.in_rule, "golden": convention.in_golden, "both": convention.edits}[place]
    shared = place == "rule" and any(not edit.file.startswith("rules/") for edit in edits)
    usual = {"rule": f"{rule}, {what}", "golden": f"{rule}'s golden, {what}", "both": f"{rule} and its golden, {what}"}
    name = convention.named.get(place, f"{what} (seen under {rule})" if shared else usual[place])
    return Fault(name, rule, edits, convention.sentence, convention.seen, documented=convention.documented)


class SuiteFault(NamedTuple):
    """A wrong text of the suite itself."""

    name: str  # what the suite then says or does
    check: str  # of the self-check, which sees it
    edits: tuple[Edit, ...]  # of files relative to the suite: ``compare/check.py``, ``laws/lab.py``
