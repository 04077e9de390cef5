"""The `toolkit` command: its verbs, its exit codes and how errors are told."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from functools import cache
from types import FrameType
from typing import Annotated, Any, ClassVar, NoReturn

import typer
import typer.main
from typer.core import TyperGroup

from toolkit import __version__
from toolkit.commands import (
    chat,
    doctor,
    eval,
    export,
    init,
    launch,
    plan,
    push,
    report,
    run,
    runs,
    serve,
    usage,
    verify,
)
from toolkit.commands.bench import bench_app
from toolkit.commands.data import data_app
from toolkit.environment import is_one_of_several, is_silent, quiet
from toolkit.errors import EngineError, InputError, InterruptedRun, ToolkitError, nearest
from toolkit.machine import PANIC, refusal
from toolkit.ranks import here
from toolkit.terminal import guard, mute, one_line, say, warn

OTHERS = {  # what other tools call our verbs
    **dict.fromkeys(("train", "finetune", "fine-tune", "sft", "lora"), "run"),
    **dict.fromkeys(("evaluate", "test", "score"), "eval"),
    **dict.fromkeys(("merge", "convert", "quantize", "gguf"), "export"),
    **dict.fromkeys(("generate", "inference", "infer", "ask"), "chat"),
    **dict.fromkeys(("view", "show"), "report"),
    **dict.fromkeys(("ls", "list"), "runs"),
    **dict.fromkeys(("env", "info"), "doctor"),
    **dict.fromkeys(("new", "create"), "init"),
    **dict.fromkeys(("publish", "share"), "push"),
    **dict.fromkeys(("submit", "job", "cloud"), "launch"),
    **dict.fromkeys(("estimate", "memory"), "plan"),
    **dict.fromkeys(("benchmark",), "bench"),
    **dict.fromkeys(("reproduce", "prove", "check-run"), "verify"),
    **dict.fromkeys(("api", "server"), "serve"),
}


class Verbs(TyperGroup):
    """Verbs. Where there is none of a name the nearest is named, by other tools' words for it too."""

    others: ClassVar[dict[str, str]] = {}

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named | {"suggest_commands": False})  # Typer's, which would be said a second time

    def get_command(self, ctx: Any, name: str) -> Any:
        found = super().get_command(ctx, name)
        if found is None:
            near = nearest(name, self.commands) or self.others.get(nearest(name.lower(), self.others), "")
            ctx.fail(usage.no_command(name, near))
        return found


class AllVerbs(Verbs):
    others = OTHERS


app = typer.Typer(
    name="toolkit",
    cls=AllVerbs,
    help="Fine-tune a language model to call tools, from one recipe file.\n\n"
    "Start with `toolkit doctor`, then `toolkit run recipes/quickstart.toml`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data", cls=Verbs)
app.add_typer(bench_app, name="bench", cls=Verbs, short_help="Measure memory and speed of ways to train.")
app.command("init", short_help="Write a recipe for a file of your data.")(init.init)
app.command("run", short_help="Train what a recipe says.")(run.run)
app.command("plan", short_help="Say what a run will need: memory, time, cost.")(plan.plan)
app.command("launch", short_help="Write a recipe as a job for rented machines.")(launch.launch_job)
app.command("export", short_help="Write a trained model as GGUF, and prove that it is that model.")(export.export_run)
app.command("push", short_help="Push a run to the model hub.")(push.push_run)
app.command("chat", short_help="Talk to a model and see its tool calls run.")(chat.chat_with)
app.command("serve", short_help="Serve a GGUF to OpenAI clients on this machine.")(serve.serve_gguf)
app.command("eval", short_help="Measure tool calls of models, side by side.")(eval.evaluate)
app.command("verify", short_help="Make a run's first updates again, and compare.")(verify.verify)
app.command("report", short_help="Show what a run did, as a web page.")(report.report)
app.command("runs", short_help="List runs.")(runs.list_runs)
app.command("doctor", short_help="Check this machine and say what is missing.")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"toolkit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    if is_one_of_several(os.environ) and context.invoked_subcommand != "run":
        raise EngineError(
            f"`toolkit {context.invoked_subcommand}` was started as one of {os.environ['WORLD_SIZE']} processes, and "
            "is the work of one; of all commands only `toolkit run` is that of several"
        )


def main() -> None:
    """The `toolkit` command. Exit codes: 0 done, 1 the work failed, 2 the input is wrong, 130 interrupted."""
    quiet()
    guard()
    if is_one_of_several(os.environ):
        mute(is_silent(os.environ))
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a page of warnings where another rank has left
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        code = _commands()(prog_name="toolkit", standalone_mode=False)
        if code == InterruptedRun.exit_code:  # Typer leaves with it, and without a word
            warn("interrupted")
            exec("")  # clears a mark that an interrupt within exec leaves, by which `python -m` would end by SIGINT
            _leave(code)
        sys.exit(code if isinstance(code, int) else 0)
    except InterruptedRun as stopped:
        exec("")  # as above
        _report(stopped)
        _leave(stopped.exit_code)
    except ToolkitError as error:
        _report(error)
        _leave(error.exit_code)
    except typer.Abort:
        warn("aborted")
        sys.exit(1)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != PANIC:
            raise
        if usage.is_usage(error):
            if usage.is_help(error):
                warn(error.format_message())
            else:
                warn(f"error: {usage.told(error, sys.argv[1:], _commands())}")
            sys.exit(error.exit_code)
        if told_by_machine := refusal(error):
            _report(ToolkitError(told_by_machine))
            _leave(1)
        if (rank := _speaking(error)) is not None:
            warn(traceback.format_exc().rstrip())
            warn(f"error: {rank}this is a bug in toolkit, not a mistake of yours; please report the lines above")
        _leave(1)
    finally:
        signal.signal(signal.SIGTERM, before)


@cache
def _commands() -> Any:
    """All of `app`, which Typer would make anew at each call."""
    return typer.main.get_command(app)


def _terminated(number: int, frame: FrameType | None) -> None:
    """SIGTERM stops like Ctrl-C, so that what is half-made is cleared away."""
    if not here().broken:  # else torchrun sends it to a rank that is stopping by itself
        raise KeyboardInterrupt


def _report(error: ToolkitError) -> None:
    """One line a problem, never wrapped, so that `file:line` stays whole for editors and scripts."""
    if not str(error) or (rank := _speaking(error)) is None:  # without words where ranks have said it
        return
    if isinstance(error, InterruptedRun):
        warn(error)
        return
    problems = error.problems if isinstance(error, InputError) else (error,)
    for problem in problems:
        warn(f"error: {rank}{one_line(problem) if isinstance(error, InputError) else problem}")


def _speaking(error: BaseException) -> str | None:
    """What to say before an error; None where another rank says it."""
    if here().size == 1:
        return ""
    for number in (signal.SIGTERM, signal.SIGINT):  # torchrun's, as another rank has left already
        signal.signal(number, signal.SIG_IGN)
    rank = here().tells(error)
    mute(rank is None)
    return rank


def _leave(code: int) -> NoReturn:
    """Exit with `code`; a rank at once, as its libraries would wait for ranks that have left."""
    if here().size > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
