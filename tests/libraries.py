"""The array libraries under test, one row each: NumPy values in, an array of the library out, and back. And how to compare them."""

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import optree
from array_api_compat import is_cupy_array

from xopt.backends import get
from xopt.backends._cupy import CuPyBackend


@dataclass(frozen=True)
class Library:
    """One array library."""

    name: str
    module: str  # what offers asarray and the dtypes
    views: bool  # whether indexing and transposing give strided views
    half: tuple[str, ...]  # the dtypes narrower than float32

    @property
    def xp(self) -> Any:
        return importlib.import_module(self.module)

    def array(self, values: Any, dtype: str = "float32") -> Any:
        """A new array of ``values``, each rounded once."""
        values = np.asarray(values)
        if dtype == "bfloat16":
            values = values.astype(np.float32)  # neither library takes a float64 to bfloat16 in one rounding
        if self.name == "torch":
            return self.xp.tensor(values.copy()).to(
                getattr(self.xp, dtype)
            )  # asarray would share memory and refuse negative strides
        if self.name in ("numpy", "cupy"):
            return self.xp.array(values, dtype)
        return self.xp.asarray(values, dtype=getattr(self.xp, dtype), copy=True)

    def session(self) -> contextlib.AbstractContextManager[Any]:
        if self.name != "jax":
            return contextlib.nullcontext()
        return get("jax").session()


LIBRARIES = {
    row.name: row
    for row in (
        Library("numpy", "numpy", views=True, half=("float16",)),
        Library("array_api_strict", "array_api_strict", views=True, half=()),
        Library("torch", "torch", views=True, half=("float16", "bfloat16")),
        Library("jax", "jax.numpy", views=False, half=("float16", "bfloat16")),
    )
}
if CuPyBackend.installed_version() and CuPyBackend.devices():  # without a device it can be imported, but has no arrays
    LIBRARIES["cupy"] = Library("cupy", "cupy", views=True, half=("float16",))


def to_numpy(x: Any) -> np.ndarray:
    """The values of an array of any library, of a number, or of bfloat16 in float32; no value changes."""
    if hasattr(x, "detach"):
        x = x.detach().resolve_neg()
        x = x.float() if str(x.dtype) == "torch.bfloat16" else x
        return x.numpy()
    if is_cupy_array(x):
        return x.get()
    x = getattr(x, "_array", x) if type(x).__module__.startswith("array_api_strict") else x
    x = np.asarray(x)
    return x.astype(np.float32) if x.dtype.name == "bfloat16" else x


def leaves(tree: Any) -> list[np.ndarray]:
    return [to_numpy(x) for x in optree.tree_leaves(tree)]


def assert_same_bits(one: Any, other: Any) -> None:
    """Asserts that two trees have the same structure, and their leaves the same dtypes, shapes and bits."""
    assert optree.tree_structure(one) == optree.tree_structure(other)
    for path, x, y in zip(optree.tree_paths(one), leaves(one), leaves(other), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape), path
        assert x.tobytes() == y.tobytes(), (path, x, y)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def busy(rule: Any) -> dict[str, Any]:
    """Hyperparameters of ``rule`` that switch on everything it has."""
    loud = {"lr": 0.0625, "weight_decay": 0.25, "alpha_warmup": 3, "beta3_warmup": 5}
    return {name: loud.get(name, default) for name, default in rule.defaults.items()}


def variants(rule: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What goes to init and to each step: the defaults, all switched on, no memory (None slots), and decays of 0 with memory."""
    yield {}, {}
    yield {}, busy(rule)
    decays = sorted({name for name in rule.memory.values() if not rule.ranges[name].sequence})
    for off in dict.fromkeys([*((name,) for name in decays), tuple(decays)]):
        none = dict.fromkeys(off, 0.0)
        yield from ((none, none), ({}, none))
    if "beta3_warmup" in rule.defaults:
        yield {"beta1": 0.0}, {"beta1": 0.0, "beta3_warmup": 4, "alpha_warmup": 2}
    if "betas" in rule.defaults:
        for betas in ((0.0, 0.9, 0.99, 0.999), (0.9,), (0.5, 0.0), (0.0,)):
            yield {"betas": betas}, {"betas": betas}


def run(rule: Any, params: Any, grads: Any, start: dict[str, Any] | None = None, **hyper: Any) -> Any:
    """The state after one step for each of ``grads``; ``start`` goes to init, ``hyper`` to each step."""
    state = rule.bind(**(start or {})).init(params)
    for grad in grads:
        state = rule.step(state, grad, **hyper)
    return state
