"""Steps of one number on NumPy, from and to columns of numbers: params, slots and what the state carries, by name."""

from typing import Any

import numpy as np

from xopt.conformance.arithmetic.formats import arithmetic_of
from xopt.conformance.vectors.bits import bits, stored
from xopt.export.step import Step
from xopt.rule import Rule

Columns = dict[str, float]
NUMPY = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": np.float32}
"""What stands for each dtype on NumPy, which has no bfloat16: params in float32 are rounded when they are stored."""


class Stepper:
    """A rule for one number of a dtype, with one setting.

    Raises ValueError or TypeError, as a step does, for hyperparameters that are refused.
    """

    def __init__(self, rule: Rule[Any, Any], dtype: str, hyper: dict[str, Any]) -> None:
        self.rule = rule
        self.dtype = dtype
        self.hyper = hyper
        self.compute = arithmetic_of(dtype)
        self.form = Step(rule, self.compute, hyper)
        self.places = {field if at is None else f"{field}[{at}]": (field, at) for field, at in self.form.arrays.values()}
        self.columns = (*self.places, *rule.carried)
        self.fresh = rule.bind(**hyper).init(np.zeros(1, NUMPY[dtype]))

    def dtype_of(self, column: str) -> str:
        """Of a column: params are in the vector's dtype, slots in that of the arithmetic, what is carried is a double."""
        return self.dtype if column == "params" else "float64" if column in self.rule.carried else self.compute

    def start(self, params: float) -> Columns:
        return {name: params if name == "params" else self.rule.carried.get(name, 0.0) for name in self.columns}

    def step(self, columns: Columns, grad: float, t: int) -> Columns:
        """The columns after the step number t."""
        state = self.fresh._replace(step=t - 1)
        for name in self.rule.state._fields[:-1]:
            slot = getattr(state, name)
            if isinstance(slot, tuple):
                new: Any = tuple(None if x is None else self._array(f"{name}[{i}]", columns) for i, x in enumerate(slot))
            else:
                new = columns[name] if name in self.rule.carried else None if slot is None else self._array(name, columns)
            state = state._replace(**{name: new})
        with np.errstate(all="ignore"):
            state = self.rule.step(state, np.asarray([grad], NUMPY[self.dtype]), **self.hyper)
        found = {name: self._number(state, name) for name in self.columns}
        return found | {"params": stored(found["params"], self.dtype)}

    def _array(self, column: str, columns: Columns) -> Any:
        return np.asarray([columns[column]], NUMPY[self.dtype_of(column)])

    def _number(self, state: Any, column: str) -> float:
        if column in self.rule.carried:
            return float(getattr(state, column))
        field, place = self.places[column]
        slot = getattr(state, field)
        return float((slot if place is None else slot[place])[0])

    def vectors(self, columns: Columns) -> tuple[Any, ...]:
        """The columns as params and slots, each a vector of one number, a number, None, or a tuple."""

        def slot(name: str) -> Any:
            old = getattr(self.fresh, name)
            if isinstance(old, tuple):
                return tuple(None if x is None else np.asarray([columns[f"{name}[{i}]"]]) for i, x in enumerate(old))
            return columns[name] if name in self.rule.carried else None if old is None else np.asarray([columns[name]])

        return tuple(slot(name) for name in self.rule.state._fields[:-1])


def mix(word: int) -> int:
    """An integer of 64 bits as one whose bits all depend on all of its own: the finaliser of SplitMix64 of ``word + 1``."""
    mask = 2**64 - 1
    word = (word + 1) * 0x9E3779B97F4A7C15 & mask
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & mask
    word = (word ^ word >> 27) * 0x94D049BB133111EB & mask
    return word ^ word >> 31


def gradient(params_bits: int, digits: int) -> float:
    """A number of that many binary digits in [-1, 1), from the bits of the parameter before."""
    half: int = 2 ** (digits - 1)
    return ((mix(params_bits) >> (64 - digits)) - half) / half


def chain(stepper: Stepper, start: Columns, steps: int, digits: int) -> tuple[Columns, int]:
    """The columns and the digest after so many steps. The digest mixes in all columns of each step, in their order."""
    columns, digest = start, 0
    for t in range(1, steps + 1):
        grad = gradient(bits(columns["params"], stepper.dtype), digits)
        columns = stepper.step(columns, grad, t)
        for name in stepper.columns:
            digest = mix(digest ^ bits(columns[name], stepper.dtype_of(name)))
    return columns, digest
