"""What fusers share: what is compiled for which leaf, which leaves are stepped together, and a state put together again."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from xopt.backends.fused.work import TypedLeaf
from xopt.program import asked, names_of, numbers_of, record
from xopt.rule import Rule


class Compiled:
    """What a compiler makes of a rule's update: something else for each form that the state of a leaf may have.

    Parameters
    ----------
    rule
        Any rule.
    make
        Makes it of a program, and of what else is given, such as a dtype.
    """

    def __init__(self, rule: Rule[Any, Any], make: Callable[..., Any]) -> None:
        self.rule = rule
        self.make = make
        self._asked: dict[Any, list[tuple[int, str]]] = {}  # by the form of the slots: coefficients whose being 1 matters
        self._made: dict[Any, Any] = {}

    def of(self, slots: Sequence[Any], c: Any, *how: Hashable) -> Any:
        """For a leaf with these slots and coefficients."""
        form = self.rule.schema.form(slots)
        if form not in self._asked:
            names = asked(self.rule, slots, c)
            self._asked[form] = [(i, name) for i, name in enumerate(names_of(c)) if name in names]
        may_be_one = self._asked[form]
        numbers = numbers_of(c) if may_be_one else ()
        ones = tuple([name for i, name in may_be_one if type(numbers[i]) is float and numbers[i] == 1.0])
        found = self._made.get((form, ones, how))
        if found is None:
            made = self.make(record(self.rule, slots, c, ones), *how)
            found = self._made.setdefault((form, ones, how), made)  # another thread may have been here
        return found

    def each(self, leaves: Sequence[TypedLeaf], *how: Sequence[Hashable]) -> list[Any]:
        """For each leaf, asked once for those that are alike."""
        known: dict[Any, Any] = {}
        found = []
        for leaf, *own in zip(leaves, *how, strict=True):
            key = self.rule.schema.form(leaf.slots), id(leaf.c), *own
            if key not in known:
                known[key] = self.of(leaf.slots, leaf.c, *own)
            found.append(known[key])
        return found


def calls(leaves: Sequence[Hashable], most: int) -> list[list[int]]:
    """The indices of the leaves that are stepped together, given what is compiled for each of them.

    Of more than ``most``, each call takes an equal number of those that are alike, so that one function serves for all calls; the
    last call takes what remains. Where one call takes them all, it does in their order.
    """
    parts, in_order = -(-len(leaves) // most), [list(range(len(leaves)))]
    if parts == 1:
        return in_order
    alike: dict[Any, list[int]] = defaultdict(list)
    for i, leaf in enumerate(leaves):
        alike[leaf].append(i)
    found: list[list[int]] = [[] for _ in range(parts + 1)]
    for some in alike.values():
        each = len(some) // parts
        for part in range(parts):
            found[part] += some[part * each : (part + 1) * each]
        found[parts] += some[parts * each :]
    found = [call for call in found if call]
    return found if len(found) > 1 else in_order


def filled(leaf: TypedLeaf, new: Sequence[Any]) -> list[Any]:
    """New params and slots, of the form that the leaf has, from its new arrays."""
    rule = leaf.typed.rule
    carried = {name: leaf.typed.lifted(getattr(leaf.c, name)) for name in rule.carried}
    return rule.schema.filled([leaf.params, *leaf.slots], new, carried)
