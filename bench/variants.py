"""What is measured: variants of training the same chats. To add one, add a `Variant` to `VARIANTS`.

A variant is a recipe with some values put over it, so that it goes through the product's own token table and trainer.
Names: ENGINE-WEIGHTS, then what differs from the recipe: `nockpt` without gradient checkpointing, `offload` with
Unsloth's offloaded one, `nodrop` without LoRA dropout, `1x` an update's chats as one micro-batch, `packed` its chats
packed without padding into micro-batches as the planner cuts them, `autockpt` with checkpointing in as few layers as
memory demands. `compiled-fused` has each adapter within the frozen product, `compiled-float8` that product in 8 bits;
`sdpa` goes without FlashAttention 4, `static` has code for each of a few lengths.

A name may have settings of its own behind it, for one arm of a comparison: `NAME+train.micro_batch=4096`,
`NAME+NCCL_DEBUG=INFO` (capitals: a variable of its environment), `NAME+site=FOLDER` (packages of FOLDER, as
`pip install --target FOLDER` puts them there, before those installed: another version of a library).
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from toolkit.engines import ENGINES
from toolkit.errors import InputError, did_you_mean

Trained = Literal["adapter", "all 16-bit", "all fp32"]


PACKED = 'train.micro_batch="auto"'
FOUR_BIT = "model.load_in_4bit=true"
SEPARATE = 'train.products="separate"'
FUSED = 'train.products="fused"'
FLOAT8 = 'train.products="float8"'


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train, set up by values put over a recipe's.

    `overrides` are `--set` values over the recipe. `trained`: the adapter, or all weights as 16-bit (with fp32 Adam
    states unless `adam8`) or as fp32 masters under autocast. `full_logits`: the loss holds the logits of every token,
    as trainers did before fused heads. `one_batch`: an update's chats go through as one micro-batch. `core`: measured
    unless the user names variants. `own` are `--set` values, `env` variables and `site` a folder of packages that the
    user put behind a variant's name.
    """

    name: str
    engine: str
    stands_for: str
    overrides: tuple[str, ...] = ()
    trained: Trained = "adapter"
    adam8: bool = False
    full_logits: bool = False
    one_batch: bool = False
    core: bool = False
    own: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    site: str | None = None

    @property
    def usual(self) -> bool:
        """Whether it is as listed, without settings that a user put behind its name."""
        return not (self.own or self.env or self.site)

    @property
    def packed(self) -> bool:
        return PACKED in self.overrides

    @property
    def four_bit(self) -> bool:
        return FOUR_BIT in (*self.overrides, *self.own)

    @property
    def needs_gpu(self) -> bool:
        return (
            ENGINES[self.engine].gpu == "needed"
            or self.four_bit
            or self.adam8
            or FLOAT8 in (*self.overrides, *self.own)
        )


CHECKPOINTING = {"": "true", "-nockpt": "false", "-offload": '"unsloth"'}
OFFLOADED = ("unsloth", "unsloth-4bit")
DROPOUT = {"": "0.05", "-nodrop": "0.0"}
BASES = {
    "full": "full fine-tuning, 16-bit weights and gradients, fp32 Adam states (the chapter's 24 GB)",
    "full-fp32": "full fine-tuning, fp32 weights under 16-bit autocast (mixed precision as usually done)",
    "full-adam8": "full fine-tuning, 16-bit weights and gradients, 8-bit Adam",
    "peft-logits": "plain PEFT, 16-bit base, all logits in the loss (what most people had)",
    "peft": "plain TRL + PEFT at its best: 16-bit base, chunked loss, SDPA, fused AdamW",
    "peft-4bit": "plain TRL + PEFT at its best over an NF4 base (QLoRA)",
    "unsloth": "Unsloth, 16-bit base",
    "unsloth-4bit": "Unsloth over an NF4 base",
}
CORE = {
    *("full", "full-fp32", "full-adam8", "peft-logits", "peft-logits-nockpt", "peft", "peft-nockpt", "peft-nodrop"),
    *("peft-4bit", "unsloth", "unsloth-nockpt", "unsloth-offload", "unsloth-nodrop", "unsloth-1x", "unsloth-4bit"),
    # what recipes ask for: train.engine = "auto" then has something to go by
    *("peft-packed-autockpt", "unsloth-packed-autockpt", "compiled-autockpt", "compiled-fused-autockpt"),
}


def _full() -> Iterator[Variant]:
    kinds: tuple[tuple[str, Trained, tuple[str, ...]], ...] = (
        ("full", "all 16-bit", ()),
        ("full-fp32", "all fp32", ('model.dtype="float32"',)),
        ("full-adam8", "all 16-bit", ('train.optim="adamw_8bit"',)),
    )
    for name, trained, overrides in kinds:
        yield Variant(
            name=name,
            engine="peft",
            stands_for=BASES[name],
            overrides=("train.gradient_checkpointing=true", "lora.lora_dropout=0.0", *overrides),
            trained=trained,
            adam8=name == "full-adam8",
            core=name in CORE,
        )


def _adapters() -> Iterator[Variant]:
    notes = {"-nockpt": "no checkpointing", "-offload": "offloaded checkpointing", "-nodrop": "no dropout"}
    every = itertools.product(
        ("peft-logits", "peft", "peft-4bit", "unsloth", "unsloth-4bit"), CHECKPOINTING.items(), DROPOUT.items()
    )
    for base, (checkpointing, value), (dropout, share) in every:
        if checkpointing == "-offload" and base not in OFFLOADED:
            continue
        four = (FOUR_BIT,) if base.endswith("4bit") else ()
        yield Variant(
            name=base + checkpointing + dropout,
            engine=base.partition("-")[0],
            stands_for=", ".join([BASES[base], *(notes[part] for part in (checkpointing, dropout) if part)]),
            overrides=(f"train.gradient_checkpointing={value}", f"lora.lora_dropout={share}", *four),
            full_logits=base == "peft-logits",
            core=base + checkpointing + dropout in CORE,
        )


def _whole_updates() -> Iterator[Variant]:
    for engine in ("peft", "unsloth"):
        yield Variant(
            name=f"{engine}-1x",
            engine=engine,
            stands_for=f"{BASES[engine]}, the update's chats as one micro-batch",
            overrides=("train.gradient_checkpointing=true", "lora.lora_dropout=0.05"),
            one_batch=True,
            core=f"{engine}-1x" in CORE,
        )


def _packed() -> Iterator[Variant]:
    """Every engine over packed micro-batches; compiled layers want nothing else."""
    notes = {"": "checkpointing", "-nockpt": "no checkpointing", "-autockpt": "checkpointing by memory"}
    asked = {"": "true", "-nockpt": "false", "-autockpt": '"auto"'}
    bases: tuple[tuple[str, str, tuple[str, ...]], ...] = (
        ("peft-packed", "16-bit base", ()),
        ("unsloth-packed", "16-bit base", ()),
        ("compiled", "16-bit base", (SEPARATE,)),
        ("compiled-fused", "16-bit base", (FUSED,)),
        ("compiled-fused-sdpa", "16-bit base", (FUSED, 'model.attn_implementation="sdpa"')),
        ("compiled-fused-static", "16-bit base", (FUSED, 'train.compile="static"')),
        ("compiled-float8", "16-bit base", (FLOAT8,)),
        ("peft-4bit-packed", "NF4 base", (FOUR_BIT,)),
        ("unsloth-4bit-packed", "NF4 base", (FOUR_BIT,)),
        ("compiled-4bit", "NF4 base", (FOUR_BIT,)),
    )
    for (base, weights, own), (checkpointing, value), (dropout, share) in itertools.product(
        bases, asked.items(), DROPOUT.items()
    ):
        described = [f"{base}, {weights}, packed micro-batches", notes[checkpointing]]
        yield Variant(
            name=base + checkpointing + dropout,
            engine=base.partition("-")[0],
            stands_for=", ".join([*described, *(["no dropout"] if dropout else [])]),
            overrides=(PACKED, f"train.gradient_checkpointing={value}", f"lora.lora_dropout={share}", *own),
            core=base + checkpointing + dropout in CORE,
        )


VARIANTS: tuple[Variant, ...] = (*_full(), *_adapters(), *_whole_updates(), *_packed())
BY_NAME = {variant.name: variant for variant in VARIANTS}
QUICK = ("full-fp32", "peft-logits", "peft", "peft-nockpt", "peft-nodrop", "peft-1x")
"""What `toolkit bench --quick` measures on a CPU."""


def find(name: str) -> Variant:
    """A variant by its name, with or without settings behind it. Raises `KeyError`, and `InputError` for settings."""
    listed, *own = name.split("+")
    return _with(BY_NAME[listed], own)


def _with(variant: Variant, own: Sequence[str]) -> Variant:
    """`variant` with the settings behind its name. Raises `InputError` for one that says nothing."""
    for given in own:
        key, equals, value = given.partition("=")
        if not (equals and key and value):
            raise InputError(f"--variants {variant.name}+{given}: wanted KEY=VALUE, as +train.micro_batch=4096")
        if key == "site":
            if not Path(value).is_dir():
                raise InputError(f"--variants {variant.name}+{given}: no such folder")
            variant = replace(variant, site=value)
        elif re.fullmatch("[A-Z][A-Z0-9_]*", key):
            variant = replace(variant, env=(*variant.env, (key, value)))
        else:
            variant = replace(variant, own=(*variant.own, given))
    return replace(variant, name="+".join([variant.name, *own]), core=variant.core and not own)


def select(wanted: str | None, *, gpu: bool, quick: bool = False) -> list[Variant]:
    """The variants that a user means by names and patterns with commas, `core` or `all`; None for the usual ones.

    Without a GPU, those that need one are left out of patterns. Raises `InputError` for a name that fits none.
    """
    able = [variant for variant in VARIANTS if gpu or not variant.needs_gpu]
    if wanted is None:
        return [variant for variant in able if (variant.name in QUICK if quick or not gpu else variant.core)]
    chosen: dict[str, Variant] = {}
    for word in (part.strip() for part in wanted.split(",")):
        listed, *own = word.split("+")
        fitting = _fitting(listed, able)
        if not fitting:
            raise InputError(_unknown(listed, able))
        chosen.update((variant.name, variant) for variant in (_with(one, own) for one in fitting))
    order = list(BY_NAME)
    return sorted(chosen.values(), key=lambda variant: order.index(variant.name.partition("+")[0]))


def _fitting(word: str, able: Sequence[Variant]) -> list[Variant]:
    if word == "all":
        return list(able)
    if word == "core":
        return [variant for variant in able if variant.core]
    return [variant for variant in able if fnmatch.fnmatchcase(variant.name, word)]


def _unknown(word: str, able: Sequence[Variant]) -> str:
    if word in BY_NAME:
        return f"--variants {word}: needs a CUDA GPU and there is none here"
    names = [variant.name for variant in able]
    return f"--variants {word}: no such variant{did_you_mean(word, names)}; known are {', '.join(names)}, core and all"
