"""JavaScript, as a module: numbers are doubles, and Math.fround rounds them to single precision."""

import textwrap
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import ClassVar

from xopt.checks import DOUBLE
from xopt.export.expressions import ATOM, CHOICE, FORMS, PRODUCT, SUM, Form, call
from xopt.export.host import LN2, Function
from xopt.export.language import WIDTH, Language, comment, plain
from xopt.export.step import Limit, is_single

_KEYWORDS = """arguments await break case catch class const continue debugger default delete do else enum eval export extends false
finally for function if implements import in instanceof interface let new null package private protected public return static
super switch this throw true try typeof undefined var void while with yield Math Number BigInt Infinity NaN RangeError fround"""

_LOG = """/** The natural logarithm, correctly rounded, which Math.log is not everywhere: log(1 + u) with 224 binary places. */
function rounded_log(x) {
    if (!(x > 0 && x < Infinity)) return x === 0 ? -Infinity : x === Infinity ? x : NaN;
    const places = 224n, ln2 = @LN2@n;
    let exponent = 0; // x = (1 + u) * 2^exponent, with u from -1/4 to 1/2; all exact
    while (x < 0.75) (x *= 2), exponent--;
    while (x >= 1.5) (x /= 2), exponent++;
    const u = BigInt((x - 1) * 2 ** 54) << (places - 54n);
    let result = BigInt(exponent) * ln2;
    for (let power = u, k = 1n; power !== 0n && power !== -1n; power = -(power * u) >> places, k++) result += power / k;
    if (result === 0n) return 0; // of 1
    const size = result < 0n ? -result : result;
    const excess = BigInt(size.toString(2).length - 53); // digits beyond those of a double; it is never half way
    const mantissa = excess > 0n ? (size + (1n << (excess - 1n))) >> excess : size << -excess;
    return ((result < 0n ? -1 : 1) * Number(mantissa)) / Number(1n << (places - excess));
}"""
_SIGN = """/** -1, 0 or 1; NaN stays NaN. */
function sign(x) {
    return x > 0 ? 1 : x < 0 ? -1 : x === 0 ? 0 : x;
}"""
_LARGER = """/** The larger one; NaN where one is NaN. */
function maximum_of(x, y) {
    return x > y || x !== x ? x : y;
}"""
_SMALLER = """/** The smaller one; NaN where one is NaN. */
function minimum_of(x, y) {
    return x < y || x !== x ? x : y;
}"""


class JavaScript(Language):
    """A module that exports the one function. The hyperparameters are the properties of its last argument."""

    name = "javascript"
    reserved = frozenset(_KEYWORDS.split())
    runtime: ClassVar[Mapping[str, str]] = {
        "rounded_log": _LOG.replace("@LN2@", hex(LN2)),
        "sign": _SIGN,
        "maximum": _LARGER,
        "minimum": _SMALLER,
    }
    forms: ClassVar[Mapping[str, Form]] = {
        **FORMS,
        "equal": FORMS["equal"]._replace(text="{0} === {1}"),
        "not_equal": FORMS["not_equal"]._replace(text="{0} !== {1}"),
        "double": Form("{0}", 0, (CHOICE,)),
        "odd": Form("{0} % 2", PRODUCT, (PRODUCT,)),
        "half": call("Math.floor")._replace(text="Math.floor({0} / 2)", operands=(PRODUCT,)),
        "is_none": Form("{0} === null", CHOICE, (CHOICE,)),
        "sqrt": call("Math.sqrt"),
        "abs": call("Math.abs"),
        "minimum": call("minimum_of", 2),
        "maximum": call("maximum_of", 2),
    }
    purpose = "in place: the arrays of the state begin as zeros, the count of steps as 0."

    def promise(self) -> str:
        return "It computes the bits that xopt does, where Math.sqrt is correctly rounded, as it is in all engines of today."

    @cached_property
    def element_forms(self) -> Mapping[str, Form]:
        if self.step.dtype == "float64":
            return self.forms
        rounded = {name: Form(f"fround({{0}} {sign} {{1}})", ATOM, (at, at + 1)) for name, sign, at in _ROUNDED}
        return {**self.forms, **rounded, "sqrt": Form("fround(Math.sqrt({0}))", ATOM, (CHOICE,))}

    def element_number(self, x: float) -> str:
        return repr(x) if self.step.dtype == "float64" or is_single(x) else f"fround({x!r})"

    def number(self, x: float) -> str:
        if isinstance(x, bool):
            return str(x).lower()
        names = {DOUBLE.largest: "Number.MAX_VALUE"}
        return f"-{names[-x]}" if -x in names else names.get(x, repr(x))

    # Statements.

    def times(self, count: int) -> str:
        return f"for (let k_ = 0; k_ < {count}; k_++)"

    def each(self, pad: str, name: str, numbers: list[float], inner: list[str]) -> list[str]:
        head = f"for (const {name} of [{', '.join(map(repr, numbers))}]) {{"
        return [*textwrap.wrap(head, WIDTH, initial_indent=pad, subsequent_indent=pad + "    "), *inner, f"{pad}}}"]

    def declared(self, name: str, kind: str, mutable: bool) -> str:  # noqa: ARG002 - all numbers are of one type
        return f"{'let' if mutable else 'const'} {name}"

    def translated(self, function: Function) -> str:
        says = [f"/** {plain(function.says)} */"] if function.says else []
        head = f"function {function.name}({', '.join(function.arguments)}) {{"
        return "\n".join([*says, head, *self.body(function.body, 1), "}"])

    # The file.

    def source(self) -> str:
        parts = [comment(self.introduction())]
        parts += ["const fround = Math.fround;"] if self.step.dtype == "float32" else []
        return "\n\n".join([*parts, *self.functions(), self._step()]) + "\n"

    def _step(self) -> str:
        return "\n".join(
            [*self._documentation(), *self._head(), *self._checks(), "", *self._coefficients(), "", *self._loop(), "}"]
        )

    def _documentation(self) -> list[str]:
        fields = {field for field, _ in self.step.arrays.values()} | set(self.rule.carried) | {"step"}
        says = [f"state.{name}: {text}" for name, text in self.comments().items() if name in fields and text]
        says += [f"{name}: {self.meaning(name).replace('None', 'null')}" for name in self.hyper]
        first = "One step. Throws RangeError for what is out of range, before anything is written."
        return ["/**", f" * {first}", " *", *(f" * {plain(text)}" for text in says), " */"]

    def _head(self) -> Iterator[str]:
        if self.hyper:
            yield f"export function {self.function}(state, grad, {{"
            for name, own in self.hyper.items():
                yield f"    {name if name == own else f'{name}: {own}'} = {self._default(self.step.hyper[name])},"
            yield "} = {}) {"
        else:
            yield f"export function {self.function}(state, grad) {{"
        yield from (f"    {self._const(own)} {own} = state.{name};" for name, own in self.carried.items())

    def _const(self, name: str) -> str:
        return "let" if self.changed(name) else "const"

    def _checks(self) -> Iterator[str]:
        yield "    const check = (holds, what) => {"
        yield f'        if (!holds) throw new RangeError("{self.function}: " + what);'
        yield "    };"
        yield '    check(state.step >= 0, "state.step must be 0 or more");'
        for limit in self.limits():
            own, interval = self.hyper[limit.name], self.rule.ranges[limit.name]
            what = limit.text.replace("None", "null")
            if interval.sequence:
                count = len(self.step.hyper[limit.name])
                yield f'    check({own}.length === {count}, "{limit.name} must have {count} numbers, one for each buffer");'
                yield f'    check({own}.every((x) => {self._inside("x", limit)}), "{what}");'
            elif interval.optional:
                yield f'    check({own} === null || ({self._inside(own, limit)}), "{what}");'
            else:
                yield f'    check({self._inside(own, limit)}, "{what}");'
        for limit in self.carried_limits():
            yield f'    check({self._inside(self.carried[limit.name], limit)}, "state.{limit.text}");'
        for slot, decay, where in self.absent():
            warmup = self.hyper.get(f"{decay}_warmup")
            holds = f"{self.hyper[decay]}{where} === 0" + (f" && !({warmup} > 0)" if warmup else "")
            yield f'    check({holds}, "the state keeps no {slot}{where}, so that {decay}{where} must be 0");'

    def _coefficients(self) -> Iterator[str]:
        if self.uses_count:
            yield f"    {self._const(self.count)} {self.count} = state.step + 1;"
        yield from self.body(self.host.statements, 1)
        yield from (f"    const {name} = {self.text(x)};" for name, x in self.computed.items())
        yield from (f"    const {name} = fround({self.text(x)});" for name, x in self.rounded.items())

    def _loop(self) -> Iterator[str]:
        yield from (f"    const {array} = state.{field};" for array, field in self.fields())
        yield "    for (let i = 0; i < params.length; i++) {"
        yield from (f"        const {name} = {self.element(x)};" for name, x in self.update.named.items())
        yield from (f"        {array}[i] = {self.element(result)};" for array, result in self.update.results.items())
        yield "    }"
        yield from (f"    state.{slot} = {self.coefficient(c)};" for slot, c in self.update.program.carried.items())
        yield "    state.step++;"

    def _default(self, value: object) -> str:
        if isinstance(value, tuple):
            return f"[{', '.join(map(repr, value))}]"
        return "null" if value is None else repr(value)

    def _inside(self, name: str, limit: Limit) -> str:
        inside = f"{name} >= {self.number(limit.low)} && {name} <= {self.number(limit.high)}"
        return f"{name} === 0 || ({inside})" if limit.zero else inside


_ROUNDED = (("add", "+", SUM), ("subtract", "-", SUM), ("multiply", "*", PRODUCT), ("divide", "/", PRODUCT))
