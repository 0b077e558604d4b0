"""Expressions, and what they are in a language: a format and a precedence for each operation."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Expression = Any
"""A name, a number, or a tuple of an operation and its operands, expressions too. ``call:name`` is the call of a function."""

COMPARED = {"less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "equal": "==", "not_equal": "!="}
ATOM, UNARY, PRODUCT, SUM, ORDER, EQUALITY, AND, OR, CHOICE = range(9, 0, -1)
"""How tightly operators bind, the same in C and JavaScript."""


class Form(NamedTuple):
    """An operation as text: ``{0}`` is its first operand, which has parentheses where it binds less tightly than its place asks."""

    text: str
    precedence: int
    operands: tuple[int, ...]  # the precedence that each place asks


def infix(sign: str, precedence: int) -> Form:
    """From left to right: an operand to the right has parentheses also where it binds as tightly."""
    return Form(f"{{0}} {sign} {{1}}", precedence, (precedence, precedence + 1))


def call(name: str, count: int = 1) -> Form:
    return Form(f"{name}({', '.join(f'{{{i}}}' for i in range(count))})", ATOM, (CHOICE,) * count)


FORMS: Mapping[str, Form] = {
    "add": infix("+", SUM),
    "subtract": infix("-", SUM),
    "multiply": infix("*", PRODUCT),
    "divide": infix("/", PRODUCT),
    "negative": Form("-{0}", UNARY, (ATOM,)),
    **{name: infix(sign, EQUALITY if name.removeprefix("not_") == "equal" else ORDER) for name, sign in COMPARED.items()},
    "and": infix("&&", AND),
    "or": infix("||", OR),
    "not": Form("!{0}", UNARY, (UNARY,)),
    "where": Form("{0} ? {1} : {2}", CHOICE, (OR, CHOICE + 1, CHOICE)),
    "index": Form("{0}[{1}]", ATOM, (ATOM, CHOICE)),
}
"""What C and JavaScript write alike."""


def written(x: Expression, forms: Mapping[str, Form], number: Any) -> str:
    """An expression in a language, given its forms and how it writes a number."""

    def bound(x: Expression) -> tuple[str, int]:
        if isinstance(x, str):
            return x, ATOM
        if not isinstance(x, tuple):
            text: str = number(x)
            return text, UNARY if text.startswith("-") else ATOM
        name, *operands = x
        form = forms[name] if name in forms else call(name.removeprefix("call:"), len(operands))
        texts = []
        for operand, asked in zip(operands, form.operands, strict=True):
            text, precedence = bound(operand)
            texts.append(text if precedence >= asked else f"({text})")
        return form.text.format(*texts), form.precedence

    return bound(x)[0]


def parts(x: Expression) -> list[Expression]:
    """Its operands; none of a name or a number."""
    return list(x[1:]) if isinstance(x, tuple) else []
