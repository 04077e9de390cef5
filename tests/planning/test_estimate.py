"""Chats that have no token table yet are estimated from their text, near what the tokenizer would count."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.toys import QWEN_LIKE, save_tokenizer
from tests.real import QWEN3, load_once, need_tokenizer
from tests.tiny import ADD
from toolkit.data.render import Renderer
from toolkit.data.sources import load_chats
from toolkit.errors import DataError
from toolkit.planning.estimate import SAMPLE, mixed, sample
from toolkit.planning.lengths import ROWS, assumed
from toolkit.planning.pieces import Wrapping, wrapping_of
from toolkit.planning.plan import plan_recipe
from toolkit.planning.show import show
from toolkit.recipe import load
from toolkit.recipe.schema import EvalSection, Recipe
from toolkit.terminal import new_console

ROOT = Path(__file__).parents[2]


def recipe(*sources: dict[str, object], **sections: object) -> Recipe:
    return Recipe.model_validate({"data": {"sources": list(sources), **sections.pop("data", {})}, **sections})  # type: ignore[dict-item]


def test_the_built_in_chats_have_about_700_tokens() -> None:
    """728 by Qwen3's tokenizer."""
    found = assumed(load(ROOT / "recipes" / "tools.toml").recipe)
    assert found.mean == pytest.approx(728, rel=0.1)
    assert 0.07 < found.trained < 0.12  # 0.09 by the tokenizer
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


SHORT = [
    [{"role": "user", "content": f"{n} and {n}?"}, {"role": "assistant", "content": f"{2 * n}."}] for n in range(3)
]
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 40}}}
HANDFULS: dict[str, list[dict[str, Any]]] = {
    "short": [{"messages": turns} for turns in SHORT],
    "with a system turn": [{"messages": [{"role": "system", "content": "Be brief."}, *turns]} for turns in SHORT],
    "long": [{"messages": [{"role": "user", "content": "Is it raining in Oslo today? " * 40}, SHORT[0][1]]}],
    "calls": [
        {
            "messages": [
                {"role": "user", "content": "2 and 40?"},
                {"role": "assistant", "content": "", "tool_calls": [CALL] * calls},
                *[{"role": "tool", "content": '{"sum": 42}'}] * calls,
                {"role": "assistant", "content": "42."},
            ],
            "tools": [ADD],
        }
        for calls in (1, 1, 3)
    ],
}


@pytest.mark.parametrize("chats", HANDFULS)
@pytest.mark.parametrize("call_format", ["native", "hermes", "json"])
def test_a_handful_of_chats_is_estimated_as_well_as_many(call_format: str, chats: str, tmp_path: Path) -> None:
    """What a template writes around them counts in short chats, and only there."""
    folder = need_tokenizer(*QWEN3)
    renderer = Renderer.of(load_once(folder), call_format, "signature")  # type: ignore[arg-type]
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps(chat) + "\n" for chat in HANDFULS[chats]))
    model = shutil.copytree(folder, tmp_path / "model")
    (model / "config.json").write_text("{}")
    given = recipe({"source": str(path)}, data={"call_format": call_format}, model={"name": str(model)})
    encoded = [renderer.encode(row) for chat in load_chats(given.data.sources) for row in renderer.rows(chat)]
    found = sample(given, given.data.sources[0])
    assert found is not None
    assert found.tokens.mean() == pytest.approx(np.mean([len(row.input_ids) for row in encoded]), rel=0.15)
    # a template may open an answer with an empty thought, or not: a few tokens an answer
    assert found.trained.mean() == pytest.approx(np.mean([row.trained.sum() for row in encoded]), rel=0.15, abs=4)


def test_a_system_turn_of_the_template_s_own_counts_where_a_chat_has_none(tmp_path: Path) -> None:
    own = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    plain = wrapping_of(save_tokenizer(tmp_path / "plain", QWEN_LIKE))
    helpful = wrapping_of(save_tokenizer(tmp_path / "helpful", own + QWEN_LIKE))
    assert (helpful.turn, helpful.system) == (plain.turn, plain.system) and helpful.plain == plain.plain + 11


def test_a_template_that_can_not_be_rendered_is_taken_for_a_likely_one(tmp_path: Path) -> None:
    assert wrapping_of(None) == wrapping_of(tmp_path) == Wrapping()
    broken = save_tokenizer(tmp_path / "broken", QWEN_LIKE)
    (broken / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    assert wrapping_of(broken) == Wrapping()


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


def test_a_plan_says_where_more_is_held_out_than_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"messages": turns}) + "\n" for turns in SHORT * 70))
    file = tmp_path / "mine.toml"
    file.write_text('[[data.sources]]\nsource = "mine.jsonl"\n')

    def told(**sections: object) -> str:
        loaded = load(file)
        shown = io.StringIO()
        given = replace(loaded, recipe=loaded.recipe.model_copy(update=sections))
        show(plan_recipe(given, "t4"), new_console(file=shown, width=400))
        return shown.getvalue()

    assert "eval.holdout = 200 holds out 200 chats and leaves 10 to train on: set a lower number" in told()
    assert "holds out" not in told(eval=EvalSection(holdout=21))
    with pytest.raises(DataError, match=r"so none is left to train on; set a lower number, as eval.holdout = 21, or"):
        told(eval=EvalSection(holdout=210))
