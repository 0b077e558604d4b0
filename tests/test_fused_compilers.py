"""Fused steps through jax.jit and torch.compile: NumPy's bits, one compilation for all numbers, and a state that is given away.

On a CPU these compilers round as NumPy does: torch.compile is told not to contract, and JAX is kept from it by a product with a 1
that it does not know. What is asserted is equality, where coefficients are Python numbers; for arrays see test_traced.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optree
import pytest
from libraries import LIBRARIES, busy, leaves, normal, to_numpy
from test_traced import assert_close

import xopt
from xopt.backends import fuse, get
from xopt.backends.compilers import jax_jit, torch_compile

NUMPY, JAX, TORCH = (LIBRARIES[name] for name in ("numpy", "jax", "torch"))
DECAY = {"w": [0.013, 0.0], "b": 0.25, "s": 0.0, "e": 0.5}


def tree(library: Any, seed: int, dtype: str = "float32") -> Any:
    """Leaves of several shapes, with 0-d and empty ones, of numbers that are small and large."""

    def array(k: int, *shape: int) -> Any:
        return library.array(normal(seed + k, *shape) * 10.0 ** (3 * normal(seed + k + 50, *shape)).clip(-4, 4), dtype)

    return {"w": [array(1, 37, 29), array(2, 5)], "b": array(3, 1003), "s": array(4), "e": library.array(np.zeros((0, 4)), dtype)}


def groups(rule: Any, t: int) -> dict[str, Any]:
    """Everything that a rule has, parameter groups among it, with numbers that are no powers of 2, other ones at each step."""
    hyper = busy(rule) | {"lr": 0.0173 / t}
    return hyper | ({"weight_decay": DECAY} if "weight_decay" in hyper else {})


def assert_numpys(got: Any, expected: Any) -> None:
    """The numbers of NumPy's state, bit for bit; of another library's zeros the sign may differ."""
    for path, x, y in zip(optree.tree_paths(expected), leaves(got), leaves(expected), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape), path
        assert np.array_equal(x, y), path


def stepped(fused: Any, rule: Any, library: Any, dtype: str = "float32", steps: int = 4, start: Any = None, **hyper: Any) -> Any:
    """A state after some steps, each compared with NumPy's."""
    start = start or {}
    state, expected = (rule.bind(**start).init(tree(one, 0, dtype)) for one in (library, NUMPY))
    for t in range(1, 1 + steps):
        given = hyper or groups(rule, t)
        state = fused(state, tree(library, 10 * t, dtype), **given)
        expected = rule.step(expected, tree(NUMPY, 10 * t, dtype), **given)
        assert_numpys(state, expected)
    return state


def run(code: str, flags: str) -> None:
    """Runs what imports this file in a process of its own, as XLA reads its flags once."""
    environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run([sys.executable, "-c", code], env=os.environ | environment, check=True)


# JAX.


@pytest.fixture
def jax() -> Any:
    return pytest.importorskip("jax")


@pytest.mark.parametrize(
    ("dtype", "donate"), [("float32", False), ("float32", True), ("float64", True), ("float16", False)], ids=str
)
def test_jax_bits_are_numpys(rule: Any, dtype: str, donate: bool, jax: Any) -> None:
    """Without a flag."""
    with JAX.session():
        stepped(fuse(rule, donate=donate), rule, JAX, dtype)


def test_jax_bits_without_fma() -> None:
    """On a processor without contraction the 1 changes nothing."""
    pytest.importorskip("jax")
    code = """if True:
        import test_fused_compilers as here
        for rule in here.xopt.RULES.values():
            here.stepped(here.fuse(rule, donate=True), rule, here.JAX, steps=3)
        """
    run(code, "--xla_cpu_max_isa=AVX")


def test_jax_bfloat16_is_rounded_once(jax: Any) -> None:
    """It is stepped as float32, and the result stored."""
    narrow, wide = (JAX.array(to_numpy(JAX.array(normal(0, 999), "bfloat16")), dtype) for dtype in ("bfloat16", "float32"))
    fused, backend = fuse(xopt.adamw), get("jax")
    got = fused(xopt.adamw_init(narrow), narrow, lr=0.0173)
    expected = xopt.adamw_step(xopt.adamw_init(to_numpy(wide)), to_numpy(wide), lr=0.0173)
    assert np.array_equal(to_numpy(got.params), to_numpy(backend.asarray(expected.params, "bfloat16")))
    assert got.params.dtype == "bfloat16"
    assert np.array_equal(to_numpy(got.m), expected.m)


def test_jax_slots_of_none_and_several_buffers(jax: Any) -> None:
    for start in ({"beta1": 0.0}, {"beta1": 0.0, "beta2": 0.0, "beta3": 0.0}):
        stepped(fuse(xopt.ademamix, donate=True), xopt.ademamix, JAX, start=start, lr=0.0173, **start)
    for betas in ((0.5,), (0.0, 0.7), (0.9, 0.9, 0.0, 0.99)):
        stepped(fuse(xopt.aggmo, donate=True), xopt.aggmo, JAX, start={"betas": betas}, lr=0.0173, betas=betas)


def test_jax_a_decay_of_0_beside_a_memory(jax: Any) -> None:
    """There the average is the value itself, and the old one is not read: its buffer is given away all the same."""
    for donate in (False, True):
        fused = fuse(xopt.adam, donate=donate)
        state = xopt.adam_init(JAX.array(np.ones(3)))._replace(m=JAX.array(np.full(3, 1e30)))
        new = fused(state, JAX.array(np.ones(3)), beta1=0.0)
        assert np.array_equal(to_numpy(new.m), np.ones(3))
        assert state.m.is_deleted() == donate
        fused(new, JAX.array(np.ones(3)))


def test_jax_tree_of_several_dtypes(jax: Any) -> None:
    def params(library: Any, seed: int) -> Any:
        return [library.array(normal(seed, 5), dtype) for dtype in ("float32", "float16", "float64", "float32")]

    with JAX.session():
        got = fuse(xopt.adamw)(xopt.adamw_init(params(JAX, 0)), params(JAX, 1), weight_decay=[0.1, 0.0, 0.1, 0.2])
        expected = xopt.adamw_step(xopt.adamw_init(params(NUMPY, 0)), params(NUMPY, 1), weight_decay=[0.1, 0.0, 0.1, 0.2])
        assert_numpys(got, expected)


def traced(fused: Any) -> int:
    """How often XLA has compiled something for a fused step."""
    return sum(getattr(fuser, "_traces", 0) for fuser in fused.rule.compiled.values())


@pytest.fixture(autouse=True)
def nothing_is_compiled() -> None:
    """What is for one step of a rule serves for all."""
    for rule in xopt.RULES.values():
        rule.compiled.clear()


def test_jax_steps_of_one_rule_share_what_is_compiled(jax: Any) -> None:
    """Those that are made anew in each turn of a loop too, donating or not."""
    x = JAX.array([1.0, 2.0])
    for donate in (False, False, True, True):
        fuse(xopt.sgd, donate=donate)(xopt.sgd_init(x + 1.0), x)
        assert traced(fuse(xopt.sgd)) == 1


def test_jax_numbers_compile_nothing_anew(rule: Any, jax: Any) -> None:
    """Not lr, betas or t: the bias corrections of a late step are exactly 1, and so is an lr."""
    fused, state, grad = fuse(rule), rule.init([JAX.array(np.ones(3))] * 2), [JAX.array(np.ones(3))] * 2
    for t in (0, 1, 400, 10**6):
        hyper = {name: value for name, value in busy(rule).items() if not rule.ranges[name].sequence} | {"lr": 1.0 / (1 + t % 7)}
        hyper |= {name: 1 - 0.5**k for k, name in enumerate(rule.memory.values(), start=2) if not rule.ranges[name].sequence}
        for decay in (0.25, 0.0, [0.25, 0.25], [0.25, 0.5]):  # two numbers for two leaves, which may be the same
            given = hyper | ({"weight_decay": decay} if "weight_decay" in hyper else {})
            fused(state._replace(step=t), grad, **given)
    assert traced(fused) == (2 if "weight_decay" in rule.defaults else 1)  # for shared numbers, and for each leaf its own


def test_jax_large_trees_are_stepped_by_several_calls_of_one_program(jax: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax_jit, "LEAVES", 4)
    fused = fuse(xopt.ademamix, donate=True)
    state, expected = (xopt.ademamix_init([library.array(normal(i, 3 + i % 2)) for i in range(17)]) for library in (JAX, NUMPY))
    for t in range(3):
        state, expected = (
            step(s, [library.array(normal(t + i, 3 + i % 2)) for i in range(17)], lr=0.0173, weight_decay=[0.013, 0.5] * 8 + [0.0])
            for step, s, library in ((fused, state, JAX), (xopt.ademamix_step, expected, NUMPY))
        )
        assert_numpys(state, expected)
    assert traced(fused) == 2  # 5 calls of 1 + 1 leaves, and the 7 that remain


def test_jax_donated_state_is_deleted_and_refused(rule: Any, jax: Any) -> None:
    fused, state = fuse(rule, donate=True), rule.init(tree(JAX, 0))
    addresses = [x.unsafe_buffer_pointer() for x in optree.tree_leaves(state) if isinstance(x, jax.Array) and x.size]
    new = fused(state, tree(JAX, 1))
    assert all(x.is_deleted() for x in optree.tree_leaves(state) if isinstance(x, jax.Array))
    assert [x.unsafe_buffer_pointer() for x in optree.tree_leaves(new) if isinstance(x, jax.Array) and x.size] == addresses
    for again in (fused, fuse(rule)):
        with pytest.raises(ValueError, match=r"params\['b'\] was donated to an earlier step"):
            again(state, tree(JAX, 1))
    fused(new._replace(step=7), tree(JAX, 1))


def test_jax_array_that_numpy_sees_is_copied_and_refused(jax: Any) -> None:
    state = xopt.lion_init(JAX.array(normal(0, 100)))
    view = np.asarray(state.params)
    before, fused = view.copy(), fuse(xopt.lion, donate=True)
    fused(state, JAX.array(normal(1, 100)))
    assert np.array_equal(view, before)
    with pytest.raises(ValueError, match="was donated to an earlier step"):
        fused(state, JAX.array(normal(1, 100)))


def test_jax_nothing_passed_in_is_written(rule: Any, jax: Any) -> None:
    state, grad = rule.init(tree(JAX, 0)), tree(JAX, 1)
    before = optree.tree_map(lambda x: to_numpy(x).copy(), (state, grad))
    fuse(rule)(state, grad)
    assert_numpys((state, grad), before)


def test_jax_buffers_that_are_shared_are_not_donated(jax: Any) -> None:
    x, y, z = (JAX.array(normal(i, 4)) for i in range(3))
    fused = fuse(xopt.momentum, donate=True)
    alias = jax.device_put(x, jax.sharding.SingleDeviceSharding(x.device))
    assert alias is not x
    for params, grad, which in (
        ([x, x], [y, y], (0, 1)),
        ([x, alias], [y, y], (0, 1)),
        ([y, x], [z, x], (1, 1)),
        ([x, y], [z, alias], (0, 1)),
    ):
        state = xopt.momentum_init(params)
        with pytest.raises(
            ValueError, match=rf"params\[{which[0]}\] or a slot of it shares memory with params\[{which[1]}\].*without"
        ):
            fused(state, grad)
        assert not any(a.is_deleted() for a in optree.tree_leaves(state)[:-1])
        assert_close(state, fuse(xopt.momentum)(state, grad), xopt.momentum_step(state, grad))
    fused(xopt.momentum_init([x, y]), [z, z])  # of what is only read there is one for all


def test_jax_arrays_as_hyperparameters(jax: Any) -> None:
    state, grad = xopt.adamw_init(tree(JAX, 0)), tree(JAX, 1)
    fused = fuse(xopt.adamw)
    for t, lr in ((0, 0.25), (jax.numpy.asarray(0), 0.25), (0, jax.numpy.asarray(0.25)), (0, jax.numpy.asarray(0.5))):
        got, expected = (step(state._replace(step=t), grad, lr=lr) for step in (fused, xopt.adamw_step))
        assert_close(state, got, expected)
        assert got.step == 1
    assert traced(fused) == 1  # arrays whose numbers are known are numbers


def test_jax_a_carried_number_may_come_as_an_array(jax: Any) -> None:
    """As it leaves jax.jit."""
    state, grad = xopt.nadam_init(tree(JAX, 0)), tree(JAX, 1)
    for donate in (False, True):
        traced_state = jax.jit(xopt.nadam_step)(state, grad)
        expected = xopt.nadam_step(traced_state, grad)
        assert_close(expected, fuse(xopt.nadam, donate=donate)(traced_state, grad), expected)


@pytest.mark.parametrize("donate", [False, True])
def test_jax_inside_jit_it_is_the_plain_step(donate: bool, jax: Any) -> None:
    """Whatever is traced: all, the state, the gradient, a number, or nothing. A constant is not given away."""
    fused, lr = fuse(xopt.ademamix, donate=donate), 0.0173

    def fresh() -> Any:
        state = xopt.ademamix_init(tree(JAX, 0))
        return xopt.ademamix_step(state, tree(JAX, 5))

    state, grad = fresh(), tree(JAX, 1)
    expected = xopt.ademamix_step(state, grad, lr=lr)
    for got in (
        jax.jit(fused)(state, grad, lr=lr),
        jax.jit(lambda state: fused(state, grad, lr=lr))(state),
        jax.jit(lambda grad: fused(state, grad, lr=lr))(grad),
        jax.jit(lambda lr: fused(state, grad, lr=lr))(lr),
        jax.jit(lambda x: jax.tree.map(lambda y: x + y, fused(fresh(), grad, lr=lr)))(0),
    ):
        assert_close(state[:-1], got[:-1], expected[:-1])
        assert not state.params["b"].is_deleted()
    both = jax.tree.map(lambda x: jax.numpy.stack([x, x]), (state, grad))
    got = jax.vmap(lambda state, grad: fused(state._replace(step=1), grad, lr=lr))(*both)
    assert_close(state[:-1], jax.tree.map(lambda x: x[0], got[:-1]), expected[:-1])


def test_jax_on_several_devices() -> None:
    """Sharded arrays stay where they are, and each step compiles once; leaves on different devices are refused."""
    pytest.importorskip("jax")
    code = """if True:
        import jax, numpy as np, pytest, xopt
        from jax.sharding import NamedSharding, PartitionSpec as P
        from test_fused_compilers import assert_numpys, fuse, normal, traced
        mesh = jax.sharding.Mesh(np.asarray(jax.devices()), "x")
        split, everywhere = NamedSharding(mesh, P("x")), NamedSharding(mesh, P())
        def put(seed):
            x = {"b": normal(seed, 5).astype("f4"), "w": normal(seed, 8, 3).astype("f4")}
            own = jax.tree.map(jax.numpy.array, x)  # of NumPy's memory, where it is aligned, all devices would share one piece
            return x, {"b": jax.device_put(own["b"], everywhere), "w": jax.device_put(own["w"], split)}
        for donate in (False, True):
            fused = fuse(xopt.ademamix, donate=donate)
            expected, state = map(xopt.ademamix_init, put(0))
            for t in range(3):
                (g, grad), old = put(t), state
                expected, state = xopt.ademamix_step(expected, g, lr=0.0173), fused(state, grad, lr=0.0173)
                assert_numpys(state, expected)
                assert state.params["w"].sharding == state.m1["w"].sharding == split
                assert old.params["w"].is_deleted() == donate
            assert traced(fused) == 1
        with pytest.raises(TypeError, match=r"params\\[1\\] is on .*, but the first on .*; a fused step takes"):
            params = [jax.device_put(np.ones(3), d) for d in jax.devices()[:2]]
            fuse(xopt.lion)(xopt.lion_init(params), params)
        """
    run(code, "--xla_force_host_platform_device_count=4")


def test_jax_steps_of_several_threads_do_not_meet(jax: Any) -> None:
    fused, results = fuse(xopt.ademamix), {}

    def work(seed: int) -> None:
        state = xopt.ademamix_init([JAX.array(normal(seed, 20 + seed))])
        for t in range(5):
            state = fused(state, [JAX.array(normal(seed + t, 20 + seed))])
        results[seed] = state

    threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        expected = xopt.ademamix_init([normal(100 * i, 20 + 100 * i).astype(np.float32)])
        for t in range(5):
            expected = xopt.ademamix_step(expected, [normal(100 * i + t, 20 + 100 * i).astype(np.float32)])
        assert_numpys(results[100 * i], expected)


def test_jax_errors_are_those_of_the_eager_step(jax: Any) -> None:
    """Also in a second step, which finds what it has checked in the first."""
    fused, state, grad = fuse(xopt.lion, donate=True), xopt.lion_init(tree(JAX, 0)), tree(JAX, 1)
    state = fused(state, grad)
    for wrong, hyper in (
        (grad | {"s": JAX.array(np.ones(2))}, {}),
        (grad | {"s": JAX.array(1.0, "float16")}, {}),
        (grad | {"s": 1.0}, {}),
        (grad | {"s": np.float32(1.0)}, {}),
        (grad, {"lr": -1.0}),
    ):
        with pytest.raises((TypeError, ValueError)) as expected:
            xopt.lion_step(state, wrong, **hyper)
        with pytest.raises(expected.type) as raised:
            fused(state, wrong, **hyper)
        assert str(raised.value) == str(expected.value)
    mixed = state._replace(params=state.params | {"s": np.float32(1.0)})
    with pytest.raises(TypeError, match=r"params\['s'\] is a numpy array, but the first is of another library"):
        fused(mixed, grad)
    with pytest.raises(ValueError, match=r"is of jax, which jax.jit compiles, not torch.compile"):
        fuse(xopt.lion, compiler="torch.compile")(state, grad)
    fused(state, grad)


# torch.


@pytest.fixture
def torch() -> Any:
    torch, dynamo = pytest.importorskip("torch"), pytest.importorskip("torch._dynamo")
    dynamo.reset()
    yield torch
    dynamo.reset()


def mixed(library: Any, seed: int, dense: bool) -> Any:
    """Leaves of every dtype, one of them bfloat16 (for NumPy the same numbers in float32), and of other forms too."""
    half = TORCH.array(normal(seed, 99), "bfloat16")
    params = {
        "half": half if library is TORCH else to_numpy(half),
        "one": library.array(normal(seed + 1, 1003)),
        "two": [library.array(normal(seed + 2, 37, 2), "float64"), library.array(normal(seed + 3, 45), "float16")],
    }
    if not dense:
        params["two"] += [library.array(normal(seed + 4, 5, 6)).T, library.array(normal(seed + 5, 9))[::2]]
        params["none"] = [library.array(normal(seed + 6), dtype) for dtype in ("float32", "float64", "float16")]
        params["none"] += [library.array(np.zeros((0, 4)))]
    return params


def assert_torch_bits(torch: Any, rule: Any, donate: bool, **start: Any) -> None:
    fused, backend = fuse(rule, donate=donate, compiler="torch.compile"), get("torch")
    state, expected = (rule.bind(**start).init(mixed(library, 0, not donate)) for library in (TORCH, NUMPY))
    for t in range(1, 5):
        hyper = busy(rule) | {"lr": 0.0173 / t, "weight_decay": {name: 0.013 * (name != "one") for name in state.params}} | start
        given, grad = state, mixed(TORCH, 10 * t, not donate)
        before = optree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, given)
        with torch._dynamo.config.patch(error_on_recompile=t > 1):
            state = fused(given, grad, **hyper)
        expected = rule.step(expected, mixed(NUMPY, 10 * t, not donate), **hyper)
        stored = to_numpy(backend.asarray(expected.params["half"].astype(float), "bfloat16"))
        expected = expected._replace(params=expected.params | {"half": stored})
        assert_numpys(state, expected)
        for x, y, z in zip(*map(optree.tree_leaves, (given, before, state)), strict=True):
            if isinstance(x, torch.Tensor):
                assert x.dtype == z.dtype
                if donate:
                    assert x.data_ptr() == z.data_ptr()
                else:
                    assert torch.equal(x, y)
        if donate:
            assert given.params["one"]._version >= t  # so that autograd sees it
            with pytest.raises(ValueError, match=r"params\['half'\] was donated to an earlier step"):
                fused(given, grad, **hyper)


@pytest.mark.parametrize("donate", [False, True])
def test_torch_bits_are_numpys(donate: bool, torch: Any) -> None:
    """Square roots and divisions too. A new lr, decay or step count compiles nothing."""
    assert_torch_bits(torch, xopt.ademamix if donate else xopt.lion, donate)


def test_torch_slots_of_none_and_several_buffers(torch: Any) -> None:
    assert_torch_bits(torch, xopt.aggmo, donate=True, betas=(0.0, 0.9, 0.7))


def test_torch_parameters(torch: Any) -> None:
    """Under no_grad alone; a backward pass that needs the old numbers fails."""
    fused, model = fuse(xopt.momentum, donate=True, compiler="torch.compile"), torch.nn.Linear(3, 2)
    params = dict(model.named_parameters())
    state, grad = xopt.momentum_init(params), {name: torch.ones_like(p) for name, p in params.items()}
    with pytest.raises(TypeError, match=r"params\['.*'\], or another array, requires gradients.*torch.no_grad\(\)"):
        fused(state, grad)
    loss = model(torch.ones(1, 3, requires_grad=True)).square().sum()
    with torch.no_grad():
        expected = {name: p.clone() for name, p in xopt.momentum_step(state, grad).params.items()}
        fused(state, grad)
    assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_torch_large_trees_and_arrays_as_hyperparameters(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_compile, "LEAVES", 2)
    fused, graphs = fuse(xopt.sgd, compiler="torch.compile"), torch._dynamo.utils.counters["stats"]
    state, grad, before = xopt.sgd_init([torch.ones(3)] * 5), [torch.ones(3)] * 5, graphs["unique_graphs"]
    for lr in (0.5, torch.tensor(0.25)):
        expected = xopt.sgd_step(state, grad, lr=lr)
        assert all(map(torch.equal, fused(state, grad, lr=lr).params, expected.params))
    assert graphs["unique_graphs"] - before == 2  # 3 calls of 1 leaf, and the 2 that remain


def test_torch_memory_that_overlaps_is_not_donated(torch: Any) -> None:
    fused, buffer = fuse(xopt.momentum, donate=True, compiler="torch.compile"), torch.zeros(10)
    shared, ones = torch.zeros(4), torch.ones(4)
    for params, grad, what in (
        ([shared, shared], [ones, ones], "shares memory with"),
        ([buffer[:4], buffer[3:7]], [ones, ones], "shares memory with"),
        ([buffer[:4], shared], [ones, buffer[:4]], "shares memory with"),
        ([buffer[:1].expand(4), shared], [ones, ones], "is broadcast"),
    ):
        with pytest.raises(ValueError, match=rf"params\[0\] or a slot of it {what}.*fuse without donate takes"):
            fused(xopt.momentum_init(params), grad)
    assert not buffer.any()


def test_torch_errors_are_those_of_the_eager_step(torch: Any) -> None:
    fused = fuse(xopt.lion, compiler="torch.compile")
    state, grad = xopt.lion_init([torch.ones(3), torch.ones(2)]), [torch.ones(3), torch.ones(2)]
    for wrong, hyper in (([grad[0], grad[0]], {}), ([grad[0], grad[1].half()], {}), ([grad[0], 1.0], {}), (grad, {"lr": -1.0})):
        with pytest.raises((TypeError, ValueError)) as expected:
            xopt.lion_step(state, wrong, **hyper)
        with pytest.raises(expected.type) as raised:
            fused(state, wrong, **hyper)
        assert str(raised.value) == str(expected.value)
    both = [torch.ones(3), np.ones(3)]
    with pytest.raises(TypeError, match=r"params\[1\] is a numpy array, but the first is of another library"):
        fused(xopt.lion_init(both), both)


# Both.


@pytest.mark.parametrize(("library", "module", "compiler"), [(JAX, jax_jit, "jax.jit"), (TORCH, torch_compile, "torch.compile")])
def test_a_slow_compilation_is_said(
    library: Any, module: Any, compiler: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library.name)
    fused, state = fuse(xopt.sgd, compiler=compiler), xopt.sgd_init(library.array([1.0]))
    times = iter((0.0, 1.25, 2.0, 4.0))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(times)))
    fused(state, state.params)
    assert f"xopt: compiled sgd_step for {library.name} in 1.2 s" in capsys.readouterr().err
    fused(state, state.params)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(("library", "module", "compiler"), [(JAX, jax_jit, "jax.jit"), (TORCH, torch_compile, "torch.compile")])
def test_few_leaves_of_each_kind_among_many_have_their_own_numbers(
    library: Any, module: Any, compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few of each kind to be divided among the calls that so many leaves need."""
    pytest.importorskip(library.name)
    monkeypatch.setattr(module, "LEAVES", 1)
    params = [library.array(normal(i, n)) for i, n in enumerate((3, 2, 3))]
    grads = [library.array(normal(i, n)) for i, n in enumerate((3, 2, 3), start=5)]
    state, lr = xopt.sgd_init(params), [0.5, 0.25, 0.125]
    found, expected = (step(state, grads, lr=lr).params for step in (fuse(xopt.sgd, compiler=compiler), xopt.sgd_step))
    for one, other in zip(found, expected, strict=True):
        assert to_numpy(one).tolist() == to_numpy(other).tolist()
