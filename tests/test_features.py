"""The table of features: whatever it says that xopt has is shown by a test, which is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_what_xopt_has_names_its_test():
    rows = [
        line.strip("|").split("|") for line in (ROOT / "docs" / "features.md").read_text().splitlines() if line.startswith("| ")
    ]  # and not the rule below the head
    (head, *rows) = [[cell.strip() for cell in row] for row in rows]
    assert head[5:] == ["xopt", "shown by"]
    assert len(rows) >= 30
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row[6])
        assert row[5] in ("yes", "no"), row
        assert (row[5] == "yes") == bool(named), row
        for file, test in named:
            assert f"def {test}(" in (ROOT / "tests" / file).read_text(), (file, test)
