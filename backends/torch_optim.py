"""Rules as ``torch.optim`` optimizers: ``torch_optim.AdEMAMix(model.parameters(), lr=1e-3)``.

One class a rule, by the name that its paper gives it, and ``of(rule)`` for any other. Importing this module imports torch.
"""

import inspect
import math
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import cache
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, ClassVar

import numpy as np
import optree
import torch
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from xopt.backends._torch import extents
from xopt.backends.base import say_once
from xopt.backends.fused.donation import Piece, overlapping
from xopt.backends.fused.step import fuser_of
from xopt.backends.fused.work import UnfitError, Work
from xopt.checks import ALSO_CALLED, as_number, check_hyper, shown
from xopt.counts import following
from xopt.documentation import described
from xopt.rule import Rule, rule_given
from xopt.rules import RULES
from xopt.slots import Slot, each
from xopt.trees import path_of
from xopt.typed import MOST_STEPS, Call

__all__ = ["RuleOptimizer", "of"]

TORCHS_OWN = ("amsgrad", "capturable", "dampening", "decoupled_weight_decay", "differentiable", "foreach", "nesterov")
"""Keywords of optimizers of torch's that none here has."""

_ELSEWHERE = {*TORCHS_OWN, *ALSO_CALLED, *(name for rule in RULES.values() for name in rule.defaults)}
"""What some optimizer takes for a hyperparameter."""

_STEP = itemgetter("step")
_DENSE = {torch.Tensor}
_STORED = {torch.Tensor, torch.nn.Parameter}


class Group(dict[str, Any]):
    """A parameter group: the hyperparameters by their names in xopt, some of which also go by torch's.

    ``betas`` stands for beta1, beta2 and, where there is one, beta3; ``momentum`` for beta. That is what torch's schedulers look
    for and set. Each number is kept once, under xopt's name, and the other is no key of the group: it appears in no ``state_dict``.
    """

    def _meant(self, name: str) -> tuple[str, ...]:
        """What a name of torch's stands for; nothing, where it stands for itself."""
        if name == "betas" and "beta1" in self:
            return tuple([beta for beta in ("beta1", "beta2", "beta3") if beta in self])
        return ("beta",) if name == "momentum" and "beta" in self else ()

    def __missing__(self, name: str) -> Any:
        meant = self._meant(name)
        if not meant:
            raise KeyError(name)
        return tuple([self[one] for one in meant]) if name == "betas" else self[meant[0]]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and bool(self._meant(name)))

    def __setitem__(self, name: str, value: Any) -> None:
        meant = self._meant(name)
        if not meant:
            super().__setitem__(name, value)
            return
        values = (value,) if name == "momentum" else value
        if not isinstance(values, list | tuple) or len(values) != len(meant):
            msg = f"{name} must be {len(meant)} numbers, those of {', '.join(meant)}, got {shown(value)}"
            raise ValueError(msg)
        super().update(zip(meant, values, strict=True))

    # of a dict they would go past the methods above
    get = Mapping.get  # type: ignore[assignment]
    update = MutableMapping.update
    setdefault = MutableMapping.setdefault


class RuleOptimizer(torch.optim.Optimizer):
    """What the optimizers of this module share; ``of`` makes the class of a rule.

    A step writes parameters and slots in place, in one pass over memory where ``xopt.backends.fuse`` can, and plainly where it
    cannot, which is said once. Parameters of one group that have taken equally many steps are stepped together. A parameter
    without a gradient is left as it is, and so are its slots and its count. All of a step is checked before any of it is written.
    """

    rule: ClassVar[Rule[Any, Any]]

    def __init__(self, params: Any, *, maximize: bool = False, fused: bool = True, **hyper: Any) -> None:
        defaults = Group(self.rule.defaults | {"maximize": False, "fused": True})
        name = self._name()
        self._take(defaults, name, hyper | {"maximize": maximize, "fused": fused})
        self._begin()
        _refuse_module(name, params)
        super().__init__(params, defaults)

    def _begin(self) -> None:
        # what fused steps keep from one to the next, by group and part
        self._kept: defaultdict[tuple[int, int], dict[Any, Any]] = defaultdict(dict)
        self._function = self._name()
        self._said = False  # whether it is said that a step is not fused

    @classmethod
    def _name(cls) -> str:
        return f"torch_optim.{cls.__name__}"

    def __reduce__(self) -> Any:
        return _blank, (self.rule,), self.__getstate__()

    # Groups.

    def _take(self, group: Group, function: str, given: Mapping[str, Any]) -> None:
        """Puts what was given into a group, by whichever name. Raises TypeError for a name that there is not, or for two of one."""
        for name in given:
            if name in TORCHS_OWN and name not in self.rule.defaults:
                msg = (
                    f"{function}: {name} is a keyword of torch's own optimizers; {self.rule.name} takes "
                    f"{', '.join(self.rule.defaults)}, maximize and fused"
                )
                raise TypeError(msg)
            if name not in group:
                self.rule.check_names(function, (name,))
            if twice := [one for one in group._meant(name) if one in given]:
                msg = f"{function}: {name} is another name of {twice[0]} here; pass one of the two"
                raise TypeError(msg)
            try:
                group[name] = given[name]
            except ValueError as error:
                msg = f"{function}: {error}"
                raise ValueError(msg) from None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters with hyperparameters of their own: see ``torch.optim.Optimizer.add_param_group``.

        Raises
        ------
        TypeError
            For what is no parameter of real floating-point numbers.
        ValueError
            For a hyperparameter out of its range, or parameters that the optimizer has already.
        """
        own = param_group
        if isinstance(param_group, dict):
            own = Group(self.defaults)
            # a group may have keys that are somebody else's, as torch's schedulers put there, but no hyperparameter in vain
            known = {name: value for name, value in param_group.items() if name in own or (name in _ELSEWHERE and value)}
            self._take(own, self._where(len(self.param_groups)), known)
            own.update((name, value) for name, value in param_group.items() if name not in known)
            _refuse_module(self._where(len(self.param_groups)), own.get("params"))
        super().add_param_group(own)
        try:
            self._check(len(self.param_groups) - 1)
        except (TypeError, ValueError):
            self.param_groups.pop()
            raise

    def _where(self, number: int) -> str:
        return f"{self._name()}, group {number}" if number else self._name()

    def _check(self, number: int) -> None:
        """Checks the numbers of a group as those of a step are, for each dtype among its parameters, and those dtypes."""
        group = self.param_groups[number]
        call = Call(self._where(number), spec=_Places(group))
        for name in ("maximize", "fused"):
            if not isinstance(group[name], bool):
                msg = f"{call.function}: {name} must be True or False, got {shown(group[name])}"
                raise TypeError(msg)
        first: dict[Any, tuple[int, Any]] = {}  # of each kind of parameters
        for i, p in enumerate(map(_local, group["params"])):
            first.setdefault((type(p), p.dtype), (i, p))
        for i, p in first.values():
            typed = self.rule.typed(call, i, p)
            for name in self.rule.defaults:
                check_hyper(call.function, name, group[name], self.rule.ranges[name], typed.precision)

    # A step.

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step.

        Parameters
        ----------
        closure
            Evaluates the model again and returns the loss. Default: none, as the gradients have been computed.

        Returns
        -------
        What the closure returned; None without one.

        Raises
        ------
        TypeError, ValueError
            What the rule refuses: hyperparameters out of range, sparse gradients, parameters that share memory. Nothing is written.
        """
        if _is_compiling():
            return _untraced(self, closure)
        if _profiler._is_profiler_enabled:
            with torch.autograd.profiler.record_function(f"Optimizer.step#{type(self).__name__}.step"):
                return self._hooked(closure)
        if (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
        ):
            return self._hooked(closure)
        return self._stepped(closure)

    step.hooked = True  # type: ignore[attr-defined]  # torch wraps no step that says so: what it adds costs as much as a small step

    def _hooked(self, closure: Callable[[], Any] | None) -> Any:
        """A step with the hooks that a step of torch's own optimizers calls before and after it."""
        args: tuple[Any, ...] = (self, closure)
        kwargs: dict[str, Any] = {}
        for hook in chain(_global_optimizer_pre_hooks.values(), self._optimizer_step_pre_hooks.values()):
            result: Any = hook(self, args, kwargs)
            if result is not None:
                if not isinstance(result, tuple) or len(result) != 2:
                    msg = f"{self._name()}: a hook before a step must return None or (args, kwargs), got {shown(result)}"
                    raise RuntimeError(msg)
                args, kwargs = result
        loss = self._stepped(*args[1:], **kwargs)
        self._optimizer_step_code()  # where torch's profiler looks
        for hook in chain(self._optimizer_step_post_hooks.values(), _global_optimizer_post_hooks.values()):
            hook(self, args, kwargs)
        return loss

    def _stepped(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        recorded = torch.is_grad_enabled()
        _record(False)  # what no_grad calls, at a tenth of the cost
        try:
            parts: list[_Part] = []
            for number, group in enumerate(self.param_groups):
                parts += self._parts(number, group)
            shared = len(parts) > 1 and _share_memory(parts)
            for part, launch in [(part, self._prepared(part, shared)) for part in parts]:
                try:
                    new = launch()
                except UnfitError as error:  # what was to compile it does not, and nothing else does: nothing is written yet
                    new = self._plainly(part, error)()
                part.wrote(new)
        finally:
            _record(recorded)
        return loss

    def _parts(self, number: int, group: dict[str, Any]) -> "list[_Part]":
        """The parameters of a group that have gradients, in parts that are stepped together."""
        params: list[Any] = group["params"]
        grads = [p.grad for p in params]
        indices: Sequence[int] | None = None
        dense = set(map(type, grads)) == _DENSE
        if not dense:
            indices = [i for i, grad in enumerate(grads) if grad is not None]
            params, grads = [params[i] for i in indices], [grads[i] for i in indices]
            if not indices:
                return []
        if group["maximize"]:
            grads = [-grad for grad in grads]
        function = self._where(number) if number else self._function
        # hyperparameters that are not the rule's defaults, as only these need be checked
        hyper = {
            name: x
            for name, default in self.rule.defaults.items()
            if (x := group[name]) is not default and (type(x) is not float or x != default)
        }
        entries = [self.state[p] for p in params]
        if not all(entries):
            self._fill(Call(function, spec=_Places(group, indices)), params, entries, hyper)
        keys = list(map(_STEP, entries))
        if _ACCELERATED:
            keys = [(count, p.device) for count, p in zip(keys, params, strict=True)]
        if len(set(keys)) == 1:
            place = _Places(group, indices)
            call = Call(function, self._following(function, place, entries[0]["step"]), place)
            columns = params, grads, entries
            return [_Part(self.rule, (number, 0), call, columns, hyper, fused=group["fused"], dense=dense)]
        parts: list[_Part] = []
        for key in dict.fromkeys(keys):
            of_key = [i for i, one in enumerate(keys) if one == key]
            columns = [params[i] for i in of_key], [grads[i] for i in of_key], [entries[i] for i in of_key]
            place = _Places(group, [indices[i] for i in of_key] if indices else of_key)
            call = Call(function, self._following(function, place, entries[of_key[0]]["step"]), place)
            at = number, len(parts)
            parts.append(_Part(self.rule, at, call, columns, dict(hyper), fused=group["fused"], dense=dense))
        return parts

    @staticmethod
    def _following(function: str, place: Any, count: Any) -> int:
        """The count of the step that parameters are about to take. Raises where somebody has put something else into the state."""
        if type(count) is int and 0 <= count <= MOST_STEPS:
            return count + 1
        return int(following(f"{function}: state[...]['step'] of params{path_of(place, 0)}", count))

    def _fill(self, call: Call, params: list[Any], entries: list[dict[str, Any]], hyper: dict[str, Any]) -> None:
        """Gives those that have none the slots of a first step, without the ones whose decay is 0."""
        rule = self.rule
        hyper = rule.defaults | hyper
        for i, (p, entry) in enumerate(zip(params, entries, strict=True)):
            if not entry:
                typed = rule.typed(call, i, _local(p))
                typed.check_hyper(call.function, dict(hyper))
                made = {"step": 0}
                for slot in rule.schema:
                    made |= zip(keys_of(slot, hyper), values_of(slot, typed.fresh(slot.name, p, hyper)), strict=True)
                entry.update((key, x) for key, x in made.items() if x is not None)

    def _prepared(self, part: "_Part", shared: bool) -> Callable[[], Sequence[Sequence[Any]]]:
        """Checks and compiles what a part needs. What is returned writes: nothing has been written yet."""
        if not part.fused:
            return part.plainly()
        if shared:
            return self._plainly(part, UnfitError("parameters that are not stepped together may share memory"))
        work = part.work(self._kept[part.at])
        try:
            fuser: Any = fuser_of(work)
            launch: Callable[[], Sequence[Sequence[Any]]] = fuser.in_place(work)
        except UnfitError as error:
            return self._plainly(part, error)
        return launch

    def _plainly(self, part: "_Part", error: UnfitError) -> Callable[[], Sequence[Sequence[Any]]]:
        if not self._said:
            self._said = True
            say_once(f"{self._name()} takes plain steps, as {error}")
        return part.plainly()

    # Its state.

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what ``state_dict`` gave: copies of its arrays, in their own dtypes, on the devices of the parameters.

        Raises
        ------
        TypeError, ValueError
            For the state of another optimizer, other groups, or arrays of another shape or dtype. Nothing is loaded then.
        """
        # torch casts every tensor to the dtype of its parameter, but lets pass what it does not know
        handle = self.register_load_state_dict_pre_hook(_hold)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        defaults = state.get("defaults") or self.defaults
        groups = [group if isinstance(group, Group) else Group(group) for group in state["param_groups"]]
        for group in groups:
            for name, value in defaults.items():
                group.setdefault(name, value)
        number = {id(p): i for i, p in enumerate(chain.from_iterable(group["params"] for group in groups))}
        for p, entry in state["state"].items():
            if any(isinstance(x, _Held) for x in entry.values()):
                state["state"][p] = self._loaded(f"{self._name()}: state of parameter {number[id(p)]}", p, entry)
        super().__setstate__(state | {"param_groups": groups})
        self._begin()

    def _loaded(self, where: str, p: Any, entry: dict[str, Any]) -> dict[str, Any]:
        """The slots of a parameter as they were saved."""
        rule, compute = self.rule, self.rule.typed(Call(where), 0, _local(p)).compute
        slots = {slot.name: slot for slot in rule.schema}
        made: dict[str, Any] = {}
        for key, held in entry.items():
            x = held.value
            name, _, place = key.partition(".") if isinstance(key, str) else (key, "", "")
            slot = slots.get(name)
            if key == "step" or (slot is not None and slot.number is not None):
                number = as_number(x)
                if number is None:
                    msg = f"{where}: {key} must be a number, got {shown(x)}"
                    raise TypeError(msg)
                if key == "step" and not (0 <= number < math.inf and number.is_integer()):
                    msg = f"{where}: step must be a whole number that is not negative, got {shown(x)}"
                    raise ValueError(msg)
                made[key] = int(number) if key == "step" else number
                continue
            if slot is None or slot.several != place.isdecimal():
                has = ", ".join(["step", *(f"{one.name}.0, ..." if one.several else one.name for one in rule.schema)])
                msg = f"{where} has {key!r}, but that of {rule.name} has {has}; it may be that of another optimizer"
                raise ValueError(msg)
            if not isinstance(x, torch.Tensor) or x.shape != p.shape:
                msg = f"{where}: {key} must be a tensor of shape {tuple(p.shape)}, as its parameter, got {shown(x)}"
                raise ValueError(msg)
            if x.dtype != compute and torch.promote_types(x.dtype, compute) != compute:
                msg = f"{where}: {key} is {x.dtype} but must be {compute}; cast it yourself, nothing is rounded"
                raise TypeError(msg)
            made[key] = x.detach().to(device=p.device, dtype=compute, copy=True)
        if entry and "step" not in made:
            msg = f"{where} has no step, the count of the steps that were taken; it may be that of another optimizer"
            raise ValueError(msg)
        return made


class _Part:
    """Parameters that are stepped together, and what they need for it."""

    def __init__(
        self,
        rule: Rule[Any, Any],
        at: tuple[int, int],
        call: Call,
        columns: tuple[list[Any], list[Any], list[dict[str, Any]]],  # of each parameter: itself, its gradient, and its state
        hyper: dict[str, Any],
        *,
        fused: bool,
        dense: bool,
    ) -> None:
        params, grads, entries = columns
        self.rule = rule
        self.at = at  # its group, and its number in it
        self.call = call
        self.params = params
        self.entries = entries
        self.hyper = hyper
        self.fused = fused
        slots: list[Any]
        if rule.schema.several:
            slots = [
                [tuple([entry.get(key) for key in keys]) if slot.several else entry.get(slot.name) for entry in entries]
                for slot in rule.schema
                for keys in [keys_of(slot, rule.defaults | hyper)]
            ]
        else:
            slots = [[entry.get(name) for entry in entries] for name in rule.slots]
        if not dense and any(map(_is_distributed, (*params, *grads))):  # else all gradients are torch's plain tensors
            grads = [_placed_as(p, grad, self.call, i) for i, (p, grad) in enumerate(zip(params, grads, strict=True))]
            params = list(map(_local, params))
            slots = [list(map(_local, column)) for column in slots]
        self.columns = [params, grads, *slots]

    def work(self, kept: dict[Any, Any]) -> Work:
        return Work(self.rule, self.call, self.columns, [self.hyper] * len(self.params), True, kept)

    def plainly(self) -> Callable[[], Sequence[Sequence[Any]]]:
        """A plain step, which is copied into the arrays."""
        rule, (params, grads, *slots) = self.rule, self.columns
        names = self.call.spec.names()
        trees = [dict(zip(names, column, strict=True)) for column in (params, *slots)]
        state = rule.state(*trees, self.call.t - 1)
        new = rule.step(state, dict(zip(names, grads, strict=True)), **self.hyper)

        def launch() -> list[list[Any]]:
            columns = []
            for slot, old, tree in zip((None, *rule.schema), (params, *slots), new[:-1], strict=True):
                fresh = list(tree.values())
                if slot is None or slot.number is None:
                    for x, y in zip(old, fresh, strict=True):
                        each(torch.Tensor.copy_, x, y)
                    fresh = old
                columns.append(fresh)
            return columns

        return launch

    def wrote(self, new: Sequence[Sequence[Any]]) -> None:
        """Takes down what a step has changed beside numbers in memory."""
        for at, name, _ in self.rule.carried_at:
            for entry, x in zip(self.entries, new[1 + at], strict=True):
                entry[name] = x
        t = self.call.t
        for entry in self.entries:
            entry["step"] = t


class _Places:
    """What errors call the parameters of a part: what an optree spec says of the leaves of a tree."""

    def __init__(self, group: dict[str, Any], indices: Sequence[int] | None = None) -> None:
        self._group = group
        self._indices = indices

    def names(self) -> list[Any]:
        given: Sequence[Any] = self._group.get("param_names") or ()
        if len(set(given)) < len(self._group["params"]):  # without names, or torch has let two parameters have the same name
            given = range(len(self._group["params"]))
        return list(given) if self._indices is None else [given[i] for i in self._indices]

    def accessors(self) -> Any:
        tree: Any = OrderedDict.fromkeys(self.names(), 0)
        return optree.tree_structure(tree).accessors()


def _refuse_module(function: str, params: Any) -> None:
    """Raises TypeError for what has parameters where they are asked for; a ParameterList is a list of them."""
    if isinstance(params, torch.nn.Module) and not isinstance(params, torch.nn.ParameterList):
        msg = f"{function}: params is a {type(params).__name__}; pass its parameters() or named_parameters()"
        raise TypeError(msg)


def keys_of(slot: Slot, hyper: Mapping[str, Any]) -> list[str]:
    """Under which keys the state of a parameter holds a slot: one an array."""
    return [f"{slot.name}.{i}" for i in range(len(hyper[slot.decay or ""]))] if slot.several else [slot.name]


def values_of(slot: Slot, x: Any) -> Sequence[Any]:
    """What they hold."""
    return x if slot.several else (x,)


class _Held:
    """A value that torch does not look into when a state is loaded."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _hold(optimizer: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
    held = {
        k: {key: _Held(x) for key, x in entry.items()} if isinstance(entry, dict) else entry
        for k, entry in state_dict["state"].items()
    }
    return state_dict | {"state": held}


def _share_memory(parts: "list[_Part]") -> bool:
    """Whether what one part writes may be what another reads or writes: plain steps read all before they write any of it."""
    columns = [
        (column, i, written) for i, part in enumerate(parts) for column, written in zip(part.columns, _WRITTEN, strict=False)
    ]
    tensors = [x for column, *_ in columns for x in column]
    if not (set(map(type, tensors)) <= _STORED and set(map(_layout, tensors)) == {torch.strided}):
        columns = [([x for x in column if type(x) in _STORED and x.layout is torch.strided], i, w) for column, i, w in columns]
        tensors = [x for column, *_ in columns for x in column]
    start, stop = extents(tensors)
    order = np.argsort(start)
    if np.all(stop[order[:-1]] <= start[order[1:]]):  # as mostly
        return False
    owners = [(i, written) for column, i, written in columns for _ in column]
    pieces = zip(start.tolist(), stop.tolist(), owners, strict=True)
    return overlapping(Piece(begin, end, *owner) for begin, end, owner in pieces) is not None


_WRITTEN = True, False  # parameters, and gradients
_layout = attrgetter("layout")


def _local(x: Any) -> Any:
    """The numbers that this process has of a distributed tensor; other tensors as they are."""
    if isinstance(x, tuple):
        return tuple(map(_local, x))
    return x.to_local() if _is_distributed(x) else x


def _is_distributed(x: Any) -> bool:
    tensors: Any = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(x, tensors.DTensor)


def _placed_as(p: Any, grad: Any, call: Call, i: int) -> Any:
    """What this process has of a gradient, which is first brought to where the parameter is, if it is elsewhere."""
    if not _is_distributed(p) or not _is_distributed(grad):
        if _is_distributed(p) or _is_distributed(grad):
            types = f"a {type(p).__name__} but its gradient a {type(grad).__name__}"
            msg = f"{call.where('params', i)} is {types}; both must be distributed"
            raise TypeError(msg)
        return grad
    if any(placement.is_partial() for placement in p.placements):
        msg = f"{call.where('params', i)} is a sum that is still to be formed, {p.placements}; redistribute it first"
        raise ValueError(msg)
    if grad.placements != p.placements or grad.device_mesh != p.device_mesh:
        grad = grad.redistribute(p.device_mesh, p.placements)
    return grad.to_local()


_record = torch._C._set_grad_enabled
_is_compiling = torch.compiler.is_compiling
_profiler = torch.autograd.profiler
_ACCELERATED = torch.accelerator.is_available()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _untraced(optimizer: RuleOptimizer, closure: Callable[[], Any] | None) -> Any:
    """A step within a function that torch.compile compiles: a break between two of its graphs, as the step is compiled already."""
    return optimizer.step(closure)


def _blank(rule: Rule[Any, Any]) -> RuleOptimizer:
    """An optimizer whose state is still to be set."""
    made = of(rule)
    return made.__new__(made)


@cache
def _class_of(rule: Rule[Any, Any]) -> type[RuleOptimizer]:
    name = rule.state.__name__.removesuffix("State")
    keywords = [
        p.replace(annotation=p.empty) for p in inspect.signature(rule.coefficients).parameters.values() if p.name in rule.defaults
    ]
    flags = [
        inspect.Parameter(flag, inspect.Parameter.KEYWORD_ONLY, default=value)
        for flag, value in (("maximize", False), ("fused", True))
    ]
    first = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ranges = "\n".join(described(rule, hyper) for hyper in rule.defaults)
    members = {
        "rule": rule,
        "__module__": __name__ if RULES.get(rule.name) is rule else rule.__module__,
        "__doc__": _DOC.format(rule=rule.name, hyper=ranges, doc=rule.doc),
        "__signature__": inspect.Signature([first, *keywords, *flags]),
    }
    torch.serialization.add_safe_globals([rule.state])
    return type(name, (RuleOptimizer,), members)


def of(rule: Any) -> type[RuleOptimizer]:
    """The optimizer class of a rule.

    Parameters
    ----------
    rule
        A rule such as ``xopt.lion``, or one of your own, or its step.

    Returns
    -------
    A subclass of ``torch.optim.Optimizer``, called as the rule's state is, without ``State``. The same one each time.

    Raises
    ------
    TypeError
        For what is no rule.
    """
    return _class_of(rule_given("torch_optim.of", rule))


_DOC = """``{rule}`` as an optimizer of ``torch.optim``.

Parameters
----------
params
    Tensors, pairs of names and tensors, or dicts with ``params`` and hyperparameters of their own. Real floating-point numbers.
maximize
    Whether to step along the gradient, not against it.
fused
    Whether to take steps in one pass over memory, as ``xopt.backends.fuse`` does, where that can be.
others
    The hyperparameters, each a number or a 0-d tensor. ``betas`` stands for beta1, beta2 and beta3, ``momentum`` for beta, in a
    rule that has them.
{hyper}

Raises
------
TypeError
    For an unknown hyperparameter, or one that is no number; for complex, integer or uninitialized parameters.
ValueError
    For a hyperparameter that is NaN or out of its range; for parameters that are given twice.

The rule
--------
{doc}
"""

torch.serialization.add_safe_globals([rule.state for rule in RULES.values()])  # so that torch.load makes plain states of them

_NAMED = {rule.state.__name__.removesuffix("State"): rule for rule in RULES.values()}


def __getattr__(name: str) -> type[RuleOptimizer]:
    if name in _NAMED:
        return of(_NAMED[name])
    msg = f"module {__name__!r} has no attribute {name!r}; the optimizers are {', '.join(_NAMED)}, and of(rule)"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return [*__all__, *_NAMED]
