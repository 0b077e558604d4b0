"""What an optimizer does beside its formula: to its inputs, to other leaves, to other optimizers, and when it is saved."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from xopt.conformance.thirdparty.probe import USUAL, designed_numbers
from xopt.conformance.thirdparty.sandbox import TargetFailedError
from xopt.conformance.thirdparty.subject import Subject

HELD, FAILED, NOT_TRIED = "held", "failed", "not tried"

STEPS = 6
LONG = 300
"""Steps after which a count in bfloat16 has long stopped, at 256."""


class Finding(NamedTuple):
    """One thing that a target was asked to show."""

    check: str
    outcome: str  # HELD, FAILED or NOT_TRIED
    words: str  # what was seen, or why it was not tried


class NotTriedError(Exception):
    """The target does not claim what would be checked; as words, why."""


class Lab:
    """Steps the target with usual hyperparameters, on small leaves."""

    def __init__(self, subject: Subject, rule: str | None) -> None:
        self.subject = subject
        self.rule = rule
        self.dtype = subject.about.dtypes[0]
        params, grads = designed_numbers()
        self.params, self.grads = params[:6], [grad[:6] for grad in grads[:STEPS]]

    def given(self, **changed: float) -> dict[str, Any]:
        rule = self.rule or "adamw"
        usual = {name: x for name, x in {**USUAL, **changed}.items() if name in self.subject.takes(rule)}
        return self.subject.arguments(rule, usual)

    def run(self, leaves: list[Any], grads: list[list[Any]], **more: Any) -> list[list[Any]]:
        return self.subject.trajectory(leaves, grads, **{"dtype": self.dtype, "given": self.given()} | more)

    def alone(self) -> list[Any]:
        """The first leaf after each step, of itself."""
        return [leaves[0] for leaves in self.run([self.params], [[grad] for grad in self.grads])]

    def several(self) -> None:
        if not self.subject.about.leaves:
            why = "it steps one leaf at a time"
            raise NotTriedError(why)


Check = Callable[[Lab], str | None]
"""Says what is wrong, or None."""


def deterministic(lab: Lab) -> str | None:
    return _first_difference(lab.alone(), lab.alone(), "the same run again")


def inputs_kept(lab: Lab) -> str | None:
    lab.alone()
    wrote = lab.subject.wrote
    return "; ".join(f"it writes into the {what} at step {t}" for what, t in wrote.items()) or None


def instances_apart(lab: Lab) -> str | None:
    """Two optimizers that are stepped in turns, on gradients of opposite sign."""
    if not lab.subject.about.instances:
        why = "it does not say that there may be several"
        raise NotTriedError(why)
    alone = lab.alone()
    subject, given = lab.subject, lab.given()
    found = []
    for of in ("one", "other"):
        subject.start([lab.params], lab.dtype, given, of)
    for grad in lab.grads:
        subject.step([-3.0 * grad], lab.dtype, of="other")
        found.append(subject.step([grad], lab.dtype, of="one")[0])
    return _first_difference(found, alone, "alone, without a second optimizer beside it")


def resumes(lab: Lab) -> str | None:
    if not lab.subject.about.resumes:
        why = "it does not say that it can be saved"
        raise NotTriedError(why)
    alone, subject, half = lab.alone(), lab.subject, STEPS // 2
    subject.start([lab.params], lab.dtype, lab.given())
    found = [subject.step([grad], lab.dtype)[0] for grad in lab.grads[:half]]
    before = subject.state().dtypes if subject.about.state else {}
    subject.ask({"do": "resume"})
    after = subject.state().dtypes if subject.about.state else {}
    found += [subject.step([grad], lab.dtype)[0] for grad in lab.grads[half:]]
    changed = [
        f"{name} is {after[name]} after it is loaded, and was {dtype}"
        for name, dtype in before.items()
        if after.get(name, dtype) != dtype
    ]
    return _first_difference(found, alone, "a run that is not saved and loaded") or "; ".join(changed) or None


def equal_stay_equal(lab: Lab) -> str | None:
    lab.several()
    for one, other in lab.run([lab.params, lab.params], [[grad, grad] for grad in lab.grads]):
        if not np.array_equal(one, other, equal_nan=True):
            return "two leaves with equal parameters and gradients part"
    return None


def leaves_apart(lab: Lab) -> str | None:
    lab.several()
    beside = lab.run([3.0 * lab.params, lab.params], [[-7.0 * grad, grad] for grad in lab.grads])
    return _first_difference([leaves[1] for leaves in beside], lab.alone(), "alone, without a leaf before it")


def empty_leaf(lab: Lab) -> str | None:
    lab.several()
    nothing = np.zeros(0)
    beside = lab.run([nothing, lab.params, nothing], [[nothing, grad, nothing] for grad in lab.grads])
    return _first_difference([leaves[1] for leaves in beside], lab.alone(), "without an empty leaf before it")


def shapes_kept(lab: Lab) -> str | None:
    """A leaf of two axes, and a number."""
    grid = lab.params.reshape(2, 3)
    found = lab.run([grid], [[grad.reshape(2, 3)] for grad in lab.grads])
    wrong = _first_difference([leaves[0].ravel() for leaves in found], lab.alone(), "as one axis of six")
    if wrong is None:
        found = lab.run([lab.params[5:].reshape(())], [[grad[5:].reshape(())] for grad in lab.grads])
        wrong = _first_difference([leaves[0].reshape(1) for leaves in found], [x[5:] for x in lab.alone()], "as one of six numbers")
    return wrong


def nan_stays(lab: Lab) -> str | None:
    """A gradient with a NaN in it: the other elements step as without."""
    poisoned = [grad.copy() for grad in lab.grads]
    poisoned[2][0] = np.nan
    found = [leaves[0][1:] for leaves in lab.run([lab.params], [[grad] for grad in poisoned])]
    return _first_difference(found, [x[1:] for x in lab.alone()], "without a NaN in another element of the gradient")


def dtype_kept(lab: Lab) -> str | None:
    """Parameters have the dtype that they began with: a rate that is a float64 of NumPy makes float32 ones float64."""
    for dtype in lab.subject.about.dtypes:
        lab.subject.start([lab.params], dtype, lab.given())
        for t, grad in enumerate(lab.grads, start=1):
            lab.subject.step([grad], dtype)
            other = next((one for one in lab.subject.dtypes if one != dtype), None)
            if other is not None:
                return f"{dtype} parameters are {other} after step {t}"
    if not lab.subject.dtypes:
        why = "it does not say what they are"
        raise NotTriedError(why)
    return None


def state_dtype(lab: Lab) -> str | None:
    """Arrays of the state have one dtype after every step, and not one below that of the arithmetic."""
    if not lab.subject.about.state:
        why = "its state cannot be read"
        raise NotTriedError(why)
    seen: dict[str, str] = {}
    for dtype in lab.subject.about.dtypes:
        lab.subject.start([lab.params], dtype, lab.given())
        for t, grad in enumerate(lab.grads[:3], start=1):
            lab.subject.step([grad], dtype)
            now = lab.subject.state().dtypes
            for name, kind in now.items():
                if t > 1 and seen.get(name, kind) != kind:
                    return f"{name} of {dtype} parameters is {kind} after step {t}, and was {seen[name]}"
            seen = now
    return None


def long_count(lab: Lab) -> str | None:
    """A count that is kept in few digits stops: read where it can be, in the narrowest dtype."""
    if not lab.subject.about.state:
        why = "its state cannot be read; the formula says what a long run shows"
        raise NotTriedError(why)
    dtype = lab.subject.about.dtypes[-1] if "bfloat16" not in lab.subject.about.dtypes else "bfloat16"
    lab.subject.start([lab.params], dtype, lab.given())
    for i in range(LONG):
        lab.subject.step([lab.grads[i % STEPS]], dtype)
    state = lab.subject.state().arrays
    counts = {name: leaves[0][0] for name, leaves in state.items() if name in COUNTS and leaves and np.size(leaves[0])}
    if not counts:
        why = "no part of its state is called a count"
        raise NotTriedError(why)
    wrong = {name: x for name, x in counts.items() if x != LONG}
    return "; ".join(f"{name} is {x:g} after {LONG} steps of {dtype} parameters" for name, x in wrong.items()) or None


COUNTS = ("step", "count", "t", "iteration", "iterations", "steps")


def groups_apart(lab: Lab) -> str | None:
    if not lab.subject.about.groups:
        why = "it does not say that leaves may have other hyperparameters"
        raise NotTriedError(why)
    others = lab.given(lr=2.0**-7)
    both = lab.run([lab.params, lab.params], [[grad, grad] for grad in lab.grads], given=[lab.given(), others])
    other = [leaves[0] for leaves in lab.run([lab.params], [[grad] for grad in lab.grads], given=others)]
    wrong = _first_difference([leaves[0] for leaves in both], lab.alone(), "without a second group")
    return wrong or _first_difference([leaves[1] for leaves in both], other, "without a first group")


CHECKS: dict[str, Check] = {
    "the same run gives the same bits": deterministic,
    "inputs are not written to": inputs_kept,
    "optimizers do not share state": instances_apart,
    "resuming is going on": resumes,
    "equal parameters stay equal": equal_stay_equal,
    "a leaf does not change another": leaves_apart,
    "an empty leaf stops nothing": empty_leaf,
    "shapes do not matter": shapes_kept,
    "a NaN stays where it is": nan_stays,
    "the parameters keep their dtype": dtype_kept,
    "the state keeps its dtype": state_dtype,
    "the count of steps goes on": long_count,
    "groups do not mix": groups_apart,
}
"""By the words that say what holds."""


def behaviour(subject: Subject, rule: str | None, enough: Callable[[], bool]) -> Iterator[Finding]:
    """Tries everything, until there is time no more."""
    lab = Lab(subject, rule)
    for name, check in CHECKS.items():
        yield tried(name, partial(check, lab), enough)


def tried(name: str, check: Callable[[], str | None], enough: Callable[[], bool]) -> Finding:
    if enough():
        return Finding(name, NOT_TRIED, "the time was up")
    try:
        wrong = check()
    except NotTriedError as reason:
        return Finding(name, NOT_TRIED, str(reason))
    except TargetFailedError as error:
        if error.what in ("hung", "crashed"):
            raise
        return Finding(name, FAILED, f"{error}")
    return Finding(name, FAILED if wrong else HELD, wrong or "")


def _first_difference(found: list[Any], expected: list[Any], than: str) -> str | None:
    for t, (x, y) in enumerate(zip(found, expected, strict=True), start=1):
        different = ~((x == y) | (np.isnan(x) & np.isnan(y)))
        if np.any(different):
            at = int(np.argmax(different))
            return f"element {at} after step {t} is {float(x[at])!r}, and {float(y[at])!r} {than}"
    return None
