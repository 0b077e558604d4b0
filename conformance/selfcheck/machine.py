"""What the state machine sees."""

from typing import Any

import numpy as np
import optree

from xopt.conformance.faults.planting import copied
from xopt.conformance.results import BROKEN, HELD
from xopt.conformance.selfcheck.checks import check, must
from xopt.conformance.selfcheck.subjects import programs, stepping
from xopt.rule import Rule
from xopt.rules import RULES


@check
def the_machine_passes_what_is_right() -> None:
    result = programs({"adamw": RULES["adamw"]}, 8)
    must(result.verdict == HELD, f"what is right is {result.verdict}: {result.broken}")
    must(result.numbers > 50 and 0.3 < result.ratio <= 1, f"{result.numbers} numbers, error/bound {result.ratio}")


@check
def the_machine_sees_two_bounds() -> None:
    """Sixteen roundings are some bounds."""

    def shifted(name: str) -> Any:
        def change(state: Any, grad: Any, new: Any) -> Any:
            return new._replace(**{name: optree.tree_map(lambda x: x + 2.0**-20 * x, getattr(new, name))})

        return stepping(change)

    for name in ("params", "v"):
        result = programs(shifted(name))
        must(result.verdict == BROKEN and "is off by" in str(result.broken), f"{name} off by some bounds is {result.verdict}")


@check
def the_machine_sees_what_only_an_odd_order_shows() -> None:
    def forgets_a_loaded_count(right: Rule[Any, Any]) -> Any:
        return lambda state, grad, **hyper: right.step(state if type(state.step) is int else state._replace(step=0), grad, **hyper)

    def writes_to_the_old_state(right: Rule[Any, Any]) -> Any:
        def step(state: Any, grad: Any, **hyper: Any) -> Any:
            new = right.step(state, grad, **hyper)
            for leaf in optree.tree_leaves(state.params):
                if isinstance(leaf, np.ndarray) and leaf.flags.writeable:
                    leaf += 1
            return new

        return step

    def writes_to_the_gradient(right: Rule[Any, Any]) -> Any:
        def step(state: Any, grad: Any, **hyper: Any) -> Any:
            new = right.step(state, grad, **hyper)
            for leaf in optree.tree_leaves(grad):
                if isinstance(leaf, np.ndarray):
                    leaf += 1
            return new

        return step

    def fails_elsewhere(right: Rule[Any, Any]) -> Any:
        """On any library but the first."""

        def step(state: Any, grad: Any, **hyper: Any) -> Any:
            new = right.step(state, grad, **hyper)
            first = optree.tree_leaves(new.params)[0]
            return new if isinstance(first, np.ndarray) else new._replace(params=optree.tree_map(lambda x: x + 1, new.params))

        return step

    def swaps_leaves(right: Rule[Any, Any]) -> Any:
        def step(state: Any, grad: Any, **hyper: Any) -> Any:
            new = right.step(state, grad, **hyper)
            leaves, spec = optree.tree_flatten(new.params)
            if len(leaves) > 1 and leaves[0].shape == leaves[-1].shape:
                leaves[0], leaves[-1] = leaves[-1], leaves[0]
            return new._replace(params=spec.unflatten(leaves))

        return step

    counting = copied(RULES["sgd"])  # whose numbers do not depend on the count
    right = RULES["sgd"].step
    counting.step = lambda state, grad, **hyper: right(state, grad, **hyper)._replace(step=state.step + 2)  # type: ignore[method-assign]
    must(programs({"sgd": counting}, 5, "sgd").verdict == BROKEN, "a step that counts twice is not seen")
    wrongs = forgets_a_loaded_count, writes_to_the_old_state, writes_to_the_gradient, fails_elsewhere, swaps_leaves
    for wrong in wrongs:
        rule = copied(RULES["adamw"])
        rule.step = wrong(RULES["adamw"])  # type: ignore[method-assign]
        found = programs({"adamw": rule})
        must(found.verdict == BROKEN, f"a step that {wrong.__name__.replace('_', ' ')} is not seen")
        if wrong in (writes_to_the_old_state, writes_to_the_gradient):
            must("the step wrote to" in str(found.broken), f"a step that writes is seen as {found.broken}")
