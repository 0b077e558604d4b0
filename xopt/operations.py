"""The few array functions that a rule may use beside + - * and /, found through the array's own namespace.

Everything here is elementwise and, in a library that follows the array API standard, correctly rounded, so that one text
gives the same bits everywhere. What is missing is missing on purpose: see "The numerics laws" in the documentation.
"""

import sys
from collections.abc import Iterable
from typing import Any

import array_api_compat

Array = Any
"""An array of any library that follows the Python array API standard, or a stand-in that carries its operators."""

NUMBERS: set[type] = {float}
"""The types of coefficients that are numbers, which may be looked at; arrays may be traced."""

_NAMESPACES: dict[type, Any] = {}
_REGISTERED: dict[type, "_Namespace"] = {}  # by the user; their subclasses have it too

NEEDED = (
    *("asarray", "astype", "zeros_like", "where", "sqrt", "sign", "log", "minimum", "maximum"),
    *("isdtype", "finfo", "iinfo", "float32"),
)
"""What a namespace must offer."""


def namespace(x: Array) -> Any:
    """The array API namespace of ``x``. Raises TypeError when ``x`` is not an array."""
    kind = type(x)
    found = _NAMESPACES.get(kind)
    if found is None:
        found = _registered(kind) or array_api_compat.array_namespace(x)
        _NAMESPACES[kind] = found
    return found


def register(kind: type, xp: Any) -> None:
    """Says which namespace arrays of a type have, so that nothing of them is looked at to find out."""
    _NAMESPACES[kind] = xp


def register_namespace(cls: Any, xp: Any) -> None:
    """Makes arrays of a class, and of its subclasses, known to every rule: for libraries without ``__array_namespace__``.

    Parameters
    ----------
    cls
        A class of arrays, which have ``shape``, ``ndim``, ``dtype``, Python's operators on numbers, comparisons, ``abs`` and
        ``float``. One that was registered before gets the new namespace.
    xp
        A module or object with what rules use of the array API standard, by its names there: ``asarray``, ``astype``,
        ``zeros_like``, ``where``, ``sqrt``, ``sign``, ``log``, ``minimum``, ``maximum``, ``isdtype``, ``finfo``, ``iinfo`` and
        ``float32``. The bits are NumPy's where the operators and ``sqrt`` are correctly rounded.

    Raises
    ------
    TypeError
        ``cls`` is no class, or one whose arrays name their namespace themselves; ``xp`` lacks something, which is named.
    """
    if not isinstance(cls, type):
        msg = f"register_namespace: cls must be a class of arrays, got {cls!r}"
        raise TypeError(msg)
    if hasattr(cls, "__array_namespace__"):
        msg = f"register_namespace: {cls.__name__} has __array_namespace__, so that rules take its arrays as they are"
        raise TypeError(msg)
    missing = [name for name in NEEDED if not hasattr(xp, name)]
    if missing:
        msg = f"register_namespace: xp must offer {', '.join(NEEDED)}; {xp!r} lacks {', '.join(missing)}"
        raise TypeError(msg)
    _REGISTERED.setdefault(cls, _Namespace()).xp = xp
    for kind in [kind for kind in _NAMESPACES if issubclass(kind, cls)]:  # found before
        del _NAMESPACES[kind]


class _Namespace:
    """What was registered for a class, last: one object for good, as by it arrays of one library are known."""

    xp: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.xp, name)


def _registered(kind: type) -> Any:
    return next((_REGISTERED[base] for base in kind.__mro__ if base in _REGISTERED), None) if _REGISTERED else None


def is_array(x: object) -> bool:
    """Whether ``x`` is an array of some array API library, or of a registered class."""
    return is_known_array(x) or _registered(type(x)) is not None or array_api_compat.is_array_api_obj(x)


def is_known_array(x: object) -> bool:
    """Whether an array of the type of ``x`` has been seen: the cheap half of ``is_array``, which a compiler can trace."""
    return type(x) in _NAMESPACES


def are_known_arrays(some: Iterable[object]) -> bool:
    """Whether each of them is such an array."""
    return set(map(type, some)) <= _NAMESPACES.keys()


def is_subclass(x: Array) -> bool:
    """Whether ``x`` is of a subclass of NumPy's arrays, such as one with a mask or a unit, which its numbers alone do not have."""
    if not array_api_compat.is_numpy_array(x):
        return False
    xp = namespace(x)
    return type(x) not in (xp.ndarray, xp.memmap) and not isinstance(x, xp.generic)


def has_dtype(x: Array, kind: str | tuple[str, ...]) -> bool:
    """Whether the dtype of ``x`` is of this kind, in the words of the array API standard. One without a word there is of none."""
    try:
        return bool(namespace(x).isdtype(x.dtype, kind))
    except TypeError:
        return False


def sqrt(x: Array) -> Array:
    return namespace(x).sqrt(x)


def sign(x: Array) -> Array:
    """-1, 0 or 1; NaN stays NaN."""
    xp = namespace(x)
    name = getattr(xp, "__name__", "")
    # the library's own may be 0 for NaN, and array-api-compat's writes through a mask: vmap and distributed tensors of torch refuse
    # that, and CuPy waits for the device
    if name == "array_api_compat.torch":
        bare = x.sign()
    elif name == "array_api_compat.cupy":
        bare = sys.modules["cupy"].sign(x)
    elif name == "mlx.core":
        bare = xp.sign(x)
    else:
        return xp.sign(x)
    return xp.where(x == x, bare, x)


def average(mean: Array | None, value: Array, gain: Any) -> Array:
    """Exponential moving average, ``mean + gain * (value - mean)`` with ``gain = 1 - beta``.

    In this form a ``gain`` that is rounded to float32 still makes a true average; ``beta * mean + (1 - beta) * value`` with both
    factors rounded does not (it is off by 1.7e-4 at beta = 0.9999). ``mean`` is None where beta = 0: nothing is remembered.
    """
    if mean is None:
        return value
    if type(gain) in NUMBERS and gain == 1.0:  # beta = 0: the sum below would lose the value beside a large mean
        return value * gain
    return mean + gain * (value - mean)


def accumulate(total: Array | None, value: Array, beta: Any) -> Array:
    """Undamped momentum, ``beta * total + value``. ``total`` is None where beta = 0: nothing is remembered."""
    if total is None:
        return value
    return beta * total + value
