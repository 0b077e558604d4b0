"""What is drawn, with Hypothesis: hyperparameters, counts and trajectories; and the census of what came."""
