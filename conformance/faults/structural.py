# ruff: noqa: E501 - an edit's text is one string
"""Faults in what stands around the formulas: how trees are paired, memory is read and given away, and input is checked.

Each is an edit of ``xopt`` or ``xopt.backends``, planted in a private copy of both, and must be found by the drawn structures:
no check that knows its case is asked.
"""

import contextlib
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

from xopt.conformance.arithmetic.formats import ARITHMETICS, FLOAT_FORMATS, FloatFormat
from xopt.conformance.faults.fault import Edit
from xopt.conformance.faults.planting import Edited
from xopt.conformance.results import BROKEN
from xopt.conformance.structures.check import check_structures
from xopt.conformance.structures.law import Product
from xopt.conformance.target import Effort, Target
from xopt.conformance.workers import processes
from xopt.rules import RULES

EXAMPLES = 20
"""Situations of a rule in one dtype, as a run for continuous integration draws them."""


class Structural(NamedTuple):
    """A wrong text of the package that no formula shows."""

    name: str
    edits: tuple[Edit, ...]
    sentence: str  # what it does instead
    libraries: tuple[str, ...] = ("numpy",)  # where it shows, soonest first
    rules: tuple[str, ...] = ()  # those asked first
    dtypes: tuple[str, ...] = ()  # those asked first
    crashes: bool = False  # whether it may end the process, so that another one must play
    devices: int = 1  # of JAX, over which it shows: another process has as many

    @property
    def needs(self) -> tuple[str, ...]:
        """The packages without which it does not show."""
        kernels = any(edit.file in (_HOST, _TABLES, _KERNELS, _RUNTIME) for edit in self.edits)
        return (*self.libraries, *(["numba"] if kernels else []))


class Found(NamedTuple):
    """Where a fault was seen first."""

    rule: str
    library: str
    dtype: str
    mode: str
    examples: int  # of that rule, library and dtype, until then
    reason: str


@contextlib.contextmanager
def planted(fault: Structural) -> Iterator[Product]:
    """A private copy of xopt and its backends with the fault in it. While it is there, what xopt imports late is the copy's too."""
    texts = edited(fault)
    ours = _modules()
    finder = Edited(texts, {name: str(getattr(find_spec(name), "origin", "")) for name in texts})
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if any(name.endswith(("numba_kernels", "numba_runtime", "program")) for name in texts):  # whose kernels are no one else's
            stack.enter_context(_variable("XOPT_CACHE_DIR", folder))
        for name in ours:
            if name != KEPT or KEPT in texts:
                del sys.modules[name]
        sys.meta_path.insert(0, finder)
        try:
            yield Product(import_module("xopt"), import_module("xopt.backends"))
        finally:
            sys.meta_path.remove(finder)
            for name in _modules():
                del sys.modules[name]
            sys.modules.update(ours)


KEPT = "xopt.backends.compilers.numba_runtime"
"""What takes long to import and imports nothing of xopt."""


def edited(fault: Structural) -> dict[str, str]:
    """The new texts of the modules that a fault edits, by name. Raises ValueError for an edit that does not apply."""
    texts: dict[str, str] = {}
    for file, old, new in fault.edits:
        name = "xopt." + file.removesuffix(".py").replace("/", ".")
        package = "xopt.backends" if file.startswith("backends/") else "xopt"
        text = texts.get(name) or files(package).joinpath(file.removeprefix("backends/")).read_text(encoding="utf-8")
        if text.count(old) != 1:
            msg = f"{fault.name}: {old!r} must stand in {file} exactly once, not {text.count(old)} times"
            raise ValueError(msg)
        texts[name] = text.replace(old, new)
    return texts


def find(fault: Structural, examples: int = EXAMPLES, seed: int = 0) -> Found | None:
    """Plays situations as a run of all rules does, beginning with those that show it soonest, until one shows the fault."""
    if fault.crashes or fault.devices > 1:
        return _in_another(fault, examples, seed)
    return _find(fault, examples, seed)


def _find(fault: Structural, examples: int, seed: int) -> Found | None:
    with planted(fault) as product:
        for rule in dict.fromkeys((*fault.rules, "sgd", "lion", "nadam", "aggmo", *RULES)):
            for library in fault.libraries:
                for dtype in dict.fromkeys((*fault.dtypes, "float32", "float16", "float64")):
                    found = played(product, rule, library, dtype, examples, seed)
                    if found is not None:
                        return found
    return None


def played(product: Product, rule: str, library: str, dtype: str, examples: int, seed: int) -> Found | None:
    modes = ("eager", "fused")
    targets = [Target(library, "cpu", mode, {name: _format(library, name) for name in ARITHMETICS}) for mode in modes]
    results = check_structures(rule, dtype, targets, Effort(examples, seed, shrink=False), product)
    for result in results:
        if result.verdict == BROKEN and result.broken:
            return Found(rule, library, dtype, result.broken["mode"], result.found_after or examples, result.broken["reason"])
    return None


def _format(library: str, name: str) -> FloatFormat:
    """As the probes find it: torch does not round each root correctly, and JAX flushes subnormal numbers."""
    return replace(FLOAT_FORMATS[name], ulps={"sqrt": 1.0} if library == "torch" else {}, flushes=library == "jax")


def _in_another(fault: Structural, examples: int, seed: int) -> Found | None:
    """In another process: where that ends without an answer, the fault was found."""
    context = multiprocessing.get_context("spawn")
    answer, give = context.Pipe(duplex=False)
    process = context.Process(target=_give, args=(give, fault, examples, seed))
    with _variable("XLA_FLAGS", f"--xla_force_host_platform_device_count={fault.devices}"):
        process.start()
    give.close()
    try:
        found: Found | None = answer.recv()
    except EOFError:
        found = Found("", "", "", "", 0, "the process ended")
    process.join()
    return found


def _give(give: Any, fault: Structural, examples: int, seed: int) -> None:
    give.send(_find(fault, examples, seed))


def run(faults: Sequence[Structural] = (), jobs: int = 2, seed: int = 0) -> dict[str, Found | None]:
    """Plants each fault, default all, in so many new processes. Where each was found first, by name."""
    with processes(jobs) as submit:
        tasks = {fault.name: submit(find, fault, EXAMPLES, seed) for fault in faults or STRUCTURAL}
        return {name: task.result() for name, task in tasks.items()}


def _modules() -> dict[str, ModuleType]:
    def own(name: str) -> bool:
        return name == "xopt" or (name.startswith("xopt.") and not name.startswith("xopt.conformance"))

    return {name: module for name, module in sys.modules.items() if own(name)}


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _fault(name: str, sentence: str, *edits: tuple[str, str, str], **more: Any) -> Structural:
    return Structural(name, tuple(Edit(*edit) for edit in edits), sentence, **more)


_NUMPY, _TORCH = "backends/_numpy.py", "backends/_torch.py"
_DONATION, _FUSER, _STEP, _TREES, _WORK, _COMPILED = (
    f"backends/fused/{name}.py" for name in ("donation", "fuser", "step", "trees", "work", "compiled")
)
_BLOCKS, _HOST, _TABLES, _JAX, _KERNELS, _RUNTIME = (
    f"backends/compilers/{name}.py" for name in ("blocks", "host", "tables", "jax_jit", "numba_kernels", "numba_runtime")
)

TREES = (
    _fault(
        "groups: paired by position",
        "The numbers of a prefix tree are taken in its own order.",
        ("trees.py", "return spec.flatten_up_to(value)", "return optree.tree_leaves(value, none_is_leaf=True)"),
    ),
    _fault(
        "groups: paired by position where they end early",
        "A prefix tree that ends above a leaf is taken in its own order.",
        (
            "trees.py",
            "zip(_level(spec).flatten_up_to(value), spec.children(), strict=True)",
            "zip(list(value.values()) if isinstance(value, dict) else _level(spec).flatten_up_to(value), spec.children(), strict=True)",
        ),
    ),
    _fault(
        "groups: all leaves get the first one's",
        "Leaves with equal numbers of the first hyperparameter that is a tree share all.",
        ("rule.py", "given = ts, *columns.values()", "given = ts, *list(columns.values())[:1]"),
        rules=("nadam",),
        dtypes=("float16",),
    ),
    _fault(
        "groups: arrays are all one",
        "Leaves with other numbers of a group get the first one's where those are no floats.",
        (
            "rule.py",
            "x if type(x) in (float, int) else id(x) for x in column]",
            "x if type(x) in (float, int) else 0 for x in column]",
        ),
        rules=("adamw",),
    ),
    _fault(
        "groups: a surplus key is dropped",
        "A prefix tree may have keys that params do not have.",
        (
            "trees.py",
            "    with suppress(ValueError):  # the whole tree",
            (
                "    if isinstance(value, dict):\n        value = {key: x for key, x in value.items() if key in spec.entries()}\n"
                "    with suppress(ValueError):  # the whole tree"
            ),
        ),
    ),
    _fault(
        "groups: None is an empty tree",
        "A warm-up that is off for some leaves is no number.",
        ("trees.py", "return x is None or type(x) is float or is_leaf(x)", "return is_leaf(x)"),
        rules=("ademamix",),
    ),
    _fault(
        "init: groups of the first leaf",
        "The first leaf's decays decide which slots there are.",
        ("rule.py", "rule.defaults | own[i])", "rule.defaults | own[0])"),
        rules=("nadam",),
    ),
    _fault(
        "init: slots in plain dicts",
        "Slots are in a dict whatever params are in.",
        (
            "rule.py",
            "[params, *map(spec.unflatten, zip(*slots, strict=True)), 0]",
            "[params, *(dict(x) if isinstance(x, dict) else x for x in map(spec.unflatten, zip(*slots, strict=True))), 0]",
        ),
        rules=("lion",),
    ),
    _fault(
        "gradient: paired by position",
        "The leaves of the gradient and of the slots are taken in their own order.",
        (
            "trees.py",
            "return spec.flatten_up_to(tree)",
            (
                "found = list(tree.values()) if isinstance(tree, dict) else []\n"
                "        return found if len(found) == spec.num_leaves else spec.flatten_up_to(tree)"
            ),
        ),
    ),
    _fault(
        "gradient: a surplus key is dropped",
        "A gradient may have keys that params do not have.",
        (
            "trees.py",
            "    except ValueError:\n        trees =",
            (
                "    except ValueError:\n        if isinstance(tree, dict) and set(spec.entries()) < set(tree):\n"
                "            return flatten_like(function, spec, name, {key: tree[key] for key in spec.entries()})\n        trees ="
            ),
        ),
    ),
    _fault(
        "fused: the order of the step before",
        "A dict with the same keys comes back in the order of the tree before.",
        (_TREES, "if list(tree) != self.keys:", "if set(tree) != set(self.keys):"),
    ),
    _fault(
        "fused: the container of the step before",
        "A mapping with the same keys comes back as what came before.",
        (_TREES, "if kind is not self.kind:", "if kind is not self.kind and not isinstance(tree, dict):"),
    ),
    _fault(
        "fused: a donated slot keeps its own container",
        "A slot that is written over comes back in the tree that it came in.",
        (_STEP, "if n is o and (alike or flat.fits(tree)) else", "if n is o else"),
        rules=("adamw",),
    ),
    _fault(
        "fused: a plan for any dtype",
        "Arrays are taken for those of the step before, whatever their dtypes are.",
        (_NUMPY, "return (x.dtype, x.shape, x.strides, x.flags.writeable) if", "return (x.shape, x.strides, x.flags.writeable) if"),
    ),
    _fault(
        "fused: a plan for any shape",
        "Arrays are taken for those of the step before, whatever their shapes are.",
        (_NUMPY, "return (x.dtype, x.shape, x.strides, x.flags.writeable) if", "return (x.dtype, x.flags.writeable) if"),
    ),
    _fault(
        "fused: coefficients by form alone",
        "Groups that share a kernel share the first one's numbers.",
        (_TABLES, "shared.append(list(map(id, work.hyper)))", "pass"),
    ),
    _fault(
        "fused: which coefficients are 1",
        "Leaves are stepped by what was compiled for coefficients that were 1 before, or not.",
        (_TABLES, "key = layout.forms.item(i), group.ones", "key = layout.forms.item(i)"),
        rules=("adamw",),
    ),
    _fault(
        "fused: which coefficients are 1, by XLA",
        "Leaves of JAX are stepped by what was compiled for coefficients that were 1 before, or not.",
        (_JAX, "key = which, tuple([type(x) is float and x == 1.0 for own in numbers for x in own])", "key = which"),
        libraries=("jax",),
        rules=("adamw",),
    ),
    _fault(
        "init: one array for several buffers",
        "The buffers of a leaf are one array.",
        (
            "typed.py",
            "return tuple(map(zeros, decay)) if",
            "return (lambda x: tuple([x if beta else None for beta in decay]))(zeros(max(decay))) if",
        ),
        rules=("aggmo",),
    ),
    _fault(
        "fused: a slot that is lost",
        "A slot that is None is taken for one that the hyperparameters do not want.",
        (_TABLES, "if first in layout.lacking:", "if first in ():"),
        crashes=True,
    ),
)

NUMBERS = (
    _fault(
        "plain: carried numbers of the first leaf",
        "Leaves whose products differ get the first one's.",
        (
            "typed.py",
            "key = (id(self), id(hyper), *(x if type(x) is float else id(x) for x in carried))",
            "key = (id(self), id(hyper))",
        ),
        rules=("nadam",),
    ),
    _fault(
        "fused: carried numbers of the first leaf",
        "Coefficients are kept without what is carried.",
        (
            _WORK,
            "key = (id(typed), id(self.hyper[i]), *(x if type(x) is float else id(x) for x in carried))",
            "key = (id(typed), id(self.hyper[i]))",
        ),
        rules=("nadam",),
    ),
    _fault(
        "fused: one product for all",
        "Leaves are grouped without what they carry.",
        (_TABLES, "            if len(set(column)) > 1:\n", "            if False:\n"),
        rules=("nadam",),
    ),
    _fault(
        "scalars: come back as scalars",
        "A 0-d result of NumPy is not made an array.",
        ("typed.py", "return self.xp.asarray(new)\n", "return new\n"),
        rules=("adam",),
    ),
    _fault(
        "scalars: taken for carried numbers",
        "What is carried is told by its type, and NumPy's float64 is a float.",
        (
            "slots.py",
            "            if slot.number is None:\n                pairs",
            "            if not isinstance(x, float):\n                pairs",
        ),
        dtypes=("float64",),
        crashes=True,
    ),
    _fault(
        "scalars: donated like arrays",
        "That a NumPy scalar has no memory is not asked.",
        (
            _NUMPY,
            "            if not x.flags.writeable:\n",
            "            if not x.flags.writeable and not isinstance(x, np.generic):\n",
        ),
    ),
)

MEMORY = (
    _fault(
        "subclasses: read as plain",
        "An array with a mask or a unit is stepped as its numbers.",
        (_NUMPY, "if is_subclass(x) else None", "if False else None"),
    ),
    _fault(
        "subclasses: only masks are looked for",
        "Another subclass is stepped as its numbers.",
        (_NUMPY, "if is_subclass(x) else None", "if isinstance(x, np.ma.MaskedArray) else None"),
        rules=("nadam",),
    ),
    _fault(
        "subclasses of torch: read as plain",
        "A tensor of a subclass is stepped as its numbers.",
        (_TORCH, "if type(x) not in self._types:", "if not isinstance(x, torch.Tensor):"),
        libraries=("torch",),
    ),
    _fault(
        "negated: read raw by the kernels",
        "A tensor with the negative bit counts as plain, and the sign of a gradient is lost.",
        (
            _TORCH,
            "self._keys = {self._key(plain), self._key(inferred)}",
            "self._keys = {self._key(plain), self._key(inferred), self._key(torch._neg_view(plain))}",
        ),
        libraries=("torch",),
    ),
    _fault(
        "negated: written over",
        "A negated view is donated.",
        (_TORCH, "if any(x.is_neg() for x in work.written(i)):", "if False:"),
        libraries=("torch",),
    ),
    _fault(
        "graph: not of hyperparameters",
        "A learning rate that requires a gradient is taken for its number.",
        (_TORCH, "chain(work.params, work.grads, *work.slots, work.loose())", "chain(work.params, work.grads, *work.slots)"),
        libraries=("torch",),
    ),
    _fault(
        "graph: not of hyperparameters, plain",
        "A learning rate that requires a gradient is its number in plain steps.",
        ("typed.py", "        if _is_differentiated(value, self.xp):\n            return value\n", ""),
        libraries=("torch",),
        rules=("sgd",),
    ),
    _fault(
        "graph: not of params",
        "Only gradients and slots are asked whether a graph is recorded.",
        (_TORCH, "chain(work.params, work.grads, *work.slots, work.loose())", "chain(work.grads, *work.slots, work.loose())"),
        libraries=("torch",),
    ),
)

GIVING = (
    _fault(
        "donated: unseen by graphs",
        "A tensor that is written over keeps its version, so that a graph that has saved it goes on with other numbers.",
        (_HOST, "if work.donate and self.memory.versioned:", "if False:"),
        libraries=("torch",),
        rules=("adamw",),
    ),
    _fault(
        "donated: broadcast and overlapping with itself",
        "That numbers of one array share memory is not asked.",
        (_DONATION, "if stride < reach + width and 0 not in shape:", "if stride < 0 and 0 not in shape:"),
    ),
    _fault(
        "donated: windows of one array",
        "Only strides of 0 are looked for.",
        (_DONATION, "if stride < reach + width and 0 not in shape:", "if not stride and 0 not in shape:"),
    ),
    _fault(
        "donated: two leaves of one memory",
        "That leaves overlap is not seen.",
        (_DONATION, "pairs = np.flatnonzero(begin[1:] < end[:-1])", "pairs = np.flatnonzero(begin[1:] < begin[:-1])"),
    ),
    _fault(
        "donated: a gradient of another leaf",
        "That a gradient overlaps with what is written is not seen.",
        (_DONATION, "over = (last >= 0) & (end[last] > starts[grads, -1])", "over = last < -1"),
        rules=("nadam",),
        dtypes=("float16",),
    ),
    _fault(
        "donated: a fresh gradient of another leaf",
        "That a gradient of the second step overlaps with what is written is not seen.",
        (_RUNTIME, "if stop > start and low > 0 and written[1, low - 1] > start:", "if stop < start:"),
        rules=("momentum",),
        dtypes=("float64",),
    ),
    _fault(
        "donated: read-only",
        "A read-only array is written to, or refused by NumPy.",
        (_NUMPY, "if not x.flags.writeable:", "if isinstance(x, np.generic):"),
    ),
    _fault(
        "donated: the kernels' guard is for odd leaves",
        "Dense leaves are not asked whether they overlap.",
        (_HOST, "if odd or not table.apart:", "if odd:"),
    ),
    _fault(
        "donated: blocks without a guard",
        "Blocks write over what overlaps.",
        (_FUSER, "        places.refuse_overlap(work, begin)\n", ""),
    ),
    _fault(
        "donated: torch.compile without a guard",
        "What torch.compile made writes over what overlaps.",
        (_FUSER, "        places.refuse_overlap(work, begin)\n", ""),
        libraries=("torch",),
    ),
    _fault(
        "donated: apart for good",
        "That arrays do not overlap is asked at the first step of a plan alone.",
        (_FUSER, "if self._apart is None or not np.array_equal(begin, self._apart):", "if self._apart is None:"),
        rules=("nadam",),
    ),
    _fault(
        "donated: XLA without a guard",
        "JAX refuses what is given away twice, in its own words.",
        (_JAX, "            _refuse_shared(work, columns, plan.alone)\n", "            pass\n"),
        libraries=("jax",),
        rules=("aggmo",),
    ),
    _fault(
        "donated: marked when it has ended",
        "A step that is interrupted leaves a state that the next one takes.",
        (
            _DONATION,
            "        elif kind is not None:\n",
            "        elif kind is not None:\n            del _given[self.key]\n        if False:\n",
        ),
    ),
    _fault(
        "donated: marked for itself alone",
        "A state that was donated is taken again.",
        (_DONATION, "    if mark is not None and mark() is work.token:\n        _refuse_marked(work, 0, mark)\n", ""),
    ),
    _fault(
        "donated: a copy",
        "A strided leaf is copied, and the old one stays as it was.",
        (_BLOCKS, "leaf.arrays if work.donate else", "leaf.arrays if work.donate and leaf.params.flags.c_contiguous else"),
    ),
)

ABSENT = (
    _fault(
        "no gradient: the count goes on",
        "A leaf that is left alone counts a step.",
        ("rule.py", "counts, [g is not None for g in grads])", "counts, [True] * len(grads))"),
    ),
    _fault(
        "no gradient: the count of all stands still",
        "Where one leaf is left alone, no leaf counts a step.",
        ("counts.py", "[count if did else old for count,", "[old for count,"),
    ),
    _fault(
        "no gradient: another leaf is left alone",
        "The new numbers of the leaves that are stepped are given to the first ones.",
        (_WORK, "            for i, x in zip(self.leaves, some, strict=True):\n", "            for i, x in enumerate(some):\n"),
    ),
    _fault(
        "no gradient, donated: its memory is another leaf's",
        "A leaf that is to stay as it is is written over, as another one has its memory.",
        (_FUSER, "if isinstance(work, PartialWork):", "if False:"),
        libraries=("torch", "numpy"),
        dtypes=("float16",),
    ),
    _fault(
        "no gradient, donated: taken again",
        "A state is known by the leaves that are stepped, so that other gradients take what was given away.",
        (
            _WORK,
            " for i in self.leaves] for column in columns]\n",
            " for i in self.leaves] for column in columns]\n        if self.leaves:\n            self._token_at, self.token = _token(self.rule, self.params, self.slots)\n",
        ),
    ),
    _fault(
        "counts: the first leaf's for all",
        "All leaves take the step of the first one.",
        ("counts.py", "        return [known[key] for key in keys]\n", "        return [known[keys[0]] for _ in keys]\n"),
    ),
    _fault(
        "counts: one for leaves of the same hyperparameters",
        "Counts that differ make no groups.",
        ("rule.py", "given = ts, *columns.values()", "given = [0] * len(ts), *columns.values()"),
        rules=("nadam",),
    ),
)

COUNTS = (
    _fault(
        "count: of several numbers",
        "A count of any shape is added to.",
        (
            "counts.py",
            '    what = f"{where} must be an int or',
            '    if is_array(count) and count.ndim:\n        return count + 1\n    what = f"{where} must be an int or',
        ),
    ),
    _fault(
        "count: truncated",
        "A float is cut off.",
        (
            "counts.py",
            '    what = f"{where} must be an int or',
            '    if isinstance(count, float) and count == count:\n        return int(count) + 1\n    what = f"{where} must be an int or',
        ),
    ),
    _fault(
        "count: True is 1",
        "A bool is an int.",
        (
            "counts.py",
            "if isinstance(count, Integral) and not is_no_number(count):",
            "if isinstance(count, Integral):",
        ),
    ),
    _fault("count: below 0", "A count of -1 is taken.", ("typed.py", "    if count < 0:\n", "    if count < -1:\n")),
    _fault(
        "carried: any number",
        "A product beyond 1 is taken.",
        ("typed.py", "        elif number is not None and number in interval:\n", "        elif number is not None:\n"),
        rules=("nadam",),
    ),
)

ARRAY_TYPES = (
    _fault(
        "dtypes: by identity",
        "Equal dtypes that are other objects, as pickle makes them, do not go together.",
        ("typed.py", "if x.dtype is not dtype and x.dtype != dtype:", "if x.dtype is not dtype:"),
    ),
    _fault(
        "byte order: slots in that of params",
        "The arithmetic is in the byte order of params.",
        ("typed.py", "        compute = xp.dtype(xp.dtype(compute).type)\n", "        pass\n"),
    ),
    _fault(
        "byte order: lost",
        "Params come back in the machine's.",
        ("typed.py", "bool(params.dtype != compute)", "bool(xp.finfo(params.dtype).bits < 32)"),
    ),
    _fault(
        "gradient: of any dtype where it is 0-d",
        "Of a leaf without axes the dtype is not asked.",
        ("typed.py", "if x.dtype is not dtype and x.dtype != dtype:", "if x.ndim and x.dtype != dtype:"),
    ),
    _fault(
        "gradient: of another shape and the same size",
        "Only the number of numbers is asked.",
        ("typed.py", "return bool(x.shape == params.shape)", "return bool(x.size == params.size)"),
    ),
    _fault(
        "state: of a rule with the same fields",
        "The fields are asked, not the type.",
        ("rule.py", "if type(state) is not self.state:", 'if getattr(state, "_fields", None) != self.state._fields:'),
    ),
    _fault(
        "sign: written through a mask",
        "NaN is put where it belongs in place, which some tensors refuse.",
        ("operations.py", "        bare = x.sign()\n", "        return xp.sign(x)\n"),
        libraries=("torch",),
        rules=("lion",),
    ),
    _fault(
        "sign: 0 for NaN",
        "A NaN vanishes in the sign of the kernels.",
        (_KERNELS, "(zero if {0} == zero else {0})", "zero"),
        rules=("lion",),
    ),
)

PLACES = (
    _fault(
        "sharding: another one is refused",
        "Arrays that the same devices share in other ways do not go together.",
        (
            "arrays.py",
            "    found = sharding._device_assignment\n    return found if len(found) > 1 else found[0]\n",
            "    return sharding\n",
        ),
        libraries=("jax",),
        devices=2,
    ),
    _fault(
        "sharding: results stay where they fall",
        "A result is not shared among the devices as what it replaces was.",
        ("arrays.py", "to_device(new, old.device) if is_shared(old) and new.device != old.device else new", "new"),
        libraries=("jax",),
        rules=("momentum",),
        devices=2,
    ),
    _fault(
        "sharding: fused results stay where they fall",
        "What XLA gives is not shared among the devices as what it replaces was.",
        (_JAX, "return x if alone or x.sharding.is_equivalent_to(place, x.ndim) else self.jax.device_put(x, place)", "return x"),
        libraries=("jax",),
        rules=("momentum",),
        devices=2,
    ),
)

BORDERS = (
    _fault(
        "blocks: a short one is lost",
        "What is left behind the last whole block is not stepped where it is most of one.",
        (_BLOCKS, "        yield from blocks\n", "        yield from (x for x in blocks if not BLOCK // 2 < x[0].size < BLOCK)\n"),
    ),
    _fault(
        "blocks: only the first",
        "A leaf is stepped no further than its first block.",
        (_BLOCKS, "        yield from blocks\n", "        yield from (x for x, _ in zip(blocks, range(2)))\n"),
    ),
    _fault(
        "kernels: the last number of a chunk",
        "Where numbers are asked for ahead, the last of each chunk is left out.",
        (_KERNELS, "_m = min(_step, _start + _n - _first)", "_m = min(_step - (ahead > 0), _start + _n - _first)"),
        rules=("nadam",),
    ),
    _fault(
        "kernels: the last number of a share",
        "A share counts as done before its last number is.",
        (
            _KERNELS,
            '        "        _share = _end - _begin",\n',
            '        "        _share = _end - _begin",\n        f"        _end -= _share == {SHARE}",\n',
        ),
        rules=("aggmo",),
    ),
    _fault(
        "kernels: the end of a block is not copied",
        "The last number of a whole block is not copied from the old state.",
        (_KERNELS, "{sizes[name]} * _n)", "{sizes[name]} * min(_n, {BLOCK - 1}))"),
        rules=("aggmo",),
    ),
    _fault(
        "launches: the rest is lost",
        "Leaves beyond those that all calls share are not stepped.",
        (_COMPILED, "        found[parts] += some[parts * each :]\n", "        pass\n"),
        libraries=("jax",),
        rules=("nadam",),
    ),
)

STRUCTURAL: tuple[Structural, ...] = (*TREES, *NUMBERS, *MEMORY, *GIVING, *ABSENT, *COUNTS, *ARRAY_TYPES, *PLACES, *BORDERS)
"""Faults of structure, by kind."""
