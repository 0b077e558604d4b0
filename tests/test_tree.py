"""The helpers on trees: held to exact arithmetic on drawn trees of every library, to other libraries, and to planted faults."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import mpmath
import numpy as np
import optree
import pytest
import tree_checks as checks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libraries import LIBRARIES, Library, normal, to_numpy

import xopt
from xopt import tree
from xopt.backends import fuse
from xopt.conformance.faults import planting
from xopt.conformance.faults.fault import Edit, SuiteFault

drawing = settings(max_examples=15, suppress_health_check=list(HealthCheck))
NUMBERS, LIMITS, DECAYS = [0.5, 1.0, -0.375, 0.1, 3.0, -1e-3], [0.0, 0.3, 1.0, 5.0], [0.9, 0.0, 0.75, 0.9999]


def structured(data: Any, library: Library) -> Any:
    found = data.draw(checks.trees(library))
    if found.special and library.name == "numpy":
        with pytest.raises(TypeError, match=r"^scale: tree.* of which only the numbers would be used"):
            tree.scale(found.tree, 2.0)
        return None
    return found


@pytest.mark.filterwarnings("ignore:The .*NumPy array is not writable:UserWarning")
@drawing
@given(data=st.data())
def test_helpers_are_exact_on_all_structures(library, data):
    found = structured(data, library)
    if found is None:
        return
    before = [to_numpy(x).tobytes() for x in found.leaves]
    factor, limit, decay = (
        data.draw(st.sampled_from(options)) for options in (NUMBERS, [0.0, 0.3, 1.0, 5.0], [0.9, 0.0, 0.75, 0.9999])
    )
    with library.xp.no_grad() if library.name == "torch" else np.errstate():
        checks.check_scale(tree, found, factor)
        checks.check_clip(tree, found, limit)
        other = tree.scale(found.tree, factor)
        checks.check_accumulate(tree, found, other)
        checks.check_average(tree, found, other, decay)
        checks.check_norm_of_a_tree(tree, found)
        checks.check_clip_by_global_norm(tree, found, limit)
        checks.check_clip_by_norm(tree, found, limit)
    assert [to_numpy(x).tobytes() for x in found.leaves] == before


def test_average_by_count_and_under_donation(library):
    checks.check_mean_of_all(tree, library)
    if library.name != "array_api_strict":  # which has no compiler
        checks.check_donated(tree, library)


# --- norms -----------------------------------------------------------------------------------------------------------------------


@st.composite
def vectors(draw: Any, dtype: str, flushes: bool) -> np.ndarray:
    """Numbers of one dtype from a range of exponents, which may reach from its smallest number to its largest."""
    low, high = checks.EXPONENTS[dtype]
    low += checks.DIGITS[dtype] if flushes else 0
    start, stop = sorted(draw(st.tuples(st.integers(low, high - 1), st.integers(low, high - 1))))
    n = draw(st.sampled_from([0, 1, 2, 3, 5, 8, 100, 1023, 1024, 1025, 2049, 5000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    x = np.ldexp(rng.uniform(1.0, 1.98, n) * rng.choice([-1.0, 1.0], n), rng.integers(start, stop + 1, n))
    return np.where(rng.random(n) < 0.1, 0.0, x)


@drawing
@given(data=st.data())
def test_norms_are_within_their_bound(library, data):
    dtypes = data.draw(st.lists(st.sampled_from([*library.half, "float32", "float64"]), min_size=1, max_size=3))
    leaves = [data.draw(vectors(dtype, library.name == "jax")) for dtype in dtypes]
    checks.check_norm(tree, library, leaves, dtypes)


def test_norms_at_the_ends_of_a_dtype(library):
    checks.check_extremes(tree, library)


def test_what_is_not_finite(library):
    checks.check_nonfinite(tree, library)


def test_long_sums_lose_nothing():
    """Added one after the other in float32, a sum of equal squares stops at 2**24 of them."""
    n = 20_000_000
    assert float(tree.global_norm(np.ones(n, np.float32))) == pytest.approx(math.sqrt(n), rel=2**-22)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_norms_have_the_same_bits_in_all_libraries(dtype):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shapes = [(3, 700), (64, 64), (), (1,), (5000,)][: 1 + seed % 5]
        values = [(rng.standard_normal(shape) * 10.0 ** rng.uniform(-4, 4)).astype("float32") for shape in shapes]
        found = {}
        for library in LIBRARIES.values():
            if dtype in ("float32", "float64", *library.half):
                with library.session():
                    new, norm = tree.clip_by_global_norm([library.array(x, dtype) for x in values], 1.0)
                    found[library.name] = norm, to_numpy(norm).item(), [to_numpy(x).tobytes() for x in new]
        reference, *others = found.values()
        assert all(other[1:] == reference[1:] for other in others)


@pytest.mark.parametrize("beyond", [1, 2047, 2048, 2049, 70_000, 1 << 17])
@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_very_many_numbers_are_added_up_in_the_order_of_few(beyond, scale):
    """Block by block, as NumPy's are, and not, as those of array-api-strict."""
    x = normal(beyond, (1 << 17) + beyond).astype(np.float32) * np.float32(scale)
    x[-1] = 40 * scale
    found = [to_numpy(tree.global_norm(LIBRARIES[name].array(x))) for name in ("numpy", "array_api_strict") if name in LIBRARIES]
    assert found[0] == found[-1]
    assert float(found[0]) == pytest.approx(float(np.linalg.norm(x.astype(np.float64))), rel=2e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # which torch itself calls for jvp
def test_torch_follows_a_norm_where_it_is_asked_to():
    """Backward, forward, in a batch and in a trace; else the numbers are looked at in memory."""
    torch = pytest.importorskip("torch")
    x, limit = torch.tensor([3.0, 4.0]), 2.0

    def clipped(x: Any) -> Any:
        return tree.clip_by_global_norm([x], limit).tree[0][0]

    expected = torch.tensor([2.0 / 5 - 2.0 * 9 / 125, -2.0 * 12 / 125])
    followed = x.clone().requires_grad_()
    clipped(followed).backward()
    torch.testing.assert_close(followed.grad, expected)
    torch.testing.assert_close(torch.func.grad(clipped)(x), expected)
    torch.testing.assert_close(torch.func.jvp(clipped, (x,), (torch.ones(2),))[1], expected.sum())
    traced = import_module("torch.fx.experimental.proxy_tensor").make_fx(clipped)(x)
    for y in (torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4]), torch.tensor([3e25, 4e25])):
        for function in (traced, lambda y: torch.func.vmap(clipped)(y[None])[0]):
            torch.testing.assert_close(function(y), clipped(y))
    imaginary = torch.tensor([3j, 4j]).conj().imag  # a negated view
    torch.testing.assert_close(tree.global_norm(imaginary), torch.tensor(5.0))


def test_the_bound_counts_the_additions():
    """``additions`` is the depth of the tree of additions that is carried out: an oracle that adds depths instead of numbers."""
    norms = import_module("xopt.tree.norms")

    def folded(depths: list[int], width: int) -> list[int]:
        while len(depths) > width:
            half = norms.half_of(len(depths))
            head = [1 + max(pair) for pair in zip(depths[: len(depths) - half], depths[half:], strict=True)]
            depths = head + depths[len(depths) - half : half]
        return depths

    for sizes in ([1], [2], [3], [1000], [1024], [1025], [5000, 3], [1, 1, 1], [4096] * 3, [0, 7], [1024] * 5):
        left = [depth for n in sizes if n > norms.WIDTH for depth in folded([0] * n, norms.WIDTH)]
        left += [0 for n in sizes if n <= norms.WIDTH for _ in range(n)]
        (depth,) = folded(left, 1)
        assert depth <= norms.additions(sizes) <= depth + 1


def test_the_norm_and_the_clipped_equal_torchs_and_optaxs():
    """Where nothing overflows: within both bounds, of which that of a sum in any order is the larger."""
    torch, optax = pytest.importorskip("torch"), pytest.importorskip("optax")
    for seed, limit in ((0, 1.0), (1, 50.0), (2, 1e9)):
        values = [normal(seed, 40, 30).astype(np.float32), normal(seed + 9, 7).astype(np.float32)]
        new, norm = tree.clip_by_global_norm(values, limit)
        params = [torch.nn.Parameter(torch.zeros(x.shape)) for x in values]
        for p, x in zip(params, values, strict=True):
            p.grad = torch.tensor(x)
        theirs = torch.nn.utils.clip_grad_norm_(params, limit)
        updates, _ = optax.clip_by_global_norm(limit).update([*map(import_module("jax.numpy").asarray, values)], None)
        off = sum(x.size for x in values) * 2.0**-24
        assert float(norm) == pytest.approx(float(theirs), rel=off)
        for x, p, u in zip(new, params, updates, strict=True):
            np.testing.assert_allclose(x, p.grad.numpy(), rtol=off + 1e-6 / float(norm), atol=0)
            np.testing.assert_allclose(x, np.asarray(u), rtol=off, atol=0)


def test_what_is_not_finite_is_what_torch_and_optax_make_of_it():
    torch, optax = pytest.importorskip("torch"), pytest.importorskip("optax")
    for values in ([1.0, math.inf, -2.0], [1.0, math.nan, 2.0], [1.0, -math.inf, math.nan]):
        with np.errstate(all="ignore"):
            ours = tree.clip_by_global_norm(np.asarray(values, np.float32), 1.0).tree
        p = torch.nn.Parameter(torch.zeros(3))
        p.grad = torch.tensor(values)
        torch.nn.utils.clip_grad_norm_([p], 1.0)
        updates, _ = optax.clip_by_global_norm(1.0).update(import_module("jax.numpy").asarray(values), None)
        assert np.array_equal(ours, p.grad.numpy(), equal_nan=True)
        assert np.array_equal(ours, np.asarray(updates), equal_nan=True)


# --- compilers, fused steps ------------------------------------------------------------------------------------------------------


def test_under_jit_the_numbers_are_those_of_eager_code_to_rounding():
    jax = pytest.importorskip("jax")
    library = LIBRARIES["jax"]
    with library.session():
        for dtype in ("float32", "bfloat16"):
            given_ = {"w": library.array(normal(0, 30, 40), dtype), "n": None, "b": library.array(normal(1, 3), dtype)}
            unit = {"float32": 2.0**-22, "bfloat16": 2.0**-7}[dtype]
            for function in (
                lambda t, x: tree.clip_by_global_norm(t, x),
                lambda t, x: tree.clip_by_norm(t, x),
                lambda t, x: tree.clip(t, x),
                lambda t, x: tree.scale(t, x),
                lambda t, x: tree.accumulate(t, t),
                lambda t, x: tree.average(tree.average(None, t), t, t=2 * x + 1),
            ):
                eager, traced = function(given_, 1.5), jax.jit(function)(given_, 1.5)
                assert optree.tree_structure(eager) == optree.tree_structure(traced)
                for x, y in zip(optree.tree_leaves(eager), optree.tree_leaves(traced), strict=True):
                    assert x.dtype == y.dtype
                    np.testing.assert_allclose(to_numpy(x), to_numpy(y), rtol=unit, atol=0)


def test_under_torch_compile_they_are_called_and_have_the_same_bits():
    torch = pytest.importorskip("torch")
    torch._dynamo.reset()
    given_ = {"w": torch.tensor(normal(0, 30)), "b": torch.tensor(normal(1, 3)).bfloat16(), "n": None}

    def function(t: Any, limit: float) -> Any:
        clipped, norm = tree.clip_by_global_norm(t, limit)
        return (
            tree.scale(tree.clip(clipped, 0.5), norm),
            tree.accumulate(None, clipped),
            tree.groups({"*.b": 1.0, "*": 2.0}, clipped),
        )

    compiled = torch.compile(function, backend="aot_eager")
    for limit in (1.0, 0.5, 100.0):
        one, other = function(given_, limit), compiled(given_, limit)
        for x, y in zip(optree.tree_leaves(one), optree.tree_leaves(other), strict=True):
            assert to_numpy(x).tobytes() == to_numpy(y).tobytes() if hasattr(x, "dtype") else x == y


@pytest.mark.parametrize("name", [name for name in LIBRARIES if name != "array_api_strict"])
def test_what_is_clipped_goes_into_a_fused_step(name):
    """Dtypes and kinds of arrays are kept, so that eager and fused steps take them, a NumPy float64 as the limit included."""
    library = LIBRARIES[name]
    with library.session():
        for dtype in ("float32", *library.half):
            params = {"w": library.array(normal(0, 5, 7), dtype), "s": library.array(0.5, dtype)}
            grad = tree.scale({"w": library.array(normal(1, 5, 7), dtype), "s": library.array(9.0, dtype)}, np.float64(0.1))
            grad = tree.clip(tree.clip_by_global_norm(grad, np.float64(0.5)).tree, np.float64(0.25))
            decay = tree.groups({"*.s": 0.0, "*": 0.125}, params)
            states = [step(xopt.lion_init(params), grad, lr=0.1, weight_decay=decay) for step in (xopt.lion_step, fuse(xopt.lion))]
            for x, y in zip(*map(optree.tree_leaves, states), strict=True):
                assert np.array_equal(to_numpy(x), to_numpy(y))


def test_a_traced_factor_and_limit_carry_derivatives():
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray([3.0, 4.0])
    assert jax.grad(lambda factor: tree.scale(x, factor).sum())(2.0) == 7.0
    assert jax.grad(lambda limit: tree.clip_by_global_norm(x, limit).tree.sum())(2.0) == pytest.approx(1.4)
    torch = pytest.importorskip("torch")
    factor = torch.tensor(2.0, requires_grad=True)
    tree.scale(torch.tensor([3.0, 4.0]), factor).sum().backward()
    assert factor.grad == 7.0


def test_shards_stay_shards_and_leaves_may_be_on_several_devices():
    code = """
import jax, numpy as np, xopt
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
one, *_, last = jax.devices()
mesh = Mesh(np.array(jax.devices()), "d")
x = jax.device_put(np.arange(8.0, dtype="float32"), NamedSharding(mesh, P("d")))
tree = {"x": x, "y": jax.device_put(np.float32([1, 2]), last), "z": jax.device_put(np.float32([3]), one)}
new, norm = xopt.tree.clip_by_global_norm(tree, 1.0)
assert new["x"].sharding == x.sharding and new["y"].devices() == {last} and new["z"].devices() == {one}
alone, same = xopt.tree.clip_by_global_norm({k: np.asarray(v) for k, v in tree.items()}, 1.0)
assert float(norm) == float(same) and all(np.array_equal(new[k], alone[k]) for k in tree)
print("done")
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


# --- groups ----------------------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    weight: Any
    bias: Any


def test_groups_go_by_name_and_the_first_match_wins():
    params = {"enc": [Pair(1, 2), {"b": 3, "w": None}], "b": 4, "head.b": 5}
    found = tree.groups({"enc.0.bias": 0.5, "enc.*": 1.0, "*.b": 2.0}, params)
    assert found == {"enc": [Pair(1.0, 0.5), {"b": 1.0, "w": None}], "b": 2.0, "head.b": 2.0}
    assert tree.groups({"*": (0.0, 0.9)}, np.zeros(3)) == (0.0, 0.9)
    assert tree.groups({"*": 1.0}, {}) == {}
    assert tree.groups({"[ab]": 1.0, "?": 2.0}, {"a": 0, "c": 0}) == {"a": 1.0, "c": 2.0}


@pytest.mark.parametrize(
    ("patterns", "params", "error", "message"),
    [
        ({"*.b": 0.0}, {"w": 1, "b": 2}, ValueError, r"params\['w'\], by name 'w', matches none of '\*\.b'; let '\*' be the last"),
        (
            {"*.bias": 0.0, "*": 1.0},
            {"w": 1, "b": 2},
            ValueError,
            r"no leaf gets its value from '\*\.bias'; there are names such as 'b'",
        ),
        (
            {"*": 1.0, "*.b": 0.0},
            {"w": 1, "b": 2},
            ValueError,
            r"'b' has it from '\*', which comes before; put the narrower pattern",
        ),
        ({}, {"w": 1}, ValueError, "matches none of no patterns"),
        ({"W": 1.0}, {"w": 1}, ValueError, "matches none of 'W'"),
        ([("*", 1.0)], {"w": 1}, TypeError, "patterns must be a dict from patterns"),
        ({1: 1.0}, {"w": 1}, TypeError, "patterns must be a dict from patterns"),
    ],
)
def test_groups_that_match_nothing_are_errors(patterns, params, error, message):
    with pytest.raises(error, match=rf"^groups: .*{message}"):
        tree.groups(patterns, params)


# --- None, and what is refused ---------------------------------------------------------------------------------------------------


def test_none_is_no_array():
    x = np.ones(2, np.float32)
    assert tree.global_norm({"a": None}) == 0.0
    assert tree.clip_by_global_norm({"a": None, "b": []}, 1.0) == ({"a": None, "b": []}, 0.0)
    assert tree.global_norm(np.zeros((0, 3), np.float32)) == 0.0
    total = tree.accumulate({"a": x, "b": None, "c": None}, {"a": None, "b": x, "c": None})
    assert optree.tree_structure(total) == optree.tree_structure({"a": x, "b": x, "c": None})
    assert not np.shares_memory(total["b"], x)
    mean = tree.average({"a": x, "b": None}, {"a": None, "b": 3 * x}, decay=0.9)
    assert np.array_equal(mean["a"], x)
    assert np.array_equal(mean["b"], 3 * x)
    assert tree.cast({"a": None, "b": x}, {"a": x, "b": None})["b"].dtype == x.dtype


ONES = np.ones(2, np.float32)
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: tree.clip({"w": [1.0]}, 1.0), TypeError, r"clip: tree\['w'\]\[0\] must be an array, got 1.0"),
    (lambda: tree.clip(np.ones(2, int), 1.0), TypeError, "clip: tree must be real floating-point, got int64"),
    (lambda: tree.clip(np.ones(2, complex), 1.0), TypeError, "clip: tree is complex128"),
    (lambda: tree.clip(ONES, -1.0), ValueError, r"clip: limit must be in \[0, inf\), got -1.0"),
    (lambda: tree.clip(ONES, math.inf), ValueError, r"clip: limit must be in \[0, inf\), got inf"),
    (lambda: tree.clip(ONES, math.nan), ValueError, "clip: limit must be in"),
    (lambda: tree.clip(ONES, 1e39), ValueError, r"clip: limit=1e\+39 rounds out of"),
    (
        lambda: tree.clip({"a": ONES}, {"b": 1.0}),
        ValueError,
        "clip: limit must be a number, a 0-d array or a tree that is a prefix",
    ),
    (lambda: tree.clip_by_norm({"a": ONES}, {"a": "1"}), TypeError, r"clip_by_norm: limit\['a'\] must be a number"),
    (
        lambda: tree.clip_by_global_norm(ONES, None),
        TypeError,
        "clip_by_global_norm: limit must be a number or a 0-d array, got None",
    ),
    (lambda: tree.clip_by_global_norm(ONES, {"a": 1.0}), TypeError, "clip_by_global_norm: limit must be a number"),
    (lambda: tree.clip_by_global_norm(ONES, ONES), TypeError, "clip_by_global_norm: limit must be a number"),
    (lambda: tree.scale(ONES, True), TypeError, "scale: factor must be a number or a 0-d array, got True"),
    (lambda: tree.scale(ONES, math.inf), ValueError, r"scale: factor must be in \(-inf, inf\)"),
    (
        lambda: tree.accumulate({"a": ONES}, {"b": ONES}),
        ValueError,
        r"accumulate: tree must have the tree of .*tree\['a'\] is missing",
    ),
    (lambda: tree.accumulate(ONES, np.ones(3, np.float32)), ValueError, r"accumulate: tree has shape \(3,\) but total has \(2,\)"),
    (
        lambda: tree.accumulate(ONES, np.ones((), np.float32)),
        ValueError,
        r"accumulate: tree has shape \(\) .*; nothing is broadcast",
    ),
    (
        lambda: tree.accumulate(ONES, np.ones(2)),
        TypeError,
        "accumulate: tree is float64, which does not fit in the float32 of total",
    ),
    (lambda: tree.average(ONES, ONES), TypeError, "average: give decay or t, one of the two; got decay=None, t=None"),
    (lambda: tree.average(ONES, ONES, decay=0.5, t=3), TypeError, "average: give decay or t"),
    (lambda: tree.average(ONES, ONES, decay=1.0), ValueError, r"average: decay must be in \[0, 1\), got 1.0"),
    (lambda: tree.average(ONES, ONES, t=0), ValueError, r"average: t must be in \[1, inf\), got 0"),
    (lambda: tree.average(None, ONES, t=2), ValueError, "average: t=2 but mean is None"),
    (lambda: tree.average(ONES.astype("float16"), ONES, decay=0.5), TypeError, "average: mean is float16 but must be float32"),
    (lambda: tree.cast(ONES, "float8"), ValueError, "cast: tree: like='float8' is no dtype .* there are float16, float32, float64"),
    (lambda: tree.cast([ONES], [ONES, ONES]), ValueError, "cast: like must have the tree of"),
    (lambda: tree.global_norm(np.ma.ones(3)), TypeError, "global_norm: tree is a MaskedArray, of which only the numbers"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[message[:50] for *_, message in WRONG])
def test_what_is_wrong_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_libraries_and_kinds_of_tensors_are_refused():
    torch = pytest.importorskip("torch")
    mixed = {"a": ONES, "b": torch.ones(2)}
    with pytest.raises(TypeError, match=r"^global_norm: tree\['b'\] is a torch Tensor but the first leaf is a numpy ndarray"):
        tree.global_norm(mixed)
    with pytest.raises(TypeError, match=r"^accumulate: tree is a torch Tensor but total is a numpy ndarray; convert one"):
        tree.accumulate(ONES, torch.ones(2))
    with pytest.raises(TypeError, match="sparse"):
        tree.clip(torch.ones(2).to_sparse(), 1.0)
    with pytest.raises(TypeError, match=r"bfloat16, which does not fit in the torch\.float16"):
        tree.accumulate(torch.ones(2).half(), torch.ones(2).bfloat16())
    assert tree.accumulate(torch.ones(2), torch.ones(2).half()).dtype == torch.float32
    assert set(map(type, optree.tree_leaves(tree.scale(mixed, 2.0)))) == {np.ndarray, torch.Tensor}


# --- faults ----------------------------------------------------------------------------------------------------------------------


def fault(name: str, check: str, file: str, old: str, new: str) -> SuiteFault:
    return SuiteFault(name, check, (Edit(f"tree/{file}.py", old, new),))


FAULTS = [
    fault("squares are not scaled", "extremes", "norms", "v = v * moved(scale, v)", "pass"),
    fault("squares in blocks are not scaled", "norm", "blocks", "x = x * scale", "x = x * 1.0"),
    fault("what lies beyond the blocks is left out", "norm", "blocks", "block[full, : some.shape[0]] += some", "pass"),
    fault("leaves of one size are one", "norm", "norms", "xp.stack(vectors)", "xp.stack(vectors[:1] * len(vectors))"),
    fault("the scale stays in the norm", "extremes", "norms", "(scaled / scale, scaled", "(scaled, scaled"),
    fault("large numbers are scaled up", "extremes", "norms", "(92, -112), (36, -56)", "(92, 112), (36, 56)"),
    fault("tiny numbers are not scaled", "extremes", "norms", "(-76, 112)", "(-160, 112)"),
    fault("the end of a leaf is left out", "norm", "norms", "v[..., n - half : half]", "v[..., n - half : half] * 0.0"),
    fault("the sum forgets a leaf", "norm", "norms", "for i in sorted(parts)", "for i in sorted(parts)[:1]"),
    fault("squares are added in half precision", "norm", "norms", "dtype = widest(leaves).compute", "dtype = leaves[0].x.dtype"),
    fault("the bound counts no additions", "norm", "norms", "(additions(sizes) + 2) / 2 + 1", "0.0"),
    fault("what is left is not added up", "norm", "norms", "1)[0]", "WIDTH)[0]"),
    fault("what is short is made longer", "clip_by_global_norm", "clipping", "~(norm.norm <= limit)", "norm.norm == norm.norm"),
    fault("NaN counts as short", "nonfinite", "clipping", "~(norm.norm <= limit)", "norm.norm > limit"),
    fault("the norm is the clipped one", "clip_by_global_norm", "clipping", "factors)), norm.norm)", "factors)), norm.scale)"),
    fault("the limit is left out", "clip_by_global_norm", "clipping", "[most] * (limit != 1.0)", "[]"),
    fault("each leaf has the norm of the tree", "clip_by_norm", "clipping", "norm_of([leaf])", "norm_of(flat.leaves)"),
    fault("only what is too large is clipped", "clip", "clipping", "where(x < -most, -most, x)", "x"),
    fault("infinite stays infinite", "nonfinite", "clipping", "where(x > most, most,", "where((x > most) & (x < 1e30), most,"),
    fault("dtypes are widened", "scale", "walk", "y if y.dtype == self.x.dtype else self.xp.astype(y, self.x.dtype)", "y"),
    fault("products are in half precision", "scale", "walk", "function(self.lifted(self.compute))", "function(self.x)"),
    fault("what begins is no copy", "accumulate", "walk", "self.xp.astype(self.x, dtype, copy=True)", "self.lifted(dtype)"),
    fault("a sum keeps its first part", "accumulate", "sums", "x + leaf.lifted(dtype)", "x"),
    fault("the mean forgets by the gain", "average", "sums", "1.0 - (decay if", "(decay if"),
    fault(
        "the mean is kept in half precision",
        "average",
        "sums",
        "leaf.copy(leaf.compute))\n    new",
        "leaf.copy(leaf.x.dtype))\n    new",
    ),
    fault("the mean is no average", "average", "sums", "(leaf.lifted(old.compute) - m)", "leaf.lifted(old.compute)"),
    fault("all count one more", "mean_of_all", "sums", "else known)\n\n\ndef _met", "else known + 1)\n\n\ndef _met"),
    fault("the mean is the params themselves", "donated", "walk", "self.xp.astype(self.x, dtype, copy=True)", "self.lifted(dtype)"),
]


def sees(check: str, product: Any) -> bool:
    """Whether a check fails, on a fixed tree or fixed numbers of NumPy and of torch."""
    try:
        for library in (LIBRARIES["numpy"], LIBRARIES["torch"]):
            if check in ("extremes", "nonfinite", "mean_of_all", "donated"):
                getattr(checks, f"check_{check}")(product, library)
                continue
            if check == "norm":
                for leaves, dtypes in NORMS:
                    checks.check_norm(product, library, leaves, dtypes)
                continue
            given_ = object.__new__(checks.Given)
            half = library.half[-1]
            given_.tree = {
                "h": library.array(normal(3, 9), half),
                "w": [library.array(normal(4, 2, 3)), library.array(7.5)],
                "n": None,
            }
            given_.leaves = optree.tree_leaves(given_.tree)
            other = tree.scale(given_.tree, 0.3)
            arguments = {"accumulate": [other], "average": [other, 0.9], "scale": [0.1], "clip_by_global_norm": [3.0]}.get(
                check, [0.7]
            )
            getattr(checks, f"check_{check}")(product, given_, *arguments)
            if check == "clip_by_global_norm":
                checks.check_clip_by_global_norm(product, given_, 100.0)
    except AssertionError:
        return True
    return False


NORMS = [
    ([normal(0, 1500), normal(1, 3)], ["float32", "float32"]),
    ([np.full(3000, 0.7), np.full(3, 0.1)], ["float16", "float64"]),
    ([np.full(1025, 300.0)], ["float16"]),
    ([normal(2, 1030) * 1e-4], ["float64"]),
    ([normal(3, 30, 40), normal(4, 1200), normal(5, 7)], ["float32"] * 3),
    ([np.full((1 << 17) + 2050, 1e25)], ["float32"]),
]


@pytest.mark.parametrize("planted", FAULTS, ids=lambda fault: fault.name)
def test_faults_are_found(planted):
    texts = {f"xopt.{file.removesuffix('.py').replace('/', '.')}": text for file, text in planting.edited(planted, "xopt").items()}
    with np.errstate(all="ignore"):
        assert sees(planted.check, planting.private_copy(texts, "xopt.tree"))


@pytest.mark.parametrize("check", sorted({fault.check for fault in FAULTS}))
def test_the_helpers_as_they_are_pass_the_same_checks(check):
    assert not sees(check, tree)


def test_the_exact_oracle_is_exact():
    """The rounding of the checks is that of NumPy's casts."""
    values = [0.1, 1 / 3, 65519.0, 6e-8, 2.0**-24, 1e-7, -2.5, 1.0009765625 + 2**-11]
    for dtype in ("float16", "float32"):
        for value in values:
            assert checks.rounded(checks.Fraction(value), dtype) == checks.Fraction(float(np.dtype(dtype).type(value)))
    assert mpmath.mp.prec < 2400
