from __future__ import annotations

import html
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.data.toys import QWEN_LIKE, save_tokenizer, tokenizer, weather_chat, weather_row, write_jsonl
from toolkit.chats import Turn
from toolkit.data.preview import chosen, page, preview, shown, terminal_text
from toolkit.data.render import Renderer
from toolkit.errors import DataError
from toolkit.recipe.schema import DataSection, EvalSection, Recipe, SourceSection
from toolkit.terminal import new_console

RENDERER = Renderer.of(tokenizer(QWEN_LIKE))
CHAT = replace(
    weather_chat(), turns=(*weather_chat().turns[:4], replace(weather_chat().turns[4], content="Rain 🙂 <b>&</b>"))
)


def test_tokens_spell_the_text_and_carry_the_mask() -> None:
    (row,) = RENDERER.rows(CHAT)
    tokens = shown(RENDERER, CHAT, row, 2048).tokens
    encoded = RENDERER.encode(row)
    assert "".join(token.text for token in tokens) == row.text, "emoji of several tokens are shown once"
    assert [token.number for token in tokens] == encoded.input_ids.tolist()
    assert [token.trained for token in tokens] == encoded.trained.tolist()
    assert [token.cut for token in shown(RENDERER, CHAT, row, 10).tokens] == [i >= 10 for i in range(len(tokens))]


def test_trained_text_is_marked_without_colour_too() -> None:
    (row,) = RENDERER.rows(CHAT)
    text = terminal_text(shown(RENDERER, CHAT, row, 2048), ("[[", "]]"))
    assert (
        re.findall(r"\[\[(.*?)\]\]", text.plain, re.DOTALL)[-1] == "<think>\n\n</think>\n\nRain 🙂 <b>&</b><|im_end|>"
    )
    assert text.plain.replace("[[", "").replace("]]", "") == row.text
    styles = {str(span.style) for span in text.spans if "Rain" in text.plain[span.start : span.end]}
    assert all("bold" in style and "underline" in style for style in styles) and styles


def test_the_page_needs_nothing_else_and_shows_every_token() -> None:
    (row,) = RENDERER.rows(CHAT)
    text = page([shown(RENDERER, CHAT, row, 2048)])
    boxes = re.findall(r'<span class="t( on)?" title="(\d+)">(.*?)</span>(?=<span class="t|</pre>)', text, re.DOTALL)
    encoded = RENDERER.encode(row)
    assert [int(number) for _, number, _ in boxes] == encoded.input_ids.tolist()
    assert [bool(on) for on, _, _ in boxes] == encoded.trained.tolist()
    plain = html.unescape(re.sub(r"<.*?>", "", "".join(inner for _, _, inner in boxes))).replace("↵", "")
    assert plain.replace("·", "") == row.text
    assert "://" not in text and "<script" not in text and "<b>&</b>" not in text


def test_one_of_each_kind_first() -> None:
    kinds = ["single", "single", "single", "refuse", "clarify", "single"]
    chats = [weather_chat(where=str(index), kind=kind) for index, kind in enumerate(kinds)]
    assert [chat.where for chat in chosen(chats, 3)] == ["0", "3", "4"]
    assert [chat.where for chat in chosen(chats, 5)] == ["0", "1", "2", "3", "4"]
    assert chosen(chats, 10**30) == chats
    assert len(chosen(chats, 9)) == 6


@dataclass
class Loaded:
    recipe: Recipe


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer for whatever model a recipe names."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    folder = save_tokenizer(tmp_path / "model", QWEN_LIKE)
    monkeypatch.setattr("toolkit.models.resolve", lambda model, weights=True: folder)


@pytest.mark.usefixtures("model")
def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", [weather_row("[bold]Oslo[/bold]"), weather_row("Bergen")])
    capsys.readouterr()
    recipe = Recipe(data=DataSection(sources=[SourceSection(source=str(path))]), eval=EvalSection(holdout=0))
    console = new_console(file=io.StringIO(), width=80)
    preview(Loaded(recipe), 2, tmp_path / "out" / "p.html", console)  # type: ignore[arg-type]
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "It rains in [bold]Oslo[/bold].<|im_end|>" in output, "a chat's text is never read as markup"
    assert f"{path}:2 (other)" in output
    assert (tmp_path / "out" / "p.html").read_text().count("<h2>") == 2
    assert not capsys.readouterr().err
    broken = weather_row("Bergen")
    broken["messages"][2]["tool_calls"][0]["function"]["arguments"] = "{}"
    write_jsonl(path, [weather_row(), broken])
    preview(Loaded(recipe), 1, None, console)  # type: ignore[arg-type]
    told = (
        f"1 of 2 rows is not ok (`toolkit data check` lists it): {path}:2: turn 3: get_weather: missing argument city"
    )
    assert capsys.readouterr().err.strip() == told


def test_what_a_terminal_would_obey_is_shown(tmp_path: Path) -> None:
    """A bell, a backspace and an escape in a text are seen, here and on the page, and never sent."""
    turns = (Turn("user", "Ring\a it\b"), Turn("assistant", "Done\x1b[2J."))
    chat = replace(CHAT, turns=turns)
    (row,) = RENDERER.rows(chat)
    made = shown(RENDERER, chat, row, 2048)
    console = new_console(file=io.StringIO(), width=80)
    console.print(terminal_text(made, ("[[", "]]")), soft_wrap=True)
    for output in (console.file.getvalue(), html.unescape(re.sub("<.*?>", "", page([made])))):  # type: ignore[attr-defined]
        assert "Ring\\u0007" in output and "it\\u0008" in output and "Done\\u001b[2J." in output
        assert not set(output) & set("\a\b\x1b")


@pytest.mark.usefixtures("model")
def test_rows_that_cannot_be_rendered_are_left_out_where_the_recipe_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The preview goes on where a table is made."""
    bad = [weather_row("<|im_end|>"), weather_row("Rome <|im_end|>")]
    path = write_jsonl(tmp_path / "x.jsonl", [*bad, weather_row("Oslo"), weather_row("Bergen")])
    console = new_console(file=io.StringIO(), width=80)

    def previewed(max_bad: float, n: int) -> str:
        data = DataSection(sources=[SourceSection(source=str(path))], max_bad=max_bad)
        capsys.readouterr()
        preview(Loaded(Recipe(data=data, eval=EvalSection(holdout=0))), n, None, console)  # type: ignore[arg-type]
        return capsys.readouterr().err.strip()

    assert previewed(0.5, 1).startswith(f"2 rows can't be rendered and are left out: {path}:1: ")
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"{path}:3 (other)" in output and f"{path}:4" not in output, "others are shown in their place"
    assert previewed(0.5, 9).startswith("2 rows can't be rendered")
    for max_bad in (0, 0.25):
        with pytest.raises(DataError, match="can't be used") as caught:
            previewed(max_bad, 9)
        assert caught.value.problems[0].where == f"{path}:1"
    monkeypatch.setattr("toolkit.data.preview._LOOKED_AT", 3)
    assert previewed(0.25, 1).startswith("2 rows can't be rendered"), "what share of all it is, is not known here"
    with pytest.raises(DataError, match="can't be used"):
        previewed(0, 1)
