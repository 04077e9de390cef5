"""The model card: README.md of an export, from what the run and export.json know. Nothing in it is not measured."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from toolkit.evaluation.results import repeated
from toolkit.exports import ExportRecord, named_gguf
from toolkit.recipe.schema import Recipe, SourceSection
from toolkit.words import counted


def model_card(record: ExportRecord, recipe: Recipe | None, summary: dict[str, Any] | None) -> str:
    """Markdown with the front matter that model hubs read. `summary` is the run's summary.json."""
    parts = [_front_matter(record), f"# {record.name}\n", _what(record), _files(record)]
    if recipe is not None:
        parts += [_training(record, recipe, summary), _data(recipe)]
    parts += [_use(record), _calls_read(record), _versions(record)]
    return "\n".join(part for part in parts if part)


def _front_matter(record: ExportRecord) -> str:
    lines = ["---"]
    if record.base.license:
        lines += [f"license: {record.base.license.lower()}"]
    lines += [f"base_model: {json.dumps(record.base.name)}"]
    if record.adapter:
        lines += ["base_model_relation: finetune", "pipeline_tag: text-generation", "tags: [tool-calling, lora]"]
    return "\n".join([*lines, "---", ""])


def _what(record: ExportRecord) -> str:
    licence = record.base.license or "not known to the toolkit; see the base model's own card"
    revision = f", revision {record.base.revision}" if record.base.revision else ""
    lines = [f"- Base model: {record.base.name}{revision}"]
    lines += [f"- Licence of the base model, which binds this one too: {licence}"]
    if record.lora is not None:
        lora = record.lora
        kind = ("rsLoRA" if lora["rslora"] else "LoRA") + (" with DoRA" if lora["dora"] else "")
        lines += [f"- Adapter: {kind}, r = {lora['r']}, alpha = {lora['alpha']:g}, on {lora['modules']} modules"]
        words = "as stored" if record.merge_base.base == "original" else "as NF4 training saw them (dequantised)"
        lines += [f"- Merged into the base weights {words}: {record.merge_base.reason}"]
    if record.data is not None:
        lines += [
            f"- Calls: {record.data.call_format} format, written by the chat template that every file here carries"
        ]
    return "\n".join([*lines, ""])


def _files(record: ExportRecord) -> str:
    rows = ["## Files", "", "| file | type | MB | sha256 |", "|---|---|---|---|"]
    rows += [f"| {one.name} | {one.type} | {one.bytes / 1e6:,.1f} | `{one.sha256[:16]}` |" for one in record.files]
    notes = [f"- {file.name}: {note}" for file in record.files for note in file.notes]
    return "\n".join([*rows, "", *notes, ""] if notes else [*rows, ""])


def _training(record: ExportRecord, recipe: Recipe, summary: dict[str, Any] | None) -> str:
    train = recipe.train
    lines = [
        "## Training",
        "",
        f"- epochs: {train.num_train_epochs:g}, of {counted(recipe.chats_per_update, 'chat')} an update, learning rate "
        f"{train.learning_rate:g} ({train.lr_scheduler_type}), up to {train.max_length:,} tokens a chat",
        f"- base weights held as {'NF4 with double quantisation' if record.load_in_4bit else '16 or 32 bits'}",
    ]
    if summary is not None:
        lines += [
            f"- {counted(summary['updates'], 'update')} on {counted(summary['chats'], 'chat')}, "
            f"{summary['seconds']:,.0f} seconds"
        ]
        if summary.get("last_eval_loss") is not None:
            first, last = summary["first_eval_loss"], summary["last_eval_loss"]
            lines += [f"- loss on held-out chats: {first:.3f} before, {last:.3f} after"]
        lines += _calls(summary)
    return "\n".join([*lines, ""])


def _calls(summary: dict[str, Any]) -> list[str]:
    """What became of held-out chats that the run decoded before and after, where it decoded any."""
    before, after = ((summary.get(key) or {}).get("overall") or {} for key in ("calls_before", "calls_after"))
    hidden = repeated([before, after])
    lines = []
    for name, rate in after.items():
        if rate["n"] and name not in hidden:
            was = before.get(name)
            earlier = f"{was['hits']} of {was['n']} before, " if was and was["n"] else ""
            lines.append(f"- {name.replace('_', ' ')}: {earlier}{rate['hits']} of {rate['n']} after, on held-out chats")
    return lines


def _data(recipe: Recipe) -> str:
    return "\n".join(["## Data", "", *(f"- {line}" for line in data_lines(recipe.data.sources)), ""])


def data_lines(sources: Iterable[SourceSection]) -> Iterable[str]:
    for source in sources:
        more = f", {source.size:,} chats, seed {source.seed}" if source.builtin else ""
        name = Path(source.source).name if "/" in source.source and Path(source.source).exists() else source.source
        yield f"{name} ({source.split}{more})"


def _use(record: ExportRecord) -> str:
    lines = ["## Use", ""]
    if (gguf := named_gguf(record.files)) is not None:
        lines += [f"- `toolkit chat {gguf.name}`, or llama.cpp: `llama-server -m {gguf.name} --jinja`"]
        lines += [f"- Ollama: `ollama create {record.name.lower()} -f Modelfile`, see the file"]
    if loras := [file.name for file in record.files if file.kind == "lora"]:
        lines += [f"- On a GGUF of the base model: `llama-server -m BASE.gguf --lora {loras[0]} --jinja`"]
    if record.merged is not None:
        lines += ["- transformers: the folder merged/"]
    if record.adapter is not None:
        lines += ["- PEFT: the folder adapter/, on the base model"]
    return "\n".join([*lines, ""])


def _calls_read(record: ExportRecord) -> str:
    if not record.calls_read_by:
        return ""
    rows = [f"| {runtime} | {told} |" for runtime, told in record.calls_read_by.items()]
    return "\n".join(["## Who reads its calls", "", "| runtime | calls |", "|---|---|", *rows, ""])


def _versions(record: ExportRecord) -> str:
    return "Made with " + ", ".join(f"{name} {version}" for name, version in record.versions.items()) + ".\n"
