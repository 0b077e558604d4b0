"""The proof: golden references, derived bounds, verdicts and the command line."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xopt.conformance.profiles import PROFILES
    from xopt.conformance.report.report import Report
    from xopt.conformance.suite import Events, conform
    from xopt.conformance.testing import parametrize
    from xopt.conformance.thirdparty.agree import Agreed, agree
    from xopt.conformance.thirdparty.check import check
    from xopt.conformance.thirdparty.verdict import Checked

__all__ = ["PROFILES", "Agreed", "Checked", "Events", "Report", "agree", "check", "conform", "parametrize"]

_MODULES = {
    "PROFILES": "profiles",
    "Report": "report.report",
    "Events": "suite",
    "conform": "suite",
    "agree": "thirdparty.agree",
    "Agreed": "thirdparty.agree",
    "check": "thirdparty.check",
    "parametrize": "testing",
    "Checked": "thirdparty.verdict",
}


def __getattr__(name: str) -> Any:
    """Imported when asked for, so that the command line can say which package is missing."""
    if name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
