"""A recorded program as text that C and CUDA C++ read alike: the step of one number of each array."""

from xopt.backends.base import COMPUTE
from xopt.program import COMPARISONS, INFIX, Program

TYPES = {"float16": "float16", "float32": "float", "float64": "double"}
"""What the dtypes are called. CuPy brings a ``float16`` with casts from and to float; elsewhere it is a typedef."""


def body(program: Program, dtype: str, load: str, store: str) -> str:
    """The step of one number, for params of ``dtype``: loads, one operation a line, so that the text orders them, and stores.

    All loads come before the first store, so that the new numbers may be written over the old ones.

    Parameters
    ----------
    load, store
        What stands for the old number of an array, and the new one: a format that gets the array's name, such as ``"*from_{}"``.
    """
    real = TYPES[COMPUTE[dtype]]
    own = {"params": TYPES[dtype], "grad": TYPES[dtype]}
    lines = [f"const {real} {name} = ({real}){load.format(name)};" for name in program.reads]
    # a cast, as 0.1f is the float nearest to the decimal number, not to the double that NumPy rounds
    operations = program.lines(_operations(real), f"({real}){{!r}}")
    for (_, name, _), line in zip(program.operations, operations, strict=True):
        lines.append(f"const {'int' if name in COMPARISONS else real} {line};")
    lines += [f"{store.format(name)} = ({own.get(name, real)}){value};" for name, value in program.writes.items()]
    return "\n".join(lines)


def _operations(real: str) -> dict[str, str]:
    """The operations in C, as NumPy computes them; the functions of float end in f."""
    f = "f" if real == "float" else ""
    return INFIX | {
        "sqrt": f"sqrt{f}({{0}})",
        "abs": f"fabs{f}({{0}})",
        "sign": "{0} > 0 ? 1 : {0} < 0 ? -1 : {0} == 0 ? 0 : {0}",
        "maximum": "{0} > {1} || {0} != {0} ? {0} : {1}",
        "minimum": "{0} < {1} || {0} != {0} ? {0} : {1}",
        "where": "{0} ? {1} : {2}",
    }
