"""The laws hold of the rules as they are, and each of them breaks where a fault is planted."""

import functools
import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optree
import pytest

import xopt
from xopt.conformance.faults.planting import copied, updating
from xopt.conformance.laws import LAWS, LEFT_OUT, Kind, check_laws
from xopt.conformance.results import BROKEN, HELD, LawResult
from xopt.conformance.target import Effort, Implementations, Target
from xopt.operations import average
from xopt.rule import Rule

NUMPY = [Target("numpy", "cpu", "eager")]


def test_items_are_complete() -> None:
    items = {item for law in LAWS for item in law.item}
    assert items | LEFT_OUT.keys() == set(range(1, 61))
    assert not items & LEFT_OUT.keys()


def test_laws_are_well_declared() -> None:
    assert len({law.name for law in LAWS}) == len(LAWS)
    for law in LAWS:
        assert law.sentence.endswith(".")
        assert law.source
        assert isinstance(law.kind, Kind)
        assert {*law.rules, *law.partners} <= xopt.RULES.keys()
        assert law.rules
        assert not {*law.rules} & {*law.partners}
    assert {rule for law in LAWS for rule in law.rules} == xopt.RULES.keys()


def assert_held(results: list[LawResult], rule: str) -> None:
    assert [r.law for r in results] == [law.name for law in LAWS if rule in law.rules]
    for result in results:
        expected = 1 if result.mode == "traced" else 2
        assert result.reason or (result.verdict == HELD and result.examples == expected), result
        assert result.ratio >= 0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("rule", ["nadam", "ademamix"])  # the conformance suite runs all
def test_laws_hold_on_numpy(rule: str, dtype: str) -> None:
    assert_held(check_laws(rule, dtype, NUMPY, Effort(2)), rule)


@pytest.mark.parametrize("rule", ["aggmo"])
def test_laws_hold_on_array_api_strict(rule: str) -> None:
    assert_held(check_laws(rule, "float32", [Target("array_api_strict", "cpu", "eager")], Effort(2)), rule)


def test_arguments_and_results_pickle() -> None:
    arguments = pickle.loads(pickle.dumps(("lion", "float32", NUMPY, Effort(2))))
    results = check_laws(*arguments, only=["negation"])
    assert pickle.loads(pickle.dumps(results)) == results


def test_unknown_law() -> None:
    with pytest.raises(ValueError, match=r"unknown law 'no such'; there are .*negation"):
        check_laws("sgd", "float32", NUMPY, Effort(1), only=["no such"])


def test_a_broken_law_is_reported_and_shrunk() -> None:
    (result,) = check_laws(
        "sgd", "float32", NUMPY, Effort(2), Implementations(xopt.RULES | {"sgd": drifting(xopt.sgd)}), ["negation"]
    )
    assert result.verdict == BROKEN
    assert result.found_after == 1
    assert result.broken is not None
    assert result.broken["distance"] > result.broken["bound"]


# Faults, each a wrong rule made of a right one.


def changed(rule: Rule[Any, Any], change: Callable[..., Any]) -> Rule[Any, Any]:
    """``change(update, params, *slots, grad, c)`` stands in for the rule's update."""

    def update(*arguments: Any) -> Any:
        return change(rule.elementwise, *arguments)

    return updating(rule, update)


def frozen(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    return changed(rule, lambda update, params, *rest: (params * 1.0, *update(params, *rest)[1:]))


def drifting(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    return changed(rule, lambda update, params, *rest: (update(params, *rest)[0] + 2.0**-6, *update(params, *rest)[1:]))


def biased(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    return changed(rule, lambda update, *rest: update(*rest[:-2], rest[-2] + 2.0**-6, rest[-1]))


def centred(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    return changed(rule, lambda update, *rest: update(*rest[:-2], rest[-2] - np.sum(rest[-2]), rest[-1]))


def by_place(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    def change(update: Any, *rest: Any) -> Any:
        weights = np.arange(rest[-2].size).reshape(rest[-2].shape).astype(rest[-2].dtype)
        return update(*rest[:-2], rest[-2] * (1 + weights), rest[-1])

    return changed(rule, change)


def coupled(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    return changed(rule, lambda update, params, *rest: update(params, *rest[:-2], rest[-2] + np.float32(0.5) * params, rest[-1]))


def inflated(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    """Averages twice as large."""

    def change(update: Any, *rest: Any) -> Any:
        new = update(*rest)
        twice = [slot * 2.0 if isinstance(slot, np.ndarray) else slot for slot in new[1:]]
        return new[0], *twice

    return changed(rule, change)


def corrected(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    """AdEMAMix whose slow average is corrected for its bias."""

    @functools.wraps(rule.coefficients)
    def coefficients(t: Any, *carried: Any, **hyper: Any) -> Any:
        c = rule.coefficients(t, *carried, **hyper)
        return c._replace(alpha=c.alpha / (1 - hyper["beta3"] ** t)) if rule.name == "ademamix" else c

    return Rule(rule.name, rule.state, coefficients, rule.elementwise, memory=rule.memory, carried=rule.carried)


def deaf(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    """NaN is taken for 0."""
    return changed(rule, lambda update, *rest: update(*rest[:-2], np.nan_to_num(rest[-2]), rest[-1]))


def impure(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    def change(update: Any, *rest: Any) -> Any:
        new = update(*rest)
        if rest[-2].ndim:
            rest[-2][...] = 0
        return new

    return changed(rule, change)


def aliasing(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    """The parameters are the memory that was there."""

    def change(update: Any, params: Any, *rest: Any) -> Any:
        new = update(params, *rest)
        params[...] = new[0]
        return params, *new[1:]

    return changed(rule, change)


def stepped(rule: Rule[Any, Any], step: Callable[..., Any]) -> Rule[Any, Any]:
    """``step(rule.step, state, grad, **hyper)`` stands in for the rule's step."""
    wrong = copied(rule)
    wrong.step = lambda state, grad, **hyper: step(rule.step, state, grad, **hyper)
    return wrong


def miscounting(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    return stepped(rule, lambda step, *rest, **hyper: (new := step(*rest, **hyper))._replace(step=new.step + 1))


def stateful(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    """Something is remembered that is not in the state."""
    calls = itertools.count()

    def step(step: Any, state: Any, grad: Any, **hyper: Any) -> Any:
        new = step(state, grad, **hyper)
        return new._replace(params=optree.tree_map(lambda x: x + x.dtype.type(next(calls)), new.params))

    return stepped(rule, step)


def credulous(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    """What is refused is ignored."""

    def step(step: Any, state: Any, grad: Any, **hyper: Any) -> Any:
        try:
            return step(state, grad, **hyper)
        except (TypeError, ValueError):
            return state

    return stepped(rule, step)


def one_for_all(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    """A tree of hyperparameters gives all leaves what it gives the first."""

    def first(hyper: dict[str, Any]) -> dict[str, Any]:
        return {name: optree.tree_leaves(x, none_is_leaf=True)[0] if isinstance(x, dict) else x for name, x in hyper.items()}

    wrong = stepped(rule, lambda step, *rest, **hyper: step(*rest, **first(hyper)))
    wrong._init = lambda params, **hyper: rule.init(params, **first(hyper))
    return wrong


def warm(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    """The slots start elsewhere, and the step count too."""
    wrong = copied(rule)

    def init(params: Any, **hyper: Any) -> Any:
        state = rule.init(params, **hyper)
        slots = [optree.tree_map(lambda x: x + 1, slot) for slot in state[1:-1]]
        return state._make([state.params, *slots, state.step if slots else 1])

    wrong._init = init
    return wrong


def redefaulted(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    return stepped(rule, lambda step, *rest, **hyper: step(*rest, **{"lr": 0.5} | hyper))


def unequal(rule: Rule[Any, Any]) -> Rule[Any, Any]:
    """The slots but the last are averaged once more."""

    def change(update: Any, *rest: Any) -> Any:
        new = update(*rest)
        if isinstance(new[1] if len(new) > 1 else None, tuple):
            first = new[1][0] * 1.25
            return new[0] + first, (first, *new[1][1:])
        return (new[0] + new[1] * 0.25, average(new[1], rest[-2], 0.25), *new[2:]) if len(new) > 1 else (new[0] * 0.5,)

    return changed(rule, change)


FAULTS = [
    deaf,
    by_place,
    centred,
    coupled,
    inflated,
    unequal,
    biased,
    frozen,
    corrected,
    credulous,
    one_for_all,
    redefaulted,
    aliasing,
    impure,
    miscounting,
    warm,
    stateful,
]
"""From the particular to the general: each must break a law that those before it leave whole."""


def broken_by(fault: Callable[[Rule[Any, Any]], Rule[Any, Any]], laws: set[str]) -> Iterator[str]:
    """The laws that a fault in the last of their rules breaks. Errors count of those faults alone that are made of NumPy: once bits
    differ, the bound is asked for, which such a fault cannot run on; and what writes to read-only memory ends in one."""
    kinds = {law.name: law.kind for law in LAWS}
    for name, rule in xopt.RULES.items():
        said = [law.name for law in LAWS if law.name in laws and name == law.rules[-1]]
        faulty = Implementations(xopt.RULES | {name: fault(rule)})
        for result in check_laws(name, "float32", NUMPY, Effort(2, shrink=False), faulty, said) if said else ():
            raised = result.broken is not None and "raised" in result.broken
            if result.broken is not None and (
                not raised or (fault in (deaf, by_place, centred, impure) and kinds[result.law] == "bits")
            ):
                yield result.law


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_each_law_breaks() -> None:
    whole = {law.name for law in LAWS}
    for fault in FAULTS:
        broken = set(broken_by(fault, whole))
        assert broken, fault.__name__
        whole -= broken
    assert not whole
