"""The formulas written by hand, which the benchmark times, are the rules' own: the same bits."""

from typing import Any

import numpy as np
import pytest

import xopt
from xopt.conformance.bench import BY_HAND, overhead


def columns(state: Any) -> list[Any]:
    return [tuple(x for x in c if x is not None) if isinstance(c, tuple) else c for c in state[:-1]]


@pytest.mark.parametrize("name", BY_HAND)
def test_formula_by_hand_gives_the_same_bits(name: str) -> None:
    rule = xopt.RULES[name]
    draw = np.random.default_rng(0)
    state = rule.init(draw.standard_normal(10).astype(np.float32))
    for t in range(1, 6):
        grad = draw.standard_normal(10).astype(np.float32)
        new = rule.step(state, grad)
        by_hand = BY_HAND[name](*columns(state), grad, t)
        assert np.array_equal(new.params, by_hand[0])
        state = new


def test_overhead_is_a_ratio_of_two_times() -> None:
    found = overhead("sgd", runs=3, number=20)
    assert found.step > 0
    assert found.by_hand > 0
    assert 0.1 < found.ratio < 100
