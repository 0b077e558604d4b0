"""as_optax in the loops of flax and Equinox: each trains, and a rule in place of a transformation is refused at once."""

import re
from typing import Any

import numpy as np
import pytest

import xopt
from xopt.backends import as_optax, fuse

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy

REFUSED = re.escape("<xopt rule lion> is no GradientTransformation of optax; xopt.backends.as_optax makes one of it")
X = np.random.default_rng(0).standard_normal((32, 2)).astype(np.float32)
Y = X @ np.asarray([[1.0], [-2.0]], np.float32) + 0.5
RULES = [xopt.adamw, xopt.aggmo, xopt.nadam]  # a slot each, several, and a number
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


def flax() -> Any:
    return pytest.importorskip("flax", reason="flax is not installed: pip install flax")


@rules
def test_train_state(rule: Any) -> None:
    """flax.linen: the loss falls, and the state goes through jit and scan, and to bytes and back."""
    flax()
    from flax import linen, serialization
    from flax.training.train_state import TrainState

    model = linen.Dense(1)
    params = model.init(jax.random.key(0), X)
    for refused in (xopt.lion, xopt.lion.bind()):
        with pytest.raises(TypeError, match="is no GradientTransformation of optax"):
            TrainState.create(apply_fn=model.apply, params=params, tx=refused)
    state = TrainState.create(apply_fn=model.apply, params=params, tx=as_optax(rule, lr=0.05))

    def loss(params: Any) -> Any:
        return ((model.apply(params, X) - Y) ** 2).mean()

    @jax.jit
    def train(state: Any) -> Any:
        return jax.lax.scan(lambda state, _: (state.apply_gradients(grads=jax.grad(loss)(state.params)), None), state, length=200)[
            0
        ]

    trained = train(state)
    assert float(loss(trained.params)) < 0.01 * float(loss(params))
    assert int(trained.step) == int(trained.opt_state.step) == 200
    restored = serialization.from_bytes(state, serialization.to_bytes(trained))
    one, other = (jax.jit(lambda s: s.apply_gradients(grads=jax.grad(loss)(s.params)))(s) for s in (trained, restored))
    for x, y in zip(jax.tree.leaves(one.params), jax.tree.leaves(other.params), strict=True):
        np.testing.assert_array_equal(x, y)


@rules
def test_nnx_optimizer(rule: Any) -> None:
    flax()
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first, self.last = nnx.Linear(2, 4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.last(nnx.tanh(self.first(x)))

    model = Model(nnx.Rngs(0))
    with pytest.raises(TypeError, match=REFUSED):
        nnx.Optimizer(model, xopt.lion, wrt=nnx.Param)
    optimizer = nnx.Optimizer(model, as_optax(rule, lr=0.02), wrt=nnx.Param)

    def loss(model: Any) -> Any:
        return ((model(X) - Y) ** 2).mean()

    @nnx.jit
    def train(model: Any, optimizer: Any) -> Any:
        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    losses = [float(train(model, optimizer)) for _ in range(200)]
    assert losses[-1] < 0.1 * losses[0]


@rules
def test_nnx_without_optax(rule: Any) -> None:
    """The State of a model's parameters is params as it is, for plain and for fused steps."""
    flax()
    from flax import nnx

    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    graph, params = nnx.split(model, nnx.Param)

    def loss(params: Any) -> Any:
        return ((nnx.merge(graph, params)(X) - Y) ** 2).mean()

    gradient = jax.jit(jax.grad(loss))
    ends = []
    for step in (rule.step, fuse(rule, donate=True)):
        state = rule.init(jax.tree.map(jnp.copy, params))
        for _ in range(100):
            state = step(state, gradient(state.params), lr=0.05)
        ends.append(state.params)
    assert float(loss(ends[0])) < 0.2 * float(loss(params))
    for x, y in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_array_equal(x, y)


@rules
@pytest.mark.parametrize("by", ["optax", "xopt"])
def test_equinox(rule: Any, by: str) -> None:
    """A module whose parameters are a part of it: through as_optax, and as the params of a state."""
    eqx = pytest.importorskip("equinox", reason="Equinox is not installed: pip install equinox")
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))

    def loss(model: Any) -> Any:
        return ((jax.vmap(model)(X) - Y) ** 2).mean()

    if by == "optax":
        tx = as_optax(rule, lr=0.02)
        state = tx.init(eqx.filter(model, eqx.is_inexact_array))

        @eqx.filter_jit
        def train(model: Any, state: Any) -> Any:
            grads = eqx.filter_grad(loss)(model)
            updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
            return eqx.apply_updates(model, updates), state

    else:
        params, rest = eqx.partition(model, eqx.is_inexact_array)
        state = rule.init(params)

        @eqx.filter_jit
        def train(model: Any, state: Any) -> Any:
            grads = eqx.filter_grad(loss)(model)
            state = rule.step(state, grads, lr=0.02)
            return eqx.combine(state.params, rest), state

    before = float(loss(model))
    for _ in range(200):
        model, state = train(model, state)
    assert float(loss(model)) < 0.1 * before
    if by == "optax":
        with pytest.raises(AttributeError, match=REFUSED):
            xopt.lion.update(model, state, model)
