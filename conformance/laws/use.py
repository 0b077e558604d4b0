"""Laws of use: what a caller may rely on whatever the formula. States, defaults, refusals, trees, purity, saving."""

import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import optree

from xopt.conformance.arithmetic.numbers import FLOAT
from xopt.conformance.golden import start
from xopt.conformance.inputs.trajectories import CRITICAL_COUNTS
from xopt.conformance.laws.lab import EAGER, NOT_TRACED, SIZE, Case, Kind, Lab, Laws
from xopt.conformance.laws.traits import EVERY
from xopt.conformance.structures.parts import tree_of as tree_of_leaves

LAWS = Laws()


@LAWS.add(
    "start",
    Kind.BITS,
    "Before the first step the parameters are those given, slots and step count 0, and carried numbers those of the golden.",
    "the papers of the rules: initialisation",
    [],
    EVERY,
    modes=EAGER,
)
def starts(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    state = lab.rule.bind(**hyper).init(lab.array(case.params))
    lab.holds(state.step == 0, "the step count is not 0")
    expected = start(lab.golden, FLOAT, FLOAT.number(0.0), lab.golden.defaults | hyper)
    for name, slot, want in zip(lab.rule.slots, state[1:-1], expected[1:], strict=True):
        if name in lab.rule.carried:
            lab.holds(slot == want, f"{name} starts with another number")
            continue
        for array, number in zip(_arrays(slot), want if isinstance(want, tuple) else (want,), strict=True):
            lab.holds(array is None or np.all(lab.vector(array) == number), f"{name} starts with another number")
    lab.holds(bytes_of(lab, state.params) == bytes_of(lab, lab.array(case.params)), "params are not those given")


@LAWS.add(
    "defaults",
    Kind.BITS,
    "A run without hyperparameters is a run with the defaults that the golden knows.",
    "the papers and the authors' code, as the golden cites them",
    [],
    EVERY,
    modes=NOT_TRACED,  # given names are part of what is compiled
)
def defaults(lab: Lab, case: Case) -> None:
    lab.holds(list(lab.golden.defaults) == list(lab.rule.defaults), "the golden has other hyperparameters")
    silent, given = (state_after(lab, case, **hyper) for hyper in ({}, lab.golden.defaults))
    lab.holds(bytes_of(lab, silent) == bytes_of(lab, given), "without hyperparameters the run is another")
    if lab.mode == "eager":
        step = lab.rule.bind(lr=0.0).step  # of those that a rule has, too, those that a step is given count
        bound, bare = (take(silent, lab.array(case.grads[0]), lr=0.5) for take in (step, lab.step))
        lab.holds(bytes_of(lab, bound) == bytes_of(lab, bare), "a rule with hyperparameters does not take others for a step")


@LAWS.add(
    "inputs are not written to",
    Kind.BITS,
    "Parameters, gradient and every slot have the same bytes after a step as before; read-only memory does.",
    "design",
    [39],
    EVERY,
    modes=NOT_TRACED,
)
def inputs_stay(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    state, grad = state_after(lab, case, **hyper), lab.array(case.grads[0])
    if lab.backend.name == "numpy":
        for array in (grad, *_arrays(tuple(state[:-1]))):
            if array is not None:
                array.flags.writeable = False
    before = bytes_of(lab, (state, grad))
    lab.step(state, grad, **hyper)
    lab.rule.bind(**hyper).init(state.params)
    lab.holds(bytes_of(lab, (state, grad)) == before, "an input has changed")


@LAWS.add(
    "no shared memory",
    Kind.BITS,
    "No result of a step shares memory with an input, and no two slots of a state with each other.",
    "design",
    [39],
    EVERY,
    modes=NOT_TRACED,
)
def memory_is_its_own(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    params, grad = lab.array(case.params), lab.array(case.grads[0])
    first = lab.rule.bind(**hyper).init(params)
    second = lab.step(first, grad, **hyper)
    old, slots, new = ([x for x in _arrays(tuple(s)) if x is not None] for s in (first[:-1], second[1:-1], second[:-1]))
    if lab.backend.name == "numpy":
        shared = [np.shares_memory(x, y) for x in new for y in (*old, grad)]
        shared += [np.shares_memory(x, y) for group in (old, new) for i, x in enumerate(group) for y in group[:i]]
        lab.holds(not any(shared), "memory is shared")
        for x in (params, grad):  # written to, they change nothing
            before = bytes_of(lab, second)
            x[...] = 7.0
            lab.holds(bytes_of(lab, second) == before, "a result follows its input")
    else:
        before = bytes_of(lab, second)
        lab.step(second, grad, **hyper)
        lab.holds(bytes_of(lab, second) == before, "a result has changed in a later step")
        lab.holds(len({id(x) for x in slots}) == len(slots), "two slots are one array")


@LAWS.add(
    "the state keeps its form",
    Kind.BITS,
    "Dtypes, shapes, devices and tree of a state stay, slots are in the dtype of the arithmetic, and the step count goes up by 1.",
    "design",
    [60],
    EVERY,
    modes=NOT_TRACED,
)
def form_stays(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    state = lab.rule.bind(**hyper).init(tree_of(lab, case.params))._replace(step=lab.steps_before)
    form, devices = _form(state), _devices(state)
    for name, slot in zip(lab.rule.slots, state[1:-1], strict=True):
        for x in optree.tree_leaves(slot):
            lab.holds(name in lab.rule.carried or _dtype(x) == lab.compute.name, f"{name} is not {lab.compute.name}")
    for t, grad in enumerate(case.grads, start=lab.steps_before + 1):
        state = lab.step(state, tree_of(lab, grad), **hyper)
        lab.holds(type(state.step) is int and state.step == t, f"the step count is {state.step!r} after {t} steps")
        lab.holds(_form(state) == form, "the form of the state has changed")
        lab.holds(_devices(state) == devices, "the device of the state has changed")


@LAWS.add(
    "steps are counted",
    Kind.BITS,
    "The step count is the number of steps taken, compiled or not, and exact beyond 2**32 where it is a Python int.",
    "design",
    [],
    EVERY,
)
def steps_are_counted(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    step = lab.stepper()
    state = lab.rule.bind(**hyper).init(lab.array(case.params))._replace(step=lab.steps_before)
    for t, grad in enumerate(case.grads, start=lab.steps_before + 1):
        state = step(state, lab.array(grad), **hyper)
        lab.holds(int(state.step) == t, f"the step count is {int(state.step)} after {t} steps")
    for t in CRITICAL_COUNTS if lab.mode != "traced" else ():
        state = step(state._replace(step=t - 1), lab.array(case.grads[0]), **hyper)
        lab.holds(state.step == t, f"the step count is {state.step} after {t} steps")


@LAWS.add(
    "what does not go together is refused",
    Kind.BITS,
    "Another shape or dtype, integers, an unknown hyperparameter, another rule's state or half of one are refused in whole.",
    "design",
    [],
    EVERY,
    modes=NOT_TRACED,
)
def odd_input_is_refused(lab: Lab, case: Case) -> None:
    state, grad = state_after(lab, case), lab.array(case.grads[0])
    before = bytes_of(lab, (state, grad))
    others = [dtype for dtype in ("float32", "float64", "float16") if dtype in lab.backend.dtypes() and dtype != lab.dtype]
    other_dtypes = [lab.backend.asarray(case.grads[0], dtype) for dtype in others[:1]]  # one library has a single dtype
    wrong = [lab.array(case.grads[0][:-1]), lab.array(1.0), *other_dtypes, 1.0]
    for g in wrong:
        refused(lab, partial(lab.step, state, g), "step", "grad")
    integers = lab.backend.xp.astype(lab.array(np.ones(SIZE)), lab.backend.xp.int32)
    refused(lab, partial(lab.rule.init, integers), "init", "params")
    refused(lab, partial(lab.step, state, integers), "step", "grad")
    refused(lab, partial(lab.step, state, grad, no_such=1.0), "step", "no_such")
    refused(lab, partial(lab.rule.init, state.params, no_such=1.0), "init", "no_such")
    other = next(rule for name, rule in lab.rules.items() if name != lab.rule.name)
    refused(lab, partial(lab.step, other.init(state.params), grad), "step", "state")
    refused(lab, partial(lab.step, state._replace(step=-5), grad), "step", "step")
    for slot in lab.rule.memory:
        if not isinstance(getattr(state, slot), tuple):
            refused(lab, partial(lab.step, state._replace(**{slot: None}), grad), "step", slot)
    lab.holds(bytes_of(lab, (state, grad)) == before, "a refused call has changed its input")
    still_steps(lab, case, state)


def refused(lab: Lab, call: Callable[[], Any], function: str, argument: str) -> None:
    """Whether a call is refused with an error that names function and argument."""
    try:
        call()
    except (TypeError, ValueError) as error:
        lab.holds(f"{lab.rule.name}_{function}" in str(error), f"the error does not name {function}: {error}")
        lab.holds(argument in str(error), f"the error does not name {argument}: {error}")
    else:
        lab.holds(False, f"a wrong {argument} is accepted by {function}")


def still_steps(lab: Lab, case: Case, state: Any) -> None:
    """Whether a state that went through refused calls steps as one that did not."""
    one, other = (lab.step(s, lab.array(case.grads[0])) for s in (state, state_after(lab, case)))
    lab.holds(bytes_of(lab, one) == bytes_of(lab, other), "after a refused call the state steps differently")


@LAWS.add(
    "a saved state continues",
    Kind.BITS,
    "A state that was pickled as NumPy arrays and read again goes on with the same bits.",
    "design",
    [39],
    EVERY,
    modes=NOT_TRACED,
    dtypes=("float16", "float32", "float64"),  # NumPy has no bfloat16 to save it in
)
def saved_state_continues(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    state = state_after(lab, case, **hyper)

    def saved(x: Any) -> Any:
        return x if isinstance(x, int | float) else lab.backend.to_numpy(x)

    def loaded(x: Any) -> Any:
        return lab.backend.asarray(x, str(x.dtype)) if isinstance(x, np.ndarray) else x

    columns: Any = tuple(state)
    columns = pickle.loads(pickle.dumps(optree.tree_map(saved, columns)))
    again = type(state)(*optree.tree_map(loaded, columns))
    for grad in case.grads:
        state, again = (lab.step(s, lab.array(grad), **hyper) for s in (state, again))
    lab.holds(bytes_of(lab, state) == bytes_of(lab, again), "a saved state continues differently")


@LAWS.add(
    "no hidden state",
    Kind.BITS,
    "The same call gives the same bits again, and two runs that take turns give those that each gives alone.",
    "design",
    [39],
    EVERY,
    modes=NOT_TRACED,
)
def no_hidden_state(lab: Lab, case: Case) -> None:
    hyper, other = lab.hyper(case), lab.hyper(case, lr=0.5)
    alone = [state_after(lab, case, **h) for h in (hyper, other)]
    lab.holds(bytes_of(lab, alone[0]) == bytes_of(lab, state_after(lab, case, **hyper)), "the same run has other bits")
    states = [lab.rule.bind(**h).init(lab.array(case.params))._replace(step=lab.steps_before) for h in (hyper, other)]
    for grad in case.grads:
        states = [lab.step(s, lab.array(grad), **h) for s, h in zip(states, (hyper, other), strict=True)]
    lab.holds(bytes_of(lab, states) == bytes_of(lab, alone), "runs that take turns disturb each other")


@LAWS.add(
    "each leaf for itself",
    Kind.BITS,
    "The leaves of a tree, an empty one, one without axes and a strided one too, step as each does alone, in any order.",
    "design",
    [35],
    EVERY,
    modes=NOT_TRACED,
)
def each_leaf_for_itself(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    trees = [tree_of(lab, vector) for vector in (case.params, *case.grads)]
    whole = run_tree(lab, trees, hyper)
    turned = run_tree(lab, [dict(reversed(tree.items())) for tree in trees], hyper)
    lab.holds(
        {k: bytes_of(lab, v) for k, v in _leaves(whole)} == {k: bytes_of(lab, v) for k, v in _leaves(turned)},
        "the order of the leaves matters",
    )
    for name in trees[0]:
        alone = run_tree(lab, [tree[name] for tree in trees], hyper)
        lab.holds(bytes_of(lab, _of(whole, name)) == bytes_of(lab, tuple(alone[:-1])), f"leaf {name} steps differently alone")
    flat = run_tree(lab, [lab.array(v[2::2].copy()) for v in (case.params, *case.grads)], hyper)
    lab.holds(bytes_of(lab, _of(whole, "strided")) == bytes_of(lab, tuple(flat[:-1])), "a strided leaf steps differently")


def state_after(lab: Lab, case: Case, **hyper: Any) -> Any:
    """The state after all gradients of an example."""
    return run_tree(lab, [lab.array(vector) for vector in (case.params, *case.grads)], hyper)


def run_tree(lab: Lab, trees: list[Any], hyper: dict[str, Any]) -> Any:
    """The state after a run on trees: the first is the start, the others are gradients."""
    params, *grads = trees
    state = lab.rule.bind(**hyper).init(params)._replace(step=lab.steps_before)
    for grad in grads:
        state = lab.step(state, grad, **hyper)
    return state


def tree_of(lab: Lab, vector: Any) -> Any:
    """A tree with an empty leaf, one without axes, and, where the library has them, a view of every second number."""
    matrix, strided = lab.array(vector[:33].reshape(11, 3)), lab.array(vector)[2::2]
    leaves = [strided, matrix, lab.array(vector[:0]), lab.array(vector[0])]
    return tree_of_leaves("OrderedDict", leaves, ("strided", "matrix", "empty", "number"))


def _leaves(state: Any) -> Iterator[tuple[str, Any]]:
    return ((name, _of(state, name)) for name in state.params)


def _of(state: Any, name: str) -> Any:
    """Params and slots of one leaf of a state whose tree is a dict."""
    return tuple(column[name] for column in state[:-1])


def _arrays(tree: Any) -> list[Any]:
    """Arrays of a state; None where a slot is none, and no numbers."""
    return [x for x in optree.tree_leaves(tree, none_is_leaf=True) if not isinstance(x, int | float)]


def _form(state: Any) -> Any:
    leaves, spec = optree.tree_flatten(state._replace(step=0))
    return spec, [type(x) if isinstance(x, int | float) else (type(x), _dtype(x), tuple(x.shape)) for x in leaves]


def _dtype(x: Any) -> str:
    return str(x.dtype).rpartition(".")[2]


def _devices(state: Any) -> list[str]:
    return [str(getattr(x, "device", None)) for x in _arrays(tuple(state[:-1]))]


def bytes_of(lab: Lab, tree: Any) -> list[Any]:
    """Every number of a tree, exactly."""
    leaves = optree.tree_leaves(tree)
    return [repr(x) if isinstance(x, int | float) else lab.backend.to_numpy(x).tobytes() for x in leaves]
