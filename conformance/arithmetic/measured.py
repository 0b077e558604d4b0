"""The formats of a backend's arithmetic, as the probes measured it."""

from dataclasses import replace

from xopt.conformance.arithmetic.formats import ARITHMETICS, FLOAT_FORMATS, FloatFormat
from xopt.conformance.arithmetic.probes import Probes

CORRECTLY_ROUNDED = ("numba", "blocks", "triton")
"""Compilers that compute as NumPy does, on whatever library's arrays."""


def measured_formats(probes: Probes, mode: str, compiler: str | None) -> dict[str, FloatFormat]:
    """By the dtype of the arithmetic: the formats in which a mode computes, where ``compiler`` fuses steps."""
    if mode == "fused" and compiler in CORRECTLY_ROUNDED:
        return {dtype: FLOAT_FORMATS[dtype] for dtype in ARITHMETICS}
    compiled = mode == "traced" or (mode == "fused" and compiler == probes.tracer)
    return {dtype: _measured(probes, dtype, compiled) for dtype in ARITHMETICS}


def _measured(probes: Probes, dtype: str, compiled: bool) -> FloatFormat:
    ulps = {name: error for name, error in probes.primitive_ulps(dtype, compiled).items() if error > 0.5}
    return replace(FLOAT_FORMATS[dtype], flushes=probes.flushes(dtype, compiled), ulps=ulps)
