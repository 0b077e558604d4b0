"""The tree, RULES and the documentation say the same, and the wheel holds what the tree holds."""

import ast
import email
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import xopt
from xopt import RULES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = {"xopt": "xopt", "backends": "xopt/backends", "conformance": "xopt/conformance"}  # in the tree, in the wheel
TOP = {
    *(".ci", ".gitignore", "backends", "conformance", "docs", "tests", "xopt"),
    *(
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "constraints-lowest.txt",
        "constraints.txt",
        "mkdocs.yml",
        "pyproject.toml",
        "setup.py",
    ),
}
IGNORED = re.compile(r"__pycache__|.*\.egg-info|\.venv(-cupy)?|build|dist|site|\.hypothesis|\..*_cache")  # as in .gitignore


def project_files():
    """The files that are in the repository, or would be after ``git add``."""
    if not (ROOT / ".git").exists():
        found = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        return sorted(path.as_posix() for path in found if not any(map(IGNORED.fullmatch, path.parts)))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(path for path in listed.stdout.split("\0") if path and (ROOT / path).is_file())


FILES = project_files()


def names(folder, suffix):
    return {Path(path).stem for path in FILES if Path(path).parent.as_posix() == folder and path.endswith(suffix)}


def test_the_top_level_is_exactly_what_it_is_meant_to_be():
    assert {path.split("/")[0] for path in FILES} == TOP


@pytest.mark.parametrize(
    ("folder", "suffix", "more"),
    [("xopt/rules", ".py", {"__init__"}), ("conformance/golden", ".py", {"__init__"}), ("docs/rules", ".md", set())],
)
def test_each_rule_has_its_file_and_nothing_is_left_over(folder, suffix, more):
    assert names(folder, suffix) == set(RULES) | more


def test_each_rule_has_its_entry_in_the_navigation():
    entries = re.findall(r"rules/(\w+)\.md", (ROOT / "mkdocs.yml").read_text())
    assert entries == list(RULES), "the pages of the rules, in the order of RULES"


def test_rules_have_their_own_names():
    for name, rule in RULES.items():
        assert rule.name == name
        assert rule.elementwise.__module__ == f"xopt.rules.{name}"


def test_rule_files_are_short():
    for name in RULES:
        assert len((ROOT / "xopt" / "rules" / f"{name}.py").read_text().splitlines()) <= 120, name


def test_functions_of_the_core_and_the_backends_take_at_most_six_arguments_by_position():
    """But what numba compiles, which takes no others."""
    for path in [*(ROOT / "xopt").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())) if path.stem != "numba_runtime" else ():
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = {one.arg for one in (*node.args.posonlyargs, *node.args.args)} - {"self", "cls"}
                assert len(names) <= 6, f"{path}:{node.lineno}: {node.name}"


def test_shipped_packages_hold_no_tests():
    assert not [path for path in FILES if not path.startswith("tests/") and re.search(r"(^|/)(test_|conftest)", path)]


def test_packages_of_the_project_are_the_folders_with_python_files():
    found = {str(Path(path).parent) for path in FILES if path.split("/")[0] in FOLDERS and path.endswith(".py")}
    listed = PROJECT["tool"]["setuptools"]["package-dir"]
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == set(listed)
    assert set(listed.values()) == found
    for package, folder in listed.items():
        top, _, rest = folder.partition("/")
        assert package == f"{FOLDERS[top]}/{rest}".strip("/").replace("/", ".")
        assert f"{folder}/__init__.py" in FILES


def copied(copy):
    """A folder that holds the project's files and no others."""
    for path in FILES:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    return copy


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    copy, out = copied(tmp_path_factory.mktemp("copy")), tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        yield archive


def test_wheel_holds_the_projects_files_and_no_others(wheel):
    want = {f"{FOLDERS[top]}/{rest}" for top, _, rest in (path.partition("/") for path in FILES) if top in FOLDERS}
    assert "xopt/py.typed" in want
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == want


def test_wheel_is_named_after_the_distribution_and_has_the_console_script(wheel):
    def read(name):
        (found,) = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
        return wheel.read(found).decode()

    metadata = email.message_from_string(read("METADATA"))
    assert metadata["Name"] == "array-xopt"
    assert metadata["Version"] == PROJECT["project"]["version"]
    assert "xopt = xopt.conformance.__main__:main" in read("entry_points.txt")
    assert read("top_level.txt").split() == ["xopt"]
    assert "BSD 3-Clause License" in read("licenses/LICENSE")


def test_the_version_is_that_of_the_metadata():
    assert xopt.__version__ == PROJECT["project"]["version"] == version("array-xopt")
    with pytest.raises(AttributeError, match="module 'xopt' has no attribute 'version'"):
        xopt.version  # noqa: B018
    missing = """import importlib.metadata as m, xopt
def version(name): raise m.PackageNotFoundError(name)
m.version = version
print(hasattr(xopt, "__version__"))
try: xopt.__version__
except AttributeError as error: print(error)"""
    done = subprocess.run([sys.executable, "-P", "-c", missing], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "False\nxopt.__version__ is that of the installed distribution array-xopt, which is not installed"
    )


# --- the editable install --------------------------------------------------------------------------------------------------------


def editable(project, out):
    """The editable wheel of a project: its files but for the metadata, with their text."""
    build = f"from setuptools.build_meta import build_editable; build_editable({str(out)!r})"
    subprocess.run([sys.executable, "-P", "-c", build], cwd=project, capture_output=True, check=True)
    (made,) = out.glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" not in name}


def test_an_editable_install_is_found_without_an_import_hook_and_follows_edits(tmp_path):
    project = copied(tmp_path / "project")
    for _ in range(2):  # it may be made again
        shutil.rmtree(tmp_path / "wheel", ignore_errors=True)
        (tmp_path / "wheel").mkdir()
        (text,) = editable(project, tmp_path / "wheel").values()
    assert text.split() == [str(project.resolve())], "a .pth file with a folder, which type checkers read"
    for folder in ("backends", "conformance"):
        assert (project / "xopt" / folder).readlink() == Path("..", folder)
    (project / "xopt" / "added.py").write_text("from xopt.backends.compilers.added import here")
    (project / "backends" / "compilers" / "added.py").write_text("here = __name__")
    look = "import sys; sys.path.insert(0, sys.argv[1]); from xopt import added; print(added.here, added.__file__)"
    done = subprocess.run([sys.executable, "-P", "-c", look, project], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["xopt.backends.compilers.added", str(project / "xopt" / "added.py")]


def test_the_links_are_in_no_wheel_and_in_no_list_of_files(tmp_path):
    project = copied(tmp_path / "project")
    (tmp_path / "wheel").mkdir()
    editable(project, tmp_path / "wheel")
    command = [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", project]
    subprocess.run(command, capture_output=True, check=True)
    (made,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert len(names) == len(set(names))
    assert set(names) == {f"{FOLDERS[top]}/{rest}" for top, _, rest in (path.partition("/") for path in FILES) if top in FOLDERS}
    assert {"xopt/backends", "xopt/conformance"}.isdisjoint(FILES)


def test_where_no_link_can_be_made_the_install_is_setuptools_own(tmp_path):
    project = copied(tmp_path / "project")
    (project / "xopt" / "backends").mkdir()  # in the way
    (tmp_path / "wheel").mkdir()
    found = editable(project, tmp_path / "wheel")
    assert any(name.endswith("_finder.py") for name in found)
