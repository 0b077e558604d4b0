"""All that is timed: the rules, eager and fused, on each library, beside the limits, the formula by hand and the peers."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from xopt import backends
from xopt.backends import BACKENDS, fuse
from xopt.conformance.bench.by_hand import BY_HAND
from xopt.conformance.bench.contender import (
    EAGER,
    FUSED,
    HAND,
    Contender,
    Running,
    leaves,
    loop_of,
    no_device,
    numbers,
    program_of,
    tree,
)
from xopt.conformance.bench.limits import copy, copy_on, touch
from xopt.conformance.bench.peers import peers as peers_of
from xopt.conformance.bench.shapes import Shape
from xopt.rules import RULES

PLACES = (("numpy", "cpu"), ("torch", "cpu"), ("torch", "cuda:0"), ("jax", "cpu"), ("jax", "gpu:0"), ("cupy", "cuda:0"))
"""Where the rules are stepped."""


def contenders(rule: str, peers: bool = False) -> list[Contender]:
    """All that step a rule, or show what limits it; where there is no room for all, the first go first."""
    fused, eager = ([ours(rule, *place, mode) for place in PLACES] for mode in (FUSED, EAGER))
    copies = [copy(), *(copy_on(*place) for place in PLACES if place[1] == "cuda:0")]
    hand = [by_hand(rule)] if rule in BY_HAND else []  # a new rule may have none
    return [*fused, touch(rule), *copies, *(peers_of(rule) if peers else ()), *hand, *eager]


def ours(rule: str, name: str, device: str, mode: str) -> Contender:
    """A rule of xopt."""
    found = RULES[rule]

    def prepare(shapes: Sequence[Shape], seed: int) -> Running:
        backend = backends.get(name, device)
        params, grads = (tree([backend.asarray(x, "float32") for x in column]) for column in numbers(shapes, seed))
        state = found.init(params)
        take: Callable[..., Any] = fuse(found, donate=True) if mode == FUSED else found.step
        # as in a training loop, and in the steps of torch.optim
        quiet = backend.lib.no_grad if name == "torch" else nullcontext

        def step() -> None:
            nonlocal state
            with quiet():
                state = take(state, grads)

        def renew(fresh: list[Any]) -> None:
            nonlocal grads
            grads = tree(fresh)

        return Running(
            step,
            lambda: backend.synchronise(state.params),
            lambda: [backend.to_numpy(x) for x in leaves(state.params)],
            loop_of(backend, leaves(grads), renew),
        )

    def why_not() -> str | None:
        if mode == FUSED and not BACKENDS[name].compilers:
            return f"{name} has no compiler for a fused step"
        return no_device(name, device)

    program = program_of(rule)
    where = name if name == "numpy" else f"{name} {device}"
    moved = program.bytes_per_number(4, 4)
    return Contender(f"{where} {mode}", name, device, mode, rule, moved, len(program.arrays), why_not, prepare)


def by_hand(rule: str) -> Contender:
    """The formula in NumPy, in new arrays at each step."""

    def prepare(shapes: Sequence[Shape], seed: int) -> Running:
        params, grads = numbers(shapes, seed)
        states: list[Any] = [[_all(column) for column in RULES[rule].init(x)[:-1]] for x in params]
        t = 0

        def step() -> None:
            nonlocal t
            t += 1
            states[:] = [BY_HAND[rule](*state, grad, t) for state, grad in zip(states, grads, strict=True)]

        return Running(step, lambda: None, lambda: [state[0] for state in states])

    program = program_of(rule)
    return Contender(
        "by hand", "numpy", "cpu", HAND, rule, program.bytes_per_number(4, 4), len(program.arrays), lambda: None, prepare
    )


def _all(column: Any) -> Any:
    """A column of a state; of a tuple, the arrays that there are."""
    return tuple(x for x in column if x is not None) if isinstance(column, tuple) else column
