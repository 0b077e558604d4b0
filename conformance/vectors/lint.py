"""The linter: what the schema cannot say of a folder of vectors."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xopt.conformance.reading import read
from xopt.conformance.vectors.bits import SHORT
from xopt.conformance.vectors.write import MANIFEST, SCHEMA


def lint(folder: Path) -> list[str]:
    """What is wrong with a folder of vectors, a line each."""
    path = folder / MANIFEST
    if not path.is_file():
        return [f"{path} is missing: is this a folder that `xopt vectors write` wrote?"]
    try:
        manifest = read(path)
        hashes = dict[str, str](manifest["sha256"])
    except (ValueError, KeyError, TypeError):
        return [f"{path} is no manifest"]
    found = []
    for name in sorted(hashes.keys() | {one.name for one in folder.glob("*.json")} - {MANIFEST}):
        file = folder / name
        if name not in hashes:
            found.append(f"{name} is not in the manifest")
        elif not file.is_file():
            found.append(f"{name} is in the manifest, and missing")
        elif hashlib.sha256(file.read_bytes()).hexdigest() != hashes[name]:
            found.append(f"{name} has another SHA-256 than in the manifest")
    return found + [problem for file in files(folder) for problem in _file(file, manifest.get("version"))]


def files(folder: Path) -> list[Path]:
    """The files of rules."""
    return [path for path in sorted(folder.glob("*.json")) if path.name not in (MANIFEST, SCHEMA.name)]


def _file(path: Path, version: str | None) -> Iterator[str]:
    import jsonschema

    try:
        content = read(path)
    except ValueError as error:
        yield f"{path.name} is no JSON: {error}"
        return
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    wrong = next(jsonschema.Draft202012Validator(schema).iter_errors(content), None)
    if wrong is not None:
        yield f"{path.name}: {'/'.join(map(str, wrong.absolute_path))}: {wrong.message[:200]}"
        return
    if content["rule"] != path.stem or content["version"] != version:
        yield f"{path.name} is of rule {content['rule']}, version {content['version']}; the manifest's is {version}"
    for at, one in enumerate(tests(content), start=1):
        yield from (f"{path.name}, id {one['id']}: {problem}" for problem in _test(at, one, content["notes"]))
    unused = content["notes"].keys() - {flag for one in tests(content) for flag in one["flags"]}
    if unused:
        yield f"{path.name} has notes of no flag: {', '.join(sorted(unused))}"


def tests(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All tests and chains of a file; each test with what its group says."""
    for group in content["groups"]:
        head = {key: value for key, value in group.items() if key != "tests"}
        yield from (head | test for test in group["tests"])
    yield from content["chains"]


def _test(at: int, one: dict[str, Any], notes: dict[str, str]) -> Iterator[str]:
    if one["id"] != at:
        yield f"stands in place {at}; ids count from 1"
    for flag in one["flags"]:
        if flag not in notes:
            yield f"flag {flag} has no note"
    short, compute = SHORT[one["dtype"]], SHORT[one["arithmetic"]]
    if "grad" in one and not one["grad"].startswith(f"{short}:"):
        yield f"grad is not of {one['dtype']}"
    for state in (one["in"], one.get("out", one["in"])):
        if list(state) != one["columns"]:
            yield f"columns are {', '.join(state)}, not {', '.join(one['columns'])}"
        for name, text in state.items():
            if not text.startswith((f"{short}:",) if name == "params" else (f"{compute}:", "f64:")):
                yield f"{name} is of another format: {text}"
