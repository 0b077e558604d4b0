"""How a rule follows gradients that change."""

from typing import Any, NamedTuple

import numpy as np


class Response(NamedTuple):
    """Steps on gradients that change at one place.

    Attributes
    ----------
    grads
        One for each step.
    steps
        What each step takes off the parameter.
    change
        How many steps there are before the change.
    """

    grads: Any
    steps: Any
    change: int

    @property
    def turn(self) -> int | None:
        """How many steps after the change it takes until a step goes the way of its gradient: 1 for plain gradients.

        None where none does, or where the gradient is 0.
        """
        ways = np.sign(self.steps[self.change :]) == np.sign(self.grads[self.change :])
        return int(np.argmax(ways)) + 1 if ways.any() and self.grads[-1] else None

    @property
    def coast(self) -> float:
        """How far the steps after the change go against their gradients, or without one, in units of the learning rate."""
        after, grads = self.steps[self.change :], self.grads[self.change :]
        return float(np.sum(np.abs(after[np.sign(after) * np.sign(grads) <= 0])))

    @property
    def overshoot(self) -> float:
        """How far the steps after the change pass the last one, over it: 0 for steps that come to it from one side."""
        after = self.steps[self.change :] * np.sign(self.steps[-1])
        return float(np.max(after) / after[-1] - 1) if after[-1] else float("nan")
