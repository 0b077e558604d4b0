"""A whole jitted, donated train step with ``as_optax(xopt.adamw)``, beside the same with ``optax.adamw``.

``python -m xopt.conformance.bench.train_step`` prints the ratio of their times for a few sizes of a network of dense layers. The
two take turns, so that what else the machine does meets both; the ratio is the median of the rounds', with its quartiles.
"""

import platform
import statistics
import time
from importlib import import_module
from typing import Any

from rich.console import Console

import xopt
from xopt.backends import as_optax

jax: Any = import_module("jax")
optax: Any = import_module("optax")
jnp = jax.numpy

SIZES = ((4, 64, 32), (8, 256, 32), (4, 1024, 8), (2, 2048, 1))
"""Layers, their width, and the examples of a batch."""

ROUNDS, STEPS, BEFORE = 41, 5, 5


class Training:
    """A network in training by one gradient transformation."""

    def __init__(self, tx: Any, layers: int, width: int, batch: int) -> None:
        keys = jax.random.split(jax.random.key(0), layers + 1)
        params = [{"w": jax.random.normal(key, (width, width)) / width**0.5, "b": jnp.zeros(width)} for key in keys[1:]]
        x = jax.random.normal(keys[0], (batch, width))

        def loss(params: Any) -> Any:
            y = x
            for layer in params:
                y = jnp.tanh(y @ layer["w"] + layer["b"])
            return jnp.mean((y - 1) ** 2)

        def step(params: Any, state: Any) -> Any:
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        self._step = jax.jit(step, donate_argnums=(0, 1))
        self._now = params, tx.init(params)

    def seconds(self, steps: int) -> float:
        """How long so many steps take."""
        jax.block_until_ready(self._now)
        began = time.perf_counter()
        for _ in range(steps):
            self._now = self._step(*self._now)
        jax.block_until_ready(self._now)
        return time.perf_counter() - began


def ratios(layers: int, width: int, batch: int, rounds: int = ROUNDS) -> list[float]:
    """The time with xopt over that with optax, in each round."""
    sides = [Training(tx, layers, width, batch) for tx in (as_optax(xopt.adamw, lr=1e-3), optax.adamw(1e-3, weight_decay=0.01))]
    for side in sides:
        side.seconds(BEFORE)
    found = []
    for i in range(rounds):
        took = {at: sides[at].seconds(STEPS) for at in ((0, 1) if i % 2 else (1, 0))}
        found.append(took[0] / took[1])
    return found


def main() -> None:
    console = Console(highlight=False)
    console.print(f"as_optax(xopt.adamw) over optax.adamw: optax {optax.__version__}, JAX {jax.__version__}, {platform.machine()}")
    for layers, width, batch in SIZES:
        low, middle, high = statistics.quantiles(ratios(layers, width, batch), n=4)
        console.print(f"{layers} layers of {width} x {width}, batch {batch}: {middle:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
