"""What a fault is: a few words of the package replaced by others, and what is then computed instead."""

from typing import Literal, NamedTuple


class Edit(NamedTuple):
    """One replacement. ``file`` is relative to the package: ``rules/adam.py``, ``golden/adam.py``, ``scalars.py``."""

    file: str
    old: str  # stands in the file exactly once
    new: str


FaultKind = Literal["rule", "golden", "twin", "core", "backend"]


class Fault(NamedTuple):
    """A wrong text of the package."""

    name: str  # "rule, convention: what"
    rule: str  # under which it is checked
    edits: tuple[Edit, ...]
    sentence: str  # what it computes instead
    seen: str = ""  # an issue, a library, or a file of one where it is so
    equivalent: str = ""  # the proof that nothing differs
    target: str = "numpy"  # the backend on which it shows

    @property
    def kind(self) -> FaultKind:
        """Where it is planted: in a rule, in its golden, in both at once, in what the rules share, or for one backend alone."""
        if self.target != "numpy":
            return "backend"
        places = {edit.file.partition("/")[0] for edit in self.edits}
        if places == {"golden", "rules"}:
            return "twin"
        if places == {"golden"}:
            return "golden"
        return "rule" if places == {"rules"} else "core"


class SuiteFault(NamedTuple):
    """A wrong text of the suite itself."""

    name: str  # what the suite then says or does
    check: str  # of the self-check, which sees it
    edits: tuple[Edit, ...]  # of files relative to the suite: ``compare/check.py``, ``laws/lab.py``
