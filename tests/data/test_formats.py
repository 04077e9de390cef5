from __future__ import annotations

import json
from typing import Any

import pytest

from tests.data.toys import ADD, WEATHER, weather_row
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.formats import convert, detect
from toolkit.data.mending import strip_nulls
from toolkit.data.notes import Remarks, RowError
from toolkit.data.schemas import json_type, read_tools
from toolkit.data.violations import violations

TOOLS = json.dumps([WEATHER, ADD])
HERMES_SYSTEM = (
    "Be brief.\n\nYou are a function calling AI model. You are provided with function signatures within "
    "<tools> </tools> XML tags. "
    f"<tools> {json.dumps(WEATHER)}\n{json.dumps(ADD)} </tools> For each call return a json object."
)
CALL = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'

# The same short chat in every format.
ROWS: dict[str, dict[str, Any]] = {
    "messages": weather_row(kind="single"),
    "sharegpt": {
        "system": "Be brief.",
        "tools": TOOLS,
        "conversations": [
            {"from": "human", "value": "What is the weather in Oslo?"},
            {"from": "function_call", "value": CALL},
            {"from": "observation", "value": '{"sky": "rain"}'},
            {"from": "gpt", "value": "It rains in Oslo."},
            {"from": "human", "value": "Thanks!"},
            {"from": "gpt", "value": "You are welcome."},
        ],
    },
    "hermes": {
        "conversations": [
            {"from": "system", "value": HERMES_SYSTEM},
            {"from": "human", "value": "What is the weather in Oslo?"},
            {
                "from": "gpt",
                "value": "<tool_call>\n{'name': 'get_weather', 'arguments': {'city': 'Oslo'}}\n</tool_call>",
            },
            {"from": "tool", "value": '<tool_response>\n{"sky": "rain"}\n</tool_response>'},
            {"from": "gpt", "value": "It rains in Oslo."},
            {"from": "human", "value": "Thanks!"},
            {"from": "gpt", "value": "You are welcome."},
        ]
    },
    "prompt_completion": {
        "tools": TOOLS,
        "prompt": weather_row()["messages"][:-1],
        "completion": weather_row()["messages"][-1:],
    },
}


def plain(chat: Chat) -> list[tuple[str, str, tuple[ToolCall, ...]]]:
    return [(turn.role, turn.content, turn.tool_calls) for turn in chat.turns]


def chat_of(row: Any, format: Any = "auto") -> Chat:
    return convert(row, format, where="x.jsonl:3", source="x.jsonl")


@pytest.mark.parametrize("name", ROWS)
def test_every_format_is_found_and_gives_the_same_chat(name: str) -> None:
    chat = chat_of(ROWS[name])
    assert chat.meta["format"] == name
    assert plain(chat) == plain(chat_of(weather_row()))
    assert chat.tools == (WEATHER, ADD)
    assert chat.where == "x.jsonl:3"
    assert plain(chat_of(ROWS[name], name)) == plain(chat)


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"prompt": "?", "chosen": "!", "rejected": "."}, 'user = "prompt", assistant = "chosen"'),
        ({"question": "?", "chosen": "!", "rejected": "."}, 'user = "question", assistant = "chosen"'),
        ({"prompt": "?", "chosen": [{"role": "user", "content": "?"}], "rejected": []}, 'messages = "chosen"'),
    ],
)
def test_preferences_have_a_reason_of_their_own(row: dict[str, Any], columns: str) -> None:
    with pytest.raises(RowError) as error:
        chat_of(row)
    assert str(error.value).startswith("a preference (chosen and rejected), as DPO trains on; supervised")
    assert f"data.sources.columns = {{ {columns} }}" in str(error.value)


@pytest.mark.parametrize("name", ROWS)
def test_json_text_stands_for_lists_and_objects(name: str) -> None:
    """As CSV cells and Arrow columns hold them."""
    row = {key: json.dumps(value) if isinstance(value, list) else value for key, value in ROWS[name].items()}
    assert plain(chat_of(row)) == plain(chat_of(ROWS[name]))


def test_kinds_are_kept_when_known() -> None:
    assert chat_of(weather_row(kind="refuse")).kind == "refuse"
    assert chat_of(weather_row(kind="sillier")).kind == "other"


def test_alpaca() -> None:
    chat = chat_of(
        {"instruction": "Add.", "input": "2 2", "output": "4", "history": [["Hi", "Hello"]], "system": "Sum."}
    )
    assert [(turn.role, turn.content) for turn in chat.turns] == [
        ("system", "Sum."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "Add.\n\n2 2"),
        ("assistant", "4"),
    ]


def test_prompt_and_completion_as_text() -> None:
    assert [turn.content for turn in chat_of({"prompt": "2 and 2?", "completion": "4"}).turns] == ["2 and 2?", "4"]


def test_xlam_types_become_a_json_schema() -> None:
    parameters = {
        "city": {"description": "Where.", "type": "str"},
        "days": {"description": "How many.", "type": "int, optional", "default": 3},
        "spots": {"description": "Pairs.", "type": "List[Tuple[float, float]]"},
    }
    row = {
        "query": "Weather?",
        "tools": json.dumps([{"name": "get_weather", "description": "Weather.", "parameters": parameters}]),
        "answers": json.dumps([{"name": "get_weather", "arguments": {"city": "Oslo", "spots": []}}]),
    }
    chat = chat_of(row)
    schema = chat.tools[0]["function"]["parameters"]
    assert schema["required"] == ["city", "spots"]
    assert schema["properties"]["days"] == {"type": "integer", "description": "How many.", "default": 3}
    assert schema["properties"]["spots"]["items"] == {"type": "array"}
    assert chat.turns[1].tool_calls == (ToolCall("get_weather", {"city": "Oslo", "spots": []}),)


@pytest.mark.parametrize(
    ("python", "schema"),
    [
        ("List[int]", {"type": "array", "items": {"type": "integer"}}),
        ("Optional[str]", {"type": "string"}),
        ("Union[int, str]", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        ("Dict[str, int]", {"type": "object"}),
        ("Callable", {}),
    ],
)
def test_python_types(python: str, schema: dict[str, Any]) -> None:
    assert json_type(python) == schema


def test_tools_get_the_shape_that_servers_hand_to_the_template() -> None:
    """llama.cpp inserts an empty description and keeps three keys; so the training text has them in that order."""
    bare = {"parameters": {"z": 1, "a": 2}, "strict": True, "name": "f"}
    expected = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"z": 1, "a": 2}}}
    for written in (bare, {"function": bare}, {"type": "function", "function": bare}):
        assert json.dumps(read_tools([written], Remarks()).schemas[0]) == json.dumps(expected)


def test_results_find_their_call_by_id() -> None:
    assert chat_of(weather_row()).turns[3].name == "get_weather"


def test_hermes_results_in_one_turn_are_parted_and_plain_text_kept() -> None:
    row = {
        "tools": TOOLS,
        "messages": [
            {"role": "system", "content": "Just this."},
            {"role": "user", "content": "Both?"},
            {
                "role": "assistant",
                "content": f"Both.\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{CALL}\n</tool_call>",
            },
            {
                "role": "user",
                "content": '<tool_response>\n{"name": "get_weather", "content": {"n": 1}}\n</tool_response>\n'
                "<tool_response>\ntwo\n</tool_response>",
            },
            {"role": "assistant", "content": "Done."},
        ],
    }
    chat = chat_of(row)
    assert chat.meta["format"] == "hermes"
    assert [turn.role for turn in chat.turns] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    assert chat.turns[0].content == "Just this."
    assert chat.turns[2].content == "Both." and len(chat.turns[2].tool_calls) == 2
    assert chat.turns[3] == Turn("tool", '{"n": 1}', name="get_weather") and chat.turns[4].content == "two"


def test_assistant_turns_in_a_row_are_one_and_turns_after_the_last_answer_go() -> None:
    messages = weather_row()["messages"]
    spoken = [{"role": "assistant", "content": "Let me look."}, messages[2]]
    chat = chat_of(
        {"messages": [messages[1], *spoken, *messages[3:], {"role": "user", "content": "Bye"}], "tools": TOOLS}
    )
    assert chat.turns[1] == Turn("assistant", "Let me look.", (ToolCall("get_weather", {"city": "Oslo"}),))
    assert chat.turns[-1].role == "assistant"


def test_text_after_a_call_stays_after_it() -> None:
    messages = weather_row()["messages"]
    asked = {"role": "assistant", "content": "I asked."}
    chat = chat_of({"messages": [*messages[1:3], asked, *messages[3:5]], "tools": TOOLS})
    call = ToolCall("get_weather", {"city": "Oslo"})
    assert plain(chat)[1:3] == [("assistant", "", (call,)), ("assistant", "I asked.", ())]
    assert violations(chat) == []


def test_reasoning_and_parts_become_text() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "So.", "reasoning_content": "why"},
    ]
    chat = chat_of({"messages": messages})
    assert chat.turns[0].content == "ab" and chat.turns[1].content == "<think>\nwhy\n</think>\n\nSo."


def with_turn(index: int, **changes: Any) -> dict[str, Any]:
    row = weather_row()
    row["messages"][index] = {**row["messages"][index], **changes}
    return row


def calling(function: Any) -> dict[str, Any]:
    return with_turn(2, tool_calls=[{"type": "function", "function": function}])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": weather_row()["messages"][:2]}, "no assistant turn"),
        ({"messages": []}, "no assistant turn"),
        (calling({"name": "get_weather", "arguments": '{"city": Oslo}'}), "turn 3: arguments of get_weather: not JSON"),
        (calling({"name": "get_weather", "arguments": "[1]"}), "wanted a JSON object"),
        (
            calling({"name": "get_wether", "arguments": {}}),
            "turn 3: calls unknown tool get_wether, did you mean get_weather?",
        ),
        (calling({"arguments": {}}), "a call needs a name"),
        ({**weather_row(), "tools": None}, "turn 3: calls unknown tool get_weather; the row offers no tools"),
        ({**weather_row(), "tools": "[{"}, "tools: not JSON"),
        ({**weather_row(), "tools": [{"description": "nameless"}]}, r"tools\[0\]: a tool needs a name"),
        (with_turn(4, content=""), "turn 5: an assistant turn is empty"),
        (with_turn(1, role="usr"), "unknown role usr, did you mean user?"),
        (with_turn(1, content=[{"type": "image"}]), "turn 2: wanted text"),
        ({"question": "?", "answer": "!"}, "no known format: found answer, question; wanted one of messages"),
        ([1, 2], "wanted an object"),
        ({"messages": "not a list"}, "messages: not JSON"),
        ({"messages": ["hello"]}, "item 1 is no object"),
        ({"query": "?", "tools": "[]", "answers": "[]"}, "^an assistant turn is empty"),
        (
            {"query": "?", "tools": TOOLS, "answers": '[{"name": "get_wether", "arguments": {}}]'},
            "^calls unknown tool get_w",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": "Let me look."},
                    {"role": "assistant", "content": "", "tool_calls": [{"name": "get_wether", "arguments": {}}]},
                ],
                "tools": TOOLS,
            },
            "turn 2: calls unknown tool get_wether, did you mean get_weather?",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "?"},
                    {"role": "assistant", "content": "<tool_call>{</tool_call>"},
                ],
                "tools": TOOLS,
            },
            "turn 2: <tool_call>: not JSON",
        ),
    ],
)
def test_bad_rows_say_what_is_wrong(row: Any, message: str) -> None:
    with pytest.raises(RowError, match=message):
        chat_of(row)


def test_a_format_that_is_set_names_what_it_misses() -> None:
    with pytest.raises(RowError, match=r"alpaca needs instruction and output; missing: output"):
        chat_of({"instruction": "x"}, "alpaca")
    with pytest.raises(RowError, match="no messages or conversations: found prompt"):
        chat_of({"prompt": "x"}, "sharegpt")


def test_nulls_of_arrow_unions_go_and_real_values_stay() -> None:
    union = {"city": {"type": "string", "enum": None}, "list": [None, {"a": None, "b": 0}], "off": False, "none": None}
    stripped = strip_nulls(union)
    assert stripped.value == {"city": {"type": "string"}, "list": [None, {"b": 0}], "off": False}
    assert stripped.count == 3


def test_detection_looks_at_keys_roles_and_blocks_never_at_a_word() -> None:
    assert detect({"conversations": weather_row()["messages"]}) == "messages"
    assert detect({"messages": ROWS["sharegpt"]["conversations"]}) == "sharegpt"
    marked = [{"role": "assistant", "content": f"<tool_call>{CALL}</tool_call>"}]
    assert detect({"messages": marked, "tools": TOOLS}) == "hermes"
    assert detect({"messages": marked}) == "messages", "without tools it is a text about calls"
    assert detect({"messages": [{"role": "system", "content": HERMES_SYSTEM}, *marked]}) == "hermes"
    mention = [{"role": "assistant", "content": "It writes <tool_call> and <tools>, then {}."}]
    assert detect({"messages": mention, "tools": TOOLS}) == "messages"
    structured = [*marked, {"role": "assistant", "tool_calls": [json.loads(CALL)]}]
    assert detect({"messages": structured, "tools": TOOLS}) == "messages"


@pytest.mark.parametrize("label", [False, 0, 0.0, "false", "False", "0"])
def test_an_answer_that_is_not_to_be_given_is_not_trained(label: Any) -> None:
    with pytest.raises(RowError, match=r"^label = .*: an answer that is not to be given, as KTO trains on"):
        convert({"prompt": "?", "completion": "No.", "label": label}, "auto", where="x:1", source="x")
    good = "True" if isinstance(label, str) else not label
    remarks = Remarks()
    convert({"prompt": "?", "completion": "Yes.", "label": good}, "auto", where="x:1", source="x", remarks=remarks)
    assert not remarks


def test_a_label_of_other_rows_is_refused_only_where_it_says_false() -> None:
    for row, format in (
        ({"user": "?", "assistant": "No."}, "columns"),
        ({"instruction": "?", "output": "No."}, "auto"),
    ):
        with pytest.raises(RowError, match="label = false: an answer that is not to be given"):
            convert({**row, "label": False}, format, where="x:1", source="x")  # type: ignore[arg-type]
        remarks = Remarks()
        convert({**row, "label": 0}, format, where="x:1", source="x", remarks=remarks)  # type: ignore[arg-type]
        assert remarks == {"rows: key label is not used": 1}  # a class, most likely
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Yes."}]
    for data in (0, 1, "false", "spam"):  # a class too
        remarks = Remarks()
        convert({"messages": turns, "label": data}, "auto", where="x:1", source="x", remarks=remarks)
        assert remarks == {"rows: key label is not used": 1}


_TURNS = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "No."}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": _TURNS},
        {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "No."}]},
        {"prompt": _TURNS[:1], "completion": _TURNS[1:]},
        {"prompt": "?", "completion": "No."},
        {"instruction": "?", "output": "No."},
        {"query": "?", "tools": TOOLS, "answers": f"[{CALL}]"},
    ],
)
def test_a_row_that_kto_marks_as_bad_is_not_trained_whatever_its_format(row: dict[str, Any]) -> None:
    for mark in ({"label": False}, {"kto_tag": False}, {"kto_tag": "False"}, {"kto_tag": 0}):
        with pytest.raises(RowError, match=r"^(label|kto_tag) = .*: an answer that is not to be given, as KTO trains"):
            convert({**row, **mark}, "auto", where="x:1", source="x")
    for mark in ({"label": True}, {"kto_tag": True}, {"kto_tag": "true"}):
        remarks = Remarks()
        convert({**row, **mark}, "auto", where="x:1", source="x", remarks=remarks)
        assert not any("not used" in text for text in remarks)


@pytest.mark.parametrize("tools", [["get_weather"], '["get_weather"]', "get_weather", [WEATHER, "math.add"]])
def test_a_tool_s_name_alone_is_no_schema(tools: Any) -> None:
    with pytest.raises(RowError, match=r"^tools(\[\d\])?: \".*\" is a tool's name, and a name alone is no schema"):
        convert({"messages": _TURNS, "tools": tools}, "auto", where="x:1", source="x")
    for text in ("{name: get_weather}", "NaN", "None", "get the weather"):
        with pytest.raises(RowError, match="not JSON"):
            convert({"messages": _TURNS, "tools": [text]}, "auto", where="x:1", source="x")
