"""What a run says of itself: the lines at its start, and environment.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from toolkit import models
from toolkit.data.tokenizers import tokenizer_key
from toolkit.engines import EngineReport
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe
from toolkit.runs import RunFolder, command_line, sha256_of, write_json

if TYPE_CHECKING:
    from toolkit.data.table import TokenTable


@dataclass(slots=True)
class Tables:
    train: TokenTable
    evaluation: TokenTable | None


def describe_data(console: Console, recipe: Recipe, tables: Tables, total: int) -> None:
    """Print how many chats, tokens and updates there are."""
    table = tables.train
    tokens, trained = int(table.lengths.sum()), int(table.trained.sum())
    held_out = tables.evaluation.n_chats if tables.evaluation else 0
    console.print(
        f"chats      {table.n_chats:,} to train on, {held_out:,} held out; "
        f"{tokens:,} tokens, {trained / tokens:.1%} trained, {tokens / table.n_chats:.0f} a chat\n"
        f"updates    {total:,} of {recipe.chats_per_update} chats",
    )


def engine_lines(report: EngineReport) -> str:
    """What an engine did, as lines for the terminal."""
    lines = [
        f"model      {report.total:,} parameters frozen as {report.weights}, {report.trainable:,} trained in fp32",
        f"attention  {report.attention}",
    ]
    if report.patched:
        parts = ", ".join(f"{count} {part.upper()}" for part, count in report.patched.items())
        lines.append(f"fused      {parts} of {report.expected_layers} layers")
    return "\n".join(lines)


def write_environment(
    folder: RunFolder,
    recipe: Recipe,
    model_folder: Path,
    hardware: Hardware,
    report: EngineReport,
    tables: Tables,
    load_seconds: float,
) -> None:
    """Write environment.json: versions, hardware, engine and why, hashes of model and data."""
    weights = sorted(model_folder.glob("*.safetensors"))
    write_json(
        folder.environment,
        {
            "command": command_line(),
            "engine": report.as_dict(),
            "hardware": asdict(hardware),
            "model": {
                "name": recipe.model.name,
                "revision": recipe.model.revision,
                "license": models.license_of(recipe.model.name),
                "config_sha256": sha256_of(model_folder / "config.json"),
                "tokenizer_and_template_key": tokenizer_key(model_folder),
                "weights": {path.name: path.stat().st_size for path in weights},
                "load_seconds": round(load_seconds, 2),
            },
            "data": {
                "train_table_key": tables.train.key,
                "eval_table_key": tables.evaluation.key if tables.evaluation else None,
                "train": tables.train.meta,
                "eval": tables.evaluation.meta if tables.evaluation else None,
            },
        },
    )
