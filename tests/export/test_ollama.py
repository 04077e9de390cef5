"""The Modelfile: what Ollama would render is what training rendered, but for the spelling of JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.export.gotemplate import render
from tests.tiny import ADD, CHATML, make_tokenizer
from toolkit.data.chats import Chat, ToolCall, Turn
from toolkit.data.markup import probe
from toolkit.data.render import Renderer
from toolkit.export.layout import DataRecord
from toolkit.export.ollama import go_template, modelfile

HERMES = """{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- "# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with \
function signatures within <tools></tools> XML tags:\\n<tools>" }}
{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:\\n<tool_call>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n\
</tool_call><|im_end|>\\n" }}
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
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}" + CHATML
)
CALL = ToolCall("add", {"a": 1, "b": 2})
SYSTEM, USER = Turn("system", "Be brief."), Turn("user", "1 plus 2? And <&>?")
RESULTS = [Turn("tool", '{"sum": 3}', name="add"), Turn("tool", '{"sum": 4}', name="add")]
LAST = Turn("assistant", "ok")
CHATS = {
    "plain": ((USER, LAST), ()),
    "system": ((SYSTEM, USER, LAST), ()),
    "tools": ((USER, LAST), (ADD,)),
    "system and tools": ((SYSTEM, USER, LAST), (ADD, ADD)),
    "a call and its result": ((USER, Turn("assistant", "", (CALL,)), RESULTS[0], LAST), (ADD,)),
    "words before a call": ((USER, Turn("assistant", "Well.", (CALL,)), RESULTS[0], LAST), (ADD,)),
    "two calls and then a question": (
        (USER, Turn("assistant", "", (CALL, CALL)), *RESULTS, Turn("assistant", "3 and 4."), USER, LAST),
        (ADD,),
    ),
}


def go_data(chat: Chat) -> dict[str, Any]:
    """What Ollama hands to a template for the chat's turns but the last."""
    messages = [
        {
            "Role": turn.role,
            "Content": turn.content,
            "ToolCalls": [{"Function": {"Name": call.name, "Arguments": call.arguments}} for call in turn.tool_calls],
        }
        for turn in chat.turns[:-1]
    ]
    system = "\n\n".join(message["Content"] for message in messages if message["Role"] == "system")
    return {"Messages": messages, "System": system, "Tools": [{"Function": tool["function"]} for tool in chat.tools]}


def compact(text: str) -> str:
    """JSON as Go spells it: no space after a comma or a colon."""
    return re.sub(r'([,:]) (?=["{\[\d])', r"\1", text)


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("call_format", ["native", "json", "native split"])
def test_renders_what_training_rendered(name: str, call_format: str) -> None:
    form, _, thinking = call_format.partition(" ")
    tokenizer = make_tokenizer(["some text"], HERMES if form == "native" else DEFAULT_SYSTEM)
    turns, tools = CHATS[name]
    chat = Chat(turns, tools)
    data = DataRecord(form, "schema", thinking or "template")  # type: ignore[arg-type]
    renderer = Renderer.of(tokenizer, data.call_format, data.tool_prompt, data.thinking)
    wanted = renderer.prompt(chat, len(turns) - 1)
    found = render(go_template(tokenizer, probe(tokenizer), data), go_data(chat))
    assert compact(found) == compact(wanted)


def test_without_a_recipe_and_without_tools_in_the_template() -> None:
    tokenizer = make_tokenizer(["some text"])
    chat = Chat((SYSTEM, USER, LAST), ())
    found = render(go_template(tokenizer, probe(tokenizer), None), go_data(chat))
    assert found == Renderer.of(tokenizer, "json").prompt(chat, 2)


def test_a_modelfile() -> None:
    tokenizer = make_tokenizer(["some text"], DEFAULT_SYSTEM)
    data = DataRecord("json", "signature", "template")
    text = modelfile(Path("/x/tiny-Q8_0.gguf"), tokenizer, data, max_length=6000, context=8192)
    assert "\nFROM ./tiny-Q8_0.gguf\n" in text
    assert 'PARAMETER stop "<|im_end|>"' in text and 'PARAMETER stop "<|im_start|>"' in text
    assert "PARAMETER num_ctx 6000" in text and "PARAMETER repeat_penalty 1\n" in text
    assert "one-line signatures" in text  # what differs from training is said
    assert 'To call tools, answer with {"tool": NAME, "arguments": {...}}, one call a line.' in text
    assert text.count('"""') == 2
    short = modelfile(Path("m.gguf"), tokenizer, None, max_length=512, context=2048)
    assert "PARAMETER num_ctx 2048" in short


def test_another_family_gets_no_template() -> None:
    other = CHATML.replace("<|im_start|>' + message['role'] + '", "<|im_start|>[' + message['role'] + ']")
    tokenizer = make_tokenizer(["some text"], other.replace("<|im_start|>assistant", "<|im_start|>[assistant]"))
    text = modelfile(Path("m.gguf"), tokenizer, None, max_length=None, context=8192)
    assert "# No TEMPLATE" in text and 'TEMPLATE """' not in text and "FROM ./m.gguf" in text


@pytest.mark.parametrize("broken", ["{{ if .System }}x", "{{ end }}", "{{ bad .X }}", "{{ .System"])
def test_the_interpreter_refuses_what_go_would(broken: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        render(broken, {"System": "s", "Messages": []})


def test_arguments_stay_json() -> None:
    tokenizer = make_tokenizer(["some text"], HERMES)
    turns, tools = CHATS["a call and its result"]
    data = DataRecord("native", "schema", "template")
    found = render(go_template(tokenizer, probe(tokenizer), data), go_data(Chat(turns, tools)))
    call = re.search(r"<tool_call>\n(\{\"name\": \"add\".*?\})\n</tool_call>", found)
    assert call and json.loads(call[1]) == {"name": "add", "arguments": {"a": 1, "b": 2}}
