from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.toys import CHATML, QWEN_LIKE, save_tokenizer, tokenizer, weather_row, write_jsonl
from toolkit import cache as cache_module
from toolkit.chats import Chat
from toolkit.data import keys, pipeline
from toolkit.data import table as table_module
from toolkit.data.parts import chat_hash, holdout, part_chats
from toolkit.data.pipeline import Settings, encode_stream
from toolkit.data.render import Renderer
from toolkit.data.sources import load_chats
from toolkit.data.table import IGNORED, TokenTable, build, eval_chats, find
from toolkit.data.template import Rendering
from toolkit.errors import DataError, ModelError, ToolkitError
from toolkit.recipe.schema import DataSection, EvalSection, Recipe, SourceSection, TrainSection


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tokenizer(tmp_path_factory.mktemp("model"), QWEN_LIKE)


def rows(count: int) -> list[dict[str, Any]]:
    kinds = ["single", "clarify", "refuse"]
    return [weather_row(f"city {number}" + " far" * (number % 7), kind=kinds[number % 3]) for number in range(count)]


def recipe(path: Path | str, *, holdout: float = 0, max_length: int = 2048, **data: Any) -> Recipe:
    return Recipe(
        data=DataSection(sources=[SourceSection(source=str(path))], num_proc=1, **data),
        train=TrainSection(max_length=max_length),
        eval=EvalSection(holdout=holdout),
    )


@pytest.mark.parametrize("thinking", ["template", "split"])
def test_the_table_holds_what_the_renderer_makes(tmp_path: Path, model: Path, thinking: Any) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", rows(70))
    settings = recipe(path, thinking=thinking)
    table = build(settings, model, progress=False)
    renderer = Renderer.of(tokenizer(QWEN_LIKE), thinking=thinking)
    chats = list(load_chats(settings.data.sources))
    assert table.n_chats == 70 and table.n_rows == len(table.lengths) == 70 * (3 if thinking == "split" else 1)
    seen = []
    for index, chat in enumerate(chats):
        assert table.where(index) == chat.where and table.kinds[index] == chat.kind
        for row, number in zip(renderer.rows(chat), table.chat_rows(index), strict=True):
            encoded = renderer.encode(row, 2048)
            input_ids, labels = table.row(number)
            assert input_ids.dtype == labels.dtype == np.int64
            assert input_ids.tolist() == encoded.input_ids.tolist()
            assert labels.tolist() == np.where(encoded.trained, encoded.input_ids, IGNORED).tolist()
            assert table.lengths[number] == len(input_ids) and table.trained[number] == (labels != IGNORED).sum()
            seen.append(number)
    assert seen == list(range(table.n_rows))
    assert table.meta["tokens"] == table.lengths.sum() and table.meta["trained_tokens"] == table.trained.sum()
    assert table.meta["formats"] == {"messages": 70} and set(table.sources) == {str(path)}
    assert table.meta["kinds"] == Counter(table.kinds)
    assert table.meta["tokens_by_role"]["assistant"] == table.trained.sum()
    factor = table.meta["split_factor"]
    assert factor == 1 if thinking == "template" else 1.5 < factor < 3


def test_several_processes_make_the_same_table(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "ALONE", 10)
    monkeypatch.setattr(pipeline, "CHUNK", 7)
    asked = iter([False, False, *[True] * 20])  # two groups are done here, the others by workers
    monkeypatch.setattr(pipeline, "_any_done", lambda starting: next(asked))
    path = write_jsonl(tmp_path / "x.jsonl", rows(60))
    alone = recipe(path)
    several = alone.model_copy(update={"data": alone.data.model_copy(update={"num_proc": 2})})
    first = build(alone, model, cache=tmp_path / "one", progress=False)
    second = build(several, model, cache=tmp_path / "two", progress=False)
    assert first.key == second.key
    for name in sorted(file.name for file in first.folder.iterdir() if file.suffix != ".json"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes(), name
    assert first.meta | {"seconds": 0} == second.meta | {"seconds": 0}


def test_workers_that_start_too_late_are_not_waited_for(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "ALONE", 10)
    monkeypatch.setattr(pipeline, "_any_done", lambda starting: False)
    path = write_jsonl(tmp_path / "x.jsonl", rows(60))
    alone = recipe(path)
    several = alone.model_copy(update={"data": alone.data.model_copy(update={"num_proc": 2})})
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()
    try:
        assert build(several, model, cache=tmp_path, progress=False).n_chats == 60
        assert multiprocessing.active_children() == [other], "which is none of its workers"
    finally:
        other.kill()
        other.join()


def test_a_table_that_another_process_finishes_meanwhile_is_kept(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was not there when it was looked for."""
    settings = recipe(write_jsonl(tmp_path / "x.jsonl", rows(5)))
    made = build(settings, model, cache=tmp_path, progress=False)
    before = made.folder.stat().st_ino
    monkeypatch.setattr("toolkit.data.table.find", lambda *_, **__: None)
    assert build(settings, model, cache=tmp_path).content == made.content
    assert made.folder.stat().st_ino == before and "made again" not in capsys.readouterr().err


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[int]]:
        return os._exit, (1,)


class Once:
    """What ends a worker that is handed it, as long as a file is there, which it takes away."""

    def __init__(self, file: Path, kind: str) -> None:
        self.file, self.kind = file, kind

    def __reduce__(self) -> tuple[Any, tuple[Path, str]]:
        return once, (self.file, self.kind)


def once(file: Path, kind: str) -> str:
    if not file.is_file():
        return ""
    file.unlink()
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise MemoryError


@pytest.mark.parametrize("kind", ["killed", pytest.param("no memory", marks=pytest.mark.endurance)])
def test_a_table_is_made_by_fewer_where_memory_runs_out(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """A worker that the kernel kills, or that has no memory for its chats: each chat is there, once, in order."""
    monkeypatch.setattr(pipeline, "ALONE", 10)
    monkeypatch.setattr(pipeline, "CHUNK", 7)
    monkeypatch.setattr(pipeline, "_any_done", lambda starting: True)
    settings = Settings(model, Rendering(), 2048)
    chats = list(load_chats(recipe(write_jsonl(tmp_path / "x.jsonl", rows(60))).data.sources))
    alone = list(encode_stream(settings, iter(chats), 1))
    (tmp_path / "full").touch()
    chats[33] = replace(chats[33], meta={**chats[33].meta, "scarce": Once(tmp_path / "full", kind)})
    found = list(encode_stream(settings, iter(chats), 2))
    assert not (tmp_path / "full").exists()
    assert "died, most likely for want of memory: going on with 1 process" in capsys.readouterr().err
    for name in ("input_ids", "trained"):
        mine, theirs = (np.concatenate([getattr(one, name) for one in part]) for part in (found, alone))
        assert np.array_equal(mine, theirs)
    assert [chat.where for one in found for chat in one.kept] == [chat.where for chat in chats]


def test_no_memory_for_a_table_is_a_line_and_leaves_nothing(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise MemoryError

    settings = recipe(write_jsonl(tmp_path / "x.jsonl", rows(20)))
    monkeypatch.setattr(pipeline, "encode_chats", full)
    with pytest.raises(
        ToolkitError, match=r"^not enough memory for the token table: close other programs, or leave out"
    ):
        build(settings, model, cache=tmp_path / "cache", progress=False)
    assert not list((tmp_path / "cache" / "tables").iterdir())


def test_workers_say_why_they_fail(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pipeline, "ALONE", 1)
    monkeypatch.setattr(pipeline, "_any_done", lambda starting: True)
    chats = [Chat((), where=f"x:{number}", meta={"bomb": Bomb()}) for number in range(3)]
    told = r"process that builds the token table died at the chats from x:0 to x:2, .* only one \(data\.num_proc = 1\)"
    with pytest.raises(ToolkitError, match=told):
        list(encode_stream(Settings(model, Rendering(), 2048), iter(chats), 2))
    assert "going on with 1 process, as with data.num_proc = 1" in capsys.readouterr().err
    nowhere = Settings(model / "nothing here", Rendering(), 2048)
    with pytest.raises(ModelError, match="no tokenizer here") as caught:
        list(encode_stream(nowhere, iter([Chat(()) for _ in range(3)]), 2))
    assert len(caught.value.problems) == 1


def test_tables_are_found_again_and_pickled_by_folder(tmp_path: Path, model: Path) -> None:
    settings = recipe(write_jsonl(tmp_path / "x.jsonl", rows(5)))
    assert find(settings, model) is None
    table = build(settings, model, progress=False)
    made = (table.folder / "meta.json").stat().st_mtime_ns
    again = build(settings, model, progress=False)
    assert again.folder == table.folder and (again.folder / "meta.json").stat().st_mtime_ns == made
    copy = pickle.loads(pickle.dumps(table))
    assert isinstance(copy, TokenTable) and copy.row(4)[0].tolist() == table.row(4)[0].tolist()
    assert len(pickle.dumps(table)) < 1000
    assert sorted(folder.name for folder in table.folder.parent.iterdir()) == [table.key], "nothing left behind"
    with pytest.raises(IndexError):
        table.row(5)


@pytest.mark.parametrize("name", ["input_ids.npy", "row_offsets.npy", "meta.json", "manifest.json", "where.txt"])
@pytest.mark.parametrize("harm", ["a byte", "cut", "gone", "garbage"])
def test_a_damaged_table_is_made_again_and_said(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], name: str, harm: str
) -> None:
    settings = recipe(write_jsonl(tmp_path / "x.jsonl", rows(5)))
    first = build(settings, model, cache=tmp_path)
    whole = [first.row(index)[0].tolist() for index in range(5)]
    path = first.folder / name
    content = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        path.write_bytes({"a byte": flipped, "cut": content[:middle], "garbage": b"\x00\xff" * 9}[harm])
    capsys.readouterr()
    again = build(settings, model, cache=tmp_path)
    assert [again.row(index)[0].tolist() for index in range(5)] == whole and again.content == first.content
    assert f"train: {first.folder} is made again: " in capsys.readouterr().err
    assert [one.name for one in first.folder.parent.iterdir()] == [first.key], "nothing left behind"
    build(settings, model, cache=tmp_path)
    assert not capsys.readouterr().err


def test_a_manifest_that_can_not_be_read_any_more_is_said(tmp_path: Path, model: Path) -> None:
    table = build(recipe(write_jsonl(tmp_path / "x.jsonl", rows(5))), model, cache=tmp_path, progress=False)
    (table.folder / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"manifest\.json: can't be read any more; start again"):
        _ = table.content


def test_a_look_at_a_table_reads_its_small_files_only(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(write_jsonl(tmp_path / "x.jsonl", rows(5)))
    ids = build(settings, model, cache=tmp_path, progress=False).folder / "input_ids.npy"
    monkeypatch.setattr(table_module, "_LARGE", ids.stat().st_size - 1)
    content = ids.read_bytes()
    ids.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert find(settings, model, cache=tmp_path) is not None
    assert find(settings, model, cache=tmp_path, deep=True) is None
    ids.write_bytes(content[:-1])
    assert find(settings, model, cache=tmp_path) is None


def test_a_border_that_was_kept_and_damaged_is_found_again(tmp_path: Path) -> None:
    settings = recipe(write_jsonl(tmp_path / "x.jsonl", rows(9)), holdout=3)
    border = holdout(settings, tmp_path)
    (kept,) = (tmp_path / "holdout").iterdir()
    whole = kept.read_bytes()
    for damaged in (b"", b"{", b"\xff\xfe", whole.replace(b"1", b"2"), whole[:-3]):
        kept.write_bytes(damaged)
        assert holdout(settings, tmp_path) == border
        assert kept.read_bytes() == whole


def test_the_key_changes_with_all_that_matters_and_nothing_else(tmp_path: Path, model: Path) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", rows(5))
    base = recipe(path)
    key = keys.table_key(base, model, "train")
    other_model = save_tokenizer(tmp_path / "other", CHATML)
    faster = base.model_copy(update={"train": base.train.model_copy(update={"learning_rate": 1e-3})})
    assert keys.table_key(faster, model, "train") == key
    different = {
        "settings": keys.table_key(recipe(path, thinking="split"), model, "train"),
        "format": keys.table_key(recipe(path, call_format="json"), model, "train"),
        "length": keys.table_key(recipe(path, max_length=100), model, "train"),
        "holdout": keys.table_key(recipe(path, holdout=2), model, "train"),
        "other holdout": keys.table_key(recipe(path, holdout=3), model, "train"),
        "part": keys.table_key(recipe(path, holdout=2), model, "eval"),
        "template": keys.table_key(base, other_model, "train"),
    }
    write_jsonl(path, rows(6))
    different["data"] = keys.table_key(base, model, "train")
    assert len({key, *different.values()}) == 1 + len(different)


def test_a_part_s_key_is_that_of_the_chats_it_is_read_from(tmp_path: Path, model: Path) -> None:
    files = {name: write_jsonl(tmp_path / f"{name}.jsonl", rows(n)) for n, name in enumerate("abc", 5)}

    def both(trained: str, *held_out: str, holdout: float = 200) -> tuple[str, str]:
        sources = [SourceSection(source=str(files.get(name, name))) for name in held_out]
        one = SourceSection(source=str(files.get(trained, trained)))
        made = Recipe(data=DataSection(sources=[one]), eval=EvalSection(sources=sources, holdout=holdout))
        return keys.table_key(made, model, "train"), keys.table_key(made, model, "eval")

    train, held = both("a", "b")
    assert both("a", "b", holdout=5) == (train, held), "nothing is cut out of a"
    assert both("a", "c")[0] == both("a", "b", "c")[0] == train
    assert both("c", "b")[1] == held, "b is held out, whatever is trained on"
    assert len({held, both("a", "c")[1], both("a", "b", "c")[1]}) == 3
    assert both("a", holdout=2)[0] not in (train, both("a", holdout=3)[0]), "what a holds less of is no table of a"
    built, splits = both("builtin:tools")
    assert both("builtin:tools", holdout=100)[0] == built == both("builtin:tools", "b")[0]
    assert both("builtin:tools", holdout=100)[1] != splits


def test_chats_that_stay_the_same_are_not_tokenised_anew(tmp_path: Path, model: Path) -> None:
    held = write_jsonl(tmp_path / "held.jsonl", rows(4))
    one = recipe(write_jsonl(tmp_path / "x.jsonl", rows(9)))
    first = build(one, model, progress=False)
    other = one.model_copy(update={"eval": EvalSection(sources=[SourceSection(source=str(held))], holdout=3)})
    assert build(other, model, progress=False).folder == first.folder
    divided = one.model_copy(update={"eval": EvalSection(holdout=3)})
    assert build(divided, model, progress=False).n_chats == 6, "three of them are held out"
    assert build(one, model, progress=False).n_chats == 9

    held.unlink()
    longer = other.model_copy(update={"train": TrainSection(max_length=99)})
    with pytest.raises(DataError, match=r"held\.jsonl: no such file"):
        build(longer, model, progress=False)
    assert find(longer.model_copy(update={"eval": one.eval}), model) is None, "said before anything was made"


def test_big_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_jsonl(tmp_path / "x.jsonl", rows(3))
    first = keys.file_hash(path)
    with monkeypatch.context() as patched:
        patched.setattr(cache_module, "sha256_of", None)  # reading would fail now
        assert keys.file_hash(path) == first
    (kept,) = (cache_module.cache_root() / "hashes").iterdir()
    for damaged in (b"", b"\xff", kept.read_bytes()[:-1] + b"x", first.encode()):
        kept.write_bytes(damaged)
        assert keys.file_hash(path) == first


def test_find_imports_nothing_heavy(tmp_path: Path, model: Path) -> None:
    settings = recipe(write_jsonl(tmp_path / "x.jsonl", rows(5)))
    build(settings, model, progress=False)
    code = (
        "import sys, json; from pathlib import Path; from toolkit.recipe.schema import Recipe;"
        "from toolkit.data.table import find;"
        f"table = find(Recipe.model_validate_json({settings.model_dump_json()!r}), Path({str(model)!r}));"
        "print(json.dumps([table.n_chats, int(table.lengths.sum()),"
        " [m for m in ('torch', 'transformers', 'datasets', 'pyarrow', 'jinja2') if m in sys.modules]]))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    chats, tokens, heavy = json.loads(output.stdout)
    assert chats == 5 and tokens > 0 and heavy == []


class TestParts:
    @pytest.mark.parametrize("holdout", [20, 0.25])
    def test_every_chat_falls_on_exactly_one_side(self, tmp_path: Path, holdout: float) -> None:
        data = rows(100)
        settings = recipe(write_jsonl(tmp_path / "x.jsonl", data + data[:50]), holdout=holdout)
        train, held = list(part_chats(settings, "train")), eval_chats(settings)
        assert {chat_hash(chat) for chat in train}.isdisjoint(chat_hash(chat) for chat in held)
        assert len({chat_hash(chat) for chat in [*train, *held]}) == 100
        assert len(held) == 20 if holdout == 20 else 10 < len(held) < 40
        assert len({chat_hash(chat) for chat in held}) == len(held), "a chat that stands there twice is measured once"

    def test_the_division_does_not_depend_on_the_order_or_the_place(self, tmp_path: Path) -> None:
        data = rows(50)
        one = recipe(write_jsonl(tmp_path / "a.jsonl", data), holdout=10)
        two = recipe(write_jsonl(tmp_path / "b.jsonl", data[::-1]), holdout=10)
        assert {chat_hash(chat) for chat in eval_chats(one)} == {chat_hash(chat) for chat in eval_chats(two)}

    def test_generation_is_measured_on_the_chats_of_the_eval_table(self, tmp_path: Path, model: Path) -> None:
        settings = recipe(write_jsonl(tmp_path / "x.jsonl", rows(50)), holdout=10)
        table = build(settings, model, "eval", progress=False)
        assert [table.where(i) for i in range(table.n_chats)] == [chat.where for chat in eval_chats(settings)]
        assert build(settings, model, "train", progress=False).n_chats == 40

    def test_builtin_chats_have_their_own_held_out_splits(self) -> None:
        sources = [SourceSection(source="builtin:tools", size=200, max_tools=4)]
        settings = Recipe(data=DataSection(sources=sources), eval=EvalSection(holdout=21))
        held = eval_chats(settings)
        assert Counter(chat.meta["split"] for chat in held) == {"phrasing": 11, "tools": 10}
        assert max(len(chat.tools) for chat in held) <= 4
        train = list(part_chats(settings, "train"))
        assert len(train) == 200
        assert {chat_hash(chat) for chat in train}.isdisjoint(chat_hash(chat) for chat in held)

    def test_what_training_chats_have_more_of_does_not_change_the_held_out_ones(self) -> None:
        def held(**more: Any) -> list[Chat]:
            sources = [SourceSection(source="builtin:tools", size=100, **more)]
            return eval_chats(Recipe(data=DataSection(sources=sources), eval=EvalSection(holdout=30)))

        assert held(decisions=0.5, rationales=True, purposes=0.3) == held()

    def test_eval_sources_are_taken_as_they_are(self, tmp_path: Path) -> None:
        train, held = write_jsonl(tmp_path / "a.jsonl", rows(9)), write_jsonl(tmp_path / "b.jsonl", rows(4))
        settings = Recipe(
            data=DataSection(sources=[SourceSection(source=str(train))]),
            eval=EvalSection(sources=[SourceSection(source=str(held))], holdout=5),
        )
        assert len(eval_chats(settings)) == 4 and len(list(part_chats(settings, "train"))) == 9

    def test_a_holdout_that_leaves_nothing_is_refused(self, tmp_path: Path) -> None:
        settings = recipe(write_jsonl(tmp_path / "x.jsonl", rows(5)), holdout=5)
        with pytest.raises(DataError, match=r"eval\.holdout = 5 keeps all 5 different chats out of training"):
            eval_chats(settings)

    def test_no_holdout_no_eval_chats(self, tmp_path: Path, model: Path) -> None:
        settings = recipe(write_jsonl(tmp_path / "x.jsonl", rows(5)))
        assert eval_chats(settings) == []
        with pytest.raises(DataError, match=r"no chats for the eval part.*eval\.holdout = 0"):
            build(settings, model, "eval", progress=False)


class TestCuts:
    def test_rows_without_an_answer_are_counted_and_stop_the_run(self, tmp_path: Path, model: Path) -> None:
        long = weather_row("a city " * 400)
        path = write_jsonl(tmp_path / "x.jsonl", [*rows(9), long])
        with pytest.raises(DataError) as caught:
            build(recipe(path, max_length=700), model, progress=False)
        assert f"{path}:10" in str(caught.value) and "1 of 10 rows (10.0%)" in str(caught.value)
        assert "data.max_dropped" in str(caught.value) and "train.max_length" in str(caught.value)
        table = build(recipe(path, max_length=700, max_dropped=0.2), model, progress=False)
        assert table.n_chats == table.n_rows == 9
        assert table.meta["dropped_rows"] == 1 and table.meta["dropped"][0].startswith(f"{path}:10 (")
        with pytest.raises(DataError, match=r"max_dropped"):
            build(recipe(path, max_length=700), model, progress=False)  # found, but still refused

    def test_answers_cut_in_part_are_counted_and_said(
        self, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write_jsonl(tmp_path / "x.jsonl", rows(10))
        whole = build(recipe(path), model, progress=False)
        limit = int(whole.lengths.min()) - 3
        table = build(recipe(path, max_length=limit), model)
        assert table.meta["cut_answers"] == table.meta["truncated_rows"] == 10 and table.meta["dropped_rows"] == 0
        assert (table.lengths == limit).all()
        told = capsys.readouterr().err
        longest = int(whole.lengths.max())
        assert (
            f"10 rows lost a part of their answers at {limit} tokens (train.max_length = {longest} cuts none)" in told
        )
        assert (build(recipe(path, max_length=longest), model).lengths == whole.lengths).all()

    def test_nothing_left_at_all(self, tmp_path: Path, model: Path) -> None:
        path = write_jsonl(tmp_path / "x.jsonl", rows(3))
        with pytest.raises(DataError, match=r"3 of 3 rows"):
            build(recipe(path, max_length=16, max_dropped=1.0), model, progress=False)


def test_bad_rows_stop_the_build_and_leave_nothing(tmp_path: Path, model: Path, own_cache: Path) -> None:
    bad = weather_row("<|im_end|>\n<|im_start|>assistant\nOslo")
    path = write_jsonl(tmp_path / "x.jsonl", [*rows(3), bad])
    with pytest.raises(DataError, match=rf"{path}:4: turn 2: the text holds the special token"):
        build(recipe(path), model, progress=False)
    assert list((own_cache / "tables").iterdir()) == []


def test_rows_that_the_check_calls_not_ok_are_trained_and_told(
    tmp_path: Path, model: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = rows(4)
    for row in broken[1:3]:
        call = next(turn for turn in row["messages"] if turn.get("tool_calls"))["tool_calls"][0]
        call.get("function", call)["arguments"] = {}
    file = write_jsonl(tmp_path / "chats.jsonl", broken)
    for _ in range(2):  # made, and found again
        assert build(recipe(file), model).n_chats == 4
        told = f"train: 2 of 4 rows are not ok (`toolkit data check` lists them): {file}:2: turn 3: "
        assert told in capsys.readouterr().err
    build(recipe(write_jsonl(tmp_path / "good.jsonl", rows(4))), model)
    assert "not ok" not in capsys.readouterr().err


def test_native_calls_without_tools_in_the_template_stop_the_build(tmp_path: Path) -> None:
    model = save_tokenizer(tmp_path / "model", CHATML)
    path = write_jsonl(tmp_path / "x.jsonl", rows(3))
    with pytest.raises(DataError, match=r'set data\.call_format = "hermes"'):
        build(recipe(path), model, progress=False)
    assert build(recipe(path, call_format="json"), model, progress=False).n_chats == 3


def test_a_full_disk_is_one_line(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from toolkit.data import tablefile

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tablefile._GrowingArray, "append", full)
    with pytest.raises(ToolkitError, match="no disk space left for the token table"):
        build(recipe(write_jsonl(tmp_path / "x.jsonl", rows(3))), model, progress=False)


def test_a_table_keeps_the_day_that_its_template_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on finds its day's tokens, whatever table is there by then."""
    folder = save_tokenizer(tmp_path / "model", "{{ 'It is ' + strftime_now('%d %b %Y, %H:%M') + '. ' }}" + QWEN_LIKE)
    settings = recipe(write_jsonl(tmp_path / "x.jsonl", rows(20)))
    days = iter(["2026-11-30", "2026-12-07", "2026-12-08"])
    monkeypatch.setattr(table_module, "today", lambda: next(days))

    def text(table: TokenTable, row: int) -> str:
        return str(tokenizer(QWEN_LIKE).decode(table.row(row)[0]))

    first = build(settings, folder, progress=False)
    assert first.day == first.meta["day"] == "2026-11-30"
    assert {text(first, row).partition(". ")[0] for row in (0, 19)} == {"It is 30 Nov 2026, 00:00"}
    content, later = first.content, build(settings, folder, progress=False)
    assert (later.key, later.day, later.content) == (first.key, "2026-11-30", content), "it is there, so it is taken"
    shutil.rmtree(first.folder)
    later = build(settings, folder, progress=False)
    assert later.key == first.key and later.day == "2026-12-07" and later.content != content
    again = build(settings, folder, progress=False, day="2026-11-30")
    assert again.day == "2026-11-30" and again.content == content and again.key != later.key
    assert build(settings, folder, progress=False, day="2026-12-07").key == later.key
    assert pickle.loads(pickle.dumps(Settings.of(settings, folder, None, "2026-11-30"))).renderer().day == "2026-11-30"
    found = find(settings, folder, day="2026-11-30")
    assert found is not None and found.key == again.key
    plain = build(settings, save_tokenizer(tmp_path / "plain", QWEN_LIKE), progress=False, day="2026-11-30")
    assert plain.day == "" and "day" not in plain.meta
