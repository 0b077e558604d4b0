"""Fused steps without a compiler: the update runs on blocks that stay in the cache, with the same bits."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xopt.backends.fused.compiled import filled
from xopt.backends.fused.fuser import Fuser, Launch
from xopt.backends.fused.work import TypedLeaf, Work
from xopt.rule import Rule

BLOCK = 16384
"""Numbers of a block: nine arrays of them in float32 take 0.6 MB of cache."""


def look(x: Any) -> tuple[int, int, tuple[int, ...], int]:
    """The first address of a NumPy array and the one behind its last, its strides, and the bytes of a number."""
    return *np.lib.array_utils.byte_bounds(x), x.strides, x.itemsize


class BlocksFuser(Fuser):
    """Steps NumPy arrays of any strides."""

    def prepare(self, work: Work) -> Launch:
        leaves = self.leaves(work)

        def launch() -> list[Sequence[Any]]:
            new = [leaf.arrays if work.donate else [np.array(x, order="K") for x in leaf.arrays] for leaf in leaves]
            with np.errstate(all="ignore"):
                for leaf, arrays in zip(leaves, new, strict=True):
                    _step(self.rule, leaf, arrays)
            return self.state(leaves, new)

        return launch


def _step(rule: Rule[Any, Any], leaf: TypedLeaf, arrays: list[Any]) -> None:
    """Steps the arrays of a leaf in place."""
    typed = leaf.typed
    c = leaf.c if leaf.plain else leaf.c._make([typed.lifted(x) for x in leaf.c])
    ready = c if typed.numbers is None else c._make([typed.numbers[x] for x in c])
    ready = ready._replace(**{name: getattr(c, name) for name in rule.carried})
    form = [leaf.params, *leaf.slots]
    for block in blocks_of([*arrays, leaf.grad], [typed.compute] * (len(arrays) + 1)):
        *old, grad = block
        results = rule.elementwise(*filled(leaf, old), grad, ready)
        for x, new in zip(old, rule.schema.arrays(results, form), strict=True):
            x[...] = new


def blocks_of(arrays: Sequence[Any], dtypes: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """One contiguous block after another of arrays of one shape, all but the last to be written to, as arrays of these dtypes.

    Arrays that are narrower, strided or of another byte order are copied block by block, and rounded once on the way back.
    """
    flags: Any = [["readwrite", "contig", "aligned"]] * (len(arrays) - 1) + [["readonly", "contig", "aligned"]]
    with np.nditer(
        [x if x.ndim else x[None] for x in arrays],  # of buffered arrays without dimensions NumPy 2.0 to 2.2 read nothing
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=flags,
        op_dtypes=list(dtypes),
        casting="same_kind",
        order="K",
        buffersize=BLOCK,
    ) as blocks:
        yield from blocks
