"""Chats that have no token table yet are estimated from their text, near what the tokenizer would count."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from tests.real import QWEN3, load_once, need_tokenizer
from toolkit.data.render import Renderer
from toolkit.data.sources import load_chats
from toolkit.errors import DataError
from toolkit.planning.estimate import SAMPLE, mixed, sample
from toolkit.planning.lengths import ROWS, assumed
from toolkit.recipe import load
from toolkit.recipe.schema import Recipe

ROOT = Path(__file__).parents[2]


def recipe(*sources: dict[str, object], **sections: object) -> Recipe:
    return Recipe.model_validate({"data": {"sources": list(sources), **sections.pop("data", {})}, **sections})  # type: ignore[dict-item]


def test_the_built_in_chats_have_about_700_tokens() -> None:
    """710 by Qwen3's tokenizer."""
    found = assumed(load(ROOT / "recipes" / "tools.toml").recipe)
    assert 650 < found.mean < 750
    assert 0.08 < found.trained < 0.12
    assert (found.chats, found.measured, len(found.tokens)) == (15_694, False, ROWS + 1)
    assert found.tokens.max() == found.longest == 2048, "memory is planned for the worst case"
    assert "estimated from the text" in found.origin


@pytest.mark.parametrize(
    "call_format",
    ["native", "hermes", *(pytest.param(name, marks=pytest.mark.endurance) for name in ("json", "jsonrpc"))],
)
def test_the_estimate_is_near_what_a_tokenizer_counts(call_format: str) -> None:
    renderer = Renderer.of(load_once(need_tokenizer(*QWEN3)), call_format, "signature")  # type: ignore[arg-type]
    given = recipe({"source": "builtin:tools"}, data={"call_format": call_format})
    chats = list(islice(load_chats(given.data.sources), SAMPLE))
    encoded = [renderer.encode(row) for chat in chats for row in renderer.rows(chat)]
    found = sample(given, given.data.sources[0])
    assert found is not None and found.chats == len(chats)
    assert found.tokens.mean() == pytest.approx(np.mean([len(row.input_ids) for row in encoded]), rel=0.1)
    assert found.trained.mean() == pytest.approx(np.mean([row.trained.sum() for row in encoded]), rel=0.25)


def write(path: Path, texts: list[str]) -> str:
    rows = [{"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": "Done."}]} for t in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_file_of_long_chats_is_longer_than_one_of_short_ones(tmp_path: Path) -> None:
    short, long = write(tmp_path / "a.jsonl", ["word " * 20] * 40), write(tmp_path / "b.jsonl", ["word " * 400] * 40)
    sizes = [assumed(recipe({"source": path}, eval={"holdout": 10})) for path in (short, long)]
    assert [found.chats for found in sizes] == [30, 30]
    assert sizes[1].mean > 4 * sizes[0].mean
    both = assumed(recipe({"source": short}, {"source": long}, eval={"holdout": 10}))
    assert both.mean == pytest.approx((sizes[0].mean + sizes[1].mean) / 2, rel=0.05)


def test_chats_are_cut_and_the_trained_share_with_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["word " * 2000] * 40)
    found = assumed(recipe({"source": path}, eval={"holdout": 10}, train={"max_length": 512}))
    assert found.tokens.max() == 512
    assert 0 < found.trained < 0.1


def test_hub_data_falls_back_and_bad_rows_are_told(tmp_path: Path) -> None:
    found = assumed(recipe({"source": "org/data"}, train={"max_steps": 5}, eval={"holdout": 10}))
    assert "assumed: about 900 tokens" in found.origin
    path = tmp_path / "a.jsonl"
    path.write_text('{"what": "is this"}\n' * 40)
    with pytest.raises(DataError, match=r"40 of 40 rows can't be used"):
        assumed(recipe({"source": str(path)}, train={"max_steps": 5}, eval={"holdout": 10}))


def test_one_row_a_turn_where_chats_are_split() -> None:
    whole = recipe({"source": "builtin:tools"})
    split = recipe({"source": "builtin:tools"}, data={"thinking": "split"})
    one, several = (sample(given, given.data.sources[0]) for given in (whole, split))
    assert one is not None and several is not None
    assert one.chats == several.chats == len(one.tokens) < len(several.tokens)
    assert several.tokens.max() <= one.tokens.max()
    together = mixed([(several, 1.0)], 1000)
    assert len(together.tokens) / together.chats == pytest.approx(len(several.tokens) / several.chats, rel=0.01)
