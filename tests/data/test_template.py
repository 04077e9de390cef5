"""What each call format's template writes, word for word, and what templates it can be put before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.toys import CHATML, QWEN_LIKE, STRICT, save_tokenizer, tokenizer, tool, weather_chat
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data import legacy
from toolkit.data.compose import compose
from toolkit.data.keys import table_key
from toolkit.data.render import Renderer
from toolkit.data.template import (
    FILE,
    ChatTemplate,
    Rendering,
    model_part,
    own_template,
    rendering_of,
    templated,
)
from toolkit.data.tokenizers import copy_tokenizer, load_tokenizer
from toolkit.errors import DataError
from toolkit.recipe.schema import Recipe

OSLO = ToolCall("get_weather", {"city": "Oslo"})
BERGEN = ToolCall("get_weather", {"city": "Bergen"})
TWO = Chat(
    (
        Turn("user", "Oslo and Bergen?"),
        Turn("assistant", "Both.", (OSLO, BERGEN)),
        Turn("tool", '{"sky": "rain"}'),
        Turn("tool", 'no "Bergen"\n'),
        Turn("assistant", "Rain."),
    ),
    tools=(tool("get_weather", "Current weather of a city.", city={"type": "string"}),),
    where="made:1",
)
LINE = "get_weather(city: string) - Current weather of a city."
SCHEMA = json.dumps(TWO.tools[0]["function"])


def turns(renderer: Renderer, chat: Chat = TWO) -> list[tuple[str, str]]:
    """(role, text) of each turn that a ChatML template wrote."""
    (row,) = renderer.rows(chat)
    parts = [part.removesuffix("<|im_end|>") for part in row.text.rstrip("\n").split("<|im_start|>")[1:]]
    found = [part.removesuffix("<|im_end|>\n").partition("\n") for part in parts]
    return [(role, text) for role, _, text in found]


def test_hermes() -> None:
    assert turns(Renderer.of(tokenizer(CHATML), "hermes")) == [
        (
            "system",
            f"<tools>\n{LINE}\n</tools>\n\nTo call a tool, answer with\n"
            '<tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call>',
        ),
        ("user", "Oslo and Bergen?"),
        (
            "assistant",
            'Both.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bergen"}}\n</tool_call>',
        ),
        (
            "user",
            '<tool_response>\n{"sky": "rain"}\n</tool_response>\n<tool_response>\nno "Bergen"\n\n</tool_response>',
        ),
        ("assistant", "Rain."),
    ]


def test_json_is_the_chapters() -> None:
    assert turns(Renderer.of(tokenizer(CHATML), "json", "schema")) == [
        (
            "system",
            f'Tools:\n{SCHEMA}\n\nTo call tools, answer with {{"tool": NAME, "arguments": {{...}}}}, one call a line.',
        ),
        ("user", "Oslo and Bergen?"),
        (
            "assistant",
            'Both.\n{"tool": "get_weather", "arguments": {"city": "Oslo"}}\n'
            '{"tool": "get_weather", "arguments": {"city": "Bergen"}}',
        ),
        ("tool", '{"sky": "rain"}'),
        ("tool", 'no "Bergen"\n'),
        ("assistant", "Rain."),
    ]


def test_jsonrpc() -> None:
    found = turns(Renderer.of(tokenizer(CHATML), "jsonrpc"))
    assert [role for role, _ in found] == ["system", "user", "assistant", "tool", "assistant"]
    assert found[0][1].startswith(f'Tools:\n{LINE}\n\nTo call tools, answer with {{"jsonrpc": "2.0", "id": 1, ')
    written = found[2][1].removeprefix("Both.\n")
    calls = json.loads(written)
    assert [call["id"] for call in calls] == [1, 2]
    assert calls[1] == {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {"name": "get_weather", "arguments": {"city": "Bergen"}},
    }
    assert json.loads(found[3][1]) == [
        {"jsonrpc": "2.0", "id": 1, "result": '{"sky": "rain"}'},
        {"jsonrpc": "2.0", "id": 2, "result": 'no "Bergen"\n'},
    ]
    alone = turns(Renderer.of(tokenizer(CHATML), "jsonrpc"), weather_chat())
    assert json.loads(alone[2][1])["id"] == 1
    assert json.loads(alone[3][1]) == {"jsonrpc": "2.0", "id": 1, "result": '{"sky": "rain"}'}


@pytest.mark.parametrize("call_format", ["hermes", "json", "jsonrpc"])
def test_results_are_users_turns_where_a_template_refuses_their_role(call_format: Any) -> None:
    found = turns(Renderer.of(tokenizer(STRICT), call_format))
    assert [role for role, _ in found] == ["system", "user", "assistant", "user", "assistant"]
    assert found[3][1].startswith("<tool_response>\n") and found[3][1].endswith("</tool_response>")


@pytest.mark.parametrize("call_format", ["hermes", "json", "jsonrpc"])
def test_a_system_turn_gets_the_tools_and_nothing_else(call_format: Any) -> None:
    renderer = Renderer.of(tokenizer(CHATML), call_format)
    own = turns(renderer, weather_chat())[0][1]
    alone = turns(renderer, replace(weather_chat(), turns=weather_chat().turns[1:]))[0][1]
    assert own == f"Be brief.\n\n{alone}"
    assert not any(word in alone for word in ("refuse", "harm", "plain words"))
    no_tools = turns(
        renderer, replace(weather_chat(), turns=(Turn("system", "Be brief."), *TWO.turns[:1], Turn("assistant", "Hm.")))
    )
    assert no_tools[0][1] == own
    bare = Chat((Turn("system", "Be brief."), Turn("user", "Hi."), Turn("assistant", "Hi.")))
    assert turns(renderer, bare) == [("system", "Be brief."), ("user", "Hi."), ("assistant", "Hi.")]


@pytest.mark.parametrize(
    "own", [CHATML, QWEN_LIKE, STRICT, f"\n  {CHATML}", f"{{# a note #}}\n{CHATML}", f" x{CHATML}"]
)
@pytest.mark.parametrize("call_format", ["hermes", "jsonrpc"])
def test_a_template_says_what_it_writes_and_keeps_the_models_own(own: str, call_format: Any) -> None:
    rendering = Rendering(call_format, "schema", "split")
    text = compose(tokenizer(own), rendering)
    assert rendering_of(text) == rendering and model_part(text) == own
    assert rendering_of(own) == Rendering()
    assert compose(templated(tokenizer(own), text), rendering) == text, "put before a template once"
    bare = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hm."}]
    plain = tokenizer(own).apply_chat_template(bare, tokenize=False)
    assert templated(tokenizer(own), text).apply_chat_template(bare, tokenize=False) == plain


def test_native_is_the_models_own_template() -> None:
    assert compose(tokenizer(QWEN_LIKE), Rendering()) == QWEN_LIKE
    split = compose(tokenizer(QWEN_LIKE), Rendering(thinking="split"))
    assert model_part(split) == QWEN_LIKE
    prompt = [{"role": "user", "content": "Hi."}]
    for options in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
        text = templated(tokenizer(QWEN_LIKE), split).apply_chat_template(
            prompt, tokenize=False, add_generation_prompt=True, **options
        )
        assert text.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n"), "as it was trained, whatever is asked"


def test_a_model_of_ours_is_trained_again_in_its_own_format() -> None:
    """Or in another one, which then takes the place of the first."""
    hermes = templated(tokenizer(CHATML), compose(tokenizer(CHATML), Rendering("hermes")))
    assert Renderer.of(hermes).call_format == "hermes"
    assert compose(hermes, Rendering()) == hermes.chat_template
    assert compose(hermes, Rendering(thinking="split")) == compose(
        tokenizer(CHATML), Rendering("hermes", thinking="split")
    )
    assert compose(hermes, Rendering("json")) == compose(tokenizer(CHATML), Rendering("json"))


NO_SYSTEM = "{% for m in messages if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endfor %}" + CHATML


def test_a_template_without_system_turns_is_refused_with_the_reason() -> None:
    with pytest.raises(DataError, match=r'call_format = "hermes" can\'t be put before .*no system turns.*"native"'):
        compose(tokenizer(NO_SYSTEM), Rendering("hermes"))


def named(**templates: str) -> Any:
    return templated(tokenizer(CHATML), templates)  # type: ignore[arg-type]


def test_of_named_templates_one_is_used_throughout() -> None:
    both = named(default=CHATML, tool_use=QWEN_LIKE)
    assert own_template(both, "native") == (QWEN_LIKE, "tool_use")
    assert own_template(both, "hermes") == (CHATML, "default")
    assert own_template(named(default=QWEN_LIKE, rag=CHATML), "native") == (QWEN_LIKE, "default")
    assert own_template(named(tool_use=QWEN_LIKE), "json") == (QWEN_LIKE, "tool_use")
    assert own_template(named(only=QWEN_LIKE), "native") == (QWEN_LIKE, "only")
    renderer = Renderer.of(both)
    assert renderer.tokenizer.chat_template == renderer.carried == QWEN_LIKE
    with pytest.raises(DataError, match=r"several chat templates \(a, b\).*chat_template\.jinja"):
        own_template(named(a=CHATML, b=CHATML), "native")


@pytest.mark.parametrize("tool_prompt", ["signature", "schema"])
@pytest.mark.parametrize("call_format", ["json", "jsonrpc"])
@pytest.mark.parametrize("own", [CHATML, STRICT])
def test_runs_from_before_render_as_they_did(own: str, call_format: Any, tool_prompt: Any) -> None:
    before = Rendering(call_format, tool_prompt)
    renderer = Renderer.by(tokenizer(own), ChatTemplate(before, None))
    assert renderer.rendering == before
    found = turns(renderer)
    assert found[0][1] == legacy.tools_text(TWO.tools, call_format, tool_prompt)
    assert found[0][1].endswith("ask or answer in plain words; ask for what is missing; refuse what does harm.")
    if call_format == "jsonrpc":
        assert '"id": 1, "result": {"sky": "rain"}}' in found[3][1], "the tool's JSON as it is"
    # what goes with the model is as near to it as a template can be: here the same
    assert turns(Renderer(templated(tokenizer(own), renderer.carried))) == found


def test_what_a_folder_keeps_is_read_again(tmp_path: Path) -> None:
    text = compose(tokenizer(CHATML), Rendering("json"))
    assert ChatTemplate.read(tmp_path) is None
    assert ChatTemplate.read(tmp_path, Rendering("json")) == ChatTemplate(Rendering("json"), None)
    (tmp_path / FILE).write_text(text)
    assert ChatTemplate.read(tmp_path, Rendering("jsonrpc")) == ChatTemplate(Rendering("json"), text)


@pytest.mark.parametrize("inside", [True, False])
def test_a_tokenizer_is_copied_with_another_template(tmp_path: Path, inside: bool) -> None:
    source, target = save_tokenizer(tmp_path / "source", QWEN_LIKE), tmp_path / "target"
    if inside:  # where older folders have it
        config = json.loads((source / "tokenizer_config.json").read_text())
        (source / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": QWEN_LIKE}))
        (source / FILE).unlink()
    target.mkdir()
    copy_tokenizer(source, target, CHATML)
    assert (target / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    copied = load_tokenizer(target)
    assert copied.chat_template == CHATML and load_tokenizer(source).chat_template == QWEN_LIKE
    assert "chat_template" not in json.loads((target / "tokenizer_config.json").read_text())


def test_a_tables_key_knows_the_template(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "model", QWEN_LIKE)
    recipe = Recipe()
    keys = {table_key(recipe, folder, "train")}
    keys.add(table_key(recipe, folder, "train", ChatTemplate(Rendering(), None)))
    keys.add(table_key(recipe, folder, "train", ChatTemplate.of(CHATML)))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(QWEN_LIKE)
    keys.add(table_key(recipe, folder, "train"))
    (folder / FILE).write_text(CHATML)
    keys.add(table_key(recipe, folder, "train"))
    keys.add(
        table_key(
            recipe.model_copy(update={"data": recipe.data.model_copy(update={"call_format": "hermes"})}),
            folder,
            "train",
        )
    )
    assert len(keys) == 6
