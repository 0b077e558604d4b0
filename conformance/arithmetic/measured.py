"""The formats of a backend's arithmetic, as the probes measured it."""

from dataclasses import replace

from xopt.conformance.arithmetic.formats import FORMATS, Format
from xopt.conformance.arithmetic.probes import Probes
from xopt.conformance.report.report import BackendReport
from xopt.conformance.results import MODES

EXACT = ("numba", "blocks", "triton")
"""Compilers that compute as NumPy does, on whatever library's arrays."""


def formats_of(found: list[BackendReport]) -> dict[tuple[str, str, str, str], Format]:
    """The formats of the arithmetic as the probes measured them."""
    formats = {}
    for backend in found:
        if backend.reason is None:
            probes = Probes.from_dict(backend.probes)
            for name in ("float32", "float64"):
                for mode in MODES:
                    if mode == "fused" and backend.compiler in EXACT:
                        formats[backend.name, backend.device, name, mode] = FORMATS[name]
                        continue
                    compiled = mode == "traced" or (mode == "fused" and backend.compiler == backend.tracer)
                    ulps = {k: v for k, v in probes.primitive_ulps(name, compiled).items() if v > 0.5}
                    measured = replace(FORMATS[name], flushes=probes.flushes(name, compiled), ulps=ulps)
                    formats[backend.name, backend.device, name, mode] = measured
    return formats
