"""A dumped recipe loads back to the same recipe, whatever it says."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from toolkit.recipe import Recipe, dump, load

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
SMALL = st.floats(min_value=1e-12, max_value=0.5)
WHOLE = st.integers(1, 10**9)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


BUILTIN = st.fixed_dictionaries(
    {"source": st.just("builtin:tools")},
    optional={
        "size": WHOLE,
        "seed": st.integers(0, 10**6),
        "domains": st.lists(st.sampled_from(["mail", "weather"]), max_size=3),
        "kinds": st.dictionaries(st.sampled_from(["single", "refuse"]), st.floats(0.1, 1e20), max_size=2),
        "weight": st.floats(1e-300, 1000),
        "decisions": st.just(0.0),
        "rationales": st.just(False),
        "purposes": st.just(0.0),
    },
)
FILES = st.fixed_dictionaries(
    # of dots and slashes alone there is a folder, which is then named from the root
    {"source": TEXT.filter(lambda text: text.strip("./")).map(lambda text: "./" + text)},
    optional={"revision": TEXT, "limit": WHOLE, "format": st.just("hermes")},
)
VALUES = some(
    model=some(name=TEXT.map(lambda text: "org/" + text), revision=TEXT, dtype=st.sampled_from(["auto", "float32"])),
    lora=some(
        r=st.integers(1, 2**16),
        lora_alpha=st.one_of(st.integers(1, 10**6), SMALL, st.floats(1, 1e6)),
        target_modules=st.lists(TEXT, min_size=1, max_size=3),
        modules_to_save=st.lists(TEXT, max_size=3),
        use_dora=st.booleans(),
    ),
    data=some(sources=st.lists(st.one_of(BUILTIN, FILES), min_size=1, max_size=3), num_proc=st.integers(1, 1024)),
    train=some(
        learning_rate=SMALL, bf16=st.sampled_from([True, False, "auto"]), save_steps=st.one_of(WHOLE, st.just("epoch"))
    ),
    eval=some(holdout=st.one_of(st.integers(1, 10**9), SMALL), sources=st.lists(FILES, max_size=2)),
    export=some(gguf=st.lists(st.sampled_from(["q8_0", "q4_k_m"]), max_size=2)),
)


@given(VALUES)
def test_round_trip(values: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        path.write_text(dump(recipe), encoding="utf-8", newline="")
        assert load(path).recipe == recipe


def test_every_key_is_there() -> None:
    text = dump(Recipe())
    parsed = tomllib.loads(text)
    for section, values in Recipe().model_dump().items():
        for key, value in values.items():
            assert f"# {key} is not set" in text if value is None else key in parsed[section]


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("recipes/*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_load(path: Path) -> None:
    assert load(path).name == path.stem


def test_tools_is_the_chapter() -> None:
    folder = Path(__file__).parents[2] / "recipes"
    recipe = load(folder / "tools.toml").recipe
    assert recipe.model.name == "Qwen/Qwen3-1.7B"
    assert not recipe.model.load_in_4bit
    lora, train = recipe.lora, recipe.train
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.target_modules, lora.bias) == (
        16,
        32,
        0.05,
        "all-linear",
        "none",
    )
    assert (train.learning_rate, train.num_train_epochs, train.warmup_ratio) == (2e-4, 3, 0.1)
    assert (train.per_device_train_batch_size, train.gradient_accumulation_steps, recipe.chats_per_update) == (4, 4, 16)
    assert (train.lr_scheduler_type, train.max_length, train.gradient_checkpointing) == ("cosine", 2048, "auto")
    four = load(folder / "tools-4bit.toml").recipe
    assert four == recipe.model_copy(update={"model": recipe.model.model_copy(update={"load_in_4bit": True})})
    t4 = load(folder / "tools-t4.toml").recipe
    assert t4 == recipe.model_copy(update={"train": train.model_copy(update={"fp16": True, "bf16": False})})
