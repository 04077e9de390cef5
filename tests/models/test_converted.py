"""A GGUF as a Hugging Face folder again: what was exported comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.export.shapes import base_model
from tests.export.test_gguf import write
from toolkit.data.tokenizers import load_tokenizer
from toolkit.errors import ModelError
from toolkit.models import converted
from toolkit.models.converted import BLANK, merges_of

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
RUNS = [BLANK * 2, BLANK * 3, "\n\n"]
TEXTS = ["what is the matter with the weather", "the cat sat there, and that is that", "a b  c   d\n\ne Ünï 🎉"]


def sentencepiece(folder: Path) -> None:
    """A small tokenizer of Gemma's kind in a model's folder."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", BLANK)
    trained.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trained.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=60, show_progress=False))
    learnt = json.loads(trained.to_str())["model"]
    merged = ["".join(merge) for merge in learnt["merges"]]
    plain = [token for token in learnt["vocab"] if token not in merged and token != BLANK]
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *RUNS, BLANK, *plain, *dict.fromkeys(merged)]
    tokens = list(dict.fromkeys(tokens))
    special, runs = len(SPECIAL), len(SPECIAL) + 256
    types = [3] * special + [6] * 256 + [4] * len(RUNS) + [1] * (len(tokens) - runs - len(RUNS))
    scores = [-float(merged.index(token)) if token in merged else -1000.0 for token in tokens]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    model = models.BPE(
        vocabulary, merges_of(tokens, types, scores), unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    backend = Tokenizer(model)
    backend.normalizer, backend.pre_tokenizer = trained.normalizer, trained.pre_tokenizer
    backend.decoder = decoders.Sequence([decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 2)]
    )
    backend.add_tokens([AddedToken(token, special=token in SPECIAL, normalized=False) for token in [*SPECIAL, *RUNS]])
    for path in (*folder.glob("*token*"), *folder.glob("*.jinja")):
        path.unlink()
    named = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **named).save_pretrained(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny Gemma's folder, and the folder of its GGUF."""
    from toolkit.export.merge import open_merged

    root = tmp_path_factory.mktemp("gemma")
    base, back = base_model(root / "base", "gemma3_text"), root / "back"
    sentencepiece(base)
    write(root / "m.gguf", open_merged(base, None))
    back.mkdir()
    converted.gemma3(root / "m.gguf", back)
    return base, back


def test_weights_come_back(both: tuple[Path, Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    mine, theirs = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in reversed(both))
    for (name, one), (other, two) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        torch.testing.assert_close(one, two, rtol=0, atol=2**-8)  # of norms, which a GGUF has one more of, in 16 bits
    ids = torch.arange(3, 90)[None]  # longer than its window
    with torch.no_grad():
        torch.testing.assert_close(mine(ids).logits, theirs(ids).logits, rtol=0.02, atol=0.02)


def test_the_tokenizer_comes_back(both: tuple[Path, Path]) -> None:
    base, back = (load_tokenizer(folder) for folder in both)
    assert back.get_vocab() == base.get_vocab()
    specs = [json.loads((folder / "tokenizer.json").read_text()) for folder in both]
    assert specs[0]["model"]["merges"] == specs[1]["model"]["merges"] and specs[0]["model"]["merges"]
    for text in (*TEXTS, "  two   three    four", "<start_of_turn>user\nhi<end_of_turn>", "\n\n\n"):
        assert back(text)["input_ids"] == base(text)["input_ids"]
        assert back.decode(back(text)["input_ids"], skip_special_tokens=False).removeprefix("<bos>") == text
    assert {kind: getattr(back, f"{kind}_token") for kind in ("bos", "eos", "pad", "unk")} == {
        kind: getattr(base, f"{kind}_token") for kind in ("bos", "eos", "pad", "unk")
    }


def test_a_base_model_has_gemmas_turns(both: tuple[Path, Path]) -> None:
    from toolkit.data.markup import probe

    markup = probe(load_tokenizer(both[1]))
    assert (markup.header, markup.end) == ("<start_of_turn>model\n", "<end_of_turn>")


def test_runs_are_merged_first_and_every_way_to_split_counts() -> None:
    tokens = ["a", "b", "c", "ab", "bc", "abc", "▁", "▁▁"]
    types: list[Any] = [1, 1, 1, 1, 1, 1, 1, 4]
    scores = [-1000.0, -1000.0, -1000.0, -1.0, 0.0, -2.0, -1000.0, -1000.0]
    expected = [("▁", "▁"), ("b", "c"), ("a", "b"), ("a", "bc"), ("ab", "c")]
    assert merges_of(tokens, types, scores) == expected


@pytest.mark.parametrize(("convert", "wanted"), [(converted.gemma3, "gemma3"), (converted.smollm2, "llama")])
def test_another_kind_of_model_is_refused(tmp_path: Path, convert: Callable[[Path, Path], None], wanted: str) -> None:
    from toolkit.export.merge import open_merged

    base = base_model(tmp_path / "base", "qwen3")
    write(tmp_path / "m.gguf", open_merged(base, None))
    with pytest.raises(ModelError, match=rf"m\.gguf: a qwen3, wanted {wanted}"):
        convert(tmp_path / "m.gguf", tmp_path)
