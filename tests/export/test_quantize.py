"""Which tensor becomes which type, who computes it, and that the bytes are llama.cpp's."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.export.shapes import base_model
from tests.export.test_gguf import write
from toolkit.errors import EngineError, ModelError, ToolkitError
from toolkit.export import quantizers
from toolkit.export.merge import open_merged
from toolkit.export.quantize import _MIXTURE, backend_for, chunks, quant_type, quantize_gguf, tensor_type
from toolkit.gguf_raw import read_raw
from toolkit.recipe.checks import GGUF_QUANTS
from toolkit.versions import version_of

needs_libgguf = pytest.mark.skipif(
    not any(one.metadata["Name"] == "libgguf" for one in importlib.metadata.distributions()), reason="no libgguf"
)


@pytest.fixture(autouse=True)
def no_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has, the tests choose who computes."""
    monkeypatch.delenv("TOOLKIT_LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(importlib.util, "find_spec", hide(importlib.util.find_spec))


def hide(find: Any) -> Any:
    return lambda name, *rest: None if name == "llama_cpp" else find(name, *rest)


@pytest.fixture(scope="module")
def sixteen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 16-bit GGUF with rows of 256 and of 96, so that K-quants and their fallbacks are both met."""
    root = tmp_path_factory.mktemp("sixteen")
    base = base_model(root / "base", hidden_size=256, intermediate_size=96, head_dim=16, num_hidden_layers=3)
    write(root / "m.gguf", open_merged(base, None))
    return root / "m.gguf"


# from llama.cpp's own quantiser for a tied model of 8 layers with rows of 256
MIXTURE = {
    ("token_embd.weight", "Q4_K_M"): "Q6_K",
    ("token_embd.weight", "Q8_0"): "Q8_0",
    ("blk.0.attn_v.weight", "Q4_K_M"): "Q6_K",
    ("blk.1.attn_v.weight", "Q4_K_M"): "Q4_K",
    ("blk.0.attn_qkv.weight", "Q4_K_M"): "Q6_K",
    ("blk.1.attn_qkv.weight", "Q4_K_M"): "Q4_K",
    ("blk.0.shortconv.conv.weight", "Q4_K_M"): "F32",
    ("blk.0.ssm_conv1d.weight", "Q8_0"): "F32",
    ("blk.3.ffn_down.weight", "Q5_K_M"): "Q6_K",
    ("blk.4.ffn_down.weight", "Q5_K_M"): "Q5_K",
    ("blk.7.ffn_down.weight", "Q4_K_M"): "Q6_K",
    ("blk.3.ffn_up.weight", "Q4_K_M"): "Q4_K",
    ("blk.3.attn_q.weight", "Q6_K"): "Q6_K",
}


@pytest.mark.parametrize(("name", "quant"), MIXTURE)
def test_mixture(name: str, quant: str) -> None:
    assert tensor_type(name, (512, 256), quant, 8, tied=True) == MIXTURE[name, quant]


def test_among_the_layers_that_attend() -> None:
    """Where not all do, as LFM2's, their places are counted among themselves; down projections' among all."""
    valued = [2, 5, 8, 10, 12, 14]
    kinds = [tensor_type(f"blk.{layer}.attn_v.weight", (512, 256), "Q4_K_M", 16, True, valued) for layer in valued]
    assert kinds == ["Q4_K", "Q4_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K"]
    assert tensor_type("blk.1.ffn_down.weight", (512, 256), "Q4_K_M", 16, True, valued) == "Q6_K"


SIZES = st.integers(1, 64).map(lambda n: 8 * n)
NAMES = st.sampled_from(["token_embd", "output", "blk.0.attn_v", "blk.5.ffn_down", "blk.2.attn_q", "blk.1.ffn_gate"])


@given(NAMES, SIZES, st.sampled_from(sorted(_MIXTURE)), st.booleans())
def test_every_tensor_gets_a_type_that_can_hold_it(name: str, columns: int, quant: str, tied: bool) -> None:
    import gguf

    kind = gguf.GGMLQuantizationType[tensor_type(f"{name}.weight", (16, columns), quant, 6, tied)]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    assert columns % block == 0
    if columns % 32 == 0:
        # never fewer bits than the mixture's own type
        wanted, wanted_size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[_MIXTURE[quant]]]
        assert size / block >= wanted_size / wanted


@given(st.sampled_from(["output_norm", "blk.0.attn_q_norm", "blk.3.attn_norm"]), st.sampled_from(sorted(_MIXTURE)))
def test_vectors_stay_wide(name: str, quant: str) -> None:
    assert tensor_type(f"{name}.weight", (256,), quant, 4, tied=True) == "F32"
    assert tensor_type("blk.0.attn_q.bias", (256,), quant, 4, tied=True) == "F32"


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 10**6))
def test_chunks_cover_every_row_once(rows: int, columns: int, limit: int) -> None:
    found = list(chunks(rows, columns, limit))
    assert [row for start, stop in found for row in range(start, stop)] == list(range(rows))
    assert all((stop - start) * columns <= max(limit, columns) for start, stop in found)


def test_names() -> None:
    assert [quant_type(name) for name in GGUF_QUANTS] == ["F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]
    with pytest.raises(EngineError, match=r"q4km is no GGUF type .*did you mean q4_k_m\?"):
        quant_type("q4km")


# Relative error (root mean square) of normal values, with some room; the true ones are about 0.0051 to 0.071.
@needs_libgguf
@pytest.mark.parametrize(("quant", "most"), [("Q8_0", 0.007), ("Q6_K", 0.02), ("Q5_K_M", 0.04), ("Q4_K_M", 0.08)])
def test_dequantised_is_near(sixteen: Path, tmp_path: Path, quant: str, most: float) -> None:
    import gguf

    told: list[int] = []
    done = quantize_gguf(sixteen, tmp_path / "q.gguf", quant, told.append)
    assert done.backend.startswith("numpy" if quant == "Q8_0" else "libgguf 0.2.2")
    before = {tensor.name: tensor for tensor in gguf.GGUFReader(sixteen).tensors}
    after = gguf.GGUFReader(tmp_path / "q.gguf")
    assert [tensor.name for tensor in after.tensors] == list(before)
    assert after.fields["general.file_type"].contents() == gguf.LlamaFileType[f"MOSTLY_{quant}"]
    assert (
        after.fields["tokenizer.ggml.merges"].contents()
        == gguf.GGUFReader(sixteen).fields["tokenizer.ggml.merges"].contents()
    )
    total = 0
    for tensor in after.tensors:
        wide = gguf.quants.dequantize(before[tensor.name].data, before[tensor.name].tensor_type)
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert np.linalg.norm(found - wide) / np.linalg.norm(wide) <= (most if wide.ndim > 1 else 0), tensor.name
        total += 4 * wide.size
    assert sum(told) == total
    kinds = [tensor.tensor_type.name for tensor in after.tensors]
    assert done.tensor_types == {kind: kinds.count(kind) for kind in kinds}
    if quant == "Q4_K_M":
        assert {"Q4_K", "Q5_0", "Q6_K", "Q8_0", "F32"} == set(kinds)
        assert done.notes and "256 does not divide the rows of 6 tensors" in done.notes[0]


@needs_libgguf
def test_pieces_of_any_size_give_the_same_file(sixteen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.export import quantize

    quantize_gguf(sixteen, tmp_path / "whole.gguf", "Q4_K_M")
    monkeypatch.setattr(quantize, "chunks", lambda rows, columns: chunks(rows, columns, 3 * columns))
    quantize_gguf(sixteen, tmp_path / "pieces.gguf", "Q4_K_M")
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "pieces.gguf").read_bytes()


def test_never_from_a_quant(sixteen: Path, tmp_path: Path) -> None:
    quantize_gguf(sixteen, tmp_path / "q8.gguf", "Q8_0")
    with pytest.raises(ModelError, match="16-bit files only"):
        quantize_gguf(tmp_path / "q8.gguf", tmp_path / "again.gguf", "Q8_0")
    (tmp_path / "x.gguf").write_bytes(b"GGUX" + bytes(40))
    with pytest.raises(ModelError, match="not a GGUF file"):
        read_raw(tmp_path / "x.gguf")


def test_probe_bytes_are_llama_cpps() -> None:
    """numpy's exact quantisers give the recorded bytes for the types that they know."""
    import gguf

    rows = quantizers.probe_rows()
    assert hashlib.sha256(rows.tobytes()).hexdigest().startswith("7ec0887337b443ad")
    for kind in ("Q8_0", "Q5_0", "Q5_1"):
        packed = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind])
        assert hashlib.sha256(packed.tobytes()).hexdigest() == quantizers.PROBE_SHA256[kind]


@needs_libgguf
def test_libgguf_that_gives_other_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizers.load_libgguf.cache_clear()
    monkeypatch.setitem(quantizers.PROBE_SHA256, "Q5_K", "0" * 64)
    with pytest.raises(EngineError, match=r"does not give llama\.cpp's bytes for Q5_K"):
        quantizers.load_libgguf()


@needs_libgguf
def test_a_build_that_is_not_listed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizers.load_libgguf.cache_clear()
    monkeypatch.setattr(quantizers, "LIBGGUF_SHA256", {})
    assert "not listed, bytes as llama.cpp's" in quantizers.load_libgguf()[1]
    quantizers.load_libgguf.cache_clear()


def test_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizers.load_libgguf.cache_clear()
    monkeypatch.setattr(quantizers, "version_of", lambda name: version_of("no-such-distribution"))
    with pytest.raises(EngineError, match=r"nothing here can compute K-quants: pip install .*\[gguf\]"):
        backend_for("Q4_K_M")
    monkeypatch.setattr(quantizers, "version_of", lambda name: "9.9")
    with pytest.raises(EngineError, match=r"only 0\.2\.2 is checked"):
        backend_for("Q4_K_M")
    assert backend_for("Q8_0").startswith("numpy")


def program(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_llama_quantize_is_taken_before_libgguf(sixteen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    tool = program(tmp_path / "llama-quantize", f'echo "$@" > {told}; /bin/cp "$1" "$2"')
    monkeypatch.setenv("TOOLKIT_LLAMA_CPP", str(tmp_path))
    done = quantize_gguf(sixteen, tmp_path / "q.gguf", "Q4_K_M")
    assert done.backend == f"llama-quantize ({tool})"
    assert told.read_text().split()[:3] == [str(sixteen), str(tmp_path / "q.gguf"), "Q4_K_M"]
    assert backend_for("Q8_0").startswith("numpy")
    monkeypatch.delenv("TOOLKIT_LLAMA_CPP")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert backend_for("Q5_K_M") == f"llama-quantize ({tool})"
    program(tool, 'echo "no such type" >&2; exit 3')
    with pytest.raises(ToolkitError, match="Q4_K_M failed: no such type"):
        quantize_gguf(sixteen, tmp_path / "r.gguf", "Q4_K_M")
    monkeypatch.setenv("TOOLKIT_LLAMA_CPP", "/no/where")
    with pytest.raises(EngineError, match=r"TOOLKIT_LLAMA_CPP: no program /no/where/llama-quantize"):
        backend_for("Q4_K_M")
