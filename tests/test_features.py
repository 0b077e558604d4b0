"""The table of features: whatever it says that xopt has is shown by a test, which is there."""

import importlib
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


PAGE = (ROOT / "docs" / "features.md").read_text()


def table() -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]  # and not the rule below the head
    return [[cell.strip() for cell in row] for row in rows]


def test_what_xopt_has_names_its_test():
    (head, *rows) = table()
    assert head[5:] == ["xopt", "shown by"]
    assert len(rows) >= 30
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row[6])
        assert row[5] in ("yes", "no"), row
        assert (row[5] == "yes") == bool(named), row
        for file, test in named:
            assert f"def {test}(" in (ROOT / "tests" / file).read_text(), (file, test)


PEERS = {
    "torch": ("torch.optim", ["torch.optim", "torch.optim.swa_utils", "torch.nn.utils"]),
    "optax": ("optax", ["optax", "optax.contrib"]),
    "pytorch_optimizer": ("pytorch_optimizer", ["pytorch_optimizer"]),
    "keras": ("Keras", ["keras.optimizers"]),
}
"""The column of each distribution, and where its names are."""

SAID = {
    "AdEMAMix": ("AdEMAMix", "ademamix"),
    "Lion": ("Lion", "lion"),
    "QHM, QHAdam, AggMo": ("QHM", "qhm", "QHAdam", "qhadam", "AggMo", "aggmo"),
}
"""Rows that names in a package decide: it has one of these where the page says more than "no", and else none."""
KNOWN = {"stateless_apply", "use_ema", "jit", "True", "differentiable", "GradScaler", "contrib", "swa_utils", "mu_dtype", "fused"}
"""What the page names that is no public name in those modules, but an argument, a module, or of another module."""


@pytest.mark.parametrize("name", PEERS)
def test_what_is_said_of_a_peer_is_so_in_the_version_that_is_named(name):
    column, modules = PEERS[name]
    try:
        found = version(name).partition("+")[0]
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    pinned = re.search(rf"^{name.replace('_', '.')}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    (said,) = re.findall(rf"{re.escape(column)} (\d[\d.]*\d)", PAGE.partition("\n| ")[0])
    assert pinned is not None
    assert pinned[1].startswith(said), "the page is of another version than the one that is tested"
    if found != pinned[1]:
        pytest.skip(f"{name} is {found} here, and not the {pinned[1]} of the page")
    (head, *rows) = table()
    at, looked = head.index(column), [importlib.import_module(module) for module in modules]
    by_name = {row[0]: row[at] for row in rows}
    for row, names in SAID.items():
        here = any(hasattr(module, one) for module in looked for one in names)
        assert here == (by_name[row] != "no"), (row, by_name[row])
    for one in set(re.findall(r"`(\w+)`", " ".join(by_name.values()))) - KNOWN:
        assert any(hasattr(module, one) for module in looked), (one, "is named, and is not there")
