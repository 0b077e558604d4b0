"""The suite held to its word: subjects that are wrong by a known share of the bound, and the verdict that each must get.

The bound itself is held against one worked out by hand; then what is 0.95 bounds off must pass, and 1.05, 2 and 3.9 must not,
in the comparison with the golden, in its replay, in the laws and in the state machine. What must be drawn is counted, what must
fail a run is put into a report. ``CHECKS`` is the one list: ``conformance/faults/suite_catalogue.py`` plants faults in the suite
itself, and each is seen by one of these.
"""

from collections.abc import Sequence

import numpy as np

from xopt.conformance.selfcheck import bounds, comparison, inputs, laws, machine, verdicts  # noqa: F401 - they declare the checks
from xopt.conformance.selfcheck.checks import CHECKS

__all__ = ["CHECKS", "run"]


def run(names: Sequence[str] | None = None) -> None:
    """Runs the checks, default all. Raises SelfCheckError at the first thing that the suite does not see."""
    with np.errstate(all="ignore"):
        for one in CHECKS:
            if names is None or one.name in names:
                one.function()
