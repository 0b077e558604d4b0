"""What fusers share whose library compiles whole functions: which leaves are alike, and a state put together again."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from xopt.backends.fusing import Leaf
from xopt.backends.program import Program, asked, names_of, numbers_of, record
from xopt.leaves import lifted
from xopt.rule import Rule


class Updates:
    """A rule's update as a function, for each form that the state of a leaf may have.

    Parameters
    ----------
    rule
        Any rule.
    make
        Makes the function of a program.
    """

    def __init__(self, rule: Rule[Any, Any], make: Callable[[Program], Any]) -> None:
        self.rule = rule
        self.make = make
        self._asked: dict[Any, tuple[str, ...]] = {}  # by the form of the slots: coefficients whose being 1 matters
        self._made: dict[Any, Any] = {}  # by that form and those that are 1

    def of(self, leaves: Sequence[Leaf]) -> list[Any]:
        """The function of each leaf."""
        known: dict[Any, Any] = {}
        found = []
        for leaf in leaves:
            form = tuple([tuple([x is None for x in slot]) if isinstance(slot, tuple) else slot is None for slot in leaf.slots])
            key = form, id(leaf.c)
            if key not in known:
                known[key] = self._of(form, leaf)
            found.append(known[key])
        return found

    def _of(self, form: Any, leaf: Leaf) -> Any:
        if form not in self._asked:
            self._asked[form] = asked(self.rule, leaf.slots, leaf.c)
        numbers = dict(zip(names_of(leaf.c), numbers_of(leaf.c), strict=True))
        literal = tuple([name for name in self._asked[form] if type(numbers[name]) is float and numbers[name] == 1.0])
        if (form, literal) not in self._made:
            made = self.make(record(self.rule, leaf.slots, leaf.c, literal))
            self._made.setdefault((form, literal), made)  # another thread may have been here
        return self._made[form, literal]


def calls(leaves: Sequence[Hashable], most: int) -> list[list[int]]:
    """The indices of the leaves that are stepped together, given what is compiled for each of them.

    Of more than ``most``, each call takes an equal number of those that are alike, so that one function serves for all calls; the
    last call takes what remains.
    """
    parts = -(-len(leaves) // most)
    if parts == 1:
        return [list(range(len(leaves)))]
    alike: dict[Any, list[int]] = defaultdict(list)
    for i, leaf in enumerate(leaves):
        alike[leaf].append(i)
    found: list[list[int]] = [[] for _ in range(parts + 1)]
    for some in alike.values():
        each = len(some) // parts
        for part in range(parts):
            found[part] += some[part * each : (part + 1) * each]
        found[parts] += some[parts * each :]
    return [call for call in found if call]


def filled(rule: Rule[Any, Any], leaf: Leaf, new: Sequence[Any]) -> list[Any]:
    """New params and slots, of the form that the leaf has, from its new arrays."""
    arrays = iter(new)
    carried = {name: lifted(getattr(leaf.c, name), leaf.kind) for name in rule.carried}
    slots = zip(rule.slots, leaf.slots, strict=True)
    return [next(arrays), *[carried[name] if name in carried else _slot(slot, arrays) for name, slot in slots]]


def _slot(old: Any, arrays: Iterator[Any]) -> Any:
    if isinstance(old, tuple):
        return tuple([_slot(x, arrays) for x in old])
    return None if old is None else next(arrays)
