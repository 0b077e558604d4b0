"""Fused steps on arrays in the CPU's own memory, NumPy's and torch's: numba compiles the recorded program to one loop."""

import contextlib
import ctypes
import hashlib
import importlib
import importlib.util
import os
import sys
import threading
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from xopt.backends.blocks import blocks_of, flat
from xopt.backends.fusing import Leaf, Work, mark_donated, one_library, refuse_donated, refuse_overlap, refuse_read_only
from xopt.backends.program import Program, asked, names_of, numbers_of, record
from xopt.rule import Rule


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

PARALLEL = 1 << 19
"""Numbers from which on a step is shared among threads: at half as many, waking them costs what they save."""

OPERATIONS = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "negative": "-{0}",
    "sqrt": "sqrt({0})",
    "abs": "abs({0})",
    "sign": "real(1.0) if {0} > zero else (real(-1.0) if {0} < zero else (zero if {0} == zero else {0}))",
    "maximum": "{0} if {0} > {1} or {0} != {0} else {1}",
    "minimum": "{0} if {0} < {1} or {0} != {0} else {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "where": "{1} if {0} else {2}",
}
"""In numba's Python, as NumPy computes them."""


def numba_or_reason() -> str | None:
    """Why kernels cannot be compiled here; None where they can."""
    missing = [name for name in ("numba", "platformdirs") if importlib.util.find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} is not installed: pip install 'array-xopt[numba]'"
    fits = sys.implementation.name == "cpython" and sys.maxsize > 2**32  # whose structs are read
    return None if fits else "kernels need CPython with addresses of 64 bits"


@cache
def say_once(what: str) -> None:
    warnings.warn(what, stacklevel=4)


# The kernels.


def source(program: Program, format_: Format) -> str:
    """A program as the text of a kernel.

    The kernel steps numbers ``begin`` to ``end`` of all leaves, one behind another. ``addresses[leaf]`` are the arrays' places,
    ``sources[leaf]`` those to copy them from first, where there are any, and ``coefficients[rows[leaf]]`` its coefficients. With
    ``ahead`` the numbers so many bytes further on are asked for before they are needed. Its own names begin with an underscore,
    which no field of a state does.
    """
    sizes = {name: np.dtype(format_.compute).itemsize for name in program.arrays}
    sizes["params"] = sizes["grad"] = np.dtype(format_.storage).itemsize
    own = ("params", "grad")  # in the parameters' dtype

    def place(table: str, name: str, first: str) -> str:
        return f"{table}[_leaf, {program.arrays.index(name)}] + {sizes[name]} * {first}"

    def array(name: str) -> str:
        return f"carray({'_storage_at' if name in own else '_real_at'}({place('addresses', name, '_first')}), (_m,))"

    lines = [
        f'"""{program.rule} in {format_.name}. Made by xopt from the rule\'s update; see xopt/backends/host.py."""',
        "import numba",
        f"from numpy import sqrt, {format_.compute} as real",
        "from xopt.backends.numba_runtime import *",
        "",
        "zero = real(0.0)",
        f"_real_at = pointer_to(numba.types.{format_.compute})",
        f"_storage_at = pointer_to(numba.types.{format_.storage})",
        "",
        "",
        '@numba.njit(nogil=True, error_model="numpy", cache=True)',
        "def kernel(addresses, sources, starts, rows, coefficients, ahead, begin, end):",
        "    _leaf = 0",
        "    while begin < end:",
        "        while starts[_leaf + 1] <= begin:",
        "            _leaf += 1",
        f"        _start, _n = begin - starts[_leaf], min(end, starts[_leaf + 1], begin + {BLOCK}) - begin",
        "        begin += _n",
        *(f"        {x} = coefficients[rows[_leaf], {i}]" for i, x in enumerate(program.coefficients) if _used(program, x)),
        "        if sources.shape[0] > 0:",
    ]
    for name in program.writes:
        to, source = place("addresses", name, "_start"), place("sources", name, "_start")
        lines += [f"            copy({to}, {source}, {sizes[name]} * _n)"]
    last, widest = len(program.arrays) - 1, max(sizes.values())
    size = f"{sizes['grad']} if _array in (0, {last}) else {widest}" if sizes["grad"] < widest else str(widest)
    lines += [
        f"        _step = {CHUNK} if ahead else _n",
        "        for _first in range(_start, _start + _n, _step):",
        "            _m = min(_step, _start + _n - _first)",
        "            if ahead:",
        f"                for _array in range({last + 1}):",
        f"                    _size = {size}",
        f"                    for _byte in range(_size * _first, _size * (_first + _m), {LINE}):",
        "                        prefetch(addresses[_leaf, _array] + _byte + ahead)",
        *(f"            _{name}_ = {array(name)}" for name in program.arrays),
    ]
    lines += ["            for _i in range(_m):"]
    load, store = ({name: text if name in own else "{}" for name in sizes} for text in (format_.load, format_.store))
    lines += [f"                {name} = {load[name].format(f'_{name}_[_i]')}" for name in program.reads]
    lines += [f"                {line}" for line in program.lines(OPERATIONS, "real({!r})")]
    lines += [f"                _{name}_[_i] = {store[name].format(value)}" for name, value in program.writes.items()]
    return "\n".join([*lines, ""])


def _used(program: Program, name: str) -> bool:
    return any(name in operation.operands for operation in program.operations)


@cache
def compiled(text: str, name: str, compute: str) -> Callable[..., None]:
    """The kernel of a text, from numba's cache on disk where it is there."""
    runtime = Path(__file__).with_name("numba_runtime.py").read_bytes()
    stem = f"{name}_{hashlib.sha256(text.encode() + runtime).hexdigest()[:16]}"
    folder = cache_folder()
    with _says_when_slow(name):
        if folder is None:
            module = ModuleType(stem)
            exec(compile(text.replace(", cache=True", ""), f"<{stem}>", "exec"), module.__dict__)
        else:
            path = folder / f"{stem}.py"
            if not path.is_file() or path.read_text() != text:
                scratch = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
                scratch.write_text(text)
                scratch.replace(path)
            spec: Any = importlib.util.spec_from_file_location(f"xopt_kernels.{stem}", path)
            module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        kernel: Callable[..., None] = module.kernel
        words, numbers = np.zeros((0, 0), np.int64), np.zeros((0, 0), compute)
        kernel(words, words, words.ravel(), words.ravel(), numbers, 0, 0, 0)
    return kernel


@cache
def cache_folder() -> Path | None:
    """Where kernels are kept: ``XOPT_CACHE_DIR``, or the user's cache. None where nothing can be written there."""
    import platformdirs  # comes with the extra, as numba does

    folder = Path(os.environ.get("XOPT_CACHE_DIR") or platformdirs.user_cache_dir("xopt", appauthor=False))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".{os.getpid()}").touch()
        (folder / f".{os.getpid()}").unlink()
    except OSError:
        return None
    return folder


@contextlib.contextmanager
def _says_when_slow(name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    if took > 1:
        sys.stderr.write(f"xopt: compiled {name} in {took:.1f} s; it is kept in {cache_folder() or 'this process only'}\n")


# Running them.


class _Thread:
    """A thread that waits for kernels to run."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Any] = SimpleQueue()
        self._results: SimpleQueue[BaseException | None] = SimpleQueue()
        threading.Thread(target=self._work, name="xopt", daemon=True).start()

    def start(self, function: Callable[..., None], *arguments: Any) -> None:
        self._calls.put((function, arguments))

    def wait(self) -> None:
        """Until the kernel is done, also where the user interrupts: the arrays must outlive it."""
        caught: BaseException | None = None
        while True:
            try:
                error = self._results.get()
            except KeyboardInterrupt as interrupt:
                caught = interrupt
            else:
                break
        if error or caught:
            raise error or caught  # type: ignore[misc]

    def _work(self) -> None:
        while True:
            function, arguments = self._calls.get()
            try:
                function(*arguments)
                self._results.put(None)
            except BaseException as error:  # noqa: BLE001 - raised where the step waits
                self._results.put(error)


_threads: dict[int, list[_Thread]] = {}  # by process: threads do not survive a fork
_one_at_a_time = threading.Lock()


def run(kernel: Callable[..., None], arguments: tuple[Any, ...], total: int) -> None:
    """Runs a kernel over all numbers, shared among threads where there are many."""
    parts = threads() if total >= PARALLEL else 1
    if parts == 1 or not _one_at_a_time.acquire(blocking=False):  # another step has the threads
        kernel(*arguments, 0, total)
        return
    try:
        helpers = _threads.setdefault(os.getpid(), [])
        helpers += [_Thread() for _ in range(parts - 1 - len(helpers))]
        bounds = [total * i // parts // 64 * 64 for i in range(parts)] + [total]  # whole cache lines
        for helper, begin, end in zip(helpers, bounds[1:], bounds[2:], strict=False):
            helper.start(kernel, *arguments, begin, end)
        try:
            kernel(*arguments, bounds[0], bounds[1])
        finally:
            for helper, _ in zip(helpers, bounds[2:], strict=False):
                helper.wait()
    finally:
        _one_at_a_time.release()


@cache
def threads() -> int:
    """As many as numba would use: ``NUMBA_NUM_THREADS``, or the cores that this process may use."""
    return int(importlib.import_module("numba").config.NUMBA_NUM_THREADS)


class Kernel:
    """A program, compiled for one format of parameters."""

    def __init__(self, program: Program, format_: Format) -> None:
        self.program = program
        self.format = format_
        self._bytes = program.bytes_per_number(np.dtype(format_.storage).itemsize, np.dtype(format_.compute).itemsize)
        self._function = compiled(source(program, format_), f"{program.rule}_{format_.name}", format_.compute)

    def __call__(self, addresses: Any, starts: Any, coefficients: Any, rows: Any, sources: Any = None) -> None:
        """Steps leaves, given the addresses of the arrays of each, in the order of ``program.arrays``.

        ``starts`` says which of all numbers is the first of each leaf, and how many there are; ``rows`` which row of
        ``coefficients`` each leaf has, numbers in the order of ``program.coefficients``. Where ``sources`` are given, the old
        numbers are read there.
        """
        total = int(starts[-1])
        ahead = AHEAD if total * self._bytes >= FAR else 0
        run(self._function, (addresses, addresses[:0] if sources is None else sources, starts, rows, coefficients, ahead), total)

    def step(self, arrays: Sequence[Any], c: Sequence[Any]) -> None:
        """Steps one leaf, given its contiguous NumPy arrays and its coefficients."""
        addresses = np.asarray([[x.__array_interface__["data"][0] for x in arrays]], np.int64)
        coefficients = np.asarray([[float(x) for x in c]], self.format.compute)
        self(addresses, np.asarray([0, arrays[0].size]), coefficients, np.zeros(1, np.int64))


def starts_of(sizes: Any) -> Any:
    """Where each leaf begins among all numbers, and their count."""
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    return starts


class Memory(ABC):
    """What the kernels must know of an array library whose arrays are in the CPU's memory."""

    formats: tuple[Format, ...]
    reader: int = 0  # address of DLPack's function that looks at an array; 0 for NumPy's own struct

    @abstractmethod
    def types(self) -> list[type]:
        """The types of arrays of which ``reader`` can be asked."""

    @abstractmethod
    def tags(self) -> list[tuple[int, int, int, int]]:
        """For each format: how the library names the dtype of params and of slots, and the units in which it counts strides."""

    @abstractmethod
    def empty_like(self, x: Any) -> Any:
        """A new array of the same shape, dtype and, if it has no gaps, layout."""

    @abstractmethod
    def copied(self, x: Any) -> Any:
        """A new array with the same numbers."""

    @abstractmethod
    def alias(self, x: Any) -> Any:
        """Another array with the same memory."""

    @abstractmethod
    def numpy(self, x: Any) -> Any:
        """The same memory as a NumPy array; of bfloat16 as integers."""

    def device(self, x: Any) -> Any:  # noqa: ARG002
        """Where an array is."""
        return "cpu"

    def check(self, work: Work) -> None:  # noqa: B027 - most forbid nothing
        """Raises for what the library forbids to step."""

    def wrote(self, params: Sequence[Any]) -> None:  # noqa: B027
        """Told what has been written to."""


class Table(NamedTuple):
    """Where the arrays of a tree are, leaf by leaf."""

    addresses: Any  # [leaf, column]; 0 where there is None
    sizes: Any  # numbers of each leaf
    formats: Any  # index into the formats, or -1 for a leaf that is not dense, of one layout, or of a known type
    absent: Any  # a bit for each column that is None


class Layout:
    """What follows of a table's sizes, formats and absent columns alone: often the same step after step."""

    def __init__(self, table: Table) -> None:
        self.odd: list[int] = np.flatnonzero(table.formats < 0).tolist()
        self.regular = np.flatnonzero(table.formats >= 0)
        self.lacking: list[int] = np.flatnonzero(table.absent).tolist()
        self.form = (table.formats * (1 << table.addresses.shape[1]) + table.absent).tolist()
        self.alike = len({self.form[i] for i in self.regular}) <= 1
        self.starts = starts_of(table.sizes)
        self.rows = np.zeros(table.sizes.size, np.int64)


class Cell(NamedTuple):
    """Leaves that share their coefficients and one kernel."""

    leaves: Any  # their indices
    c: Any


class HostFuser:
    """Steps a rule on arrays in the CPU's memory."""

    def __init__(self, rule: Rule[Any, Any], memory: Memory) -> None:
        self.rule = rule
        self.memory = memory
        from xopt.backends.numba_runtime import inspect  # which imports numba

        self._inspect = inspect
        self._known = np.asarray([id(None), *map(id, memory.types())], np.int64)
        self._tags = np.asarray(memory.tags(), np.int64)
        self._clear = ctypes.cast(ctypes.pythonapi.PyErr_Clear, ctypes.c_void_p).value or 0
        self._kernels: dict[Any, Kernel] = {}
        self._asked: dict[Any, list[tuple[int, str]]] = {}  # by the form of the slots: coefficients whose being 1 matters
        self._layouts: dict[bytes, Layout] = {}
        self._apart = b""  # addresses and sizes of the last donated step, whose arrays do not overlap

    def __call__(self, work: Work) -> list[Sequence[Any]]:
        refuse_donated(work)
        self.memory.check(work)
        work.leaf(0)  # the form of its state is expected of all
        table = self._look(work.params, work.slots, work.grads, work.donate)
        layout = self._layout(table)
        odd = {i: work.leaf(i) for i in layout.odd}
        if odd:
            one_library(work, self.memory.device)
        for i in layout.lacking:
            work.leaf(i)  # refuses a None that the hyperparameters do not mean
        cells = self._cells(work, layout)
        calls = self._calls(work, table, cells)
        arrays = {i: self._arrays(work, i, leaf) for i, leaf in odd.items()}
        new: list[Sequence[Any]] = [work.params, *work.slots]
        target = table
        if work.donate:
            self._refuse_overlap(work, table, arrays)
        else:
            new = [self._fresh(name, column, odd) for name, column in zip(("params", *self.rule.slots), new, strict=True)]
            target = self._look(new[0], new[1:], work.grads, donate=True)
        for kernel, chosen in calls.items():
            self._run(kernel, chosen, table, target, layout, copy=not work.donate)
        if odd:
            columns = [list(column) for column in new]
            for i, leaf in odd.items():
                for column, x in zip(columns, self._step_odd(leaf, *arrays[i], donate=work.donate), strict=True):
                    column[i] = x
            new = list(columns)
        for at, name in enumerate(self.rule.slots, start=1):
            if name in self.rule.carried:
                new[at] = self._carried(work, name, cells, odd)
        if work.donate:
            mark_donated(work.params[0])
            new[0] = [self.memory.alias(new[0][0]), *new[0][1:]]
            self.memory.wrote(work.params)
        return new

    def _look(self, params: Sequence[Any], slots: Sequence[Sequence[Any]], grads: Sequence[Any], donate: bool) -> Table:
        columns = [params]
        for name, slot in zip(self.rule.slots, slots, strict=True):
            if isinstance(slot[0], tuple):
                columns += _unzipped(slot)
            elif name not in self.rule.carried:
                columns.append(slot)
        columns.append(grads)
        columns = [column if type(column) is list else list(column) for column in columns]  # as the C structs are read
        n, lists = len(params), np.asarray([id(column) for column in columns], np.int64)
        addresses, sizes, formats, absent = np.empty((n, len(columns)), np.int64), *np.zeros((3, n), np.int64)
        header, reader = object.__basicsize__, self.memory.reader
        self._inspect(lists, self._known, header, reader, self._clear, self._tags, donate, addresses, sizes, formats, absent)
        return Table(addresses, sizes, formats, absent)

    def _layout(self, table: Table) -> Layout:
        key = b"".join(x.tobytes() for x in table[1:])
        found = self._layouts.get(key)
        if found is None:
            self._layouts.clear()
            found = self._layouts[key] = Layout(table)
        return found

    def _cells(self, work: Work, layout: Layout) -> list[Cell]:
        """The leaves for the kernels, by what they share. Evaluates, and so checks, their hyperparameters."""
        slots = zip(self.rule.slots, work.slots, strict=True)
        carried = [[x if type(x) is float else id(x) for x in slot] for name, slot in slots if name in self.rule.carried]
        if layout.alike and work.shared and all(len(set(column)) == 1 for column in carried):
            found = [layout.regular] if layout.regular.size else []
        else:
            by_key: dict[Any, list[int]] = {}
            for i in layout.regular.tolist():
                by_key.setdefault((layout.form[i], id(work.hyper[i]), *(column[i] for column in carried)), []).append(i)
            found = [np.asarray(indices) for indices in by_key.values()]
        firsts = [int(indices[0]) for indices in found]
        return [Cell(indices, work.coefficients(i, work.kind(i))[0]) for i, indices in zip(firsts, found, strict=True)]

    def _calls(self, work: Work, table: Table, cells: list[Cell]) -> dict[Kernel, list[Cell]]:
        """The cells by the kernel that steps them. Compiles those that are new."""
        calls: dict[Kernel, list[Cell]] = {}
        for cell in cells:
            i = int(cell.leaves[0])
            slots = [1.0 if name in self.rule.carried else x[i] for name, x in zip(self.rule.slots, work.slots, strict=True)]
            kernel = self._kernel(self.memory.formats[table.formats[i]], slots, cell.c)
            calls.setdefault(kernel, []).append(cell)
        return calls

    def _kernel(self, format_: Format, slots: list[Any], c: Any) -> Kernel:
        form = tuple([tuple([x is None for x in slot]) if isinstance(slot, tuple) else slot is None for slot in slots])
        if form not in self._asked:
            names = asked(self.rule, slots, c)
            self._asked[form] = [(i, name) for i, name in enumerate(names_of(c)) if name in names]
        may_be_one = self._asked[form]
        numbers = numbers_of(c) if may_be_one else ()
        key = format_.name, form, tuple([name for i, name in may_be_one if numbers[i] == 1])
        found = self._kernels.get(key)
        if found is None:
            found = self._kernels[key] = Kernel(record(self.rule, slots, c, key[2]), format_)
        return found

    def _run(self, kernel: Kernel, cells: list[Cell], table: Table, target: Table, layout: Layout, copy: bool) -> None:
        coefficients = np.asarray([[float(x) for x in numbers_of(cell.c)] for cell in cells], kernel.format.compute)
        addresses, sources, starts, rows = target.addresses, table.addresses, layout.starts, layout.rows
        if len(cells) > 1 or cells[0].leaves.size < rows.size or layout.lacking:
            leaves = np.concatenate([cell.leaves for cell in cells])
            present = np.asarray([j for j in range(addresses.shape[1]) if not table.absent[leaves[0]] >> j & 1])
            addresses, sources = (x[np.ix_(leaves, present)] for x in (addresses, sources))
            starts = starts_of(table.sizes[leaves])
            rows = np.repeat(np.arange(len(cells)), [cell.leaves.size for cell in cells])
        kernel(addresses, starts, coefficients, rows, sources if copy else None)

    def _fresh(self, name: str, column: Sequence[Any], odd: dict[int, Leaf]) -> list[Any]:
        """A column of the new state, still to be filled: like the old one, but that odd leaves stay what they are."""
        if name in self.rule.carried:
            return list(column)
        empty = self.memory.empty_like

        def like(x: Any) -> Any:
            return tuple(map(like, x)) if isinstance(x, tuple) else None if x is None else empty(x)

        return [x if i in odd else like(x) for i, x in enumerate(column)]

    def _carried(self, work: Work, name: str, cells: list[Cell], odd: dict[int, Leaf]) -> list[Any]:
        """The next values of a slot that holds numbers, which are among the coefficients."""
        new: list[Any] = [None] * len(work.params)
        for cell in cells:
            for i in cell.leaves.tolist():
                new[i] = getattr(cell.c, name)
        for i, leaf in odd.items():
            new[i] = getattr(leaf.c, name)
        return new

    # Leaves that the kernels cannot walk through: strided, of a subclass, of another byte order.

    def _arrays(self, work: Work, i: int, leaf: Leaf) -> tuple[list[Any], Any, Format]:
        """The arrays of an odd leaf as NumPy arrays, those that are written first. Raises for what numba does not know."""
        name = str(leaf.params.dtype).rpartition(".")[2]
        name = leaf.params.dtype.name if hasattr(leaf.params.dtype, "name") else name
        format_ = next((one for one in self.memory.formats if one.name == name), None)
        if format_ is None:
            known = ", ".join(one.name for one in self.memory.formats)
            msg = f"{work.where(i)} is {name}, which numba has no arithmetic for; it has {known}. {self.rule.name}_step takes it"
            raise TypeError(msg)
        arrays = [self.memory.numpy(x) for x in flat([leaf.params, *leaf.slots])]
        if work.donate:
            refuse_read_only(work, i, arrays)
        return arrays, self.memory.numpy(leaf.grad), format_

    def _step_odd(self, leaf: Leaf, written: list[Any], grad: Any, format_: Format, donate: bool) -> list[Any]:
        kernel = self._kernel(format_, leaf.slots, leaf.c)
        old = [leaf.params, *leaf.slots]
        new = old if donate else [self._copied(x) for x in old]
        if not donate:
            written = [self.memory.numpy(x) for x in flat(new)]
        dtypes = [format_.storage, *[format_.compute] * (len(written) - 1), format_.storage]
        for block in blocks_of([*written, grad], dtypes):
            kernel.step(block, numbers_of(leaf.c))
        return new

    def _copied(self, x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(self._copied, x))
        return x if x is None or isinstance(x, float) else self.memory.copied(x)

    def _refuse_overlap(self, work: Work, table: Table, odd: dict[int, tuple[list[Any], Any, Format]]) -> None:
        key = table.addresses.tobytes() + table.sizes.tobytes()
        if key == self._apart and not odd:
            return
        formats = [self.memory.formats[f] for f in table.formats]
        wide = np.asarray([np.dtype(f.compute).itemsize for f in formats], np.int64)[:, None] * np.ones_like(table.addresses)
        wide[:, 0] = wide[:, -1] = [np.dtype(f.storage).itemsize for f in formats]
        starts = table.addresses.copy()
        stops = starts + wide * np.where(starts > 0, table.sizes[:, None], 0)
        alike = np.ones(len(starts), bool)
        for i, (arrays, grad, _) in odd.items():
            alike[i] = all(x.strides == grad.strides for x in arrays)
            starts[i] = stops[i] = 0
            for j, x in zip([*range(len(arrays)), -1], [*arrays, grad], strict=True):
                starts[i, j], stops[i, j] = np.lib.array_utils.byte_bounds(x)
        refuse_overlap(work, starts, stops, alike)
        self._apart = key


def _unzipped(column: Sequence[Any]) -> list[Sequence[Any]]:
    """A column of tuples as one column for each of their places; what is no such tuple goes with no array, and is refused."""
    length = len(column[0])
    alike = [x if isinstance(x, tuple) and len(x) == length else (column,) * length for x in column]
    return list(zip(*alike, strict=True))
