"""``xopt conform --backend cupy`` with its quick profile, but fused steps as well: ``python conform.py [options]``.

The profile is not one of the command line's own, as it is for this one device: where a kernel is compiled in a fraction of a second
for each form of the state, and each of its numbers is stepped through in turn, ``ci`` would take an hour.
"""

import sys

from xopt.conformance.__main__ import main
from xopt.conformance.suite import PROFILES

if __name__ == "__main__":
    PROFILES["emulated"] = PROFILES["quick"]._replace(modes=("eager", "fused"))
    sys.argv[1:1] = ["conform", "--backend", "cupy", "--profile", "emulated"]
    main()
