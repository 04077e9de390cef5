"""What every engine gives back, and the choices that do not depend on the engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from toolkit.errors import EngineError, Problem, did_you_mean
from toolkit.hardware import Gpu, Hardware
from toolkit.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from toolkit.kernels.cuda_graphs import Recorder

EngineName = Literal["peft", "unsloth", "compiled"]
Precision = Literal["bf16", "fp16", "fp32"]
UNSLOTH_LEAST = (7, 0)  # compute capability


@dataclass(frozen=True, slots=True)
class Choice:
    """An automatic choice and why it was made. `note`: what the user should know beside it, as a faster setting."""

    value: str
    reason: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.value} ({self.reason})"


@dataclass(slots=True)
class EngineReport:
    """What an engine did. `patched` counts the layers whose forward the engine replaced, by part."""

    engine: Choice
    precision: Choice
    weights: str
    attention: str
    trainable: int
    total: int
    patched: dict[str, int] = field(default_factory=dict)
    expected_layers: int = 0
    versions: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


FILLED = 64  # tokens that packed micro-batches are filled up to, where an engine wants nothing else


class Multiple(Protocol):
    def __call__(self, tokens: int, *, recorded: bool) -> int: ...


def always(multiple: int) -> Multiple:
    """The same multiple whatever the size of micro-batches."""
    return lambda tokens, *, recorded: multiple


USUALLY = always(FILLED)


@dataclass(frozen=True, slots=True)
class Packing:
    """How an engine takes packed micro-batches, where it is not as transformers' attention interface does.

    `packed_inputs` turns a micro-batch of `toolkit.training.packing.pack` into what the base model's decoder takes,
    labels among it. `training` holds while a micro-batch goes forward and backward, `evaluating` while one only goes
    forward; both are handed the PEFT-wrapped model. `multiple`: what micro-batches are filled up to a multiple of, by
    the tokens of the largest and whether each length is recorded, as CUDA graphs are where no layer recomputes.
    `edges`: numbers of row edges are rounded up to a multiple of it. `known_lengths`: a new length costs more than
    filling.
    """

    packed_inputs: Callable[[dict[str, Any]], dict[str, Any]]
    training: Callable[[Any], AbstractContextManager[None]]
    evaluating: Callable[[Any], AbstractContextManager[None]]
    multiple: Multiple = USUALLY
    edges: int = 1
    known_lengths: bool = False


@dataclass(slots=True)
class Loaded:
    """A model with its adapter, ready for the trainer.

    `packing`: None for transformers' own attention interface. `recorder`: what replays micro-batches, where an engine
    has such a thing (`toolkit.kernels.cuda_graphs`).
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    report: EngineReport
    packing: Packing | None = None
    recorder: Recorder | None = None


def choose_engine(recipe: Recipe, hardware: Hardware, unsloth_installed: bool) -> Choice:
    """`train.engine`, or for `auto` Unsloth wherever it can run with its fused path, else plain PEFT.

    Raises `EngineError` when the engine asked for can't run here.
    """
    wanted = recipe.train.engine
    if wanted in ("peft", "compiled"):
        return Choice(wanted, "the recipe asks for it")
    if wanted == "unsloth":
        if hardware.gpu is None:
            raise EngineError(
                "train.engine: unsloth needs a CUDA GPU and there is none here; --set train.engine=peft runs on the CPU"
            )
        if too_old := _too_old(hardware.gpu):
            raise EngineError(f"train.engine: {too_old}; --set train.engine=peft goes without")
        if not unsloth_installed:
            raise EngineError("train.engine: unsloth is not installed; pip install -e '.[gpu]'")
        return Choice("unsloth", "the recipe asks for it")
    if hardware.gpu is None:
        return Choice("peft", "no CUDA GPU here")
    if too_old := _too_old(hardware.gpu):
        return Choice("peft", too_old)
    if not unsloth_installed:
        return Choice("peft", "Unsloth is not installed; pip install -e '.[gpu]'")
    if recipe.lora.bias != "none":
        return Choice("peft", f"lora.bias = {recipe.lora.bias} turns Unsloth's fused LoRA path off")
    if recipe.lora.use_dora:
        return Choice("peft", "Unsloth has no fused path for DoRA")
    return Choice("unsloth", f"fused kernels on {hardware.gpu.name}")


def _too_old(gpu: Gpu) -> str:
    """Why Unsloth can't run on a GPU; empty where it can."""
    if gpu.capability >= UNSLOTH_LEAST:
        return ""
    least, found = (".".join(map(str, capability)) for capability in (UNSLOTH_LEAST, gpu.capability))
    return f"Unsloth needs compute capability {least}, {gpu.name} has {found}"


def products_of(recipe: Recipe, engine: str) -> Literal["separate", "fused", "float8"]:
    """How an engine multiplies a recipe's frozen weights and adapters (`train.products`)."""
    if engine != "compiled":
        return "separate"
    if recipe.train.products != "auto":
        return recipe.train.products
    plain = not recipe.model.load_in_4bit and recipe.lora.bias == "none" and not recipe.lora.use_dora
    return "fused" if plain else "separate"


def choose_precision(recipe: Recipe, hardware: Hardware) -> Choice:
    """bf16, fp16 or fp32 for the matrix products; adapters and optimizer states stay fp32.

    Raises `EngineError` where the hardware can't do what the recipe asks.
    """
    train, dtype = recipe.train, recipe.model.dtype
    gpu = hardware.gpu
    if train.fp16:
        if gpu is None:
            raise EngineError("train.fp16: loss-scaled float16 needs a CUDA GPU and there is none here; leave it out")
        return Choice("fp16", "train.fp16 = true")
    if train.bf16 is True:
        if gpu is not None and not gpu.has_bf16:
            raise EngineError(
                f"train.bf16: {gpu.name} (compute capability {gpu.capability[0]}.{gpu.capability[1]}) has no bfloat16; "
                "set train.fp16 = true and leave train.bf16 out, as recipes/tools-t4.toml does"
            )
        return Choice("bf16", "train.bf16 = true")
    if train.bf16 is False or dtype == "float32":
        return Choice("fp32", "train.bf16 = false" if train.bf16 is False else "model.dtype = float32")
    if gpu is not None:
        if gpu.has_bf16:
            return Choice("bf16", f"{gpu.name} has bfloat16")
        return Choice("fp16", f"{gpu.name} has no bfloat16")
    if hardware.cpu_bf16:
        return Choice("bf16", "the CPU has bfloat16 products")
    return Choice("fp32", "the CPU has no bfloat16 products")


def check_hardware(recipe: Recipe, hardware: Hardware) -> None:
    """Raise one `EngineError` that names every setting which only works on a CUDA GPU, when there is none."""
    if hardware.gpu is not None:
        return
    only_gpu = {
        "train.optim": recipe.train.optim in ("adamw_8bit", "paged_adamw_8bit") and recipe.train.optim,
        "train.gradient_checkpointing": recipe.train.gradient_checkpointing == "unsloth" and "unsloth",
        "model.attn_implementation": recipe.model.attn_implementation == "flash_attention_2" and "flash_attention_2",
        "train.fp16": recipe.train.fp16 and "true",
    }
    instead = {
        "train.optim": "adamw_torch_fused",
        "train.gradient_checkpointing": "true",
        "model.attn_implementation": "sdpa",
        "train.fp16": "false",
    }
    problems = [
        Problem("", f"{key} = {value} needs a CUDA GPU and there is none here; --set {key}={instead[key]}")
        for key, value in only_gpu.items()
        if value
    ]
    if problems:
        raise EngineError(problems)


def check_installed(recipe: Recipe) -> None:
    """Raise one `EngineError` that names every package which a setting needs and which is not there."""
    wanted = []
    if recipe.model.load_in_4bit:
        wanted.append(("model.load_in_4bit", "true", "bitsandbytes"))
    if recipe.train.optim in ("adamw_8bit", "paged_adamw_8bit"):
        wanted.append(("train.optim", recipe.train.optim, "bitsandbytes"))
    problems = [
        Problem("", f"{key} = {value} needs {package}, which is not installed: pip install {package}")
        for key, value, package in wanted
        if importlib.util.find_spec(package) is None
    ]
    if problems:
        raise EngineError(problems)


def check_modules(recipe: Recipe, names: Iterable[str]) -> None:
    """Raise one `EngineError` that names every listed module which the model lacks; PEFT skips them without a word.

    `names` are those of the model's modules, as model.layers.0.self_attn.q_proj.
    """
    full = set(names)
    last = {name.rpartition(".")[2] for name in full}
    targets = recipe.lora.target_modules
    listed = {
        "lora.target_modules": [] if isinstance(targets, str) else targets,
        "lora.modules_to_save": recipe.lora.modules_to_save,
    }
    problems = [
        Problem("", f"{key}: the model has no module {name}{did_you_mean(name, last)}")
        for key, wanted in listed.items()
        for name in wanted
        if name not in full and not any(one.endswith(f".{name}") for one in full)
    ]
    if problems:
        raise EngineError(problems)


def weight_dtype(recipe: Recipe, precision: str) -> str:
    """The dtype the frozen base weights are held in: `model.dtype`, or the precision's own."""
    if recipe.model.dtype != "auto":
        return recipe.model.dtype
    return {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[precision]


def count_parameters(model: Any) -> tuple[int, int]:
    """(trainable, all) parameters; a 4-bit weight counts as the weights it packs, not as its bytes."""
    trainable = total = 0
    for parameter in model.parameters():
        shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
        count = parameter.numel() if shape is None else int(shape.numel())
        total += count
        trainable += count if parameter.requires_grad else 0
    return trainable, total


def report_on(
    recipe: Recipe, model: Any, engine: Choice, precision: Choice, attention: str, patched: dict[str, int] | None = None
) -> EngineReport:
    """What there is to say of a model that an engine has put an adapter on."""
    trainable, total = count_parameters(model)
    return EngineReport(
        engine=engine,
        precision=precision,
        weights="nf4, double quantisation" if recipe.model.load_in_4bit else weight_dtype(recipe, precision.value),
        attention=attention,
        trainable=trainable,
        total=total - trainable,
        patched=patched or {},
        expected_layers=model.config.num_hidden_layers,
    )


def lora_settings(recipe: Recipe) -> dict[str, Any]:
    """The keyword arguments that PEFT's LoraConfig and Unsloth's get_peft_model have in common."""
    lora = recipe.lora
    return {
        "r": lora.r,
        "lora_alpha": int(lora.lora_alpha) if float(lora.lora_alpha).is_integer() else lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "target_modules": lora.target_modules,
        "bias": lora.bias,
        "use_rslora": lora.use_rslora,
        "modules_to_save": lora.modules_to_save or None,
    }
