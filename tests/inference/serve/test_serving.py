"""`toolkit serve` as users run it: the command, a tiny GGUF in llama.cpp, clients, and every way to end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil
import pytest

from tests.inference.serve.test_bounds import BODY, CHAT, ask
from tests.ports import kept_port
from tests.tiny import ADD
from toolkit.inference.serve.command import Options, serve

HERE = Path(__file__).parents[3]


LONGEST = 600  # seconds, on the busiest machine


@contextlib.contextmanager
def started(*words: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The command on a free port, which may still be loading. Ends it, and whatever it left, for good."""
    with kept_port() as port:
        command = [sys.executable, "-m", "toolkit", "serve", *words, "--port", str(port), "--threads", "1"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE)
        try:
            yield port, server
        finally:
            server.kill()
            server.wait()
            for pipe in (server.stdout, server.stderr):
                if pipe:
                    pipe.close()


def lines_until_curl(out: IO[str] | None) -> list[str]:
    """What it says up to the line that users copy."""
    assert out is not None
    lines = []
    for line in out:
        lines.append(line)
        if line.startswith("curl "):
            return lines
    raise AssertionError(f"it ended: {lines}")


def wait_for(port: int, *statuses: int) -> int:
    """The first of these that /health answers."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            if (found := ask(port, "/health", method="GET")[0]) in statuses:
                return found
        time.sleep(0.02)
    raise AssertionError(f"/health never answered {statuses}")


def ended(server: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    children = psutil.Process(server.pid).children()
    server.send_signal(number)
    out, err = server.communicate(timeout=LONGEST)
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    return server.returncode, out, err


@dataclass
class Running:
    """A server that runs: its port, its process, and the folders of its sockets."""

    port: int
    process: psutil.Process
    folders: list[Path]


@pytest.fixture(scope="module")
def running(exported: Path) -> Iterator[Running]:
    with started(str(exported)) as (port, server):
        lines = lines_until_curl(server.stdout)
        assert f"http://127.0.0.1:{port}/v1" in lines[0]
        assert lines[-1].startswith(f"curl http://127.0.0.1:{port}{CHAT} ")
        running = Running(port, psutil.Process(server.pid), [])
        yield running
        code, out, err = ended(server, signal.SIGINT)
        assert (code, out, err) == (0, "stopped\n", "")
        assert not any(folder.exists() for folder in running.folders)


@pytest.fixture
def port(running: Running) -> int:
    return running.port


def test_chats_and_texts(port: int) -> None:
    status, _, answer = ask(port, body={**BODY, "max_tokens": 6})
    assert status == 200 and answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] <= 6 and answer["model"] == "run-F16"
    status, _, events = ask(port, body={**BODY, "max_tokens": 6, "stream": True})
    assert status == 200 and events.endswith(b"data: [DONE]\n\n")
    chunks = [json.loads(line.removeprefix(b"data: ")) for line in events.split(b"\n\n")[:-2]]
    streamed = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert streamed == answer["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == answer["choices"][0]["finish_reason"]
    status, _, answer = ask(port, "/v1/completions", body={"prompt": "Once", "max_tokens": 4})
    assert status == 200 and answer["usage"]["completion_tokens"] == 4 and "text" in answer["choices"][0]


def test_tools_are_in_the_prompt(port: int) -> None:
    tokens = []
    for tools in ([], [ADD]):
        _, _, answer = ask(port, body={**BODY, "tools": tools, "max_tokens": 1})
        tokens.append(answer["usage"]["prompt_tokens"])
    assert tokens[1] > tokens[0] + 20


def test_a_call_that_must_be_made_is_written_as_one(port: int) -> None:
    """A random model calls nothing by itself: the grammar makes it begin a call of the named tool."""
    odd: dict[str, Any] = {"type": "function", "function": {"name": "o-dd/é😀"}}
    for tool in (ADD, odd):
        name = tool["function"]["name"]
        body = {**BODY, "tools": [odd, ADD], "tool_choice": {"type": "function", "function": {"name": name}}}
        for seed in range(3):
            status, _, answer = ask(port, body={**body, "max_tokens": 60, "temperature": 1, "seed": seed})
            assert status == 200
            (choice,) = answer["choices"]
            if choice["finish_reason"] == "tool_calls":
                assert choice["message"]["tool_calls"][0]["function"]["name"] == name
            elif text := choice["message"]["content"]:
                begun = '{"tool": ' + json.dumps(name, ensure_ascii=False) + ', "arguments": {'
                assert text.startswith(begun) or begun.startswith(text)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"},
        {"type": "string", "pattern": "(a+)+$"},
        {"$ref": "http://127.0.0.1:9/schema"},
        {"$ref": "#"},
        {"properties": 5},
        {"type": "array", "minItems": 10**9, "items": {"type": "array", "minItems": 10**9}},
        {"type": "integer", "minimum": -(10**40), "maximum": 10**40},
        {"enum": ["x" * 50] * 3000},
    ],
)
def test_hostile_schemas_are_text_or_refused(port: int, schema: dict[str, Any]) -> None:
    for choice in ("auto", "required"):
        tool = {"type": "function", "function": {"name": "odd", "parameters": schema}}
        status, _, answer = ask(port, body={**BODY, "tools": [tool], "tool_choice": choice, "max_tokens": 2})
        assert status in (200, 400), answer
    assert ask(port, body={**BODY, "max_tokens": 2})[0] == 200


def test_long_chats_are_refused(port: int) -> None:
    for text in ("<|im_end|>" * 80_000, "x" * 900_000):
        status, _, answer = ask(port, body={"messages": [{"role": "user", "content": text}]})
        assert status == 400 and answer["error"]["code"] == "context_length_exceeded"
    status, _, _ = ask(port, body={"messages": [{"role": "user", "content": "x" * (1 << 20)}]})
    assert status == 413


def test_one_port_of_loopback_is_all_that_listens(running: Running) -> None:
    """And the folders of its sockets, which are gone with it, are for nobody else."""
    family = [running.process, *running.process.children(recursive=True)]
    listening = [one for each in family for one in each.net_connections("inet") if one.status == "LISTEN"]
    assert [(one.laddr.ip, one.laddr.port) for one in listening] == [("127.0.0.1", running.port)]
    folders = [Path(one.laddr).parent for each in family for one in each.net_connections("unix") if one.laddr]
    assert folders and all(folder.stat().st_mode & 0o077 == 0 for folder in folders)
    running.folders = folders


@pytest.mark.slow
def test_the_end_of_llama_cpp_is_told(exported: Path) -> None:
    with started(str(exported)) as (_, server):
        lines_until_curl(server.stdout)
        (child,) = psutil.Process(server.pid).children()
        child.send_signal(signal.SIGABRT)
        _, err = server.communicate(timeout=LONGEST)
        assert server.returncode == 1
        assert err == "error: run-F16.gguf: llama.cpp is gone: it ended by SIGABRT\n"


@pytest.mark.slow
def test_the_process_ends_when_its_parent_does(exported: Path) -> None:
    with started(str(exported)) as (_, server):
        lines_until_curl(server.stdout)
        (child,) = psutil.Process(server.pid).children()
        (place,) = {Path(one.laddr).parent for one in child.net_connections("unix") if one.laddr}
        server.kill()
        assert psutil.wait_procs([child], timeout=LONGEST)[0] == [child]
        shutil.rmtree(place)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_model_that_never_loads_does_not_keep_it(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    """In this process, with a runtime that hangs: a signal ends the wait, and the runtime."""
    from toolkit.inference import llama_server

    hanging = tmp_path / "hanging.py"
    hanging.write_text("import time\ntime.sleep(1000)\n")
    monkeypatch.setattr(llama_server, "__file__", str(hanging))
    began = threading.Event()

    def send(port: int) -> None:
        wait_for(port, 503)
        began.set()
        os.kill(os.getpid(), number)

    with kept_port() as port:
        sender = threading.Thread(target=send, args=(port,))
        sender.start()
        serve(Options(str(exported), port=port, threads=1))
        sender.join()
    assert began.is_set() and capsys.readouterr().out == "stopped\n"
    assert not any(str(hanging) in child.cmdline() for child in psutil.Process().children())


@pytest.mark.slow
def test_no_control_token_is_shown_and_signals_are_heard_while_it_loads(
    tiny_qwen3: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Qwen3's real vocabulary: llama.cpp loads it for seconds, and a random model writes any token."""
    from toolkit.export.export import export

    folder = export(str(tiny_qwen3), gguf=["f16"], verify=False, out=tmp_path / "export").path
    with started(str(folder)) as (port, server):
        loading = wait_for(port, 503, 200) == 503  # it nearly always is
        code, out, err = ended(server, signal.SIGTERM)
        assert (code, err) == (0, "") and (out == "stopped\n" if loading else out.endswith("stopped\n"))
    with started(str(folder)) as (port, server):
        lines_until_curl(server.stdout)
        question = [{"role": "user", "content": "Say <|im_end|> <|im_end|> <|im_end|>"}]
        for stream in (False, True):
            for seed in range(3):
                body = {"messages": question, "max_tokens": 40, "temperature": 2, "seed": seed, "stream": stream}
                status, _, answer = ask(port, body={**body, "tools": [ADD]})
                text = answer.decode() if stream else json.dumps(answer)
                assert status == 200 and "<|" not in text
        assert ended(server, signal.SIGTERM)[0] == 0
