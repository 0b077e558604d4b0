"""A rule's update as a straight-line list of operations: what it does is recorded by running it once, on arrays without numbers.

The list feeds what needs to know the operations and cannot trace Python itself: kernels for NumPy and CuPy, the check of the
numerics laws, the count of operations and bytes.
"""

import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from xopt.operations import register

if TYPE_CHECKING:
    from xopt.rule import Rule


class LawError(TypeError):
    """An update does what the numerics laws forbid, so that its bits would depend on the library."""


class Operation(NamedTuple):
    """``result = name(*operands)``; an operand is the name of an array, of a coefficient, of an earlier result, or a number."""

    result: str
    name: str  # a key of ``OPERATIONS``
    operands: tuple[str | float, ...]


class Program(NamedTuple):
    """An update for one form of the state.

    Its arrays have the names of the state's fields: ``params``, the slots (``v_0``, ``v_1`` for a tuple), ``grad``.
    """

    rule: str
    arrays: tuple[str, ...]  # of one leaf, params first and grad last
    coefficients: tuple[str, ...]  # all of them, in the order of ``numbers_of``
    operations: tuple[Operation, ...]
    writes: dict[str, str]  # array written -> name of its new value: the params, then each slot that the state keeps
    carried: dict[str, str]  # slot that holds a number -> the coefficient that is its next value

    @property
    def reads(self) -> tuple[str, ...]:
        """The arrays that the operations use."""
        used = {x for operation in self.operations for x in operation.operands} | set(self.writes.values())
        return tuple(name for name in self.arrays if name in used)

    @property
    def used(self) -> list[int]:
        """The places, among the coefficients, of those that the operations use."""
        operands = {x for operation in self.operations for x in operation.operands}
        return [i for i, name in enumerate(self.coefficients) if name in operands]

    def bytes_per_number(self, params: int, slots: int) -> int:
        """Memory traffic of one step for each parameter, from the bytes of a number of params and grad, and of the slots."""
        moved = [*self.reads, *self.writes]
        return sum(params if name in ("params", "grad") else slots for name in moved)

    def lines(self, formats: dict[str, str], literal: str) -> Iterator[str]:
        """The operations as text, one assignment each, from a format for each operation and one for a number."""
        for result, name, operands in self.operations:
            texts = [x if isinstance(x, str) else literal.format(x) for x in operands]
            yield f"{result} = {formats[name].format(*texts)}"


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "negative": operator.neg,
    "sqrt": math.sqrt,
    "abs": abs,
    "sign": lambda x: (x > 0) - (x < 0) if x == x else x,
    "maximum": lambda x, y: x if x > y or x != x else y,
    "minimum": lambda x, y: x if x < y or x != x else y,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "where": lambda condition, x, y: x if condition else y,
}
"""What an update may do, with its meaning for two finite Python numbers."""

INFIX = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "negative": "-{0}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
}
"""Those that Python and C write alike, for ``Program.lines``."""

COMPARISONS = {"less", "less_equal", "greater", "greater_equal", "equal", "not_equal"}


def record(rule: "Rule[Any, Any]", slots: Sequence[Any], c: Any, literal: Collection[str] = ()) -> Program:
    """The program of ``rule.elementwise`` for a state of this form.

    Parameters
    ----------
    rule
        Any rule.
    slots
        The slots of one leaf: only where there is None, a tuple or a number matters.
    c
        Its coefficients: only their names and the lengths of tuples matter.
    literal
        Names of coefficients of which the update may ask whether they are 1: here they are the Python number 1.0.

    Raises
    ------
    LawError
        Where the update does what the numerics laws forbid, with the rule, the operation and the way out.
    """
    tape = _Tape(rule.name)
    params, grad = _Recorded(tape, "params"), _Recorded(tape, "grad")
    own = [_leaf(tape, slot, value) for slot, value in zip(rule.slots, slots, strict=True)]
    coefficients = names_of(c)
    numbers = {name: 1.0 if name in literal else _Recorded(tape, name, "coefficient") for name in coefficients}
    results = rule.elementwise(params, *own, grad, with_numbers(c, numbers))
    if not isinstance(results, tuple) or len(results) != 1 + len(slots):
        msg = f"{rule.name}: update must return the new params and {len(slots)} slots, got {results!r}"
        raise LawError(msg)
    writes: dict[str, str] = {}
    carried: dict[str, str] = {}
    for name, old, new in zip(("params", *rule.slots), (params, *own), results, strict=True):
        for one, before, after in _pairs(name, old, new):
            kind = "coefficient" if name in rule.carried else "array"
            if not isinstance(after, _Recorded) or after.kind != kind:
                if before is None:
                    continue
                msg = f"{rule.name}: update must return {kind} for {one}, got {after!r}"
                raise LawError(msg)
            if kind == "coefficient":
                carried[one] = after.name
            elif before is not None:
                writes[one] = after.name
    arrays, operations = (*writes, "grad"), needed(tape.operations, writes.values())
    taken = [name for name in arrays if name in {*coefficients, *(operation.result for operation in operations)}]
    if taken:
        msg = f"{rule.name}: a slot cannot be called {taken[0]}, as a result or a coefficient of its program is; call it otherwise"
        raise ValueError(msg)
    return Program(rule.name, arrays, coefficients, operations, writes, carried)


def asked(rule: "Rule[Any, Any]", slots: Sequence[Any], c: Any) -> tuple[str, ...]:
    """The coefficients whose being 1 changes which operations the update consists of, such as the gain of a decay of 0."""

    def shape(literal: Collection[str]) -> list[str]:
        return [operation.name for operation in record(rule, slots, c, literal).operations]

    general = shape(())
    fixed = {f"c_{slot}" for slot in rule.carried}
    return tuple(name for name in names_of(c) if name not in fixed and shape((name,)) != general)


def names_of(c: Any) -> tuple[str, ...]:
    """The coefficients' names, those of a tuple numbered: ``c_lr``, ``c_betas_0``. None of them is the name of an array."""
    return tuple(one for name, value in zip(c._fields, c, strict=True) for one, _, _ in _pairs(f"c_{name}", value, value))


def numbers_of(c: Any) -> list[Any]:
    """The coefficients in the order of their names."""
    if tuple not in map(type, c):
        return list(c)
    return [x for value in c for x in (value if isinstance(value, tuple) else (value,))]


def with_numbers(c: Any, numbers: dict[str, Any]) -> Any:
    """Coefficients like ``c`` with other numbers, given by name."""
    return c._make(
        tuple(numbers[f"c_{name}_{i}"] for i in range(len(value))) if isinstance(value, tuple) else numbers[f"c_{name}"]
        for name, value in zip(c._fields, c, strict=True)
    )


def _leaf(tape: "_Tape", name: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_leaf(tape, f"{name}_{i}", x) for i, x in enumerate(value))
    if value is None or isinstance(value, float):
        return value
    return _Recorded(tape, name)


def _pairs(name: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if not isinstance(old, tuple):
        yield name, old, new
    elif isinstance(new, tuple) and len(new) == len(old):
        yield from ((f"{name}_{i}", o, n) for i, (o, n) in enumerate(zip(old, new, strict=True)))
    else:
        msg = f"update must return {len(old)} arrays for {name}, got {new!r}"
        raise LawError(msg)


def evaluate(operations: Iterable[Operation], functions: Mapping[str, Callable[..., Any]], values: dict[str, Any]) -> None:
    """Adds the results of operations to the values that they are of, by these functions."""
    for result, name, operands in operations:
        values[result] = functions[name](*[values[x] if isinstance(x, str) else x for x in operands])


def needed(operations: Sequence[Operation], results: Collection[str]) -> tuple[Operation, ...]:
    """Those operations that lead to one of these results."""
    wanted, kept = set(results), []
    for operation in reversed(operations):
        if operation.result in wanted:
            kept.append(operation)
            wanted.update(x for x in operation.operands if isinstance(x, str))
    return tuple(reversed(kept))


def is_linear(operations: Iterable[Operation], arrays: Collection[str]) -> bool:
    """Whether the results are linear functions of the arrays."""
    made = {*arrays}
    for result, name, operands in operations:
        factors = sum(x in made for x in operands)
        if name not in ("add", "subtract", "multiply", "negative") or (name == "multiply" and factors > 1):
            return False
        if name in ("add", "subtract") and factors < 2:
            return False
        made.add(result)
    return True


class _Tape:
    """Where a program is recorded."""

    def __init__(self, rule: str) -> None:
        self.rule = rule
        self.operations: list[Operation] = []

    def record(self, name: str, *operands: Any) -> "_Recorded":
        kind = "condition" if name in COMPARISONS else "array"
        wanted = ("condition", "array", "array") if name == "where" else ("array",) * len(operands)
        texts = [self._operand(name, x, want) for x, want in zip(operands, wanted, strict=True)]
        if not any(isinstance(x, _Recorded) and x.kind in ("array", "condition") for x in operands):
            self.refuse(f"{name} of coefficients alone", "compute it in coefficients, in float64")
        if name == "divide" and not all(isinstance(x, _Recorded) and x.kind == "array" for x in operands):
            self.refuse(
                "a division by or of a number", "invert it in coefficients and multiply; libraries divide in different ways"
            )
        result = _Recorded(self, f"t{len(self.operations)}", kind)
        self.operations.append(Operation(result.name, name, tuple(texts)))
        return result

    def _operand(self, name: str, x: Any, want: str) -> str | float:
        if isinstance(x, _Recorded) and x.tape is self:
            if x.kind == want or (want == "array" and x.kind == "coefficient"):
                return x.name
        elif want == "array" and isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x):
            return float(x)
        return self.refuse(f"{name} of {x!r}", "an array meets arrays of its kind, coefficients and finite Python numbers")

    def refuse(self, what: str, way_out: str) -> NoReturn:
        msg = f"{self.rule}: update does {what}, which the numerics laws forbid; {way_out}"
        raise LawError(msg)


class _Recorded:
    """An array without numbers, one number for all its places (a coefficient), or a condition."""

    ndim = 1

    def __init__(self, tape: _Tape, name: str, kind: str = "array") -> None:
        self.tape, self.name, self.kind = tape, name, kind

    def __repr__(self) -> str:
        return f"the {self.kind} {self.name}"

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return _Functions

    def __bool__(self) -> bool:
        self.tape.refuse(f"a branch on the value of {self!r}", "use where")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in _FORBIDDEN:
            raise AttributeError(name)
        self.tape.refuse(f"{name} of {self!r}", _WAY_OUT)

    def __neg__(self) -> Any:
        return self.tape.record("negative", self)

    def __abs__(self) -> Any:
        return self.tape.record("abs", self)

    __hash__ = None  # type: ignore[assignment]  # == is recorded


_WAY_OUT = "an update consists of + - * and array / array, sqrt, abs, sign, maximum, minimum, comparisons and where"
_FORBIDDEN = [
    f"__{side}{name}__"
    for name in ("pow", "matmul", "mod", "floordiv", "and", "or", "xor", "lshift", "rshift")
    for side in ("", "r", "i")
]
_FORBIDDEN += ["__iadd__", "__isub__", "__imul__", "__itruediv__", "__getitem__", "__setitem__", "__iter__", "__len__", "__float__"]


def _operator(name: str, swapped: bool) -> Any:
    def method(self: Any, other: Any) -> Any:
        return self.tape.record(name, other, self) if swapped else self.tape.record(name, self, other)

    return method


def _refused(name: str) -> Any:
    def method(self: Any, *_: Any) -> Any:
        self.tape.refuse(f"{name} of {self!r}", _WAY_OUT)

    return method


for _name, _operation in (("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide")):
    setattr(_Recorded, f"__{_name}__", _operator(_operation, swapped=False))
    setattr(_Recorded, f"__r{_name}__", _operator(_operation, swapped=True))
for _name, _operation in zip(("lt", "le", "gt", "ge", "eq", "ne"), sorted(COMPARISONS, key=list(OPERATIONS).index), strict=True):
    setattr(_Recorded, f"__{_name}__", _operator(_operation, swapped=False))
for _name in _FORBIDDEN:
    setattr(_Recorded, _name, _refused(_name))


class _FunctionsType(type):
    def __getattr__(cls, name: str) -> Any:
        msg = f"update calls {name}, which the numerics laws forbid; {_WAY_OUT}"
        raise LawError(msg)


class _Functions(metaclass=_FunctionsType):
    """The namespace of recorded arrays."""


def _function(name: str) -> Any:
    def function(*operands: Any) -> Any:
        tape = next(x.tape for x in operands if isinstance(x, _Recorded))
        return tape.record(name, *operands)

    return function


for _name in ("sqrt", "sign", "abs", "maximum", "minimum", "where"):
    setattr(_Functions, _name, staticmethod(_function(_name)))
register(_Recorded, _Functions)
