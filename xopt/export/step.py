"""What the source of a step needs to know of a rule, in no language yet."""

import inspect
import struct
from collections.abc import Collection, Mapping
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from xopt.checks import DOUBLE, Precision, as_number, check_hyper
from xopt.export.expressions import Expression
from xopt.export.host import ExportError, Statement, Translation
from xopt.export.update import Update, update_of
from xopt.program import names_of
from xopt.rule import Rule

__all__ = ["ExportError", "Limit", "Step"]

PRECISIONS = {"float64": DOUBLE, "float32": Precision("float32", 2.0**-23, (2 - 2.0**-23) * 2.0**127, 2.0**-126)}
"""What a check must know of the dtypes of the arithmetic."""


class Limit(NamedTuple):
    """What a hyperparameter must be."""

    name: str
    low: float
    high: float
    zero: bool  # or 0, where the range begins above it
    text: str


class Host(NamedTuple):
    """The arithmetic of the coefficients, translated."""

    translation: Translation
    statements: list[Statement]
    fields: Mapping[str, Expression]  # of the coefficients
    names: dict[str, str]  # Python's name of an argument -> the one that it has there


class Step:
    """One step of a rule for a state of one form.

    Parameters
    ----------
    rule
        Any rule.
    dtype
        Of its arithmetic: a key of ``PRECISIONS``.
    hyper
        The hyperparameters that differ from its defaults.
    """

    def __init__(self, rule: Rule[Any, Any], dtype: str, hyper: Mapping[str, Any]) -> None:
        function = f"{rule.name}_step"
        rule.check_names(function, hyper)
        for name, value in hyper.items():
            check_hyper(function, name, value, rule.ranges[name], PRECISIONS[dtype])
        self.rule = rule
        self.dtype = dtype
        self.precision = PRECISIONS[dtype]
        self.hyper: dict[str, Any] = {name: _plain(rule, name, value) for name, value in (rule.defaults | dict(hyper)).items()}
        self.changed = {name: self.hyper[name] for name in hyper}
        self.slots = [self._slot(name) for name in rule.slots]
        c = rule.coefficients(1, *rule.carried.values(), **self.hyper)
        self.coefficients = names_of(c)
        self.update: Update = update_of(rule, self.slots, c)

    def _slot(self, name: str) -> Any:
        if name in self.rule.carried:
            return self.rule.carried[name]
        decay = self.rule.decay_of(name, self.hyper)
        return tuple(map(_kept, decay)) if isinstance(decay, tuple) else _kept(decay)

    @property
    def absent(self) -> list[tuple[str, str, int | None]]:
        """Each slot that the state does not keep, its decay, which must stay 0, and the place of it where there are several."""
        found: list[tuple[str, str, int | None]] = []
        for name, slot in zip(self.rule.slots, self.slots, strict=True):
            if slot is None:
                found.append((name, self.rule.memory[name], None))
            elif isinstance(slot, tuple):
                found += [(name, self.rule.memory[name], i) for i, x in enumerate(slot) if x is None]
        return found

    @cached_property
    def arrays(self) -> dict[str, tuple[str, int | None]]:
        """Each array of the state by its name in the program: its field, and its place in it where it has several."""
        found: dict[str, tuple[str, int | None]] = {"params": ("params", None)}
        for name, slot in zip(self.rule.slots, self.slots, strict=True):
            if isinstance(slot, tuple):
                found |= {f"{name}_{i}": (name, i) for i, x in enumerate(slot) if x is not None}
            elif name not in self.rule.carried and slot is not None:
                found[name] = (name, None)
        return found

    def limits(self, name: str) -> Limit:
        interval = self.rule.ranges[name]
        low, high = interval.usable(self.precision)
        above = interval.divisor and low <= 0
        return Limit(name, self.precision.smallest_normal if above else low, high, above, f"{name} must be {interval.words}")

    def host(self, reserved: Collection[str]) -> Host:
        """The arithmetic of the coefficients, with no name that is reserved."""
        translation = Translation(reserved, {name: len(x) for name, x in self.hyper.items() if isinstance(x, tuple)})
        positional = list(inspect.signature(self.rule.coefficients).parameters)[: 1 + len(self.rule.carried)]
        types = {name: "double" if i else "int" for i, name in enumerate(positional)}
        for name, interval in self.rule.ranges.items():
            types[name] = "sequence" if interval.sequence else "optional" if interval.optional else "double"
        return Host(translation, *translation.inline(self.rule.coefficients, types))

    @cached_property
    def xopt(self) -> str:
        try:
            return f"xopt {version('array-xopt')}"
        except PackageNotFoundError:
            return "xopt"

    @property
    def command(self) -> str:
        given = "".join(f" --set {name}={_as_option(value)}" for name, value in self.changed.items())
        return f"xopt export {self.rule.name} --language {{}} --dtype {self.dtype}{given}"


def is_single(x: float) -> bool:
    """Whether a number is one of single precision."""
    return abs(x) <= PRECISIONS["float32"].largest and struct.unpack("f", struct.pack("f", x))[0] == x


def _kept(decay: Any) -> Any:
    return None if decay is not None and as_number(decay) == 0 else True


def _plain(rule: Rule[Any, Any], name: str, value: Any) -> Any:
    """A hyperparameter as a float, a tuple of them, or None."""
    if rule.ranges[name].sequence:
        return tuple(float(x) for x in value)
    return None if value is None else float(value)


def _as_option(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)
