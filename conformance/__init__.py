"""The proof: golden references, derived bounds, verdicts and the command line."""
