"""A wrong number as a program to paste, which fails by itself, and a broken law in words."""

from typing import Any

from xopt.backends._torch import INTERPRETED
from xopt.rules import RULES


def script(cell: dict[str, Any], which: str = "wrong") -> str:
    """A program that shows a cell's ``"wrong"`` number again and fails, or its ``"worst"``, where error/bound is largest."""
    found = cell[which]
    rule, dtype = cell["rule"], repr(cell["dtype"])
    step = f"xopt.{rule}_step"
    asked = ", compiler=backend.asked_compiler" if cell["device"] == INTERPRETED else ""
    step = {"traced": f"backend.trace({step})", "fused": f"backends.fuse({step}{asked})"}.get(cell["mode"], step)
    leaves = {found["leaf"]: found, **found.get("beside", {})}
    several = len(leaves) > 1
    if several:  # as they were in one tree
        params = dict_text({leaf: f"backend.asarray([{x['params']!r}], {dtype})" for leaf, x in leaves.items()})
        grads = [dict(zip(leaves, g, strict=True)) for g in zip(*(x["grads"] for x in leaves.values()), strict=True)]
        grad = f"{{name: backend.asarray([x], {dtype}) for name, x in grad.items()}}"
    else:
        params, grads, grad = (
            f"backend.asarray([{found['params']!r}], {dtype})",
            found["grads"],
            f"backend.asarray([grad], {dtype})",
        )
    hyper, carried = _trees(rule, leaves) if several else (found["hyper"], found.get("carried", {}))
    begun = {"step": found["taken"] or None, **carried}
    changes = ", ".join(f"{name}={value!r}" for name, value in begun.items() if value is not None)
    lines = [
        *(f"# {line}" for line in _said(found)),
        "import xopt",
        "from xopt import backends",
        "",
        f"backend = backends.get({cell['backend']!r}, {cell['device']!r})",
        f"step = {step}",
        f"hyper = {dict_text({name: repr(value) for name, value in hyper.items()})}",
        f"params = {params}",
        f"grads = {list_text(grads)}",
        "with backend.session():",
        f"    state = xopt.{rule}.bind(**hyper).init(params){f'._replace({changes})' if changes else ''}",
        "    for grad in grads:",
        f"        state = step(state, {grad}, **hyper)",
        *_judged(found, rule, several, which == "wrong"),
    ]
    return "\n".join(lines) + "\n"


def _said(found: dict[str, Any]) -> list[str]:
    """What is wrong, in comments."""
    alone = ["alone, without the other elements of its array, this one is right"] if found.get("alone") == "right" else []
    again = [f"not reproducible: {found['again']}"] if found["again"] else []
    return [found["message"] or f"{where(found)}: {amount(found)}", *alone, *again]


def where(found: dict[str, Any]) -> str:
    """The place of a number."""
    part = "" if found.get("part") is None else f"[{found['part']}]"
    return f"{found['column']}{part} after step {found['step']}, leaf {found['leaf']}{found['element']}"


def amount(found: dict[str, Any]) -> str:
    """By how much it is wrong, or the worst of what is right."""
    numbers = ""
    if "expected" in found:
        numbers = f"expected {_number(found['expected'])}, found {_number(found['found'])}: "
    error = "infinity or NaN" if found["error"] is None else f"{found['error']:.3g}"
    return f"{numbers}off by {error} where {found['bound']:.3g} is allowed"


def _number(x: float | None) -> str:
    return "infinity or NaN" if x is None else repr(x)


def _judged(found: dict[str, Any], rule: str, several: bool, wrong: bool) -> list[str]:
    """The lines that say what came, and fail where it is wrong."""
    if not wrong or found["mode"] == "raised" or "expected" not in found:
        return ["        print(state)"]
    part = "" if found.get("part") is None else f"[{found['part']}]"
    leaf = f"[{found['leaf']!r}]" if several else ""
    number = f"state.{found['column']}{leaf}{part}"
    if found["column"] not in RULES[rule].carried:
        number = f"backend.to_numpy({number})[0]"
    lines = [f"found = float({number})"]
    if found["expected"] is None:
        return ["import math", *lines, 'assert not math.isfinite(found), f"expected infinity or NaN, found {found!r}"']
    return [
        *lines,
        f"expected, bound = {found['expected']!r}, {found['bound']!r}",
        'assert abs(found - expected) <= bound, f"expected {expected!r} within {bound:.3g}, found {found!r}"',
    ]


def _trees(rule: str, leaves: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hyperparameters and carried numbers of several leaves, as trees."""
    given, known = RULES[rule].defaults, RULES[rule]
    names = dict.fromkeys(name for x in leaves.values() for name in x["hyper"])
    trees = {name: {leaf: x["hyper"].get(name, given[name]) for leaf, x in leaves.items()} for name in names}
    hyper = {name: next(iter(tree.values())) if known.ranges[name].sequence else tree for name, tree in trees.items()}
    slots = dict.fromkeys(slot for x in leaves.values() for slot in x["carried"])
    return hyper, {slot: {leaf: x["carried"].get(slot, known.carried[slot]) for leaf, x in leaves.items()} for slot in slots}


SHORT = 60
"""Columns that one line of a program may have before it is taken apart."""


def dict_text(items: dict[str, str]) -> str:
    line = "{" + ", ".join(f"{name!r}: {text}" for name, text in items.items()) + "}"
    if len(line) <= SHORT:
        return line
    return "\n".join(["{", *(f"    {name!r}: {text}," for name, text in items.items()), "}"])


def list_text(items: list[Any]) -> str:
    line = repr(items)
    return line if len(line) <= SHORT else "\n".join(["[", *(f"    {item!r}," for item in items), "]"])


def law_words(broken: dict[str, Any]) -> str:
    """Where a law is broken and by how much, in a line."""
    if "raised" in broken:
        return str(broken["raised"])
    said = broken.get("what") or broken.get("reason") or ""
    if "distance" in broken:
        one, other, distance = (_number(broken[name]) for name in ("one", "other", "distance"))
        bound = "nothing" if broken["bound"] is None else f"{broken['bound']:.3g}"
        column = f"{broken['column']}" if "column" in broken else "number"
        apart = f"{column}{broken['at']} is {one} on one side and {other} on the other, {distance} apart where {bound} is allowed"
        many = f"; so are {broken['beyond'] - 1:,} more of {broken['of']:,}" if broken.get("beyond", 1) > 1 else ""
        said = f"{said}: {apart}{many}" if said else f"{apart}{many}"
    return said or "; ".join(f"{name}: {value}" for name, value in broken.items())


def law_details(broken: dict[str, Any]) -> dict[str, Any]:
    """What ``law_words`` leaves unsaid."""
    if not {"raised", "what", "reason", "distance"} & broken.keys():
        return {}
    said = {"raised", "what", "reason", "one", "other", "distance", "bound", "at", "column", "beyond", "of"}
    return {name: value for name, value in broken.items() if name not in said}
