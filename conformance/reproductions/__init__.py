"""Published figures, reproduced: ``xopt reproduce``. One module an experiment, and a table of them with what was published."""

from xopt.conformance.reproductions.experiments import EXPERIMENTS, Experiment, reproduce
from xopt.conformance.reproductions.outcome import Outcome

__all__ = ["EXPERIMENTS", "Experiment", "Outcome", "reproduce"]
