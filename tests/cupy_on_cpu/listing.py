"""What NVIDIA's own compiler makes of every kernel: ``python listing.py``, with ``CUDA_ON_CPU_LISTING`` a compute capability.

CuPy hands each kernel of a step to the real NVRTC, which needs no GPU, with the options that are CuPy's own. Nothing is launched.
What it compiled, as PTX, is in its cache: there each operation must round to nearest, none may be approximate, and none fused.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
CACHE = tempfile.TemporaryDirectory()
os.environ |= {"CUPY_CACHE_DIR": CACHE.name, "CUPY_COMPILE_WITH_PTX": "1"}  # which CuPy reads when it is imported

import cupy  # noqa: E402
from libraries import variants  # noqa: E402
from ptx import doubts  # noqa: E402

import xopt  # noqa: E402
from xopt.backends import fuse  # noqa: E402
from xopt.backends.compilers import elementwise_kernel  # noqa: E402
from xopt.backends.compilers.c_source import TYPES  # noqa: E402

EAGER = ("add", "subtract", "multiply", "true_divide", "sqrt", "sign", "where", "copy")  # what the rules launch, beside fused steps

BAD = {
    "without --fmad=false": ((), "fma"),
    "with a quick division": (("--fmad=false", "--prec-div=false"), "div"),
    "with a quick square root": (("--fmad=false", "--prec-sqrt=false"), "sqrt"),
}
"""Options of a kernel that must not pass, and the operation by which that is seen."""


def listed() -> Iterator[tuple[str, str]]:
    """What has been compiled since this was asked for: the names of the kernels, and their PTX."""
    for file in Path(CACHE.name).glob("*.cubin"):
        text = file.read_bytes().decode(errors="replace")
        file.unlink()
        name = re.search(r"\.visible \.entry (\w+)", text)
        assert name is not None, "CuPy has kept something else"
        yield name[1], text


def compile_all() -> None:
    """Steps of every rule in each dtype, of one leaf, dense and not, and of many; fused, and operation by operation.

    The forms that a state may have differ in their operations, and so in one dtype as in another.
    """
    for rule in xopt.RULES.values():
        for dtype in TYPES:
            x, strided = cupy.ones(3, dtype), cupy.ones((4, 6), dtype)[::2, ::2]
            for start, hyper in variants(rule) if dtype == "float32" else [({}, {})]:
                for step, params in ((rule.step, x), (fuse(rule), x), (fuse(rule), [x, x])):
                    step(rule.bind(**start).init(params), params, **hyper)
            for step in (rule.step, fuse(rule)):
                step(rule.init(strided), strided)


def main() -> int:
    compile_all()
    kernels = list(listed())
    failed = [f"{name}: {', '.join(found)}" for name, text in kernels if (found := doubts(text))]
    names = {name for name, _ in kernels}
    fused = {f"xopt_{rule}_{dtype}{form}" for rule in xopt.RULES for dtype in TYPES for form in ("", "_dense", "_many")}
    failed += [f"{name}: not compiled" for name in sorted(fused - names)]
    failed += [f"cupy_{name}: not compiled" for name in EAGER if not any(one.startswith(f"cupy_{name}__") for one in names)]
    failed += [f"{name}: holds no product" for name, text in kernels if name in fused and "mul.rn" not in text]
    for what, (options, operation) in BAD.items():
        elementwise_kernel.OPTIONS = options
        xopt.adamw.compiled.clear()
        x = cupy.ones(3, "f4")
        fuse(xopt.adamw)(xopt.adamw_init([x, x]), [x, x])
        if not any(one.startswith(operation) for _, text in listed() for one in doubts(text)):
            failed.append(f"{what}: not found")
    print(*failed, sep="\n", end="\n" if failed else "")
    compiler = re.search(r"Cuda compilation tools, (.*)", kernels[0][1])
    print(f"{len(kernels)} kernels by {compiler[1]}, for compute capability {cupy.cuda.Device().compute_capability}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
