"""What a record is: an in-toto Statement, and how its cells are called."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xopt.conformance.evidence.sources import sha256

RECORDS = Path(__file__).with_name("records")
COMMAND = "xopt conform --evidence"

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"


def cell_key(rule: str, dtype: str, mode: str) -> str:
    return f"{rule}/{dtype}/{mode}"


def missing_cells(cells: set[str], rules: Sequence[str], dtypes: Sequence[str], modes: Sequence[str]) -> list[str]:
    wanted = [cell_key(rule, dtype, mode) for rule in rules for dtype in dtypes for mode in modes]
    return [key for key in wanted if key not in cells]


def some_of(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def subjects_of(backend: str, rules: Sequence[str]) -> list[str]:
    """What the cells of a backend stand on."""
    return [*(f"rule:{rule}" for rule in rules), *(f"golden:{rule}" for rule in rules), f"backend:{backend}", "cells", "digest"]


def body_hash(record: dict[str, Any]) -> str:
    """SHA-256 of a record but for this hash itself, as JSON with sorted keys and no spaces."""
    own = {name: value for name, value in record["predicate"]["xopt"].items() if name != "body"}
    rest = record | {"predicate": record["predicate"] | {"xopt": own}}
    return sha256(json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False))
