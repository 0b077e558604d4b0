"""What makes one pass over memory of a step, a module for each compiler, and what some of them share."""
