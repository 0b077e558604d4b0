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


def namespace(x: Array) -> Any:
    """The array API namespace of ``x``. Raises TypeError when ``x`` is not an array."""
    kind = type(x)
    found = _NAMESPACES.get(kind)
    if found is None:
        found = array_api_compat.array_namespace(x)
        _NAMESPACES[kind] = found
    return found


def register(kind: type, xp: Any) -> None:
    """Says which namespace arrays of a type have, so that nothing of them is looked at to find out."""
    _NAMESPACES[kind] = xp


def is_array(x: object) -> bool:
    """Whether ``x`` is an array of some array API library."""
    return is_known_array(x) or array_api_compat.is_array_api_obj(x)


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
    # the library's own may be 0 for NaN, and array-api-compat's writes through a mask: vmap and distributed tensors of torch refuse
    # that, and CuPy waits for the device
    if xp.__name__ == "array_api_compat.torch":
        bare = x.sign()
    elif xp.__name__ == "array_api_compat.cupy":
        bare = sys.modules["cupy"].sign(x)
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
