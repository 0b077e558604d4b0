"""C99."""

import textwrap
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import ClassVar

from xopt.checks import DOUBLE
from xopt.export.expressions import CHOICE, FORMS, UNARY, Form, call
from xopt.export.host import LN2, Function
from xopt.export.language import WIDTH, Language, comment, plain
from xopt.export.step import PRECISIONS, Limit, is_single

_KEYWORDS = """auto break case char const continue default do double else enum extern float for goto if inline int long register
restrict return short signed sizeof static struct switch typedef union unsigned void volatile while _Bool _Complex _Imaginary
main size_t ptrdiff_t int64_t uint64_t uint32_t int32_t NULL NAN INFINITY DBL_MAX DBL_MIN FLT_MAX FLT_MIN
sqrt sqrtf fabs fabsf isnan ldexp log logf exp pow sin cos tan frexp floor ceil y0 y1 yn j0 j1 jn gamma"""
"""Of the language, and of the headers."""

_SIGN = """/* -1, 0 or 1; NaN stays NaN. */
static {real} sign({real} x) {{
    return x > 0 ? 1 : x < 0 ? -1 : x == 0 ? 0 : x;
}}"""
_LARGER = """/* The larger one; NaN where one is NaN. */
static {real} maximum_of({real} x, {real} y) {{
    return x > y || x != x ? x : y;
}}"""
_SMALLER = """/* The smaller one; NaN where one is NaN. */
static {real} minimum_of({real} x, {real} y) {{
    return x < y || x != x ? x : y;
}}"""
_LOG = """/*
 * The natural logarithm, correctly rounded, which libm's is not everywhere: the series of log(1 + u) with 224 binary places.
 * A number is eight words of 32 bits, the last one before the point, in two's complement.
 */
enum { WORDS = 8 };

static void log_add(uint32_t *sum, const uint32_t *x, int negative) { /* sum += x, or -= */
    uint64_t carry = (uint64_t)negative;
    for (int k = 0; k < WORDS; k++) {
        carry += (uint64_t)sum[k] + (negative ? ~x[k] : x[k]);
        sum[k] = (uint32_t)carry;
        carry >>= 32;
    }
}

static void log_multiply(uint32_t *x, const uint32_t *y) { /* x *= y, neither negative, x * y < 2^32 */
    uint32_t product[2 * WORDS] = {0};
    for (int j = 0; j < WORDS; j++) {
        uint64_t carry = 0;
        for (int k = 0; k < WORDS; k++) {
            carry += (uint64_t)x[j] * y[k] + product[j + k];
            product[j + k] = (uint32_t)carry;
            carry >>= 32;
        }
        product[j + WORDS] = (uint32_t)carry;
    }
    for (int k = 0; k < WORDS; k++)
        x[k] = product[k + WORDS - 1];
}

static void log_divide(uint32_t *quotient, const uint32_t *x, uint32_t divisor) {
    uint64_t rest = 0;
    for (int k = WORDS - 1; k >= 0; k--) {
        rest = rest << 32 | x[k];
        quotient[k] = (uint32_t)(rest / divisor);
        rest %= divisor;
    }
}

static double rounded_log(double x) {
    static const uint32_t ln2[WORDS] = {@LN2@};
    if (x <= 0 || x != x || x == INFINITY)
        return x == 0 ? -INFINITY : x == INFINITY ? x : NAN;
    int exponent;
    double u = frexp(x, &exponent); /* x = u * 2^exponent */
    if (u < 0.75) {
        u *= 2;
        exponent--;
    }
    u -= 1; /* exact, from -1/4 to 1/2 */
    const int below = u < 0;
    const uint64_t digits = (uint64_t)ldexp(below ? -u : u, 64);
    uint32_t base[WORDS] = {0}, power[WORDS] = {0}, term[WORDS], result[WORDS] = {0};
    base[WORDS - 2] = power[WORDS - 2] = (uint32_t)(digits >> 32);
    base[WORDS - 3] = power[WORDS - 3] = (uint32_t)digits;
    for (uint32_t k = 1; k <= 224; k++) { /* u - u^2/2 + u^3/3 - ... */
        log_divide(term, power, k);
        log_add(result, term, below || k % 2 == 0);
        log_multiply(power, base);
    }
    for (int k = 0; k < (exponent < 0 ? -exponent : exponent); k++)
        log_add(result, ln2, exponent < 0);
    const int negative = result[WORDS - 1] >> 31;
    if (negative) {
        uint32_t opposite[WORDS] = {0};
        log_add(opposite, result, 1);
        for (int k = 0; k < WORDS; k++)
            result[k] = opposite[k];
    }
    int top = 32 * WORDS - 1;
    while (top >= 0 && !(result[top / 32] >> top % 32 & 1))
        top--;
    if (top < 0)
        return 0; /* of 1 */
    uint64_t mantissa = 0;
    for (int k = top; k > top - 53; k--)
        mantissa = mantissa << 1 | (k >= 0 ? result[k / 32] >> k % 32 & 1 : 0);
    if (top >= 53) /* a logarithm is never half way between two doubles */
        mantissa += result[(top - 53) / 32] >> (top - 53) % 32 & 1;
    const double size = ldexp((double)mantissa, top - 52 - 32 * (WORDS - 1));
    return negative ? -size : size;
}"""
_WORDS = ", ".join(f"0x{LN2 >> 32 * k & 0xFFFFFFFF:08x}" for k in range(7))

_SINGLE = PRECISIONS["float32"]
_NAMED = {
    DOUBLE.largest: "DBL_MAX",
    DOUBLE.smallest_normal: "DBL_MIN",
    _SINGLE.largest: "FLT_MAX",
    _SINGLE.smallest_normal: "FLT_MIN",
}
_HEADERS = """#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__FAST_MATH__) || FLT_EVAL_METHOD != 0
#error "compile without -ffast-math, and with SSE rather than x87"
#endif"""


class C(Language):
    """A header-free source: types of the state and of the hyperparameters, their defaults, and the function."""

    name = "c"
    reserved = frozenset(_KEYWORDS.split())
    runtime: ClassVar[Mapping[str, str]] = {
        "rounded_log": _LOG.replace("@LN2@", f"{_WORDS}, 0"),
        "sign": _SIGN,
        "maximum": _LARGER,
        "minimum": _SMALLER,
    }
    forms: ClassVar[Mapping[str, Form]] = {
        **FORMS,
        "double": Form("(double){0}", UNARY, (UNARY,)),
        "float": Form("(float){0}", UNARY, (UNARY,)),
        "odd": Form("{0} & 1", CHOICE, (UNARY,)),
        "half": Form("{0} >> 1", CHOICE, (UNARY,)),
        "is_none": call("isnan"),
        "sqrt": call("sqrt"),
        "abs": call("fabs"),
        "minimum": call("minimum_of", 2),
        "maximum": call("maximum_of", 2),
    }
    purpose = "over n numbers in place: arrays of the state begin as zeros, the count of steps as 0."

    def promise(self) -> str:
        return (
            "It computes the bits that xopt does where the compiler keeps to IEEE 754: gcc and clang with -ffp-contract=off, and "
            "never with -ffast-math. Nothing else is needed but libm's sqrt, frexp and ldexp, which are exact."
        )

    @property
    def real(self) -> str:
        return "float" if self.step.dtype == "float32" else "double"

    @cached_property
    def element_forms(self) -> Mapping[str, Form]:
        narrow = {"sqrt": call("sqrtf"), "abs": call("fabsf")} if self.step.dtype == "float32" else {}
        return {**self.forms, **narrow}

    def element_number(self, x: float) -> str:
        if self.step.dtype == "float64":
            return repr(x)
        return f"{x!r}f" if is_single(x) else f"(float){x!r}"  # the float nearest to the double, as xopt rounds it

    def number(self, x: float) -> str:
        if isinstance(x, bool):
            return str(int(x))
        return f"-{_NAMED[-x]}" if -x in _NAMED else _NAMED.get(x, repr(x))

    # Statements.

    def times(self, count: int) -> str:
        return f"for (int k_ = 0; k_ < {count}; k_++)"

    def each(self, pad: str, name: str, numbers: list[float], inner: list[str]) -> list[str]:
        declared = f"static const double {name}s_[] = {{{', '.join(map(repr, numbers))}}};"
        return [
            *textwrap.wrap(declared, WIDTH, initial_indent=pad, subsequent_indent=f"{pad}    "),
            f"{pad}for (int k_ = 0; k_ < {len(numbers)}; k_++) {{",
            f"{pad}    const double {name} = {name}s_[k_];",
            *inner,
            f"{pad}}}",
        ]

    def declared(self, name: str, kind: str, mutable: bool) -> str:
        return f"{'' if mutable else 'const '}{'int64_t' if kind == 'int' else 'double'} {name}"

    def translated(self, function: Function) -> str:
        types = {"int": "int64_t ", "double": "double ", "optional": "double ", "sequence": "const double *"}
        arguments = ", ".join(f"{types[kind]}{name}" for name, kind in function.arguments.items())
        kind = "int64_t" if function.type == "int" else "double"
        says = [f"/* {plain(function.says)} */"] if function.says else []
        return "\n".join([*says, f"static {kind} {function.name}({arguments}) {{", *self.body(function.body, 1), "}"])

    # The file.

    def source(self) -> str:
        parts = [
            comment(self.introduction()),
            _HEADERS,
            self._state(),
            self._hyper(),
            *(text.format(real=self.real) if "{real}" in text else text for text in self.functions()),
            self._step(),
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _state(self) -> str:
        lines = ["typedef struct {"]
        fields: dict[str, str] = {}
        for name, place in self.step.arrays.values():
            slot = self.step.slots[self.rule.slots.index(name)] if place is not None else None
            fields[name] = f"{self.real} *{name}{f'[{len(slot)}]' if slot is not None else ''};"
        fields |= {name: f"double {name};" for name in self.rule.carried}
        comments = self.comments()
        for name in self.rule.state._fields:
            text = "int64_t step;" if name == "step" else fields.get(name)
            if text:
                lines.append(f"    {text:24} /* {plain(comments[name])} */" if comments[name] else f"    {text}")
        return "\n".join([*lines, f"}} {self.rule.name}_state;"])

    def _hyper(self) -> str:
        if not self.hyper:
            return ""
        lines, defaults = ["typedef struct {"], []
        for name, own in self.hyper.items():
            default = self.step.hyper[name]
            if isinstance(default, tuple):
                text, value = f"double {own}[{len(default)}];", f"{{{', '.join(map(repr, default))}}}"
            else:
                text, value = f"double {own};", "NAN" if default is None else repr(default)
            meaning = self.meaning(name).replace(" or None", " or NAN")
            lines.append(f"    {text:24} /* {plain(meaning)} */")
            defaults.append(f"    .{own} = {value},")
        kind = f"{self.rule.name}_hyper"
        return "\n".join([*lines, f"}} {kind};", "", f"const {kind} {self.rule.name}_defaults = {{", *defaults, "};"])

    def _step(self) -> str:
        taken = f", const {self.rule.name}_hyper *hyper" if self.hyper else ""
        return "\n".join(
            [
                "/* One step. Returns NULL, or what is wrong, before anything is written. */",
                f"const char *{self.function}({self.rule.name}_state *state, size_t n, const {self.real} *grad{taken}) {{",
                *self._arguments(),
                *self._checks(),
                "",
                *self._coefficients(),
                "",
                *self._loop(),
                "    return NULL;",
                "}",
            ]
        )

    def _arguments(self) -> Iterator[str]:
        for name, own in self.hyper.items():
            kind = "const double *" if self.rule.ranges[name].sequence else f"{self._const(own)}double "
            yield f"    {kind}{own} = hyper->{own};"
        for name, own in self.carried.items():
            yield f"    {self._const(own)}double {own} = state->{name};"

    def _const(self, name: str) -> str:
        return "" if self.changed(name) else "const "

    def _checks(self) -> Iterator[str]:
        def refused(wrong: str, what: str, pad: str = "    ") -> Iterator[str]:
            yield from (f"{pad}if ({wrong})", f'{pad}    return "{self.function}: {what}";')

        yield from refused("state->step < 0", "state.step must be 0 or more")
        for limit in self.limits():
            own, interval = self.hyper[limit.name], self.rule.ranges[limit.name]
            what = limit.text.replace(" or None", "")
            if interval.sequence:
                yield f"    for (int k_ = 0; k_ < {len(self.step.hyper[limit.name])}; k_++)"
                yield from refused(self._outside(f"{own}[k_]", limit), what, "        ")
            else:
                yield from refused((f"!isnan({own}) && " if interval.optional else "") + self._outside(own, limit), what)
        for limit in self.carried_limits():
            yield from refused(self._outside(self.carried[limit.name], limit), f"state.{limit.text}")
        for slot, decay, where in self.absent():
            warmup = self.hyper.get(f"{decay}_warmup")
            wrong = f"{self.hyper[decay]}{where} != 0" + (f" || {warmup} > 0" if warmup else "")
            yield from refused(wrong, f"the state keeps no {slot}{where}, so that {decay}{where} must be 0")

    def _coefficients(self) -> Iterator[str]:
        if self.uses_count:
            yield f"    {self._const(self.count)}int64_t {self.count} = state->step + 1;"
        yield from self.body(self.host.statements, 1)
        yield from (f"    const double {name} = {self.text(x)};" for name, x in self.computed.items())
        yield from (f"    const float {name} = {self.text(('float', x))};" for name, x in self.rounded.items())

    def _loop(self) -> Iterator[str]:
        for array, field in self.fields():
            yield f"    {self.real} *{array} = state->{field};"
        yield "    for (size_t i = 0; i < n; i++) {"
        yield from (f"        const {self.real} {name} = {self.element(x)};" for name, x in self.update.named.items())
        yield from (f"        {array}[i] = {self.element(result)};" for array, result in self.update.results.items())
        yield "    }"
        yield from (f"    state->{slot} = {self.coefficient(c)};" for slot, c in self.update.program.carried.items())
        yield "    state->step++;"

    def _outside(self, name: str, limit: Limit) -> str:
        inside = f"{name} >= {self.number(limit.low)} && {name} <= {self.number(limit.high)}"
        return f"!({name} == 0 || ({inside}))" if limit.zero else f"!({inside})"
