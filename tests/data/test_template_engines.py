"""One text from every engine that renders a model's template: transformers', ours, llama.cpp's and npm's.

npm's @huggingface/jinja (LM Studio and transformers.js use it) is optional: `.ci/npm-jinja` gets it and runs this.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests import real
from tests.data.toys import CHATML, STRICT, WEATHER, tokenizer, tool, weather_chat
from tests.real import find_tokenizer
from toolkit import world as builtin
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.render import Renderer

MODULES = os.environ.get("TOOLKIT_NODE_MODULES", "")
TEXT = 'São "P"\n\t\u0001\\</script> \'<>&\u00e9\U0001f642\u3000é  end. '
HARD_TOOLS = (
    tool(
        "search",
        "  Search\n    a store;\tor two.\r\n",
        query={"type": "string", "description": "What to look for.\nSeveral  words."},
        id={"type": ["string", "null"], "format": "uuid"},
        sort_={"enum": ["price", "É", None, 1, True, 1.5, {"a": [1]}], "default": "price"},
        limit_={
            "type": "integer",
            "minimum": 1,
            "maximum": 50,
            "default": 10,
            "description": "How many, 10 if left out",
        },
        since_={"type": "number", "minimum": 0.5},
        until_={"type": "number", "maximum": -3},
        code_={"type": "string", "pattern": '^[A-Z]{2}"\\d+$'},
        where_={"$ref": "#/$defs/Place"},
        nowhere_={"$ref": "#/$defs/Nothing"},
        loop_={"$ref": "#/$defs/Loop"},
        any_={},
        true_=True,
        many_={"anyOf": [{"type": "string"}, {"const": "all"}, {"type": "string"}]},
        one_={"oneOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "array"}]},
        items_={"type": "array", "items": {"enum": ["a", "b"]}},
        keys_={"type": "object", "properties": {"items": {"type": "string"}, "get": {"type": "boolean"}}},
        values_={"type": "object", "properties": {}},
    ),
    tool("höhe", "", größe={"type": "number", "description": "Größe in Metern"}),
    {"type": "function", "function": {"name": "now", "description": "", "parameters": {}}},
    {"type": "function", "function": {"name": "then", "description": "x", "parameters": {"type": "object"}}},
)
HARD_TOOLS[0]["function"]["parameters"]["$defs"] = {
    "Place": {"type": "object", "properties": {"city": {"type": "string"}, "country": {"$ref": "#/$defs/Code"}}},
    "Code": {"type": "string"},
    "Loop": {"type": "object", "properties": {"left": {"$ref": "#/$defs/Loop"}, "right": {"$ref": "#/$defs/Loop"}}},
}
ARGUMENTS = {"query": TEXT, "n": -3, "x": 1.5, "none": None, "yes": True, "list": [1, [], {}, {"a": {"b": ""}}], "": ""}
HARD = Chat(
    (
        Turn("system", TEXT),
        Turn("user", TEXT),
        Turn("assistant", f"Let me see. {TEXT}", (ToolCall("search", ARGUMENTS), ToolCall("now", {}))),
        Turn("tool", TEXT, name="search"),
        Turn("tool", '[{"a": 1.0}]', name="now"),
        Turn("assistant", "", (ToolCall("höhe", {"größe": 2}),)),
        Turn("tool", ""),
        Turn("assistant", TEXT),
        Turn("user", "<tool_response>\nme\n</tool_response>"),
        Turn("assistant", "Done."),
    ),
    tools=HARD_TOOLS,
    where="made:1",
)
CHATS = [
    HARD,
    replace(HARD, turns=HARD.turns[1:]),
    replace(HARD, tools=()),
    replace(weather_chat(), turns=weather_chat().turns[1:], tools=(WEATHER,)),
    *islice(builtin.chats(size=8, seed=3), 4),
]
QWEN3 = find_tokenizer(*real.QWEN3)
TEMPLATES = {"chatml": CHATML, "strict": STRICT}
FORMATS: list[tuple[str, str, str]] = [
    ("hermes", "signature", "template"),
    ("hermes", "schema", "split"),
    ("json", "signature", "split"),
    ("json", "schema", "template"),
    ("jsonrpc", "signature", "template"),
    ("native", "signature", "template"),
    ("native", "signature", "split"),
]
WAYS = [("chatml", *how) for how in FORMATS if how[0] != "native"]
WAYS += [("Qwen3", *how) for how in FORMATS if QWEN3]
WAYS += [("strict", *FORMATS[0]), ("strict", *FORMATS[4])]
every_way = pytest.mark.parametrize("way", WAYS, ids=[" ".join(way) for way in WAYS])
# llama.cpp has to read a file of each way: each call format and form comes once, and the others in the slow tier
FIRST = [("Qwen3", *FORMATS[1]), ("Qwen3", *FORMATS[5]), ("strict", *FORMATS[0]), ("strict", *FORMATS[4])]
in_llama_cpp = pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=[] if way in FIRST else pytest.mark.endurance, id=" ".join(way)) for way in WAYS],
)


def prompts(renderer: Renderer) -> list[tuple[Any, Any, str]]:
    """(messages, tools, prompt) of every assistant turn."""
    found = []
    for chat in CHATS:
        for index, turn in enumerate(chat.turns):
            if turn.role == "assistant":
                given = renderer.messages(chat, index)
                found.append((given.messages, given.tools, renderer.prompt(chat, index)))
    return found


def renderer_of(way: tuple[str, ...]) -> Renderer:
    name, *how = way
    own = tokenizer(TEMPLATES[name]) if name in TEMPLATES else real.load_once(QWEN3)
    return Renderer.of(own, *how)  # type: ignore[arg-type]


@every_way
def test_rows_and_prompts_are_transformers_own(way: tuple[str, ...]) -> None:
    renderer = renderer_of(way)
    apply = renderer.tokenizer.apply_chat_template
    for messages, tools, prompt in prompts(renderer):
        assert apply(messages, tools=tools, tokenize=False, add_generation_prompt=True) == prompt
    if way[3] == "template":
        for chat in CHATS:
            given = renderer.messages(chat)
            assert renderer.rows(chat)[0].text == apply(given.messages, tools=given.tools, tokenize=False)


@in_llama_cpp
def test_llama_cpp_writes_the_same(way: tuple[str, ...], tmp_path: Path, tiny_model: Path) -> None:
    pytest.importorskip("xllamacpp")
    from toolkit.export.merge import open_merged
    from toolkit.export.tokenizer import read_tokenizer
    from toolkit.export.writer import Metadata, write_gguf
    from toolkit.inference.gguf import GgufModel

    renderer = renderer_of(way)
    weights = open_merged(tiny_model, None)
    there = replace(
        read_tokenizer(tiny_model, weights.architecture.shape.vocab_size), template=renderer.tokenizer.chat_template
    )
    write_gguf(tmp_path / "x.gguf", weights, there, Metadata("tiny", None, None), "F16")
    with GgufModel(tmp_path / "x.gguf", n_ctx=64, threads=1) as model:
        for messages, tools, prompt in prompts(renderer):
            assert model.apply_template(messages, tools) == prompt


@pytest.mark.skipif(not shutil.which("node"), reason="no node on this machine")
@pytest.mark.skipif(
    not MODULES, reason="TOOLKIT_NODE_MODULES names no folder with @huggingface/jinja; see .ci/npm-jinja"
)
def test_npms_jinja_writes_the_same(tmp_path: Path) -> None:
    """All ways in one go. Whole numbers written as 1.0 are 1 in JavaScript; that is left out here."""
    cases, wanted = [], []
    for way in WAYS:
        renderer = renderer_of(way)
        for messages, tools, prompt in prompts(renderer):
            values = {**renderer.tokenizer.special_tokens_map, "messages": messages, "add_generation_prompt": True}
            cases.append({"template": renderer.tokenizer.chat_template, "values": {**values, "tools": tools}})
            wanted.append(prompt)
    path = tmp_path / "cases.json"
    path.write_text(json.dumps(cases))
    done = subprocess.run(
        ["node", str(Path(__file__).parent / "render.mjs"), str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(wanted) > 100
    for text, prompt in zip(found, wanted, strict=True):
        assert text == prompt
