"""The warm-ups of the paper, as the functions of a count that optax takes for them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

SCHEDULED = {"alpha": "alpha_warmup", "b3": "beta3_warmup"}
"""Arguments that may be functions of the step, and the warm-ups that such a function can be."""


def _share(count: Any, length: float) -> Any:
    return jax.numpy.minimum(jax.numpy.asarray(count, float) / length, 1.0)


def linear(end: float, length: float) -> Callable[[Any], Any]:
    return lambda count: end * _share(count, length)


def half_lives(start: float, end: float, length: float) -> Callable[[Any], Any]:
    def at(count: Any) -> Any:
        mu = _share(count, length)
        return jax.numpy.exp(1 / ((1 - mu) / np.log(start) + mu / np.log(end)))

    return at
