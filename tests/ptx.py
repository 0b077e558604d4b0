"""What a listing in PTX tells a GPU to do with floating-point numbers."""

import re

INSTRUCTION = re.compile(r"^[\s{]*(?:@!?%p\d+\s+)?([a-z][\w.]*)", re.MULTILINE)
FLOAT = re.compile(r"b?f\d+(x2)?")
EXACT = {"ld", "st", "mov", "selp", "setp", "abs", "neg", "copysign"}
ROUNDED = {"add", "sub", "mul", "div", "sqrt"}
WIDER = {("f32", "f16"), ("f64", "f16"), ("f64", "f32")}


def doubts(text: str) -> list[str]:
    """The instructions of a kernel that do not, or may not, give the number nearest to the exact result."""
    found, loose = [], set()
    for instruction in INSTRUCTION.findall(text):
        name, *how = instruction.split(".")
        kinds = tuple(word for word in how if FLOAT.fullmatch(word))
        if name == "call":
            found.append(instruction)
        if not kinds or name in EXACT or (name == "cvt" and ("rn" in how or kinds in WIDER)):
            continue
        if name not in ROUNDED or {"approx", "full", "rz", "rm", "rp"} & {*how}:
            found.append(instruction)
        elif "rn" not in how:
            loose.add(instruction)
    names = {one.partition(".")[0] for one in loose}
    # what does not say how it rounds may be contracted: but a product alone cannot, nor a sum
    return found + sorted(loose if names & {"div", "sqrt"} or ("mul" in names and len(names) > 1) else ())
