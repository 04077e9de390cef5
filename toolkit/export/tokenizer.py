"""A tokenizer in a GGUF's words: tokens, types, merges, which of llama.cpp's pre-tokenizers splits as this one does."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.data.markup import probe, render
from toolkit.data.tokenizers import load_tokenizer
from toolkit.errors import DataError, ModelError
from toolkit.models.families import FAMILIES

_ALL = (one for kind in sorted(FAMILIES) for one in FAMILIES[kind].pre_tokenizers)
PRE_TOKENIZERS = {(one.steps, one.ignore_merges): one for one in _ALL}
"""By how they split text before BPE: a tokenizer is told by its content, as two families may split alike."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPM = "default"  # llama.cpp's name for how SentencePiece's tokenizers split: not at all
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_UNSCORED = -1000.0  # of what no merge makes, as llama.cpp's converter has it


@dataclass(frozen=True, slots=True)
class GgufTokenizer:
    """What goes into the `tokenizer.*` keys. `eot` ends an assistant's turn in the chat template, and `eom` one with
    calls where that is another token.

    `scores`: of each token, by which SentencePiece's tokenizers merge, the highest first; None for byte-level BPE,
    which has `merges`.
    """

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    special: dict[str, int]
    eot: int | None
    add_bos: bool
    template: str | None
    scores: list[float] | None = None
    eom: int | None = None


def read_tokenizer(folder: Path, vocab_size: int) -> GgufTokenizer:
    """The tokenizer of a model folder for a model of `vocab_size` rows.

    Raises `ModelError` for a kind that llama.cpp would split otherwise, and when it has more tokens than the model
    has rows.
    """
    tokenizer = load_tokenizer(folder)
    spec = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    pre = pre_tokenizer_name(spec, folder)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if (top := max(vocabulary.values())) >= vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has tokens up to number {top:,}, the model {vocab_size:,} rows: the vocabulary "
            "was resized. Give back the tokenizer that the model came with"
        )
    tokens, types = _tokens(tokenizer, vocabulary, vocab_size)
    eot, eom = _ends_of_turns(tokenizer)
    return GgufTokenizer(
        pre=pre,
        tokens=tokens,
        types=types,
        merges=[] if pre == SPM else _merges(spec["model"]["merges"]),
        special=_special(folder, tokenizer),
        eot=eot,
        add_bos=_adds_bos(tokenizer) and _begins_with_bos(tokenizer),
        template=chat_template(tokenizer),
        scores=_scores(tokens, types, spec["model"]["merges"]) if pre == SPM else None,
        eom=eom,
    )


def pre_tokenizer_name(spec: dict[str, Any], folder: Path) -> str:
    """llama.cpp's name for the way that a tokenizer.json splits text. Raises `ModelError` where it has none here."""
    where = folder / "tokenizer.json"
    model = spec.get("model") or {}
    if model.get("byte_fallback") and _is_sentencepiece(spec):
        return SPM
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = model.get("type") if not model.get("byte_fallback") else "BPE with byte fallback"
        raise ModelError(
            f"{where}: tokenizer {kind} can't be exported, wanted byte-level BPE, or Gemma's SentencePiece"
        )
    steps, ignore_merges = _flatten(spec.get("pre_tokenizer")), bool(model.get("ignore_merges"))
    found = PRE_TOKENIZERS.get((steps, ignore_merges))
    if found is None and (steps, not ignore_merges) in PRE_TOKENIZERS:
        other = PRE_TOKENIZERS[steps, not ignore_merges].name
        raise ModelError(f"{where}: ignore_merges = {ignore_merges} can't be exported with {other}")
    if found is None:
        names = ", ".join(one.name for one in PRE_TOKENIZERS.values())
        raise ModelError(
            f"{where}: this pre-tokenizer is none that can be exported ({names}); "
            "llama.cpp would split text in another way than training did"
        )
    normalizer = spec.get("normalizer")
    kind = normalizer.get("type") if normalizer else None
    if kind not in found.normalizers:
        raise ModelError(f"{where}: normalizer {kind} can't be exported with pre-tokenizer {found.name}")
    return found.name


def _is_sentencepiece(spec: dict[str, Any]) -> bool:
    """Whether text is split as Gemma's SentencePiece does: blanks become one character, none is put before a text, and
    nothing but merges decides."""
    normalizer, split = spec.get("normalizer") or {}, spec.get("pre_tokenizer")
    blanks = normalizer.get("type") == "Replace" and normalizer.get("content") == "▁"
    return (
        spec["model"].get("type") == "BPE"
        and blanks
        and (normalizer.get("pattern") or {}).get("String") == " "
        and (split is None or (split.get("type") == "Split" and (split.get("pattern") or {}).get("String") == " "))
    )


def _scores(tokens: list[str], types: list[int], merges: list[Any]) -> list[float]:
    """The place, counted down, of the first merge that makes each token."""
    found: dict[str, float] = {}
    for place, merge in enumerate(merges):
        first, second = merge.split(" ") if isinstance(merge, str) else merge
        found.setdefault(first + second, -float(place))
    return [
        found.get(token, _UNSCORED) if kind == NORMAL else _UNSCORED for token, kind in zip(tokens, types, strict=True)
    ]


def _flatten(node: dict[str, Any] | None) -> tuple[tuple[str, Any], ...]:
    if node is None:
        return ()
    kind = node["type"]
    if kind == "Sequence":
        return tuple(step for part in node["pretokenizers"] for step in _flatten(part))
    if kind == "ByteLevel":
        return ((kind, bool(node.get("use_regex", True))),) if not node.get("add_prefix_space") else ((kind, None),)
    if kind == "Split":
        plain = node.get("behavior") == "Isolated" and not node.get("invert")
        return ((kind, (node.get("pattern") or {}).get("Regex") if plain else None),)
    if kind == "Digits":
        return ((kind, bool(node.get("individual_digits"))),)
    return ((kind, None),)


def looks_special(token: str) -> bool:
    """llama.cpp's converter takes added tokens of this look for control tokens even where the tokenizer does not."""
    return token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(
        token.startswith(start) and token.endswith(end)
        for start, end in (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
    )


def is_control(token: Any) -> bool:
    """Whether an added token of a tokenizer is a control token in a GGUF."""
    return bool(token.special) or looks_special(token.content)


def written(token: str) -> str:
    """An added token, or a run of SentencePiece's blanks, as it stands in a text."""
    return token.replace("▁", " ")


def _tokens(tokenizer: Any, vocabulary: dict[str, int], size: int) -> tuple[list[str], list[int]]:
    by_id = {number: token for token, number in vocabulary.items()}
    added = tokenizer.added_tokens_decoder
    tokens, types = [], []
    for number in range(size):
        token = by_id.get(number)
        if token is None:
            tokens.append(f"[PAD{number}]")
            types.append(UNUSED)
        elif number in added:
            control = is_control(added[number])
            tokens.append(token if control else written(token))
            types.append(CONTROL if control else USER_DEFINED)
        else:
            tokens.append(token)
            types.append(BYTE if _BYTE.fullmatch(token) else NORMAL)
    return tokens, types


def _merges(merges: list[Any]) -> list[str]:
    """One string a merge; a space inside a half is written as its byte-level stand-in."""
    return [
        merge if isinstance(merge, str) else " ".join(part.replace(" ", chr(ord(" ") + 256)) for part in merge)
        for merge in merges
    ]


def _special(folder: Path, tokenizer: Any) -> dict[str, int]:
    """bos, eos, unk and pad as the files name them, without the pad that training may have chosen."""
    path = folder / "tokenizer_config.json"
    named = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {}
    for kind, key in (("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")):
        token = named.get(key)
        text = token.get("content") if isinstance(token, dict) else token
        number = tokenizer.convert_tokens_to_ids(text) if text else None
        if number is not None:
            found[kind] = int(number)
    if "eos" not in found and tokenizer.eos_token_id is not None:
        found["eos"] = int(tokenizer.eos_token_id)
    return found


def _ends_of_turns(tokenizer: Any) -> tuple[int | None, int | None]:
    """What closes an assistant's turn, and one with calls where that is another token."""
    try:
        markup = probe(tokenizer)
    except DataError:
        return None, None
    return markup.end_id, markup.call_end_id


def _adds_bos(tokenizer: Any) -> bool:
    ids = tokenizer("x").input_ids
    return bool(tokenizer.bos_token_id is not None and ids and ids[0] == tokenizer.bos_token_id)


def _begins_with_bos(tokenizer: Any) -> bool:
    """Whether its chats do, as far as it has a template: llama.cpp would put one before each that has none."""
    if not tokenizer.chat_template:
        return True
    try:
        text = render(tokenizer, [{"role": "user", "content": "quartz"}])
    except DataError:
        return True
    return text.startswith(str(tokenizer.bos_token))


def chat_template(tokenizer: Any) -> str | None:
    """The template that a file gets: the tokenizer's own, the default one where it has several."""
    template = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template
