"""What a run makes of a trained model: adapter/, the report and the export."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from toolkit import models
from toolkit.errors import ToolkitError
from toolkit.recipe.schema import Recipe
from toolkit.runs import RunFolder

if TYPE_CHECKING:
    from toolkit.data.render import Renderer


def write_page(folder: RunFolder, console: Console) -> None:
    """Write report.html. The adapter is there already, so what stands in the way is only said."""
    from toolkit.reports.report import write_report

    try:
        write_report([folder.path], folder.report)
    except (OSError, ToolkitError) as error:
        console.print(f"report     not written: {error}", markup=False)
    else:
        console.print(f"report     {folder.report}")


def export_run(recipe: Recipe, folder: RunFolder, console: Console) -> None:
    """What the recipe's [export] asks for. Raises `ToolkitError` when the files are not the trained model."""
    from toolkit.export.export import check_gate, export

    gc.collect()
    settings = recipe.export
    try:
        done = export(
            folder.path,
            gguf=settings.gguf,
            merge_base=settings.merge_base,
            chats=settings.chats,
            max_minutes=settings.max_minutes,
            console=console,
        )
    except ToolkitError as error:
        again = f"toolkit export {folder.path} --gguf {','.join(settings.gguf)}"
        raise ToolkitError(f"{error}\nthe run itself is finished and kept; export again with: {again}") from None
    check_gate(done)


def save_adapter(model: Any, folder: RunFolder, recipe: Recipe, model_folder: Path, renderer: Renderer) -> None:
    """Write adapter/ in PEFT's format, whole or not at all, naming the base model as the recipe does.

    The tokenizer lies beside it, with the chat template that the adapter was trained with.
    """
    from toolkit.data.tokenizers import copy_tokenizer
    from toolkit.training.saving import SPARE, adapter_bytes, saving

    work = folder.path / ".adapter.part"
    shutil.rmtree(work, ignore_errors=True)
    base = str(model_folder) if models.is_local(recipe.model.name) or ":" in recipe.model.name else recipe.model.name
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
        config.revision = recipe.model.revision
    try:
        with saving(work, adapter_bytes(model) + SPARE, "the adapter"):
            model.save_pretrained(work, save_embedding_layers=False)
            copy_tokenizer(model_folder, work, renderer.carried)
        shutil.rmtree(folder.adapter, ignore_errors=True)
        work.rename(folder.adapter)
    finally:
        shutil.rmtree(work, ignore_errors=True)
