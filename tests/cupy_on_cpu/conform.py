"""``xopt conform --backend cupy`` with its quick profile, but fused steps as well: ``python conform.py [options]``.

The profile is none of the command line's own, as it is for this one device: where a kernel is compiled for each form of the
state, and steps through its numbers one by one, ``ci`` takes a minute for each rule.
"""

import sys

from xopt.conformance.__main__ import main
from xopt.conformance.suite import PROFILES

if __name__ == "__main__":
    PROFILES["emulated"] = PROFILES["quick"]._replace(modes=("eager", "fused"), training=5)
    sys.argv[1:] = ["conform", "--backend", "cupy", "--profile", "emulated", *sys.argv[1:]]
    main()
