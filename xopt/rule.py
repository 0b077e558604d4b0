"""Rule: makes ``<rule>_init`` and ``<rule>_step`` from a state, its coefficients and an update, and lifts them to trees."""

import inspect
import keyword
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_type_hints

import optree

from xopt.arrays import began, is_dense
from xopt.bound import Bound
from xopt.checks import ALSO_CALLED, Interval, as_number, is_no_number, nearest_names, shown
from xopt.operations import Array, is_array, is_known_array, namespace
from xopt.program import record
from xopt.slots import Schema, Slot
from xopt.trees import Tree, flatten_like, is_sequence, is_value, spread
from xopt.typed import Call, Group, TypedRule, is_scalar, refuse_negative

S = TypeVar("S", bound=tuple[Any, ...])
P = ParamSpec("P")


class Rule(Generic[S, P]):
    """One update rule, written once: state, coefficients, update.

    Parameters
    ----------
    name
        As in ``RULES`` and in the names of the two functions.
    state
        A NamedTuple class: ``params``, the slots, ``step``.
    coefficients
        ``coefficients(t, *carried, **hyper)`` returns a NamedTuple of everything that depends on the hyperparameters and the step
        count t = 1, 2, ... alone. Its keyword-only arguments are the rule's hyperparameters: name, range (an ``Annotated``
        Interval) and default, said nowhere else.
    update
        ``update(params, *slots, grad, c)`` returns the new params and slots. Elementwise, pure, array API only.
    memory
        For each array slot, the decay without which it remembers nothing: where that is 0 at init the slot is None for good. A
        sequence of decays makes the slot a tuple of arrays, one each.
    carried
        For each slot that holds a Python number: its first value. ``coefficients`` gets it, ``update`` returns the next one. Its
        range is that of the state's field, where that is an ``Annotated`` Interval.

    Raises
    ------
    LawError
        For an update that breaks a numerics law, with the operation and the way out.
    ValueError
        For a name that is no Python identifier: functions, kernels and files are called by it.

    Attributes
    ----------
    init, step
        The functions ``<name>_init`` and ``<name>_step``.
    defaults
        The hyperparameters and their default values.
    of_init
        Those that decide the form of the state, which alone ``init`` takes.
    program
        What the update does, as a list of operations, where all slots are there.
    """

    def __init__(
        self,
        name: str,
        state: type[S],
        coefficients: Callable[Concatenate[Any, P], Any],
        update: Callable[..., tuple[Array, ...]],
        *,
        memory: Mapping[str, str] | None = None,
        carried: Mapping[str, float] | None = None,
    ) -> None:
        if not name.isidentifier() or keyword.iskeyword(name):
            msg = f"Rule: name must be an identifier such as 'lion', as functions and kernels are called by it; got {name!r}"
            raise ValueError(msg)
        self.name = name
        self.__module__ = update.__module__
        self.state = state
        self.coefficients = coefficients
        self.update = update
        self.memory = dict(memory or {})
        self.carried = dict(carried or {})
        self.slots: tuple[str, ...] = state._fields[1:-1]  # type: ignore[attr-defined]
        parameters = inspect.signature(coefficients).parameters.values()
        hints = get_type_hints(coefficients, include_extras=True)
        self.defaults: dict[str, Any] = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        self.ranges: dict[str, Interval] = {hyper: hints[hyper].__metadata__[0] for hyper in self.defaults}
        self.doc = inspect.cleandoc(sys.modules[update.__module__].__doc__ or "")
        self._step_name = f"{name}_step"  # what its error messages begin with
        fields = get_type_hints(state, include_extras=True)
        self.carried_at = [
            (i, slot, getattr(fields[slot], "__metadata__", (Interval("(-inf, inf)"),))[0])
            for i, slot in enumerate(self.slots)
            if slot in self.carried
        ]
        self.schema = Schema(map(self._slot, self.slots))
        decays = {slot.decay for slot in self.schema}
        self.of_init = [hyper for hyper in self.defaults if hyper.removesuffix("_warmup") in decays]
        self.compiled: dict[Any, Any] = {}  # what backends have made of the rule
        self._typed: dict[Any, TypedRule] = {}
        first: Any = coefficients(1, *self.carried.values(), **self.defaults)  # type: ignore[arg-type]
        self.program = record(self, self.schema.full(self.defaults), first)
        self.init: Callable[Concatenate[Tree, P], S] = _init_function(self)
        self.step: Callable[Concatenate[S, Tree, P], S] = _step_function(self)

    def _slot(self, name: str) -> Slot:
        if name in self.carried:
            return Slot(name, number=self.carried[name])
        decay = self.memory[name]
        return Slot(name, decay, self.ranges[decay].sequence)

    def __repr__(self) -> str:
        return f"<xopt rule {self.name}>"

    def __deepcopy__(self, memo: Any) -> "Rule[S, P]":
        """Itself, as of a function."""
        return self

    def __reduce__(self) -> str:
        """Pickled as a function is: by the name of a variable of its module."""
        names = [name for name, value in vars(sys.modules[self.__module__]).items() if value is self]
        if not names:
            msg = f"{self!r} is no variable of {self.__module__}, by which a pickled rule is found again; make it one"
            raise pickle.PicklingError(msg)
        return names[0]

    def bind(self, **hyper: Any) -> "Bound[S]":
        """The rule with hyperparameters: an object with ``init(params)`` and ``step(state, grad, **changed)``.

        Raises
        ------
        TypeError, ValueError
            For an unknown hyperparameter, and for a number that is none or out of its range.
        """
        return Bound(self, hyper)

    def decay_of(self, slot: str, hyper: Mapping[str, Any]) -> Any:
        """The decay of a slot, or of each of its arrays. One that a warm-up leads to is not 0 yet: None."""
        name = self.memory[slot]
        if hyper.get(f"{name}_warmup"):
            return None
        decay = hyper.get(name, self.defaults[name])
        return tuple(decay) if self.ranges[name].sequence else decay

    def value_of(self, name: str) -> Callable[[Any], bool]:
        """What tells a value of a hyperparameter from a tree of values."""
        return is_sequence if self.ranges[name].sequence else is_value

    def typed(self, call: Call, i: int, params: Any) -> TypedRule:
        """The rule for the type of leaf ``i``. Raises TypeError for what is no array of real floating-point numbers."""
        key = type(params), getattr(params, "dtype", None)
        found = self._typed.get(key)
        if found is None:
            found = self._typed[key] = TypedRule(self, params, call.where("params", i))
            if found.untraced and "_prepared" not in vars(self):  # of the step of a tree, too, the updates alone are traced
                self._prepared = found.untraced(self._prepared)  # type: ignore[method-assign]
                self._step_tree = found.untraced(self._step_tree, recursive=False)  # type: ignore[method-assign]
        return found

    def _step_tree(self, params: Tree, grad: Tree, slots: list[Tree], t: Any, hyper: dict[str, Any]) -> Sequence[Tree]:
        call, leaves = self._prepared(params, grad, slots, t, hyper)
        results = _updated(leaves)
        for i, (typed, leaf, *_) in enumerate(leaves):
            if typed.subclass:
                typed.refuse_promoted(call, i, leaf, results[i][0])
        return list(map(call.spec.unflatten, zip(*results, strict=True)))

    def _prepared(
        self, params: Tree, grad: Tree, slots: list[Tree], t: Any, hyper: dict[str, Any]
    ) -> tuple[Call, list[tuple[Any, ...]]]:
        """Checks all that a step is given. Returns what its updates need, leaf by leaf."""
        self.check_names(self._step_name, hyper)
        leaves, spec = optree.tree_flatten(params)
        _refuse_no_leaves(self._step_name, params, leaves)
        call = Call(self._step_name, t, spec, {})
        grads, *columns = self.flatten(call, grad, slots)
        found = []
        rows = zip(*columns, strict=True) if columns else [()] * len(leaves)
        for i, (leaf, g, old, own) in enumerate(zip(leaves, grads, rows, self.broadcast(call, hyper), strict=True)):
            typed = self.typed(call, i, leaf)
            with typed.beside(leaf):
                found.append((typed, leaf, g, old, *typed.prepare_leaf(call, i, leaf, g, old, own)))
        return call, found

    def flatten(self, call: Call, grad: Tree, slots: Sequence[Tree]) -> list[list[Any]]:
        """The leaves of the gradient and of each slot, whose trees must be that of params."""
        names = "grad", *(f"state.{slot}" for slot in self.slots)
        return [flatten_like(call.function, call.spec, name, tree) for name, tree in zip(names, (grad, *slots), strict=True)]

    def unpack(self, state: Any) -> tuple[Tree, list[Tree], Any]:
        """The params and slots of a state, and the count t of the step that it is about to take."""
        if type(state) is not self.state:
            raise TypeError(self._no_state(state))
        params, *slots, count = state
        return params, slots, count + 1 if type(count) is int and count >= 0 else _next_count(self._step_name, count)

    def _no_state(self, given: Any) -> str:
        """Why what was given is not a state of this rule."""
        own, other = self.state, type(given)
        msg = f"{self._step_name}: state must be the {own.__name__} that {self.name}_init returns, got a {other.__name__}"
        if (own.__module__, own.__name__) == (other.__module__, other.__name__):
            msg += f" of an earlier import of {own.__module__}; make one of this: {own.__name__}(*state)"
        return msg

    def check_names(self, function: str, hyper: Iterable[str]) -> None:
        """Raises TypeError for a hyperparameter that the rule does not have, with what may be meant."""
        for name in hyper:
            if name not in self.defaults:
                msg = f"{function}: unknown hyperparameter {name!r}; {self._meant(name)}"
                raise TypeError(msg)

    def _meant(self, name: str) -> str:
        known = tuple(self.defaults)
        nearest = nearest_names(name, known)
        if nearest:
            return f"did you mean {' and '.join(nearest)}?"
        takes = f"it takes {', '.join(known)}"
        for wanted in {name, *ALSO_CALLED.get(name, ())}:
            others = [rule for rule in sys.modules["xopt"].RULES.values() if {*known, wanted} <= {*rule.defaults}]
            if others:
                nearest_rule = min(others, key=lambda rule: len(rule.defaults))
                has = f"which has {wanted}" if wanted != name else "which has it"
                return f"{takes}; there is {nearest_rule.name}, {has}"
        return takes

    def broadcast(self, call: Call, hyper: dict[str, Any]) -> list[dict[str, Any]]:
        """The hyperparameters of each leaf: the same dict for all, unless one of them is a tree that is a prefix of params.

        Leaves to which the trees give the same numbers share one dict.
        """
        spec = call.spec
        columns = {
            name: spread(call.function, name, value, spec, self.value_of(name))
            for name, value in hyper.items()
            if not self.value_of(name)(value)
        }
        if not columns:
            return [hyper] * spec.num_leaves
        keys = list(zip(*[[x if type(x) is float else id(x) for x in column] for column in columns.values()], strict=True))
        groups: dict[Any, Group] = {}
        for i, key in enumerate(keys):
            if key not in groups:
                groups[key] = Group(hyper, {name: column[i] for name, column in columns.items()}, spec, i)
        return [groups[key] for key in keys]


def _updated(leaves: Sequence[tuple[Any, ...]]) -> list[Sequence[Any]]:
    """The new params and slots of prepared leaves: all that a compiler sees, in one piece."""
    return [typed.updated(*leaf) for typed, *leaf in leaves]


def _next_count(function: str, count: Any) -> Any:
    """The count after a step count that is no Python int: an int for one of NumPy, else an array, which may be traced.

    Raises TypeError for what is no count: nothing is truncated, broadcast, or counted in a dtype that soon ends.
    """
    if isinstance(count, Integral) and not is_no_number(count):
        refuse_negative(function, int(count))
        return int(count) + 1
    if hasattr(type(count), "__array_interface__"):
        # NumPy's: asked for more than this, torch.compile takes it for a tensor of its own
        if count.ndim == 0 and count.dtype.kind in "iu":
            return _next_count(function, int(count))
    elif is_scalar(count, "integral"):
        xp = namespace(count)
        if xp.iinfo(count.dtype).max >= 2**31 - 1:
            return xp.maximum(count + 1, count)  # at its end it stays there: the sum is negative, or 0
        if as_number(count) is not None:
            return _next_count(function, int(count))
    what = f"{function}: state.step must be an int or a 0-d array of integers of 32 bits or more, got {shown(count)}"
    hint = "; a state that a vmapped init has made is for a vmapped step" if is_array(count) and count.ndim else ""
    raise TypeError(what + hint)


def _refuse_no_leaves(function: str, params: Tree, leaves: Sequence[Any]) -> None:
    """Raises where there is nothing to step: TypeError for None, ValueError for a tree without leaves."""
    if params is None:
        msg = f"{function}: params must be an array or a tree of arrays, got None"
        raise TypeError(msg)
    if not leaves:
        msg = f"{function}: params must be a tree of at least one array, got {shown(params)}"
        raise ValueError(msg)


def _init_function(rule: Rule[Any, Any]) -> Any:
    function = f"{rule.name}_init"

    def init(params: Tree, **hyper: Any) -> Any:
        rule.check_names(function, hyper)
        leaves, spec = optree.tree_flatten(params)
        _refuse_no_leaves(function, params, leaves)
        call = Call(function, spec=spec)
        own = rule.broadcast(call, hyper)
        slots = []
        for i, leaf in enumerate(leaves):
            typed = rule.typed(call, i, leaf)
            typed.check_hyper(function, own[i])
            if not is_dense(leaf):
                typed.refuse(call, i, "params", leaf, leaf, typed.dtype)
            with typed.beside(leaf):
                slots.append([typed.fresh(slot, leaf, rule.defaults | own[i]) for slot in rule.slots])
        for name in hyper:  # which is right in itself
            if name not in rule.of_init:
                takes = f"takes {', '.join(rule.of_init)}" if rule.of_init else "takes none"
                msg = f"{function}: {name} belongs to {rule.name}_step, and init {takes}; {rule.name}.bind({name}=...) serves both"
                raise TypeError(msg)
        began(leaves[0])
        return rule.state._make([params, *map(spec.unflatten, zip(*slots, strict=True)), 0])

    _document(init, rule, function, ["params"], _INIT_DOC)
    return init


_call = tuple.__new__
"""Of a NamedTuple without its own ``__new__``, which takes a twentieth of a small step."""


def _step_function(rule: Rule[Any, Any]) -> Any:
    function = f"{rule.name}_step"
    state_type: Any = rule.state
    typed_rules = rule._typed

    def step(state: Any, grad: Tree, **hyper: Any) -> Any:
        params, slots, t = rule.unpack(state)
        if is_known_array(params):  # a tree of one leaf; not asking optree saves a tenth of a small step
            call = _call(Call, (function, t, None, None))
            typed = typed_rules.get((type(params), params.dtype)) or rule.typed(call, 0, params)
            new = typed.step(call, params, grad, slots, hyper)
        else:
            new = rule._step_tree(params, grad, slots, t, hyper)
        return state_type(*new, t)

    _document(step, rule, function, ["state", "grad"], _STEP_DOC)
    return step


def _document(function: Any, rule: Rule[Any, Any], name: str, positional: list[str], doc: str) -> None:
    """Gives ``function`` its public name, the rule's own signature, so that ``help`` shows it, and its documentation."""
    taken = rule.of_init if doc is _INIT_DOC else rule.defaults
    hyper = [p for p in inspect.signature(rule.coefficients).parameters.values() if p.name in taken]
    function.__name__ = function.__qualname__ = name
    function.__module__ = "xopt" if rule.__module__.startswith("xopt.") else rule.__module__
    function.__signature__ = inspect.Signature(
        [inspect.Parameter(p, inspect.Parameter.POSITIONAL_OR_KEYWORD) for p in positional]
        + [p.replace(annotation=p.empty) for p in hyper],
    )
    ranges = "\n".join(f"{p.name} : in {rule.ranges[p.name].text}, default {p.default!r}" for p in hyper) or "None."
    function.__doc__ = doc.format(rule=rule.name, state=rule.state.__name__, hyper=ranges, doc=rule.doc)
    function.rule = rule


_HYPER_DOC = """\
Hyperparameters
---------------
Each is a number, a 0-d array, or a tree that is a prefix of ``params``, which makes parameter groups of its leaves.

{hyper}

Raises
------
TypeError
    An argument of the wrong kind: another library or dtype (nothing is promoted), integer, bool or complex parameters, the state
    of another rule, an unknown hyperparameter.
ValueError
    A shape, tree or device that does not match (nothing is broadcast); a hyperparameter that is NaN or out of its range, in
    float64 or once rounded to the dtype of the arithmetic.

The rule
--------
{doc}
"""

_INIT_DOC = (
    """The state of ``{rule}`` before its first step.

Parameters
----------
params
    An array or a tree of arrays of real floating-point numbers, any shape, any array API library. Kept as it is, never written to.

Returns
-------
{state}
    ``params``; the slots, zeros in the dtype of the arithmetic: float32, or that of ``params`` where it is wider; ``step`` 0.
    Only the hyperparameters that decide the state's shape matter here: a decay of 0 keeps no memory, so that its slot is None.

"""
    + _HYPER_DOC
)

_STEP_DOC = (
    """One step of ``{rule}``: the state after the gradient ``grad``.

Parameters
----------
state
    From ``{rule}_init`` or the step before. Never written to.
grad
    Like ``state.params``: same tree, shapes, dtypes, device. Never written to. A NaN or infinity in it reaches the same element of
    the state by IEEE rules, and no other element.

Returns
-------
{state}
    The new state, in new arrays. float16 and bfloat16 parameters are updated in float32 and rounded once, when they are stored: a
    change below half a unit in their last place is lost.

"""
    + _HYPER_DOC
)
