"""Rule: makes ``<rule>_init`` and ``<rule>_step`` from a state, its coefficients and an update, and lifts them to trees."""

import inspect
import keyword
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, get_type_hints, overload

from xopt.arrays import began, beside, is_dense
from xopt.bound import Bound, NoTransformation
from xopt.checks import ALSO_CALLED, DOUBLE, Interval, check_hyper, nearest_names, shown
from xopt.counts import Counts, following
from xopt.documentation import document, meanings, of_rule
from xopt.operations import Array, is_known_array
from xopt.program import record
from xopt.slots import Schema, Slot
from xopt.trees import Tree, flatten, flatten_like, is_sequence, is_value, spread
from xopt.typed import MOST_STEPS, Call, Group, TypedRule

S = TypeVar("S", bound=tuple[Any, ...])
P = ParamSpec("P")


class Rule(NoTransformation, Generic[S, P]):
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
        Interval) and default, said nowhere else. Its docstring says what they mean, one a line, ``name: range. Meaning``: editors
        show it with the signature of the step.
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
    elementwise
        The ``update`` of one leaf.
    bind
        ``bind(**hyper)`` is the rule with hyperparameters of its own: an object with ``init`` and ``step``.
    defaults, ranges, meanings
        For each hyperparameter its default value, its ``Interval``, and what it means.
    of_init
        Those that decide the form of the state, which alone ``init`` takes.
    program
        What the update does, as a list of operations, for a leaf that has all slots.
    """

    @overload
    def __init__(
        self,
        name: str,
        state: type[S],
        coefficients: Callable[Concatenate[Any, P], Any],
        update: Callable[..., tuple[Array, ...]],
        *,
        memory: Mapping[str, str] | None = None,
        carried: None = None,
    ) -> None: ...
    @overload  # one number is carried
    def __init__(
        self,
        name: str,
        state: type[S],
        coefficients: Callable[Concatenate[Any, Any, P], Any],
        update: Callable[..., tuple[Array, ...]],
        *,
        memory: Mapping[str, str] | None = None,
        carried: Mapping[str, float],
    ) -> None: ...
    def __init__(
        self,
        name: str,
        state: type[S],
        coefficients: Callable[..., Any],
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
        self.elementwise = update
        self.memory = dict(memory or {})
        self.carried = dict(carried or {})
        self.slots: tuple[str, ...] = state._fields[1:-1]  # type: ignore[attr-defined]
        parameters = inspect.signature(coefficients).parameters.values()
        hints = get_type_hints(coefficients, include_extras=True)
        self.defaults: dict[str, Any] = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        self.ranges: dict[str, Interval] = {hyper: hints[hyper].__metadata__[0] for hyper in self.defaults}
        self.meanings = meanings(coefficients)
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
        first: Any = coefficients(1, *self.carried.values(), **self.defaults)
        self.program = record(self, self.schema.full(self.defaults), first)
        of_state: Any = state
        of_state._rules = [*vars(state).get("_rules", ()), self]  # a name that no field of a NamedTuple can have
        self._init = _init_function(self)
        self.step = _step_function(self)  # type: ignore[method-assign]
        self.bind = _bind_function(self)  # type: ignore[method-assign]
        self.__doc__ = of_rule(self)

    if TYPE_CHECKING:  # methods, so that editors and type checkers see names; there these show the docstring of ``coefficients``

        def init(self, params: Tree, *_: P.args, **hyper: P.kwargs) -> S: ...

        def step(self, state: S, grad: Tree, *_: P.args, **hyper: P.kwargs) -> S: ...

        def bind(self, *_: P.args, **hyper: P.kwargs) -> Bound[S, P]: ...

    else:

        @property
        def init(self) -> Any:
            self._refuse_optax()
            return self._init

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
            if found.disable and "_prepared" not in vars(self):  # of the step of a tree, too, the updates alone are traced
                self._prepared = found.disable(self._prepared)  # type: ignore[method-assign]
                self._step_tree = found.disable(self._step_tree, recursive=False)  # type: ignore[method-assign]
        return found

    def _step_tree(self, state: Any, grad: Tree, t: Any, hyper: dict[str, Any]) -> tuple[Sequence[Tree], Tree]:
        """The new params and slots, and the new step count."""
        call, rows, count, prepared = self._prepared(state, grad, t, hyper)
        for (i, typed, leaf, *_), new in zip(prepared, _updated(prepared), strict=True):
            if typed.subclass:
                typed.refuse_promoted(call, i, leaf, new[0])
            rows[i] = new
        return list(map(call.spec.unflatten, zip(*rows, strict=True))), count

    def _prepared(
        self, state: Any, grad: Tree, t: Any, hyper: dict[str, Any]
    ) -> tuple[Call, list[Sequence[Any]], Tree, list[tuple[Any, ...]]]:
        """Checks all that a step is given.

        Returns the params and slots of each leaf, the new step count or counts, and what the update of each leaf needs that has a
        gradient.
        """
        params, *slots, _ = state
        self.check_names(self._step_name, hyper)
        leaves, spec = flatten(params)
        _refuse_no_leaves(self._step_name, params, leaves)
        grads, *columns = self.flatten(Call(self._step_name, spec=spec), grad, slots)
        call, counts = self.counted(Call(self._step_name, t, spec, {}))
        rows: list[Sequence[Any]] = list(zip(leaves, *columns, strict=True))
        prepared = []
        for i, ((leaf, *old), g, own) in enumerate(zip(rows, grads, self.broadcast(call, hyper, counts), strict=True)):
            if g is not None:
                typed = self.typed(call, i, leaf)
                with beside(leaf):
                    prepared.append((i, typed, leaf, g, old, *typed.prepare_leaf(call, i, leaf, g, old, own)))
        return call, rows, self.step_after(state, call, counts, [g is not None for g in grads]), prepared

    def counted(self, call: Call) -> tuple[Call, list[Any] | None]:
        """A call in which all leaves have one count where they can; else the count of the step that each takes."""
        if not isinstance(call.t, Counts):
            return call, None
        counts = call.t.following(call.spec)
        one = set(map(type, counts)) == {int} and len(set(counts)) == 1
        return (call._replace(t=counts[0]), None) if one else (call._replace(t=None), counts)

    def step_after(self, state: Any, call: Call, counts: list[Any] | None, stepped: list[bool]) -> Tree:
        """``state.step`` after a step of some of the leaves."""
        if type(call.t) is int and type(state.step) is int and all(stepped):
            return call.t
        return Counts(self._step_name, state.step).after(call.spec, counts or [call.t] * len(stepped), stepped)

    def flatten(self, call: Call, grad: Tree, slots: Sequence[Tree]) -> list[list[Any]]:
        """The leaves of the gradient and of each slot, whose trees must be that of params."""
        names = "grad", *(f"state.{slot}" for slot in self.slots)
        return [flatten_like(call.function, call.spec, name, tree) for name, tree in zip(names, (grad, *slots), strict=True)]

    def unpack(self, state: Any) -> tuple[Tree, list[Tree], Any]:
        """The params and slots of a state, and the count t of the step that it is about to take, or Counts of leaves."""
        if type(state) is not self.state:
            raise TypeError(self._no_state(state))
        params, *slots, count = state
        return params, slots, count + 1 if type(count) is int and 0 <= count <= MOST_STEPS else self._following(params, count)

    def _following(self, params: Tree, count: Any) -> Any:
        # what an array is to is_array, and what a tree is to optree, torch.compile cannot trace
        if isinstance(count, Integral) or hasattr(type(count), "ndim") or is_value(count) or is_value(params):
            return following(f"{self._step_name}: state.step", count)
        return Counts(self._step_name, count)

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

    def check_hyper(self, function: str, hyper: Mapping[str, Any]) -> None:
        """Raises for an unknown hyperparameter, and for what is no number or out of range; those of a tree wait for leaves."""
        self.check_names(function, hyper)
        for name, value in hyper.items():
            if self.value_of(name)(value):
                check_hyper(function, name, value, self.ranges[name], DOUBLE)

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

    def broadcast(self, call: Call, hyper: dict[str, Any], counts: list[Any] | None = None) -> list[dict[str, Any]]:
        """The hyperparameters of each leaf: the same dict for all, unless one of them is a tree that is a prefix of params.

        Leaves to which the trees give the same numbers, and which have the same count, where counts differ, share one dict.
        """
        spec = call.spec
        columns = {
            name: spread(call.function, name, value, spec, self.value_of(name))
            for name, value in hyper.items()
            if not self.value_of(name)(value)
        }
        if not columns and counts is None:
            return [hyper] * spec.num_leaves
        ts = counts or [call.t] * spec.num_leaves
        given = ts, *columns.values()
        keys = list(zip(*[[x if type(x) in (float, int) else id(x) for x in column] for column in given], strict=True))
        groups: dict[Any, Group] = {}
        for i, key in enumerate(keys):
            if key not in groups:
                groups[key] = Group(hyper, {name: column[i] for name, column in columns.items()}, spec, i, ts[i])
        return [groups[key] for key in keys]


def rule_of(function: str, state: Any) -> Rule[Any, Any]:
    """The rule that a state is of. Raises TypeError where there is none, or where rules with other slots share its class."""
    rules: list[Rule[Any, Any]] = vars(type(state)).get("_rules", [])
    if not rules:
        msg = f"{function}: state must be the state of a rule, such as xopt.adamw_init returns, got {shown(state)}"
        raise TypeError(msg)
    if any(list(rule.schema) != list(rules[0].schema) for rule in rules):
        names = ", ".join(rule.name for rule in rules)
        msg = f"{function}: {type(state).__name__} is the state of several rules with other slots, {names}; give each a class"
        raise TypeError(msg)
    return rules[0]


def rule_given(function: str, given: Any) -> Rule[Any, Any]:
    """The rule that a rule is, or of which a step, a bound rule or a fused step is. Raises TypeError for what is none of these."""
    rule = getattr(given, "rule", given)
    if not isinstance(rule, Rule) or given is rule.init or given is rule.bind:
        msg = f"{function}: rule must be a rule or its step, such as xopt.lion or xopt.lion_step, got {given!r}"
        raise TypeError(msg)
    return rule


def _updated(leaves: Sequence[tuple[Any, ...]]) -> list[Sequence[Any]]:
    """The new params and slots of prepared leaves: all that a compiler sees, in one piece."""
    return [typed.updated(*leaf) for _, typed, *leaf in leaves]


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
        leaves, spec = flatten(params)
        _refuse_no_leaves(function, params, leaves)
        call = Call(function, spec=spec)
        own = rule.broadcast(call, hyper)
        slots = []
        for i, leaf in enumerate(leaves):
            typed = rule.typed(call, i, leaf)
            typed.check_hyper(function, own[i])
            typed.refuse_narrowed(call, i)
            if not is_dense(leaf):
                typed.refuse(call, i, "params", leaf, leaf, typed.dtype)
            with beside(leaf):
                slots.append([typed.fresh(slot, leaf, rule.defaults | own[i]) for slot in rule.slots])
        for name in hyper:  # which is right in itself
            if name not in rule.of_init:
                takes = f"takes {', '.join(rule.of_init)}" if rule.of_init else "takes none"
                msg = f"{function}: {name} belongs to {rule.name}_step, and init {takes}; {rule.name}.bind({name}=...) serves both"
                raise TypeError(msg)
        began(leaves[0])
        return rule.state._make([params, *map(spec.unflatten, zip(*slots, strict=True)), 0])

    document(init, rule, "{rule}_init", rule.of_init)
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
            if grad is None:
                return state
            call = _call(Call, (function, t, None, None))
            typed = typed_rules.get((type(params), params.dtype)) or rule.typed(call, 0, params)
            return state_type(*typed.step(call, params, grad, slots, hyper), t)
        new, count = rule._step_tree(state, grad, t, hyper)
        return state_type(*new, count)

    document(step, rule, "{rule}_step", rule.defaults)
    return step


def _bind_function(rule: Rule[Any, Any]) -> Any:
    def bind(**hyper: Any) -> Any:
        return Bound(rule, hyper)

    document(bind, rule, "{rule}.bind", rule.defaults)
    return bind
