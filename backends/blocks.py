"""Fused steps without a compiler: the update runs on blocks that stay in the cache, with the same bits."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xopt.backends.fusing import Leaf, Work, mark_donated, one_library, refuse_donated, refuse_read_only, refuse_shared
from xopt.leaves import lifted
from xopt.rule import Rule

BLOCK = 16384
"""Numbers of a block: nine arrays of them in float32 take 0.6 MB of cache."""


def step_in_blocks(rule: Rule[Any, Any], work: Work) -> list[Sequence[Any]]:
    """One step of NumPy arrays of any strides."""
    refuse_donated(work)
    one_library(work, lambda _: "cpu")
    leaves = list(work.leaves())
    if work.donate:
        written = [list(flat([leaf.params, *leaf.slots])) for leaf in leaves]
        for i, arrays in enumerate(written):
            refuse_read_only(work, i, arrays)
        refuse_shared(work, written, np.lib.array_utils.byte_bounds, lambda x: x.strides)
    results = [_leaf(rule, leaf, work.donate) for leaf in leaves]
    if work.donate:
        mark_donated(work.params[0])
        results[0] = [results[0][0].view(), *results[0][1:]]
    return list(zip(*results, strict=True))


def _leaf(rule: Rule[Any, Any], leaf: Leaf, donate: bool) -> list[Any]:
    kind = leaf.kind
    old = [leaf.params, *leaf.slots]
    new = old if donate else [copied(x) for x in old]
    c = leaf.c._make([lifted(x, kind) for x in leaf.c]) if not leaf.plain else leaf.c
    ready = c if kind.numbers is None else c._make([kind.numbers[x] for x in c])
    ready = ready._replace(**{name: getattr(c, name) for name in rule.carried})
    arrays = [*flat(new), leaf.grad]
    for block in blocks_of(arrays, [kind.compute] * len(arrays)):
        remaining = iter(block)
        params, *slots = _filled(new, remaining)
        results = rule.update(params, *slots, next(remaining), ready)
        for slot, x in zip((params, *slots), results, strict=True):
            _store(slot, x)
    carried = {1 + rule.slots.index(name): getattr(c, name) for name in rule.carried}
    return [carried.get(at, x) for at, x in enumerate(new)]


def blocks_of(arrays: Sequence[Any], dtypes: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """One contiguous block after another of arrays of one shape, all but the last to be written to, as arrays of these dtypes.

    Arrays that are narrower, strided or of another byte order are copied block by block, and rounded once on the way back.
    """
    flags: Any = [["readwrite", "contig", "aligned"]] * (len(arrays) - 1) + [["readonly", "contig", "aligned"]]
    with np.nditer(
        list(arrays),
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=flags,
        op_dtypes=list(dtypes),
        casting="same_kind",
        order="K",
        buffersize=BLOCK,
    ) as blocks:
        yield from blocks


def copied(x: Any) -> Any:
    """A new slot like ``x``."""
    if isinstance(x, tuple):
        return tuple(map(copied, x))
    return x if x is None or isinstance(x, float) else np.array(x, order="K", subok=True)


def flat(slots: Sequence[Any]) -> Iterator[Any]:
    """The arrays of a leaf's slots, without what is None or a number."""
    for slot in slots:
        if isinstance(slot, tuple):
            yield from flat(slot)
        elif slot is not None and not isinstance(slot, float):
            yield slot


def _filled(form: Sequence[Any], arrays: Iterator[Any]) -> list[Any]:
    """Slots of the same form with other arrays."""
    filled: list[Any] = []
    for slot in form:
        if isinstance(slot, tuple):
            filled.append(tuple(_filled(slot, arrays)))
        else:
            filled.append(slot if slot is None or isinstance(slot, float) else next(arrays))
    return filled


def _store(slot: Any, new: Any) -> None:
    if isinstance(slot, tuple):
        for one, x in zip(slot, new, strict=True):
            _store(one, x)
    elif slot is not None and not isinstance(slot, float):
        slot[...] = new
