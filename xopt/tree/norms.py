"""Global norms: reductions in one written order, scaled so that no square overflows or is lost.

The sum is made of additions of arrays alone, each correctly rounded, in an order that the shapes decide. So it has the same bits
in every library, and its error grows with the logarithm of the count of numbers:

1. Each leaf of more than WIDTH numbers in row-major order, as a vector of n squares. Let h be the largest power of two below n:
   what lies beyond the first h is added to the first n - h, then the second half of the vector to the first, until WIDTH are left.
2. What is left of these, one after another, and then the leaves of WIDTH numbers or fewer, are one vector, which is added up in the
   same way, until one number is left.

Each number goes through at most ``additions(sizes)`` of them. Before it is squared it is multiplied by a power of two that the
largest of all numbers decides, which is exact: squares then lie where nothing overflows, and where what is lost to underflow is
beside the largest below half a unit in the last place of the sum.
"""

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from xopt.arrays import array, beside, moved, on_host, type_of
from xopt.operations import Array, namespace, sqrt
from xopt.tree.blocks import LARGE, half_of, squares_in_blocks
from xopt.tree.walk import Flat, Leaf
from xopt.trees import Tree
from xopt.untraced import untraced

WIDTH = 1024
"""Of the vector that is left of a leaf: fewer would be more operations, more would be more memory."""

STACKED = 1 << 16
"""Numbers of leaves of one size that are added up together: with more they would leave the cache."""

BANDS = ((92, -112), (36, -56), (-20, 56), (-76, 112))
"""Exponents of two in float32: from 2**92 on numbers are multiplied by 2**-112, from 2**36 on by 2**-56, below 2**-20 by 2**56,
and below 2**-76 by 2**112. In a dtype whose exponents reach further all of them are as many times larger."""


@untraced
def global_norm(tree: Tree) -> Any:
    """The square root of the sum of the squares of all numbers in a tree.

    Parameters
    ----------
    tree
        An array or a tree of arrays of real floating-point numbers of one library, of any shapes and dtypes. None is no array.

    Returns
    -------
    A 0-d array in the widest of the dtypes, float32 at least, on the device of the first leaf; 0.0 for a tree without arrays. NaN
    where the tree has a NaN, else infinite where it has an infinity, or where the norm itself is beyond the dtype.

    Raises
    ------
    TypeError
        For a leaf that is no array of real floating-point numbers, and for arrays of several libraries.

    Notes
    -----
    No square overflows or is lost to underflow: the norm of ``[1e25]`` in float32 is 1e25. The relative error is at most
    ``additions / 2 + 2`` units of roundoff of the dtype of the result, where the additions are log2 of the largest leaf and log2
    of what is left of all leaves, 1,024 numbers each at most: 17 units for 25 million numbers in 161 leaves. The order is fixed,
    so that all libraries return the same bits, as long as they round square roots correctly and do not flush subnormal numbers.
    """
    flat = Flat("global_norm", "tree", tree)
    return norm_of(flat.leaves).norm if flat.leaves else 0.0


class Norm(NamedTuple):
    """A norm, and what it was computed from: ``norm * scale == scaled``, but for overflow."""

    norm: Array
    scaled: Array
    scale: Array  # a power of two, by which the largest number becomes one whose square is far from overflow and underflow


def norm_of(leaves: Sequence[Leaf]) -> Norm:
    """Of one leaf or more, all of one library."""
    first = leaves[0]
    xp = first.xp
    for leaf in leaves:
        if leaf.xp is not xp:
            types = type_of(leaf.x), type_of(first.x)
            msg = f"{leaf.where} is a {types[0]} but the first leaf is a {types[1]}; a norm is of arrays of one library"
            raise TypeError(msg)
    dtype = widest(leaves).compute
    arrays = [leaf.wide(dtype) for leaf in leaves]
    here = list(itertools.takewhile(lambda x: x is not None, map(on_host, arrays)))
    if len(here) < len(arrays):
        return _norm(xp, arrays)
    found = _norm(namespace(here[0]), here)
    return found if xp is namespace(here[0]) else Norm(*map(xp.asarray, found))


def _norm(xp: Any, arrays: Sequence[Array]) -> Norm:
    """Of arrays of one dtype."""
    first = arrays[0]
    with beside(first):
        stacks, small = _vectors(xp, arrays)
        vectors = [stack.rows for stack in stacks] + [small] * (small is not None)
        if not vectors:
            nothing = xp.sum(first)  # on the device of what has no numbers
            return Norm(*map(array, (nothing, nothing, nothing + 1.0)))
        scale = _scale(xp, [moved(_largest(xp, v), first) for v in vectors])
        by = None if _is_numpy(xp) and scale == 1.0 else scale
        parts: dict[int, Array] = {}
        for stack in stacks:
            sums = moved(_folded(xp, _squares(xp, stack.rows, by), WIDTH), first)
            parts.update(zip(stack.places, sums if sums.ndim > 1 else [sums], strict=True))
        rest = [_squares(xp, small, by)] if small is not None else []
        total = _folded(xp, xp.concat([*(parts[i] for i in sorted(parts)), *rest]), 1)[0]
        scaled = sqrt(total)
        return Norm(*map(array, (scaled / scale, scaled, scale)))


def widest(leaves: Sequence[Leaf]) -> Leaf:
    """The first of those with the widest arithmetic."""
    of_each: dict[int, Leaf] = {}
    for leaf in leaves:
        of_each.setdefault(id(leaf.compute), leaf)
    return max(of_each.values(), key=lambda leaf: leaf.xp.finfo(leaf.compute).bits)


class Stack(NamedTuple):
    """Large arrays of one size."""

    rows: Array  # the numbers of each; those of a single one as a vector
    places: list[int]  # among all arrays


def _vectors(xp: Any, arrays: Sequence[Array]) -> tuple[list[Stack], Array | None]:
    """The numbers of the large arrays, and those of all small ones together, where the first is; None where there are none.

    NumPy's that are neither small nor very large are added up together: a call for each takes longer than its sum.
    """
    large: list[Stack] = []
    small: list[Array] = []
    same: dict[int, list[tuple[int, Array]]] = {}
    for i, x in enumerate(arrays):
        size = math.prod(x.shape)
        if not size:
            continue
        with beside(x):
            v = xp.reshape(x, (-1,))
        if size <= WIDTH:
            small.append(moved(v, arrays[0]))
        elif 2 * size > STACKED or not _is_numpy(xp):
            large.append(Stack(v, [i]))
        else:
            same.setdefault(size, []).append((i, v))
    for size, pairs in same.items():
        for begin in range(0, len(pairs), STACKED // size):
            places, vectors = zip(*pairs[begin : begin + STACKED // size], strict=True)
            large.append(Stack(xp.stack(vectors) if len(vectors) > 1 else vectors[0], list(places)))
    return large, xp.concat(small) if small else None


def _is_numpy(xp: Any) -> bool:
    """Whether a call takes as long as its numbers, and none waits for another: those of a GPU or a tracer are counted otherwise."""
    return getattr(xp, "__name__", "") == "array_api_compat.numpy"


def _squares(xp: Any, v: Array, scale: Array | None) -> Array:
    """The squares of numbers and of those of each row; of very many their sums, as far as ``_folded`` would go in part."""
    with beside(v):
        if v.ndim == 1 and v.shape[0] > LARGE and _is_numpy(xp):
            return squares_in_blocks(v, scale, WIDTH)
        if scale is not None:
            v = v * moved(scale, v)
        return v * v


def _folded(xp: Any, v: Array, width: int) -> Array:
    """A vector of ``width`` numbers at most, which is a power of two, with the sum of ``v``; the same of each row."""
    n = v.shape[-1]
    if n <= width:
        return v
    half = half_of(n)
    head = v[..., : n - half] + v[..., half:]
    v = head if n == 2 * half else xp.concat([head, v[..., n - half : half]], axis=-1)
    while half > width:
        half //= 2
        v = v[..., :half] + v[..., half:]
    return v


def additions(sizes: Iterable[int]) -> int:
    """Through how many additions a number goes at most, in a norm of leaves of these sizes."""
    sizes = [n for n in sizes if n]
    left = sum(min(n, WIDTH) for n in sizes)
    return max((_levels(n, WIDTH) for n in sizes), default=0) + _levels(left, 1)


def _levels(n: int, width: int) -> int:
    return 0 if n <= width else (n - 1).bit_length() - (width.bit_length() - 1)


def bound(sizes: Iterable[int], u: float) -> float:
    """The largest relative error of a norm of leaves of these sizes, where u is the unit roundoff of the dtype of the result.

    Each square is rounded, each addition, and the root, which halves the relative error of the sum: all terms are positive. The
    squares that underflow lose less than u, as there are fewer than 2**52 of them. A subnormal norm is off by half a unit more.
    """
    roundings = (additions(sizes) + 2) / 2 + 1
    return roundings * u / (1.0 - roundings * u)


def _largest(xp: Any, v: Array) -> Array:
    """The largest magnitude."""
    with beside(v):
        if v.shape[-1] > LARGE and _is_numpy(xp):
            return xp.maximum(xp.max(v), -xp.min(v))  # without an array of magnitudes
        return xp.max(xp.abs(v))


def _scale(xp: Any, maxima: Sequence[Array]) -> Array:
    """The power of two by which the numbers are multiplied, as a 0-d array."""
    largest = functools.reduce(xp.maximum, maxima)
    scale = xp.ones_like(largest)
    unit = _unit(xp, largest.dtype)
    for exponent, by in BANDS[:2][::-1]:
        scale = xp.where(largest >= 2.0 ** (exponent * unit), 2.0 ** (by * unit), scale)
    for exponent, by in BANDS[2:]:
        scale = xp.where(largest < 2.0 ** (exponent * unit), 2.0 ** (by * unit), scale)
    return scale


def _unit(xp: Any, dtype: Any) -> int:
    """How many times further the exponents of a dtype reach than those of float32; at most as far as Python's floats."""
    return 1 if xp.finfo(dtype).bits == 32 else 8
