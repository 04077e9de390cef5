"""Whether a GGUF is one to hand to llama.cpp, which aborts or hangs on some that are none.

Looked at are sizes and counts, each against what a model has to have and against the rest of the file, where every
tensor lies, and the chat template, which is rendered once in bounds. The weights themselves are not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from toolkit.data.sandbox import render_template
from toolkit.data.spending import LimitError
from toolkit.errors import ModelError
from toolkit.gguf_raw import MAGIC, RawGguf, RawTensor, read_raw

TEMPLATE = "tokenizer.chat_template"
LONGEST_TEMPLATE = 1_000_000
# Whole numbers of an architecture by the ends of their keys, and the largest that a model has to have.
_LARGEST = {
    "block_count": 2_000,
    "context_length": 2**24,
    "embedding_length": 1_000_000,
    "feed_forward_length": 4_000_000,
    "vocab_size": 10_000_000,
    "expert_count": 10_000,
    "expert_used_count": 10_000,
    "attention.head_count": 100_000,
    "attention.head_count_kv": 100_000,
    "attention.key_length": 100_000,
    "attention.value_length": 100_000,
    "rope.dimension_count": 100_000,
}
_NEEDED = ("block_count", "context_length", "embedding_length", "attention.head_count")
_OTHER_NUMBERS = 2**32 - 1
_TOKENS = "tokenizer.ggml.tokens"
_BESIDE_TOKENS = ("tokenizer.ggml.token_type", "tokenizer.ggml.scores")
_POINTER = b"version https://git-lfs.github.com/spec/"
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


def check_gguf(path: Path, *, adapter: bool = False) -> None:
    """Raise `ModelError` with the file and the key or tensor that is wrong. `adapter`: it is a LoRA, not a model.

    A file that passed is not looked at again until it changes.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    with path.open("rb") as file:
        if not (begin := file.read(len(_POINTER))).startswith(MAGIC):
            why = "it does not begin with GGUF" if begin else "it is empty"
            if begin == _POINTER:
                why = "it is Git LFS's pointer to one: `git lfs pull` in its folder fetches it"
            raise ModelError(f"{path}: not a GGUF file ({why})")
    stat = path.stat()
    _check(path, adapter, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=64)
def _check(path: Path, adapter: bool, stamp: tuple[int, int, int]) -> None:
    raw = read_raw(path)
    check_tensors(raw)
    arch = read_key(raw, "general.architecture")
    if not isinstance(arch, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", arch):
        raise _wrong(raw, "general.architecture", arch, "the name of an architecture")
    for key, value in _numbers(raw, arch):
        most = _LARGEST.get(key.removeprefix(f"{arch}."), _OTHER_NUMBERS)
        least = 1 if key.removeprefix(f"{arch}.") in _NEEDED else 0
        if isinstance(value, float) and not math.isfinite(value):
            raise _wrong(raw, key, value, "a finite number")
        if not isinstance(value, float) and not least <= value <= most:
            raise _wrong(raw, key, value, f"{least} to {most:,}")
    if adapter:
        return
    parts = _parts(raw)
    for key in _NEEDED:
        if f"{arch}.{key}" not in raw.keys and not parts:
            raise ModelError(f"{path}: {arch}.{key} is missing")
    if not parts:
        _check_blocks(raw, arch)
        _check_vocabulary(raw)
    _check_template(raw)
    for part in parts:
        if part != path:
            check_tensors(read_raw(part))


def _numbers(raw: RawGguf, arch: str) -> Iterator[tuple[str, float]]:
    for key in raw.keys:
        if key.startswith(f"{arch}."):
            value = read_key(raw, key)
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, (int, float)) and not isinstance(one, bool):
                    yield key, one


def check_tensors(raw: RawGguf) -> None:
    """Raise `ModelError` for a tensor that is not all there, or of a shape or type that is none."""
    size = raw.path.stat().st_size
    names: set[str] = set()
    for tensor in raw.tensors:
        if tensor.name in names:
            raise ModelError(f"{raw.path}: {tensor.name[:80]} stands in it twice")
        names.add(tensor.name)
        if min(tensor.shape) < 1:
            raise ModelError(f"{raw.path}: {tensor.name[:80]} has shape {list(tensor.shape)}")
        if tensor.offset + tensor_bytes(raw.path, tensor) > size:
            raise ModelError(f"{raw.path}: not a readable GGUF ({tensor.name[:80]} is cut short)")


def tensor_bytes(path: Path, tensor: RawTensor) -> int:
    """Bytes of a tensor's data. Raises `ModelError` for an unknown type, and for rows that its blocks don't fill."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType  # with numpy and all of gguf, for sizes alone

    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
    except (ValueError, KeyError):
        raise ModelError(
            f"{path}: holds a tensor of type {tensor.kind}, which the gguf package does not know ({tensor.name[:80]})"
        ) from None
    if tensor.shape[-1] % block:
        raise ModelError(f"{path}: {tensor.name[:80]} has rows of {tensor.shape[-1]} values, in blocks of {block}")
    return math.prod(tensor.shape) // block * size


def _parts(raw: RawGguf) -> list[Path]:
    """All files of a model that is split over several; none for one that is whole."""
    count = read_key(raw, "split.count")
    if not isinstance(count, int) or count < 2:
        return []
    named = _PART.search(raw.path.name)
    if named is None or int(named[2]) != count or count > 1000:
        raise _wrong(raw, "split.count", count, f"NAME-00001-of-{min(count, 99999):05d}.gguf for the file's name")
    stem = raw.path.name[: named.start()]
    parts = [raw.path.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise ModelError(f"{raw.path}: its part {missing[0]} is not there")
    return parts


def _check_blocks(raw: RawGguf, arch: str) -> None:
    count = read_key(raw, f"{arch}.block_count")
    found = {match[1] for tensor in raw.tensors if (match := re.search(r"(?:^|\.)blk\.(\d{1,9})\.", tensor.name))}
    if len(found) != count or (found and max(map(int, found)) != count - 1):
        raise _wrong(raw, f"{arch}.block_count", count, f"{len(found)}, as many as there are blocks of tensors")


def _check_vocabulary(raw: RawGguf) -> None:
    tokens = _length(raw, _TOKENS)
    if not tokens:
        return
    for key in _BESIDE_TOKENS:
        beside = _length(raw, key)
        if beside is not None and beside != tokens:
            raise ModelError(f"{raw.path}: {key} has {beside:,} items, {_TOKENS} {tokens:,}")
    embedding = next((tensor for tensor in raw.tensors if tensor.name == "token_embd.weight"), None)
    if embedding is not None and (len(embedding.shape) != 2 or embedding.shape[0] != tokens):
        raise ModelError(
            f"{raw.path}: token_embd.weight has shape {list(embedding.shape)}, but {_TOKENS} has {tokens:,} items"
        )


def _length(raw: RawGguf, key: str) -> int | None:
    """Items of a list, read without the list."""
    value = raw.keys.get(key)
    if value is None:
        return None
    start = 8 + len(key.encode())
    if int.from_bytes(value[start : start + 4], "little") != 9:
        raise ModelError(f"{raw.path}: {key} is no list")
    return int.from_bytes(value[start + 8 : start + 16], "little")


def _check_template(raw: RawGguf) -> None:
    template = read_key(raw, TEMPLATE)
    if template is None:
        return
    if not isinstance(template, str) or len(template) > LONGEST_TEMPLATE:
        raise ModelError(f"{raw.path}: {TEMPLATE} is no text of at most {LONGEST_TEMPLATE:,} characters")
    refuse_endless(template, f"{raw.path}: {TEMPLATE}")


def refuse_endless(template: str, where: str) -> None:
    """Raise `ModelError` when a chat template loops, writes or calls itself without end on small chats.

    That it refuses them, or is written for another engine, is no fault here.
    """
    said = (("user", "Hi"), ("assistant", "Yes"), ("user", "So"))
    chat = [{"role": role, "content": content} for role, content in said]
    values: dict[str, Any] = {"add_generation_prompt": True, "bos_token": "", "eos_token": ""}
    tool = {"name": "f", "description": "", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
    for messages in (chat[:1], chat, [{"role": "system", "content": "Be brief"}, *chat]):
        for tools in (None, [{"type": "function", "function": tool}]):
            try:
                render_template(template, {**values, "messages": messages, "tools": tools})
            except LimitError:
                raise ModelError(f"{where} loops or writes more than any chat needs: it is not used") from None
            except RecursionError:
                raise ModelError(f"{where} calls itself without end: it is not used") from None
            except Exception:  # a program of somebody else's
                continue


def read_key(raw: RawGguf, key: str) -> Any:
    """A key's value, None where there is none. Raises `ModelError` with the file and the key."""
    try:
        return raw.value(key)
    except (ValueError, KeyError, OverflowError, MemoryError) as error:
        raise ModelError(f"{raw.path}: {key} can't be read ({error})") from None


def _wrong(raw: RawGguf, key: str, value: Any, wanted: str) -> ModelError:
    return ModelError(f"{raw.path}: {key} = {str(value)[:40]}, wanted {wanted}")
