"""The host arithmetic of a rule, translated: Python functions of numbers, of which a small part of the language is read.

What is not of numbers, as ``xopt.scalars`` has it for arrays that a compiler traces, is left out: the branch that is taken for
Python numbers is known here, as ``is_host`` holds.
"""

import ast
import inspect
import math
import operator
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from xopt import scalars
from xopt.export.expressions import Expression


class ExportError(TypeError):
    """What a rule, or the one who asks, wants has no counterpart in the other language."""


class Function(NamedTuple):
    """A function on numbers."""

    name: str
    says: str  # the first paragraph of its docstring
    arguments: dict[str, str]  # name -> type: "int", "double", "optional" (a double or none), "sequence" of doubles
    body: list["Statement"]
    type: str


Statement = tuple[Any, ...]
"""
``("let", name, expression, type, mutable)``, ``("set", name, expression)``, ``("if", condition, body, otherwise)``,
``("while", condition, body)``, ``("times", count, body)``, ``("each", name, numbers, body)``, ``("return", expression)``.
"""

LN2 = 0xB17217F7_D1CF79AB_C9E3B398_03F2F6AF_40F34326_7298B62D_8A0D175B  # floor(2**224 ln 2)

RUNTIME = {scalars.log: "rounded_log", scalars._rounded_log: "rounded_log"}
"""Functions that each language has in its own words. The rest of ``xopt.scalars`` is translated."""

_BINARY: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Add: ("add", operator.add),
    ast.Sub: ("subtract", operator.sub),
    ast.Mult: ("multiply", operator.mul),
    ast.Div: ("divide", operator.truediv),
}
_COMPARED: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Lt: ("less", operator.lt),
    ast.LtE: ("less_equal", operator.le),
    ast.Gt: ("greater", operator.gt),
    ast.GtE: ("greater_equal", operator.ge),
    ast.Eq: ("equal", operator.eq),
    ast.NotEq: ("not_equal", operator.ne),
}
_CONDITIONS = {name for name, _ in _COMPARED.values()} | {"and", "or", "not", "odd", "is_none"}
_WAY_OUT = "numbers, + - * /, comparisons, if, while, calls of such functions and those of xopt.scalars can be exported"


class Translation:
    """Functions that were translated, in the order in which they may be defined.

    Parameters
    ----------
    reserved
        Names that nothing may have in the language.
    lengths
        Of sequences, by the name of the argument.
    """

    def __init__(self, reserved: Collection[str], lengths: Mapping[str, int]) -> None:
        self.reserved = set(reserved)
        self.lengths = lengths
        self.functions: dict[Any, Function] = {}

    def function(self, python: Callable[..., Any], types: Sequence[str]) -> Function:
        """A function for arguments of these types."""
        key = python, tuple(types)
        if key not in self.functions:
            names = [p.name for p in inspect.signature(python).parameters.values()]
            reader = _Reader(self, python, dict(zip(names, types, strict=True)))
            body = reader.statements(reader.tree.body)
            taken = self.reserved | {function.name for function in self.functions.values()}
            name = free(python.__name__.lstrip("_"), taken)
            says = "" if python.__name__.startswith("_") else " ".join((inspect.getdoc(python) or "").split("\n\n")[0].split())
            arguments = {reader.safe(name): type_ for name, type_ in zip(names, types, strict=True)}
            self.functions[key] = Function(name, says, arguments, body, reader.returned or "double")
        return self.functions[key]

    def inline(
        self, python: Callable[..., Any], types: Mapping[str, str]
    ) -> tuple[list[Statement], Mapping[str, Expression], dict[str, str]]:
        """The statements of a function that ends in its only ``return``, of a call; the call's arguments; the names of its own."""
        reader = _Reader(self, python, dict(types))
        *before, last = reader.tree.body
        if not isinstance(last, ast.Return) or any(isinstance(x, ast.Return) for one in before for x in ast.walk(one)):
            reader.refuse(last, "ends in another way than in its only return")
        made = last.value
        if not isinstance(made, ast.Call) or any(isinstance(x, ast.Starred) for x in made.args):
            reader.refuse(last, "returns what is no call of the class of its coefficients")
        statements = reader.statements(before)
        fields = reader.value_of(made.func)._fields
        given = dict(zip(fields, made.args, strict=False)) | {str(x.arg): x.value for x in made.keywords}
        return statements, {name: reader.expression(given[name]) for name in fields}, {name: reader.safe(name) for name in types}


def free(name: str, taken: Collection[str]) -> str:
    """The name, or one like it that nothing else has."""
    while name in taken:
        name += "_"
    return name


class _Reader:
    """Reads one Python function."""

    def __init__(self, translation: Translation, python: Callable[..., Any], types: dict[str, str]) -> None:
        self.translation = translation
        self.python = inspect.unwrap(python)
        self.types = types
        try:
            lines, self.first_line = inspect.getsourcelines(self.python)
            (tree,) = ast.parse(textwrap.dedent("".join(lines))).body
        except (OSError, TypeError, SyntaxError, ValueError):
            msg = f"export: the source of {python!r} is not to be had; write it into a file"
            raise ExportError(msg) from None
        if not isinstance(tree, ast.FunctionDef):
            msg = f"export: {python!r} must be written with def"
            raise ExportError(msg)
        self.tree = tree
        stored = [x.id for x in ast.walk(tree) if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)]
        self.mutable = {name for name in stored if stored.count(name) > 1}
        self.returned: str | None = None
        calls = [x.func for x in ast.walk(tree) if isinstance(x, ast.Call)]
        self.called = {x.id.lstrip("_") for x in calls if isinstance(x, ast.Name)}

    def refuse(self, node: ast.AST, what: str) -> NoReturn:
        line = self.first_line + getattr(node, "lineno", 1) - 1
        msg = f"export: {self.python.__module__}, line {line}: {self.python.__name__} {what}; {_WAY_OUT}"
        raise ExportError(msg)

    def safe(self, name: str) -> str:
        """A variable, under a name that neither the language nor a function that is called here has."""
        return free(name, self.translation.reserved | self.called)

    # Statements.

    def statements(self, body: Sequence[ast.stmt]) -> list[Statement]:
        found: list[Statement] = []
        for node in body:
            found += self._statement(node)
            if found and found[-1][0] == "return":
                break
        return found

    def _statement(self, node: ast.stmt) -> Iterator[Statement]:
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                return
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield self._assigned(node, name, value)
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if len(names) == len(values):
                targets = {x.id for x in names if isinstance(x, ast.Name)}
                used = {x.id for value in values for x in ast.walk(value) if isinstance(x, ast.Name)}
                if targets & used or len(targets) < len(names):
                    self.refuse(node, "assigns to names that the same line uses")
                for target, value in zip(names, values, strict=True):
                    yield self._assigned(node, getattr(target, "id", ""), value)
            case ast.AugAssign(target=ast.Name(id=name), op=ast.RShift(), value=ast.Constant(value=1)):
                self._must_be_int(node, name)
                yield ("set", self.safe(name), ("half", self.safe(name)))
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
                load = ast.copy_location(ast.Name(name, ast.Load()), target)
                yield self._assigned(node, name, ast.copy_location(ast.BinOp(load, op, value), node))
            case ast.If(test=test, body=then, orelse=otherwise):
                condition = self.expression(test)
                if isinstance(condition, bool):
                    yield from self.statements(then if condition else otherwise)
                else:
                    yield ("if", condition, self.statements(then), self.statements(otherwise))
            case ast.While(test=test, body=inner, orelse=[]):
                yield ("while", self.expression(test), self.statements(inner))
            case ast.For(target=ast.Name(id=name), iter=over, body=inner, orelse=[]):
                yield self._loop(node, name, over, inner)
            case ast.Return(value=ast.expr() as value):
                result = self.expression(value)
                self.returned = "int" if self.type_of(result) == "int" and self.returned in (None, "int") else "double"
                yield ("return", result)
            case _:
                self.refuse(node, f"has a statement that is not read ({type(node).__name__.lower()})")

    def _assigned(self, node: ast.AST, name: str, value: ast.expr) -> Statement:
        result = self.expression(value)
        own, known = self.safe(name), self.types.get(name)
        kind = self.type_of(result)
        if known is not None:
            if known == "sequence" or (known == "int" and kind != "int"):
                self.refuse(node, f"makes another kind of thing of {name}")
            return ("set", own, result)
        self.types[name] = kind
        return ("let", own, result, kind, name in self.mutable)

    def _loop(self, node: ast.For, name: str, over: ast.expr, inner: list[ast.stmt]) -> Statement:
        if isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id == "range" and len(over.args) == 1:
            count = self.expression(over.args[0])
            if isinstance(count, int) and not any(isinstance(x, ast.Name) and x.id == name for y in inner for x in ast.walk(y)):
                return ("times", count, self.statements(inner))
        numbers = self.value_of(over) if isinstance(over, ast.Name) and over.id not in self.types else None
        if not isinstance(numbers, (list, tuple)) or not all(isinstance(x, float) for x in numbers):
            self.refuse(node, "loops over what is no range of a number and no list of floats")
        self.types[name] = "double"
        return ("each", self.safe(name), list(numbers), self.statements(inner))

    def _must_be_int(self, node: ast.AST, name: str) -> None:
        if self.types.get(name) != "int":
            self.refuse(node, f"shifts {name}, which is no integer")

    # Expressions.

    def value_of(self, node: ast.expr) -> Any:
        """The Python object that a global name, or an attribute of a module, is."""
        match node:
            case ast.Name(id=name):
                scope = inspect.getclosurevars(self.python)
                known = {**scope.builtins, **self.python.__globals__, **scope.nonlocals}
                if name not in known:
                    self.refuse(node, f"uses {name}, which is not known")
                return known[name]
            case ast.Attribute(value=owner, attr=name):
                return getattr(self.value_of(owner), name)
        return self.refuse(node, f"has an expression that is not read ({type(node).__name__.lower()})")

    def type_of(self, x: Expression) -> str:
        """Of an expression: "int" where Python has an int that never leaves 64 bits, else "double"."""
        if isinstance(x, str):
            return next((kind for name, kind in self.types.items() if self.safe(name) == x), "double")
        if isinstance(x, int):
            return "int"
        if not isinstance(x, tuple):
            return "double"
        name, *operands = x
        if name in ("half", "odd"):
            return "int"
        if name in ("add", "subtract", "multiply", "negative") and all(self.type_of(one) == "int" for one in operands):
            return "int"
        if name == "where" and all(self.type_of(one) == "int" for one in operands[1:]):
            return "int"
        if name.startswith("call:"):
            return next((f.type for f in self.translation.functions.values() if f"call:{f.name}" == name), "double")
        return "double"

    def expression(self, node: ast.expr) -> Expression:
        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                return value
            case ast.Name(id=name) if name in self.types:
                return self.safe(name)
            case ast.Name() | ast.Attribute():
                found = self.value_of(node)
                if not isinstance(found, (int, float)):
                    self.refuse(node, f"uses {found!r}, which is no number")
                return found
            case ast.BinOp(left=left, op=op, right=right):
                return self._binary(node, op, self.expression(left), self.expression(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                x = self.expression(operand)
                return -x if isinstance(x, (int, float)) else ("negative", x)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                x = self.expression(operand)
                return (not x) if isinstance(x, (int, float)) else ("not", x)
            case ast.BoolOp(op=op, values=values):
                return self._boolean("and" if isinstance(op, ast.And) else "or", values)
            case ast.Compare(left=left, ops=ops, comparators=rest):
                return self._comparison(node, [left, *rest], ops)
            case ast.IfExp(test=test, body=then, orelse=otherwise):
                condition = self.expression(test)
                if isinstance(condition, (bool, int, float)):
                    return self.expression(then if condition else otherwise)
                return ("where", condition, self.expression(then), self.expression(otherwise))
            case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=int() as place)) if (
                self.types.get(name) == "sequence"
            ):
                return ("index", self.safe(name), place)
            case ast.Call(func=function, args=arguments, keywords=[]):
                return self._call(node, function, arguments)
        return self.refuse(node, f"has an expression that is not read ({type(node).__name__.lower()})")

    def _binary(self, node: ast.BinOp, op: ast.operator, x: Expression, y: Expression) -> Expression:
        plain = isinstance(x, (int, float)) and isinstance(y, (int, float))
        if isinstance(op, ast.Pow) and plain:
            return x**y
        if isinstance(op, ast.BitAnd) and y == 1 and self.type_of(x) == "int":
            return ("odd", x)
        if type(op) not in _BINARY:
            self.refuse(node, f"takes an operator that is not read ({type(op).__name__.lower()})")
        name, function = _BINARY[type(op)]
        if plain:
            return function(x, y)
        if name == "divide" and self.type_of(x) == self.type_of(y) == "int":
            x = ("double", x)
        return (name, x, y)

    def _boolean(self, name: str, values: list[ast.expr]) -> Expression:
        kept: list[Expression] = []
        for value in values:
            x = self.expression(value)
            if isinstance(x, (bool, int, float)):
                if bool(x) == (name == "or"):  # nothing behind it is looked at
                    kept.append(bool(x))
                    break
            else:
                kept.append(x)
        if not kept:
            return name == "and"
        if isinstance(kept[-1], bool) and len(kept) == 1:
            return kept[0]
        result = kept[0]
        for x in kept[1:]:
            result = (name, result, x)
        return result

    def _comparison(self, node: ast.Compare, operands: list[ast.expr], ops: list[ast.cmpop]) -> Expression:
        match operands, ops:
            case [ast.Name(id=name), ast.Constant(value=None)], [ast.Is() | ast.IsNot() as op]:
                if self.types.get(name) != "optional":
                    return isinstance(op, ast.IsNot)
                missing = ("is_none", self.safe(name))
                return missing if isinstance(op, ast.Is) else ("not", missing)
            case [left, right], [op] if type(op) in _COMPARED:
                x, y = self.expression(left), self.expression(right)
                name, function = _COMPARED[type(op)]
                if isinstance(x, (int, float)) and isinstance(y, (int, float)):
                    return bool(function(x, y))
                return (name, x, y)
        return self.refuse(node, "has a comparison that is not read")

    def _call(self, node: ast.Call, function: ast.expr, arguments: list[ast.expr]) -> Expression:
        called = self.value_of(function)
        if called is scalars.is_host:
            return True
        if called is isinstance:
            return self._is_instance(node, *arguments)
        if called is len and isinstance(arguments[0], ast.Name) and self.types.get(arguments[0].id) == "sequence":
            if arguments[0].id not in self.translation.lengths:
                self.refuse(node, "asks for the length of what is no hyperparameter")
            return self.translation.lengths[arguments[0].id]
        given = [self.expression(x) for x in arguments]
        if called is float and len(given) == 1:
            return float(given[0]) if isinstance(given[0], (int, float)) else ("double", given[0])
        if called in (min, max) and len(given) == 2:
            x, y = given  # Python keeps the first where they are equal
            return ("where", ("less" if called is min else "greater", y, x), y, x)
        if all(isinstance(x, (int, float)) for x in given) and callable(called):
            return called(*given)
        if called is abs:
            return ("abs", *given)
        if called is math.sqrt:
            return ("sqrt", *given)
        if called in RUNTIME:
            return (f"call:{RUNTIME[called]}", *given)
        if not inspect.isfunction(inspect.unwrap(called)):
            self.refuse(node, f"calls {getattr(called, '__name__', called)}, which differs between platforms or is not of numbers")
        return (f"call:{self.translation.function(called, [self.type_of(x) for x in given]).name}", *given)

    def _is_instance(self, node: ast.Call, x: ast.expr, kind: ast.expr) -> bool:
        if not isinstance(kind, ast.Name) or kind.id not in ("int", "float"):
            self.refuse(node, "asks of what type something is")
        return (self.type_of(self.expression(x)) == "int") == (kind.id == "int")
