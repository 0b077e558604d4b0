"""Digests of the numbers that come of fixed inputs: a change of a bit of NumPy's own numbers becomes a decision.

All else is compared with NumPy, which a change of the order of operations moves with it, within every bound. The digests of every
rule are kept in ``digests.json``; whoever changes bits on purpose writes them anew, as ``RENEW`` says, and notes it in the
changelog.
"""

from xopt.conformance.digests.check import LAW, check_digest, write

__all__ = ["LAW", "check_digest", "write"]
