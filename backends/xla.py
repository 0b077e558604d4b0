"""Fused steps of JAX arrays: XLA compiles the recorded program of every leaf, with the bits of the eager step."""

import importlib
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

import numpy as np

from xopt.arrays import devices, is_shared, placed
from xopt.backends.base import rounded, say
from xopt.backends.donation import giving, mark_donated, refuse_donated, refuse_shared
from xopt.backends.forms import Compiled, calls, filled
from xopt.backends.fusing import Fuser, Leaf, Work, one_library
from xopt.operations import Array
from xopt.program import OPERATIONS, Program, numbers_of
from xopt.rule import Rule
from xopt.typed import Call

LEAVES = 256
"""Leaves that are compiled together: a second's work. For 1,000 at once XLA needs seven, and a step takes no less time."""


def fuser(rule: Rule[Any, Any], example: Array) -> Fuser:
    """Takes steps of JAX arrays, on one device or on several."""
    return _XLAFuser(rule, example)


class _XLAFuser:
    def __init__(self, rule: Rule[Any, Any], example: Array) -> None:
        self.rule = rule
        self.jax: Any = importlib.import_module("jax")
        self._type = type(example)
        self._updates = Compiled(rule, self._update)
        self._traces = 0

        def step(*arguments: Any) -> Any:
            self._traces += 1
            return _step(*arguments)

        step.__name__ = f"{rule.name}_step"
        # by default XLA uses half of a register of 512 bits; all of it makes up for what not contracting costs
        on_cpu = next(iter(example.sharding.device_set)).platform == "cpu"
        wide = {"xla_cpu_prefer_vector_width": 512} if on_cpu else None
        self._keeping = self.jax.jit(step, static_argnums=0, compiler_options=wide)
        # the buffer of an old value serves for the new one even where nothing reads it
        self._donating = self.jax.jit(step, static_argnums=0, donate_argnums=1, keep_unused=True, compiler_options=wide)

    def __call__(self, work: Work) -> list[Sequence[Any]]:
        _refuse_deleted(work)
        leaves, ordinary, alone = self._leaves(work)
        old = [leaf.arrays for leaf in leaves]
        tracing = self._tracing(leaves, ordinary)
        places = [] if tracing or alone else [[x.sharding for x in row] for row in old]
        donate = work.donate and not tracing
        if donate:
            _refuse_shared(work, old, alone)
        updates = self._updates.each(leaves)
        forms = [(update, x.shape, x.dtype, getattr(x, "sharding", None)) for update, (x, *_) in zip(updates, old, strict=True)]
        step = _step if tracing else self._donating if donate else self._keeping
        new: list[Any] = [None] * len(leaves)
        began, traces = time.monotonic(), self._traces
        # where a function of other arguments is being traced, its compilation is the outermost, which alone has options: leave it
        with giving(work) if donate else nullcontext(), nullcontext() if tracing else self.jax.ensure_compile_time_eval():
            for call in calls(forms, LEAVES):
                static, rows = _rows([leaves[i] for i in call], [updates[i] for i in call])
                grads = [leaves[i].grad if tracing or alone else placed(old[i][0], leaves[i].grad) for i in call]
                results = step(static, [old[i] for i in call], grads, rows, 1.0)
                for i, arrays in zip(call, results, strict=True):
                    new[i] = arrays
        took = time.monotonic() - began
        if self._traces > traces and took > 1:
            where = "JAX keeps it in jax_compilation_cache_dir, where that is set"
            say(f"xopt: compiled {self.rule.name}_step for jax in {took:.1f} s; {where}")
        if places:
            new = [[self._placed(place, x) for place, x in zip(*pair, strict=True)] for pair in zip(places, new, strict=True)]
        return list(zip(*[filled(leaf, arrays) for leaf, arrays in zip(leaves, new, strict=True)], strict=True))

    def _placed(self, place: Any, x: Array) -> Array:
        """A new array where the old one was: among several devices XLA may share it in another way."""
        alone = x.sharding == place or len(place.device_set) == 1
        return x if alone or x.sharding.is_equivalent_to(place, x.ndim) else self.jax.device_put(x, place)

    def _leaves(self, work: Work) -> tuple[list[Leaf], bool, bool]:
        """The leaves, checked, and whether all have arrays alone, and each of those one device.

        With arrays alone, to find that they are like those of the step before takes little time.
        """
        columns = [(name in self.rule.carried, slot) for name, slot in zip(self.rule.slots, work.slots, strict=True)]
        arrays = [*work.params, *work.grads, *chain.from_iterable(slot for number, slot in columns if not number)]
        ordinary = set(map(type, arrays)) == {self._type}  # no None, no tuple: then hyperparameters do not matter
        form = [x.aval for x in arrays] + [x.sharding for x in arrays] if ordinary else []
        known, kinds, alone = work.kept.get(self, (None, [], False))
        if not ordinary or form != known:
            there = devices(work.params[0])
            one_library(work, lambda x: devices(x) if type(x) is self._type else there)
            leaves = list(work.leaves())
            alone = ordinary and not any(map(is_shared, arrays))
            work.kept[self] = form, [leaf.typed for leaf in leaves], alone
            return leaves, ordinary, alone
        slots = [[1.0 if number else slot[i] for number, slot in columns] for i in range(len(work.params))]
        written = map(list, zip(work.params, *(slot for number, slot in columns if not number), strict=True))
        rest = zip(kinds, work.params, slots, work.grads, written, strict=True)
        return [Leaf(*leaf, *work.coefficients(i, leaf[0])) for i, leaf in enumerate(rest)], True, alone

    def _tracing(self, leaves: list[Leaf], ordinary: bool) -> bool:
        """Whether a compiler traces some of the arrays, though not the first."""
        numbers = [x for c in {id(leaf.c): leaf.c for leaf in leaves}.values() for x in numbers_of(c)]
        arrays = [] if ordinary else [x for leaf in leaves for x in (*leaf.arrays, leaf.grad)]
        return any(isinstance(x, self.jax.core.Tracer) for x in (*numbers, *arrays))

    def _update(self, program: Program) -> Callable[..., Any]:
        """The function of one leaf that is traced for a program.

        Each product is multiplied by a 1 that XLA does not know. What it contracts then is ``fma(a * b, 1, c)``, the sum of the
        eager step, rounded twice as there; without it, ``fma(a, b, c)`` is rounded once, which changes a third of the numbers.
        """
        xp = self.jax.numpy
        functions = OPERATIONS | {name: getattr(xp, name) for name in ("sqrt", "sign", "maximum", "minimum", "where")}

        def update(old: Any, grad: Any, c: Any, one: Any) -> Any:
            compute = self.rule.typed(Call(f"{self.rule.name}_step"), 0, grad).compute
            values = dict(zip(program.coefficients, c, strict=True))
            values |= {name: x.astype(compute) for name, x in zip(program.arrays, (*old, grad), strict=True)}
            for result, name, operands in program.operations:
                value = functions[name](*[values[x] if isinstance(x, str) else x for x in operands])
                values[result] = value * one if name == "multiply" else value
            return [values[name].astype(x.dtype) for name, x in zip(program.writes.values(), old, strict=True)]

        jitted: Callable[..., Any] = self.jax.jit(update)  # traced once for all leaves that are alike
        return jitted


def _step(static: Sequence[tuple[Any, int]], old: Any, grads: Any, rows: Any, one: Any) -> Any:
    """The new arrays of some leaves, given the update and the row of coefficients of each."""
    leaves = zip(static, old, grads, strict=True)
    return [update(arrays, grad, rows[row], one) for (update, row), arrays, grad in leaves]


def _rows(leaves: Sequence[Leaf], updates: Sequence[Any]) -> tuple[tuple[tuple[Any, int], ...], list[Any]]:
    """The update and the row of coefficients of each leaf, and those rows: arguments, so that other numbers compile nothing.

    Leaves with the same coefficients share a row, and others have one each, so that XLA can see that their loops are the same and
    compiles one for all; of places in one table it makes as many loops.
    """
    rows: dict[int, tuple[int, Any]] = {}
    for leaf in leaves:
        if id(leaf.c) not in rows:
            rows[id(leaf.c)] = len(rows), _row(leaf)
    static = tuple([(update, rows[id(leaf.c)][0]) for update, leaf in zip(updates, leaves, strict=True)])
    return static, [row for _, row in rows.values()]


def _row(leaf: Leaf) -> Any:
    numbers = numbers_of(leaf.c)
    if all(isinstance(x, float) for x in numbers):
        return rounded(numbers, np.dtype(leaf.typed.compute).name)
    return [leaf.typed.lifted(x) for x in numbers]


def _refuse_deleted(work: Work) -> None:
    """JAX deletes what it takes, but not an array that NumPy sees too: of that it takes a copy."""
    if work.params[0].is_deleted():
        mark_donated(work.token)
    refuse_donated(work)


def _refuse_shared(work: Work, old: list[list[Any]], alone: bool) -> None:
    """Raises ValueError where a buffer would be given away twice, or is needed for a gradient too: XLA takes neither."""
    if alone:
        pointers = [x.unsafe_buffer_pointer() for x in chain(*old, work.grads)]
        if len(set(pointers)) == len(pointers):
            return
    places = [(i, place) for i, arrays in enumerate(old) for x in arrays for place in _places(x)]
    grads = [(i, place) for i, x in enumerate(work.grads) for place in _places(x)]
    owners: dict[Any, int] = {}
    for i, place in places:
        if place in owners:
            refuse_shared(work, owners[place], i)
        owners[place] = i
    for i, place in grads:
        if place in owners:
            refuse_shared(work, owners[place], i)


def _places(x: Array) -> list[Any]:
    """Where an array is: the device of each part, and the address there. Of one without numbers JAX asks whether it is the same.

    The devices that a CPU is divided into may have one memory for what each has as a whole, which XLA keeps whoever gives it away.
    """
    if not x.size:
        return [id(x)]
    if len(x.sharding.device_set) == 1:
        return [(*x.sharding.device_set, x.unsafe_buffer_pointer())]
    return [(shard.device, shard.data.unsafe_buffer_pointer()) for shard in x.addressable_shards if shard.data.size]
