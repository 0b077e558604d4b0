"""Writes the interactive page: python docs/builders/playground playground.html."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from builders import playground

Path(sys.argv[1]).write_text(playground.page(), encoding="utf-8")
