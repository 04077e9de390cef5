"""Packed micro-batches compute what padded ones do, however an update is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.test_head_loss import adapted
from tests.tiny import make_model
from toolkit.data.table import IGNORED
from toolkit.kernels.head_loss import summed_loss
from toolkit.kernels.packed_attention import can_pack, packed
from toolkit.planning.micro_batches import cut
from toolkit.training.dataset import Collator, Row
from toolkit.training.gradient_checkpointing import CheckpointFirst
from toolkit.training.packing import KnownLengths, PackingCollator, pack


@given(st.lists(st.integers(1, 3000), max_size=40), st.integers(1, 20_000))
def test_cut_holds_each_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = cut(lengths, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert group == sorted(group) and group
        assert sum(lengths[i] for i in group) <= budget or len(group) == 1


@given(st.lists(st.integers(1, 2048), min_size=1, max_size=40), st.integers(2048, 20_000))
def test_cut_makes_few_and_even_groups(lengths: list[int], budget: int) -> None:
    groups = cut(lengths, budget)
    sizes = [sum(lengths[i] for i in group) for group in groups]
    assert len(groups) <= 2 * -(-sum(lengths) // budget)  # two groups that would fit together are never apart
    assert max(sizes) - min(sizes) <= max(lengths)


def test_cut_makes_one_group_of_what_fits() -> None:
    assert cut([500] * 16, 8000) == [list(range(16))]
    assert [len(group) for group in cut([500] * 16, 4000)] == [8, 8]
    assert cut([], 100) == []


def rows_of(lengths: list[int], vocabulary: int) -> list[Row]:
    numbers = np.random.default_rng(0)
    rows = []
    for length in lengths:
        ids = numbers.integers(3, vocabulary, length)
        labels = np.where(np.arange(length) < length // 2, IGNORED, ids)
        rows.append((ids, labels))
    return rows


def test_pack_starts_every_row_anew() -> None:
    one = pack(rows_of([3, 5], 50), pad_token_id=0, multiple=4)
    assert one["position_ids"].tolist() == [[0, 1, 2, 0, 1, 2, 3, 4]]
    assert one["cu_seq_lens"].tolist() == [0, 3, 8] and one["sizes"] == [3, 5]
    one = pack(rows_of([3, 4], 50), pad_token_id=0, multiple=4)
    assert one["sizes"] == [3, 4, 1] and one["labels"][0, -1] == IGNORED and one["input_ids"][0, -1] == 0
    one = pack(rows_of([3, 4], 50), pad_token_id=0, multiple=16, edges_multiple=4)
    assert one["sizes"] == [3, 4, 4, 4, 1]  # filling is cut into rows no longer than the longest
    assert one["cu_seq_lens"].tolist() == [0, 3, 7, 11, 15, 16, 16, 16]
    assert one["position_ids"].shape == (1, 16)
    trained_from_the_start = np.array([7, 8]), np.array([7, 8])
    assert pack([trained_from_the_start] * 2, 0)["labels"].tolist() == [[IGNORED, 8, IGNORED, 8]]


def test_an_epoch_s_short_last_update_makes_no_new_length() -> None:
    collate = PackingCollator(0, 4096, multiple=64, edges_multiple=8)
    fill = KnownLengths(collate, first=2)

    def update(*lengths: int) -> dict[str, Any]:
        return collate([{"rows": [row]} for row in rows_of(list(lengths), 50)])

    def tokens(made: dict[str, Any]) -> list[int]:
        return [one["input_ids"].shape[1] for one in made["micro_batches"]]

    assert [tokens(fill(update(*lengths))) for lengths in ([100, 90], [300], [200, 200])] == [[192], [320], [448]]
    short = update(20, 9)
    filled = fill(short)
    assert (tokens(short), tokens(filled)) == ([64], [192])
    (one,), (other,) = short["micro_batches"], filled["micro_batches"]
    assert filled["trained"] == short["trained"] and filled["real_tokens"] == short["real_tokens"]
    assert other["predicting"].tolist() == one["predicting"].tolist()
    for name in ("input_ids", "labels", "position_ids"):
        assert other[name][0, :29].tolist() == one[name][0, :29].tolist()
    assert other["cu_seq_lens"].tolist()[:3] == [0, 20, 29] and other["cu_seq_lens"].tolist()[-1] == 192
    assert len(other["cu_seq_lens"]) % 8 == 0


def test_all_micro_batches_come_to_have_the_same_number_of_edges() -> None:
    """An epoch's last update, with few chats, has the edges that the ones before it had."""
    collate = PackingCollator(0, 4096, multiple=64, edges_multiple=8)

    def edges(*lengths: int) -> list[int]:
        made = collate([{"rows": [row]} for row in rows_of(list(lengths), 50)])["micro_batches"]
        assert all(one["cu_seq_lens"][-1] == one["input_ids"].shape[1] for one in made)
        return [len(one["cu_seq_lens"]) for one in made]

    assert [edges(30), edges(*[20] * 12), edges(30), edges(9, 9)] == [[8], [16], [16], [16]]
    plain = PackingCollator(0, 4096)
    assert [len(one["cu_seq_lens"]) for one in plain([{"rows": rows_of([30], 50)}])["micro_batches"]] == [2]


def gradients(model: Any, batches: list[dict[str, Any]], *, packs: bool) -> tuple[float, dict[str, torch.Tensor]]:
    """(summed loss, gradients of the adapter) over micro-batches."""
    model.zero_grad()
    total = 0.0
    for batch in batches:
        if packs:
            with packed(model):
                loss, _ = summed_loss(model, batch)
                loss.backward()
        else:
            loss, _ = summed_loss(model, {key: value for key, value in batch.items() if key != "real_tokens"})
            loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [0, 1, 2])
@pytest.mark.parametrize("budget", [64, 150, 4096])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_packed_equals_padded(tmp_path: Path, family: str, budget: int, checkpointing: int) -> None:
    model = adapted(make_model(tmp_path / family, family=family))
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
        on_train_begin = CheckpointFirst(checkpointing).on_train_begin
        on_train_begin(None, None, None, model=model)
        layers = model.get_base_model().model.layers
        assert [layer.gradient_checkpointing for layer in layers] == [True, checkpointing == 2]
    rows = rows_of([40, 9, 57, 23, 31], model.config.vocab_size)
    collated = PackingCollator(0, budget, multiple=8)([{"rows": rows}])
    micro = collated["micro_batches"]
    assert len(micro) == {64: 3, 150: 2, 4096: 1}[budget]
    assert collated["real_tokens"] == 160
    assert collated["trained"] == sum(int((labels != IGNORED).sum()) for _, labels in rows)

    loss, found = gradients(model, micro, packs=True)
    expected_loss, expected = gradients(model, [Collator(0)([{"rows": rows}])], packs=False)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert found.keys() == expected.keys() and expected
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


def test_no_row_sees_another(tiny_model: Path) -> None:
    """Other tokens in one row leave the loss of the row after it as it was, to the bit."""
    model = adapted(tiny_model).eval()
    rows = rows_of([30, 25], model.config.vocab_size)
    silent = rows[0][0], np.full(30, IGNORED)

    def loss_of(first: Row) -> float:
        with packed(model), torch.no_grad():
            return float(summed_loss(model, pack([first, rows[1]], 0))[0])

    assert loss_of(silent) == loss_of((silent[0][::-1].copy(), silent[1]))


def test_decoding_keeps_the_usual_attention(tiny_model: Path) -> None:
    model = adapted(tiny_model)
    usual = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="planted"), packed(model):
        assert model.config._attn_implementation != usual
        raise RuntimeError("planted")
    assert model.config._attn_implementation == usual


def test_what_cannot_be_packed_is_named(tiny_model: Path) -> None:
    model = adapted(tiny_model)
    assert can_pack(model, 512) is None
    config = model.get_base_model().config
    config.layer_types = ["linear_attention", "full_attention"]
    assert can_pack(model, 64) == "it has linear_attention layers"
