"""A recorded program as expressions: one for each array that is written, with names for what more than one of them uses."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from xopt.export.expressions import Expression, parts
from xopt.export.host import ExportError
from xopt.program import Program, asked, record
from xopt.rule import Rule

LONG = 10
"""Operations beyond which an expression is written in two lines, about half of it in each."""

MANY = 8
"""Coefficients that may be asked for, as each doubles what is recorded."""

ARITHMETIC = {"add", "subtract", "multiply", "divide", "negative", "sqrt", "abs", "sign", "maximum", "minimum"}


class Update(NamedTuple):
    """What happens to one number of each array."""

    program: Program
    named: dict[str, Expression]  # in the order in which they can be computed; those of ``program.writes`` among them
    results: dict[str, str]  # array written -> the name of its new value

    @property
    def operations(self) -> set[str]:
        return {x[0] for one in self.named.values() for x in _walked(one)}

    @property
    def ones(self) -> list[str]:
        """The coefficients of which it is asked whether they are 1."""
        found = [x[1] for one in self.named.values() for x in _walked(one) if x[0] == "is_one"]
        return list(dict.fromkeys(found))


def _walked(x: Expression) -> Iterator[tuple[Any, ...]]:
    """An expression and all that it is made of, but for names and numbers, from the outside."""
    if isinstance(x, tuple):
        yield x
        for part in parts(x):
            yield from _walked(part)


def update_of(rule: Rule[Any, Any], slots: Sequence[Any], c: Any) -> Update:
    """The update for slots of this form, given coefficients of their form."""
    program = record(rule, slots, c)
    ones = asked(rule, slots, c)
    if len(ones) > MANY:
        msg = f"export: {rule.name} does something else where one of {len(ones)} coefficients is 1, and {MANY} are the most"
        raise ExportError(msg)
    writes = _with_ones(rule, slots, c, list(ones), [])
    named: dict[str, Expression] = {}
    known: dict[Expression, str] = {}
    shared = {x for x, count in _uses(writes.values()).items() if count > 1 and _size(x) > 1}

    def name(x: Expression) -> Expression:
        """The expression with names for the parts that have one, which are computed before."""
        if not isinstance(x, tuple):
            return x
        if x in known:
            return known[x]
        inner = (x[0], *map(name, x[1:]))
        if x not in shared:
            return inner
        return let(part_name(), x, inner)

    def part_name() -> str:
        return f"part_{1 + sum(one.startswith('part_') for one in named)}"

    def let(name: str, x: Expression, inner: Expression) -> str:
        named[name], known[x] = inner, name
        return name

    results: dict[str, str] = {}
    for array in [*list(writes)[1:], "params"]:  # of params last, as it is made of the others
        x = writes[array]
        if isinstance(x, str) or x in known:
            results[array] = x if isinstance(x, str) else known[x]
            continue
        shared.discard(x)
        inner = name(x)
        while _size(inner) > LONG:
            half = min(_inside(inner), key=lambda part: abs(_size(part) - _size(inner) / 2))
            inner = _replaced(inner, half, let(part_name(), half, half))
        results[array] = let(f"{array}_next", x, inner)
    return Update(program, named, results)


def _with_ones(rule: Rule[Any, Any], slots: Sequence[Any], c: Any, open_: list[str], ones: list[str]) -> dict[str, Expression]:
    """What is written, with a choice where a coefficient that is 1 makes another expression of it."""
    if not open_:
        return _trees(record(rule, slots, c, ones))
    first, *rest = open_
    general = _with_ones(rule, slots, c, rest, ones)
    special = _with_ones(rule, slots, c, rest, [*ones, first])
    return {array: _choice(("is_one", first), special[array], general[array]) for array in general}


def _trees(program: Program) -> dict[str, Expression]:
    trees: dict[str, Expression] = {}
    for result, name, operands in program.operations:
        x = tuple(trees.get(x, x) if isinstance(x, str) else x for x in operands)
        trees[result] = x[0] if name == "multiply" and x[1] == 1.0 else (name, *x)
    return {array: trees.get(value, value) for array, value in program.writes.items()}


def _choice(condition: Expression, special: Expression, general: Expression) -> Expression:
    """``special`` where the condition holds, else ``general``: as far inside as they are alike."""
    if special == general:
        return general
    if isinstance(special, tuple) and isinstance(general, tuple) and special[0] == general[0] and len(special) == len(general):
        return (general[0], *(_choice(condition, x, y) for x, y in zip(special[1:], general[1:], strict=True)))
    return ("where", condition, special, general)


def _uses(trees: Iterable[Expression]) -> Counter[Expression]:
    """How often each expression stands there, inside those that stand there twice counted once."""
    uses: Counter[Expression] = Counter()

    def visit(x: Expression) -> None:
        if isinstance(x, tuple):
            uses[x] += 1
            if uses[x] == 1:
                for part in parts(x):
                    visit(part)

    for tree in trees:
        visit(tree)
    return uses


def _inside(x: Expression) -> list[Expression]:
    """The parts of an expression that are numbers and not chosen between, at any depth."""
    if not isinstance(x, tuple) or x[0] == "where":
        return []
    return [y for part in parts(x) if isinstance(part, tuple) and part[0] in ARITHMETIC for y in (part, *_inside(part))]


def _replaced(x: Expression, old: Expression, new: Expression) -> Expression:
    if x == old:
        return new
    return (x[0], *(_replaced(part, old, new) for part in parts(x))) if isinstance(x, tuple) else x


def _size(x: Expression) -> int:
    """Its operations."""
    return 1 + sum(map(_size, parts(x))) if isinstance(x, tuple) else 0
