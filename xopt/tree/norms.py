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
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from xopt.arrays import beside, moved, type_of
from xopt.operations import Array, sqrt
from xopt.tree.walk import Flat, Leaf
from xopt.trees import Tree
from xopt.untraced import untraced

WIDTH = 1024
"""Of the vector that is left of a leaf: fewer would be more operations, more would be more memory."""

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
    with first.beside():
        dtype = widest(leaves).compute
        vectors = _vectors(xp, leaves, dtype)
        if not vectors:
            nothing = xp.sum(xp.astype(first.x, dtype))  # on the device of what has no numbers
            return Norm(xp.asarray(nothing), nothing, nothing + 1.0)
        scale = _scale(xp, vectors)
        parts = [moved(_folded(xp, _squares(v, scale), WIDTH), first.x) for v in vectors[:-1]]
        total = _folded(xp, xp.concat([*parts, moved(_squares(vectors[-1], scale), first.x)]), 1)[0]
        scaled = sqrt(total)
        return Norm(xp.asarray(scaled / scale), scaled, scale)


def widest(leaves: Sequence[Leaf]) -> Leaf:
    """The first of those with the widest arithmetic."""
    return max(leaves, key=lambda leaf: leaf.xp.finfo(leaf.compute).bits)


def _vectors(xp: Any, leaves: Sequence[Leaf], dtype: Any) -> list[Array]:
    """The numbers of each large leaf, and those of all small ones together; none where there are no numbers."""
    large: list[Array] = []
    small: list[Array] = []
    for leaf in leaves:
        size = math.prod(leaf.x.shape)
        if size:
            with leaf.beside():
                v = xp.reshape(leaf.lifted(dtype), (-1,))
            (large if size > WIDTH else small).append(v)
    if small:
        return [*large, xp.concat([moved(v, leaves[0].x) for v in small])]
    return [*large, large[0][:0]] if large else []


def _squares(v: Array, scale: Array) -> Array:
    with beside(v):
        v = v * moved(scale, v)
        return v * v


def _folded(xp: Any, v: Array, width: int) -> Array:
    """A vector of ``width`` numbers at most, which is a power of two, with the sum of ``v``."""
    n = v.shape[0]
    if n <= width:
        return v
    half = _half(n)
    rest = v[half:]
    head = v[: n - half] + rest
    v = head if n == 2 * half else xp.concat([head, v[n - half : half]])
    while half > width:
        half //= 2
        v = v[:half] + v[half:]
    return v


def _half(n: int) -> int:
    """The largest power of two below n."""
    return 1 << (n - 1).bit_length() - 1


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


def _scale(xp: Any, vectors: Sequence[Array]) -> Array:
    """The power of two by which the numbers are multiplied, as a 0-d array where the first vector is."""
    maxima = []
    for v in vectors:
        if v.shape[0]:
            with beside(v):
                maxima.append(moved(xp.max(xp.abs(v)), vectors[0]))
    largest = functools.reduce(xp.maximum, maxima)
    scale = xp.ones_like(largest)
    unit = _unit(xp, vectors[0].dtype)
    for exponent, by in BANDS[:2][::-1]:
        scale = xp.where(largest >= 2.0 ** (exponent * unit), 2.0 ** (by * unit), scale)
    for exponent, by in BANDS[2:]:
        scale = xp.where(largest < 2.0 ** (exponent * unit), 2.0 ** (by * unit), scale)
    return scale


def _unit(xp: Any, dtype: Any) -> int:
    """How many times further the exponents of a dtype reach than those of float32; at most as far as Python's floats."""
    return 1 if xp.finfo(dtype).bits == 32 else 8
