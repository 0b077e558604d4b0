"""A rule as a program in another language: the source of one function, written from the rule's own text.

    print(xopt.export.source(xopt.adamw, "c"))
    print(xopt.export.source("lion", "javascript", "float32", weight_decay=0.1))

The loop over the numbers is the program that a rule records, and what comes before it, bias corrections and warm-ups among it, is
the Python of its ``coefficients`` and of `xopt.scalars`, translated: nothing of a rule is written a second time. What a language
needs beside is in a file of its own, ``c.py`` and ``javascript.py``.
"""

from collections.abc import Mapping
from typing import Any

from xopt.export.c import C
from xopt.export.javascript import JavaScript
from xopt.export.language import DTYPES, Language
from xopt.export.step import ExportError, Step
from xopt.rule import Rule, rule_given
from xopt.rules import RULES

__all__ = ["DTYPES", "LANGUAGES", "ExportError", "source"]

LANGUAGES: Mapping[str, type[Language]] = {"c": C, "javascript": JavaScript}
"""By the name that `source` takes."""


def source(rule: Any, language: str, dtype: str = "float64", **hyper: Any) -> str:
    """The source of ``<rule>_step`` in another language, which needs nothing of xopt and computes the same bits.

    Parameters
    ----------
    rule
        A rule, its step, or the name of one of xopt's.
    language
        ``"c"`` (C99) or ``"javascript"`` (a module).
    dtype
        Of the arrays and of the arithmetic: ``"float64"`` or ``"float32"``. Coefficients are computed in double precision, as xopt
        does, and rounded once. Half-precision parameters are stepped by the function for float32, and rounded when they are stored.
    **hyper
        Other defaults than the rule's. They decide the form of the state, as those of ``init`` do: a decay of 0 keeps no slot.

    Raises
    ------
    ExportError
        For a rule whose ``coefficients`` do what has no counterpart, with the line and the way out; for an unknown language, dtype
        or rule.
    TypeError, ValueError
        For hyperparameters, as a step of the rule raises them.
    """
    if language not in LANGUAGES:
        msg = f"export: language must be one of {', '.join(LANGUAGES)}, got {language!r}"
        raise ExportError(msg)
    if dtype not in DTYPES:
        msg = f"export: dtype must be one of {', '.join(DTYPES)}, in which rules compute, got {dtype!r}"
        raise ExportError(msg)
    if isinstance(rule, str):
        if rule not in RULES:
            msg = f"export: rule must be a rule or one of {', '.join(RULES)}, got {rule!r}"
            raise ExportError(msg)
        rule = RULES[rule]
    found: Rule[Any, Any] = rule_given("export", rule)
    return LANGUAGES[language](Step(found, dtype, hyper)).source()
