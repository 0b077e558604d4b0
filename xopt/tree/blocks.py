"""The squares of very many numbers of NumPy's, added up block by block: in the order of ``norms``, from and to the cache."""

from xopt.operations import Array, namespace

LARGE = 1 << 17
"""Numbers from which on this pays: their squares alone take half a megabyte."""

ROWS = 64
"""Sums that become one in a block."""


def half_of(n: int) -> int:
    """The largest power of two below n."""
    return 1 << (n - 1).bit_length() - 1


def squares_in_blocks(v: Array, scale: Array | None, width: int) -> Array:
    """The squares of a vector, folded to a ROWS-th of the largest power of two below its length.

    With h that power and m = h / ROWS, the number at i and those at i + m, i + 2 m, ... become one: a block is some of these
    columns. What lies beyond h is added first, as ``norms`` says.
    """
    n = v.shape[0]
    h = half_of(n)
    m = h // ROWS
    head, (full, rest) = v[:h].reshape(ROWS, m), divmod(n - h, m)
    beyond, last = v[h : n - rest].reshape(full, m), v[n - rest :]
    sums = namespace(v).empty_like(v[:m])
    for begin in range(0, m, width):
        end = min(begin + width, m)
        block = _squared(head[:, begin:end], scale)
        if full:
            block[:full] += _squared(beyond[:, begin:end], scale)
        if rest > begin:
            some = _squared(last[begin : min(end, rest)], scale)
            block[full, : some.shape[0]] += some
        rows = ROWS
        while rows > 1:
            rows //= 2
            block[:rows] += block[rows : 2 * rows]
        sums[begin:end] = block[0]
    return sums


def _squared(x: Array, scale: Array | None) -> Array:
    if scale is None:
        return x * x
    x = x * scale
    x *= x
    return x
