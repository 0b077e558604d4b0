"""A run that moves from library to library ends in the bits of one that stays: the documented way, for every rule."""

import jax.numpy as jnp
import numpy as np
import optree
import pytest
import torch

import xopt
from xopt.backends import fuse

LIBRARIES = [torch.tensor, np.asarray, jnp.asarray, torch.tensor]


def moved(state, array):
    return optree.tree_map(lambda x: x if isinstance(x, int | float) else array(np.asarray(x)), state)


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("rule", xopt.RULES.values(), ids=lambda rule: rule.name)
def test_a_run_that_moves_has_the_bits_of_one_that_stays(rule, donate):
    rng = np.random.default_rng(0)
    gradients = [
        {"w": np.exp2(rng.integers(-8, 8, (3, 5))).astype(np.float32) * rng.standard_normal((3, 5), np.float32), "b": None}
        for _ in range(12)
    ]
    for t in (0, 5, 6, 11):  # so that leaves part ways, too
        gradients[t]["b"] = rng.standard_normal(4, np.float32)
    step = fuse(rule, donate=donate)
    start = {"w": rng.standard_normal((3, 5), np.float32), "b": np.zeros(4, np.float32)}

    def run(libraries):
        state = moved(rule.init(start), libraries[0])
        for t, gradient in enumerate(gradients):
            array = libraries[t * len(libraries) // 12]
            grad = {name: None if g is None else array(g) for name, g in gradient.items()}
            state = step(moved(state, lambda x, array=array: array(x.copy())), grad, lr=0.01)
        return state

    moving, stayed = run(LIBRARIES), run([torch.tensor])
    assert moving.step == stayed.step == {"w": 12, "b": 4}
    for one, other in zip(optree.tree_leaves(moving[:-1]), optree.tree_leaves(stayed[:-1]), strict=True):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
