"""Every tree that JAX knows works like a dict: containers of flax, Equinox and JAX, in plain, fused, donating and jitted steps."""

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xopt
from xopt.backends import as_optax, fuse
from xopt.trees import flatten

jax = pytest.importorskip("jax")
jnp = jax.numpy

equinox = importlib.util.find_spec("equinox")
flax = importlib.util.find_spec("flax")
needs_equinox = pytest.mark.skipif(equinox is None, reason="Equinox is not installed: pip install equinox")
needs_flax = pytest.mark.skipif(flax is None, reason="flax is not installed: pip install flax")


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Dataclass:
    w: Any
    b: Any
    name: str = dataclasses.field(default="a", metadata={"static": True})


class Plain:
    """Registered without keys."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts


jax.tree_util.register_pytree_node(Plain, lambda x: (x.parts, None), lambda _, parts: Plain(*parts))


class Pair(NamedTuple):
    w: Any
    b: Any


def ones(*shape: int) -> Any:
    return jnp.arange(1.0, 1 + np.prod(shape, dtype=int)).reshape(shape)


def equinox_module() -> Any:
    import equinox as eqx

    return eqx.filter(eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0)), eqx.is_inexact_array)


def frozen_dict() -> Any:
    from flax.core import freeze

    return freeze({"a": {"w": ones(3)}, "b": ones(2)})


def flax_struct() -> Any:
    from flax import struct

    @struct.dataclass
    class Struct:
        w: Any
        b: Any
        name: str = struct.field(pytree_node=False, default="a")

    return Struct(ones(3), {"q": ones(2)})


def partitioned() -> Any:
    from flax import linen

    return {"x": linen.Partitioned(ones(3), ("data",)), "y": ones(2)}


def nnx_state() -> Any:
    from flax import nnx

    return nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)


def nnx_module() -> Any:
    from flax import nnx

    return nnx.Linear(2, 3, rngs=nnx.Rngs(0))


TREES: dict[str, Any] = {
    "dataclass": lambda: Dataclass(ones(3), [ones(2), None]),
    "without keys": lambda: Plain(ones(3), {"q": ones(2)}),
    "nested": lambda: {"a": [Dataclass(ones(2), Plain(ones(1))), Plain()], "b": (Pair(Dataclass(ones(1), ones(2, 2)), ones(2)),)},
    "Equinox": pytest.param(equinox_module, marks=needs_equinox),
    "FrozenDict": pytest.param(frozen_dict, marks=needs_flax),
    "flax.struct": pytest.param(flax_struct, marks=needs_flax),
    "Partitioned": pytest.param(partitioned, marks=needs_flax),
    "nnx.State": pytest.param(nnx_state, marks=needs_flax),
    "nnx.Module": pytest.param(nnx_module, marks=needs_flax),
}
trees = pytest.mark.parametrize(
    "make",
    [
        pytest.param(*x.values, marks=x.marks, id=name) if hasattr(x, "marks") else pytest.param(x, id=name)
        for name, x in TREES.items()
    ],
)


def gradient(tree: Any) -> Any:
    return jax.tree.map(lambda x: 0.5 * x - 0.25, tree)


def assert_same(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


@trees
@pytest.mark.parametrize("rule", [xopt.adamw, xopt.nadam, xopt.aggmo], ids=lambda rule: rule.name)
def test_steps(make: Callable[[], Any], rule: Any) -> None:
    """The bits of each leaf are those of a list of the leaves, in a tree of params' own containers."""
    params = make()
    leaves, tree = jax.tree.flatten(params)
    plain = rule.init(leaves)
    for _ in range(2):
        plain = rule.step(plain, jax.tree.leaves(gradient(params)))
    for step in (rule.step, fuse(rule), fuse(rule, donate=True)):
        state = rule.init(jax.tree.map(jnp.copy, params))
        assert jax.tree.structure(state.params) == tree
        for _ in range(2):
            state = step(state, gradient(params))
            assert type(state.params) is type(params)
        assert_same(state.params, tree.unflatten(plain.params))
    jitted = jax.jit(rule.step)
    state = jitted(jitted(rule.init(params), gradient(params)), gradient(params))
    assert jax.tree.structure(state.params) == tree
    assert_same(*(jax.tree.map(lambda x: x * 0, x) for x in (state.params, params)))
    for x, y in zip(jax.tree.leaves(state.params), plain.params, strict=True):
        np.testing.assert_array_less(abs(x - y), 64 * 2.0**-24 * (abs(y) + 1))  # two steps' roundings, contracted in another way
    assert jax.tree.structure(jax.jit(rule.init)(params).params) == tree


@trees
def test_groups(make: Callable[[], Any]) -> None:
    """A hyperparameter may be such a tree, whole, or a prefix of containers that are."""
    params = make()
    leaves, tree = jax.tree.flatten(params)
    rates = [0.5**i for i in range(len(leaves))]
    lr = tree.unflatten(rates)
    wanted = xopt.lion_step(xopt.lion_init(leaves), jax.tree.leaves(gradient(params)), lr=rates)
    for step in (xopt.lion_step, fuse(xopt.lion), jax.jit(lambda s, g: xopt.lion_step(s, g, lr=lr)), xopt.lion.bind(lr=lr).step):
        given = {} if "jit" in str(step) or isinstance(getattr(step, "__self__", None), xopt.lion.bind().__class__) else {"lr": lr}
        assert_same(step(xopt.lion_init(params), gradient(params), **given).params, tree.unflatten(wanted.params))


def test_prefixes() -> None:
    params = {"a": Dataclass(ones(2), [ones(1), ones(3)]), "b": Plain(ones(1), ones(1))}
    prefix = {"a": Dataclass(0.1, 0.2), "b": 0.3}
    whole = {"a": Dataclass(0.1, [0.2, 0.2]), "b": Plain(0.3, 0.3)}
    one, other = (xopt.lion_step(xopt.lion_init(params), gradient(params), lr=lr).params for lr in (prefix, whole))
    assert_same(one, other)


@trees
def test_as_optax_takes_them(make: Callable[[], Any]) -> None:
    params, tx = make(), as_optax(xopt.adamw)
    updates, state = jax.jit(tx.update)(gradient(params), tx.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params) == jax.tree.structure(state.m)


PATHS = {
    "dataclass": ["params.w", "params.b[0]"],
    "without keys": ["params[<flat index 0>]", "params[<flat index 1>]['q']"],
    "nested": [
        "params['a'][0].w",
        "params['a'][0].b[<flat index 0>]",
        "params['b'][0].w.w",
        "params['b'][0].w.b",
        "params['b'][0].b",
    ],
    "Equinox": ["params.layers[0].weight", "params.layers[0].bias", "params.layers[1].weight", "params.layers[1].bias"],
    "FrozenDict": ["params['a']['w']", "params['b']"],
    "flax.struct": ["params.w", "params.b['q']"],
    "Partitioned": ["params['x'].value", "params['y']"],
    "nnx.State": ["params['bias'].value", "params['kernel'].value"],
}


@pytest.mark.parametrize("name", PATHS)
def test_messages_name_the_place(name: str) -> None:
    row = TREES[name]
    if hasattr(row, "marks"):
        for mark in row.marks:
            if mark.args[0]:
                pytest.skip(mark.kwargs["reason"])
        row = row.values[0]
    params = row()
    leaves, tree = jax.tree.flatten(params)
    for i, path in enumerate(PATHS[name]):
        wrong = tree.unflatten([x.astype(jnp.int32) if i == j else x for j, x in enumerate(leaves)])
        with pytest.raises(TypeError, match=re.escape(f"adam_init: {path} must be real floating-point, got int32")):
            xopt.adam_init(wrong)
        short = tree.unflatten([x[..., None] if i == j else x for j, x in enumerate(leaves)])
        for step in (xopt.adam_step, fuse(xopt.adam)):
            said = re.escape(f"adam_step: {path.replace('params', 'grad', 1)} has shape")
            with pytest.raises(ValueError, match=said):
                step(xopt.adam_init(params), short)


@pytest.mark.parametrize(
    ("grad", "says"),
    [
        (Dataclass(1.0, {"r": 2.0}), "grad.b['q'] is missing"),
        (Dataclass(1.0, {"q": 2.0}, name="b"), "grad and params are both a Dataclass, and differ in their static fields"),
        ({"w": 1.0, "b": {"q": 1.0}}, "got {'b': {'q': *}, 'w': *}; grad is a dict, but params is a Dataclass"),
        (
            Plain(1.0, {"q": 2.0}),
            "must have the tree of params, CustomTreeNode(Dataclass[], [*, {'q': *}]), got CustomTreeNode(Plain[], ",
        ),
    ],
)
def test_other_trees_are_refused(grad: Any, says: str) -> None:
    params = Dataclass(ones(2), {"q": ones(2)})
    grad = jax.tree.map(lambda _: ones(2), grad)
    for step in (xopt.lion_step, fuse(xopt.lion)):
        with pytest.raises(ValueError, match=re.escape(says)):
            step(xopt.lion_init(params), grad)


def test_a_container_that_appears_below_known_ones() -> None:
    """A class that is registered after such a tree was stepped, below containers whose shape a fused step keeps."""

    class Late:
        def __init__(self, x: Any) -> None:
            self.x = x

    step = fuse(xopt.sgd)
    params = {"a": ones(2), "b": ones(2)}
    step(xopt.sgd_init(params), params)
    late = {"a": Late(ones(2)), "b": Late(ones(2))}
    with pytest.raises(TypeError, match=r"params\['a'\] must be an array, got <"):
        xopt.sgd_init(late)
    jax.tree_util.register_pytree_node(Late, lambda x: ((x.x,), None), lambda _, x: Late(*x))
    state = step(xopt.sgd_init(late), late, lr=1.0)
    assert not np.any(state.params["a"].x)
    with pytest.raises(ValueError, match="grad must have the tree of params"):
        step(xopt.sgd_init(late), params)
    with pytest.raises(TypeError, match=r"grad\['a'\] must be an array like params\['a'\], got <"):
        step(xopt.sgd_init(params), late)


def test_threads_meet_a_container_at_once() -> None:
    for _ in range(20):

        class Shared:
            def __init__(self, x: Any) -> None:
                self.x = x

        jax.tree_util.register_pytree_node(Shared, lambda x: ((x.x,), None), lambda _, x: Shared(*x))
        tree, errors, begin = {"a": Shared(np.ones(2))}, [], threading.Barrier(4)

        def meet(tree: Any = tree, errors: list[Any] = errors, begin: threading.Barrier = begin) -> None:
            begin.wait()
            try:
                assert len(flatten(tree)[0][0]) == 2
            except Exception as error:  # noqa: BLE001 - of a thread
                errors.append(error)

        threads = [threading.Thread(target=meet) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors


LEAF = st.integers(0, 2).map(lambda n: jnp.arange(1.0, n + 1.0))


def containers(parts: Any) -> Any:
    return (
        st.dictionaries(st.sampled_from("abc"), parts, max_size=3)
        | st.lists(parts, max_size=2)
        | st.builds(Dataclass, parts, parts, st.sampled_from(["x", "y"]))
        | st.lists(parts, max_size=2).map(lambda x: Plain(*x))
        | st.builds(Pair, parts, parts)
        | st.none()
    )


@given(tree=st.recursive(LEAF, containers, max_leaves=5))
@settings(deadline=None, max_examples=100)
def test_any_tree_is_flattened_as_jax_does(tree: Any) -> None:
    leaves, spec = flatten(tree)
    theirs, structure = jax.tree.flatten(tree)
    assert list(map(id, leaves)) == list(map(id, theirs))
    assert jax.tree.structure(spec.unflatten(leaves)) == structure
    paths = ["".join(map(str, path)) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    assert [accessor.codify("") for accessor in spec.accessors()] == paths
    if leaves:
        state = xopt.adam_step(xopt.adam_init(tree), gradient(tree))
        assert jax.tree.structure(state.params) == structure


def test_numpy_alone_brings_no_jax() -> None:
    code = (
        "import sys, numpy as np, xopt\n"
        "class Other: pass\n"
        "state = xopt.adam_step(xopt.adam_init({'x': np.ones(2)}), {'x': np.ones(2)})\n"
        "try: xopt.adam_init({'x': Other()})\n"
        "except TypeError as error: assert 'must be an array' in str(error)\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)


@needs_equinox
def test_a_module_of_equinox_with_its_functions() -> None:
    import equinox as eqx

    with pytest.raises(
        TypeError, match=r"params.activation must be an array, got .*pass eqx.filter\(module, eqx.is_inexact_array\)"
    ):
        xopt.adam_init(eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0)))
