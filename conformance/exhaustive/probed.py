"""float64, of which no format has twice the digits: the probes' operands, whose results are known from integers."""

import numpy as np

from xopt.conformance.arithmetic.probes import SAMPLES, samples
from xopt.conformance.exhaustive.store import Row
from xopt.conformance.exhaustive.sweep import Example, Tally, Task
from xopt.conformance.exhaustive.ways import Way

DIGITS = 2.0**53


def probed(way: Way, operation: str) -> Row:
    """What a way of computing an operation gives on the probes' sample: hard cases and random ones, their results normal."""
    case = samples("float64")[operation]
    backend = way.backend
    with backend.session(), np.errstate(all="ignore"):
        got = backend.to_numpy(way.function(operation)(*(backend.asarray(x, "float64") for x in case.operands)))
    wrong = got != case.expected
    tally = Tally(SAMPLES, int(wrong.sum()))
    if wrong.any():
        error = np.abs((got - case.expected) / case.ulp - case.beyond)
        error = np.where(wrong, np.where(error <= DIGITS, error, DIGITS), 0)
        i = int(np.argmax(error))
        tally.ulps = float(error[i])
        tally.worst = Example([_word(x[i]) for x in case.operands], _word(got[i]), _word(case.expected[i]))
    return Row.of(way, Task(operation, "float64", SAMPLES), tally)


def _word(x: np.float64) -> str:
    return hex(int(np.float64(x).view(np.uint64)))
