"""Sums of trees: scaled, accumulated, averaged; and a tree in the dtypes of another."""

from typing import Any

from xopt.checks import DOUBLE, Beta, Interval, Real, as_number, check_hyper, shown
from xopt.operations import is_array
from xopt.tree.walk import Flat, Leaf
from xopt.trees import Tree
from xopt.untraced import untraced

FACTOR: Interval = Real.__metadata__[0]
DECAY: Interval = Beta.__metadata__[0]
COUNT = Interval("[1, inf)")
FLOATS = ("float16", "bfloat16", "float32", "float64")


@untraced
def scale(tree: Tree, factor: Any) -> Tree:
    """Each number of a tree times a factor.

    Parameters
    ----------
    tree
        An array or a tree of arrays of real floating-point numbers. None is no array, and stays.
    factor
        A finite number, a 0-d array, or a tree of those that is a prefix of ``tree``. It is rounded to the dtype of the leaf,
        float32 at least, and widens nothing: not even a ``numpy.float64`` does.

    Returns
    -------
    A new tree of the same form, with the same dtypes; each product is rounded once, to float16 and bfloat16 once more.

    Raises
    ------
    TypeError, ValueError
        For a leaf that is no array of real floating-point numbers, and for a factor that is no finite number.
    """
    flat = Flat("scale", "tree", tree)
    factors = flat.numbers("factor", factor, FACTOR)
    return flat.each(lambda leaf: leaf.map(lambda x: x * factors[leaf.i]))


@untraced
def accumulate(total: Tree | None, tree: Tree) -> Tree:
    """The sum of two trees, such as the gradients of several batches.

    Parameters
    ----------
    total
        The sum so far, or None to begin one.
    tree
        What is added, of the same form and shapes, in the same or narrower dtypes. Where either has None for a leaf, the other's
        stands.

    Returns
    -------
    A new tree in the dtypes of ``total``, each sum rounded once. What begins is a copy, in memory of its own. Half-precision sums
    lose what is below half a unit in their last place: to keep it, begin with ``cast(tree, "float32")``.

    Raises
    ------
    TypeError, ValueError
        For a leaf that is no array of real floating-point numbers, and for trees, libraries, dtypes or shapes that do not match.
    """
    flat = Flat("accumulate", "tree" if total is None else "total", tree if total is None else total)
    if total is None:
        return flat.each(lambda leaf: leaf.copy(leaf.x.dtype))
    new = []
    for sum_, leaf in flat.pairs("tree", tree):
        if sum_ is not None and leaf is not None:
            _refuse_wider(sum_, leaf)
            new.append(sum_.map(lambda x, leaf=leaf, dtype=sum_.compute: x + leaf.lifted(dtype)))  # type: ignore[misc]
        elif leaf is not None:
            new.append(leaf.copy(leaf.x.dtype))
        else:
            new.append(None if sum_ is None else sum_.x)
    return flat.spec.unflatten(new)


def _refuse_wider(total: Leaf, leaf: Leaf) -> None:
    """Raises TypeError where a total cannot hold each number of what is added: float16 and bfloat16 do not hold each other."""
    have, needs = (x.xp.finfo(x.x.dtype) for x in (total, leaf))
    if needs.bits > have.bits or (needs.bits == have.bits and needs.eps != have.eps):
        msg = f"{leaf.where} is {leaf.x.dtype}, which does not fit in the {total.x.dtype} of total; cast one of them"
        raise TypeError(msg)


@untraced
def average(mean: Tree | None, tree: Tree, *, decay: Any = None, t: Any = None) -> Tree:
    """A running average of trees, such as the params of one step after another.

    Parameters
    ----------
    mean
        What this function returned before, or None to begin. A leaf of None begins too.
    tree
        What is averaged, of the same form and shapes: None where nothing is, which leaves that leaf of the mean as it is.
    decay
        In [0, 1): the mean forgets by this factor, ``mean + (1 - decay) * (tree - mean)``, and remembers about
        1 / (1 - decay) trees.
    t
        Instead: the number of trees with this one, 1 at the first. All of them weigh the same, ``mean + (tree - mean) / t``.

    Returns
    -------
    A new tree of arrays in float32, or in the dtypes of ``tree`` where they are wider, as the slots of a state: in half precision
    a decay of 0.999 would change nothing. ``cast(mean, params)`` has the dtypes of the params. All of it is in memory of its own,
    so that a step with ``donate=True``, which writes over the params, leaves it alone.

    Raises
    ------
    TypeError, ValueError
        For a leaf that is no array of real floating-point numbers; for trees, libraries or shapes that do not match; for a decay
        out of [0, 1), a t below 1, both of them, or none beside a mean; and a t beyond 1 where nothing has been averaged yet.
    """
    gain = None if mean is None and decay is None and t is None else _gain(mean, decay, t)
    flat = Flat("average", "tree", tree)
    if mean is None:
        return flat.each(lambda leaf: leaf.copy(leaf.compute))
    new = []
    for leaf, old in flat.pairs("mean", mean):
        if leaf is None:
            new.append(None if old is None else old.x)
        elif old is None or (type(gain) is float and gain == 1.0):
            new.append(leaf.copy(leaf.compute))
        else:
            _refuse_narrow(old, leaf)
            new.append(old.map(lambda m, leaf=leaf, old=old: m + _met(gain, old) * (leaf.lifted(old.compute) - m)))  # type: ignore[misc]
    return flat.spec.unflatten(new)


def _gain(mean: Tree | None, decay: Any, t: Any) -> Any:
    """How much of what comes enters the mean: a float, or a 0-d array that is traced."""
    if (decay is None) == (t is None):
        msg = f"average: give decay or t, one of the two; got decay={shown(decay)}, t={shown(t)}"
        raise TypeError(msg)
    if t is None:
        check_hyper("average", "decay", decay, DECAY, DOUBLE)
        known = as_number(decay)
        return 1.0 - (decay if known is None else known)
    check_hyper("average", "t", t, COUNT, DOUBLE)
    known = as_number(t)
    if known is not None and known > 1 and mean is None:
        msg = f"average: t={shown(t)} but mean is None, as before the first; count from 1, or pass what average returned before"
        raise ValueError(msg)
    return 1.0 / (t if known is None else known)


def _met(gain: Any, leaf: Leaf) -> Any:
    return leaf.xp.astype(gain, leaf.compute) if is_array(gain) else gain


def _refuse_narrow(mean: Leaf, leaf: Leaf) -> None:
    if mean.x.dtype != leaf.compute:
        msg = f"{mean.where} is {mean.x.dtype} but must be {leaf.compute}, as average returns it of {leaf.x.dtype}"
        raise TypeError(msg)


@untraced
def cast(tree: Tree, like: Any) -> Tree:
    """A tree in other dtypes, in memory of its own.

    Parameters
    ----------
    tree
        An array or a tree of arrays of real floating-point numbers. None is no array, and stays.
    like
        A tree of the same form, whose dtypes are taken, or the name of a dtype such as ``"float32"``, for all.

    Returns
    -------
    A new tree of the same form, each number rounded once. What is beyond the range of its dtype becomes infinite.

    Raises
    ------
    TypeError, ValueError
        For a leaf that is no array of real floating-point numbers, for trees, libraries or shapes that do not match, and for a
        dtype that the library does not have.
    """
    flat = Flat("cast", "tree", tree)
    if isinstance(like, str):
        return flat.each(lambda leaf: leaf.copy(_dtype(leaf, like)))
    new = [leaf and leaf.copy((other or leaf).x.dtype) for leaf, other in flat.pairs("like", like)]
    return flat.spec.unflatten(new)


def _dtype(leaf: Leaf, name: str) -> Any:
    dtype = getattr(leaf.xp, name, None) if name in FLOATS else None
    if dtype is None:
        there = ", ".join(one for one in FLOATS if hasattr(leaf.xp, one))
        msg = f"{leaf.where}: like={name!r} is no dtype of real floating-point numbers here; there are {there}"
        raise ValueError(msg)
    return dtype
