"""Chat templates, a small real tokenizer, and chats made by hypothesis, for the tests of toolkit.data."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.tiny import CHATML, make_tokenizer
from toolkit.chats import Chat, ToolCall, Turn

# Behaves as Qwen3's template does where it matters: tools in the system turn, a think block before the last assistant
# turn only, results grouped in a user turn, enable_thinking=False closing the block in the prompt.
QWEN_LIKE = """\
{%- set first = messages[0] %}
{%- if tools %}{{ '<|im_start|>system\\n' }}
{%- if first.role == 'system' %}{{ first.content + '\\n\\n' }}{% endif %}
{{- 'Functions:' }}{% for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- elif first.role == 'system' %}{{ '<|im_start|>system\\n' + first.content + '<|im_end|>\\n' }}
{%- endif %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}{% if loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{ m.content }}
{%- for c in m.tool_calls or [] %}
{%- if m.content or not loop.first %}{{ '\\n' }}{% endif %}
{{- '<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' + (c.function.arguments | tojson) }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}
{%- endif %}"""

# Refuses the tool role, and two user turns in a row.
STRICT = """\
{%- for m in messages %}
{%- if m.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('no role ' + m.role) }}{% endif %}
{%- if m.role == 'user' and loop.index0 and messages[loop.index0 - 1].role == 'user' %}
{{- raise_exception('roles must alternate') }}
{%- endif %}
{{- '<|im_start|>' + m.role + '\\n' + (m.content | trim) + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

_TEXT = [
    "What is the weather in Oslo tomorrow? I would like to know it in Celsius, please.",
    '{"name": "get_weather", "arguments": {"city": "Oslo", "units": "metric"}}\n\n<tool_call>\n</tool_call>',
    "assistant\nuser\nsystem\n\n\nThe weather is fine.\n\n<think>\n\n</think>\n\nIt rains today.  \n \n",
    '"type": "function", "description": "", "parameters": {"type": "object", "properties": {}, "required": []}',
]


@lru_cache
def tokenizer(template: str = QWEN_LIKE) -> Any:
    return make_tokenizer(_TEXT * 20, template, vocab_size=500)


def save_tokenizer(folder: Path, template: str = QWEN_LIKE) -> Path:
    tokenizer(template).save_pretrained(folder)
    return folder


def tool(name: str, about: str = "", **properties: Any) -> dict[str, Any]:
    """A tool whose arguments are all required unless their name ends in `_`."""
    schema = {key.rstrip("_"): value for key, value in properties.items()}
    required = [key for key in properties if not key.endswith("_")]
    parameters = {"type": "object", "properties": schema, "required": required}
    return {"type": "function", "function": {"name": name, "description": about, "parameters": parameters}}


WEATHER = tool("get_weather", "Current weather of a city.", city={"type": "string"})
ADD = tool("add", "Add numbers.", a={"type": "integer"}, b={"type": "integer"})


def weather_chat(where: str = "chats.jsonl:1", city: str = "Oslo", kind: str = "single") -> Chat:
    return Chat(
        turns=(
            Turn("system", "Be brief."),
            Turn("user", f"What is the weather in {city}?"),
            Turn("assistant", "", (ToolCall("get_weather", {"city": city}),)),
            Turn("tool", '{"sky": "rain"}', name="get_weather"),
            Turn("assistant", f"It rains in {city}."),
            Turn("user", "Thanks!"),
            Turn("assistant", "You are welcome."),
        ),
        tools=(WEATHER, ADD),
        kind=kind,
        source="chats.jsonl",
        where=where,
    )


def weather_row(city: str = "Oslo", **more: Any) -> dict[str, Any]:
    """The same chat as a row in the messages format."""
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": json.dumps({"city": city})},
    }
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"What is the weather in {city}?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": '{"sky": "rain"}'},
        {"role": "assistant", "content": f"It rains in {city}."},
        {"role": "user", "content": "Thanks!"},
        {"role": "assistant", "content": "You are welcome."},
    ]
    return {"messages": messages, "tools": [WEATHER, ADD], **more}


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# Texts that try the tokenizer's patience: blank space at either end, emoji, newlines, JSON, role names.
_ALPHABET = st.sampled_from([*"ab Z09\n\t.,{}\"'<>|/", "é", "漢", "🙂", "\u0301", "assistant", "\n\n", "</", "tool"])
texts = st.lists(_ALPHABET, min_size=1, max_size=25).map("".join).filter(str.strip)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
calls = st.builds(ToolCall, st.sampled_from(["get_weather", "add"]), st.dictionaries(texts, _VALUES, max_size=3))


@st.composite
def chats(draw: st.DrawFn) -> Chat:
    """Chats that begin with the system or the user and end with the assistant: calls, results and plain answers."""
    turns = [Turn("system", draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns.append(Turn("user", draw(texts)))
        for _ in range(draw(st.integers(0, 2))):
            made = draw(st.lists(calls, min_size=1, max_size=3))
            turns.append(Turn("assistant", draw(st.just("") | texts), tuple(made)))
            turns += [Turn("tool", draw(texts), name=call.name) for call in made]
        turns.append(Turn("assistant", draw(texts)))
    return Chat(tuple(turns), (WEATHER, ADD), where="made:1")


__all__ = ["CHATML", "QWEN_LIKE", "STRICT", "calls", "chats", "texts", "tokenizer", "weather_chat", "weather_row"]
