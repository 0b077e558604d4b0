"""Kernels for arrays in the CPU's own memory: numba compiles a recorded program to one loop over the numbers of a whole tree."""

import ctypes
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from xopt.backends.base import say, say_once
from xopt.backends.compilers.threads import SHARE, Pool, run
from xopt.backends.fused.fallback import CompileError, short
from xopt.program import INFIX, Program


class Format(NamedTuple):
    """A dtype of parameters that the kernels know."""

    name: str
    compute: str  # of slots and arithmetic
    storage: str  # NumPy's dtype of the same size
    load: str  # how a number becomes one of the arithmetic, and
    store: str  # back


FORMATS = (
    Format("float32", "float32", "float32", "{}", "{}"),
    Format("float64", "float64", "float64", "{}", "{}"),
    Format("float16", "float32", "uint16", "half_to_float({})", "float_to_half({})"),
    Format("bfloat16", "float32", "uint16", "bfloat16_to_float({})", "float_to_bfloat16({})"),
)

BLOCK = 16384
"""Numbers stepped at a time. A state that is not donated is copied in pieces of this size, which stay in the cache."""

CHUNK = 128
"""Numbers that are stepped between two requests for those further on."""
LINE = 64
"""Bytes that a processor fetches at once."""
AHEAD = 1024
"""Bytes by which the requests are ahead. Processors fetch ahead by themselves, but not across pages of 4 KB."""
FAR = 1 << 27
"""Bytes of a step from which on requests pay: at 360 MB they save a tenth of the time, at 36 MB they cost as much."""

TEXTS = INFIX | {
    "sqrt": "sqrt({0})",
    "abs": "abs({0})",
    "sign": "real(1.0) if {0} > zero else (real(-1.0) if {0} < zero else (zero if {0} == zero else {0}))",
    "maximum": "{0} if {0} > {1} or {0} != {0} else {1}",
    "minimum": "{0} if {0} < {1} or {0} != {0} else {1}",
    "where": "{1} if {0} else {2}",
}
"""The operations in numba's Python, as NumPy computes them."""


@cache
def numba_or_reason() -> str | None:
    """Why kernels cannot be compiled here; None where they can. That numba is there is not enough: it must be of use."""
    missing = [name for name in ("numba", "platformdirs") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} is not installed: pip install {' '.join(missing)}"
    if sys.implementation.name != "cpython" or sys.maxsize <= 2**32:  # whose structs are read
        return "kernels need CPython with addresses of 64 bits"
    for name in ("numba", "platformdirs"):
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a broken library must not break a step
            return f"{name} is installed, but import fails ({short(error)})"
    return "NUMBA_DISABLE_JIT is set" if sys.modules["numba"].config.DISABLE_JIT else None


# The kernels.


def source(program: Program, format_: Format) -> str:
    """A program as the text of a kernel.

    The kernel steps the numbers of all leaves, one behind another, a share at a time until all are taken: ``progress`` counts those
    that are taken and those that are done. In the end it looks ``looks`` times whether all are done. ``addresses[leaf]`` are the
    arrays' places, ``sources[leaf]`` those to copy them from first, where there are any, and ``coefficients[rows[leaf]]`` its
    coefficients. With ``ahead`` the numbers so many bytes further on are asked for before they are needed. Its own names begin with
    an underscore, which no field of a state does.
    """
    sizes = {name: np.dtype(format_.compute).itemsize for name in program.arrays}
    sizes["params"] = sizes["grad"] = np.dtype(format_.storage).itemsize
    own = ("params", "grad")  # in the parameters' dtype

    def place(table: str, name: str, first: str) -> str:
        return f"{table}[_leaf, {program.arrays.index(name)}] + {sizes[name]} * {first}"

    def array(name: str) -> str:
        return f"carray({'_storage_at' if name in own else '_real_at'}({place('addresses', name, '_first')}), (_m,))"

    lines = [
        f"# {program.rule!a} in {format_.name}. Made by xopt from the rule's update; see xopt/backends/compilers/numba_kernels.py.",
        "import numba",
        f"from numpy import sqrt, {format_.compute} as real",
        "from xopt.backends.compilers.numba_runtime import *",
        "",
        "zero = real(0.0)",
        f"_real_at = pointer_to(numba.types.{format_.compute})",
        f"_storage_at = pointer_to(numba.types.{format_.storage})",
        "",
        "",
        '@numba.njit(nogil=True, error_model="numpy", cache=True)',
        "def kernel(addresses, sources, starts, rows, coefficients, ahead, progress, looks):",
        "    _leaf, _total, _progress = 0, starts[-1], progress.ctypes.data",
        "    while True:",
        f"        _begin = fetch_add(_progress, {SHARE})",
        "        if _begin >= _total:",
        "            break",
        f"        _end = min(_begin + {SHARE}, _total)",
        "        _share = _end - _begin",
        "        while _begin < _end:",
        "            while starts[_leaf + 1] <= _begin:",
        "                _leaf += 1",
        f"            _start, _n = _begin - starts[_leaf], min(_end, starts[_leaf + 1], _begin + {BLOCK}) - _begin",
        "            _begin += _n",
        *(f"            {program.coefficients[i]} = coefficients[rows[_leaf], {i}]" for i in program.used),
        "            if sources.shape[0] > 0:",
    ]
    for name in program.writes:
        to, source = place("addresses", name, "_start"), place("sources", name, "_start")
        lines += [f"                copy({to}, {source}, {sizes[name]} * _n)"]
    last, widest = len(program.arrays) - 1, max(sizes.values())
    size = f"{sizes['grad']} if _array in (0, {last}) else {widest}" if sizes["grad"] < widest else str(widest)
    lines += [
        f"            _step = {CHUNK} if ahead else _n",
        "            for _first in range(_start, _start + _n, _step):",
        "                _m = min(_step, _start + _n - _first)",
        "                if ahead:",
        f"                    for _array in range({last + 1}):",
        f"                        _size = {size}",
        f"                        for _byte in range(_size * _first, _size * (_first + _m), {LINE}):",
        "                            prefetch(addresses[_leaf, _array] + _byte + ahead)",
        *(f"                _{name}_ = {array(name)}" for name in program.arrays),
        "                for _i in range(_m):",
    ]
    load, store = ({name: text if name in own else "{}" for name in sizes} for text in (format_.load, format_.store))
    body = [f"{name} = {load[name].format(f'_{name}_[_i]')}" for name in program.reads]
    body += program.lines(TEXTS, "real({!r})")
    body += [f"_{name}_[_i] = {store[name].format(value)}" for name, value in program.writes.items()]
    lines += [f"                    {line}" for line in body]
    lines += ["        fetch_add(_progress + 8, _share)", "    look(_progress + 8, _total, looks)"]
    return "\n".join([*lines, ""])


def inspector() -> str:
    """The text that makes a kernel of the look at arrays, so that it is kept where the others are."""
    from xopt.backends.compilers import numba_runtime  # which imports numba

    arguments = ", ".join(inspect.signature(numba_runtime.inspect.py_func).parameters)
    return "\n".join(
        (
            "# The look at a state's arrays. Made by xopt; see xopt/backends/compilers/numba_runtime.py.",
            "import numba",
            "from xopt.backends.compilers.numba_runtime import inspect",
            "",
            "",
            "@numba.njit(cache=True)",
            f"def kernel({arguments}):",
            f"    return inspect({arguments})",
            "",
        )
    )


def team(compute: str) -> str:
    """The text that makes a kernel of a team's work, for kernels of one arithmetic."""
    return "\n".join(
        (
            f"# A kernel in {compute} on the threads of OpenMP. Made by xopt; see xopt/backends/compilers/numba_runtime.py.",
            "import numba",
            "from xopt.backends.compilers.numba_runtime import in_team",
            "",
            "",
            "@numba.njit(nogil=True, cache=True)",
            "def kernel(parallel, members, work):",
            "    in_team(parallel, members, work)",
            "",
        )
    )


def _file_name(name: str) -> str:
    """Whatever a rule is called."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)[:80]


_compiled: dict[str, Callable[..., Any]] = {}


def compiled(text: str, name: str, arguments: Sequence[Any]) -> Callable[..., Any]:
    """The function ``kernel`` of a text, called once with ``arguments``, from numba's cache on disk where it is there.

    What goes wrong with the cache costs time and nothing else. Raises CompileError.
    """
    found = _compiled.get(text)
    if found is None:
        found = _compiled[text] = _made(text, name, arguments)
    return found


def called_from_c(text: str, name: str, arguments: Sequence[int]) -> Callable[..., int]:
    """The same, of a function of integers alone, called in a tenth of the time that numba takes to look at its arguments."""
    words = [ctypes.c_int64] * (1 + len(arguments))
    return ctypes.PYFUNCTYPE(*words)(_address(compiled(text, name, arguments)))  # which holds the GIL


def _address(function: Any) -> int:
    """Where C calls a function that numba has compiled once."""
    first = next(iter(function.overloads.values()))
    return int(first.library.get_pointer_to_function(first.fndesc.llvm_cfunc_wrapper_name))


def _made(text: str, name: str, arguments: Sequence[Any]) -> Any:
    began, folder = time.monotonic(), cache_folder()
    error: Exception | None = None
    if folder is not None:
        try:
            function = _kept(folder, text, name, arguments)
        except Exception as caught:  # noqa: BLE001 - of the disk, of pickle, or numba's own
            error = caught
    if folder is None or error is not None:
        try:
            function = _loaded(text.replace("cache=True", "cache=False"), f"<{name}>", name)
            function(*arguments)
        except Exception as caught:
            msg = f"numba cannot compile {name} ({short(caught)})"
            raise CompileError(msg) from caught
    if folder is not None and error is not None:
        _say_not_kept(folder, error)
        folder = None
    took = time.monotonic() - began
    if took > 1 and not (folder and function.stats.cache_hits):  # numba itself may be long in waking
        say(f"xopt: compiled {name} in {took:.1f} s; it is kept in {folder or 'this process only'}")
    return function


def _kept(folder: Path, text: str, name: str, arguments: Sequence[Any]) -> Any:
    runtime = Path(__file__).with_name("numba_runtime.py").read_bytes()
    stem = f"{name}_{hashlib.sha256(text.encode() + runtime).hexdigest()[:16]}"
    path = folder / f"{stem}.py"
    if not path.is_file() or path.read_bytes() != text.encode():
        folder.mkdir(parents=True, exist_ok=True)  # it may have gone
        scratch = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
        try:
            scratch.write_bytes(text.encode())
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
    function = _loaded(text, str(path), stem)
    try:
        function(*arguments)
    except Exception:  # noqa: BLE001 - numba trusts its own files; one that is broken raises anything
        function = _loaded(text, str(path), stem)
        function._cache.flush()
        function(*arguments)
    return function


def _loaded(text: str, path: str, stem: str) -> Any:
    """``kernel`` of a module of this text. numba keeps what it compiles beside ``path``; no bytecode is kept, which might break."""
    module = ModuleType(f"xopt_kernels.{stem}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # where numba looks for it
    exec(compile(text, path, "exec"), module.__dict__)
    return module.kernel


@cache
def cache_folder() -> Path | None:
    """Where kernels are kept: ``XOPT_CACHE_DIR``, or the user's cache. None, which is said, where nothing can be written there."""
    import platformdirs  # comes with the extra, as numba does

    folder, probe = os.environ.get("XOPT_CACHE_DIR", ""), f".{os.getpid()}"
    try:
        folder = os.path.expandvars(folder) or platformdirs.user_cache_dir("xopt", appauthor=False)
        path = Path(folder).expanduser().absolute()
        path.mkdir(parents=True, exist_ok=True)
        (path / probe).touch()
        (path / probe).unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody knows where home is
        _say_not_kept(folder or "the user's cache", error)
        return None
    return path


def _say_not_kept(folder: Path | str, error: Exception) -> None:
    say_once(
        f"kernels cannot be kept in {folder} ({short(error)}), so that each process compiles them anew; "
        "XOPT_CACHE_DIR names another folder"
    )


class Kernel:
    """A program, compiled for one format of parameters. ``members`` says how many threads of OpenMP share the work of this one."""

    def __init__(self, program: Program, format_: Format, members: Callable[[], int] | None = None) -> None:
        self.program = program
        self.format = format_
        self._bytes = program.bytes_per_number(np.dtype(format_.storage).itemsize, np.dtype(format_.compute).itemsize)
        words, numbers = np.zeros((0, 0), np.int64), np.zeros((0, 0), format_.compute)
        self._nothing = words, words, np.zeros(1, np.int64), words.ravel(), numbers, 0, np.zeros(2, np.int64), 0
        self._function = compiled(source(program, format_), _file_name(f"{program.rule}_{format_.name}"), self._nothing)
        self._pool = Pool(members, cache(self._team)) if members else None

    def __call__(self, addresses: Any, starts: Any, coefficients: Any, rows: Any, sources: Any = None) -> None:
        """Steps leaves, given the addresses of the arrays of each, in the order of ``program.arrays``.

        ``starts`` says which of all numbers is the first of each leaf, and how many there are; ``rows`` which row of
        ``coefficients`` each leaf has, numbers in the order of ``program.coefficients``. Where ``sources`` are given, the old
        numbers are read there.
        """
        total = int(starts[-1])
        ahead = AHEAD if total * self._bytes >= FAR else 0
        sources = addresses[:0] if sources is None else sources
        run(self._function, (addresses, sources, starts, rows, coefficients, ahead), total, self._pool)

    def _team(self) -> Callable[..., None] | None:
        """What runs the kernel on threads of OpenMP: none of them calls Python."""
        address = _address(self._function)
        compute, nothing = self.format.compute, (0, 0.0, 0.0, 0.0, self._nothing)
        try:
            enter: Any = compiled(team(compute), f"team_{compute}", (0, 0, nothing))
        except CompileError as error:
            say_once(f"large steps of torch tensors are not shared by torch's own threads, as {error}")
            return None
        enter.disable_compile()  # it takes what the kernel takes, and nothing else

        def run(parallel: int, members: int, roundings: tuple[float, float, float], arguments: tuple[Any, ...]) -> None:
            enter(parallel, members, (address, *roundings, arguments))

        return run

    def step(self, arrays: Sequence[Any], c: Sequence[Any]) -> None:
        """Steps one leaf, given its contiguous NumPy arrays and its coefficients."""
        addresses = np.asarray([[x.__array_interface__["data"][0] for x in arrays]], np.int64)
        coefficients = np.asarray([[float(x) for x in c]], self.format.compute)
        self(addresses, np.asarray([0, arrays[0].size]), coefficients, np.zeros(1, np.int64))
