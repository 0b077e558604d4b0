"""``xopt export``."""

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from xopt.backends.names import unknown
from xopt.conformance.cli.options import STANDARD_OUTPUT, Outputs
from xopt.conformance.results import brief
from xopt.export import DTYPES, LANGUAGES, source
from xopt.rule import Rule
from xopt.rules import RULES


def export(
    rule: Annotated[str, typer.Argument(help="Such as lion, or package.module:name for a rule of your own.")],
    language: Annotated[str, typer.Option(help=f"{' or '.join(LANGUAGES)}.")],
    dtype: Annotated[str, typer.Option(help=f"Of the arithmetic: {' or '.join(DTYPES)}.")] = "float64",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another default of a hyperparameter; several numbers with commas, none is None. A decay of 0 keeps no slot.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="The file to write. - is standard output.")] = STANDARD_OUTPUT,
) -> None:
    """Write a rule as the source of one function in another language, with the same bits.

    Exit status: 0 done, 2 bad usage.
    """
    for what, name, known in (("language", language, LANGUAGES), ("dtype", dtype, DTYPES)):
        if name not in known:
            raise typer.BadParameter(unknown(what, name, known), param_hint=f"--{what}")
    found = _rule(rule)
    with Outputs({"--output": output}) as files:
        try:
            text = source(found, language, dtype, **_settings(settings or []))
        except (TypeError, ValueError) as error:
            raise typer.BadParameter(str(error)) from None
        files.fill("--output", lambda: text)
    if files.failed:
        raise typer.Exit(2)


def _rule(name: str) -> Rule[Any, Any]:
    """A rule of xopt's by its name, or one of a module that is found from here."""
    if ":" not in name:
        if name not in RULES:
            msg = f"{unknown('rule', name, RULES)}; of a rule of your own say package.module:name"
            raise typer.BadParameter(msg, param_hint="RULE")
        return RULES[name]
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # noqa: BLE001 - whatever a module of the user's raises
        msg = f"{name}: {brief(error)}"
        raise typer.BadParameter(msg, param_hint="RULE") from None
    found = getattr(found, "rule", found)
    if not isinstance(found, Rule):
        msg = f"{name} is no rule, but a {type(found).__name__}; name what Rule(...) made"
        raise typer.BadParameter(msg, param_hint="RULE")
    return found


def _settings(given: list[str]) -> dict[str, Any]:
    """Hyperparameters as they stand on a command line."""

    def value(name: str, text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            if text.lower() == "none":
                return None
            if "," in text:
                return tuple(value(name, x) for x in text.split(",") if x.strip())
        msg = f"{name} must be a number, several with commas, or none; got {text!r}"
        raise typer.BadParameter(msg, param_hint="--set")

    pairs: dict[str, Any] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            msg = f"{one!r} must be NAME=VALUE, such as beta1=0"
            raise typer.BadParameter(msg, param_hint="--set")
        pairs[name.strip()] = value(name.strip(), text.strip())
    return pairs
