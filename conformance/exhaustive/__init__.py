"""Operations on all the operands there are, against exact arithmetic; and how far each library's results are off, in a table.

The probes sample; this goes to the end. ``python -m xopt.conformance.exhaustive`` computes the square root and the sign of every
number of float32 and of half precision, and the sum, difference, product, quotient and order of every pair of float16, by each
library that is installed, in each way in which rules are computed. What departs must have a row in ``departures``.
``accuracy.json`` is what was found.
"""
