"""Floating-point arithmetic: its formats, numbers that carry an error bound, and what the probes measure of a backend."""
