"""A template that writes the date is told, when a run is evaluated, the day that the run's chats were written with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.evaluation.test_eval_command import RECIPE
from tests.export.shapes import adapter, base_model
from toolkit.chats import Chat
from toolkit.data.render import Renderer
from toolkit.evaluation.command import Options, evaluate_models
from toolkit.export.export import export
from toolkit.terminal import new_console

DAY = "2025-03-04"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose template writes the date, a run of it of another day than today, and that run's export."""
    place = tmp_path_factory.mktemp("day")
    base = base_model(place / "model", "llama")
    template = base / "chat_template.jinja"
    dated = "{{ 'Today: ' + strftime_now('%d %b %Y') + '. ' }}" + template.read_text()
    template.write_text(dated)
    run = place / "run"
    adapter(run / "adapter", base)
    (run / "chat_template.jinja").write_text(dated)
    (run / "environment.json").write_text(json.dumps({"data": {"day": DAY}}))
    chats = place / "chats.jsonl"
    turns = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello."}]
    chats.write_text(
        "".join(
            json.dumps({"messages": [*turns, {**turns[0], "content": f"Number {i}."}, turns[1]]}) + "\n"
            for i in range(12)
        )
    )
    text = RECIPE.format(model=base, chats=chats, call_format="native").replace("holdout = 6", "holdout = 2")
    (run / "recipe.toml").write_text(text)
    export(run, gguf=[], verify=False, console=new_console(quiet=True))
    return place


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The dates in the prompts that are asked."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    found: list[str] = []
    prompt = Renderer.prompt

    def seen(renderer: Renderer, chat: Chat, turn: int) -> str:
        text = prompt(renderer, chat, turn)
        found.extend(re.findall(r"Today: (.*?)\. ", text) if chat.where else [])
        return text

    monkeypatch.setattr(Renderer, "prompt", seen)
    return found


def ask(place: Path, *words: str) -> None:
    """Put one chat to the models that these folders of `place` hold."""
    options = Options(data=str(place / "chats.jsonl"), chats=1, max_new_tokens=2, cache=False, base=False)
    evaluate_models([str(place / word) for word in words], options, new_console(quiet=True))


def test_a_run_and_its_export_are_asked_with_the_run_s_day(place: Path, days: list[str]) -> None:
    ask(place, "run", "run/export")
    assert days == ["04 Mar 2025"] * 2
    days.clear()
    ask(place, "run/export/merged")
    assert days == ["04 Mar 2025"]


def test_what_stands_beside_a_run_is_asked_alike(place: Path, days: list[str]) -> None:
    ask(place, "model", "run")
    assert days == ["04 Mar 2025"] * 2


def test_a_model_alone_is_told_today(place: Path, days: list[str]) -> None:
    ask(place, "model")
    assert len(days) == 1 and days != ["04 Mar 2025"]
