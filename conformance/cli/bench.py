"""``xopt bench``."""

from pathlib import Path
from typing import Annotated

import typer

from xopt.conformance.bench import bench as run_bench
from xopt.conformance.bench import show as bench_views
from xopt.conformance.bench.contenders import contenders
from xopt.conformance.bench.page import page_of
from xopt.conformance.bench.shapes import LADDER, size_of
from xopt.conformance.bench.suite import InterruptedBench
from xopt.conformance.cli.options import (
    INTERRUPTED,
    SEVERAL,
    STANDARD_OUTPUT,
    Html,
    Json,
    Outputs,
    finite,
    must_have_markers,
    names_of,
    progress_bar,
    rules_of,
)
from xopt.conformance.report import text as views
from xopt.conformance.report.summary import command_line
from xopt.rules import RULES


def bench(
    rule: Annotated[list[str] | None, typer.Option(help=f"A rule, such as lion, or all. {SEVERAL} Default: ademamix.")] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help=f"Numbers of a leaf (1e6, 2^28), leaves (8x64x64), or resnet50. {SEVERAL} Default: 10 to 10^7."),
    ] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Beside torch.optim, optax and pytorch_optimizer.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Only contenders whose name contains this, such as fused. {SEVERAL}")
    ] = None,
    seconds: Annotated[float, typer.Option(help="For the rounds of each rule and size.", min=0, callback=finite)] = 8.0,
    times_only: Annotated[bool, typer.Option("--times-only", help="Leave out memory and first calls.")] = False,
    leaves: Annotated[bool, typer.Option("--leaves", help="Trees of 100 to 10,000 small leaves too.")] = False,
    loop: Annotated[
        bool, typer.Option("--loop", help="Steps in a training loop too, beside torch.optim's and optax's AdamW.")
    ] = False,
    limits: Annotated[bool, typer.Option("--limits", help="Hold what was found against xopt's own limits too.")] = False,
    seed: Annotated[int, typer.Option(help="Of the numbers, and of the order in a round.")] = 0,
    json: Json = None,
    html: Html = None,
    table: Annotated[
        Path | None, typer.Option(help="Put the figures in this Markdown file, between its markers. - prints them.")
    ] = None,
) -> None:
    """Time steps, eager and fused, beside the limits of the machine and other optimizers.

    Exit status: 0 done, whatever was found, 2 bad usage, 130 interrupted; what was found until then is written.
    """
    must_have_markers(table, [views.mark(bench_views.TABLE)], "--table")
    names = rules_of(rule) or (list(RULES) if rule else None)
    parts = names_of(only, "--only") or []
    try:
        chosen = [size_of(text) for text in names_of(size, "--size") or ()] or LADDER
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--size") from None
    for text in parts:
        if not text or not any(text in one.name for name in names or ["ademamix"] for one in contenders(name, peers)):
            msg = f"no contender has {text!r} in its name"
            raise typer.BadParameter(msg, param_hint="--only")
    printed = table if table == STANDARD_OUTPUT else None
    with Outputs({"--json": json, "--html": html, "--table": printed}) as files, progress_bar(files.console()) as progress:
        shown = bench_views.ShownBench(progress)
        how = {"processes": not times_only, "leaves": leaves, "loop": loop, "limits": limits}
        try:
            report = run_bench(names, chosen, peers=peers, only=parts, seconds=seconds, seed=seed, events=shown, **how)
        except InterruptedBench as stopped:
            report = stopped.report
        interrupted = report["about"]["interrupted"] is not None
        options = {"rule": rule, "size": size, "peers": peers, "only": only, "seconds": seconds, "times-only": times_only}
        more = {"leaves": leaves, "loop": loop, "limits": limits, "seed": seed, "json": json, "html": html, "table": table}
        report["about"]["command"] = command_line("bench", options | more)
        files.fill("--json", lambda: bench_views.json_of(report))
        files.fill("--html", lambda: page_of(report))
        files.fill("--table", lambda: bench_views.markdown(report) + "\n")
        shown.ended(report)
    if table is not None and printed is None and not interrupted:
        views.put_between(table, bench_views.TABLE, bench_views.markdown(report))
    if interrupted or files.failed:
        raise typer.Exit(INTERRUPTED if interrupted else 2)
