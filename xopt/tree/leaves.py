"""Leaves that come and go in mid-run: a new one begins at count 0, the others keep their bits."""

from collections.abc import Sequence
from copy import copy
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import optree

from xopt.checks import shown
from xopt.counts import Counts
from xopt.operations import is_array
from xopt.rule import Rule, rule_of
from xopt.trees import Tree, flatten, flatten_like, is_leaf, level_of, names_of
from xopt.typed import Call

S = TypeVar("S", bound=tuple[Any, ...])


def add(state: S, params: Tree, **hyper: Any) -> S:
    """A state with more leaves.

    Parameters
    ----------
    state
        Of any rule, from ``<rule>_init`` or a step. Never written to.
    params
        A tree with the leaves to add, paired with those of ``state.params`` by key: of dicts the new items are enough, a list or
        tuple has the old items first. A leaf that the state has already stays as the state has it, and None may stand in its
        place; where the state has None, a frozen place, anything may be added.
    hyper
        What ``<rule>_init`` takes, such as ``beta1=0.0`` or ``betas``: numbers, or trees that are prefixes of the new params.

    Returns
    -------
    The state with both. Slots of new leaves begin as ``<rule>_init`` makes them; ``step`` is a tree with the count of each leaf,
    or still one number where all have the same.

    Raises
    ------
    TypeError
        For what is no state of a rule, for a leaf of ``params`` that is no array of real floating-point numbers, and for a
        hyperparameter that ``<rule>_init`` does not take.
    ValueError
        For a leaf in place of a container, or the reverse; for a leaf that is there already in another shape or dtype.
    """
    function = "xopt.tree.add"
    rule = rule_of(function, state)
    old, columns, counts = _taken_apart(function, rule, state)
    rule.check_names(function, hyper)
    merged = _merged(function, "", state.params, params)  # type: ignore[attr-defined]
    leaves, spec = flatten(merged)
    place = {path: i for i, path in enumerate(old.paths())}
    call = Call(function, spec=spec)
    rows = []
    for i, (path, leaf, own) in enumerate(zip(spec.paths(), leaves, rule.broadcast(call, dict(hyper)), strict=True)):
        if path in place:
            rows.append([*(column[place[path]] for column in columns), counts[place[path]]])
        else:
            rule.typed(call, i, leaf)
            rows.append(list(rule.init(leaf, **own)))
    new: S = _state(rule, spec, rows)
    return new


def drop(state: S, *which: Any) -> S:
    """A state with fewer leaves.

    Parameters
    ----------
    state
        Of any rule, from ``<rule>_init`` or a step. Never written to.
    which
        Patterns in the manner of a shell, such as ``"head.*"``, of the paths of leaves, keys joined by dots; or one tree that
        has something, not None, in the place of each leaf to drop.

    Returns
    -------
    The state without those leaves. Dicts, lists and tuples lose the item, and themselves where nothing is left of them; what else
    holds a leaf, such as a NamedTuple, has None in its place.

    Raises
    ------
    TypeError
        For what is no state of a rule, and where nothing is said to drop.
    ValueError
        For a pattern or a place that is none of the state's, and where no leaf would be left.
    """
    function = "xopt.tree.drop"
    rule = rule_of(function, state)
    old, columns, counts = _taken_apart(function, rule, state)
    goes = _chosen(function, old, which)
    kept = [i for i, path in enumerate(old.paths()) if path not in goes]
    if not kept:
        msg = f"{function}: no leaf would be left of {shown(state.params)}"  # type: ignore[attr-defined]
        raise ValueError(msg)
    spec = flatten(_without(state.params, goes, ()))[1]  # type: ignore[attr-defined]
    left: S = _state(rule, spec, [[*(column[i] for column in columns), counts[i]] for i in kept])
    return left


def _taken_apart(function: str, rule: Rule[Any, Any], state: Any) -> tuple[optree.PyTreeSpec, list[list[Any]], list[Any]]:
    """The tree of a state, the columns of its params and slots, and the count of each leaf."""
    leaves, spec = flatten(state.params)
    slots = [flatten_like(function, spec, f"state.{name}", tree) for name, tree in zip(rule.slots, state[1:-1], strict=True)]
    return spec, [leaves, *slots], Counts(function, state.step).each(spec)


def _state(rule: Rule[Any, Any], spec: optree.PyTreeSpec, rows: Sequence[Sequence[Any]]) -> Any:
    *columns, counts = zip(*rows, strict=True)
    one = set(map(type, counts)) == {int} and len(set(counts)) == 1
    return rule.state._make([*map(spec.unflatten, columns), counts[0] if one else spec.unflatten(counts)])


def _merged(function: str, path: str, old: Tree, new: Tree) -> Tree:
    """The leaves of both: of ``old``, where both have one."""
    if new is None or old is None:
        return new if old is None else old
    if is_leaf(old) or is_leaf(new):
        _refuse_other(function, path, old, new)
        return old
    kinds = type(old), type(new)
    if all(issubclass(kind, dict) for kind in kinds):
        both = copy(old)  # with its order, and what else it is
        both.update({key: _merged(function, f"{path}[{key!r}]", old.get(key), new[key]) for key in new})
        return both
    if kinds[0] is kinds[1] and kinds[0] in (list, tuple):
        length = max(len(old), len(new))
        pairs = zip(_padded(old, length), _padded(new, length), strict=True)
        return kinds[0]([_merged(function, f"{path}[{i}]", *pair) for i, pair in enumerate(pairs)])
    levels = level_of(old), level_of(new)
    if levels[0] != levels[1]:
        msg = f"{function}: params{path} is a {kinds[1].__name__} that does not go with the {kinds[0].__name__} in state.params"
        raise ValueError(msg)
    parts = [level.flatten_up_to(tree) for level, tree in zip(levels, (old, new), strict=True)]
    below = zip(levels[0].accessors(), *parts, strict=True)
    return levels[0].unflatten([_merged(function, path + at.codify(""), *pair) for at, *pair in below])


def _padded(items: Sequence[Any], length: int) -> list[Any]:
    return [*items, *[None] * (length - len(items))]


def _refuse_other(function: str, path: str, old: Any, new: Any) -> None:
    """Raises ValueError where what is added in the place of a leaf is not such a leaf."""
    forms = [(tuple(x.shape), x.dtype) if is_array(x) else shown(x) for x in (old, new)]
    if forms[0] != forms[1]:
        msg = (
            f"{function}: params{path} is {_told(forms[1])}, but state.params{path} is {_told(forms[0])}, which stays; "
            "drop it first, or leave it out"
        )
        raise ValueError(msg)


def _told(form: Any) -> str:
    return form if isinstance(form, str) else f"an array of shape {form[0]} and dtype {form[1]}"


def _chosen(function: str, spec: optree.PyTreeSpec, which: Sequence[Any]) -> set[tuple[Any, ...]]:
    """The paths of the leaves that are meant."""
    paths = spec.paths()
    if not which:
        msg = f"{function}: say which leaves to drop: patterns such as 'head.*', or a tree"
        raise TypeError(msg)
    if len(which) == 1 and not isinstance(which[0], str):
        given = flatten(which[0])[1].paths()
        for place in given:
            if not any(path[: len(place)] == place for path in paths):
                msg = f"{function}: state.params has no {'.'.join(map(str, place)) or 'such leaf'}"
                raise ValueError(msg)
        return {path for path in paths for place in given if path[: len(place)] == place}
    found: set[tuple[Any, ...]] = set()
    for pattern in which:
        some = {path for path, name in zip(paths, names_of(spec), strict=True) if fnmatchcase(name, pattern)}
        if not some:
            names = ", ".join(names_of(spec)[:8])
            msg = f"{function}: no leaf of state.params is called {pattern!r}; there are {names}{', ...' if len(paths) > 8 else ''}"
            raise ValueError(msg)
        found |= some
    return found


def _without(tree: Tree, goes: set[tuple[Any, ...]], path: tuple[Any, ...]) -> Tree:
    """A tree without the leaves that go; None where nothing is left of it."""
    if path in goes:
        return None
    if tree is None or is_leaf(tree):
        return tree
    level = level_of(tree)
    parts = zip(level.entries(), level.flatten_up_to(tree), strict=True)
    below = [(key, _without(part, goes, (*path, key)), part) for key, part in parts]
    if flatten(tree)[0] and not any(flatten(part)[0] for _, part, _ in below):
        return None
    left = [(key, part) for key, part, was in below if part is not None or was is None]
    if isinstance(tree, dict):
        made, items = copy(tree), dict(left)
        for key in tree:
            if key not in items:
                del made[key]
        made.update(items)
        return made
    if type(tree) in (list, tuple):
        return type(tree)([part for _, part in left])
    return level.unflatten([part for _, part, _ in below])
