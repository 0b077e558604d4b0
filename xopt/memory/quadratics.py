"""How fast a rule converges on quadratics, by the eigenvalues of its state matrix."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from xopt.checks import shown
from xopt.memory.system import behind, numbers, rest, slots_of
from xopt.program import is_linear

if TYPE_CHECKING:
    from xopt.memory.recall import Memory


def rates(memory: "Memory", curvatures: Any, lrs: Any, precondition: bool) -> Any:
    """See ``Memory.rates``."""
    _refuse_nonlinear(memory, precondition)
    h = numbers("memory.rates", "curvatures", curvatures)
    if "lr" not in memory.rule.defaults and lrs is not None:
        msg = f"memory of {memory.rule.name}: it has no hyperparameter lr"
        raise ValueError(msg)
    etas = [None] if lrs is None else np.ravel(numbers("memory.rates", "lrs", lrs)).tolist()
    found = np.stack([_radii(_matrices(memory, eta, h.ravel())) for eta in etas])
    return found.reshape((() if lrs is None else np.shape(lrs)) + h.shape)


def _matrices(memory: "Memory", lr: float | None, curvatures: Any) -> Any:
    """Of a step that maps the distance from the minimum and the slots to new ones, for each curvature."""
    hyper = memory.hyper if lr is None else memory.hyper | {"lr": lr}
    at = rest(memory.rule, hyper, carried=memory.rest.carried)
    if at is None:
        at = memory.rest  # raises
    values = at.sloped(1.0, held=True)
    after = {name: values[at.program.writes[name]].slopes for name in slots_of(at.program)}
    names = ("params", *behind(values[at.program.writes["params"]].slopes, after))
    matrix = np.zeros((len(curvatures), len(names), len(names)))
    for i, one in enumerate(names):
        slopes = values[at.program.writes[one]].slopes
        for j, other in enumerate(names):
            matrix[:, i, j] = slopes.get(other, 0.0)
        matrix[:, i, 0] += curvatures * slopes.get("grad", 0.0)
    return matrix


def _radii(matrices: Any) -> Any:
    return np.max(np.abs(np.linalg.eigvals(matrices)), axis=-1)


def _refuse_nonlinear(memory: "Memory", precondition: bool) -> None:
    program = memory.rest.program
    names = {operation.name for operation in program.operations}
    if is_linear(program.operations, program.arrays) or (precondition and not names & {"sign", "abs", "where"}):
        return
    why = "takes a sign" if "sign" in names else "divides one array by another" if "divide" in names else "is not linear"
    way = "; precondition=True holds what divides at 1" if "sign" not in names and not precondition else ""
    msg = f"memory of {memory.rule.name}: its step {why}, so that no state matrix says how it converges on a quadratic{way}"
    raise ValueError(msg)


def stability_limit(memory: "Memory", curvature: float, precondition: bool) -> float:
    """See ``Memory.stability_limit``: raised from far below until steps diverge, then by bisection, to rounding."""

    def diverges(lr: float, beyond: float = 1e-13) -> bool:
        return bool(rates(memory, curvature, lr, precondition) > 1.0 + beyond)

    if numbers("memory.stability_limit", "curvature", curvature).shape or not curvature > 0.0:
        msg = f"memory.stability_limit: curvature must be a number above 0, got {shown(curvature)}"
        raise ValueError(msg)
    low = 1e-9 / curvature
    if diverges(low):
        return 0.0
    while not diverges(high := 1.25 * low):
        low = high
        if low * curvature > 1e12:
            return math.inf
    beyond = 1e-13 if diverges(low, -1e-6) else 0.0  # where a rate is 1 for good, its rounding is no divergence
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if diverges(middle, beyond) else (middle, high)
    return low


def best_lr(memory: "Memory", low: float, high: float, precondition: bool) -> tuple[float, float]:
    """See ``Memory.best_lr``: by ever finer grids around the best lr so far, of all up to the limit of stability."""
    ends = numbers("memory.best_lr", "low and high", [low, high])
    if ends.shape != (2,) or not 0.0 < low <= high:
        msg = f"memory.best_lr: low and high must be curvatures with 0 < low <= high, got {shown(low)} and {shown(high)}"
        raise ValueError(msg)
    curvatures = np.geomspace(low, high, _CURVATURES) if low < high else np.array([low])
    limit = stability_limit(memory, high, precondition)
    if not 0.0 < limit < math.inf:
        msg = f"memory of {memory.rule.name}: its lr on a curvature of {high} has the limit {limit}"
        raise ValueError(msg)
    least, most = 1e-6 * limit, limit
    for _ in range(_ROUNDS):
        grid = np.geomspace(least, most, _LRS)
        worst = rates(memory, curvatures, grid, precondition).max(axis=1)
        best = int(np.argmin(worst))
        least, most = grid[max(best - 1, 0)], grid[min(best + 1, _LRS - 1)]
    return float(grid[best]), float(worst[best])


_CURVATURES, _LRS, _ROUNDS = 33, 41, 10  # after which lr are 7e-13 apart
