"""Glaive's rows: one text for the functions, one for the whole talk."""

from __future__ import annotations

import json
from typing import Any

import pytest

from toolkit.chats import Chat, ToolCall
from toolkit.data.formats import convert
from toolkit.data.notes import Remarks, RowError

PARAMETERS = {"type": "object", "properties": {"base": {"type": "string"}}, "required": ["base"]}
RATE = {"name": "get_rate", "description": "Rate of a currency.", "parameters": PARAMETERS}
NEWS = {"name": "get_news", "description": "News.", "parameters": {}}
SYSTEM = (
    "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
    f"{json.dumps(RATE, indent=4)}\n\n{json.dumps(NEWS, indent=4)}\n"
)
CALL = """<functioncall> {"name": "get_rate", "arguments": '{"base": "USD"}'} <|endoftext|>"""


def talk(*answers: str) -> str:
    said = [f"USER: Question {number}?\n\n\nASSISTANT: {answer}" for number, answer in enumerate(answers, 1)]
    return "\n\n\n".join(said)


def read(chat: str, system: Any = SYSTEM) -> tuple[Chat, Remarks]:
    remarks = Remarks()
    return convert({"system": system, "chat": chat}, "auto", where="x.json:1", source="x", remarks=remarks), remarks


def test_a_call_its_result_and_an_answer() -> None:
    answer = 'The rate is 0.9.\n\nAnd "USER: x" is a text. <|endoftext|>'
    chat, remarks = read(
        f'{talk(f"Let me see. {CALL}")}\n\n\nFUNCTION RESPONSE: {{"rate": 0.9}}\n\n\nASSISTANT: {answer}\n\n'
    )
    assert chat.meta == {"format": "glaive"}
    assert [tool["function"] for tool in chat.tools] == [RATE, NEWS]
    assert [(turn.role, turn.content, turn.tool_calls) for turn in chat.turns] == [
        ("user", "Question 1?", ()),
        ("assistant", "Let me see.", (ToolCall("get_rate", {"base": "USD"}),)),
        ("tool", '{"rate": 0.9}', ()),
        ("assistant", 'The rate is 0.9.\n\nAnd "USER: x" is a text.', ()),
    ]
    assert remarks == {"system texts: the functions and the words about calling them are read out of the text": 1}


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ("""{"name": "get_rate", "arguments": '{"base": "it's"}'}""", {"base": "it's"}),
        ("""{"name": "get_rate", "arguments": '{"base": "it\\'s"}'}""", {"base": "it's"}),
        ('{"name": "get_rate", "arguments": {"base": "USD"}}', {"base": "USD"}),
        ('{"name": "get_rate", "arguments": "{\\"base\\": \\"USD\\"}"}', {"base": "USD"}),
        ("""{"name": "get_rate", "arguments": '{\n  "base": "a\\nb"\n}'}""", {"base": "a\nb"}),
        ("""{"name": "get_rate", "arguments": '{}'}""", {}),
        ('{"name": "get_rate"}', {}),
    ],
)
def test_ways_to_write_arguments(written: str, arguments: dict[str, Any]) -> None:
    for end in (" <|endoftext|>", "", " </functioncall>"):
        chat, _ = read(talk(f"<functioncall> {written}{end}"))
        assert chat.turns[1].tool_calls == (ToolCall("get_rate", arguments),)


def test_without_functions_the_system_text_stays() -> None:
    system = "SYSTEM: You are a helpful assistant, with no access to external functions."
    chat, remarks = read(talk("Hello. <|endoftext|>", "Bye."), system)
    assert [turn.role for turn in chat.turns] == ["system", "user", "assistant", "user", "assistant"]
    assert chat.turns[0].content == system.removeprefix("SYSTEM: ")
    assert chat.turns[2].content == "Hello." and chat.tools == () and remarks == {}
    assert read(talk("Hello."), None)[0].turns[0].role == "user"


def test_words_of_its_own_around_the_functions_stay() -> None:
    chat, _ = read(talk("Hello."), f"SYSTEM: Be brief.\n[{json.dumps(RATE)}]\nToday is Monday.")
    assert chat.turns[0].content == "Be brief.\n\nToday is Monday."
    assert [tool["function"] for tool in chat.tools] == [RATE]


@pytest.mark.parametrize(
    ("chat", "system", "message"),
    [
        (
            talk('<functioncall> {"name": "get_rat", "arguments": {}}'),
            SYSTEM,
            "turn 2: calls unknown tool get_rat, did you mean",
        ),
        (
            talk("""<functioncall> {"name": "get_rate", "arguments": '{"base": USD}'}"""),
            SYSTEM,
            "arguments of get_rate: not",
        ),
        (talk("<functioncall> {broken"), SYSTEM, "turn 2: <functioncall>: not JSON"),
        (talk(CALL), SYSTEM[:-30], "system: the functions: not JSON"),
        (talk(CALL), 5, "system: wanted text"),
        ("USER: Hello?", SYSTEM, "no assistant turn"),
        (
            talk("<functioncall> " + '{"name": "get_rate", "arguments": {"base": {1}}}'),
            SYSTEM,
            "a set, which JSON can't say",
        ),
    ],
)
def test_bad_rows(chat: str, system: Any, message: str) -> None:
    with pytest.raises(RowError, match=message):
        read(chat, system)


def test_a_text_without_speakers_is_none() -> None:
    with pytest.raises(RowError, match="no known format: found chat, system"):
        read("Hello there.")
    with pytest.raises(RowError, match="chat: wanted a text of USER:"):
        convert({"chat": "Hello there."}, "glaive", where="x:1", source="x")
    with pytest.raises(RowError, match="glaive needs system and chat"):
        convert({"chat": [1]}, "glaive", where="x:1", source="x")
