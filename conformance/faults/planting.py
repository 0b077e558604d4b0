"""Plants a fault in a private copy of the package, and shows what it changes. The xopt in use stays as it is."""

import sys
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import cache
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.resources import files
from importlib.util import spec_from_loader
from itertools import combinations
from types import ModuleType
from typing import Any

import numpy as np
import optree

from xopt import backends
from xopt.bound import Bound
from xopt.checks import Interval
from xopt.conformance.arithmetic.numbers import FLOAT
from xopt.conformance.compare.candidate import Candidate
from xopt.conformance.digests.runs import other_setting
from xopt.conformance.faults.fault import Fault, SuiteFault
from xopt.conformance.faults.refusals import outcome, refusals
from xopt.conformance.golden import GOLDENS, Golden, golden_of, lift, start
from xopt.conformance.inputs.hyperparameters import settings
from xopt.conformance.inputs.trajectories import Part
from xopt.conformance.target import Implementations
from xopt.rule import Rule
from xopt.rules import RULES


def plant(fault: Fault) -> Implementations:
    """The rules and goldens with the fault in them.

    Raises
    ------
    ValueError
        For an edit whose old text does not stand in its file exactly once.
    """
    sources = edited(fault)
    golden = {file: text for file, text in sources.items() if file.startswith("golden/")}
    goldens = {name: golden_of(_module(f"xopt.conformance.golden.{name}", text)) for name, text in _by_name(golden).items()}
    core = {_module_name(file): text for file, text in sources.items() if file not in golden}
    if core:  # some faults break a numerics law, so that such a rule cannot be made: the checks shall see them all the same
        rule = core.get("xopt.rule") or files("xopt").joinpath("rule.py").read_text(encoding="utf-8")
        core["xopt.rule"] = rule.replace("self.program = record(", "self.program = (lambda *_: None)(")
    return Implementations(_private_rules(core) if core else RULES, {**GOLDENS, **goldens})


def copied(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    """Another object, whose init or step may be replaced."""
    made: Rule[Any, Any] = object.__new__(Rule)
    made.__dict__.update(rule.__dict__)
    made.bind = lambda **hyper: Bound(made, hyper)  # type: ignore[method-assign]
    return made


def updating(rule: Rule[Any, Any], update: Callable[..., Any]) -> Rule[Any, Any]:
    """The rule with another update, which may break the numerics laws: as an update of its own it would be refused."""
    made: Rule[Any, Any] = Rule(
        rule.name, rule.state, rule.coefficients, rule.elementwise, memory=rule.memory, carried=rule.carried
    )
    made.elementwise = update
    return made


def plant_in_suite(fault: SuiteFault) -> ModuleType:
    """The self-check of a private copy of the suite with the fault in it.

    Raises
    ------
    ValueError
        For an edit whose old text does not stand in its file exactly once.
    """
    texts = edited(fault, "xopt.conformance")
    return private_copy({_module_name(f"conformance/{file}"): text for file, text in texts.items()}, "xopt.conformance.selfcheck")


def edited(fault: Fault | SuiteFault, package: str = "xopt") -> dict[str, str]:
    """The new texts of the files that a fault edits, which are relative to a package."""
    texts: dict[str, str] = {}
    for file, old, new in fault.edits:
        of = "xopt.conformance" if file.startswith("golden/") else package
        text = texts[file] if file in texts else files(of).joinpath(file).read_text(encoding="utf-8")
        if text.count(old) != 1:
            msg = f"{fault.name}: {old!r} must stand in {file} exactly once, not {text.count(old)} times"
            raise ValueError(msg)
        texts[file] = text.replace(old, new)
    return texts


def _by_name(goldens: dict[str, str]) -> dict[str, str]:
    return {file.removeprefix("golden/").removesuffix(".py"): text for file, text in goldens.items()}


def _module_name(file: str) -> str:
    return "xopt." + file.removesuffix(".py").replace("/", ".")


def _module(name: str, text: str) -> ModuleType:
    module = ModuleType(name)
    exec(compile(text, f"<{name}, edited>", "exec"), module.__dict__)
    return module


class Edited(MetaPathFinder, InspectLoader):
    """Imports modules from texts in memory."""

    def __init__(self, texts: Mapping[str, str], files: Mapping[str, str] | None = None) -> None:
        self.texts = texts
        self.files = files or {}  # where a module believes that it is

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002 - as importlib calls it
        if fullname not in self.texts:
            return None
        spec = spec_from_loader(fullname, self, origin=self.files.get(fullname))
        assert spec is not None
        spec.has_location = spec.origin is not None
        return spec

    def get_source(self, fullname: str) -> str:
        return self.texts[fullname]

    def is_package(self, fullname: str) -> bool:  # noqa: ARG002 - as importlib calls it
        return False


def private_copy(texts: Mapping[str, str], wanted: str) -> ModuleType:
    """The module ``wanted`` of a fresh import of its package, with the given texts of some of the package's modules."""
    package = wanted.rpartition(".")[0]
    parent, _, child = package.rpartition(".")
    ours = _modules(package)
    finder = Edited(texts, {name: str(ours[name].__file__) for name in texts if name in ours})
    for name in ours:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        return import_module(wanted)
    finally:
        sys.meta_path.remove(finder)
        for name in _modules(package):
            del sys.modules[name]
        sys.modules.update(ours)
        if parent:
            setattr(sys.modules[parent], child, ours[package])


def _private_rules(texts: Mapping[str, str]) -> Mapping[str, Rule[Any, Any]]:
    """The rules of a fresh import of xopt, with the given texts of some of its modules."""
    rules: Mapping[str, Rule[Any, Any]] = private_copy(texts, "xopt.rules").RULES
    for rule in rules.values():  # pickle looks a class up by module and name: those planted last stand here
        rule.state.__module__ = __name__
        globals()[rule.state.__name__] = rule.state
    return rules


def _modules(package: str) -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name == package or name.startswith(f"{package}.")}


_SHAPES = {"matrix": (3, 2), "empty": (0,), "vector": (4,), "scalar": ()}
_SIZE = 11
_STEPS = 10
_CARRIED = [
    Part([leaf], {}, {slot: number for rule in RULES.values() for slot in rule.carried})
    for leaf, number in zip(_SHAPES, (1.0, 0.75, 0.5, 0.25), strict=True)
]
"""Leaves that carry different numbers."""


def effect(fault: Fault, planted: Implementations | None = None) -> str | None:
    """What of the outcome changes, in one word: ``values``, ``inputs`` (they are written to or handed on), ``state`` (its types
    and dtypes) or ``errors`` (one appears or vanishes). None where nothing does, or where one of two edited texts has no effect.
    ``planted`` is the fault, where it is planted already.
    """
    planted = planted or plant(fault)
    if planted.goldens != GOLDENS:
        golden = planted.goldens[fault.rule]
        if not _differ(_golden_values(golden), _golden_values(GOLDENS[fault.rule])):
            return None
        if fault.kind == "golden":
            return "values"
    rule = planted.rules[fault.rule]
    for word, observe in (("values", _values), ("inputs", _inputs), ("state", _structure), ("errors", _errors)):
        right = _right(observe, fault.rule, fault.target)
        for theirs, ours in zip(observe(rule, fault.target), right, strict=True):
            if _differ(theirs, ours):
                return "errors" if isinstance(theirs, str) else word
    return None


@cache
def _right(observe: Callable[[Rule[Any, Any], str], Iterator[Any]], rule: str, target: str) -> list[Any]:
    return list(observe(RULES[rule], target))


def _differ(one: Any, other: Any) -> bool:
    """Whether two outcomes differ in more than the signs of zeros."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) != len(other) or any(map(_differ, one, other))
    if isinstance(one, np.ndarray | float) and isinstance(other, np.ndarray | float):
        return not np.array_equal(one, other, equal_nan=True)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return True  # one is an array, the other is None or of several
    return bool(one != other)


def _values(rule: Rule[Any, Any], target: str) -> Iterator[Any]:
    """Trajectories over several settings and dtypes: the state's numbers after each step, or the name of an error."""
    drawn = settings(RULES[rule.name], 0, 40, "float64")
    narrow = settings(RULES[rule.name], 0, 8)
    intervals = RULES[rule.name].ranges
    grouped = [_in_groups(intervals, *pair) for pair in zip(drawn[1:4], drawn[4:7], strict=True)]
    some = other_setting(RULES[rule.name])
    kinds = [{name: _of_kind(value, kind) for name, value in some.items()} for kind in (np.asarray, Fraction, np.float16)]
    for dtype, hypers, step in (
        ("float64", [*drawn, {"lr": dict(zip(_SHAPES, (0.5, 0.5, 0.25, 0.125), strict=True))}, *grouped, *kinds], 0),
        ("float64", drawn[:2], 299),
        *(("float64", drawn, late) for late in (15_000, 70_000, 2**21, 2**24, 2**31)),
        ("float32", narrow, 0),
        ("float16", narrow[:2], 0),
    ):
        for i, hyper in enumerate(hypers):
            draw = np.random.default_rng([i, step])
            params, *grads = draw.standard_normal((_STEPS + 1, _SIZE)) * 2.0 ** draw.integers(-4, 5, (_STEPS + 1, _SIZE))
            for grad in grads:
                grad[draw.random(_SIZE) < 0.2] = 0.0
            grads[2][7] = np.nan
            candidate = Candidate(rule, backends.get(target), dtype, "eager", _SHAPES)
            try:
                with np.errstate(all="ignore"):
                    candidate.start(params, hyper, step, _CARRIED if rule.carried and not i else ())
                    yield _columns(candidate)
                    states = []
                    for grad in grads[: 3 if step else None]:
                        candidate.step(grad)
                        states.append((*_columns(candidate), float(candidate.state.step)))
                    yield states
            except Exception as error:  # noqa: BLE001 - that it is raised is what is observed
                yield from [type(error).__name__] * 2


def _columns(candidate: Candidate) -> list[Any]:
    """The columns of each leaf, which may carry other numbers than the others and have other slots."""
    return [x for leaf in _SHAPES for x in candidate.columns([leaf])]


def _in_groups(intervals: Mapping[str, Interval], one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters of which every second leaf has others."""

    def tree(x: Any, y: Any) -> Any:
        return dict(zip(_SHAPES, (x, y, x, y), strict=True))

    return {name: value if intervals[name].sequence else tree(value, other.get(name, value)) for name, value in one.items()}


def _of_kind(value: Any, kind: Callable[[Any], Any]) -> Any:
    """A number, or those of a tuple, in another kind, if that holds them."""
    if isinstance(value, tuple):
        return tuple(_of_kind(item, kind) for item in value)
    return kind(value) if value is not None and float(kind(value)) == value else value


def _golden_values(golden: Golden) -> list[Any]:
    """Trajectories of one number in floats."""
    values = []
    for hyper in settings(RULES[golden.name], 0, 40, "float64"):
        full = lift(FLOAT, golden.defaults | hyper)
        for steps_before in (0, 15_000, 70_000, 2**21, 2**24):
            state = start(golden, FLOAT, 0.75, full)
            for t in range(1, _STEPS + 1):
                try:
                    state = golden.step(FLOAT, *state, (-0.5) ** t * t, steps_before + t, **full)
                except (ZeroDivisionError, OverflowError):  # as it is with eps=0, and far out
                    break
                values.append(state)
    return values


def _arrays(state: Any) -> list[Any]:
    return [x for x in optree.tree_leaves(state[:-1]) if isinstance(x, np.ndarray)]


def _three_steps(rule: Rule[Any, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """State, gradient and next state, with defaults, with lr of 0 and with decay."""
    for hyper in ({}, {"lr": 0.0}, {"weight_decay": 0.5} if "weight_decay" in rule.defaults else {}):
        state = rule.bind(**hyper).init({"matrix": np.ones((3, 2), np.float32), "scalar": np.asarray(2.0, np.float32)})
        for t in (1.0, 2.0, 3.0):
            grad = {"matrix": np.full((3, 2), t, np.float32), "scalar": np.asarray(-t, np.float32)}
            before = state
            state = rule.step(state, grad, **hyper)
            yield before, grad, state


def _inputs(rule: Rule[Any, Any], target: str) -> Iterator[Any]:
    """Whether a step leaves its arguments as they are, and what of its results is an argument's or another result's memory."""
    for before, grad, after in _three_steps(rule):
        given, got = [*_arrays(before), grad["matrix"], grad["scalar"]], _arrays(after)
        yield [np.shares_memory(x, y) for x in given for y in got]
        yield [np.shares_memory(x, y) for x, y in combinations([*_arrays(before)], 2)]
        yield [float(np.sum(x)) for x in given]


def _structure(rule: Rule[Any, Any], target: str) -> Iterator[Any]:
    """Types and dtypes of the states."""
    for before, _, after in _three_steps(rule):
        for state in (before, after):
            yield [(type(x).__name__, str(getattr(x, "dtype", None))) for x in optree.tree_leaves(state)]


def _errors(rule: Rule[Any, Any], target: str) -> Iterator[Any]:
    """What is raised by calls that must be refused."""
    yield [outcome(refusal) for refusal in refusals(rule)]
