"""Fused steps of torch tensors through torch.compile: Triton on CUDA, C++ on a CPU."""

import importlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType
from typing import Any

from xopt.backends.base import rounded, say
from xopt.backends.fused.compiled import Compiled, calls
from xopt.backends.fused.fallback import CompileError, short
from xopt.backends.fused.fuser import Fuser, Launch
from xopt.backends.fused.memory import Memory
from xopt.backends.fused.work import TypedLeaf, Work
from xopt.operations import Array
from xopt.program import INFIX, Program, numbers_of
from xopt.rule import Rule

LEAVES = 32
"""Leaves that are compiled together: on a CPU g++ takes a quarter of a second for each, and a call 20 microseconds and 5 a leaf."""

TEXTS = INFIX | {
    "sqrt": "torch.sqrt({0})",
    "abs": "torch.abs({0})",
    "sign": "torch.where({0} == {0}, torch.sign({0}), {0})",
    "maximum": "torch.maximum({0}, {1})",
    "minimum": "torch.minimum({0}, {1})",
    "where": "torch.where({0}, {1}, {2})",
}
"""As the array API has them: torch's own sign of NaN is 0."""

OPTIONS = {
    # no product and sum become one operation that rounds once: in C++, and in Triton, where the second option decides that too
    "cpp.enable_floating_point_contract_flag": "off",
    "emulate_precision_casts": True,
    # Triton's division is rounded to nearest, and keeps subnormal numbers
    "eager_numerics.division_rounding": True,
    "eager_numerics.disable_ftz": True,
}
"""Torch's options for the numbers of eager mode, of which older versions have some."""

CUDA_OPTIONS = {"combo_kernels": True}
"""Several small leaves share a launch."""


class TorchCompileFuser(Fuser):
    """Takes steps of tensors on the device of ``example``."""

    compiles_late = True

    def __init__(self, rule: Rule[Any, Any], memory: Memory, example: Array) -> None:
        super().__init__(rule, memory)
        self.torch: Any = importlib.import_module("torch")
        self._updates = Compiled(rule, self._update)
        dynamo: Any = importlib.import_module("torch._dynamo")
        self._compiled = dynamo.utils.counters["stats"]
        known = importlib.import_module("torch._inductor").list_options()
        wanted = OPTIONS | (CUDA_OPTIONS if example.device.type == "cuda" else {})
        options = {name: value for name, value in wanted.items() if name in known}
        # torch keeps compiled code by code object, which all rules would share: with a copy each has its own places. Where none is
        # left, or where it cannot trace, torch would run eagerly without a word: here it raises.
        own = FunctionType(_step.__code__.replace(), _step.__globals__, f"{rule.name}_step")
        loud = dynamo.config.patch(recompile_limit=1000, accumulated_recompile_limit=1000, fail_on_recompile_limit_hit=True)
        self._step = loud(self.torch.compile(own, fullgraph=True, dynamic=False, options=options))

    def prepare(self, work: Work) -> Launch:
        leaves = self.leaves(work)
        return partial(self._launch, work, leaves, self._updates.each(leaves), self._rows(leaves))

    def _launch(self, work: Work, leaves: Sequence[TypedLeaf], updates: Sequence[Any], rows: Sequence[Any]) -> list[Sequence[Any]]:
        old = [leaf.arrays for leaf in leaves]
        new: list[Any] = list(old)
        began, compiled = time.monotonic(), self._compiled["unique_graphs"]
        with self.torch.no_grad():
            arrays = [list(map(_at_least_1d, row)) for row in old]
            grads = [_at_least_1d(leaf.grad) for leaf in leaves]
            forms = [(update, x.shape, x.stride(), x.dtype) for update, (x, *_) in zip(updates, arrays, strict=True)]
            for at, call in enumerate(calls(forms, LEAVES)):
                try:
                    results = self._step(work.donate, *[[column[i] for i in call] for column in (updates, arrays, grads, rows)])
                except Exception as error:
                    if at and work.donate:
                        raise  # some leaves are written
                    msg = f"torch.compile fails ({short(error)})"
                    raise CompileError(msg) from error
                if not work.donate:
                    for i, row in zip(call, results, strict=True):
                        new[i] = row if leaves[i].params.ndim else [x.squeeze(0) for x in row]
        took = time.monotonic() - began
        if self._compiled["unique_graphs"] > compiled and took > 1:
            where = "torch keeps it in TORCHINDUCTOR_CACHE_DIR"
            say(f"xopt: compiled {self.rule.name}_step for torch in {took:.1f} s; {where}")
        return self.state(leaves, new)

    def _update(self, program: Program) -> Callable[..., Any]:
        """The function of one leaf for a program. As text it is traced without a look at the program."""
        lines = [
            f"def update({', '.join(program.arrays)}, c):",
            f"    {', '.join(program.coefficients)}, = c.unbind()",
            "    params, grad = params.to(c.dtype), grad.to(c.dtype)",
            *(f"    {line}" for line in program.lines(TEXTS, "{!r}")),
            f"    return {', '.join(program.writes.values())},",
        ]
        scope: dict[str, Any] = {"torch": self.torch}
        exec(compile("\n".join(lines), f"<{program.rule}>", "exec"), scope)
        update: Callable[..., Any] = scope["update"]
        return update

    def _rows(self, leaves: Sequence[TypedLeaf]) -> list[Any]:
        """The coefficients of each leaf, in one tensor for all leaves that share them: so that other numbers compile nothing."""
        rows: dict[int, Any] = {}
        for leaf in leaves:
            if id(leaf.c) not in rows:
                rows[id(leaf.c)] = self._row(leaf)
        return [rows[id(leaf.c)] for leaf in leaves]

    def _row(self, leaf: TypedLeaf) -> Any:
        numbers, device, dtype = numbers_of(leaf.c), leaf.params.device, leaf.typed.compute
        if all(isinstance(x, float) for x in numbers):
            return self.torch.from_numpy(rounded(numbers, str(dtype).rpartition(".")[2])).to(device)
        return self.torch.stack([self.torch.as_tensor(x, dtype=dtype, device=device) for x in numbers])


def _step(donate: bool, updates: Sequence[Any], old: Sequence[Any], grads: Sequence[Any], rows: Sequence[Any]) -> Any:
    """The new arrays of some leaves, or with ``donate`` these numbers in the old ones."""
    new = [update(*arrays, grad, c) for update, arrays, grad, c in zip(updates, old, grads, rows, strict=True)]
    if not donate:
        return [[y.to(x.dtype) for x, y in zip(arrays, results, strict=True)] for arrays, results in zip(old, new, strict=True)]
    for arrays, results in zip(old, new, strict=True):
        for x, y in zip(arrays, results, strict=True):
            x.copy_(y)
    return None


def _at_least_1d(x: Array) -> Array:
    """A view: of a float64 tensor without dimensions torch takes the number only, and writes the new one nowhere.

    Of one whose numbers are negated as they are read, a copy: the compiler would read them as they are in memory.
    """
    x = x.resolve_neg()
    return x if x.ndim else x.unsqueeze(0)
