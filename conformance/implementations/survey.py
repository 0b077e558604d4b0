"""Installs packages, each in an environment of its own, and checks their optimizers there."""

import datetime
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "implementations.json"
SCHEMA = FOLDER / "schema.json"
WRAPPERS = "xopt.conformance.implementations.wrappers"
COMMAND = "python -m xopt.conformance.implementations"
LIMIT = 120.0
"""Seconds that the check of one optimizer may take."""

OF_THE_WRAPPER = (
    "inputs are not written to",
    "resuming is going on",
    "the parameters keep their dtype",
    "the state keeps its dtype",
    "the count of steps goes on",
)
"""Checks that a wrapper answers, and not the library in it."""

Record = dict[str, Any]


def packages() -> list[Record]:
    """What is checked."""
    found: list[Record] = tomllib.loads((FOLDER / "packages.toml").read_text())["package"]
    return found


def findings() -> list[Record]:
    """What nobody is known to have reported, with the programs that show it."""
    found: list[Record] = tomllib.loads((FOLDER / "findings.toml").read_text())["finding"]
    return found


def results() -> Record:
    """What the last survey found."""
    found: Record = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"packages": [], "findings": []}
    return found


def title(package: Mapping[str, Any]) -> str:
    """What a package is called on the page."""
    return str(package.get("title", package["name"]))


def slug(package: Mapping[str, Any]) -> str:
    """A name for its environment: what is installed, or the package."""
    return str((package["install"] or [package["name"]])[0]).replace("==", "-")


def environment(package: Mapping[str, Any], folder: Path) -> Path:
    """The interpreter of an environment that has the package, and beside it all that this one has.

    Raises
    ------
    RuntimeError
        Where pip cannot install it, with pip's last line.
    """
    where = folder / slug(package)
    python = where / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = where / "installed"
    if done.exists():
        return python
    venv.create(where, with_pip=False, clear=True)
    if package["install"]:
        own = [sys.executable, "-m", "pip"] if any(distributions(name="pip")) else [shutil.which("pip") or "pip"]
        pip = [*own, "--python", str(python), "install", "--quiet", "--no-deps", *package["install"]]
        ran = subprocess.run(pip, capture_output=True, text=True)
        if ran.returncode:
            msg = (ran.stderr.strip() or ran.stdout.strip() or "pip failed").splitlines()[-1]
            raise RuntimeError(msg)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(where), "platbase": str(where)}))
    beside = [path for path in sys.path if path.endswith("site-packages")]
    (site / "beside.pth").write_text(f"import site; list(map(site.addsitedir, {beside!r}))\n")
    done.touch()
    return python


def checked(package: Mapping[str, Any], python: Path) -> Iterator[Record]:
    """A record for each optimizer of a package, from one process of its environment."""
    known = {"JAX_PLATFORMS": "cpu", **package.get("environment", {})}
    command = [str(python), "-P", "-m", "xopt.conformance.implementations.child"]
    for optimizer in package["optimizers"]:
        asked = json.dumps(
            {**{name: x for name, x in package.items() if name != "optimizers"}, **optimizer, "package": package["name"]}
        )
        start = {name: optimizer[name] for name in ("name", "rule", "given", "otherwise") if name in optimizer}
        try:
            ran = subprocess.run(
                command, input=asked, capture_output=True, text=True, timeout=LIMIT, env=os.environ | known, cwd=python.parents[1]
            )
            answer = json.loads(ran.stdout.splitlines()[-1]) if ran.returncode == 0 else {"failed": _last(ran.stderr)}
        except subprocess.TimeoutExpired:
            answer = {"failed": f"no answer within {LIMIT:g} s"}
        yield start | answer


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no words"])[-1][:300]


def survey(folder: Path, only: Iterable[str] = (), say: Callable[[str], None] = print) -> None:
    """Checks all packages, or those that are named, and writes what was found in place of what was known of them."""
    before = {one["key"]: one for one in results()["packages"]}
    shown = {one["title"]: one for one in results()["findings"]}
    only, found = set(only), []
    for package in packages():
        key = f"{title(package)} ({slug(package)})"
        if only and not only & {package["name"], slug(package), title(package)}:
            found += [before[key]] if key in before else []
            continue
        found.append(surveyed(package, folder, say) | {"key": key})
        for finding in findings():
            if finding["package"] == slug(package):
                shown[finding["title"]] = showing(finding, package, folder)
        rest = [before[name] for name in before if name not in {one["key"] for one in found}]
        _write([*found, *rest], shown)
    _write(found, shown)


def surveyed(package: Mapping[str, Any], folder: Path, say: Callable[[str], None]) -> Record:
    """What is found of one package, or why nothing is."""
    record: Record = {"name": package["name"], "title": title(package), "date": f"{datetime.date.today()}", "optimizers": []}
    try:
        python = environment(package, folder)
    except RuntimeError as error:
        say(f"{slug(package)}: {error}")
        return record | {"version": "", "beside": "", "reason": f"it cannot be installed: {error}"}
    record |= {"version": _version(python, package["name"]), "beside": _beside(package)}
    for one in checked(package, python):
        say(f"{title(package)}: {one['name']}, {one['rule']}: {one.get('verdict', one.get('failed'))}")
        record["optimizers"].append(one)
    return record


def showing(finding: Mapping[str, Any], package: Mapping[str, Any], folder: Path) -> Record:
    """What the program of a finding prints in the environment of its package."""
    python = environment(package, folder)
    command = [str(python), "-P", "-W", "ignore", "-c", finding["program"]]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}, check=True)
    return {
        "title": finding["title"],
        "version": f"{package['name']} {_version(python, package['name'])}",
        "date": f"{datetime.date.today()}",
        "printed": ran.stdout,
    }


def _write(found: list[Record], shown: Mapping[str, Record]) -> None:
    kept = [shown[one["title"]] for one in findings() if one["title"] in shown]
    about = {"command": COMMAND, "machine": "2 cores, x86_64, Linux", "xopt": version("array-xopt")}
    RESULTS.write_text(json.dumps({"schema": 1, **about, "packages": found, "findings": kept}, indent=1) + "\n")


def _version(python: Path, name: str) -> str:
    ask = f"from importlib.metadata import version; print(version({name!r}))"
    return subprocess.run([str(python), "-P", "-c", ask], capture_output=True, text=True).stdout.strip()


def _beside(package: Mapping[str, Any]) -> str:
    """The library that its arrays are of, where that is another."""
    of = {
        "keras": package.get("environment", {}).get("KERAS_BACKEND", ""),
        "thinc": "numpy",
        "mlx": "",
        "optax": "jax",
        "torch": "",
    }
    library = of.get(package["name"], "torch")
    return f"{library} {version(library)}" if library else ""
