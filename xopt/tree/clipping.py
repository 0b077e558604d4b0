"""Clipping: by value, and by the norm of a leaf or of a whole tree."""

from typing import Any, NamedTuple

from xopt.arrays import moved, on_host
from xopt.checks import Interval
from xopt.operations import Array
from xopt.tree.norms import Norm, norm_of, widest
from xopt.tree.walk import Flat, Leaf
from xopt.trees import Tree
from xopt.untraced import untraced

LIMIT = Interval("[0, inf)")


class Clipped(NamedTuple):
    """What ``clip_by_global_norm`` returns."""

    tree: Tree  # of the arrays whose norm is the limit at most
    norm: Any  # a 0-d array: the global norm before


@untraced
def clip(tree: Tree, limit: Any) -> Tree:
    """Each number of a tree, moved into ``[-limit, limit]``.

    Parameters
    ----------
    tree
        An array or a tree of arrays of real floating-point numbers. None is no array, and stays.
    limit
        In [0, inf): a number, a 0-d array, or a tree of those that is a prefix of ``tree``.

    Returns
    -------
    A new tree of the same form, with the same dtypes. NaN stays NaN, and an infinity becomes ``limit`` with its sign. The limit is
    rounded to the dtype of the leaf.

    Raises
    ------
    TypeError, ValueError
        For a leaf that is no array of real floating-point numbers, and for a limit that is no number or out of its range.
    """
    flat = Flat("clip", "tree", tree)
    limits = flat.numbers("limit", limit, LIMIT)

    def clipped(leaf: Leaf) -> Array:
        most, where = limits[leaf.i], leaf.xp.where
        return leaf.map(lambda x: where(x > most, most, where(x < -most, -most, x)))

    return flat.each(clipped)


@untraced
def clip_by_norm(tree: Tree, limit: Any) -> Tree:
    """Each leaf of a tree, scaled down to the norm ``limit`` where its own norm is larger: see ``clip_by_global_norm``.

    Parameters
    ----------
    tree
        An array or a tree of arrays of real floating-point numbers. None is no array, and stays.
    limit
        In [0, inf): a number, a 0-d array, or a tree of those that is a prefix of ``tree``.

    Returns
    -------
    A new tree of the same form, with the same dtypes.
    """
    flat = Flat("clip_by_norm", "tree", tree)
    limits = flat.numbers("limit", limit, LIMIT)
    return flat.each(lambda leaf: _shortened(leaf, _factors(leaf.xp, norm_of([leaf]), limits[leaf.i])))


@untraced
def clip_by_global_norm(tree: Tree, limit: Any) -> Clipped:
    """A tree scaled down to the global norm ``limit`` where its own is larger, and the norm that it had.

    Parameters
    ----------
    tree
        An array or a tree of arrays of real floating-point numbers of one library, such as a gradient. None is no array, and stays.
    limit
        In [0, inf): a number, or a 0-d array, which may be traced.

    Returns
    -------
    Clipped
        ``tree``: new arrays of the same dtypes, or the same numbers, bit for bit, where the norm is ``limit`` at most.
        ``norm``: as ``global_norm`` returns it.

    Raises
    ------
    TypeError, ValueError
        For a leaf that is no array of real floating-point numbers, for arrays of several libraries, and for a limit that is no
        number or out of its range.

    Notes
    -----
    Each number becomes ``number * (1 / norm) * limit``, in float32 at least, with three roundings and the error of the norm, and is
    rounded once more to a narrower dtype. Where the norm is not finite there is nothing to scale by, and IEEE arithmetic says so,
    as in torch's ``clip_grad_norm_`` and optax's ``clip_by_global_norm``: an infinity makes itself NaN and all finite ones 0, and
    a NaN makes all numbers NaN. ``xopt.skip_nonfinite`` skips such a step. A norm of finite numbers that is beyond the dtype is
    infinite too, but what is clipped is as if it were not.
    """
    flat = Flat("clip_by_global_norm", "tree", tree)
    if not flat.leaves:
        return Clipped(tree, 0.0)
    norm = norm_of(flat.leaves)
    most = flat.number("limit", limit, LIMIT, widest(flat.leaves))
    factors = _factors(flat.leaves[0].xp, norm, most)
    return Clipped(flat.each(lambda leaf: _shortened(leaf, factors)), norm.norm)


class Factors(NamedTuple):
    """What a leaf is multiplied by, one after the other, so that none of them overflows or is lost: 0-d arrays."""

    long: Any  # whether the norm is above the limit, or NaN: True or False where that is known, else an array
    by: list[Array]  # a scale, the inverse of the norm, which is scaled, and the limit, without those known to be 1
    dtype: Any


def _factors(xp: Any, norm: Norm, limit: Any) -> Factors:
    one = xp.ones_like(norm.scaled)
    long = ~(norm.norm <= limit)
    inverse = one / xp.where(long, norm.scaled, one)  # of one number: an array over a number JAX multiplies by the inverse too
    scale, most = xp.where(long, norm.scale, one), xp.where(long, one * limit, one)
    seen = on_host(long)
    if type(limit) is not float or seen is None:
        return Factors(long, [scale, inverse, most], one.dtype)
    return Factors(bool(seen), [scale] * bool(scale != 1.0) + [inverse] + [most] * (limit != 1.0), one.dtype)


def _shortened(leaf: Leaf, factors: Factors) -> Array:
    """A leaf over its norm, times the limit, where that norm is longer than the limit."""
    long = factors.long
    if long is False:
        return leaf.copy(leaf.x.dtype)
    with leaf.beside():
        x = leaf.lifted(factors.dtype)
        if long is True:
            first, *others = factors.by  # which torch takes from the CPU everywhere
            y = x * first
            for factor in others:
                y *= factor  # y is new, and nothing follows it
            return leaf.stored(y)
        y = x
        for factor in factors.by:
            y = y * moved(factor, x)
        return leaf.stored(leaf.xp.where(moved(long, x), y, x))
