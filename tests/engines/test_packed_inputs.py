"""What Unsloth's decoder is handed; that it computes the same is tested on a GPU."""

from __future__ import annotations

from tests.training.test_packing import rows_of
from toolkit.engines.unsloth import packed_inputs
from toolkit.training.packing import pack


def test_lengths_cover_every_token_of_a_packed_micro_batch() -> None:
    batch = pack(rows_of([3, 7, 5], 50), pad_token_id=0, multiple=16)
    given = packed_inputs(batch)
    assert given.keys() == {"input_ids", "labels", "position_ids", "packed_seq_lengths"}
    assert given["packed_seq_lengths"].tolist() == [3, 7, 5, 1]
    assert int(given["packed_seq_lengths"].sum()) == given["input_ids"].shape[1]
    starts = [0, 3, 10, 15]
    assert given["position_ids"][0, starts].tolist() == [0] * 4
    assert (given["labels"][0, starts] == -100).all()
