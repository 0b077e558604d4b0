"""Optimizers with something wrong, which a check must name: run as ``py:strange_optimizers:name``."""

import os
import time

import numpy as np


def sgd(params, grad, state, *, lr=0.01, weight_decay=0.0):
    """Nothing is wrong with this one."""
    return params - lr * (grad + weight_decay * params), state


def crashes(params, grad, state, *, lr=0.01, weight_decay=0.0):
    os._exit(3)


def aborts(params, grad, state, *, lr=0.01, weight_decay=0.0):
    os.abort()


def hangs(params, grad, state, *, lr=0.01, weight_decay=0.0):
    time.sleep(60)


def forks(params, grad, state, *, lr=0.01, weight_decay=0.0):
    """Both processes go on."""
    if state is None:
        os.fork()
    return params - lr * (grad + weight_decay * params), 1


def exits(params, grad, state, *, lr=0.01, weight_decay=0.0):
    """After the first step."""
    if state is not None:
        raise SystemExit(0)
    return params - lr * (grad + weight_decay * params), 1


def is_complex(params, grad, state, *, lr=0.01, weight_decay=0.0):
    return params - 1j * lr * grad, state


def is_a_list(params, grad, state, *, lr=0.01, weight_decay=0.0):
    return list(params - lr * grad), state


def raises(params, grad, state, *, lr=0.01, weight_decay=0.0):
    raise RuntimeError("not today")  # noqa: EM101


def grows(params, grad, state, *, lr=0.01, weight_decay=0.0):
    return np.append(params, 0.0), state


def broadcasts(params, grad, state, *, lr=0.01, weight_decay=0.0):
    return params[:, None] - lr * grad, state


def forgets_the_state(params, grad, state, *, lr=0.01, weight_decay=0.0):
    return params - lr * grad


def returns_text(params, grad, state, *, lr=0.01, weight_decay=0.0):
    return np.array(["a"] * params.size), state


def is_nan(params, grad, state, *, lr=0.01, weight_decay=0.0):
    return params * np.nan, state


def writes_to_its_inputs(params, grad, state, *, lr=0.01, weight_decay=0.0):
    grad += weight_decay * params
    params -= lr * grad
    return params, state


_shared = {"t": 0}


def shares_state(params, grad, state, *, lr=0.01, weight_decay=0.0):
    """Every other step, of whatever optimizer, is half as long."""
    _shared["t"] += 1
    return params - lr * (0.5 if _shared["t"] % 2 else 1.0) * (grad + weight_decay * params), state


def changes_the_dtype(params, grad, state, *, lr=0.01, weight_decay=0.0):
    """A rate of NumPy's float64 makes arrays of float32 wider."""
    return params - np.float64(lr) * (grad + weight_decay * params), state


def in_two_subtractions(params, grad, state, *, lr=0.01, weight_decay=0.0):
    """Nothing is wrong with this one."""
    return params - lr * grad - lr * weight_decay * params, state


def decays_first(params, grad, state, *, lr=0.01, weight_decay=0.0):
    """Nor with this one."""
    return (1 - lr * weight_decay) * params - lr * grad, state


def ignores_lr(params, grad, state, *, lr=0.01, weight_decay=0.0):
    return params - 0.03 * (grad + weight_decay * params), state


def clips(params, grad, state, *, lr=0.01, weight_decay=0.0):
    return params - lr * (np.clip(grad, -1.0, 1.0) + weight_decay * params), state


def spreads_nan(params, grad, state, *, lr=0.01, weight_decay=0.0):
    total = 0.0 * np.sum(grad, dtype=params.dtype)
    return params - lr * (grad + weight_decay * params + total), state


def prints(params, grad, state, *, lr=0.01, weight_decay=0.0):
    """What it prints is no answer to anybody."""
    print("step")
    return sgd(params, grad, state, lr=lr, weight_decay=weight_decay)


def one_percent(params, grad, state, *, lr=0.01, weight_decay=0.0):
    return params - 1.07 * lr * (grad + weight_decay * params), state


def momentum(params, grad, state, *, lr=0.01, beta=0.9, weight_decay=0.0):
    """Nothing is wrong with this one; its state has a name."""
    v = grad if state is None else beta * state["v"] + grad
    return params - lr * (v + weight_decay * params), {"v": v}


def keeps_odd_things(params, grad, state, *, lr=0.01, beta=0.9, weight_decay=0.0):
    """Beside its momentum, what is no array."""
    new, state = momentum(params, grad, state, lr=lr, beta=beta, weight_decay=weight_decay)
    return new, state | {"history": [[1.0], [1.0, 2.0]], "name": "mine"}


def decay_stops(params, grad, state, *, lr=0.01, beta=0.9, weight_decay=0.0):
    v, t = (0.0 * params, 0) if state is None else state
    v, t = beta * v + grad, t + 1
    return params - lr * (v + (weight_decay if t <= 12_345 else 0.0) * params), (v, t)


def never_still(params, grad, state, *, lr=0.01, beta=0.9, weight_decay=0.0):
    """The decay is a constant, which moves parameters of 0 too."""
    v = grad if state is None else beta * state + grad
    return (params - lr * v) - lr * weight_decay, v


_true = {}


def shows_another_state(params, grad, state, *, lr=0.01, beta=0.9, weight_decay=0.0):
    """What it steps from is somewhere else than what it hands out, which is a few units off."""
    v = grad if state is None else beta * _true["v"] + grad
    _true["v"] = v
    off = 0 if state is None else 3 * np.finfo(params.dtype).eps
    return params - lr * (v + weight_decay * params), {"v": v * params.dtype.type(1 + off)}


def aggmo(params, grad, state, *, lr=0.1, betas=(0.0, 0.9, 0.99), weight_decay=0.0):
    """In as many subtractions as there are betas, with the decay in the gradient."""
    d = grad + weight_decay * params
    state = [beta * v + d for beta, v in zip(betas, state or [0.0 * params] * len(betas), strict=True)]
    for v in state:
        params = params - lr / len(betas) * v
    return params, state


def lion(params, grad, state, *, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
    m = 0.0 * params if state is None else state
    c = betas[0] * m + (1 - betas[0]) * grad
    return params - lr * (np.sign(c) + weight_decay * params), betas[1] * m + (1 - betas[1]) * grad


def no_optimizer():
    return 3


number = 3
