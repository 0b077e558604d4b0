"""Training on real data: the gradients that it meets, played again on every backend, and the losses that it ends with."""

from xopt.conformance.training.replay import Replay, replay_rule

__all__ = ["Replay", "replay_rule"]
