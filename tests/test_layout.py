"""The tree, RULES and the documentation say the same, and the wheel holds what the tree holds."""

import email
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy that holds the project's files and no others."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for path in FILES:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
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
