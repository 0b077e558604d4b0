"""What Python has otherwise: a pure function of an array, or an object with two methods, on NumPy arrays."""

import copy
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from xopt.conformance.thirdparty.adapters import Adapter, Leaves, arguments_of


class Function(Adapter):
    """``step(params, grad, state, **arguments) -> (params, state)``, with ``state=None`` at first, a leaf at a time."""

    library: ClassVar[str] = "a function"
    leaves = False
    resumes: ClassVar[bool] = True

    def start(self, leaves: Leaves, dtype: str, given: Sequence[dict[str, Any]]) -> None:
        self.arrays = [np.array(leaf, dtype) for leaf in leaves]
        self._state: Any = [None] * len(leaves)
        self._given = _tuples(given[0])

    def step(self, grads: Leaves, changed: dict[str, Any]) -> None:
        self._given |= _tuples(changed)
        self.grads = [np.array(g, p.dtype) for g, p in zip(grads, self.arrays, strict=True)]
        self.inputs = [("parameters", p, p.copy()) for p in self.arrays]
        self.inputs += [("state", s, copy.deepcopy(s)) for s in self._state]
        done = [self._one(*one) for one in zip(self.arrays, self.grads, self._state, strict=True)]
        self.arrays, self._state = map(list, zip(*done, strict=True))

    def _one(self, params: Any, grad: Any, state: Any) -> tuple[Any, Any]:
        return _pair(self.make(params, grad, state, **self._given))

    def param_dtypes(self) -> list[str]:
        return [self.dtype_of(leaf) for leaf in self.params()]  # NumPy's names, whatever came back

    def state(self) -> dict[str, list[Any]]:
        fields = [_fields(state) for state in self._state]
        return {name: [one.get(name) for one in fields] for name in dict.fromkeys(name for one in fields for name in one)}

    def resume(self) -> None:
        self.arrays, self._state = copy.deepcopy((self.arrays, self._state))


class TwoMethods(Function):
    """``make(**arguments)`` with ``init(params) -> state`` and ``step(params, grad, state) -> (params, state)``.

    One whose step has two arguments, ``step(state, grad) -> state``, keeps its parameters in ``state.params``.
    """

    library: ClassVar[str] = "an object"

    def start(self, leaves: Leaves, dtype: str, given: Sequence[dict[str, Any]]) -> None:
        super().start(leaves, dtype, given)
        self._object = self.make(**self._given)
        self._state = [self._object.init(leaf.copy()) for leaf in self.arrays]

    def step(self, grads: Leaves, changed: dict[str, Any]) -> None:
        if changed:
            self._object = self.make(**(self._given | _tuples(changed)))
        super().step(grads, changed)

    def _one(self, params: Any, grad: Any, state: Any) -> tuple[Any, Any]:
        step = self._object.step
        if len([p for p in inspect.signature(step).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]) == 2:
            state = step(state, grad)
            return state.params, state
        return _pair(step(params, grad, state))


def _pair(done: Any) -> tuple[Any, Any]:
    if not isinstance(done, tuple) or len(done) != 2:
        msg = f"a step must return (params, state), not {type(done).__name__}"
        raise TypeError(msg)
    if not hasattr(done[0], "dtype"):
        msg = f"a step must return an array of parameters first, not {type(done[0]).__name__}"
        raise TypeError(msg)
    return done


def _tuples(given: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(x) if isinstance(x, list) else x for name, x in given.items()}


def _fields(state: Any) -> dict[str, Any]:
    if hasattr(state, "_asdict"):
        state = {name: x for name, x in state._asdict().items() if name != "params"}
    if isinstance(state, tuple | list):
        return {f"state[{i}]": x for i, x in enumerate(state)}
    return dict(state) if isinstance(state, dict) else {"state": state} if isinstance(state, np.ndarray) else {}


def adapter_for(make: Callable[..., Any]) -> type[Adapter]:
    """What kind of optimizer a callable makes, or is: from its bases, its signature, and what it returns."""
    bases = (
        {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in inspect.getmro(make)} if inspect.isclass(make) else ()
    )
    needed = _needed(make)
    if "torch.Optimizer" not in bases and needed >= 3:
        return Function
    if "torch.Optimizer" in bases or needed == 1:
        from xopt.conformance.thirdparty.adapters.torch import Torch

        return Torch
    if "keras.Optimizer" in bases:
        from xopt.conformance.thirdparty.adapters.keras import Keras

        return Keras
    made = _example(make)
    if hasattr(made, "init") and hasattr(made, "update"):
        from xopt.conformance.thirdparty.adapters.optax import Optax

        return Optax
    if hasattr(made, "init") and hasattr(made, "step"):
        return TwoMethods
    if hasattr(made, "apply_gradients"):
        from xopt.conformance.thirdparty.adapters.keras import Keras

        return Keras
    msg = (
        f"it makes {type(made).__name__}, which has none of init and step, init and update, or apply_gradients; "
        "a function must take params, grad and state"
    )
    raise TypeError(msg)


def _example(make: Callable[..., Any]) -> Any:
    """One of what it makes, with its own defaults, but for a learning rate that has none."""
    names = [name for name in ("lr", "learning_rate") if name in arguments_of(make)]
    for given in ({}, *({name: 0.001} for name in names or ("lr", "learning_rate"))):
        try:
            return make(**given)
        except TypeError as error:
            wrong = error
    raise wrong


def _needed(make: Callable[..., Any]) -> int:
    """How many arguments it cannot do without, beside a learning rate."""
    parameters = inspect.signature(make).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in parameters if p.kind in kinds and p.default is p.empty]
    if isinstance(make, types.FunctionType) and names[:1] == ["state"]:
        msg = "it takes a state first: wrap it in an object with init(params) and step(state, grad)"
        raise TypeError(msg)
    return len([name for name in names if name not in ("lr", "learning_rate")])
