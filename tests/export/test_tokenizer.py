"""The tokenizer's part of a GGUF: names of pre-tokenizers by content, token types, and what is refused."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data import call_templates
from tests.export.shapes import base_model
from tests.real import find_tokenizer
from tests.tiny import CHATML
from toolkit.data.calls import Messages
from toolkit.data.tokenizers import load_tokenizer
from toolkit.errors import ModelError
from toolkit.export.tokenizer import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    _merges,
    _scores,
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
    assert found.eom is None
    assert found.special["padding"] == 0 and not found.add_bos and found.pre == "gpt-2"


def test_a_token_of_its_own_that_closes_calls(tmp_path: Path) -> None:
    made = call_templates.tokenizer(call_templates.OPEN_CALLS)
    made.save_pretrained(tmp_path)
    found = read_tokenizer(tmp_path, len(made))
    assert found.eot is not None and found.tokens[found.eot] == "<|im_end|>"
    assert found.eom is not None and found.tokens[found.eom] == "<start_function_response>"


def test_more_tokens_than_rows(base: Path) -> None:
    last = add(base, ("<new>", False))
    with pytest.raises(ModelError, match="the vocabulary was resized"):
        read_tokenizer(base, last + 1)


WITH_BOS = "{{ bos_token }}" + CHATML


@pytest.mark.parametrize("template", [WITH_BOS, CHATML])
def test_a_prompt_in_llama_cpp_begins_as_in_training(tmp_path: Path, template: str) -> None:
    """A tokenizer that puts a token before every text, as Llama 3's does, and a template that writes it or does not."""
    from tokenizers.processors import TemplateProcessing

    from tests.export.test_gguf import write
    from toolkit.data.markup import render
    from toolkit.export.merge import open_merged
    from toolkit.export.verify.runtime import compare_templates
    from toolkit.export.verify.verification_data import Prompt
    from toolkit.inference.gguf import GgufModel

    folder = base_model(tmp_path / "base")
    tokenizer = load_tokenizer(folder)
    tokenizer.bos_token, tokenizer.chat_template = "<|endoftext|>", template
    tokenizer.pad_token = "<|im_start|>"
    number = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", pair="<|endoftext|> $A $B", special_tokens=[("<|endoftext|>", number)]
    )
    tokenizer.save_pretrained(folder)
    write(tmp_path / "m.gguf", open_merged(folder, None))
    question = [{"role": "user", "content": "What is it?"}]
    text = render(tokenizer, question, add_generation_prompt=True)
    with GgufModel(tmp_path / "m.gguf", n_ctx=64, threads=1) as model:
        assert model.put_before() == ([number] if template == WITH_BOS else [])
        made = model.apply_template(question)
        ids = model.put_before() + model.tokenize(made.removeprefix("<|endoftext|>"))
        assert ids == tokenizer(text, add_special_tokens=False)["input_ids"]
        prompt = Prompt(Messages(question, None, []), text, True)
        assert compare_templates(model, tokenizer, [prompt], {}) == []
        assert compare_templates(model, tokenizer, [replace(prompt, text="x" + text)], {})


GEMMA = find_tokenizer("gemma3-tokenizer", "google/gemma-3-270m-it")
SPM: dict[str, Any] = {
    "model": {"type": "BPE", "byte_fallback": True, "merges": [["a", "b"], "ab c", ["a", "b"]]},
    "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
}


def test_sentencepiece_as_gemma_has_it() -> None:
    assert pre_tokenizer_name(SPM, Path("x")) == "default"
    scores = _scores(
        ["<unk>", "ab", "abc", "a", "<0x0A>"], [UNKNOWN, NORMAL, NORMAL, NORMAL, BYTE], SPM["model"]["merges"]
    )
    assert scores == [-1000.0, 0.0, -1.0, -1000.0, -1000.0]
    prefixed = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, SPM["normalizer"]]}
    for wrong in ({**SPM, "normalizer": prefixed}, {**SPM, "pre_tokenizer": {"type": "Metaspace"}}):
        with pytest.raises(ModelError, match="can't be exported, wanted byte-level BPE, or Gemma's SentencePiece"):
            pre_tokenizer_name(wrong, Path("x"))


@pytest.mark.slow
@pytest.mark.skipif(GEMMA is None, reason="no tokenizer of Gemma 3; .ci/test-tokenizers packs it")
def test_gemmas_own_tokenizer_in_llama_cpp(tmp_path: Path) -> None:
    from tests.export.test_gguf import write
    from toolkit.export.merge import open_merged
    from toolkit.export.verify.verification_data import HARD_STRINGS
    from toolkit.inference.gguf import GgufModel

    assert GEMMA
    folder = base_model(tmp_path / "base", "gemma3_text", vocab_size=262_208)
    for path in GEMMA.iterdir():
        shutil.copy(path, folder / path.name)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    write(tmp_path / "m.gguf", open_merged(folder, None))
    tokenizer = load_tokenizer(folder)
    with GgufModel(tmp_path / "m.gguf", n_ctx=64, threads=1) as model:
        assert model.put_before() == [tokenizer.bos_token_id]
        for text in HARD_STRINGS:
            assert model.tokenize(text) == tokenizer(text, add_special_tokens=False)["input_ids"], text


def test_the_day_is_the_one_that_training_wrote() -> None:
    from toolkit.inference.prompting import trained_date

    llama31 = '{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}'
    assert trained_date(llama31) == {"date_string": "26 Jul 2024"}
    assert trained_date(llama31 + '{% set date_string = strftime_now("%d %b %Y") %}') == {}
    assert trained_date(CHATML) == {}
