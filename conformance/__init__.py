"""The proof: golden references, derived bounds, verdicts and the command line."""

from xopt.conformance.profiles import PROFILES
from xopt.conformance.report.report import Report
from xopt.conformance.suite import Events, conform

__all__ = ["PROFILES", "Events", "Report", "conform"]
