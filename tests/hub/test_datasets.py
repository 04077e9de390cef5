"""Data sets of the hub: by id, config, split and revision, one file at a time, with the hub's faults."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub.server import Hub, Repo
from toolkit.chats import Chat
from toolkit.data.commits import forget
from toolkit.data.keys import data_key
from toolkit.data.notes import Reading
from toolkit.data.pinning import pinned, pinned_as
from toolkit.data.sources import load_chats
from toolkit.errors import DataError
from toolkit.recipe.schema import Recipe, SourceSection

CARD = b"""---
configs:
- config_name: en
  data_files:
  - split: train
    path: en/train-*.jsonl
  - split: test
    path: en/test.jsonl
- config_name: de
  data_files: de/*.jsonl.gz
---
# Chats
"""


def lines(texts: Iterable[str]) -> bytes:
    rows = (
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": f"{text}!"}]}
        for text in texts
    )
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def repo(hub: Hub) -> Repo:
    repo = hub.dataset("me/chats")
    repo.files = {
        "README.md": CARD,
        "en/train-0.jsonl": lines(["one", "two"]),
        "en/train-1.jsonl": lines(["three", "four"]),
        "en/test.jsonl": lines(["five", "six"]),
        "de/train.jsonl.gz": gzip.compress(lines(["eins"])),
    }
    return repo


def read(reading: Reading | None = None, **given: Any) -> list[Chat]:
    return list(load_chats([SourceSection(**{"source": "me/chats", "config": "en", **given})], reading))


def asked(chats: list[Chat]) -> list[str]:
    return [chat.turns[0].content for chat in chats]


def refused(**given: Any) -> str:
    with pytest.raises(DataError) as error:
        read(**given)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_config_split_and_revision(repo: Repo) -> None:
    chats = read()
    assert asked(chats) == ["one", "two", "three", "four"]
    assert [chat.where for chat in chats][1:3] == ["me/chats/en/train-0.jsonl:2", "me/chats/en/train-1.jsonl:1"]
    assert asked(read(split="test")) == ["five", "six"]
    assert asked(read(config="de")) == ["eins"]
    repo.commits["v1"] = {**repo.files, "en/train-0.jsonl": lines(["before"])}
    assert asked(read(revision="v1")) == ["before", "three", "four"]
    sources = [SourceSection(source="me/chats", config=name) for name in ("en", "de")]
    assert data_key(sources[:1]) != data_key(sources[1:]), "tables of different configs are not one"


def test_files_are_fetched_when_they_are_read_and_once(hub: Hub, repo: Repo) -> None:
    assert asked(read(limit=1)) == ["one"]
    fetched = [one for one in hub.asked if one.startswith("GET /datasets") and ".jsonl" in one]
    assert [one.rpartition("/")[2] for one in fetched] == ["train-0.jsonl"]
    hub.asked.clear()
    assert len(read()) == 4 and len(read()) == 4
    again = [one for one in hub.asked if one.startswith("GET /datasets") and ".jsonl" in one]
    assert [one.rpartition("/")[2] for one in again] == ["train-1.jsonl"]


def test_rows_keep_the_keys_that_they_have(hub: Hub) -> None:
    """Arrow would give every call's arguments the union of all tools' parameters, or refuse two types of one name."""
    rows = []
    for name, given in (("f", {"x": 1}), ("g", {"x": "one", "y": [2]})):
        call = {"type": "function", "function": {"name": name, "arguments": given}}
        tool = {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
        turns = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        rows.append({"messages": turns, "tools": [tool]})
    hub.dataset("me/chats").files = {"data.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()}
    chats = read(config=None)
    assert [chat.turns[1].tool_calls[0].arguments for chat in chats] == [{"x": 1}, {"x": "one", "y": [2]}]


def test_a_bad_row_has_its_file_and_line(hub: Hub, repo: Repo) -> None:
    repo.files["en/train-1.jsonl"] += b'{"messages": "none"}\n'
    reading = Reading()
    assert len(read(reading)) == 4
    assert [problem.where for problem in reading.by_cause()] == ["me/chats/en/train-1.jsonl:3"]


def test_parquet_files_are_read_as_local_ones(hub: Hub, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in lines(["five", "six"]).splitlines()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    hub.dataset("me/chats").files = {"data/train-00000-of-00001.parquet": (tmp_path / "x.parquet").read_bytes()}
    chats = read(config=None)
    assert asked(chats) == ["five", "six"]
    assert chats[1].where == "me/chats/data/train-00000-of-00001.parquet:2"


def test_slices_and_files_of_other_forms_are_read_by_datasets(hub: Hub, repo: Repo) -> None:
    assert asked(read(split="train[1:3]")) == ["two", "three"]
    card = b"---\nconfigs:\n- config_name: en\n  data_files: data.csv\n  sep: ;\n---\n"
    hub.dataset("me/chats").files = {"data.csv": b"instruction;output\nHi;Hello\n", "README.md": card}
    forget()
    (chat,) = read()
    assert [turn.content for turn in chat.turns] == ["Hi", "Hello"] and chat.where == "me/chats:train:1"


@pytest.mark.parametrize("split", ["train", "train[:4]"])
def test_commands_that_only_tokenise_read_them_too(repo: Repo, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    """As within toolkit.environment.without_torch."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert len(read(split=split)) == 4 and sys.modules["torch"] is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"config": None}, 'me/chats: config has to be given, one of "en", "de"'),
        ({"config": "eng"}, 'me/chats: no config "eng", did you mean en?'),
        ({"split": "tset"}, 'me/chats: no split "tset", did you mean test?'),
        ({"split": "validation"}, 'me/chats: no split "validation"; there is "train", "test"'),
        ({"revision": "v9"}, "me/chats: the data set can't be loaded from the hub: "),
        ({"source": "me/nothing"}, "me/nothing: the data set can't be loaded from the hub: "),
    ],
)
def test_what_there_is_not(repo: Repo, given: dict[str, Any], said: str) -> None:
    assert refused(**given).startswith(said)


@pytest.mark.parametrize(
    ("pattern", "how", "status", "said"),
    [
        ("", "gone", 0, "can't be loaded from the hub"),
        ("/datasets/me/chats", "status", 429, "too many requests, says the hub (429)"),
        ("GET .*train-1", "status", 429, "me/chats/en/train-1.jsonl: can't be fetched from the hub: too many requests"),
        ("GET .*train-1", "status", 403, "the token may not do that"),
        ("GET .*train-1", "cut", 0, "me/chats/en/train-1.jsonl: can't be fetched from the hub: "),
        ("GET .*train-1", "gone", 0, "me/chats/en/train-1.jsonl: can't be fetched from the hub: "),
        ("GET .*train-1", "other", 0, "me/chats: train-1.jsonl has the hash "),
    ],
)
def test_a_fault_is_one_line_and_the_next_try_succeeds(
    hub: Hub, repo: Repo, pattern: str, how: str, status: int, said: str
) -> None:
    hub.spoil(pattern, how, status)
    assert said in refused()
    hub.faults.clear()
    assert len(read()) == 4


def test_a_gated_data_set(hub: Hub, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.gated = True
    monkeypatch.delenv("HF_TOKEN")
    assert "it is gated: accept its licence on the hub" in refused()


def test_without_the_hub_what_was_fetched_before_is_read(hub: Hub, repo: Repo) -> None:
    assert len(read()) == 4
    hub.spoil("", "gone")
    assert len(read()) == 4


def moved(repo: Repo) -> tuple[str, str]:
    """Move the branch to a commit with other chats; (before, after)."""
    before = repo.sha
    repo.commits[before] = repo.files
    repo.files = {**repo.files, "en/train-0.jsonl": lines(["new"])}
    forget()  # as in another process
    return before, repo.sha


def test_a_branch_that_moved_is_seen(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    source = SourceSection(source="me/chats", config="en")
    assert len(read()) == 4
    key = data_key([source])
    before, after = moved(repo)
    assert data_key([source]) != key, "a table from before is not this one's"
    assert f"me/chats: main has moved on the hub, from commit {before[:10]} to {after[:10]}" in capsys.readouterr().err
    assert asked(read()) == ["new", "three", "four"]
    forget()
    assert asked(read()) == ["new", "three", "four"] and not capsys.readouterr().err, "it is said once"


def test_what_stays_where_it_is_is_not_asked_for(hub: Hub, repo: Repo) -> None:
    sha = repo.sha
    at = [SourceSection(source="me/chats", revision=sha), SourceSection(source="me/chats", commit=sha, revision="main")]
    hub.asked.clear()
    assert data_key(at[:1]) == data_key(at[1:]) and not hub.asked
    assert data_key(at[:1]) == data_key([SourceSection(source="me/chats")]), "the branch is there now"


def test_a_run_stays_at_the_commit_that_it_began_with(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    begun = pinned(Recipe.model_validate({"data": {"sources": [{"source": "me/chats", "config": "en"}]}}))
    assert len(list(load_chats(begun.data.sources))) == 4
    before, _ = moved(repo)
    sources = [{"source": "me/chats", "config": "en"}, {"source": "me/chats", "revision": "v1"}]
    given = Recipe.model_validate({"data": {"sources": sources}})
    resumed = pinned_as(given, begun)
    assert [one.commit for one in resumed.data.sources] == [before, None], "of another revision nothing is known"
    assert asked(list(load_chats(resumed.data.sources[:1]))) == ["one", "two", "three", "four"]
    assert not capsys.readouterr().err
    assert asked(read()) == ["new", "three", "four"], "another run begins where the branch is"
    assert f"from commit {before[:10]}" in capsys.readouterr().err, "which the run has left behind for it"


def test_without_the_hub_the_commit_that_was_read_is_taken_and_said(
    hub: Hub, repo: Repo, capsys: pytest.CaptureFixture[str]
) -> None:
    source = SourceSection(source="me/chats", config="en")
    assert len(read()) == 4
    key, (before, _) = data_key([source]), moved(repo)
    hub.spoil("", "gone")
    assert data_key([source]) == key and len(read()) == 4
    said = capsys.readouterr().err
    assert "me/chats: the hub can't be asked where main is: " in said and f"at commit {before[:10]}" in said


def test_a_data_set_that_was_never_read_has_a_key_without_the_hub(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.spoil("", "gone")
    assert data_key([SourceSection(source="me/chats")]) and not capsys.readouterr().err


@pytest.mark.slow
def test_the_commands_that_only_tokenise(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    """In processes that have not imported PyTorch, and read the data set for several parts."""
    hub.dataset("me/chats").files = {"train.jsonl": lines(map(str, range(20)))}
    (tmp_path / "mine.toml").write_text(
        f'[model]\nname = {json.dumps(str(tiny_model))}\n[[data.sources]]\nsource = "me/chats"\n'
        "[eval]\nholdout = 4\nearly_stopping_patience = 0\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
    environment |= {"HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    for verb, said in (("build", "eval   4 chats"), ("check", "data ok")):
        words = [sys.executable, "-m", "toolkit", "data", verb, "mine.toml"]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and said in done.stdout, done.stderr


BUILD = """
import sys
from pathlib import Path
from huggingface_hub import constants
constants.HF_HUB_DISABLE_XET = True
from toolkit.data.table import build
from toolkit.recipe import load
table = build(load(Path("big.toml")).recipe, Path(sys.argv[1]), progress=False)
status = Path("/proc/self/status").read_text()  # not getrusage: a process's peak there begins with its parent's
print(table.n_chats, 1024 * int(status.partition("VmHWM:")[2].split()[0]))
"""


@pytest.mark.slow
def test_a_data_set_that_is_larger_than_memory(hub: Hub, tiny_model: Path, tmp_path: Path) -> None:
    """The table of 180 MB of rows in 6 files is made in the memory that one of 30 MB takes, and some."""
    peaks = {}
    for files in (1, 6):
        (tmp_path / "big.toml").write_text(
            f'[model]\nname = {json.dumps(str(tiny_model))}\n[[data.sources]]\nsource = "me/big-{files}"\n'
            "[data]\nnum_proc = 1\n[eval]\nholdout = 0\nearly_stopping_patience = 0\n"
        )
        rows = [{**json.loads(line), "notes": "x" * 300_000} for line in lines(map(str, range(100))).splitlines()]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        hub.dataset(f"me/big-{files}").files = {f"{number}.jsonl": data for number in range(files)}
        environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)}
        words = [sys.executable, "-c", BUILD, str(tiny_model)]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        chats, peaks[files] = map(int, done.stdout.split()[-2:])
        assert chats == 100 * files
    assert peaks[6] < peaks[1] + 60e6, peaks
