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
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.resources import files
from types import ModuleType
from typing import Any, NamedTuple

from xopt.conformance.bounded import FORMATS
from xopt.conformance.faults.fault import Edit
from xopt.conformance.faults.planting import Edited
from xopt.conformance.results import BROKEN
from xopt.conformance.structures.check import check_structures
from xopt.conformance.structures.law import Product
from xopt.rules import RULES

EXAMPLES = 20
"""Situations of a rule in one dtype, as a run for continuous integration draws them."""


class Structural(NamedTuple):
    """A wrong text of the package that no formula shows."""

    name: str
    edits: tuple[Edit, ...]
    sentence: str  # what it does instead
    libraries: tuple[str, ...] = ("numpy",)  # where it shows
    rules: tuple[str, ...] = ()  # those asked first
    crashes: bool = False  # whether it may end the process, so that another one must play


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
    finder = Edited(texts)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if any(name.endswith(("numba_kernels", "program")) for name in texts):  # whose kernels are no one else's
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


KEPT = "xopt.backends.numba_runtime"
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
    if fault.crashes:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return _in_another(pool, fault, examples, seed)
    return _find(fault, examples, seed)


def _find(fault: Structural, examples: int, seed: int) -> Found | None:
    with planted(fault) as product:
        for rule in dict.fromkeys((*fault.rules, "lion", "nadam", "aggmo", *RULES)):
            for library in fault.libraries:
                for dtype in ("float32", "float16", "float64"):
                    found = _played(product, rule, library, dtype, examples, seed)
                    if found is not None:
                        return found
    return None


def _played(product: Product, rule: str, library: str, dtype: str, examples: int, seed: int) -> Found | None:
    modes = ("eager", "fused")
    formats = {(library, "cpu", name, mode): FORMATS[name] for name in ("float32", "float64") for mode in modes}
    targets = [(library, "cpu", mode) for mode in modes]
    results = check_structures(rule, dtype, targets, formats, examples, seed, product, shrink=False)
    for result in results:
        if result.verdict == BROKEN and result.broken:
            return Found(rule, library, dtype, result.broken["mode"], result.found_after or examples, result.broken["reason"])
    return None


def _in_another(pool: Any, fault: Structural, examples: int, seed: int) -> Found | None:
    """In another process: where that ends without an answer, it was found."""
    raise NotImplementedError


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


STRUCTURAL: tuple[Structural, ...] = ()
