"""Tokenizers from local folders, and what identifies them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from toolkit.errors import DataError, ModelError, first_line
from toolkit.machine import is_short
from toolkit.trusted import load_auto_tokenizer

# All files that can change what a text is tokenised to, or what the template writes.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_PAD_NAMES = ("<|endoftext|>", "<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>", "<unk>")


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a local model folder, with a pad token that is not the end token.

    Where the two are one (SmolLM2), another special token that exists already becomes the pad token: were it the end
    token, masking the padding would mask every answer's end, and the model would never learn to stop. None is added.
    Raises `ModelError` when there is no tokenizer, `DataError` when no token can serve as padding.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{folder}: no tokenizer here (tokenizer.json was looked for)")
    try:
        tokenizer = load_auto_tokenizer(folder)
    except ModelError:
        raise
    except Exception as error:  # a broken tokenizer.json raises whatever the first thing missing from it raises
        if is_short(error):
            raise
        raise ModelError(
            f"{folder}: the tokenizer can't be read: {type(error).__name__}: {first_line(error)}"
        ) from error
    template = tokenizer.chat_template
    if template and not all(
        isinstance(one, str) for one in (template.values() if isinstance(template, dict) else [template])
    ):
        file = next(name for name in ("chat_template.json", "tokenizer_config.json") if (folder / name).is_file())
        raise ModelError(f"{folder / file}: chat_template = {str(template)[:40]}, wanted a text")
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{folder}: the tokenizer has no fast version, which the mask's token offsets need")
    ensure_pad(tokenizer)
    return tokenizer


def ensure_pad(tokenizer: Any) -> None:
    """Give `tokenizer` a pad token other than its end token, taken from its special tokens."""
    if tokenizer.pad_token is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    special = special_tokens(tokenizer)
    reserved = {tokenizer.eos_token, tokenizer.bos_token, "<|im_start|>", "<|im_end|>"}
    for name in (*_PAD_NAMES, *special):
        if name in special and name not in reserved:
            tokenizer.pad_token = name
            return
    raise DataError(
        f"the tokenizer's pad token is its end token {tokenizer.eos_token!r}, and it has no other special token that "
        "could be the padding; add a pad token to its tokenizer_config.json"
    )


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Text and id of every special token: text that must never come from a chat's content."""
    added = tokenizer.added_tokens_decoder
    found = {token.content: number for number, token in added.items() if token.special}
    for text in tokenizer.all_special_tokens:
        found.setdefault(str(text), tokenizer.convert_tokens_to_ids(str(text)))
    return found


def copy_tokenizer(source: Path, target: Path, template: str) -> None:
    """Put a tokenizer's files into another folder as they are, but for its chat template, which becomes `template`.

    Raises `OSError`.
    """
    for name in TOKENIZER_FILES:
        path = source / name
        if name.startswith("chat_template") or not path.is_file():
            continue
        values = json.loads(path.read_text(encoding="utf-8")) if name == "tokenizer_config.json" else {}
        if values.pop("chat_template", None) is None:
            shutil.copyfile(path, target / name)
        else:
            (target / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (target / "chat_template.jinja").write_text(template, encoding="utf-8")


def tokenizer_key(folder: Path) -> str:
    """Hash of the content of the tokenizer's files and chat template; imports nothing heavy."""
    digest = hashlib.sha256()
    named = sorted(path.relative_to(folder).as_posix() for path in folder.glob("additional_chat_templates/*.jinja"))
    for name in (*TOKENIZER_FILES, *named):
        path = folder / name
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{name}:{len(content)}:".encode())
            digest.update(content)
    return digest.hexdigest()[:16]
