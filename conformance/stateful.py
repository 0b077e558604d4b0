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
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, wraps
from typing import Any

import hypothesis
import numpy as np
import optree
from hypothesis import stateful
from hypothesis import strategies as st

from xopt import backends
from xopt.backends import Backend
from xopt.conformance.bounded import FORMATS, Format
from xopt.conformance.cells import SETTINGS, brief
from xopt.conformance.census import look_at, saw
from xopt.conformance.generate import decode, settings
from xopt.conformance.golden import GOLDENS, Golden
from xopt.conformance.reference import Columns, Reference
from xopt.conformance.results import LawResult
from xopt.conformance.structures.parts import Layer, Pair, tree_of
from xopt.rule import Rule
from xopt.rules import RULES

MACHINE = "any order of operations"

OPERATIONS = 12
"""Of one program, at most."""
STEPS = 2
"""After each operation, at most."""
SIZE = 6
"""Numbers that a program's leaves hold together."""
POOL = 40
"""Settings of the hyperparameters that programs draw from."""
EXPONENTS = (-10, 4)
"""Of the numbers, as powers of two: what the edges of a format do is asked elsewhere."""

KEYS = "abcdef"
"""Of dicts, as many as there can be leaves."""
FORMS: dict[str, Callable[[list[Any], Sequence[str]], Any]] = {
    **{name: partial(tree_of, name) for name in ("dict", "OrderedDict", "list")},
    "nested": lambda leaves, keys: {keys[0]: leaves[:1], keys[1]: Pair(tuple(leaves[1:3]), Layer(leaves[3:], None))},
}
"""Trees that leaves may stand in: the containers of drawn structures. The keys of a mapping decide in which order they are met."""


class BrokenError(AssertionError):
    """A program came to what the law forbids."""


class Run:
    """A rule's state on one backend, as a tree of leaves: ``parts`` says which numbers of the flat vector each of them holds."""

    def __init__(self, rule: Rule[Any, Any], backend: Backend, dtype: str) -> None:
        self.rule = rule
        self.backend = backend
        self.dtypes = dtype, _arithmetic(dtype)  # of params and of slots
        self.spec: optree.PyTreeSpec = optree.treespec_leaf()  # in no container
        self.parts = [np.arange(SIZE)]

    def start(self, params: Any, hyper: dict[str, Any]) -> None:
        self.state = self.rule.bind(**hyper).init(self._tree(params))

    def step(self, grad: Any, hyper: dict[str, Any]) -> None:
        """One step. Raises BrokenError where it writes to what it was given."""
        before, given = self.flat(), self._tree(grad)
        new = self.rule.step(self.state, given, **hyper)
        if np.any(differ(self.flat(), before)):
            msg = "the step wrote to the state that it was given"
            raise BrokenError(msg)
        if np.any(self._column(self.spec.flatten_up_to(given), 0) != grad):
            msg = "the step wrote to the gradient that it was given"
            raise BrokenError(msg)
        self.state = new

    def flat(self) -> Columns:
        """The state's columns as flat vectors. Raises BrokenError for a dtype, shape or tree that they must not have."""
        return tuple(self._column(entries, i) for i, entries in enumerate(self.entries()))

    def entries(self) -> list[list[Any]]:
        """What each leaf holds in params and in each slot: an array, None, a number, or a tuple of arrays."""
        return [self.spec.flatten_up_to(column) for column in self.state[:-1]]

    def arrange(self, entries: list[list[Any]], parts: list[Any], form: str, keys: Sequence[str]) -> None:
        """Puts leaves into a tree."""
        order, self.spec = optree.tree_flatten(FORMS[form](list(range(len(parts))), keys))
        self.parts = [parts[i] for i in order]
        trees = [self.spec.unflatten([column[i] for i in order]) for column in entries]
        self.state = self.rule.state._make([*trees, self.state.step])

    def host(self) -> Any:
        """The state with NumPy arrays in place of the backend's."""
        return self._mapped(lambda x, _: np.array(self.backend.to_numpy(x)))

    def load(self, host: Any, backend: Backend) -> None:
        """Takes what ``host`` gave to a backend."""
        saw("programs: states moved to another library", backend is not self.backend)
        self.state, self.backend = host, backend
        self.state = self._mapped(backend.asarray)

    def _mapped(self, function: Callable[[Any, str], Any]) -> Any:
        """The state with ``function`` of each array and its dtype."""

        def mapped(entries: list[Any], dtype: str) -> Any:
            return self.spec.unflatten([_each(entry, lambda x: function(x, dtype)) for entry in entries])

        trees = [mapped(entries, self.dtypes[i > 0]) for i, entries in enumerate(self.entries())]
        return self.state._make([*trees, self.state.step])

    def _tree(self, vector: Any) -> Any:
        return self.spec.unflatten([self.backend.asarray(vector[part], self.dtypes[0]) for part in self.parts])

    def _column(self, entries: Sequence[Any], i: int) -> Any:
        first = entries[0]
        if first is None or isinstance(first, float):
            if any(entry != first for entry in entries):
                msg = f"{self._name(i)} is not the same for all leaves: {entries}"
                raise BrokenError(msg)
            return first
        if isinstance(first, tuple):
            return tuple(self._column(buffers, i) for buffers in zip(*entries, strict=True))
        vector = np.zeros(SIZE)
        for leaf, part in zip(entries, self.parts, strict=True):
            dtype, shape = str(leaf.dtype).rpartition(".")[2], tuple(leaf.shape)
            if (dtype, shape) != (self.dtypes[i > 0], part.shape):
                msg = f"a leaf of {self._name(i)} is {dtype}{shape} and must be {self.dtypes[i > 0]}{part.shape}"
                raise BrokenError(msg)
            vector[part] = self.backend.to_numpy(leaf)
        return vector

    def _name(self, i: int) -> str:
        return ("params", *self.rule.slots)[i]


class Setup:
    """What all programs of one check share: the places where they may run, what they draw from, and what was found."""

    def __init__(
        self, rule: Rule[Any, Any], golden: Golden, places: list[tuple[Backend, Format]], seed: int, result: LawResult
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
    """One program: the run that it rearranges, a plain run of one leaf beside it, and a run that a copy left behind."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup
        self.program: list[str] = []
        backend, self.format = setup.places[0]
        self.exact = not self.format.ulps  # whether equal numbers have equal bits wherever they stand in an array
        self.main, self.plain = (Run(setup.rule, backend, setup.result.dtype) for _ in range(2))
        self.left: Run | None = None
        self.t = 0

    @operation(stateful.initialize, setting=drawn(lambda machine: st.sampled_from(machine.setup.settings)), params=NUMBERS)
    def start(self, setting: dict[str, Any], params: list[float]) -> None:
        self.hyper, self.compatible = setting, self.setup.compatible(setting)
        self.form, self.keys = "dict", KEYS
        for run in (self.main, self.plain):
            run.start(np.asarray(params), setting)
        self.known = self.main.flat()

    def step(self, grad: Any) -> None:
        """Of all runs: the state that is known from here on."""
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
        """In two at a place, where there may be nothing on one side."""

        def pieces(x: Any) -> list[Any]:
            return [_each(x, lambda a: a[:at]), _each(x, lambda a: a[at:])]

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
        self.main.state = copy.deepcopy(self.main.state)

    @operation(file=st.sampled_from(["pickle", "npz"]))
    def save_and_reload(self, file: str) -> None:
        host = self.main.host()
        self.main.load(pickle.loads(pickle.dumps(host)) if file == "pickle" else _through_npz(host), self.main.backend)

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
        """Whether the state is the one that is known, however it is kept."""
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
        """Whether the step from the known state is the golden's."""
        setup = self.setup
        reference = Reference(setup.rule, self.hyper, self.format, FORMATS[setup.result.dtype], traced=False, golden=setup.golden)
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


def differ(one: Any, other: Any) -> Any:
    """Where two flat states differ in bits; the sign of a zero and the payload of a NaN do not count."""
    if optree.tree_structure(one) != optree.tree_structure(other):
        msg = f"the state lost or got slots: {one} and {other}"
        raise BrokenError(msg)
    a, b = (np.concatenate([np.ravel(x) for x in optree.tree_leaves(columns)]) for columns in (one, other))
    return (a != b) & ~(np.isnan(a) & np.isnan(b))


def _arithmetic(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"


def _each(entry: Any, function: Callable[[Any], Any]) -> Any:
    """``function`` of each array that a leaf holds."""
    if entry is None or isinstance(entry, float):
        return entry
    return tuple(_each(one, function) for one in entry) if isinstance(entry, tuple) else function(entry)


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


def check_machine(
    rule_name: str,
    dtype: str,
    targets: Sequence[tuple[str, str, str]],
    formats: Mapping[Any, Format],
    examples: int,
    seed: int,
    rules: Mapping[str, Rule[Any, Any]] = RULES,
    goldens: Mapping[str, Golden] = GOLDENS,
    shrink: bool = True,
) -> list[LawResult]:
    """Runs so many programs of one rule in one dtype on each target (backend, device, mode).

    They begin on the target and may move to NumPy and back; from NumPy to array_api_strict. ``formats`` maps (backend, device,
    dtype of the arithmetic, mode) to the format that the probes measured. ``rules`` and ``goldens`` may hold others than xopt's
    own. Without ``shrink`` the first program that breaks the law is reported, not the shortest.

    A backend with a primitive that is not correctly rounded may give one number other bits at another place of an array (the
    rest of a vector, say, that its vector instructions do not fill). There each step still is within its bound of the golden,
    and the numbers that differ are counted.
    """
    results = []
    for name, device, mode in targets:
        result = LawResult(MACHINE, rule_name, name, device, dtype, mode)
        results.append(result)
        backend = backends.get(name, device)
        if mode == "fused":
            result.reason = "the programs move between backends step by step, and step eagerly"
        elif mode != "eager":
            result.reason = "splitting and merging leaves would compile anew at each step"
        elif dtype not in backend.dtypes():
            result.reason = f"{name} has no {dtype}"
        else:
            places = [(backend, formats[name, device, _arithmetic(dtype), mode]), *_others(backend, dtype)]
            setup = Setup(rules[rule_name], goldens[rule_name], places, seed, result)
            with backend.session(), np.errstate(all="ignore"):
                _explore(setup, examples, seed, shrink)
    return results


def _others(backend: Backend, dtype: str) -> Iterator[tuple[Backend, Format]]:
    """The place that programs may move to, if it is there and has the dtype."""
    name = "array_api_strict" if backend.name == "numpy" else "numpy"
    if backends.available([name])[name].reason is None and dtype in (other := backends.get(name)).dtypes():
        yield other, FORMATS[_arithmetic(dtype)]


def _explore(setup: Setup, examples: int, seed: int, shrink: bool) -> None:
    def program() -> Any:
        return Machine(setup)

    result = setup.result
    hypothesis.seed(zlib.crc32(f"{seed} {result.rule} {result.dtype} {result.backend} {MACHINE}".encode()))(program)
    phases = [phase for phase in SETTINGS.phases if shrink or phase is not hypothesis.Phase.shrink]
    explore = hypothesis.settings(SETTINGS, max_examples=examples, phases=phases, stateful_step_count=OPERATIONS)
    try:
        stateful.run_state_machine_as_test(program, settings=explore)  # type: ignore[arg-type]  # a function will do
    except Exception as error:  # noqa: BLE001 - one check that fails must not lose the others
        if result.broken is None:  # it is not a program that failed
            result.broken = {"program": "", "reason": brief(error)}
        elif isinstance(error, hypothesis.errors.Flaky):
            result.broken["again"] = "it holds when the same program is run again: it is not reproducible"
