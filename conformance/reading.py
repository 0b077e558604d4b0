"""JSON that somebody else wrote."""

import json
from pathlib import Path
from typing import Any


def from_json(text: str | bytes) -> Any:
    """``json.loads``, of which all that is no JSON to be read raises ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        msg = "it is nested too deeply"
        raise ValueError(msg) from None


def read(path: Path) -> Any:
    """A file. Raises ValueError for what is none, cannot be read or holds no JSON."""
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(error.strerror) from None
