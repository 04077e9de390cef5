"""`toolkit export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_run(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run folder, an adapter folder (its base as its adapter_config.json has it, or --base), or a "
            "model: folder, hub id or pypi: name.",
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
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The new folder; default: RUN/export, of others exports/NAME.")
    ] = None,
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

      toolkit export runs/mine --gguf q8_0,q4_k_m

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
