"""The command line: one function a verb, which only parses and calls. Heavy imports stay inside the functions."""

from __future__ import annotations

import io
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from bench.cli import bench_app
from toolkit import __version__
from toolkit.environment import quiet
from toolkit.errors import InputError, InterruptedRun, ToolkitError
from toolkit.machine import refusal
from toolkit.terminal import guard, new_console, one_line, say, warn
from toolkit.verbs import models
from toolkit.verbs.data import data_app
from toolkit.verbs.options import Overrides, RecipePath, loaded

MOST_LINES = 5  # of a damaged file, that are named one by one

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
app.add_typer(data_app, name="data")
app.add_typer(bench_app, name="bench", short_help="Measure memory and speed of ways to train.")


def _version(wanted: bool) -> None:
    if wanted:
        say(f"toolkit {__version__}")
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
    export: Annotated[
        bool,
        typer.Option("--export/--no-export", help="Do what the recipe's [export] asks for, or leave it for later."),
    ] = True,
) -> None:
    """Train what a recipe says and leave a run folder with the adapter.

    Examples:

      toolkit run recipes/quickstart.toml

      toolkit run recipes/tools.toml --out runs/first

      toolkit run recipes/tools.toml --resume runs/first

      toolkit run my-trial.toml --no-export

    Ctrl-C saves a checkpoint and says how to go on. Exit codes: 0 done, 1 the work failed, 2 the input is wrong,
    130 interrupted.
    """
    if resume is not None and recipe.resolve() == (resume / "recipe.toml").resolve():
        from toolkit.training.resume import mend_recipe

        mend_recipe(resume, lambda text: warn(f"note: {text}"))
    with loaded(recipe, overrides) as asked:
        # after the recipe: a typing error should not wait for torch to be imported
        from toolkit.training.run import run as train

        train(asked, out, resume, export=export)


@app.command(short_help="Say what a run will need: memory, time, cost.")
def plan(
    recipe: RecipePath,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Plan for this card, as t4, l4, a100 or h200, or cpu; default: the one here, else these cores where "
            "they would do it within a day, else t4.",
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
    with loaded(recipe, overrides) as asked:
        from toolkit.planning.plan import plan_recipe

        plan_recipe(asked, gpu=gpu, price=price).render(new_console())


app.command("export", short_help="Write a trained model as GGUF, and prove that it is that model.")(models.export_run)
app.command("chat", short_help="Talk to a model and see its tool calls run.")(models.chat_with)
app.command("serve", short_help="Serve a GGUF to OpenAI clients on this machine.")(models.serve_gguf)
app.command("eval", short_help="Measure tool calls of models, side by side.")(models.evaluate)


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
    their recipes, curves and results side by side, and the chats that only one of them answers right.

    Examples:

      toolkit report runs/quickstart

      toolkit report runs/quickstart runs/quickstart-2 --out compared.html
    """
    from toolkit.reports.live import terminal_text
    from toolkit.reports.report import write_report

    console = new_console()
    page = write_report(runs, out, bench or ())
    for view in page.views:
        for problem in view.bad_lines[:MOST_LINES]:
            console.print(f"note       {problem}: left out", soft_wrap=True, markup=False)
        if (more := len(view.bad_lines) - MOST_LINES) > 0:
            console.print(
                f"note       {view.folder.metrics}: {more} more lines are left out", soft_wrap=True, markup=False
            )
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

    show_runs(folder, new_console())


@app.command(short_help="Check this machine and say what is missing.")
def doctor() -> None:
    """Check this machine: versions, GPU, what is missing and the command that mends it.

    Exit code 0 when `toolkit run` can work here, 1 when it can't.
    """
    from toolkit.doctor import examine

    report = examine()
    report.render(new_console())
    if not report.ok:
        raise typer.Exit(1)


def main() -> None:
    """The `toolkit` command. Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 130 interrupted."""
    quiet()
    guard()
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(prog_name="toolkit", standalone_mode=False)
        if code == InterruptedRun.exit_code:  # Typer leaves with it, and without a word
            warn("interrupted")
            exec("")  # clears a mark that an interrupt within exec leaves, by which `python -m` would end by SIGINT
        sys.exit(code if isinstance(code, int) else 0)
    except InterruptedRun as stopped:
        exec("")  # as above
        warn(stopped)
        sys.exit(stopped.exit_code)
    except ToolkitError as error:
        _report(error)
        sys.exit(error.exit_code)
    except typer.Abort:
        warn("aborted")
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # what Typer says of a command line
            told = io.StringIO()
            error.show(file=told)
            say(told.getvalue(), file=sys.stderr, end="")
            sys.exit(error.exit_code)
        if told_by_machine := refusal(error):
            warn(f"error: {told_by_machine}")
            sys.exit(1)
        warn(traceback.format_exc().rstrip())
        warn("error: this is a bug in toolkit, not a mistake of yours; please report the lines above")
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
        warn(f"error: {one_line(problem) if isinstance(error, InputError) else problem}")


if __name__ == "__main__":
    main()
