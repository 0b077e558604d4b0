"""What the helpers on trees must do: each check is a function of the package that is checked, which may have a fault in it."""

import math
from contextlib import nullcontext
from fractions import Fraction
from functools import partial
from typing import Any

import mpmath
import numpy as np
import optree
from hypothesis import strategies as st
from libraries import Library, to_numpy

import xopt
from xopt.backends import fuse
from xopt.conformance.structures import draw, parts

U = {"float32": 2.0**-24, "float64": 2.0**-53}
EXPONENTS = {"float16": (-24, 16), "bfloat16": (-133, 128), "float32": (-149, 128), "float64": (-1074, 1024)}
"""Of the smallest number, and beyond that of the largest one."""
DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}


# --- trees -----------------------------------------------------------------------------------------------------------------------


class Given:
    """A tree that was drawn, and what can be said of it."""

    def __init__(self, situation: Any) -> None:
        names: dict[str, Any] = {name: getattr(parts, name) for name in parts.__all__} | {"xopt": xopt, situation.library: None}
        if situation.library != "numpy":
            names[situation.library] = __import__(situation.library)
        with names["torch"].no_grad() if situation.library == "torch" else nullcontext():
            for line in situation.setup:
                exec(line, names)
                if line.startswith("params = "):
                    break
        self.special = situation.special
        self.tree = names["params"]
        self.leaves = optree.tree_leaves(self.tree)

    def __repr__(self) -> str:
        return f"<{self.tree!r}>"


def trees(library: Library) -> st.SearchStrategy[Given]:
    """Trees, containers, layouts, views, scalars, None, shared memory: those that the conformance suite draws as params."""
    dtypes = [*library.half, "float32", "float64"]
    drawn = st.sampled_from(dtypes).flatmap(lambda dtype: draw.situations(xopt.sgd, library.name, dtype, dtypes))
    return drawn.filter(lambda situation: not situation.graph).map(Given)


def dtype_of(x: Any) -> str:
    return str(np.dtype(x.dtype).newbyteorder("=") if isinstance(x, np.ndarray | np.generic) else x.dtype).split(".")[-1]


def rounded(x: Fraction, dtype: str) -> Fraction:
    """To nearest, ties to even; without the limits of the exponents."""
    if not x:
        return x
    low, _ = EXPONENTS[dtype]
    exponent = max(_exponent(x) - DIGITS[dtype], low)
    return round(x / Fraction(2) ** exponent) * Fraction(2) ** exponent


def _exponent(x: Fraction) -> int:
    """The e for which 2**(e - 1) <= abs(x) < 2**e."""
    e = abs(x.numerator).bit_length() - x.denominator.bit_length()
    return e + (abs(x) >= Fraction(2) ** e)


def compute_of(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def fractions(x: Any) -> list[Fraction]:
    return [Fraction(float(one)) for one in to_numpy(x).ravel()]


def assert_like(new: Any, old: Any, dtypes: Any = None) -> None:
    """The same containers, None, shapes and dtypes, byte order included."""
    assert optree.tree_structure(new) == optree.tree_structure(old)
    for x, y in zip(optree.tree_leaves(new), optree.tree_leaves(old), strict=True):
        assert tuple(x.shape) == tuple(y.shape)
        assert x.dtype == y.dtype if dtypes is None else dtype_of(x) == dtypes(dtype_of(y))


def assert_apart(new: Any, old: Any) -> None:
    """No result lies where something that was passed in does."""
    for x in optree.tree_leaves(new):
        for y in optree.tree_leaves(old):
            if isinstance(x, np.ndarray):
                assert not np.shares_memory(x, y)
            elif hasattr(x, "data_ptr") and x.numel():
                assert x.untyped_storage().data_ptr() != y.untyped_storage().data_ptr()


def assert_rounded(new: Any, exact: list[Fraction], dtype: str) -> None:
    """Each number is the exact one, rounded to the arithmetic's dtype and then to its own."""
    expected = [rounded(rounded(x, compute_of(dtype)), dtype) for x in exact]
    assert fractions(new) == expected


# --- checks ----------------------------------------------------------------------------------------------------------------------


def check_scale(tree: Any, given: Given, factor: float) -> None:
    new = tree.scale(given.tree, factor)
    assert_like(new, given.tree)
    assert_apart(new, given.tree)
    for x, y in zip(given.leaves, optree.tree_leaves(new), strict=True):
        dtype = dtype_of(x)
        met = rounded(Fraction(float(factor)), compute_of(dtype))
        assert_rounded(y, [one * met for one in fractions(x)], dtype)


def check_clip(tree: Any, given: Given, limit: float) -> None:
    new = tree.clip(given.tree, limit)
    assert_like(new, given.tree)
    assert_apart(new, given.tree)
    for x, y in zip(given.leaves, optree.tree_leaves(new), strict=True):
        most = rounded(Fraction(limit), compute_of(dtype_of(x)))
        assert_rounded(y, [max(-most, min(most, one)) for one in fractions(x)], dtype_of(x))


def check_accumulate(tree: Any, given: Given, other: Any) -> None:
    begun = tree.accumulate(None, given.tree)
    assert_like(begun, given.tree)
    assert_apart(begun, given.tree)
    total = tree.accumulate(begun, other)
    assert_like(total, given.tree)
    assert_apart(total, [begun, other])
    for x, y, z in zip(given.leaves, optree.tree_leaves(other), optree.tree_leaves(total), strict=True):
        assert_rounded(z, [one + two for one, two in zip(fractions(x), fractions(y), strict=True)], dtype_of(x))


def check_average(tree: Any, given: Given, other: Any, decay: float) -> None:
    begun = tree.average(None, given.tree, decay=decay)
    assert_like(begun, given.tree, dtypes=compute_of)
    assert_apart(begun, given.tree)
    mean = tree.average(begun, other, decay=decay)
    assert_like(mean, begun)
    assert_apart(mean, [begun, other])
    gain = Fraction(1.0 - decay)
    for x, y, z in zip(given.leaves, optree.tree_leaves(other), optree.tree_leaves(mean), strict=True):
        near = partial(rounded, dtype=compute_of(dtype_of(x)))
        pairs = zip(fractions(x), fractions(y), strict=True)
        expected = [near(m + near(near(gain) * near(one - m))) if gain < 1 else one for m, one in pairs]
        assert fractions(z) == expected
    back = tree.cast(mean, given.tree)
    assert_like(back, given.tree)
    for x, y in zip(optree.tree_leaves(mean), optree.tree_leaves(back), strict=True):
        assert fractions(y) == [rounded(one, dtype_of(y)) for one in fractions(x)]


def check_mean_of_all(tree: Any, library: Library) -> None:
    """By t all weigh the same: the mean of small integers is nearly exact, and that of equal numbers is exact."""
    mean = None
    for t in range(1, 9):
        mean = tree.average(mean, library.array([t, 3.0, -t]), t=t)
    assert np.allclose(to_numpy(mean), [4.5, 3.0, -4.5], rtol=2**-21, atol=0)
    assert to_numpy(mean)[1] == 3.0


def check_donated(tree: Any, library: Library) -> None:
    """A donated step writes over the params that were averaged; the average is that of a run that kept them."""
    params = {"w": library.array([1.0, -2.0, 3.0]), "n": None}
    grad = {"w": library.array([0.5, 0.25, -1.0]), "n": None}
    results = []
    for donate in (False, True):
        step = fuse(xopt.momentum, donate=donate)
        state = xopt.momentum_init(optree.tree_map(lambda x: x * 1.0, params))
        mean = tree.average(None, state.params)
        total = tree.accumulate(None, state.params)
        for t in range(2, 5):
            state = step(state, grad, lr=0.25)
            mean = tree.average(mean, state.params, t=t)
            total = tree.accumulate(total, state.params)
        results.append([to_numpy(x["w"]).tolist() for x in (mean, total, tree.scale(total, 0.25))])
    assert results[0] == results[1]


# Norms.


def exact_norm(leaves: list[np.ndarray]) -> Any:
    with mpmath.workprec(2400):
        return mpmath.sqrt(mpmath.fsum(mpmath.mpf(float(x)) ** 2 for leaf in leaves for x in leaf.ravel()))


def assert_near(norm: Any, exact: Any, relative: float, dtype: str) -> None:
    """Within the bound; in a subnormal result half a unit more."""
    low, high = EXPONENTS[dtype]
    got = float(to_numpy(norm))
    if exact >= mpmath.mpf(2) ** high * (1 - mpmath.mpf(2) ** (-DIGITS[dtype] - 1)):
        assert got == math.inf
        return
    assert abs(mpmath.mpf(got) - exact) <= relative * exact + mpmath.mpf(2) ** (low - 1), (got, exact)


def check_norm(tree: Any, library: Library, leaves: list[np.ndarray], dtypes: list[str]) -> None:
    """Within the derived bound of the exact norm."""
    given = [library.array(leaf, dtype) for leaf, dtype in zip(leaves, dtypes, strict=True)]
    widest = max(map(compute_of, dtypes))
    with np.errstate(over="ignore"):
        norm = tree.global_norm({"leaves": given, "none": None})
    assert dtype_of(norm) == widest
    assert norm.ndim == 0
    bound = tree.norms.bound([leaf.size for leaf in leaves], U[widest])
    assert_near(norm, exact_norm(list(map(to_numpy, given))), bound, widest)


def check_norm_of_a_tree(tree: Any, given: Given) -> None:
    """Of all structures: in float64, with room for the order."""
    norm = tree.global_norm(given.tree)
    leaves = [to_numpy(x).astype(np.float64) for x in given.leaves]
    u = U[max(compute_of(dtype_of(x)) for x in given.leaves)] if leaves else 0.0
    assert_near(norm, exact_norm(leaves), tree.norms.bound([leaf.size for leaf in leaves], u), "float64")


def check_clip_by_global_norm(tree: Any, given: Given, limit: float) -> None:
    new, norm = tree.clip_by_global_norm(given.tree, limit)
    assert_like(new, given.tree)
    assert_apart(new, given.tree)
    if not given.leaves:
        assert norm == 0.0
        return
    assert to_numpy(norm).tobytes() == to_numpy(tree.global_norm(given.tree)).tobytes()
    length = exact_norm([to_numpy(x).astype(np.float64) for x in given.leaves])
    widest = max(compute_of(dtype_of(x)) for x in given.leaves)
    off = tree.norms.bound([math.prod(x.shape) for x in given.leaves], U[widest]) + 4 * U[widest]
    for x, y in zip(given.leaves, optree.tree_leaves(new), strict=True):
        if float(to_numpy(norm)) <= float(np.dtype(widest).type(limit)):
            assert to_numpy(y).tobytes() == to_numpy(x).tobytes()
            continue
        _assert_shortened(x, y, length, limit, off)


def _assert_shortened(x: Any, y: Any, length: Any, limit: float, off: float) -> None:
    low, unit = EXPONENTS[dtype_of(x)][0], 2.0 ** -DIGITS[dtype_of(x)]
    for one, two in zip(to_numpy(x).ravel(), to_numpy(y).ravel(), strict=True):
        exact = mpmath.mpf(float(one)) / length * limit
        assert abs(mpmath.mpf(float(two)) - exact) <= (off + unit) * abs(exact) + mpmath.mpf(2) ** low


def check_clip_by_norm(tree: Any, given: Given, limit: float) -> None:
    """Each leaf as if it were alone."""
    new = tree.clip_by_norm(given.tree, limit)
    assert_like(new, given.tree)
    for x, y in zip(given.leaves, optree.tree_leaves(new), strict=True):
        assert to_numpy(y).tobytes() == to_numpy(tree.clip_by_global_norm(x, limit).tree).tobytes()


def check_extremes(tree: Any, library: Library) -> None:
    """Where the squares of what is near the ends of a dtype overflow or are lost, and where the norm itself is beyond it."""
    cases: list[tuple[list[float], str, float]] = [
        ([1e25] * 4, "float32", 2e25),
        ([3e38, 2e38], "float32", math.inf),
        ([3e-38, 4e-38], "float32", 5e-38),
        ([1e-30] * 9, "float32", 3e-30),
        ([3e200, 4e200], "float64", 5e200),
        ([3e-200, 4e-200], "float64", 5e-200),
        ([0.0, -0.0], "float32", 0.0),
        ([], "float32", 0.0),
    ]
    if "float16" in library.half:
        cases += [([6e4] * 4, "float16", 120000.0), ([6e-8] * 4, "float16", 1.1920929e-07)]
    if "bfloat16" in library.half:
        cases.append(([1e30] * 4, "bfloat16", 2e30))
    for values, dtype, expected in cases:
        x = library.array(values, dtype)
        with np.errstate(over="ignore"):
            norm = float(to_numpy(tree.global_norm(x)))
            new, _ = tree.clip_by_global_norm(x, 0.5)
            short = tree.clip_by_global_norm(x, 1e30 if max(values, default=0) < 1e30 else 1e38 * (norm < 1e38)).tree
        near = 2.0**-7 if dtype == "bfloat16" else 2.0**-20
        assert norm == expected or abs(norm / expected - 1) < near, (values, dtype, norm)
        numbers = to_numpy(new).astype(np.float64)
        assert np.isfinite(numbers).all()
        if expected > 0.5:
            assert abs(math.sqrt((numbers**2).sum()) / 0.5 - 1) < 2**-7, (values, dtype, new)
        elif library.name != "jax" or dtype == "float64":
            assert to_numpy(new).tobytes() == to_numpy(x).tobytes()
        assert short.dtype == x.dtype


def check_nonfinite(tree: Any, library: Library) -> None:
    """As torch and optax: an infinity makes itself NaN and the others 0, a NaN makes all NaN. Clipping by value keeps NaN alone."""
    inf, nan = math.inf, math.nan
    with np.errstate(all="ignore"):
        for values, norm, expected in (
            ([1.0, inf, -2.0], inf, [0.0, nan, -0.0]),
            ([1.0, -inf, inf], inf, [0.0, nan, nan]),
            ([1.0, nan, inf], nan, [nan, nan, nan]),
        ):
            x = [library.array(values), library.array([5.0])]
            new, got = tree.clip_by_global_norm(x, 1.0)
            assert np.array_equal(to_numpy(got), norm, equal_nan=True)
            assert np.array_equal(to_numpy(new[0]), expected, equal_nan=True)
            assert np.array_equal(to_numpy(new[1]), [nan if math.isnan(norm) else 0.0], equal_nan=True)
            clipped = to_numpy(tree.clip(x[0], 1.0))
            assert np.array_equal(clipped, [nan if v != v else max(-1.0, min(1.0, v)) for v in values], equal_nan=True)
