"""CUDA on a CPU: with this imported first, the unmodified wheel of CuPy runs without a GPU.

It loads the stand-ins for NVIDIA's libraries, which CuPy then finds by their names as those already loaded, and hands in CuPy's own
module ``cupy_backends.cuda.api.runtime`` as it is when linked with the first of them: in the wheel, that one module has NVIDIA's
library inside, which looks for a driver.
"""

import ctypes
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

from cuda_on_cpu.compile import BUILT, compiled

NVRTC = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cuda_nvrtc" / "lib"  # NVIDIA's own
RUNTIME = "cupy_backends.cuda.api.runtime"
LIBRARIES = ("libcudart.so.12", "libcuda.so.1", "libnvrtc.so.12", "libcublasLt.so.12", "libcublas.so.12")


class Finder(MetaPathFinder):
    """Finds the module of CuPy that is linked anew, and takes CuPy's pool of memory away.

    The pool would hand out memory that was used before, and several arrays of one allocation: so each array has its own.
    """

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002 - as importlib calls it
        if fullname == RUNTIME:
            file = str(BUILT / f"runtime{sysconfig.get_config_var('EXT_SUFFIX')}")
            return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, file))
        spec = PathFinder.find_spec(fullname, path) if fullname == "cupy" else None
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_without_pool(module: Any) -> None:
                load(module)
                module.cuda.set_allocator(None)

            spec.loader.exec_module = load_without_pool  # type: ignore[method-assign]
        return spec


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)
def compiler(folder: bytes) -> int:
    return compiled(Path(folder.decode()))


def install() -> None:
    os.environ["CUPY_ACCELERATORS"] = ""  # CUB's kernels are machine code of GPUs
    os.environ["CUPY_CACHE_DIR"] = str(BUILT / "kernels")
    os.environ["CUDA_PATH"] = str(BUILT)  # else CuPy looks for a toolkit
    for name in LIBRARIES:
        real = "nvrtc" in name and "CUDA_ON_CPU_LISTING" in os.environ
        library = ctypes.CDLL(str((NVRTC if real else BUILT) / name), mode=ctypes.RTLD_GLOBAL)
        if hasattr(library, "stand_in_compiler"):
            library.stand_in_compiler(compiler)
    sys.meta_path.insert(0, Finder())


@contextmanager
def trace() -> Iterator[list[str]]:
    """The launches, copies and waits within the block, a line each. They are there when it has ended."""
    library = ctypes.CDLL("libcudart.so.12")
    library.stand_in_events.restype = ctypes.c_char_p
    events: list[str] = []
    library.stand_in_trace(1)
    try:
        yield events
    finally:
        library.stand_in_trace(0)
        events += library.stand_in_events().decode().splitlines()


install()
