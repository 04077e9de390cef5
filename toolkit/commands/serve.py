"""`toolkit serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from toolkit.commands.options import MOST_AT_ONCE, MOST_CONTEXT


def serve_gguf(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A GGUF file, an export folder or an exported run. Of several files the most exact that fits into "
            "free memory is taken, Q8_0 before 16 bits.",
        ),
    ],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens.")] = 8080,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Another address than loopback needs --allow-remote and an --api-key."),
    ] = "127.0.0.1",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let other machines in, where --host lets them. Not encrypted.")
    ] = False,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar="TOOLKIT_API_KEY",
            help="Answer only clients that send this key. In the environment other users can't read it.",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let pages of this origin ask, as http://localhost:3000; may be repeated."),
    ] = None,
    tools: Annotated[
        str | None,
        typer.Option(
            metavar="TOOLS",
            help="Tools for clients that send none: a JSON file of function schemas, or builtin:home,music.",
        ),
    ] = None,
    max_body: Annotated[int, typer.Option(min=1024, metavar="BYTES", help="The largest request.")] = 1 << 20,
    context: Annotated[
        int, typer.Option(min=64, max=MOST_CONTEXT, help="Tokens of one chat, prompt and answers together.")
    ] = 4096,
    parallel: Annotated[
        int, typer.Option(min=1, max=MOST_AT_ONCE, help="Chats that are answered at the same time; 16 more wait.")
    ] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="CPU threads; default: the cores that are free.")
    ] = None,
) -> None:
    """Serve a GGUF to OpenAI clients, with its tool calls parsed, until Ctrl-C.

    /v1/chat/completions (streamed or not, tools and tool_choice), /v1/completions, /v1/models and /health. Calls are
    told to the client and never run here. Only this machine can ask, by the names 127.0.0.1, localhost and [::1], and
    no web page can, unless --host or --cors says otherwise. llama.cpp runs in a process that nothing else can reach.

    Examples:

      toolkit serve runs/quickstart

      toolkit serve model.gguf --port 8081 --parallel 4

      TOOLKIT_API_KEY=secret-words toolkit serve model.gguf --host 0.0.0.0 --allow-remote

    Exit codes: 0 stopped by Ctrl-C or SIGTERM, 1 llama.cpp ended by itself, 2 the input is wrong.
    """
    from toolkit.inference.serve.command import Options, serve

    serve(
        Options(
            model,
            host=host,
            port=port,
            allow_remote=allow_remote,
            key=api_key,
            origins=cors or (),
            tools=tools,
            max_body=max_body,
            context=context,
            parallel=parallel,
            threads=threads,
        )
    )
