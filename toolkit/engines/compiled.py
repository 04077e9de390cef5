"""The compiled engine: PEFT's model with its decoder layers compiled by torch.compile, over packed micro-batches only.

How the layers run is in `toolkit.engines.compiled_layers`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.engines.attention import attention_over_rows
from toolkit.engines.base import FILLED, Choice, Has, Launch, Loaded, Passes, Reason, is_installed
from toolkit.engines.peft import Peft
from toolkit.engines.setup import Products, Setup
from toolkit.hardware import Hardware
from toolkit.kernels.constants import FLOAT8_CAPABILITY
from toolkit.models.families import why_not_compiled
from toolkit.recipe.schema import Recipe

MULTIPLE = 1024  # tokens: an update's 16 chats have a dozen lengths, each compiled once and kept in the cache
RECORDED = 512  # at most, where each length is recorded: an update's 16 chats have some 25 lengths
SHARE = 32  # of a micro-batch's tokens that filling may take up to one part in so many
PASSES = {"separate": Passes(10.2, 5.0, 0.7), "fused": Passes(7.8, 4.0, 0.7), "float8": Passes(8.6, 4.0, 0.7)}


class Compiled(Peft):
    name = "compiled"
    distributions = (*Peft.distributions, "flash-attn-4")
    timed_with = ("torch", "flash-attn-4")
    automatic = 0  # it packs, which a recipe has to ask for
    gpu = "made for"
    packs_only = True
    compiles = True
    holds_scores = False
    launch = Launch(0.0038, 0.0019, 1.7)
    launch_tokens = 5000

    def can_run(self, recipe: Recipe, hardware: Hardware, has: Has = is_installed) -> list[Reason]:
        return [*super().can_run(recipe, hardware, has), *self._float8(recipe, hardware)]

    def refuses(self, recipe: Recipe) -> Iterator[Reason]:
        if recipe.train.micro_batch == "fixed":
            message = '"compiled" needs packed chats; wanted micro_batch = "auto" or a number of tokens'
            yield Reason((("train", "engine"), ("train", "micro_batch")), message)
        if why := why_not_compiled(recipe.model):
            message = f'"compiled" can\'t run this model: {why}; wanted "peft"'
            yield Reason((("train", "engine"), ("model", "name")), message, why)

    def reserves(self, recipe: Recipe) -> Iterator[Reason]:
        asked = recipe.train.products
        if asked not in ("auto", "separate"):
            message = f'"{asked}" is a way of the compiled engine; wanted engine = "compiled"'
            yield Reason((("train", "products"), ("train", "engine")), message)

    def _float8(self, recipe: Recipe, hardware: Hardware) -> Iterator[Reason]:
        gpu, least = hardware.gpu, ".".join(map(str, FLOAT8_CAPABILITY))
        if self.products(recipe) != "float8" or (gpu is not None and gpu.capability >= FLOAT8_CAPABILITY):
            return
        here = "there is no GPU" if gpu is None else f"{gpu.name} has {gpu.capability[0]}.{gpu.capability[1]}"
        message = (
            f'float8 needs compute capability {least} or newer, and {here}; --set train.products="fused" goes without'
        )
        yield Reason((("train", "products"),), message, needs=f"compute capability {least}")

    def products(self, recipe: Recipe) -> Products:
        if recipe.train.products != "auto":
            return recipe.train.products
        plain = not recipe.model.load_in_4bit and recipe.lora.bias == "none" and not recipe.lora.use_dora
        return "fused" if plain else "separate"

    def records(self, recipe: Recipe) -> bool:
        return recipe.train.cuda_graphs

    def multiple(self, tokens: int, *, cuda: bool, dynamic: bool, recorded: bool) -> int:
        """A recorded length costs a moment and some memory: few, but not at the price of much filling."""
        if cuda and not dynamic:
            return MULTIPLE
        if not recorded:
            return FILLED
        part = 1 << max(tokens // SHARE, 1).bit_length() - 1
        return min(max(part, FILLED), RECORDED)

    def passes(self, setup: Setup) -> Passes:
        return PASSES[setup.products]

    def layer_activations(self, setup: Setup) -> float:
        """What products and attention give; the rest is made again (`toolkit.engines.compiled_layers.KEEP_LITTLE`),
        dropout's masks too: counted on a CPU by tests/kernels/test_saved_activations.py."""
        if setup.element == 4:
            return super().layer_activations(setup)
        shape = setup.shape
        hidden, ffn, attention = shape.hidden_size, shape.intermediate_size, shape.attention_size
        turned = attention + shape.key_value_size  # queries and keys after rotation, and before where that has a norm
        elements = 2 * hidden + (2 if shape.qk_norm else 1) * turned + shape.key_value_size + attention + 2 * ffn
        return 2 * elements

    def backward_transient(self, setup: Setup) -> float:
        return super(Peft, self).backward_transient(setup)

    def load(
        self, recipe: Recipe, folder: Path, tokenizer: Any, engine: Choice, precision: Choice, hardware: Hardware
    ) -> Loaded:
        # torch takes seconds to import, which a plan does without, and reads at once where code is kept
        from toolkit.engines.compiled_layers import CompiledLayers, keep_code

        keep_code()
        import torch

        loaded = super().load(recipe, folder, tokenizer, engine, precision, hardware)
        cuda = hardware.gpu is not None
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision.value]
        products, dynamic = self.products(recipe), recipe.train.compile == "dynamic"
        kernel, said = attention_over_rows(loaded.model, recipe, precision, hardware)
        loaded.report = replace(loaded.report, attention=said)
        layers = CompiledLayers(
            loaded.model,
            recipe.train.max_length,
            kernel=kernel,
            dynamic=dynamic,
            fuse=dtype if products != "separate" else None,
            float8=products == "float8",
            graphs=cuda and self.records(recipe),
        )
        loaded.packing = layers.packing(functools.partial(self.multiple, cuda=cuda, dynamic=dynamic), cuda=cuda)
        loaded.recorder = layers.recorder
        return loaded
