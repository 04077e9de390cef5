"""What llama.cpp's own server makes of calls in each format, with the template that the file carries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.export.parrot import make_parrot
from tests.tiny import ADD
from toolkit.data.template import Rendering, ToolPrompt
from toolkit.data.tokenizers import load_tokenizer
from toolkit.export.export import export
from toolkit.export.runtime_parsers import read_by

pytest.importorskip("xllamacpp")
OTHER: dict[str, Any] = {"type": "function", "function": {**ADD["function"], "name": "multiply"}}
CALLS = [("add", {"a": 1, "b": 2}), ("multiply", {"a": 34, "b": 56})]


def written(form: str, count: int) -> str:
    """Calls as a model writes them."""
    if form == "hermes":
        return "\n".join(
            f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(arguments)}}}\n</tool_call>'
            for name, arguments in CALLS[:count]
        )
    if form == "json":
        return "\n".join(json.dumps({"tool": name, "arguments": given}) for name, given in CALLS[:count])
    asked = [
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": name, "arguments": given}}
        for number, (name, given) in enumerate(CALLS[:count], 1)
    ]
    return json.dumps(asked[0] if count == 1 else asked)


def asked(folder: Path, form: str, count: int, tool_prompt: ToolPrompt = "schema") -> list[tuple[str, Any]] | str:
    """The calls that llama.cpp's server gives, or its error; the file's weights write `count` calls of `form`."""
    import xllamacpp

    rendering = Rendering(form, tool_prompt)  # type: ignore[arg-type]
    base = make_parrot(folder / "base", written(form, count), rendering)
    made = export(str(base), gguf=["f16"], out=folder / "out", merged=False, verify=False)
    params = xllamacpp.CommonParams()
    params.model.path = str(made.ggufs()[0])
    params.n_ctx, params.cpuparams.n_threads, params.verbosity = 1024, 1, 1
    params.warmup = params.fit_params = params.ui = False
    server = xllamacpp.Server(params)  # as a user runs it: ours reads calls itself
    said = [{"role": "user", "content": "Go on."}]
    plain = server.handle_chat_completions({"messages": said, "temperature": 0})
    assert plain["choices"][0]["message"]["content"] == written(form, count), "the parrot says what it should"
    try:
        told = server.handle_chat_completions({"messages": said, "tools": [ADD, OTHER], "temperature": 0})
    except RuntimeError as error:
        return str(error)
    message = told["choices"][0]["message"]
    calls = [one["function"] for one in message.get("tool_calls", [])]
    return [(one["name"], json.loads(one["arguments"])) for one in calls] if calls else str(message["content"])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("form", ["hermes", "json", "jsonrpc"])
def test_what_llama_cpp_reads(form: str, count: int, tmp_path: Path) -> None:
    found = asked(tmp_path, form, count)
    told = read_by(load_tokenizer(tmp_path / "base"))["llama.cpp"]
    if told == "read" or (count == 1 and told.startswith("read, one a turn")):
        assert found == CALLS[:count]
    else:
        assert isinstance(found, str) and "does not match the expected" in found and "error" in told


def test_tools_as_signatures_are_read_as_well(tmp_path: Path) -> None:
    assert asked(tmp_path, "hermes", 2, "signature") == CALLS
