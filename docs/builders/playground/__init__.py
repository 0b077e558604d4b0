"""The interactive page: one file, in which the rules are the JavaScript that `xopt export` writes.

python docs/builders/playground playground.html
"""

import json
from pathlib import Path
from typing import Any

from xopt import RULES, Rule
from xopt.checks import Interval
from xopt.export import source
from xopt.export.javascript import JavaScript
from xopt.export.step import Step

_HERE = Path(__file__).parent
_SIGN = JavaScript.runtime["sign"].partition("\n")[2]

WALKED_WITH = {"sgd": 0.001, "momentum": 0.0003, "nesterov": 0.0003, "qhm": 0.003, "aggmo": 0.0005, "lion": 0.01}
"""The learning rates at which the page begins: good ones for its valley. Of the others, which divide, it is 0.03."""
BEGINS_WITH: dict[str, dict[str, Any]] = {"ademamix": {"lr": 0.02, "beta3": 0.999, "alpha": 5.0}}
"""What else differs from the defaults, as the walk is short."""


def page() -> str:
    """The page as HTML, without anything that is elsewhere."""
    text = (_HERE / "page.html").read_text(encoding="utf-8")
    parts = {
        "@STYLE@": _read("style.css"),
        "@CORE@": f"{_read('core.js')}\nconst RULES = {{\n{''.join(map(_rule, RULES.values()))}}};",
        "@VIEW@": _read("view.js"),
    }
    for mark, part in parts.items():
        text = text.replace(mark, part.replace("</script", "<\\/script"))
    return text


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8").rstrip()


def _rule(rule: Rule[Any, Any]) -> str:
    """An entry of RULES: the exported function, and what the page must know to call it."""
    whole = {name: tuple(x or 0.5 for x in value) for name, value in rule.defaults.items() if isinstance(value, tuple)}
    form = Step(rule, "float64", whole)  # in which all slots are there, whatever the sliders say
    slots = {name: len(x) if isinstance(x, tuple) else None for name, x in zip(rule.slots, form.slots, strict=True)}
    title, _, says = rule.doc.split("\n")[0].rstrip(".").partition(": ")
    says = says or title
    about = {
        "title": rule.state.__name__.removesuffix("State"),
        "says": f"{says[0].upper()}{says[1:]}.",
        "slots": {name: count for name, count in slots.items() if name not in rule.carried},
        "carried": rule.carried,
        "hyper": sorted((_hyper(rule, name) for name in rule.defaults), key=lambda one: one["kind"] == "guard"),
    }
    text = source(rule, "javascript", **whole).replace("export function", "function")
    steps = {"step": text}
    if _SIGN in text:  # for what the sign is of: the same step with what a sign is taken of in its place
        steps["unsigned"] = text.replace(_SIGN, "function sign(x) {\n    return x;\n}")
    functions = "".join(f", {key}: (() => {{\n{body}return {rule.name}_step;\n}})()" for key, body in steps.items())
    return f"{rule.name}: {{ ...{json.dumps(about)}{functions} }},\n"


def _hyper(rule: Rule[Any, Any], name: str) -> dict[str, Any]:
    begins = {"lr": WALKED_WITH.get(rule.name, 0.03)} | BEGINS_WITH.get(rule.name, {})
    value = begins.get(name, rule.defaults[name])
    return {
        "name": name,
        "kind": _kind(name, rule.ranges[name], rule.defaults[name]),
        "value": value,
        "meaning": rule.meanings[name],
    }


def _kind(name: str, interval: Interval, default: Any) -> str:
    """How a slider shows a hyperparameter: from its range, so that a new rule needs nothing here."""
    if interval.optional:
        return "steps"
    if interval.divisor:
        return "guard"
    if interval.high == 1:
        return "decay" if interval.text.endswith(")") else "unit"
    if interval.low < 0:
        return "real"
    return "log" if name == "lr" else "gain" if default >= 1 else "unit"
