"""One step of a whole tree, on its way to what is compiled: its leaves and what they must be."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from xopt.checks import DOUBLE
from xopt.operations import Array, is_array
from xopt.rule import Rule
from xopt.slots import each
from xopt.typed import Call, Group, TypedRule


class UnfitError(Exception):
    """An array is more, or other, than its numbers in memory, which is all that a fused step sees: the plain step takes it."""


class TracedError(UnfitError):
    """A compiler follows what is done to an array: the plain step is what it shall see."""


class TypedLeaf(NamedTuple):
    """One array of parameters with all that its step needs, checked."""

    typed: TypedRule
    params: Array
    slots: list[Any]  # each an array, None, a tuple of those, or a number
    grad: Array
    arrays: list[Array]  # those that the step replaces: params and what the slots hold
    c: Any  # the coefficients, float64 on the host
    plain: bool  # whether they are Python numbers; else there are 0-d arrays among them


class Work:
    """One step of a whole tree, before its arguments are checked."""

    def __init__(
        self,
        rule: Rule[Any, Any],
        call: Call,
        columns: Sequence[list[Any]],
        hyper: list[dict[str, Any]],
        donate: bool,
        kept: dict[Any, Any],
    ) -> None:
        self.rule = rule
        self.call = call
        self.given = columns
        self.params, self.grads, *self.slots = columns  # of each leaf; for each slot, of each leaf
        self.hyper = hyper  # of each leaf: often the same dict
        self.donate = donate
        self.shared = type(hyper[0]) is not Group  # whether all leaves have the same hyperparameters
        self.kept = kept  # what a fuser keeps from one step of a function to the next, by fuser
        self._coefficients: dict[Any, tuple[Any, bool]] = {}
        self._token_at, self.token = _token(rule, self.params, self.slots)  # the array by which the state is known
        for at, _, interval in rule.carried_at:
            low, high = interval.usable(DOUBLE)
            column = self.slots[at]
            if not (_floats(column) and all(low <= x <= high for x in set(column))):
                numbers = [self._carried(i) for i in range(len(column))]
                self.slots[at] = [dict(zip(rule.carried, row, strict=True))[rule.slots[at]] for row in numbers]

    def with_gradient(self) -> "Work":
        """The step of the leaves that have a gradient: itself, or a part of it."""
        return PartialWork(self) if type(None) in set(map(type, self.grads)) else self

    def whole(self, new: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """The columns of the new state of all leaves, from those of the leaves that are stepped."""
        return new

    def where(self, i: int) -> str:
        """What an error of leaf ``i`` begins with."""
        return self.call._replace(function=f"{self.call.function}, fused").where("params", i)

    def typed(self, i: int) -> TypedRule:
        return self.rule.typed(self.call, i, self.params[i])

    def _carried(self, i: int) -> list[Any]:
        return self.typed(i).carried_numbers(self.call, i, [slot[i] for slot in self.slots])

    def written(self, i: int) -> list[Any]:
        """The arrays of leaf ``i`` that a donating step writes over: its params and what its slots hold."""
        return self.rule.schema.arrays([self.params[i], *(column[i] for column in self.slots)])

    def renewed(self, new: list[Any], alias: Callable[[Any], Any]) -> list[Any]:
        """The columns of a state that was written over, with another object in place of the array that it was known by."""
        first, *others = new[self._token_at]
        token = self.token
        new[self._token_at] = [alias(token) if first is token else each(lambda x: alias(x) if x is token else x, first), *others]
        return new

    def loose(self) -> list[Any]:
        """The arrays among the hyperparameters, the step count and what is carried."""
        groups = [self.hyper[0]] if self.shared else list({id(hyper): hyper for hyper in self.hyper}.values())
        values = [x for hyper in groups for x in hyper.values()]
        values = [
            *(getattr(hyper, "t", self.call.t) for hyper in groups),
            *(x for value in values for x in (value if isinstance(value, tuple | list) else (value,))),
        ]
        carried = [x for at, *_ in self.rule.carried_at if not _floats(self.slots[at]) for x in self.slots[at]]
        return [x for x in (*values, *carried) if type(x) not in (float, int) and is_array(x)]

    def hosted(self) -> bool:
        """Whether the step count and all hyperparameters are Python numbers, as mostly: nothing of them is to be looked at."""
        if type(self.call.t) is not int or not self.shared or self.rule.carried_at:
            return False
        hyper = self.hyper[0]
        return not hyper or set(map(type, hyper.values())) == {float}

    def coefficients(self, i: int, typed: TypedRule) -> tuple[Any, bool]:
        """Those of leaf ``i``, evaluated once for all leaves that share them; and whether they are Python numbers."""
        carried = [self.slots[at][i] for at, *_ in self.rule.carried_at] if self.rule.carried_at else ()
        key = (id(typed), id(self.hyper[i]), *(x if type(x) is float else id(x) for x in carried))
        found = self._coefficients.get(key)
        if found is None:
            found = self._coefficients[key] = typed.host_coefficients(self.call, carried, self.hyper[i])
        return found

    def leaf(self, i: int) -> TypedLeaf:
        """Leaf ``i``, with the errors of the eager step where it is not as it must be."""
        typed = self.typed(i)
        c, plain = self.coefficients(i, typed)
        typed.check_leaf(self.call, i, self.params[i], self.grads[i], [slot[i] for slot in self.slots], self.hyper[i])
        return self.assembled(i, typed, c, plain)

    def assembled(self, i: int, typed: TypedRule, c: Any, plain: bool) -> TypedLeaf:
        """Leaf ``i``, which has been checked. NumPy's scalars become 0-d arrays."""
        schema = self.rule.schema
        # what is carried is among the coefficients; here a number stands for it, also where it came as an array
        pairs = zip(schema, self.slots, strict=True)
        slots = [each(_array, column[i]) if slot.number is None else 1.0 for slot, column in pairs]
        params = _array(self.params[i])
        return TypedLeaf(typed, params, slots, _array(self.grads[i]), schema.arrays([params, *slots]), c, plain)

    def columns(self) -> list[list[Any]]:
        """The arrays of all leaves: params, what the slots hold, gradients; None where a slot, or a place of a tuple, is."""
        if self.rule.schema.several:
            self.leaf(0)  # refuses what is no such tuple; the others must be like it
        columns: list[Any] = [self.params, *self.rule.schema.columns(self.slots), self.grads]
        return columns if set(map(type, columns)) == {list} else list(map(list, columns))

    def filled(self, new: Sequence[Sequence[Any]], carried: Sequence[Sequence[Any]]) -> list[Sequence[Any]]:
        """The columns of a new state: from those of its arrays, as ``columns`` gives them, and what each leaf carries."""
        arrays, numbers = iter(new), zip(*carried, strict=True)
        columns: list[Sequence[Any]] = [next(arrays)]
        for slot, column in zip(self.rule.schema, self.slots, strict=True):
            if slot.several:
                columns.append(list(zip(*[next(arrays) for _ in column[0]], strict=True)))
            else:
                columns.append(next(arrays) if slot.number is None else next(numbers))
        return columns

    def refuse_none(self, leaves: Sequence[int], forms: Sequence[Any]) -> None:
        """Raises what the eager step does where a None in one of these leaves is not what the hyperparameters mean."""
        seen = set()
        for i in leaves:
            key = forms[i], id(self.hyper[i])
            if key not in seen:
                seen.add(key)
                self.leaf(i)


class PartialWork(Work):
    """The step of the leaves of a tree that have a gradient, while the others stay what they are.

    Parameters
    ----------
    tree
        The step of all leaves. It is this one's ``token`` by which its state is known.
    """

    def __init__(self, tree: Work) -> None:
        vars(self).update(vars(tree))
        self.tree = tree
        self.leaves = [i for i, grad in enumerate(tree.grads) if grad is not None]
        self.idle = [i for i, grad in enumerate(tree.grads) if grad is None]
        self.call = tree.call._replace(spec=_Some(tree.call.spec, self.leaves))
        columns = tree.params, tree.grads, tree.hyper, *tree.slots
        self.params, self.grads, self.hyper, *self.slots = [[column[i] for i in self.leaves] for column in columns]

    def whole(self, new: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        params, _, *slots = self.tree.given
        columns = [list(column) for column in (params, *slots)]
        for column, some in zip(columns, new, strict=False):
            for i, x in zip(self.leaves, some, strict=True):
                column[i] = x
        return columns


class _Some(NamedTuple):
    """Some leaves of a tree, as their errors name them."""

    spec: Any
    leaves: list[int]

    def accessors(self) -> list[Any]:
        found = self.spec.accessors()
        return [found[i] for i in self.leaves]


def _token(rule: Rule[Any, Any], params: Sequence[Any], slots: Sequence[Sequence[Any]]) -> tuple[int, Any]:
    """The array by which a state is known, and its column: of the first slot that the first leaf has, or its params.

    Params may be of several states, one after the other, as those of a module are; slots are of one.
    """
    for at in rule.schema.of_arrays:
        x = slots[at][0]
        if isinstance(x, tuple):
            x = next((one for one in x if one is not None), None)
        if x is not None:
            return 1 + at, x
    return 0, params[0]


def _floats(column: Sequence[Any]) -> bool:
    return set(map(type, column)) == {float}


def _array(x: Any) -> Any:
    return np.asarray(x) if isinstance(x, np.generic) else x


TakesStep = Callable[[Work], Sequence[Sequence[Any]]]
"""Takes the step: the new params and the new slots, each for all leaves. Raises before anything is written."""


def refuse_unfit(work: Work, unfit: Callable[[Any], str | None], leaves: Sequence[int] | None = None) -> None:
    """Raises UnfitError where ``unfit`` says what an array is: of these leaves, default all, or beside them."""
    for i in range(len(work.params)) if leaves is None else leaves:
        for x in (*work.written(i), work.grads[i]):
            what = unfit(x)
            if what is not None:
                msg = f"{work.where(i)}, a slot or its gradient is {what}"
                raise UnfitError(msg)
    for x in work.loose():
        what = unfit(x)
        if what is not None:
            msg = f"{work.rule.name}_step, fused: a hyperparameter, the step count or a carried number is {what}"
            raise UnfitError(msg)


def one_library(work: Work, device: Callable[[Array], Any]) -> None:
    """Raises TypeError where a leaf is of another library or on another device than the first."""
    first, there = work.typed(0), device(work.params[0])
    for i, x in enumerate(work.params):
        if work.typed(i).xp is not first.xp:
            what = f"is a {type(x).__module__.partition('.')[0]} array, but the first is of another library"
        elif device(x) != there:
            what = f"is on {device(x)}, but the first on {there}"
        else:
            continue
        msg = f"{work.where(i)} {what}; a fused step takes arrays of one library on one device"
        raise TypeError(msg)
