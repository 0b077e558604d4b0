"""The check of a rule's bits on NumPy: their digest against the one that is kept."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xopt import backends
from xopt.conformance.compare.again import traceback_of
from xopt.conformance.compare.candidate import Candidate
from xopt.conformance.digests.runs import SHAPES, SIZE, STEPS, Recorded, cancelling, far_setting, hashed, inputs, runs
from xopt.conformance.results import LawResult, brief
from xopt.rule import Rule
from xopt.rules import RULES

DIGESTS = Path(__file__).with_name("digests.json")
NUMPY_DTYPES = ("float16", "float32", "float64")
"""Those of NumPy."""
LAW = "the bits of the reference"
RENEW = """python -c 'from xopt.conformance.digests import write; write()'"""


LATE = 2**24 + 1
"""Steps before a run whose warm-ups and bias corrections go on; float32 does not hold the number."""


def on_numpy(rule: Rule[Any, Any], dtype: str) -> str:
    """The digest of a rule on NumPy, here and now: of the runs that evidence is about, and three more."""
    candidate = Candidate(rule, backends.get("numpy"), dtype, "eager", SHAPES)
    short, long = far_setting(rule, 0.125), far_setting(rule, 1.0 - 2.0**-20)
    more = [({}, cancelling(dtype), 0), (short, inputs(dtype), 0), (long, inputs(dtype), LATE)]
    return hashed(
        [
            *runs(candidate, dtype),
            *(Recorded(hyper, candidate.run(*given, hyper, steps_before)) for hyper, given, steps_before in more),
        ]
    )


def kept() -> dict[str, dict[str, str]]:
    """The digests of the repository, by rule and dtype."""
    found: dict[str, dict[str, str]] = json.loads(DIGESTS.read_text(encoding="utf-8"))
    return found


def check_digest(rule_name: str, dtype: str, rules: Mapping[str, Rule[Any, Any]] = RULES) -> list[LawResult]:
    """Compares the digest of a rule on NumPy with the one that is kept. ``rules`` may have a fault planted in them."""
    result = LawResult(LAW, rule_name, "numpy", "cpu", dtype, "eager", examples=1, numbers=5 * STEPS * SIZE)
    try:
        with np.errstate(all="ignore"):
            found = on_numpy(rules[rule_name], dtype)
    except Exception as error:  # noqa: BLE001 - whatever a rule raises
        result.found_after, result.broken = 1, {"raised": brief(error), "traceback": traceback_of(error)}
        return [result]
    want = kept().get(rule_name, {}).get(dtype)
    if found != want:
        result.differ, result.found_after = result.numbers, 1
        result.broken = {"digest": found, "kept": want, "way out": f"if the change is meant: {RENEW}"}
    return [result]


def write() -> None:
    """Keeps the digests of the rules as they are."""
    found = {name: {dtype: on_numpy(rule, dtype) for dtype in NUMPY_DTYPES} for name, rule in RULES.items()}
    DIGESTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
