"""fuse: a rule's step as one pass over memory, made from the same ``update`` by each library's own compiler."""

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar

from xopt.arrays import devices
from xopt.backends.fused.donation import WAY_OUT
from xopt.backends.fused.trees import FlatTree, Trees
from xopt.backends.fused.work import PartialWork, TakesStep, TracedError, UnfitError, Work
from xopt.bound import Bound
from xopt.operations import Array, is_known_array
from xopt.rule import Rule, rule_given
from xopt.trees import Tree
from xopt.typed import Call

S = TypeVar("S", bound=tuple[Any, ...])
P = ParamSpec("P")


class FusedStep(Generic[S, P]):
    """What ``fuse`` returns: the step of a rule, as one pass over memory."""

    def __init__(self, rule: Rule[S, P], hyper: dict[str, Any], donate: bool, compiler: str | None) -> None:
        self.rule = rule
        self.hyper = hyper  # that it is bound to
        self.donate = donate
        self.compiler = compiler
        self.__name__ = self.__qualname__ = f"{rule.name}_step"
        self.__module__ = rule.step.__module__
        self.__signature__ = inspect.signature(rule.step)
        over = ", over the state passed in" if donate else ""
        self.__doc__ = f"``{rule.name}_step`` as one pass over memory{over}.\n\n{rule.step.__doc__}"
        self._trees = Trees()
        self._kept: dict[Any, Any] = {}  # of a fuser, from one step to the next

    def __repr__(self) -> str:
        given = f"{self.rule!r}{', donate=True' if self.donate else ''}{f', compiler={self.compiler!r}' if self.compiler else ''}"
        return f"<fuse({given})>"

    def __reduce__(self) -> Any:
        """Pickled and copied without what is kept: it is made again."""
        return FusedStep, (self.rule, self.hyper, self.donate, self.compiler)

    def _call(self, state: Any, grad: Tree, **hyper: Any) -> Any:
        rule: Any = self.rule
        if self.hyper:
            hyper = self.hyper | hyper
        if _torch_traces():
            return rule.step(state, grad, **hyper)
        params, slots, t = rule.unpack(state)
        if hyper:
            rule.check_names(self.__name__, hyper)
        flat: FlatTree | None = None
        counts: list[Any] | None = None
        if is_known_array(params):
            if grad is None:
                return state
            call, leaves = Call(self.__name__, t), [params]
            columns = [[grad], *[[slot] for slot in slots]]
            own = [hyper]
        else:
            flat = self._trees.flatten(params)
            call, leaves = Call(self.__name__, t, flat.spec), flat.leaves
            columns = [column for tree in (grad, *slots) if (column := flat.column(tree)) is not None]
            alike = len(columns) == 1 + len(slots)
            if not alike:
                columns = rule.flatten(call, grad, slots)
            if type(t) is not int:
                call, counts = rule.counted(call)
            own = rule.broadcast(call, hyper, counts)
        if not leaves:
            return rule.step(state, grad, **hyper)  # which refuses it
        work = Work(rule, call, [leaves, *columns], own, self.donate, self._kept)
        if flat is not None:
            work = work.with_gradient()
        new = _stepped(work, self.compiler)
        if new is None:
            return rule.step(state, grad, **hyper)
        if flat is None:
            return state._make([*[column[0] for column in new], t])
        old = zip((params, *slots), (leaves, *columns[1:]), new, strict=True)
        # a column that is written over stays the tree that it was, if that has the containers of params
        trees = [tree if n is o and (alike or flat.fits(tree)) else flat.unflatten(n) for tree, o, n in old]
        if type(t) is not int or isinstance(work, PartialWork):
            t = rule.step_after(state, call, counts, [x is not None for x in columns[0]])
        return state._make([*trees, t])

    if TYPE_CHECKING:  # with the signature of the rule's step

        def __call__(self, state: S, grad: Tree, *_: P.args, **hyper: P.kwargs) -> S: ...

    else:
        __call__ = _call


def fuse(
    rule: Rule[S, P] | Bound[S, P] | FusedStep[S, P] | Callable[Concatenate[S, Tree, P], S],
    *,
    donate: bool = False,
    compiler: str | None = None,
) -> FusedStep[S, P]:
    """The step of a rule as one pass over memory.

    Parameters
    ----------
    rule
        A rule such as ``xopt.lion``, its step, ``xopt.lion_step``, or a rule with hyperparameters, ``xopt.lion.bind(lr=1e-4)``.
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
        From ``fuse``: what is no rule. From the step: what the eager step refuses; a library that has no compiler, or leaves of
        several libraries or devices.
    ValueError
        From ``fuse``: a compiler that no library has. From the step: what the eager step refuses; a state that was donated before.
    """
    bare: Any = rule_given("fuse", rule)
    from xopt.backends import BACKENDS  # which import this module

    known = sorted({name for backend in BACKENDS.values() for name in backend.compilers})
    if compiler is not None and compiler not in known:
        msg = f"fuse: unknown compiler {compiler!r}; there are {', '.join(known)}"
        raise ValueError(msg)
    return FusedStep(bare, rule.hyper if isinstance(rule, Bound | FusedStep) else {}, donate, compiler)


@cache
def _device(kind: type) -> Callable[[Array], Any]:
    """Where an array of this type is: in a third of the time of finding out what ``devices`` does."""
    return devices if hasattr(kind, "sharding") or not hasattr(kind, "device") else attrgetter("device")


def _torch_traces() -> bool:
    """Whether torch.compile is tracing: its tensors do not show it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.compiler.is_compiling())


def _stepped(work: Work, compiler: str | None) -> Sequence[Sequence[Any]] | None:
    """The new columns, or None where the plain step must take this one."""
    if not work.params:
        return work.whole([])
    fuser = fuser_of(work, compiler)
    if fuser is _eager:
        return None
    try:
        return fuser(work)
    except UnfitError as error:
        if not work.donate or isinstance(error, TracedError):
            return None
        msg = f"{error}; it cannot be donated, {WAY_OUT}"
        raise TypeError(msg) from None


def fuser_of(work: Work, compiler: str | None = None) -> TakesStep:
    """What steps arrays like the first leaf, found once for each kind of them."""
    first = work.params[0]
    kind: Any = type(first)
    device = _device(kind)(first)
    key = compiler, kind, device if device.__hash__ else str(device)  # CuPy's have no hash
    fuser = work.rule.compiled.get(key)
    if fuser is None:
        fuser = work.rule.compiled[key] = _fuser(work, compiler)
    return fuser


def _eager(work: Work) -> Any:
    """Stands for the plain step, where a compiler is tracing already."""
    raise NotImplementedError


def _fuser(work: Work, compiler: str | None) -> TakesStep:
    """What steps arrays like the first leaf."""
    from xopt.backends import BACKENDS

    first = work.params[0]
    work.typed(0)  # refuses what is no array of real numbers
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
