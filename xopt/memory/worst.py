"""The longest step that gradients can lead to."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xopt.memory.slopes import Sloped, functions
from xopt.memory.system import Linear, Systems, powers, run, slots_of, systems, total, weights_at_the_end
from xopt.program import Operation, Program, evaluate, is_linear, needed

if TYPE_CHECKING:
    from xopt.memory.recall import Memory


def longest(memory: "Memory", step: int | None) -> float:
    """See ``Memory.worst_step``."""
    program = memory.rest.program if step is None else run(memory.rule, memory.hyper, np.ones(1)).program
    names = [operation.name for operation in program.operations]
    if is_linear(program.operations, program.arrays):
        weights = memory.weights(step=step) if step is not None else memory.weights(_ages_of(memory._settled.a, memory))
        return total(np.abs(weights))
    if names.count("sign") == 1 and "divide" not in names:
        return float(abs(_scale(memory, program, step)))
    quotient = _quotient(memory, program)
    if step is not None:
        found = run(memory.rule, memory.hyper, np.ones(step))
        values = _values(quotient, found.coefficients, found.slots.T, found.grads)
        a, b = (weights_at_the_end(one) for one in _systems(quotient, values, step))
        scale = _factor(quotient, {name: _last(x) for name, x in values.items()})
    else:
        at = memory.rest
        values = _values(quotient, at.coefficients, at.slots[:, None], np.ones(1))
        above, below = _systems(quotient, values, 1)
        ages = _horizon(memory, _radius(above) ** 2, _radius(below))
        if ages is None:
            return math.inf
        a, b = (_long(one, ages) for one in (above, below))
        scale = _factor(quotient, values)
    with np.errstate(all="ignore"):
        terms = np.where(a == 0.0, 0.0, a * a / b)
    return float(scale * math.sqrt(total(terms))) if np.all(np.isfinite(terms)) else math.inf


class _Quotient(NamedTuple):
    program: Program  # without the squares of the gradient, each of which is an input
    squares: tuple[str, ...]
    above: str  # a weighted sum of gradients
    root: str  # of a weighted sum of squares, and what more there is
    division: Operation


def _quotient(memory: "Memory", program: Program) -> _Quotient:
    """The parts of a step, which is checked to be of this form."""
    operations = program.operations
    squares = tuple(result for result, name, operands in operations if name == "multiply" and operands == ("grad", "grad"))
    rest = tuple(operation for operation in operations if operation.result not in squares)
    divisions = [operation for operation in rest if operation.name == "divide"]
    roots = [operation for operation in rest if operation.name == "sqrt"]
    if len(divisions) == len(roots) == 1 and not {"sign", "abs", "where", "maximum", "minimum"} & {one.name for one in rest}:
        above, root = str(divisions[0].operands[0]), _without_constants(program, str(roots[0].operands[0]))
        slots = [program.writes[name] for name in slots_of(program)]
        linear = is_linear(needed(rest, [above, root, *slots]), (*program.arrays, *squares))
        upper = {x for operation in needed(rest, [above]) for x in operation.operands}
        if linear and not upper & {*squares}:
            return _Quotient(program._replace(operations=rest), squares, above, root, divisions[0])
    msg = (
        f"memory of {memory.rule.name}: its longest step is known for linear rules, for one sign, and for a weighted sum of "
        "gradients over the root of a weighted sum of their squares, and its step is of another form"
    )
    raise ValueError(msg)


def _without_constants(program: Program, result: str) -> str:
    """What a number such as eps_root is added to."""
    made = {operation.result: operation for operation in program.operations}
    while (
        result in made and made[result].name == "add" and (rest := [str(x) for x in made[result].operands if x in made])[1:] == []
    ):
        result = rest[0]
    return result


def _values(quotient: _Quotient, coefficients: Any, slots: Any, grads: Any) -> dict[str, Any]:
    """All results, where slots and gradients are as they have been, with derivatives with respect to squares as well."""
    given = {"params": 0.0, "grad": grads, **dict(zip(slots_of(quotient.program), slots, strict=True))}
    values: dict[str, Any] = {name: Sloped(np.asarray(x, dtype=np.float64), {name: 1.0}) for name, x in given.items()}
    values |= {name: Sloped(grads * grads, {"square": 1.0}) for name in quotient.squares}
    values |= {name: Sloped(x) for name, x in coefficients.items()}
    with np.errstate(all="ignore"):
        evaluate(quotient.program.operations, functions(held=True), values)
    return values


def _systems(quotient: _Quotient, values: dict[str, Any], length: int) -> tuple[Systems, Systems]:
    program = quotient.program
    return systems(program, values, length, quotient.above), systems(program, values, length, quotient.root, "square")


def _factor(quotient: _Quotient, values: dict[str, Any]) -> float:
    """What the quotient is multiplied by, such as the learning rate."""
    step = -np.ravel(values[quotient.program.writes["params"]].value)[-1]
    return float(abs(step / np.ravel(values[quotient.division.result].value)[-1]))


def _last(x: Any) -> Any:
    return Sloped(np.ravel(x.value)[-1])


def _scale(memory: "Memory", program: Program, step: int | None) -> float:
    return float(memory.effective_lr(step)[-1]) if step is not None else memory.mass()


def _radius(found: Systems) -> float:
    a = found.matrices()[0][0]
    return float(np.max(np.abs(np.linalg.eigvals(a)))) if len(a) else 0.0


def _horizon(memory: "Memory", above: float, below: float) -> int | None:
    """How many ages make up the sum of ``above^k / below^k``, to rounding. None where it has no end."""
    ratio = above / below if below else (math.inf if above else 0.0)
    if ratio >= 1.0:
        return None
    return _enough(memory, ratio)


def _enough(memory: "Memory", ratio: float) -> int:
    ages = math.ceil(-60.0 / math.log(ratio)) + 2 if ratio > 0 else 2
    if ages > _MOST:
        msg = f"memory of {memory.rule.name}: a sum over {ages:,} ages is too long; give step="
        raise ValueError(msg)
    return ages


_MOST = 50_000_000


def _ages_of(a: Any, memory: "Memory") -> int:
    """How many ages have all of the mass, to rounding."""
    radius = float(np.max(np.abs(np.linalg.eigvals(a)))) if len(a) else 0.0
    return _enough(memory, radius)


def _long(found: Systems, ages: int) -> Any:
    a, b, c, d = (x[0] for x in found.matrices())
    return powers(Linear(a, b, c, float(d)), np.arange(ages))
