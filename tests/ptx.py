"""What a listing in PTX tells a GPU to do with floating-point numbers, and what of it rounds otherwise than to nearest."""

import re
from collections import Counter

FLOAT = re.compile(r"^\s*(?:@!?%p\d+\s+)?([a-z][a-z0-9]*(?:\.[a-z0-9]+)*)\s", re.MULTILINE)
EXACT = re.compile(r"(abs|neg|mov|ld|st|selp|setp|set|min|max|copysign|testp|slct)\.")
ROUNDED = re.compile(r"(add|sub|mul|div|sqrt)\.rn\.f(32|64)$")
CONVERTED = re.compile(r"cvt\.(rn\.)?(f64\.f32|f32\.f16)$|cvt\.rn\.(f16|f32|f16x2)\.f(32|64)$|cvt\.rn\.f(32|64)\.[su](32|64)$")


def instructions(ptx: str) -> Counter[str]:
    """Those that have a floating-point type, and how often they stand there."""
    found = FLOAT.findall(ptx)
    return Counter(x for x in found if re.search(r"\.b?f(16|32|64)(x2)?(\.|$)", x) and not x.startswith("param"))


def not_to_nearest(ptx: str) -> list[str]:
    """Instructions that fuse, approximate, flush subnormal numbers, or leave the rounding open."""
    return [
        x for x in instructions(ptx) if not (EXACT.match(x) and ".ftz" not in x) and not ROUNDED.match(x) and not CONVERTED.match(x)
    ]
