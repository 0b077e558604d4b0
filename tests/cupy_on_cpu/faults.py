"""Plants faults in what xopt does with CuPy, and shows that the tests find each: ``python faults.py``.

Each is an edit of a private copy of the sources, on which that part of ``checks`` runs which is to find it.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from xopt.conformance.faults.fault import Edit
from xopt.conformance.faults.planting import edited

LIMIT = 120
"""Seconds after which tests are taken not to end."""

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FOLDERS = {"xopt": "xopt", "backends": "xopt/backends", "conformance": "xopt/conformance"}  # in the tree, as installed


class Fault(NamedTuple):
    """A wrong text of a package."""

    name: str
    by: str  # the tests that are to find it, as ``pytest -k`` takes them
    edits: tuple[Edit, ...]
    package: str = "xopt.backends"


def in_kernels(name: str, by: str, old: str, new: str) -> Fault:
    return Fault(name, by, (Edit("compilers/elementwise_kernel.py", old, new),))


def in_launches(name: str, by: str, old: str, new: str) -> Fault:
    return Fault(name, by, (Edit("compilers/launches.py", old, new),))


def in_fused(name: str, by: str, file: str, old: str, new: str) -> Fault:
    return Fault(name, by, (Edit(f"fused/{file}.py", old, new),))


def in_xopt(name: str, by: str, file: str, old: str, new: str) -> Fault:
    return Fault(name, by, (Edit(file, old, new),), "xopt")


BITS = "bits and adamw and float32"

FAULTS = [
    in_kernels("a multiplication and an addition contract", BITS, '("--fmad=false",)', '("--fmad=true",)'),
    in_kernels(
        "small leaves share the first one's coefficients",
        BITS,
        "batch.chosen.rows[leaves], *places",
        "0 * batch.chosen.rows[leaves], *places",
    ),
    in_kernels(
        "strided leaves share the first one's coefficients",
        BITS,
        "coefficients[chosen.rows[i]]",
        "coefficients[0 if chosen.strided else chosen.rows[i]]",
    ),
    in_kernels(
        "large leaves share the first one's coefficients",
        BITS,
        "coefficients[chosen.rows[i]]",
        "coefficients[chosen.rows[i] if chosen.strided else 0]",
    ),
    in_kernels(
        "the last numbers of a large leaf are not stepped",
        BITS,
        "-(-old[0].size // (2 * APART))",
        "old[0].size // (2 * APART)",
    ),
    in_kernels("a thread steps its first number twice", BITS, "old_{}[_k]", "old_{}[0]"),
    in_kernels("a large leaf has numbers beyond its last", BITS, "_at < to_params.size()", "true"),
    in_kernels(
        "a large leaf is taken in the order of its indices", BITS, "self._array((x.size,), x.dtype, x.data)", "x.reshape(-1)"
    ),
    in_launches("rows are those of the first leaves", BITS, "yield Chosen(some, rows[at]", "yield Chosen(some, rows[: len(some)]"),
    in_launches("a batch has the first leaves' arrays", BITS, "leaf, present = self.chosen.leaves[i]", "leaf, present = i"),
    in_launches(
        "a batch has the first leaves' addresses", BITS, "np.ix_(leaves[at], present), np", "np.ix_(range(len(some)), present), np"
    ),
    in_kernels("the rows of the table are too narrow", BITS, "width, coefficients = 2 + len", "width, coefficients = 1 + len"),
    in_kernels("the first number of a leaf goes to the one before", BITS, "{width}] <= i)", "{width}] < i)"),
    in_kernels(
        "the addresses of what is read and of what is written are swapped",
        BITS,
        "batch.sources[leaves][:, self._reads], batch.targets[leaves]",
        "batch.targets[leaves], batch.sources[leaves][:, self._reads]",
    ),
    in_kernels("arguments are swapped", BITS, "*(old[at] for at in self._reads)", "*(old[at] for at in self._reads[::-1])"),
    in_kernels(
        "arguments of a large leaf are swapped",
        BITS,
        "(old[at]) for at in self._reads)",
        "(old[at]) for at in self._reads[::-1])",
    ),
    Fault(
        "a coefficient is not rounded to float32",
        BITS,
        (
            Edit("compilers/elementwise_kernel.py", "[self._real(float(c[i]))", "[float(c[i])"),
            Edit("compilers/elementwise_kernel.py", '[f"{COMPUTE[dtype]} {program', '[f"float64 {program'),
        ),
    ),
    in_kernels("float16 is read as float32", "bits and momentum and float16", 'name in ("params", "grad")', 'name in ("params",)'),
    Fault(
        "a strided leaf is taken as dense",
        BITS,
        (
            Edit("compilers/launches.py", "    if len(layouts) > 1:\n        return False\n    (strides,) = layouts\n", ""),
            Edit(
                "compilers/launches.py",
                "    if strides is None or not _dense(shape, strides):\n        return False\n",
                "    return True\n",
            ),
        ),
    ),
    in_launches(
        "a leaf of arrays in other orders is taken as dense",
        "differ_in_layout",
        "        return False\n    (strides,)",
        "        return True\n    (strides,)",
    ),
    in_launches("the old state is written to", BITS, "new = self.fresh(work, plan.layout)", "new = new"),
    in_launches("only the first launch is made", BITS, "\n                    one()", "\n                    one(); break"),
    in_fused("donated memory is not marked", "donated", "fuser", "with giving(work):", "if True:"),
    in_fused(
        "a donated state is known by what it was known by before",
        BITS,
        "fuser",
        "work.renewed(list(work.whole(new)), self.memory.alias)",
        "new",
    ),
    in_fused("memory that overlaps is donated", "overlap", "fuser", "        places.refuse_overlap(work, begin)\n", ""),
    in_kernels("a reversed array begins at its first number", "overlap", "sum(r for r in reach if r < 0)", "0"),
    in_kernels("new params are a copy of the donated ones", "donated", "        return x.view()", "        return x.copy()"),
    in_kernels(
        "kernels run on the current device", "stay_on_the_device and adamw", "return x.device  #", "return super().on(x)  #"
    ),
    in_fused("leaves on two devices are fused", "not_fused and adamw", "fuser", "one_library(work, memory.device)", "pass"),
    in_kernels(
        "the host waits for the device",
        "one_launch and adamw",
        "launches: list[Callable[[], None]] = []",
        'launches: list[Callable[[], None]] = [importlib.import_module("cupy").cuda.Device().synchronize]',
    ),
    in_kernels("a leaf at the bound has its own launch", "one_launch and adamw", "== 1 else SMALL)", "== 1 else SMALL - 1)"),
    in_kernels("a leaf beyond the bound shares a launch", "one_launch and adamw", "== 1 else SMALL)", "== 1 else SMALL + 1)"),
    Fault("sign(NaN) is 0 in a fused step", "nan and lion", (Edit("compilers/c_source.py", "{0} == 0 ? 0 : {0}", "0"),)),
    Fault(
        "the larger of NaN and a number is the number",
        "operations and maximum",
        (Edit("compilers/c_source.py", "> {1} || {0} != {0} ?", "> {1} ?"),),
    ),
    Fault("a number of the text is a float", "rounded_once", (Edit("compilers/c_source.py", 'f"({real}){{!r}}"', '"{!r}f"'),)),
    in_xopt(
        "new arrays are on the current device",
        "stay_on_the_device and adamw",
        "arrays.py",
        'return x.device if "cupy" in sys.modules and is_cupy_array(x) else _HERE',
        "return _HERE",
    ),
    in_xopt(
        "a gradient on another device is taken",
        "another_device and adamw",
        "typed.py",
        "same_shape(x, params) and self._same_devices(x, params)",
        "same_shape(x, params)",
    ),
    in_xopt("Lion's sign waits for the device", "waits and lion", "operations.py", '"array_api_compat.cupy"', '"cupy"'),
]


def finds(fault: Fault) -> str | None:
    """The test that fails first; None where none does."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        for inner, installed in FOLDERS.items():
            links = [path.name for path in (ROOT / inner).iterdir() if path.is_symlink()]  # of an editable install
            shutil.copytree(ROOT / inner, site / installed, ignore=shutil.ignore_patterns(*links))
        for file, text in edited(fault, fault.package).items():
            (site / fault.package.replace(".", "/") / file).write_text(text)
        pytest = sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider"  # -P: the copy, not the working directory
        command = [*pytest, "-x", "-v", "-k", fault.by, str(HERE / "checks")]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=os.environ | {"PYTHONPATH": folder}, capture_output=True, text=True, timeout=LIMIT
            )
        except subprocess.TimeoutExpired:
            return f"no end within {LIMIT} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        last = re.findall(r"::(\S+)", done.stdout)[-1]
        return f"{last} ({signal.Signals(-done.returncode).name})"
    failed = re.search(r"^FAILED \S+?::(\S+)", done.stdout, re.MULTILINE)
    if failed is None:
        sys.exit(f"{fault.name}: the tests do not run\n{done.stdout}{done.stderr}")
    return failed[1]


def main() -> int:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        found = list(threads.map(finds, FAULTS))
    for fault, test in zip(FAULTS, found, strict=True):
        print(f"  {fault.name:66} {test or 'NOT FOUND'}")
    print(f"{len(FAULTS) - found.count(None)} of {len(FAULTS)} planted faults were found")
    return 1 if None in found else 0


if __name__ == "__main__":
    sys.exit(main())
