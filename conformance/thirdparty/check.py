"""``xopt.conformance.check``: what a target computes, and how it behaves."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xopt.backends.names import unknown
from xopt.conformance.conventions import CONVENTIONS
from xopt.conformance.thirdparty import verdict as words
from xopt.conformance.thirdparty.behaviour import FAILED, HELD, NOT_TRIED, Finding, behaviour
from xopt.conformance.thirdparty.diagnosis import APART, Diagnosis, diagnose
from xopt.conformance.thirdparty.measure import Judge, Place, Seen
from xopt.conformance.thirdparty.names import holds
from xopt.conformance.thirdparty.probe import Run, designed_numbers, runs
from xopt.conformance.thirdparty.report import program
from xopt.conformance.thirdparty.sandbox import TargetFailedError
from xopt.conformance.thirdparty.state import followed
from xopt.conformance.thirdparty.subject import Subject
from xopt.conformance.thirdparty.targets import TargetError, name_of
from xopt.conformance.thirdparty.variants import ALL, COARSE, COEFFICIENTS, Variant, is_default, is_rounding, rows_of
from xopt.conformance.thirdparty.verdict import Checked, Formula, Named
from xopt.rules import RULES

FORMULA_DTYPES = ("float32", "float64")
"""In which formulas are compared."""

SMALL = 2.0**-12
"""By which the designed gradients are multiplied, to see whether larger ones are clipped."""

DEFAULTS = "the defaults"
STATE = "the state, step by step"
"""What the checks of them are called."""

_COARSE = {
    COEFFICIENTS: Named(COEFFICIENTS, "The coefficients have float32's digits.", "rounding", "", ""),
    ALL: Named(ALL, "It has float32's digits, whatever the dtype.", "rounding", "", ""),
}


def check(
    target: str | Callable[..., Any],
    rule: str | None = None,
    *,
    given: Mapping[str, Any] | None = None,
    conventions: Sequence[str] = (),
    dtypes: Sequence[str] = FORMULA_DTYPES,
    limit: float = 10.0,
    seconds: float = 60.0,
    seed: int = 0,
    formula: Callable[[Checked], None] | None = None,
) -> Checked:
    """What an optimizer computes: the rule, a convention of it that has a name, or something else; and how it behaves.

    Parameters
    ----------
    target
        Its name, such as ``"torch:torch.optim.AdamW"``, ``"optax:optax.adamw"``, ``"keras:keras.optimizers.Lion"``,
        ``"py:package.module:factory"`` or ``"cmd:./program"``, which is run in a process of its own; or a callable, which is run
        in this one: a class of torch's form, ``(params, **hyper)`` that makes one, a pure function ``(params, grad, state,
        **hyper) -> (params, state)``, or ``(**hyper)`` that makes an object with ``init`` and ``step``, or with ``init`` and
        ``update`` as optax's have.
    rule
        The rule that it claims to be, a name of ``xopt.RULES``. Default: whichever fits.
    given
        Values that hyperparameters of the rule keep, by the rule's names, and other arguments of the target.
    conventions
        Those that are right for it, as ``"weight decay: L2"``; the names are in the table of conventions.
    dtypes
        Of float32 and float64, those in which the formula is compared. Default: both, as far as the target has them.
    limit, seconds
        Seconds that one answer may take, and the whole.
    seed
        Of the random trajectories.
    formula
        Called with what was found of the formula, before the behaviour is tried.

    Returns
    -------
    Checked
        True where it agrees and behaves; ``str()`` of it says what was found. Whatever the target does is a verdict: nothing
        that it raises is raised here.

    Raises
    ------
    ValueError
        For a rule, a convention or a dtype that there is not.
    """
    must_be_known(rule, conventions, dtypes)
    checked = Checked(name_of(target), rule, asked=rule is not None, accepted=list(conventions))
    began = time.monotonic()
    try:
        with Subject(target, given or {}, limit) as subject:
            checked.about = subject.about._asdict()
            inquiry = _Inquiry(subject, checked, seed, lambda: time.monotonic() - began > seconds)
            inquiry.formula([dtype for dtype in dtypes if dtype in subject.about.dtypes])
            checked.first_seconds = time.monotonic() - began
            if formula is not None:
                formula(checked)
            inquiry.behaviour()
    except TargetError as error:
        checked.verdict, checked.words = words.NO_TARGET, str(error)
    except TargetFailedError as error:
        checked.verdict, checked.words = error.what, f"{_CAPITAL[error.what]}: {error}"
    checked.seconds = time.monotonic() - began
    return checked


def formulas_of(subject: Subject, rule: str | None, dtypes: Sequence[str], seed: int = 0) -> Checked:
    """What a check says of the formula alone, of a target that is being asked."""
    checked = Checked(subject.name, rule, asked=rule is not None)
    _Inquiry(subject, checked, seed, lambda: False).formula([dtype for dtype in dtypes if dtype in subject.about.dtypes])
    return checked


_CAPITAL = {"crashed": "It crashed", "hung": "It hangs", "garbage": "What it answers is garbage", "raised": "It raises an error"}


def must_be_known(rule: str | None, conventions: Sequence[str], dtypes: Sequence[str]) -> None:
    if rule is not None and rule not in RULES:
        raise ValueError(unknown("rule", rule, RULES))
    known = [row.what for row in CONVENTIONS if rule in (None, row.rule)] + list(COARSE)
    for name in conventions:
        if name not in known:
            raise ValueError(unknown(f"convention of {rule or 'any rule'}", name, known))
    for dtype in dtypes:
        if dtype not in FORMULA_DTYPES:
            raise ValueError(unknown("dtype", dtype, FORMULA_DTYPES))


class _Inquiry:
    """Fills in what is found of one target."""

    def __init__(self, subject: Subject, checked: Checked, seed: int, enough: Callable[[], bool]) -> None:
        self.subject = subject
        self.checked = checked
        self.seed = seed
        self.enough = enough

    def formula(self, dtypes: Sequence[str]) -> None:
        """The verdict."""
        if not dtypes:
            self.checked.words = (
                f"Its dtypes are {', '.join(self.subject.about.dtypes)}: a formula is compared in {' or '.join(FORMULA_DTYPES)}."
            )
            return
        rule = self.checked.rule or self._identified(dtypes[0])
        if rule is None:
            return
        self.checked.rule = rule
        for dtype in dtypes:
            seen = self._seen(rule, dtype, late=dtype == dtypes[0])
            found = diagnose(rule, seen)
            small = None if found.variants or found.factor else self._of_small_gradients(rule, dtype)
            self.checked.formulas.append(_formula(found, seen, small))
        self.checked.verdict, self.checked.words = _verdict(self.checked)
        for one in self.checked.formulas:
            right = one.fits and not self._refused(one)
            self.checked.findings.append(
                Finding(f"the formula in {one.dtype}", HELD if right else FAILED, _said(rule, one, self.checked.accepted))
            )
        self.checked.findings.append(self._defaults(rule, dtypes[0]))
        off = [one.where for one in self.checked.formulas if one.where]
        if self.checked.verdict != words.AGREES and off:
            self.checked.program = program(self.checked, off[0])

    def behaviour(self) -> None:
        if self.checked.rule is not None and self.checked.formulas:
            self.checked.findings.append(self._state(self.checked.rule))
        self.checked.findings += behaviour(self.subject, self.checked.rule, self.enough)

    def _refused(self, one: Formula) -> list[str]:
        return [row.name for row in one.conventions if row.name not in self.checked.accepted and row.status != "same"]

    def _seen(self, rule: str, dtype: str, late: bool = False) -> list[Seen]:
        """What it does in each run. One that it refuses was not tried; the designed one it must take."""
        subject = self.subject
        seen: list[Seen] = []
        changes = subject.about.changes and "lr" in subject.takes(rule)
        for run in runs(rule, subject.takes(rule), changes, self.seed):
            if run.kind == "defaults" or (run.idle and not late):
                continue
            if seen and self.enough():
                self._not_tried(f"{run.name}, {dtype}", "the time was up")
                continue
            try:
                seen.append(subject.see(rule, run, dtype))
            except TargetFailedError as error:
                if error.what not in ("raised", "late") or run.kind != "designed" or run.name == "designed":
                    raise
                self._not_tried(f"{run.name}, {dtype}", f"it refuses: {error}" if error.what == "raised" else f"{error}")
            else:
                self.checked.runs.append(f"{run.name}, {dtype}")
        return seen

    def _of_small_gradients(self, rule: str, dtype: str) -> Variant | None:
        """What it computes where no gradient is large enough to be clipped."""
        run = next(runs(rule, self.subject.takes(rule), changes=False, random=0))
        try:
            seen = self.subject.see(rule, run._replace(grads=SMALL * run.grads), dtype)
        except TargetFailedError as error:
            if error.what != "raised":
                raise
            return None
        return next(iter(diagnose(rule, [seen]).variants), None)

    def _not_tried(self, what: str, why: str) -> None:
        self.checked.findings.append(Finding(f"run: {what}", NOT_TRIED, why))

    def _identified(self, dtype: str) -> str | None:
        """The rule whose variant fits with the fewest departures, where it is alone in that."""
        found: list[tuple[float, int, str, Diagnosis]] = []
        needed = set(self.subject.about.arguments)
        for rule in RULES:
            takes = self.subject.takes(rule) | set(self.subject.fixed(rule))
            if not takes >= set(RULES[rule].defaults) or not self.subject.takes(rule):
                continue
            try:
                seen = self._seen(rule, dtype)
            except TargetFailedError as error:
                if error.what != "raised":
                    raise
                continue
            diagnosis = diagnose(rule, seen)
            if diagnosis.variants:
                idle = len(needed) - len(self.subject.takes(rule))
                found.append((diagnosis.variants[0].departures, idle, rule, diagnosis))
        self.checked.findings.clear()
        self.checked.runs.clear()
        found.sort(key=lambda one: one[:2])
        self.checked.candidates = [repr(one[3].variants[0]) for one in found]
        if not found:
            self.checked.verdict, self.checked.words = (
                words.UNKNOWN,
                "No rule here, nor any that differs from one by two conventions, fits.",
            )
            return None
        best = found[0]
        if best[3].thin or best[3].measure.vacuous > best[3].measure.numbers // 2:
            self.checked.words = (
                f"The evidence is too thin for a name: {best[3].variants[0]!r} fits, and {best[3].next!r} is only "
                f"{_amount(best[3].next_ratio)} of its bound away, where {APART:g} are asked for."
            )
            return None
        return best[2]

    def _defaults(self, rule: str, dtype: str) -> Finding:
        """Whether it does, with nothing given, what its signature says, and which defaults are not the rule's."""
        unsaid = {
            name: x for name, x in self.subject.about.arguments.items() if isinstance(x, str) and holds(name, RULES[rule].defaults)
        }
        if unsaid:
            said = ", ".join(f"{name} is {x!r}" for name, x in unsaid.items())
            return Finding(DEFAULTS, NOT_TRIED, f"{said}, which is no number")
        params, grads = designed_numbers()
        run = Run("its own defaults", {}, params, grads, kind="defaults")
        try:
            seen = self.subject.see(rule, run, dtype)
        except TargetFailedError as error:
            if error.what != "raised":
                raise
            return Finding(DEFAULTS, NOT_TRIED, f"without arguments it raises {error}")
        own = RULES[rule].defaults
        fitting = next((one for one in self.checked.formulas if one.fits), None)
        if fitting is None:
            return Finding(DEFAULTS, NOT_TRIED, "what it computes has no name")
        variant = Variant.of(rule, [named.name for named in fitting.conventions])
        differ = {name: x for name, x in seen.run.hyper.items() if x != own[name] and name not in self.subject.fixed(rule)}
        if Judge(variant).measure([seen]).fits:
            said = "; ".join(f"{name} is {x!r}, and {own[name]!r} in {rule}" for name, x in differ.items())
            return Finding(DEFAULTS, HELD, said or f"those of {rule}")
        for row in rows_of(rule):
            if is_default(row) and Judge(Variant(rule, [*variant.conventions, row], variant.coarse)).measure([seen]).fits:
                return Finding(DEFAULTS, FAILED, f"it computes with another default than it says: {row.what}")
        return Finding(DEFAULTS, FAILED, "with nothing given it does not compute with the defaults that its signature says")

    def _state(self, rule: str) -> Finding:
        """Whether each step is right from the state that the target itself had, where that can be read."""
        subject, said = self.subject, []
        fitting = [one for one in self.checked.formulas if one.fits]
        why = "" if subject.about.state else "its state cannot be read"
        why = why or ("" if fitting else "what it computes has no name") or ("" if RULES[rule].slots else f"{rule} keeps none")
        if why:
            return Finding(STATE, NOT_TRIED, why)
        for one in fitting:
            variant = Variant.of(rule, [named.name for named in one.conventions])
            for run in runs(rule, subject.takes(rule), changes=False, random=0):
                if run.name not in ("designed", "usual"):
                    continue
                if self.enough():
                    return Finding(STATE, NOT_TRIED, "the time was up")
                read: list[dict[str, Any]] = []
                try:
                    seen = subject.see(rule, run, one.dtype, read)
                except TargetFailedError as error:
                    if error.what in ("hung", "crashed"):
                        raise
                    return Finding(STATE, NOT_TRIED, f"its state cannot be read: {error}")
                found = followed(variant, seen, read)
                if found.missing:
                    kept = f"what can be read, {', '.join(read[0])}," if read[0] else "what has a name in its state"
                    return Finding(STATE, NOT_TRIED, f"{kept} is not {' or '.join(found.missing)} of {rule}")
                names = ", ".join(f"{slot} is {name}" for slot, name in found.names.items())
                if found.ratio > 1:
                    words = f"{names}, and {found.where}, from its own state, is {_amount(found.ratio)} bounds away ({one.dtype})"
                    return Finding(STATE, FAILED, words)
                part = "followed" if math.isnan(found.ratio) else f"from its own state error/bound {_amount(found.ratio)}"
                if found.order is not None and found.order.names != variant.names:
                    part += f" of {found.order!r}"
                said.append(f"{names}: {part} ({run.name}, {one.dtype})")
        return Finding(STATE, HELD, "; ".join(said))


def _formula(found: Diagnosis, seen: Sequence[Seen], small: Variant | None) -> Formula:
    variants, factor = found.variants, found.factor
    measure = found.measure
    return Formula(
        dtype=seen[0].dtype,
        conventions=_named(variants[0]) if variants else [],
        ties=[one.names for one in variants[1:] if _other_formula(one) != _other_formula(variants[0])],
        fits=bool(variants),
        ratio=_finite(measure.ratio),
        ulps=_finite(measure.ulps),
        numbers=measure.numbers,
        vacuous=measure.vacuous,
        next="" if found.next is None else repr(found.next),
        next_ratio=_finite(found.next_ratio),
        factor=None if factor is None else [factor.name, factor.factor],
        value=None if factor is None else factor.value,
        partly=None if found.partly is None else found.partly.names,
        small=None if small is None else small.names,
        where=_where(found.own.first) if found.own and found.own.first else None,
        nearest=[[name, _finite(ratio)] for name, ratio in found.nearest],
    )


def _other_formula(variant: Variant) -> frozenset[str]:
    return frozenset(row.what for row in variant.conventions if not is_rounding(row))


def _named(variant: Variant) -> list[Named]:
    rows = [
        Named(row.what, row.sentence, "same" if row.same else row.status, row.documented, row.seen) for row in variant.conventions
    ]
    return rows + ([_COARSE[variant.coarse]] if variant.coarse else [])


def _where(place: Place) -> dict[str, Any]:
    return {
        "run": place.run.name,
        "hyper": dict(place.run.hyper),
        "lrs": list(place.run.lrs),
        "idle": place.run.idle,
        "step": place.run.idle + place.step,
        "element": place.element,
        "params": float(place.run.params[place.element]),
        "grads": [float(grad[place.element]) for grad in place.run.grads[: place.step]],
        "found": _finite(place.found),
        "expected": _finite(place.expected),
        "bound": _finite(place.bound),
        "dtype": place.dtype,
    }


def _verdict(checked: Checked) -> tuple[str, str]:
    rule = checked.rule
    assert rule is not None
    off = [one for one in checked.formulas if not one.fits]
    if off:
        return words.UNKNOWN, " ".join(_said(rule, one, checked.accepted) for one in checked.formulas)
    found = {row.name: row for one in checked.formulas for row in one.conventions}
    others = [row for row in found.values() if row.status != "same" and row.name not in checked.accepted]
    kind = words.AGREES
    if others:
        kind = words.CONVENTION if all(row.status in ("convention", "rounding") for row in others) else words.FORMULA
    return kind, _said(rule, max(checked.formulas, key=lambda one: len(one.conventions)), checked.accepted)


def _said(rule: str, one: Formula, accepted: Sequence[str]) -> str:
    """What one dtype shows, in a sentence or two."""
    if not one.fits:
        return " ".join(_unknown(rule, one))
    nearest = f"; the next best, {one.next}, is {_amount(one.next_ratio)} bounds away" if one.next else ""
    measured = f"error/bound {_amount(one.ratio)}, {_amount(one.ulps)} ulps, in {one.numbers:,} numbers of {one.dtype}"
    others = [row for row in one.conventions if row.status != "same"]
    same = [row.name for row in one.conventions if row.status == "same"]
    how = f" ({' and '.join(same)}: the same but for rounding)" if same else ""
    tied = "".join(f", or {' and '.join(tie) or 'without'}" for tie in one.ties)
    if not others:
        return f"{rule}{how}{tied}: {measured}{nearest}."
    asked = "" if all(row.name in accepted for row in others) else "Not the rule of the paper: "
    return f"{asked}{rule} with {' and '.join(row.name for row in others)}{how}{tied}: {measured}{nearest}."


def _unknown(rule: str, one: Formula) -> Iterator[str]:
    """Sentences on what has no name."""
    ratio = _amount(one.ratio)
    yield f"Not {rule} in {one.dtype}, nor what it is with up to three conventions of another: error/bound {ratio}."
    if one.value is not None and one.factor:
        yield f"It is {rule} with {one.factor[0]} = {one.value:.6g}, whatever it is given."
    elif one.factor:
        yield f"It is {rule} with {one.factor[0]} x {one.factor[1]:.6g}."
    elif one.small is not None:
        large = SMALL * float(np.max(np.abs(designed_numbers()[1])))
        yield f"Where no gradient is above {large:.2g}, it is {' and '.join([rule, *one.small])}: are larger ones clipped?"
    elif one.partly is not None:
        yield f"On the designed numbers it is {' and '.join([rule, *one.partly])}."
    if one.where:
        yield f"First off in run {one.where['run']!r}, step {one.where['step']}, element {one.where['element']}."
    if one.next:
        yield f"The next best, {one.next}, is {_amount(one.next_ratio)} bounds away."


def _amount(x: float | None) -> str:
    return "infinitely many" if x is None or math.isinf(x) else f"{x:.2g}"


def _finite(x: float) -> float | None:
    return float(x) if math.isfinite(x) else None
