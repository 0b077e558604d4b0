"""Other people's optimizers, with the hyperparameters of the rule that they share."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

from xopt import backends
from xopt.conformance.bench.contender import (
    FUSED,
    PEER,
    Contender,
    Running,
    leaves,
    loop_of,
    missing,
    no_device,
    numbers,
    program_of,
    tree,
)
from xopt.conformance.bench.shapes import Shape
from xopt.rules import RULES

Hyper = dict[str, Any]

OPTAX: dict[str, Callable[[Any, Hyper], Any]] = {
    "sgd": lambda optax, h: optax.sgd(h["lr"]),
    "momentum": lambda optax, h: optax.sgd(h["lr"], h["beta"]),
    "nesterov": lambda optax, h: optax.sgd(h["lr"], h["beta"], nesterov=True),
    "adam": lambda optax, h: optax.adam(h["lr"], h["beta1"], h["beta2"], h["eps"]),
    "adamw": lambda optax, h: optax.adamw(h["lr"], h["beta1"], h["beta2"], h["eps"], weight_decay=h["weight_decay"]),
    "lion": lambda optax, h: optax.lion(h["lr"], h["beta1"], h["beta2"], weight_decay=h["weight_decay"]),
    "ademamix": lambda optax, h: optax.contrib.ademamix(
        h["lr"], h["beta1"], h["beta2"], h["beta3"], h["alpha"], h["eps"], weight_decay=h["weight_decay"]
    ),
}

PYTORCH_OPTIMIZER: dict[str, Callable[[Any, Any, Hyper], Any]] = {
    "lion": lambda library, params, h: library.Lion(params, h["lr"], (h["beta1"], h["beta2"]), h["weight_decay"]),
    "ademamix": lambda library, params, h: library.AdEMAMix(
        params, h["lr"], (h["beta1"], h["beta2"], h["beta3"]), h["weight_decay"], alpha=h["alpha"], eps=h["eps"]
    ),
}

ADAMW = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
"""The ways in which ``torch.optim.AdamW`` can step."""


def peers(rule: str) -> list[Contender]:
    """Those that have the rule, and torch's AdamW beside any."""
    found = []
    if rule in OPTAX:
        found += [_optax(rule, device) for device in ("cpu", "gpu:0")]
    if rule in PYTORCH_OPTIMIZER:
        make = PYTORCH_OPTIMIZER[rule]
        library = "pytorch_optimizer"
        found.append(_torch(library, library, rule, "cpu", lambda params, h: make(importlib.import_module(library), params, h)))
    for device in ("cpu", "cuda:0"):
        where = "torch" if device == "cpu" else f"torch {device}"
        found += [_torch(f"{where} AdamW {way}", "torch", "adamw", device, _adamw(options)) for way, options in ADAMW.items()]
    return found


def _adamw(options: dict[str, bool]) -> Callable[[Any, Hyper], Any]:
    def make(params: Any, h: Hyper) -> Any:
        optim = importlib.import_module("torch").optim
        return optim.AdamW(params, h["lr"], (h["beta1"], h["beta2"]), h["eps"], h["weight_decay"], **options)

    return make


def torch_optim(rule: str) -> Contender:
    """A rule of xopt as an optimizer of torch."""

    def make(params: Any, h: Hyper) -> Any:
        return importlib.import_module("xopt.backends.torch_optim").of(RULES[rule])(params, **h)

    return _torch("torch_optim", "torch", rule, "cpu", make)._replace(kind=FUSED)


def _torch(name: str, module: str, rule: str, device: str, make: Callable[[Any, Hyper], Any]) -> Contender:
    """An optimizer after the manner of ``torch.optim``."""

    def prepare(shapes: Sequence[Shape], seed: int) -> Running:
        backend = backends.get("torch", device)
        params, grads = ([backend.asarray(x, "float32") for x in column] for column in numbers(shapes, seed))
        params = [backend.lib.nn.Parameter(x) for x in params]
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        optimizer = make(params, RULES[rule].defaults)

        def renew(fresh: list[Any]) -> None:
            for param, grad in zip(params, fresh, strict=True):
                param.grad = grad

        return Running(
            optimizer.step,
            lambda: backend.synchronise(params[0]),
            lambda: [backend.to_numpy(param) for param in params],
            loop_of(backend, grads, renew),
        )

    def why_not() -> str | None:
        return missing(module) or no_device("torch", device)

    program = program_of(rule)
    return Contender(name, module, device, PEER, rule, program.bytes_per_number(4, 4), len(program.arrays), why_not, prepare)


def _optax(rule: str, device: str) -> Contender:
    """Jitted, with its parameters and its state donated."""

    def prepare(shapes: Sequence[Shape], seed: int) -> Running:
        backend, optax = backends.get("jax", device), importlib.import_module("optax")
        params, grads = (tree([backend.asarray(x, "float32") for x in column]) for column in numbers(shapes, seed))
        optimizer = OPTAX[rule](optax, RULES[rule].defaults)
        state = optimizer.init(params)

        def update(params: Any, state: Any, grads: Any) -> Any:
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        take = backend.lib.jit(update, donate_argnums=(0, 1))

        def step() -> None:
            nonlocal params, state
            params, state = take(params, state, grads)

        def renew(fresh: list[Any]) -> None:
            nonlocal grads
            grads = tree(fresh)

        return Running(
            step,
            lambda: backend.synchronise(params),
            lambda: [backend.to_numpy(x) for x in leaves(params)],
            loop_of(backend, leaves(grads), renew),
        )

    def why_not() -> str | None:
        return missing("optax") or no_device("jax", device)

    program = program_of(rule)
    name = "optax" if device == "cpu" else f"optax {device}"
    return Contender(name, "optax", device, PEER, rule, program.bytes_per_number(4, 4), len(program.arrays), why_not, prepare)
