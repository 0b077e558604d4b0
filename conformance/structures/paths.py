"""Trees by plain recursion: what stands at which path. Nothing of how the rules pair trees is used here."""

from collections.abc import Iterator
from typing import Any

from xopt.conformance.structures.parts import Layer

Path = tuple[Any, ...]
"""The keys that lead to a leaf."""


def children(node: Any) -> list[tuple[Any, Any]] | None:
    """Keys and what stands at them; None for a leaf."""
    if node is None:
        return []
    if isinstance(node, dict):
        return list(node.items())
    if isinstance(node, Layer) or hasattr(node, "_fields"):
        return [(name, getattr(node, name)) for name in getattr(node, "_fields", ("weight", "bias"))]
    return list(enumerate(node)) if isinstance(node, list | tuple) else None


def leaves(tree: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf with its path."""
    below = children(tree)
    if below is None:
        yield path, tree
    for key, child in below or ():
        yield from leaves(child, (*path, key))


def at(tree: Any, path: Path) -> Any:
    """What stands at a path, whatever it is."""
    for key in path:
        tree = dict(children(tree) or ())[key]
    return tree


def prefix_at(tree: Any, path: Path) -> Any:
    """What a tree that may end early says of a leaf. None is an end."""
    for key in path:
        below = children(tree)
        if tree is None or below is None:
            return tree
        tree = dict(below)[key]
    return tree


def code(path: Path) -> str:
    """As Python code that follows the tree's name; of attributes the name is enough."""
    return "".join(f"[{key!r}]" for key in path)


def same_form(given: Any, got: Any, path: Path = ()) -> str | None:
    """The first difference in container, keys or their order; None where there is none. What is at a leaf does not matter."""
    below = children(given)
    if below is None:
        return None
    if type(got) is not type(given):
        return f"{code(path) or 'the tree'} is a {type(got).__name__} and was a {type(given).__name__}"
    if getattr(got, "default_factory", None) is not getattr(given, "default_factory", None):
        return f"{code(path) or 'the tree'} has another default_factory"
    theirs = children(got) or []
    if [key for key, _ in theirs] != [key for key, _ in below]:
        return f"{code(path) or 'the tree'} has the keys {[key for key, _ in theirs]} and had {[key for key, _ in below]}"
    different = (same_form(one, other, (*path, key)) for (key, one), (_, other) in zip(below, theirs, strict=True))
    return next(filter(None, different), None)
