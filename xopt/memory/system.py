"""A rule as a system that gradients pass through: the run of one number, and how each step depends on what it is given.

A step maps the slots x and the gradient g to new slots, and to what it takes off the parameter, u. Near what happens in a run

    x' = A x + b g,    u = c x + d g

with numbers A, b, c and d of each step: the derivatives of the rule's own program.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from xopt.checks import shown
from xopt.memory.slopes import NUMBERS, Sloped, functions
from xopt.program import INFIX, Program, evaluate, names_of, numbers_of, record
from xopt.rule import Rule

AnyRule = Rule[Any, Any]
Hyper = Mapping[str, Any]
"""Numbers, or functions of the count t of a step."""

FOREVER = 2**60
"""The count of a step in which corrections and warm-ups are over: of the decay next to 1, its power is 0 beside 1."""


class Systems(NamedTuple):
    """For each step the derivatives of its new slots and of what it takes off the parameter; only those that are not 0 for good.

    ``slots[i, j]`` is the derivative of the new slot i with respect to the old slot j, ``step[j]`` that of the step.
    """

    names: tuple[str, ...]  # the slots
    slots: dict[tuple[int, int], Any]
    slots_by_grad: dict[int, Any]
    step: dict[int, Any]
    step_by_grad: Any
    length: int

    def matrices(self) -> tuple[Any, Any, Any, Any]:
        """A, b, c and d of each step, along the first axis."""
        n, length = len(self.names), self.length
        a, b, c, d = np.zeros((length, n, n)), np.zeros((length, n)), np.zeros((length, n)), np.zeros(length)
        for (i, j), slope in self.slots.items():
            a[:, i, j] = slope
        for i, slope in self.slots_by_grad.items():
            b[:, i] = slope
        for j, slope in self.step.items():
            c[:, j] = slope
        d[:] = self.step_by_grad
        return a, b, c, d


class Runs(NamedTuple):
    """A run of one number: its coefficients, its slots before each step, and what each step takes off the parameter at 0."""

    program: Program
    grads: Any
    coefficients: dict[str, Any]
    slots: Any  # one row for each step
    steps: Any

    def systems(self, held: bool) -> Systems:
        """How each step depends on what it is given."""
        return systems(self.program, sloped(self.program, self.coefficients, self.slots.T, self.grads, held), len(self.grads))


def numbers(function: str, name: str, given: Any, finite: bool = True) -> Any:
    """An array of float64. Raises ValueError for what is none, and for numbers that are not finite where ``finite`` is True."""
    try:
        found = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        found = None
    if found is None or (finite and not np.all(np.isfinite(found))):
        msg = f"{function}: {name} must be {'finite ' if finite else ''}numbers, got {shown(given)}"
        raise ValueError(msg)
    return found


def program_of(rule: AnyRule, hyper: Hyper) -> Program:
    """The program for a state in which all slots are there: one that a decay of 0 leaves out forgets at once."""
    slots = rule.schema.full(hyper)
    c = coefficients_at(rule, hyper, 1, rule.carried)
    return record(rule, slots, c)


def coefficients_at(rule: AnyRule, hyper: Hyper, t: int, carried: Mapping[str, float]) -> Any:
    scheduled = {name: value(t) for name, value in hyper.items() if callable(value)}
    rule.check_hyper(f"memory of {rule.name}, step {t}", scheduled)
    return rule.coefficients(t, *(carried[name] for name in rule.slots if name in carried), **{**hyper, **scheduled})


def coefficients_of(rule: AnyRule, program: Program, hyper: Hyper, steps: int) -> dict[str, Any]:
    """Each coefficient at t = 1 ... steps."""
    if not rule.carried and not any(map(callable, hyper.values())):
        try:
            return _all_at_once(rule, hyper, steps)
        except (TypeError, ValueError, AttributeError):  # coefficients that branch on the count, or call math
            pass
    rows, carried = [], dict(rule.carried)
    for t in range(1, steps + 1):
        c = coefficients_at(rule, hyper, t, carried)
        rows.append(numbers_of(c))
        carried = _carried_on(program, names_of(c), rows[-1])
    return dict(zip(program.coefficients, np.array(rows, dtype=np.float64).T, strict=True))


def _carried_on(program: Program, names: Sequence[str], numbers: Sequence[float]) -> dict[str, float]:
    known = dict(zip(names, numbers, strict=True))
    return {slot: known[name] for slot, name in program.carried.items()}


def _all_at_once(rule: AnyRule, hyper: Hyper, steps: int) -> dict[str, Any]:
    """By the formulas for a count that is an array, here one of all counts; they differ from the others by rounding."""
    with np.errstate(all="ignore"):
        c = rule.coefficients(np.arange(1.0, steps + 1.0), **hyper)
    return {name: np.broadcast_to(np.float64(x), (steps,)) for name, x in zip(names_of(c), numbers_of(c), strict=True)}


def run(rule: AnyRule, hyper: Hyper, grads: Any) -> Runs:
    """A run from zero slots on one gradient for each step, with the parameter at 0 before each step."""
    program = program_of(rule, hyper)
    steps = len(grads)
    coefficients = coefficients_of(rule, program, hyper, steps)
    names = slots_of(program)
    step = _step_function(program)
    used = [coefficients[program.coefficients[i]].tolist() for i in program.used]
    slots, rows, taken = (0.0,) * len(names), [], []
    for g, *c in zip(np.asarray(grads, dtype=np.float64).tolist(), *used, strict=True):
        rows.append(slots)
        params, slots = step(g, slots, c)
        taken.append(-params)
    return Runs(
        program, np.asarray(grads, dtype=np.float64), coefficients, np.array(rows).reshape(steps, len(names)), np.array(taken)
    )


def slots_of(program: Program) -> tuple[str, ...]:
    return tuple(name for name in program.arrays if name not in ("params", "grad"))


@lru_cache(maxsize=64)
def _compiled(text: str) -> Any:
    return compile(text, "<the program of a rule>", "exec")


def _step_function(program: Program) -> Callable[..., tuple[float, tuple[float, ...]]]:
    """The program as a function of Python numbers: params and slots after a step from params of 0."""
    calls = {name: f"{name}({', '.join(f'{{{i}}}' for i in range(_ARITY.get(name, 2)))})" for name in NUMBERS}
    formats = calls | {name: text for name, text in INFIX.items() if name != "divide"}
    names = slots_of(program)
    used = [program.coefficients[i] for i in program.used]
    new = [program.writes[name] for name in names]
    body = [
        *([f"{', '.join(names)}, = slots"] if names else []),
        *([f"{', '.join(used)}, = c"] if used else []),
        "params = 0.0",
        *program.lines(formats, "{!r}"),
        f"return {program.writes['params']}, ({''.join(f'{x}, ' for x in new)})",
    ]
    text = "def step(grad, slots, c):\n" + "\n".join(f"    {line}" for line in body)
    scope: dict[str, Any] = dict(NUMBERS)
    exec(_compiled(text), scope)
    made: Callable[..., tuple[float, tuple[float, ...]]] = scope["step"]
    return made


_ARITY = {"negative": 1, "sqrt": 1, "abs": 1, "sign": 1, "where": 3}


def sloped(program: Program, coefficients: Mapping[str, Any], slots: Any, grads: Any, held: bool) -> dict[str, Any]:
    """Every result of the program, with its derivatives, where the parameter is 0 before each step."""
    given = {"params": 0.0, "grad": grads, **dict(zip(slots_of(program), slots, strict=True))}
    values: dict[str, Any] = {name: Sloped(np.asarray(value, dtype=np.float64), {name: 1.0}) for name, value in given.items()}
    values |= {name: Sloped(x) for name, x in coefficients.items()}
    with np.errstate(all="ignore"):
        evaluate(program.operations, functions(held), values)
    return values


def systems(program: Program, values: Mapping[str, Any], length: int, output: str = "params", grad: str = "grad") -> Systems:
    """What is derived, as systems; by default of what a step takes off the parameter, with respect to the gradient.

    Only the slots on which the output depends are in them.
    """
    out = values[program.writes.get(output, output)].slopes
    factor = -1.0 if output == "params" else 1.0
    after = {name: values[program.writes[name]].slopes for name in slots_of(program)}
    names = behind(out, after)
    return Systems(
        names,
        {(i, j): after[one][other] for i, one in enumerate(names) for j, other in enumerate(names) if _counts(after[one], other)},
        {i: after[one][grad] for i, one in enumerate(names) if grad in after[one]},
        {j: factor * out[name] for j, name in enumerate(names) if name in out},
        factor * out.get(grad, 0.0),
        length,
    )


def _counts(slopes: Mapping[str, Any], name: str) -> bool:
    return name in slopes and bool(np.any(slopes[name]))


def behind(out: Mapping[str, Any], after: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The slots on which something depends, at once or through others."""
    found = {name for name in after if _counts(out, name)}
    while more := {name for name in after if any(_counts(after[one], name) for one in found)} - found:
        found |= more
    return tuple(name for name in after if name in found)


class Rest(NamedTuple):
    """A step long after the start, under a constant gradient: what no longer changes."""

    program: Program
    coefficients: dict[str, float]
    slots: Any
    carried: dict[str, Any]

    def sloped(self, grad: float, held: bool) -> dict[str, Any]:
        return sloped(self.program, self.coefficients, self.slots[:, None], np.array([grad]), held)

    def systems(self, grad: float, held: bool) -> Systems:
        return systems(self.program, self.sloped(grad, held), 1)


def rest(rule: AnyRule, hyper: Hyper, grad: float = 1.0, carried: Hyper | None = None) -> Rest | None:
    """Where a rule comes to rest under a constant gradient. None where its coefficients never settle.

    ``carried`` has the numbers that a state carries where it is near: where it rests with another lr.
    """
    program, start = program_of(rule, hyper), carried or rule.carried
    last, later = (_settled(rule, program, hyper, t, start) for t in (FOREVER, 2 * FOREVER))
    if last is None or later is None:
        return None
    one, two = coefficients_at(rule, hyper, FOREVER, last), coefficients_at(rule, hyper, 2 * FOREVER, later)
    if numbers_of(one) != numbers_of(two):
        return None
    coefficients = dict(zip(program.coefficients, map(float, numbers_of(one)), strict=True))
    names = slots_of(program)
    found = Rest(program, coefficients, np.zeros(len(names)), last)
    for _ in range(_NEWTON):  # averages are found at once
        values = found.sloped(grad, held=False)
        after = [values[program.writes[name]] for name in names]
        left = np.array([np.ravel(x.value)[0] for x in after]) - found.slots
        if not left.size or np.max(np.abs(left)) == 0.0:
            break
        a = np.array([[np.ravel(x.slopes.get(name, 0.0))[0] for name in names] for x in after])
        found = found._replace(slots=found.slots + np.linalg.solve(np.eye(len(names)) - a, left))
    return found


_NEWTON = 8


def _settled(rule: AnyRule, program: Program, hyper: Hyper, t: int, start: Hyper) -> dict[str, float] | None:
    """The numbers that a state carries where they no longer change. None where they never do.

    At once where each is a multiple of itself and a number more, such as a product of decays, else step by step.
    """

    def onward(now: Hyper) -> dict[str, float]:
        c = coefficients_at(rule, hyper, t, now)
        return _carried_on(program, names_of(c), numbers_of(c))

    limit, first = dict(start), onward(start)
    for name, x in start.items():
        more = onward(limit | {name: 0.0})[name]
        factor = onward(limit | {name: 1.0})[name] - more
        if abs(factor) < 1.0 and math.isclose(factor * x + more, first[name], rel_tol=1e-12):
            limit[name] = more / (1.0 - factor)
    if onward(limit) == limit:
        return limit
    now = dict(start)
    for _ in range(_STEPS):
        after = onward(now)
        if after == now:
            return now
        now = after
    return None


_STEPS = 100_000


# Weights, of systems.


class Linear(NamedTuple):
    """One system, for ever: x' = A x + b g, u = c x + d g."""

    a: Any
    b: Any
    c: Any
    d: float

    @property
    def inverse(self) -> Any:
        """Of I - A, which sums the powers of A."""
        return np.linalg.inv(np.eye(len(self.a)) - self.a)


def _is_diagonal(a: Any) -> bool:
    return not np.any(a - np.diag(np.diag(a)))


def powers(s: Linear, ages: Any) -> Any:
    """``d`` at age 0, and ``c A^(age - 1) b``."""
    found = np.where(ages == 0, s.d, 0.0)
    later = ages > 0
    if _is_diagonal(s.a):
        for a, b, c in zip(np.diag(s.a), s.b, s.c, strict=True):
            found[later] += c * b * a ** (ages[later] - 1.0)
    elif later.any():
        last = int(ages.max())
        row, by_age = s.c, np.empty(last)
        for k in range(last):
            by_age[k] = row @ s.b
            row = row @ s.a
        found[later] = by_age[ages[later] - 1]
    return found


def total(terms: Any) -> float:
    """A sum that is rounded once, or infinite where it is beyond the largest number."""
    try:
        return math.fsum(terms)
    except OverflowError:
        return float(np.sum(terms))


def weights_at_the_end(found: Systems) -> Any:
    """The weights of all ages at the last step of a run: of the system of each step, from the last one back."""
    length = found.length
    a, b, c, d = found.matrices()
    weights = np.empty(length)
    weights[0] = d[-1]
    if all(i == j for i, j in found.slots):
        weights[1:] = 0.0
        for j in range(len(found.names)):
            products = np.cumprod(np.concatenate([[1.0], a[-2:0:-1, j, j]]))[: length - 1]
            weights[1:] += c[-1, j] * products * b[-2::-1, j]
        return weights
    row = c[-1]
    for k in range(1, length):
        weights[k] = row @ b[-1 - k]
        row = row @ a[-1 - k]
    return weights
