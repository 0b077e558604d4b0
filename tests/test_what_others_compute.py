"""What the pages say of other libraries, run against those that are installed.

A row names a convention, whose edit of the golden says what it computes, or none where a page says that the library does as xopt
does; and makes the library's optimizer from the rule's hyperparameters. Both run on the same gradients.
"""

import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from xopt.backends import get
from xopt.conformance.arithmetic.numbers import FLOAT
from xopt.conformance.conventions import CONVENTIONS
from xopt.conformance.faults.fault import fault_of
from xopt.conformance.faults.planting import plant
from xopt.conformance.golden import GOLDENS, lift, start

PAGES = Path(__file__).parents[1] / "docs" / "rules"
BY_NAME = {row.name: row for row in CONVENTIONS}
PARAMS = [1.0, -2.0, 0.5, 3.0]
GRADS = np.random.default_rng(7).standard_normal((12, 4)) * [1.0, 1e-2, 30.0, 1.0]
USUAL = {"lr": 0.05, "weight_decay": 0.125, "beta": 0.75, "beta1": 0.75, "beta2": 0.9, "eps": 2.0**-6, "beta3": 0.95, "alpha": 2.0}
USUAL |= {"nu": 0.6, "nu1": 0.6, "nu2": 0.8, "psi": 0.5, "betas": (0.0, 0.5, 0.9)}


SPOKEN_OF = {"torch": "2.13", "optax": "0.2.8", "pytorch_optimizer": "4.1"}
"""The versions of the pages."""


class Row(NamedTuple):
    rule: str
    convention: str  # "axis: choice"; empty where the library does as the rule does
    library: str
    make: Callable[[Any, Mapping[str, Any]], Any]  # its optimizer, from its module and the rule's hyperparameters
    hyper: Mapping[str, Any] = {}  # where not as usual
    near: float = 1e-12  # at most so far from what is said, as a share of the distance moved
    double: bool = True  # float64, which JAX does not have unless it is switched on


def _torch(name: str, **more: Callable[[Mapping[str, Any]], Any]) -> Callable[[Any, Mapping[str, Any]], Any]:
    """One of torch's form, with lr and what else it is given."""

    def make(lib: Any, h: Mapping[str, Any]) -> Any:
        of = getattr(lib, "optim", lib)
        return lambda params: getattr(of, name)(params, lr=h["lr"], **{key: value(h) for key, value in more.items()})

    return make


def _decay(h: Mapping[str, Any]) -> Any:
    return h["weight_decay"]


def _betas(h: Mapping[str, Any]) -> Any:
    return h["beta1"], h["beta2"]


def _three(h: Mapping[str, Any]) -> Any:
    return h["beta1"], h["beta2"], h["beta3"]


def _eps(h: Mapping[str, Any]) -> Any:
    return h["eps"]


def _beta(h: Mapping[str, Any]) -> Any:
    return h["beta"]


def _yes(h: Mapping[str, Any]) -> bool:
    return True


_MOMENTS = {"betas": _betas, "eps": _eps}
_NADAM = _MOMENTS | {"momentum_decay": lambda h: h["psi"]}
_SLOW = {"betas": _three, "eps": _eps, "alpha": lambda h: h["alpha"]}
_NO_DECAY = {"weight_decay": 0.0}


def _optax(name: str, inside: bool = False, **more: Any) -> Callable[[Any, Mapping[str, Any]], Any]:
    """One of optax's adaptive ones, with eps outside the square root or inside."""

    def make(lib: Any, h: Mapping[str, Any]) -> Any:
        of = lib.contrib if name == "ademamix" else lib
        eps = {"eps": 0.0, "eps_root": h["eps"]} if inside else {"eps": h["eps"]}
        return getattr(of, name)(h["lr"], b1=h["beta1"], b2=h["beta2"], **eps, **{key: value(h) for key, value in more.items()})

    return make


def _lion(mode: str) -> Callable[[Any, Mapping[str, Any]], Any]:
    """optax's Lion in one of its modes."""
    return lambda lib, h: lib.chain(lib.scale_by_lion(h["beta1"], h["beta2"], mode=mode), lib.scale(-h["lr"]))


_SLOW_OPTAX = {"b3": lambda h: h["beta3"], "alpha": lambda h: h["alpha"], "weight_decay": _decay}
_FLOAT32 = {"beta1": 0.9, "beta2": 0.9999, "eps": 1e-8}
"""At these the powers of beta in float32 are off by more than the rest of a step in float32."""

ROWS = [
    Row("sgd", "", "torch", _torch("SGD", weight_decay=_decay)),
    Row("momentum", "", "torch", _torch("SGD", momentum=_beta), _NO_DECAY),
    Row("momentum", "weight decay: L2", "torch", _torch("SGD", momentum=_beta, weight_decay=_decay)),
    Row("momentum", "dampening: beta, after the first step", "torch", _torch("SGD", momentum=_beta, dampening=_beta), _NO_DECAY),
    Row("nesterov", "", "torch", _torch("SGD", momentum=_beta, nesterov=_yes), _NO_DECAY),
    Row("nesterov", "weight decay: L2", "torch", _torch("SGD", momentum=_beta, nesterov=_yes, weight_decay=_decay)),
    Row("adam", "", "torch", _torch("Adam", **_MOMENTS)),
    Row("adam", "AMSGrad: of the raw average", "torch", _torch("Adam", **_MOMENTS, amsgrad=_yes)),
    Row("adamw", "", "torch", _torch("AdamW", **_MOMENTS, weight_decay=_decay)),
    Row("adamw", "weight decay: before the step", "torch", _torch("AdamW", **_MOMENTS, weight_decay=_decay)),
    Row("adamw", "weight decay: L2", "torch", _torch("Adam", **_MOMENTS, weight_decay=_decay)),
    Row("adamw", "AMSGrad: of the raw average", "torch", _torch("AdamW", **_MOMENTS, weight_decay=_decay, amsgrad=_yes)),
    Row("nadam", "", "torch", _torch("NAdam", **_NADAM, weight_decay=_decay, decoupled_weight_decay=_yes), near=1e-6),
    Row("nadam", "weight decay: L2", "torch", _torch("NAdam", **_NADAM, weight_decay=_decay), near=1e-6),
    Row("momentum", "", "optax", lambda lib, h: lib.sgd(h["lr"], momentum=h["beta"]), _NO_DECAY),
    Row("nesterov", "", "optax", lambda lib, h: lib.sgd(h["lr"], momentum=h["beta"], nesterov=True), _NO_DECAY),
    Row("adam", "", "optax", _optax("adam")),
    Row("adam", "epsilon: inside the square root", "optax", _optax("adam", inside=True)),
    Row("adam", "AMSGrad: of the corrected average", "optax", _optax("amsgrad")),
    Row("adam", "powers: in float32", "optax", _optax("adam"), _FLOAT32, near=5e-6, double=False),
    Row("adamw", "", "optax", _optax("adamw", weight_decay=_decay)),
    Row("adamw", "epsilon: inside the square root", "optax", _optax("adamw", inside=True, weight_decay=_decay)),
    Row("adamw", "powers: in float32", "optax", _optax("adamw", weight_decay=_decay), _FLOAT32, near=5e-6, double=False),
    Row("nadam", "momentum: constant", "optax", _optax("nadam"), _NO_DECAY),
    Row("lion", "", "optax", lambda lib, h: lib.lion(h["lr"], h["beta1"], h["beta2"], weight_decay=h["weight_decay"])),
    Row("lion", "sign: a tanh", "optax", _lion("smooth"), _NO_DECAY),
    Row("lion", "sign: linear up to 1", "optax", _lion("refined"), _NO_DECAY),
    Row("ademamix", "", "optax", _optax("ademamix", **_SLOW_OPTAX)),
    Row("ademamix", "epsilon: inside the square root", "optax", _optax("ademamix", inside=True, **_SLOW_OPTAX)),
    Row("ademamix", "powers: in float32", "optax", _optax("ademamix", **_SLOW_OPTAX), _FLOAT32, near=5e-6, double=False),
    Row(
        "qhm",
        "",
        "pytorch_optimizer",
        _torch("QHM", momentum=_beta, nu=lambda h: h["nu"], weight_decay=_decay, weight_decouple=_yes),
    ),
    Row("aggmo", "", "pytorch_optimizer", _torch("AggMo", betas=lambda h: h["betas"]), _NO_DECAY),
    Row(
        "qhadam",
        "",
        "pytorch_optimizer",
        _torch("QHAdam", **_MOMENTS, nus=lambda h: (h["nu1"], h["nu2"])),
        _NO_DECAY,
        near=1e-6,
    ),
    Row("lion", "weight decay: before the step", "pytorch_optimizer", _torch("Lion", betas=_betas, weight_decay=_decay)),
    Row("ademamix", "", "pytorch_optimizer", _torch("AdEMAMix", **_SLOW, weight_decay=_decay, weight_decouple=_yes)),
    Row("ademamix", "weight decay: L2", "pytorch_optimizer", _torch("AdEMAMix", **_SLOW, weight_decay=_decay)),
    Row(
        "ademamix",
        "warm-ups: one length for both",
        "pytorch_optimizer",
        _torch("AdEMAMix", **_SLOW, t_alpha_beta3=lambda h: h["alpha_warmup"]),
        {"alpha_warmup": 5, "beta3_warmup": 9, "weight_decay": 0.0},
    ),
    Row(
        "adamw",
        "weight decay: without lr",
        "pytorch_optimizer",
        _torch("AdEMAMix", **(_SLOW | {"alpha": lambda h: 0.0}), weight_decay=_decay, weight_decouple=_yes, fixed_decay=_yes),
    ),
]


def moved(row: Row, golden: Any) -> np.ndarray:
    """The parameters that a golden has after each step."""
    hyper = hyper_of(row)
    columns = []
    for x, grads in zip(PARAMS, GRADS.T, strict=True):
        state = start(golden, FLOAT, x, lift(FLOAT, hyper))
        column = []
        for t, g in enumerate(grads, 1):
            state = golden.step(FLOAT, *state, float(g), t, **lift(FLOAT, hyper))
            column.append(state[0])
        columns.append(column)
    return np.asarray(columns).T


def hyper_of(row: Row) -> dict[str, Any]:
    golden = GOLDENS[row.rule]
    return golden.defaults | {name: x for name, x in (USUAL | dict(row.hyper)).items() if name in golden.defaults}


def library(name: str) -> Any:
    """A library, in the version that the pages speak of or a later one."""
    try:
        installed = version(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    if [int(part) for part in re.findall(r"\d+", installed)[:3]] < [int(part) for part in SPOKEN_OF[name].split(".")]:
        pytest.skip(f"the pages speak of {name} {SPOKEN_OF[name]}; {installed} is installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their own
        return import_module(name)


def moved_by(row: Row) -> np.ndarray:
    """The parameters that the library has after each step."""
    made = row.make(library(row.library), USUAL | hyper_of(row))
    return _by_optax(made, row.double) if row.library == "optax" else _by_torch(made)


def _by_torch(made: Any) -> np.ndarray:
    import torch

    params = torch.tensor(PARAMS, dtype=torch.float64, requires_grad=True)
    optimizer, found = made([params]), []
    for grad in GRADS:
        params.grad = torch.tensor(grad)
        optimizer.step()
        found.append(params.detach().numpy().copy())
    return np.asarray(found)


def _by_optax(made: Any, double: bool) -> np.ndarray:
    import jax
    import optax

    with get("jax").session() if double else jax.enable_x64(False):
        dtype = np.float64 if double else np.float32
        params = jax.numpy.asarray(PARAMS, dtype)
        state, found = made.init(params), []
        for grad in GRADS:
            updates, state = made.update(jax.numpy.asarray(grad, dtype), state, params)
            params = optax.apply_updates(params, updates)
            found.append(np.asarray(params, np.float64))
        assert params.dtype == dtype
    return np.asarray(found)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest, as a share of the largest move."""
    return float(np.max(np.abs(one - other)) / np.max(np.abs(np.asarray(PARAMS) - other)))


IDS = [f"{row.library}, {row.rule}{', ' if row.convention else ''}{row.convention}" for row in ROWS]


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_library_computes_what_is_said_of_it(row):
    right = GOLDENS[row.rule]
    convention = BY_NAME[f"{row.rule}, {row.convention}"] if row.convention else None
    said = plant(fault_of(convention, "golden")).goldens[row.rule] if convention else right
    found = moved_by(row)
    assert distance(found, moved(row, said)) <= row.near
    if convention and not convention.same:
        assert distance(found, moved(row, right)) > 4 * row.near, "what is said is no other formula on these numbers"


NOT_RUN = {
    "adam, epsilon: eps_root ignored": "torch has none, so that there is nothing to set",
    "sgd, lr: default 0.001": "a default, of which a test below asks",
    "qhm, nu: default 1": "a default",
    "aggmo, lr: default 0.001": "a default",
    "adamw, weight decay: default 1e-4": "a default",
    "lion, weight decay: default 0.001": "a default",
    "nadam, powers: in float32": "optax's NAdam has another momentum as well: the rows of Adam have its powers",
    "ademamix, alpha: default 5": "of a file that is not installed; the same in optax, of which a test below asks",
    "ademamix, warm-up of alpha: from t - 1": "of a file that is not installed",
    "ademamix, warm-up of beta3: from t - 1": "of a file that is not installed",
} | {
    f"{rule}, weight decay: before the step": "the same but for rounding, which xopt check tells, and these rows do not"
    for rule in ("momentum", "nesterov", "qhm", "aggmo", "nadam", "qhadam", "ademamix")
}
"""Conventions that name one of these libraries, and why no row runs them."""


def test_every_convention_of_these_libraries_is_run_or_says_why_not():
    named = {row.name for row in CONVENTIONS if any(lib in row.documented for lib in ("torch.optim", "optax", "pytorch_optimizer"))}
    run = {f"{row.rule}, {row.convention}" for row in ROWS if row.convention}
    assert named <= run | set(NOT_RUN)
    assert not run & set(NOT_RUN)
    assert set(NOT_RUN) <= named


class Default(NamedTuple):
    page: str
    library: str
    name: str
    parameter: str
    value: Any
    said: str  # on the page, by hand; empty where the survey or a row of the conventions says it


DEFAULTS = [
    Default("adam", "torch", "optim.Adam", "eps", 1e-8, ""),
    Default("adam", "optax", "adam", "eps", 1e-8, ""),
    Default("adamw", "torch", "optim.AdamW", "weight_decay", 0.01, ""),
    Default("adamw", "optax", "adamw", "weight_decay", 1e-4, ""),
    Default("nadam", "torch", "optim.NAdam", "momentum_decay", 0.004, ""),
    Default("nadam", "torch", "optim.NAdam", "lr", 0.002, "torch's default lr is 0.002"),
    Default("nadam", "torch", "optim.NAdam", "decoupled_weight_decay", False, "coupled by default and decoupled by a flag"),
    Default("lion", "optax", "lion", "weight_decay", 1e-3, ""),
    Default("lion", "optax", "lion", "learning_rate", inspect.Parameter.empty, ""),
    Default("lion", "pytorch_optimizer", "Lion", "weight_decay", 0.0, ""),
    Default("lion", "pytorch_optimizer", "Lion", "lr", 1e-4, ""),
    Default("ademamix", "optax", "contrib.ademamix", "alpha", 5.0, ""),
    Default("ademamix", "optax", "contrib.scale_by_ademamix", "alpha", 6.0, ""),
    Default("ademamix", "optax", "contrib.ademamix", "weight_decay", 0.0, ""),
    Default("ademamix", "pytorch_optimizer", "AdEMAMix", "alpha", 5.0, ""),
    Default("ademamix", "pytorch_optimizer", "AdEMAMix", "weight_decay", 0.0, ""),
    Default("aggmo", "pytorch_optimizer", "AggMo", "betas", (0.0, 0.9, 0.99), ""),
    Default("aggmo", "pytorch_optimizer", "AggMo", "lr", 0.001, ""),
    Default("qhm", "pytorch_optimizer", "QHM", "lr", 0.001, ""),
    Default("qhm", "pytorch_optimizer", "QHM", "momentum", 0.0, ""),
    Default("qhm", "pytorch_optimizer", "QHM", "nu", 1.0, ""),
    Default("sgd", "torch", "optim.SGD", "lr", 0.001, ""),
]


@pytest.mark.parametrize("one", DEFAULTS, ids=lambda one: f"{one.name}, {one.parameter}")
def test_a_default_is_what_is_said(one):
    assert one.said in " ".join((PAGES / f"{one.page}.md").read_text().split())
    of = library(one.library)
    for part in one.name.split("."):
        of = getattr(of, part)
    assert inspect.signature(of).parameters[one.parameter].default == one.value


# --- what is no formula ----------------------------------------------------------------------------------------------------------


def said_on(page, sentence):
    assert sentence in " ".join((PAGES / f"{page}.md").read_text().split())


def test_optax_gives_a_warm_up_the_count_from_0():
    optax, seen = library("optax"), []
    import jax.numpy as jnp

    made = optax.contrib.ademamix(0.1, alpha=lambda t: seen.append(int(t)) or 2.0)
    state = made.init(jnp.zeros(1))
    made.update(jnp.ones(1), state, jnp.zeros(1))
    assert seen[0] == 0


def test_sign_of_nan():
    torch = library("torch")
    said_on("lion", "`sign(NaN)` is 0 in torch, CuPy and MLX, and NaN in NumPy and JAX.")
    import jax.numpy as jnp

    assert float(torch.sign(torch.tensor(float("nan")))) == 0
    assert np.isnan(np.sign(np.nan))
    assert bool(jnp.isnan(jnp.sign(jnp.nan)))


def test_torch_keeps_nadams_product_in_float32():
    torch = library("torch")
    said_on("nadam", "**The product of the mu** is in float32 in torch, for float64 parameters too.")
    params = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.NAdam([params])
    params.grad = torch.ones(1, dtype=torch.float64)
    optimizer.step()
    assert optimizer.state[params]["mu_product"].dtype == torch.float32


def test_equal_betas_share_a_buffer_in_pytorch_optimizer():
    said_on("aggmo", "pytorch_optimizer 4.1 and the authors' PyTorch file (2018) they share one")
    equal = {"betas": (0.5, 0.5, 0.9), "weight_decay": 0.0}
    row = Row("aggmo", "", "pytorch_optimizer", _torch("AggMo", betas=lambda h: h["betas"]), equal)
    assert distance(moved_by(row), moved(row, GOLDENS["aggmo"])) > 0.01


def test_aggmo_of_one_beta_is_refused_by_pytorch_optimizer():
    said_on("aggmo", "**A single beta** is not accepted by pytorch_optimizer 4.1.")
    with pytest.raises(IndexError):
        moved_by(Row("aggmo", "", "pytorch_optimizer", _torch("AggMo", betas=lambda h: (0.9,)), _NO_DECAY))


def test_a_row_can_fail():
    """What another rule computes is not near."""
    row = Row("adamw", "", "torch", _torch("Adam", **_MOMENTS, weight_decay=_decay))
    assert distance(moved_by(row), moved(row, GOLDENS["adamw"])) > 0.01
