"""`toolkit chat`."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.commands.options import MOST_CONTEXT


def chat_with(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run folder, an export folder, a GGUF file, a model folder, hub id or pypi: name. Of an export's "
            "GGUF files the most exact that fits into free memory is taken, Q8_0 before 16 bits.",
        ),
    ],
    tools: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|builtin:NAMES",
            help="A JSON file of function schemas; builtin:home,music for built-in domains or single tools, which "
            "really run; or none. Default: those that training saw, or the recipe's built-in ones.",
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
    context: Annotated[
        int, typer.Option(min=64, max=MOST_CONTEXT, help="Tokens of a chat that a GGUF is given room for.")
    ] = 4096,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="CPU threads; default: the cores that are free.")
    ] = None,
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
