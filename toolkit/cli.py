"""The command line: one function a verb, which only parses and calls. Heavy imports stay inside the functions."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from bench.cli import bench_app
from toolkit import __version__
from toolkit.environment import quiet
from toolkit.errors import InputError, InterruptedRun, ToolkitError

if TYPE_CHECKING:
    from rich.console import Console

# What the machine refuses, wherever it happens: a full disk, a folder that can't be written. Never a bug of ours.
REFUSED = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EIO)
)

app = typer.Typer(
    name="toolkit",
    help="Fine-tune a language model to call tools, from one recipe file.\n\n"
    "Start with `toolkit doctor`, then `toolkit run recipes/quickstart.toml`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(
    help="Look at a recipe's chats before training on them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench", short_help="Measure memory and speed of ways to train.")

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe, as recipes/tools.toml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Put a value over the recipe's, as --set train.learning_rate=1e-4. May be given many times.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"toolkit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


@app.command(short_help="Train what a recipe says.")
def run(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The run's new folder; default: runs/ and the recipe's name.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Go on with this run from its last checkpoint; give its recipe again."),
    ] = None,
) -> None:
    """Train what a recipe says and leave a run folder with the adapter.

    Examples:

      toolkit run recipes/quickstart.toml

      toolkit run recipes/tools.toml --out runs/first

      toolkit run recipes/tools.toml --resume runs/first

    Ctrl-C saves a checkpoint and says how to go on. Exit codes: 0 done, 1 the work failed, 2 the input is wrong,
    130 interrupted.
    """
    from toolkit.recipe import load

    loaded = load(recipe, overrides or ())
    # after the recipe: a typing error should not wait for torch to be imported
    from toolkit.training.run import run as train

    train(loaded, out, resume)


@app.command(short_help="Say what a run will need: memory, time, cost.")
def plan(
    recipe: RecipePath,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Plan for this card, as t4, l4, a100 or h200, or cpu; default: the one here."
        ),
    ] = None,
    price: Annotated[
        float | None, typer.Option(metavar="DOLLARS_PER_HOUR", min=0, help="What an hour on the card costs.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Say what a run will need before it is started: parameters, updates, memory, time and cost.

    Loads no model and needs no GPU.

    Examples:

      toolkit plan recipes/tools.toml --gpu t4 --price 0.60

      toolkit plan recipes/tools.toml --gpu l4 --set train.max_length=4096
    """
    from toolkit.planning.plan import plan_recipe
    from toolkit.recipe import load

    plan_recipe(load(recipe, overrides or ()), gpu=gpu, price=price).render(_console())


@app.command("export", short_help="Write a trained model as GGUF and more, and prove that it is the trained one.")
def export_run(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, an adapter folder (with --base), or a model: folder, hub id or pypi: name.",
        ),
    ],
    gguf: Annotated[
        str | None,
        typer.Option(
            metavar="TYPES",
            help="GGUF files to write, as q8_0,q4_k_m: f16, bf16, q8_0, q6_k, q5_k_m, q4_k_m. "
            "Default: the recipe's [export], else q8_0.",
        ),
    ] = None,
    merge_base: Annotated[
        str,
        typer.Option(
            metavar="auto|original|dequant",
            help="After training on 4-bit weights: merge into the original base, into what training saw of it, "
            "or measure which is better.",
        ),
    ] = "auto",
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="The new folder; default: RUN/export.")] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The base model of an adapter folder, named as in a recipe.")
    ] = None,
    lora: Annotated[bool, typer.Option("--lora", help="Write the adapter alone as a GGUF too.")] = False,
    adapter_only: Annotated[
        bool, typer.Option("--adapter-only", help="Write the adapter alone, as PEFT has it and as a GGUF.")
    ] = False,
    merged: Annotated[bool, typer.Option("--merged/--no-merged", help="Write merged 16-bit safetensors too.")] = True,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare the files with the trained model, and write a report.")
    ] = True,
    verify_only: Annotated[
        bool, typer.Option("--verify-only", help="RUN is an export folder: only compare its files again.")
    ] = False,
    chats: Annotated[
        int | None, typer.Option(min=1, metavar="CHATS", help="Held-out chats to compare on; default: 24.")
    ] = None,
) -> None:
    """Merge a run's adapter and write it as GGUF (llama.cpp, Ollama, LM Studio) and 16-bit safetensors.

    Needs neither a GPU nor a compiler. Ends with a report that compares each file with the trained model.

    Examples:

      toolkit export runs/quickstart --gguf q8_0,q4_k_m

      toolkit export runs/quickstart --adapter-only --out lora

      toolkit export my-adapter --base Qwen/Qwen3-1.7B --gguf q4_k_m

      toolkit export --verify-only runs/quickstart/export --chats 100

    Exit codes: 0 done, 1 the files are not the trained model (they are kept, and marked so) or the work failed, 2 the
    input is wrong.
    """
    from toolkit.export.command import export_command, verify_command

    if verify_only:
        verify_command(run, chats=chats)
        return
    export_command(
        run,
        gguf=gguf,
        merge_base=merge_base,
        out=out,
        base=base,
        lora=lora,
        adapter_only=adapter_only,
        merged=merged,
        verify=verify,
        chats=chats,
    )


@app.command("chat", short_help="Talk to a model and see its tool calls run.")
def chat_with(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A run folder, an export folder, a GGUF file, a model folder, hub id or pypi: name."
        ),
    ],
    tools: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|builtin:NAMES",
            help="A JSON file of function schemas; builtin:home,music for built-in domains or single tools, which "
            "really run; or none. Default: built-in tools of the recipe's domains.",
        ),
    ] = None,
    once: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Ask this, print the answer and leave: for scripts.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --once: one JSON object with every step, call and result.")
    ] = False,
    execute: Annotated[bool, typer.Option("--execute/--no-execute", help="Run calls of built-in tools.")] = True,
    system: Annotated[str, typer.Option(metavar="TEXT", help="The system turn.")] = "",
    max_steps: Annotated[int, typer.Option(min=1, help="Most assistant turns to one question.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of one assistant turn.")] = 512,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the most probable token.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the built-in world, and of sampling.")] = 0,
    context: Annotated[int, typer.Option(min=64, help="Tokens of a chat that a GGUF is given room for.")] = 4096,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: the cores that are free.")] = None,
) -> None:
    """Talk to a model, prompted exactly as it was trained; its tool calls are read and, for built-in tools, run.

    The answer goes to standard output, all else to standard error. A GGUF runs in llama.cpp (extra `serve`).

    Examples:

      toolkit chat runs/quickstart

      toolkit chat runs/quickstart/export --tools builtin:home --once "Turn off the light in the study."

      toolkit chat model.gguf --tools tools.json --once "What is the weather in Oslo?" --json
    """
    from toolkit.inference.chat import Options, chat

    chat(
        Options(
            model,
            tools,
            once,
            as_json,
            execute,
            system,
            max_steps,
            max_new_tokens,
            temperature,
            seed,
            context,
            threads,
        )
    )


@app.command("serve", short_help="Serve a GGUF to OpenAI clients on this machine.")
def serve_gguf(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A GGUF file, an export folder or an exported run.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of 127.0.0.1; nothing outside can reach it.")] = 8080,
    context: Annotated[int, typer.Option(min=64, help="Tokens of one chat, prompt and answers together.")] = 4096,
    parallel: Annotated[int, typer.Option(min=1, help="Chats that are answered at the same time.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: the cores that are free.")] = None,
) -> None:
    """Serve a GGUF with llama.cpp's OpenAI-compatible server, on this machine alone, until Ctrl-C.

    Examples:

      toolkit serve runs/quickstart

      toolkit serve model.gguf --port 8081 --parallel 4
    """
    from toolkit.inference.serve import serve

    serve(model, port=port, context=context, parallel=parallel, threads=threads)


@data_app.command("check", short_help="Count, measure and check the chats.")
def data_check(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Count, measure and check a recipe's chats; exit code 2 when rows are wrong.

    Shows counts by kind, bad rows with file:line, calls that break their tool's schema, duplicates, token lengths,
    the share of trained tokens by role, and what would be cut.
    """
    from toolkit.data.check import check
    from toolkit.recipe import load

    report = check(load(recipe, overrides or ()))
    report.render(_console())
    if not report.ok:
        raise typer.Exit(InputError.exit_code)


@data_app.command("preview", short_help="Show chats with the trained tokens coloured.")
def data_preview(
    recipe: RecipePath,
    n: Annotated[int, typer.Option("-n", min=1, metavar="CHATS", help="How many chats to show.")] = 3,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write them as a web page too.")] = None,
    overrides: Overrides = None,
) -> None:
    """Show chats as the model sees them, with the trained tokens coloured.

    Example: toolkit data preview recipes/tools.toml -n 3 --html chats.html
    """
    from toolkit.data.preview import preview
    from toolkit.recipe import load

    preview(load(recipe, overrides or ()), n, html, _console())


@data_app.command("build", short_help="Make the token tables ahead of time.")
def data_build(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Make the token tables that `toolkit run` trains on, ahead of time. They are kept and reused."""
    from toolkit import models
    from toolkit.data.parts import Part
    from toolkit.data.table import build
    from toolkit.recipe import load

    settings = load(recipe, overrides or ()).recipe
    folder = models.resolve(settings.model, weights=False)
    parts: tuple[Part, ...] = ("train", "eval") if settings.eval.sources or settings.eval.holdout else ("train",)
    for part in parts:
        table = build(settings, folder, part)
        tokens, trained = int(table.lengths.sum()), int(table.trained.sum())
        typer.echo(
            f"{part:5}  {table.n_chats:,} chats, {tokens:,} tokens, {trained / tokens:.1%} trained  {table.folder}"
        )


@app.command("eval", short_help="Measure tool calls of models, side by side.")
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="A run folder, a model folder, hub id or pypi: model, an export folder or a GGUF file.",
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="A file or folder of chats, builtin:tools, or bfcl:FOLDER; default: what the run held out.",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="RECIPE", help="Takes call format and held-out chats from this recipe, for plain models and GGUFs."
        ),
    ] = None,
    chats: Annotated[int, typer.Option(min=1, metavar="N", help="At most this many chats, spread evenly.")] = 200,
    executed: Annotated[
        bool, typer.Option("--executed", help="Run the calls of built-in chats in their simulated world, turn by turn.")
    ] = False,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this built-in split: phrasing or tools.")
    ] = None,
    base: Annotated[
        bool, typer.Option("--base/--no-base", help="For a run folder, a first column with its adapter switched off.")
    ] = True,
    temperature: Annotated[
        float, typer.Option(min=0, metavar="T", help="Sample at this temperature; 0 takes the likeliest token.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the sampling.")] = 0,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most tokens of an answer; default: the recipe's.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Chats decoded at a time; default: the recipe's.")
    ] = None,
    samples: Annotated[int, typer.Option(min=0, metavar="N", help="How many flipped chats to show.")] = 3,
    cache: Annotated[
        bool,
        typer.Option("--cache/--no-cache", help="Keep answers on disk, so that what was decoded once is not again."),
    ] = True,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write every answer and the table as JSON into this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Put held-out chats to one or several models and say how well they call tools.

    The first model is what the others are compared with: with confidence intervals, an exact test and the chats that
    flipped. Chats are rendered as in training.

    Examples:

      toolkit eval runs/quickstart

      toolkit eval runs/quickstart runs/quickstart/export --executed

      toolkit eval Qwen/Qwen3-1.7B runs/tools --data bfcl:bfcl_eval-2026.3.23-py3-none-any.whl --chats 1000

    Exit codes: 0 done, 1 the work failed, 2 the input is wrong.
    """
    import json

    from rich.console import Console

    from toolkit.evaluation.command import Options, evaluate_models

    options = Options(
        data=data,
        recipe=recipe,
        chats=chats,
        split=split,
        executed=executed,
        base=base,
        temperature=temperature,
        seed=seed,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        cache=cache,
    )
    table = evaluate_models(models, options, Console(stderr=as_json, highlight=False, soft_wrap=True))
    if out is not None:
        table.save(out)
    if as_json:
        typer.echo(json.dumps(table.as_dict(), indent=2, ensure_ascii=True))
    else:
        table.render(_wide_console(), samples)
        if out is not None:
            typer.echo(f"\nwritten to {out}")


@app.command(short_help="Show what a run did, as a web page.")
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="A run folder; several are compared.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the page goes; default: report.html in the run's folder."),
    ] = None,
    bench: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Show these results of `toolkit bench` too.")
    ] = None,
) -> None:
    """Show what a run did: verdicts on its log, curves, data, tool calls before and after.

    The page is one file that needs nothing else. It can be made while the run goes on. Several runs are compared:
    their recipes, curves and results side by side.

    Examples:

      toolkit report runs/quickstart

      toolkit report runs/quickstart runs/quickstart-2 --out compared.html
    """
    from toolkit.reports.live import terminal_text
    from toolkit.reports.report import write_report

    console = _console()
    page = write_report(runs, out, bench or ())
    for view in page.views:
        for verdict in view.verdicts:
            name = f"{view.name}: " if len(page.views) > 1 else ""
            console.print(name, terminal_text(verdict), sep="", soft_wrap=True, markup=False)
    console.print(f"written to {page.path}", markup=False, soft_wrap=True)


@app.command("runs", short_help="List runs.")
def list_runs(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where runs are; default: runs/.")] = Path("runs"),
) -> None:
    """List the runs in a folder: model, state, updates, losses, right answers before and after, size."""
    from toolkit.reports.listing import show_runs

    show_runs(folder, _console())


@app.command(short_help="Check this machine and say what is missing.")
def doctor() -> None:
    """Check this machine: versions, GPU, what is missing and the command that mends it.

    Exit code 0 when `toolkit run` can work here, 1 when it can't.
    """
    from toolkit.doctor import examine

    report = examine()
    report.render(_console())
    if not report.ok:
        raise typer.Exit(1)


def main() -> None:
    """The `toolkit` command. Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 130 interrupted."""
    quiet()
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        app(prog_name="toolkit")
    except SystemExit as stop:
        if stop.code == InterruptedRun.exit_code:  # Typer leaves with it, and without a word
            print("interrupted", file=sys.stderr)
        raise
    except ToolkitError as error:
        _report(error)
        sys.exit(error.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in REFUSED:
            place = f"{error.filename}: " if error.filename else ""
            print(f"error: {place}{(error.strerror or str(error)).lower()}", file=sys.stderr)
            sys.exit(1)
        traceback.print_exc()
        print("error: this is a bug in toolkit, not a mistake of yours; please report the lines above", file=sys.stderr)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM stops like Ctrl-C, so that what is half-made is cleared away."""
    raise KeyboardInterrupt


def _report(error: ToolkitError) -> None:
    """One line a problem, never wrapped, so that `file:line` stays whole for editors and scripts."""
    problems = error.problems if isinstance(error, InputError) else (error,)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)


def _wide_console() -> Console:
    """For tables that may be wider than 80 columns, which rich takes a file or pipe to be."""
    console = _console()
    if not console.is_terminal:
        console.width = 200
    return console


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


if __name__ == "__main__":
    main()
