"""Contradictions: each is found, both places are named, and neighbours that are fine pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.engines.recipes import load
from toolkit.errors import RecipeError
from toolkit.recipe import dump


def load_text(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "x.toml"
    path.write_text(text, encoding="utf-8")
    try:
        load(path)
    except RecipeError as error:
        return [str(problem).removeprefix(f"{tmp_path}/").replace(f"{tmp_path}/", "") for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[train]\nfp16 = true\nbf16 = true", ["x.toml:2: train.fp16: ", "train.bf16: x.toml:3"]),
        ("[model]\ndtype='float16'\n[train]\nbf16=true", ["x.toml:4: train.bf16: ", "model.dtype: x.toml:2"]),
        ("[model]\ndtype='bfloat16'\n[train]\nfp16=true", ["x.toml:4: train.fp16: ", "model.dtype: x.toml:2"]),
        ("[model]\ndtype='float32'\nload_in_4bit=true", ["x.toml:3: model.load_in_4bit: "]),
        ("[lora]\nbias='all'\n[train]\nengine='unsloth'", ["x.toml:2: lora.bias: ", "fused", "train.engine: x.toml:4"]),
        ("[lora]\nuse_dora=true\n[train]\nengine='unsloth'", ["x.toml:2: lora.use_dora: ", "fused"]),
        ("[train]\nengine='peft'\ngradient_checkpointing='unsloth'", ["x.toml:3: train.gradient_checkpointing: "]),
        ("[train]\nengine='compiled'", ["x.toml:2: train.engine: ", "packed", "train.micro_batch: default"]),
        (
            "[train]\ngradient_checkpointing='auto'",
            ["x.toml:2: train.gradient_checkpointing: ", "packed", "train.micro_batch: default"],
        ),
        (
            "[train]\nengine='compiled'\nmicro_batch='auto'\ngradient_checkpointing='unsloth'",
            ["x.toml:4: train.gradient_checkpointing: ", "train.engine: x.toml:2"],
        ),
        ("[train]\nproducts='fused'", ["x.toml:2: train.products: ", "train.engine: default", '"compiled"']),
        (
            "[model]\nload_in_4bit=true\n[train]\nengine='compiled'\nmicro_batch='auto'\nproducts='float8'",
            ["x.toml:6: train.products: ", "model.load_in_4bit: x.toml:2"],
        ),
        (
            "[lora]\nbias='all'\n[train]\nengine='compiled'\nmicro_batch='auto'\nproducts='fused'",
            ["x.toml:6: train.products: ", "lora.bias: x.toml:2"],
        ),
        (
            "[[eval.sources]]\nsource='x'\nweight=3",
            ["x.toml:3: eval.sources.0.weight: found 3, wanted at most 1: a held-out chat is measured once"],
        ),
        ("[lora]\nmodules_to_save=['lm_head']", ["x.toml:2: lora.modules_to_save: ", "tied", "model.name: default"]),
        ("[lora]\ntarget_modules=['q_proj', 'embed_tokens']", ["x.toml:2: lora.target_modules: ", "tied"]),
        ("[lora]\ntarget_modules='all_linear'", ["did you mean all-linear?"]),
        ("[lora]\ntarget_modules='('", ["x.toml:2: lora.target_modules: ", "regular expression"]),
        ("[lora]\ntarget_modules=[]", ["x.toml:2: lora.target_modules: an empty list trains nothing"]),
        (
            "[train]\nlr_scheduler_type='constant'",
            ["x.toml:2: ", "train.warmup_ratio: default", "constant_with_warmup"],
        ),
        ("[train]\nmax_steps=0", ["x.toml:2: train.max_steps: 0 updates train nothing"]),
        (
            "[train]\npad_to_multiple_of=1000000000\nmax_length=512",
            [
                "x.toml:2: train.pad_to_multiple_of: 1000000000 fills micro-batches up",
                "wanted at most that",
                "x.toml:3",
            ],
        ),
        ("[train]\ntorch_threads=1000000000", ["x.toml:2: train.torch_threads: found 1", "of at most 1,024"]),
        ("[data]\nnum_proc=1000000000", ["x.toml:2: data.num_proc: found 1000000000", "of at most 1,024"]),
        ("[eval]\nholdout=0", ["x.toml:2: eval.holdout: ", "early_stopping_patience = 3"]),
        ("[eval]\nholdout=0", ["needs some: set eval.early_stopping_patience = 0 too ["]),
        (
            "[eval]\nholdout=0\ngenerate=5\nbest='calls'",
            [
                "but eval.early_stopping_patience = 3 and eval.generate = 5 need some: set ",
                ': set eval.early_stopping_patience = 0 and eval.generate = 0 and eval.best = "auto" too [',
            ],
        ),
        ("[eval]\nholdout=0\nearly_stopping_patience=0\ngenerate=5", ["eval.generate: x.toml:4"]),
        ("[eval]\nholdout=1.5", ["x.toml:2: eval.holdout: found 1.5, wanted a fraction below 1.0"]),
        ("[eval]\nmax_new_tokens=64\n[train]\nmax_length=64", ["x.toml:2: eval.max_new_tokens", "x.toml:4"]),
        ("[[data.sources]]\nsource='a.jsonl'\nsize=3", ["x.toml:3: data.sources.0.size: only for", "a.jsonl"]),
        ("[[eval.sources]]\nsource='a.jsonl'\nkinds={single=1}", ["x.toml:3: eval.sources.0.kinds: only for"]),
        (
            "[[data.sources]]\nsource='builtin:tools'\nkinds={singel=1}",
            ["kinds.singel: unknown kind, did you mean single?"],
        ),
        ("[[data.sources]]\nsource='builtin:tools'\nkinds={single=-1, parallel=1}", ["found -1, wanted a share"]),
        ("[[data.sources]]\nsource='builtin:tools'\nkinds={single=0}", ["all shares are 0"]),
        (
            "[[data.sources]]\nsource='builtin:tools'\nsplit='test'",
            ["x.toml:3: data.sources.0.split: the built-in", "phrasing"],
        ),
        (
            "[[data.sources]]\nsource='builtin:test'",
            ["x.toml:2: data.sources.0.source: ", "final figures only", "toolkit eval RUN --data builtin:test"],
        ),
        (
            "[[eval.sources]]\nsource='builtin:test'\nsize=9",
            ["x.toml:2: eval.sources.0.source: ", "final figures only"],
        ),
        (
            "[[data.sources]]\nsource='builtin:tools'\ndomains=['mail', 'wether']",
            ["domains.1: ", "did you mean weather?"],
        ),
        (
            "[[data.sources]]\nsource='builtin:tools'\ndecisions=0.1\nmax_tools=3",
            ["x.toml:3: data.sources.0.decisions: only for training chats over all domains", "max_tools: x.toml:4"],
        ),
        (
            "[[data.sources]]\nsource='builtin:tools'\nrationales=true\nsplit='tools'",
            ["x.toml:3: data.sources.0.rationales: only for training chats", "split: x.toml:4"],
        ),
        (
            "[[data.sources]]\nsource='builtin:tools'\ndecisions=0.7\npurposes=0.4",
            ["x.toml:3: data.sources.0.decisions: 0.7 and purposes = 0.4 are 1.1, wanted at", "purposes: x.toml:4"],
        ),
        ("[[data.sources]]\nsource='a.jsonl'\nrationales=true", ["data.sources.0.rationales: only for", "a.jsonl"]),
        ("[export]\ngguf=['q8_0', 'Q4_K_X']", ["x.toml:2: export.gguf.1: ", "did you mean q4_k_m?"]),
    ],
)
def test_contradictions(tmp_path: Path, text: str, parts: list[str]) -> None:
    found = load_text(tmp_path, text)
    assert len(found) == 1, found
    for part in parts:
        assert part in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "[model]\ndtype='float32'\n[train]\nbf16=true",
        "[lora]\nbias='all'",
        "[lora]\nmodules_to_save=['lm_head']\n[model]\nname='Qwen/Qwen3-8B'",
        "[lora]\ntarget_modules='.*q_proj'",
        "[train]\nlr_scheduler_type='constant'\nwarmup_ratio=0",
        "[eval]\nholdout=0\nearly_stopping_patience=0",
        "[eval]\nholdout=0\ngenerate=5\n[[eval.sources]]\nsource='held.jsonl'",
        "[eval]\nholdout=0\nearly_stopping_patience=0\ngenerate=0\nbest='auto'",
        "[eval]\nholdout=0.1",
        "[train]\npad_to_multiple_of=2048",
        "[[data.sources]]\nsource='a.jsonl'\nsize=15_694",
    ],
)
def test_what_is_fine(tmp_path: Path, text: str) -> None:
    assert load_text(tmp_path, text) == []
    path = tmp_path / "again.toml"
    path.write_text(dump(load(tmp_path / "x.toml").recipe), encoding="utf-8")
    load(path)
