"""Trees, and one leaf of a tree of parameters: what a step must know of it, and whether other arrays go with it."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from numbers import Real
from typing import Any, NamedTuple, NoReturn

import optree
from array_api_compat import is_cupy_array, is_numpy_array, to_device

from xopt.checks import Interval, Precision, as_number, shown
from xopt.operations import NUMBERS, Array, has_dtype, is_array, is_subclass, namespace

Tree = Any
"""An array, or a dict, list, tuple or NamedTuple of trees: whatever ``optree`` flattens."""


class Numbers(dict[Any, Any]):
    """Python numbers as 0-d arrays, made once: NumPy converts a number at each operation, at the price of the operation."""

    def __init__(self, xp: Any, dtype: Any) -> None:
        super().__init__()
        self.make: Callable[[float], Array] = lambda x: xp.asarray(x, dtype=dtype)
        self._begin()

    def _begin(self) -> None:
        self[0.0] = self.make(0.0)  # -0.0 is the same key, and must not come first
        self[1.0] = self.make(1.0)[()]  # a scalar, which `average` sees; by a Python number subclasses of NumPy's arrays widen
        NUMBERS.add(type(self[1.0]))

    def __missing__(self, x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple([self[item] for item in x])
        if len(self) > 500:  # those that change at each step
            self.clear()
            self._begin()
        array = self[x] = self.make(x)
        return array


class Kind(NamedTuple):
    """What a step must know of a parameter's library and dtype."""

    xp: Any
    dtype: Any  # of the parameter and of its gradient
    compute: Any  # of the slots and of the arithmetic: at least float32, in the machine's byte order
    cast: bool  # the parameter is narrower than the arithmetic, or of another byte order
    one_device: bool  # the library has one device only
    current: Callable[[], Any] | None  # the current device, where CuPy puts new arrays, wherever their operands are
    shards: bool  # several devices may share an array
    subclass: bool  # arrays of a subclass of NumPy's, which has rules of its own
    precision: Precision  # of the arithmetic
    ranges: dict[str, tuple[float, float]]  # what a Python float must lie in, for each hyperparameter
    numbers: Numbers | None  # coefficients as 0-d arrays, where that is cheaper
    prepare: Callable[..., tuple[Any, bool]]  # of the rule, hidden from compilers that trace Python


def kind_of(where: str, params: Any, intervals: Mapping[str, Interval], prepare: Callable[..., tuple[Any, bool]]) -> Kind:
    """The kind of a parameter. Raises TypeError, which begins with ``where``, for what is no array of real numbers."""
    if not is_array(params):
        msg = f"{where} must be an array, got {shown(params)}"
        raise TypeError(msg)
    xp = namespace(params)
    if type(params).__name__ in _WITHOUT_NUMBERS:
        msg = f"{where} is a {type(params).__name__}, which has no numbers yet; let its module see a batch first"
        raise TypeError(msg)
    if has_dtype(params, "complex floating"):
        msg = (
            f"{where} is {params.dtype}; two conventions are in use for complex parameters: real and imaginary part as a "
            "pair of real parameters (torch), or one second moment |g|^2 (optax). For the first, pass the two parts as arrays"
        )
        raise TypeError(msg)
    if not has_dtype(params, "real floating"):
        msg = f"{where} must be real floating-point, got {params.dtype}; an update would be truncated"
        raise TypeError(msg)
    is_numpy = is_numpy_array(params)
    compute = xp.float32 if xp.finfo(params.dtype).bits < 32 else params.dtype
    if is_numpy:
        compute = xp.dtype(compute).newbyteorder("=")
    info = xp.finfo(compute)
    largest = min(float(info.max), sys.float_info.max)  # of long double it is beyond a float
    name = str(getattr(compute, "__name__", compute)).split(".")[-1]
    precision = Precision(name, float(info.eps), largest, float(info.smallest_normal))
    ranges = {}
    for hyper, interval in intervals.items():
        if interval.sequence:
            continue
        low, high = interval.usable(precision)
        ranges[hyper] = (max(low, precision.smallest_normal) if interval.divisor else low, high)
    # A compiler that traces Python itself (torch.compile) is told to call the checks and the host arithmetic, not to
    # trace them: a Python step count then keeps its exact path, and a new learning rate recompiles nothing.
    untraced = getattr(getattr(xp, "compiler", None), "disable", None)
    prepare = untraced(prepare) if untraced else prepare
    numbers = Numbers(xp, compute) if is_numpy else None
    cast = bool(params.dtype != compute)
    current = sys.modules["cupy"].cuda.Device if is_cupy_array(params) else None
    shards, subclass = hasattr(type(params), "sharding"), is_subclass(params)
    return Kind(xp, params.dtype, compute, cast, is_numpy, current, shards, subclass, precision, ranges, numbers, prepare)


def beside(x: Array, kind: Kind) -> AbstractContextManager[Any]:
    """A block in which new arrays are on the device of ``x``."""
    return nullcontext() if kind.current is None else x.device


def lifted(value: Any, kind: Kind) -> Any:
    """A coefficient in the dtype of the arithmetic, where it is an array; else as a Python number."""
    if isinstance(value, tuple):
        return tuple(lifted(item, kind) for item in value)
    if isinstance(value, Real):
        return float(value)
    return kind.xp.astype(value, kind.compute) if is_array(value) else value


def kept_narrow(value: Any, kind: Kind) -> Any:
    """A coefficient by which CuPy widens no array of float32: CuPy 13 takes Python numbers from 3.4e38 on for float64."""
    if isinstance(value, tuple):
        return tuple([kept_narrow(item, kind) for item in value])
    wide = type(value) is float and abs(value) >= 3.4e38 and kind.compute == kind.xp.float32
    return kind.xp.float32(value) if wide else value


def number_of(value: Any, kind: Kind) -> Any:
    """A checked number as a float, unless it is an array of the parameters' own library that is traced or differentiated."""
    number = None if _is_differentiated(value, kind.xp) else as_number(value)
    return value if number is None else number


def _is_differentiated(value: Any, xp: Any) -> bool:
    """Whether torch follows what is computed of a 0-d array, backward or forward."""
    if isinstance(value, Real) or namespace(value) is not xp:
        return False
    forward = getattr(getattr(xp, "autograd", None), "forward_ad", None)
    return getattr(value, "requires_grad", False) or getattr(forward, "_current_level", -1) >= 0


def matches(x: Any, params: Array, kind: Kind, dtype: Any) -> bool:
    """Whether ``x`` goes with ``params`` element by element, in ``dtype``. It may be ``params`` itself."""
    if type(x) is not type(params) and not (is_array(x) and namespace(x) is kind.xp):  # of one type they are of one library
        return False
    if x.dtype is not dtype and x.dtype != dtype:
        return False
    if kind.one_device:
        return bool(x.shape == params.shape)
    return is_dense(x) and x.shape == params.shape and _same_devices(x, params, kind)


def is_dense(x: Array) -> bool:
    """Whether an array has a number for each place, in one shape, where torch's operations find it, unlike a sparse tensor."""
    layout = getattr(x, "layout", None)
    if layout is None:
        return True
    name = _name(layout)
    if name == "torch.strided":
        return not getattr(x, "is_nested", False)
    return name == "torch.jagged" or not name.startswith("torch.")  # JAX has layouts too, of dense arrays


_name = cache(str)


def _same_devices(x: Array, y: Array, kind: Kind) -> bool:
    """A traced array may have no device yet."""
    one, other = (devices(x), devices(y)) if kind.shards else (getattr(x, "device", None), getattr(y, "device", None))
    return one is None or other is None or bool(one == other)


def meets(x: Array, params: Array, kind: Kind) -> bool:
    """Whether a 0-d array is where ``params`` are, or on the CPU, from where torch takes it everywhere."""
    return str(devices(x)) == "cpu" or _same_devices(x, params, kind)


def devices(x: Array) -> Any:
    """Where an array is: a device, or those in their order that share it. None where a traced one does not say."""
    sharding = _sharding(x)
    if sharding is None:
        return getattr(x, "device", None)
    found = sharding._device_assignment
    return found if len(found) > 1 else found[0]


def _sharding(x: Any) -> Any:
    """That of an array of JAX, at a tenth of the cost of its ``device``; None of others, and of a traced one."""
    return getattr(x, "sharding", None) if hasattr(type(x), "sharding") else None


def placed(old: Any, new: Any) -> Any:
    """A result, or what it is computed from, shared among several devices as another array is, or each of a tuple of them."""
    if isinstance(old, tuple):
        return tuple([placed(o, n) for o, n in zip(old, new, strict=True)])
    return to_device(new, old.device) if is_shared(old) and new.device != old.device else new


def is_shared(x: Any) -> bool:
    """Whether several devices share an array: in JAX, where none says so of a traced one."""
    sharding = _sharding(x)
    return sharding is not None and len(sharding.device_set) > 1


def refuse(
    function: str, name: str, x: Any, params: Array, kind: Kind, dtype: Any, spec: optree.PyTreeSpec | None, i: int
) -> NoReturn:
    """Raises what says why ``x`` does not go with ``params``, naming the leaf and both sides."""
    path = path_of(spec, i)
    one, other = f"{function}: {name}{path}", f"params{path}"
    if not is_array(x):
        msg = f"{one} must be an array like {other}, got {shown(x)}"
        raise TypeError(msg)
    if namespace(x) is not kind.xp:
        msg = f"{one} is a {_type(x)} but {other} is a {_type(params)}; convert one of them, libraries are not mixed"
        raise TypeError(msg)
    if x.dtype != dtype:
        msg = f"{one} is {x.dtype} but must be {dtype}, as {other} is {params.dtype}; cast it yourself, nothing is promoted"
        raise TypeError(msg)
    if not is_dense(x):
        msg = f"{one} {_NOT_DENSE}"
        raise TypeError(msg)
    if x.shape != params.shape:
        msg = f"{one} has shape {tuple(x.shape)} but {other} has {tuple(params.shape)}; nothing is broadcast"
        raise ValueError(msg)
    msg = f"{one} is on device {devices(x)} but {other} is on {devices(params)}; move one of them"
    raise ValueError(msg)


_WITHOUT_NUMBERS = ("UninitializedParameter", "UninitializedBuffer")
"""What torch's lazy modules have before their first batch."""

_NOT_DENSE = "is a sparse or nested tensor, or one of MKL-DNN's; make it dense, or pass its parts as arrays"


def refuse_promoted(where: str, new: Array, params: Array, kind: Kind) -> None:
    """Raises TypeError where a subclass of NumPy's arrays has made another dtype of the numbers that it met."""
    if new.dtype != kind.dtype:
        what = f"{where} has become {new.dtype}, as {type(params).__name__} widens {params.dtype} where it meets a number"
        msg = f"{what}; take float64, or plain arrays"
        raise TypeError(msg)


def _type(x: object) -> str:
    return f"{type(x).__module__.split('.')[0]} {type(x).__name__}"


def path_of(spec: optree.PyTreeSpec | None, i: int) -> str:
    """Where leaf ``i`` is in its tree, as Python code that follows the tree's name: ``['w'][0]``."""
    return "" if spec is None else spec.accessors()[i].codify("")


def flatten_like(function: str, spec: optree.PyTreeSpec, name: str, tree: Tree) -> list[Any]:
    """The leaves of ``tree``, which must have the structure of params; a leaf of a slot may be None or a tuple."""
    try:
        return spec.flatten_up_to(tree)
    except ValueError:
        trees = _outline(spec), _outline(optree.tree_structure(tree))
        msg = f"{function}: {name} must have the tree of params, {trees[0]}, got {trees[1]}; {_difference(name, spec, tree)}"
        raise ValueError(msg) from None


def spread(function: str, name: str, value: Any, spec: optree.PyTreeSpec) -> list[Any]:
    """For each leaf of params the value of a tree that is a prefix of them, paired by key. None is a value too.

    Raises ValueError where it is no prefix, with the first difference.
    """
    try:
        found = _spread(value, spec)
    except ValueError:
        found = [value]
    if not all(type(x) is float or _is_value(x) for x in found):
        what = "a number, a 0-d array or a tree that is a prefix of params"
        msg = f"{function}: {name} must be {what}; {_difference(name, spec, value, prefix=True)}"
        raise ValueError(msg)
    return found


def _spread(value: Any, spec: optree.PyTreeSpec) -> list[Any]:
    if spec.is_leaf() or _is_value(value):
        return [value] * spec.num_leaves
    with suppress(ValueError):  # the whole tree, as a rule: the short way
        return spec.flatten_up_to(value)
    below = zip(_level(spec).flatten_up_to(value), spec.children(), strict=True)
    return [x for part, child in below for x in _spread(part, child)]


def _level(spec: optree.PyTreeSpec) -> optree.PyTreeSpec:
    """The container that a tree begins with, its items as leaves."""
    return spec.one_level() or spec


def _is_value(x: Any) -> bool:
    return x is None or optree.tree_is_leaf(x)


def _difference(name: str, spec: optree.PyTreeSpec, tree: Tree, *, prefix: bool = False, path: str = "") -> str:
    """The first place where a tree is not that of params, in words."""
    here, there = f"{name}{path}", f"params{path}"
    if prefix and _is_value(tree):
        return ""  # not here
    if spec.is_leaf():
        return f"{here} is {_container(optree.tree_structure(tree))}, but {there} is an array" if prefix else ""
    level = _level(spec)
    try:
        parts = level.flatten_up_to(tree)
    except ValueError:
        theirs = optree.tree_structure(tree)
        if theirs.is_leaf():
            return f"{here} is {shown(tree)}, but {there} is {_container(spec)}"
        dicts = [issubclass(one.type or object, dict) for one in (spec, theirs)]
        if theirs.num_children and not all(dicts) and theirs.type is not spec.type:
            return f"{here} is {_container(theirs)}, but {there} is {_container(spec)}"
        missing = [x for x, key in zip(level.accessors(), spec.entries(), strict=True) if key not in theirs.entries()]
        surplus = [x for x, key in zip(_level(theirs).accessors(), theirs.entries(), strict=True) if key not in spec.entries()]
        if missing:
            return f"{here}{missing[0].codify('')} is missing"
        if surplus:
            return f"{here}{surplus[0].codify('')} is superfluous"
        return f"{here} is {_container(theirs)}, but {there} is {_container(spec)}"
    below = zip(parts, spec.children(), level.accessors(), strict=True)
    found = (_difference(name, child, part, prefix=prefix, path=path + accessor.codify("")) for part, child, accessor in below)
    return next(filter(None, found), "")


def _outline(spec: optree.PyTreeSpec) -> str:
    text = str(spec).removeprefix("PyTreeSpec(").removesuffix(")")
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _container(spec: optree.PyTreeSpec) -> str:
    return "None" if spec.type is type(None) else f"a {spec.type.__name__}" if spec.type else "a leaf"


def stored(old: Any, new: Any, xp: Any) -> Any:
    """What the next state keeps of a result: nothing where the slot is None. ``xp`` where NumPy made a 0-d result a scalar."""
    if old is None:
        return None
    if isinstance(new, tuple):
        return tuple([stored(o, n, xp) for o, n in zip(old, new, strict=True)])
    return new if xp is None else xp.asarray(new)
