"""The head on trained tokens only is the head on all tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.tiny import make_model
from toolkit.data.table import IGNORED
from toolkit.kernels import head_loss as loss
from toolkit.kernels.packed_attention import can_pack
from toolkit.training.dataset import Collator


def adapted(folder: Path) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.train()


def batch_of(lengths: list[int], share: float, vocabulary: int) -> dict[str, Any]:
    rows = []
    for length in lengths:
        ids = torch.randint(3, vocabulary, (length,)).numpy()
        labels = ids.copy()
        labels[: int(length * (1 - share))] = IGNORED
        rows.append((ids, labels))
    return Collator(pad_token_id=0)([{"rows": rows}])


@pytest.mark.parametrize("chunk_logits", [400, 1 << 24])
def test_equals_full_logits(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, chunk_logits: int) -> None:
    monkeypatch.setattr(loss, "CHUNK_LOGITS", chunk_logits)
    model = adapted(tiny_model)
    batch = batch_of([40, 23, 31], 0.3, model.config.vocab_size)
    batch.pop("real_tokens")

    ours, count = loss.summed_loss(model, batch)
    ours.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = batch["labels"][:, 1:]
    full = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    full.backward()

    assert int(count) == int((labels != IGNORED).sum())
    torch.testing.assert_close(ours, full)
    assert gradients and all(gradient.abs().max() > 0 for gradient in gradients.values())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["granite", "gemma2", "cohere"])
def test_logits_that_are_scaled_or_capped(tmp_path: Path, family: str) -> None:
    """Granite divides them, which is known of it; of families that are not known the model's own forward is taken."""
    model = adapted(make_model(tmp_path / family, family)).eval()
    batch = batch_of([20, 13], 0.5, model.config.vocab_size)
    batch.pop("real_tokens")
    ours, count = loss.summed_loss(model, batch)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    full = cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(ours, full)
    assert count > 0 and (can_pack(model, 20) is None) is (family == "granite")


def test_padding_changes_nothing(tiny_model: Path) -> None:
    """A batch's loss is the sum of its rows' losses, each alone and unpadded."""
    model = adapted(tiny_model).eval()
    batch = batch_of([40, 9, 25], 0.4, model.config.vocab_size)
    batch.pop("real_tokens")
    together, _ = loss.summed_loss(model, batch)
    alone = 0.0
    for i in range(3):
        length = int(batch["attention_mask"][i].sum())
        alone += loss.summed_loss(model, {key: value[i : i + 1, :length] for key, value in batch.items()})[0].item()
    assert together.item() == pytest.approx(alone, rel=1e-5)


def test_collator_counts_and_masks() -> None:
    batch = batch_of([5, 3], 0.5, 50)
    assert batch["real_tokens"] == 8
    assert batch["attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert batch["labels"][1].tolist()[3:] == [IGNORED, IGNORED]
    assert batch["input_ids"][1].tolist()[3:] == [0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_become_their_gradient(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits, labels = (torch.randn(6, 50) * 3).to(dtype), torch.randint(0, 50, (6,))
    wide = logits.float().clone().requires_grad_()
    expected = cross_entropy(wide, labels, reduction="sum")
    expected.backward()
    kept = logits.clone()
    torch.testing.assert_close(loss.cross_entropy_(logits, labels, gradient=False), expected)
    assert torch.equal(logits, kept)
    torch.testing.assert_close(loss.cross_entropy_(logits, labels, gradient=True), expected)
    assert wide.grad is not None
    torch.testing.assert_close(logits, wide.grad.to(dtype))


def test_a_kernel_that_fails_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no Triton, which no torch for CPUs brings; `kernel_agrees` asks once a device."""
    device = torch.device("cpu")
    loss.kernel_agrees.cache_clear()
    monkeypatch.setattr(loss, "_on_card", lambda *_: (_ for _ in ()).throw(RuntimeError("no such card")))
    assert not loss.kernel_agrees(device, torch.float32)
    loss.kernel_agrees.cache_clear()
    monkeypatch.setattr(loss, "_on_card", lambda logits, labels, gradient: loss._formula(logits, labels, gradient) * 2)
    assert not loss.kernel_agrees(device, torch.float32)
    loss.kernel_agrees.cache_clear()
    monkeypatch.setattr(loss, "_on_card", loss._formula)
    assert loss.kernel_agrees(device, torch.float32)
    loss.kernel_agrees.cache_clear()
