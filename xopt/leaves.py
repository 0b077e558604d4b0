"""One leaf of a tree of parameters: what a step must know of it, and whether other arrays go with it."""

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, NamedTuple, NoReturn

import optree
from array_api_compat import is_numpy_array

from xopt.checks import Interval, Precision, as_number
from xopt.operations import Array, is_array, namespace

Tree = Any
"""An array, or a dict, list, tuple or NamedTuple of trees: whatever ``optree`` flattens."""


class Numbers(dict[Any, Any]):
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
    numbers: Numbers | None  # coefficients as 0-d arrays, where that is cheaper
    prepare: Callable[..., tuple[Any, bool]]  # of the rule, hidden from compilers that trace Python


def kind_of(where: str, params: Any, intervals: Mapping[str, Interval], prepare: Callable[..., tuple[Any, bool]]) -> Kind:
    """The kind of a parameter. Raises TypeError, which begins with ``where``, for what is no array of real numbers."""
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
    for name, interval in intervals.items():
        if interval.sequence:
            continue
        low, high = interval.usable(precision)
        ranges[name] = (max(low, precision.smallest_normal) if interval.divisor else low, high)
    # A compiler that traces Python itself (torch.compile) is told to call the checks and the host arithmetic, not to
    # trace them: a Python step count then keeps its exact path, and a new learning rate recompiles nothing.
    untraced = getattr(getattr(xp, "compiler", None), "disable", None)
    prepare = untraced(prepare) if untraced else prepare
    is_numpy = is_numpy_array(params)
    numbers = Numbers(xp, compute) if is_numpy else None
    return Kind(xp, params.dtype, compute, narrow, is_numpy, precision, ranges, numbers, prepare)


def lifted(value: Any, kind: Kind) -> Any:
    """A coefficient in the dtype of the arithmetic, where it is an array; else as a Python number."""
    if isinstance(value, tuple):
        return tuple(lifted(item, kind) for item in value)
    if isinstance(value, float):
        return float(value)
    return kind.xp.astype(value, kind.compute) if is_array(value) else value


def number_of(value: Any, kind: Kind) -> Any:
    """A checked hyperparameter as a float, unless it is a 0-d array of the parameters' own library and may be traced."""
    if not isinstance(value, Real) and namespace(value) is kind.xp and kind.numbers is None:
        return value
    number = as_number(value)
    return value if number is None else number


def matches(x: Any, params: Array, kind: Kind, dtype: Any) -> bool:
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


def _same_device(x: Array, y: Array) -> bool:
    """A traced array may have no device yet."""
    one, other = getattr(x, "device", None), getattr(y, "device", None)
    return one is None or other is None or bool(one == other)


def refuse(
    function: str, name: str, x: Any, params: Array, kind: Kind, dtype: Any, spec: optree.PyTreeSpec | None, i: int
) -> NoReturn:
    """Raises what says why ``x`` does not go with ``params``, naming the leaf and both sides."""
    path = path_of(spec, i)
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


def path_of(spec: optree.PyTreeSpec | None, i: int) -> str:
    """Where leaf ``i`` is in its tree, as Python code that follows the tree's name: ``['w'][0]``."""
    return "" if spec is None else spec.accessors()[i].codify("")


def flatten_like(function: str, spec: optree.PyTreeSpec, name: str, tree: Tree) -> list[Any]:
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


def stored(old: Any, new: Any, xp: Any) -> Any:
    """What the next state keeps of a result: nothing where the slot is None. ``xp`` where NumPy made a 0-d result a scalar."""
    if old is None:
        return None
    if isinstance(new, tuple):
        return tuple([stored(o, n, xp) for o, n in zip(old, new, strict=True)])
    return new if xp is None or isinstance(old, float) else xp.asarray(new)
