"""Variants, shapes and profiles as the command line names them, and what they turn the recipe into."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.profiles import THIS, SyntheticTable, find_profile, parse_shape
from bench.settings import Settings, slug, trial, trials
from bench.variants import BY_NAME, CORE, QUICK, VARIANTS, find, select
from toolkit.data.table import IGNORED
from toolkit.errors import InputError, RecipeError
from toolkit.planning.cards import CARDS
from toolkit.recipe import load
from toolkit.recipe.schema import Recipe

TOOLS = Path("recipes/tools.toml")


def tried(name: str, shape: str = "real", profile: str = "this") -> Recipe:
    settings = Settings(TOOLS, (BY_NAME[name],), parse_shape(shape), find_profile(profile))
    return trial(settings, load(TOOLS), BY_NAME[name])


def test_names_are_unique_and_every_listed_one_exists() -> None:
    assert len(BY_NAME) == len(VARIANTS)
    assert set(BY_NAME) >= CORE
    assert set(BY_NAME) >= set(QUICK)


@pytest.mark.parametrize("profile", ["this", "t4", "l4"])
@pytest.mark.parametrize("shape", ["real", "4x2048"])
def test_every_variant_makes_a_valid_recipe(profile: str, shape: str) -> None:
    for variant in VARIANTS:
        recipe = tried(variant.name, shape, profile)
        assert recipe.chats_per_update == 16
        assert recipe.train.engine == variant.engine
        assert recipe.model.load_in_4bit == variant.four_bit


def test_what_variants_set() -> None:
    assert tried("unsloth-offload").train.gradient_checkpointing == "unsloth"
    assert tried("peft-nockpt-nodrop").lora.lora_dropout == 0
    assert tried("peft-nockpt-nodrop").train.gradient_checkpointing is False
    assert tried("unsloth-1x").train.per_device_train_batch_size == 16
    assert tried("full").train.learning_rate == pytest.approx(tried("peft").train.learning_rate / 10)
    half = tried("full-fp32", profile="t4")
    assert (half.train.fp16, half.train.bf16, half.model.dtype) == (True, False, "float32")
    assert tried("full-fp32").train.bf16 is True
    assert tried("unsloth", "8x512").train.max_length == 512
    assert tried("unsloth", "8x512").train.gradient_accumulation_steps == 2


def test_tokens_of_packed_micro_batches_can_be_set_and_padded_variants_stay_padded() -> None:
    given = ("train.micro_batch=4096",)
    wanted = {"peft-packed": 4096, "compiled-nockpt": 4096, "peft": "fixed", "unsloth-1x": "fixed"}
    for name, expected in wanted.items():
        settings = Settings(TOOLS, (BY_NAME[name],), parse_shape("real"), overrides=given)
        assert trial(settings, load(TOOLS), BY_NAME[name]).train.micro_batch == expected
    assert tried("peft-packed").train.micro_batch == "auto"
    assert tried("peft").train.micro_batch == "fixed"


def test_select() -> None:
    assert {v.name for v in select(None, gpu=True)} == CORE
    assert {v.name for v in select(None, gpu=False)} == set(QUICK)
    assert [v.name for v in select("unsloth-4bit,full", gpu=True)] == ["full", "unsloth-4bit"]
    assert all(v.name.startswith("unsloth-4bit") for v in select("unsloth-4bit*", gpu=True))
    assert select("all", gpu=True) == list(VARIANTS)
    assert not any(v.needs_gpu for v in select("all", gpu=False))
    with pytest.raises(InputError, match="did you mean unsloth-nockpt"):
        select("unsloth-nocpt", gpu=True)
    with pytest.raises(InputError, match="needs a CUDA GPU"):
        select("unsloth", gpu=False)


def test_profiles() -> None:
    assert find_profile("this") is THIS
    t4 = find_profile("t4", CARDS["h200"])
    assert t4.cap == int(14.56 * 2**30)
    assert not t4.flash
    assert "train.fp16=true" in t4.overrides
    real = find_profile("t4", CARDS["t4"])
    assert real.cap is None  # on the card itself nothing is imposed
    assert not real.flash
    assert find_profile("l4").flash
    with pytest.raises(InputError, match="--profile rtx409: unknown card, did you mean"):
        find_profile("rtx409")


@pytest.mark.parametrize("text", ["4 x 2048", "0x2048", "4x8", "fixed", "4x"])
def test_shapes_that_mean_nothing(text: str) -> None:
    with pytest.raises(InputError, match="wanted real, or ROWSxTOKENS"):
        parse_shape(text)


def test_a_shape_that_does_not_divide_an_update() -> None:
    with pytest.raises(InputError, match="16 chats an update can't be cut into micro-batches of 5"):
        tried("peft", "5x512")


def test_synthetic_rows_are_the_same_everywhere_and_trained_at_their_end() -> None:
    table, again = (SyntheticTable(10, 200, 0.114, 1000) for _ in range(2))
    for index in range(10):
        ids, labels = table.row(index)
        assert (ids == again.row(index)[0]).all()
        trained = labels != IGNORED
        assert trained.sum() == table.trained[index] == 23
        assert trained[-23:].all()
        assert (labels[trained] == ids[trained]).all()
        assert ids.max() < 1000
    assert (table.row(0)[0] != table.row(1)[0]).any()


def test_a_variant_with_settings_of_its_own(tmp_path: Path) -> None:
    name = f"compiled-fused-nockpt+train.micro_batch=4096+NCCL_DEBUG=INFO+site={tmp_path}"
    chosen = select(f"{name},compiled-fused-nockpt,peft", gpu=True)
    assert [variant.name for variant in chosen] == ["peft", name, "compiled-fused-nockpt"]
    assert [variant.usual for variant in chosen] == [True, False, True]
    one = chosen[1]
    assert find(name) == one, "a worker finds it by its name"
    assert (one.own, one.env, one.site) == (("train.micro_batch=4096",), (("NCCL_DEBUG", "INFO"),), str(tmp_path))
    settings = Settings(TOOLS, (one,), parse_shape("real"), overrides=("train.micro_batch=2048",))
    assert trial(settings, load(TOOLS), one).train.micro_batch == 4096, "its own wins over --set"
    assert "/" not in slug(name)


def test_settings_behind_a_pattern_go_to_all_that_fit() -> None:
    chosen = select("compiled-fused*kpt+lora.r=8", gpu=True)
    assert len(chosen) > 1
    assert all(variant.own == ("lora.r=8",) and not variant.core for variant in chosen)
    four = find("compiled-nockpt+model.load_in_4bit=true")
    assert four.four_bit and four.needs_gpu, "judged by NF4's tolerances"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("peft+lora.r", r"wanted KEY=VALUE, as \+train.micro_batch=4096"),
        ("peft+=8", "wanted KEY=VALUE"),
        ("peft+site=/nowhere/at/all", "no such folder"),
        ("pefd+lora.r=8", "did you mean peft"),
    ],
)
def test_settings_that_say_nothing(word: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        select(word, gpu=True)


def test_a_setting_that_no_recipe_has_is_named() -> None:
    variant = find("peft+lora.rank=8")
    with pytest.raises(InputError, match=r"lora\.rank"):
        trial(Settings(TOOLS, (variant,), parse_shape("real")), load(TOOLS), variant)


def test_a_variant_that_the_model_does_not_let_train_is_left_out(tmp_path: Path) -> None:
    """A hybrid's chats, packed by Unsloth; with nothing else to measure, or settings of its own, it is an error."""
    model = tmp_path / "hybrid"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}))
    overrides = (f"model.name={json.dumps(str(model))}",)
    both = [BY_NAME[name] for name in ("unsloth-packed", "peft-packed")]
    settings = Settings(TOOLS, tuple(both), parse_shape("real"), overrides=overrides)
    recipes, left_out = trials(settings, load(TOOLS, overrides))
    assert list(recipes) == ["peft-packed"] and list(left_out) == ["unsloth-packed"]
    assert "can't pack this model's chats" in left_out["unsloth-packed"]
    for alone in ((both[0],), (both[1], find("unsloth-packed+lora.r=8"))):
        with pytest.raises(RecipeError, match="can't pack this model's chats"):
            trials(replace(settings, variants=alone), load(TOOLS, overrides))
