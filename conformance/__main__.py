"""The entry point of the command line, which is in ``cli/``."""

import importlib.util
import sys
from pathlib import Path

from xopt.conformance.namesake import namesake

NEEDED = {
    "hypothesis": "hypothesis",
    "jinja2": "jinja2",
    "jsonschema": "jsonschema",
    "mpmath": "mpmath",
    "rich": "rich",
    "sklearn": "scikit-learn",
    "typer": "typer",
}
"""Packages of the extra ``conformance``, by what they are imported as: looked for before any is imported."""

CLOSED_PIPE = 141
"""Exit status where the output's reader closes it, as shells have it: 1 would say that something is wrong."""

HELP = """\
Usage: xopt COMMAND [OPTIONS]

First-order update rules written once in the Python array API, and the proof that they are right on every backend.

  conform   check that every backend computes what the golden reference says
  check     say what an optimizer of any library computes
  agree     say where two optimizers part, and whether rounding explains it
  faults    plant faults, and show which check finds which
  evidence  examine the records of runs on other machines
  bench     time steps beside the limits of the machine and other optimizers
  memory    show how long rules remember gradients
  export    write a rule as a function in another language
  vectors   write and verify golden vectors that any language reads
  reproduce run experiments of papers again, published beside reproduced

"""
"""For an environment in which the commands cannot run."""


def main() -> None:
    """Entry point of the console script. Ctrl-C ends it quietly from here on: before, only ``import xopt`` itself has run."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.stderr.write("\nxopt: interrupted\n")
        sys.exit(130)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # who read the output has gone: that is nothing wrong
            sys.exit(CLOSED_PIPE)
        raise


def _run() -> None:
    """Says what to install where the extra is missing."""
    if said := namesake():
        sys.stderr.write(f"xopt: {said}\n")
        sys.exit(2)
    try:
        Path.cwd()
    except FileNotFoundError:
        sys.stderr.write("xopt: the current folder is gone; change to another\n")
        sys.exit(2)
    missing = [package for name, package in NEEDED.items() if importlib.util.find_spec(name) is None]
    if not missing:
        from xopt.conformance.cli.app import app

        app()()
        return
    needed = f"The commands need packages that are not installed: pip install {' '.join(missing)}\n"
    if len(sys.argv) > 1 and sys.argv[1] == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"xopt {version('array-xopt')}\n")
    elif len(sys.argv) == 1 or sys.argv[1] == "--help":
        sys.stdout.write(HELP + needed)
    else:
        sys.stderr.write(f"xopt: {needed}")
        sys.exit(2)


if __name__ == "__main__":
    main()
