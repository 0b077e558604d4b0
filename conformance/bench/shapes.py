"""The parameters that are stepped: one leaf of any size, a real network, many small leaves."""

import math
import re
from typing import NamedTuple

Shape = tuple[int, ...]


class Size(NamedTuple):
    name: str
    shapes: tuple[Shape, ...]

    @property
    def leaves(self) -> int:
        return len(self.shapes)

    @property
    def numbers(self) -> int:
        return sum(map(math.prod, self.shapes))


def resnet50() -> tuple[Shape, ...]:
    """The parameters of torchvision's ResNet-50, in its order."""

    def convolution(out: int, into: int, kernel: int) -> list[Shape]:
        return [(out, into, kernel, kernel), (out,), (out,)]  # with its batch normalisation

    shapes, into = convolution(64, 3, 7), 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            out = 4 * width
            shapes += convolution(width, into, 1) + convolution(width, width, 3) + convolution(out, width, 1)
            if block == 0:
                shapes += convolution(out, into, 1)  # the short cut
            into = out
    return (*shapes, (1000, into), (1000,))


def one_leaf(numbers: int) -> Size:
    power = round(math.log10(numbers))
    two = numbers.bit_length() - 1
    if numbers == 10**power and power >= 3:
        return Size(f"10^{power}", ((numbers,),))
    return Size(f"2^{two}" if numbers == 2**two and two >= 10 else str(numbers), ((numbers,),))


TREES = {"resnet50": Size("resnet50", resnet50()), "1000x1000": Size("1000x1000", ((1000,),) * 1000)}

LADDER = tuple(one_leaf(10**power) for power in (1, 3, 5, 6, 7))
"""What is stepped unless asked otherwise."""


def size_of(text: str) -> Size:
    """A size by name: ``1000``, ``1e6``, ``2^28``, ``resnet50``, or ``8x64x64`` for eight leaves of 64 x 64.

    Raises ValueError for what is none.
    """
    if text in TREES:
        return TREES[text]
    if re.fullmatch(r"[1-9][0-9]{0,4}(x[1-9][0-9]{0,6}){1,4}", text):
        count, *shape = map(int, text.split("x"))
        if count * math.prod(shape) < 1 << 40:
            return Size(text, (tuple(shape),) * count)
    found = re.fullmatch(r"([0-9]{1,12})(?:(e|\^)([0-9]{1,2}))?", text)
    if found:
        number, how, power = found.groups()
        count = int(number) if how is None else int(number) * 10 ** int(power) if how == "e" else int(number) ** int(power)
        if 1 <= count < 1 << 40:
            return one_leaf(count)
    msg = f"unknown size {text!r}; a size is a number from 1 on such as 1000, 1e6 or 2^28, leaves such as 8x64x64, or resnet50"
    raise ValueError(msg)
