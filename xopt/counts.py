"""Step counts: one of all leaves, or a tree of them, a prefix of params, once leaves have parted ways."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from numbers import Integral
from typing import Any

import optree

from xopt.checks import Later, as_number, is_no_number, shown
from xopt.operations import namespace
from xopt.trees import Tree, flatten, is_value, path_of, spread
from xopt.typed import is_scalar, refuse_outside


class Counts:
    """The step counts of leaves of which some were added later, or had no gradient at some steps.

    Parameters
    ----------
    function
        What errors name.
    tree
        ``state.step``: a count, or a tree of counts that is a prefix of params.
    """

    def __init__(self, function: str, tree: Tree) -> None:
        self._function = function
        self._tree = tree

    def each(self, spec: optree.PyTreeSpec) -> list[Any]:
        """The count of each leaf of params."""
        return spread(self._function, "state.step", self._tree, spec, is_value)

    def following(self, spec: optree.PyTreeSpec) -> list[Any]:
        """The count of the step that each leaf is about to take, checked."""
        counts = self.each(spec)
        keys = [count if type(count) is int else id(count) for count in counts]
        known: dict[int, Any] = {}
        for i, key in enumerate(keys):
            if key not in known:
                known[key] = following(Later(partial(self._where, spec, i)), counts[i])
        return [known[key] for key in keys]

    def _where(self, spec: optree.PyTreeSpec, i: int) -> str:
        return f"{self._function}: state.step{path_of(spec, i)}"

    def after(self, spec: optree.PyTreeSpec, new: Sequence[Any], stepped: Sequence[bool]) -> Tree:
        """``state.step`` after a step, in which the leaves that were ``stepped`` have these new counts, and others what they had.

        The tree is as it was where that can say it, else it has a count for each leaf.
        """
        counts, form = flatten(self._tree)
        places = spread(self._function, "state.step", form.unflatten(range(len(counts))), spec, is_value)
        found = defaultdict(set)
        for place, did in zip(places, stepped, strict=True):
            found[place].add(did)
        if any(len(did) > 1 for did in found.values()):
            pairs = zip(new, self.each(spec), stepped, strict=True)
            return spec.unflatten([count if did else old for count, old, did in pairs])
        for place, count in zip(places, new, strict=True):
            if True in found[place]:
                counts[place] = count
        return form.unflatten(counts)


def following(where: str | Later, count: Any) -> Any:
    """The count after a step count: an int for one of Python or NumPy, else an array, which may be traced.

    Raises TypeError for what is no count: nothing is truncated, broadcast, or counted in a dtype that soon ends.
    """
    if isinstance(count, Integral) and not is_no_number(count):
        refuse_outside(where, int(count))
        return int(count) + 1
    if hasattr(type(count), "__array_interface__"):
        # NumPy's: asked for more than this, torch.compile takes it for a tensor of its own
        if count.ndim == 0 and count.dtype.kind in "iu":
            return following(where, int(count))
    elif is_scalar(count, "integral"):
        xp = namespace(count)
        if xp.iinfo(count.dtype).max >= 2**31 - 1:
            return xp.maximum(count + 1, count)  # at its end it stays there: the sum is negative, or 0
        if as_number(count) is not None:
            return following(where, int(count))
    what = f"{where} must be an int or a 0-d array of integers of 32 bits or more, got {shown(count)}"
    hint = "; a state that a vmapped init has made is for a vmapped step" if getattr(count, "ndim", 0) else ""
    raise TypeError(what + hint)
