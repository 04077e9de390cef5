"""The fast engine: Unsloth's FastLanguageModel with its fused LoRA kernels, on a CUDA GPU.

Importing Unsloth patches TRL, PEFT, transformers and torch for the whole process, so it has to come before them and a
process that has loaded this engine is Unsloth's for good.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.cache import cache_root
from toolkit.engines.adapter import check_modules, lora_settings, report_on
from toolkit.engines.attention import without_cudnn
from toolkit.engines.base import (
    Choice,
    Engine,
    EngineReport,
    Has,
    Launch,
    Loaded,
    Packing,
    Passes,
    Reason,
    is_installed,
)
from toolkit.engines.peft import Peft
from toolkit.engines.precision import weight_dtype
from toolkit.engines.setup import Checkpointing, Setup
from toolkit.errors import EngineError, first_line
from toolkit.hardware import Hardware
from toolkit.models.families import FAMILIES, UNKNOWN, family_of, left_out, more_to_close, not_fused
from toolkit.models.shape import ATTENTION, MLP, ModelShape
from toolkit.progress import without_bars
from toolkit.ranks import here
from toolkit.recipe.schema import Recipe
from toolkit.trusted import check_folder

LEAST = (7, 0)  # compute capability
LEAST_LOGITS, MOST_ROWS = 512 * 151_936, 4096  # that Unsloth's head makes at a time
LAYER = r"(?:.*\.)?layers\.\d+\.(.+)"
PARTS = {"qkv": ATTENTION[:3], "o": ATTENTION[3:], "mlp": MLP}  # that are fused, and the modules of each


class Unsloth(Engine):
    name = "unsloth"
    distributions = (*Peft.distributions, "unsloth", "unsloth_zoo", "xformers", "triton")
    timed_with = ("torch", "unsloth")
    automatic = 2
    gpu = "needed"
    patches = True
    whole_head = True
    recomputes_later = False
    launch = Launch(0.0080, 0.0035, 1.1)

    def lacks(self, hardware: Hardware, has: Has = is_installed) -> Iterator[Reason]:
        key, gpu = (("train", "engine"),), hardware.gpu
        if gpu is None:
            message = "unsloth needs a CUDA GPU and there is none here; --set train.engine=peft runs on the CPU"
            yield Reason(key, message, "no CUDA GPU here", needs="an NVIDIA GPU")
        elif gpu.capability < LEAST:
            least, found = (".".join(map(str, capability)) for capability in (LEAST, gpu.capability))
            why = f"Unsloth needs compute capability {least}, {gpu.name} has {found}"
            message = f"{why}; --set train.engine=peft goes without"
            yield Reason(key, message, why, needs=f"compute capability {least}")
        elif not has("unsloth"):
            mend = "is not installed; pip install -e '.[gpu]'"
            yield Reason(key, f"unsloth {mend}", f"Unsloth {mend}")

    def refuses(self, recipe: Recipe) -> Iterator[Reason]:
        lora, key = recipe.lora, ("train", "engine")
        if lora.bias != "none":
            message = f'"{lora.bias}" turns off the fused path that engine = "unsloth" is for; wanted "none", or "peft"'
            why = f"lora.bias = {lora.bias} turns Unsloth's fused LoRA path off"
            yield Reason((("lora", "bias"), key), message, why)
        if lora.use_dora:
            message = 'true turns off the fused path that engine = "unsloth" is for; wanted false, or engine = "peft"'
            yield Reason((("lora", "use_dora"), key), message, "Unsloth has no fused path for DoRA")
        packs, alien = recipe.train.micro_batch != "fixed", not_fused(recipe.model)
        if packs and alien:
            why = f"Unsloth has no layers of its own for {alien}, and transformers' would not know where chats begin"
            message = f'"unsloth" can\'t pack this model\'s chats: {why}; wanted "peft", or micro_batch = "fixed"'
            yield Reason((key, ("train", "micro_batch")), message, f"Unsloth has no layers of its own for {alien}")
        elif packs and (more := more_to_close(recipe.model, recipe.train.max_length)) is not None:
            message = f'"unsloth" can\'t pack this model\'s chats: {more}; wanted "peft", or micro_batch = "fixed"'
            yield Reason((key, ("train", "micro_batch")), message, f"Unsloth can't pack this model's chats: {more}")
        if left_out(recipe.model) is not None:
            message = '"unsloth" would load all of this model of text and images; wanted "peft" or "compiled"'
            yield Reason((key, ("model", "name")), message, "Unsloth would load all of this model of text and images")

    def reserves(self, recipe: Recipe) -> Iterator[Reason]:
        train = recipe.train
        if train.gradient_checkpointing == "unsloth" and train.engine != "auto":
            message = f'"unsloth" is a way of the unsloth engine; wanted true or false with engine = "{train.engine}"'
            yield Reason((("train", "gradient_checkpointing"), ("train", "engine")), message)

    def advantage(self, hardware: Hardware) -> str:
        assert hardware.gpu is not None  # it lacks one, else
        return f"fused kernels on {hardware.gpu.name}"

    def fast_path(self, recipe: Recipe, shape: ModelShape) -> Choice:
        """By the conditions that Unsloth checks itself."""
        family = FAMILIES.get(shape.model_type, UNKNOWN)
        if not family.fused_by_unsloth:
            return Choice("off", f"Unsloth has no fused functions for {shape.model_type}, and compiles it")
        targets = {name for name, _, _ in shape.lora_targets(recipe.lora.target_modules)}
        layers = range(shape.num_hidden_layers)
        counts = {}
        for part, names in PARTS.items():
            paths = [f"{'mlp' if part == 'mlp' else 'self_attn'}.{name}" for name in names]
            fused = [all(f"model.layers.{layer}.{path}" in targets for path in paths) for layer in layers]
            counts[part.upper()] = 0 if set(names) & set(shape.biased) else sum(fused)
        told = f"{', '.join(f'{count} {part}' for part, count in counts.items())} of {len(layers)} layers fused"
        if not any(counts.values()):
            return Choice("off", f"lora.target_modules leaves no whole group of modules to fuse ({told})")
        dropout = recipe.lora.lora_dropout
        return Choice("on", told + (f"; lora_dropout = {dropout:g} runs inside the kernels" if dropout else ""))

    def checkpointing(self, recipe: Recipe) -> Checkpointing:
        return "offloaded" if recipe.train.gradient_checkpointing == "unsloth" else super().checkpointing(recipe)

    def passes(self, setup: Setup) -> Passes:
        return Passes(13.0, 4.0, 3.0)

    def layer_activations(self, setup: Setup) -> float:
        """The fused functions keep inputs and gate and up; dropout adds masks of one byte an input feature."""
        shape = setup.shape
        qkv = shape.attention_size + 2 * shape.key_value_size
        elements = 2 * shape.intermediate_size + 2 * qkv + shape.attention_size + 3.5 * shape.hidden_size
        return setup.element * elements + setup.dropped

    def loss_transient(self, setup: Setup, tokens: int, trained: int) -> float:
        """Unsloth 2026.10.9's head runs over the trained tokens, a power of two of them at a time (`fused_linear_rows`
        of unsloth_zoo), with logits in fp32. The gradients of all hidden states are there twice when they are handed
        on, scaled."""
        hidden, vocab = setup.shape.hidden_size, setup.shape.vocab_size
        least = min(max(_power(LEAST_LOGITS // vocab), 512), MOST_ROWS)
        rows = min(max(_power(trained * hidden // vocab), least), MOST_ROWS, trained)
        return 4 * rows * (vocab + hidden) + 2 * setup.element * tokens * hidden

    def prepare(self) -> None:
        """Import Unsloth, before what it patches. Raises `EngineError` when it is too late or it can't load."""
        if "unsloth" in sys.modules:
            return
        early = [name for name in ("trl", "peft") if name in sys.modules]
        if early:
            raise EngineError(
                f"train.engine: unsloth must be imported before {' and '.join(early)}; start a new process"
            )
        os.environ.setdefault("UNSLOTH_DISABLE_STATISTICS", "1")
        os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(cache_root() / _code_folder()))
        try:
            import unsloth  # noqa: F401
        except (ImportError, NotImplementedError, RuntimeError, OSError) as error:
            raise EngineError(
                f"train.engine: unsloth does not load here ({first_line(error)[:200]}); "
                "`toolkit doctor` says what is missing, --set train.engine=peft goes without"
            ) from error

    def load(
        self, recipe: Recipe, folder: Path, tokenizer: Any, engine: Choice, precision: Choice, hardware: Hardware
    ) -> Loaded:
        """Of a family that Unsloth has no layers for, transformers' as Unsloth compiles them, and nothing is fused.

        Raises `EngineError` too when the fused path did not take every layer of another, because a run that silently
        falls back is not the run that was asked for."""
        self.prepare()
        import torch  # after Unsloth, which changes it
        from unsloth import FastLanguageModel

        check_folder(folder, weights=True)
        without_cudnn()
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
        fused, kind = family_of(model).fused_by_unsloth, model.config.model_type
        checkpointing = recipe.train.gradient_checkpointing
        model = FastLanguageModel.get_peft_model(
            model,
            random_state=recipe.train.seed,
            # "auto" turns it off again in some layers when training begins
            use_gradient_checkpointing=True if checkpointing == "auto" else checkpointing,
            max_seq_length=recipe.train.max_length,
            **lora_settings(recipe) | ({} if fused else _targets(recipe, model)),
        )
        if fused:
            report = report_on(recipe, model, engine, precision, "unsloth's dispatcher", patched_layers(model))
            check_patched(report, recipe)
        else:
            attention = f"{model.config._attn_implementation}; Unsloth has no fused layers for {kind}, and compiles it"
            report = report_on(recipe, model, engine, precision, attention)
            report.expected_layers = 0  # to be fused
        multiple = functools.partial(self.multiple, cuda=True, dynamic=True)
        return Loaded(model, tokenizer, report, Packing(packed_inputs, closed_rows, closed_rows, multiple))


def _targets(recipe: Recipe, model: Any) -> dict[str, str]:
    """All linear modules of the layers, as PEFT finds them: what Unsloth takes for them has no convolutions' (LFM2)."""
    if recipe.lora.target_modules != "all-linear":
        return {}
    from torch import nn

    places = (re.fullmatch(LAYER, name) for name, module in model.named_modules() if isinstance(module, nn.Linear))
    names = sorted({re.escape(place[1]) for place in places if place})
    return {"target_modules": rf"(?:.*\.)?layers\.\d+\.(?:{'|'.join(names)})"}


def _power(number: int) -> int:
    """The largest power of two that is not above `number`, 1 for 0."""
    return 1 << max(number.bit_length() - 1, 0)


def _code_folder() -> str:
    """Where Unsloth writes modules of its own for a model: ranks of a machine would write the same files at once."""
    rank = here().local_rank
    return f"unsloth_compiled_cache-{rank}" if rank else "unsloth_compiled_cache"


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
    """How many layers run Unsloth's fused QKV, output and MLP functions, read off the bound functions themselves.

    A part whose modules have biases (Qwen2's QKV) is left out: Unsloth has no fused function for it.
    """
    layers = model.get_base_model().model.layers
    counts = {part: 0 for part in PARTS if not _has_biases(layers[0], part)}
    for layer in layers:
        attention, mlp = layer.self_attn, layer.mlp
        fused = {
            "qkv": _is_fused(getattr(attention, "apply_qkv", None), "apply_lora_qkv"),
            "o": _is_fused(getattr(attention, "apply_o", None), "apply_lora_o"),
            "mlp": _is_fused(mlp.forward, "apply_lora_mlp"),
        }
        for part in counts:
            counts[part] += fused[part]
    return counts


def _has_biases(layer: Any, part: str) -> bool:
    modules = [getattr(layer.mlp if part == "mlp" else layer.self_attn, name, None) for name in PARTS[part]]
    return any(getattr(getattr(module, "base_layer", module), "bias", None) is not None for module in modules)


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
