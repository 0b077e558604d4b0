"""That the two edits of a convention say the same: the edited rule follows the edited golden, and the right one does not."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from xopt import backends
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS
from xopt.conformance.compare.candidate import Candidate
from xopt.conformance.compare.reference import Reference
from xopt.conformance.conventions import Convention
from xopt.conformance.digests.runs import other_setting
from xopt.conformance.faults.fault import fault_of
from xopt.conformance.faults.planting import plant
from xopt.conformance.golden import GOLDENS, Golden
from xopt.conformance.inputs.hyperparameters import settings
from xopt.rule import Rule
from xopt.rules import RULES

_SIZE, _STEPS = 12, 7  # more steps than a warm-up of ``other_setting`` has
_DRAWN = 3


class Agreement(NamedTuple):
    """What a few trajectories show of a convention, in errors as shares of their bound; infinite where there is none to compare."""

    edited: float  # the edited rule and the edited golden: at most 1 where they say the same
    right: float  # the right rule and the edited golden: above 1 where that is another formula, as other slots and defaults are
    defaults: bool  # whether the edited rule and the edited golden have the same defaults

    def __bool__(self) -> bool:
        return self.edited <= 1 and self.defaults


def agreement(convention: Convention) -> Agreement:
    """Compares both edits of a convention."""
    planted = plant(fault_of(convention, "both"))
    rule, golden, own = planted.rules[convention.rule], planted.goldens[convention.rule], GOLDENS[convention.rule]
    other = golden.slots != own.slots or golden.defaults != own.defaults
    right = math.inf if other else _largest(RULES[convention.rule], golden, convention)
    return Agreement(_largest(rule, golden, convention), right, rule.defaults == golden.defaults)


def _largest(rule: Rule[Any, Any], golden: Golden, convention: Convention) -> float:
    """The largest error over its bound, step by step and as a whole; infinite where most numbers have no bound."""
    found = [_ratios(rule, golden, hyper, convention.after, i) for i, hyper in enumerate(_hypers(convention))]
    ratios = np.concatenate([ratio for some in found for ratio in some])
    return math.inf if np.mean(np.isnan(ratios)) > 0.5 else float(np.nanmax(ratios))


def _hypers(convention: Convention) -> Iterator[dict[str, Any]]:
    """Hyperparameters with which it may show: no decay is 0, as that leaves a slot of xopt's out, and not one of the formula."""
    rule = RULES[convention.rule]
    drawn = settings(rule, 0, 40, borders=False)
    memory = [hyper for hyper in drawn[1:] if all(np.all(hyper.get(decay, 1)) for decay in rule.memory.values())]
    for hyper in ({}, other_setting(rule), *memory[:_DRAWN]):
        yield hyper | dict(convention.at)


def _ratios(rule: Rule[Any, Any], golden: Golden, hyper: dict[str, Any], taken: int, seed: int) -> Iterator[Any]:
    draw = np.random.default_rng([seed, taken])
    params, *grads = draw.standard_normal((_STEPS + 1, _SIZE)) * 2.0 ** draw.integers(-4, 5, (_STEPS + 1, _SIZE))
    grads = [np.where(draw.random(_SIZE) < 0.2, 0.0, grad) for grad in grads]
    params, *grads = (x.astype(np.float32).astype(np.float64) for x in (params, *grads))
    candidate = Candidate(rule, backends.get("numpy"), "float32", "eager", {"x": (_SIZE,)})
    whole, local = (Reference(rule, hyper, FLOAT_FORMATS["float32"], FLOAT_FORMATS["float32"], False, golden) for _ in range(2))
    with np.errstate(all="ignore"):
        candidate.start(params, hyper, taken)
        whole.restart(candidate.columns(["x"]))
        for t, grad in enumerate(grads, start=taken + 1):
            local.restart(candidate.columns(["x"]))
            candidate.step(grad)
            after = candidate.columns(["x"])
            for comparison in (*whole.step(grad, t, after), *local.step(grad, t, after)):
                yield np.ravel(comparison.ratio)
