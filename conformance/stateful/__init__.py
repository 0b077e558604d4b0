"""The order of operations: programs of steps, saves, copies, moves and rearranged leaves, run as a state machine."""

from xopt.conformance.stateful.check import check_machine
from xopt.conformance.stateful.machine import MACHINE

__all__ = ["MACHINE", "check_machine"]
