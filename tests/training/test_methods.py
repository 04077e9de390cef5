"""What every method promises the trainer, and that another is a file of its own and a line in `METHODS`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from tests.kernels.test_head_loss import adapted
from tests.tiny import write_recipe
from toolkit.data.table import IGNORED, TokenTable, build
from toolkit.data.tokenizers import load_tokenizer
from toolkit.engines.registry import PLAIN
from toolkit.errors import DataError
from toolkit.hardware import detect
from toolkit.planning.budget import Budget
from toolkit.planning.steps import updates_of
from toolkit.recipe import load
from toolkit.records import read_jsonl
from toolkit.training import methods
from toolkit.training.dataset import Collator, Row
from toolkit.training.methods.base import Collate, Method
from toolkit.training.methods.sft import SFT
from toolkit.training.prepared import Prepared, Tables
from toolkit.training.run import run


@pytest.fixture
def recipe(tmp_path: Path, tiny_model: Path, cache: Path) -> Path:
    train = {"gradient_checkpointing": False, "max_steps": 6, "learning_rate": 0.02}
    return write_recipe(tmp_path, tiny_model, 40, train=train, eval={"eval_steps": 3})


def prepare(recipe: Path, folder: Path, budget: Budget | None) -> Prepared:
    asked = load(recipe).recipe
    table = build(asked, folder, "train", progress=False)
    loaded: Any = SimpleNamespace(
        model=adapted(folder),
        tokenizer=SimpleNamespace(pad_token_id=0),
        report=SimpleNamespace(precision=SimpleNamespace(value="fp32")),
        packing=PLAIN.packing(detect()),
        recorder=None,
    )
    return Prepared(asked, loaded, Tables(table), updates_of(asked, table.n_chats), budget)


@pytest.mark.parametrize("name", methods.METHODS)
def test_an_update_is_the_same_however_it_is_cut(recipe: Path, tiny_model: Path, name: str) -> None:
    """Padded by two chats, and packed: as many items, the same loss and the same gradients."""
    found = []
    for budget in (None, Budget(600, "")):
        method = methods.METHODS[name](prepare(recipe, tiny_model, budget))
        chats = [method.dataset(method.prepared.tables.train)[chat] for chat in range(6)]
        collate, model = method.collator(), method.prepared.loaded.model
        if budget is None:
            parts = [collate(chats[start : start + 2]) for start in range(0, 6, 2)]
            assert all(part.pop("real_tokens") for part in parts)
            items = torch.stack([method.items(part) for part in parts]).sum()
        else:
            whole = collate(chats)
            parts, items = whole["micro_batches"], torch.tensor(whole["trained"])
        assert len(parts) > 1 and items == sum(int(method.items(part)) for part in parts)
        total = 0.0
        with method.prepared.loaded.packing.training(model) if budget is not None else contextlib.nullcontext():
            for part in parts:
                loss = method.loss(model, dict(part), items)
                assert loss is not None and loss.shape == ()
                loss.backward()
                total += float(loss.detach())
        gradients = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
        assert gradients and all("lora" in name for name in gradients)
        assert set(method.measured()) == set(method.metrics)
        found.append((int(items), total, gradients))
    (count, mean, padded), (same_count, same_mean, packed) = found
    assert count == same_count and mean == pytest.approx(same_mean, rel=1e-5)
    for key, gradient in padded.items():
        torch.testing.assert_close(packed[key], gradient, rtol=1e-4, atol=1e-5)


def test_a_table_without_its_columns_is_refused(recipe: Path, tiny_model: Path) -> None:
    class Wanting(SFT):
        columns = ("input_ids", "chosen")

    prepared = prepare(recipe, tiny_model, None)
    with pytest.raises(DataError, match="has no chosen"):
        Wanting(prepared).dataset(prepared.tables.train)


class Pairs(Method):
    """Preference: an answer is to be likelier than the same tokens backwards. A chat's two rows stay together."""

    columns = ("input_ids", "trained")
    metrics = ("eval_preferred",)

    def __init__(self, prepared: Prepared) -> None:
        super().__init__(prepared)
        self.won: list[bool] = []

    @staticmethod
    def rows(table: TokenTable, chat: int) -> list[Row]:
        ids, labels = table.row(table.chat_rows(chat)[0])
        spoilt, trained = ids.copy(), labels != IGNORED
        spoilt[trained] = spoilt[trained][::-1]
        return [(ids, labels), (spoilt, np.where(trained, spoilt, IGNORED))]

    def collator(self) -> Collate:
        return Collator(self.prepared.loaded.tokenizer.pad_token_id or 0)

    def items(self, inputs: dict[str, Any]) -> torch.Tensor:
        return torch.tensor(len(inputs["labels"]) // 2)

    def loss(self, model: Any, inputs: dict[str, Any], items: torch.Tensor | None) -> torch.Tensor:
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
        labels = inputs["labels"][:, 1:]
        every = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels != IGNORED)
        better = every.sum(-1)[0::2] - every.sum(-1)[1::2]
        if not torch.is_grad_enabled():
            self.won += (better > 0).tolist()
        return -logsigmoid(better).sum() / (self.items(inputs) if items is None else items)

    def measured(self) -> dict[str, float]:
        won, self.won = self.won, []
        return {"eval_preferred": sum(won) / len(won)} if won else {}


def test_another_method_is_trained_evaluated_and_logged(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(methods.METHODS, "sft", Pairs)
    rows = list(read_jsonl(run(load(recipe), tmp_path / "run").metrics))
    losses = [row["eval_loss"] for row in rows if "eval_loss" in row]
    shares = [row["eval_preferred"] for row in rows if "eval_loss" in row]
    assert len(losses) == len(shares) == 3
    assert losses[-1] < losses[0] and shares[-1] > 0.9, "it learns to prefer what was said"


def test_the_loss_asks_no_model_for_experts(recipe: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Granite 4's configuration has words about routers and the model none: TRL would look for its experts on a GPU,
    where padded rows are left to it."""
    from tests.tiny import make_model
    from toolkit.training.trainer import Trainer

    prepared = prepare(recipe, tiny_model, None)
    prepared.loaded.model = adapted(make_model(tmp_path / "granite", "granitemoehybrid"))
    assert hasattr(prepared.loaded.model.config, "output_router_logits")
    prepared.loaded.tokenizer = load_tokenizer(tiny_model)
    trainer = Trainer(SFT(prepared), tmp_path / "out", [])
    assert not trainer.aux_loss_enabled and not prepared.loaded.model.config.output_router_logits
