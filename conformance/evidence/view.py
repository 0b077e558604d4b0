"""Records in the terminal."""

import datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xopt.conformance.evidence.examination import ERROR, examine_all


def show(console: Console, directory: Path, today: datetime.date) -> bool:
    """A table of the newest records and a line for each finding. Returns whether there is no error."""
    found = examine_all(directory, today)
    table = Table(title=f"evidence in {directory}", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("backend", "device", "hardware", "date"):
        table.add_column(heading)
    for heading in ("cells", "stale rules"):
        table.add_column(heading, justify="right")
    for evidence in (one.evidence for one in found if one.evidence is not None):
        count = Text(str(len(evidence.cells)), style="green" if not evidence.stale else "yellow")
        table.add_row(*evidence[1:5], count, str(len(evidence.stale)))
    console.print(table if table.row_count else Text(f"no evidence that counts in {directory}", style="dim"))
    findings = [finding for one in found for finding in one.findings]
    for record, level, message in findings:
        console.print(Text(f"{level}: {record}: {message}", style="bold red" if level == ERROR else "yellow"), soft_wrap=True)
    return all(finding.level != ERROR for finding in findings)
