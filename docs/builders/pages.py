"""The markers of a page: each becomes what the code says, so that no page can say anything else.

``<!-- rule: lion -->`` becomes the rule's own documentation, ``<!-- others: lion -->`` what the survey of other
packages found of it, ``<!-- source: path -->`` a file of the project, ``<!-- api: module -->`` the reference of a public module.
``<!-- rules -->``, ``<!-- scale -->``, ``<!-- laws -->``,
``<!-- laws left out -->``, ``<!-- conventions -->``, ``<!-- catalogue -->``, ``<!-- checks -->``, ``<!-- ledger -->`` and
``<!-- reproductions -->`` become tables, ``<!-- agreement -->`` the picture of the front page, ``<!-- schedules -->`` losses,
``<!-- reproduction: rosenbrock -->`` what an experiment found, ``<!-- arithmetic -->`` what operations gave on all operands,
``<!-- implementations -->`` and ``<!-- findings -->`` what the survey of other packages found. ``<!-- long memory: name -->``
becomes a figure or a table of the page on long-term gradients, with `` ja`` in Japanese.
"""

import re
from pathlib import Path

from builders import agreement, api, formulas, implementations, long_memory, reproductions, rule_pages, schedules, tables

from xopt import RULES
from xopt.conformance.exhaustive.store import RESULTS, Store
from xopt.conformance.exhaustive.table import tables as tables_of_accuracy

_ROOT = Path(__file__).parents[2]
_QUOTED = re.compile(r"^(````.*?^````$)", re.MULTILINE | re.DOTALL)  # a page in a page
_RULE = re.compile(r"^<!-- rule: (\w+) -->$", re.MULTILINE)
_API = re.compile(r"^<!-- api: ([\w.]+) -->$", re.MULTILINE)
_TABLE = re.compile(r"^<!-- ([a-z ]+) -->$", re.MULTILINE)
_LONG_MEMORY = re.compile(r"^<!-- long memory: (\w+)(?: (ja))? -->$", re.MULTILINE)
_REPRODUCTION = re.compile(r"^<!-- reproduction: ([\w-]+) -->$", re.MULTILINE)
_OTHERS = re.compile(r"^<!-- others: (\w+) -->$", re.MULTILINE)
_SOURCE = re.compile(r"^<!-- source: (\S+) -->$", re.MULTILINE)
_NOTE = re.compile(r"^```python (no-run|needs [^:\n]+): (.*)$", re.MULTILINE)
_TABLES = {
    "rules": tables.rules_table,
    "scale": tables.scale_table,
    "laws": tables.laws_table,
    "laws left out": tables.laws_left_out,
    "conventions": tables.conventions_table,
    "catalogue": tables.catalogue,
    "checks": tables.checks_table,
    "ledger": tables.ledger_table,
    "agreement": agreement.picture,
    "schedules": schedules.figure,
    "reproductions": reproductions.summary,
    "implementations": implementations.tables_of_packages,
    "findings": implementations.findings_told,
    "arithmetic": lambda: tables_of_accuracy(Store.read(RESULTS)),
}


def expanded(markdown: str) -> str:
    """A page with its markers replaced, but those of a page in the page."""
    return "".join(part if part.startswith("````") else _expanded(part) for part in _QUOTED.split(markdown))


def _expanded(markdown: str) -> str:
    markdown = _SOURCE.sub(lambda found: f"```python\n{(_ROOT / found[1]).read_text().rstrip()}\n```", markdown)
    markdown = _NOTE.sub(_title, markdown)
    markdown = _TABLE.sub(lambda found: _TABLES[found[1]](), markdown)
    if _LONG_MEMORY.search(markdown):
        made = _LONG_MEMORY.sub(lambda found: long_memory.made(found[1], found[2] or "en"), markdown)
        markdown = formulas.code_spans(made)
    markdown = _REPRODUCTION.sub(lambda found: reproductions.section(found[1]), markdown)
    markdown = _API.sub(lambda found: api.module_page(found[1]), markdown)
    return _rule(markdown, found[1]) if (found := _RULE.search(markdown)) else markdown


def _title(note: re.Match[str]) -> str:
    """What a note to the test that runs the blocks says to a reader."""
    what = "Not run by the tests" if note[1] == "no-run" else note[1].capitalize()
    return f'```python title="{what}: {note[2]}"'


def _rule(markdown: str, name: str) -> str:
    """The page of a rule: what its code says stands before and after what was written by hand."""
    rule = RULES[name]
    by_hand = formulas.code_spans(_RULE.sub("<!-- rule -->", markdown)).rstrip()
    whole = _OTHERS.sub(lambda found: implementations.of_rule(found[1]), by_hand.replace("<!-- rule -->", rule_pages.opening(rule)))
    return f"{whole}\n\n{rule_pages.closing(rule)}\n"
