"""From end to end, in every call format: a model whose answers are known, in llama.cpp, asked by the openai client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.inference.serve.fake import served
from tests.inference.serve.taught import CALLS, FORMATS, HI, TWICE, UP, teach
from tests.inference.serve.test_answers import asked
from toolkit.chats import Turn
from toolkit.data.call_parsing import parse
from toolkit.inference import llama_server
from toolkit.inference.gguf import GgufModel
from toolkit.inference.process import LlamaProcess
from toolkit.inference.prompting import prompting_of
from toolkit.inference.serve import answers
from toolkit.inference.serve.app import State
from toolkit.inference.serve.backend import Backend
from toolkit.inference.serve.bounds import Limits
from toolkit.inference.serve.grammar import call_grammar
from toolkit.inference.speaker import GgufSpeaker, Sampling

openai = pytest.importorskip("openai")
pytest.importorskip("xllamacpp")

WANTED = [(call.name, call.arguments) for call in CALLS]


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return teach(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module", params=FORMATS)
def client(request: pytest.FixtureRequest, taught: dict[str, Path]) -> Iterator[Any]:
    path = taught[request.param]
    process = LlamaProcess(path, n_ctx=1024, threads=1, plain=True)
    with closing(process):
        process.ready()
        transport = httpx.AsyncHTTPTransport(uds=str(process.socket))
        prompting = prompting_of(path)
        assert prompting.call_format == request.param
        with served(State(Limits(None), backend=Backend(transport, path.stem, prompting, 1024))) as port:
            yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)


def user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("stream", [False, True])
def test_calls_results_and_texts(client: Any, stream: bool) -> None:
    content, _, calls, finish = asked(client, stream, messages=user(TWICE), tools=[UP])
    assert (content, finish) == ("Both:", "tool_calls")
    assert [(name, json.loads(arguments)) for _, name, arguments in calls] == WANTED
    made = [
        {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}
        for id_, name, arguments in calls
    ]
    results = [
        {"role": "tool", "tool_call_id": id_, "content": text}
        for (id_, _, _), text in zip(calls, ("4", "5"), strict=True)
    ]
    messages = [*user(TWICE), {"role": "assistant", "content": content, "tool_calls": made}, *reversed(results)]
    assert asked(client, stream, messages=messages, tools=[UP]) == ("4, 5", "", [], "stop")
    assert asked(client, stream, messages=user(HI)) == ("Hi [you] {}!", "", [], "stop")


BEGUN = {
    "native": '<tool_call>\n{"name": "up", "arguments": {',
    "hermes": '<tool_call>\n{"name": "up", "arguments": {',
    "json": '{"tool": "up", "arguments": {',
    "jsonrpc": '{"jsonrpc": "2.0", "id": ',
}


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_must_be_made(client: Any, request: pytest.FixtureRequest, stream: bool) -> None:
    """Where the model would say "Both:" first, a grammar makes its answer one call, or what fits of one."""
    for must in ("required", {"type": "function", "function": {"name": "up"}}):
        body = {"tools": [UP], "tool_choice": must, "parallel_tool_calls": False, "max_tokens": 200}
        content, thought, calls, finish = asked(client, stream, messages=user(TWICE), **body)
        assert not thought
        if finish == "tool_calls":
            assert [name for _, name, _ in calls] == ["up"] and content == ""
        else:
            assert finish == "length" and content.startswith(BEGUN[request.node.callspec.params["client"]])


def test_a_call_by_itself_is_held_to_the_tools_on_offer(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model writes `up` and `n`; what is held to another tool from where a call begins writes that one's names."""
    other = {"type": "function", "function": {"name": "upper", "parameters": {"properties": {"m": {"enum": [7, 8]}}}}}
    monkeypatch.setattr(answers, "call_grammar", lambda tools, *more, **how: call_grammar([other], *more, **how))
    content, _, calls, finish = asked(client, False, messages=user(TWICE), tools=[UP], parallel_tool_calls=False)
    assert (content, finish) == ("Both:", "tool_calls") and calls
    for _, name, arguments in calls:
        assert name == "upper" and json.loads(arguments) in ({"m": 7}, {"m": 8}, {})


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("call_format", FORMATS)
def test_a_chat_shows_the_whole_answer(taught: dict[str, Path], call_format: str, plain: bool) -> None:
    """To the last character, whether special tokens are shown or not."""
    with GgufModel(taught[call_format], n_ctx=1024, threads=1, plain=plain) as model:
        speaker = GgufSpeaker(model, prompting_of(taught[call_format]), "", None, None, [])
        sampling = Sampling(max_new_tokens=200)
        assert "".join(speaker.stream(speaker.prompt([Turn("user", HI)], []), sampling)) == "Hi [you] {}!"
        text = "".join(speaker.stream(speaker.prompt([Turn("user", TWICE)], [UP]), sampling))
    assert [(call.name, call.arguments) for call in parse(text, speaker.call_format).calls] == WANTED
    assert text.endswith({"json": "}", "jsonrpc": "]"}.get(call_format, "</tool_call>"))


@pytest.mark.parametrize("call_format", ["native", "hermes"])
def test_llama_cpps_own_server_reads_the_calls(
    taught: dict[str, Path], call_format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What users of llama.cpp's server get from the same file, with its own reader of calls and nothing of ours."""
    text = Path(llama_server.__file__).read_text()
    setting = 'params.force_pure_content_parser = settings["plain"]'
    assert setting in text
    script = tmp_path / "llama_server.py"
    script.write_text(text.replace(setting, "params.force_pure_content_parser = False"))
    monkeypatch.setattr(llama_server, "__file__", str(script))
    with closing(LlamaProcess(taught[call_format], n_ctx=1024, threads=1, plain=True)) as process:
        process.ready()
        body = {"messages": user(TWICE), "tools": [UP], "temperature": 0, "max_tokens": 200}
        with closing(process.connect()) as connection:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
            (choice,) = json.loads(connection.getresponse().read())["choices"]
    functions = [call["function"] for call in choice["message"]["tool_calls"]]
    assert [(function["name"], json.loads(function["arguments"])) for function in functions] == WANTED
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"].strip() == "Both:"
