"""skip_nonfinite: a step that leaves the state as it is where the gradient has a NaN or an infinity."""

import functools
import math
from collections.abc import Callable
from typing import Any

import optree

from xopt.arrays import beside, is_dense, moved
from xopt.checks import shown
from xopt.operations import Array, has_dtype, is_array, namespace
from xopt.trees import NAMESPACE, Tree, flatten, mapped, path_of
from xopt.untraced import untraced


class SkipNonfinite:
    """What ``skip_nonfinite`` returns: a step that may be skipped.

    Attributes
    ----------
    skipped
        How many steps this function has skipped, where it saw the numbers.
    """

    def __init__(self, step: Callable[..., Any], on: str) -> None:
        self.step = step
        self.on = on
        self._skipped = 0
        self._traced = False
        functools.update_wrapper(self, step, updated=())  # without its attributes: by ``rule``, fuse would find the bare step

    def __repr__(self) -> str:
        return f"skip_nonfinite({self.step!r}{'' if self.on == 'skip' else f', on={self.on!r}'})"

    @property
    def skipped(self) -> int:
        if self._traced:
            what = "was traced by a compiler, and what is compiled counts nothing"
            msg = f"{self._name}: skipped is not known, as the step {what}; it is the number of steps taken, less state.step"
            raise RuntimeError(msg)
        return self._skipped

    @property
    def _name(self) -> str:
        rule = getattr(getattr(self.step, "__self__", None), "rule", None)  # of a rule that is bound to hyperparameters
        return f"{rule.name}_step" if rule else str(getattr(self.step, "__name__", type(self.step).__name__))

    def __call__(self, state: Any, grad: Tree, **hyper: Any) -> Any:
        """The next state, or the state that was passed in."""
        return self._stepped(state, grad, hyper)

    @functools.partial(untraced, recursive=False)  # it sees the numbers, and the step itself is compiled
    def _stepped(self, state: Any, grad: Tree, hyper: dict[str, Any]) -> Any:
        known, finite = _look(grad)
        if known is None:
            return self._traced_step(state, grad, hyper, finite)
        if known:
            return self.step(state, grad, **hyper)
        if self.on == "raise":
            raise FloatingPointError(self._found(state, grad))
        self._skipped += 1
        return state

    @untraced
    def _found(self, state: Any, grad: Tree) -> str:
        """What is not finite, in words."""
        leaves, spec = flatten(grad)
        i, count = next((i, count) for i, x in enumerate(leaves) if (count := _count(x)))
        size = math.prod(leaves[i].shape)
        what = f"grad{path_of(spec, i)} has {count} NaN or infinite of {size} number{'s' * (size != 1)}"
        return f"{self._name}: {what}, after state.step = {shown(getattr(state, 'step', None))}; on='skip' leaves such steps out"

    def _traced_step(self, state: Any, grad: Tree, hyper: dict[str, Any], finite: Array) -> Any:
        """The step, in which where chooses: a compiler cannot branch."""
        if self.on == "raise":
            msg = f"{self._name}: on='raise' sees no numbers while a compiler traces; on='skip' skips inside of what is compiled"
            raise ValueError(msg)
        self._traced = True
        where = namespace(finite).where
        # NaN in what is not chosen would still reach the derivatives of what is
        new = self.step(state, mapped(lambda g: where(finite, g, 0.0) if is_array(g) else g, grad), **hyper)
        old = optree.tree_broadcast_prefix(state, new, namespace=NAMESPACE)  # of which a count may have become a tree
        return optree.tree_map(lambda n, o: n if n is o else where(finite, _lifted(n, finite), o), new, old, namespace=NAMESPACE)


def skip_nonfinite(step: Callable[..., Any], *, on: str = "skip") -> SkipNonfinite:
    """A step that is skipped where the gradient is not finite: the state stays as it is, bit for bit, slots and count too.

    Parameters
    ----------
    step
        A function ``step(state, grad, **hyper)`` that returns the next state: ``xopt.lion_step``, ``opt.step`` of
        ``opt = xopt.lion.bind(...)``, what ``xopt.backends.fuse`` returns, with ``donate=True`` too, or one of your own.
    on
        What a NaN or an infinity in the gradient does: ``"skip"`` returns the state that was passed in, which is not given away;
        ``"raise"`` raises FloatingPointError, with the leaf and the count of steps.

    Returns
    -------
    SkipNonfinite
        A function like ``step``, whose attribute ``skipped`` counts. While JAX traces it (``jit``, ``scan``,
        ``vmap``), or ``torch.vmap``, it takes the step and chooses element by element between the new state and the old one; as a
        pure function it counts nothing then: ``state.step`` falls behind the number of steps by what was skipped.

    Raises
    ------
    TypeError, ValueError
        For a step that is no function, for another word than those two, and for ``"raise"`` while a compiler traces.
    """
    if not callable(step) or isinstance(step, type):
        hint = ", whose step is a function" if hasattr(step, "step") else ""
        msg = f"skip_nonfinite: step must be a function of a state and a gradient, such as xopt.lion_step, got {step!r}{hint}"
        raise TypeError(msg)
    if on not in ("skip", "raise"):
        msg = f"skip_nonfinite: on must be 'skip' or 'raise', got {shown(on)}"
        raise ValueError(msg)
    return SkipNonfinite(step, on)


@untraced
def _look(grad: Tree) -> tuple[bool | None, Any]:
    """Whether all numbers are finite, or None and a flag while a compiler traces.

    A device is waited for once: the flags of one library are put together before one is looked at.
    """
    flags: dict[Any, list[Array]] = {}
    for x in filter(_has_floats, flatten(grad)[0]):
        xp = namespace(x)
        with beside(x):
            flags.setdefault(xp, []).append(xp.all(xp.isfinite(x)))
    known: bool | None = True
    finite = None
    for xp, of_library in flags.items():
        first = of_library[0]
        with beside(first):
            one = xp.all(xp.stack([moved(flag, first) for flag in of_library]))
        value = _value(one)
        if value is False:
            return False, one
        if value is None:
            known, finite = None, one
    return known, finite


def _has_floats(x: Any) -> bool:
    """What is something else is left to the step to refuse."""
    return is_array(x) and is_dense(x) and has_dtype(x, "real floating")


def _count(x: Any) -> int:
    """How many numbers are not finite."""
    if not _has_floats(x):
        return 0
    xp = namespace(x)
    return int(xp.sum(xp.astype(~xp.isfinite(x), xp.int32)))


def _value(flag: Array) -> bool | None:
    """A flag as a bool; None where a compiler traces it."""
    try:
        return bool(flag)
    except Exception:  # noqa: BLE001 - each tracer refuses with an exception of its own
        return None


def _lifted(x: Any, like: Array) -> Array:
    """A number of a state, such as its count, as an array."""
    return x if is_array(x) else namespace(like).asarray(x)
