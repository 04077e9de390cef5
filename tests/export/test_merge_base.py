"""Which base a QLoRA adapter is merged into, and what `auto` measures before it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.export.shapes import adapter, base_model
from toolkit.data.compose import compose
from toolkit.data.template import ChatTemplate, Rendering
from toolkit.data.tokenizers import load_tokenizer
from toolkit.export.merge import open_merged
from toolkit.export.merge_base import TOLERANCE, choose, decide, general_texts, load_into, measure
from toolkit.export.nf4 import round_trip
from toolkit.export.tensors import stream
from toolkit.exports import MergeScore


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("pair")
    base = base_model(root / "base")
    return base, adapter(root / "adapter", base)


def scores(original: float, trained: float = 0.1) -> list[MergeScore]:
    rows: list[tuple[Any, float]] = [("trained", trained), ("original", original), ("dequant", trained)]
    return [MergeScore(base, loss, 3.0, 100, 100) for base, loss in rows]


def test_the_rule() -> None:
    took = decide(scores(0.1 + TOLERANCE / 2), "bfloat16")
    assert took.base == "original" and "not worse" in took.reason and took.held_dtype is None
    took = decide(scores(0.1 + 2 * TOLERANCE), "float16")
    assert took.base == "dequant" and "worse on the task by 0.0200" in took.reason and took.held_dtype == "float16"
    assert decide(scores(0.05), "bfloat16").base == "original"


def test_the_dequantised_merge_is_the_trained_model(pair: tuple[Path, Path]) -> None:
    """Losses of the adapter beside the dequantised base, and of the merge of both, are the same; the original's not."""
    base, folder = pair
    task = [(list(range(5, 60, 3)), [False, *[True] * 18]), (list(range(9, 300, 20)), [True] * 15)]
    general = general_texts(base)
    found = {score.base: score for score in measure(base, folder, "bfloat16", task, general)}
    assert found["trained"].tokens == 18 + 14 and found["trained"].general_tokens > 500
    assert found["dequant"].task_loss == pytest.approx(found["trained"].task_loss, abs=1e-4)
    assert found["dequant"].general_loss == pytest.approx(found["trained"].general_loss, abs=1e-4)
    assert abs(found["original"].task_loss - found["trained"].task_loss) > 1e-3


def test_only_linears_go_through_nf4(pair: tuple[Path, Path]) -> None:
    import torch

    base, _ = pair
    plain, held = open_merged(base, None), open_merged(base, None, dequant=True)
    for name, tensor in stream(plain):
        wanted = tensor
        if "proj" in name:
            wanted = round_trip(tensor.to(torch.bfloat16)).float()
        assert torch.equal(held.read(name), wanted)
        assert torch.equal(wanted, tensor) == ("proj" not in name)


def test_weights_into_a_model(pair: tuple[Path, Path]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    base, folder = pair
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = open_merged(base, folder)
    load_into(model, merged)
    for name, tensor in stream(merged):
        assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("asked", "in_4bit", "with_adapter", "base", "words"),
    [
        ("original", True, True, "original", "asked for"),
        ("dequant", False, True, "dequant", "asked for"),
        ("auto", False, True, "original", "does not say it was 4-bit"),
        ("auto", True, False, "original", "no adapter"),
        ("auto", True, True, "dequant", "no held-out chats"),
    ],
)
def test_what_needs_no_measuring(
    pair: tuple[Path, Path], asked: Any, in_4bit: bool, with_adapter: bool, base: str, words: str
) -> None:
    found = choose(
        asked,
        load_in_4bit=in_4bit,
        held_dtype="bfloat16",
        base=pair[0],
        adapter=pair[1] if with_adapter else None,
        recipe=None,
    )
    assert (found.base, found.asked) == (base, asked) and words in found.reason


def test_auto_measures_on_held_out_chats(pair: tuple[Path, Path], cache: Path) -> None:
    from toolkit.recipe.schema import DataSection, EvalSection, ModelSection, Recipe, SourceSection, TrainSection

    base, folder = pair
    source = SourceSection(source="builtin:tools", size=20, max_tools=2)
    recipe = Recipe(
        model=ModelSection(name=str(base), load_in_4bit=True),
        data=DataSection(sources=[source], call_format="json"),
        train=TrainSection(max_length=4096),
        eval=EvalSection(holdout=6),
    )
    said: list[str] = []
    found = choose(
        "auto",
        load_in_4bit=True,
        held_dtype="bfloat16",
        base=base,
        adapter=folder,
        recipe=recipe,
        template=ChatTemplate.of(compose(load_tokenizer(base), Rendering.of(recipe.data))),
        say=said.append,
    )
    assert [score.base for score in found.scores] == ["trained", "original", "dequant"]
    assert "task loss" in found.reason and "scoring 6 held-out chats" in said[0]
    trained, original, _ = found.scores
    assert found.base == ("original" if original.task_loss - trained.task_loss <= TOLERANCE else "dequant")
