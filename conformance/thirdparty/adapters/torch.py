"""Optimizers of torch's form: ``make(params, **arguments)`` and ``step()``, on ``.grad``."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from xopt.conformance.thirdparty.adapters import Adapter, Leaves


class Torch(Adapter):
    library: ClassVar[str] = "torch"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64", "bfloat16", "float16")
    groups: ClassVar[bool] = True
    resumes: ClassVar[bool] = True

    def start(self, leaves: Leaves, dtype: str, given: Sequence[dict[str, Any]]) -> None:
        self.arrays = [torch.tensor(leaf, dtype=getattr(torch, dtype), requires_grad=True) for leaf in leaves]
        self._given = [{name: tuple(x) if isinstance(x, list) else x for name, x in one.items()} for one in given]
        self._optimizer = self._made()
        self._closure = [_gradients_stay] if _needs_a_closure(self._optimizer) else []

    def _made(self) -> Any:
        if len(self._given) == 1:
            return self.make(self.arrays, **self._given[0])
        groups = [{"params": [leaf], **given} for leaf, given in zip(self.arrays, self._given, strict=True)]
        return self.make(groups, **self._given[0])

    def step(self, grads: Leaves, changed: dict[str, Any]) -> None:
        for group in self._optimizer.param_groups:
            group.update(changed)
        self.grads = [
            None if grad is None else torch.tensor(grad, dtype=leaf.dtype) for leaf, grad in zip(self.arrays, grads, strict=True)
        ]
        for leaf, grad in zip(self.arrays, self.grads, strict=True):
            leaf.grad = grad
        self._optimizer.step(*self._closure)

    def skip(self, steps: int) -> bool:
        kept = (*self._optimizer.state.values(), *self._optimizer.param_groups)
        counted = [one for one in kept if isinstance(one.get("step"), torch.Tensor | int | float)]
        for one in counted:
            one["step"] += steps
        return bool(counted)

    def state(self) -> dict[str, list[Any]]:
        states = [dict(self._optimizer.state.get(leaf, {})) for leaf in self.arrays]
        for state in states:  # as AggMo keeps its buffers under the betas
            for name, x in [*state.items()]:
                state |= {f"{name}[{key}]": part for key, part in x.items()} if isinstance(x, dict) else {}
        names = dict.fromkeys(name for state in states for name, x in state.items() if isinstance(x, torch.Tensor | int | float))
        return {name: [state.get(name) for state in states] for name in names}

    def resume(self) -> None:
        saved = copy.deepcopy(self._optimizer.state_dict())
        self.arrays = [leaf.detach().clone().requires_grad_() for leaf in self.arrays]
        self._optimizer = self._made()
        self._optimizer.load_state_dict(saved)

    def numpy(self, x: Any) -> Any:
        x = x.detach()
        return (x.double() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy().copy()

    def dtype_of(self, x: Any) -> str:
        return str(x.dtype).removeprefix("torch.")


def _gradients_stay() -> Any:
    return torch.zeros(())


def _needs_a_closure(optimizer: Any) -> bool:
    parameters = inspect.signature(optimizer.step).parameters.values()
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
