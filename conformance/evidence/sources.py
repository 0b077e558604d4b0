"""Hashes of the sources that decide a verdict."""

import ast
import hashlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import xopt
from xopt import backends
from xopt.backends import BACKENDS
from xopt.conformance.digests.runs import SHAPES, STEPS, hashed, inputs, mixed, other_setting, runs
from xopt.rules import RULES

_FOLDERS = {
    "xopt.conformance": Path(__file__).parents[1],
    "xopt.backends": Path(backends.__file__).parent,
    "xopt": Path(xopt.__file__).parent,
}


def source_hashes() -> dict[str, str]:
    """SHA-256 of the normal form of each part of the source that decides a verdict, by name.

    ``rule:NAME`` is its file and what it computes with, ``golden:NAME`` is its file, ``backend:NAME`` its file, the probes and
    the program that kernels are made from, ``cells`` is what draws the inputs of a cell and judges it: each with all modules of
    its own package that it imports. ``digest`` is what the digests are computed by. What pairs and checks the arrays of a step is
    no part: the digests show what becomes of the numbers. The laws are none, as no table shows them; nor is the ledger: it says
    what is accepted, not what was found.
    """
    hashes = {f"rule:{name}": _hash(f"xopt.rules.{name}", *ARITHMETIC, within="xopt.rules") for name in RULES}
    hashes |= {f"golden:{name}": _hash(f"xopt.conformance.golden.{name}", within="xopt.conformance.golden") for name in RULES}
    probes = modules("xopt.conformance.arithmetic.probes", within="xopt.conformance")
    for name, kind in BACKENDS.items():
        hashes[f"backend:{name}"] = _hash(kind.__module__, *probes, "xopt.program", within="xopt.backends")
    judges = _hash("xopt.conformance.compare.check", within="xopt.conformance"), normal_form(read_source(MEASURED))
    hashes["cells"] = sha256(repr(judges))
    parts = (SHAPES, STEPS, *(normal_form(inspect.getsource(part)) for part in (inputs, mixed, other_setting, runs, hashed)))
    hashes["digest"] = sha256(repr(parts))
    return hashes


ARITHMETIC = "xopt.operations", "xopt.scalars"
"""Modules that all rules compute with."""

MEASURED = "xopt.conformance.arithmetic.measured"
"""The module that makes formats of what the probes measured: it decides verdicts, as they are handed to what judges a cell."""

SHOWS = ("evidence", "faults", "report")
"""Modules of the suite that decide no verdict: they show verdicts, or plant faults to show that the suite finds them."""


def modules(*roots: str, within: str) -> list[str]:
    """The roots and, of the package ``within``, all that they import directly and indirectly, also inside functions."""
    left_out = tuple(f"xopt.conformance.{name}." for name in SHOWS)
    found: set[str] = set()
    todo = list(roots)
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            imported = [name for name in _imported(read_source(module)) if name.startswith(f"{within}.") and _path(name)]
            todo += [name for name in imported if not f"{name}.".startswith(left_out)]
    packages = {name.rsplit(".", 1)[0] for name in found}  # which Python runs first; those here import nothing
    return sorted(found | {name for name in packages if name.startswith(f"{within}.")})


def _hash(*roots: str, within: str) -> str:
    return sha256(repr([(name, normal_form(read_source(name))) for name in modules(*roots, within=within)]))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_source(module: str) -> str:
    path = _path(module)
    if path is None:
        msg = f"no source of {module}"
        raise FileNotFoundError(msg)
    return path.read_text(encoding="utf-8")


def _path(module: str) -> Path | None:
    """The file of a module, without importing it; None where there is none of that name."""
    package = next(name for name in _FOLDERS if module == name or module.startswith(f"{name}."))
    base = _FOLDERS[package].joinpath(*module.removeprefix(package).split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


@cache
def _imported(source: str) -> list[str]:
    """Every name that an import may mean: ``from a import b`` both a and a.b."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


@cache
def normal_form(source: str) -> str:
    """The syntax tree as text: all that a program means, and neither its layout, its comments nor its docstrings.

    The same from Python 3.11 on. ``ast.dump`` is not, because newer trees have more fields (``type_params``) and newer dumps leave
    out empty ones; nor is ``ast.unparse``, which quotes f-strings differently since 3.12. Here a field that is empty is left out:
    so is one that a newer Python adds, for a text that an older one can read too. Strings are escaped to ASCII, because what
    ``repr`` takes for printable grows with Unicode.
    """
    return _form(ast.parse(source))


def _form(x: Any) -> str:
    if isinstance(x, ast.AST):
        # ctx follows from the place; kind is the u of u"text"
        values = ((name, getattr(x, name, None)) for name in x._fields if name not in ("ctx", "kind", "type_comment"))
        return f"{type(x).__name__}({','.join(f'{name}={_form(x)}' for name, x in values if x is not None and x != [])})"
    if isinstance(x, list):
        return f"[{','.join(_form(item) for item in x if not _is_text(item))}]"
    return ascii(x)


def _is_text(x: Any) -> bool:
    """A statement that is only a string: a docstring, of whatever it may be."""
    return isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant) and isinstance(x.value.value, str)
