"""A rule made for the arrays of one library and dtype: it checks what a leaf brings, evaluates its coefficients, and steps it."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from numbers import Real
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import optree
from array_api_compat import is_cupy_array, is_numpy_array, is_torch_array

from xopt.arrays import Numbers, devices, is_dense, is_shared, placed, same_shape, type_of
from xopt.checks import DOUBLE, Interval, Later, Precision, as_number, check_hyper, shown
from xopt.operations import Array, has_dtype, is_array, is_subclass, namespace
from xopt.slots import each
from xopt.trees import path_of

if TYPE_CHECKING:
    from xopt.rule import Rule


class Call(NamedTuple):
    """One call of an init or a step: what its errors name, and the count."""

    function: str  # such as "lion_step"
    t: Any = None  # the step that is taken: 1, 2, ...; each group of leaves has its own, where they differ
    spec: Any = None  # the tree of params, as optree has it; None where it is one array
    known: dict[Any, Any] | None = None  # coefficients of the leaves before, by what they depend on

    def where(self, name: str, i: int) -> str:
        """What an error of an argument begins with, at leaf ``i``."""
        return f"{self.function}: {name}{path_of(self.spec, i)}"


class Group(dict[str, Any]):
    """The hyperparameters of some leaves and their count, where one at least is a tree that gives others to other leaves."""

    def __init__(self, hyper: dict[str, Any], own: dict[str, Any], spec: optree.PyTreeSpec, leaf: int, t: Any) -> None:
        super().__init__(hyper | own)
        self._own = frozenset(own)
        self._place = spec, leaf  # the first of the leaves
        self.t = t  # the step that they take

    def label(self, name: str) -> str:
        """A hyperparameter as it was given: with its leaf, where it comes from a tree."""
        return name + path_of(*self._place) if name in self._own else name


class TypedRule:
    """A rule for one array type: what must be known of its library and dtype, and what a step does with a leaf.

    Raises TypeError where ``params`` is no array of real floating-point numbers.
    """

    def __init__(self, rule: "Rule[Any, Any]", params: Array, where: str) -> None:
        refuse_no_floats(params, where)
        xp = namespace(params)
        is_numpy = is_numpy_array(params)
        compute = arithmetic(xp, params)
        self.rule = rule
        self.xp = xp
        self.dtype = params.dtype  # of the parameter and of its gradient
        self.compute = compute  # of the slots and of the arithmetic: at least float32, in the machine's byte order
        self.cast = bool(params.dtype != compute)  # the parameter is narrower than the arithmetic, or of another byte order
        self.one_device = is_numpy  # the library has one device only
        # the current device, where CuPy puts new arrays, wherever their operands are
        self.current: Callable[[], Any] | None = sys.modules["cupy"].cuda.Device if is_cupy_array(params) else None
        self.shards = hasattr(type(params), "sharding")  # several devices may share an array
        self.wide = self.shards and self.dtype == xp.float64  # JAX may be told, at any time, to do without such numbers
        self.subclass = is_subclass(params)  # arrays of a subclass of NumPy's, which has rules of its own
        # all but the shape in which arrays of one type may differ, where that is quickly seen and slots have the dtype of params
        self.look = None if self.cast else _LOOK.get(getattr(xp, "__name__", ""))
        self.numbers = Numbers(xp, compute) if is_numpy else None  # coefficients as 0-d arrays, where that is cheaper
        self.precision = precision_of(xp, compute)
        self.ranges = {name: _limits(x, self.precision) for name, x in rule.ranges.items() if not x.sequence}
        self.zeros = {name for name, x in rule.ranges.items() if not x.sequence and 0.0 in x}
        # A compiler that traces Python itself (torch.compile) is told to call the checks and the host arithmetic, not to
        # trace them: a Python step count then keeps its exact path, and a new learning rate recompiles nothing.
        compiler = getattr(xp, "compiler", None)
        self.disable = getattr(compiler, "disable", None)
        self.is_traced: Callable[[], bool] | None = getattr(compiler, "is_compiling", None)  # else it is not called through that
        self.prepare = self.disable(self.prepare_leaf) if self.disable else self.prepare_leaf

    # A step.

    def step(self, call: Call, params: Array, grad: Array, slots: Sequence[Any], hyper: dict[str, Any]) -> Sequence[Any]:
        """The new params and slots of a tree of one leaf."""
        if self.current is not None and self.current() != params.device:
            with params.device:
                return self.step(call, params, grad, slots, hyper)
        prepare = self.prepare if self.is_traced is None or self.is_traced() else self.prepare_leaf
        c, ordinary = prepare(call, 0, params, grad, slots, hyper)
        if ordinary and not self.cast:  # as mostly: what ``updated`` does then, without the call
            return self.rule.elementwise(params, *slots, grad, c)
        new = self.updated(params, grad, slots, c, ordinary)
        if self.subclass:
            self.refuse_promoted(call, 0, params, new[0])
        return new

    def prepare_leaf(
        self, call: Call, i: int, params: Array, grad: Array, slots: Sequence[Any], hyper: dict[str, Any]
    ) -> tuple[Any, bool]:
        """Checks what leaf ``i`` brings. Returns its coefficients, and whether its results are the new state as they are."""
        carried = self.carried_numbers(call, i, slots) if self.rule.carried_at else ()
        if call.known is None:
            c = self._evaluate(call, carried, hyper, params)
        else:
            key = (id(self), id(hyper), *(x if type(x) is float else id(x) for x in carried))
            c = call.known.get(key)
            if c is None:
                c = call.known[key] = self._evaluate(call, carried, hyper, params)
        return c, self.check_leaf(call, i, params, grad, slots, hyper)

    def updated(self, params: Array, grad: Array, slots: Sequence[Any], c: Any, ordinary: bool) -> Sequence[Any]:
        """The new params and slots of a leaf that has been prepared."""
        if self.current is not None and self.current() != params.device:
            with params.device:
                return self.updated(params, grad, slots, c, ordinary)
        if not ordinary and self.shards:
            grad = placed(params, grad)
        if self.cast:
            new = self.rule.elementwise(self.xp.astype(params, self.compute), *slots, self.xp.astype(grad, self.compute), c)
            new = (self.xp.astype(new[0], self.dtype), *new[1:])
        else:
            new = self.rule.elementwise(params, *slots, grad, c)
        if ordinary:
            return new
        if self.shards:
            new = tuple([each(placed, *pair) for pair in zip((params, *slots), new, strict=True)])
        scalars = not params.ndim and self.numbers is not None  # NumPy makes them of arrays without dimensions
        kept = self._array if scalars else _new
        pairs = zip(self.rule.schema, slots, new[1:], strict=True)
        rest = [x if slot.number is not None else each(kept, old, x) for slot, old, x in pairs]
        return [self.xp.asarray(new[0], dtype=self.dtype) if scalars else new[0], *rest]

    def _array(self, _: Array, new: Any) -> Array:
        return self.xp.asarray(new)

    def refuse_promoted(self, call: Call, i: int, params: Array, new: Array) -> None:
        """Raises TypeError where a subclass of NumPy's arrays has made another dtype of the numbers that it met."""
        if new.dtype != self.dtype:
            what = f"has become {new.dtype}, as {type(params).__name__} widens {params.dtype} where it meets a number"
            msg = f"{call.where('params', i)} {what}; take float64, or plain arrays"
            raise TypeError(msg)

    # What a leaf brings.

    def check_leaf(self, call: Call, i: int, params: Array, grad: Array, slots: Sequence[Any], hyper: Mapping[str, Any]) -> bool:
        """Checks that gradient and slots of leaf ``i`` go with its params.

        Returns whether the results of ``update`` are the new state as they are: not to be rounded, moved, or made arrays first.
        ``hyper`` has been through ``host_coefficients``, which checks the numbers in it.
        """
        ordinary: bool = params.ndim > 0 and not self.subclass
        if self.shards:
            self.refuse_narrowed(call, i)
            ordinary = ordinary and not is_shared(params)
        if not self.one_device and not is_dense(params):
            self.refuse(call, i, "params", params, params, self.dtype)
        if ordinary and self.look is not None:  # at first sight what ``matches`` finds, at a third of its cost
            kind, seen, shape = type(params), self.look(params), params.shape
            for x in (grad, *slots):
                if type(x) is not kind or self.look(x) != seen or x.shape != shape:
                    break
            else:
                return True
        if not self.matches(grad, params, self.dtype):
            self.refuse(call, i, "grad", grad, params, self.dtype)
        for at, slot in enumerate(slots):
            if type(slot) in _NOT_ARRAYS or not self.matches(slot, params, self.compute):
                self._check_slot(call, i, self.rule.slots[at], slot, params, hyper)
                ordinary = False
        return ordinary

    def refuse_narrowed(self, call: Call, i: int) -> None:
        """Raises TypeError for a float64 leaf where JAX has been told to compute in float32: the new one would be narrower."""
        if self.wide and not sys.modules["jax"].config.jax_enable_x64:
            where = call.where("params", i)
            msg = f"{where} is float64, but jax_enable_x64 is off, so that JAX would return float32; turn it on, or pass float32"
            raise TypeError(msg)

    def _check_slot(self, call: Call, i: int, name: str, slot: Any, params: Array, hyper: Mapping[str, Any]) -> None:
        """Checks a slot that is not simply an array like ``params``: None, a tuple, a number, or an error."""
        if name in self.rule.carried:
            return
        decay = self.rule.decay_of(name, hyper)
        pairs = [(slot, decay)]
        if isinstance(decay, tuple):
            if not isinstance(slot, tuple) or len(slot) != len(decay):
                have = len(slot) if isinstance(slot, tuple) else shown(slot)
                given = f"{self.rule.memory[name]}={decay!r} needs {len(decay)}"
                msg = f"{call.where(f'state.{name}', i)} has {have} buffers but {given}; give init the same"
                raise ValueError(msg)
            pairs = list(zip(slot, decay, strict=True))
        for one, beta in pairs:
            if one is None:
                if beta is None or (beta != 0.0 and as_number(beta) is not None):
                    given = f"{self.rule.memory[name]}={decay!r}" if decay is not None else f"{self.rule.memory[name]}_warmup is on"
                    where = call.where(f"state.{name}", i)
                    msg = f"{where} is None, which remembers nothing, but {given}; give init the same"
                    raise ValueError(msg)
            elif not self.matches(one, params, self.compute):
                self.refuse(call, i, f"state.{name}", one, params, self.compute)

    def carried_numbers(self, call: Call, i: int, slots: Sequence[Any]) -> list[Any]:
        """The numbers that the state carries of leaf ``i``, checked: floats, or 0-d arrays of the library of its params."""
        found = []
        for at, slot, interval in self.rule.carried_at:
            low, high = interval.usable(DOUBLE)
            x = slots[at]
            found.append(x if type(x) is float and low <= x <= high else self._carried(call, i, slot, x, interval))
        return found

    def _carried(self, call: Call, i: int, slot: str, value: Any, interval: Interval) -> Any:
        where = Later(partial(call.where, f"state.{slot}", i))
        number = as_number(value)
        if is_array(value) and namespace(value) is self.xp and self.numbers is None:  # it may be traced
            if (
                is_scalar(value, "real floating")
                and self.xp.finfo(value.dtype).bits >= 32
                and (number is None or number in interval)
            ):
                return value
        elif number is not None and number in interval:
            return number
        if number is not None and number not in interval:
            msg = f"{where} must be in {interval.text}, got {shown(value)}"
            raise ValueError(msg)
        what = f"a number or a 0-d array of 32 bits or more, as {self.rule.name}_init and each step give it"
        msg = f"{where} must be {what}, got {shown(value)}"
        raise TypeError(msg)

    def matches(self, x: Any, params: Array, dtype: Any) -> bool:
        """Whether ``x`` goes with ``params`` element by element, in ``dtype``. It may be ``params`` itself."""
        if type(x) is not type(params) and not (is_array(x) and namespace(x) is self.xp):  # of one type they are of one library
            return False
        if x.dtype is not dtype and x.dtype != dtype:
            return False
        if self.one_device:
            return bool(x.shape == params.shape)
        return is_dense(x) and same_shape(x, params) and self._same_devices(x, params)

    def _same_devices(self, x: Array, y: Array) -> bool:
        """A traced array may have no device yet."""
        one, other = (devices(x), devices(y)) if self.shards else (getattr(x, "device", None), getattr(y, "device", None))
        return one is None or other is None or bool(one == other)

    def refuse(self, call: Call, i: int, name: str, x: Any, params: Array, dtype: Any) -> NoReturn:
        """Raises what says why ``x`` does not go with ``params``, naming the leaf and both sides."""
        one, other = call.where(name, i), f"params{path_of(call.spec, i)}"
        if not is_array(x):
            msg = f"{one} must be an array like {other}, got {shown(x)}"
            raise TypeError(msg)
        if namespace(x) is not self.xp:
            msg = f"{one} is a {type_of(x)} but {other} is a {type_of(params)}; convert one of them, libraries are not mixed"
            raise TypeError(msg)
        if x.dtype != dtype:
            msg = f"{one} is {x.dtype} but must be {dtype}, as {other} is {params.dtype}; cast it yourself, nothing is promoted"
            raise TypeError(msg)
        if not is_dense(x):
            msg = f"{one} is a sparse or nested tensor, or one of MKL-DNN's; make it dense, or pass its parts as arrays"
            raise TypeError(msg)
        if not same_shape(x, params):
            msg = f"{one} has shape {tuple(x.shape)} but {other} has {tuple(params.shape)}; nothing is broadcast"
            raise ValueError(msg)
        msg = f"{one} is on device {devices(x)} but {other} is on {devices(params)}; move one of them"
        raise ValueError(msg)

    # Coefficients.

    def host_coefficients(self, call: Call, carried: Sequence[Any], hyper: dict[str, Any]) -> tuple[Any, bool]:
        """The coefficients of the step, and whether they are Python numbers: float64, for the arithmetic to round once.

        Checks the hyperparameters and makes each number in ``hyper`` a float.
        """
        plain = self.check_hyper(call.function, hyper) if hyper else True
        t = hyper.t if type(hyper) is Group else call.t
        if type(t) is not int:
            known = as_number(t)
            if known is None:
                self._refuse_traced(call.function, "state.step", t)
            t = self.xp.astype(self.xp.asarray(t), self.compute) if known is None else int(t)
            refuse_outside(f"{call.function}: state.step", t - 1 if known is not None else 0)
            plain = plain and known is not None
        if carried:
            plain = plain and all(type(x) is float for x in carried)
        return self.rule.coefficients(t, *carried, **hyper), plain

    def _evaluate(self, call: Call, carried: Sequence[Any], hyper: dict[str, Any], params: Array) -> Any:
        """The coefficients, ready to meet arrays of this type: Python numbers, or 0-d arrays in the dtype of the arithmetic."""
        c, plain = self.host_coefficients(call, carried, hyper)
        if not plain:
            for name, value in hyper.items():
                if is_array(value) and not self._meets(value, params):
                    where = f"{call.function}: {_label(hyper, name)}"
                    msg = f"{where} is on device {value.device} but params on {params.device}; move it, or pass a number"
                    raise ValueError(msg)
            return c._make([self.lifted(value) for value in c])
        if self.numbers is None:
            return c if self.current is None else c._make([self._kept_narrow(value) for value in c])
        ready = tuple.__new__(type(c), map(self.numbers.__getitem__, c))  # what ``_make`` does, in half its time
        return ready._replace(**{name: getattr(c, name) for name in self.rule.carried}) if carried else ready

    def check_hyper(self, function: str, hyper: dict[str, Any]) -> bool:
        """Checks the given hyperparameters and makes each number a float. Whether all of them are plain numbers now."""
        plain = True
        for name, value in hyper.items():
            if type(value) is float and name in self.ranges:
                low, high = self.ranges[name]
                if low <= value <= high or (value == 0.0 and name in self.zeros):
                    if value == 0.0:
                        hyper[name] = 0.0  # and not -0.0
                    continue
            self.rule.check_names(function, (name,))
            label = Later(partial(_label, hyper, name))
            check_hyper(function, label, value, self.rule.ranges[name], self.precision)
            if value is None:
                continue
            if self.rule.ranges[name].sequence:
                hyper[name] = tuple([self._number(function, label, item) for item in value])
                plain = plain and all(type(item) is float for item in hyper[name])
            else:
                hyper[name] = self._number(function, label, value)
                plain = plain and type(hyper[name]) is float
        return plain

    def _number(self, function: str, name: Later, value: Any) -> Any:
        """A checked number as a float, unless it is an array of the parameters' own library that is traced or differentiated."""
        if _is_differentiated(value, self.xp):
            return value
        number = as_number(value)
        if number is None:
            self._refuse_traced(function, name, value)
        return value if number is None else number

    def _refuse_traced(self, function: str, name: str | Later, value: Any) -> None:
        """Raises TypeError for an array that has no number yet and is of another library than the params."""
        if namespace(value) is not self.xp:
            ours = getattr(self.xp, "__name__", "").rpartition(".")[2] or "another library"
            what = f"is a {type_of(value)}, which is traced, but params are of {ours}; pass arrays of one library"
            msg = f"{function}: {name} {what}"
            raise TypeError(msg)

    def _meets(self, x: Array, params: Array) -> bool:
        """Whether a 0-d array is where ``params`` are, or on the CPU, from where torch takes it everywhere."""
        return str(devices(x)) == "cpu" or self._same_devices(x, params)

    def lifted(self, value: Any) -> Any:
        """A coefficient in the dtype of the arithmetic, where it is an array; else as a Python number."""
        if isinstance(value, tuple):
            return tuple([self.lifted(item) for item in value])
        if isinstance(value, Real):
            return float(value)
        return self.xp.astype(value, self.compute) if is_array(value) else value

    def _kept_narrow(self, value: Any) -> Any:
        """A coefficient by which CuPy widens no array of float32: CuPy 13 takes Python numbers from 3.4e38 on for float64."""
        if isinstance(value, tuple):
            return tuple([self._kept_narrow(item) for item in value])
        wide = type(value) is float and abs(value) >= 3.4e38 and self.compute == self.xp.float32
        return self.xp.float32(value) if wide else value

    # A new state.

    def fresh(self, slot: str, leaf: Array, hyper: Mapping[str, Any]) -> Any:
        """The first value of one leaf's slot."""
        if slot in self.rule.carried:
            return self.rule.carried[slot]

        def zeros(decay: Any) -> Array | None:
            return None if as_number(decay) == 0 else self.xp.zeros_like(leaf, dtype=self.compute)

        decay = self.rule.decay_of(slot, hyper)
        return tuple(map(zeros, decay)) if isinstance(decay, tuple) else zeros(decay)


def _new(_: Array, new: Array) -> Array:
    return new


_LOOK: dict[str, Callable[[Any], Any]] = {
    "array_api_compat.numpy": attrgetter("dtype"),
    "array_api_compat.torch": attrgetter("dtype", "device", "layout", "is_nested"),
}

_NOT_ARRAYS = (float, tuple, type(None))

_WITHOUT_NUMBERS = ("UninitializedParameter", "UninitializedBuffer")
"""What torch's lazy modules have before their first batch."""


def refuse_no_floats(params: Any, where: str) -> None:
    """Raises TypeError for what is no array of real numbers."""
    if not is_array(params):
        msg = f"{where} must be an array, got {_without_arrays(params)}"
        raise TypeError(msg)
    if type(params).__name__ in _WITHOUT_NUMBERS:
        msg = f"{where} is a {type(params).__name__}, which has no numbers yet; let its module see a batch first"
        raise TypeError(msg)
    if has_dtype(params, "complex floating"):
        msg = (
            f"{where} is {params.dtype}; two conventions are in use for complex parameters: real and imaginary part as a "
            "pair of real parameters (torch), or one second moment |g|^2 (optax). For the first, pass the two parts as arrays"
        )
        raise TypeError(msg)
    if getattr(params.dtype, "names", None):
        name = params.dtype.names[0]
        msg = f"{where} has fields, {params.dtype}; pass a dict of them, each an array: {{{name!r}: x[{name!r}], ...}}"
        raise TypeError(msg)
    if not has_dtype(params, "real floating"):
        if getattr(params.dtype, "kind", "") == "V" or "float" in str(params.dtype):
            msg = (
                f"{where} is {params.dtype}, a dtype that {type(params).__module__} has from elsewhere (ml_dtypes), without the "
                "functions of the array API; take float32, or arrays of torch or JAX, which have it themselves"
            )
            raise TypeError(msg)
        buffer = "; pass dict(module.named_parameters()): buffers are no parameters" if is_torch_array(params) else ""
        msg = f"{where} must be real floating-point, got {params.dtype}; an update would be truncated{buffer}"
        raise TypeError(msg)


def _without_arrays(given: Any) -> str:
    """A thing that is no array in words, and what to pass where it has arrays."""
    if hasattr(type(given), "named_parameters"):
        return f"a {type(given).__name__}; pass dict(module.named_parameters())"
    if isinstance(given, Iterator):
        return f"a {type(given).__name__}, which gives its items once; pass a list or a dict of them"
    if isinstance(given, Mapping | Collection) and not isinstance(given, str | bytes):
        plain = "dict" if isinstance(given, Mapping) else "list"
        name = type(given).__name__
        return f"a {name}, a container that is not registered with optree or JAX; register it, or pass a {plain} of its items"
    if is_dataclass(given) and not isinstance(given, type):
        name = type(given).__name__
        return (
            f"a {name}, a dataclass that is not registered with optree or JAX; register it, or pass vars(it), a dict of its fields"
        )
    if callable(given) and "equinox" in sys.modules:
        return f"{shown(given)}; of a module of Equinox pass eqx.filter(module, eqx.is_inexact_array)"
    return shown(given)


def arithmetic(xp: Any, params: Array) -> Any:
    """The dtype in which an array is computed: float32, or its own where it is wider, in the machine's byte order."""
    compute = xp.float32 if xp.finfo(params.dtype).bits < 32 else params.dtype
    if is_numpy_array(params):  # the one object that a dtype mostly is, so that it is compared at once
        compute = xp.dtype(xp.dtype(compute).type)
    return compute


def precision_of(xp: Any, dtype: Any) -> Precision:
    """What a check must know of a dtype."""
    info = xp.finfo(dtype)
    largest = min(float(info.max), sys.float_info.max)  # of long double it is beyond a float
    name = str(getattr(dtype, "__name__", dtype)).split(".")[-1]
    return Precision(name, float(info.eps), largest, float(info.smallest_normal))


def _limits(interval: Interval, precision: Precision) -> tuple[float, float]:
    """What a Python float must lie in, so that nothing more of it is to be checked."""
    low, high = interval.usable(precision)
    return (max(low, precision.smallest_normal) if interval.divisor else low), high


def _is_differentiated(value: Any, xp: Any) -> bool:
    """Whether torch follows what is computed of a 0-d array, backward or forward."""
    if isinstance(value, Real) or namespace(value) is not xp:
        return False
    forward = getattr(getattr(xp, "autograd", None), "forward_ad", None)
    return getattr(value, "requires_grad", False) or getattr(forward, "_current_level", -1) >= 0


def is_scalar(x: Any, kind: str) -> bool:
    """Whether ``x`` is a 0-d array of this kind of numbers."""
    return is_array(x) and x.ndim == 0 and has_dtype(x, kind)


MOST_STEPS = int(sys.float_info.max)
"""The largest step count: schedules compute with it in floats."""


def refuse_outside(where: str | Later, count: int) -> None:
    """Raises ValueError for a step count below 0, or beyond all floats."""
    if count < 0:
        msg = f"{where} must be 0 or more, got {shown(count)}"
        raise ValueError(msg)
    if count > MOST_STEPS:
        msg = f"{where} must be a count that a float holds, got {shown(count)}"
        raise ValueError(msg)


def _label(hyper: Mapping[str, Any], name: str) -> str:
    return hyper.label(name) if isinstance(hyper, Group) else name
