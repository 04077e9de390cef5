"""What a run that goes on began with: its engine, its chat template, its data."""

from __future__ import annotations

from typing import Any

from toolkit.data.compose import compose
from toolkit.data.template import ChatTemplate, Rendering, own_template
from toolkit.errors import RunError
from toolkit.hashes import sha256_of, sha256_of_text
from toolkit.recipe.schema import Recipe
from toolkit.records import read_list
from toolkit.runs import RunFolder
from toolkit.training.prepared import Tables
from toolkit.training.record import described_table, sample_rows

# of a token table's meta: with the rows in samples.json, what tells the tokens of tables from before their content
# was hashed
_COUNTS = ("chats", "rows", "tokens", "trained_tokens", "tokens_by_role", "longest_row", "kinds", "lengths")


def engine_of(environment: dict[str, Any]) -> str | None:
    """The engine of a run that is to go on: what is the fastest here may have changed since."""
    return str(environment["engine"]["engine"]["value"]) if environment else None


def template_of(
    recipe: Recipe, tokenizer: Any, folder: RunFolder | None, environment: dict[str, Any] | None
) -> tuple[ChatTemplate, bool]:
    """The template that a run renders with, and whether it is another than the recipe makes now.

    `folder` and `environment` are those of a run that goes on: it renders as it began. A template that was damaged
    since is that of the recipe again where this is the one that the run began with. Raises `DataError` and `RunError`.
    """
    rendering = Rendering.of(recipe.data)
    made = ChatTemplate.of(compose(tokenizer, rendering))
    if folder is None or not environment:
        return made, False
    wanted = environment["data"].get("template_sha256")
    if wanted is not None and (not folder.template.is_file() or sha256_of(folder.template) != wanted):
        if made.text is not None and sha256_of_text(made.text) == wanted:
            return made, False
        raise RunError(
            f"{folder.template}: not the chat template that this run began with, and this toolkit makes another; "
            "put it back from a copy, or start another run with --out"
        )
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


def check_data(folder: RunFolder, environment: dict[str, Any], tables: Tables) -> None:
    """Raise `RunError` when the chats or their tokens are not those that the run began with.

    `environment`: what was written when it began; empty where that is lost.
    """
    if not environment:
        return
    data = environment["data"]
    same = (
        data.get("train_table_content") == tables.train.content
        or data["train_table_key"] == tables.train.key
        or ("train_table_content" not in data and same_tokens(folder, data["train"], tables))
    )
    if not same:
        raise RunError(
            f"{folder.path}: the training data, tokenizer or toolkit has changed since this run began (token table "
            f"{data['train_table_key']} then, {tables.train.key} now); that would be another run: start one with --out"
        )
    held_out = data.get("eval_table_content")
    if held_out is not None and tables.evaluation is not None and held_out != tables.evaluation.content:
        raise RunError(
            f"{folder.path}: the held-out chats are others than when this run began (their tokens' hash is "
            f"{tables.evaluation.content}, {held_out} wanted); that would be another run: start one with --out"
        )


def same_tokens(folder: RunFolder, before: dict[str, Any], tables: Tables) -> bool:
    """Whether a table of which only counts and samples were kept holds what this one holds."""
    now = described_table(tables.train)
    if any(before.get(name) != now.get(name) for name in _COUNTS):
        return False
    kept = read_list(folder.samples)
    made = sample_rows(tables.train)
    return [(one["ids"], one["trained"]) for one in kept] == [(one["ids"], one["trained"]) for one in made]
