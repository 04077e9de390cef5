"""merged/: a Hugging Face model folder of 16-bit safetensors, written one tensor at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.export.architecture import read_config
from toolkit.export.tensors import Weights
from toolkit.export.writer import Advance, require_f16

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 4 * 2**30
_NAMES = {"bfloat16": "BF16", "float16": "F16"}
_COPIED = ("generation_config.json", "tokenizer*", "*.jinja", "vocab.json", "merges.txt", "special_tokens_map.json")
_COPIED_TOO = ("added_tokens.json", "chat_template.json")


def write_merged(
    folder: Path,
    weights: Weights,
    base_folder: Path,
    dtype: str,
    advance: Advance = lambda count: None,
    shard_bytes: int = SHARD_BYTES,
) -> list[Path]:
    """Write the weights as `dtype` (bfloat16 or float16) with the base's config and tokenizer; returns the files.

    Raises `Float16OverflowError` where float16 can't hold a weight.
    """
    folder.mkdir(parents=True)
    shards = list(_shards(weights.architecture.tensors, shard_bytes))
    names = [_file_name(number, len(shards)) for number in range(len(shards))]
    for file, shard in zip(names, shards, strict=True):
        _write_shard(folder / file, shard, dtype, weights.read, advance)
    if len(shards) > 1:
        where = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": sum(_bytes(shape) for shard in shards for shape in shard.values())}}
        (folder / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": where}, indent=2))
    config: dict[str, Any] = {**read_config(base_folder), "architectures": [weights.architecture.class_name]}
    config["dtype"] = dtype
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for pattern in (*_COPIED, *_COPIED_TOO):
        for path in base_folder.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    return [folder / file for file in names]


def _bytes(shape: tuple[int, ...]) -> int:
    count = 2
    for size in shape:
        count *= size
    return count


def _shards(tensors: dict[str, tuple[int, ...]], limit: int) -> Iterator[dict[str, tuple[int, ...]]]:
    shard: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in tensors.items():
        if shard and size + _bytes(shape) > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += _bytes(shape)
    yield shard


def _file_name(number: int, shards: int) -> str:
    return "model.safetensors" if shards == 1 else f"model-{number + 1:05d}-of-{shards:05d}.safetensors"


def _write_shard(
    path: Path,
    shard: dict[str, tuple[int, ...]],
    dtype: str,
    read: Callable[[str], torch.Tensor],
    advance: Advance,
) -> None:
    """The safetensors format: the header's length, a JSON header with offsets, the tensors one after another."""
    import torch

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shard.items():
        begin, end = end, end + _bytes(shape)
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in shard:
            tensor = read(name)
            size = tensor.numel()
            if dtype == "float16":
                require_f16(tensor, name)
            tensor = tensor.to(getattr(torch, dtype))
            tensor.contiguous().view(torch.int16).numpy().tofile(file)
            del tensor
            advance(4 * size)
