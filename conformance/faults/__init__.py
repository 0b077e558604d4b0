"""Faults planted in the rules, the goldens and what they share: the proof that the checks would see them."""

from xopt.conformance.faults.catalogue import EVERYWHERE, FAULTS
from xopt.conformance.faults.fault import Edit, Fault
from xopt.conformance.faults.matrix import FaultReport, run
from xopt.conformance.faults.structural import STRUCTURAL, Structural
from xopt.conformance.faults.structural import run as run_structural
from xopt.conformance.faults.tables import TABLES

__all__ = ["EVERYWHERE", "FAULTS", "STRUCTURAL", "TABLES", "Edit", "Fault", "FaultReport", "Structural", "run", "run_structural"]
