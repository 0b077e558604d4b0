"""The same faults under checks as other libraries have them for their own optimizers, each rewritten here in that style.

None of these is a library's own test. Each follows the file that its docstring names, with the tolerances of that file, and is
run on the rules of this package. Reference rows come from the golden as it is, in floats, never from the rule.
"""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

from xopt.conformance.arithmetic.numbers import FLOAT
from xopt.conformance.faults.fault import Fault
from xopt.conformance.faults.planting import plant
from xopt.conformance.golden import GOLDENS, lift, start
from xopt.rule import Rule
from xopt.rules import RULES

Hyper = dict[str, Any]
Style = Callable[[Rule[Any, Any]], bool]
"""Whether a rule passes."""


@cache
def _reference(name: str, lr: float, decay: float, params: tuple[float, ...], grads: tuple[tuple[float, ...], ...]) -> Any:
    """The golden's parameters after each step, element by element."""
    golden = GOLDENS[name]
    hyper = lift(FLOAT, golden.defaults | _hyper(name, lr, decay))
    columns = []
    for i, value in enumerate(params):
        state = start(golden, FLOAT, value, hyper)
        column = []
        for t, grad in enumerate(grads, start=1):
            state = golden.step(FLOAT, *state, grad[i], t, **hyper)
            column.append(state[0])
        columns.append(column)
    return np.asarray(columns).T


def _hyper(name: str, lr: float, decay: float) -> Hyper:
    return {"lr": lr} | ({"weight_decay": decay} if decay and "weight_decay" in RULES[name].defaults else {})


def _follows(rule: Rule[Any, Any], lr: float, decay: float, params: Any, grads: Any, rtol: float, atol: float) -> bool:
    """Whether the rule's parameters stay near the golden's, in the dtype of ``params``."""
    key = tuple(map(float, params)), tuple(tuple(map(float, grad)) for grad in grads)
    state, hyper = rule.init(params), _hyper(rule.name, lr, decay)
    for grad, row in zip(grads, _reference(rule.name, lr, decay, *key), strict=True):
        state = rule.step(state, grad.astype(params.dtype), **hyper)
        if not np.allclose(state.params, row, rtol=rtol, atol=atol):
            return False
    return True


def golden_rows(rule: Rule[Any, Any]) -> bool:
    """Ten ones under a ramp of gradients, five steps, within 5e-4; and once with decay: after Keras's ``adam_test.py``."""
    params = np.ones(10, np.float32)
    grads = [np.arange(0.1, 1.05, 0.1, dtype=np.float32)] * 5
    return all(_follows(rule, lr, decay, params, grads, 5e-4, 5e-4) for lr, decay in ((1e-3, 0.0), (1e-2, 0.1)))


def _descends(rule: Rule[Any, Any], lr: float, gradient: Callable[[Any], Any], params: Any, steps: int) -> Any:
    state = rule.init(params)
    for _ in range(steps):
        state = rule.step(state, gradient(state.params), **_hyper(rule.name, lr, 0.0) | _no_decay(rule))
    return state.params


def _no_decay(rule: Rule[Any, Any]) -> Hyper:
    return {"weight_decay": 0.0} if "weight_decay" in rule.defaults else {}


def _parabola(x: Any) -> Any:
    return 2.0 * (x - np.asarray([1.0, -1.0]))


def _rosenbrock(x: Any) -> Any:
    a, b = x
    return np.asarray([-2.0 * (1.0 - a) - 400.0 * a * (b - a * a), 200.0 * (b - a * a)])


_RATES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
_TASKS: tuple[tuple[Callable[[Any], Any], tuple[float, float], int], ...] = (
    (_parabola, (1.0, -1.0), 1000),
    (_rosenbrock, (1.0, 1.0), 5000),
)


def _arrives(rule: Rule[Any, Any], task: int, lr: float) -> bool:
    gradient, target, steps = _TASKS[task]
    start = np.asarray([-1.0, 10.0] if task == 0 else [-1.0, 1.0])
    with np.errstate(all="ignore"):
        return bool(np.allclose(_descends(rule, lr, gradient, start, steps), target, rtol=3e-2, atol=3e-2))


@cache
def _rate(name: str, task: int) -> float | None:
    """The largest learning rate with which the right rule arrives; None where it never does."""
    return next((lr for lr in _RATES if _arrives(RULES[name], task, lr)), None)


def converges(rule: Rule[Any, Any]) -> bool:
    """Ends within 3e-2 of the minimum of a parabola and of Rosenbrock's function: after optax's ``alias_test.py``."""
    rates = [(task, _rate(rule.name, task)) for task in range(len(_TASKS))]
    return all(_arrives(rule, task, lr) for task, lr in rates if lr is not None)


def loss_goes_down(rule: Rule[Any, Any]) -> bool:
    """The loss of a small linear model is lower after twenty steps than before: after torch's ``test_optim.py``."""
    draw = np.random.default_rng(0)
    weight, bias, data = draw.standard_normal((10, 5)), draw.standard_normal(10), draw.standard_normal(5)

    def loss(w: Any, b: Any) -> float:
        return float(np.sum((w @ data + b) ** 2))

    state = rule.init({"weight": weight, "bias": bias})
    before = loss(weight, bias)
    for _ in range(20):
        residual = 2.0 * (state.params["weight"] @ data + state.params["bias"])
        state = rule.step(state, {"weight": np.outer(residual, data), "bias": residual}, lr=1e-3)
    return loss(state.params["weight"], state.params["bias"]) < before


def golden_file(rule: Rule[Any, Any]) -> bool:
    """1001 steps in float64, looked at each hundredth, rtol 1e-3 and atol 5e-4: after torch's ``test/cpp/api/optim.cpp``."""
    return all(_sampled(rule, lr, decay) for lr, decay in ((1e-2, 0.0), (1e-2, 1e-2)))


_CURVATURES = np.asarray([0.1, 0.5, 1.0, 2.0])
_START = np.asarray([1.0, -2.0, 0.5, 3.0])


@cache
def _file(name: str, lr: float, decay: float) -> Any:
    golden = GOLDENS[name]
    hyper = lift(FLOAT, golden.defaults | _hyper(name, lr, decay))
    rows = []
    for value, curvature in zip(_START.tolist(), _CURVATURES.tolist(), strict=True):
        state = start(golden, FLOAT, value, hyper)
        row = []
        for t in range(1, 1002):
            state = golden.step(FLOAT, *state, curvature * state[0], t, **hyper)
            if t % 100 == 1:
                row.append(state[0])
        rows.append(row)
    return np.asarray(rows).T


def _sampled(rule: Rule[Any, Any], lr: float, decay: float) -> bool:
    state, rows = rule.init(_START.copy()), iter(_file(rule.name, lr, decay))
    for t in range(1, 1002):
        state = rule.step(state, _CURVATURES * state.params, **_hyper(rule.name, lr, decay))
        if t % 100 == 1 and not np.allclose(state.params, next(rows), rtol=1e-3, atol=5e-4):
            return False
    return True


STYLES: dict[str, Style] = {
    "golden rows, 5e-4 (as in Keras)": golden_rows,
    "converges to 3e-2 (as in optax)": converges,
    "loss goes down (as in torch)": loss_goes_down,
    "golden file, 1e-3 (as in torch's C++)": golden_file,
}


def comparable(fault: Fault) -> bool:
    """Whether it is a fault of a rule's own formula, which each of the styles could see."""
    return fault.kind == "rule" and not fault.equivalent


def caught(fault: Fault) -> dict[str, bool]:
    """For each style, whether a check in it sees the fault. An error counts as seen."""
    rule = plant(fault).rules[fault.rule]
    return {style: not _passes(check, rule) for style, check in STYLES.items()}


def _passes(check: Style, rule: Rule[Any, Any]) -> bool:
    try:
        with np.errstate(all="ignore"):
            return check(rule)
    except Exception:  # noqa: BLE001 - whatever a wrong rule raises
        return False


def comparison_table(found: Iterable[tuple[Fault, dict[str, bool], bool]]) -> str:
    """Markdown: how many faults of formulas each style sees, by rule.

    Parameters
    ----------
    found
        Fault, what the styles see of it, and whether the checks of this package see it.
    """
    rows = [(fault.rule, styles | {"this package": ours}) for fault, styles, ours in found if styles]
    styles = (*STYLES, "this package")
    lines = [f"| rule | {' | '.join(styles)} |", "|---" * (len(styles) + 1) + "|"]
    for name in (*dict.fromkeys(rule for rule, _ in rows), "all"):
        own = [seen for rule, seen in rows if name in (rule, "all")]
        lines.append(f"| {name} | {' | '.join(f'{sum(seen[style] for seen in own)}/{len(own)}' for style in styles)} |")
    return "\n".join(lines)
