"""A GGUF read without the `gguf` package's reader says what that reader says."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.export.shapes import base_model
from toolkit.errors import ModelError
from toolkit.export.export import export
from toolkit.export.verify.files import GgufFile
from toolkit.gguf_raw import read_raw


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("files")
    base = base_model(root / "base", hidden_size=256, intermediate_size=320, head_dim=64)
    types = ["f16", "bf16", "q8_0", "q4_k_m"]
    return export(base, gguf=types, out=root / "out", merged=False, verify=False).ggufs()


def test_every_key(files: list[Path]) -> None:
    raw, reader = read_raw(files[0]), gguf.GGUFReader(files[0])
    keys = [key for key in reader.fields if not key.startswith("GGUF.")]
    assert list(raw.keys) == keys and len(keys) > 20
    for key in keys:
        assert raw.value(key) == reader.fields[key].contents(), key
    assert raw.value("no.such.key") is None


@pytest.mark.parametrize("threads", [1, 3])
def test_every_tensor(files: list[Path], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.export.verify.files._CHUNK", 5000)  # several parts, the last one short
    kinds = set()
    for path in files:
        file = GgufFile(path, threads)
        for tensor in gguf.GGUFReader(path).tensors:
            wanted = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            found = list(file.parts(tensor.name, lambda start, stop, values: (start, stop, values)))
            assert [start for start, _, _ in found] == [0, *(stop for _, stop, _ in found[:-1])]
            whole = np.concatenate([values for _, _, values in found])
            assert whole.dtype == np.float32 and np.array_equal(whole, wanted)
            assert file.shape(tensor.name) == wanted.shape and file.kind(tensor.name) == tensor.tensor_type.name
            kinds.add(file.kind(tensor.name))
    assert kinds >= {"F32", "F16", "BF16", "Q8_0", "Q4_K", "Q6_K"}


def test_what_can_not_be_read(files: list[Path], tmp_path: Path) -> None:
    whole = files[2].read_bytes()
    path = tmp_path / "x.gguf"
    for size in (0, 3, 20, 100, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"x\.gguf: not a "):
            GgufFile(path)
    path.write_bytes(
        whole.replace(b"qwen3.block_count" + struct.pack("<I", 4), b"qwen3.block_count" + struct.pack("<I", 99))
    )
    with pytest.raises(ModelError, match="its header is broken"):
        GgufFile(path)
    with pytest.raises(ModelError, match="No such file"):
        GgufFile(tmp_path / "none.gguf")
