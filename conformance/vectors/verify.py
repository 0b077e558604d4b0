"""Verifies vectors: by the golden, which says how far from exact they are, and by the rules, bit for bit."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from xopt.conformance.results import brief
from xopt.conformance.vectors import exact
from xopt.conformance.vectors.bits import SHORT, number, text
from xopt.conformance.vectors.lint import files, tests
from xopt.conformance.vectors.stepping import Columns, Stepper, chain
from xopt.conformance.vectors.write import shown_columns
from xopt.rule import Rule
from xopt.rules import RULES


class Verified(NamedTuple):
    """What came of the vectors of a rule, by one of those who verify."""

    rule: str
    by: str
    checked: int
    chains: int
    left_out: int  # the golden refuses nothing, and has no bits
    problems: list[str]


def verify_rules(folder: Path, rules: Mapping[str, Rule[Any, Any]] = RULES) -> list[Verified]:
    """By xopt's own steps on NumPy, bit for bit."""
    return [_verified(path, "rule", rules, _by_rule) for path in files(folder)]


def verify_golden(folder: Path, rules: Mapping[str, Rule[Any, Any]] = RULES) -> list[Verified]:
    """By the golden: in ninety digits it gives the exact numbers, and in floats it lies within their bounds, as xopt's bits do."""
    return [_verified(path, "golden", rules, _by_golden) for path in files(folder)]


def hyper_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters as a step takes them, from their bits."""
    return {name: tuple(map(number, x)) if isinstance(x, list) else None if x is None else number(x) for name, x in given.items()}


def _verified(
    path: Path,
    by: str,
    rules: Mapping[str, Rule[Any, Any]],
    check: Callable[[Stepper, dict[str, Any]], Iterator[str] | None],
) -> Verified:
    content = json.loads(path.read_text(encoding="utf-8"))
    rule = rules.get(content["rule"])
    if rule is None:
        return Verified(path.stem, by, 0, 0, 0, [f"{path.name}: there is no rule {content['rule']}"])
    problems: list[str] = []
    steppers: dict[str, Stepper] = {}
    checked = chains = left_out = 0
    for one in tests(content):
        is_refused = one.get("result", "").startswith("reject")
        key = repr((one["dtype"], content["rule"], {} if is_refused else one["hyper"]))
        try:
            if key not in steppers:
                steppers[key] = Stepper(rule, one["dtype"], {} if is_refused else hyper_of(one["hyper"]))
            said = check(steppers[key], one)
            if said is None:
                left_out += 1
                continue
            problems += [f"{path.stem} {one['id']} ({one['dtype']}, {', '.join(one['flags'])}): {what}" for what in said]
        except Exception as error:  # noqa: BLE001 - whatever a rule raises
            problems.append(f"{path.stem} {one['id']}: raised {brief(error)}")
        if "steps" in one:
            chains += 1
        else:
            checked += 1
    return Verified(content["rule"], by, checked, chains, left_out, problems)


def _columns(given: Mapping[str, str]) -> Columns:
    return {name: number(x) for name, x in given.items()}


def _differences(want: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{name} is {found[name]}, not {want[name]}" for name in want if found[name] != want[name])


def _by_rule(stepper: Stepper, one: dict[str, Any]) -> Iterator[str]:
    if "steps" in one:
        columns, digest = chain(stepper, _columns(one["in"]), one["steps"], one["digits"])
        if f"{digest:016x}" != one["digest"]:
            yield f"the digest is {digest:016x}, not {one['digest']}"
        yield from _differences(one["out"], shown_columns(stepper, columns))
    elif one["result"].startswith("reject:"):
        yield from _refused(stepper, one)
    else:
        after = stepper.step(_columns(one["in"]), number(one["grad"]), one["t"])
        yield from _differences(one["out"], shown_columns(stepper, after))
        if one["result"] == "set" and one["out"]["params"] not in one["allowed"]:
            yield f"{one['out']['params']} is none of those that are allowed"


def _refused(stepper: Stepper, one: dict[str, Any]) -> Iterator[str]:
    hyper = hyper_of(one["hyper"])
    try:
        stepper.rule.step(stepper.fresh, stepper.fresh.params, **hyper)
    except (TypeError, ValueError) as error:
        if f"reject:{type(error).__name__}" != one["result"]:
            yield f"{one['comment']} raised {type(error).__name__}, not {one['result'].partition(':')[2]}"
    else:
        yield f"{one['comment']} was not refused"


def _by_golden(stepper: Stepper, one: dict[str, Any]) -> Iterator[str] | None:
    if "steps" in one or one["result"].startswith("reject:"):
        return None
    return _golden(stepper, one)


def _golden(stepper: Stepper, one: dict[str, Any]) -> Iterator[str]:
    given = stepper, _columns(one["in"]), number(one["grad"]), one["t"]
    found = exact.exact(*given)
    if found != one["exact"]:
        yield f"exact is {found}, not {one['exact']}"
    if found is None:
        return
    floats, out = exact.in_floats(*given), _columns(one["out"])
    for name, bound in one["bound"].items():
        if bound is None:
            continue
        if floats is not None and not exact.within(floats[name], found[name], number(bound)):
            yield f"{name} of the golden is {floats[name]!r}, farther than {number(bound):.3g} from {found[name]}"
        if not exact.within(out[name], found[name], number(bound)):
            yield f"{name} is {out[name]!r}, farther than {number(bound):.3g} from {found[name]}"
    if one["result"] == "set" and floats is not None and text(floats["params"], "float64") not in one["allowed"]:
        nearest = min(abs(floats["params"] - number(x)) for x in one["allowed"])
        if nearest > 2.0 ** -(8 if SHORT[stepper.dtype] == "bf16" else 11) * max(1.0, abs(floats["params"])):
            yield f"params of the golden is {floats['params']!r}, near none of those that are allowed"
