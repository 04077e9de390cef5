"""`toolkit bench` and its verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.terminal import new_console, say

bench_app = typer.Typer(
    help="Measure memory and speed against other ways to train, and check the chapter's claims.\n\n"
    "  toolkit bench --quick                            the machinery, on a CPU, in minutes\n\n"
    "  toolkit bench --profile this --shape 4x2048      this GPU, fixed lengths\n\n"
    "  toolkit bench --profile t4 --shape real          this GPU made as small as a T4, the recipe's chats\n\n"
    "  toolkit bench --quality recipes/smollm2.toml     seconds to 80% right answers, for each way to train\n\n"
    "  toolkit bench --claims                           what is said of LoRA and its cost, one by one",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
ResultsFiles = Annotated[
    list[Path], typer.Argument(metavar="RESULTS...", help="results.jsonl files, or their folders.")
]


@bench_app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="RECIPE", help="Model, data and values to measure; default: recipes/tools.toml."),
    ] = None,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="this, or a card to impose on this GPU, as t4 (memory, precision).")
    ] = "this",
    shape: Annotated[
        str | None,
        typer.Option(metavar="SHAPE", help="real (the recipe's chats), or ROWSxTOKENS a micro-batch; default: 4x2048."),
    ] = None,
    variants: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Names or patterns with commas, as 'unsloth*,peft'; core (default) or all. Behind a name: "
            "+KEY=VALUE, a setting of its own (capitals: its environment; site=FOLDER: its packages).",
        ),
    ] = None,
    list_variants: Annotated[bool, typer.Option("--list", help="Show the variants and leave.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A few variants of a small model on the CPU.")] = False,
    claims: Annotated[bool, typer.Option("--claims", help="Check the claims instead of measuring.")] = False,
    quality: Annotated[
        Path | None,
        typer.Option(
            metavar="RECIPE", help="Time whole runs of this recipe to a target of right answers; may be gone on with."
        ),
    ] = None,
    target: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="With --quality: the share of right answers to reach.")
    ] = 0.8,
    seeds: Annotated[int, typer.Option(min=1, help="With --quality: runs of each variant.")] = 5,
    minutes: Annotated[float, typer.Option(min=0.1, help="With --quality: a run is stopped after so many.")] = 5.0,
    results: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="With --claims: results to read; default: those below runs/bench."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="With --claims: a finished run, for claims about losses.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --claims: write the table as Markdown too.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where results go; default: runs/bench/DATE-PROFILE-SHAPE.")
    ] = None,
    turns: Annotated[int, typer.Option(min=3, help="How often each variant is measured.")] = 3,
    updates: Annotated[int, typer.Option(min=1, help="Timed updates in a turn.")] = 2,
    warmup: Annotated[int, typer.Option(min=1, help="Updates before the first turn.")] = 3,
    parallel: Annotated[int | None, typer.Option(min=1, help="Variants that load at one time; default: 4.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Load again for each turn where not all variants fit at once.")
    ] = False,
    kernels: Annotated[
        int, typer.Option(min=0, metavar="N", help="Updates more, under torch's profiler: where their time goes.")
    ] = 0,
    lock: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Benches with the same file load side by side, and measure one by one."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Put a value over the recipe's.")
    ] = None,
) -> None:
    """Measure. Exit code 1 when a gate failed; running out of memory is a result.

    What a GPU reached is kept in the cache folder (measured.json), where train.engine = "auto" finds the fastest
    engine, if every gate passed and no other card was imposed on this one.
    """
    if context.invoked_subcommand is not None:
        return
    from bench import command

    console = new_console()
    if list_variants:
        command.list_variants(console)
        return
    if claims:
        from bench.claims import check_claims

        if not check_claims(recipe, tuple(overrides or ()), results, run, console, markdown):
            raise typer.Exit(1)
        return
    if quality is not None:
        from bench.quality import run_quality

        if not run_quality(
            quality,
            target=target,
            seeds=seeds,
            minutes=minutes,
            variants=variants,
            overrides=tuple(overrides or ()),
            out=out or Path("runs/bench") / f"quality-{quality.stem}",
            console=console,
        ):
            raise typer.Exit(1)
        return
    ok = command.run_command(
        recipe=recipe,
        profile=profile,
        shape=shape,
        variants=variants,
        quick=quick,
        out=out,
        turns=turns,
        updates=updates,
        warmup=warmup,
        parallel=parallel,
        restart=restart,
        kernels=kernels,
        lock=lock,
        overrides=tuple(overrides or ()),
        console=console,
    )
    if not ok:
        raise typer.Exit(1)


@bench_app.command("compare", short_help="What changed between two results.")
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="results.jsonl, or its folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="results.jsonl, or its folder.")],
) -> None:
    """Show memory and time of two runs side by side, with what differs by over 10%."""
    from bench.compare import show
    from toolkit.bench_results import Results

    show(Results.load(a), Results.load(b), new_console())


@bench_app.command("report", short_help="Write Markdown and HTML from results.")
def report(
    files: ResultsFiles,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a Markdown page.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a web page with plots.")] = None,
) -> None:
    """Write pages again from results, one or several."""
    from bench.command import write_pages
    from toolkit.bench_results import Results

    write_pages([Results.load(file) for file in files], markdown, html)


@bench_app.command("table", short_help="Make a Markdown table from results.")
def table(
    files: ResultsFiles,
    into: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Put it between the markers in this file; default: print it.")
    ] = None,
) -> None:
    """Make the table of variants, memory and speed as docs/bench.md shows it."""
    from bench.report import put_between_markers, readme_table
    from toolkit.bench_results import Results

    text = readme_table([Results.load(file) for file in files], [str(file) for file in files])
    if into is None:
        say(text)
    else:
        put_between_markers(into, text)


@bench_app.command("published", short_help="Check predictions against times that others published.")
def published() -> None:
    """Step times that others published of a T4, and the mean length of a chat that each implies by the prediction."""
    from bench.published import show

    show(new_console())
