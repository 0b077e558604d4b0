"""No silent wrong number, no crash, nothing half written: what was once wrong, by kind, with its right value."""

import copy
import decimal
import gc
import importlib
import io
import os
import pickle
import subprocess
import sys
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optree
import pytest
from libraries import LIBRARIES, assert_same_bits, busy, leaves, normal, to_numpy

import xopt
from xopt.backends import fuse
from xopt.backends.compilers import blocks, host

COMPILERS = ["numba", "blocks"]
WAYS = [None, "numba", "blocks"]
"""How NumPy arrays are stepped: plainly, or fused by a compiler."""


def step_of(rule: Any, way: str | None, **options: Any) -> Any:
    return rule.step if way is None else fuse(rule, compiler=way, **options)


# A. Trees are paired by key.


class Pair(NamedTuple):
    weight: Any
    bias: Any


DICTS: dict[str, Callable[..., Any]] = {
    "dict": lambda **items: items,
    "dict, other order": lambda **items: dict(reversed(items.items())),
    "OrderedDict": lambda **items: OrderedDict(items),
    "OrderedDict, other order": lambda **items: OrderedDict(reversed(items.items())),
    "defaultdict": lambda **items: defaultdict(list, items),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("prefix", DICTS)
@pytest.mark.parametrize("container", DICTS)
def test_groups_are_paired_by_key(container: str, prefix: str, way: str | None) -> None:
    step, make, tree = step_of(xopt.lion, way), DICTS[container], DICTS[prefix]
    state = xopt.lion_init(make(weight=np.ones(2), bias=np.full(2, 5.0)))
    grad = tree(weight=np.full(2, -1.0), bias=np.ones(2))
    new = step(state, grad, lr=tree(weight=0.5, bias=0.25))
    assert (new.params["weight"].tolist(), new.params["bias"].tolist()) == ([1.5, 1.5], [4.75, 4.75])
    for column in (new.params, new.m):
        assert type(column) is type(state.params)
        assert list(column) == list(state.params)


@pytest.mark.parametrize("way", WAYS)
def test_groups_of_each_container(rule: Any, way: str | None) -> None:
    """Each leaf as it steps alone, with its own numbers, however deep they and it stand."""
    hyper = {name: x for name, x in busy(rule).items() if not rule.ranges[name].sequence and name != "eps"}
    other = {name: x / 2 for name, x in hyper.items()}
    leaf = {key: normal(i, 3) for i, key in enumerate("abcde")}
    params: Any = OrderedDict(z=Pair(leaf["a"], [leaf["b"]]), a=(leaf["c"], {"y": leaf["d"], "x": leaf["e"]}))
    own = {name: {"a": (other[name], {"x": other[name], "y": hyper[name]}), "z": hyper[name]} for name in hyper}
    step = step_of(rule, way)
    state = step(rule.init(params), params, **own)
    assert optree.tree_structure(state.params) == optree.tree_structure(params)
    for key, group in (("a", hyper), ("b", hyper), ("c", other), ("d", hyper), ("e", other)):
        alone = rule.step(rule.init(leaf[key]), leaf[key], **group)
        for name, column in zip(state._fields[:-1], state[:-1], strict=True):
            found = column["z"].weight if key == "a" else column["z"].bias[0] if key == "b" else None
            found = column["a"][0] if key == "c" else column["a"][1]["y" if key == "d" else "x"] if found is None else found
            assert_same_bits(found, getattr(alone, name))


def test_a_decay_of_0_for_one_key_takes_its_slot_alone() -> None:
    for make in DICTS.values():
        state = xopt.adam_init(make(weight=np.ones(2), bias=np.ones(2)), beta1={"weight": 0.9, "bias": 0.0})
        assert state.m["weight"] is not None
        assert state.m["bias"] is None


def test_a_state_dict_of_torch_decays_what_it_is_told() -> None:
    torch = pytest.importorskip("torch")
    params = torch.nn.Linear(2, 2).state_dict()
    before = {name: x.clone() for name, x in params.items()}
    for step in (xopt.adamw_step, fuse(xopt.adamw)):
        zero = OrderedDict((name, torch.zeros_like(x)) for name, x in params.items())
        new = step(xopt.adamw_init(params), zero, lr=1.0, weight_decay={"weight": 0.5, "bias": 0.0})
        assert torch.equal(new.params["weight"], before["weight"] / 2)
        assert torch.equal(new.params["bias"], before["bias"])
        assert list(new.params) == ["weight", "bias"]


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("way", COMPILERS)
def test_another_container_at_the_next_step(way: str, donate: bool) -> None:
    """Nothing of the tree before is remembered wrongly: not its order, not its container, in params nor in slots."""
    step = fuse(xopt.adam, compiler=way, donate=donate)
    trees = [
        {"b": 2, "a": 1},
        {"a": 1, "b": 2},
        OrderedDict(b=2, a=1),
        OrderedDict(a=1, b=2),
        defaultdict(int, a=1, b=2),
        Pair(1, 2),
        [1, 2],
        (1, 2),
        [1, None, 2],
        {"a": [1], "b": (2,)},
        {"a": {"x": 1, "b": None}, "b": 2},
    ]
    for tree in (*trees, *reversed(trees)):
        params, grad = (optree.tree_map(lambda x, scale=scale: np.full(3, scale * x), tree) for scale in (1.0, -1.0))
        state = xopt.adam_init(params)
        expected = xopt.adam_step(state, grad, lr=0.5)
        new = step(copy.deepcopy(state), grad, lr=0.5)
        assert_same_bits(new, expected)
        for column in (new.params, new.m, new.v):
            assert type(column) is type(tree)
            assert not isinstance(tree, dict) or list(column) == list(tree)


@pytest.mark.parametrize("way", COMPILERS)
def test_slots_in_another_container_come_back_in_that_of_params(way: str) -> None:
    for donate in (False, True):
        step = fuse(xopt.momentum, compiler=way, donate=donate)
        state = xopt.momentum_init({"b": np.ones(2), "a": np.zeros(2)})
        state = state._replace(v=OrderedDict(a=np.full(2, 3.0), b=np.full(2, 5.0)))
        expected = xopt.momentum_step(copy.deepcopy(state), {"a": np.ones(2), "b": np.ones(2)})
        new = step(state, {"a": np.ones(2), "b": np.ones(2)})
        assert type(new.v) is dict
        assert list(new.v) == ["b", "a"]
        assert_same_bits(new, expected)


@pytest.mark.parametrize(
    ("lr", "said"),
    [
        ({"w": 0.1}, "lr['b'] is missing"),
        ({"w": 0.1, "b": 0.1, "c": 0.1}, "lr['c'] is superfluous"),
        ([0.1, 0.1], "lr is a list, but params is a dict"),
        ({"w": 0.1, "b": {"x": 0.1}}, "lr['b'] is a dict, but params['b'] is an array"),
        ({"w": np.ones(100_000), "b": "x" * 100_000}, "lr['b'] must be a number"),
        ({"w": 0.1, "b": -1.0}, "lr['b'] must be in [0, inf), got -1.0"),
        ({"w": 0.1, "b": None}, "lr['b'] must be a number"),
    ],
)
@pytest.mark.parametrize("way", WAYS)
def test_errors_of_groups_name_the_place_in_few_words(lr: Any, said: str, way: str | None) -> None:
    params = {"w": np.ones(100_000), "b": np.ones(100_000)}
    for call in (lambda: xopt.sgd_init(params, lr=lr), lambda: step_of(xopt.sgd, way)(xopt.sgd_init(params), params, lr=lr)):
        with pytest.raises((TypeError, ValueError)) as error:
            call()
        assert said in str(error.value)
        assert len(str(error.value)) < 400


def test_none_in_a_group_is_a_value() -> None:
    params = {"w": np.ones(2), "b": np.ones(2)}
    state = xopt.ademamix_step(xopt.ademamix_init(params), params, alpha_warmup={"w": None, "b": 10})
    one, other = (xopt.ademamix_step(xopt.ademamix_init(params), params, alpha_warmup=x) for x in (None, 10))
    assert_same_bits((state.params["w"], state.params["b"]), (one.params["w"], other.params["b"]))


# B. NumPy's scalars are 0-d arrays, and what is carried is known by its slot.


@pytest.mark.parametrize("scalar", [np.float64(3.0), np.float32(3.0), np.float16(3.0), np.ones(3).mean()])
@pytest.mark.parametrize("way", WAYS)
def test_scalars_are_arrays(rule: Any, scalar: Any, way: str | None) -> None:
    step, array = step_of(rule, way), np.asarray(scalar)
    for params, same in ((scalar, array), ([scalar, np.ones(3)], [array, np.ones(3)]), ({"a": scalar}, {"a": array})):
        state, expected = rule.init(params), rule.init(same)
        for _ in range(3):
            # clipped, as a training loop does: NumPy makes a scalar of it
            state = state._replace(params=optree.tree_map(lambda x: np.maximum(x, np.float16(-9.0)), state.params))
            state, expected = step(state, params), rule.step(expected, same)
            assert_same_bits(state, expected)
            assert all(type(x) is np.ndarray for x in optree.tree_leaves(state.params))


@pytest.mark.parametrize("way", WAYS)
def test_slots_that_are_scalars(rule: Any, way: str | None) -> None:
    state = rule.step(rule.init(np.asarray(2.0)), np.asarray(1.0))
    scalars = state._replace(**{slot: optree.tree_map(np.float64, getattr(state, slot)) for slot in rule.slots})
    assert_same_bits(step_of(rule, way)(scalars, np.float64(0.5)), rule.step(state, np.asarray(0.5)))


@pytest.mark.parametrize("way", COMPILERS)
def test_scalars_cannot_be_donated(way: str) -> None:
    for scalar in (np.float32(2.0), np.float64(2.0)):
        state = xopt.adam_init({"a": np.ones(3, scalar.dtype), "b": scalar})
        before = copy.deepcopy(state)
        with pytest.raises(ValueError, match=r"params\['b'\] or a slot of it is a NumPy scalar"):
            fuse(xopt.adam, donate=True, compiler=way)(state, state.params)
        assert_same_bits(state, before)


# C. Memory is read raw only where it may be.


def torch_cases() -> dict[str, Callable[[Any], Any]]:
    """Tensors that are more, or other, than their numbers in memory; all of 1, 2, 3, -4."""
    return {
        "negated": lambda torch: torch._neg_view(torch.tensor([-1.0, -2.0, -3.0, 4.0])),
        "imaginary part of a conjugate": lambda torch: (
            torch.complex(torch.ones(4), -torch.tensor([1.0, 2.0, 3.0, -4.0])).conj().imag
        ),
        "subclass": lambda torch: torch.tensor([1.0, 2.0, 3.0, -4.0]).as_subclass(type("Own", (torch.Tensor,), {})),
        "expanded": lambda torch: torch.tensor([1.0, 2.0, 3.0, -4.0]).expand(2, 4),
        "windows": lambda torch: torch.tensor([1.0, 2.0, 3.0, -4.0]).as_strided((3, 2), (1, 1)),
    }


@pytest.mark.parametrize("compiler", ["numba", pytest.param("torch.compile", marks=pytest.mark.filterwarnings("ignore"))])
@pytest.mark.parametrize("case", torch_cases())
def test_odd_tensors_as_params_slots_and_gradients(case: str, compiler: str) -> None:
    torch = pytest.importorskip("torch")
    odd = torch_cases()[case](torch)
    plain = odd.clone().as_subclass(torch.Tensor).resolve_neg().contiguous()
    step = fuse(xopt.momentum, compiler=compiler)
    expected = xopt.momentum_step(
        xopt.momentum_State(plain) if False else xopt.momentum_init(plain)._replace(v=plain), plain, lr=0.5
    )
    for params, v, grad in ((odd, plain, plain), (plain, odd, plain), (plain, plain, odd), (odd, odd, odd)):
        new = step(xopt.momentum_init(params)._replace(v=v), grad, lr=0.5)
        assert torch.equal(new.params.as_subclass(torch.Tensor), expected.params)
        assert torch.equal(new.v.as_subclass(torch.Tensor), expected.v)
        assert torch.equal(odd.as_subclass(torch.Tensor), plain)


@pytest.mark.parametrize("case", torch_cases())
def test_odd_tensors_are_not_written_over(case: str) -> None:
    torch = pytest.importorskip("torch")
    for compiler in ("numba", "torch.compile"):
        step = fuse(xopt.sgd, donate=True, compiler=compiler)
        odd, first = torch_cases()[case](torch), torch.ones(3)
        with pytest.raises((TypeError, ValueError), match=r"sgd_step, fused: params\[1\].*donate"):
            step(xopt.sgd_init([first, odd]), [torch.ones(3), torch.ones_like(odd)])
        assert torch.equal(first, torch.ones(3))
        plain = odd.clone().as_subclass(torch.Tensor).resolve_neg().contiguous()
        if case in ("expanded", "windows") or odd.is_neg():  # as a gradient it is only read
            new = step(xopt.sgd_init(torch.zeros_like(plain)), odd, lr=0.5)
            assert torch.equal(new.params, -plain / 2)


def test_a_negated_gradient_descends() -> None:
    torch = pytest.importorskip("torch")
    weight, step = torch.tensor([3.0 + 4.0j]), fuse(xopt.sgd, donate=True)
    state = xopt.sgd_init([weight.real.clone(), weight.imag.clone()])
    for _ in range(100):
        value = torch.complex(*state.params).requires_grad_()
        (value.abs() ** 2).sum().backward()
        grad = value.grad.conj().conj().resolve_conj().conj()
        state = step(state, [grad.real, -grad.imag], lr=0.1)
    assert float(torch.complex(*state.params).abs()) < 1e-6


@pytest.mark.parametrize("way", COMPILERS)
def test_masks_are_kept(way: str) -> None:
    masked = np.ma.MaskedArray([1.0, 2.0, 3.0], mask=[False, True, False])
    new = fuse(xopt.adam, compiler=way)(xopt.adam_init({"a": masked, "b": np.ones(2)}), {"a": masked, "b": np.ones(2)})
    assert isinstance(new.params["a"], np.ma.MaskedArray)
    assert new.params["a"].mask.tolist() == [False, True, False]
    assert not isinstance(new.params["b"], np.ma.MaskedArray)
    with pytest.raises(TypeError, match=r"params\['a'\].*MaskedArray.*donate"):
        fuse(xopt.adam, compiler=way, donate=True)(xopt.adam_init({"a": masked}), {"a": masked})
    with pytest.raises(TypeError, match="lr is a MaskedArray, of which only the number would be used"):
        fuse(xopt.adam, compiler=way)(xopt.adam_init(np.ones(2)), np.ones(2), lr=np.ma.MaskedArray(0.5))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", xopt.RULES)
def test_masked_arrays_stay_float32_where_a_coefficient_is_1(name: str, way: str | None) -> None:
    """lr = 1, and corrections for a bias that has become 1: by a Python number a masked array would widen."""
    rule, plain = xopt.RULES[name], np.array([1.0, 2.0, 3.0], np.float32)
    hyper = {"lr": 1.0} | ({"beta2": 0.5} if "beta2" in rule.defaults else {})
    state, expected = rule.bind(**hyper).init(np.ma.MaskedArray(plain, mask=[False, True, False])), rule.bind(**hyper).init(plain)
    for count in (0, 200):
        state = step_of(rule, way)(state._replace(step=count), plain, **hyper)
        expected = rule.step(expected._replace(step=count), plain, **hyper)
    assert state.params.dtype == np.float32
    assert state.params.mask.tolist() == [False, True, False]
    assert state.params.data[::2].tolist() == expected.params[::2].tolist()


@pytest.mark.parametrize("way", WAYS)
def test_a_subclass_that_widens_its_dtype_is_refused(way: str | None) -> None:
    wide = np.ones(3, np.float32).view(Wide)
    with pytest.raises(TypeError, match="has become float64, as Wide widens float32"):
        step_of(xopt.sgd, way)(xopt.sgd_init(wide), wide, lr=0.5)


class Wide(np.ndarray):
    """Computes in float64, whatever it meets."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Any:
        return getattr(ufunc, method)(*(np.asarray(x, np.float64) for x in inputs)).view(Wide)


@pytest.mark.parametrize("way", COMPILERS)
def test_mapped_memory_is_memory(way: str, tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(5,))
    mapped[:] = 1.0
    new = fuse(xopt.sgd, compiler=way)(xopt.sgd_init(mapped), np.ones(5, np.float32), lr=0.5)
    assert new.params.tolist() == [0.5] * 5
    fuse(xopt.sgd, compiler=way, donate=True)(xopt.sgd_init(mapped), np.ones(5, np.float32), lr=0.5)
    assert mapped.tolist() == [0.5] * 5


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("fused", [False, True])
def test_sparse_and_nested_tensors_are_named(fused: bool) -> None:
    torch = pytest.importorskip("torch")
    step = fuse(xopt.sgd) if fused else xopt.sgd_step
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    for odd in (torch.ones(3).to_sparse(), torch.ones(3, 3).to_sparse_csr(), torch.ones(3).to_mkldnn(), nested):
        with pytest.raises(TypeError, match=r"sgd_init: params\['w'\] is a sparse or nested tensor"):
            xopt.sgd_init({"w": odd})
        with pytest.raises(TypeError, match=r"sgd_step: grad\['w'\] is a sparse or nested tensor"):
            step(xopt.sgd_init({"w": torch.ones(3)}), {"w": odd})


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_parameters_of_lazy_modules_are_named(name: str) -> None:
    torch = pytest.importorskip("torch")
    rule, lazy = xopt.RULES[name], torch.nn.LazyLinear(3)
    with pytest.raises(TypeError, match=r"_init: params is a UninitializedBuffer, which has no numbers yet"):
        rule.init(torch.nn.LazyBatchNorm1d().running_mean)
    with pytest.raises(TypeError, match=r"_init: params\['weight'\] is a UninitializedParameter, which has no numbers yet"):
        rule.init({"weight": lazy.weight})
    state = rule.init({"weight": torch.ones(3)})
    for step in (rule.step, fuse(rule)):
        with pytest.raises(TypeError, match=r"UninitializedParameter"):
            step(state._replace(params={"weight": lazy.weight}), {"weight": torch.ones(3)})


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own forward_ad uses it
def test_what_torch_follows_is_stepped_plainly() -> None:
    """torch.func's transforms, forward differentiation, modes that see each operation, tensors without numbers."""
    torch = pytest.importorskip("torch")
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.autograd import forward_ad

    step, state = fuse(xopt.lion), xopt.lion_init(torch.zeros(3))
    grads = torch.tensor([[1.0, -2.0, 0.0], [-1.0, 5.0, 2.0]])
    batched = torch.func.vmap(lambda grad: step(state, grad, lr=0.5).params)(grads)
    assert torch.equal(batched, -torch.sign(grads) / 2)
    rates = torch.func.vmap(lambda lr: step(state, torch.ones(3), lr=lr).params)(torch.tensor([0.5, 0.25]))
    assert rates.tolist() == [[-0.5] * 3, [-0.25] * 3]
    slope = torch.func.grad(lambda lr: step(state, torch.ones(3), lr=lr).params.sum())(torch.tensor(0.5))
    assert float(slope) == -3.0
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.ones(3), torch.full((3,), 2.0))
        new = fuse(xopt.sgd)(xopt.sgd_init(torch.zeros(3)), dual, lr=0.5)
        assert forward_ad.unpack_dual(new.params).tangent.tolist() == [-1.0] * 3
    with FakeTensorMode():
        assert tuple(fuse(xopt.adam)(xopt.adam_init(torch.ones(3)), torch.ones(3)).params.shape) == (3,)
    meta = torch.ones(3, device="meta")
    assert fuse(xopt.adam)(xopt.adam_init(meta), meta).params.device.type == "meta"
    with pytest.raises(TypeError, match=r"fused: params, a slot or its gradient is .*donate"):
        torch.func.vmap(lambda g: fuse(xopt.lion, donate=True)(xopt.lion_init(torch.zeros(3)), g).params)(grads)


def test_a_graph_is_refused_wherever_it_begins() -> None:
    torch = pytest.importorskip("torch")
    one, tracked = torch.ones(3), torch.ones(3, requires_grad=True)
    rate = torch.tensor(0.5, requires_grad=True)
    step = fuse(xopt.momentum)
    calls = (
        lambda: step(xopt.momentum_init(tracked), one),
        lambda: step(xopt.momentum_init(one), tracked * 1),
        lambda: step(xopt.momentum_init(one)._replace(v=tracked * 1), one),
        lambda: step(xopt.momentum_init(one), one, lr=rate),
    )
    for call in calls:
        with pytest.raises(TypeError, match="requires gradients, and no graph is recorded"):
            call()
        with torch.no_grad():
            call()
    xopt.momentum_step(xopt.momentum_init(one), one, lr=rate).params.sum().backward()
    assert float(rate.grad) == -3.0


def test_a_graph_that_needs_a_donated_slot_fails() -> None:
    torch = pytest.importorskip("torch")
    x, state = torch.ones(3, requires_grad=True), xopt.adam_init(torch.ones(3))
    loss = (x * state.m + x * state.v).sum()  # saves both
    with torch.no_grad():
        fuse(xopt.adam, donate=True)(state, torch.ones(3))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# D. Donation.


def half(way: str) -> tuple[Any, Any, Any]:
    step = fuse(xopt.adam, donate=True, compiler=way)
    params = {"a": normal(0, 5), "b": normal(1, 50, 2)[:, 1], "c": normal(2, 7)}
    state = xopt.adam_init(params)
    step(xopt.adam_init(copy.deepcopy(params)), params)  # compiles
    return step, state, copy.deepcopy(params)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
@pytest.mark.parametrize("way", COMPILERS)
def test_a_half_written_state_is_refused_ever_after(way: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    step, state, grad = half(way)
    first = host if way == "numba" else blocks
    monkeypatch.setattr(first, "blocks_of", lambda *_: (_ for _ in ()).throw(error("while it writes")))
    with pytest.raises(error, match="while it writes"):
        step(state, grad)
    monkeypatch.undo()
    rearranged = state._make([*(dict(reversed(column.items())) for column in state[:-1]), 0])
    without = state._make([*({"c": column["c"]} for column in state[:-1]), 0])
    for old, g in ((state, grad), (rearranged, grad), (without, {"c": grad["c"]})):
        for again in (step, fuse(xopt.adam, compiler=way)):
            with pytest.raises(ValueError, match="half written"):
                again(old, g)
    del state, rearranged, without, old
    gc.collect()
    assert not __import__("xopt.backends.fused.donation").backends.fused.donation._halves


def test_a_donated_step_that_is_interrupted(tmp_path: Path) -> None:
    """A real signal, at any moment: the state goes on untouched, or is refused."""
    code = """if True:
        import signal, sys, time, threading, os, numpy as np, xopt
        from xopt.backends import fuse
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a process in the background ignores
        n = 300_000
        step = fuse(xopt.ademamix, donate=True)
        warm = xopt.ademamix_init(np.ones(n))
        for _ in range(3):  # until nothing is compiled or loaded any more: llvmlite's callbacks lose what is raised in them
            warm = step(warm, np.ones(n))
        refused = 0
        for trial in range(12):
            params = [np.ones(n) for _ in range(8)]
            state, grad = xopt.ademamix_init(params), [np.ones(n) for _ in range(8)]
            timer = threading.Timer(0.01 + 0.001 * trial, lambda: os.kill(os.getpid(), signal.SIGINT))
            try:
                timer.start()
                for _ in range(5):
                    state = step(state, grad)
                time.sleep(5)
            except KeyboardInterrupt:
                pass
            else:
                raise AssertionError("no signal came")
            try:
                new = step(state, grad)
            except ValueError as error:
                assert "donated" in str(error), error
                refused += 1
            else:
                fresh = xopt.ademamix_init([np.ones(n) for _ in range(8)])
                for _ in range(new.step):
                    fresh = xopt.ademamix_step(fresh, grad)
                assert all(np.array_equal(a, b) for a, b in zip(new.params, fresh.params)), "half written, and accepted"
        assert refused, "no step was interrupted"
        """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("way", COMPILERS)
def test_what_is_refused_is_refused_before_anything_is_written(way: str) -> None:
    read_only = np.ones(4)
    read_only.flags.writeable = False
    windows = np.lib.stride_tricks.as_strided(np.ones(5), (4, 2), (8, 8))
    shared = np.ones(8)
    bad: list[Any] = [
        [read_only],
        [np.broadcast_to(np.ones(1), (4,)).copy()[:0], np.broadcast_to(np.ones(1), (4,))],
        [windows],
        [shared, shared[::2]],
        [shared[:5], shared[4:]],
        [np.float64(1.0)],
        [np.ones(3, ">f8"), read_only],
    ]
    for rest in bad:
        params = [np.ones(3), np.full((), 2.0), *rest]
        state = xopt.momentum_init(params)
        before = copy.deepcopy(state)
        with pytest.raises(ValueError, match=r"momentum_step, fused: params\[[0-9]\].* fuse without donate takes"):
            fuse(xopt.momentum, donate=True, compiler=way)(state, [np.ones_like(x) for x in params])
        assert_same_bits(state, before)
        assert_same_bits(
            fuse(xopt.momentum, compiler=way)(state, [np.ones_like(x) for x in params]),
            xopt.momentum_step(before, [np.ones_like(x) for x in params]),
        )


@pytest.mark.parametrize("way", COMPILERS)
def test_a_gradient_may_be_its_params_and_nothing_else_that_is_written(way: str) -> None:
    step = fuse(xopt.momentum, donate=True, compiler=way)
    x, y = np.ones(6), np.full(6, 2.0)
    new = step(xopt.momentum_init([x, y]), [x, y], lr=0.5)
    assert [p[0] for p in new.params] == [0.5, 1.0]
    for dtype in (np.float32, np.float16):
        buffer = np.ones(12, np.float32)
        params, grad = np.ones(6, dtype), buffer.view(dtype)[:6]
        state = xopt.momentum_init(params)._replace(v=buffer[:6])
        if dtype is np.float32:
            step(state, grad)
        else:  # it begins where the slot begins, and ends elsewhere
            with pytest.raises(ValueError, match="shares memory"):
                step(state, grad)


def test_two_threads_cannot_donate_one_state() -> None:
    step, outcomes = fuse(xopt.sgd, donate=True), []
    step(xopt.sgd_init(np.ones(10)), np.ones(10))
    for _ in range(50):
        state, start = xopt.sgd_init(np.ones(10_000)), threading.Barrier(2)
        outcomes.clear()

        def work(state: Any = state, start: Any = start) -> None:
            start.wait()
            try:
                outcomes.append(step(state, np.ones(10_000), lr=0.5).params[0])
            except ValueError:
                outcomes.append(None)

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes, key=str) == [0.5, None]


# E. Counts and carried numbers.

COUNTS: list[Any] = [
    np.zeros(3, int),
    np.zeros((1,), int),
    -3,
    np.int64(-3),
    float("nan"),
    5.7,
    5.0,
    None,
    "5",
    True,
    np.float32(3),
    np.bool_(True),
    3j,
    np.timedelta64(5),
    np.timedelta64(5, "s"),
    [],
]


@pytest.mark.parametrize("count", COUNTS, ids=repr)
@pytest.mark.parametrize("way", WAYS)
def test_a_step_count_is_a_count(count: Any, way: str | None) -> None:
    for tree in (np.ones(2), {"w": np.ones(2)}):
        state = xopt.adam_init(tree)._replace(step=count)
        with pytest.raises((TypeError, ValueError), match=r"adam_step: state\.step must be"):
            step_of(xopt.adam, way)(state, tree)


def test_counts_of_torch_and_jax() -> None:
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    for xp, ones in ((torch, torch.ones(2)), (jax.numpy, jax.numpy.ones(2))):
        make = torch.tensor if xp is torch else jax.numpy.asarray
        state = xopt.adam_init(ones)
        expected = xopt.adam_step(state._replace(step=300), ones)
        for step in (xopt.adam_step, fuse(xopt.adam)):
            for dtype in ("int32", "uint8", "int16"):
                count = 200 if dtype == "uint8" else 300
                new = step(state._replace(step=make(count, dtype=getattr(xp, dtype))), ones)
                assert int(new.step) == count + 1
                if count == 300:
                    assert_same_bits(new.params, expected.params)
            for bad in (make(3.0), make(3.0, dtype=xp.bfloat16), make([3, 3]), make(True)):
                with pytest.raises(TypeError, match=r"adam_step: state\.step must be an int or a 0-d array of integers"):
                    step(state._replace(step=bad), ones)
            with pytest.raises(ValueError, match=r"state\.step must be 0 or more, got -3"):
                step(state._replace(step=make(-3)), ones)


def test_a_vmapped_state_is_for_a_vmapped_step() -> None:
    jax = pytest.importorskip("jax")
    params = jax.numpy.ones((3, 2))
    state = jax.vmap(xopt.adam_init)(params)
    with pytest.raises(TypeError, match=r"state\.step .*vmapped init .* vmapped step"):
        xopt.adam_step(state, params)
    new = jax.vmap(xopt.adam_step)(state, params)
    assert new.step.tolist() == [1, 1, 1]


def test_a_traced_count_stays_at_its_end() -> None:
    jax = pytest.importorskip("jax")
    state = xopt.adam_init(jax.numpy.ones(2))._replace(step=jax.numpy.asarray(2**31 - 1, "int32"))
    new = jax.jit(xopt.adam_step)(state, jax.numpy.ones(2))
    assert int(new.step) == 2**31 - 1
    assert float(new.params[0]) == float(xopt.adam_step(state._replace(step=2**31 - 2), jax.numpy.ones(2)).params[0])
    with pytest.raises(TypeError, match=r"state\.step must be"):
        jax.jit(xopt.adam_step)(state._replace(step=jax.numpy.asarray(3, "uint8")), jax.numpy.ones(2))


@pytest.mark.parametrize("number", [float("nan"), None, [1.0], (1.0,), 2.0, -0.5, np.zeros(2), "x", True, float("inf")], ids=repr)
@pytest.mark.parametrize("way", WAYS)
def test_a_carried_number_is_a_number(number: Any, way: str | None) -> None:
    params = {"a": np.ones(2), "b": np.ones(2)}
    state = xopt.nadam_init(params)._replace(mu_product={"a": 1.0, "b": number})
    with pytest.raises((TypeError, ValueError), match=r"nadam_step: state\.mu_product(\['b'\]|\['b'\]\[0\])? must"):
        step_of(xopt.nadam, way)(state, params)


@pytest.mark.parametrize("number", [1, np.float32(0.5), np.asarray(0.5), np.float64(0.25), 0])
@pytest.mark.parametrize("way", WAYS)
def test_carried_numbers_of_every_kind_and_of_each_leaf(number: Any, way: str | None) -> None:
    params = {"a": np.ones(2), "b": np.ones(2), "c": np.ones(2)}
    state = xopt.nadam_init(params)._replace(mu_product={"a": 1.0, "b": number, "c": 0.125})
    new = step_of(xopt.nadam, way)(state, params)
    for key, own in (("a", 1.0), ("b", float(number)), ("c", 0.125)):
        alone = xopt.nadam_step(xopt.nadam_init(np.ones(2))._replace(mu_product=own), np.ones(2))
        assert_same_bits(new.params[key], alone.params)
        assert new.mu_product[key] == alone.mu_product
        assert type(new.mu_product[key]) is float


# G. States that come back from a file.


def through_file(state: Any, rule: Any, **hyper: Any) -> Any:
    """The recipe of the quick start."""
    file = io.BytesIO()
    np.savez(file, *optree.tree_leaves(state))
    file.seek(0)
    with np.load(file) as saved:
        arrays = [saved[name] for name in saved.files]
    return optree.tree_unflatten(optree.tree_structure(rule.bind(**hyper).init(state.params)), arrays)


@pytest.mark.parametrize("way", WAYS)
def test_states_from_files(rule: Any, way: str | None) -> None:
    off: dict[str, Any] = {decay: (0.5, 0.0) if rule.ranges[decay].sequence else 0.0 for decay in rule.memory.values()}
    two = {"betas": (0.5, 0.25)} if "betas" in rule.defaults else {}
    params = OrderedDict(w=normal(0, 3, 2).astype(np.float32), b=np.asarray(0.5), half=normal(2, 3).astype(np.float16))
    step = step_of(rule, way)
    for hyper in ({}, off, two):
        state = rule.step(rule.bind(**hyper).init(params), params, **hyper)
        for again in (through_file(state, rule, **hyper), pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
            one, other = state, again
            for _ in range(2):
                one, other = rule.step(one, params, **hyper), step(other, params, **hyper)
                assert_same_bits(one, other)


def test_a_reloaded_state_is_stepped_by_the_kernels() -> None:
    """Equal dtypes are other objects after pickle: they are not odd."""
    step = fuse(xopt.adam, compiler="numba")
    params = {f"k{i}": normal(i, 3).astype(np.float32) for i in range(5)}
    state = pickle.loads(pickle.dumps(xopt.adam_init(params)))
    assert next(iter(state.params.values())).dtype is not np.dtype(np.float32)
    odd: list[int] = []
    original = host.Layout.__init__

    def noted(self: Any, *given: Any) -> None:
        original(self, *given)
        odd.extend(self.odd)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host.Layout, "__init__", noted)
        for _ in range(2):
            state = step(state, params)
    assert odd == []


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8"])
@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_byte_order_is_kept(rule: Any, dtype: str, donate: bool, way: str | None) -> None:
    swapped = {
        "a": normal(0, 5).astype(dtype),
        "b": np.asarray(0.75, dtype),
        "c": normal(1, 3, 2).astype(dtype).T,
        "d": np.zeros(0, dtype),
    }
    native = {key: x.astype(x.dtype.newbyteorder("=")) for key, x in swapped.items()}
    step = step_of(rule, way, donate=donate) if way else rule.step
    state, expected = rule.init(copy.deepcopy(swapped)), rule.init(native)
    for _ in range(3):
        state, expected = step(state, swapped), rule.step(expected, native)
        for key in swapped:
            assert state.params[key].dtype == np.dtype(dtype)
            assert np.array_equal(state.params[key], expected.params[key])
        assert_same_bits(state[1:], expected[1:])
    with pytest.raises(TypeError, match=r"grad\['a'\] is"):
        step(state, native)


def test_a_state_of_an_earlier_import_says_so() -> None:
    state = xopt.rules.sgd.sgd_init(np.ones(2))
    try:
        importlib.reload(xopt.rules.sgd)
        with pytest.raises(
            TypeError, match=r"got a SGDState of an earlier import of xopt\.rules\.sgd; make one of this: SGDState\(\*state\)"
        ):
            xopt.rules.sgd.sgd_step(state, np.ones(2))
        assert xopt.rules.sgd.sgd_step(xopt.rules.sgd.SGDState(*state), np.ones(2)).step == 1
    finally:
        xopt.rules.sgd.__dict__.update(SGDState=xopt.sgd.state, sgd=xopt.sgd, sgd_init=xopt.sgd_init, sgd_step=xopt.sgd_step)


# H. Several devices.


def test_shardings_of_the_same_devices_go_together() -> None:
    pytest.importorskip("jax")
    code = """if True:
        import jax, numpy as np, xopt
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
        from xopt.backends import fuse

        devices = np.array(jax.devices())
        line, square = Mesh(devices, ("x",)), Mesh(devices.reshape(2, 2), ("a", "b"))
        places = {
            "x": NamedSharding(line, P("x")), "all": NamedSharding(line, P()),
            "ab": NamedSharding(square, P(("a", "b"))), "a": NamedSharding(square, P("a")),
        }
        def there(place, scale=1.0):
            return jax.device_put(jax.numpy.asarray(scale * np.arange(1.0, 9.0, dtype=np.float32)), places[place])
        expected = np.asarray(xopt.adam_step(xopt.adam_init(there("x")), there("x", 2.0), lr=0.5).params)
        for of_params in places:
            for of_grad in places:
                for step in (xopt.adam_step, fuse(xopt.adam), fuse(xopt.adam, donate=True)):
                    state = xopt.adam_init(there(of_params))
                    for _ in range(2):
                        old, state = state, step(state, there(of_grad, 2.0), lr=0.5)
                        if state.step == 1:
                            assert np.array_equal(np.asarray(state.params), expected), (of_params, of_grad)
                        for x in (state.params, state.m, state.v):
                            assert x.sharding.is_equivalent_to(places[of_params], 1), (of_params, of_grad, x.sharding)
        turned = jax.device_put(np.ones(8, np.float32), NamedSharding(Mesh(devices[::-1], ("x",)), P("x")))
        for step in (xopt.adam_step, fuse(xopt.adam)):
            for other in (turned, jax.numpy.ones(8)):
                try:
                    step(xopt.adam_init(there("x")), other)
                except ValueError as error:
                    assert "adam_step: grad is on device" in str(error), error
                else:
                    raise AssertionError("devices in another order are accepted")
        # devices of one CPU may have one memory for what each has as a whole: where NumPy's happens to be aligned
        kept = []
        for n in range(600, 1400, 8):
            kept.append(np.empty(n // 2, np.uint8))
            divided = jax.device_put(np.arange(n, dtype=np.float32), places["x"])
            whole = jax.device_put(divided, places["all"])
            if len({part.data.unsafe_buffer_pointer() for part in whole.addressable_shards}) == 1:
                new = fuse(xopt.sgd, donate=True)(xopt.sgd_init(whole), divided, lr=0.5)
                assert whole.is_deleted()
                assert all(np.array_equal(part.data, 0.5 * np.arange(n)) for part in new.params.addressable_shards)
                break
        else:
            raise AssertionError("no devices have one memory")
        # the parts of an array that all devices share are the memory that it was made of
        whole = jax.numpy.ones(8)
        shared = jax.device_put(whole, places["all"])
        try:
            fuse(xopt.sgd, donate=True)(xopt.sgd_init(shared), jax.device_put(whole, places["all"]))
        except ValueError as error:
            assert "shares memory" in str(error), error
        """
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300, env=os.environ | flags)


# I. Lion's sign, in every library and under every transformation of it.


def test_sign_of_each_number(library: Any) -> None:
    values = [0.0, -0.0, 1e-45, -1e-45, 3.0, -2.0, np.inf, -np.inf, np.nan]
    found = to_numpy(xopt.operations.sign(library.array(values, "float64")))
    assert np.array_equal(found, np.sign(values), equal_nan=True)


def test_sign_under_vmap_and_compile() -> None:
    torch = pytest.importorskip("torch")
    x = torch.tensor([[1.0, -2.0, 0.0], [float("nan"), -0.0, 5.0]])
    assert np.array_equal(torch.func.vmap(xopt.operations.sign)(x), torch.where(x == x, torch.sign(x), x), equal_nan=True)
    jagged = torch.nested.nested_tensor([torch.ones(2), -torch.ones(3)], layout=torch.jagged)
    new = xopt.lion_step(xopt.lion_init(jagged), jagged * 1, lr=0.5)
    assert [part.tolist() for part in new.params.unbind()] == [[0.5] * 2, [-0.5] * 3]


# L. Smaller ones.


def test_a_rule_that_has_stepped_can_be_copied() -> None:
    xopt.adam_step(xopt.adam_init(np.ones(2)), np.ones(2))
    fuse(xopt.adam)(xopt.adam_init(np.ones(2)), np.ones(2))
    assert copy.deepcopy({"rule": xopt.adam})["rule"] is xopt.adam
    assert copy.copy(xopt.adam).name == "adam"


def test_the_callers_decimal_context_does_not_matter() -> None:
    xopt.scalars._rounded_log.cache_clear()
    expected = xopt.ademamix.coefficients(3, beta3_warmup=10), xopt.nadam.coefficients(3, 0.5)
    xopt.scalars._rounded_log.cache_clear()
    with decimal.localcontext() as context:
        context.prec = 2
        for trap in context.traps:
            context.traps[trap] = True
        assert (xopt.ademamix.coefficients(3, beta3_warmup=10), xopt.nadam.coefficients(3, 0.5)) == expected


def test_a_random_key_among_params_is_named() -> None:
    jax = pytest.importorskip("jax")
    with pytest.raises(TypeError, match=r"adam_init: params\['key'\] must be real floating-point, got key<"):
        xopt.adam_init({"w": jax.numpy.ones(2), "key": jax.random.key(0)})


@pytest.mark.parametrize("count", [60, 61, 62, 63, 64, 65, 100])
@pytest.mark.parametrize("way", COMPILERS)
def test_any_number_of_betas(count: int, way: str) -> None:
    """Numba gives up at 61 where each array is an argument of its own."""
    betas = tuple(0.0 if i % 7 == 3 else i / (count + 1) for i in range(count))
    params = [normal(0, 5), normal(1, 6, 2)[:, 1]]
    begin = xopt.aggmo_init(params, betas=betas)
    expected = [begin]
    for _ in range(2):
        expected.append(xopt.aggmo_step(expected[-1], params, betas=betas))
    for donate in (False, True):
        state, step = copy.deepcopy(begin), fuse(xopt.aggmo, compiler=way, donate=donate)
        for _ in range(2):
            state = step(state, params, betas=betas)
        assert_same_bits(state, expected[-1])


@pytest.mark.parametrize("way", WAYS)
def test_numbers_beyond_every_float(way: str | None) -> None:
    for lr, shown in (
        (10**400, "1000"),
        (10**5000, "an int of 16610 bits"),
        (Fraction(10**400, 3), "Fraction"),
        (-(10**400), "-1000"),
    ):
        with pytest.raises(ValueError, match=r"sgd_step: lr must be in \[0, inf\), got") as error:
            step_of(xopt.sgd, way)(xopt.sgd_init(np.ones(2)), np.ones(2), lr=lr)
        assert shown in str(error.value)
    for lr in (float("inf"), np.longdouble("inf")):
        with pytest.raises(ValueError, match="lr must be"):
            xopt.sgd_step(xopt.sgd_init(np.ones(2, np.longdouble)), np.ones(2, np.longdouble), lr=lr)


def test_minus_0_is_0_whatever_came_before() -> None:
    params = np.asarray([-0.0, 0.0, 1.0], np.float32)
    for library in ("numpy", "torch"):
        x = LIBRARIES[library].array(params)
        for step in (xopt.sgd_step, fuse(xopt.sgd)):
            for _ in range(2):
                signs = [
                    np.signbit(leaves(step(xopt.sgd_init(x), x * 0 + 1, lr=lr).params)[0]).tolist() for lr in (-0.0, 0.0, -0.0)
                ]
                assert signs == [signs[1]] * 3


def test_fuse_takes_steps_and_not_their_inits() -> None:
    for bad in (xopt.adam_init, print, None):
        with pytest.raises(TypeError, match="fuse: rule must be a rule or its step"):
            fuse(bad)
    assert fuse(fuse(xopt.adam))(xopt.adam_init(np.ones(2)), np.ones(2)).step == 1


@pytest.mark.parametrize("name", ["my-rule", "2nd", "class", "a b", "", 'x"', "rule\n"])
def test_a_rule_is_called_by_an_identifier(name: str) -> None:
    with pytest.raises(ValueError, match="Rule: name must be an identifier"):
        xopt.Rule(name, xopt.sgd.state, xopt.sgd.coefficients, xopt.sgd.elementwise)


def test_fusing_again_compiles_nothing_again() -> None:
    jax = pytest.importorskip("jax")
    traces = []
    x = jax.numpy.ones(5)
    with pytest.MonkeyPatch.context() as patch:
        from xopt.backends.compilers.jax_jit import JaxJitFuser

        update = JaxJitFuser._update
        patch.setattr(JaxJitFuser, "_update", lambda *rest: (traces.append(1), update(*rest))[1])
        for _ in range(3):
            fuse(xopt.adam)(xopt.adam_init(x), x)
    assert len(traces) == 1


def test_a_rate_on_another_device_is_named() -> None:
    torch = pytest.importorskip("torch")
    for step in (xopt.sgd_step, fuse(xopt.sgd)):
        with pytest.raises(ValueError, match="sgd_step: lr is on device meta but params on cpu"):
            step(xopt.sgd_init(torch.ones(3)), torch.ones(3), lr=torch.tensor(0.1, device="meta"))


def test_leaves_cost_alike_whatever_their_slots() -> None:
    """No path of a leaf is looked for unless an error names it: that would grow with the square of the leaves."""
    called = []
    original = xopt.trees.path_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xopt.typed, "path_of", lambda *rest: (called.append(1), original(*rest))[1])
        for rule in xopt.RULES.values():
            for step in (rule.step, fuse(rule), fuse(rule, donate=True)):
                step(rule.init(np.ones(2)), np.ones(2))
                called.clear()  # what a new dtype asks for once
                params = [np.ones(2) for _ in range(20)]
                step(rule.init(params), [np.ones(2)] * 20)
                assert not called


class Tagged(Pair):
    """A container that is more than its fields."""

    def __new__(cls, *fields: Any) -> "Tagged":
        made = super().__new__(cls, *fields)
        made.tag = "of its own"  # type: ignore[attr-defined]
        return made


@pytest.mark.parametrize("way", ["numba", "blocks"])
@pytest.mark.parametrize("donate", [False, True])
def test_a_container_is_made_as_its_class_makes_it(donate: bool, way: str) -> None:
    """Also where a tree of one container is put together without asking optree."""
    params = Tagged(*[np.ones(3) for _ in Pair._fields])
    state = fuse(xopt.momentum, donate=donate, compiler=way)(xopt.momentum_init(params), params)
    plain = xopt.momentum_step(xopt.momentum_init(params), params)
    assert [vars(tree) for tree in (state.params, state.v)] == [vars(tree) for tree in (plain.params, plain.v)]
    assert vars(plain.v) == {"tag": "of its own"}


@pytest.mark.parametrize("compiler", ["numba", "torch.compile"])
@pytest.mark.parametrize("steps", [1, 2])
def test_zeros_that_are_not_in_memory_are_stepped_plainly(compiler: str, steps: int) -> None:
    """As torch's derivatives have them: their address is 0. Also after a step with a gradient that is in memory."""
    torch = pytest.importorskip("torch")
    step = fuse(xopt.momentum, compiler=compiler)
    state, zeros = xopt.momentum_init(torch.ones(3)), torch._efficientzerotensor((3,))
    for grad in [torch.ones(3)] * (steps - 1) + [zeros]:
        expected, state = xopt.momentum_step(state, grad), step(state, grad)
        assert torch.equal(state.params, expected.params)
    donating = fuse(xopt.momentum, compiler=compiler, donate=True)
    with pytest.raises(TypeError, match="of zeros that are not in memory; it cannot be donated"):
        donating(state, zeros)
