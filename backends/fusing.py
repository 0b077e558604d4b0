"""fuse: a rule's step as one pass over memory, made from the same ``update`` by each library's own compiler."""

import inspect
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import optree

from xopt.backends.program import record
from xopt.checks import check_names
from xopt.leaves import Kind, Tree, path_of
from xopt.operations import Array, is_known_array
from xopt.rule import Rule


class Leaf(NamedTuple):
    """One array of parameters with all that its step needs, checked."""

    kind: Kind
    params: Array
    slots: list[Any]  # each an array, None, a tuple of those, or a number
    grad: Array
    c: Any  # the coefficients, float64 on the host
    plain: bool  # whether they are Python numbers; else there are 0-d arrays among them


class Work:
    """One step of a whole tree, before its arguments are checked."""

    def __init__(
        self,
        rule: Rule[Any, Any],
        t: Any,
        params: list[Array],
        slots: list[list[Any]],
        grads: list[Array],
        hyper: list[dict[str, Any]],
        spec: optree.PyTreeSpec | None,
        donate: bool,
        shared: bool,
    ) -> None:
        self.rule = rule
        self.t = t
        self.params = params  # of each leaf
        self.slots = slots  # for each slot, of each leaf
        self.grads = grads
        self.hyper = hyper  # of each leaf: often the same dict
        self.spec = spec
        self.donate = donate
        self.shared = shared  # whether all leaves have the same hyperparameters
        self._coefficients: dict[Any, tuple[Any, bool]] = {}

    def where(self, i: int) -> str:
        """What an error of leaf ``i`` begins with."""
        return f"{self.rule.name}_step, fused: params{path_of(self.spec, i)}"

    def kind(self, i: int) -> Kind:
        return self.rule.kind(f"{self.rule.name}_step", self.params[i], self.spec, i)

    def coefficients(self, i: int, kind: Kind) -> tuple[Any, bool]:
        """Those of leaf ``i``, evaluated once for all leaves that share them; and whether they are Python numbers."""
        carried = [slot[i] for slot, name in zip(self.slots, self.rule.slots, strict=True) if name in self.rule.carried]
        key = (id(kind), id(self.hyper[i]), *(x if type(x) is float else id(x) for x in carried))
        found = self._coefficients.get(key)
        if found is None:
            found = self._coefficients[key] = self.rule.host_coefficients(self.t, carried, self.hyper[i], kind)
        return found

    def leaf(self, i: int) -> Leaf:
        """Leaf ``i``, with the errors of the eager step where it is not as it must be."""
        kind = self.kind(i)
        c, plain = self.coefficients(i, kind)
        slots = [slot[i] for slot in self.slots]
        self.rule.check_leaf(kind, self.params[i], self.grads[i], slots, self.hyper[i], self.spec, i)
        # what is carried is among the coefficients; here a number stands for it, also where it came as an array
        slots = [1.0 if name in self.rule.carried else slot for name, slot in zip(self.rule.slots, slots, strict=True)]
        return Leaf(kind, self.params[i], slots, self.grads[i], c, plain)

    def leaves(self) -> Iterator[Leaf]:
        return map(self.leaf, range(len(self.params)))


Fuser = Callable[[Work], Sequence[Sequence[Any]]]
"""Takes the step: the new params and the new slots, each for all leaves. Raises before anything is written."""


def fuse(rule: Any, *, donate: bool = False, compiler: str | None = None) -> Any:
    """The step of a rule as one pass over memory.

    Parameters
    ----------
    rule
        A rule such as ``xopt.lion``, or its step, ``xopt.lion_step``.
    donate
        Whether a step may write the new state over the one passed in, which saves its memory. That state must not be used
        again; the step raises ValueError where it sees that it is. Without it nothing passed in is written.
    compiler
        One of those that the documentation of a library lists for it, such as ``"blocks"`` for NumPy. Default: the best one
        that is installed.

    Returns
    -------
    A function like ``<rule>_step``, with the same arguments, results, checks and errors, for arrays of every library in
    ``xopt.backends.BACKENDS`` that has a compiler. A new shape, library, dtype or form of the state compiles at the first step
    that shows it; other numbers (hyperparameters, the step count) never do. Inside ``jax.jit`` or ``torch.compile``, which
    fuse all that they trace, it is the plain step.

    Raises
    ------
    TypeError
        From ``fuse``: what is no rule, or a rule that breaks a numerics law (``LawError``), with the operation. From the step:
        what the eager step refuses; a library that has no compiler, or leaves of several libraries or devices.
    ValueError
        From ``fuse``: a compiler that no library has. From the step: what the eager step refuses; a state that was donated before.
    """
    rule = getattr(rule, "rule", rule)
    if not isinstance(rule, Rule):
        msg = f"fuse: rule must be a rule or its step, such as xopt.lion or xopt.lion_step, got {rule!r}"
        raise TypeError(msg)
    from xopt.backends import BACKENDS  # which import this module

    known = sorted({name for backend in BACKENDS.values() for name in backend.compilers})
    if compiler is not None and compiler not in known:
        msg = f"fuse: unknown compiler {compiler!r}; there are {', '.join(known)}"
        raise ValueError(msg)
    _check_laws(rule)
    fusers: dict[Any, Fuser] = {}  # by type and device of the arrays
    seen: list[optree.PyTreeSpec] = []  # the last tree: to follow one costs a twentieth of finding it out

    def step(state: Any, grad: Tree, **hyper: Any) -> Any:
        if _torch_traces():
            return rule.step(state, grad, **hyper)
        params, slots, t = rule.unpack(state)
        check_names(step.__name__, hyper, tuple(rule.defaults))
        if is_known_array(params):
            leaves, spec = [params], None
            columns = [[grad], *([slot] for slot in slots)]
            own = [hyper]
        else:
            leaves, spec = _flattened(params, seen)
            columns = rule.flatten(spec, grad, slots)
            own = rule.broadcast(step.__name__, hyper, params, len(leaves))
        if not leaves:
            return rule.step(state, grad, **hyper)
        work = Work(rule, t, leaves, columns[1:], columns[0], own, spec, donate, own[0] is hyper)
        key = type(leaves[0]), _device(leaves[0])
        fuser = fusers.get(key)
        if fuser is None:
            fuser = fusers[key] = _fuser(work, compiler)
        if fuser is _eager:
            return rule.step(state, grad, **hyper)
        new = fuser(work)
        if spec is None:
            return state._make([column[0] for column in new] + [t])
        old = zip(slots, columns[1:], new[1:], strict=True)
        trees = [tree if n is o else spec.unflatten(n) for tree, o, n in old]  # a column that is still itself is still its tree
        return state._make([spec.unflatten(new[0]), *trees, t])

    step.__name__ = step.__qualname__ = f"{rule.name}_step"
    step.__module__ = "xopt"
    step.__signature__ = inspect.signature(rule.step)  # type: ignore[attr-defined]
    over = ", over the state passed in" if donate else ""
    step.__doc__ = f"``{rule.name}_step`` as one pass over memory{over}.\n\n{rule.step.__doc__}"
    step.rule = rule  # type: ignore[attr-defined]
    return step


def _device(x: Array) -> str:
    """Its name, as CuPy's devices have no hash."""
    try:
        return str(getattr(x, "device", None))
    except RuntimeError:  # of an array that JAX has deleted, as it was donated
        return "nowhere"


def _torch_traces() -> bool:
    """Whether torch.compile is tracing: its tensors do not show it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.compiler.is_compiling())


def _flattened(params: Tree, seen: list[optree.PyTreeSpec]) -> tuple[list[Any], optree.PyTreeSpec]:
    if seen:
        try:
            leaves = seen[0].flatten_up_to(params)
        except ValueError:
            pass  # another tree
        else:
            if len(set(map(type, leaves))) == 1 and is_known_array(leaves[0]):
                return leaves, seen[0]
    leaves, spec = optree.tree_flatten(params)
    seen[:] = [spec]
    return leaves, spec


def _check_laws(rule: Rule[Any, Any]) -> None:
    """Records the update for a state whose slots are all there, with the default hyperparameters."""
    c = rule.coefficients(1, *rule.carried.values())

    def slot(name: str) -> Any:
        if name in rule.carried:
            return rule.carried[name]
        decay = rule.memory[name]
        return (True,) * len(rule.defaults[decay]) if rule.ranges[decay].sequence else True

    record(rule, [slot(name) for name in rule.slots], c)


def _eager(work: Work) -> Any:
    """Stands for the plain step, where a compiler is tracing already."""
    raise NotImplementedError


def _fuser(work: Work, compiler: str | None) -> Fuser:
    """What steps arrays like the first leaf."""
    from xopt.backends import BACKENDS

    first = work.params[0]
    work.kind(0)  # refuses what is no array of real numbers
    backend = next((backend for backend in BACKENDS.values() if backend.owns(first)), None)
    if backend is None or not backend.compilers:
        library = backend.name if backend else type(first).__module__.partition(".")[0]
        able = ", ".join(name for name, b in BACKENDS.items() if b.compilers)
        msg = (
            f"{work.where(0)} is of {library}, which has no compiler; there is one for arrays of {able}. "
            f"{work.rule.name}_step takes it"
        )
        raise TypeError(msg)
    if backend.traces(first):
        return _eager
    if compiler is not None and compiler not in backend.compilers:
        msg = f"{work.where(0)} is of {backend.name}, which {' or '.join(backend.compilers)} compiles, not {compiler}"
        raise ValueError(msg)
    return backend.fuser(work.rule, compiler, first)


def one_library(work: Work, device: Callable[[Array], Any]) -> None:
    """Raises TypeError where a leaf is of another library or on another device than the first."""
    first, there = work.kind(0), device(work.params[0])
    for i, x in enumerate(work.params):
        if work.kind(i).xp is not first.xp:
            what = f"is a {type(x).__module__.partition('.')[0]} array, but the first is of another library"
        elif device(x) != there:
            what = f"is on {device(x)}, but the first on {there}"
        else:
            continue
        msg = f"{work.where(i)} {what}; a fused step takes arrays of one library on one device"
        raise TypeError(msg)


_donated: dict[int, weakref.ref[Any]] = {}


def refuse_donated(work: Work) -> None:
    """Raises ValueError where the state was donated before. Its first array tells: what a donating step returns has another one."""
    known = _donated.get(id(work.params[0]))
    if known is not None and known() is work.params[0]:
        msg = (
            f"{work.where(0)} was donated to an earlier step, which wrote the new state over it; go on with what that step returned"
        )
        raise ValueError(msg)


def mark_donated(x: Array) -> None:
    """Remembers that ``x``, the first array of a state, was given away."""
    key = id(x)
    _donated[key] = weakref.ref(x, lambda _: _donated.pop(key, None))


def refuse_read_only(work: Work, i: int, arrays: Iterable[Any]) -> None:
    """Raises ValueError where a NumPy array of leaf ``i`` cannot be written to."""
    if not all(x.flags.writeable for x in arrays):
        msg = f"{work.where(i)} or a slot of it is read-only, so that it cannot be donated; fuse without donate takes it"
        raise ValueError(msg)


def refuse_shared(work: Work, written: Sequence[Sequence[Any]], bounds: Callable[[Any], tuple[int, int]], strides: Any) -> None:
    """Raises ValueError where an array that a donating step writes, of those of each leaf, cannot be written over.

    ``bounds`` gives the address of the first byte of an array and the one behind its last, ``strides`` its strides.
    """
    starts, stops = np.zeros((2, len(written), 1 + max(map(len, written))), np.int64)
    alike = np.ones(len(written), bool)
    for i, (arrays, grad) in enumerate(zip(written, work.grads, strict=True)):
        for x in arrays:
            if 0 in strides(x) and 0 not in x.shape and any(n > 1 and not s for n, s in zip(x.shape, strides(x), strict=True)):
                msg = f"{work.where(i)} or a slot of it is broadcast, so that it cannot be donated; fuse without donate takes it"
                raise ValueError(msg)
        alike[i] = all(strides(x) == strides(grad) for x in arrays)
        for j, x in [*enumerate(arrays), (-1, grad)]:
            starts[i, j], stops[i, j] = bounds(x)
    refuse_overlap(work, starts, stops, alike)


def refuse_overlap(work: Work, starts: Any, stops: Any, alike: Any) -> None:
    """Raises ValueError where what a donating step writes overlaps with something else.

    ``starts[leaf, column]`` and ``stops`` say where the arrays are; the last column is the gradient, which is only read. It may be
    an array of its own leaf, as each number is read before it is written, if ``alike[leaf]``: all its arrays have the same strides.
    """
    there = stops > starts
    leaf, column = np.nonzero(there[:, :-1])
    begin, end = starts[leaf, column], stops[leaf, column]
    order = np.argsort(begin)
    begin, end, leaf = begin[order], end[order], leaf[order]
    pairs = np.flatnonzero(begin[1:] < end[:-1])
    clash = [(int(leaf[pairs[0]]), int(leaf[pairs[0] + 1]))] if pairs.size else []
    if not clash and begin.size:
        own = (starts[:, :-1] == starts[:, -1:]).any(axis=1) & alike
        grads = np.flatnonzero(there[:, -1] & ~own)
        last = np.searchsorted(begin, stops[grads, -1]) - 1  # the last array that begins before the gradient ends
        over = (last >= 0) & (end[last] > starts[grads, -1])
        clash = [(int(leaf[last[k]]), int(grads[k])) for k in np.flatnonzero(over)[:1]]
    if clash:
        other = f"params{path_of(work.spec, clash[0][1])}"
        msg = (
            f"{work.where(clash[0][0])} or a slot of it shares memory with {other}, its slots or its gradient, "
            "so that one would be written over the other; fuse without donate takes them"
        )
        raise ValueError(msg)
