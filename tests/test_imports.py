"""What is imported when, and in which direction: in fresh processes, and in the source."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"xopt": ROOT / "xopt", "xopt.backends": ROOT / "backends", "xopt.conformance": ROOT / "conformance"}
LIBRARIES = {"numpy", "torch", "jax", "jaxlib", "cupy", "array_api_strict", "numba", "dask", "ml_dtypes"}
HEAVY = {"hypothesis", "mpmath", "sklearn", "scipy", "typer", "rich", "matplotlib"}


def loaded_after(code):
    """The top-level names of all modules loaded in a fresh process after ``code``."""
    code += "\nimport json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_loads_no_array_library():
    """Not even NumPy: of what is not in the standard library, xopt loads these three and what they need, no more."""
    loaded = loaded_after("import xopt")
    assert "xopt" in loaded
    assert not loaded & (LIBRARIES | HEAVY)
    others = {name for name in loaded - set(sys.stdlib_module_names) if not name.startswith(("_", "sitecustomize"))}
    before = {name for name in loaded_after("") if not name.startswith("_")}
    assert others - before == {"xopt", "array_api_compat", "optree", "typing_extensions"}


def test_init_and_step_load_only_the_library_of_their_arrays():
    loaded = loaded_after("import numpy, xopt; x = numpy.ones(3)\nfor r in xopt.RULES.values(): r.step(r.init(x), x)")
    assert loaded & (LIBRARIES | HEAVY) == {"numpy"}


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_other_libraries_stay_out(library):
    pytest.importorskip(library)
    make = {"torch": "x = torch.ones(3)", "jax": "x = jax.numpy.ones(3)"}[library]
    loaded = loaded_after(f"import {library}, xopt; {make}; xopt.adamw_step(xopt.adamw_init(x), x)")
    assert loaded & {"torch", "jax", "cupy", "array_api_strict", "numba"} == {library}


def imports(path):
    """The modules that a file imports, anywhere in it, as (line, name); relative imports keep their dots."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            yield node.lineno, name
            yield from ((node.lineno, f"{name}.{alias.name}") for alias in node.names)


def sources(package):
    return sorted(FOLDERS[package].rglob("*.py"))


def offences(package, *forbidden):
    return [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sources(package)
        for line, name in imports(path)
        if any(f"{name}.".startswith(f"{ban}.") for ban in forbidden)
    ]


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("xopt", ["xopt.backends", "xopt.conformance"]), ("xopt.backends", ["xopt.conformance"])],
    ids=["xopt", "backends"],
)
def test_imports_point_one_way(package, forbidden):
    assert sources(package)
    assert offences(package, *forbidden) == []


def test_the_rules_know_no_array_library():
    """Nowhere in xopt/, not even inside a function, but in xopt.memory, which reads rules by NumPy and which no rule knows."""
    assert [found for found in offences("xopt", *LIBRARIES) if not found.startswith("xopt/memory/")] == []
    others = offences("xopt", *LIBRARIES - {"numpy"}, "xopt.memory")
    assert [found for found in others if not found.startswith("xopt/memory/") or "xopt.memory" not in found] == []
    assert len(sources("xopt")) > 10


def test_the_operations_alone_ask_for_the_namespace():
    """A rule file imports from xopt and typing only: what it may do to an array is what ``xopt.operations`` has."""
    for path in sources("xopt"):
        if path.parent.name == "rules" and path.name != "__init__.py":
            names = {name.partition(".")[0] for _, name in imports(path)}
            assert names <= {"typing", "xopt"}, path.name
    users = {path.name for path in sources("xopt") if any(name.startswith("array_api_compat") for _, name in imports(path))}
    assert users == {"arrays.py", "operations.py", "typed.py"}


def test_no_relative_imports():
    assert [o for package in FOLDERS for o in offences(package, ".", "..") if o] == []
    for package in FOLDERS:
        for path in sources(package):
            assert not any(name.startswith(".") for _, name in imports(path)), path


def test_the_walk_finds_what_it_looks_for(tmp_path):
    """The check can fail: each way to write a forbidden import is seen."""
    for number, line in enumerate(
        [
            "import xopt.backends",
            "from xopt import backends",
            "from xopt.backends import get",
            "def f():\n    import xopt.backends.x as b",
        ]
    ):
        path = tmp_path / f"{number}.py"
        path.write_text(line)
        assert any(f"{name}.".startswith("xopt.backends.") for _, name in imports(path)), line
    path.write_text("from . import rule\nfrom .rule import Rule")
    assert {name for _, name in imports(path)} >= {".", ".rule"}
