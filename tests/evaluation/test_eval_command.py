"""`toolkit eval` with tiny models, through the command line where it matters."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import toolkit
from tests.forked import Forks
from tests.tiny import make_model, write_chats
from toolkit.chats import Chat
from toolkit.errors import DataError, InputError, ModelError
from toolkit.evaluation import command
from toolkit.evaluation.command import VERSIONS, Options, Table, evaluate_models
from toolkit.evaluation.questions import evenly, held_out
from toolkit.evaluation.results import Evaluation
from toolkit.hardware import detect
from toolkit.inference import named_models as columns_module
from toolkit.inference.named_models import Models, columns_of, settle
from toolkit.recipe import load
from toolkit.terminal import new_console
from toolkit.versions import installed

RECIPE = """
[model]
name = "{model}"
dtype = "float32"
[lora]
r = 4
lora_dropout = 0.0
[[data.sources]]
source = "{chats}"
[data]
call_format = "{call_format}"
[train]
max_length = 512
[eval]
holdout = 6
max_new_tokens = 8
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, chats, and two run folders of it: `run` with an adapter that changes every answer, and `silent` with
    one that is all zero."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("eval")
    make_model(folder / "model")
    write_chats(folder / "chats.jsonl", 30)
    for name, strength in (("run", 0.5), ("silent", 0.0)):
        base = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter, weight in model.named_parameters():
                if "lora_B" in parameter:
                    weight.normal_(std=strength) if strength else weight.zero_()
        model.save_pretrained(folder / name / "adapter")
        text = RECIPE.format(model=folder / "model", chats=folder / "chats.jsonl", call_format="json")
        (folder / name / "recipe.toml").write_text(text)
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def table_of(*words: Path | str, **options: Any) -> Table:
    return evaluate_models([str(word) for word in words], Options(**{"chats": 4} | options), new_console(quiet=True))


def answers(evaluation: Evaluation) -> list[str]:
    return [row.generated for row in evaluation.rows]


def test_through_the_command_line(place: Path, own_cache: Path, tmp_path: Path, forks: Forks) -> None:
    words = ["eval", str(place / "run"), "--chats", "4"]
    done = forks.toolkit(tmp_path / "first", *words, "--out", str(tmp_path / "out"))
    assert done.codes == [0], done.said
    stdout = done.said[0][0]
    assert "4 of the 6 that the recipe holds out" in stdout and "call_format = json" in stdout
    assert "tokens of 4 answers decoded in" in stdout
    for text in ("base", "run", "difference", "exact calls", "McNemar", "from the cache"):
        assert (text in stdout) is (text != "from the cache"), stdout
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"base.jsonl", "run.jsonl", "table.json"}
    again = forks.toolkit(tmp_path / "again", *words, "--json")
    assert again.codes == [0], again.said
    found, stderr = json.loads(again.said[0][0]), again.said[0][1]
    assert "4 answers from the cache" in stderr and "decoded in" not in stderr
    assert [column["name"] for column in found["columns"]] == ["base", "run"]
    assert found["differences"][0]["from"] == "base" and found["differences"][0]["correct"]["n"] == 4
    saved = json.loads((tmp_path / "out" / "table.json").read_text())
    for old, new in zip(saved["columns"], found["columns"], strict=True):
        assert old["overall"] == new["overall"] and new["settings"]["decoded"] == 0


def test_base_columns_are_the_base_model(place: Path, own_cache: Path) -> None:
    plain = dict(table_of(place / "model", recipe=place / "run" / "recipe.toml", cache=False).columns)
    both = dict(table_of(place / "run", cache=False).columns)
    assert answers(both["base"]) == answers(plain["model"])
    assert answers(both["run"]) != answers(both["base"])
    silent = dict(table_of(place / "silent", cache=False).columns)
    assert answers(silent["silent"]) == answers(silent["base"])


def test_an_adapter_that_stays_on_is_noticed(place: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import contextlib

    from peft import PeftModel

    from toolkit.inference.without_adapter import AdapterError

    monkeypatch.setattr(PeftModel, "disable_adapter", lambda self: contextlib.nullcontext())
    with pytest.raises(AdapterError):
        table_of(place / "run")


def test_a_rerun_gives_the_same_rows_without_loading_the_model(
    place: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = table_of(place / "run")
    monkeypatch.setattr(Models, "_load", lambda self, column: pytest.fail("the model was loaded"))
    second = table_of(place / "run")
    assert [evaluation.rows for _, evaluation in second.columns] == [evaluation.rows for _, evaluation in first.columns]


def test_changed_weights_are_decoded_anew(place: Path, own_cache: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "run")
    before = dict(table_of(tmp_path / "run").columns)
    shutil.copytree(place / "silent" / "adapter", tmp_path / "run" / "adapter", dirs_exist_ok=True)
    after = dict(table_of(tmp_path / "run").columns)
    assert after["base"].settings["decoded"] == 0 and after["run"].settings["from_cache"] == 0
    assert answers(after["run"]) == answers(before["base"])


@pytest.mark.parametrize(
    "package", ["torch", *(pytest.param(name, marks=pytest.mark.slow) for name in VERSIONS if name != "torch")]
)
def test_another_version_of_what_decodes_answers_anew(
    place: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    table_of(place / "silent", base=False)
    monkeypatch.setattr(command, "installed", lambda names: {**installed(names), package: "another"})
    (_, after), *_ = table_of(place / "silent", base=False).columns
    assert after.settings["from_cache"] == 0


def test_one_base_column_for_runs_of_one_model(place: Path, own_cache: Path) -> None:
    names = [column.name for column in columns_of([str(place / "run"), str(place / "silent")])]
    assert names == ["base", "run", "silent"]
    names = [column.name for column in columns_of([str(place / "model"), str(place / "run")])]
    assert names == ["model", "run"]
    assert [column.name for column in columns_of([str(place / "run")], base=False)] == ["run"]
    assert columns_of([str(place / "run" / "adapter")])[1].adapter == (place / "run" / "adapter").resolve()


def test_renderings_that_differ_are_an_error(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "run", tmp_path / "other")
    text = RECIPE.format(model=place / "model", chats=place / "chats.jsonl", call_format="jsonrpc")
    (tmp_path / "other" / "recipe.toml").write_text(text)
    both = columns_of([str(place / "run"), str(tmp_path / "other")])
    with pytest.raises(ModelError, match=r"call_format = json, .*\n.*call_format = jsonrpc"):
        settle(both)
    with pytest.raises(ModelError, match="different renderings"):
        settle(both[:1], load(tmp_path / "other" / "recipe.toml").recipe, "x.toml")
    settled = settle(columns_of([str(place / "model")]), load(tmp_path / "other" / "recipe.toml").recipe, "x.toml")
    assert settled[0].template is not None and settled[0].template.rendering.call_format == "jsonrpc"


def test_a_plain_model_is_asked_in_a_format_its_template_can(place: Path) -> None:
    (column,) = settle(columns_of([str(place / "model")]))
    assert column.template is not None and column.template.rendering.call_format == "hermes"


def test_names_that_mean_nothing_are_said_all_at_once(place: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    shutil.copy(place / "run" / "recipe.toml", tmp_path / "half")
    words = [place / "rum", tmp_path / "empty", tmp_path / "half", tmp_path / "x.gguf", place / "run"]
    with pytest.raises(InputError) as caught:
        columns_of([str(word) for word in words])
    problems = [str(problem) for problem in caught.value.problems]
    assert len(problems) == 4
    for problem, said in zip(
        problems, ("did you mean run", "neither a run folder", "no adapter", "no such"), strict=True
    ):
        assert said in problem
    with pytest.raises(InputError, match="named twice"):
        columns_of([str(place / "run"), str(place / "run")])


def test_a_gguf_needs_to_know_its_tokenizer(place: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="--recipe"):
        settle(columns_of([str(tmp_path / "x.gguf")]))
    model, gguf = settle(columns_of([str(place / "model"), str(tmp_path / "x.gguf")]))
    assert gguf.folder == model.folder


def test_executed_through_the_real_path(place: Path, own_cache: Path) -> None:
    table = table_of(place / "run", data="builtin:tools", executed=True, chats=2, max_steps=2)
    for _, evaluation in table.columns:
        assert evaluation.settings["executed"] is True and len(evaluation.rows) == 2
        assert set(evaluation.rows[0].scores) == {"correct", "state", "calls", "in_time"}
    table = table_of(place / "run", data="builtin:test", executed=True, chats=2, max_steps=2)
    assert "test set" in table.chats and [evaluation.of for _, evaluation in table.columns] == ["test set"] * 2
    with pytest.raises(DataError, match="no simulated world"):
        table_of(place / "run", executed=True)


def test_which_chats() -> None:
    chats, line = held_out("builtin:tools", None, 5)
    assert [chat.meta["split"] for chat in chats] == ["phrasing"] * 3 + ["tools"] * 2
    assert line == "5 built-in chats of the development set, unseen phrasing and unseen tools"
    chats, line = held_out("builtin:test", None)
    assert Counter(chat.meta["split"] for chat in chats) == {"phrasing": 500, "tools": 500}
    assert line == "1,000 built-in chats of the test set, unseen phrasing and unseen tools"
    chats, line = held_out("builtin:test", None, 2000, "tools")
    assert {chat.meta["split"] for chat in chats} == {"tools"} and len(chats) == 500
    assert line == "500 built-in chats of the test set, unseen tools"
    assert len(held_out("builtin:test", None, 7)[0]) == 7
    with pytest.raises(DataError, match=r"builtin:tests: no such built-in chats, did you mean builtin:test\?"):
        held_out("builtin:tests", None)
    only, _ = held_out(None, None, 3, "tools")
    assert {chat.meta["split"] for chat in only} == {"tools"}
    with pytest.raises(DataError, match="did you mean phrasing"):
        held_out(None, None, 3, "phrasings")
    with pytest.raises(DataError, match="only built-in chats have splits"):
        held_out("bfcl:x", None, 3, "tools")


def test_evenly_takes_from_everywhere() -> None:
    chats = [Chat((), where=str(number)) for number in range(10)]
    assert [chat.where for chat in evenly(chats, 3)] == ["0", "3", "6"]
    assert evenly(chats, 10) == evenly(chats, 99) == chats


def test_chats_of_a_file_are_taken_from_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    first = write_chats(tmp_path / "many" / "a.jsonl", 10)
    second = write_chats(tmp_path / "many" / "b.jsonl", 4, seed=1)
    chats, line = held_out(str(first), None, 3)
    assert [chat.where for chat in chats] == [f"{first}:{number}" for number in (1, 4, 7)]
    assert line == f"3 of the 10 of {first}"
    for count in (4, 9):
        chats, line = held_out(str(second), None, count)
        assert len(chats) == 4 and line == f"4 of the 4 of {second}"
    chats, line = held_out(str(tmp_path / "many"), None, 2)
    assert [chat.where for chat in chats] == [f"{first}:1", f"{first}:8"]
    assert line == f"2 of the 14 of {tmp_path / 'many'}"


def test_of_a_data_set_of_the_hub_the_first_chats_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it may be too much to fetch."""

    def loaded(specs: Any) -> Iterator[Chat]:
        return (Chat((), where=str(number)) for number in range(specs[0].limit))

    monkeypatch.setattr("toolkit.evaluation.questions.load_chats", loaded)
    chats, line = held_out("some/chats", None, 3)
    assert len(chats) == 3 and line == "the first 3 of some/chats"


def test_a_bfcl_folder_through_the_table(place: Path, own_cache: Path, tmp_path: Path) -> None:
    from tests.evaluation.bfcl_files import ROWS, write_files

    folder = write_files(tmp_path / "files")
    table = table_of(place / "model", data=f"bfcl:{folder}", chats=99)
    assert "not supported: multi_turn_base" in table.chats
    assert set(table.as_dict()["columns"][0]["by_source"]) == {f"bfcl:{category}" for category in ROWS}


def test_a_model_is_loaded_once_for_its_base_and_itself(
    place: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load_it = Models._load
    monkeypatch.setattr(Models, "_load", lambda self, column: (loads.append(column.name), load_it(self, column))[1])
    table_of(place / "run")
    assert loads == ["base"]
    assert columns_module.Models(detect()).precision(columns_of([str(place / "run")])[0]) == "fp32"


def test_a_run_is_not_asked_other_chats_than_those_that_it_held_out(
    place: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of others some may have been trained on, in whatever folder they are looked for."""
    from toolkit.data.keys import source_files
    from toolkit.recipe.places import described
    from toolkit.records import write_json

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    shutil.copy(place / "chats.jsonl", "chats.jsonl")
    folder = Path(shutil.copytree(place / "run", tmp_path / "one" / "run"))
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(model=place / "model", chats="chats.jsonl", call_format="json"))
    sources = load(recipe).recipe.data.sources
    write_json(folder / "environment.json", {"data": {"files": source_files(sources), **described(sources, folder)}})
    rows = table_of(folder, base=False).columns[0][1].rows

    monkeypatch.chdir(tmp_path / "two")
    write_chats(Path("chats.jsonl"), 30, seed=5)
    assert table_of(folder, base=False).columns[0][1].rows == rows  # the same chats by the same names
    lines = (tmp_path / "one" / "chats.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "one" / "chats.jsonl").write_text("".join(lines[1:]))
    for options in ({}, {"recipe": recipe}):
        with pytest.raises(InputError, match=r"chats\.jsonl: not the data that .*/run was trained on .*with --data$"):
            table_of(folder, base=False, **options)
    table_of(folder, base=False, data="chats.jsonl")


def test_a_place_that_no_answers_can_be_written_to_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a model is even looked for."""
    (tmp_path / "taken").write_text("")
    code, _, err = toolkit(capsys, monkeypatch, "eval", "no/such", "--out", str(tmp_path / "taken" / "answers"))
    assert (code, err) == (
        2,
        f"error: --out {tmp_path}/taken/answers: {tmp_path}/taken is a file; name another folder\n",
    )
    monkeypatch.setattr("os.access", lambda place, how: False)
    code, _, err = toolkit(capsys, monkeypatch, "eval", "no/such", "--out", str(tmp_path / "answers"))
    assert (code, err) == (2, f"error: --out {tmp_path}/answers: {tmp_path} can't be written; name another folder\n")
