"""The arguments of every check: where a rule is stepped, how far to look, and the rules and goldens under test."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xopt.conformance.arithmetic.formats import ARITHMETICS, FLOAT_FORMATS, FloatFormat, arithmetic_of
from xopt.conformance.golden import GOLDENS, Golden
from xopt.rule import Rule
from xopt.rules import RULES


@dataclass(frozen=True)
class Target:
    """A backend on one device, in one mode, and the formats that it computes in."""

    backend: str  # by name
    device: str
    mode: str  # one of ``results.MODES``
    formats: Mapping[str, FloatFormat] = field(default_factory=lambda: {name: FLOAT_FORMATS[name] for name in ARITHMETICS})
    """By the dtype of the arithmetic, as the probes measured them. Default: correct rounding, subnormal numbers kept."""
    fallback: Mapping[str, FloatFormat] | None = None
    """Those of the plain step, which a fused one falls back to. Default: the same."""

    def compute(self, dtype: str, mode: str | None = None) -> FloatFormat:
        """The format of the arithmetic where the parameters have this dtype; ``mode`` is the one that was taken in the end."""
        formats = self.formats if mode in (None, self.mode) else self.fallback or self.formats
        return formats[arithmetic_of(dtype)]


@dataclass(frozen=True)
class Effort:
    """How far a check looks."""

    examples: int  # that Hypothesis draws
    seed: int = 0
    pool: int = 32  # settings of the hyperparameters that the comparison with the golden draws from
    shrink: bool = True  # report the smallest input that is wrong; else the first


class Implementations(NamedTuple):
    """The rules and the goldens that are held against each other."""

    rules: Mapping[str, Rule[Any, Any]] = RULES
    goldens: Mapping[str, Golden] = GOLDENS


OURS = Implementations()
"""Those of xopt. Any other has a fault planted in it."""
