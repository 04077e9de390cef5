"""The fast engine: Unsloth's FastLanguageModel with its fused LoRA kernels, on a CUDA GPU.

Importing Unsloth patches TRL, PEFT, transformers and torch for the whole process, so it has to come before them and a
process that has loaded this engine is Unsloth's for good.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.cache import cache_root
from toolkit.engines.base import (
    Choice,
    EngineReport,
    Loaded,
    Packing,
    check_modules,
    lora_settings,
    report_on,
    weight_dtype,
)
from toolkit.errors import EngineError
from toolkit.hardware import Hardware
from toolkit.recipe.schema import Recipe
from toolkit.terminal import without_bars
from toolkit.trusted import check_folder

PARTS = ("qkv", "o", "mlp")


def prepare() -> None:
    """Import Unsloth, before anything that it patches. Raises `EngineError` when it is too late or it can't load."""
    if "unsloth" in sys.modules:
        return
    early = [name for name in ("trl", "peft") if name in sys.modules]
    if early:
        raise EngineError(f"train.engine: unsloth must be imported before {' and '.join(early)}; start a new process")
    os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache_root() / "unsloth_compiled_cache"))
    try:
        import unsloth  # noqa: F401
    except (ImportError, NotImplementedError, RuntimeError, OSError) as error:
        raise EngineError(
            f"train.engine: unsloth does not load here ({str(error).strip().splitlines()[0][:200]}); "
            "`toolkit doctor` says what is missing, --set train.engine=peft goes without"
        ) from error


def load(recipe: Recipe, folder: Path, tokenizer: Any, engine: Choice, precision: Choice, hardware: Hardware) -> Loaded:
    """Load the model of `folder` through Unsloth and put a fresh adapter on it.

    Raises `EngineError` when the fused path did not take every layer, because a run that silently falls back is not
    the run that was asked for.
    """
    prepare()
    import torch
    from unsloth import FastLanguageModel

    check_folder(folder, weights=True)
    dtype = getattr(torch, weight_dtype(recipe, precision.value))
    with without_bars():
        model, _ = FastLanguageModel.from_pretrained(
            model_name=str(folder),
            max_seq_length=recipe.train.max_length,
            dtype=dtype,
            load_in_4bit=recipe.model.load_in_4bit,
            load_in_16bit=not recipe.model.load_in_4bit,
            # without this a 4-bit Qwen3 is replaced by another checkpoint with some layers left in 16 bits
            use_exact_model_name=True,
            local_files_only=True,
            trust_remote_code=False,
            device_map={"": 0},
        )
    check_modules(recipe, (name for name, _ in model.named_modules()))
    checkpointing = recipe.train.gradient_checkpointing
    model = FastLanguageModel.get_peft_model(
        model,
        random_state=recipe.train.seed,
        # "auto" turns it off again in some layers when training begins
        use_gradient_checkpointing=True if checkpointing == "auto" else checkpointing,
        max_seq_length=recipe.train.max_length,
        **lora_settings(recipe),
    )
    report = report_on(recipe, model, engine, precision, "unsloth's dispatcher", patched_layers(model))
    check_patched(report, recipe)
    return Loaded(model, tokenizer, report, Packing(packed_inputs, closed_rows, closed_rows))


def packed_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """A packed micro-batch as Unsloth's decoder takes it: rows' lengths in the order they stand in, int32 [rows].

    With `packed_seq_lengths` its attention is closed at the rows' edges and rows may together be longer than
    max_seq_length; positions restart where `position_ids` do. Filling is a row like others.
    """
    lengths = batch["cu_seq_lens"].diff()
    given = {name: batch[name] for name in ("input_ids", "labels", "position_ids")}
    return {**given, "packed_seq_lengths": lengths}


@contextmanager
def closed_rows(model: Any) -> Iterator[None]:
    """Packed rows attend in one launch also where Unsloth's dispatcher would run PyTorch's attention row by row.

    It does so with torch before 2.12 where neither FlashAttention's wheel nor xformers' loads: as many launches a layer
    as there are chats.
    """
    places: list[tuple[Any, Any]] = [
        (module, vars(module)["run_attention"])
        for name, module in list(sys.modules.items())
        if name.startswith("unsloth.models.") and "run_attention" in vars(module)
    ]
    for module, own in places:
        module.run_attention = functools.partial(attention_of_rows, own)
    try:
        yield
    finally:
        for module, own in places:
            module.run_attention = own


# named as Unsloth's dispatcher is called
def attention_of_rows(own: Callable[..., Any], config: Any, context: Any, Q: Any, K: Any, V: Any) -> Any:
    """Q [1, heads, tokens, size] and K, V to [1, tokens, heads, size]; `own` is Unsloth's way, for other cases."""
    from toolkit.kernels.packed_attention import attend, find_kernel

    usual = context.attention_mask is None and context.sliding_window is None and context.is_causal
    if context.seq_info is None or config.backend != "sdpa" or not usual or context.prefix_seg_info is not None:
        return own(config=config, context=context, Q=Q, K=K, V=V)
    _, edges, longest = context.seq_info
    kernel = find_kernel(Q.device, Q.dtype, Q.shape[-1])
    return attend(None, Q, K, V, None, cu_seq_lens=edges, longest=longest, kernel=kernel)[0]


def patched_layers(model: Any) -> dict[str, int]:
    """How many layers run Unsloth's fused QKV, output and MLP functions, read off the bound functions themselves."""
    counts = dict.fromkeys(PARTS, 0)
    for layer in model.get_base_model().model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        counts["qkv"] += _is_fused(getattr(attention, "apply_qkv", None), "apply_lora_qkv")
        counts["o"] += _is_fused(getattr(attention, "apply_o", None), "apply_lora_o")
        counts["mlp"] += _is_fused(mlp.forward, "apply_lora_mlp")
    return counts


def _is_fused(function: Any, prefix: str) -> bool:
    function = getattr(function, "__func__", function)
    return getattr(function, "__name__", "").startswith(prefix)


def check_patched(report: EngineReport, recipe: Recipe) -> None:
    """Raise `EngineError` unless every layer's every part is fused, where the recipe targets all linear layers."""
    if recipe.lora.target_modules != "all-linear" or recipe.lora.bias != "none":
        return
    short = {part: count for part, count in report.patched.items() if count != report.expected_layers}
    if short:
        raise EngineError(
            f"train.engine: Unsloth fused {short} of {report.expected_layers} layers, wanted all of them; this version "
            "pair is not one of the tested ones (`toolkit doctor`), or --set train.engine=peft"
        )
