"""``xopt bench``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from xopt.conformance.bench import bench as run_bench
from xopt.conformance.bench import show as bench_views
from xopt.conformance.bench.contenders import contenders
from xopt.conformance.bench.page import write_html
from xopt.conformance.bench.shapes import LADDER, size_of
from xopt.conformance.cli.options import must_have_a_folder, must_have_markers, progress_bar
from xopt.conformance.report import text as views
from xopt.rules import RULES


def bench(
    rules: Annotated[
        list[str] | None,
        typer.Option("--rules", "--rule", help="A rule, such as lion, or all. May be repeated. Default: ademamix."),
    ] = None,
    sizes: Annotated[
        list[str] | None,
        typer.Option(
            "--sizes",
            "--size",
            help="Numbers of a leaf (1e6, 2^28), leaves (8x64x64), or resnet50. May be repeated. Default: 10 to 10^7.",
        ),
    ] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Beside torch.optim, optax and pytorch_optimizer.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only contenders whose name contains this, such as fused. May be repeated.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="For the rounds of each rule and size.", min=0)] = 8.0,
    times_only: Annotated[bool, typer.Option("--times-only", help="Leave out memory and first calls.")] = False,
    leaves: Annotated[bool, typer.Option("--leaves", help="Trees of 100 to 10,000 small leaves too.")] = False,
    loop: Annotated[
        bool, typer.Option("--loop", help="Steps in a training loop too, beside torch.optim's and optax's AdamW.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the numbers, and of the order in a round.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Write all that was found here, as JSON.", dir_okay=False)] = None,
    table: Annotated[Path | None, typer.Option(help="Put the figures in this Markdown file, between its markers.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page to look at here.", dir_okay=False)] = None,
) -> None:
    """Time steps, eager and fused, beside the limits of the machine and other optimizers.

    Exit status: 0 done, whatever was found, 2 bad usage.
    """
    console = Console()
    for option, path in (("--json", json), ("--html", html)):
        must_have_a_folder(path, option)
    must_have_markers(table, [views.mark(bench_views.TABLE)], "--table")
    names = [name for text in rules or () for name in (RULES if text == "all" else text.split(","))]
    for name in names:
        if name not in RULES:
            msg = f"unknown rule {name!r}; there are {', '.join(RULES)}, and all"
            raise typer.BadParameter(msg, param_hint="--rules")
    try:
        chosen = [size_of(text) for given in sizes or () for text in given.split(",")] or LADDER
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--sizes") from None
    for text in only or ():
        if not any(text in one.name for name in names or ["ademamix"] for one in contenders(name, peers)):
            msg = f"no contender has {text!r} in its name"
            raise typer.BadParameter(msg, param_hint="--only")
    with progress_bar(console) as progress:
        shown = bench_views.Shown(progress)
        report = run_bench(
            names or None,
            chosen,
            peers=peers,
            only=only or (),
            seconds=seconds,
            seed=seed,
            processes=not times_only,
            leaves=leaves,
            loop=loop,
            events=shown,
        )
    shown.checks(report)
    if json is not None:
        bench_views.write_json(report, json)
    if table is not None:
        views.put_between(table, bench_views.TABLE, bench_views.markdown(report))
    if html is not None:
        write_html(report, html)
