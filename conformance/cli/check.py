"""``xopt check`` and ``xopt agree``."""

import json as json_
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from xopt.conformance.cli.options import Html, Json, Outputs, finite, refuse_unknown, understood
from xopt.conformance.reading import from_json
from xopt.conformance.report.summary import command_line
from xopt.conformance.thirdparty import check as checking
from xopt.conformance.thirdparty.agree import TRAINING
from xopt.conformance.thirdparty.agree import agree as agreement
from xopt.conformance.thirdparty.behaviour import FAILED, NOT_TRIED
from xopt.conformance.thirdparty.report import junit_of, page_of
from xopt.conformance.thirdparty.verdict import MEANINGS, Checked
from xopt.rules import RULES

Target = Annotated[
    str,
    typer.Argument(
        help="torch:torch.optim.AdamW, optax:optax.adamw, keras:keras.optimizers.Lion, py:package.module:factory, cmd:./program."
    ),
]
Rule = Annotated[str | None, typer.Option(help="The rule that it claims to be. Default: whichever fits.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="name=value: a hyperparameter that keeps a value, or another argument of the target. May be repeated."
    ),
]
Limit = Annotated[float, typer.Option(help="Seconds that one answer may take.", min=0.1, callback=finite)]


def check(
    target: Target,
    rule: Rule = None,
    given: Set = None,
    convention: Annotated[
        list[str] | None, typer.Option(help='A convention that is right for it, as "weight decay: L2". May be repeated.')
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option(help="float32 or float64. May be repeated. Default: both.", show_default=False)
    ] = None,
    limit: Limit = 10.0,
    seconds: Annotated[
        float, typer.Option(help="Seconds for the whole; what is not tried by then is listed.", min=1, callback=finite)
    ] = 60.0,
    seed: Annotated[int, typer.Option(help="Of the random trajectories.")] = 0,
    json: Json = None,
    html: Html = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here, for other programs. - is standard output.")] = None,
) -> None:
    """Say what anybody's optimizer computes: a rule, one of its conventions, or something else; and how it behaves.

    Exit status: 0 it agrees, 1 it does not (another convention, another formula, a behaviour that failed, a crash),
    2 bad usage or no such target, 130 interrupted. Without --rule a formula that has a name agrees.
    """
    if rule is not None:
        refuse_unknown("rule", [rule], RULES, "--rule")
    for name in dtype or ():
        refuse_unknown("dtype", [name], checking.FORMULA_DTYPES, "--dtype")
    understood(checking.must_be_known, rule, convention or (), (), option="--convention")
    arguments = settings(given)
    with Outputs({"--json": json, "--html": html, "--junit": junit}) as files:
        console = files.console()
        found = checking.check(
            target,
            rule,
            given=arguments,
            conventions=convention or (),
            dtypes=dtype or checking.FORMULA_DTYPES,
            limit=limit,
            seconds=seconds,
            seed=seed,
            formula=lambda checked: _say(console, f"{checked.verdict}: {checked.words}"),
        )
        show(console, found)
        files.fill("--json", lambda: json_.dumps(found.to_dict(), indent=1) + "\n")
        asked = {"rule": rule, "set": given, "convention": convention, "dtype": dtype}
        shown = asked | {"limit": limit, "seconds": seconds, "seed": seed}
        files.fill("--html", lambda: page_of(found, command_line("check", shown, target)))
        files.fill("--junit", lambda: junit_of(found))
    raise typer.Exit(2 if files.failed else found.status)


def agree(
    one: Target,
    other: Target,
    rule: Rule = None,
    given: Set = None,
    dtype: Annotated[str, typer.Option(help="float32 or float64.")] = "float32",
    gradients: Annotated[
        Path | None, typer.Option(help="A file with gradients of your own: grads, one a step, and perhaps params, of numpy.savez.")
    ] = None,
    training: Annotated[int, typer.Option(help="Steps of a training on digits. 0: none.", min=0)] = TRAINING,
    limit: Limit = 10.0,
    seed: Annotated[int, typer.Option(help="Of the random trajectories.")] = 0,
    json: Json = None,
) -> None:
    """Say where two optimizers part on the same numbers, by how much, and whether rounding explains it.

    Exit status: 0 rounding explains it, 1 it does not, 2 bad usage or no such target, 130 interrupted.
    """
    if rule is not None:
        refuse_unknown("rule", [rule], RULES, "--rule")
    refuse_unknown("dtype", [dtype], checking.FORMULA_DTYPES, "--dtype")
    with Outputs({"--json": json}) as files:
        try:
            found = agreement(
                one, other, rule, given=settings(given), dtype=dtype, gradients=gradients, training=training, limit=limit, seed=seed
            )
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        _say(files.console(), str(found))
        files.fill("--json", lambda: json_.dumps(found.to_dict(), indent=1) + "\n")
    raise typer.Exit(2 if files.failed else found.status)


def settings(given: Sequence[str] | None) -> dict[str, Any]:
    """``name=value`` words: values are JSON where they are that, as 0.1, true and [0.9, 0.99] are, else text."""
    found: dict[str, Any] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            msg = f"{text!r} must be name=value, as lr=0.1"
            raise typer.BadParameter(msg, param_hint="--set")
        try:
            found[name] = from_json(value.lower() if value in ("True", "False") else value)
        except ValueError:
            found[name] = value
    return found


def show(console: Console, found: Checked) -> None:
    """Behind the verdict: each thing that was asked of it, and what was not tried."""
    if not found.formulas:
        _say(console, f"{found.verdict}: {found.words}")
    about = found.about
    if about:
        claimed = ", ".join(word for word in ("leaves", "groups", "changes", "resumes", "state") if about[word])
        whose = about["version"] or about["library"] or "a program"
        _say(console, f"\n{about['name']} of {whose} has {', '.join(about['dtypes'])}; {claimed}.")
    for one in found.findings:
        style = "bold red" if one.outcome == FAILED else "dim" if one.outcome == NOT_TRIED else None
        _say(console, f"  {one.outcome:9}  {one.check}{': ' if one.words else ''}{one.words}", style)
    if found.formulas:
        rounding = "Parameters alone do not show what is kept beside them, nor what comes later than any convention here."
        _say(console, f"\nSeen in {len(found.runs)} trajectories. {rounding}")
    for name in {row.name: row for formula in found.formulas for row in formula.conventions}.values():
        _say(
            console,
            f"{name.name}: {name.sentence}{' Documented: ' + name.documented + '.' if name.documented else ''}"
            f"{' Seen as a bug: ' + name.seen + '.' if name.seen else ''}",
        )
    _say(console, f"\n{found.verdict}: {MEANINGS[found.verdict]} ({found.seconds:.1f} s)")
    if found.program:
        _say(console, f"\nA program that shows it:\n\n{found.program}")


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
