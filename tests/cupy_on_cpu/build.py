"""Builds the stand-ins for NVIDIA's libraries, and CuPy's runtime.pyx against them: ``python build.py SOURCES``.

It runs in the environment that has CuPy. ``SOURCES`` is the folder of CuPy's source distribution, of the same version.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Compiler.Main import compile as cythonize
from Cython.Compiler.Options import CompilationOptions

HERE = Path(__file__).resolve().parent / "cuda_on_cpu"
sys.path.insert(0, str(HERE))  # not its package, which loads what is built here

from compile import BUILT as OUT  # noqa: E402
from compile import SETS, precompile  # noqa: E402

SITE = Path(sysconfig.get_paths()["purelib"])
INCLUDES = [HERE / "include" / "toolkit", SITE / "nvidia" / "cuda_runtime" / "include", HERE / "src"]
FLAGS = ["g++", "-std=c++17", "-O1", "-fPIC", "-shared", "-w", *(f"-I{path}" for path in INCLUDES)]


def library(name: str, *sources: Path, more: tuple[object, ...] = ()) -> None:
    others = [] if name == "libcudart.so.12" else [OUT / "libcudart.so.12", "-Wl,-rpath,$ORIGIN"]
    run(*FLAGS, f"-Wl,-soname,{name}", *more, *sources, *others, "-ldl", "-o", OUT / name)


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


def stubs(name: str, wanted: set[str], source: Path, status: int) -> Path:
    """A source with a function for each that is wanted and that ``source`` does not define: all it does is to return ``status``."""
    defined = set(re.findall(r"^[\w ]+[ *](cu\w+)\(", source.read_text(), re.MULTILINE))
    made = OUT / f"{name}_stubs.cpp"
    made.write_text(
        "\n".join(['extern "C" {', *(f"int {one}() {{ return {status}; }}" for one in sorted(wanted - defined)), "}", ""])
    )
    return made


def wanted_of_runtime(sources: Path) -> set[str]:
    """The functions that runtime.pyx names."""
    text = (sources / "cupy_backends" / "cuda" / "api" / "_runtime_extern.pxi").read_text()
    return set(re.findall(r"\b(cuda[A-Z]\w*)\(", text)) - {"cudaGetDeviceProperties"}  # a macro


def wanted_of_cublas() -> set[str]:
    """The functions without which CuPy's module for cuBLAS is not loaded."""
    (module,) = (SITE / "cupy_backends" / "cuda" / "libs").glob("cublas.*.so")
    needed = subprocess.run(["nm", "-D", "--undefined-only", module], check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"\b(cublas\w+)@", needed))


def build_runtime(sources: Path) -> None:
    """CuPy's own module, linked with the stand-in."""
    made = OUT / "runtime.cpp"
    versions = {"CUPY_USE_CUDA_PYTHON": False, "CUPY_CUFFT_STATIC": False, "CUPY_CUDA_VERSION": 12090, "CUPY_HIP_VERSION": 0}
    directives = {"embedsignature": True, "binding": False, "warn.deprecated.IF": False}
    options = CompilationOptions(
        cplus=True,
        language_level=3,
        output_file=str(made),
        include_path=[str(sources)],
        compiler_directives=directives,
        compile_time_env=versions,
    )
    os.chdir(sources)
    result = cythonize("cupy_backends/cuda/api/runtime.pyx", options, full_module_name="cupy_backends.cuda.api.runtime")
    if result.num_errors:
        sys.exit("Cython refuses runtime.pyx")
    name = f"runtime{sysconfig.get_config_var('EXT_SUFFIX')}"
    here = [f"-I{sources / 'cupy_backends' / 'cuda' / 'api'}", f"-I{sysconfig.get_paths()['include']}"]
    run(*FLAGS, *here, made, OUT / "libcudart.so.12", "-Wl,-rpath,$ORIGIN", "-o", OUT / name)


def main(sources: Path) -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    source = HERE / "src"
    runtime = source / "cudart.cpp"
    library("libcudart.so.12", runtime, stubs("cudart", wanted_of_runtime(sources), runtime, 801))  # cudaErrorNotSupported
    cublas, versions, empty = source / "cublas.cpp", OUT / "cublas.map", OUT / "empty.cpp"
    versions.write_text("libcublas.so.12 { global: cublas*; };\n")
    empty.write_text("")
    made = stubs("cublas", wanted_of_cublas(), cublas, 15)  # CUBLAS_STATUS_NOT_SUPPORTED
    with ThreadPoolExecutor(2) as threads:
        tasks = [
            threads.submit(build_runtime, sources.resolve()),
            *(threads.submit(precompile, flags, SITE / "cupy" / "_core" / "include") for flags in SETS),
            threads.submit(library, "libcuda.so.1", source / "cuda.cpp"),
            threads.submit(library, "libnvrtc.so.12", source / "nvrtc.cpp"),
            threads.submit(library, "libcublas.so.12", cublas, made, more=("-O2", f"-Wl,--version-script={versions}")),
            threads.submit(library, "libcublasLt.so.12", empty),
        ]
    for task in tasks:
        task.result()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
