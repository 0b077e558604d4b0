"""What optimizers of other packages compute: each is installed in an environment of its own and checked.

``python -m xopt.conformance.implementations`` does so and writes ``implementations.json``, of which a page of the documentation is
made. ``packages.toml`` says what is checked; ``findings.toml`` has the programs that show what nobody is known to have reported.
"""
