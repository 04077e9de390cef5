"""Other tools' names are answered with ours, and recipes in other formats with TOML."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.errors import RecipeError
from toolkit.recipe import load
from toolkit.recipe.names import BY_NAME, SECTIONS, TABLE, page
from toolkit.recipe.schema import Recipe
from toolkit.recipe.validate import _section

ROOT = Path(__file__).parents[2]


def told(tmp_path: Path, text: str, name: str = "x.toml") -> str:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load(path)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_the_page_is_made_from_the_table() -> None:
    assert (ROOT / "docs" / "recipe-names.md").read_text() == page()


def test_every_name_leads_to_a_setting_that_there_is() -> None:
    assert len(BY_NAME) == sum(len(other.names) for other in TABLE), "a name stands twice"
    for other in TABLE:
        assert other.tools and (other.ours or other.word)
        if other.ours:
            *section, key = other.ours.split(".")
            owner = _section(tuple(section) if len(section) == 1 else (*section, 0))
            assert owner is not None and key in owner.model_fields, other.ours
    assert set(SECTIONS.values()) <= set(Recipe.model_fields)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_name_is_answered_from_the_table(tmp_path: Path, name: str) -> None:
    other = BY_NAME[name]
    found = told(tmp_path, f"[train]\n{name} = 3\n")
    if name in Recipe().train.model_dump() or "belongs to" in found:
        pytest.fail(f"{name} is a name of ours: {found}")
    assert found.startswith(f"x.toml:2: train.{name}: unknown key")
    assert (other.ours.rpartition(".")[2] if other.ours else other.word) in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[train]\npacking = true",
            'x.toml:2: train.packing: unknown key, did you mean micro_batch = "auto"? (an update',
        ),
        ("[train]\npacking = false", "leave it out to go without"),
        ("packing = true", 'x.toml:1: packing: unknown key, did you mean train.micro_batch = "auto"?'),
        ("[train]\nmax_seq_length = 2048", "train.max_seq_length: unknown key, did you mean max_length?"),
        ("[train]\nbatch_size = 2", "did you mean per_device_train_batch_size? (chats of a micro-batch"),
        ("[train]\nepochs = 2", "train.epochs: unknown key, did you mean num_train_epochs?"),
        ("[lora]\nlora_r = 2", "lora.lora_r: unknown key, did you mean r?"),
        ("[train]\nlora_r = 2", "train.lora_r: unknown key, did you mean lora.r?"),
        ("[train]\nlora_alpha = 2", "train.lora_alpha: unknown key; lora_alpha belongs to [lora]"),
        ("[train]\nwarmup_steps = 5", "did you mean warmup_ratio? (a share of all updates, as 0.1)"),
        ("[model]\nload_in_8bit = true", "model.load_in_4bit = true"),
        ("[model]\nmodel_name_or_path = 'x'", "model.model_name_or_path: unknown key, did you mean name?"),
        ("base_model = 'x'", "base_model: unknown key, did you mean model.name?"),
        ("adapter = 'qlora'", "adapter: unknown key; a LoRA is trained, always; QLoRA is model.load_in_4bit = true"),
        ("val_set_size = 0.1", "val_set_size: unknown key, did you mean eval.holdout?"),
        ("[train]\nlearningRate = 1e-4", "train.learningRate: unknown key, did you mean learning_rate?"),
        ("[train]\nmax-seq-length = 9", "train.max-seq-length: unknown key, did you mean max_length?"),
        ("[train]\nhub_model_id = 'me/x'", "hub_model_id: unknown key; not in a recipe: toolkit push RUN NAME/MODEL"),
        ("[lora]\nexclude_modules = ['x']", "a list has only what is adapted"),
        ("[lora]\ntask_type = 'CAUSAL_LM'", "task_type: unknown key; not needed; a causal language model is trained"),
        ("[train]\neos_token = 'x'", "eos_token: unknown key; not needed; the tokenizer's own is taken"),
        ("[train]\nuse_liger_kernel = true", 'did you mean engine = "compiled"?'),
        ("[peft]\nr = 8", "x.toml:1: peft: unknown section, did you mean lora?"),
        ("[[datasets]]\npath = 'x'", "x.toml:1: datasets: unknown section, did you mean data?"),
        ("[[data.sources]]\nsource = 'x'\ntype = 'alpaca'", "data.sources.0.type: unknown key, did you mean format?"),
        (
            "[train]\nreport_to = 'wandb'",
            'found "wandb", wanted a list of words out of tensorboard, wandb, trackio, write ["wandb"]',
        ),
        ("[train]\nreport_to = 'wandb, tensorboard'", 'write ["wandb", "tensorboard"]'),
        ("[train]\nreport_to = 'none'", "write [] for none"),
        ("[train]\nreport_to = 'wanbd'", "did you mean wandb?"),
    ],
)
def test_what_is_said(tmp_path: Path, text: str, message: str) -> None:
    assert message in told(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "x.yaml",
            "# mine\ntrain:\n  learning_rate: 2e-4\n",
            "x.yaml:2: this is YAML, and a recipe is TOML: train: is written [train], and learning_rate: 2e-4 below it "
            "learning_rate = 2e-4",
        ),
        ("x.yml", "model:\n  name: a/b\n", 'name: a/b below it name = "a/b"'),
        ("x.toml", "base_model: a/b\nadapter: qlora\n", 'is written name = "a/b" below [model]'),
        ("x.toml", "datasets:\n  - path: a\n    type: alpaca\n", "datasets: is written [data]"),
        ("x.yaml", "bf16: yes\n", "is written bf16 = true"),
        ("x.yaml", "revision: null\n", "leave the key out"),
        (
            "x.json",
            '{"train": {"learning_rate": 0.0002}}',
            'x.json:1: this is JSON, and a recipe is TOML: "train": {...} is written [train], and below it '
            "learning_rate = 0.0002",
        ),
        ("x.toml", '\n{"seed": 3}', 'x.toml:2: this is JSON, and a recipe is TOML: {"seed": 3} is written seed = 3'),
        ("x.json", "[1, 2]", "this is JSON, and a recipe is TOML"),
        ("x.json", "[" * 50_000, "x.json:1: not valid TOML"),
        ("x.json", "[" * 900 + "]" * 900, "x.json:1: not valid TOML"),
        ("x.toml", "[train]\nseed: 3\n", "x.toml:2: not valid TOML: found a colon, wanted an equals sign: seed = 3"),
        ("x.toml", "[train]\nname: a b\nseed = 3", 'an equals sign: name = "a b"'),
        ("x.toml", "[train]\nseed = \n", "TOML has no empty value"),
        ("x.toml", "{ not json", "x.toml:1: not valid TOML"),
    ],
)
def test_other_formats(tmp_path: Path, name: str, text: str, message: str) -> None:
    assert message in told(tmp_path, text, name)
