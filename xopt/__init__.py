"""xopt: first-order update rules, each written once in the Python array API and proved on every backend.

state = xopt.ademamix_init(params)
state = xopt.ademamix_step(state, grad, lr=1e-3)
"""

from typing import TYPE_CHECKING

from xopt import schedules, tree
from xopt.conversions import (
    aggmo_betas,
    qhadam_from_nadam,
    qhm_from_accsgd,
    qhm_from_heavy_ball,
    qhm_from_nesterov,
    qhm_from_pid,
    qhm_from_robust_momentum,
    qhm_from_synthesized_nesterov,
    qhm_from_triple_momentum,
    qhm_from_two_state,
    qhm_to_accsgd,
    qhm_to_heavy_ball,
    qhm_to_nesterov,
    qhm_to_pid,
    qhm_to_robust_momentum,
    qhm_to_synthesized_nesterov,
    qhm_to_triple_momentum,
    qhm_to_two_state,
)
from xopt.nonfinite import skip_nonfinite
from xopt.operations import register_namespace
from xopt.rule import Rule
from xopt.rules import RULES
from xopt.rules.adam import adam, adam_init, adam_step
from xopt.rules.adamw import adamw, adamw_init, adamw_step
from xopt.rules.ademamix import ademamix, ademamix_init, ademamix_step
from xopt.rules.aggmo import aggmo, aggmo_init, aggmo_step
from xopt.rules.lion import lion, lion_init, lion_step
from xopt.rules.momentum import momentum, momentum_init, momentum_step
from xopt.rules.nadam import nadam, nadam_init, nadam_step
from xopt.rules.nesterov import nesterov, nesterov_init, nesterov_step
from xopt.rules.qhadam import qhadam, qhadam_init, qhadam_step
from xopt.rules.qhm import qhm, qhm_init, qhm_step
from xopt.rules.sgd import sgd, sgd_init, sgd_step

__version__: str

if not TYPE_CHECKING:  # for type checkers it would be any attribute

    def __getattr__(name):
        """``__version__``, from the metadata of the installed distribution, which takes too long to read at each import."""
        if name != "__version__":
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("array-xopt")
        except PackageNotFoundError:
            msg = "xopt.__version__ is that of the installed distribution array-xopt, which is not installed; pip install -e ."
            raise AttributeError(msg) from None


del TYPE_CHECKING

__all__ = [
    "RULES",
    "Rule",
    "adam",
    "adam_init",
    "adam_step",
    "adamw",
    "adamw_init",
    "adamw_step",
    "ademamix",
    "ademamix_init",
    "ademamix_step",
    "aggmo",
    "aggmo_betas",
    "aggmo_init",
    "aggmo_step",
    "lion",
    "lion_init",
    "lion_step",
    "momentum",
    "momentum_init",
    "momentum_step",
    "nadam",
    "nadam_init",
    "nadam_step",
    "nesterov",
    "nesterov_init",
    "nesterov_step",
    "qhadam",
    "qhadam_from_nadam",
    "qhadam_init",
    "qhadam_step",
    "qhm",
    "qhm_from_accsgd",
    "qhm_from_heavy_ball",
    "qhm_from_nesterov",
    "qhm_from_pid",
    "qhm_from_robust_momentum",
    "qhm_from_synthesized_nesterov",
    "qhm_from_triple_momentum",
    "qhm_from_two_state",
    "qhm_init",
    "qhm_step",
    "qhm_to_accsgd",
    "qhm_to_heavy_ball",
    "qhm_to_nesterov",
    "qhm_to_pid",
    "qhm_to_robust_momentum",
    "qhm_to_synthesized_nesterov",
    "qhm_to_triple_momentum",
    "qhm_to_two_state",
    "register_namespace",
    "schedules",
    "sgd",
    "sgd_init",
    "sgd_step",
    "skip_nonfinite",
    "tree",
]
