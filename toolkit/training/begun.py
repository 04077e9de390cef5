"""What a run that goes on began with: its engine, its chat template, its data."""

from __future__ import annotations

import json
from typing import Any

from toolkit.data.template import ChatTemplate, Rendering, compose, own_template
from toolkit.errors import RunError
from toolkit.recipe.schema import Recipe
from toolkit.runs import RunFolder
from toolkit.training.record import Tables, described_table, sample_rows

# of a token table's meta: with the rows in samples.json, what tells the tokens of tables from before their content
# was hashed
_COUNTS = ("chats", "rows", "tokens", "trained_tokens", "tokens_by_role", "longest_row", "kinds", "lengths")


def environment_of(folder: RunFolder) -> dict[str, Any] | None:
    """What was written when the run began; None where it came to nothing."""
    if not folder.environment.is_file():
        return None
    found: dict[str, Any] = json.loads(folder.environment.read_text(encoding="utf-8"))
    return found


def engine_of(folder: RunFolder) -> str | None:
    """The engine of a run that is to go on: what is the fastest here may have changed since."""
    before = environment_of(folder)
    return str(before["engine"]["engine"]["value"]) if before else None


def template_of(recipe: Recipe, tokenizer: Any, folder: RunFolder | None) -> tuple[ChatTemplate, bool]:
    """The template that a run renders with, and whether it is another than the recipe makes now.

    `folder` is that of a run that goes on: it renders as it began. Raises `DataError`.
    """
    rendering = Rendering.of(recipe.data)
    made = ChatTemplate.of(compose(tokenizer, rendering))
    if folder is None or environment_of(folder) is None:
        return made, False
    kept = ChatTemplate.read(folder.path, rendering)
    if kept is None or kept == made or (kept.text is None and rendering.call_format == "native"):
        return made, False
    return kept, True


def template_line(recipe: Recipe, tokenizer: Any) -> str:
    """What is said of the template before training: which one it is, where the tokenizer has several."""
    call_format = recipe.data.call_format
    _, name = own_template(tokenizer, call_format)
    if not name:
        return ""
    others = ", ".join(sorted(other for other in tokenizer.chat_template if other != name))
    told = f"{name}, for all chats" + (f" (the tokenizer has {others} too)" if others else "")
    return f"template   {told}; the model is saved and exported with this one"


def check_data(folder: RunFolder, tables: Tables) -> None:
    """Raise `RunError` when the chats or their tokens are not those that the run began with."""
    environment = environment_of(folder)
    if environment is None:
        return
    data = environment["data"]
    before, now = data["train"], described_table(tables.train)
    if data["train_table_key"] == tables.train.key or same_tokens(folder, before, now, tables):
        return
    raise RunError(
        f"{folder.path}: the training data, tokenizer or toolkit has changed since this run began (token table "
        f"{data['train_table_key']} then, {tables.train.key} now); that would be another run: start one with --out"
    )


def same_tokens(folder: RunFolder, before: dict[str, Any], now: dict[str, Any], tables: Tables) -> bool:
    """Whether a table made by another version of the toolkit holds what this one holds."""
    if "content" in before:
        return bool(before["content"] == now["content"])
    if any(before.get(name) != now.get(name) for name in _COUNTS) or not folder.samples.is_file():
        return False
    kept = json.loads(folder.samples.read_text(encoding="utf-8"))
    made = sample_rows(tables.train)
    return [(one["ids"], one["trained"]) for one in kept] == [(one["ids"], one["trained"]) for one in made]
