"""Rule: makes ``<rule>_init`` and ``<rule>_step`` from a state, its coefficients and an update, and lifts them to trees."""

import inspect
import keyword
import sys
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, get_type_hints

import optree

from xopt.checks import DOUBLE, Interval, as_number, check_hyper, check_names, is_no_number, shown
from xopt.leaves import (
    Kind,
    Tree,
    beside,
    flatten_like,
    is_dense,
    is_shared,
    kept_narrow,
    kind_of,
    lifted,
    matches,
    meets,
    number_of,
    path_of,
    placed,
    refuse,
    refuse_promoted,
    spread,
    stored,
)
from xopt.operations import Array, has_dtype, is_array, is_known_array, namespace

S = TypeVar("S", bound=tuple[Any, ...])
P = ParamSpec("P")


_NOT_ARRAYS = (float, tuple, type(None))


class Group(dict[str, Any]):
    """The hyperparameters of some leaves, where one at least is a tree that gives others to other leaves."""

    def __init__(self, hyper: dict[str, Any], own: dict[str, Any], spec: optree.PyTreeSpec, leaf: int) -> None:
        super().__init__(hyper | own)
        self._own = frozenset(own)
        self._place = spec, leaf  # the first of the leaves

    def label(self, name: str) -> str:
        """A hyperparameter as it was given: with its leaf, where it comes from a tree."""
        return name + path_of(*self._place) if name in self._own else name


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
    ValueError
        For a name that is no Python identifier: functions, kernels and files are called by it.

    Attributes
    ----------
    init, step
        The functions ``<name>_init`` and ``<name>_step``.
    defaults
        The hyperparameters and their default values.
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
        self.compiled: dict[Any, Any] = {}  # what backends have made of the rule
        self._kinds: dict[Any, Kind] = {}
        self.init: Callable[Concatenate[Tree, P], S] = _init_function(self)
        self.step: Callable[Concatenate[S, Tree, P], S] = _step_function(self)

    def __repr__(self) -> str:
        return f"<xopt rule {self.name}>"

    def __deepcopy__(self, memo: Any) -> "Rule[S, P]":
        """Itself, as of a function."""
        return self

    def _fresh(self, slot: str, leaf: Array, kind: Kind, hyper: Mapping[str, Any]) -> Any:
        """The first value of one leaf's slot."""
        if slot in self.carried:
            return self.carried[slot]

        def zeros(decay: Any) -> Array | None:
            return None if as_number(decay) == 0 else kind.xp.zeros_like(leaf, dtype=kind.compute)

        decay = self._decay(slot, hyper)
        return tuple(map(zeros, decay)) if isinstance(decay, tuple) else zeros(decay)

    def _decay(self, slot: str, hyper: Mapping[str, Any]) -> Any:
        """The decay of a slot, or of each of its arrays. One that a warm-up leads to is not 0 yet: None."""
        name = self.memory[slot]
        if hyper.get(f"{name}_warmup"):
            return None
        decay = hyper.get(name, self.defaults[name])
        return tuple(decay) if self.ranges[name].sequence else decay

    def _step_tree(self, params: Tree, grad: Tree, slots: list[Tree], t: Any, hyper: dict[str, Any]) -> Sequence[Tree]:
        check_names(self._step_name, hyper, tuple(self.defaults))
        leaves, spec = optree.tree_flatten(params)
        columns = self.flatten(spec, grad, slots)
        own = self.broadcast(self._step_name, hyper, spec)
        known: dict[Any, Any] = {}
        results = [
            self._step_leaf(leaf, g, old, t, own[i], known, spec, i)
            for i, (leaf, g, *old) in enumerate(zip(leaves, *columns, strict=True))
        ]
        if not results:
            return [spec.unflatten([]) for _ in range(1 + len(slots))]
        return [spec.unflatten(column) for column in zip(*results, strict=True)]

    def flatten(self, spec: optree.PyTreeSpec, grad: Tree, slots: Sequence[Tree]) -> list[list[Any]]:
        """The leaves of the gradient and of each slot, whose trees must be that of params."""
        names = "grad", *(f"state.{slot}" for slot in self.slots)
        return [flatten_like(self._step_name, spec, name, tree) for name, tree in zip(names, (grad, *slots), strict=True)]

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

    def _step_leaf(
        self,
        params: Array,
        grad: Array,
        slots: Sequence[Any],
        t: Any,
        hyper: dict[str, Any],
        known: dict[Any, Any] | None = None,  # coefficients of the leaves before, by what they depend on
        spec: optree.PyTreeSpec | None = None,
        i: int = 0,
    ) -> Sequence[Any]:
        kind = self._kinds.get((type(params), params.dtype)) if is_known_array(params) else None
        if kind is None:
            kind = self.kind(self._step_name, params, spec, i)
        if kind.current is not None and kind.current() != params.device:
            with params.device:
                return self._step_leaf(params, grad, slots, t, hyper, known, spec, i)
        c, ordinary = kind.prepare(self, kind, params, grad, slots, t, hyper, known, spec, i)
        if not ordinary and kind.shards:
            grad = placed(params, grad)
        if kind.cast:
            new = self.update(kind.xp.astype(params, kind.compute), *slots, kind.xp.astype(grad, kind.compute), c)
            new = (kind.xp.astype(new[0], kind.dtype), *new[1:])
        else:
            new = self.update(params, *slots, grad, c)
        if ordinary:
            return new
        if kind.subclass:
            refuse_promoted(f"{self._step_name}: params{path_of(spec, i)}", new[0], params, kind)
        if kind.shards:
            new = tuple(map(placed, (params, *slots), new))
        xp = kind.xp if not params.ndim and kind.numbers is not None else None  # NumPy makes scalars of them
        kept = [x if name in self.carried else stored(old, x, xp) for name, old, x in zip(self.slots, slots, new[1:], strict=True)]
        return [xp.asarray(new[0], dtype=kind.dtype) if xp else new[0], *kept]

    def _prepare(
        self,
        kind: Kind,
        params: Array,
        grad: Array,
        slots: Sequence[Any],
        t: Any,
        hyper: dict[str, Any],
        known: dict[Any, Any] | None,
        spec: optree.PyTreeSpec | None,
        i: int,
    ) -> tuple[Any, bool]:
        """Checks one leaf's arguments. Returns its coefficients, and whether its results are the new state as they are."""
        carried = self.carried_numbers(kind, slots, spec, i) if self.carried_at else ()
        if known is None:
            c = self._evaluate(t, carried, hyper, kind, params)
        else:
            key = (id(kind), id(hyper), *(x if type(x) is float else id(x) for x in carried))
            c = known.get(key)
            if c is None:
                c = known[key] = self._evaluate(t, carried, hyper, kind, params)
        return c, self.check_leaf(kind, params, grad, slots, hyper, spec, i)

    def carried_numbers(self, kind: Kind, slots: Sequence[Any], spec: optree.PyTreeSpec | None, i: int) -> list[Any]:
        """The numbers that the state carries of leaf ``i``, checked: floats, or 0-d arrays of the library of its params."""
        found = []
        for at, slot, interval in self.carried_at:
            low, high = interval.usable(DOUBLE)
            x = slots[at]
            found.append(x if type(x) is float and low <= x <= high else self._carried(kind, slot, x, interval, spec, i))
        return found

    def _carried(self, kind: Kind, slot: str, value: Any, interval: Interval, spec: optree.PyTreeSpec | None, i: int) -> Any:
        where = f"{self._step_name}: state.{slot}{path_of(spec, i)}"
        number = as_number(value)
        if is_array(value) and namespace(value) is kind.xp and kind.numbers is None:  # it may be traced
            if (
                _is_scalar(value, "real floating")
                and kind.xp.finfo(value.dtype).bits >= 32
                and (number is None or number in interval)
            ):
                return value
        elif number is not None and number in interval:
            return number
        if number is not None and number not in interval:
            msg = f"{where} must be in {interval.text}, got {shown(value)}"
            raise ValueError(msg)
        what = f"a number or a 0-d array of 32 bits or more, as {self.name}_init and each step give it"
        msg = f"{where} must be {what}, got {shown(value)}"
        raise TypeError(msg)

    def check_leaf(
        self,
        kind: Kind,
        params: Array,
        grad: Array,
        slots: Sequence[Any],
        hyper: dict[str, Any],
        spec: optree.PyTreeSpec | None,
        i: int,
    ) -> bool:
        """Checks that gradient and slots of leaf ``i`` go with its params. Returns whether the results are all that there is to do.

        ``hyper`` has been through ``host_coefficients``, which checks the numbers in it.
        """
        ordinary: bool = params.ndim > 0 and not kind.subclass
        if kind.shards and ordinary:
            ordinary = not is_shared(params)
        if not kind.one_device and not is_dense(params):
            refuse(self._step_name, "params", params, params, kind, kind.dtype, spec, i)
        if not matches(grad, params, kind, kind.dtype):
            refuse(self._step_name, "grad", grad, params, kind, kind.dtype, spec, i)
        for at, slot in enumerate(slots):
            if type(slot) in _NOT_ARRAYS or not matches(slot, params, kind, kind.compute):
                self._check_slot(self.slots[at], slot, params, kind, hyper, spec, i)
                ordinary = False
        return ordinary

    def _check_slot(
        self, name: str, slot: Any, params: Array, kind: Kind, hyper: Mapping[str, Any], spec: optree.PyTreeSpec | None, i: int
    ) -> None:
        """Checks a slot that is not simply an array like ``params``: None, a tuple, a number, or an error."""
        if name in self.carried:
            return
        decay = self._decay(name, hyper)
        pairs = [(slot, decay)]
        if isinstance(decay, tuple):
            if not isinstance(slot, tuple) or len(slot) != len(decay):
                have = len(slot) if isinstance(slot, tuple) else shown(slot)
                given = f"{self.memory[name]}={decay!r} needs {len(decay)}"
                msg = f"{self._step_name}: state.{name}{path_of(spec, i)} has {have} buffers but {given}; give init the same"
                raise ValueError(msg)
            pairs = list(zip(slot, decay, strict=True))
        for one, beta in pairs:
            if one is None:
                if beta is None or (beta != 0.0 and as_number(beta) is not None):
                    given = f"{self.memory[name]}={decay!r}" if decay is not None else f"{self.memory[name]}_warmup is on"
                    where = f"{self._step_name}: state.{name}{path_of(spec, i)}"
                    msg = f"{where} is None, which remembers nothing, but {given}; give init the same"
                    raise ValueError(msg)
            elif not matches(one, params, kind, kind.compute):
                refuse(self._step_name, f"state.{name}", one, params, kind, kind.compute, spec, i)

    def broadcast(self, function: str, hyper: dict[str, Any], spec: optree.PyTreeSpec) -> list[dict[str, Any]]:
        """The hyperparameters of each leaf: the same dict for all, unless one of them is a tree that is a prefix of params.

        Leaves to which the trees give the same numbers share one dict.
        """
        trees = {
            name: value
            for name, value in hyper.items()
            if not self.ranges[name].sequence and value is not None and not optree.tree_is_leaf(value)
        }
        if not spec.num_leaves:  # no dtype to check the values for; float64 holds the most
            for name in hyper.keys() - trees.keys():
                check_hyper(function, name, hyper[name], self.ranges[name], DOUBLE)
        columns = {name: spread(function, name, value, spec) for name, value in trees.items()}
        if not columns:
            return [hyper] * spec.num_leaves
        keys = list(zip(*[[x if type(x) is float else id(x) for x in column] for column in columns.values()], strict=True))
        groups: dict[Any, Group] = {}
        for i, key in enumerate(keys):
            if key not in groups:
                groups[key] = Group(hyper, {name: column[i] for name, column in columns.items()}, spec, i)
        return [groups[key] for key in keys]

    def host_coefficients(self, t: Any, carried: Sequence[Any], hyper: dict[str, Any], kind: Kind) -> tuple[Any, bool]:
        """The coefficients of step ``t``, and whether they are Python numbers: float64, for the kind's dtype to round once.

        Checks the hyperparameters and makes each number in ``hyper`` a float.
        """
        plain = self._ready(self._step_name, hyper, kind) if hyper else True
        if type(t) is not int:
            known = as_number(t)
            t = kind.xp.astype(kind.xp.asarray(t), kind.compute) if known is None else int(t)
            _refuse_negative(self._step_name, t - 1 if known is not None else 0)
        plain = plain and type(t) is int
        if carried:
            plain = plain and all(type(x) is float for x in carried)
        return self.coefficients(t, *carried, **hyper), plain

    def _evaluate(self, t: Any, carried: Sequence[Any], hyper: dict[str, Any], kind: Kind, params: Array) -> Any:
        """The coefficients, ready to meet arrays of this kind: Python numbers, or 0-d arrays in the dtype of the arithmetic."""
        c, plain = self.host_coefficients(t, carried, hyper, kind)
        if not plain:
            for name, value in hyper.items():
                if is_array(value) and not meets(value, params, kind):
                    where = f"{self._step_name}: {_label(hyper, name)}"
                    msg = f"{where} is on device {value.device} but params on {params.device}; move it, or pass a number"
                    raise ValueError(msg)
            return c._make([lifted(value, kind) for value in c])
        if kind.numbers is None:
            return c if kind.current is None else c._make([kept_narrow(value, kind) for value in c])
        ready = c._make([kind.numbers[x] for x in c])
        return ready._replace(**{name: getattr(c, name) for name in self.carried}) if carried else ready

    def _ready(self, function: str, hyper: dict[str, Any], kind: Kind) -> bool:
        """Checks the given hyperparameters and makes each number a float. Whether all of them are plain numbers now."""
        plain = True
        for name, value in hyper.items():
            if type(value) is float and name in kind.ranges:
                low, high = kind.ranges[name]
                if low <= value <= high:
                    if value == 0.0:
                        hyper[name] = 0.0  # and not -0.0
                    continue
            check_names(function, (name,), tuple(self.defaults))
            check_hyper(function, _label(hyper, name), value, self.ranges[name], kind.precision)
            if value is None:
                continue
            if self.ranges[name].sequence:
                hyper[name] = tuple(number_of(item, kind) for item in value)
                plain = plain and all(type(item) is float for item in hyper[name])
            else:
                hyper[name] = number_of(value, kind)
                plain = plain and type(hyper[name]) is float
        return plain

    def kind(self, function: str, params: Any, spec: optree.PyTreeSpec | None, i: int) -> Kind:
        """The kind of a parameter. Raises TypeError for what is no array of real floating-point numbers."""
        key = (type(params), getattr(params, "dtype", None))
        kind = self._kinds.get(key)
        if kind is None:
            where = f"{function}: params{path_of(spec, i)}"
            kind = self._kinds[key] = kind_of(where, params, self.ranges, Rule._prepare)
        return kind


def _label(hyper: dict[str, Any], name: str) -> str:
    return hyper.label(name) if isinstance(hyper, Group) else name


def _next_count(function: str, count: Any) -> Any:
    """The count after a step count that is no Python int: an int for one of NumPy, else an array, which may be traced.

    Raises TypeError for what is no count: nothing is truncated, broadcast, or counted in a dtype that soon ends.
    """
    if isinstance(count, Integral) and not is_no_number(count):
        _refuse_negative(function, int(count))
        return int(count) + 1
    if hasattr(type(count), "__array_interface__"):
        # NumPy's: asked for more than this, torch.compile takes it for a tensor of its own
        if count.ndim == 0 and count.dtype.kind in "iu":
            return _next_count(function, int(count))
    elif _is_scalar(count, "integral"):
        xp = namespace(count)
        if xp.iinfo(count.dtype).bits >= 32:
            return xp.maximum(count + 1, count)  # at its end it stays there: the sum is negative, or 0
        if as_number(count) is not None:
            return _next_count(function, int(count))
    what = f"{function}: state.step must be an int or a 0-d array of integers of 32 bits or more, got {shown(count)}"
    hint = "; a state that a vmapped init has made is for a vmapped step" if is_array(count) and count.ndim else ""
    raise TypeError(what + hint)


def _refuse_negative(function: str, count: int) -> None:
    if count < 0:
        msg = f"{function}: state.step must be 0 or more, got {count}"
        raise ValueError(msg)


def _is_scalar(x: Any, kind: str) -> bool:
    """Whether ``x`` is a 0-d array of this kind of numbers."""
    return is_array(x) and x.ndim == 0 and has_dtype(x, kind)


def _init_function(rule: Rule[Any, Any]) -> Any:
    function = f"{rule.name}_init"

    def init(params: Tree, **hyper: Any) -> Any:
        check_names(function, hyper, tuple(rule.defaults))
        leaves, spec = optree.tree_flatten(params)
        own = rule.broadcast(function, hyper, spec)
        slots = []
        for i, leaf in enumerate(leaves):
            kind = rule.kind(function, leaf, spec, i)
            rule._ready(function, own[i], kind)
            if not is_dense(leaf):
                refuse(function, "params", leaf, leaf, kind, kind.dtype, spec, i)
            with beside(leaf, kind):
                slots.append([rule._fresh(slot, leaf, kind, rule.defaults | own[i]) for slot in rule.slots])
        columns = zip(*slots, strict=True) if leaves else [[]] * len(rule.slots)
        return rule.state._make([params, *map(spec.unflatten, columns), 0])

    _document(init, rule, function, ["params"], _INIT_DOC)
    return init


def _step_function(rule: Rule[Any, Any]) -> Any:
    function = f"{rule.name}_step"
    state_type: Any = rule.state

    def step(state: Any, grad: Tree, **hyper: Any) -> Any:
        params, slots, t = rule.unpack(state)
        if is_known_array(params):  # a tree of one leaf; not asking optree saves a tenth of a small step
            new = rule._step_leaf(params, grad, slots, t, hyper)
        else:
            new = rule._step_tree(params, grad, slots, t, hyper)
        return state_type(*new, t)

    _document(step, rule, function, ["state", "grad"], _STEP_DOC)
    return step


def _document(function: Any, rule: Rule[Any, Any], name: str, positional: list[str], doc: str) -> None:
    """Gives ``function`` its public name, the rule's own signature, so that ``help`` shows it, and its documentation."""
    hyper = [p for p in inspect.signature(rule.coefficients).parameters.values() if p.kind is p.KEYWORD_ONLY]
    function.__name__ = function.__qualname__ = name
    function.__module__ = "xopt"
    function.__signature__ = inspect.Signature(
        [inspect.Parameter(p, inspect.Parameter.POSITIONAL_OR_KEYWORD) for p in positional]
        + [p.replace(annotation=p.empty) for p in hyper],
    )
    ranges = "\n".join(f"{p.name} : in {rule.ranges[p.name].text}, default {p.default!r}" for p in hyper)
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
