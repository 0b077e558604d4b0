"""A rule on one backend, stepped leaf by leaf and read back as the float64 vectors that are compared."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from xopt.backends import Backend, fuse
from xopt.conformance.arithmetic.formats import round_to
from xopt.conformance.compare.reference import Columns
from xopt.conformance.inputs.trajectories import Part
from xopt.rule import Rule

Shapes = dict[str, tuple[int, ...]]


def split(vector: Any, shapes: Shapes) -> Iterator[tuple[str, Any]]:
    """The leaves that a vector holds one behind the other, by name."""
    at = 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        yield name, vector[at : at + size].reshape(shape)
        at += size


def stepper(rule: Rule[Any, Any], backend: Backend, mode: str) -> Callable[..., Any]:
    """The step of a rule in a mode."""
    step: Callable[..., Any] = rule.step
    if mode == "fused":
        step = fuse(rule, compiler=backend.asked_compiler)
    elif mode == "traced":
        step = backend.trace(rule.step)
    return step


class Candidate:
    """Steps a rule on a backend in one dtype and mode.

    Modes ``eager`` and ``fused`` step a dict of leaves; ``traced``, which compiles anew for each shape, one leaf.
    """

    def __init__(self, rule: Rule[Any, Any], backend: Backend, dtype: str, mode: str, shapes: Shapes) -> None:
        self.rule = rule
        self.backend = backend
        self.dtype = dtype
        self.shapes: Shapes = shapes if mode != "traced" else {"all": (sum(int(np.prod(s)) for s in shapes.values()),)}
        self.mode = mode
        self._function = stepper(rule, backend, mode)

    def start(self, params: Any, hyper: dict[str, Any], steps_before: int = 0, parts: Sequence[Part] = ()) -> None:
        """Makes the first state, after ``steps_before`` steps; ``parts`` are groups with other hyperparameters."""
        hyper = self._grouped(parts) if parts else hyper
        self._step = partial(self._function, **hyper)
        self.state = self.rule.bind(**hyper).init(self._tree(params))._replace(step=steps_before)
        for slot in self.rule.carried:
            own = {leaf: part.carried[slot] for part in parts if slot in part.carried for leaf in part.leaves}
            self.state = self.state._replace(**{slot: getattr(self.state, slot) | own}) if own else self.state

    def step(self, grad: Any) -> None:
        self.state = self._step(self.state, self._tree(grad))

    @property
    def traced(self) -> bool:
        """Whether the step count has become an array, so that the coefficients are computed in the arrays' precision."""
        return type(self.state.step) is not int

    def run(self, params: Any, grads: list[Any], hyper: dict[str, Any], steps_before: int = 0) -> list[Columns]:
        """The state's columns at the start and after each step."""
        (states,) = self.run_parts(params, grads, hyper, steps_before)
        return states

    def run_parts(
        self, params: Any, grads: list[Any], hyper: dict[str, Any], steps_before: int = 0, parts: Sequence[Part] = ()
    ) -> list[list[Columns]]:
        """As ``run``, for each part of the leaves."""
        leaves = [part.leaves for part in parts] or [list(self.shapes)]
        self.start(params, hyper, steps_before, parts)
        states = [[self.columns(part)] for part in leaves]
        for grad in grads:
            self.step(grad)
            for part, own in zip(leaves, states, strict=True):
                own.append(self.columns(part))
        return states

    def columns(self, leaves: Iterable[str] | None = None) -> Columns:
        """The columns of these leaves, which share their carried numbers. Default: of all leaves."""
        names = list(leaves or self.shapes)
        return tuple(self._vector([column[name] for name in names]) for column in self.state[:-1])

    def _grouped(self, parts: Sequence[Part]) -> dict[str, Any]:
        """Hyperparameters as trees, where the parts differ."""
        given = [self.rule.defaults | part.hyper for part in parts]
        each = {name: [hyper[name] for hyper in given] for name in self.rule.defaults}

        def tree(values: list[Any]) -> Any:
            return {leaf: value for part, value in zip(parts, values, strict=True) for leaf in part.leaves}

        return {name: x[0] if all(value == x[0] for value in x) else tree(x) for name, x in each.items()}

    def _tree(self, vector: Any) -> dict[str, Any]:
        return {name: self.backend.asarray(part, self.dtype) for name, part in split(vector, self.shapes)}

    def _vector(self, leaves: list[Any]) -> Any:
        """The leaves of one slot as one vector; a number that they all carry stays one."""
        first = leaves[0]
        if first is None:
            return None
        if isinstance(first, tuple):
            return tuple(self._vector(list(part)) for part in zip(*leaves, strict=True))
        if isinstance(first, float):
            return self._number(leaves)
        arrays = [self.backend.to_numpy(leaf) for leaf in leaves]
        if self.mode == "traced" and arrays[0].ndim == 0:  # a number of the state that the compiler made an array
            return float(arrays[0])
        return np.concatenate([np.ravel(array) for array in arrays]).astype(np.float64)

    def _number(self, leaves: list[Any]) -> float:
        """The number that all leaves carry. NaN, which is never right, where leaves that began with one number carry several."""
        return float(leaves[0]) if all(x == leaves[0] for x in leaves) else math.nan


class BFloat16OnNumPy(Candidate):
    """What NumPy would compute if it had bfloat16: slots and arithmetic in float32, parameters rounded when they are stored."""

    def __init__(self, rule: Rule[Any, Any], backend: Backend, shapes: Shapes) -> None:
        super().__init__(rule, backend, "float32", "eager", shapes)

    def step(self, grad: Any) -> None:
        super().step(grad)
        stored = {name: round_to(x.astype(np.float64), "bfloat16").astype(np.float32) for name, x in self.state.params.items()}
        self.state = self.state._replace(params=stored)
