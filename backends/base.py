"""What a backend is: one array library on one device, and the little in which it differs from the others."""

import importlib
import importlib.util
import os
import platform
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from xopt.operations import Array, namespace

if TYPE_CHECKING:
    from xopt.backends.fused.work import TakesStep
    from xopt.rule import Rule

COMPUTE = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}
"""For each dtype of params and grad that is stepped fused, that of the slots and of the arithmetic."""


class Availability(NamedTuple):
    """Whether a backend can be used here."""

    name: str
    version: str | None
    """Of the installed library; None where there is none."""
    devices: tuple[str, ...]
    """Where it can compute, the default first."""
    reason: str | None
    """Why it cannot be used; None where it can."""


class Backend(ABC):
    """An array library on one of its devices.

    Parameters
    ----------
    device
        One of ``devices()``.
    """

    name: ClassVar[str]
    module: ClassVar[str]
    """What is imported."""
    distributions: ClassVar[tuple[str, ...]]
    """The names under which it is installed."""
    extra: ClassVar[str]
    """The extra of array-xopt that installs it."""
    tracer: str | None = None
    """The library's compiler of whole functions."""
    compilers: ClassVar[tuple[str, ...]] = ()
    """What makes one pass over memory of a step, the best first; see ``xopt.backends.fuse``."""

    needs: ClassVar[str] = "CUDA device"
    """What is missing where there is no device."""
    slow: ClassVar[bool] = False
    """Whether its checks take minutes: the conformance suite then runs where the backend is asked for by name, and at night."""
    laborious: ClassVar[bool] = False
    """Whether an operation takes a millisecond, however few the numbers: the suite then looks at less."""

    asked_compiler: str | None = None
    """The one that fused steps must be asked for on this device; None where they take the right one by themselves."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.place = device  # as the library calls it
        self.lib: Any = importlib.import_module(self.module)

    def __repr__(self) -> str:
        return f"<xopt backend {self.name} on {self.device}>"

    @classmethod
    def installed_version(cls) -> str | None:
        """Of the library, without importing it; None where it is not installed."""
        for distribution in cls.distributions:
            try:
                return version(distribution)
            except PackageNotFoundError:
                continue
        package = cls.module.partition(".")[0]
        return "unknown" if cls.module in sys.modules or importlib.util.find_spec(package) else None

    @classmethod
    @abstractmethod
    def devices(cls) -> tuple[str, ...]:
        """The devices that there are, the default first; none where the library has no device to run on. Imports the library."""

    @classmethod
    @abstractmethod
    def owns(cls, x: Any) -> bool:
        """Whether ``x`` is an array of this library. Imports nothing."""

    @classmethod
    def traces(cls, x: Array) -> bool:  # noqa: ARG003
        """Whether ``x`` is what the library's compiler traces a function with, rather than an array."""
        return False

    @classmethod
    def fuser(cls, rule: "Rule[Any, Any]", compiler: str | None, example: Array) -> "TakesStep":
        """What takes steps of ``rule`` in one pass over memory, for arrays on the device of ``example``; one of ``compilers``."""
        raise NotImplementedError

    @classmethod
    def survives(cls, how: str, dtype: str) -> bool:  # noqa: ARG003
        """Whether an array is the same after ``"pickle"``, ``"deepcopy"``, or ``"numpy"``, to a NumPy array and back."""
        return True

    @property
    def version(self) -> str:
        return self.installed_version() or "unknown"

    @property
    def usable_compilers(self) -> tuple[str, ...]:
        """Those that compile for this device, the best first."""
        return self.compilers

    @property
    def compiler(self) -> str | None:
        """What fuses steps on this device."""
        return next(iter(self.usable_compilers), None)

    def compiles_each(self, mode: str) -> bool:
        """Whether a step in this mode of the conformance suite is compiled anew for each shape, by the library's own compiler."""
        return mode == "traced" or (mode == "fused" and self.compiler == self.tracer)

    @property
    def functions(self) -> Any:
        """The library's own functions, without array-api-compat."""
        return self.lib

    @property
    def xp(self) -> Any:
        """The array API namespace of this backend's arrays."""
        return namespace(self.asarray([0.0], self.plain_dtype))

    @property
    def plain_dtype(self) -> str:
        """The narrowest dtype that rules compute in: float32, where it is there."""
        return next(dtype for dtype in ("float32", "float64") if dtype in self.dtypes())

    @abstractmethod
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that parameters may have, narrowest first."""

    @abstractmethod
    def asarray(self, values: Any, dtype: str) -> Array:
        """A new array on this device with ``values``, a NumPy array or list, each rounded once to ``dtype``."""

    @abstractmethod
    def to_numpy(self, x: Array) -> Any:
        """The values of ``x`` as a NumPy array of its shape, exactly; bfloat16 becomes float32, which holds all of it."""

    def session(self) -> AbstractContextManager[Any]:
        """A block in which every dtype of ``dtypes`` works and no gradients are recorded."""
        return nullcontext()

    def trace(self, function: Callable[..., Any]) -> Any:  # noqa: ARG002
        """``function``, pure, through the library's compiler. None where there is none: where ``tracer`` is None."""
        return None

    def synchronise(self, x: Array) -> None:  # noqa: B027 - most have nothing to wait for
        """Waits until ``x`` is computed."""

    def hardware(self) -> dict[str, str]:
        """What the device is: its ``name``, its instructions or drivers, and the variables that change its numbers.

        Here: the CPU, with the instruction sets that NumPy finds.
        """
        simd = np.show_config(mode="dicts")["SIMD Extensions"]
        return {
            "name": platform.processor() or platform.machine(),
            "system": platform.system(),
            "instructions": " ".join((*simd["baseline"], *simd["found"])),
            **variables(),
        }

    def refuse(self, dtype: str) -> None:
        """Raises ValueError for a dtype that this backend does not have."""
        if dtype not in self.dtypes():
            msg = f"{self.name} has no {dtype}; it has {', '.join(self.dtypes())}"
            raise ValueError(msg)


def say(line: str) -> None:
    """On standard error, where there is one: a program without a console has None, and a daemon may have closed it."""
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"{line}\n")


@cache
def say_once(what: str) -> None:
    """As a warning."""
    with suppress(ValueError):  # standard error is closed
        warnings.warn(what, stacklevel=4)


def cuda_version(number: int) -> str:
    """As CUDA itself counts them, 12080 for 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}"


def variables() -> dict[str, str]:
    """Variables of the environment that change what a library computes, where they are set."""
    return {name: os.environ[name] for name in ("NVIDIA_TF32_OVERRIDE", "XLA_FLAGS") if name in os.environ}


def rounded(values: Any, dtype: Any) -> Any:
    """A new NumPy array of ``values``, each rounded once; what is too large becomes infinite without a warning."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=dtype, order="C")


def to_bfloat16_bits(values: Any) -> Any:
    """Float64 values as the upper halves of float32, rounded once to nearest, ties to even."""
    x = np.asarray(values, dtype=np.float64)
    near = rounded(x, "float32")
    # rounding twice is harmless if the first time is to odd: where it was not exact, the last bit is set
    bits = near.view(np.uint32)
    toward_zero = np.where(np.abs(near.astype(np.float64)) > np.abs(x), bits - 1, bits).astype(np.uint32)
    odd = np.where(near.astype(np.float64) == x, bits, toward_zero | 1).astype(np.uint32)
    even = (odd + np.uint32(0x7FFF) + ((odd >> 16) & 1)) >> 16
    return np.where(np.isnan(x), np.uint32(0x7FC0), even).astype(np.uint16)
