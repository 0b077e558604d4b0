"""What a step should have computed, and how far from it a correct library may be.

Three runs of the same step, beside the candidate's own:
- *truth*: the golden, in multiprecision where the candidate computes in float64, else in float64 with a bound on its error;
- *ours*: the rule's own update on error-carrying numbers of the candidate's format;
- *paper*: the golden's text on the same numbers, which is the evaluation order of the paper.
The tolerance is the larger bound of the last two: an evaluation order that either of them covers is a correct one.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from xopt.conformance.arithmetic.bounded import Bounded, BoundedArithmetic, Signs, exact, inflate
from xopt.conformance.arithmetic.formats import HOST, FloatFormat
from xopt.conformance.arithmetic.numbers import ARRAYS, multiprecision
from xopt.conformance.golden import GOLDENS, Golden, lift
from xopt.rule import Rule

Columns = tuple[Any, ...]
"""A state without its step count: params and slots, each a float64 vector, a number, None, or a tuple of vectors."""


class Comparison(NamedTuple):
    """One column of a step, element by element."""

    name: str
    error: Any  # distance from the truth
    bound: Any  # largest distance that a correct library may have; not finite where nothing can be said
    ulps: Any  # error in units in the last place at the scale of the step
    may_be_subnormal: Any  # a subnormal number may have occurred

    @property
    def ratio(self) -> Any:
        """error / bound: at most 1 where the step is right. NaN where the bound is vacuous."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(self.error == 0, 0.0, self.error / self.bound)
        ratio = np.where(np.isnan(self.error), np.inf, ratio)
        return np.where(np.isfinite(self.bound), ratio, np.nan)


class Reference:
    """Follows a candidate through a trajectory, element by element.

    Parameters
    ----------
    rule, hyper
        The rule and the hyperparameters that differ from its defaults.
    compute, store
        The formats of the arithmetic and of the stored parameters.
    traced
        The step count is an array: the coefficients are computed in ``compute`` too.
    golden
        Default: that of the rule's name. What ``hyper`` leaves out has the rule's defaults in the rule, the golden's in the golden.
    """

    def __init__(
        self,
        rule: Rule[Any, Any],
        hyper: dict[str, Any],
        compute: FloatFormat,
        store: FloatFormat,
        traced: bool,
        golden: Golden | None = None,
    ) -> None:
        self.rule = rule
        self.golden = golden or GOLDENS[rule.name]
        self.compute = compute
        self.store = store
        self.traced = traced
        self.truth_in = _Vectors() if compute.unit == HOST.unit else BoundedArithmetic()
        # a plain 0 keeps its branches (a decay of 0 has no time constant); other numbers carry errors through the coefficients
        self._ours_hyper = {name: _each(value, lambda x: exact(x) if x else x) for name, value in (rule.defaults | hyper).items()}
        self._paper_hyper = lift(BoundedArithmetic(), self.golden.defaults | hyper)
        self._truth_hyper = lift(self.truth_in, self.golden.defaults | hyper)
        self._hyper = hyper
        self._coefficients: dict[int, Any] = {}  # by step; copies share them

    def restart(self, columns: Columns) -> None:
        """Takes the candidate's state as exact: from here on only new errors count."""
        number = self.compute if self.traced else HOST
        self.ours = _each(columns, lambda x: exact(x, self.compute if np.ndim(x) else number))
        filled = _filled(columns)
        self.paper = _each(filled, lambda x: exact(x, self.compute if np.ndim(x) else number))
        with np.errstate(invalid="ignore"):  # as infinities, which an overflow has left, become numbers of mpmath
            self.truth = _each(filled, self.truth_in.number if isinstance(self.truth_in, _Vectors) else exact)
        self.before = columns

    def step(self, grad: Any, t: int, after: Columns) -> list[Comparison]:
        """Steps along and compares with the candidate's state ``after`` the step."""
        with np.errstate(all="ignore"):
            with Signs() as signs:
                results = self._evaluate(grad, t)
            if np.any(signs.open):  # sign jumps there: each value that it may have is right, as a set, and nothing between
                choices = (-1.0, 0.0, 1.0)
                tried = []
                for choice in choices:
                    with Signs(choice, signs.open):
                        tried.append(next(self._compare(self._evaluate(grad, t), after)).ratio)
                nearest = np.argmin(np.where(np.isnan(tried), np.inf, tried), axis=0)
                with Signs(np.take(choices, nearest), signs.open):
                    results = self._evaluate(grad, t)
            comparisons = list(self._compare(results, after))
            if any(np.any(np.isnan(c.error) & ~np.isfinite(c.bound)) for c in comparisons):
                comparisons = self._without_reason(comparisons, grad, t, after)
        # params beyond the format's range are infinite from here on, as compared above
        self.ours, self.paper, self.truth = ((self._overflowed(new[0], after[0]), *new[1:]) for new in results)
        self.before = after
        return comparisons

    def _evaluate(self, grad: Any, t: int) -> tuple[Columns, Columns, Columns]:
        ours = self.rule.elementwise(*self.ours, exact(grad, self.compute), self._of_step(t))
        paper = self.golden.step(BoundedArithmetic(), *self.paper, exact(grad, self.compute), t, **self._paper_hyper)
        n = self.truth_in
        g = n.number(grad) if isinstance(n, _Vectors) else exact(grad)
        truth = self.golden.step(n, *self.truth, g, t, **self._truth_hyper)
        if self.store.unit != self.compute.unit:
            ours = (ours[0].stored(self.store), *ours[1:])
            paper = (paper[0].stored(self.store), *paper[1:])
        ours = tuple(_kept(old, new) for old, new in zip(self.ours, ours, strict=True))
        return ours, paper, truth

    def _without_reason(self, comparisons: list[Comparison], grad: Any, t: int, after: Columns) -> list[Comparison]:
        """Where there is no bound, NaN is still wrong if the rule and the golden, in floats of this format, give finite numbers.

        What has no bound may overflow on the way, and then NaN may be right: infinity less infinity, or divided by it, as of an
        average of squares that were infinite before. In one step of two orders of evaluation that is there to be seen.
        """
        own = np.dtype(self.compute.name).type
        columns = _each(_filled(self.before), lambda x: np.asarray(x, own) if np.ndim(x) else x)
        ours = _each(self.before, lambda x: np.asarray(x, own) if np.ndim(x) else x)
        carried = [x for name, x in zip(self.rule.slots, self.before[1:], strict=True) if name in self.rule.carried]
        c = self.rule.coefficients(t, *carried, **(self.rule.defaults | self._hyper))
        g = np.asarray(grad, own)
        computed = (
            self.rule.elementwise(*ours, g, c),
            self.golden.step(ARRAYS, *columns, g, t, **(self.golden.defaults | self._hyper)),
        )
        there = [_flat(_like(after, one)) for one in (after, *computed)]
        return [
            one._replace(bound=np.where(np.isnan(got) & np.all(np.isfinite(others), axis=0), 0.0, one.bound))
            for one, got, *others in zip(comparisons, *there, strict=True)
        ]

    def _of_step(self, t: int) -> Any:
        """The rule's coefficients. Of plain numbers alone, they are the same each time."""
        carried = [x for name, x in zip(self.rule.slots, self.ours[1:], strict=True) if name in self.rule.carried]
        if carried or self.traced:
            count = exact(float(t)).met_in(self.compute) if self.traced else t
            return self.rule.coefficients(count, *carried, **self._ours_hyper)
        if t not in self._coefficients:
            self._coefficients[t] = self.rule.coefficients(t, **self._ours_hyper)
        return self._coefficients[t]

    def _overflowed(self, params: Any, after: Any) -> Any:
        beyond = np.isinf(after)
        if not np.any(beyond):
            return params
        if isinstance(params, Bounded):
            return replace(params, value=np.where(beyond, after, params.value), error=np.where(beyond, 0.0, params.error))
        with np.errstate(invalid="ignore"):
            infinite: Any = self.truth_in.number(after)
        return np.where(beyond, infinite, params)

    def _compare(self, results: tuple[Columns, Columns, Columns], after: Columns) -> Iterator[Comparison]:
        for i, (name, *columns) in enumerate(zip(("params", *self.rule.slots), self.before, after, *results, strict=True)):
            to = self.store if i == 0 else self.compute
            parts = zip(*columns, strict=True) if isinstance(columns[1], tuple) else [columns]
            for part in parts:
                if part[1] is not None:
                    yield _comparison(name, to, *part)


def _comparison(name: str, to: FloatFormat, before: Any, after: Any, ours: Any, paper: Bounded, truth: Any) -> Comparison:
    if isinstance(truth, Bounded):
        near, error, own = truth.value, np.abs(after - truth.value), truth.error
    else:
        near = np.asarray(truth, dtype=np.float64)  # the truth as a sum of two float64, so that the difference is exact
        error, own = np.abs((after - near) - np.asarray(truth - near, dtype=np.float64)), 0.0
    if not isinstance(ours, Bounded):
        ours = exact(ours)
    bound = inflate(np.maximum(ours.error, paper.error) + own)
    # NaN and infinity are right where the truth has them too, and infinity where the bound reaches beyond the format's range
    beyond = np.isinf(after) & (np.sign(after) * near + np.nan_to_num(bound) > to.largest)
    special = (np.isnan(after) & np.isnan(near)) | (np.isinf(after) & (after == near)) | beyond
    error, bound = np.where(special, 0.0, error), np.where(special, 0.0, bound)
    ulps = to.in_ulps(error, before, after)
    return Comparison(name, error, bound, ulps, np.broadcast_to(ours.may_be_subnormal | paper.may_be_subnormal, np.shape(error)))


def _like(form: Any, columns: Any) -> Any:
    """Columns with None where ``form`` has it."""
    if isinstance(form, tuple):
        return tuple(map(_like, form, columns))
    return None if form is None else columns


def _flat(columns: Columns) -> list[Any]:
    """In the order of the comparisons."""
    parts = [part for x in columns for part in (x if isinstance(x, tuple) else (x,))]
    return [np.asarray(part, np.float64) for part in parts if part is not None]


class _Vectors:
    """Multiprecision for goldens, a vector at a time: NumPy arrays of mpmath numbers."""

    def __init__(self) -> None:
        n = multiprecision()
        self.number = np.frompyfunc(n.number, 1, 1)
        self.sqrt = np.frompyfunc(n.sqrt, 1, 1)
        self.exp = np.frompyfunc(n.exp, 1, 1)
        self.log = np.frompyfunc(n.log, 1, 1)
        self._sign = np.frompyfunc(n.sign, 1, 1)

    def sign(self, x: Any) -> Any:
        return Signs.settle(self._sign(x))


def _each(tree: Any, function: Any) -> Any:
    if isinstance(tree, tuple):
        return tuple(_each(item, function) for item in tree)
    return None if tree is None else function(tree)


def _filled(columns: Columns) -> Columns:
    """A golden keeps every slot: a zero where the rule keeps none, whose decay of 0 makes it irrelevant."""

    def fill(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(fill, x))
        return np.zeros_like(columns[0]) if x is None else x

    return tuple(map(fill, columns))


def _kept(old: Any, new: Any) -> Any:
    if isinstance(old, tuple):
        return tuple(map(_kept, old, new))
    return None if old is None else new
