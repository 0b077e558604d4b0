"""Writes the vectors: one JSON file a rule, one test a line, and a manifest of their hashes."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xopt.conformance.arithmetic.formats import FLOAT_FORMATS
from xopt.conformance.vectors import exact
from xopt.conformance.vectors.bits import stored, text
from xopt.conformance.vectors.design import DTYPES, NOTES, Case, cases, refused, settings
from xopt.conformance.vectors.stepping import NUMPY, Columns, Stepper, chain
from xopt.program import OPERATIONS, evaluate, numbers_of
from xopt.rule import Rule
from xopt.rules import RULES

VERSION = "2026.11"
"""Of the vectors: year and month in which numbers last changed."""

MANIFEST = "manifest.json"
SCHEMA = Path(__file__).with_name("schema.json")
STEPS = 1000
"""Of a chain."""


def write(folder: Path, rules: Mapping[str, Rule[Any, Any]] = RULES) -> list[Path]:
    """Writes all vectors into a folder, and returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {f"{name}.json": file_of(rule) for name, rule in rules.items()} | {SCHEMA.name: SCHEMA.read_text(encoding="utf-8")}
    texts[MANIFEST] = manifest(texts)
    for name, content in texts.items():
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
    return [folder / name for name in texts]


def manifest(texts: Mapping[str, str]) -> str:
    """The hash of each file."""
    hashes = {name: hashlib.sha256(content.encode()).hexdigest() for name, content in sorted(texts.items())}
    return json.dumps({"version": VERSION, "sha256": hashes}, indent=1) + "\n"


def file_of(rule: Rule[Any, Any]) -> str:
    """The vectors of a rule, as text in which a group's head, a test and a chain each have a line of their own."""
    groups = list(_groups(rule))
    chains = [_chain(rule, dtype, about, hyper) for dtype in DTYPES for about, hyper in list(settings(rule).items())[:2]]
    flags = {flag for _, tests in groups for test in tests for flag in test["flags"]} | {"Chain"}
    head = {
        "rule": rule.name,
        "version": VERSION,
        "generator": "xopt vectors write",
        "source": " ".join(rule.doc.split("\n\n")[1].split()),
        "notes": {flag: note for flag, note in NOTES.items() if flag in flags},
    }
    at = 0
    lines: list[str] = []
    for number, (group, tests) in enumerate(groups):
        lines.append(f'{_line(group)[:-1]}, "tests": [')
        for test in tests:
            at += 1
            lines.append(_line({"id": at, **test}) + ("," if test is not tests[-1] else ""))
        lines.append("]}" + ("," if number < len(groups) - 1 else ""))
    chained = ",\n".join(_line({"id": at + 1 + i, **one}) for i, one in enumerate(chains))
    opening = json.dumps(head, indent=1)[:-2]
    return f'{opening},\n "groups": [\n' + "\n".join(lines) + f'\n ],\n "chains": [\n{chained}\n ]\n}}\n'


def _line(x: Any) -> str:
    return json.dumps(x)


def _groups(rule: Rule[Any, Any]) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    for dtype in DTYPES:
        for number, (about, hyper) in enumerate(settings(rule).items()):
            stepper = Stepper(rule, dtype, hyper)
            tests = [_test(stepper, case) for case in cases(rule, dtype, number)]
            if not hyper and dtype in ("float64", "float32"):
                tests += [_refusal(stepper, *one) for one in refused(rule, dtype)]
            yield _head(stepper, about), tests


def _head(stepper: Stepper, about: str) -> dict[str, Any]:
    return {
        "about": about,
        "dtype": stepper.dtype,
        "arithmetic": stepper.compute,
        "columns": list(stepper.columns),
        "carried": list(stepper.rule.carried),
        "hyper": shown(stepper.form.hyper),
        "says": " ".join(f"{name}={value!r}".replace(" ", "") for name, value in stepper.form.hyper.items()),
    }


def shown(hyper: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as bits of doubles. None is null."""

    def one(x: Any) -> Any:
        return [one(item) for item in x] if isinstance(x, tuple) else None if x is None else text(x, "float64")

    return {name: one(value) for name, value in hyper.items()}


def shown_columns(stepper: Stepper, columns: Columns) -> dict[str, str]:
    return {name: text(columns[name], stepper.dtype_of(name)) for name in stepper.columns}


def _test(stepper: Stepper, case: Case) -> dict[str, Any]:
    columns = stepper.start(case.params)
    for i, grad in enumerate(case.warm):
        columns = stepper.step(columns, grad, case.t - len(case.warm) + i)
    grad = _against(stepper, columns, case.t) if isinstance(case.grad, str) else case.grad
    after = stepper.step(columns, grad, case.t)
    flags = list(case.flags)
    finite = all(map(math.isfinite, [grad, *columns.values()]))
    if finite and any(map(math.isinf, after.values())):
        flags.append("Overflow")
    result: dict[str, Any] = {
        "flags": flags,
        "t": case.t,
        "grad": text(grad, stepper.dtype),
        "in": shown_columns(stepper, columns),
        "out": shown_columns(stepper, after),
        "exact": exact.exact(stepper, columns, grad, case.t),
        "bound": None,
        "result": "valid",
    }
    if result["exact"] is None:
        return result
    judged = exact.Judged(stepper, columns, grad, case.t, after)
    bounds = {name: exact.rounded_up(x) if math.isfinite(after[name]) else math.inf for name, x in judged.bounds.items()}
    result["bound"] = {name: text(x, "float64") if math.isfinite(x) else None for name, x in bounds.items()}
    if judged.open:
        result["bound"]["params"] = None
        result |= {
            "result": "set",
            "allowed": sorted({text(x, stepper.dtype) for x in _with_signs(stepper, columns, grad, case.t)}),
        }
    elif "OpenSign" in flags:
        flags.remove("OpenSign")
        flags.append("Cancellation")
    return result


def _against(stepper: Stepper, columns: Columns, t: int) -> float:
    """The gradient of the vector's format that brings what a sign is taken of, which is linear in it, nearest to 0."""
    (of_sign,) = (str(x.operands[0]) for x in stepper.form.update.program.operations if x.name == "sign")
    nothing, one = (_evaluated(stepper, columns, grad, t, np.float64)[of_sign] for grad in (0.0, 1.0))
    return stored(-nothing / (one - nothing), stepper.dtype)


def _evaluated(stepper: Stepper, columns: Columns, grad: float, t: int, kind: Any, **functions: Any) -> dict[str, Any]:
    """All that an update computes, by name, with other functions in the place of some."""
    update = stepper.form.update.program
    carried = [columns[name] for name in stepper.rule.carried]
    c = stepper.rule.coefficients(t, *carried, **stepper.form.hyper)
    values = {name: kind(columns[column]) for name, column in zip(stepper.form.arrays, stepper.places, strict=True)}
    values |= {"grad": kind(grad)} | dict(zip(update.coefficients, map(kind, numbers_of(c)), strict=True))
    with np.errstate(all="ignore"):
        evaluate(update.operations, {**OPERATIONS, "sqrt": np.sqrt, "sign": np.sign, **functions}, values)
    return values


def _with_signs(stepper: Stepper, columns: Columns, grad: float, t: int) -> Iterator[float]:
    """The new parameter for each value that the signs may have."""
    kind = NUMPY[stepper.compute]
    for sign in (-1.0, 0.0, 1.0):
        values = _evaluated(stepper, columns, grad, t, kind, sign=partial(_constant, kind(sign)))
        yield stored(values[stepper.form.update.program.writes["params"]], stepper.dtype)


def _constant(x: Any, _: Any) -> Any:
    return x


def _refusal(stepper: Stepper, flags: tuple[str, ...], changed: dict[str, Any], comment: str) -> dict[str, Any]:
    columns = stepper.start(1.0)
    try:
        stepper.rule.step(stepper.fresh, stepper.fresh.params, **changed)
    except (TypeError, ValueError) as error:
        kind = type(error).__name__
    else:
        msg = f"{stepper.rule.name}: {comment} is not refused"
        raise AssertionError(msg)
    return {
        "flags": list(flags),
        "comment": comment,
        "t": 1,
        "grad": text(1.0, stepper.dtype),
        "in": shown_columns(stepper, columns),
        "hyper": shown({**stepper.form.hyper, **changed}),
        "result": f"reject:{kind}",
    }


def _chain(rule: Rule[Any, Any], dtype: str, about: str, hyper: dict[str, Any]) -> dict[str, Any]:
    stepper = Stepper(rule, dtype, hyper)
    digits = FLOAT_FORMATS[dtype].digits
    start = stepper.start(1.0)
    columns, digest = chain(stepper, start, STEPS, digits)
    return {
        **_head(stepper, about),
        "flags": ["Chain"],
        "steps": STEPS,
        "digits": digits,
        "in": shown_columns(stepper, start),
        "out": shown_columns(stepper, columns),
        "digest": f"{digest:016x}",
    }
