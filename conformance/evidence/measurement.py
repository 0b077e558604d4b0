"""The digest of a rule on a device: of the bits that come of fixed inputs, held against NumPy's."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from xopt import backends
from xopt.backends import Backend
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, FloatFormat
from xopt.conformance.compare.candidate import BFloat16OnNumPy, Candidate
from xopt.conformance.compare.reference import Reference
from xopt.conformance.digests.runs import SHAPES, SIZE, hashed, inputs, runs
from xopt.rules import RULES


def digest(rule: str, backend: Backend, dtype: str, mode: str) -> str:
    """The digest of a rule on a backend: of its params and slots after every step from fixed inputs."""
    return hashed(runs(Candidate(RULES[rule], backend, dtype, mode, SHAPES), dtype))


@cache
def numpy_digest(rule: str, dtype: str) -> str:
    """The digest that a bit-identical cell must have: NumPy's own, computed here and now."""
    return hashed(runs(_on_numpy(rule, dtype), dtype))


def _on_numpy(rule: str, dtype: str) -> Candidate:
    numpy = backends.get("numpy")
    if dtype == "bfloat16":
        return BFloat16OnNumPy(RULES[rule], numpy, SHAPES)
    return Candidate(RULES[rule], numpy, dtype, "eager", SHAPES)


LOOKED_AT = 64


def differences(candidate: Candidate, dtype: str, compute: FloatFormat) -> tuple[int, float]:
    """How many elements of the digest's runs do not have NumPy's bits, and the largest error/bound of a step of the first 64."""
    grads = inputs(dtype)[1]
    count, largest = 0, 0.0
    for (hyper, ours), base in zip(runs(candidate, dtype), runs(_on_numpy(candidate.rule.name, dtype), dtype), strict=True):
        differ = np.zeros(SIZE, dtype=bool)
        for a, b in _pairs(tuple(ours), tuple(base.states)):
            differ |= a != b
        at = np.flatnonzero(differ)
        count += len(at)
        if not len(at):
            continue
        reference = Reference(candidate.rule, hyper, compute, FLOAT_FORMATS[dtype], candidate.traced)
        columns = [_picked(state, at[:LOOKED_AT]) for state in ours]
        for t, grad in enumerate(grads, start=1):
            reference.restart(columns[t - 1])
            for found in reference.step(grad[at[:LOOKED_AT]], t, columns[t]):
                largest = max(largest, float(np.max(np.nan_to_num(found.ratio, posinf=np.inf))))
    return count, largest


def _pairs(one: Any, other: Any) -> Iterator[tuple[Any, Any]]:
    """The parts of two states that are numbers or vectors, side by side."""
    if isinstance(one, tuple):
        for a, b in zip(one, other, strict=True):
            yield from _pairs(a, b)
    elif one is not None:
        yield one, other


def _picked(column: Any, at: Any) -> Any:
    if isinstance(column, tuple):
        return tuple(_picked(part, at) for part in column)
    return column[at] if np.ndim(column) else column
