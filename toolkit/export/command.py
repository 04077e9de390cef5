"""`toolkit export`: what the command line says, made into a call of `export`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast, get_args

from toolkit.engines.recipes import load
from toolkit.errors import InputError, did_you_mean
from toolkit.export.export import DEFAULT_CHATS, DEFAULT_MINUTES, check_gate, export, verify_export
from toolkit.export.merge_base import Asked
from toolkit.exports import ExportFolder
from toolkit.terminal import new_console


def export_command(
    run: str,
    *,
    gguf: str | None,
    merge_base: str,
    out: Path | None,
    base: str | None,
    lora: bool,
    adapter_only: bool,
    merged: bool,
    verify: bool,
    chats: int | None,
    max_minutes: float | None,
    force: bool,
) -> None:
    """Export, and raise `ToolkitError` when the gate of the export report failed. Raises `InputError` as `export`."""
    if merge_base not in get_args(Asked):
        near = did_you_mean(merge_base, get_args(Asked)) or f", wanted {', '.join(get_args(Asked))}"
        raise InputError(f"--merge-base: {merge_base} is none{near}")
    if adapter_only and gguf:
        raise InputError("--adapter-only writes no merged model, so --gguf does not go with it; wanted --lora?")
    types = _types(run, gguf)
    folder = export(
        run,
        gguf=types,
        out=out,
        base=base,
        merge_base=cast(Asked, merge_base),
        lora=lora,
        adapter_only=adapter_only,
        merged=merged,
        verify=verify,
        chats=chats or DEFAULT_CHATS,
        max_minutes=max_minutes or DEFAULT_MINUTES,
        force=force,
    )
    check_gate(folder)


def verify_command(folder: str, *, chats: int | None, max_minutes: float | None) -> None:
    """Compare an export's files with the trained model again. Raises `ModelError` when the gate failed."""
    path = Path(folder).expanduser()
    if not (path / "export.json").is_file() and (path / "export" / "export.json").is_file():
        path = path / "export"
    console = new_console(soft_wrap=True)
    verify_export(ExportFolder(path), console, chats or DEFAULT_CHATS, max_minutes or DEFAULT_MINUTES)
    check_gate(ExportFolder(path))


def _types(run: str, gguf: str | None) -> list[str]:
    """The types named, else those of the run's recipe, else q8_0, which is small and close to the 16-bit model."""
    if gguf is not None:
        names = re.findall(r"[^\s,;]+", gguf)
        if not names:
            raise InputError("--gguf: wanted types, as q8_0,q4_k_m")
        return names
    recipe = Path(run).expanduser() / "recipe.toml"
    if recipe.is_file() and (named := load(recipe).recipe.export.gguf):
        return list(named)
    return ["q8_0"]
