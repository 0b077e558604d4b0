"""Rules as gradient transformations of optax: the update is what the rule's program subtracts from the params."""

import importlib
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from xopt.backends.fused.compiled import Compiled
from xopt.bound import Bound
from xopt.operations import Array
from xopt.program import OPERATIONS, Program, evaluate, needed, numbers_of
from xopt.rule import Rule, rule_given
from xopt.slots import Slot, each
from xopt.trees import Tree, flatten, flatten_like, mapped
from xopt.typed import Call


def as_optax(rule: Any, **hyper: Any) -> Any:
    """A rule as a gradient transformation of optax: ``init(params)`` and ``update(grads, state, params)``.

    Parameters
    ----------
    rule
        A rule such as ``xopt.adamw``, its step, ``xopt.adamw_step``, or a rule with hyperparameters, ``xopt.lion.bind(lr=1e-4)``.
    hyper
        The rule's hyperparameters. Each is a number, a 0-d array, a function such as a schedule of optax, or a tree of those that
        is a prefix of the params. A function is called with optax's count, the number of updates before this one: 0 at the first.
        The rule's own t, on which bias corrections and warm-ups depend, is 1 there, as everywhere in xopt.

    Returns
    -------
    optax.GradientTransformation
        Its update has the dtype of the gradient, which must be that of the params. Its state is the rule's, with None for params, a
        tuple of trees for a tree of tuples, and arrays for numbers.

        ``optax.apply_updates`` gives float32 and float64 params the bits of ``<rule>_step`` in the same mode: eager, or within
        ``jit``. (The product that NAdam carries is an array here, right to rounding.) The update of float16 and bfloat16 params is
        computed in float32, and rounded: what is stored is not further from what ``<rule>_step`` stores than half a unit in the
        last place of the update and one of the params.

    Raises
    ------
    ImportError
        Where optax is not installed.
    TypeError
        From ``as_optax``: what is no rule; an unknown hyperparameter, or one that is no number. From ``init`` and ``update``: what
        ``<rule>_init`` and ``<rule>_step`` refuse.
    ValueError
        A number that is out of its range. From ``update``: no params where the update depends on them, as through a weight decay;
        what ``<rule>_step`` refuses.

    Notes
    -----
    All rules of xopt end with ``params - x``, and the update is ``-x``. Of a rule of your own that ends otherwise it is ``x`` for
    ``params + x``, else ``new - params``, rounded: the params get the step's bits where that difference is exact, and are otherwise
    off by half a unit in its last place, and half a unit of their own.
    """
    if isinstance(rule, Bound):
        hyper = rule.hyper | hyper
    found = _Transformation(rule_given("as_optax", rule), hyper)
    return importlib.import_module("optax").GradientTransformation(found.init, found.update)


class _Transformation:
    """What ``as_optax`` makes of a rule: its init and update."""

    def __init__(self, rule: Rule[Any, Any], hyper: dict[str, Any]) -> None:
        self.jnp: Any = importlib.import_module("jax.numpy")
        self.rule = rule
        self.hyper = hyper
        self.scheduled = {name for name, value in hyper.items() if any(map(callable, flatten(value)[0]))}
        if "hyper" in hyper:
            way = f"lambda lr: as_optax(xopt.{rule.name}, lr=lr)"
            msg = f"as_optax: inject_hyperparams must be given a function whose arguments have names, such as {way}"
            raise TypeError(msg)
        rule.check_names("as_optax", hyper)
        rule.check_hyper("as_optax", {name: value for name, value in hyper.items() if name not in self.scheduled})
        self._updates: Compiled = rule.compiled.setdefault("optax", Compiled(rule, _Update))

    def init(self, params: Tree) -> Any:
        """The state before the first step: of a tree without leaves too, as wrappers may take all of them away."""
        rule, function = self.rule, f"{self.rule.name}_init"
        leaves, spec = flatten(self._arrays(params))
        call = Call(function, spec=spec)
        hyper = {name: self._at(name, lambda _: _REMEMBERS) for name in self.hyper if name in rule.of_init}
        count = self.jnp.zeros((), "int32")
        if not leaves:
            slots = [each(lambda _: params, slot) for slot in rule.schema.full(rule.defaults | hyper)]
            return rule.state._make([None, *slots, count])
        rows = []
        for i, (leaf, own) in enumerate(zip(leaves, rule.broadcast(call, hyper), strict=True)):
            typed = rule.typed(call, i, leaf)
            typed.check_hyper(function, own)
            row = [typed.fresh(slot, leaf, rule.defaults | own) for slot in rule.slots]
            rows.append([self.jnp.asarray(x, typed.compute) if isinstance(x, float) else x for x in row])
        return self._state(spec, rows, count)

    def update(self, grads: Tree, state: Any, params: Tree = None) -> tuple[Tree, Any]:
        """The update of the params, and the next state."""
        rule = self.rule
        _, slots, t = rule.unpack(self._arrays(state))
        hyper = {name: self._at(name, lambda schedule: schedule(t - 1)) for name in self.hyper}
        grads = self._arrays(grads)
        leaves, spec = flatten(mapped(self.jnp.zeros_like, grads) if params is None else self._arrays(params))
        if not leaves:
            return grads, state._replace(step=t)
        call = Call(f"{rule.name}_step", t, spec, {})
        groups = rule.broadcast(call, hyper)
        given = flatten_like(call.function, spec, "grad", grads)
        columns = [self._column(call, *pair, groups) for pair in zip(rule.schema, slots, strict=True)]
        rows = zip(given, *columns, groups, strict=True)
        updates, new = [], []
        for i, (leaf, (grad, *old, own)) in enumerate(zip(leaves, rows, strict=True)):
            typed = rule.typed(call, i, leaf)
            c, _ = typed.prepare_leaf(call, i, leaf, grad, old, own)
            update: _Update = self._updates.of(old, c)
            if params is None:
                update.refuse_no_params(call.function, c)
            row = [leaf, *old]
            change, *arrays = update(self.jnp, [x.astype(typed.compute) for x in (*rule.schema.arrays(row), grad)], c)
            updates.append(change.astype(leaf.dtype))
            numbers = {name: typed.lifted(getattr(c, name)) for name in rule.carried}
            new.append(rule.schema.filled(row, [leaf, *arrays], numbers)[1:])
        return spec.unflatten(updates), self._state(spec, new, t)

    def _state(self, spec: Any, rows: Sequence[Sequence[Any]], count: Array) -> Any:
        """A state, from the slots of each leaf: a tree of each, or a tuple of trees, as optax has it."""

        def tree(column: Sequence[Any]) -> Tree:
            return None if all(x is None for x in column) else spec.unflatten(column)

        columns = zip(self.rule.schema, zip(*rows, strict=True), strict=True)
        trees = [tuple(map(tree, zip_longest(*column))) if slot.several else tree(column) for slot, column in columns]
        return self.rule.state._make([None, *trees, count])

    def _column(self, call: Call, slot: Slot, tree: Tree, groups: Sequence[dict[str, Any]]) -> Sequence[Any]:
        """A slot of each leaf."""

        def column(name: str, tree: Tree) -> Sequence[Any]:
            return [None] * len(groups) if tree is None else flatten_like(call.function, call.spec, name, tree)

        if not slot.several:
            return column(f"state.{slot.name}", tree)
        rows = zip(*[column(f"state.{slot.name}[{i}]", one) for i, one in enumerate(tree)], strict=True)
        return [row[: len(self.rule.decay_of(slot.name, own))] for row, own in zip(rows, groups, strict=True)]

    def _at(self, name: str, number_of: Callable[[Any], Any]) -> Any:
        """A hyperparameter, with a number for each schedule in it."""
        value = self.hyper[name]
        return mapped(lambda x: number_of(x) if callable(x) else x, value) if name in self.scheduled else value

    def _arrays(self, tree: Tree) -> Tree:
        """A tree with arrays of JAX for numbers and for arrays of NumPy, as optax's own transformations take it."""
        return mapped(lambda x: self.jnp.asarray(x) if isinstance(x, np.ndarray | np.generic | float | int) else x, tree)


_REMEMBERS = 0.5
"""A decay for one that is a schedule: any but 0, so that its slot is there."""


class _Update:
    """A program without its last operation, where that is the sum of params and a change.

    Parameters
    ----------
    program
        Of a rule, for one form of the state of a leaf.
    """

    def __init__(self, program: Program) -> None:
        name, operands = {x.result: x[1:] for x in program.operations}.get(program.writes["params"], ("", ()))
        changes = [x for x in operands if x != "params" and x not in program.coefficients and isinstance(x, str)]
        added = len(operands) == 2 and len(changes) == 1 and "params" in operands
        self._program = program
        self._change: str | None = None
        self._negative = name == "subtract"
        if added and (name == "add" or (self._negative and operands[0] == "params")):
            self._change = str(changes[0])
        _, *slots = program.writes.values()
        self._slots = slots
        self._operations = needed(program.operations, [self._change or program.writes["params"], *slots])

    def __call__(self, jnp: Any, arrays: Sequence[Array], c: Any) -> list[Array]:
        """The change of the params and the new slots, from the arrays of a leaf in the dtype of the arithmetic."""
        functions = OPERATIONS | {name: getattr(jnp, name) for name in ("sqrt", "sign", "maximum", "minimum", "where")}
        values = dict(zip(self._program.coefficients, numbers_of(c), strict=True))
        values |= dict(zip(self._program.arrays, arrays, strict=True))
        evaluate(self._operations, functions, values)
        if self._change is None:
            change = values[self._program.writes["params"]] - values["params"]
        else:
            change = -values[self._change] if self._negative else values[self._change]
        return [change, *[values[name] for name in self._slots]]

    def refuse_no_params(self, function: str, c: Any) -> None:
        """Raises ValueError where the change depends on the params: a product with a coefficient that is 0 does not."""
        zeros = {name for name, x in zip(self._program.coefficients, numbers_of(c), strict=True) if type(x) is float and x == 0.0}
        for _, name, operands in self._operations:
            others = [x for x in operands if x != "params"]
            if len(others) < len(operands) and not (name == "multiply" and zeros.intersection(others)):
                through = "".join(f", through {x.removeprefix('c_')}" for x in others if x in self._program.coefficients)
                raise ValueError(_no_params(function, through))
        if self._change is None:
            raise ValueError(_no_params(function, ""))


def _no_params(function: str, through: str) -> str:
    return f"{function}: params are not given, and the update depends on them{through}; call update(grads, state, params)"
