"""Anybody's optimizer: what it computes, which convention that is, and how it behaves.

A target ("torch:torch.optim.AdamW", "cmd:./program", a function) is stepped through designed and random trajectories in a process
of its own. What comes back is held against the golden of a rule and against every golden that a convention makes of it.
"""
