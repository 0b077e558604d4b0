"""A situation: one step, or a few, of a rule, as the program that shows it. What is checked is what is printed."""

from typing import Any, NamedTuple

PARTS = "from xopt.conformance.structures.parts import *"

CONSTANTS: dict[str, tuple[tuple[str, str, int], ...]] = {
    "": (),
    "small blocks": (("blocks", "BLOCK", 8),),
    "small shares": (("blocks", "BLOCK", 8), ("threads", "PARALLEL", 1), ("numba_kernels", "FAR", 1)),
    "small kernels": (
        ("blocks", "BLOCK", 8),
        ("numba_kernels", "BLOCK", 8),
        ("numba_kernels", "SHARE", 16),
        ("numba_kernels", "CHUNK", 4),
        ("numba_kernels", "FAR", 1),
        ("threads", "SHARE", 16),
        ("threads", "PARALLEL", 1),
    ),
    "small launches": (("torch_compile", "LEAVES", 2), ("jax_jit", "LEAVES", 2), ("elementwise_kernel", "SMALL", 4)),
    "small pairs": (("elementwise_kernel", "SMALL", 0), ("elementwise_kernel", "APART", 2)),
}
"""Where blocks, shares and launches end in ``xopt.backends.compilers``: as is, and smaller, so that small arrays meet them."""

COMPILED_IN = ("small kernels", "small pairs")
"""Those that kernels are compiled with."""


class Mode(NamedTuple):
    """How a step is taken."""

    mode: str  # as in the report
    compiler: str | None = None
    donate: bool = False
    refusals: bool = False  # no further than to what is refused: to compile costs seconds

    def __str__(self) -> str:
        return f"{self.mode}{f' by {self.compiler}' if self.compiler else ''}{', donated' if self.donate else ''}"


class Situation(NamedTuple):
    """What is drawn. The lines are Python; each of ``stages`` ends in a gradient, ``grad``, and hyperparameters, ``hyper``."""

    library: str
    rule: str
    setup: tuple[str, ...]  # to the state before its first step
    changes: tuple[str, ...]  # of that state
    before: tuple[str, ...]  # what ``step`` does first
    stages: tuple[tuple[str, ...], ...]
    features: tuple[str, ...]  # what is out of the ordinary, in words
    troubles: tuple[tuple[str, str], ...] = ()  # what all steps must refuse: in words, and as what comes on top of the last stage
    graph: bool = False  # whether autograd records
    special: bool = False  # whether arrays have rules of their own
    traced: bool = False  # whether the coefficients are computed in arrays
    constants: str = ""  # one of CONSTANTS
    threads: bool = False  # whether several take the first stage at once
    interrupt: float | None = None  # how far the first stage comes, in parts, until the user interrupts it

    def step(self, mode: Mode) -> str:
        """The line that makes ``step``."""
        name = f"xopt.{self.rule}_step"
        if mode.mode == "eager":
            return f"step = {name}"
        if mode.mode == "fused":
            return f"step = fuse(xopt.{self.rule}, compiler={mode.compiler!r}, donate={mode.donate})"
        if self.library == "torch":
            return f"step = torch.compile({name})"
        if self.library != "jax":
            traced = f"get({self.library!r}).trace(functools.partial({name}, **hyper))"
            return f"step = lambda state, grad, **hyper: {traced}(state, grad)"
        return f"step = lambda state, grad, **hyper: jax.jit(functools.partial({name}, **hyper))(state, grad)"

    def program(self, mode: Mode) -> str:
        """The whole, to be pasted and run; of what must be refused, the first."""
        lines = [f"import {self.library}", "import xopt", "from xopt.backends import fuse, get", PARTS, ""]
        lines.remove("import numpy") if self.library == "numpy" else None
        if self.library == "jax":
            lines.insert(1, 'jax.config.update("jax_enable_x64", True)')
        if self.library == "torch" and not self.graph:
            lines.insert(1, "torch.set_grad_enabled(False)")
        for module, name, value in CONSTANTS[self.constants]:
            lines.append(f"from xopt.backends.compilers import {module}; {module}.{name} = {value}")
        lines += [*self.setup, *self.changes, self.step(mode), *self.before]
        for stage in self.stages[:-1]:
            lines += [*stage, "state = step(state, grad, **hyper)"]
        lines += [*self.stages[-1], *(code for _, code in self.troubles[:1]), "new = step(state, grad, **hyper)"]
        return "\n".join([*lines, "print(new)"])

    def __repr__(self) -> str:
        return f"<situation of {self.rule} on {self.library}: {', '.join(self.features) or 'nothing out of the ordinary'}>"


Names = dict[str, Any]
"""What the lines of a program are run in."""
