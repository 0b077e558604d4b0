"""The benchmark, ``xopt bench``: what a step costs, eager and fused, beside the limits of the machine and other optimizers."""

from xopt.conformance.bench.by_hand import BY_HAND, Overhead, overhead
from xopt.conformance.bench.suite import BenchEvents, bench

__all__ = ["BY_HAND", "BenchEvents", "Overhead", "bench", "overhead"]
