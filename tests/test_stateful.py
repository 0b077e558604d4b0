"""Programs of operations keep every rule's state right, and find what only an odd order of operations can show."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import optree
import pytest

import xopt
from xopt.conformance.arithmetic.formats import ARITHMETICS, FLOAT_FORMATS
from xopt.conformance.faults.planting import copied
from xopt.conformance.golden import GOLDENS
from xopt.conformance.results import BROKEN, HELD, NOT_RUN, LawResult
from xopt.conformance.stateful.check import check_machine
from xopt.conformance.stateful.machine import MACHINE
from xopt.conformance.target import Effort, Implementations, Target
from xopt.rule import Rule

MEASURED = {
    "torch": {dtype: replace(FLOAT_FORMATS[dtype], ulps={"sqrt": 1.0}) for dtype in ARITHMETICS},
    "jax": {dtype: replace(FLOAT_FORMATS[dtype], flushes=dtype == "float32") for dtype in ARITHMETICS},
}

Step = Callable[..., Any]


def check(
    name: str,
    dtype: str = "float32",
    backend: str = "numpy",
    examples: int = 12,
    seed: int = 0,
    shrink: bool = True,
    **planted: Any,
) -> LawResult:
    target = Target(backend, "cpu", "eager", MEASURED.get(backend, FLOAT_FORMATS))
    (result,) = check_machine(name, dtype, [target], Effort(examples, seed, shrink=shrink), Implementations(**planted))
    return result


@pytest.mark.parametrize(("name", "dtype"), [("nadam", "float32"), ("aggmo", "float64")])  # the conformance suite runs all
def test_any_order_is_right_on_numpy(name: str, dtype: str) -> None:
    result = check(name, dtype, examples=6)
    assert result.verdict == HELD, result.broken
    assert result.numbers > 100
    assert 0.4 < result.ratio <= 1


@pytest.mark.parametrize(
    ("name", "dtype", "backend"),
    [
        ("adamw", "float32", "torch"),
        ("lion", "bfloat16", "torch"),
        ("nadam", "float64", "torch"),
        ("qhm", "float16", "array_api_strict"),
        ("aggmo", "float32", "array_api_strict"),
        ("sgd", "bfloat16", "jax"),
        ("ademamix", "float32", "jax"),
    ],
)
def test_any_order_is_right_elsewhere(name: str, dtype: str, backend: str) -> None:
    pytest.importorskip(backend)
    result = check(name, dtype, backend, examples=4)
    if backend == "array_api_strict" and dtype == "float16":
        assert (result.verdict, result.reason) == (NOT_RUN, "array_api_strict has no float16")
        return
    assert result.law == MACHINE
    assert result.verdict == HELD, result.broken
    assert result.numbers > 50


def test_what_does_not_run_says_why() -> None:
    eager, traced = check_machine("sgd", "bfloat16", [Target("numpy", "cpu", "eager"), Target("torch", "cpu", "traced")], Effort(1))
    assert (eager.verdict, eager.reason) == (NOT_RUN, "numpy has no bfloat16")
    assert (traced.verdict, traced.reason) == (NOT_RUN, "splitting and merging leaves would compile anew at each step")


def test_the_seed_decides() -> None:
    one, same, other = check("qhm"), check("qhm"), check("qhm", seed=1)
    assert one == same
    assert (one.numbers, one.ratio) != (other.numbers, other.ratio)


# Faults. Each is a step around the right one, so that what check_rule runs, one run from init to its end, may well be right.


def swaps_equal_leaves(right: Rule[Any, Any]) -> Step:
    def step(state: Any, grad: Any, **hyper: Any) -> Any:
        new = right.step(state, grad, **hyper)
        leaves, spec = optree.tree_flatten(new.m)
        if len(leaves) > 2 and leaves[0].shape == leaves[-1].shape:
            leaves[0], leaves[-1] = leaves[-1], leaves[0]
        return new._replace(m=spec.unflatten(leaves))

    return step


def counts_in_a_closure(right: Rule[Any, Any]) -> Step:
    count = 0

    def step(state: Any, grad: Any, **hyper: Any) -> Any:
        nonlocal count
        count = 1 if state.step == 0 else count + 1
        return right.step(state._replace(step=count - 1), grad, **hyper)._replace(step=state.step + 1)

    return step


def keeps_a_slot_by_place(right: Rule[Any, Any]) -> Step:
    memory: dict[Any, Any] = {}

    def step(state: Any, grad: Any, **hyper: Any) -> Any:
        leaves, spec = optree.tree_flatten(state.m)
        for i, leaf in enumerate(leaves):
            kept = memory.get((int(state.step), i))
            if type(kept) is type(leaf) and kept.shape == leaf.shape:
                leaves[i] = kept
        new = right.step(state._replace(m=spec.unflatten(leaves)), grad, **hyper)
        memory.update({(new.step, i): leaf for i, leaf in enumerate(optree.tree_leaves(new.m))})
        return new

    return step


def shares_a_buffer(right: Rule[Any, Any]) -> Step:
    def step(state: Any, grad: Any, **hyper: Any) -> Any:
        new = right.step(state, grad, **hyper)
        buffers: dict[Any, Any] = {}

        def shared(x: Any) -> Any:
            buffer = buffers.setdefault(x.shape, x)
            buffer[...] = x
            return buffer

        return new._replace(v=optree.tree_map(shared, new.v))

    return step


def keeps_the_first_hyperparameters(right: Rule[Any, Any]) -> Step:
    def step(state: Any, grad: Any, **hyper: Any) -> Any:
        known = first.setdefault(id(state), hyper) if state.step else hyper
        new = right.step(state, grad, **known)
        first[id(new)] = known
        alive.append(new)  # so that no other state gets its id
        return new

    first: dict[int, Any] = {}
    alive: list[Any] = []
    return step


def carries_on_beside_the_state(right: Rule[Any, Any]) -> Step:
    rest: dict[int, Any] = {}  # what rounding cut off, by the array that it was cut off from: lost when the array is saved
    alive: list[Any] = []

    def step(state: Any, grad: Any, **hyper: Any) -> Any:
        new = right.step(state, grad, **hyper)

        def carried(old: Any, x: Any) -> Any:
            x = x + rest.get(id(old), np.zeros_like(x))
            rest[id(x)] = np.abs(x) * np.finfo(x.dtype).eps / 8
            alive.append(x)
            return x

        return new._replace(m=None if new.m is None else optree.tree_map(carried, state.m, new.m))

    return step


def forgets_a_count_that_is_no_int(right: Rule[Any, Any]) -> Step:
    def step(state: Any, grad: Any, **hyper: Any) -> Any:
        return right.step(state if type(state.step) is int else state._replace(step=0), grad, **hyper)

    return step


def writes_to_the_old_state(right: Rule[Any, Any]) -> Step:
    def step(state: Any, grad: Any, **hyper: Any) -> Any:
        new = right.step(state, grad, **hyper)
        if new.step == 3:
            for leaf in optree.tree_leaves(state.params):
                leaf += 1
        return new

    return step


def writes_to_the_gradient(right: Rule[Any, Any]) -> Step:
    def step(state: Any, grad: Any, **hyper: Any) -> Any:
        new = right.step(state, grad, **hyper)
        for leaf in optree.tree_leaves(grad):
            leaf *= 2
        return new

    return step


def widens_a_slot(right: Rule[Any, Any]) -> Step:
    def step(state: Any, grad: Any, **hyper: Any) -> Any:
        new = right.step(state, grad, **hyper)
        return new._replace(v=optree.tree_map(lambda x: x.astype(np.float64), new.v)) if new.step == 2 else new

    return step


FAULTS = [
    (swaps_equal_leaves, "is off by"),
    (counts_in_a_closure, "is off by|have other bits"),
    (keeps_a_slot_by_place, "is off by|have other bits"),
    (shares_a_buffer, "is off by"),
    (keeps_the_first_hyperparameters, "is off by|have other bits"),
    (carries_on_beside_the_state, "have other bits"),
    (forgets_a_count_that_is_no_int, "is off by|the step count is 1 after"),
    (writes_to_the_old_state, "wrote to the state"),
    (writes_to_the_gradient, "wrote to the gradient"),
    (widens_a_slot, r"a leaf of v is float64\(\d,\) and must be float32\(\d,\)"),
]


def planted(fault: Callable[[Rule[Any, Any]], Step]) -> dict[str, Rule[Any, Any]]:
    right = xopt.RULES["adamw"]
    wrong = copied(right)
    wrong.step = fault(right)
    return {"adamw": wrong}


@pytest.mark.parametrize(("fault", "reason"), FAULTS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_fault_is_found(fault: Callable[..., Any], reason: str) -> None:
    result = check("adamw", examples=60, rules=planted(fault), shrink=False)
    assert result.verdict == BROKEN
    assert result.broken is not None
    assert re.search(reason, result.broken["reason"]), result.broken
    assert 1 <= (result.found_after or 0) <= 60


def test_the_text_around_which_the_faults_stand_is_right() -> None:
    assert check("adamw", rules=planted(lambda right: right.step)).verdict == HELD


def test_a_wrong_golden_is_found() -> None:
    right = GOLDENS["sgd"]
    wrong = right._replace(step=lambda n, params, grad, t, **hyper: right.step(n, params, 2 * grad, t, **hyper))
    assert check("sgd", goldens={"sgd": wrong}, shrink=False).verdict == BROKEN


def test_the_program_is_the_shortest() -> None:
    result = check("adamw", examples=60, rules=planted(forgets_a_count_that_is_no_int))
    assert result.broken is not None
    start, *program = result.broken["program"].splitlines()
    assert start == "start(setting={}, params=[0.0, 0.0, 0.0, 0.0, 0.0, 0.0])"
    assert program == ["step(grad=[0.0, 0.0, 0.0, 0.0, 0.0, 0.0])", "save_and_reload(file='npz')", program[0]]


def test_an_error_of_the_rule_is_a_finding() -> None:
    def raises(right: Rule[Any, Any]) -> Step:
        def step(state: Any, grad: Any, **hyper: Any) -> Any:
            if isinstance(state.params, list):
                msg = "no lists"
                raise TypeError(msg)
            return right.step(state, grad, **hyper)

        return step

    result = check("adamw", examples=60, rules=planted(raises), shrink=False)
    assert result.broken is not None
    assert result.broken["reason"] == "TypeError: no lists"
    assert "arrange(form='list'" in result.broken["program"]
