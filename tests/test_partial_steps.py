"""Leaves without a gradient, step counts of their own, and leaves that come and go."""

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import xopt
from xopt.backends import fuse

RULES = list(xopt.RULES.values())
WAYS = {"eager": lambda rule: rule.step, "fused": fuse, "donated": lambda rule: fuse(rule, donate=True)}
LIBRARIES = {"numpy": np.asarray, "torch": lambda x: torch.tensor(np.asarray(x))}


def params(library):
    make = LIBRARIES[library]
    return {"w": make([[1.0, 2.0], [3.0, 4.0]]), "b": make([0.5, 0.25, 0.125]), "c": [make(2.0), make([1.0])]}


def grads(library, k=1.0):
    make = LIBRARIES[library]
    return {"w": make([[k, -k], [k, 0.5]]), "b": make([0.1, -0.2, k]), "c": [make(0.5 * k), make([-k])]}


def numbers(state):
    return repr([np.asarray(x).tolist() if x is not None else None for x in leaves(state)])


def leaves(tree):
    if isinstance(tree, dict):
        return [x for key in tree for x in leaves(tree[key])]
    return [x for part in tree for x in leaves(part)] if isinstance(tree, list | tuple) else [tree]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_each_leaf_takes_its_own_steps(rule, way, library):
    """A leaf ends where it would alone, given its own gradients and as many steps."""
    step = WAYS[way](rule)
    one = rule.step if way == "eager" else fuse(rule)
    present = [{"w", "b", "c0", "c1"}, {"b", "c0"}, set(), {"w", "c1"}, {"w", "b", "c0", "c1"}]
    state = rule.init(params(library))
    alone = {name: rule.init(x) for name, x in _named(params(library)).items()}
    for k, there in enumerate(present):
        own = _named(grads(library, 1.0 + k))
        chosen = {name: own[name] if name in there else None for name in own}
        state = step(state, {"w": chosen["w"], "b": chosen["b"], "c": [chosen["c0"], chosen["c1"]]})
        alone = {name: one(alone[name], own[name]) if name in there else alone[name] for name in own}
    assert state.step == {"w": 3, "b": 3, "c": [3, 3]}
    for at, column in enumerate(state[:-1]):
        for name, x in _named(column).items():
            assert numbers([x]) == numbers([alone[name][at]]), name


def _named(tree):
    return {"w": tree["w"], "b": tree["b"], "c0": tree["c"][0], "c1": tree["c"][1]}


@pytest.mark.parametrize("way", WAYS)
def test_a_leaf_without_a_gradient_is_the_same_object(way):
    state = xopt.adamw_init(params("numpy"))
    w = state.params["w"]
    new = WAYS[way](xopt.adamw)(state, grads("numpy") | {"w": None})
    assert new.params["w"] is w
    assert new.v["w"] is state.v["w"]
    assert new.step == {"w": 0, "b": 1, "c": [1, 1]}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("start", [0, 7, np.int64(7)])
def test_without_any_gradient_nothing_moves(way, start):
    step = WAYS[way](xopt.lion)
    for state, grad in [
        (xopt.lion_init(np.ones(3)), None),
        (xopt.lion_init(params("numpy")), {"w": None, "b": None, "c": [None, None]}),
    ]:
        state = state._replace(step=start)
        new = step(state, grad)
        assert new.step is start
        assert numbers(new) == numbers(state)
        assert step(new, state.params).step == start + 1  # it was not given away


def test_counts_may_end_early_and_stay_so():
    state = xopt.adam_init(params("numpy"))._replace(step={"w": 4, "b": 0, "c": 9})
    assert xopt.adam_step(state, grads("numpy")).step == {"w": 5, "b": 1, "c": 10}
    parted = xopt.adam_step(state, grads("numpy") | {"c": [None, np.ones(1)]})
    assert parted.step == {"w": 5, "b": 1, "c": [9, 10]}
    turned = OrderedDict(c=9, b=0, w=4)
    new = fuse(xopt.adam)(state._replace(step=turned), grads("numpy"))
    assert new.step == OrderedDict(c=10, b=1, w=5)
    assert list(new.step) == ["c", "b", "w"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"w": 1, "b": 2, "c": [3, -1]}, r"state\.step\['c'\]\[1\] must be 0 or more, got -1"),
        ({"w": 1, "b": 2.5, "c": 3}, r"state\.step\['b'\] must be an int"),
        ({"w": 1, "b": None, "c": 3}, r"state\.step\['b'\] must be an int"),
        ({"w": 1, "b": np.arange(3), "c": 3}, r"state\.step\['b'\] must be an int"),
        ({"w": 1, "b": 2}, r"state\.step\['c'\] is missing"),
        ({"w": 1, "b": {"x": 2}, "c": 3}, r"state\.step\['b'\] is a dict, but params\['b'\] is an array"),
        ([1, 2, 3], r"state\.step is a list, but params is a dict"),
    ],
)
def test_a_wrong_tree_of_counts_is_refused(way, step, message):
    state = xopt.adam_init(params("numpy"))
    with pytest.raises((TypeError, ValueError), match=f"adam_step: .*{message}"):
        WAYS[way](xopt.adam)(state._replace(step=step), grads("numpy"))
    assert state.step == 0


def test_a_tree_of_counts_for_one_array_is_refused():
    state = xopt.adam_init(np.ones(3))
    with pytest.raises(TypeError, match=r"adam_step: state\.step must be an int or a 0-d array"):
        xopt.adam_step(state._replace(step=[1]), np.ones(3))


def test_a_donated_state_is_known_whatever_leaves_had_a_gradient():
    step = fuse(xopt.adam, donate=True)
    state = xopt.adam_init(params("numpy"))
    new = step(state, grads("numpy") | {"b": None})
    for grad in (grads("numpy"), grads("numpy") | {"w": None}):
        with pytest.raises(ValueError, match="donated to an earlier step"):
            step(state, grad)
    assert step(new, grads("numpy")).step == {"w": 2, "b": 1, "c": [2, 2]}


def test_the_memory_of_a_leaf_that_stays_is_not_written():
    memory = np.arange(6.0)
    step = fuse(xopt.sgd, donate=True)
    state = xopt.sgd_init({"w": memory[:4], "b": memory[2:]})
    with pytest.raises(ValueError, match=r"shares memory with params\['w'\]"):
        step(state, {"w": None, "b": np.ones(4)})
    assert memory.tolist() == [0, 1, 2, 3, 4, 5]
    state = xopt.sgd_init({"w": memory[:2], "b": memory[2:]})
    assert step(state, {"w": None, "b": np.ones(4)}, lr=1.0).params["b"].tolist() == [1, 2, 3, 4]


def test_jax_steps_what_has_a_gradient():
    import jax
    import jax.numpy as jnp

    state = xopt.adam_init(jax.tree.map(jnp.asarray, params("numpy")))
    grad = jax.tree.map(jnp.asarray, grads("numpy"))
    for step in (jax.jit(xopt.adam_step), fuse(xopt.adam), fuse(xopt.adam, donate=True)):
        own = jax.tree.map(jnp.array, state)
        own = step(own, grad | {"b": None})  # the first leaf: what a donated state is known by
        own = step(own, grad)
        assert jax.tree.map(int, own.step) == {"w": 2, "b": 1, "c": [2, 2]}
        one = xopt.adam_step(xopt.adam_init(state.params["b"]), grad["b"])
        np.testing.assert_allclose(own.params["b"], one.params, rtol=1e-6)

    def body(state, grad):
        return xopt.adam_step(state, grad), state.step["w"]

    begun = state._replace(step=jax.tree.map(lambda _: jnp.asarray(0), state.params))
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), grad) | {"b": None}
    last, seen = jax.lax.scan(body, begun, stacked)
    assert jax.tree.map(int, last.step) == {"w": 2, "b": 0, "c": [2, 2]}
    assert seen.tolist() == [0, 1]


# Leaves that come and go.


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_an_added_leaf_begins_and_the_others_go_on(rule):
    state = rule.init(params("numpy"))
    for _ in range(3):
        state = rule.step(state, grads("numpy"))
    grown = xopt.tree.add(state, {"head": {"k": np.ones(2)}})
    assert list(grown.params) == ["w", "b", "c", "head"]
    assert grown.step == {"w": 3, "b": 3, "c": [3, 3], "head": {"k": 0}}
    assert grown.params["w"] is state.params["w"]
    both = rule.step(grown, grads("numpy") | {"head": {"k": np.ones(2)}})
    alone = rule.step(rule.init(np.ones(2)), np.ones(2))
    assert numbers([column["head"]["k"] for column in both[:-1]]) == numbers(list(alone[:-1]))
    back = xopt.tree.drop(both, "head.*")
    expected = rule.step(state, grads("numpy"))
    assert back.step == expected.step == 4
    assert numbers(back) == numbers(expected)
    assert list(back.params) == ["w", "b", "c"]


def test_add_to_lists_frozen_places_and_with_what_init_takes():
    state = xopt.aggmo_init([np.ones(2)], betas=(0.5, 0.9))
    state = xopt.aggmo_step(state, [np.ones(2)], betas=(0.5, 0.9))
    state = xopt.tree.add(state, [None, np.ones(1)], betas=(0.5, 0.9))
    assert state.step == [1, 0]
    assert len(state.v[1]) == 2
    assert xopt.aggmo_step(state, [np.ones(2), np.ones(1)], betas=(0.5, 0.9)).step == [2, 1]
    frozen = xopt.adamw_init({"w": None, "b": np.ones(2)})
    thawed = xopt.tree.add(frozen, {"w": np.ones(3)}, beta1={"w": 0.0, "b": 0.9})
    assert thawed.step == 0
    assert thawed.m["w"] is None
    assert list(thawed.params) == ["w", "b"]


def test_drop_takes_containers_that_are_left_empty():
    state = xopt.sgd_init({"enc": {"w": np.ones(1), "b": np.ones(1)}, "dec": [np.ones(2), (np.ones(3), None)], "none": {}})
    left = xopt.tree.drop(state, "enc.*", "dec.0")
    assert keys(left.params) == keys({"dec": [(0, None)], "none": {}})
    assert keys(xopt.tree.drop(state, {"dec": 0}).params) == keys({"enc": {"w": 0, "b": 0}, "none": {}})
    assert keys(state.params) == keys({"enc": {"w": 0, "b": 0}, "dec": [0, (0, None)], "none": {}})


def keys(tree):
    if isinstance(tree, dict):
        return {key: keys(x) for key, x in tree.items()}
    return type(tree)(map(keys, tree)) if isinstance(tree, list | tuple) else tree is None


def test_records_keep_their_fields():
    from typing import NamedTuple

    class Layer(NamedTuple):
        weight: object
        bias: object

    state = xopt.sgd_init(Layer(np.ones(2), np.ones(1)))
    left = xopt.tree.drop(state, "bias")
    assert left.params.bias is None
    back = xopt.tree.add(left, Layer(None, np.zeros(1)))
    assert back.params.weight is state.params.weight
    assert back.params.bias.tolist() == [0]


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "state must be the state of a rule", lambda s: xopt.tree.add((1, 2), {})),
        (ValueError, r"params\['b'\] is an array of shape \(4,\).*which stays", lambda s: xopt.tree.add(s, {"b": np.ones(4)})),
        (ValueError, "float32.*which stays", lambda s: xopt.tree.add(s, {"b": np.ones(3, np.float32)})),
        (ValueError, r"params\['b'\] is \{'x'.*which stays", lambda s: xopt.tree.add(s, {"b": {"x": np.ones(3)}})),
        (ValueError, r"params\['c'\] is an array.*state.params\['c'\] is \[", lambda s: xopt.tree.add(s, {"c": np.ones(3)})),
        (ValueError, "params is a list that does not go with the dict", lambda s: xopt.tree.add(s, [np.ones(3)])),
        (TypeError, r"params\['n'\] must be real floating-point", lambda s: xopt.tree.add(s, {"n": np.ones(3, int)})),
        (TypeError, r"params\['n'\] must be an array, got 3", lambda s: xopt.tree.add(s, {"n": 3})),
        (TypeError, "unknown hyperparameter 'beta'", lambda s: xopt.tree.add(s, {"n": np.ones(1)}, beta=0.5)),
        (ValueError, "no leaf of state.params is called 'd.*'; there are b, c.0, c.1, w", lambda s: xopt.tree.drop(s, "d.*")),
        (ValueError, "state.params has no c.2", lambda s: xopt.tree.drop(s, {"c": [None, None, 1]})),
        (ValueError, "no leaf would be left", lambda s: xopt.tree.drop(s, "*")),
        (TypeError, "say which leaves to drop", lambda s: xopt.tree.drop(s)),
    ],
)
def test_what_cannot_be_added_or_dropped(error, message, call):
    state = xopt.adam_init(params("numpy"))
    before = numbers(state)
    with pytest.raises(error, match=message):
        call(state)
    assert numbers(state) == before


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "drop", "step", "some", "pickle"]), st.integers(0, 5)), max_size=12))
def test_any_history_of_leaves(history):
    """Each leaf is what it is alone, whatever comes and goes beside it."""
    rule = xopt.adamw
    state = rule.init({"p0": np.full(2, 0.5)})
    alone = {"p0": rule.init(np.full(2, 0.5))}
    for what, k in history:
        name = f"p{k}"
        if what == "add" and name not in alone:
            state = xopt.tree.add(state, {name: np.full(2, 1.0 + k)})
            alone[name] = rule.init(np.full(2, 1.0 + k))
        elif what == "drop" and len(alone) > 1 and name in alone:
            state = xopt.tree.drop(state, name)
            del alone[name]
        elif what == "pickle":
            state = pickle.loads(pickle.dumps(copy.deepcopy(state)))
        elif what in ("step", "some"):
            grad = {key: None if what == "some" and key == name else np.full(2, 0.25 * k) for key in state.params}
            state = (fuse(rule) if k % 2 else rule.step)(state, grad)
            alone = {key: one if grad[key] is None else rule.step(one, grad[key]) for key, one in alone.items()}
    assert set(state.params) == set(alone)
    for key, one in alone.items():
        assert numbers([column[key] for column in state[:-1]]) == numbers(list(one[:-1]))
        assert (state.step if isinstance(state.step, int) else state.step[key]) == one.step
