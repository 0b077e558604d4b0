"""Trees of arrays: their leaves in one order, paired by key, and what does not fit in words."""

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

import optree

from xopt.checks import shown
from xopt.operations import are_known_arrays

Tree = Any
"""An array, or a container of trees: a dict, list, tuple, NamedTuple, or what is registered with ``optree`` or with JAX."""

NAMESPACE = "xopt"
"""Where ``optree`` keeps the containers that JAX knows."""


def flatten(tree: Tree, *, none_is_leaf: bool = False) -> tuple[list[Any], optree.PyTreeSpec]:
    """The leaves of a tree, and its containers. Raises ValueError for a tree that holds itself."""
    try:
        leaves, spec = optree.tree_flatten(tree, none_is_leaf=none_is_leaf, namespace=NAMESPACE)
    except RecursionError:
        deepest = optree.MAX_RECURSION_DEPTH
        msg = f"a tree must not be nested deeper than {deepest} containers, nor hold itself; one of those given does"
        raise ValueError(msg) from None
    return flatten(tree, none_is_leaf=none_is_leaf) if _adopted(leaves) else (leaves, spec)


def level_of(tree: Tree) -> optree.PyTreeSpec:
    """The container that a tree begins with, its items as leaves, None among them."""
    level = optree.tree_structure(tree, none_is_leaf=True, namespace=NAMESPACE).one_level()
    assert level is not None, "a leaf is no container"
    return level


def mapped(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """The tree of what a function makes of each leaf."""
    leaves, spec = flatten(tree)
    return spec.unflatten(map(function, leaves))


def _adopted(leaves: Iterable[Any]) -> bool:
    """Whether some are containers in JAX's registry that were not in that of ``optree``, where they are now.

    Without JAX there are none: what is registered with it has imported it.
    """
    jax = sys.modules.get("jax")
    if jax is None or are_known_arrays(leaves):
        return False
    registry = jax.tree_util.default_registry
    new = {type(x): x for x in leaves if x is not None and registry.flatten_one_level(x) is not None}
    with _registering:
        for kind in new:
            if optree.tree_is_leaf(new[kind], namespace=NAMESPACE):  # another thread may have been here
                _adopt(kind, jax.tree_util)
    return bool(new)


_registering = Lock()


def _adopt(kind: type, tree_util: Any) -> None:
    """Registers a container with ``optree``, as JAX takes it apart and puts it together."""

    def parts(node: Any) -> tuple[Any, Any, Any]:
        pairs, _ = tree_util.default_registry.flatten_one_level_with_keys(node)
        keys, children = zip(*pairs, strict=True) if pairs else ((), ())
        return children, _Container(tree_util.tree_structure(node, is_leaf=lambda x: x is not node)), keys

    def whole(container: Any, children: Any) -> Any:
        return tree_util.tree_unflatten(container.spec, children)

    optree.register_pytree_node(kind, parts, whole, path_entry_type=_Key, namespace=NAMESPACE)


@dataclass(frozen=True)
class _Container:
    """A container without its items."""

    spec: Any  # as JAX has it

    def __repr__(self) -> str:
        return ""  # its type is said beside it


class _Key(optree.PyTreeEntry):
    """A key of JAX's, which writes itself as Python code."""

    @property
    def name(self) -> str:
        """A key, an index, or the name of a field."""
        return str(next(getattr(self.entry, of) for of in ("key", "idx", "name") if hasattr(self.entry, of)))

    def codify(self, node: str = "") -> str:
        return f"{node}{self.entry}"


def path_of(spec: optree.PyTreeSpec | None, i: int) -> str:
    """Where leaf ``i`` is in its tree, as Python code that follows the tree's name: ``['w'][0]``."""
    return "" if spec is None else spec.accessors()[i].codify("")


def names_of(spec: optree.PyTreeSpec) -> list[str]:
    """The name of each leaf: its keys, indices and fields, joined by dots."""
    return [".".join(map(_key, accessor)) for accessor in spec.accessors()]


def _key(entry: Any) -> str:
    return str(getattr(entry, "field", None) or getattr(entry, "name", None) or entry.entry)


def flatten_like(function: str, spec: optree.PyTreeSpec, name: str, tree: Tree) -> list[Any]:
    """The leaves of ``tree``, which must have the structure of params; a leaf of a slot may be None or a tuple."""
    try:
        return spec.flatten_up_to(tree)
    except ValueError:
        trees = _outline(spec), _outline(flatten(tree)[1])
        msg = f"{function}: {name} must have the tree of params, {trees[0]}, got {trees[1]}; {_difference(name, spec, tree)}"
        raise ValueError(msg) from None


def spread(function: str, name: str, value: Any, spec: optree.PyTreeSpec, value_of: Callable[[Any], bool]) -> list[Any]:
    """For each leaf of params the value of a tree that is a prefix of them, paired by key. None is a value too.

    Raises ValueError where it is no prefix, with the first difference.
    """
    try:
        found = _spread(value, spec, value_of)
    except ValueError:
        found = [value]
    if not all(type(x) is float or value_of(x) for x in found):
        one = "a sequence of numbers" if value_of is is_sequence else "a number, a 0-d array"
        msg = f"{function}: {name} must be {one} or a tree that is a prefix of params; {_difference(name, spec, value, value_of)}"
        raise ValueError(msg)
    return found


def _spread(value: Any, spec: optree.PyTreeSpec, value_of: Callable[[Any], bool]) -> list[Any]:
    if spec.is_leaf() or value_of(value):
        return [value] * spec.num_leaves
    with suppress(ValueError):  # the whole tree, as a rule: the short way
        return spec.flatten_up_to(value)
    below = zip(_level(spec).flatten_up_to(value), spec.children(), strict=True)
    return [x for part, child in below for x in _spread(part, child, value_of)]


def _level(spec: optree.PyTreeSpec) -> optree.PyTreeSpec:
    """The container that a tree begins with, its items as leaves."""
    return spec.one_level() or spec


def is_value(x: Any) -> bool:
    """Whether ``x`` is no tree but one value, None included."""
    return x is None or type(x) is float or is_leaf(x)


def is_leaf(x: Any) -> bool:
    """Whether ``x`` is no container."""
    return bool(optree.tree_is_leaf(x, namespace=NAMESPACE)) and not _adopted([x])


def is_sequence(x: Any) -> bool:
    """Whether ``x`` is no tree of sequences but one, right or wrong."""
    return is_value(x) or (isinstance(x, list | tuple) and (not x or any(map(is_value, x))))


def _difference(
    name: str, spec: optree.PyTreeSpec, tree: Tree, value_of: Callable[[Any], bool] | None = None, path: str = ""
) -> str:
    """The first place where a tree is not that of params, or no prefix of it where ``value_of`` tells its values, in words."""
    here, there = f"{name}{path}", f"params{path}"
    if value_of and value_of(tree):
        return ""  # not here
    if spec.is_leaf():
        return f"{here} is {_container(flatten(tree)[1])}, but {there} is an array" if value_of else ""
    level = _level(spec)
    try:
        parts = level.flatten_up_to(tree)
    except ValueError:
        theirs = flatten(tree)[1]
        if theirs.is_leaf():
            return f"{here} is {shown(tree)}, but {there} is {_container(spec)}"
        dicts = [issubclass(one.type or object, dict) for one in (spec, theirs)]
        if theirs.num_children and not all(dicts) and theirs.type is not spec.type:
            return f"{here} is {_container(theirs)}, but {there} is {_container(spec)}"
        missing = [x for x, key in zip(level.accessors(), spec.entries(), strict=True) if key not in theirs.entries()]
        surplus = [x for x, key in zip(_level(theirs).accessors(), theirs.entries(), strict=True) if key not in spec.entries()]
        if missing:
            return f"{here}{missing[0].codify('')} is missing"
        if surplus:
            return f"{here}{surplus[0].codify('')} is superfluous"
        if theirs.type is spec.type:
            return f"{here} and {there} are both {_container(spec)}, and differ in their static fields"
        return f"{here} is {_container(theirs)}, but {there} is {_container(spec)}"
    below = zip(parts, spec.children(), level.accessors(), strict=True)
    found = (_difference(name, child, part, value_of, path + accessor.codify("")) for part, child, accessor in below)
    return next(filter(None, found), "")


def _outline(spec: optree.PyTreeSpec) -> str:
    text = str(spec).removeprefix("PyTreeSpec(").removesuffix(")").replace(f", namespace={NAMESPACE!r}", "")
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _container(spec: optree.PyTreeSpec) -> str:
    return "None" if spec.type is type(None) else f"a {spec.type.__name__}" if spec.type else "a leaf"
