"""Conventions: what a rule could compute instead, and who does.

One row is a rule, an axis, a choice, what is then computed, where that is documented or was seen, and the edit of the rule and of
its golden that make it so. The planted faults follow from the rows; a subject can be compared with the edited goldens.
"""

from xopt.conformance.conventions.adam import ADAM, ADAMW
from xopt.conformance.conventions.ademamix import ADEMAMIX
from xopt.conformance.conventions.convention import PLACES, Convention, Edit, Place, Status, status
from xopt.conformance.conventions.limits import LATE, RANGES
from xopt.conformance.conventions.linear import AGGMO, MOMENTUM, NESTEROV, QHM, SGD
from xopt.conformance.conventions.lion import LION
from xopt.conformance.conventions.nadam import NADAM
from xopt.conformance.conventions.qhadam import QHADAM

CONVENTIONS: tuple[Convention, ...] = (
    *SGD,
    *MOMENTUM,
    *NESTEROV,
    *QHM,
    *AGGMO,
    *ADAM,
    *ADAMW,
    *NADAM,
    *QHADAM,
    *LION,
    *ADEMAMIX,
    *LATE,
    *RANGES,
)
"""All of them."""

__all__ = ["CONVENTIONS", "PLACES", "Convention", "Edit", "Place", "Status", "status"]
