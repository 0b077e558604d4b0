"""Numbers as text that no parser rounds: the bits in hexadecimal, behind the name of their format."""

import struct
from typing import Any

import numpy as np

from xopt.conformance.arithmetic.formats import round_to

SHORT = {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}
"""The name of each format, as it stands before the colon."""

LONG = {short: name for name, short in SHORT.items()}
_CODES = {"f64": ("<d", "<Q", 16), "f32": ("<f", "<I", 8), "f16": ("<e", "<H", 4)}
_NAN = {"f64": 0x7FF8000000000000, "f32": 0x7FC00000, "f16": 0x7E00, "bf16": 0x7FC0}


def bits(x: float, dtype: str) -> int:
    """The bits of a number that the format holds. All NaN are one."""
    short = SHORT[dtype]
    if x != x:
        return _NAN[short]
    if short == "bf16":
        whole: int = struct.unpack("<I", struct.pack("<f", x))[0]
        return whole >> 16
    floating, integer, _ = _CODES[short]
    found: int = struct.unpack(integer, struct.pack(floating, x))[0]
    return found


def text(x: float, dtype: str) -> str:
    """``f32:3f800000`` of 1 in float32."""
    return f"{SHORT[dtype]}:{bits(x, dtype):0{4 if dtype == 'bfloat16' else _CODES[SHORT[dtype]][2]}x}"


def number(given: str) -> float:
    """The number that a text is, as a float."""
    short, _, digits = given.partition(":")
    if short == "bf16":
        short, digits = "f32", f"{digits}0000"
    floating, integer, _ = _CODES[short]
    found: float = struct.unpack(floating, struct.pack(integer, int(digits, 16)))[0]
    return found


def stored(x: Any, dtype: str) -> float:
    """A number of the arithmetic as params of a dtype hold it."""
    with np.errstate(over="ignore"):
        return float(round_to(np.asarray(x, np.float64), dtype)) if dtype != "float64" else float(x)
