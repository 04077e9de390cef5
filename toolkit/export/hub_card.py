"""README.md of a model repository: what it is, how it did on held-out chats, and how to use it from where it lies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.evaluation.results import LABELS, shown
from toolkit.export.card import data_lines
from toolkit.exports import ExportRecord, FileRecord, named_gguf
from toolkit.recipe.schema import Recipe
from toolkit.words import counted


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a repository will hold. `base`: the base model's id on the hub; `files`: (path, bytes, sha256)."""

    repo: str
    name: str
    base: str
    base_note: str
    license: str | None
    recipe: Recipe
    summary: Mapping[str, Any]
    record: ExportRecord | None
    files: Sequence[tuple[str, int, str]]

    @property
    def ggufs(self) -> list[FileRecord]:
        """Its GGUF files, in the order they were written."""
        names = {path for path, _, _ in self.files}
        return [one for one in (self.record.files if self.record else ()) if one.kind == "gguf" and one.name in names]

    @property
    def merged(self) -> bool:
        return any(path.startswith("merged/") for path, _, _ in self.files)


def hub_card(pushed: Pushed) -> str:
    """Markdown with the front matter that the hub reads."""
    parts = [_front_matter(pushed), _what(pushed), _evaluated(pushed), _use(pushed), _training(pushed), _files(pushed)]
    return "\n".join(part for part in parts if part)


def _front_matter(pushed: Pushed) -> str:
    tags = ["lora", "sft", "tool-calling", *(["gguf"] if pushed.ggufs else [])]
    lines = [f"license: {pushed.license.lower()}"] if pushed.license else []
    lines += [f"base_model: {pushed.base}", "base_model_relation: adapter", "library_name: peft"]
    return "\n".join(["---", *lines, "pipeline_tag: text-generation", f"tags: [{', '.join(tags)}]", "---", ""])


def _what(pushed: Pushed) -> str:
    lora = pushed.recipe.lora
    calls = pushed.recipe.data.call_format
    lines = [
        f"# {pushed.name}",
        "",
        f"A LoRA adapter (r = {lora.r}, alpha = {lora.lora_alpha:g}) on {pushed.base}"
        f"{pushed.base_note}, trained on {counted(pushed.summary['chats'], 'chat')}.",
    ]
    if not pushed.license:
        lines += ["", "The licence of the base model binds this one too; see its own card."]
    if calls != "native":
        lines += ["", f"Its calls are in the format `{calls}`, which the chat template here writes and explains."]
    return "\n".join([*lines, ""])


def _evaluated(pushed: Pushed) -> str:
    before, after = ((pushed.summary.get(key) or {}).get("overall") or {} for key in ("calls_before", "calls_after"))
    labels = {"correct": "right answers"} | {measure: LABELS[measure] for measure in shown([before, after])}
    rows = [
        f"| {label} | {_rate(before.get(measure))} | {_rate(after.get(measure))} |"
        for measure, label in labels.items()
        if (after.get(measure) or {}).get("n")
    ]
    lines = []
    if rows:
        turns = counted(pushed.summary["calls_after"].get("turns") or 0, "held-out chat")
        lines += [
            f"On {turns}, greedy, with 95% intervals:",
            "",
            "| | base model | this model |",
            "|---|---|---|",
            *rows,
            "",
        ]
    first, last = pushed.summary.get("first_eval_loss"), pushed.summary.get("last_eval_loss")
    if first is not None and last is not None:
        lines += [f"Loss on held-out chats: {first:.3f} before training, {last:.3f} after.", ""]
    return "\n".join(["## How it does", "", *lines]) if lines else ""


def _rate(rate: Mapping[str, Any] | None) -> str:
    if not rate or not rate.get("n") or rate.get("share") is None:
        return ""
    return f"{rate['hits']:g} of {rate['n']}, {rate['share']:.0%} ({rate['low']:.0%} to {rate['high']:.0%})"


def _use(pushed: Pushed) -> str:
    lines = ["## Use", "", "With transformers and PEFT:", "", "```python", _PYTHON.format(repo=pushed.repo), "```", ""]
    if pushed.merged:
        load = f'AutoModelForCausalLM.from_pretrained("{pushed.repo}", subfolder="merged", dtype="auto")'
        lines += [f"Merged 16-bit weights, without PEFT: `{load}`", ""]
    if (named := named_gguf(pushed.ggufs)) is not None:
        lines += [
            f"llama.cpp ({', '.join(file.type for file in pushed.ggufs)}):",
            "",
            f"    llama-server -hf {pushed.repo}:{named.type} --jinja",
            "",
            "Ollama, with the Modelfile that has the template for calls:",
            "",
            f"    hf download {pushed.repo} --include '*.gguf' --include Modelfile --local-dir {pushed.name}",
            f"    cd {pushed.name} && ollama create {pushed.name.lower()} -f Modelfile",
            "",
        ]
    if pushed.record is not None and pushed.record.calls_read_by:
        rows = [f"| {runtime} | {told} |" for runtime, told in pushed.record.calls_read_by.items()]
        lines += ["Who reads its calls:", "", "| runtime | calls |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _training(pushed: Pushed) -> str:
    train, summary = pushed.recipe.train, pushed.summary
    lines = [
        "## Training",
        "",
        f"- {counted(summary['updates'], 'update')} of {counted(pushed.recipe.chats_per_update, 'chat')}, "
        f"learning rate {train.learning_rate:g} ({train.lr_scheduler_type}), up to {train.max_length:,} tokens a chat, "
        f"{summary['seconds']:,.0f} seconds",
        f"- base weights held as {'NF4' if pushed.recipe.model.load_in_4bit else '16 or 32 bits'}",
        *(f"- data: {line}" for line in data_lines(pushed.recipe.data.sources)),
    ]
    return "\n".join([*lines, ""])


def _files(pushed: Pushed) -> str:
    large = [(path, size, sha) for path, size, sha in pushed.files if path.endswith((".safetensors", ".gguf"))]
    rows = [f"| {path} | {size / 1e6:,.1f} | `{sha}` |" for path, size, sha in large]
    return "\n".join(["## Files", "", "| file | MB | sha256 |", "|---|---|---|", *rows, ""])


def manifest(pushed: Pushed) -> str:
    """toolkit.json: what was pushed, by which a later push knows its own files."""
    files = {path: sha for path, _, sha in pushed.files}
    return json.dumps({"name": pushed.name, "base": pushed.base, "files": files}, indent=1) + "\n"


_PYTHON = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repo}")
model = AutoPeftModelForCausalLM.from_pretrained("{repo}", dtype="auto", device_map="auto")
messages = [{{"role": "user", "content": "What is 2 plus 3?"}}]
prompt = tokenizer.apply_chat_template(
    messages, tools=None, add_generation_prompt=True, return_dict=True, return_tensors="pt"
).to(model.device)
answer = model.generate(**prompt, max_new_tokens=64)
print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :]))"""
