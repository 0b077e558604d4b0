"""Fused steps of JAX arrays: XLA compiles the recorded program of every leaf, with the bits of the eager step."""

import importlib
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter, methodcaller
from typing import Any

import numpy as np

from xopt.arrays import devices, is_shared, placed
from xopt.backends.base import rounded, say
from xopt.backends.fused.compiled import Compiled, calls
from xopt.backends.fused.donation import mark_donated, refuse_shared
from xopt.backends.fused.fuser import Fuser, Launch, Plan
from xopt.backends.fused.memory import Memory, anything
from xopt.backends.fused.work import TracedError, Work
from xopt.operations import Array
from xopt.program import OPERATIONS, Program, evaluate, numbers_of
from xopt.rule import Rule
from xopt.typed import Call, TypedRule

KEPT = 64
"""Divisions of a tree into calls that a plan keeps: one for each way in which leaves share coefficients."""

LEAVES = 256
"""Leaves that are compiled together: a second's work. For 1,000 at once XLA needs seven, and a step takes no less time."""


_aval, _sharding, _pointer = attrgetter("aval"), attrgetter("sharding"), methodcaller("unsafe_buffer_pointer")


class JaxMemory(Memory):
    """JAX's arrays, on one device or on several. What is given away is taken whole."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._jax: Any = importlib.import_module("jax")

    def form(self, x: Any) -> Hashable:
        return (x.aval, x.sharding) if type(x) is self._kind else anything()

    def forms(self, arrays: list[Any]) -> list[Hashable]:
        if set(map(type, arrays)) == {self._kind}:  # in a quarter of the time, as no call of Python is made for each
            return [*map(_aval, arrays), *map(_sharding, arrays)]
        return super().forms(arrays)

    def address(self, x: Any) -> int:
        return int(_pointer(x))

    def look(self, x: Any) -> Any:
        raise NotImplementedError

    def places(self, x: Any) -> list[tuple[Any, int, int]]:
        parts = [shard.data for shard in x.addressable_shards] if is_shared(x) else [x]
        return [(part.sharding, start := part.unsafe_buffer_pointer(), start + part.nbytes) for part in parts if part.size]

    def unfit(self, x: Any) -> str | None:  # noqa: ARG002 - all have tracers of their own
        return None

    def empty_like(self, x: Any) -> Any:
        raise NotImplementedError

    def alias(self, x: Any) -> Any:
        return self._jax.make_array_from_single_device_arrays(x.shape, x.sharding, [part.data for part in x.addressable_shards])

    def device(self, x: Any) -> Any:
        return devices(x)


class JaxPlan(Plan):
    """A plan, with what is compiled for it."""

    def __init__(self, work: Work, memory: Memory, columns: Sequence[Sequence[Any]], forms: Sequence[Any]) -> None:
        super().__init__(work, memory, columns, forms)
        arrays = [x for column in columns for x in column if x is not None]
        self.alone = not any(map(is_shared, arrays))  # whether each array is on one device
        self.wide = [i for i, typed in enumerate(self.typed) if typed.wide][:1]
        self.alike = len(set(map(id, self.typed))) == 1
        self.first = (0,) * len(self.typed)
        self.calls: dict[Any, list[Any]] = {}  # by which coefficients each leaf has, and which of those are 1


class JaxJitFuser(Fuser):
    """Takes steps of JAX arrays, on one device or on several."""

    def __init__(self, rule: Rule[Any, Any], example: Array) -> None:
        super().__init__(rule, JaxMemory(type(example)))
        self.jax: Any = importlib.import_module("jax")
        self._updates = Compiled(rule, self._update)
        self._traces = 0
        # by default XLA uses half of a register of 512 bits; all of it makes up for what not contracting costs
        on_cpu = next(iter(example.sharding.device_set)).platform == "cpu"
        self._options = {"xla_cpu_prefer_vector_width": 512} if on_cpu else None
        self._steps: dict[Any, tuple[Callable[..., Any], Callable[..., Any]]] = {}  # by update and row of each leaf

    def __call__(self, work: Work) -> Sequence[Sequence[Any]]:
        if work.params[0].is_deleted():  # JAX deletes what it takes, but not an array that NumPy sees too: of that it takes a copy
            mark_donated(work.token)
        try:
            return super().__call__(work)
        except RuntimeError as error:  # of JAX's, which names no leaf
            _refuse_deleted(work, error)
            raise

    def planned(self, work: Work, columns: Sequence[Sequence[Any]], forms: Sequence[Any]) -> Plan:
        self._refuse_traced(chain.from_iterable(columns))
        return JaxPlan(work, self.memory, columns, forms)

    def prepare(self, work: Work) -> Launch:
        columns = work.columns()
        plan = self.plan(work, columns)
        assert isinstance(plan, JaxPlan)
        for i in plan.wide:  # JAX may have been told otherwise since
            plan.typed[i].refuse_narrowed(work.call, i)
        rows, which = self._rows(work, plan)
        numbers = [numbers_of(c) for _, c, _ in rows]
        arguments = [_row(typed, own, plain) for (typed, _, plain), own in zip(rows, numbers, strict=True)]
        key = which, tuple([type(x) is float and x == 1.0 for own in numbers for x in own])
        chosen = plan.calls.get(key)
        if chosen is None:
            if len(plan.calls) >= KEPT:
                plan.calls.clear()
            chosen = plan.calls[key] = self._calls(work, plan, rows, which)
        old, grads = columns[:-1], columns[-1]
        if work.donate:
            _refuse_shared(work, columns, plan.alone)
        if not plan.alone:
            grads = [placed(x, grad) for x, grad in zip(work.params, grads, strict=True)]

        def launch() -> list[Any]:
            places = [] if plan.alone else [[None if x is None else x.sharding for x in column] for column in old]
            new = self._stepped(chosen, old, grads, arguments)
            if places:
                new = [list(map(self._placed, *pair)) for pair in zip(places, new, strict=True)]
            carried = [[typed.lifted(getattr(c, name)) for _, name, _ in self.rule.carried_at] for typed, c, _ in rows]
            return work.filled(new, [carried[at] for at in which])

        return launch

    def _rows(self, work: Work, plan: JaxPlan) -> tuple[list[tuple[TypedRule, Any, bool]], tuple[int, ...]]:
        """The coefficients that leaves share, the rule for them, whether they are numbers; and which ones each leaf has.

        Raises TracedError where some are traced.
        """
        if plan.alike and work.shared and not self.rule.carried_at:
            rows, which = [(plan.typed[0], *work.coefficients(0, plan.typed[0]))], plan.first
        else:
            order: dict[int, int] = {}
            rows, found = [], []
            for i, typed in enumerate(plan.typed):
                c, plain = work.coefficients(i, typed)
                if id(c) not in order:
                    order[id(c)] = len(rows)
                    rows.append((typed, c, plain))
                found.append(order[id(c)])
            which = tuple(found)
        for _, c, plain in rows:
            if not plain:
                self._refuse_traced(numbers_of(c))
        return rows, which

    def _calls(self, work: Work, plan: JaxPlan, rows: Sequence[Any], which: Sequence[int]) -> list[Any]:
        """Which leaves are stepped together, and by what."""
        own = [rows[at][1] for at in which]
        leaves = [work.assembled(i, typed, c, plain=True) for i, (typed, c) in enumerate(zip(plan.typed, own, strict=True))]
        updates = self._updates.each(leaves)
        forms = [(update, x.shape, x.dtype, x.sharding) for update, x in zip(updates, work.params, strict=True)]
        return [(call, self._step(work.donate, tuple([(updates[i], which[i]) for i in call]))) for call in calls(forms, LEAVES)]

    def _step(self, donate: bool, leaves: tuple[tuple[Any, int], ...]) -> Callable[..., Any]:
        """The step of some leaves, given the update and the row of coefficients of each. JAX compiles it for each shape."""
        if leaves not in self._steps:
            self._steps[leaves] = self._jitted(leaves)
        return self._steps[leaves][donate]

    def _jitted(self, leaves: tuple[tuple[Any, int], ...]) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Both that keep and that donate the old arrays."""

        def step(old: Any, grads: Any, rows: Any) -> Any:
            self._traces += 1
            new = []
            for (update, row), grad, *slots in zip(leaves, grads, *old, strict=True):
                results = iter(update([x for x in slots if x is not None], grad, rows[row]))
                new.append([None if x is None else next(results) for x in slots])
            return list(map(list, zip(*new, strict=True)))

        step.__name__ = f"{self.rule.name}_step"
        jit = partial(self.jax.jit, step, compiler_options=self._options)
        return jit(), jit(donate_argnums=0, keep_unused=True)  # the buffer of an old value serves for the new one, read or not

    def _stepped(self, chosen: Sequence[Any], old: Sequence[Any], grads: Sequence[Any], rows: Sequence[Any]) -> list[Any]:
        """The new columns."""
        new: list[Any] = [list(column) for column in old] if len(chosen) > 1 else []
        began, traces = time.monotonic(), self._traces
        # where a function of other arguments is being traced, its compilation is the outermost, which alone has options: leave it
        with self.jax.ensure_compile_time_eval():
            if not new:  # one call, of all leaves in their order
                new = chosen[0][1](old, grads, rows)
            for call, step in chosen if len(chosen) > 1 else ():
                results = step([[column[i] for i in call] for column in old], [grads[i] for i in call], rows)
                for column, some in zip(new, results, strict=True):
                    for i, x in zip(call, some, strict=True):
                        column[i] = x
        took = time.monotonic() - began
        if self._traces > traces and took > 1:
            where = "JAX keeps it in jax_compilation_cache_dir, where that is set"
            say(f"xopt: compiled {self.rule.name}_step for jax in {took:.1f} s; {where}")
        return new

    def _placed(self, place: Any, x: Array) -> Array:
        """A new array where the old one was: among several devices XLA may share it in another way."""
        if x is None:
            return x
        alone = x.sharding == place or len(place.device_set) == 1
        return x if alone or x.sharding.is_equivalent_to(place, x.ndim) else self.jax.device_put(x, place)

    def _refuse_traced(self, values: Iterable[Any]) -> None:
        tracer = self.jax.core.Tracer
        if any(isinstance(x, tracer) for x in values):
            msg = f"{self.rule.name}_step, fused: an argument is traced"
            raise TracedError(msg)

    def _update(self, program: Program) -> Callable[..., Any]:
        """The function of one leaf that is traced for a program.

        Each product is multiplied by a 1 that XLA does not know. What it contracts then is ``fma(a * b, 1, c)``, the sum of the
        eager step, rounded twice as there; without it, ``fma(a, b, c)`` is rounded once, which changes a third of the numbers.
        """
        xp = self.jax.numpy
        functions = OPERATIONS | {name: getattr(xp, name) for name in ("sqrt", "sign", "maximum", "minimum", "where")}

        def update(old: Any, grad: Any, row: Any) -> Any:
            compute = self.rule.typed(Call(f"{self.rule.name}_step"), 0, grad).compute
            *c, one = row
            values = dict(zip(program.coefficients, c, strict=True))
            values |= {name: x.astype(compute) for name, x in zip(program.arrays, (*old, grad), strict=True)}
            evaluate(program.operations, functions | {"multiply": lambda x, y: x * y * one}, values)
            return [values[name].astype(x.dtype) for name, x in zip(program.writes.values(), old, strict=True)]

        jitted: Callable[..., Any] = self.jax.jit(update)  # traced once for all leaves that are alike
        return jitted


def _refuse_deleted(work: Work, error: RuntimeError) -> None:
    """Raises ValueError where an array is not there any more."""
    for i, grad in enumerate(work.grads):
        if any(x.is_deleted() for x in (*work.written(i), grad)):
            msg = f"{work.where(i)}, a slot of it or its gradient was given away before: JAX has deleted it; pass one that is there"
            raise ValueError(msg) from error


def _row(typed: TypedRule, numbers: list[Any], plain: bool) -> Any:
    """Coefficients, and a 1, as an argument: so that other numbers compile nothing.

    Leaves with the same coefficients share a row, and others have one each, so that XLA can see that their loops are the same and
    compiles one for all; of places in one table it makes as many loops.
    """
    if plain or all(isinstance(x, float) for x in numbers):
        return rounded([*numbers, 1.0], np.dtype(typed.compute))
    return [*map(typed.lifted, numbers), 1.0]


def _refuse_shared(work: Work, columns: Sequence[Sequence[Any]], alone: bool) -> None:
    """Raises ValueError where a buffer would be given away twice, or is needed for a gradient too: XLA takes neither."""
    if alone:
        arrays = [x for column in columns for x in column if x is not None]
        if len(set(map(_pointer, arrays))) == len(arrays):
            return
    *old, grads = [[(i, place) for i, x in enumerate(column) if x is not None for place in _places(x)] for column in columns]
    owners: dict[Any, int] = {}
    for i, place in chain.from_iterable(old):
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
