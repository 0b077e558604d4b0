"""Groups of leaves by their names."""

import difflib
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from xopt.checks import shown
from xopt.trees import Tree, flatten, names_of, path_of
from xopt.untraced import untraced


@untraced
def groups(patterns: Mapping[str, Any], params: Tree) -> Tree:
    """A value for each leaf, by the first pattern that its name matches: a hyperparameter for groups of params.

    Parameters
    ----------
    patterns
        Patterns, as of file names (``*``, ``?``, ``[abc]``), and their values: numbers, or whatever the hyperparameter takes. The
        name of ``params["layers"][0]["b"]`` is ``layers.0.b``. ``*.b`` is every leaf called b, one at the top too; ``*`` is all.
    params
        An array or a tree of anything. None is no leaf, and stays.

    Returns
    -------
    A tree of the form of ``params`` with a value for each leaf.

    Raises
    ------
    TypeError
        Where ``patterns`` is no mapping from text.
    ValueError
        For a leaf that no pattern matches, and for a pattern that gives no leaf its value.
    """
    if not isinstance(patterns, Mapping) or not all(isinstance(pattern, str) for pattern in patterns):
        msg = f"groups: patterns must be a dict from patterns such as '*.b' to values, got {shown(patterns)}"
        raise TypeError(msg)
    leaves, spec = flatten(params)
    names = names_of(spec)
    found = []
    for i, name in enumerate(names):
        pattern = next((pattern for pattern in patterns if _matches(name, pattern)), None)
        if pattern is None:
            tried = f"params{path_of(spec, i)}, by name {name!r}, matches none of {', '.join(map(repr, patterns)) or 'no patterns'}"
            msg = f"groups: {tried}; let '*' be the last one, for all others"
            raise ValueError(msg)
        found.append(pattern)
    for pattern in patterns:
        if leaves and pattern not in found:
            msg = f"groups: no leaf gets its value from {pattern!r}; {_why(pattern, patterns, names)}"
            raise ValueError(msg)
    return spec.unflatten([patterns[pattern] for pattern in found])


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(f".{name}", pattern)


def _why(pattern: str, patterns: Mapping[str, Any], names: list[str]) -> str:
    taken = next((name for name in names if _matches(name, pattern)), None)
    if taken is not None:
        before = next(one for one in patterns if _matches(taken, one))
        return f"{taken!r} has it from {before!r}, which comes before; put the narrower pattern first"
    near = difflib.get_close_matches(pattern.replace("*", ""), names, n=3, cutoff=0.3) or names[:3]
    return f"there are names such as {', '.join(map(repr, near))}"
