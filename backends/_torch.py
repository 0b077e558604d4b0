"""PyTorch, on the CPU and on CUDA devices."""

import ctypes
import importlib
import os
import struct
import sys
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain
from operator import attrgetter, methodcaller
from types import FunctionType
from typing import Any, NoReturn

import numpy as np
from array_api_compat import is_torch_array

from xopt.arrays import torch_follows
from xopt.backends.base import Backend, cuda_version, rounded, say_once, to_bfloat16_bits, variables
from xopt.backends.compilers.host import HostFuser, HostMemory
from xopt.backends.compilers.numba_kernels import FORMATS, numba_or_reason
from xopt.backends.fused.donation import WAY_OUT
from xopt.backends.fused.fallback import OrElse, short
from xopt.backends.fused.memory import anything
from xopt.backends.fused.work import TakesStep, UnfitError, Work
from xopt.operations import Array
from xopt.rule import Rule

INTERPRETED = "triton-interpreted"
"""What a device is called that is the CPU with Triton's kernels for GPUs interpreted; nothing found there may pass for a GPU's."""


class TorchBackend(Backend):
    name = "torch"
    module = "torch"
    distributions = ("torch",)
    extra = "torch"
    tracer: str | None = "torch.compile"
    compilers = "numba", "triton", "torch.compile"

    def __init__(self, device: str) -> None:
        super().__init__(device)
        if device == INTERPRETED:
            self.place, self.tracer, self.asked_compiler = "cpu", None, "triton"

    @classmethod
    def owns(cls, x: Any) -> bool:
        return is_torch_array(x)

    @classmethod
    def devices(cls) -> tuple[str, ...]:
        torch = importlib.import_module("torch")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a CUDA driver that does not work is no device
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        interpreted = (INTERPRETED,) if interprets() else ()
        return ("cpu", *(f"cuda:{i}" for i in range(count)), *interpreted)

    @classmethod
    def fuser(cls, rule: Rule[Any, Any], compiler: str | None, example: Array) -> TakesStep:
        if compiler == "torch.compile":
            return _by_torch_compile(rule, example)
        on_cpu = example.device.type == "cpu"
        best = compiler or _BEST.get(example.device.type)
        if best is None:
            return _compiled(rule, example)
        why_not, make = _COMPILERS[best]
        missing = why_not(on_cpu)
        if compiler is not None:
            if missing:
                raise ImportError(missing)
            return make(rule)
        said = f"fused steps of torch tensors on {'a CPU' if on_cpu else 'a GPU'} go through torch.compile, as {{reason}}"
        if not missing:
            return OrElse(make(rule), lambda: _compiled(rule, example), said)
        say_once(said.format(reason=missing))
        return _compiled(rule, example)

    @property
    def usable_compilers(self) -> tuple[str, ...]:
        if self.asked_compiler:
            return (self.asked_compiler,)
        on_cpu = self.place == "cpu"
        best = _BEST[self.place.partition(":")[0]]
        why_not, _ = _COMPILERS[best]
        return ("torch.compile",) if why_not(on_cpu) else (best, "torch.compile")

    def dtypes(self) -> tuple[str, ...]:
        return "float16", "bfloat16", "float32", "float64"

    def asarray(self, values: Any, dtype: str) -> Array:
        self.refuse(dtype)
        if dtype == "bfloat16":
            bits = self.lib.tensor(to_bfloat16_bits(values).view(np.int16))
            return bits.view(self.lib.bfloat16).to(self.place)
        return self.lib.tensor(rounded(values, dtype), device=self.place)

    def to_numpy(self, x: Array) -> Any:
        x = x.detach().cpu()
        return (x.float() if x.dtype == self.lib.bfloat16 else x).numpy()

    def session(self) -> AbstractContextManager[Any]:
        return self.lib.no_grad()  # type: ignore[no-any-return]

    def trace(self, function: Callable[..., Any]) -> Callable[..., Any]:
        # torch compiles a code object, which all steps share, only so often: with a copy each function has as many versions. Beyond
        # that torch runs eagerly without a word; better an error.
        loud = self.lib._dynamo.config.patch(
            recompile_limit=1000, accumulated_recompile_limit=1000, fail_on_recompile_limit_hit=True
        )
        return loud(self.lib.compile(_copy(function)))  # type: ignore[no-any-return]

    def synchronise(self, x: Array) -> None:  # noqa: ARG002 - waits for all
        if self.place != "cpu":
            self.lib.cuda.synchronize(self.place)

    def hardware(self) -> dict[str, str]:
        torch = self.lib
        if self.place == "cpu":
            return super().hardware() | {"used by torch": torch.backends.cpu.get_cpu_capability()}
        found = torch.cuda.get_device_properties(self.device)
        capability = {"name": found.name, "compute capability": f"{found.major}.{found.minor}"}
        if torch.version.hip:
            return capability | {"ROCm": torch.version.hip} | variables()
        return capability | {"CUDA": torch.version.cuda} | _driver() | variables()


def _driver() -> dict[str, str]:
    """What the driver says of itself, which torch has no public function for; nothing where it does not say."""
    version = ctypes.c_int()
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if driver.cuDriverGetVersion(ctypes.byref(version)) == 0:
            return {"driver": f"CUDA {cuda_version(version.value)}"}
    return {}


def interprets() -> bool:
    """Whether Triton is here and runs its kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1" and _why_no_triton(on_cpu=True) is None


def _why_no_numba(on_cpu: bool) -> str | None:
    """Why numba steps no tensors on the CPU, or on a GPU; None where it does."""
    return numba_or_reason() if on_cpu else "numba steps tensors on the CPU alone"


def _why_no_triton(on_cpu: bool) -> str | None:
    """The same of Triton."""
    try:
        interpreted = importlib.import_module("triton").knobs.runtime.interpret
    except Exception as error:  # noqa: BLE001 - whatever its import raises
        return f"Triton cannot be used ({short(error)})"
    if on_cpu and not interpreted:
        return "Triton steps tensors on the CPU where TRITON_INTERPRET=1 is set alone"
    if interpreted and not on_cpu:
        return "Triton's interpreter, which TRITON_INTERPRET=1 asks for, cannot read a GPU's memory"
    return None


def _compiled(rule: Rule[Any, Any], example: Array) -> TakesStep:
    """Steps by torch.compile, which may want a compiler of C++ that is not there: by the plain step then."""

    def plain(work: Work) -> NoReturn:
        msg = f"{work.where(0)} is a tensor for which nothing compiles a step"
        raise UnfitError(msg)

    return OrElse(_by_torch_compile(rule, example), lambda: plain, "fused steps of torch tensors are plain steps, as {reason}")


def _by_torch_compile(rule: Rule[Any, Any], example: Array) -> TakesStep:
    from xopt.backends.compilers.torch_compile import TorchCompileFuser

    return TorchCompileFuser(rule, TorchMemory(), example)


def _by_numba(rule: Rule[Any, Any]) -> TakesStep:
    return HostFuser(rule, TorchMemory())


def _by_triton(rule: Rule[Any, Any]) -> TakesStep:
    from xopt.backends.compilers.triton_kernel import TritonFuser

    return TritonFuser(rule, TorchMemory())


_BEST = {"cpu": "numba", "cuda": "triton"}  # by the type of device
_COMPILERS = {"numba": (_why_no_numba, _by_numba), "triton": (_why_no_triton, _by_triton)}


class TorchMemory(HostMemory):
    """Tensors on the CPU. DLPack's C interface says where they are, at a twentieth of the cost of asking in Python."""

    formats = FORMATS
    versioned = True

    def __init__(self) -> None:
        self.lib: Any = importlib.import_module("torch")
        self.members = self.lib.get_num_threads
        self.reader = _dlpack_reader(self.lib.Tensor)
        self._plain = Plain(self.lib)

    def types(self) -> list[type]:
        return [self.lib.Tensor, self.lib.nn.Parameter] if self.reader and self._plain.words else []

    def marks(self) -> list[int]:
        return self._plain.words

    def unfit(self, x: Any) -> str | None:
        return self._plain.unfit(x)

    def refuse_unwritable(self, work: Work, i: int) -> None:
        refuse_negated(work, i)

    def tags(self) -> list[tuple[int, int, int, int]]:
        def tag(name: str) -> int:  # DLPack's: a code for the kind of number, its bits, and one lane
            return (4 if name == "bfloat16" else 2) | int(name.removeprefix("b").removeprefix("float")) << 8 | 1 << 16

        return [(tag(one.name), tag(one.compute), 1, 1) for one in self.formats]

    def form(self, x: Any) -> Hashable:
        return self._plain.form(x)

    def address(self, x: Any) -> int:
        return int(x.data_ptr())

    def look(self, x: Any) -> tuple[int, int, tuple[int, ...], int]:
        start = x.data_ptr()
        return start, start + _reach(x), x.stride(), 1  # strides count numbers

    def numbers(self, x: Any) -> Any:
        return x.resolve_neg()

    def on(self, x: Any) -> AbstractContextManager[Any]:
        return nullcontext() if x.device.type == "cpu" else self.lib.cuda.device(x.device)

    def empty_like(self, x: Any) -> Any:
        return self.lib.empty_like(x, requires_grad=False)

    def copied(self, x: Any) -> Any:
        return x.detach().clone()

    def alias(self, x: Any) -> Any:
        return x.detach()

    def numpy(self, x: Any) -> Any:
        x = x.detach().resolve_neg()
        return x.view(self.lib.uint16).numpy() if x.element_size() == 2 else x.numpy()

    def device(self, x: Any) -> Any:
        return x.device

    def check(self, work: Work) -> None:
        refuse_graph(work)

    def wrote(self, arrays: list[Any]) -> None:
        self.lib.autograd.graph.increment_version(arrays)  # so that a backward pass that needs the old numbers fails


def extents(tensors: Sequence[Any]) -> tuple[Any, Any]:
    """Where in memory each tensor begins, and where it ends."""
    start = np.fromiter(map(_address, tensors), np.int64, len(tensors))
    sizes = map(_size if all(map(_is_contiguous, tensors)) else _reach, tensors)
    return start, start + np.fromiter(sizes, np.int64, len(tensors))


_address, _is_contiguous, _size = methodcaller("data_ptr"), methodcaller("is_contiguous"), attrgetter("nbytes")


def _reach(x: Any) -> int:
    """Bytes from the first number of a tensor to behind its last."""
    last = sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    return int((last + 1) * x.element_size()) if x.numel() else 0


def refuse_graph(work: Work) -> None:
    """Raises TypeError where torch would record what is done to the arrays, which a fused step does not tell it.

    Raises UnfitError where something else follows it: forward differentiation, a trace, a mode that each operation goes through.
    """
    torch: Any = sys.modules["torch"]
    if torch.is_grad_enabled() and not (work.hosted() and _none_requires_grad((work.params, work.grads, *work.slots))):
        arrays = chain(work.params, work.grads, *work.slots, work.loose())
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # what torch.func transforms, it follows itself
        if any(getattr(x, "requires_grad", False) and not wrapped(x) for x in _each(arrays)):
            msg = (
                f"{work.where(0)}, or another array, requires gradients, and no graph is recorded of a fused step; "
                f"call it within torch.no_grad(). {work.rule.name}_step records one"
            )
            raise TypeError(msg)
    if torch_follows(torch):
        msg = f"{work.where(0)} is in a block in which torch follows each operation (forward_ad, a trace, a dispatch mode)"
        raise UnfitError(msg)


def _none_requires_grad(columns: Iterable[Sequence[Any]]) -> bool:
    """Whether all are tensors that require no gradients, which takes a third of looking at each of them."""
    try:
        return not any(map(_requires_grad, chain.from_iterable(columns)))
    except AttributeError:  # one of them is None, a tuple or a number
        return False


_requires_grad = attrgetter("requires_grad")


def _each(arrays: Iterable[Any]) -> Iterator[Any]:
    for x in arrays:
        yield from x if isinstance(x, tuple) else (x,)


def refuse_negated(work: Work, i: int) -> None:
    """Raises ValueError where an array of leaf ``i`` is the negative of its memory, as the imaginary part of a conjugate is."""
    if any(x.is_neg() for x in work.written(i)):
        msg = f"{work.where(i)} or a slot of it is a negated view, so that it cannot be donated; {WAY_OUT}, as does x.resolve_neg()"
        raise ValueError(msg)


class Plain:
    """Which tensors are nothing but numbers in memory of their own.

    Torch marks them by the keys that it dispatches their operations by: a word in the C++ object of each tensor. It is looked for
    once, in tensors of known kinds, and trusted only if it is where it says for all of them; else each tensor is asked.
    """

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._types = (torch.Tensor, torch.nn.Parameter)
        plain = torch.zeros(3, device="cpu")  # whatever torch's default device is
        with torch.inference_mode():
            inferred = torch.zeros(3, device="cpu")
        self._keys = {self._key(plain), self._key(inferred)}
        self._fit = set(self._keys)  # and those of tensors that turned out to be fit
        self.words: list[int] = []
        """Offsets in the Python object and in the C++ object, and the words of plain tensors. Empty where they are not found."""
        others = [torch._neg_view(plain), plain[1:], torch.nn.Parameter(plain), plain.to_sparse(), plain.to("meta"), inferred]
        places = [self._places(x) for x in (plain, *others)]
        common = set.intersection(*places)
        if common and len({self._key(x) for x in (plain, *others)}) >= 4:
            self.words = [*min(common), *self._keys]

    def unfit(self, x: Any) -> str | None:
        """What a tensor is where it is more, or other, than its numbers in memory."""
        torch = self._torch
        if not isinstance(x, torch.Tensor):
            return None
        if type(x) not in self._types:
            return f"a {type(x).__module__}.{type(x).__name__}, a subclass of torch's tensors"
        if self._key(x) in self._fit:
            return None
        if torch._C._functorch.is_functorch_wrapped_tensor(x):
            return "transformed by torch.func"
        if x.layout != torch.strided or x.is_nested or x.is_quantized or x.is_mkldnn:
            return f"no dense tensor: {x.layout}, {x.dtype}"
        if x.device.type not in ("cpu", "cuda"):
            return f"on device {x.device}"
        if x._is_zerotensor():
            return "of zeros that are not in memory"
        self._fit.add(self._key(x))
        return None

    def form(self, x: Any) -> Hashable:
        """All of a tensor but its numbers and its address, where it is fit."""
        if type(x) not in self._types or (key := self._key(x)) not in self._fit:
            return anything()
        return key, x.dtype, x.shape, x.stride(), x.device

    def _key(self, x: Any) -> int:
        word = self._torch._C._dispatch_keys(x).raw_repr()
        return int(word - 2**64 if word >= 2**63 else word)

    def _places(self, x: Any) -> set[tuple[int, int]]:
        """Where the word of the keys is: the offset of a pointer in the object, and that of the word behind it."""
        inner, header = x._cdata, object.__basicsize__
        outer = _words(id(x), header, header + 32)
        return {(i, j) for i, pointer in outer if pointer == inner for j, word in _words(inner, 0, 192) if word == self._key(x)}


def _words(address: int, start: int, stop: int) -> list[tuple[int, int]]:
    """The words of 64 bits in a piece of memory, by their offsets."""
    words = struct.unpack(f"={(stop - start) // 8}q", ctypes.string_at(address + start, stop - start))
    return [(start + 8 * i, word) for i, word in enumerate(words)]


def _dlpack_reader(tensor: type) -> int:
    """The address of ``dltensor_from_py_object_no_sync`` of DLPack's exchange API; 0 where torch has none yet."""
    capsule = getattr(tensor, "__dlpack_c_exchange_api__", None)
    if capsule is None:
        return 0
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    major, _, *_, reader, _ = struct.unpack("=II6Q", ctypes.string_at(get(capsule, b"dlpack_exchange_api"), 56))
    return int(reader) if major == 1 else 0


def _copy(function: Any) -> Any:
    """The same function with a code object of its own; what is not written in Python stays itself."""
    if not isinstance(function, FunctionType):
        return function
    own = FunctionType(
        function.__code__.replace(), function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    own.__kwdefaults__ = function.__kwdefaults__
    return own
