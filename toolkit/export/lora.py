"""The adapter alone as a GGUF: for llama.cpp's --lora and Ollama's ADAPTER, on top of any GGUF of the base model."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import ModelError
from toolkit.export.adapter import Adapter
from toolkit.export.architecture import Architecture
from toolkit.export.writer import FILE_TYPES, QUANTIZATION_VERSION, Metadata, require_f16


def check_lora(adapter: Adapter) -> None:
    """Raise `ModelError` where an adapter does more than low-rank products, which is all that llama.cpp adds."""
    reasons = []
    if adapter.dora:
        reasons.append("DoRA")
    if adapter.replaced:
        reasons.append(f"whole weights or biases trained ({sorted(adapter.replaced)[0]} the first)")
    if any(pair.embedding for pair in adapter.pairs.values()):
        reasons.append("an adapter on the embedding")
    if reasons:
        raise ModelError(
            f"{adapter.folder}: {' and '.join(reasons)} can't be in a LoRA GGUF; export the merged model instead "
            "(leave --lora and --adapter-only out)"
        )


def write_lora(path: Path, adapter: Adapter, architecture: Architecture, metadata: Metadata) -> dict[str, int]:
    """Write the adapter in float16; returns how many tensors have which type. Raises `ModelError`.

    llama.cpp multiplies by alpha / r with one alpha for the whole file and each module's own r. So alpha is written as
    what gives training's scale (alpha * sqrt(r) for rsLoRA), and where modules differ, B carries the difference.
    """
    import gguf
    import torch

    check_lora(adapter)
    first = next(iter(adapter.pairs.values()))
    alpha = first.scale * first.rank
    writer = gguf.GGUFWriter(path, architecture.arch)
    writer.add_type("adapter")
    writer.add_name(metadata.name)
    if metadata.base_name:
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, metadata.base_name)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_file_type(FILE_TYPES["F16"])
    writer.add_quantization_version(QUANTIZATION_VERSION)
    written = 0
    for name in architecture.tensors:
        pair = adapter.pairs.get(name)
        if pair is None:
            continue
        a, b = adapter.tensor(pair.a), adapter.tensor(pair.b)
        b *= pair.scale * pair.rank / alpha
        a, b = architecture.columns_to_gguf(name, a), architecture.rows_to_gguf(name, b)
        for piece in architecture.gguf_parts[name]:
            for kind, tensor in (("lora_a", a), ("lora_b", b[piece.rows])):
                require_f16(tensor, f"{name}.{kind}")
                writer.add_tensor(f"{piece.name}.{kind}", tensor.to(torch.float16).contiguous().numpy())
                written += 1
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"F16": written}
