"""Optimizers that are neither of torch's form nor of optax's, as objects with ``init`` and ``step`` on NumPy arrays.

The library's own optimizer, with its own memory, is the state. Checks of what a wrapper does and the library does not, such as
whether it can be saved, say nothing about the library: ``packages.toml`` has ``wrapped`` where that is so.
"""

import importlib
import importlib.machinery
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np


class Wrapped:
    """``new`` makes the library's optimizer of some parameters; ``move`` steps it and returns the parameters."""

    def __init__(self, new: Callable[[Any], Any], move: Callable[[Any, Any, Any], Any]) -> None:
        self.new, self.move = new, move

    def init(self, params: Any) -> Any:
        return self.new(params)

    def step(self, params: Any, grad: Any, state: Any) -> tuple[Any, Any]:
        return self.move(state, params, grad), state


# MLX.


def _mlx(name: str, lr: float, **given: Any) -> Wrapped:
    import mlx.core as mx
    import mlx.optimizers

    def new(params: Any) -> Any:
        optimizer = getattr(mlx.optimizers, name)(learning_rate=lr, **given)
        optimizer.init({"p": mx.array(params)})
        return optimizer

    def move(state: Any, params: Any, grad: Any) -> Any:
        state.learning_rate = lr
        return np.array(state.apply_gradients({"p": mx.array(grad)}, {"p": mx.array(params)})["p"])

    return Wrapped(new, move)


def mlx_sgd(lr: float = 0.01, weight_decay: float = 0.0) -> Wrapped:
    return _mlx("SGD", lr, weight_decay=weight_decay)


def mlx_momentum(lr: float = 0.01, momentum: float = 0.0, weight_decay: float = 0.0) -> Wrapped:
    return _mlx("SGD", lr, momentum=momentum, weight_decay=weight_decay)


def mlx_nesterov(lr: float = 0.01, momentum: float = 0.0, weight_decay: float = 0.0) -> Wrapped:
    return _mlx("SGD", lr, momentum=momentum, nesterov=True, weight_decay=weight_decay)


def mlx_adam(lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Wrapped:
    return _mlx("Adam", lr, betas=[beta1, beta2], eps=eps)


def mlx_adam_corrected(lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Wrapped:
    return _mlx("Adam", lr, betas=[beta1, beta2], eps=eps, bias_correction=True)


def mlx_adamw(
    lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01
) -> Wrapped:
    return _mlx("AdamW", lr, betas=[beta1, beta2], eps=eps, weight_decay=weight_decay)


def mlx_adamw_corrected(
    lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01
) -> Wrapped:
    return _mlx("AdamW", lr, betas=[beta1, beta2], eps=eps, weight_decay=weight_decay, bias_correction=True)


def mlx_lion(lr: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, weight_decay: float = 0.0) -> Wrapped:
    return _mlx("Lion", lr, betas=[beta1, beta2], weight_decay=weight_decay)


# thinc, without the clipping and the averages that are on by default.


def _thinc(name: str, lr: float, **given: Any) -> Wrapped:
    import thinc.api

    def new(params: Any) -> Any:
        return getattr(thinc.api, name)(lr, grad_clip=0.0, use_averages=False, **given)

    def move(state: Any, params: Any, grad: Any) -> Any:
        state.learn_rate = thinc.api.constant(lr)
        return np.array(state((0, "p"), params.copy(), grad.copy())[0])

    return Wrapped(new, move)


def thinc_sgd(lr: float, weight_decay: float = 0.0) -> Wrapped:
    return _thinc("SGD", lr, L2=weight_decay)


def thinc_adam(lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> Wrapped:
    return _thinc("Adam", lr, beta1=beta1, beta2=beta2, eps=eps)


def thinc_adamw(
    lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0
) -> Wrapped:
    return _thinc("Adam", lr, beta1=beta1, beta2=beta2, eps=eps, L2=weight_decay)


# TorchOpt's functions.


class TorchOpt:
    """The transformation goes with its state, as it remembers that it has begun. Its rate is a schedule, which may change."""

    def __init__(self, name: str, lr: float, **given: Any) -> None:
        self.name, self.lr, self.given = name, lr, given

    def init(self, params: Any) -> Any:
        import torch
        import torchopt

        now = {"lr": self.lr}
        transformation = getattr(torchopt, self.name)(lr=lambda _: now["lr"], **self.given)
        return transformation, now, transformation.init((torch.tensor(params),))

    def step(self, params: Any, grad: Any, state: Any) -> tuple[Any, Any]:
        import torch

        transformation, now, memory = state
        now["lr"] = self.lr
        where = (torch.tensor(params),)
        updates, memory = transformation.update((torch.tensor(grad),), memory, params=where, inplace=False)
        return (where[0] + updates[0]).detach().numpy(), (transformation, now, memory)


def torchopt_sgd(lr: float, weight_decay: float = 0.0) -> TorchOpt:
    return TorchOpt("sgd", lr, weight_decay=weight_decay)


def torchopt_momentum(lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> TorchOpt:
    return TorchOpt("sgd", lr, momentum=momentum, weight_decay=weight_decay)


def torchopt_nesterov(lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> TorchOpt:
    return TorchOpt("sgd", lr, momentum=momentum, nesterov=True, weight_decay=weight_decay)


def torchopt_adam(lr: float = 0.001, betas: Any = (0.9, 0.999), eps: float = 1e-8, eps_root: float = 0.0) -> TorchOpt:
    return TorchOpt("adam", lr, betas=betas, eps=eps, eps_root=eps_root)


def torchopt_adamw(lr: float = 0.001, betas: Any = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01) -> TorchOpt:
    return TorchOpt("adamw", lr, betas=betas, eps=eps, weight_decay=weight_decay)


# Packages of torch's form that need a hand.


def _timm(module: str) -> Any:
    """A module of ``timm.optim`` alone: the packages above it import torchvision, which no optimizer needs."""
    for name in ("timm", "timm.optim"):
        if name not in sys.modules:
            above = sys.modules.get(name.rpartition(".")[0])
            spec = importlib.machinery.PathFinder.find_spec(name, above.__path__ if above else None)
            assert spec is not None
            package = ModuleType(name)
            package.__path__ = list(spec.submodule_search_locations or ())
            sys.modules[name] = package
    return importlib.import_module(f"timm.optim.{module}")


def timm_lion(params: Any, lr: float = 1e-4, betas: Any = (0.9, 0.99), weight_decay: float = 0.0) -> Any:
    return _timm("lion").Lion(params, lr=lr, betas=betas, weight_decay=weight_decay)


def timm_nadam(
    params: Any, lr: float = 2e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0, psi: float = 4e-3
) -> Any:
    return _timm("nadam").NAdamLegacy(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, schedule_decay=psi)


def timm_nadamw(params: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2) -> Any:
    return _timm("nadamw").NAdamW(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def timm_sgdw(params: Any, lr: float = 1e-3, momentum: float = 0.0, weight_decay: float = 0.0) -> Any:
    return _timm("sgdw").SGDW(params, lr=lr, momentum=momentum, weight_decay=weight_decay)


def timm_adamw(params: Any, lr: float = 1e-3, betas: Any = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2) -> Any:
    return _timm("adamw").AdamWLegacy(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def heavyball_sgd(params: Any, lr: float = 0.0025, beta: float = 0.9, weight_decay: float = 0.0) -> Any:
    return _heavyball("SGD", params, lr=lr, beta=beta, weight_decay=weight_decay)


def heavyball_adamw(params: Any, lr: float = 0.0025, betas: Any = (0.9, 0.99), eps: float = 1e-8, weight_decay: float = 0.0) -> Any:
    return _heavyball("AdamW", params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def heavyball_nadam(
    params: Any, lr: float = 0.002, betas: Any = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0, psi: float = 4e-3
) -> Any:
    return _heavyball("NAdam", params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, momentum_decay=psi)


def heavyball_ademamix(
    params: Any,
    lr: float = 0.001,
    betas: Any = (0.9, 0.999, 0.9999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    alpha: float = 2.0,
    alpha_warmup: int | None = None,
    beta3_warmup: int | None = None,
) -> Any:
    warmups = {"alpha_warmup": alpha_warmup, "beta3_warmup": beta3_warmup}
    return _heavyball("AdEMAMix", params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, alpha=alpha, **warmups)


def _heavyball(name: str, params: Any, **given: Any) -> Any:
    import heavyball

    return getattr(heavyball, name)(params, compile_step=False, **given)


def schedulefree_sgd(params: Any, lr: float = 1.0, momentum: float = 0.9, weight_decay: float = 0.0) -> Any:
    return _training("SGDScheduleFree", params, lr=lr, momentum=momentum, weight_decay=weight_decay)


def schedulefree_adamw(
    params: Any, lr: float = 0.0025, betas: Any = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0
) -> Any:
    return _training("AdamWScheduleFree", params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=False)


def _training(name: str, params: Any, **given: Any) -> Any:
    import schedulefree

    optimizer = getattr(schedulefree, name)(params, **given)
    optimizer.train()
    return optimizer
