"""Verbs on a trained model: export, chat, serve and eval. Parsing only; heavy imports stay inside the functions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from toolkit.terminal import new_console, say
from toolkit.verbs.options import wide_console


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
    max_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="MINUTES",
            help="How long comparing may take; fewer chats are compared where they do not fit. Default: 10.",
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an older export, which stays until the new one is whole."),
    ] = False,
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
        verify_command(run, chats=chats, max_minutes=max_minutes)
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
        max_minutes=max_minutes,
        force=force,
    )


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


def serve_gguf(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A GGUF file, an export folder or an exported run.")],
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
    context: Annotated[int, typer.Option(min=64, help="Tokens of one chat, prompt and answers together.")] = 4096,
    parallel: Annotated[int, typer.Option(min=1, help="Chats that are answered at the same time; 16 more wait.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: the cores that are free.")] = None,
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
    table = evaluate_models(models, options, new_console(stderr=as_json, soft_wrap=True))
    if out is not None:
        table.save(out)
    if as_json:
        say(json.dumps(table.as_dict(), indent=2, ensure_ascii=True))
    else:
        table.render(wide_console(), samples)
        if out is not None:
            say(f"\nwritten to {out}")
