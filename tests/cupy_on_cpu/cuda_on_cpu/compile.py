"""What the stand-in for NVRTC calls: makes a shared object for the CPU of CUDA C++."""

import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HEADERS = Path(__file__).parent / "include" / "kernel"
BUILT = Path(sys.prefix) / "cuda-on-cpu"
MAGIC = b"CPU-CUDA"  # as in cuda.cpp
KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(")
FLAGS = ("-std=c++17", "-fPIC", "-w", "-fno-strict-aliasing", "-fno-math-errno", "-mfma", "-mf16c")

# CUDA contracts unless it is told not to. So that a missing option shows, g++ must then do so wherever it can.
EXACT, CONTRACTED = ("-O1", "-ffp-contract=off"), ("-O2", "-ffp-contract=fast")
BARRIERS = ("-DBARRIERS",)
SETS = EXACT, CONTRACTED, EXACT + BARRIERS, CONTRACTED + BARRIERS
"""The sets of flags that ``compiled`` may want."""


def precompiled(flags: Sequence[str]) -> Path:
    """The folder in which g++ finds the headers that all kernels have, read already with these flags: half of a kernel's time."""
    return BUILT / "headers" / "".join(flags).replace("=", "-")


def precompile(flags: Sequence[str], cupy_headers: Path) -> None:
    """Reads the headers once for a set of flags."""
    folder = precompiled(flags)
    folder.mkdir(parents=True)
    names = "cuda_device.h", "cupy/complex.cuh", "cupy/carray.cuh", "cupy/atomics.cuh", "cupy/math_constants.h"
    (folder / "all.h").write_text("".join(f"#include <{name}>\n" for name in names))
    made = "-x", "c++-header", str(folder / "all.h"), "-o", str(folder / "cuda_device.h.gch")
    subprocess.run(["g++", *FLAGS, *flags, f"-I{HEADERS}", f"-I{cupy_headers}", *made], check=True)


def text_of(source: str) -> str:
    """The source as C++, with a function for each kernel that launches it."""
    names = dict.fromkeys(KERNEL.findall(source))
    body = source.replace('extern "C" __global__', "__global__")
    body = re.sub(r"extern\s+__shared__\s+([\w\s]+?)\s*(\w+)\s*\[\s*\]\s*;", r"static \1 \2[49152 / sizeof(\1)];", body)
    head = ['#include "cuda_device.h"', '#line 1 "kernel.cu"', body, '#include "cuda_launch.h"']
    ends = [
        f'extern "C" void launch_{name}(void **params, const unsigned *sizes) {{ launch({name}, params, sizes); }}'
        for name in names
    ]
    return "\n".join([*head, *ends, ""])


def flags_of(source: str, options: Sequence[str]) -> list[str]:
    flags = EXACT if "--fmad=false" in options else CONTRACTED
    if re.search("__sync(threads|warp)|__shfl_", source):
        flags += BARRIERS
    more = [f"-I{precompiled(flags)}", f"-I{HEADERS}"]
    if {"-ftz=true", "--ftz=true"} & {*options} and not re.search(r"\bdouble\b", source):
        more.append("-DFLUSH")  # not beside float64, which the CPU would flush too, and CUDA never does
    more += [option for option in options if option.startswith(("-I", "-D")) and "/nvidia/" not in option and "_cccl" not in option]
    return [*flags, *more]


def compiled(folder: Path) -> int:
    """Makes the files ``image`` and ``log`` of ``source`` and ``options``. Returns the compiler's exit status."""
    source, options = (folder / "source").read_text(), (folder / "options").read_text().splitlines()
    if not source.strip():  # CuPy compiles an empty program, and looks for the compiler's version in what comes out
        (folder / "image").write_text("// CUDA on a CPU\n")
        return 0
    path, made = folder / "kernel.cpp", folder / "kernel.so"
    path.write_text(text_of(source))
    link = (
        "-shared",
        "-nostdlib",
        str(path),
        "-lgcc",
        "-o",
        str(made),
    )  # the other libraries are there already, and take time to link
    command = ["g++", *FLAGS, *flags_of(source, options), *link]
    done = subprocess.run(command, capture_output=True, text=True)
    (folder / "log").write_text(done.stderr)
    if done.returncode == 0:
        shared = made.read_bytes()
        (folder / "image").write_bytes(MAGIC + struct.pack("<Q", len(shared)) + shared)
    return done.returncode
