"""An OpenAI client's view of calls, text and thoughts, for answers planted behind the real endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.inference.serve.fake import FakeLlama, backend, served
from tests.tiny import ADD
from toolkit.inference.serve.app import State
from toolkit.inference.serve.bounds import Limits
from toolkit.inference.serve.calls import AnswerReader
from toolkit.inference.serve.grammar import call_grammar

openai = pytest.importorskip("openai")

SUBTRACT = {"type": "function", "function": {"name": "subtract", "description": "", "parameters": {}}}
TOOLS = [ADD, SUBTRACT]
QUESTION = [{"role": "user", "content": "What is 1 plus 2, and 5 minus 4?"}]
CALLS = [("add", {"a": 1, "b": 2}), ("subtract", {"from": "5", "what": "}]"})]
WRITTEN = {
    "native": "\n".join(
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>" for name, arguments in CALLS
    ),
    "json": "\n".join(json.dumps({"tool": name, "arguments": arguments}) for name, arguments in CALLS),
    "jsonrpc": json.dumps(
        [
            {
                "jsonrpc": "2.0",
                "id": number,
                "method": "tools/call",
                "params": {"name": name, "arguments": arguments},
            }
            for number, (name, arguments) in enumerate(CALLS, 1)
        ]
    ),
}


@pytest.fixture(scope="module")
def llama() -> FakeLlama:
    return FakeLlama()


@pytest.fixture(scope="module")
def state() -> State:
    return State(Limits(None))


@pytest.fixture(scope="module")
def client(state: State) -> Iterator[Any]:
    with served(state) as port:
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)


def asked(client: Any, stream: bool, **body: Any) -> tuple[str, str, list[tuple[str, str, str]], str]:
    """(content, thought, (id, name, arguments) of each call, finish reason) of an answer."""
    body = {"model": "any", "messages": QUESTION, **body}
    if not stream:
        choice = client.chat.completions.create(**body).choices[0]
        calls = [(one.id, one.function.name, one.function.arguments) for one in choice.message.tool_calls or ()]
        thought = getattr(choice.message, "reasoning_content", None) or ""
        return choice.message.content or "", thought, calls, choice.finish_reason
    content, thought, finish = "", "", ""
    made: dict[int, list[str]] = {}
    for chunk in client.chat.completions.create(**body, stream=True):
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        thought += getattr(choice.delta, "reasoning_content", None) or ""
        for one in choice.delta.tool_calls or ():
            call = made.setdefault(one.index, ["", "", ""])
            call[0] += one.id or ""
            call[1] += one.function.name or ""
            call[2] += one.function.arguments or ""
        finish = choice.finish_reason or finish
    return content, thought, [(a, b, c) for a, b, c in made.values()], finish


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("call_format", sorted(WRITTEN))
def test_calls_of_every_format(client: Any, state: State, call_format: str, stream: bool) -> None:
    for before in ("", "<think>\nBoth.\n</think>\n\n", "I add and subtract.\n"):
        llama = FakeLlama(before + WRITTEN[call_format])
        state.backend = backend(llama, call_format)
        content, thought, calls, finish = asked(client, stream, tools=TOOLS)
        assert [(name, json.loads(arguments)) for _, name, arguments in calls] == CALLS
        assert len({one[0] for one in calls}) == 2 and all(one[0].startswith("call_") for one in calls)
        assert finish == "tool_calls"
        assert content == ("I add and subtract." if before.startswith("I") else "")
        assert thought == ("Both." if before.startswith("<") else "")
        (one,) = asked(client, stream, tools=TOOLS, parallel_tool_calls=False)[2]
        assert one[1] == "add"


@pytest.mark.parametrize("stream", [False, True])
def test_text_is_text(client: Any, state: State, stream: bool) -> None:
    """What is no call, or was not asked for, comes as it was written."""
    for text in ("It is 3.", "In C: int main() { return 0; }, see [here](x).", '{"sum": 3}', '{"tool": "add", "argu'):
        state.backend = backend(FakeLlama(text), "json")
        assert asked(client, stream, tools=TOOLS) == (text, "", [], "stop")
    for call_format, text in WRITTEN.items():
        state.backend = backend(FakeLlama(text), call_format)
        assert asked(client, stream) == (text, "", [], "stop")
        assert asked(client, stream, tools=TOOLS, tool_choice="none") == (text, "", [], "stop")
    state.backend = backend(FakeLlama("It is", stop_type="limit"), "json")
    assert asked(client, stream, tools=TOOLS) == ("It is", "", [], "length")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("call_format", sorted(WRITTEN))
def test_a_cut_call_is_neither_text_nor_a_call(client: Any, state: State, call_format: str, stream: bool) -> None:
    """By a limit and by a stop word, behind no call and behind one."""
    written = WRITTEN[call_format]
    for how, reason in (("limit", "length"), ("word", "stop")):
        for size in (12, len(written) // 3, len(written) - 30):
            state.backend = backend(FakeLlama(f"Now.\n{written[:size]}", stop_type=how), call_format)
            content, thought, calls, finish = asked(client, stream, tools=TOOLS)
            assert (content, thought) == ("Now.", "")
            whole = size > len(written) // 2 and call_format != "jsonrpc"  # whose list is not closed
            assert [(name, json.loads(arguments)) for _, name, arguments in calls] == CALLS[:whole]
            assert finish == ("tool_calls" if calls and how == "word" else reason)


@pytest.mark.parametrize("call_format", sorted(WRITTEN))
def test_wherever_calls_are_cut_no_markup_is_text(call_format: str) -> None:
    written = WRITTEN[call_format]
    for before in ("", "I add.\n"):
        for size in range(1, len(written)):
            reader = AnswerReader(call_format, with_calls=True, tools=TOOLS)
            deltas = [*reader.feed(before + written[:size]), *reader.finish(cut=True)]
            assert "".join(delta.get("content", "") for delta in deltas) == before.strip(), written[:size]
            assert [(call.name, call.arguments) for call in reader.calls] == CALLS[: len(reader.calls)]


def test_tools_and_turns_reach_the_template(client: Any, state: State) -> None:
    """Tools in the toolkit's own shape, texts in parts, and results in the order of their calls, by id."""
    llama = FakeLlama()
    state.backend = backend(llama)
    bare = {"type": "function", "function": {"name": "bare"}}
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": json.dumps({"city": city})}}
        for name, city in (("oslo", "Oslo"), ("rome", "Rome"))
    ]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Oslo "}, {"type": "text", "text": "and Rome?"}]},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "rome", "content": "warm"},
        {"role": "tool", "tool_call_id": "oslo", "content": "cold"},
    ]
    asked(client, False, messages=messages, tools=[bare])
    described = {"type": "function", "function": {"name": "bare", "description": "", "parameters": {}}}
    assert llama.given["tools"] == [described]
    given = llama.given["messages"]
    assert [one["role"] for one in given] == ["system", "user", "assistant", "tool", "tool"]
    assert given[1]["content"] == "Oslo and Rome?"
    assert [one["function"]["name"] for one in given[2]["tool_calls"]] == ["oslo", "rome"]
    assert [(one["name"], one["content"]) for one in given[3:]] == [("oslo", "cold"), ("rome", "warm")]


def test_default_tools_are_for_clients_that_send_none(client: Any, state: State) -> None:
    llama = FakeLlama(WRITTEN["native"])
    state.backend = backend(llama)
    state.default_tools = (ADD,)
    try:
        assert asked(client, False)[2] and llama.given["tools"] == [ADD]
        assert not asked(client, False, tools=[])[2] and "tools" not in llama.given
        assert asked(client, False, tools=[SUBTRACT])[2] and llama.given["tools"] == [SUBTRACT]
    finally:
        state.default_tools = ()


def test_a_tool_that_must_be_called(client: Any, state: State) -> None:
    llama = FakeLlama(WRITTEN["json"])
    state.backend = backend(llama, "json")
    asked(client, False, tools=TOOLS, tool_choice="required")
    assert "call ::= call0 | call1\n" in llama.asked[-1]["grammar"] and "grammar_lazy" not in llama.asked[-1]
    asked(client, False, tools=TOOLS, tool_choice={"type": "function", "function": {"name": "add"}})
    assert "call ::= call0\n" in llama.asked[-1]["grammar"] and '\\"add\\"' in llama.asked[-1]["grammar"]
    assert "subtract" not in llama.asked[-1]["grammar"]


@pytest.mark.parametrize("call_format", list(WRITTEN))
def test_a_call_that_begins_is_of_a_tool_on_offer(client: Any, state: State, call_format: str) -> None:
    llama = FakeLlama(WRITTEN[call_format])
    state.backend = backend(llama, call_format)
    asked(client, False, tools=TOOLS)
    body = llama.asked[-1]
    (trigger,) = body["grammar_triggers"]
    assert body["grammar_lazy"] and trigger["value"] in WRITTEN[call_format]
    assert "call ::= call0 | call1\n" in body["grammar"]
    asked(client, False, tools=TOOLS, tool_choice="none")
    assert "grammar" not in llama.asked[-1]
    asked(client, False)
    assert "grammar" not in llama.asked[-1]


def test_names_of_arguments_are_held_where_a_schema_lists_them() -> None:
    def made(parameters: Any) -> str:
        tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
        return call_grammar([tool], "json", parallel=True)

    listed = {"a": {"type": ["string", "null"]}, 'b"': {"enum": ["on", 1, None]}}
    text = made({"type": "object", "properties": listed})
    assert r'pair0 ::= "\"a\"" space ":" space value | "\"b\\\"\""' in text
    assert r'( "\"on\"" | "1" | "null" ) space' in text
    kinds = {"s": {"type": "string"}, "b": {"type": "boolean"}, "i": {"type": "integer"}, "o": {"type": 5}}
    rule = next(line for line in made({"properties": kinds}).splitlines() if line.startswith("pair0"))
    assert "space string | " in rule and '( "true" | "false" ) space | ' in rule and rule.endswith("space value")
    unbound: list[Any] = [
        None,
        5,
        {"properties": {}},
        {"properties": 5},
        {"properties": listed, "additionalProperties": True},
        {"properties": listed, "patternProperties": {"x": {}}},
        {"properties": {str(number): {} for number in range(65)}},
        {"properties": {"a" * 60_000: {}}},
    ]
    for free in unbound:
        assert "pair0" not in made(free) and "object0" not in made(free)
    assert "enum" not in made({"properties": {"a": {"enum": [{"x": 1}]}}})


def test_sampling_and_usage(client: Any, state: State) -> None:
    llama = FakeLlama("Hello.")
    state.backend = backend(llama)
    answer = client.chat.completions.create(model="fake", messages=QUESTION)
    assert llama.asked[-1]["temperature"] == 0 and answer.model == "fake"
    prompt = len(llama.asked[-1]["prompt"])
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (prompt, 2)
    settings = {"temperature": 0.5, "top_p": 0.9, "seed": -1, "stop": "END", "max_completion_tokens": 7}
    client.chat.completions.create(model="fake", messages=QUESTION, **settings)
    wanted = {"temperature": 0.5, "top_p": 0.9, "top_k": 0, "seed": 2**32 - 1, "stop": ["END"], "n_predict": 7}
    assert llama.asked[-1].items() >= wanted.items()
    *_, last = client.chat.completions.create(
        model="fake", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    assert last.choices == [] and last.usage.total_tokens == prompt + 2


def test_texts_are_continued(client: Any, state: State) -> None:
    llama = FakeLlama(" and more")
    state.backend = backend(llama)
    answer = client.completions.create(model="fake", prompt="Once", max_tokens=5)
    assert answer.choices[0].text == " and more" and answer.choices[0].finish_reason == "stop"
    assert "".join(map(chr, llama.asked[-1]["prompt"])) == "Once" and llama.asked[-1]["n_predict"] == 5
    chunks = list(client.completions.create(model="fake", prompt="Once", stream=True))
    assert "".join(one.choices[0].text for one in chunks) == " and more"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert [one.id for one in client.models.list()] == ["fake"]


def test_a_model_that_dies_in_an_answer(client: Any, state: State) -> None:
    class Dying(FakeLlama):
        def _events(self, prompt: int) -> Iterator[bytes]:
            yield next(super()._events(prompt))

    state.backend = backend(Dying("Hello."))
    with pytest.raises(openai.InternalServerError, match="not running any more"):
        asked(client, False)
    with pytest.raises(openai.APIError, match="not running any more"):
        asked(client, True)
    state.backend = None
    with pytest.raises(openai.InternalServerError, match="is loading"):
        asked(client, False)


def test_the_model_by_its_name(client: Any, state: State, llama: FakeLlama) -> None:
    state.backend = backend(llama)
    (listed,) = client.models.list()
    assert client.models.retrieve(listed.id) == listed
    with pytest.raises(openai.NotFoundError, match=f"no model 'gpt-5' here; there is {listed.id}"):
        client.models.retrieve("gpt-5")
