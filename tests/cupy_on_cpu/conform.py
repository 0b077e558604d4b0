"""``xopt conform --backend cupy`` with its quick profile, but fused steps as well: ``python conform.py [options]``.

The profile is none of the command line's own, as it is for this one device: where a kernel is compiled for each form of the
state, and steps through its numbers one by one, ``ci`` takes a minute for each rule.

Subnormal numbers are all that may differ. The ledger cannot say so: what it accepts of a cell may be anything within the bound.
"""

import json
import sys
import tempfile
from pathlib import Path

from xopt.conformance.__main__ import main
from xopt.conformance.results import WITHIN
from xopt.conformance.suite import PROFILES


def run(options: list[str]) -> int:
    PROFILES["emulated"] = PROFILES["quick"]._replace(modes=("eager", "fused"), training=5)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        sys.argv[1:] = ["conform", "--backend", "cupy", "--profile", "emulated", "--json", str(file), *options]
        try:
            main()
        except SystemExit as end:
            status = int(end.code or 0)
        report = json.loads(file.read_text()) if file.exists() else {"cells": [], "replays": []}
    loose = [one for one in (*report["cells"], *report["replays"]) if one["verdict"] == WITHIN]
    for one in loose:
        print(f"{one['rule']} {one['dtype']} {one['mode']} is not NumPy's, and no subnormal number is the reason")
    return 1 if loose else status


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
