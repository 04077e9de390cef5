"""Supervised fine-tuning: the next token of what the assistant says, in chats that are taken as they are."""

from __future__ import annotations

from typing import Any

import torch

from toolkit.data.table import IGNORED, TokenTable
from toolkit.kernels.head_loss import summed_loss
from toolkit.planning.budget import recomputes
from toolkit.training.dataset import Collator, Row
from toolkit.training.methods.base import Collate, Method
from toolkit.training.packing import PackingCollator


class SFT(Method):
    """The loss is -log p of each trained token, summed, over the update's number of them."""

    columns = ("input_ids", "trained")

    @staticmethod
    def rows(table: TokenTable, chat: int) -> list[Row]:
        """The chat as the model's template writes it: one row, or with data.thinking = "split" one an answer."""
        return [table.row(row) for row in table.chat_rows(chat)]

    def collator(self) -> Collate:
        """`Collator`, or `PackingCollator` where there is a budget."""
        recipe, loaded, budget = self.prepared.recipe, self.prepared.loaded, self.prepared.budget
        pad_token_id = loaded.tokenizer.pad_token_id
        if budget is None:
            return Collator(pad_token_id, multiple=self._multiple)
        packing = self.prepared.loaded.packing
        recorded = loaded.recorder is not None and not recomputes(recipe, budget.checkpointed)
        multiple = recipe.train.pad_to_multiple_of or packing.multiple(budget.tokens, recorded=recorded)
        return PackingCollator(pad_token_id, budget.tokens, multiple, packing.edges)

    def pieces(self, inputs: dict[str, Any], rows: int) -> list[dict[str, Any]]:
        """Rows in their order, each piece no wider than its longest row makes it."""
        parts = []
        for start in range(0, inputs["input_ids"].shape[0], rows):
            piece = {name: value[start : start + rows] for name, value in inputs.items()}
            longest = int(piece["attention_mask"].sum(1).max())
            width = -(-longest // self._multiple) * self._multiple
            parts.append({name: value[:, :width].contiguous() for name, value in piece.items()})
        return parts

    @property
    def _multiple(self) -> int:
        """Of tokens, that padded rows are filled up to."""
        return 8 if self.prepared.cuda else 1

    def items(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Trained tokens that have one before them."""
        return (inputs["labels"][:, 1:] != IGNORED).sum()

    def loss(self, model: Any, inputs: dict[str, Any], items: torch.Tensor | None) -> torch.Tensor | None:
        """Of the head on trained tokens only. TRL's own does the same with a Triton kernel, which a CPU can't run, in
        the model's own forward, which packed rows bypass; so padded rows on a GPU are left to it."""
        cuda, precision = self.prepared.cuda, self.prepared.precision
        if cuda and self.prepared.budget is None:
            return None
        half = torch.float16 if precision == "fp16" else torch.bfloat16
        with torch.autocast("cuda" if cuda else "cpu", dtype=half, enabled=precision in ("fp16", "bf16")):
            if "cu_seq_lens" in inputs:
                inputs = self.prepared.loaded.packing.packed_inputs(inputs) | {"predicting": inputs["predicting"]}
            total, count = summed_loss(model, inputs)
        return total / torch.as_tensor(count if items is None else items).clamp(min=1)
