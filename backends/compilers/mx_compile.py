"""Fused steps of MLX arrays: ``mx.compile`` makes one kernel of the recorded program, for arrays of any shape."""

import importlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from xopt.backends.base import rounded
from xopt.backends.fused.compiled import Compiled
from xopt.backends.fused.fuser import Fuser, Launch
from xopt.backends.fused.memory import Memory, anything
from xopt.backends.fused.work import TypedLeaf, Work
from xopt.operations import Array
from xopt.program import OPERATIONS, Program, evaluate, numbers_of
from xopt.rule import Rule


class MLXMemory(Memory):
    """MLX's arrays. MLX itself takes the memory of what nothing refers to any more; nobody else writes to it."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._mx: Any = importlib.import_module("mlx.core")

    def form(self, x: Any) -> Hashable:
        return (x.dtype, tuple(x.shape)) if type(x) is self._kind else anything()

    def address(self, x: Any) -> int:
        raise NotImplementedError

    def look(self, x: Any) -> Any:
        raise NotImplementedError

    def unfit(self, x: Any) -> str | None:  # noqa: ARG002 - they are nothing but their numbers
        return None

    def empty_like(self, x: Any) -> Any:
        raise NotImplementedError

    def places(self, x: Any) -> list[tuple[Any, int, int]]:  # noqa: ARG002 - nothing that is referred to is written over
        return []

    def alias(self, x: Any) -> Any:
        return self._mx.stop_gradient(x)  # another object


class MLXFuser(Fuser):
    """Takes steps of MLX arrays. What is donated is not looked at again, so that MLX can write the new state there."""

    def __init__(self, rule: Rule[Any, Any], example: Array) -> None:
        super().__init__(rule, MLXMemory(type(example)))
        self.mx: Any = importlib.import_module("mlx.core")
        self._updates = Compiled(rule, self._update)

    def prepare(self, work: Work) -> Launch:
        plan = self.plan(work, work.columns())
        leaves = [work.assembled(i, typed, *work.coefficients(i, typed)) for i, typed in enumerate(plan.typed)]
        updates = self._updates.each(leaves)
        rows = {id(leaf.c): self._row(leaf) for leaf in leaves}

        def launch() -> list[Sequence[Any]]:
            pairs = zip(updates, leaves, strict=True)
            return self.state(leaves, [update(leaf.arrays, leaf.grad, rows[id(leaf.c)]) for update, leaf in pairs])

        return launch

    def _row(self, leaf: TypedLeaf) -> list[Array]:
        """Coefficients as arguments, so that other numbers compile nothing."""
        numbers, compute = numbers_of(leaf.c), leaf.typed.compute
        if not leaf.plain:
            numbers = [leaf.typed.lifted(x) for x in numbers]
        name = str(compute).removeprefix("mlx.core.")
        return [x if isinstance(x, self.mx.array) else self.mx.array(rounded(x, name), dtype=compute) for x in numbers]

    def _update(self, program: Program) -> Callable[..., Any]:
        """The function of one leaf that is traced for a program."""
        functions = OPERATIONS | {name: getattr(self.mx, name) for name in ("sqrt", "maximum", "minimum", "where")}
        functions["sign"] = lambda x: self.mx.where(x == x, self.mx.sign(x), x)  # of NaN its own is 0

        def update(old: Any, grad: Any, row: Any) -> Any:
            values = dict(zip(program.coefficients, row, strict=True))
            compute = row[0].dtype
            values |= {name: x.astype(compute) for name, x in zip(program.arrays, (*old, grad), strict=True)}
            evaluate(program.operations, functions, values)
            return [values[name].astype(x.dtype) for name, x in zip(program.writes.values(), old, strict=True)]

        return self.mx.compile(update, shapeless=True)  # type: ignore[no-any-return]
