"""A rule with its hyperparameters, so that one dict of them serves init and step."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from xopt.checks import DOUBLE, check_hyper
from xopt.trees import Tree

if TYPE_CHECKING:
    from xopt.rule import Rule

S = TypeVar("S", bound=tuple[Any, ...])
P = ParamSpec("P")


class Bound(Generic[S, P]):
    """What ``rule.bind(**hyper)`` returns: the rule's ``init`` and ``step`` with these hyperparameters.

    Attributes
    ----------
    rule
        The rule.
    hyper
        The hyperparameters that were given: numbers, 0-d arrays, or trees that are prefixes of the params.
    """

    def __init__(self, rule: "Rule[S, P]", hyper: dict[str, Any]) -> None:
        function = f"{rule.name}.bind"
        rule.check_names(function, hyper)
        for name, value in hyper.items():
            if rule.value_of(name)(value):  # the numbers of a tree wait for their leaves
                check_hyper(function, name, value, rule.ranges[name], DOUBLE)
        self.rule = rule
        self.hyper = dict(hyper)

    def __repr__(self) -> str:
        return f"{self.rule.name}.bind({', '.join(f'{name}={value!r}' for name, value in self.hyper.items())})"

    def init(self, params: Tree) -> S:
        """The state before the first step. It gets those of the hyperparameters that decide its form: see ``<rule>_init``."""
        init: Callable[..., S] = self.rule.init
        return init(params, **{name: x for name, x in self.hyper.items() if name in self.rule.of_init})

    def step(self, state: S, grad: Tree, *unnamed: P.args, **changed: P.kwargs) -> S:
        """One step, with these hyperparameters, or others for this step: see ``<rule>_step``, which takes them by name only."""
        step: Callable[..., S] = self.rule.step
        return step(state, grad, *unnamed, **(self.hyper | changed))
