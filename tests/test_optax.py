"""as_optax: rules as gradient transformations, alone and in optax's own wrappers."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import xopt
from xopt.backends import as_optax
from xopt.conformance.arithmetic.bounded import BoundedArithmetic, inflate
from xopt.conformance.golden import GOLDENS, lift, start
from xopt.conformance.inputs.hyperparameters import settings as drawn_settings
from xopt.rule import Rule

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy

RULES = list(xopt.RULES)
PARAMS = {"w": np.linspace(-1.0, 2.0, 15).reshape(5, 3), "b": np.zeros(3), "s": np.asarray(0.5)}


def params(dtype: str = "float32") -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), PARAMS)


def gradient(i: int, like: Any) -> Any:
    rng = np.random.default_rng(i)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype), like)


def trained(tx: Any, p: Any, steps: int = 4, jit: bool = True, grads: Callable[[int, Any], Any] = gradient) -> tuple[Any, Any]:
    def step(p: Any, state: Any, grad: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grad, state, p)
        return optax.apply_updates(p, updates), state

    state, step = tx.init(p), jax.jit(step) if jit else step
    for i in range(steps):
        form = jax.tree.map(lambda x: (x.shape, x.dtype), state)
        p, state = step(p, state, grads(i, p))
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == form
    return p, state


def stepped(rule: Rule[Any, Any], p: Any, steps: int = 4, jit: bool = True, **hyper: Any) -> Any:
    bound = rule.bind(**hyper)
    state, step = bound.init(p), jax.jit(bound.step) if jit else bound.step
    for i in range(steps):
        state = step(state, gradient(i, p))
    return state.params


def assert_same(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


# The update is the rule's.


@pytest.mark.parametrize("jit", [True, False], ids=["jit", "eager"])
@pytest.mark.parametrize("name", RULES)
def test_applied_updates_are_the_step_of_the_rule(name: str, jit: bool) -> None:
    rule = xopt.RULES[name]
    found, _ = trained(as_optax(rule), params(), jit=jit)
    wanted = stepped(rule, params(), jit=jit)
    if name == "nadam" and not jit:  # whose product is a number of float32 here, and of float64 there
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            steps = 4 * rule.defaults["lr"] * 4  # of a length of at most four
            np.testing.assert_array_less(abs(x - y), 2.0**-24 * (steps * 16 + 4 * abs(y)))
    else:
        assert_same(found, wanted)


@given(
    name=st.sampled_from([name for name in RULES if name != "nadam"]),
    seed=st.integers(0, 2**16),
    shapes=st.lists(st.sampled_from([(), (1,), (3,), (2, 2), (0,)]), min_size=1, max_size=3),
)
@settings(deadline=None, max_examples=30)
def test_of_any_shapes_and_hyperparameters(name: str, seed: int, shapes: list[tuple[int, ...]]) -> None:
    rule = xopt.RULES[name]
    hyper = drawn_settings(rule, seed, 2, borders=False)[1]
    p = [{"x": jnp.asarray(np.random.default_rng(seed).normal(size=shape), "float32")} for shape in shapes]
    found, _ = trained(as_optax(rule, **hyper), p, 2, jit=False)
    assert_same(found, stepped(rule, p, 2, jit=False, **hyper))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", RULES)
def test_narrow_params_are_half_a_unit_of_the_update_off(name: str, dtype: str) -> None:
    """The step stores p - x, rounded; here x is rounded first. The room: half a unit of x, and half a unit for each rounded sum."""
    rule, p = xopt.RULES[name], params(dtype)
    tx = as_optax(rule)
    updates, _ = tx.update(gradient(0, p), tx.init(p), p)
    found, wanted = optax.apply_updates(p, updates), stepped(rule, p, 1, jit=False)
    info = jnp.finfo(dtype)
    unit, smallest = float(info.eps) / 2, float(info.smallest_subnormal)
    for x, y, u in zip(*map(jax.tree.leaves, (found, wanted, updates)), strict=True):
        assert x.dtype == y.dtype == u.dtype == dtype
        x, y, u = (np.asarray(a, np.float64) for a in (x, y, u))
        assert np.all(abs(x - y) <= (unit * (abs(u) + abs(x) + abs(y)) + smallest) * (1 + 2.0**-20))


def test_the_room_of_narrow_params_is_used() -> None:
    p = {"x": jnp.linspace(0.5, 1.0, 4096).astype("bfloat16")}
    tx = as_optax(xopt.sgd, lr=0.3)
    found, _ = trained(tx, p, 1, jit=False)
    wanted = stepped(xopt.sgd, p, 1, jit=False, lr=0.3)
    assert 0 < np.count_nonzero(np.asarray(found["x"] != wanted["x"])) < 2048


def _ended(end: Callable[[Any, Any], Any]) -> Rule[Any, Any]:
    def update(p: Any, grad: Any, c: Any) -> tuple[Any]:
        return (end(p, c.lr * grad),)

    update.__module__ = "xopt.rules.sgd"
    return Rule("otherwise", xopt.sgd.state, xopt.sgd.coefficients, update)


def test_a_rule_that_ends_otherwise() -> None:
    p, grad = {"x": jnp.asarray([1.0, -2.0, 3e-5])}, {"x": jnp.asarray([0.3, 0.7, -0.9])}
    wanted, _ = as_optax(xopt.sgd, lr=0.1).update(grad, as_optax(xopt.sgd).init(p), p)
    for end in (lambda p, x: p + -x, lambda p, x: -x + p):
        tx = as_optax(_ended(end), lr=0.1)
        assert_same(tx.update(grad, tx.init(p))[0], wanted)
    tx = as_optax(_ended(lambda p, x: 0.5 * (p - x)), lr=0.1)
    with pytest.raises(ValueError, match=r"otherwise_step: params are not given, and the update depends on them; call update\("):
        tx.update(grad, tx.init(p))
    updates, _ = tx.update(grad, tx.init(p), p)
    new, stored = 0.5 * (p["x"] - jnp.float32(0.1) * grad["x"]), optax.apply_updates(p, updates)["x"]
    assert np.all(abs(stored - new) <= 2.0**-24 * (abs(updates["x"]) + abs(new)))


# optax's own rules.

SAME = {
    "sgd": (lambda: optax.sgd(0.1), {"lr": 0.1}),
    "momentum": (lambda: optax.sgd(0.1, momentum=0.9), {"lr": 0.1, "beta": 0.9}),
    "nesterov": (lambda: optax.sgd(0.1, momentum=0.9, nesterov=True), {"lr": 0.1, "beta": 0.9}),
    "adam": (lambda: optax.adam(0.1), {"lr": 0.1}),
    "adam, eps_root": (lambda: optax.adam(0.1, eps_root=1e-3), {"lr": 0.1, "eps_root": 1e-3}),
    "adamw": (lambda: optax.adamw(0.1, weight_decay=0.1), {"lr": 0.1, "weight_decay": 0.1}),
    "adamw, eps_root": (
        lambda: optax.adamw(0.1, eps_root=0.5, weight_decay=0.0),
        {"lr": 0.1, "eps_root": 0.5, "weight_decay": 0.0},
    ),
    "lion": (lambda: optax.lion(0.1, weight_decay=0.1), {"lr": 0.1, "weight_decay": 0.1}),
    "ademamix": (lambda: optax.contrib.ademamix(0.1, weight_decay=0.1), {"lr": 0.1, "alpha": 5.0, "weight_decay": 0.1}),
}
"""What optax and xopt both have. Its NAdam has no schedule of the momentum, and its other rules are none of xopt's."""


@pytest.mark.parametrize("case", SAME)
def test_optaxs_own_rules_are_the_same(case: str) -> None:
    """Both are within the bound of the paper's equations; optax's order of operations is another, so that it has twice the room."""
    make, hyper = SAME[case]
    name = case.partition(",")[0]
    golden, steps, n = GOLDENS[name], 5, BoundedArithmetic()
    with jax.enable_x64(True):
        p = params("float64")
        theirs, ours = (trained(tx, p, steps, jit=False)[0] for tx in (make(), as_optax(xopt.RULES[name], **hyper)))
        grads = [gradient(i, p) for i in range(steps)]
        if name in ("sgd", "momentum", "nesterov"):
            assert_same(ours, theirs)
    h = lift(n, xopt.RULES[name].defaults | hyper)
    for key, first in p.items():
        for at in np.ndindex(first.shape):
            state = start(golden, n, n.number(float(first[at])), h)
            for t, grad in enumerate(grads, start=1):
                state = golden.step(n, *state, n.number(float(grad[key][at])), t, **h)
            room = float(inflate(state[0].error))
            assert room < 1e-9
            assert abs(float(ours[key][at]) - float(state[0].value)) <= room
            assert abs(float(theirs[key][at]) - float(state[0].value)) <= 2 * room


# Hyperparameters.


def test_a_schedule_sees_optaxs_count() -> None:
    seen = []

    def schedule(count: Any) -> Any:
        seen.append(int(count))
        return 0.5 ** (int(count) + 1)

    def ones(_: int, p: Any) -> Any:
        return jax.tree.map(jnp.ones_like, p)

    p = {"x": jnp.asarray([1.0])}
    ours, _ = trained(as_optax(xopt.sgd, lr=schedule), p, 3, jit=False, grads=ones)
    assert seen == [0, 1, 2]
    assert float(ours["x"][0]) == 1 - 0.5 - 0.25 - 0.125
    assert_same(ours, trained(optax.sgd(lambda count: 0.5 ** (count + 1)), p, 3, jit=False, grads=ones)[0])


def test_the_rules_own_count_begins_at_1() -> None:
    """AdEMAMix's warm-up gives alpha / T at the first step, as everywhere in xopt, and not 0."""
    warm = {"alpha": 8.0, "alpha_warmup": 4, "beta3_warmup": 4, "lr": 0.1}
    assert_same(
        trained(as_optax(xopt.ademamix, **warm), params(), jit=False)[0], stepped(xopt.ademamix, params(), jit=False, **warm)
    )


def test_groups_some_with_schedules() -> None:
    lr = {"w": optax.cosine_decay_schedule(0.1, 10), "b": 0.01, "s": jnp.asarray(0.5)}
    decay = {"w": 0.1, "b": 0.0, "s": 0.0}
    found, _ = trained(as_optax(xopt.adamw, lr=lr, weight_decay=decay), params(), 2, jit=False)
    state = xopt.adamw_init(params())
    for i in range(2):
        state = xopt.adamw_step(state, gradient(i, params()), lr=lr | {"w": lr["w"](i)}, weight_decay=decay)
    assert_same(found, state.params)


def test_decays_that_are_schedules_or_0() -> None:
    tx = as_optax(xopt.adamw, beta1=lambda count: 0.9 - 0.1 * count)
    assert tx.init(params()).m is not None
    trained(tx, params())
    assert as_optax(xopt.adamw, beta1=0.0).init(params()).m is None
    assert_same(trained(as_optax(xopt.adamw, beta1=0.0), params())[0], stepped(xopt.adamw, params(), beta1=0.0))


def test_buffers_of_groups() -> None:
    betas = {"w": (0.0, 0.5), "b": (0.25, 0.5, 0.75), "s": (0.9,)}
    tx = as_optax(xopt.aggmo, betas=betas)
    first, _, last = tx.init(params()).v
    assert first["w"] is None
    assert last["w"] is None
    assert last["b"] is not None
    assert_same(trained(tx, params())[0], stepped(xopt.aggmo, params(), betas=betas))


def test_a_bound_rule_and_a_step_are_taken_too() -> None:
    one = trained(as_optax(xopt.lion.bind(lr=0.5), beta1=0.5), params())[0]
    assert_same(one, trained(as_optax(xopt.lion_step, lr=0.5, beta1=0.5), params())[0])


# optax's wrappers.


def label(p: Any) -> Any:
    return {name: "first" if name == "w" else "second" for name in p}


DECAY = {"w": 0.1, "b": 0.0, "s": 0.0}
WRAPPED: dict[str, Callable[[], Any]] = {
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), as_optax(xopt.ademamix, lr=0.1), optax.scale(0.5)),
    "named_chain": lambda: optax.named_chain(("clip", optax.clip(1.0)), ("xopt", as_optax(xopt.lion, lr=0.1))),
    "masked": lambda: optax.masked(as_optax(xopt.adamw, lr=0.1, weight_decay=DECAY), {"w": True, "b": True, "s": False}),
    "masked away": lambda: optax.masked(as_optax(xopt.aggmo), {"w": False, "b": False, "s": False}),
    "partition": lambda: optax.partition({"first": as_optax(xopt.aggmo), "second": as_optax(xopt.nadam, lr=0.1)}, label),
    "multi_transform": lambda: optax.multi_transform({"first": as_optax(xopt.qhm), "second": optax.set_to_zero()}, label),
    "MultiSteps": lambda: optax.MultiSteps(as_optax(xopt.nadam, lr=0.1), 2).gradient_transformation(),
    "apply_if_finite": lambda: optax.apply_if_finite(as_optax(xopt.qhadam, lr=0.1), 3),
    "inject_hyperparams": lambda: optax.inject_hyperparams(
        lambda lr, weight_decay: as_optax(xopt.adamw, lr=lr, weight_decay=weight_decay), hyperparam_dtype=jnp.float32
    )(lr=optax.linear_schedule(0.1, 0.0, 9), weight_decay=0.1),
    "conditionally_mask": lambda: optax.conditionally_mask(as_optax(xopt.momentum, lr=0.1), lambda step: step < 2),
    "conditionally_transform": lambda: optax.conditionally_transform(as_optax(xopt.momentum, lr=0.1), lambda step: step < 2),
    "decay after it": lambda: optax.chain(as_optax(xopt.adam, lr=0.1), optax.add_decayed_weights(-1e-4)),
    "flatten": lambda: optax.flatten(as_optax(xopt.adam, lr=0.1)),
    "ema": lambda: optax.chain(as_optax(xopt.nesterov, lr=0.1), optax.ema(0.9)),
    "schedule_free": lambda: optax.contrib.schedule_free(as_optax(xopt.adamw, beta1=0.0, lr=0.1), 0.1, b1=0.9),
    "mechanize": lambda: optax.contrib.mechanize(as_optax(xopt.adam, lr=0.1)),
}
WRAPPED["MultiSteps of a partition of inject_hyperparams"] = lambda: optax.MultiSteps(
    optax.partition(
        {
            "first": optax.inject_hyperparams(lambda lr: as_optax(xopt.ademamix, lr=lr))(lr=optax.cosine_decay_schedule(0.1, 9)),
            "second": optax.inject_hyperparams(lambda lr: as_optax(xopt.aggmo, lr=lr))(lr=0.1),
        },
        label,
    ),
    2,
).gradient_transformation()
STILL = {"masked away": set(), "multi_transform": {"b", "s"}}
"""The params that do not move. What is masked away moves, by the gradient itself, as optax passes it on."""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("wrapper", WRAPPED)
def test_wrappers(wrapper: str, dtype: str) -> None:
    """Four steps within ``jit``: the state keeps its form, the params their dtype, and all move that shall."""
    first = params(dtype)
    found, _ = trained(WRAPPED[wrapper](), first)
    assert jax.tree.map(lambda x: x.dtype, found) == jax.tree.map(lambda x: x.dtype, first)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(found))
    moved = {name for name in first if not np.array_equal(found[name], first[name])}
    still = {"w", "s"} if (wrapper, dtype) == ("mechanize", "bfloat16") else STILL.get(wrapper, set())  # its scale is tiny
    assert moved == {"w", "b", "s"} - still


def test_a_chain_is_what_it_says() -> None:
    found, _ = trained(optax.chain(as_optax(xopt.sgd, lr=0.5), optax.scale(0.5)), params(), 1)
    assert_same(found, stepped(xopt.sgd, params(), 1, lr=0.25))


def test_accumulated_gradients() -> None:
    """MultiSteps takes one step in two calls, with the mean of the gradients."""
    p = {"x": jnp.asarray([1.0, 2.0])}
    tx = optax.MultiSteps(as_optax(xopt.adamw, lr=0.25), 2).gradient_transformation()
    found, state = trained(tx, p, 4, grads=lambda i, p: {"x": jnp.asarray([[1.0, 2.0], [3.0, 4.0]][i % 2])})
    wanted = xopt.adamw_init(p)
    for _ in range(2):
        wanted = jax.jit(xopt.adamw.bind(lr=0.25).step)(wanted, {"x": jnp.asarray([2.0, 3.0])})
    assert_same(found, wanted.params)
    assert int(state.inner_opt_state.step) == 2


def test_what_is_not_finite_is_left_out() -> None:
    p = params()
    tx = optax.apply_if_finite(as_optax(xopt.ademamix), 5)
    _, state = tx.update(gradient(0, p), tx.init(p), p)
    updates, after = tx.update(jax.tree.map(lambda x: x * jnp.nan, gradient(1, p)), state, p)
    assert_same(after.inner_state, state.inner_state)
    assert not any(bool(jnp.any(x)) for x in jax.tree.leaves(updates))


@pytest.mark.parametrize("name", RULES)
def test_states_are_seen_as_trees_of_params(name: str) -> None:
    """optax maps over what is like the params in a state, as for shardings: each slot, and no count."""
    tx = as_optax(xopt.RULES[name])
    state = tx.init(params())
    mapped = optax.tree_map_params(tx, lambda x: "param", state, transform_non_params=lambda x: "other")
    leaves = jax.tree.leaves(mapped)
    assert leaves.count("other") == 1
    assert len(leaves) == len(jax.tree.leaves(state))


@pytest.mark.parametrize("name", RULES)
def test_shapes_are_known_before_there_are_numbers(name: str) -> None:
    """As a state is placed on devices before it is made: eval_shape of init, update and a step."""
    rule, p = xopt.RULES[name], params("bfloat16")
    tx = as_optax(rule)
    shapes = jax.eval_shape(tx.init, p)
    updates, state = jax.eval_shape(tx.update, p, shapes, p)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), (updates, state)) == jax.tree.map(lambda x: (x.shape, x.dtype), (p, shapes))
    made = jax.eval_shape(rule.step, jax.eval_shape(rule.init, p), p)
    assert jax.tree.structure(made) == jax.tree.structure(rule.init(p))
    for one, real in zip(jax.tree.leaves(made[:-1]), jax.tree.leaves(rule.init(p)[:-1]), strict=True):
        assert (one.shape, one.dtype) == (jnp.shape(real), jnp.asarray(real).dtype)


def test_scan_donate_and_vmap() -> None:
    tx = as_optax(xopt.nadam, lr=0.1)

    def step(carry: Any, _: Any = None) -> Any:
        p, state = carry
        updates, state = tx.update(jax.tree.map(lambda x: x - 3.0, p), state, p)
        return (optax.apply_updates(p, updates), state), None

    p = params()
    (scanned, state), _ = jax.lax.scan(step, (p, tx.init(p)), length=5)
    assert int(state.step) == 5
    donating = jax.jit(lambda p, s: step((p, s))[0], donate_argnums=(0, 1))
    q, s = jax.tree.map(jnp.copy, p), tx.init(p)
    for _ in range(5):
        before = q
        q, s = donating(q, s)
    assert all(x.is_deleted() for x in jax.tree.leaves(before))
    for x, y in zip(jax.tree.leaves(scanned), jax.tree.leaves(q), strict=True):
        np.testing.assert_array_less(abs(x - y), 5 * 64 * 2.0**-24 * 3)  # five steps of a like number of roundings, from at most 3
    several = jax.tree.map(lambda x: jnp.stack([x, x + 1]), p)
    new, states = jax.vmap(lambda p, s: step((p, s))[0])(several, jax.vmap(tx.init)(several))
    assert states.step.tolist() == [1, 1]
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, several)


def test_a_restored_state_of_numpys_arrays() -> None:
    p, tx = params(), as_optax(xopt.aggmo)
    _, state = tx.update(gradient(0, p), tx.init(p), p)
    assert_same(tx.update(gradient(1, p), jax.tree.map(np.asarray, state), p), tx.update(gradient(1, p), state, p))


def test_numbers_for_params() -> None:
    tx = as_optax(xopt.adamw)
    updates, state = tx.update({"x": 0.5}, tx.init({"x": 2.0}), {"x": 2.0})
    assert float(updates["x"]) < 0
    assert state.m["x"].dtype == jnp.float32


# Refusals.


def test_params_are_needed_where_the_update_depends_on_them() -> None:
    p, grad = params(), gradient(0, params())
    for needs in ({}, {"weight_decay": DECAY}, {"weight_decay": jnp.asarray(0.5)}):
        tx = as_optax(xopt.adamw, **needs)
        with pytest.raises(
            ValueError, match=r"^adamw_step: params are not given, .* through weight_decay; call update\(grads, state, p"
        ):
            tx.update(grad, tx.init(p))
    for rule, free in (
        (xopt.adam, {}),
        (xopt.adamw, {"weight_decay": 0.0}),
        (xopt.lion, {"weight_decay": dict.fromkeys(DECAY, 0)}),
    ):
        tx = as_optax(rule, **free)
        assert_same(tx.update(grad, tx.init(p))[0], tx.update(grad, tx.init(p), p)[0])


def updated(grad: Any, p: Any, state: Any = None, **hyper: Any) -> Any:
    tx = as_optax(xopt.lion, **hyper)
    return tx.update(grad, state or tx.init(p), p)


ONES = jnp.ones(3)


@pytest.mark.parametrize(
    ("attempt", "error", "says"),
    [
        (lambda: as_optax(optax.adam(1.0)), TypeError, "as_optax: rule must be a rule or its step, such as xopt.lion"),
        (lambda: as_optax(xopt.lion_init), TypeError, "as_optax: rule must be"),
        (lambda: as_optax(xopt.lion, beta=0.9), TypeError, "as_optax: unknown hyperparameter 'beta'; did you mean"),
        (lambda: as_optax(xopt.lion, rate=lambda count: 0.1), TypeError, "as_optax: unknown hyperparameter 'rate'"),
        (lambda: as_optax(xopt.lion, beta1=1.5), ValueError, r"as_optax: beta1 must be in \[0, 1\), got 1.5"),
        (lambda: as_optax(xopt.lion, lr="0.1"), TypeError, "as_optax: lr must be a number or a 0-d array, got '0.1'"),
        (
            lambda: optax.inject_hyperparams(as_optax)(xopt.adamw, lr=0.1).init(params()),
            TypeError,
            re.escape("such as lambda lr: as_optax(xopt.adamw, lr=lr)"),
        ),
        (
            lambda: as_optax(xopt.lion).init({"x": jnp.arange(3)}),
            TypeError,
            r"lion_init: params\['x'\] must be real floating-point",
        ),
        (
            lambda: updated({"x": jnp.ones(2)}, {"x": ONES}),
            ValueError,
            r"lion_step: grad\['x'\] has shape \(2,\) but params\['x'\] has \(3,\)",
        ),
        (
            lambda: updated({"y": ONES}, {"x": ONES}),
            ValueError,
            r"lion_step: grad must have the tree of params, .*grad\['x'\] is missing",
        ),
        (
            lambda: updated(ONES, ONES.astype("bfloat16")),
            TypeError,
            "lion_step: grad is float32 but must be bfloat16, as params is",
        ),
        (
            lambda: updated(ONES, ONES, as_optax(xopt.sgd).init(ONES)),
            TypeError,
            "lion_step: state must be the LionState that lion_init returns, got a SGDState",
        ),
        (lambda: updated(ONES, ONES, lr=lambda count: -1.0), ValueError, "lion_step: lr must be in"),
        (lambda: updated({"x": ONES}, {"x": ONES}, lr={"y": 0.1}), ValueError, r"lion_step: lr must be .* lr\['x'\] is missing"),
    ],
)
def test_refusals(attempt: Callable[[], Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        attempt()


TAKERS: dict[str, Callable[[Any], Any]] = {
    "chain": lambda rule: optax.chain(rule),
    "masked": lambda rule: optax.masked(rule, True),
    "MultiSteps": lambda rule: optax.MultiSteps(rule, 2).init(params()),
    "partition": lambda rule: optax.partition({"a": rule}, "a").init(params()),
    "apply_if_finite": lambda rule: optax.apply_if_finite(rule, 2).init(params()),
    "update": lambda rule: rule.update(gradient(0, params()), rule.init(params()), params()),
    "unpacked": lambda rule: (lambda init, update: init)(*rule),
}


@pytest.mark.parametrize("rule", [xopt.lion, xopt.adamw.bind(lr=0.1)], ids=repr)
@pytest.mark.parametrize("taker", TAKERS)
def test_a_rule_is_no_gradient_transformation(taker: str, rule: Any) -> None:
    said = re.escape(f"{rule!r} is no GradientTransformation of optax; xopt.backends.as_optax makes one of it")
    with pytest.raises((TypeError, AttributeError), match=said):
        TAKERS[taker](rule)
    assert rule.init(params()).step == 0  # to others it is what it was
    assert not hasattr(rule, "update")


# The derivative of a step.

META = ["adam", "adamw", "nadam", "qhadam", "ademamix"]


@pytest.mark.parametrize("name", META)
def test_a_meta_gradient_is_finite_where_a_gradient_is_0(name: str) -> None:
    """The derivative of a loss after three steps, by lr and by the start: NaN without eps_root, as sqrt has none at 0.

    With it, it is that of finite differences: (f(x + h) - f(x - h)) / 2h is off by f''' h^2 / 6, and by the rounding of f over h.
    """
    rule = xopt.RULES[name]

    def loss(lr: Any, x: Any, eps_root: float) -> Any:
        state = rule.init(jnp.stack([x, 0.0 * x]))
        for _ in range(3):  # the second parameter stands where its gradient is 0
            state = rule.step(state, state.params * jnp.asarray([1.0, 2.0]), lr=lr, eps_root=eps_root)
        return (state.params**2).sum()

    with jax.enable_x64(True):
        at, h = (jnp.asarray(0.1), jnp.asarray(0.7)), 1e-4
        assert all(bool(jnp.isnan(d)) for d in jax.grad(loss, argnums=(0, 1))(*at, 0.0))
        found = jax.grad(loss, argnums=(0, 1))(*at, 1e-6)
        for i, derivative in enumerate(found):
            f = [float(loss(*(x + d if i == j else x for j, x in enumerate(at)), 1e-6)) for d in (-2 * h, -h, h, 2 * h)]
            difference = (f[2] - f[1]) / (2 * h)
            third = abs(f[3] - 2 * f[2] + 2 * f[1] - f[0]) / (2 * h**3)
            assert abs(float(derivative)) > 1e-3
            assert abs(float(derivative) - difference) <= h**2 * third / 6 * 2 + 100 * 2.0**-53 * max(map(abs, f)) / h


@pytest.mark.parametrize("name", META)
def test_a_meta_gradient_through_as_optax(name: str) -> None:
    def loss(lr: Any) -> Any:
        tx = as_optax(xopt.RULES[name], lr=lr, eps_root=1e-8)
        p = {"x": jnp.asarray([1.0, 0.0])}
        state = tx.init(p)
        for _ in range(2):
            updates, state = tx.update({"x": p["x"]}, state, p)
            p = optax.apply_updates(p, updates)
        return (p["x"] ** 2).sum()

    derivative = jax.jit(jax.grad(loss))(0.1)
    assert bool(jnp.isfinite(derivative))
    assert float(derivative) < 0
