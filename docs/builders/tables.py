"""Tables of what the code says of itself: rules, laws, faults, conventions, what is accepted."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from builders.formulas import CODE, escaped

from xopt import RULES, Rule
from xopt.conformance import ledger
from xopt.conformance.conventions import CONVENTIONS, Convention
from xopt.conformance.faults import FAULTS, STRUCTURAL
from xopt.conformance.laws import LAWS, LEFT_OUT
from xopt.conformance.testing import names_of_checks

_REFERENCE = re.compile(r'(?P<authors>.+?), "(?P<title>.+?)",? (?P<rest>.+)')
CHOICE = "what is computed instead | status | documented by | a bug in"


def rules_table(folder: str = "rules/") -> str:
    """All rules: what each is, where it was published, what it keeps."""
    return table(
        "rule | what it is | published | arrays kept for each parameter",
        (
            (f"[`{rule.name}`]({folder}{rule.name}.md)", escape(summary(rule)), _published(rule), arrays(rule))
            for rule in RULES.values()
        ),
    )


def summary(rule: Rule[Any, Any]) -> str:
    """The first line of its file."""
    return rule.doc.splitlines()[0].removesuffix(".")


def _published(rule: Rule[Any, Any]) -> str:
    reference = " ".join(rule.doc.split("\n\n")[1].split()).split(";")[0]
    found = _REFERENCE.match(reference)
    if found is None:
        msg = f'{rule.name}: the second paragraph of the docstring must be: authors, "title", where and when, arXiv'
        raise ValueError(msg)
    year = re.search(r"\b(?:19|20)\d\d\b", found["rest"])
    arxiv = re.search(r"arXiv:([\d.]*\d)", found["rest"])
    text = f"{found['authors']}, {year[0]}" if year else found["authors"]
    return f"{text}, {with_links(arxiv[0])}" if arxiv else text


def with_links(text: str) -> str:
    """Numbers of arXiv as links."""
    return re.sub(r"arXiv:([\d.]*\d)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def arrays(rule: Rule[Any, Any]) -> str:
    """How many arrays of the parameter's shape the state holds beside it."""
    kept = list(rule.memory.values())
    if any(rule.ranges[decay].sequence for decay in kept):
        return f"one for each of `{kept[0]}` that is not 0"
    return str(len(kept))


def scale_table() -> str:
    """What params and state of each rule take, and what a step moves: bytes of a number, by the counts of the rule's program."""

    def costs(rule: Rule[Any, Any], params: int) -> list[str]:
        slots = len(rule.program.writes) - 1
        return [str(params + 4 * slots), str(rule.program.bytes_per_number(params, 4))]

    head = "rule | kept, float32 | moved, float32 | kept, bfloat16 | moved, bfloat16"
    return table(head, ((f"`{rule.name}`", *costs(rule, 4), *costs(rule, 2)) for rule in RULES.values()))


def laws_table() -> str:
    """All laws, with their numbers."""
    kinds = {"bits": "bits", "bound": "bound", "fails": "must fail"}
    return table(
        "no. | law | holds to | what it says | rules | from",
        (
            (
                ", ".join(map(str, law.item)) or "-",
                escape(law.name),
                kinds[law.kind],
                escape(law.sentence),
                _whose(law.rules),
                escape(law.source),
            )
            for law in LAWS
        ),
    )


def laws_left_out() -> str:
    return table("no. | why", ((str(number), escape(why)) for number, why in LEFT_OUT.items()))


def catalogue() -> str:
    """All planted faults."""
    faults = [
        (f.kind, escape(f.name), escape(f"{f.sentence} {f.equivalent}".strip()), f.status, *_sources(f.documented, f.seen))
        for f in FAULTS
    ]
    structural = [("structure", escape(f.name), escape(f.sentence), "possible", "-", "-") for f in STRUCTURAL]
    return table("where | fault | what is computed instead | status | documented by | a bug in", [*faults, *structural])


def conventions_table() -> str:
    """All conventions, by rule and axis."""
    return "\n\n".join(
        f"## {name}\n\n" + table(f"axis | choice | {CHOICE}", ((escape(row.axis), *_convention(row)) for row in rows))
        for name in RULES
        if (rows := conventions_of(name))
    )


def conventions_of(rule: str) -> list[Convention]:
    """Those of one rule, by axis."""
    axes = list(dict.fromkeys(row.axis for row in CONVENTIONS))
    return sorted((row for row in CONVENTIONS if row.rule == rule), key=lambda row: axes.index(row.axis))


def _convention(row: Convention) -> tuple[str, ...]:
    said = f"{row.sentence} In exact arithmetic the same: {row.same[0].lower()}{row.same[1:]}" if row.same else row.sentence
    return escape(row.choice), escape(said), *who(row)


def who(row: Convention) -> tuple[str, str, str]:
    """Its status, who documents it, and where it was seen as a bug."""
    return row.status, *_sources(row.documented, row.seen)


def _sources(documented: str, seen: str) -> tuple[str, str]:
    return escape(documented) or "-", escape(seen) or "-"


def checks_table() -> str:
    """What is asked of an optimizer of somebody's tests."""
    return "\n".join(f"- `{name}`" for name in names_of_checks())


def ledger_table() -> str:
    """All accepted deviations."""
    return table(
        "backend | rules | modes and dtypes | checks | why | until",
        (
            (
                f"{row.backend} {row.device}",
                _whose(row.rules),
                f"{', '.join(row.modes)}; {', '.join(row.dtypes)}",
                ", ".join(row.checks) + (f"; only {row.only}" if row.only else ""),
                f"{escape(row.reason)} [Source]({row.link})",
                row.expires.isoformat(),
            )
            for row in ledger.read()
        ),
    )


def _whose(rules: Sequence[str]) -> str:
    return "all" if set(rules) == set(RULES) else ", ".join(f"`{rule}`" for rule in rules)


def table(head: str, rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    """A table in Markdown; ``head`` is its first line. ``numbers``: those of all columns but the first stand to the right."""
    rest = ("|---:" if numbers else "|---") * head.count("|")
    return "\n".join([f"| {head} |", f"|---{rest}|", *(f"| {' | '.join(row)} |" for row in rows)])


def escape(prose: str) -> str:
    """Formulas in prose as they are written, code spans left alone."""
    return "".join(part if part.startswith("`") else escaped(part) for part in CODE.split(prose))
