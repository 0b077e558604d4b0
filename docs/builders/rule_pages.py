"""The page of a rule: what its file, its ranges, its memory and the papers' table say, with the formulas typeset."""

import inspect
import re
import sys
from typing import Any

import numpy as np
import optree
from builders import formulas
from builders.tables import CHOICE, conventions_of, escape, summary, table, who, with_links

from xopt import Rule
from xopt.conformance.papers.check import papers
from xopt.operations import is_array

_FIELD = re.compile(r"^    (\w+): \w+(?:\[.*\])?  # (.+)$", re.MULTILINE)


def opening(rule: Rule[Any, Any]) -> str:
    """What stands where a page has its marker."""
    _, reference, *paragraphs = rule.doc.split("\n\n")
    update = "\n\n".join(p for p in paragraphs if p.startswith("    "))
    said = dict(p.split(": ", 1) for p in paragraphs if not p.startswith("    "))
    return "\n\n".join(
        [
            f"**{escape(summary(rule))}**",
            with_links(escape(reference)),
            "## The update",
            formulas.block(update),
            "## Hyperparameters",
            _calls(rule),
            _hyperparameters(rule),
            _of_the_paper(rule),
            "## State and memory",
            f"`{rule.state.__name__}`. " + _sentence(formulas.prose(said["State"])),
            _state(rule),
            _memory(rule),
            "## Where the conventions lie",
            _sentence(formulas.prose(said["Where the conventions lie"])),
        ]
    )


def closing(rule: Rule[Any, Any]) -> str:
    """What stands at the end of its page: choices that others make, and the code."""
    rows = [
        (f"{escape(row.axis)}: {escape(row.choice)}", formulas.prose(row.sentence), *who(row))
        for row in conventions_of(rule.name)
        if row.status != "possible"
    ]
    seen = (
        "What was seen elsewhere under this name. Each row is an edit of the rule and of its reference, which a test plants and "
        f"must find; [all of them](../conventions.md#{rule.name})."
    )
    choices = ["## Choices of other programs", seen, table(f"choice | {CHOICE}", rows)]
    code = ["## The code", f"All of `xopt/rules/{rule.name}.py` below its docstring and imports:", f"```python\n{_code(rule)}\n```"]
    return "\n\n".join([*(choices if rows else []), *code])


def _calls(rule: Rule[Any, Any]) -> str:
    init = inspect.signature(rule.init)
    return (
        f"`xopt.{rule.name}_init{init}` makes the state, `xopt.{rule.name}_step(state, grad, *, ...)` the next one, and "
        f"[`xopt.{rule.name}.bind(...)`](../api/xopt.md) has an `init` and a `step` with hyperparameters of their own. A step "
        "takes these, by keyword; each is a number, a 0-d array, or a tree that is a prefix of `params`:"
    )


def state_fields(rule: Rule[Any, Any]) -> list[tuple[str, str]]:
    """Each field of its state and what the comment beside it says."""
    found = _FIELD.findall(inspect.getsource(rule.state))
    if tuple(name for name, _ in found) != rule.state._fields:
        msg = f"{rule.state.__name__}: each field needs one comment on its line"
        raise ValueError(msg)
    return found


def _hyperparameters(rule: Rule[Any, Any]) -> str:
    return table(
        "hyperparameter | meaning | range | default",
        (
            (f"`{name}`{_symbol(name)}", formulas.prose(rule.meanings[name]), allowed(rule, name), f"`{default!r}`")
            for name, default in rule.defaults.items()
        ),
    )


def allowed(rule: Rule[Any, Any], name: str) -> str:
    """The range of a hyperparameter."""
    interval = rule.ranges[name]
    text = f"a sequence, each in `{interval.text}`" if interval.sequence else f"`{interval.text}`"
    return f"{text}, or `None`: off" if interval.optional else text


def _symbol(name: str) -> str:
    try:
        return f", <span class='formula'><math>{formulas.symbol(name)}</math></span>"
    except formulas.NoFormula:
        return ""


def _of_the_paper(rule: Rule[Any, Any]) -> str:
    """The defaults that its source gives, and why xopt has others where it has."""
    said = next((entry for entry in papers()["default"] if rule.name in entry["rules"]), None)
    if said is None:
        msg = f"{rule.name}: conformance/papers/papers.toml must say what the paper's defaults are"
        raise ValueError(msg)
    given = [f"`{name}` {_shown(row['value'])}" for name, row in said["names"].items() if "value" in row]
    other = [
        f"`{name}` is {_shown(row['ours'])} here: {formulas.prose(row['reason'])}"
        for name, row in said["names"].items()
        if "ours" in row
    ]
    source = with_links(formulas.prose(said["source"]))
    told = f"Defaults of the source ({source}): {', '.join(given)}." if given else f"The source ({source}) names no defaults."
    return " ".join([told, *(f"{sentence}." for sentence in other)])


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _state(rule: Rule[Any, Any]) -> str:
    return table("field | meaning", ((f"`{name}`", formulas.prose(comment)) for name, comment in state_fields(rule)))


def _memory(rule: Rule[Any, Any]) -> str:
    """Bytes for each parameter, counted on states that are made for it."""
    rows = []
    for dtype in (np.float16, np.float32, np.float64):
        params = np.zeros(1, dtype)
        slots = [x for x in optree.tree_leaves(rule.init(params)[1:-1]) if is_array(x)]
        name = "float16, bfloat16" if dtype is np.float16 else params.dtype.name
        rows.append((name, str(params.nbytes), str(sum(x.nbytes for x in slots))))
    return table("dtype of the parameters | bytes for each of them | bytes of its slots, at the defaults", rows)


def _code(rule: Rule[Any, Any]) -> str:
    source = inspect.getsource(sys.modules[rule.__module__])
    return source[source.index(f"class {rule.state.__name__}") :].rstrip()


def _sentence(text: str) -> str:
    """With a capital, unless a symbol comes first."""
    return text if text.startswith(("<", "`")) else text[0].upper() + text[1:]
