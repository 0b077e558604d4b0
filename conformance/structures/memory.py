"""What is in memory around a step: that nothing is written but what is given away, and what cannot be given away."""

import ctypes
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np


class Region(NamedTuple):
    """Where the numbers of an array are."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in bytes
    size: int  # bytes of a number
    writeable: bool
    root: tuple[int, int]  # first byte and one behind the last of the memory that the array is a view of
    read: Callable[[], Any]  # the bytes of that memory, as they are now

    def addresses(self) -> Any:
        """Of every byte, one for each number and byte of it, however often."""
        places = np.zeros((), np.int64)
        for n, stride in zip(self.shape, self.strides, strict=True):
            places = np.add.outer(places, np.arange(n) * stride)
        return np.add.outer(places.ravel(), np.arange(self.size)).ravel() + self.address

    @property
    def empty(self) -> bool:
        return 0 in self.shape

    @property
    def bounds(self) -> tuple[int, int]:
        spans = [(n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)]
        return self.address + sum(x for x in spans if x < 0), self.address + sum(x for x in spans if x > 0) + self.size


def region_of(x: Any) -> Region | None:
    """Of an array of NumPy, CuPy or torch; None of others, which nobody can look into."""
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    if isinstance(x, np.ndarray):
        base = x
        while isinstance(base.base, np.ndarray):
            base = base.base
        address = int(x.__array_interface__["data"][0])
        first, end = map(int, np.lib.array_utils.byte_bounds(np.asarray(base)))
        return Region(address, x.shape, x.strides, x.itemsize, x.flags.writeable, (first, end), partial(_read, first, end))
    if torch is not None and isinstance(x, torch.Tensor) and x.device.type in ("cpu", "cuda") and x.layout is torch.strided:
        storage, size = x.untyped_storage(), x.element_size()
        first, end = storage.data_ptr(), storage.data_ptr() + storage.nbytes()
        strides = tuple(stride * size for stride in x.stride())
        read: Callable[[], Any] = partial(_read, first, end)
        if x.device.type != "cpu":
            whole = torch.tensor([], dtype=torch.uint8, device=x.device).set_(storage)
            read = lambda: whole.cpu().numpy()  # noqa: E731
        return Region(x.data_ptr(), tuple(x.shape), strides, size, True, (first, end), read)
    if cupy is not None and isinstance(x, cupy.ndarray):
        memory = x.data.mem
        whole = cupy.ndarray((memory.size,), np.uint8, cupy.cuda.MemoryPointer(memory, 0))
        root = memory.ptr, memory.ptr + memory.size
        return Region(x.data.ptr, x.shape, x.strides, x.itemsize, True, root, whole.get)
    return None


class Snapshot:
    """The bytes of all memory that some arrays are views of."""

    def __init__(self, arrays: Iterable[Any]) -> None:
        found = [region for region in map(region_of, arrays) if region is not None]
        self._memory = {region.root: region.read for region in found}
        self._bytes = {root: read() for root, read in self._memory.items()}

    def changed(self, given_away: Iterable[Any] = ()) -> bool:
        """Whether a byte outside of the arrays that were given away has changed."""
        written = [region for region in map(region_of, given_away) if region is not None and not region.empty]
        for root, before in self._bytes.items():
            differ = before != self._memory[root]()
            if np.any(differ):
                for region in written:
                    if region.root == root:
                        differ[region.addresses() - root[0]] = False
                if np.any(differ):
                    return True
        return False


def _read(first: int, end: int) -> Any:
    return np.frombuffer(ctypes.string_at(first, end - first), np.uint8)


def cannot_be_given(leaves: list[tuple[list[Any], Any]]) -> str | None:
    """Whether a donated state ``"must"`` be refused, ``"may"`` be, as only the bounds of arrays overlap, or must not: None.

    ``leaves`` are the arrays of each leaf that are written, and its gradient. That may be one of them, as each number is read
    before it is written. Where it is None, the leaf stays as it is.
    """
    found = []  # a region, the leaf, and whether it is only read
    for i, (arrays, grad) in enumerate(leaves):
        regions = [(region_of(x), i, grad is None) for x in arrays] + [(region_of(grad), i, True)]
        found += [(region, i, read) for region, i, read in regions if region is not None]
    answer = None
    open_: list[tuple[Region, int, bool]] = []
    for region, i, read in sorted(found, key=lambda one: one[0].bounds):
        if region.empty or (not read and not region.writeable):
            answer = answer or "may"  # of nothing, nothing is written
            if not region.empty:
                return "must"
            continue
        places = region.addresses()
        if not read and len(np.unique(places)) < len(places):
            return "must"
        open_ = [one for one in open_ if one[0].bounds[1] > region.bounds[0]]
        for other, j, only in open_:
            if read and only:
                continue
            if i == j and (read or only) and region[:4] == other[:4]:
                alike = {one[0].strides for one in found if one[1] == i}
                answer = answer or ("may" if len(alike) > 1 else None)
            elif np.intersect1d(places, other.addresses()).size:
                return "must"
            else:
                answer = "may"
        open_.append((region, i, read))
    return answer
