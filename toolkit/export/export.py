"""`toolkit export`: from a run folder to files that run elsewhere, and to the proof that they are the trained model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from toolkit import __version__, models
from toolkit.data.render import Renderer
from toolkit.data.template import FILE, own_template, templated
from toolkit.data.tokenizers import copy_tokenizer, load_tokenizer
from toolkit.errors import RunError, ToolkitError
from toolkit.export import card, ollama
from toolkit.export import merge_base as bases
from toolkit.export.adapter import open_adapter
from toolkit.export.architecture import Architecture, read_architecture
from toolkit.export.destination import being_compared, followed, new_folder, require_free
from toolkit.export.lora import check_lora, write_lora
from toolkit.export.merge import Merged, open_merged
from toolkit.export.merged import write_merged
from toolkit.export.preflight import preflight, require_export_space
from toolkit.export.quantize import quant_type, quantize_gguf
from toolkit.export.runtime_parsers import gaps_of, read_by
from toolkit.export.source import Source, find_source
from toolkit.export.tokenizer import read_tokenizer
from toolkit.export.verify import verify
from toolkit.export.writer import Float16OverflowError, Metadata, Type16, write_gguf
from toolkit.exports import (
    BaseRecord,
    DataRecord,
    ExportFolder,
    ExportRecord,
    FileKind,
    FileRecord,
    MergeRecord,
    named_gguf,
)
from toolkit.files import clear_all_leftovers
from toolkit.hashes import sha256_of
from toolkit.models.families import left_out
from toolkit.progress import Bar
from toolkit.runs import ADAPTER, command_line
from toolkit.terminal import clean, new_console
from toolkit.versions import installed, version_of

DEFAULT_CHATS, DEFAULT_MINUTES = 24, 10.0
_SIXTEEN = ("F16", "BF16")
_PACKAGES = ("gguf", "libgguf", "xllamacpp", "torch", "transformers", "peft")


def export(
    what: Path | str,
    *,
    gguf: Sequence[str] = (),
    out: Path | None = None,
    base: str | None = None,
    merge_base: bases.Asked = "auto",
    lora: bool = False,
    adapter_only: bool = False,
    merged: bool = True,
    verify: bool = True,
    chats: int = DEFAULT_CHATS,
    max_minutes: float = DEFAULT_MINUTES,
    force: bool = False,
    console: Console | None = None,
) -> ExportFolder:
    """Export a run, an adapter with its `base`, or a model alone, into a new folder (default: RUN/export).

    `gguf` are types as `q8_0`; `lora` adds the adapter alone as a GGUF, `adapter_only` writes nothing else. `force`
    puts the new folder in the place of an older export, which stays until the new one is whole. `chats` and
    `max_minutes` bound the comparison with the trained model that `verify` asks for.
    The folder appears whole or not at all. Raises an `InputError` for input that can't be exported, before any work,
    and `ToolkitError` when the disk is too small. Where `verify` finds that the files are not the trained model, they
    are kept, and export.json and FAILED.txt say so: look at the record's `status`.
    """
    console = console or new_console(soft_wrap=True)
    source = find_source(str(what), base)
    target = followed((out or _default_target(source)).expanduser())
    notes = preflight(source.base, [] if adapter_only else gguf)
    require_free(target, force=force)
    types = [] if adapter_only else list(dict.fromkeys(quant_type(name) for name in gguf))
    architecture = read_architecture(source.base)
    adapter = open_adapter(source.adapter, architecture) if source.adapter is not None else None
    if lora or adapter_only:
        if adapter is None:
            raise RunError(f"{what}: a model without an adapter has no LoRA GGUF; leave --lora and --adapter-only out")
        check_lora(adapter)
    elif not types and not merged:
        raise RunError("nothing to export: name types with --gguf, or leave --no-merged out")
    whole = merged and not adapter_only
    require_export_space(target, architecture, [one.lower() for one in types], merged=whole)
    if adapter_only:
        choice = MergeRecord(merge_base, "original", "the adapter alone: nothing was merged")
    else:
        choice = bases.choose(
            merge_base,
            load_in_4bit=source.load_in_4bit,
            held_dtype=source.held_dtype,
            base=source.base,
            adapter=source.adapter,
            recipe=source.recipe,
            template=source.template,
            day=source.day,
            say=console.print,
        )
    notes += filter(None, (source.note, left_out(source.model)))
    for note in notes:
        console.print(f"note       {note}")
    if adapter is not None and not adapter_only:
        console.print(f"base       {choice.base}: {choice.reason}")
    record = _record(source, architecture, choice, adapter.summary() if adapter else None, notes)
    with new_folder(target, replace=force) as folder:
        work = _Work(source, architecture, choice, folder, record, console)
        if adapter is not None:
            shutil.copytree(adapter.folder, folder / "adapter")
            copy_tokenizer(source.base, folder / "adapter", work.template)
        if whole:
            work.merged()
        if types:
            work.ggufs(types)
        if lora or adapter_only:
            work.lora()
        work.papers()
        record.save(folder)
    console.print(f"export     {target}")
    result = ExportFolder(target)
    if verify and types:
        verify_export(result, console, chats, max_minutes)
    return result


@dataclass(slots=True)
class _Work:
    """The files of one export, written into a folder that is not yet in its place."""

    source: Source
    architecture: Architecture
    choice: MergeRecord
    folder: Path
    record: ExportRecord
    console: Console
    weights: Merged = field(init=False)
    template: str = field(init=False)

    def __post_init__(self) -> None:
        self.template = carried_template(self.source)
        self.weights = open_merged(
            self.source.base,
            self.source.adapter,
            dequant=self.choice.base == "dequant",
            held_dtype=self.choice.held_dtype or "bfloat16",
        )

    @property
    def _size(self) -> int:
        """Bytes of all weights in float32, which progress is counted in."""
        return 4 * self.architecture.shape.parameters

    def merged(self) -> None:
        """merged/ in the base's own 16-bit type, or bfloat16 where it has none or float16 is too small."""
        dtype = self.architecture.dtype if self.architecture.dtype in ("bfloat16", "float16") else "bfloat16"
        started = time.perf_counter()
        place = self.folder / "merged"
        try:
            with Bar(self.console, "merged/", self._size, amount="share") as bar:
                files = write_merged(place, self.weights, self.source.base, dtype, bar.advance)
        except Float16OverflowError as error:
            shutil.rmtree(place)
            self._note(f"merged/ is bfloat16: {error}")
            dtype = "bfloat16"
            with Bar(self.console, "merged/", self._size, amount="share") as bar:
                files = write_merged(place, self.weights, self.source.base, dtype, bar.advance)
        copy_tokenizer(self.source.base, place, self.template)
        self.record.merged = {"folder": "merged", "dtype": dtype}
        kind = "BF16" if dtype == "bfloat16" else "F16"
        for path in files:
            self._add(path, "merged", kind, "toolkit", started)

    def ggufs(self, types: Sequence[str]) -> None:
        """The GGUFs asked for: 16-bit ones from the weights, the others from a 16-bit one."""
        quants = [one for one in types if one not in _SIXTEEN]
        made = {one: self._sixteen(one, self._path(one)) for one in _SIXTEEN if one in types}
        if not quants:
            return
        scratch = self.folder / ".source16.gguf"
        if made:
            kind, source16 = next(iter(made.items()))
        else:
            kind, source16 = self._scratch16(scratch)
        self.record.source16 = kind
        for quant in quants:
            target = self._path(quant)
            started = time.perf_counter()
            with Bar(self.console, target.name, self._size, amount="share") as bar:
                done = quantize_gguf(source16, target, quant, bar.advance)
            self._add(target, "gguf", quant, done.backend, started, done.tensor_types, done.notes)
        scratch.unlink(missing_ok=True)

    def _sixteen(self, kind: str, path: Path) -> Path:
        started = time.perf_counter()
        types = self._write16(cast(Type16, kind), path)
        self._add(path, "gguf", kind, f"torch, gguf {version_of('gguf')}", started, types)
        return path

    def _scratch16(self, path: Path) -> tuple[str, Path]:
        """The file that quants are made from when none was asked for: float16, which rounds less, if it fits."""
        try:
            self._write16("F16", path)
        except Float16OverflowError as error:
            self._note(f"quants are made from BF16: {error}")
            path.unlink()
            self._write16("BF16", path)
            return "BF16", path
        return "F16", path

    def _write16(self, kind: Type16, path: Path) -> dict[str, int]:
        tokenizer = read_tokenizer(self.source.base, self.architecture.shape.vocab_size)
        tokenizer = replace(tokenizer, template=self.template)
        with Bar(self.console, path.name, self._size, amount="share") as bar:
            return write_gguf(path, self.weights, tokenizer, self._metadata, kind, bar.advance)

    def lora(self) -> None:
        """The adapter alone."""
        adapter = self.weights.adapter
        if adapter is None:
            raise RunError(f"{self.source.name}: there is no adapter")
        path = self._path("lora-F16")
        started = time.perf_counter()
        types = write_lora(path, adapter, self.architecture, self._metadata)
        self._add(path, "lora", "F16", f"torch, gguf {version_of('gguf')}", started, types)

    def papers(self) -> None:
        """chat_template.jinja, Modelfile, README.md and the tools that the run's chats had on offer."""
        if self.source.template is not None and self.source.template.text is not None:
            (self.folder / FILE).write_text(self.source.template.text, encoding="utf-8")
        if self.source.run is not None and self.source.run.tools.is_file():
            shutil.copyfile(self.source.run.tools, self.folder / self.source.run.tools.name)
        tokenizer = templated(load_tokenizer(self.source.base), self.template)
        self.record.calls_read_by = read_by(tokenizer)
        if gaps := gaps_of(self.record.calls_read_by):
            self._note(gaps)
        if (chosen := named_gguf(self.record.files)) is not None:
            text = ollama.modelfile(
                self.folder / chosen.name,
                tokenizer,
                max_length=self.record.max_length,
                context=self.architecture.context_length,
            )
            (self.folder / "Modelfile").write_text(text, encoding="utf-8")
        text = card.model_card(self.record, self.source.recipe, self.source.summary())
        (self.folder / "README.md").write_text(clean(text), encoding="utf-8")
        self.record.beside = self._beside()

    def _beside(self) -> dict[str, str]:
        """SHA-256 of what decides how the files are used: the chat template, what the merged model has beside its
        weights, and the adapter's own configuration. Modelfile and README.md are for users to change."""
        known = {file.name for file in self.record.files}
        paths = [self.folder / FILE, self.folder / "adapter" / ADAPTER[0], *sorted((self.folder / "merged").rglob("*"))]
        names = {str(path.relative_to(self.folder)): path for path in paths if path.is_file()}
        return {name: sha256_of(path) for name, path in names.items() if name not in known}

    @property
    def _metadata(self) -> Metadata:
        return Metadata(self.record.name, self.record.base.license, self.record.base.name)

    def _path(self, kind: str) -> Path:
        return self.folder / f"{self.record.name}-{kind}.gguf"

    def _note(self, text: str) -> None:
        self.record.notes.append(text)
        self.console.print(f"note       {text}")

    def _add(
        self,
        path: Path,
        kind: FileKind,
        type_name: str,
        backend: str,
        started: float,
        tensor_types: dict[str, int] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        seconds = time.perf_counter() - started
        name, size, digest = str(path.relative_to(self.folder)), path.stat().st_size, sha256_of(path)
        self.record.files.append(
            FileRecord(name, kind, type_name, digest, size, backend, round(seconds, 2), tensor_types or {}, list(notes))
        )
        self.console.print(f"wrote      {name}  {size / 1e6:,.1f} MB in {seconds:.1f} s by {backend}")
        for note in notes:
            self.console.print(f"note       {note}")


def _record(
    source: Source, architecture: Architecture, choice: MergeRecord, lora: dict[str, Any] | None, notes: list[str]
) -> ExportRecord:
    recipe = source.recipe
    rendering = source.template.rendering if source.template is not None else None
    return ExportRecord(
        name=source.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_line(),
        run=str(source.run.path.resolve()) if source.run else None,
        recipe=str(source.run.recipe.resolve()) if source.run else None,
        adapter=str(source.adapter.resolve()) if source.adapter else None,
        base=BaseRecord(
            name=source.model.name,
            revision=source.model.commit or source.model.revision,
            folder=str(source.base.resolve()),
            license=models.license_of(source.model.name),
            architecture=architecture.class_name,
            arch=architecture.arch,
        ),
        tokenizer={
            "folder": str(source.base.resolve()),
            "pre": read_tokenizer(source.base, architecture.shape.vocab_size).pre,
        },
        data=DataRecord(rendering.call_format, rendering.tool_prompt, rendering.thinking, source.day)
        if rendering
        else None,
        max_length=recipe.train.max_length if recipe else None,
        load_in_4bit=source.load_in_4bit,
        merge_base=choice,
        lora=lora,
        merged=None,
        source16=None,
        files=[],
        notes=list(notes),
        versions={"toolkit": __version__, **installed(_PACKAGES)},
    )


def carried_template(source: Source) -> str:
    """The chat template that every file of an export carries: the one that its chats were trained with.

    Raises `DataError` when there is none, or it can't be understood.
    """
    tokenizer = load_tokenizer(source.base)
    if source.template is None:
        return own_template(tokenizer, "native")[0]
    return Renderer.by(tokenizer, source.template).carried


def _default_target(source: Source) -> Path:
    return source.run.path / "export" if source.run is not None else Path("exports") / source.name


def verify_export(folder: ExportFolder, console: Console, chats: int, max_minutes: float) -> None:
    """Compare the files with the trained model, and write down what came of it: the report, the status, FAILED.txt.

    Raises `RunError` where another command compares or replaces them.
    """
    with being_compared(folder.path):
        clear_all_leftovers(folder.path)  # of one that was killed as it wrote them
        report = verify(folder.path, chats=chats, max_minutes=max_minutes, console=console)
        record = folder.record()
        record.status = "passed" if report.passed else "failed"
        record.save(folder.path)
        folder.failed.unlink(missing_ok=True)
        if not report.passed:
            folder.failed.write_text("\n".join(report.lines) + "\n", encoding="utf-8")


def check_gate(folder: ExportFolder) -> None:
    """Raise `ToolkitError` when the export's gate failed; the files are kept."""
    if folder.record().status == "failed":
        raise ToolkitError(f"{folder.path}: not shown to be the trained model, see {folder.failed}; the files are kept")
