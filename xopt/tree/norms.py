"""Global norms: reductions in one written order, scaled so that no square overflows or is lost.

The sum is made of additions of arrays alone, each correctly rounded, in an order that the shapes decide. So it has the same bits
in every library, and its error grows with the logarithm of the count of numbers:

1. Each leaf in row-major order, as a vector of n squares. Let h be the largest power of two below n: what lies beyond the first h
   is added to the first n - h, and then the second half of the vector to the first half, until WIDTH are left.
2. What is left of all leaves, one after another, is one vector, which is added up in the same way, until one number is left.

Each number goes through at most ``additions(sizes)`` of them. Before it is squared it is multiplied by a power of two that the
largest of all numbers decides, which is exact: squares then lie where nothing overflows, and where what is lost to underflow is
beside the largest below half a unit in the last place of the sum.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from xopt.arrays import moved
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
            kinds = [f"{type(x.x).__module__.split('.')[0]} {type(x.x).__name__}" for x in (leaf, first)]
            msg = f"{leaf.where} is a {kinds[0]} but the first leaf is a {kinds[1]}; a norm is of arrays of one library"
            raise TypeError(msg)
    with first.beside():
        dtype = widest(leaves).compute
        scale = _scale(xp, dtype, leaves)
        parts = [_folded(xp, _squares(leaf, scale, dtype), WIDTH) for leaf in leaves if 0 not in leaf.x.shape]
        if not parts:
            return Norm(scale * 0.0, scale * 0.0, scale)
        total = _folded(xp, xp.concat([moved(part, first.x) for part in parts]), 1)[0]
        scaled = sqrt(total)
        return Norm(xp.asarray(scaled / scale), scaled, scale)


def widest(leaves: Sequence[Leaf]) -> Leaf:
    """The first of those with the widest arithmetic."""
    return max(leaves, key=lambda leaf: leaf.xp.finfo(leaf.compute).bits)


def _squares(leaf: Leaf, scale: Array, dtype: Any) -> Array:
    with leaf.beside():
        x = leaf.xp.reshape(leaf.lifted(dtype) * moved(scale, leaf.x), (-1,))
        return x * x


def _folded(xp: Any, v: Array, width: int) -> Array:
    """A vector that has the sum of ``v``, of ``width`` numbers at most, which is a power of two."""
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


def _scale(xp: Any, dtype: Any, leaves: Sequence[Leaf]) -> Array:
    """The power of two by which the numbers are multiplied, as a 0-d array."""
    largest = None
    first = leaves[0].x
    for leaf in leaves:
        if 0 in leaf.x.shape:
            continue
        with leaf.beside():
            one = moved(xp.astype(xp.max(xp.abs(leaf.x)), dtype), first)
        largest = one if largest is None else xp.maximum(largest, one)
    if largest is None:
        return xp.sum(xp.astype(first, dtype)) + 1.0  # on the device of what has no numbers
    scale = xp.ones_like(largest)
    unit = _unit(xp, dtype)
    for exponent, by in BANDS[:2][::-1]:
        scale = xp.where(largest >= 2.0 ** (exponent * unit), 2.0 ** (by * unit), scale)
    for exponent, by in BANDS[2:]:
        scale = xp.where(largest < 2.0 ** (exponent * unit), 2.0 ** (by * unit), scale)
    return scale


def _unit(xp: Any, dtype: Any) -> int:
    """How many times further the exponents of a dtype reach than those of float32; at most as far as Python's floats."""
    return 1 if xp.finfo(dtype).bits == 32 else 8
