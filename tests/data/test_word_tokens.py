"""Text tokenised word by word has the tokens, and the offsets, that the tokenizer gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, normalizers, pre_tokenizers, processors

from tests.tiny import make_tokenizer
from toolkit.data.tokenizers import load_tokenizer
from toolkit.data.word_tokens import WordTokenizer, WordTokens, by_words
from toolkit.world import chats

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_RAW = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
WAYS: dict[str, Any] = {
    "gpt2": _BYTES,
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _BYTES]),
    "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), _RAW]),
}
TEXTS = [
    "It's the weather in Oslo, I'd say: 12 3  45.",
    "get_weather(city: string)\n\n\nDON'T  'll (a|b) [x]\t\r\n",
] * 20
PIECES = ["'s", "'S", "'", "don't", " ", "  ", "\n", "\r\n", "\t", "7", "42", "Oslo", " in", "_", "...", "<|im_end|>"]
PIECES += ["<|im_start|>", "<|im", "|>", '{"a": 1}', "x" * 70, "é", "ſ", "\x1c", "\x0b", "\u00a0", "雨"]
texts = st.lists(st.sampled_from(PIECES) | st.text(st.characters(max_codepoint=127), max_size=4), max_size=12)


def backend(way: str) -> Any:
    made = make_tokenizer(TEXTS, vocab_size=350).backend_tokenizer
    made.pre_tokenizer = WAYS[way]
    return made


BACKENDS = {way: backend(way) for way in WAYS}
WORDS = {way: by_words(one) for way, one in BACKENDS.items()}


def compare(words: Any, own: Any, text: str) -> None:
    found, wanted = words.encode(text), own.encode(text, add_special_tokens=False)
    assert found.ids == wanted.ids
    assert found.offsets == wanted.offsets
    assert [found.char_to_token(at) for at in range(len(text) + 1)] == [
        wanted.char_to_token(at) for at in range(len(text) + 1)
    ]
    tokens = range(len(wanted.ids) + 1)
    assert [found.token_to_chars(at) for at in tokens] == [wanted.token_to_chars(at) for at in tokens]


@pytest.mark.parametrize("way", WAYS)
@given(texts)
def test_any_text(way: str, pieces: list[str]) -> None:
    compare(WORDS[way], BACKENDS[way], "".join(pieces))


@pytest.mark.parametrize("way", WAYS)
def test_english_is_tokenised_by_words(way: str) -> None:
    for text in TEXTS[:2]:
        assert isinstance(WORDS[way].encode(text), WordTokens)
        compare(WORDS[way], BACKENDS[way], text)
    assert not isinstance(WORDS[way].encode("Ålesund"), WordTokens)


def test_a_real_tokenizer(qwen3_tokenizer: Path) -> None:
    own = load_tokenizer(qwen3_tokenizer).backend_tokenizer
    words = by_words(own)
    assert isinstance(words, WordTokenizer)
    for chat in chats(40):
        text = "".join(f"<|im_start|>{turn.role}\n{turn.content}<|im_end|>\n" for turn in chat.turns)
        compare(words, own, f"{text}<tool_call>\n{chat.tools}\n</tool_call>")


def test_beyond_what_is_remembered_the_tokenizer_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.data.word_tokens._MOST_WORDS", 3)
    words = by_words(BACKENDS["gpt2"])
    for text in ("a b c", "a b c", "d e f", "a e"):
        compare(words, BACKENDS["gpt2"], text)


def _changed(name: str, value: Any) -> Any:
    made = backend("gpt2")
    if name == "dropout":
        made.model.dropout = value
    else:
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("normalizer", normalizers.Lowercase()),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        ("pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\p{L}+"), "isolated"), _RAW])),
        ("pre_tokenizer", pre_tokenizers.Metaspace()),
        ("pre_tokenizer", None),
        ("post_processor", processors.ByteLevel(trim_offsets=True)),
        ("dropout", 0.1),
        ("encode_special_tokens", True),
    ],
)
def test_tokenizers_of_another_kind_are_left_alone(name: str, value: Any) -> None:
    made = _changed(name, value)
    assert by_words(made) is made


def test_tokens_that_take_blank_space_with_them_are_left_alone() -> None:
    from tokenizers import AddedToken

    made = backend("gpt2")
    made.add_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    assert by_words(made) is made
