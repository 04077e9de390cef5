"""What a run makes of a trained model: adapter/, the report and the export."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from toolkit import models
from toolkit.data.render import Renderer
from toolkit.data.tokenizers import copy_tokenizer
from toolkit.errors import InterruptedRun, RunError, ToolkitError
from toolkit.export.export import check_gate, export, verify_export
from toolkit.exports import ExportFolder
from toolkit.files import flush, remove
from toolkit.hashes import sha256_of
from toolkit.manifest import write_manifest
from toolkit.recipe.schema import Recipe
from toolkit.records import read_object, write_json
from toolkit.reports.report import write_report
from toolkit.runs import ADAPTER, RunFolder
from toolkit.training.disk_full import SPARE, adapter_bytes, saving
from toolkit.words import typed


def complete(
    recipe: Recipe, folder: RunFolder, console: Console, *, exporting: bool, command: str, trained: bool = True
) -> None:
    """Make the report, the export where there is to be one, and the mark that all is there.

    After training (`trained`) the report is made in any case; else only what is missing is, and `RunError` raised where
    nothing is. `command` goes on with this run. Raises `ToolkitError` when the export is not the trained model.
    """
    done = {} if trained else _done(folder)
    page = "is of before" if trained else _page_lacks(folder, done)
    export = _export_lacks(folder, done) if exporting else ""
    lacks = [f"{name} {why}" for name, why in ((folder.report.name, page), (f"{folder.export.name}/", export)) if why]
    if not trained and lacks:
        console.print(f"finishing  {folder.path}: {'; '.join(lacks)}", markup=False)
    with going_on(command):
        if page:
            write_page(folder, console)
        if export:
            export_run(recipe, folder, console, anew=export != UNVERIFIED)
    made = ExportFolder(folder.export)
    if lacks or not done:
        status = made.record().status if exporting and made.path.is_dir() else None
        write_json(folder.done, {"finished": datetime.now(UTC).isoformat(timespec="seconds"), "export": status})
    if export:
        check_gate(made)
    if not lacks:
        failed = f" (its export is not the trained model: see {made.failed})" if made.failed.is_file() else ""
        raise RunError(f"{folder.path}: this run is finished; nothing to resume{failed}")


@contextlib.contextmanager
def going_on(command: str) -> Iterator[None]:
    """Ctrl-C within says what goes on with the run."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRun(f"stopped; what was finished is kept; go on with: {command}") from None


class Beginning(contextlib.AbstractContextManager["Beginning"]):
    """All that comes before a run can be gone on with, until it is `over`: Ctrl-C within says that nothing is lost."""

    def __init__(self, resumed: bool) -> None:
        self.over = False
        self._kept = "the run is as it was" if resumed else "no run folder was written"

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is KeyboardInterrupt and not self.over:
            again = "the same command begins again, and finds the model and token tables that were finished"
            raise InterruptedRun(f"stopped before training: {self._kept}; {again}") from None


def write_page(folder: RunFolder, console: Console) -> None:
    """Write report.html. The adapter is there already, so what stands in the way is only said."""
    try:
        write_report([folder.path], folder.report)
    except (OSError, ToolkitError) as error:
        console.print(f"report     not written: {error}", markup=False)
    else:
        console.print(f"report     {folder.report}", markup=False)


def _done(folder: RunFolder) -> dict[str, Any]:
    try:
        return read_object(folder.done)
    except RunError:
        return {}  # then what is there is looked at


def _page_lacks(folder: RunFolder, done: dict[str, Any]) -> str:
    """Why report.html is to be written; one that was there and is gone was taken away."""
    if not folder.report.is_file():
        return "" if done else "is missing"
    end = folder.report.read_bytes()[-200:]
    return "" if end.rstrip().endswith(b"</html>") else "is cut short"


UNVERIFIED = "was not compared with the trained model yet"


def _export_lacks(folder: RunFolder, done: dict[str, Any]) -> str:
    """Why the export is to be made; one that was there and is gone was taken away."""
    export = ExportFolder(folder.export)
    if not export.path.is_dir() or not any(export.path.iterdir()):
        return "" if done.get("export") else "is missing"
    try:
        record = export.record()
    except RunError as error:
        return f"is half-made ({error})"
    for file in record.files:
        path = export.path / file.name
        if not path.is_file() or path.stat().st_size != file.bytes or sha256_of(path) != file.sha256:
            return f"is damaged ({file.name} is not what was written)"
    ours, theirs = (place / ADAPTER[1] for place in (folder.adapter, export.adapter))
    if theirs.is_file() and sha256_of(theirs) != sha256_of(ours):
        return "is of another adapter"
    return UNVERIFIED if record.status == "unverified" else ""


def export_run(recipe: Recipe, folder: RunFolder, console: Console, *, anew: bool = True) -> None:
    """Make what the recipe's [export] asks for, in the place of an older one; or only compare the files that are there.

    Raises `ToolkitError` where it could not be made.
    """
    gc.collect()
    settings = recipe.export
    try:
        if anew:
            export(
                folder.path,
                gguf=settings.gguf,
                merge_base=settings.merge_base,
                chats=settings.chats,
                max_minutes=settings.max_minutes,
                force=True,
                console=console,
            )
        else:
            verify_export(ExportFolder(folder.export), console, settings.chats, settings.max_minutes)
    except ToolkitError as error:
        again = typed("export", folder.path, "--gguf", ",".join(settings.gguf))
        raise ToolkitError(f"{error}\nthe run itself is finished and kept; export again with: {again}") from None


def save_adapter(model: Any, folder: RunFolder, recipe: Recipe, model_folder: Path, renderer: Renderer) -> None:
    """Write adapter/ in PEFT's format, whole or not at all, naming the base model as the recipe does.

    The tokenizer lies beside it, with the chat template that the adapter was trained with.
    """
    work = folder.path / ".adapter.part"
    remove(work)
    base = str(model_folder) if models.is_local(recipe.model.name) or ":" in recipe.model.name else recipe.model.name
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
        config.revision = recipe.model.commit or recipe.model.revision
    try:
        with saving(work, adapter_bytes(model) + SPARE, "the adapter"):
            model.save_pretrained(work, save_embedding_layers=False)
            copy_tokenizer(model_folder, work, renderer.carried)
            write_manifest(work)
        remove(folder.adapter)
        work.rename(folder.adapter)
        flush(folder.path)
    finally:
        remove(work)
