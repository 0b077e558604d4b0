"""A target that is asked: what it says of itself, and the trajectories that it takes."""

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np

from xopt.conformance.thirdparty.answers import Leaves, State, about_of, leaves_of, state_of, wrote_of
from xopt.conformance.thirdparty.measure import Seen
from xopt.conformance.thirdparty.names import NEUTRAL, SWITCHES, holds, taken, told, translated
from xopt.conformance.thirdparty.probe import Run
from xopt.conformance.thirdparty.sandbox import LateError, asked
from xopt.conformance.thirdparty.targets import name_of
from xopt.rules import RULES

IDLE_SECONDS = 3.0
"""So long a target is stepped with nothing, where what shows only late is to be seen."""


class Subject:
    """A target, asked for trajectories.

    Parameters
    ----------
    target
        Its name, which is then run in a process of its own, or a callable, which is run in this one.
    given
        Arguments of the target, or hyperparameters of the rule, that keep a value.
    limit
        Seconds that an answer may take; the first, which imports the target, may take three times as long.
    """

    def __init__(
        self, target: str | Callable[..., Any], given: Mapping[str, Any] = MappingProxyType({}), limit: float = 10.0
    ) -> None:
        self.name = name_of(target)
        self._target = target
        self.limit = limit
        self.given = {name: tuple(x) if isinstance(x, list) else x for name, x in given.items()}
        self.wrote: dict[str, int] = {}  # what it wrote to though it is not its own, and at which step first
        self.dtypes: list[str] = []  # of the parameters after the last step, where it says them

    def __enter__(self) -> "Subject":
        self._asked = asked(self._target).__enter__()
        try:
            self.about = about_of(self.ask({"do": "describe"}, 3 * self.limit))
        except BaseException:
            self._asked.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._asked.__exit__(kind, error, trace)

    def ask(self, question: dict[str, Any], limit: float | None = None) -> dict[str, Any]:
        return self._asked.ask(question, limit or self.limit)

    # What it is told.

    def takes(self, rule: str) -> set[str]:
        """The hyperparameters of a rule that it can be given, but for those that keep a value."""
        return taken(self.about.arguments, RULES[rule].defaults) - set(self.given)

    def fixed(self, rule: str) -> dict[str, Any]:
        """Hyperparameters that it is not told in a run, as the golden needs them: kept ones, or those that do nothing."""
        own = RULES[rule].defaults
        lacking = {name: x for name, x in NEUTRAL.items() if name in own and name not in taken(self.about.arguments, own)}
        return lacking | {name: x for name, x in self.given.items() if name in own}

    def arguments(self, rule: str, hyper: Mapping[str, Any]) -> dict[str, Any]:
        """Hyperparameters as it calls them, with what it is always given."""
        own = RULES[rule].defaults
        kept = {
            name: x for name, x in self.given.items() if name not in own or (name in self.about.arguments and not holds(name, own))
        }
        whole = {name: x for name, x in self.given.items() if name in own} | dict(hyper)
        return {**SWITCHES.get((self.name, rule), {}), **translated(whole, self.about.arguments, own), **kept}

    def defaults(self, rule: str) -> dict[str, Any]:
        """Its own defaults as hyperparameters of the rule, as far as it says them; of those that keep a value, that value."""
        said = {name: x for name, x in self.about.arguments.items() if x is not None}
        return told(said, RULES[rule].defaults) | self.fixed(rule)

    def _beside_kept(self, rule: str) -> dict[str, Any]:
        """Defaults that are in one argument with a hyperparameter that keeps a value, as beta2 is in betas."""
        own, defaults = RULES[rule].defaults, self.defaults(rule)
        held = [names for argument in self.about.arguments if set(names := holds(argument, own)) & set(self.given)]
        return {name: defaults[name] for names in held for name in names if name in defaults and name not in self.given}

    # What it does.

    def trajectory(
        self,
        leaves: Leaves,
        grads: Sequence[Leaves],
        dtype: str,
        given: dict[str, Any] | list[dict[str, Any]],
        changed: Sequence[dict[str, Any]] = (),
        of: str = "",
        idle: int = 0,
        states: list[dict[str, Any]] | None = None,
    ) -> list[Leaves]:
        """The leaves after each step, after ``idle`` steps with gradients of 0. ``states`` is given what can be read after each.

        Raises
        ------
        TargetFailedError
            Where it does not answer, or not with as many numbers as there are.
        """
        self.start(leaves, dtype, given, of)
        if idle:
            self._idle(leaves, dtype, idle)
        found = []
        for i, grad in enumerate(grads):
            found.append(self.step(grad, dtype, changed[i] if changed else {}, of))
            if states is not None:
                states.append(self._state(of))
        return found

    def start(self, leaves: Leaves, dtype: str, given: Any, of: str = "") -> None:
        self._shapes = [list(np.shape(leaf)) for leaf in leaves]
        self.ask({"do": "start", "of": of, "dtype": dtype, "given": given, "shapes": self._shapes, "params": _lists(leaves)})
        self._steps = 0

    def _idle(self, leaves: Leaves, dtype: str, steps: int) -> None:
        """Steps with gradients of 0, for a while; or at once, where its count can be set."""
        nothing = [np.zeros(np.shape(leaf)) for leaf in leaves]
        seconds = min(IDLE_SECONDS, self.limit / 3)
        until, taken = time.monotonic() + seconds, 0
        if self.about.idles:
            shapes = {"shapes": self._shapes, "grads": _lists(nothing)}
            answer = self.ask({"do": "idle", "steps": steps - 1, "seconds": seconds, "dtype": dtype, **shapes})
            taken = answer["steps"] if isinstance(answer.get("steps"), int) else 0
        while taken < steps - 1 and time.monotonic() < until:
            self.step(nothing, dtype)
            taken += 1
        if taken < steps - 1:
            msg = f"its count cannot be set, and in {seconds:g} s it took {taken:,} of {steps:,} steps"
            raise LateError(msg)
        if any(np.any(leaf) for leaf in self.step(nothing, dtype)):
            msg = "parameters of 0 with gradients of 0 do not stay 0, and so many steps of others would take long"
            raise LateError(msg)

    def step(self, grads: Leaves, dtype: str, changed: dict[str, Any] | None = None, of: str = "") -> Leaves:
        self._steps += 1
        answer = self.ask(
            {"do": "step", "of": of, "dtype": dtype, "shapes": self._shapes, "grads": _lists(grads), "changed": changed or {}}
        )
        for what in wrote_of(answer):
            self.wrote.setdefault(what, self._steps)
        self.dtypes = answer["dtypes"] if isinstance(answer.get("dtypes"), list) else []
        return leaves_of(answer, self._shapes, self._steps)

    def state(self, of: str = "") -> State:
        """What can be read of its memory."""
        return state_of(self.ask({"do": "state", "of": of}))

    def _state(self, of: str) -> dict[str, Any]:
        """Of the first leaf, by name."""
        return {name: leaves[0] for name, leaves in self.state(of).arrays.items() if leaves and leaves[0] is not None}

    def see(self, rule: str, run: Run, dtype: str, states: list[dict[str, Any]] | None = None) -> Seen:
        """One run, with all hyperparameters that the golden needs to follow it. ``states`` is given what can be read."""
        own = RULES[rule].defaults
        given = {} if run.kind == "defaults" else self.arguments(rule, run.hyper)
        if run.kind == "defaults":
            needed = [name for name, x in self.about.arguments.items() if x is None and name in ("lr", "learning_rate")]
            given = self.arguments(rule, self._beside_kept(rule)) | dict.fromkeys(needed, own["lr"])
        changed = [translated({"lr": lr}, self.about.arguments, own) for lr in run.lrs]
        found = self.trajectory([run.params], [[grad] for grad in run.grads], dtype, given, changed, idle=run.idle, states=states)
        hyper = self.defaults(rule) if run.kind == "defaults" else {**self.fixed(rule), **run.hyper}
        return Seen(run._replace(hyper=hyper), dtype, np.array([leaves[0] for leaves in found]))


def _lists(arrays: Leaves) -> list[Any]:
    return [None if x is None else np.ravel(x).tolist() for x in arrays]
