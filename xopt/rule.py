"""Rule: makes ``<rule>_init`` and ``<rule>_step`` from a state, its coefficients and an update, and lifts them to trees."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Concatenate, Generic, NamedTuple, NoReturn, ParamSpec, TypeVar, get_type_hints

import optree
from array_api_compat import is_numpy_array

from xopt.checks import DOUBLE, Interval, Precision, as_number, check_hyper, check_names
from xopt.operations import Array, is_array, is_known_array, namespace

Tree = Any
"""An array, or a dict, list, tuple or NamedTuple of trees: whatever ``optree`` flattens."""

S = TypeVar("S", bound=tuple[Any, ...])
P = ParamSpec("P")


_NOT_ARRAYS = (float, tuple, type(None))


class _Numbers(dict[Any, Any]):
    """Python numbers as 0-d arrays, made once: NumPy converts a number at each operation, at the price of the operation."""

    def __init__(self, xp: Any, dtype: Any) -> None:
        super().__init__()
        self.make: Callable[[float], Array] = lambda x: xp.asarray(x, dtype=dtype)

    def __missing__(self, x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple([self[item] for item in x])
        if x == 1.0:  # `average` must see it
            return x
        if len(self) > 500:  # those that change at each step
            self.clear()
        array = self[x] = self.make(x)
        return array


class Kind(NamedTuple):
    """What a step must know of a parameter's library and dtype."""

    xp: Any
    dtype: Any  # of the parameter and of its gradient
    compute: Any  # of the slots and of the arithmetic: at least float32
    narrow: bool  # the parameter is narrower than the arithmetic
    one_device: bool  # the library has one device only
    precision: Precision  # of the arithmetic
    ranges: dict[str, tuple[float, float]]  # what a Python float must lie in, for each hyperparameter
    numbers: _Numbers | None  # coefficients as 0-d arrays, where that is cheaper
    prepare: Callable[..., tuple[Any, bool]]  # Rule._prepare, hidden from compilers that trace Python


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
        For each slot that holds a Python number: its first value. ``coefficients`` gets it, ``update`` returns the next one.

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
        self._carried_at = [i for i, slot in enumerate(self.slots) if slot in self.carried]
        self._kinds: dict[Any, Kind] = {}
        self.init: Callable[Concatenate[Tree, P], S] = _init_function(self)
        self.step: Callable[Concatenate[S, Tree, P], S] = _step_function(self)

    def __repr__(self) -> str:
        return f"<xopt rule {self.name}>"

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
        function = self._step_name
        check_names(function, hyper, tuple(self.defaults))
        leaves, spec = optree.tree_flatten(params)
        columns = [
            _flatten_like(function, spec, name, tree)
            for name, tree in zip(("grad", *(f"state.{slot}" for slot in self.slots)), (grad, *slots), strict=True)
        ]
        own = self._broadcast(function, hyper, params, len(leaves))
        known: dict[Any, Any] = {}
        results = [
            self._step_leaf(leaf, g, old, t, own[i], known, spec, i)
            for i, (leaf, g, *old) in enumerate(zip(leaves, *columns, strict=True))
        ]
        if not results:
            return params, *slots
        return [spec.unflatten(column) for column in zip(*results, strict=True)]

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
            kind = self._kind(self._step_name, params, spec, i)
        c, ordinary = kind.prepare(self, kind, params, grad, slots, t, hyper, known, spec, i)
        if kind.narrow:
            new = self.update(kind.xp.astype(params, kind.compute), *slots, kind.xp.astype(grad, kind.compute), c)
            new = (kind.xp.astype(new[0], kind.dtype), *new[1:])
        else:
            new = self.update(params, *slots, grad, c)
        if ordinary:
            return new
        xp = None if params.ndim else kind.xp
        return [_stored(old, x, xp) for old, x in zip((params, *slots), new, strict=True)]

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
        """Checks one leaf's arguments. Returns its coefficients, and whether its slots are all plain arrays."""
        if not _matches(grad, params, kind, kind.dtype):
            _refuse(self._step_name, "grad", grad, params, kind, kind.dtype, spec, i)
        carried = [slots[at] for at in self._carried_at] if self._carried_at else ()
        if known is None:
            c = self._evaluate(self._step_name, t, carried, hyper, kind)
        else:
            key = (id(kind), id(hyper), *(x if type(x) is float else id(x) for x in carried))
            c = known.get(key)
            if c is None:
                c = known[key] = self._evaluate(self._step_name, t, carried, hyper, kind)
        ordinary = params.ndim > 0
        for at, slot in enumerate(slots):
            if type(slot) in _NOT_ARRAYS or not _matches(slot, params, kind, kind.compute):
                self._check_slot(self._step_name, self.slots[at], slot, params, kind, hyper, spec, i)
                ordinary = False
        return c, ordinary

    def _check_slot(
        self,
        function: str,
        name: str,
        slot: Any,
        params: Array,
        kind: Kind,
        hyper: Mapping[str, Any],
        spec: optree.PyTreeSpec | None,
        i: int,
    ) -> None:
        """Checks a slot that is not simply an array like ``params``: None, a tuple, a number, or an error."""
        if name in self.carried:
            return
        decay = self._decay(name, hyper)
        where = f"state.{name}{_path(spec, i)}"
        pairs = [(slot, decay)]
        if isinstance(decay, tuple):
            if not isinstance(slot, tuple) or len(slot) != len(decay):
                have = len(slot) if isinstance(slot, tuple) else repr(slot)
                given = f"{self.memory[name]}={decay!r} needs {len(decay)}"
                msg = f"{function}: {where} has {have} buffers but {given}; give init the same"
                raise ValueError(msg)
            pairs = list(zip(slot, decay, strict=True))
        for one, beta in pairs:
            if one is None:
                if beta is None or (beta != 0.0 and as_number(beta) is not None):
                    given = f"{self.memory[name]}={decay!r}" if decay is not None else f"{self.memory[name]}_warmup is on"
                    msg = f"{function}: {where} is None, which remembers nothing, but {given}; give init the same"
                    raise ValueError(msg)
            elif not _matches(one, params, kind, kind.compute):
                _refuse(function, f"state.{name}", one, params, kind, kind.compute, spec, i)

    def _broadcast(self, function: str, hyper: dict[str, Any], params: Tree, leaves: int) -> list[dict[str, Any]]:
        """The hyperparameters of each leaf: the same dict for all, unless one of them is a tree that is a prefix of ``params``."""
        trees = {
            name: value
            for name, value in hyper.items()
            if not self.ranges[name].sequence and value is not None and not optree.tree_is_leaf(value)
        }
        if not leaves:  # no dtype to check the values for; float64 holds the most
            for name in hyper.keys() - trees.keys():
                check_hyper(function, name, hyper[name], self.ranges[name], DOUBLE)
        if not trees:
            return [hyper] * leaves
        columns = {}
        for name, value in trees.items():
            try:
                columns[name] = optree.broadcast_prefix(value, params)
            except ValueError as error:
                msg = f"{function}: {name} must be a number, a 0-d array or a tree that is a prefix of params; {error}"
                raise ValueError(msg) from None
        return [hyper | {name: column[i] for name, column in columns.items()} for i in range(leaves)]

    def _evaluate(self, function: str, t: Any, carried: Sequence[Any], hyper: dict[str, Any], kind: Kind) -> Any:
        """The coefficients, ready to meet arrays of this kind: Python numbers, or 0-d arrays in the dtype of the arithmetic."""
        plain = self._ready(function, hyper, kind)
        if type(t) is not int:
            t = kind.xp.astype(kind.xp.asarray(t), kind.compute)
        elif t < 1:
            msg = f"{function}: state.step must be 0 or more, got {t - 1}"
            raise ValueError(msg)
        c = self.coefficients(t, *carried, **hyper)
        if not plain or type(t) is not int:
            return type(c)._make([_lifted(value, kind) for value in c])
        return c if kind.numbers is None or carried else type(c)._make([kind.numbers[x] for x in c])

    def _ready(self, function: str, hyper: dict[str, Any], kind: Kind) -> bool:
        """Checks the given hyperparameters and makes each number a float. Whether all of them are plain numbers now."""
        plain = True
        for name, value in hyper.items():
            if type(value) is float and name in kind.ranges:
                low, high = kind.ranges[name]
                if low <= value <= high:
                    continue
            check_names(function, (name,), tuple(self.defaults))
            check_hyper(function, name, value, self.ranges[name], kind.precision)
            if value is None:
                continue
            if self.ranges[name].sequence:
                hyper[name] = tuple(_plain(item, kind) for item in value)
                plain = plain and all(type(item) is float for item in hyper[name])
            else:
                hyper[name] = _plain(value, kind)
                plain = plain and type(hyper[name]) is float
        return plain

    def _kind(self, function: str, params: Any, spec: optree.PyTreeSpec | None, i: int) -> Kind:
        """The kind of a parameter. Raises TypeError for what is no array of real floating-point numbers."""
        key = (type(params), getattr(params, "dtype", None))
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = self._new_kind(f"{function}: params{_path(spec, i)}", params)
        return kind

    def _new_kind(self, where: str, params: Any) -> Kind:
        if not is_array(params):
            msg = f"{where} must be an array, got {params!r}"
            raise TypeError(msg)
        xp = namespace(params)
        if xp.isdtype(params.dtype, "complex floating"):
            msg = (
                f"{where} is {params.dtype}; two conventions are in use for complex parameters: real and imaginary part as a "
                "pair of real parameters (torch), or one second moment |g|^2 (optax). For the first, pass the two parts as arrays"
            )
            raise TypeError(msg)
        if not xp.isdtype(params.dtype, "real floating"):
            msg = f"{where} must be real floating-point, got {params.dtype}; an update would be truncated"
            raise TypeError(msg)
        narrow = xp.finfo(params.dtype).bits < 32
        compute = xp.float32 if narrow else params.dtype
        info = xp.finfo(compute)
        precision = Precision(str(compute).split(".")[-1], float(info.eps), float(info.max), float(info.smallest_normal))
        ranges = {}
        for name, interval in self.ranges.items():
            if interval.sequence:
                continue
            low, high = interval.usable(precision)
            ranges[name] = (max(low, precision.smallest_normal) if interval.divisor else low, high)
        # A compiler that traces Python itself (torch.compile) is told to call the checks and the host arithmetic, not to
        # trace them: a Python step count then keeps its exact path, and a new learning rate recompiles nothing.
        untraced = getattr(getattr(xp, "compiler", None), "disable", None)
        prepare = untraced(Rule._prepare) if untraced else Rule._prepare
        is_numpy = is_numpy_array(params)
        numbers = _Numbers(xp, compute) if is_numpy else None
        return Kind(xp, params.dtype, compute, narrow, is_numpy, precision, ranges, numbers, prepare)


def _lifted(value: Any, kind: Kind) -> Any:
    if isinstance(value, tuple):
        return tuple(_lifted(item, kind) for item in value)
    if isinstance(value, float):
        return float(value)
    return kind.xp.astype(value, kind.compute) if is_array(value) else value


def _plain(value: Any, kind: Kind) -> Any:
    """A checked hyperparameter as a float, unless it is a 0-d array of the parameters' own library and may be traced."""
    if not isinstance(value, Real) and namespace(value) is kind.xp and kind.numbers is None:
        return value
    number = as_number(value)
    return value if number is None else number


def _matches(x: Any, params: Array, kind: Kind, dtype: Any) -> bool:
    """Whether ``x`` goes with ``params`` element by element, in ``dtype``."""
    if kind.one_device and type(x) is type(params) and x.dtype is dtype:  # the usual case, at a third of the cost
        return bool(x.shape == params.shape)
    return (
        is_array(x)
        and namespace(x) is kind.xp
        and x.dtype == dtype
        and x.shape == params.shape
        and (kind.one_device or _same_device(x, params))
    )


def _count(step: Any) -> Any:
    """A step count as an int where it holds one, such as one that NumPy has loaded; an array that may be traced stays one."""
    return int(step) if isinstance(step, Integral) or hasattr(type(step), "__array_interface__") else step


def _same_device(x: Array, y: Array) -> bool:
    """A traced array may have no device yet."""
    one, other = getattr(x, "device", None), getattr(y, "device", None)
    return one is None or other is None or bool(one == other)


def _refuse(
    function: str, name: str, x: Any, params: Array, kind: Kind, dtype: Any, spec: optree.PyTreeSpec | None, i: int
) -> NoReturn:
    """Raises what says why ``x`` does not go with ``params``, naming the leaf and both sides."""
    path = _path(spec, i)
    one, other = f"{function}: {name}{path}", f"params{path}"
    if not is_array(x):
        msg = f"{one} must be an array like {other}, got {x!r}"
        raise TypeError(msg)
    if namespace(x) is not kind.xp:
        msg = f"{one} is a {_type(x)} but {other} is a {_type(params)}; convert one of them, libraries are not mixed"
        raise TypeError(msg)
    if x.dtype != dtype:
        msg = f"{one} is {x.dtype} but must be {dtype}, as {other} is {params.dtype}; cast it yourself, nothing is promoted"
        raise TypeError(msg)
    if x.shape != params.shape:
        msg = f"{one} has shape {tuple(x.shape)} but {other} has {tuple(params.shape)}; nothing is broadcast"
        raise ValueError(msg)
    msg = f"{one} is on device {x.device} but {other} is on {params.device}; move one of them"
    raise ValueError(msg)


def _type(x: object) -> str:
    return f"{type(x).__module__.split('.')[0]} {type(x).__name__}"


def _path(spec: optree.PyTreeSpec | None, i: int) -> str:
    """Where leaf ``i`` is in its tree, as Python code that follows the tree's name: ``['w'][0]``."""
    return "" if spec is None else spec.accessors()[i].codify("")


def _flatten_like(function: str, spec: optree.PyTreeSpec, name: str, tree: Tree) -> list[Any]:
    """The leaves of ``tree``, which must have the structure of params; a leaf of a slot may be None or a tuple."""
    try:
        return spec.flatten_up_to(tree)
    except ValueError:
        ours = spec.paths()
        theirs = optree.tree_paths(tree)
        odd = [p for p in ours if p not in theirs] or [p for p in theirs if p not in ours]
        where = f"; the first difference is at {''.join(f'[{key!r}]' for key in odd[0])}" if odd else ""
        msg = (
            f"{function}: {name} must have the tree of params, {_outline(spec)}, got {_outline(optree.tree_structure(tree))}{where}"
        )
        raise ValueError(msg) from None


def _outline(spec: optree.PyTreeSpec) -> str:
    return str(spec).removeprefix("PyTreeSpec(").removesuffix(")")


def _stored(old: Any, new: Any, xp: Any) -> Any:
    """What the next state keeps of a result: nothing where the slot is None. ``xp`` where NumPy made a 0-d result a scalar."""
    if old is None:
        return None
    if isinstance(new, tuple):
        return tuple([_stored(o, n, xp) for o, n in zip(old, new, strict=True)])
    return new if xp is None or isinstance(old, float) else xp.asarray(new)


def _init_function(rule: Rule[Any, Any]) -> Any:
    function = f"{rule.name}_init"

    def init(params: Tree, **hyper: Any) -> Any:
        check_names(function, hyper, tuple(rule.defaults))
        leaves, spec = optree.tree_flatten(params)
        own = rule._broadcast(function, hyper, params, len(leaves))
        slots = []
        for i, leaf in enumerate(leaves):
            kind = rule._kind(function, leaf, spec, i)
            rule._ready(function, own[i], kind)
            slots.append([rule._fresh(slot, leaf, kind, rule.defaults | own[i]) for slot in rule.slots])
        columns = zip(*slots, strict=True) if leaves else [[]] * len(rule.slots)
        return rule.state._make([params, *map(spec.unflatten, columns), 0])

    _document(init, rule, function, ["params"], _INIT_DOC)
    return init


def _step_function(rule: Rule[Any, Any]) -> Any:
    function = f"{rule.name}_step"
    state_type: Any = rule.state

    def step(state: Any, grad: Tree, **hyper: Any) -> Any:
        if type(state) is not state_type:
            msg = f"{function}: state must be the {state_type.__name__} that {rule.name}_init returns, got a {type(state).__name__}"
            raise TypeError(msg)
        params, *slots, count = state
        t = count + 1 if type(count) is int else _count(count) + 1
        if is_known_array(params):  # a tree of one leaf; not asking optree saves a tenth of a small step
            new = rule._step_leaf(params, grad, slots, t, hyper)
        else:
            new = rule._step_tree(params, grad, slots, t, hyper)
        return state_type._make([*new, t])

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
