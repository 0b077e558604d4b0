"""Arrays of any library: where they are, and whether they are dense."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

from array_api_compat import is_cupy_array, is_numpy_array, is_torch_array, to_device

from xopt.operations import NUMBERS, Array, namespace


def type_of(x: object) -> str:
    """The library and the type of an array, as a message says them: ``torch Tensor``."""
    return f"{type(x).__module__.split('.')[0]} {type(x).__name__}"


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


GIVEN_AWAY: dict[int, Any] = {}
"""Arrays by which a state that was given away is known, by their identity, as long as they live."""


def began(x: Array) -> None:
    """A new state begins with params that one which was given away may have had: what was given away is the state, not they."""
    GIVEN_AWAY.pop(id(x), None)


def same_shape(x: Array, y: Array) -> bool:
    """Whether two arrays have one shape. Sizes that a library does not know yet, NaN or None, are alike."""
    return bool(x.shape == y.shape) or (len(x.shape) == len(y.shape) and all(map(_same_size, x.shape, y.shape)))


def _same_size(n: Any, m: Any) -> bool:
    return bool(n == m) or (_unknown(n) and _unknown(m))


def _unknown(n: Any) -> bool:
    return n is None or bool(n != n)


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
    """A result, or what it is computed from, shared among several devices as another array is."""
    return to_device(new, old.device) if is_shared(old) and new.device != old.device else new


def is_shared(x: Any) -> bool:
    """Whether several devices share an array: in JAX, where none says so of a traced one."""
    sharding = _sharding(x)
    return sharding is not None and len(sharding.device_set) > 1


def beside(x: Array) -> AbstractContextManager[Any]:
    """A block in which new arrays are on the device of ``x``: CuPy puts them on its current one."""
    return x.device if "cupy" in sys.modules and is_cupy_array(x) else _HERE


_HERE = nullcontext()


def moved(x: Array, like: Array) -> Array:
    """A small array where another one of its library is. What is traced may not say where that is, and stays."""
    one, other = devices(x), devices(like)
    if one is None or other is None or bool(one == other):
        return x
    # what comes from the host JAX puts where it is needed, on several devices too
    return namespace(x).asarray(x.__array__()) if _sharding(x) is not None else to_device(x, like.device)


def array(x: Array) -> Array:
    """The same, but an array where NumPy has made a scalar, as it does of what has no dimensions."""
    return x if x.ndim or not is_numpy_array(x) else namespace(x).asarray(x)


def on_host(x: Array) -> Any:
    """An array of NumPy's, or a plain torch tensor on the CPU as one, in the same memory.

    None for others, and where something follows what is computed of the numbers: backward, forward, or with a tracer.
    """
    if is_numpy_array(x):
        return x
    if type(x).__name__ not in ("Tensor", "Parameter") or not is_torch_array(x) or x.device.type != "cpu":
        return None
    torch: Any = sys.modules["torch"]
    if torch_follows(torch) or x.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(x) or x.is_neg():
        return None
    return x.numpy()


def torch_follows(torch: Any) -> bool:
    """Whether torch follows each operation: in a block of forward differentiation, of a trace, or of a dispatch mode."""
    follows = torch.autograd.forward_ad._current_level >= 0 or torch._C._get_tracing_state() is not None
    return follows or bool(torch._C._len_torch_dispatch_stack())
