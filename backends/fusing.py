"""fuse: a rule's step as one pass over memory, made from the same ``update`` by each library's own compiler."""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from xopt.arrays import devices
from xopt.backends.donation import WAY_OUT
from xopt.backends.trees import Flat, Trees
from xopt.bound import Bound
from xopt.checks import DOUBLE
from xopt.operations import Array, is_array, is_known_array
from xopt.rule import Rule
from xopt.slots import each
from xopt.trees import Tree
from xopt.typed import Call, Group, TypedRule


class UnfitError(Exception):
    """An array is more, or other, than its numbers in memory, which is all that a fused step sees: the plain step takes it."""


class Leaf(NamedTuple):
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
        column = new[self._token_at]
        first = column[0]
        own = tuple([alias(x) if x is self.token else x for x in first]) if isinstance(first, tuple) else alias(first)
        new[self._token_at] = [own, *column[1:]]
        return new

    def loose(self) -> list[Any]:
        """The arrays among the hyperparameters, the step count and what is carried."""
        groups = [self.hyper[0]] if self.shared else {id(hyper): hyper for hyper in self.hyper}.values()
        values = [x for hyper in groups for x in hyper.values()]
        values = [self.call.t, *(x for value in values for x in (value if isinstance(value, tuple | list) else (value,)))]
        carried = [x for at, *_ in self.rule.carried_at if not _floats(self.slots[at]) for x in self.slots[at]]
        return [x for x in (*values, *carried) if type(x) not in (float, int) and is_array(x)]

    def coefficients(self, i: int, typed: TypedRule) -> tuple[Any, bool]:
        """Those of leaf ``i``, evaluated once for all leaves that share them; and whether they are Python numbers."""
        carried = [self.slots[at][i] for at, *_ in self.rule.carried_at]
        key = (id(typed), id(self.hyper[i]), *(x if type(x) is float else id(x) for x in carried))
        found = self._coefficients.get(key)
        if found is None:
            found = self._coefficients[key] = typed.host_coefficients(self.call, carried, self.hyper[i])
        return found

    def leaf(self, i: int) -> Leaf:
        """Leaf ``i``, with the errors of the eager step where it is not as it must be. NumPy's scalars become 0-d arrays."""
        typed, schema = self.typed(i), self.rule.schema
        c, plain = self.coefficients(i, typed)
        slots = [slot[i] for slot in self.slots]
        typed.check_leaf(self.call, i, self.params[i], self.grads[i], slots, self.hyper[i])
        # what is carried is among the coefficients; here a number stands for it, also where it came as an array
        slots = [each(_array, x) if slot.number is None else 1.0 for slot, x in zip(schema, slots, strict=True)]
        params = _array(self.params[i])
        return Leaf(typed, params, slots, _array(self.grads[i]), schema.arrays([params, *slots]), c, plain)

    def leaves(self) -> Iterator[Leaf]:
        return map(self.leaf, range(len(self.params)))


def _token(rule: Rule[Any, Any], params: Sequence[Any], slots: Sequence[Sequence[Any]]) -> tuple[int, Any]:
    """The array by which a state is known, and its column: of the first slot that the first leaf has, or its params.

    Params may be of several states, one after the other, as those of a module are; slots are of one.
    """
    for at, slot in enumerate(rule.schema, 1):
        x = slots[at - 1][0]
        if isinstance(x, tuple):
            x = next((one for one in x if one is not None), None)
        if x is not None and slot.number is None:
            return at, x
    return 0, params[0]


def _floats(column: Sequence[Any]) -> bool:
    return set(map(type, column)) == {float}


def _array(x: Any) -> Any:
    return np.asarray(x) if isinstance(x, np.generic) else x


Fuser = Callable[[Work], Sequence[Sequence[Any]]]
"""Takes the step: the new params and the new slots, each for all leaves. Raises before anything is written."""


class FusedStep:
    """What ``fuse`` returns: the step of a rule, as one pass over memory."""

    def __init__(self, rule: Rule[Any, Any], hyper: dict[str, Any], donate: bool, compiler: str | None) -> None:
        self.rule = rule
        self.hyper = hyper  # that it is bound to
        self.donate = donate
        self.compiler = compiler
        self.__name__ = self.__qualname__ = f"{rule.name}_step"
        self.__module__ = rule.step.__module__
        self.__signature__ = inspect.signature(rule.step)
        over = ", over the state passed in" if donate else ""
        self.__doc__ = f"``{rule.name}_step`` as one pass over memory{over}.\n\n{rule.step.__doc__}"
        self._trees = Trees()
        self._kept: dict[Any, Any] = {}  # of a fuser, from one step to the next

    def __repr__(self) -> str:
        given = f"{self.rule!r}{', donate=True' if self.donate else ''}{f', compiler={self.compiler!r}' if self.compiler else ''}"
        return f"<fuse({given})>"

    def __reduce__(self) -> Any:
        """Pickled and copied without what is kept: it is made again."""
        return FusedStep, (self.rule, self.hyper, self.donate, self.compiler)

    def __call__(self, state: Any, grad: Tree, **hyper: Any) -> Any:
        rule = self.rule
        if self.hyper:
            hyper = self.hyper | hyper
        if _torch_traces():
            return rule.step(state, grad, **hyper)
        params, slots, t = rule.unpack(state)
        rule.check_names(self.__name__, hyper)
        flat: Flat | None = None
        if is_known_array(params):
            call, leaves = Call(self.__name__, t), [params]
            columns = [[grad], *([slot] for slot in slots)]
            own = [hyper]
        else:
            flat = self._trees.flatten(params)
            call, leaves = Call(self.__name__, t, flat.spec), flat.leaves
            columns = [column for tree in (grad, *slots) if (column := flat.column(tree)) is not None]
            alike = len(columns) == 1 + len(slots)
            if not alike:
                columns = rule.flatten(call, grad, slots)
            own = rule.broadcast(call, hyper)
        if not leaves:
            return rule.step(state, grad, **hyper)  # which refuses it
        new = _stepped(Work(rule, call, [leaves, *columns], own, self.donate, self._kept), self.compiler)
        if new is None:
            return rule.step(state, grad, **hyper)
        if flat is None:
            return state._make([column[0] for column in new] + [t])
        old = zip((params, *slots), (leaves, *columns[1:]), new, strict=True)
        # a column that is written over stays the tree that it was, if that has the containers of params
        return state._make([*[tree if n is o and (alike or flat.fits(tree)) else flat.spec.unflatten(n) for tree, o, n in old], t])


def fuse(rule: Any, *, donate: bool = False, compiler: str | None = None) -> "FusedStep":
    """The step of a rule as one pass over memory.

    Parameters
    ----------
    rule
        A rule such as ``xopt.lion``, its step, ``xopt.lion_step``, or a rule with hyperparameters, ``xopt.lion.bind(lr=1e-4)``.
    donate
        Whether a step may write the new state over the one passed in, which saves its memory. That state must not be used
        again; the step raises ValueError where it sees that it is. Without it nothing passed in is written.
    compiler
        One of those that the documentation of a library lists for it, such as ``"blocks"`` for NumPy. Default: the best one
        that is installed.

    Returns
    -------
    A function like ``<rule>_step``, with the same arguments, results, checks and errors, for arrays of every library in
    ``xopt.backends.BACKENDS`` that has a compiler. A new shape, library, dtype or form of the state compiles at the first step
    that shows it; other numbers (hyperparameters, the step count) never do. Inside ``jax.jit`` or ``torch.compile``, which
    fuse all that they trace, it is the plain step.

    Raises
    ------
    TypeError
        From ``fuse``: what is no rule. From the step: what the eager step refuses; a library that has no compiler, or leaves of
        several libraries or devices.
    ValueError
        From ``fuse``: a compiler that no library has. From the step: what the eager step refuses; a state that was donated before.
    """
    given, rule = rule, getattr(rule, "rule", rule)
    if not isinstance(rule, Rule) or given is rule.init:
        msg = f"fuse: rule must be a rule or its step, such as xopt.lion or xopt.lion_step, got {given!r}"
        raise TypeError(msg)
    from xopt.backends import BACKENDS  # which import this module

    known = sorted({name for backend in BACKENDS.values() for name in backend.compilers})
    if compiler is not None and compiler not in known:
        msg = f"fuse: unknown compiler {compiler!r}; there are {', '.join(known)}"
        raise ValueError(msg)
    return FusedStep(rule, given.hyper if isinstance(given, Bound | FusedStep) else {}, donate, compiler)


def _device(x: Array) -> Any:
    """Where an array is; in words, where that has no hash, as CuPy's devices have none."""
    found = devices(x)
    return found if found.__hash__ else str(found)


def _torch_traces() -> bool:
    """Whether torch.compile is tracing: its tensors do not show it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.compiler.is_compiling())


def _stepped(work: Work, compiler: str | None) -> Sequence[Sequence[Any]] | None:
    """The new columns, or None where the plain step must take this one."""
    first = work.params[0]
    key = compiler, type(first), _device(first)
    fuser = work.rule.compiled.get(key)
    if fuser is None:
        fuser = work.rule.compiled[key] = _fuser(work, compiler)
    if fuser is _eager:
        return None
    try:
        return fuser(work)
    except UnfitError as error:
        if not work.donate:
            return None
        msg = f"{error}; it cannot be donated, {WAY_OUT}"
        raise TypeError(msg) from None


def _eager(work: Work) -> Any:
    """Stands for the plain step, where a compiler is tracing already."""
    raise NotImplementedError


def _fuser(work: Work, compiler: str | None) -> Fuser:
    """What steps arrays like the first leaf."""
    from xopt.backends import BACKENDS

    first = work.params[0]
    work.typed(0)  # refuses what is no array of real numbers
    backend = next((backend for backend in BACKENDS.values() if backend.owns(first)), None)
    if backend is None or not backend.compilers:
        library = backend.name if backend else type(first).__module__.partition(".")[0]
        able = ", ".join(name for name, b in BACKENDS.items() if b.compilers)
        msg = (
            f"{work.where(0)} is of {library}, which has no compiler; there is one for arrays of {able}. "
            f"{work.rule.name}_step takes it"
        )
        raise TypeError(msg)
    if backend.traces(first):
        return _eager
    if compiler is not None and compiler not in backend.compilers:
        msg = f"{work.where(0)} is of {backend.name}, which {' or '.join(backend.compilers)} compiles, not {compiler}"
        raise ValueError(msg)
    return backend.fuser(work.rule, compiler, first)


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
