"""What the comparison with the golden lets pass and what it does not, in single steps and in a replay."""

from dataclasses import replace

import numpy as np

from xopt.conformance.arithmetic.bounded import exact
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS
from xopt.conformance.compare import comparison as comparison_module
from xopt.conformance.compare.candidate import Shapes
from xopt.conformance.compare.check import check_rule
from xopt.conformance.compare.reference import Reference
from xopt.conformance.golden import GOLDENS
from xopt.conformance.inputs.trajectories import PARTS, ROWS, Trajectory
from xopt.conformance.results import IDENTICAL, SUBNORMALS, WITHIN, WRONG
from xopt.conformance.selfcheck.checks import check, must
from xopt.conformance.selfcheck.subjects import RIGHT, TARGETS, TOO_FAR, Flushing, Raising, changed, compared, off, standing_in
from xopt.conformance.target import Effort
from xopt.conformance.training import data, replay_rule
from xopt.rules import RULES


@check
def what_is_right_has_the_verdict_of_what_is_right() -> None:
    for dtype in ("float32", "float64", "float16"):
        cell = check_rule("adamw", dtype, TARGETS[:1], Effort(8, pool=4, shrink=False))[0]
        must(cell.verdict == IDENTICAL, f"what is right is {cell.verdict} in {dtype}: {cell.wrong}")
        must(0.3 < cell.ratio <= 1, f"the largest error/bound in {dtype} is {cell.ratio}")
        must(cell.examples == 8 and cell.trajectories == 8 * ROWS, "examples are lost")
        must(cell.vacuous < cell.elements / 8, f"{cell.vacuous} of {cell.elements} numbers are vacuous in {dtype}")
        must(sum(cell.histogram) > 100, "the histogram is empty")


@check
def up_to_the_bound_is_right_and_beyond_it_is_wrong() -> None:
    for bounds in RIGHT:
        with off(bounds):
            numpy, strict = compared()
        must((numpy.verdict, strict.verdict) == (IDENTICAL, WITHIN), f"{bounds} bounds are {strict.verdict}")
        must(abs(strict.ratio - bounds) < 1e-3 or strict.ratio > bounds, f"{bounds} bounds are shown as {strict.ratio}")
        must(strict.differ > 0, "numbers of other bits are not counted")
    for bounds in TOO_FAR:
        with off(bounds):
            numpy, strict = compared(examples=7)
        must((numpy.verdict, strict.verdict) == (IDENTICAL, WRONG), f"{bounds} bounds are {strict.verdict}")
        must(strict.wrong is not None and strict.wrong["error"] > strict.wrong["bound"], "what is wrong is not shown")
        must(numpy.examples == 7, "the others do not go on")


@check
def one_number_is_enough() -> None:
    """In the first leaf, and in the last."""
    for moved in (slice(0, 1), slice(-1, None)):
        with off(1.5, moved):
            must(compared()[1].verdict == WRONG, f"the number at {moved} is not looked at")
        with off(0.9, moved):
            strict = compared(examples=4)[1]
        must(strict.verdict == WITHIN, f"bits of the number at {moved} are not compared: {strict.verdict}")
        must(
            0 < strict.differ <= len(PARTS) * strict.examples,
            f"{strict.differ} numbers differ at {moved} in {strict.examples} examples",
        )


@check
def each_step_and_the_whole_are_compared() -> None:
    rule = RULES["momentum"]
    state, grads = rule.init(np.ones(3)), [np.full(3, 0.5), np.full(3, -0.25), np.full(3, 2.0)]
    columns = [(state.params, state.v)]
    for grad in grads:
        state = rule.step(state, grad)
        columns.append((state.params, state.v))
    case = Trajectory(0, {}, np.ones(3), grads, [np.False_] * 3)
    shapes: Shapes = {"all": (3,)}
    judge = comparison_module.Comparer(rule, GOLDENS["momentum"], "float64", [], shapes)
    results = judge._compare(case, FLOAT_FORMATS["float64"], False, columns)
    must([len(local) for local, _ in results] == [2, 2, 2], "columns are left out")
    must([len(whole) for _, whole in results] == [2, 2, 2], "columns of the trajectory are left out")
    bounds = [[float(np.max(c.bound)) for c in (local[0], whole[0])] for local, whole in results]
    must(bounds[0][0] == bounds[0][1] and bounds[2][0] < bounds[2][1], f"a trajectory has the bound of a step: {bounds}")
    for t in range(3):
        for at in (0, 1):
            wrong = list(columns)
            wrong[t + 1] = tuple(c + 1e-3 if i == at else c for i, c in enumerate(wrong[t + 1]))
            place = comparison_module.Summary(judge._compare(case, FLOAT_FORMATS["float64"], False, wrong)).wrong
            must(place is not None and place.step == t + 1, f"column {at} of step {t + 1} is not compared: {place}")


@check
def what_is_no_number_is_wrong() -> None:
    known = Reference(RULES["sgd"], {}, FLOAT_FORMATS["float32"], FLOAT_FORMATS["float32"], False)
    for after, ratio in ((np.nan, np.inf), (np.inf, np.inf), (-np.inf, np.inf)):
        known.restart((np.ones(1),))
        (comparison,) = known.step(np.ones(1), 1, (np.full(1, after),))
        must(comparison.ratio[0] == ratio, f"{after} for a number has the ratio {comparison.ratio}")
        summary = comparison_module.Summary([([comparison], [comparison])])
        must(summary.wrong is not None, f"{after} for a number is not wrong")
    known.restart((np.full(1, np.nan),))
    (comparison,) = known.step(np.ones(1), 1, (np.full(1, np.nan),))
    must(comparison.ratio[0] == 0, "NaN for NaN is wrong")
    known = Reference(RULES["sgd"], {"lr": 1.0}, FLOAT_FORMATS["float32"], FLOAT_FORMATS["float32"], False)
    known.restart((np.full(1, 3.0e38),))
    (comparison,) = known.step(np.full(1, -3.0e38), 1, (np.full(1, np.inf),))
    must(not comparison.ratio[0] > 1, "infinity beyond the range is wrong")
    known = Reference(RULES["sgd"], {"lr": 1.0}, FLOAT_FORMATS["float32"], FLOAT_FORMATS["float16"], False)
    known.restart((np.full(1, 6.0e4),))
    (comparison,) = known.step(np.full(1, -6.0e4), 1, (np.full(1, -np.inf),))
    must(comparison.ratio[0] > 1, "infinity on the other side is right")
    huge = {"lr": 2.0**32, "beta2": 0.0, "nu1": 2.0**32, "nu2": 0.0}  # the gradient is what is left of two that cancel
    known = Reference(RULES["qhadam"], huge, FLOAT_FORMATS["float32"], FLOAT_FORMATS["float16"], False)
    for after in (np.inf, -np.inf):
        known.restart((np.zeros(1), np.zeros(1), None))
        comparison = known.step(np.full(1, 2.0**-13), 1, (np.full(1, after), np.full(1, 2.0**-13 * 0.005), None))[0]
        must(not comparison.ratio[0] > 1, f"{after} is wrong where the bound reaches beyond the range on both sides")
    known = Reference(RULES["adam"], {}, FLOAT_FORMATS["float32"], FLOAT_FORMATS["float32"], False)
    for squares, wrong in ((0.0, True), (np.inf, False)):  # of 1e30 the square is infinite, and infinity less infinity is NaN
        known.restart((np.ones(1), np.zeros(1), np.full(1, squares)))
        comparison = known.step(np.full(1, 1e30), 1, (np.full(1, np.nan), np.full(1, 1e29), np.full(1, np.inf)))[0]
        must(bool(comparison.ratio[0] > 1) is wrong, f"NaN for a number without a bound is wrong: {not wrong}")


@check
def bits_are_compared_everywhere() -> None:
    one = (np.asarray([1.0, np.nan, 0.0, np.inf]), None, 0.5, (np.ones(2), np.zeros(2)))
    must(not any(np.any(mask) for mask in comparison_module._differ(one, one)), "equal states differ")
    other = (np.asarray([2.0, 1.0, -0.0, -np.inf]), None, 0.25, (np.ones(2), np.asarray([0.0, 1e-300])))
    masks = [np.asarray(mask).tolist() for mask in comparison_module._differ(one, other)]
    must(masks == [[True, True, False, True], True, [False, False], [False, True]], f"other bits are {masks}")
    flushing = replace(TARGETS[1], formats={"float32": replace(FLOAT_FORMATS["float32"], flushes=True)})
    with standing_in(Flushing):
        flushed = check_rule("adam", "float32", [TARGETS[0], flushing], Effort(12, pool=8, shrink=False))[1]
    must(flushed.verdict == SUBNORMALS and flushed.differ == 0, f"a flushed subnormal is {flushed.verdict}")
    single = FLOAT_FORMATS["float32"]
    quotient = exact(np.asarray([1.0, 2.0**-10]), single) / (exact(single.largest, single) * exact(1.0 + single.unit, single))
    must(not np.isfinite(quotient.error).any(), "the divisor is not beyond the range")
    must(quotient.may_be_subnormal.tolist() == [True, True], "a number without a bound cannot be subnormal")


@check
def truth_is_the_goldens() -> None:
    """A rule that is wrong in text and in bound alike is held against another text, and a golden against the rule."""
    wrong = changed("sgd", lambda params: params * (1.0 + 2.0**-10))
    must([cell.verdict for cell in compared(rules=wrong)] == [WRONG] * 2, "a rule is its own truth")
    right = GOLDENS["sgd"]
    twice = right._replace(step=lambda n, params, grad, t, **hyper: right.step(n, params, 2 * grad, t, **hyper))
    must([cell.verdict for cell in compared(goldens={"sgd": twice})] == [WRONG] * 2, "the golden is not asked")
    other = right._replace(defaults=right.defaults | {"lr": 0.5})
    must(
        [cell.verdict for cell in compared(goldens={"sgd": other}, examples=12)] == [WRONG] * 2,
        "the golden's defaults are not asked",
    )
    known = Reference(RULES["sgd"], {}, FLOAT_FORMATS["float64"], FLOAT_FORMATS["float64"], False)
    known.restart((np.full(1, 0.1),))
    known.step(np.full(1, 0.3), 1, (np.full(1, 0.1),))
    must(known.truth[0].dtype == object, "the truth of float64 is no finer than float64")


@check
def what_raises_is_wrong_and_the_others_go_on() -> None:
    with standing_in(Raising):
        numpy, strict = compared()
    must((numpy.verdict, numpy.examples, strict.verdict) == (IDENTICAL, 3, WRONG), f"{numpy.verdict}, {strict.verdict}")
    must(strict.wrong is not None and "illegal memory access" in strict.wrong["message"], "the error is not shown")


@check
def a_replay_compares_and_may_be_wrong() -> None:
    steps = 3
    right, other = replay_rule("sgd", TARGETS, steps)
    size = len(data.start())
    for found in (right, other):
        must(found.verdict == IDENTICAL, f"what is right is {found.verdict}")
        must(found.replayed["elements"] == steps * size, f"{found.replayed['elements']} numbers of {steps * size}")
        must(len(found.losses) == len(found.distances) == steps, "nothing is trained")
    with off(2.0):
        numpy, strict = replay_rule("sgd", TARGETS, steps)
    must((numpy.verdict, strict.verdict) == (IDENTICAL, WRONG), f"2 bounds in a replay are {strict.verdict}")
