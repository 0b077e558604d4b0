"""Golden vectors: what each rule computes, as JSON that any language reads, with the exact numbers and their bounds.

A vector is one step of one number: bits in, bits out, what the paper's equations give to forty digits, and how far from that a
correct library may be. A chain is a thousand steps, of which one digest speaks. The golden verifies that they are true, and xopt's
rules, and the same rules exported to C and JavaScript, verify that they are what comes out, bit for bit.
"""

from pathlib import Path

from xopt.conformance.vectors.lint import lint
from xopt.conformance.vectors.programs import MissingError, verify_c, verify_javascript
from xopt.conformance.vectors.verify import Verified, verify_golden, verify_rules
from xopt.conformance.vectors.write import VERSION, write

DATA = Path(__file__).with_name("data")
"""The vectors that come with xopt."""

VERIFIERS = {"golden": verify_golden, "rules": verify_rules, "c": verify_c, "javascript": verify_javascript}
"""Who verifies, by the name that `xopt vectors verify --by` takes."""

__all__ = [
    "DATA",
    "VERIFIERS",
    "VERSION",
    "MissingError",
    "Verified",
    "lint",
    "verify_c",
    "verify_golden",
    "verify_javascript",
    "verify_rules",
    "write",
]
