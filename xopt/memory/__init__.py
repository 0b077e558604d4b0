"""How long a rule remembers: what old gradients weigh in a step, how steps follow gradients that change, and what that costs.

    from xopt import ademamix, memory

    slow = memory.of(ademamix, beta3=0.9999, alpha=8.0)
    slow.mean_age(), slow.half_mass_age(), slow.effective_lr(100_000)

All of it is read from the rule's own update, which is run on numbers that carry their derivatives: any rule can be asked, with any
hyperparameters and schedules, one of your own too. It needs NumPy and computes in float64.
"""

from xopt.memory.nearest import Nearest, nearest
from xopt.memory.recall import Cost, Memory, of
from xopt.memory.responses import Response

__all__ = ["Cost", "Memory", "Nearest", "Response", "nearest", "of"]
