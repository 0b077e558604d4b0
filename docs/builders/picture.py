"""The README's picture of a report: python docs/builders/picture.py report.html docs/report.png. It needs Chromium."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def picture(page: Path, out: Path, width: int, height: int) -> None:
    """The upper part of a page, as a browser of that width shows it in light colours."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(
            f"picture: none of {', '.join(BROWSERS)} is installed; on Debian: apt-get install --no-install-recommends chromium"
        )
    with tempfile.TemporaryDirectory() as profile:
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
        shown = (f"--user-data-dir={profile}", "--hide-scrollbars", f"--window-size={width},{height}", "--virtual-time-budget=4000")
        command = [browser, *options, *shown, f"--screenshot={out.resolve()}", page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode or not out.exists():
        sys.exit(f"picture: {browser} made none\n{done.stderr}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path, help="of xopt conform --html")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1400)
    parser.add_argument("--height", type=int, default=1100)
    given = parser.parse_args()
    picture(given.page, given.out, given.width, given.height)
