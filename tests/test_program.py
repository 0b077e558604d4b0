"""The numerics laws hold of what each rule does: its recorded update has allowed operations alone, and a breach is named."""

from typing import Any, NamedTuple

import numpy as np
import pytest

import xopt
from xopt.backends import LawError
from xopt.checks import Rate
from xopt.program import OPERATIONS, Program, asked, names_of, numbers_of, record, with_numbers
from xopt.rule import Rule


def form(rule: Rule[Any, Any]) -> list[Any]:
    """The slots of a leaf: only what is None, a tuple or a number matters."""
    state = rule.init(np.zeros(3))
    return list(state[1:-1])


def program(rule: Rule[Any, Any], **hyper: Any) -> Program:
    return record(rule, form(rule), rule.coefficients(1, *rule.carried.values(), **hyper))


def test_every_update_keeps_the_laws(rule: Rule[Any, Any]) -> None:
    found = program(rule)
    assert {operation.name for operation in found.operations} <= OPERATIONS.keys()
    assert found.arrays[0] == "params"
    assert found.arrays[-1] == "grad"


@pytest.mark.parametrize(
    ("name", "bytes_", "operations"),
    [("sgd", 12, 4), ("momentum", 20, 6), ("lion", 20, 11), ("adamw", 28, 17), ("aggmo", 28, 11), ("ademamix", 36, 22)],
)
def test_counts(name: str, bytes_: int, operations: int) -> None:
    """AdEMAMix reads five arrays and writes four: 36 bytes in float32. With bfloat16 params, params and grad move half."""
    found = program(xopt.RULES[name])
    assert found.bytes_per_number(4, 4) == bytes_
    assert found.bytes_per_number(2, 4) == bytes_ - 6
    assert len(found.operations) == operations


def test_the_operations_mean_what_the_rule_computes(rule: Rule[Any, Any]) -> None:
    """The list, run on Python numbers, gives the bits of the float64 step."""
    state = rule.init(np.asarray([0.75]))
    for t in range(1, 4):
        grad = np.asarray([0.3 * t - 0.7])
        carried = [x for name, x in zip(rule.slots, state[1:-1], strict=True) if name in rule.carried]
        c = rule.coefficients(t, *carried)
        found = record(rule, state[1:-1], c)
        arrays = [x for x in _flat(state[:-1]) if not isinstance(x, float)]
        values: dict[Any, Any] = dict(zip(found.arrays, [*(float(x[0]) for x in arrays), float(grad[0])], strict=True))
        values |= dict(zip(found.coefficients, numbers_of(c), strict=True))
        for result, name, operands in found.operations:
            values[result] = OPERATIONS[name](*(values.get(x, x) for x in operands))
        state = rule.step(state, grad)
        new = [x for x in _flat(state[:-1]) if not isinstance(x, float)]
        assert [values[x] for x in found.writes.values()] == [float(x[0]) for x in new]
        assert {slot: values[x] for slot, x in found.carried.items()} == {
            slot: x for slot, x in zip(rule.slots, state[1:-1], strict=True) if slot in rule.carried
        }


def _flat(columns: Any) -> list[Any]:
    return [y for x in columns for y in (_flat(x) if isinstance(x, tuple) else [x]) if y is not None]


def test_only_gains_are_asked_for() -> None:
    """Whether a gain is 1 changes the operations; whether lr or a bias correction is does not, and compiles nothing anew."""
    rule = xopt.ademamix
    assert asked(rule, form(rule), rule.coefficients(1)) == ("c_gain1", "c_gain2", "c_gain3")
    without = record(rule, form(rule), rule.coefficients(1), ("c_gain2",))
    assert len(without.operations) == len(program(rule).operations) - 2
    assert "v" in without.writes
    assert "v" not in without.reads


def test_slots_of_none_are_not_there() -> None:
    rule = xopt.ademamix
    found = record(rule, [None, 1, 1], rule.coefficients(1))
    assert found.arrays == ("params", "m2", "v", "grad")
    assert found.bytes_per_number(4, 4) == 28


def test_names_and_numbers_of_coefficients_go_together() -> None:
    c = xopt.aggmo.coefficients(1, betas=(0.0, 0.5))
    assert names_of(c) == ("c_lr", "c_betas_0", "c_betas_1", "c_share", "c_weight_decay")
    assert with_numbers(c, dict(zip(names_of(c), numbers_of(c), strict=True))) == c


class State(NamedTuple):
    params: Any
    v: Any
    step: int


class Coefficients(NamedTuple):
    lr: Any


def coefficients(t: Any, *, lr: Rate = 0.1) -> Coefficients:
    return Coefficients(lr)


def rule_with(update: Any) -> Rule[Any, Any]:
    return Rule("odd", State, coefficients, update, memory={"v": "lr"})


@pytest.mark.parametrize(
    ("update", "says"),
    [
        (lambda p, v, g, c: (p / 2.0, v), "a division by or of a number"),
        (lambda p, v, g, c: (2.0 / p, v), "a division by or of a number"),
        (lambda p, v, g, c: (p / c.lr, v), "a division by or of a number, which"),
        (lambda p, v, g, c: (p**2, v), "__pow__ of the array params"),
        (lambda p, v, g, c: (p * (c.lr * 2.0), v), "multiply of coefficients alone"),
        (lambda p, v, g, c: (p or v, v), "a branch on the value of the array params"),
        (lambda p, v, g, c: (p if p > 0 else v, v), "a branch on the value of the condition"),
        (lambda p, v, g, c: (p.sum(), v), "sum of the array params"),
        (lambda p, v, g, c: (p[0], v), "__getitem__ of the array params"),
        (lambda p, v, g, c: (p + float("nan"), v), "add of nan"),
        (lambda p, v, g, c: (p + True, v), "add of True"),
        (lambda p, v, g, c: (p @ v, v), "__matmul__"),
        (lambda p, v, g, c: (p.__array_namespace__().exp(p), v), "update calls exp"),
        (lambda p, v, g, c: (p, 0.0), "update must return array for v, got 0.0"),
        (lambda p, v, g, c: p, "must return the new params and 1 slots"),
        (lambda p, v, g, c: (p > 0, v), "update must return array for params"),
    ],
)
def test_a_breach_is_named(update: Any, says: str) -> None:
    with pytest.raises(LawError, match=says):
        rule_with(update)


def test_an_update_in_place_is_a_breach() -> None:
    def update(p: Any, v: Any, g: Any, c: Any) -> Any:
        p += g
        return p, v

    with pytest.raises(LawError, match="__iadd__ of the array params"):
        rule_with(update)


def test_everything_that_is_allowed_can_be_said() -> None:
    """Functions, comparisons and where, which xopt's own rules hardly use, give NumPy's bits in every compiler."""

    def update(p: Any, v: Any, g: Any, c: Any) -> Any:
        xp = p.__array_namespace__()
        low = xp.minimum(p, g)
        high = xp.maximum(p, g * c.lr)
        chosen = xp.where(p <= g, xp.abs(low), -high)
        counted = xp.where(v != g, xp.where(v >= 0.25, chosen, v), xp.where(v == g, xp.sign(p), xp.where(v < p, v, g)))
        return chosen - 0.5 * xp.sqrt(xp.abs(v)), counted + xp.where(p > v, p, 0.1)

    rule = rule_with(update)
    draw = np.random.default_rng(0)
    odd = np.asarray([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, 0.25], np.float32)
    values = [np.concatenate([draw.permutation(np.repeat(odd, 20)), draw.standard_normal(60, np.float32)]) for _ in range(3)]
    state = State(values[0], values[1], 0)
    for compiler in ("numba", "blocks"):
        with np.errstate(all="ignore"):
            got, expected = xopt.backends.fuse(rule, compiler=compiler)(state, values[2]), rule.step(state, values[2])
        for x, y in zip(got[:-1], expected[:-1], strict=True):
            assert np.array_equal(x, y, equal_nan=True)


@pytest.mark.parametrize("name", xopt.RULES)
def test_coefficients_are_python_floats(name: str) -> None:
    """Host float64: what meets an array is rounded once, by the array's library."""
    rule = xopt.RULES[name]
    for value in rule.coefficients(7, *rule.carried.values()):
        values = value if isinstance(value, tuple) else (value,)
        assert all(type(v) is float for v in values), value
