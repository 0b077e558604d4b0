"""What libraries call the hyperparameters of a rule, as data."""

from collections.abc import Iterable, Mapping
from typing import Any

NEUTRAL: Mapping[str, Any] = {"weight_decay": 0.0, "eps_root": 0.0, "alpha_warmup": None, "beta3_warmup": None}
"""What stands for a hyperparameter that a target does not have: the value at which it does nothing."""

ARGUMENTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "lr": (("lr",),),
    "learning_rate": (("lr",),),
    "betas": (("betas",), ("beta1", "beta2", "beta3"), ("beta1", "beta2")),
    "beta": (("beta",),),
    "momentum": (("beta",),),
    "beta1": (("beta1",),),
    "beta_1": (("beta1",),),
    "b1": (("beta1",),),
    "beta2": (("beta2",),),
    "beta_2": (("beta2",),),
    "b2": (("beta2",),),
    "beta3": (("beta3",),),
    "beta_3": (("beta3",),),
    "b3": (("beta3",),),
    "nus": (("nu1", "nu2"),),
    "nu": (("nu",),),
    "nu1": (("nu1",),),
    "nu2": (("nu2",),),
    "psi": (("psi",),),
    "momentum_decay": (("psi",),),
    "eps": (("eps",),),
    "epsilon": (("eps",),),
    "eps_root": (("eps_root",),),
    "weight_decay": (("weight_decay",),),
    "alpha": (("alpha",),),
    "alpha_warmup": (("alpha_warmup",),),
    "beta3_warmup": (("beta3_warmup",),),
    "t_alpha": (("alpha_warmup",),),
    "t_beta3": (("beta3_warmup",),),
    "t_alpha_beta3": (("alpha_warmup",),),
}
"""By the name of an argument: the hyperparameters that it holds, of which the first that are all of the rule's are meant."""

SWITCHES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("torch:torch.optim.SGD", "nesterov"): {"nesterov": True},
    ("optax:optax.sgd", "nesterov"): {"nesterov": True},
    ("keras:keras.optimizers.SGD", "nesterov"): {"nesterov": True},
}
"""By target and rule: arguments that make it that rule."""


def holds(argument: str, rule: Iterable[str]) -> tuple[str, ...]:
    """The hyperparameters of a rule that an argument of this name holds; none where the name says nothing."""
    known = set(rule)
    return next((names for names in ARGUMENTS.get(argument, ()) if known.issuperset(names)), ())


def taken(arguments: Iterable[str], rule: Iterable[str]) -> set[str]:
    """The hyperparameters of a rule that a target with these arguments can be given."""
    rule = list(rule)
    return {name for argument in arguments for name in holds(argument, rule)}


def translated(hyper: Mapping[str, Any], arguments: Iterable[str], rule: Iterable[str]) -> dict[str, Any]:
    """Hyperparameters of a rule as a target's arguments. Only arguments of which all parts are given are passed."""
    found: dict[str, Any] = {}
    rule = list(rule)
    for argument in arguments:
        names = holds(argument, rule)
        if names and all(name in hyper for name in names):
            values = tuple(hyper[name] for name in names)
            found[argument] = values if len(names) > 1 else values[0]
    return found


def told(arguments: Mapping[str, Any], rule: Iterable[str]) -> dict[str, Any]:
    """The other way: a target's defaults as hyperparameters of the rule, where they are numbers."""
    found: dict[str, Any] = {}
    rule = list(rule)
    for argument, value in arguments.items():
        names = holds(argument, rule)
        several = isinstance(value, tuple | list)
        if not all(isinstance(x, int | float) for x in (value if several else [value])):
            continue
        if len(names) > 1 and several and len(value) == len(names):
            found |= dict(zip(names, value, strict=True))
        elif len(names) == 1:
            found[names[0]] = tuple(value) if several else value
    return found
