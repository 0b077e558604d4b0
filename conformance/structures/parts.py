"""What the programs of situations are written with: numbers, containers, and arrays that are out of the ordinary."""

import copy
import functools
import math
import mmap
import pickle
import sys
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import optree
from numpy.lib.stride_tricks import as_strided
from optree import registry

from xopt import backends

__all__ = [
    "Decimal",
    "Fraction",
    "Layer",
    "OrderedDict",
    "Pair",
    "Tagged",
    "altered",
    "array_of",
    "as_strided",
    "beside",
    "copy",
    "cupy_array",
    "defaultdict",
    "fields_like",
    "functools",
    "imaginary",
    "jax_array",
    "laid",
    "namedtuple",
    "np",
    "numbers",
    "on_disk",
    "optree",
    "pickle",
    "placed",
    "read_only",
    "spiked",
    "strict_array",
    "tagged",
    "tensor",
    "unaligned",
    "waking",
]
"""The names that a program imports with ``*``."""


class Pair(NamedTuple):
    """A tree of two places."""

    weight: Any
    bias: Any


@dataclass
class Layer:
    """The same as a class that optree, and JAX where it is there, are told of."""

    weight: Any
    bias: Any


def _parts(layer: Any) -> Any:
    return (layer.weight, layer.bias), None, ("weight", "bias")


_Node: Any = Layer  # optree's types know collections alone
optree.register_pytree_node(
    _Node,
    _parts,
    lambda _, children: _Node(*children),
    path_entry_type=optree.GetAttrEntry,
    namespace=getattr(registry, "__GLOBAL_NAMESPACE"),  # its name is mangled in a class
)


MAPPINGS = ("dict", "OrderedDict", "defaultdict")
SEQUENCES = ("list", "tuple")
RECORDS = ("Pair", "Layer")
CONTAINERS = (*MAPPINGS, *SEQUENCES, *RECORDS)
"""What trees are made of."""


def tree_of(kind: str, leaves: list[Any], keys: Sequence[Any]) -> Any:
    """Leaves in a container that holds any number of them."""
    if kind in SEQUENCES:
        return tuple(leaves) if kind == "tuple" else list(leaves)
    items = dict(zip(keys, leaves, strict=False))
    makers: dict[str, Any] = {"dict": dict, "OrderedDict": OrderedDict, "defaultdict": partial(defaultdict, list)}
    return makers[kind](items)


ALTERED = ("turned", "longer", "shorter", "deeper", "flatter", "flatter")
"""How a tree may differ from another one."""


def altered(tree: Any, how: str) -> Any:
    """A tree like it: with its mappings in the other order, an item more or less, a list for an item, or arrays for containers."""
    if isinstance(tree, dict):
        keys, items = list(tree), list(tree.values())
        keys.append(max(keys, default=0) + 1 if all(isinstance(key, int) for key in keys) else "zz")
    elif isinstance(tree, list | tuple | Layer):
        keys, items = [], list(tree) if isinstance(tree, list | tuple) else [tree.weight, tree.bias]
    else:
        return [tree] if how == "deeper" else tree
    fixed = isinstance(tree, Pair | Layer)
    if how == "turned":
        items = [altered(item, how) for item in items]
    elif how == "longer" and items and not fixed:
        items.append(copy.deepcopy(items[0]))
    elif how == "shorter" and len(items) > 1 and not fixed:
        items.pop()
    elif how == "deeper" and items:
        items[0] = [items[0]]
    elif how == "flatter":
        items = [(optree.tree_leaves(item) or [item])[0] for item in items]
    if not isinstance(tree, dict):
        return type(tree)(*items) if fixed else type(tree)(items)
    pairs = list(zip(keys, items, strict=False))
    made = copy.copy(tree)
    made.clear()
    made.update(reversed(pairs) if how == "turned" else pairs)
    return made


class Tagged(np.ndarray):
    """A subclass that adds nothing."""


def numbers(shape: tuple[int, ...], k: int = 0, dtype: str = "float32") -> Any:
    """Multiples of 1/16 up to 15/8 that differ from place to place and from ``k`` to ``k``: every dtype holds them."""
    return (((37 * np.arange(math.prod(shape)) + 11 * k) % 61 - 30) / 16).reshape(shape).astype(dtype)


def tensor(shape: tuple[int, ...], k: int = 0, dtype: str = "float32", device: str = "cpu") -> Any:
    """The same of torch."""
    torch = import_module("torch")
    return torch.tensor(numbers(shape, k)).to(device=device, dtype=getattr(torch, dtype))


def jax_array(shape: tuple[int, ...], k: int = 0, dtype: str = "float32") -> Any:
    """The same of JAX."""
    return import_module("jax.numpy").asarray(numbers(shape, k), dtype)


def cupy_array(shape: tuple[int, ...], k: int = 0, dtype: str = "float32") -> Any:
    """The same of CuPy."""
    return import_module("cupy").asarray(numbers(shape, k, dtype))


def strict_array(shape: tuple[int, ...], k: int = 0, dtype: str = "float32") -> Any:
    """The same of array_api_strict."""
    return import_module("array_api_strict").asarray(numbers(shape, k, dtype))


def array_of(library: str, shape: tuple[int, ...], k: int = 0, dtype: str = "float32") -> Any:
    """The same of any backend."""
    return backends.get(library).asarray(numbers(shape, k), dtype)


def spiked(x: Any) -> Any:
    """The array with a NaN at its first place, an infinity at its last, and a negative zero between."""
    flat = np.ravel(x) if isinstance(x, np.ndarray) else x.reshape(-1)
    for at, value in ((len(flat) // 2, -0.0), (-1, math.inf), (0, math.nan)):
        if len(flat):
            flat[at] = value
    return flat.reshape(x.shape)


def read_only(x: Any) -> Any:
    """The array, no longer to be written to."""
    x.flags.writeable = False
    return x


def unaligned(x: Any) -> Any:
    """The numbers one byte off what their dtype asks for."""
    place = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    return _filled(place, x)


def on_disk(x: Any) -> Any:
    """The numbers in mapped memory, as ``np.memmap`` has them."""
    place: Any = np.ndarray.__new__(np.memmap, x.shape, x.dtype, mmap.mmap(-1, max(x.nbytes, 1)))
    return _filled(place, x)


def _filled(place: Any, x: Any) -> Any:
    """An array with the numbers of another. A tensor of a subclass may refuse to be written to by an index."""
    if hasattr(place, "copy_"):
        place.copy_(x)
    else:
        place[...] = x
    return place


def tagged(x: Any) -> Any:
    """A tensor of a subclass that adds nothing, and is not written to through a mask, as those of several devices are not."""
    torch = import_module("torch")
    return x.as_subclass(_tagged_tensor(torch))


@functools.cache
def _tagged_tensor(torch: Any) -> type:
    class TaggedTensor(torch.Tensor):  # type: ignore[misc]
        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.Tensor.__setitem__:
                msg = "it is not written to"
                raise RuntimeError(msg)
            return super().__torch_function__(function, types, args, kwargs or {})

    return TaggedTensor


def imaginary(x: Any) -> Any:
    """The numbers as the imaginary part of a conjugate: with torch's negative bit set."""
    return import_module("torch").complex(x, -x).conj().imag


def placed(x: Any, axis: int | None) -> Any:
    """A JAX array on all devices: divided along ``axis``, or whole on each."""
    jax = import_module("jax")
    mesh = jax.sharding.Mesh(jax.devices(), "d")
    parts: list[str | None] = [None] * x.ndim
    if axis is not None:
        parts[axis] = "d"
    return jax.device_put(jax.numpy.array(x), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*parts)))  # a copy


def laid(tree: Any, how: str) -> Any:
    """The arrays of a tree with other strides: ``"transposed"``, or ``"spread"`` over twice their memory."""
    return optree.tree_map(lambda x: _laid(x, how) if getattr(x, "ndim", 0) else x, tree)


def _laid(x: Any, how: str) -> Any:
    if isinstance(x, np.ndarray):
        place = np.zeros(x.shape[::-1], x.dtype).T if how == "transposed" else np.zeros((*x.shape, 2), x.dtype)[..., 0]
    else:
        order = tuple(reversed(range(x.ndim)))
        place = x.new_zeros(x.shape[::-1]).permute(order) if how == "transposed" else x.new_zeros((*x.shape, 2))[..., 0]
    return _filled(place, x)


def beside(tree: Any, over: int) -> Any:
    """The arrays of a tree one behind the other in one memory: the last ``over`` numbers of each are the first of the next."""
    pieces: dict[str, tuple[Any, int]] = {}

    def put(x: Any) -> Any:
        n = math.prod(getattr(x, "shape", ()))
        piece, at = pieces.get(str(getattr(x, "dtype", "")), (None, 0))
        if not getattr(x, "ndim", 0) or not n:
            return x
        if piece is None or at + n > len(piece):
            piece, at = (np.zeros(4096, x.dtype) if isinstance(x, np.ndarray) else x.new_zeros(4096)), 0
        pieces[str(x.dtype)] = piece, at + max(n - over, 1)
        place = piece[at : at + n].reshape(x.shape)
        return _filled(place, x)

    return optree.tree_map(put, tree)


def waking(slot: Any, params: Any) -> Any:
    """Decays for each leaf: 0 where the slot is None, but for the last such leaf. Where there is none such, what is no number."""
    spec = optree.tree_structure(params)
    lacking = [i for i, x in enumerate(spec.flatten_up_to(slot)) if x is None]
    return spec.unflatten([0.0 if i in lacking[:-1] else 0.5 for i in range(spec.num_leaves)]) if lacking else "none"


def fields_like(state: Any) -> Any:
    """The state as one of another type with the same fields."""
    return namedtuple("State", state._fields)(*state)


def register_with_jax() -> None:
    """Tells JAX of ``Layer``, where it is there."""
    if "jax" in sys.modules:
        _register()


@functools.cache
def _register() -> None:
    flatten: Callable[[Any], Any] = lambda layer: ((layer.weight, layer.bias), None)  # noqa: E731
    import_module("jax").tree_util.register_pytree_node(Layer, flatten, lambda _, children: Layer(*children))
