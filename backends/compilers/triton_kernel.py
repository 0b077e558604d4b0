"""Fused steps of torch tensors on GPUs: the recorded program as a Triton kernel, in which each operation rounds to nearest.

Where the variable ``TRITON_INTERPRET`` is 1, Triton runs the same text on a CPU: slowly, and with the same numbers.
"""

import hashlib
import importlib
import linecache
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from xopt.backends.base import COMPUTE
from xopt.backends.compilers.launches import Batch, DeviceFuser
from xopt.backends.compilers.tables import starts_of
from xopt.backends.fused.fallback import CompileError, short
from xopt.backends.fused.memory import Memory
from xopt.program import INFIX, Program
from xopt.rule import Rule

BLOCK = 1024
"""Numbers that one program of a launch steps."""

ALIGNMENT = 16
"""Bytes that a GPU reads at once, where addresses are multiples of it."""

OPTIONS = {"enable_fp_fusion": False}
"""No multiplication and addition become one operation that rounds once."""

_TEXTS = INFIX | {
    "abs": "tl.abs({0})",
    "sign": "tl.where({0} > 0, 1.0, tl.where({0} < 0, -1.0, {0}))",
    "maximum": "tl.where(({0} > {1}) | ({0} != {0}), {0}, {1})",
    "minimum": "tl.where(({0} < {1}) | ({0} != {0}), {0}, {1})",
    "where": "tl.where({0}, {1}, {2})",
}
_ROUNDED = {  # Triton's own sqrt and / of float32 are approximate; of float64 they are not, and have no other name
    "float32": {"divide": "tl.div_rn({0}, {1})", "sqrt": "tl.sqrt_rn({0})"},
    "float64": {"divide": "{0} / {1}", "sqrt": "tl.sqrt({0})"},
}
_COEFFICIENT = {  # from its bits in a word of the table
    "float32": "{}.to(tl.int32).to(tl.float32, bitcast=True)",
    "float64": "{}.to(tl.float64, bitcast=True)",
}


class KernelText:
    """The words of a leaf in the table of a kernel.

    They are: the program of the launch that steps its first numbers, how many numbers it has, the bits of the coefficients, the
    addresses of the arrays that are read and of those that are written; and where not all arrays are dense and of one layout, the
    lengths of ``dims`` dimensions and the strides of each array.
    """

    def __init__(self, program: Program, dtype: str, dims: int | None) -> None:
        self.program, self.dtype, self.dims = program, dtype, dims
        self.real = COMPUTE[dtype]
        self.coefficients = [program.coefficients[i] for i in program.used]
        self.arrays = [*(f"old_{name}" for name in program.reads), *(f"new_{name}" for name in program.writes)]
        strided = () if dims is None else ("length", *(f"stride_{name}" for name in self.arrays))
        self.words = ["begin", "size", *self.coefficients, *self.arrays, *(f"{x}_{i}" for x in strided for i in range(dims or 0))]

    def text(self) -> str:
        """The kernel, for ``triton.jit``."""
        names = [*self.arrays, *(f"at_{name}" for name in self.arrays if self.dims is not None), *self.coefficients]
        call = f"_step({', '.join(names)}, at, {{}})"
        parameters = ", ".join([*names, "_at", "_inside"])  # no slot has such a name
        return "\n".join(
            [
                "@triton.jit",
                f"def _step({parameters}):",
                *(f"    {line}" for line in self._step()),
                "",
                "",
                "@triton.jit(do_not_specialize=['leaves'])",
                "def kernel(table, leaves, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):",
                "    block = tl.program_id(0).to(tl.int64)",
                "    first = block * 0",
                "    last = first + leaves",
                "    while last - first > 1:",
                "        middle = (first + last) // 2",
                f"        begun = tl.load(table + middle * {len(self.words)}) <= block",
                "        first = tl.where(begun, middle, first)",
                "        last = tl.where(begun, last, middle)",
                f"    row = table + first * {len(self.words)}",
                *(f"    {line}" for line in self._row()),
                "    start = (block - begin) * BLOCK",
                "    at = start + tl.arange(0, BLOCK)",
                *(f"    {line}" for line in self._places()),
                "    if size - start >= BLOCK:",  # without a mask it is read in pieces of 16 bytes
                f"        {call.format('None')}",
                "    else:",
                f"        {call.format('at < size')}",
                "",
            ]
        )

    def _row(self) -> Iterable[str]:
        """Reads the words."""
        for place, name in enumerate(self.words):
            word = f"tl.load(row + {place})"
            if name in self.coefficients:
                yield f"{name} = {_COEFFICIENT[self.real].format(word)}"
            elif name in self.arrays:
                kind = "uint16" if self._dtype(name) == "bfloat16" else self._dtype(name)
                yield f"{name} = {word}.to(tl.pointer_type(tl.{kind}))"
            else:
                yield f"{name} = {word}"
        if self.dims is None:
            yield "if ALIGNED:"
            yield from (f"    {name} = tl.multiple_of({name}, {ALIGNMENT})" for name in self.arrays)

    def _places(self) -> Iterable[str]:
        """Where the numbers are in arrays that are not dense: the last dimension counts fastest."""
        if self.dims is None:
            return
        yield from (f"at_{name} = at * 0" for name in self.arrays)
        yield "rest = at"
        for i in reversed(range(self.dims)):
            yield from (f"at_{name} += rest % length_{i} * stride_{name}_{i}" for name in self.arrays)
            yield f"rest = rest // length_{i}"

    def _step(self) -> Iterable[str]:
        """The step of some numbers, all loads before the first store."""
        program, place = self.program, "_at" if self.dims is None else "at_{}"
        real = f"tl.{self.real}"
        for name in program.reads:
            old = f"old_{name}"
            yield f"{name} = {_widened(f'tl.load({old} + {place.format(old)}, _inside)', self._dtype(old), self.real)}"
        yield from program.lines(_TEXTS | _ROUNDED[self.real], f"tl.full((), {{!r}}, {real})")
        for name, value in program.writes.items():
            new = f"new_{name}"
            yield f"tl.store({new} + {place.format(new)}, {_narrowed(value, self._dtype(new))}, _inside)"

    def _dtype(self, name: str) -> str:
        return self.dtype if name.partition("_")[2] in ("params", "grad") else self.real


def _widened(x: str, dtype: str, real: str) -> str:
    if dtype == "bfloat16":
        return f"({x}.to(tl.uint32) << 16).to(tl.float32, bitcast=True)"
    return f"{x}.to(tl.{real})"


def _narrowed(x: str, dtype: str) -> str:
    """To nearest, ties to even. Of bfloat16 by the bits, as Triton's interpreter cuts them off."""
    if dtype == "bfloat16":
        bits = f"{x}.to(tl.uint32, bitcast=True)"
        return f"tl.where({x} == {x}, ({bits} + 0x7FFF + (({bits} >> 16) & 1)) >> 16, 0x7FC0).to(tl.uint16)"
    return f"{x}.to(tl.{dtype})"


@cache
def jitted(text: str, name: str, interpreted: bool) -> Any:
    """The kernel of a text. Triton reads the source of what it compiles, which Python looks up by the name of a file."""
    triton = importlib.import_module("triton")
    if triton.knobs.runtime.interpret != interpreted:
        wanted = "be 1" if interpreted else "not be 1"  # else the interpreter would read a GPU's memory
        msg = f"TRITON_INTERPRET must {wanted}, as when the step was made"
        raise CompileError(msg)
    file = f"<xopt {name} {hashlib.sha256(text.encode()).hexdigest()}>"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    scope: dict[str, Any] = {"__name__": __name__, "triton": triton, "tl": triton.language}
    exec(compile(text, file, "exec"), scope)
    return scope["kernel"]


class TritonKernels:
    """The kernels of a program for one dtype of params: one for dense arrays, one for each number of dimensions of others."""

    def __init__(self, program: Program, dtype: str) -> None:
        self._program, self._dtype = program, dtype
        self._reads = [program.arrays.index(name) for name in program.reads]
        self._real = np.dtype(COMPUTE[dtype]).type
        self._texts: dict[int | None, str] = {}  # by the dimensions of arrays that are not dense
        self._compiled: set[Any] = set()

    def prepared(self, batch: Batch) -> list[Callable[[], None]]:
        """One for all dense leaves whose addresses are multiples of what a GPU reads at once, one for the others; and of those
        that are not dense one for each number of dimensions."""
        chosen = batch.chosen
        places = np.column_stack([batch.sources[:, self._reads], batch.targets])
        bits = np.stack([self._bits(c) for c in batch.coefficients])[chosen.rows]
        device = batch.old[0][chosen.leaves[0]].device
        groups: list[tuple[int | None, bool, Any]]
        if not chosen.strided:
            aligned = ~(places % ALIGNMENT).any(axis=1)
            groups = [(None, kind, np.flatnonzero(aligned == kind)) for kind in (True, False)]
        else:
            dims = np.asarray([batch.old[0][i].ndim for i in chosen.leaves])
            groups = [(int(n), False, np.flatnonzero(dims == n)) for n in np.unique(dims)]
        launches = []
        for number, kind, leaves in groups:
            if leaves.size:
                blocks = starts_of(-(-chosen.sizes[leaves] // BLOCK))
                words = [blocks[:-1], chosen.sizes[leaves], bits[leaves], places[leaves]]
                if number:
                    words.append(np.asarray([self._strides(*batch.arrays(i)) for i in leaves.tolist()], np.int64))
                launches.append(self._prepared(number, kind, np.column_stack(words), int(blocks[-1]), device))
        return launches

    def _bits(self, c: Sequence[Any]) -> Any:
        """The coefficients that the kernels use, each rounded once. Waits for those that are arrays."""
        numbers = np.asarray([float(c[i]) for i in self._program.used], self._real)
        return numbers.view(np.int32 if numbers.itemsize == 4 else np.int64).astype(np.int64)

    def _strides(self, old: Sequence[Any], new: Sequence[Any]) -> list[int]:
        """The lengths of the dimensions of a leaf, and the strides of each array."""
        return [*old[0].shape, *(stride for x in (*(old[at] for at in self._reads), *new) for stride in x.stride())]

    def _prepared(self, dims: int | None, aligned: bool, words: Any, programs: int, device: Any) -> Callable[[], None]:
        interpreted = device.type == "cpu"
        if dims not in self._texts:
            self._texts[dims] = KernelText(self._program, self._dtype, dims).text()
        kernel = jitted(self._texts[dims], f"{self._program.rule} {self._dtype}", interpreted)
        arguments, how = (_on_device(words.ravel(), device), len(words)), {"ALIGNED": aligned, "BLOCK": BLOCK, **OPTIONS}
        ready = dims, aligned, device
        if ready not in self._compiled:
            try:
                kernel.warmup(*arguments, grid=(1,), **how)
            except Exception as error:
                msg = f"Triton fails ({short(error)})"
                raise CompileError(msg) from error
            self._compiled.add(ready)
        return partial(_launch, kernel[(programs,)], arguments, how, interpreted)


_interpreting = threading.Lock()  # the interpreter is one for all threads


def _launch(kernel: Any, arguments: Sequence[Any], how: dict[str, Any], interpreted: bool) -> None:
    if not interpreted:
        kernel(*arguments, **how)
        return
    with _interpreting, np.errstate(all="ignore"):
        kernel(*arguments, **how)


def _on_device(words: Any, device: Any) -> Any:
    """A tensor of NumPy's integers. From memory that the system keeps in place, the copy to a GPU is waited for by nobody."""
    torch = importlib.import_module("torch")
    here = torch.from_numpy(words)
    return here if device.type == "cpu" else here.pin_memory().to(device, non_blocking=True)


class TritonFuser(DeviceFuser):
    """Takes steps of tensors of one GPU; or of the CPU, where Triton interprets its kernels."""

    def __init__(self, rule: Rule[Any, Any], memory: Memory) -> None:
        torch: Any = importlib.import_module("torch")
        super().__init__(rule, memory, TritonKernels, {getattr(torch, name): name for name in COMPUTE})
