"""What a convention is: a choice that a rule could make otherwise, as an edit of the rule and the same edit of its golden."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple


class Edit(NamedTuple):
    """One replacement. ``file`` is relative to the package: ``rules/adam.py``, ``golden/adam.py``, ``scalars.py``."""

    file: str
    old: str  # stands in the file exactly once
    new: str

    @property
    def of_golden(self) -> bool:
        """Whether it is an edit of a golden, not of a rule or of what rules share."""
        return self.file.startswith("golden/")


Place = Literal["rule", "golden", "both"]
PLACES: tuple[Place, ...] = ("rule", "golden", "both")
"""Where a choice is planted: in the rule, in its golden, or in both, as a misreading that they share.

The tests plant it in the rule; in both, too, where somebody could read the paper so, as there the golden cannot help; and in the
golden once or twice a rule, as the comparison has two sides.
"""

Status = Literal["convention", "defect", "possible"]
"""What is known of a choice: a library makes it on purpose and says so; it was seen, and is a bug there; it might be made."""


def status(documented: str, seen: str) -> Status:
    """What is known of a choice that is documented in the one place, and was seen as a bug in the other."""
    return "convention" if documented else "defect" if seen else "possible"


class Convention(NamedTuple):
    """One choice of a rule that is not xopt's, and what is then computed."""

    rule: str
    axis: str  # what is chosen: "weight decay", "epsilon"
    choice: str  # and how: "L2", "inside the square root"
    sentence: str  # what is computed instead
    edits: tuple[Edit, ...]  # of the rule, or of what rules share, and of the golden
    documented: str = ""  # the libraries whose documentation or code has it on purpose
    seen: str = ""  # the issue, the version or the file in which it is a bug
    same: str = ""  # why it is the same in exact arithmetic, where it is: then only bits tell it
    at: Mapping[str, Any] = {}  # hyperparameters at which it shows, where usual ones do not show it
    after: int = 0  # steps after which it shows
    planted: tuple[Place, ...] = ("rule",)  # where the tests plant it
    named: Mapping[Place, str] = {}  # what its fault there is called, where not by axis and choice

    @property
    def what(self) -> str:
        """Axis and choice in one."""
        return f"{self.axis}: {self.choice}"

    @property
    def name(self) -> str:
        return f"{self.rule}, {self.what}"

    @property
    def in_rule(self) -> tuple[Edit, ...]:
        """The edit of the rule, or of what rules share."""
        return tuple(edit for edit in self.edits if not edit.of_golden)

    @property
    def in_golden(self) -> tuple[Edit, ...]:
        """The edit of the golden."""
        return tuple(edit for edit in self.edits if edit.of_golden)

    @property
    def status(self) -> Status:
        return status(self.documented, self.seen)
