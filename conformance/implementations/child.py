"""Checks one optimizer, in the environment that has its package; asked on standard input, answers on standard output."""

import json
import sys
from typing import Any

from xopt.conformance import check
from xopt.conformance.implementations.survey import OF_THE_WRAPPER, WRAPPERS
from xopt.conformance.thirdparty.behaviour import FAILED, HELD, NOT_TRIED
from xopt.conformance.thirdparty.check import DEFAULTS, FORMULA_DTYPES


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """What the survey keeps of a check."""
    target = f"py:{WRAPPERS}:{asked['make']}" if "make" in asked else f"{asked['kind']}:{asked['name']}"
    dtypes = asked.get("dtypes", FORMULA_DTYPES)
    checked = check(target, asked["rule"], given=asked.get("given", {}), dtypes=dtypes, limit=30, seconds=100)
    left = (*(OF_THE_WRAPPER if asked.get("wrapped") else ()), *((DEFAULTS,) if asked.get("switched") else ()))
    own = [one for one in checked.findings if not one.check.startswith("the formula") and one.check not in left]
    found: dict[str, Any] = {
        "verdict": checked.verdict,
        "formulas": [
            {
                "dtype": one.dtype,
                "fits": one.fits,
                "conventions": [{"name": row.name, "status": row.status} for row in one.conventions],
                "or": [" and ".join(tie) or "without" for tie in one.ties],
                "ratio": _short(one.ratio),
                "ulps": _short(one.ulps),
                "numbers": one.numbers,
                "next": one.next,
                "next_ratio": _short(one.next_ratio),
                "factor": one.factor,
                "partly": one.partly,
            }
            for one in checked.formulas
        ],
        "behaviour": {
            "held": sorted(one.check for one in own if one.outcome == HELD and one.check != DEFAULTS),
            "failed": {one.check: one.words for one in own if one.outcome == FAILED},
            "not tried": sorted([one.check for one in own if one.outcome == NOT_TRIED] + list(left)),
        },
        "defaults": next((one.words for one in own if one.check == DEFAULTS and one.outcome == HELD), ""),
        "seconds": round(checked.seconds, 1),
    }
    if not checked.formulas:
        found["words"] = checked.words
    return found


def _short(x: float | None) -> float | None:
    return None if x is None else float(f"{x:.3g}")


if __name__ == "__main__":
    out, sys.stdout = sys.stdout, sys.stderr
    out.write(json.dumps(answer(json.load(sys.stdin))) + "\n")
