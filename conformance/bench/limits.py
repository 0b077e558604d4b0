"""What no step can beat in practice: a kernel that only reads and writes the same arrays, and a plain copy."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from xopt import backends
from xopt.backends.compilers.numba_kernels import FORMATS, Kernel
from xopt.backends.compilers.tables import starts_of
from xopt.backends.compilers.threads import PARALLEL
from xopt.conformance.bench.contender import LIMIT, Contender, Running, loop_of, missing, no_device, numbers, program_of
from xopt.conformance.bench.shapes import Shape
from xopt.conformance.workers import cores
from xopt.program import Operation, Program

SCALE = 1e-8
"""How much of the gradient the touch kernel adds to each array: never so little that the numbers become subnormal."""


def touching(program: Program) -> Program:
    """A program that reads and writes the arrays of another one, with next to no arithmetic."""
    sums = {name: f"t{i}" for i, name in enumerate(program.writes, start=1)}
    operations = Operation("t0", "multiply", ("c_scale", "grad")), *(Operation(t, "add", (x, "t0")) for x, t in sums.items())
    return Program(f"touch_{program.rule}", program.arrays, ("c_scale",), operations, sums, {})


def touch(rule: str) -> Contender:
    """Through the kernels of the fused steps, without the checks around them."""
    program = program_of(rule)

    def prepare(shapes: Sequence[Shape], seed: int) -> Running:
        params, grads = numbers(shapes, seed)
        kept = [[x, *(np.zeros_like(x) for _ in program.arrays[2:]), grad] for x, grad in zip(params, grads, strict=True)]
        kernel = Kernel(touching(program), next(one for one in FORMATS if one.name == "float32"))
        addresses = np.array([[x.__array_interface__["data"][0] for x in arrays] for arrays in kept], np.int64)
        starts = starts_of([x.size for x in params])
        rows, scale = np.zeros(len(params), np.int64), np.array([[SCALE]], np.float32)

        def renew(fresh: list[Any]) -> None:
            for arrays, grad in zip(kept, fresh, strict=True):
                arrays[-1] = grad
            addresses[:, -1] = [grad.__array_interface__["data"][0] for grad in fresh]

        between = loop_of(backends.get("numpy"), grads, renew)
        return Running(
            lambda: kernel(addresses, starts, scale, rows), lambda: None, lambda: [arrays[0] for arrays in kept], between
        )

    moved = program.bytes_per_number(4, 4)
    return Contender("touch", "numba", "cpu", LIMIT, rule, moved, len(program.arrays), lambda: missing("numba"), prepare)


def copy() -> Contender:
    """``numpy.copyto`` in as many threads as there are cores."""

    def prepare(shapes: Sequence[Shape], seed: int) -> Running:
        source = np.concatenate([x.ravel() for x in numbers(shapes, seed)[0]])
        target = np.zeros_like(source)
        parts = cores() if source.size >= PARALLEL else 1
        pairs = list(zip(np.array_split(target, parts), np.array_split(source, parts), strict=True))
        pool = ThreadPoolExecutor(parts)

        def step() -> None:
            waiting = [pool.submit(np.copyto, *pair) for pair in pairs[1:]]
            np.copyto(*pairs[0])
            for one in waiting:
                one.result()

        return Running(step, lambda: None, lambda: [target])

    return Contender("copy", "numpy", "cpu", LIMIT, "copy", 8, 2, lambda: None, prepare)


def copy_on(name: str, device: str) -> Contender:
    """An assignment of one array to another, on a device."""

    def prepare(shapes: Sequence[Shape], seed: int) -> Running:
        backend = backends.get(name, device)
        source = [backend.asarray(x, "float32") for x in numbers(shapes, seed)[0]]
        target = [backend.xp.zeros_like(x) for x in source]

        def step() -> None:
            for to, of in zip(target, source, strict=True):
                to[...] = of

        return Running(step, lambda: backend.synchronise(target[0]), lambda: [backend.to_numpy(x) for x in target])

    return Contender(f"copy {name} {device}", name, device, LIMIT, "copy", 8, 2, lambda: no_device(name, device), prepare)
