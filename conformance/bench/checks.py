"""The figures that are asked of a fused step, and what a run found: each a ratio of two contenders of one run."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from xopt.conformance.bench.measure import Spread, ratio, spread
from xopt.rules import RULES

Json = dict[str, Any]


ALL_RULES = 1.15
"""What a fused step of any rule may take at most, beside its own touch kernel."""


class NotRunError(Exception):
    """What a figure needs did not run; says why."""


class Figure(NamedTuple):
    asked: str
    limit: float
    found: Callable[[Json], tuple[Spread, str]]  # and of what, where it is the worst of several; raises NotRunError
    unit: str = ""  # none for a ratio
    at_least: bool = False  # whether the limit is one from below


def checks(report: Json) -> list[Json]:
    """Each figure with what was found of it; ``holds`` is None where it was not run, for the ``reason``."""
    return [_check(figure, report) for figure in FIGURES]


def _check(figure: Figure, report: Json) -> Json:
    row: Json = {
        "asked": figure.asked,
        "limit": figure.limit,
        "unit": figure.unit,
        "at_least": figure.at_least,
        "found": None,
        "of": "",
        "holds": None,
        "reason": None,
    }
    try:
        found, of = figure.found(report)
    except NotRunError as error:
        return row | {"reason": str(error)}
    holds = found.median >= figure.limit if figure.at_least else found.median <= figure.limit
    return row | {"found": found._asdict(), "of": of, "holds": holds}


Found = Callable[[Json], tuple[Spread, str]]


def _beside(one: str, other: str, size: str, *, per_byte: bool = False) -> Found:
    """The time of a contender over that of another one."""
    return lambda report: (_ratio(_entry(report, "ademamix", size, one), _entry(report, "ademamix", size, other), per_byte), "")


def _share(fused: str, copy: str, size: str) -> Found:
    """The bytes in a second of a contender over those of a copy."""

    def found(report: Json) -> tuple[Spread, str]:
        ours = _entry(report, "ademamix", size, fused)
        return _ratio(_entry(report, "ademamix", size, copy), ours, per_byte=True), ""

    return found


def _all_rules(fused: str, size: str) -> Found:
    """The largest time of a rule over that of its own touch kernel."""

    def found(report: Json) -> tuple[Spread, str]:
        if not set(RULES) <= set(report["rules"]):
            msg = f"asked for {len(report['rules'])} of {len(RULES)} rules: --rule all"
            raise NotRunError(msg)
        return max((_ratio(_entry(report, rule, size, fused), _entry(report, rule, size, "touch")), rule) for rule in RULES)

    return found


def _leaves(fused: str, trees: str, leaf: str) -> Found:
    """The time of many leaves over that of one leaf of as many numbers."""
    return lambda report: (_ratio(_entry(report, "ademamix", trees, fused), _entry(report, "ademamix", trees, fused, leaf)), "")


def _linear(fused: str) -> Found:
    """The largest time of a number over the smallest, from 10^6 to 10^8 of them."""

    def found(report: Json) -> tuple[Spread, str]:
        for size in ("10^6", "10^7", "10^8"):
            if size not in [one["name"] for one in report["sizes"]]:
                msg = f"{size} was not asked for: --size 1e6,1e7,1e8"
                raise NotRunError(msg)
        entries = [_entry(report, "ademamix", "linear", fused, size) for size in ("10^6", "10^7", "10^8")]
        pairs = [(one, other) for one in entries for other in entries if one is not other]
        return max((_ratio(one, other, per_byte=True), f"{one['size']} / {other['size']}") for one, other in pairs)

    return found


def _memory(fused: str) -> Found:
    """The most megabytes beyond the state, of any rule at any size."""
    return lambda report: _most(report, "memory", fused, lambda row: (row["extra"] / 1e6, f"{row['rule']}, {row['size']}"))


def _first_call(fused: str) -> Found:
    """The most seconds with an empty cache, of any rule."""
    return lambda report: _most(report, "first_calls", fused, lambda row: (row["empty"], row["rule"]))


def _most(report: Json, what: str, contender: str, value: Callable[[Json], tuple[float, str]]) -> tuple[Spread, str]:
    _must_run(report, report["rules"][0], contender)
    rows = [row for row in report[what] if row["contender"] == contender]
    values = [value(row) for row in rows if row["reason"] is None]
    if not values:
        raise NotRunError(next((row["reason"] for row in rows), "only times were asked for"))
    most, of = max(values)
    return spread([most]), of


def _ratio(one: Json, other: Json, per_byte: bool = False) -> Spread:
    found = ratio(one["rounds"], other["rounds"], other["bytes"] / one["bytes"] if per_byte else 1.0)
    if found is None:
        msg = f"{one['contender']} and {other['contender']} never took turns in one round"
        raise NotRunError(msg)
    return found


def _entry(report: Json, rule: str, run: str, contender: str, size: str | None = None) -> Json:
    """What a run found of a contender. Raises NotRunError where it took no part."""
    size = size or run
    _must_run(report, rule, contender)
    found = next((one for one in report["runs"] if (one["rule"], one["name"]) == (rule, run)), None)
    if found is None:
        msg = f"{run} was not asked for: --size {run}"
        raise NotRunError(msg)
    for entry in found["entries"]:
        if (entry["contender"], entry["size"]) == (contender, size):
            return dict(entry)
    reasons = [row["reason"] for row in found["left_out"] if (row["contender"], row["size"]) == (contender, size)]
    raise NotRunError(f"{contender}: {reasons[0]}" if reasons else f"{contender} took no part in the run of {run}")


def _must_run(report: Json, rule: str, contender: str) -> None:
    """Raises NotRunError where a contender was not asked for, or cannot run here."""
    if rule not in report["rules"]:
        msg = f"{rule} was not asked for: --rule {rule}"
        raise NotRunError(msg)
    row = next((row for row in report["contenders"] if (row["rule"], row["name"]) == (rule, contender)), None)
    if row is None:
        peer = not report["peers"] and contender.startswith(("optax", "pytorch_optimizer", "torch AdamW"))
        raise NotRunError("the peers were not asked for: --peers" if peer else f"{contender} was not asked for")
    if row["reason"]:
        raise NotRunError(row["reason"])


def _figures() -> Iterator[Figure]:
    on_cpu = "numpy fused", "torch cpu fused"
    for ours in on_cpu:
        yield Figure(f"{ours} / touch, 10^7", 1.10, _beside(ours, "touch", "10^7"))
        yield Figure(f"{ours} / optax, 10^7", 0.45, _beside(ours, "optax", "10^7"))
        yield Figure(f"{ours} / pytorch_optimizer, 10^7", 0.15, _beside(ours, "pytorch_optimizer", "10^7"))
        yield Figure(f"{ours} / torch AdamW fused, per byte, 10^7", 1.0, _beside(ours, "torch AdamW fused", "10^7", per_byte=True))
    yield Figure("jax cpu fused / optax, 10^7", 1.05, _beside("jax cpu fused", "optax", "10^7"))
    for ours in on_cpu:
        yield Figure(f"{ours} / touch, the worst of all rules, 10^7", ALL_RULES, _all_rules(ours, "10^7"))
    for ours in on_cpu:
        per_byte = _beside(ours, "torch AdamW fused", "resnet50", per_byte=True)
        yield Figure(f"{ours} / torch AdamW fused, per byte, ResNet-50", 1.15, per_byte)
    for ours in on_cpu:
        yield Figure(f"{ours}, 1000 leaves of 1000 / one leaf", 1.5, _leaves(ours, "1000x1000", "10^6"))
    for ours in (*on_cpu, "jax cpu fused"):
        yield Figure(f"{ours}, peak memory beyond the state", 1.0, _memory(ours), "MB")
    for ours in on_cpu:
        yield Figure(f"{ours}, slowest / fastest time of a number, 10^6 to 10^8", 1.15, _linear(ours))
    for ours in (*on_cpu, "jax cpu fused"):
        yield Figure(f"{ours}, first call, the slowest rule", 3.0, _first_call(ours), "s")
    for place in ("cupy cuda:0", "torch cuda:0"):
        share = _share(f"{place} fused", f"copy {place}", "2^28")
        yield Figure(f"{place} fused, share of copy bandwidth, 2^28", 0.9, share, at_least=True)


FIGURES = tuple(_figures())
"""For AdEMAMix in float32, unless they say otherwise."""
