"""Gradient transformations of optax's form: ``make(**arguments)`` with ``init(params)`` and ``update(grads, state, params)``."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from xopt.conformance.thirdparty.adapters import Adapter, Leaves
from xopt.conformance.thirdparty.adapters.schedules import SCHEDULED, half_lives, linear


class Optax(Adapter):
    library: ClassVar[str] = "optax"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64", "bfloat16", "float16")
    resumes: ClassVar[bool] = True

    def __init__(self, make: Callable[..., Any]) -> None:
        super().__init__(make)
        if SCHEDULED.keys() <= self.arguments.keys():
            self.arguments |= dict.fromkeys(SCHEDULED.values())

    def start(self, leaves: Leaves, dtype: str, given: Sequence[dict[str, Any]]) -> None:
        jax.config.update("jax_enable_x64", dtype == "float64")  # type: ignore[no-untyped-call]
        self._given = dict(given[0])
        self._transformation = self._made()
        self.arrays = [jax.numpy.asarray(leaf, dtype) for leaf in leaves]
        self._state = self._transformation.init(self.arrays)

    def _made(self) -> Any:
        given: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in self._given.items()}
        warmups = {name: given.pop(warmup, None) for name, warmup in SCHEDULED.items()}
        for name, length in warmups.items():
            if length:  # the paper's function, of whatever count it is called with
                given[name] = linear(given[name], length) if name == "alpha" else half_lives(given["b1"], given[name], length)
        return self.make(**given)

    def step(self, grads: Leaves, changed: dict[str, Any]) -> None:
        if changed:
            self._given |= changed
            self._transformation = self._made()
        self.grads = [jax.numpy.asarray(g, p.dtype) for g, p in zip(grads, self.arrays, strict=True)]
        updates, self._state = self._transformation.update(self.grads, self._state, self.arrays)
        self.arrays = [(p + u).astype(p.dtype) for p, u in zip(self.arrays, updates, strict=True)]  # as apply_updates

    def skip(self, steps: int) -> bool:
        self._state = jax.tree_util.tree_map_with_path(lambda at, x: x + steps if _name(at) == "count" else x, self._state)
        return "count" in self.state()

    def state(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for path, leaf in jax.tree_util.tree_flatten_with_path(self._state)[0]:
            found.setdefault(_name(path), []).append(leaf)
        return {name: x if len(x) == len(self.arrays) else x * len(self.arrays) for name, x in found.items()}

    def resume(self) -> None:
        self.arrays, self._state = jax.tree.map(lambda x: jax.numpy.asarray(np.array(x)), (self.arrays, self._state))
        self._transformation = self._made()

    def numpy(self, x: Any) -> Any:
        return np.asarray(x).astype(np.float64) if x.dtype.itemsize == 2 else np.array(x)


def _name(path: Any) -> str:
    return next((key.name for key in reversed(path) if hasattr(key, "name")), str(path))
