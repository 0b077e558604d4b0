"""Runs the real CuPy on a CPU, and xopt on it: ``python3 tests/cupy_on_cpu``.

Makes an environment in ``.venv-cupy``, builds the stand-ins for NVIDIA's libraries there, and then runs the tests, the conformance
suite and the planted faults. It needs pip, a C++ compiler and, the first time, a package registry. Exit status: 0 where all is
right or where there is no such compiler, 1 where something is wrong, 2 for bad usage.
"""

import argparse
import hashlib
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CYTHON = {"14.2.0": "3.2.9", "13.6.0": "3.1.6"}
"""The versions of CuPy that this is for, the default first, each with the Cython that its sources want."""
NVIDIA = "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-runtime-cu12"
"""A compiler, for the listing alone, and headers."""
TESTS = "bad_input", "purity", "rule", "scalars", "sound"
"""Modules of the project's tests that run for each array library."""
PROBE = "#include <immintrin.h>\n_Float16 half(float x) { return (_Float16)x; }\n"


def why_not() -> str | None:
    """Why nothing can be built here; None where it can."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return f"it is written for Linux on x86-64, and this is {platform.system()} on {platform.machine()}"
    if shutil.which("g++") is None:
        return "there is no C++ compiler (g++)"
    command = ["g++", "-std=c++17", "-mfma", "-mf16c", "-x", "c++", "-fsyntax-only", "-"]
    if subprocess.run(command, input=PROBE, text=True, capture_output=True).returncode:
        return "the C++ compiler (g++) is too old: it has no _Float16"
    if not {"fma", "f16c"} <= {*Path("/proc/cpuinfo").read_text().split()}:
        return "this CPU has no fused multiply-add, or none of the conversions of float16"
    return None


class Environment:
    """Where a version of CuPy is installed, and the stand-ins beside it. Both are kept until what they are made of changes."""

    def __init__(self, cupy: str) -> None:
        self.cupy = cupy
        self.folder = ROOT / ".venv-cupy" / cupy
        self.python = self.folder / "bin" / "python"
        self.constraints = [ROOT / "constraints.txt", HERE / "constraints.txt"]

    def make(self) -> None:
        wanted = self._digest([*self.constraints, ROOT / "pyproject.toml"], sys.version)
        if self._kept("installed") != wanted:
            shutil.rmtree(self.folder, ignore_errors=True)
            stage("install", self._install)
            (self.folder / "installed").write_text(wanted)
        stand_in = [*(HERE / "cuda_on_cpu" / "src").iterdir(), *(HERE / "cuda_on_cpu" / "include").rglob("*.h")]
        sources = sorted([HERE / "build.py", HERE / "cuda_on_cpu" / "compile.py", *stand_in])
        compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout
        wanted = self._digest(sources, compiler)
        if self._kept("built") != wanted:
            stage("build", self._build)
            (self.folder / "built").write_text(wanted)

    def run(self, *command: object, **options: object) -> None:
        """Python with one of our programs, and with options of CUDA on a CPU. Nothing from outside the environment is imported."""
        outer = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CUPY_", "CUDA_"))}
        run(self.python, *command, environment=outer | {f"CUDA_ON_CPU_{name.upper()}": str(x) for name, x in options.items()})

    def _kept(self, name: str) -> str | None:
        file = self.folder / name
        return file.read_text() if file.is_file() else None

    def _digest(self, files: Sequence[Path], *more: str) -> str:
        digest = hashlib.sha256("\n".join([self.cupy, CYTHON[self.cupy], *more]).encode())
        for file in files:
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def _install(self) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", self.folder)
        given = [word for file in self.constraints for word in ("-c", file)]
        wanted = f"cupy-cuda12x=={self.cupy}", f"cython=={CYTHON[self.cupy]}", *NVIDIA, "pytest-xdist"
        pip = sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", self.python
        sources = "--no-deps", "--no-binary", "cupy", f"cupy=={self.cupy}", "--dest", self.folder
        stubs = os.environ | {"CUPY_INSTALL_USE_STUB": "1"}  # else it looks for CUDA before it hands over its sources
        with ThreadPoolExecutor(2) as threads:
            download = threads.submit(run, *pip, "download", *sources, environment=stubs)
            run(*pip, "install", "--no-compile", *given, "-e", f"{ROOT}[conformance]", *wanted)
            download.result()
        shutil.unpack_archive(self.folder / f"cupy-{self.cupy}.tar.gz", self.folder)

    def _build(self) -> None:
        """With a line for ``site`` at the end, by which every process of the environment has CUDA on a CPU."""
        (packages,) = self.folder.glob("lib/python*/site-packages")
        hook = packages / "cuda_on_cpu.pth"
        hook.unlink(missing_ok=True)
        run(self.python, HERE / "build.py", self.folder / f"cupy-{self.cupy}")
        hook.write_text(f"{HERE}\nimport cuda_on_cpu\n")


def test(environment: Environment) -> None:
    """The stand-in's own tests, those of xopt on it, and the project's tests that have a row for CuPy."""
    pytest = "-P", "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider"
    environment.run(*pytest, HERE / "checks", devices=2)
    environment.run(*pytest, "-k", "cupy", *(ROOT / "tests" / f"test_{name}.py" for name in TESTS))


def conform(environment: Environment) -> None:
    environment.run("-P", "-m", "xopt.conformance", "conform", "--backend", "cupy", "--profile", "emulated")


def listing(environment: Environment) -> None:
    """For an A100, and for an H100 and an H200."""
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda capability: environment.run(HERE / "listing.py", listing=capability), (80, 90)))


def plant(environment: Environment) -> None:
    environment.run(HERE / "faults.py", devices=2)


STAGES = {"listing": listing, "tests": test, "conform": conform, "faults": plant}


def run(*command: object, environment: dict[str, str] | None = None) -> None:
    subprocess.run([str(word) for word in command], check=True, cwd=ROOT, env=environment)


def stage(name: str, function: Callable[..., None], *arguments: object) -> None:
    began, used = time.monotonic(), cpu()
    print(f"\n=== CuPy on a CPU: {name}", flush=True)
    try:
        function(*arguments)
    except subprocess.CalledProcessError as error:
        ended = f"exit status {error.returncode}" if error.returncode > 0 else f"signal {-error.returncode}"
        print(f"\n=== CuPy on a CPU: {name}: FAILED after {time.monotonic() - began:.0f} s ({ended})")
        sys.exit(1)
    print(f"=== CuPy on a CPU: {name}: {time.monotonic() - began:.0f} s, {cpu() - used:.0f} s of CPU", flush=True)


def cpu() -> float:
    """Seconds that the programs have taken which have ended: what they would take on one idle core."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 tests/cupy_on_cpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--cupy", choices=CYTHON, default=next(iter(CYTHON)), help="its version (default: %(default)s)")
    parser.add_argument("--only", choices=STAGES, action="append", help="what to run; may be repeated (default: all)")
    asked = parser.parse_args()
    reason = why_not()
    if reason is not None:
        print(f"CuPy on a CPU: not run: {reason}")
        return
    began = time.monotonic()
    environment = Environment(asked.cupy)
    environment.make()
    for name in asked.only or STAGES:
        stage(name, STAGES[name], environment)
    print(f"\n=== CuPy {asked.cupy} on a CPU: all passed in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
