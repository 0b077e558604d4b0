"""Structure as a generated dimension: whole situations of a step, drawn, and the one law that all of them keep."""

from xopt.conformance.structures.check import STRUCTURES, check_structures
from xopt.conformance.structures.situation import Situation

__all__ = ["STRUCTURES", "Situation", "check_structures"]
