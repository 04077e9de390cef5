"""Who may ask and how much: the real endpoints on a real port, asked by hand."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.inference.serve.fake import FakeLlama, backend, served
from tests.ports import kept_port
from tests.tiny import ADD
from toolkit.errors import InputError
from toolkit.inference.serve import bounds
from toolkit.inference.serve.app import State
from toolkit.inference.serve.bounds import Limits
from toolkit.inference.serve.command import Options, limits_of, listen

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hi"}]}
LONGEST = 300  # seconds for an answer, on the busiest machine
JSON = {"Content-Type": "application/json"}


def ask(
    port: int, path: str = CHAT, body: Any = BODY, method: str = "POST", **headers: str
) -> tuple[int, dict[str, str], Any]:
    """(status, headers, JSON) of a request; `headers` with _ for -, over those that every client sends."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {**JSON, **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.request(method, path, None if method == "GET" else data, given)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    told = {name.lower(): value for name, value in response.getheaders()}
    return response.status, told, json.loads(text) if text.startswith(b"{") else text


@pytest.fixture(scope="module")
def state() -> State:
    return State(Limits(None, max_body=60_000))


@pytest.fixture(scope="module")
def port(state: State) -> Iterator[int]:
    state.backend = backend(FakeLlama())
    with served(state) as port:
        yield port


def test_only_names_of_loopback_are_answered(port: int) -> None:
    for name in ("127.0.0.1", "localhost", "LocalHost", "[::1]"):
        assert ask(port, Host=f"{name}:{port}")[0] == 200
    for host in (
        f"attacker.example:{port}",
        f"localhost.attacker.example:{port}",
        f"127.0.0.1.nip.io:{port}",
        f"0.0.0.0:{port}",
        "localhost",
        f"localhost:{port + 1}",
        "",
    ):
        for path, method in ((CHAT, "POST"), ("/v1/models", "GET"), ("/health", "GET"), ("/", "GET")):
            status, headers, answer = ask(port, path, method=method, Host=host)
            assert status == 421 and answer["error"]["code"] == "wrong_host"
            assert not any(name.startswith("access-control") for name in headers)
    with socket.create_connection(("127.0.0.1", port), timeout=LONGEST) as old:
        old.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert b" 421 " in old.recv(1000)


def test_pages_of_other_origins_are_not_answered(port: int) -> None:
    for origin in ("https://attacker.example", "http://localhost:1", "null", f"https://localhost:{port}", "file://"):
        for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("OPTIONS", CHAT)):
            status, headers, answer = ask(port, path, method=method, Origin=origin)
            assert status == 403 and answer["error"]["code"] == "origin"
            assert not any(name.startswith("access-control") for name in headers)
    status, headers, _ = ask(port, Origin=f"http://localhost:{port}")
    assert status == 200 and not any(name.startswith("access-control") for name in headers)
    assert ask(port, "/v1/models", method="GET", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(port, "/v1/models", method="GET", Sec_Fetch_Site="none")[0] == 200
    assert ask(port, Content_Type="text/plain")[0] == 415


def test_a_page_that_was_asked_for(state: State) -> None:
    page = "http://localhost:3000"
    key = "a key of our own"
    with served(State(Limits(None, frozenset((page,)), key), backend=backend(FakeLlama()))) as port:
        asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
        status, headers, _ = ask(port, method="OPTIONS", Origin=page, **asked)
        assert status == 200 and headers["access-control-allow-origin"] == page
        assert "access-control-allow-credentials" not in headers
        status, headers, _ = ask(port, Origin=page, Authorization=f"Bearer {key}")
        assert status == 200 and headers["access-control-allow-origin"] == page
        assert ask(port, Origin=page)[0] == 401
        assert ask(port, Origin="http://localhost:3001", Authorization=f"Bearer {key}")[0] == 403


def test_a_key(state: State) -> None:
    key = "a key of our own"
    with served(State(Limits(None, key=key), backend=backend(FakeLlama()))) as port:
        for wrong in ("", "Bearer", "Bearer ", "Bearer a key", f"Bearer {key}x", key, f"Basic {key}", "Bearer \xe9"):
            for method, path in (("POST", CHAT), ("POST", "/v1/completions"), ("GET", "/v1/models"), ("GET", "/x")):
                status, headers, answer = ask(port, path, method=method, Authorization=wrong)
                assert status == 401 and headers["www-authenticate"] == "Bearer"
                assert answer["error"]["type"] == "authentication_error" and key not in json.dumps(answer)
        assert ask(port, Authorization=f"Bearer {key}")[0] == 200
        assert ask(port, "/health", method="GET")[0] == 200


def test_bodies_are_bounded(port: int) -> None:
    large = {"messages": [{"role": "user", "content": "x" * 70_000}]}
    status, _, answer = ask(port, body=large)
    assert status == 413 and "60000 bytes" in answer["error"]["message"]
    with socket.create_connection(("127.0.0.1", port), timeout=LONGEST) as raw:  # its length is not said
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        raw.sendall(b"".join(b"1000\r\n" + b" " * 4096 + b"\r\n" for _ in range(16)))
        assert b" 413 " in raw.recv(1000)


def test_bodies_that_do_not_come(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "BODY_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=LONGEST) as raw:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert b" 408 " in raw.recv(1000)


def test_requests_beyond_the_bound_are_told_to_wait(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "WAITING", 2)
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    )
    waiting = [socket.create_connection(("127.0.0.1", port), timeout=LONGEST) for _ in range(3)]
    try:
        for one in waiting:
            one.sendall(head.encode())
        for _ in range(100):
            status, headers, answer = ask(port, "/v1/models", method="GET")
            if status == 429:
                break
        assert status == 429 and headers["retry-after"] == "1" and answer["error"]["code"] == "busy"
        assert ask(port, "/health", method="GET")[0] == 200
    finally:
        for one in waiting:
            one.close()
    for _ in range(100):
        status, _, _ = ask(port, "/v1/models", method="GET")
        if status == 200:
            break
    assert status == 200


def test_long_prompts_are_refused_before_they_are_read(state: State, port: int) -> None:
    """Of a text far beyond the context only the beginning is tokenised."""
    llama = FakeLlama()
    with served(State(Limits(None), backend=backend(llama, n_ctx=4096))) as other:
        status, _, answer = ask(other, body={"messages": [{"role": "user", "content": "x" * 900_000}]})
        assert status == 400 and answer["error"]["code"] == "context_length_exceeded"
        assert "4096" in answer["error"]["message"] and llama.tokenized < 20_000
        status, _, answer = ask(other, body={"messages": [{"role": "user", "content": "x" * 4096}]})
        assert status == 400 and answer["error"]["code"] == "context_length_exceeded"


DEEP = b'{"messages": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"
TURN = {"role": "user", "content": "Hi"}
CALL = {"id": "a", "type": "function", "function": {"name": "add", "arguments": "{}"}}


def chat(**body: Any) -> dict[str, Any]:
    return {**BODY, **body}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "can't be read as JSON"),
        (b"[]", "not a JSON object"),
        (b"{", "can't be read as JSON"),
        (b'{"messages": NaN}', "NaN is not JSON"),
        (b'{"temperature": 1e999}', "can't be read as JSON"),
        (b'{"seed": ' + b"9" * 5001 + b"}", "can't be read as JSON"),
        (b'{"messages": [{"role": "user", "content": "\\ud83d"}]}', "half a character"),
        (DEEP[:60_000], "can't be read as JSON"),
        ({"messages": [[[[[[TURN]]]]]]}, "messages[0]"),
        ({}, "messages: missing"),
        ({"messages": []}, "messages: "),
        ({"messages": "Hi"}, 'messages: wanted a list, got "Hi"'),
        ({"messages": [TURN] * 1001}, "messages: "),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "type: wanted text only, as {"),
        ({"messages": [{"role": "user", "content": ["Hi"]}]}, "messages[0].content[0]: wanted a text, or a list of"),
        ({"messages": [{**TURN, "images": ["iVBO"]}]}, "messages[0].images: wanted none: text only"),
        (chat(images=["iVBO"]), "images: not supported: text only"),
        ({"messages": [TURN, {"role": "tool", "content": "3"}]}, "messages[1]: a result, but no tool_call_id"),
        ({"messages": [{"role": "user", "tool_calls": [CALL]}]}, "only the assistant calls tools"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL]}, TURN]}, "the call 'a' before it has no result"),
        ({"messages": [{"role": "assistant", "tool_calls": [CALL, CALL]}]}, "two calls have one id"),
        (chat(tools=[ADD] * 129), "tools: "),
        (chat(tools=[ADD, ADD]), "tools: 'add' is there twice"),
        (chat(tools=[{"type": "retrieval"}]), 'tools[0].type: wanted "function"'),
        (chat(tools=[{"type": "function", "function": {}}]), "needs a name"),
        (chat(tools=[3]), "tools[0]"),
        (chat(tool_choice="add"), "tool_choice"),
        (chat(tool_choice="required"), '"required" needs tools'),
        (chat(tools=[ADD], tool_choice={"type": "function", "function": {"name": "sub"}}), "no tool 'sub'"),
        (chat(tools=[ADD], tool_choice="any"), 'tool_choice: wanted "none", "auto", "required" or {"type": "function"'),
        (
            chat(tools=[ADD], tool_choice={"type": "auto"}),
            'tool_choice: wanted "none", "auto", "required" or {"type": "function", "function": {"name": NAME}}; '
            "function is missing",
        ),
        (chat(tools=[ADD], tool_choice={"type": "function", "function": {"name": 3}}), "}}, got 3 as function.name"),
        (chat(max_tokens=0), "max_tokens: wanted 1 at least, got 0"),
        (chat(max_tokens="many"), 'max_tokens: wanted a whole number, got "many"'),
        (chat(top_p=1.5), "top_p: wanted 1 at most, got 1.5"),
        (chat(stream_options=[]), "stream_options: wanted an object, got a list of 0"),
        (chat(response_format="json"), 'response_format: wanted {"type": "text"}, got "json"'),
        (chat(temperature=-1), "temperature"),
        (chat(stream="yes"), "stream"),
        (chat(stop=["x"] * 9), "stop: wanted a text, or a list of at most 8"),
        (chat(n=2), "n: not supported"),
        (chat(logprobs=True), "logprobs: not supported"),
        (chat(logit_bias={"7": -100}), "logit_bias: not supported"),
        (chat(functions=[{}]), "functions: not supported: send tools"),
        (chat(response_format={"type": "json_schema"}), "response_format: only text"),
    ],
)
def test_requests_that_are_wrong(port: int, body: Any, told: str) -> None:
    status, _, answer = ask(port, body=body)
    assert status == 400 and told in answer["error"]["message"], answer
    assert answer["error"]["type"] == "invalid_request_error"


def test_what_clients_send_besides_is_left_alone(port: int) -> None:
    more = {
        "user": "ada",
        "store": False,
        "metadata": {},
        "n": 1,
        "logprobs": None,
        "logit_bias": {},
        "service_tier": "auto",
    }
    assert ask(port, body=chat(model="x", response_format={"type": "text"}, **more))[0] == 200


@pytest.mark.parametrize("path", ["/", "/props", "/slots", "/v1", "/v1/models/", "/v1/embeddings", "/docs", "/..%2f.."])
def test_there_is_nothing_else(port: int, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
        status, _, answer = ask(port, path, method=method)
        assert status == 404 and "no such endpoint" in answer["error"]["message"]
    status, _, answer = ask(port, CHAT, method="PUT")
    assert status == 405 and answer["error"]["message"] == f"{CHAT} does not take PUT"


def test_a_fault_of_ours_ends_a_request_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    class Faulty(FakeLlama):
        async def __call__(self, request: Any) -> Any:
            raise ValueError("/home/someone/secret")

    with served(State(Limits(None), backend=backend(Faulty()))) as port:
        status, _, answer = ask(port)
        assert status == 500 and "someone" not in json.dumps(answer)
        assert ask(port, "/v1/models", method="GET")[0] == 200
    err = capfd.readouterr().err
    assert "ValueError" in err and "Traceback" not in err


def test_who_may_be_let_in() -> None:
    key = "a key of our own"
    assert limits_of(Options("m")).hosts == {"127.0.0.1:8080", "localhost:8080", "[::1]:8080"}
    assert (limits_of(Options("m", host="::1", port=80)).hosts or set()) >= {"[::1]", "localhost"}
    assert limits_of(Options("m", host="0.0.0.0", allow_remote=True, key=key)).hosts is None
    for wrong in (
        Options("m", host="0.0.0.0"),
        Options("m", host="0.0.0.0", key=key),
        Options("m", host="192.168.1.2", allow_remote=True),
        Options("m", host="example.org"),
        Options("m", key=""),
        Options("m", key="ключ от двери"),
        Options("m", origins=["*"]),
        Options("m", origins=["localhost:3000"]),
        Options("m", origins=["http://localhost:3000/"]),
    ):
        with pytest.raises(InputError, match=r"^--"):
            limits_of(wrong)


def test_a_port_that_is_taken() -> None:
    with kept_port() as port:
        taken = rf"127.0.0.1:{port} is taken.*is free: --port "
        with listen("127.0.0.1", port), pytest.raises(InputError, match=taken) as error:
            listen("127.0.0.1", port)
        assert "\n" not in str(error.value)
        listen("127.0.0.1", port).close()
    with pytest.raises(InputError, match="no address of this machine"):
        listen("not an address", 0)


def test_a_client_that_leaves_stops_its_answer() -> None:
    """Both before the first piece of an answer, and in the middle of one."""
    import asyncio

    reached, left = threading.Event(), threading.Event()

    class Slow(FakeLlama):
        async def __call__(self, request: Any) -> Any:
            answer = await super().__call__(request)
            if request.url.path == "/completion":
                stream: Any = answer.stream

                class Endless(type(stream)):  # type: ignore[misc]
                    async def __aiter__(self) -> Any:
                        try:
                            while True:
                                reached.set()
                                yield self.parts[0]
                                await asyncio.sleep(0.01)
                        finally:
                            left.set()

                answer.stream = Endless(stream.parts)
            return answer

    with served(State(Limits(None), backend=backend(Slow()))) as port:
        for stream in (False, True):
            reached.clear()
            left.clear()
            body = json.dumps(chat(stream=stream)).encode()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST)
            connection.request("POST", CHAT, body, JSON)
            if stream:
                assert connection.getresponse().read(10)
            assert reached.wait(LONGEST)
            connection.close()
            assert left.wait(LONGEST)
