"""The Modelfile: what Ollama would render is what training rendered, but for the spelling of JSON; calls are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.data import call_templates
from tests.export.gotemplate import render
from tests.export.ollama_rules import Answer, answer, by_mark, directives, mark, prompts_with_the_gguf, qwen3
from tests.real import load_once
from tests.tiny import ADD, CHATML, make_tokenizer
from toolkit.data.compose import compose
from toolkit.data.markup import probe
from toolkit.data.markup import render as render_jinja
from toolkit.data.template import Rendering, templated
from toolkit.export.ollama import go_template, modelfile
from toolkit.export.runtime_parsers import gaps_of, read_by

# Qwen's own markup in a template of our own, which knows tools
NATIVE = """{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- "# Tools\\n\\nCall them within <tool_call></tool_call>:\\n<tools>" }}
{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\\n</tools><|im_end|>\\n" }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{- '<|im_start|>user\\n' + message.content + '<|im_end|>\\n' }}
{%- elif message.role == 'assistant' %}{{- '<|im_start|>assistant\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{%- if message.content or not loop.first %}{{- '\\n' }}{%- endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) \
+ '}\\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
# as SmolLM2's: a system turn where the chat has none
WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}" + CHATML
)
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather <now> of a city & around.",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"type": "string", "enum": ["c", "f"]}, "city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
TOOLS = [ADD, WEATHER]
SYSTEM, USER = {"role": "system", "content": "Be {{ brief }}."}, {"role": "user", "content": "1 plus 2? And <&>?"}


def call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def says(text: str, *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **({"tool_calls": list(calls)} if calls else {})}


def gives(name: str, content: str) -> dict[str, Any]:
    return {"role": "tool", "name": name, "content": content}


ONE, OTHER = call("get_weather", {"unit": "c", "city": "Oslo <x>"}), call("add", {"b": 2, "a": 1})
CHATS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "plain": ([USER], []),
    "system": ([SYSTEM, USER, says("ok"), USER], []),
    "tools": ([USER], TOOLS),
    "system and tools": ([SYSTEM, USER], TOOLS),
    "a call and its result": ([USER, says("", ONE), gives("get_weather", '{"t": 3}')], TOOLS),
    "words before a call": (
        [SYSTEM, USER, says("Well.", ONE), gives("get_weather", 'so "warm"'), says("3"), USER],
        TOOLS,
    ),
    "two calls": ([USER, says("", ONE, OTHER), gives("get_weather", "3"), gives("add", "4"), says("ok"), USER], TOOLS),
    "words and two calls": ([USER, says("Well.", OTHER, ONE), gives("add", "3"), gives("get_weather", "4")], TOOLS),
}
SAID = {
    "hermes": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
    "json": '{"tool": "get_weather", "arguments": {"city": "Oslo"}}',
    "jsonrpc": '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", '
    '"params": {"name": "get_weather", "arguments": {"city": "Oslo"}}}',
}
SAID["native"] = SAID["hermes"]
NAMES = ["add", "get_weather"]
OSLO = ("get_weather", {"city": "Oslo"})


def carried(kind: str, rendering: Rendering) -> Any:
    """A tokenizer with the chat template that a file carries."""
    if kind == "native":
        tokenizer = make_tokenizer(["some text"], NATIVE)
    else:
        tokenizer = make_tokenizer(["some text"], WITH_DEFAULT if kind == "with default" else CHATML)
    return templated(tokenizer, compose(tokenizer, rendering))


CARRIED = [
    ("native", Rendering("native")),
    ("native", Rendering("native", thinking="split")),
    *[
        (kind, Rendering(form, "schema"))
        for kind in ("plain", "with default")
        for form in ("hermes", "json", "jsonrpc")
    ],  # type: ignore[arg-type]
    ("native", Rendering("hermes", "schema", "split")),
]


class GoTool(dict[str, Any]):
    """A tool's function as Ollama holds it: `json` writes its own keys in its own order, and no others."""

    def json(self) -> str:
        given = self["parameters"]
        known = {"type": given["type"], "required": given["required"], "properties": given["properties"]}
        whole = {"name": self["name"], "description": self["description"], "parameters": known}
        text = json.dumps(whole, separators=(",", ":"))
        return re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", text)


def go_data(messages: list[dict[str, Any]], tools: list[dict[str, Any]]) -> dict[str, Any]:
    """What Ollama hands to a template."""
    return {
        "System": "\n\n".join(message["content"] for message in messages if message["role"] == "system"),
        "Tools": [{"Function": GoTool(tool["function"])} for tool in tools],
        "Messages": [
            {
                "Role": message["role"],
                "Content": message["content"],
                "ToolCalls": [
                    {"Function": {"Name": one["function"]["name"], "Arguments": one["function"]["arguments"]}}
                    for one in message.get("tool_calls", [])
                ],
            }
            for message in messages
        ],
    }


def respelled(text: str) -> str:
    """Every JSON object of a text in one spelling."""

    def parts() -> Iterator[str]:
        at = 0
        while at < len(text):
            if text[at] == "{":
                try:
                    value, end = json.JSONDecoder().raw_decode(text, at)
                except ValueError:
                    pass
                else:
                    yield json.dumps(value, sort_keys=True)
                    at = end
                    continue
            yield text[at]
            at += 1

    return "".join(parts())


def written(tokenizer: Any, max_length: int | None = None) -> str:
    return modelfile(Path("/x/tiny-Q8_0.gguf"), tokenizer, max_length=max_length, context=8192)


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize(("kind", "rendering"), CARRIED)
def test_renders_what_training_rendered(kind: str, rendering: Rendering, name: str) -> None:
    tokenizer = carried(kind, rendering)
    messages, tools = CHATS[name]
    wanted = render_jinja(tokenizer, messages, tools=tools or None, add_generation_prompt=True)
    found = render(go_template(tokenizer, probe(tokenizer)), go_data(messages, tools))
    if rendering.call_format == "jsonrpc" and "two" in name:
        assert found.count('"params": {"name": "') == 2 and found.count('"result"') == 2, "said to be one by one"
    else:
        assert respelled(found) == respelled(wanted)


def test_renders_what_training_rendered_for_qwen3(qwen3_tokenizer: Path) -> None:
    tokenizer = load_once(qwen3_tokenizer)
    for messages, tools in CHATS.values():
        wanted = render_jinja(tokenizer, messages, tools=tools or None, add_generation_prompt=True)
        found = render(go_template(tokenizer, probe(tokenizer)), go_data(messages, tools))
        assert respelled(found) == respelled(wanted)
    text = written(tokenizer)
    assert answer(text, SAID["native"], NAMES) == Answer([OSLO], "")
    assert prompts_with_the_gguf(text, tokenizer.chat_template)


def test_signatures_are_schemas_in_ollama() -> None:
    tokenizer = carried("plain", Rendering("hermes", "signature"))
    found = render(go_template(tokenizer, probe(tokenizer)), go_data([USER], TOOLS))
    assert GoTool(ADD["function"]).json() in found and "one-line signatures" in written(tokenizer)
    assert "one-line signatures" not in written(carried("plain", Rendering("hermes", "schema")))


@pytest.mark.parametrize(("kind", "rendering"), CARRIED)
def test_calls_are_read_or_said_not_to_be(kind: str, rendering: Rendering) -> None:
    """By the rules for versions that prompt with the Modelfile's template."""
    form, text = rendering.call_format, written(carried(kind, rendering))
    said = SAID[form]
    if form == "json":
        # Ollama would take the whole object for the arguments: better is the text
        assert answer(text, said, NAMES) == Answer([], said)
        assert "# Calls are read from 0.30 on, one a turn; earlier versions give them as text.\n" in text
    else:
        assert answer(text, said, NAMES) == Answer([OSLO], "")
        assert "# Calls are read" in text
    assert answer(text, "In plain words.", NAMES) == Answer([], "In plain words.")


def test_who_reads_the_calls() -> None:
    for kind, rendering in CARRIED:
        told, form = read_by(carried(kind, rendering)), rendering.call_format
        assert list(told) == ["toolkit serve", "llama.cpp", "Ollama", "vLLM"] and told["toolkit serve"] == "read"
        if form in ("native", "hermes"):
            assert told["llama.cpp"] == told["Ollama"] == "read" and "--tool-call-parser hermes" in told["vLLM"]
            assert gaps_of(told) == ""
        else:
            assert told["vLLM"].startswith("not read") and told["llama.cpp"] != "read"
            assert gaps_of(told).startswith(
                'calls of this format are not read everywhere (data.call_format = "hermes" is)'
            )
            assert "toolkit serve" not in gaps_of(told) and told["Ollama"] in gaps_of(told)
    assert set(read_by(make_tokenizer(["some text"])).values()) == {"none: the chat template knows no tools"}


def test_several_calls() -> None:
    both = f"{SAID['hermes']}\n" + SAID["hermes"].replace(
        'get_weather", "arguments": {"city": "Oslo"}', 'add", "arguments": {}'
    )
    text = written(carried("plain", Rendering("hermes")))
    assert answer(text, f"Well.\n{both}", NAMES) == Answer([OSLO, ("add", {})], "Well.\n")
    batch = f"[{SAID['jsonrpc']}, {SAID['jsonrpc']}]"
    text = written(carried("plain", Rendering("jsonrpc")))
    assert (
        answer(text, batch, NAMES) == Answer([], batch) and "# Calls are read, one a turn; several come as text" in text
    )


@pytest.mark.parametrize(("kind", "rendering"), CARRIED)
def test_later_versions_prompt_with_the_template_inside_the_gguf(kind: str, rendering: Rendering) -> None:
    """But for calls that llama.cpp's server can't read: then Ollama's own reader does, where it has the choice."""
    tokenizer = carried(kind, rendering)
    text, jinja = written(tokenizer), tokenizer.chat_template
    assert prompts_with_the_gguf(text, jinja) == (rendering.call_format != "jsonrpc")
    assert not prompts_with_the_gguf(text, jinja, go_forced=True)
    assert not prompts_with_the_gguf(text + "PARSER qwen3\n", jinja), "why there is none"
    assert "PARSER" not in directives(text)
    seen = text.replace('tool_{{ "response" }}', "tool_response").replace('eq "tool" .Role', 'eq .Role "tool"')
    if "<think>" not in jinja:
        assert not prompts_with_the_gguf(seen, jinja), "why these words are parted"


def test_the_rules() -> None:
    assert mark("{{ range .ToolCalls }}<tool_call>{{ end }}") == "{"
    assert mark("{{ if .ToolCalls }}\n<tool_call>\n{{ end }}") == "<tool_call>"
    assert (
        mark(
            '{{ range .Messages }}{{ if eq .Role "x" }}a{{ else }}{{ if .ToolCalls }}[T] {"a{{ end }}{{ end }}{{ end }}'
        )
        == "[T]"
    )
    assert mark("{{ if .ToolCalls }}{{ .Content }}<tool_call>{{ end }}") == "{"
    assert mark("{{ if and .Content .ToolCalls }}\n{{ end }}{{ if .ToolCalls }}<tool_call>{{ end }}") == "{"
    whole = {"tool": "get_weather", "arguments": {"city": "Oslo"}}
    assert by_mark(SAID["json"], NAMES, "{") == Answer([("get_weather", whole)], "")
    assert by_mark(SAID["jsonrpc"], NAMES, "{") == Answer([OSLO], "")
    assert by_mark(f"So: {SAID['json']}", NAMES, "{") == Answer([], f"So: {SAID['json']}")
    assert by_mark(SAID["hermes"], NAMES, "{") == Answer([], SAID["hermes"]), "no call where no mark is inferred"
    assert by_mark('<tool_call>{"name": "add"}</tool_call>', NAMES, "<tool_call>") == Answer([], "")
    assert qwen3(f"Well. {SAID['hermes']}") == Answer([OSLO], "Well.")
    with pytest.raises(ValueError, match="Expecting"):
        qwen3("<tool_call>{</tool_call>")


def test_a_modelfile() -> None:
    text = written(carried("with default", Rendering("json", "signature")), max_length=6000)
    given = directives(text)
    assert given["FROM"] == "./tiny-Q8_0.gguf" and given["TEMPLATE"].endswith("<|im_start|>assistant\n")
    assert "<|im_start|>system\nBe kind.<|im_end|>" in given["TEMPLATE"]
    assert 'PARAMETER stop "<|im_end|>"' in text and 'PARAMETER stop "<|im_start|>"' in text
    assert "PARAMETER num_ctx 6000" in text and "PARAMETER repeat_penalty 1\n" in text
    assert text.count('"""') == 2
    short = modelfile(Path("m.gguf"), carried("plain", Rendering("json")), max_length=512, context=2048)
    assert "PARAMETER num_ctx 2048" in short


def test_a_template_without_tools() -> None:
    tokenizer = make_tokenizer(["some text"])
    text = written(tokenizer)
    found = render(directives(text)["TEMPLATE"], go_data([SYSTEM, USER], []))
    assert found == render_jinja(tokenizer, [SYSTEM, USER], add_generation_prompt=True)
    assert "# Without tools: the chat template knows none." in text
    assert "# Calls are none: the chat template knows no tools." in text


def test_another_family_gets_no_template() -> None:
    other = CHATML.replace("<|im_start|>' + message['role'] + '", "<|im_start|>[' + message['role'] + ']")
    tokenizer = make_tokenizer(["some text"], other.replace("<|im_start|>assistant", "<|im_start|>[assistant]"))
    text = written(tokenizer)
    assert "# No TEMPLATE for earlier versions" in text and "TEMPLATE" not in directives(text)
    assert directives(text)["FROM"] == "./tiny-Q8_0.gguf"


@pytest.mark.parametrize(
    "broken",
    ["{{ if .System }}x", "{{ end }}", "{{ bad .X }}", "{{ .System", "{{ range .Tools }}{{ .Function }}{{ end }}"],
)
def test_the_interpreter_refuses_what_go_would(broken: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        render(broken, {"System": "s", "Messages": [], "Tools": [{"Function": GoTool(ADD["function"])}]})


@pytest.mark.parametrize("text", ["a {{ b }} c", "ends in {", '{"a": {"b": {{', 'three """ quotes', "</tool_response>"])
def test_literal_braces_and_quotes_survive(text: str) -> None:
    from toolkit.export.ollama import _go, _modest

    assert render(_modest(_go(text)) + "{{ .System }}", {"System": "S"}) == f"{text}S" and '"""' not in _go(text)


@pytest.mark.parametrize(("form", "built_in"), [("lfm", "lfm2"), ("olmo", "olmo3"), ("gemma", "functiongemma")])
def test_what_ollama_has_built_in_is_told_of_and_not_set(form: str, built_in: str) -> None:
    """Of calls that are no JSON there is no Go template, and the file is written all the same."""
    text = written(call_templates.tokenizer(form))
    assert f"\n# RENDERER {built_in}\n# PARSER {built_in}\nFROM ./tiny-Q8_0.gguf\n" in text
    assert not {"TEMPLATE", "RENDERER", "PARSER"} & set(directives(text))
    assert "# No TEMPLATE for earlier versions: the chat template does not write tools after the system text.\n" in text
    assert prompts_with_the_gguf(text, call_templates.tokenizer(form).chat_template)


def test_both_tokens_that_close_an_answer_stop_it() -> None:
    text = written(call_templates.tokenizer(call_templates.OPEN_CALLS))
    assert 'PARAMETER stop "<|im_end|>"\nPARAMETER stop "<start_function_response>"\n' in text


def test_a_form_that_ollama_has_nothing_for_names_nothing() -> None:
    assert "RENDERER lfm2" not in (text := written(call_templates.tokenizer("tool_call"))) and "# PARSER" not in text
