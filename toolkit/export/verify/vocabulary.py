"""Tokens that llama.cpp takes for others than the file says, found by asking it, and training's tokenizer likewise.

llama.cpp knows the texts of some tokens (`</s>`, `<|eot_id|>`, `<fim_prefix>`, ...) and makes them control tokens, or
plain ones, in any file. Which ones differs between its versions, so nothing is listed here: every token of the file
that is more than letters and digits is put to it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import ModelError
from toolkit.export.tokenizer import CONTROL, NORMAL, USER_DEFINED, is_control, read_tokenizer, written

if TYPE_CHECKING:
    from toolkit.export.verify.files import GgufFile
    from toolkit.inference.gguf import GgufModel

_MARK = re.compile(r"<[^<>\s]{1,40}>|\[[A-Z][A-Z_]{1,20}\]|</s>")
_WORD = re.compile(r"▁?[^\W_]+")
_IN_A_TEXT = 8  # tokens of a text that is tokenised by both
_MOST_MARKS = 160  # ordinary tokens that look like control tokens
_TOGETHER = 400  # tokens that are put to llama.cpp as one text


@dataclass(frozen=True, slots=True)
class Override:
    """A token that llama.cpp makes a control token (`control`), or a plain one, against what the file says."""

    token: str
    id: int
    control: bool

    def __str__(self) -> str:
        return f"{self.token!r} {'a control token' if self.control else 'plain text'}"


def own_marks(tokenizer: Any) -> list[str]:
    """Texts that hold every added token of a tokenizer, as it is written in a text, and ordinary tokens that look like
    control tokens."""
    added = {
        number: token.content if is_control(token) else written(token.content)
        for number, token in sorted(tokenizer.added_tokens_decoder.items())
    }
    plain = [token for token, number in tokenizer.get_vocab().items() if number not in added and _MARK.fullmatch(token)]
    plain = sorted(plain, key=lambda token: (len(token), token))
    step = max(1, len(plain) // _MOST_MARKS)
    tokens = [*added.values(), *plain[::step]]
    chunks = [tokens[start : start + _IN_A_TEXT] for start in range(0, len(tokens), _IN_A_TEXT)]
    return ["".join(f"a{token} {token}\n{token}{token}" for token in chunk) for chunk in chunks]


def overrides(model: GgufModel, file: GgufFile) -> list[Override]:
    """The tokens of a file that llama.cpp takes for others than the file says."""
    tokens: list[str] = file.value("tokenizer.ggml.tokens")
    types: list[int] = file.value("tokenizer.ggml.token_type")
    pairs = zip(tokens, types, strict=True)
    plain = [token for token, kind in pairs if kind == NORMAL and not _WORD.fullmatch(token)]
    more: Counter[int] = Counter()
    for text in _texts(plain):
        more += Counter(model.tokenize(text)) - Counter(model.tokenize(text, special=False))
    found = []
    for number in sorted(more):  # beside the tokens looked for there are those that stand next to them
        inside = f"a{tokens[number]}a"
        read = model.tokenize(inside)
        if types[number] == NORMAL and number in read and read != model.tokenize(inside, special=False):
            found.append(Override(tokens[number], number, control=True))
    marks = [number for number, kind in enumerate(types) if kind in (CONTROL, USER_DEFINED)]
    met = {number for text in _texts([tokens[number] for number in marks]) for number in model.tokenize(text)}
    for number in marks:
        if number not in met and number not in model.tokenize(f"a{tokens[number]}a"):
            found.append(Override(tokens[number], number, control=False))
    return found


def _texts(tokens: Sequence[str]) -> Iterator[str]:
    """All tokens, a line each, in several texts: behind every mark that it found, llama.cpp looks for every mark of the
    vocabulary up to the text's end."""
    return ("\n".join(tokens[start : start + _TOGETHER]) for start in range(0, len(tokens), _TOGETHER))


def with_overrides(tokenizer: Any, changed: Sequence[Override]) -> Any:
    """A tokenizer (of the library `tokenizers`) that cuts text as `tokenizer` would with these tokens changed."""
    from tokenizers import Tokenizer

    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    ids = {one.id for one in changed}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["id"] not in ids]
    spec["added_tokens"] += [
        {"id": one.id, "content": one.token, **flags, "special": True} for one in changed if one.control
    ]
    spec["added_tokens"].sort(key=lambda token: token["id"])
    return Tokenizer.from_str(json.dumps(spec))


def file_differs(file: GgufFile, folder: Path, rows: int) -> str:
    """Where a file's tokenizer is not the one in `folder`, for a model of `rows` rows; empty when it is."""
    try:
        wanted = read_tokenizer(folder, rows)
    except ModelError as error:
        return str(error)
    pairs: dict[str, Any] = {"pre": wanted.pre, "tokens": wanted.tokens, "token_type": wanted.types}
    pairs |= {"merges": wanted.merges} if wanted.scores is None else {"scores": wanted.scores}
    for key, value in pairs.items():
        if file.value(f"tokenizer.ggml.{key}") != value:
            return f"its tokenizer.ggml.{key} is not that of {folder}"
    return ""
