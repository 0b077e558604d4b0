"""A tree leaf by leaf: which arrays it has, of which library and dtype, and what a helper makes of each. None stays None."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

from xopt.arrays import array, beside, is_dense, same_shape, type_of
from xopt.checks import Interval, Later, check_hyper
from xopt.operations import Array, is_array, is_subclass, namespace
from xopt.trees import Tree, flatten, flatten_like, is_value, path_of, spread
from xopt.typed import arithmetic, precision_of, refuse_no_floats

_KINDS: dict[Any, tuple[Any, Any]] = {}


class Leaf(NamedTuple):
    """An array of a tree."""

    x: Array
    i: int  # its place among the leaves
    tree: "Flat"
    xp: Any
    compute: Any  # the dtype of the arithmetic: that of the array, float32 at least

    @property
    def where(self) -> str:
        """What an error of it begins with."""
        return self.tree.where(self.i)

    def map(self, function: Callable[[Array], Array]) -> Array:
        """A function of the numbers in the dtype of the arithmetic, rounded once to the leaf's own."""
        with self.beside():
            return self.stored(function(self.lifted(self.compute)))

    def lifted(self, dtype: Any) -> Array:
        return self.x if self.x.dtype == dtype else self.xp.astype(self.x, dtype)

    def wide(self, dtype: Any) -> Array:
        """As ``lifted``, where the leaf is."""
        with self.beside():
            return self.lifted(dtype)

    def stored(self, y: Array) -> Array:
        y = y if y.dtype == self.x.dtype else self.xp.astype(y, self.x.dtype)
        return array(y)

    def copy(self, dtype: Any) -> Array:
        """In memory of its own."""
        with self.beside():
            return array(self.xp.astype(self.x, dtype, copy=True))

    def beside(self) -> AbstractContextManager[Any]:
        """A block in which new arrays are where the leaf is."""
        return beside(self.x)


class Flat:
    """A tree taken apart. Raises TypeError for a leaf that is no plain, dense array of real floating-point numbers."""

    def __init__(self, function: str, name: str, tree: Tree) -> None:
        self.function = function
        self.name = name
        self.items, self.spec = flatten(tree, none_is_leaf=True)
        self.leaves = [self._leaf(i, x) for i, x in enumerate(self.items) if x is not None]

    def where(self, i: int) -> str:
        return f"{self.function}: {self._placed(self.name, i)}"

    def _leaf(self, i: int, x: Any) -> Leaf:
        kind = type(x), getattr(x, "dtype", None)
        if kind not in _KINDS:
            _KINDS[kind] = self._kind(i, x)
        if not is_dense(x):
            msg = f"{self.where(i)} is a sparse or nested tensor, or one of MKL-DNN's; make it dense, or pass its parts as arrays"
            raise TypeError(msg)
        return Leaf(x, i, self, *_KINDS[kind])

    def _kind(self, i: int, x: Any) -> tuple[Any, Any]:
        """The namespace of an array, and the dtype of its arithmetic."""
        refuse_no_floats(x, where := self.where(i))
        if is_subclass(x):
            msg = f"{where} is a {type(x).__name__}, of which only the numbers would be used; take numpy.asarray of it"
            raise TypeError(msg)
        xp = namespace(x)
        return xp, arithmetic(xp, x)

    def each(self, function: Callable[[Leaf], Array]) -> Tree:
        """The tree with a new array for each that is there."""
        new = list(self.items)
        for leaf in self.leaves:
            new[leaf.i] = function(leaf)
        return self.spec.unflatten(new)

    def numbers(self, name: str, value: Any, interval: Interval) -> list[Any]:
        """A number for each item: one for all, or those of a tree that is a prefix of this one; ready to meet its leaf."""
        one = is_value(value)
        given = [value] * len(self.items) if one else spread(self.function, name, value, self.spec, is_value)
        ready: dict[Any, Any] = {}
        for leaf in self.leaves:
            key = id(given[leaf.i]), leaf.xp, str(leaf.compute)
            if key not in ready:
                label = name if one else Later(partial(self._placed, name, leaf.i))
                ready[key] = self.number(label, given[leaf.i], interval, leaf)
            given[leaf.i] = ready[key]
        return given

    def _placed(self, name: str, i: int) -> str:
        return name + path_of(self.spec, i)

    def number(self, name: str | Later, value: Any, interval: Interval, leaf: Leaf) -> Any:
        """A number, checked: a float, or a 0-d array of the leaf's library, which may be traced."""
        check_hyper(self.function, name, value, interval, precision_of(leaf.xp, leaf.compute))
        if is_array(value) and namespace(value) is leaf.xp and not hasattr(type(value), "__array_interface__"):
            return leaf.xp.astype(value, leaf.compute)
        return float(value)

    def pairs(self, name: str, other: Tree) -> "Iterator[tuple[Leaf | None, Leaf | None]]":
        """The items, and those of another tree of the same form, which agree in library and shape."""
        theirs = Flat(self.function, name, self.spec.unflatten(flatten_like(self.function, self.spec, name, other)))
        mine, others = ({leaf.i: leaf for leaf in flat.leaves} for flat in (self, theirs))
        for i in range(len(self.items)):
            one, two = mine.get(i), others.get(i)
            if one is not None and two is not None:
                _refuse_unlike(one, two, Later(partial(self._placed, self.name, i)))
            yield one, two


def _refuse_unlike(one: Leaf, two: Leaf, other: Later) -> None:
    if one.xp is not two.xp:
        msg = f"{two.where} is a {type_of(two.x)} but {other} is a {type_of(one.x)}; convert one of them, libraries are not mixed"
        raise TypeError(msg)
    if not same_shape(one.x, two.x):
        msg = f"{two.where} has shape {tuple(two.x.shape)} but {other} has {tuple(one.x.shape)}; nothing is broadcast"
        raise ValueError(msg)
