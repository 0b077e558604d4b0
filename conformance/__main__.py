"""The entry point of the command line, which is in ``cli/``."""

import importlib.util
import sys

from xopt.conformance.namesake import namesake

NEEDED = ("hypothesis", "jinja2", "jsonschema", "mpmath", "rich", "sklearn", "typer")
"""Packages of the extra, looked for before any is imported, so that a missing one is one clear message."""


def main() -> None:
    """Entry point of the console script. Says what to install where the extra is missing."""
    if said := namesake():
        sys.stderr.write(f"xopt: {said}\n")
        sys.exit(2)
    for name in NEEDED:
        if importlib.util.find_spec(name) is None:
            sys.stderr.write(f"xopt: {name} is not installed; the command line needs: pip install 'array-xopt[conformance]'\n")
            sys.exit(2)
    from xopt.conformance.cli.app import app

    app()()


if __name__ == "__main__":
    main()
