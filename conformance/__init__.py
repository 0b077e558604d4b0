"""The proof: golden references, derived bounds, verdicts and the command line."""

from xopt.conformance.suite import PROFILES, Events, Report, conform

__all__ = ["PROFILES", "Events", "Report", "conform"]
