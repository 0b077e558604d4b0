"""Formulas: the plain text in which rules write them, as MathML, which a browser typesets without script or network.

``m^`` is a hat, ``g^2`` a power; ``beta1`` and ``mu_(t+1)`` have an index; ``lr``, ``eps`` and ``weight_decay`` are letters.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

HYPERPARAMETERS = {
    "lr": "η",
    "weight_decay": "λ",
    "eps": "ε",
    "eps_root": "ε_0",
    "alpha": "α",
    "beta": "β",
    "betas": "β_i",
    "nu": "ν",
    "psi": "ψ",
    "alpha_warmup": "T_α",
    "beta3_warmup": "T_β3",
}
"""What the papers write for hyperparameters whose name is no letter with a number."""
_GREEK = {"theta": "θ", "alpha": "α", "beta": "β", "nu": "ν", "mu": "μ", "psi": "ψ"}
_LETTERS = _GREEK | {letter: letter for letter in "cgiKkmtTuvz"}
_RELATIONS = {"<-": "←", "=": "=", "<": "&lt;"}
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>\d+(?:\.\d+)?(?:e-?\d+)?(?![\w]))"
    r"|(?P<name>[A-Za-z]+\d*(?:_[A-Za-z0-9]+)?'?)"
    r"|(?P<index>_(?=\())"
    r"|(?P<hat>\^(?![\w(]))"
    r"|(?P<sign>\.\.\.|<-|[-+*/^()=<,])"
    r"|(?P<other>.)",
    re.DOTALL,
)


CODE = re.compile(r"(``.+?``|`.+?`)", re.DOTALL)


class NoFormula(ValueError):  # noqa: N818 - it says what the text is, which may well be right
    """The text is not a formula, or has a name that no formula here has."""


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


class _Node(NamedTuple):
    """A piece of a formula, with and without the parentheses round it."""

    xml: str
    bare: str


def symbol(name: str) -> str:
    """The MathML of one name. Raises NoFormula for an unknown one."""
    if name.endswith("'"):
        return f"<msup>{symbol(name[:-1])}<mo>′</mo></msup>"
    letter, _, index = HYPERPARAMETERS.get(name, name).partition("_")
    if not index and (numbered := re.fullmatch(r"([A-Za-z]+|\w)(\d+)", letter)):
        letter, index = numbered[1], numbered[2]
    if letter not in _LETTERS and letter not in HYPERPARAMETERS.values():
        msg = f"{name!r} is no symbol of a formula"
        raise NoFormula(msg)
    base = f"<mi>{_LETTERS.get(letter, letter)}</mi>"
    if not index:
        return base
    below = re.fullmatch(r"(\D)(\d)", index)  # β3, below a T
    inner = f"<msub><mi>{below[1]}</mi><mn>{below[2]}</mn></msub>" if below else f"<m{_kind(index)}>{index}</m{_kind(index)}>"
    return f"<msub>{base}{inner}</msub>"


def _kind(text: str) -> str:
    return "n" if text.isdigit() else "i"


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        yield _Token(str(found.lastgroup), found[0], found.start(), found.end())


class _Parser:
    """Recursive descent: a relation of sums of products of powers."""

    def __init__(self, text: str, fractions: bool) -> None:
        self._tokens = [token for token in _tokens(text) if token.kind != "space"]
        self._at = 0
        self._fractions = fractions  # one over the other, not in a line

    def whole(self) -> str:
        node = self._relation()
        if self._at < len(self._tokens):
            msg = f"{self._tokens[self._at].text!r} is not expected in a formula"
            raise NoFormula(msg)
        return node.xml

    def _next(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else ""

    def _take(self, *texts: str) -> str:
        found = self._next()
        if found not in texts or not found:
            return ""
        self._at += 1
        return found

    def _relation(self) -> _Node:
        node = self._sum()
        while sign := self._take(*_RELATIONS):
            node = _plain(f"{node.xml}<mo>{_RELATIONS[sign]}</mo>{self._sum().xml}")
        return node

    def _sum(self) -> _Node:
        node = _plain(f"<mo>−</mo>{self._product().xml}") if self._take("-") else self._product()
        while sign := self._take("+", "-"):
            node = _plain(f"{node.xml}<mo>{'−' if sign == '-' else sign}</mo>{self._product().xml}")
        return node

    def _product(self) -> _Node:
        node = self._power()
        while True:
            if self._take("/"):
                if not self._fractions:
                    node = _plain(f"{node.xml}<mo lspace='0.1em' rspace='0.1em'>/</mo>{self._power().xml}")
                    continue
                node = _plain(f"<mfrac>{_row(node.bare)}{_row(self._power().bare)}</mfrac>")
            elif self._take("*") or self._factor_follows():
                node = _plain(f"{node.xml}<mspace width='0.17em'/>{self._power().xml}")
            else:
                return node

    def _factor_follows(self) -> bool:
        """Whether another factor comes without a sign: ``mu_1 ... mu_t``."""
        if self._at >= len(self._tokens):
            return False
        dots = "..." in (self._tokens[self._at].text, self._tokens[self._at - 1].text)
        return dots and (self._next() == "..." or self._tokens[self._at].kind in ("name", "number"))

    def _power(self) -> _Node:
        base = self._atom()
        if not self._take("^"):
            return base
        before, self._fractions = self._fractions, False
        power = _row(self._atom().bare)
        self._fractions = before
        if indexed := re.fullmatch(r"<msub>(.+)</msub>", base.xml):
            return _plain(f"<msubsup>{indexed[1]}{power}</msubsup>")
        return _plain(f"<msup>{_row(base.xml)}{power}</msup>")

    def _atom(self) -> _Node:
        if self._at >= len(self._tokens):
            msg = "the formula ends too early"
            raise NoFormula(msg)
        token = self._tokens[self._at]
        self._at += 1
        if token.kind == "number":
            return _plain(f"<mn>{token.text}</mn>")
        if token.text == "...":
            return _plain("<mo>⋯</mo>")
        if token.text == "(":
            inner = self._relation().xml
            self._close()
            return _Node(_between("(", inner, ")"), inner)
        if token.kind == "name":
            return self._named(token.text)
        msg = f"{token.text!r} is not expected in a formula"
        raise NoFormula(msg)

    def _named(self, name: str) -> _Node:
        if name == "ln":
            return _plain(f"<mi>ln</mi><mspace width='0.17em'/>{self._power().xml}")
        if name in ("sqrt", "sign", "abs", "max") and self._take("("):
            inside = self._arguments()
            if name == "sqrt":
                return _plain(f"<msqrt>{inside}</msqrt>")
            return _plain(_between("|", inside, "|") if name == "abs" else f"<mi>{name}</mi>{_between('(', inside, ')')}")
        node = symbol(name)
        if self._at < len(self._tokens) and self._tokens[self._at].kind == "index":
            self._at += 1
            node = f"<msub>{node}{_row(self._atom().bare)}</msub>"
        if self._at < len(self._tokens) and self._tokens[self._at].kind == "hat":
            self._at += 1
            node = _hatted(node)
        if [token.text for token in self._tokens[self._at : self._at + 3]] == ["(", "t", ")"]:  # a schedule: beta3(t)
            self._at += 3
            node += "<mo stretchy='false'>(</mo><mi>t</mi><mo stretchy='false'>)</mo>"
        return _plain(node)

    def _arguments(self) -> str:
        inside = self._relation().xml
        while self._take(","):
            inside += f"<mo>,</mo>{self._relation().xml}"
        self._close()
        return inside

    def _close(self) -> None:
        if not self._take(")"):
            msg = "a parenthesis is left open"
            raise NoFormula(msg)


def _plain(xml: str) -> _Node:
    return _Node(xml, xml)


def _row(xml: str) -> str:
    return f"<mrow>{xml}</mrow>"


def _between(left: str, xml: str, right: str) -> str:
    """In parentheses as high as a fraction in them, or else as high as a letter."""
    kind = f"fence='true' stretchy='{'true' if '<mfrac>' in xml else 'false'}'"
    return f"<mrow><mo {kind}>{left}</mo>{xml}<mo {kind}>{right}</mo></mrow>".replace("|", "&#124;")


def _hatted(xml: str) -> str:
    """The hat over the letter, not over its index."""
    if indexed := re.fullmatch(r"<msub>(<mi>.+?</mi>)(.+)</msub>", xml):
        return f"<msub>{_hatted(indexed[1])}{indexed[2]}</msub>"
    return f"<mover accent='true'>{xml}<mo stretchy='false'>^</mo></mover>"


def mathml(text: str, *, fractions: bool = True) -> str:
    """One formula, with its divisions as fractions or in a line. Raises NoFormula for anything else."""
    return f"<math>{_Parser(text, fractions).whole()}</math>"


def inline(text: str) -> str:
    """One formula in a line of Markdown, which would take a bare ``<math>`` at the start of a line for a block."""
    return f"<span class='formula'>{mathml(text, fractions=False)}</span>"


def escaped(text: str) -> str:
    """Plain text, for Markdown."""
    return re.sub(r"([*_|\[\]])", r"\\\1", text.replace("<", "&lt;"))


def prose(text: str) -> str:
    """Markdown of prose with the formulas in it typeset; the name of a hyperparameter that stands alone is code, as code is."""
    return "".join(part if part.startswith("`") else _prose(part) for part in CODE.split(text))


def _prose(text: str) -> str:
    found, run = [], list[_Token]()
    for token in [*_tokens(text), _Token("other", "", len(text), len(text))]:
        if token.kind == "other" or token.text == "," or (token.kind == "name" and not _known(token.text)):
            found += [_typeset(run, text), escaped(token.text)]
            run = []
        else:
            run.append(token)
    return "".join(found)


def code_spans(markdown: str) -> str:
    """A page with those of its code spans typeset that are formulas. Names of hyperparameters and blocks of code stay code."""
    parts = re.split(r"(^(````?).*?^\2$)", markdown, flags=re.MULTILINE | re.DOTALL)
    prose, blocks = parts[::3], parts[1::3]
    return "".join(part for pair in zip(map(_spans, prose), [*blocks, ""], strict=True) for part in pair)


def _spans(markdown: str) -> str:
    def typeset(found: re.Match[str]) -> str:
        try:
            return found[0] if _is_hyperparameter(found[1]) or found[1].isdigit() else inline(found[1])
        except NoFormula:
            return found[0]

    return re.sub(r"(?<![`\w])`([^`\n]+)`(?!`)", typeset, markdown)


def _is_hyperparameter(name: str) -> bool:
    return name in HYPERPARAMETERS or bool(re.fullmatch(r"(?:beta|nu)\d", name))


def _known(name: str) -> bool:
    if name in ("sqrt", "sign", "ln", "max", "abs"):
        return True
    try:
        symbol(name)
    except NoFormula:
        return False
    return True


def _typeset(run: list[_Token], text: str) -> str:
    """The longest formula in a run of tokens, between what is left of it."""
    if not any(token.kind == "name" for token in run):
        return escaped("".join(token.text for token in run))
    for length in range(len(run), 0, -1):
        for start in range(len(run) - length + 1):
            piece = run[start : start + length]
            if "space" in (piece[0].kind, piece[-1].kind) or not any(token.kind == "name" for token in piece):
                continue
            written = text[piece[0].start : piece[-1].end]
            if length == 1 and _is_hyperparameter(written):
                made = f"`{written}`"
            else:
                try:
                    made = inline(written)
                except NoFormula:
                    continue
            return _typeset(run[:start], text) + made + _typeset(run[start + length :], text)
    return escaped("".join(token.text for token in run))


_SIDE = re.compile(r"(?<=[^\s,]) {2,}(?=\S)")  # what stands far to the right of a formula explains it


def block(text: str) -> str:
    """The lines of an update, and under them what their symbols mean."""
    formulas, sides = [], []
    for line in text.splitlines():
        first, *rest = _SIDE.split(line.strip()) if line.strip() else [""]
        if first:
            formulas.append(_line(first))
        sides += [clause for side in rest for clause in re.split(r",\s+", side)]
    meanings = [_line(side) for side in dict.fromkeys(sides)]
    lines = [f"<div>{line}</div>" for line in formulas] + [f"<div class='where'>{line}</div>" for line in meanings]
    return f"<div class='formulas'>{''.join(lines)}</div>"


def _line(line: str) -> str:
    """A formula, or clauses of which some are one."""
    return "<span>, </span>".join(_clause(clause) for clause in re.split(r", ", line))


def _clause(clause: str) -> str:
    stripped = clause.removesuffix(":")
    end = clause[len(stripped) :]
    try:
        return mathml(stripped) + end
    except NoFormula:
        return f"<span>{prose(stripped).replace('`', '')}{end}</span>"
