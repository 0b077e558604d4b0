"""A rule with its hyperparameters, so that one dict of them serves init and step."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from xopt.trees import Tree

if TYPE_CHECKING:
    from xopt.rule import Rule

S = TypeVar("S", bound=tuple[Any, ...])


class NoTransformation:
    """What has an ``init``, as a GradientTransformation of optax has, and is none: what takes it for one is told so."""

    @property
    def update(self) -> NoReturn:
        raise AttributeError(_no_transformation(self))

    def __iter__(self) -> NoReturn:
        raise TypeError(_no_transformation(self))

    def _refuse_optax(self) -> None:
        """Raises TypeError where optax or flax ask for ``init``: they would keep the state, and fail at the first step."""
        if not sys.modules.keys().isdisjoint(_TAKE_TRANSFORMATIONS):
            asks = sys._getframe(2).f_globals.get("__name__", "")
            if asks.partition(".")[0] in _TAKE_TRANSFORMATIONS:
                raise TypeError(_no_transformation(self))


_TAKE_TRANSFORMATIONS = {"optax", "flax"}


def _no_transformation(given: Any) -> str:
    return f"{given!r} is no GradientTransformation of optax; xopt.backends.as_optax makes one of it"


class Bound(NoTransformation, Generic[S]):
    """What ``rule.bind(**hyper)`` returns: the rule's ``init`` and ``step`` with these hyperparameters.

    Attributes
    ----------
    rule
        The rule.
    hyper
        The hyperparameters that were given: numbers, 0-d arrays, or trees that are prefixes of the params.
    """

    def __init__(self, rule: "Rule[S, Any]", hyper: dict[str, Any]) -> None:
        rule.check_hyper(f"{rule.name}.bind", hyper)
        self.rule = rule
        self.hyper = dict(hyper)

    def __repr__(self) -> str:
        return f"{self.rule.name}.bind({', '.join(f'{name}={value!r}' for name, value in self.hyper.items())})"

    @property
    def init(self) -> Callable[[Tree], S]:
        """``init(params)`` is the state before the first step.

        It gets those of the hyperparameters that decide its form: see ``<rule>_init``.
        """
        self._refuse_optax()
        return self._init

    def _init(self, params: Tree) -> S:
        return self.rule.init(params, **{name: x for name, x in self.hyper.items() if name in self.rule.of_init})

    def step(self, state: S, grad: Tree, **changed: Any) -> S:
        """One step, with these hyperparameters, or others for this step: see ``<rule>_step``."""
        return self.rule.step(state, grad, **(self.hyper | changed))
