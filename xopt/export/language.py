"""What the languages have in common: statements, and the order in which a source says things."""

import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import ClassVar

from xopt.checks import DOUBLE
from xopt.export.expressions import Expression, Form, written
from xopt.export.host import RUNTIME, Function, Statement, free
from xopt.export.step import PRECISIONS, Limit, Step

DTYPES = tuple(PRECISIONS)
WIDTH = 116
_FIELD = re.compile(r"^    (\w+): \w+(?:\[.*\])?  # (.+)$", re.MULTILINE)

_OWN = ("rounded_log", "maximum_of", "minimum_of", "sign", "check", "k_")
"""Names that a source has of itself."""


class Language:
    """One language. A subclass says how it writes what differs."""

    name: ClassVar[str]
    reserved: ClassVar[frozenset[str]]
    forms: ClassVar[Mapping[str, Form]]  # in double precision
    runtime: ClassVar[Mapping[str, str]]  # functions in its own words, by name

    def __init__(self, step: Step) -> None:
        self.step = step
        self.rule = step.rule
        self.update = step.update
        self.function = f"{step.rule.name}_step"
        own = {*step.arrays, "grad", "n", "i", "state", "hyper", *self.update.named, self.function, *_OWN}
        self.host = step.host(self.reserved | own)
        self._drop_unused()
        self.count, *carried = list(self.host.names.values())[: 1 + len(self.rule.carried)]
        self.carried = dict(zip(self.rule.carried, carried, strict=True))
        self.hyper = {name: self.host.names[name] for name in self.rule.defaults}
        self._declare_coefficients()

    def _drop_unused(self) -> None:
        """Leaves out numbers that nothing uses in this form of the state."""
        used = {x for operation in self.update.program.operations for x in operation.operands}
        used |= set(self.update.program.carried.values())
        fields = {self._field_of(name)[0] for name in self.step.coefficients if name in used}
        wanted = repr([x for name, x in self.host.fields.items() if name in fields])
        kept: list[Statement] = []
        for statement in reversed(self.host.statements):
            if statement[0] != "let" or f"'{statement[1]}'" in wanted:
                kept.append(statement)
                wanted += repr(statement[1:])
        self.host.statements[:] = reversed(kept)

    def _declare_coefficients(self) -> None:
        """Finds a name, or what stands for one, for each coefficient that the update uses."""
        declared = {statement[1] for statement in self.host.statements if statement[0] == "let"}
        taken = self.host.translation.reserved | declared | {*self.host.names.values()}
        used = {x for operation in self.update.program.operations for x in operation.operands if isinstance(x, str)}
        used |= set(self.update.program.carried.values())
        self.computed: dict[str, Expression] = {}  # those that get a name of their own
        self.double: dict[str, Expression] = {}  # coefficient -> what it is in double precision
        for name in self.step.coefficients:
            field, place = self._field_of(name)
            x = self.host.fields[field]
            if name not in used:
                continue
            if place is not None:
                self.double[name] = ("index", x, place)
            elif isinstance(x, str):
                self.double[name] = x
            else:
                own = free(field, taken)
                self.computed[own] = x
                self.double[name] = own

    def _field_of(self, name: str) -> tuple[str, int | None]:
        bare = name.removeprefix("c_")
        if bare in self.host.fields:
            return bare, None
        field, _, place = bare.rpartition("_")
        return field, int(place)

    @property
    def rounded(self) -> dict[str, Expression]:
        """The coefficients that meet arrays, by the names that they have there, where those are narrower."""
        met = {x for operation in self.update.program.operations for x in operation.operands}
        return {name: x for name, x in self.double.items() if name in met} if self.step.dtype == "float32" else {}

    # Text.

    def source(self) -> str:
        """The whole file."""
        raise NotImplementedError

    def number(self, x: float) -> str:
        """A number of the host arithmetic."""
        return repr(x)

    def text(self, x: Expression) -> str:
        """An expression of the host arithmetic."""
        return written(x, self.forms, self.number)

    def element(self, x: Expression) -> str:
        """An expression for one number of the arrays."""
        return written(self._at(x), self.element_forms, self.element_number)

    @property
    def element_forms(self) -> Mapping[str, Form]:
        raise NotImplementedError

    def element_number(self, x: float) -> str:
        raise NotImplementedError

    def _at(self, x: Expression) -> Expression:
        if isinstance(x, tuple):
            if x[0] == "is_one":
                return ("equal", self.coefficient(x[1]), "1.0")
            return (x[0], *map(self._at, x[1:]))
        if not isinstance(x, str) or x in self.update.named:
            return x
        if x in self.step.arrays or x == "grad":
            return f"{x}[i]"
        return x if x in self.rounded else self.coefficient(x)

    def coefficient(self, name: str) -> str:
        """A coefficient in double precision."""
        return self.text(self.double[name])

    def body(self, statements: Sequence[Statement], depth: int) -> list[str]:
        """Statements of the host arithmetic, one a line."""
        lines: list[str] = []
        pad = "    " * depth
        for statement in statements:
            match statement:
                case ("if", condition, then, otherwise):
                    lines += self.block(pad, f"if ({self.text(condition)})", then, depth)
                    if otherwise:
                        lines[-1] += " else {"
                        lines += [*self.body(otherwise, depth + 1), f"{pad}}}"]
                case ("while", condition, inner):
                    head = "for (;;)" if condition is True else f"while ({self.text(condition)})"
                    lines += self.block(pad, head, inner, depth)
                case ("times", count, inner):
                    lines += self.block(pad, self.times(count), inner, depth)
                case ("each", name, numbers, inner):
                    lines += self.each(pad, name, numbers, self.body(inner, depth + 1))
                case ("let", name, x, kind, mutable):
                    lines.append(f"{pad}{self.declared(name, kind, mutable)} = {self.text(x)};")
                case ("set", name, x):
                    lines.append(f"{pad}{name} = {self.text(x)};")
                case ("return", x):
                    lines.append(f"{pad}return {self.text(x)};")
        return lines

    def block(self, pad: str, head: str, inner: Sequence[Statement], depth: int) -> list[str]:
        return [f"{pad}{head} {{", *self.body(inner, depth + 1), f"{pad}}}"]

    def times(self, count: int) -> str:
        raise NotImplementedError

    def each(self, pad: str, name: str, numbers: list[float], inner: list[str]) -> list[str]:
        raise NotImplementedError

    def declared(self, name: str, kind: str, mutable: bool) -> str:
        """What a declaration begins with."""
        raise NotImplementedError

    def functions(self) -> list[str]:
        """What the step calls, each before what calls it."""
        wanted = repr((self.host.statements, self.computed, self.double))
        needed: list[Function] = []
        for function in reversed(self.host.translation.functions.values()):
            if f"'call:{function.name}'" in wanted:
                needed.insert(0, function)
                wanted += repr(function.body)
        called = {name for name in RUNTIME.values() if f"'call:{name}'" in wanted}
        own = [text for name, text in self.runtime.items() if name in self.update.operations | called]
        return own + list(map(self.translated, needed))

    def translated(self, function: Function) -> str:
        raise NotImplementedError

    def limits(self) -> list[Limit]:
        """What the hyperparameters must be."""
        return [self.step.limits(name) for name in self.rule.defaults]

    def carried_limits(self) -> list[Limit]:
        """What the numbers of the state must be."""
        return [
            Limit(name, low, high, False, f"{name} must be {interval.words}")
            for _, name, interval in self.rule.carried_at
            for low, high in [interval.usable(DOUBLE)]
        ]

    def absent(self) -> list[tuple[str, str, str]]:
        """Each slot that the state does not keep, its decay, and the place of both as text, where there are several."""
        return [(slot, decay, "" if place is None else f"[{place}]") for slot, decay, place in self.step.absent]

    def fields(self) -> list[tuple[str, str]]:
        """Each array of the state, and where it is."""
        return [(name, field if at is None else f"{field}[{at}]") for name, (field, at) in self.step.arrays.items()]

    @property
    def uses_count(self) -> bool:
        """Whether the coefficients depend on the count of steps."""
        return f"'{self.count}'" in repr((self.host.statements, self.computed, self.double))

    def changed(self, name: str) -> bool:
        """Whether the coefficients give an argument another value."""
        return f"('set', '{name}'," in repr(self.host.statements)

    # Words.

    def introduction(self) -> list[str]:
        """What the file says of itself: the rule's own documentation, and where it comes from."""
        title, *paragraphs = [part for part in self.rule.doc.split("\n\n") if part.strip()]
        reference = [part for part in paragraphs if not part.startswith("    ")][:1]
        formula = [part for part in paragraphs if part.startswith("    ")]
        kind = "double" if self.step.dtype == "float64" else "single"
        made = f"`{self.function}` is one step in {kind} precision, {self.purpose} Written by"
        command = f"    {self.step.command.format(self.name)}    ({self.step.xopt})"
        text: list[str] = []
        for part in (title, *reference, *formula, made, command, self.promise()):
            lines = part.split("\n") if part.startswith("    ") else textwrap.wrap(" ".join(part.split()), WIDTH)
            text += ["", *lines]
        return text[1:]

    purpose: ClassVar[str]

    def promise(self) -> str:
        """Where it computes the bits that xopt does."""
        raise NotImplementedError

    def comments(self) -> dict[str, str]:
        """What each field of the state is, by the comment behind it in the rule's file."""
        try:
            found = dict(_FIELD.findall(inspect.getsource(self.rule.state)))
        except (OSError, TypeError):
            found = {}
        start = {name: f"; {value!r} before the first step" for name, value in self.rule.carried.items()}
        return {name: found.get(name, "").partition("; None")[0] + start.get(name, "") for name in self.rule.state._fields}

    def meaning(self, name: str) -> str:
        """A hyperparameter in one line."""
        interval = self.rule.ranges[name]
        said = re.split(r"[.:] ", self.rule.meanings.get(name, ""))[0].rstrip(".")
        return f"{said}, {interval.words}" if said else interval.words


def comment(lines: list[str]) -> str:
    """A comment of several lines."""
    return "\n".join(["/*", *(f" * {line}".rstrip() for line in map(plain, lines)), " */"])


def plain(text: str) -> str:
    """Text that ends no comment."""
    return text.replace("*/", "* /").replace("``", "")
