"""MkDocs hook: writes what the code says of itself into the pages, so that no page can say anything else.

``<!-- rule: lion -->`` becomes the rule's own documentation, ``<!-- source: path -->`` a file of the project. ``<!-- rules -->``,
``<!-- laws -->``, ``<!-- laws left out -->``, ``<!-- conventions -->``, ``<!-- catalogue -->`` and ``<!-- ledger -->`` become
tables.
"""

import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from xopt import RULES, Rule
from xopt.conformance import ledger
from xopt.conformance.conventions import CONVENTIONS, Convention
from xopt.conformance.faults import FAULTS, STRUCTURAL
from xopt.conformance.laws import LAWS, LEFT_OUT

_ROOT = Path(__file__).parents[1]
_QUOTED = re.compile(r"^(````.*?^````$)", re.MULTILINE | re.DOTALL)  # a page in a page
_NAMES = re.compile(r"^<!-- rule: (\w+) -->$", re.MULTILINE)
_TABLE = re.compile(r"^<!-- ([a-z ]+) -->$", re.MULTILINE)
_SOURCE = re.compile(r"^<!-- source: (\S+) -->$", re.MULTILINE)
_NOTES = re.compile(r"^```python (?:no-run|needs).*$", re.MULTILINE)
_UNDER = re.compile(r"(?<=\S) {5,}(?=\S)")  # what stands far to the right of a formula goes under it
_FIELD = re.compile(r"^    (\w+): \w+(?:\[.*\])?  # (.+)$", re.MULTILINE)
_REFERENCE = re.compile(r'(?P<authors>.+?), "(?P<title>.+?)",? (?P<rest>.+)')


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return "".join(part if part.startswith("````") else _expanded(part) for part in _QUOTED.split(markdown))


def _expanded(markdown: str) -> str:
    markdown = _SOURCE.sub(lambda found: _block("python", (_ROOT / found[1]).read_text()), markdown)
    markdown = _NOTES.sub("```python", markdown)  # notes to the test that runs the blocks
    markdown = _TABLE.sub(lambda found: _TABLES[found[1]](), markdown)
    return _NAMES.sub(lambda found: rule_page(RULES[found[1]]), markdown)


def rules_table(folder: str = "rules/") -> str:
    """All rules: what each is, where it was published, what it keeps."""
    rows = [
        f"| [`{rule.name}`]({folder}{rule.name}.md) | {_escape(summary(rule))} | {_published(rule)} | {_arrays(rule)} |"
        for rule in RULES.values()
    ]
    return "\n".join(["| rule | what it is | published | arrays kept for each parameter |", "|---|---|---|---|", *rows])


def _rows(head: str, rows: Iterable[Sequence[str]]) -> str:
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|---" * columns + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def _whose(rules: Sequence[str]) -> str:
    return "all" if set(rules) == set(RULES) else ", ".join(f"`{rule}`" for rule in rules)


def laws_table() -> str:
    """All laws, with their numbers."""
    kinds = {"bits": "bits", "bound": "bound", "fails": "must fail"}
    return _rows(
        "no. | law | holds to | what it says | rules | from",
        (
            (
                ", ".join(map(str, law.item)) or "-",
                _escape(law.name),
                kinds[law.kind],
                _escape(law.sentence),
                _whose(law.rules),
                _escape(law.source),
            )
            for law in LAWS
        ),
    )


def laws_left_out() -> str:
    return _rows("no. | why", ((str(number), _escape(why)) for number, why in LEFT_OUT.items()))


def catalogue() -> str:
    """All planted faults."""
    faults = [
        (f.kind, _escape(f.name), _escape(f"{f.sentence} {f.equivalent}".strip()), f.status, *_sources(f.documented, f.seen))
        for f in FAULTS
    ]
    structural = [("structure", _escape(f.name), _escape(f.sentence), "possible", "-", "-") for f in STRUCTURAL]
    return _rows("where | fault | what is computed instead | status | documented by | a bug in", [*faults, *structural])


def conventions_table() -> str:
    """All conventions, by rule and axis."""
    axes = list(dict.fromkeys(row.axis for row in CONVENTIONS))
    rows = sorted(CONVENTIONS, key=lambda row: axes.index(row.axis))
    return "\n\n".join(
        f"## {name}\n\n" + _rows("axis | choice | what is computed instead | status | documented by | a bug in", table)
        for name in RULES
        if (table := [_convention(row) for row in rows if row.rule == name])
    )


def _convention(row: Convention) -> tuple[str, ...]:
    said = f"{row.sentence} In exact arithmetic the same: {row.same[0].lower()}{row.same[1:]}" if row.same else row.sentence
    return _escape(row.axis), _escape(row.choice), _escape(said), row.status, *_sources(row.documented, row.seen)


def _sources(documented: str, seen: str) -> tuple[str, str]:
    return _escape(documented) or "-", _escape(seen) or "-"


def ledger_table() -> str:
    """All accepted deviations."""
    return _rows(
        "backend | rules | modes and dtypes | checks | why | until",
        (
            (
                f"{row.backend} {row.device}",
                _whose(row.rules),
                f"{', '.join(row.modes)}; {', '.join(row.dtypes)}",
                ", ".join(row.checks) + (f"; only {row.only}" if row.only else ""),
                f"{_escape(row.reason)} [Source]({row.link})",
                row.expires.isoformat(),
            )
            for row in ledger.read()
        ),
    )


_TABLES = {
    "rules": rules_table,
    "laws": laws_table,
    "laws left out": laws_left_out,
    "conventions": conventions_table,
    "catalogue": catalogue,
    "ledger": ledger_table,
}


def rule_page(rule: Rule[Any, Any]) -> str:
    """The documentation of one rule, from its docstring, its ranges and defaults, its state and its source."""
    paragraphs = rule.doc.split("\n\n")
    formula = "\n\n".join(p for p in paragraphs if p.startswith("    "))
    said = dict(p.split(": ", 1) for p in paragraphs[2:] if not p.startswith("    "))
    return "\n\n".join(
        [
            f"**{_escape(summary(rule))}**",
            _escape(paragraphs[1]),
            "## The update",
            _block("text", _UNDER.sub("\n    ", inspect.cleandoc(formula))),
            "## Where the conventions lie",
            _sentence(_escape(said["Where the conventions lie"])),
            "## Hyperparameters",
            _calls(rule),
            _hyperparameters(rule),
            "## State",
            f"`{rule.state.__name__}`. " + _sentence(_escape(said["State"])),
            _state(rule),
            "## The code",
            f"All of `xopt/rules/{rule.name}.py` below its docstring and imports:",
            _block("python", _code(rule)),
        ]
    )


def _calls(rule: Rule[Any, Any]) -> str:
    return (
        f"`xopt.{rule.name}_init(params)` makes the state, `xopt.{rule.name}_step(state, grad)` the next one. Both take these, "
        "by keyword; each is a number, a 0-d array, or a tree that is a prefix of `params`:"
    )


def summary(rule: Rule[Any, Any]) -> str:
    """The first line of its file."""
    return rule.doc.splitlines()[0].removesuffix(".")


def state_fields(rule: Rule[Any, Any]) -> list[tuple[str, str]]:
    """Each field of its state and what the comment beside it says."""
    found = _FIELD.findall(inspect.getsource(rule.state))
    if tuple(name for name, _ in found) != rule.state._fields:
        msg = f"{rule.state.__name__}: each field needs one comment on its line"
        raise ValueError(msg)
    return found


def _hyperparameters(rule: Rule[Any, Any]) -> str:
    rows = []
    for name, default in rule.defaults.items():
        interval = rule.ranges[name]
        allowed = f"`{interval.text}`"
        allowed = f"a sequence, each in {allowed}" if interval.sequence else allowed
        allowed = f"{allowed}, or `None`: off" if interval.optional else allowed
        rows.append(f"| `{name}` | {allowed} | `{default!r}` |")
    return "\n".join(["| hyperparameter | range | default |", "|---|---|---|", *rows])


def _state(rule: Rule[Any, Any]) -> str:
    rows = [f"| `{name}` | {_escape(comment)} |" for name, comment in state_fields(rule)]
    return "\n".join(["| field | meaning |", "|---|---|", *rows])


def _code(rule: Rule[Any, Any]) -> str:
    source = inspect.getsource(sys.modules[rule.elementwise.__module__])
    return source[source.index(f"class {rule.state.__name__}") :]


def _published(rule: Rule[Any, Any]) -> str:
    reference = " ".join(rule.doc.split("\n\n")[1].split()).split(";")[0]
    found = _REFERENCE.match(reference)
    if found is None:
        msg = f'{rule.name}: the second paragraph of the docstring must be: authors, "title", where and when, arXiv'
        raise ValueError(msg)
    year = re.search(r"\b(?:19|20)\d\d\b", found["rest"])
    arxiv = re.search(r"arXiv:([\d.]*\d)", found["rest"])
    text = f"{found['authors']}, {year[0]}" if year else found["authors"]
    return f"{text}, [arXiv:{arxiv[1]}](https://arxiv.org/abs/{arxiv[1]})" if arxiv else text


def _arrays(rule: Rule[Any, Any]) -> str:
    """How many arrays of the parameter's shape the state holds beside it."""
    kept = list(rule.memory.values())
    if any(rule.ranges[decay].sequence for decay in kept):
        return f"one for each of `{kept[0]}` that is not 0"
    return str(len(kept))


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _sentence(text: str) -> str:
    """With a capital, unless a symbol comes first."""
    word = text.split()[0]
    return text if len(word) == 1 or word == "theta" or not word.isalpha() else text[0].upper() + text[1:]


def _escape(prose: str) -> str:
    """Formulas in prose as they are written, code spans left alone."""
    parts = re.split(r"(``.+?``|`.+?`)", prose, flags=re.DOTALL)
    return "".join(part if part.startswith("`") else re.sub(r"([*_|\[\]])", r"\\\1", part.replace("<", "&lt;")) for part in parts)
