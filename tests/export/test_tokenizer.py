"""The tokenizer's part of a GGUF: names of pre-tokenizers by content, token types, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.export.shapes import base_model
from toolkit.errors import ModelError
from toolkit.export.tokenizer import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    _merges,
    looks_special,
    pre_tokenizer_name,
    read_tokenizer,
)
from toolkit.models.families import llama, qwen3

QWEN2, LLAMA3 = qwen3.QWEN2.steps[0][1], llama.LLAMA3.steps[0][1]
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
PLAIN = {**BYTES, "use_regex": False}


def spec(pre: dict[str, Any], **more: Any) -> dict[str, Any]:
    model = {"type": "BPE", "byte_fallback": False, "ignore_merges": more.pop("ignore_merges", False)}
    return {"model": model, "pre_tokenizer": pre, "normalizer": None, **more}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


def test_pre_tokenizers_by_their_content() -> None:
    where = Path("x")
    digits = {"type": "Digits", "individual_digits": True}
    assert pre_tokenizer_name(spec(BYTES), where) == "gpt-2"
    assert pre_tokenizer_name(spec(sequence(digits, BYTES)), where) == "smollm"
    qwen = spec(sequence(split(QWEN2), PLAIN), normalizer={"type": "NFC"})
    assert pre_tokenizer_name(qwen, where) == "qwen2"
    assert pre_tokenizer_name(spec(sequence(split(LLAMA3), PLAIN), ignore_merges=True), where) == "llama-bpe"
    assert pre_tokenizer_name(spec(sequence(split(LLAMA3), PLAIN)), where) == "dbrx"


@pytest.mark.parametrize(
    "wrong",
    [
        spec(sequence(split(QWEN2), PLAIN), normalizer={"type": "Lowercase"}),
        spec(BYTES, normalizer={"type": "NFKC"}),
        spec(sequence(split(QWEN2), PLAIN), ignore_merges=True),
        spec(sequence(split(r"\w+"), PLAIN)),
        spec({**BYTES, "add_prefix_space": True}),
        spec(sequence({"type": "Digits", "individual_digits": False}, BYTES)),
        {**spec(BYTES), "model": {"type": "Unigram"}},
        {**spec(BYTES), "model": {"type": "BPE", "byte_fallback": True}},
    ],
)
def test_others_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json.*export"):
        pre_tokenizer_name(wrong, Path("x"))


@pytest.mark.parametrize("token", ["<|fim_prefix|>", "<pad>", "<unused12>", "<｜end｜>"])
def test_tokens_that_look_special(token: str) -> None:
    assert looks_special(token) and not looks_special(token.strip("<>"))


def test_merges_with_spaces() -> None:
    assert _merges([["a b", "c"], "x y"]) == ["aĠb c", "x y"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return base_model(tmp_path / "base")


def add(folder: Path, *tokens: tuple[str, bool]) -> int:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    last = max(token["id"] for token in content["added_tokens"])
    last = max(last, max(content["model"]["vocab"].values()))
    for number, (text, special) in enumerate(tokens, last + 1):
        one = {**copy.deepcopy(content["added_tokens"][0]), "id": number, "content": text, "special": special}
        content["added_tokens"].append(one)
    path.write_text(json.dumps(content))
    return last


def test_types_and_unused_rows(base: Path) -> None:
    last = add(base, ("<|fim|>", False), ("<tool_call>", False), ("[END]", True))
    found = read_tokenizer(base, last + 10)
    assert found.types[last + 1 : last + 5] == [CONTROL, USER_DEFINED, CONTROL, UNUSED]
    assert found.tokens[last + 1 : last + 5] == ["<|fim|>", "<tool_call>", "[END]", f"[PAD{last + 4}]"]
    assert found.types[0] == CONTROL and found.types[10] == NORMAL
    assert len(found.tokens) == len(found.types) == last + 10
    assert found.tokens[found.special["eos"]] == "<|im_end|>" and found.eot == found.special["eos"]
    assert found.special["padding"] == 0 and not found.add_bos and found.pre == "gpt-2"


def test_more_tokens_than_rows(base: Path) -> None:
    last = add(base, ("<new>", False))
    with pytest.raises(ModelError, match="the vocabulary was resized"):
        read_tokenizer(base, last + 1)
