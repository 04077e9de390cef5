"""The run that is killed and damaged: what it is, and what has to come out of it whatever happens."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.endurance.forks import Forks, Outcome
from tests.tiny import write_recipe
from toolkit.hashes import sha256_of
from toolkit.records import read_rows

NAME = "run"  # of the folder: the GGUF has it
FINISHED = "this run is finished; nothing to resume"


@dataclass(slots=True)
class World:
    """`run` is the folder that things happen to; `reference` a run that nothing happened to, moved away."""

    folder: Path
    forks: Forks
    recipe: str
    reference: Path
    seconds: float
    events: list[str]  # paths that a run touches, in turn
    fresh: list[str]  # those of one that finds no token table
    reads: list[str]  # what a run opens for reading, in turn

    @classmethod
    def make(cls, folder: Path, model: Path, forks: Forks) -> World:
        """20 chats, 2 an update, 6 updates with dropout, a checkpoint, an evaluation and two decoded chats at every
        second, the best adapter kept, a report, an export that is compared with the model."""
        recipe = write_recipe(
            folder,
            model,
            24,
            lora={"lora_dropout": 0.1, "r": 2},
            train={
                "max_steps": 6,
                "save_steps": 2,
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 1,
                "gradient_checkpointing": False,
            },
            eval={"eval_steps": 2, "early_stopping_patience": 3, "generate": 2, "max_new_tokens": 4},
            export={"gguf": ["q8_0"], "chats": 1},
        )
        fresh = forks("run", recipe.name, "--out", NAME).events  # makes the token table
        shutil.rmtree(folder / NAME)
        done = forks("run", recipe.name, "--out", NAME)
        assert done.code == 0, done.text
        (folder / NAME).rename(folder / "reference")
        return cls(folder, forks, recipe.name, folder / "reference", done.seconds, done.events, fresh, done.reads)

    @property
    def run(self) -> Path:
        return self.folder / NAME

    def resume(self, **how: Any) -> Outcome:
        return self.forks("run", self.recipe, "--resume", NAME, **how)

    def wrong(self, place: Path | None = None) -> str:
        """What in a run folder is not as in the reference; empty where weights, losses and export are the same."""
        place = place or self.run
        for name in ("adapter/adapter_model.safetensors", f"export/{NAME}-Q8_0.gguf"):
            if not (place / name).is_file():
                return f"{name} is not there"
            if sha256_of(place / name) != sha256_of(self.reference / name):
                return f"{name} is another"
        if self.losses(place) != self.losses(self.reference):
            return "other losses"
        return ""

    @staticmethod
    def losses(place: Path) -> list[tuple[int, float]]:
        return [(row["update"], row["loss"]) for row in read_rows(place / "metrics.jsonl") if "loss" in row]


def is_clear(outcome: Outcome) -> bool:
    """Whether a command ended as documented, and not by a fault of its own."""
    text = outcome.text.lower()
    return outcome.code in (0, 1, 2) and not any(
        sign in text for sign in ("traceback", "bug in toolkit", "aborted", "core dumped")
    )
