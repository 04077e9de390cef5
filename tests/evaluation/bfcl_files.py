"""Small files as BFCL's are, and calls that are right and wrong for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.chats import Chat, ToolCall
from toolkit.data import literals


def function(name: str, required: list[str], **properties: Any) -> dict[str, Any]:
    about = {key: value if isinstance(value, dict) else {"type": value} for key, value in properties.items()}
    parameters = {"type": "dict", "properties": about, "required": required}
    return {"name": name, "description": f"Does {name}.", "parameters": parameters}


FLIGHT = function(
    "flights.book",
    ["to", "seats"],
    to="string",
    seats="integer",
    price="float",
    legs={"type": "array", "items": {"type": "string"}},
    place={"type": "tuple", "items": {"type": "float"}},
    extra={"type": "dict", "properties": {"meal": {"type": "string"}, "bags": {"type": "integer"}}},
    note="any",
    direct="boolean",
)
RAIN = function("rain", ["where"], where="string", days="integer")
JAVA = function(
    "Store.put",
    ["key", "ids"],
    key="String",
    ids={"type": "ArrayList", "items": {"type": "long"}},
    opts="HashMap",
    handle="any",
    timeout="long",
    ratio="double",
    deep="boolean",
)
SCRIPT = function(
    "render", ["target", "data"], target="String", data="dict", points="array", live="Boolean", size="float"
)
TO_OSLO = {
    "flights.book": {
        "to": ["Oslo", "Oslo, Norway"],
        "seats": [2],
        "price": [99.5, ""],
        "legs": [["A-1", "B 2"], ""],
        "place": [[59.9, 10.7], ""],
        "extra": [{"meal": ["fish", "fish dish"], "bags": [1, ""]}, ""],
        "note": ["window", None, ""],
        "direct": [True, ""],
    }
}
ROWS: dict[str, list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]]] = {
    "simple_python": [("Fly.", [FLIGHT], [TO_OSLO])],
    "multiple": [("Rain?", [FLIGHT, RAIN], [{"rain": {"where": ["Bergen"], "days": ["", 1]}}])],
    "parallel": [("Rain twice?", [RAIN], [{"rain": {"where": ["Bergen"]}}, {"rain": {"where": ["Oslo", "Bergen"]}}])],
    "parallel_multiple": [("Both.", [FLIGHT, RAIN], [TO_OSLO, {"rain": {"where": ["Oslo"], "days": [3]}}])],
    "live_simple": [("Rain.", [RAIN], [{"rain": {"where": ["Ås"], "days": [""]}}])],
    "irrelevance": [("Sing.", [RAIN], [])],
    "live_relevance": [("Is it wet?", [RAIN], [])],
    "simple_java": [
        (
            "Put.",
            [JAVA],
            [
                {
                    "Store.put": {
                        "key": ["a key"],
                        "ids": [[101, 202]],
                        "opts": [{"limit": [50], "mode": ["fast"]}],
                        "handle": ["handler"],
                        "timeout": [5],
                        "ratio": [0.5],
                        "deep": [True],
                    }
                }
            ],
        )
    ],
    "simple_javascript": [
        (
            "Render.",
            [SCRIPT],
            [
                {
                    "render": {
                        "target": ["app"],
                        "data": [{"state": ["initial"], "hooks": [["a", "b"]]}],
                        "points": [[1.5, 2]],
                        "live": [False],
                        "size": [3.0],
                    }
                }
            ],
        )
    ],
}


def write_files(folder: Path) -> Path:
    (folder / "possible_answer").mkdir(parents=True)
    for category, rows in ROWS.items():
        questions, answers = [], []
        for number, (text, functions, truth) in enumerate(rows):
            name = f"{category}_{number}"
            message = [[{"role": "user", "content": text}]]
            questions.append(json.dumps({"id": name, "question": message, "function": functions}))
            answers.append(json.dumps({"id": name, "ground_truth": truth}))
        (folder / f"BFCL_v4_{category}.json").write_text("\n".join(questions) + "\n")
        if rows[0][2]:
            (folder / "possible_answer" / f"BFCL_v4_{category}.json").write_text("\n".join(answers) + "\n")
    (folder / "BFCL_v4_multi_turn_base.json").write_text("{}\n")
    (folder / "README.md").write_text("words\n")
    return folder


def source_of(value: Any, language: literals.Language) -> str:
    """A value as a Java or JavaScript literal."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    inner = [source_of(one, language) for one in value] if isinstance(value, list) else []
    pairs = value.items() if isinstance(value, dict) else ()
    if language == "java":
        if isinstance(value, list):
            return f"new ArrayList<>(Arrays.asList({', '.join(inner)}))" if inner else "new ArrayList<>()"
        if isinstance(value, dict):
            puts = " ".join(f"put({json.dumps(key)}, {source_of(one, language)});" for key, one in pairs)
            return f"new HashMap<String, Object>() {{{{ {puts} }}}}"
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(inner)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {source_of(one, language)}" for key, one in pairs) + "}"
    return str(value)


def gold(chat: Chat) -> list[ToolCall]:
    """Right calls as a model would write them."""
    calls = []
    for about, call in zip(chat.meta["bfcl"], chat.turns[-1].tool_calls, strict=True):
        arguments = call.arguments
        if language := about["language"]:
            arguments = {
                key: value if isinstance(value, str) else source_of(value, language) for key, value in arguments.items()
            }
        calls.append(replace(call, arguments=arguments))
    return calls


def spoilt(chat: Chat) -> Iterator[tuple[str, list[ToolCall]]]:
    """Wrong calls, each with what is wrong."""
    calls = gold(chat)
    yield "a call is missing", calls[:-1]
    yield "a call too many", [*calls, calls[0]]
    first, rest = calls[0], calls[1:]
    yield "another tool", [replace(first, name=f"{first.name}x"), *rest]
    yield "an unknown argument", [replace(first, arguments={**first.arguments, "zzz": 1}), *rest]
    for key, value in first.arguments.items():
        others = {name: one for name, one in first.arguments.items() if name != key}
        yield f"{key} is missing", [replace(first, arguments=others), *rest]
        yield f"{key} is another text", [replace(first, arguments={**others, key: "qqxyzzy"}), *rest]
        if isinstance(value, bool | int | float):
            wrong = not value if isinstance(value, bool) else value + 17
            yield f"{key} is another value", [replace(first, arguments={**others, key: wrong}), *rest]
        if isinstance(value, list) and value:
            yield f"{key} lacks an item", [replace(first, arguments={**others, key: value[:-1]}), *rest]
        if isinstance(value, dict):
            yield f"{key} has another key", [replace(first, arguments={**others, key: {**value, "zz": 1}}), *rest]
