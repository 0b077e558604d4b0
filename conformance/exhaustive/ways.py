"""How a library computes an operation: op by op, through its compiler, or in the fused step of a rule that does nothing else."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np

from xopt import Rule
from xopt.backends import fuse
from xopt.backends.base import Backend
from xopt.checks import Rate
from xopt.conformance.arithmetic.probes import PROBED
from xopt.conformance.exhaustive.exact import COMPARED, ROUNDED, UNARY
from xopt.operations import sign

ARITHMETIC: dict[str, Callable[..., Any]] = {**{name: PROBED[name] for name in ROUNDED}, "sign": sign, **COMPARED}
"""The operations as rules write them."""

WORDS = {"float16": np.uint16, "bfloat16": np.uint16, "float32": np.uint32}

Words = np.ndarray
"""Patterns in the width of their format; of comparisons 0 and 1."""


class Way(NamedTuple):
    """One library on one device, and how its operations are reached."""

    backend: Backend
    mode: str  # eager, traced, fused

    @property
    def tool(self) -> str:
        """What computes: the library, or the compiler."""
        compiled = {"traced": self.backend.tracer, "fused": self.backend.compiler}
        return compiled.get(self.mode) or self.backend.name

    @property
    def name(self) -> str:
        device = "" if self.backend.device == "cpu" else f" on {self.backend.device}"
        return f"{self.backend.name}{device}" + ("" if self.mode == "eager" else f", {self.tool}")

    @property
    def version(self) -> str:
        """Of what computes."""
        return version("numba") if self.tool == "numba" else self.backend.version

    def dtypes(self) -> tuple[str, ...]:
        return self.backend.dtypes()

    def runner(self, operation: str, dtype: str) -> Callable[..., Words]:
        """What computes words from words."""
        compute = self.function(operation)

        def run(*operands: Words) -> Words:
            with self.backend.session():
                return words(self.backend, compute(*(array(self.backend, x, dtype) for x in operands)), dtype)

        return run

    def function(self, operation: str) -> Callable[..., Any]:
        """What computes arrays from arrays."""
        plain = ARITHMETIC[operation]
        if self.mode == "eager":
            return plain
        if self.mode == "traced":
            traced: Callable[..., Any] = self.backend.trace(plain)
            return traced
        rule = rule_of(operation)
        step: Any = fuse(rule)
        return lambda *operands: step(rule.state(operands[0], 0), operands[-1]).params


def modes(backend: Backend) -> list[str]:
    """Those in which something of its own computes: a fused step of torch on a CPU is NumPy's, one of JAX by the tracer."""
    fused = backend.compiler not in (None, "blocks", backend.tracer) and (backend.name, backend.device) != ("torch", "cpu")
    return ["eager", *(["traced"] if backend.tracer else []), *(["fused"] if fused else [])]


def array(backend: Backend, operand: Words, dtype: str) -> Any:
    """An array of the library with these numbers."""
    if dtype == "bfloat16":
        return backend.asarray((operand.astype(np.uint32) << 16).view(np.float32), dtype)
    return backend.asarray(operand.view(dtype), dtype)


def words(backend: Backend, result: Any, dtype: str) -> Words:
    """The numbers of an array as words."""
    found = np.ascontiguousarray(backend.to_numpy(result))
    if found.dtype == bool:
        return found.view(np.uint8)
    if dtype == "bfloat16":
        return (found.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    if found.dtype != dtype:
        msg = f"{backend.name} returned {found.dtype} for {dtype}"
        raise TypeError(msg)
    return found.view(WORDS[dtype])


class State(NamedTuple):
    params: Any
    step: int


class Coefficients(NamedTuple):
    one: Any
    zero: Any


def coefficients(t: Any, *, one: Rate = 1.0, zero: Rate = 0.0) -> Coefficients:
    """one: in [0, inf). What is true.
    zero: in [0, inf). What is not."""
    return Coefficients(one, zero)


def rule_of(operation: str) -> Rule[Any, Any]:
    """A rule whose new params are what the operation makes of params and grad, or of grad alone."""
    plain = ARITHMETIC[operation]

    def update(params: Any, grad: Any, c: Coefficients) -> tuple[Any]:
        if operation in UNARY:
            return (plain(grad),)
        return (plain(params, grad),)

    return Rule(f"{operation}_alone", State, coefficients, update)


def fusable(operation: str) -> bool:
    """Whether a step can return it: a comparison is no number."""
    return operation not in COMPARED
