"""What a run trains: its chats as tokens, and its model with an adapter. A verification makes both the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit import engines
from toolkit.data.held_out import parts_of
from toolkit.data.table import build
from toolkit.data.template import ChatTemplate
from toolkit.engines import Choice, Loaded
from toolkit.errors import EngineError
from toolkit.hardware import Hardware
from toolkit.planning.budget import Budget
from toolkit.recipe.schema import Recipe
from toolkit.training.out_of_memory import out_of_memory
from toolkit.training.prepared import Tables


def tables_of(recipe: Recipe, model_folder: Path, template: ChatTemplate | None, day: str = "") -> Tables:
    """The token tables of what is trained on and of what is held out; `template` renders in place of the recipe's, and
    writes `day` where it asks for a date: the day that a run began with."""
    train = build(recipe, model_folder, "train", template=template, day=day)
    others = parts_of(recipe)[1:]
    return Tables(train, *(build(recipe, model_folder, part, template=template, day=train.day) for part in others))


def load_model(
    recipe: Recipe,
    model_folder: Path,
    tokenizer: Any,
    engine: Choice,
    precision: Choice,
    hardware: Hardware,
    budget: Budget | None,
) -> Loaded:
    """The model with a new adapter. Raises `EngineError` where it can't be packed and `budget` says that it is to be,
    and `TrainingError` where it does not fit."""
    with out_of_memory(recipe):
        loaded = engines.load(recipe, model_folder, tokenizer, engine, precision, hardware)
    for config in (loaded.model.config, loaded.model.generation_config):
        # as the trainer would make them, with a warning
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            setattr(config, name, getattr(tokenizer, name))
    if budget is not None:
        # PyTorch, and what is another under Unsloth, which the choice of an engine has imported by now
        from toolkit.kernels.packed_attention import can_pack

        if (why := can_pack(loaded.model, recipe.train.max_length)) is not None:
            raise EngineError(f'train.micro_batch: this model can\'t be packed: {why}; wanted "fixed"')
    loaded.report.versions = engines.versions()
    return loaded
