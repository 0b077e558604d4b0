"""A wrong number once more, alone: what it is, what it should have been, and what was raised."""

import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xopt import backends
from xopt.conformance.arithmetic.bounded import Bounded
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, arithmetic_of
from xopt.conformance.compare.candidate import Candidate
from xopt.conformance.compare.reference import Columns, Reference
from xopt.conformance.golden import GOLDENS
from xopt.conformance.inputs.trajectories import Part
from xopt.rules import RULES


def once_more(cell: dict[str, Any]) -> dict[str, Any]:
    """Of a wrong cell, as a dict: ``expected`` and ``found`` of its wrong number, its ``part`` of a slot, or the ``traceback``.

    The element is stepped without the others of its array: ``alone`` says whether it is wrong then too.
    """
    place = cell["wrong"]
    tried: dict[str, Any] = {}
    if place["mode"] == "raised" and not place["grads"]:  # it was raised before an input was drawn
        place = place | (tried := {"params": 1.0, "grads": [1.0]})
    try:
        with backends.get(cell["backend"], cell["device"]).session(), np.errstate(all="ignore"):
            found = _stepped(cell, place)
    except Exception as error:  # noqa: BLE001 - whatever a backend raises
        return tried | {"traceback": traceback_of(error), "alone": "wrong"}
    if place["mode"] == "raised":
        return {"alone": "right"}
    part, number, expected = max(found, key=lambda one: _apart(one[1], one[2]))
    right = _apart(number, expected) <= place["bound"]
    return {"part": part, "found": _finite(number), "expected": _finite(expected), "alone": "right" if right else "wrong"}


def _stepped(cell: dict[str, Any], place: dict[str, Any]) -> list[tuple[int | None, float, float]]:
    """Of each part of the wrong column: which it is, what it holds, and what the golden says."""
    rule, dtype = RULES[cell["rule"]], cell["dtype"]
    leaves = {place["leaf"]: place, **place.get("beside", {})}
    parts = [Part([leaf], x["hyper"], x["carried"]) for leaf, x in leaves.items()] if len(leaves) > 1 else []
    own = [place["leaf"]] if parts else None
    backend = backends.get(cell["backend"], cell["device"])
    candidate = Candidate(rule, backend, dtype, cell["mode"], dict.fromkeys(leaves, (1,)))
    candidate.start(np.array([x["params"] for x in leaves.values()]), place["hyper"], place["taken"], parts)
    states = [candidate.columns(own)]
    for grads in zip(*(x["grads"] for x in leaves.values()), strict=True):
        candidate.step(np.array(grads))
        states.append(candidate.columns(own))
    if place["mode"] == "raised":
        return []
    formats = FLOAT_FORMATS[arithmetic_of(dtype)], FLOAT_FORMATS[dtype]
    reference = Reference(rule, place["hyper"], *formats, candidate.traced, GOLDENS[rule.name])
    first = len(states) - 2 if place["mode"] == "step" else 0  # a step is judged from the candidate's own state before it
    reference.restart(states[first])
    for i, after in enumerate(states[first + 1 :], start=first):
        reference.step(np.array([place["grads"][i]]), place["taken"] + i + 1, after)
    return list(_columns(rule.slots, place["column"], states[-1], reference.truth))


def _columns(slots: Sequence[str], name: str, found: Columns, truth: Columns) -> Iterator[tuple[int | None, float, float]]:
    at = ("params", *slots).index(name)
    if isinstance(found[at], tuple):
        pairs = enumerate(zip(found[at], truth[at], strict=True))
        yield from ((i, _number(one), _number(other)) for i, (one, other) in pairs if one is not None)
    else:
        yield None, _number(found[at]), _number(truth[at])


def _number(x: Any) -> float:
    return float(np.ravel(x.value if isinstance(x, Bounded) else x)[0])


def _apart(one: float, other: float) -> float:
    distance = 0.0 if one == other or (one != one and other != other) else abs(one - other)
    return distance if distance == distance else np.inf


def _finite(x: float) -> float | None:
    return x if np.isfinite(x) else None


_OURS = Path(__file__).parents[1]
"""Frames of the suite say nothing of what a rule or a library raised."""


def traceback_of(error: BaseException) -> str:
    """As Python prints it, without the frames of the suite."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _OURS not in Path(frame.filename).parents]
    return "".join(
        ["Traceback (most recent call last):\n", *traceback.format_list(frames), *traceback.format_exception_only(error)]
    )
