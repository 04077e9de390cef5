"""Glaive's function-calling rows: `system` lists the functions, `chat` is the whole talk as one text.

SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -
{"name": "get_weather", "description": ..., "parameters": {...}}

USER: Weather in Oslo?

ASSISTANT: <functioncall> {"name": "get_weather", "arguments": '{"city": "Oslo"}'} <|endoftext|>

FUNCTION RESPONSE: {"sky": "rain"}
"""

from __future__ import annotations

import re
from typing import Any

from toolkit.data.items import arguments_of, read_call
from toolkit.data.jsontext import STRICT, literal, not_json, refuse_halves
from toolkit.data.notes import Remarks, RowError
from toolkit.data.spoken_turns import Call, Said

_SPEAKER = re.compile(r"(?:\A|\n[ \t]*\n)\s*(USER|ASSISTANT|FUNCTION RESPONSE):[ \t]*")
_CALL = re.compile(r"<functioncall>\s*(?=\{)")
_QUOTED = re.compile(r"""\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*'(.*)'\s*\}""", re.DOTALL)
_END = "<|endoftext|>"
_PREAMBLE = re.compile(
    r"(?:You are a helpful assistant,? )?with access to the following functions\.\s*Use them if required\s*-?\s*\Z"
)
_ROLES = {"USER": "user", "ASSISTANT": "assistant", "FUNCTION RESPONSE": "tool"}


def is_glaive(row: dict[str, Any]) -> bool:
    """Whether a row has Glaive's shape: a `chat` text that begins with a speaker."""
    chat = row.get("chat")
    match = _SPEAKER.match(chat) if isinstance(chat, str) else None
    return match is not None and match.start() == 0


def read_chat(text: str, remarks: Remarks) -> list[Said]:
    """The turns of a `chat` text. Raises `RowError`."""
    marks = list(_SPEAKER.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        raise RowError(
            "chat: wanted a text of USER:, ASSISTANT: and FUNCTION RESPONSE:", cause="a chat without speakers"
        )
    turns: list[Said] = []
    for number, mark in enumerate(marks, 1):
        stop = marks[number].start() if number < len(marks) else len(text)
        said = text[mark.end() : stop].strip().removesuffix(_END).strip()
        turns += _turn(mark[1], said, number, remarks)
    return turns


def _turn(speaker: str, text: str, number: int, remarks: Remarks) -> list[Said]:
    role = _ROLES[speaker]
    call = _CALL.search(text) if role == "assistant" else None
    if call is None:
        return [Said(role, text, number=number)]  # type: ignore[arg-type]
    # Only one call a turn is written this way, and nothing after it.
    return [
        Said("assistant", text[: call.start()].strip(), (_call(text[call.end() :], number, remarks),), number=number)
    ]


def _call(text: str, number: int, remarks: Remarks) -> Call:
    what = f"turn {number}: <functioncall>"
    text = text.strip().removesuffix(_END).strip().removesuffix("</functioncall>").rstrip()
    if (quoted := _QUOTED.fullmatch(text)) is not None:
        # Text between apostrophes that JSON doesn't know: an apostrophe inside is none of the quotes.
        name = literal(quoted[1], what)
        written = quoted[2]
        try:
            return Call(name, arguments_of(written, name, what))
        except RowError:
            return Call(name, arguments_of(written.replace("\\'", "'"), name, what))
    return read_call(literal(text, what), what, remarks)


def read_system(text: str, remarks: Remarks) -> tuple[str, list[Any]]:
    """The system's own words, and the functions that it lists. Raises `RowError`."""
    text = text.strip().removeprefix("SYSTEM:").strip()
    start = re.search(r"^[ \t]*[\[{]", text, re.MULTILINE)
    if start is None:
        return text, []
    tools: list[Any] = []
    position = start.end() - 1
    while position < len(text):
        try:
            value, position = STRICT.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            if tools and text[position] not in "[{":
                break  # words of its own after the list
            raise not_json(error, "system: the functions") from None
        refuse_halves(value, "system: the functions")
        tools += value if isinstance(value, list) else [value]
        while position < len(text) and (text[position].isspace() or text[position] == ","):
            position += 1
    before = _PREAMBLE.sub("", text[: start.end() - 1].strip()).strip()
    remarks["system texts: the functions and the words about calling them are read out of the text"] += 1
    return "\n\n".join(part for part in (before, text[position:].strip()) if part), tools
