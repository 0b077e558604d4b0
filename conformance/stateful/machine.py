"""The law that the order of operations does not matter: programs of steps, saves, copies, moves and rearranged leaves.

A program keeps one state. What it does between two steps (split, merge, permute and nest leaves, copy, save, move) must
not change a bit of it; each step is held against the golden, and against a plain run of the same numbers in one leaf. The
golden starts at each step from the state that the step was given: as all else is exact, each step right makes the whole
program right, within tighter bounds than errors piled up over it, and whatever hyperparameters and backends change on the
way.
"""

import copy
import io
import pickle
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import optree
from hypothesis import stateful
from hypothesis import strategies as st

from xopt.backends import Backend
from xopt.conformance.arithmetic.formats import FLOAT_FORMATS, FloatFormat
from xopt.conformance.compare.reference import Columns, Reference
from xopt.conformance.golden import Golden
from xopt.conformance.inputs.census import look_at, saw
from xopt.conformance.inputs.hyperparameters import settings
from xopt.conformance.inputs.words import decode
from xopt.conformance.results import BrokenError, LawResult
from xopt.conformance.stateful.tracked import FORMS, SIZE, Tracked, differ, each_array
from xopt.rule import Rule

MACHINE = "any order of operations"
STEPS = 2
"""After each operation, at most."""
POOL = 40
"""Settings of the hyperparameters that programs draw from."""
EXPONENTS = (-10, 4)
"""Of the numbers, as powers of two: what the edges of a format do is asked elsewhere."""

KEYS = "abcdef"
"""Keys of a dict of leaves: a program has at most so many leaves."""


class Setup:
    """What all programs of one check share: the places where they may run, what they draw from, and what was found."""

    def __init__(
        self, rule: Rule[Any, Any], golden: Golden, places: list[tuple[Backend, FloatFormat]], seed: int, result: LawResult
    ) -> None:
        self.rule = rule
        self.golden = golden
        self.places = places  # the first is where programs begin
        self.result = result
        self.numbers = st.binary(min_size=4 * SIZE, max_size=4 * SIZE).map(self._decoded)
        self.settings = settings(rule, seed, POOL)

    def compatible(self, setting: dict[str, Any]) -> list[dict[str, Any]]:
        """The settings with which a state goes on that ``setting`` began: those that keep the same slots."""

        def slots(hyper: dict[str, Any]) -> Any:
            return optree.tree_structure(self.rule.bind(**hyper).init(np.zeros(1)))

        return [hyper for hyper in self.settings if slots(hyper) == slots(setting)]

    def _decoded(self, words: bytes) -> list[float]:
        return list(map(float, decode(np.frombuffer(words, "<u4"), self.result.dtype, EXPONENTS)))


def drawn(of: Callable[[Any], st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """A draw that depends on the machine as it is."""
    return st.runner().flatmap(of)


NUMBERS: st.SearchStrategy[list[float]] = drawn(lambda machine: machine.setup.numbers)
LEAF: st.SearchStrategy[int] = drawn(lambda machine: st.integers(0, len(machine.main.parts) - 1))


def operation(kind: Callable[..., Any] = stateful.rule, /, **draws: Any) -> Callable[[Callable[..., None]], Any]:
    """An operation of a program, which is noted, and after which the state is looked at. A few steps follow it.

    Steps are no operation of their own: Hypothesis leaves some operations out of each program, and a program without steps
    shows little.
    """

    def decorate(function: Callable[..., None]) -> Any:
        @wraps(function)
        def watched(self: "Machine", grads: list[list[float]], **drawn: Any) -> None:
            arguments = ", ".join(f"{name}={value!r}" for name, value in drawn.items())
            self.program.append(f"{function.__name__}({arguments})")
            saw(f"programs: {function.__name__.replace('_', ' ')}")
            try:
                function(self, **drawn)
                self.look()
                for grad in grads:
                    self.program.append(f"step(grad={grad})")
                    self.step(np.asarray(grad))
                    self.look()
            except Exception as error:
                self.failed(error)
                raise

        return kind(grads=st.lists(NUMBERS, max_size=STEPS), **draws)(watched)

    return decorate


class Machine(stateful.RuleBasedStateMachine):
    """One program: a state that it rearranges, the same state in one leaf, and the original of a copied state."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup
        self.program: list[str] = []
        backend, self.format = setup.places[0]
        self.exact = not self.format.ulps  # whether equal numbers have equal bits wherever they stand in an array
        self.main, self.plain = (Tracked(setup.rule, backend, setup.result.dtype) for _ in range(2))
        self.left: Tracked | None = None
        self.t = 0

    @operation(stateful.initialize, setting=drawn(lambda machine: st.sampled_from(machine.setup.settings)), params=NUMBERS)
    def start(self, setting: dict[str, Any], params: list[float]) -> None:
        self.hyper, self.compatible = setting, self.setup.compatible(setting)
        self.form, self.keys = "dict", KEYS
        for run in (self.main, self.plain):
            run.start(np.asarray(params), setting)
        self.known = self.main.flat()

    def step(self, grad: Any) -> None:
        """Steps all states alike. The result is the state that operations must not change from here on."""
        self.t += 1
        look_at("programs", self.setup.rule, self.hyper)
        saw("programs: steps")
        saw("programs: steps beside the original of a copy", self.left is not None)
        runs = [self.main, self.plain, *filter(None, [self.left])]
        for run in runs:
            run.step(grad, self.hyper)
        after, *others = (run.flat() for run in runs)
        self._follows(grad, after)
        for other, what in zip(others, ("in one leaf", "from the original of the copy"), strict=False):
            self._same_bits(after, other, what)
        self.known, self.left = after, None

    @operation(setting=drawn(lambda machine: st.sampled_from(machine.compatible)))
    def change_hyperparameters(self, setting: dict[str, Any]) -> None:
        self.hyper = setting

    @stateful.precondition(lambda self: len(self.main.parts) < len(KEYS))
    @operation(leaf=LEAF, at=st.integers(0, SIZE))
    def split(self, leaf: int, at: int) -> None:
        """Splits a leaf in two; one of them may be empty."""

        def pieces(x: Any) -> list[Any]:
            return [each_array(x, lambda a: a[:at]), each_array(x, lambda a: a[at:])]

        at = min(at, len(self.main.parts[leaf]))
        entries = [[*column[:leaf], *pieces(column[leaf]), *column[leaf + 1 :]] for column in self.main.entries()]
        parts = [*self.main.parts[:leaf], *pieces(self.main.parts[leaf]), *self.main.parts[leaf + 1 :]]
        self.main.arrange(entries, parts, self.form, self.keys)

    @stateful.precondition(lambda self: len(self.main.parts) > 1)
    @operation(leaves=drawn(lambda machine: st.permutations(range(len(machine.main.parts))).map(lambda order: order[:2])))
    def merge(self, leaves: list[int]) -> None:
        first, second = leaves
        xp = self.main.backend.xp

        def joined(x: list[Any], concat: Callable[[list[Any]], Any]) -> list[Any]:
            return [*(leaf for i, leaf in enumerate(x) if i not in leaves), _pair(x[first], x[second], concat)]

        entries = [joined(column, xp.concat) for column in self.main.entries()]
        self.main.arrange(entries, joined(self.main.parts, np.concatenate), self.form, self.keys)

    @operation(form=st.sampled_from(list(FORMS)), keys=st.permutations(KEYS).map("".join))
    def arrange(self, form: str, keys: str) -> None:
        self.form, self.keys = form, keys
        self.main.arrange(self.main.entries(), self.main.parts, form, keys)

    @operation()
    def go_on_with_a_copy(self) -> None:
        self.left = copy.copy(self.main)
        if self.main.backend.survives("deepcopy", self.main.dtypes[0]):
            self.main.state = copy.deepcopy(self.main.state)
        elif self.main.backend.survives("pickle", self.main.dtypes[0]):
            self.main.state = pickle.loads(pickle.dumps(self.main.state))

    @operation(file=st.sampled_from(["pickle", "npz"]))
    def save_and_reload(self, file: str) -> None:
        backend = self.main.backend
        host = self.main.host()
        self.main.load(pickle.loads(pickle.dumps(host)) if file == "pickle" else _through_npz(host), backend)
        if not backend.survives("numpy", self.main.dtypes[0]):  # all others go on from the numbers of the file too
            self.plain.load(self.plain.host(), backend)
            self.left = None

    @stateful.precondition(lambda self: len(self.setup.places) > 1)
    @operation()
    def move(self) -> None:
        here = [backend for backend, _ in self.setup.places].index(self.main.backend)
        backend, self.format = self.setup.places[1 - here]
        self.exact = self.exact and not self.format.ulps
        for run in (self.main, self.plain):
            run.load(run.host(), backend)
        self.left = None  # its bits are those of the other backend

    def look(self) -> None:
        """Checks that the state is still the one of the last step, however its leaves are arranged."""
        if np.any(differ(self.main.flat(), self.known)):
            msg = f"the state changed without a step: {self.main.flat()} was {self.known}"
            raise BrokenError(msg)
        if int(self.main.state.step) != self.t:
            msg = f"the step count is {self.main.state.step} after {self.t} steps"
            raise BrokenError(msg)

    def teardown(self) -> None:
        result = self.setup.result
        if result.found_after is None:
            result.examples += 1

    def failed(self, error: Exception) -> None:
        """Notes this program. Hypothesis comes back with shorter ones, with the shortest at the end."""
        result = self.setup.result
        if result.found_after is None:
            result.examples += 1
            result.found_after = result.examples
        result.broken = {"program": "\n".join(self.program), "reason": f"{type(error).__name__}: {error}"}

    def _follows(self, grad: Any, after: Columns) -> None:
        """Checks that the step from the last state is the golden's, within the bound."""
        setup = self.setup
        reference = Reference(
            setup.rule, self.hyper, self.format, FLOAT_FORMATS[setup.result.dtype], traced=False, golden=setup.golden
        )
        reference.restart(self.known)
        for comparison in reference.step(grad, self.t, after):
            ratio = np.nan_to_num(np.ravel(comparison.ratio))
            at = int(np.argmax(ratio))
            if ratio[at] > 1:
                error, bound = (np.ravel(x)[at] for x in (comparison.error, comparison.bound))
                msg = f"{comparison.name} [{at}] after step {self.t} is off by {error:.3g} where {bound:.3g} is allowed"
                raise BrokenError(msg)
            setup.result.ratio = max(setup.result.ratio, float(ratio[at]))

    def _same_bits(self, after: Columns, other: Columns, what: str) -> None:
        mask = differ(after, other)
        if self.exact and np.any(mask):
            msg = f"after step {self.t} {np.sum(mask)} of {mask.size} numbers have other bits {what}"
            raise BrokenError(msg)
        self.setup.result.numbers += mask.size
        saw("programs: numbers compared", mask.size)
        self.setup.result.differ += int(np.sum(mask))


def _pair(one: Any, other: Any, concat: Callable[[list[Any]], Any]) -> Any:
    """What two leaves hold, as one leaf; a number is the same for both."""
    if isinstance(one, tuple):
        return tuple(_pair(a, b, concat) for a, b in zip(one, other, strict=True))
    return one if one is None or isinstance(one, float) else concat([one, other])


def _through_npz(host: Any) -> Any:
    """The state out of a NumPy file, which keeps numbers as arrays: the step count comes back as one."""
    leaves, spec = optree.tree_flatten(host)
    file = io.BytesIO()
    np.savez(file, *leaves)
    file.seek(0)
    loaded = np.load(file).values()
    return spec.unflatten([new.item() if isinstance(old, float) else new for old, new in zip(leaves, loaded, strict=True)])
