"""The API reference: for each public name of a module, the directive from which mkdocstrings makes its entry."""

import inspect
from importlib import import_module
from pathlib import Path
from types import ModuleType

from builders.tables import table

from xopt import RULES

_ROOT = Path(__file__).parents[2]
_MEMBERS = {"xopt.Rule": ["bind"]}
"""Of a class whose other methods are there for backends."""


def links_tree(folder: Path) -> Path:
    """The package as it is laid out where it is installed, of links into the checkout, for a reader that imports nothing."""
    package = folder / "xopt"
    if package.exists():
        return folder
    package.mkdir()
    own = {entry.name: entry for entry in (_ROOT / "xopt").iterdir()}
    for name, entry in (own | {name: _ROOT / name for name in ("backends", "conformance")}).items():
        (package / name).symlink_to(entry)
    return folder


def module_page(name: str) -> str:
    """All of a public module: what it says of itself, then each of its names."""
    module = import_module(name)
    made, others = [], []
    for public in module.__all__:
        value = getattr(module, public)
        if public in RULES:
            continue
        (made if hasattr(value, "rule") else others).append((public, value))
    parts = [inspect.cleandoc(module.__doc__ or "").partition("\n\n")[0]]
    parts += [_elsewhere(value) if inspect.ismodule(value) else _directive(f"{name}.{public}") for public, value in others]
    if made:
        parts += ["## The functions of the rules", _of_rules(), *(_directive(f"{name}.{public}") for public, _ in made)]
    return "\n\n".join(parts)


def _elsewhere(module: ModuleType) -> str:
    """A module that has a page of its own."""
    first = inspect.cleandoc(module.__doc__ or "").partition("\n")[0]
    return f"## [`{module.__name__}`]({module.__name__.rpartition('.')[2]}.md)\n\n{first}"


def _directive(name: str) -> str:
    return f"::: {name}\n    options:\n      members: {_MEMBERS[name]}" if name in _MEMBERS else f"::: {name}"


def _of_rules() -> str:
    rows: list[tuple[str, ...]] = [
        (
            f"[`{rule.name}`](../rules/{rule.name}.md)",
            f"[`{rule.name}_init`][xopt.{rule.name}_init]",
            f"[`{rule.name}_step`][xopt.{rule.name}_step]",
            ", ".join(f"`{hyper}`" for hyper in rule.defaults),
        )
        for rule in RULES.values()
    ]
    return table("rule, its page | the state | a step | hyperparameters", rows)
