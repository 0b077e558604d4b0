"""Real gradients: a small network on scikit-learn's bundled handwritten digits, trained with each rule.

The network and its gradient are written in the array API, so that the same training runs on every backend; the gradients of
NumPy's run are recorded and replayed on every backend against the golden.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from xopt.conformance.compare.candidate import Shapes, split
from xopt.rule import Rule

HIDDEN = 16
SHAPES: Shapes = {"w1": (64, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, 10), "b2": (10,)}
BATCH = 128


class Training(NamedTuple):
    losses: list[float]  # of each batch, before its step
    grads: list[Any]  # of all leaves, as one float64 vector a step
    params: list[Any]  # after each step, likewise


@lru_cache(maxsize=1)
def data() -> tuple[Any, Any]:
    """1,797 images of 64 pixels in [0, 1], shuffled once, and their labels one-hot, in float32."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return (images[order] / 16).astype(np.float32), np.eye(10, dtype=np.float32)[labels[order]]


def start() -> Any:
    """The weights that every training starts from, as one float64 vector of float32 numbers."""
    draw = np.random.default_rng(1)
    parts = [draw.standard_normal(shape) / np.sqrt(shape[0]) if len(shape) == 2 else np.zeros(shape) for shape in SHAPES.values()]
    return np.concatenate([part.ravel() for part in parts]).astype(np.float32).astype(np.float64)


def loss_and_grad(xp: Any, w: dict[str, Any], x: Any, y: Any) -> tuple[Any, dict[str, Any]]:
    """Mean cross-entropy of a network with one hidden layer of rectified linear units, and its gradient."""
    share = 1.0 / x.shape[0]
    z = x @ w["w1"] + w["b1"]
    a = xp.maximum(z, xp.zeros_like(z))
    logits = a @ w["w2"] + w["b2"]
    logits = logits - xp.max(logits, axis=1, keepdims=True)
    e = xp.exp(logits)
    total = xp.sum(e, axis=1, keepdims=True)
    loss = -xp.sum(y * (logits - xp.log(total))) * share
    d_logits = (e / total - y) * share
    d_z = xp.where(z > 0, d_logits @ xp.matrix_transpose(w["w2"]), xp.zeros_like(z))
    return loss, {
        "w1": xp.matrix_transpose(x) @ d_z,
        "b1": xp.sum(d_z, axis=0),
        "w2": xp.matrix_transpose(a) @ d_logits,
        "b2": xp.sum(d_logits, axis=0),
    }


def train(rule: Rule[Any, Any], backend: Any, steps: int) -> Training:
    """Trains in float32 on a backend, from the common start, on the same batches, with the rule's defaults."""
    images, labels = data()
    with backend.session():
        state = rule.init({name: backend.asarray(part, "float32") for name, part in split(start(), SHAPES)})
        losses, grads, params = [], [], []
        for i in range(steps):
            first = i * BATCH % (len(images) - BATCH)
            rows = slice(first, first + BATCH)
            x, y = backend.asarray(images[rows], "float32"), backend.asarray(labels[rows], "float32")
            loss, grad = loss_and_grad(backend.xp, state.params, x, y)
            state = rule.step(state, grad)
            losses.append(float(loss))
            grads.append(_vector(backend, grad))
            params.append(_vector(backend, state.params))
        return Training(losses, grads, params)


def _vector(backend: Any, tree: dict[str, Any]) -> Any:
    return np.concatenate([np.ravel(backend.to_numpy(tree[name])) for name in SHAPES]).astype(np.float64)
