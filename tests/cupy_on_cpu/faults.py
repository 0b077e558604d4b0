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
    return Fault(name, by, (Edit("cupy_kernels.py", old, new),))


def in_launches(name: str, by: str, old: str, new: str) -> Fault:
    return Fault(name, by, (Edit("launches.py", old, new),))


def in_xopt(name: str, by: str, file: str, old: str, new: str) -> Fault:
    return Fault(name, by, (Edit(file, old, new),), "xopt")


BITS = "bits and adamw and float32"

FAULTS = [
    in_kernels("a multiplication and an addition contract", BITS, '("--fmad=false",)', '("--fmad=true",)'),
    in_kernels("small leaves share the first one's coefficients", BITS, "rows.append(row)", "rows.append(0)"),
    in_kernels(
        "strided leaves share the first one's coefficients", BITS, "one, leaf, coefficients[row]", "one, leaf, coefficients[0]"
    ),
    in_kernels(
        "large leaves share the first one's coefficients", BITS, "dense, leaf, coefficients[row]", "dense, leaf, coefficients[0]"
    ),
    in_kernels(
        "the last numbers of a large leaf are not stepped",
        BITS,
        "-(-leaf.old[0].size // (2 * APART))",
        "leaf.old[0].size // (2 * APART)",
    ),
    in_kernels("a thread steps its first number twice", BITS, "old_{}[_k]", "old_{}[0]"),
    in_kernels("a large leaf has numbers beyond its last", BITS, "_at < to_params.size()", "true"),
    in_kernels("a large leaf is taken in the order of its indices", BITS, "(x if x.flags.c_contiguous else x.T)", "x"),
    in_kernels("a lone small leaf has the first one's coefficients", "lone and adamw", "coefficients[rows[0]]", "coefficients[0]"),
    in_launches("leaves with other coefficients share a cell", BITS, "(kernels, id(leaves[i].c))", "(kernels, None)"),
    in_launches("a cell has the first leaf's coefficients", BITS, "leaves[indices[0]].c", "leaves[0].c"),
    in_launches("a cell has the first leaves' arrays", BITS, "[arrays[i] for i in indices]", "arrays[: len(indices)]"),
    in_kernels("the rows of the table are too narrow", BITS, "width, coefficients = 2 + len", "width, coefficients = 1 + len"),
    in_kernels("the first number of a leaf goes to the one before", BITS, "{width}] <= i)", "{width}] < i)"),
    in_kernels(
        "the addresses of what is read and of what is written are swapped",
        BITS,
        "*(leaf.old[at].data.ptr for at in self._reads), *(x.data.ptr for x in leaf.new)]",
        "*(x.data.ptr for x in leaf.new), *(leaf.old[at].data.ptr for at in self._reads)]",
    ),
    in_kernels("arguments are swapped", BITS, "(leaf.old[at] for at in self._reads)", "(leaf.old[at] for at in self._reads[::-1])"),
    in_kernels(
        "arguments of a large leaf are swapped",
        BITS,
        "(leaf.old[at]) for at in self._reads)",
        "(leaf.old[at]) for at in self._reads[::-1])",
    ),
    Fault(
        "a coefficient is not rounded to float32",
        BITS,
        (
            Edit("cupy_kernels.py", "[self._real(float(c[i]))", "[float(c[i])"),
            Edit("cupy_kernels.py", '[f"{COMPUTE[dtype]} {program', '[f"float64 {program'),
        ),
    ),
    in_kernels("float16 is read as float32", "bits and momentum and float16", 'name in ("params", "grad")', 'name in ("params",)'),
    in_kernels("a strided leaf is taken as dense", BITS, "return all(x.flags.c_contiguous for x in arrays) or", "return True or"),
    in_kernels(
        "a leaf whose arrays differ in their order is taken as dense",
        "differ_in_layout",
        "all(x.flags.c_contiguous for x in arrays) or all(x.flags.f_contiguous for x in arrays)",
        "all(x.flags.c_contiguous or x.flags.f_contiguous for x in arrays)",
    ),
    in_launches("the old state is written to", BITS, "[list(map(self.empty_like, leaf.arrays))", "[list(leaf.arrays)"),
    in_launches("only the first launch is made", BITS, "\n                    launch()", "\n                    launch(); break"),
    in_launches("donated memory is not marked", "donated", "giving(work) if work.donate else nullcontext()", "nullcontext()"),
    in_launches("a donated state is known by what it was known by before", BITS, "work.renewed(columns, self.alias)", "columns"),
    in_launches("memory that overlaps is donated", "overlap", "        places.refuse_overlap(work)\n", ""),
    in_kernels("a reversed array begins at its first number", "overlap", "sum(r for r in reach if r < 0)", "0"),
    in_kernels("new params are a copy of the donated ones", "donated", "        return x.view()", "        return x.copy()"),
    in_launches(
        "kernels run on the current device", "stay_on_the_device and adamw", "with self.on(work.params[0]):", "with nullcontext():"
    ),
    in_launches("leaves on two devices are fused", "not_fused and adamw", "one_library(work, self.device)", "pass"),
    in_kernels(
        "the host waits for the device",
        "one_launch and adamw",
        "launches: list[Launch] = []",
        'launches: list[Launch] = [importlib.import_module("cupy").cuda.Device().synchronize]',
    ),
    in_kernels("a leaf at the bound has its own launch", "one_launch and adamw", ".size > SMALL", ".size >= SMALL"),
    in_kernels("a leaf beyond the bound shares a launch", "one_launch and adamw", ".size > SMALL", ".size > SMALL + 1"),
    Fault("sign(NaN) is 0 in a fused step", "nan and lion", (Edit("c_source.py", "{0} == 0 ? 0 : {0}", "0"),)),
    Fault(
        "the larger of NaN and a number is the number",
        "operations and maximum",
        (Edit("c_source.py", "> {1} || {0} != {0} ?", "> {1} ?"),),
    ),
    Fault("a number of the text is a float", "rounded_once", (Edit("c_source.py", 'f"({real}){{!r}}"', '"{!r}f"'),)),
    in_xopt(
        "new arrays are on the current device",
        "stay_on_the_device and adamw",
        "typed.py",
        "nullcontext() if self.current is None else x.device",
        "nullcontext()",
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
            shutil.copytree(ROOT / inner, site / installed)
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
