"""Laws of use: what a caller may rely on whatever the formula. States, defaults, refusals, trees, purity, saving."""

import math
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import optree

from xopt.conformance.golden import start
from xopt.conformance.laws.lab import EAGER, NOT_TRACED, SIZE, Case, Kind, Lab, Laws
from xopt.conformance.numbers import FLOAT

LAWS = Laws()

RULES = ("sgd", "momentum", "nesterov", "qhm", "aggmo", "adam", "adamw", "nadam", "qhadam", "lion", "ademamix")

OUTSIDE: dict[str, tuple[float, ...]] = {
    "lr": (-5e-324, math.inf),
    "weight_decay": (-5e-324, math.inf),
    "beta": (-5e-324, 1.0),
    "beta1": (-5e-324, 1.0),
    "beta2": (-5e-324, 1.0),
    "beta3": (-5e-324, 1.0),
    "betas": (-5e-324, 1.0),
    "nu": (-math.inf, math.inf),
    "nu1": (-math.inf, math.inf),
    "nu2": (-5e-324, math.nextafter(1.0, 2.0)),
    "alpha": (-5e-324, math.inf),
    "eps": (-5e-324, math.inf),
    "psi": (-5e-324, math.inf),
    "alpha_warmup": (-5e-324, math.inf),
    "beta3_warmup": (-5e-324, math.inf),
}
"""For each hyperparameter the nearest numbers on both sides that it must not be."""
LOST = {
    ("float32", "eps"): (1e-50,),
    ("float64", "eps"): (5e-324,),
    **{("float32", name): (1 - 2.0**-30,) for name in ("beta", "beta1", "beta2", "beta3", "betas")},
}
"""Numbers in the range that leave it as they are rounded to the dtype of the arithmetic."""
OUTSIDE_OF = {("qhm", "beta"): (-1.0, 1.0)}
"""Where a rule's own range is another."""


@LAWS.add(
    "start",
    Kind.BITS,
    "Before the first step the parameters are those given, slots and step count 0, and carried numbers those of the golden.",
    "the papers of the rules: initialisation",
    [],
    RULES,
    modes=EAGER,
)
def starts(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    state = lab.rule.init(lab.array(case.params), **hyper)
    lab.holds(state.step == 0, "the step count is not 0")
    expected = start(lab.golden, FLOAT, FLOAT.number(0.0), lab.golden.defaults | hyper)
    for name, slot, want in zip(lab.rule.slots, state[1:-1], expected[1:], strict=True):
        if name in lab.rule.carried:
            lab.holds(slot == want, f"{name} starts with another number")
            continue
        for array, number in zip(_arrays(slot), want if isinstance(want, tuple) else (want,), strict=True):
            lab.holds(array is None or np.all(lab.vector(array) == number), f"{name} starts with another number")
    lab.holds(_bytes(lab, state.params) == _bytes(lab, lab.array(case.params)), "params are not those given")


@LAWS.add(
    "defaults",
    Kind.BITS,
    "A run without hyperparameters is a run with the defaults that the golden knows.",
    "the papers and the authors' code, as the golden cites them",
    [],
    RULES,
    modes=NOT_TRACED,  # given names are part of what is compiled
)
def defaults(lab: Lab, case: Case) -> None:
    lab.holds(list(lab.golden.defaults) == list(lab.rule.defaults), "the golden has other hyperparameters")
    silent, given = (_last(lab, case, **hyper) for hyper in ({}, lab.golden.defaults))
    lab.holds(_bytes(lab, silent) == _bytes(lab, given), "without hyperparameters the run is another")


@LAWS.add(
    "inputs are not written to",
    Kind.BITS,
    "Parameters, gradient and every slot have the same bytes after a step as before; read-only memory does.",
    "design",
    [39],
    RULES,
    modes=NOT_TRACED,
)
def inputs_stay(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    state, grad = _last(lab, case, **hyper), lab.array(case.grads[0])
    if lab.backend.name == "numpy":
        for array in (grad, *_arrays(tuple(state[:-1]))):
            if array is not None:
                array.flags.writeable = False
    before = _bytes(lab, (state, grad))
    lab.step(state, grad, **hyper)
    lab.rule.init(state.params, **hyper)
    lab.holds(_bytes(lab, (state, grad)) == before, "an input has changed")


@LAWS.add(
    "no shared memory",
    Kind.BITS,
    "No result of a step shares memory with an input, and no two slots of a state with each other.",
    "design",
    [39],
    RULES,
    modes=NOT_TRACED,
)
def memory_is_its_own(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    params, grad = lab.array(case.params), lab.array(case.grads[0])
    first = lab.rule.init(params, **hyper)
    second = lab.step(first, grad, **hyper)
    old, slots, new = ([x for x in _arrays(tuple(s)) if x is not None] for s in (first[:-1], second[1:-1], second[:-1]))
    if lab.backend.name == "numpy":
        shared = [np.shares_memory(x, y) for x in new for y in (*old, grad)]
        shared += [np.shares_memory(x, y) for group in (old, new) for i, x in enumerate(group) for y in group[:i]]
        lab.holds(not any(shared), "memory is shared")
        for x in (params, grad):  # written to, they change nothing
            before = _bytes(lab, second)
            x[...] = 7.0
            lab.holds(_bytes(lab, second) == before, "a result follows its input")
    else:
        before = _bytes(lab, second)
        lab.step(second, grad, **hyper)
        lab.holds(_bytes(lab, second) == before, "a result has changed in a later step")
        lab.holds(len({id(x) for x in slots}) == len(slots), "two slots are one array")


@LAWS.add(
    "the state keeps its form",
    Kind.BITS,
    "Dtypes, shapes, devices and tree of a state stay, slots are in the dtype of the arithmetic, and the step count goes up by 1.",
    "design",
    [60],
    RULES,
    modes=NOT_TRACED,
)
def form_stays(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    state = lab.rule.init(_tree(lab, case.params), **hyper)
    form, devices = _form(state), _devices(state)
    for name, slot in zip(lab.rule.slots, state[1:-1], strict=True):
        for x in optree.tree_leaves(slot):
            lab.holds(name in lab.rule.carried or _dtype(x) == lab.compute.name, f"{name} is not {lab.compute.name}")
    for t, grad in enumerate(case.grads, start=1):
        state = lab.step(state, _tree(lab, grad), **hyper)
        lab.holds(type(state.step) is int and state.step == t, f"the step count is {state.step!r} after {t} steps")
        lab.holds(_form(state) == form, "the form of the state has changed")
        lab.holds(_devices(state) == devices, "the device of the state has changed")


@LAWS.add(
    "steps are counted",
    Kind.BITS,
    "The step count is the number of steps taken, compiled or not.",
    "design",
    [],
    RULES,
)
def steps_are_counted(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    step = lab.stepper()
    state = lab.rule.init(lab.array(case.params), **hyper)
    for t, grad in enumerate(case.grads, start=1):
        state = step(state, lab.array(grad), **hyper)
        lab.holds(int(state.step) == t, f"the step count is {int(state.step)} after {t} steps")


@LAWS.add(
    "outside their ranges hyperparameters are refused",
    Kind.BITS,
    "NaN, the nearest numbers outside its range, also once rounded, and what is no number are refused and named.",
    "design",
    [],
    RULES,
    modes=NOT_TRACED,
)
def hyper_is_refused(lab: Lab, case: Case) -> None:
    state, grad = _last(lab, case), lab.array(case.grads[0])
    for name in lab.rule.defaults:
        outside: list[Any] = [math.nan, "1", True, *OUTSIDE_OF.get((lab.rule.name, name), OUTSIDE[name])]
        outside += LOST.get((lab.compute.name, name), ())
        if not name.endswith("_warmup"):
            outside.append(None)
        for value in outside:
            bad = {name: (0.5, value) if name == "betas" else value}
            _refused(lab, partial(lab.step, state, grad, **bad), "step", name)
            _refused(lab, partial(lab.rule.init, state.params, **bad), "init", name)
    _still_steps(lab, case, state)


@LAWS.add(
    "what does not go together is refused",
    Kind.BITS,
    "Another shape or dtype, integers, an unknown hyperparameter, another rule's state or half of one are refused in whole.",
    "design",
    [],
    RULES,
    modes=NOT_TRACED,
)
def odd_input_is_refused(lab: Lab, case: Case) -> None:
    state, grad = _last(lab, case), lab.array(case.grads[0])
    before = _bytes(lab, (state, grad))
    other_dtype = "float32" if lab.dtype != "float32" else "float64"
    wrong = [lab.array(case.grads[0][:-1]), lab.array(1.0), lab.backend.asarray(case.grads[0], other_dtype), None, 1.0]
    for g in wrong:
        _refused(lab, partial(lab.step, state, g), "step", "grad")
    integers = lab.backend.xp.astype(lab.array(np.ones(SIZE)), lab.backend.xp.int32)
    _refused(lab, partial(lab.rule.init, integers), "init", "params")
    _refused(lab, partial(lab.step, state, integers), "step", "grad")
    _refused(lab, partial(lab.step, state, grad, no_such=1.0), "step", "no_such")
    _refused(lab, partial(lab.rule.init, state.params, no_such=1.0), "init", "no_such")
    other = next(rule for name, rule in lab.rules.items() if name != lab.rule.name)
    _refused(lab, partial(lab.step, other.init(state.params), grad), "step", "state")
    _refused(lab, partial(lab.step, state._replace(step=-5), grad), "step", "step")
    for slot in lab.rule.memory:
        if not isinstance(getattr(state, slot), tuple):
            _refused(lab, partial(lab.step, state._replace(**{slot: None}), grad), "step", slot)
    lab.holds(_bytes(lab, (state, grad)) == before, "a refused call has changed its input")
    _still_steps(lab, case, state)


def _refused(lab: Lab, call: Callable[[], Any], function: str, argument: str) -> None:
    try:
        call()
    except (TypeError, ValueError) as error:
        lab.holds(f"{lab.rule.name}_{function}" in str(error), f"the error does not name {function}: {error}")
        lab.holds(argument in str(error), f"the error does not name {argument}: {error}")
    else:
        lab.holds(False, f"a wrong {argument} is accepted by {function}")


def _still_steps(lab: Lab, case: Case, state: Any) -> None:
    """Whether a state that went through refused calls steps as one that did not."""
    one, other = (lab.step(s, lab.array(case.grads[0])) for s in (state, _last(lab, case)))
    lab.holds(_bytes(lab, one) == _bytes(lab, other), "after a refused call the state steps differently")


@LAWS.add(
    "a saved state continues",
    Kind.BITS,
    "A state that was pickled as NumPy arrays and read again goes on with the same bits.",
    "design",
    [39],
    RULES,
    modes=NOT_TRACED,
    dtypes=("float16", "float32", "float64"),  # NumPy has no bfloat16 to save it in
)
def saved_state_continues(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    state = _last(lab, case, **hyper)

    def saved(x: Any) -> Any:
        return x if isinstance(x, int | float) else lab.backend.to_numpy(x)

    def loaded(x: Any) -> Any:
        return lab.backend.asarray(x, str(x.dtype)) if isinstance(x, np.ndarray) else x

    columns: Any = tuple(state)
    columns = pickle.loads(pickle.dumps(optree.tree_map(saved, columns)))
    again = type(state)(*optree.tree_map(loaded, columns))
    for grad in case.grads:
        state, again = (lab.step(s, lab.array(grad), **hyper) for s in (state, again))
    lab.holds(_bytes(lab, state) == _bytes(lab, again), "a saved state continues differently")


@LAWS.add(
    "no hidden state",
    Kind.BITS,
    "The same call gives the same bits again, and two runs that take turns give those that each gives alone.",
    "design",
    [39],
    RULES,
    modes=NOT_TRACED,
)
def no_hidden_state(lab: Lab, case: Case) -> None:
    hyper, other = lab.hyper(case), lab.hyper(case, lr=0.5)
    alone = [_last(lab, case, **h) for h in (hyper, other)]
    lab.holds(_bytes(lab, alone[0]) == _bytes(lab, _last(lab, case, **hyper)), "the same run has other bits")
    states = [lab.rule.init(lab.array(case.params), **h) for h in (hyper, other)]
    for grad in case.grads:
        states = [lab.step(s, lab.array(grad), **h) for s, h in zip(states, (hyper, other), strict=True)]
    lab.holds(_bytes(lab, states) == _bytes(lab, alone), "runs that take turns disturb each other")


@LAWS.add(
    "each leaf for itself",
    Kind.BITS,
    "The leaves of a tree, an empty one, one without axes and a strided one too, step as each does alone, in any order.",
    "design",
    [35],
    RULES,
    modes=NOT_TRACED,
)
def each_leaf_for_itself(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    trees = [_tree(lab, vector) for vector in (case.params, *case.grads)]
    whole = _run(lab, trees, hyper)
    turned = _run(lab, [dict(reversed(tree.items())) for tree in trees], hyper)
    lab.holds(
        {k: _bytes(lab, v) for k, v in _leaves(whole)} == {k: _bytes(lab, v) for k, v in _leaves(turned)},
        "the order of the leaves matters",
    )
    for name in trees[0]:
        alone = _run(lab, [tree[name] for tree in trees], hyper)
        lab.holds(_bytes(lab, _of(whole, name)) == _bytes(lab, tuple(alone[:-1])), f"leaf {name} steps differently alone")
    flat = _run(lab, [lab.array(v[2::2].copy()) for v in (case.params, *case.grads)], hyper)
    lab.holds(_bytes(lab, _of(whole, "strided")) == _bytes(lab, tuple(flat[:-1])), "a strided leaf steps differently")


@LAWS.add(
    "a tree of hyperparameters makes groups",
    Kind.BITS,
    "A hyperparameter that is a tree gives each leaf what a run of that leaf alone with its own number gives.",
    "design",
    [35],
    RULES,
    modes=NOT_TRACED,
)
def hyper_makes_groups(lab: Lab, case: Case) -> None:
    hyper = lab.hyper(case)
    trees = [{"a": _tree(lab, v), "b": lab.array(v)} for v in (case.params, *case.grads)]
    both = _run(lab, trees, hyper | {"lr": {"a": 0.5, "b": 0.125}})
    for name, lr in (("a", 0.5), ("b", 0.125)):
        alone = _run(lab, [tree[name] for tree in trees], hyper | {"lr": lr})
        lab.holds(_bytes(lab, _of(both, name)) == _bytes(lab, tuple(alone[:-1])), f"leaf {name} does not get its own lr")


def _last(lab: Lab, case: Case, **hyper: Any) -> Any:
    """The state after all gradients of an example."""
    return _run(lab, [lab.array(vector) for vector in (case.params, *case.grads)], hyper)


def _run(lab: Lab, trees: list[Any], hyper: dict[str, Any]) -> Any:
    params, *grads = trees
    state = lab.rule.init(params, **hyper)
    for grad in grads:
        state = lab.step(state, grad, **hyper)
    return state


def _tree(lab: Lab, vector: Any) -> dict[str, Any]:
    """A tree with an empty leaf, one without axes, and, where the library has them, a view of every second number."""
    matrix, strided = lab.array(vector[:33].reshape(11, 3)), lab.array(vector)[2::2]
    return {"matrix": matrix, "empty": lab.array(vector[:0]), "number": lab.array(vector[0]), "strided": strided}


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


def _bytes(lab: Lab, tree: Any) -> list[Any]:
    """Every number of a tree, exactly."""
    leaves = optree.tree_leaves(tree)
    return [repr(x) if isinstance(x, int | float) else lab.backend.to_numpy(x).tobytes() for x in leaves]
