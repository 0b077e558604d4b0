"""Optimizers of Keras's form: ``make(**arguments)`` with ``build(variables)`` and ``apply(grads, variables)``."""

from collections.abc import Sequence
from typing import Any, ClassVar

import keras  # type: ignore[import-untyped,import-not-found,unused-ignore]
import numpy as np

from xopt.conformance.thirdparty.adapters import Adapter, Leaves


class Keras(Adapter):
    library: ClassVar[str] = "keras"
    dtypes: ClassVar[tuple[str, ...]] = ("float32", "float64")
    resumes: ClassVar[bool] = True

    def start(self, leaves: Leaves, dtype: str, given: Sequence[dict[str, Any]]) -> None:
        keras.backend.set_floatx(dtype)
        self._given = given[0]
        self.arrays = [keras.Variable(leaf, dtype=dtype) for leaf in leaves]
        self._optimizer = self._made()

    def _made(self) -> Any:
        optimizer = self.make(**self._given)
        optimizer.build(self.arrays)
        return optimizer

    def step(self, grads: Leaves, changed: dict[str, Any]) -> None:
        for name, value in changed.items():
            setattr(self._optimizer, name, value)
        pairs = zip(grads, self.arrays, strict=True)
        self.grads = [keras.ops.convert_to_tensor(grad, dtype=leaf.dtype) for grad, leaf in pairs]
        self._optimizer.apply(self.grads, self.arrays)

    def skip(self, steps: int) -> bool:
        self._optimizer.iterations.assign(self._optimizer.iterations + steps)
        return True

    def state(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for variable in self._optimizer.variables:
            found.setdefault(variable.path.split("/")[-1].split("variable_")[-1].split("_", 1)[-1], []).append(variable.value)
        return found

    def resume(self) -> None:
        saved: dict[str, Any] = {}
        self._optimizer.save_own_variables(saved)
        self.arrays = [keras.Variable(self.numpy(leaf.value), dtype=leaf.dtype) for leaf in self.arrays]
        self._optimizer = self._made()
        self._optimizer.load_own_variables(saved)

    def numpy(self, x: Any) -> Any:
        return np.array(keras.ops.convert_to_numpy(x))

    def dtype_of(self, x: Any) -> str:
        return str(keras.backend.standardize_dtype(x.dtype))
