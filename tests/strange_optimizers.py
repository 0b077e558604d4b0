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


def spreads_nan(params, grad, state, *, lr=0.01, weight_decay=0.0):
    total = 0.0 * np.sum(grad, dtype=params.dtype)
    return params - lr * (grad + weight_decay * params + total), state


def prints(params, grad, state, *, lr=0.01, weight_decay=0.0):
    """What it prints is no answer to anybody."""
    print("step")
    return sgd(params, grad, state, lr=lr, weight_decay=weight_decay)


def one_percent(params, grad, state, *, lr=0.01, weight_decay=0.0):
    return params - 1.07 * lr * (grad + weight_decay * params), state


def no_optimizer():
    return 3


number = 3
