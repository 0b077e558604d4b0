"""The trees of fused steps: mostly those of the step before, which to recognise takes a twentieth of finding out what they are."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import optree

from xopt.operations import is_known_array
from xopt.trees import Tree, flatten, is_leaf

_DICTS = (dict, OrderedDict)


class Shape(NamedTuple):
    """The containers of a tree, with the order of their keys."""

    kind: type
    keys: list[Any] | int  # the keys of a dict; of another container how many items it has
    below: list[tuple[Any, "Shape"]]  # the items that are containers themselves, by key

    def fits(self, tree: Any) -> bool:
        """Whether ``tree`` has these containers, where it has leaves and they have none."""
        kind: type = type(tree)
        if kind is not self.kind:
            return False
        if self.kind in _DICTS:
            if list(tree) != self.keys:
                return False
        elif self.kind is not type(None) and len(tree) != self.keys:
            return False
        return all(shape.fits(tree[key]) for key, shape in self.below)


class FlatTree(NamedTuple):
    """A tree as its leaves."""

    leaves: list[Any]
    spec: optree.PyTreeSpec
    shape: Shape | None  # None for a tree with a container of another kind, which is flattened anew each time
    take: Callable[[Tree], Sequence[Any]] | None  # takes the leaves of a tree that is one container, in a quarter of the time

    def column(self, tree: Tree) -> list[Any] | None:
        """What stands in the places of the leaves in another tree; None where that is to be found out."""
        return list(self.take(tree)) if self.take and self.fits(tree) else None

    def fits(self, tree: Tree) -> bool:
        """Whether a tree has the containers of params."""
        return self.shape is not None and self.shape.fits(tree)

    def unflatten(self, leaves: Sequence[Any]) -> Tree:
        """A tree with the containers of params, of other leaves."""
        shape = self.shape if self.take else None
        kind: Any = shape.kind if shape else None
        if shape and kind in _DICTS:
            made = kind.fromkeys(shape.keys)  # in this order, which is not that of the leaves
            made.update(zip(self.spec.entries(), leaves, strict=True))
            return made
        if kind in (list, tuple):
            return kind(leaves)
        return self.spec.unflatten(leaves)  # of a NamedTuple too, which may have a __new__ of its own


class Trees:
    """Those that one fused step has met: the last one."""

    def __init__(self) -> None:
        self._last: FlatTree | None = None

    def flatten(self, tree: Tree) -> FlatTree:
        last = self._last
        if last is not None and last.fits(tree):
            leaves = list(last.take(tree)) if last.take else last.spec.flatten_up_to(tree)
            if len(set(map(type, leaves))) == 1 and is_known_array(leaves[0]):  # no container in place of a leaf
                return last._replace(leaves=leaves)
        leaves, spec = flatten(tree)
        shape = _shape(tree) if leaves else None
        self._last = FlatTree([], spec, shape, _taker(shape, spec))
        return self._last._replace(leaves=leaves)


def _taker(shape: Shape | None, spec: optree.PyTreeSpec) -> Callable[[Tree], Sequence[Any]] | None:
    if shape is None or shape.below:
        return None
    if shape.kind not in _DICTS:
        return tuple
    if spec.num_leaves > 1:
        return itemgetter(*spec.entries())
    (key,) = spec.entries()
    return lambda tree: (tree[key],)  # itemgetter gives one item as it is


DEEP = 50
"""Containers, one in the other, from which on a tree is looked at each time."""


def _shape(tree: Tree, depth: int = 0) -> Shape | None:
    kind = type(tree)
    if depth > DEEP:
        return None
    if kind in _DICTS:
        items = list(tree.items())
    elif kind in (list, tuple) or (issubclass(kind, tuple) and hasattr(kind, "_fields")):
        items = list(enumerate(tree))
    else:
        return Shape(kind, 0, []) if tree is None else None
    below = []
    for key, item in items:
        if not is_leaf(item):
            shape = _shape(item, depth + 1)
            if shape is None:
                return None
            below.append((key, shape))
    return Shape(kind, list(tree) if kind in _DICTS else len(items), below)
