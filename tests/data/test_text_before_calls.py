"""What an assistant writes before a call is trained with it, and the call is read behind it, in every call format."""

from __future__ import annotations

from typing import Any

import pytest

from tests.data.call_templates import CALLS, tokenizer
from tests.data.toys import CHATML, QWEN_LIKE, WEATHER
from tests.data.toys import tokenizer as toy
from toolkit.chats import Chat, ToolCall, Turn
from toolkit.data.call_parsing import parse
from toolkit.data.render import Renderer
from toolkit.evaluation.scoring import expectation, score

REASONS = (
    "Oak: 12, Elm: 31. 31 is higher than 12, so Elm.",
    '"Crate" with qr_42.png: "Crate:qr_42.png".',
    "20/BZ/3: that is not none, so invite [40].",
    "It was {6} before, so 6.",
)
FORMATS: dict[str, tuple[Any, Any]] = {
    **{name: (toy(CHATML), name) for name in ("hermes", "json", "jsonrpc")},
    "qwen": (toy(QWEN_LIKE), "native"),
    **{name: (tokenizer(name), "native") for name in CALLS},
}


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("name", FORMATS)
def test_text_and_call_are_trained_read_and_right(name: str, reason: str) -> None:
    made, call_format = FORMATS[name]
    renderer = Renderer.of(made, call_format)
    call = ToolCall("get_weather", {"city": "Elm"})
    turns = (
        *(Turn("user", "Go where it is greener."), Turn("assistant", "", (ToolCall("get_weather", {"city": "Oak"}),))),
        *(Turn("tool", '{"trees": 12}', name="get_weather"), Turn("assistant", reason, (call,))),
    )
    chat = Chat(turns, (WEATHER,), "multi_step", where="made:1")
    (row,) = renderer.rows(chat)
    start, stop = row.spans[-1]
    text = row.text[start:stop].removesuffix(renderer.markup.end)
    assert text.removeprefix("<think>\n\n</think>\n\n").lstrip().startswith(reason)
    read = parse(text, renderer.call_form or call_format, chat.tools)
    assert read.calls == (call,) and read.text == reason and read.valid_json
    assert expectation(chat, 3) == "call"
    found = score(chat, 3, read)
    assert found.exact and found.correct
