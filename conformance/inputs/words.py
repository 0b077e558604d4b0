"""Bytes that Hypothesis draws, as choices and as numbers of a dtype."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from xopt.conformance.arithmetic.formats import round_to

CHOICES = 64
"""Bytes of an example that choose everything but its numbers: setting, count, steps, groups."""


class Choices:
    """Choices made with bytes, one after another; without bytes left each choice is the first option, to which Hypothesis shrinks.

    All of an example is drawn as one value: of examples that draw many, Hypothesis spends most on copies of one part into another.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data

    def below(self, n: int) -> int:
        """A number from 0 to ``n - 1``, all of them as good as equally likely."""
        width = (n.bit_length() + 15) // 8
        part, self._data = self._data[:width].ljust(width, b"\0"), self._data[width:]
        return int.from_bytes(part, "big") * n >> 8 * width

    def pick(self, options: Sequence[Any]) -> Any:
        return options[self.below(len(options))]


def drawn(vectors: int, size: int) -> st.SearchStrategy[tuple[Choices, Any]]:
    """Choices, and vectors of 16-bit words, of one length, which Hypothesis varies better."""
    length = CHOICES + 2 * vectors * size

    def split(data: bytes) -> tuple[Choices, Any]:
        return Choices(data[:CHOICES]), np.frombuffer(data, "<u2", offset=CHOICES).reshape(vectors, size)

    return st.binary(min_size=length, max_size=length).map(split)


def decode(words: Any, dtype: str, exponents: tuple[int, int]) -> Any:
    """Words as numbers that ``dtype`` holds: an eighth zeros, an eighth powers of two, the rest with all digits.

    Half of the exponents are within 2**-10 ... 2**4, where the terms of an update meet; half anywhere in the given range.
    """
    words = words.astype(np.uint64)
    kind = words & 7
    sign = np.where(words >> 3 & 1, -1.0, 1.0)
    low, high = (max(exponents[0], -10), min(exponents[1], 4)), exponents
    spread = (words >> 5 & 255).astype(np.float64) / 255
    wide = (words >> 4 & 1).astype(bool)
    exponent = np.where(wide, high[0] + spread * (high[1] - high[0]), low[0] + spread * (low[1] - low[0]))
    mixed = (words * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(12)  # 52 digits that depend on every bit of the word
    mantissa = np.where(kind == 1, 1.0, 1.0 + mixed.astype(np.float64) * 2.0**-52)
    return round_to(np.where(kind == 0, 0.0, sign * np.ldexp(mantissa, exponent.astype(np.int64))), dtype)
