"""The rules, one file each, and RULES: the one table that tests, documentation and the command line are driven by."""

from typing import Any

from xopt.rule import Rule
from xopt.rules import adam, adamw, ademamix, aggmo, lion, momentum, nadam, nesterov, qhadam, qhm, sgd

RULES: dict[str, Rule[Any, Any]] = {
    "sgd": sgd.sgd,
    "momentum": momentum.momentum,
    "nesterov": nesterov.nesterov,
    "qhm": qhm.qhm,
    "aggmo": aggmo.aggmo,
    "adam": adam.adam,
    "adamw": adamw.adamw,
    "nadam": nadam.nadam,
    "qhadam": qhadam.qhadam,
    "lion": lion.lion,
    "ademamix": ademamix.ademamix,
}
