"""The `toolkit` command: its verbs, its exit codes and how errors are told."""

from __future__ import annotations

import io
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, NoReturn

import typer

from toolkit import __version__
from toolkit.commands import chat, doctor, eval, export, plan, report, run, runs, serve
from toolkit.commands.bench import bench_app
from toolkit.commands.data import data_app
from toolkit.environment import quiet
from toolkit.errors import InputError, InterruptedRun, ToolkitError
from toolkit.machine import refusal
from toolkit.terminal import guard, one_line, say, warn

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
app.command("run", short_help="Train what a recipe says.")(run.run)
app.command("plan", short_help="Say what a run will need: memory, time, cost.")(plan.plan)
app.command("export", short_help="Write a trained model as GGUF, and prove that it is that model.")(export.export_run)
app.command("chat", short_help="Talk to a model and see its tool calls run.")(chat.chat_with)
app.command("serve", short_help="Serve a GGUF to OpenAI clients on this machine.")(serve.serve_gguf)
app.command("eval", short_help="Measure tool calls of models, side by side.")(eval.evaluate)
app.command("report", short_help="Show what a run did, as a web page.")(report.report)
app.command("runs", short_help="List runs.")(runs.list_runs)
app.command("doctor", short_help="Check this machine and say what is missing.")(doctor.doctor)


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
