"""The numerics laws hold of what each rule does: its update runs on values that refuse everything else."""

import math
from typing import Any

import pytest

import xopt
from xopt.rule import Rule


class LawBrokenError(Exception):
    pass


class Lawful:
    """An array stand-in that allows + - * between arrays and numbers, array / array, sqrt and sign, and nothing else."""

    ndim = 1

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return LawfulNamespace

    def _join(self, other: Any) -> "Lawful":
        if not isinstance(other, (Lawful, float)) or isinstance(other, bool):
            msg = f"an array met {other!r}"
            raise LawBrokenError(msg)
        if isinstance(other, float) and not math.isfinite(other):
            msg = f"an array met the number {other!r}"
            raise LawBrokenError(msg)
        return Lawful()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _join

    def __neg__(self) -> "Lawful":
        return Lawful()

    def __truediv__(self, other: Any) -> "Lawful":
        if not isinstance(other, Lawful):
            msg = f"array / {other!r}: invert on the host and multiply"
            raise LawBrokenError(msg)
        return Lawful()

    def __rtruediv__(self, other: Any) -> "Lawful":
        msg = f"{other!r} / array: invert on the host and multiply"
        raise LawBrokenError(msg)

    def __bool__(self) -> bool:
        msg = "an update branched on the value of an array"
        raise LawBrokenError(msg)

    def __getattr__(self, name: str) -> Any:
        msg = f"an update asked an array for .{name}"
        raise LawBrokenError(msg)

    for _name in (
        "__pow__",
        "__rpow__",
        "__matmul__",
        "__mod__",
        "__floordiv__",
        "__getitem__",
        "__iadd__",
        "__imul__",
        "__isub__",
    ):

        def _refused(self, *_: Any, _name: str = _name) -> Any:
            raise LawBrokenError(_name)

        locals()[_name] = _refused
    del _name, _refused


class LawfulNamespace:
    sqrt = staticmethod(lambda _: Lawful())
    sign = staticmethod(lambda _: Lawful())


def run(rule: Rule[Any, Any], t: int, **hyper: Any) -> None:
    c = rule.coefficients(t, *rule.carried.values(), **hyper)
    slots = []
    for slot in rule.slots:
        if slot in rule.carried:
            slots.append(rule.carried[slot])
        elif rule.ranges[rule.memory[slot]].sequence:
            slots.append(tuple(Lawful() for _ in (rule.defaults | hyper)[rule.memory[slot]]))
        else:
            slots.append(Lawful())
    new = rule.update(Lawful(), *slots, Lawful(), c)
    assert isinstance(new[0], Lawful)
    assert len(new) == 1 + len(rule.slots)


@pytest.mark.parametrize("name", xopt.RULES)
def test_update_keeps_the_laws(name: str) -> None:
    rule = xopt.RULES[name]
    run(rule, 1)
    run(rule, 1000)


def test_update_keeps_the_laws_during_warmups() -> None:
    run(xopt.ademamix, 3, alpha_warmup=10, beta3_warmup=10)


@pytest.mark.parametrize("breach", [lambda x: x / 2.0, lambda x: 2.0 / x, lambda x: x**2, lambda x: x or x, lambda x: x.sum()])
def test_a_breach_is_noticed(breach: Any) -> None:
    with pytest.raises(LawBrokenError):
        breach(Lawful())


@pytest.mark.parametrize("name", xopt.RULES)
def test_coefficients_are_python_floats(name: str) -> None:
    """Host float64: what meets an array is rounded once, by the array's library."""
    rule = xopt.RULES[name]
    for value in rule.coefficients(7, *rule.carried.values()):
        values = value if isinstance(value, tuple) else (value,)
        assert all(type(v) is float for v in values), value
