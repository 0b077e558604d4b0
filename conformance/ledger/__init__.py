"""The ledger of accepted deviations: each known difference from NumPy's bits, or from a bitwise law, with its reason."""

from xopt.conformance.ledger.judgement import Judgement, judge
from xopt.conformance.ledger.rows import Row, read

__all__ = ["Judgement", "Row", "judge", "read"]
