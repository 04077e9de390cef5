"""Files that qwen3.cpp must not see, and those that it may."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.test_sandbox import HOSTILE
from tests.export.shapes import base_model
from toolkit.errors import ModelError
from toolkit.export.export import export
from toolkit.gguf_raw import RawGguf, read_raw, write_header
from toolkit.inference.gguf_check import check_gguf

Keys = dict[str, bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gguf")
    return export(base_model(root / "base"), gguf=["q8_0"], out=root / "out", merged=False, verify=False).ggufs()[0]


def key(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


def put(name: str, kind: int, value: bytes) -> Callable[[Keys], object]:
    return lambda keys: keys.update({name: key(name, kind, value)})


def u32(name: str, value: int) -> Callable[[Keys], object]:
    return put(name, 4, struct.pack("<I", value))


def text(name: str, value: str) -> Callable[[Keys], object]:
    said = value.encode()
    return put(name, 8, struct.pack("<Q", len(said)) + said)


def rewritten(path: Path, raw: RawGguf, keys: Keys) -> Path:
    """The same tensors under other keys."""
    infos, data = [], []
    ends = [*(tensor.offset for tensor in raw.tensors[1:]), raw.path.stat().st_size]
    with raw.path.open("rb") as file:
        for tensor, end in zip(raw.tensors, ends, strict=True):
            file.seek(tensor.offset)
            data.append(file.read(end - tensor.offset))
            infos.append((tensor.name, tensor.shape, tensor.kind, len(data[-1])))
    with path.open("wb") as file:
        write_header(file, keys, infos)
        for piece in data:
            file.write(piece)
    return path


def test_an_export_of_ours_passes(whole: Path, tmp_path: Path) -> None:
    check_gguf(whole)
    raw = read_raw(whole)
    check_gguf(rewritten(tmp_path / "same.gguf", raw, dict(raw.keys)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (u32("qwen3.context_length", 2**31), "qwen3.context_length = 2147483648, wanted 1 to 16,777,216"),
        (u32("qwen3.context_length", 0), "qwen3.context_length = 0, wanted 1"),
        (u32("qwen3.block_count", 10**9), "qwen3.block_count = 1000000000, wanted 1 to 2,000"),
        (u32("qwen3.block_count", 3), "qwen3.block_count = 3, wanted 2, as many as there are blocks of tensors"),
        (u32("qwen3.block_count", 1), "qwen3.block_count = 1, wanted 2"),
        (u32("qwen3.embedding_length", 2**32 - 1), "qwen3.embedding_length = 4294967295, wanted 1 to 1,000,000"),
        (u32("qwen3.attention.head_count", 0), "qwen3.attention.head_count = 0, wanted 1"),
        (u32("qwen3.vocab_size", 2**31), "qwen3.vocab_size = 2147483648, wanted 0 to 10,000,000"),
        (put("qwen3.x", 10, struct.pack("<Q", 2**40)), "qwen3.x = 1099511627776, wanted 0 to 4,294,967,295"),
        (lambda keys: keys.pop("qwen3.block_count"), "qwen3.block_count is missing"),
        (put("qwen3.rope.freq_base", 6, struct.pack("<f", np.inf)), "qwen3.rope.freq_base = inf, wanted a finite"),
        (text("general.architecture", "../../x"), "general.architecture = ../../x, wanted the name of"),
        (u32("general.alignment", 3), "general.alignment = 3, wanted a power of two"),
        (u32("general.alignment", 2**30), "general.alignment = 1073741824, wanted"),
        (u32("split.count", 5), "split.count = 5, wanted NAME-00001-of-00005.gguf for the file's name"),
        (text("tokenizer.chat_template", HOSTILE["nested loops"]), "tokenizer.chat_template loops or writes more than"),
        (text("tokenizer.chat_template", HOSTILE["doubling"]), "tokenizer.chat_template loops or writes more than"),
        (text("tokenizer.chat_template", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), "calls itself"),
        (text("tokenizer.chat_template", "{% if messages[1] %}" + HOSTILE["times"] + "{% endif %}"), "loops or"),
        (text("tokenizer.chat_template", "x" * 1_100_000), "tokenizer.chat_template is no text of at most 1,000,000"),
        (u32("tokenizer.chat_template", 1), "tokenizer.chat_template is no text"),
        (u32("tokenizer.ggml.tokens", 1), "tokenizer.ggml.tokens is no list"),
        (put("tokenizer.ggml.token_type", 9, struct.pack("<IQi", 5, 1, 1)), "tokenizer.ggml.token_type has 1 items"),
        (put("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2**40)), "is cut short at tokenizer.ggml.tokens"),
        (put("x", 9, struct.pack("<IQ", 5, 2**61)), "not a readable GGUF"),
        (put("x", 8, struct.pack("<Q", 2**40)), "x is longer than the file"),
        (put("x", 8, struct.pack("<Q", 2**64 - 1)), "its header is broken at x"),
        (put("x", 9, struct.pack("<IQ", 9, 1)), "its header is broken at x"),
        (put("x", 77, b""), "its header is broken at x"),
        (lambda keys: keys.update({"x": keys["general.architecture"]}), "general.architecture stands in it twice"),
        (lambda keys: keys.update({"x": struct.pack("<Q", 2**50)}), "not a readable GGUF"),
    ],
)
def test_keys_that_are_none(whole: Path, tmp_path: Path, change: Callable[[Keys], object], said: str) -> None:
    raw = read_raw(whole)
    keys = dict(raw.keys)
    change(keys)
    path = rewritten(tmp_path / "x.gguf", raw, keys)
    with pytest.raises(ModelError) as caught:
        check_gguf(path)
    assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (8, 2**40, "1,099,511,627,776 tensors; at most 200,000 are read"),
        (16, 2**63, "9,223,372,036,854,775,808 keys; at most 10,000 are read"),
        (8, 0, "qwen3.block_count = 2, wanted 0"),
        (8, 10, "qwen3.block_count"),
        (8, 150_000, "not a readable GGUF"),
        (16, 9_999, "not a readable GGUF"),
        (0, 0, "it does not begin with GGUF"),
    ],
)
def test_counts_that_lie(whole: Path, tmp_path: Path, at: int, value: int, said: str) -> None:
    content = bytearray(whole.read_bytes())
    content[at : at + 8] = struct.pack("<Q", value)
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        check_gguf(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"GGU", "it does not begin with GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS's pointer to one: `git lfs pull`"),
    ],
)
def test_what_is_no_gguf_at_all(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a GGUF file") as caught:
        check_gguf(path)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"shape": (2**62, 64)}, "is cut short"),
        ({"shape": (0, 64)}, "has shape [0, 64]"),
        ({"shape": (64, 33)}, "has rows of 33 values, in blocks of 32"),
        ({"kind": 99}, "holds a tensor of type 99"),
        ({"name": "output_norm.weight"}, "output_norm.weight stands in it twice"),
    ],
)
def test_tensors_that_lie(whole: Path, tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    raw = read_raw(whole)
    infos = [(tensor.name, tensor.shape, tensor.kind, 32) for tensor in raw.tensors]
    number = next(n for n, tensor in enumerate(raw.tensors) if tensor.kind == 8)
    name, shape, kind, size = infos[number]
    infos[number] = (changed.get("name", name), changed.get("shape", shape), changed.get("kind", kind), size)
    path = tmp_path / "x.gguf"
    with path.open("wb") as file:
        write_header(file, raw.keys, infos)
        file.write(whole.read_bytes())
    with pytest.raises(ModelError) as caught:
        check_gguf(path)
    assert said in str(caught.value)


def test_a_file_in_parts_is_looked_at_whole(whole: Path, tmp_path: Path) -> None:
    raw = read_raw(whole)
    keys = dict(raw.keys)
    u32("split.count", 2)(keys)
    first = rewritten(tmp_path / "m-00001-of-00002.gguf", raw, keys)
    with pytest.raises(ModelError, match=r"its part m-00002-of-00002\.gguf is not there"):
        check_gguf(first)
    second = tmp_path / "m-00002-of-00002.gguf"
    second.write_bytes(whole.read_bytes()[:-5000])
    with pytest.raises(ModelError, match=r"00002-of-00002\.gguf: not a readable GGUF \(.* is cut short\)"):
        check_gguf(first)
    second.write_bytes(whole.read_bytes())
    check_gguf(first)


def test_any_byte_may_be_wrong(whole: Path, tmp_path: Path) -> None:
    """Either refused in one line or let through, never another error."""
    content, path = whole.read_bytes(), tmp_path / "x.gguf"
    draw = np.random.default_rng(0)
    header = content.index(b"tokenizer.ggml.tokens")
    for _ in range(150):
        spoilt = bytearray(content)
        for at in draw.integers(0, header, 3):
            spoilt[at] = draw.integers(0, 256)
        path.write_bytes(spoilt)
        try:
            check_gguf(path)
        except ModelError as error:
            assert str(error).startswith(f"{path}: ")
