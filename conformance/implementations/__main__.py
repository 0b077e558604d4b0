"""``python -m xopt.conformance.implementations [PACKAGE ...]``."""

import argparse
import tempfile
from pathlib import Path

from xopt.conformance.implementations.survey import RESULTS, survey


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m xopt.conformance.implementations", description=__doc__)
    parser.add_argument("packages", nargs="*", help="those to check again; all where none is named")
    parser.add_argument("--environments", type=Path, help="a folder that keeps the environments (default: one that is thrown away)")
    given = parser.parse_args()
    if given.environments:
        survey(given.environments.resolve(), given.packages)
    else:
        with tempfile.TemporaryDirectory(prefix="xopt-implementations-") as folder:
            survey(Path(folder), given.packages)
    print(f"written: {RESULTS}")  # noqa: T201 - to a person


if __name__ == "__main__":
    main()
