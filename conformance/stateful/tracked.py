"""A rule's state on one backend, kept as a tree of leaves that a program rearranges, saves and moves."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import optree

from xopt.backends import Backend
from xopt.conformance.arithmetic.formats import arithmetic_of
from xopt.conformance.compare.reference import Columns
from xopt.conformance.inputs.census import saw
from xopt.conformance.results import BrokenError
from xopt.conformance.structures.parts import Layer, Pair, tree_of
from xopt.rule import Rule

SIZE = 6
"""Numbers that a program's leaves hold together."""
FORMS: dict[str, Callable[[list[Any], Sequence[str]], Any]] = {
    **{name: partial(tree_of, name) for name in ("dict", "OrderedDict", "list")},
    "nested": lambda leaves, keys: {keys[0]: leaves[:1], keys[1]: Pair(tuple(leaves[1:3]), Layer(leaves[3:], None))},
}
"""Trees that leaves may stand in: the containers of drawn structures. The keys of a mapping decide in which order they are met."""


class Tracked:
    """A rule's state on one backend, as a tree of leaves: ``parts`` says which numbers of the flat vector each of them holds."""

    def __init__(self, rule: Rule[Any, Any], backend: Backend, dtype: str) -> None:
        self.rule = rule
        self.backend = backend
        self.dtypes = dtype, arithmetic_of(dtype)  # of params and of slots
        self.spec: optree.PyTreeSpec = optree.treespec_leaf()  # in no container
        self.parts = [np.arange(SIZE)]

    def start(self, params: Any, hyper: dict[str, Any]) -> None:
        self.state = self.rule.bind(**hyper).init(self._tree(params))

    def step(self, grad: Any, hyper: dict[str, Any]) -> None:
        """One step. Raises BrokenError where it writes to what it was given."""
        before, given = self.flat(), self._tree(grad)
        new = self.rule.step(self.state, given, **hyper)
        if np.any(differ(self.flat(), before)):
            msg = "the step wrote to the state that it was given"
            raise BrokenError(msg)
        if np.any(self._column(self.spec.flatten_up_to(given), 0) != grad):
            msg = "the step wrote to the gradient that it was given"
            raise BrokenError(msg)
        self.state = new

    def flat(self) -> Columns:
        """The state's columns as flat vectors. Raises BrokenError for a dtype, shape or tree that they must not have."""
        return tuple(self._column(entries, i) for i, entries in enumerate(self.entries()))

    def entries(self) -> list[list[Any]]:
        """What each leaf holds in params and in each slot: an array, None, a number, or a tuple of arrays."""
        return [self.spec.flatten_up_to(column) for column in self.state[:-1]]

    def arrange(self, entries: list[list[Any]], parts: list[Any], form: str, keys: Sequence[str]) -> None:
        """Puts leaves into a tree."""
        order, self.spec = optree.tree_flatten(FORMS[form](list(range(len(parts))), keys))
        self.parts = [parts[i] for i in order]
        trees = [self.spec.unflatten([column[i] for i in order]) for column in entries]
        self.state = self.rule.state._make([*trees, self.state.step])

    def host(self) -> Any:
        """The state with NumPy arrays in place of the backend's."""
        return self._mapped(lambda x, _: np.array(self.backend.to_numpy(x)))

    def load(self, host: Any, backend: Backend) -> None:
        """Takes what ``host`` gave to a backend."""
        saw("programs: states moved to another library", backend is not self.backend)
        self.state, self.backend = host, backend
        self.state = self._mapped(backend.asarray)

    def _mapped(self, function: Callable[[Any, str], Any]) -> Any:
        """The state with ``function`` of each array and its dtype."""

        def mapped(entries: list[Any], dtype: str) -> Any:
            return self.spec.unflatten([each_array(entry, lambda x: function(x, dtype)) for entry in entries])

        trees = [mapped(entries, self.dtypes[i > 0]) for i, entries in enumerate(self.entries())]
        return self.state._make([*trees, self.state.step])

    def _tree(self, vector: Any) -> Any:
        return self.spec.unflatten([self.backend.asarray(vector[part], self.dtypes[0]) for part in self.parts])

    def _column(self, entries: Sequence[Any], i: int) -> Any:
        first = entries[0]
        if first is None or isinstance(first, float):
            if any(entry != first for entry in entries):
                msg = f"{self._name(i)} is not the same for all leaves: {entries}"
                raise BrokenError(msg)
            return first
        if isinstance(first, tuple):
            return tuple(self._column(buffers, i) for buffers in zip(*entries, strict=True))
        vector = np.zeros(SIZE)
        for leaf, part in zip(entries, self.parts, strict=True):
            dtype, shape = str(leaf.dtype).rpartition(".")[2], tuple(leaf.shape)
            if (dtype, shape) != (self.dtypes[i > 0], part.shape):
                msg = f"a leaf of {self._name(i)} is {dtype}{shape} and must be {self.dtypes[i > 0]}{part.shape}"
                raise BrokenError(msg)
            vector[part] = self.backend.to_numpy(leaf)
        return vector

    def _name(self, i: int) -> str:
        return ("params", *self.rule.slots)[i]


def differ(one: Any, other: Any) -> Any:
    """Where two flat states differ in bits; the sign of a zero and the payload of a NaN do not count."""
    if optree.tree_structure(one) != optree.tree_structure(other):
        msg = f"the state lost or got slots: {one} and {other}"
        raise BrokenError(msg)
    a, b = (np.concatenate([np.ravel(x) for x in optree.tree_leaves(columns)]) for columns in (one, other))
    return (a != b) & ~(np.isnan(a) & np.isnan(b))


def each_array(entry: Any, function: Callable[[Any], Any]) -> Any:
    """``function`` of each array that a leaf holds."""
    if entry is None or isinstance(entry, float):
        return entry
    return tuple(each_array(one, function) for one in entry) if isinstance(entry, tuple) else function(entry)
