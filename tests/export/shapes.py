"""Tiny bases and adapters for the export's tests: random, but with every feature that a merge has to know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny import OWN, make_model

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def base_model(
    folder: Path, family: str = "qwen3", *, tied: bool = True, dtype: str = "bfloat16", **config: Any
) -> Path:
    """A tiny model folder with 16-bit weights whose rows 32 divides (so that every quant can hold them)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    make_model(folder, family)
    tied = tied and OWN.get(family, {}).get("tie_word_embeddings", True)
    shape = {**json.loads((folder / "config.json").read_text()), "tie_word_embeddings": tied, **config}
    for derived in ("architectures", "layer_types", "model_type", "dtype", "time_step_limit"):
        shape.pop(derived, None)
    shape |= {key: value for key, value in OWN.get(family, {}).items() if key == "layer_types"}
    torch.manual_seed(1)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith(".bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
            else:
                parameter.mul_(4)  # so that logits tell models apart
    for path in folder.glob("*.safetensors"):
        path.unlink()
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    assert AutoModelForCausalLM.from_pretrained(folder).config.tie_word_embeddings == tied
    return folder


def adapter(folder: Path, base: Path, seed: int = 0, **settings: Any) -> Path:
    """A PEFT adapter of random A and B (and whatever else trains) on `base`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    )
    peft = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if parameter.requires_grad:
                spread = 0.1 if "magnitude" in name or "lora_" not in name else 0.05
                parameter.add_(spread * torch.randn_like(parameter))
    peft.save_pretrained(folder)
    return folder


def peft_logits(base: Path, adapter_folder: Path | None, ids: list[int], held: Any = None) -> Any:
    """float32 logits [T, V] of transformers and PEFT, the adapter not merged."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter_folder is not None:
        model = PeftModel.from_pretrained(model, str(adapter_folder))
    model.eval()
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0]
