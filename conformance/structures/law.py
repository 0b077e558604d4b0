"""The law of structures: all ways to take a step agree on every leaf by its path, or all refuse; nothing else is touched.

What is expected of a leaf comes from that leaf alone: the plain step of one contiguous NumPy array, with its own hyperparameters,
found by its path. What must be refused is read off the situation as it was drawn, and off memory.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from types import FrameType, ModuleType
from typing import Any, NoReturn

import numpy as np

from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, arithmetic_of, round_to
from xopt.conformance.compare.reference import Reference
from xopt.conformance.golden import GOLDENS
from xopt.conformance.results import BrokenError
from xopt.conformance.structures import parts, paths
from xopt.conformance.structures.memory import Snapshot, cannot_be_given
from xopt.conformance.structures.situation import COMPILED_IN, CONSTANTS, Mode, Names, Situation
from xopt.conformance.target import Target
from xopt.rule import Rule
from xopt.rules import RULES

OF_VALUE = ("a count below 0", "a carried number beyond its range")
"""Troubles that no check sees while a compiler traces: a count and what is carried have a type then, and no value."""
INTERRUPTIONS = 8
"""Places of a step that is interrupted: what is written is written in a tenth of its lines."""


def _fail(what: str, error: Exception | None = None) -> NoReturn:
    raise BrokenError(what) from error


@dataclass
class Product:
    """What is under test: xopt as it is imported, or a copy of it with something planted."""

    xopt: ModuleType = field(default_factory=lambda: import_module("xopt"))
    backends: ModuleType = field(default_factory=lambda: import_module("xopt.backends"))

    def module(self, name: str) -> Any:
        """One of ``xopt.backends.compilers``."""
        return import_module(f"xopt.backends.compilers.{name}")


@dataclass
class Tally:
    """What was compared."""

    numbers: int = 0
    ratio: float = 0.0


@dataclass
class Leaf:
    """One leaf of a state before a step, with all that belongs to it."""

    path: paths.Path
    params: Any
    slots: list[Any]
    grad: Any
    hyper: dict[str, Any]
    dtype: str  # by name
    places: list[list[tuple[str, Any]]]  # of the arrays of params and of each slot: device, and sharding where there is one
    count: Any  # of its steps
    before: tuple[Any, list[Any], Any] = (None, [], None)  # params, slots and gradient as NumPy arrays of their own

    @property
    def idle(self) -> bool:
        """Whether it stays as it is, as it has no gradient."""
        return self.grad is None

    @property
    def t(self) -> int:
        """The count before the step."""
        return int(self.count)


class Play:
    """Plays situations on one library."""

    def __init__(self, product: Product, backend: Any, target: Target) -> None:
        self.product = product
        self.backend = backend
        self.target = target  # in whose bounds numbers may differ
        self.tally = Tally()
        self.trouble: tuple[str, str] | None = None  # what is being refused

    def forget(self) -> None:
        """What was tried last that must be refused."""
        self.trouble = None

    def run(self, situation: Situation, mode: Mode) -> None:
        """Raises BrokenError, with what is wrong, or whatever is raised that must not be."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._session(situation))
            stack.enter_context(np.errstate(all="ignore"))
            stack.enter_context(_constants(self.product, situation))
            if situation.library == "torch" and mode.mode == "traced":  # at its limit torch would give up on this code for good
                limits = dict.fromkeys(("recompile_limit", "accumulated_recompile_limit"), 1000)
                stack.enter_context(import_module("torch")._dynamo.config.patch(limits))
            names = self._start(situation)
            self._check_start(situation, names)
            for line in (*situation.changes, situation.step(mode)):
                exec(line, names)
            if not mode.refusals:
                self._before(situation, names)
            if situation.threads and not mode.refusals:
                self._in_threads(situation, mode, names)
            for i, stage in enumerate(situation.stages):
                for line in stage:
                    exec(line, names)
                if situation.troubles and i + 1 == len(situation.stages):
                    self._troubled(situation, mode, names)
                    return
                if i == 0 and situation.interrupt is not None and mode.mode != "traced" and not mode.refusals:
                    self._interrupted(situation, mode, names)
                    return
                if not self._stage(situation, mode, names):
                    return

    def _before(self, situation: Situation, names: Names) -> None:
        """Other steps of the same function: they are refused where the one that is looked at is, for a graph that is recorded."""
        for line in situation.before:
            try:
                exec(line, names)
            except (TypeError, ValueError) as error:
                if not situation.graph:
                    raise
                _ours(situation, error)

    def _session(self, situation: Situation) -> contextlib.AbstractContextManager[Any]:
        if situation.graph:
            return import_module("torch").enable_grad()  # type: ignore[no-any-return]
        return self.backend.session()  # type: ignore[no-any-return]

    def _start(self, situation: Situation) -> Names:
        names: Names = {name: getattr(parts, name) for name in parts.__all__}
        names |= {"xopt": self.product.xopt, "fuse": self.product.backends.fuse, "get": self.product.backends.get}
        if situation.library not in ("numpy", "array_api_strict"):
            names[situation.library] = import_module(situation.library)
        if situation.library == "jax":
            parts.register_with_jax()
        for line in situation.setup:
            exec(line, names)
        return names

    # What is expected.

    def _check_start(self, situation: Situation, names: Names) -> None:
        """Whether ``init`` gave each leaf the slots that it gives that leaf alone."""
        rule, state, hyper = RULES[situation.rule], names["state"], names["hyper"]
        for name, column in zip(rule.slots, state[1:-1], strict=True):
            _must(paths.same_form(state.params, column), f"state.{name} after init: ")
        for path, x in paths.leaves(state.params):
            own, dtype = _own(hyper, path), _dtype(x)
            alone = rule.bind(**own).init(np.zeros(tuple(x.shape), arithmetic_of(dtype)))
            for name, column, want in zip(rule.slots, state[1:-1], alone[1:-1], strict=True):
                where = f"state.{name}{paths.code(path)} after init"
                self._same_slot(where, paths.at(column, path), want, arithmetic_of(dtype))

    def _same_slot(self, where: str, got: Any, want: Any, dtype: str) -> None:
        if isinstance(want, tuple):
            if not isinstance(got, tuple) or len(got) != len(want):
                _fail(f"{where} is {got!r} and must be {len(want)} arrays")
            for one, other in zip(got, want, strict=True):
                self._same_slot(where, one, other, dtype)
        elif want is None or isinstance(want, float):
            if got is not want and got != want:
                _fail(f"{where} is {got!r} and must be {want!r}")
        else:
            if getattr(got, "shape", None) is None or tuple(got.shape) != want.shape or _dtype(got) != dtype:
                _fail(f"{where} is {_short(got)} and must be {dtype} of shape {want.shape}")
            self._same_numbers(where, self._numpy(got), want)

    def _leaves(self, state: Any, grad: Any, hyper: Any) -> list[Leaf]:
        found = []
        for path, x in paths.leaves(state.params):
            slots = [paths.at(column, path) for column in state[1:-1]]
            places = [list(map(_place, _arrays((column,)))) for column in (x, *slots)]
            count = paths.prefix_at(state.step, path)
            leaf = Leaf(path, x, slots, paths.at(grad, path), _own(hyper, path), _dtype(x), places, count)
            leaf.before = self._numpy(x), [self._each(slot) for slot in slots], None if leaf.idle else self._numpy(leaf.grad)
            found.append(leaf)
        return found

    def _each(self, slot: Any) -> Any:
        if isinstance(slot, tuple):
            return tuple(map(self._each, slot))
        if slot is None:
            return None
        return self._numpy(slot) if getattr(slot, "shape", ()) or hasattr(slot, "dtype") else float(slot)

    def _numpy(self, x: Any) -> Any:
        """The numbers, in the machine's byte order, in memory of their own."""
        if not isinstance(x, np.ndarray | np.generic):
            x = self.backend.to_numpy(x.detach().resolve_neg() if hasattr(x, "resolve_neg") else x)
        x = np.asarray(x)
        return np.array(x, x.dtype.newbyteorder("="), order="C")

    def _expected(self, situation: Situation, leaf: Leaf) -> list[Any]:
        """The new params and slots of a leaf, alone."""
        rule = RULES[situation.rule]
        params, slots, grad = leaf.before
        slots = [float(slot) if name in rule.carried else slot for name, slot in zip(rule.slots, slots, strict=True)]
        own = {name: _number(value) for name, value in leaf.hyper.items()}
        new = list(rule.step(rule.state(params, *slots, leaf.t), grad, **own)[:-1])
        if leaf.dtype == "bfloat16":
            new[0] = round_to(new[0].astype(np.float64), "bfloat16").astype(np.float32)
        return new

    # A step.

    def _troubled(self, situation: Situation, mode: Mode, names: Names) -> None:
        """What must be refused is, one after the other, by one state."""
        for trouble in situation.troubles:
            if mode.mode == "traced" and trouble[0] in OF_VALUE:
                continue
            self.trouble = trouble
            own = dict(names)
            exec(trouble[1], own)
            arrays = list(_arrays((*own["state"][:-1], own["grad"])))
            memory, values = Snapshot(arrays), [self._seen(x) for x in arrays]
            self._refuses(situation, partial(own["step"], own["state"], own["grad"], **own["hyper"]), trouble[0])
            _unchanged(memory.changed() or self._changed(arrays, values), "a refused step")
        self.trouble = None

    def _stage(self, situation: Situation, mode: Mode, names: Names) -> bool:
        """Takes a step and judges it. Whether there is a state to go on with."""
        state, grad, hyper, step = (names[name] for name in ("state", "grad", "hyper", "step"))
        arrays = list(_arrays((*state[:-1], grad)))
        memory, values = Snapshot(arrays), [self._seen(x) for x in arrays]
        leaves = self._leaves(state, grad, hyper)
        stepped = [leaf for leaf in leaves if not leaf.idle]
        given_away = [x for leaf in stepped for x in _arrays((leaf.params, *leaf.slots))] if mode.donate else []
        versions = [_version(x) for x in given_away]
        why = self._why_refused(situation, mode, leaves)
        if mode.refusals and why in (None, "may"):
            return False
        if why == "may":
            try:
                new = step(state, grad, **hyper)
            except (TypeError, ValueError) as error:
                _ours(situation, error)
                _unchanged(memory.changed() or self._changed(arrays, values), "a refused step")
                return False
        elif why:
            self._refuses(situation, lambda: step(state, grad, **hyper), why)
            _unchanged(memory.changed() or self._changed(arrays, values), "a refused step")
            return False
        else:
            new = step(state, grad, **hyper)
        if any(x.numel() and _version(x) == n for x, n in zip(given_away, versions, strict=True) if n is not None):
            _fail("a tensor that was written over has the version that it had: a graph that has saved it would not see that")
        gone = set(map(id, given_away))
        kept = [i for i, x in enumerate(arrays) if id(x) not in gone]  # the gradients of a donated state
        values = [values[i] for i in kept]
        _unchanged(memory.changed(given_away) or self._changed([arrays[i] for i in kept], values), "a step")
        self._judge(situation, mode, leaves, state, new)
        if mode.donate and stepped:
            keeping = self.product.backends.fuse(getattr(self.product.xopt, situation.rule), compiler=mode.compiler)
            for again, other in ((step, grad), (keeping, grad), (keeping, state.params)):  # of which no leaf lacks a gradient
                self._refuses(situation, partial(again, state, other, **hyper), "a state that was donated")
            self._in_place(leaves, new)
        names["state"] = new
        return True

    def _why_refused(self, situation: Situation, mode: Mode, leaves: list[Leaf]) -> str | None:
        stepped = [leaf for leaf in leaves if not leaf.idle]
        if mode.mode != "fused" or not stepped:
            return None
        torch = sys.modules.get("torch")
        everything = _everything(stepped)
        if torch is not None and torch.is_grad_enabled() and any(getattr(x, "requires_grad", False) for x in everything):
            return "an array that requires a gradient"
        if not mode.donate:
            return None
        written = [(list(_arrays((leaf.params, *leaf.slots))), leaf.grad) for leaf in leaves]
        if any(isinstance(leaf.params, np.generic) for leaf in stepped):
            return "a NumPy scalar that is to be written over"
        if any(_special(x) for x in everything):
            return "an array with rules of its own, to be written over"
        if any(_negated(x) for some, grad in written if grad is not None for x in some):
            return "a negated view that is to be written over"
        found = cannot_be_given(written)
        if any(_special(x) or _negated(x) or isinstance(x, np.generic) for some, grad in written if grad is None for x in some):
            found = found or "may"  # its memory may be another leaf's
        if found is None and situation.library == "jax":
            shared = [id(x) for some, grad in written for x in (*some, grad)]
            found = "may" if len(set(shared)) < len(shared) else None
        return "memory that cannot be written over" if found == "must" else found

    def _refuses(self, situation: Situation, call: Callable[[], Any], why: str) -> None:
        try:
            new = call()
        except (TypeError, ValueError) as error:
            _ours(situation, error)
            self.tally.numbers += 1
        else:
            _fail(f"{why} is not refused; the result is {_short(new)}")

    def _judge(self, situation: Situation, mode: Mode, leaves: list[Leaf], state: Any, new: Any) -> None:
        """Whether the state after a step is the one of each leaf alone, in the form that was given."""
        rule = RULES[situation.rule]
        if type(new) is not type(state):
            _fail(f"the state is a {type(new).__name__}")
        for leaf in leaves:
            count = paths.prefix_at(new.step, leaf.path)
            exact = mode.mode != "traced" and not situation.traced and not leaf.idle
            if int(count) != leaf.t + (not leaf.idle) or (exact and type(count) is not int):
                _fail(f"state.step is {new.step!r} after {state.step!r} and one step")
        sorts = mode.mode == "traced" and situation.library != "torch"  # jax.jit gives a dict back with its keys sorted
        if len({leaf.idle for leaf in leaves}) < 2 and not sorts:
            _must(paths.same_form(state.step, new.step), "state.step: ")
        names = ("params", *rule.slots)
        stepped = [leaf for leaf in leaves if not leaf.idle]
        if mode.mode == "fused" and any(_special(x) or _negated(x) for x in _everything(stepped)):
            mode = Mode("eager")  # which takes a tree that holds what is more than its numbers in memory
        for name, column in zip(names, new[:-1], strict=True):
            if not sorts:
                _must(paths.same_form(state.params, column), f"state.{name}: ")
        for leaf in leaves:
            got = [paths.at(column, leaf.path) for column in new[:-1]]
            if leaf.idle:
                self._left_alone(rule, leaf, got)
                continue
            if _special(leaf.params) or _special(leaf.grad):
                self._same_as_alone(situation, leaf, got)
                continue
            self._same_kind(leaf, got, moves=mode.mode == "traced" and situation.library != "torch")
            if situation.graph and _differentiated(leaf) and not got[0].requires_grad:
                _fail(f"no graph leads to state.params{paths.code(leaf.path)}")
            want = self._expected(situation, leaf)
            try:
                for name, one, other in zip(names, got, want, strict=True):
                    self._same(f"state.{name}{paths.code(leaf.path)}", one, other)
            except BrokenError as error:
                self._within(situation, mode, leaf, got, want, error)

    def _left_alone(self, rule: Rule[Any, Any], leaf: Leaf, got: list[Any]) -> None:
        """Whether a leaf without a gradient is what it was, bit for bit. What it carries may have become an array."""

        def seen(slots: Sequence[Any]) -> list[Any]:
            return [float(x) if name in rule.carried else x for name, x in zip(rule.slots, slots, strict=True)]

        before = [leaf.before[0], *seen(leaf.before[1])]
        after = [self._numpy(got[0]), *seen(list(map(self._each, got[1:])))]
        for was, now in zip(_bits(before), _bits(after), strict=True):
            if was != now:
                _fail(f"state.params{paths.code(leaf.path)} or a slot of it has changed, without a gradient")
        self.tally.numbers += leaf.before[0].size

    def _same_kind(self, leaf: Leaf, got: list[Any], moves: bool) -> None:
        """Type, dtype with its byte order, shape, device and sharding; but not where ``jax.jit`` moves its results as it likes."""
        params, where = got[0], f"state.params{paths.code(leaf.path)}"
        if not hasattr(params, "shape") or isinstance(params, np.generic):
            _fail(f"{where} is a {type(params).__name__}, no array")
        if params.dtype != leaf.params.dtype:
            _fail(f"{where} is {params.dtype!r} and was {leaf.params.dtype!r}")
        if tuple(params.shape) != tuple(leaf.params.shape):
            _fail(f"{where} has shape {tuple(params.shape)} and had {tuple(leaf.params.shape)}")
        for places, column in zip(leaf.places, got, strict=True) if not moves else ():
            for (device, sharding), x in zip(places, _arrays((column,)), strict=False):  # a carried number comes back as a float
                if sharding is not None and not x.sharding.is_equivalent_to(sharding, x.ndim):
                    _fail(f"{where} or a slot of it is placed as {x.sharding} and was as {sharding}")
                if sharding is None and _place(x)[0] != device:
                    _fail(f"{where} or a slot of it is on {x.device} and was on {device}")
        for old, x in zip(leaf.slots, got[1:], strict=True):
            for one, other in zip(_arrays((old,)), _arrays((x,)), strict=False):
                if hasattr(one, "shape") and one.shape and _dtype(other) != arithmetic_of(leaf.dtype):
                    _fail(f"a slot of {where} is {_dtype(other)}")

    def _same_as_alone(self, situation: Situation, leaf: Leaf, got: list[Any]) -> None:
        """For an array with rules of its own: the plain step of it as it is."""
        rule = getattr(self.product.xopt, situation.rule)
        own = {name: _number(value) for name, value in leaf.hyper.items()}
        slots = [float(slot) if name in rule.carried else slot for name, slot in zip(rule.slots, leaf.slots, strict=True)]
        alone = rule.step(rule.state(leaf.params, *slots, leaf.t), leaf.grad, **own)
        for one, other in zip(_arrays(tuple(got)), _arrays(tuple(alone[:-1])), strict=True):
            if type(one) is not type(other):
                _fail(f"{paths.code(leaf.path)} is a {type(one).__name__}, and alone a {type(other).__name__}")
            if isinstance(one, np.ma.MaskedArray):
                if not np.array_equal(np.ma.getmaskarray(one), np.ma.getmaskarray(other)):
                    _fail(f"{paths.code(leaf.path)} has another mask")
                one, other = one.filled(0), other.filled(0)
            self._same_numbers(paths.code(leaf.path), self._numpy(one), self._numpy(other))

    def _same(self, where: str, got: Any, want: Any) -> None:
        if isinstance(want, tuple):
            if not isinstance(got, tuple) or len(got) != len(want):
                _fail(f"{where} is {got!r} and must be {len(want)} arrays")
            for one, other in zip(got, want, strict=True):
                self._same(where, one, other)
        elif want is None:
            if got is not None:
                _fail(f"{where} is {_short(got)} and must be None")
        elif got is None:
            _fail(f"{where} is None and must be {_short(want)}")
        else:
            self._same_numbers(where, self._numpy(got) if hasattr(got, "dtype") else np.asarray(got), np.asarray(want))

    def _same_numbers(self, where: str, got: Any, want: Any) -> None:
        """Bit for bit, but for the sign of a zero and the payload of a NaN."""
        if got.shape != want.shape:
            _fail(f"{where} has shape {got.shape} and must have {want.shape}")
        differ = (got != want) & ~(np.isnan(got) & np.isnan(want))
        self.tally.numbers += got.size
        if np.any(differ):
            _fail(f"{where} is {_short(got)} and must be {_short(want)}")

    def _within(self, situation: Situation, mode: Mode, leaf: Leaf, got: list[Any], want: list[Any], broken: BrokenError) -> None:
        """Whether numbers with other bits are within their bound: where the library is known not to have NumPy's bits."""
        compute = self.target.compute(leaf.dtype, mode.mode)
        traced = situation.traced or mode.mode == "traced"
        exact = mode.compiler in ("numba", "blocks") or compute == FLOAT_FORMATS[compute.name]
        if exact and not traced:
            raise broken

        def flat(x: Any) -> Any:
            if isinstance(x, tuple):
                return tuple(map(flat, x))
            return None if x is None else float(x) if not np.ndim(x) and not hasattr(x, "dtype") else np.ravel(x).astype(np.float64)

        for one, other in zip(_arrays(tuple(got)), _arrays(tuple(want)), strict=False):
            if np.any(np.isnan(self._numpy(one)) != np.isnan(other)):  # of NaN no bound says anything
                raise broken
        rule = RULES[situation.rule]
        own = {name: _number(value) for name, value in leaf.hyper.items()}
        params, slots, grad = leaf.before
        slots = [float(slot) if name in rule.carried else slot for name, slot in zip(rule.slots, slots, strict=True)]
        after = [flat(got[0] if got[0] is None else self._numpy(got[0]))]
        for name, x in zip(rule.slots, got[1:], strict=True):
            after.append(float(x) if name in rule.carried else flat(self._each(x)))
        reference = Reference(rule, own, compute, FLOAT_FORMATS[leaf.dtype], traced, GOLDENS[situation.rule])
        reference.restart((flat(params), *map(flat, slots)))
        for comparison in reference.step(flat(grad), leaf.t + 1, tuple(after)):
            ratio = float(np.max(np.nan_to_num(np.ravel(comparison.ratio)), initial=0.0))
            if ratio > 1:
                _fail(f"{broken} to within {ratio:.3g} of the bound")
            self.tally.ratio = max(self.tally.ratio, ratio)

    def _in_place(self, leaves: list[Leaf], new: Any) -> None:
        """Whether a donated state was written over, not copied."""
        for leaf in leaves:
            x = paths.at(new.params, leaf.path)
            if isinstance(x, np.ndarray):
                if x.size and not np.shares_memory(x, leaf.params):
                    _fail(f"state.params{paths.code(leaf.path)} was donated, and is not where it was")
            elif hasattr(x, "data_ptr") and x.numel() and x.data_ptr() != leaf.params.data_ptr():
                _fail(f"state.params{paths.code(leaf.path)} was donated, and is not where it was")

    def _seen(self, x: Any) -> Any:
        """The numbers of an array into whose memory nobody can look."""
        if isinstance(x, np.ndarray | np.generic) or hasattr(x, "data_ptr") or not hasattr(x, "dtype"):
            return None
        return np.array(self.backend.to_numpy(x)).tobytes() if not (hasattr(x, "is_deleted") and x.is_deleted()) else None

    def _changed(self, arrays: list[Any], values: list[Any]) -> bool:
        return any(before is not None and self._seen(x) != before for x, before in zip(arrays, values, strict=True))

    # Threads and interruptions.

    def _in_threads(self, situation: Situation, mode: Mode, names: Names) -> None:
        """Several threads take the first step of the same situation with one function, at once."""
        errors: list[BaseException] = []
        ready = threading.Barrier(3)

        def take(own: Names) -> None:
            try:
                with self._session(situation), np.errstate(all="ignore"):
                    ready.wait()
                    for _ in range(3):
                        if not self._stage(situation, mode, own):
                            break
            except BaseException as error:  # noqa: BLE001 - raised again where the others are waited for
                errors.append(error)

        runs = []
        for _ in range(3):
            own = self._start(situation)
            own["step"] = names["step"]
            for line in (*situation.changes, *situation.stages[0]):
                exec(line, own)
            runs.append(threading.Thread(target=take, args=(own,)))
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        if errors:
            raise errors[0]

    def _interrupted(self, situation: Situation, mode: Mode, names: Names) -> None:
        """The user interrupts a step, here and there. What is half written is refused ever after; what is not goes on rightly."""

        def fresh() -> Names:
            own = self._start(situation) | {"step": names["step"]}
            for line in (*situation.changes, *situation.stages[0]):
                exec(line, own)
            return own

        leaves = self._leaves(*(names[name] for name in ("state", "grad", "hyper")))
        if self._why_refused(situation, mode, leaves) or not leaves:
            return
        own = fresh()
        with _counting() as count:
            own["step"](own["state"], own["grad"], **own["hyper"])
        assert situation.interrupt is not None
        for i in range(INTERRUPTIONS):
            self._interrupt(situation, mode, fresh(), 1 + int(count() * (i + situation.interrupt) / INTERRUPTIONS))

    def _interrupt(self, situation: Situation, mode: Mode, names: Names, line: int) -> None:
        state, grad, hyper, step = (names[name] for name in ("state", "grad", "hyper", "step"))
        arrays = list(_arrays((*state[:-1], grad)))
        memory = Snapshot(arrays)
        try:
            with _interrupting(line):
                step(state, grad, **hyper)
        except Interruption:
            pass
        else:
            return
        if not memory.changed():
            try:
                self._stage(situation, mode, names)
            except ValueError as error:
                _ours(situation, error)
            return
        if not mode.donate:
            _fail("an interrupted step that is given nothing away wrote to what it was given")
        for again in (step, self.product.backends.fuse(getattr(self.product.xopt, situation.rule), donate=True)):
            memory = Snapshot(arrays)
            self._refuses(situation, partial(again, state, grad, **hyper), "a half-written state")
            _unchanged(memory.changed(), "a refused step")


def _own(hyper: Mapping[str, Any], path: paths.Path) -> dict[str, Any]:
    """What the hyperparameters say of one leaf."""
    return {name: value if name == "betas" else paths.prefix_at(value, path) for name, value in hyper.items()}


def _number(value: Any) -> Any:
    """A hyperparameter as plain Python numbers."""
    if isinstance(value, list | tuple):
        return tuple(map(float, value))
    return None if value is None else float(value.detach() if hasattr(value, "detach") else value)


def _dtype(x: Any) -> str:
    dtype = getattr(x, "dtype", None)
    return str(getattr(dtype, "name", dtype)).rpartition(".")[2]


def _place(x: Any) -> tuple[str, Any]:
    if isinstance(x, np.generic):  # before NumPy 2.1 it does not say
        return "cpu", None
    return str(getattr(x, "device", "")), getattr(x, "sharding", None)


def _special(x: Any) -> bool:
    """Whether an array has rules of its own."""
    if isinstance(x, np.ndarray):
        return type(x) not in (np.ndarray, np.memmap)
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor) and type(x) not in (torch.Tensor, torch.nn.Parameter)


def _everything(leaves: Sequence[Leaf]) -> list[Any]:
    """Every array that a step is given."""
    return [x for leaf in leaves for x in _arrays((leaf.params, *leaf.slots, leaf.grad, *leaf.hyper.values()))]


def _differentiated(leaf: Leaf) -> bool:
    """Whether autograd follows what a leaf becomes."""
    return any(getattr(x, "requires_grad", False) for x in _everything([leaf]))


def _version(x: Any) -> int | None:
    """How often a tensor of torch was written to, as autograd counts it."""
    return None if not hasattr(x, "_version") or x.is_inference() else int(x._version)


def _negated(x: Any) -> bool:
    """Whether its numbers are those in memory with the other sign."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor) and x.is_neg()


def _arrays(tree: Any) -> Iterator[Any]:
    """Every array of a tree, at a leaf or in a tuple there."""
    for _, x in paths.leaves(tree):
        if hasattr(x, "dtype"):
            yield x


def _bits(slots: Sequence[Any]) -> list[Any]:
    """Of arrays their form and bytes, one after the other; None and numbers as they are."""
    found: list[Any] = []
    for x in slots:
        if isinstance(x, tuple):
            found += _bits(x)
        else:
            found.append((x.shape, str(x.dtype), x.tobytes()) if hasattr(x, "dtype") else x)
    return found


def _must(difference: str | None, where: str) -> None:
    if difference is not None:
        raise BrokenError(where + difference)


def _unchanged(changed: bool, what: str) -> None:
    if changed:
        _fail(f"{what} wrote to memory that was not given away")


def _ours(situation: Situation, error: Exception) -> None:
    """Raises BrokenError for an error that does not name the step."""
    if f"{situation.rule}_step" not in str(error):
        _fail(f"the error does not name {situation.rule}_step: {type(error).__name__}: {_short(error)}", error)
    if len(str(error)) > 2000:
        _fail(f"the error has {len(str(error))} characters")


def _short(x: Any) -> str:
    text = str(x).replace("\n", " ")
    return text if len(text) <= 200 else f"{text[:200]} ..."


@contextlib.contextmanager
def _constants(product: Product, situation: Situation) -> Iterator[None]:
    """The product with smaller blocks, shares or launches, and the rule without the kernels that it has of others."""
    modules = [(product.module(module), name, value) for module, name, value in CONSTANTS[situation.constants]]
    before = [getattr(module, name) for module, name, _ in modules]
    rule = getattr(product.xopt, situation.rule)
    compiled = rule.compiled
    if situation.constants in COMPILED_IN:
        rule.compiled = {}
    try:
        for module, name, value in modules:
            setattr(module, name, value)
        yield
    finally:
        for (module, name, _), value in zip(modules, before, strict=True):
            setattr(module, name, value)
        rule.compiled = compiled


CALLBACKS = ("_not_given", "_not_half")
"""Of weak references: Python loses what is raised in them."""


def _in_product(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("xopt.backends") and frame.f_code.co_name not in CALLBACKS


@contextlib.contextmanager
def _tracing(line: Callable[[], None]) -> Iterator[None]:
    """Calls ``line`` before each line of ``xopt.backends`` that this thread runs."""

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            line()
        return local

    def start(frame: FrameType, event: str, _: Any) -> Any:
        return local if _in_product(frame) else None

    before = sys.gettrace()
    sys.settrace(start)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def _counting() -> Iterator[Callable[[], int]]:
    lines = 0

    def line() -> None:
        nonlocal lines
        lines += 1

    with _tracing(line):
        yield lambda: lines


class Interruption(KeyboardInterrupt):
    """The one that is played: a real one ends the run."""


@contextlib.contextmanager
def _interrupting(at: int) -> Iterator[None]:
    left = at

    def line() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Interruption

    with _tracing(line):
        yield
