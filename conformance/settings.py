"""Rules as a command line names them, with hyperparameters: the one place that reads such words.

``lion``, ``lion:beta2=0.999,weight_decay=0.1``, ``aggmo:betas=0/0.9/0.99``, ``package.module:name`` or
``package.module:name:beta=0.5`` for a rule of one's own, which is imported from the current folder too.
"""

import importlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from xopt.backends.names import unknown
from xopt.bound import Bound
from xopt.conformance.results import brief
from xopt.rule import Rule, rule_given
from xopt.rules import RULES

HOW = "lion, lion:beta2=0.999,weight_decay=0.1, aggmo:betas=0/0.9/0.99, or package.module:name for a rule of your own"


class Setting(NamedTuple):
    """A rule, and those of its hyperparameters that are set."""

    rule: Rule[Any, Any]
    hyper: dict[str, Any]


def setting_of(text: str) -> Setting:
    """What a word names. Raises ValueError or TypeError, with a way out."""
    words = text.split(":")
    first = next((i for i, word in enumerate(words) if "=" in word), len(words))
    names, pairs = words[:first], [pair for word in words[first:] for pair in word.split(",")]
    if names[:1] and names[0] in RULES:  # a further word is no module's, but a setting without its number
        found, pairs = Setting(RULES[names[0]], {}), [*names[1:], *pairs]
    else:
        found = _imported(":".join(names))
    return found._replace(hyper=found.hyper | hyper_of(found.rule, pairs))


def words_of(given: Sequence[str]) -> list[str]:
    """The words in an option that is repeated or has commas, which stand between the settings of one rule too."""
    words: list[str] = []
    for part in (part.strip() for text in given for part in text.split(",")):
        if words and "=" in part and ":" not in part:
            words[-1] += f",{part}"
        else:
            words.append(part)
    return words


def hyper_of(rule: Rule[Any, Any], pairs: Iterable[str]) -> dict[str, Any]:
    """Of texts such as ``lr=0.1``, ``betas=0/0.9`` or ``beta3_warmup=none``. Raises ValueError for what is none, or stands twice.

    Whether the rule has such a hyperparameter, and whether it may have that value, is for whoever uses them to say.
    """
    hyper: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = (part.strip() for part in pair.partition("="))
        if name in hyper:
            msg = f"{name} is given twice"
            raise ValueError(msg)
        try:
            numbers = [float(one) for one in value.replace(",", "/").split("/")] if value.lower() != "none" else None
        except ValueError:
            msg = f"settings are name=number with commas between, a sequence has slashes (betas=0/0.9/0.99); got {pair!r}"
            raise ValueError(msg) from None
        sequence = name in rule.ranges and rule.ranges[name].sequence
        hyper[name] = None if numbers is None else tuple(numbers) if sequence or len(numbers) > 1 else numbers[0]
    return hyper


def _imported(name: str) -> Setting:
    """A rule of a module that is found from the current folder too, and what it is bound to."""
    module, colon, variable = name.partition(":") if ":" in name else name.rpartition(".")
    if not colon:
        msg = f"{unknown('rule', name, RULES)}; a rule of your own is package.module:name"
        raise ValueError(msg)
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), variable)
    except Exception as error:  # noqa: BLE001 - whatever a module of the user's raises
        msg = f"{brief(error)}; a rule of your own is package.module:name, as Python imports it here"
        raise ValueError(msg) from None
    finally:
        sys.path.remove(here)
    return Setting(rule_given(name, found), dict(found.hyper) if isinstance(found, Bound) else {})
