"""What a rule remembers: the weights of past gradients in a step, by their age, and what follows from them."""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from xopt.checks import shown
from xopt.memory import quadratics, worst
from xopt.memory.responses import Response
from xopt.memory.system import (
    Linear,
    Rest,
    Systems,
    coefficients_at,
    numbers,
    powers,
    program_of,
    rest,
    run,
    total,
    weights_at_the_end,
)
from xopt.program import Program, record
from xopt.rule import Rule, rule_given

Floats = Any
"""A float64 array of NumPy."""


class Cost(NamedTuple):
    """What a memory costs, in arrays of the parameter's shape."""

    arrays: int  # kept beside the parameter
    passes: int  # read or written by a step: parameter, gradient and arrays


def of(rule: Any, /, *, held: bool = True, **hyper: Any) -> "Memory":
    """What a rule with these hyperparameters remembers.

    Parameters
    ----------
    rule
        A rule, its step, or a rule with hyperparameters (``rule.bind(...)``); one of your own, too.
    held
        Whether the scale of a step stands still while its derivatives are taken: what divides (the root of the second moment), and
        the size of what a sign is taken of. The step is then a weighted sum of the gradients. Where it is False, these are
        differentiated too: how much a step changes with each gradient.
    **hyper
        Hyperparameters: numbers, or schedules, functions of the count t = 1, 2, ... of a step. Where it is not given, ``lr`` is 1,
        so that steps are in units of the learning rate; the others are the rule's defaults.

    Raises
    ------
    TypeError, ValueError
        For what is no rule, an unknown hyperparameter, one out of range, or a rule whose slots depend on the parameters.

    Examples
    --------
    >>> from xopt import ademamix, memory
    >>> memory.of(ademamix, beta3=0.9999, alpha=8.0).half_mass_age()
    5753
    """
    found: Rule[Any, Any] = rule_given("memory.of", rule)
    given = dict(getattr(rule, "hyper", {})) | hyper
    if "lr" in found.defaults:
        given = {"lr": 1.0} | given
    found.check_names("memory.of", given)
    found.check_hyper("memory.of", {name: value(1) if callable(value) else value for name, value in given.items()})
    for name, value in given.items():
        if callable(value) and found.ranges[name].sequence:
            msg = f"memory.of: {name} must be numbers, as they say what a state has, not a function of the count"
            raise TypeError(msg)
        if not callable(value) and not found.value_of(name)(value):
            msg = f"memory.of: {name} must be one number, or a function of the count of a step, got {shown(value)}"
            raise TypeError(msg)
    return Memory(found, found.defaults | {name: x if callable(x) else _plain(x) for name, x in given.items()}, held)


def _plain(value: Any) -> Any:
    """As Python numbers, of which every operation is in float64."""
    if value is None:
        return None
    return tuple(map(float, value)) if isinstance(value, tuple | list) else float(value)


class Memory:
    """What ``memory.of`` returns: a rule with hyperparameters, and what can be asked of it.

    The gradient of age 0 is that of the step itself. Where ``step`` is None, an answer is for long after the start, when bias
    corrections and warm-ups are over, and has no horizon: it is computed from the powers and sums of one small matrix. Where it is
    a count t = 1, 2, ..., it is for that step of a run that began with nothing remembered. What divides a step is what it is where
    every gradient has been 1.
    """

    def __init__(self, rule: Rule[Any, Any], hyper: dict[str, Any], held: bool) -> None:
        self.rule = rule
        self.hyper = hyper
        self.held = held
        self._runs: dict[int, Systems] = {}
        _refuse_slots_of_params(rule, program_of(rule, hyper))

    def __repr__(self) -> str:
        own = {name: x for name, x in self.hyper.items() if x != self.rule.defaults[name] and (name, x) != ("lr", 1.0)}
        return f"<memory of {self.rule.name}{''.join(f' {name}={x!r}' for name, x in own.items())}>"

    # The systems.

    @cached_property
    def rest(self) -> Rest:
        """The coefficients and slots of a step long after the start, where every gradient has been 1."""
        found = rest(self.rule, self.hyper)
        if found is None:
            msg = f"memory of {self.rule.name}: its coefficients never settle, so that each step remembers otherwise; give step="
            raise ValueError(msg)
        return found

    @cached_property
    def _settled(self) -> Linear:
        a, b, c, d = (x[0] for x in self.rest.systems(1.0, self.held).matrices())
        return Linear(a, b, c, float(d))

    def _systems(self, step: int) -> Systems:
        if step not in self._runs:
            self._runs.clear()  # a long run is large
            self._runs[step] = run(self.rule, self.hyper, np.ones(_count("step", step))).systems(self.held)
        return self._runs[step]

    # Weights.

    def weights(self, ages: Any = None, *, step: int | None = None) -> Floats:
        """The weight of the gradient of each age in a step.

        Parameters
        ----------
        ages
            Whole numbers from 0, or how many, from 0 on. May be left out where there is a ``step``, which then says how many.
        step
            The count of the step; None is long after the start.

        Returns
        -------
        array
            One float64 for each age: what a step takes off the parameter, over the gradient.
        """
        if ages is None and step is None:
            msg = "memory.weights: ages must be whole numbers, or how many; only a run that began has an end"
            raise TypeError(msg)
        wanted = np.arange(_count("step", step)) if ages is None else _ages("memory.weights", ages)
        if step is None:
            return powers(self._settled, wanted)
        by_age = weights_at_the_end(self._systems(step))
        return np.where(wanted < step, by_age[np.minimum(wanted, step - 1)], 0.0)

    def mass(self, *, step: int | None = None) -> float:
        """The sum of all weights: the step under a constant gradient of 1, in units of the learning rate."""
        return self._moments(step)[0]

    def mean_age(self, *, step: int | None = None) -> float:
        """The mean age of a gradient in a step, by weight, in steps. For a linear rule: how far it lags behind a ramp."""
        return self._moments(step, self._not_zero(self.mass(step=step)))[1]

    def spread(self, *, step: int | None = None) -> float:
        """The standard deviation of that age, in steps. NaN where negative weights make the variance negative."""
        _, mean, square = self._moments(step, self._not_zero(self.mass(step=step)))
        variance = square - mean * mean
        return math.sqrt(variance) if variance >= 0 else math.nan

    def _moments(self, step: int | None, scale: float = 1.0) -> tuple[float, float, float]:
        """The sums of the weights, of their products with the age, and with its square, all over a scale."""
        if step is None:
            s, inverse = self._settled, self._settled.inverse
            c = s.c / scale
            one = inverse @ s.b
            two = inverse @ one
            three = (np.eye(len(s.a)) + s.a) @ (inverse @ two)
            return s.d / scale + float(c @ one), float(c @ two), float(c @ three)
        weights, ages = self.weights(step=step) / scale, np.arange(float(step))
        return total(weights), total(ages * weights), total(ages**2 * weights)

    def half_life(self) -> float:
        """In how many steps the weights of old gradients halve, in the end: ``-ln 2 / ln r``, with the slowest decay r.

        0 for a rule that forgets at once.
        """
        a = self._settled.a
        radius = float(np.max(np.abs(np.linalg.eigvals(a)))) if len(a) else 0.0
        return -math.log(2.0) / math.log(radius) if radius else 0.0

    def half_mass_age(self, *, step: int | None = None) -> int:
        """The least age k such that the gradients of ages 0 ... k have half of the mass, where no weight is negative."""
        if step is not None:
            return int(np.searchsorted(np.cumsum(self.weights(step=step)), 0.5 * self._not_zero(self.mass(step=step))))
        return _least(lambda k: self.share_older(k) <= 0.5)

    def share_older(self, age: Any, *, step: int | None = None) -> Any:
        """Which share of the mass gradients older than ``age`` have: a number, or an array for an array of ages."""
        mass = self._not_zero(self.mass(step=step))
        ages = _ages("memory.share_older", np.atleast_1d(age))
        if step is None:
            s = self._settled
            found = powers(Linear(s.a, s.a @ s.inverse @ s.b, s.c, float(s.c @ s.inverse @ s.b)), ages) / mass
        else:
            left = np.concatenate([np.cumsum(self.weights(step=step)[::-1])[::-1], [0.0]])
            found = left[np.minimum(ages + 1, step)] / mass
        return float(found[0]) if np.ndim(age) == 0 else found

    def noise(self, *, step: int | None = None) -> float:
        """What a step over its mass has left of the variance of independent gradients: its weights squared, over their sum squared.

        1 for plain gradients; 1/19 for an average with a decay of 0.9.
        """
        mass = self._not_zero(self.mass(step=step))
        if step is None:
            s = self._settled
            n, one = len(s.a), np.eye(len(s.a))
            left = np.kron(one - s.a, one) + np.kron(s.a, one - s.a)  # 1 - a^2 = (1 - a) + a (1 - a), which a near 1 does not round
            inner = np.linalg.solve(left, np.outer(s.b, s.b).ravel()).reshape(n, n)
            c, d = s.c / mass, s.d / mass
            return d * d + float(c @ inner @ c)
        return total((self.weights(step=step) / mass) ** 2)

    def gain(self, frequencies: Any) -> Floats:
        """By what factor a step has waves of the gradient, long after the start.

        Parameters
        ----------
        frequencies
            In waves a step, from 0, a constant gradient, to 1/2, one of which the sign changes at each step.
        """
        s = self._settled
        f = np.pi * numbers("memory.gain", "frequencies", frequencies)
        turns = -2.0 * np.sin(f) ** 2 + 1j * np.sin(2.0 * f)  # z - 1, which is small beside z where waves are long
        one = np.eye(len(s.a))
        return np.abs([s.d + s.c @ np.linalg.solve(one - s.a + z * one, s.b) for z in np.ravel(turns)]).reshape(turns.shape)

    def _not_zero(self, mass: float) -> float:
        if not mass or not math.isfinite(mass):
            msg = f"memory of {self.rule.name}: the weights sum up to {mass}, so that they have no shares and no mean"
            raise ValueError(msg)
        return mass

    # Responses.

    def steps(self, grads: Any) -> Floats:
        """What each step takes off the parameter, on one gradient for each step: bias corrections and warm-ups included.

        The parameter is at 0 before each step, so that no weight decay is in it.
        """
        given = numbers("memory.steps", "grads", grads, finite=False)
        if given.ndim != 1 or not given.size:
            msg = f"memory.steps: grads must be numbers, one for each step, got {shown(grads)}"
            raise ValueError(msg)
        return run(self.rule, self.hyper, given).steps

    def effective_lr(self, steps: int) -> Floats:
        """The steps under a constant gradient of 1: with lr of 1, by what factor they are longer than lr."""
        return self.steps(np.ones(_count("steps", steps)))

    def noise_steps(self, steps: int) -> Floats:
        """The standard deviation of each step of a run on independent gradients of variance 1, in units of the learning rate.

        What divides is what it is where every gradient has been 1.
        """
        a, b, c, d = run(self.rule, self.hyper, np.ones(_count("steps", steps))).systems(self.held).matrices()
        found, inner = np.empty(steps), np.zeros(a.shape[1:])  # the covariance of the slots
        for t in range(steps):
            found[t] = math.sqrt(d[t] ** 2 + c[t] @ inner @ c[t])
            inner = a[t] @ inner @ a[t].T + np.outer(b[t], b[t])
        return found

    def step_response(self, after: int, *, before: int = 0) -> Response:
        """Gradients of 0, ``before`` steps long, then of 1, ``after`` steps long."""
        return self._response([0.0] * _count("before", before, 0) + [1.0] * _count("after", after), before)

    def ramp_response(self, after: int) -> Response:
        """Gradients of 1, 2, 3, ..."""
        return self._response(np.arange(1.0, _count("after", after) + 1), 0)

    def reversal(self, before: int, after: int) -> Response:
        """Gradients of 1, ``before`` steps long, then of -1, ``after`` steps long."""
        return self._response([1.0] * _count("before", before) + [-1.0] * _count("after", after), before)

    def burst(self, length: int, after: int, *, before: int = 0) -> Response:
        """Gradients of 0, ``before`` steps long, then of 1, ``length`` steps long, then of 0, ``after`` steps long."""
        zeros, ones, after = _count("before", before, 0), _count("length", length), _count("after", after)
        return self._response([0.0] * zeros + [1.0] * ones + [0.0] * after, before + length)

    def _response(self, grads: Any, change: int) -> Response:
        return Response(np.asarray(grads, dtype=np.float64), self.steps(grads), change)

    def worst_step(self, *, step: int | None = None) -> float:
        """The longest step that gradients can lead to, in units of the learning rate; ``inf`` where there is no bound.

        For a linear rule, over all gradients in [-1, 1]: the sum of the sizes of the weights. For a sign it is 1. For a weighted
        sum over the root of a weighted sum of squares it is over all gradients, by the inequality of Cauchy and Schwarz, without
        eps: the root of the sum of ``a^2 / b``, with the weights a of the gradients and b of their squares.

        Raises
        ------
        ValueError
            For a rule of another form.
        """
        return worst.longest(self, step)

    # Costs.

    def cost(self) -> Cost:
        """Arrays kept, and passes over memory of one step."""
        of_init = {name: self.hyper[name] for name in self.rule.of_init if not callable(self.hyper[name])}
        slots = self.rule.bind(**of_init).init(np.zeros(1))[1:-1]
        program = record(self.rule, slots, coefficients_at(self.rule, self.hyper, 1, self.rule.carried))
        return Cost(len(program.writes) - 1, len(program.reads) + len(program.writes))

    # On quadratics.

    def rates(self, curvatures: Any, lrs: Any = None, *, precondition: bool = False) -> Floats:
        """The factor by which the distance to the minimum shrinks at each step, in the end, on quadratics.

        Parameters
        ----------
        curvatures
            Second derivatives, a number or an array. The gradient is the curvature times the distance.
        lrs
            Learning rates, a number or an array; None is that of the memory.
        precondition
            Whether what divides stands still at 1, for a rule that divides: curvatures are then over the root of the second moment.

        Returns
        -------
        array
            The largest size of an eigenvalue of the rule's own state matrix, long after the start: 1 or more does not converge. Its
            shape is that of ``lrs`` followed by that of ``curvatures``; without ``lrs`` that of ``curvatures``.

        Raises
        ------
        ValueError
            For a rule that is not linear, unless ``precondition`` is True; never for a sign.
        """
        return quadratics.rates(self, curvatures, lrs, precondition)

    def stability_limit(self, curvature: float = 1.0, *, precondition: bool = False) -> float:
        """The lr up to which steps on a quadratic of this curvature converge: see ``rates``. ``inf`` where there is none."""
        return quadratics.stability_limit(self, curvature, precondition)

    def best_lr(self, low: float, high: float, *, precondition: bool = False) -> tuple[float, float]:
        """The lr of the best rate for the slowest of all curvatures from ``low`` to ``high``, and that rate: see ``rates``."""
        return quadratics.best_lr(self, low, high, precondition)


def _refuse_slots_of_params(rule: Rule[Any, Any], program: Program) -> None:
    tainted = {"params"}
    for result, _, operands in program.operations:
        if tainted & {*operands}:
            tainted.add(result)
    for slot, new in program.writes.items():
        if slot != "params" and new in tainted:
            msg = (
                f"memory of {rule.name}: its slot {slot} depends on the parameters, so that a step is no function of the gradients"
            )
            raise ValueError(msg)


def _count(name: str, given: Any, least: int = 1) -> int:
    if isinstance(given, bool) or not isinstance(given, int | np.integer) or given < least:
        msg = f"memory: {name} must be a whole number of steps, {least} or more, got {shown(given)}"
        raise ValueError(msg)
    return int(given)


def _ages(function: str, given: Any) -> Any:
    ages = np.asarray(np.arange(given) if isinstance(given, int | np.integer) else given)
    if (ages.dtype.kind not in "iu" and ages.size) or np.any(ages < 0):
        msg = f"{function}: ages must be whole numbers from 0, got {shown(given)}"
        raise ValueError(msg)
    return ages.astype(np.int64)


def _least(holds: Callable[[int], bool]) -> int:
    """The least whole number from 0 for which something holds, that holds for all after it."""
    low, high = -1, 1
    while not holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
