"""What rules remember, side by side: ``xopt memory``, and the figures of the documentation."""
